"""Records of channels: their members, and the events that they pass on to handlers."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

from reverb import ConnectionError, Events, SubscriptionError, TimeoutError
from reverb._dispatch import Dispatcher, EventQueue
from reverb._protocol import Message
from reverb._records import ChannelRecord, PresenceRecord, UserRecord

from .test_dispatch import Recorder
from .watching import until

SUCCEEDED = Events.SUBSCRIPTION_SUCCEEDED.value
NAME = "presence-room"
MEMBERS = '{"presence":{"count":2,"ids":["1",7],"hash":{"1":{"name":"me"},"7":[]}}}'


@pytest.fixture
async def dispatcher() -> Dispatcher:
    return Dispatcher(1_000_000, lambda: None)


@pytest.fixture
async def client_queue(dispatcher: Dispatcher) -> EventQueue:
    return EventQueue(None, dispatcher)


@pytest.fixture
async def news(dispatcher: Dispatcher, client_queue: EventQueue) -> ChannelRecord:
    return ChannelRecord("news", dispatcher, client_queue)


@pytest.fixture
async def room(dispatcher: Dispatcher, client_queue: EventQueue) -> PresenceRecord:
    """That of a room that the server has just confirmed, and that the program has."""
    room = PresenceRecord(NAME, dispatcher, client_queue, '{"user_id":"1","user_info":{"name":"me"}}')
    confirm(room, MEMBERS)
    return room


def confirm(record: ChannelRecord, data: Any = "{}", *, is_awaited: bool = False) -> None:
    record.confirmed(Message(SUCCEEDED, record.name, data), 1, is_awaited=is_awaited)


def member_event(kind: str, data: Any) -> Message:
    return Message(f"pusher_internal:member_{kind}", NAME, data)


# --- members ---------------------------------------------------------------------------------------------------


async def test_members_and_me(room: PresenceRecord) -> None:
    assert room.me == {"user_id": "1", "user_info": {"name": "me"}}
    assert room.members == {"1": {"name": "me"}, "7": {}}


async def test_members_come_and_go_before_the_handlers_run(room: PresenceRecord) -> None:
    seen: list[tuple[str, Any, set[str]]] = []
    room.queue.bind(("*",), lambda event, data, channel: seen.append((event, data, set(room.members))))
    room.take(member_event("added", '{"user_id":8,"user_info":{"name":"x"}}'), 1)
    room.take(member_event("added", '{"user_id":"9"}'), 1)
    room.take(member_event("removed", '{"user_id":8}'), 1)
    assert seen == [
        (Events.MEMBER_ADDED, {"user_id": "8", "user_info": {"name": "x"}}, {"1", "7", "8"}),
        (Events.MEMBER_ADDED, {"user_id": "9", "user_info": {}}, {"1", "7", "8", "9"}),
        (Events.MEMBER_REMOVED, {"user_id": "8", "user_info": {"name": "x"}}, {"1", "7", "9"}),
    ]


async def test_a_member_nobody_knew_can_leave(room: PresenceRecord) -> None:
    heard = Recorder()
    room.queue.bind((Events.MEMBER_REMOVED.value,), heard)
    room.take(member_event("removed", '{"user_id":"stranger"}'), 1)
    assert heard.calls == [(Events.MEMBER_REMOVED, {"user_id": "stranger", "user_info": {}}, NAME)]


@pytest.mark.parametrize("data", [None, "", "nope", "[]", "{}", '{"user_id":null}', 5, {"user_info": {}}])
async def test_member_events_that_name_nobody_change_nothing(room: PresenceRecord, data: Any) -> None:
    heard = Recorder()
    room.queue.bind(("*",), heard)
    room.take(member_event("added", data), 1)
    room.take(member_event("removed", data), 1)
    assert room.members.keys() == {"1", "7"}
    assert heard.calls == []


async def test_a_new_confirmation_replaces_the_members(room: PresenceRecord) -> None:
    confirm(room, '{"presence":{"ids":["1"],"hash":{"1":[]}}}')
    assert room.members == {"1": {}}


async def test_who_we_are_may_change_with_each_signature(room: PresenceRecord) -> None:
    room.channel_data = '{"user_id":9}'
    confirm(room, MEMBERS)
    assert room.me == {"user_id": "9", "user_info": {}}


async def test_other_events_of_the_protocol_pass(room: PresenceRecord) -> None:
    heard = Recorder()
    room.queue.bind(("pusher:cache_miss",), heard)
    room.take(Message("pusher:cache_miss", NAME), 1)
    assert heard.calls == [("pusher:cache_miss", None, NAME)]


# --- waiting for members ---------------------------------------------------------------------------------------


async def test_a_member_is_waited_for(room: PresenceRecord) -> None:
    assert await room.wait_for_member("7", None) == {}
    first, second = (asyncio.ensure_future(room.wait_for_member("8", 5)) for _ in range(2))
    cancelled = asyncio.ensure_future(room.wait_for_member("8", None))
    await asyncio.sleep(0)
    cancelled.cancel()
    room.take(member_event("added", '{"user_id":9}'), 1)
    room.take(member_event("added", '{"user_id":8,"user_info":{"name":"x"}}'), 1)
    room.take(member_event("removed", '{"user_id":8}'), 1)
    assert await first == await second == {"name": "x"}
    with pytest.raises(TimeoutError, match=r"'8' did not come to 'presence-room' within 0\.01 seconds"):
        await room.wait_for_member("8", 0.01)


async def test_who_came_while_the_connection_was_down_has_come(room: PresenceRecord) -> None:
    waiting = asyncio.ensure_future(room.wait_for_member("8", 5))
    await asyncio.sleep(0)
    room.lost(monotonic())
    data = '{"presence":{"count":2,"ids":["1","8"],"hash":{"1":{"name":"me"},"8":{"name":"x"}}}}'
    confirm(room, data)
    assert await waiting == {"name": "x"}
    assert list(room.members) == ["1", "8"]


async def test_who_waits_for_what_cannot_come_is_told(room: PresenceRecord) -> None:
    waiting = [asyncio.ensure_future(room.wait_for_member("8", None)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    room.failed(ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        await waiting[1]
    later = asyncio.ensure_future(room.wait_for_member("8", None))
    await asyncio.sleep(0)
    room.close()
    with pytest.raises(SubscriptionError, match="'presence-room' was unsubscribed"):
        await later


# --- how many are subscribed -----------------------------------------------------------------------------------


async def test_the_subscription_count(news: ChannelRecord) -> None:
    seen: list[Any] = []
    news.queue.bind(
        (Events.SUBSCRIPTION_COUNT.value,), lambda *call: seen.append((call[1], news.subscription_count))
    )
    assert news.subscription_count is None
    for data in ('{"subscription_count":3}', {"subscription_count": 4}, "nonsense"):
        news.take(Message(Events.SUBSCRIPTION_COUNT.value, "news", data), 1)
    assert seen == [({"subscription_count": 3}, 3), ({"subscription_count": 4}, 4), ("nonsense", None)]
    news.take(Message(Events.SUBSCRIPTION_COUNT.value, "news", '{"subscription_count":5}'), 1)
    news.lost(monotonic())
    assert news.subscription_count is None


# --- confirmations ---------------------------------------------------------------------------------------------


async def test_events_are_held_until_the_program_has_the_channel(
    news: ChannelRecord, dispatcher: Dispatcher
) -> None:
    heard = Recorder()
    confirm(news, is_awaited=True)
    news.queue.put("e", "1")
    assert len(news.queue) == 2
    news.queue.bind(("*",), heard)
    news.given()
    assert heard.calls == []
    assert [event for event, _, _ in await heard.wait_for(2)] == [SUCCEEDED, "e"]
    await dispatcher.drain(5)


async def test_a_channel_that_nobody_waits_for_is_not_held(news: ChannelRecord) -> None:
    heard = Recorder()
    news.queue.bind(("e",), heard)
    confirm(news)
    news.queue.put("e", "1")
    assert heard.calls == [("e", 1, "news")]


async def test_a_loss_is_told_of_behind_the_next_confirmation_and_once(news: ChannelRecord) -> None:
    heard = Recorder()
    news.queue.bind(("*",), heard)
    confirm(news)
    news.lost(monotonic() - 40)
    confirm(news)
    confirm(news)
    assert heard.events == [SUCCEEDED, SUCCEEDED, Events.RESUBSCRIBED, SUCCEEDED]
    assert 40 <= heard.calls[2][1]["downtime"] < 45


# --- the user's ------------------------------------------------------------------------------------------------


async def test_events_of_the_user(dispatcher: Dispatcher, client_queue: EventQueue) -> None:
    user, heard, on_client = UserRecord(dispatcher, client_queue), Recorder(), Recorder()
    client_queue.bind((Events.SIGNIN_SUCCESS.value,), on_client)
    user.queue.bind(("*",), heard)
    assert (user.id, user.is_signed_in) == (None, False)
    for number in (7, 8):  # another user on another connection
        user_data = f'{{\\"id\\":{number}}}'
        name = user.signed_in(Message(Events.SIGNIN_SUCCESS.value, None, f'{{"user_data":"{user_data}"}}'))
        assert name == f"#server-to-user-{number}"
        assert (user.id, user.is_signed_in) == (str(number), True)
        assert dispatcher.queues == {name: user.queue}
    user.take_watchlist(Message("", None, '{"events":[{"name":"online","user_ids":["9",10]},{"name":"idle"},5]}'))
    await until(lambda: heard.calls)
    assert heard.calls == [(Events.WATCHLIST_ONLINE, {"user_ids": ["9", "10"]}, "#server-to-user-8")]
    assert [data for _, data, _ in on_client.calls] == [{"user_data": {"id": 7}}, {"user_data": {"id": 8}}]
