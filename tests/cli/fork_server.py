"""Starts processes that have already imported what commands need, which takes a small part of the time.

A server imports it, and makes a fork of itself for each process. They are processes like others, with a number,
signals, an environment, an exit code and an end of their own. What they leave out is the start: Python's own, and
the imports. The server is this module, run as a program. It needs Linux.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import io
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TextIO

_READ_AT_START = (
    *("LANG", "LC_", "LD_", "PYTHON", "TZ"),
    *("AIOHTTP_", "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TERMINAL_WIDTH", "TYPER_"),
)
"""How the names of those variables begin that are read when Python starts, or when a module is imported."""


class ForkedProcess:
    """A process, with the part of :class:`asyncio.subprocess.Process` that tests use."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(link, self._read)

    @property
    def returncode(self) -> int | None:
        return self._code.result() if self._code.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    def close(self) -> None:
        """Kill the process if it still runs, and let the server forget it. Before that, nobody gets its number."""
        self._loop.remove_reader(self._link)
        self._link.close()

    def _read(self) -> None:
        self._loop.remove_reader(self._link)
        self._code.set_result(int(self._link.recv(16)))


class ForkServer:
    """A server, as seen by the tests. It ends with them."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._read_at_start = _read_at_start(env)
        self._control, theirs = socket.socketpair()
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=Path(__file__).parents[2],
                env=dict(env),
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # so that Ctrl-C ends the tests first
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self._close)

    def can_start(self, env: Mapping[str, str]) -> bool:
        """Tell whether a fork with these variables is the same as a process that starts with them."""
        return _read_at_start(env) == self._read_at_start

    async def start(
        self, module: str, arguments: Sequence[str], streams: Sequence[int], *, env: Mapping[str, str], cwd: Path
    ) -> ForkedProcess:
        """Run a module as ``python -m`` does, in a session of its own.

        ``streams`` are the descriptors of its standard input, output and error output. If they are a terminal, it
        becomes the one that controls the process.
        """
        link = self._send(streams, module=module, arguments=arguments, env=dict(env), cwd=str(cwd))
        pid = await asyncio.get_running_loop().sock_recv(link, 16)
        assert pid, "the fork server has ended; its error output says why"
        return ForkedProcess(int(pid), link)

    def _send(self, streams: Sequence[int], **request: Any) -> socket.socket:
        link, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        link.setblocking(False)
        reading, writing = os.pipe()
        with theirs, open(reading, "rb"):
            socket.send_fds(self._control, [b"."], [theirs.fileno(), reading, *streams])
        with open(writing, "w", encoding="utf-8") as file:
            json.dump(request, file)
        return link

    def _close(self) -> None:
        self._control.close()
        self._server.wait()


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if name.startswith(_READ_AT_START) and name != "PYTHONUNBUFFERED"  # which forks heed, too
    }


if sys.platform == "linux":
    import fcntl
    import termios

    @dataclass(eq=False)
    class _Fork:
        pid: int
        pidfd: int
        link: socket.socket

    def _import() -> None:
        """Import what commands need, and nothing that starts a thread."""
        for name in ("aiohttp.web", "nats", "redis.asyncio", "reverb.crypto", "reverb.server"):
            with suppress(ImportError, Warning):  # then processes that need it say so
                import_module(name)
        with suppress(ImportError, Warning):
            from reverb.cli.app import COMMANDS, load

            for name in COMMANDS:
                load(name)
            load("channels").make_context(
                "channels", []
            )  # typer imports the rest when it reads the first arguments
        gc.collect()
        gc.freeze()

    def _serve(control: socket.socket) -> list[int]:
        """Make forks until the tests end. In a fork, return the descriptors of its request and its streams."""
        selector = selectors.DefaultSelector()
        selector.register(control, selectors.EVENT_READ)
        forks: set[_Fork] = set()
        while True:
            for key, _ in selector.select():
                fork = key.data
                if fork is None:
                    message, descriptors, _, _ = socket.recv_fds(control, 1, 5)
                    if not message:
                        sys.exit()
                    link = socket.socket(fileno=descriptors.pop(0))
                    pid = os.fork()
                    if pid == 0:
                        for each in forks:
                            each.link.close()
                            os.close(each.pidfd)
                        for owner in (selector, control, link):
                            owner.close()
                        return descriptors
                    for descriptor in descriptors:
                        os.close(descriptor)
                    link.send(str(pid).encode())
                    fork = _Fork(pid, os.pidfd_open(pid), link)
                    forks.add(fork)
                    selector.register(fork.pidfd, selectors.EVENT_READ, fork)
                    selector.register(fork.link, selectors.EVENT_READ, fork)
                elif fork not in forks:
                    pass  # has been forgotten since
                elif key.fd == fork.pidfd:
                    end = os.waitid(os.P_PID, fork.pid, os.WEXITED | os.WNOWAIT)
                    assert end is not None
                    exited = end.si_code == os.CLD_EXITED
                    selector.unregister(fork.pidfd)
                    with suppress(OSError):  # the test has ended, too
                        fork.link.send(str(end.si_status if exited else -end.si_status).encode())
                else:
                    forks.remove(fork)
                    os.kill(fork.pid, signal.SIGKILL)
                    os.waitpid(fork.pid, 0)
                    if fork.pidfd in selector.get_map():
                        selector.unregister(fork.pidfd)
                    os.close(fork.pidfd)
                    selector.unregister(fork.link)
                    fork.link.close()

    def _run(descriptors: Sequence[int]) -> NoReturn:
        """Be the process."""
        request, *streams = descriptors
        with open(request, encoding="utf-8") as file:
            wanted = json.load(file)
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.environ.clear()
        os.environ.update(wanted["env"])
        # Those that Python has opened at the start know that they are not a terminal, for example.
        sys.stdin, sys.stdout, sys.stderr = (
            _open(*each) for each in enumerate((sys.stdin, sys.stdout, sys.stderr))
        )
        os.chdir(wanted["cwd"])
        sys.path[0] = os.getcwd()
        sys.argv = ["", *wanted["arguments"]]
        runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
        sys.exit()

    def _open(number: int, before: TextIO) -> io.TextIOWrapper:
        """Open a stream as Python does when it starts."""
        unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
        mode, buffering = ("rb", -1) if number == 0 else ("wb", 0 if unbuffered else -1)
        file = open(number, mode, buffering, closefd=False)  # noqa: SIM115 - the process has it to its end
        by_line = not unbuffered and (number == 2 or file.isatty())
        return io.TextIOWrapper(file, before.encoding, before.errors, "\n", by_line, write_through=unbuffered)

    def main() -> None:
        _import()
        with socket.socket(fileno=int(sys.argv[1])) as control:
            descriptors = _serve(control)
        _run(descriptors)

    if __name__ == "__main__":
        main()
