"""Where the log ends within what a relay has received, and what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from reverb.relay._alignment import SLACK, Gap, Received, Segment, align
from reverb.relay._log import GAP, Entry

LATER = 10**9
"""A question that was asked after everything else."""


def event(
    data: str, at: int, after: int | None = None, name: str = "event", user_id: str | None = None
) -> Received:
    return Received("news", name, data.encode(), user_id, at, at - 10 if after is None else after)


def events(text: str, at: int = 10_000, step: int = 1000) -> list[Received]:
    """An event for each letter."""
    return [event(letter, at + number * step) for number, letter in enumerate(text)]


def entries(
    text: str, at: int = 10_000, step: int = 1000, *, epoch: int = 1, number: int = 1, again: bool = False
) -> list[Entry]:
    """The entries of the same events, by another relay."""
    return [
        Entry("news", "event", each.data, None, each.at + 5, each.after + 5, epoch, number + index, again)
        for index, each in enumerate(events(text, at, step))
    ]


def gap(since: int, until: int, number: int = 1) -> Entry:
    data = msgspec.json.encode({"from": since, "to": until, "reason": "disconnect"})
    return Entry("news", GAP, data, None, until, since, 1, number)


def hole(since: int, until: int, reason: Any = "disconnect") -> Gap:
    return Gap("news", since, until, reason)


def record(events: list[Received], since: int = 0, until: int = 0) -> list[Segment]:
    return [Segment(hole(since, until), events)]


def lacking(
    segments: Sequence[Segment], tail: Sequence[Entry], covered: int | None = None, asked_at: int = LATER
) -> str:
    """The letters that are missing, in upper case those that are marked as again; ``|`` is a gap."""
    missing, _ = align(segments, tail, covered, asked_at)
    return "".join(
        "|" if isinstance(item, Gap) else item.data.decode().upper() if item.again else item.data.decode()
        for item in missing
    )


def test_what_is_behind_the_end_of_the_log_is_missing() -> None:
    assert lacking(record(events("abcdef")), entries("abcd")) == "ef"


def test_nothing_is_missing_when_the_log_ends_as_the_record_does() -> None:
    assert lacking(record(events("abc")), entries("abc")) == ""


def test_an_empty_log_lacks_everything() -> None:
    assert lacking(record(events("abc")), []) == "abc"


def test_the_end_of_the_log_is_enough() -> None:
    assert lacking(record(events("abcdef")), entries("cd", at=12_000)) == "ef"


def test_a_record_that_begins_within_the_log_is_enough() -> None:
    assert lacking(record(events("cdef", at=12_000), until=12_000), entries("abcd")) == "ef"


def test_what_the_log_has_before_a_record_began_is_no_reason_for_another_place() -> None:
    # "a" was sent before the record began, so that it is not the record's "a".
    segments = record([event("a", 20_000), event("b", 21_000)], until=19_000)
    assert lacking(segments, entries("xa", at=14_000), covered=19_000 + SLACK) == "ab"


def test_an_event_that_was_sent_after_the_record_began_must_be_in_it() -> None:
    # The log ends with an "a" that was sent when the record had begun already: it is not before the record.
    assert lacking(record(events("ab"), until=9000), entries("a", at=10_000 + SLACK)) == "b"


@pytest.mark.parametrize(("began", "expected"), [(9_995, "Ab"), (9_994, "b")])
def test_an_event_may_be_sent_before_the_record_began_within_the_error_of_the_times(
    began: int, expected: str
) -> None:
    log = entries("a", at=10_000 + SLACK)  # sent at 9,995 + SLACK or later
    assert lacking(record(events("ab"), until=began), log) == expected


def test_of_several_places_the_first_counts_and_what_may_be_there_is_marked() -> None:
    assert lacking(record(events("aaab", step=10)), entries("a", step=10)) == "AAb"
    assert lacking(record(events("xaaab", step=10)), entries("xaa", step=10)) == "ab"
    # The log may end before the record, too, so that something may be missing in between.
    assert lacking(record(events("aaab", step=10), until=10_000), entries("aa", step=10)) == "|AAAb"


@pytest.mark.parametrize("different", [{"name": "another"}, {"user_id": "7"}])
def test_name_and_sender_are_compared_too(different: dict[str, str]) -> None:
    segments = record([event("a", 10_000, **different), event("a", 10_010), event("b", 10_020)])  # type: ignore[arg-type]
    assert lacking(segments, entries("a", at=10_010)) == "b"


@pytest.mark.parametrize(("at", "expected"), [(19_995 - SLACK, "Ab"), (19_994 - SLACK, "b")])
def test_one_that_was_received_before_the_logs_was_sent_is_another_one(at: int, expected: str) -> None:
    log = entries("a", at=20_000)  # sent at 19,995 or later
    assert lacking(record([event("a", at), event("a", 20_000), event("b", 30_000)]), log) == expected


def test_one_that_was_sent_after_the_logs_was_received_is_another_one() -> None:
    log = entries("a", at=20_000)  # received at 20,005
    early = event("a", 20_000)
    assert lacking(record([early, event("a", 30_000, after=20_005 + SLACK)]), log) == "A"
    assert lacking(record([early, event("a", 30_000, after=20_005 + SLACK + 1)]), log) == "a"


def test_by_the_watermark_all_before_it_is_there_whatever_the_log_shows() -> None:
    assert lacking(record(events("abcdef")), [], covered=12_000 + SLACK) == "cdef"
    assert lacking(record(events("abcdef")), [], covered=12_001 + SLACK) == "def"


def test_no_place_before_the_watermark_counts() -> None:
    log = entries("a", step=10)
    assert lacking(record(events("aaaaa", step=10)), log) == "AAAA"
    assert lacking(record(events("aaaaa", step=10)), log, covered=10_021 + SLACK) == "AA"
    segments = [*record(events("aa", step=10)), Segment(hole(10_020, 10_030), events("aa", at=10_040, step=10))]
    assert lacking(segments, log, covered=10_041 + SLACK) == "A"


@pytest.mark.parametrize(
    ("last", "at", "expected"),
    [
        ("c", 12_000, "D|ef"),  # the log's "c" may be one in the hole
        ("d", 13_000, "|ef"),
        ("e", 16_000, "f"),
        ("f", 17_000, ""),
    ],
)
def test_each_place_after_the_watermark_counts(last: str, at: int, expected: str) -> None:
    segments = [*record(events("abcd")), Segment(hole(14_000, 15_000), events("ef", at=16_000))]
    assert lacking(segments, entries(last, at), covered=12_000 + SLACK) == expected


def test_the_watermark_may_be_behind_a_hole() -> None:
    segments = [*record(events("ab")), Segment(hole(12_000, 15_000), events("cd", at=16_000))]
    assert lacking(segments, [], covered=16_001 + SLACK) == "d"


def test_what_is_not_found_in_the_record_makes_all_that_may_be_in_the_log_again() -> None:
    log = entries("z", at=11_000)  # received at 11,005
    segments = record([event("a", 10_000), event("b", 11_000, 11_005 + SLACK), event("c", 12_000, 11_006 + SLACK)])
    assert lacking(segments, log) == "ABc"


def test_a_relay_that_is_behind_the_log_marks_what_the_log_may_have() -> None:
    """The log has "aba", and this relay will receive the second "a" later: the place behind the first is wrong."""
    log = [gap(1, 10_015), *entries("a", at=10_020, number=2)]  # received at 10,025
    segments = record([*events("ab", step=10), event("c", 12_000, 11_000)])
    assert lacking(segments, log, asked_at=10_025 + SLACK) == "Bc"
    assert lacking(segments, log, asked_at=10_026 + SLACK) == "bc"


def test_what_was_written_again_is_not_compared_with_what_was_written_before() -> None:
    """The log has "abbc": "b" is there twice. What counts is what the last writer wrote."""
    log = [
        *entries("ab"),
        *entries("b", at=11_000, epoch=2, again=True),
        *entries("c", at=12_000, epoch=2, number=2),
    ]
    assert lacking(record(events("abcd")), log) == "d"


def test_who_ended_while_it_wrote_again_may_not_have_reached_the_end() -> None:
    log = [*entries("aaaa", step=400), *entries("a", epoch=2, again=True)]  # until 11,205
    segments = record([*events("aaaa", step=400), event("b", 11_400, 11_205 + SLACK), event("c", 11_800, 11_706)])
    assert lacking(segments, log) == "AAABc"
    assert lacking(segments, [*log, *entries("a", at=10_400, epoch=2, number=2)]) == "Aabc"


def test_what_is_written_once_is_compared_with_what_the_last_writer_wrote() -> None:
    log = [*entries("ab", at=10_010, step=10), *entries("c", at=10_030, epoch=2)]
    assert lacking(record(events("cabcd", step=10)), log) == "d"


def test_in_one_reign_all_that_was_written_again_is_compared() -> None:
    log = entries("bc", at=11_000, step=10, epoch=2, again=True)
    assert lacking(record(events("bcxc", at=11_000, step=10)), log) == "XC"


def test_what_is_before_a_gap_in_the_log_is_not_compared() -> None:
    log = [*entries("a"), gap(10_500, 12_000), *entries("d", at=13_000)]
    assert lacking(record(events("abcde")), log) == "e"


def test_a_gap_at_the_end_of_the_log_does_not_hide_what_is_before_it() -> None:
    assert lacking(record(events("abc")), [*entries("a"), gap(10_500, 20_000, 2)]) == "bc"


class TestHoles:
    def test_one_in_the_record_is_missing_in_its_place(self) -> None:
        segments = [*record(events("ab")), Segment(hole(12_000, 15_000), events("cd", at=16_000))]
        assert lacking(segments, entries("a")) == "B|cd"  # the log's "a" may be one in the hole
        assert lacking(segments, entries("ab")) == "|cd"

    def test_one_that_the_log_has_passed_is_not(self) -> None:
        segments = [*record(events("ab")), Segment(hole(12_000, 15_000), events("cd", at=16_000))]
        assert lacking(segments, entries("abxyc", step=1500)) == "d"

    @pytest.mark.parametrize(("covered", "expected"), [(13_000, 12_500), (15_499, 14_999), (15_500, None)])
    def test_only_what_the_log_does_not_know_is_missing(self, covered: int, expected: int | None) -> None:
        segments = [*record(events("ab")), Segment(hole(12_000, 15_000), [])]
        missing, known = align(segments, [], covered, LATER)
        assert missing == ([] if expected is None else [hole(expected, 15_000)])
        assert known == covered - SLACK

    def test_one_that_began_later_is_missing_from_its_beginning(self) -> None:
        segments = [*record(events("ab")), Segment(hole(12_000, 15_000), [])]
        assert align(segments, entries("ab"), None, LATER)[0] == [hole(12_000, 15_000)]

    def test_before_the_record_everything_is_missing_that_the_log_does_not_know(self) -> None:
        """The log was written until 9,000 and the record began at 10,000, or was cut there."""
        missing, _ = align(record(events("ab", at=11_000), 9_900, 10_000), [], 9000, LATER)
        assert missing[0] == hole(9000 - SLACK, 10_000)

    def test_before_the_first_entry_of_a_log_nothing_is_missing(self) -> None:
        segments = [*record(events("ab"), 1, 9000), Segment(hole(12_000, 15_000), events("c", at=16_000))]
        assert lacking(segments, []) == "ab|c"

    def test_the_log_knows_what_a_gap_says(self) -> None:
        for log in ([gap(8000, 9500)], [gap(8000, 9500), *entries("x", at=9600)]):
            missing, known = align(record([], 9000, 10_000), log, 8000, LATER)
            assert missing == [hole(9500, 10_000)]
            assert known == 9500

    def test_the_log_knows_what_was_sent_before_its_last_event(self) -> None:
        log = entries("x", at=9600)
        missing, known = align(record([], 9000, 10_000), log, None, LATER)
        assert known == log[0].sent_after - SLACK
        assert missing == [hole(known, 10_000)]

    def test_nobody_said_anything(self) -> None:
        assert align([], [], None, LATER) == ([], None)


def test_a_channel_of_which_nothing_is_recorded_lacks_nothing() -> None:
    assert align([], entries("abc"), 11_000, LATER)[0] == []


def test_many_that_are_alike_are_not_all_compared_with_each_other() -> None:
    compared = 0

    class Counted(bytes):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

        __hash__ = bytes.__hash__

    segments = record([Received("news", "event", Counted(b"a"), None, 10_000, 9000) for _ in range(1000)])
    missing, _ = align(segments, entries("a" * 1000, step=0), None, LATER)
    assert len(missing) == 800  # the log may end behind the first 200
    assert compared <= 1000 * 200
