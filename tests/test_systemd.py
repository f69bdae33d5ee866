"""What a service manager is told: over a real socket, by clients of this process and by a program of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from reverb import ConnectionError, ReverbClient, _supervisor, _systemd
from reverb._connection import Connection
from reverb.server import ReverbServer
from tests.cli.processes import reverb as run_module
from tests.scripted import Peer, ScriptedServer
from tests.test_client import make_client
from tests.watching import until

if sys.platform == "win32":
    pytest.skip("there is neither systemd nor its kind of socket on Windows", allow_module_level=True)

WATCHDOG = 0.2
"""Seconds of ``WatchdogSec`` in these tests."""


class Manager:
    """What systemd is to a service: a socket, and the messages that arrive there."""

    def __init__(self, address: str | bytes) -> None:
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)

    @property
    def told(self) -> list[str]:
        """All that was said but signs of life."""
        self.read()
        return [each for each in self.messages if each != "WATCHDOG=1"]

    @property
    def beats(self) -> int:
        """The number of signs of life."""
        self.read()
        return self.messages.count("WATCHDOG=1")

    async def hear(self, message: str) -> None:
        await until(lambda: message in self.told, 15)

    async def beat(self, times: int = 1) -> None:
        before = self.beats
        await until(lambda: self.beats >= before + times)

    async def silence(self) -> None:
        """Wait until there has been no sign of life for so long that systemd would kill the service."""
        loop = asyncio.get_running_loop()
        beats, since = self.beats, loop.time()
        end = since + 10
        while loop.time() - since < 3 * WATCHDOG:
            assert loop.time() < end, "there is a sign of life again and again"
            await asyncio.sleep(0.01)
            if self.beats != beats:
                beats, since = self.beats, loop.time()

    def read(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self.messages.append(self._socket.recv(65536).decode())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield manager
    manager.close()


@pytest.fixture
def watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG * 1e6)))
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    monkeypatch.setattr(_systemd, "_LEEWAY", 0.1)


@pytest.fixture
async def server() -> AsyncIterator[ReverbServer]:
    async with ReverbServer() as server:
        yield server


@asynccontextmanager
async def listening(server: ReverbServer | ScriptedServer, **settings: Any) -> AsyncIterator[ReverbClient]:
    async with make_client(server, **{"reconnect_delay_max": 0.1, **settings}) as client:
        task = asyncio.ensure_future(client.listen())
        try:
            yield client
        finally:
            task.cancel()
            await asyncio.wait({task})


def address_of(server: ReverbServer | ScriptedServer) -> str:
    return f"{server.host}:{server.port}"


# --- what is told ----------------------------------------------------------------------------------------------


async def test_nothing_unless_asked(server: ReverbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(_systemd, "_send", lambda message: pytest.fail(f"said {message}"))
    async with listening(server) as client:
        server.drop()
        await until(lambda: not client.is_connected)
        await client.wait_connected(5)
        assert not _systemd._listeners


async def test_ready_lost_and_back_again(server: ReverbServer, manager: Manager) -> None:
    address = address_of(server)
    async with listening(server) as client:
        await manager.hear(f"READY=1\nSTATUS=connected to {address}")
        server.drop()
        await until(lambda: len(manager.told) == 3)
        assert client.is_connected
    assert manager.told == [
        f"READY=1\nSTATUS=connected to {address}",
        f"STATUS=connecting to {address}",
        f"READY=1\nSTATUS=connected to {address}",
        f"STATUS=disconnected from {address}",
    ]
    assert manager.beats == 0


async def test_channels_that_come_back_are_not_worth_a_word(server: ReverbServer, manager: Manager) -> None:
    address = address_of(server)
    async with listening(server) as client:
        for number in range(20):
            await client.subscribe(f"private-{number}")
        server.drop()
        await until(lambda: len(manager.told) == 3)
        await until(lambda: not client.stats.missing)
    assert [each for each in manager.told if "missing" in each] == []
    assert manager.told.count(f"READY=1\nSTATUS=connected to {address}") == 2


async def test_channels_that_are_missing(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_systemd, "_LOOK_INTERVAL", 0.02)
    refuse = True

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        while True:
            name = (await peer.expect("pusher:subscribe"))["data"]["channel"]
            if peer.number > 1 and name == "private-x" and refuse:
                await peer.send("pusher:subscription_error", {"error": "no", "status": 500}, name)
            else:
                await peer.confirm(name)

    async with ScriptedServer(script) as server, listening(server, reconnect_delay_min=0.05) as client:
        await asyncio.gather(client.subscribe("private-x"), client.subscribe("news"))
        server.peers[0].reset()
        await manager.hear(f"READY=1\nSTATUS=connected to {address_of(server)}, channels missing: 1")
        refuse = False
        back = f"READY=1\nSTATUS=connected to {address_of(server)}"
        await until(lambda: manager.told[-1] == back)
        assert client.stats.missing == 0
        assert server.connections == 2


async def test_nothing_before_there_is_a_connection(manager: Manager) -> None:
    client = ReverbClient(app_key="key", host="127.0.0.1", port=1, scheme="ws")
    with pytest.raises(ConnectionError):
        await client.listen()
    assert not any("READY" in message for message in manager.told)


async def test_unavailable(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_supervisor, "_UNAVAILABLE_AFTER", 0.05)
    async with ScriptedServer(once) as server, listening(server):
        await manager.hear(f"STATUS={address_of(server)} is unavailable, still connecting")


async def once(peer: Peer) -> None:
    """Accept the first connection, end it, and refuse all others."""
    if peer.number == 1:
        await peer.establish()
    else:
        await peer.refuse(503)


async def test_what_ends_it_for_good_is_told_in_one_line(manager: Manager) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.send("pusher:error", '{"code": 4001, "message": "gone\\nMAINPID=1\\nSTOPPING=1"}')
        await peer.close(4001)

    async with ScriptedServer(script) as server:
        client = ReverbClient(app_key="key", host=server.host, port=server.port, scheme="ws")
        async with client:
            with pytest.raises(ConnectionError):
                await client.listen()
    assert "\n" not in manager.told[-1]
    assert manager.told[-1].startswith(f"STATUS=lost the connection to {address_of(server)}")


async def test_an_abstract_socket(server: ReverbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has abstract sockets")
    name = f"python-reverb-test-{os.getpid()}"
    manager = Manager(b"\0" + name.encode())
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    async with listening(server):
        await manager.hear(f"READY=1\nSTATUS=connected to {address_of(server)}")
    manager.close()


async def test_a_manager_that_is_gone_is_no_harm(
    server: ReverbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    async with listening(server) as client:
        await until(lambda: "NOTIFY_SOCKET" in caplog.text)
        assert client.is_connected
    assert [each.levelno for each in caplog.records if each.name == "reverb.systemd"] == [logging.WARNING] * 2


# --- the watchdog ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("watchdog")
class TestWatchdog:
    async def test_signs_of_life(self, server: ReverbServer, manager: Manager) -> None:
        async with listening(server):
            await manager.beat()
            started = asyncio.get_running_loop().time()
            await manager.beat(4)
            assert asyncio.get_running_loop().time() - started > 3 * WATCHDOG / 2
        await manager.silence()

    @pytest.mark.parametrize(("variable", "value"), [("PID", "1"), ("USEC", "0"), ("USEC", "soon")])
    async def test_none_where_they_are_not_for_us(
        self, variable: str, value: str, server: ReverbServer, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"WATCHDOG_{variable}", value)
        async with listening(server):
            await manager.hear(f"READY=1\nSTATUS=connected to {address_of(server)}")
            await manager.silence()
            assert manager.beats == 0

    async def test_they_go_on_while_the_server_is_away(self, manager: Manager) -> None:
        async with ScriptedServer(once) as server, listening(server):
            await manager.hear(f"STATUS=connecting to {address_of(server)}")
            await manager.beat(10)
            assert server.connections > 2

    async def test_they_end_when_nobody_connects_again(
        self, server: ReverbServer, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def hang(*_: Any) -> None:
            await asyncio.Event().wait()

        async with listening(server, connect_timeout=0.1):
            await manager.beat()
            monkeypatch.setattr(Connection, "open", hang)
            server.drop()
            await manager.silence()

    async def test_handlers_that_take_long_are_no_reason(self, server: ReverbServer, manager: Manager) -> None:
        async with listening(server, drain_timeout=0.01) as client:
            stuck = asyncio.Event()
            (await client.subscribe("news")).bind("e", lambda *_: stuck.wait())
            await server.publish("news", "e", {})
            await manager.beat(6)

    async def test_they_end_when_nothing_is_read_or_handled_any_more(
        self, server: ReverbServer, manager: Manager
    ) -> None:
        async with listening(server, max_pending_bytes=15_000, drain_timeout=0.01) as client:
            stuck = asyncio.Event()
            (await client.subscribe("news")).bind("e", lambda *_: stuck.wait())
            await server.publish("news", "e", {})
            await manager.beat(3)
            for _ in range(2):
                await server.publish("news", "e", ["x" * 10_000])
            await manager.silence()
            stuck.set()
            await manager.beat(3)

    async def test_they_go_on_while_handlers_are_slow_but_get_on(
        self,
        server: ReverbServer,
        manager: Manager,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr("reverb._channels._SLOW_AFTER", WATCHDOG / 4)

        async def slow(event: str, data: Any, channel: str | None) -> None:
            await asyncio.sleep(WATCHDOG / 2)

        async with listening(server, max_pending_bytes=800, drain_timeout=0.01) as client:
            (await client.subscribe("news")).bind("e", slow)
            for _ in range(40):
                await server.publish("news", "e", {})
            await until(lambda: "stops reading" in caplog.text)
            await manager.beat(8)
            assert client.stats.queued

    async def test_one_of_several_that_hangs_silences_all(
        self, server: ReverbServer, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def hang(*_: Any) -> None:
            await asyncio.Event().wait()

        async with ReverbServer() as other:
            names = sorted([address_of(server), address_of(other)])
            async with listening(other), listening(server, connect_timeout=0.1):
                await until(lambda: any(all(name in each for name in names) for each in manager.told))
                await manager.beat(3)
                monkeypatch.setattr(Connection, "open", hang)
                server.drop()
                await manager.silence()
            assert manager.told[-1] == f"STATUS=disconnected from {address_of(other)}"


# --- several clients -------------------------------------------------------------------------------------------


async def test_several_clients_are_told_of_as_one(server: ReverbServer, manager: Manager) -> None:
    async with ReverbServer() as other:
        one, two = address_of(server), address_of(other)
        async with listening(server):
            await manager.hear(f"READY=1\nSTATUS=connected to {one}")
            async with listening(other, reconnect_delay_min=60, reconnect_delay_max=60):
                await manager.hear(f"READY=1\nSTATUS=connected to {one}, connected to {two}")
                other.drop()
                await manager.hear(f"STATUS=connected to {one}, connecting to {two}")
            await until(lambda: manager.told[-1] == f"READY=1\nSTATUS=connected to {one}")
        assert manager.told[-1] == f"STATUS=disconnected from {one}"
        assert not any("STOPPING" in message for message in manager.told)


# --- a program -------------------------------------------------------------------------------------------------

PROGRAM = """\
import asyncio
import signal
import time

