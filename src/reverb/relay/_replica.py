"""What one relay does, as rules: what it has received, when it may write, what it writes. Pure: no engine, clock,
or task, so that a test can play every order of things.

Several relays receive the same events. One of them, the leader, holds the engine's lease and writes; the others
keep what they receive, until the leader's watermark says that the log has it. The leader may die at any moment,
and whoever takes over writes what the log lacks.

**The watermark.** The relay asks the server a question (a ping) from time to time. When the answer is there, all
that the server sent before the question was asked has been received, since a connection keeps its order. When all
that was received before the answer is in the log, the time of the question is the watermark. It holds however long
a process was paused, as it needs no timeouts.

**Holes.** A relay that was not subscribed for a while may have missed events. The hole is part of its record, in
its place, and goes into the log as a gap entry, unless the log knows better.

Times are in milliseconds by the engine's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from ._alignment import SLACK, Hole, Reason, Received, Segment, align
from ._log import GAP, Entry, Grant, Sight

_MOST_LEFT = 10_000
"""How many channels that are not followed any more are remembered."""
_BYTES_OF_ITEM = 300
"""About what an item takes in memory beside its payload."""


class State(msgspec.Struct, omit_defaults=True):
    """What the leader leaves in the engine beside the watermark."""

    uncovered: dict[str, int] = {}
    """Channels that the watermark does not count for, and until when the log has everything of them."""
    channels: list[str] | None = None
    """The channels to subscribe to, where the leader finds them; None where they are named."""
    found_at: int | None = None
    """When the leader last asked which channels there are. Others may have come since."""


class Coverage(msgspec.Struct):
    """How well this relay follows a channel."""

    open_since: int
    """Since when events may be missing, while it is not subscribed."""
    reason: Reason
    complete_since: int | None = None
    """Since when nothing is missing; None while the channel is not subscribed."""
    is_refused: bool = False
    is_first: bool = True
    """Whether it was never subscribed before."""


class Replica:
    """One relay's record and rules. What it is may be read in any thread: copies are made of what may change."""

    def __init__(self, *, lease: int, most_bytes: int) -> None:
        self.epoch: int | None = None
        """The epoch in which it writes; None while it does not lead."""
        self.watermark: int | None = None
        self.found: list[str] | None = None
        """The channels that the leader has found, where channels are found."""
        self.found_at: int | None = None
        """When it asked for them."""
        self.others = 0
        """How many other relays are ready."""
        self._lease = lease
        self._most_bytes = most_bytes
        self._keep = 2 * lease
        self._coverage: dict[str, Coverage] = {}
        self._left: dict[str, int] = {}
        """When channels were left that it does not follow now."""
        self._uncovered: dict[str, int] = {}
        self._after = 0
        """Everything received from now on was sent after this time."""

        self._record: deque[Received | Hole] = deque()
        self._bytes = 0
        self._cuts: dict[str, int] = {}
        """Until when the record of each channel is forgotten."""
        self._free_since: int | None = None
        self._sighted_at = 0
        self._alone_since = 0
        """Since when each sight, and they came often, has said that no other relay is ready."""

        # While it leads:
        self._unsure_until = 0
        """What the server may have sent before this time, the log may have already."""
        self._dropped: dict[str, Hole] = {}
        """What had to be forgotten before it was written."""
        self._pending: deque[Received | Hole] = deque()
        self._batch: list[Received | Hole] = []
        self._entries: list[Entry] = []
        self._put = 0
        """How many items have been pending in this epoch, those that still are included."""
        self._done = 0
        """How many of them are in the log."""
        self._written = 0
        """The number of the last entry in the log."""
        self._questions: deque[tuple[int, int]] = deque()
        """Questions that were answered: how many items came before the answer, and when it was asked."""
        self._told: list[Hole] = []
        """What was dropped and is in the batch, in its beginning."""
        self._holes: deque[Hole] = deque()
        """The holes that are not in the log yet."""
        self._lacking_since: dict[str, int] = {}
        """Since when the log lacks channels that were not subscribed at the takeover, and still are not."""
        self._begun: set[str] | None = None
        """The channels of which a log that this reign began has something; None where others began it."""

    # --- the server --------------------------------------------------------------------------------------------

    def follow(
        self, channel: str, now: int, *, found_after: int | None = None, is_found_by_leader: bool = False
    ) -> None:
        """Want a channel, which is not subscribed yet. One that was found may have had events since the time at
        which it was not there yet, ``found_after``. Where that time is not known, events may be missing in the
        record since the channel was left: another relay may have them, but the log of that one may get lost."""
        if channel not in self._coverage:
            left = self._left.pop(channel, now)
            self._coverage[channel] = Coverage(
                left if found_after is None else found_after,
                "start" if found_after is None and not is_found_by_leader else "discovery",
            )

    def leave(self, channel: str, now: int, *, empty_at: int | None = None) -> None:
        """Want a channel no more. Until now something may be missing of one that is not subscribed, or on its way,
        unless the channel was seen without anybody at ``empty_at`` and :meth:`has_all_until` says that time."""
        coverage = self._coverage.pop(channel, None)
        if coverage is None:
            return
        self._remember(self._left, channel, now)
        if coverage.complete_since is not None:
            if empty_at is not None and self.has_all_until(empty_at):
                return
            self._interrupt(coverage)
        self._end_hole(channel, coverage, now)

    def has_all_until(self, time: int) -> bool:
        """Whether it has received all that the server sent until then on the channels that are subscribed."""
        return self._after >= time + SLACK

    def refused(self, channel: str) -> None:
        """A channel can't be subscribed for now, so don't wait for it. The log's gap entry comes when it is."""
        if channel in self._coverage:
            self._coverage[channel].is_refused = True

    def connecting(self, now: int) -> None:
        """What is received from here on was sent later."""
        self._after = now

    def subscribed(self, channel: str, now: int) -> None:
        """The server has confirmed: from now on all events of the channel are received."""
        coverage = self._coverage.get(channel)
        if coverage is None:
            return
        if coverage.complete_since is not None:
            self._interrupt(coverage)
        self._end_hole(channel, coverage, now)
        coverage.complete_since, coverage.is_first, coverage.is_refused = now, False, False

    def lost(self) -> None:
        """The connection to the server is lost."""
        for coverage in self._coverage.values():
            if coverage.complete_since is not None:
                self._interrupt(coverage)

    def received(self, channel: str, event: str, data: bytes, user_id: str | None, now: int) -> None:
        item = Received(channel, event, data, user_id, now, self._after, self._after <= self._unsure_until)
        self._add(item, item)

    def answered(self, asked_at: int) -> None:
        """The server has answered a question that was asked at this time, on the connection that there is."""
        self._after = asked_at
        if self.epoch is not None:
            self._questions.append((self._put, asked_at))
            self._settle()

    @property
    def is_complete(self) -> bool:
        """Whether all channels are subscribed, but those that are refused."""
        return all(each.complete_since is not None or each.is_refused for each in tuple(self._coverage.values()))

    @property
    def is_ready(self) -> bool:
        """Whether it could take over now without a gap in the log."""
        watermark = self.watermark
        return (
            self.is_complete
            and watermark is not None
            and all(
                # Without a channel it is as good as a leader that does not have it either.
                channel in self._uncovered
                if each.complete_since is None
                else max(each.complete_since, self._cuts.get(channel, 0))
                <= self._covered(channel, watermark) - SLACK
                for channel, each in tuple(self._coverage.items())
            )
        )

    @property
    def missing(self) -> int:
        """How many channels are not subscribed."""
        return sum(each.complete_since is None for each in tuple(self._coverage.values()))

    def _interrupt(self, coverage: Coverage) -> None:
        assert coverage.complete_since is not None
        coverage.open_since = max(self._after, coverage.complete_since)
        coverage.complete_since, coverage.reason = None, "disconnect"

    def _end_hole(self, channel: str, coverage: Coverage, now: int) -> None:
        is_beginning = self._begun is not None and coverage.reason == "start" and channel not in self._begun
        if self._begun is not None:
            self._begun.add(channel)
        # The record keeps all of it, as another log may know less.
        since = self._lacking_since.pop(channel, coverage.open_since)
        self._add(
            Hole(channel, coverage.open_since, now, coverage.reason),
            None if is_beginning else Hole(channel, since, now, coverage.reason),
        )

    # --- the lease ---------------------------------------------------------------------------------------------

    def sighted(self, sight: Sight) -> None:
        """The engine has said how the lease is, to a relay that does not lead."""
        self._free_since = None if sight.holder is not None else self._free_since or sight.clock
        if sight.others or sight.clock - self._sighted_at > self._lease / 2:
            self._alone_since = sight.clock
        self._sighted_at = sight.clock
        self._take(sight)
        self._forget()

    def may_take_over(self, now: int) -> bool:
        """Whether it is this relay's turn: one that is ready first, then one with a gap, then one without a
        connection, which writes what it has. Each is a turn earlier where nothing was ever written, and where no
        other relay has been ready for a lease: when the engine was away, they may not have said so yet."""
        if self._free_since is None:
            return False
        turn = 0 if self.is_ready else 1 if self.is_complete else 2
        if self.watermark is None or self._sighted_at - self._alone_since >= self._lease:
            turn = max(0, turn - 1)
        return now >= self._free_since + turn * self._lease

    def tail_since(self, grant: Grant) -> int:
        """From which time on :meth:`take_over` needs the log: all of it where no watermark says what it has."""
        if grant.sight.watermark is None:
            return 0
        sent = (item.until if isinstance(item, Hole) else item.after for item in self._record)
        return min(sent, default=grant.sight.clock) - SLACK

    def take_over(self, grant: Grant, tail: Sequence[Entry]) -> None:
        """Lead, from the end of the log on."""
        self._take(grant.sight)
        self._free_since = None
        self.epoch = grant.epoch
        self._written = self._done = 0
        is_fresh = self.watermark is None and not tail
        log: dict[str, list[Entry]] = {}
        for entry in tail:
            log.setdefault(entry.channel, []).append(entry)
        for channel in self.found or ():
            self.follow(channel, grant.sight.clock)
        missing: list[Received | Hole] = []
        segments = self._segments()
        for channel in [*segments, *(name for name in self._coverage if name not in segments)]:
            covered = None if self.watermark is None else self._covered(channel, self.watermark)
            lacked, known = align(segments.get(channel, ()), log.get(channel, ()), covered, self._after)
            missing += lacked
            coverage = self._coverage.get(channel)
            if coverage is not None and coverage.complete_since is None and known is not None:
                self._lacking_since[channel] = known if coverage.is_first else max(known, coverage.open_since)
        # Of each channel they are in order, and so are its times.
        missing.sort(key=_time_of)
        self._pending.extend(missing)
        self._put = len(missing)
        self._begun = {item.channel for item in missing} if is_fresh else None
        self._holes.extend(item for item in missing if isinstance(item, Hole))
        self._questions.append((self._put, self._after))
        self._unsure_until = max((entry.received_at for entry in tail), default=-SLACK) + SLACK
        self._settle()

    def deposed(self) -> None:
        """Another relay leads, or the lease is given back."""
        self.epoch = None
        self._lacking_since.clear()
        self._dropped.clear()
        self._batch, self._entries, self._told = [], [], []
        self._pending.clear()
        self._questions.clear()
        self._holes.clear()

    @property
    def should_hand_over(self) -> bool:
        """Whether it leads, but another relay could do it better: one that is connected. The others don't have a
        channel that this one has just found either."""
        return (
            self.epoch is not None
            and self.others > 0
            and any(
                each.complete_since is None and not each.is_refused and each.reason != "discovery"
                for each in self._coverage.values()
            )
        )

    def progress(self) -> tuple[int | None, bytes]:
        """What a leader says with each renewal: watermark and state."""
        uncovered = {
            channel: self._lacking_since.get(channel, each.open_since)
            for channel, each in self._coverage.items()
            if each.complete_since is None
        }
        for hole in (*self._told, *self._dropped.values(), *self._holes):
            uncovered[hole.channel] = min(hole.since, uncovered.get(hole.channel, hole.since))
        self._uncovered = uncovered
        return self.watermark, msgspec.json.encode(State(uncovered, self.found, self.found_at))

    def renewed(self, sight: Sight) -> None:
        """The engine has taken the last :meth:`progress`."""
        self.others = sight.others
        self._forget()

    def _take(self, sight: Sight) -> None:
        self.watermark, self.others = sight.watermark, sight.others
        state = msgspec.json.decode(sight.state, type=State) if sight.state else State()
        self._uncovered, self.found, self.found_at = state.uncovered, state.channels, state.found_at

    # --- writing -----------------------------------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        return self.epoch is not None and bool(self._entries or self._pending or self._dropped)

    @property
    def pending(self) -> int:
        """How many entries wait to be written."""
        return len(self._entries) + len(self._pending)

    @property
    def unwritten(self) -> int:
        """How many entries the log may lack for as long as no relay writes."""
        if self.epoch is not None:
            return self.pending
        return sum(isinstance(item, Received) and item.at > (self.watermark or 0) for item in self._record)

    def lag(self, now: int) -> int:
        """For how many milliseconds the oldest of them has waited."""
        try:
            first = (self._batch or self._pending)[0]
        except IndexError:
            return 0
        return max(0, now - _time_of(first))

    def next_batch(self, most: int) -> Sequence[Entry]:
        """What a leader writes next: the same again until it is :meth:`stored`."""
        if not self._entries:
            assert self.epoch is not None
            self._told = [*self._dropped.values()]
            self._batch = [*self._told]
            self._dropped.clear()
            while self._pending and len(self._batch) < most:
                self._batch.append(self._pending.popleft())
            self._entries = [
                _entry_of(item, self.epoch, number) for number, item in enumerate(self._batch, self._written + 1)
            ]
        return self._entries

    def stored(self) -> None:
        """The batch is in the log."""
        self._written += len(self._batch)
        written = self._batch[len(self._told) :]
        self._done += len(written)
        for item in written:
            if isinstance(item, Hole):
                self._holes.popleft()
        self._batch, self._entries, self._told = [], [], []
        self._settle()

    def _settle(self) -> None:
        """Raise the watermark to the last question before whose answer nothing waits to be written."""
        if self._dropped or self._told:
            return
        while self._questions and self._questions[0][0] <= self._done:
            _, asked_at = self._questions.popleft()
            self.watermark = max(asked_at, self.watermark or 0)

    # --- the record --------------------------------------------------------------------------------------------

    def _add(self, item: Received | Hole, waiting: Received | Hole | None) -> None:
        """Record an item, and let what a leader writes of it wait."""
        self._record.append(item)
        self._bytes += _size_of(item)
        if self.epoch is not None and waiting is not None:
            self._pending.append(waiting)
            self._put += 1
            if isinstance(waiting, Hole):
                self._holes.append(waiting)
        while self._bytes > self._most_bytes:
            self._evict()

    def _evict(self) -> None:
        """Forget the oldest item, though the log may need it."""
        item = self._record.popleft()
        self._release(item)
        # What came at the same time may wait in another order.
        while self._pending and (self._pending[0] is item or _time_of(self._pending[0]) < _time_of(item)):
            self._drop(self._pending.popleft())

    def _drop(self, item: Received | Hole) -> None:
        """Write a gap instead of what is pending."""
        self._done += 1
        if isinstance(item, Hole):
            self._holes.popleft()
        since, until = (item.since, item.until) if isinstance(item, Hole) else (item.after, item.at)
        known = self._dropped.setdefault(item.channel, Hole(item.channel, since, until, "buffer"))
        known.since, known.until = min(known.since, since), max(known.until, until)

    def _forget(self) -> None:
        """Forget what the log has, but for some older events, which show where it ends."""
        if self.watermark is None:
            return
        age = SLACK + self._keep
        limit = self.watermark - age
        safe = min(limit, *(since - age for since in self._uncovered.values()), limit)
        while self._record and _time_of(self._record[0]) < safe:
            self._release(self._record.popleft())
        if self._record and _time_of(self._record[0]) < limit:  # kept for a channel that is not covered
            record, self._record = self._record, deque()
            for item in record:
                if _time_of(item) < self._covered(item.channel, self.watermark) - age:
                    self._release(item)
                else:
                    self._record.append(item)

    def _release(self, item: Received | Hole) -> None:
        self._bytes -= _size_of(item)
        self._remember(self._cuts, item.channel, _time_of(item))

    def _remember(self, times: dict[str, int], channel: str, time: int) -> None:
        """Note a time of a channel, and forget the oldest one of channels that are not followed."""
        times.pop(channel, None)
        times[channel] = time
        if len(times) > len(self._coverage) + _MOST_LEFT:
            del times[next(name for name in times if name not in self._coverage)]

    def _covered(self, channel: str, watermark: int) -> int:
        return min(self._uncovered.get(channel, watermark), watermark)

    def _segments(self) -> dict[str, list[Segment]]:
        """The record, by channel."""
        found: dict[str, list[Segment]] = {
            channel: [Segment(Hole(channel, 0, cut, "buffer"), [])] for channel, cut in self._cuts.items()
        }
        for item in self._record:
            if isinstance(item, Hole):
                found.setdefault(item.channel, []).append(Segment(item, []))
            else:
                if item.channel not in found:  # received before the server confirmed
                    found[item.channel] = [Segment(Hole(item.channel, 0, item.at, "start"), [])]
                found[item.channel][-1].events.append(item)
        return found

    def shift(self, milliseconds: int) -> None:
        """Move all times: the engine's clock turned out to be another one."""
        self._after += milliseconds
        self._cuts = {channel: cut + milliseconds for channel, cut in self._cuts.items()}
        self._left = {channel: left + milliseconds for channel, left in self._left.items()}
        self._lacking_since = {channel: since + milliseconds for channel, since in self._lacking_since.items()}
        self._questions = deque((count, asked_at + milliseconds) for count, asked_at in self._questions)
        items = (*self._record, *self._pending, *self._batch, *self._dropped.values())
        for item in {id(item): item for item in items}.values():
            if isinstance(item, Hole):
                item.since += milliseconds
                item.until += milliseconds
            else:
                item.at += milliseconds
                item.after += milliseconds
        for coverage in self._coverage.values():
            coverage.open_since += milliseconds
            if coverage.complete_since is not None:
                coverage.complete_since += milliseconds


def _time_of(item: Received | Hole) -> int:
    return item.until if isinstance(item, Hole) else item.at


def _size_of(item: Received | Hole) -> int:
    return _BYTES_OF_ITEM + (0 if isinstance(item, Hole) else len(item.data))


def _entry_of(item: Received | Hole, epoch: int, number: int) -> Entry:
    if isinstance(item, Received):
        return Entry(
            item.channel, item.event, item.data, item.user_id, item.at, item.after, epoch, number, item.again
        )
    data = msgspec.json.encode({"from": item.since, "to": item.until, "reason": item.reason})
    return Entry(item.channel, GAP, data, None, item.until, item.since, epoch, number)
