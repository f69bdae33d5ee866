"""The life of the connection: connecting, staying connected, disconnecting, and callers who interfere with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, cast

import pytest

from reverb import ConnectionError, ConnectionState, ReverbConfig, ReverbError, TimeoutError, _supervisor
from reverb._connection import Connection, Traffic
from reverb._dispatch import Dispatcher, EventQueue
from reverb._protocol import Action, Message
from reverb._session import Session
from reverb._supervisor import Outage, Supervisor

from .faults.proxy import FaultProxy, Link
from .scripted import HungUpError, Peer, ScriptedServer
from .watching import client_tasks, turns, until, wait_turns


class FakeSession:
    """A connection on which everything is restored at once, or when a test says so."""

    def __init__(self, owner: Owner) -> None:
        self.connection = Connection(owner.config, owner.dispatcher, Traffic(), self._take, self._end)
        self.is_restored = False
        self.restore: Callable[[], None]
        self._owner = owner

    def start(self, on_restored: Callable[[], None]) -> None:
        def restore() -> None:
            self.is_restored = True
            on_restored()

        self._owner.notes.append(f"connected {self.connection.socket_id}")
        self.connection.send_silent(b'{"event":"client-hello"}')
        self.restore = restore
        if self._owner.restores:
            restore()

    def _take(self, message: Message, size: int) -> None:
        self._owner.messages.append(message.event)

    def _end(self) -> None:
        self._owner.notes.append("lost")


class Owner:
    """Writes down what it is told."""

    def __init__(self, config: ReverbConfig) -> None:
        self.config = config
        self.dispatcher = Dispatcher(1_000_000, lambda: None)
        self.restores = True
        self.sessions: list[FakeSession] = []
        self.notes: list[str] = []
        self.messages: list[str] = []
        self.states: list[str] = []
        self.outages: list[Outage] = []
        self.error: ReverbError | None = None
        self.closing: Callable[[], Awaitable[None]] | None = None
        self.closed = 0

    @property
    def connection(self) -> Connection:
        return self.sessions[-1].connection

    def began(self) -> None:
        pass

    def new_session(self) -> Session:
        self.sessions.append(FakeSession(self))
        return cast("Session", self.sessions[-1])

    def connected(self) -> None:
        pass

    def state_changed(self, previous: ConnectionState, current: ConnectionState) -> None:
        assert previous == (self.states[-1] if self.states else "initialized")
        self.states.append(str(current))

    def reconnected(self, outage: Outage) -> None:
        self.outages.append(outage)

    def ended(self, error: ReverbError, *, is_failure: bool) -> None:
        self.notes.append("failed" if is_failure else "disconnected")
        self.error = error

    async def close(self) -> None:
        if self.closing is not None:
            await self.closing()
        self.closed += 1


def supervise(server: ScriptedServer | FaultProxy, **settings: Any) -> tuple[Supervisor, Owner]:
    defaults: Any = {
        "app_key": "key",
        "host": server.host,
        "port": server.port,
        "scheme": "ws",
        "reconnect_delay_min": 0.01,
        "reconnect_delay_max": 0.05,
    }
    config = ReverbConfig(**{**defaults, **settings})
    owner = Owner(config)
    return Supervisor(config, owner.dispatcher, owner), owner


async def greet(peer: Peer) -> None:
    """Establish the connection, and wait until the client knows that."""
    await peer.establish(f"1.{peer.number}")
    await peer.expect("client-hello")


async def stay(peer: Peer) -> None:
    await greet(peer)
    await peer.wait_closed()


async def drop(peer: Peer) -> None:
    await greet(peer)


async def test_starting_connects_and_stopping_closes() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        assert supervisor.is_running
        assert owner.connection.is_open
        await supervisor.stop()
        await supervisor.wait_ended()
        assert not supervisor.is_running
        assert not owner.connection.is_open
        assert owner.notes == ["connected 1.1", "lost", "disconnected"]
        assert owner.closed == 1
        assert client_tasks() == set()


async def test_starting_twice_makes_one_connection() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, _ = supervise(server)
        await asyncio.gather(supervisor.start(None), supervisor.start(None))
        await supervisor.start(None)
        await supervisor.stop()
        assert server.connections == 1


async def test_the_first_attempt_is_the_only_one_and_its_failure_is_raised() -> None:
    async def script(peer: Peer) -> None:
        pass

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        with pytest.raises(ConnectionError):
            await supervisor.start(None)
        with pytest.raises(ConnectionError):
            await supervisor.wait_ended()
        assert server.connections == 1
        assert owner.notes == ["failed"]
        assert client_tasks() == set()


async def test_it_can_start_again_after_a_failure_and_after_a_stop() -> None:
    async def script(peer: Peer) -> None:
        if peer.number > 1:
            await stay(peer)

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        with pytest.raises(ConnectionError):
            await supervisor.start(None)
        for _ in range(2):
            await supervisor.start(None)
            await supervisor.stop()
        await supervisor.wait_ended()
        lives = ["connected 1.2", "lost", "disconnected", "connected 1.3", "lost", "disconnected"]
        assert owner.notes == ["failed", *lives]


async def test_waiting_for_the_end_of_what_never_started_is_an_error() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, _ = supervise(server)
        with pytest.raises(ConnectionError, match="connect"):
            await supervisor.wait_ended()
        await supervisor.stop()


@pytest.mark.parametrize("code", [None, 1000, 1001, 1009, 1011, 1012, 4100, 4200, 4201, 4300])
async def test_losses_that_are_made_good(code: int | None) -> None:
    async def script(peer: Peer) -> None:
        await greet(peer)
        if peer.number == 1 and code is not None:
            await peer.close(code)
        if peer.number > 1 or code is not None:
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        await until(lambda: "connected 1.2" in owner.notes)
        await supervisor.stop()
        assert owner.notes == ["connected 1.1", "lost", "connected 1.2", "lost", "disconnected"]


async def test_a_server_that_is_away_for_a_while_is_tried_until_it_is_back() -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await greet(peer)
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
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        await until(lambda: "connected 1.6" in owner.notes)
        await supervisor.stop()
        assert server.connections == 6


@pytest.mark.parametrize("where", ["on the connection", "at the next attempt"])
async def test_a_loss_that_is_for_good(where: str) -> None:
    async def script(peer: Peer) -> None:
        if where == "on the connection":
            await greet(peer)
            await peer.close(4001)
            await peer.wait_closed()
        elif peer.number == 1:
            await greet(peer)
        else:
            await peer.upgrade()
            await peer.send("pusher:error", '{"code":4001,"message":"Application does not exist"}')
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        with pytest.raises(ConnectionError) as caught:
            await asyncio.wait_for(supervisor.wait_ended(), 5)
        assert caught.value.code == 4001
        assert str(owner.error) == str(caught.value)
        assert owner.notes == ["connected 1.1", "lost", "failed"]
        assert server.connections == (1 if where == "on the connection" else 2)
        assert client_tasks() == set()


async def test_without_reconnecting_every_loss_is_for_good() -> None:
    async def script(peer: Peer) -> None:
        await greet(peer)

    async with ScriptedServer(script) as server:
        supervisor, _ = supervise(server, reconnect_enabled=False)
        await supervisor.start(None)
        with pytest.raises(ConnectionError, match="without a close frame"):
            await asyncio.wait_for(supervisor.wait_ended(), 5)
        assert server.connections == 1


async def test_a_server_that_accepts_and_drops_is_not_hammered() -> None:
    async with ScriptedServer(drop) as server:
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
        supervisor, _ = supervise(server)
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
        await greet(peer)

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server, reconnect_delay_min=100, reconnect_delay_max=100)
        await supervisor.start(None)
        await until(lambda: "lost" in owner.notes)
        await asyncio.wait_for(supervisor.stop(), 5)
        await supervisor.wait_ended()
        assert client_tasks() == set()


async def test_waiting_for_the_end_can_be_cancelled_without_harm() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        waiting = asyncio.ensure_future(supervisor.wait_ended())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert owner.connection.is_open
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
        await greet(peer)
        if peer.number == 2:
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        assert supervisor.state is ConnectionState.INITIALIZED
        await supervisor.start(None)
        await until(lambda: "connected 1.2" in owner.notes)
        await supervisor.stop()
        assert owner.states == ["connecting", "connected", "connecting", "connected", "disconnected"]


async def test_the_wait_before_an_attempt_is_no_time_of_being_connected() -> None:
    async with ScriptedServer(drop) as server:
        supervisor, owner = supervise(server, reconnect_delay_min=60, reconnect_delay_max=60)
        await supervisor.start(None)
        await until(lambda: owner.states[-1] == "connecting")
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
            await stay(peer) if peer.number > 1 else await greet(peer)
        else:
            await peer.refuse(503)

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        await until(lambda: supervisor.state is ConnectionState.UNAVAILABLE)
        attempts = server.connections
        await until(lambda: server.connections > attempts)
        assert supervisor.state is ConnectionState.UNAVAILABLE
        go_on.set()
        await supervisor.wait_connected(5)
        await supervisor.stop()
        assert owner.states == [
            "connecting",
            "connected",
            "connecting",
            "unavailable",
            "connected",
            "disconnected",
        ]


async def test_a_connection_that_ends_right_behind_its_greeting_was_none() -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.establish()
            await peer.close(1001)
        else:
            await stay(peer)

    async with ScriptedServer(script) as server, FaultProxy(server.host, server.port) as proxy:
        proxy.arm(partial(Link.merge, seconds=0.1))
        supervisor, owner = supervise(proxy)
        await supervisor.start(None)
        await supervisor.wait_connected(5)
        await supervisor.stop()
        assert owner.states == ["connecting", "connected", "disconnected"]
        assert owner.notes == ["lost", "connected 1.2", "lost", "disconnected"]


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
        supervisor, owner = supervise(server)
        with pytest.raises(ConnectionError):
            await supervisor.start(None)
        assert owner.states == ["connecting", state]


async def test_waiting_for_the_connection() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 2:
            await go_on.wait()
        await greet(peer)
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
            await greet(peer)
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
            await greet(peer)
        elif peer.number < 4:
            await peer.refuse(503)
        else:
            await stay(peer)

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        await until(lambda: "connected 1.5" in owner.notes)
        await supervisor.stop()
        assert [outage.attempts for outage in owner.outages] == [3, 1]
        assert supervisor.reconnects == 2


async def test_attempts_can_be_limited() -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await greet(peer)
        else:
            await peer.refuse(503)

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server, reconnect_max_attempts=3)
        await supervisor.start(None)
        with pytest.raises(ConnectionError, match="503"):
            await asyncio.wait_for(supervisor.wait_ended(), 5)
        assert server.connections == 4
        assert owner.states[-1] == "failed"


async def test_an_error_about_a_message_is_no_reason_to_give_up_when_the_server_goes_away_right_after_it() -> None:
    async def script(peer: Peer) -> None:
        await greet(peer)
        if peer.number == 1:
            await peer.send("pusher:error", '{"code":4009,"message":"Connection is unauthorized"}')
        else:
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        await until(lambda: "connected 1.2" in owner.notes)
        await supervisor.stop()


async def test_a_bug_of_ours_does_not_end_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode() -> Session:
        raise RuntimeError("boom")

    async with ScriptedServer(drop) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        monkeypatch.setattr(owner, "new_session", explode)
        with pytest.raises(ReverbError, match="boom"):
            await asyncio.wait_for(supervisor.wait_ended(), 5)
        assert supervisor.state is ConnectionState.FAILED
        assert "boom" in caplog.text
        assert client_tasks() == set()


async def test_a_bug_of_ours_while_disconnecting_is_logged_and_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    async def explode() -> None:
        raise RuntimeError("boom")

    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        owner.closing = explode
        await supervisor.stop()
        assert "internal error while disconnecting" in caplog.text
        assert supervisor.state is ConnectionState.DISCONNECTED
        owner.closing = None
        await supervisor.start(None)
        await supervisor.stop()


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


# --- callers who are cancelled, or come at the same time -------------------------------------------------------


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def is_closed(server: ScriptedServer, owner: Owner) -> None:
    """Check that no connection is left, on either side."""
    assert not any(session.connection.is_open for session in owner.sessions)
    await until(lambda: client_tasks() == set())


def open_connections(owner: Owner) -> int:
    return sum(session.connection.is_open for session in owner.sessions)


@pytest.mark.parametrize("who", ["the first", "the last", "all but one"])
async def test_starting_with_several_of_whom_some_are_cancelled(who: str) -> None:
    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        for number in turns():
            before = server.connections
            starting = [asyncio.ensure_future(supervisor.start(None)) for _ in range(3)]
            await wait_turns(number)
            was_done = starting[0].done()
            chosen = {"the first": starting[:1], "the last": starting[-1:], "all but one": starting[:-1]}[who]
            await cancel(*chosen)
            await asyncio.gather(*(each for each in starting if each not in chosen))
            assert supervisor.is_running
            assert owner.connection.is_open
            assert server.connections == before + 1
            await supervisor.stop()
            await is_closed(server, owner)
            if was_done:
                break


async def test_starting_with_several_who_are_all_cancelled_is_given_up() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        for number in turns():
            starting = [asyncio.ensure_future(supervisor.start(None)) for _ in range(3)]
            await wait_turns(number)
            done = [each for each in starting if each.done()]
            await cancel(*starting)
            if done:  # the connection was handed over
                assert owner.connection.is_open
                await supervisor.stop()
                break
            assert not supervisor.is_running
            assert supervisor.state in (ConnectionState.INITIALIZED, ConnectionState.DISCONNECTED)
            await is_closed(server, owner)
        await is_closed(server, owner)


async def test_who_starts_while_the_others_who_did_are_cancelled_is_not_affected() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        for number in turns():
            first = asyncio.ensure_future(supervisor.start(None))
            await wait_turns(number)
            was_done = first.done()
            first.cancel()
            await asyncio.wait_for(supervisor.start(None), 5)
            await asyncio.wait({first})
            assert supervisor.state is ConnectionState.CONNECTED
            assert open_connections(owner) == 1
            await supervisor.stop()
            await is_closed(server, owner)
            if was_done:
                break


async def test_starting_while_it_stops_waits_for_the_end() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        for number in turns():
            await supervisor.start(None)
            stopping = asyncio.ensure_future(supervisor.stop())
            await wait_turns(1 + number)
            was_done = stopping.done()
            await asyncio.wait_for(supervisor.start(None), 5)
            await stopping
            assert supervisor.is_running
            assert open_connections(owner) == 1
            await supervisor.stop()
            await is_closed(server, owner)
            if was_done:
                break


async def test_starting_while_it_stops_can_be_cancelled() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        for number in turns():
            await supervisor.start(None)
            stopping = asyncio.ensure_future(supervisor.stop())
            await asyncio.sleep(0)
            starting = asyncio.ensure_future(supervisor.start(None))
            await wait_turns(number)
            was_done = starting.done()
            await cancel(starting)
            await stopping
            if was_done:
                await supervisor.stop()
                break
            assert not supervisor.is_running
            await is_closed(server, owner)


@pytest.mark.parametrize("connects", [True, False])
async def test_stopping_at_each_turn_of_a_start(connects: bool) -> None:
    async def script(peer: Peer) -> None:
        if connects:
            await stay(peer)

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        for number in turns():
            starting = asyncio.ensure_future(supervisor.start(None))
            await wait_turns(number)
            was_done = starting.done()
            await supervisor.stop()
            with suppress(ConnectionError):
                await asyncio.wait_for(starting, 5)
            if number == 0:
                await supervisor.stop()
            assert not supervisor.is_running
            await is_closed(server, owner)
            if was_done:
                break


async def test_stopping_by_several_at_each_distance() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        for number in turns():
            await supervisor.start(None)
            first = asyncio.ensure_future(supervisor.stop())
            await wait_turns(number)
            was_done = first.done()
            await supervisor.stop()
            if number:
                assert owner.notes.count("disconnected") == len(owner.sessions)
            await first
            assert owner.notes[-3:] == [f"connected 1.{server.connections}", "lost", "disconnected"]
            await is_closed(server, owner)
            if was_done:
                break


@pytest.mark.parametrize("answers", [True, False])
async def test_stopping_that_is_cancelled_at_each_turn_goes_on_without_waiting(answers: bool) -> None:
    """It is over in a moment, be it that the server does not answer the close frame and handlers hang."""

    async def script(peer: Peer) -> None:
        await greet(peer)
        if answers:
            await peer.wait_closed()
        else:
            with suppress(HungUpError):
                while True:
                    await peer.receive_frame()

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        for number in (0, 1, 2, 3, 4, 5, 10, 20, 50, 100):
            await supervisor.start(None)
            stopping = asyncio.ensure_future(supervisor.stop())
            await wait_turns(number)
            since = monotonic()
            await cancel(stopping)
            if number == 0:  # it had not begun
                assert supervisor.is_running
                await cancel_after_a_turn(supervisor.stop())
            await until(lambda: client_tasks() == set(), 1.5)
            assert monotonic() - since < 1.5
            assert supervisor.state is ConnectionState.DISCONNECTED
            assert owner.closed == len(owner.sessions)
            await is_closed(server, owner)


async def cancel_after_a_turn(awaitable: Any) -> None:
    task = asyncio.ensure_future(awaitable)
    await asyncio.sleep(0)
    await cancel(task)


async def test_stopping_is_not_hurried_while_somebody_waits_for_it() -> None:
    said_goodbye = False

    async def script(peer: Peer) -> None:
        nonlocal said_goodbye
        await greet(peer)
        await peer.receive_frame()
        await asyncio.sleep(0.2)  # what is tested is time
        await peer.close(1000)
        with suppress(HungUpError):
            await peer.receive_frame()
        said_goodbye = True

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        first, second = (asyncio.ensure_future(supervisor.stop()) for _ in range(2))
        await asyncio.sleep(0)
        await cancel(first)
        since = monotonic()
        await second
        assert monotonic() - since > 0.15
        assert owner.notes[-1] == "disconnected"
    assert said_goodbye


async def test_starting_in_a_handler_that_the_end_waits_for_is_an_error() -> None:
    errors: list[BaseException] = []

    async def handler(event: str, data: Any, channel: str | None) -> None:
        await until(lambda: not supervisor.is_running)
        try:
            await supervisor.start(None)
        except ConnectionError as error:
            errors.append(error)

    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        queue = EventQueue(None, owner.dispatcher)
        queue.bind(("e",), handler)
        await supervisor.start(None)
        queue.put("e", None)
        await asyncio.wait_for(supervisor.stop(), 3)
        assert "from a handler" in str(errors[0])
        assert server.connections == 1


@pytest.mark.parametrize("number", [0, 1, 2, 5, None])
async def test_a_life_that_is_cancelled_from_outside_ends_and_says_so(number: int | None) -> None:
    """As when a program cancels all tasks there are."""
    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        starting = asyncio.ensure_future(supervisor.start(None))
        await asyncio.sleep(0)
        listening = asyncio.ensure_future(supervisor.wait_ended())
        waiting = asyncio.ensure_future(supervisor.wait_changed(5))
        if number is None:
            await starting
            waiting = asyncio.ensure_future(supervisor.wait_changed(5))
        await wait_turns(number or 1)
        await cancel(*(client_tasks() - {starting, listening, waiting}))
        if number is None:
            await starting
        else:
            with pytest.raises(ConnectionError, match="disconnected while connecting"):
                await asyncio.wait_for(starting, 5)
        await asyncio.wait_for(listening, 5)
        assert await waiting
        assert supervisor.state is ConnectionState.DISCONNECTED
        assert not supervisor.is_running
        assert owner.notes[-1] == "disconnected"
        assert "disconnected" in str(owner.error)
        with pytest.raises(ConnectionError, match="disconnected"):
            await supervisor.wait_connected(1)
        await is_closed(server, owner)
        await supervisor.start(None)
        await supervisor.stop()
        await is_closed(server, owner)


async def test_an_end_that_is_cancelled_from_outside_closes_all_the_same() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        for number in turns():
            await supervisor.start(None)
            stopping = asyncio.ensure_future(supervisor.stop())
            await wait_turns(2 + number)
            was_done = stopping.done()
            others = client_tasks() - {stopping}
            if others:
                await cancel(*others)
            await asyncio.wait_for(stopping, 5)
            assert supervisor.state is ConnectionState.DISCONNECTED
            assert owner.closed == len(owner.sessions)
            await is_closed(server, owner)
            if was_done:
                break


async def test_an_error_is_a_new_object_for_each_who_gets_it() -> None:
    async def script(peer: Peer) -> None:
        await greet(peer)
        await peer.close(4001)
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, _ = supervise(server)
        await supervisor.start(None)
        seen = set()
        for _ in range(20):
            with pytest.raises(ConnectionError) as caught:
                await asyncio.wait_for(supervisor.wait_ended(), 5)
            assert len(caught.traceback) < 10
            seen.add(id(caught.value))
            with pytest.raises(ConnectionError) as caught:
                await supervisor.wait_connected(1)
            assert len(caught.traceback) < 10


# --- delays ----------------------------------------------------------------------------------------------------


class Delays:
    """In place of the real ones: no delay, and a note of what was asked."""

    made: Delays

    def __init__(self, least: float, most: float) -> None:
        self.attempts = 0
        self.asked: list[Action] = []
        self.restarts = 0
        Delays.made = self

    def delay(self, action: Action) -> float:
        self.attempts += 1
        self.asked.append(action)
        return 0.0

    def restart(self) -> None:
        self.restarts += 1


@pytest.mark.parametrize(
    ("lasted", "restores", "good"), [(True, True, True), (False, True, False), (True, False, False)]
)
async def test_delays_start_again_after_a_connection_that_lasted_and_on_which_all_was_answered(
    monkeypatch: pytest.MonkeyPatch, lasted: bool, restores: bool, good: bool
) -> None:
    monkeypatch.setattr(_supervisor, "Backoff", Delays)
    monkeypatch.setattr(_supervisor, "_GOOD_AFTER", 0.1)

    async def script(peer: Peer) -> None:
        await greet(peer)
        if peer.number == 2 and lasted:
            await asyncio.sleep(0.2)
        elif peer.number > 2:
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        owner.restores = restores
        before = Delays.made.restarts
        await until(lambda: "connected 1.3" in owner.notes)
        assert Delays.made.restarts - before == good
        await supervisor.stop()


async def test_how_long_a_dead_line_took_to_be_noticed_does_not_count_as_its_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_supervisor, "Backoff", Delays)
    monkeypatch.setattr(_supervisor, "_GOOD_AFTER", 0.3)

    async def script(peer: Peer) -> None:
        await greet(peer)
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server, ping_interval=0.3, pong_timeout=0.3)
        await supervisor.start(None)
        before = Delays.made.restarts
        await until(lambda: "connected 1.2" in owner.notes)
        assert Delays.made.restarts == before
        await supervisor.stop()


async def test_the_time_of_an_outage_counts_from_the_last_sign_of_life() -> None:
    async with ScriptedServer(stay) as server, FaultProxy(server.host, server.port) as proxy:
        supervisor, owner = supervise(proxy, ping_interval=0.3, pong_timeout=0.3)
        await supervisor.start(None)
        heard = monotonic()
        proxy.hit(Link.black_hole)
        await until(lambda: owner.outages)
        (outage,) = owner.outages
        assert outage.since <= heard
        assert monotonic() - outage.since >= 0.55
        await supervisor.stop()
        proxy.hit(Link.abort)


async def test_an_outage_goes_on_until_everything_is_restored() -> None:
    async def script(peer: Peer) -> None:
        await greet(peer)
        if peer.number == 3:
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        await supervisor.start(None)
        lost = monotonic()
        owner.restores = False
        await until(lambda: "connected 1.3" in owner.notes)
        assert owner.outages == []
        assert supervisor.attempts == 2
        owner.sessions[-1].restore()
        (outage,) = owner.outages
        assert outage.attempts == 2
        assert abs(outage.since - lost) < 0.5
        assert supervisor.attempts == 0
        await supervisor.stop()


async def test_starting_returns_when_everything_is_restored_or_the_connection_is_lost() -> None:
    async with ScriptedServer(stay) as server:
        supervisor, owner = supervise(server)
        owner.restores = False
        starting = asyncio.ensure_future(supervisor.start(None))
        await until(lambda: owner.notes == ["connected 1.1"])
        assert supervisor.state is ConnectionState.CONNECTED
        assert not starting.done()
        owner.sessions[-1].restore()
        await asyncio.wait_for(starting, 5)
        await supervisor.stop()
        starting = asyncio.ensure_future(supervisor.start(None))
        await until(lambda: "connected 1.2" in owner.notes)
        server.peers[-1].reset()
        await asyncio.wait_for(starting, 5)
        assert supervisor.is_running
        await supervisor.stop()


@pytest.mark.parametrize("over_quota", [1, 2, 3])
async def test_over_quota_is_for_good_at_the_first_attempt_and_waited_for_later(over_quota: int) -> None:
    """A server that has not noticed the end of our last connection still counts that."""

    async def script(peer: Peer) -> None:
        if peer.number == over_quota or 1 < peer.number < over_quota:
            await peer.upgrade()
            await peer.send("pusher:error", {"code": 4004, "message": "Application is over connection quota"})
            await peer.wait_closed()
        elif peer.number < over_quota:
            await drop(peer)
        else:
            await stay(peer)

    async with ScriptedServer(script) as server:
        supervisor, owner = supervise(server)
        if over_quota == 1:
            with pytest.raises(ConnectionError) as caught:
                await supervisor.start(None)
            assert caught.value.code == 4004
            assert supervisor.state is ConnectionState.FAILED
        else:
            await supervisor.start(None)
            await until(lambda: f"connected 1.{over_quota + 1}" in owner.notes)
            await supervisor.stop()
