"""How commands end: messages, exit codes, signals, and a standard output that nobody reads."""

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
    "discard_output",
    "exit_on_error",
    "exit_on_unsendable",
    "fail",
    "make_cancel",
    "run",
]


EXIT_CODES = """Exit codes: 0 done; 1 failed; 2 wrong usage, settings or data; 3 no connection, or no answer;
4 refused; 5 too few events before the timeout; 130 ended by Ctrl-C; 143 ended by SIGTERM."""
"""The last lines of each command's ``--help``."""


def fail(message: str, code: ExitCode) -> typer.Exit:
    """Print an error message, and return the exception that ends the command. The caller raises it."""
    print("reverb:", "\n".join(map(printable, message.split("\n"))), file=sys.stderr)
    return typer.Exit(code)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn an error of the library into a message and an exit code."""
    try:
        yield
    except ReverbError as error:
        raise fail(str(error), exit_code_for(error)) from None


@contextmanager
def exit_on_unsendable() -> Iterator[None]:
    """Exit for wrong usage if the client can't send an event because of its name, its data or its size."""
    try:
        yield
    except ProtocolError as error:
        raise fail(str(error), ExitCode.USAGE) from None


def complete(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` to its end. If a signal ends it first, exit with the code of that signal."""
    received = run(work)
    if received is not None:
        raise typer.Exit(128 + received)


def make_cancel() -> Callable[[], None]:
    """Return a function that cancels the current task because nobody reads the standard output any more."""
    task = asyncio.current_task()
    assert task is not None

    def cancel() -> None:
        discard_output()
        task.cancel()

    return cancel


def discard_output() -> None:
    """Discard the standard output from now on, and the rest in its buffer when the program ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
