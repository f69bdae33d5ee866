"""The benchmark runs, checks what it measures, and says what it found. Its figures are nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ("quick", "--messages", "500", "--rounds", "2")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30
    )


def test_prints_a_table() -> None:
    finished = run(*TINY)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    head, table, foot = finished.stdout.split("\n\n")
    assert "500 events of 160 bytes" in head
    assert "python-reverb" in head
    assert "msgspec" in head
    columns, *rows = table.splitlines()
    assert columns.split()[:1] == ["messages/s"]
    assert len({len(row) for row in [columns, *rows]}) == 1  # aligned
    names = [row[:34].strip() for row in rows]
    assert {"reverb, plain handler", "reverb, async handler"} <= set(names)
    assert "floor" in foot


def test_prints_json() -> None:
    finished = run(*TINY, "--json")
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert report["load"] == {"messages": 500, "message_bytes": 160}
    assert {"picows", "msgspec", "python-reverb"} <= report["versions"].keys()
    assert report["machine"]["cpu"]
    results = {result["name"]: result for result in report["results"]}
    assert len(results) == 5
    assert results["picows + msgspec, plain function"]["ratio_to_floor"] == 1
    for result in results.values():
        rate = result["messages_per_second"]
        assert len(rate["samples"]) == 2
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert result["microseconds_per_message"] == pytest.approx(1e6 / rate["median"])


def test_refuses_nonsense() -> None:
    finished = run("--messages", "0")
    assert finished.returncode == 2
    assert "--messages" in finished.stderr
