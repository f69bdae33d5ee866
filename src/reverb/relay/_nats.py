"""The log in NATS JetStream.

The parts, with the default name ``reverb``:

- The stream ``reverb`` is the log. Entries have the subjects ``reverb.CHANNEL``. A relay that takes over writes a
  marker with the subject ``reverb-relay``, which consumers of ``reverb.>`` don't see.
- The key ``lease`` of the bucket ``reverb_relay`` has the lease, the watermark and the state.
- The bucket ``reverb_ready`` has a key for each relay that is ready. A key expires with the lease.

**The fence.** Entries are published in atomic batches: the stream accepts all messages of a batch, or none. A
batch names the sequence number that must be the stream's last one (``Nats-Expected-Last-Sequence``). The writer
knows this number from the answer to its previous batch. If it does not know it, it reads the stream's last
message, which must be of its own epoch. The marker of another writer has a sequence number, too. So the stream
refuses entries of an earlier epoch after it.

We don't use the id of the last message (``Nats-Expected-Last-Msg-Id``): with that, a refused message halts a
stream that has replicas ("critical write error", nats-server 2.15.1). We don't predict sequence numbers without a
batch either: after the stream has refused the first message, it may accept the next ones.

**Epochs only grow.** A relay that takes over first writes its name into the lease, if the lease has not changed
since it was read. Then it publishes its marker. Then it writes the lease again, which fails if another relay has
acquired it meanwhile. Only after that it writes entries. If a relay was paused before its marker, the marker may
make the present writer lose the lease, which it then acquires again. The paused relay itself writes nothing. An
epoch is also higher than the stream's last sequence number, so that no id is used twice, even if the lease is
deleted.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

import msgspec

try:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.errors import Error as NatsError
    from nats.errors import NoServersError
except ImportError as error:
    raise ImportError("the relay needs nats-py. Install it: pip install 'python-reverb[relay-nats]'") from error

from .._tasks import spawn
from .._visible import quoted, visible
from ..exceptions import ConfigurationError, ReverbError, again, plural
from ._log import EngineError, Entry, Grant, LeaseLostError, LeaseStatus

__all__ = ["NatsSink"]

log = logging.getLogger("reverb.relay")

T = TypeVar("T")

_OLDEST = (2, 12, 1)
"""The first version of nats-server that has atomic batches of messages with ids."""
_BATCH = 500
"""The number of messages in a batch. Servers accept up to 1,000."""
_ROOM = 4096
"""The largest size of a message without its payload, in bytes."""
_DUPLICATES = 120
"""Seconds for which the server remembers ids, to skip duplicates."""
_GOODBYE = 0.5
"""Seconds that closing may take. It hangs if TLS has failed."""
_LONGEST_SUBJECT = 1000
"""The number of characters of a channel's name in a subject. Servers accept commands of up to 4,096 bytes."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# Error codes of JetStream
_NO_SUCH_MESSAGE = 10037
_JETSTREAM_IS_OFF = (10039, 10076)
_NO_SUCH_STREAM = 10059
_OTHER_STREAM_OF_THAT_NAME = 10058
_SUBJECTS_OF_ANOTHER_STREAM = 10065
_MESSAGE_IS_TOO_LARGE = 10054
_OTHER_LAST_SEQUENCE = 10071
_DUPLICATES_IN_BATCH = 10201


