"""Bindings and queues: who gets which event, in what order, and what handlers may do."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest

from reverb._binding import ERROR_EVENT
from reverb._dispatch import Dispatcher, EventQueue

from .loops import every_loop
from .watching import turns, until, wait_turns

Call = tuple[str, Any, str | None]

OVERHEAD = 256
"""Bytes that are counted for an event beside those of its message."""
BOUND = 10 * (OVERHEAD + 1)
"""In bytes: ten events of one byte."""


class Recorder:
    """Remembers calls, and lets a test wait for them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._changed = asyncio.Event()

    def __call__(self, event: str, data: Any, channel: str | None) -> None:
        self.calls.append((event, data, channel))
        self._changed.set()

    async def wait_for(self, count: int) -> list[Call]:
        async def enough() -> None:
            while len(self.calls) < count:
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(enough(), 5)
        return self.calls

    @property
    def events(self) -> list[str]:
        return [event for event, _, _ in self.calls]


class Kit:
    """Two channels' queues and the client's, as a client has them."""

    def __init__(self) -> None:
        self.pressure: list[bool] = []
        self.dispatcher = Dispatcher(BOUND, lambda: self.pressure.append(self.dispatcher.is_full))
        self.client = EventQueue(None, self.dispatcher)
        self.a = EventQueue("a", self.dispatcher, self.client)
        self.b = EventQueue("b", self.dispatcher, self.client)
        self.dispatcher.queues = {"a": self.a, "b": self.b}


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    kit = Kit()
    yield kit
    await kit.dispatcher.drain(5)


@pytest.fixture
async def recorder() -> Recorder:
    return Recorder()


def asynchronous(recorder: Recorder, pause: bool) -> Any:
    async def handler(event: str, data: Any, channel: str | None) -> None:
        if pause:
            await asyncio.sleep(0)
        recorder(event, data, channel)

    return handler


class CallableObject:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    async def __call__(self, event: str, data: Any, channel: str | None) -> None:
        self.recorder(event, data, channel)


@pytest.mark.parametrize("kind", ["plain", "async", "async with a pause", "partial", "object", "lambda", "method"])
async def test_all_kinds_of_handlers_are_called_in_order(kit: Kit, recorder: Recorder, kind: str) -> None:
    handlers: dict[str, Any] = {
        "plain": recorder,
        "async": asynchronous(recorder, pause=False),
        "async with a pause": asynchronous(recorder, pause=True),
        "partial": functools.partial(asynchronous(recorder, pause=True)),
        "object": CallableObject(recorder),
        "lambda": lambda *arguments: asynchronous(recorder, pause=True)(*arguments),
        "method": CallableObject(recorder).__call__,
    }
    kit.a.bind(("e",), handlers[kind])
    for number in range(250):
        kit.a.put("e", str(number))
    assert await recorder.wait_for(250) == [("e", number, "a") for number in range(250)]


async def test_a_plain_handler_is_called_on_the_spot(kit: Kit, recorder: Recorder) -> None:
    kit.a.bind(("e",), recorder)
    kit.a.put("e", None)
    assert recorder.calls == [("e", None, "a")]


@pytest.mark.parametrize(
    ("data", "seen"), [('{"a":1}', {"a": 1}), ("text", "text"), ("1", 1), ({"a": 1}, {"a": 1}), (None, None)]
)
async def test_data_is_parsed_json_or_the_string_itself(
    kit: Kit, recorder: Recorder, data: Any, seen: Any
) -> None:
    kit.a.bind(("e",), recorder)
    kit.a.put("e", data)
    assert recorder.calls == [("e", seen, "a")]


