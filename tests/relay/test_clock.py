"""The engine's clock, as a relay reads it."""

from __future__ import annotations

from reverb.relay._clock import EngineClock

ENGINE = 1_700_000_000_000
"""The engine's time, in milliseconds, when the monotonic clock is at 0."""


def test_before_the_first_answer_it_is_a_guess() -> None:
    assert EngineClock(ENGINE).at(2.5) == ENGINE + 2500


def test_an_answer_was_made_in_the_middle_of_the_wait_for_it() -> None:
    clock = EngineClock(0)
    assert clock.adjust(ENGINE + 1100, 1.0, 1.2) == ENGINE
    assert clock.at(2.0) == ENGINE + 2000


def test_a_fast_answer_counts_more_than_a_slow_one() -> None:
    clock = EngineClock(0)
    clock.adjust(ENGINE + 1001, 1.0, 1.002)
    assert clock.adjust(ENGINE + 3000, 2.0, 3.0) == 0  # 500 ms off, and could be
    assert clock.at(4.0) == ENGINE + 4000


def test_small_corrections_do_not_touch_what_was_read_before() -> None:
    clock = EngineClock(0)
    clock.adjust(ENGINE + 1150, 1.0, 1.2)  # off by 50 ms
    assert clock.adjust(ENGINE + 2001, 2.0, 2.002) == 0
    assert clock.at(3.0) == ENGINE + 3000


def test_a_fast_answer_from_long_ago_gives_way() -> None:
    clock = EngineClock(0)
    clock.adjust(ENGINE + 1, 0.0, 0.002)
    clock.adjust(ENGINE + 1_000_000 + 60, 1000.0, 1000.02)  # the clocks ran apart by 50 ms
    assert clock.at(1001.0) == ENGINE + 1_001_050


def test_another_engine_has_another_clock() -> None:
    clock = EngineClock(0)
    clock.adjust(ENGINE + 1001, 1.0, 1.002)
    assert clock.at(2.0) == ENGINE + 2000
    assert clock.adjust(ENGINE - 60_000 + 3050, 3.0, 3.1) == -60_000
    assert clock.at(4.0) == ENGINE - 60_000 + 4000


def test_it_never_goes_backwards_for_a_correction() -> None:
    clock = EngineClock(ENGINE)
    clock.adjust(ENGINE + 1050, 1.0, 1.002)  # ahead by 49 ms
    before = clock.at(1.5)
    clock.adjust(ENGINE + 1501, 1.5, 1.5001)
    assert clock.at(1.5) == before
    assert clock.at(2.0) == ENGINE + 2001
