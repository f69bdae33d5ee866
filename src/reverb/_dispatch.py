"""Who gets which event, and in what order: bindings, and the lanes in which events reach their handlers.

Events of one lane (a channel's, or the client's own) reach its handlers one after another, in the order received.
Lanes do not wait for each other, and nothing in here waits in the way of the socket.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, NamedTuple, Protocol, cast

from ._protocol import DECODE_ERRORS, Message, decode_json, parse_data
from .exceptions import ReverbError

log = logging.getLogger("reverb.dispatch")

ERROR_EVENT = "reverb:error"
WILDCARD = "*"

_ALIASES = {
    "pusher:subscription_succeeded": "pusher_internal:subscription_succeeded",
    "pusher:member_added": "pusher_internal:member_added",
    "pusher:member_removed": "pusher_internal:member_removed",
    "pusher:subscription_count": "pusher_internal:subscription_count",
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

Reader = Callable[[str, Any], Awaitable[Any]]
"""Turns the event and the data of a message into what handlers get; raises for what can't be read."""


class _Binding(NamedTuple):
    event: str
    handler: Handler
    is_async: bool
    takes_user_id: bool

    def matches(self, event: str) -> bool:
        return self.event in (event, WILDCARD) or (self.event == "error" and event in _ERROR_NAMES)


class Route(NamedTuple):
    """Who gets an event of a lane. The two common cases have a field of their own, which makes them fast."""

    plain: PlainHandler | None
    """The handler, where there is one that can be called on the spot and nobody else."""
    awaited: PlainHandler | None
    """The handler, where there is one ``async def`` and nobody else."""
    bindings: tuple[_Binding, ...]
    immediate: bool
    """Whether all of them can be called on the spot."""


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def _takes_user_id(handler: Handler) -> bool:
    try:
        return "user_id" in inspect.signature(handler).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return False


