"""What every command is as a process: how it ends, and with which exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from .._run import ExitCode, exit_code_for, run
from ..exceptions import ProtocolError, ReverbError
from .view import printable

__all__ = [
    "EXIT_CODES",
    "ExitCode",
    "complete",
    "ends_this_task",
    "exit_on_error",
    "fail",
    "run",
    "silence",
    "unsendable",
]


EXIT_CODES = """Exit codes: 0 done; 1 failed; 2 wrong usage, settings or data; 3 no connection, or no answer;
4 refused; 5 not enough came in time; 130 ended by Ctrl-C; 143 ended by SIGTERM."""
"""At the end of each command's ``--help``."""


def fail(message: str, code: ExitCode) -> typer.Exit:
    """Print what went wrong; return the exit to raise."""
    print("reverb:", "\n".join(map(printable, message.split("\n"))), file=sys.stderr)
    return typer.Exit(code)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn what the library raises into a message and an exit code."""
    try:
        yield
    except ReverbError as error:
        raise fail(str(error), exit_code_for(error)) from None


@contextmanager
def unsendable() -> Iterator[None]:
    """An event that is not sent for what it is: the usage is wrong, not the connection."""
    try:
        yield
    except ProtocolError as error:
        raise fail(str(error), ExitCode.USAGE) from None


def complete(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work``, which comes to an end by itself: a signal before that has an exit code of its own."""
    received = run(work)
    if received is not None:
        raise typer.Exit(128 + received)


def ends_this_task() -> Callable[[], None]:
    """What to call when nobody reads the standard output any more: it ends the present task."""
    task = asyncio.current_task()
    assert task is not None

    def end() -> None:
        silence()
        task.cancel()

    return end


def silence() -> None:
    """Write nothing more to the standard output, not even what is left in its buffer when the program ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
