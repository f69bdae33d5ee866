"""A service that keeps a copy of a Laravel application's data, here an inventory, in SQLite.

    pip install "python-reverb[http]"
    export REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    INVENTORY_URL=https://shop.example.com/api/inventory INVENTORY_TOKEN=… python data_sync.py

Laravel numbers the changes of the inventory and broadcasts each change on ``private-sync.inventory`` with its
number: ``item.updated`` with ``{"id": 7, "quantity": 3, "version": 12}``, and ``item.deleted`` with ``{"id": 7,
"version": 13}``. ``INVENTORY_URL`` answers with all items and the number of the last change in them:
``{"version": 13, "items": [{"id": 8, "quantity": 1, "version": 9}]}``. Keep the last number in a row of its own,
and increment it in the transaction of the change. Then the numbers grow in the order of the commits.

Events and answers may come late, twice, or in another order: older data changes nothing. The program fetches all
items at the start, after each gap, when a number is missing, after an event that it could not store, and every
hour. It retries until that works. The copy is the file ``inventory.db`` (or ``DATABASE``): read its view
``inventory``. The program ends on Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

import reverb
from reverb import Events, ReverbClient

DATABASE = os.environ.get("DATABASE", "inventory.db")
INVENTORY_URL = os.environ.get("INVENTORY_URL", "")
HEADERS = {"Accept": "application/json"}
if TOKEN := os.environ.get("INVENTORY_TOKEN"):
    HEADERS["Authorization"] = f"Bearer {TOKEN}"
EVERY = float(os.environ.get("SYNC_INTERVAL", "3600"))
LONGEST_DELAY = float(os.environ.get("SYNC_DELAY_MAX", "60"))

log = logging.getLogger("data_sync")


@dataclass
class Item:
    id: int
    quantity: int
    version: int


@dataclass
class Deletion:
    id: int
    version: int


@dataclass
class Snapshot:
    version: int
    items: list[Item]


SCHEMA = """
PRAGMA journal_mode = WAL;  -- who reads the copy waits for no write
CREATE TABLE IF NOT EXISTS snapshot (version INTEGER NOT NULL);
INSERT INTO snapshot SELECT -1 WHERE NOT EXISTS (SELECT * FROM snapshot);
-- A quantity of NULL is a deleted item, kept until a snapshot is newer: an event about it may come late.
CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, quantity INTEGER, version INTEGER NOT NULL);
CREATE VIEW IF NOT EXISTS inventory AS SELECT id, quantity FROM item WHERE quantity IS NOT NULL;
"""

APPLY = """
INSERT INTO item SELECT :id, :quantity, :version WHERE :version > (SELECT version FROM snapshot)
ON CONFLICT (id) DO UPDATE SET quantity = :quantity, version = :version WHERE :version > version
"""


class Copy:
    """The copy. Its thread does all work that waits for the disk, one task after another."""

    def __init__(self, database: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._database = database
        self._thread = thread
        self._newest = 0  # the largest number so far

    def follows(self, version: int) -> bool:
        """Take the number of an event. Return whether no number before it is missing."""
        newest, self._newest = self._newest, max(self._newest, version)
        return version <= newest + 1

    async def apply(self, item: Item | Deletion) -> bool:
        """Store the change of an event. Return whether it was new."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._apply, item)

    async def replace(self, snapshot: Snapshot) -> None:
        """Make the copy equal to the snapshot, and keep later changes from events."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._replace, snapshot)
        self._newest = max(self._newest, snapshot.version)

    def _apply(self, item: Item | Deletion) -> bool:
        row = {"id": item.id, "quantity": getattr(item, "quantity", None), "version": item.version}
        with self._database:
            return self._database.execute(APPLY, row).rowcount > 0

    def _replace(self, snapshot: Snapshot) -> None:
        with self._database:  # one transaction: all or nothing
            ((version,),) = self._database.execute("SELECT version FROM snapshot")
            if snapshot.version < version:
                hint = "if numbers have begun anew, delete the copy"
                raise ValueError(f"the answer is of version {snapshot.version}, the copy of {version}; {hint}")
            self._database.execute("UPDATE snapshot SET version = ?", [snapshot.version])
            self._database.execute("DELETE FROM item WHERE version <= ?", [snapshot.version])
            rows = [(item.id, item.quantity, item.version) for item in snapshot.items]
            self._database.executemany("INSERT OR IGNORE INTO item VALUES (?, ?, ?)", rows)


async def fetch(http: aiohttp.ClientSession) -> Snapshot:
    async with http.get(INVENTORY_URL, headers=HEADERS, raise_for_status=True) as answer:
        return msgspec.json.decode(await answer.read(), type=Snapshot)


async def synchronise(copy: Copy, due: asyncio.Event) -> None:
    """Fetch all items when it is due, and retry until it works. Meanwhile, events are stored, too."""
    failures = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        while True:
            due.clear()  # before the request: a gap from now on needs another one
            try:
                snapshot = await fetch(http)
                await copy.replace(snapshot)
            except Exception as error:  # any error: without this task, the copy would not change any more
                failures += 1
                delay = random.uniform(0.5, 1) * min(LONGEST_DELAY, 2**failures)  # noqa: S311
                what = f"{type(error).__name__}: {error}"  # not repr(error), which may contain the token
                log.warning("the inventory can't be fetched: %s; again in %.1f seconds", what, delay)
                await asyncio.sleep(delay)
            else:
                failures = 0
                print(f"{DATABASE} has all {len(snapshot.items)} items of version {snapshot.version}", flush=True)
                await asyncio.sleep(1)  # at most once a second
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(due.wait(), EVERY)


def main() -> int:
    if not INVENTORY_URL:
        print("INVENTORY_URL is missing: where all items come from", file=sys.stderr)
        return 2
    with (
        closing(sqlite3.connect(DATABASE, check_same_thread=False)) as database,
        ThreadPoolExecutor(max_workers=1) as thread,  # waits until everything is written
    ):
        database.executescript(SCHEMA)
        copy, tasks, due = Copy(database, thread), [], asyncio.Event()

        async def store(change: Item | Deletion) -> bool:
            if not copy.follows(change.version):  # for example, the application could not publish an event
                due.set()
            return await copy.apply(change)

        # The annotations make the data an Item or a Deletion. Other data is logged, and no handler gets it.
        async def on_updated(event: str, data: Item, channel: str | None) -> None:
            if await store(data):
                print(f"item {data.id}: {data.quantity} in stock", flush=True)

        async def on_deleted(event: str, data: Deletion, channel: str | None) -> None:
            if await store(data):
                print(f"item {data.id}: deleted", flush=True)

        async def setup(client: ReverbClient) -> None:
            def on_gap(event: str, data: Any, channel: str | None) -> None:
                due.set()

            inventory = await client.subscribe("private-sync.inventory")
            inventory.bind("item.updated", on_updated)
            inventory.bind("item.deleted", on_deleted)
            inventory.bind(Events.RESUBSCRIBED, on_gap)  # the server does not send missed events again
            inventory.bind("error", on_gap)  # nor events that are malformed, or that were not stored
            tasks.append(asyncio.create_task(synchronise(copy, due)))  # run() cancels it

        return reverb.run(setup)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(main())
