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
from dataclasses import dataclass
from time import monotonic
from typing import Any

from ._binding import ERROR_EVENT, Binding, Handler, PlainHandler
from ._payload import MisfitError
from ._protocol import DECODE_ERRORS, Message, decode_json, parse_data
from .exceptions import PayloadError, ReverbError

log = logging.getLogger("reverb.dispatch")

_FAIR_SHARE = 100
"""Events that a lane delivers before it lets others have a turn."""
_CANCEL_TIMEOUT = 1.0
"""Seconds that a cancelled handler gets to clean up."""
_FLOOD = 4
"""How many times the bounds may be exceeded while a subscribe waits for its answer."""
_ROUTES_KEPT = 1000
"""Bound on the memory that ever new event names could take."""

HANDLER_ERRORS = (Exception, asyncio.CancelledError)
"""What a plain function may raise. A CancelledError is then of something that it looked at, and cancels nobody."""

Unseal = Callable[[str, Any], Awaitable[Any]]
"""Turns the event and the data of a message into the data that was meant; raises for what can't be read."""


@dataclass(slots=True)
class Route:
    """Who gets an event of a lane. The two common cases have a field of their own, which makes them fast;
    and slots are read faster than a named tuple."""

    plain: PlainHandler[Any] | None
    """The handler, where there is one that can be called on the spot and nobody else."""
    awaited: PlainHandler[Any] | None
    """The handler, where there is one ``async def`` and nobody else."""
    bindings: tuple[Binding, ...]
    immediate: bool
    """Whether all of them can be called on the spot."""
    wants_json: bool
    """Whether one of them wants the data as JSON."""


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
        self.taken = 0
        """Events that lanes took, but for those of :meth:`Connection._receiver`, …"""
        self.unbound = 0
        """… events, of either, that nobody had bound, …"""
        self.discarded = 0
        """… and those that were forgotten before they were delivered."""
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

    async def settle(self, timeout: float) -> int:
        """Wait until handlers have finished what was received, for ``timeout`` seconds at most; return how many
        have not.

        Called from within a handler, it waits for all others.
        """
        caller = asyncio.current_task()
        self._replace(caller)
        deadline = monotonic() + timeout
        while others := self._workers - {caller}:
            _, slow = await asyncio.wait(others, timeout=max(0.0, deadline - monotonic()))
            if slow:
                return len(self._workers - {caller})  # others may have begun meanwhile
        return 0

    async def drain(self, timeout: float) -> None:
        """Let handlers finish what was received, as :meth:`settle` does; then cancel them."""
        try:
            slow = await self.settle(timeout)
            if slow:
                log.warning("cancelling %d handlers that did not finish in %g seconds", slow, timeout)
        finally:
            self.closed = True
            while self._ready:
                self._ready.popleft().give_up()
            others = self._workers - {asyncio.current_task()}
            for worker in others:
                worker.cancel()
            if others:
                _, deaf = await asyncio.wait(others, timeout=_CANCEL_TIMEOUT)
                if deaf:
                    log.error("%d handlers still run although they were cancelled", len(deaf))


