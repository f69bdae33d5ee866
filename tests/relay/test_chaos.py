"""The short form of ``chaos.py``, and that its judge refuses what it has to refuse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from reverb.relay._alignment import SLACK
from reverb.relay._log import GAP, Entry

from .chaos import kill_leader_in_a_burst, run, stop_leader
from .judge import Sent, Verdict, judge
from .processes import ENGINES

LATE = SLACK + 1000


@pytest.mark.timeout(180)
@pytest.mark.parametrize("engine", ENGINES)
async def test_nothing_is_lost_when_leaders_are_killed_and_stopped(engine: str, tmp_path: Path) -> None:
    faults = [kill_leader_in_a_burst, stop_leader]
    outcome = await run(engine, tmp_path, 1, seconds=0, lease=1.0, rate=200.0, faults=faults)
    assert outcome.failure is None
    assert outcome.verdict.violations == []
    assert outcome.verdict.sent > 100
    assert outcome.takeovers >= 3
    assert outcome.is_good


# --- the judge -------------------------------------------------------------------------------------------------


def sent(text: str) -> dict[str, list[Sent]]:
    """Events that were published a second apart, one for each letter."""
    return {"orders": [Sent(letter.encode(), 1000 * n, 1000 * n + 5) for n, letter in enumerate(text)]}


def written(text: str, at: Sequence[int] | None = None, *, again: Sequence[int] = ()) -> list[Entry]:
    """Entries in one epoch, one for each letter, with the times of what was published ``at`` these places."""
    places = range(len(text)) if at is None else at
    return [
        Entry("orders", "counted", letter.encode(), None, 1000 * n + 7, 1000 * n - 100, 1, number, number in again)
        for number, (letter, n) in enumerate(zip(text, places, strict=True), 1)
    ]


def gap(since: int | None, until: int, number: int) -> Entry:
    data = msgspec.json.encode({"from": since, "to": until, "reason": "disconnect"})
    return Entry("orders", GAP, data, None, until, since or 0, 1, number)


def numbers(verdict: Verdict) -> tuple[int, int, int, int]:
    return len(verdict.lost), len(verdict.disordered), len(verdict.extra), len(verdict.out_of_turn)


def test_a_log_that_has_everything_once_is_good() -> None:
    verdict = judge(sent("abbc"), written("abbc"))
    assert numbers(verdict) == (0, 0, 0, 0)
    assert (verdict.sent, verdict.entries, verdict.doubles, verdict.gaps, verdict.told) == (4, 4, 0, 0, 0)


def test_what_is_missing_is_lost() -> None:
    verdict = judge(sent("abcd"), written("abd", [0, 1, 3]))
    assert verdict.violations == ["lost: c on orders, published from 2000 to 2005"]
    assert numbers(judge(sent("ab"), [])) == (2, 0, 0, 0)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_and_so_is_one_of_several_that_are_equal(place: int) -> None:
    at = [n for n in range(3) if n != place]
    assert numbers(judge(sent("bbb"), written("bb", at))) == (1, 0, 0, 0)


def test_an_entry_may_be_missing_where_a_gap_entry_says_so() -> None:
    log = [*written("ab", [0, 1]), gap(1500, 2000, 3), numbered(written("d", [3])[0], 4)]
    verdict = judge(sent("abcd"), log)
    assert numbers(verdict) == (0, 0, 0, 0)
    assert (verdict.told, verdict.gaps, verdict.gap_seconds) == (1, 1, 0.5)


@pytest.mark.parametrize(("since", "until"), [(0, 1999 - SLACK), (2006 + SLACK, 9000)])
def test_a_gap_entry_counts_for_its_time_only(since: int, until: int) -> None:
    log = [*written("ab", [0, 1]), gap(since, until, 3), numbered(written("d", [3])[0], 4)]
    assert numbers(judge(sent("abcd"), log)) == (1, 0, 0, 0)


def test_and_for_its_channel_only() -> None:
    log = [*written("a"), msgspec.structs.replace(gap(0, 9000, 2), channel="other")]
    assert numbers(judge(sent("ab"), log)) == (1, 0, 0, 0)


def test_of_equal_events_the_one_under_the_gap_entry_is_missing() -> None:
    log = [gap(0, 10, 1), *(numbered(entry, entry.number + 1) for entry in written("bb", [1, 2]))]
    assert numbers(judge(sent("bbb"), log)) == (0, 0, 0, 0)
    # By its times, the one entry here can only be the first event.
    assert numbers(judge(sent("bb"), [gap(0, 10, 1), numbered(written("b", [0])[0], 2)])) == (1, 0, 0, 0)


def test_what_is_too_late_is_out_of_order() -> None:
    assert numbers(judge(sent("abcd"), written("acbd", [0, 2, 1, 3]))) == (0, 1, 0, 0)


def test_a_mark_does_not_make_order_of_disorder() -> None:
    # c came first behind d, and is no double.
    verdict = judge(sent("abcd"), written("abdc", [0, 1, 3, 2], again=[4]))
    assert verdict.violations


def test_doubles_count_where_they_are_marked() -> None:
    verdict = judge(sent("abc"), written("abcbc", [0, 1, 2, 1, 2], again=[4, 5]))
    assert numbers(verdict) == (0, 0, 0, 0)
    assert (verdict.again, verdict.doubles, verdict.double_share) == (2, 2, 2 / 3)


def test_what_is_marked_may_be_there_once() -> None:
    verdict = judge(sent("abc"), written("abc", again=[2, 3]))
    assert (numbers(verdict), verdict.again, verdict.doubles) == ((0, 0, 0, 0), 2, 0)


@pytest.mark.parametrize(("text", "at"), [("abb", [0, 1, 1]), ("abab", [0, 1, 0, 1])])
def test_doubles_without_a_mark_are_refused(text: str, at: list[int]) -> None:
    verdict = judge(sent("ab"), written(text, at))
    assert verdict.extra
    assert not verdict.lost


def test_what_nobody_published_is_refused_marked_or_not() -> None:
    assert numbers(judge(sent("a"), written("ax"))) == (0, 0, 1, 0)
    assert numbers(judge(sent("a"), written("ax", again=[2]))) == (0, 0, 1, 0)
    assert numbers(judge({}, written("a"))) == (0, 0, 1, 0)


def test_times_that_can_not_be_are_refused() -> None:
    early = msgspec.structs.replace(written("a")[0], received_at=-LATE)
    late = msgspec.structs.replace(written("a")[0], sent_after=LATE)
    for entry in (early, late):
        assert numbers(judge(sent("a"), [entry])) == (1, 0, 1, 0)


def test_what_the_server_did_not_confirm_may_be_there_or_not() -> None:
    those = sent("abc")
    those["orders"][1] = those["orders"][1]._replace(is_certain=False)
    for log in (written("abc"), written("ac", [0, 2])):
        verdict = judge(those, log)
        assert (numbers(verdict), verdict.sent) == ((0, 0, 0, 0), 2)


@pytest.mark.parametrize(
    "turns", [[(1, 1), (1, 3)], [(1, 1), (1, 1)], [(2, 1), (1, 1)], [(1, 1), (2, 2)], [(1, 2)]]
)
def test_writers_write_in_turn_and_without_holes(turns: list[tuple[int, int]]) -> None:
    text = "abc"[: len(turns)]
    log = [
        msgspec.structs.replace(entry, epoch=epoch, number=number)
        for entry, (epoch, number) in zip(written(text), turns, strict=True)
    ]
    assert numbers(judge(sent(text), log)) == (0, 0, 0, 1)


def test_a_later_writer_begins_anew() -> None:
    first, second = written("ab")
    assert not judge(sent("ab"), [first, msgspec.structs.replace(second, epoch=7, number=1)]).violations


def numbered(entry: Entry, number: int) -> Entry:
    return msgspec.structs.replace(entry, number=number)
