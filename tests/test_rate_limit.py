"""How fast channels are asked for, against models of the rate limits that servers have."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reverb._rate_limit import RateLimiter

LEAST, MOST = 1.0, 30.0


def test_without_a_limit_everything_is_asked_for_at_once() -> None:
    limiter = RateLimiter(LEAST, MOST)
    for number in range(1000):
        assert limiter.wait(5.0) == 0
        limiter.sent()
        if number % 3:
            limiter.taken(5.0, 5.1)
    assert not limiter.is_limited


def test_when_the_limit_is_met_single_ones_are_tried_after_delays_that_double() -> None:
    limiter = RateLimiter(LEAST, MOST)
    now = 0.0
    for _ in range(3):
        limiter.sent()
    limiter.taken(0.0, 0.1)
    limiter.taken(0.0, 0.1)
    limiter.refused(0.0, 0.1)
    assert limiter.is_limited
    now, delays = 0.1, []
    for _ in range(8):
        delays.append(round(limiter.wait(now), 3))
        now += limiter.wait(now)
        assert limiter.wait(now) == 0
        limiter.sent()
        assert limiter.wait(now) == inf  # one at a time
        limiter.refused(now, now)
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]


def test_refusals_of_what_was_asked_for_together_are_one() -> None:
    limiter = RateLimiter(LEAST, MOST)
    for _ in range(100):
        limiter.sent()
    for number in range(100):
        now = 0.1 + number / 1000
        if number < 10:
            limiter.taken(0.0, now)
        else:
            limiter.refused(0.0, now)
    assert limiter.wait(0.2) == pytest.approx(0.11 + LEAST - 0.2)


def test_once_one_is_taken_again_as_many_are_asked_for_in_a_time_as_were_taken_in_it() -> None:
    limiter = RateLimiter(LEAST, MOST)
    for _ in range(11):
        limiter.sent()
    for _ in range(10):
        limiter.taken(0.0, 0.0)
    limiter.refused(0.0, 0.0)
    now = 20.0
    limiter.sent()
    limiter.taken(now, now)
    asked = 0
    while limiter.wait(now) == 0:
        limiter.sent()
        asked += 1
    assert asked == 9  # with the trial, 10 in 20 seconds
    assert limiter.wait(now) == 20


def test_what_is_dropped_makes_room_for_another() -> None:
    limiter = RateLimiter(LEAST, MOST)
    limiter.sent()
    limiter.refused(0.0, 0.0)
    now = limiter.wait(0.0)
    limiter.sent()
    assert limiter.wait(now) == inf
    limiter.dropped()
    assert limiter.wait(now) == 0


def test_a_server_counts_anew_for_a_new_connection_and_its_limit_is_remembered() -> None:
    limiter = RateLimiter(LEAST, MOST)
    for _ in range(4):
        limiter.sent()
    for _ in range(3):
        limiter.taken(0.0, 0.0)
    limiter.refused(0.0, 0.0)
    limiter.sent()
    limiter.taken(10.0, 10.0)
    limiter.connected()
    asked = 0
    while limiter.wait(11.0) == 0:
        limiter.sent()
        asked += 1
    assert asked == 3
    assert limiter.wait(11.0) == inf


# --- against a server ------------------------------------------------------------------------------------------


@dataclass
class FixedWindow:
    """Laravel's: a window begins with the first message behind the last one's end."""

    limit: int
    period: float
    ends: float = -inf
    used: int = 0

    def takes(self, now: float) -> bool:
        if now >= self.ends:
            self.ends, self.used = now + self.period, 0
        is_taken = self.used < self.limit
        self.used += is_taken
        return is_taken


@dataclass
class SlidingWindow:
    """Takes so many in any time of that length."""

    limit: int
    period: float
    taken: list[float] = field(default_factory=list)

    def takes(self, now: float) -> bool:
        self.taken = [each for each in self.taken if each > now - self.period]
        if len(self.taken) < self.limit:
            self.taken.append(now)
            return True
        return False


@dataclass
class Run:
    taken: int
    refusals: list[float]
    """When something was refused, …"""
    learned_at: float
    """… and when one was taken for the first time after that."""
    ended_at: float

    @property
    def refused_again(self) -> list[float]:
        return [each for each in self.refusals if each > self.learned_at]


def run(
    server: Any, wanted: list[float], latency: float, limiter: RateLimiter | None = None, start: float = 0.0
) -> Run:
    """Ask for channels that are wanted at the given times, until all are taken; those that are refused are wanted
    again, before the others. A message takes ``latency`` seconds to the server, and its answer as long."""
    limiter = RateLimiter(LEAST, MOST) if limiter is None else limiter
    numbers = count()
    due: list[tuple[float, int, str, Any]] = []
    for each in sorted(wanted):
        heappush(due, (start + each, next(numbers), "wanted", None))
    refusals: list[float] = []
    waiting, taken, learned_at = 0, 0, inf
    wakes_at = inf
    now = start
    for _ in range(100_000):
        if taken == len(wanted):
            return Run(taken, refusals, learned_at, now)
        now, _number, what, detail = heappop(due)  # fails when nothing would ever happen again
        if what == "wanted":
            waiting += 1
        elif what == "arrives":
            is_taken = server.takes(now)
            heappush(due, (now + latency, next(numbers), "answered", (detail, is_taken)))
        elif what == "answered":
            asked_at, is_taken = detail
            if is_taken:
                taken += 1
                limiter.taken(asked_at, now)
                if refusals and learned_at == inf and asked_at > refusals[0]:
                    learned_at = now
            else:
                waiting += 1
                refusals.append(now)
                limiter.refused(asked_at, now)
        elif what == "turn" and now >= wakes_at:
            wakes_at = inf
        while waiting:
            wait = limiter.wait(now)
            if wait > 0:
                if now + wait < wakes_at:
                    wakes_at = now + wait
                    heappush(due, (wakes_at, next(numbers), "turn", None))
                break
            waiting -= 1
            limiter.sent()
            heappush(due, (now + latency, next(numbers), "arrives", now))
    raise AssertionError(f"{taken} of {len(wanted)} after {now} seconds")


servers = st.builds(
    lambda kind, limit, period: kind(limit, period),
    st.sampled_from([FixedWindow, SlidingWindow]),
    st.integers(1, 50),
    st.floats(0.1, 60.0),
)
latencies = st.sampled_from([0.0, 0.001, 0.05, 0.3])


@given(servers, st.integers(1, 300), latencies)
def test_the_limit_is_met_once_when_all_are_wanted_at_once(server: Any, wanted: int, latency: float) -> None:
    seen = run(server, [0.0] * wanted, latency)
    assert seen.taken == wanted
    assert seen.refused_again == []


bursts = st.lists(st.tuples(st.floats(0.0, 200.0), st.integers(1, 60)), max_size=6)


def times_of(bursts: list[tuple[float, int]]) -> list[float]:
    return [at for at, number in bursts for _ in range(number)]


@given(servers, st.lists(st.floats(0.0, 0.99), max_size=10), st.integers(1, 60), bursts, latencies)
def test_the_limit_is_met_once_where_it_was_met_in_the_first_window(
    server: Any, spread: list[float], excess: int, later: list[tuple[float, int]], latency: float
) -> None:
    fractions = [0.0, *spread]
    first = [server.period * fractions[i % len(fractions)] for i in range(server.limit + excess)]
    times = first + [server.period + each for each in times_of(later)]
    seen = run(server, times, latency)
    assert seen.taken == len(times)
    assert seen.refused_again == []


@given(servers, bursts, latencies)
def test_whenever_they_are_wanted_nothing_starves_and_the_limit_is_soon_known(
    server: Any, wanted: list[tuple[float, int]], latency: float
) -> None:
    """What was taken in two windows may look like more than a server takes in one: then the limit is met again,
    and less is asked for from then on."""
    limiter = RateLimiter(LEAST, MOST)
    times, now = times_of(wanted), 0.0
    for _ in range(60):
        seen = run(server, times, latency, limiter, start=now)
        assert seen.taken == len(times)
        now = seen.ended_at + 1
        if not seen.refusals:
            break
    else:
        pytest.fail("the limit is met again and again")


@given(servers, st.integers(1, 300), latencies)
def test_the_limit_is_not_met_on_the_next_connection_either(server: Any, wanted: int, latency: float) -> None:
    limiter = RateLimiter(LEAST, MOST)
    first = run(server, [0.0] * wanted, latency, limiter)
    assume(first.learned_at < inf)
    limiter.connected()
    anew = replace(server, ends=-inf, used=0) if isinstance(server, FixedWindow) else replace(server, taken=[])
    assert run(anew, [0.0] * wanted, latency, limiter, start=first.ended_at + 1).refusals == []
