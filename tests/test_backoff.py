"""Delays between attempts: within their bounds, spread out, growing, and short again after something good."""

from __future__ import annotations

import random

from reverb._backoff import Backoff
from reverb._protocol import Action


def test_delays_lie_between_the_least_and_a_limit_that_doubles_up_to_the_most() -> None:
    for _ in range(200):
        backoff = Backoff(1.0, 30.0)
        delays = [backoff.delay(Action.BACK_OFF) for _ in range(100)]
        assert all(1.0 <= delay <= limit for delay, limit in zip(delays, [2, 4, 8, 16, 30, 30], strict=False))
        assert all(1.0 <= delay <= 30.0 for delay in delays)


def test_delays_stay_bounded_after_thousands_of_attempts() -> None:
    backoff = Backoff(1.0, 30.0)
    assert all(1.0 <= backoff.delay(Action.BACK_OFF) <= 30.0 for _ in range(5_000))


def test_equal_bounds_leave_nothing_to_chance() -> None:
    backoff = Backoff(7.0, 7.0)
    assert {backoff.delay(Action.BACK_OFF) for _ in range(10)} == {7.0}


def test_delays_are_spread_over_their_range() -> None:
    rng = random.Random(1)
    delays = []
    for _ in range(1000):
        backoff = Backoff(1.0, 30.0, rng)
        for _ in range(9):
            backoff.delay(Action.BACK_OFF)
        delays.append(backoff.delay(Action.BACK_OFF))
    tenths = [sum(1 + 2.9 * tenth <= delay < 3.9 + 2.9 * tenth for delay in delays) for tenth in range(10)]
    assert min(tenths) > 50


def test_the_same_random_numbers_give_the_same_delays() -> None:
    one, other = Backoff(1.0, 30.0, random.Random(7)), Backoff(1.0, 30.0, random.Random(7))
    delays = [one.delay(Action.BACK_OFF) for _ in range(10)]
    assert delays == [other.delay(Action.BACK_OFF) for _ in range(10)]
    assert len(set(delays)) == 10


def test_attempts_are_counted_until_the_restart() -> None:
    backoff = Backoff(1.0, 8.0)
    assert backoff.attempts == 0
    for number, action in enumerate([Action.BACK_OFF, Action.RETRY_NOW, Action.BACK_OFF], 1):
        backoff.delay(action)
        assert backoff.attempts == number
    backoff.restart()
    assert backoff.attempts == 0


def test_delays_start_again_only_with_a_restart() -> None:
    backoff = Backoff(1.0, 8.0)
    for _ in range(10):
        backoff.delay(Action.BACK_OFF)
    assert max(backoff.delay(Action.BACK_OFF) for _ in range(100)) > 4
    for _ in range(100):
        backoff.restart()
        assert 1 <= backoff.delay(Action.BACK_OFF) <= 2


def test_a_retry_at_once_is_not_repeated_before_a_restart() -> None:
    backoff = Backoff(1.0, 8.0)
    assert backoff.delay(Action.RETRY_NOW) == 0
    assert backoff.delay(Action.RETRY_NOW) >= 1
    backoff.delay(Action.BACK_OFF)
    assert backoff.delay(Action.RETRY_NOW) >= 1
    backoff.restart()
    assert backoff.delay(Action.RETRY_NOW) == 0
