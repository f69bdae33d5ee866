"""Streams of the engines as a test sees them: what somebody writes to be published, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import nats
import redis

from reverb.relay import NatsSource, RedisSource, Source
from tests.relay.engines import Valkey
from tests.relay.nats_server import Nats


class Server(Protocol):
    """An engine, as a process of its own."""

    @property
    def url(self) -> str: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Stream(Protocol):
    """A stream, its group ``g``, and its dead letters."""

    @property
    def server(self) -> Server: ...

    def source(self, **options: Any) -> Source: ...

    async def add(self, **fields: str | bytes) -> str:
        """Write an entry; return its id."""

    async def add_all(self, entries: Sequence[dict[str, str]]) -> None: ...

    async def dead(self) -> list[dict[str, str]]:
        """Return the dead letters."""

    async def left(self) -> int:
        """Return how many entries are not acknowledged."""


class RedisStream:
    def __init__(self, directory: Path, *options: str, password: str | None = None) -> None:
        self.server = Valkey(directory, *options)
        self._password = password

    def __enter__(self) -> RedisStream:
        self.server.start()
        self.redis = redis.Redis.from_url(self.server.url, password=self._password)
        return self

    def __exit__(self, *error: object) -> None:
        self.redis.close()
        self.server.kill()

    def source(self, **options: Any) -> RedisSource:
        return RedisSource(self.server.url, group="g", **options)

    async def add(self, **fields: str | bytes) -> str:
        entry: dict[Any, Any] = {**fields}
        id_: Any = self.redis.xadd("reverb:publish", entry)
        return str(id_.decode())

    async def add_all(self, entries: Sequence[dict[str, str]]) -> None:
        with self.redis.pipeline() as pipeline:
            for fields in entries:
                entry: dict[Any, Any] = {**fields}
                pipeline.xadd("reverb:publish", entry)
            pipeline.execute()

    async def dead(self) -> list[dict[str, str]]:
        entries: Any = self.redis.xrange("reverb:publish:dead")
        return [
            {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
            for _, fields in entries
        ]

    async def left(self) -> int:
        groups: Any = self.redis.xinfo_groups("reverb:publish")
        (group,) = groups
        return int(group["lag"]) + int(group["pending"])

    def is_done(self) -> bool:
        groups: Any = self.redis.xinfo_groups("reverb:publish")
        return all(group["lag"] == group["pending"] == 0 for group in groups)


class JetStream:
    def __init__(self, directory: Path) -> None:
        self.server = Nats(directory)

    def __enter__(self) -> JetStream:
        self.server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.kill()

    def source(self, *, consumer: str | None = None, **options: Any) -> NatsSource:
        """``consumer`` is for Redis: processes have no names here."""
        return NatsSource(self.server.url, group="g", **options)

    async def add(self, **fields: str) -> str:
        await self._make()
        async with await nats.connect(self.server.url) as client:
            return await self._publish(client, fields)

    async def add_all(self, entries: Sequence[dict[str, str]]) -> None:
        await self._make()
        async with await nats.connect(self.server.url) as client:
            for fields in entries:
                await self._publish(client, fields)

    async def _publish(self, client: Any, fields: dict[str, str]) -> str:
        headers = {name: value for name, value in fields.items() if name != "data"}
        sent = await client.jetstream().publish("reverb-publish.any", fields["data"].encode(), headers=headers)
        return str(sent.seq)

    async def dead(self) -> list[dict[str, str]]:
        found = []
        async with await nats.connect(self.server.url) as client:
            manager = client.jsm()
            count = (await manager.stream_info("reverb-publish-dead")).state.messages
            for number in range(1, count + 1):
                message = await manager.get_msg("reverb-publish-dead", number)
                found.append({**(message.headers or {}), "data": (message.data or b"").decode()})
        return found

    async def left(self) -> int:
        async with await nats.connect(self.server.url) as client:
            info = await client.jsm().consumer_info("reverb-publish", "g")
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def _make(self) -> None:
        """Make the streams and the consumer, which keeps to these settings from now on."""
        source = self.source(claim_after=1)
        await source.open()
        await source.close()
