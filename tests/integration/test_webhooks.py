"""Webhooks as soketi sends them. (Reverb sends none.)"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiohttp import web

from reverb import AuthenticationError, ReverbClient
from reverb.webhooks import (
    CacheMiss,
    ChannelOccupied,
    ChannelVacated,
    ClientEvent,
    MemberAdded,
    MemberRemoved,
    Webhook,
    WebhookEvent,
)
from tests.integration.servers import SOKETI_CONFIG, MissingError, Target, run_soketi
from tests.missing import missing

EVENT_TYPES = [
    "channel_occupied",
    "channel_vacated",
    "member_added",
    "member_removed",
    "client_event",
    "cache_miss",
]


class Receiver:
    """Takes webhooks, and keeps them as they came."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, Mapping[str, str]]] = []
        self._changed = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        self.received.append((await request.read(), request.headers))
        self._changed.set()
        return web.Response()

    async def wait_for(self, target: Target, count: int) -> list[WebhookEvent]:
        """Wait for so many events; return all that came."""
        while True:
            webhooks = [
                Webhook.parse(*each, key=target.key, secret=target.secret, max_age=60) for each in self.received
            ]
            events = [event for webhook in webhooks for event in webhook.events]
            if len(events) >= count:
                return events
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 10)


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def target(receiver: Receiver, tmp_path: Path) -> AsyncIterator[Target]:
    """A soketi that sends webhooks to the receiver."""
    application = web.Application()
    application.router.add_post("/", receiver.take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    webhook = {"url": f"http://127.0.0.1:{runner.addresses[0][1]}/", "event_types": EVENT_TYPES}
    config = json.loads(SOKETI_CONFIG.read_text())
    config["appManager.array.apps"][0]["webhooks"] = [webhook]
    file = tmp_path / "soketi.json"
    file.write_text(json.dumps(config))
    try:
        with ExitStack() as stack:
            try:
                soketi = stack.enter_context(run_soketi(tmp_path, config=file))
            except MissingError as reason:
                missing(reason)
            yield soketi.target
    finally:
        await runner.cleanup()


async def test_each_type(target: Target, receiver: Receiver) -> None:
    async with ReverbClient(**target.settings) as client:
        room = await client.subscribe("presence-room", {"user_id": 7, "user_info": {"name": "Zoë"}})
        await client.subscribe("cache-prices")
        await receiver.wait_for(target, 4)
        await room.trigger("typing", {"text": "Zoë ☃"})
        await receiver.wait_for(target, 5)
        socket_id = client.socket_id
        await client.unsubscribe(room.name)
        events = await receiver.wait_for(target, 7)
    expected = [
        ChannelOccupied(room.name),
        MemberAdded(room.name, "7"),
        ChannelOccupied("cache-prices"),
        CacheMiss("cache-prices"),
        ClientEvent(room.name, "client-typing", {"text": "Zoë ☃"}, socket_id, "7"),
        MemberRemoved(room.name, "7"),
        ChannelVacated(room.name),
    ]
    assert sorted(map(repr, events)) == sorted(map(repr, expected))


async def test_one_that_was_changed_on_the_way(target: Target, receiver: Receiver) -> None:
    async with ReverbClient(**target.settings) as client:
        await client.subscribe("news")
        await receiver.wait_for(target, 1)
    body, headers = receiver.received[0]
    for changed, secret in ((body.replace(b"news", b"olds"), target.secret), (body, "wrong")):
        with pytest.raises(AuthenticationError, match="X-Pusher-Signature"):
            Webhook.parse(changed, headers, key=target.key, secret=secret)
    with pytest.raises(AuthenticationError, match="X-Pusher-Key"):
        Webhook.parse(body, headers, key="another", secret=target.secret)
    with pytest.raises(AuthenticationError, match="seconds old"):
        Webhook.parse(body, headers, key=target.key, secret=target.secret, max_age=-1)
