"""Timeouts: many things that have their time, and one timer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reverb._timeouts import Timeouts
from tests.loops import only_asyncio

from .loops import every_loop
from .watching import until, wait_turns

_NEVER = 3600.0


class Over:
    """Items whose time is over, in order."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.timeouts: Timeouts[str] = Timeouts(self.items.append)

    async def wait_for(self, *items: str) -> None:
        await until(lambda: len(self.items) >= len(items))
        assert self.items == list(items)


@pytest.fixture
async def over() -> AsyncIterator[Over]:
    over = Over()
    yield over
    over.timeouts.clear()


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.TimerHandle]:
    """All that are made in the running loop."""
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    call_at = loop.call_at

    def call_at_and_remember(*arguments: Any, **context: Any) -> asyncio.TimerHandle:
        timers.append(call_at(*arguments, **context))
        return timers[-1]

    monkeypatch.setattr(loop, "call_at", call_at_and_remember)
    return timers


async def test_each_is_told_when_its_time_is_over(over: Over) -> None:
    for item, seconds in (("third", 0.03), ("first", 0.0), ("never", _NEVER), ("second", 0.02)):
        over.timeouts.start(item, seconds)
    assert over.items == []
    await over.wait_for("first", "second", "third")


async def test_what_has_the_same_time_comes_in_order(over: Over, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    for item in "dcba":
        over.timeouts.start(item, 0.0)
    monkeypatch.undo()
    await over.wait_for(*"dcba")


@every_loop
async def test_no_time_is_the_next_turn_of_the_loop() -> None:
    over = Over()
    over.timeouts.start("never", _NEVER)
    over.timeouts.start("now", 0.0)
    assert over.items == []
    await wait_turns(3)
    assert over.items == ["now"]
    over.timeouts.clear()


async def test_what_is_stopped_is_not_told(over: Over) -> None:
    for item in "abc":
        over.timeouts.start(item, 0.0)
    over.timeouts.stop("b")
    over.timeouts.stop("unknown")
    await over.wait_for("a", "c")
    over.timeouts.start("a", 0.0)
    over.timeouts.clear()
    over.timeouts.start("d", 0.01)
    await over.wait_for("a", "c", "d")


@pytest.mark.parametrize(("first", "second"), [(0.0, _NEVER), (_NEVER, 0.0)])
async def test_of_two_times_the_earlier_counts_and_the_item_is_told_once(
    over: Over, first: float, second: float
) -> None:
    over.timeouts.start("a", first)
    over.timeouts.start("a", second)
    over.timeouts.start("b", 0.02)
    await over.wait_for("a", "b")


async def test_what_is_stopped_may_be_started_again(over: Over) -> None:
    over.timeouts.start("a", 0.0)
    over.timeouts.start("b", 0.0)
    over.timeouts.stop("a")
    over.timeouts.start("a", 0.03)
    await over.wait_for("b", "a")


async def test_who_is_told_may_start_and_stop() -> None:
    items: list[str] = []

    def on_timeout(item: str) -> None:
        items.append(item)
        timeouts.stop("c")
        if len(items) < 4:
            timeouts.start("a", 0.0)

    timeouts: Timeouts[str] = Timeouts(on_timeout)
    for item in "abc":
        timeouts.start(item, 0.0)
    await wait_turns(1)
    await until(lambda: len(items) == 4)
    assert items == ["a", "b", "a", "a"]


async def test_the_others_are_told_where_one_raises() -> None:
    items: list[str] = []
    raised: list[Any] = []

    def on_timeout(item: str) -> None:
        items.append(item)
        raise OSError(item)

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: raised.append(context["exception"]))
    timeouts: Timeouts[str] = Timeouts(on_timeout)
    for item in "abc":
        timeouts.start(item, 0.0)
    await until(lambda: len(items) == 3)
    assert (items, len(raised)) == (["a", "b", "c"], 3)


async def test_many_share_a_timer_and_nothing_is_left(over: Over, timers: list[asyncio.TimerHandle]) -> None:
    for number in range(100):
        over.timeouts.start(str(number), _NEVER)
    (timer,) = timers
    for number in range(100):
        assert not timer.cancelled()
        over.timeouts.stop(str(number))
    assert timer.cancelled()


async def test_nothing_is_kept_of_what_was_stopped() -> None:
    timeouts: Timeouts[object] = Timeouts(lambda item: None)
    item = object()
    before = sys.getrefcount(item)
    timeouts.start(item, _NEVER)
    timeouts.stop(item)
    assert sys.getrefcount(item) == before


@only_asyncio  # uvloop does not say when a timer that runs at once is due
async def test_what_was_stopped_wakes_nobody_up(over: Over, timers: list[asyncio.TimerHandle]) -> None:
    """The timer is that of the first item whose time can be over."""
    over.timeouts.start("last", _NEVER)
    over.timeouts.start("stopped", 60.0)
    over.timeouts.start("first", 0.0)
    over.timeouts.stop("stopped")
    await over.wait_for("first")
    now = asyncio.get_running_loop().time()
    (timer,) = [each for each in timers if each.when() > now and not each.cancelled()]
    assert timer.when() > now + 60.0


def test_it_goes_on_in_another_loop() -> None:
    """The loop of the first items was closed while they had time."""
    over = Over()

    async def begin() -> None:
        over.timeouts.start("a", 0.0)

    async def go_on() -> None:
        over.timeouts.start("b", 0.01)
        await over.wait_for("a", "b")

    asyncio.run(begin())
    asyncio.run(go_on())