class Lane:
    """The events of one channel on their way to its handlers and to those of the client, the ``parent``.

    The client's own lane, for events without a channel, has the name None and no parent. ``unseal`` is called
    before the data of a message is read. It may wait, and the lane's events with it.
    """

    __slots__ = (
        "_begun",
        "_bound",
        "_dispatcher",
        "_held",
        "_parent",
        "_pending",
        "_releasing",
        "_unseal",
        "_unsealing",
        "_working",
        "is_busy",
        "name",
        "routes",
    )

    def __init__(
        self, name: str | None, dispatcher: Dispatcher, parent: Lane | None = None, unseal: Unseal | None = None
    ) -> None:
        self.name = name
        self.routes: dict[str, Route] = {}
        """What has been learned by :meth:`learn`, for as long as it is true."""
        self._bound: tuple[Binding, ...] = ()
        self._parent = parent
        self._dispatcher = dispatcher
        self._unseal = unseal
        self._unsealing = False
        """Whether what ``unseal`` returns is still wanted."""
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

    def bind(
        self, names: tuple[str, ...], handler: Handler[Any], type_: Any = None, *, once: bool = False
    ) -> Binding:
        """Call ``handler`` for events of one of ``names``: see :class:`Binding`."""
        binding = Binding(names, handler, type_, self._remove, once=once)
        self._rebind((*self._bound, binding))
        return binding

    def unbind(self, event: str, handler: Handler[Any] | None = None) -> None:
        self._rebind(tuple(each for each in self._bound if not each.is_of(str(event), handler)))

    def _remove(self, binding: Binding) -> bool:
        """Undo a bind; return whether there was something to undo."""
        if binding not in self._bound:
            return False
        self._rebind(tuple(each for each in self._bound if each is not binding))
        return True

    def _rebind(self, bindings: tuple[Binding, ...]) -> None:
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
        is_read_here = self._unseal is None
        immediate = is_read_here and not any(each.is_async for each in bindings)
        plain = awaited = None
        if is_read_here and len(bindings) == 1 and bindings[0].is_simple:
            if immediate:
                plain = bindings[0].call
            else:
                awaited = bindings[0].call
        wants_json = any(each.wants_json for each in bindings)
        return Route(plain, awaited, bindings, immediate or not bindings, wants_json)

    def _matching(self, event: str) -> tuple[Binding, ...]:
        matching = tuple([each for each in self._bound if each.matches(event)])
        return matching if self._parent is None else matching + self._parent._matching(event)

    # --- events ------------------------------------------------------------------------------------------------

    def put(self, event: str, data: Any, user_id: str | int | None = None, size: int = 0) -> None:
        """Deliver an event of ours, or one that was looked into; ``size`` is that of its message, in bytes."""
        self._dispatcher.taken += 1
        self.take(self._find_route(event), Message(event, self.name, data, user_id), size)
        self._dispatcher.regulate()

    def take(self, route: Route, message: Message, size: int) -> None:
        """Deliver an event: on the spot where order and handlers allow it, else by a worker.

        Events with one plain handler don't come here while the lane is idle: see :meth:`Connection._receiver`.
        """
        if not self.is_busy:
            if route.immediate:
                if route.bindings:
                    data = parse_data(message.data) if route.wants_json else None
                    self._call_now(message, data, route.bindings)
                else:
                    self._dispatcher.unbound += 1
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
        """Let held events go after ``seconds`` at the latest; with 0, once the running piece of the program is
        through."""
        if self._held:
            loop = asyncio.get_running_loop()
            if self._releasing is None or self._releasing.when() > loop.time() + seconds:
                self._cancel_release()
                self._releasing = loop.call_later(seconds, self.release)

    def release(self) -> None:
        """Let held events go."""
        self._cancel_release()
        self._held = False
        self.is_busy = self._working
        if self._pending and not self._working:
            self._start()

    def clear(self) -> None:
        """Forget what is not delivered yet."""
        self._unsealing = False
        self._cancel_release()
        self._held = False
        self.is_busy = self._working
        if self._pending:
            dispatcher = self._dispatcher
            dispatcher.discarded += len(self._pending)
            dispatcher.pending_events -= len(self._pending)
            dispatcher.pending_bytes -= sum(size for _, size in self._pending)
            self._pending.clear()
            dispatcher.regulate()

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
                        route = routes[event]
                    except KeyError:
                        route = self._find_route(event)
                    awaited = route.awaited
                    if awaited is None:
                        if route.bindings:
                            await self._deliver(message, route.bindings, route.wants_json)
                        else:
                            dispatcher.unbound += 1
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
                        self.report(event, route.bindings[0], error)
                    except asyncio.CancelledError as error:
                        if _is_cancelled_itself():
                            raise
                        self.report(event, route.bindings[0], error)
                await asyncio.sleep(0)
        finally:
            self._begun = None
            self._working = False
            self.is_busy = self._held
            if not pending:
                self._pending = None
            elif not (dispatcher.closed or self._held):  # a handler has cancelled the worker
                self._start()

    async def _deliver(self, message: Message, bindings: tuple[Binding, ...], wants_json: bool) -> None:
        if self._unseal is not None:
            self._unsealing = True
            try:
                message.data = await self._unseal(message.event, message.data)
            except Exception as error:
                if self._unsealing:
                    fields = {"reverb_channel": self.name, "reverb_event": message.event}
                    log.error("skipped %r on %s: %s", message.event, self.name, error, extra=fields)
                    self.tell(str(error), error)
                return
            if not self._unsealing:
                return
        await self._call(message, parse_data(message.data) if wants_json else None, bindings)

    async def _call(self, message: Message, data: Any, bindings: tuple[Binding, ...], begun: Any = None) -> None:
        """Call handlers and wait for them; ``begun`` is what the first of them has returned already."""
        event, channel = message.event, message.channel
        for binding in bindings:
            try:
                if begun is not None:
                    result, begun = begun, None
                elif binding.is_simple:
                    result = binding.call(event, data, channel)
                else:
                    result = _call_special(binding, message, data)
            except HANDLER_ERRORS as error:
                self.report(event, binding, error)
                continue
            try:
                # None is also what a handler for once returns, "async def" or not, that was called elsewhere.
                if result is not None and (binding.is_async or inspect.isawaitable(result)):
                    await result
            except Exception as error:
                self.report(event, binding, error)
            except asyncio.CancelledError as error:
                if _is_cancelled_itself():
                    raise
                self.report(event, binding, error)

    def _call_now(self, message: Message, data: Any, bindings: tuple[Binding, ...]) -> None:
        event, channel = message.event, message.channel
        for binding in bindings:
            try:
                if binding.is_simple:
                    result = binding.call(event, data, channel)
                else:
                    result = _call_special(binding, message, data)
            except HANDLER_ERRORS as error:
                self.is_busy = True  # so that the report waits until all have been called
                self.report(event, binding, error)
                continue
            if result is not None and inspect.isawaitable(result):
                self.wait_for(result, message, data, bindings[bindings.index(binding) :])
                return
        if self.is_busy and not self._working:
            self._start()

    def wait_for(self, result: Any, message: Message, data: Any, bindings: tuple[Binding, ...]) -> None:
        """Wait for what the first of ``bindings``, a plain function, has returned; then call the others."""
        self._start(self._call(message, data, bindings, result))

    def report(self, event: str, binding: Binding, error: BaseException) -> None:
        where = self.name or "the client"
        fields = {"reverb_channel": self.name, "reverb_event": event}
        if isinstance(error, MisfitError):
            error = PayloadError(f"{event!r} on {where} does not fit {error}", path=error.path)
            log.error("handler %s is not called: %s", binding.handler_name, error, extra=fields)
            message = str(error)
        else:
            name = binding.handler_name
            log.error("handler %s of %r on %s raised", name, event, where, exc_info=error, extra=fields)
            message = f"handler {name} of {event!r} raised {error!r}"
        if event != ERROR_EVENT:
            self.tell(message, error)

    def tell(self, message: str, error: BaseException) -> None:
        """Report what went wrong to the handlers of ``"error"``."""
        code = error.code if isinstance(error, ReverbError) else None
        self.put(ERROR_EVENT, {"message": message, "code": code, "exception": error})


def _call_special(binding: Binding, message: Message, data: Any) -> Any:
    if not binding.wants_json:
        data = binding.read(message.data)
    if binding.takes_user_id:
        sender = None if message.user_id is None else str(message.user_id)
        return binding.call(message.event, data, message.channel, user_id=sender)
    return binding.call(message.event, data, message.channel)


def _is_cancelled_itself() -> bool:
    """Whether the running task was cancelled, and not something that a handler waited for (3.10 can't tell)."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0
