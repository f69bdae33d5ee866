"""Laravel Echo's names: that they mean what they mean in Echo, and what Python adds to them.

``vectors/echo.json`` is what Laravel Echo itself does; each of its scenes is played again with ours.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import re
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import reverb
from reverb import (
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    ConnectionState,
    Echo,
    PayloadError,
    SubscriptionError,
    TimeoutError,
)
from reverb.echo import EchoChannel, _format
from tests.missing import pusher_js

from .loops import every_loop
from .node import CACHE
from .scripted import TEXT, Peer, ScriptedServer, encode_frame, encode_message
from .test_client import UNAUTHORIZED, confirm_all, make_client
from .test_dispatch import Recorder
from .watching import client_tasks, until

if TYPE_CHECKING:
    from elsewhere import NotThere  # type: ignore[import-not-found]

VECTORS_DIRECTORY = Path(__file__).parent / "vectors"
VECTORS: dict[str, Any] = json.loads((VECTORS_DIRECTORY / "echo.json").read_text(encoding="utf-8"))
SCENES: dict[str, Any] = VECTORS["scenes"]
ANN = {"user_id": "1", "user_info": {"name": "Ann"}}
MEMBERS = '{"presence":{"count":2,"ids":["1","2"],"hash":{"1":{"name":"Ann"},"2":{"name":"Bob"}}}}'


# --- as Laravel Echo does it -----------------------------------------------------------------------------------


def made_by(script: str) -> Any:
    """Return what a script in ``vectors/`` makes with what is installed from npm."""
    node, _ = pusher_js()
    command = [node, str(VECTORS_DIRECTORY / script), str(CACHE / "pusher_js")]
    made = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8", timeout=30)
    return json.loads(made.stdout)


def test_the_vectors_are_what_laravel_echo_does() -> None:
    assert made_by("echo.mjs") == VECTORS


@pytest.mark.parametrize("vector", VECTORS["names"], ids=lambda vector: repr(vector["namespace"]))
def test_event_names(vector: dict[str, Any]) -> None:
    namespace = vector["namespace"] or None
    assert {event: _format(event, namespace) for event in vector["names"]} == vector["names"]


def test_connection_statuses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert VECTORS["statuses"].keys() == {state.value for state in ConnectionState}
    echo = Echo(reverb.ReverbClient(app_key="k", host="h"))
    for state, status in VECTORS["statuses"].items():
        monkeypatch.setattr(reverb.ReverbClient, "state", ConnectionState(state))
        assert echo.connection_status() == status


class Stage:
    """Plays scenes of the vectors."""

    def __init__(self, echo: Echo, peer: Peer) -> None:
        self.happened: list[Any] = []
        self._variables: dict[str | None, Any] = {"echo": echo}
        self._callbacks: dict[str, Callable[..., None]] = {}
        self._peer = peer

    async def play(self, step: list[Any], expected: list[list[Any]]) -> None:
        """Take a step; ``expected`` says how much it is to make the client send."""
        if step[0] == "receive":
            _, channel, event, data = step
            await self._peer.send(event, json.dumps(data), channel)
        else:
            variable, target, method, *arguments = step
            names = {"leaveAllChannels": "leave_all"}
            name = names.get(method) or re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", method)
            if name == "join":
                arguments.append(ANN)
            result = getattr(self._variables[target], name)(*map(self._meant, arguments))
            self._variables[variable] = await result if inspect.iscoroutine(result) else result
        for _ in range(sum(each[0] != "call" for each in expected)):
            self._note_sent(await self._peer.receive())
        await self._peer.send(
            "pusher:ping"
        )  # the answer comes behind all else that the step makes the client send
        while (message := await self._peer.receive())["event"] != "pusher:pong":
            self._note_sent(message)

    def _note_sent(self, message: dict[str, Any]) -> None:
        data, event = message["data"], message["event"].removeprefix("pusher:")
        is_ours = event.startswith("client-")
        self.happened.append(["send", message["channel"], event, data] if is_ours else [event, data["channel"]])

    async def wait_happened(self, count: int) -> None:
        """Wait for ``count`` things to have happened: a confirmation waits for handlers, for a moment."""
        with suppress(AssertionError):  # the test knows better what is missing
            await until(lambda: len(self.happened) >= count, 2)

    def _meant(self, argument: Any) -> Any:
        if not (isinstance(argument, str) and argument.startswith("@")):
            return argument
        name = argument[1:]

        def callback(*values: Any) -> None:
            values = tuple(type(each) if isinstance(each, Exception) else each for each in values)
            self.happened.append(["call", name, *values])

        return self._callbacks.setdefault(name, callback)


def expected(scene: str) -> list[list[Any]]:
    """Return what is to happen at each step of a scene; in some of them not what happens in Laravel Echo."""
    happened = [each["happened"] for each in SCENES[scene]["played"]]
    theirs = list(happened)
    if scene == "listen to all, an empty namespace":  # Echo bites off the first letter
        happened = expected("listen to all, no namespace")
    elif scene == "listen to all, a namespace that begins like ours":  # and here "App\EventsO"
        happened[-1] = [["call", "all", ".App\\EventsOfOld\\Sold", 1]]
    elif scene == "stop listening to all, by one callback":  # and here it has forgotten which one that was
        happened[-1] = happened[-1][1:]
    elif scene == "a refusal":  # Echo passes on what the server says
        happened[-1] = [["call", "error", AuthenticationError]]
    elif scene == "leaving what is not confirmed yet":  # Echo does not wait for the server's answer
        happened[-1] = []
    else:
        return happened
    assert happened != theirs, "Laravel Echo has changed its mind"
    return happened


@pytest.mark.parametrize("scene", SCENES)
async def test_scenes(scene: str) -> None:
    async with stage(SCENES[scene]["namespace"] or None) as (echo, peer):
        played = Stage(echo, peer)
        wanted: list[Any] = []
        for each, happened in zip(SCENES[scene]["played"], expected(scene), strict=True):
            await played.play(each["step"], happened)
            wanted += happened
            await played.wait_happened(len(wanted))
            assert played.happened == wanted, each["step"]


@asynccontextmanager
async def stage(namespace: str | None = "App.Events") -> AsyncIterator[tuple[Echo, Peer]]:
    """An Echo that is connected, and the server's end of its connection, which is left to the test."""
    is_over = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        await is_over.wait()
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        client = make_client(server, encryption_master_key=b64encode(bytes(32)).decode())
        async with Echo(client, namespace=namespace) as echo:
            try:
                yield echo, server.peers[0]
            finally:
                is_over.set()
        assert client_tasks() == set()


