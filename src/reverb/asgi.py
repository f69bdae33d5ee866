"""A client that lives as long as a web application: a lifespan for FastAPI, Starlette, and the like."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from .client import ReverbClient
from .exceptions import ReverbError

__all__ = ["lifespan"]

log = logging.getLogger("reverb.asgi")


def lifespan(
    client: ReverbClient, setup: Callable[[ReverbClient], Awaitable[Any]] | None = None
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return a lifespan, as in ``FastAPI(lifespan=lifespan(client, setup))``.

    At startup the client connects, and ``setup(client)`` subscribes and binds, before the application takes
    requests. What either raises ends the startup, and with it the server. At shutdown the client disconnects.

    While the application runs, a lost connection is made again. When it is lost for good, the application goes on
    without it: that is logged as critical, ``client.state`` is ``failed`` from then on, and a handler of
    ``Events.STATE_CHANGE`` can do more, such as ending the process.

    What it returns takes the application and is an async context manager; a lifespan of your own can enter it.
    """

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[None]:
        async with client:
            if setup is not None:
                await setup(client)
            watching = asyncio.create_task(_watch(client))
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.wait({watching})

    return run


async def _watch(client: ReverbClient) -> None:
    try:
        await client.listen()
    except ReverbError as error:
        log.critical(
            "the application goes on without its Reverb client: %s",
            error,
            extra={"reverb_address": client.config.address},
        )
