"""Results for people and for programs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

from tests import node

from .measure import PUSHER_JS, Outcome, Result

_PACKAGES = (
    "python-reverb", "picows", "aiofastnet", "msgspec", "PyNaCl", "asyncpusher", "aiohttp", "websockets", "Pysher",
)  # fmt: skip

_SCOPE = """\
What is compared: the way of an event from the socket to a handler, with everything that a client does on
it. Sender and receiver share one machine; the sender's frames are ready-made, and the same for all. The
floor is picows' core API with a listener that decodes envelope and payload with msgspec and calls a plain
function, the least that a Python program on picows can do: it has no channels, no handlers bound by name,
no order kept between handlers that wait, no keepalive, no bounds, no reconnecting. It does the same
decoding and makes the same calls as what it is held against. It copies payloads where that costs less than
a `memoryview` (160 bytes), and takes a `memoryview` where it doesn't (4 KB). It is a method, as picows
documents it; "in a closure" shows what is left when one knows, as this client does, that picows calls a
closure faster. asyncpusher, Pysher and
pusher-js are clients; "websockets + json" and "aiohttp + json" are the loop that one writes by hand. Pysher
hands over the payload as text, which its handler parses, as a program would have to.

What is not compared: networks, proxies, real servers, compression (Reverb has none), handlers that do work,
and how clients do when a connection is lost. Encrypted events are measured as large as the others before
encryption.

Each round measures everything in a group once, in random order, after a round that only warms up. Ratios
and differences are taken within a round; shown is the median of the rounds, with the least and the most.
Peers run in processes of their own. Every event is checked to have arrived, in order."""


def as_json(results: Sequence[Result], rounds: int, messages: int) -> str:
    return json.dumps(
        {
            "date": _now(),
            "machine": _machine(),
            "versions": _versions(),
            "rounds": rounds,
            "messages": messages,
            "groups": {
                result.group.key: {
                    "unit": result.group.unit,
                    "figures": {name: _spread(values) for name, values in result.figures().items()},
                    "failures": result.failures,
                    "targets": [
                        {
                            "what": outcome.target.what,
                            "figure": outcome.target.of,
                            "at_least" if outcome.target.at_least else "at_most": outcome.target.bound,
                            "measured": _spread(outcome.values) if outcome.values else None,
                            "met": outcome.is_met,
                        }
                        for outcome in result.outcomes()
                    ],
                }
                for result in results
            },
        },
        indent=2,
    )


def as_text(result: Result) -> str:
    """One group for the terminal."""
    rows = [_figures_head(result), *_figure_rows(result)]
    targets = [_TARGETS_HEAD, *map(_target_row, result.outcomes())]
    return "\n".join([f"{result.group.title}", *_aligned(rows), "", *_aligned(targets), ""])


def as_markdown(results: Sequence[Result], rounds: int, messages: int, plot: str, reasons: str) -> str:
    """The whole as a page; ``reasons`` is what was found out about targets that are missed."""
    machine = _machine()
    lines = [
        "# Results",
        "",
        f"Written by `make bench` on {_now()[:10]}: "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}; "
        + ", ".join(f"{name} {number}" for name, number in _versions().items())
        + f". {rounds} rounds of up to {messages:,} events.",
        "",
        f"![Cost of a message, and what is the floor's]({plot})",
        "",
        "## Targets",
        "",
        *_table([_TARGETS_HEAD, *(_target_row(each) for result in results for each in result.outcomes())]),
        "",
        "## Why not all are met",
        "",
        reasons,
        "",
        "## What this is",
        "",
        _SCOPE,
        "",
        "## All figures",
    ]
    for result in results:
        lines += ["", f"### {result.group.title}", "", *_table([_figures_head(result), *_figure_rows(result)])]
    return "\n".join(lines) + "\n"


def header(rounds: int, messages: int) -> str:
    machine = _machine()
    return "\n".join(
        [
            f"{rounds} rounds of up to {messages:,} events",
            f"{_now()}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}",
            ", ".join(f"{name} {number}" for name, number in _versions().items()),
        ]
    )


_TARGETS_HEAD = ("target", "measured", "least - most", "to be", "", "met")


def _figures_head(result: Result) -> Sequence[str]:
    return (result.group.unit, "median", "least - most")


def _figure_rows(result: Result) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        (name, _number(median(values)), f"{_number(min(values))} - {_number(max(values))}")
        for name, values in result.figures().items()
    ]
    return rows + [(name, "-", why) for name, why in result.failures.items()]


def _target_row(outcome: Outcome) -> Sequence[str]:
    target = outcome.target
    sign = "≥" if target.at_least else "≤"
    bound = f"{sign} {target.bound:g}"
    if outcome.value is None:
        return (target.what, "-", "-", bound, target.of, "not measured")
    spread = f"{_number(min(outcome.values))} - {_number(max(outcome.values))}"
    return (target.what, _number(outcome.value), spread, bound, target.of, "yes" if outcome.is_met else "NO")


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 100 or abs(value) < 0.1 else f"{value:#.3g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return [head, "|" + "---|" * len(rows[0]), *body]


def _spread(values: Sequence[float]) -> Mapping[str, Any]:
    return {"median": median(values), "min": min(values), "max": max(values), "samples": list(values)}


def _versions() -> dict[str, str]:
    versions = {platform.python_implementation(): platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # a peer, or what picows does without on some platforms
            continue
    try:
        node_command, package_path = node.installed_command("pusher_js")
        with open(f"{package_path}/package.json", encoding="utf-8") as file:
            versions[PUSHER_JS] = json.load(file)["version"]
        asked = subprocess.run([node_command, "--version"], capture_output=True, text=True)
        versions["Node"] = asked.stdout.strip().lstrip("v")
    except OSError:
        pass
    return versions


def _machine() -> dict[str, Any]:
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or "unknown CPU"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