# --- what Python adds ------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(server: ScriptedServer) -> AsyncIterator[Echo]:
    async with Echo(make_client(server)) as echo:
        yield echo
    assert client_tasks() == set()


async def confirm_and_publish(peer: Peer) -> None:
    """Confirm every subscribe, and publish on the channel right behind that."""
    await peer.establish()
    while True:
        message = await peer.receive()
        if message["event"] == "pusher:subscribe":
            name = message["data"]["channel"]
            await peer.confirm(name)
            await peer.send("e", '{"n":1}', name)
            await peer.send("e", '{"n":2}', name)


async def test_a_handler_that_is_bound_at_once_misses_nothing_and_waits_its_turn() -> None:
    done: list[Any] = []

    async def slow(data: Any) -> None:
        await asyncio.sleep(0.01)
        done.append(data["n"])

    async with ScriptedServer(confirm_and_publish) as server, connected(server) as echo:
        news = echo.channel("news").listen(".e", slow)
        assert await news is news
        await until(lambda: len(done) == 2)
        assert done == [1, 2]


@pytest.mark.parametrize("others", [0, 1])
async def test_a_handler_that_is_bound_when_the_channel_was_awaited_misses_nothing(others: int) -> None:
    """Whether or not another user of the channel has a handler already."""
    done: list[Any] = []

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        texts = [
            encode_message("pusher_internal:subscription_succeeded", "{}", "news"),
            *(encode_message("e", json.dumps({"n": number}), "news") for number in (1, 2)),
        ]
        await peer.send_raw(b"".join(encode_frame(TEXT, text) for text in texts))
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as echo:
        for _ in range(others):
            echo.channel("news").listen(".e", print)
        (await echo.channel("news")).subscribed(lambda: done.append(0)).listen(".e", done.append)
        await until(lambda: len(done) == 3)
        assert done == [0, {"n": 1}, {"n": 2}]


