"""Running as a program: until a signal comes, and with an exit code."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from enum import IntEnum
from typing import Any

from .exceptions import (
    APIError,
    AuthenticationError,
    BatchError,
    ConfigurationError,
    ReverbError,
    SubscriptionError,
)


class ExitCode(IntEnum):
    """What a program ends with, whether ``reverb.run()`` or a command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONNECTION = 3
    REFUSED = 4
    TOO_LATE = 5


def exit_code_for(error: ReverbError) -> ExitCode:
    """What a program ends with that ``error`` ends."""
    if isinstance(error, BatchError) and isinstance(error.__cause__, ReverbError):
        return exit_code_for(error.__cause__)
    if isinstance(error, ConfigurationError):
        return ExitCode.USAGE
    if isinstance(error, AuthenticationError) and error.is_temporary:  # who signs could not be asked, or failed
        return ExitCode.CONNECTION
    if isinstance(error, (AuthenticationError, SubscriptionError, APIError)):
        return ExitCode.REFUSED
    return ExitCode.CONNECTION


def run(work: Coroutine[Any, Any, None]) -> signal.Signals | None:
    """Run ``work`` to its end. SIGINT (Ctrl-C) and SIGTERM cancel it, so that it can clean up behind itself.

    Returns the signal that ended it, if one did. A ``work`` that cancels itself has simply ended.
    """
    received: signal.Signals | None = None

    async def supervise() -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)

        def stop(number: signal.Signals) -> None:
            nonlocal received
            received = number
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            # Windows has none (Ctrl-C is a KeyboardInterrupt there), and neither have threads but the main one.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, stop, number)
        # Not "await task": where Ctrl-C is no signal, asyncio cancels this, and has to see it end by that.
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    try:
        asyncio.run(supervise())
    except KeyboardInterrupt:
        return signal.SIGINT
    return received
