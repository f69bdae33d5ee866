"""The benchmark of publishing runs. Its figures are nobody's business here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_each_mode_is_measured() -> None:
    arguments = [sys.executable, "-m", "bench.http", "--events", "20", "--rounds", "1"]
    finished = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert "medians of 1 rounds of 20 events" in finished.stdout
    figures = r"([\d,]+) +([\d,]+)"
    row = rf"^embedded +(.*?)  +SyncReverbAPI +{figures}   ReverbAPI +{figures}"
    rows = re.findall(row, finished.stdout, re.M)
    assert [mode for mode, *_ in rows] == ["one at a time", "8 at a time", "batches of 10"]
    assert all(int(figure.replace(",", "")) > 0 for _, *figures in rows for figure in figures)
