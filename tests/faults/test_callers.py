"""Callers as an axis of faults, beside the network.

Each public coroutine, in each way to call it, on each kind of event loop; what the judge asks of each cell stands
in :meth:`Cell.judge`. Programs in a hurry that need more than one call are in ``test_hurry.py``.

What was pruned, because it can't differ, or is tried elsewhere:

- uvloop with eager tasks, but for cancelling. Eager tasks are the program's alone, since ours never are
  (``_tasks.py``); uvloop is about transports and timers. Neither touches the other.
- Distances far out: a call begins with some turns that all do something else, and then mostly waits. Cancelling
  looks at each of the first 60; where a second thing happens meanwhile, distances grow by half each time.
- Turns in which a client that reconnects only sleeps: it is called right after the cut, and from the moment on at
  which it is back at the server. What else a network does while a client reconnects is in ``test_matrix.py``.
- Cancelling in an outage or a drain, at each turn of both: a call is made at one moment, and cancelled at a few.
- connect() of a client that was never connected, in a handler, an outage, a drain, or while authorizers hang:
  there is none of these then. In its place a client that was connected is told to connect.
- listen() in a handler itself: it raises there, as ``test_hurry.py`` says.
- unsubscribe() of each kind of channel, and trigger() of presence channels: the name's prefix changes nothing.
- signin() that succeeds: Reverb, and the embedded server with it, refuses it. ``tests/test_session.py`` cancels it
  at each turn on a server that does not.
- disconnect() of Echo: it is the client's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from reverb import ConnectionState

from .callers import (
    AUTH_CONCURRENCY,
    CALLS,
    CALLS_WHEN_CONNECTED,
    DEADLINE,
    DISCONNECT,
    KINDS,
    LISTEN,
    Call,
    Cell,
    Kind,
    Stage,
    WrongError,
    counts,
    few_counts,
    in_time,
    play,
    turns,
    until,
)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
each_kind = pytest.mark.parametrize("kind", KINDS[:3], ids=lambda kind: kind.name)
each_call = pytest.mark.parametrize("call", CALLS, ids=str)
each_call_when_connected = pytest.mark.parametrize("call", CALLS_WHEN_CONNECTED, ids=str)


@every_kind
@each_call
def test_cancelled_after_each_number_of_turns(kind: Kind, call: Call) -> None:
    async def scene(stage: Stage) -> None:
        for count in counts():
            ended = False
            async with stage.cell(call, f"cancelled after {count} turns") as cell:
                await cell.prepare()
                task = cell.begin()
                await cell.drive(count)
                ended = task.done()
                task.cancel()
                await cell.end()
                await cell.judge()
            if ended:
                return
        raise AssertionError(f"{kind.name}: {call} never ended")

    play(kind, scene)


TIMES = (0.0, 0.0001, 0.0003, 0.001, 0.003)
"""Seconds that ``asyncio.wait_for`` gives a call."""


@each_kind
@each_call
def test_timed_out(kind: Kind, call: Call) -> None:
    async def scene(stage: Stage) -> None:
        for time in TIMES:
            async with stage.cell(call, f"timed out after {time:g} seconds") as cell:
                await cell.prepare()
                task = cell.begin()
                try:
                    waiting = asyncio.ensure_future(asyncio.wait_for(task, time))
                    await cell.drive(1)
                    await asyncio.wait({waiting})
                    waiting.result()
                except asyncio.TimeoutError:
                    pass
                await cell.end()
                await cell.judge()

    play(kind, scene)


async def both_awaited(cell: Cell) -> None:
    pass


async def first_cancelled(cell: Cell) -> None:
    cell.calls[0].cancel()


async def second_cancelled(cell: Cell) -> None:
    await turns(1)
    cell.calls[1].cancel()


@each_kind
@each_call
@pytest.mark.parametrize("then", [both_awaited, first_cancelled, second_cancelled], ids=lambda then: then.__name__)
def test_called_twice_at_each_distance(
    kind: Kind, call: Call, then: Callable[[Cell], Coroutine[Any, Any, None]]
) -> None:
    async def scene(stage: Stage) -> None:
        for count in few_counts():
            ended = False
            async with stage.cell(call, f"called again {count} turns later, {then.__name__}") as cell:
                await cell.prepare()
                first = cell.begin()
                await cell.drive(count)
                ended = first.done()
                cell.begin()
                await then(cell)
                for _ in cell.calls[bool(count) :]:
                    cell.nudge()
                await cell.end()
                await cell.judge()
            if ended:
                return

    play(kind, scene)


GO = "go"
"""The event whose handler calls."""


def bind_async(cell: Cell, call: Callable[[Cell], Coroutine[Any, Any, None]]) -> asyncio.Event:
    """Bind an ``async def`` to the other channel's ``GO``; return what tells that it has begun."""
    begun = asyncio.Event()

    async def handler(event: str, data: Any, channel: str | None) -> None:
        begun.set()
        await call(cell)

    cell.client.channels[cell.other].bind(GO, handler)
    return begun


