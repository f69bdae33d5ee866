"""A Reverb-compatible server for development and tests.

::

    async with ReverbServer(port=8080) as server:
        print(f"ws://{server.host}:{server.port}/app/app-key")

It answers as Laravel Reverb 1.10 does, with the peculiarities that a client must handle. It listens on the
loopback interface by default. Do not use it in production: use Laravel Reverb.
"""

from __future__ import annotations

from ._app import App, RateLimiting
from ._journal import Entry, Event
from ._server import BlockingServer, Node, ReverbServer

__all__ = ["App", "BlockingServer", "Entry", "Event", "Node", "RateLimiting", "ReverbServer"]
