"""The running relay: a client that receives, an engine that keeps, and the rules in between."""

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
from typing import Any, Literal, TypeVar

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
from ._log import DeposedError, EngineError, Entry, Sight
from ._replica import Replica

__all__ = ["Find", "Relay", "RelayStatus"]

log = logging.getLogger("reverb.relay")

T = TypeVar("T")

_BATCH = 500
"""Entries in one write, at most."""
_LOOK, _SIGN_OF_LIFE = 1.0, 2.0
"""Seconds between two looks at the lease, and between two renewals or questions to the server: at most, and less
where the lease is short."""
_REFUSALS = 401, 403, 404
"""What the HTTP API answers to a wrong secret, key, or application."""
_REFUSED_RETRY = 2.0, 60.0
"""Seconds between attempts to subscribe to a channel that is refused."""
_PARTING = 5.0
"""Seconds that the engine has to take what is left at the end, and to let the lease go."""


class RelayStatus(msgspec.Struct, frozen=True):
    """What a relay does, and has done."""

    name: str
    role: Literal["leader", "follower"]
    is_connected: bool
    """To the server."""
    is_ready: bool
    """Whether it has all that the log lacks, and could take over without a gap."""
    problem: str | None
    """Why the engine can't be reached; None while it can."""
    finding_problem: str | None
    """Why the leader can't find channels; None while it can."""
    channels: int
    missing: int
    """Channels that are not subscribed."""
    received: int
    """Events since the start."""
    written: int
    """Entries since the start, gap entries included."""
    again: int
    """How many of them may be in the log twice."""
    gaps: int
    """How many of them say that events may be missing."""
    pending: int
    """Entries that wait to be written."""
    lag: float
    """Seconds since the oldest of them was received; 0 when nothing waits."""
    others: int
    """Other relays that are ready to take over."""
    takeovers: int
    """How many times it began to lead."""

    @property
    def is_healthy(self) -> bool:
        """Whether it is connected to the server, and engine and HTTP API do what they are asked. If not, it goes
        on trying: don't restart it for that, as it keeps what the log does not have yet."""
        return self.is_connected and self.problem is None and self.finding_problem is None


class Find(msgspec.Struct, frozen=True):
    """Which channels a relay finds by itself: those on which somebody is, by the HTTP API."""

    prefix: str = ""
    """How their names begin."""
    exclude: str | tuple[str, ...] = ()
    """A pattern, or several, of names to leave out, such as ``*.debug``."""
    interval: float = 2.0
    """Seconds between two looks. What was published between a channel's first subscriber and the next look is
    missing, and a gap entry says so."""


