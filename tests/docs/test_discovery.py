"""docs/guides/discovery.md: its code runs."""

from __future__ import annotations

import asyncio

from reverb import ReverbClient
from tests.docs.commands import check_commands
from tests.docs.pages import Block, Fragment, Page
from tests.integration.servers import Target
from tests.test_dispatch import Recorder
from tests.watching import until

PAGE = Page("docs/guides/discovery.md")
block_of = PAGE.block_of


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@block_of("Discover channels")
def test_the_extra(block: Block) -> None:
    check_commands(block)


@block_of("Discover channels 2")
async def test_discovering_channels(block: Block, client: ReverbClient, target: Target) -> None:
    heard, names = Recorder(), ("private-orders.7", "private-orders.7.debug", "news")
    async with ReverbClient() as other:
        for name in names:
            await other.subscribe(name)
        fragment = Fragment(block, client=client, log=heard)
        running = asyncio.ensure_future(fragment.run())
        await until(lambda: any(each.is_subscribed for each in client.channels.values()))
        assert fragment.printed == [str(["private-orders.7"])]
        for name in names:
            await target.publish(name, "e", 1)
        await until(lambda: "e" in heard.events)
        assert [call for call in heard.calls if call[0] == "e"] == [("e", 1, "private-orders.7")]
    await client.disconnect()
    await running
