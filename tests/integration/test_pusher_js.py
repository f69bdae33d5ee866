"""The other clients of the same servers: pusher-js and Laravel Echo, let in by our FastAPI example."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reverb import PresenceChannel, ReverbClient
from reverb.crypto import derive_shared_secret, encrypt
from tests.integration.servers import Target, free_ports
from tests.integration.test_client import client_for, unique
from tests.missing import pusher_js
from tests.test_dispatch import Recorder
from tests.test_examples import run, wait_for_port
from tests.watching import owned, until

SCRIPT = Path(__file__).parent / "pusher_js" / "browser.mjs"
MASTER_KEY = 32 * b"m"
BOB = {"user_id": 2, "user_info": {"name": "Bob"}}


class Browser:
    """A Node process with pusher-js; its user is Ann, number 1."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._told: list[dict[str, Any]] = []

    def do(self, command: str, **parameters: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **parameters}).encode() + b"\n")

    async def expect(self, event: str, channel: str | None = None) -> dict[str, Any]:
        """Wait for an event; return it, and forget it and what came before."""

        async def find() -> dict[str, Any]:
            assert self._process.stdout is not None
            while True:
                line = await self._process.stdout.readline()
                assert line, f"Node has ended; it told {self._told}"
                told: dict[str, Any] = json.loads(line)
                self._told.append(told)
                if (told["event"], told["channel"]) == (event, channel):
                    return told

        try:
            return await asyncio.wait_for(find(), 10)
        except asyncio.TimeoutError:
            raise AssertionError(f"no {event!r} on {channel}; it told {self._told}") from None


