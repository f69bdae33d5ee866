"""Finding channels: what can go wrong, and what a program sees of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from time import monotonic
from typing import Any

import pytest

from reverb import (
    APIError,
    ChannelInfo,
    ConfigurationError,
    ConnectionError,
    ConnectionState,
    Events,
    ReverbAPI,
    ReverbClient,
    SubscriptionError,
)
from reverb.discovery import occupied
from reverb.server import ReverbServer

from .test_dispatch import Recorder
from .watching import client_tasks, turns, until, wait_turns

QUICKLY = 0.01


class Answers:
    """Stands in for a question of the API; answers what it is told to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str | None, str | None]] = []

    async def __call__(self, prefix: str | None = None, info: str | None = None) -> dict[str, ChannelInfo]:
        self.asked.append((prefix, info))
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return {name: ChannelInfo(subscription_count=count) for name, count in self.answer.items()}


@pytest.fixture
def answers(reverb_client: ReverbClient, monkeypatch: pytest.MonkeyPatch) -> Answers:
    found = Answers({})
    monkeypatch.setattr(reverb_client.api, "channels", found)
    return found


async def test_handlers_can_be_bound_before_the_first_event(
    reverb_client: ReverbClient, answers: Answers, reverb_server: ReverbServer
) -> None:
    heard = Recorder()

    @reverb_client.on(Events.CHANNEL_FOUND)
    async def bind(event: str, data: dict[str, Any], channel: str | None) -> None:
        assert data == {"channel": channel}
        await asyncio.sleep(0.05)
        assert channel is not None
        reverb_client.channels[channel].bind("e", heard)

    answers.answer = {"news": 2}
    async with reverb_client.discover(interval=QUICKLY):
        await reverb_server.wait_for_subscription("news")
        await reverb_server.publish("news", "e", 1)
        assert await heard.wait_for(1) == [("e", 1, "news")]


