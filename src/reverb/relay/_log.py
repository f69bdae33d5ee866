"""The log that relays write, and what an engine has to be able to do: the interface between rules and engines.

Times are in milliseconds since the epoch by the engine's clock, so that relays on several machines agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ..exceptions import ConnectionError, ReverbError

__all__ = ["GAP", "DeposedError", "EngineError", "Entry", "Grant", "Sight", "Sink"]

GAP = "reverb:gap"
"""The event of an entry that says: events of its channel may be missing here. Its data is ``{"from", "to",
"reason"}``, the times in milliseconds; see :class:`Entry`."""


class Entry(msgspec.Struct, frozen=True):
    """One entry of the log: an event, or a gap."""

    channel: str
    event: str
    data: bytes
    """The payload's JSON text, as received."""
    user_id: str | None
    """Who sent a client event on a presence channel; None for all other events."""
    received_at: int
    """When the relay that wrote it received it."""
    sent_after: int
    """The server sent it at this time or later: then the relay asked the server a question, and the answer came
    before this event. With ``received_at`` it bounds the true time, however long a relay was paused."""
    epoch: int
    """Which reign of a writer it was written in. Each writer that takes over has a higher one."""
    number: int
    """Its number within the epoch, from 1, without holes."""
    again: bool = False
    """Whether it may be in the log already: the writer that took over could not tell. All other entries are there
    once."""

    @property
    def is_gap(self) -> bool:
        return self.event == GAP

    def gap(self) -> Entry:
        """What says that this event is missing, for an engine that does not take it."""
        data = msgspec.json.encode({"from": self.sent_after, "to": self.received_at, "reason": "size"})
        return msgspec.structs.replace(self, event=GAP, data=data, user_id=None)


class Sight(msgspec.Struct, frozen=True):
    """What the engine says about the lease when it is asked, all of one instant."""

    clock: int
    """The engine's time."""
    holder: str | None
    """The relay that may write; None when nobody holds the lease."""
    watermark: int | None
    """All that a holder received until then is in the log, but for what ``state`` says. None: never written."""
    state: bytes
    """What the last holder left beside the watermark, for those that follow; empty when there is nothing."""
    others: int = 0
    """How many other relays said lately that they are ready to take over."""


class Grant(msgspec.Struct, frozen=True):
    """The right to write, given to one relay. What earlier holders still send is refused from now on."""

    epoch: int
    sight: Sight
    """The watermark and state that the last holder left."""


class EngineError(ConnectionError):
    """The engine can't be reached, or did not answer in time. Whether it did what was asked is not known."""


class DeposedError(ReverbError):
    """The engine takes nothing of this epoch any more: the lease is another relay's, or gone with the engine's
    memory. The relay may acquire it anew, and aligns itself then."""


class Sink(Protocol):
    """An engine that keeps the log. All methods raise :class:`EngineError` when the engine can't be reached or
    doesn't answer within about half a lease; a wrong password, a server that is too old, and the like are a
    :class:`~reverb.exceptions.ConfigurationError`.

    Each is called by one task at a time, but :meth:`renew` and :meth:`append` may be called side by side.
    """

    address: str
    """Where the engine is, for people; without a password."""

    async def open(self) -> None:
        """Connect, and make what is needed."""

    async def close(self) -> None:
        """Close the connections; never raises :class:`EngineError`."""

    async def look(self, *, is_ready: bool) -> Sight:
        """How the lease is; and tell the others whether this relay is ready, which holds for about a lease."""

    async def acquire(self) -> Grant | None:
        """Become the writer, with a new epoch, if nobody holds the lease or this relay does itself. None: another
        one holds it. From its return on, no entry of an earlier epoch gets into the log."""

    async def renew(self, epoch: int, watermark: int | None, state: bytes) -> Sight:
        """Hold the lease for another period, and say what is stored.

        Raises :class:`DeposedError`, and stores nothing, when ``epoch`` is not the latest, or when entries of it
        that :meth:`append` has returned for are not in the log (an engine that was restarted may have lost them):
        the watermark would hide that. A lease that has run out, but that nobody else has taken, is renewed."""

    async def release(self, epoch: int, watermark: int | None, state: bytes) -> None:
        """Give the lease back at once, and say what is stored. Does nothing where :meth:`renew` would raise
        :class:`DeposedError`."""

    async def tail(self, since: int) -> list[Entry]:
        """The entries that were written since then, in the order of the log. Called by the holder."""

    async def append(self, epoch: int, entries: Sequence[Entry]) -> None:
        """Write entries behind all others, in this order, if ``epoch`` is the latest; raise
        :class:`DeposedError` otherwise, and when entries of this epoch before ``entries[0].number`` are not in the
        log (an engine that was restarted may have lost some). In place of an entry that is too large for the
        engine its :meth:`Entry.gap` is written.

        May be repeated with the same entries after an :class:`EngineError`: what is in the log already is left
        out. When it returns, all are in the log and later calls begin with the next number."""
