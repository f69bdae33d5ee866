"""The servers that the integration tests run against, and what a test needs to know of them."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from reverb.auth import sign_request
from tests.faults.proxy import FaultProxy, Link
from tests.node import installed_command

SOKETI_CONFIG = Path(__file__).parent / "soketi" / "soketi.json"


class MissingError(Exception):
    """A server is not there to test against; the text says why."""


class PublishError(Exception):
    """The server refused to publish."""


@dataclass(frozen=True)
class Target:
    """A running server, and one of its applications."""

    name: str
    """``embedded``, ``soketi`` or ``external``."""
    host: str
    port: int
    path: str = ""
    """What goes before ``/app/KEY`` and ``/apps/ID``."""
    app_id: str = "app-id"
    key: str = "app-key"
    secret: str = field(default="app-secret", repr=False)
    scheme: str = "ws"

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments for ``ReverbClient``."""
        return {
            "app_id": self.app_id,
            "app_key": self.key,
            "app_secret": self.secret,
            "host": self.host,
            "port": self.port,
            "scheme": self.scheme,
            "path": self.path,
        }

    @property
    def http_url(self) -> str:
        scheme = {"ws": "http", "wss": "https"}[self.scheme]
        return f"{scheme}://{self.host}:{self.port}{self.path}"

    def app(self, app_id: str) -> Target:
        """The same server's other application: ``user``, ``off``, ``lim``, ``noc`` or ``rate`` of soketi.json."""
        return replace(self, app_id=app_id, key=f"{app_id}-key", secret=f"{app_id}-secret")

    async def publish(
        self, channels: str | Sequence[str], event: str, data: Any, *, socket_id: str | None = None
    ) -> None:
        """Publish over the HTTP API, without the client under test. ``data`` other than a string goes as JSON."""
        fields: dict[str, Any] = {
            "name": event,
            "data": data if isinstance(data, str) else json.dumps(data),
            "channels": [channels] if isinstance(channels, str) else list(channels),
        }
        if socket_id is not None:
            fields["socket_id"] = socket_id
        body = json.dumps(fields).encode()
        path = f"/apps/{self.app_id}/events"
        query = sign_request(self.key, self.secret, "POST", path, {}, body, int(time.time()))
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.post(self.http_url + path, params=query, data=body, headers=headers) as response,
        ):
            answer = await response.text()
        # soketi refuses with status 200 and {"error": …}.
        if response.status != 200 or "error" in json.loads(answer):
            raise PublishError(f"{self.name} answered {response.status}: {answer}")


class Line:
    """The way to a server."""

    def __init__(self, target: Target, proxy: FaultProxy) -> None:
        self.target = replace(target, host=proxy.host, port=proxy.port)
        """The server, for those who go that way."""
        self._proxy = proxy

    def drop(self) -> None:
        """End all connections that go that way."""
        self._proxy.hit(Link.reset)


@asynccontextmanager
async def line_to(target: Target) -> AsyncIterator[Line]:
    """Put a way between clients and a server that can be cut, whatever server it is."""
    if target.scheme == "wss":
        raise MissingError("nothing can be put between a client and a server that shows its certificate")
    async with FaultProxy(target.host, target.port) as proxy:
        yield Line(target, proxy)


def external_target() -> Target:
    """The server that the environment names."""
    url, app = os.environ.get("REVERB_TEST_URL"), os.environ.get("REVERB_TEST_APP")
    if not (url and app):
        raise MissingError(
            "REVERB_TEST_URL (ws://host:port[/path]) and REVERB_TEST_APP (id:key:secret) are not set"
        )
    parts = urlsplit(url)
    app_id, key, secret = app.split(":", 2)
    assert parts.hostname, f"REVERB_TEST_URL={url} names no host"
    port = parts.port or {"ws": 80, "wss": 443}[parts.scheme]
    return Target("external", parts.hostname, port, parts.path.rstrip("/"), app_id, key, secret, parts.scheme)


class Soketi:
    """A soketi process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.target = Target("soketi", "127.0.0.1", port)
        self._process = process
        self._log = log

    def check(self) -> None:
        """Raise if it has died. A malformed subscribe kills it, for example."""
        if self._process.poll() is not None:
            raise RuntimeError(f"soketi exited with {self._process.returncode}. {self.output()}")

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.target.http_url}/ready", timeout=1) as response:
                return bool(response.read() == b"OK")
        except OSError:
            return False

    def output(self) -> str:
        return f"Its output:\n{self._log.read_text(errors='replace')}"


def soketi_command() -> list[str]:
    try:
        return installed_command("soketi")
    except OSError:
        raise MissingError("soketi is not installed; `make test` installs it") from None


@contextmanager
def run_soketi(directory: Path, deadline: float = 15.0, config: Path = SOKETI_CONFIG) -> Iterator[Soketi]:
    """Run soketi until the block ends, its output going to ``directory``.

    It has ``deadline`` seconds to get ready.
    """
    port, metrics_port, cluster_port = free_ports(3)
    environment = {
        **os.environ,
        "SOKETI_PORT": str(port),
        "SOKETI_METRICS_SERVER_PORT": str(metrics_port),
        "SOKETI_CLUSTER_PORT": str(cluster_port),
    }
    log = directory / "soketi.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*soketi_command(), "start", f"--config={config}"],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    soketi = Soketi(process, port, log)
    try:
        give_up = time.monotonic() + deadline
        while not soketi.is_ready():
            soketi.check()
            if time.monotonic() > give_up:
                raise RuntimeError(f"soketi was not ready within {deadline:g} s. {soketi.output()}")
            time.sleep(0.05)
        soketi.check()
        yield soketi
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses, neither for TCP nor for UDP, and that nobody will be given.

    They lie below those that systems hand out, and each process that runs tests draws from its own: so they are
    free until a server takes them, and while it restarts.

    soketi binds with SO_REUSEPORT: on a port that another soketi has, both would silently serve half of the
    connections. So the ports are bound here without that option, which fails on such a port, and all are held
    until the last one is found.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 16
    candidates = iter(random.sample(range(16_000 + 1000 * worker, 17_000 + 1000 * worker), 1000))
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            tcp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            udp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            port = next(candidates)
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    return ports
