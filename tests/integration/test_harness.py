"""The harness itself, without the client under test: each server confirms a subscribe and delivers an event."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from tests.integration.servers import PublishError, Target


@asynccontextmanager
async def connect(target: Target) -> AsyncIterator[aiohttp.ClientWebSocketResponse[Any]]:
    url = f"{target.http_url}/app/{target.key}?protocol=7&client=test&version=1"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as websocket:
        yield websocket


async def receive(websocket: aiohttp.ClientWebSocketResponse[Any]) -> dict[str, Any]:
    message: dict[str, Any] = await websocket.receive_json(timeout=5)
    return message


async def test_delivers_what_is_published(server: Target) -> None:
    async with connect(server) as websocket:
        established = await receive(websocket)
        assert established["event"] == "pusher:connection_established"
        await websocket.send_json({"event": "pusher:subscribe", "data": {"channel": "harness"}})
        confirmed = await receive(websocket)
        assert confirmed["event"] == "pusher_internal:subscription_succeeded"
        assert confirmed["channel"] == "harness"

        socket_id = json.loads(established["data"])["socket_id"]
        await server.publish("harness", "not-to-me", {}, socket_id=socket_id)
        await server.publish(["harness", "elsewhere"], "paid", {"id": 1})
        event = await receive(websocket)
        assert (event["event"], event["channel"]) == ("paid", "harness")
        assert json.loads(event["data"]) == {"id": 1}


async def test_a_refused_publish_raises(server: Target) -> None:
    with pytest.raises(PublishError, match=f"{server.name} answered"):
        await replace(server, secret="wrong").publish("harness", "paid", {})


async def test_soketi_has_applications_with_limits(soketi: Target) -> None:
    async with connect(soketi.app("lim")) as first, connect(soketi.app("lim")) as second:
        assert (await receive(first))["event"] == "pusher:connection_established"
        assert (await receive(second))["data"]["code"] == 4100
