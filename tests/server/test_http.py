"""The HTTP API; statuses and bodies are recordings of real Reverb."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from reverb._signatures import hmac_hex, sign_request
from reverb.server import ReverbServer
from tests.loops import every_loop
from tests.server.clients import Client, Clients, call, request, soon

FAULT = (500, "Internal server error.")
UNSIGNED = (401, "Authentication signature invalid.")


@pytest.fixture
async def client(server: ReverbServer, clients: Clients) -> Client:
    return await clients.open(server)


@pytest.fixture
async def other(server: ReverbServer, clients: Clients) -> Client:
    return await clients.open(server)


def event(channel: str, data: str = r"{}", name: str = "e") -> str:
    return f'{{"event":"{name}","data":"{data}","channel":"{channel}"}}'


@every_loop
async def test_up(server: ReverbServer) -> None:
    assert await request(server, "GET", "/up") == (200, '{"health":"OK"}')


class TestSignature:
    BODY = '{"name":"e","channel":"x","data":"{}"}'

    async def test_wrong(self, server: ReverbServer) -> None:
        assert await call(server, "POST", "/events", self.BODY, secret="wrong") == UNSIGNED

    async def test_missing(self, server: ReverbServer) -> None:
        assert await request(server, "POST", "/apps/app-id/events", self.BODY.encode()) == UNSIGNED

    async def test_not_ascii(self, server: ReverbServer) -> None:
        path = "/apps/app-id/channels?auth_signature=%C3%A9"
        assert await request(server, "GET", path) == UNSIGNED

    async def test_covers_the_body(self, server: ReverbServer) -> None:
        path = "/apps/app-id/events"
        query = sign_request("app-key", "app-secret", "POST", path, {}, b"other", 0)
        url = f"{path}?{'&'.join(f'{name}={value}' for name, value in query.items())}"
        assert await request(server, "POST", url, self.BODY.encode()) == UNSIGNED

    async def test_covers_the_query(self, server: ReverbServer) -> None:
        status, _ = await call(server, "GET", "/channels", query={"info": "user_count"})
        assert status == 200

    async def test_key_and_timestamp_do_not_matter(self, server: ReverbServer) -> None:
        assert await call(server, "POST", "/events", self.BODY, key="other") == (200, "{}")

    async def test_path_as_sent(self, server: ReverbServer, client: Client) -> None:
        await client.joined("a ~b")
        assert await call(server, "GET", "/channels/a%20%7Eb") == (200, '{"occupied":true}')

    async def test_body_md5_in_the_query_does_not_matter(self, server: ReverbServer) -> None:
        path = "/apps/app-id/channels"
        query = sign_request("app-key", "app-secret", "GET", path, {}, b"", 0) | {"body_md5": "anything"}
        url = f"{path}?{'&'.join(f'{name}={value}' for name, value in query.items())}"
        assert await request(server, "GET", url) == (200, '{"channels":[]}')

    @pytest.mark.parametrize(
        ("sent", "signed"),
        [
            ("info[]=user_count", "info=user_count"),  # and not as the publisher signs it
            ("b[]=1&b[x]=2&b[]=3&b[x]=4", "b=1,4,3"),
            ("b=1&b[]=2", "b=2"),
            ("b[]=1&b=2", "b=2"),
            ("b=1&b=2", "b=2"),
            ("a.b=1&%20c+d=2", "a_b=1&c_d=2"),
            ("b[x.[=1", "b_x__=1"),
            ("b[x]y=1", "b=1"),
            ("b%5B%5D=%2B+%26", "b=+ &"),
            ("b", "b="),
            ("=1&&[]=2", ""),
            ("appId=1&appKey=2&channelName=3", ""),
            ("b=%FF", "b=\udcff"),
        ],
    )
    async def test_query_as_php_reads_it(self, server: ReverbServer, sent: str, signed: str) -> None:
        path = "/apps/app-id/connections"
        answer = (200, '{"connections":0}')
        assert await self.ask(server, path, sent, signed) == answer
        assert await self.ask(server, path, sent, sent) == (answer if sent == signed else UNSIGNED)

    async def ask(self, server: ReverbServer, path: str, sent: str, signed: str) -> tuple[int, str]:
        text = f"GET\n{path}\n{signed}".encode(errors="surrogateescape")
        return await request(server, "GET", f"{path}?{sent}&auth_signature={hmac_hex('app-secret', text)}")

    @pytest.mark.parametrize("path", ["/channels", "/channels/x"])
    async def test_list_for_an_option(self, server: ReverbServer, path: str) -> None:
        assert await self.ask(server, f"/apps/app-id{path}", "info[]=x", "info=x") == FAULT

    async def test_space_in_a_query(self, server: ReverbServer) -> None:
        """The target ends there, and so do the parameters."""
        path = "/apps/app-id/channels"
        query = sign_request("app-key", "app-secret", "GET", path, {"filter_by_prefix": "a b"}, b"", 0)
        parameters = "&".join(f"{name}={value}" for name, value in query.items())
        for space, answer in ((" ", b"401 Unauthorized"), ("%20", b"200 OK"), ("+", b"200 OK")):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(f"GET {path}?{parameters.replace(' ', space)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert (await soon(reader.read())).partition(b"\r\n")[0].endswith(answer)
            writer.close()

    async def test_list_in_a_list(self, server: ReverbServer) -> None:
        assert await self.ask(server, "/apps/app-id/connections", "b[x][]=1", "b=1") == FAULT
        assert (await request(server, "GET", "/apps/other/connections?b[x][]=1"))[0] == 404

    async def test_list_for_a_signature(self, server: ReverbServer) -> None:
        assert await request(server, "GET", "/apps/app-id/connections?auth_signature[]=x") == UNSIGNED

    async def test_path_without_prefix(self) -> None:
        async with ReverbServer(path="/ws") as server:
            assert await call(server, "POST", "/events", self.BODY, prefix="/ws") == (200, "{}")
            assert await call(server, "POST", "/events", self.BODY) == (404, "Not found.")


class TestRefusals:
    async def test_unknown_app(self, server: ReverbServer) -> None:
        answer = (404, "No matching application for ID [other].")
        assert await request(server, "POST", "/apps/other/events", b"{}") == answer

    async def test_wrong_path(self, server: ReverbServer) -> None:
        assert await request(server, "GET", "/apps") == (404, "Not found.")

    async def test_wrong_method(self, server: ReverbServer) -> None:
        assert await request(server, "GET", "/apps/app-id/events") == (405, "Method not allowed.")

    async def test_head_is_answered_as_get(self, server: ReverbServer) -> None:
        """With the body, too, though nobody reads it."""

        async def head(path: str) -> bytes:
            query = sign_request("app-key", "app-secret", "HEAD", path, {}, b"", 0)
            url = f"{path}?{'&'.join(f'{name}={value}' for name, value in query.items())}"
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(f"HEAD {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = await soon(reader.read())
            writer.close()
            return answer

        answer = await head("/apps/app-id/connections")
        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
        assert answer.endswith(b'\r\n\r\n{"connections":0}')
        assert (await head("/apps/app-id/events")).startswith(
            b"HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\n"
        )

    async def test_websocket_path_without_upgrade(self, server: ReverbServer) -> None:
        assert await request(server, "GET", "/app/app-key") == FAULT

    @pytest.mark.parametrize("body", ["{nope", "5", '"x"', "null"])
    async def test_not_an_object(self, server: ReverbServer, body: str) -> None:
        assert await call(server, "POST", "/events", body) == FAULT

    async def test_too_large(self, server: ReverbServer) -> None:
        body = {"name": "e", "channel": "x", "data": "x" * 10_000}
        assert await call(server, "POST", "/events", body) == (413, "Payload too large.")

    @every_loop
    async def test_head_counts(self, server: ReverbServer, clients: Clients) -> None:
        body = {"name": "e", "channel": "x", "data": "x" * 9_000}
        assert await call(server, "POST", "/events", body) == (200, "{}")
        headers = {"X-Long": "x" * 5_000, "X-Longer": "x" * 5_000}
        assert await request(server, "GET", "/up", headers=headers) == (413, "Payload too large.")
        client = await clients.raw(server, headers=headers)
        assert client.head.startswith("HTTP/1.1 413 ")

    @every_loop
    async def test_connection_is_closed(self, server: ReverbServer, clients: Clients) -> None:
        client = await clients.raw(server, "/up", headers={"Upgrade": "no"})
        assert client.head.startswith("HTTP/1.0 200 OK\r\n")
        assert await client.rest() == b'{"health":"OK"}'


class TestPublish:
    async def test_to_a_channel(self, server: ReverbServer, client: Client, other: Client) -> None:
        for each in (client, other):
            await each.joined("u")
        data = '{"k":"é € 😀 / <b> \\u2028"}'
        body = {"name": "App\\Events\\Shipped", "channel": "u", "data": data}
        assert await call(server, "POST", "/events", body) == (200, "{}")
        for each in (client, other):
            assert await each.text() == (
                r'{"event":"App\\Events\\Shipped","data":'
                r'"{\"k\":\"\u00e9 \u20ac \ud83d\ude00 \/ <b> \\u2028\"}","channel":"u"}'
            )

    @every_loop
    async def test_to_channels(self, server: ReverbServer, client: Client, other: Client) -> None:
        for name in ("pub", "pub2"):
            await client.joined(name)
        await other.joined("pub2")
        body = {"name": "e", "channels": ["pub", "pub2", "nobody"], "data": "just text"}
        assert await call(server, "POST", "/events", body) == (200, "{}")
        assert await client.text() == event("pub", "just text")
        assert await client.text() == event("pub2", "just text")
        assert await other.text() == event("pub2", "just text")

    async def test_except_for(self, server: ReverbServer, client: Client, other: Client) -> None:
        for each in (client, other):
            await each.joined("pub")
        body = {"name": "pusher:custom", "channel": "pub", "data": "1", "socket_id": client.socket_id}
        assert await call(server, "POST", "/events", body) == (200, "{}")
        assert await other.text() == event("pub", "1", "pusher:custom")
        await client.quiet()
        assert await call(server, "POST", "/events", {**body, "socket_id": "1.1"}) == (200, "{}")
        assert await client.text() == event("pub", "1", "pusher:custom")

    async def test_info(self, server: ReverbServer, client: Client, other: Client) -> None:
        for each in (client, other):
            await each.joined("pub")
        await client.joined("presence-room", '{"user_id":"1","user_info":{}}')
        body = {"name": "e", "channels": ["pub", "presence-room", "nobody"], "data": "{}"}
        wanted = {"info": "subscription_count,user_count"}
        assert await call(server, "POST", "/events", body | wanted) == (
            200,
            '{"channels":{"pub":{"subscription_count":2},"presence-room":{"user_count":1},"nobody":{}}}',
        )

    @pytest.mark.parametrize(
        ("change", "errors"),
        [
            ({"data": ""}, {"data": ["The data field is required."]}),
            ({"data": "\0\v "}, {"data": ["The data field is required."]}),
            ({"channels": 5}, {"channels": ["The channels field must be an array."]}),
            ({"channels": None}, {"channels": ["The channels field must be an array."]}),
            ({"channel": None, "channels": ["x"]}, {"channel": ["The channel field must be a string."]}),
            ({"data": {"x": 1}}, {"data": ["The data field must be a string."]}),
            ({"name": None}, {"name": ["The name field is required."]}),
            ({"name": 5}, {"name": ["The name field must be a string."]}),
            ({"channel": 5}, {"channel": ["The channel field must be a string."]}),
            ({"channels": "x"}, {"channels": ["The channels field must be an array."]}),
            ({"socket_id": 1}, {"socket_id": ["The socket id field must be a string."]}),
            ({"info": []}, {"info": ["The info field must be a string."]}),
            (
                {"channel": ""},
                {
                    "channels": ["The channels field is required when channel is not present."],
                    "channel": ["The channel field is required when channels is not present."],
                },
            ),
        ],
    )
    async def test_invalid(self, server: ReverbServer, change: dict[str, Any], errors: dict[str, Any]) -> None:
        status, body = await call(server, "POST", "/events", {"name": "e", "channel": "x", "data": "1"} | change)
        assert (status, json.loads(body)) == (422, errors)

    async def test_list_for_a_body(self, server: ReverbServer) -> None:
        status, body = await call(server, "POST", "/events", "[]")
        assert (status, list(json.loads(body))) == (422, ["name", "data", "channels", "channel"])

    @pytest.mark.parametrize("name", [None, ["x"], {}])
    async def test_channel_name_that_is_none(self, server: ReverbServer, client: Client, name: Any) -> None:
        """What comes before it is published."""
        await client.joined("x")
        await client.joined("y")
        body = {"name": "e", "channels": ["x", name, "y"], "data": "1"}
        assert await call(server, "POST", "/events", body) == FAULT
        assert await client.text() == event("x", "1")
        await client.quiet()

    @pytest.mark.parametrize(
        ("channels", "names"),
        [
            ([7, 1.5, True], ["7", "1.5", "1"]),
            ({"a": "x", "b": 7}, ["x", "7"]),
            ([False], []),
            ({"a": "0"}, ["0"]),
        ],
    )
    async def test_channels_that_php_makes_names_of(
        self, server: ReverbServer, client: Client, channels: Any, names: list[str]
    ) -> None:
        for name in names:
            client.subscribe(name)
            assert "succeeded" in await client.text()
        body = {"name": "e", "channels": channels, "data": "1"}
        assert await call(server, "POST", "/events", body) == (200, "{}")
        for name in names:
            assert await client.text() == event(name, "1")

    async def test_infos_of_numbered_channels(self, server: ReverbServer, client: Client) -> None:
        await client.joined("x")
        body: dict[str, Any] = {"name": "e", "data": "1", "info": "occupied"}
        body["channels"] = {"a": "x", "b": 7}
        answer = '{"channels":{"x":{"occupied":true},"7":{"occupied":false}}}'
        assert await call(server, "POST", "/events", body) == (200, answer)
        body["channels"] = [0, 1]
        answer = '{"channels":[{"occupied":false},{"occupied":false}]}'
        assert await call(server, "POST", "/events", body) == (200, answer)

    async def test_cached_event_is_fit_for_html(self, server: ReverbServer, client: Client) -> None:
        await client.joined("cache-c")
        await client.text()
        body = {"name": "<e>", "channel": "cache-c", "data": "\\\"'&/é", "info": "cache"}
        assert await call(server, "POST", "/events", body) == (
            200,
            r'{"channels":{"cache-c":{"cache":{"event":"\u003Ce\u003E",'
            r'"data":"\\\u0022\u0027\u0026\/\u00e9","channel":"cache-c"}}}}',
        )
        await client.text()
        client.trigger("cache-c", "[1E400]")
        await client.quiet()
        assert await call(server, "GET", "/channels/cache-c") == (200, '{"occupied":true}')
        assert await call(server, "GET", "/channels/cache-c", query={"info": "cache"}) == FAULT


class TestBatch:
    async def test_events(self, server: ReverbServer, client: Client, other: Client) -> None:
        await client.joined("pub")
        await client.joined("pub2")
        await other.joined("pub2")
        batch = [
            {"name": "e1", "channel": "pub", "data": "1", "socket_id": "1.1"},
            {"name": "e2", "channel": "pub2", "data": '{"z":2}'},
        ]
        assert await call(server, "POST", "/batch_events", {"batch": batch}) == (200, '{"batch":{}}')
        second = r'{"event":"e2","channel":"pub2","data":"{\"z\":2}"}'
        assert await client.text() == '{"event":"e1","channel":"pub","data":"1"}'
        assert await client.text() == await other.text() == second

    async def test_info(self, server: ReverbServer, client: Client) -> None:
        await client.joined("pub")
        batch = [
            {"name": "e1", "channel": "pub", "data": "1", "info": "subscription_count"},
            {"name": "e2", "channel": "pub", "data": "2"},
        ]
        assert await call(server, "POST", "/batch_events", {"batch": batch}) == (
            200,
            '{"batch":[{"subscription_count":1},{}]}',
        )

    @pytest.mark.parametrize(
        ("batch", "answer"),
        [
            ({"a": 1}, '{"batch":{"a":{"occupied":false}}}'),
            ({"0": 1, "1": 2}, '{"batch":[{"occupied":false},{"occupied":false}]}'),
            ({"1": 1}, '{"batch":{"1":{"occupied":false}}}'),
        ],
    )
    async def test_object(self, server: ReverbServer, batch: dict[str, Any], answer: str) -> None:
        events = {key: {"name": "e", "channel": "x", "data": "1", "info": "occupied"} for key in batch}
        assert await call(server, "POST", "/batch_events", {"batch": events}) == (200, answer)

    async def test_channels_beside_the_batch(self, server: ReverbServer, client: Client) -> None:
        """Laravel looks for them there, and Reverb needs the event's own."""
        await client.joined("x")
        batch = [{"name": "e", "channel": "x", "data": "1"}, {"name": "e", "data": "1"}]
        assert await call(server, "POST", "/batch_events", {"batch": batch, "channels": ["x"]}) == FAULT
        assert await client.text() == '{"event":"e","channel":"x","data":"1"}'
        await client.quiet()

    async def test_errors_are_in_the_order_of_the_rules(self, server: ReverbServer) -> None:
        batch = [{"channel": "x", "info": 1}, {"channel": "x", "socket_id": 1}]
        status, body = await call(server, "POST", "/batch_events", {"batch": batch})
        names = [
            "batch.0.name",
            "batch.1.name",
            "batch.0.data",
            "batch.1.data",
            "batch.1.socket_id",
            "batch.0.info",
        ]
        assert (status, list(json.loads(body))) == (422, names)

    async def test_connected_socket_id(self, server: ReverbServer, client: Client) -> None:
        await client.joined("pub")
        first = {"name": "e1", "channel": "pub", "data": "1"}
        batch = [first, {**first, "socket_id": client.socket_id}]
        assert await call(server, "POST", "/batch_events", {"batch": batch}) == FAULT
        assert await client.text() == '{"event":"e1","channel":"pub","data":"1"}'
        await client.quiet()

    @pytest.mark.parametrize(
        ("batch", "errors"),
        [
            (None, {"batch": ["The batch field is required."]}),
            ([], {"batch": ["The batch field is required."]}),
            ("x", {"batch": ["The batch field must be an array."]}),
            ([{"channel": "x", "data": "1"}], {"batch.0.name": ["The batch.0.name field is required."]}),
            (
                [{"name": "e", "data": "1"}],
                {"batch.0.channel": ["The batch.0.channel field is required when channels is not present."]},
            ),
            (
                [{"name": "e", "channel": "x", "data": "1", "socket_id": 1}],
                {"batch.0.socket_id": ["The batch.0.socket_id field must be a string."]},
            ),
            (
                [{"name": "e", "channel": "x", "data": "1"}, {"name": "e", "channel": 5, "data": "1"}],
                {"batch.1.channel": ["The batch.1.channel field must be a string."]},
            ),
        ],
    )
    async def test_invalid(self, server: ReverbServer, batch: Any, errors: dict[str, Any]) -> None:
        status, body = await call(server, "POST", "/batch_events", {"batch": batch})
        assert (status, json.loads(body)) == (422, errors)

    async def test_not_an_object(self, server: ReverbServer) -> None:
        status, body = await call(server, "POST", "/batch_events", {"batch": [5]})
        assert (status, list(json.loads(body))) == (422, ["batch.0.name", "batch.0.data", "batch.0.channel"])