async def test_an_outage_is_reported_once_and_survived(
    reverb_client: ReverbClient, answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    errors = Recorder()
    reverb_client.bind("error", errors)
    answers.answer = {"news": 2}
    async with reverb_client.discover(interval=QUICKLY) as found:
        for outage in (1, 2):
            answers.answer, before = APIError(503, "no such luck"), len(answers.asked)
            await until(lambda before=before: len(answers.asked) >= before + 3)  # type: ignore[misc]
            assert "news" in found.channels  # nobody has said that it is empty
            answers.answer = {"news": 2, f"more-{outage}": 2}
            await until(lambda outage=outage: f"more-{outage}" in found.channels)  # type: ignore[misc]
            assert len(errors.calls) == outage
    assert isinstance(errors.calls[0][1]["exception"], APIError)
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warnings == ["no such luck; the client finds no channels until a poll succeeds"] * 2


async def test_polls_that_fail_come_less_and_less_often(
    reverb_server: ReverbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def notes(seconds: float, *rest: Any) -> None:
        if seconds >= 1:
            slept.append(seconds)
        await sleep(0)

    async with ReverbClient(**{**reverb_server.settings, "reconnect_delay_max": 20.0}) as client:
        answers = Answers({})
        monkeypatch.setattr(client.api, "channels", answers)
        async with client.discover(interval=1.0):
            monkeypatch.setattr(asyncio, "sleep", notes)
            answers.answer = ConnectionError("nobody there")
            deadline = monotonic() + 5
            while len(slept) < 50 and monotonic() < deadline:
                await sleep(0.001)
            monkeypatch.undo()
    assert len(slept) >= 50, "it gave up"
    assert all(1.0 <= each <= 20.0 for each in slept)
    assert slept[1] < 2.0
    assert max(slept) > 5.0


async def test_the_first_poll_raises_and_leaves_nothing(reverb_client: ReverbClient, answers: Answers) -> None:
    answers.answer = APIError(401, "no")
    with pytest.raises(APIError, match="no"):
        async with reverb_client.discover(interval=QUICKLY):
            pass
    assert reverb_client.channels == {}


async def test_a_channel_that_can_not_be_subscribed_is_reported_once(
    reverb_client: ReverbClient, answers: Answers
) -> None:
    errors = Recorder()
    reverb_client.bind("error", errors)
    answers.answer = {"private-a:b": 1, "news": 2}
    async with reverb_client.discover(interval=QUICKLY) as found:
        await until(lambda: len(answers.asked) >= 5)
        assert found.channels.keys() == {"news"}
    assert [type(data["exception"]) for _, data, _ in errors.calls] == [SubscriptionError]


async def test_one_that_is_refused_is_reported_once_and_kept(
    reverb_client: ReverbClient, reverb_server: ReverbServer, answers: Answers
) -> None:
    errors = Recorder()
    reverb_client.bind(Events.CLIENT_ERROR, errors)
    reverb_server.deny("private-x")
    answers.answer = {"private-x": 1}
    async with reverb_client.discover(interval=QUICKLY) as found:
        await errors.wait_for(1)
        await until(lambda: len(answers.asked) >= 5)
        assert not found.channels["private-x"].is_subscribed
    assert len(errors.calls) == 1


async def test_where_a_server_does_not_count_a_channel_is_kept(
    reverb_client: ReverbClient, answers: Answers
) -> None:
    answers.answer = {"news": None}
    async with reverb_client.discover(interval=QUICKLY) as found:
        await until(lambda: len(answers.asked) >= 6)
        assert found.channels.keys() == {"news"}


async def test_a_server_that_refuses_to_count_is_asked_for_less(
    reverb_client: ReverbClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    async def channels(prefix: str | None, info: str | None) -> dict[str, ChannelInfo]:
        asked.append(info)
        if info is not None:
            raise APIError(400, "only for presence channels")
        return {"news": ChannelInfo()}

    monkeypatch.setattr(reverb_client.api, "channels", channels)
    assert await occupied(reverb_client.api) == {"news": None}
    assert asked == ["subscription_count,user_count", "subscription_count", None]


async def test_disconnecting_ends_it(reverb_client: ReverbClient, answers: Answers) -> None:
    answers.answer = {"news": 1}
    async with reverb_client.discover(interval=QUICKLY) as found:
        await reverb_client.disconnect()
        assert client_tasks() == set()
        asked = len(answers.asked)
        await reverb_client.connect()
        await reverb_client.ping()
        await asyncio.sleep(3 * QUICKLY)
        assert len(answers.asked) == asked
        assert found.channels.keys() == {"news"}  # as channels are kept for another connect()
    assert reverb_client.channels == {}


async def test_a_connection_that_is_lost_for_good_ends_it(
    reverb_client: ReverbClient, reverb_server: ReverbServer, answers: Answers
) -> None:
    async with reverb_client.discover(interval=QUICKLY):
        reverb_server.refuse(4001)
        reverb_server.drop()
        with pytest.raises(ConnectionError):
            await reverb_client.listen()
        await until(lambda: client_tasks() == set())


async def test_a_poll_under_way_when_the_connection_is_lost_for_good_is_of_no_interest(
    reverb_client: ReverbClient,
    reverb_server: ReverbServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    is_answered, polls = asyncio.Event(), 0
    is_answered.set()

    async def channels(prefix: str | None, info: str | None) -> dict[str, ChannelInfo]:
        nonlocal polls
        polls += 1
        await is_answered.wait()
        return {"news": ChannelInfo(subscription_count=2)}

    monkeypatch.setattr(reverb_client.api, "channels", channels)
    async with reverb_client.discover(interval=QUICKLY):
        is_answered.clear()
        await until(lambda asked=polls: polls > asked)  # type: ignore[misc]
        reverb_server.refuse(4001)
        reverb_server.drop()
        with pytest.raises(ConnectionError):
            await reverb_client.listen()
        is_answered.set()
        await until(lambda: client_tasks() == set())
    assert "finds no channels" not in caplog.text


async def test_a_channel_belongs_to_the_one_that_found_it_last(
    reverb_client: ReverbClient, answers: Answers
) -> None:
    answers.answer = {"news": 2}
    async with reverb_client.discover(interval=QUICKLY) as second:
        await until(lambda: "news" in second.channels)
        async with reverb_client.discover(interval=60.0) as first:
            await reverb_client.unsubscribe("news")
            await until(lambda: "news" not in second.channels)
            assert first.channels == {}
        answers.answer = {"more": 2}
        async with reverb_client.discover(interval=60.0) as first:
            assert first.channels.keys() == {"more"}
            await reverb_client.unsubscribe("more")
            await until(lambda: "more" in second.channels)
            assert first.channels == {}
        assert reverb_client.channels.keys() == {"more"}


async def test_nobody_polls_while_the_connection_is_down(
    reverb_client: ReverbClient, reverb_server: ReverbServer, answers: Answers
) -> None:
    answers.answer = {"news": 2}

    @reverb_client.on(Events.STATE_CHANGE)
    def says_that_all_is_empty_while_down(event: str, data: dict[str, Any], channel: str | None) -> None:
        answers.answer = {"news": 2} if data["current"] == ConnectionState.CONNECTED else {}

    async with reverb_client.discover(interval=QUICKLY) as found:
        await reverb_server.wait_for_subscription("news")
        asked = len(answers.asked)
        await reverb_server.restart(downtime=10 * QUICKLY)
        await until(lambda: len(answers.asked) >= asked + 5)
        assert found.channels.keys() == {"news"}


async def test_cancelled_at_each_turn_it_leaves_nothing(reverb_client: ReverbClient, answers: Answers) -> None:
    answers.answer = {"news": 1}

    async def follow() -> None:
        async with reverb_client.discover(interval=QUICKLY):
            await wait_turns(3)

    for number in turns():
        task = asyncio.ensure_future(follow())
        await wait_turns(number)
        has_ended = task.done()
        task.cancel()
        await asyncio.wait({task})
        assert reverb_client.channels == {}
        await until(lambda: not any("discovery" in each.get_name() for each in client_tasks()))
        if has_ended:
            break


async def test_disconnected_during_the_first_poll(reverb_client: ReverbClient, answers: Answers) -> None:
    answers.answer = {"news": 1}
    beginning = asyncio.ensure_future(reverb_client.discover(interval=QUICKLY).__aenter__())
    await wait_turns(1)
    await reverb_client.disconnect()
    with pytest.raises(ConnectionError):
        await beginning
    assert reverb_client.channels == {}
    assert client_tasks() == set()


async def test_what_speaks_against_it(reverb_server: ReverbServer) -> None:
    client = ReverbClient(**reverb_server.settings)
    with pytest.raises(ConnectionError, match="not connected"):
        async with client.discover():
            pass
    for interval in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="more than 0 seconds"):
            client.discover(interval=interval)
    with pytest.raises(SubscriptionError, match="user_id"):
        client.discover(user_data={})
    with pytest.raises(ConfigurationError, match="REVERB_APP_ID"):
        ReverbClient(**{**reverb_server.settings, "app_id": None}).discover()
    async with client:
        discovery = client.discover()
        async with discovery:
            with pytest.raises(RuntimeError, match="entered only once"):
                await discovery.__aenter__()


async def test_a_pattern_need_not_be_in_a_list(reverb_client: ReverbClient, answers: Answers) -> None:
    answers.answer = {"orders.1": 1, "orders.1.debug": 1, "news": 1}
    async with reverb_client.discover(prefix="orders.", exclude="*.debug") as found:
        assert found.channels.keys() == {"orders.1"}
    assert answers.asked[0][0] == "orders."


async def test_the_relay_can_ask_without_a_client(
    reverb_server: ReverbServer, reverb_client: ReverbClient
) -> None:
    await reverb_client.subscribe("news")
    async with ReverbAPI(**reverb_server.settings) as api:
        assert await occupied(api) == {"news": 1}


def test_programs_that_discover_nothing_import_nothing_for_it() -> None:
    code = "import sys, reverb.client; print([each for each in sys.modules if 'disco' in each or 'occup' in each])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "[]\n"
