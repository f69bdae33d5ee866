"""What pages ask for, and what they are told."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from reverb import ReverbAPI, ReverbClient, ReverbConfig, __version__
from reverb.cli.console.backend import Backend, ChannelFilter
from reverb.cli.console.event_log import EventLog
from reverb.server import App, ReverbServer
from tests.cli.console.visitors import DEADLINE, Page, Visitor, console
from tests.scripted_http import ScriptedHTTPServer, answer, bounded_memory

MARKUP = "<img src=x onerror=alert(1)>\x1b[31m"


@pytest.fixture
async def friend(config: ReverbConfig) -> AsyncIterator[ReverbClient]:
    """Somebody else on the server."""
    async with ReverbClient(config) as client:
        yield client


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    give_up_at = monotonic() + DEADLINE
    while not is_so():
        assert monotonic() < give_up_at, "this was not so in time"
        await asyncio.sleep(0.02)


def config_for(api: ScriptedHTTPServer) -> ReverbConfig:
    """Lead to a server that has an HTTP API, and takes no WebSocket."""
    return ReverbConfig(
        host=api.host,
        port=api.port,
        scheme="ws",
        app_id="1",
        app_key="k",
        app_secret="s",
        reconnect_delay_min=9.0,
        reconnect_delay_max=9.0,
    )


async def settled(page: Page, **fields: Any) -> None:
    """Wait until the page has been told of such a state."""
    await page.expect(lambda frame: frame.get("type") in ("hello", "state") and frame.items() >= fields.items())


# --- without asking --------------------------------------------------------------------------------------------


async def test_hello(page: Page, config: ReverbConfig) -> None:
    hello = page.frames[0]
    assert hello | {"state": "", "socket_id": None, "round_trip": None} == {
        "type": "hello",
        "server": f"ws://{config.address}",
        "application": "app-id",
        "version": __version__,
        "read_only": False,
        "is_demo": False,
        "has_secret": True,
        "state": "",
        "socket_id": None,
        "round_trip": None,
        "reconnects": 0,
        "problem": None,
        "follow_all": None,
        "log": {"first": 1, "last": 0},
        "followed": [],
    }
    await settled(page, state="connected")


async def test_the_round_trip_is_measured(page: Page) -> None:
    began = monotonic()
    state = await page.expect(lambda frame: frame.get("round_trip") is not None)
    assert monotonic() - began < 8  # the first time at once
    assert 0 < state["round_trip"] < DEADLINE
    assert state["socket_id"]


async def test_a_followed_channels_events(page: Page, embedded: ReverbServer) -> None:
    assert await page.result("follow", channels=["news"]) == {"followed": ["news"]}
    await embedded.publish("news", MARKUP, {"text": MARKUP})
    await page.until(lambda: bool(page.entries))
    (event,) = page.entries
    assert (event["n"], event["channel"], event["event"]) == (1, "news", MARKUP)
    assert (event["user_id"], event["sealed"]) == (None, False)
    assert json.loads(event["data"]) == {"text": MARKUP}
    assert event["size"] == len(event["data"])


async def test_the_payload_is_the_text_as_it_was_received(page: Page, embedded: ReverbServer) -> None:
    await page.result("follow", channels=["news"])
    sent = ['{"big":  123456789012345678901234567890, "a": 1, "a": 2}', '{"half": "\\ud83d", "a": 1e999}', "text"]
    for text in sent:
        await embedded.publish("news", "published", text)
    await page.until(lambda: len(page.entries) == 3)
    assert [event["data"] for event in page.entries] == [*sent[:2], '"text"']


async def test_client_events_have_a_sender(page: Page, friend: ReverbClient) -> None:
    room = await friend.subscribe("presence-room.1", {"user_id": "7", "user_info": {}})
    await page.result("follow", channels=["presence-room.1"], presence=True)
    await room.trigger("typing", {"typing": True})
    await page.until(lambda: "client-typing" in [event["event"] for event in page.entries])
    assert page.entries[-1]["user_id"] == "7"


async def test_the_channels_there_are(page: Page, friend: ReverbClient) -> None:
    for name in ("news", "private-orders.7", "private-encrypted-x", "cache-scores", "private-cache-scores"):
        await friend.subscribe(name, decrypt=False)
    await friend.subscribe("presence-room.1", {"user_id": "7", "user_info": {}})
    await page.channel("news", kind="public", is_cache=False, subscriptions=1, users=None, followed=False)
    await page.channel("private-orders.7", kind="private", is_cache=False)
    await page.channel("private-encrypted-x", kind="encrypted", is_cache=False)
    await page.channel("cache-scores", kind="public", is_cache=True)
    await page.channel("private-cache-scores", kind="private", is_cache=True)
    await page.channel("presence-room.1", kind="presence", is_cache=False, subscriptions=None, users=1)


async def test_counts_leave_us_out(page: Page, friend: ReverbClient) -> None:
    await friend.subscribe("news")
    await page.result("follow", channels=["news", "alone"])
    await page.result("follow", channels=["presence-room.1"], presence=True)
    await page.channel("news", subscriptions=1, followed=True, is_ours_only=False)
    await page.channel("alone", subscriptions=0, followed=True, is_ours_only=True)
    await page.channel("presence-room.1", users=0, followed=True, is_ours_only=True)
    await page.result("unfollow", channels=["news"])
    await page.channel("news", subscriptions=1, followed=False)
    await page.until(lambda: len([f for f in page.frames if f.get("type") == "channels"][-1]["channels"]) == 3)


async def test_channels_are_asked_for_while_a_page_is_open_and_not_otherwise() -> None:
    async with ScriptedHTTPServer(*[answer(200, '{"channels": {}}')] * 1_000) as api:
        config = ReverbConfig(
            host="127.0.0.1",
            port=api.port,
            scheme="ws",
            app_id="1",
            app_key="k",
            app_secret="s",
            reconnect_delay_min=9,
        )

        def questions() -> int:
            return sum(each.target.startswith("/apps/1/channels?") for each in api.requests)

        async with console(config, poll_interval=0.02) as visitor:
            await visitor.come_in()
            async with visitor.page():
                await until(lambda: questions() >= 3)
            asked = questions()
            await asyncio.sleep(0.5)  # 25 times as long as it takes to ask again
            assert questions() <= asked + 1  # one may have been on its way


# --- gaps and outages ------------------------------------------------------------------------------------------


async def test_a_gap_stands_between_the_events_around_it(page: Page, embedded: ReverbServer) -> None:
    await page.result("follow", channels=["news"])
    await embedded.publish("news", "before", {})
    await page.until(lambda: len(page.entries) == 1)
    await embedded.stop()
    await page.expect(lambda frame: frame.get("type") == "state" and frame["state"] == "connecting")
    await embedded.start()
    await page.until(lambda: len(page.entries) == 2)
    await embedded.publish("news", "after", {})
    await page.until(lambda: len(page.entries) == 3)
    first, gap, last = page.entries
    assert [each["n"] for each in page.entries] == [1, 2, 3]
    assert (gap["type"], gap["channel"]) == ("gap", "news")
    assert gap["downtime"] > 0
    assert (first["event"], last["event"]) == ("before", "after")


async def test_the_reason_of_an_outage(page: Page, embedded: ReverbServer) -> None:
    await settled(page, state="connected")
    await embedded.stop()
    state = await page.expect(lambda frame: frame.get("type") == "state" and frame["problem"] is not None)
    assert state["state"] in ("connecting", "unavailable")
    assert "reconnecting in" in state["problem"]
    assert (await page.expect("notice"))["level"] == "warning"
    await embedded.start()
    await settled(page, state="connected", reconnects=1, problem=None)


async def test_a_connection_that_is_lost_for_good_is_tried_again(page: Page, embedded: ReverbServer) -> None:
    """The client gives up, as no program can mend that; who looks at a console may be mending it."""
    await page.result("follow", channels=["news"])
    embedded.refuse(4001)
    embedded.drop()
    state = await page.expect(lambda frame: frame.get("state") == "unavailable")
    assert "4001" in state["problem"]
    embedded.heal()
    await page.until(lambda: bool(page.entries))
    assert (page.entries[0]["type"], page.entries[0]["channel"]) == ("gap", "news")
    await embedded.publish("news", "published", {})
    await page.until(lambda: len(page.entries) == 2)


async def test_a_server_that_is_not_there_yet(embedded: ReverbServer, config: ReverbConfig) -> None:
    await embedded.stop()
    async with console(config) as visitor:
        await visitor.come_in()
        async with visitor.page() as page:
            await settled(page, state="unavailable")
            state = await page.expect(lambda frame: bool(frame.get("problem")))
            assert str(config.port) in state["problem"]
            assert "not connected: " in await page.error("follow", channels=["news"])
            await embedded.start()
            await settled(page, state="connected", problem=None)


# --- following -------------------------------------------------------------------------------------------------


async def test_presence_channels_are_joined_only_when_it_is_said(page: Page, friend: ReverbClient) -> None:
    room = await friend.subscribe_presence("presence-room.1", {"user_id": "7", "user_info": {}})
    assert "its members see who joins" in await page.error("follow", channels=["news", "presence-room.1"])
    assert list(room.members) == ["7"]
    await page.result("follow", channels=["presence-room.1"], presence=True)
    assert len((await page.result("members", channel="presence-room.1"))["users"]) == 2


async def test_members_are_told_without_joining(page: Page, friend: ReverbClient) -> None:
    room = await friend.subscribe_presence("presence-room.1", {"user_id": "7", "user_info": {}})
    assert await page.result("members", channel="presence-room.1") == {"users": ["7"]}
    assert list(room.members) == ["7"]


async def test_following_all(page: Page, friend: ReverbClient, embedded: ReverbServer) -> None:
    await friend.subscribe("orders.1")
    await friend.subscribe("orders.internal")
    await friend.subscribe("news")
    room = await friend.subscribe_presence("presence-orders", {"user_id": "7", "user_info": {}})
    await page.result("follow_all", on=True, prefix="orders.", exclude=["*.internal"])
    await settled(page, follow_all={"prefix": "orders.", "exclude": ["*.internal"]})
    await page.channel("orders.1", followed=True)
    await friend.subscribe("orders.2")
    await page.channel("orders.2", followed=True)
    for name in ("orders.internal", "news", "presence-orders"):
        await page.channel(name, followed=False)
    narrow = len(page.frames)
    await page.result("follow_all", on=True)
    await page.channel("news", followed=True)
    listed = [each for frame in page.frames[narrow:] for each in frame.get("channels", ())]
    assert all(each["followed"] for each in listed if each["name"].startswith("orders.1"))  # it was not left
    await page.channel("orders.internal", followed=True)
    await page.channel("presence-orders", followed=False)
    assert list(room.members) == ["7"]
    await page.result("follow_all", on=False)
    for name in ("orders.1", "orders.2", "news"):
        await page.channel(name, followed=False)
    await settled(page, follow_all=None)


async def test_a_channel_that_empties_is_left(page: Page, friend: ReverbClient, embedded: ReverbServer) -> None:
    await friend.subscribe("news")
    await page.result("follow_all", on=True)
    await page.channel("news", followed=True)
    await friend.unsubscribe("news")
    await page.until(lambda: [f for f in page.frames if f.get("type") == "channels"][-1]["channels"] == [])


async def test_a_channel_that_is_refused_is_followed_and_not_subscribed(
    page: Page, friend: ReverbClient, embedded: ReverbServer
) -> None:
    await friend.subscribe("private-secret")
    await friend.subscribe("news")
    embedded.deny("private-secret")
    await page.result("follow_all", on=True)
    await page.channel("news", followed=True)
    notice = await page.expect(lambda frame: "private-secret" in frame.get("text", ""))
    assert (notice["type"], notice["level"]) == ("notice", "error")
    await page.channel("private-secret", followed=True, is_subscribed=False)
    await page.channel("news", followed=True, is_subscribed=True)
    embedded.heal()
    embedded.drop()
    await page.channel("private-secret", followed=True, is_subscribed=True)


async def test_what_is_followed_by_name_stays_when_not_all_is_followed_any_more(
    page: Page, friend: ReverbClient
) -> None:
    await friend.subscribe("news")
    await friend.subscribe("sports")
    await page.result("follow", channels=["news"])
    await page.result("follow_all", on=True)
    await page.channel("sports", followed=True)
    await page.result("follow_all", on=False)
    await page.channel("sports", followed=False)
    await page.channel("news", followed=True)


async def test_what_is_unfollowed_is_not_taken_again(page: Page, friend: ReverbClient) -> None:
    await friend.subscribe("news")
    await page.result("follow_all", on=True)
    await page.channel("news", followed=True)
    assert await page.result("unfollow", channels=["news"]) == {"followed": []}
    await page.channel("news", followed=False, subscriptions=1)
    await friend.subscribe("sports")
    await page.channel("sports", followed=True)
    await page.channel("news", followed=False)


async def test_a_refused_channel_holds_up_no_other(page: Page) -> None:
    assert "must not contain a colon" in await page.error("follow", channels=["private-a:b", "news"])
    await page.channel("news", followed=True)


# --- sending ---------------------------------------------------------------------------------------------------


async def test_publishing(page: Page, embedded: ReverbServer) -> None:
    await page.result("follow", channels=["news", "sports"])
    await page.result("publish", channels=["news", "sports"], event="published", data='{"id":  7}')
    await page.until(lambda: len(page.entries) == 2)
    assert [(each["channel"], each["data"]) for each in page.entries] == [
        ("news", '{"id":  7}'),
        ("sports", '{"id":  7}'),
    ]


async def test_publishing_to_others(page: Page, friend: ReverbClient) -> None:
    news = await friend.subscribe("news")
    await page.result("follow", channels=["news"])
    arrival = asyncio.create_task(news.wait_for("quiet", timeout=DEADLINE))
    await page.result("publish", channels=["news"], event="quiet", data="{}", to_others=True)
    await arrival
    await page.result("publish", channels=["news"], event="loud", data="{}")
    await page.until(lambda: bool(page.entries))
    assert [each["event"] for each in page.entries] == ["loud"]


async def test_triggering(page: Page, friend: ReverbClient) -> None:
    channel = await friend.subscribe("private-orders.7")
    assert "follow private-orders.7 first" in await page.error(
        "trigger", channel="private-orders.7", event="typing", data="{}"
    )
    await page.result("follow", channels=["private-orders.7"])
    arrival = asyncio.create_task(channel.wait_for("client-typing", timeout=DEADLINE))
    await page.result("trigger", channel="private-orders.7", event="typing", data='{"typing": true}')
    assert (await arrival).data == {"typing": True}
    await page.result("follow", channels=["news"])
    assert "client events need" in await page.error("trigger", channel="news", event="typing", data="{}")


async def test_what_the_server_has_against_a_client_event_is_a_notice() -> None:
    async with (
        ReverbServer([App(accept_client_events_from="none")]) as server,
        page_of(ReverbConfig(**server.settings)) as page,
    ):
        await page.result("follow", channels=["private-orders.7"])
        await page.result("trigger", channel="private-orders.7", event="typing", data="{}")
        notice = await page.expect("notice")
        assert notice["level"] == "warning"
        assert "4301" in notice["text"]


@pytest.mark.parametrize("data", ["", "{", "{'a': 1}", "[1,]", "[" * 100_000, '"\\ud800'])
async def test_data_that_is_no_json_is_not_sent(page: Page, embedded: ReverbServer, data: str) -> None:
    await page.result("follow", channels=["private-news"])
    for do, where in (("publish", {"channels": ["private-news"]}), ("trigger", {"channel": "private-news"})):
        assert "the data is not JSON" in await page.error(do, **where, event="published", data=data)


async def test_what_can_not_be_published(page: Page) -> None:
    assert "too" in await page.error("publish", channels=["news"], event="x", data=json.dumps("x" * 20_000))
    assert "100" in await page.error("publish", channels=["news"] * 101, event="x", data="{}")


# --- the log ---------------------------------------------------------------------------------------------------


async def test_earlier_events(visitor: Visitor, embedded: ReverbServer) -> None:
    async with visitor.page() as first:
        await first.result("follow", channels=["news"])
        for number in range(5):
            await embedded.publish("news", "published", {"number": number})
        await first.until(lambda: len(first.entries) == 5)
        async with visitor.page() as second:
            assert second.frames[0]["log"] == {"first": 1, "last": 5}
            assert second.frames[0]["followed"] == ["news"]
            earlier = await second.result("events", before=6, count=3)
            assert [each["n"] for each in earlier["events"]] == [3, 4, 5]
            assert earlier["first"] == 1
            assert earlier["events"] == first.entries[2:]
            assert second.entries == []  # what was there before comes only when it is asked for


# --- pages -----------------------------------------------------------------------------------------------------


async def test_several_pages_see_the_same(visitor: Visitor, embedded: ReverbServer) -> None:
    async with AsyncExitStack() as stack:
        pages = [await stack.enter_async_context(visitor.page()) for _ in range(4)]
        await pages[0].result("follow", channels=["news"])
        for page in pages:
            await page.channel("news", followed=True)
        await embedded.publish("news", "published", {})
        for page in pages:
            await page.until(lambda page=page: len(page.entries) == 1)  # type: ignore[misc]
            assert page.entries == pages[0].entries


async def test_when_the_last_page_is_gone_for_a_while_its_channels_are_left(
    config: ReverbConfig, embedded: ReverbServer, friend: ReverbClient
) -> None:
    await friend.subscribe("sports")
    async with console(config, leave_after=0.0) as visitor:
        await visitor.come_in()
        async with visitor.page() as page:
            await page.result("follow", channels=["news"])
            await page.result("follow_all", on=True)
            await page.channel("sports", followed=True)
        await until(lambda: embedded.subscriptions.keys() == {"sports"})
        async with visitor.page() as page:
            assert (page.frames[0]["followed"], page.frames[0]["follow_all"]) == ([], None)


async def test_a_page_that_is_loaded_again_finds_its_channels(config: ReverbConfig) -> None:
    async with console(config, leave_after=1.0) as visitor:
        await visitor.come_in()
        async with visitor.page() as page:
            await page.result("follow", channels=["news"])
        async with visitor.page() as page:
            assert page.frames[0]["followed"] == ["news"]
            await asyncio.sleep(1.1)  # for as long as they would be kept without a page
            assert await page.result("follow", channels=["sports"]) == {"followed": ["news", "sports"]}


async def test_all_channels_are_followed_from_the_start_and_again(
    config: ReverbConfig, embedded: ReverbServer, friend: ReverbClient
) -> None:
    await friend.subscribe("orders.1")
    async with console(config, channel_filter=ChannelFilter("orders."), leave_after=0.0) as visitor:
        await visitor.come_in()
        for _ in range(2):
            async with visitor.page() as page:
                assert page.frames[0]["follow_all"] == {"prefix": "orders.", "exclude": []}
                await page.channel("orders.1", followed=True)
            await until(lambda: len(embedded.subscriptions["orders.1"]) == 1)


# --- encrypted channels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_key", [False, True])
async def test_encrypted_channels_are_sealed_without_the_key(embedded: ReverbServer, has_key: bool) -> None:
    key = b64encode(b"k" * 32).decode()
    config = ReverbConfig(**embedded.settings, encryption_master_key=key)
    async with ReverbAPI(config) as api, AsyncExitStack() as stack:
        shown = config if has_key else ReverbConfig(**embedded.settings)
        page = await stack.enter_async_context(page_of(shown))
        await page.result("follow", channels=["private-encrypted-x"])
        await api.trigger("private-encrypted-x", "published", {"id": 7})
        await page.until(lambda: bool(page.entries))
        (event,) = page.entries
        assert event["sealed"] is not has_key
        data = json.loads(event["data"])
        assert data == {"id": 7} if has_key else data.keys() == {"nonce", "ciphertext"}


@asynccontextmanager
async def page_of(config: ReverbConfig, *arguments: Any, **options: Any) -> AsyncIterator[Page]:
    """A page of a console of its own."""
    async with console(config, *arguments, **options) as visitor:
        assert await visitor.come_in() == 204
        async with visitor.page() as page:
            yield page


# --- read only -------------------------------------------------------------------------------------------------


async def test_read_only(config: ReverbConfig, embedded: ReverbServer, friend: ReverbClient) -> None:
    room = await friend.subscribe_presence("presence-room.1", {"user_id": "7", "user_info": {}})
    async with page_of(config, is_read_only=True) as page:
        assert page.frames[0]["read_only"] is True
        await page.result("follow", channels=["news", "private-orders.7"])
        asked: dict[str, Any] = {
            "publish": {"channels": ["news"], "event": "published", "data": "{}"},
            "trigger": {"channel": "private-orders.7", "event": "typing", "data": "{}"},
            "follow": {"channels": ["presence-room.1"], "presence": True},
        }
        for do, fields in asked.items():
            assert "--read-only" in await page.error(do, **fields)
        assert await page.result("members", channel="presence-room.1") == {"users": ["7"]}
        assert embedded.events == []
        assert list(room.members) == ["7"]


# --- without the HTTP API --------------------------------------------------------------------------------------


async def test_without_an_application_id_or_a_secret(embedded: ReverbServer) -> None:
    settings = {**embedded.settings, "app_id": None}
    async with page_of(ReverbConfig(**settings)) as page:
        assert page.frames[0]["has_secret"] is False
        await settled(page, state="connected")
        await page.result("follow", channels=["news"])
        await embedded.publish("news", "published", {})
        await page.until(lambda: len(page.entries) == 1)
        await page.channel("news", followed=True, subscriptions=None)
        asked: dict[str, Any] = {
            "publish": {"channels": ["news"], "event": "published", "data": "{}"},
            "members": {"channel": "presence-room.1"},
            "follow_all": {"on": True},
        }
        for do, fields in asked.items():
            assert "set REVERB_APP_ID and REVERB_APP_SECRET" in await page.error(do, **fields)


async def test_an_http_api_that_fails_is_told_once() -> None:
    refusal = answer(403, "no")
    answers = [refusal, refusal, *[answer(200, '{"channels": {"news": {}}}')] * 100]
    async with ScriptedHTTPServer(*answers) as api, page_of(config_for(api), poll_interval=0.02) as page:
        await page.channel("news")
        notices = [each["text"] for each in page.frames if each.get("type") == "notice"]
        assert len([each for each in notices if "403" in each]) <= 1
        assert "the console finds new channels again" in notices


# --- the examination -------------------------------------------------------------------------------------------


async def test_the_doctors_findings(visitor: Visitor) -> None:
    async with visitor.page() as page, visitor.page() as other:
        assert await page.result("doctor") == {"failed": []}
        findings = [frame for frame in page.frames if frame.get("type") == "finding"]
        assert findings[0]["step"] == "settings"
        assert "REVERB_HOST" in [row["variable"] for row in findings[0]["settings"]]
        assert {"DNS", "TCP", "first message", "HTTP API", "delivery"} <= {each["step"] for each in findings}
        assert all(each.keys() >= {"ok", "seconds", "detail", "causes"} for each in findings)
        assert "finding" not in [frame.get("type") for frame in other.frames]


async def test_the_findings_name_the_options_of_this_command(config: ReverbConfig, embedded: ReverbServer) -> None:
    async with page_of(config, embedded.settings) as page:
        await page.result("doctor")
        (settings, *_) = [frame["settings"] for frame in page.frames if "settings" in frame]
    sources = {row["variable"]: row["source"] for row in settings}
    assert sources["REVERB_HOST"] == "--server-host"
    assert sources["REVERB_PORT"] == "--server-port"
    assert sources["REVERB_APP_KEY"] == "--key"
    assert sources["REVERB_APP_ID"] == "--app-id"


async def test_the_doctor_finds_what_is_wrong(config: ReverbConfig, embedded: ReverbServer) -> None:
    await embedded.stop()
    async with page_of(config) as page:
        assert (await page.result("doctor"))["failed"][0] == "TCP"
        finding = await page.expect(lambda frame: frame.get("step") == "TCP")
        assert finding["ok"] is False
        assert finding["causes"]


async def test_one_examination_at_a_time(visitor: Visitor, embedded: ReverbServer) -> None:
    embedded.delay(0.2)
    async with visitor.page() as page:
        first = asyncio.create_task(page.result("doctor"))
        await page.expect("finding")
        assert "already running" in await page.error("doctor")
        await first
        await page.result("doctor")


# --- what is no request ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", None),
        ("nonsense", None),
        ("[]", None),
        ("{}", None),
        ("[" * 100_000, None),
        ('{"id": "x", "do": "doctor"}', None),
        ('{"id": 99}', 99),
        ('{"id": 99, "do": "rm"}', 99),
        ('{"id": 99, "do": "follow"}', 99),
        ('{"id": 99, "do": "follow", "channels": []}', 99),
        ('{"id": 99, "do": "follow", "channels": [""]}', 99),
        ('{"id": 99, "do": "follow", "channels": "news"}', 99),
        ('{"id": 99, "do": "follow", "channels": ["news"], "presence": "yes"}', 99),
        ('{"id": 99, "do": "follow", "channels": ["news"], "more": 1}', 99),
        ('{"id": 99, "do": "events", "before": 1, "count": 0}', 99),
        ('{"id": 99, "do": "publish", "channels": ["news"], "event": "x", "data": {}}', 99),
        (json.dumps({"id": 99, "do": "follow", "channels": ["x" * 1_001]}), 99),
        (json.dumps({"id": 99, "do": "follow", "channels": ["x"] * 1_001}), 99),
    ],
)
async def test_what_is_no_request(page: Page, text: str, number: int | None) -> None:
    await page.socket.send_str(text)
    reply = await page.expect(lambda frame: "re" in frame)
    assert (reply["re"], reply["ok"]) == (number, False)
    assert reply["error"].startswith("this is not a valid request: ")
    assert await page.result("follow_all", on=False) is None


async def test_a_fault_of_ours_is_answered_too(config: ReverbConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Backend, channel: str) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(Backend, "members", fail)
    async with page_of(config) as page:
        for _ in range(20):  # more than there may be at a time
            assert await page.error("members", channel="news") == "internal error: ZeroDivisionError('oh')"


async def test_bytes_end_the_page(page: Page) -> None:
    await page.socket.send_bytes(b"{}")
    await until(lambda: page.socket.closed)


# --- secrets ---------------------------------------------------------------------------------------------------


async def test_the_secret_is_in_no_answer() -> None:
    """Whatever is asked, and whether or not it works."""
    secret, master = "a-very-secret-secret", b64encode(b"m" * 32).decode()
    server = ReverbServer([App(secret=secret)])
    async with server:
        settings = {**server.settings, "encryption_master_key": master, "proxy": None}
        config = ReverbConfig(**settings)
        async with page_of(config, settings) as page, ReverbClient(config) as friend:
            await friend.subscribe("presence-room.1", {"user_id": "7", "user_info": {}})
            await ask_everything(page)
            server.deny("private-denied")
            await page.error("follow", channels=["private-denied", "private-a:b"])
            server.refuse(4001)
            server.drop()
            await page.expect(lambda frame: frame.get("type") == "state" and frame["state"] == "unavailable")
            await ask_everything(page)
            server.heal()
            await server.stop()
            await ask_everything(page)
        require_no_secrets(page, secret, master)


async def test_tokens_and_passwords_are_in_no_answer() -> None:
    endpoint, token, proxy = "http://ann:hunter2@127.0.0.1:1/auth", "the-token", "http://bob:swordfish@127.0.0.1:1"
    async with ReverbServer([App(secret="a-very-secret-secret")]) as server:
        settings = {**server.settings, "auth_endpoint": endpoint, "auth_token": token, "proxy": proxy}
        for given in (settings, {**settings, "proxy": None}):
            async with page_of(ReverbConfig(**given), given) as page:
                await ask_everything(page)
            require_no_secrets(page, "a-very-secret-secret", "hunter2", token, "swordfish")


async def ask_everything(page: Page) -> None:
    requests: list[tuple[str, dict[str, Any]]] = [
        ("follow", {"channels": ["news", "private-orders.7", "private-encrypted-x"]}),
        ("follow", {"channels": ["presence-room.1"], "presence": True}),
        ("trigger", {"channel": "private-orders.7", "event": "typing", "data": "{}"}),
        ("unfollow", {"channels": ["news"]}),
        ("follow_all", {"on": True}),
        ("members", {"channel": "presence-room.1"}),
        ("members", {"channel": "news"}),
        ("publish", {"channels": ["private-orders.7"], "event": "published", "data": "{}"}),
        ("publish", {"channels": ["private-encrypted-x"], "event": "published", "data": "{}"}),
        ("publish", {"channels": [""], "event": "", "data": ""}),
        ("doctor", {}),
        ("events", {"before": 1_000, "count": 1_000}),
        ("nothing", {}),
    ]
    for do, fields in requests:
        await page.ask(do, **fields)


def require_no_secrets(page: Page, *secrets: str) -> None:
    told = json.dumps(page.frames, ensure_ascii=False)
    assert len(page.frames) > 13
    for secret in secrets:
        assert secret not in told, [frame for frame in page.frames if secret in str(frame)]
    assert re.search("[0-9a-f]{64}", told) is None  # a signature


# --- pages that are slow, or too quick -------------------------------------------------------------------------


async def test_a_page_that_does_not_read_holds_up_nobody(config: ReverbConfig, embedded: ReverbServer) -> None:
    """It costs a bounded memory, the others see everything meanwhile, and it is told what it has missed."""
    log = EventLog(max_bytes=1_000_000)
    async with console(config, log=log) as visitor:
        await visitor.come_in()
        async with AsyncExitStack() as stack:
            socket = visitor.session.ws_connect(f"{visitor.url}/ws", headers=visitor.origin)
            slow = Page(await stack.enter_async_context(socket))
            page = await stack.enter_async_context(visitor.page())
            await page.result("follow", channels=["news"])
            with bounded_memory(32_000_000):  # 16 MB of them are the server's
                for last in range(5, 401, 5):
                    for _ in range(5):  # of which the log has room for nine
                        await embedded.publish("news", "published", "x" * 100_000)
                    await page.until(lambda: page.entries[-1:] != [] and page.entries[-1]["n"] == last)  # noqa: B023
                    for event in page.entries[-5:]:
                        event["data"] = ""  # what the test itself keeps
            assert [each["n"] for each in page.entries] == list(range(1, 401))
            reading = asyncio.create_task(slow.read())
            stack.callback(reading.cancel)
            await slow.until(lambda: bool(slow.entries) and slow.entries[-1]["n"] == 400)
            dropped = sum(frame["count"] for frame in slow.frames if frame.get("type") == "dropped")
            assert 0 < dropped == 400 - len(slow.entries)


async def test_a_page_that_floods(config: ReverbConfig, embedded: ReverbServer) -> None:
    """Requests wait in the socket, and with them their answers."""
    async with console(config) as visitor:
        await visitor.come_in()
        async with AsyncExitStack() as stack:
            page = await stack.enter_async_context(visitor.page())
            await page.result("follow", channels=["news"])
            await embedded.publish("news", "published", "x" * 400_000)
            await page.until(lambda: bool(page.entries))
            connecting = visitor.session.ws_connect(f"{visitor.url}/ws", headers=visitor.origin)
            flood = Page(await stack.enter_async_context(connecting))

            async def ask() -> None:
                for number in range(300):
                    request = {"id": number, "do": "events", "before": 2, "count": 1}
                    await flood.socket.send_str(json.dumps(request))

            with bounded_memory(60_000_000):
                await asyncio.wait_for(ask(), DEADLINE)
                for _ in range(20):
                    await page.result("events", before=1, count=1)
            answered: set[Any] = set()
            while len(answered) < 300:
                frame = await asyncio.wait_for(flood.socket.receive_json(), DEADLINE)
                answered.add(frame.get("re"))
                answered.discard(None)


async def test_many_events_come_in_few_frames(page: Page, embedded: ReverbServer) -> None:
    await page.result("follow", channels=["news"])
    began = monotonic()
    for number in range(200):
        await embedded.publish("news", "published", {"number": number})
        await asyncio.sleep(0.002)
    await page.until(lambda: len(page.entries) == 200)
    took = monotonic() - began
    assert [json.loads(each["data"])["number"] for each in page.entries] == list(range(200))
    frames = [frame for frame in page.frames if frame.get("type") == "events"]
    assert len(frames) <= 20 * took + 3
