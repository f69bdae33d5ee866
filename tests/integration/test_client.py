"""What the client promises, against every server there is; nothing in here knows which one it talks to."""

from __future__ import annotations

import asyncio
import random
import uuid
from pathlib import Path
from typing import Any

import pytest

from reverb import (
    AuthenticationError,
    ConnectionError,
    Events,
    PresenceChannel,
    ProtocolError,
    ReverbClient,
    SubscriptionError,
)
from reverb.server import ReverbServer
from tests.certificates import make_certificates
from tests.integration.servers import Line, Target
from tests.test_dispatch import Recorder
from tests.watching import client_tasks, until

ALICE = {"user_id": "alice", "user_info": {"name": "Alice ☃"}}
BOB = {"user_id": 42, "user_info": {}}


def unique(prefix: str) -> str:
    """A channel of this test's own: servers may live longer than a test."""
    return f"{prefix}{uuid.uuid4().hex}"


def client_for(server: Target, **options: Any) -> ReverbClient:
    return ReverbClient(**{**server.settings, "reconnect_delay_min": 0.01, "reconnect_delay_max": 0.1, **options})


# --- connecting ------------------------------------------------------------------------------------------------


async def test_the_basic_usage_of_the_readme(server: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.settings.items():
        monkeypatch.setenv(f"REVERB_{name.upper()}", str(value))
    heard = Recorder()
    name = unique("updates-")

    async def handle_event(event: str, data: dict[str, Any], channel: str | None) -> None:
        heard(event, data, channel)

    async with ReverbClient() as client:
        assert client.is_connected
        assert client.socket_id is not None
        channel = await client.subscribe(name)
        channel.bind("data.changed", handle_event)
        listening = asyncio.ensure_future(client.listen())
        await server.publish(name, "data.changed", {"id": 1})
        assert await heard.wait_for(1) == [("data.changed", {"id": 1}, name)]
        listening.cancel()
    assert client_tasks() == set()


async def test_a_wrong_key_is_refused_promptly(server: Target) -> None:
    client = client_for(server, app_key="no-such-key")
    with pytest.raises(ConnectionError, match="REVERB_APP_KEY") as caught:
        await asyncio.wait_for(client.connect(), 5)
    assert caught.value.code == 4001
    assert not client.is_connected
    assert client_tasks() == set()


async def test_a_wrong_path_is_refused_with_a_hint(server: Target) -> None:
    with pytest.raises(ConnectionError, match="REVERB_PATH") as caught:
        await client_for(server, path="/no/such/path").connect()
    assert caught.value.code == 404


async def test_an_idle_connection_is_kept_alive(server: Target) -> None:
    async with client_for(server, ping_interval=0.05, pong_timeout=1) as client:
        first = client.socket_id
        received = client.stats.received
        await until(lambda: client.stats.received >= received + 3)  # pongs: there is nothing else to come
        assert client.socket_id == first
        assert client.stats.round_trip is not None


async def test_a_connection_that_drops_comes_back_with_its_channels(server: Target, line: Line) -> None:
    names = [unique("news-"), unique("private-"), unique("presence-")]
    heard = Recorder()
    async with client_for(line.target) as client:
        first = client.socket_id
        channels = [await client.subscribe(name, ALICE if "presence" in name else None) for name in names]
        client.bind("e", heard)
        line.drop()
        await until(lambda: not client.is_connected)
        await until(lambda: all(channel.is_subscribed for channel in channels))
        assert client.socket_id != first
        await server.publish(names, "e", {})
        assert {channel for _, _, channel in await heard.wait_for(3)} == set(names)


# --- channels --------------------------------------------------------------------------------------------------


async def test_public_and_private_channels(server: Target) -> None:
    heard = Recorder()
    async with client_for(server) as client:
        for prefix in ("news-", "private-user."):
            channel = await client.subscribe(unique(prefix))
            assert channel.is_subscribed
            assert client.channels[channel.name] is channel
            assert channel.bind("article.published", heard) is channel
            await server.publish(channel.name, "article.published", {"title": "é ☃ /"})
            await heard.wait_for(1)
            assert heard.calls.pop() == ("article.published", {"title": "é ☃ /"}, channel.name)


async def test_a_wrong_secret_fails_each_private_channel_and_nothing_else(server: Target) -> None:
    names = [unique(prefix) for prefix in ("a-", "private-", "b-", "presence-", "private-", "c-")]
    async with client_for(server, app_secret="wrong") as client:
        results = await asyncio.gather(
            *(client.subscribe(name, ALICE if name.startswith("presence") else None) for name in names),
            return_exceptions=True,
        )
        for name, result in zip(names, results, strict=True):
            if name[0] == "p":
                assert isinstance(result, AuthenticationError)
                assert f"'{name}'" in str(result)
            else:
                assert not isinstance(result, BaseException)
        assert client.channels.keys() == {name for name in names if name[0] != "p"}
        assert client.is_connected


async def test_many_channels_at_once(server: Target) -> None:
    names = [unique("private-many-") for _ in range(300)]
    heard = Recorder()
    async with client_for(server) as client:
        client.bind("e", heard)
        channels = await asyncio.gather(*map(client.subscribe, names))
        assert [channel.name for channel in channels] == names
        await server.publish(names[-1], "e", {})
        await heard.wait_for(1)


async def test_unsubscribing_ends_the_events(server: Target) -> None:
    heard, name, marker = Recorder(), unique("news-"), unique("marker-")
    async with client_for(server) as client:
        channel = await client.subscribe(name)
        await client.subscribe(marker)
        client.bind("*", heard)
        await client.unsubscribe(name)
        assert not channel.is_subscribed
        assert name not in client.channels
        await server.publish(name, "e", 1)
        await server.publish(marker, "done", 2)
        await until(lambda: "done" in heard.events)
        assert "e" not in heard.events


async def test_subscribing_unsubscribing_and_subscribing_at_once(server: Target) -> None:
    heard, name = Recorder(), unique("news-")
    async with client_for(server) as client:
        first = asyncio.ensure_future(client.subscribe(name))
        await asyncio.sleep(0)
        await client.unsubscribe(name)
        channel = await client.subscribe(name)
        channel.bind("e", heard)
        with pytest.raises(SubscriptionError):
            await first
        await server.publish(name, "e", 1)
        assert await heard.wait_for(1) == [("e", 1, name)]


@pytest.mark.parametrize("prefix", ["cache-", "private-cache-", "presence-cache-"])
async def test_the_cached_event_reaches_handlers_bound_right_after_subscribing(
    server: Target, prefix: str
) -> None:
    name, heard = unique(prefix), Recorder()
    user_data = ALICE if prefix.startswith("presence") else None
    async with client_for(server) as first, client_for(server) as second:
        channel = await first.subscribe(name, user_data)
        channel.bind("pusher:cache_miss", heard).bind("price", heard)
        assert await heard.wait_for(1) == [("pusher:cache_miss", None, name)]
        await server.publish(name, "price", {"v": 1})
        await heard.wait_for(2)
        channel = await second.subscribe(name, user_data)
        channel.bind("price", heard)
        assert (await heard.wait_for(3))[2] == ("price", {"v": 1}, name)


# --- presence --------------------------------------------------------------------------------------------------


async def test_presence(server: Target) -> None:
    name, heard = unique("presence-room."), Recorder()
    members_seen: list[set[str]] = []
    async with client_for(server) as alice:
        room = await alice.subscribe(name, user_data=ALICE)
        assert isinstance(room, PresenceChannel)
        assert room.members == {"alice": {"name": "Alice ☃"}}
        assert room.me == ALICE

        async def on_change(event: str, data: dict[str, Any], channel: str | None) -> None:
            members_seen.append(set(room.members))
            heard(event, data, channel)

        room.bind(Events.MEMBER_ADDED, on_change)
        room.bind("pusher:member_removed", on_change)
        async with client_for(server) as bob:
            theirs = await bob.subscribe(name, user_data=BOB)
            assert isinstance(theirs, PresenceChannel)
            assert theirs.members == {"alice": {"name": "Alice ☃"}, "42": {}}
            assert theirs.me == {"user_id": "42", "user_info": {}}
            await heard.wait_for(1)
            async with client_for(server) as bob_again:
                await bob_again.subscribe(name, user_data=BOB)
        await heard.wait_for(2)
        assert heard.calls == [
            (Events.MEMBER_ADDED, {"user_id": "42", "user_info": {}}, name),
            (Events.MEMBER_REMOVED, {"user_id": "42", "user_info": {}}, name),
        ]
        assert members_seen == [{"alice", "42"}, {"alice"}]


async def test_who_left_is_still_in_the_event(server: Target) -> None:
    name, heard = unique("presence-room."), Recorder()
    async with client_for(server) as alice, client_for(server) as bob:
        (await alice.subscribe(name, ALICE)).bind(Events.MEMBER_REMOVED, heard)
        await bob.subscribe(name, {"user_id": 7, "user_info": {"name": "Bob"}})
        await bob.unsubscribe(name)
        assert await heard.wait_for(1) == [
            (Events.MEMBER_REMOVED, {"user_id": "7", "user_info": {"name": "Bob"}}, name)
        ]


async def test_two_connections_of_a_user_are_one_member(server: Target) -> None:
    name, heard = unique("presence-room."), Recorder()
    async with client_for(server) as alice, client_for(server) as one, client_for(server) as two:
        room = await alice.subscribe(name, ALICE)
        assert isinstance(room, PresenceChannel)
        room.bind(Events.MEMBER_ADDED, heard).bind(Events.MEMBER_REMOVED, heard)
        waiting = asyncio.ensure_future(room.wait_for_member(42, 5))
        await one.subscribe(name, BOB)
        await two.subscribe(name, BOB)
        assert await waiting == {}
        assert room.count == 2
        await one.unsubscribe(name)
        await two.unsubscribe(name)
        await heard.wait_for(2)
        await until(lambda: list(room) == ["alice"])
        assert heard.events == [Events.MEMBER_ADDED, Events.MEMBER_REMOVED]


async def test_who_came_and_left_during_an_outage(server: Target, line: Line) -> None:
    name = unique("presence-room.")
    async with (
        client_for(server) as stays,
        client_for(server) as leaves,
        client_for(server) as comes,
        client_for(line.target, reconnect_delay_min=0.3, reconnect_delay_max=0.4) as alice,
    ):
        room = await alice.subscribe(name, ALICE)
        assert isinstance(room, PresenceChannel)
        await stays.subscribe(name, {"user_id": "stays"})
        await leaves.subscribe(name, {"user_id": "leaves"})
        await room.wait_for_member("leaves", 5)
        line.drop()
        await until(lambda: not alice.is_connected)
        waiting = asyncio.ensure_future(room.wait_for_member("comes", 5))
        await leaves.unsubscribe(name)
        await comes.subscribe(name, {"user_id": "comes"})
        await waiting
        assert sorted(room) == ["alice", "comes", "stays"]


async def test_members_with_the_ids_that_php_makes_lists_of(server: Target) -> None:
    name = unique("presence-room.")
    async with client_for(server) as zero, client_for(server) as one:
        await zero.subscribe(name, {"user_id": 0, "user_info": {"n": "zero"}})
        room = await one.subscribe(name, {"user_id": 1, "user_info": {"n": "one"}})
        assert isinstance(room, PresenceChannel)
        assert room.members == {"0": {"n": "zero"}, "1": {"n": "one"}}


# --- client events ---------------------------------------------------------------------------------------------


async def test_client_events_reach_the_others_and_not_the_sender(server: Target) -> None:
    name, heard, own = unique("private-device."), Recorder(), Recorder()
    async with client_for(server) as sender, client_for(server) as receiver:
        device = await sender.subscribe(name)
        device.bind("*", own)
        (await receiver.subscribe(name)).bind("client-status", heard)
        await own.wait_for(1)
        for data in ({"cpu": 45.2, "memory": 1024}, [1, "é"], None):
            await device.trigger("status", data)
        assert [data for _, data, _ in await heard.wait_for(3)] == [
            {"cpu": 45.2, "memory": 1024},
            [1, "é"],
            None,
        ]
        assert own.events == [Events.SUBSCRIPTION_SUCCEEDED]


async def test_the_sender_of_a_client_event_on_a_presence_channel_is_known(server: Target) -> None:
    name = unique("presence-chat.")
    senders: asyncio.Queue[tuple[Any, str | None]] = asyncio.Queue()

    async def moderate(event: str, data: Any, channel: str | None, *, user_id: str | None) -> None:
        senders.put_nowait((data, user_id))

    async with client_for(server) as alice, client_for(server) as bob:
        (await bob.subscribe(name, BOB)).bind("client-message", moderate)
        room = await alice.subscribe(name, ALICE)
        await room.trigger("client-message", {"text": "hello"})
        assert await asyncio.wait_for(senders.get(), 5) == ({"text": "hello"}, "alice")


async def test_client_events_that_no_server_would_take(server: Target) -> None:
    async with client_for(server) as client:
        public, private = await client.subscribe(unique("news-")), await client.subscribe(unique("private-"))
        with pytest.raises(SubscriptionError):
            await public.trigger("status", {})
        with pytest.raises(ProtocolError):
            await private.trigger("status", "text")
        with pytest.raises(ProtocolError, match="REVERB_MAX_MESSAGE_SIZE"):
            await private.trigger("status", {"x": "x" * 10_000})
        assert client.is_connected


async def test_the_webhook_relay_of_the_readme(server: Target) -> None:
    name, heard = unique("private-webhooks."), Recorder()
    async with client_for(server) as receiver:
        (await receiver.subscribe(name)).bind("client-received", heard)
        async with client_for(server) as client:
            await client.connect()
            channel = await client.subscribe(name)
            await channel.trigger("received", {"ref": "main"})
        assert await heard.wait_for(1) == [("client-received", {"ref": "main"}, name)]


# --- events ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ({"id": 1, "nested": {"list": [1, 2.5, None, True]}}, {"id": 1, "nested": {"list": [1, 2.5, None, True]}}),
        ("just text", "just text"),
        ("1", 1),
        ('{"broken":', '{"broken":'),
        ({"text": 'é ☃ 😀 </> \\ " \u2028'}, {"text": 'é ☃ 😀 </> \\ " \u2028'}),
        ({"big": "x" * 9_000}, {"big": "x" * 9_000}),
    ],
)
async def test_data_arrives_as_it_was_published(server: Target, data: Any, seen: Any) -> None:
    name, heard = unique("news-"), Recorder()
    async with client_for(server) as client:
        (await client.subscribe(name)).bind("App\\Events\\OrderShipped", heard)
        await server.publish(name, "App\\Events\\OrderShipped", data)
        assert await heard.wait_for(1) == [("App\\Events\\OrderShipped", seen, name)]


