"""Who gets which event, and in what order: bindings, and the lanes in which events reach their handlers.

Events of one lane (a channel's, or the client's own) reach its handlers one after another, in the order received.
Lanes do not wait for each other, and nothing in here waits in the way of the socket.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from ._protocol import parse_data

log = logging.getLogger("reverb.dispatch")

ERROR_EVENT = "reverb:error"
WILDCARD = "*"

_ALIASES = {
    "pusher:subscription_succeeded": "pusher_internal:subscription_succeeded",
    "pusher:member_added": "pusher_internal:member_added",
    "pusher:member_removed": "pusher_internal:member_removed",
}
"""pusher-js tells its users the names on the left; servers send those on the right."""
_ERROR_NAMES = frozenset({"error", "pusher:error", ERROR_EVENT})
"""What a handler bound to ``"error"`` gets."""

_FAIR_SHARE = 100
"""Events that a lane delivers before it lets others have a turn."""
_CANCEL_TIMEOUT = 1.0
"""Seconds that a cancelled handler gets to clean up."""
_FLOOD = 4
"""How many times the bounds may be exceeded while a subscribe waits for its answer."""
_ROUTES_KEPT = 1000
"""Bound on the memory that ever new event names could take."""


class PlainHandler(Protocol):
    def __call__(self, event: str, data: Any, channel: str | None, /) -> Any: ...


class UserHandler(Protocol):
    """A handler with a parameter ``user_id`` is told who sent a client event on a presence channel."""

    def __call__(self, event: str, data: Any, channel: str | None, /, *, user_id: str | None) -> Any: ...


Handler = PlainHandler | UserHandler
"""``(event, data, channel)``, plain or ``async def``; optionally with a keyword parameter ``user_id``."""


class _Binding(NamedTuple):
    event: str
    handler: Handler
    is_async: bool
    takes_user_id: bool

    def matches(self, event: str) -> bool:
        return self.event in (event, WILDCARD) or (self.event == "error" and event in _ERROR_NAMES)


class _Route(NamedTuple):
    """The bindings of one event, and whether all of them can be called on the spot."""

    bindings: tuple[_Binding, ...]
    immediate: bool


_Delivery = tuple[str, Any, str | int | None, tuple[_Binding, ...]]


class Bindings:
    """The handlers bound to a channel or to the client; a channel's end with those of its client."""

    __slots__ = ("__weakref__", "_bound", "_heirs", "_parent", "_routes")

    def __init__(self, parent: Bindings | None = None) -> None:
        self._bound: list[_Binding] = []
        self._routes: dict[str, _Route] = {}
        self._parent = parent
        self._heirs: WeakSet[Bindings] = WeakSet()
        if parent is not None:
            parent._heirs.add(self)

    def bind(self, event: str, handler: Handler) -> None:
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
        name = str(event)
        self._bound.append(
            _Binding(_ALIASES.get(name, name), handler, _is_async(handler), _takes_user_id(handler))
        )
        self._forget_routes()

    def unbind(self, event: str, handler: Handler | None = None) -> None:
        name = _ALIASES.get(str(event), str(event))
        self._bound = [
            each for each in self._bound if each.event != name or (handler is not None and each.handler != handler)
        ]
        self._forget_routes()

    def route(self, event: str) -> _Route:
        route = self._routes.get(event)
        if route is None:
            bindings = self._matching(event)
            route = _Route(bindings, not any(each.is_async or each.takes_user_id for each in bindings))
            if len(self._routes) >= _ROUTES_KEPT:
                self._routes.clear()
            self._routes[event] = route
        return route

    def _matching(self, event: str) -> tuple[_Binding, ...]:
        inherited = () if self._parent is None else self._parent._matching(event)
        return tuple(each for each in self._bound if each.matches(event)) + inherited

    def __bool__(self) -> bool:
        return bool(self._bound)

    def _forget_routes(self) -> None:
        self._routes.clear()
        for heir in self._heirs:
            heir._routes.clear()


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def _takes_user_id(handler: Handler) -> bool:
    try:
        return "user_id" in inspect.signature(handler).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return False


