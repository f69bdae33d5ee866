"""docs/moving/pysher.md: its programs run, and its calls are those of both libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reverb import ReverbClient
from reverb.server import ReverbServer
from tests.docs.moving import check_calls, check_that_it_ships, names_of_ours
from tests.docs.pages import Block, Page

pysher: Any = pytest.importorskip("pysher")

PAGE = Page("docs/moving/pysher.md")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("Before", "After")
async def test_the_programs(block: Block, server: ReverbServer, tmp_path: Path) -> None:
    await check_that_it_ships(block, server, tmp_path)


def test_the_calls_of_pysher() -> None:
    pusher = pysher.Pusher("app-key")
    channel = pysher.channel.Channel("private-orders", pusher.connection)
    check_calls(PAGE, 0, {"pysher": pysher, "pusher": pusher, "channel": channel})


async def test_our_calls(client: ReverbClient) -> None:
    check_calls(PAGE, 1, await names_of_ours(client))
