"""``python -m bench.http``: events published over the HTTP API in a second, and the CPU time of each.

Beside SyncReverbAPI and ReverbAPI stands ``pusher``, Pusher's library for Python, where it is installed.
Each publishes to the embedded server and to soketi (where ``make test`` has installed it), both in processes of
their own. The server answers for each event; nobody is subscribed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

from tests.integration.servers import SOKETI_CONFIG, MissingError, Target, run_soketi

from reverb import BatchEvent, ReverbAPI, SyncReverbAPI

CHANNEL, EVENT = "news", "article.published"
DATA = {"id": 12, "title": "Reverb, from Python", "text": "x" * 100}
APP_ID = "42"
"""pusher wants a number."""
BATCH = 10
AT_ONCE = 8
"""Calls at the same time, where there is more than one: in threads, and in tasks for ReverbAPI."""

_EMBEDDED = f"""\
import asyncio
from reverb.server import App, ReverbServer

async def main():
    async with ReverbServer([App(id={APP_ID!r})]) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

Publish = Callable[[Target, int], "Cost"]
"""Publishes a number of events; returns what that took, without imports and the first connection."""


class Cost(NamedTuple):
    """What it took to publish, in seconds."""

    time: float
    cpu: float
    """Of this process alone: the servers are others."""


class Measured:
    """Measures the block of a ``with`` statement."""

    cost: Cost

    def __enter__(self) -> Measured:
        self._began = perf_counter(), process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.cost = Cost(perf_counter() - self._began[0], process_time() - self._began[1])


def in_threads(publish: Callable[[], object], events: int) -> Cost:
    """Have threads publish so many events together, and one each before that."""

    def work(number: int) -> None:
        publish()
        barrier.wait()
        barrier.wait()
        for _ in range(number, events, AT_ONCE):
            publish()

    barrier = threading.Barrier(AT_ONCE + 1)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        working = [pool.submit(work, number) for number in range(AT_ONCE)]
        barrier.wait()
        with Measured() as measured:
            barrier.wait()
            for each in working:
                each.result()
    return measured.cost


# --- SyncReverbAPI ---------------------------------------------------------------------------------------------


def sync_single(target: Target, events: int) -> Cost:
    with SyncReverbAPI(**target.settings) as api:
        api.trigger(CHANNEL, EVENT, DATA)
        with Measured() as measured:
            for _ in range(events):
                api.trigger(CHANNEL, EVENT, DATA)
    return measured.cost


def sync_at_once(target: Target, events: int) -> Cost:
    with SyncReverbAPI(**target.settings) as api:
        return in_threads(lambda: api.trigger(CHANNEL, EVENT, DATA), events)


def sync_batched(target: Target, events: int) -> Cost:
    with SyncReverbAPI(**target.settings) as api:
        api.trigger(CHANNEL, EVENT, DATA)
        with Measured() as measured:
            api.trigger_batch(BatchEvent(CHANNEL, EVENT, DATA) for _ in range(events))
    return measured.cost


# --- ReverbAPI -------------------------------------------------------------------------------------------------


def async_single(target: Target, events: int) -> Cost:
    return asyncio.run(_in_tasks(target, events, at_once=1))


def async_at_once(target: Target, events: int) -> Cost:
    return asyncio.run(_in_tasks(target, events, at_once=AT_ONCE))


async def _in_tasks(target: Target, events: int, at_once: int) -> Cost:
    remaining = iter(range(events))
    async with ReverbAPI(**target.settings) as api:

        async def publish() -> None:
            for _ in remaining:
                await api.trigger(CHANNEL, EVENT, DATA)

        await asyncio.gather(*(api.trigger(CHANNEL, EVENT, DATA) for _ in range(at_once)))
        with Measured() as measured:
            await asyncio.gather(*(publish() for _ in range(at_once)))
    return measured.cost


