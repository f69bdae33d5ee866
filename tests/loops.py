"""The event loops that programs run the client in, and tests on each of them.

    @every_loop
    async def test_…

runs a test on asyncio's own loop, on one with eager tasks (which are there from Python 3.12 on), and on uvloop.
Where uvloop is not installed, as on Windows, that is skipped. A test without the marker runs on asyncio's own.

uvloop's timers count whole milliseconds, so they may be up to 1 ms early: no test is that exact.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

NAMES = ("asyncio", "eager", "uvloop") if sys.version_info >= (3, 12) else ("asyncio", "uvloop")

every_loop = pytest.mark.asyncio(loop_factories=NAMES)

only_asyncio = pytest.mark.asyncio(loop_factories=["asyncio"])
"""Runs a test on asyncio's own loop, whatever ``REVERB_TEST_LOOP`` says: for what is otherwise on other loops."""


def make_eager_loop() -> asyncio.AbstractEventLoop:
    """As Home Assistant and Textual have it: tasks start at once, within ``create_task()``."""
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def available() -> dict[str, LoopFactory]:
    """Return how to make each loop that there is on this machine, by name."""
    found: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if sys.version_info >= (3, 12):
        found["eager"] = make_eager_loop
    with suppress(ImportError):
        found["uvloop"] = importlib.import_module("uvloop").new_event_loop
    return found
