"""The HTTP API; statuses and bodies are recordings of real Reverb."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reverb.auth import sign_request
from reverb.server import ReverbServer
from tests.loops import every_loop
from tests.server.clients import Client, Clients, call, request

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

    async def test_channel_name_that_is_none(self, server: ReverbServer) -> None:
        body = {"name": "e", "channels": [["x"]], "data": "1"}
        assert await call(server, "POST", "/events", body) == FAULT


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