class NatsSink:
    """Keeps the log in NATS JetStream; see :class:`~reverb.relay._log.Sink`.

    ``url`` is ``nats://host:4222`` or ``tls://host:4222``, with ``user:password@`` or ``token@`` before the host
    if the server needs a login. It may name several servers, separated by commas. ``relay`` is a name that no
    other process has. ``max_age`` is in seconds. ``max_age`` and ``maxlen`` are also set on a stream that exists
    already.
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
        servers = _servers(url)
        url = ""  # error reporters send variables of frames
        if isinstance(servers, str):
            raise ConfigurationError(servers)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", stream):
            raise ConfigurationError(
                f"{quoted(stream)} is not a valid stream name in NATS: use letters, digits, - and _ only."
            )
        self._servers = servers
        self.address = ",".join(str(server) for server in servers)
        self._relay = relay
        self._stream = stream
        self._marker = f"{stream}-relay"
        self._leases = f"KV_{stream}_relay"
        self._lease_key = f"$KV.{stream}_relay.lease"
        self._readies = f"KV_{stream}_ready"
        self._ready_key = f"$KV.{stream}_ready.{_token(relay)}"
        self._lease = lease
        self._milliseconds = int(lease * 1000)
        self._patience = lease / 2
        self._wanted: dict[str, Any] = {"allow_atomic": True}
        if maxlen is not None:
            self._wanted["max_msgs"] = maxlen
        if max_age is not None:
            self._wanted["max_age"] = _nanoseconds(max_age)
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._said_ready = False
        self._max_msg_size: float = inf
        """The stream's largest message in bytes, headers included."""
        self._end: _End | None = None
        """The end of the log, as far as this connection knows."""
        self._written = _End(0, 0, 0)
        """The last message that this relay wrote."""
        self._epoch = 0
        self._revision = 0
        """The revision of the lease that this relay wrote last."""

        @lru_cache(maxsize=4096)
        def subject_of(channel: str) -> str:
            if partitions == 1:
                return f"{stream}.{_token(channel, keep_dots=True)}"
            part = zlib.crc32(channel.encode("utf-8", "surrogatepass")) % partitions
            return f"{stream}.{part}.{_token(channel, keep_dots=True)}"

        self._subject_of: Callable[[str], str] = subject_of

    def __repr__(self) -> str:
        return f"<NatsSink {self.address} {self._stream}>"

    async def open(self) -> None:
        try:
            await self._in_time(self._connected())
        except _SilenceError:
            raise ConfigurationError(
                f"{self.address}: JetStream is not enabled. Start nats-server with -js, or put jetstream {{}} "
                "into its configuration."
            ) from None

    async def close(self) -> None:
        self._drop(self._link)
        if self._closing:
            _, stuck = await asyncio.wait(self._closing, timeout=_GOODBYE)
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)

    async def check_lease(self, *, is_ready: bool) -> LeaseStatus:
        return await self._in_time(self._look(is_ready))

    async def _look(self, is_ready: bool) -> LeaseStatus:
        link = await self._connected()
        if is_ready:
            self._said_ready = True
            await link.ask(_Ack, self._ready_key, self._relay.encode())
        elif self._said_ready:
            await link.ask(_Ack, f"$JS.API.STREAM.PURGE.{self._readies}", _json({"filter": self._ready_key}))
            self._said_ready = False
        return (await self._seen(link))[0]

    async def acquire(self) -> Grant | None:
        return await self._in_time(self._acquire())

    async def _acquire(self) -> Grant | None:
        link = await self._connected()
        last = (await link.ask(_Info, f"$JS.API.STREAM.INFO.{self._stream}")).state.last_seq
        lease_status, lease, revision = await self._seen(link)
        if lease_status.holder not in (None, self._relay):
            return None
        epoch = max(last, lease.epoch) + 1
        lease = _Lease(self._relay, epoch, self._milliseconds, lease.watermark, lease.state)
        claimed = await self._write_lease(link, lease, revision)
        if claimed is None:
            return None
        marker = await link.ask(
            _Ack, self._marker, b"", {"Nats-Msg-Id": f"{epoch}-0", "relay": _text(self._relay)}
        )
        confirmed = await self._write_lease(link, lease, claimed)
        if confirmed is None:
            return None
        self._epoch, self._revision = epoch, confirmed
        self._end = self._written = _End(epoch, 0, marker.seq)
        return Grant(epoch, msgspec.structs.replace(lease_status, holder=self._relay))

    async def renew(self, epoch: int, watermark: int | None, state: bytes) -> LeaseStatus:
        return await self._in_time(self._renew(epoch, watermark, state))

    async def _renew(self, epoch: int, watermark: int | None, state: bytes) -> LeaseStatus:
        if epoch != self._epoch:
            raise LeaseLostError(f"{self.address}: this relay no longer has epoch {epoch}.")
        link = await self._connected()
        if not await self._is_there(link):
            raise LeaseLostError(f"{self.address}: the log has lost entries of epoch {epoch}.")
        lease = _Lease(self._relay, epoch, self._milliseconds, watermark, state)
        written = await self._write_lease(link, lease, self._revision)
        lease_status, found, revision = await self._seen(link)
        if written is None and found.holder == self._relay and found.epoch == epoch:
            # An earlier call has written the lease, and its answer was lost.
            written = await self._write_lease(link, lease, revision)
            lease_status, found, revision = await self._seen(link)
        if written is None or revision != written:
            holder = "no relay" if lease_status.holder is None else quoted(lease_status.holder)
            raise LeaseLostError(f"{self.address}: this relay has lost the lease; {holder} has it now.")
        self._revision = revision
        return lease_status

    async def release(self, epoch: int, watermark: int | None, state: bytes) -> None:
        await self._in_time(self._release(epoch, watermark, state))

    async def _release(self, epoch: int, watermark: int | None, state: bytes) -> None:
        if epoch != self._epoch:
            return
        link = await self._connected()
        if not await self._is_there(link):
            return
        free = _Lease(None, epoch, self._milliseconds, watermark, state)
        if await self._write_lease(link, free, self._revision) is None:
            _, found, revision = await self._seen(link)
            if found.holder == self._relay and found.epoch == epoch:
                await self._write_lease(link, free, revision)

    async def append(self, epoch: int, entries: Sequence[Entry]) -> None:
        for start in range(0, len(entries), _BATCH):
            await self._in_time(self._append(epoch, entries[start : start + _BATCH]))

    async def _append(self, epoch: int, entries: Sequence[Entry]) -> None:
        link = await self._connected()
        most = int(min(link.max_payload, self._max_msg_size)) - _ROOM
        if any(len(entry.data) > most for entry in entries):
            entries = [
                self._without_payload(entry, most) if len(entry.data) > most else entry for entry in entries
            ]
        end, self._end = self._end, None
        if end is None or end.epoch != epoch or end.number + 1 != entries[0].number:
            end = await self._find_end(link, epoch)
        while True:
            if end.number + 1 < entries[0].number:
                raise LeaseLostError(f"{self.address}: the log has lost entries of epoch {epoch}.")
            entries = entries[end.number + 1 - entries[0].number :]
            if not entries:
                break
            try:
                ack = await self._publish(link, epoch, entries, end.sequence)
            except _RefusedError:
                before, end = end, await self._find_end(link, epoch)
                if end == before:
                    raise EngineError(
                        f"{self.address}: the log refuses entries, although no other relay writes."
                    ) from None
            else:
                end = _End(epoch, entries[-1].number, ack.seq)
                break
        self._end = self._written = end

    def _without_payload(self, entry: Entry, most: int) -> Entry:
        log.error(
            "an event of %s is lost, because it is too large for %s: it has %d bytes, and %d are allowed; the log "
            "gets a gap entry instead; raise max_payload of the server, and max_msg_size of the stream, if set",
            quoted(entry.channel),
            self.address,
            len(entry.data),
            most,
        )
        return entry.gap()

    async def _is_there(self, link: _Link) -> bool:
        """Return whether the log has this relay's last message, or has dropped it because of its limits."""
        written = self._written
        message = await self._message(link, self._stream, {"seq": written.sequence})
        if message is not None:
            return _id(message) == (written.epoch, written.number)
        return (await link.ask(_Info, f"$JS.API.STREAM.INFO.{self._stream}")).state.last_seq >= written.sequence

    async def _publish(self, link: _Link, epoch: int, entries: Sequence[Entry], last: int) -> _Ack:
        """Write a batch, if ``last`` is the stream's last sequence number."""
        batch = uuid4().hex
        for position, entry in enumerate(entries, start=1):
            headers = _headers(epoch, entry)
            if len(entries) > 1:  # a batch takes 15 ms on a server without replicas, and one message needs none
                headers["Nats-Batch-Id"] = batch
                headers["Nats-Batch-Sequence"] = str(position)
            if position == 1:
                headers["Nats-Expected-Last-Sequence"] = str(last)
            if position < len(entries):
                await link.tell(self._subject_of(entry.channel), entry.data, headers)
        if len(entries) > 1:
            headers["Nats-Batch-Commit"] = "1"
        return await link.ask(_Ack, self._subject_of(entry.channel), entry.data, headers)

    async def _find_end(self, link: _Link, epoch: int) -> _End:
        """Return the end of the log. Raise if it is not of this epoch."""
        sequence = (await link.ask(_Info, f"$JS.API.STREAM.INFO.{self._stream}")).state.last_seq
        message = await self._message(link, self._stream, {"seq": sequence})
        found = _id(message) if message is not None else None
        if found is None or found[0] != epoch:
            raise LeaseLostError(f"{self.address}: the log has another writer than epoch {epoch}.")
        return _End(*found, sequence)

    async def tail(self, since: int) -> list[Entry]:
        link = await self._in_time(self._connected())
        messages: asyncio.Queue[Msg] = asyncio.Queue()
        subscription = await self._in_time(link.listen(messages.put))
        try:
            return await self._tail(link, subscription.subject, messages, since)
        finally:
            await link.leave(subscription)

    async def _tail(self, link: _Link, inbox: str, messages: asyncio.Queue[Msg], since: int) -> list[Entry]:
        info = await self._in_time(link.ask(_Info, f"$JS.API.STREAM.INFO.{self._stream}"))
        last = await self._in_time(self._message(link, self._stream, {"seq": info.state.last_seq}))
        if last is None or _milliseconds(last.time) < since:
            return []
        consumer = {
            "deliver_subject": inbox,
            "deliver_policy": "by_start_time",
            "opt_start_time": (_EPOCH + timedelta(milliseconds=since)).isoformat(),
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _nanoseconds(self._lease),
        }
        request = _json({"stream_name": self._stream, "config": consumer})
        await self._in_time(link.ask(_Info, f"$JS.API.CONSUMER.CREATE.{self._stream}", request))
        entries = []
        # The replica that sends may lag behind the one that named the last message: read until that comes.
        while True:
            message = await self._in_time(messages.get())
            entry = _entry(message)
            if entry is not None:
                entries.append(entry)
            if message.metadata.sequence.stream >= info.state.last_seq:
                return entries

    async def _seen(self, link: _Link) -> tuple[LeaseStatus, _Lease, int]:
        """Return the status of the lease, its record, and the record's revision."""
        found = await self._message(link, self._leases, {"last_by_subj": self._lease_key})
        info = await link.ask(_Info, f"$JS.API.STREAM.INFO.{self._leases}")
        ready = await link.ask(_Info, f"$JS.API.STREAM.INFO.{self._readies}", b'{"subjects_filter": ">"}')
        clock = _milliseconds(info.ts)
        lease = msgspec.json.decode(found.data, type=_Lease) if found else _Lease(None, 0, 0, None, b"")
        ends = _milliseconds(found.time) + lease.milliseconds if found else 0
        lease_status = LeaseStatus(
            clock,
            lease.holder if clock < ends else None,
            lease.watermark,
            lease.state,
            len(ready.state.subjects.keys() - {self._ready_key}),
        )
        return lease_status, lease, found.seq if found else 0

    async def _write_lease(self, link: _Link, lease: _Lease, revision: int) -> int | None:
        """Write the record of the lease if it still has that revision. Return the new revision, or None."""
        try:
            ack = await link.ask(
                _Ack, self._lease_key, _json(lease), {"Nats-Expected-Last-Subject-Sequence": str(revision)}
            )
        except _RefusedError:
            return None
        return ack.seq

    async def _message(self, link: _Link, stream: str, which: dict[str, Any]) -> _Message | None:
        if which.get("seq") == 0:  # the last sequence number of a stream that never had a message
            return None
        try:
            return (await link.ask(_Stored, f"$JS.API.STREAM.MSG.GET.{stream}", _json(which))).message
        except _AbsentError:
            return None

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for ``work``, at most half a lease."""
        task = spawn(work)
        # wait_for() of Python 3.11 loses an error that comes together with a cancellation.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.wait_for(task, self._patience)
        except asyncio.TimeoutError:
            self._drop(self._link)
            raise EngineError(f"{self.address}: no answer within {plural(self._patience, 'second')}.") from None
        except _SilenceError:
            self._drop(self._link)
            raise
        except _AbsentError:
            self._drop(self._link)  # the next connection creates it again
            raise EngineError(f"{self.address}: a stream of the relay was deleted.") from None

    def _drop(self, link: _Link | None) -> None:
        if link is None or link is not self._link:
            return
        self._link = None
        task = spawn(link.close(), name="reverb-relay-close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _connected(self) -> _Link:
        """Return the connection. If there is none, connect, and create the streams that the relay needs."""
        async with self._connecting:
            if self._link is not None and not self._link.is_lost:
                return self._link
            self._drop(self._link)
            failure: EngineError | None = None
            for server in self._servers:
                link = _Link(server)
                try:
                    await link.connect(self._patience / len(self._servers))
                    await self._prepare(link)
                except BaseException as error:
                    self._link = link
                    self._drop(link)
                    if not isinstance(error, EngineError):
                        raise
                    failure = error
                else:
                    self._link, self._end = link, None
                    self._servers.remove(server)  # next time, try this server first
                    self._servers.insert(0, server)
                    return link
            assert failure is not None
            raise failure

    async def _prepare(self, link: _Link) -> None:
        window = min(_nanoseconds(_DUPLICATES), self._wanted.get("max_age") or _nanoseconds(_DUPLICATES))
        config = await self._ensure(
            link,
            {
                "name": self._stream,
                "subjects": [f"{self._stream}.>", self._marker],
                "storage": "file",
                "duplicate_window": window,
                **self._wanted,
            },
            self._wanted,
        )
        self._check(config)
        if config.get("max_msg_size", -1) > 0:
            self._max_msg_size = config["max_msg_size"]
        bucket = {
            "max_msgs_per_subject": 1,
            "discard": "new",
            "deny_delete": True,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "num_replicas": config.get("num_replicas", 1),
        }
        await self._ensure(
            link, {"name": self._leases, "subjects": [f"$KV.{self._stream}_relay.>"], "storage": "file", **bucket}
        )
        age = _nanoseconds(max(self._lease, 0.1))
        limits = {"max_age": age, "duplicate_window": min(age, _nanoseconds(_DUPLICATES))}
        subjects = [f"$KV.{self._stream}_ready.>"]
        await self._ensure(
            link, {"name": self._readies, "subjects": subjects, "storage": "memory", **limits, **bucket}, limits
        )

    async def _ensure(
        self, link: _Link, config: dict[str, Any], wanted: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Create a stream, or change the settings ``wanted`` of an existing one. Return its settings."""
        name = config["name"]
        try:
            found = (await link.ask(_Info, f"$JS.API.STREAM.INFO.{name}")).config
        except _AbsentError:
            try:
                return (await link.ask(_Info, f"$JS.API.STREAM.CREATE.{name}", _json(config))).config
            except _RefusedError:  # another relay was quicker
                found = (await link.ask(_Info, f"$JS.API.STREAM.INFO.{name}")).config
        changed = {**found, **(wanted or {})}
        if changed.get("max_age"):
            changed["duplicate_window"] = min(changed["duplicate_window"], changed["max_age"])
        if changed == found:
            return found
        return (await link.ask(_Info, f"$JS.API.STREAM.UPDATE.{name}", _json(changed))).config

    def _check(self, config: dict[str, Any]) -> None:
        """Raise if an existing stream has settings that a log can't have."""
        subjects = [f"{self._stream}.>", self._marker]
        what = f"{self.address}: the stream {self._stream}, which exists already,"
        edit = f"nats stream edit {self._stream}"
        if set(config.get("subjects") or ()) != set(subjects):
            raise ConfigurationError(
                f"{what} has other subjects than {' and '.join(subjects)}. To use it as the log: {edit} "
                f"--subjects '{','.join(subjects)}'. Otherwise choose another name for the log."
            )
        if config.get("retention", "limits") != "limits":
            raise ConfigurationError(
                f"{what} deletes messages after consumers have read them (retention {config['retention']}). "
                "Choose another name for the log, or create the stream again with --retention limits."
            )
        if config.get("discard", "old") != "old":
            raise ConfigurationError(
                f"{what} refuses messages when it is full. To change that: {edit} --discard old."
            )
        if config.get("no_ack") or config.get("sealed"):
            raise ConfigurationError(
                f"{what} does not acknowledge messages, or accepts none (no_ack, sealed). Choose another "
                "name for the log."
            )


