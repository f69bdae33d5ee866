"""The log as a stream of Redis or Valkey.

The hash ``{NAME}:state`` decides who may write: each script that writes checks the ``fence`` in it, which the
latest :meth:`RedisSink.acquire` has set. ``{NAME}:lease`` says until when no other relay may take over.
``{NAME}:ready`` has the relays that are ready to take over.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import ssl
from collections.abc import Coroutine, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit
from zlib import crc32

import msgspec
from redis import exceptions
from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .._tasks import spawn
from ..exceptions import ConfigurationError, plural
from ._log import EngineError, Entry, Grant, LeaseLostError, LeaseStatus, is_closed_transport

__all__ = ["RedisSink"]

log = logging.getLogger("reverb.relay")

_OLDEST = (6, 2)
"""The first version of Redis that has ``XADD MINID`` and exclusive ranges."""
_PAGE = 500
"""The number of entries that are read at once."""
_NEVER = ("unknown command", "DB index is out of range")
"""The beginnings of errors that another attempt does not solve, because the server lacks a feature."""
_UNREADABLE = (
    "must be redis://USER:PASSWORD@HOST:PORT/DATABASE, with / # ? @ in a password written as %2F %23 %3F %40"
)

T = TypeVar("T")


class _Script:
    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# KEYS of all scripts: the lease, the state, the relays that are ready, and the streams.
# string.format('%.0f') writes Lua numbers that are larger than 2^31, because other ways may round them.

_NOW = """
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

_LEASE_STATUS = (
    _NOW
    + """
-- The state itself is left out for those who know it.
local function lease_status(clock, relay, known)
    redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', clock)
    local others = redis.call('ZCARD', KEYS[3])
    if redis.call('ZSCORE', KEYS[3], relay) then others = others - 1 end
    local stored = redis.call('HMGET', KEYS[2], 'watermark', 'digest')
    local state = false
    if stored[2] and stored[2] ~= known then state = redis.call('HGET', KEYS[2], 'state') end
    return {clock, redis.call('GET', KEYS[1]), stored[1], stored[2], state, others}
end
"""
)

_STORE = """
-- Whether the fence is the latest, and all that was said to be in the log is in it.
local function is_whole(fence, written)
    local own = redis.call('HMGET', KEYS[2], 'fence', 'number')
    return own[1] == fence and tonumber(own[2]) >= tonumber(written)
end

-- A request that comes late, after one that was made later, stores nothing.
local function store(turn, watermark, digest, is_new, state)
    if tonumber(turn) <= tonumber(redis.call('HGET', KEYS[2], 'turn')) then return end
    redis.call('HSET', KEYS[2], 'turn', turn, 'digest', digest)
    if watermark ~= '' then redis.call('HSET', KEYS[2], 'watermark', watermark) end
    if is_new == '1' then redis.call('HSET', KEYS[2], 'state', state) end
end

local function lacks(digest, is_new)
    return is_new == '0' and redis.call('HGET', KEYS[2], 'digest') ~= digest
end
"""

_CHECK_LEASE = _Script(
    _LEASE_STATUS
    + """
local relay, lease, is_ready, known = unpack(ARGV)
local clock = now()
if is_ready == '1' then
    redis.call('ZADD', KEYS[3], clock + lease, relay)
    redis.call('PEXPIRE', KEYS[3], lease)
else
    redis.call('ZREM', KEYS[3], relay)
end
return lease_status(clock, relay, known)
"""
)

_ACQUIRE = _Script(
    _LEASE_STATUS
    + """
local relay, lease, token, known = unpack(ARGV)
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= relay then return false end
local clock = now()
-- An epoch is the time of its beginning, so that it is new even if the server has lost its data.
local epoch = math.max(clock, (tonumber(redis.call('HGET', KEYS[2], 'epoch')) or 0) + 1)
local text = string.format('%.0f', epoch)
redis.call('SET', KEYS[1], relay, 'PX', lease)
redis.call('HSET', KEYS[2], 'epoch', text, 'fence', text .. '-' .. token, 'number', 0, 'turn', 0)
return {epoch, lease_status(clock, relay, known)}
"""
)

