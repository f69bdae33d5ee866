"""Clients in a thread of their own, for tests without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from threading import Thread

from reverb import ReverbClient, ReverbConfig

DEADLINE = 15.0


class Clients:
    """Joins channels, each time with another client."""

    def __init__(self, config: ReverbConfig, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._loop = loop
        self._stack = AsyncExitStack()

    def join(self, channel: str, user_id: str | None = None) -> None:
        asyncio.run_coroutine_threadsafe(self._join(channel, user_id), self._loop).result(DEADLINE)

    def leave(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(DEADLINE)

    async def _join(self, channel: str, user_id: str | None) -> None:
        client = await self._stack.enter_async_context(ReverbClient(self._config))
        await client.subscribe(channel, None if user_id is None else {"user_id": user_id, "user_info": {}})


@contextmanager
def clients_of(config: ReverbConfig) -> Iterator[Clients]:
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        clients = Clients(config, loop)
        yield clients
        clients.leave()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE)
        loop.close()
