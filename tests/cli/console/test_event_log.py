"""The log of what has happened: its order, its bounds, and what pages get of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reverb.cli.console.event_log import EventLog


def log_of(count: int, **bounds: int) -> EventLog:
    log = EventLog(**bounds)
    for number in range(1, count + 1):
        log.add_event(1000 + number, "news", "published", b"[%d]" % number, None, sealed=False)
    return log


def numbers(frames: list[bytes]) -> list[int]:
    found: list[int] = []
    for frame in map(json.loads, frames):
        found += [each["n"] for each in frame["events"]] if frame["type"] == "events" else [frame["n"]]
    return found


def before(log: EventLog, n: int, count: int, size: int = 10_000) -> list[Any]:
    return [json.loads(each)["n"] for each in log.before(n, count, size)]


def test_an_event_is_told_with_its_payload_as_text() -> None:
    log = EventLog()
    log.add_event(5, "presence-room.1", "client-typing", b'{"a": 1}', "7", sealed=True)
    (frame,) = log.after(0, 10, 10_000).frames
    event = {
        "n": 1,
        "time": 5,
        "channel": "presence-room.1",
        "event": "client-typing",
        "user_id": "7",
        "size": 8,
        "data": '{"a": 1}',
        "sealed": True,
    }
    assert json.loads(frame) == {"type": "events", "events": [event]}


def test_gaps_stand_among_the_events_where_they_were() -> None:
    log = log_of(2)
    log.add_gap(1003, "news", 1.5)
    log.add_event(1004, "news", "published", b"[4]", None, sealed=False)
    batch = log.after(0, 10, 10_000)
    assert [json.loads(frame)["type"] for frame in batch.frames] == ["events", "gap", "events"]
    assert numbers(batch.frames) == [1, 2, 3, 4]
    assert json.loads(batch.frames[1]) == {"type": "gap", "n": 3, "time": 1003, "channel": "news", "downtime": 1.5}


def test_the_oldest_go_beyond_a_number() -> None:
    log = log_of(12, max_entries=10)
    assert (log.first, log.last) == (3, 12)
    assert numbers(log.after(0, 100, 10_000).frames) == list(range(3, 13))


def test_the_oldest_go_beyond_a_size() -> None:
    log = EventLog(max_bytes=5_000)
    for _ in range(100):
        log.add_event(1, "news", "published", b'"' + b"x" * 1_000 + b'"', None, sealed=False)
    assert log.last == 100
    assert log.first == 97
    assert log.bytes <= 5_000


def test_what_is_larger_than_the_log_is_not_kept() -> None:
    log = log_of(3, max_bytes=5_000)
    log.add_event(1, "news", "published", b'"' + b"x" * 10_000 + b'"', None, sealed=False)
    assert (log.first, log.last, log.bytes) == (5, 4, 0)
    assert log.after(0, 10, 10_000) == (4, [], 4)


def test_by_default_it_holds_10000_entries_and_32_megabytes() -> None:
    assert log_of(10_500).first == 501
    log = EventLog()
    for _ in range(40):
        log.add_event(1, "news", "published", b'"' + b"x" * 1_000_000 + b'"', None, sealed=False)
    assert 30_000_000 < log.bytes <= 32 * 1024 * 1024


def test_a_page_gets_what_it_has_not_got_in_parts() -> None:
    log = log_of(10)
    first = log.after(0, 4, 10_000)
    assert (numbers(first.frames), first.last, first.dropped) == ([1, 2, 3, 4], 4, 0)
    rest = log.after(4, 100, 10_000)
    assert (numbers(rest.frames), rest.last) == ([5, 6, 7, 8, 9, 10], 10)
    assert log.after(10, 100, 10_000) == (0, [], 10)


def test_a_part_is_bounded_in_bytes_and_holds_one_at_least() -> None:
    log = log_of(10)
    size = log.bytes // 10
    assert numbers(log.after(0, 100, 2 * size + 10).frames) == [1, 2]
    assert numbers(log.after(0, 100, 1).frames) == [1]


def test_a_page_that_is_too_late_is_told_how_many_it_has_missed() -> None:
    log = log_of(12, max_entries=5)
    batch = log.after(2, 2, 10_000)
    assert (batch.dropped, numbers(batch.frames), batch.last) == (5, [8, 9], 9)


@pytest.mark.parametrize(
    ("n", "count", "found"),
    [(11, 3, [8, 9, 10]), (8, 3, [5, 6, 7]), (3, 100, [1, 2]), (1, 5, []), (-4, 5, []), (999, 2, [9, 10])],
)
def test_earlier_entries(n: int, count: int, found: list[int]) -> None:
    assert before(log_of(10), n, count) == found


def test_earlier_entries_are_bounded_in_bytes() -> None:
    log = log_of(10)
    assert before(log, 11, 10, 2 * (log.bytes // 10) + 10) == [9, 10]
    assert before(log, 11, 10, 1) == [10]


def test_earlier_entries_that_are_gone() -> None:
    log = log_of(12, max_entries=5)
    assert before(log, 10, 100) == [8, 9]
    assert before(log, 5, 100) == []


def test_payloads_of_any_kind_are_text() -> None:
    """Half of a surrogate pair, which is no text by itself, stands as its escape."""
    log = EventLog()
    log.add_event(1, "news", "<img onerror=alert(1)>", b'"\\ud800 \\u0000 </script>"', None, sealed=False)
    (frame,) = log.after(0, 1, 1).frames
    (event,) = json.loads(frame)["events"]
    assert event["data"] == '"\\ud800 \\u0000 </script>"'
    assert event["event"] == "<img onerror=alert(1)>"