class _End(NamedTuple):
    """The last message of the log."""

    epoch: int
    number: int
    """The number of the entry; 0 for a marker."""
    sequence: int


@dataclass
class _Server:
    scheme: str
    host: str
    port: int
    user: str | None = field(repr=False)
    secret: str | None = field(repr=False)
    """The password, or the token if there is no user."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def get_user(self) -> str:
        return self.user or ""

    def get_secret(self) -> str:
        return self.secret or ""


class _Link:
    """A connection to one server. It does not reconnect, so that nothing is sent later than the caller knows."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._client = Client()
        self._inbox = ""
        self._asked = 0
        self._answers: dict[str, asyncio.Future[Msg]] = {}
        self._failure: ReverbError | None = None
        self._last_error: Exception | None = None

    @property
    def is_lost(self) -> bool:
        return self._failure is not None or not self._client.is_connected

    @property
    def max_payload(self) -> int:
        return self._client.max_payload

    async def connect(self, patience: float) -> None:
        server = self._server
        secure = _TLS()
        secure.load_default_certs()
        options: dict[str, Any] = {}
        if server.user is not None:
            options = {"user": server.get_user, "password": server.get_secret}
        elif server.secret is not None:
            options = {"token": server.get_secret}
        if server.scheme == "tls":
            # The library asks for the login when TLS has started, or when it will not start.
            options = {name: secure.guard(get) for name, get in options.items()}
        try:
            await self._client.connect(
                [str(server)],
                error_cb=self._on_error,
                closed_cb=self._on_close,
                name="reverb relay",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=patience,  # type: ignore[arg-type] # seconds need not be whole ones
                tls=secure,
                **options,
            )
        except _PlainTextError:
            pass
        except (NatsError, OSError, asyncio.TimeoutError) as error:
            self._failure = self._failure or self._failure_of(error)
        if self._failure is not None:
            raise self._failure
        if server.scheme == "tls" and not secure.is_used:
            raise ConfigurationError(
                f"{server}: the server doesn't offer TLS. Configure a certificate there, or write nats:// if you "
                "trust the network between here and there."
            )
        version = self._client.connected_server_version
        numbers = (version.major, version.minor, version.patch)
        if numbers < _OLDEST:
            found, needed = (".".join(map(str, each)) for each in (numbers, _OLDEST))
            raise ConfigurationError(f"{server} is nats-server {found}. The relay needs {needed} or later.")
        self._inbox = (await self.listen(self._on_answer, ".*")).subject[:-1]

    async def close(self) -> None:
        with suppress(NatsError, OSError):
            await self._client.close()

    async def listen(self, receive: Callable[[Msg], Awaitable[None]], below: str = "") -> Subscription:
        """Subscribe to a new subject."""
        try:
            return await self._client.subscribe(f"{self._client.new_inbox()}{below}", cb=receive)
        except (NatsError, OSError) as error:
            raise self._failure_of(error) from None

    async def leave(self, subscription: Subscription) -> None:
        with suppress(NatsError, OSError):
            await subscription.unsubscribe()

    async def tell(self, subject: str, payload: bytes, headers: dict[str, str], reply: str = "") -> None:
        """Send a message, without waiting for an answer."""
        try:
            await self._client.publish(subject, payload, reply, headers)
        except (NatsError, OSError) as error:
            raise self._failure_of(error) from None

    async def ask(
        self, kind: type[A], subject: str, payload: bytes = b"", headers: dict[str, str] | None = None
    ) -> A:
        """Send a message, and return JetStream's answer."""
        if self._failure is not None:
            raise again(self._failure)
        self._asked += 1
        name = str(self._asked)
        waiting = self._answers[name] = asyncio.get_running_loop().create_future()
        try:
            await self.tell(subject, payload, headers or {}, f"{self._inbox}{name}")
            message = await waiting
        finally:
            del self._answers[name]
        if message.headers and message.headers.get("Status") == "503":
            raise _SilenceError(f"{self._server}: JetStream does not answer, or the stream was deleted.")
        answer = msgspec.json.decode(message.data, type=kind)
        if answer.error is not None:
            raise self._error_of(answer.error)
        return answer

    async def _on_answer(self, message: Msg) -> None:
        waiting = self._answers.get(message.subject.rpartition(".")[2])
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def _on_error(self, error: Exception) -> None:
        log.debug("%s: %s", self._server, _words(error))
        self._last_error = error
        if "permissions violation" in str(error).lower():
            self._fail(
                ConfigurationError(
                    f"{self._server}: the user has too few rights: {_words(error)}. The relay needs its stream's "
                    "subjects, $KV.>, $JS.API.> and _INBOX.>."
                )
            )

    async def _on_close(self) -> None:
        self._fail(EngineError(f"{self._server}: the connection is lost."))

    def _fail(self, failure: ReverbError) -> None:
        self._failure = self._failure or failure
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(again(self._failure))

    def _failure_of(self, error: Exception) -> ReverbError:
        if isinstance(error, NoServersError) and self._last_error is not None:
            error = self._last_error  # the reason
        if "authorization violation" in str(error).lower():
            return ConfigurationError(
                f"{self._server}: the server refuses the user, password or token. Write them into the URL before "
                "the host: nats://user:password@host or nats://token@host."
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"{self._server}: this machine does not trust the server's certificate: {error.verify_message}. "
                "Set SSL_CERT_FILE to a file with the certificate of its authority."
            )
        return EngineError(f"{self._server}: {_words(error)}.")

    def _error_of(self, error: _Error) -> Exception:
        if error.err_code in (_OTHER_LAST_SEQUENCE, _DUPLICATES_IN_BATCH, _OTHER_STREAM_OF_THAT_NAME):
            return _RefusedError(error.description)
        if error.err_code in (_NO_SUCH_MESSAGE, _NO_SUCH_STREAM):
            return _AbsentError(error.description)
        text = f"{self._server}: {visible(error.description)}"
        if error.err_code in _JETSTREAM_IS_OFF:
            return ConfigurationError(f"{text}. Enable JetStream in the server, and for the account of this user.")
        if error.err_code == _SUBJECTS_OF_ANOTHER_STREAM:
            return ConfigurationError(f"{text}. Choose another name for the log.")
        if error.err_code == _MESSAGE_IS_TOO_LARGE:
            return ConfigurationError(f"{text}. Raise the stream's max_msg_size.")
        return EngineError(f"{text}.")


