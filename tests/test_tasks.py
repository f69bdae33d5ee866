"""How the package starts tasks: on whatever event loop and task factory, they begin with a later turn."""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar
from typing import Any

import pytest

from reverb._tasks import runs_for, spawn

from .loops import every_loop
from .watching import wait_turns

number: ContextVar[int] = ContextVar("number", default=0)


@every_loop
async def test_the_first_step_comes_with_a_later_turn() -> None:
    steps: list[str] = []

    async def work() -> str:
        steps.append("began")
        await asyncio.sleep(0)
        return "done"

    task = spawn(work(), name="ours")
    assert steps == []
    assert task in asyncio.all_tasks()
    assert task.get_name() == "ours"
    assert await task == "done"


@every_loop
async def test_it_can_be_cancelled_before_it_begins() -> None:
    async def work() -> None:
        raise AssertionError("began")

    task = spawn(work())
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


@every_loop
async def test_the_current_task_stays_the_current_one() -> None:
    current = asyncio.current_task()
    seen: list[Any] = []

    async def work() -> None:
        seen.append(asyncio.current_task())

    task = spawn(work())
    assert asyncio.current_task() is current
    await task
    assert seen == [task]


async def test_the_loops_task_factory_is_not_asked() -> None:
    def factory(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("asked")

    async def work() -> int:
        return 1

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        task = spawn(work())
    finally:
        loop.set_task_factory(None)
    assert await task == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_what_a_task_of_ours_starts_itself_is_as_the_program_wants_it() -> None:
    begun: list[str] = []

    async def theirs() -> None:
        begun.append("theirs")

    async def work() -> None:
        await asyncio.sleep(0)
        child = asyncio.get_running_loop().create_task(theirs())
        begun.append("ours goes on")
        await child

    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    try:
        await spawn(work())
    finally:
        loop.set_task_factory(None)
    assert begun == ["theirs", "ours goes on"]


@every_loop
async def test_it_has_the_context_of_who_starts_it_but_is_not_part_of_a_handler() -> None:
    async def look() -> tuple[int, object | None]:
        await wait_turns(1)
        return number.get(), runs_for.get()

    number.set(7)
    assert await spawn(look()) == (7, None)
    token = runs_for.set("a worker")
    try:
        assert await spawn(look()) == (7, None)
        assert await asyncio.get_running_loop().create_task(look()) == (7, "a worker")
        assert runs_for.get() == "a worker"
    finally:
        runs_for.reset(token)


@every_loop
async def test_what_it_raises_is_for_who_waits() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await spawn(fail())
