"""``python -m bench.http``: how many events a second are published over the HTTP API.

Beside ReverbAPI stands ``pusher``, Pusher's library for Python, where it is installed (``pip install pusher``).
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
from time import perf_counter
from typing import Any

from tests.integration.servers import SOKETI_CONFIG, MissingError, Target, run_soketi

from reverb import BatchEvent, ReverbAPI

CHANNEL, EVENT = "news", "article.published"
DATA = {"id": 12, "title": "Reverb, from Python", "text": "x" * 100}
APP_ID = "42"
"""pusher wants a number."""
BATCH = 10
AT_ONCE = 20
"""Calls at the same time, where there is more than one: tasks for ReverbAPI, threads for pusher."""

_EMBEDDED = f"""\
import asyncio
from reverb.server import App, ReverbServer

async def main():
    async with ReverbServer([App(id={APP_ID!r})]) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

Publish = Callable[[Target, int], float]
"""Publishes a number of events; returns how many seconds that took, without imports and the first connection."""


def reverb_single(target: Target, events: int) -> float:
    return asyncio.run(_reverb(target, events, at_once=1))


def reverb_at_once(target: Target, events: int) -> float:
    return asyncio.run(_reverb(target, events, at_once=AT_ONCE))


async def _reverb(target: Target, events: int, at_once: int) -> float:
    remaining = iter(range(events))
    async with ReverbAPI(**target.settings, pool_size=at_once) as api:

        async def publish() -> None:
            for _ in remaining:
                await api.trigger(CHANNEL, EVENT, DATA)

        await api.trigger(CHANNEL, EVENT, DATA)
        started = perf_counter()
        await asyncio.gather(*(publish() for _ in range(at_once)))
        return perf_counter() - started


def reverb_batched(target: Target, events: int) -> float:
    async def publish() -> float:
        async with ReverbAPI(**target.settings) as api:
            await api.trigger(CHANNEL, EVENT, DATA)
            started = perf_counter()
            await api.trigger_batch(BatchEvent(CHANNEL, EVENT, DATA) for _ in range(events))
            return perf_counter() - started

    return asyncio.run(publish())


def pusher_single(target: Target, events: int) -> float:
    client = _pusher(target)
    client.trigger(CHANNEL, EVENT, DATA)
    started = perf_counter()
    for _ in range(events):
        client.trigger(CHANNEL, EVENT, DATA)
    return perf_counter() - started


def pusher_at_once(target: Target, events: int) -> float:
    own = threading.local()  # its HTTP session is not made to be shared among threads

    def publish(_: int) -> None:
        if not hasattr(own, "client"):
            own.client = _pusher(target)
        own.client.trigger(CHANNEL, EVENT, DATA)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(publish, range(AT_ONCE)))
        started = perf_counter()
        list(pool.map(publish, range(events)))
        return perf_counter() - started


def pusher_batched(target: Target, events: int) -> float:
    client = _pusher(target)
    client.trigger(CHANNEL, EVENT, DATA)
    started = perf_counter()
    for _ in range(0, events, BATCH):
        client.trigger_batch([{"channel": CHANNEL, "name": EVENT, "data": DATA} for _ in range(BATCH)])
    return perf_counter() - started


def _pusher(target: Target) -> Any:
    import pusher

    return pusher.Pusher(target.app_id, target.key, target.secret, ssl=False, host=target.host, port=target.port)


MODES: dict[str, dict[str, Publish]] = {
    "single, one at a time": {"ReverbAPI": reverb_single, "pusher": pusher_single},
    f"single, {AT_ONCE} at a time": {"ReverbAPI": reverb_at_once, "pusher": pusher_at_once},
    f"batches of {BATCH}": {"ReverbAPI": reverb_batched, "pusher": pusher_batched},
}


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
    parser.add_argument("--events", type=int, default=2_000, help="events in one measurement (default: 2000)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each library (default: 5)")
    options = parser.parse_args()
    libraries = ["ReverbAPI", "pusher"]
    if importlib.util.find_spec("pusher") is None:
        libraries.remove("pusher")
        print("pusher is not installed here (pip install pusher) and left out")
    print(f"events/s, the median of {options.rounds} rounds of {options.events} events")
    for server in (embedded, soketi):
        try:
            with server() as target:
                for mode in MODES:
                    _print_row(target, mode, libraries, options.events, options.rounds)
        except MissingError as reason:
            print(reason)


def _print_row(target: Target, mode: str, libraries: list[str], events: int, rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in libraries}
    for _ in range(rounds):  # in turn, so that a disturbance of the machine meets all of them
        for name in libraries:
            seconds[name].append(MODES[mode][name](target, events))
    figures = [f"{name} {events / statistics.median(seconds[name]):7,.0f}" for name in libraries]
    print(f"{target.name:10}{mode:24}{'   '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
