"""How a running relay ends: on an engine in memory, which hangs, fails and forgets on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

import pytest

from reverb import ReverbClient, ReverbError
from reverb.relay import EngineError, Relay, _relay
from reverb.relay._log import Entry
from reverb.server import ReverbServer
from tests.loops import every_loop
from tests.relay.memory import MemoryEngine, MemorySink
from tests.watching import client_tasks, turns, until, wait_turns

LEASE = 0.6
"""Seconds."""


@pytest.fixture
async def client(reverb_server: ReverbServer) -> AsyncIterator[ReverbClient]:
    async with ReverbClient() as client:
        yield client


Publish = Callable[[int], Awaitable[None]]


@pytest.fixture
def publish(reverb_server: ReverbServer) -> Publish:
    async def publish(count: int) -> None:
        for number in range(count):
            await reverb_server.publish("orders", "e", {"n": number})

    return publish


async def leading(client: ReverbClient, **options: Any) -> tuple[Relay, asyncio.Task[None]]:
    relay = Relay(client, ["orders"], to="memory:", **{"lease": LEASE, **options})
    task = asyncio.create_task(relay.run())
    await until(lambda: relay.status.role == "leader" and relay.status.is_ready)
    return relay, task


async def end(task: asyncio.Task[None]) -> float:
    """Cancel, and return how long it takes."""
    began = monotonic()
    task.cancel()
    await asyncio.wait({task}, timeout=20)
    assert task.cancelled()
    return monotonic() - began


@every_loop
async def test_cancelled_after_each_number_of_turns(client: ReverbClient, engine: MemoryEngine) -> None:
    for count in turns():
        relay = Relay(client, ["orders", "news"], to="memory:", lease=LEASE)
        task = asyncio.create_task(relay.run())
        await wait_turns(count)
        is_leader = relay.status.role == "leader"
        await end(task)
        assert engine.holder is None, f"the lease is not given back after {count} turns"
        assert (engine.open_sinks, dict(client.channels)) == (0, {}), f"something is left after {count} turns"
        if is_leader and count > 100:
            break
    await client.disconnect()
    assert client_tasks() == set()


async def test_cancelled_between_the_lease_and_the_lead_it_gives_the_lease_back(
    client: ReverbClient, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(MemorySink, "tail", hang)
    task = asyncio.create_task(Relay(client, ["orders"], to="memory:", lease=LEASE).run())
    await until(lambda: engine.holder is not None)
    await end(task)
    assert (engine.holder, engine.open_sinks) == (None, 0)


async def test_it_gives_the_lease_back_though_the_engine_is_slow(
    client: ReverbClient, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_reading = asyncio.Event()

    async def hang(*_: Any) -> None:
        is_reading.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(MemorySink, "tail", hang)
    task = asyncio.create_task(Relay(client, ["orders"], to="memory:", lease=LEASE).run())
    await asyncio.wait_for(is_reading.wait(), 10)
    engine.pause()
    asyncio.get_running_loop().call_later(0.5, engine.resume)
    await end(task)
    assert engine.holder is None


async def test_it_gives_the_lease_back_though_the_engine_fails_for_a_moment(
    client: ReverbClient, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, attempts = MemorySink.release, 0

    async def fail_once(sink: MemorySink, epoch: int, watermark: int | None, state: bytes) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise EngineError("the engine is away")
        await release(sink, epoch, watermark, state)

    monkeypatch.setattr(MemorySink, "release", fail_once)
    _, task = await leading(client)
    await end(task)
    assert (engine.holder, attempts) == (None, 2)


async def test_what_can_not_be_written_in_the_end_is_counted(
    client: ReverbClient,
    engine: MemoryEngine,
    publish: Publish,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_relay, "_END_TIMEOUT", 0.5)
    relay, task = await leading(client)
    engine.is_away = True
    await publish(5)
    await until(lambda: relay.status.pending == 5)
    assert await end(task) < 2
    assert relay.status.pending == 5
    assert "the log may lack 5 events that it has received: the engine is away" in caplog.text
    assert engine.open_sinks == 0


@pytest.mark.parametrize("others", [0, 1])
async def test_what_a_deposed_relay_could_not_write_is_counted_unless_another_one_is_ready(
    client: ReverbClient, engine: MemoryEngine, publish: Publish, caplog: pytest.LogCaptureFixture, others: int
) -> None:
    engine.others = others
    relay, task = await leading(client)
    await until(lambda: relay.status.others == others)
    engine.pause()
    await publish(5)
    await until(lambda: relay.status.pending == 5)
    engine.epoch, engine.holder = engine.epoch + 1, "another"
    asyncio.get_running_loop().call_later(0.3, engine.resume)
    await end(task)
    assert relay.status.pending == (0 if others else 5)
    assert ("the log may lack 5 events" in caplog.text) == (not others)
    assert engine.holder == "another"


async def test_an_engine_that_hangs_holds_up_the_end_for_a_stated_time_only(
    client: ReverbClient,
    engine: MemoryEngine,
    publish: Publish,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_relay, "_END_TIMEOUT", 0.5)
    relay, task = await leading(client, lease=60)
    engine.pause()
    await publish(5)
    await until(lambda: relay.status.pending == 5)
    assert await end(task) < 2
    assert "the log may lack 5 events that it has received: memory: does not answer" in caplog.text
    assert engine.open_sinks == 0


async def test_an_engine_that_fails_for_a_moment_gets_what_is_left(
    client: ReverbClient, engine: MemoryEngine, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    relay, task = await leading(client)
    engine.is_away = True
    await publish(5)
    await until(lambda: relay.status.pending == 5)
    asyncio.get_running_loop().call_later(0.3, setattr, engine, "is_away", False)
    await end(task)
    assert len(engine.log) == 5
    assert relay.status.pending == 0
    assert engine.holder is None
    assert "may lack" not in caplog.text


async def test_what_was_never_written_as_the_engine_was_away_from_the_start_is_counted(
    client: ReverbClient, engine: MemoryEngine, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    engine.is_away = True
    relay = Relay(client, ["orders"], to="memory:", lease=LEASE)
    task = asyncio.create_task(relay.run())
    await until(lambda: "orders" in client.channels)
    await publish(5)
    await until(lambda: relay.status.received == 5 and relay.status.problem)
    await end(task)
    assert "the log may lack 5 events that it has received: the engine is away" in caplog.text


async def test_a_cancellation_that_is_swallowed_is_said_again(client: ReverbClient, engine: MemoryEngine) -> None:
    _, task = await leading(client)
    engine.ignored = 1
    engine.pause()
    await asyncio.sleep(LEASE / 2)  # until it asks for the lease
    asyncio.get_running_loop().call_later(0.1, engine.resume)
    await end(task)
    assert engine.cancellations >= 1


async def test_a_server_that_refuses_it_for_good_ends_it(
    client: ReverbClient, engine: MemoryEngine, reverb_server: ReverbServer
) -> None:
    _, task = await leading(client)
    reverb_server.refuse(4001)
    reverb_server.drop()
    with pytest.raises(ReverbError) as caught:
        await asyncio.wait_for(task, 10)
    assert caught.value.code == 4001
    assert (engine.holder, engine.open_sinks) == (None, 0)
    assert client_tasks() == set()


async def test_two_in_one_process(client: ReverbClient, engine: MemoryEngine, publish: Publish) -> None:
    first, task = await leading(client)
    async with ReverbClient() as other:
        second = Relay(other, ["orders"], to="memory:", lease=LEASE)
        running = asyncio.create_task(second.run())
        await until(lambda: second.status.is_ready)
        await publish(3)
        await until(lambda: first.status.written == 3)
        await end(task)
        await publish(3)
        await until(lambda: len(engine.log) == 6)
        assert (first.status.written, second.status.written) == (3, 3)
        await end(running)


async def test_a_late_refusal_of_an_earlier_epoch_does_not_end_the_present_one(
    client: ReverbClient, engine: MemoryEngine, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_append, is_held = MemorySink.append, asyncio.Event()
    may_fail = asyncio.Event()

    async def append(sink: MemorySink, epoch: int, entries: Sequence[Entry]) -> None:
        if not is_held.is_set():
            is_held.set()
            await may_fail.wait()
        await first_append(sink, epoch, entries)

    relay, task = await leading(client)
    monkeypatch.setattr(MemorySink, "append", append)
    await publish(1)
    await asyncio.wait_for(is_held.wait(), 5)
    engine.epoch, engine.holder = engine.epoch + 1, None  # somebody else led for a moment
    await until(lambda: relay.status.takeovers == 2)
    may_fail.set()
    await until(lambda: "e" in [each.event for each in engine.log])
    assert relay.status.takeovers == 2
    await end(task)