async def test_the_data_of_an_event_nobody_bound_is_not_parsed(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(data: Any) -> Any:
        raise AssertionError("parsed")

    monkeypatch.setattr("reverb._dispatch.decode_json", parse)
    monkeypatch.setattr("reverb._binding._payload.parse_data", parse)
    kit.a.bind(("other",), Recorder())
    kit.a.put("e", "{}")


async def test_handlers_of_an_event_are_called_in_the_order_bound_the_clients_last(kit: Kit) -> None:
    order: list[str] = []

    def note(name: str, pause: bool) -> Any:
        async def handler(*_: Any) -> None:
            if pause:
                await asyncio.sleep(0)
            order.append(name)

        return handler

    kit.client.bind(("e",), note("client", pause=False))
    kit.a.bind(("e",), note("first", pause=True))
    kit.a.bind(("*",), note("second", pause=False))
    kit.a.bind(("e",), lambda *_: order.append("third"))
    kit.a.put("e", None)
    await kit.dispatcher.drain(5)
    assert order == ["first", "second", "third", "client"]


async def test_names_wildcards_and_aliases(kit: Kit) -> None:
    seen: dict[str, list[str]] = {}

    def note(name: str) -> Any:
        return lambda event, data, channel: seen.setdefault(name, []).append(event)

    for name in ("e", "*", "error", "pusher:member_added", "pusher_internal:subscription_succeeded"):
        kit.a.bind((name,), note(name))
    events = (
        "e",
        "error",
        "pusher:error",
        ERROR_EVENT,
        "pusher_internal:member_added",
        "pusher_internal:subscription_succeeded",
    )
    for event in events:
        kit.a.put(event, None)
    assert seen == {
        "e": ["e"],
        "*": list(events),
        "error": ["error", "pusher:error", ERROR_EVENT],
        "pusher:member_added": ["pusher_internal:member_added"],
        "pusher_internal:subscription_succeeded": ["pusher_internal:subscription_succeeded"],
    }


async def test_client_handlers_get_the_events_of_all_channels(kit: Kit, recorder: Recorder) -> None:
    kit.client.bind(("e",), recorder)
    for queue in (kit.a, kit.b, kit.client):
        queue.put("e", None)
    assert recorder.calls == [("e", None, "a"), ("e", None, "b"), ("e", None, None)]


async def test_binding_late_and_unbinding(kit: Kit, recorder: Recorder) -> None:
    other = Recorder()
    kit.a.put("e", "0")  # nobody is there yet
    kit.a.bind(("e",), recorder)
    kit.a.bind(("e",), other)
    kit.client.bind(("e",), recorder)
    kit.a.put("e", "1")
    kit.a.unbind("e", recorder)
    kit.a.put("e", "2")
    kit.a.unbind("e")
    kit.a.unbind("never bound")
    kit.a.put("e", "3")
    kit.client.unbind("e", recorder)
    kit.a.put("e", "4")
    assert [data for _, data, _ in recorder.calls] == [1, 1, 2, 3]
    assert [data for _, data, _ in other.calls] == [1, 2]


async def test_unbinding_knows_aliases_and_bound_methods(kit: Kit, recorder: Recorder) -> None:
    kit.a.bind(("pusher:member_added",), recorder.__call__)
    kit.a.unbind("pusher_internal:member_added", recorder.__call__)
    kit.a.put("pusher_internal:member_added", None)
    assert recorder.calls == []


async def test_only_what_can_be_called_can_be_bound(kit: Kit) -> None:
    handler: Any = "not a function"
    with pytest.raises(TypeError, match="callable"):
        kit.a.bind(("e",), handler)


async def test_the_sender_is_told_to_handlers_that_ask(kit: Kit) -> None:
    senders: list[str | None] = []

    async def handler(event: str, data: Any, channel: str | None, user_id: str | None) -> None:
        senders.append(user_id)

    def plain(event: str, data: Any, channel: str | None, *, user_id: str | None = "unknown") -> None:
        senders.append(user_id)

    kit.a.bind(("e",), handler)
    kit.a.bind(("e",), plain)
    for user_id in ("alice", 7, None):
        kit.a.put("e", None, user_id)
    await kit.dispatcher.drain(5)
    assert senders == ["alice", "alice", "7", "7", None, None]


async def test_a_slow_handler_delays_its_own_lane_only(kit: Kit, recorder: Recorder) -> None:
    go_on = asyncio.Event()

    async def slow(event: str, data: Any, channel: str | None) -> None:
        await go_on.wait()
        recorder(event, data, channel)

    kit.a.bind(("e",), slow)
    kit.b.bind(("e",), asynchronous(recorder, pause=True))
    kit.a.put("e", "1")
    kit.a.put("e", "2")
    kit.b.put("e", "3")
    assert await recorder.wait_for(1) == [("e", 3, "b")]
    go_on.set()
    assert await recorder.wait_for(3) == [("e", 3, "b"), ("e", 1, "a"), ("e", 2, "a")]


@pytest.mark.parametrize(("microseconds", "events"), [(1, 2_000), (10, 200), (100, 100), (10_000, 100)])
async def test_a_long_queue_gives_other_lanes_their_turn(
    kit: Kit, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, microseconds: int, events: int
) -> None:
    """After 2 ms, and not before 100 events. (The worker of the other queue comes after a second turn.)"""
    now = 0.0
    monkeypatch.setattr("reverb._dispatch.monotonic", lambda: now)

    async def handler(event: str, data: Any, channel: str | None) -> None:
        nonlocal now
        now += microseconds / 1e6
        recorder(event, data, channel)

    kit.client.bind(("e",), handler)
    for _ in range(10_000):
        kit.a.put("e", None)
    kit.b.put("e", None)
    await recorder.wait_for(10_001)
    assert 2 * events <= recorder.calls.index(("e", None, "b")) <= 2 * (events + 100)


async def test_order_is_kept_when_a_plain_handler_comes_behind_an_async_one(kit: Kit, recorder: Recorder) -> None:
    kit.a.bind(("slow",), asynchronous(recorder, pause=True))
    kit.a.bind(("quick",), recorder)
    kit.a.put("slow", None)
    kit.a.put("quick", None)
    await recorder.wait_for(2)
    assert recorder.events == ["slow", "quick"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_handler_that_raises_is_logged_and_reported_and_stops_nothing(
    kit: Kit, recorder: Recorder, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    errors = Recorder()

    def explode(*_: Any) -> None:
        raise RuntimeError("boom")

    async def explode_later(*_: Any) -> None:
        explode()

    kit.a.bind(("e",), explode_later if is_async else explode)
    kit.a.bind(("e",), recorder)
    kit.client.bind(("error",), errors)
    kit.a.put("e", "1")
    kit.a.put("e", "2")
    await recorder.wait_for(2)
    reports = await errors.wait_for(2)
    assert [(event, channel) for event, _, channel in reports] == [(ERROR_EVENT, "a")] * 2
    data = reports[0][1]
    assert isinstance(data["exception"], RuntimeError)
    assert "explode" in data["message"]
    assert "'e'" in data["message"]
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert "explode" in record.message
    assert "'e'" in record.message
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


async def test_an_error_handler_that_raises_is_logged_and_not_reported_to_itself(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    def explode(*_: Any) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("boom")

    kit.client.bind(("*",), explode)
    kit.a.put("e", None)
    await kit.dispatcher.wait_finished(5)
    assert calls == 2  # the event, and the report of the failure
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2


@pytest.mark.skipif(not hasattr(asyncio.Task, "cancelling"), reason="3.10 can't tell who was cancelled")
async def test_a_handler_that_waits_for_something_cancelled_stops_nothing(kit: Kit, recorder: Recorder) -> None:
    async def handler(event: str, data: Any, channel: str | None) -> None:
        recorder(event, data, channel)
        cancelled = asyncio.ensure_future(asyncio.Event().wait())
        cancelled.cancel()
        await cancelled

    errors = Recorder()
    kit.a.bind(("e",), handler)
    kit.client.bind(("error",), errors)
    kit.a.put("e", "1")
    kit.a.put("e", "2")
    await recorder.wait_for(2)
    assert isinstance((await errors.wait_for(2))[0][1]["exception"], asyncio.CancelledError)


async def test_binding_and_unbinding_inside_a_handler(kit: Kit, recorder: Recorder) -> None:
    def rebind(event: str, data: Any, channel: str | None) -> None:
        kit.a.unbind("e")
        kit.a.bind(("e",), recorder)

    kit.a.bind(("e",), rebind)
    kit.a.put("e", "1")
    kit.a.put("e", "2")
    assert recorder.calls == [("e", 2, "a")]


async def test_a_handler_bound_while_events_wait_gets_them(kit: Kit, recorder: Recorder) -> None:
    async def first(*_: Any) -> None:
        await asyncio.sleep(0)
        kit.a.bind(("second",), recorder)

    kit.a.bind(("first",), first)
    kit.a.put("first", None)
    kit.a.put("second", None)
    assert await recorder.wait_for(1) == [("second", None, "a")]


async def test_held_events_go_when_released(kit: Kit, recorder: Recorder) -> None:
    kit.a.hold()
    kit.a.put("e", "1")
    kit.a.put("e", "2")
    kit.a.bind(("e",), recorder)
    kit.a.release_in(0)
    assert recorder.calls == []
    assert await recorder.wait_for(2) == [("e", 1, "a"), ("e", 2, "a")]
    kit.a.put("e", "3")
    assert recorder.calls[-1] == ("e", 3, "a")


async def test_what_is_cleared_is_not_delivered(kit: Kit, recorder: Recorder) -> None:
    kit.a.bind(("e",), recorder)
    kit.a.hold()
    kit.a.put("e", "1")
    kit.a.release_in(0)
    kit.a.clear()
    kit.a.put("e", "2")
    assert recorder.calls == [("e", 2, "a")]


async def test_event_names_without_end_take_no_memory_without_end(kit: Kit) -> None:
    kit.client.bind(("e",), Recorder())
    for number in range(5_000):
        kit.a.add_route(f"event-{number}")
    assert len(kit.a.routes) <= 1_000


async def test_what_waits_is_counted_and_the_bounds_are_told(kit: Kit, recorder: Recorder) -> None:
    kit.a.bind(("e",), asynchronous(recorder, pause=True))
    for number in range(9):
        kit.a.put("e", str(number), None, 1)
    assert (kit.dispatcher.pending_events, kit.dispatcher.pending_bytes, kit.pressure) == (9, 9, [])
    kit.b.bind(("e",), asynchronous(recorder, pause=True))
    kit.b.put("e", "9", None, 1)
    assert kit.pressure == [True]
    await recorder.wait_for(10)
    assert kit.pressure == [True, False]
    assert (kit.dispatcher.pending_events, kit.dispatcher.pending_bytes) == (0, 0)


async def test_data_that_is_decoded_already_counts_as_what_it_takes(kit: Kit) -> None:
    kit.a.hold()
    kit.a.put("e", [{}] * 33, None, 100)
    assert kit.dispatcher.pending_bytes == 1_600
    kit.a.clear()
    assert kit.dispatcher.pending_bytes == 0


async def test_few_events_can_be_too_many_bytes(kit: Kit, recorder: Recorder) -> None:
    kit.a.hold()
    kit.a.put("e", "1", None, BOUND - 2 * OVERHEAD - 1)
    assert kit.pressure == []
    kit.a.put("e", "2", None, 1)
    assert kit.pressure == [True]
    kit.a.put("e", "3", None, 3 * BOUND - OVERHEAD - 1)
    assert not kit.dispatcher.is_flooded
    kit.a.put("e", "4", None, 1)
    assert kit.dispatcher.is_flooded
    kit.a.clear()
    assert kit.pressure == [True, True, False]
    assert not kit.dispatcher.is_flooded
    assert (kit.dispatcher.pending_events, kit.dispatcher.pending_bytes) == (0, 0)


async def test_events_delivered_on_the_spot_wait_for_nobody(kit: Kit, recorder: Recorder) -> None:
    kit.a.bind(("e",), recorder)
    for _ in range(100):
        kit.a.put("e", None, None, 100)
    assert kit.pressure == []
    assert len(recorder.calls) == 100


async def test_draining_lets_handlers_finish_what_was_received(kit: Kit, recorder: Recorder) -> None:
    kit.a.bind(("e",), asynchronous(recorder, pause=True))
    for _ in range(10):
        kit.a.put("e", None)
    await kit.dispatcher.drain(5)
    assert len(recorder.calls) == 10


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_error_reported_before_a_handler_that_waits_does_not_disturb_the_order(
    kit: Kit, is_async: bool
) -> None:
    go_on, order = asyncio.Event(), []

    def fail(event: str, data: Any, channel: str | None) -> None:
        raise ValueError

    async def report_handler_error(event: str, data: Any, channel: str | None) -> None:
        order.append(f"error {data['exception']!r}")

    def wait(event: str, data: Any, channel: str | None) -> Any:
        async def handle() -> None:
            order.append(f"begins {data}")
            await go_on.wait()
            order.append(f"ends {data}")

        return handle()

    kit.a.bind(("e",), fail)
    kit.a.bind(("e",), wait)
    kit.a.bind(
        ("error",), report_handler_error if is_async else lambda *arguments: report_handler_error(*arguments)
    )
    kit.a.put("e", 1)
    await until(lambda: order)
    kit.a.put("e", 2)
    await asyncio.sleep(0.01)
    go_on.set()
    await kit.dispatcher.drain(5)
    assert order == ["begins 1", "ends 1", "error ValueError()", "begins 2", "ends 2", "error ValueError()"]


async def test_settling_waits_for_workers_that_begin_meanwhile(kit: Kit, recorder: Recorder) -> None:
    async def handler(event: str, data: Any, channel: str | None) -> None:
        await asyncio.sleep(data)
        recorder(event, data, channel)

    kit.client.bind(("e",), handler)
    kit.a.put("e", 0)
    kit.b.put("e", 0.05)  # which the worker of the other queue leaves to the next
    assert await kit.dispatcher.wait_finished(5) == 0
    assert [channel for _, _, channel in recorder.calls] == ["a", "b"]


async def test_settling_tells_how_many_have_not(kit: Kit) -> None:
    go_on = asyncio.Event()

    async def handler(event: str, data: Any, channel: str | None) -> None:
        await go_on.wait()

    kit.client.bind(("e",), handler)
    kit.a.put("e", 1)
    kit.b.put("e", 2)
    await asyncio.sleep(0)
    assert await kit.dispatcher.wait_finished(0.01) == 2
    go_on.set()


async def test_draining_cancels_handlers_that_take_too_long(
    kit: Kit, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = []

    async def endless(event: str, data: Any, channel: str | None) -> None:
        recorder(event, data, channel)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(event)
            raise

    kit.a.bind(("e",), endless)
    kit.a.put("e", "1")
    kit.a.put("e", "2")
    await recorder.wait_for(1)
    await kit.dispatcher.drain(0.01)
    assert cancelled == ["e"]
    assert len(recorder.calls) == 1
    assert "cancelling 1 handler" in caplog.text


async def test_draining_does_not_wait_for_ever_for_a_handler_that_ignores_its_cancellation(
    kit: Kit, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("reverb._dispatch._CANCEL_TIMEOUT", 0.05)
    go_on = asyncio.Event()

    async def deaf(event: str, data: Any, channel: str | None) -> None:
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                recorder(event, data, channel)

    kit.a.bind(("e",), deaf)
    kit.a.put("e", None)
    await asyncio.sleep(0)
    await kit.dispatcher.drain(0.05)
    assert len(recorder.calls) == 1
    assert "1 handler did not end when cancelled" in caplog.text
    go_on.set()


async def test_a_worker_that_is_cancelled_from_outside_ends(kit: Kit, recorder: Recorder) -> None:
    """As asyncio.run does it with all tasks at the end of a program."""
    go_on = asyncio.Event()

    async def slow(event: str, data: Any, channel: str | None) -> None:
        recorder(event, data, channel)
        await go_on.wait()

    kit.a.bind(("e",), slow)
    before = asyncio.all_tasks()
    kit.a.put("e", None)
    kit.a.put("e", None)
    await recorder.wait_for(1)
    (worker,) = asyncio.all_tasks() - before
    worker.cancel()
    await asyncio.wait({worker}, timeout=5)
    assert worker.cancelled()
    go_on.set()


# --- workers ---------------------------------------------------------------------------------------------------


async def test_lanes_whose_handlers_do_not_wait_share_a_worker(kit: Kit, recorder: Recorder) -> None:
    tasks: set[asyncio.Task[Any] | None] = set()

    async def handler(event: str, data: Any, channel: str | None) -> None:
        tasks.add(asyncio.current_task())
        recorder(event, data, channel)

    kit.client.bind(("e",), handler)
    kit.a.put("e", None)
    kit.b.put("e", None)
    await recorder.wait_for(2)
    assert len(tasks) == 1


async def test_the_lanes_behind_a_handler_that_waits_get_a_worker_of_their_own(
    kit: Kit, recorder: Recorder
) -> None:
    released = asyncio.Event()

    async def slow(event: str, data: Any, channel: str | None) -> None:
        await released.wait()
        recorder(event, data, channel)

    kit.a.bind(("e",), slow)
    kit.b.bind(("e",), asynchronous(recorder, pause=False))
    for number in range(3):
        kit.a.put("e", number)
        kit.b.put("e", number)
    assert [channel for _, _, channel in await recorder.wait_for(3)] == ["b", "b", "b"]
    released.set()
    assert [data for _, data, channel in await recorder.wait_for(6) if channel == "a"] == [0, 1, 2]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task that cancels itself can't be told from others")
async def test_a_handler_that_cancels_its_task_stops_neither_its_lane_nor_others(
    kit: Kit, recorder: Recorder
) -> None:
    async def suicidal(event: str, data: Any, channel: str | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        if data == 0:
            task.cancel()
            await asyncio.sleep(0)
        recorder(event, data, channel)

    kit.a.bind(("e",), suicidal)
    kit.b.bind(("e",), asynchronous(recorder, pause=False))
    for number in range(3):
        kit.a.put("e", number)
    kit.b.put("e", 3)
    assert sorted(data for _, data, _ in await recorder.wait_for(3)) == [1, 2, 3]


async def test_draining_from_a_handler_delivers_to_the_lanes_behind_it(kit: Kit, recorder: Recorder) -> None:
    async def leave(event: str, data: Any, channel: str | None) -> None:
        await kit.dispatcher.drain(5)

    kit.a.bind(("e",), leave)
    kit.b.bind(("e",), asynchronous(recorder, pause=True))
    kit.a.put("e", None)
    kit.b.put("e", 1)
    kit.b.put("e", 2)
    assert [data for _, data, _ in await recorder.wait_for(2)] == [1, 2]


async def test_a_worker_that_is_cancelled_before_it_begins_is_replaced(kit: Kit, recorder: Recorder) -> None:
    kit.a.bind(("e",), asynchronous(recorder, pause=False))
    before = asyncio.all_tasks()
    kit.a.put("e", 1)
    (worker,) = asyncio.all_tasks() - before
    worker.cancel()
    kit.a.put("e", 2)
    assert [data for _, data, _ in await recorder.wait_for(2)] == [1, 2]


async def test_draining_leaves_no_worker_and_lanes_that_work_again(kit: Kit, recorder: Recorder) -> None:
    async def hang(event: str, data: Any, channel: str | None) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            kit.b.put("e", "too late")

    kit.a.bind(("e",), hang)
    kit.b.bind(("e",), asynchronous(recorder, pause=False))
    kit.b.bind(("f",), lambda *_: asyncio.get_running_loop().create_future())  # plain, and has to be waited for
    kit.a.put("e", None)
    draining = asyncio.ensure_future(kit.dispatcher.drain(5))
    await asyncio.sleep(0)
    draining.cancel()
    kit.b.put("f", "its worker is cancelled before it begins")
    with pytest.raises(asyncio.CancelledError):
        await draining
    assert asyncio.all_tasks() == {asyncio.current_task()}
    kit.a.clear()
    kit.b.clear()
    kit.dispatcher.open()
    kit.b.put("e", "again")
    assert await recorder.wait_for(1) == [("e", "again", "b")]


# --- nothing is called after unbind(), close() and drain() -----------------------------------------------------


class First:
    """A handler that runs until it is told to go on; it comes in all kinds."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.begun: list[Any] = []
        self.ended: list[Any] = []

    async def wait(self, event: str, data: Any, channel: str | None) -> None:
        self.begun.append(data)
        await self.go_on.wait()
        self.ended.append(data)

    async def deaf(self, event: str, data: Any, channel: str | None) -> None:
        self.begun.append(data)
        while not self.go_on.is_set():
            with suppress(asyncio.CancelledError):
                await self.go_on.wait()
        self.ended.append(data)

    def plain(self, event: str, data: Any, channel: str | None) -> Any:
        return self.wait(event, data, channel)


def unbind_by_name(kit: Kit, second: Recorder) -> None:
    kit.a.unbind("e")
    kit.client.unbind("e")


def unbind_by_handler(kit: Kit, second: Any) -> None:
    kit.a.unbind("e", second)
    kit.client.unbind("e", second)


LEAVING: dict[str, Callable[[Kit, Recorder], None]] = {
    "by name": unbind_by_name,
    "by handler": unbind_by_handler,
    "close": lambda kit, second: kit.a.close(),
    "clear": lambda kit, second: kit.a.clear(),
}


@every_loop
@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("whose", ["a", "client"])
@pytest.mark.parametrize("kind", ["wait", "plain"])
@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING)
async def test_who_is_unbound_while_an_earlier_handler_runs_is_not_called(
    kit: Kit,
    recorder: Recorder,
    leave: Callable[[Kit, Recorder], None],
    kind: str,
    whose: str,
    once: bool,
) -> None:
    first, last = First(), Recorder()
    kit.a.bind(("e",), getattr(first, kind))
    queue: EventQueue = getattr(kit, whose)
    queue.bind(("e",), recorder, once=once)
    kit.b.bind(("last",), last)
    kit.a.put("e", 1)
    await until(lambda: first.begun)
    leave(kit, recorder)
    first.go_on.set()
    await until(lambda: first.ended)
    await kit.dispatcher.wait_finished(5)
    assert recorder.calls == []


@every_loop
async def test_who_remains_is_called_in_order(kit: Kit) -> None:
    """Also where the one that runs is unbound, and others are bound meanwhile, which get the next event."""
    first, order = First(), list[str]()
    bindings = {name: kit.a.bind(("e",), lambda *_, name=name: order.append(name)) for name in "xy"}
    running = kit.a.bind(("e",), first.wait)
    more = {name: kit.a.bind(("e",), lambda *_, name=name: order.append(name)) for name in "zuv"}
    kit.a.put("e", 1)
    await until(lambda: first.begun)
    for each in (bindings["y"], running, more["u"]):
        each.unbind()
    kit.a.bind(("e",), lambda *_: order.append("new"))
    first.go_on.set()
    kit.a.put("e", 2)
    await kit.dispatcher.wait_finished(5)
    assert order == ["x", "y", "z", "v", "x", "z", "v", "new"]
    assert first.ended == [1]


async def test_a_plain_handler_unbinds_those_behind_it(kit: Kit, recorder: Recorder) -> None:
    def leave(event: str, data: Any, channel: str | None) -> None:
        own.unbind()
        kit.client.unbind("e", recorder)

    kit.a.bind(("e",), leave)
    own = kit.a.bind(("e",), recorder)
    kit.client.bind(("e",), recorder)
    kit.client.bind(("e",), recorder, once=True)
    kit.a.bind(("other",), recorder)
    kit.a.put("e", None)
    kit.a.put("other", None)
    assert recorder.events == ["other"]


async def test_a_plain_handler_closes_its_queue(kit: Kit, recorder: Recorder) -> None:
    kit.a.bind(("e",), lambda *_: kit.a.close())
    kit.a.bind(("e",), recorder)
    kit.client.bind(("e",), recorder)
    kit.a.put("e", None)
    kit.a.put("e", None)
    kit.b.put("e", None)
    assert [channel for _, _, channel in recorder.calls] == ["b"]


@every_loop
async def test_once_is_once_however_many_lanes_come_to_it(kit: Kit, recorder: Recorder) -> None:
    first = First()
    kit.a.bind(("e",), first.wait)
    kit.client.bind(("e",), asynchronous(recorder, pause=True), once=True)
    kit.a.put("e", 1)
    await until(lambda: first.begun)
    kit.b.put("e", 2)
    await recorder.wait_for(1)
    first.go_on.set()
    await kit.dispatcher.wait_finished(5)
    assert recorder.calls == [("e", 2, "b")]


@every_loop
@pytest.mark.parametrize("kind", ["wait", "deaf", "plain"])
@pytest.mark.parametrize("cancelled_in_time", [True, False])
async def test_after_a_drain_no_handler_is_called(
    kit: Kit, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, kind: str, cancelled_in_time: bool
) -> None:
    monkeypatch.setattr("reverb._dispatch._CANCEL_TIMEOUT", 0.01)
    first = First()
    kit.a.bind(("e",), getattr(first, kind))
    kit.a.bind(("e",), recorder)
    kit.client.bind(("e",), recorder)
    kit.a.put("e", 1)
    kit.a.put("e", 2)
    await until(lambda: first.begun)
    if cancelled_in_time:
        await kit.dispatcher.drain(0)
    else:
        draining = asyncio.ensure_future(kit.dispatcher.drain(5))
        await asyncio.sleep(0)
        draining.cancel()
        await asyncio.wait({draining})
    first.go_on.set()
    kit.a.put("e", 3)
    kit.b.put("e", 4)
    await wait_turns(20)
    assert (first.begun, recorder.calls) == ([1], [])


@every_loop
@pytest.mark.parametrize("leave", ["once", "unbind", "clear", "close"])
@pytest.mark.parametrize("others", [0, 1])
async def test_what_a_plain_handler_returns_is_waited_for_also_where_it_is_unbound(
    kit: Kit, recorder: Recorder, leave: str, others: int
) -> None:
    first = First()

    def handler(event: str, data: Any, channel: str | None) -> Any:
        if leave == "unbind":
            kit.a.unbind("e")
        elif leave != "once":
            getattr(kit.a, leave)()
        return first.wait(event, data, channel)

    kit.a.bind(("e",), handler, once=leave == "once")
    for _ in range(others):
        kit.client.bind(("e",), recorder)
    kit.a.put("e", 1)
    await until(lambda: first.begun)
    first.go_on.set()
    await kit.dispatcher.wait_finished(5)
    assert first.ended == [1]
    assert len(recorder.calls) == (others if leave in ("once", "unbind") else 0)


@every_loop
@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("leave", [EventQueue.clear, EventQueue.close])
async def test_what_a_plain_handler_has_returned_is_waited_for_when_the_channel_is_left_at_once(
    kit: Kit, recorder: Recorder, leave: Callable[[EventQueue], None], others: int
) -> None:
    first = First()
    first.go_on.set()
    kit.a.bind(("e",), first.plain)
    for _ in range(others):
        kit.a.bind(("e",), recorder)
    kit.a.put("e", 1)
    leave(kit.a)  # before anything of what it has returned was run
    await kit.dispatcher.wait_finished(5)
    assert (first.ended, recorder.calls) == ([1], [])


@every_loop
@pytest.mark.parametrize("others", [0, 1])
async def test_what_a_plain_handler_has_returned_is_closed_where_no_worker_comes_to_it(
    kit: Kit, recorder: Recorder, others: int
) -> None:
    """Else Python warns of a coroutine that was never awaited."""
    first = First()
    kit.a.bind(("e",), first.plain)
    for _ in range(others):
        kit.a.bind(("e",), recorder)
    kit.a.put("e", 1)
    await kit.dispatcher.drain(0)
    gc.collect()
    assert (first.begun, recorder.calls) == ([], [])


class Sealed:
    """A queue like an encrypted channel's."""

    def __init__(self, kit: Kit) -> None:
        self.go_on = asyncio.Event()
        self.error: Exception | None = None
        self.asked: list[Any] = []
        self.queue = EventQueue("sealed", kit.dispatcher, kit.client, self.decrypt)

    async def decrypt(self, event: str, data: Any) -> Any:
        if event.startswith("reverb:"):
            return data
        self.asked.append(data)
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return f'"{data} decrypted"'


@every_loop
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("leave", ["unbind", "clear", "close", "drain"])
async def test_who_is_unbound_while_an_event_is_decrypted_is_not_called(
    kit: Kit, recorder: Recorder, caplog: pytest.LogCaptureFixture, leave: str, fails: bool
) -> None:
    sealed, errors = Sealed(kit), Recorder()
    sealed.error = ValueError("no key") if fails else None
    sealed.queue.bind(("e",), recorder)
    sealed.queue.bind(("e",), asynchronous(recorder, pause=False), once=True)
    kit.client.bind(("e",), recorder)
    kit.client.bind(("error",), errors)
    sealed.queue.put("e", "1")
    await until(lambda: sealed.asked)
    if leave == "unbind":
        sealed.queue.unbind("e")
        kit.client.unbind("e")
    elif leave == "drain":
        await kit.dispatcher.drain(0)
    else:
        getattr(sealed.queue, leave)()
    sealed.go_on.set()
    await kit.dispatcher.wait_finished(5)
    await wait_turns(5)
    assert recorder.calls == []
    # To who is still there it is worth a word that an event could not be read.
    assert len(errors.calls) == (fails and leave == "unbind")
    assert ("skipped" in caplog.text) == (fails and leave == "unbind")


@every_loop
async def test_who_is_bound_while_an_event_is_decrypted_is_called(kit: Kit, recorder: Recorder) -> None:
    sealed = Sealed(kit)
    sealed.queue.bind(("e",), lambda *_: None)
    sealed.queue.put("e", "1")
    await until(lambda: sealed.asked)
    sealed.queue.bind(("e",), recorder)
    sealed.go_on.set()
    assert await recorder.wait_for(1) == [("e", "1 decrypted", "sealed")]


# --- draining --------------------------------------------------------------------------------------------------


async def _in_a_child(coroutine: Any) -> None:
    if sys.version_info >= (3, 11):
        async with asyncio.TaskGroup() as group:
            group.create_task(coroutine)
    else:
        await asyncio.gather(asyncio.ensure_future(coroutine))


WAYS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda coroutine: coroutine,
    "wait_for": lambda coroutine: asyncio.wait_for(coroutine, 5),
    "child": _in_a_child,
    "grandchild": lambda coroutine: _in_a_child(asyncio.wait_for(coroutine, 5)),
    "shielded": asyncio.shield,
}


@every_loop
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_draining_from_a_handler_waits_for_all_others(
    kit: Kit, recorder: Recorder, caplog: pytest.LogCaptureFixture, way: Callable[[Any], Any]
) -> None:
    left = asyncio.Event()

    async def leave(event: str, data: Any, channel: str | None) -> None:
        await way(kit.dispatcher.drain(60))
        left.set()

    kit.a.bind(("e",), leave)
    kit.a.bind(("e",), recorder)
    kit.b.bind(("e",), asynchronous(recorder, pause=True))
    kit.a.put("e", 1)
    kit.a.put("e", 2)
    for number in range(3, 6):
        kit.b.put("e", number)
    await asyncio.wait_for(left.wait(), 5)
    await wait_turns(5)
    assert recorder.calls == [("e", number, "b") for number in range(3, 6)]
    assert not [record for record in caplog.records if record.name == "reverb.dispatch"]


@every_loop
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_two_handlers_that_drain_do_not_wait_for_each_other(
    kit: Kit, caplog: pytest.LogCaptureFixture, way: Callable[[Any], Any]
) -> None:
    left = Recorder()

    async def leave(event: str, data: Any, channel: str | None) -> None:
        await asyncio.sleep(0)
        await way(kit.dispatcher.drain(60))
        left(event, data, channel)

    kit.client.bind(("e",), leave)
    kit.a.put("e", 1)
    kit.b.put("e", 2)
    assert sorted(data for _, data, _ in await left.wait_for(2)) == [1, 2]
    assert not [record for record in caplog.records if record.name == "reverb.dispatch"]


@every_loop
async def test_a_task_that_outlives_its_handler_may_drain(kit: Kit, recorder: Recorder) -> None:
    tasks: list[asyncio.Task[None]] = []
    go_on = asyncio.Event()

    async def leave_later() -> None:
        await go_on.wait()
        await kit.dispatcher.drain(60)

    def start(event: str, data: Any, channel: str | None) -> None:
        tasks.append(asyncio.get_running_loop().create_task(leave_later()))

    async def start_too(event: str, data: Any, channel: str | None) -> None:
        start(event, data, channel)

    kit.a.bind(("e",), start)
    kit.b.bind(("e",), start_too)
    kit.a.put("e", 1)
    kit.b.put("e", 2)
    await until(lambda: len(tasks) == 2)
    await kit.dispatcher.wait_finished(5)
    kit.client.bind(("f",), asynchronous(recorder, pause=True))
    kit.a.put("f", 3)
    kit.b.put("f", 4)
    go_on.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert sorted(data for _, data, _ in recorder.calls) == [3, 4]


def no_more_than(tasks: set[asyncio.Task[Any]]) -> bool:
    return asyncio.all_tasks() <= tasks


@every_loop
async def test_a_drain_that_is_cancelled_at_any_turn_leaves_nothing_that_runs(recorder: Recorder) -> None:
    for number in turns():
        kit, first = Kit(), First()
        kit.a.bind(("e",), first.wait)
        kit.b.bind(("e",), asynchronous(recorder, pause=True))
        before = asyncio.all_tasks()
        for each in (kit.a, kit.b):
            each.put("e", number)
            each.put("e", number)
        draining = asyncio.get_running_loop().create_task(kit.dispatcher.drain(0.001 * (number > 10)))
        await wait_turns(1 + number)  # before its first turn there is nothing that could be cancelled
        is_over = draining.done()
        draining.cancel()
        await asyncio.wait({draining})
        await until(functools.partial(no_more_than, before))
        called = len(recorder.calls)
        kit.b.put("e", "too late")
        await wait_turns(3)
        assert len(recorder.calls) == called
        assert kit.dispatcher.pending_events == kit.dispatcher.pending_bytes == 0
        assert not first.ended
        kit.dispatcher.open()
        kit.b.put("e", "again")
        await recorder.wait_for(called + 1)
        await kit.dispatcher.drain(5)
        if is_over:
            break


@every_loop
@pytest.mark.parametrize("when", ["before", "during"])
async def test_a_drain_in_a_hurry_waits_for_nobody(kit: Kit, caplog: pytest.LogCaptureFixture, when: str) -> None:
    first = First()
    kit.a.bind(("e",), first.wait)
    kit.a.put("e", 1)
    await until(lambda: first.begun)
    if when == "before":
        kit.dispatcher.cancel_handlers()
    draining = asyncio.get_running_loop().create_task(kit.dispatcher.drain(60))
    if when == "during":
        await wait_turns(3)
        kit.dispatcher.cancel_handlers()
    await asyncio.wait_for(draining, 5)
    assert first.ended == []
    assert "cancelling 1 handler at once" in caplog.text
    kit.dispatcher.open()  # the next one waits again
    kit.a.put("e", 2)
    await until(lambda: len(first.begun) == 2)
    draining = asyncio.get_running_loop().create_task(kit.dispatcher.drain(60))
    await wait_turns(3)
    first.go_on.set()
    await asyncio.wait_for(draining, 5)
    assert first.ended == [2]


@every_loop
async def test_a_hurried_drain_lets_the_handler_that_called_it_finish(kit: Kit) -> None:
    first, left = First(), Recorder()

    async def leave(event: str, data: Any, channel: str | None) -> None:
        await kit.dispatcher.drain(60)
        left(event, data, channel)

    kit.a.bind(("e",), leave)
    kit.b.bind(("e",), first.wait)
    kit.b.put("e", 1)
    kit.a.put("e", 2)
    await until(lambda: first.begun)
    kit.dispatcher.cancel_handlers()
    await left.wait_for(1)
    assert first.ended == []


@every_loop
async def test_a_deaf_handler_that_ends_on_the_next_connection_does_not_disturb_it(
    kit: Kit, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reverb._dispatch._CANCEL_TIMEOUT", 0.01)
    first, running, most = First(), 0, 0

    async def handler(event: str, data: Any, channel: str | None) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await first.deaf(event, data, channel)
        recorder(event, data, channel)
        running -= 1

    kit.a.bind(("e",), handler)
    kit.a.put("e", 1)
    kit.a.put("e", "lost")
    await until(lambda: first.begun)
    await kit.dispatcher.drain(0)
    kit.dispatcher.open()
    for number in range(2, 7):
        kit.a.put("e", number)
        await wait_turns(1)
    kit.b.bind(("e",), recorder)
    kit.b.put("e", "other queues go on")
    assert recorder.calls == [("e", "other queues go on", "b")]
    assert first.begun == [1]  # events of a queue come one after another
    first.go_on.set()
    await recorder.wait_for(7)
    assert [data for _, data, channel in recorder.calls if channel == "a"] == [1, 2, 3, 4, 5, 6]
    assert most == 1
    await kit.dispatcher.drain(5)
    assert kit.dispatcher.pending_events == 0


@every_loop
async def test_a_spared_handler_that_is_still_running_on_the_next_connection_is_waited_for(
    kit: Kit, recorder: Recorder
) -> None:
    go_on = asyncio.Event()

    async def leave(event: str, data: Any, channel: str | None) -> None:
        if data == 1:
            await kit.dispatcher.drain(5)
            recorder("left", data, channel)
            await go_on.wait()
        recorder(event, data, channel)

    kit.a.bind(("e",), leave)
    kit.a.put("e", 1)
    await recorder.wait_for(1)
    kit.dispatcher.open()
    kit.a.put("e", 2)
    draining = asyncio.get_running_loop().create_task(kit.dispatcher.drain(60))
    await wait_turns(3)
    assert not draining.done()
    go_on.set()
    await asyncio.wait_for(draining, 5)
    assert [(event, data) for event, data, _ in recorder.calls] == [("left", 1), ("e", 1), ("e", 2)]


@every_loop
async def test_who_runs_in_whose_handler(kit: Kit) -> None:
    seen: dict[str, Any] = {}

    def look(where: str) -> None:
        worker, dispatcher = kit.dispatcher.current_worker(), kit.dispatcher
        seen[where] = (
            None if worker is None or worker.queue is None else worker.queue.name,
            dispatcher.is_handler(),
            dispatcher.is_handler_of(kit.a),
            dispatcher.is_handler_of(kit.b),
        )

    async def child() -> None:
        look("child")
        await asyncio.sleep(0)
        look("child later")

    async def handler(event: str, data: Any, channel: str | None) -> None:
        await asyncio.sleep(0)
        look("handler")
        await asyncio.get_running_loop().create_task(child())
        kit.b.put("e", None)  # another queue's handler that is called on the spot runs in ours

    kit.a.bind(("e",), handler)
    kit.b.bind(("e",), lambda *_: look("within"))
    look("outside")
    kit.a.put("e", None)
    await kit.dispatcher.wait_finished(5)
    kit.b.put("e", None)
    look("afterwards")
    assert seen.pop("within") == (None, False, False, False)  # the last time
    assert seen == {
        "outside": (None, False, False, False),
        "handler": ("a", True, True, False),
        "child": ("a", False, False, False),
        "child later": ("a", False, False, False),
        "afterwards": (None, False, False, False),
    }


# --- max_pending -----------------------------------------------------------------------------------------------

DROPPED = "reverb:events_dropped"
RESUBSCRIBED = "reverb:resubscribed"


class Bounded(Kit):
    """A queue that holds a few events, a handler that waits, and what it got."""

    def __init__(self, most: int | None, first: First) -> None:
        super().__init__()
        self.dispatcher.open()
        self.a.max_pending = most
        self.first = first
        self.got: list[tuple[str, Any]] = []
        self.a.bind(("*",), self.handle)

    async def handle(self, event: str, data: Any, channel: str | None) -> None:
        self.got.append((event, data))
        await self.first.go_on.wait()

    async def begin(self) -> None:
        self.a.put("e", 0)
        await until(lambda: self.got)

    def put(self, *data: Any) -> None:
        for each in data:
            self.a.put("e" if isinstance(each, int) else each, each, None, 10)

    async def rest(self) -> list[tuple[str, Any]]:
        self.first.go_on.set()
        await self.dispatcher.wait_finished(5)
        dispatcher = self.dispatcher
        assert dispatcher.pending_events == dispatcher.pending_bytes == len(self.a) == 0
        delivered = dispatcher.taken - dispatcher.unbound - dispatcher.discarded - dispatcher.dropped
        assert delivered == len(self.got)
        got, self.got = self.got[1:], []
        return got


@every_loop
async def test_the_oldest_events_make_room_and_one_of_ours_stands_in_their_place() -> None:
    kit = Bounded(3, First())
    await kit.begin()
    kit.put(*range(1, 4))
    assert len(kit.a) == 3
    kit.put(*range(4, 11))
    assert len(kit.a) == 4  # three and the one of ours
    assert kit.dispatcher.dropped == 7
    assert await kit.rest() == [(DROPPED, {"count": 7}), ("e", 8), ("e", 9), ("e", 10)]


@every_loop
async def test_the_events_of_the_protocol_are_kept_and_not_counted() -> None:
    kit = Bounded(1, First())
    await kit.begin()
    kit.put(1, "pusher_internal:member_added", 2, "pusher:subscription_count", RESUBSCRIBED, 3, 4, 5)
    kit.put("pusher_internal:member_removed")
    got = await kit.rest()
    assert [event if event != "e" else data for event, data in got] == [
        DROPPED,
        "pusher_internal:member_added",
        DROPPED,
        "pusher:subscription_count",
        RESUBSCRIBED,
        DROPPED,
        5,
        "pusher_internal:member_removed",
    ]
    assert [data for event, data in got if event == DROPPED] == [{"count": 1}, {"count": 1}, {"count": 2}]


@every_loop
async def test_what_was_dropped_before_and_after_a_delivery_is_told_twice() -> None:
    kit = Bounded(2, First())
    await kit.begin()
    kit.put(1, 2, 3, 4)
    kit.first.go_on.set()
    await until(lambda: len(kit.got) == 4)
    kit.first.go_on.clear()
    kit.put(5)
    await until(lambda: len(kit.got) == 5)
    kit.put(6, 7, 8)
    assert await kit.rest() == [(DROPPED, {"count": 2}), *(("e", number) for number in (3, 4, 5)),
                                (DROPPED, {"count": 1}), ("e", 7), ("e", 8)]  # fmt: skip


async def test_a_bound_on_a_lane_that_is_held() -> None:
    kit = Bounded(2, First())
    kit.a.hold()
    kit.put("pusher_internal:subscription_succeeded", *range(5))
    kit.a.release_in(0)
    kit.first.go_on.set()
    await until(lambda: len(kit.got) == 4)
    assert [event for event, _ in kit.got] == ["pusher_internal:subscription_succeeded", DROPPED, "e", "e"]
    assert kit.got[1:] == [(DROPPED, {"count": 3}), ("e", 3), ("e", 4)]
    await kit.dispatcher.wait_finished(5)


@every_loop
async def test_a_bound_that_changes_while_events_wait() -> None:
    kit = Bounded(None, First())
    await kit.begin()
    kit.put(*range(1, 11))
    kit.a.max_pending = 20
    kit.put(11)
    assert kit.dispatcher.dropped == 0
    kit.a.max_pending = 4
    assert kit.dispatcher.dropped == 7
    kit.a.max_pending = 5
    kit.put(12, 13)
    assert kit.dispatcher.dropped == 8
    kit.a.max_pending = None
    kit.put(14)
    assert await kit.rest() == [(DROPPED, {"count": 8}), *(("e", number) for number in range(9, 15))]


@every_loop
@pytest.mark.parametrize("again", [False, True])
async def test_what_is_cleared_is_not_told_as_dropped(again: bool) -> None:
    kit = Bounded(1, First())
    await kit.begin()
    kit.put(1, 2, 3)
    kit.a.clear()
    assert (kit.dispatcher.dropped, kit.dispatcher.discarded) == (2, 2)
    if again:
        kit.put(4, 5)
    assert await kit.rest() == ([(DROPPED, {"count": 1}), ("e", 5)] if again else [])


async def test_nothing_is_dropped_where_handlers_keep_up(kit: Kit, recorder: Recorder) -> None:
    kit.a.max_pending = 1
    kit.a.bind(("e",), recorder)
    for number in range(10):
        kit.a.put("e", number)
    kit.a.unbind("e")
    kit.a.bind(("e",), asynchronous(recorder, pause=True))
    for number in range(10, 15):
        kit.a.put("e", number)
        await kit.dispatcher.wait_finished(5)
    assert [data for _, data, _ in recorder.calls] == list(range(15))
    assert kit.dispatcher.dropped == 0


async def test_a_bound_that_comes_late_takes_the_pressure_away(kit: Kit) -> None:
    kit.a.hold()
    for number in range(10):
        kit.a.put("e", number, None, 1)
    assert kit.pressure == [True]
    kit.a.max_pending = 2
    assert kit.pressure == [True, False]
    kit.a.clear()


async def test_what_is_dropped_makes_no_pressure(kit: Kit) -> None:
    kit.a.max_pending = 5
    kit.a.hold()
    for number in range(1_000):
        kit.a.put("e", str(number), None, 1)
    assert kit.pressure == []
    assert kit.dispatcher.pending_bytes == 5
    kit.a.clear()
    assert kit.dispatcher.pending_bytes == 0


@every_loop
async def test_a_bound_on_what_is_sealed(kit: Kit, recorder: Recorder) -> None:
    sealed = Sealed(kit)
    sealed.queue.max_pending = 2
    sealed.queue.bind(("*",), recorder)
    for number in range(6):
        sealed.queue.put("e", number)
    await until(lambda: sealed.asked)
    sealed.queue.put("e", 6)
    sealed.go_on.set()
    calls = await recorder.wait_for(4 if sealed.asked[0] == 0 else 3)
    await kit.dispatcher.wait_finished(5)
    assert [event for event, _, _ in calls].count(DROPPED) >= 1
    assert [data for event, data, _ in calls if event == "e"][-2:] == ["5 decrypted", "6 decrypted"]
    dropped = sum(data["count"] for event, data, _ in calls if event == DROPPED)
    assert dropped == kit.dispatcher.dropped == 7 - sum(event == "e" for event, _, _ in calls)


async def test_a_lane_goes_on_behind_what_is_no_error_of_a_handler(kit: Kit, recorder: Recorder) -> None:
    """A cell of a notebook may be interrupted in the middle of a plain handler."""

    def interrupted(*_: Any) -> None:
        kit.a.put("while it runs", None)
        raise KeyboardInterrupt

    kit.a.bind(("e",), interrupted)
    kit.a.bind(("e",), recorder)
    kit.a.bind(("while it runs",), recorder)
    with pytest.raises(KeyboardInterrupt):
        kit.a.put("e", None)
    kit.a.unbind("e", interrupted)
    kit.a.put("e", None)
    await recorder.wait_for(2)
    assert recorder.events == ["while it runs", "e"]


async def test_dropping_behind_much_that_is_not_dropped_takes_no_time(kit: Kit, recorder: Recorder) -> None:
    kit.a.max_pending = 1
    kit.a.hold()
    for _ in range(4_000):
        kit.a.put("pusher_internal:member_added", "{}")
    began = monotonic()
    for number in range(4_001):
        kit.a.put("e", str(number))
    assert monotonic() - began < 1, (
        "it took 3.7 seconds, and blocked the loop, when all was gone through each time"
    )
    kit.a.bind(("e", "reverb:events_dropped"), recorder)
    kit.a.release()
    assert await recorder.wait_for(2) == [("reverb:events_dropped", {"count": 4_000}, "a"), ("e", 4_000, "a")]


async def test_what_is_kept_in_front_of_dropped_events_may_be_delivered_meanwhile(
    kit: Kit, recorder: Recorder
) -> None:
    kit.a.max_pending = 1
    may_go_on = asyncio.Event()

    async def slow(event: str, data: Any, channel: str | None) -> None:
        recorder(event, data, channel)
        if event == "pusher:first":
            await may_go_on.wait()

    kit.a.bind(("*",), slow)
    for event in ("pusher:first", "pusher:second", "e1", "e2", "pusher:third", "e3"):
        kit.a.put(event, None)
    await recorder.wait_for(1)
    kit.a.put("e4", None)
    may_go_on.set()
    await recorder.wait_for(6)
    kit.a.put("e5", None)
    await recorder.wait_for(7)
    assert [(event, (data or {}).get("count")) for event, data, _ in recorder.calls] == [
        ("pusher:first", None),
        ("pusher:second", None),
        ("reverb:events_dropped", 2),
        ("pusher:third", None),
        ("reverb:events_dropped", 1),
        ("e4", None),
        ("e5", None),
    ]


async def test_who_left_hears_of_no_failure_but_the_client_does(kit: Kit) -> None:
    errors, left = Recorder(), Recorder()

    async def leave_and_fail(*_: Any) -> None:
        kit.a.close()
        raise RuntimeError("too late")

    kit.client.bind(("error",), errors)
    kit.a.bind(("error",), left)
    kit.a.bind(("e",), leave_and_fail)
    kit.a.put("e", None)
    ((_, data, channel),) = await errors.wait_for(1)
    assert (str(data["exception"]), channel) == ("too late", None)
    assert left.calls == []
