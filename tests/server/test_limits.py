"""Clients that mean harm, or are broken: they get an answer or an end, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from reverb.server import Entry, ReverbServer
from reverb.server._http import RequestError, RequestReader
from tests.certificates import make_certificates
from tests.loops import every_loop, only_asyncio
from tests.server.clients import (
    CLOSE,
    CONTINUATION,
    INVALID,
    PING,
    UNAUTHORIZED,
    Client,
    Clients,
    call,
    error,
    request,
    soon,
)
from tests.watching import until


@pytest.fixture(autouse=True)
def _nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """asyncio logs what a protocol raises."""
    yield
    assert caplog.records == []


async def answer_to(server: ReverbServer, *pieces: bytes) -> bytes:
    """Send bytes, and return what comes until the server ends the connection."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    answer = await soon(reader.read())
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


class TestRequests:
    @pytest.mark.parametrize(
        "length",
        ["-1", "+5", "1_0", "5 5", "5, 5", "0x5", "5.0", "five", "", "\u00b2", "\u0663", "5\x00", "\x0b5"],
    )
    async def test_lengths_that_are_none(self, server: ReverbServer, length: str) -> None:
        head = f"GET /up HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode()
        assert await answer_to(server, head, b"hello") == b"HTTP/1.1 400 Bad Request\r\n\r\nBad request."

    @pytest.mark.parametrize("length", ["10001", "9" * 18, "9" * 19, "9" * 5_000])
    async def test_lengths_that_are_too_much(self, server: ReverbServer, length: str) -> None:
        head = f"GET /up HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode()
        answer = b"HTTP/1.1 413 Request Entity Too Large\r\n\r\nPayload too large."
        assert await answer_to(server, head) == answer

    @pytest.mark.parametrize(
        ("lines", "status"),
        [
            ("Content-Length: 5\r\nContent-Length: 5", 200),
            ("Content-Length: 5\r\nContent-Length: 4", 400),
            ("Content-Length: 5\r\nContent-Length: x", 400),
            ("Content-Length: 005", 200),
            ("Transfer-Encoding: chunked", 501),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5", 501),
            ("no colon", 200),
            (": no name", 200),
            ("X: \x00\x01\x1b[2J", 200),
            ("\r\n".join("x:" for _ in range(2_000)), 200),
        ],
    )
    async def test_headers(self, server: ReverbServer, lines: str, status: int) -> None:
        answer = await answer_to(server, f"GET /up HTTP/1.1\r\n{lines}\r\n\r\nhello".encode())
        assert answer.split()[1] == str(status).encode()

    @pytest.mark.parametrize(
        "first",
        [
            "",
            "GET",
            "GET /up",
            "GET  /up HTTP/1.1",
            "GET /up HTTP/2.0",
            "GET /up HTTP/1.1 ",
            "\x16\x03\x01",
            "\x00",
        ],
    )
    async def test_first_lines(self, server: ReverbServer, first: str) -> None:
        assert (await answer_to(server, f"{first}\r\n\r\n".encode())).split()[1] == b"400"

    @pytest.mark.parametrize(
        "target",
        [
            "/%00",
            "/%ff%fe",
            "/up%0d%0aX:%20y",
            "/apps/%00/events",
            "/apps/app-id/channels/%00/users",
            "/apps/app-id/channels?auth_signature=%00&auth_timestamp=" + "9" * 5_000,
            "/apps/app-id/channels?" + "&" * 5_000,
            "/apps/app-id/channels?" + "%" * 5_000,
            "*",
            "http://[::1",
            "/" * 5_000,
        ],
    )
    async def test_targets(self, server: ReverbServer, target: str) -> None:
        status = int((await answer_to(server, f"GET {target} HTTP/1.1\r\n\r\n".encode())).split()[1])
        assert 400 <= status < 500

    @pytest.mark.parametrize(
        "body",
        [
            b"[" * 5_000,
            b'{"a":' * 1_500 + b"1" + b"}" * 1_500,
            b'{"name":"\xff"}',
            b'{"name":"\\ud83d"}',
            b'{"name":' + b"9" * 5_000 + b"}",
            b"\x1f\x8b\x08" + b"\0" * 100,
            b"\0",
            b"\xef\xbb\xbf{}",
        ],
    )
    async def test_bodies(self, server: ReverbServer, body: bytes) -> None:
        assert await call(server, "POST", "/events", body) == (500, "Internal server error.")

    async def test_data_nested_deep(self, server: ReverbServer) -> None:
        body = {"name": "e", "channel": "x", "data": "[" * 4_000}
        assert await call(server, "POST", "/events", body) == (200, "{}")

    async def test_what_follows_a_request_is_not_part_of_it(self, server: ReverbServer) -> None:
        one = b"GET /up HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
        answer = await answer_to(server, one * 50)
        assert answer.count(b"HTTP/1.") == 1
        assert b" 200 " in answer

    @pytest.mark.parametrize("step", [1, 3, 1000])
    def test_reader_takes_bytes_as_they_come(self, step: int) -> None:
        whole = b"POST /x HTTP/1.1\r\nContent-Length: 5\r\nA:  b \r\n\r\nhello"
        reader = RequestReader(10_000)
        found = [reader.feed(whole[at : at + step]) for at in range(0, len(whole), step)]
        assert found[:-1] == [None] * (len(found) - 1)
        assert found[-1] is not None
        assert (found[-1].method, found[-1].path, found[-1].body) == ("POST", "/x", b"hello")
        assert found[-1].headers == {"content-length": ["5"], "a": ["b"]}

    def test_reader_reads_a_head_once(self) -> None:
        """Not again for each byte of the body."""

        def measure(lines: int) -> float:
            reader = RequestReader(100_000)
            assert (
                reader.feed(b"POST /x HTTP/1.1\r\nContent-Length: 5000\r\n" + b"a:b\r\n" * lines + b"\r\n") is None
            )
            begin = time.process_time()
            for _ in range(4_999):
                assert reader.feed(b"x") is None
            return time.process_time() - begin

        assert measure(2_000) < 10 * measure(1) + 0.5

    def test_reader_limits_what_it_keeps(self) -> None:
        reader = RequestReader(100)
        assert reader.feed(b"x" * 100) is None
        with pytest.raises(RequestError, match="too large"):
            reader.feed(b"x")


