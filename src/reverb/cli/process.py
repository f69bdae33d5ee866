"""What every command is as a process: how it ends, and with which exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from .._run import ExitCode, exit_code_for, run
from ..exceptions import ReverbError
from .view import printable

__all__ = ["ExitCode", "exit_on_error", "fail", "run", "stop_writing"]


def fail(message: str, code: ExitCode) -> typer.Exit:
    """Print what went wrong; return the exit to raise."""
    print("reverb:", "\n".join(map(printable, message.splitlines())), file=sys.stderr)
    return typer.Exit(code)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn what the library raises into a message and an exit code."""
    try:
        yield
    except ReverbError as error:
        raise fail(str(error), exit_code_for(error)) from None


def stop_writing(task: asyncio.Task[Any]) -> None:
    """Nobody reads the standard output any more: end ``task``, and write nothing more, not even when leaving."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    task.cancel()
