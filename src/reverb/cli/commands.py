"""``reverb listen --exec``: run a shell command for each event."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from .view import dump_json

__all__ = ["VARIABLES", "Commands"]

VARIABLES = ("REVERB_CHANNEL", "REVERB_EVENT", "REVERB_USER_ID")
"""The environment variables that describe the event to the command. No setting may ever have such a name."""

_MAX_WAITING = 1_000
"""Events that may wait for their commands. When more arrive, the client pauses reading from the server."""
_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL for a command."""
_STDERR = 2


class _Event(NamedTuple):
    name: str
    data: Any
    channel: str
    user_id: str | None


class Commands:
    """Runs a shell command for each event, one at a time, in the order received.

    The command reads the payload from its standard input: a text as it is, any other data as JSON, in UTF-8, with
    a line break at the end. The input is empty for an event without data. The command's output goes to the
    standard error, because the standard output is for events.

    Leaving the context waits for the commands of all events so far. A cancellation ends the running command.
    """

    def __init__(self, command: str, tell: Callable[[str, str], None]) -> None:
        self.failures = 0
        self._command = command
        self._tell = tell
        self._waiting: asyncio.Queue[_Event] = asyncio.Queue(_MAX_WAITING)

    async def __aenter__(self) -> Commands:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not asyncio.CancelledError:
                await self._waiting.join()
        finally:
            self._worker.cancel()
            await asyncio.wait({self._worker})

    async def put(self, event: str, data: Any, channel: str, user_id: str | None) -> None:
        """Queue an event for the command. Wait while the queue is full."""
        await self._waiting.put(_Event(event, data, channel, user_id))

    async def _work(self) -> None:
        while True:
            event = await self._waiting.get()
            await self._run(event)
            self._waiting.task_done()

    async def _run(self, event: _Event) -> None:
        values = (event.channel, event.name, event.user_id or "")
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_shell(
                self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=_STDERR,
                env=os.environ | dict(zip(VARIABLES, map(_as_variable, values), strict=True)),
                start_new_session=True,  # the terminal sends Ctrl-C to us only, and we end the command
            )
        )
        try:
            process = await asyncio.shield(starting)  # a cancellation must not lose a process that has started
            await process.communicate(_payload(event.data))
        except OSError as error:  # too many processes, too long a name for a variable
            self._tell_failure(f"could not start ({error.strerror})", event)
            return
        except asyncio.CancelledError:
            with suppress(OSError):
                await _end(await starting)
            raise
        if process.returncode:
            how = f"failed with exit code {process.returncode}"
            if process.returncode < 0:
                how = f"was ended by {signal.Signals(-process.returncode).name}"
            self._tell_failure(how, event)

    def _tell_failure(self, how: str, event: _Event) -> None:
        self.failures += 1
        self._tell(f"the command {how} for {event.name} on {event.channel}", "red")


async def _end(process: Process) -> None:
    """Send SIGTERM to the command and its child processes, then kill the rest when it has ended or time is up."""
    _send(process, signal.SIGTERM)
    ended = asyncio.ensure_future(process.wait())
    await asyncio.wait({ended}, timeout=_GRACE)
    _send(process, getattr(signal, "SIGKILL", signal.SIGTERM))
    await ended


def _send(process: Process, number: signal.Signals) -> None:
    # macOS raises PermissionError when all processes of the group have ended and nobody has waited for them.
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.terminate()
        else:
            os.killpg(process.pid, number)


def _payload(data: Any) -> bytes:
    if data is None:
        return b""
    text = data if isinstance(data, str) else dump_json(data, ensure_ascii=False)
    return f"{text}\n".encode(errors="backslashreplace")


def _as_variable(text: str) -> str:
    """Escape characters that no variable can hold: the server may use any name for an event."""
    return text.encode(errors="backslashreplace").decode().replace("\0", r"\x00")
