"""docs/publishing.md: its code runs."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from reverb import BatchError, BatchEvent, ReverbAPI
from tests.scripted_http import ScriptedHTTPServer, answer
from tests.test_readme import Block, Fragment
from tests.test_webhooks import KEY, SECRET, headers_for, make_body

TEXT = (Path(__file__).parents[1] / "docs/publishing.md").read_text(encoding="utf-8")
BATCH, WEBHOOK = (Block("python", text, 1) for text in re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S))


async def test_what_remains_of_a_batch() -> None:
    events = [BatchEvent("news", "e", n) for n in range(25)]
    settings: dict[str, Any] = {"app_id": "42", "app_key": KEY, "app_secret": SECRET, "scheme": "ws"}
    async with (
        ScriptedHTTPServer(answer(200), answer(413)) as server,
        ReverbAPI(host=server.host, port=server.port, **settings) as api,
    ):
        fragment = Fragment(BATCH, api=api, events=events, BatchError=BatchError)
        await fragment.run()
    assert fragment.names["remaining"] == events[10:]


async def test_taking_webhooks() -> None:
    fragment = Fragment(WEBHOOK, app_key=KEY, app_secret=SECRET)
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