def bind_plain(cell: Cell, call: Callable[[Cell], Coroutine[Any, Any, None]]) -> asyncio.Event:
    """Bind a plain function that does it in a task."""
    begun = asyncio.Event()

    def handler(event: str, data: Any, channel: str | None) -> None:
        begun.set()
        cell.also(call(cell))

    cell.client.channels[cell.other].bind(GO, handler)
    return begun


async def in_a_child(cell: Cell) -> None:
    await asyncio.wait({cell.begin()})


async def under_wait_for(cell: Cell) -> None:
    await asyncio.wait_for(cell.call_here(), 2 * DEADLINE)


WAYS: dict[str, tuple[Any, Any]] = {
    "an async handler": (bind_async, Cell.call_here),
    "a task of a plain handler": (bind_plain, Cell.call_here),
    "a handler's child": (bind_async, in_a_child),
    "a handler's wait_for": (bind_async, under_wait_for),
}
if sys.version_info >= (3, 11):

    async def in_a_task_group(cell: Cell) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(cell.call_here())

    WAYS["a handler's TaskGroup"] = (bind_async, in_a_task_group)


@each_kind
@each_call_when_connected
def test_called_by_a_handler(kind: Kind, call: Call) -> None:
    async def scene(stage: Stage) -> None:
        for way, (bind, how) in WAYS.items():
            if call is LISTEN and bind is bind_async and how is not in_a_child:
                continue  # raises in a handler, which has a test of its own
            async with stage.cell(call, f"called by {way}") as cell:
                await cell.prepare()
                begun = bind(cell, how)
                await stage.server.publish(cell.other, GO, {})
                await in_time(begun.wait(), "the handler")
                await turns(1)
                cell.nudge()
                await until(lambda: cell.calls, "the handler has not called")
                await cell.end()
                await cell.judge()

    play(kind, scene)


async def end_after_all(cell: Cell) -> None:
    """Wait for the calls when there is a connection again."""
    cell.may_lose = True
    if cell.call is not DISCONNECT and cell.client.state is not ConnectionState.DISCONNECTED:
        await in_time(cell.client.wait_connected(), "wait_connected()")
        await until(lambda: not cell.client.stats.missing, "channels are missing after the reconnect")
    for _ in cell.calls:
        cell.nudge()
    await cell.end(may_fail=True)


PHASES = (("the connection was cut", 6), ("the client was back at the server", 14))
"""From when turns are counted, and up to how many; between the two the client only sleeps."""


@each_kind
@each_call_when_connected
def test_called_while_reconnecting(kind: Kind, call: Call) -> None:
    async def scene(stage: Stage) -> None:
        for phase, most in PHASES:
            for count in few_counts(most):
                async with stage.cell(call, f"called {count} turns after {phase}") as cell:
                    await cell.prepare()
                    client, socket_id = cell.client, cell.client.socket_id
                    stage.server.drop()
                    if phase is not PHASES[0][0]:
                        await until(lambda: stage.server.connections, "the client does not come back")
                    await turns(count)
                    cell.begin()
                    await until(lambda: client.socket_id != socket_id, "the loss is not noticed")  # noqa: B023
                    await end_after_all(cell)
                    await cell.judge()

    play(kind, scene)


@each_kind
@each_call_when_connected
def test_cancelled_while_reconnecting(kind: Kind, call: Call) -> None:
    async def scene(stage: Stage) -> None:
        for phase, most in PHASES:
            for count in few_counts(most):
                async with stage.cell(call, f"called when {phase}, cancelled {count} turns later") as cell:
                    await cell.prepare()
                    client, socket_id = cell.client, cell.client.socket_id
                    stage.server.drop()
                    if phase is not PHASES[0][0]:
                        await until(lambda: stage.server.connections, "the client does not come back")
                    task = cell.begin()
                    await turns(count)
                    task.cancel()
                    await until(lambda: client.socket_id != socket_id, "the loss is not noticed")  # noqa: B023
                    await end_after_all(cell)
                    await cell.judge()

    play(kind, scene)


