"""Entries in the logs of engines, as a relay writes them, and what becomes of them."""

from __future__ import annotations

import json
import time
import zlib
from typing import Any, Protocol

import nats
from nats.js.api import ConsumerInfo
from redis import Redis
from typing_extensions import Self

from reverb.relay._log import Entry
from reverb.relay._redis import RedisSink


class Feed(Protocol):
    """Writes one entry after another."""

    async def write(self, event: str, data: Any, *, channel: str = ..., again: bool = ...) -> None: ...

    async def unfinished(self, group: str) -> int:
        """How many entries a group has not acknowledged: new ones, and those that are at work."""
        ...

    async def waiting(self, group: str) -> int:
        """How many of them were not given to a reader."""
        ...

    async def close(self) -> None: ...


class RedisFeed:
    def __init__(self, url: str, partitions: int = 1) -> None:
        self._sink = RedisSink(url, relay="feed", lease=60, partitions=partitions)
        self._redis = Redis.from_url(url, decode_responses=True)
        self._streams = ["reverb"] if partitions == 1 else [f"reverb:{each}" for each in range(partitions)]
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
        return sum(each["pending"] + each["lag"] for each in self._groups(group))

    async def waiting(self, group: str) -> int:
        return sum(each["lag"] for each in self._groups(group))

    async def close(self) -> None:
        self._redis.close()
        await self._sink.close()

    def _groups(self, group: str) -> list[dict[str, Any]]:
        found: list[Any] = []
        for stream in self._streams:
            if self._redis.exists(stream):
                found += self._redis.xinfo_groups(stream)
        return [each for each in found if each["name"] == group]


class NatsFeed:
    def __init__(self, url: str, partitions: int = 1) -> None:
        self._url = url
        self._partitions = partitions
        self._epoch = time.time_ns()
        self._number = 0

    async def open(self) -> Self:
        self._client = await nats.connect(self._url)
        self._stream = self._client.jetstream()
        await self._stream.add_stream(name="reverb", subjects=["reverb.>"])
        return self

    async def write(self, event: str, data: Any, *, channel: str = "orders", again: bool = False) -> None:
        now = str(time.time_ns() // 1_000_000)
        self._number += 1
        headers = {"channel": channel, "event": event, "received_at": now, "sent_after": now}
        headers["Nats-Msg-Id"] = f"{self._epoch}-{self._number}"
        if again:
            headers["again"] = "1"
        part = f"{zlib.crc32(channel.encode()) % self._partitions}." if self._partitions > 1 else ""
        await self._stream.publish(f"reverb.{part}{channel}", json.dumps(data).encode(), headers=headers)

    async def unfinished(self, group: str) -> int:
        return sum((each.num_pending or 0) + (each.num_ack_pending or 0) for each in await self._consumers(group))

    async def waiting(self, group: str) -> int:
        return sum(each.num_pending or 0 for each in await self._consumers(group))

    async def close(self) -> None:
        await self._client.close()

    async def _consumers(self, group: str) -> list[ConsumerInfo]:
        """Those of the group: one, or one for each partition."""
        return [each for each in await self._stream.consumers_info("reverb") if each.name.startswith(group)]
