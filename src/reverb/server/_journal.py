"""What happened on a server: to ask for, to wait for, and to read when a test fails."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from ..exceptions import plural
from ._wire import decode

__all__ = ["Entry", "Event", "Journal"]

KEPT: Final = 10_000
"""Entries and events; older ones are forgotten, so that a server may run for long."""
SHOWN: Final = 20
"""Entries in a failure."""

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
        return f"{self.name} on {self.channel}: {_shortened(self.data)}"


@dataclass(frozen=True)
class Entry:
    """One thing that happened: when, to which connection (None for the server), and what."""

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
        self.entries: deque[Entry] = deque(maxlen=KEPT)
        self.events: deque[Event] = deque(maxlen=KEPT)
        self.watchers: list[Callable[[Entry], None]] = []
        self._untaken: deque[Event] = deque(maxlen=KEPT)
        self._waiting: list[asyncio.Future[None]] = []

    def note(self, text: str, socket_id: str | None = None, *, failed: bool = False) -> None:
        self._add(Entry(datetime.now(), socket_id, text, failed=failed))

    def note_event(self, channel: str, name: str, data: Any, socket_id: str | None, user_id: Any = None) -> None:
        event = Event(channel, name, _parsed(data), socket_id, user_id)
        self.events.append(event)
        self._untaken.append(event)
        verb = "triggered" if event.triggered else "published"
        self._add(Entry(datetime.now(), socket_id, f"{verb} {event}", event))

    def take_event(self, channel: str, name: str) -> Event | None:
        """Return the oldest such event that was not returned before."""
        for event in self._untaken:
            if (event.channel, event.name) == (channel, name):
                self._untaken.remove(event)
                return event
        return None

    def clear(self) -> None:
        for kept in (self.entries, self.events, self._untaken):
            kept.clear()

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
        if not self.entries:
            return "Nothing happened."
        lines = [str(entry) for entry in self.entries][-SHOWN:]
        return "\n".join(["What happened:" if len(lines) == len(self.entries) else "What happened last:", *lines])

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        for watcher in self.watchers:
            watcher(entry)
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)


def _parsed(data: Any) -> Any:
    if isinstance(data, str):
        try:
            return decode(data)
        except ValueError:
            return data
    return data


def _shortened(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 200 else f"{text[:200]}…"
