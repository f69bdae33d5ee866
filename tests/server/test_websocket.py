"""One client at a time, or two, against the running server; most texts are recordings of real Reverb."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence

import pytest

from reverb.server import App, ReverbServer
from tests.loops import every_loop
from tests.server.clients import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID,
    PING,
    PONG,
    TEXT,
    UNAUTHORIZED,
    Client,
    Clients,
    call,
    error,
)


def handshake(first: str = "GET /app/app-key HTTP/1.1", **changes: str | None) -> str:
    """A good one, but for ``changes`` by the names of headers; None leaves one out, others may be several."""
    headers: dict[str, str | None] = {
        "Host": "x",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec_WebSocket_Version": "13",
        **changes,
    }
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([first, *lines, "", ""])


@pytest.fixture
async def client(server: ReverbServer, clients: Clients) -> Client:
    return await clients.open(server)


@pytest.fixture
async def other(server: ReverbServer, clients: Clients) -> Client:
    return await clients.open(server)


@pytest.fixture
async def pair(client: Client, other: Client) -> tuple[Client, Client]:
    for each in (client, other):
        await each.joined("private-x")
    return client, other


class TestOpening:
    async def test_established(self, server: ReverbServer, clients: Clients) -> None:
        client = await clients.raw(server)
        assert client.head.startswith("HTTP/1.1 101 ")
        assert re.fullmatch(
            r'\{"event":"pusher:connection_established","data":'
            r'"\{\\"socket_id\\":\\"\d+\.\d+\\",\\"activity_timeout\\":30\}"\}',
            await client.greeted(),
        )
        other = await clients.open(server)
        assert other.socket_id != client.socket_id

    async def test_activity_timeout_is_the_apps(self, clients: Clients) -> None:
        async with ReverbServer([App(activity_timeout=7)]) as server:
            client = await clients.raw(server, "/app/app-key?protocol=99")
            assert '\\"activity_timeout\\":7}' in await client.greeted()

    async def test_nothing_is_negotiated(self, server: ReverbServer, clients: Clients) -> None:
        offer = {"Sec-WebSocket-Extensions": "permessage-deflate", "Sec-WebSocket-Protocol": "pusher"}
        client = await clients.raw(server, headers=offer)
        assert "extensions" not in client.head.lower()
        assert "protocol:" not in client.head.lower()
        await client.greeted()
        await client.quiet()

    async def test_wrong_key(self, server: ReverbServer, clients: Clients) -> None:
        client = await clients.raw(server, "/app/other-key")
        assert client.head.startswith("HTTP/1.1 101 ")
        assert await client.text() == error(4001, "Application does not exist")
        assert await client.rest() == b""

    async def test_wrong_path(self, server: ReverbServer, clients: Clients) -> None:
        client = await clients.raw(server, "/nowhere/app-key")
        assert client.head.startswith("HTTP/1.1 404 ")
        assert await client.rest() == b"Not found."

    async def test_quota_counts_subscribed_connections(self, clients: Clients) -> None:
        async with ReverbServer([App(max_connections=1)]) as server:
            first = await clients.open(server)
            await clients.open(server)
            await first.joined("x")
            third = await clients.raw(server)
            assert await third.text() == error(4004, "Application is over connection quota")
            await third.quiet()
            assert "subscription_succeeded" in await third.joined("x")

    @pytest.mark.parametrize(
        ("allowed", "origin"),
        [
            (["*"], None),
            (["example.com"], "https://example.com"),
            (["other.com", "example.com"], "http://example.com:8080/path"),
            (["*.example.com"], "https://www.example.com"),
            (["www.*.com"], "https://www.example.com"),
            (["*.*.example.*"], "https://a.b.example.com"),
            (["*ab*ba*"], "https://abba"),
            (["example.com"], "https://user@example.com"),
            (["example.com"], "https://user:password@example.com:8080"),
            (["example.com"], "//example.com"),
            (["example.com"], "//example.com:8080/path"),
            (["example.com"], "example.com:8080"),
            (["example.com"], "https://example.com:"),
            (["example.com"], "https://example.com?@evil.com"),
            (["[::1]"], "http://[::1]:8080"),
        ],
    )
    async def test_allowed_origin(self, clients: Clients, allowed: Sequence[str], origin: str | None) -> None:
        async with ReverbServer([App(allowed_origins=allowed)]) as server:
            client = await clients.raw(server, headers={"Origin": origin} if origin else {})
            await client.greeted()

    @pytest.mark.parametrize(
        ("allowed", "origin"),
        [
            (["example.com"], None),
            (["example.com"], "https://evil.com"),
            (["example.com"], "https://example.com.evil.com"),
            (["example.com"], "https://exampleXcom"),
            (["example.com"], "example.com"),
            (["example.com"], "user@example.com"),
            (["example.com"], "https:example.com"),
            (["example.com"], "https:/example.com"),
            (["example.com"], "https://example.com@evil.com"),
            (["example.com"], "https://example.com:99999"),
            (["example.com"], "https://example.com:x"),
            (["example.com"], "///example.com"),
            (["example.com"], "null"),
            (["example.com"], "https://"),
            (["*.example.com"], "https://example.com"),
            (["example.*.example.com"], "https://example.com"),
            (["www.*.com"], "https://www.com"),
            (["*aba*aba*"], "https://ababa"),
            (["*a*a*a*a*a*b"], "https://" + "a" * 9_000),
            ([], "https://example.com"),
        ],
    )
    async def test_refused_origin(self, clients: Clients, allowed: Sequence[str], origin: str | None) -> None:
        async with ReverbServer([App(allowed_origins=allowed)]) as server:
            client = await clients.raw(server, headers={"Origin": origin} if origin else {})
            assert await client.text() == error(4009, "Origin not allowed")
            await client.quiet()
            assert "subscription_succeeded" in await client.joined("x")

    async def test_apps_do_not_hear_each_other(self, clients: Clients) -> None:
        apps = [App(), App(id="2", key="key-2", secret="secret-2")]
        async with ReverbServer(apps) as server:
            one, two = await clients.open(server), await clients.open(server, "/app/key-2")
            await one.joined("x")
            two.subscribe("private-x", app=apps[0])
            assert await two.text() == UNAUTHORIZED
            two.subscribe("private-x", app=apps[1])
            assert "subscription_succeeded" in await two.text()
            await two.joined("x")
            two.trigger("x")
            await two.quiet()
            await one.quiet()


class TestHandshake:
    """What a real Reverb answers to handshakes that are none: it refuses them, and goes on as if it had not."""

    GREETING = "connection_established"
    POSSIBLE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"

    @pytest.mark.parametrize(
        ("sent", "answer"),
        [
            (handshake("GET /app/app-key HTTP/1.0"), "505 HTTP Version not supported\r\n"),
            (handshake("HEAD /app/app-key HTTP/1.1"), "405 Method Not Allowed\r\nAllow: GET\r\n"),
            (handshake("HEAD /app/app-key HTTP/1.0"), "405 Method Not Allowed\r\nAllow: GET\r\n"),
            (handshake(Host=None), "400 Bad Request\r\n"),
            (handshake(Host="x\r\nHost: y"), "400 Bad Request\r\n"),
            (handshake(Upgrade="h2c"), f"426 Upgrade header MUST be provided\r\n{POSSIBLE}"),
            (handshake(Upgrade="websocket, h2c"), f"426 Upgrade header MUST be provided\r\n{POSSIBLE}"),
            (handshake(Connection=None), "400 Connection Upgrade MUST be requested\r\n"),
            (handshake(Connection="keep-alive"), "400 Connection Upgrade MUST be requested\r\n"),
            (handshake(Sec_WebSocket_Key=None), "400 Invalid Sec-WebSocket-Key\r\n"),
            (handshake(Sec_WebSocket_Key=""), "400 Invalid Sec-WebSocket-Key\r\n"),
            (handshake(Sec_WebSocket_Key="c2hvcnQ="), "400 Invalid Sec-WebSocket-Key\r\n"),
            (handshake(Sec_WebSocket_Key="\xe9" * 22), "400 Invalid Sec-WebSocket-Key\r\n"),
            (handshake(Sec_WebSocket_Key="x" * 25), "400 Invalid Sec-WebSocket-Key\r\n"),
            (handshake(Sec_WebSocket_Version="8"), f"426 Upgrade Required\r\n{POSSIBLE}"),
            (handshake(Sec_WebSocket_Version=None), f"426 Upgrade Required\r\n{POSSIBLE}"),
        ],
    )
    async def test_refused_and_greeted(
        self, server: ReverbServer, clients: Clients, sent: str, answer: str
    ) -> None:
        client = await clients.by_hand(server, sent)
        assert client.head == f"HTTP/1.1 {answer}X-Powered-By: Laravel Reverb\r\n\r\n"
        assert self.GREETING in await client.greeted()
        assert "subscription_succeeded" in await client.joined("private-x")

    @pytest.mark.parametrize(
        "sent",
        [
            handshake("GET //app/app-key HTTP/1.1"),
            handshake("GET ////app/app-key?protocol=7 HTTP/1.1"),
            handshake("GET /app/app-key#x HTTP/1.1"),
            handshake("GET /app/app-key?protocol=7#x HTTP/1.1"),
            handshake("GET /app/app-key#x?protocol=7 HTTP/1.1"),
            handshake("GET /app/app%2Dkey HTTP/1.1"),
            handshake("get /app/app-key HTTP/1.1"),
            handshake(Upgrade="WebSocket", Connection="keep-alive, UPGRADE"),
            handshake(Connection="keep-alive\r\nConnection: Upgrade"),
            handshake(Host=""),
        ],
    )
    async def test_accepted(self, server: ReverbServer, clients: Clients, sent: str) -> None:
        client = await clients.by_hand(server, sent)
        assert client.head == (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Powered-By: Laravel Reverb\r\n\r\n"
        )
        assert self.GREETING in await client.greeted()

    @pytest.mark.parametrize(
        "sent", [handshake("GET /app/nope HTTP/1.0"), handshake("GET /app/app-key%23x HTTP/1.1", Host=None)]
    )
    async def test_refused_twice(self, server: ReverbServer, clients: Clients, sent: str) -> None:
        client = await clients.by_hand(server, sent)
        assert client.head.split()[1] in ("505", "400")
        assert await client.text() == error(4001, "Application does not exist")
        assert await client.rest() == b""

    @pytest.mark.parametrize(
        ("sent", "status", "body"),
        [
            (
                handshake("POST /app/app-key HTTP/1.1"),
                "405 Method Not Allowed\r\nAllow: GET",
                "Method not allowed.",
            ),
            (handshake("PUT /app/nope HTTP/1.0"), "405 Method Not Allowed\r\nAllow: GET", "Method not allowed."),
            (handshake("OPTIONS //app/x HTTP/1.1"), "405 Method Not Allowed\r\nAllow: GET", "Method not allowed."),
            ("POST /app/app-key HTTP/1.1\r\n\r\n", "405 Method Not Allowed\r\nAllow: GET", "Method not allowed."),
            (handshake(Upgrade=None), "500 Internal Server Error", "Internal server error."),
            (handshake(Upgrade=""), "500 Internal Server Error", "Internal server error."),
            (
                handshake("HEAD /app/nope HTTP/1.1", Upgrade=None),
                "500 Internal Server Error",
                "Internal server error.",
            ),
            (handshake("GET /app/ HTTP/1.1"), "404 Not Found", "Not found."),
            (handshake("GET /app HTTP/1.1"), "404 Not Found", "Not found."),
            (handshake("GET /app/app-key/ HTTP/1.1"), "404 Not Found", "Not found."),
            (handshake("GET /app//app-key HTTP/1.1"), "404 Not Found", "Not found."),
            (handshake("GET /App/app-key HTTP/1.1"), "404 Not Found", "Not found."),
            (handshake("POST /app/ HTTP/1.1"), "404 Not Found", "Not found."),
        ],
    )
    async def test_no_handshake(
        self, server: ReverbServer, clients: Clients, sent: str, status: str, body: str
    ) -> None:
        client = await clients.by_hand(server, sent)
        assert client.head == f"HTTP/1.1 {status}\r\n\r\n"
        assert await client.rest() == body.encode()

    async def test_the_first_origin_counts(self, clients: Clients) -> None:
        async with ReverbServer([App(allowed_origins=["example.com"])]) as server:
            for first, second, answer in (
                ("https://example.com", "https://evil.com", self.GREETING),
                ("https://evil.com", "https://example.com", "Origin not allowed"),
            ):
                sent = handshake(Origin=f"{first}\r\nOrigin: {second}")
                client = await clients.by_hand(server, sent)
                assert client.head.startswith("HTTP/1.1 101 ")
                assert answer in await client.text()


class TestProtocolEvents:
    @pytest.mark.parametrize(
        "data", ["", ',"data":{}', ',"data":[]', ',"data":null', ',"data":""', ',"data":{"p":1}']
    )
    async def test_ping(self, client: Client, data: str) -> None:
        client.send(f'{{"event":"pusher:ping"{data}}}')
        assert await client.text() == '{"event":"pusher:pong"}'

    async def test_pong_is_not_answered(self, client: Client) -> None:
        client.send('{"event":"pusher:pong","data":{}}')
        await client.quiet()

    async def test_connection_established(self, client: Client) -> None:
        client.send('{"event":"pusher:connection_established","data":{}}')
        assert f'\\"{client.socket_id}\\"' in await client.text()

    @pytest.mark.parametrize(
        "text",
        [
            "{nope",
            "",
            "[]",
            "5",
            '"x"',
            "null",
            "{}",
            '{"data":{}}',
            '{"event":5,"data":{}}',
            '{"event":""}',
            '{"event":"pusher:nope","data":{}}',
            '{"event":"pusher:signin","data":{"auth":"x","user_data":"{}"}}',
            '{"event":"pusher:ping","data":"x"}',
            '{"event":"pusher:ping","data":5}',
            '{"event":"subscribe","data":{"channel":"x"}}',
            '{"event":"pusher:subscribe"}',
            '{"event":"pusher:subscribe","data":{}}',
            '{"event":"pusher:subscribe","data":["x"]}',
            '{"event":"pusher:subscribe","data":"x"}',
            '{"event":"pusher:subscribe","data":{"channel":null}}',
            '{"event":"pusher:subscribe","data":{"channel":["x"]}}',
            '{"event":"pusher:subscribe","data":{"channel":"x","channel_data":{}}}',
            '{"event":"pusher:unsubscribe","data":{}}',
            '{"event":"client-hi","data":{}}',
            '{"event":"client-hi","channel":5,"data":{}}',
            '{"event":"client-hi","channel":"","data":{}}',
            '{"event":"client-hi","channel":"x","data":5}',
            '{"event":"hi","channel":"x","data":5}',
            "[" * 4000 + "]" * 4000,
        ],
    )
    async def test_invalid(self, client: Client, text: str) -> None:
        client.send(text)
        assert await client.text() == INVALID
        await client.quiet()


class TestSubscribe:
    @pytest.mark.parametrize(
        ("data", "channel"),
        [
            ('{"channel":"public-chan"}', ',"channel":"public-chan"'),
            ('{"channel":""}', ""),
            ('{"channel":5}', ',"channel":"5"'),
            ('{"channel":"a b#\\u00e9/\\u20ac"}', ',"channel":"a b#\\u00e9\\/\\u20ac"'),
            (json.dumps('{"channel":"strdata"}'), ',"channel":"strdata"'),
            (json.dumps({"channel": "x" * 300}), f',"channel":"{"x" * 300}"'),
        ],
    )
    async def test_public(self, client: Client, data: str, channel: str) -> None:
        client.send(f'{{"event":"pusher:subscribe","data":{data}}}')
        assert await client.text() == (
            f'{{"event":"pusher_internal:subscription_succeeded","data":"{{}}"{channel}}}'
        )

    async def test_private(self, client: Client) -> None:
        assert await client.joined("private-x") == (
            '{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"private-x"}'
        )

    @pytest.mark.parametrize("name", ["private-y", "presence-y", "privateX", "presenceX"])
    async def test_unauthorized(self, client: Client, name: str) -> None:
        client.send({"event": "pusher:subscribe", "data": {"channel": name}})
        assert await client.text() == UNAUTHORIZED
        client.send({"event": "pusher:subscribe", "data": {"channel": name, "auth": "app-key:" + "0" * 64}})
        assert await client.text() == UNAUTHORIZED
        await client.quiet()

    async def test_answers_come_in_order(self, client: Client) -> None:
        sent = ["a", "private-refused", "b", "privateX", "c"]
        for name in sent:
            client.send({"event": "pusher:subscribe", "data": {"channel": name}})
            client.send('{"event":"pusher:ping"}')
            client.send("{nope")
        for name in sent:
            answer = await client.text()
            assert answer == UNAUTHORIZED if name.startswith("private") else f'"channel":"{name}"' in answer
            assert await client.text() == '{"event":"pusher:pong"}'
            assert await client.text() == INVALID

    async def test_presence(self, client: Client) -> None:
        data = '{"user_id": "1", "user_info": {"name": "Al \\u00e9/"}}'
        assert await client.joined("presence-room", data) == (
            r'{"event":"pusher_internal:subscription_succeeded",'
            r'"data":"{\"presence\":{\"count\":1,\"ids\":[\"1\"],'
            r'\"hash\":{\"1\":{\"name\":\"Al \\u00e9\\\/\"}}}}",'
            r'"channel":"presence-room"}'
        )

    async def test_presence_without_user_info(self, server: ReverbServer, client: Client, other: Client) -> None:
        assert await client.joined("presence-room", '{"user_id":"1"}') == INVALID
        assert await other.joined("presence-room", '{"user_id":"2","user_info":{}}') == INVALID
        assert "member_added" in await client.text()
        await call(server, "POST", "/events", {"name": "e", "channel": "presence-room", "data": "{}"})
        for each in (client, other):
            assert await each.text() == '{"event":"e","data":"{}","channel":"presence-room"}'

    async def test_cache_miss_comes_right_behind(self, client: Client) -> None:
        client.subscribe("cache-c")
        client.send('{"event":"pusher:ping"}')
        assert "subscription_succeeded" in await client.text()
        assert await client.text() == '{"event":"pusher:cache_miss","channel":"cache-c"}'
        assert "pong" in await client.text()

    async def test_cached_event_comes_right_behind(
        self, server: ReverbServer, client: Client, other: Client
    ) -> None:
        await client.joined("cache-c")
        assert "cache_miss" in await client.text()
        await call(server, "POST", "/events", {"name": "e", "channel": "cache-c", "data": '{"v":1}'})
        event = '{"event":"e","data":"{\\"v\\":1}","channel":"cache-c"}'
        assert await client.text() == event
        assert "subscription_succeeded" in await other.joined("cache-c")
        assert await other.text() == event

    async def test_unsubscribe(self, pair: tuple[Client, Client]) -> None:
        one, other = pair
        other.send('{"event":"pusher:unsubscribe","data":{"channel":"private-x"}}')
        other.send('{"event":"pusher:unsubscribe","data":{"channel":"never"}}')
        await other.quiet()
        one.trigger("private-x")
        await one.quiet()
        await other.quiet()

    async def test_dropped_connection_leaves(self, client: Client, other: Client) -> None:
        await client.joined("presence-room", '{"user_id":"1","user_info":{}}')
        await other.joined("presence-room", '{"user_id":2,"user_info":{}}')
        assert "member_added" in await client.text()
        other.drop()
        assert await client.text() == (
            r'{"event":"pusher_internal:member_removed","data":"{\"user_id\":2}","channel":"presence-room"}'
        )


class TestClientEvents:
    @pytest.mark.parametrize(
        ("sent", "received"),
        [
            (r',"data":{"n":1,"u":"\u00e9/","e":{},"l":[]}', r'{"n":1,"u":"\u00e9\/","e":[],"l":[]}'),
            (r',"data":"{\"n\":2}"', '{"n":2}'),
            (',"data":[1,2]', "[1,2]"),
            ("", "null"),
            (',"data":null', "null"),
            (',"data":"null"', "null"),
            (',"data":{"0":"a","1":"b"}', '["a","b"]'),
            (',"data":{"1.0":1.0}', '{"1.0":1}'),
            (',"data":[12345678901234567890,1e20,1.5e-9,-0.0]', "[1.2345678901234567e+19,1.0e+20,1.5e-9,-0]"),
            (',"data":""', '""'),
            (',"data":" "', '" "'),
            (r',"data":"\"\""', '""'),
            (',"data":{},"foo":1,"user_id":"evil"', "[]"),
        ],
    )
    async def test_reaches_the_others(self, pair: tuple[Client, Client], sent: str, received: str) -> None:
        one, other = pair
        one.send(f'{{"event":"client-hi","channel":"private-x"{sent}}}')
        await one.quiet()
        assert await other.text() == f'{{"event":"client-hi","channel":"private-x","data":{received}}}'

    @pytest.mark.parametrize("data", ['"plain"', '"5"', "5", "true", '"\\u00a0"'])
    async def test_single_value(self, pair: tuple[Client, Client], data: str) -> None:
        one, other = pair
        one.trigger("private-x", data)
        assert await one.text() == INVALID
        await other.quiet()

    async def test_infinite(self, pair: tuple[Client, Client]) -> None:
        """PHP can't write what it has read: an empty frame."""
        one, other = pair
        one.trigger("private-x", '{"a":1E400}')
        await one.quiet()
        assert await other.text() == ""

    async def test_too_deep(self, pair: tuple[Client, Client]) -> None:
        one, other = pair
        one.trigger("private-x", "[" * 900 + "]" * 900)
        assert await one.text() == INVALID
        await other.quiet()

    async def test_public_channel(self, client: Client, other: Client) -> None:
        await client.joined("public-chan")
        await other.joined("public-chan")
        client.trigger("public-chan", '{"n":1}')
        assert await other.text() == '{"event":"client-hi","channel":"public-chan","data":{"n":1}}'

    @pytest.mark.parametrize("user_id", ['"1"', "7"])
    async def test_presence_channel_names_the_sender(self, client: Client, other: Client, user_id: str) -> None:
        await client.joined("presence-room", f'{{"user_id":{user_id},"user_info":{{}}}}')
        await other.joined("presence-room", '{"user_id":"2","user_info":{}}')
        assert "member_added" in await client.text()
        client.trigger("presence-room", '{"t":1}')
        assert await other.text() == (
            f'{{"event":"client-hi","channel":"presence-room","data":{{"t":1}},"user_id":{user_id}}}'
        )

    async def test_not_a_member(self, client: Client, other: Client) -> None:
        await other.joined("private-x")
        for name in ("private-x", "nobody-there"):
            client.trigger(name)
            assert await client.text() == error(4009, "The client is not a member of the specified channel.")
        await other.quiet()

    @pytest.mark.parametrize("event", ["hi", "clienthi", "pusher_internal:hi"])
    async def test_other_names_are_dropped(self, pair: tuple[Client, Client], event: str) -> None:
        one, other = pair
        one.trigger("private-x", event=event)
        await one.quiet()
        await other.quiet()

    async def test_accepted_from_none(self, clients: Clients) -> None:
        async with ReverbServer([App(accept_client_events_from="none")]) as server:
            one, other = await clients.open(server), await clients.open(server)
            for each in (one, other):
                await each.joined("private-x")
            one.trigger("private-x")
            assert await one.text() == error(4301, "The app does not have client messaging enabled.")
            one.trigger("private-x", event="hi")
            await one.quiet()
            await other.quiet()

    async def test_accepted_from_all(self, clients: Clients) -> None:
        async with ReverbServer([App(accept_client_events_from="all")]) as server:
            outsider, member = await clients.open(server), await clients.open(server)
            await member.joined("private-x")
            outsider.send('{"event":"client-x","channel":"private-x","data":{"a":1},"user_id":"spoof","foo":{}}')
            assert await member.text() == (
                '{"event":"client-x","channel":"private-x","data":{"a":1},"user_id":"spoof","foo":[]}'
            )
            outsider.trigger("nobody-there")
            await outsider.quiet()


