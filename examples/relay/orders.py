"""The work of the readers in this directory: they keep a copy of an application's orders.

Replace it by your work. An entry may come twice: marked as ``again``, or because a reader died before it
acknowledged the entry. Here, this changes nothing: each order has a version, and older versions are ignored. A gap
says that entries may be missing: then ``read_all`` reads all orders from the application's database.
"""

import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any

SHOP = os.environ.get("SHOP_DATABASE", "shop.db")  # the application's own database, or its API
COPY = os.environ.get("COPY_DATABASE", "copy.db")

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, status TEXT NOT NULL, version INTEGER NOT NULL)"
)
UPDATE = """
    INSERT INTO orders VALUES (:id, :status, :version)
    ON CONFLICT (id) DO UPDATE SET status = excluded.status, version = excluded.version
    WHERE excluded.version > version
"""


def take(entry: Mapping[str, str]) -> None:
    """Handle an entry of the stream. ``entry`` has its fields."""
    if entry["event"] == "reverb:gap":
        read_all(entry["data"])
    elif entry["event"] == "order.changed":
        change(json.loads(entry["data"]))


def change(order: Mapping[str, Any]) -> None:
    """Write an order into the copy if it is newer than the copy's version."""
    with closing(sqlite3.connect(COPY, timeout=30)) as copy, copy:
        copy.execute(SCHEMA)
        is_newer = copy.execute(UPDATE, order).rowcount == 1
    if is_newer:  # other work that must happen once for each change, such as a mail
        print(f"order {order['id']}: {order['status']}", flush=True)


def read_all(gap: str) -> None:
    """Read all orders from the application's database, which has the changes of the missing entries."""
    print(f"entries may be missing ({json.loads(gap)['reason']}), reading all orders", flush=True)
    with closing(sqlite3.connect(SHOP, timeout=30)) as shop:
        orders = shop.execute("SELECT id, status, version FROM orders").fetchall()
    for id_, status, version in orders:
        change({"id": id_, "status": status, "version": version})
