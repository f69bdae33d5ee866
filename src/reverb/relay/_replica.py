"""The rules of one relay: its record of events, when it may write, and what it writes. Pure: no engine, clock, or
task, so that a test can play every order of events.

Several relays receive the same events. One of them, the leader, holds the engine's lease and writes. The others
keep their events until the leader's watermark says that the log has them. The leader may fail at any moment. The
relay that takes over writes the events that the log lacks.

**The watermark.** The relay pings the server from time to time. A connection keeps the order of messages. So when
the answer arrives, the relay has received everything that the server sent before the ping. When the log has all
events that arrived before the answer, the time of the ping becomes the watermark. It needs no timeouts, so it is
right however long a process was paused.

**Gaps.** A relay that was not subscribed for a while may have missed events. The gap is part of its record, in its
order. It goes into the log as a gap entry, unless the log already has the events.

Times are in milliseconds by the engine's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from ._alignment import SLACK, Gap, Reason, Received, Segment, align
from ._log import GAP, Entry, Grant, LeaseStatus

_MOST_LEFT = 10_000
"""The number of channels that the relay remembers after it has left them."""
_BYTES_OF_ITEM = 300
"""The memory of an item without its payload, about."""


class State(msgspec.Struct, omit_defaults=True):
    """The state that the leader stores in the engine with the watermark."""

    uncovered: dict[str, int] = {}
    """Channels for which the watermark is not valid, and the time until which the log has all of their events."""
    channels: list[str] | None = None
    """The channels that the leader has found; None if the relay finds no channels."""
    found_at: int | None = None
    """When the leader last polled for channels. New channels may have appeared since."""


class Coverage(msgspec.Struct):
    """Whether this relay receives all events of a channel."""

    open_since: int
    """The time from which events may be missing, while the channel is not subscribed."""
    reason: Reason
    complete_since: int | None = None
    """The time from which no events are missing; None while the channel is not subscribed."""
    is_refused: bool = False
    is_first: bool = True
    """Whether the channel was never subscribed before."""


class Replica:
    """The record and the rules of one relay. You may read its properties in any thread."""

    def __init__(self, *, lease: int, most_bytes: int) -> None:
        self.epoch: int | None = None
        """The epoch in which the relay writes; None while it does not lead."""
        self.watermark: int | None = None
        self.found: list[str] | None = None
        """The channels that the leader has found; None if it has not found any yet."""
        self.found_at: int | None = None
        """When the leader last polled for channels."""
        self.others = 0
        """The number of other relays that are ready to take over."""
        self._lease = lease
        self._most_bytes = most_bytes
        self._keep = 2 * lease
        self._coverage: dict[str, Coverage] = {}
        self._left: dict[str, int] = {}
        """When the relay left channels that it does not follow now."""
        self._uncovered: dict[str, int] = {}
        self._after = 0
        """The server sent everything that arrives from now on after this time."""

        self._record: deque[Received | Gap] = deque()
        self._bytes = 0
        self._cuts: dict[str, int] = {}
        """The time until which the record of each channel was dropped."""
        self._free_since: int | None = None
        self._observed_at = 0
        self._alone_since = 0
        """The time from which each status said that no other relay is ready, with a status at least every half
        lease."""

        # While it leads:
        self._unsure_until = 0
        """The log may already have events that the server may have sent before this time."""
        self._dropped: dict[str, Gap] = {}
        """Gaps for events that had to be dropped before they were written."""
        self._pending: deque[Received | Gap] = deque()
        self._batch: list[Received | Gap] = []
        self._entries: list[Entry] = []
        self._put = 0
        """The number of items that were added to ``_pending`` in this epoch."""
        self._done = 0
        """The number of them that are in the log."""
        self._written = 0
        """The number of the last entry in the log."""
        self._pings: deque[tuple[int, int]] = deque()
        """Pings that were answered: the number of items before the answer, and the time of the ping."""
        self._reporting: list[Gap] = []
        """The gaps of ``_dropped`` that are in the batch, at its beginning."""
        self._gaps: deque[Gap] = deque()
        """The gaps that are not in the log yet."""
        self._lacking_since: dict[str, int] = {}
        """The time from which the log lacks a channel that was not subscribed at the takeover, and still is
        not."""
        self._begun: set[str] | None = None
        """The channels that have entries, if this relay began the log in this epoch; None otherwise."""

    # --- the server --------------------------------------------------------------------------------------------

    def follow(
        self, channel: str, now: int, *, found_after: int | None = None, is_found_by_leader: bool = False
    ) -> None:
        """Add a channel, which is not subscribed yet.

        A channel that was found may have had events since ``found_after``, the last time at which it had no
        subscribers. If that time is not known, events may be missing since the relay left the channel: another
        relay may have them, but its log may get lost."""
        if channel not in self._coverage:
            left = self._left.pop(channel, now)
            self._coverage[channel] = Coverage(
                left if found_after is None else found_after,
                "start" if found_after is None and not is_found_by_leader else "discovery",
            )

    def leave(self, channel: str, now: int, *, empty_at: int | None = None) -> None:
        """Remove a channel.

        Events may be missing until now, because the channel was not subscribed or events are still on their way.
        None are missing if the channel had no subscribers at ``empty_at`` and :meth:`has_all_until` includes that
        time."""
        coverage = self._coverage.pop(channel, None)
        if coverage is None:
            return
        self._remember(self._left, channel, now)
        if coverage.complete_since is not None:
            if empty_at is not None and self.has_all_until(empty_at):
                return
            self._interrupt(coverage)
        self._end_gap(channel, coverage, now)

    def has_all_until(self, time: int) -> bool:
        """Return whether the relay has received everything that the server sent until then on subscribed
        channels."""
        return self._after >= time + SLACK

    def refused(self, channel: str) -> None:
        """Note that the server refuses a channel: don't wait for it. Its gap entry comes when it is subscribed."""
        if channel in self._coverage:
            self._coverage[channel].is_refused = True

    def connecting(self, now: int) -> None:
        """Note a new connection: the server sent everything that arrives from now on later than ``now``."""
        self._after = now

    def subscribed(self, channel: str, now: int) -> None:
        """Note that the server has confirmed a channel: from now on the relay receives all of its events."""
        coverage = self._coverage.get(channel)
        if coverage is None:
            return
        if coverage.complete_since is not None:
            self._interrupt(coverage)
        self._end_gap(channel, coverage, now)
        coverage.complete_since, coverage.is_first, coverage.is_refused = now, False, False

    def lost(self) -> None:
        """Note that the connection to the server is lost."""
        for coverage in self._coverage.values():
            if coverage.complete_since is not None:
                self._interrupt(coverage)

    def received(self, channel: str, event: str, data: bytes, user_id: str | None, now: int) -> None:
        item = Received(channel, event, data, user_id, now, self._after, self._after <= self._unsure_until)
        self._add(item, item)

    def ping_answered(self, sent_at: int) -> None:
        """Note that the server has answered a ping that was sent at this time on the present connection."""
        self._after = sent_at
        if self.epoch is not None:
            self._pings.append((self._put, sent_at))
            self._raise_watermark()

    @property
    def is_complete(self) -> bool:
        """Whether all channels are subscribed, apart from refused ones."""
        return all(each.complete_since is not None or each.is_refused for each in tuple(self._coverage.values()))

    @property
    def is_ready(self) -> bool:
        """Whether the relay could take over now without a gap in the log."""
        watermark = self.watermark
        return (
            self.is_complete
            and watermark is not None
            and all(
                # A channel that is not subscribed does not matter if the leader does not have it either.
                channel in self._uncovered
                if each.complete_since is None
                else max(each.complete_since, self._cuts.get(channel, 0))
                <= self._covered(channel, watermark) - SLACK
                for channel, each in tuple(self._coverage.items())
            )
        )

    @property
    def missing(self) -> int:
        """The number of channels that are not subscribed."""
        return sum(each.complete_since is None for each in tuple(self._coverage.values()))

    def _interrupt(self, coverage: Coverage) -> None:
        assert coverage.complete_since is not None
        coverage.open_since = max(self._after, coverage.complete_since)
        coverage.complete_since, coverage.reason = None, "disconnect"

    def _end_gap(self, channel: str, coverage: Coverage, now: int) -> None:
        is_beginning = self._begun is not None and coverage.reason == "start" and channel not in self._begun
        if self._begun is not None:
            self._begun.add(channel)
        # The record keeps the whole gap, because another log may have fewer events.
        since = self._lacking_since.pop(channel, coverage.open_since)
        self._add(
            Gap(channel, coverage.open_since, now, coverage.reason),
            None if is_beginning else Gap(channel, since, now, coverage.reason),
        )

    # --- the lease ---------------------------------------------------------------------------------------------

    def observed(self, lease_status: LeaseStatus) -> None:
        """Take the status of the lease, while this relay does not lead."""
        self._free_since = None if lease_status.holder is not None else self._free_since or lease_status.clock
        if lease_status.others or lease_status.clock - self._observed_at > self._lease / 2:
            self._alone_since = lease_status.clock
        self._observed_at = lease_status.clock
        self._take(lease_status)
        self._forget()

    def may_take_over(self, now: int) -> bool:
        """Return whether it is this relay's turn to take over.

        First, for one lease, only relays that are ready may take over. Then relays that would leave a gap may.
        Then relays without a connection may, which write the events that they have. A relay may take over one
        lease earlier if nothing was ever written, or if no other relay was ready for a whole lease. After an
        outage of the engine, other relays may not have said yet that they are ready."""
        if self._free_since is None:
            return False
        turn = 0 if self.is_ready else 1 if self.is_complete else 2
        if self.watermark is None or self._observed_at - self._alone_since >= self._lease:
            turn = max(0, turn - 1)
        return now >= self._free_since + turn * self._lease

    def tail_since(self, grant: Grant) -> int:
        """Return the time from which :meth:`take_over` needs the log; 0 for all of it if there is no watermark."""
        if grant.lease_status.watermark is None:
            return 0
        sent = (item.until if isinstance(item, Gap) else item.after for item in self._record)
        return min(sent, default=grant.lease_status.clock) - SLACK

    def take_over(self, grant: Grant, tail: Sequence[Entry]) -> None:
        """Begin to lead, after the end of the log."""
        self._take(grant.lease_status)
        self._free_since = None
        self.epoch = grant.epoch
        self._written = self._done = 0
        is_fresh = self.watermark is None and not tail
        log: dict[str, list[Entry]] = {}
        for entry in tail:
            log.setdefault(entry.channel, []).append(entry)
        for channel in self.found or ():
            self.follow(channel, grant.lease_status.clock)
        missing: list[Received | Gap] = []
        segments = self._segments()
        for channel in [*segments, *(name for name in self._coverage if name not in segments)]:
            covered = None if self.watermark is None else self._covered(channel, self.watermark)
            lacked, known = align(segments.get(channel, ()), log.get(channel, ()), covered, self._after)
            missing += lacked
            coverage = self._coverage.get(channel)
            if coverage is not None and coverage.complete_since is None and known is not None:
                self._lacking_since[channel] = known if coverage.is_first else max(known, coverage.open_since)
        # The items of each channel are in order, and so are their times.
        missing.sort(key=_time_of)
        self._pending.extend(missing)
        self._put = len(missing)
        self._begun = {item.channel for item in missing} if is_fresh else None
        self._gaps.extend(item for item in missing if isinstance(item, Gap))
        self._pings.append((self._put, self._after))
        self._unsure_until = max((entry.received_at for entry in tail), default=0) + SLACK
        self._raise_watermark()

    def lease_lost(self) -> None:
        """Stop leading: another relay leads, or this relay gave the lease back."""
        self.epoch = None
        self._lacking_since.clear()
        self._dropped.clear()
        self._batch, self._entries, self._reporting = [], [], []
        self._pending.clear()
        self._pings.clear()
        self._gaps.clear()

    @property
    def should_hand_over(self) -> bool:
        """Whether this relay leads without all of its channels, and another relay is ready.

        Channels that were just found don't count, because other relays don't have them either."""
        return (
            self.epoch is not None
            and self.others > 0
            and any(
                each.complete_since is None and not each.is_refused and each.reason != "discovery"
                for each in self._coverage.values()
            )
        )

    def progress(self) -> tuple[int | None, bytes]:
        """Return the watermark and the state that the leader stores with each renewal."""
        uncovered = {
            channel: self._lacking_since.get(channel, each.open_since)
            for channel, each in self._coverage.items()
            if each.complete_since is None
        }
        for gap in (*self._reporting, *self._dropped.values(), *self._gaps):
            uncovered[gap.channel] = min(gap.since, uncovered.get(gap.channel, gap.since))
        self._uncovered = uncovered
        return self.watermark, msgspec.json.encode(State(uncovered, self.found, self.found_at))

    def renewed(self, lease_status: LeaseStatus) -> None:
        """Note that the engine has stored the last :meth:`progress`."""
        self.others = lease_status.others
        self._forget()

    def _take(self, lease_status: LeaseStatus) -> None:
        self.watermark, self.others = lease_status.watermark, lease_status.others
        state = msgspec.json.decode(lease_status.state, type=State) if lease_status.state else State()
        self._uncovered, self.found, self.found_at = state.uncovered, state.channels, state.found_at

    # --- writing -----------------------------------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        return self.epoch is not None and bool(self._entries or self._pending or self._dropped)

    @property
    def pending(self) -> int:
        """The number of entries that wait to be written."""
        return len(self._entries) + len(self._pending)

    @property
    def unwritten(self) -> int:
        """The number of events that this relay has and the log may lack."""
        if self.epoch is not None:
            return self.pending
        return sum(isinstance(item, Received) and item.at > (self.watermark or 0) for item in self._record)

    def lag(self, now: int) -> int:
        """Return for how many milliseconds the oldest pending entry has waited."""
        try:
            first = (self._batch or self._pending)[0]
        except IndexError:
            return 0
        return max(0, now - _time_of(first))

    def next_batch(self, most: int) -> Sequence[Entry]:
        """Return the entries to write next. They are the same until :meth:`stored` is called."""
        if not self._entries:
            assert self.epoch is not None
            self._reporting = [*self._dropped.values()]
            self._batch = [*self._reporting]
            self._dropped.clear()
            while self._pending and len(self._batch) < most:
                self._batch.append(self._pending.popleft())
            self._entries = [
                _entry_of(item, self.epoch, number) for number, item in enumerate(self._batch, self._written + 1)
            ]
        return self._entries

    def stored(self) -> None:
        """Note that the batch is in the log."""
        self._written += len(self._batch)
        written = self._batch[len(self._reporting) :]
        self._done += len(written)
        for item in written:
            if isinstance(item, Gap):
                self._gaps.popleft()
        self._batch, self._entries, self._reporting = [], [], []
        self._raise_watermark()

    def _raise_watermark(self) -> None:
        """Raise the watermark to the last ping such that everything before its answer is in the log."""
        if self._dropped or self._reporting:
            return
        while self._pings and self._pings[0][0] <= self._done:
            _, sent_at = self._pings.popleft()
            self.watermark = max(sent_at, self.watermark or 0)

    # --- the record --------------------------------------------------------------------------------------------

    def _add(self, item: Received | Gap, waiting: Received | Gap | None) -> None:
        """Add an item to the record, and queue the part that a leader writes."""
        self._record.append(item)
        self._bytes += _size_of(item)
        if self.epoch is not None and waiting is not None:
            self._pending.append(waiting)
            self._put += 1
            if isinstance(waiting, Gap):
                self._gaps.append(waiting)
        while self._bytes > self._most_bytes:
            self._evict()

    def _evict(self) -> None:
        """Drop the oldest item because the buffer is full, although the log may need it."""
        item = self._record.popleft()
        self._release(item)
        # Items of the same time may be queued in another order.
        while self._pending and (self._pending[0] is item or _time_of(self._pending[0]) < _time_of(item)):
            self._drop(self._pending.popleft())

    def _drop(self, item: Received | Gap) -> None:
        """Replace a pending item by a gap."""
        self._done += 1
        if isinstance(item, Gap):
            self._gaps.popleft()
        since, until = (item.since, item.until) if isinstance(item, Gap) else (item.after, item.at)
        known = self._dropped.setdefault(item.channel, Gap(item.channel, since, until, "buffer"))
        known.since, known.until = min(known.since, since), max(known.until, until)

    def _forget(self) -> None:
        """Drop items that the log has. Keep some older ones to find the end of the log later."""
        if self.watermark is None:
            return
        age = SLACK + self._keep
        limit = self.watermark - age
        safe = min([limit, *(since - age for since in self._uncovered.values())])
        while self._record and _time_of(self._record[0]) < safe:
            self._release(self._record.popleft())
        if self._record and _time_of(self._record[0]) < limit:  # kept for an uncovered channel
            record, self._record = self._record, deque()
            for item in record:
                if _time_of(item) < self._covered(item.channel, self.watermark) - age:
                    self._release(item)
                else:
                    self._record.append(item)

    def _release(self, item: Received | Gap) -> None:
        self._bytes -= _size_of(item)
        self._remember(self._cuts, item.channel, _time_of(item))

    def _remember(self, times: dict[str, int], channel: str, time: int) -> None:
        """Note a time of a channel. Drop the oldest time of other channels if there are too many."""
        times.pop(channel, None)
        times[channel] = time
        if len(times) > len(self._coverage) + _MOST_LEFT:
            del times[next(name for name in times if name not in self._coverage)]

    def _covered(self, channel: str, watermark: int) -> int:
        return min(self._uncovered.get(channel, watermark), watermark)

    def _segments(self) -> dict[str, list[Segment]]:
        """Return the record by channel."""
        found: dict[str, list[Segment]] = {
            channel: [Segment(Gap(channel, 0, cut, "buffer"), [])] for channel, cut in self._cuts.items()
        }
        for item in self._record:
            if isinstance(item, Gap):
                found.setdefault(item.channel, []).append(Segment(item, []))
            else:
                if item.channel not in found:  # received before the server confirmed the channel
                    found[item.channel] = [Segment(Gap(item.channel, 0, item.at, "start"), [])]
                found[item.channel][-1].events.append(item)
        return found

    def shift(self, milliseconds: int) -> None:
        """Move all times, because the estimate of the engine's clock was corrected."""
        self._after += milliseconds
        self._cuts = {channel: cut + milliseconds for channel, cut in self._cuts.items()}
        self._left = {channel: left + milliseconds for channel, left in self._left.items()}
        self._lacking_since = {channel: since + milliseconds for channel, since in self._lacking_since.items()}
        self._pings = deque((count, sent_at + milliseconds) for count, sent_at in self._pings)
        items = (*self._record, *self._pending, *self._batch, *self._dropped.values())
        for item in {id(item): item for item in items}.values():
            if isinstance(item, Gap):
                item.since += milliseconds
                item.until += milliseconds
            else:
                item.at += milliseconds
                item.after += milliseconds
        for coverage in self._coverage.values():
            coverage.open_since += milliseconds
            if coverage.complete_since is not None:
                coverage.complete_since += milliseconds


def _time_of(item: Received | Gap) -> int:
    return item.until if isinstance(item, Gap) else item.at


def _size_of(item: Received | Gap) -> int:
    return _BYTES_OF_ITEM + (0 if isinstance(item, Gap) else len(item.data))


def _entry_of(item: Received | Gap, epoch: int, number: int) -> Entry:
    if isinstance(item, Received):
        return Entry(
            item.channel, item.event, item.data, item.user_id, item.at, item.after, epoch, number, item.again
        )
    data = msgspec.json.encode({"from": item.since, "to": item.until, "reason": item.reason})
    return Entry(item.channel, GAP, data, None, item.until, item.since, epoch, number)