class TestQueries:
    @pytest.fixture(autouse=True)
    async def subscribers(self, client: Client, other: Client) -> None:
        await client.joined("presence-room", '{"user_id":"1","user_info":{}}')
        await other.joined("presence-room", '{"user_id":7,"user_info":{}}')
        await client.text()
        await client.joined("presence-odd", "{}")
        await client.joined("pub")
        await other.joined("pub")

    async def test_channels(self, server: ReverbServer) -> None:
        assert await call(server, "GET", "/channels") == (
            200,
            '{"channels":{"presence-room":{},"presence-odd":{},"pub":{}}}',
        )

    async def test_channels_with_info(self, server: ReverbServer) -> None:
        query = {"info": "subscription_count,user_count"}
        assert await call(server, "GET", "/channels", query=query) == (
            200,
            '{"channels":{"presence-room":{"user_count":2},"presence-odd":{"user_count":1},'
            '"pub":{"subscription_count":2}}}',
        )

    async def test_channels_by_prefix(self, server: ReverbServer) -> None:
        query = {"filter_by_prefix": "presence-r", "info": "user_count"}
        answer = (200, '{"channels":{"presence-room":{"user_count":2}}}')
        assert await call(server, "GET", "/channels", query=query) == answer
        query = {"filter_by_prefix": "none"}
        assert await call(server, "GET", "/channels", query=query) == (200, '{"channels":[]}')

    async def test_channel(self, server: ReverbServer) -> None:
        query = {"info": "subscription_count"}
        answer = (200, '{"occupied":true,"subscription_count":2}')
        assert await call(server, "GET", "/channels/pub", query=query) == answer
        assert await call(server, "GET", "/channels/none", query=query) == (200, '{"occupied":false}')
        assert await call(server, "GET", "/channels/pub") == (200, '{"occupied":true}')

    async def test_users(self, server: ReverbServer, clients: Clients) -> None:
        again = await clients.open(server)
        await again.joined("presence-room", '{"user_id":"7","user_info":{}}')
        answer = (200, '{"users":[{"id":"1"},{"id":7}]}')
        assert await call(server, "GET", "/channels/presence-room/users") == answer
        assert await call(server, "GET", "/channels/none/users") == (404, "{}")
        assert await call(server, "GET", "/channels/pub/users") == (400, "{}")
        assert await call(server, "GET", "/channels/presence-odd/users") == FAULT

    async def test_connections(self, server: ReverbServer, clients: Clients) -> None:
        await clients.open(server)
        assert await call(server, "GET", "/connections") == (200, '{"connections":2}')


