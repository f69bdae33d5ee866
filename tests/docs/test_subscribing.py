"""docs/explanation/subscribing.md: its code runs."""

from __future__ import annotations

import reverb
from reverb import ReverbClient
from reverb.server import ReverbServer
from tests.docs.pages import Block, Fragment, Page

PAGE = Page("docs/explanation/subscribing.md")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("What `subscribe()` raises")
async def test_what_is_raised(block: Block, client: ReverbClient, server: ReverbServer) -> None:
    server.deny("private-orders")
    fragment = Fragment(block, client=client, reverb=reverb)
    await fragment.run()
    (printed,) = fragment.printed
    assert printed.startswith("not allowed: ")
    assert "'private-orders'" in printed
    assert client.is_connected


@PAGE.block_of("What `subscribe()` raises")
async def test_what_is_not_answered(block: Block, server: ReverbServer) -> None:
    async with ReverbClient(**{**server.settings, "subscribe_timeout": 0.1}) as client:
        server.silence()
        fragment = Fragment(block, client=client, reverb=reverb)
        await fragment.run()
    (printed,) = fragment.printed
    assert printed.startswith("no answer: ")
    assert "'private-orders'" in printed
