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
import sqlite3
import sys
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from reverb import Events, ReverbClient

DATABASE = os.environ.get("DATABASE", "inventory.db")
INVENTORY_URL = os.environ.get("INVENTORY_URL")


@dataclass
class Item:
    id: int
    quantity: int


def fetch_inventory(url: str) -> list[Item]:
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - our own URL
        return [Item(item["id"], item["quantity"]) for item in json.load(response)]


def save(database: sqlite3.Connection, items: list[Item]) -> None:
    with database:
        rows = [(item.id, item.quantity) for item in items]
        database.executemany("REPLACE INTO item (id, quantity) VALUES (?, ?)", rows)
    for item in items:
        print(f"item {item.id}: {item.quantity} in stock", flush=True)


def main() -> int:
    with closing(sqlite3.connect(DATABASE)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, quantity INTEGER NOT NULL)")

        # What was broadcast while there was no connection is not sent again, so every subscription, the first and
        # those after a reconnect, starts from the whole. Updates that arrive meanwhile wait for this handler.
        async def on_subscribed(event: str, data: Any, channel: str | None) -> None:
            if INVENTORY_URL is not None:
                save(database, await asyncio.to_thread(fetch_inventory, INVENTORY_URL))

        # The annotation makes it an Item. Data that is none is logged, and does not get here.
        def on_updated(event: str, data: Item, channel: str | None) -> None:
            save(database, [data])

        async def setup(client: ReverbClient) -> None:
            inventory = await client.subscribe("private-sync.inventory")
            inventory.bind(Events.SUBSCRIPTION_SUCCEEDED, on_subscribed)
            inventory.bind("item.updated", on_updated)
            print(f"{DATABASE} follows the inventory", flush=True)

        return ReverbClient().run(setup)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(main())
