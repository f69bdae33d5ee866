"""A Reverb-compatible server for development and tests, on the loopback interface.

::

    async with ReverbServer(port=8080) as server:
        print(f"ws://{server.host}:{server.port}/app/app-key")

It answers as Laravel Reverb 1.10 does, down to the quirks that a client has to live with. Needs the extra
``python-reverb[server]``.
"""

from __future__ import annotations

from ._app import App
from ._server import ReverbServer

__all__ = ["App", "ReverbServer"]