async def test_a_channel_that_is_refused_is_reported_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = []
    reports, subscribed = Recorder(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        while True:
            await peer.expect("pusher:subscribe", channel="private-x")
            if peer.number == 1:
                await peer.send("pusher:error", UNAUTHORIZED)
            else:
                await peer.confirm("private-x")

    async def on_error(error: Exception) -> None:
        await asyncio.sleep(0)
        errors.append(error)

    async with ScriptedServer(script) as server:
        echo = Echo(make_client(server))
        echo.client.bind("error", reports)
        echo.private("x").error(on_error).subscribed(subscribed.set)
        user = echo.private("x")
        async with echo:
            await until(lambda: errors)
            assert isinstance(errors[0], AuthenticationError)
            assert errors[0].code == 4009
            assert {call[2] for call in reports.calls if call[0] == "reverb:error"} == {"private-x"}
            assert len(errors) == 1
            (logged,) = (record for record in caplog.records if record.name == "reverb.channels")
            assert logged.getMessage() == f"{errors[0]}; the client tries again after the next reconnect"
            assert vars(logged)["reverb_channel"] == "private-x"
            assert vars(logged)["reverb_address"] == f"{server.host}:{server.port}"
            with pytest.raises(AuthenticationError, match="private-x"):
                await user
            server.peers[0].reset()
            await asyncio.wait_for(subscribed.wait(), 5)
            assert await user is user
    assert client_tasks() == set()
    del echo, user
    gc.collect()
    assert "never retrieved" not in caplog.text


RATE_LIMIT = r'{"code":4301,"message":"Rate limit exceeded"}'
IN_THE_SERVER = r'{"code":500,"message":"Internal server error"}'


@pytest.mark.parametrize("refusal", [RATE_LIMIT, IN_THE_SERVER])
async def test_what_is_refused_for_a_passing_reason_is_tried_again_at_once_and_reported_once(refusal: str) -> None:
    errors: list[Exception] = []

    async def script(peer: Peer) -> None:
        await peer.establish()
        for number in range(4):
            await peer.expect("pusher:subscribe", channel="news")
            if number < 3:
                await peer.send("pusher:error", refusal)
        await peer.confirm("news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        echo = Echo(make_client(server))
        subscribed = asyncio.Event()
        echo.channel("news").error(errors.append).subscribed(subscribed.set)
        async with echo:
            await asyncio.wait_for(subscribed.wait(), 5)
            assert server.connections == 1
            assert [type(error) for error in errors] == [SubscriptionError]


@every_loop
async def test_a_channel_is_wanted_from_the_start() -> None:
    async with ScriptedServer(confirm_all) as server:
        echo = Echo(make_client(server))
        orders = echo.private("orders")
        assert echo.client.channels.keys() == {"private-orders"}
        assert repr(orders) == "<EchoPrivateChannel 'private-orders' not subscribed>"
        assert echo.client.stats.missing == 1
        async with echo:
            assert repr(orders) == "<EchoPrivateChannel 'private-orders' subscribed>"
            assert echo.client.stats.missing == 0


async def test_arguments_that_cannot_be_right_raise_at_once() -> None:
    echo = Echo(reverb.ReverbClient(app_key="k", host="h"))
    with pytest.raises(ConfigurationError, match="REVERB_APP_SECRET is missing: 'private-x'"):
        echo.private("x")
    echo = Echo(reverb.ReverbClient(app_key="k", app_secret="s", host="h"))
    with pytest.raises(SubscriptionError, match="user_id"):
        echo.join("room")
    echo.join("room", ANN)
    with pytest.raises(SubscriptionError, match="with other user_data"):
        echo.join("room", {"user_id": "2"})
    echo.join("room")
    assert echo.client.channels.keys() == {"presence-room"}


async def test_a_refusal_after_a_reconnect_is_told_once() -> None:
    errors: list[Exception] = []

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        if peer.number == 1:
            await peer.confirm("private-x")
        else:
            await peer.send("pusher:subscription_error", {"error": "no", "status": 403}, "private-x")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as echo:
        await echo.private("x").error(errors.append)
        reconnected = asyncio.Event()
        echo.client.bind(reverb.Events.RECONNECTED, lambda *_: reconnected.set())
        server.peers[0].reset()
        await asyncio.wait_for(reconnected.wait(), 5)
        assert [type(error) for error in errors] == [AuthenticationError]


async def test_a_channel_that_is_on_its_way_is_not_asked_for_twice(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        await peer.expect("pusher:subscribe", channel="x")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as echo:
        before = len(client_tasks())
        news = echo.channel("x")
        server.peers[0].reset()
        await until(lambda: echo.socket_id() == "1.2")
        await asyncio.sleep(0)
        await news.leave()
        await until(lambda: len(client_tasks()) == before)
        assert [record for record in caplog.records if record.name == "reverb.channels"] == []


async def test_who_was_refused_comes_in_with_the_next_who_asks() -> None:
    heard: list[Any] = []
    async with stage() as (echo, peer):
        first = echo.private("x").listen(".e", heard.append)
        refused: list[Exception] = []
        first.error(refused.append)
        await peer.expect("pusher:subscribe")
        await peer.send("pusher:subscription_error", {"error": "no", "status": 403}, "private-x")
        await until(lambda: refused)
        second = echo.private("x")
        await peer.expect("pusher:subscribe")
        await peer.confirm("private-x")
        await second
        assert await first is first
        await peer.send("e", "1", "private-x")
        await until(lambda: heard)


async def test_each_user_has_handlers_of_its_own_and_the_last_to_leave_unsubscribes() -> None:
    heard: list[Any] = []
    async with stage() as (echo, peer):
        first = echo.channel("x").listen(".e", lambda data: heard.append(("first", data)))
        second = echo.channel("x").listen(".e", lambda data: heard.append(("second", data)))
        await peer.expect("pusher:subscribe", channel="x")
        await peer.confirm("x")
        await asyncio.gather(first, second)
        await peer.send("e", "1", "x")
        await until(lambda: len(heard) == 2)
        second.stop_listening(".e")
        await first.leave()
        await first.leave()  # does nothing
        assert (repr(first), repr(second)) == (
            "<EchoChannel 'x' not subscribed>",
            "<EchoChannel 'x' subscribed>",
        )
        second.listen(".e", lambda data: heard.append(("again", data)))
        await peer.send("e", "2", "x")
        await until(lambda: len(heard) == 3)
        assert echo.client.channels.keys() == {"x"}
        await second.leave()
        await peer.expect("pusher:unsubscribe", channel="x")
        assert heard == [("first", 1), ("second", 1), ("again", 2)]
        assert echo.client.channels == {}


async def test_leaving_a_channel_that_is_not_confirmed_yet() -> None:
    async with stage() as (echo, peer):
        first, second = echo.channel("x"), echo.channel("x")

        async def wait() -> None:
            await first

        waiting = asyncio.ensure_future(wait())
        await peer.expect("pusher:subscribe", channel="x")
        await first.leave()
        await peer.confirm("x")
        with pytest.raises(SubscriptionError, match="you have left 'x'"):
            await waiting
        assert await second is second
        fourth = echo.channel("z")
        await peer.expect("pusher:subscribe", channel="z")
        await echo.leave_all()
        assert echo.client.channels == {}
        await peer.expect("pusher:unsubscribe", channel="x")
        await peer.confirm("z")
        await peer.expect("pusher:unsubscribe", channel="z")
        with pytest.raises(SubscriptionError, match="you have left 'z'"):
            await fourth


async def test_a_channel_that_is_left_before_there_is_a_connection_is_not_asked_for() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="other")
        await peer.confirm("other")
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        echo = Echo(make_client(server))
        await echo.channel("x").leave()
        other = echo.channel("other")
        async with echo:
            await other


async def test_somebody_who_comes_while_the_last_one_leaves() -> None:
    async with stage() as (echo, peer):
        first = echo.channel("x")
        await peer.expect("pusher:subscribe", channel="x")
        leaving = asyncio.ensure_future(first.leave())
        await asyncio.sleep(0)
        second = echo.channel("x")
        await leaving
        await peer.confirm("x")  # to the first
        await peer.expect("pusher:unsubscribe", channel="x")
        await peer.expect("pusher:subscribe", channel="x")
        await peer.confirm("x")
        assert await second is second
        assert echo.client.channels["x"].is_subscribed


async def test_a_channel_that_was_left_takes_no_handlers() -> None:
    async with stage() as (echo, _):
        news = echo.channel("news").listen(".e", print)
        await news.leave()
        with pytest.raises(SubscriptionError, match="you have left 'news'"):
            news.listen(".e", print)
        with pytest.raises(SubscriptionError, match="you have left 'news'"):
            await news
        news.stop_listening(".e", print)  # as good as done
        assert repr(news) == "<EchoChannel 'news' not subscribed>"


async def here_again(peer: Peer) -> None:
    await peer.establish(f"1.{peer.number}")
    await peer.expect("pusher:subscribe", channel="presence-room")
    await peer.confirm("presence-room", MEMBERS)
    await peer.wait_closed()


async def test_who_is_here_is_told_to_everybody_who_asks_and_after_a_reconnect() -> None:
    heard: list[Any] = []
    both = [{"name": "Ann"}, {"name": "Bob"}]

    async def on_here(members: list[dict[str, Any]]) -> None:
        await asyncio.sleep(0)
        heard.append(("first", members))

    async with ScriptedServer(here_again) as server, connected(server) as echo:
        room = await echo.join("room", ANN)
        room.here(on_here)  # the confirmation waits for it
        await until(lambda: len(heard) == 1)
        second = echo.join("room").here(lambda members: heard.append(("second", members)))
        await until(lambda: len(heard) == 2)
        second.subscribed(lambda: heard.append(("subscribed", None)))
        await until(lambda: len(heard) == 3)
        assert heard == [("first", both), ("second", both), ("subscribed", None)]
        server.peers[0].reset()
        await until(lambda: len(heard) == 6)
        assert heard[3:] == heard[:3]


async def test_who_is_here_comes_before_who_joins() -> None:
    heard: list[Any] = []

    async def on_here(members: list[dict[str, Any]]) -> None:
        await asyncio.sleep(0.01)
        heard.append([member["name"] for member in members])

    async with stage() as (echo, peer):
        room = echo.join("room", ANN).here(on_here).joining(lambda member: heard.append(member["name"]))
        await peer.expect("pusher:subscribe")
        await peer.confirm("presence-room", MEMBERS)
        await peer.send("pusher_internal:member_added", '{"user_id":3,"user_info":{"name":"Cy"}}', "presence-room")
        await until(lambda: len(heard) == 2)
        late = echo.join("room").here(on_here).joining(lambda member: heard.append(member["name"]))
        await asyncio.gather(room, late)
        await peer.send("pusher_internal:member_added", '{"user_id":4,"user_info":{"name":"Di"}}', "presence-room")
        await until(lambda: len(heard) == 5)
        assert heard == [["Ann", "Bob"], "Cy", ["Ann", "Bob", "Cy"], "Di", "Di"]


async def test_what_was_told_late_is_told_once_and_not_to_those_who_left() -> None:
    heard: list[Any] = []
    async with ScriptedServer(here_again) as server, connected(server) as echo:
        everything: list[str] = []
        await echo.join("room", ANN)
        # The confirmation still waits for a handler: both hear it, and nothing besides.
        echo.join("room").here(lambda members: heard.append(1))
        room = echo.join("room").here(lambda members: heard.append(2))
        room.listen_to_all(lambda event, data: everything.append(event))
        await room
        await until(lambda: len(heard) == 2)
        assert everything == []
        await room.leave()
        gone = (await echo.join("room")).here(lambda members: heard.append(3))
        await gone.leave()
        await asyncio.sleep(0.01)
        assert heard == [1, 2]


async def test_who_leaves_is_not_told_what_still_waits() -> None:
    heard: list[Any] = []
    is_slow, may_end = asyncio.Event(), asyncio.Event()

    async def slow(data: Any) -> None:
        is_slow.set()
        await may_end.wait()
        heard.append(data)

    async with ScriptedServer(confirm_and_publish) as server, connected(server) as echo:
        await echo.channel("x").listen(".e", slow)
        await is_slow.wait()
        late = await echo.channel("x").subscribed(lambda: heard.append("late"))
        await late.leave()
        may_end.set()
        await until(lambda: len(heard) == 2)
        assert heard == [{"n": 1}, {"n": 2}]


async def test_while_the_connection_is_down_nobody_is_told_to_be_subscribed() -> None:
    heard: list[Any] = []
    may_confirm = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        await peer.expect("pusher:subscribe")
        if peer.number == 2:
            await may_confirm.wait()
        await peer.confirm("x")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as echo:
        news = await echo.channel("x").listen(".e", print)
        server.peers[0].reset()
        await until(lambda: echo.socket_id() == "1.2")
        news.subscribed(lambda: heard.append("late"))
        await echo.client.wait_connected()
        other = echo.channel("x").subscribed(lambda: heard.append("later"))
        may_confirm.set()
        await other
        await until(lambda: len(heard) == 2)
        assert sorted(heard) == ["late", "later"]


async def test_channels_can_be_asked_for_before_there_is_a_connection() -> None:
    async with ScriptedServer(confirm_all) as server:
        echo = Echo(make_client(server))
        news = echo.channel("news")
        with pytest.raises(ConnectionError, match=r"connect\(\)"):
            await news
        later = echo.channel("later")
        assert (echo.socket_id(), echo.connection_status()) == (None, "disconnected")
        async with echo:
            await asyncio.gather(news, later)
            assert (echo.socket_id(), echo.connection_status()) == ("1.1", "connected")
            assert repr(news) == "<EchoChannel 'news' subscribed>"
        assert repr(news) == "<EchoChannel 'news' not subscribed>"
        assert client_tasks() == set()


async def test_after_disconnecting_nothing_runs_and_nothing_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = []
    async with stage() as (echo, peer):
        echo.channel("asked").error(errors.append)
        await peer.expect("pusher:subscribe", channel="asked")
        echo.channel("not-asked").error(errors.append)
        closed = asyncio.ensure_future(peer.wait_closed())
        await echo.disconnect()
        assert client_tasks() == set()
        assert errors == []
        assert [record for record in caplog.records if record.name == "reverb.channels"] == []
        await closed


async def test_connecting_again_asks_for_what_was_not_confirmed() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        if peer.number == 2:
            await peer.confirm((await peer.expect("pusher:subscribe"))["data"]["channel"])
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        echo = Echo(make_client(server, subscribe_timeout=0.05))
        await echo.connect()
        news = echo.channel("news")
        with pytest.raises(TimeoutError):
            await news
        await echo.disconnect()
        await echo.connect()
        assert await news is news
        await echo.disconnect()


async def test_a_handler_is_told_who_whispers() -> None:
    heard: list[Any] = []

    def on_typing(data: Any, *, user_id: str | None) -> None:
        heard.append((data, user_id))

    async with stage() as (echo, peer):
        room = echo.join("room", ANN).listen_for_whisper("typing", on_typing)
        await peer.expect("pusher:subscribe")
        await peer.confirm("presence-room", MEMBERS)
        await peer.send("client-typing", {}, "presence-room", user_id=2)
        await until(lambda: heard)
        assert heard == [({}, "2")]
        await room


async def test_a_whisper_waits_for_the_subscription() -> None:
    async with stage() as (echo, peer):
        whispering = asyncio.ensure_future(echo.private("x").whisper("typing", {"on": True}))
        await peer.expect("pusher:subscribe")
        await peer.confirm("private-x")
        await peer.expect("client-typing", channel="private-x", data={"on": True})
        await whispering
        with pytest.raises(reverb.ProtocolError):
            await echo.private("x").whisper("typing", 7)


async def test_what_a_handler_raises_is_reported_under_its_name(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = []

    def on_broken(data: Any) -> None:
        raise KeyError(data)

    async with ScriptedServer(confirm_and_publish) as server, connected(server) as echo:
        await echo.channel("x").listen(".e", on_broken).error(errors.append)
        await until(lambda: len(errors) == 2)
        assert [type(error) for error in errors] == [KeyError, KeyError]
        assert "on_broken of 'e' on x raised" in caplog.text


@dataclass
class Order:
    id: int


async def test_data_is_read_into_types() -> None:
    heard: list[Any] = []
    errors: list[Exception] = []

    def by_annotation(order: Order) -> None:
        heard.append(order)

    def whispered(order: Order, *, user_id: str | None) -> None:
        heard.append((order, user_id))

    async with stage() as (echo, peer):
        room = echo.join("room", ANN).listen(".e", by_annotation).listen_for_whisper("e", whispered)
        room.listen(".e", heard.append, type=Order).error(errors.append)
        await peer.expect("pusher:subscribe")
        await peer.confirm("presence-room", MEMBERS)
        await room
        room.listen(".late", by_annotation)
        await peer.send("e", '{"id":7}', "presence-room")
        await peer.send("client-e", {"id": 8}, "presence-room", user_id=2)
        await peer.send("e", '{"id":"nine"}', "presence-room")
        await peer.send("late", '{"id":10}', "presence-room")
        await until(lambda: len(heard) == 4)
        assert heard == [Order(7), Order(7), (Order(8), "2"), Order(10)]
        assert [(type(error), error.path) for error in errors if isinstance(error, PayloadError)] == [
            (PayloadError, "$.id"),
            (PayloadError, "$.id"),
        ]


async def test_what_data_cant_be_read_into_is_told_at_once() -> None:
    news = Echo(reverb.ReverbClient(app_key="k", host="h")).channel("news")
    with pytest.raises(TypeError, match="Path"):
        news.listen("OrderShipped", print, type=Path)


@pytest.mark.parametrize(("namespace", "event"), [("App.Events", ".error"), (None, "error")])
async def test_an_event_called_error_is_not_mixed_with_failures(namespace: str | None, event: str) -> None:
    heard: list[Any] = []

    def on_broken(data: Any) -> None:
        raise KeyError(data)

    async with ScriptedServer(confirm_and_publish) as server, connected(server) as echo:
        other = Echo(echo.client, namespace=namespace)
        errors: list[Exception] = []
        news = other.channel("x").listen(".e", on_broken).listen(event, heard.append).error(errors.append)
        await news
        await until(lambda: errors)
        await server.peers[0].send("error", '{"id":7}', "x")
        await until(lambda: heard)
        assert heard == [{"id": 7}]
        news.stop_listening(event, heard.append)
        await server.peers[0].send("error", '{"id":8}', "x")
        await server.peers[0].send("e", "last", "x")
        await until(lambda: str(errors[-1]) == "'last'")
        assert heard == [{"id": 7}]


async def test_handlers_that_take_something_else() -> None:
    room: Any = Echo(reverb.ReverbClient(app_key="k", app_secret="s", host="h")).join("room", {"user_id": "1"})

    def takes_three(event: str, data: Any, channel: str | None) -> None: ...

    def takes_none() -> None: ...

    for bind, arguments in (
        (partial(room.listen, "OrderShipped"), "data"),
        (partial(room.listen_for_whisper, "typing"), "data"),
        (room.notification, "data"),
        (room.listen_to_all, "event, data"),
        (room.subscribed, ""),
        (room.error, "error"),
        (room.here, "members"),
        (room.joining, "member"),
        (room.leaving, "member"),
    ):
        for handler in (takes_three, takes_none):
            if arguments or handler is takes_three:
                name = handler.__name__
                with pytest.raises(TypeError, match=rf"handler .*{name} can't be called with \({arguments}\)"):
                    bind(handler)
    with pytest.raises(TypeError, match="the name of an event must be a string, not function"):
        room.listen(takes_none, "OrderShipped")


async def test_names_that_are_right_in_echo_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    news = Echo(reverb.ReverbClient(app_key="k", host="h")).channel("news")
    for name in ("OrderShipped", ".order.shipped", "\\App\\Events\\OrderShipped", "Admin.OrderShipped"):
        news.listen(name, print)
    assert not caplog.records


async def test_an_annotation_that_can_not_be_used_is_a_hint() -> None:
    def handler(data: NotThere) -> None: ...

    Echo(reverb.ReverbClient(app_key="k", host="h")).channel("news").listen("OrderShipped", handler)


async def test_a_handler_must_be_callable() -> None:
    news: Any = Echo(reverb.ReverbClient(app_key="k", host="h")).channel("news")
    with pytest.raises(TypeError, match="a handler must be callable, not NoneType"):
        news.listen("OrderShipped", None)


def test_the_client_comes_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_APP_KEY", "k")
    monkeypatch.setenv("REVERB_HOST", "h")
    assert "h:443" in repr(Echo().client)
    assert isinstance(Echo().channel("news"), EchoChannel)
