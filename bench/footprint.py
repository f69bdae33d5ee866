"""The cost of starting a client, and of a client that is idle."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable

from .measure import Bench, Figures, Group, Subject, Target
from .worker import WorkerError

_MIB = 1 << 20
_SERVER = {
    "REVERB_HOST": "127.0.0.1",
    "REVERB_SCHEME": "ws",
    "REVERB_APP_ID": "app-id",
    "REVERB_APP_KEY": "app-key",
    "REVERB_APP_SECRET": "app-secret",
}


def _environment() -> dict[str, str]:
    """Our environment, but Python may write bytecode. Otherwise each start compiles all modules again."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[str, float]:
    """Run Python; return its output, and its CPU time in seconds."""
    environment = _environment() | (env or {})
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if finished.returncode:
        last = finished.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise WorkerError(f"python {' '.join(arguments)}: {last[0]}")
    return finished.stdout, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


# --- starting --------------------------------------------------------------------------------------------------


def _starting(name: str, *arguments: str, is_peer: bool = False) -> Subject:
    return Subject(name, lambda bench: {name: 1000 * run(*arguments)[1]}, is_peer)


def _publishing(bench: Bench) -> Figures:
    from reverb.server import ReverbServer

    with ReverbServer() as server:
        arguments = ("-m", "reverb", "publish", "news", "published", "{}")
        return {"reverb publish": 1000 * run(*arguments, env={**_SERVER, "REVERB_PORT": str(server.port)})[1]}


_MAKING = """
import os, tempfile, timeit
from reverb import ReverbClient, ReverbConfig
os.chdir(tempfile.mkdtemp())
laravel = [f"APP_SETTING_{number}=value" for number in range(60)]
with open(".env", "w") as file:
    file.write("\\n".join([*laravel, "REVERB_APP_KEY=key", "REVERB_APP_SECRET=secret", "REVERB_HOST=localhost"]))
config = ReverbConfig.from_env()
for make in (lambda: ReverbClient(config), ReverbClient):
    print(min(timeit.repeat(make, number=100, repeat=5)) / 100)
"""


def _making(bench: Bench) -> Figures:
    of_config, of_env = run("-c", _MAKING)[0].split()
    return {
        "making ReverbClient(config)": 1000 * float(of_config),
        "making ReverbClient(), with .env": 1000 * float(of_env),
    }


_HOLDING = """
import asyncio, sys, time
from reverb import ReverbAPI

async def main():
    longest, last = 0.0, time.perf_counter()

    async def tick():
        nonlocal longest, last
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    async with ReverbAPI() as api:
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0.1)
        longest = 0.0
        await api.trigger("news", "published", {})
        ticking.cancel()
    print(longest)

asyncio.run(main())
"""


def _holding(bench: Bench) -> Figures:
    from reverb.server import ReverbServer

    with ReverbServer() as server:
        held = run("-c", _HOLDING, env={**_SERVER, "REVERB_PORT": str(server.port)})[0]
    return {"first event by ReverbAPI, longest block of the loop": 1000 * float(held)}


_DEPENDENCIES = "its dependencies imported"
_OURS = "import ReverbClient"


def _against(theirs: str) -> Callable[[Figures], float]:
    return lambda figures: figures[_OURS] / figures[theirs]


START = Group(
    "start",
    "Starting, each in a new process: CPU time",
    "ms",
    [
        _starting("python, nothing imported", "-c", ""),
        _starting(_DEPENDENCIES, "-c", "import asyncio, aiohappyeyeballs, msgspec, picows"),
        _starting(_OURS, "-c", "from reverb import ReverbClient"),
        _starting("import asyncpusher", "-c", "from asyncpusher.pusher import Pusher", is_peer=True),
        _starting("import aiohttp", "-c", "import aiohttp", is_peer=True),
        _starting("import pysher", "-c", "import pysher", is_peer=True),
        _starting("import websockets", "-c", "from websockets.asyncio.client import connect", is_peer=True),
        _starting("reverb --help", "-m", "reverb", "--help"),
        Subject("reverb publish", _publishing),
        Subject("making", _making),
        Subject("first event by ReverbAPI", _holding),
    ],
    [
        Target(_OURS, _against(_DEPENDENCIES), 1.15, "times its dependencies"),
        Target(_OURS, _against("import asyncpusher"), 1, "times import asyncpusher"),
        Target(_OURS, _against("import aiohttp"), 1, "times import aiohttp"),
        Target("ReverbClient(config)", lambda figures: figures["making ReverbClient(config)"], 0.1, "ms"),
        Target("ReverbClient(), with .env", lambda figures: figures["making ReverbClient(), with .env"], 1, "ms"),
        Target("reverb --help", lambda figures: figures["reverb --help"], 250, "ms"),
        Target("reverb publish", lambda figures: figures["reverb publish"], 400, "ms"),
        Target(
            "first event by ReverbAPI",
            lambda figures: figures["first event by ReverbAPI, longest block of the loop"],
            50,
            "ms for which the event loop is blocked",
        ),
    ],
)


# --- being idle ------------------------------------------------------------------------------------------------

_IDLE_FOR = 32.0
"""Seconds for which clients are idle. This is long enough for a ping."""
_WHO = ("reverb", "websockets", "asyncpusher", "pysher")


def _idle(bench: Bench) -> Figures:
    """Measure all clients at the same time, because they have nothing to do."""
    figures = {}
    arguments = [str(bench.sender.port), str(_IDLE_FOR)]
    processes = {
        who: subprocess.Popen(
            [sys.executable, "-m", "bench.idle", who, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
        for who in _WHO
    }
    for who, process in processes.items():
        output, errors = process.communicate()
        if process.returncode:
            raise WorkerError(f"{who}: {(errors.decode().strip().splitlines() or ['no reason given'])[-1]}")
        answer = json.loads(output)
        figures[f"idle {who}, MiB"] = answer["bytes"] / _MIB
        figures[f"idle {who}, wake-ups a minute"] = answer["wake_ups"] * 60 / _IDLE_FOR
    return figures


IDLE = Group(
    "idle",
    "An idle client with one channel",
    "",
    [Subject("idle", _idle)],
    [
        Target("memory of an idle client", lambda figures: figures["idle reverb, MiB"], 31, "MiB"),
        Target(
            "memory of an idle client",
            lambda figures: figures["idle reverb, MiB"] / figures["idle asyncpusher, MiB"],
            1,
            "times asyncpusher's",
        ),
        Target(
            "memory of an idle client",
            lambda figures: figures["idle reverb, MiB"] / figures["idle websockets, MiB"],
            1.25,
            "times that of websockets alone",
        ),
        Target(
            "wake-ups of an idle client",
            lambda figures: (
                figures["idle reverb, wake-ups a minute"] - figures["idle websockets, wake-ups a minute"]
            ),
            0,
            "a minute more than websockets alone",
        ),
    ],
    max_rounds=3,
    warm_up=False,
)