async def test_order_is_kept_within_a_channel(server: Target) -> None:
    name, heard = unique("private-sync."), Recorder()

    async def handler(event: str, data: Any, channel: str | None) -> None:
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        heard(event, data, channel)

    async with client_for(server) as sender, client_for(server) as receiver:
        (await receiver.subscribe(name)).bind("client-n", handler)
        channel = await sender.subscribe(name)
        for number in range(500):
            await channel.trigger("n", [number])
        assert [data for _, data, _ in await heard.wait_for(500)] == [[number] for number in range(500)]


async def test_wildcards_and_global_handlers(server: Target) -> None:
    one, two = unique("news-"), unique("private-")
    on_channel, on_client, on_event = Recorder(), Recorder(), Recorder()
    async with client_for(server) as client:
        (await client.subscribe(one)).bind("*", on_channel)
        await client.subscribe(two)
        client.bind("*", on_client)
        client.bind("e", on_event)
        await server.publish([one, two], "e", {"n": 1})
        await server.publish(one, "f", {"n": 2})
        await on_event.wait_for(2)
        await until(lambda: {"e", "f"} <= set(on_channel.events))
        assert [call for call in on_channel.calls if call[0] in "ef"] == [
            ("e", {"n": 1}, one),
            ("f", {"n": 2}, one),
        ]
        assert sorted(call for call in on_client.calls if call[0] == "e") == sorted(on_event.calls)
        client.unbind("e")
        await server.publish(two, "e", {"n": 3})
        await until(lambda: ("e", {"n": 3}, two) in on_client.calls)
        assert len(on_event.calls) == 2


# --- the embedded server's own -----------------------------------------------------------------------------------


async def test_tls_and_a_path_prefix(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    heard = Recorder()
    async with (
        ReverbServer(path="/ws", ssl_context=certificates.server) as server,
        ReverbClient(
            app_key="app-key",
            app_secret="app-secret",
            host="localhost",
            port=server.port,
            scheme="https",
            path="/ws",
            ssl_context=certificates.client,
        ) as client,
    ):
        channel = await client.subscribe("private-x")
        channel.bind("pusher:subscription_succeeded", heard)
        await heard.wait_for(1)
