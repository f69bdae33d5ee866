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
    assert "the median of 1 rounds of 20 events" in finished.stdout
    rows = re.findall(r"^embedded +(.*?)  +ReverbAPI +([\d,]+)", finished.stdout, re.M)
    assert [mode for mode, _ in rows] == ["single, one at a time", "single, 20 at a time", "batches of 10"]
    assert all(int(figure.replace(",", "")) > 0 for _, figure in rows)
