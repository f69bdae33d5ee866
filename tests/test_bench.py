"""The benchmark runs, checks what it measures, and says what it found. Its figures are nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.groups import GROUPS
from bench.load import Load
from bench.measure import Group, Result, Subject, Target
from bench.report import as_markdown, as_text

ROOT = Path(__file__).parents[1]
TINY = ("quick", "--messages", "200", "--rounds", "2")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=50
    )


def test_prints_tables() -> None:
    finished = run(*TINY, "--only", "wss", "--only", "trigger")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    head, *tables = finished.stdout.split("\n\n")
    assert "2 rounds of up to 200 events" in head
    assert "python-reverb" in head
    assert "msgspec" in head
    assert "160-byte events over TLS" in tables[0]
    assert "reverb, trigger" in finished.stdout
    assert "≥ 0.6" in finished.stdout


def test_prints_json() -> None:
    finished = run(*TINY, "--json", "--only", "latency", "--only", "loads")
    report = json.loads(finished.stdout)
    assert {"picows", "msgspec", "python-reverb"} <= report["versions"].keys()
    assert report["machine"]["cpu"]
    assert (report["rounds"], report["messages"]) == (2, 200)
    assert report["groups"]["latency"]["failures"] == {}
    assert report["groups"]["latency"]["figures"]["reverb, async, p50"]["median"] > 0
    loads = report["groups"]["loads"]
    measured = {name: figure["samples"] for name, figure in loads["figures"].items()}
    assert len(measured) + len(loads["failures"]) == 19
    assert all(len(samples) == 2 and min(samples) > 0 for samples in measured.values())
    for target in loads["targets"]:
        assert target["at_most"] == 1.25
        if target["measured"] is not None:
            assert target["met"] is (target["measured"]["median"] <= 1.25)


def test_profiles_the_parts_of_a_message() -> None:
    command = [sys.executable, "-m", "bench.profile", "--messages", "200", "--rounds", "1"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    rows = [line.strip("| ").split(" | ") for line in finished.stdout.splitlines()[2:]]
    sums = {part: int(total) for part, _, total in rows}
    assert len(sums) == 17
    assert min(sums.values()) > 0


def test_refuses_nonsense() -> None:
    finished = run("--messages", "0")
    assert finished.returncode == 2
    assert "--messages" in finished.stderr


def test_targets_name_what_is_measured() -> None:
    """A misspelt name would show as "not measured" only after minutes."""
    for group in GROUPS:
        if group.key in ("latency", "subscribe", "memory", "start", "idle"):  # their subjects find several figures
            continue
        figures = {subject.name: 1.0 for subject in group.subjects}
        for target in group.targets:
            assert isinstance(target.figure(figures), float), target.what


def nothing(bench: object) -> dict[str, float]:
    raise AssertionError


def result_of(*rounds: dict[str, float], bound: float, at_least: bool) -> Result:
    target = Target("speed", lambda figures: figures["us"] / figures["them"], bound, "x them", at_least)
    group = Group("g", "A group", "us", [Subject("us", nothing), Subject("them", nothing)], [target])
    return Result(group, list(rounds))


@pytest.mark.parametrize(("bound", "at_least", "met"), [(2, True, True), (4, True, False), (2, False, False)])
def test_a_target_is_met_by_the_median_of_ratios_in_a_round(bound: float, at_least: bool, met: bool) -> None:
    rounds: tuple[dict[str, float], ...] = ({"us": 3, "them": 1}, {"us": 300, "them": 100}, {"us": 1, "them": 100})
    (outcome,) = result_of(*rounds, bound=bound, at_least=at_least).outcomes()
    assert outcome.value == 3
    assert outcome.is_met is met


def test_a_failure_is_shown() -> None:
    result = result_of({"us": 3.0}, bound=1, at_least=True)
    result.failures["them"] = "no such package"
    for report in as_text(result), as_markdown([result], 1, 10, "plot.png", "It is missing."):
        assert "no such package" in report
        assert "not measured" in report


def test_the_results_begin_with_a_summary() -> None:
    """All parts of it are there, so they ask for figures by the names that are measured."""
    results = []
    for group in GROUPS:
        figures = {subject.name: 4.0 for subject in group.subjects}
        figures |= {f"{name}, p50": 20.0 for name in figures}
        figures |= {f"{name}, another million": 0.5 for name in figures}
        if group.key == "idle":
            clients = ("reverb", "websockets", "asyncpusher", "pysher")
            figures = {f"idle {name}, {unit}": 32.0 for name in clients for unit in ("MiB", "wake-ups a minute")}
        results.append(Result(group, [figures | {"reverb, plain": 1.0, "reverb, async": 2.0, "pysher": 60.0}]))
    page = as_markdown(results, 1, 10, "plot.png", "")
    summary = page[: page.index("## Targets")]
    assert [line for line in summary.splitlines() if line.startswith("### ")] == [
        "### How fast is it beside other clients?",
        "### What does one event cost?",
        "### How much memory does it need?",
        "### What does this mean for a Raspberry Pi?",
    ]
    assert "takes 1.00 µs for an event if the handler is a plain function, and 2.00 µs if" in summary
    assert "Other clients take 2.00 to 30.0 times as long" in summary
    assert "| Pysher | 60.0 µs | 17,000 |" in summary
    assert "one core handles about 50,000 a second" in summary
    assert "32.0 MiB are 6.25 % of the 512 MB" in summary


def test_the_summary_leaves_out_what_was_not_measured() -> None:
    page = as_markdown([result_of({"us": 3.0}, bound=1, at_least=True)], 1, 10, "plot.png", "")
    assert "###" not in page[: page.index("## Targets")]


def test_lost_and_disordered_events_are_noticed() -> None:
    load = Load(6, channels=2)
    assert load.has_order([0, 2, 1, 4, 3, 5], calls=1)
    assert not load.has_order([0, 2, 3, 4, 1, 5], calls=1)
    assert not load.has_order([0, 2, 1, 3, 5], calls=1)
    assert not load.has_order([0, 2, 1, 4, 3, 5], calls=2)
    assert load.has_order([0, 0, 2, 2, 1, 1, 4, 4, 3, 3, 5, 5], calls=2)


@pytest.mark.parametrize("size", [160, 4096])
def test_messages_have_their_size(size: int) -> None:
    load = Load(12, size)
    assert {len(load.frame(number)) for number in (0, 5, 10)} == {size + 4}
