"""The part of the console that all pages share: the client, the channels, and the requests of pages."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from time import time
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ... import (
    ConnectionState,
    Events,
    ReverbAPI,
    ReverbClient,
    ReverbConfig,
    ReverbError,
    __version__,
)
from ..._backoff import Backoff
from ..._occupancy import Chooser
from ..._protocol import Action, is_encrypted, is_presence
from ..._settings import Found
from ...client import subscribe_later
from ...discovery import count_of, occupied_channels
from ..doctor import describe, rows_of
from ..examination import Examination, Step
from .event_log import EventLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ... import ChannelInfo

__all__ = ["Backend", "ChannelFilter", "RefusedError", "Watcher"]

_POLL_INTERVAL = 2.0
"""Seconds between two polls for channels, while a page is open."""
_PING_INTERVAL = 10.0
"""Seconds between two measurements of the round trip, while a page is open."""
_LEAVE_AFTER = 30.0
"""Seconds without a page after which the client unsubscribes. A page that is reloaded comes back earlier."""
_ASK = 'send "presence": true to join it'
_MAX_NAMED = 3
"""The number of failures that a message names."""
_NO_API = "this needs the HTTP API: set REVERB_APP_ID and REVERB_APP_SECRET"
_MAX_LISTED = 2_000
"""The number of channels that pages list."""
_PREFIXES = {"encrypted": "private-encrypted-", "presence": "presence-", "private": "private-", "public": ""}
"""The prefix of each kind of channel. A longer prefix comes first."""
_OPTIONS = {"host": "server-host", "port": "server-port", "app_key": "key"}
"""The options of ``reverb console`` whose names differ from the names of their settings."""
_NEVER_CONNECTED = (ConnectionState.INITIALIZED, ConnectionState.DISCONNECTED, ConnectionState.FAILED)


class RefusedError(Exception):
    """The console refuses a request of a page. The message says why."""


class ChannelFilter(msgspec.Struct, frozen=True):
    """Selects channels by their names: those that begin with ``prefix``, without those that match ``exclude``."""

    prefix: str = ""
    exclude: Sequence[str] = ()


class Watcher(Protocol):
    """A page, as the backend sees it."""

    def wake(self) -> None:
        """Send new entries of the log, and frames that have changed."""

    def notice(self, frame: bytes) -> None:
        """Send a frame once."""


class Backend:
    """Listens for all pages while :meth:`run` runs.

    The client follows the channels that match ``channel_filter`` as soon as the first page is open.
    ``is_read_only`` refuses requests that other clients would notice.
    """

    def __init__(
        self,
        config: ReverbConfig,
        found: Mapping[str, Found],
        *,
        is_read_only: bool = False,
        is_demo: bool = False,
        channel_filter: ChannelFilter | None = None,
        log: EventLog | None = None,
        poll_interval: float = _POLL_INTERVAL,
        leave_after: float = _LEAVE_AFTER,
    ) -> None:
        self.log = EventLog() if log is None else log
        self.state = self.channels = b""
        """The latest frames of these types."""
        self._config = config
        self._found = found
        self._is_read_only = is_read_only
        self._is_demo = is_demo
        self._poll_interval = poll_interval
        self._leave_after = leave_after
        self._has_key = config.encryption_master_key is not None or config.auth_endpoint is not None
        self._has_secret = config.app_id is not None and config.app_secret is not None
        self._user = None
        if config.auth_endpoint is None:
            self._user = {
                "user_id": f"console-{socket.gethostname()}-{os.getpid()}",
                "user_info": {"name": "reverb console"},
            }
        self._client = ReverbClient(config)
        self._api = ReverbAPI(config) if self._has_secret else None
        self._problem: str | None = None
        """Why the client is not connected; None while it is."""

        self._watchers: set[Watcher] = set()
        self._is_watched = asyncio.Event()
        self._is_unwatched = True
        """Whether the client follows no channel because no page was open for a while."""
        self._leaving: asyncio.Task[None] | None = None
        self._is_over = False
        self._poll_soon = asyncio.Event()
        self._ping_soon = asyncio.Event()
        self._is_examining = False

        self._initial = channel_filter
        self._channel_filter: ChannelFilter | None = None
        self._chooser: Chooser | None = None
        self._followed: set[str] = set()
        """Channels that pages follow by name."""
        self._taken: set[str] = set()
        """Channels that are followed because they match the filter."""
        self._excluded: set[str] = set()
        """Channels that the filter must not follow again while they are occupied."""
        self._occupied: dict[str, ChannelInfo] = {}
        self._ours: set[str] = set()
        """The occupied channels that the console itself was subscribed to at the last poll."""

        # The type Raw: payloads are not parsed here.
        self._client.bind("*", self._on_event, type=msgspec.Raw)
        self._client.bind(Events.RESUBSCRIBED, self._on_resubscribed)
        self._client.bind(Events.STATE_CHANGE, self._on_state_change)
        self._show_state()
        self._show_channels()

    # --- the client's life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen until cancelled. Keep trying if the server can't be reached."""
        tasks = [
            asyncio.create_task(each, name=f"reverb console {name}")
            for name, each in (("client", self._listen()), ("poll", self._poll()), ("ping", self._ping()))
        ]
        with _log_to(self._on_log):
            try:
                await asyncio.gather(*tasks)
            finally:
                self._is_over = True
                for task in tasks:
                    task.cancel()
                if self._leaving is not None:
                    self._leaving.cancel()
                    tasks.append(self._leaving)
                await asyncio.wait(tasks)
                if self._api is not None:
                    await self._api.close()

    async def _listen(self) -> None:
        config = self._config
        backoff = Backoff(config.reconnect_delay_min, config.reconnect_delay_max)
        while True:
            try:
                async with self._client:
                    backoff.restart()
                    await self._client.listen()
            except ReverbError as error:
                self._problem = str(error)
            self._show_state()
            await asyncio.sleep(backoff.delay(Action.BACK_OFF))

    async def _ping(self) -> None:
        """Measure the round-trip time while a page is open."""
        while True:
            await self._is_watched.wait()
            self._ping_soon.clear()
            if self._client.is_connected:
                with suppress(ReverbError):  # the client handles a lost connection itself
                    await self._client.ping()
                self._show_state()
            await _wait(self._ping_soon, _PING_INTERVAL)

    def _on_state_change(self, event: str, data: Any, channel: str | None) -> None:
        if data["current"] == ConnectionState.CONNECTED:
            self._problem = None
            self._ping_soon.set()
        self._show_state()

    def _on_event(self, event: str, data: msgspec.Raw, channel: str | None, *, user_id: str | None) -> None:
        if channel is None or event == Events.SUBSCRIPTION_SUCCEEDED or event.startswith("reverb:"):
            return
        sealed = is_encrypted(channel) and not self._has_key
        self.log.add_event(_now(), channel, event, bytes(data), user_id, sealed=sealed)
        self._wake()

    def _on_resubscribed(self, event: str, data: Any, channel: str | None) -> None:
        self.log.add_gap(_now(), channel or "", round(data["downtime"], 3))
        self._wake()

    def _on_log(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.name == "reverb.supervisor" and not self._client.is_connected:
            self._problem = message
            self._show_state()
        self.notice("error" if record.levelno >= logging.ERROR else "warning", message)

    # --- the pages ---------------------------------------------------------------------------------------------

    async def enter(self, watcher: Watcher) -> None:
        """Add a page that was opened."""
        self._watchers.add(watcher)
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if self._is_unwatched:
            self._is_unwatched = False
            await self._follow_matching(self._initial)
        self._is_watched.set()
        self._poll_soon.set()
        self._ping_soon.set()

    def leave(self, watcher: Watcher) -> None:
        """Remove a page that was closed."""
        self._watchers.discard(watcher)
        if not (self._watchers or self._is_over):
            self._is_watched.clear()
            self._leaving = asyncio.create_task(self._leave_all(), name="reverb console leaving")

    def hello(self) -> dict[str, Any]:
        """Return the first frame for a page."""
        config = self._config
        return {
            "type": "hello",
            "server": f"{config.scheme}://{config.address}{config.path}",
            "application": config.app_id or config.app_key,
            "version": __version__,
            "read_only": self._is_read_only,
            "is_demo": self._is_demo,
            "has_secret": self._has_secret,
            **self._describe_state(),
            "log": {"first": self.log.first, "last": self.log.last},
            "followed": sorted(self._followed | self._taken),
        }

    def notice(self, level: str, text: str) -> None:
        """Show a message on all open pages."""
        frame = msgspec.json.encode({"type": "notice", "level": level, "text": text})
        for watcher in self._watchers:
            watcher.notice(frame)

    def _wake(self) -> None:
        for watcher in self._watchers:
            watcher.wake()

    def _show_state(self) -> None:
        """Update the state of the connection on all pages if it has changed."""
        state = msgspec.json.encode({"type": "state", **self._describe_state()})
        if state != self.state:
            self.state = state
            self._wake()

    def _show_channels(self) -> None:
        channels = self._describe_channels()
        if channels != self.channels:
            self.channels = channels
            self._wake()

    def _describe_state(self) -> dict[str, Any]:
        client = self._client
        round_trip = client.stats.round_trip
        # Between two attempts the client is "disconnected", but the next attempt comes soon.
        state = ConnectionState.UNAVAILABLE if client.state in _NEVER_CONNECTED else client.state
        return {
            "state": state.value,
            "socket_id": client.socket_id,
            "round_trip": None if round_trip is None else round(round_trip, 4),
            "reconnects": client.stats.reconnects,
            "problem": self._problem,
            "follow_all": self._channel_filter,
        }

    def _describe_channels(self) -> bytes:
        followed = self._followed | self._taken
        names = sorted(followed) + sorted(self._occupied.keys() - followed)
        # If there are too many channels, list the followed ones first.
        subscribed = self._subscribed()
        channels = [
            {**self._describe_channel(name), "is_subscribed": name in subscribed} for name in names[:_MAX_LISTED]
        ]
        channels.sort(key=itemgetter("name"))
        return msgspec.json.encode({"type": "channels", "channels": channels, "total": len(names)})

    def _describe_channel(self, name: str) -> dict[str, Any]:
        info = self._occupied.get(name)
        kind = _kind_of(name)
        own = int(name in self._ours)
        subscriptions = users = None
        if info is not None:
            subscriptions = None if info.subscription_count is None else max(info.subscription_count - own, 0)
            users = None if info.user_count is None else max(info.user_count - own, 0)
        counts = [each for each in (subscriptions, users) if each is not None]
        return {
            "name": name,
            "kind": kind,
            "is_cache": name.removeprefix(_PREFIXES[kind]).startswith("cache-"),
            "subscriptions": subscriptions,
            "users": users,
            "followed": name in self._followed or name in self._taken,
            "is_ours_only": bool(own and counts and not any(counts)),
        }

    # --- channels ----------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        """Ask the HTTP API for the occupied channels while a page is open."""
        if self._api is None:
            return
        interval = self._poll_interval
        backoff = Backoff(interval, max(interval, self._config.reconnect_delay_max))
        while True:
            await self._is_watched.wait()
            self._poll_soon.clear()
            delay = interval
            ours = self._subscribed()
            try:
                self._occupied = await occupied_channels(self._api)
            except ReverbError as error:
                if not backoff.attempts:
                    self.notice("warning", f"{error}; the console finds no new channels until this works again")
                delay = backoff.delay(Action.BACK_OFF)
            else:
                if backoff.attempts:
                    self.notice("info", "the console finds new channels again")
                backoff.restart()
                self._ours = ours & self._subscribed()
                await self._follow_and_leave()
            self._show_channels()
            await _wait(self._poll_soon, delay)

    def _subscribed(self) -> set[str]:
        return {name for name, each in self._client.channels.items() if each.is_subscribed}

    async def _follow_and_leave(self) -> None:
        """Follow channels that have appeared, and leave those that nobody else is subscribed to."""
        self._excluded &= self._occupied.keys()
        if self._chooser is None:
            return
        counts = {name: count_of(name, info) for name, info in self._occupied.items()}
        ours = {name: int(name in self._ours) for name in self._taken}
        choice = self._chooser.choose(counts, ours, self._followed | self._excluded)
        for name in choice.leave:
            await self._unsubscribe(name)
        for name in choice.take:
            try:
                subscribe_later(self._client, name, decrypt=self._has_key)
            except ReverbError as error:
                self._excluded.add(name)
                self.notice("warning", str(error))
            else:
                self._taken.add(name)

    async def _follow_matching(self, channel_filter: ChannelFilter | None) -> None:
        """Follow all channels that match from now on. None: only those that pages follow by name."""
        self._channel_filter = channel_filter
        self._chooser = None if channel_filter is None else Chooser(channel_filter.prefix, channel_filter.exclude)
        kept: list[str] = []
        if self._chooser is not None:
            kept = self._chooser.choose(dict.fromkeys(self._taken), {}).take
        for name in self._taken.difference(kept):
            await self._unsubscribe(name)
        self._excluded.clear()
        self._poll_soon.set()
        self._show_state()
        self._show_channels()

    async def _unsubscribe(self, name: str) -> None:
        self._followed.discard(name)
        self._taken.discard(name)
        await self._client.unsubscribe(name)

    async def _leave_all(self) -> None:
        """Leave all channels when no page was open for a while."""
        await asyncio.sleep(self._leave_after)
        self._leaving = None
        self._is_unwatched = True
        for name in list(self._followed):
            await self._unsubscribe(name)
        await self._follow_matching(None)

    # --- requests of pages -------------------------------------------------------------------------------------

    async def follow(self, channels: Sequence[str], *, with_presence: bool) -> Any:
        """Subscribe to channels. The error names channels that fail; the others are subscribed."""
        for name in channels:
            if is_presence(name):
                if self._is_read_only:
                    raise RefusedError(
                        f"can't join {name}: the console is read-only; start it without --read-only"
                    )
                if not with_presence:
                    raise RefusedError(f"{name} is a presence channel; its members see who joins; {_ASK}")
        if self._client.state in _NEVER_CONNECTED:
            raise RefusedError(f"not connected: {self._problem}")
        outcomes = await asyncio.gather(*map(self._subscribe, channels), return_exceptions=True)
        failures = [each for each in outcomes if isinstance(each, BaseException)]
        for failure in failures:
            if not isinstance(failure, ReverbError):
                raise failure
        self._poll_soon.set()
        self._show_channels()
        if failures:
            raise RefusedError("; ".join(map(str, failures[:_MAX_NAMED])))
        return {"followed": sorted(self._followed | self._taken)}

    async def _subscribe(self, name: str) -> None:
        user = self._user if is_presence(name) else None
        await self._client.subscribe(name, user_data=user, decrypt=self._has_key)
        self._taken.discard(name)
        self._excluded.discard(name)
        self._followed.add(name)

    async def unfollow(self, channels: Sequence[str]) -> Any:
        for name in channels:
            await self._unsubscribe(name)
            self._excluded.add(name)
        self._poll_soon.set()
        self._show_channels()
        return {"followed": sorted(self._followed | self._taken)}

    async def follow_all(self, channel_filter: ChannelFilter | None) -> Any:
        if channel_filter is not None and self._api is None:
            raise RefusedError(_NO_API)
        await self._follow_matching(channel_filter)
        return None

    async def members(self, channel: str) -> Any:
        """Return the users on a presence channel, without joining it."""
        return {"users": await self._require_api().users(channel)}

    async def publish(self, channels: Sequence[str], event: str, data: str, *, to_others: bool) -> Any:
        self._require_writing()
        api = self._require_api()
        _parse(data)
        socket_id = self._client.socket_id if to_others else None
        if to_others and socket_id is None:
            raise RefusedError("not connected, so there is no socket id to exclude; send to all instead")
        await api.trigger(list(channels), event, data, socket_id=socket_id)
        return None

    async def trigger(self, channel: str, event: str, data: str) -> Any:
        """Send a client event. If the server refuses it, the error comes as a notice."""
        self._require_writing()
        value = _parse(data)
        found = self._client.channels.get(channel)
        if found is None:
            raise RefusedError(f"follow {channel} first: a client event needs a subscription")
        await found.trigger(event, value)
        return None

    async def examine(self, report: Callable[[bytes], None]) -> Any:
        """Run the steps of ``reverb doctor``, and report the result of each step."""
        if self._is_examining:
            raise RefusedError("the doctor is already running")
        failed: list[str] = []

        def tell(step: Step, **more: Any) -> None:
            if step.ok is False:
                failed.append(step.name)
            report(msgspec.json.encode({"type": "finding", **describe(step, **more)}))

        self._is_examining = True
        try:
            rows = rows_of(self._found, self._config, _OPTIONS)
            tell(Step("settings", True, 0.0, "complete and valid"), rows=rows)
            await Examination(self._config, self._found, lambda name: None, tell).run(())
        finally:
            self._is_examining = False
        return {"failed": failed}

    def _require_api(self) -> ReverbAPI:
        if self._api is None:
            raise RefusedError(_NO_API)
        return self._api

    def _require_writing(self) -> None:
        if self._is_read_only:
            raise RefusedError("this console is read-only; start it without --read-only to send events")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, at most ``seconds``."""
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()


def _parse(data: str) -> Any:
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the data is not JSON: {error}") from None


def _kind_of(name: str) -> str:
    return next(kind for kind, prefix in _PREFIXES.items() if name.startswith(prefix))


def _now() -> int:
    return round(time() * 1000)


class _Log(logging.Handler):
    """Passes warnings of the library on, in the loop's thread."""

    def __init__(self, tell: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(logging.WARNING)
        self._loop = asyncio.get_running_loop()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("reverb.server"):  # the server of --demo
            self._loop.call_soon_threadsafe(self._tell, record)


@contextmanager
def _log_to(tell: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    handler = _Log(tell)
    logging.getLogger("reverb").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("reverb").removeHandler(handler)
