"""Laravel Echo's names, against every server there is."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reverb import AuthenticationError, Echo, ReverbAPI
from reverb.crypto import derive_shared_secret, encrypt
from reverb.server import ReverbServer
from tests.integration.servers import Target
from tests.integration.test_client import client_for, unique
from tests.watching import client_tasks, until

ANN = {"user_id": "1", "user_info": {"name": "Ann"}}
BOB = {"user_id": "2", "user_info": {"name": "Bob"}}
MASTER_KEY = 32 * b"m"


@pytest.fixture
async def echoes(server: Target) -> AsyncIterator[tuple[Echo, Echo]]:
    """Two that are connected."""
    settings = {"encryption_master_key": b64encode(MASTER_KEY).decode()}
    async with Echo(client_for(server, **settings)) as ann, Echo(client_for(server, **settings)) as bob:
        yield ann, bob
    assert client_tasks() == set()


async def test_events_notifications_and_models(server: Target, echoes: tuple[Echo, Echo]) -> None:
    ann, _ = echoes
    name, heard = unique("user."), list[Any]()
    user = ann.private(name).listen("OrderShipped", heard.append).notification(heard.append)
    await user.listen(".PostUpdated", heard.append).listen_to_all(lambda event, data: heard.append(event))
    notification = "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated"
    for number, event in enumerate(("App\\Events\\OrderShipped", notification, "PostUpdated")):
        await server.publish(f"private-{name}", event, {"id": number})
    await until(lambda: len(heard) == 6)
    assert heard == [{"id": 0}, "OrderShipped", {"id": 1}, f".{notification}", {"id": 2}, ".PostUpdated"]


async def test_a_room(echoes: tuple[Echo, Echo]) -> None:
    ann, bob = echoes
    name, heard = unique("room."), list[Any]()
    anns = ann.join(name, ANN).here(lambda members: heard.append(("here", members)))
    anns.joining(lambda member: heard.append(("joining", member)))
    anns.leaving(lambda member: heard.append(("leaving", member)))
    anns.listen_for_whisper("typing", lambda data: heard.append(("whisper", data)))
    await anns
    bobs = bob.join(name, BOB).listen_for_whisper("typing", lambda data: heard.append(("echo", data)))
    await bobs.whisper("typing", {"on": True})
    await until(lambda: len(heard) == 3)
    await bob.leave(name)
    await until(lambda: len(heard) == 4)
    info = {"name": "Bob"}
    assert heard == [
        ("here", [{"name": "Ann"}]),
        ("joining", info),
        ("whisper", {"on": True}),
        ("leaving", info),
    ]


async def test_to_others(server: Target, echoes: tuple[Echo, Echo]) -> None:
    ann, bob = echoes
    name, heard = unique("orders."), list[Any]()
    anns = ann.channel(name).listen("OrderShipped", lambda data: heard.append(("ann", data)))
    bobs = bob.channel(name).listen("OrderShipped", lambda data: heard.append(("bob", data)))
    await asyncio.gather(anns, bobs)
    async with ReverbAPI(**server.settings) as api:
        await api.trigger(name, "App\\Events\\OrderShipped", 1, socket_id=ann.socket_id())
        await api.trigger(name, "App\\Events\\OrderShipped", 2)
    await until(lambda: len(heard) == 3)
    assert sorted(heard) == [("ann", 2), ("bob", 1), ("bob", 2)]


async def test_the_last_to_leave_unsubscribes(server: Target, echoes: tuple[Echo, Echo]) -> None:
    ann, _ = echoes
    name, heard = unique("orders."), list[Any]()
    first = ann.private(name).listen(".e", lambda data: heard.append(("first", data)))
    second = ann.private(name).listen(".e", lambda data: heard.append(("second", data)))
    await asyncio.gather(first, second)
    async with ReverbAPI(**server.settings) as api:
        await server.publish(f"private-{name}", "e", 1)
        await until(lambda: len(heard) == 2)
        await first.leave()
        await server.publish(f"private-{name}", "e", 2)
        await until(lambda: len(heard) == 3)
        assert (await api.channel(f"private-{name}")).occupied
        await second.leave()
        await ann.channel(unique("news."))  # confirmed behind that
        assert not (await api.channel(f"private-{name}")).occupied
    assert heard == [("first", 1), ("second", 1), ("second", 2)]


async def test_an_encrypted_channel(server: Target, echoes: tuple[Echo, Echo]) -> None:
    ann, _ = echoes
    name, heard = unique("payments."), list[Any]()
    await ann.encrypted_private(name).listen("Paid", heard.append)
    whole = f"private-encrypted-{name}"
    sealed = encrypt(json.dumps({"amount": 5}), derive_shared_secret(whole, MASTER_KEY))
    await server.publish(whole, "App\\Events\\Paid", sealed)
    await until(lambda: heard)
    assert heard == [{"amount": 5}]
    await ann.leave(name)
    assert ann.client.channels == {}


async def test_a_refusal(server: Target) -> None:
    errors: list[Exception] = []
    async with Echo(client_for(server, app_secret="wrong")) as echo:
        echo.private(unique("orders.")).error(errors.append)
        news = echo.channel(unique("news."))
        await until(lambda: errors)
        assert isinstance(errors[0], AuthenticationError)
        assert await news is news  # the others are none the worse for it


async def test_after_a_restart_everybody_hears_who_is_here_again() -> None:
    heard: list[Any] = []
    async with ReverbServer() as server:
        target = Target("embedded", server.host, server.port)
        async with Echo(client_for(target)) as echo:
            await echo.join("room.1", ANN).here(heard.append).listen(".e", heard.append)
            await until(lambda: len(heard) == 1)
            await server.restart()
            await until(lambda: len(heard) == 2)
            await target.publish("presence-room.1", "e", 1)
            await until(lambda: len(heard) == 3)
    assert heard == [[{"name": "Ann"}], [{"name": "Ann"}], 1]
