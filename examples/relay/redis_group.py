"""Reads the relay's stream in Redis or Valkey (7 or later) with a consumer group.

    pip install redis
    RELAY_URL=redis://127.0.0.1:6379/0 python redis_group.py reverb

Several readers share the entries. Each needs its own name (CONSUMER). To keep the order, let the relay write
partitions, and start exactly one reader for each partition:

    reverb relay … --partitions 2
    CONSUMER=0 python redis_group.py '{reverb}:0'
    CONSUMER=1 python redis_group.py '{reverb}:1'

A reader acknowledges an entry when it is done. If it dies before, the entry stays pending: the same CONSUMER gets
it at its next start, another one after a minute. After SIGTERM, a reader finishes its entries (at most ten) and
ends.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable

import orders
import redis

URL = os.environ.get("RELAY_URL", "redis://127.0.0.1:6379/0")
GROUP = os.environ.get("GROUP", "orders")
CONSUMER = os.environ.get("CONSUMER", socket.gethostname())
STUCK = float(os.environ.get("STUCK_AFTER", "60"))  # seconds; more than any entry takes
TRIES = 5

Fields = dict[str, str]


def read(stream: str, handle: Callable[[Fields], None]) -> None:
    """Call ``handle`` with the fields of each entry, until SIGTERM or SIGINT."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    with redis.Redis.from_url(URL, decode_responses=True) as client:
        reader = Reader(client, stream, handle)
        while not ending.is_set():
            try:
                is_good = reader.step()
            except (redis.ConnectionError, redis.TimeoutError) as error:
                print(f"cannot read {stream}: {error}", file=sys.stderr)
                is_good = False
            if not is_good:
                ending.wait(1)


class Reader:
    def __init__(self, client: redis.Redis, stream: str, handle: Callable[[Fields], None]) -> None:
        self.client = client
        self.stream = stream
        self.handle = handle
        self.is_new = True
        self.has_pending = True  # entries that this consumer got and did not acknowledge
        self.next_look = 0.0
        self.gap: str | None = None

    def step(self) -> bool:
        """Handle the next entries, or wait a second for them. Return False to try again later."""
        if self.is_new:
            self.create_group()
        if time.monotonic() >= self.next_look:
            self.look_around()
        if self.gap is not None:
            if self.attempt(gap(self.gap)) is not None:
                return False
            self.gap = None
        # "0" means pending entries, in order and one by one; ">" means entries that nobody got yet.
        start, count = ("0", 1) if self.has_pending else (">", 10)
        self.has_pending = True  # until all of it has worked
        answer = self.client.xreadgroup(GROUP, CONSUMER, {self.stream: start}, count=count, block=1000)
        entries = answer[0][1] if answer else []
        for id_, fields in entries:
            if not self.finish(id_, fields):
                return False
        self.has_pending = start == "0" and bool(entries)
        return True

    def create_group(self) -> None:
        try:
            self.client.xgroup_create(self.stream, GROUP, id="0", mkstream=True)  # "0": from the beginning
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # the group exists already
                raise
        self.is_new = False

    def look_around(self) -> None:
        """Take over entries that other readers got and did not finish for a long time. Find entries that were
        trimmed too early."""
        _, claimed, trimmed = self.client.xautoclaim(
            self.stream, GROUP, CONSUMER, int(1000 * STUCK), start_id="0-0", count=100
        )
        self.has_pending = self.has_pending or bool(claimed)
        (unread,) = (each["lag"] for each in self.client.xinfo_groups(self.stream) if each["name"] == GROUP)
        if trimmed or (unread or 0) > self.client.xlen(self.stream):
            self.gap = "entries were trimmed before they were read, or done"
        self.next_look = time.monotonic() + STUCK / 2

    def finish(self, id_: str, fields: Fields) -> bool:
        error = self.attempt(fields or gap("an entry was trimmed before it was done"))
        if error is not None:
            (pending,) = self.client.xpending_range(self.stream, GROUP, id_, id_, 1)
            if pending["times_delivered"] < TRIES:
                return False
            self.client.xadd(f"{self.stream}:dead", {**fields, "entry": id_, "reason": repr(error)})
        self.client.xack(self.stream, GROUP, id_)
        return True

    def attempt(self, fields: Fields) -> Exception | None:
        try:
            self.handle(fields)
        except Exception as error:
            traceback.print_exc()
            return error
        return None


def gap(reason: str) -> Fields:
    """Return an entry as the relay writes it where events may be missing."""
    data = {"from": None, "to": time.time_ns() // 1_000_000, "reason": reason}
    return {"channel": "", "event": "reverb:gap", "data": json.dumps(data)}


if __name__ == "__main__":
    read(sys.argv[1], orders.take)
