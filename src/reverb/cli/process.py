"""What every command is as a process: how it ends, and with which exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any

import typer

from ..exceptions import APIError, AuthenticationError, ConfigurationError, ReverbError, SubscriptionError
from .view import printable

__all__ = ["ExitCode", "exit_on_error", "fail", "run", "stop_writing"]


class ExitCode(IntEnum):
    """Documented in each command's ``--help``."""

    FAILED = 1
    USAGE = 2
    CONNECTION = 3
    REFUSED = 4


def fail(message: str, code: ExitCode) -> typer.Exit:
    """Print what went wrong; return the exit to raise."""
    print("reverb:", "\n".join(map(printable, message.splitlines())), file=sys.stderr)
    return typer.Exit(code)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn what the library raises into a message and an exit code."""
    try:
        yield
    except ConfigurationError as error:
        raise fail(str(error), ExitCode.USAGE) from None
    except (AuthenticationError, SubscriptionError, APIError) as error:
        raise fail(str(error), ExitCode.REFUSED) from None
    except ReverbError as error:
        raise fail(str(error), ExitCode.CONNECTION) from None


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
            with suppress(NotImplementedError):  # Windows, where Ctrl-C is a KeyboardInterrupt
                loop.add_signal_handler(number, stop, number)
        with suppress(asyncio.CancelledError):
            await task

    try:
        asyncio.run(supervise())
    except KeyboardInterrupt:
        return signal.SIGINT
    return received


def stop_writing(task: asyncio.Task[Any]) -> None:
    """Nobody reads the standard output any more: end ``task``, and write nothing more, not even when leaving."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    task.cancel()
