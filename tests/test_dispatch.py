"""Bindings and lanes: who gets which event, in what order, and what handlers may do."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reverb._binding import ERROR_EVENT
from reverb._dispatch import Dispatcher, Lane

from .watching import until

Call = tuple[str, Any, str | None]


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
    """Two channels' lanes and the client's, as a client has them."""

    def __init__(self) -> None:
        self.pressure: list[bool] = []
        self.dispatcher = Dispatcher(10, 1_000, lambda: self.pressure.append(self.dispatcher.is_full))
        self.client = Lane(None, self.dispatcher)
        self.a = Lane("a", self.dispatcher, self.client)
        self.b = Lane("b", self.dispatcher, self.client)
        self.dispatcher.lanes = {"a": self.a, "b": self.b}


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
    for lane in (kit.a, kit.b, kit.client):
        lane.put("e", None)
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


async def test_a_long_queue_gives_other_lanes_their_turn(kit: Kit, recorder: Recorder) -> None:
    kit.a.bind(("e",), asynchronous(recorder, pause=False))
    kit.b.bind(("e",), asynchronous(recorder, pause=False))
    for _ in range(10_000):
        kit.a.put("e", None)
    kit.b.put("e", None)
    await recorder.wait_for(10_001)
    assert recorder.calls.index(("e", None, "b")) < 1_000


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
    await kit.dispatcher.settle(5)
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
        kit.a.learn(f"event-{number}")
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


async def test_few_events_can_be_too_many_bytes(kit: Kit, recorder: Recorder) -> None:
    kit.a.hold()
    kit.a.put("e", "1", None, 999)
    assert kit.pressure == []
    kit.a.put("e", "2", None, 1)
    assert kit.pressure == [True]
    assert not kit.dispatcher.is_flooded
    kit.a.put("e", "3", None, 3_000)
    assert kit.dispatcher.is_flooded
    kit.a.clear()
    assert kit.pressure == [True, True, False]
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

    async def report(event: str, data: Any, channel: str | None) -> None:
        order.append(f"error {data['exception']!r}")

    def wait(event: str, data: Any, channel: str | None) -> Any:
        async def handle() -> None:
            order.append(f"begins {data}")
            await go_on.wait()
            order.append(f"ends {data}")

        return handle()

    kit.a.bind(("e",), fail)
    kit.a.bind(("e",), wait)
    kit.a.bind(("error",), report if is_async else lambda *arguments: report(*arguments))
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
    kit.b.put("e", 0.05)  # which the worker of the other lane leaves to the next
    assert await kit.dispatcher.settle(5) == 0
    assert [channel for _, _, channel in recorder.calls] == ["a", "b"]


async def test_settling_tells_how_many_have_not(kit: Kit) -> None:
    go_on = asyncio.Event()

    async def handler(event: str, data: Any, channel: str | None) -> None:
        await go_on.wait()

    kit.client.bind(("e",), handler)
    kit.a.put("e", 1)
    kit.b.put("e", 2)
    await asyncio.sleep(0)
    assert await kit.dispatcher.settle(0.01) == 2
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
    assert "cancelling 1 handlers" in caplog.text


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
    assert "1 handlers still run" in caplog.text
    go_on.set()


async def test_a_worker_that_is_cancelled_from_outside_ends(kit: Kit, recorder: Recorder) -> None:
    """As asyncio.run does it with all tasks at the end of a program."""
    go_on = asyncio.Event()

    async def slow(event: str, data: Any, channel: str | None) -> None:
        recorder(event, data, channel)
        await go_on.wait()

    kit.a.bind(("e",), slow)
    kit.a.put("e", None)
    kit.a.put("e", None)
    await recorder.wait_for(1)
    (worker,) = (task for task in asyncio.all_tasks() if kit.dispatcher.is_worker(task))
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
    kit.dispatcher.closed = False
    kit.b.put("e", "again")
    assert await recorder.wait_for(1) == [("e", "again", "b")]