class TestSlowClients:
    @pytest.fixture(autouse=True)
    def _short_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("reverb.server._engine.TIMEOUT", 0.2)

    @pytest.mark.parametrize(
        "begin", [b"G", b"GET /up HTTP/1.1\r\nX: y\r\n", b"POST /up HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell"]
    )
    @every_loop
    async def test_a_request_that_does_not_end(self, server: ReverbServer, begin: bytes) -> None:
        assert await answer_to(server, begin) == b"HTTP/1.1 408 Request Timeout\r\n\r\nRequest timeout."
        assert "408: Request timeout." in server.report()

    @every_loop
    async def test_a_request_that_comes_byte_by_byte(self, server: ReverbServer) -> None:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        answer = asyncio.ensure_future(soon(reader.read()))
        while not answer.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b"x")
                await writer.drain()
            await asyncio.sleep(0.01)
        assert b" 408 " in answer.result()
        writer.close()

    @every_loop
    async def test_a_connection_without_a_request(self, server: ReverbServer) -> None:
        assert await answer_to(server) == b""
        assert "answered" not in server.report()

    @every_loop
    async def test_a_websocket_may_be_silent(self, server: ReverbServer, clients: Clients) -> None:
        client = await clients.open(server)
        assert await answer_to(server) == b""
        await client.quiet()

    @every_loop
    async def test_a_client_that_does_not_read_its_end(self, server: ReverbServer, clients: Clients) -> None:
        client = await clients.open(server)
        await client.joined("x")
        await publish(server, 2_000)
        server.drop()
        await client.cut_off()