class Relay:
    """Writes the events of channels into a log that an engine keeps, together with other relays that do the same.

    ``client`` is a connected client that nobody else uses: what other handlers are slow with reaches the log late,
    and a connection that is lost may be noticed too late. ``channels`` are subscribed as long as :meth:`run`
    runs; on presence channels the relay is the member ``presence_user``, unless ``REVERB_AUTH_ENDPOINT`` says who
    it is. Events of encrypted channels are written as they are, unless ``decrypt``. ``to`` is the engine's URL:
    ``redis://``, ``rediss://``, ``nats://`` or ``tls://``.

    ``lease`` is the seconds, 0.1 to 60, after which another relay takes over from one that is gone. ``buffer`` is
    the bytes that are kept while the engine is away. ``find`` adds the channels on which somebody is; presence
    channels only with a ``presence_user``. ``maxlen`` and ``max_age`` (entries, seconds) bound the log;
    ``partitions`` splits it by channel. Raises :class:`ConfigurationError` for what can't work.

    ::

        async with ReverbClient() as client:
            await Relay(client, ["orders"], to="redis://localhost:6379/0").run()

    As a program of its own, which ends with SIGTERM and an exit code::

        sys.exit(reverb.run(lambda client: Relay(client, ["orders"], to="redis://localhost:6379/0").run()))
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
        url, to = to if isinstance(to, SecretStr) else SecretStr(to), ""  # error reporters send what a frame holds
        if not 0.1 <= lease <= 60:
            raise ConfigurationError(f"the lease of a relay must be from 0.1 to 60 seconds, not {lease:g}")
        for name, number in {"partitions": partitions, "buffer": buffer, "maxlen": maxlen}.items():
            if number is not None and number < 1:
                raise ConfigurationError(f"{name} of a relay must be 1 or more, not {number}")
        intervals = {"max_age": max_age, "interval between two looks": None if find is None else find.interval}
        for name, seconds in intervals.items():
            if seconds is not None and not 0 < seconds < inf:
                raise ConfigurationError(f"the {name} of a relay must be more than 0 seconds, not {seconds:g}")
        self.name = f"{socket.gethostname()}-{os.getpid()}-{token_hex(4)}"
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
            raise ConfigurationError("no channels: name them, or let the relay find them")
        if presence_user is None and client.config.auth_endpoint is None:  # which knows who we are
            for channel in filter(is_presence, self._named):
                raise ConfigurationError(
                    f"{channel!r} needs a presence_user (--presence-user): whoever subscribes is a member"
                )
        self._replica = Replica(lease=round(lease * 1000), most_bytes=buffer)
        self._clock = EngineClock(round((time.time() - time.monotonic()) * 1000))
        self._find = find
        self._chooser: Chooser | None = None
        if find is not None:
            _ = client.api  # raises where it can't be asked
            exclude = (find.exclude,) if isinstance(find.exclude, str) else find.exclude
            self._chooser = Chooser(find.prefix, exclude, presence=presence_user is not None)
        self._look_interval = min(lease / 10, _LOOK)
        self._renew_interval = min(lease / 3, _SIGN_OF_LIFE)
        self._is_open = False
        self._problems: dict[Literal["lease", "write"], str] = {}
        """Why the engine did not do what it was asked last."""
        self._finding_problem: str | None = None
        """Why the last look at what is occupied failed."""
        self._wake = asyncio.Event()
        self._work = asyncio.Event()
        self._writing = asyncio.Lock()
        self._failed: asyncio.Future[None] | None = None
        """Has what ended a subscription."""
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._empty: dict[str, int] = {}
        """Channels that were found and have nobody any more, and since when that is known."""
        self._left: int | None = None
        """How many entries were not written in the end."""
        self._received = self._written = self._again = self._gaps = self._takeovers = 0

    @property
    def address(self) -> str:
        """Where the log is; without a password."""
        return self._sink.address

    @property
    def status(self) -> RelayStatus:
        """May be read in any thread, as Prometheus does."""
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
        """Relay until cancelled, or until the client disconnects; then write what is left, and hand over.

        Raises :class:`ConfigurationError` where the engine can't be used or a channel lacks a setting, and what
        :meth:`ReverbClient.listen` raises; and :class:`ConnectionError` on a client that is not connected. A relay
        runs once.
        """
        with suppress(TimeoutError):  # while it is connecting again
            await self._client.wait_connected(0)
        if self._failed is not None:
            raise RuntimeError("a relay runs once: make another one")
        self._failed = asyncio.get_running_loop().create_future()
        bindings = (
            self._client.binding("*", self._receive, type=msgspec.Raw),
            self._client.binding("error", self._hear_error),
        )
        self._replica.connecting(self._now())
        for channel in self._named:
            self._follow(channel)
        work: list[Coroutine[Any, Any, None]] = [self._client.listen(), self._attend(), self._write(), self._ask()]
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
        """Say in a few words what it does, for systemd."""
        problems = (*self._problems.values(), self._finding_problem)
        return "; ".join(["following" if self._replica.epoch is None else "leading", *filter(None, problems)])

    # --- the server --------------------------------------------------------------------------------------------

    def _receive(self, event: str, data: msgspec.Raw, channel: str | None, *, user_id: str | None) -> None:
        if event.startswith(PROTOCOL_PREFIXES):
            self._notice(event, data, channel)
        elif channel is not None:
            self._received += 1
            self._replica.received(channel, event, bytes(data), user_id, self._now())
            if self._replica.epoch is not None:
                self._work.set()

    def _notice(self, event: str, data: msgspec.Raw, channel: str | None) -> None:
        """Take what is about the connection and its channels."""
        if event == Events.SUBSCRIPTION_SUCCEEDED and channel is not None:
            self._replica.subscribed(channel, self._now())
            self._work.set()
        elif event == Events.STATE_CHANGE:
            if msgspec.json.decode(data)["current"] == "connected":
                self._replica.connecting(self._now())
            else:
                self._replica.lost()
                self._wake.set()

    def _hear_error(self, event: str, data: dict[str, Any], channel: str | None) -> None:
        """A channel that was subscribed before may be refused after a reconnect."""
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
                    log.error("events of %r are not relayed, until it can be subscribed: %s", channel, error)
                await asyncio.sleep(backoff.delay(Action.BACK_OFF))
            else:
                if backoff.attempts:
                    log.info("events of %r are relayed now", channel)
                return

    async def _unfollow(self, channel: str, empty_at: int | None = None) -> None:
        task = self._subscriptions.pop(channel)
        task.cancel()
        self._replica.leave(channel, self._now(), empty_at=empty_at)
        await self._client.unsubscribe(channel)

    async def _find_channels(self, find: Find, chooser: Chooser) -> None:
        """While it leads, look which channels are occupied; the other relays follow what it says. The first
        look is everybody's, and raises what the server refuses: with a wrong secret, a relay can't lead."""
        from ..discovery import occupied  # which needs what asks the HTTP API

        backoff = Backoff(find.interval, max(find.interval, 30.0))
        delay = 0.0
        is_first = True
        while True:
            await asyncio.sleep(delay)
            replica, epoch, now = self._replica, self._replica.epoch, self._now()
            if epoch is None and not is_first:
                self._finding_problem = None
                delay = self._look_interval
                continue
            try:
                counts = await occupied(self._client.api, find.prefix or None)
            except ReverbError as error:
                if is_first and isinstance(error, APIError) and error.status in _REFUSALS:
                    raise
                if self._finding_problem is None:
                    log.warning("%s; no channels are found until that works again", error)
                self._finding_problem = str(error)
                delay = backoff.delay(Action.BACK_OFF)
            else:
                if self._finding_problem is not None:
                    log.info("channels are found again")
                self._finding_problem = None
                backoff.restart()
                delay = find.interval
                if epoch is not None and replica.epoch == epoch:
                    await self._choose(chooser, counts, now)
                    replica.found_at = now
            is_first = False

    async def _choose(self, chooser: Chooser, counts: Mapping[str, int | None], now: int) -> None:
        found = self._subscriptions.keys() - self._named.keys()
        relays = 1 + self._replica.others
        subscribed = {name for name, each in self._client.channels.items() if each.is_subscribed}
        # On presence channels users are counted, and the relays are one.
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
            self._wake.set()  # for the others to know

    async def _follow_found(self) -> None:
        """Subscribe to the channels that the leader has found, and to no others."""
        found = self._replica.found
        if found is None:  # nobody has looked, or the engine has forgotten it
            return
        for channel in found:
            if channel not in self._subscriptions:
                self._follow(channel, is_found_by_leader=True)
        for channel in self._subscriptions.keys() - self._named.keys() - set(found):
            await self._unfollow(channel)

    async def _ask(self) -> None:
        """Ask the server a question from time to time."""
        while True:
            await asyncio.sleep(self._renew_interval)
            await self._question()

    async def _question(self) -> None:
        """Ask the server a question: what was sent before it is here when its answer is."""
        connection, asked_at = self._client.socket_id, self._now()
        with suppress(ReverbError):  # the client itself looks after a connection that is dead
            await self._client.ping()
            while self._client.stats.queued:  # noqa: ASYNC110 - what is decrypted is delivered later
                await asyncio.sleep(0.01)
            if connection is not None and connection == self._client.socket_id:
                self._replica.answered(asked_at)

    # --- the engine --------------------------------------------------------------------------------------------

    async def _attend(self) -> None:
        """Look after the lease."""
        backoff = Backoff(min(0.1, self._lease / 10), min(2.0, self._lease / 2))
        while True:
            self._wake.clear()
            delay = self._look_interval
            try:
                await self._take_turn()
                if self._replica.epoch is not None:
                    delay = self._renew_interval
                self._reached("lease")
                backoff.restart()
            except DeposedError as error:
                self._reached("lease")
                self._deposed(error)
                continue
            except EngineError as error:
                self._missed("lease", error)
                delay = backoff.delay(Action.BACK_OFF)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay)

    async def _take_turn(self) -> None:
        replica, sink = self._replica, self._sink
        if not self._is_open:
            await sink.open()
            self._is_open = True
        if replica.epoch is None:
            replica.sighted(await self._timed(sink.look(is_ready=replica.is_ready)))
            if self._find is not None:
                await self._follow_found()
            if replica.may_take_over(self._now()):
                await self._take_over()
        elif replica.should_hand_over:
            log.warning("another relay takes over from %s, which lost its connection to the server", self.name)
            await self._hand_over()
        else:
            replica.renewed(await self._timed(sink.renew(replica.epoch, *replica.progress())))

    async def _take_over(self) -> None:
        asked = time.monotonic()
        grant = await self._sink.acquire()
        if grant is None:
            return
        self._adjust(grant.sight, asked)
        tail = await self._sink.tail(self._replica.tail_since(grant))
        await self._catch_up(tail)
        self._replica.take_over(grant, tail)
        self._empty.clear()
        if self._find is not None:
            await self._follow_found()
        self._takeovers += 1
        self._wake.set()  # to say so
        self._work.set()
        log.info("%s leads now; entries to write to %s: %d", self.name, self.address, self._replica.pending)

    async def _catch_up(self, tail: Sequence[Entry]) -> None:
        """Receive what the log may have already. What comes later need not be marked as written again."""
        latest = max((entry.received_at for entry in tail), default=0) + SLACK
        wait = max(0, latest + 1 - self._now()) / 1000
        if wait < self._lease / 3 and self._client.is_connected:
            await asyncio.sleep(wait)
            asking = spawn(self._question())
            try:
                await asyncio.wait({asking}, timeout=self._lease / 3)
            finally:
                asking.cancel()

    async def _hand_over(self) -> None:
        """Write what there is, within the time of a lease, and give the lease back."""
        await self._write_within(self._lease)
        await self._release()

    async def _release(self) -> None:
        replica = self._replica
        if replica.epoch is not None:
            epoch, (watermark, state) = replica.epoch, replica.progress()
            replica.deposed()
            await self._sink.release(epoch, watermark, state)

    async def _timed(self, asking: Coroutine[Any, Any, Sight]) -> Sight:
        asked = time.monotonic()
        sight = await asking
        self._adjust(sight, asked)
        return sight

    def _adjust(self, sight: Sight, asked: float) -> None:
        step = self._clock.adjust(sight.clock, asked, time.monotonic())
        if step:
            self._replica.shift(step)

    def _now(self) -> int:
        return self._clock.at(time.monotonic())

    def _reached(self, what: Literal["lease", "write"]) -> None:
        if self._problems.pop(what, None) and not self._problems:
            log.info("%s answers again", self.address)

    def _missed(self, what: Literal["lease", "write"], error: EngineError) -> None:
        if not self._problems:
            log.warning("%s; trying again", error)
        self._problems[what] = str(error)

    def _deposed(self, error: DeposedError) -> None:
        log.warning("%s leads no more: %s", self.name, error)
        self._replica.deposed()

    # --- writing -----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        backoff = Backoff(min(0.1, self._lease / 10), min(2.0, self._lease / 2))
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._write_all()
                self._reached("write")
                backoff.restart()
            except DeposedError as error:
                self._reached("write")
                self._deposed(error)
                self._wake.set()
            except EngineError as error:
                self._missed("write", error)
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
                except DeposedError:
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
            writing.add_done_callback(lambda task: task.cancelled() or task.exception())  # it may fail late
        if writing.done():
            writing.result()

    # --- the end -----------------------------------------------------------------------------------------------

    async def _end(self, tasks: list[asyncio.Future[None]]) -> None:
        await _cancel([*tasks, *self._subscriptions.values()])
        for channel in self._subscriptions:
            await self._client.unsubscribe(channel)
        parting = spawn(self._part())
        try:
            await asyncio.wait({parting}, timeout=_PARTING)
            await _cancel([parting])
        finally:
            await self._sink.close()
        if self._left:
            problem = self.status.problem or f"{self.address} does not answer"
            log.error(
                "%s has ended; the log may lack %d events that it has received: %s", self.name, self._left, problem
            )
        if not parting.cancelled():
            parting.result()

    async def _part(self) -> None:
        """Write what is left, and give the lease back; try again while the engine fails."""
        replica = self._replica
        self._left = replica.unwritten if self._problems or replica.epoch is not None else 0
        backoff = Backoff(0.1, 1.0)
        while replica.epoch is not None:
            try:
                try:
                    await self._write_within(0.8 * _PARTING)
                finally:
                    self._left = replica.pending
                await self._release()
            except DeposedError:
                if replica.others:  # and one of them has what is left
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
        # Again and again, as wait_for() may swallow it until Python 3.11.
        done, pending = await asyncio.wait(pending, timeout=0.1)
        for task in done:
            if not task.cancelled():
                task.exception()  # one is raised already


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work`` to its end, also when this is cancelled meanwhile."""
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
