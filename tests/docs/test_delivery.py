"""docs/explanation/delivery.md: gaps are told as its table says, and the end is as it says."""

from __future__ import annotations

import asyncio

from reverb import ConnectionError, Events, ReverbClient
from reverb.server import ReverbServer
from tests.docs.pages import Page
from tests.test_dispatch import Recorder
from tests.watching import until

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


async def test_the_end(client: ReverbClient, server: ReverbServer) -> None:
    """A handler that is at work can't trigger any more, but can publish over the HTTP API."""
    is_at_work, go_on = asyncio.Event(), asyncio.Event()
    answers: list[str] = []

    async def on_command(event: str, data: object, channel: str | None) -> None:
        is_at_work.set()
        await go_on.wait()
        try:
            await client.channels["private-device"].trigger("done", {"over": "the WebSocket"})
        except ConnectionError:
            answers.append("refused")
        await client.api.trigger("private-device", "done", {"over": "the HTTP API"})

    (await client.subscribe("private-device")).bind("command", on_command)
    await server.publish("private-device", "command", {})
    await asyncio.wait_for(is_at_work.wait(), 5)
    disconnecting = asyncio.ensure_future(client.disconnect())
    await until(lambda: not client.is_connected)
    go_on.set()
    await disconnecting
    assert answers == ["refused"]
    server.assert_published("private-device", "done", {"over": "the HTTP API"})
