"""Run a client as long as a web application: a lifespan for FastAPI, Starlette and other ASGI frameworks."""

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
    """Return a lifespan that runs a client, for ``FastAPI(lifespan=lifespan(client, setup))``.

    At startup, the client connects. Then ``setup(client)`` subscribes and binds handlers, before the application
    accepts requests. An error of either ends the startup, and with it the server. At shutdown, the client
    disconnects.

    While the application runs, the client reconnects after a lost connection. If it cannot reconnect at all, the
    application continues without it: the client logs a critical message, and ``client.state`` is ``failed``. To do
    more, such as ending the process, bind a handler to ``Events.STATE_CHANGE``.

    Args:
        client: The client.
        setup: An async function that gets the connected client. The default is none.

    Returns:
        A function that takes the application, and returns a context manager. Your own lifespan can enter it.
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
            "the application continues without its Reverb client: %s",
            error,
            extra={"reverb_address": client.config.address},
        )
