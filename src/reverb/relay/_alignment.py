"""Where the log ends within what a relay has received of one channel. Pure: no engine, clock, or task.

A relay that takes over reads the end of the log, finds that place in its own record, and writes what comes behind
it. Contents decide, in their order: the log's last events have to be those that the record has before that place.
Two events that are alike are still different ones when the times between which the
server sent them can't be the same. Where several places fit, the first one counts, since twice is allowed and lost
is not; the events between the first and the last of them are marked as :attr:`Entry.again`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

import msgspec

from ._log import Entry

SLACK = 500
"""How far the relays' times may be off, in milliseconds: their error in reading the engine's clock, and the time
that a message takes from one node of the server to the others."""


_MOST_COMPARED = 200
"""How many of the log's last events are looked for, at most. More would rarely tell more, and where many are alike
each costs time at each place."""

Reason = Literal["start", "disconnect", "discovery", "buffer", "size"]
"""Why events may be missing: no relay was subscribed before; the connection to the server was lost; the channel
was in use before it was found; the log lacks more than the relay keeps; an event is too
large for the engine."""


class Received(msgspec.Struct):
    """An event as this relay received it. Times are in milliseconds by the engine's clock."""

    channel: str
    event: str
    data: bytes
    user_id: str | None
    at: int
    """When it was received."""
    after: int
    """The server sent it at this time or later."""
    again: bool = False
    """Whether the log may have it already."""


class Hole(msgspec.Struct):
    """A time in which this relay did not get all events of a channel."""

    channel: str
    since: int
    until: int
    reason: Reason


class Segment(msgspec.Struct):
    """What was received of a channel without a hole in between."""

    hole: Hole
    """What is before it; for the first segment everything before it."""
    events: list[Received]


def align(
    segments: Sequence[Segment], tail: Sequence[Entry], covered: int | None, asked_at: int
) -> tuple[list[Received | Hole], int | None]:
    """Return what the log lacks of a channel, in order; and until when the log has everything, or says what not,
    before that is written.

    ``tail`` is the end of the log, this channel's entries; ``covered`` is the time until which the log has
    everything, by its last writer's word. None means: nobody said so. ``asked_at`` is when the last question was
    asked that the server has answered: what it sent before that is in the segments.
    """
    context, told = _end_of(tail)
    known = max((time for time in (covered and covered - SLACK, told) if time is not None), default=None)
    lowest = _stored(segments, covered)
    fits = (
        [place for place in _places_from(lowest, segments) if _fits(place, segments, context)] if context else []
    )
    first, last = (fits[0], fits[-1]) if fits else (lowest, lowest)
    # The log may have events that this relay has not received yet, or can't place, or that come behind those that
    # the last writer wrote again before it ended.
    until = max((entry.received_at for entry in tail), default=0) + SLACK
    is_unsure = bool(context) and (not fits or asked_at <= until or context[0].again)
    missing: list[Received | Hole] = []
    for number in range(first[0], len(segments)):
        segment = segments[number]
        skipped = first[1] if number == first[0] else 0
        missing += _rest_of(segment.hole, known, is_first=number == 0)
        for index, event in enumerate(segment.events[skipped:], skipped):
            event.again = (number, index) < last or (is_unsure and event.after <= until)
            missing.append(event)
    return missing, known


Place = tuple[int, int]
"""A segment, and how many of its events are before this place."""


def _end_of(tail: Sequence[Entry]) -> tuple[list[Entry], int | None]:
    """The last entries among which nothing is missing or double, the last one first; and until when the log
    says what it lacks."""
    context: list[Entry] = []
    told: int | None = None
    for entry in reversed(tail):
        if entry.is_gap:
            told = max(told or 0, msgspec.json.decode(entry.data)["to"])
            if context:
                break
        elif context and context[-1].again and context[-1].epoch != entry.epoch:
            break
        else:
            context.append(entry)
            if len(context) == _MOST_COMPARED:
                break
    if context:
        told = max(told or 0, context[0].sent_after - SLACK)
    return context, told


def _stored(segments: Sequence[Segment], covered: int | None) -> Place:
    """The place before which the log has everything, by its last writer's word."""
    if covered is not None:
        for number in range(len(segments) - 1, -1, -1):
            count = bisect_left(segments[number].events, covered - SLACK, key=lambda event: event.at)
            if count:
                return number, count
    return 0, 0


def _places_from(lowest: Place, segments: Sequence[Segment]) -> list[Place]:
    return [
        (number, count)
        for number in range(lowest[0], len(segments))
        for count in range(lowest[1] if number == lowest[0] else 0, len(segments[number].events) + 1)
    ]


def _fits(place: Place, segments: Sequence[Segment], context: list[Entry]) -> bool:
    """Whether the log can end there."""
    number, count = place
    segment = segments[number]
    for entry, index in zip(context, range(count - 1, -1, -1), strict=False):
        if not _is_same(entry, segment.events[index]):
            return False
    # What the log has before the segment's first event must have been sent before the segment began.
    return count >= len(context) or context[count].sent_after <= segment.hole.until + SLACK


def _is_same(entry: Entry, event: Received) -> bool:
    return (
        entry.data == event.data
        and entry.event == event.event
        and entry.user_id == event.user_id
        and entry.sent_after <= event.at + SLACK
        and event.after <= entry.received_at + SLACK
    )


def _rest_of(hole: Hole, known: int | None, *, is_first: bool) -> list[Hole]:
    """What the log does not know yet of a hole. Before a log's first entry nothing is missing."""
    if known is None:
        return [] if is_first else [hole]
    since = max(hole.since, known) if not is_first else known
    return [Hole(hole.channel, since, hole.until, hole.reason)] if since < hole.until else []
