"""Channels as programs see them: what they know of themselves and of their members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from reverb import (
    ConnectionError,
    Events,
    PresenceChannel,
    ReverbClient,
    SubscriptionError,
    TimeoutError,
)

from .scripted import Peer, ScriptedServer
from .test_client import confirm_all, connected, make_client
from .test_dispatch import Recorder
from .watching import until

NAME = "presence-room"
ME = {"user_id": "1", "user_info": {"name": "me"}}
MEMBERS = '{"presence":{"count":2,"ids":["1",7],"hash":{"1":{"name":"me"},"7":[]}}}'


@asynccontextmanager
async def a_room() -> AsyncIterator[tuple[ReverbClient, PresenceChannel, Peer]]:
    """A client in a room, and the server's end of its connection, from which the test may send."""
    members = [MEMBERS, '{"presence":{"count":2,"ids":["1","8"],"hash":{"1":{"name":"me"},"8":{"name":"x"}}}}']

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        await peer.expect("pusher:subscribe", channel=NAME)
        await peer.confirm(NAME, members[peer.number - 1])
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        room = await client.subscribe(NAME, ME)
        yield client, room, server.peers[0]


async def member(peer: Peer, kind: str, data: Any) -> None:
    await peer.send(f"pusher_internal:member_{kind}", data, NAME)


async def test_members_and_me() -> None:
    async with a_room() as (_, room, _):
        assert isinstance(room, PresenceChannel)
        assert room.me == ME
        assert room.members == {"1": {"name": "me"}, "7": {}}
        assert repr(room) == "<PresenceChannel 'presence-room' subscribed>"
        room.members.clear()  # a copy
        assert room.members.keys() == {"1", "7"}
        assert room.members["1"] is room.members["1"]  # the infos are shared


async def test_members_come_and_go_before_the_handlers_run() -> None:
    seen: list[tuple[str, Any, set[str]]] = []
    async with a_room() as (client, room, peer):
        for event in (Events.MEMBER_ADDED, Events.MEMBER_REMOVED):
            room.bind(event, lambda event, data, channel: seen.append((event, data["user_id"], set(room))))
        await until(lambda: not client.stats.queued)  # events may wait for the first handler
        await member(peer, "added", '{"user_id":8,"user_info":{"name":"x"}}')
        await member(peer, "removed", '{"user_id":"7"}')
        await until(lambda: len(seen) == 2)
        assert seen == [(Events.MEMBER_ADDED, "8", {"1", "7", "8"}), (Events.MEMBER_REMOVED, "7", {"1", "8"})]


async def test_how_many_there_are_and_who() -> None:
    async with a_room() as (_, room, peer):
        assert room.count == 2
        assert list(room) == ["1", "7"]
        assert "7" in room
        assert 7 in room
        assert "8" not in room
        for user_id in room:  # may change meanwhile
            await member(peer, "removed", {"user_id": user_id})
            await until(lambda gone=user_id: gone not in room)  # type: ignore[misc]
        assert room.count == 0


async def test_binding_and_unbinding_return_the_channel() -> None:
    async with a_room() as (_, room, _):
        handler = Recorder()
        assert room.bind("e", handler) is room
        assert room.unbind("e", handler) is room


# --- waiting for members ---------------------------------------------------------------------------------------


async def test_a_member_is_waited_for() -> None:
    async with a_room() as (_, room, peer):
        assert await room.wait_for_member(7) == {}
        first, second = (asyncio.ensure_future(room.wait_for_member(user_id, 5)) for user_id in (8, "8"))
        await asyncio.sleep(0)
        await member(peer, "added", '{"user_id":8,"user_info":{"name":"x"}}')
        assert await first == await second == {"name": "x"}
        with pytest.raises(TimeoutError, match=r"'9' did not come to 'presence-room' within 0\.01 seconds"):
            await room.wait_for_member("9", 0.01)


async def test_who_came_while_the_connection_was_down_has_come() -> None:
    async with a_room() as (client, room, peer):
        waiting = asyncio.ensure_future(room.wait_for_member("8", 5))
        await asyncio.sleep(0)
        peer.reset()
        assert await waiting == {"name": "x"}
        assert list(room) == ["1", "8"]
        assert client.socket_id == "1.2"


async def test_the_end_of_a_subscription_ends_the_wait() -> None:
    async with a_room() as (client, room, _):
        waiting = asyncio.ensure_future(room.wait_for_member("8"))
        await asyncio.sleep(0)
        await client.unsubscribe(NAME)
        with pytest.raises(SubscriptionError, match="unsubscribed"):
            await waiting
        with pytest.raises(SubscriptionError, match="not subscribed"):
            await room.wait_for_member("8")


async def test_the_end_of_the_connection_ends_the_wait() -> None:
    async with a_room() as (client, room, _):
        waiting = asyncio.ensure_future(room.wait_for_member("8"))
        await asyncio.sleep(0)
        await client.disconnect()
        with pytest.raises(ConnectionError, match="disconnected"):
            await waiting
        with pytest.raises(ConnectionError, match="call connect"):  # nobody can ever come
            await asyncio.wait_for(room.wait_for_member("8"), 5)


async def test_after_a_loss_for_good_there_is_nobody_to_wait_for() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm(NAME, MEMBERS)
        await peer.expect("client-go")
        await peer.close(4001, "gone")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        room = await client.subscribe(NAME, ME)
        waiting = asyncio.ensure_future(room.wait_for_member("8"))
        await room.trigger("go", {})
        for ended in (waiting, room.wait_for_member("8", 5)):
            with pytest.raises(ConnectionError, match="gone") as caught:
                await ended
            assert caught.value.code == 4001


# --- how many are subscribed -----------------------------------------------------------------------------------


async def test_the_subscription_count() -> None:
    seen: list[Any] = []
    async with ScriptedServer(confirm_all) as server, connected(server) as client:
        news = await client.subscribe("news")
        news.bind(Events.SUBSCRIPTION_COUNT, lambda *call: seen.append((call[1], news.subscription_count)))
        assert news.subscription_count is None
        await until(lambda: not client.stats.queued)  # events may wait for the first handler
        for data in ('{"subscription_count":3}', "nonsense", {"subscription_count": 4}):
            await server.peers[0].send(Events.SUBSCRIPTION_COUNT.value, data, "news")
        await until(lambda: len(seen) == 3)
        assert seen == [({"subscription_count": 3}, 3), ("nonsense", None), ({"subscription_count": 4}, 4)]
    assert news.subscription_count is None


async def test_without_a_connection_nothing_is_subscribed() -> None:
    async with ScriptedServer(confirm_all) as server:
        client = make_client(server)
        async with client:
            news = await client.subscribe("news")
        assert not news.is_subscribed
        assert repr(news) == "<Channel 'news' not subscribed>"
