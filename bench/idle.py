"""``python -m bench.idle WHO PORT SECONDS``: measure an idle client with one channel.

It prints the bytes of memory of the process, and how often the process woke up in this time. It imports nothing
else, because that would take memory, too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

import psutil

_CHANNEL = "orders"
_SUBSCRIBE = json.dumps({"event": "pusher:subscribe", "data": {"channel": _CHANNEL}})

Wait = Callable[[], Awaitable[None]]


async def _reverb(port: int, wait: Wait) -> None:
    from reverb import ReverbClient, ReverbConfig

    async with ReverbClient(ReverbConfig(app_key="bench", host="127.0.0.1", port=port, scheme="ws")) as client:
        await client.subscribe(_CHANNEL)
        await wait()


async def _websockets(port: int, wait: Wait) -> None:
    from websockets.asyncio.client import connect

    async with connect(f"ws://127.0.0.1:{port}/app/bench?protocol=7") as websocket:
        await websocket.recv()
        await websocket.send(_SUBSCRIBE)
        await websocket.recv()
        await wait()


async def _asyncpusher(port: int, wait: Wait) -> None:
    from asyncpusher.pusher import Pusher

    pusher = Pusher("bench", secure=False, custom_host="127.0.0.1", custom_port=port)
    await pusher.connect()
    await pusher.subscribe(_CHANNEL)
    await wait()
    await pusher.disconnect()


async def _pysher(port: int, wait: Wait) -> None:
    from pysher import Pusher

    pusher = Pusher("bench", secure=False, custom_host="127.0.0.1", port=port, daemon=True)
    loop, established = asyncio.get_running_loop(), asyncio.Event()
    pusher.connection.bind("pusher:connection_established", lambda _: loop.call_soon_threadsafe(established.set))
    pusher.connect()
    await established.wait()
    pusher.subscribe(_CHANNEL)
    await wait()
    await asyncio.to_thread(pusher.disconnect, 1)


WHO = {"reverb": _reverb, "websockets": _websockets, "asyncpusher": _asyncpusher, "pysher": _pysher}


def _main(who: str, port: int, seconds: float) -> None:
    process = psutil.Process()

    async def wait() -> None:
        await asyncio.sleep(0.5)
        before = process.num_ctx_switches().voluntary
        await asyncio.sleep(seconds)
        wake_ups = process.num_ctx_switches().voluntary - before - 1  # the last one is this function's own
        print(json.dumps({"bytes": process.memory_info().rss, "wake_ups": wake_ups}))

    asyncio.run(WHO[who](port, wait))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
