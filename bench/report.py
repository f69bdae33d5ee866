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
from .summary import number, summary, table

_PACKAGES = (
    "python-reverb", "picows", "aiofastnet", "msgspec", "PyNaCl", "asyncpusher", "aiohttp", "websockets", "Pysher",
)  # fmt: skip

_SCOPE = """\
**What is measured.** The way of an event from the socket to a handler, with everything that the client does in
between. The sender and the receiver run on the same machine. The sender prepares its messages before, and they
are the same for all clients. The benchmark checks that every event arrived, in order.

**What is not measured.** Networks, proxies, real servers, compression (Reverb has none), handlers that do work,
and lost connections.

**How.** Each round measures everything in a group once, in random order. One round before only warms up. Ratios
and differences are made from figures of the same round. The tables show the median of the rounds, and the least
and the most. Other clients run in processes of their own.

**Names in the tables:**

- *baseline*: a listener on picows' core API that decodes the message and its data with msgspec and calls a
  plain function. A Python program on picows cannot do less. It has no channels, no handlers by event name, no
  order between handlers that wait, no keepalive, no limits, and it does not reconnect. It does the same
  decoding and makes the same calls as the client that it is compared with. It copies payloads where that is
  faster than a `memoryview` (160 bytes), and uses a `memoryview` elsewhere (4 KB). It is a method, as in
  picows' documentation.
- *baseline, in a closure*: the same as a closure, which picows calls faster. python-reverb does so, too.
- *reverb, plain* and *reverb, async*: python-reverb with a handler that is a plain function, or an async
  function.
- *asyncpusher*, *pysher*, *pusher-js*: other clients. Pysher passes the data as text, so its handler parses it,
  as a program has to.
- *websockets + json*, *aiohttp + json*: a loop by hand on a WebSocket library.
- *encrypted*: events that have the same size as the others before encryption.
- *traced*: memory of Python objects, as `tracemalloc` counts it. *resident*: memory of the whole process."""


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


def as_markdown(results: Sequence[Result], rounds: int, messages: int, picture: str, reasons: str) -> str:
    """The whole as a page; ``reasons`` explains the targets that are not met."""
    machine = _machine()
    lines = [
        "# Results",
        "",
        f"How fast is python-reverb, and what does it need? `make bench` wrote this page on {_now()[:10]}. "
        f"The figures are those of one machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}.",
        "",
        "## Summary",
        "",
        *summary(results, picture),
        "## Targets",
        "",
        "The targets are limits for the cost of the client. If one is not met, the client is slower or larger "
        "than we want.",
        "",
        *table([_TARGETS_HEAD, *(_target_row(each) for result in results for each in result.outcomes())]),
        "",
        "## Why some targets are not met",
        "",
        reasons,
        "",
        "## How it is measured",
        "",
        f"{rounds} rounds of up to {messages:,} events, with "
        + ", ".join(f"{name} {release}" for name, release in _versions().items())
        + ".",
        "",
        _SCOPE,
        "",
        "## All figures",
    ]
    for result in results:
        lines += ["", f"### {result.group.title}", "", *table([_figures_head(result), *_figure_rows(result)])]
    return "\n".join(lines) + "\n"


def header(rounds: int, messages: int) -> str:
    machine = _machine()
    return "\n".join(
        [
            f"{rounds} rounds of up to {messages:,} events",
            f"{_now()}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}",
            ", ".join(f"{name} {release}" for name, release in _versions().items()),
        ]
    )


_TARGETS_HEAD = ("what", "measured", "least - most", "target", "unit", "met")


def _figures_head(result: Result) -> Sequence[str]:
    return (result.group.unit, "median", "least - most")


def _figure_rows(result: Result) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        (name, number(median(values)), f"{number(min(values))} - {number(max(values))}")
        for name, values in result.figures().items()
    ]
    return rows + [(name, "-", why) for name, why in result.failures.items()]


def _target_row(outcome: Outcome) -> Sequence[str]:
    target = outcome.target
    sign = "≥" if target.at_least else "≤"
    bound = f"{sign} {target.bound:g}"
    if outcome.value is None:
        return (target.what, "-", "-", bound, target.of, "not measured")
    spread = f"{number(min(outcome.values))} - {number(max(outcome.values))}"
    return (target.what, number(outcome.value), spread, bound, target.of, "yes" if outcome.is_met else "NO")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


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
