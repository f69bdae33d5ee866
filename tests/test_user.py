"""Signing in, against servers that do what a script says: Pusher's, Reverb's and soketi's answers."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import pytest
from aiohttp import web

from reverb import (
    AuthenticationError,
    ChannelAuth,
    ConfigurationError,
    ConnectionError,
    EndpointAuthorizer,
    Events,
    ProtocolError,
    TimeoutError,
    UserAuth,
)
from reverb.auth import sign_user

from .laravel import Laravel
from .scripted import CLOSE, TEXT, Peer, ScriptedServer, encode_frame, encode_message
from .test_client import INVALID, confirm_all, connected
from .test_dispatch import Recorder
from .watching import until

ANN = {"id": 7, "watchlist": ["8"]}


async def sign_in(peer: Peer) -> dict[str, Any]:
    """Answer a sign-in as Pusher does, and the subscribe to the user's own channel."""
    message = await peer.expect("pusher:signin")
    await peer.send("pusher:signin_success", json.dumps(message["data"]))
    await peer.expect("pusher:subscribe", channel="#server-to-user-7")
    await peer.confirm("#server-to-user-7")
    data: dict[str, Any] = message["data"]
    return data


async def test_signing_in_and_what_comes_for_the_user() -> None:
    sent: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        await peer.establish("1.2")
        sent.append(await sign_in(peer))
        await peer.send("hello", '{"n":1}', "#server-to-user-7")
        changes = [
            {"name": "online", "user_ids": ["8", 9]},
            {"name": "offline", "user_ids": ["8"]},
            {"name": "idle", "user_ids": ["8"]},
            {"name": "online"},
            None,
        ]
        await peer.send("pusher_internal:watchlist_events", json.dumps({"events": changes}))
        await peer.send("hello", '{"n":2}', "#server-to-user-7")
        await peer.wait_closed()

    heard, on_client = Recorder(), Recorder()
    async with ScriptedServer(script) as server, connected(server) as client:
        client.bind(Events.SIGNIN_SUCCESS, on_client)
        assert client.user.bind("*", heard) is client.user
        assert (client.user.id, client.user.is_signed_in) == (None, False)
        await client.signin(ANN)
        assert (client.user.id, client.user.is_signed_in) == ("7", True)
        assert repr(client.user) == "<User '7' signed in>"
        assert await heard.wait_for(4) == [
            ("hello", {"n": 1}, "#server-to-user-7"),
            (Events.WATCHLIST_ONLINE, {"user_ids": ["8", "9"]}, "#server-to-user-7"),
            (Events.WATCHLIST_OFFLINE, {"user_ids": ["8"]}, "#server-to-user-7"),
            ("hello", {"n": 2}, "#server-to-user-7"),
        ]
        assert [data for _, data, _ in on_client.calls] == [{"user_data": {"id": "7", "watchlist": ["8"]}}]
        assert client.channels == {}
        client.user.unbind("*")
    assert json.loads(sent[0]["user_data"]) == {"id": "7", "watchlist": ["8"]}
    assert sent[0]["auth"] == sign_user("app-key", "app-secret", "1.2", sent[0]["user_data"])
    assert not client.user.is_signed_in


async def test_each_connection_is_signed_in() -> None:
    heard = Recorder()

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        await sign_in(peer)
        if peer.number == 1:
            peer.reset()
            return
        await peer.send("hello", "1", "#server-to-user-7")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        client.user.bind("hello", heard)
        await client.signin(ANN)
        assert await heard.wait_for(1) == [("hello", 1, "#server-to-user-7")]
        assert client.user.is_signed_in


