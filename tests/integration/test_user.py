"""Users, on a server that has them and on one that hasn't."""

from __future__ import annotations

import pytest

from reverb import AuthenticationError, EndpointAuthorizer, Events, ProtocolError, ReverbClient
from reverb.server import ReverbServer
from tests.integration.servers import Target, line_to
from tests.integration.test_client import client_for, unique
from tests.laravel import Laravel
from tests.test_dispatch import Recorder
from tests.watching import until


async def test_signing_in_and_what_is_sent_to_the_user(soketi: Target) -> None:
    app, heard, signed_in = soketi.app("user"), Recorder(), Recorder()
    async with line_to(app) as line, client_for(line.target) as client:
        client.bind(Events.SIGNIN_SUCCESS, signed_in)
        client.user.bind("hello", heard)
        await client.signin({"id": "u1", "user_info": {"name": "Ann ☃"}})
        assert client.user.is_signed_in
        assert client.user.id == "u1"
        await app.publish("#server-to-user-u1", "hello", {"n": 1})
        await app.publish("#server-to-user-u2", "hello", {"n": 2})
        await app.publish("#server-to-user-u1", "hello", {"n": 3})
        await heard.wait_for(2)
        first = client.socket_id
        line.drop()
        await until(lambda: client.socket_id not in (None, first) and client.user.is_signed_in)
        await app.publish("#server-to-user-u1", "hello", {"n": 4})
        assert [data["n"] for _, data, _ in await heard.wait_for(3)] == [1, 3, 4]
        assert signed_in.events == [Events.SIGNIN_SUCCESS] * 2


async def test_a_wrong_secret_is_refused(soketi: Target) -> None:
    async with client_for(soketi.app("user"), app_secret="wrong") as client:
        with pytest.raises(AuthenticationError):
            await client.signin({"id": "u1"})


async def test_the_endpoint_says_who_the_user_is(soketi: Target) -> None:
    app, heard = soketi.app("user"), Recorder()
    async with Laravel(app.key, app.secret) as laravel:
        authorizer = EndpointAuthorizer(laravel.url, token=laravel.token)
        async with client_for(app, authorizer=authorizer) as client:
            client.user.bind("hello", heard)
            await client.signin()
            assert client.user.id == "7"
            await app.publish("#server-to-user-7", "hello", {})
            await heard.wait_for(1)


async def test_reverb_has_no_users() -> None:
    async with (
        ReverbServer() as server,
        ReverbClient(
            app_key="app-key", app_secret="app-secret", host=server.host, port=server.port, scheme="ws"
        ) as client,
    ):
        with pytest.raises(ProtocolError, match="does not support"):
            await client.signin({"id": "u1"})
        assert (await client.subscribe(unique("private-"))).is_subscribed


@pytest.mark.parametrize("has_route", [False, True])
async def test_reverb_has_no_users_even_if_the_endpoint_has(has_route: bool) -> None:
    laravel = Laravel("app-key", "app-secret")
    laravel.user_routes = has_route
    async with ReverbServer() as server, laravel:
        authorizer = EndpointAuthorizer(laravel.url, token=laravel.token)
        async with ReverbClient(**server.settings, authorizer=authorizer) as client:
            with pytest.raises(ProtocolError, match="does not support the sign-in of users") as caught:
                await client.signin()
            assert caught.value.code == (4200 if has_route else None)
            assert (await client.subscribe(unique("private-"))).is_subscribed
