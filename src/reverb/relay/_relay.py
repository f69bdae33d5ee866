"""The running relay: it connects a client, an engine, and the rules."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf
from secrets import token_hex
from typing import Any, Literal

import msgspec

from .. import _systemd
from .._backoff import Backoff
from .._occupancy import Chooser
from .._protocol import PROTOCOL_PREFIXES, Action, is_encrypted, is_presence
from .._settings import SecretStr
from .._tasks import spawn
from ..client import ReverbClient
from ..events import Events
from ..exceptions import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ReverbError,
    SubscriptionError,
    TimeoutError,
)
from ._alignment import SLACK
from ._clock import EngineClock
from ._engines import make_sink
from ._log import EngineError, Entry, LeaseLostError, LeaseStatus
from ._replica import Replica

__all__ = ["Find", "Relay", "RelayStatus"]

log = logging.getLogger("reverb.relay")

_BATCH = 500
"""The largest number of entries in one write."""
_CHECK, _RENEW = 1.0, 2.0
"""Seconds between two checks of the lease, and between two renewals or pings, at most. A short lease has shorter
ones."""
_REFUSALS = 401, 403, 404
"""Answers of the HTTP API to a wrong secret, key, or application."""
_REFUSED_RETRY = 2.0, 60.0
"""The shortest and the longest time in seconds between two attempts to subscribe to a channel that is refused."""
_END_TIMEOUT = 5.0
"""Seconds to write the remaining entries and give the lease back at the end."""


class RelayStatus(msgspec.Struct, frozen=True):
    """The state and the counters of a relay."""

    name: str
    """The relay's name: host name, process id, and a random part."""
    role: Literal["leader", "follower"]
    """``leader`` while the relay writes the log; ``follower`` while it waits to take over."""
    is_connected: bool
    """Whether the relay is connected to the Reverb server."""
    is_ready: bool
    """Whether the relay could take over without a gap in the log."""
    problem: str | None
    """Why the engine can't be reached; None while it answers."""
    finding_problem: str | None
    """Why the leader can't find channels; None while it can."""
    channels: int
    """The number of channels that the relay follows."""
    missing: int
    """The number of these channels that are not subscribed."""
    received: int
    """The number of events received since the start."""
    written: int
    """The number of entries written since the start, gap entries included."""
    again: int
    """The number of written entries that may be duplicates; their field ``again`` is set."""
    gaps: int
    """The number of written entries which say that events may be missing."""
    pending: int
    """The number of entries that wait to be written."""
    lag: float
    """Seconds since the oldest pending entry was received; 0 if none is pending."""
    others: int
    """The number of other relays that are ready to take over."""
    takeovers: int
    """How many times the relay began to lead."""

    @property
    def is_healthy(self) -> bool:
        """Whether the relay is connected to the server, and the engine and the HTTP API answer.

        **Don't restart a relay because it is not healthy: you may lose events.** It keeps trying, and it keeps the
        events that the log does not have yet."""
        return self.is_connected and self.problem is None and self.finding_problem is None


class Find(msgspec.Struct, frozen=True):
    """Settings of a relay that finds channels by itself.

    The relay polls the HTTP API, and follows all channels that have subscribers. Pass it as ``find`` to
    :class:`Relay`."""

    prefix: str = ""
    """Find only channels whose names begin with this. Default: all channels."""
    exclude: str | tuple[str, ...] = ()
    """A pattern of names to skip, or several patterns, such as ``*.debug``. Default: none."""
    interval: float = 2.0
    """Seconds between two polls. Default: 2.

    The log misses events that are published between a channel's first subscriber and the next poll. A gap entry
    says so."""