def async_batched(target: Target, events: int) -> Cost:
    async def publish() -> Cost:
        async with ReverbAPI(**target.settings) as api:
            await api.trigger(CHANNEL, EVENT, DATA)
            with Measured() as measured:
                await api.trigger_batch(BatchEvent(CHANNEL, EVENT, DATA) for _ in range(events))
        return measured.cost

    return asyncio.run(publish())


# --- pusher ----------------------------------------------------------------------------------------------------


def pusher_single(target: Target, events: int) -> Cost:
    client = _pusher(target)
    client.trigger(CHANNEL, EVENT, DATA)
    with Measured() as measured:
        for _ in range(events):
            client.trigger(CHANNEL, EVENT, DATA)
    return measured.cost


def pusher_at_once(target: Target, events: int) -> Cost:
    own = threading.local()  # its HTTP session is not made to be shared among threads

    def publish() -> None:
        if not hasattr(own, "client"):
            own.client = _pusher(target)
        own.client.trigger(CHANNEL, EVENT, DATA)

    return in_threads(publish, events)


def pusher_batched(target: Target, events: int) -> Cost:
    client = _pusher(target)
    client.trigger(CHANNEL, EVENT, DATA)
    with Measured() as measured:
        for _ in range(0, events, BATCH):
            client.trigger_batch([{"channel": CHANNEL, "name": EVENT, "data": DATA} for _ in range(BATCH)])
    return measured.cost


def _pusher(target: Target) -> Any:
    import pusher

    return pusher.Pusher(target.app_id, target.key, target.secret, ssl=False, host=target.host, port=target.port)


MODES: dict[str, dict[str, Publish]] = {
    "one at a time": {"SyncReverbAPI": sync_single, "ReverbAPI": async_single, "pusher": pusher_single},
    f"{AT_ONCE} at a time": {"SyncReverbAPI": sync_at_once, "ReverbAPI": async_at_once, "pusher": pusher_at_once},
    f"batches of {BATCH}": {"SyncReverbAPI": sync_batched, "ReverbAPI": async_batched, "pusher": pusher_batched},
}
LIBRARIES = ("SyncReverbAPI", "ReverbAPI", "pusher")


@contextmanager
def embedded() -> Iterator[Target]:
    process = subprocess.Popen([sys.executable, "-c", _EMBEDDED], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Target("embedded", "127.0.0.1", int(process.stdout.readline()), app_id=APP_ID)
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def soketi() -> Iterator[Target]:
    config = json.loads(SOKETI_CONFIG.read_text())
    config["appManager.array.apps"][0]["id"] = APP_ID
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "soketi.json")
        file.write_text(json.dumps(config))
        with run_soketi(Path(directory), config=file) as running:
            yield replace(running.target, app_id=APP_ID)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.http", description="Measure publishing over HTTP.")
    parser.add_argument(
        "--events", type=int, default=2_000, help="number of events in one measurement (default: 2000)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="number of measurements of each library (default: 5)"
    )
    options = parser.parse_args()
    libraries = list(LIBRARIES)
    if importlib.util.find_spec("pusher") is None:
        libraries.remove("pusher")
        print("pusher is not installed, so it is not measured. Install it: pip install pusher")
    print(
        "events a second, and µs of CPU time for an event; "
        f"medians of {options.rounds} rounds of {options.events} events"
    )
    for server in (embedded, soketi):
        try:
            with server() as target:
                for mode in MODES:
                    _print_row(target, mode, libraries, options.events, options.rounds)
        except MissingError as reason:
            print(reason)


def _print_row(target: Target, mode: str, libraries: list[str], events: int, rounds: int) -> None:
    costs: dict[str, list[Cost]] = {name: [] for name in libraries}
    for _ in range(rounds):  # in turn, so that other load on the machine affects all of them
        for name in libraries:
            costs[name].append(MODES[mode][name](target, events))
    figures = []
    for name in libraries:
        time, cpu = (statistics.median(each) for each in zip(*costs[name], strict=True))
        figures.append(f"{name} {events / time:7,.0f} {cpu / events * 1e6:5,.0f}")
    print(f"{target.name:10}{mode:16}{'   '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
