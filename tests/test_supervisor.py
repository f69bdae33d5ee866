"""Reconnecting: when, how often, and when not."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from reverb import ConnectionError, ConnectionState, ReverbConfig, ReverbError, TimeoutError, _supervisor
from reverb._connection import Connection
from reverb._dispatch import Dispatcher
from reverb._protocol import Action, Message
from reverb._supervisor import Backoff, Outage, Supervisor

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
        self._dispatcher = Dispatcher(1_000, 1_000_000, lambda: None)
        self.notes: list[str] = []
        self.error: ReverbError | None = None

        self.states: list[str] = []
        self.outages: list[Outage | None] = []

    def _on_state_change(self, previous: ConnectionState, current: ConnectionState) -> None:
        assert previous == (self.states[-1] if self.states else "initialized")
        self.states.append(str(current))

    def _on_message(self, message: Message, size: int) -> None:
        self.notes.append(message.event)

    async def _on_connected(self, connection: Connection, outage: Outage | None) -> None:
        self.notes.append(f"connected {connection.socket_id}")
        self.outages.append(outage)

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


# --- states ----------------------------------------------------------------------------------------------------


async def test_the_states_of_an_ordinary_life() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        if peer.number == 2:
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server)
        assert supervisor.state is ConnectionState.INITIALIZED
        await supervisor.start(None)
        await until(lambda: "connected 1.2" in session.notes)
        await supervisor.stop()
        assert session.states == ["connecting", "connected", "connecting", "connected", "disconnected"]


async def test_the_wait_before_an_attempt_is_no_time_of_being_connected() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, session = supervise(server, reconnect_delay_min=60, reconnect_delay_max=60)
        await supervisor.start(None)
        assert supervisor.connection is not None
        supervisor.connection._abandon("as if it were lost")
        await until(lambda: session.states[-1] == "connecting")
        assert server.connections == 1
        with pytest.raises(TimeoutError):
            await supervisor.wait_connected(0.01)
        await supervisor.stop()


async def test_a_connection_that_does_not_come_back_is_unavailable_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_supervisor, "_UNAVAILABLE_AFTER", 0.1)
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 1 or go_on.is_set():
            await stay(peer) if peer.number > 1 else await peer.establish()
        else:
            await peer.refuse(503)

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server)
        await supervisor.start(None)
        await until(lambda: supervisor.state is ConnectionState.UNAVAILABLE)
        attempts = server.connections
        await until(lambda: server.connections > attempts)
        assert supervisor.state is ConnectionState.UNAVAILABLE
        go_on.set()
        await supervisor.wait_connected(5)
        await supervisor.stop()
        assert session.states == [
            "connecting",
            "connected",
            "connecting",
            "unavailable",
            "connected",
            "disconnected",
        ]


@pytest.mark.parametrize(("refusal", "state"), [(4001, "failed"), (404, "failed"), (503, "disconnected")])
async def test_the_state_after_a_first_attempt_that_failed(refusal: int, state: str) -> None:
    async def script(peer: Peer) -> None:
        if refusal < 1000:
            await peer.refuse(refusal)
        else:
            await peer.upgrade()
            await peer.send("pusher:error", {"code": refusal, "message": "no"})
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server)
        with pytest.raises(ConnectionError):
            await supervisor.start(None)
        assert session.states == ["connecting", state]


async def test_waiting_for_the_connection() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 2:
            await go_on.wait()
        await peer.establish()
        if peer.number == 2:
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, _ = supervise(server)
        with pytest.raises(ConnectionError, match="initialized"):
            await supervisor.wait_connected(1)
        await supervisor.start(None)
        await supervisor.wait_connected(None)
        await until(lambda: server.connections == 2)
        with pytest.raises(TimeoutError, match=r"0\.05 seconds"):
            await supervisor.wait_connected(0.05)
        waiting = [asyncio.ensure_future(supervisor.wait_connected(5)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting.pop().cancel()
        go_on.set()
        await asyncio.gather(*waiting)
        await supervisor.stop()
        with pytest.raises(ConnectionError, match="disconnected"):
            await supervisor.wait_connected(1)


async def test_waiting_for_a_connection_that_fails_raises_the_reason() -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.establish()
        else:
            await peer.upgrade()
            await peer.send("pusher:error", {"code": 4001, "message": "no"})
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, _ = supervise(server)
        await supervisor.start(None)
        await until(lambda: supervisor.state is not ConnectionState.CONNECTED)
        with pytest.raises(ConnectionError) as caught:
            await supervisor.wait_connected(5)
        assert caught.value.code == 4001


async def test_an_outage_is_told_with_its_attempts_once_everything_is_back() -> None:
    async def script(peer: Peer) -> None:
        if peer.number in (1, 4):
            await peer.establish(f"1.{peer.number}")
        elif peer.number < 4:
            await peer.refuse(503)
        else:
            await stay(peer)

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server)
        await supervisor.start(None)
        await until(lambda: "connected 1.5" in session.notes)
        await supervisor.stop()
        first, second, third = session.outages
        assert first is None
        assert second is not None
        assert second.attempts == 3
        assert third is not None
        assert third.attempts == 1


async def test_attempts_can_be_limited() -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.establish()
        else:
            await peer.refuse(503)

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server, reconnect_max_attempts=3)
        await supervisor.start(None)
        with pytest.raises(ConnectionError, match="503"):
            await asyncio.wait_for(supervisor.wait_ended(), 5)
        assert server.connections == 4
        assert session.states[-1] == "failed"


async def test_an_error_about_a_message_is_no_reason_to_give_up_when_the_server_goes_away_right_after_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        if peer.number == 1:
            await peer.send("pusher:error", '{"code":4009,"message":"Connection is unauthorized"}')
        else:
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server)
        await supervisor.start(None)
        await until(lambda: "connected 1.2" in session.notes)
        await supervisor.stop()


async def test_a_bug_of_ours_does_not_end_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()

    def explode() -> None:
        raise RuntimeError("boom")

    async with ScriptedServer(script) as server:
        supervisor, session = supervise(server)
        monkeypatch.setattr(session, "_on_lost", explode)
        await supervisor.start(None)
        with pytest.raises(ReverbError, match="boom"):
            await asyncio.wait_for(supervisor.wait_ended(), 5)
        assert supervisor.state is ConnectionState.FAILED
        assert "boom" in caplog.text


async def test_stopping_before_the_first_step() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, _ = supervise(server)
        starting = asyncio.ensure_future(supervisor.start(None))
        await asyncio.sleep(0)  # the supervisor's task exists, and has not begun
        await supervisor.stop()
        with pytest.raises(ConnectionError, match="disconnected"):
            await asyncio.wait_for(starting, 5)
        await supervisor.start(None)
        await supervisor.stop()


async def test_starting_while_it_stops_waits_for_the_end() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, session = supervise(server)
        await supervisor.start(None)
        stopping = asyncio.ensure_future(supervisor.stop())
        await asyncio.sleep(0)
        await supervisor.start(None)
        await stopping
        assert supervisor.connection is not None
        assert session.notes == ["connected 1.1", "lost", "connected 1.2"]
        await supervisor.stop()
