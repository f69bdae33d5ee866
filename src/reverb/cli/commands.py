"""``reverb listen --exec``: a command for each event, one after another."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from .view import dump_json

__all__ = ["VARIABLES", "Commands"]

VARIABLES = ("REVERB_CHANNEL", "REVERB_EVENT", "REVERB_USER_ID")
"""What tells a command about its event. None of them may ever become the name of a setting."""

_MAX_WAITING = 1_000
"""Events that may wait for their commands; at that, reading from the server is paused in the end."""
_GRACE = 5.0
"""Seconds between asking a command to end and killing it."""
_STDERR = 2


class _Event(NamedTuple):
    name: str
    data: Any
    channel: str
    user_id: str | None


class Commands:
    """Runs a shell command for each event: in the order received, one at a time.

    The payload is on the command's standard input, in UTF-8 and with a line break at its end: a text as it is,
    anything else as JSON; nothing for an event without data. What the command prints goes to the standard error:
    the standard output is for events.

    Leaving the context waits for the commands of all events so far; when cancelled, it ends the present one.
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
        """Run the command for an event when it is its turn; wait while too many are waiting."""
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
                start_new_session=True,  # Ctrl-C is ours to pass on
            )
        )
        try:
            process = await asyncio.shield(starting)  # so that one that has started is known, and ended
            await process.communicate(_payload(event.data))
        except OSError as error:  # too many processes, too long a name for a variable
            self._tell_failure(f"can't be run ({error.strerror})", event)
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
    """Ask the command and all that it started to end; kill what is left when it has, or when its time is over."""
    _send(process, signal.SIGTERM)
    ended = asyncio.ensure_future(process.wait())
    await asyncio.wait({ended}, timeout=_GRACE)
    _send(process, getattr(signal, "SIGKILL", signal.SIGTERM))
    await ended


def _send(process: Process, number: signal.Signals) -> None:
    # macOS says PermissionError where all are dead, and nobody has asked yet.
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, number)
        else:
            process.terminate()


def _payload(data: Any) -> bytes:
    if data is None:
        return b""
    text = data if isinstance(data, str) else dump_json(data, ensure_ascii=False)
    return f"{text}\n".encode(errors="backslashreplace")


def _as_variable(text: str) -> str:
    """Write what no variable can hold as an escape: the server may call an event whatever it likes."""
    return text.encode(errors="backslashreplace").decode().replace("\0", r"\x00")
