"""Find the events of a channel that the log lacks. Pure: no engine, clock, or task.

A relay that takes over reads the end of the log. It finds the position in its own record at which the log ends,
and writes the events after that position. It compares contents: the last events of the log must equal the events
before the position, in the same order. Two events with the same content are different if the server can't have
sent them at the same time. If several positions fit, the first one counts, because a duplicate is allowed and a
lost event is not. The events between the first and the last of these positions are marked with
:attr:`Entry.again`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

import msgspec

from ._log import Entry

SLACK = 500
"""The largest error of the relays' times in milliseconds.

It covers the error of the estimated engine's clock, and the time of a message from one node of the server to
others."""

_MOST_COMPARED = 200
"""The number of the log's last events that are compared, at most. More events rarely help, and take time."""

Reason = Literal["start", "disconnect", "discovery", "buffer", "size"]
"""Why events may be missing.

``start``: no relay was subscribed before. ``disconnect``: the connection to the server was lost. ``discovery``:
the channel had subscribers before a relay found it. ``buffer``: the log lacks more events than the relay keeps.
``size``: an event is too large for the engine."""


class Received(msgspec.Struct):
    """An event as this relay received it. Times are in milliseconds by the engine's clock."""

    channel: str
    event: str
    data: bytes
    user_id: str | None
    at: int
    """The time at which it was received."""
    after: int
    """A time before which the server can't have sent it."""
    again: bool = False
    """Whether the log may already have it."""


class Gap(msgspec.Struct):
    """A time in which this relay may have missed events of a channel."""

    channel: str
    since: int
    until: int
    reason: Reason


class Segment(msgspec.Struct):
    """Events of a channel that were received without a gap between them."""

    gap: Gap
    """The gap before the events. For the first segment, it covers everything before."""
    events: list[Received]


def align(
    segments: Sequence[Segment], tail: Sequence[Entry], covered: int | None, ping_sent_at: int
) -> tuple[list[Received | Gap], int | None]:
    """Compare a relay's record of a channel with the log.

    Args:
        segments: The record of the channel.
        tail: The last entries of the log, of this channel only.
        covered: The time until which the log has everything, as its last writer said; None if none said that.
        ping_sent_at: When the last ping was sent that the server has answered. The segments have all events that
            the server sent before that.

    Returns:
        The events and gaps that the log lacks, in their order; and the time until which the log is complete
        without them, apart from the gaps that it names.
    """
    context, reported = _end_of(tail)
    known = max((time for time in (covered and covered - SLACK, reported) if time is not None), default=None)
    lowest = _stored(segments, covered)
    fits = (
        [position for position in _positions_from(lowest, segments) if _fits(position, segments, context)]
        if context
        else []
    )
    first, last = (fits[0], fits[-1]) if fits else (lowest, lowest)
    # The log may have events that this relay has not received yet or can't find in its record, or events after
    # those that the last writer wrote again.
    until = max((entry.received_at for entry in tail), default=0) + SLACK
    is_unsure = bool(context) and (not fits or ping_sent_at <= until or context[0].again)
    missing: list[Received | Gap] = []
    for number in range(first[0], len(segments)):
        segment = segments[number]
        skipped = first[1] if number == first[0] else 0
        missing += _rest_of(segment.gap, known, is_first=number == 0)
        for index, event in enumerate(segment.events[skipped:], skipped):
            event.again = (number, index) < last or (is_unsure and event.after <= until)
            missing.append(event)
    return missing, known


Position = tuple[int, int]
"""The number of a segment, and the number of its events before the position."""


def _end_of(tail: Sequence[Entry]) -> tuple[list[Entry], int | None]:
    """Return the last entries without gaps or duplicates among them, the last one first.

    Also return the time until which the gap entries say what the log lacks."""
    context: list[Entry] = []
    reported: int | None = None
    for entry in reversed(tail):
        if entry.is_gap:
            reported = max(reported or 0, msgspec.json.decode(entry.data)["to"])
            if context:
                break
        elif context and context[-1].again and context[-1].epoch != entry.epoch:
            break
        else:
            context.append(entry)
            if len(context) == _MOST_COMPARED:
                break
    if context:
        reported = max(reported or 0, context[0].sent_after - SLACK)
    return context, reported


def _stored(segments: Sequence[Segment], covered: int | None) -> Position:
    """Return the position before which the log has everything, as its last writer said."""
    if covered is not None:
        for number in range(len(segments) - 1, -1, -1):
            count = bisect_left(segments[number].events, covered - SLACK, key=lambda event: event.at)
            if count:
                return number, count
    return 0, 0


def _positions_from(lowest: Position, segments: Sequence[Segment]) -> list[Position]:
    return [
        (number, count)
        for number in range(lowest[0], len(segments))
        for count in range(lowest[1] if number == lowest[0] else 0, len(segments[number].events) + 1)
    ]


def _fits(position: Position, segments: Sequence[Segment], context: list[Entry]) -> bool:
    """Return whether the log can end at this position."""
    number, count = position
    segment = segments[number]
    for entry, index in zip(context, range(count - 1, -1, -1), strict=False):
        if not _is_same(entry, segment.events[index]):
            return False
    # The server must have sent the log's earlier events before the segment began.
    return count >= len(context) or context[count].sent_after <= segment.gap.until + SLACK


def _is_same(entry: Entry, event: Received) -> bool:
    return (
        entry.data == event.data
        and entry.event == event.event
        and entry.user_id == event.user_id
        and entry.sent_after <= event.at + SLACK
        and event.after <= entry.received_at + SLACK
    )


def _rest_of(gap: Gap, known: int | None, *, is_first: bool) -> list[Gap]:
    """Return the part of a gap that the log does not name yet. Before the first entry of a log, nothing is
    missing."""
    if known is None:
        return [] if is_first else [gap]
    since = max(gap.since, known) if not is_first else known
    return [Gap(gap.channel, since, gap.until, gap.reason)] if since < gap.until else []
