"""Waiting for conditions, and seeing what the client has left behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import reverb

_LIBRARY = Path(reverb.__file__).parent


@asynccontextmanager
async def owned(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """Kill a process that still runs at the end of the block, so that it does not outlive its test."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(condition: Callable[[], Any], deadline: float = 5.0, *, pause: float = 0.005) -> None:
    """Wait for a condition that nothing announces; fail after ``deadline`` seconds.

    It looks often at first, and at least every ``pause`` seconds: each look costs time of the processor.
    """
    begin = monotonic()
    while not condition():
        waited = monotonic() - begin
        assert waited < deadline, "the condition was not met in time"
        await asyncio.sleep(min(0.001 + waited / 20, pause))


def turns() -> Iterator[int]:
    """Numbers of turns of the loop to wait before something is done to what was started: each of the first ones,
    and then fewer. To be left when what was started had ended before."""
    number = 0
    while True:
        yield number
        number += 1 + number // 20
        assert number < 100_000, "what was started does not end"


async def wait_turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def client_tasks() -> set[asyncio.Task[Any]]:
    """The running tasks of the client, and of the WebSocket library on its behalf."""
    found = set()
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        path = Path(code.co_filename) if code is not None else Path()
        ours = path.is_relative_to(_LIBRARY) and not path.is_relative_to(_LIBRARY / "server")
        if ours or "picows" in path.parts:
            found.add(task)
    return found


def open_descriptors() -> int:
    """How many file descriptors this process has open (Linux).

    ``/dev/null`` does not count: uvloop opens it with the first connection of a loop, and keeps it.
    """
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # closed by now, as is the descriptor of the directory itself
            count += os.readlink(f"/proc/self/fd/{name}") != os.devnull
    return count
