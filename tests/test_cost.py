"""What a message costs, and a subscribe, in numbers that no busy machine can change.

Counted are the bytecode instructions that run in the package's own modules while messages from a real socket
reach handlers. They vary with the version of Python, a little with how messages share reads, and not with the
machine. A bound that is exceeded means that each message now does clearly more: make it cheaper, or, if what it
does is worth it, record the new number. What the libraries below cost is not seen here; ``make bench`` measures
the whole.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from bench.load import EVENT, Load
from bench.receivers import RECEIVERS, Address, Receiver, Tally, make_client
from bench.sender import Sender

import reverb
from reverb import ReverbClient, _protocol
from reverb._dispatch import EventQueue

from .watching import wait_turns

# Instructions a message, or a subscribe, as counted on Python 3.10, 3.11, 3.12 and 3.13. See pytest -s.
COUNTED = {
    "reverb, plain": (89, 90, 79, 81),
    "reverb, async": (177, 177, 165, 166),
    "reverb, nobody bound": (82, 83, 75, 79),
    "reverb, plain, wildcard": (89, 90, 79, 81),
    "reverb, plain, 5 handlers": (223, 217, 193, 197),
    "reverb, async, 5 handlers": (390, 362, 343, 349),
    "a subscribe": (2806, 2883, 2634, 2575),
}
SLACK = 1.08
"""How many times as many may be found: messages share reads, and workers, in other ways each time."""

MESSAGES = 2000
CHANNELS = 1000
PACKAGE = str(Path(reverb.__file__).parent)

pytestmark = pytest.mark.skipif(
    sys.gettrace() is not None, reason="something else traces, such as coverage, and there can be but one"
)


@pytest.fixture(scope="module")
def sender() -> Iterator[Sender]:
    with Sender() as sender:
        yield sender


class Counter:
    """Counts the instructions that this thread runs in the package, between ``start`` and ``stop``."""

    def __init__(self) -> None:
        self.instructions = 0

    def start(self) -> None:
        sys._getframe().f_trace_opcodes = True  # 3.12 looks for opcodes if it was asked to before it traces
        sys.settrace(self._on_call)

    def stop(self) -> None:
        sys.settrace(None)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._on_event

    def _on_event(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self.instructions += 1
        return self._on_event


def most(name: str) -> float:
    """The bound of this Python; one that is newer than the table has the loosest."""
    counted, version = COUNTED[name], sys.version_info.minor - 10
    return SLACK * (counted[version] if version < len(counted) else max(counted))


async def count(sender: Sender, receiver: Receiver, load: Load) -> float:
    """Return the instructions that one message takes."""
    sender.prepare(load)
    tally = Tally(1 if receiver.only_last else load.messages * receiver.calls)
    counter = Counter()
    async with receiver.receive(Address(sender.port), load, tally):
        counter.start()
        try:
            sender.blast(load)
            await asyncio.wait_for(tally.finished, 30)
        finally:
            counter.stop()
    assert receiver.only_last or load.has_order(tally.ids, receiver.calls)
    return counter.instructions / load.messages


@pytest.mark.parametrize("name", [name for name in COUNTED if name in RECEIVERS])
async def test_instructions_for_a_message(sender: Sender, name: str) -> None:
    counted = await count(sender, RECEIVERS[name], Load(MESSAGES))
    print(f"{name}: {counted:.1f} instructions a message")
    assert 1 < counted <= most(name)


async def test_a_task_more_for_each_event_would_be_noticed(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the bounds are for: a worker for each event, and not one for what comes together."""
    take = EventQueue.take

    def take_and_start(queue: EventQueue, route: Any, message: Any, size: int) -> None:
        take(queue, route, message, size)
        queue._dispatcher._start_worker()

    monkeypatch.setattr(EventQueue, "take", take_and_start)
    name = "reverb, async"
    assert await count(sender, RECEIVERS[name], Load(MESSAGES)) > most(name)


