"""Faults that only a server can make: its errors, its silence, its garbage, its close codes, its HTTP statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest

from reverb import (
    AuthenticationError,
    ConnectionError,
    ConnectionState,
    Events,
    ProtocolError,
    ReverbClient,
    ReverbError,
    TimeoutError,
)
from tests.scripted import BINARY, CLOSE, PING, PONG, TEXT, Peer, ScriptedServer, encode_frame
from tests.watching import client_tasks, open_descriptors, until

from .scene import SETTINGS

Script = Callable[[Peer], Awaitable[None]]

SETTINGS = {**SETTINGS, "subscribe_timeout": 0.3}
NAMES = ("news", "private-orders", "presence-room")


def error(code: int, message: str) -> str:
    return f'{{"code":{code},"message":"{message}"}}'


UNAUTHORIZED = error(4009, "Connection is unauthorized")


async def serve(peer: Peer, refused: str | None = None) -> None:
    """Behave, until the client hangs up; refuse the channel ``refused``."""
    await peer.establish(f"1.{peer.number}")
    while True:
        message = await peer.receive()
        if message["event"] == "pusher:subscribe":
            channel = message["data"]["channel"]
            if channel == refused:
                await peer.send("pusher:error", UNAUTHORIZED)
            else:
                await peer.confirm(channel)
                await peer.send("numbered", f'{{"n":{peer.number}}}', channel)
        elif message["event"] == "pusher:ping":
            await peer.send("pusher:pong")


async def take_subscribes(peer: Peer) -> None:
    """Establish and confirm all of ``NAMES``."""
    await peer.establish(f"1.{peer.number}")
    for _ in NAMES:
        message = await peer.expect("pusher:subscribe")
        await peer.confirm(message["data"]["channel"])


def first(*scripts: Script) -> Callable[[Peer], Any]:
    """The first connections get a script each; all later ones a server that behaves."""

    async def script(peer: Peer) -> None:
        await (scripts[peer.number - 1] if peer.number <= len(scripts) else serve)(peer)

    return script


class Stage:
    """A client on a scripted server, and what it has heard."""

    def __init__(self, server: ScriptedServer, client: ReverbClient) -> None:
        self.server = server
        self.client = client
        self.reconnects: list[dict[str, Any]] = []
        self.events: list[str] = []
        self.errors: list[dict[str, Any]] = []
        client.bind(Events.RECONNECTED, lambda event, data, channel: self.reconnects.append(data))
        client.bind("numbered", lambda event, data, channel: self.events.append(f"{channel} {data['n']}"))
        client.bind(Events.CLIENT_ERROR, lambda event, data, channel: self.errors.append(data))

    async def subscribe(self) -> None:
        users = (None, None, {"user_id": "us"})
        await asyncio.gather(*map(self.client.subscribe, NAMES, users))

    async def check_alive(self, connection: int) -> None:
        """All channels are subscribed on connection number ``connection``, and its events arrive."""
        await until(lambda: self.client.socket_id == f"1.{connection}")
        await until(lambda: all(channel.is_subscribed for channel in self.client.channels.values()))
        await until(lambda: {f"{name} {connection}" for name in NAMES} <= set(self.events))
        assert set(self.client.channels) == set(NAMES)
        assert len(self.events) == len(set(self.events))
        assert self.server.connections == connection


@asynccontextmanager
async def stage(script: Callable[[Peer], Any], **options: Any) -> AsyncIterator[Stage]:
    before = open_descriptors()
    async with ScriptedServer(script) as server:
        settings: dict[str, Any] = {
            "app_key": "app-key",
            "app_secret": "app-secret",
            "host": server.host,
            "port": server.port,
            "scheme": "ws",
            **SETTINGS,
            **options,
        }
        client = ReverbClient(**settings)
        try:
            yield Stage(server, client)
        finally:
            await client.disconnect()
        assert client_tasks() == set()
    await until(lambda: open_descriptors() <= before)


# --- errors as messages ----------------------------------------------------------------------------------------


async def unknown_application(peer: Peer) -> None:
    await peer.upgrade()
    await peer.send("pusher:error", error(4001, "Application does not exist"))
    await peer.eof()
    await peer.wait_closed()


async def over_quota(peer: Peer) -> None:
    """Reverb says so and leaves the socket open."""
    await peer.upgrade()
    await peer.send("pusher:error", error(4004, "Application is over connection quota"))
    await peer.wait_closed()


async def foreign_origin(peer: Peer) -> None:
    await peer.upgrade()
    await peer.send("pusher:error", error(4009, "Origin not allowed"))
    await peer.wait_closed()


OVER_QUOTA = pytest.param(over_quota, 4004, "max_connections", id="4004-without-closing")
REFUSALS = [
    pytest.param(unknown_application, 4001, "REVERB_APP_KEY", id="4001-then-eof"),
    pytest.param(foreign_origin, 4009, "REVERB_ORIGIN", id="origin-4009-without-closing"),
]


@pytest.mark.parametrize(("refusal", "code", "hint"), [*REFUSALS, OVER_QUOTA])
async def test_a_refusal_at_the_first_connect_raises_at_once(refusal: Script, code: int, hint: str) -> None:
    async with stage(first(refusal), connect_timeout=5.0) as it:
        start = monotonic()
        with pytest.raises(ConnectionError, match=hint) as caught:
            await it.client.connect()
        assert caught.value.code == code
        assert monotonic() - start < 4  # and not when the time to connect is over
        assert it.client.state is ConnectionState.FAILED
        assert it.server.connections == 1


@pytest.mark.parametrize(("refusal", "code", "hint"), REFUSALS)
async def test_a_refusal_at_a_reconnect_ends_it(refusal: Script, code: int, hint: str) -> None:
    async with stage(first(take_subscribes, refusal)) as it:
        await it.client.connect()
        await it.subscribe()
        with pytest.raises(ConnectionError, match=hint) as caught:
            await asyncio.wait_for(it.client.listen(), 5)
        assert caught.value.code == code
        assert it.client.state is ConnectionState.FAILED
        assert it.server.connections == 2
        for late in (it.client.subscribe("late"), it.client.wait_connected(1)):
            with pytest.raises(ConnectionError):
                await late


async def test_over_quota_at_a_reconnect_is_ridden_out() -> None:
    """The server has not noticed yet that our last connection is gone, and counts it."""
    async with stage(first(take_subscribes, over_quota, over_quota)) as it:
        await it.client.connect()
        await it.subscribe()
        await it.check_alive(connection=4)
        await until(lambda: it.reconnects)
        assert [each["attempts"] for each in it.reconnects] == [3]


async def test_4009_in_the_middle_of_many_subscribes() -> None:
    """Each refusal hits its own channel, and nothing else is disturbed."""
    refused = {f"private-{number}" for number in (0, 7, 8, 29)}

    async def script(peer: Peer) -> None:
        await peer.establish()
        while True:
            message = await peer.receive()
            name = message["data"]["channel"]
            await (peer.send("pusher:error", UNAUTHORIZED) if name in refused else peer.confirm(name))

    async with stage(script, ping_interval=5) as it:
        await it.client.connect()
        names = [f"private-{number}" for number in range(30)]
        results = await asyncio.gather(*map(it.client.subscribe, names), return_exceptions=True)
        failed = {name for name, result in zip(names, results, strict=True) if isinstance(result, Exception)}
        assert failed == refused
        assert all(isinstance(each, AuthenticationError) for each in results if isinstance(each, Exception))
        assert set(it.client.channels) == set(names) - refused
        assert it.server.connections == 1


async def test_4009_in_the_middle_of_many_subscribes_at_a_reconnect() -> None:
    """What is refused is reported, is tried again at the next reconnect, and stops nothing else."""
    again = asyncio.Event()

    async def refuse_one(peer: Peer) -> None:
        serving = asyncio.ensure_future(serve(peer, refused="private-orders"))
        await again.wait()
        serving.cancel()

    async with stage(first(take_subscribes, refuse_one)) as it:
        await it.client.connect()
        await it.subscribe()
        await until(lambda: it.reconnects)
        assert [name for name, each in it.client.channels.items() if not each.is_subscribed] == ["private-orders"]
        await until(lambda: it.errors)
        assert [each["code"] for each in it.errors] == [4009]
        assert it.client.is_connected
        again.set()
        await until(lambda: len(it.reconnects) == 2)
        await it.check_alive(connection=3)


@pytest.mark.parametrize("code", [4009, 4200, 4301])
async def test_an_error_on_a_living_connection_is_no_reason_to_leave_it(code: int) -> None:
    async def script(peer: Peer) -> None:
        await take_subscribes(peer)
        await peer.send("pusher:error", error(code, "Whatever it was"))
        for name in NAMES:
            await peer.send("numbered", '{"n":1}', name)
        await peer.wait_closed()

    async with stage(script, ping_interval=5) as it:
        await it.client.connect()
        await it.subscribe()
        await it.check_alive(connection=1)


async def test_an_error_40xx_and_then_an_unrelated_end_of_stream_is_not_the_end() -> None:
    """4009 was about a message of ours; the application is there all the same."""

    async def script(peer: Peer) -> None:
        await take_subscribes(peer)
        await peer.send("pusher:error", error(4009, "The client is not a member of the specified channel."))

    async with stage(first(script)) as it:
        await it.client.connect()
        await it.subscribe()
        await it.check_alive(connection=2)


async def test_a_pruned_client_is_back_at_once() -> None:
    async def prune(peer: Peer) -> None:
        await take_subscribes(peer)
        await peer.send("pusher:error", error(4201, "Pong reply not received in time"))

    async with stage(first(prune), reconnect_delay_min=5.0, reconnect_delay_max=10.0) as it:
        await it.client.connect()
        await it.subscribe()
        await it.check_alive(connection=2)
        await until(lambda: it.reconnects)
        assert it.reconnects[0]["downtime"] < 4


# --- silence ---------------------------------------------------------------------------------------------------


async def no_answer(peer: Peer) -> None:
    await peer.read_request()
    await peer.wait_closed()


async def no_greeting(peer: Peer) -> None:
    await peer.upgrade()
    await peer.wait_closed()


@pytest.mark.parametrize("silence", [no_answer, no_greeting])
async def test_silence_in_the_handshake(silence: Script) -> None:
    async with stage(first(silence, take_subscribes, silence, silence)) as it:
        start = monotonic()
        with pytest.raises(TimeoutError, match="REVERB_CONNECT_TIMEOUT"):
            await it.client.connect()
        assert 0.29 < monotonic() - start < 4
        assert it.server.connections == 1
        await it.client.connect()
        await it.subscribe()
        await it.check_alive(connection=5)
        await until(lambda: it.reconnects)
        assert [each["attempts"] for each in it.reconnects] == [3]


async def test_a_greeting_that_is_none_and_what_comes_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    async def greet_nobody(peer: Peer) -> None:
        await peer.upgrade()
        texts = ('{"event":"pusher:connection_established"}', '{"event":"pusher:ping"}')
        await peer.send_raw(b"".join(encode_frame(TEXT, text) for text in texts))
        await peer.wait_closed()

    async with stage(first(greet_nobody)) as it:
        with pytest.raises(ProtocolError, match="without a valid socket_id"):
            await it.client.connect()
    check_log(caplog)


async def test_no_confirmation() -> None:
    async def confirm_nothing(peer: Peer) -> None:
        await peer.establish()
        while True:
            if (await peer.receive())["event"] == "pusher:ping":
                await peer.send("pusher:pong")

    async with stage(first(confirm_nothing)) as it:
        await it.client.connect()
        start = monotonic()
        with pytest.raises(TimeoutError, match="REVERB_SUBSCRIBE_TIMEOUT"):
            await it.client.subscribe("news")
        assert 0.29 < monotonic() - start < 4
        assert it.client.is_connected
        assert it.client.channels == {}


async def test_no_confirmation_after_a_reconnect() -> None:
    """The channel is reported once and not called subscribed, the rest is there; and it is asked for again."""
    forget = True

    async def forget_one(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        while True:
            message = await peer.receive()
            if message["event"] == "pusher:ping":
                await peer.send("pusher:pong")
            elif message["event"] == "pusher:subscribe" and not (forget and message["data"]["channel"] == "news"):
                await peer.confirm(message["data"]["channel"])
                await peer.send("numbered", f'{{"n":{peer.number}}}', message["data"]["channel"])

    async with stage(first(take_subscribes, forget_one)) as it:
        await it.client.connect()
        await it.subscribe()
        await until(lambda: it.reconnects)
        assert [name for name, each in it.client.channels.items() if not each.is_subscribed] == ["news"]
        await until(lambda: it.errors)
        assert [type(each["exception"]) for each in it.errors] == [TimeoutError]
        forget = False
        await it.check_alive(connection=2)
        assert len(it.errors) == 1


async def test_no_pong() -> None:
    async def answer_no_ping(peer: Peer) -> None:
        await take_subscribes(peer)
        await peer.wait_closed()

    async with stage(first(answer_no_ping, answer_no_ping)) as it:
        start = monotonic()
        await it.client.connect()
        await it.subscribe()
        await it.check_alive(connection=3)
        assert 0.59 < monotonic() - start < 5  # twice the ping interval and the patience for a pong


async def test_a_pause_that_begins_while_a_pong_is_awaited() -> None:
    """The pong is there, behind what we do not read for now."""
    paused, released = asyncio.Event(), asyncio.Event()

    async def flood(peer: Peer) -> None:
        await take_subscribes(peer)
        await peer.expect("pusher:ping")
        for number in range(10):
            await peer.send("slow", str(number), "news")
        await paused.wait()
        await peer.send("pusher:pong")
        for name in NAMES:
            await peer.send("numbered", '{"n":1}', name)
        while True:
            await peer.expect("pusher:ping")
            await peer.send("pusher:pong")

    async def handle(event: str, data: Any, channel: str | None) -> None:
        await released.wait()

    async with stage(flood, max_pending_bytes=2_000) as it:
        await it.client.connect()
        await it.subscribe()
        it.client.channels["news"].bind("slow", handle)
        await until(lambda: it.client.stats.queued >= 5)  # so many that reading is paused
        paused.set()
        await asyncio.sleep(0.5)  # much longer than a pong may take
        assert it.client.is_connected
        released.set()
        await it.check_alive(connection=1)


# --- garbage ---------------------------------------------------------------------------------------------------

GARBAGE = {
    "bytes": bytes(range(256)),
    "reserved-bits": b"\xf1\x01x",
    "unknown-opcode": b"\x83\x00",
    "text-that-is-not-utf-8": encode_frame(TEXT, b"\xff\xfe\xfd"),
    "no-json": encode_frame(TEXT, "hello?"),
    "json-of-another-kind": encode_frame(TEXT, "[1,2,3]") + encode_frame(TEXT, "null") + encode_frame(TEXT, "7"),
    "binary": encode_frame(BINARY, bytes(100)),
    "empty": encode_frame(TEXT, b"") + encode_frame(PING, b"") + encode_frame(PONG, b""),
    "wrong-types": encode_frame(TEXT, '{"event":7,"channel":[],"data":{}}'),
    "too-long": b"\x81\x7f" + (2**40).to_bytes(8, "big"),
    "negative-length": b"\x81\x7f" + b"\xff" * 8,
    "continuation-of-nothing": encode_frame(0, "x"),
    "fragmented-ping": encode_frame(PING, "x", fin=False),
    "long-ping": encode_frame(PING, bytes(200)),
    "close-without-code": encode_frame(CLOSE, b""),
    "close-with-half-a-code": encode_frame(CLOSE, b"\x03"),
    "close-with-code-0": encode_frame(CLOSE, b"\x00\x00"),
    "close-with-code-65535-and-no-utf-8": encode_frame(CLOSE, b"\xff\xff\xff\xff"),
    "http": b"HTTP/1.1 200 OK\r\n\r\n",
    "masked": b"\x81\x81abcdx",
    "deep": encode_frame(TEXT, "[" * 100_000),
}
garbage = pytest.mark.parametrize("rubbish", GARBAGE.values(), ids=GARBAGE)


@garbage
@pytest.mark.parametrize("when", ["http", "greeting", "subscribing", "subscribed"])
async def test_garbage(when: str, rubbish: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Skipped, or a reason to connect again; at the first connect it may raise. Nothing else can come of it."""

    async def talk_rubbish(peer: Peer) -> None:
        if when == "http":
            await peer.read_request()
        elif when == "greeting":
            await peer.upgrade()
        elif when == "subscribing":
            await peer.establish(f"1.{peer.number}")
            await peer.expect("pusher:subscribe")
        else:
            await take_subscribes(peer)
        await peer.send_raw(rubbish)
        if when == "greeting":
            await peer.send("pusher:connection_established", f'{{"socket_id":"1.{peer.number}"}}')
            await serve_on(peer)

    async def serve_on(peer: Peer) -> None:
        while True:
            message = await peer.receive()
            if message["event"] == "pusher:subscribe":
                await peer.confirm(message["data"]["channel"])
                await peer.send("numbered", f'{{"n":{peer.number}}}', message["data"]["channel"])
            elif message["event"] == "pusher:ping":
                await peer.send("pusher:pong")

    async with stage(first(talk_rubbish)) as it:
        try:
            await it.client.connect()
        except ReverbError:
            assert when in ("http", "greeting")
            await it.client.connect()
        await asyncio.wait_for(it.subscribe(), 5)
        # Only behind the greeting does the first connection go on after the garbage, if the client lets it.
        await it.check_alive(connection=it.server.connections if when == "greeting" else 2)
        assert it.server.connections <= 2
    check_log(caplog)


