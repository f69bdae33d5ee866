"""A server that is killed and started again, five times, under fifty clients with twenty channels each."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import pytest

from reverb import ReverbClient
from reverb._backoff import Backoff
from reverb._protocol import Action
from reverb.server import ReverbServer
from tests.integration.servers import SOKETI_CONFIG, MissingError, Soketi, Target, free_ports, soketi_command
from tests.missing import missing
from tests.watching import client_tasks, open_descriptors, until

from .proxy import FaultProxy
from .scene import NUMBERED, Numbers, Publisher, unique

CLIENTS, RESTARTS = 50, 5
KINDS = ["news-"] * 10 + ["private-orders-"] * 8 + ["presence-room-"] * 2
BUCKET = 0.05
"""Seconds that one line of the histogram stands for."""


class Server(Protocol):
    target: Target

    async def start(self) -> None: ...

    async def kill(self) -> None: ...


class EmbeddedServer:
    def __init__(self) -> None:
        (port,) = free_ports(1)
        self._server = ReverbServer(port=port)

    async def start(self) -> None:
        await self._server.start()
        self.target = Target("embedded", self._server.host, self._server.port)

    async def kill(self) -> None:
        await self._server.stop()
        await asyncio.sleep(0.3)  # it is away as long as a real server would be


class SoketiServer:
    """soketi on ports that it keeps over its restarts."""

    def __init__(self, directory: Path) -> None:
        self._command = soketi_command()
        self._directory = directory
        self._ports = free_ports(3)
        self.target = Target("soketi", "127.0.0.1", self._ports[0])

    async def start(self) -> None:
        names = ("SOKETI_PORT", "SOKETI_METRICS_SERVER_PORT", "SOKETI_CLUSTER_PORT")
        log = self._directory / "soketi.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - forks, and does not wait
                [*self._command, "start", f"--config={SOKETI_CONFIG}"],
                cwd=self._directory,
                env={**os.environ, **dict(zip(names, map(str, self._ports), strict=True))},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        soketi = Soketi(self._process, self._ports[0], log)
        end = monotonic() + 15
        while not await asyncio.to_thread(soketi.is_ready):
            soketi.check()
            assert monotonic() < end, soketi.output()
            await asyncio.sleep(0.02)

    async def kill(self) -> None:
        self._process.kill()
        await asyncio.to_thread(self._process.wait)


@pytest.fixture(params=["embedded", "soketi"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    try:
        it: Server = EmbeddedServer() if request.param == "embedded" else SoketiServer(tmp_path)
    except MissingError as reason:
        missing(reason)
    await it.start()
    yield it
    await it.kill()


@asynccontextmanager
async def connected_clients(proxy: FaultProxy, target: Target) -> AsyncIterator[list[ReverbClient]]:
    settings: dict[str, Any] = {**target.settings, "host": proxy.host, "port": proxy.port}
    settings |= {"reconnect_delay_min": 0.2, "reconnect_delay_max": 1.0, "log_level": "ERROR"}
    clients = [ReverbClient(**settings) for _ in range(CLIENTS)]
    try:
        await asyncio.gather(*(client.connect() for client in clients))
        yield clients
    finally:
        await asyncio.gather(*(client.disconnect() for client in clients))


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When clients mean to try again. When they do depends on the machine, too: one loop has all fifty of them."""
    planned: list[float] = []
    delay = Backoff.delay

    def note(backoff: Backoff, action: Action) -> float:
        seconds = delay(backoff, action)
        planned.append(monotonic() + seconds)
        return seconds

    monkeypatch.setattr(Backoff, "delay", note)
    return planned


async def test_everyone_comes_back_and_not_all_at_once(server: Server, planned: list[float]) -> None:
    names = [unique(kind) for kind in KINDS]
    attempts: list[list[float]] = []
    before = open_descriptors()
    async with (
        FaultProxy(server.target.host, server.target.port) as proxy,
        Publisher(server.target) as publisher,
        connected_clients(proxy, server.target) as clients,
    ):
        received, sent = [], publisher.sent
        for number, client in enumerate(clients):
            received.append(Numbers())
            client.bind(NUMBERED, received[-1])
            user = {"user_id": str(number)}
            await asyncio.gather(
                *(client.subscribe(name, user if name.startswith("presence") else None) for name in names)
            )
        for _ in range(RESTARTS):
            arrived_before = len(proxy.arrivals)
            planned.clear()
            killed_at = monotonic()
            await server.kill()
            await until(lambda: not any(client.is_connected for client in clients))
            await server.start()
            await until(lambda: all(is_complete(client, names) for client in clients), 15)
            assert CLIENTS <= len(proxy.arrivals) - arrived_before <= 15 * CLIENTS
            attempts.append([at - killed_at for at in planned])
            await publisher.publish(*names)
            await until(lambda: all(each.last(name) == sent[name] for each in received for name in names))
            for client in clients:
                for name in names:
                    if name.startswith("presence"):
                        members = client.channels[name].members  # type: ignore[attr-defined]
                        assert len(members) == CLIENTS
        for numbers in received:
            assert all(numbers.got[name] == list(range(1, RESTARTS + 1)) for name in names)
    assert client_tasks() == set()
    await until(lambda: open_descriptors() <= before)
    print("\nplanned attempts to connect, by seconds since the server was killed")
    for number, each in enumerate(attempts, 1):
        print(f"\nrestart {number}: {len(each)} attempts of {CLIENTS} clients")
        buckets = Counter(int(at / BUCKET) for at in each)
        for bucket in range(max(buckets) + 1):
            print(f"{bucket * BUCKET:6.2f} {'#' * buckets[bucket]}")
        assert max(buckets.values()) <= 0.6 * CLIENTS, "they all come in the same twentieth of a second"


def is_complete(client: ReverbClient, names: list[str]) -> bool:
    return client.is_connected and all(client.channels[name].is_subscribed for name in names)
