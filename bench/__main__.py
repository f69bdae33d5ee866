"""``python -m bench [quick]``: measure, and print tables, or with ``--json`` an object.

A full run also writes ``RESULTS.md`` and its picture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .groups import GROUPS
from .measure import Bench, Result, measure
from .report import as_json, as_markdown, as_text, header
from .sender import Sender

HERE = Path(__file__).parent

_FULL = (200_000, 7)
_QUICK = (40_000, 5)
"""Messages and rounds."""
_LEAST_ROUNDS = 5
"""The results of fewer rounds are not written to files."""


def main() -> None:
    options = _parse_options()
    messages, rounds = _QUICK if options.length == "quick" else _FULL
    messages, rounds = options.messages or messages, options.rounds or rounds
    groups = [group for group in GROUPS if not options.only or group.key in options.only]
    if not options.json:
        print(header(rounds, messages), end="\n\n")
    results = []
    with Sender() as sender:
        for group in groups:
            result = measure(Bench(sender, messages), group, rounds, _progress)
            _progress("")
            if not options.json:
                print(as_text(result), flush=True)
            results.append(result)
    if options.json:
        print(as_json(results, rounds, messages))
    if options.length == "full" and groups == list(GROUPS) and messages >= _FULL[0] and rounds >= _LEAST_ROUNDS:
        from .plot import draw

        draw(results, HERE / "results.png")
        reasons = (HERE / "REASONS.md").read_text(encoding="utf-8").strip()
        page = as_markdown(results, rounds, messages, "results.png", reasons)
        (HERE / "RESULTS.md").write_text(page, encoding="utf-8")
    failures = list(map(_own_failures, results))
    if any(failures):
        sys.exit("bench: " + "; ".join(filter(None, failures)))


def _own_failures(result: Result) -> str:
    return "; ".join(
        f"{subject.name}: {result.failures[subject.name]}"
        for subject in result.group.subjects
        if subject.name in result.failures and not subject.is_peer
    )


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure the client beside other clients."
    )
    parser.add_argument(
        "length", nargs="?", choices=("full", "quick"), default="full", help="how much to measure (default: full)"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=[group.key for group in GROUPS],
        help="measure this group only; can be repeated",
    )
    parser.add_argument("--messages", type=_positive, metavar="N", help="number of events in the largest load")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="number of rounds")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of tables")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    main()
