"""A service that keeps its own copy of data, here an inventory in SQLite, up to date with a Laravel application.

    pip install python-reverb
    export REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    INVENTORY_URL=https://shop.example.com/api/inventory python data_sync.py

Laravel broadcasts ``item.updated`` on ``private-sync.inventory`` with ``{"id": 7, "quantity": 3}``.
``INVENTORY_URL`` answers with a JSON list of all items; without it the copy has gaps where the connection
had some. The copy is ``inventory.db``, or ``DATABASE``. Ends on Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
import urllib.request
from contextlib import closing, suppress
from typing import Any

from reverb import Events, ReverbClient

DATABASE = os.environ.get("DATABASE", "inventory.db")
INVENTORY_URL = os.environ.get("INVENTORY_URL")


def fetch_inventory(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - our own URL
        items: list[dict[str, Any]] = json.load(response)
    return items


def save(database: sqlite3.Connection, items: list[dict[str, Any]]) -> None:
    with database:
        database.executemany("REPLACE INTO item (id, quantity) VALUES (:id, :quantity)", items)
    for item in items:
        print(f"item {item['id']}: {item['quantity']} in stock", flush=True)


async def main() -> None:
    with closing(sqlite3.connect(DATABASE)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, quantity INTEGER NOT NULL)")

        # What was broadcast while there was no connection is not sent again, so every subscription, the first and
        # those after a reconnect, starts from the whole. Updates that arrive meanwhile wait for this handler.
        async def on_subscribed(event: str, data: Any, channel: str | None) -> None:
            if INVENTORY_URL is not None:
                save(database, await asyncio.to_thread(fetch_inventory, INVENTORY_URL))

        def on_updated(event: str, data: dict[str, Any], channel: str | None) -> None:
            save(database, [data])

        async with ReverbClient() as client:
            inventory = await client.subscribe("private-sync.inventory")
            inventory.bind(Events.SUBSCRIPTION_SUCCEEDED, on_subscribed)
            inventory.bind("item.updated", on_updated)
            print(f"{DATABASE} follows the inventory", flush=True)

            listening = asyncio.ensure_future(client.listen())
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, listening.cancel)
            with suppress(asyncio.CancelledError):
                await listening


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