class Dispatcher:
    """Runs the workers of all lanes of one client, and counts what waits for them.

    ``on_pressure`` is called when the events that wait reach ``max_events`` or ``max_bytes``, when they become a
    flood, and when they are down to half of both. Lanes take events all the same: it is up to the one who is
    called that no more come.
    """

    def __init__(self, max_events: int, max_bytes: int, on_pressure: Callable[[], None]) -> None:
        self.closed = False
        self.is_full = False
        self.pending_events = 0
        self.pending_bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._on_pressure = on_pressure
        self._workers: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._workers.add(task)
        task.add_done_callback(self._workers.discard)

    @property
    def is_flooded(self) -> bool:
        """Whether so much waits that nothing justifies taking more."""
        return self.pending_events >= _FLOOD * self._max_events or self.pending_bytes >= _FLOOD * self._max_bytes

    def added(self, size: int) -> None:
        self.pending_events += 1
        self.pending_bytes += size
        if self.is_full:
            if self.is_flooded:
                self._on_pressure()
        elif self.pending_events >= self._max_events or self.pending_bytes >= self._max_bytes:
            self.is_full = True
            self._on_pressure()

    def removed(self, events: int, size: int) -> None:
        self.pending_events -= events
        self.pending_bytes -= size
        if (
            self.is_full
            and self.pending_events <= self._max_events // 2
            and self.pending_bytes <= self._max_bytes // 2
        ):
            self.is_full = False
            self._on_pressure()

    def is_worker(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether ``task`` is running a handler."""
        return task in self._workers

    async def drain(self, timeout: float) -> None:
        """Let handlers finish what was received, for ``timeout`` seconds; then cancel them.

        Called from within a handler, it waits for all others.
        """
        caller = asyncio.current_task()
        try:
            others = self._workers - {caller}
            if others:
                _, slow = await asyncio.wait(others, timeout=timeout)
                if slow:
                    log.warning("cancelling %d handlers that did not finish in %g seconds", len(slow), timeout)
        finally:
            self.closed = True
            others = self._workers - {caller}
            for worker in others:
                worker.cancel()
            if others:
                _, deaf = await asyncio.wait(others, timeout=_CANCEL_TIMEOUT)
                if deaf:
                    log.error("%d handlers still run although they were cancelled", len(deaf))


class Lane:
    """The events of one channel (of the client itself, with the name None) on their way to the handlers."""

    __slots__ = ("_bindings", "_dispatcher", "_held", "_pending", "_releasing", "_working", "name")

    def __init__(self, name: str | None, bindings: Bindings, dispatcher: Dispatcher) -> None:
        self.name = name
        self._bindings = bindings
        self._dispatcher = dispatcher
        self._pending: deque[tuple[str, Any, str | int | None, int]] = deque()
        self._working = False
        self._held = False
        self._releasing: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """The number of events that wait."""
        return len(self._pending)

    def put(self, event: str, data: Any, user_id: str | int | None = None, size: int = 0) -> None:
        """Deliver an event: on the spot where order and handlers allow it, else by a worker.

        ``size`` is that of its message, in bytes.
        """
        if self._working or self._held:
            self._wait(event, data, user_id, size)
            return
        bindings, immediate = self._bindings.route(event)
        if not bindings:
            return
        if immediate and not self._pending:
            self._deliver_now(event, parse_data(data), bindings)
        else:
            self._wait(event, data, user_id, size)
            self._start(self._work())

    def hold(self) -> None:
        """Keep events back until they are released, because handlers are about to be bound."""
        self._held = True

    def release_in(self, seconds: float) -> None:
        """Let held events go after ``seconds``; with 0, once the running piece of the program is through."""
        if self._held:
            self._cancel_release()
            self._releasing = asyncio.get_running_loop().call_later(seconds, self._release)

    def clear(self) -> None:
        """Forget what is not delivered yet."""
        self._cancel_release()
        self._held = False
        if self._pending:
            self._dispatcher.removed(len(self._pending), sum(size for *_, size in self._pending))
            self._pending.clear()

    def _release(self) -> None:
        self._releasing = None
        self._held = False
        if self._pending and not self._working:
            self._start(self._work())

    def _cancel_release(self) -> None:
        if self._releasing is not None:
            self._releasing.cancel()
            self._releasing = None

    def _wait(self, event: str, data: Any, user_id: str | int | None, size: int) -> None:
        self._pending.append((event, data, user_id, size))
        self._dispatcher.added(size)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._working = True
        self._dispatcher.start(work)

    async def _work(self, *started: _Delivery) -> None:
        try:
            for delivery in started:
                await self._deliver(*delivery)
            turn = 0
            while self._pending and not self._dispatcher.closed:
                event, data, user_id, size = self._pending.popleft()
                self._dispatcher.removed(1, size)
                bindings = self._bindings.route(event).bindings
                if bindings:
                    await self._deliver(event, parse_data(data), user_id, bindings)
                turn += 1
                if turn % _FAIR_SHARE == 0:
                    await asyncio.sleep(0)
        finally:
            self._working = False

    async def _deliver(
        self, event: str, data: Any, user_id: str | int | None, bindings: tuple[_Binding, ...]
    ) -> None:
        for binding in bindings:
            try:
                if binding.takes_user_id:
                    sender = None if user_id is None else str(user_id)
                    result = binding.handler(event, data, self.name, user_id=sender)  # type: ignore[call-arg]
                else:
                    result = binding.handler(event, data, self.name)  # type: ignore[call-arg]
                if result is not None and inspect.isawaitable(result):
                    await result
            except Exception as error:
                self._report(event, binding, error)
            except asyncio.CancelledError as error:
                if _is_cancelled_itself():
                    raise
                self._report(event, binding, error)

    def _deliver_now(self, event: str, data: Any, bindings: tuple[_Binding, ...]) -> None:
        for index, binding in enumerate(bindings):
            try:
                result = binding.handler(event, data, self.name)  # type: ignore[call-arg]
            except Exception as error:
                self._report(event, binding, error)
                continue
            if result is not None and inspect.isawaitable(result):
                # A plain function that returned a coroutine: the rest of the event has to wait for it.
                started = binding._replace(handler=lambda *_, result=result: result)
                self._start(self._work((event, data, None, (started, *bindings[index + 1 :]))))
                return

    def _report(self, event: str, binding: _Binding, error: BaseException) -> None:
        name = getattr(binding.handler, "__qualname__", repr(binding.handler))
        log.error("handler %s of %r on %s raised", name, event, self.name or "the client", exc_info=error)
        if event != ERROR_EVENT:
            self.put(
                ERROR_EVENT,
                {
                    "message": f"handler {name} of {event!r} raised {error!r}",
                    "code": None,
                    "exception": error,
                },
            )


def _is_cancelled_itself() -> bool:
    """Whether the running task was cancelled, and not something that a handler waited for (3.10 can't tell)."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0
