"""Reconnecting: when, how often, and when not."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from reverb import ConnectionError, ReverbConfig, ReverbError, TimeoutError
from reverb._connection import Connection
from reverb._protocol import Action, Message
from reverb._supervisor import Backoff, Supervisor

from .scripted import Peer, ScriptedServer
from .watching import client_tasks, until

# --- delays ----------------------------------------------------------------------------------------------------


def test_delays_lie_between_the_least_and_a_limit_that_doubles_up_to_the_most() -> None:
    for _ in range(200):
        backoff = Backoff(1.0, 30.0)
        delays = [backoff.delay(Action.BACK_OFF) for _ in range(100)]
        assert all(1.0 <= delay <= limit for delay, limit in zip(delays, [2, 4, 8, 16, 30, 30], strict=False))
        assert all(1.0 <= delay <= 30.0 for delay in delays)


def test_delays_are_spread_over_their_range() -> None:
    random.seed(1)
    delays = []
    for _ in range(1000):
        backoff = Backoff(1.0, 30.0)
        for _ in range(9):
            backoff.delay(Action.BACK_OFF)
        delays.append(backoff.delay(Action.BACK_OFF))
    tenths = [sum(1 + 2.9 * tenth <= delay < 3.9 + 2.9 * tenth for delay in delays) for tenth in range(10)]
    assert min(tenths) > 50


def test_delays_start_again_only_after_a_connection_that_lasted() -> None:
    backoff = Backoff(1.0, 8.0)
    for _ in range(10):
        backoff.delay(Action.BACK_OFF)
        backoff.lived(7.9)
    assert max(backoff.delay(Action.BACK_OFF) for _ in range(100)) > 4
    backoff.lived(8.0)
    assert backoff.delay(Action.BACK_OFF) <= 2


def test_a_retry_at_once_is_not_repeated_before_a_connection_lasted() -> None:
    backoff = Backoff(1.0, 8.0)
    assert backoff.delay(Action.RETRY_NOW) == 0
    assert backoff.delay(Action.RETRY_NOW) >= 1
    backoff.lived(1.0)
    assert backoff.delay(Action.RETRY_NOW) >= 1
    backoff.lived(8.0)
    assert backoff.delay(Action.RETRY_NOW) == 0


# --- the life of a connection ----------------------------------------------------------------------------------


class Session:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.error: ReverbError | None = None

    def _on_message(self, message: Message) -> None:
        self.notes.append(message.event)

    async def _on_connected(self, connection: Connection) -> None:
        self.notes.append(f"connected {connection.socket_id}")

    def _on_lost(self) -> None:
        self.notes.append("lost")

    def _on_failed(self, error: ReverbError) -> None:
        self.notes.append("failed")
        self.error = error


def supervise(server: ScriptedServer, **settings: Any) -> tuple[Supervisor, Session]:
    session = Session()
    defaults: Any = {
        "app_key": "key",
        "host": server.host,
        "port": server.port,
        "scheme": "ws",
        "reconnect_delay_min": 0.01,
        "reconnect_delay_max": 0.05,
    }
    return Supervisor(ReverbConfig(**{**defaults, **settings}), session), session


async def stay(peer: Peer) -> None:
    await peer.establish(f"1.{peer.number}")
    await peer.wait_closed()


async def test_starting_connects_and_stopping_closes() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, session = supervise(server)
        await supervisor.start(None)
        assert supervisor.is_running
        assert supervisor.connection is not None
        await supervisor.stop()
        await supervisor.wait_ended()
        assert not supervisor.is_running
        assert supervisor.connection is None
        assert session.notes == ["connected 1.1", "lost"]
        assert client_tasks() == set()


async def test_starting_twice_makes_one_connection() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, _session = supervise(server)
        await asyncio.gather(supervisor.start(None), supervisor.start(None))
        await supervisor.start(None)
        await supervisor.stop()
        assert server.connections == 1


async def test_the_first_attempt_is_the_only_one_and_its_failure_is_raised() -> None:
    async def script(peer: Peer) -> None:
        pass

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server)
        with pytest.raises(ConnectionError):
            await supervisor.start(None)
        with pytest.raises(ConnectionError):
            await supervisor.wait_ended()
        assert server.connections == 1
        assert session.notes == ["failed"]
        assert client_tasks() == set()


async def test_it_can_start_again_after_a_failure_and_after_a_stop() -> None:
    async def script(peer: Peer) -> None:
        if peer.number > 1:
            await stay(peer)

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server)
        with pytest.raises(ConnectionError):
            await supervisor.start(None)
        for _ in range(2):
            await supervisor.start(None)
            await supervisor.stop()
        await supervisor.wait_ended()
        assert session.notes == ["failed", "connected 1.2", "lost", "connected 1.3", "lost"]


async def test_waiting_for_the_end_of_what_never_started_is_an_error() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, _ = supervise(server)
        with pytest.raises(ConnectionError, match="connect"):
            await supervisor.wait_ended()
        await supervisor.stop()


@pytest.mark.parametrize("code", [None, 1000, 1001, 1009, 1011, 1012, 4100, 4200, 4201, 4300])
async def test_losses_that_are_made_good(code: int | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        if peer.number == 1 and code is not None:
            await peer.close(code)
        if peer.number > 1 or code is not None:
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server)
        await supervisor.start(None)
        await until(lambda: "connected 1.2" in session.notes)
        await supervisor.stop()
        assert session.notes == ["connected 1.1", "lost", "connected 1.2", "lost"]


async def test_a_server_that_is_away_for_a_while_is_tried_until_it_is_back() -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.establish("1.1")
        elif peer.number == 2:
            await peer.refuse(503)
        elif peer.number == 3:
            peer.reset()
        elif peer.number == 4:
            await peer.upgrade()
            await peer.send("pusher:error", '{"code":4100,"message":"over capacity"}')
        elif peer.number == 5:
            await peer.refuse(404)
        else:
            await stay(peer)

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server)
        await supervisor.start(None)
        await until(lambda: "connected 1.6" in session.notes)
        await supervisor.stop()
        assert server.connections == 6


@pytest.mark.parametrize("where", ["on the connection", "at the next attempt"])
async def test_a_loss_that_is_for_good(where: str) -> None:
    async def script(peer: Peer) -> None:
        if where == "on the connection":
            await peer.establish()
            await peer.close(4001)
            await peer.wait_closed()
        elif peer.number == 1:
            await peer.establish()
        else:
            await peer.upgrade()
            await peer.send("pusher:error", '{"code":4001,"message":"Application does not exist"}')
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server)
        await supervisor.start(None)
        with pytest.raises(ConnectionError) as caught:
            await asyncio.wait_for(supervisor.wait_ended(), 5)
        assert caught.value.code == 4001
        assert session.error is caught.value
        assert session.notes == ["connected 1.1", "lost", "failed"]
        assert server.connections == (1 if where == "on the connection" else 2)
        assert client_tasks() == set()


async def test_without_reconnecting_every_loss_is_for_good() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()

    async with ScriptedServer(script) as server:
        supervisor, _session = supervise(server, reconnect_enabled=False)
        await supervisor.start(None)
        with pytest.raises(ConnectionError, match="without a close frame"):
            await asyncio.wait_for(supervisor.wait_ended(), 5)
        assert server.connections == 1


async def test_a_server_that_accepts_and_drops_is_not_hammered() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()

    async with ScriptedServer(script) as server:
        supervisor, _ = supervise(server, reconnect_delay_min=0.1, reconnect_delay_max=10)
        started = asyncio.get_running_loop().time()
        await supervisor.start(None)
        await until(lambda: server.connections == 4)
        assert asyncio.get_running_loop().time() - started >= 0.3
        await supervisor.stop()


async def test_stopping_while_connecting() -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, _session = supervise(server)
        starting = asyncio.ensure_future(supervisor.start(None))
        await until(lambda: server.connections)
        await supervisor.stop()
        with pytest.raises(ConnectionError, match="disconnected"):
            await starting
        assert client_tasks() == set()


async def test_cancelling_the_start_stops() -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, _ = supervise(server)
        starting = asyncio.ensure_future(supervisor.start(None))
        await until(lambda: server.connections)
        starting.cancel()
        await asyncio.wait({starting})
        assert starting.cancelled()
        assert not supervisor.is_running
        assert client_tasks() == set()


async def test_stopping_while_backing_off() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server, reconnect_delay_min=100, reconnect_delay_max=100)
        await supervisor.start(None)
        await until(lambda: "lost" in session.notes)
        await asyncio.wait_for(supervisor.stop(), 5)
        await supervisor.wait_ended()
        assert client_tasks() == set()


async def test_waiting_for_the_end_can_be_cancelled_without_harm() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, _ = supervise(server)
        await supervisor.start(None)
        waiting = asyncio.ensure_future(supervisor.wait_ended())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert supervisor.connection is not None
        assert supervisor.connection.is_open
        await supervisor.stop()


async def test_a_timeout_at_the_first_attempt_is_a_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, _ = supervise(server, connect_timeout=0.1)
        with pytest.raises(TimeoutError):
            await supervisor.start(None)
