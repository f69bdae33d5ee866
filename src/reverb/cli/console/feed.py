"""What has happened: events and gaps in one numbered order, bounded in count and in bytes. Without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import groupby, islice
from typing import NamedTuple

import msgspec

__all__ = ["Batch", "Feed"]

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
    """An entry as JSON, which is encoded once however many pages there are."""

    is_gap: bool
    json: bytes


class Batch(NamedTuple):
    """What a page gets next."""

    dropped: int
    """Entries before these that the page has not got, and does not get any more."""
    frames: list[bytes]
    """Messages for the page: runs of events in one, each gap in one of its own."""
    last: int
    """The number of the last entry that it has then."""


class Feed:
    """The latest entries, at most ``max_entries`` and ``max_bytes`` of them; numbered from 1."""

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self.last = 0
        """The number of the latest entry; 0 before the first."""
        self.bytes = 0
        """What the entries take as JSON."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: deque[_Entry] = deque()

    @property
    def first(self) -> int:
        """The number of the oldest entry that is still there; ``last + 1`` where there is none."""
        return self.last - len(self._entries) + 1

    def add_event(
        self, time: int, channel: str, event: str, data: bytes, user_id: str | None, *, sealed: bool
    ) -> None:
        """Add an event that came at ``time``, in milliseconds since 1970."""
        text = data.decode()
        self._add(_Event(self.last + 1, time, channel, event, user_id, len(data), text, sealed), is_gap=False)

    def add_gap(self, time: int, channel: str, downtime: float) -> None:
        """Say that events of a channel are missing here."""
        self._add(_Gap(self.last + 1, time, channel, downtime), is_gap=True)

    def after(self, n: int, max_entries: int, max_bytes: int) -> Batch:
        """Return what comes after entry ``n``: one entry, or as many as keep within the bounds."""
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
        """Return, in their order, the entries right before entry ``n``, as JSON, within the same bounds."""
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
