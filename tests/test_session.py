"""A session: subscribes, at the rate that the server allows, and waiting for its answers."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import pytest

from reverb import (
    AuthenticationError,
    ChannelAuth,
    ConnectionError,
    Events,
    ProtocolError,
    ReverbClient,
    SubscriptionError,
    TimeoutError,
    UserAuth,
    _session,
)
from reverb._backoff import Backoff
from reverb._protocol import Action

from .faults.proxy import FaultProxy, Link
from .scripted import TEXT, Peer, ScriptedServer, encode_frame, encode_message
from .test_rate_limit import FixedWindow
from .watching import client_tasks, turns, until, wait_turns

UNAUTHORIZED = r'{"code":4009,"message":"Connection is unauthorized"}'
INVALID = r'{"code":4200,"message":"Invalid message format"}'
RATE_LIMIT = r'{"code":4301,"message":"Rate limit exceeded"}'
QUOTA = r'{"code":4100,"message":"over the limit of channels"}'


def make_client(server: ScriptedServer | FaultProxy, **options: Any) -> ReverbClient:
    defaults: Any = {
        "app_key": "app-key",
        "app_secret": "app-secret",
        "host": server.host,
        "port": server.port,
        "scheme": "ws",
        "reconnect_delay_min": 0.02,
        "reconnect_delay_max": 0.1,
    }
    return ReverbClient(**{**defaults, **options})


@asynccontextmanager
async def connected(server: ScriptedServer | FaultProxy, **options: Any) -> AsyncIterator[ReverbClient]:
    async with make_client(server, **options) as client:
        yield client
    assert client_tasks() == set()


class Server:
    """PendingRequests pings and subscribes, each of these as ``answer`` says, and knows who is subscribed."""

    def __init__(self, answer: Callable[[Peer, str], Awaitable[object]] | None = None) -> None:
        self.asked: list[str] = []
        self.asked_on: Counter[int] = Counter()
        self.subscribed: set[str] = set()
        self._answer = answer or self.confirm

    async def confirm(self, peer: Peer, channel: str) -> None:
        self.subscribed.add(channel)
        await peer.confirm(channel)

    async def __call__(self, peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        self.subscribed.clear()
        while True:
            message = await peer.receive()
            data = message.get("data") or {}
            if message["event"] == "pusher:ping":
                await peer.send("pusher:pong")
            elif message["event"] == "pusher:unsubscribe":
                self.subscribed.discard(data["channel"])
            elif message["event"] == "pusher:subscribe":
                self.asked.append(data["channel"])
                self.asked_on[peer.number] += 1
                await self._answer(peer, data["channel"])
            elif message["event"] == "pusher:signin":
                self.asked.append("pusher:signin")
                await self._answer(peer, "pusher:signin")


class Errors:
    """What the handlers of ``"error"`` are told."""

    def __init__(self, client: ReverbClient) -> None:
        self.seen: list[BaseException] = []
        self.channels: list[str | None] = []
        client.bind("error", self._take)

    def _take(self, event: str, data: Any, channel: str | None) -> None:
        if event != Events.ERROR:  # the server's own words
            self.seen.append(data["exception"])
            self.channels.append(channel)


# --- asking ----------------------------------------------------------------------------------------------------


async def test_everything_wanted_is_asked_for_once_and_in_order_on_each_connection() -> None:
    server = Server()
    names = ["news", "private-a", "presence-room", "b"]
    async with ScriptedServer(server) as scripted, connected(scripted) as client:
        for name in names:
            await client.subscribe(name, {"user_id": "1"} if name.startswith("presence") else None)
        scripted.peers[0].reset()
        await until(lambda: server.asked_on[2] == len(names))
        assert server.asked == names * 2
        await until(lambda: all(channel.is_subscribed for channel in client.channels.values()))


async def test_connecting_returns_when_what_is_wanted_is_subscribed() -> None:
    gate = asyncio.Event()

    async def answer(peer: Peer, channel: str) -> None:
        if peer.number == 2:
            await gate.wait()
        await peer.confirm(channel)

    async with ScriptedServer(Server(answer)) as scripted:
        client = make_client(scripted)
        await client.connect()
        await client.subscribe("news")
        await client.disconnect()
        connecting = asyncio.ensure_future(client.connect())
        await until(lambda: client.is_connected)
        assert not connecting.done()
        gate.set()
        await connecting
        assert client.channels["news"].is_subscribed
        await client.disconnect()


async def test_the_authorizer_is_asked_for_few_at_a_time_and_not_for_those_who_left() -> None:
    gate = asyncio.Event()
    asked: list[str] = []
    running = most = 0

    async def authorize(socket_id: str, channel: str) -> ChannelAuth:
        nonlocal running, most
        asked.append(channel)
        running += 1
        most = max(most, running)
        try:
            await gate.wait()
        finally:
            running -= 1
        return ChannelAuth(f"{socket_id}:{channel}")

    server = Server()
    async with (
        ScriptedServer(server) as scripted,
        connected(scripted, authorizer=authorize, auth_concurrency=2) as client,
    ):
        subscribing = [asyncio.ensure_future(client.subscribe(f"private-{each}")) for each in range(6)]
        await until(lambda: len(asked) == 2)
        subscribing[0].cancel()
        subscribing[4].cancel()
        await until(lambda: len(asked) == 3)
        gate.set()
        await asyncio.gather(*subscribing, return_exceptions=True)
        assert most == 2
        assert "private-4" not in asked
        assert sorted(client.channels) == ["private-1", "private-2", "private-3", "private-5"]
        assert server.subscribed == set(client.channels)


async def test_authorizers_are_cancelled_with_the_connection_and_asked_again_on_the_next() -> None:
    ended: list[str] = []

    async def authorize(socket_id: str, channel: str) -> ChannelAuth:
        if socket_id == "1.1":
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(channel)
        return ChannelAuth(f"{socket_id}:{channel}")

    async with (
        ScriptedServer(Server()) as scripted,
        connected(scripted, authorizer=authorize, auth_concurrency=2) as client,
    ):
        subscribing = [asyncio.ensure_future(client.subscribe(f"private-{each}")) for each in range(4)]
        await wait_turns(20)
        scripted.peers[0].reset()
        await asyncio.wait_for(asyncio.gather(*subscribing), 5)
        assert len(ended) == 2


async def test_disconnecting_does_not_wait_for_an_authorizer_that_is_deaf() -> None:
    go_on = asyncio.Event()
    calls = 0

    async def authorize(socket_id: str, channel: str) -> ChannelAuth:
        nonlocal calls
        calls += 1
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()
        return ChannelAuth(f"{socket_id}:{channel}")

    async with ScriptedServer(Server()) as scripted:
        client = make_client(scripted, authorizer=authorize)
        await client.connect()
        subscribing = asyncio.ensure_future(client.subscribe("private-x"))
        await until(lambda: calls)
        since = monotonic()
        await client.disconnect()
        assert monotonic() - since < 3
        with pytest.raises(ConnectionError):
            await subscribing
        go_on.set()
        await until(lambda: client_tasks() == set())


async def test_a_caller_who_is_cancelled_at_each_turn_leaves_nothing_on_the_server() -> None:
    server = Server()
    async with ScriptedServer(server) as scripted, connected(scripted) as client:
        for number in turns():
            subscribing = asyncio.ensure_future(client.subscribe("news"))
            await wait_turns(number)
            subscribing.cancel()
            await asyncio.wait({subscribing})
            if not subscribing.cancelled():
                break
            assert client.channels == {}
            await client.ping()
            await client.ping()  # behind what the answer to the subscribe may have led to
            assert server.subscribed == set()
        assert server.subscribed == {"news"}


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["authorizer", "server", "rate limit"])
async def test_what_is_refused_for_a_passing_reason_is_tried_again_and_reported_once(reason: str) -> None:
    failures = 4

    async def authorize(socket_id: str, channel: str) -> ChannelAuth:
        nonlocal failures
        if socket_id == "1.2" and failures and reason == "authorizer":
            failures -= 1
            raise OSError("down")
        return ChannelAuth(f"{socket_id}:{channel}")

    async def answer(peer: Peer, channel: str) -> None:
        nonlocal failures
        if peer.number == 2 and failures and reason != "authorizer":
            failures -= 1
            await peer.send("pusher:error", RATE_LIMIT if reason == "rate limit" else QUOTA)
        else:
            await peer.confirm(channel)

    async with ScriptedServer(Server(answer)) as scripted, connected(scripted, authorizer=authorize) as client:
        errors = Errors(client)
        channel = await client.subscribe("private-x")
        scripted.peers[0].reset()
        await until(lambda: failures == 0)
        await until(lambda: channel.is_subscribed)
        assert scripted.connections == 2
        assert errors.channels.count("private-x") == 1
        assert len(errors.seen) == 1


async def test_the_delays_between_the_tries_grow_and_start_again_once_it_is_subscribed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[int] = []

    class Delays(Backoff):
        def delay(self, action: Action) -> float:
            attempts.append(self.attempts)
            return super().delay(action)

    monkeypatch.setattr(_session, "Backoff", Delays)

    async def answer(peer: Peer, channel: str) -> None:
        if len(attempts) < {1: 0, 2: 4, 3: 6}[peer.number]:
            await peer.send("pusher:error", QUOTA)
        else:
            await peer.confirm(channel)

    async with ScriptedServer(Server(answer)) as scripted, connected(scripted) as client:
        channel = await client.subscribe("news")
        for number in range(2):
            scripted.peers[number].reset()
            await until(lambda: not channel.is_subscribed)
            await until(lambda: channel.is_subscribed)
        assert attempts == [0, 1, 2, 3, 0, 1]


async def test_a_refusal_that_lasts_is_reported_and_asked_again_on_the_next_connection() -> None:
    async def answer(peer: Peer, channel: str) -> None:
        if peer.number == 2 and channel == "private-x":
            await peer.send("pusher:error", UNAUTHORIZED)
        else:
            await peer.confirm(channel)

    server = Server(answer)
    async with ScriptedServer(server) as scripted, connected(scripted) as client:
        errors = Errors(client)
        refused, other = await client.subscribe("private-x"), await client.subscribe("news")
        scripted.peers[0].reset()
        await until(lambda: scripted.connections == 2 and other.is_subscribed and errors.seen)
        await asyncio.sleep(0.3)  # in which a retry would come
        assert server.asked_on[2] == 2
        assert not refused.is_subscribed
        (error,) = errors.seen
        assert isinstance(error, AuthenticationError)
        scripted.peers[1].reset()
        await until(lambda: refused.is_subscribed)
        assert len(errors.seen) == 1


async def test_callers_get_a_refusal_and_nothing_is_tried_again_for_them() -> None:
    async def answer(peer: Peer, channel: str) -> None:
        await peer.send("pusher:error", QUOTA)

    server = Server(answer)
    async with ScriptedServer(server) as scripted, connected(scripted) as client:
        errors = Errors(client)
        with pytest.raises(SubscriptionError) as caught:
            await client.subscribe("news")
        assert caught.value.code == 4100
        await asyncio.sleep(0.3)  # in which a retry would come
        assert server.asked == ["news"]
        assert client.channels == {}
        assert errors.seen == []


async def test_a_channel_that_is_left_while_it_is_to_be_tried_again_is_not() -> None:
    async def answer(peer: Peer, channel: str) -> None:
        if peer.number == 2 and channel == "news":
            await peer.send("pusher:error", QUOTA)
        else:
            await peer.confirm(channel)

    server = Server(answer)
    options = {"reconnect_delay_min": 0.1, "reconnect_delay_max": 0.1}
    async with ScriptedServer(server) as scripted, connected(scripted, **options) as client:
        errors = Errors(client)
        await client.subscribe("news")
        scripted.peers[0].reset()
        await until(lambda: errors.channels.count("news"))
        await client.unsubscribe("news")
        asked = server.asked_on[2]
        await asyncio.sleep(0.3)  # in which a retry would come
        assert server.asked_on[2] == asked


async def test_a_refusal_as_invalid_is_undone_on_the_server() -> None:
    """Reverb says so, too, when another member lacks user_info, and counts us as a member all the same."""
    server: Server

    async def answer(peer: Peer, channel: str) -> None:
        server.subscribed.add(channel)
        await peer.send("pusher:error", INVALID)

    server = Server(answer)
    async with ScriptedServer(server) as scripted, connected(scripted) as client:
        with pytest.raises(SubscriptionError):
            await client.subscribe("presence-room", {"user_id": "1"})
        await client.ping()
        assert server.subscribed == set()


@pytest.mark.parametrize("wanted", [30])
async def test_a_rate_limit_is_met_once_and_everything_is_subscribed(wanted: int) -> None:
    limit = FixedWindow(10, 0.5)
    refused: list[float] = []

    async def answer(peer: Peer, channel: str) -> None:
        if peer.number == 1 or limit.takes(monotonic()):
            await peer.confirm(channel)
        else:
            refused.append(monotonic())
            await peer.send("pusher:error", RATE_LIMIT)

    options = {"reconnect_delay_min": 0.2, "reconnect_delay_max": 1.0}
    async with ScriptedServer(Server(answer)) as scripted, connected(scripted, **options) as client:
        channels = await asyncio.gather(*(client.subscribe(f"c{number}") for number in range(wanted)))
        scripted.peers[0].reset()
        await until(lambda: len(refused) >= wanted - limit.limit)
        met = monotonic()
        await until(lambda: all(channel.is_subscribed for channel in channels), 20)
        trials = [at for at in refused if at > met]
        assert len(trials) <= 3  # single ones, until one was taken
        assert scripted.connections == 2


# --- answers that do not come ----------------------------------------------------------------------------------


async def test_an_answer_that_comes_late_is_undone_when_nobody_waits_for_it_any_more() -> None:
    gate = asyncio.Event()
    server: Server

    async def answer(peer: Peer, channel: str) -> None:
        await gate.wait()
        await server.confirm(peer, channel)

    server = Server(answer)
    async with ScriptedServer(server) as scripted, connected(scripted, subscribe_timeout=0.1) as client:
        with pytest.raises(TimeoutError, match="REVERB_SUBSCRIBE_TIMEOUT"):
            await client.subscribe("news")
        gate.set()
        await client.ping()
        await client.ping()
        assert server.subscribed == set()
        assert await client.subscribe("news")
        assert server.subscribed == {"news"}


async def test_a_subscribe_that_is_never_answered_is_tried_again_behind_a_ping() -> None:
    async def answer(peer: Peer, channel: str) -> None:
        if peer.number != 2 or server.asked_on[2] > 1:
            await peer.confirm(channel)

    server = Server(answer)
    async with ScriptedServer(server) as scripted, connected(scripted, subscribe_timeout=0.1) as client:
        channel = await client.subscribe("news")
        scripted.peers[0].reset()
        await until(lambda: server.asked_on[2] == 2)
        await until(lambda: channel.is_subscribed)
        assert scripted.connections == 2


async def test_the_time_for_the_server_starts_when_the_authorizer_has_time() -> None:
    async def authorize(socket_id: str, channel: str) -> ChannelAuth:
        await asyncio.sleep(0.1)  # what is tested is time
        return ChannelAuth(f"{socket_id}:{channel}")

    options = {"authorizer": authorize, "auth_concurrency": 1, "subscribe_timeout": 0.3}
    async with ScriptedServer(Server()) as scripted, connected(scripted, **options) as client:
        channels = await asyncio.gather(*(client.subscribe(f"private-{number}") for number in range(6)))
        assert all(channel.is_subscribed for channel in channels)


async def test_who_waits_for_an_answer_is_told_when_the_connection_is_lost() -> None:
    async def authenticate(socket_id: str) -> UserAuth:
        return UserAuth("key:signature", '{"id":"1"}')

    async def script(peer: Peer) -> None:
        await peer.establish()
        if peer.number > 1:
            await peer.wait_closed()
            return
        await peer.expect("pusher:ping")
        await peer.expect("pusher:signin")
        peer.reset()

    class Authorizer:
        async def __call__(self, socket_id: str, channel: str) -> ChannelAuth:
            return ChannelAuth("key:signature")

        authenticate_user = staticmethod(authenticate)

    async with ScriptedServer(script) as scripted, connected(scripted, authorizer=Authorizer()) as client:
        pinging = asyncio.ensure_future(client.ping())
        await asyncio.sleep(0)
        signing = asyncio.ensure_future(client.signin())
        with pytest.raises(ConnectionError, match="before a ping was answered"):
            await asyncio.wait_for(pinging, 5)
        with pytest.raises(ConnectionError, match="while signing in"):
            await asyncio.wait_for(signing, 5)


async def test_pings_that_are_refused_or_not_answered() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:ping")
        await peer.send("pusher:error", RATE_LIMIT)
        await peer.expect("pusher:ping")
        await peer.wait_closed()

    async with ScriptedServer(script) as scripted, connected(scripted, pong_timeout=0.1) as client:
        with pytest.raises(ProtocolError, match="refused a ping") as caught:
            await client.ping()
        assert caught.value.code == 4301
        with pytest.raises(TimeoutError, match="REVERB_PONG_TIMEOUT"):
            await client.ping()


async def test_a_ping_whose_refusal_may_be_a_client_events_does_not_make_later_ones_fail() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="private-x")
        await peer.confirm("private-x")
        await peer.expect("client-status")
        await peer.send("pusher:error", RATE_LIMIT)
        await peer.expect("pusher:ping")
        await peer.send("pusher:error", RATE_LIMIT)
        while True:
            await peer.expect("pusher:ping")
            await peer.send("pusher:pong")

    async with ScriptedServer(script) as scripted, connected(scripted, pong_timeout=0.5) as client:
        private = await client.subscribe("private-x")
        await private.trigger("status", {})
        with pytest.raises(TimeoutError, match="REVERB_PONG_TIMEOUT"):
            await client.ping()
        for _ in range(2):
            await client.ping()


# --- signing in ------------------------------------------------------------------------------------------------


async def sign_in(peer: Peer, channel: str) -> None:
    if channel == "pusher:signin":
        await peer.send("pusher:signin_success", {"user_data": '{"id":"7"}'})
    else:
        await peer.confirm(channel)


async def test_signing_in_is_done_again_on_the_next_connection() -> None:
    server = Server(sign_in)
    async with ScriptedServer(server) as scripted, connected(scripted) as client:
        await client.signin({"id": "7"})
        assert client.user.is_signed_in
        scripted.peers[0].reset()
        await until(lambda: not client.user.is_signed_in)
        await until(lambda: client.user.is_signed_in)
        await until(lambda: server.asked == ["pusher:signin", "#server-to-user-7"] * 2)


async def test_signing_in_twice_at_once_is_one_after_the_other() -> None:
    server = Server(sign_in)
    async with ScriptedServer(server) as scripted, connected(scripted) as client:
        await asyncio.gather(*(client.signin({"id": "7"}) for _ in range(3)))
        assert server.asked.count("pusher:signin") == 3


async def test_signing_in_that_is_cancelled_at_each_turn_does_no_harm_to_others() -> None:
    async with ScriptedServer(Server(sign_in)) as scripted, connected(scripted) as client:
        for number in turns():
            first, second = (asyncio.ensure_future(client.signin({"id": "7"})) for _ in range(2))
            await wait_turns(number)
            first.cancel()
            await asyncio.wait_for(second, 5)
            await asyncio.wait({first})
            assert client.user.is_signed_in
            if not first.cancelled():
                break


async def test_a_user_who_can_not_be_signed_in_again_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(peer: Peer, channel: str) -> None:
        if channel == "pusher:signin" and peer.number == 2:
            await peer.send("pusher:error", UNAUTHORIZED)
        else:
            await sign_in(peer, channel)

    async with ScriptedServer(Server(answer)) as scripted, connected(scripted) as client:
        errors = Errors(client)
        await client.signin({"id": "7"})
        scripted.peers[0].reset()
        await until(lambda: any(isinstance(error, AuthenticationError) for error in errors.seen))
        assert not client.user.is_signed_in
        assert "the client tries again after the next reconnect" in caplog.text
        scripted.peers[1].reset()
        await until(lambda: client.user.is_signed_in)


# --- a dead server ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_paused", [False, True])
async def test_a_half_open_line_is_noticed_and_its_downtime_counts_from_the_last_message(is_paused: bool) -> None:
    """Also while handlers hang, so that reading is paused."""
    go_on = asyncio.Event()
    events: dict[str, float] = {}

    async def hang(event: str, data: Any, channel: str | None) -> None:
        await go_on.wait()

    def note(event: str, data: Any, channel: str | None) -> None:
        events[event] = data["downtime"]

    async def answer(peer: Peer, channel: str) -> None:
        await peer.confirm(channel)
        if is_paused and peer.number == 1 and channel == "busy":
            await peer.send_raw(encode_frame(TEXT, encode_message("e", "x" * 1500, "busy")) * 2)

    options = {"ping_interval": 0.3, "pong_timeout": 0.3, "max_pending_bytes": 1000}
    async with (
        ScriptedServer(Server(answer)) as scripted,
        FaultProxy(scripted.host, scripted.port) as proxy,
        connected(proxy, **options) as client,
    ):
        news = await client.subscribe("news")
        news.bind(Events.RESUBSCRIBED, note)
        client.bind(Events.RECONNECTED, note)
        busy = await client.subscribe("busy")
        busy.bind("e", hang)
        await client.ping()
        heard = monotonic()
        proxy.hit(Link.black_hole)
        await until(lambda: scripted.connections == 2)
        assert monotonic() - heard < 1.5
        back = monotonic()
        await until(lambda: len(events) == 2)
        for downtime in events.values():
            assert back - heard - 0.1 < downtime < monotonic() - heard + 0.1
            assert downtime > 0.55
        go_on.set()
        proxy.hit(lambda link: link.abort() if link.number == 1 else None)


async def test_a_restart_of_the_server_is_a_short_downtime_however_long_it_was_quiet() -> None:
    events: dict[str, float] = {}

    def note(event: str, data: Any, channel: str | None) -> None:
        events[event] = data["downtime"]

    async with ScriptedServer(Server()) as scripted, connected(scripted) as client:
        news = await client.subscribe("news")
        news.bind(Events.RESUBSCRIBED, note)
        client.bind(Events.RECONNECTED, note)
        await client.ping()
        await asyncio.sleep(0.4)  # what is tested is time
        await scripted.peers[0].close(1001)
        await until(lambda: len(events) == 2)
        assert max(events.values()) < 0.3


# --- reading at the pace of the handlers -----------------------------------------------------------------------


async def test_handlers_can_subscribe_and_ping_while_more_waits_than_is_read_for() -> None:
    """Else they would wait for an answer that nobody reads."""
    done: list[str] = []

    async def answer(peer: Peer, channel: str) -> None:
        await peer.confirm(channel)
        if channel == "busy":
            await peer.send_raw(encode_frame(TEXT, encode_message("e", "x" * 600, "busy")) * 5)

    async with ScriptedServer(Server(answer)) as scripted, connected(scripted, max_pending_bytes=1000) as client:

        async def handler(event: str, data: Any, channel: str | None) -> None:
            await client.subscribe(f"other-{len(done)}")
            await client.ping()
            done.append(event)

        busy = await client.subscribe("busy")
        busy.bind("e", handler)
        await until(lambda: len(done) == 5)
        assert len(client.channels) == 6


async def test_a_server_can_not_speak_for_the_client(caplog: pytest.LogCaptureFixture) -> None:
    """An application may publish anything; names with "reverb:" are what we ourselves have to say."""

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="news")
        await peer.confirm("news")
        for _ in range(2):
            await peer.send("reverb:resubscribed", '{"downtime":"soon"}', "news")
        await peer.send("e", "1", "news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        heard: list[str] = []
        (await client.subscribe("news")).bind("*", lambda event, data, channel: heard.append(event))
        await until(lambda: "e" in heard)
    assert heard == ["pusher_internal:subscription_succeeded", "e"]
    assert "skipped 'reverb:resubscribed'" in caplog.text


async def test_an_authorizer_that_was_never_ended_is_forgotten_with_its_client() -> None:
    """Who is asked for, and the task that waits for the authorizer, hold each other."""

    async def greet(peer: Peer) -> None:
        await peer.establish("1.1")
        await peer.receive()

    class Asked:
        """Kept by nobody but the authorizer's frame."""

    asked: list[weakref.ref[Asked]] = []

    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        kept = Asked()
        asked.append(weakref.ref(kept))
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()  # which nobody but its waiter knows

    async with ScriptedServer(greet) as server:
        client = make_client(server, authorizer=authorizer)
        await client.connect()
        asking = asyncio.ensure_future(client.subscribe("private-x"))
        await until(lambda: asked)
        asking.cancel()
        await asyncio.wait({asking})
        await client.disconnect()
    del asking, client
    gc.collect()
    assert [each() for each in asked] == [None]
