"""docs/guides/publishing.md: its code runs."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from reverb import BatchError, BatchEvent, ReverbClient, SyncReverbAPI
from reverb.server import ReverbServer
from tests.docs.pages import Fragment, Page
from tests.integration.servers import Target
from tests.relay.streams import RedisStream
from tests.scripted_http import ScriptedHTTPServer, answer
from tests.test_dispatch import Recorder
from tests.test_examples import run
from tests.test_webhooks import KEY, SECRET, headers_for, make_body
from tests.watching import until

PAGE = Page("docs/guides/publishing.md")
TEXT = PAGE.text
SYNCHRONOUS, ASYNCHRONOUS, COMMIT, BATCH, STREAM, WEBHOOK = (
    each for each in PAGE.blocks.values() if each.language == "python"
)


async def test_publishing(client: ReverbClient) -> None:
    heard = Recorder()
    for name, event in (("orders", "order.shipped"), ("stock", "item.updated")):
        (await client.subscribe(name)).bind(event, heard)
    printed: list[Any] = []
    await asyncio.to_thread(exec, SYNCHRONOUS.text, {"print": printed.append})
    stock = [("item.updated", {"id": id_}, "stock") for id_ in range(25)]
    assert await heard.wait_for(26) == [("order.shipped", {"id": 7}, "orders"), *stock]
    await Fragment(ASYNCHRONOUS).run()
    assert (await heard.wait_for(27))[26] == ("order.shipped", {"id": 7}, "orders")
    assert printed == [True]


SHOP = """\
from publish_django import Order, api, connection

with connection.schema_editor() as editor:
    editor.create_model(Order)
"""


async def test_after_the_commit(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    pytest.importorskip("django")
    tmp_path.joinpath("shop.py").write_text(SHOP + COMMIT.text)
    async with run("publish_django", target, tmp_path, module="shop") as command:
        assert await command.exit_code() == 0, command.err.text
    server.assert_published("orders", "order.created", {"id": 1})


async def test_what_remains_of_a_batch() -> None:
    events = [BatchEvent("news", "e", n) for n in range(25)]
    settings: dict[str, Any] = {"app_id": "42", "app_key": KEY, "app_secret": SECRET, "scheme": "ws"}
    async with ScriptedHTTPServer(answer(200), answer(413)) as server:
        with SyncReverbAPI(host=server.host, port=server.port, **settings) as api:
            names = {"api": api, "events": events, "BatchError": BatchError}
            await asyncio.to_thread(exec, BATCH.text, names)
    assert names["remaining"] == events[10:]


async def test_publishing_from_a_stream(
    server: ReverbServer, target: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    (add,) = re.findall(r"^redis-cli (XADD .*)$", TEXT, re.M)
    with RedisStream(tmp_path) as stream:
        commands: Any = stream.redis
        commands.execute_command(*shlex.split(add))
        fragment = Fragment(
            STREAM._replace(text=STREAM.text.replace("redis://localhost:6379/0", stream.server.url))
        )
        await fragment.run()
        publishing = asyncio.ensure_future(fragment.names["publish_from_redis"]())
        try:
            await until(lambda: server.events or publishing.done(), 15)
        finally:
            publishing.cancel()
            await asyncio.wait({publishing})
    server.assert_published("orders", "order.shipped", {"id": 7})


async def test_taking_webhooks() -> None:
    fragment = Fragment(WEBHOOK, app_key=KEY, app_secret=SECRET)
    await fragment.run()
    application = web.Application()
    application.router.add_post("/", fragment.names["take"])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    sent = {"name": "client_event", "channel": "presence-a", "event": "client-b", "user_id": "7"}
    recent = make_body({"name": "channel_occupied", "channel": "news"}, sent, time_ms=int(time.time() * 1000))
    try:
        async with aiohttp.ClientSession() as session:
            for body, status in ((recent, 204), (make_body(), 401), (b"", 401)):
                signed = headers_for(body) if body else {}
                async with session.post(url, data=body, headers=signed) as response:
                    assert response.status == status
    finally:
        await runner.cleanup()
    assert fragment.printed == ["somebody is on news", "7 sent client-b on presence-a"]
