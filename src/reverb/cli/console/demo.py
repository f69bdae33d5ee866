"""``reverb console --demo``: a server in this process, with clients that send sample events."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

from ... import ReverbAPI, ReverbClient, ReverbConfig, ReverbError
from ...server import App, ReverbServer

__all__ = ["demo_server"]

_INTERVAL = 1.0
_ORDERS, _STOCK, _ROOM = "orders", "private-stock", "presence-room.1"


@asynccontextmanager
async def demo_server() -> AsyncIterator[ReverbConfig]:
    """Run the server, and yield the settings to connect to it."""
    app = App(id="demo", key="demo-key", secret=secrets.token_hex(16))
    async with ReverbServer([app]) as server:
        config = ReverbConfig(**server.settings)
        acting = asyncio.create_task(_act(config), name="reverb console demo")
        try:
            yield config
        finally:
            acting.cancel()
            await asyncio.wait({acting})


async def _act(config: ReverbConfig) -> None:
    """Act as two clients on the channels, and as the application that publishes."""
    async with ReverbAPI(config) as api, ReverbClient(config) as ann, ReverbClient(config) as bob:
        await ann.subscribe(_ORDERS)
        stock = await bob.subscribe(_STOCK)
        await ann.subscribe(_STOCK)
        room = await ann.subscribe(_ROOM, {"user_id": "1", "user_info": {"name": "Ann"}})
        await bob.subscribe(_ROOM, {"user_id": "2", "user_info": {"name": "Bob"}})
        for number in count(1):
            with suppress(ReverbError):  # a user of the demo may close these connections
                match number % 4:
                    case 0:
                        await stock.trigger("counted", {"sku": "LAMP-7", "left": random.randrange(90)})  # noqa: S311
                    case 1:
                        await api.trigger(_ORDERS, r"App\Events\OrderPlaced", _order(number))
                    case 2:
                        await room.trigger("typing", {"typing": bool(number % 8 == 2)})
                    case _:
                        await api.trigger([_ORDERS, _STOCK], r"App\Events\OrderShipped", _order(number - 2))
            await asyncio.sleep(_INTERVAL)


def _order(number: int) -> dict[str, Any]:
    return {
        "order": {
            "id": number,
            "customer": {"name": "Zoë Fischer", "city": "Łódź"},
            "items": [{"sku": "LAMP-7", "count": 1 + number % 3, "price": "49.90"}],
            "paid": True,
            "note": None,
        }
    }
