"""The other direction: what a group reads from a stream is published over the HTTP API, and then acknowledged.

:class:`Source` is what an engine has to be able to do for that; :class:`Publisher` has all the rules.
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
"""What the API answers to an event that it does not take. Any other 4xx is about us, such as a wrong secret."""
_AWAY = frozenset({408, 425, 429})
"""What it answers, beside 5xx, when it may take the same event later."""
_LEAST_WAIT, _MOST_WAIT = 0.5, 30.0
"""Seconds between two attempts, while the API or the engine is away."""
_MOST_RETRY_AFTER = 300.0
"""Seconds that we wait at most because the API says so."""
_LAG_INTERVAL = 1.0
"""Seconds between two questions for the lag."""


class Item(msgspec.Struct, frozen=True):
    """An entry of a stream, as it was read: nothing in it is checked."""

    id: str
    """What the engine calls it."""
    channel: str | None = None
    event: str | None = None
    data: bytes | None = None
    """JSON text."""
    socket_id: str | None = None
    flaw: str | None = None
    """Why it can't be published, if the engine knows."""
    handle: Any = None
    """What its source needs to acknowledge or move it."""


class Source(Protocol):
    """A stream of an engine, read by a consumer group: an entry is given to one consumer of the group, which has
    to acknowledge it.

    All methods raise :class:`~reverb.relay.EngineError` when the engine can't be reached or does not answer:
    :meth:`open` is called then, and the same again. Settings that can't work are a
    :class:`~reverb.exceptions.ConfigurationError`. Each is called by one task at a time.
    """

    address: str
    """Where the engine is, for people; without a password."""
    claim_after: float
    """Seconds after which the engine, or another consumer, takes an entry away that is neither acknowledged nor
    held."""

    async def open(self) -> None:
        """Connect, and make what is missing: the stream, and the group, which begins at the first entry."""

    async def close(self) -> None:
        """Close the connections; never raises :class:`~reverb.relay.EngineError`."""

    async def read(self, most: int) -> list[Item]:
        """Return the next entries, in the order of the stream: first those that were given to this consumer
        before, then those that another one has left, then new ones. Waits about a second for one, and returns
        none then."""

    async def hold(self, items: Sequence[Item]) -> None:
        """Tell the engine that they are still being worked on."""

    async def acknowledge(self, items: Sequence[Item]) -> None:
        """Tell the engine that they are done. May be repeated."""

    async def bury(self, item: Item, reason: str) -> None:
        """Write it to the stream of dead letters, with the reason and its id, and acknowledge it."""

    async def lag(self) -> int | None:
        """Return how many entries are not acknowledged; None if the engine can't tell."""


class Published(NamedTuple):
    """The API has accepted events, and they are acknowledged."""

    items: Sequence[Item]


class DeadLetter(NamedTuple):
    """An entry can't be published. It is in the stream of dead letters, and acknowledged."""

    item: Item
    reason: str


class Waiting(NamedTuple):
    """The API or the engine is away. Nothing is acknowledged, and the same is tried again."""

    error: ReverbError
    seconds: float
    """Until then."""


Report: TypeAlias = Published | DeadLetter | Waiting


class _StoppedError(Exception):
    """:meth:`Publisher.stop` was called while we waited."""


