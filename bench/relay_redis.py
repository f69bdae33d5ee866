"""Measure how fast a relay writes to Valkey. The comparison is the Redis client alone, with prepared arguments.

    python -m bench.relay_redis [--events 100000] [--rounds 5]

Both send the same scripts, one batch after another, as a relay does. They take turns, and the best round of each
counts. The server syncs its append-only file each second, which is the default.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

from redis.asyncio import Redis
from tests.relay.engines import Valkey

from reverb.relay._log import Entry
from reverb.relay._redis import RedisSink

DATA = b'{"id":%d,"status":"shipped","items":[{"sku":"A-17","quantity":2},{"sku":"B-4","quantity":1}],"total":9.5}'


def entries_of(epoch: int, events: int) -> list[Entry]:
    return [
        Entry(
            channel=f"private-orders.{number % 10}",
            event="order.shipped",
            data=DATA % number,
            user_id=None,
            received_at=1_764_239_688_123 + number,
            sent_after=1_764_239_688_000 + number,
            epoch=epoch,
            number=number,
        )
        for number in range(1, events + 1)
    ]


@contextmanager
def recorded() -> Iterator[list[tuple[Any, ...]]]:
    """Keep what the library is asked to send."""
    calls: list[tuple[Any, ...]] = []
    send = Redis.execute_command

    async def record(client: Any, *args: Any, **options: Any) -> Any:
        calls.append(args)
        return await send(client, *args, **options)  # type: ignore[no-untyped-call]

    with patch.object(Redis, "execute_command", record):
        yield calls


async def timed(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Return the seconds that it took, and those of this process's processor."""
    began, computed = perf_counter(), process_time()
    await work()
    return perf_counter() - began, process_time() - computed


async def measure(url: str, size: int, events: int, rounds: int, partitions: int) -> str:
    bare: Any = Redis.from_url(url, protocol=2)
    sink = RedisSink(url, relay="bench", lease=60.0, partitions=partitions)
    await bare.flushall()
    await sink.open()
    grant = await sink.acquire()
    assert grant is not None
    await bare.copy("{reverb}:state", "fresh")
    entries = entries_of(grant.epoch, events)
    batches = [entries[first : first + size] for first in range(0, events, size)]

    async def fresh() -> None:
        await bare.delete("reverb", *(f"{{reverb}}:{each}" for each in range(partitions)))
        await bare.copy("fresh", "{reverb}:state", replace=True)

    async def by_sink() -> None:
        for batch in batches:
            await sink.append(grant.epoch, batch)

    async def by_client() -> None:
        for call in calls:
            await bare.execute_command(*call)

    with recorded() as calls:
        await by_sink()
    taken: dict[str, list[tuple[float, float]]] = {"sink": [], "client": []}
    for _ in range(rounds):
        for name, work in (("sink", by_sink), ("client", by_client)):
            await fresh()
            taken[name].append(await timed(work))
    await sink.close()
    await bare.aclose()
    (sink_time, sink_cpu), (client_time, client_cpu) = min(taken["sink"]), min(taken["client"])
    return (
        f"{size:5} {partitions:10} {events / sink_time:14,.0f} {events / client_time:14,.0f} "
        f"{client_time / sink_time:6.2f} {sink_cpu / events * 1e6:10.1f} {client_cpu / events * 1e6:10.1f}"
    )


async def main(events: int, rounds: int) -> None:
    print("batch partitions  sink events/s client events/s  ratio  us of CPU     client's")
    with (
        tempfile.TemporaryDirectory() as directory,
        Valkey(Path(directory), "--appendfsync", "everysec") as valkey,
    ):
        for size, partitions in ((1, 1), (10, 1), (100, 1), (500, 1), (100, 8)):
            print(
                await measure(valkey.url, size, max(size, min(events, size * 1000)), rounds, partitions),
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--events", type=int, default=100_000, help="number of events in a round (default: 100000)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    options = parser.parse_args()
    asyncio.run(main(options.events, options.rounds))
