"""The page, as a browser shows it: started from the address that the command prints, and used like people do.

Each page is watched: an error, a violation of its own security policy, or a request to another host fails its
test.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from aiohttp import web

from tests.missing import missing

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, Route, WebSocketRoute, expect

from reverb import ReverbClient
from reverb._visible import visible
from reverb.server import ReverbServer
from tests import chromium
from tests.cli.processes import reverb

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
expect.set_options(timeout=15_000)

RATE = 500
"""Events per second under load."""
SECONDS = float(os.environ.get("REVERB_TEST_CONSOLE_SECONDS", "3"))
"""How long the load lasts: 20 is a whole test of the memory."""
LONGEST_TASK = 200
"""Milliseconds that the page may not answer."""
ATTEMPTS = 3
"""At what another program on a busy machine can spoil."""

HOSTILE = "<img src=x onerror=\"document.title='hacked'\">\x1b[31mred\x1b[0m\u202eabc"
SHOWN = "<img src=x onerror=\"document.title='hacked'\">\\x1b[31mred\\x1b[0m\\u202eabc"
GONE = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "connection was closed")
"""What a browser says when the console of a test has ended before its page."""
DRAWN = "new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))"
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")

Open = Callable[..., Awaitable["Console"]]


class Console:
    """A page of the console."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.rows = page.locator("#event-list .row")
        self.events = page.locator("#event-list .row.event")
        self.panel = page.locator(".panel")

    async def follow(self, *channels: str) -> None:
        for channel in channels:
            await self.page.fill("#channel-query", channel)
            await self.page.press("#channel-query", "Enter")
            await expect(self.following(channel)).to_have_attribute("aria-pressed", "true")

    def following(self, channel: str) -> Locator:
        return self.page.get_by_role("button", name=f"Follow {channel}", exact=True)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    async def only(self, query: str) -> None:
        await self.page.fill("#filter", query)
        await self.page.evaluate(DRAWN)

    async def compose(self, channels: str, event: str, data: str) -> None:
        await self.page.fill("#send-channels", channels)
        await self.page.fill("#send-event", event)
        await self.page.fill("#send-data", data)

    async def module(self, name: str, function: str, argument: Any = None) -> Any:
        """Call a function of JavaScript, ``(module, argument) => …``, with one of the page's modules."""
        script = f"async (argument) => ({function})(await import('/{name}.js'), argument)"
        return await self.page.evaluate(script, argument)


@dataclass
class Watched:
    """What a page does that it must not do."""

    host: str
    complaints: list[str]
    allowed: Sequence[str]

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self.host:
            self.complaints.append(f"it asked for {request.url}")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    path = chromium.find()
    if path is None:
        missing(chromium.MISSING)
    async with chromium.browsing(path) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server() -> AsyncIterator[ReverbServer]:
    async with ReverbServer() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def address(server: ReverbServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """What ``reverb console`` prints. The tests share one, and take channels of their own."""
    command = reverb("console", "--no-open", env=server.env, cwd=tmp_path_factory.mktemp("console"))
    async with command as running:
        yield (await running.out.expect(r"^http://\S+#\S+$"))[0]


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(browser: Browser, address: str) -> AsyncIterator[Open]:
    """Opens pages, and looks at what they did when the test is over."""
    watched: list[Watched] = []
    async with AsyncExitStack() as stack:

        async def open_one(url: str = address, *, errors: Sequence[str] = (), **options: Any) -> Console:
            context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | options)
            stack.push_async_callback(context.close)
            page = await context.new_page()
            watch = Watched(urlsplit(url).netloc, [], errors)
            watched.append(watch)
            page.on("console", watch.on_console)
            page.on("pageerror", lambda error: watch.complaints.append(str(error)))
            page.on("request", watch.on_request)
            await page.goto(url)
            return Console(page, url)

        yield open_one
        for watch in watched:
            assert [each for each in watch.complaints if not any(part in each for part in watch.allowed)] == []


@pytest_asyncio.fixture(loop_scope="module")
async def console(open_page: Open) -> Console:
    console = await open_page()
    await expect(console.page.locator(".status")).to_have_text("connected")
    return console


# --- the way in


