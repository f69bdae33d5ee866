"""Events as an async iterator, for those who would rather loop than be called."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from ._binding import Binding
from ._dispatch import Dispatcher
from .exceptions import ReverbError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Event", "EventStream", "Gap"]

T = TypeVar("T")
Item = TypeVar("Item", covariant=True)


class Event(msgspec.Struct, Generic[T], frozen=True):
    """An event that has arrived."""

    name: str
    data: T
    """Parsed JSON, or the type that was asked for."""
    channel: str | None
    user_id: str | None
    """Who sent a client event on a presence channel; None for all other events."""
    received_at: datetime
    """When it was its turn to be delivered, in UTC."""


class Gap(msgspec.Struct, frozen=True):
    """A time in which a channel was not subscribed. What was published meanwhile does not come again."""

    channel: str
    downtime: float
    """How long it took, in seconds."""


class EventStream(AsyncIterator[Item]):
    """Made by ``events()`` of a client, a channel, or a user; collects events from then on.

    It ends when the channel is unsubscribed or the client disconnects, after what was received until then; it
    raises what :meth:`ReverbClient.listen` raises when the connection is lost for good. Leaving the loop for good
    unbinds it, as do :meth:`aclose` and the end of an ``async with``.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        buffer = self._buffer
        while not buffer.items:
            if await buffer.is_at_end():
                self._buffer.close()
                if buffer.failure is not None:
                    raise buffer.failure
                raise StopAsyncIteration
        return buffer.take()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Collect no more events, and forget those that wait."""
        self._buffer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # "break" leaves a loop without a word to the iterator, but no handler holds this object, so it goes then.
        self._buffer.close()


class Buffer:
    """What waits between the lanes and a stream. Its methods ``put…`` are the stream's handlers.

    When ``size`` items wait, a lane that brings one more has to wait, like for any slow handler.
    """

    def __init__(self, size: int, dispatcher: Dispatcher, drain_timeout: float) -> None:
        self.items: deque[Any] = deque()
        self.has_end = False
        """Whether the end has come, which what is on its way may still come before."""
        self.failure: ReverbError | None = None
        self._bindings: list[Binding] = []
        self._size = size
        self._dispatcher = dispatcher
        self._drain_timeout = drain_timeout
        self._is_complete = False
        """Whether nothing can be on its way any more."""
        self._is_closed = False
        self._changed = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        """The lanes that wait for room."""

    def add(self, binding: Binding) -> None:
        """Unbind, at the end, what brings items in here."""
        binding.is_of_stream = True
        self._bindings.append(binding)

    # --- for the lanes -----------------------------------------------------------------------------------------

    def put(self, event: str, data: Any, channel: str | None, *, user_id: str | None) -> Awaitable[None] | None:
        return self._put(Event(event, data, channel, user_id, datetime.now(timezone.utc)))

    def put_gap(self, event: str, data: Any, channel: str | None) -> Awaitable[None] | None:
        return self._put(Gap(channel or "", data["downtime"]))

    def _put(self, item: Any) -> Awaitable[None] | None:
        if self._is_closed:
            return None
        self.items.append(item)
        self._changed.set()
        if len(self.items) < self._size or self.has_end:
            return None
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(room)
        return room

    # --- for the stream ----------------------------------------------------------------------------------------

    def take(self) -> Any:
        item = self.items.popleft()
        if len(self.items) < self._size:
            self._make_room()
        return item

    async def is_at_end(self) -> bool:
        """Wait for an item or the end; called when there is no item."""
        if not self.has_end:
            self._changed.clear()
            await self._changed.wait()
        elif not self._is_complete:
            await self._dispatcher.settle(self._drain_timeout)  # lanes may be about to bring what came before
            self._is_complete = True
        return self._is_complete and not self.items

    # --- for the client ----------------------------------------------------------------------------------------

    def end(self, failure: ReverbError | None = None) -> None:
        """Let the stream end behind what is on its way to it. No lane waits for it any more."""
        if not self.has_end:
            self.has_end = True
            self.failure = failure
            self._make_room()
            self._changed.set()

    def end_here(self) -> None:
        """Let the stream end behind what has come."""
        self.end()
        self._is_complete = True
        for binding in self._bindings:
            binding.unbind()

    def close(self) -> None:
        self.end_here()
        self._is_closed = True
        self.items.clear()

    def _make_room(self) -> None:
        for room in self._waiting:
            if not room.done():
                with suppress(RuntimeError):  # of a loop that is closed
                    room.set_result(None)
        self._waiting.clear()