def check_log(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing that looks as if it had got out of hand."""
    for record in caplog.records:
        assert record.exc_info is None, record.getMessage()
        assert record.name.startswith("reverb"), record.getMessage()
        assert record.levelname != "ERROR" or "WS parser error" in record.getMessage(), record.getMessage()


# --- close codes -----------------------------------------------------------------------------------------------

AT_ONCE = [4200, 4201, 4202, 4299]
AFTER_BACKING_OFF = [
    None,
    1000,
    1001,
    1002,
    1003,
    1006,
    1008,
    1009,
    1011,
    1012,
    1013,
    3000,
    4004,
    4100,
    4199,
    4300,
    4999,
]
FINAL = [4000, 4001, 4009, 4099]


def closing(code: int | None) -> Script:
    async def script(peer: Peer) -> None:
        await take_subscribes(peer)
        if code is not None:
            await peer.close(code, "so it is")
            await peer.wait_closed()

    return script


@pytest.mark.parametrize("code", AFTER_BACKING_OFF)
async def test_codes_after_which_it_backs_off(code: int | None) -> None:
    async with stage(first(closing(code)), reconnect_delay_min=0.1, reconnect_delay_max=0.2) as it:
        await it.client.connect()
        await it.subscribe()
        await it.check_alive(connection=2)
        await until(lambda: it.reconnects)
        assert 0.09 < it.reconnects[0]["downtime"] < 4


@pytest.mark.parametrize("code", AT_ONCE)
async def test_codes_after_which_it_is_back_at_once_but_not_twice(code: int) -> None:
    settings = {"reconnect_delay_min": 0.5, "reconnect_delay_max": 10.0}
    async with stage(first(closing(code), closing(code)), **settings) as it:
        await it.client.connect()
        await it.subscribe()
        await until(lambda: len(it.reconnects) == 2)
        await it.check_alive(connection=3)
        at_once, later = (each["downtime"] for each in it.reconnects)
        assert at_once < 0.5 <= later


@pytest.mark.parametrize("code", FINAL)
async def test_codes_that_are_final(code: int) -> None:
    async with stage(first(closing(code))) as it:
        await it.client.connect()
        await it.subscribe()
        with pytest.raises(ConnectionError, match="so it is") as caught:
            await asyncio.wait_for(it.client.listen(), 5)
        assert caught.value.code == code
        assert it.client.state is ConnectionState.FAILED
        assert it.server.connections == 1


async def test_after_1009_the_error_names_the_last_message_and_the_setting() -> None:
    async def too_large(peer: Peer) -> None:
        await take_subscribes(peer)
        await peer.expect("client-novel")
        await peer.close(1009, "Maximum message size exceeded")
        await peer.wait_closed()

    async with stage(first(too_large), reconnect_enabled=False, ping_interval=5) as it:
        await it.client.connect()
        await it.subscribe()
        await it.client.channels["private-orders"].trigger("novel", ["x" * 5000])
        with pytest.raises(ConnectionError, match=r"client-novel.*REVERB_MAX_MESSAGE_SIZE") as caught:
            await asyncio.wait_for(it.client.listen(), 5)
        assert caught.value.code == 1009
        assert "xxxx" not in str(caught.value)


# --- backing off -----------------------------------------------------------------------------------------------


async def test_a_server_that_accepts_and_drops_sees_growing_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full jitter made none: each delay is the limit of its time."""
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    arrivals: list[float] = []

    async def drop(peer: Peer) -> None:
        arrivals.append(monotonic())
        await peer.establish()

    async with stage(drop, reconnect_delay_min=0.02, reconnect_delay_max=0.64) as it:
        await it.client.connect()
        await until(lambda: len(arrivals) >= 6)
    delays = [after - before for before, after in pairwise(arrivals)]
    for delay, planned in zip(delays[:5], (0.04, 0.08, 0.16, 0.32, 0.64), strict=True):
        assert delay > planned - 0.01
    assert it.client.state is ConnectionState.DISCONNECTED


async def test_attempts_can_be_limited() -> None:
    async def drop(peer: Peer) -> None:
        await peer.establish()

    async with stage(drop, reconnect_max_attempts=3) as it:
        await it.client.connect()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(it.client.listen(), 5)
        assert it.server.connections == 4
        assert it.client.state is ConnectionState.FAILED


# --- HTTP ------------------------------------------------------------------------------------------------------


def refusing(status: int) -> Script:
    async def script(peer: Peer) -> None:
        await peer.refuse(status, "not now")

    return script


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 426, 429, 500, 502, 503, 504])
async def test_an_http_status_at_the_first_connect_raises(status: int) -> None:
    async with stage(first(refusing(status))) as it:
        with pytest.raises(ConnectionError, match=f"{status}") as caught:
            await it.client.connect()
        assert caught.value.code == status
        is_final = status in (401, 403, 404)
        assert it.client.state is (ConnectionState.FAILED if is_final else ConnectionState.DISCONNECTED)
        assert it.server.connections == 1


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
async def test_an_http_status_at_a_reconnect_is_ridden_out(status: int) -> None:
    async with stage(first(take_subscribes, refusing(status), refusing(status))) as it:
        await it.client.connect()
        await it.subscribe()
        await it.check_alive(connection=4)
        await until(lambda: it.reconnects)
        assert [each["attempts"] for each in it.reconnects] == [3]
