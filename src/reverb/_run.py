"""Runs as a program: until a signal arrives, and with an exit code."""

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
    """The exit codes of ``reverb.run()`` and of the commands."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONNECTION = 3
    REFUSED = 4
    TOO_LATE = 5


def exit_code_for(error: ReverbError) -> ExitCode:
    """Return the exit code of a program that ``error`` ends."""
    if isinstance(error, BatchError) and isinstance(error.__cause__, ReverbError):
        return exit_code_for(error.__cause__)
    if isinstance(error, ConfigurationError):
        return ExitCode.USAGE
    if (
        isinstance(error, AuthenticationError) and error.is_temporary
    ):  # the authorizer could not be reached, or failed
        return ExitCode.CONNECTION
    if isinstance(error, (AuthenticationError, SubscriptionError, APIError)):
        return ExitCode.REFUSED
    return ExitCode.CONNECTION


def run(work: Coroutine[Any, Any, None]) -> signal.Signals | None:
    """Run ``work`` to its end. SIGINT (Ctrl-C) and SIGTERM cancel it, so that it can clean up.

    Returns the signal that ended it; None if none did. If ``work`` cancels itself, that is a normal end.
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
            # Windows has no such handlers (Ctrl-C is a KeyboardInterrupt there). Only the main thread has them.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, stop, number)
        # Not "await task": if Ctrl-C is no signal, asyncio cancels this coroutine, which then has to end.
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    try:
        asyncio.run(supervise())
    except KeyboardInterrupt:
        return signal.SIGINT
    return received
