"""Results for people and for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

from .load import Load
from .measure import Result
from .receivers import FLOOR

_PACKAGES = ("python-reverb", "picows", "aiofastnet", "msgspec")


def as_json(results: Sequence[Result], load: Load) -> str:
    return json.dumps(
        {
            "date": _now(),
            "machine": _machine(),
            "versions": _versions(),
            "load": {"messages": load.messages, "message_bytes": load.size},
            "results": [
                {
                    "name": result.name,
                    "messages_per_second": {
                        "median": median(result.rates),
                        "min": min(result.rates),
                        "max": max(result.rates),
                        "samples": result.rates,
                    },
                    "microseconds_per_message": result.microseconds,
                    "ratio_to_floor": result.ratio,
                    "cpu_microseconds_per_message": result.cpu_microseconds,
                }
                for result in results
            ],
        },
        indent=2,
    )


def as_table(results: Sequence[Result], load: Load) -> str:
    """The results in columns, with what they were measured on and what the columns mean."""
    rows = [("", "messages/s", "min - max", "us/message", "CPU us", "x floor")]
    rows += [
        (
            result.name,
            f"{median(result.rates):,.0f}",
            f"{min(result.rates):,.0f} - {max(result.rates):,.0f}",
            f"{result.microseconds:.2f}",
            f"{result.cpu_microseconds:.2f}",
            f"{result.ratio:.2f}",
        )
        for result in results
    ]
    machine = _machine()
    head = [
        f"{load.messages:,} events of {load.size} bytes on one channel, {len(results[0].samples)} rounds",
        f"{_now()}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}",
        ", ".join(f"{name} {number}" for name, number in _versions().items()),
    ]
    foot = [
        "Each round runs every row once; shown are median, least and most of the rounds.",
        "CPU us: time that a message took on the CPU. Where it is clearly below us/message, the receiver was kept",
        "waiting, by the sender or by a busy machine, and its other figures are too low.",
        f"x floor: messages/s over those of {FLOOR.name!r}, median of the ratios in one round.",
    ]
    return "\n".join([*head, "", *_aligned(rows), "", *foot])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])  # names left, figures right
        for row in rows
    ]


def _versions() -> dict[str, str]:
    versions = {platform.python_implementation(): platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # picows does without aiofastnet on some platforms
            continue
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