_RENEW = _Script(
    _LEASE_STATUS
    + _STORE
    + """
local relay, lease, fence, written, turn, watermark, digest, is_new, state = unpack(ARGV)
if not is_whole(fence, written) then return false end
if lacks(digest, is_new) then return 0 end
redis.call('SET', KEYS[1], relay, 'PX', lease)
store(turn, watermark, digest, is_new, state)
return lease_status(now(), relay, digest)
"""
)

_RELEASE = _Script(
    _STORE
    + """
local fence, written, turn, watermark, digest, is_new, state = unpack(ARGV)
if not is_whole(fence, written) then return false end
if lacks(digest, is_new) then return 0 end
store(turn, watermark, digest, is_new, state)
redis.call('HDEL', KEYS[2], 'fence')
redis.call('DEL', KEYS[1])
return 1
"""
)

_APPEND = _Script(
    _NOW
    + """
local fence, first, packed, places, maxlen, max_age = unpack(ARGV)
first = tonumber(first)
local own = redis.call('HMGET', KEYS[2], 'fence', 'number')
if own[1] ~= fence then return 0 end
local last = tonumber(own[2])
if first > last + 1 then return -1 end
local entries = cmsgpack.unpack(packed)
local streams = places ~= '' and cmsgpack.unpack(places)
local failure
for i = last - first + 2, #entries do
    local added = redis.pcall('XADD', KEYS[streams and streams[i] or 4], '*', unpack(entries[i]))
    if type(added) == 'table' and added.err then
        failure = added
        break
    end
    last = first + i - 1
end
if last > tonumber(own[2]) then redis.call('HSET', KEYS[2], 'number', string.format('%.0f', last)) end
if failure then return failure end
if maxlen ~= '' or max_age ~= '' then
    local oldest = max_age ~= '' and string.format('%.0f', now() - max_age)
    for k = 4, #KEYS do
        if maxlen ~= '' then redis.call('XTRIM', KEYS[k], 'MAXLEN', '~', maxlen) end
        if oldest then redis.call('XTRIM', KEYS[k], 'MINID', '~', oldest) end
    end
end
return 1
"""
)

# An answer of two texts, however many entries: the library takes 10 us for each text in an answer. For each entry
# there are the lengths of its id, and of the names and values of its fields.
_READ = _Script(
    """
local lengths, texts = {}, {}
for i, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do
    local id, fields = entry[1], entry[2]
    local own = {#id}
    texts[#texts + 1] = id
    for j, text in ipairs(fields) do
        own[j + 1] = #text
        texts[#texts + 1] = text
    end
    lengths[i] = own
end
return {cmsgpack.pack(lengths), table.concat(texts)}
"""
)


class _Own(NamedTuple):
    """The grant of this relay."""

    epoch: int
    fence: str


