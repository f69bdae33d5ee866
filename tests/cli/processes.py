"""Commands as processes, in a pipe or in a terminal of their own, and what they print, as they print it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from tests.cli.fork_server import ForkedProcess, ForkServer

DEADLINE = 15.0
"""Seconds for whatever a test waits for."""

WARNINGS = "error,ignore:'click.:DeprecationWarning"
"""Typer before 0.26 uses names of Click that Click 8.5 warns about."""

_TAKE_TERMINAL = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Ctrl-C in a terminal reaches the processes that it controls, so the command has to be one of them."""


class Output:
    """Collects what arrives at a file descriptor."""

    def __init__(self, fd: int) -> None:
        self.text = ""
        self._fd = fd
        self._bytes = b""
        self._changed = asyncio.Event()
        self._ended = False
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self._read)

    @property
    def plain(self) -> str:
        """The text without colours, and without what else steers a terminal: on a busy machine, a command shows
        that it waits, and wipes that away again."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text)

    async def expect(self, pattern: str, after: re.Match[str] | None = None) -> re.Match[str]:
        """Wait until ``pattern`` is found in the output, ``after`` another one; fail when it ends without, or the
        deadline is over."""
        return await asyncio.wait_for(self._find(re.compile(pattern, re.MULTILINE), after), DEADLINE)

    async def end(self) -> str:
        """Wait for the end of the output; return all of it."""
        await asyncio.wait_for(self._wait_end(), DEADLINE)
        return self.text

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    async def _find(self, pattern: re.Pattern[str], after: re.Match[str] | None) -> re.Match[str]:
        while True:
            match = pattern.search(self.text, 0 if after is None else after.end())
            if match is not None:
                return match
            assert not self._ended, f"{pattern.pattern!r} is not in the output:\n{self.text}"
            self._changed.clear()
            try:
                await self._changed.wait()
            except asyncio.CancelledError:
                print(f"{pattern.pattern!r} was not found in time. The output:\n{self.text}")
                raise

    async def _wait_end(self) -> None:
        while not self._ended:
            self._changed.clear()
            await self._changed.wait()

    def _read(self) -> None:
        try:
            chunk = os.read(self._fd, 65536)
        except OSError:  # on Linux, how a terminal tells that nobody has it open any more
            chunk = b""
        if not chunk:
            self._ended = True
            asyncio.get_running_loop().remove_reader(self._fd)
        self._bytes += chunk
        self.text = self._bytes.decode(errors="ignore").replace("\r\n", "\n")
        self._changed.set()


class Command:
    """A running ``reverb`` command. In a terminal, ``out`` and ``err`` are the same."""

    def __init__(
        self,
        process: asyncio.subprocess.Process | ForkedProcess,
        out: Output,
        err: Output,
        terminal: int | None,
    ) -> None:
        self.out = out
        self.err = err
        self._process = process
        self._terminal = terminal

    @property
    def pid(self) -> int:
        return self._process.pid

    def press_ctrl_c(self) -> None:
        assert self._terminal is not None
        os.write(self._terminal, b"\x03")

    def send_signal(self, number: signal.Signals) -> None:
        # Not with the process's own method: that asks first whether it has ended, behind asyncio's back.
        os.kill(self.pid, number)

    async def exit_code(self) -> int:
        """Wait for the end, and for the rest of the output."""
        code = await asyncio.wait_for(self._process.wait(), DEADLINE)
        await self.err.end()
        return code


def _environment() -> dict[str, str]:
    changes = ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("REVERB_") and name not in changes
    }
    return {**kept, "PYTHONWARNINGS": WARNINGS, "TERM": "xterm-256color"}


@cache
def _fork_server() -> ForkServer | None:
    if sys.platform != "linux" or "COVERAGE_PROCESS_CONFIG" in os.environ:  # coverage does not measure forks
        return None
    return ForkServer(_environment())


@asynccontextmanager
async def reverb(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path,
    terminal: bool = False,
    width: int = 120,
    module: str = "reverb",
    stdin: Path = Path(os.devnull),
    forked: bool = True,
    is_read: bool = True,
) -> AsyncIterator[Command]:
    """Run ``reverb`` with these arguments, and none of the tests' own ``REVERB_`` variables.

    Outside a terminal its standard input is the file ``stdin``. The process comes from a fork server, if it can:
    ``forked=False`` is for tests of the start. With ``is_read=False`` nobody reads its output, from the start on.
    """
    environment = {**_environment(), **(env or {})}
    if terminal:
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        fds = (theirs, theirs, theirs)
        outputs = [Output(ours)]
    else:
        (ours, out), (their_err, err) = os.pipe(), os.pipe()
        fds = (os.open(stdin, os.O_RDONLY), out, err)
        outputs = [Output(ours), Output(their_err)]
        if not is_read:
            outputs[0].close()
    server = _fork_server() if forked else None
    process: asyncio.subprocess.Process | ForkedProcess
    if server is not None and server.can_start(environment):
        process = await server.start(module, arguments, fds, env=environment, cwd=cwd)
    else:
        command = [sys.executable, "-m", module, *arguments]
        process = await asyncio.create_subprocess_exec(
            *([sys.executable, "-c", _TAKE_TERMINAL, *command] if terminal else command),
            stdin=fds[0],
            stdout=fds[1],
            stderr=fds[2],
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
    for fd in set(fds):
        os.close(fd)
    try:
        yield Command(process, outputs[0], outputs[-1], ours if terminal else None)
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
        if isinstance(process, ForkedProcess):
            process.close()
        for output in outputs:
            output.close()
