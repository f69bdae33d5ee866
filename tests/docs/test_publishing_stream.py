"""docs/guides/publishing-stream.md: its commands and its program publish what it says."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats

from reverb import ReverbAPI
from reverb.relay import Publisher
from reverb.server import ReverbServer
from tests.cli.in_process import invoke
from tests.docs.pages import Block, Fragment, Page
from tests.relay.streams import JetStream, RedisStream
from tests.watching import until

PAGE = Page("docs/guides/publishing-stream.md")
block_of = PAGE.block_of


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def test_the_options() -> None:
    known = invoke("publish", "--help").output
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub("--header", "", PAGE.text)):
        assert option in known


@asynccontextmanager
async def publishing(work: Coroutine[Any, Any, None], server: ReverbServer) -> AsyncIterator[None]:
    """Let it run until the server has an event."""
    running = asyncio.ensure_future(work)
    try:
        yield
        await until(lambda: server.events or running.done(), 15)
    finally:
        running.cancel()
        await asyncio.wait({running})
    server.assert_published("orders", "order.shipped", {"id": 7})


@block_of("In a program")
async def test_redis(block: Block, reverb_server: ReverbServer, tmp_path: Path) -> None:
    """With the command that adds an entry."""
    (add,) = re.findall(r"^redis-cli (XADD .*)$", PAGE.blocks["Publish from a stream"].text, re.M)
    with RedisStream(tmp_path) as stream:
        commands: Any = stream.redis
        commands.execute_command(*shlex.split(add))
        text = block.text.replace("redis://localhost:6379/0", stream.server.url)
        fragment = Fragment(block._replace(text=text))
        await fragment.run()
        async with publishing(fragment.names["publish_from_redis"](), reverb_server):
            pass


@block_of("Publish from a stream", "Publish from a stream 2")
def test_the_commands(block: Block) -> None:
    install, *others = [shlex.split(line, comments=True) for line in block.text.splitlines()]
    assert install[:2] == ["pip", "install"]
    (extra,) = re.findall(r"relay-\w+", install[2])
    assert f"\n{extra} = " in (PAGE.path.parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert {each[0] for each in others} - {"redis-cli", "nats"} == {"reverb"}


async def test_jetstream(reverb_server: ReverbServer, tmp_path: Path) -> None:
    """What ``nats pub`` sends, once the command has made the stream."""
    (line,) = re.findall(r"^nats pub (.*)$", PAGE.blocks["Publish from a stream 2"].text, re.M)
    subject, _, header, data = shlex.split(line, comments=True)
    name, _, value = header.partition(":")
    with JetStream(tmp_path) as stream:
        async with ReverbAPI() as api:
            source = stream.source()
            await source.open()
            async with (
                publishing(Publisher(source, api).run(), reverb_server),
                await nats.connect(stream.server.url) as client,
            ):
                await client.publish(subject, data.encode(), headers={name: value})