@each_kind
@each_call_when_connected
@pytest.mark.parametrize(("is_back", "most"), [(False, 6), (True, 40)], ids=["in it", "when it is over"])
def test_called_in_an_outage_and_cancelled(kind: Kind, call: Call, is_back: bool, most: int) -> None:
    async def scene(stage: Stage) -> None:
        for count in few_counts(most):
            since = "the server was back" if is_back else "the call"
            async with stage.cell(call, f"called in an outage, cancelled {count} turns after {since}") as cell:
                await cell.prepare()
                client = cell.client
                await stage.server.stop()
                try:
                    await until(lambda: not client.is_connected, "the loss is not noticed")  # noqa: B023
                    task = cell.begin()
                    if not is_back:
                        await turns(count)
                        task.cancel()
                    await turns(3)
                finally:
                    await stage.server.start()
                if is_back:
                    await turns(count)
                    task.cancel()
                await end_after_all(cell)
                await cell.judge()

    play(kind, scene)


async def _wait_for(gate: asyncio.Event, cell: Cell) -> None:
    await gate.wait()


@each_kind
@each_call_when_connected
def test_called_while_disconnect_drains(kind: Kind, call: Call) -> None:
    async def scene(stage: Stage) -> None:
        for count in few_counts(6):
            async with stage.cell(call, f"called {count} turns after disconnect(), which drains") as cell:
                await cell.prepare()
                gate = asyncio.Event()
                begun = bind_async(cell, partial(_wait_for, gate))
                await stage.server.publish(cell.other, GO, {})
                await in_time(begun.wait(), "the handler")
                disconnecting = cell.also(cell.client.disconnect())
                await turns(count)
                cell.begin()
                await turns(3)
                if disconnecting.done():
                    raise WrongError("disconnect() has not waited for the handler")
                gate.set()
                await in_time(disconnecting, "disconnect()")
                await end_after_all(cell)
                await cell.judge()

    play(kind, scene)


@each_kind
@each_call_when_connected
@pytest.mark.parametrize("is_over", [False, True], ids=["while it drains", "when it goes on"])
def test_called_while_disconnect_drains_and_cancelled(kind: Kind, call: Call, is_over: bool) -> None:
    async def scene(stage: Stage) -> None:
        for count in few_counts(6):
            since = "the handler ended" if is_over else "the call"
            async with stage.cell(call, f"called in a drain, cancelled {count} turns after {since}") as cell:
                await cell.prepare()
                gate = asyncio.Event()
                begun = bind_async(cell, partial(_wait_for, gate))
                await stage.server.publish(cell.other, GO, {})
                await in_time(begun.wait(), "the handler")
                disconnecting = cell.also(cell.client.disconnect())
                await turns(1)
                task = cell.begin()
                if is_over:
                    await turns(3)
                    gate.set()
                await turns(count)
                task.cancel()
                await turns(3)
                if disconnecting.done() and not is_over:
                    raise WrongError("disconnect() has not waited for the handler")
                gate.set()
                await in_time(disconnecting, "disconnect()")
                await end_after_all(cell)
                await cell.judge()

    play(kind, scene)


def _are_all_busy(cell: Cell) -> bool:
    return cell.signer.running == AUTH_CONCURRENCY


@each_kind
@each_call_when_connected
def test_called_while_authorizers_hang(kind: Kind, call: Call) -> None:
    """All turns of authorizers are taken, until those who wait for them give up."""

    async def scene(stage: Stage) -> None:
        for count in few_counts(10):
            async with stage.cell(call, f"authorizers hang for {count} turns", signs=True) as cell:
                await cell.prepare()
                hanging = [
                    asyncio.ensure_future(cell.client.subscribe(f"private-hang-{number}{cell.other}"))
                    for number in range(AUTH_CONCURRENCY + 1)
                ]
                await until(partial(_are_all_busy, cell), "the authorizer is not asked")
                cell.begin()
                await cell.drive(count)
                for task in hanging:
                    task.cancel()
                await asyncio.wait(hanging)
                if not count:
                    cell.nudge()
                await cell.end(may_fail=True)
                await cell.judge()

    play(kind, scene)
