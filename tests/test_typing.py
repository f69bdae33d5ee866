"""Type checkers see in a user's program what they should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("typed_program.py")
CACHE = Path(__file__).parents[1] / ".mypy_cache" / PROGRAM.stem
"""What mypy knows of the package and its dependencies from the last run. To find it out takes six seconds."""


def test_mypy_infers_the_types_and_finds_the_mistakes(tmp_path: Path) -> None:
    program = tmp_path / "program.py"  # outside of the project, whose configuration leaves it out
    program.write_text(PROGRAM.read_text())
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={CACHE}", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(line) for line in re.findall(r"program\.py:(\d+): error", checked.stdout)}
    lines = enumerate(program.read_text().splitlines(), 1)
    assert found == {number for number, line in lines if line.endswith("# wrong")}, checked.stdout + checked.stderr
