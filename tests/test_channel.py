"""Channels: what they know of themselves and of their members."""

from __future__ import annotations

from typing import Any

import pytest

from reverb import Events, PresenceChannel, ReverbClient
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