class TestFrames:
    async def test_ping(self, client: Client) -> None:
        client.send(b"abc", PING)
        assert await client.frame() == (0x80 | PONG, b"abc")

    async def test_pong(self, client: Client) -> None:
        client.send(b"abc", PONG)
        await client.quiet()

    async def test_binary(self, client: Client) -> None:
        client.send('{"event":"pusher:ping","data":{}}', BINARY)
        assert await client.text() == '{"event":"pusher:pong"}'

    async def test_fragments(self, client: Client) -> None:
        client.send('{"event":"pus', TEXT, fin=False)
        client.send(b"in between", PING)
        client.send('her:ping"}', CONTINUATION)
        assert await client.frame() == (0x80 | PONG, b"in between")
        assert await client.text() == '{"event":"pusher:pong"}'

    @pytest.mark.parametrize(
        ("sent", "echoed"),
        [(b"\x03\xe8bye", b"\x03\xe8bye"), (b"\x0f\xa0x", b"\x0f\xa0x"), (b"", b"\x03\xe8")],
    )
    async def test_close(self, client: Client, sent: bytes, echoed: bytes) -> None:
        client.send(sent, CLOSE)
        assert await client.frame() == (0x80 | CLOSE, echoed)
        assert await client.rest() == b""

    @pytest.mark.parametrize(
        ("payload", "opcode", "code"), [(b"\xff", TEXT, 1007), (b"\x03\xed", CLOSE, 1002), (b"x", 3, 1002)]
    )
    async def test_violations(self, client: Client, payload: bytes, opcode: int, code: int) -> None:
        client.send(payload, opcode)
        opcode, payload = await client.frame()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (0x80 | CLOSE, code)
        assert len(payload) > 2, "the reason is missing"
        assert await client.rest() == b""

    @pytest.mark.parametrize("limit", [100, 10_000])
    async def test_size(self, clients: Clients, limit: int) -> None:
        async with ReverbServer([App(max_message_size=limit)]) as server:
            client = await clients.open(server)
            client.send('{"event":"pusher:ping"}'.ljust(limit))
            assert await client.text() == '{"event":"pusher:pong"}'
            client.send(('{"event":"é"}').ljust(limit))
            assert await client.frame() == (0x88, b"\x03\xf1Maximum message size exceeded")
            assert await client.rest() == b""

    async def test_size_of_fragments(self, client: Client) -> None:
        client.send(" " * 6000, fin=False)
        client.send(" " * 6000, CONTINUATION)
        assert await client.frame() == (0x88, b"\x03\xf1Maximum message size exceeded")
        assert await client.rest() == b""