class _TLS(ssl.SSLContext):
    """Gives passwords out only after TLS has started."""

    is_used = False

    def __new__(cls) -> _TLS:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        self.is_used = True
        return super().wrap_bio(*args, **options)

    def guard(self, get: Callable[[], str]) -> Callable[[], str]:
        def guarded() -> str:
            if not self.is_used:
                raise _PlainTextError
            return get()

        return guarded


class _RefusedError(Exception):
    """The server refused a message because the stream is not in the state that the message expects."""


class _AbsentError(Exception):
    """The stream or the message does not exist."""


class _SilenceError(EngineError):
    """No server answers on this subject."""


class _PlainTextError(Exception):
    """The connection is not encrypted, although the URL asks for TLS."""


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    error: _Error | None = None


class _Ack(_Answer):
    seq: int = 0


class _State(msgspec.Struct):
    last_seq: int = 0
    subjects: dict[str, int] = {}


class _Info(_Answer):
    ts: datetime = _EPOCH
    """The server's time."""
    config: dict[str, Any] = {}
    state: _State = msgspec.field(default_factory=_State)


class _Message(msgspec.Struct):
    seq: int
    time: datetime
    hdrs: bytes = b""
    data: bytes = b""


class _Stored(_Answer):
    message: _Message | None = None


