"""Builds the documentation into ``site/``: ``make docs``. ``make docs ARGS=serve`` shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    command = ["serve"] if "serve" in sys.argv[1:] else ["build", "--strict", "--clean"]
    return subprocess.run([sys.executable, "-m", "zensical", *command], cwd=ROOT).returncode  # noqa: S603 - no input


if __name__ == "__main__":
    sys.exit(main())
