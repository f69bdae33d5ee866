"""Clients without the secret, against every server there is: an application that behaves like Laravel signs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reverb import AuthenticationError, PresenceChannel, ReverbClient
from tests.integration.servers import Line, Target
from tests.integration.test_client import unique
from tests.laravel import Laravel
from tests.test_dispatch import Recorder
from tests.watching import client_tasks, until


@pytest.fixture
async def laravel(server: Target, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Laravel]:
    """An application for the server, which the environment names as the endpoint to ask."""
    async with Laravel(server.key, server.secret) as laravel:
        monkeypatch.setenv("REVERB_AUTH_ENDPOINT", laravel.url)
        monkeypatch.setenv("REVERB_AUTH_TOKEN", laravel.token)
        yield laravel


def client_for(server: Target, **options: Any) -> ReverbClient:
    settings = {name: value for name, value in server.settings.items() if name != "app_secret"}
    delays = {"reconnect_delay_min": 0.01, "reconnect_delay_max": 0.1}
    return ReverbClient(**{**settings, **delays, **options})


async def test_channels_are_authorised_by_the_endpoint_in_the_environment(
    server: Target, laravel: Laravel
) -> None:
    heard, name = Recorder(), unique("private-")
    async with client_for(server) as client:
        (await client.subscribe(name)).bind("shipped", heard)
        await server.publish(name, "shipped", {"id": 1})
        await heard.wait_for(1)
        # Public channels are nobody's business.
        await client.subscribe(unique("news-"))
    assert laravel.channels == [name]
    assert client_tasks() == set()


async def test_an_endpoint_says_who_we_are(server: Target, laravel: Laravel) -> None:
    async with client_for(server) as client:
        room = await client.subscribe(unique("presence-"))
        assert isinstance(room, PresenceChannel)
        assert room.me == {"user_id": "7", "user_info": {"name": "Ann/é"}}
        assert room.members == {"7": {"name": "Ann/é"}}


async def test_the_endpoint_comes_before_the_secret(
    server: Target, laravel: Laravel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVERB_APP_SECRET", "wrong")
    name = unique("private-")
    async with client_for(server) as client:
        await client.subscribe(name)
    async with client_for(server, app_secret=server.secret) as client:  # but what is passed before what is found
        await client.subscribe(unique("private-"))
    assert laravel.channels == [name]


async def test_a_refusal_hurts_one_channel_only(server: Target, laravel: Laravel) -> None:
    names = [unique("private-") for _ in range(20)]
    laravel.denied.add(names[7])
    async with client_for(server) as client:
        results = await asyncio.gather(*map(client.subscribe, names), return_exceptions=True)
        (refused,) = (result for result in results if isinstance(result, BaseException))
        assert refused is results[7]
        assert isinstance(refused, AuthenticationError)
        assert refused.code == 403
        assert laravel.url in str(refused)
        assert names[7] in str(refused)
        assert len(client.channels) == 19


async def test_a_wrong_signature_of_the_endpoint_is_the_servers_to_refuse(
    server: Target, laravel: Laravel
) -> None:
    laravel.secret = "another"
    async with client_for(server) as client:
        with pytest.raises(AuthenticationError, match="check the authorizer"):
            await client.subscribe(unique("private-"))


async def test_each_connection_is_signed_for_anew(line: Line, laravel: Laravel) -> None:
    name = unique("private-")
    async with client_for(line.target) as client:
        channel = await client.subscribe(name)
        first = client.socket_id
        line.drop()
        await until(lambda: client.socket_id not in (None, first) and channel.is_subscribed)
        second = client.socket_id
    assert [each["input"]["socket_id"] for each in laravel.asked] == [first, second]
