"""docs/explanation/delivery.md: its code runs, and gaps are told as it says."""

from __future__ import annotations

import re
from typing import Any

from reverb import Events, ReverbClient
from reverb.server import ReverbServer
from tests.docs.pages import Block, Fragment, Page
from tests.integration.servers import Target
from tests.test_dispatch import Recorder
from tests.watching import until

PAGE = Page("docs/explanation/delivery.md")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("Drop the oldest events instead")
async def test_dropping_events(block: Block, client: ReverbClient, target: Target) -> None:
    fragment = Fragment(block, client=client, Events=Events)
    await fragment.run()
    numbers: list[int] = []

    async def publish_more(event: str, data: Any, channel: str | None) -> None:
        numbers.append(data)
        if data == 0:  # while this handler runs, the others wait
            for number in range(1, 108):
                await target.publish("prices", "price", number)
            await target.publish("other", "e", None)
            await last.wait_for(1)

    last = Recorder()
    (await client.subscribe("other")).bind("e", last)
    fragment.names["prices"].bind("price", publish_more)
    await target.publish("prices", "price", 0)
    await until(lambda: len(numbers) == 101)
    assert numbers == [0, *range(8, 108)]
    assert fragment.printed == ["prices: 7 events were dropped"]
    assert client.stats.dropped == 7


@PAGE.block_of("Gaps")
async def test_gaps(block: Block, client: ReverbClient, server: ReverbServer) -> None:
    fragment = Fragment(block, client=client, Events=Events)
    await fragment.run()
    server.drop()
    await until(lambda: len(fragment.printed) == 1)
    await client.disconnect()
    await client.connect()
    await until(lambda: len(fragment.printed) == 2)
    for printed in fragment.printed:
        assert re.fullmatch(r"orders: fetch the changes of the last \d+ seconds", printed)