@asynccontextmanager
async def browsing(server: Target, tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser that is connected, and the backend that authorises it."""
    pytest.importorskip("fastapi")
    node, package = pusher_js()
    (port,) = free_ports(1)
    settings = {
        "key": server.key,
        "host": server.host,
        "port": server.port,
        "auth": f"http://127.0.0.1:{port}/broadcasting/auth",
        "headers": {"Authorization": "Bearer token-of-ann"},
    }
    env = {"PORT": str(port), "REVERB_ENCRYPTION_MASTER_KEY": b64encode(MASTER_KEY).decode()}
    async with run("auth_fastapi", server, tmp_path, ANN_TOKEN="token-of-ann", **env):
        await wait_for_port(port)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            node, str(SCRIPT), str(Path(package).parents[1]), json.dumps(settings), stdin=pipe, stdout=pipe
        )
        assert process.stdin is not None
        async with owned(process):
            browser = Browser(process)
            await browser.expect("connected")
            yield browser
            process.stdin.close()
            assert await asyncio.wait_for(process.wait(), 10) == 0


@pytest.fixture
async def browser(server: Target, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(server, tmp_path) as browser:
        yield browser


@pytest.fixture
async def bob(server: Target) -> AsyncIterator[ReverbClient]:
    async with client_for(server, encryption_master_key=b64encode(MASTER_KEY).decode()) as client:
        yield client


async def test_both_see_each_other_and_exchange_client_events(browser: Browser, bob: ReverbClient) -> None:
    name, heard = unique("presence-room."), Recorder()
    senders: list[str | None] = []
    room = await bob.subscribe(name, BOB)
    assert isinstance(room, PresenceChannel)

    def on_hello(event: str, data: Any, channel: str | None, *, user_id: str | None) -> None:
        senders.append(user_id)
        heard(event, data, channel)

    room.bind("client-hello", on_hello)
    browser.do("subscribe", channel=name, events=["client-hello"])
    succeeded = await browser.expect("pusher:subscription_succeeded", name)
    assert succeeded["data"]["me"] == {"id": "1", "info": {"name": "Ann"}}
    assert succeeded["data"]["members"] == {"1": {"name": "Ann"}, "2": {"name": "Bob"}}
    assert await room.wait_for_member("1", 5) == {"name": "Ann"}
    assert room.members == succeeded["data"]["members"]

    await room.trigger("hello", {"text": "Hello, Ann ☃"})
    told = await browser.expect("client-hello", name)
    assert (told["data"], told["user_id"]) == ({"text": "Hello, Ann ☃"}, "2")
    browser.do("trigger", channel=name, event="client-hello", data={"text": "Hello, Bob ☃"})
    assert await heard.wait_for(1) == [("client-hello", {"text": "Hello, Bob ☃"}, name)]
    assert senders == ["1"]

    browser.do("unsubscribe", channel=name)
    await until(lambda: "1" not in room)
    browser.do("subscribe", channel=name, events=["pusher:member_removed"])
    await browser.expect("pusher:subscription_succeeded", name)
    await bob.unsubscribe(name)
    assert (await browser.expect("pusher:member_removed", name))["data"] == {"id": "2", "info": {"name": "Bob"}}


async def test_both_read_what_we_sealed(server: Target, browser: Browser, bob: ReverbClient) -> None:
    name, heard = unique("private-encrypted-"), Recorder()
    (await bob.subscribe(name)).bind("paid", heard)
    browser.do("subscribe", channel=name, events=["paid"])
    await browser.expect("pusher:subscription_succeeded", name)
    for data in ({"amount": 5, "text": "é ☃ 😀"}, ["list"], "text"):
        await server.publish(name, "paid", encrypt(json.dumps(data), derive_shared_secret(name, MASTER_KEY)))
        assert (await browser.expect("paid", name))["data"] == data
    assert [data for _, data, _ in await heard.wait_for(3)][-1] == "text"


async def test_what_the_backend_denies_is_denied(browser: Browser) -> None:
    browser.do("subscribe", channel="private-user.2", events=["pusher:subscription_error"])
    denied = await browser.expect("pusher:subscription_error", "private-user.2")
    assert denied["data"]["status"] == 403


async def test_laravel_echo_in_the_same_room(server: Target, browser: Browser, bob: ReverbClient) -> None:
    short = unique("room.")
    name, heard = f"presence-{short}", Recorder()
    browser.do("join", channel=short, events=["OrderShipped"])
    assert (await browser.expect("here", short))["data"] == [{"name": "Ann"}]
    room = (await bob.subscribe(name, BOB)).bind("client-typing", heard)
    assert (await browser.expect("joining", short))["data"] == {"name": "Bob"}
    await room.trigger("typing", {"on": True})
    assert (await browser.expect("typing", short))["data"] == {"on": True}
    browser.do("whisper", channel=short, event="typing", data={"on": False})
    assert await heard.wait_for(1) == [("client-typing", {"on": False}, name)]
    room.bind("App\\Events\\OrderShipped", heard)
    await server.publish(name, "App\\Events\\OrderShipped", {"id": 7})
    assert (await browser.expect("OrderShipped", short))["data"] == {"id": 7}
    await heard.wait_for(2)
    await bob.unsubscribe(name)
    assert (await browser.expect("leaving", short))["data"] == {"name": "Bob"}


async def test_laravel_echo_reads_what_we_sealed(server: Target, browser: Browser) -> None:
    short = unique("payments.")
    name = f"private-encrypted-{short}"
    browser.do("encrypted", channel=short, event=".paid")
    await browser.expect("subscribed", short)
    await server.publish(name, "paid", encrypt('{"amount":5}', derive_shared_secret(name, MASTER_KEY)))
    assert (await browser.expect(".paid", short))["data"] == {"amount": 5}


async def test_our_backend_signs_pusher_js_in(soketi: Target, tmp_path: Path) -> None:
    app, heard = soketi.app("user"), Recorder()
    async with browsing(app, tmp_path) as browser, client_for(app) as client:
        browser.do("signin")
        signed_in = await browser.expect("signed in")
        assert signed_in["data"] == {"id": "1", "user_info": {"name": "Ann"}}
        await client.signin({"id": "1"})
        client.user.bind("hello", heard)
        await app.publish("#server-to-user-1", "hello", {"n": 1})
        assert (await browser.expect("hello", "user"))["data"] == {"n": 1}
        assert await heard.wait_for(1) == [("hello", {"n": 1}, "#server-to-user-1")]
