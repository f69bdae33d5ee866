"""The record of what happened on a server: for assertions, for waiting, and for failure messages of tests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from .._visible import visible
from ..exceptions import plural
from ._wire import decode

__all__ = ["Entry", "Event", "Journal"]

KEPT: Final = 10_000
"""Number of events to keep. Older ones are forgotten, so that a server can run for long."""
KEPT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of events to keep, as they were sent. Their parsed data take several times as much memory."""
SHOWN: Final = 20
"""Number of entries in a failure message."""
_LONGEST: Final = 600
"""Characters of an entry's text."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Event:
    """An event that was published to a channel, or triggered on it."""

    channel: str
    """The channel's name."""
    name: str
    """The event's name."""
    data: Any
    """The parsed JSON data, or the text itself if it is not JSON."""
    socket_id: str | None = None
    """The connection that triggered the event; None if it was published."""
    user_id: Any = None
    """The id of the user who triggered the event; presence channels only."""
    excluded: str | None = None
    """The ``socket_id`` that the publisher passed: the connection that must not get the event. None if all get
    it."""

    @property
    def triggered(self) -> bool:
        """Whether a client triggered the event."""
        return self.socket_id is not None

    def __str__(self) -> str:
        return f"{visible(self.name)} on {visible(self.channel)}: {visible(repr(self.data))}"


@dataclass(frozen=True)
class Entry:
    """Something that happened on the server."""

    time: datetime
    """When it happened, in local time."""
    socket_id: str | None
    """The connection that it happened to; None if it happened to the server."""
    text: str
    """What happened, in words. It is safe to print: texts of clients are shortened, and control characters are
    escaped."""
    event: Event | None = None
    """The event, if it is about one."""
    failed: bool = False
    """Whether the server refused something."""

    def __str__(self) -> str:
        return f"{self.time:%H:%M:%S.%f}  {self.socket_id or '-':<21}  {self.text}"


class Journal:
    """Keeps what happened, calls the watchers, and wakes the callers of :meth:`wait_for`."""

    def __init__(self) -> None:
        self.watchers: list[Callable[[Entry], None]] = []
        self._entries: deque[Entry] = deque(maxlen=SHOWN + 1)
        self._events: deque[tuple[Event, int]] = deque()
        self._bytes = 0
        self._untaken: deque[Event] = deque()
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def events(self) -> list[Event]:
        return [event for event, _ in self._events]

    def note(self, text: str, socket_id: str | None = None, *, failed: bool = False) -> None:
        self._add(Entry(datetime.now(), socket_id, visible(text, _LONGEST), failed=failed))

    def note_event(self, event: Event, size: int) -> None:
        """Record an event that was sent in ``size`` bytes."""
        self._events.append((event, size))
        self._bytes += size
        self._untaken.append(event)
        while len(self._events) > KEPT or self._bytes > KEPT_BYTES:
            self._forget_oldest()
        verb = "triggered" if event.triggered else "published"
        self._add(Entry(datetime.now(), event.socket_id, f"{verb} {event}", event))

    def take_event(self, channel: str, name: str) -> Event | None:
        """Return the oldest such event that was not returned before."""
        for event in self._untaken:
            if (event.channel, event.name) == (channel, name):
                self._untaken.remove(event)
                return event
        return None

    def clear(self) -> None:
        for kept in (self._entries, self._events, self._untaken):
            kept.clear()
        self._bytes = 0

    async def wait_for(self, found: Callable[[], T | None], wanted: str, timeout: float) -> T:
        """Wait until ``found`` returns something; raise a TimeoutError that says what happened instead."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while (result := found()) is None:
            change = loop.create_future()
            self._waiting.append(change)
            await asyncio.wait({change}, timeout=end - loop.time())
            if not change.done():
                self._waiting.remove(change)
                raise TimeoutError(f"{wanted} within {plural(timeout, 'second')}. {self.report()}")
        return result

    def report(self) -> str:
        """Return what happened last, as text with one entry a line."""
        if not self._entries:
            return "Nothing happened."
        lines = [str(entry) for entry in self._entries][-SHOWN:]
        return "\n".join(["What happened:" if len(lines) == len(self._entries) else "What happened last:", *lines])

    def _forget_oldest(self) -> None:
        event, size = self._events.popleft()
        self._bytes -= size
        if self._untaken and self._untaken[0] is event:
            self._untaken.popleft()

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        for watcher in self.watchers:
            watcher(entry)
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)


def parsed(text: str) -> Any:
    """Return the parsed JSON, or the text itself if it is not JSON."""
    try:
        return decode(text)
    except ValueError:
        return text
