"""Delivers events to handlers: bindings, routes, and queues with their workers.

The events of one queue (a channel's, or the client's own) reach its handlers one after another, in the order
received. Queues do not wait for each other, and nothing in here blocks the socket.

A plain handler is called in the middle of a method and may call any method, including the one that is running. So
each method leaves all state consistent before it calls a handler.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any

import msgspec

from ._binding import ERROR_EVENT, Binding, Handler, PlainHandler, check_name
from ._payload import MismatchError
from ._protocol import DECODE_ERRORS, PROTOCOL_PREFIXES, Message, decode_json, parse_data
from ._tasks import runs_for, spawn
from ._timeouts import Timeouts
from ._visible import event_fields, quoted, visible
from .events import Events
from .exceptions import PayloadError, ReverbError, plural

log = logging.getLogger("reverb.dispatch")

_FAIR_SHARE = 100
"""Number of events that a worker delivers before other queues may have their turn."""
_TURN = 0.002
"""Seconds that a worker may use for more events, if its handlers are quick. In a burst, events to an async
handler take 0.9 of the time that they take with a turn of the loop after each 100."""
_CANCEL_TIMEOUT = 1.0
"""Seconds that a cancelled handler has to clean up."""
_FLOOD = 4
"""How many times the limit may be exceeded while a subscribe waits for its answer."""
_OVERHEAD = 256
"""Bytes that a waiting event takes besides those of its message, for the objects of the message and the queue.
Measured 190 to 250 with tracemalloc, on Python 3.11 and 3.13. (Not counted: text beyond Latin-1, which takes up
to four times its size; and 850 bytes for the queue, with its first event.)"""
_VALUE_WEIGHT = 16
"""How many times its size a message counts if its data is a decoded JSON value, not a string: that of a client
event. Measured up to 24 times, for many small parts."""
_ROUTES_KEPT = 1000
"""Limits the memory for routes if event names are always new."""

HANDLER_ERRORS = (Exception, asyncio.CancelledError)
"""Exceptions that a plain function may raise. A CancelledError is then that of another task that it looked at;
it cancels nothing here."""

Decrypt = Callable[[str, Any], Awaitable[Any]]
"""Turns the event and the encrypted data of a message into the data; raises if it can't."""


class Route(msgspec.Struct):
    """The handlers of an event in a queue.

    The two most common cases have their own field, to be fast. Slots are read faster than a named tuple.
    """

    plain: PlainHandler[Any] | None
    """The handler, if there is exactly one and it can be called at once."""
    awaited: PlainHandler[Any] | None
    """The handler, if there is exactly one and it is an ``async def``."""
    bindings: tuple[Binding, ...]
    immediate: bool
    """Whether all of them can be called at once."""
    wants_json: bool
    """Whether one of them takes the data as JSON."""


_NOBODY: list[Binding] = []
"""The value of ``_calling`` in all idle queues. Never changed."""
_NO_ROUTE = Route(plain=None, awaited=None, bindings=(), immediate=False, wants_json=False)


class Worker:
    """Runs handlers, in its own task."""

    __slots__ = ("is_excluded", "is_over", "queue")

    def __init__(self) -> None:
        self.queue: EventQueue | None = None
        """The queue that it is working on."""
        self.is_over = False
        """Whether it stops after the handler that is running."""
        self.is_excluded = False
        """Whether :meth:`Dispatcher.drain` neither waits for it nor cancels it."""


