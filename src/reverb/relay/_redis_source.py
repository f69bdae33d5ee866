"""A stream of Redis or Valkey as the source of a publisher.

It needs the extra ``python-reverb[relay-redis]``, and imports redis-py when it opens the stream.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._settings import SecretStr
from .._visible import quoted
from ..exceptions import ConfigurationError
from ._log import EngineError, is_closed_transport
from ._publisher import Item, address_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["RedisSource"]

_BLOCK = 1000
"""Milliseconds that a read waits for an entry."""
_TIMEOUT = 5.0
"""Seconds to wait for the connection, and for each answer."""
_GONE = "it was deleted from the stream before it could be published; was the stream trimmed?"


class RedisSource:
    """Reads the entries of a Redis or Valkey stream in a consumer group.

    An entry has the fields ``channel``, ``event`` and ``data``, and may have ``socket_id``. Other fields are
    ignored.

    Args:
        url: The URL of the engine: ``redis://host:6379/0``, or ``rediss://`` with TLS.
        group: The name of the consumer group. Processes of the same group share the entries.
        stream: The name of the stream.
        dead_letter: The name of the stream for entries that can't be published. Default: ``{stream}:dead``.
        consumer: The name of this process in the group. Each process needs its own name. A process that starts
            again with the same name first publishes the entries that it had not acknowledged, in their order.
            Default: the machine's host name.
        claim_after: Seconds after which another process of the group publishes an entry that is not acknowledged.

    Raises:
        ConfigurationError: The URL is not valid.
    """

    def __init__(
        self,
        url: str,
        *,
        group: str,
        stream: str = "reverb:publish",
        dead_letter: str | None = None,
        consumer: str | None = None,
        claim_after: float = 30.0,
    ) -> None:
        self.address, self._stream = "", stream  # repr() needs them if the next lines raise
        self._url = SecretStr(url)
        url = ""  # error reporters send variables of frames
        self.address = address_of(self._url, "redis", "rediss")
        self.claim_after = claim_after
        self._group = group
        self._dead_letter = dead_letter or f"{stream}:dead"
        self._consumer = consumer or socket.gethostname()
        self._redis: Redis | None = None
        self._has_own = True
        """Whether the engine may have given us entries that we did not receive or no longer have."""
        self._claim_at = 0.0

    def __repr__(self) -> str:
        return f"<RedisSource {self.address} {self._stream}>"

    async def open(self) -> None:
        if self._redis is None:
            self._redis = _connect(self._url, self.address)
        self._has_own = True
        with self._explained():
            for key in (self._stream, self._dead_letter):
                kind: Any = await self._redis.type(key)
                if kind not in (b"none", b"stream"):
                    raise ConfigurationError(
                        f"the key {key!r} at {self.address} is a {kind.decode()} and no stream: name another one"
                    )
            try:
                await self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
            except Exception as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def close(self) -> None:
        if self._redis is not None:
            redis, self._redis = self._redis, None
            await redis.aclose()

    async def read(self, most: int) -> list[Item]:
        with self._explained():
            if self._has_own:
                items = await self._read_group("0", most, None)
                if items:
                    return items
                self._has_own = False
            if monotonic() >= self._claim_at:
                items = await self._claim(most)
                if items:
                    return items
                self._claim_at = monotonic() + self.claim_after / 2
            return await self._read_group(">", most, _BLOCK)

    async def hold(self, items: Sequence[Item]) -> None:
        with self._explained():
            await self._open_redis.xclaim(
                self._stream, self._group, self._consumer, 0, [item.id for item in items], justid=True
            )

    async def acknowledge(self, items: Sequence[Item]) -> None:
        with self._explained():
            await self._open_redis.xack(self._stream, self._group, *(item.id for item in items))

    async def bury(self, item: Item, reason: str) -> None:
        fields: dict[Any, Any] = {
            **item.handle,
            b"reason": reason,
            b"original_id": item.id,
            b"stream": self._stream,
        }
        with self._explained():
            async with self._open_redis.pipeline(transaction=True) as transaction:
                transaction.xadd(self._dead_letter, fields)
                transaction.xack(self._stream, self._group, item.id)
                await transaction.execute()

    async def lag(self) -> int | None:
        with self._explained():
            groups = await self._open_redis.xinfo_groups(self._stream)
        for each in groups:
            if each["name"] == self._group.encode() and each.get("lag") is not None:
                return int(each["lag"]) + int(each["pending"])
        return None

    # --- parts -------------------------------------------------------------------------------------------------

    @property
    def _open_redis(self) -> Redis:
        assert self._redis is not None
        return self._redis

    async def _read_group(self, begin: str, most: int, block: int | None) -> list[Item]:
        found: Any = await self._open_redis.xreadgroup(
            self._group, self._consumer, {self._stream: begin}, count=most, block=block
        )
        # Versions of redis-py differ: it is a list of pairs or a dict.
        return [_item(id_, fields) for _, entries in dict(found).items() for id_, fields in entries]

    async def _claim(self, most: int) -> list[Item]:
        """Claim entries that other consumers have left, or that a lost answer had given to us."""
        begin: Any = "0-0"
        while True:
            answer: Any = await self._open_redis.xautoclaim(
                self._stream, self._group, self._consumer, int(self.claim_after * 1000), begin, count=most
            )
            begin, entries, *gone = answer
            items = [_item(id_, fields) for id_, fields in entries if id_ is not None]
            items += [_item(id_, None) for ids in gone for id_ in ids]  # from Redis 7.0 on
            if items or begin == b"0-0":
                return items

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn exceptions of the library into our own."""
        from redis import exceptions

        try:
            yield
        except (
            exceptions.AuthenticationError,
            exceptions.AuthorizationError,
            exceptions.NoPermissionError,
        ) as error:
            raise ConfigurationError(
                f"{self.address} refuses the client: {error}; check user and password, and the user's rights"
            ) from None
        except exceptions.ResponseError as error:
            advice = _advice(str(error))
            if advice is None:
                raise EngineError(f"{self.address} answered: {error}") from None
            raise ConfigurationError(f"{self.address} answered: {error}; {advice}") from None
        except (exceptions.RedisError, OSError) as error:
            raise EngineError(f"can't reach {self.address}: {error}") from None
        except (AttributeError, RuntimeError) as error:
            if not is_closed_transport(error):
                raise
            raise EngineError(f"can't reach {self.address}: the connection was closed") from None