async def test_reverb_knows_no_users_and_nothing_else_breaks() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:signin")
        await peer.send("pusher:error", INVALID)
        await peer.expect("pusher:subscribe", channel="news")
        await peer.confirm("news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        with pytest.raises(ProtocolError, match="does not support the sign-in of users") as caught:
            await client.signin(ANN)
        assert caught.value.code == 4200
        assert (await client.subscribe("news")).is_subscribed
        assert not client.user.is_signed_in


@pytest.mark.parametrize("trouble", ["no route", "403", "503", "hang", "not answered", "rate limit"])
async def test_on_reverb_it_is_not_the_endpoints_fault(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverb.auth._RETRY_DELAYS", (0.01,))

    async def script(peer: Peer) -> None:
        await peer.upgrade({"X-Powered-By": "Laravel Reverb"})
        await peer.send("pusher:connection_established", '{"socket_id":"1.2","activity_timeout":30}')
        if trouble in ("not answered", "rate limit"):
            await peer.expect("pusher:signin")
            if trouble == "rate limit":
                await peer.send("pusher:error", r'{"code":4301,"message":"Rate limit exceeded"}')
            else:
                await peer.expect("pusher:ping")
                await peer.send("pusher:pong")
        await peer.expect("pusher:subscribe", channel="private-x")
        await peer.confirm("private-x")
        await peer.wait_closed()

    laravel = Laravel()
    laravel.user_routes = trouble != "no route"
    async with laravel, ScriptedServer(script) as server:
        authorizer = EndpointAuthorizer(laravel.url, token=laravel.token)
        async with connected(server, authorizer=authorizer, subscribe_timeout=0.5) as client:
            if trouble.isdigit():
                laravel.answers.extend(web.Response(status=int(trouble)) for _ in range(2))
            laravel.delay = 5 if trouble == "hang" else 0
            with pytest.raises(
                ProtocolError, match="does not support the sign-in of users, as it is Laravel Reverb"
            ) as caught:
                await client.signin()
            assert isinstance(caught.value.__cause__, (AuthenticationError, TimeoutError))
            assert str(caught.value.__cause__) in str(caught.value)
            laravel.delay = 0
            laravel.answers.clear()
            assert (await client.subscribe("private-x")).is_subscribed
            assert not client.user.is_signed_in


async def test_an_endpoint_without_a_route_for_users_on_another_server() -> None:
    laravel = Laravel()
    laravel.user_routes = False
    async with laravel, ScriptedServer(confirm_all) as server:
        authorizer = EndpointAuthorizer(laravel.url, token=laravel.token)
        async with connected(server, authorizer=authorizer) as client:
            with pytest.raises(
                AuthenticationError, match=r"user-auth .*404, .*Broadcast::userRoutes\(\)"
            ) as caught:
                await client.signin()
            assert caught.value.code == 404


async def test_a_refusal_by_soketi_names_the_reason() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:signin")
        refusal = encode_message("pusher:error", {"code": 4009, "message": "Connection not authorized."})
        end = struct.pack("!H", 4009)
        await peer.send_raw(encode_frame(TEXT, refusal) + encode_frame(CLOSE, end))  # which arrive together
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        with pytest.raises(AuthenticationError, match="Connection not authorized"):
            await client.signin(ANN)


async def test_a_refusal_after_a_reconnect_is_reported() -> None:
    errors = Recorder()

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        if peer.number == 1:
            await sign_in(peer)
            peer.reset()
            return
        await peer.expect("pusher:signin")
        await peer.send("pusher:error", INVALID)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        client.bind(Events.CLIENT_ERROR, errors)
        await client.signin(ANN)
        ((_, data, _),) = await errors.wait_for(1)
        assert isinstance(data["exception"], ProtocolError)


@pytest.mark.parametrize("how", ["silence", "loss"])
async def test_a_server_that_does_not_answer(how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        if peer.number == 1:
            await peer.expect("pusher:signin")
            if how == "loss":
                peer.reset()
                return
        await peer.wait_closed()

    expected: type[Exception] = TimeoutError if how == "silence" else ConnectionError
    async with ScriptedServer(script) as server, connected(server, subscribe_timeout=0.3) as client:
        with pytest.raises(expected, match=r"did not answer|lost the connection"):
            await client.signin(ANN)
        if how == "silence":
            with pytest.raises(ProtocolError, match="not answered an earlier"):
                await client.signin(ANN)
            assert client.is_connected


async def test_two_sign_ins_at_once_go_one_after_another() -> None:
    """The second is sent when the first is answered: so each gets its own answer, and the last one counts."""
    order: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.establish()
        for user_id in ("7", "8"):
            message = await peer.expect("pusher:signin")
            order.append(user_id)
            assert json.loads(message["data"]["user_data"]) == {"id": user_id}
            await peer.send("pusher:ping")
            await peer.expect("pusher:pong")  # and nothing before it
            order.append("answer")
            if user_id == "7":
                await peer.send("pusher:error", {"code": 4009, "message": "Connection not authorized."})
            else:
                await peer.send("pusher:signin_success", json.dumps(message["data"]))
        await peer.expect("pusher:subscribe", channel="#server-to-user-8")
        await peer.confirm("#server-to-user-8")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        first, second = (asyncio.ensure_future(client.signin({"id": user_id})) for user_id in ("7", "8"))
        with pytest.raises(AuthenticationError):
            await first
        await second
        assert client.user.id == "8"
        assert order == ["7", "answer", "8", "answer"]


class Authorizer:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def __call__(self, socket_id: str, channel: str) -> ChannelAuth:
        return ChannelAuth("key:signature")

    async def authenticate_user(self, socket_id: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer == "hang":
            await asyncio.Event().wait()
        return self.answer


async def test_an_authorizer_says_who_we_are() -> None:
    sent: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        await peer.establish()
        sent.append(await sign_in(peer))
        await peer.wait_closed()

    authorizer = Authorizer(UserAuth("key:signature", '{"id": "7"}'))
    async with ScriptedServer(script) as server, connected(server, authorizer=authorizer) as client:
        await client.signin()
        await until(lambda: sent)
        with pytest.raises(ConfigurationError, match="the authorizer decides who the user is"):
            await client.signin(ANN)
    assert sent == [{"auth": "key:signature", "user_data": '{"id": "7"}'}]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (RuntimeError("token-123"), AuthenticationError),
        ("nonsense", AuthenticationError),
        (AuthenticationError("not you", code=403), AuthenticationError),
        (UserAuth("key:\ud800", "{}"), AuthenticationError),
        ("hang", TimeoutError),
    ],
)
async def test_an_authorizer_that_fails(answer: Any, expected: type[Exception]) -> None:
    options = {"authorizer": Authorizer(answer), "subscribe_timeout": 0.2}
    async with ScriptedServer(confirm_all) as server, connected(server, **options) as client:
        with pytest.raises(expected) as caught:
            await client.signin()
        assert "token-123" not in str(caught.value)
        assert client.is_connected


async def test_nobody_can_sign() -> None:
    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        return ChannelAuth("key:signature")

    async with ScriptedServer(confirm_all) as server:
        async with connected(server, authorizer=authorizer) as client:
            with pytest.raises(ConfigurationError, match="authenticate_user"):
                await client.signin()
        async with connected(server) as client:
            for nobody in (None, {}, {"user_id": "7"}):
                with pytest.raises(ProtocolError, match="user_data"):
                    await client.signin(nobody)
        with pytest.raises(ConnectionError, match="not connected"):
            await client.signin(ANN)
