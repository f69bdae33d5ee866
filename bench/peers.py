"""Others that receive Pusher events: clients from PyPI, and what one writes by hand with a WebSocket library.

Their packages are installed by ``make bench`` only, so each is imported where it is used. Handlers get the same
parsed payload from all of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .load import EVENT, LAST_EVENT, Load
from .receivers import APP_KEY, Address, Receiver, Tally
from .sender import HOST

_SUCCEEDED = "pusher_internal:subscription_succeeded"


@asynccontextmanager
async def _asyncpusher(address: Address, load: Load, tally: Tally) -> AsyncIterator[None]:
    from asyncpusher.pusher import Pusher

    async def handle(data: Any) -> None:
        await tally.handle_async(EVENT, data, None)

    subscribed = asyncio.Event()

    async def on_subscribed(_: Any) -> None:
        subscribed.set()

    pusher = Pusher(APP_KEY, secure=False, custom_host=HOST, custom_port=address.port)
    await pusher.connect()
    channel = await pusher.subscribe(load.channel(0))
    channel.bind(_SUCCEEDED, on_subscribed)
    channel.bind(EVENT, handle)
    channel.bind(LAST_EVENT, handle)
    await subscribed.wait()
    yield
    await pusher.disconnect()


def _subscribe(load: Load) -> str:
    return json.dumps({"event": "pusher:subscribe", "data": {"channel": load.channel(0)}})


@asynccontextmanager
async def _websockets(address: Address, load: Load, tally: Tally) -> AsyncIterator[None]:
    from websockets.asyncio.client import connect

    async with connect(address.url, compression=None) as websocket:
        await websocket.recv()
        await websocket.send(_subscribe(load))
        await websocket.recv()

        async def read() -> None:
            async for text in websocket:
                message = json.loads(text)
                await tally.handle_async(message["event"], json.loads(message["data"]), message["channel"])

        reading = asyncio.create_task(read())
        yield
    await reading


@asynccontextmanager
async def _aiohttp(address: Address, load: Load, tally: Tally) -> AsyncIterator[None]:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.ws_connect(address.url) as websocket:
        await websocket.receive()
        await websocket.send_str(_subscribe(load))
        await websocket.receive()

        async def read() -> None:
            async for frame in websocket:
                message = json.loads(frame.data)
                await tally.handle_async(message["event"], json.loads(message["data"]), message["channel"])

        reading = asyncio.create_task(read())
        yield
        reading.cancel()


@asynccontextmanager
async def _pysher(address: Address, load: Load, tally: Tally) -> AsyncIterator[None]:
    from pysher import Pusher

    loop = asyncio.get_running_loop()
    finish = tally.finish

    def finish_from_thread() -> None:
        loop.call_soon_threadsafe(finish)

    tally.finish = finish_from_thread  # type: ignore[method-assign]
    established = asyncio.Event()
    pusher = Pusher(
        APP_KEY, secure=False, custom_host=HOST, port=address.port, log_level=logging.ERROR, daemon=True
    )
    pusher.connection.bind("pusher:connection_established", lambda _: loop.call_soon_threadsafe(established.set))
    pusher.connect()
    await established.wait()
    channel = pusher.subscribe(load.channel(0))
    for event in (EVENT, LAST_EVENT):
        channel.bind(event, lambda text: tally.handle(EVENT, json.loads(text), None))
    await asyncio.sleep(0.2)  # it may forget the confirmation, which may come before it knows the channel
    yield
    await asyncio.to_thread(pusher.disconnect, 1)


PEERS = {
    "asyncpusher": Receiver(_asyncpusher),
    "websockets + json": Receiver(_websockets),
    "aiohttp + json": Receiver(_aiohttp),
    "pysher": Receiver(_pysher),
}