from reverb import ReverbClient


async def main():
    async with ReverbClient() as client:
        channel = await client.subscribe("news")
        channel.bind("hang", lambda *_: time.sleep(60))
        listening = asyncio.ensure_future(client.listen())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, listening.cancel)
        await asyncio.wait({listening})


asyncio.run(main())
"""


async def test_a_program(server: ReverbServer, manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "listener.py").write_text(PROGRAM)
    env = {**server.env, "WATCHDOG_USEC": "200000"}
    async with run_module(module="listener", env=env, cwd=tmp_path) as command:
        await manager.hear(f"READY=1\nSTATUS=connected to {address_of(server)}")
        server.assert_subscribed("news")
        await manager.beat(3)
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0
        assert command.err.text == ""
    address = address_of(server)
    assert manager.told == [
        f"READY=1\nSTATUS=connected to {address}",
        f"STATUS=disconnected from {address}",
        "STOPPING=1",
    ]


async def test_a_program_whose_loop_hangs_gives_no_sign_of_life(
    server: ReverbServer, manager: Manager, tmp_path: Path
) -> None:
    (tmp_path / "listener.py").write_text(PROGRAM)
    env = {**server.env, "WATCHDOG_USEC": "200000"}
    async with run_module(module="listener", env=env, cwd=tmp_path):
        await manager.beat(3)
        await server.publish("news", "hang", {})
        await manager.silence()
