"""Entries in the logs of engines, as a relay writes them."""

from __future__ import annotations

import json
import time
import zlib
from typing import Any, Protocol

import nats
from nats.js.api import ConsumerInfo
from redis.asyncio import Redis


class Feed(Protocol):
    async def write(self, event: str, data: Any, *, channel: str = ..., again: bool = ...) -> None: ...

    async def unfinished(self, group: str) -> int:
        """How many entries a group has not acknowledged: new ones, and those that are at work."""
        ...

    async def waiting(self, group: str) -> int:
        """How many of them were not given to a reader."""
        ...

    async def close(self) -> None: ...


def fields_of(number: int, channel: str, event: str, again: bool) -> dict[str, str]:
    now = str(time.time_ns() // 1_000_000)
    fields = {"channel": channel, "event": event, "received_at": now, "sent_after": now, "writer": f"1-{number}"}
    return {**fields, "again": "1"} if again else fields


class RedisFeed:
    def __init__(self, url: str, partitions: int = 1) -> None:
        self.redis: Redis = Redis.from_url(url, decode_responses=True)
        self.streams = ["reverb"] if partitions == 1 else [f"reverb:{each}" for each in range(partitions)]
        self.number = 0

    async def write(self, event: str, data: Any, *, channel: str = "orders", again: bool = False) -> None:
        self.number += 1
        fields: dict[Any, Any] = {**fields_of(self.number, channel, event, again), "data": json.dumps(data)}
        await self.redis.xadd(self.streams[zlib.crc32(channel.encode()) % len(self.streams)], fields)

    async def unfinished(self, group: str) -> int:
        return sum(each["pending"] + each["lag"] for each in await self._groups(group))

    async def waiting(self, group: str) -> int:
        return sum(each["lag"] for each in await self._groups(group))

    async def _groups(self, group: str) -> list[dict[str, Any]]:
        streams = [stream for stream in self.streams if await self.redis.exists(stream)]
        found = [each for stream in streams for each in await self.redis.xinfo_groups(stream)]
        return [each for each in found if each["name"] == group]

    async def close(self) -> None:
        await self.redis.aclose()


class NatsFeed:
    def __init__(self, url: str, partitions: int = 1) -> None:
        self.url = url
        self.partitions = partitions
        self.number = 0

    async def open(self) -> NatsFeed:
        self.client = await nats.connect(self.url)
        self.stream = self.client.jetstream()
        await self.stream.add_stream(name="reverb", subjects=["reverb.>"])
        return self

    async def write(self, event: str, data: Any, *, channel: str = "orders", again: bool = False) -> None:
        self.number += 1
        headers = fields_of(self.number, channel, event, again)
        headers["Nats-Msg-Id"] = headers.pop("writer")
        part = f"{zlib.crc32(channel.encode()) % self.partitions}." if self.partitions > 1 else ""
        await self.stream.publish(f"reverb.{part}{channel}", json.dumps(data).encode(), headers=headers)

    async def unfinished(self, group: str) -> int:
        return sum((each.num_pending or 0) + (each.num_ack_pending or 0) for each in await self._consumers(group))

    async def waiting(self, group: str) -> int:
        return sum(each.num_pending or 0 for each in await self._consumers(group))

    async def _consumers(self, group: str) -> list[ConsumerInfo]:
        """Those of the group: one, or one for each partition."""
        return [each for each in await self.stream.consumers_info("reverb") if each.name.startswith(group)]

    async def close(self) -> None:
        await self.client.close()
