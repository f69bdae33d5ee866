"""Channels that have subscribers: find them with the HTTP API, subscribe to them, and unsubscribe when they are
empty."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._backoff import Backoff
from ._core import Core
from ._occupancy import Chooser
from ._protocol import Action, is_presence
from ._tasks import spawn
from ._visible import visible
from .bindable import queue_of
from .channel import Channel
from .events import Events
from .exceptions import APIError, ConnectionError, ReverbError
from .http import ChannelInfo, ReverbAPI

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Discovery", "count_of", "occupied", "occupied_channels"]

log = logging.getLogger("reverb.discovery")

_INFOS = ("subscription_count,user_count", "subscription_count", None)
"""Infos to request. Pusher refuses (400) to count users over all channels; subscriptions, too, unless you enable
it."""


async def occupied(api: ReverbAPI, prefix: str | None = None) -> dict[str, int | None]:
    """Return the channels that have subscribers, and how many each has.

    On presence channels these are users, if the server counts them; on others connections. None where the server
    does not count.

    Raises what :meth:`ReverbAPI.channels` raises.

    Args:
        api: The HTTP API to ask.
        prefix: The beginning of the names. Default: None, all names.
    """
    return {name: count_of(name, each) for name, each in (await occupied_channels(api, prefix)).items()}


async def occupied_channels(api: ReverbAPI, prefix: str | None = None) -> dict[str, ChannelInfo]:
    """Return the channels that have subscribers, with everything that the server tells about each.

    Raises what :meth:`ReverbAPI.channels` raises.

    Args:
        api: The HTTP API to ask.
        prefix: The beginning of the names. Default: None, all names.
    """
    for info in _INFOS:
        try:
            return await api.channels(prefix, info)
        except APIError as error:
            if error.status != 400 or info is None:
                raise
    raise AssertionError("no server refuses the last request so")  # pragma: no cover


def count_of(name: str, info: ChannelInfo) -> int | None:
    """Return how many subscribers the channel ``name`` has by ``info``, as :func:`occupied` counts them."""
    return info.user_count if is_presence(name) and info.user_count is not None else info.subscription_count


class Discovery:
    """Follows the channels that have subscribers; :meth:`ReverbClient.discover` makes it.

    Use it with ``async with``, once. The end of the block unsubscribes from the channels that it found.
    """

    def __init__(
        self,
        core: Core,
        api: ReverbAPI,
        take: Callable[[str], Channel],
        chooser: Chooser,
        interval: float,
    ) -> None:
        self._core = core
        self._api = api
        self._take = take
        self._chooser = chooser
        self._interval = interval
        self._backoff = Backoff(interval, max(interval, core.config.reconnect_delay_max))
        self._found: dict[str, Channel] = {}
        self._skipped: set[str] = set()
        """Occupied channels that are left out: they could not be subscribed, or the program unsubscribed from
        them."""
        self._has_begun = False
        self._task: asyncio.Task[None] | None = None

    @property
    def channels(self) -> dict[str, Channel]:
        """The channels that it has found and follows, by name."""
        return {name: each for name, each in self._found.items() if self._core.discovered.get(name) is self}

    async def __aenter__(self) -> Self:
        if self._has_begun:
            raise RuntimeError("a discovery can be entered only once: call discover() again")
        self._has_begun = True
        self._require_running()
        await self._poll()
        self._task = spawn(self._follow(), name="reverb discovery")
        self._core.closers.append(self._stop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in self.channels:
            self._leave(name)
        if self._stop in self._core.closers:
            self._core.closers.remove(self._stop)
        await self._stop()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _follow(self) -> None:
        """Poll until the client disconnects or its connection is lost for good."""
        delay = self._interval
        while True:
            await asyncio.sleep(delay)
            try:
                await self._core.supervisor.wait_connected(None)
            except ReverbError:
                return
            try:
                await self._poll()
            except ReverbError as error:
                if not self._core.supervisor.is_running:
                    return
                if not self._backoff.attempts:
                    log.warning(
                        "%s; the client finds no channels until a poll succeeds", error, extra=self._log_fields
                    )
                    self._core.queue.report_error(str(error), error)
                delay = self._backoff.delay(Action.BACK_OFF)
            else:
                if self._backoff.attempts:
                    log.info("polling succeeded: the client finds channels again", extra=self._log_fields)
                self._backoff.restart()
                delay = self._interval

    async def _poll(self) -> None:
        counts = await occupied(self._api, self._chooser.prefix or None)
        self._require_running()
        subscriptions = self._core.channels.subscriptions
        followed = self.channels
        self._skipped |= {name for name in self._found if subscriptions.get(name) is None}
        self._skipped &= counts.keys()
        self._found = followed
        wanted = {each.name: int(each.is_subscribed) for each in subscriptions}
        ours = {name: wanted.pop(name) for name in followed}
        choice = self._chooser.choose(counts, ours, {*wanted, *self._skipped})
        for name in choice.leave:
            self._leave(name)
        for name in choice.take:
            try:
                channel = self._take(name)
            except ReverbError as error:
                self._skipped.add(name)
                log.warning("%s", error, extra={**self._log_fields, "reverb_channel": visible(name)})
                self._core.queue.report_error(str(error), error)
                continue
            self._found[name] = channel
            self._core.discovered[name] = self
            # Before the channel's own events, so that its handlers can be bound now.
            queue_of(channel).put(Events.CHANNEL_FOUND.value, {"channel": name})

    def _require_running(self) -> None:
        if not self._core.supervisor.is_running:
            raise ConnectionError("cannot discover channels: not connected; call connect() first")

    def _leave(self, name: str) -> None:
        del self._found[name]
        del self._core.discovered[name]
        self._core.channels.unsubscribe(name)
        self._core.queue.put(Events.CHANNEL_LEFT.value, {"channel": name})

    @property
    def _log_fields(self) -> dict[str, str]:
        return {"reverb_address": self._core.config.address}