class RedisSink:
    """Keeps the log in Redis 6.2 or later, or in Valkey; see :class:`~reverb.relay._log.Sink`.

    ``lease`` and ``max_age`` are in seconds. ``partitions`` is the number of streams; each channel is in one of
    them.
    """

    def __init__(
        self,
        url: str,
        *,
        relay: str,
        stream: str = "reverb",
        lease: float = 5.0,
        partitions: int = 1,
        maxlen: int | None = None,
        max_age: float | None = None,
    ) -> None:
        if not stream or "{" in stream or "}" in stream:
            url = ""  # error reporters send variables of frames
            raise ConfigurationError("the stream of a relay needs a name without { and }")
        parsed = _parse(url)
        url = ""  # error reporters send variables of frames
        if isinstance(parsed, str):
            raise ConfigurationError(f"the URL of the relay's engine {parsed}")
        self.address, options = parsed
        self._relay = relay
        self._lease = str(max(1, round(lease * 1000)))
        self._patience = lease / 2
        self._streams = [f"{{{stream}}}:{each}" for each in range(partitions)] if partitions > 1 else [stream]
        self._own_keys = [f"{{{stream}}}:{each}" for each in ("lease", "state", "ready")]
        self._limits = ("" if maxlen is None else maxlen, "" if max_age is None else round(max_age * 1000))
        pool = ConnectionPool(
            **options,
            protocol=2,
            socket_timeout=None,  # _wait() limits the time of each request
            socket_connect_timeout=self._patience,
            retry=Retry(NoBackoff(), 0),
        )
        self._client: Any = Redis(connection_pool=pool)
        self._own: _Own | None = None
        self._written = 0
        """The number of the last entry of this epoch that the engine has confirmed."""
        self._turns = count(1)
        self._state = b""
        """The state that is stored with the watermark, as far as this relay knows."""
        self._digest = _digest(b"")
        self._requests: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        facts = await self._wait(self._examine())
        if (version := _version(facts)) and version < _OLDEST:
            found = ".".join(map(str, version))
            raise ConfigurationError(f"{self.address} is Redis {found}; a relay needs 6.2 or later")
        if facts.get("maxmemory", 0) and facts.get("maxmemory_policy") != "noeviction":
            log.warning(
                "events may get lost: %s may delete the log when its memory is full, because its maxmemory-policy "
                "is %s; set it to noeviction",
                self.address,
                facts.get("maxmemory_policy"),
            )
        if facts.get("aof_enabled") == 0:
            log.warning(
                "events may get lost: %s loses the latest entries of the log when it restarts; "
                "turn its append-only file on (appendonly yes)",
                self.address,
            )

    async def close(self) -> None:
        for request in self._requests:
            request.cancel()
        closing = spawn(self._client.connection_pool.disconnect())
        self._requests.add(closing)
        closing.add_done_callback(self._ended)
        await asyncio.wait(self._requests, timeout=self._patience)
        closing.cancel()

    async def check_lease(self, *, is_ready: bool) -> LeaseStatus:
        answer = await self._evaluate(_CHECK_LEASE, self._relay, self._lease, int(is_ready), self._digest)
        return self._seen(answer)

    async def acquire(self) -> Grant | None:
        token = secrets.token_hex(8)
        answer = await self._evaluate(_ACQUIRE, self._relay, self._lease, token, self._digest)
        if answer is None:
            return None
        epoch, lease_status = answer
        self._own, self._written = _Own(epoch, f"{epoch}-{token}"), 0
        return Grant(epoch, self._seen(lease_status))

    async def renew(self, epoch: int, watermark: int | None, state: bytes) -> LeaseStatus:
        answer = await self._store(_RENEW, (self._relay, self._lease, self._fence(epoch)), watermark, state)
        if answer is None:
            raise self._lease_lost()
        return self._seen(answer)

    async def release(self, epoch: int, watermark: int | None, state: bytes) -> None:
        if self._own is None or self._own.epoch != epoch:
            return
        await self._store(_RELEASE, (self._own.fence,), watermark, state)
        self._own = None

    async def tail(self, since: int) -> list[Entry]:
        entries = []
        for stream in self._streams:
            start = str(max(0, since))
            while start:
                page = _page(await self._wait(self._run(_READ, (stream,), (start, _PAGE))))
                for _, *fields in page:
                    if (entry := _entry(fields)) is not None:
                        entries.append(entry)
                start = f"({page[-1][0].decode()}" if len(page) == _PAGE else ""
        if len(self._streams) > 1:
            entries.sort(key=lambda entry: (entry.epoch, entry.number))
        return entries

    async def append(self, epoch: int, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        places: bytes | str = ""
        if (partitions := len(self._streams)) > 1:
            places = msgspec.msgpack.encode(
                [crc32(entry.channel.encode()) % partitions + 4 for entry in entries]  # from KEYS[4] on
            )
        answer = await self._evaluate(
            _APPEND,
            self._fence(epoch),
            entries[0].number,
            msgspec.msgpack.encode([_fields(entry) for entry in entries]),
            places,
            *self._limits,
        )
        if answer == 0:
            raise self._lease_lost()
        if answer < 0:
            raise LeaseLostError(f"{self.address} has lost entries of the log that it had taken")
        self._written = max(self._written, entries[-1].number)

    def _fence(self, epoch: int) -> str:
        if self._own is None or self._own.epoch != epoch:
            raise self._lease_lost()
        return self._own.fence

    def _lease_lost(self) -> LeaseLostError:
        return LeaseLostError(f"another relay has the lease of {self.address}, or the engine has lost entries")

    def _seen(self, answer: Any) -> LeaseStatus:
        clock, holder, watermark, digest, state, others = answer
        if digest is None:
            self._remember(b"")
        elif state is not None:
            self._remember(state)
        return LeaseStatus(
            clock=clock,
            holder=None if holder is None else holder.decode(),
            watermark=None if watermark is None else int(watermark),
            state=self._state,
            others=others,
        )

    def _remember(self, state: bytes) -> None:
        if state != self._state:
            self._state, self._digest = state, _digest(state)

    async def _store(self, script: _Script, args: tuple[str, ...], watermark: int | None, state: bytes) -> Any:
        """Run a script that stores a state. Send the state only if the engine doesn't have it."""
        args = (*args, str(self._written), str(next(self._turns)), "" if watermark is None else str(watermark))
        answer: Any = 0
        if state == self._state:
            answer = await self._evaluate(script, *args, self._digest, 0, b"")
        if answer == 0:
            digest = _digest(state)
            answer = await self._evaluate(script, *args, digest, 1, state)
            if answer is not None:
                self._state, self._digest = state, digest
        return answer

    async def _evaluate(self, script: _Script, *args: str | int | bytes) -> Any:
        return await self._wait(self._run(script, (*self._own_keys, *self._streams), args))

    async def _run(self, script: _Script, keys: tuple[str, ...], args: tuple[str | int | bytes, ...]) -> Any:
        try:
            return await self._client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
        except exceptions.NoScriptError:
            return await self._client.execute_command("EVAL", script.text, len(keys), *keys, *args)

    async def _examine(self) -> dict[str, Any]:
        """Check the types of the keys, and return the server's ``INFO`` if the user may read it."""
        wanted = zip(self._own_keys, (b"string", b"hash", b"zset"), strict=True)
        for key, kind in (*wanted, *((stream, b"stream") for stream in self._streams)):
            if (found := await self._client.execute_command("TYPE", key)) not in (b"none", kind):
                raise exceptions.ResponseError(f"WRONGTYPE {key} is a {found.decode()}")
        try:
            facts: dict[str, Any] = await self._client.execute_command("INFO")
        except exceptions.NoPermissionError:
            return {}
        return facts

    async def _wait(self, request: Coroutine[Any, Any, T]) -> T:
        """Make a request in a task of its own.

        If it is cancelled, the library closes its connection, so that no half-read connection is left."""
        task = spawn(request)
        self._requests.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait({task}, timeout=self._patience)
        finally:
            task.cancel()
        if not task.done():
            raise EngineError(f"{self.address} did not answer within {plural(self._patience, 'second')}")
        if task.cancelled():
            raise EngineError(f"the connection to {self.address} was closed")
        if (error := task.exception()) is None:
            return task.result()
        raise self._failed(error)

    def _ended(self, request: asyncio.Task[Any]) -> None:
        self._requests.discard(request)
        if not request.cancelled():
            request.exception()  # marks it as seen, because the caller may have ended

    def _failed(self, error: BaseException) -> BaseException:
        """Turn an error of the library into our own, without the original: its frames have the password."""
        text = str(error)
        if isinstance(error, exceptions.AuthenticationError | exceptions.AuthenticationWrongNumberOfArgsError):
            return ConfigurationError(
                f"{self.address} refuses the user or the password of the relay's URL: {text}"
            )
        if isinstance(error, exceptions.NoPermissionError):
            return ConfigurationError(
                f"the relay's user has too few rights on {self.address}; "
                f"allow it +@all on the keys of the stream: {text}"
            )
        if isinstance(error.__context__, ssl.SSLCertVerificationError):
            return ConfigurationError(f"the certificate of {self.address} is not valid: {text}")
        if isinstance(error, exceptions.ResponseError) and text.startswith("WRONGTYPE"):
            return ConfigurationError(
                f"a key of the stream is in use for something else on {self.address}; "
                f"choose another name or database: {text}"
            )
        # Before version 6, the library has no classes of their own for these answers.
        if isinstance(error, exceptions.MovedError | exceptions.ClusterCrossSlotError) or (
            isinstance(error, exceptions.ResponseError) and text.startswith(("MOVED", "CROSSSLOT"))
        ):
            return ConfigurationError(
                f"{self.address} belongs to a cluster, which a relay can't use; name a server without a cluster"
            )
        if isinstance(error, exceptions.ResponseError) and text.startswith(_NEVER):
            return ConfigurationError(f"{self.address} can't keep the log of a relay: {text}")
        if isinstance(error, exceptions.RedisError | OSError):
            return EngineError(f"{self.address} failed: {text}")
        if is_closed_transport(error):
            return EngineError(f"the connection to {self.address} was closed")
        return error


def _parse(url: str) -> str | tuple[str, dict[str, Any]]:
    """Return the engine's address and the options for the library; or a text that says what is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        return _UNREADABLE
    database = parts.path.strip("/") or "0"
    if parts.scheme not in ("redis", "rediss"):
        return "must begin with redis:// or rediss://"
    # If a password has a / or # that is not escaped, a part of it is here: don't show it.
    if not parts.hostname or not database.isdecimal() or parts.query or parts.fragment:
        return _UNREADABLE
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    options: dict[str, Any] = {
        "connection_class": SSLConnection if parts.scheme == "rediss" else Connection,
        "host": parts.hostname,
        "port": port,
        "db": int(database),
    }
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    return f"{parts.scheme}://{host}:{port}/{database}", options


def _fields(entry: Entry) -> list[str | msgspec.Raw]:
    """Return the names and values of an entry's fields; :func:`_entry` reads them."""
    fields: list[str | msgspec.Raw] = [
        "channel",
        entry.channel,
        "event",
        entry.event,
        "data",
        msgspec.Raw(b"\xdb" + len(entry.data).to_bytes(4, "big") + entry.data),  # Lua's reader knows text only
        "received_at",
        str(entry.received_at),
        "sent_after",
        str(entry.sent_after),
        "writer",
        f"{entry.epoch}-{entry.number}",
    ]
    if entry.user_id is not None:
        fields += ("user_id", entry.user_id)
    if entry.again:
        fields += ("again", "1")
    return fields


def _digest(state: bytes) -> bytes:
    return hashlib.blake2b(state, digest_size=16).hexdigest().encode()


def _version(facts: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in str(facts.get("redis_version", "")).split(".")[:2] if part.isdecimal())


def _page(answer: list[bytes]) -> list[list[bytes]]:
    """Split an answer: for each entry its id, and the names and values of its fields."""
    lengths, text = answer
    page = []
    end = 0
    for own in msgspec.msgpack.decode(lengths, type=list[list[int]]):
        page.append([text[end : (end := end + length)] for length in own])
    return page


def _entry(fields: list[bytes]) -> Entry | None:
    """Read an entry; None if it is not one of a relay."""
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        epoch, _, number = found[b"writer"].partition(b"-")
        user_id = found.get(b"user_id")
        return Entry(
            channel=found[b"channel"].decode(),
            event=found[b"event"].decode(),
            data=found[b"data"],
            user_id=None if user_id is None else user_id.decode(),
            received_at=int(found[b"received_at"]),
            sent_after=int(found[b"sent_after"]),
            epoch=int(epoch),
            number=int(number),
            again=found.get(b"again") == b"1",
        )
    except (KeyError, ValueError):
        return None
