"""``bench.relay`` measures each part; what it finds is not asserted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .engines import Valkey
from .nats_server import Nats

ROOT = Path(__file__).parents[2]
SHORT = ["--events", "200", "--rounds", "1", "--seconds", "0.5", "--times", "1"]


def measure(*arguments: str) -> dict[str, int]:
    """Return how many rows each part has."""
    command = [sys.executable, "-m", "bench.relay", *SHORT, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    rows: dict[str, int] = {}
    part = ""
    for line in done.stdout.splitlines():
        if line.startswith(" "):
            assert re.fullmatch(r"[\d ,.]+", line)
            rows[part] += 1
        else:
            part = line.split()[0]
            rows[part] = 0
    return rows


@pytest.mark.timeout(180)
def test_measures_on_valkey(tmp_path: Path) -> None:
    with Valkey(tmp_path):
        pass  # or skip, where it is missing
    assert measure() == {"throughput": 3, "latency": 2, "failover": 1}


@pytest.mark.timeout(180)
def test_measures_on_nats(tmp_path: Path) -> None:
    with Nats(tmp_path):
        pass  # or skip, where it is missing
    assert measure("--engine", "nats", "--only", "throughput") == {"throughput": 3}