async def test_a_second_decoding_of_each_event_would_be_noticed(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the bounds are for: a message that is looked into again by a function of the package."""
    decode = _protocol.decode_unchecked

    def decode_and_look(payload: bytes) -> _protocol.Message:
        message = decode(payload)
        _protocol.parse_data(message.data)
        return message

    monkeypatch.setattr(_protocol, "decode_unchecked", decode_and_look)
    name = "reverb, plain"
    assert await count(sender, RECEIVERS[name], Load(MESSAGES)) > most(name)


@pytest.mark.parametrize("name", ["reverb, plain", "reverb, async"])
async def test_many_channels_cost_no_more_instructions(sender: Sender, name: str) -> None:
    """Each message needs but its own channel. What is done once for a channel counts here for ten messages."""
    one = await count(sender, RECEIVERS[name], Load(MESSAGES))
    many = await count(sender, RECEIVERS[name], Load(MESSAGES, channels=200))
    print(f"{name}: {one:.1f} with one channel, {many:.1f} with 200")
    assert many <= 1.6 * one


@pytest.mark.parametrize("name", ["reverb, plain", "reverb, async"])
async def test_nothing_stays_of_a_message(sender: Sender, name: str) -> None:
    load = Load(MESSAGES)
    sender.prepare(load)

    async def blocks() -> int:
        """Receive once more; return how many objects the process has then."""
        tally = Tally(MESSAGES)
        async with RECEIVERS[name].receive(Address(sender.port), load, tally):
            sender.blast(load)
            await asyncio.wait_for(tally.finished, 30)
            tally.ids.clear()
            gc.collect()
            return sys.getallocatedblocks()

    for _ in range(3):
        await blocks()  # what is made once
    before = await blocks()
    assert await blocks() - before < MESSAGES / 20


# --- subscribing -----------------------------------------------------------------------------------------------


def ignore(event: str, data: Any, channel: str | None) -> None: ...


async def subscribe(client: ReverbClient, first: int = 0) -> None:
    """Subscribe to so many channels at once, with a handler each."""

    async def add(number: int) -> None:
        (await client.subscribe(f"orders.{number}")).bind(EVENT, ignore)

    await asyncio.gather(*map(add, range(first, first + CHANNELS)))
    await wait_turns(10)  # what the first events of a channel lead to


async def test_instructions_for_a_subscribe(sender: Sender) -> None:
    counter = Counter()
    async with make_client(Address(sender.port), subscribe_timeout=60.0) as client:
        counter.start()
        try:
            await subscribe(client)
        finally:
            counter.stop()
    counted = counter.instructions / CHANNELS
    print(f"{counted:.1f} instructions a subscribe")
    assert 1 < counted <= most("a subscribe")


async def test_subscribes_share_timers(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a timer for each takes is not counted above: it is asyncio's."""
    loop = asyncio.get_running_loop()
    made, call_at = 0, loop.call_at

    def call_at_and_count(*arguments: Any, **context: Any) -> asyncio.TimerHandle:
        nonlocal made
        made += 1
        return call_at(*arguments, **context)

    async with make_client(Address(sender.port), subscribe_timeout=60.0) as client:
        monkeypatch.setattr(loop, "call_at", call_at_and_count)
        await subscribe(client)
        assert 1 <= made < CHANNELS / 10


async def test_a_subscribe_leaves_nothing_to_the_garbage_collector(sender: Sender) -> None:
    """That is, no objects that hold each other: these would live until the collector looks at all there is."""
    async with make_client(Address(sender.port), subscribe_timeout=60.0) as client:
        gc.collect()
        gc.disable()
        try:
            await subscribe(client)
            assert gc.collect() < CHANNELS / 10
        finally:
            gc.enable()


async def test_a_channel_takes_little_memory(sender: Sender) -> None:
    async with make_client(Address(sender.port), subscribe_timeout=60.0) as client:
        await subscribe(client)
        gc.collect()
        tracemalloc.start()
        try:
            await subscribe(client, CHANNELS)
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0] / CHANNELS
        finally:
            tracemalloc.stop()
        print(f"{taken:.0f} bytes a channel")
        assert taken <= 1650
