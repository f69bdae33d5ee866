"""Publish the entries of a stream over the HTTP API, and acknowledge them.

:class:`Source` is the interface to the engines. :class:`Publisher` has the rules.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

import msgspec

from .._backoff import Backoff
from .._lenient_json import decode_lenient
from .._protocol import DECODE_ERRORS, Action, is_encrypted
from .._rest import MAX_BATCH, BatchEvent
from .._settings import SecretStr
from .._tasks import spawn
from .._visible import bare, event_fields, quoted, visible
from ..exceptions import (
    APIError,
    BatchError,
    ConfigurationError,
    ConnectionError,
    ProtocolError,
    ReverbError,
    TimeoutError,
)
from ._log import EngineError

if TYPE_CHECKING:
    from ..http import ReverbAPI

__all__ = ["DeadLetter", "Item", "Published", "Publisher", "Report", "Source", "Waiting"]

log = logging.getLogger("reverb.relay")

T = TypeVar("T")

_REFUSED = frozenset({400, 413, 422})
"""HTTP statuses with which the API refuses an event. Any other 4xx is about the client, such as a wrong secret."""
_AWAY = frozenset({408, 425, 429})
"""HTTP statuses, besides 5xx, after which the API may accept the same event later."""
_LEAST_WAIT, _MOST_WAIT = 0.5, 30.0
"""The shortest and the longest time in seconds between two attempts, while the API or the engine does not
answer."""
_MOST_RETRY_AFTER = 300.0
"""The longest time in seconds that the API's header Retry-After can make us wait."""
_LAG_INTERVAL = 1.0
"""Seconds between two requests for the lag."""


class Item(msgspec.Struct, frozen=True):
    """An entry of a stream, as it was read. Its values are not checked."""

    id: str
    """The engine's id of the entry."""
    channel: str | None = None
    """The channel to publish on; None if the entry has none."""
    event: str | None = None
    """The name of the event; None if the entry has none."""
    data: bytes | None = None
    """The data of the event as JSON text; None if the entry has none."""
    socket_id: str | None = None
    """The socket id of a client that must not get the event; None: all get it."""
    flaw: str | None = None
    """Why the entry can't be published, if the source knows that; otherwise None."""
    handle: Any = None
    """A value that the source needs to acknowledge or move the entry."""


class Source(Protocol):
    """The interface to a stream that a consumer group reads.

    The engine gives each entry to one consumer of the group, which has to acknowledge it.

    All methods raise :class:`~reverb.relay.EngineError` if the engine can't be reached or does not answer. The
    publisher then calls :meth:`open`, and the same method again. They raise
    :class:`~reverb.exceptions.ConfigurationError` for settings that can't work. One task at a time calls the
    methods.
    """

    address: str
    """The engine's address for messages, without a password."""
    claim_after: float
    """Seconds after which another consumer gets an entry that is neither acknowledged nor held."""

    async def open(self) -> None:
        """Connect, and create the stream and the group if they are missing. The group begins at the first
        entry."""

    async def close(self) -> None:
        """Close the connections. Never raises :class:`~reverb.relay.EngineError`."""

    async def read(self, most: int) -> list[Item]:
        """Return the next entries in the order of the stream, at most ``most``.

        The entries that this consumer got before come first, then those that another consumer has left, then new
        ones. Waits about a second for an entry, and returns an empty list if none comes."""

    async def hold(self, items: Sequence[Item]) -> None:
        """Tell the engine that this consumer still works on the entries ``items``."""

    async def acknowledge(self, items: Sequence[Item]) -> None:
        """Tell the engine that the entries ``items`` are done. May be repeated."""

    async def bury(self, item: Item, reason: str) -> None:
        """Write the entry ``item`` to the dead-letter stream, with ``reason`` and its id, and acknowledge it."""

    async def lag(self) -> int | None:
        """Return the number of entries that are not acknowledged; None if the engine can't tell."""


class Published(NamedTuple):
    """Report: the API has accepted events, and their entries are acknowledged."""

    items: Sequence[Item]
    """The entries."""


class DeadLetter(NamedTuple):
    """Report: an entry can't be published. It is in the dead-letter stream, and acknowledged."""

    item: Item
    """The entry."""
    reason: str
    """Why it can't be published."""


class Waiting(NamedTuple):
    """Report: the API or the engine does not answer. Nothing is acknowledged, and the publisher tries again."""

    error: ReverbError
    """The error of the last attempt."""
    seconds: float
    """Seconds until the next attempt."""


