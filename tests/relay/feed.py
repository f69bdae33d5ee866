"""Entries in the logs of engines, as a relay writes them, and what becomes of them."""

from __future__ import annotations

import json
import time
from typing import Any

import nats
from nats.js.api import ConsumerInfo
from redis import Redis
from typing_extensions import Self

from reverb.relay._log import Entry, Sink
from reverb.relay._nats import NatsSink
from reverb.relay._redis import RedisSink


class Feed:
    """Writes one entry after another, and says what a group of readers has left."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._epoch = self._number = 0

    async def open(self) -> Self:
        await self._sink.open()
        grant = await self._sink.acquire()
        assert grant is not None
        self._epoch = grant.epoch
        return self

    async def write(self, event: str, data: Any, *, channel: str = "orders", again: bool = False) -> None:
        now = time.time_ns() // 1_000_000
        self._number += 1
        text = json.dumps(data).encode()
        entry = Entry(channel, event, text, None, now, now, self._epoch, self._number, again)
        await self._sink.append(self._epoch, [entry])

    async def unfinished(self, group: str) -> int:
        """How many entries a group has not acknowledged: new ones, and those that are at work."""
        raise NotImplementedError

    async def waiting(self, group: str) -> int:
        """How many of them were not given to a reader."""
        raise NotImplementedError

    async def close(self) -> None:
        await self._sink.close()


class RedisFeed(Feed):
    def __init__(self, url: str, partitions: int = 1) -> None:
        super().__init__(RedisSink(url, relay="feed", lease=60, partitions=partitions))
        self._redis = Redis.from_url(url, decode_responses=True)
        self._streams = ["reverb"] if partitions == 1 else [f"{{reverb}}:{each}" for each in range(partitions)]

    async def unfinished(self, group: str) -> int:
        return sum(each["pending"] + each["lag"] for each in self._groups(group))

    async def waiting(self, group: str) -> int:
        return sum(each["lag"] for each in self._groups(group))

    async def close(self) -> None:
        self._redis.close()
        await super().close()

    def _groups(self, group: str) -> list[dict[str, Any]]:
        found: list[Any] = []
        for stream in self._streams:
            if self._redis.exists(stream):
                found += self._redis.xinfo_groups(stream)
        return [each for each in found if each["name"] == group]


class NatsFeed(Feed):
    def __init__(self, url: str, partitions: int = 1) -> None:
        super().__init__(NatsSink(url, relay="feed", lease=60, partitions=partitions))
        self._url = url

    async def open(self) -> Self:
        self._client = await nats.connect(self._url)
        return await super().open()

    async def unfinished(self, group: str) -> int:
        return sum((each.num_pending or 0) + (each.num_ack_pending or 0) for each in await self._consumers(group))

    async def waiting(self, group: str) -> int:
        return sum(each.num_pending or 0 for each in await self._consumers(group))

    async def close(self) -> None:
        await self._client.close()
        await super().close()

    async def _consumers(self, group: str) -> list[ConsumerInfo]:
        """Those of the group: one, or one for each partition."""
        found = await self._client.jetstream().consumers_info("reverb")
        return [each for each in found if each.name.startswith(group)]
