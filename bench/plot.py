"""The pictures: the time for an event with each client, and how fleets of clients reconnect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .measure import Result
from .summary import CLIENTS, medians, number

_OURS, _PEER, _OTHER = "#c2410c", "#475569", "#94a3b8"
_INK, _GRID = "#1e293b", "#e2e8f0"


def draw(results: Sequence[Result], file: Path) -> None:
    """Write a PNG about the clients in the group ``events``. Its text is large enough for a phone."""
    events = medians(results)["events"]
    names = sorted((name for name in CLIENTS if name in events), key=lambda name: events[name], reverse=True)
    values = [events[name] for name in names]
    with mpl.rc_context({"font.size": 13, "axes.titlesize": 14, "text.color": _INK, "axes.labelcolor": _INK}):
        figure = Figure(figsize=(7, 4.4), layout="constrained", facecolor="white")
        axes = figure.subplots()
        colours = [_OURS if name.startswith("reverb") else _PEER for name in names]
        bars = axes.barh([CLIENTS[name] for name in names], values, color=colours, height=0.72)
        axes.bar_label(bars, [number(value) for value in values], padding=4)
        axes.set_xlim(right=max(values) * 1.15)
        axes.set_xlabel("microseconds for one event of 160 bytes")
        _finish(axes, "Time for one event (shorter is better)", "x")
        figure.savefig(file, dpi=150)


def draw_fleets(attempts: Mapping[str, Sequence[int]], back: Mapping[str, Sequence[float]], file: Path) -> None:
    """Write a PNG about attempts by second, and about when each of the clients was back."""
    with mpl.rc_context({"font.size": 10, "axes.titlesize": 11, "text.color": _INK, "axes.labelcolor": _INK}):
        figure = Figure(figsize=(11, 4.6), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2)
        for (name, by_second), colour in zip(attempts.items(), (_OURS, _OTHER, _PEER), strict=False):
            left.stairs(by_second[:60], range(len(by_second[:60]) + 1), color=colour, linewidth=1.6, label=name)
        left.set_yscale("log")
        left.set_ylim(bottom=10)
        left.set_xlabel("seconds since the loss; 10,000 clients, 5 s down, then 500 connections a second")
        _finish(left, "Attempts a second (logarithmic)", "y")
        for (name, times), colour in zip(back.items(), (_OURS, _PEER, _OTHER), strict=False):
            counts = [*range(1, len(times) + 1), len(times)]
            right.plot([*times, 200], counts, color=colour, linewidth=1.6, label=name)
        right.set_xlim(0, 200)
        right.set_ylim(bottom=0)
        right.set_xlabel("seconds since the loss; 10,000 clients, 5 s down, then 100 connections a second")
        _finish(right, "Clients that are back", "y")
        for axes in (left, right):
            axes.xaxis.label.set_fontsize(9)
            axes.legend(frameon=False, fontsize=9)
        figure.savefig(file, dpi=110)


def _finish(axes: Axes, title: str, grid: Literal["x", "y"]) -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, length=0)
    axes.grid(axis=grid, color=_GRID)
    axes.set_axisbelow(True)