Report: TypeAlias = Published | DeadLetter | Waiting
"""What a :class:`Publisher` reports."""


class _StoppedError(Exception):
    """:meth:`Publisher.stop` was called while the publisher waited."""


class Publisher:
    """Publishes the entries of a stream in their order, and acknowledges entries that the API has accepted.

    ::

        async with ReverbAPI() as api:
            await Publisher(RedisSource("redis://localhost:6379/0", group="web"), api).run()

    Each event is published at least once. It is published twice if the program ends between the API's answer and
    the acknowledgement, or if an answer is lost. While the API or the engine does not answer, nothing is
    acknowledged, and the publisher keeps trying. An entry that can't be published goes to the dead-letter stream,
    and does not delay other entries: it has no channel, its data is not JSON, or the API refuses it (400, 413,
    422).

    Args:
        source: The stream to read, such as a :class:`~reverb.relay.RedisSource` or a
            :class:`~reverb.relay.NatsSource`.
        api: The HTTP API to publish over.
        report: A function that is called with a :class:`Published`, :class:`DeadLetter` or :class:`Waiting` each
            time one happens.
    """

    def __init__(self, source: Source, api: ReverbAPI, *, report: Callable[[Report], None] | None = None) -> None:
        self.published = 0
        """The number of events that the API has accepted and that are acknowledged."""
        self.dead = 0
        """The number of entries that went to the dead-letter stream."""
        self.lag: int | None = None
        """The number of entries that were not acknowledged about a second ago; None if that is not known."""
        self._source = source
        self._api = api
        self._report = report
        self._backoff = Backoff(_LEAST_WAIT, _MOST_WAIT)
        self._stopping = asyncio.Event()
        self._is_open = False
        self._in_hand: list[Item] = []
        """The entries that were read and are not acknowledged yet, in their order."""
        self._held_at = 0.0
        self._lag_at = 0.0

    async def run(self) -> None:
        """Publish until :meth:`stop` is called. You can call this once.

        If it is cancelled, it ends at once. Events that are published by then, but not acknowledged, are published
        again later.

        Raises:
            ConfigurationError: Settings can't work.
            APIError: The API refuses the client and not an event (401, 403, 404 and so on). The entries are not
                acknowledged.
        """
        try:
            while not self._stopping.is_set():
                self._in_hand = await self._ask(lambda: self._source.read(MAX_BATCH))
                self._held_at = monotonic()
                await self._publish_all()
                await self._update_lag()
        except _StoppedError:
            pass
        finally:
            await self._source.close()

    def stop(self) -> None:
        """Let :meth:`run` end after it has published and acknowledged the entries that it has read.

        If the API or the engine does not answer, it ends at once."""
        self._stopping.set()

    # --- publishing --------------------------------------------------------------------------------------------

    async def _publish_all(self) -> None:
        for item in [each for each in self._in_hand if _flaw_of(each)]:
            await self._bury(item, _flaw_of(item))
        size = MAX_BATCH
        while self._in_hand:
            batch = self._in_hand[:size]
            accepted, refusal = await self._send(batch)
            if accepted:
                await self._acknowledge(batch[:accepted])
            if refusal and len(batch) == 1:
                await self._bury(batch[0], refusal)
            size = 1 if refusal and len(batch) > 1 else size

    async def _send(self, batch: Sequence[Item]) -> tuple[int, str]:
        """Publish a batch. Return how many events the API has accepted, from the first on, or why it refuses."""
        events = [_event_of(item) for item in batch]
        while True:
            try:
                result = await self._holding(self._api.trigger_batch(events, idempotent=True))
                self._backoff.restart()
                return result.accepted, ""
            except ProtocolError as refusal:
                return 0, str(refusal)
            except ConfigurationError as lack:
                if not any(is_encrypted(event.channel) for event in events):
                    raise
                return 0, str(lack)
            except BatchError as stop:
                accepted, error = stop.accepted, stop.__cause__
            if accepted:
                return accepted, ""
            if isinstance(error, APIError):
                if error.status in _REFUSED:
                    return 0, str(error)
                if error.status < 500 and error.status not in _AWAY:
                    raise error
            elif not isinstance(error, (ConnectionError, TimeoutError)):
                raise AssertionError from error
            await self._wait(error, getattr(error, "retry_after", None))

    # --- the engine --------------------------------------------------------------------------------------------

    async def _acknowledge(self, items: Sequence[Item]) -> None:
        await self._ask(lambda: self._source.acknowledge(items))
        self._let_go(items)
        self.published += len(items)
        self._send_report(Published(items))

    async def _bury(self, item: Item, reason: str) -> None:
        await self._ask(lambda: self._source.bury(item, reason))
        self._let_go([item])
        self.dead += 1
        log.warning(
            "can't publish entry %s, %s on %s; it goes to the dead-letter stream: %s",
            visible(item.id),
            quoted(item.event or ""),
            quoted(item.channel or ""),
            reason,
            extra=event_fields(item.event or "", item.channel),
        )
        self._send_report(DeadLetter(item, reason))

    def _let_go(self, items: Sequence[Item]) -> None:
        gone = {id(item) for item in items}
        self._in_hand = [item for item in self._in_hand if id(item) not in gone]

    async def _update_lag(self) -> None:
        if monotonic() - self._lag_at >= _LAG_INTERVAL:
            self.lag = await self._ask(self._source.lag)
            self._lag_at = monotonic()

    async def _ask(self, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Send a request to the engine until it answers."""
        while True:
            try:
                if not self._is_open:
                    await _apart(self._source.open())
                    self._is_open = True
                answer = await _apart(request())
            except EngineError as error:
                self._is_open = False
                await self._wait(error)
            else:
                self._backoff.restart()
                return answer

    # --- waiting -----------------------------------------------------------------------------------------------

    async def _wait(self, error: ReverbError, seconds: float | None = None) -> None:
        """Wait before another attempt."""
        delay = self._backoff.delay(Action.BACK_OFF)
        if seconds is not None:
            delay = max(delay, min(seconds, _MOST_RETRY_AFTER))
        log.warning("%s; the next try is in %.1f seconds", error, delay)
        self._send_report(Waiting(error, delay))
        try:
            await self._holding(asyncio.wait_for(self._stopping.wait(), delay))
        except asyncio.TimeoutError:
            return
        raise _StoppedError

    async def _holding(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for ``work``. Meanwhile, hold the entries that are not acknowledged."""
        task = spawn(work)
        interval = self._source.claim_after / 3
        try:
            while True:
                await asyncio.wait({task}, timeout=max(self._held_at + interval - monotonic(), 0))
                if task.done():
                    return task.result()
                self._held_at = monotonic()
                if self._in_hand and self._is_open:
                    try:
                        await _apart(self._source.hold(self._in_hand))
                    except EngineError:
                        self._is_open = False
        finally:
            await _end(task)

    def _send_report(self, report: Report) -> None:
        if self._report is not None:
            self._report(report)


async def _apart(work: Coroutine[Any, Any, T]) -> T:
    """Wait for ``work`` in a task of its own, because libraries of engines may swallow a cancellation."""
    task = spawn(work)
    try:
        await asyncio.wait({task})
        return task.result()
    finally:
        await _end(task)


async def _end(task: asyncio.Task[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


def address_of(url: SecretStr, *schemes: str) -> str:
    """Return the URL of an engine without its password. Raises :class:`ConfigurationError` if it is not valid."""
    address = _address_of(url.get_secret_value(), schemes)
    if address is None:
        raise ConfigurationError(
            f"the engine's URL must be like {schemes[0]}://host or {schemes[0]}://host:port; in a password, write "
            "each character that is not a letter or a digit as %XX"
        )
    return address


def _address_of(url: str, schemes: Sequence[str]) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    # A password with a / or # that is not escaped ends the host early: show nothing of it.
    rest = f"{parts.path}{parts.query}{parts.fragment}"
    return bare(url) if parts.scheme in schemes and parts.hostname and "@" not in rest else None


def _flaw_of(item: Item) -> str:
    """Return why an entry can't be published; an empty text if it can."""
    if item.flaw is not None:
        return item.flaw
    if not item.channel:
        return "it has no channel"
    if not item.event:
        return "it has no event"
    if item.data is None:
        return "it has no data"
    try:
        text = item.data.decode()
        try:
            msgspec.json.decode(item.data, type=msgspec.Raw)
        except DECODE_ERRORS:
            decode_lenient(text)  # it accepts half a surrogate pair
    except DECODE_ERRORS as error:
        return f"its data is not JSON: {error}"
    return ""


def _event_of(item: Item) -> BatchEvent:
    assert item.channel is not None  # it has no flaw
    assert item.event is not None
    assert item.data is not None
    return BatchEvent(item.channel, item.event, item.data.decode(), item.socket_id)
