"""Channels that are found over the HTTP API, against every server there is."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from reverb import Channel, EncryptedChannel, Events, PresenceChannel, ReverbClient
from reverb.discovery import Discovery, occupied
from tests.integration.servers import Line, Target
from tests.integration.test_client import client_for
from tests.test_dispatch import Recorder
from tests.watching import client_tasks, until

QUICKLY = 0.02


@asynccontextmanager
async def others(server: Target, *channels: str) -> AsyncIterator[ReverbClient]:
    """Somebody else, who is on these channels."""
    async with client_for(server) as client:
        for name in channels:
            who = {"user_id": "bob"} if name.startswith("presence-") else None
            await client.subscribe(name, who, decrypt=False)
        yield client


@pytest.fixture
def names() -> dict[str, str]:
    """Channels of each kind, of this test's own: servers may live longer than a test."""
    mark = uuid4().hex
    kinds = ("news", "private", "presence", "private-encrypted", "cache")
    return {kind: f"{kind}-{mark}.x" for kind in kinds}


def of(names: dict[str, str], channels: Iterable[str]) -> set[str]:
    """Those of this test: others may have just ended."""
    return set(channels) & set(names.values())


async def test_what_servers_tell(server: Target, names: dict[str, str]) -> None:
    async with others(server, *names.values()), others(server, names["news"]) as second:
        counts = await occupied(second.api)
        assert {names[kind]: counts[names[kind]] for kind in names} == {
            names["news"]: 2,
            names["private"]: 1,
            names["presence"]: 1,
            names["private-encrypted"]: 1,
            names["cache"]: 1,
        }
        assert await occupied(second.api, names["news"][:-1]) == {names["news"]: 2}
        assert await occupied(second.api, "nobody-is-here-") == {}


async def test_channels_are_taken_as_they_appear_and_left_as_they_empty(
    server: Target, names: dict[str, str]
) -> None:
    told, heard = Recorder(), Recorder()
    name, later = names["news"], names["private"]
    async with client_for(server) as client, others(server, name) as other:
        client.bind(Events.CHANNEL_FOUND, told).bind(Events.CHANNEL_LEFT, told).bind("e", heard)
        async with client.discover(interval=QUICKLY) as found:
            assert isinstance(found, Discovery)
            assert of(names, found.channels) == {name}
            await until(lambda: found.channels[name].is_subscribed)
            await server.publish(name, "e", 1)
            assert await heard.wait_for(1) == [("e", 1, name)]

            await other.subscribe(later)
            await until(lambda: later in found.channels and found.channels[later].is_subscribed)
            await server.publish(later, "e", 2)
            await heard.wait_for(2)

            await other.unsubscribe(name)
            await until(lambda: name not in client.channels)
            assert of(names, found.channels) == {later}
            await other.subscribe(name)
            await until(lambda: name in found.channels)
        assert of(names, client.channels) == set()
    assert [(event, data["channel"]) for event, data, _ in told.calls[:4]] == [
        (Events.CHANNEL_FOUND, name),
        (Events.CHANNEL_FOUND, later),
        (Events.CHANNEL_LEFT, name),
        (Events.CHANNEL_FOUND, name),
    ]
    assert {(event, data["channel"]) for event, data, _ in told.calls[4:]} == {
        (Events.CHANNEL_LEFT, name),
        (Events.CHANNEL_LEFT, later),
    }
    assert client_tasks() == set()


async def test_each_kind_of_channel(server: Target, names: dict[str, str]) -> None:
    async with client_for(server) as client, others(server, *names.values()):
        async with client.discover(interval=QUICKLY) as found:
            taken = {names[kind] for kind in names if kind != "presence"}
            assert of(names, found.channels) == taken
            await until(lambda: all(each.is_subscribed for each in found.channels.values()))
            assert type(found.channels[names["private-encrypted"]]) is Channel  # its events come sealed
        async with client.discover(interval=QUICKLY, user_data={"user_id": "watcher"}) as found:
            await until(lambda: all(each.is_subscribed for each in found.channels.values()))
            room = found.channels[names["presence"]]
            assert isinstance(room, PresenceChannel)
            assert room.members.keys() == {"bob", "watcher"}
            assert of(names, found.channels) == {*taken, names["presence"]}