async def test_the_printed_address_opens_the_page(console: Console, server: ReverbServer) -> None:
    page = console.page
    await expect(page.locator(".facts")).to_contain_text(f"ws://{server.host}:{server.port}")
    await expect(page.locator(".facts")).to_contain_text("app-id")
    assert page.url == console.url.partition("#")[0]
    [cookie] = await page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert await page.evaluate("document.cookie") == ""
    await page.reload()
    await expect(page.locator(".status")).to_have_text("connected")
    await expect(page.locator(".events .empty, .events .row").first).to_be_visible()


@pytest.mark.parametrize("token", ["", "#wrong"])
async def test_without_the_token_there_is_nothing(open_page: Open, address: str, token: str) -> None:
    refused = ("403",)
    console = await open_page(address.partition("#")[0] + token, errors=refused)
    await expect(console.page.locator("main")).to_contain_text("Open the full address that reverb console prints")
    assert await console.page.context.cookies() == []


async def test_another_origin_and_another_host_are_refused(console: Console, open_page: Open) -> None:
    """Both pages have the cookie: browsers send it to all ports of a host."""
    target = console.url.partition("#")[0]

    async def serve(request: web.Request) -> web.Response:
        return web.Response(text="<title>another site</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    page = await console.page.context.new_page()
    try:
        await page.goto(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        outcome = await page.evaluate(
            """(url) => new Promise((resolve) => {
              const socket = new WebSocket(url);
              socket.onopen = () => resolve("open");
              socket.onclose = () => resolve("refused");
            })""",
            target.replace("http", "ws") + "ws",
        )
        assert outcome == "refused"
        rebound = await page.goto(target.replace("127.0.0.1", "rebound.test"))
        assert rebound is not None
        assert rebound.status == 403
    finally:
        await page.close()
        await runner.cleanup()


# --- events


async def test_an_event_is_seen_within_a_second(console: Console, server: ReverbServer) -> None:
    await console.follow("seen-soon")
    taken = []
    for number in range(ATTEMPTS):
        started = time.monotonic()
        await server.publish("seen-soon", r"App\Events\OrderShipped", {"number": number})
        await expect(console.events.filter(has_text=f'{{"number":{number}}}')).to_be_visible()
        taken.append(time.monotonic() - started)
        if taken[-1] < 1:
            break
    assert min(taken) < 1
    row = console.events.filter(has_text='{"number":0}')
    await expect(row).to_contain_text(re.compile(r"^\s*\d\d:\d\d:\d\d\s*seen-soon\s*…\\OrderShipped"))
    await row.click()
    await expect(console.panel.locator(".title")).to_have_text(r"App\Events\OrderShipped")
    await expect(console.panel.get_by_role("treeitem").filter(has_text='"number": 0')).to_be_visible()


async def test_filter(console: Console, server: ReverbServer) -> None:
    await console.follow("filter-one", "filter-two")
    await server.publish("filter-one", r"App\Events\Paid", {"city": "Łódź", "path": "a/b"})
    await server.publish("filter-one", r"App\Events\Shipped", {"city": "Bergen"})
    await server.publish(["filter-two"], r"App\Events\Shipped", {"city": "Łódź"})
    for query, count in {
        "channel:filter": 3,
        "channel:filter-one": 2,
        "channel:filter event:shipped": 2,
        "channel:filter -event:Shipped": 1,
        "channel:=filter": 0,
        "channel:=filter-two": 1,
        "channel:filter łódź": 2,
        "channel:filter a/b": 1,
        'channel:filter "city":"bergen"': 1,
        'channel:filter -"bergen" paid': 1,
    }.items():
        await console.only(query)
        await expect(console.events, query).to_have_count(count)
    await console.only("channel:filter")
    await console.events.filter(has_text="Paid").click()
    await console.button("Show only this event").click()
    await expect(console.page.locator("#filter")).to_have_value(r"channel:filter event:=App\Events\Paid")
    await expect(console.events).to_have_count(1)
    await console.only("nothing of this kind")
    await console.button("Remove the filter").first.click()
    await expect(console.page.locator("#filter")).to_have_value("")


async def test_the_events_that_the_filter_shows_are_exported(
    console: Console, server: ReverbServer, tmp_path: Path
) -> None:
    await console.follow("exported")
    await server.publish("exported", "one", {"big": 12345678901234567890})
    await server.publish("exported", "two", [])
    await console.only("channel:=exported event:one")
    await expect(console.events).to_have_count(1)
    async with console.page.expect_download() as download:
        await console.button("Export as JSON lines").click()
    await (await download.value).save_as(tmp_path / "events.jsonl")
    [line] = (tmp_path / "events.jsonl").read_text().splitlines()
    event = json.loads(line)
    assert (event["channel"], event["event"]) == ("exported", "one")
    assert event["data"] == {"big": 12345678901234567890}


async def test_pause_holds_events_back(console: Console, server: ReverbServer) -> None:
    await console.follow("paused")
    await console.only("channel:=paused")
    await server.publish("paused", "before", {})
    await expect(console.events).to_have_count(1)
    await console.page.locator("#event-list").press("Space")
    await expect(console.page.locator("#pause")).to_have_text("Resume: 0 held")
    for number in range(3):
        await server.publish("paused", f"later-{number}", {})
    await expect(console.page.locator("#pause")).to_have_text("Resume: 3 held")
    await expect(console.events).to_have_count(1)
    await console.page.keyboard.press("Space")
    await expect(console.events.locator(".event-name")).to_have_text(["before", "later-0", "later-1", "later-2"])


async def test_the_payload_is_a_tree_that_folds_and_is_searched(console: Console, server: ReverbServer) -> None:
    await console.follow("tree")
    await console.only("channel:=tree")
    payload = {"order": {"lines": [{"sku": "LAMP", "price": 1.10}], "id": 2**63}, "many": list(range(120))}
    await server.publish("tree", "deep", payload)
    await expect(console.events).to_have_count(1)
    await console.events.click()
    lines = console.panel.get_by_role("treeitem")
    await expect(lines.filter(has_text=str(2**63))).to_be_visible()
    await expect(lines.filter(has_text="LAMP")).to_have_count(0)
    await console.page.fill("#payload-query", "lamp")
    await expect(lines.filter(has_text="LAMP").locator("mark")).to_have_text("LAMP")
    await console.page.fill("#payload-query", "")
    await expect(lines.filter(has_text="LAMP")).to_have_count(0)
    await console.button("Unfold many").click()
    await expect(lines.filter(has_text=re.compile(r"^\s*119\s*$"))).to_have_count(1)
    await console.button("Fold payload").click()
    await expect(lines).to_have_count(1)


async def test_what_others_wrote_stays_text(console: Console, server: ReverbServer) -> None:
    page = console.page
    await console.follow("hostile")
    await console.only("channel:=hostile")
    await server.publish("hostile", HOSTILE, {HOSTILE: HOSTILE, "__proto__": {"constructor": 1}})
    await expect(console.events.locator(".event-name")).to_have_text(SHOWN)
    await expect(console.events).to_have_count(1)
    await console.events.click()
    await expect(console.panel.locator(".title")).to_have_text(SHOWN)
    await expect(console.panel.get_by_role("treeitem").filter(has_text="onerror")).to_contain_text("\\u202e")
    await expect(console.panel.get_by_role("treeitem").filter(has_text="__proto__")).to_be_visible()
    for kind in ("JSON", "reverb", "curl", "Python"):
        await console.button(kind).click()
        await expect(console.panel.locator(".snippet")).to_contain_text("onerror")
        assert not UNSEEN.search(await page.locator("body").inner_text())
    await console.button("Edit and send").click()
    await page.fill("#send-channels", "hostile-again")
    await page.click("#send")
    await expect(console.panel.locator(".history li b")).to_have_text(SHOWN)
    await console.follow(f"hostile-{'<b>&amp;'}")
    assert not UNSEEN.search(await page.locator("body").inner_text())
    assert await page.locator("img[src='x'], [onerror]").count() == 0
    assert await page.title() == "reverb console"


# --- the connection


async def test_a_restart_of_the_server_is_a_gap(open_page: Open, tmp_path: Path) -> None:
    async with ReverbServer() as server:
        command = reverb("console", "--no-open", env=server.env, cwd=tmp_path)
        async with command as running:
            console = await open_page((await running.out.expect(r"^http://\S+#\S+$"))[0], errors=GONE)
            await console.follow("one", "two")
            await server.publish("one", "before", {})
            await expect(console.events).to_have_count(1)
            await server.restart(downtime=0.3)
            gap = console.page.locator(".row.gap")
            await expect(gap).to_contain_text("Events on 2 channels in that time are missing.")
            await server.publish("two", "after", {})
            await expect(console.rows.locator("css=.event-name, :scope.gap > span")).to_have_text(
                ["before", re.compile("Gap: no connection for .* Events on 2 channels"), "after"]
            )
            await expect(console.page.locator(".outages")).to_have_text("1 reconnect, 1 gap")
            later = await open_page(console.url, errors=GONE)
            await expect(later.page.locator(".outages")).to_have_text("1 reconnect, 1 gap")
            await console.page.locator("#event-list").press("d")
            await expect(console.panel.locator(".changes")).to_contain_text(re.compile("Gap of .* on 2 channels"))
        await expect(console.page.get_by_role("alert")).to_contain_text("does not answer")


async def test_what_is_asked_for_before_the_page_is_connected_is_done_then(console: Console) -> None:
    page = console.page
    may_enter = asyncio.Event()

    async def hold(route: Route) -> None:
        await may_enter.wait()
        await route.continue_()

    await page.goto("about:blank")
    await page.route("**/session", hold)
    await page.goto(console.url)
    for channel in ("hurried-1", "hurried-2"):
        await page.fill("#channel-query", channel)
        await page.press("#channel-query", "Enter")
    await page.evaluate(DRAWN)
    await expect(page.locator(".status")).to_have_text("disconnected")
    may_enter.set()
    for channel in ("hurried-1", "hurried-2"):
        await expect(console.following(channel)).to_have_attribute("aria-pressed", "true")
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_a_page_that_lost_the_console_gets_what_it_missed(console: Console, server: ReverbServer) -> None:
    page = console.page
    sockets: list[WebSocketRoute] = []

    def connect(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    await page.route_web_socket(re.compile("/ws$"), connect)
    await page.reload()
    await console.follow("missed")
    await console.only("channel:=missed")
    await server.publish("missed", "event-0", {})
    await expect(console.events).to_have_count(1)
    await sockets[-1].close(code=1011)
    await expect(page.get_by_role("alert")).to_contain_text("does not answer")
    for number in range(1, 4):
        await server.publish("missed", f"event-{number}", {})
    await expect(page.get_by_role("alert")).to_have_count(0)
    await server.publish("missed", "event-4", {})
    await expect(console.events.locator(".event-name")).to_have_text([f"event-{number}" for number in range(5)])
    assert len(sockets) == 2


async def test_the_doctor(console: Console) -> None:
    await console.page.keyboard.press("d")
    await console.button("Run the doctor").click()
    await expect(console.panel.locator(".doctor li").filter(has_text="TCP")).to_contain_text("connected to")
    await console.panel.get_by_text("Show the settings, and where each one comes from").click()
    await expect(console.panel.locator(".doctor dl")).to_contain_text("REVERB_APP_KEY")
    assert "app-secret" not in await console.page.content()
    await expect(console.button("Run the doctor")).to_be_enabled()


async def test_without_a_server_it_says_what_to_do(open_page: Open, tmp_path: Path) -> None:
    async with ReverbServer() as server:
        env = server.env  # of a server that is not there any more
    async with reverb("console", "--no-open", env=env, cwd=tmp_path) as running:
        console = await open_page((await running.out.expect(r"^http://\S+#\S+$"))[0], errors=GONE)
        await expect(console.page.locator(".status")).to_have_text("unavailable")
        await expect(console.page.locator(".events .empty")).to_contain_text("nothing listens on port")
        await console.page.locator(".events .empty").get_by_role("button").click()
        await expect(console.panel.locator(".doctor .failed")).to_contain_text("TCP")


# --- channels


async def test_members_are_seen_without_joining_and_joining_is_asked(
    console: Console, server: ReverbServer
) -> None:
    page = console.page
    async with ReverbClient(**server.settings) as ann:
        room = await ann.subscribe("presence-room", {"user_id": "ann-7", "user_info": {}})
        row = page.locator(".channel").filter(has_text="presence-room")
        await row.click()
        await expect(console.panel.locator(".members li")).to_contain_text(["ann-7"])
        assert list(room.members) == ["ann-7"]
        await console.following("presence-room").click()
        await expect(page.locator("dialog")).to_contain_text("Its members will see that you are there")
        await console.button("Don't join").click()
        assert list(room.members) == ["ann-7"]
        await console.following("presence-room").click()
        await console.button("Join").click()
        await expect(console.following("presence-room")).to_have_attribute("aria-pressed", "true")
        await console.button("Refresh").click()
        await expect(console.panel.locator(".members li")).to_have_count(2)
        await room.trigger("wave", {"hand": "left"})
        await expect(console.events.filter(has_text="client-wave").locator(".sender")).to_have_text("ann-7")
        await console.following("presence-room").click()
        await expect(console.following("presence-room")).to_have_attribute("aria-pressed", "false")


async def test_all_channels_are_followed(console: Console, server: ReverbServer) -> None:
    async with ReverbClient(**server.settings) as ann:
        await ann.subscribe("all-one")
        await ann.subscribe("other")
        await console.page.click(".which summary")
        await console.page.fill(".which input >> nth=0", "all-")
        await console.page.get_by_role("switch").click()
        await expect(console.following("all-one")).to_have_attribute("aria-pressed", "true")
        await expect(console.following("other")).to_have_attribute("aria-pressed", "false")
        await console.page.get_by_role("switch").click()
        await expect(console.following("all-one")).to_have_attribute("aria-pressed", "false")


async def test_several_channels_are_followed(console: Console, server: ReverbServer) -> None:
    async with ReverbClient(**server.settings) as ann:
        for name in ("several-1", "several-2", "others"):
            await ann.subscribe(name)
        await ann.subscribe("presence-several", {"user_id": "ann", "user_info": {}})
        await expect(console.following("others")).to_be_visible()
        await console.page.fill("#channel-query", "several")
        await console.button("Follow these 2").click()
        await expect(console.following("several-1")).to_have_attribute("aria-pressed", "true")
        await expect(console.following("several-2")).to_have_attribute("aria-pressed", "true")
        await expect(console.following("presence-several")).to_have_attribute("aria-pressed", "false")
        await console.page.fill("#channel-query", "")
        await expect(console.following("others")).to_have_attribute("aria-pressed", "false")


# --- sending


async def test_publish(console: Console, server: ReverbServer) -> None:
    page = console.page
    await console.follow("published", "published-too")
    await console.only("channel:published")
    await page.locator("#event-list").press("p")
    await expect(page.locator("#send-channels")).to_be_focused()
    await console.compose("published published-too", r"App\Events\Sent", '{"n": 1,\n"x": }')
    await expect(page.locator(".data-state")).to_contain_text("Line 2, column 6: a value was expected")
    await expect(page.locator("#send")).to_be_disabled()
    await page.fill("#send-data", '{"n":1}')
    await console.button("Format").click()
    await expect(page.locator("#send-data")).to_have_value('{\n  "n": 1\n}')
    await page.click("#send")
    await expect(console.events).to_have_count(2)
    await page.get_by_label("To others only").check()
    await page.click("#send")
    await expect(console.panel.locator(".history li")).to_have_count(2)
    await console.panel.locator(".history li").last.get_by_role("button", name="Send again").click()
    await expect(console.panel.locator(".history li")).to_have_count(3)
    await expect(console.events).to_have_count(4)
    await page.reload()
    await page.keyboard.press("p")
    await expect(console.panel.locator(".history li")).to_have_count(3)


async def test_trigger(console: Console, server: ReverbServer) -> None:
    async with ReverbClient(**server.settings) as ann:
        heard: asyncio.Queue[Any] = asyncio.Queue()
        channel = await ann.subscribe("private-triggered")
        channel.bind("client-typing", lambda event, data, channel: heard.put_nowait(data))
        await console.page.keyboard.press("p")
        await console.button("Trigger a client event").click()
        await console.compose("private-triggered", "typing", '{"on": true}')
        await expect(console.panel.locator(".outcome")).to_have_text("Follow the channel first.")
        await console.follow("private-triggered")
        await console.page.click("#send")
        assert await asyncio.wait_for(heard.get(), 10) == {"on": True}


async def test_copies_run(console: Console, server: ReverbServer, tmp_path: Path) -> None:
    name = 'App\\Events\\It\'s "big" $HOME'
    await console.follow("copied")
    await console.only("channel:=copied")
    await server.publish("copied", name, {"text": "it's `here` \u202e Łódź"})
    await expect(console.events).to_have_count(1)
    await console.events.click()

    async def copied(kind: str) -> str:
        await console.button(kind).click()
        return await console.panel.locator(".snippet").inner_text()

    event = json.loads(await copied("JSON"))
    assert event == {"channel": "copied", "event": name, "data": {"text": "it's `here` \u202e Łódź"}}
    await console.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await console.button("Copy").click()
    await expect(console.page.locator(".notices")).to_contain_text("Copied as JSON.")
    assert json.loads(await console.page.evaluate("navigator.clipboard.readText()")) == event
    assert (await copied("reverb")).startswith("reverb publish copied ")
    compile(await copied("Python"), "copied.py", "exec")
    environment = {**os.environ, **server.env}
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        await copied("curl"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out == b"{}", out
    await expect(console.events).to_have_count(2)
    await expect(console.events.locator(".event-name")).to_have_text([f"…\\{name.split(chr(92))[-1]}"] * 2)


async def test_read_only(open_page: Open, server: ReverbServer, tmp_path: Path) -> None:
    async with ReverbClient(**server.settings) as ann:
        await ann.subscribe("presence-watched", {"user_id": "ann", "user_info": {}})
        command = reverb("console", "--no-open", "--read-only", env=server.env, cwd=tmp_path)
        async with command as running:
            console = await open_page((await running.out.expect(r"^http://\S+#\S+$"))[0], errors=GONE)
            await expect(console.page.locator(".bar")).to_contain_text("read-only")
            await expect(console.following("presence-watched")).to_be_disabled()
            await console.page.keyboard.press("p")
            await expect(console.panel).to_contain_text("This console is read-only")
            await expect(console.page.locator("#send")).to_have_count(0)


# --- keys, looks


async def test_keys(console: Console, server: ReverbServer) -> None:
    page = console.page
    await console.follow("keys")
    await page.keyboard.press("Escape")
    await page.keyboard.press("/")
    await expect(page.locator("#filter")).to_be_focused()
    await page.keyboard.type("channel:=keys")
    for number in range(3):
        await server.publish("keys", f"event-{number}", {})
    await expect(console.events).to_have_count(3)
    await page.keyboard.press("ArrowUp")
    await expect(console.panel.locator(".title")).to_have_text("event-2")
    await page.keyboard.press("ArrowUp")
    await expect(console.panel.locator(".title")).to_have_text("event-1")
    await page.keyboard.press("Home")
    await expect(console.panel.locator(".title")).to_have_text("event-0")
    await page.keyboard.press("?")
    await expect(page.locator("dialog")).to_contain_text("Keys and help")
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog")).to_have_count(0)
    await page.keyboard.press("t")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.keyboard.press("Escape")
    await expect(page.locator("#filter")).to_have_value("")


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((each, i) => each * a + under[i] * (1 - a));
  const ground = (element) => {
    if (element === null) return [255, 255, 255];
    const color = rgba(getComputedStyle(element).backgroundColor);
    return color[3] === 1 ? color.slice(0, 3) : over(color, ground(element.parentElement));
  };
  const light = (color) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = color.map((each) => linear(each / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const poor = [];
  let seen = 0;
  const look = (element, color, text) => {
    const under = ground(element);
    const [one, other] = [light(over(rgba(color), under)), light(under)].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    seen += 1;
    if (contrast < 4.5) poor.push(`${contrast.toFixed(2)} ${element.className} ${text}`);
  };
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility() || element.closest("svg")) continue;
    const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (text) look(element, getComputedStyle(element).color, text);
    if (element.placeholder) look(element, getComputedStyle(element, "::placeholder").color, element.placeholder);
  }
  return { seen, poor };
}"""


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["wide", "phone"])
async def test_contrast_and_width(open_page: Open, server: ReverbServer, size: tuple[int, int]) -> None:
    """All text has the contrast of WCAG AA, 4.5, in light and in dark, and nothing is wider than the screen."""
    console = await open_page(viewport={"width": size[0], "height": size[1]})
    page = console.page
    if size[0] < 760:
        await page.get_by_role("button", name="Channels", exact=True).click()
    name = f"looks-{size[0]}"
    await console.follow(name, f"private-{name}")

    async def look() -> None:
        for theme in ("light", "dark"):
            await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            found = await page.evaluate(CONTRAST)
            assert found["seen"] > 10
            assert found["poor"] == []
        assert await page.evaluate("document.documentElement.scrollWidth") <= size[0]

    await look()
    await page.keyboard.press("Escape")
    await page.locator("body").press("/")
    await server.publish([name, f"private-{name}"], r"App\Events\Looks", {"a": [1, True, None, "text"], "b": {}})
    await server.publish(name, "pusher:something", {})
    await console.only(f"channel:{name}")
    await expect(console.events).to_have_count(3)
    await look()
    await console.events.first.click()
    await expect(console.panel.get_by_role("treeitem").first).to_be_visible()
    await page.fill("#payload-query", "text")
    await look()
    await page.keyboard.press("Escape")
    await page.locator("body").press("d")
    await console.button("Run the doctor").click()
    await expect(console.button("Run the doctor")).to_be_enabled()
    await look()
    await page.keyboard.press("p")
    await console.compose(name, "sent", "{")
    await look()
    await page.fill("#send-data", "{}")
    await page.click("#send")
    await expect(console.panel.locator(".outcome")).to_contain_text("Sent at")
    await look()
    await page.locator("body").press("?")
    await expect(page.locator("dialog")).to_be_visible()
    await look()
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog")).to_have_count(0)
    await page.locator("body").press("Space")
    await expect(page.locator("#pause")).to_contain_text("Resume")
    await look()


async def test_the_page_does_not_jump(console: Console, server: ReverbServer) -> None:
    page = console.page
    await page.evaluate(
        """() => {
          window.shifts = [];
          new PerformanceObserver((list) => {
            for (const each of list.getEntries()) if (!each.hadRecentInput) window.shifts.push(each.value);
          }).observe({ type: "layout-shift", buffered: true });
        }"""
    )
    await console.follow("steady")
    await console.only("channel:=steady")
    for number in range(60):
        await server.publish("steady", f"event-{number}", {"n": number})
    await expect(console.events.filter(has_text="event-59")).to_be_visible()
    await console.page.keyboard.press("ArrowUp")
    assert sum(await page.evaluate("window.shifts")) < 0.02


# --- much


WATCH_TASKS = """() => {
  window.tasks = [];
  new PerformanceObserver((list) => {
    for (const each of list.getEntries()) window.tasks.push(each.duration);
  }).observe({ type: "longtask" });
}"""


async def test_many_events_do_not_freeze_the_page(open_page: Open, server: ReverbServer) -> None:
    longest: list[float] = []
    for attempt in range(ATTEMPTS):
        console = await open_page()
        name = f"load-{attempt}"
        await console.follow(name)
        await console.page.evaluate(WATCH_TASKS)
        before = await heap_of(console.page)
        total = round(RATE * SECONDS)
        started = time.monotonic()
        for number in range(total):
            await server.publish(name, r"App\Events\Load", {"number": number, "text": "x" * 200})
            await asyncio.sleep(max(0.0, started + number / RATE - time.monotonic()))
        await expect(console.events.filter(has_text=f'"number":{total - 1},')).to_be_visible()
        counted = await console.module(
            "state", "({ log }, name) => log.shown.filter((e) => e.channel === name).length", name
        )
        assert counted == min(total, 10_000)
        assert await console.page.locator("#event-list .row").count() < 100
        grown = await heap_of(console.page) - before
        assert grown < min(total, 10_000) * 2_000
        longest.append(max(await console.page.evaluate("window.tasks"), default=0.0))
        await console.page.close()
        if longest[-1] < LONGEST_TASK:
            break
    print(f"{RATE} events a second for {SECONDS:g} s: the longest task took {longest} ms, {grown} bytes more")
    assert min(longest) < LONGEST_TASK


ADD_ROWS = """({ log, changed }, [first, last]) => {
  const rows = [];
  const event = { type: "event", channel: "many", user_id: null, size: 20, sealed: false };
  for (let i = first; i <= last; i++) {
    const data = `{"number": ${i}, "text": "${"x".repeat(200)}"}`;
    rows.push({ ...event, n: 1e6 + i, time: 1e12 + i, event: `event-${i}`, data });
  }
  log.add(rows);
  changed();
}"""


async def heap_of(page: Page) -> int:
    """Return the bytes that are in use."""
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.collectGarbage")
    used: int = (await session.send("Runtime.getHeapUsage"))["usedSize"]
    await session.detach()
    return used


async def test_the_memory_stays_flat_when_the_log_is_full(console: Console) -> None:
    await console.module("state", ADD_ROWS, [1, 12_000])
    await expect(console.events.filter(has_text="event-12000")).to_be_visible()
    before = await heap_of(console.page)
    for first in range(12_001, 40_000, 4_000):
        await console.module("state", ADD_ROWS, [first, first + 3_999])
        await expect(console.events.filter(has_text=f"event-{first + 3_999}")).to_be_visible()
    assert await heap_of(console.page) - before < 2_000_000


async def test_ten_thousand_rows_scroll_and_filter(console: Console) -> None:
    page = console.page
    await console.module("state", ADD_ROWS, [1, 12_000])
    await expect(console.events.filter(has_text="event-12000")).to_be_visible()
    await expect(page.locator(".tally")).to_have_text("10,000 rows")
    for place in (0, 150_000, 80_000):
        await page.evaluate("(top) => { document.getElementById('event-list').scrollTop = top; }", place)
        await expect(console.events.filter(has_text=f"event-{2001 + place // 30}").first).to_be_visible()
    assert await console.rows.count() < 100
    await console.only("event-12000")
    await expect(console.events).to_have_count(1)


# --- modules by themselves


async def test_what_is_visible_is_the_same_as_in_python(console: Console) -> None:
    texts = [
        chr(code)
        for code in (*range(0x3100), *range(0xE000, 0xE010), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0080))
        if unicodedata.category(chr(code)) != "Cn"  # what is assigned differs between versions
    ]
    shown = await console.module("text", "({ visible }, texts) => texts.map(visible)", texts)
    assert [(a, b) for a, b in zip(map(visible, texts), shown, strict=True) if a != b] == []


async def test_json_is_parsed_as_elsewhere(console: Console) -> None:
    good = ['{"a":[1,-0.5e+3,true,null,"\\u0041\\n"],"a":2}', " [] ", '"x"', "0", "{}", "[" * 400 + "]" * 400]
    bad = [
        "",
        "{",
        "[1,]",
        "{a:1}",
        "'x'",
        "01",
        "1 2",
        '"\n"',
        '{"a" 1}',
        "nul",
        '{"a":1,}',
        "[" * 600,
        "\ufeff1",
    ]
    function = """({ parseOrNull, format }, texts) => {
      const again = (node) => node && format(node);
      return texts.map((text) => again(parseOrNull(text)));
    }"""
    parsed = await console.module("json", function, good)
    assert [json.loads(each) for each in parsed] == [json.loads(each) for each in good]
    assert await console.module("json", function, bad) == [None] * len(bad)


LOG = """({ Log }) => {
  const log = new Log();
  let n = 0;
  const event = () => ({ type: "event", n: ++n, time: n, channel: "c", event: "e", data: "{}" });
  const add = (count) => log.add(Array.from({ length: count }, event));
  const gap = (channel, time) => ({ type: "gap", n: ++n, time, channel, downtime: 2 });
  add(1);
  log.add([gap("a", 100), gap("b", 150)]);
  const merged = log.shown[1].channels;
  log.pause();
  add(10005);
  const paused = [log.shown.length, log.heldCount, log.heldDropped];
  log.resume();
  const resumed = [log.shown.length, log.shown[0].type, log.shown.at(-1).n === n, log.heldCount];
  log.add([{ type: "dropped", count: 7, time: 1 }, event()]);
  const dropped = [log.shown.at(-2).count, log.shown.at(-1).n === n];
  log.add([{ ...event(), n: n - 5 }]);
  return { merged, paused, resumed, dropped, repeated: log.shown.at(-1).n };
}"""


async def test_the_log_is_bounded_and_says_what_it_dropped(console: Console) -> None:
    found = await console.module("log", LOG)
    assert found["merged"] == ["a", "b"]
    assert found["paused"] == [2, 10_000, 5]
    assert found["resumed"] == [10_000, "event", True, 0]
    assert found["dropped"] == [7, True]