class Dispatcher:
    """Has the queues of one client, runs their workers, and counts the events that wait.

    ``on_pressure`` is called when waiting events reach ``max_bytes`` of memory, when they reach the higher limit
    of :attr:`is_flooded`, and when they are down to half. Queues still accept events: the function has to make
    sure that no more come.
    """

    def __init__(self, max_bytes: int, on_pressure: Callable[[], None]) -> None:
        self.queues: dict[str | None, EventQueue] = {}
        """The queues that take events from the server, by channel name."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that the client was last connected on."""
        self.closed = False
        """Whether no handlers are called: from the end of :meth:`drain` to :meth:`open`."""
        self.is_full = False
        self.pending_events = 0
        self.pending_bytes = 0
        """The size of the messages that wait."""
        self.taken = 0
        """Number of events that queues took, without those that ``Connection._receiver`` delivers itself."""
        self.unbound = 0
        """Number of events that had no handler."""
        self.discarded = 0
        """Number of events that were discarded while they waited."""
        self.dropped = 0
        """Number of events that were dropped for later ones: see :attr:`EventQueue.max_pending`."""
        self._max_bytes = max_bytes
        self._on_pressure = on_pressure
        self.held: Timeouts[EventQueue] = Timeouts(lambda queue: queue.release())
        """Queues that will be released."""
        self._all_queues: set[EventQueue] = set()
        self._workers: dict[asyncio.Task[None], Worker] = {}
        self._ready: deque[EventQueue] = deque()
        """Queues with events that no worker has taken yet."""
        self._free: Worker | None = None
        """The worker that takes the next queue: one that does not wait for a handler."""
        self._is_cancelling = False
        self._watchers: set[asyncio.Future[None]] = set()
        """Tasks that wait for a worker to end, or for :meth:`exclude`, :meth:`cancel_handlers` or the end of
        :meth:`drain`."""

    def add(self, queue: EventQueue) -> None:
        """Add a queue, until it is closed."""
        self._all_queues.add(queue)

    def remove(self, queue: EventQueue) -> None:
        self._all_queues.discard(queue)

    def forget_routes(self, removed: list[Binding]) -> None:
        """Tell all queues that bindings of the client have changed: see :meth:`EventQueue.forget_routes`."""
        for queue in self._all_queues:
            queue.forget_routes(removed)

    # --- workers -----------------------------------------------------------------------------------------------

    def work_on(self, queue: EventQueue) -> None:
        """Let a worker deliver the events that wait in ``queue``."""
        self._ready.append(queue)
        if self._free is None:
            self._start_worker()

    def _start_worker(self) -> None:
        worker = self._free = Worker()
        task = spawn(self._work(worker))
        self._workers[task] = worker
        task.add_done_callback(self._on_ended)  # runs also if the task is cancelled before it begins

    async def _work(self, worker: Worker) -> None:
        """Work on one queue after another. If a worker has to wait for a handler, the next worker takes the
        other queues."""
        runs_for.set(worker)
        asyncio.get_running_loop().call_soon(self._replace, worker)  # runs when this worker first has to wait
        while self._free is worker and self._ready:
            worker.queue = self._ready.popleft()
            await worker.queue.work(worker)
            worker.queue = None

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        worker = self._workers.pop(task)
        worker.queue = None
        self._replace(worker)
        self._wake()

    def _replace(self, worker: Worker) -> None:
        if self._free is worker:
            self._free = None
            if self._ready:
                self._start_worker()

    def current_worker(self) -> Worker | None:
        """Return the worker whose handler calls this, directly or in a task that the handler has started.

        None if there is none, or it has ended.
        """
        worker = runs_for.get()
        return next((each for each in self._workers.values() if each is worker), None)

    def is_handler(self) -> bool:
        """Return whether a handler calls this, in the worker's own task."""
        return asyncio.current_task() in self._workers

    def is_handler_of(self, queue: EventQueue) -> bool:
        """Return whether a handler of ``queue`` calls this, in the worker's own task."""
        worker = self._workers.get(asyncio.current_task())  # type: ignore[arg-type]  # None is nobody's key
        return worker is not None and worker.queue is queue

    # --- bounds ------------------------------------------------------------------------------------------------

    @property
    def is_flooded(self) -> bool:
        """Whether so many events wait that reading has to stop in any case."""
        return self.pending_bytes + _OVERHEAD * self.pending_events >= _FLOOD * self._max_bytes

    def regulate(self) -> None:
        """Compare the waiting events with the limits.

        Call it after events were taken, once for all that came at the same time, and after events were delivered.
        """
        waiting = self.pending_bytes + _OVERHEAD * self.pending_events
        if self.is_full:
            if waiting <= self._max_bytes // 2:
                self.is_full = False
                self._on_pressure()
            elif waiting >= _FLOOD * self._max_bytes:
                self._on_pressure()
        elif waiting >= self._max_bytes:
            self.is_full = True
            self._on_pressure()

    # --- the end -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Deliver events from now on, on the running loop, also after :meth:`drain`."""
        self.loop = asyncio.get_running_loop()
        self.closed = self._is_cancelling = False
        for worker in self._workers.values():
            worker.is_excluded = False

    async def wait_finished(self, timeout: float) -> int:
        """Wait until handlers have finished the events that have arrived, for ``timeout`` seconds at most.

        Returns the number of handlers that have not finished. If a handler calls it, it waits for all others.
        After :meth:`drain` there is nothing to wait for.
        """
        return await self._wait_finished(timeout, lambda: self.closed)

    async def _wait_finished(self, timeout: float, is_over: Callable[[], bool]) -> int:
        loop, caller = asyncio.get_running_loop(), self.current_worker()
        if caller is not None:
            self._replace(caller)
        deadline = loop.time() + timeout
        while (others := self._others(caller)) and not is_over() and (left := deadline - loop.time()) > 0:
            changed = loop.create_future()
            self._watchers.add(changed)
            try:
                await asyncio.wait({changed}, timeout=left)
            finally:
                self._watchers.discard(changed)
        return others

    def _others(self, caller: Worker | None) -> int:
        return sum(each is not caller and not each.is_excluded for each in self._workers.values())

    def _wake(self) -> None:
        for changed in self._watchers:
            if not changed.done():
                changed.set_result(None)

    async def drain(self, timeout: float) -> None:
        """Let handlers finish the events that have arrived, for ``timeout`` seconds at most; then cancel them.

        After that no handler is called until :meth:`open`. If a handler calls it, that handler is excluded.
        """
        caller = self.current_worker()
        if caller is not None:
            self.exclude(caller)
        try:
            slow = await self._wait_finished(timeout, lambda: self._is_cancelling)
            if slow:
                reason = (
                    "at once: nobody waits for disconnect() any more"
                    if self._is_cancelling
                    else f"that did not finish in {plural(timeout, 'second')}"
                )
                log.warning("cancelling %s %s", plural(slow, "handler"), reason)
        finally:
            cancelled = self._close()
            if cancelled:
                _, deaf = await asyncio.wait(cancelled, timeout=_CANCEL_TIMEOUT)
                if deaf:
                    log.error("%s did not end when cancelled", plural(len(deaf), "handler"))

    def _close(self) -> list[asyncio.Task[None]]:
        """Call no more handlers, and cancel those that run; return their tasks."""
        self.closed = True
        self._free = None
        while self._ready:
            self._ready.popleft().cancel_start()
        for queue in self._all_queues:
            queue.clear()
        cancelled = [task for task, worker in self._workers.items() if not worker.is_excluded]
        for task, worker in self._workers.items():
            worker.is_over = True
            if not worker.is_excluded:
                task.cancel()
        self._wake()
        return cancelled

    def exclude(self, worker: Worker) -> None:
        """Exclude a worker from :meth:`drain`, because its handler waits for that: don't wait for it, and don't
        cancel it.

        Its queue discards the events that wait.
        """
        worker.is_excluded = worker.is_over = True
        if worker.queue is not None:
            worker.queue.clear()
        self._replace(worker)
        self._wake()

    def cancel_handlers(self) -> None:
        """Let a running :meth:`drain`, or the next one before :meth:`open`, cancel handlers at once."""
        self._is_cancelling = True
        self._wake()