@pytest.mark.parametrize("kind", ["presence", "private-encrypted", "cache"])
async def test_each_kind_of_channel_is_left(server: Target, names: dict[str, str], kind: str) -> None:
    async with (
        client_for(server) as client,
        others(server, names[kind]) as other,
        client.discover(interval=QUICKLY, user_data={"user_id": "watcher"}) as found,
    ):
        await until(lambda: found.channels[names[kind]].is_subscribed)
        await other.unsubscribe(names[kind])
        await until(lambda: not of(names, client.channels))


async def test_with_a_key_encrypted_channels_are_decrypted(server: Target, names: dict[str, str]) -> None:
    name, key = names["private-encrypted"], b64encode(32 * b"k").decode()
    async with client_for(server, encryption_master_key=key) as client, others(server, name):
        heard = Recorder()
        client.bind("e", heard)
        async with client.discover(interval=QUICKLY) as found:
            assert isinstance(found.channels[name], EncryptedChannel)
            await until(lambda: found.channels[name].is_subscribed)
            await client.api.trigger(name, "e", {"id": 1})
            assert await heard.wait_for(1) == [("e", {"id": 1}, name)]
        async with client.discover(interval=QUICKLY, decrypt=False) as found:
            assert type(found.channels[name]) is Channel


async def test_what_the_program_subscribed_to_is_never_left(server: Target, names: dict[str, str]) -> None:
    before, meanwhile, gone = names["news"], names["private"], names["cache"]
    async with client_for(server) as client, others(server, before, meanwhile, gone) as other:
        mine = await client.subscribe(before)
        async with client.discover(interval=QUICKLY) as found:
            assert of(names, found.channels) == {meanwhile, gone}
            assert await client.subscribe(meanwhile) is client.channels[meanwhile]
            assert of(names, found.channels) == {gone}
            for name in (before, meanwhile, gone):
                await other.unsubscribe(name)
            await until(lambda: gone not in client.channels)
        assert of(names, client.channels) == {before, meanwhile}
        assert client.channels[before] is mine


async def test_what_the_program_leaves_is_not_taken_again_before_it_was_empty(
    server: Target, names: dict[str, str]
) -> None:
    name, mark = names["news"], names["cache"]
    async with (
        client_for(server) as client,
        others(server, name) as other,
        client.discover(interval=QUICKLY) as found,
    ):
        await client.unsubscribe(name)
        await other.subscribe(mark)
        await until(lambda: mark in found.channels)  # there was another poll
        assert of(names, found.channels) == {mark}
        await other.unsubscribe(name)
        await other.unsubscribe(mark)
        await until(lambda: not of(names, found.channels))
        await other.subscribe(name)
        await until(lambda: name in found.channels)


async def test_two_at_a_time_keep_out_of_each_others_way(server: Target, names: dict[str, str]) -> None:
    news, private = names["news"], names["private"]
    async with client_for(server) as client, others(server, news, private):
        async with client.discover(interval=QUICKLY, prefix="news-") as some:
            async with client.discover(interval=QUICKLY) as rest:
                assert of(names, some.channels) == {news}
                assert of(names, rest.channels) == {private}
            assert of(names, client.channels) == {news}
        assert of(names, client.channels) == set()


async def test_they_are_found_over_a_reconnect(server: Target, line: Line, names: dict[str, str]) -> None:
    name, later, heard = names["news"], names["cache"], Recorder()
    async with client_for(line.target) as client, others(server, name) as other:
        client.bind("e", heard)
        async with client.discover(interval=QUICKLY) as found:
            await until(lambda: found.channels[name].is_subscribed)
            line.drop()
            await client.wait_for(Events.RECONNECTED, timeout=5)
            await until(lambda: found.channels[name].is_subscribed)
            await server.publish(name, "e", 1)
            assert await heard.wait_for(1) == [("e", 1, name)]
            await other.subscribe(later)
            await until(lambda: later in found.channels)
    assert client_tasks() == set()
