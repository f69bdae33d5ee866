"""Streams of the engines as a test sees them: what somebody writes to be published, and what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import redis

from reverb.relay import RedisSource, Source
from tests.relay.engines import Valkey


class Server(Protocol):
    """An engine, as a process of its own."""

    url: str

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Stream(Protocol):
    """A stream, its group ``g``, and its dead letters."""

    server: Server

    def source(self, **options: Any) -> Source: ...

    async def add(self, **fields: str | bytes) -> str:
        """Write an entry; return its id."""

    async def dead(self) -> list[dict[str, str]]:
        """Return the dead letters."""

    async def left(self) -> int:
        """Return how many entries are not acknowledged."""


class RedisStream:
    def __init__(self, directory: Path, *options: str) -> None:
        self.server = Valkey(directory, *options)

    def __enter__(self) -> RedisStream:
        self.server.__enter__()
        self.redis = redis.Redis.from_url(self.server.url)
        return self

    def __exit__(self, *error: object) -> None:
        self.redis.close()
        self.server.__exit__(*error)

    def source(self, **options: Any) -> RedisSource:
        return RedisSource(self.server.url, group="g", **options)

    async def add(self, **fields: str | bytes) -> str:
        entry: dict[Any, Any] = {**fields}
        id_: Any = self.redis.xadd("reverb:publish", entry)
        return str(id_.decode())

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
