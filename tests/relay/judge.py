"""What a log that relays have written has to hold, by what was published. Pure.

Events that are alike can't be told apart. So the log is laid beside what was published, channel by channel, in the
way that finds the least fault: as many events as possible have their entry, in order, and as few as possible are
missing without a gap entry that says so, or there without being published or marked as perhaps double.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from reverb.relay._alignment import SLACK
from reverb.relay._log import Entry

_FAULT = 1_000_000
"""The weight of what must not be, beside the 1 of what may be."""


class Sent(NamedTuple):
    """An event that was published. Times are in milliseconds since the epoch."""

    data: bytes
    since: int
    """When its request began."""
    until: int
    """When its request was answered."""
    is_certain: bool = True
    """Whether the server said that it took it; else it may have, or not."""


@dataclass
class Verdict:
    """What is right and wrong with a log."""

    sent: int = 0
    """Events that the server took."""
    entries: int = 0
    """Entries of the log that are events."""
    again: int = 0
    """How many of them are marked as perhaps double."""
    doubles: int = 0
    """How many of those are double."""
    gaps: int = 0
    gap_seconds: float = 0.0
    """The time under gap entries, on average of the channels."""
    told: int = 0
    """Events that are missing, under a gap entry."""
    lost: list[str] = field(default_factory=list)
    """Events that are missing, and no gap entry says so."""
    disordered: list[str] = field(default_factory=list)
    """Events that are in the log, but behind later ones."""
    extra: list[str] = field(default_factory=list)
    """Entries that are double without a mark, or that nobody published."""
    out_of_turn: list[str] = field(default_factory=list)
    """Entries that don't follow the entry before, by their epochs and numbers."""

    @property
    def double_share(self) -> float:
        return self.doubles / self.sent if self.sent else 0.0

    @property
    def violations(self) -> list[str]:
        return [*self.lost, *self.disordered, *self.extra, *self.out_of_turn]


class Gap(NamedTuple):
    since: int
    until: int


def judge(sent: Mapping[str, Sequence[Sent]], log: Sequence[Entry]) -> Verdict:
    """Compare a whole log with what was published on each channel, in order."""
    verdict = Verdict()
    _check_turns(log, verdict)
    entries: dict[str, list[Entry]] = {channel: [] for channel in sent}
    for entry in log:
        entries.setdefault(entry.channel, []).append(entry)
    for channel, those in entries.items():
        _judge_channel(channel, sent.get(channel, ()), those, verdict, len(entries))
    return verdict


def _check_turns(log: Sequence[Entry], verdict: Verdict) -> None:
    last = (0, 0)
    for entry in log:
        own = (entry.epoch, entry.number)
        if own != (last[0], last[1] + 1) and not (entry.epoch > last[0] and entry.number == 1):
            verdict.out_of_turn.append(f"{own[0]}-{own[1]} on {entry.channel} stands behind {last[0]}-{last[1]}")
        last = max(last, own)


def _judge_channel(
    channel: str, sent: Sequence[Sent], log: Sequence[Entry], verdict: Verdict, channels: int
) -> None:
    gaps = [gap_of(entry) for entry in log if entry.is_gap]
    entries = [entry for entry in log if not entry.is_gap]
    is_told = [_lies_under(event, gaps) for event in sent]
    pairs = _pairs(sent, entries, is_told)
    placed = {index for index, _ in pairs}
    explained = {index for _, index in pairs}
    lost = [
        event
        for index, event in enumerate(sent)
        if index not in placed and event.is_certain and not is_told[index]
    ]
    unexplained = [entry for index, entry in enumerate(entries) if index not in explained]

    verdict.sent += sum(event.is_certain for event in sent)
    verdict.entries += len(entries)
    verdict.again += sum(entry.again for entry in entries)
    verdict.gaps += len(gaps)
    verdict.gap_seconds += _seconds(gaps) / channels
    verdict.told += sum(
        event.is_certain and is_told[index] for index, event in enumerate(sent) if index not in placed
    )
    for entry in unexplained:
        if entry.again and any(_may_be(event, entry) for event in sent):
            verdict.doubles += 1
            continue
        what = f"{entry.data.decode()} as {entry.epoch}-{entry.number} on {channel}"
        match = next((event for event in lost if _may_be(event, entry)), None)
        if match is not None:
            lost.remove(match)
            verdict.disordered.append(f"out of order: {what}, received at {entry.received_at}")
        else:
            verdict.extra.append(
                f"neither published nor marked as double: {what}, received at {entry.received_at}"
            )
    verdict.lost += [
        f"lost: {event.data.decode()} on {channel}, published from {event.since} to {event.until}"
        for event in lost
    ]


def gap_of(entry: Entry) -> Gap:
    said = msgspec.json.decode(entry.data)
    return Gap(said["to"] if said["from"] is None else said["from"], said["to"])


def _lies_under(event: Sent, gaps: Sequence[Gap]) -> bool:
    return any(gap.since - SLACK <= event.until and event.since <= gap.until + SLACK for gap in gaps)


def _seconds(gaps: Sequence[Gap]) -> float:
    """The length of their union."""
    total, end = 0, 0
    for gap in sorted(gaps):
        total += max(0, gap.until - max(gap.since, end))
        end = max(end, gap.until)
    return total / 1000


def _may_be(event: Sent, entry: Entry) -> bool:
    return (
        event.data == entry.data
        and entry.sent_after - SLACK <= event.until
        and event.since <= entry.received_at + SLACK
    )


class _Chain(NamedTuple):
    """Pairs in order, the last one first, and what they weigh together."""

    weight: int
    pair: tuple[int, int]
    rest: _Chain | None


def _pairs(sent: Sequence[Sent], entries: Sequence[Entry], is_told: Sequence[bool]) -> list[tuple[int, int]]:
    """Find which event has which entry: the rising pairs with the highest weight, where each pair weighs what it
    would cost to leave event and entry without one."""
    places: dict[bytes, list[int]] = {}
    for index, event in enumerate(sent):
        places.setdefault(event.data, []).append(index)
    # A Fenwick tree: the heaviest chain that ends with an event before a given one.
    tree: list[_Chain | None] = [None] * (len(sent) + 1)
    for number, entry in enumerate(entries):
        # Backwards, so that no chain has two pairs with this entry.
        for index in reversed(places.get(entry.data, [])):
            event = sent[index]
            if not _may_be(event, entry):
                continue
            rest = _heaviest(tree, index)
            cost = 1 if is_told[index] or not event.is_certain else _FAULT
            weight = cost + (1 if entry.again else _FAULT) + (0 if rest is None else rest.weight)
            chain = _Chain(weight, (index, number), rest)
            place = index + 1
            while place < len(tree):
                known = tree[place]
                if known is None or known.weight < weight:
                    tree[place] = chain
                place += place & -place
    found = []
    best = _heaviest(tree, len(sent))
    while best is not None:
        found.append(best.pair)
        best = best.rest
    return found[::-1]


def _heaviest(tree: Sequence[_Chain | None], count: int) -> _Chain | None:
    """The heaviest chain among the first so many events."""
    best: _Chain | None = None
    while count:
        chain = tree[count]
        if chain is not None and (best is None or chain.weight > best.weight):
            best = chain
        count -= count & -count
    return best
