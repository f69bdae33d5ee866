"""The entries of the log, and :class:`Sink`, the interface between the rules and the engines.

Times are in milliseconds since 1970, by the engine's clock, so that relays on several machines agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ..exceptions import ConnectionError, ReverbError

__all__ = ["GAP", "EngineError", "Entry", "Grant", "LeaseLostError", "LeaseStatus", "Sink", "is_closed_transport"]

GAP = "reverb:gap"
"""The event of a gap entry, which says that events of its channel may be missing at this point of the log.

Its data is ``{"from", "to", "reason"}``, with the times in milliseconds."""


class Entry(msgspec.Struct, frozen=True):
    """An entry of the log: an event, or a gap."""

    channel: str
    event: str
    data: bytes
    """The payload's JSON text, as received."""
    user_id: str | None
    """The user that sent a client event on a presence channel; None for all other events."""
    received_at: int
    """The time at which the relay that wrote this entry received the event."""
    sent_after: int
    """A time before which the server can't have sent the event.

    At this time the relay sent a ping, and the answer to it came before the event. The server sent the event
    between ``sent_after`` and ``received_at``, however long a relay was paused."""
    epoch: int
    """The number of the writer's term. Each relay that takes over begins a term with a higher number."""
    number: int
    """The number of the entry within its epoch: 1, 2, 3 and so on, none left out."""
    again: bool = False
    """Whether the log may already have this event, because the relay that took over could not find out.

    All other events are in the log exactly once."""

    @property
    def is_gap(self) -> bool:
        return self.event == GAP

    def gap(self) -> Entry:
        """Return the gap entry that replaces this entry if it is too large for the engine."""
        data = msgspec.json.encode({"from": self.sent_after, "to": self.received_at, "reason": "size"})
        return msgspec.structs.replace(self, event=GAP, data=data, user_id=None)


class LeaseStatus(msgspec.Struct, frozen=True):
    """The state of the lease, as the engine has it at one moment."""

    clock: int
    """The engine's time."""
    holder: str | None
    """The name of the relay that may write; None if no relay holds the lease."""
    watermark: int | None
    """The log has all events until this time, except those that ``state`` names. None: no relay has written
    yet."""
    state: bytes
    """The state that the last holder stored with the watermark, for the relays after it; may be empty."""
    others: int = 0
    """The number of other relays that are ready to take over, as they said recently."""


class Grant(msgspec.Struct, frozen=True):
    """The right to write, granted to one relay. The engine refuses entries of earlier holders from now on."""

    epoch: int
    """The new epoch."""
    lease_status: LeaseStatus
    """The status with the watermark and the state that the last holder stored."""


class EngineError(ConnectionError):
    """Raised when the engine can't be reached or does not answer in time.

    It is not known whether the engine carried the request out."""


def is_closed_transport(error: BaseException) -> bool:
    """Return whether something was written to a closed connection, in a way that the event loop did not expect.

    The engines' libraries pass on what it raises then: uvloop a :class:`RuntimeError`, and the transports of some
    versions of Python (3.13.0 is one) an :class:`AttributeError`. Others say it later, with an :class:`OSError`.
    """
    text = str(error)
    return (isinstance(error, RuntimeError) and text.endswith("the handler is closed")) or (
        isinstance(error, AttributeError) and "_add_writer" in text
    )


class LeaseLostError(ReverbError):
    """The engine accepts no more entries of this epoch: another relay holds the lease, or the engine has lost it.

    The relay may acquire the lease again. It then compares its record with the log again."""


class Sink(Protocol):
    """An engine that keeps the log.

    All methods raise :class:`EngineError` if the engine can't be reached or does not answer within about half a
    lease. They raise :class:`~reverb.exceptions.ConfigurationError` for problems that another attempt does not
    solve, such as a wrong password or a server that is too old.

    One task at a time calls each method. :meth:`renew` and :meth:`append` may run at the same time.
    """

    address: str
    """The engine's address for messages, without a password."""

    async def open(self) -> None:
        """Connect, and create what the log needs."""

    async def close(self) -> None:
        """Close the connections. Never raises :class:`EngineError`."""

    async def check_lease(self, *, is_ready: bool) -> LeaseStatus:
        """Return the status of the lease, and tell other relays whether this one is ready, for about one lease."""

    async def acquire(self) -> Grant | None:
        """Acquire the lease with a new epoch, if no other relay holds it. Return None if another relay does.

        After that, no entry of an earlier epoch gets into the log."""

    async def renew(self, epoch: int, watermark: int | None, state: bytes) -> LeaseStatus:
        """Extend the lease by another period, and store the watermark and the state.

        Also renews a lease that has expired, if no other relay has acquired it.

        Raises:
            LeaseLostError: ``epoch`` is not the latest one, or the log lacks entries that :meth:`append` has
                written in it. An engine may lose entries when it restarts, and the watermark would hide that.
                Nothing is stored.
        """

    async def release(self, epoch: int, watermark: int | None, state: bytes) -> None:
        """Give the lease back at once, and store the watermark and the state.

        Does nothing where :meth:`renew` would raise :class:`LeaseLostError`."""

    async def tail(self, since: int) -> list[Entry]:
        """Return the entries that were written since then, in the order of the log. Only the holder calls it."""

    async def append(self, epoch: int, entries: Sequence[Entry]) -> None:
        """Append entries to the log, in this order.

        If an entry is too large for the engine, its :meth:`Entry.gap` is written instead. After an
        :class:`EngineError`, you may call this again with the same entries: entries that the log already has are
        skipped. After it returns, the log has all of them, and later calls begin with the next number.

        Raises:
            LeaseLostError: ``epoch`` is not the latest one, or the log lacks entries of this epoch before
                ``entries[0].number``. An engine may lose entries when it restarts.
        """