class Relay:
    """Writes the events of channels into a log in Redis, Valkey or NATS JetStream.

    Several relays with the same arguments write one log together: one of them writes, and another one takes over
    if it fails.

    ::

        async with ReverbClient() as client:
            await Relay(client, ["orders"], to="redis://localhost:6379/0").run()

    As a program of its own, which stops at SIGTERM and returns an exit code::

        sys.exit(reverb.run(lambda client: Relay(client, ["orders"], to="redis://localhost:6379/0").run()))

    Args:
        client: A connected client. Don't use it for anything else: slow handlers delay the log, and the client may
            notice a lost connection too late.
        channels: The channels to subscribe to while :meth:`run` runs.
        to: The engine's URL: ``redis://``, ``rediss://`` (with TLS), ``nats://`` or ``tls://`` (NATS with TLS).
        stream: The name of the log.
        lease: Seconds after which another relay takes over from one that has failed; 0.1 to 60.
        partitions: The number of streams that the log is split into, by channel.
        maxlen: The number of entries that the log keeps, about. Default: all.
        max_age: The time in seconds for which the log keeps entries, about. Default: forever.
        presence_user: The member data of the relay on presence channels. Not needed if ``REVERB_AUTH_ENDPOINT`` is
            set, because the endpoint decides it.
        decrypt: Whether to decrypt the events of encrypted channels. By default, they stay encrypted in the log.
        buffer: Bytes of events that the relay keeps while the engine can't be reached. Default: 64 MiB. **If more
            arrive, the log loses the oldest**, and a gap entry says so.
        find: Also follow all channels that have subscribers; presence channels only with a ``presence_user``.

    Raises:
        ConfigurationError: An argument is not valid, the engine's library is not installed, or a setting is
            missing.
    """

    def __init__(
        self,
        client: ReverbClient,
        channels: str | Iterable[str] = (),
        *,
        to: str | SecretStr,
        stream: str = "reverb",
        lease: float = 5.0,
        partitions: int = 1,
        maxlen: int | None = None,
        max_age: float | None = None,
        presence_user: Mapping[str, Any] | None = None,
        decrypt: bool = False,
        buffer: int = 64 * 1024 * 1024,
        find: Find | None = None,
    ) -> None:
        url, to = (
            to if isinstance(to, SecretStr) else SecretStr(to),
            "",
        )  # error reporters send variables of frames
        if not 0.1 <= lease <= 60:
            raise ConfigurationError(f"the lease of a relay must be from 0.1 to 60 seconds, not {lease:g}")
        for name, number in {"partitions": partitions, "buffer": buffer, "maxlen": maxlen}.items():
            if number is not None and number < 1:
                raise ConfigurationError(f"{name} of a relay must be 1 or more, not {number}")
        intervals = {"max_age": max_age, "interval between two polls": None if find is None else find.interval}
        for name, seconds in intervals.items():
            if seconds is not None and not 0 < seconds < inf:
                raise ConfigurationError(f"the {name} of a relay must be more than 0 seconds, not {seconds:g}")
        self.name = f"{socket.gethostname()}-{os.getpid()}-{token_hex(4)}"
        """The name of this relay: the host's name, the process id and a random number. No other relay has it."""
        self._client = client
        self._named = dict.fromkeys((channels,) if isinstance(channels, str) else channels)
        self._presence_user = None if presence_user is None else dict(presence_user)
        self._decrypt = decrypt
        self._lease = lease
        self._sink = make_sink(
            url,
            relay=self.name,
            stream=stream,
            lease=lease,
            partitions=partitions,
            maxlen=maxlen,
            max_age=max_age,
        )
        if not self._named and find is None:
            raise ConfigurationError("no channels: name them, or let the relay find them (find=Find())")
        if presence_user is None and client.config.auth_endpoint is None:  # an endpoint decides the member data
            for channel in filter(is_presence, self._named):
                raise ConfigurationError(
                    f"{channel!r} needs a presence_user (--presence-user): each subscriber is a member"
                )
        self._replica = Replica(lease=round(lease * 1000), most_bytes=buffer)
        self._clock = EngineClock(round((time.time() - time.monotonic()) * 1000))
        self._find = find
        self._chooser: Chooser | None = None
        if find is not None:
            _ = client.api  # raises if a setting for the HTTP API is missing
            exclude = (find.exclude,) if isinstance(find.exclude, str) else find.exclude
            self._chooser = Chooser(find.prefix, exclude, presence=presence_user is not None)
        self._check_interval = min(lease / 10, _CHECK)
        self._renew_interval = min(lease / 3, _RENEW)
        self._is_open = False
        self._problems: dict[Literal["lease", "write"], str] = {}
        """Why the last request to the engine failed."""
        self._finding_problem: str | None = None
        """Why the last poll for channels failed."""
        self._wake = asyncio.Event()
        self._work = asyncio.Event()
        self._writing = asyncio.Lock()
        self._failed: asyncio.Future[None] | None = None
        """Gets the error of a subscription that can't work."""
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._empty: dict[str, int] = {}
        """Found channels that have no subscribers any more, and when that was seen first."""
        self._unreleased: tuple[int, int | None, bytes] | None = None
        """The lease that this relay holds and does not lead with: the arguments for its sink's ``release()``."""
        self._left: int | None = None
        """The number of entries that were not written at the end."""
        self._received = self._written = self._again = self._gaps = self._takeovers = 0

    @property
    def address(self) -> str:
        """The engine's address, without a password."""
        return self._sink.address

    @property
    def status(self) -> RelayStatus:
        """The present state and counters. You may read it in any thread."""
        replica = self._replica
        return RelayStatus(
            name=self.name,
            role="follower" if replica.epoch is None else "leader",
            is_connected=self._client.is_connected,
            is_ready=replica.is_ready,
            problem=next(iter(self._problems.values()), None),
            finding_problem=self._finding_problem,
            channels=len(self._subscriptions),
            missing=replica.missing,
            received=self._received,
            written=self._written,
            again=self._again,
            gaps=self._gaps,
            pending=replica.pending if self._left is None else self._left,
            lag=replica.lag(self._now()) / 1000,
            others=replica.others,
            takeovers=self._takeovers,
        )

    async def run(self) -> None:
        """Relay until cancelled, or until the client disconnects.

        At the end, the relay writes the remaining events, gives the lease back, and unsubscribes; at most 5
        seconds for the engine. You can call this once.

        Raises:
            ConfigurationError: The engine can't be used, or a channel needs a setting that is missing.
            ConnectionError: The client is not connected.
            RuntimeError: The relay has run before.

        It also raises the exceptions of :meth:`~reverb.client.ReverbClient.listen`.
        """
        with suppress(TimeoutError):  # the client is reconnecting, which is fine
            await self._client.wait_connected(0)
        if self._failed is not None:
            raise RuntimeError("run() can be called once; make another Relay")
        self._failed = asyncio.get_running_loop().create_future()
        bindings = (
            self._client.binding("*", self._on_event, type=msgspec.Raw),
            self._client.binding("error", self._on_error),
        )
        self._replica.connecting(self._now())
        for channel in self._named:
            self._follow(channel)
        work: list[Coroutine[Any, Any, None]] = [
            self._client.listen(),
            self._keep_lease(),
            self._write(),
            self._ping_regularly(),
        ]
        if self._find is not None and self._chooser is not None:
            work.append(self._find_channels(self._find, self._chooser))
        tasks: list[asyncio.Future[None]] = [self._failed, *map(spawn, work)]
        try:
            with _systemd.remark(self._summary):
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for binding in bindings:
                binding.unbind()
            await _finish(self._end(tasks))

    def _summary(self) -> str:
        """Return a short status for systemd."""
        problems = (*self._problems.values(), self._finding_problem)
        return "; ".join(["following" if self._replica.epoch is None else "leading", *filter(None, problems)])

    # --- the server --------------------------------------------------------------------------------------------

    def _on_event(self, event: str, data: msgspec.Raw, channel: str | None, *, user_id: str | None) -> None:
        if event.startswith(PROTOCOL_PREFIXES):
            self._on_protocol_event(event, data, channel)
        elif channel is not None:
            self._received += 1
            self._replica.received(channel, event, bytes(data), user_id, self._now())
            if self._replica.epoch is not None:
                self._work.set()

    def _on_protocol_event(self, event: str, data: msgspec.Raw, channel: str | None) -> None:
        """Handle events about the connection and its channels."""
        if event == Events.SUBSCRIPTION_SUCCEEDED and channel is not None:
            self._replica.subscribed(channel, self._now())
            self._work.set()
        elif event == Events.STATE_CHANGE:
            if msgspec.json.decode(data)["current"] == "connected":
                self._replica.connecting(self._now())
            else:
                self._replica.lost()
                self._wake.set()

    def _on_error(self, event: str, data: dict[str, Any], channel: str | None) -> None:
        """Note a channel that the server refuses after a reconnect."""
        error = data.get("exception")
        if channel is not None and isinstance(error, AuthenticationError | SubscriptionError):
            self._replica.refused(channel)

    def _follow(self, channel: str, found_after: int | None = None, *, is_found_by_leader: bool = False) -> None:
        self._replica.follow(channel, self._now(), found_after=found_after, is_found_by_leader=is_found_by_leader)
        task = self._subscriptions[channel] = spawn(self._subscribe(channel))
        task.add_done_callback(self._subscribed)

    def _subscribed(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _subscribe(self, channel: str) -> None:
        backoff = Backoff(*_REFUSED_RETRY)
        user_data = self._presence_user if is_presence(channel) else None
        while True:
            try:
                await self._client.subscribe(
                    channel,
                    user_data,
                    decrypt=self._decrypt or not is_encrypted(channel),
                )
            except ReverbError as error:
                if isinstance(error, ConfigurationError) and channel in self._named:
                    raise
                if isinstance(error, AuthenticationError | SubscriptionError | ConfigurationError):
                    self._replica.refused(channel)
                if not backoff.attempts:
                    log.error(
                        "can't subscribe to %r; its events are not relayed; trying again: %s", channel, error
                    )
                await asyncio.sleep(backoff.delay(Action.BACK_OFF))
            else:
                if backoff.attempts:
                    log.info("subscribed to %r; its events are relayed now", channel)
                return

    async def _unfollow(self, channel: str, empty_at: int | None = None) -> None:
        task = self._subscriptions.pop(channel)
        task.cancel()
        self._replica.leave(channel, self._now(), empty_at=empty_at)
        await self._client.unsubscribe(channel)

    async def _find_channels(self, find: Find, chooser: Chooser) -> None:
        """Poll for occupied channels while this relay leads. Other relays follow the channels that the leader
        finds.

        Every relay polls once at the start, and raises if the server refuses: with a wrong secret it could not
        lead."""
        from ..discovery import occupied  # needs aiohttp

        backoff = Backoff(find.interval, max(find.interval, 30.0))
        delay = 0.0
        is_first = True
        while True:
            await asyncio.sleep(delay)
            replica, epoch, now = self._replica, self._replica.epoch, self._now()
            if epoch is None and not is_first:
                self._finding_problem = None
                delay = self._check_interval
                continue
            try:
                counts = await occupied(self._client.api, find.prefix or None)
            except ReverbError as error:
                if is_first and isinstance(error, APIError) and error.status in _REFUSALS:
                    raise
                if self._finding_problem is None:
                    log.warning("%s; the relay finds no new channels until this works again", error)
                self._finding_problem = str(error)
                delay = backoff.delay(Action.BACK_OFF)
            else:
                if self._finding_problem is not None:
                    log.info("the relay finds new channels again")
                self._finding_problem = None
                backoff.restart()
                delay = find.interval
                if epoch is not None and replica.epoch == epoch:
                    await self._follow_occupied(chooser, counts, now)
                    replica.found_at = now
            is_first = False

    async def _follow_occupied(self, chooser: Chooser, counts: Mapping[str, int | None], now: int) -> None:
        found = self._subscriptions.keys() - self._named.keys()
        relays = 1 + self._replica.others
        subscribed = {name for name, each in self._client.channels.items() if each.is_subscribed}
        # On presence channels the server counts users, and all relays are one user.
        ours = {
            channel: 0 if channel not in subscribed else 1 if is_presence(channel) else relays for channel in found
        }
        choice = chooser.choose(counts, ours, self._named)
        self._empty = {channel: self._empty.get(channel, now) for channel in choice.leave}
        leave = [channel for channel, since in self._empty.items() if self._replica.has_all_until(since)]
        for channel in leave:
            await self._unfollow(channel, self._empty.pop(channel))
        for channel in choice.take:
            self._follow(channel, self._replica.found_at)
        if leave or choice.take or self._replica.found is None:
            self._replica.found = sorted(self._subscriptions.keys() - self._named.keys())
            self._wake.set()  # renew now, so that other relays know

    async def _follow_found(self) -> None:
        """Subscribe to the channels that the leader has found, and to no others."""
        found = self._replica.found
        if found is None:  # no leader has polled yet, or the engine has lost the state
            return
        for channel in found:
            if channel not in self._subscriptions:
                self._follow(channel, is_found_by_leader=True)
        for channel in self._subscriptions.keys() - self._named.keys() - set(found):
            await self._unfollow(channel)

    async def _ping_regularly(self) -> None:
        """Ping the server from time to time."""
        while True:
            await asyncio.sleep(self._renew_interval)
            await self._ping()

    async def _ping(self) -> None:
        """Ping the server. When the answer is here, everything that the server sent before the ping is here,
        too."""
        connection, sent_at = self._client.socket_id, self._now()
        with suppress(ReverbError):  # the client itself handles a lost connection
            await self._client.ping()
            while self._client.stats.queued:  # noqa: ASYNC110 - decrypted events are delivered later
                await asyncio.sleep(0.01)
            if connection is not None and connection == self._client.socket_id:
                self._replica.ping_answered(sent_at)

    # --- the engine --------------------------------------------------------------------------------------------

    async def _keep_lease(self) -> None:
        """Check the lease, acquire it, and renew it."""
        backoff = Backoff(min(0.1, self._lease / 10), min(2.0, self._lease / 2))
        while True:
            self._wake.clear()
            delay = self._check_interval
            try:
                await self._check_or_renew()
                if self._replica.epoch is not None:
                    delay = self._renew_interval
                self._engine_answered("lease")
                backoff.restart()
            except LeaseLostError as error:
                self._engine_answered("lease")
                self._lease_lost(error)
                continue
            except EngineError as error:
                self._engine_failed("lease", error)
                delay = backoff.delay(Action.BACK_OFF)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay)

    async def _check_or_renew(self) -> None:
        replica, sink = self._replica, self._sink
        if not self._is_open:
            await sink.open()
            self._is_open = True
        if self._unreleased is not None:
            await self._release()
        elif replica.epoch is None:
            replica.observed(await self._timed(sink.check_lease(is_ready=replica.is_ready)))
            if self._find is not None:
                await self._follow_found()
            if replica.may_take_over(self._now()):
                await self._take_over()
        elif replica.should_hand_over:
            log.warning("%s lost its connection to the server; another relay takes over", self.name)
            await self._hand_over()
        else:
            replica.renewed(await self._timed(sink.renew(replica.epoch, *replica.progress())))

    async def _take_over(self) -> None:
        asked = time.monotonic()
        grant = await self._sink.acquire()
        if grant is None:
            return
        status = grant.lease_status
        self._unreleased = grant.epoch, status.watermark, status.state
        self._adjust(status, asked)
        try:
            tail = await self._sink.tail(self._replica.tail_since(grant))
        except EngineError:
            # Another relay may be able to read the log. It need not wait for the end of the lease.
            with suppress(EngineError):
                await self._release()
            raise
        await self._catch_up(tail)
        self._unreleased = None
        self._replica.take_over(grant, tail)
        self._empty.clear()
        if self._find is not None:
            await self._follow_found()
        self._takeovers += 1
        self._wake.set()  # renew now, so that other relays know
        self._work.set()
        log.info("%s leads now; entries to write to %s: %d", self.name, self.address, self._replica.pending)

    async def _catch_up(self, tail: Sequence[Entry]) -> None:
        """Wait for events that the log may already have, so that later events need no mark ``again``."""
        latest = max((entry.received_at for entry in tail), default=0) + SLACK
        wait = max(0, latest + 1 - self._now()) / 1000
        if wait < self._lease / 3 and self._client.is_connected:
            await asyncio.sleep(wait)
            asking = spawn(self._ping())
            try:
                await asyncio.wait({asking}, timeout=self._lease / 3)
            finally:
                asking.cancel()

    async def _hand_over(self) -> None:
        """Write all pending entries, at most for the time of a lease, and give the lease back."""
        await self._write_within(self._lease)
        await self._release()

    async def _release(self) -> None:
        replica = self._replica
        if replica.epoch is not None:
            self._unreleased = replica.epoch, *replica.progress()
            replica.lease_lost()
        if self._unreleased is not None:
            await self._sink.release(*self._unreleased)
            self._unreleased = None

    async def _timed(self, asking: Coroutine[Any, Any, LeaseStatus]) -> LeaseStatus:
        asked = time.monotonic()
        lease_status = await asking
        self._adjust(lease_status, asked)
        return lease_status

    def _adjust(self, lease_status: LeaseStatus, asked: float) -> None:
        step = self._clock.adjust(lease_status.clock, asked, time.monotonic())
        if step:
            self._replica.shift(step)

    def _now(self) -> int:
        return self._clock.at(time.monotonic())

    def _engine_answered(self, what: Literal["lease", "write"]) -> None:
        if self._problems.pop(what, None) and not self._problems:
            log.info("%s answers again", self.address)

    def _engine_failed(self, what: Literal["lease", "write"], error: EngineError) -> None:
        if not self._problems:
            log.warning("%s; the relay keeps trying", error)
        self._problems[what] = str(error)

    def _lease_lost(self, error: LeaseLostError) -> None:
        log.warning("%s leads no more: %s", self.name, error)
        self._replica.lease_lost()

    # --- writing -----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        backoff = Backoff(min(0.1, self._lease / 10), min(2.0, self._lease / 2))
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._write_all()
                self._engine_answered("write")
                backoff.restart()
            except LeaseLostError as error:
                self._engine_answered("write")
                self._lease_lost(error)
                self._wake.set()
            except EngineError as error:
                self._engine_failed("write", error)
                await asyncio.sleep(backoff.delay(Action.BACK_OFF))
                self._work.set()

    async def _write_all(self) -> None:
        replica = self._replica
        async with self._writing:
            while replica.has_pending:
                epoch, batch = replica.epoch, replica.next_batch(_BATCH)
                assert epoch is not None
                try:
                    await self._sink.append(epoch, batch)
                except LeaseLostError:
                    if replica.epoch == epoch:
                        raise
                if replica.epoch != epoch:
                    return
                replica.stored()
                self._written += len(batch)
                for entry in batch:
                    self._again += entry.again
                    self._gaps += entry.is_gap

    async def _write_within(self, seconds: float) -> None:
        writing = spawn(self._write_all())
        try:
            await asyncio.wait({writing}, timeout=seconds)
        finally:
            writing.cancel()
            writing.add_done_callback(lambda task: task.cancelled() or task.exception())  # it may fail later
        if writing.done():
            writing.result()

    # --- the end -----------------------------------------------------------------------------------------------

    async def _end(self, tasks: list[asyncio.Future[None]]) -> None:
        await _cancel([*tasks, *self._subscriptions.values()])
        for channel in self._subscriptions:
            await self._client.unsubscribe(channel)
        finishing = spawn(self._finish_writing())
        try:
            await asyncio.wait({finishing}, timeout=_END_TIMEOUT)
            await _cancel([finishing])
        finally:
            await self._sink.close()
        if self._left:
            problem = self.status.problem or f"{self.address} does not answer"
            log.error(
                "%s has ended; the log may lack %d events that it has received: %s", self.name, self._left, problem
            )
        if not finishing.cancelled():
            finishing.result()

    async def _finish_writing(self) -> None:
        """Write the remaining entries, and give the lease back. Keep trying while the engine fails."""
        replica = self._replica
        self._left = replica.unwritten if self._problems or replica.epoch is not None else 0
        backoff = Backoff(0.1, 1.0)
        while replica.epoch is not None or self._unreleased is not None:
            try:
                if replica.epoch is not None:
                    try:
                        await self._write_within(0.8 * _END_TIMEOUT)
                    finally:
                        self._left = replica.pending
                await self._release()
            except LeaseLostError:
                if replica.others:  # another relay is ready, and has the remaining events
                    self._left = 0
                return
            except ReverbError as error:
                self._problems["write"] = str(error)
                if not isinstance(error, EngineError):
                    return
                await asyncio.sleep(backoff.delay(Action.BACK_OFF))


async def _cancel(tasks: list[asyncio.Future[None]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        # Repeatedly, because wait_for() may swallow a cancellation until Python 3.11.
        done, pending = await asyncio.wait(pending, timeout=0.1)
        for task in done:
            if not task.cancelled():
                task.exception()  # the first one is raised already


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work`` to its end, even if the caller is cancelled meanwhile."""
    task = spawn(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                break
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
