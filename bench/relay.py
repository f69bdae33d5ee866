"""Measure the relay on an engine: ``python -m bench.relay --engine valkey``.

- throughput: events a second that a relay writes to the log after it received them. The comparison is the
  engine's own client, which sends the same writes, prepared before, with the same fence. Both write one batch
  after the other. They take turns, and the best round of each counts.
- latency: the time from the request that publishes an event to a consumer of the log. The relays are processes.
  The comparison is a client's handler in the process of the consumer. It also shows the CPU time that the relays
  need for an event.
- failover: the time from ``kill -9`` of the leader to the first entry of the next leader, while events arrive.

The engines keep the log on disk with their default settings: Valkey syncs its append-only file each second.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from time import monotonic, time_ns
from typing import Any

import msgspec
import psutil
from tests.relay.engines import Valkey
from tests.relay.nats_server import Nats
from tests.relay.processes import STREAM, Engine, RelayProcess, ReverbProcess, follow_log

from reverb import ReverbClient
from reverb._settings import SecretStr
from reverb.http import BatchEvent, ReverbAPI
from reverb.relay._engines import make_sink
from reverb.relay._log import Sink
from reverb.relay._replica import Replica

from .relay_redis import DATA, recorded, timed

EVENT = "order.shipped"
CHANNELS = [f"orders.{number}" for number in range(10)]
_SETTLE = 60.0
"""Seconds that relays may take to be ready."""

ENGINES: dict[str, Callable[[Path], Engine]] = {
    "valkey": lambda directory: Valkey(directory, "--appendfsync", "everysec"),
    "nats": Nats,
}


# --- throughput ------------------------------------------------------------------------------------------------


class WritePath:
    """What a relay does with an event, from its handler to the engine."""

    def __init__(self, sink: Sink, payloads: Sequence[bytes], size: int) -> None:
        self._sink = sink
        self._payloads = payloads
        self._size = size

    async def prepare(self) -> None:
        grant = await self._sink.acquire()
        assert grant is not None
        self._lease_status = grant.lease_status
        self._now = grant.lease_status.clock
        self._replica = Replica(lease=5000, most_bytes=1 << 30)
        self._replica.connecting(self._now)
        for channel in CHANNELS:
            self._replica.follow(channel, self._now)
            self._replica.subscribed(channel, self._now)
        self._replica.take_over(grant, [])
        await self._write()

    async def run(self) -> None:
        replica, payloads, size = self._replica, self._payloads, self._size
        for first in range(0, len(payloads), size):
            self._now += size // 10  # as if 10,000 came in a second
            for number, data in enumerate(payloads[first : first + size]):
                replica.received(CHANNELS[number % len(CHANNELS)], EVENT, data, None, self._now)
            await self._write()
            replica.ping_answered(self._now)
            replica.progress()
            replica.renewed(self._lease_status)

    async def _write(self) -> None:
        replica = self._replica
        while replica.has_pending:
            assert replica.epoch is not None
            await self._sink.append(replica.epoch, replica.next_batch(self._size))
            replica.stored()


Write = Callable[[], Awaitable[None]]
"""Writes all events."""


async def _bare_redis(engine: Engine, path: WritePath) -> AsyncGenerator[Write, None]:
    """Yield, again and again, a way to write all events with the bare client, when the engine is ready for it."""
    from redis.asyncio import Redis

    await path.prepare()
    client: Any = Redis.from_url(engine.url, protocol=2)
    await client.copy(f"{{{STREAM}}}:state", "fresh", replace=True)
    with recorded() as calls:
        await path.run()

    async def write() -> None:
        for call in calls:
            await client.execute_command(*call)

    try:
        while True:
            await client.copy("fresh", f"{{{STREAM}}}:state", replace=True)
            await client.delete(STREAM)
            yield write
            await client.delete(STREAM)
    finally:
        await client.aclose()


async def _bare_nats(engine: Engine, payloads: Sequence[bytes], size: int) -> AsyncGenerator[Write, None]:
    """As :func:`_bare_redis`."""
    import nats

    client = await nats.connect(engine.url)
    jetstream = client.jetstream()
    stream = {"name": "bare", "subjects": ["bare.>"], "storage": "file", "allow_atomic": True}
    await client.request("$JS.API.STREAM.CREATE.bare", msgspec.json.encode(stream))
    answers: asyncio.Queue[Any] = asyncio.Queue()
    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=answers.put)
    try:
        while True:
            await jetstream.purge_stream("bare")
            marker = await jetstream.publish("bare.marker", b"")
            prepared = [*_prepared(payloads, size, marker.seq, inbox)]

            async def write(prepared: Sequence[_Message] = prepared) -> None:
                for message in prepared:
                    await client.publish(*message)
                    if message[2]:
                        answer = msgspec.json.decode((await answers.get()).data)
                        assert "error" not in answer, answer

            yield write
    finally:
        await client.close()


_Message = tuple[str, bytes, str, dict[str, str]]


def _prepared(payloads: Sequence[bytes], size: int, last: int, inbox: str) -> Iterator[_Message]:
    """All events as atomic batches that fit behind the sequence number ``last``."""
    for number, data in enumerate(payloads):
        position = number % size + 1
        channel = CHANNELS[number % len(CHANNELS)]
        headers = {
            "Nats-Msg-Id": f"{time_ns()}-{number}",
            "channel": channel,
            "event": EVENT,
            "received_at": "1764239688123",
            "sent_after": "1764239688000",
            "Nats-Batch-Id": f"{last}-{number // size}",
            "Nats-Batch-Sequence": str(position),
        }
        if position == 1:
            headers["Nats-Expected-Last-Sequence"] = str(last + number)
        if position == size:
            headers["Nats-Batch-Commit"] = "1"
        yield f"bare.{channel}", data, inbox if position == size else "", headers


async def throughput(name: str, events: int, rounds: int) -> None:
    print(f"{'throughput':12} batch   relay events/s  client events/s  ratio  us of CPU  client's")
    with tempfile.TemporaryDirectory() as directory:
        engine = ENGINES[name](Path(directory))
        engine.start()
        try:
            for size in (10, 100, 500):
                batches = max(1, min(events // size, 1000))
                print(await _throughput(engine, batches * size, size, rounds), flush=True)
        finally:
            engine.kill()


async def _throughput(engine: Engine, events: int, size: int, rounds: int) -> str:
    payloads = [DATA % number for number in range(events)]
    sink = make_sink(
        SecretStr(engine.url), relay="bench", stream=STREAM, lease=60.0, partitions=1, maxlen=None, max_age=None
    )
    await sink.open()
    path = WritePath(sink, payloads, size)
    bare = _bare_nats(engine, payloads, size) if isinstance(engine, Nats) else _bare_redis(engine, path)
    ours, theirs = [], []
    async with aclosing(bare):
        for _ in range(rounds):
            theirs.append(await timed(await anext(bare)))
            await path.prepare()
            ours.append(await timed(path.run))
    await sink.close()
    (time, cpu), (bare_time, bare_cpu) = min(ours), min(theirs)
    return (
        f"{'':12} {size:5} {events / time:16,.0f} {events / bare_time:16,.0f} {bare_time / time:6.2f} "
        f"{cpu / events * 1e6:10.1f} {bare_cpu / events * 1e6:9.1f}"
    )


# --- relays as processes ---------------------------------------------------------------------------------------


class Fleet:
    """Relays, a Reverb and an engine."""

    def __init__(self, engine: Engine, reverb: ReverbProcess, relays: Sequence[RelayProcess]) -> None:
        self.engine = engine
        self.reverb = reverb
        self.relays = relays

    @property
    def leader(self) -> RelayProcess:
        return next(relay for relay in self.relays if relay.status.get("role") == "leader")

    async def until_ready(self) -> None:
        """Wait until one relay leads and the others could, by what they say from now on."""
        begin = monotonic()
        while not self._is_ready(begin):
            assert monotonic() < begin + _SETTLE, f"the relays say {[relay.status for relay in self.relays]}"
            await asyncio.sleep(0.05)

    def _is_ready(self, since: float) -> bool:
        said = [relay.status for relay in self.relays]
        return (
            all(said)
            and all(relay.said_at > since for relay in self.relays)
            and sorted(each["role"] for each in said) == ["follower"] * (len(said) - 1) + ["leader"]
            and all(each["is_ready"] for each in said if each["role"] == "follower")
        )


@asynccontextmanager
async def _fleet(name: str, *, relays: int, lease: float) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = ENGINES[name](directory)
        stack.callback(engine.kill)
        engine.start()
        reverb = await stack.enter_async_context(ReverbProcess(directory / "server.log"))
        await reverb.start()
        members = []
        for number in range(relays):
            log = directory / f"relay-{number}.log"
            relay = RelayProcess(log, CHANNELS, to=engine.url, port=reverb.port, lease=lease)
            members.append(await stack.enter_async_context(relay))
            await relay.start()
        fleet = Fleet(engine, reverb, members)
        await fleet.until_ready()
        yield fleet


@asynccontextmanager
async def _running(work: Any) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        while not task.done():  # the engines' clients may lose a cancellation
            task.cancel()
            await asyncio.wait({task}, timeout=0.1)
        if not task.cancelled():
            task.result()


async def _publish(reverb: ReverbProcess, rate: float) -> None:
    """Publish, a few events in each request, with the time of the request as their data."""
    few = 5
    async with ReverbAPI(**reverb.settings) as api:
        due, number = monotonic(), 0
        while True:
            data = {"at": time_ns()}
            channels = [CHANNELS[(number + each) % len(CHANNELS)] for each in range(few)]
            await api.trigger_batch(BatchEvent(channel, EVENT, data) for channel in channels)
            number += few
            due = max(due + few / rate, monotonic())
            await asyncio.sleep(due - monotonic())


def _age(data: Any) -> float:
    """Milliseconds since it was published."""
    at: int = msgspec.json.decode(data)["at"]
    return (time_ns() - at) / 1e6


async def latency(name: str, seconds: float) -> None:
    print(
        f"{'latency':12}  rate  in the log: p50   p99 ms  at a handler: p50   p99 ms  leader: us of CPU  follower"
    )
    async with _fleet(name, relays=2, lease=5.0) as fleet:
        for rate in (100, 500):
            print(await _latency(fleet, rate, seconds), flush=True)


async def _latency(fleet: Fleet, rate: float, seconds: float) -> str:
    handled: list[float] = []
    logged: list[float] = []

    async def follow() -> None:
        async with aclosing(follow_log(fleet.engine)) as entries:
            async for entry in entries:
                logged.append(_age(entry.data))

    async with ReverbClient(**fleet.reverb.settings) as client:
        for channel in CHANNELS:
            await client.subscribe(channel)
        client.bind(EVENT, lambda event, data, channel: handled.append(_age(data)), type=msgspec.Raw)
        async with _running(follow()), _running(_publish(fleet.reverb, rate)):
            await asyncio.sleep(2.0)
            handled.clear()
            logged.clear()
            leader = fleet.leader
            (follower,) = (relay for relay in fleet.relays if relay is not leader)
            before = [_computed(relay) for relay in (leader, follower)]
            await asyncio.sleep(seconds)
            leading, following = (
                1e6 * (_computed(relay) - then) / len(handled)
                for relay, then in zip((leader, follower), before, strict=True)
            )
    return (
        f"{'':12} {len(handled) / seconds:5.0f} {median(logged):16.1f} {quantiles(logged, n=100)[98]:8.1f} "
        f"{median(handled):18.1f} {quantiles(handled, n=100)[98]:8.1f} {leading:18.0f} {following:9.0f}"
    )


def _computed(relay: RelayProcess) -> float:
    times = psutil.Process(relay.pid).cpu_times()
    return float(times.user + times.system)


async def failover(name: str, times: int) -> None:
    print(f"{'failover':12} lease  times   p50 s   max s")
    lease = 2.0
    taken: list[float] = []
    async with _fleet(name, relays=3, lease=lease) as fleet, _running(_publish(fleet.reverb, 100)):
        for _ in range(times):
            await fleet.until_ready()
            leader = fleet.leader
            async with aclosing(follow_log(fleet.engine)) as entries:
                epoch = (await anext(entries)).epoch
                killed = monotonic()
                await leader.end(signal.SIGKILL)
                async for entry in entries:
                    if entry.epoch > epoch:
                        break
                taken.append(monotonic() - killed)
            await leader.start()
    print(f"{'':12} {lease:5.1f} {times:6} {median(taken):7.2f} {max(taken):7.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.relay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=list(ENGINES), default="valkey")
    parser.add_argument("--only", choices=("throughput", "latency", "failover"))
    parser.add_argument(
        "--events", type=int, default=100_000, help="number of events in a round of throughput (default: 100000)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds of throughput (default: 5)")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="seconds to measure the latency at each rate (default: 20)"
    )
    parser.add_argument("--times", type=int, default=10, help="number of times to kill the leader (default: 10)")
    options = parser.parse_args()
    parts: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
        "throughput": lambda: throughput(options.engine, options.events, options.rounds),
        "latency": lambda: latency(options.engine, options.seconds),
        "failover": lambda: failover(options.engine, options.times),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            asyncio.run(part())


if __name__ == "__main__":
    main()