class _Lease(msgspec.Struct):
    """The record of the lease. The lease begins when the server stores the record."""

    holder: str | None
    epoch: int
    milliseconds: int
    watermark: int | None
    state: bytes


A = TypeVar("A", bound=_Answer)

_json = msgspec.json.encode


def _servers(url: str) -> list[_Server] | str:
    """Return the servers of a URL, or a text that says what is wrong with it."""
    servers: list[_Server] = []
    for each in url.split(","):
        scheme = servers[0].scheme if servers else "nats"
        try:
            parts = urlsplit(each.strip() if "://" in each else f"{scheme}://{each.strip()}")
            host, port = parts.hostname, parts.port or 4222
        except ValueError:
            host, port = None, 0
        if not host or parts.scheme not in ("nats", "tls") or parts.path.strip("/"):
            return "the URL of NATS must be like nats://host:4222 or tls://host:4222; separate several with commas"
        user, secret = (None if part is None else unquote(part) for part in (parts.username, parts.password))
        if user and secret is None:
            user, secret = None, user
        if secret is None and servers:
            user, secret = servers[0].user, servers[0].secret
        servers.append(_Server(parts.scheme, host, port, user, secret))
    return servers


def _token(name: str, *, keep_dots: bool = False) -> str:
    """Write a name as one or more tokens of a subject. Characters that are not allowed there become ``%XX``."""
    token = quote(name, safe="!#$&'()+,:;<=?@^_`{|}~." if keep_dots else "", errors="surrogatepass")
    if keep_dots:
        token = re.sub(r"^\.|\.$|(?<=\.)\.", "%2E", token[:_LONGEST_SUBJECT])
    else:
        token = token.replace(".", "%2E")
    return token or "%"


