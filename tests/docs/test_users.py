"""docs/guides/users.md: its code runs, on a server that has users."""

from __future__ import annotations

from reverb import Events, ReverbClient
from tests.docs.pages import Block, Fragment, Page
from tests.integration.servers import Target
from tests.test_dispatch import Recorder

PAGE = Page("docs/guides/users.md")
block_of = PAGE.block_of


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@block_of("Sign in")
async def test_signing_in(block: Block, soketi: Target) -> None:
    paid, friends = Recorder(), Recorder()
    app = soketi.app("user")
    async with ReverbClient(**app.settings) as client:
        await Fragment(block, client=client, Events=Events, on_paid=paid, on_friends=friends).run()
        await app.publish("#server-to-user-7", "invoice-paid", {"id": 1})
        assert await paid.wait_for(1) == [("invoice-paid", {"id": 1}, "#server-to-user-7")]