class EventQueue:
    """The events of one channel on their way to its handlers, and to those of the client, the ``parent``.

    The client's own queue, for events without a channel, has the name None and no parent. ``decrypt`` is called
    before the data of a message is read. If it waits, the later events of the queue wait, too.
    """

    __slots__ = (
        "_begun",
        "_bound",
        "_calling",
        "_decrypt",
        "_dispatcher",
        "_droppable",
        "_gap",
        "_held",
        "_is_closed",
        "_is_decrypting",
        "_kept",
        "_max_pending",
        "_parent",
        "_pending",
        "_working",
        "is_busy",
        "name",
        "routes",
    )

    def __init__(
        self,
        name: str | None,
        dispatcher: Dispatcher,
        parent: EventQueue | None = None,
        decrypt: Decrypt | None = None,
    ) -> None:
        self.name = name
        self.routes: dict[str, Route] = {}
        """Routes by event name, until bindings change."""
        self._bound: tuple[Binding, ...] = ()
        self._parent = parent
        self._dispatcher = dispatcher
        self._decrypt = decrypt
        self._is_decrypting = False
        """Whether the result of ``decrypt`` is still wanted."""
        self._pending: deque[tuple[Message, int]] | None = None
        self._begun: tuple[Coroutine[Any, Any, None], Any] | None = None
        """The first task of a worker: a coroutine, which waits for the second item, the result of a plain
        handler."""
        self._working = False
        self._held = False
        self.is_busy = False
        """Whether events have to wait: handlers are running, or are about to be bound."""
        self._calling = _NOBODY
        """The bindings that get the event that is being delivered. A binding that is removed from it is not
        called."""
        self._is_closed = False
        self._max_pending: int | None = None
        self._droppable = 0
        """Number of waiting events that may be dropped. Counted only with a ``max_pending``."""
        self._kept = 0
        """Number of waiting events before those that may not be dropped; there may be more. (Each is visited
        once.)"""
        self._gap: Message | None = None
        """The last event that replaced dropped ones."""
        dispatcher.add(self)

    def __len__(self) -> int:
        """Return the number of events that wait."""
        return len(self._pending or ())

    @property
    def max_pending(self) -> int | None:
        """How many events may wait before the oldest are dropped. None: no limit.

        Events of the protocol and of the client itself are neither counted nor dropped.
        """
        return self._max_pending

    @max_pending.setter
    def max_pending(self, most: int | None) -> None:
        self._max_pending = most
        if most is not None:
            self._droppable = sum(_is_droppable(message) for message, _ in self._pending or ())
            while self._droppable > most:
                self._drop_oldest()
            self._dispatcher.regulate()

    # --- bindings ----------------------------------------------------------------------------------------------

    @property
    def is_bound(self) -> bool:
        return bool(self._bound)

    def bind(
        self, names: tuple[str, ...], handler: Handler[Any], type_: Any = None, *, once: bool = False
    ) -> Binding:
        """Call ``handler`` for events with one of ``names``: see :class:`Binding`."""
        binding = Binding(names, handler, type_, self._remove, once=once)
        self._rebind((*self._bound, binding))
        return binding

    def unbind(self, event: str, handler: Handler[Any] | None = None) -> None:
        name = check_name(event)
        self._rebind(tuple(each for each in self._bound if not each.is_of(name, handler)))

    def _remove(self, binding: Binding) -> bool:
        """Undo a bind; return False if it was undone before."""
        if binding not in self._bound:
            return False
        self._rebind(tuple(each for each in self._bound if each is not binding))
        return True

    def _rebind(self, bindings: tuple[Binding, ...]) -> None:
        removed = [each for each in self._bound if each not in bindings]
        self._bound = bindings
        self.forget_routes(removed)
        if self._parent is None:
            self._dispatcher.forget_routes(removed)

    def forget_routes(self, removed: list[Binding]) -> None:
        """Delete the routes because bindings have changed, and don't call those in ``removed``."""
        self.routes.clear()
        if removed and self._calling:
            self._calling[:] = [_SKIPPED if each in removed else each for each in self._calling]

    def add_route(self, event: str) -> Route:
        """Find the route of an event, keep it, and return it."""
        if len(self.routes) >= _ROUTES_KEPT:
            self.routes.clear()
        route = self.routes[event] = self._find_route(event)
        return route

    def _find_route(self, event: str) -> Route:
        bindings = self._matching(event)
        is_plain_text = self._decrypt is None
        immediate = is_plain_text and not any(each.is_async for each in bindings)
        plain = awaited = None
        if is_plain_text and len(bindings) == 1 and bindings[0].is_simple:
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

    def put(
        self,
        event: str,
        data: Any,
        user_id: str | int | None = None,
        size: int = 0,
        *,
        is_failure: bool = False,
    ) -> None:
        """Deliver an event of the client, or an event of the server that was parsed; ``size`` is that of its
        message, in bytes.

        An event about a failure is always left to a worker. Otherwise that failure would be the context of
        exceptions that handlers raise.
        """
        if self._is_closed or self._dispatcher.closed:
            return
        self._dispatcher.taken += 1
        route = _NO_ROUTE
        if not self.is_busy:  # otherwise a worker finds the route later
            route = self._find_route(event)
            if is_failure and route.bindings:
                route.immediate = False
        self.take(route, Message(event, self.name, data, user_id), size)
        self._dispatcher.regulate()

    def take(self, route: Route, message: Message, size: int) -> None:
        """Deliver an event: at once if the order and the handlers allow it, else by a worker.

        While the queue is idle, events with one plain handler don't come here: see ``Connection._receiver``.
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
        if self._pending is None:  # most queues never need one
            self._pending = deque()
        if type(message.data) is not str:
            size *= _VALUE_WEIGHT
        self._pending.append((message, size))
        dispatcher = self._dispatcher
        dispatcher.pending_events += 1
        dispatcher.pending_bytes += size
        if self._max_pending is not None and _is_droppable(message):
            self._droppable += 1
            if self._droppable > self._max_pending:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Drop the oldest event that may be dropped. An event of the client replaces it and says how many were
        dropped."""
        dispatcher, pending = self._dispatcher, self._pending
        assert pending is not None
        place = self._kept
        while not _is_droppable(pending[place][0]):
            place += 1
        self._droppable -= 1
        dispatcher.pending_bytes -= pending[place][1]
        dispatcher.dropped += 1
        if place and (before := pending[place - 1][0]) is self._gap:
            del pending[place]
            dispatcher.pending_events -= 1
            before.data["count"] += 1
        else:
            self._gap = Message(Events.EVENTS_DROPPED.value, self.name, {"count": 1})
            pending[place] = (self._gap, 0)
            dispatcher.taken += 1
            place += 1
        self._kept = place

    def hold(self) -> None:
        """Hold events until they are released, because handlers are about to be bound."""
        self._held = self.is_busy = True

    def release_in(self, seconds: float) -> None:
        """Release held events after ``seconds`` at the latest; with 0, in the next turn of the loop."""
        if self._held:
            self._dispatcher.held.start(self, seconds)

    def release(self) -> None:
        """Release held events."""
        self._dispatcher.held.stop(self)
        self._held = False
        self.is_busy = self._working
        if self._pending and not self._working:
            self._start()

    def clear(self) -> None:
        """Discard events that are not delivered yet."""
        self._is_decrypting = False
        self._dispatcher.held.stop(self)
        self._held = False
        self.is_busy = self._working
        self._droppable = self._kept = 0
        if self._calling:
            self._calling.clear()
        if self._pending:
            dispatcher = self._dispatcher
            dispatcher.discarded += len(self._pending)
            dispatcher.pending_events -= len(self._pending)
            dispatcher.pending_bytes -= sum(size for _, size in self._pending)
            self._pending.clear()
            dispatcher.regulate()

    def close(self) -> None:
        """Deliver no more events. The handler that is running may finish."""
        self._is_closed = True
        self.clear()
        self._dispatcher.remove(self)

    def _start(self, begun: tuple[Coroutine[Any, Any, None], Any] | None = None) -> None:
        """Let a worker deliver the waiting events, after it has finished what was ``begun``."""
        self._working = self.is_busy = True
        self._begun = begun
        self._dispatcher.work_on(self)

    def cancel_start(self) -> None:
        """Undo :meth:`_start` if no worker has come yet."""
        if self._begun is not None:
            for each in self._begun:
                if inspect.iscoroutine(each):
                    each.close()
            self._begun = None
        self._working = False
        self.is_busy = self._held

    async def work(self, worker: Worker) -> None:
        """Deliver the waiting events, one after another. A worker calls this."""
        dispatcher, routes, name = self._dispatcher, self.routes, self.name
        if self._pending is None:
            self._pending = deque()
        pending = self._pending
        try:
            if self._begun is not None:
                await self._begun[0]
            began_at = monotonic()
            while True:
                for _ in range(_FAIR_SHARE):
                    if not pending or worker.is_over:
                        return
                    message, size = pending.popleft()
                    if self._max_pending is not None:
                        if _is_droppable(message):
                            self._droppable -= 1
                        elif self._kept:
                            self._kept -= 1
                    dispatcher.pending_events -= 1
                    dispatcher.pending_bytes -= size
                    if dispatcher.is_full:
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
                        try:
                            data = decode_json(data)
                        except DECODE_ERRORS:
                            data = parse_data(data)
                    try:
                        await awaited(event, data, name)
                    except Exception as error:
                        self.report_handler_error(event, route.bindings[0], error)
                    except asyncio.CancelledError as error:
                        if _is_cancelled_itself():
                            raise
                        self.report_handler_error(event, route.bindings[0], error)
                if monotonic() - began_at >= _TURN:
                    await asyncio.sleep(0)
                    began_at = monotonic()
        finally:
            self._begun = None
            self._working = False
            self.is_busy = self._held
            if not pending:
                self._pending = None
            elif not (dispatcher.closed or self._held):  # a handler has cancelled the worker
                self._start()

    async def _deliver(self, message: Message, bindings: tuple[Binding, ...], wants_json: bool) -> None:
        if self._decrypt is not None:
            self._is_decrypting = True
            try:
                message.data = await self._decrypt(message.event, message.data)
            except Exception as error:
                if self._is_decrypting:
                    name, place = quoted(message.event), visible(self.name or "the client")
                    fields = event_fields(message.event, self.name)
                    log.error("skipped %s on %s: %s", name, place, visible(str(error), 1_000), extra=fields)
                    self.report_error(str(error), error)
                return
            if not self._is_decrypting:
                return
            route = self.routes.get(message.event)  # None if bindings have changed
            bindings = self._matching(message.event) if route is None else route.bindings
        self._calling = list(bindings)
        await self._call(message, parse_data(message.data) if wants_json else None)

    async def _call(self, message: Message, data: Any) -> None:
        event, channel = message.event, message.channel
        for binding in self._calling:
            try:
                if binding.is_simple:
                    result = binding.call(event, data, channel)
                else:
                    result = _call_special(binding, message, data)
            except HANDLER_ERRORS as error:
                self.report_handler_error(event, binding, error)
                continue
            try:  # as in _finish(), without the cost of a call
                # A handler with "once" that was called elsewhere returns None, too, "async def" or not.
                if result is not None and (binding.is_async or inspect.isawaitable(result)):
                    await result
            except Exception as error:
                self.report_handler_error(event, binding, error)
            except asyncio.CancelledError as error:
                if _is_cancelled_itself():
                    raise
                self.report_handler_error(event, binding, error)

    async def _go_on(self, message: Message, data: Any, binding: Binding, result: Any) -> None:
        """Wait for the result of ``binding``, a plain function; then call the other bindings."""
        await self._finish(message.event, binding, result)
        await self._call(message, data)

    async def _finish(self, event: str, binding: Binding, result: Any) -> None:
        try:
            await result
        except Exception as error:
            self.report_handler_error(event, binding, error)
        except asyncio.CancelledError as error:
            if _is_cancelled_itself():
                raise
            self.report_handler_error(event, binding, error)

    def _call_now(self, message: Message, data: Any, bindings: tuple[Binding, ...]) -> None:
        event, channel = message.event, message.channel
        self._calling = [*bindings]
        self.is_busy = True  # events that handlers cause wait until all handlers have been called
        try:
            for binding in self._calling:
                try:
                    if binding.is_simple:
                        result = binding.call(event, data, channel)
                    else:
                        result = _call_special(binding, message, data)
                except HANDLER_ERRORS as error:
                    self.report_handler_error(event, binding, error)
                    continue
                if result is not None and inspect.isawaitable(result):
                    self._calling = self._calling[bindings.index(binding) + 1 :]
                    self._start((self._go_on(message, data, binding, result), result))
                    return
        except BaseException:  # KeyboardInterrupt, for one
            self.release()
            raise
        self.is_busy = self._held
        if self._pending and not self._held:
            self._start()

    def wait_for(self, result: Any, event: str, binding: Binding) -> None:
        """Wait for the result of ``binding``, a plain function and the only one of the event."""
        self._start((self._finish(event, binding, result), result))

    def report_handler_error(self, event: str, binding: Binding, error: BaseException) -> None:
        name, place = quoted(event), visible(self.name or "the client")
        fields = event_fields(event, self.name)
        if isinstance(error, MismatchError):
            error = PayloadError(f"{name} on {place} does not fit {error}", path=error.path)
            skipped = "events() and wait_for() skip an event"
            if not binding.is_of_stream:
                skipped = f"handler {binding.handler_name} is not called"
            log.error("%s: %s", skipped, error, extra=fields)
            message = str(error)
        else:
            handler = binding.handler_name
            log.error("handler %s of %s on %s raised", handler, name, place, exc_info=error, extra=fields)
            message = f"handler {handler} of {name} raised {visible(repr(error), 1_000)}"
        if event != ERROR_EVENT:
            self.report_error(message, error)

    def report_error(self, message: str, error: BaseException) -> None:
        """Deliver an error to the handlers of ``"error"``."""
        code = error.code if isinstance(error, ReverbError) else None
        # After the channel was left, only the client's handlers get it.
        queue = self._parent if self._is_closed and self._parent is not None else self
        queue.put(ERROR_EVENT, {"message": message, "code": code, "exception": error}, is_failure=True)


def _call_special(binding: Binding, message: Message, data: Any) -> Any:
    if not binding.wants_json:
        data = binding.read(message.data)
    if binding.takes_user_id:
        sender = None if message.user_id is None else str(message.user_id)
        return binding.call(message.event, data, message.channel, user_id=sender)
    return binding.call(message.event, data, message.channel)


def _is_droppable(message: Message) -> bool:
    """Return whether an application sent the event."""
    return not message.event.startswith(PROTOCOL_PREFIXES)


def _is_cancelled_itself() -> bool:
    """Return whether the running task was cancelled, and not something that a handler waited for.

    Python 3.10 can't tell.
    """
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0


_SKIPPED = Binding((), lambda *_: None, Any, lambda binding: False, once=False)
"""Replaces a binding that was removed while its event was being delivered."""