def _text(value: str) -> str:
    """Write a text as the value of a header."""
    return value if _fits(value) else quote(value, errors="surrogatepass")


def _fits(value: str) -> bool:
    return value.isprintable() and value[:1] != " " and value[-1:] != " "


def _headers(epoch: int, entry: Entry) -> dict[str, str]:
    headers = {"channel": entry.channel, "event": entry.event}
    if entry.user_id is not None:
        headers["user_id"] = entry.user_id
    if not all(map(_fits, headers.values())):
        headers = {name: quote(value, errors="surrogatepass") for name, value in headers.items()}
        headers["quoted"] = "1"
    headers["received_at"] = str(entry.received_at)
    headers["sent_after"] = str(entry.sent_after)
    if entry.again:
        headers["again"] = "1"
    headers["Nats-Msg-Id"] = f"{epoch}-{entry.number}"
    return headers


def _entry(message: Msg) -> Entry | None:
    """Read an entry from a message; None for a marker, and for messages of other programs."""
    headers = message.headers or {}
    own = re.fullmatch(r"(\d+)-(\d+)", headers.get("Nats-Msg-Id", ""))
    try:
        assert own is not None
        channel, event, user_id = headers["channel"], headers["event"], headers.get("user_id")
        if "quoted" in headers:
            channel, event = (unquote(each, errors="surrogatepass") for each in (channel, event))
            user_id = user_id and unquote(user_id, errors="surrogatepass")
        times = int(headers["received_at"]), int(headers["sent_after"])
    except (AssertionError, KeyError, ValueError):
        return None
    return Entry(channel, event, message.data, user_id, *times, int(own[1]), int(own[2]), "again" in headers)


def _id(message: _Message) -> tuple[int, int] | None:
    """Return the epoch and the number of a stored message; None if it has none."""
    found = re.search(rb"^Nats-Msg-Id: *(\d+)-(\d+)\r$", message.hdrs, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else None


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _milliseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(milliseconds=1)


def _words(error: Exception) -> str:
    return visible(str(error).removeprefix("nats: ").rstrip(".")) or type(error).__name__
