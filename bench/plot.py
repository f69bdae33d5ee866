"""The pictures of runs: what a message costs, and what of that is the floor's; how fleets come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from .measure import Result

_OURS, _FLOOR, _PEER = "#c2410c", "#94a3b8", "#475569"
_INK, _GRID = "#1e293b", "#e2e8f0"


def draw(results: Sequence[Result], file: Path) -> None:
    """Write a PNG about the groups ``events``, ``loads`` and ``growth``."""
    by_key = {result.group.key: _medians(result) for result in results}
    with mpl.rc_context({"font.size": 10, "text.color": _INK, "axes.labelcolor": _INK, "svg.fonttype": "none"}):
        figure = Figure(figsize=(11, 8.4), layout="constrained", facecolor="white")
        rows = figure.add_gridspec(2, 2, height_ratios=(1.1, 1))
        _draw_events(figure.add_subplot(rows[0, :]), by_key["events"])
        _draw_loads(figure.add_subplot(rows[1, 0]), by_key["loads"])
        _draw_growth(figure.add_subplot(rows[1, 1]), by_key["growth"])
        figure.savefig(file, dpi=130)


def draw_fleets(attempts: Mapping[str, Sequence[int]], back: Mapping[str, Sequence[float]], file: Path) -> None:
    """Write a PNG about attempts by second, and about when each of the clients was back."""
    with mpl.rc_context({"font.size": 10, "text.color": _INK, "axes.labelcolor": _INK}):
        figure = Figure(figsize=(11, 4.6), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2)
        for (name, by_second), colour in zip(attempts.items(), (_OURS, _FLOOR, _PEER), strict=False):
            left.stairs(by_second[:60], range(len(by_second[:60]) + 1), color=colour, linewidth=1.6, label=name)
        left.set_yscale("log")
        left.set_ylim(bottom=10)
        left.set_xlabel("seconds since the loss; 10,000 clients, 5 s down, then 500 connections a second")
        _finish(left, "Attempts a second (logarithmic)", "y")
        for (name, times), colour in zip(back.items(), (_OURS, _PEER, _FLOOR), strict=False):
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


def _medians(result: Result) -> dict[str, float]:
    return {name: median(values) for name, values in result.figures().items()}


def _draw_events(axes: Axes, medians: dict[str, float]) -> None:
    names = sorted(medians, key=lambda name: medians[name], reverse=True)
    values = [medians[name] for name in names]
    bars = axes.barh(
        [_label(name) for name in names], values, color=[_colour(name) for name in names], height=0.72
    )
    axes.bar_label(bars, [f"{value:.2f} µs" if value < 10 else f"{value:.1f} µs" for value in values], padding=4)
    axes.set_xscale("log")
    axes.set_xlim(right=max(values) * 1.6)
    _tick_plainly(axes, [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100])
    _finish(axes, "What a message of 160 bytes costs (microseconds, logarithmic: shorter is better)", "x")


def _draw_loads(axes: Axes, medians: dict[str, float]) -> None:
    loads = list(dict.fromkeys(name.partition(": ")[0] for name in medians))
    kinds = (("floor", _FLOOR), ("plain", _OURS), ("async", "#fdba74"))
    for offset, (kind, colour) in zip((-0.27, 0, 0.27), kinds, strict=True):
        measured = [(place, medians.get(f"{load}: {kind}")) for place, load in enumerate(loads)]
        places = [place + offset for place, value in measured if value is not None]
        values = [value for _, value in measured if value is not None]
        label = "floor" if kind == "floor" else f"reverb, {kind} handler"
        bars = axes.bar(places, values, width=0.25, color=colour, label=label)
        axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=2, fontsize=8)
    axes.set_xticks(range(len(loads)), loads, fontsize=9)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=9, ncols=3)
    axes.set_xlim(-0.5, len(loads) - 0.5)
    axes.margins(y=0.12)
    _finish(axes, "Other events (µs a message)", "y")


def _draw_growth(axes: Axes, medians: dict[str, float]) -> None:
    styles = {"reverb, async": ("#fdba74", "o"), "reverb, plain": (_OURS, "o"), "floor": (_FLOOR, "s")}
    for things, line in (("channels", "-"), ("clients", "--")):
        for receiver, (colour, marker) in styles.items():
            points = [
                (int(name.split()[0].replace(",", "")), value)
                for name, value in medians.items()
                if name.endswith(f" {things}: {receiver}")
            ]
            if points:
                label = f"{receiver}: {things}"
                axes.plot(*zip(*points, strict=True), line, color=colour, marker=marker, label=label)
    axes.set_xscale("log")
    _tick_plainly(axes, [1, 10, 100, 1000, 10_000])
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    _finish(axes, "Many channels, many clients (µs a message)", "y")


def _tick_plainly(axes: Axes, ticks: Sequence[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _label(name: str) -> str:
    return "floor: picows + msgspec" if name == "floor" else name


def _colour(name: str) -> str:
    if name.startswith("reverb"):
        return _OURS
    return _FLOOR if name.startswith(("floor", "picows")) else _PEER


def _finish(axes: Axes, title: str, grid: Literal["x", "y"]) -> None:
    axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, length=0)
    axes.grid(axis=grid, color=_GRID)
    axes.set_axisbelow(True)
