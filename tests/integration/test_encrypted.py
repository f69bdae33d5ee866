"""Encrypted channels, against every server there is."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from reverb import (
    AuthenticationError,
    Channel,
    ChannelAuth,
    ConfigurationError,
    EncryptedChannel,
    EndpointAuthorizer,
    Events,
    ProtocolError,
    ReverbClient,
    ReverbError,
    SubscriptionError,
    TimeoutError,
)
from reverb.auth import sign_channel
from reverb.crypto import derive_shared_secret, encrypt
from tests.integration.servers import Line, Target
from tests.integration.test_client import client_for, unique
from tests.laravel import Laravel
from tests.test_dispatch import Recorder
from tests.watching import client_tasks, until

OLD, NEW = 32 * b"o", 32 * b"n"


class Application:
    """Publishes what is sealed, and authorises; its key can be changed."""

    def __init__(self, server: Target) -> None:
        self.server = server
        self.master_key = OLD
        self.asked = 0
        self.gate: Callable[[], Any] | None = None

    async def __call__(self, socket_id: str, channel: str) -> ChannelAuth:
        self.asked += 1
        if self.gate is not None:
            await self.gate()
        auth = sign_channel(self.server.key, self.server.secret, socket_id, channel)
        return ChannelAuth(auth, shared_secret=b64encode(derive_shared_secret(channel, self.master_key)).decode())

    async def publish(self, channel: str, data: Any, master_key: bytes | None = None) -> None:
        key = derive_shared_secret(channel, self.master_key if master_key is None else master_key)
        await self.server.publish(channel, "e", encrypt(json.dumps(data), key))


@pytest.fixture
def application(server: Target) -> Application:
    return Application(server)


@asynccontextmanager
async def subscribed(
    application: Application, name: str, **options: Any
) -> AsyncIterator[tuple[ReverbClient, Any]]:
    async with client_for(application.server, authorizer=application, **options) as client:
        channel = await client.subscribe(name)
        assert isinstance(channel, EncryptedChannel)
        yield client, channel
    assert client_tasks() == set()


async def test_handlers_get_what_was_sealed_with_the_master_key(server: Target) -> None:
    heard, name = Recorder(), unique("private-encrypted-")
    async with client_for(server, encryption_master_key=b64encode(OLD).decode()) as client:
        channel = (await client.subscribe(name)).bind("*", heard)
        for data in ({"id": 1, "text": "é ☃"}, [1], "text", 2, None):
            await server.publish(name, "e", encrypt(json.dumps(data), derive_shared_secret(name, OLD)))
        calls = await heard.wait_for(6)
        assert [event for event, _, _ in calls] == [Events.SUBSCRIPTION_SUCCEEDED, *["e"] * 5]
        assert [data for _, data, _ in calls[1:]] == [{"id": 1, "text": "é ☃"}, [1], "text", 2, None]
        with pytest.raises(SubscriptionError, match="encrypted"):
            await channel.trigger("x", {})


async def test_handlers_get_what_was_sealed_with_the_secret_of_an_endpoint(server: Target) -> None:
    heard, name = Recorder(), unique("private-encrypted-")
    async with Laravel(server.key, server.secret) as laravel:
        authorizer = EndpointAuthorizer(laravel.url, token=laravel.token)
        async with client_for(server, authorizer=authorizer) as client:
            (await client.subscribe(name)).bind("e", heard)
            await server.publish(name, "e", encrypt('{"id":1}', laravel.shared_secret(name)))
            assert await heard.wait_for(1) == [("e", {"id": 1}, name)]


async def test_without_a_key_nothing_is_subscribed(server: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        return ChannelAuth(sign_channel(server.key, server.secret, socket_id, channel))

    for options in ({}, {"authorizer": authorizer}):
        async with client_for(server, **options) as client:
            with pytest.raises(AuthenticationError, match="REVERB_ENCRYPTION_MASTER_KEY"):
                await client.subscribe(unique("private-encrypted-"))
            assert client.channels == {}
    async with client_for(server, encryption_master_key=b64encode(OLD).decode()) as client:
        monkeypatch.setitem(sys.modules, "nacl.secret", None)
        with pytest.raises(ConfigurationError, match=r"python-reverb\[encryption\]"):
            await client.subscribe(unique("private-encrypted-"))


async def test_sealed_events_need_no_key(server: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, raw, everything, name = Recorder(), Recorder(), Recorder(), unique("private-encrypted-")
    sealed = [encrypt(json.dumps(each), derive_shared_secret(name, OLD)) for each in ({"id": 1}, 2)]
    monkeypatch.setitem(sys.modules, "nacl.secret", None)
    async with client_for(server) as client:
        channel = await client.subscribe(name, decrypt=False)
        assert type(channel) is Channel
        channel.bind("e", heard).bind("e", raw, type=msgspec.Raw)
        client.bind("e", everything)
        for data in sealed:
            await server.publish(name, "e", data)
        calls = [("e", json.loads(data), name) for data in sealed]
        assert await heard.wait_for(2) == calls
        assert json.loads(sealed[0]).keys() == {"nonce", "ciphertext"}
        assert [bytes(data).decode() for _, data, _ in await raw.wait_for(2)] == sealed
        assert await everything.wait_for(2) == calls
        with pytest.raises(SubscriptionError, match="no client events"):
            await channel.trigger("x", {})
    assert client_tasks() == set()


@pytest.mark.parametrize("decrypt", [True, False])
async def test_a_channel_is_decrypted_for_all_or_for_nobody(server: Target, decrypt: bool) -> None:
    name = unique("private-encrypted-")
    async with client_for(server, encryption_master_key=b64encode(OLD).decode()) as client:
        first = asyncio.ensure_future(client.subscribe(name, decrypt=decrypt))
        await asyncio.sleep(0)  # it is on its way then
        for _ in range(2):
            with pytest.raises(
                SubscriptionError, match=f"subscribed with decrypt={decrypt}: pass the same, or unsubscribe"
            ):
                await client.subscribe(name, decrypt=not decrypt)
            channel = await client.subscribe(name, decrypt=decrypt)
        assert channel is await first
        await client.unsubscribe(name)
        assert isinstance(await client.subscribe(name, decrypt=not decrypt), EncryptedChannel) is not decrypt


async def test_channels_that_are_not_encrypted_are_the_same_with_or_without_decrypting(server: Target) -> None:
    name = unique("private-")
    async with client_for(server) as client:
        assert await client.subscribe(name, decrypt=False) is await client.subscribe(name)


@pytest.mark.parametrize("plain", [True, False])
async def test_a_new_key_is_asked_for_and_nothing_lost(application: Application, plain: bool) -> None:
    heard, name = Recorder(), unique("private-encrypted-")

    async def handler(event: str, data: Any, channel: str | None) -> None:
        heard(event, data, channel)

    async with subscribed(application, name) as (client, channel):
        channel.bind("e", heard if plain else handler)
        client.bind("error", heard)
        await application.publish(name, 0)
        await heard.wait_for(1)
        going = asyncio.Event()
        application.gate = going.wait
        application.master_key = NEW
        for number in range(1, 5):
            await application.publish(name, number)
        await until(lambda: application.asked == 2)
        await application.publish(name, 5)
        assert len(heard.calls) == 1
        going.set()
        assert [data for _, data, _ in await heard.wait_for(6)] == [0, 1, 2, 3, 4, 5]
        assert application.asked == 2


async def test_what_cannot_be_decrypted_is_reported_and_skipped(application: Application) -> None:
    heard, errors, name = Recorder(), Recorder(), unique("private-encrypted-")
    async with subscribed(application, name) as (client, channel):
        channel.bind("e", heard)
        client.bind("error", errors)
        await application.publish(name, 1)
        await application.publish(name, 2, NEW)
        await application.server.publish(name, "e", "not encrypted")
        await application.publish(name, 3)
        assert [data for _, data, _ in await heard.wait_for(2)] == [1, 3]
        for event, data, channel_name in await errors.wait_for(2):
            assert (event, channel_name) == (Events.CLIENT_ERROR, name)
            assert isinstance(data["exception"], ProtocolError)
            assert name in data["message"]
        # Asked once: a key that did not help is not asked for again with every event.
        assert application.asked == 2


@pytest.mark.parametrize(
    "reason", [AuthenticationError("not for you any more", code=403), TimeoutError("not for you any more today")]
)
async def test_a_key_that_is_refused_is_the_reason(application: Application, reason: ReverbError) -> None:
    errors, name = Recorder(), unique("private-encrypted-")

    async def refuse() -> None:
        raise reason

    async with subscribed(application, name) as (client, channel):
        channel.bind("e", Recorder())
        client.bind("error", errors)
        application.gate = refuse
        await application.publish(name, 1, NEW)
        ((_, data, _),) = await errors.wait_for(1)
        assert "not for you any more" in data["message"]
        assert data["exception"].__cause__ is reason


async def test_an_authorizer_that_hangs_holds_a_channel_up_for_a_while_only(application: Application) -> None:
    heard, errors, name = Recorder(), Recorder(), unique("private-encrypted-")
    async with subscribed(application, name, subscribe_timeout=0.5) as (client, channel):
        channel.bind("e", heard)
        client.bind("error", errors)
        application.gate = asyncio.Event().wait
        await application.publish(name, 1, NEW)
        await application.publish(name, 2)
        assert [data for _, data, _ in await heard.wait_for(1)] == [2]
        ((_, data, _),) = await errors.wait_for(1)
        assert "REVERB_SUBSCRIBE_TIMEOUT" in data["message"]


async def test_nothing_is_delivered_behind_an_unsubscribe(application: Application) -> None:
    heard, name = Recorder(), unique("private-encrypted-")
    async with subscribed(application, name) as (client, channel):
        channel.bind("*", heard)
        await heard.wait_for(1)
        going = asyncio.Event()
        application.gate = going.wait
        application.master_key = NEW
        await application.publish(name, 1)
        await until(lambda: application.asked == 2)
        await client.unsubscribe(name)
        going.set()
    assert len(heard.calls) == 1  # with the client disconnected, no handler is at work


async def test_each_connection_brings_a_new_key(application: Application, line: Line) -> None:
    heard, name = Recorder(), unique("private-encrypted-")
    way = {"host": line.target.host, "port": line.target.port}
    async with subscribed(application, name, **way) as (_, channel):
        channel.bind("e", heard)
        application.master_key = NEW
        line.drop()
        await until(lambda: application.asked == 2 and channel.is_subscribed)
        await application.publish(name, 1)
        assert await heard.wait_for(1) == [("e", 1, name)]
        assert application.asked == 2


async def test_what_nobody_bound_is_not_decrypted(application: Application) -> None:
    heard, name = Recorder(), unique("private-encrypted-")
    async with subscribed(application, name) as (client, channel):
        client.bind("error", heard)
        channel.bind("f", heard)
        await application.publish(name, 1, NEW)
        key = derive_shared_secret(name, OLD)
        await application.server.publish(name, "f", encrypt("2", key))
        assert await heard.wait_for(1) == [("f", 2, name)]


async def test_the_cached_event_of_an_encrypted_channel(soketi: Target) -> None:
    application, heard, name = Application(soketi), Recorder(), unique("private-encrypted-cache-")
    async with subscribed(application, name) as (_, channel):
        channel.bind("*", heard)
        assert [event for event, _, _ in await heard.wait_for(2)][1] == Events.CACHE_MISS
        await application.publish(name, {"id": 1})
        await heard.wait_for(3)
        async with client_for(soketi, authorizer=application) as client:
            later = Recorder()
            (await client.subscribe(name)).bind("e", later)
            assert await later.wait_for(1) == [("e", {"id": 1}, name)]
