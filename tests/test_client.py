"""The client against servers that do what a script says: what it asks, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import gc
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import reverb
from reverb import (
    AuthenticationError,
    Channel,
    ChannelAuth,
    ConfigurationError,
    ConnectionError,
    Events,
    PresenceChannel,
    ProtocolError,
    ReverbClient,
    ReverbError,
    SubscriptionError,
    TimeoutError,
)
from reverb.auth import sign_channel
from reverb.server import ReverbServer

from .scripted import MISSING, TEXT, Peer, ScriptedServer, encode_frame, encode_message
from .test_dispatch import Recorder
from .watching import client_tasks, open_descriptors, turns, until, wait_turns

UNAUTHORIZED = r'{"code":4009,"message":"Connection is unauthorized"}'
INVALID = r'{"code":4200,"message":"Invalid message format"}'
ALICE = {"user_id": "alice", "user_info": {"name": "Alice"}}


def make_client(server: ScriptedServer | ReverbServer, **options: Any) -> ReverbClient:
    defaults: Any = {
        "app_key": "app-key",
        "app_secret": "app-secret",
        "host": server.host,
        "port": server.port,
        "scheme": "ws",
        "reconnect_delay_min": 0.01,
        "reconnect_delay_max": 0.05,
    }
    return ReverbClient(**{**defaults, **options})


@asynccontextmanager
async def connected(server: ScriptedServer, **options: Any) -> AsyncIterator[ReverbClient]:
    async with make_client(server, **options) as client:
        yield client
    assert client_tasks() == set()


async def confirm_all(peer: Peer) -> None:
    """Confirm every subscribe, until the client hangs up."""
    await peer.establish(f"1.{peer.number}")
    while True:
        message = await peer.receive()
        if message["event"] == "pusher:subscribe":
            await peer.confirm(message["data"]["channel"])


# --- the connection --------------------------------------------------------------------------------------------


async def test_the_context_manager_connects_and_disconnects() -> None:
    async with ScriptedServer(confirm_all) as server:
        client = make_client(server)
        assert (client.is_connected, client.socket_id) == (False, None)
        async with client as entered:
            assert entered is client
            assert (client.is_connected, client.socket_id) == (True, "1.1")
            await client.connect()  # does nothing
        assert (client.is_connected, client.socket_id) == (False, None)
        assert server.connections == 1
        assert client_tasks() == set()


async def test_after_disconnecting_nothing_is_left_and_connecting_works_again() -> None:
    async with ScriptedServer(confirm_all) as server:
        client = make_client(server)
        await client.connect()
        await client.disconnect()
        gc.collect()
        tasks, descriptors = asyncio.all_tasks(), open_descriptors()
        for _ in range(3):
            await client.connect()
            await client.subscribe("news")
            await client.disconnect()
        await until(lambda: asyncio.all_tasks() <= tasks)
        await until(lambda: open_descriptors() <= descriptors)
        assert client_tasks() == set()
        await client.disconnect()  # once more does nothing


async def test_connecting_works_whenever_the_last_attempt_was_given_up() -> None:
    """A socket that is closed while the loop still watches it would be in the way of the next one."""
    async with ReverbServer() as server:
        for turns in range(60):
            client = make_client(server)
            given_up = asyncio.ensure_future(client.connect())
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait({given_up})
            await client.connect()
            await client.disconnect()
        assert client_tasks() == set()


async def test_a_connection_made_again_by_hand_has_its_channels_back() -> None:
    async with ScriptedServer(confirm_all) as server:
        client = make_client(server)
        await client.connect()
        news = await client.subscribe("news")
        await client.disconnect()
        assert not news.is_subscribed
        assert client.channels == {"news": news}
        await client.connect()
        assert news.is_subscribed
        assert await client.subscribe("news") is news
        await client.disconnect()


async def test_listening_ends_with_the_connection() -> None:
    async with ScriptedServer(confirm_all) as server, connected(server) as client:
        listening = asyncio.ensure_future(client.listen())
        cancelled = asyncio.ensure_future(client.listen())
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait({cancelled})
        assert client.is_connected
        await client.disconnect()
        await asyncio.wait_for(listening, 5)
        await client.listen()  # ends at once


async def test_listening_without_a_connection_is_an_error() -> None:
    async with ScriptedServer(confirm_all) as server:
        with pytest.raises(ConnectionError, match="connect"):
            await make_client(server).listen()


async def test_listening_raises_when_the_connection_is_lost_for_good() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.close(4001)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        subscribing = asyncio.ensure_future(client.subscribe("news"))
        with pytest.raises(ConnectionError) as caught:
            await asyncio.wait_for(client.listen(), 5)
        assert caught.value.code == 4001
        with pytest.raises(ConnectionError):
            await subscribing
        with pytest.raises(ConnectionError):
            await client.subscribe("news")


async def test_global_handlers_hear_of_the_connection() -> None:
    async with ScriptedServer(confirm_all) as server:
        client = make_client(server)
        heard = Recorder()
        assert client.bind(Events.CONNECTION_ESTABLISHED, heard) is client
        async with client:
            assert heard.calls == [
                (Events.CONNECTION_ESTABLISHED, {"socket_id": "1.1", "activity_timeout": 30}, None)
            ]
        assert client.unbind(Events.CONNECTION_ESTABLISHED, heard) is client


# --- subscribing -----------------------------------------------------------------------------------------------


async def test_subscribing_returns_when_the_server_has_confirmed() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="news")
        asked.set()
        await go_on.wait()
        await peer.confirm("news", MISSING)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        subscribing = asyncio.ensure_future(client.subscribe("news"))
        await asyncio.wait_for(asked.wait(), 5)
        assert client.channels == {}
        assert not subscribing.done()
        go_on.set()
        news = await subscribing
        assert type(news) is Channel
        assert news.name == "news"
        assert news.is_subscribed
        assert client.channels == {"news": news}
        assert repr(news) == "<Channel 'news' subscribed>"
    assert not news.is_subscribed


async def test_private_and_presence_channels_are_signed_for_the_connection() -> None:
    messages: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        await peer.establish("697736332.449543751")
        for data in ("{}", '{"presence":{"ids":["7"],"hash":{"7":[]}}}'):
            messages.append(await peer.expect("pusher:subscribe"))
            await peer.confirm(messages[-1]["data"]["channel"], data)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        await client.subscribe("private-x")
        room = await client.subscribe("presence-r", user_data={"user_id": 7})
        assert isinstance(room, PresenceChannel)
        assert room.me == {"user_id": "7", "user_info": {}}
        assert room.members == {"7": {}}
    private, presence = (message["data"] for message in messages)
    assert private == {
        "channel": "private-x",
        # as a recording of real Laravel Reverb has it
        "auth": "app-key:eb6eec438af99c7f43db1090f4f7b06f0b45f6eee64218cc2235d95212e82506",
    }
    channel_data = presence["channel_data"]
    assert json.loads(channel_data) == {"user_id": "7", "user_info": {}}
    assert presence["auth"] == sign_channel(
        "app-key", "app-secret", "697736332.449543751", "presence-r", channel_data
    )


FORGED = "POST\n/apps/42/events\nauth_key=app-key&auth_timestamp=1&auth_version=1.0&body_md5=m&z="
"""A socket id that would make the signature for a channel one for a request to the HTTP API."""


async def test_a_server_that_wants_another_text_signed_is_not_connected_to() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish(FORGED)
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        client = make_client(server)
        with pytest.raises(ProtocolError, match="without a valid socket_id"):
            await client.connect()
        assert not client.is_connected
    assert client_tasks() == set()


async def test_nothing_is_signed_for_such_a_server_after_a_loss_either() -> None:
    signed: list[tuple[int, str]] = []

    async def script(peer: Peer) -> None:
        await peer.establish(FORGED if peer.number in (2, 3) else f"1.{peer.number}")
        if peer.number in (2, 3):
            await peer.wait_closed()
            return
        message = await peer.expect("pusher:subscribe")
        signed.append((peer.number, message["data"]["auth"]))
        await peer.confirm("private-x")
        if peer.number > 3:
            await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        channel = await client.subscribe("private-x")
        # It may be the right one again in a moment, so it is tried again, with growing delays.
        await until(lambda: len(signed) == 2 and channel.is_subscribed)
    assert signed == [
        (number, sign_channel("app-key", "app-secret", f"1.{number}", "private-x")) for number in (1, 4)
    ]


@pytest.mark.parametrize("name", ['presence-x:{"user_id":"7"}', "private-a:b", "private-\n", "privatex:"])
async def test_names_that_make_the_signature_one_for_something_else(name: str) -> None:
    async with ScriptedServer(confirm_all) as server, connected(server) as client:
        with pytest.raises(SubscriptionError, match="must not contain a colon or a control character"):
            await client.subscribe(name)
        assert client.channels == {}


@pytest.mark.parametrize(
    ("name", "answer", "kind", "code"),
    [
        ("private-x", ("pusher:error", UNAUTHORIZED), AuthenticationError, 4009),
        ("presence-x", ("pusher:error", INVALID), SubscriptionError, 4200),
        ("news", ("pusher:error", r'{"code":4301,"message":"Rate limit exceeded"}'), SubscriptionError, 4301),
        (
            "private-x",
            (
                "pusher:subscription_error",
                {"type": "AuthError", "error": "The connection is unauthorized.", "status": 401},
                "private-x",
            ),
            AuthenticationError,
            401,
        ),
        (
            "bad name",
            (
                "pusher:subscription_error",
                {"error": "The channel name is not allowed.", "status": 4009},
                "bad name",
            ),
            SubscriptionError,
            4009,
        ),
    ],
)
async def test_a_refused_channel_raises_and_the_connection_stays(
    name: str, answer: tuple[Any, ...], kind: type[ReverbError], code: int
) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel=name)
        await peer.send(*answer)
        if code == 4200:
            await peer.expect("pusher:unsubscribe", channel=name)  # Reverb counts us as a member all the same
        for asked in ("other", name):
            await peer.expect("pusher:subscribe", channel=asked)
            await peer.confirm(asked)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        user_data = ALICE if name.startswith("presence") else None
        with pytest.raises(kind) as caught:
            await client.subscribe(name, user_data)
        assert type(caught.value) is kind
        assert caught.value.code == code
        assert f"'{name}'" in str(caught.value)
        assert client.channels == {}
        assert (await client.subscribe("other")).is_subscribed
        assert (await client.subscribe(name, user_data)).is_subscribed  # asked again, without a reconnect


async def test_a_refusal_hits_its_own_channel_among_many_in_flight() -> None:
    """Reverb's 4009 and 4200 name no channel; the answers' order does."""
    names = [f"private-{number}" for number in range(20)]
    refused = {"private-0", "private-3", "private-4", "private-19"}

    async def script(peer: Peer) -> None:
        await peer.establish()
        for name in names:
            await peer.expect("pusher:subscribe", channel=name)
        for name in names:
            if name in refused:
                await peer.send("pusher:error", UNAUTHORIZED)
            else:
                await peer.confirm(name)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        results = await asyncio.gather(*map(client.subscribe, names), return_exceptions=True)
        for name, result in zip(names, results, strict=True):
            if name in refused:
                assert isinstance(result, AuthenticationError)
                assert f"'{name}'" in str(result)
            else:
                assert isinstance(result, Channel)
        assert client.channels.keys() == set(names) - refused


@pytest.mark.parametrize("culprit", ["the client event", "the subscribe"])
async def test_an_error_that_may_be_a_client_events_is_attributed_by_a_ping(culprit: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="private-x")
        await peer.confirm("private-x")
        await peer.expect("client-status")
        await peer.expect("pusher:subscribe", channel="presence-r")
        await peer.send("pusher:error", INVALID)
        await peer.expect("pusher:ping")
        if culprit == "the client event":
            await peer.confirm("presence-r")
        await peer.send("pusher:pong")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        private = await client.subscribe("private-x")
        await private.trigger("status", {})
        if culprit == "the client event":
            assert (await client.subscribe("presence-r", ALICE)).is_subscribed
        else:
            with pytest.raises(SubscriptionError, match="presence-r"):
                await client.subscribe("presence-r", ALICE)


async def test_no_answer_is_a_timeout_and_what_is_confirmed_too_late_is_left() -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="news")
        await peer.expect("pusher:ping")  # as it is overdue
        await peer.confirm("news")  # too late
        await peer.expect("pusher:unsubscribe", channel="news")
        left.set()
        await peer.send("e", "1", "news")
        await peer.send("pusher:pong")
        await peer.expect("pusher:subscribe", channel="other")
        await peer.confirm("other")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server, subscribe_timeout=0.1) as client:
        heard = Recorder()
        client.bind("e", heard)
        with pytest.raises(TimeoutError, match=r"'news'.*0\.1 seconds \(REVERB_SUBSCRIBE_TIMEOUT\)"):
            await client.subscribe("news")
        assert client.channels == {}
        await asyncio.wait_for(left.wait(), 5)
        await client.subscribe("other")
        assert client.channels.keys() == {"other"}
        assert heard.calls == []


@pytest.mark.parametrize("answered", [False, True])
async def test_cancelling_a_subscribe_leaves_no_trace(answered: bool) -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="other")
        await peer.confirm("other")
        await peer.expect("pusher:subscribe", channel="news")
        asked.set()
        if answered:
            confirmation = encode_message("pusher_internal:subscription_succeeded", "{}", "news")
            now = encode_message("now", "{}", "other")
            await peer.send_raw(encode_frame(TEXT, confirmation) + encode_frame(TEXT, now))
        else:
            await cancelled.wait()
            await peer.confirm("news")
        # Not before the server has answered: that is when it has something to undo.
        await peer.expect("pusher:unsubscribe", channel="news")
        await peer.expect("pusher:subscribe", channel="news")
        await peer.confirm("news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        other = await client.subscribe("other")
        subscribing = asyncio.ensure_future(client.subscribe("news"))
        if answered:  # the answer is there, but the task has not seen it yet
            other.bind("now", lambda *_: subscribing.cancel())
        else:
            await asyncio.wait_for(asked.wait(), 5)
            subscribing.cancel()
            cancelled.set()
        await asyncio.wait({subscribing})
        assert subscribing.cancelled()
        assert client.channels == {"other": other}
        assert (await client.subscribe("news")).is_subscribed


async def test_who_asks_again_for_what_was_given_up_is_not_left_without_an_answer() -> None:
    """The server never answers the subscribe that was given up: its answer to a ping shows that."""

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="news")
        await peer.expect("pusher:ping")
        await peer.send("pusher:pong")
        await peer.expect("pusher:unsubscribe", channel="news")  # it may have subscribed us all the same
        await peer.expect("pusher:subscribe", channel="news")
        await peer.confirm("news")
        # On a server that answers out of order, that could be the answer to the first, from before we left.
        await peer.expect("pusher:subscribe", channel="news")
        await peer.confirm("news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server, subscribe_timeout=0.6) as client:
        given_up = asyncio.ensure_future(client.subscribe("news"))
        await asyncio.sleep(0.3)  # whoever asks at the same time has no time left after that
        given_up.cancel()
        await asyncio.wait({given_up})
        assert (await asyncio.wait_for(client.subscribe("news"), 5)).is_subscribed


async def test_who_comes_later_has_as_much_time_as_who_came_first() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="news")
        await peer.expect("pusher:ping")  # the time of the first is over
        await peer.confirm("news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server, subscribe_timeout=0.6) as client:
        first = asyncio.ensure_future(client.subscribe("news"))
        await asyncio.sleep(0.3)
        assert (await client.subscribe("news")).is_subscribed
        with pytest.raises(TimeoutError):
            await first


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_server_that_answers_nothing_is_a_timeout_every_time(how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server, subscribe_timeout=0.1) as client:
        first = asyncio.ensure_future(client.subscribe("news"))
        await asyncio.sleep(0)
        if how == "cancelled":
            first.cancel()
            await asyncio.wait({first})
        else:
            with pytest.raises(TimeoutError):
                await first
        for _ in range(2):
            with pytest.raises(
                TimeoutError, match=r"the server did not answer the subscribe to .* \(REVERB_SUBSCRIBE_TIMEOUT\)$"
            ):
                await asyncio.wait_for(client.subscribe("news"), 5)
        assert client.is_connected
        assert client.channels == {}


async def test_a_channel_that_is_overdue_is_there_when_the_server_confirms_it() -> None:
    """One that the program has: it is wanted still, and is not asked for twice."""
    drop, back = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        await peer.expect("pusher:subscribe", channel="news")
        if peer.number == 1:
            await peer.confirm("news")
            await drop.wait()
            return
        await peer.expect("pusher:ping")  # as it is overdue
        await back.wait()
        await peer.confirm("news")
        await peer.send("pusher:pong")
        await peer.send("e", "1", "news")
        await peer.expect("pusher:ping")
        await peer.send("pusher:pong")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server, subscribe_timeout=0.1) as client:
        errors, heard = Recorder(), Recorder()
        client.bind("error", errors)
        news = (await client.subscribe("news")).bind("e", heard)
        drop.set()
        ((_, data, _),) = await errors.wait_for(1)
        assert isinstance(data["exception"], TimeoutError)
        with pytest.raises(TimeoutError):  # nor does anybody wait for it without end
            await asyncio.wait_for(client.subscribe("news"), 5)
        assert client.channels == {"news": news}
        back.set()
        assert await heard.wait_for(1) == [("e", 1, "news")]
        assert news.is_subscribed
        await client.ping()
        assert len(errors.calls) == 1


async def test_the_same_name_at_once_is_one_subscription_and_one_object() -> None:
    subscribes = 0

    async def script(peer: Peer) -> None:
        nonlocal subscribes
        await peer.establish()
        while True:
            message = await peer.expect("pusher:subscribe")
            subscribes += 1
            await peer.confirm(message["data"]["channel"])

    async with ScriptedServer(script) as server, connected(server) as client:
        first, second = await asyncio.gather(client.subscribe("news"), client.subscribe("news"))
        assert first is second
        assert await client.subscribe("news") is first
        await client.subscribe("other")
        assert subscribes == 2


async def test_one_of_two_waiting_subscribers_can_be_cancelled() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await go_on.wait()
        await peer.confirm("news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        first, second = (asyncio.ensure_future(client.subscribe("news")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})
        go_on.set()
        assert (await second).is_subscribed


async def test_subscribing_and_unsubscribing_in_quick_succession_ends_as_asked() -> None:
    """The second subscribe waits for the answer to the first, or nobody could tell whose a success is. And so does
    the unsubscribe: soketi works on several messages of a connection at once, so it might be overtaken."""

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="news")
        await peer.confirm("news")
        await peer.send("e", "1", "news")
        await peer.expect("pusher:unsubscribe", channel="news")
        await peer.expect("pusher:subscribe", channel="news")
        await peer.confirm("news")
        await peer.send("e", "2", "news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        first = asyncio.ensure_future(client.subscribe("news"))
        await asyncio.sleep(0)
        await client.unsubscribe("news")
        news = await client.subscribe("news")
        heard = Recorder()
        news.bind("e", heard)
        with pytest.raises(SubscriptionError, match="unsubscribed before"):
            await first
        assert await heard.wait_for(1) == [("e", 2, "news")]


async def test_events_behind_the_confirmation_reach_handlers_bound_right_after() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        for _ in range(2):
            name = (await peer.expect("pusher:subscribe"))["data"]["channel"]
            succeeded = encode_message("pusher_internal:subscription_succeeded", "{}", name)
            await peer.send_raw(
                b"".join(
                    encode_frame(TEXT, text)
                    for text in (succeeded, encode_message("e", "1", name), encode_message("e", "2", name))
                )
            )
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        heard, everything = Recorder(), Recorder()
        one = await client.subscribe("cache-1")
        one.bind("e", heard).bind("*", everything)
        assert await heard.wait_for(2) == [("e", 1, "cache-1"), ("e", 2, "cache-1")]
        assert everything.events == [Events.SUBSCRIPTION_SUCCEEDED, "e", "e"]
        # wrapped in other tasks, the way back to the caller is longer
        (two,) = await asyncio.wait_for(asyncio.gather(client.subscribe("cache-2")), 5)
        two.bind("e", heard)
        assert len(await heard.wait_for(4)) == 4


async def test_the_first_events_do_not_wait_for_ever_for_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        await peer.send("e", "1", "news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        heard = Recorder()
        client.bind("e", heard)
        await client.subscribe("news")
        assert await heard.wait_for(1) == [("e", 1, "news")]


@pytest.mark.parametrize("name", ["", None, 5, "\ud800"])
async def test_channel_names_that_are_none(name: Any) -> None:
    async with ScriptedServer(confirm_all) as server, connected(server) as client:
        with pytest.raises(SubscriptionError, match="channel name"):
            await client.subscribe(name)
        assert client.channels == {}


async def test_presence_needs_user_data_and_other_channels_take_none() -> None:
    async with ScriptedServer(confirm_all) as server, connected(server) as client:
        with pytest.raises(SubscriptionError, match="user_id"):
            await client.subscribe("presence-r")
        with pytest.raises(SubscriptionError, match="presence"):
            await client.subscribe("private-x", user_data=ALICE)


async def test_user_data_is_what_it_was_or_is_left_out() -> None:
    async with ScriptedServer(confirm_all) as server, connected(server) as client:
        room = await client.subscribe("presence-r", ALICE)
        assert await client.subscribe("presence-r", dict(ALICE)) is room
        assert await client.subscribe("presence-r") is room
        with pytest.raises(SubscriptionError, match=r"'presence-r' is subscribed with other user_data"):
            await client.subscribe("presence-r", {"user_id": "bob"})
        assert room.is_subscribed
        await client.unsubscribe("presence-r")
        bob = await client.subscribe("presence-r", {"user_id": "bob"})
        assert bob.me["user_id"] == "bob"


async def test_user_data_that_differs_from_that_of_a_subscription_under_way() -> None:
    async with ScriptedServer(confirm_all) as server, connected(server) as client:
        first = asyncio.ensure_future(client.subscribe("presence-r", ALICE))
        await asyncio.sleep(0)
        with pytest.raises(SubscriptionError, match="other user_data"):
            await client.subscribe("presence-r", {"user_id": "bob"})
        assert (await first).me == ALICE


async def test_an_authorizer_says_who_we_are_and_nobody_else() -> None:
    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        return ChannelAuth("key:signature", '{"user_id":7}')

    async with ScriptedServer(confirm_all) as server, connected(server, authorizer=authorizer) as client:
        with pytest.raises(SubscriptionError, match=r"the authorizer names the user on 'presence-r'"):
            await client.subscribe("presence-r", ALICE)
        assert client.channels == {}
        room = await client.subscribe("presence-r")
        assert isinstance(room, PresenceChannel)
        assert await client.subscribe_presence("presence-r") is room
        assert room.me["user_id"] == "7"


async def test_subscribe_presence_is_for_presence_channels() -> None:
    async with ScriptedServer(confirm_all) as server, connected(server) as client:
        room = await client.subscribe_presence("presence-r", ALICE, max_pending=7)
        assert await client.subscribe("presence-r") is room
        name: Any
        for name in ("private-r", "news", "", None):
            with pytest.raises(SubscriptionError, match=f"{name!r} is not a presence channel"):
                await client.subscribe_presence(name)
        assert client.channels == {"presence-r": room}


async def test_without_a_secret_public_channels_work_and_private_ones_say_what_is_missing() -> None:
    async with ScriptedServer(confirm_all) as server:
        client = ReverbClient(app_key="key", host=server.host, port=server.port, scheme="http")
        async with client:
            assert (await client.subscribe("news")).is_subscribed
            with pytest.raises(ConfigurationError, match="REVERB_APP_SECRET"):
                await client.subscribe("private-x")
            assert client.is_connected


async def test_subscribing_without_a_connection_is_an_error_at_once() -> None:
    async with ScriptedServer(confirm_all) as server:
        with pytest.raises(ConnectionError, match=r"'news'.*connect"):
            await make_client(server).subscribe("news")


async def test_unsubscribing() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="news")
        await peer.confirm("news")
        await peer.expect("pusher:unsubscribe", channel="news")
        await peer.send("e", "1", "news")
        await peer.expect("pusher:subscribe", channel="other")
        await peer.confirm("other")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        heard = Recorder()
        news = await client.subscribe("news")
        news.bind("e", heard)
        client.bind("e", heard)
        await client.unsubscribe("news")
        await client.unsubscribe("news")
        await client.unsubscribe("never")
        assert not news.is_subscribed
        assert client.channels == {}
        await client.subscribe("other")
        assert heard.calls == []


# --- authorizers -----------------------------------------------------------------------------------------------


async def test_an_authorizer_signs_in_place_of_the_secret() -> None:
    messages: list[dict[str, Any]] = []
    asked: list[tuple[str, str]] = []

    async def script(peer: Peer) -> None:
        await peer.establish("1.2")
        for _ in range(2):
            messages.append((await peer.expect("pusher:subscribe"))["data"])
            await peer.confirm(messages[-1]["channel"])
        await peer.wait_closed()

    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        asked.append((socket_id, channel))
        return ChannelAuth(
            "key:signature", '{"user_id":7, "user_info":{"name":"é"}}' if "pres" in channel else None
        )

    async with ScriptedServer(script) as server, connected(server, authorizer=authorizer) as client:
        await client.subscribe("private-x")
        room = await client.subscribe("presence-r")
        assert isinstance(room, PresenceChannel)
        assert room.me == {"user_id": "7", "user_info": {"name": "é"}}
    assert asked == [("1.2", "private-x"), ("1.2", "presence-r")]
    assert messages == [
        {"channel": "private-x", "auth": "key:signature"},
        {
            "channel": "presence-r",
            "auth": "key:signature",
            "channel_data": '{"user_id":7, "user_info":{"name":"é"}}',
        },
    ]


@pytest.mark.parametrize("failure", ["raises", "refuses", "returns nonsense"])
async def test_an_authorizer_that_fails_fails_its_channel_only(failure: str) -> None:
    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        if failure == "raises":
            raise RuntimeError("token-123")
        if failure == "refuses":
            raise AuthenticationError("not for you", code=403)
        nonsense: Any = "key:signature"
        return nonsense  # type: ignore[no-any-return]

    async with ScriptedServer(confirm_all) as server, connected(server, authorizer=authorizer) as client:
        private, public = await asyncio.gather(
            client.subscribe("private-x"), client.subscribe("news"), return_exceptions=True
        )
        assert isinstance(private, AuthenticationError)
        assert isinstance(public, Channel)
        if failure == "refuses":
            assert private.code == 403
        else:
            assert "'private-x'" in str(private)
            assert "token-123" not in str(private)
            assert isinstance(private.__cause__, RuntimeError if failure == "raises" else type(None))


@pytest.mark.parametrize("signature", ["key:\ud800", object()])
async def test_what_an_authorizer_returns_and_nobody_can_send(signature: Any) -> None:
    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        return ChannelAuth(signature)

    async with ScriptedServer(confirm_all) as server, connected(server, authorizer=authorizer) as client:
        for _ in range(2):
            with pytest.raises(AuthenticationError, match="'private-x': it returned a value that cannot be sent"):
                await asyncio.wait_for(client.subscribe("private-x"), 5)
        assert (await client.subscribe("news")).is_subscribed
        assert server.connections == 1


async def test_an_authorizer_that_fails_for_a_channel_given_up_disturbs_no_successor() -> None:
    asked: list[asyncio.Future[None]] = []
    subscribes: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.establish()
        while True:
            message = await peer.receive()
            if message["event"] == "pusher:subscribe":
                subscribes.append(message["data"]["channel"])
                await peer.confirm(message["data"]["channel"])

    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asked.append(answer)
        with suppress(asyncio.CancelledError):
            await asyncio.shield(answer)
        await answer  # cancelled or not
        return ChannelAuth("key:signature")

    async with ScriptedServer(script) as server, connected(server, authorizer=authorizer) as client:
        given_up = asyncio.ensure_future(client.subscribe("private-x"))
        await until(lambda: len(asked) == 1)
        given_up.cancel()
        await asyncio.wait({given_up})
        again = asyncio.ensure_future(client.subscribe("private-x"))
        await until(lambda: len(asked) == 2)
        asked[0].set_exception(AuthenticationError("too late"))
        await asyncio.sleep(0.01)  # nothing is to come of it
        asked[1].set_result(None)
        assert (await again).is_subscribed
        assert len(asked) == 2
        assert subscribes == ["private-x"]


async def test_authorizers_are_not_called_all_at_once() -> None:
    running = most = 0

    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3):
            await asyncio.sleep(0)
        running -= 1
        return ChannelAuth("key:signature")

    async with ScriptedServer(confirm_all) as server, connected(server, authorizer=authorizer) as client:
        await asyncio.gather(*(client.subscribe(f"private-{number}") for number in range(50)))
        assert most == 8


# --- events ----------------------------------------------------------------------------------------------------


async def test_events_reach_the_handlers_of_their_channel_and_of_the_client() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        for name in ("a", "b"):
            await peer.expect("pusher:subscribe", channel=name)
            await peer.confirm(name)
        await go.wait()
        await peer.send("App\\Events\\Shipped", '{"id":1}', "a")
        await peer.send("App\\Events\\Shipped", "just text", "b")
        await peer.send("App\\Events\\Shipped", "2", "elsewhere")
        await peer.send("pusher:custom", "{}", "a")
        await peer.send("pusher:cache_miss", channel="b")
        await peer.send("no:channel", "3")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        on_a, on_client = Recorder(), Recorder()
        a, b = await client.subscribe("a"), await client.subscribe("b")
        assert a.bind("App\\Events\\Shipped", on_a) is a
        b.bind("never", on_a)
        client.bind("*", on_client)
        await until(lambda: len(on_client.calls) == 2)  # subscription_succeeded
        on_client.calls.clear()
        go.set()
        assert await on_client.wait_for(5) == [
            ("App\\Events\\Shipped", {"id": 1}, "a"),
            ("App\\Events\\Shipped", "just text", "b"),
            ("pusher:custom", {}, "a"),
            ("pusher:cache_miss", None, "b"),
            ("no:channel", 3, None),
        ]
        assert on_a.calls == [("App\\Events\\Shipped", {"id": 1}, "a")]


async def test_errors_of_the_server_reach_error_handlers() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("private-x")
        await peer.expect("client-x")
        await peer.send("pusher:error", r'{"code":4301,"message":"Rate limit exceeded"}')
        await peer.send("pusher:error", {"code": 4301, "message": "as soketi says it"}, "private-x")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        everything, on_channel = Recorder(), Recorder()
        client.bind("error", everything)
        channel = await client.subscribe("private-x")
        channel.bind("error", on_channel)
        await channel.trigger("x", {})
        assert await everything.wait_for(2) == [
            ("pusher:error", {"code": 4301, "message": "Rate limit exceeded"}, None),
            ("pusher:error", {"code": 4301, "message": "as soketi says it"}, "private-x"),
        ]
        assert len(on_channel.calls) == 1
        assert client.is_connected


async def test_a_handler_that_listens_is_told_that_it_would_wait_for_itself() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        await peer.send("e", "1", "news")
        await peer.wait_closed()

    async def handler(event: str, data: Any, channel: str | None) -> None:
        await client.listen()

    async with ScriptedServer(script) as server, connected(server) as client:
        errors = Recorder()
        client.bind("error", errors)
        (await client.subscribe("news")).bind("e", handler)
        ((_, data, _),) = await errors.wait_for(1)
        assert isinstance(data["exception"], RuntimeError)
        assert "it waits for disconnect(), which waits for handlers" in str(data["exception"])


async def test_handlers_may_call_anything() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        while True:
            message = await peer.receive()
            if message["event"] == "pusher:subscribe":
                await peer.confirm(message["data"]["channel"])
                await peer.send("go", "1", message["data"]["channel"])

    async with ScriptedServer(script) as server:
        client = make_client(server)
        await client.connect()

        async def handler(event: str, data: Any, channel: str | None) -> None:
            other = await client.subscribe("private-other")
            await other.trigger("status", {})
            await client.unsubscribe("private-other")
            await client.disconnect()

        (await client.subscribe("news")).bind("go", handler)
        await asyncio.wait_for(client.listen(), 5)
        await until(lambda: not client_tasks())
        assert not client.is_connected


async def test_two_handlers_that_disconnect_do_not_wait_for_each_other() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        for name in ("a", "b"):
            await peer.expect("pusher:subscribe")
            await peer.confirm(name)
        await go.wait()
        await peer.send("go", "1", "a")
        await peer.send("go", "1", "b")
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        client = make_client(server, drain_timeout=30)
        await client.connect()
        finished = []

        async def handler(event: str, data: Any, channel: str | None) -> None:
            await client.disconnect()
            finished.append(channel)

        for name in ("a", "b"):
            (await client.subscribe(name)).bind("go", handler)
        go.set()
        await until(lambda: len(finished) == 2)


async def test_disconnecting_lets_handlers_finish_what_was_received() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        for number in range(5):
            await peer.send("e", str(number), "news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        go_on, heard = asyncio.Event(), Recorder()

        async def handler(event: str, data: Any, channel: str | None) -> None:
            await go_on.wait()
            heard(event, data, channel)

        news = await client.subscribe("news")
        news.bind("e", handler)
        await until(lambda: client.stats.queued == 4)
        disconnecting = asyncio.ensure_future(client.disconnect())
        await until(lambda: not client.is_connected)
        go_on.set()
        await disconnecting
        assert [data for _, data, _ in heard.calls] == [0, 1, 2, 3, 4]


async def test_handlers_that_hang_are_cancelled_when_disconnecting() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        await peer.send("e", "1", "news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        started = asyncio.Event()

        async def handler(event: str, data: Any, channel: str | None) -> None:
            started.set()
            await asyncio.Event().wait()

        async with connected(server, drain_timeout=0.05) as client:
            (await client.subscribe("news")).bind("e", handler)
            await asyncio.wait_for(started.wait(), 5)


# --- client events ---------------------------------------------------------------------------------------------


async def test_triggering() -> None:
    received: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("private-x")
        for _ in range(3):
            received.append(await peer.receive())
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        channel = await client.subscribe("private-x")
        await channel.trigger("status", {"cpu": 45.2})
        await channel.trigger("client-status", [1])
        await channel.trigger("status", None)
        await until(lambda: len(received) == 3)
    assert received == [
        {"event": "client-status", "channel": "private-x", "data": data} for data in ({"cpu": 45.2}, [1], None)
    ]


async def test_client_events_that_cannot_be_sent_are_errors_at_once() -> None:
    async with (
        ScriptedServer(confirm_all) as server,
        connected(server, max_message_size=100, encryption_master_key=b64encode(32 * b"m").decode()) as client,
    ):
        public = await client.subscribe("news")
        private = await client.subscribe("private-x")
        encrypted = await client.subscribe("private-encrypted-x")
        with pytest.raises(SubscriptionError, match="private or presence"):
            await public.trigger("status", {})
        with pytest.raises(SubscriptionError, match="encrypted"):
            await encrypted.trigger("status", {})
        with pytest.raises(ProtocolError, match="object, a list, or None"):
            await private.trigger("status", "text")
        size = len(encode_message("client-status", {"x": ""}, "private-x"))
        await private.trigger("status", {"x": "a" * (100 - size)})
        with pytest.raises(ProtocolError, match=r"101 bytes.* 100 \(REVERB_MAX_MESSAGE_SIZE\)"):
            await private.trigger("status", {"x": "a" * (101 - size)})
        await client.unsubscribe("private-x")
        with pytest.raises(SubscriptionError, match="not subscribed"):
            await private.trigger("status", {})
        await client.disconnect()
        with pytest.raises(ConnectionError, match="not connected"):
            await private.trigger("status", {})


# --- losing the connection -------------------------------------------------------------------------------------


async def test_after_a_loss_all_channels_are_subscribed_again_with_fresh_signatures() -> None:
    subscribes: list[tuple[int, str, str | None]] = []
    drop = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        for _ in range(3):
            data = (await peer.expect("pusher:subscribe"))["data"]
            subscribes.append((peer.number, data["channel"], data.get("auth")))
            members = json.dumps({"presence": {"ids": [str(peer.number)], "hash": {}}})
            await peer.confirm(data["channel"], members if "presence" in data["channel"] else "{}")
        if peer.number == 1:
            await drop.wait()
            return
        await peer.send("e", "2", "news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        heard, confirmations = Recorder(), Recorder()
        channels = [
            await client.subscribe("news"),
            await client.subscribe("private-x"),
            await client.subscribe("presence-r", ALICE),
        ]
        channels[0].bind("e", heard)
        client.bind("pusher:subscription_succeeded", confirmations)
        await confirmations.wait_for(3)
        listening = asyncio.ensure_future(client.listen())
        drop.set()
        assert await heard.wait_for(1) == [("e", 2, "news")]
        assert client.socket_id == "1.2"
        assert not listening.done()
        assert list(client.channels.values()) == channels
        assert all(channel.is_subscribed for channel in channels)
        room = channels[2]
        assert isinstance(room, PresenceChannel)
        assert room.members == {"2": {}}
        assert len(await confirmations.wait_for(6)) == 6
        await client.disconnect()
        await listening
    assert [(number, name) for number, name, _ in subscribes] == [
        (number, name) for number in (1, 2) for name in ("news", "private-x", "presence-r")
    ]
    assert subscribes[4][2] == sign_channel("app-key", "app-secret", "1.2", "private-x")
    assert subscribes[5][2] != subscribes[2][2]


async def test_while_the_connection_is_down_the_state_is_told_as_it_is() -> None:
    drop, back = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number > 1:
            await back.wait()
        await peer.establish(f"1.{peer.number}")
        await peer.expect("pusher:subscribe")
        await peer.confirm("private-x")
        if peer.number == 1:
            await drop.wait()
        else:
            await peer.expect("pusher:subscribe", channel="late")
            await peer.confirm("late")
            await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        channel = await client.subscribe("private-x")
        drop.set()
        await until(lambda: not client.is_connected)
        assert client.socket_id is None
        assert not channel.is_subscribed
        assert client.channels == {"private-x": channel}
        with pytest.raises(ConnectionError, match="not connected"):
            await channel.trigger("status", {})
        late = asyncio.ensure_future(client.subscribe("late"))
        again = asyncio.ensure_future(client.subscribe("private-x"))
        await until(lambda: server.connections == 2)
        assert not late.done()
        back.set()
        assert (await late).is_subscribed
        assert await again is channel


async def test_what_was_unsubscribed_while_the_connection_was_down_stays_away() -> None:
    drop = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.establish()
            for name in ("a", "b"):
                await peer.expect("pusher:subscribe")
                await peer.confirm(name)
            await drop.wait()
        else:
            await peer.establish()
            await peer.expect("pusher:subscribe", channel="b")
            await peer.confirm("b")
            await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        await client.subscribe("a")
        b = await client.subscribe("b")
        drop.set()
        await until(lambda: not client.is_connected)
        await client.unsubscribe("a")
        await until(lambda: b.is_subscribed)
        assert client.channels == {"b": b}


async def test_a_channel_refused_after_a_reconnect_is_reported_and_tried_again_at_the_next() -> None:
    drops = [asyncio.Event(), asyncio.Event()]

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="private-x")
        if peer.number == 2:
            await peer.send("pusher:error", UNAUTHORIZED)
        else:
            await peer.confirm("private-x")
        await peer.expect("pusher:subscribe", channel="news")
        await peer.confirm("news")
        if peer.number < 3:
            await drops[peer.number - 1].wait()
        else:
            await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        errors = Recorder()
        client.bind("reverb:error", errors)
        private, news = await client.subscribe("private-x"), await client.subscribe("news")
        drops[0].set()
        ((event, data, channel),) = await errors.wait_for(1)
        assert (event, channel) == ("reverb:error", "private-x")
        assert data["code"] == 4009
        assert isinstance(data["exception"], AuthenticationError)
        await until(lambda: news.is_subscribed)
        assert not private.is_subscribed
        assert client.channels.keys() == {"private-x", "news"}
        drops[1].set()
        await until(lambda: private.is_subscribed and news.is_subscribed)


SOKETIS = {"type": "ServerError", "error": "an exception", "status": 500}


@pytest.mark.parametrize(
    "refusal",
    [
        ("pusher:error", r'{"code":4301,"message":"Rate limit exceeded"}'),
        ("pusher:error", r'{"code":4302,"message":"an exception"}'),
        ("pusher:subscription_error", SOKETIS, "news"),
    ],
)
async def test_what_is_refused_for_a_passing_reason_after_a_reconnect_is_tried_again_and_reported_once(
    refusal: tuple[Any, ...],
) -> None:
    drop = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        if peer.number == 2:
            for _ in range(3):
                await peer.expect("pusher:subscribe", channel="news")
                await peer.send(*refusal)
        await peer.expect("pusher:subscribe", channel="news")
        await peer.confirm("news")
        if peer.number == 1:
            await drop.wait()
        else:
            await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        errors = Recorder()
        client.bind("reverb:error", errors)
        news = await client.subscribe("news")
        drop.set()
        await until(lambda: client.socket_id == "1.2" and news.is_subscribed)
        assert [(type(data["exception"]), channel) for _, data, channel in errors.calls] == [
            (SubscriptionError, "news")
        ]


async def test_what_is_refused_for_good_is_asked_for_once_at_each_connection_and_reported_each_time() -> None:
    drops = [asyncio.Event() for _ in range(3)]

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        await peer.expect("pusher:subscribe", channel="private-x")
        if peer.number == 1:
            await peer.confirm("private-x")
        else:
            await peer.send("pusher:error", UNAUTHORIZED)
            await peer.expect("pusher:ping")  # the program's: there is no other subscribe before it
            await peer.send("pusher:pong")
        await drops[peer.number - 1].wait()

    async with ScriptedServer(script) as server, connected(server) as client:
        errors = Recorder()
        client.bind("reverb:error", errors)
        await client.subscribe("private-x")
        for number in (1, 2):
            drops[number - 1].set()
            await errors.wait_for(number)
            await asyncio.sleep(0.2)  # much longer than the delay before it would be tried again
            await client.ping()
        assert [data["exception"].is_temporary for _, data, _ in errors.calls] == [False, False]
        drops[2].set()


async def test_a_channel_not_confirmed_after_a_reconnect_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    drop = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        if peer.number == 1:
            await peer.confirm("news")
            await drop.wait()
        else:
            await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server, subscribe_timeout=0.2) as client:
        errors = Recorder()
        client.bind("error", errors)
        await client.subscribe("news")
        drop.set()
        ((_, data, channel),) = await errors.wait_for(1)
        assert isinstance(data["exception"], TimeoutError)
        assert channel == "news"
        assert client.is_connected


async def test_a_subscribe_that_is_waiting_when_the_connection_drops_is_asked_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="news")
        if peer.number > 1:
            await peer.confirm("news")
            await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        assert (await client.subscribe("news")).is_subscribed
        assert server.connections == 2


# --- what a program sees ---------------------------------------------------------------------------------------


def test_the_settings_of_a_client() -> None:
    client = ReverbClient(app_key="key", host="example.com", ping_interval=7)
    assert (client.config.address, client.config.ping_interval) == ("example.com:443", 7)
    assert ReverbClient(client.config).config is client.config


def test_what_the_package_exports() -> None:
    for name in reverb.__all__:
        assert getattr(reverb, name) is not None
    assert reverb.__version__ == "0.1.0"


async def test_secrets_and_signatures_do_not_show_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish("1.1")
        await peer.expect("pusher:subscribe")
        await peer.send("pusher:error", UNAUTHORIZED)
        await peer.wait_closed()

    signature = sign_channel("app-key", "S3CR3T", "1.1", "private-x").partition(":")[2]
    with caplog.at_level("DEBUG"):
        async with (
            ScriptedServer(script) as server,
            connected(server, app_secret="S3CR3T", log_level="DEBUG") as client,
        ):
            with pytest.raises(AuthenticationError) as caught:
                await client.subscribe("private-x")
            shown = caplog.text + repr(client) + repr(caught.value)
    assert "S3CR3T" not in shown
    assert signature not in shown


# --- outages, states, and handlers that are too slow -----------------------------------------------------------


async def test_an_outage_is_told_after_everything_is_subscribed_again() -> None:
    drop = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        if peer.number == 1:
            await drop.wait()
        else:
            await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        heard = Recorder()
        news = await client.subscribe("news")
        was_subscribed: list[bool] = []
        client.bind(Events.RECONNECTED, lambda *_: was_subscribed.append(news.is_subscribed))
        client.bind("*", heard)
        drop.set()
        await until(lambda: was_subscribed)
        assert was_subscribed == [True]
        (event, data, channel) = heard.calls[-1]
        assert (event, channel) == (Events.RECONNECTED, None)
        assert data["attempts"] == 1
        assert 0 < data["downtime"] < 5
        assert [data for event, data, _ in heard.calls if event == Events.STATE_CHANGE] == [
            {"previous": "connected", "current": "connecting"},
            {"previous": "connecting", "current": "connected"},
        ]


async def test_the_state_of_the_connection() -> None:
    async with ScriptedServer(confirm_all) as server:
        client = make_client(server)
        heard = Recorder()
        client.bind(Events.STATE_CHANGE, heard)
        assert client.state == "initialized"
        with pytest.raises(ConnectionError):
            await client.wait_connected(1)
        await client.connect()
        assert client.state == "connected"
        await client.wait_connected()
        await client.disconnect()
        assert client.state == "disconnected"
        assert [data["current"] for _, data, _ in heard.calls] == ["connecting", "connected", "disconnected"]
        assert heard.calls[0] == (Events.STATE_CHANGE, {"previous": "initialized", "current": "connecting"}, None)


async def flood(peer: Peer, count: int, sent: list[int]) -> None:
    """Confirm the first subscribe and publish ``count`` numbered events of 10 kB as fast as they are read."""
    name = (await peer.expect("pusher:subscribe"))["data"]["channel"]
    await peer.confirm(name)
    filler = "x" * 10_000
    for number in range(count):
        await peer.send("e", json.dumps([number, filler]), name)
        sent.append(number)


async def test_slow_handlers_make_the_server_wait_and_lose_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reverb._channels._SLOW_AFTER", 0.01)
    sent: list[int] = []

    async def script(peer: Peer) -> None:
        peer.deadline = 30
        await peer.establish()
        await flood(peer, 3_000, sent)
        await peer.wait_closed()

    async with (
        ScriptedServer(script, deadline=30) as server,
        connected(server, max_pending_bytes=200_000) as client,
    ):
        go_on, numbers = asyncio.Event(), []
        most = 0

        async def slow(event: str, data: Any, channel: str | None) -> None:
            nonlocal most
            most = max(most, client.stats.queued)
            await go_on.wait()
            numbers.append(data[0])

        (await client.subscribe("news")).bind("e", slow)
        await until(lambda: client.stats.queued >= 20)
        seen = -1
        while seen != len(sent):  # until TCP has stopped the server
            seen = len(sent)
            await asyncio.sleep(0.05)
        assert len(sent) < 2_500
        assert client.stats.queued < 200
        go_on.set()
        await until(lambda: len(numbers) == 3_000, 30)
        assert numbers == list(range(3_000))
        assert most < 1_500  # the bound, and what one read of the socket can bring
        warnings = [record.getMessage() for record in caplog.records if "slower than the server" in record.message]
        assert len(warnings) == 1
        assert "on news" in warnings[0]
        assert client.stats.queued == 0


async def test_while_reading_is_paused_the_connection_is_kept_alive_and_not_given_up() -> None:
    sent: list[int] = []
    pings = 0

    async def script(peer: Peer) -> None:
        nonlocal pings
        peer.deadline = 30
        await peer.establish()
        flooding = asyncio.ensure_future(flood(peer, 3_000, sent))
        await until(lambda: sent)
        while pings < 5:
            await peer.expect("pusher:ping")
            pings += 1
        await flooding
        await peer.wait_closed()

    async with (
        ScriptedServer(script, deadline=30) as server,
        connected(server, max_pending_bytes=100_000, ping_interval=0.05, pong_timeout=0.05) as client,
    ):
        numbers: list[int] = []

        async def slow(event: str, data: Any, channel: str | None) -> None:
            await until(lambda: pings >= 5)
            numbers.append(data[0])

        (await client.subscribe("news")).bind("e", slow)
        await until(lambda: len(numbers) == 3_000, 30)
        assert numbers == list(range(3_000))
        assert server.connections == 1


@pytest.mark.parametrize("question", ["subscribe", "signin", "ping"])
async def test_a_handler_can_ask_the_server_while_reading_is_paused(question: str) -> None:
    filler = "x" * 10_000

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="news")
        await peer.confirm("news")
        for number in range(30):
            await peer.send("e", json.dumps([number, filler]), "news")
        data = (await peer.expect(f"pusher:{question}")).get("data")
        if question == "subscribe":
            await peer.confirm("other")
        elif question == "signin":
            await peer.send("pusher:signin_success", json.dumps(data))
        else:
            await peer.send("pusher:pong")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server, max_pending_bytes=100_000) as client:
        done = asyncio.Event()

        async def handler(event: str, data: Any, channel: str | None) -> None:
            if data[0] == 0:
                await until(lambda: client.stats.queued >= 9)  # with this one they were more than the bound
                if question == "subscribe":
                    await client.subscribe("other")
                elif question == "signin":
                    await client.signin({"id": "7"})
                else:
                    await client.ping()
            elif data[0] == 29:
                done.set()

        (await client.subscribe("news")).bind("e", handler)
        await asyncio.wait_for(done.wait(), 5)


# --- pings -----------------------------------------------------------------------------------------------------


async def test_a_ping_comes_back_behind_the_errors_of_what_was_sent_before() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="private-x")
        await peer.confirm("private-x")
        await peer.expect("client-status")
        await peer.expect("pusher:ping")
        await peer.send("pusher:error", r'{"code":4301,"message":"No client messaging"}')
        await asyncio.sleep(0.05)
        await peer.send("pusher:pong")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        errors = Recorder()
        client.bind("error", errors)
        private = await client.subscribe("private-x")
        await private.trigger("status", {})
        assert 0.05 <= await client.ping() < 5
        assert [data["code"] for _, data, _ in errors.calls] == [4301]


async def test_pings_at_the_same_time_are_told_apart() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        for _ in range(2):
            await peer.expect("pusher:ping")
        for _ in range(2):
            await peer.send("pusher:pong")
            await asyncio.sleep(0.05)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        first, second = await asyncio.gather(client.ping(), client.ping())
        assert first + 0.03 < second


async def test_a_ping_at_each_turn_of_connecting_is_answered_and_so_are_later_ones() -> None:
    async with ReverbServer() as server:
        for number in turns():
            client = make_client(server)
            connecting = asyncio.ensure_future(client.connect())
            await wait_turns(number)
            was_done = connecting.done()
            with suppress(ConnectionError):
                await asyncio.wait_for(client.ping(), 5)
            await connecting
            await asyncio.wait_for(client.ping(), 5)
            await client.disconnect()
            if was_done:
                break


async def test_one_second_is_not_seconds() -> None:
    async def script(peer: Peer) -> None:
        await (peer.establish() if peer.number == 1 else peer.upgrade())
        await peer.wait_closed()

    async def reason(work: Coroutine[Any, Any, Any]) -> str:
        with pytest.raises(TimeoutError) as caught:
            await work
        return str(caught.value)

    options = {"connect_timeout": 1, "subscribe_timeout": 1, "pong_timeout": 1}
    async with ScriptedServer(script) as server, connected(server, **options) as client:
        other = make_client(server, **options)
        reasons = await asyncio.gather(
            reason(client.ping()),
            reason(client.subscribe("news")),
            reason(client.signin({"id": "7"})),
            reason(client.wait_for("e", timeout=1)),
            reason(other.connect()),
        )
    assert [each for each in reasons if "within 1 second" not in each or "1 seconds" in each] == []


async def test_a_ping_without_an_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:ping")
        await peer.expect("pusher:ping")
        await peer.hang_up()

    async with ScriptedServer(script) as server, connected(server, pong_timeout=0.1) as client:
        with pytest.raises(TimeoutError, match=r"a ping within 0\.1 seconds \(REVERB_PONG_TIMEOUT\)"):
            await client.ping()
        with pytest.raises(ConnectionError, match=r"lost the connection to .* before a ping was answered"):
            await client.ping()
    with pytest.raises(ConnectionError, match="cannot ping: not connected to"):
        await client.ping()


async def test_a_ping_that_is_refused() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:ping")
        await peer.send("pusher:error", r'{"code":4301,"message":"Rate limit exceeded"}')
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        with pytest.raises(ProtocolError, match=r"refused a ping: .*Rate limit exceeded") as caught:
            await client.ping()
        assert caught.value.code == 4301
