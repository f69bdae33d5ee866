"""The simulation of fleets counts right, and small ones show what the page on many clients says, in kind."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from math import inf
from pathlib import Path
from statistics import median

import pytest
from bench.fleet import GOOD_AFTER, LEAST, MOST, TIMEOUT, WAYS, Fleet, drops, restarts_in_a_minute, simulate

from reverb import ReverbConfig
from reverb._backoff import Backoff
from reverb._protocol import Action

ROOT = Path(__file__).parents[1]
LARGE = Fleet(1_000, 10, down=5, backlog=50)
"""It takes 100 seconds to accept them all."""


class EachSecond:
    def __init__(self, rng: object) -> None:
        pass

    def delay(self, action: Action) -> float:
        return 1.0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.fleet", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)


# --- the simulation --------------------------------------------------------------------------------------------


def test_what_does_not_fit_into_the_queue_is_refused() -> None:
    outcome = simulate(Fleet(3, 1, down=0, refuses=True, backlog=1), EachSecond)
    assert outcome.back == [2, 3, 4]
    assert outcome.attempts_by_second == [0, 3, 2, 1]
    assert (outcome.attempts, outcome.wasted, outcome.peak) == (6, 3, 3)
    assert [outcome.time_until(share) for share in (0.5, 0.6, 1)] == [3, 3, 4]


def test_or_times_out() -> None:
    outcome = simulate(Fleet(3, 1, down=0, backlog=1, timeout=10), EachSecond)
    assert outcome.back == [2, 13, 24]
    assert outcome.attempts == 6


def test_a_client_that_gave_up_takes_its_turn_all_the_same() -> None:
    outcome = simulate(Fleet(2, 0.5, down=0, backlog=inf, timeout=3), EachSecond)
    # At 1 s both come: one is served until 3 s, the other would be at 5 s, and is gone at 4 s. It is back at 5 s.
    assert outcome.back == [3, 7]


def test_while_the_server_is_down_it_refuses_at_once() -> None:
    outcome = simulate(Fleet(2, 1e9, down=2.5), EachSecond)
    assert outcome.attempts_by_second == [0, 2, 2, 2]
    assert outcome.peak_while_up == 2
    assert outcome.back == pytest.approx([3, 3])


def test_what_does_not_happen_in_time_never_happens() -> None:
    fleet = Fleet(2, 1, down=5)
    delay = fleet.patience + 1
    outcome = simulate(fleet, partial(Backoff, delay, delay))
    assert outcome.back == []
    assert outcome.time_until(0.5) == inf


def test_settings_are_the_clients_defaults() -> None:
    config = ReverbConfig(app_key="key", host="host")
    assert (config.reconnect_delay_min, config.reconnect_delay_max, config.connect_timeout) == (
        LEAST,
        MOST,
        TIMEOUT,
    )


# --- what the documentation says -------------------------------------------------------------------------------


def test_a_fleet_is_back_soon_after_the_server_could_have_taken_it() -> None:
    for fleet in (LARGE, Fleet(1_000, 10, down=5, backlog=50, refuses=True), Fleet(1_000, 100, down=5)):
        outcome = simulate(fleet)
        possible = fleet.down + 0.99 * fleet.clients / fleet.accepts
        assert possible <= outcome.time_until(0.99) <= possible + 30
        assert outcome.time_until(1) < inf


def test_a_higher_least_delay_makes_the_peak_lower_and_saves_attempts() -> None:
    defaults, patient = simulate(LARGE), simulate(LARGE, partial(Backoff, 10.0, MOST))
    assert patient.peak < defaults.peak / 5
    assert patient.wasted < defaults.wasted / 2
    assert patient.time_until(0.99) < 1.3 * defaults.time_until(0.99)


def test_a_higher_most_delay_costs_time() -> None:
    assert simulate(LARGE, partial(Backoff, 1.0, 300.0)).time_until(1) > 1.5 * simulate(LARGE).time_until(1)


def test_a_queue_that_is_longer_than_the_timeout_keeps_everybody_out() -> None:
    endless = Fleet(1_000, 10, down=5, backlog=inf)
    assert simulate(endless).time_until(0.5) == inf
    assert simulate(Fleet(1_000, 10, down=5, backlog=inf, timeout=120)).time_until(1) < 120


def test_equal_jitter_keeps_waves_together() -> None:
    assert simulate(LARGE, WAYS["equal jitter"]).time_until(0.99) > 1.1 * simulate(LARGE).time_until(0.99)


def test_a_wider_start_makes_a_lone_client_wait_longer() -> None:
    def worst_after(down: float, way: str) -> float:
        return simulate(Fleet(5_000, 1e9, down, backlog=inf), WAYS[way]).time_until(1)

    for down in (0, 2):
        assert 1.3 * worst_after(down, "the client's") < worst_after(down, "first limit of 3 s")


def test_a_lone_client_is_back_as_fast_after_the_fourth_restart_of_a_minute() -> None:
    first, *_, last = restarts_in_a_minute(GOOD_AFTER, seed=1)
    assert median(last) == pytest.approx(median(first), rel=0.05)
    assert max(last) <= 6
    assert median(restarts_in_a_minute(30, seed=1)[-1]) > 2 * median(first)


def test_a_server_that_accepts_and_drops_is_not_hammered() -> None:
    assert 3600 / 30 <= drops(0, GOOD_AFTER, seconds=3600, seed=1) <= 300
    assert drops(GOOD_AFTER, GOOD_AFTER, seconds=3600, seed=1) <= 600


# --- the command -----------------------------------------------------------------------------------------------


def test_prints_tables() -> None:
    finished = run("--clients", "1000", "--only", "fleets", "--only", "dropped")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert "| 1,000   | 100     | 5    | 511" in finished.stdout
    assert "accepts and drops" in finished.stdout


def test_prints_json_that_a_seed_reproduces() -> None:
    arguments = ("--json", "--only", "fleets", "--clients", "500", "--accepts", "50", "--down", "2")
    finished = run(*arguments)
    report = json.loads(finished.stdout)
    assert report["seed"] == 1
    row = report["parts"]["fleets"][0]
    assert (row["clients"], row["accepts"], row["down"], row["others"]) == (500, 50, 2, "time out")
    assert row["99 %"] > 10
    assert run(*arguments).stdout == finished.stdout
    assert json.loads(run(*arguments, "--seed", "2").stdout)["parts"] != report["parts"]