class Publisher:
    """Publishes the entries of a stream, in order, and acknowledges what the API has accepted.

    ::

        async with ReverbAPI() as api:
            await Publisher(RedisSource("redis://localhost:6379/0", group="web"), api).run()

    An event is published at least once: twice, if the program dies between the API's answer and the
    acknowledgement, or if an answer is lost. While the API or the engine is away, nothing is acknowledged, and the
    same is tried again until it is done. What can't be published for what it is goes to the stream of dead
    letters, and does not delay the others: it has no channel, its data is no JSON, or the API refuses it (400,
    413, 422).

    ``report`` is called with all that happens.
    """

    def __init__(self, source: Source, api: ReverbAPI, *, report: Callable[[Report], None] | None = None) -> None:
        self.published = 0
        """Events that the API has accepted and that are acknowledged."""
        self.dead = 0
        """Entries that went to the stream of dead letters."""
        self.lag: int | None = None
        """Entries that were not acknowledged, about a second ago or less; None if that is not known."""
        self._source = source
        self._api = api
        self._report = report
        self._backoff = Backoff(_LEAST_WAIT, _MOST_WAIT)
        self._stopping = asyncio.Event()
        self._is_open = False
        self._in_hand: list[Item] = []
        """What was read, in order, and is not acknowledged."""
        self._held_at = 0.0
        self._lag_at = 0.0

    async def run(self) -> None:
        """Publish until :meth:`stop` is called, or forever. To be called once.

        Raises :class:`ConfigurationError` for settings that can't work, and :class:`APIError` when the API refuses
        us rather than an event (401, 403, 404, …): nothing is acknowledged then. When cancelled, it ends at once;
        what is published by then, but not acknowledged, is published again.
        """
        try:
            while not self._stopping.is_set():
                self._in_hand = await self._ask(lambda: self._source.read(MAX_BATCH))
                self._held_at = monotonic()
                await self._publish_all()
                await self._look_at_lag()
        except _StoppedError:
            pass
        finally:
            await self._source.close()

    def stop(self) -> None:
        """Have :meth:`run` end when what it has read is published and acknowledged; at once if the API or the
        engine is away."""
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
        """Publish what the API takes of a batch. Return how many that is, from the first, or why it takes none."""
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
        self._tell(Published(items))

    async def _bury(self, item: Item, reason: str) -> None:
        await self._ask(lambda: self._source.bury(item, reason))
        self._let_go([item])
        self.dead += 1
        log.warning(
            "entry %s, %s on %s, can't be published and is a dead letter now: %s",
            visible(item.id),
            quoted(item.event or ""),
            quoted(item.channel or ""),
            reason,
            extra=event_fields(item.event or "", item.channel),
        )
        self._tell(DeadLetter(item, reason))

    def _let_go(self, items: Sequence[Item]) -> None:
        gone = {id(item) for item in items}
        self._in_hand = [item for item in self._in_hand if id(item) not in gone]

    async def _look_at_lag(self) -> None:
        if monotonic() - self._lag_at >= _LAG_INTERVAL:
            self.lag = await self._ask(self._source.lag)
            self._lag_at = monotonic()

    async def _ask(self, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask the engine, until it answers."""
        while True:
            try:
                if not self._is_open:
                    await _apart(self._source.open())
                    self._is_open = True
                answer = await _apart(question())
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
        log.warning("%s; trying again in %.1f seconds", error, delay)
        self._tell(Waiting(error, delay))
        try:
            await self._holding(asyncio.wait_for(self._stopping.wait(), delay))
        except asyncio.TimeoutError:
            return
        raise _StoppedError

    async def _holding(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for ``work``, and hold meanwhile what is in hand."""
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

    def _tell(self, report: Report) -> None:
        if self._report is not None:
            self._report(report)


async def _apart(work: Coroutine[Any, Any, T]) -> T:
    """Wait for ``work`` in a task of its own: libraries of engines may lose a cancellation, which must end us."""
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
    """Return the URL of an engine as it may be shown. Raises :class:`ConfigurationError` for one that is none."""
    address = _address_of(url.get_secret_value(), schemes)
    if address is None:
        raise ConfigurationError(
            f"the URL of the engine must be like {schemes[0]}://host, with a port if it is an unusual one; in a "
            "password, write what is neither a letter nor a digit as %XX"
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
    """Say why an entry is no event; nothing, if it is one."""
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
            decode_lenient(text)  # which takes half a surrogate pair
    except DECODE_ERRORS as error:
        return f"its data is no JSON: {error}"
    return ""


def _event_of(item: Item) -> BatchEvent:
    assert item.channel is not None  # it has no flaw
    assert item.event is not None
    assert item.data is not None
    return BatchEvent(item.channel, item.event, item.data.decode(), item.socket_id)