class Dispatcher:
    """Knows the lanes of one client, runs their workers, and counts what waits for them.

    ``on_pressure`` is called when the events that wait reach ``max_events`` or ``max_bytes``, when they become a
    flood, and when they are down to half of both. Lanes take events all the same: it is up to the one who is
    called that no more come.
    """

    def __init__(self, max_events: int, max_bytes: int, on_pressure: Callable[[], None]) -> None:
        self.lanes: dict[str | None, Lane] = {}
        """Those that take events from the server, by the channel's name."""
        self.closed = False
        self.is_full = False
        self.pending_events = 0
        self.pending_bytes = 0
        self.few_events = max_events // 2
        """So many may still wait when room is made."""
        self._few_bytes = max_bytes // 2
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._on_pressure = on_pressure
        self._workers: set[asyncio.Task[None]] = set()
        self._ready: deque[Lane] = deque()
        """Lanes with events that no worker has taken on yet."""
        self._free: asyncio.Task[None] | None = None
        """The worker that takes them on next: one that does not wait for a handler."""

    def work_on(self, lane: Lane) -> None:
        """Have a worker deliver what waits on ``lane``."""
        self._ready.append(lane)
        if self._free is None:
            self._start_worker()

    def _start_worker(self) -> None:
        worker = self._free = asyncio.get_running_loop().create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)
        worker.add_done_callback(self._replace)  # also where it was cancelled before it began

    async def _work(self) -> None:
        """Take on lane after another; a worker that has to wait for a handler leaves the others to the next."""
        worker = asyncio.current_task()
        asyncio.get_running_loop().call_soon(self._replace, worker)  # runs when this worker first has to wait
        while self._free is worker and self._ready:
            await self._ready.popleft().work()

    def _replace(self, worker: asyncio.Task[Any] | None) -> None:
        if self._free is worker:
            self._free = None
            if self._ready:
                self._start_worker()

    @property
    def is_flooded(self) -> bool:
        """Whether so much waits that nothing justifies taking more."""
        return self.pending_events >= _FLOOD * self._max_events or self.pending_bytes >= _FLOOD * self._max_bytes

    def regulate(self) -> None:
        """Compare what waits with the bounds. To be called when events were taken, once for all that came at once,
        and when they were delivered."""
        if self.is_full:
            if self.pending_events <= self.few_events and self.pending_bytes <= self._few_bytes:
                self.is_full = False
                self._on_pressure()
            elif self.is_flooded:
                self._on_pressure()
        elif self.pending_events >= self._max_events or self.pending_bytes >= self._max_bytes:
            self.is_full = True
            self._on_pressure()

    def is_worker(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether ``task`` is running a handler."""
        return task in self._workers

    async def drain(self, timeout: float) -> None:
        """Let handlers finish what was received, for ``timeout`` seconds; then cancel them.

        Called from within a handler, it waits for all others.
        """
        caller = asyncio.current_task()
        self._replace(caller)
        deadline = monotonic() + timeout
        try:
            while others := self._workers - {caller}:
                _, slow = await asyncio.wait(others, timeout=max(0.0, deadline - monotonic()))
                if slow:
                    log.warning("cancelling %d handlers that did not finish in %g seconds", len(slow), timeout)
                    break
        finally:
            self.closed = True
            while self._ready:
                self._ready.popleft().give_up()
            others = self._workers - {caller}
            for worker in others:
                worker.cancel()
            if others:
                _, deaf = await asyncio.wait(others, timeout=_CANCEL_TIMEOUT)
                if deaf:
                    log.error("%d handlers still run although they were cancelled", len(deaf))


class Lane:
    """The events of one channel on their way to its handlers and to those of the client, the ``parent``.

    The client's own lane, for events without a channel, has the name None and no parent. ``read`` turns the data
    of a message into what handlers get, instead of :func:`parse_data`. It may wait, and the lane's events with it.
    """

    __slots__ = (
        "_begun",
        "_bound",
        "_dispatcher",
        "_held",
        "_parent",
        "_pending",
        "_read",
        "_reading",
        "_releasing",
        "_working",
        "is_busy",
        "name",
        "routes",
    )

    def __init__(
        self, name: str | None, dispatcher: Dispatcher, parent: Lane | None = None, read: Reader | None = None
    ) -> None:
        self.name = name
        self.routes: dict[str, Route] = {}
        """What has been learned by :meth:`learn`, for as long as it is true."""
        self._bound: tuple[_Binding, ...] = ()
        self._parent = parent
        self._dispatcher = dispatcher
        self._read = read
        self._reading = False
        """Whether what ``read`` returns is still wanted."""
        self._pending: deque[tuple[Message, int]] | None = None
        self._begun: Coroutine[Any, Any, None] | None = None
        self._working = False
        self._held = False
        self.is_busy = False
        """Whether events have to wait: handlers are at work, or are about to be bound."""
        self._releasing: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """The number of events that wait."""
        return len(self._pending or ())

    # --- bindings ----------------------------------------------------------------------------------------------

    @property
    def is_bound(self) -> bool:
        return bool(self._bound)

    def bind(self, event: str, handler: Handler) -> None:
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
        name = str(event)
        binding = _Binding(_ALIASES.get(name, name), handler, _is_async(handler), _takes_user_id(handler))
        self._rebind((*self._bound, binding))

    def unbind(self, event: str, handler: Handler | None = None) -> None:
        name = _ALIASES.get(str(event), str(event))
        self._rebind(
            tuple(
                each
                for each in self._bound
                if each.event != name or (handler is not None and each.handler != handler)
            )
        )

    def _rebind(self, bindings: tuple[_Binding, ...]) -> None:
        self._bound = bindings
        self.routes.clear()
        if self._parent is None:
            for lane in self._dispatcher.lanes.values():
                lane.routes.clear()

    def learn(self, event: str) -> Route:
        """Return the route of an event, and remember it."""
        if len(self.routes) >= _ROUTES_KEPT:
            self.routes.clear()
        route = self.routes[event] = self._find_route(event)
        return route

    def _find_route(self, event: str) -> Route:
        bindings = self._matching(event)
        is_read_here = self._read is None
        immediate = is_read_here and not any(each.is_async or each.takes_user_id for each in bindings)
        plain = awaited = None
        if is_read_here and len(bindings) == 1 and not bindings[0].takes_user_id:
            handler = cast("PlainHandler", bindings[0].handler)
            if immediate:
                plain = handler
            elif bindings[0].is_async:
                awaited = handler
        return Route(plain, awaited, bindings, immediate or not bindings)

    def _matching(self, event: str) -> tuple[_Binding, ...]:
        inherited = () if self._parent is None else self._parent._matching(event)
        return tuple(each for each in self._bound if each.matches(event)) + inherited

    # --- events ------------------------------------------------------------------------------------------------

    def put(self, event: str, data: Any, user_id: str | int | None = None, size: int = 0) -> None:
        """Deliver an event of ours, or one that was looked into; ``size`` is that of its message, in bytes."""
        self.take(self._find_route(event), Message(event, self.name, data, user_id), size)
        self._dispatcher.regulate()

    def take(self, route: Route, message: Message, size: int) -> None:
        """Deliver an event: on the spot where order and handlers allow it, else by a worker.

        Events with one plain handler don't come here while the lane is idle: see :meth:`Connection._receiver`.
        """
        if not self.is_busy:
            if route.immediate:
                if route.bindings:
                    self._call_now(message, parse_data(message.data), route.bindings)
                return
            self._start()
        if self._pending is None:  # most lanes of most clients never need one
            self._pending = deque()
        self._pending.append((message, size))
        dispatcher = self._dispatcher
        dispatcher.pending_events += 1
        dispatcher.pending_bytes += size

    def hold(self) -> None:
        """Keep events back until they are released, because handlers are about to be bound."""
        self._held = self.is_busy = True

    def release_in(self, seconds: float) -> None:
        """Let held events go after ``seconds``; with 0, once the running piece of the program is through."""
        if self._held:
            self._cancel_release()
            self._releasing = asyncio.get_running_loop().call_later(seconds, self._release)

    def clear(self) -> None:
        """Forget what is not delivered yet."""
        self._reading = False
        self._cancel_release()
        self._held = False
        self.is_busy = self._working
        if self._pending:
            dispatcher = self._dispatcher
            dispatcher.pending_events -= len(self._pending)
            dispatcher.pending_bytes -= sum(size for _, size in self._pending)
            self._pending.clear()
            dispatcher.regulate()

    def _release(self) -> None:
        self._releasing = None
        self._held = False
        self.is_busy = self._working
        if self._pending and not self._working:
            self._start()

    def _cancel_release(self) -> None:
        if self._releasing is not None:
            self._releasing.cancel()
            self._releasing = None

    def _start(self, begun: Coroutine[Any, Any, None] | None = None) -> None:
        """Have a worker deliver what waits; before that, what has ``begun`` already."""
        self._working = self.is_busy = True
        self._begun = begun
        self._dispatcher.work_on(self)

    def give_up(self) -> None:
        """Undo :meth:`_start`, where no worker has come yet."""
        if self._begun is not None:
            self._begun.close()
            self._begun = None
        self._working = False
        self.is_busy = self._held

    async def work(self) -> None:
        """Deliver what waits, one event after another; called by a worker."""
        dispatcher, routes, name = self._dispatcher, self.routes, self.name
        if self._pending is None:
            self._pending = deque()
        pending = self._pending
        try:
            if self._begun is not None:
                await self._begun
            while True:
                for _ in range(_FAIR_SHARE):
                    if not pending or dispatcher.closed:
                        return
                    message, size = pending.popleft()
                    dispatcher.pending_events -= 1
                    dispatcher.pending_bytes -= size
                    if dispatcher.is_full and dispatcher.pending_events <= dispatcher.few_events:
                        dispatcher.regulate()
                    event = message.event
                    try:
                        _, awaited, bindings, _ = routes[event]
                    except KeyError:
                        _, awaited, bindings, _ = self._find_route(event)
                    if not bindings:
                        continue
                    if awaited is None:
                        await self._deliver(message, bindings)
                        continue
                    data = message.data
                    if type(data) is str:
                        try:  # noqa: SIM105 - a context manager takes longer than that
                            data = decode_json(data)
                        except DECODE_ERRORS:
                            pass
                    try:
                        await awaited(event, data, name)
                    except Exception as error:
                        self.report(event, awaited, error)
                    except asyncio.CancelledError as error:
                        if _is_cancelled_itself():
                            raise
                        self.report(event, awaited, error)
                await asyncio.sleep(0)
        finally:
            self._begun = None
            self._working = False
            self.is_busy = self._held
            if not pending:
                self._pending = None
            elif not (dispatcher.closed or self._held):  # a handler has cancelled the worker
                self._start()

    async def _deliver(self, message: Message, bindings: tuple[_Binding, ...]) -> None:
        data = message.data
        if self._read is None:
            data = parse_data(data)
        else:
            self._reading = True
            try:
                data = await self._read(message.event, data)
            except Exception as error:
                if self._reading:
                    log.error("skipped %r on %s: %s", message.event, self.name, error)
                    self.tell(str(error), error)
                return
            if not self._reading:
                return
        await self._call(message, data, bindings)

    async def _call(self, message: Message, data: Any, bindings: tuple[_Binding, ...]) -> None:
        event, name = message.event, self.name
        for _, handler, is_async, takes_user_id in bindings:
            try:
                if takes_user_id:
                    sender = None if message.user_id is None else str(message.user_id)
                    result = handler(event, data, name, user_id=sender)  # type: ignore[call-arg]
                else:
                    result = handler(event, data, name)  # type: ignore[call-arg]
                if is_async or (result is not None and inspect.isawaitable(result)):
                    await result
            except Exception as error:
                self.report(event, handler, error)
            except asyncio.CancelledError as error:
                if _is_cancelled_itself():
                    raise
                self.report(event, handler, error)

    def _call_now(self, message: Message, data: Any, bindings: tuple[_Binding, ...]) -> None:
        for index, binding in enumerate(bindings):
            try:
                result = binding.handler(message.event, data, self.name)  # type: ignore[call-arg]
            except Exception as error:
                self.report(message.event, binding.handler, error)
                continue
            if result is not None and inspect.isawaitable(result):
                self.wait_for(result, message, data, bindings[index:])
                return

    def wait_for(self, result: Any, message: Message, data: Any, bindings: tuple[_Binding, ...]) -> None:
        """Wait for what the first of ``bindings``, a plain function, has returned; then call the others."""
        begun = bindings[0]._replace(handler=lambda *_: result)
        self._start(self._call(message, data, (begun, *bindings[1:])))

    def report(self, event: str, handler: Handler, error: BaseException) -> None:
        name = getattr(handler, "__qualname__", repr(handler))
        log.error("handler %s of %r on %s raised", name, event, self.name or "the client", exc_info=error)
        if event != ERROR_EVENT:
            self.tell(f"handler {name} of {event!r} raised {error!r}", error)

    def tell(self, message: str, error: BaseException) -> None:
        """Report what went wrong to the handlers of ``"error"``."""
        code = error.code if isinstance(error, ReverbError) else None
        self.put(ERROR_EVENT, {"message": message, "code": code, "exception": error})


def _is_cancelled_itself() -> bool:
    """Whether the running task was cancelled, and not something that a handler waited for (3.10 can't tell)."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0