class TestTerminateConnections:
    PATH = "/users/7/terminate_connections"
    ROOM, SEVEN, EIGHT = "presence-room", '{"user_id":7,"user_info":{}}', '{"user_id":"8","user_info":{}}'

    async def test_of_one_user(self, server: ReverbServer, clients: Clients) -> None:
        """All connections have a user: those of this user are ended, and nobody else's."""
        first, other, second = [await clients.open(server) for _ in range(3)]
        for client, user in ((first, self.SEVEN), (other, self.EIGHT), (second, '{"user_id":"7","user_info":{}}')):
            await client.joined(self.ROOM, user)
        assert await call(server, "POST", self.PATH, {}) == (200, "{}")
        assert await second.rest() == b""
        assert (await other.text()).endswith(r'"data":"{\"user_id\":\"7\"}","channel":"presence-room"}')
        await other.quiet()

    async def test_fails_at_the_first_without_a_user(self, server: ReverbServer, clients: Clients) -> None:
        """Those before it are ended, those behind it are not."""
        before, public, behind = [await clients.open(server) for _ in range(3)]
        await before.joined(self.ROOM, self.SEVEN)
        await public.joined("pub")
        await behind.joined("presence-other", self.SEVEN)
        assert await call(server, "POST", self.PATH, {}) == FAULT
        assert await before.rest() == b""
        await behind.quiet()
        assert await call(server, "POST", "/users/nobody/terminate_connections", {}) == FAULT

    async def test_order_is_that_of_channels(self, server: ReverbServer, clients: Clients) -> None:
        """What a connection gave to the oldest of its channels counts, whenever it came there."""
        public, client = await clients.open(server), await clients.open(server)
        await public.joined("pub")
        await client.joined(self.ROOM, self.SEVEN)
        await client.joined("pub")
        assert await call(server, "POST", self.PATH, {}) == FAULT
        await client.quiet()

    async def test_without_connections(self, server: ReverbServer, clients: Clients) -> None:
        await clients.open(server)
        assert await call(server, "POST", self.PATH, {}) == (200, "{}")

    async def test_strict(self, clients: Clients) -> None:
        """Connections without a user do no harm, and a user is one wherever it was named."""
        async with ReverbServer(strict=True) as server:
            public, client = await clients.open(server), await clients.open(server)
            await public.joined("pub")
            await client.joined("pub")
            await client.joined(self.ROOM, self.SEVEN)
            assert await call(server, "POST", self.PATH, {}) == (200, "{}")
            assert (await client.text()).startswith(r'{"event":"pusher:error","data":{"code":4009,')
            assert await call(server, "GET", "/connections") == (200, '{"connections":1}')
