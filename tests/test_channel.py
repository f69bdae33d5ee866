"""Channels: what they know of themselves and of their members."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reverb import Channel, Events, PresenceChannel, ReverbClient, SubscriptionError, TimeoutError
from reverb._protocol import Message

from .test_dispatch import Recorder

SUCCEEDED = Events.SUBSCRIPTION_SUCCEEDED.value
NAME = "presence-room"


@pytest.fixture
async def client() -> ReverbClient:
    return ReverbClient(app_key="key", app_secret="secret", host="example.com")


@pytest.fixture
async def room(client: ReverbClient) -> PresenceChannel:
    """A room that the server has just confirmed."""
    room = PresenceChannel(client, NAME, '{"user_id":"1","user_info":{"name":"me"}}')
    data = '{"presence":{"count":2,"ids":["1",7],"hash":{"1":{"name":"me"},"7":[]}}}'
    room._on_confirmed(Message(SUCCEEDED, NAME, data), 1)
    room._lane.clear()
    return room


def member_event(kind: str, data: Any) -> Message:
    return Message(f"pusher_internal:member_{kind}", NAME, data)


async def test_members_and_me(room: PresenceChannel) -> None:
    assert room.me == {"user_id": "1", "user_info": {"name": "me"}}
    assert room.members == {"1": {"name": "me"}, "7": {}}


async def test_members_are_a_copy(room: PresenceChannel) -> None:
    room.members.clear()
    assert room.members.keys() == {"1", "7"}


async def test_members_come_and_go_before_the_handlers_run(room: PresenceChannel) -> None:
    seen: list[tuple[str, Any, set[str]]] = []
    room.bind("*", lambda event, data, channel: seen.append((event, data, set(room.members))))
    room._on_protocol_event(member_event("added", '{"user_id":8,"user_info":{"name":"x"}}'), 1)
    room._on_protocol_event(member_event("added", '{"user_id":"9"}'), 1)
    room._on_protocol_event(member_event("removed", '{"user_id":8}'), 1)
    assert seen == [
        (Events.MEMBER_ADDED, {"user_id": "8", "user_info": {"name": "x"}}, {"1", "7", "8"}),
        (Events.MEMBER_ADDED, {"user_id": "9", "user_info": {}}, {"1", "7", "8", "9"}),
        (Events.MEMBER_REMOVED, {"user_id": "8", "user_info": {"name": "x"}}, {"1", "7", "9"}),
    ]


async def test_a_member_nobody_knew_can_leave(room: PresenceChannel) -> None:
    heard = Recorder()
    room.bind(Events.MEMBER_REMOVED, heard)
    room._on_protocol_event(member_event("removed", '{"user_id":"stranger"}'), 1)
    assert heard.calls == [(Events.MEMBER_REMOVED, {"user_id": "stranger", "user_info": {}}, NAME)]


@pytest.mark.parametrize("data", [None, "", "nope", "[]", "{}", '{"user_id":null}', 5, {"user_info": {}}])
async def test_member_events_that_name_nobody_change_nothing(room: PresenceChannel, data: Any) -> None:
    heard = Recorder()
    room.bind("*", heard)
    room._on_protocol_event(member_event("added", data), 1)
    room._on_protocol_event(member_event("removed", data), 1)
    assert room.members.keys() == {"1", "7"}
    assert heard.calls == []


async def test_a_new_confirmation_replaces_the_members(room: PresenceChannel) -> None:
    room._on_confirmed(Message(SUCCEEDED, NAME, '{"presence":{"ids":["1"],"hash":{"1":[]}}}'), 1)
    assert room.members == {"1": {}}


async def test_other_protocol_events_pass(room: PresenceChannel) -> None:
    heard = Recorder()
    room.bind("pusher:cache_miss", heard)
    room._on_protocol_event(Message("pusher:cache_miss", NAME), 1)
    assert heard.calls == [("pusher:cache_miss", None, NAME)]


async def test_without_a_connection_nothing_is_subscribed(room: PresenceChannel) -> None:
    assert not room.is_subscribed
    assert repr(room) == "<PresenceChannel 'presence-room' not subscribed>"


async def test_binding_and_unbinding_return_the_channel(room: PresenceChannel) -> None:
    handler = Recorder()
    assert room.bind("e", handler) is room
    assert room.unbind("e", handler) is room


# --- waiting for members ---------------------------------------------------------------------------------------


async def test_how_many_there_are_and_who(client: ReverbClient, room: PresenceChannel) -> None:
    assert room.count == 2
    assert list(room) == ["1", "7"]
    assert "7" in room
    assert 7 in room
    assert "8" not in room
    for user_id in room:  # may change meanwhile
        room._on_protocol_event(member_event("removed", {"user_id": user_id}), 1)
    assert room.count == 0


async def test_a_member_is_waited_for(client: ReverbClient, room: PresenceChannel) -> None:
    client._channels[NAME] = room
    assert await room.wait_for_member(7) == {}
    first, second = (asyncio.ensure_future(room.wait_for_member(user_id, 5)) for user_id in (8, "8"))
    cancelled = asyncio.ensure_future(room.wait_for_member("8"))
    await asyncio.sleep(0)
    cancelled.cancel()
    room._on_protocol_event(member_event("added", '{"user_id":9}'), 1)
    room._on_protocol_event(member_event("added", '{"user_id":8,"user_info":{"name":"x"}}'), 1)
    room._on_protocol_event(member_event("removed", '{"user_id":8}'), 1)
    assert await first == await second == {"name": "x"}
    with pytest.raises(TimeoutError, match=r"'8' did not come to 'presence-room' within 0\.01 seconds"):
        await room.wait_for_member("8", 0.01)
    assert not room._expected  # of those who came, and of those who did not


async def test_who_came_while_the_connection_was_down_has_come(
    client: ReverbClient, room: PresenceChannel
) -> None:
    client._channels[NAME] = room
    waiting = asyncio.ensure_future(room.wait_for_member("8", 5))
    await asyncio.sleep(0)
    room._on_lost()
    data = '{"presence":{"count":2,"ids":["1","8"],"hash":{"1":{"name":"me"},"8":{"name":"x"}}}}'
    room._on_confirmed(Message(SUCCEEDED, NAME, data), 1)
    assert await waiting == {"name": "x"}
    assert list(room) == ["1", "8"]


async def test_the_end_of_a_subscription_ends_the_wait(client: ReverbClient, room: PresenceChannel) -> None:
    client._channels[NAME] = room
    client._dispatcher.lanes[NAME] = room._lane
    waiting = asyncio.ensure_future(room.wait_for_member("8"))
    await asyncio.sleep(0)
    await client.unsubscribe(NAME)
    with pytest.raises(SubscriptionError, match="unsubscribed"):
        await waiting
    with pytest.raises(SubscriptionError, match="not subscribed"):
        await room.wait_for_member("8")


# --- how many are subscribed -----------------------------------------------------------------------------------


async def test_the_subscription_count(client: ReverbClient) -> None:
    seen: list[Any] = []
    channel = Channel(client, "news")
    channel.bind("pusher:subscription_count", lambda *call: seen.append((*call, channel.subscription_count)))
    assert channel.subscription_count is None
    for data in ('{"subscription_count":3}', {"subscription_count": 4}, "nonsense"):
        channel._on_protocol_event(Message(Events.SUBSCRIPTION_COUNT.value, "news", data), 1)
    assert [(data, count) for _, data, _, count in seen] == [
        ({"subscription_count": 3}, 3),
        ({"subscription_count": 4}, 4),
        ("nonsense", None),
    ]
    channel._on_protocol_event(Message(Events.SUBSCRIPTION_COUNT.value, "news", '{"subscription_count":5}'), 1)
    channel._on_lost()
    assert channel.subscription_count is None