def _connect(url: SecretStr, address: str) -> Redis:
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f'{address} needs {error.name}. Install it: pip install "python-reverb[relay-redis]"'
        ) from None
    try:
        return Redis.from_url(
            url.get_secret_value(),
            protocol=2,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            # No retry in the library: a lost answer may have given us entries, and we have to notice that.
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        raise ConfigurationError(f"{address} is not a Redis URL, such as redis://localhost:6379/0") from None


def _advice(said: str) -> str | None:
    """Return what to do about an error that another attempt doesn't solve; None for other errors."""
    if said.startswith("unknown command"):
        return "use Redis 6.2 or later, or any Valkey"
    if said.startswith("MOVED"):
        return "a cluster is not supported; use a server that has all keys"
    if said.startswith(("WRONGTYPE", "DB index", "invalid DB index")):
        return "check the name of the stream, and the number of the database in the URL"
    return None


def _item(id_: bytes, fields: Mapping[bytes, bytes] | None) -> Item:
    if not fields:
        return Item(id_.decode(), flaw=_GONE, handle={})
    return Item(
        id_.decode(),
        channel=_text(fields.get(b"channel")),
        event=_text(fields.get(b"event")),
        data=fields.get(b"data"),
        socket_id=_text(fields.get(b"socket_id")) or None,
        flaw=next(
            (
                f"its field {quoted(name.decode())} is not UTF-8"
                for name in (b"channel", b"event", b"socket_id")
                if _text(fields.get(name, b"")) is None
            ),
            None,
        ),
        handle=fields,
    )


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
