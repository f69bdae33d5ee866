"""Events as an async iterator."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from datetime import datetime, timezone
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from ._binding import Binding
from ._dispatch import Dispatcher, EventQueue
from .exceptions import ReverbError, again

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Event", "EventStream", "Gap"]

T = TypeVar("T")
Item = TypeVar("Item", covariant=True)


class Event(msgspec.Struct, Generic[T], frozen=True):
    """An event that has arrived."""

    name: str
    """The name of the event."""
    data: T
    """The data: parsed JSON, or the type that you asked for."""
    channel: str | None
    """The name of the channel. None for an event without a channel."""
    user_id: str | None
    """The sender of a client event on a presence channel. None for all other events."""
    received_at: datetime
    """When the client delivered the event, in UTC."""


class Gap(msgspec.Struct, frozen=True):
    """A place where events of a channel are missing, or may be missing. The server does not send them again."""

    channel: str
    """The name of the channel."""
    downtime: float
    """Seconds for which the channel was not subscribed. 0 where the client dropped events."""
    dropped: int = 0
    """How many events the client dropped because too many waited; see ``max_pending`` of
    :meth:`ReverbClient.subscribe`. Default: 0."""


class EventStream(AsyncIterator[Item]):
    """An async iterator over the events from now on; :meth:`reverb.ReverbClient.events` makes it.

    It ends when you unsubscribe from the channel or the client disconnects, after the events that arrived before
    that. When you leave the loop for good, it stops collecting events. :meth:`aclose` and the end of an ``async
    with`` do that, too.

    Raises:
        ConnectionError: While you iterate: the connection is lost for good, or the client is not connected and
            does not connect.
        RuntimeError: While you iterate: the loop is in a handler of the same channel. The next event waits for
            that handler.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        return await self._buffer.next()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Stop collecting events, and discard those that wait."""
        self._buffer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # "break" does not call the iterator. But no handler refers to this object, so it is deleted then.
        self._buffer.close_in_any_thread()


class Buffer:
    """The events between the queues of channels and one stream. Its methods ``put…`` are bound as handlers.

    When ``size`` items wait, a queue that brings another one waits, as it waits for a slow handler.
    """

    def __init__(
        self,
        size: int,
        dispatcher: Dispatcher,
        drain_timeout: float,
        why_no_events: Callable[[], ReverbError | None],
        queue: EventQueue | None,
    ) -> None:
        self.has_end = False
        """Whether the end has come. Events that arrived before the end may still follow."""
        self._items: deque[Any] = deque()
        self._failure: ReverbError | None = None
        self._bindings: list[Binding] = []
        self._size = size
        self._dispatcher = dispatcher
        self._drain_timeout = drain_timeout
        self._why_no_events = why_no_events
        self._queue = queue
        self._is_complete = False
        """Whether no event can follow any more."""
        self._is_closed = False
        self._watchers: set[asyncio.Future[None]] = set()
        """Tasks that wait for an item or the end."""
        self._waiting: list[asyncio.Future[None]] = []
        """Queues that wait for room."""

    def add(self, binding: Binding) -> None:
        """Unbind this binding at the end of the stream."""
        binding.is_of_stream = True
        self._bindings.append(binding)

    # --- for the queues -----------------------------------------------------------------------------------------

    def put(self, event: str, data: Any, channel: str | None, *, user_id: str | None) -> Awaitable[None] | None:
        return self._put(Event(event, data, channel, user_id, datetime.now(timezone.utc)))

    def put_gap(self, event: str, data: Any, channel: str | None) -> Awaitable[None] | None:
        return self._put(Gap(channel or "", data["downtime"]))

    def put_dropped(self, event: str, data: Any, channel: str | None) -> Awaitable[None] | None:
        return self._put(Gap(channel or "", 0.0, data["count"]))

    def _put(self, item: Any) -> Awaitable[None] | None:
        if self._is_closed:
            return None
        self._items.append(item)
        _release(self._watchers)
        if len(self._items) < self._size or self.has_end:
            return None
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(room)
        return room

    # --- for the stream ----------------------------------------------------------------------------------------

    async def next(self, timeout: float | None = None) -> Any:
        """Return the next item.

        Raises StopAsyncIteration, or the error of the connection, after the last item; an error if no event can
        come; and asyncio.TimeoutError after ``timeout`` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not self._items:
            if not self.has_end:
                self._check_can_wait()
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    raise asyncio.TimeoutError
                await self._wait_changed(left)
            elif not self._is_complete:
                await self._wait_finished(deadline)
            else:
                failure = self._failure
                self.close()
                if failure is not None:
                    raise again(failure)
                raise StopAsyncIteration
        item = self._items.popleft()
        if len(self._items) < self._size:
            self._make_room()
        return item

    def _make_room(self) -> None:
        _release(self._waiting)
        self._waiting.clear()

    async def _wait_finished(self, deadline: float | None) -> None:
        """Wait for handlers that may still put items that arrived before the end."""
        left = inf if deadline is None else deadline - monotonic()
        if await self._dispatcher.wait_finished(min(self._drain_timeout, left)) and left <= self._drain_timeout:
            raise asyncio.TimeoutError
        self._is_complete = True

    def _check_can_wait(self) -> None:
        """Raise if no event can come."""
        error = self._why_no_events()
        if error is not None:
            raise error
        home = self._dispatcher.loop
        if home is not None and home is not asyncio.get_running_loop():
            raise RuntimeError("the client is connected on another event loop: await its events there")
        if self._queue is not None and self._dispatcher.is_handler_of(self._queue):
            raise RuntimeError(
                f"the next event on {self._queue.name or 'the client'} comes after this handler has ended: "
                "wait for it in another task"
            )

    async def _wait_changed(self, timeout: float | None) -> None:
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.add(changed)
        try:
            await asyncio.wait({changed}, timeout=timeout)
        finally:
            self._watchers.discard(changed)

    # --- for the client ----------------------------------------------------------------------------------------

    def end(self, failure: ReverbError | None = None) -> None:
        """End the stream after the items that may still come. No queue waits for it from now on."""
        if not self.has_end:
            self.has_end = True
            self._failure = failure
            self._make_room()
            _release(self._watchers)

    def end_here(self) -> None:
        """End the stream after the items that it has."""
        self.end()
        self._is_complete = True
        for binding in self._bindings:
            binding.unbind()

    def close(self) -> None:
        self.end_here()
        self._is_closed = True
        self._items.clear()

    def close_in_any_thread(self) -> None:
        """Close. The garbage collector may call this in another thread than that of the event loop."""
        loop = self._dispatcher.loop
        if loop is None or loop.is_closed() or loop is asyncio._get_running_loop():
            self.close()
        else:
            with suppress(RuntimeError):  # the loop was closed in this moment
                loop.call_soon_threadsafe(self.close)


