"""What tests do with a server: publish, wait, assert, and have it misbehave. Asynchronously, and from threads."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from reverb import ConnectionError, Events, ReverbClient
from reverb.exceptions import AuthenticationError
from reverb.exceptions import TimeoutError as ReverbTimeoutError
from reverb.server import App, BlockingServer, Entry, RateLimiting, ReverbServer
from tests.loops import every_loop
from tests.server.clients import CLOSE, UNAUTHORIZED, Client, Clients, call, error
from tests.test_dispatch import Recorder
from tests.watching import until


@pytest.fixture
async def client(server: ReverbServer) -> AsyncIterator[ReverbClient]:
    async with ReverbClient(**server.settings) as client:
        yield client


class TestPublishing:
    async def test_to_a_channel(self, server: ReverbServer, clients: Clients) -> None:
        raw = await clients.open(server)
        await raw.joined("news")
        await server.publish("news", "App\\Events\\Published", {"title": "Zoë/"})
        data = r'"{\"title\":\"Zo\\u00eb\\\/\"}"'
        assert await raw.text() == rf'{{"event":"App\\Events\\Published","data":{data},"channel":"news"}}'
        await server.publish(["news", "nobody"], "text", "as it is")
        assert await raw.text() == '{"event":"text","data":"as it is","channel":"news"}'

    async def test_from_another_event_loop(self, client: ReverbClient, server: ReverbServer) -> None:
        received = Recorder()
        (await client.subscribe("news")).bind("e", received)
        await asyncio.to_thread(lambda: asyncio.run(server.publish("news", "e", 1)))
        assert await received.wait_for(1) == [("e", 1, "news")]


class TestKnowing:
    async def test_events(self, client: ReverbClient, server: ReverbServer) -> None:
        channel = await client.subscribe("presence-x", user_data={"user_id": "7", "user_info": {}})
        await server.publish("presence-x", "published", {"a": 1})
        await channel.trigger("status", {"cpu": 45.2, "e": {}})
        triggered = await server.wait_for_event("presence-x", "client-status")
        assert (triggered.data, triggered.user_id) == ({"cpu": 45.2, "e": {}}, "7")
        assert (triggered.socket_id, triggered.triggered) == (client.socket_id, True)
        published, again = server.events
        assert again is triggered
        assert (published.channel, published.name, published.data) == ("presence-x", "published", {"a": 1})
        assert not published.triggered

    @every_loop
    async def test_each_event_is_waited_for_once(self, server: ReverbServer) -> None:
        for number in (1, 2):
            await server.publish("x", "e", number)
            await server.publish("x", "other", number)
        assert [(await server.wait_for_event("x", "e")).data for _ in range(2)] == [1, 2]
        with pytest.raises(TimeoutError):
            await server.wait_for_event("x", "e", timeout=0.01)
        waiting = asyncio.ensure_future(server.wait_for_event("x", "e"))
        await asyncio.sleep(0)
        await server.publish("x", "e", 3)
        assert (await waiting).data == 3

    async def test_events_of_the_http_api(self, server: ReverbServer) -> None:
        await call(server, "POST", "/events", {"name": "e", "channel": "x", "data": "text"})
        server.assert_published("x", "e", "text")

    async def test_who_is_left_out(self, client: ReverbClient, server: ReverbServer) -> None:
        """Whether or not that connection exists."""
        await client.subscribe("x")
        event = {"name": "e", "channel": "x", "data": "text"}
        for socket_id in (client.socket_id, "1.2"):
            await call(server, "POST", "/events", {**event, "socket_id": socket_id})
        await call(server, "POST", "/batch_events", {"batch": [{**event, "socket_id": "3.4"}, event]})
        assert [each.excluded for each in server.events] == [client.socket_id, "1.2", "3.4", None]

    async def test_connections_and_subscriptions(self, client: ReverbClient, server: ReverbServer) -> None:
        await server.wait_for_connections(1)
        await client.subscribe("news")
        (connection,) = server.connections
        assert connection.channels == ["news"]
        assert server.subscriptions == {"news": [client.socket_id]}
        await client.disconnect()
        await server.wait_for_connections(0)
        assert server.connections == []
        assert server.subscriptions == {}

    async def test_waiting_tells_what_happened(self, client: ReverbClient, server: ReverbServer) -> None:
        await client.subscribe("news")
        await server.publish("news", "e", {"a": 1})
        with pytest.raises(TimeoutError) as raised:
            await server.wait_for_subscription("private-orders", timeout=0.05)
        lines = str(raised.value).splitlines()
        assert lines[0] == "nobody subscribed to private-orders within 0.05 seconds. What happened:"
        assert [re.split("  +", line)[1:] for line in lines[1:]] == [
            [client.socket_id, "connected"],
            [client.socket_id, "subscribed to news"],
            ["-", "published e on news: {'a': 1}"],
        ]

    @every_loop
    async def test_waiting_when_nothing_happened(self, server: ReverbServer) -> None:
        with pytest.raises(TimeoutError, match=r"not 2 connections within 0\.01 seconds\. Nothing happened"):
            await server.wait_for_connections(2, timeout=0.01)
        with pytest.raises(TimeoutError, match="no e on x within"):
            await server.wait_for_event("x", "e", timeout=0.01)

    async def test_refusals_are_told(self, server: ReverbServer) -> None:
        with pytest.raises(AuthenticationError):
            async with ReverbClient(**{**server.settings, "app_secret": "wrong"}) as client:
                await client.subscribe("private-x")
        assert "was refused private-x" in server.report()
        assert "app-secret" not in server.report()

    async def test_watching(self, server: ReverbServer, client: ReverbClient) -> None:
        seen: list[Entry] = []
        server.watch(seen.append)
        await client.subscribe("news")
        await server.publish("news", "e", 1)
        assert [entry.text for entry in seen] == ["subscribed to news", "published e on news: 1"]
        assert [entry.event for entry in seen] == [None, server.events[0]]


class TestAssertions:
    @pytest.fixture(autouse=True)
    async def _events(self, client: ReverbClient, server: ReverbServer) -> None:
        channel = await client.subscribe("private-x")
        await channel.trigger("status", {"cpu": 45.2})
        await server.wait_for_event("private-x", "client-status")
        await server.publish("news", "e", {"a": 1})

    async def test_what_is_so(self, server: ReverbServer) -> None:
        server.assert_triggered("private-x", "client-status", {"cpu": 45.2})
        server.assert_triggered("private-x", "client-status")
        server.assert_not_triggered("private-x", "client-other")
        server.assert_not_triggered("news", "e")
        server.assert_published("news", "e", {"a": 1})
        server.assert_subscribed("private-x")

    async def test_other_data(self, server: ReverbServer) -> None:
        with pytest.raises(AssertionError) as raised:
            server.assert_triggered("private-x", "client-status", {"cpu": 1})
        assert str(raised.value).splitlines()[:3] == [
            "client-status was triggered on private-x, but not with {'cpu': 1}. Events that were triggered:",
            "  with {'cpu': 45.2}",
            "If the event may still arrive, call wait_for_event() first.",
        ]

    async def test_another_event(self, server: ReverbServer) -> None:
        with pytest.raises(AssertionError) as raised:
            server.assert_triggered("private-y", "client-status")
        assert "client-status was not triggered on private-y." in str(raised.value)
        assert "  client-status on private-x: {'cpu': 45.2}" in str(raised.value)
        with pytest.raises(AssertionError, match="e was not published on private-x"):
            server.assert_published("private-x", "e")

    async def test_what_should_not_be(self, server: ReverbServer) -> None:
        with pytest.raises(AssertionError, match=r"client-status was triggered on private-x: \{'cpu': 45.2\}"):
            server.assert_not_triggered("private-x", "client-status")
        with pytest.raises(AssertionError, match=r"nobody is subscribed to private-y\. What happened:"):
            server.assert_subscribed("private-y")

    async def test_nothing(self, server: ReverbServer) -> None:
        server.reset()
        with pytest.raises(AssertionError, match="No event was triggered"):
            server.assert_triggered("private-x", "client-status")


class TestFaults:
    async def test_drop(self, client: ReverbClient, server: ReverbServer) -> None:
        back = Recorder()
        client.bind(Events.RECONNECTED, back)
        await client.subscribe("news")
        server.drop()
        assert server.connections == []
        await back.wait_for(1)
        await server.wait_for_subscription("news")

    @every_loop
    async def test_drop_is_bare_eof(self, server: ReverbServer, clients: Clients) -> None:
        raw = await clients.open(server)
        server.drop()
        assert await raw.rest() == b""

    async def test_restart(self, client: ReverbClient, server: ReverbServer) -> None:
        await client.subscribe("news")
        port = server.port
        await server.restart(downtime=0.05)
        assert server.port == port
        await server.wait_for_subscription("news")
        assert "the server is down" in server.report()

    async def test_refuse_for_good(self, server: ReverbServer) -> None:
        server.refuse(4001)
        with pytest.raises(ConnectionError) as raised:
            await ReverbClient(**server.settings).connect()
        assert raised.value.code == 4001

    @pytest.mark.parametrize(
        ("code", "text"), [(4004, "Application is over connection quota"), (4100, "Connection refused")]
    )
    async def test_refuse(self, server: ReverbServer, clients: Clients, code: int, text: str) -> None:
        server.refuse(code)
        raw = await clients.raw(server)
        assert await raw.text() == error(code, text)
        await raw.quiet()
        server.heal()
        await (await clients.open(server)).quiet()

    async def test_deny(self, client: ReverbClient, server: ReverbServer) -> None:
        server.deny("private-x")
        with pytest.raises(AuthenticationError):
            await client.subscribe("private-x")
        await client.subscribe("private-y")
        server.heal()
        await client.subscribe("private-x")

    @every_loop
    async def test_silence(self, server: ReverbServer, clients: Clients) -> None:
        raw = await clients.open(server)
        await raw.joined("x")
        server.silence()
        raw.send('{"event":"pusher:ping"}')
        await server.publish("x", "lost", 1)
        raw.subscribe("y")
        await server.wait_for_subscription("y")
        server.heal()
        await server.publish("x", "heard", 1)
        assert '"heard"' in await raw.text()

    async def test_silence_is_noticed(self, server: ReverbServer) -> None:
        async with ReverbClient(**server.settings, subscribe_timeout=0.05) as client:
            server.silence()
            with pytest.raises(ReverbTimeoutError):
                await client.subscribe("news")

    @every_loop
    async def test_delay(self, server: ReverbServer, clients: Clients) -> None:
        raw = await clients.open(server)
        await raw.joined("x")
        loop = asyncio.get_running_loop()
        server.delay(0.2)
        before = loop.time()
        for number in range(3):
            await server.publish("x", "e", number)
        server.delay(0)
        await server.publish("x", "e", 3)
        assert [f'"data":"{number}"' in await raw.text() for number in range(4)] == [True] * 4
        assert 0.15 < loop.time() - before < 5

    @every_loop
    async def test_delayed_end(self, server: ReverbServer, clients: Clients) -> None:
        raw = await clients.open(server)
        await raw.joined("x")
        server.delay(0.1)
        await server.publish("x", "e", 1)
        server.drop()
        assert '"data":"1"' in await raw.text()
        assert await raw.rest() == b""

    @every_loop
    async def test_stop_forgets_what_is_delayed(self, server: ReverbServer, clients: Clients) -> None:
        raw = await clients.open(server)
        await raw.joined("x")
        server.delay(60)
        await server.publish("x", "e", 1)
        await server.stop()
        assert await raw.rest() == b""

    async def test_send_raw(self, server: ReverbServer, clients: Clients) -> None:
        raw = await clients.open(server)
        server.send_raw("{nope")
        assert await raw.text() == "{nope"
        server.send_raw(b"\x88\x02\x10\x68")
        assert await raw.frame() == (0x80 | CLOSE, (4200).to_bytes(2, "big"))

    async def test_reset(self, client: ReverbClient, server: ReverbServer) -> None:
        await client.subscribe("news")
        server.deny("private-x")
        await server.publish("news", "e")
        await client.disconnect()
        server.reset()
        assert server.events == []
        assert server.connections == []
        async with ReverbClient(**server.settings) as other:
            await other.subscribe("private-x")


class TestBlocking:
    def test_from_a_synchronous_test(self) -> None:
        with ReverbServer() as server:
            assert isinstance(server, BlockingServer)
            received: list[object] = []

            async def program() -> None:
                async with ReverbClient(**server.settings) as client:
                    channel = await client.subscribe("private-x")
                    channel.bind("stop", lambda event, data, name: received.append(data))
                    await channel.trigger("status", {"cpu": 1})
                    await until(lambda: received)

            thread = threading.Thread(target=lambda: asyncio.run(program()))
            thread.start()
            server.wait_for_subscription("private-x")
            assert server.wait_for_event("private-x", "client-status").data == {"cpu": 1}
            server.publish("private-x", "stop", {"id": 1})
            thread.join(10)
            assert received == [{"id": 1}]
            server.wait_for_connections(0)
            port = server.port
            server.restart()
            assert server.port == port
            with pytest.raises(TimeoutError, match="no e on x within"):
                server.wait_for_event("x", "e", timeout=0.01)

    def test_leaves_nothing_behind(self) -> None:
        before = threading.enumerate()
        with ReverbServer():
            assert len(threading.enumerate()) == len(before) + 1
        assert threading.enumerate() == before

    def test_port_taken(self) -> None:
        before = threading.enumerate()
        with ReverbServer() as server, pytest.raises(OSError, match=str(server.port)):
            ReverbServer(port=server.port).__enter__()
        assert threading.enumerate() == before

    @pytest.mark.parametrize("in_thread", [False, True])
    @pytest.mark.parametrize(
        "method",
        [
            lambda server: server.publish("x", "e"),
            lambda server: server.wait_for_subscription("x"),
            lambda server: server.wait_for_event("x", "e"),
            lambda server: server.wait_for_connections(1),
            lambda server: server.restart(),
        ],
    )
    async def test_in_an_event_loop(
        self, server: ReverbServer, in_thread: bool, method: Callable[[BlockingServer], object]
    ) -> None:
        """Its own, or that of an asynchronous test while the server is in a thread."""
        with (
            ReverbServer() as other,
            pytest.raises(RuntimeError, match=r"block the running event loop.*, await the method"),
        ):
            method(other if in_thread else server.blocking)

    async def test_in_a_thread_beside_an_event_loop(self, server: ReverbServer) -> None:
        await asyncio.to_thread(server.blocking.publish, "x", "e", 1)
        server.assert_published("x", "e", 1)

    def test_of_a_server_that_does_not_run(self) -> None:
        with pytest.raises(RuntimeError, match="the server is not running"):
            ReverbServer().blocking.publish("x", "e")

    async def test_a_server_in_a_thread_can_be_awaited(self) -> None:
        server = ReverbServer()
        with server:
            async with ReverbClient(**server.settings) as client:
                await client.subscribe("news")
                await server.wait_for_subscription("news")
                await server.publish("news", "e", 1)
                assert (await server.wait_for_event("news", "e")).data == 1
                server.drop()
                await server.wait_for_connections(1)
                waiting = asyncio.ensure_future(server.wait_for_connections(5))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting

    async def test_a_server_in_a_thread_is_started_there_again(self) -> None:
        server = ReverbServer()
        with server:
            await server.stop()
            with pytest.raises(ConnectionError):
                await ReverbClient(**server.settings).connect()
            await server.start()
            async with ReverbClient(**server.settings) as client:
                await client.subscribe("news")
                await server.wait_for_subscription("news")

    def test_no_apps_given(self) -> None:
        assert ReverbServer().app == App()


class TestRateLimiting:
    PING, PONG = '{"event":"pusher:ping"}', '{"event":"pusher:pong"}'

    async def test_error(self, clients: Clients) -> None:
        limit = RateLimiting(enabled=True, max_attempts=2, decay_seconds=0.3)
        async with ReverbServer([App(rate_limiting=limit)]) as server:
            raw = await clients.open(server)
            for _ in range(3):
                raw.send(self.PING)
            assert [await raw.text() for _ in range(3)] == [self.PONG] * 2 + [error(4301, "Rate limit exceeded")]
            await asyncio.sleep(0.35)
            raw.send(self.PING)
            assert await raw.text() == self.PONG

    async def test_termination(self, clients: Clients) -> None:
        limit = RateLimiting(enabled=True, max_attempts=1, terminate_on_limit=True)
        async with ReverbServer([App(rate_limiting=limit)]) as server:
            raw = await clients.open(server)
            raw.send(self.PING)
            raw.send(self.PING)
            assert await raw.text() == self.PONG
            assert await raw.rest() == b""

    def test_is_off_by_default(self) -> None:
        assert App().rate_limiting == RateLimiting(enabled=False, max_attempts=60, decay_seconds=60)


class TestStrict:
    """The answers that soketi gave, too."""

    @pytest.fixture
    async def server(self) -> AsyncIterator[ReverbServer]:
        app = App(ping_interval=0.05, max_connections=1)
        async with ReverbServer([app, App(id="2", key="key-2")], strict=True, tick=0.1) as server:
            yield server

    async def closed(self, raw: Client, code: int) -> None:
        assert await raw.frame() == (0x80 | CLOSE, code.to_bytes(2, "big"))
        assert await raw.rest() == b""

    async def test_unknown_application(self, server: ReverbServer, clients: Clients) -> None:
        raw = await clients.raw(server, "/app/other")
        text = '{"event":"pusher:error","data":{"code":4001,"message":"Application does not exist"}}'
        assert await raw.text() == text
        await self.closed(raw, 4001)

    async def test_quota(self, server: ReverbServer, clients: Clients) -> None:
        first = await clients.open(server, "/app/app-key")
        await first.joined("x")
        raw = await clients.raw(server)
        assert '{"code":4004,' in await raw.text()
        await self.closed(raw, 4004)

    async def test_subscriptions(self, server: ReverbServer, clients: Clients) -> None:
        raw = await clients.open(server, "/app/key-2")
        assert await raw.joined("x") == '{"event":"pusher_internal:subscription_succeeded","channel":"x"}'
        raw.send({"event": "pusher:subscribe", "data": {"channel": "private-x", "auth": "key-2:0"}})
        assert await raw.text() == (
            '{"event":"pusher:subscription_error","channel":"private-x",'
            '"data":{"type":"AuthError","error":"The connection is unauthorized.","status":401}}'
        )
        raw.send('{"event":"pusher:ping"}')
        assert await raw.text() == '{"event":"pusher:pong","data":{}}'

    async def test_pruned(self, server: ReverbServer, clients: Clients) -> None:
        raw = await clients.open(server)
        await raw.joined("x")
        assert await raw.text() == '{"event":"pusher:ping"}'
        assert '{"code":4201,' in await raw.text()
        await self.closed(raw, 4201)

    async def test_stopped(self, server: ReverbServer, clients: Clients) -> None:
        raw = await clients.open(server, "/app/key-2")
        await server.restart()
        await self.closed(raw, 4200)

    async def test_our_client_knows_which_channel_was_refused(self, server: ReverbServer) -> None:
        async with ReverbClient(**server.settings) as client:
            server.deny("private-x")
            with pytest.raises(AuthenticationError, match="private-x"):
                await client.subscribe("private-x")

    async def test_not_strict(self, clients: Clients) -> None:
        async with ReverbServer() as server:
            server.deny("news")
            raw = await clients.open(server)
            assert await raw.joined("news") == UNAUTHORIZED
