"""docs/moving/asyncpusher.md: its programs run, and its calls are those of both libraries."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from reverb import ReverbClient
from reverb.server import ReverbServer
from tests.docs.moving import check_calls, check_that_it_ships, names_of_ours
from tests.docs.pages import Block, Page

asyncpusher: Any = pytest.importorskip("asyncpusher")

PAGE = Page("docs/moving/asyncpusher.md")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("Before", "After")
async def test_the_programs(block: Block, server: ReverbServer, tmp_path: Path) -> None:
    await check_that_it_ships(block, server, tmp_path)


async def test_the_calls_of_asyncpusher() -> None:
    pusher = asyncpusher.Pusher("app-key")
    channel = asyncpusher.Channel("private-orders", pusher.connection, logging.getLogger(__name__))
    check_calls(PAGE, 0, {"asyncpusher": asyncpusher, "pusher": pusher, "channel": channel, "sign": print})


async def test_our_calls(client: ReverbClient) -> None:
    check_calls(PAGE, 1, await names_of_ours(client))
