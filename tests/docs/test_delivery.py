"""docs/explanation/delivery.md: gaps are told as its table says."""

from __future__ import annotations

from reverb import Events, ReverbClient
from reverb.server import ReverbServer
from tests.docs.pages import Page
from tests.test_dispatch import Recorder

PAGE = Page("docs/explanation/delivery.md")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


async def test_gaps(client: ReverbClient, server: ReverbServer) -> None:
    """After a loss, after a refusal, and after a disconnect()."""
    gaps = Recorder()
    (await client.subscribe("private-orders")).bind(Events.RESUBSCRIBED, gaps)
    server.drop()
    await gaps.wait_for(1)
    server.deny("private-orders")
    server.drop()
    errors = Recorder()
    client.channels["private-orders"].bind("error", errors)
    await errors.wait_for(1)
    server.heal()
    server.drop()
    await gaps.wait_for(2)
    await client.disconnect()
    await client.connect()
    await gaps.wait_for(3)
    assert all(data["downtime"] >= 0 for _, data, _ in gaps.calls)
