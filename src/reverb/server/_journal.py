"""What happened on a server: to ask for, to wait for, and to read when a test fails."""

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
"""Events; older ones are forgotten, so that a server may run for long."""
KEPT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of these events, as they were sent. Their data take several times as much when they are parsed."""
SHOWN: Final = 20
"""Entries in a failure."""
_LONGEST: Final = 600
"""Characters of an entry's text."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Event:
    """An event that went to a channel.

    ``data`` is what its JSON says, or the text itself where it is none. ``socket_id`` is the connection that
    triggered it, None if it was published; ``user_id`` says who that is on a presence channel.
    """

    channel: str
    name: str
    data: Any
    socket_id: str | None = None
    user_id: Any = None

    @property
    def triggered(self) -> bool:
        """Whether it is a client event."""
        return self.socket_id is not None

    def __str__(self) -> str:
        return f"{visible(self.name)} on {visible(self.channel)}: {visible(repr(self.data))}"


@dataclass(frozen=True)
class Entry:
    """One thing that happened: when, to which connection (None for the server), and what.

    ``text`` is fit for a terminal: what clients sent is shortened in it, and control characters are escapes.
    """

    time: datetime
    socket_id: str | None
    text: str
    event: Event | None = None
    failed: bool = False
    """Whether somebody was refused something."""

    def __str__(self) -> str:
        return f"{self.time:%H:%M:%S.%f}  {self.socket_id or '-':<21}  {self.text}"


class Journal:
    """Keeps what happened, tells watchers, and wakes those who wait."""

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
        """Note an event that was sent in ``size`` bytes."""
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
        """Wait until ``found`` returns something; raise TimeoutError, which tells what happened instead."""
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
        """Say what happened last, an entry a line."""
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
    """Return what an event's JSON says, or the text itself where it is none."""
    try:
        return decode(text)
    except ValueError:
        return text
