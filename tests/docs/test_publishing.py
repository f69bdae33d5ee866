"""docs/guides/publishing.md: its code runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reverb import BatchError, BatchEvent, ReverbClient, SyncReverbAPI
from reverb.server import ReverbServer
from tests.docs.pages import Block, Fragment, Page
from tests.integration.servers import Target
from tests.scripted_http import ScriptedHTTPServer, answer
from tests.test_dispatch import Recorder
from tests.test_examples import run
from tests.test_webhooks import KEY, SECRET

PAGE = Page("docs/guides/publishing.md")
TEXT = PAGE.text
block_of = PAGE.block_of


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@block_of("Publish from plain functions")
async def test_publishing(block: Block, client: ReverbClient) -> None:
    heard = Recorder()
    for name, event in (("orders", "order.shipped"), ("stock", "item.updated")):
        (await client.subscribe(name)).bind(event, heard)
    printed: list[Any] = []
    await asyncio.to_thread(exec, block.text, {"print": printed.append})
    stock = [("item.updated", {"id": id_}, "stock") for id_ in range(25)]
    assert await heard.wait_for(26) == [("order.shipped", {"id": 7}, "orders"), *stock]
    assert printed == [True]


@block_of("Publish with asyncio")
async def test_publishing_with_asyncio(block: Block, client: ReverbClient) -> None:
    heard = Recorder()
    (await client.subscribe("orders")).bind("order.shipped", heard)
    await Fragment(block).run()
    assert await heard.wait_for(1) == [("order.shipped", {"id": 7}, "orders")]


SHOP = """\
from publish_django import Order, api, connection

with connection.schema_editor() as editor:
    editor.create_model(Order)
"""


@block_of("Publish after the commit")
async def test_after_the_commit(block: Block, server: ReverbServer, target: Target, tmp_path: Path) -> None:
    pytest.importorskip("django")
    tmp_path.joinpath("shop.py").write_text(SHOP + block.text)
    async with run("publish_django", target, tmp_path, module="shop") as command:
        assert await command.exit_code() == 0, command.err.text
    server.assert_published("orders", "order.created", {"id": 1})


@block_of("Publish to others")
async def test_to_others(block: Block, client: ReverbClient) -> None:
    heard, other_heard = Recorder(), Recorder()
    (await client.subscribe("orders")).bind("order.shipped", heard)
    with SyncReverbAPI() as api:
        fragment = Fragment(block, api=api)
        await fragment.run()
        async with ReverbClient() as other:
            (await other.subscribe("orders")).bind("order.shipped", other_heard)
            for header in ({"X-Socket-ID": client.socket_id}, {"X-Socket-ID": "undefined"}, {}):
                await asyncio.to_thread(fragment.names["ship"], SimpleNamespace(headers=header))
            assert len(await other_heard.wait_for(3)) == 3
            assert len(await heard.wait_for(2)) == 2


@block_of("Many events")
async def test_what_remains_of_a_batch(block: Block) -> None:
    events = [BatchEvent("news", "e", n) for n in range(25)]
    settings: dict[str, Any] = {"app_id": "42", "app_key": KEY, "app_secret": SECRET, "scheme": "ws"}
    async with ScriptedHTTPServer(answer(200), answer(413)) as server:
        with SyncReverbAPI(host=server.host, port=server.port, **settings) as api:
            names = {"api": api, "events": events, "BatchError": BatchError}
            await asyncio.to_thread(exec, block.text, names)
    assert names["remaining"] == events[10:]
