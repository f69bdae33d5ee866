"""A client behind a fault proxy, and somebody who knows what was published to it without taking that way."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp

from reverb import Channel, ConnectionState, Events, PresenceChannel, ReverbClient
from reverb.auth import sign_request
from tests.integration.servers import PublishError, Target
from tests.watching import client_tasks, open_descriptors, until

from .proxy import FaultProxy

NUMBERED = "numbered"
BATCH = 10
"""Events in one request of the HTTP API: more than that, some servers refuse."""
US = {"user_id": "us", "user_info": {"name": "us"}}

SETTINGS: dict[str, Any] = {
    "reconnect_delay_min": 0.01,
    "reconnect_delay_max": 0.05,
    "connect_timeout": 0.3,
    "subscribe_timeout": 5.0,
    "ping_interval": 0.15,
    "pong_timeout": 0.15,
}
"""Patience for tests. A loss that only silence tells of is noticed within 0.3 seconds."""


def unique(prefix: str) -> str:
    """A channel of this test's own: servers may live longer than a test."""
    return f"{prefix}{uuid.uuid4().hex[:12]}"


class Publisher:
    """Publishes numbered events over the HTTP API, straight to the server."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.sent: dict[str, int] = defaultdict(int)
        """The number of the last event, by channel; they count from 1."""

    async def __aenter__(self) -> Publisher:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def publish(self, *channels: str) -> None:
        """Publish the next number to each of ``channels``."""
        events = []
        for channel in channels:
            self.sent[channel] += 1
            data = json.dumps({"n": self.sent[channel]})
            events.append({"name": NUMBERED, "channel": channel, "data": data})
        for start in range(0, len(events), BATCH):
            await self._post(events[start : start + BATCH])

    async def _post(self, events: Sequence[dict[str, str]]) -> None:
        body = json.dumps({"batch": events}).encode()
        target, path = self.target, f"/apps/{self.target.app_id}/batch_events"
        query = sign_request(target.key, target.secret, "POST", path, {}, body, int(time.time()))
        headers = {"Content-Type": "application/json"}
        async with self._session.post(
            target.http_url + path, params=query, data=body, headers=headers
        ) as response:
            answer = await response.text()
        if response.status != 200:
            raise PublishError(f"{target.name} answered {response.status}: {answer}")


class Numbers:
    """A handler that keeps the numbers it gets, by channel."""

    def __init__(self) -> None:
        self.got: dict[str, list[int]] = defaultdict(list)

    def __call__(self, event: str, data: Any, channel: str | None) -> None:
        assert channel is not None
        self.got[channel].append(data["n"])

    def last(self, channel: str) -> int:
        return self.got[channel][-1] if self.got[channel] else 0

    def check(self, max_gaps: int) -> None:
        """Nothing twice, nothing out of order, and nothing missing but what a loss of the connection explains."""
        for channel, numbers in self.got.items():
            steps = [after - before for before, after in pairwise(numbers)]
            assert all(step > 0 for step in steps), f"twice or out of order on {channel}: {numbers}"
            gaps = sum(step > 1 for step in steps)
            assert gaps <= max_gaps, f"{gaps} gaps on {channel} after {max_gaps} reconnects: {numbers}"


class Scene:
    """The client under test with everything around it."""

    def __init__(self, target: Target, proxy: FaultProxy, publisher: Publisher, client: ReverbClient) -> None:
        self.target = target
        self.proxy = proxy
        self.publisher = publisher
        self.client = client
        self.names = (unique("news-"), unique("private-orders-"), unique("presence-room-"))
        self.numbers = Numbers()
        self.reconnects: list[dict[str, Any]] = []
        """The data of each ``RECONNECTED``."""
        self.states: list[ConnectionState] = []
        client.bind(Events.RECONNECTED, lambda event, data, channel: self.reconnects.append(data))
        client.bind(Events.STATE_CHANGE, lambda event, data, channel: self.states.append(data["current"]))
        client.bind(NUMBERED, self.numbers)

    async def subscribe(self, names: Iterable[str] | None = None) -> list[Channel]:
        names = self.names if names is None else names
        return await asyncio.gather(
            *(self.client.subscribe(name, US if name.startswith("presence") else None) for name in names)
        )

    async def wait_reconnected(self, count: int = 1, deadline: float = 5.0) -> None:
        await until(lambda: len(self.reconnects) >= count, deadline)

    async def check_alive(self) -> None:
        """All channels are subscribed, at the server too: what is published now arrives, once."""
        await self.client.wait_connected(5)
        await until(lambda: all(channel.is_subscribed for channel in self.client.channels.values()))
        assert set(self.client.channels) == set(self.names)
        assert self.client.state is ConnectionState.CONNECTED
        await self.publisher.publish(*self.names)
        sent = self.publisher.sent
        await until(lambda: all(self.numbers.last(name) == sent[name] for name in self.names))
        room = self.client.channels[self.names[2]]
        assert isinstance(room, PresenceChannel)
        assert US["user_id"] in room.members
        self.numbers.check(max_gaps=len(self.reconnects))


@asynccontextmanager
async def scene(target: Target, **options: Any) -> AsyncIterator[Scene]:
    """A scene before anything is connected. At its end the client is disconnected, with nothing of it left."""
    gc.collect()
    before = open_descriptors()
    async with FaultProxy(target.host, target.port) as proxy, Publisher(target) as publisher:
        settings = {**target.settings, "host": proxy.host, "port": proxy.port, **SETTINGS, **options}
        it = Scene(target, proxy, publisher, ReverbClient(**settings))
        try:
            yield it
        finally:
            await proxy.heal()
            await it.client.disconnect()
        assert client_tasks() == set()
        assert it.client.state in (ConnectionState.DISCONNECTED, ConnectionState.FAILED)
    await until(lambda: open_descriptors() <= before)
