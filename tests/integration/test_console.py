"""The console, against every server there is."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from reverb import ReverbConfig
from tests.cli.console.visitors import DEADLINE, console
from tests.integration.servers import Target
from tests.integration.test_client import client_for


async def test_what_a_page_sees_and_does(server: Target) -> None:
    mark = uuid4().hex
    news, orders, room = f"news-{mark}", f"private-orders-{mark}", f"presence-room-{mark}"
    async with client_for(server) as friend, console(ReverbConfig(**server.settings)) as visitor:
        await friend.subscribe(news)
        private = await friend.subscribe(orders)
        await friend.subscribe(room, {"user_id": "bob"})
        await visitor.come_in()
        async with visitor.page() as page:
            await page.channel(news, kind="public", subscriptions=1, followed=False)
            await page.channel(orders, kind="private", subscriptions=1, followed=False)
            await page.channel(room, kind="presence", followed=False)
            assert await page.result("members", channel=room) == {"users": ["bob"]}
            await page.result("follow", channels=[news, orders])
            await page.result("follow", channels=[room], presence=True)
            await page.channel(news, subscriptions=1, followed=True, is_subscribed=True, is_ours_only=False)
            counted = "subscriptions" if server.name == "soketi" else "users"
            await page.channel(room, followed=True, is_subscribed=True, **{counted: 1})
            await friend.unsubscribe(news)
            await page.channel(news, subscriptions=0, is_ours_only=True)
            await page.result("publish", channels=[news], event="published", data='{"id": 7}')
            await page.until(lambda: [event["data"] for event in page.entries] == ['{"id": 7}'])
            await private.trigger("typing", {"by": "bob"})
            await page.until(lambda: page.entries[-1]["event"] == "client-typing")
            seen = asyncio.create_task(private.wait_for("client-seen", timeout=DEADLINE))
            await page.result("trigger", channel=orders, event="seen", data="{}")
            await seen
            findings = await page.result("doctor")
            assert findings["failed"] == []
