"""What a worker can be asked to do."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter, perf_counter_ns, process_time
from typing import Any

import msgspec
import picows

from .load import EVENT, LAST_EVENT, Load
from .peers import PEERS
from .receivers import (
    RECEIVERS,
    Address,
    Decoding,
    NotThereError,
    Receiver,
    Tally,
    connect_picows,
    make_client,
    subscribe,
)
from .resident import resident
from .worker import tell

Answer = dict[str, Any]


def receive(receiver: str, address: Answer, load: Answer) -> Answer:
    """Tell when ready, then when the last event was handled, then whether all events were there and in order."""
    return asyncio.run(_receive(receiver, Address(**address), Load(**load)))


async def _receive(name: str, address: Address, load: Load) -> Answer:
    receiver = (RECEIVERS | PEERS)[name]
    wanted = 1 if receiver.only_last else load.messages * receiver.calls
    tallies = [Tally(wanted) for _ in range(load.connections)]
    receiving = [receiver.receive(address, load, tally) for tally in tallies]
    try:
        await asyncio.gather(*(each.__aenter__() for each in receiving))
    except ImportError as error:
        raise NotThereError(f"not installed: {error}") from error
    gc.collect()
    tell(ready=True)
    started = process_time()
    await asyncio.wait([tally.finished for tally in tallies])
    tell(cpu=process_time() - started)
    for each in receiving:
        await each.__aexit__(None, None, None)
    return {"in_order": all(_is_right(receiver, load, tally) for tally in tallies)}


def _is_right(receiver: Receiver, load: Load, tally: Tally) -> bool:
    if receiver.only_last:
        return tally.ids == [load.messages - 1]
    if receiver.looks_inside:
        return load.has_order(tally.ids, receiver.calls)
    return True


# --- one event at a time ---------------------------------------------------------------------------------------


def latency(receiver: str, address: Answer, load: Answer) -> Answer:
    """Tell when ready, then at which nanosecond each event reached the handler."""
    return asyncio.run(_latency(receiver, Address(**address), Load(**load)))


async def _latency(receiver: str, address: Address, load: Load) -> Answer:
    arrived: list[int] = []
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def handle(event: Any, data: Any, channel: Any) -> None:
        arrived.append(perf_counter_ns())
        if len(arrived) == load.messages:
            finished.set_result(None)

    async def handle_async(event: Any, data: Any, channel: Any) -> None:
        handle(event, data, channel)

    if receiver == "picows":
        connected: Any = connect_picows(address, load, lambda transport, frame: handle(None, frame, None))
    elif receiver == "baseline":
        connected = connect_picows(address, load, Decoding(handle).on_small_frame)
    else:
        connected = _bound(address, load, handle_async if "async" in receiver else handle)
    async with connected:
        gc.collect()
        tell(ready=True)
        await finished
    return {"arrived": arrived}


@asynccontextmanager
async def _bound(address: Address, load: Load, handler: Callable[..., Any]) -> AsyncIterator[None]:
    async with make_client(address) as client:
        (channel,) = await subscribe(client, [load.channel(0)])
        channel.bind(EVENT, handler)
        channel.bind(LAST_EVENT, handler)
        yield


# --- sending ---------------------------------------------------------------------------------------------------


def trigger(sending: str, address: Answer, messages: int) -> Answer:
    """Tell when ready; at the next line send, and tell the seconds it took; at the next line end."""
    task = _trigger if sending == "reverb" else _send
    return asyncio.run(task(Address(**address), messages))


_ORDERS = "private-orders"
_SHIPMENT = {"total": "129.90", "currency": "EUR", "note": "x" * 40}


async def _trigger(address: Address, messages: int) -> Answer:
    async with make_client(address) as client:
        channel = await client.subscribe(_ORDERS)
        tell(ready=True)
        sys.stdin.readline()
        started = perf_counter()
        for number in range(messages):
            await channel.trigger("shipped", {"id": number, **_SHIPMENT})
        return await _tell_and_wait(perf_counter() - started)


async def _send(address: Address, messages: int) -> Answer:
    texts = [
        msgspec.json.encode({"event": "client-shipped", "channel": _ORDERS, "data": {"id": number, **_SHIPMENT}})
        for number in range(messages)
    ]
    text = picows.WSMsgType.TEXT
    async with connect_picows(address, Load(0), lambda transport, frame: None) as transport:
        tell(ready=True)
        sys.stdin.readline()
        started = perf_counter()
        send = transport.send
        for each in texts:
            send(text, each)
        return await _tell_and_wait(perf_counter() - started)


async def _tell_and_wait(seconds: float) -> Answer:
    """Stay connected until everything was counted."""
    tell(seconds=seconds)
    await asyncio.to_thread(sys.stdin.readline)
    return {}


# --- subscribing -----------------------------------------------------------------------------------------------


def subscribe_many(address: Answer, channels: int) -> Answer:
    """Subscribe to all of them at once; answer with the time it took, by the clock and on the CPU."""
    return asyncio.run(_subscribe_many(Address(**address), channels))


def _ignore(event: str, data: Any, channel: str | None) -> None: ...


async def _subscribe_many(address: Address, channels: int) -> Answer:
    async with make_client(address, subscribe_timeout=60.0) as client:

        async def add(number: int) -> None:
            (await client.subscribe(f"orders.{number}")).bind(EVENT, _ignore)

        gc.collect()
        cpu_started, started = process_time(), perf_counter()
        await asyncio.gather(*map(add, range(channels)))
        answer = {"seconds": perf_counter() - started, "cpu": process_time() - cpu_started}
        assert len(client.channels) == channels
    return answer


# --- memory, each in a new process -----------------------------------------------------------------------------


def memory_of_channels(address: Answer, channels: int, traced: bool) -> Answer:
    """Answer with what each of ``channels`` more takes, with one handler each."""

    async def grow() -> float:
        async with make_client(Address(**address), subscribe_timeout=60.0) as client:

            async def add(number: int) -> None:
                (await client.subscribe(f"orders.{number}")).bind(EVENT, _ignore)

            await asyncio.gather(*map(add, range(1000)))
            await asyncio.sleep(0.2)
            before = measure()
            await asyncio.gather(*map(add, range(1000, 1000 + channels)))
            await asyncio.sleep(0.2)
            return (measure() - before) / channels

    def measure() -> int:
        if not traced:
            return resident()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    if traced:
        tracemalloc.start()
    return {"bytes": asyncio.run(grow())}


def memory_of_events(address: Answer, load: Answer, times: int, is_async: bool) -> Answer:
    """Tell ``ready`` each time that ``load`` is wanted; answer with the sizes of the process after each."""

    async def take() -> list[int]:
        sizes = []
        whole = Load(**load)
        got = 0
        arrived = asyncio.Event()

        def handle(event: str, data: Any, channel: str | None) -> None:
            nonlocal got
            got += 1
            if got == whole.messages:
                arrived.set()

        async def handle_async(event: str, data: Any, channel: str | None) -> None:
            handle(event, data, channel)

        async with _bound(Address(**address), whole, handle_async if is_async else handle):
            for _ in range(times):
                got = 0
                arrived.clear()
                tell(ready=True)
                await arrived.wait()
                sizes.append(resident())
        return sizes

    return {"sizes": asyncio.run(take())}


TASKS: dict[str, Callable[..., Answer]] = {
    task.__name__: task
    for task in (
        receive,
        latency,
        trigger,
        subscribe_many,
        memory_of_channels,
        memory_of_events,
    )
}
