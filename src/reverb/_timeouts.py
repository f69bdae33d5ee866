"""Timeouts for many items, with one timer of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")


class Timeouts(Generic[T]):
    """Calls ``on_timeout`` with each item whose time is over.

    For many items that are nearly all stopped before their time is over: channels that are subscribed by the
    thousand at once. One timer for each would take longer than most of the work of a subscribe.
    """

    __slots__ = ("_due", "_heap", "_loop", "_number", "_on_timeout", "_timer", "_timer_due")

    def __init__(self, on_timeout: Callable[[T], None]) -> None:
        self._on_timeout = on_timeout
        self._due: dict[T, float] = {}
        """When the time of each item is over, on the event loop's clock."""
        self._heap: list[tuple[float, int, T]] = []
        """The same in order, including items that were stopped. The number orders items with equal times."""
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0

    def start(self, item: T, seconds: float) -> None:
        """Give ``item`` this time. If it has a time already, the earlier one counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        known = self._due.get(item)
        if known is not None and known <= due:
            return
        self._due[item] = due
        self._number += 1
        heappush(self._heap, (due, self._number, item))
        if self._timer is None or due < self._timer_due or loop is not self._loop:
            self._set_timer(loop)

    def stop(self, item: T) -> None:
        """Forget ``item``. Does nothing if its time is over, or it has none."""
        if self._due.pop(item, None) is not None and not self._due:
            self.clear()

    def clear(self) -> None:
        """Forget all items."""
        self._due.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop, self._timer_due = loop, self._heap[0][0]
        self._timer = loop.call_at(self._timer_due, self._on_timer, loop)

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = max(self._timer_due, loop.time())  # a timer may be early by the clock's resolution
        last = self._number  # items that are started meanwhile have to wait for a later turn of the loop
        try:
            while self._heap and self._heap[0][0] <= now and self._heap[0][1] <= last:
                due, _, item = heappop(self._heap)
                if self._due.get(item) == due:
                    del self._due[item]
                    self._on_timeout(item)
        finally:
            while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
                heappop(self._heap)
            if self._heap:
                self._set_timer(loop)