def _release(waiting: Collection[asyncio.Future[None]]) -> None:
    for each in waiting:
        if not each.done():
            with suppress(RuntimeError):  # its loop is closed
                each.set_result(None)


class Streams:
    """All streams of a client. ``idle`` returns the reason why no event can come; None if events can come."""

    def __init__(
        self, dispatcher: Dispatcher, drain_timeout: float, why_no_events: Callable[[], ReverbError | None]
    ) -> None:
        self._dispatcher = dispatcher
        self._drain_timeout = drain_timeout
        self._why_no_events = why_no_events
        self._owners: WeakKeyDictionary[Buffer, object | None] = WeakKeyDictionary()

    def new(self, size: int, owner: object | None, queue: EventQueue | None) -> Buffer:
        """Make the buffer of a stream.

        It ends with its ``owner``, the state of a channel, or with the connection. ``queue`` is the queue that
        brings all of its events, if one does.
        """
        buffer = Buffer(size, self._dispatcher, self._drain_timeout, self._why_no_events, queue)
        self._owners[buffer] = owner
        return buffer

    def start(self) -> None:
        """Handle a new connection: its events are not for streams that have ended."""
        for buffer in list(self._owners):
            if buffer.has_end:
                buffer.end_here()

    def end(self, failure: ReverbError | None) -> None:
        """Handle the end of the connection: there is no further one."""
        for buffer in list(self._owners):
            buffer.end(failure)

    def end_of(self, owner: object) -> None:
        for buffer, each in list(self._owners.items()):
            if each is owner:
                buffer.end_here()