class TestEndWhileSending:
    """TCP resets a connection that is closed with something unread, and the client may lose what was written."""

    @pytest.fixture(params=[False, True], ids=["ws", "wss"])
    async def client(
        self, clients: Clients, tmp_path: Path, request: pytest.FixtureRequest
    ) -> AsyncIterator[Client]:
        certificates = make_certificates(tmp_path)
        async with ReverbServer(ssl_context=certificates.server if request.param else None) as server:
            client = await clients.raw(server, ssl_context=certificates.client if request.param else None)
            await client.greeted()
            yield client

    @pytest.mark.parametrize("size", [70_000, 400_000])
    @every_loop
    async def test_a_message_that_is_too_long(self, client: Client, size: int) -> None:
        client.send(b"x" * size)
        assert await client.frame() == (0x80 | CLOSE, b"\x03\xf1Maximum message size exceeded")
        assert await client.rest() == b""

    @every_loop
    async def test_more_behind_a_close_frame(self, client: Client) -> None:
        client.send(b"\x03\xe8", CLOSE)
        client.send(b"x" * 400_000)
        assert await client.frame() == (0x80 | CLOSE, b"\x03\xe8")
        assert await client.rest() == b""

    @every_loop
    async def test_an_unknown_application(self, server: ReverbServer, clients: Clients) -> None:
        client = await clients.raw(server, "/app/nope")
        client.send(b"x" * 400_000)
        assert await client.text() == error(4001, "Application does not exist")
        assert await client.rest() == b""

    @every_loop
    async def test_a_connection_that_is_dropped(self, server: ReverbServer, clients: Clients) -> None:
        client = await clients.open(server)
        client.send({"event": "pusher:ping", "data": {"x": "x" * 9_000}})
        server.drop()
        assert await client.rest() == b""

    @every_loop
    async def test_a_request_that_is_too_long(self, server: ReverbServer) -> None:
        head = b"POST /apps/app-id/events HTTP/1.1\r\nContent-Length: 400000\r\n\r\n"
        assert (await answer_to(server, head, b"x" * 400_000)).endswith(b"\r\n\r\nPayload too large.")

    @every_loop
    async def test_a_client_that_does_not_close(
        self, server: ReverbServer, clients: Clients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reverb.server._engine._LINGER", 0.05)
        client = await clients.open(server)
        server.drop()
        assert await client.rest() == b""
        await client.cut_off(pause=0.2)

    @every_loop
    async def test_a_client_that_does_not_stop(
        self, server: ReverbServer, clients: Clients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reverb.server._engine.TIMEOUT", 0.5)
        client = await clients.open(server)
        server.drop()
        await client.cut_off()


async def publish(server: ReverbServer, count: int) -> None:
    """Publish events of 8 KB."""
    for number in range(count):
        await server.publish("x", "e", str(number) * (8_000 // len(str(number))))


class TestUnread:
    """What is written for clients that don't read it."""

    @every_loop
    async def test_too_much(self, server: ReverbServer, clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("reverb.server._engine.MAX_UNREAD", 1_000_000)
        seen: list[Entry] = []
        server.watch(seen.append)
        stuck, other = await clients.open(server), await clients.open(server)
        for client in (stuck, other):
            await client.joined("x")
        for _ in range(2_000):
            await publish(server, 1)
            await other.text()
        assert [each.socket_id for each in server.connections] == [other.socket_id]
        (ended,) = [entry for entry in seen if entry.failed]
        assert ended.socket_id == stuck.socket_id
        assert re.fullmatch(r"closed: the client did not read \d+ bytes", ended.text)
        await stuck.cut_off()
        await other.quiet()

    @every_loop
    async def test_answers_count(
        self, server: ReverbServer, clients: Clients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reverb.server._engine.MAX_UNREAD", 1_000_000)
        stuck = await clients.open(server)

        async def flood() -> None:
            while server.connections:
                for _ in range(100):
                    stuck.send(b"x" * 125, PING)
                await asyncio.sleep(0)

        await soon(flood())
        assert "closed: the client did not read" in server.report()

    async def test_what_is_delayed_counts(
        self, server: ReverbServer, clients: Clients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reverb.server._engine.MAX_UNREAD", 1_000_000)
        client, other = await clients.open(server), await clients.open(server)
        await client.joined("x")
        server.delay(60)
        await publish(server, 200)
        assert [each.socket_id for each in server.connections] == [other.socket_id]
        server.heal()
        await other.quiet()

    @pytest.mark.parametrize("secure", [False, True])
    @every_loop
    async def test_a_slow_client_gets_everything(self, clients: Clients, tmp_path: Path, secure: bool) -> None:
        certificates = make_certificates(tmp_path)
        async with ReverbServer(ssl_context=certificates.server if secure else None) as server:
            client = await clients.raw(server, ssl_context=certificates.client if secure else None)
            await client.greeted()
            await client.joined("x")
            await publish(server, 3_000)
            for number in range(3_000):
                assert f'"data":"{number}' in await client.text()
            await client.quiet()

    @every_loop
    async def test_a_slow_client_gets_everything_before_its_end(
        self, server: ReverbServer, clients: Clients
    ) -> None:
        client = await clients.open(server)
        await client.joined("x")
        await publish(server, 3_000)
        server.drop()
        for number in range(3_000):
            assert f'"data":"{number}' in await client.text()
        assert await client.rest() == b""


class TestFloods:
    @only_asyncio
    async def test_others_have_their_turn(self, server: ReverbServer, clients: Clients) -> None:
        """However many messages a client sends at once. Not on uvloop, which reads on as long as there is more."""
        client = await clients.open(server)
        loop = asyncio.get_running_loop()
        handled = [0]

        def tick() -> None:
            handled.append(0)
            ticking[0] = loop.call_soon(tick)

        def count(entry: Entry) -> None:
            handled[-1] += 1

        ticking = [loop.call_soon(tick)]
        server.watch(count)
        for _ in range(40_000):
            client.send("{}")
        await until(lambda: sum(handled) == 40_000, 20)
        ticking[0].cancel()
        assert max(handled) <= 16 * 1024 / 8

    async def test_a_message_without_end(self, server: ReverbServer, clients: Clients) -> None:
        client = await clients.open(server)
        client.send(b"", fin=False)
        for _ in range(20_000):
            client.send(b"", CONTINUATION, fin=False)
        client.send('{"event":"pusher:ping"}', CONTINUATION)
        assert await client.text() == '{"event":"pusher:pong"}'

    async def test_many_channels(self, server: ReverbServer, clients: Clients) -> None:
        client = await clients.open(server)
        for number in range(5_000):
            client.send({"event": "pusher:subscribe", "data": {"channel": str(number)}})
        for _ in range(5_000):
            assert "subscription_succeeded" in await client.text()
        assert len(server.subscriptions) == 5_000
        client.drop()
        await server.wait_for_connections(0)
        assert server.subscriptions == {}

    async def test_many_connections(self, server: ReverbServer, clients: Clients) -> None:
        idle = [await asyncio.open_connection(server.host, server.port) for _ in range(200)]
        assert await request(server, "GET", "/up") == (200, '{"health":"OK"}')
        await (await clients.open(server)).quiet()
        for _, writer in idle:
            writer.close()

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 9_000,
            '{"event":' * 900,
            '{"event":"client-x","channel":"private-x","data":' + "9" * 5_000 + "}",
            '{"event":"client-x","channel":"private-x","data":1e999}',
            '{"event":"pusher:subscribe","data":{"channel":"\\ud83d"}}',
            '{"event":"pusher:subscribe","data":{"channel":"x","channel_data":"' + "[" * 5_000 + '"}}',
            '{"event":"pusher:subscribe","data":{"channel":[1e400]}}',
            '{"event":"pusher:subscribe","data":"' + "[" * 5_000 + '"}',
        ],
    )
    async def test_messages(self, server: ReverbServer, clients: Clients, text: str) -> None:
        client = await clients.open(server)
        client.send(text)
        assert await client.text() == INVALID
        await client.quiet()

    @pytest.mark.parametrize(
        ("payload", "code"),
        [(b"\x03\xe8\xff\xfe", 1007), (b"\x03\xe8\xed\xa0\x80", 1007), (b"\xff\xff", 1002), (b"\0\0", 1002)],
    )
    async def test_close_frames(self, server: ReverbServer, clients: Clients, payload: bytes, code: int) -> None:
        client = await clients.open(server)
        client.send(payload, CLOSE)
        opcode, echoed = await client.frame()
        assert (opcode, int.from_bytes(echoed[:2], "big")) == (0x80 | CLOSE, code)
        assert await client.rest() == b""


class TestMemory:
    async def test_events_are_forgotten_when_they_are_too_many(self, server: ReverbServer) -> None:
        for number in range(10_100):
            await server.publish("x", "e", number)
        assert [event.data for event in server.events] == list(range(100, 10_100))
        assert (await server.wait_for_event("x", "e")).data == 100

    async def test_events_are_forgotten_when_they_are_too_large(self, server: ReverbServer) -> None:
        await publish(server, 3_000)
        kept = sum(len(event.data) for event in server.events)
        assert 15_000_000 < kept <= 16 * 1024 * 1024
        assert await server.wait_for_event("x", "e") is server.events[0]

    async def test_client_events_count(self, server: ReverbServer, clients: Clients) -> None:
        client = await clients.open(server)
        await client.joined("x")
        for _ in range(2_000):
            client.trigger("x", json.dumps({"text": "x" * 9_000}))
        await client.quiet()
        assert 16 * 1024 * 1024 / 9_100 - 10 < len(server.events) <= 16 * 1024 * 1024 / 9_000

    async def test_channels_share_the_data_of_an_event(self, server: ReverbServer) -> None:
        names = [f"{number}" for number in range(1_000)]
        body = {"name": "e", "channels": names, "data": "[" + "{}," * 300 + "{}]"}
        assert await call(server, "POST", "/events", body) == (200, "{}")
        assert [event.channel for event in server.events] == names
        assert len({id(event.data) for event in server.events}) == 1


class TestReport:
    """What clients write is visible in it, and does nothing to a terminal."""

    NASTY = "a\r\n12:00:00  -  forged\x1b[2J\x07\u202e\x9b31m"
    SHOWN = r"a\r\n12:00:00  -  forged\x1b[2J\x07\u202e\x9b31m"

    @pytest.fixture
    async def client(self, server: ReverbServer, clients: Clients) -> Client:
        return await clients.open(server)

    @pytest.fixture(autouse=True)
    async def _report(self, server: ReverbServer) -> AsyncIterator[None]:
        seen: list[Entry] = []
        server.watch(seen.append)
        yield
        assert self.SHOWN in server.report()
        for text in [*server.report().splitlines(), *(entry.text for entry in seen)]:
            assert text.isprintable()
            assert len(text) < 2_000

    @pytest.mark.parametrize("path", ["/{}", "/app/{}", "/apps/{}/events"])
    async def test_paths(self, server: ReverbServer, path: str) -> None:
        quoted = path.format(urllib.parse.quote(self.NASTY))
        await answer_to(server, f"GET {quoted}{'x' * 5_000} HTTP/1.1\r\nUpgrade: websocket\r\n\r\n".encode())

    async def test_methods(self, server: ReverbServer) -> None:
        await answer_to(server, b"A\x1b[2J\x07 /%s HTTP/1.1\r\n\r\n" % urllib.parse.quote(self.NASTY).encode())

    @pytest.mark.parametrize("channel", [NASTY, NASTY + "x" * 5_000])
    async def test_channels(self, client: Client, channel: str) -> None:
        await client.joined(channel)
        client.send({"event": "pusher:unsubscribe", "data": {"channel": channel}})
        client.send({"event": "pusher:subscribe", "data": {"channel": f"private-{channel}"}})
        assert await client.text() == UNAUTHORIZED

    async def test_users(self, client: Client) -> None:
        data = {"user_id": self.NASTY + "x" * 5_000, "user_info": {}}
        await client.joined("presence-x", json.dumps(data))

    async def test_client_events(self, client: Client) -> None:
        await client.joined("x")
        client.send({"event": f"client-{self.NASTY}", "channel": "x", "data": {self.NASTY: self.NASTY * 50}})
        await client.quiet()

    async def test_published_events(self, server: ReverbServer) -> None:
        body = {"name": self.NASTY * 10, "channel": self.NASTY * 10, "data": self.NASTY * 50}
        assert await call(server, "POST", "/events", body) == (200, "{}")
        with pytest.raises(AssertionError) as raised:
            server.assert_published("x", "e")
        assert all(line.isprintable() for line in str(raised.value).splitlines())
