"""docs/guides/webhooks.md: its code runs."""

from __future__ import annotations

import time

import aiohttp
from aiohttp import web

from tests.docs.pages import Block, Fragment, Page
from tests.test_webhooks import KEY, SECRET, headers_for, make_body

PAGE = Page("docs/guides/webhooks.md")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("Webhooks")
async def test_taking_webhooks(block: Block) -> None:
    fragment = Fragment(block, app_key=KEY, app_secret=SECRET)
    await fragment.run()
    application = web.Application()
    application.router.add_post("/", fragment.names["take"])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    sent = {"name": "client_event", "channel": "presence-a", "event": "client-b", "user_id": "7"}
    recent = make_body({"name": "channel_occupied", "channel": "news"}, sent, time_ms=int(time.time() * 1000))
    try:
        async with aiohttp.ClientSession() as session:
            for body, status in ((recent, 204), (make_body(), 401), (b"", 401)):
                signed = headers_for(body) if body else {}
                async with session.post(url, data=body, headers=signed) as response:
                    assert response.status == status
    finally:
        await runner.cleanup()
    assert fragment.printed == ["somebody is on news", "7 sent client-b on presence-a"]