class TestKeepalive:
    """With ``ping_interval`` and ``tick`` so short that a few looks fit into a test."""

    TOO_LATE = error(4201, "Pong reply not received in time")

    @pytest.fixture
    async def server(self) -> AsyncIterator[ReverbServer]:
        async with ReverbServer([App(ping_interval=0.1)], tick=0.2) as server:
            yield server

    @every_loop
    async def test_silent(self, client: Client) -> None:
        await client.joined("x")
        assert await client.text() == '{"event":"pusher:ping"}'
        assert await client.text() == self.TOO_LATE
        assert await client.rest() == b""

    @pytest.mark.parametrize("answer", ['{"event":"pusher:pong","data":{}}', '{"event":"hi","channel":"x"}'])
    async def test_answering(self, client: Client, answer: str) -> None:
        await client.joined("x")
        for _ in range(3):
            assert await client.text() == '{"event":"pusher:ping"}'
            client.send(answer)

    async def test_ping_frames_for_those_who_use_control_frames(self, client: Client) -> None:
        client.send(b"", PONG)
        await client.joined("x")
        for _ in range(2):
            assert await client.frame() == (0x80 | PING, b"")
            client.send(b"", PONG)
        assert await client.frame() == (0x80 | PING, b"")
        assert await client.text() == self.TOO_LATE
        assert await client.rest() == b""

    async def test_a_ping_frame_counts_as_life(self, client: Client) -> None:
        await client.joined("x")
        assert await client.text() == '{"event":"pusher:ping"}'
        for _ in range(3):
            client.send(b"", PING)
            assert await client.frame() == (0x80 | PONG, b"")
            assert await client.frame() == (0x80 | PING, b"")

    async def test_without_subscription(self, client: Client, other: Client) -> None:
        await other.joined("x")
        assert await other.text() == '{"event":"pusher:ping"}'
        assert await other.text() == self.TOO_LATE
        await client.quiet()

    async def test_others_see_the_pruned_one_leave(self, client: Client, other: Client) -> None:
        await client.joined("presence-x", '{"user_id":"1","user_info":{}}')
        await other.joined("presence-x", '{"user_id":"2","user_info":{}}')
        assert "member_added" in await client.text()
        while "member_removed" not in (text := await client.text()):
            assert text == '{"event":"pusher:ping"}'
            client.send('{"event":"pusher:pong"}')

    async def test_not_silent_for_long_enough(self, clients: Clients) -> None:
        async with ReverbServer(
            [App(ping_interval=60), App(id="2", key="2", ping_interval=0)], tick=0.05
        ) as server:
            client, looked_at = await clients.open(server), await clients.open(server, "/app/2")
            await client.joined("x")
            await looked_at.joined("x")
            assert await looked_at.text() == '{"event":"pusher:ping"}'
            assert await looked_at.text() == self.TOO_LATE
            await client.quiet()


@every_loop
async def test_a_client_that_is_gone_before_the_answer_is_no_error(
    server: ReverbServer, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(handshake().encode())
    writer.transport.abort()
    await server.wait_for_connections(0)
    await server.stop()
    assert caplog.records == []
