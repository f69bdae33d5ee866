"""``python -m bench [quick]``: measure, and print a table or, with ``--json``, an object."""

from __future__ import annotations

import argparse
import sys

from .load import Load
from .measure import BenchmarkError, measure
from .receivers import FLOOR, RECEIVERS
from .report import as_json, as_table

_FULL = (200_000, 11)
_QUICK = (50_000, 5)
"""Messages and rounds."""


def main() -> None:
    options = _parse_options()
    messages, rounds = _QUICK if options.length == "quick" else _FULL
    load = Load(options.messages or messages)
    try:
        results = measure(RECEIVERS, FLOOR, load, options.rounds or rounds)
    except BenchmarkError as error:
        sys.exit(f"bench: {error}")
    print(as_json(results, load) if options.json else as_table(results, load))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure how fast events reach handlers.")
    parser.add_argument(
        "length", nargs="?", choices=("full", "quick"), default="full", help="how much to measure (default: full)"
    )
    parser.add_argument("--messages", type=_positive, metavar="N", help="events in one measurement")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="measurements of each receiver")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    main()
