"""The latest events and gaps, numbered in their order, bounded in count and in bytes. Without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import groupby, islice
from typing import NamedTuple

import msgspec

__all__ = ["Batch", "EventLog"]

MAX_ENTRIES = 10_000
MAX_BYTES = 32 * 1024 * 1024


class _Event(msgspec.Struct, frozen=True, gc=False):
    n: int
    time: int
    channel: str
    event: str
    user_id: str | None
    size: int
    data: str
    sealed: bool


class _Gap(msgspec.Struct, frozen=True, gc=False, tag="gap"):
    n: int
    time: int
    channel: str
    downtime: float


class _Entry(NamedTuple):
    """An entry as JSON. It is encoded once for all pages."""

    is_gap: bool
    json: bytes


class Batch(NamedTuple):
    """The next entries for a page."""

    dropped: int
    """The number of entries before these that the page never gets, because the log no longer has them."""
    frames: list[bytes]
    """Messages for the page: one for each run of events, and one for each gap."""
    last: int
    """The number of the last entry in the batch."""


class EventLog:
    """Keeps the latest entries, at most ``max_entries`` and ``max_bytes``. The first number is 1."""

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self.last = 0
        """The number of the latest entry; 0 before the first entry."""
        self.bytes = 0
        """The size of the entries as JSON, in bytes."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: deque[_Entry] = deque()

    @property
    def first(self) -> int:
        """The number of the oldest entry in the log; ``last + 1`` if the log is empty."""
        return self.last - len(self._entries) + 1

    def add_event(
        self, time: int, channel: str, event: str, data: bytes, user_id: str | None, *, sealed: bool
    ) -> None:
        """Add an event that arrived at ``time``, in milliseconds since 1970."""
        text = data.decode()
        self._add(_Event(self.last + 1, time, channel, event, user_id, len(data), text, sealed), is_gap=False)

    def add_gap(self, time: int, channel: str, downtime: float) -> None:
        """Add a gap: events of a channel may be missing here."""
        self._add(_Gap(self.last + 1, time, channel, downtime), is_gap=True)

    def after(self, n: int, max_entries: int, max_bytes: int) -> Batch:
        """Return the entries after entry ``n``: at least one, and as many as the bounds allow."""
        start = max(n + 1, self.first)
        taken: list[_Entry] = []
        size = 0
        for entry in islice(self._entries, start - self.first, start - self.first + max_entries):
            size += len(entry.json)
            if taken and size > max_bytes:
                break
            taken.append(entry)
        return Batch(start - n - 1, list(_frames(taken)), start + len(taken) - 1)

    def before(self, n: int, max_entries: int, max_bytes: int) -> list[bytes]:
        """Return the entries right before entry ``n``, as JSON, in their order, within the same bounds."""
        end = min(max(n - self.first, 0), len(self._entries))
        taken: list[bytes] = []
        size = 0
        for _, entry in islice(reversed(self._entries), len(self._entries) - end, None):
            size += len(entry)
            if len(taken) == max_entries or (taken and size > max_bytes):
                break
            taken.append(entry)
        return taken[::-1]

    def _add(self, entry: msgspec.Struct, *, is_gap: bool) -> None:
        json = msgspec.json.encode(entry)
        self.last += 1
        self.bytes += len(json)
        self._entries.append(_Entry(is_gap, json))
        while len(self._entries) > self._max_entries or self.bytes > self._max_bytes:
            self.bytes -= len(self._entries.popleft().json)


def _frames(entries: Iterable[_Entry]) -> Iterable[bytes]:
    for is_gap, run in groupby(entries, key=lambda entry: entry.is_gap):
        if is_gap:
            yield from (entry.json for entry in run)
        else:
            yield b'{"type":"events","events":[' + b",".join(entry.json for entry in run) + b"]}"
