"""The first part of the results: what a user wants to know, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from .measure import PUSHER_JS, Result

CLIENTS = {
    "reverb, plain": "python-reverb, plain handler",
    "reverb, async": "python-reverb, async handler",
    "aiohttp + json": "aiohttp + json, by hand",
    PUSHER_JS: "pusher-js on Node",
    "websockets + json": "websockets + json, by hand",
    "asyncpusher": "asyncpusher",
    "pysher": "Pysher",
}
"""The names of clients for readers, by their names in the group ``events``."""

_SLOWER = 10
"""How much slower the computer in the example is."""
_RATE = 100
"""Events a second in the example."""
_SMALL_MEMORY = 512
"""MiB of memory of the smallest Raspberry Pi that has a 64-bit system, the Zero 2 W."""

Medians = Mapping[str, Mapping[str, float]]
"""The median of each figure, by its name, by the key of its group."""


def medians(results: Sequence[Result]) -> Medians:
    return {
        result.group.key: {name: median(values) for name, values in result.figures().items()} for result in results
    }


def summary(results: Sequence[Result], picture: str) -> list[str]:
    """Return the lines of the summary. A part is left out if one of its figures was not measured."""
    found = medians(results)
    lines: list[str] = []
    for part in (_speed, _cost, _memory, _small_computer):
        try:
            lines += [*part(found), ""]
        except KeyError:
            continue
        if part is _speed:
            lines += [f"![Time for one event with each client, in microseconds]({picture})", ""]
    return lines


def _speed(found: Medians) -> list[str]:
    events = found["events"]
    plain, with_async = events["reverb, plain"], events["reverb, async"]
    others = [events[name] / with_async for name in CLIENTS if name in events and not name.startswith("reverb")]
    compared = f" Other clients take {number(min(others))} to {number(max(others))} times as long as that."
    return [
        "### How fast is it beside other clients?",
        "",
        f"python-reverb takes {number(plain)} µs for an event if the handler is a plain function, and "
        f"{number(with_async)} µs if it is an async function.{compared if others else ''}",
        "",
        *table(
            [
                ("client", "time for one event", "events a second, at most"),
                *(
                    (label, f"{number(events[name])} µs", rounded(1e6 / events[name]))
                    for name, label in CLIENTS.items()
                    if name in events
                ),
            ]
        ),
        "",
        "The events have 160 bytes and are all on one channel. They arrive as fast as the client can read them. "
        "So this is the time of the client, its libraries and the operating system, without a network "
        'or a server. "By hand" is your own loop on a WebSocket library. It has no channels and never reconnects.',
    ]


def _cost(found: Medians) -> list[str]:
    events, loads, growth, latency = found["events"], found["loads"], found["growth"], found["latency"]
    plain, with_async, baseline = events["reverb, plain"], events["reverb, async"], events["baseline"]
    others = {
        "4 KB instead of 160 bytes": (loads["4 KB: plain"], loads["4 KB: async"]),
        "304 bytes, text that is not English": (loads["not English: plain"], loads["not English: async"]),
        "encrypted": (loads["encrypted: plain"], loads["encrypted: async"]),
        "5 handlers instead of 1": (loads["5 handlers: plain"], loads["5 handlers: async"]),
        "spread over 10,000 channels": (
            growth["10,000 channels: reverb, plain"],
            growth["10,000 channels: reverb, async"],
        ),
    }
    return [
        "### What does one event cost?",
        "",
        "A program on the same libraries that only reads an event, decodes it, and calls a function takes "
        f"{number(baseline)} µs. python-reverb adds "
        f"{number(plain - baseline)} µs with a plain handler, and {number(with_async - baseline)} µs with an "
        "async one. In this time it finds the handlers by event name, keeps the order of events, limits its "
        "memory, and notices a lost connection. Other events take longer:",
        "",
        *table(
            [
                ("event", "plain handler", "async handler"),
                *(
                    (what, f"{number(first)} µs", f"{number(second)} µs")
                    for what, (first, second) in others.items()
                ),
            ]
        ),
        "",
        "An event that comes alone takes longer, because the process has to wake up. From a sender on the same "
        f"machine, it takes {number(latency['reverb, plain, p50'])} µs to a plain handler, and "
        f"{number(latency['reverb, async, p50'])} µs to an async one.",
    ]


def _memory(found: Medians) -> list[str]:
    idle, memory = found["idle"], found["memory"]
    channel = 1024 * memory["channel with one handler, traced"]
    return [
        "### How much memory does it need?",
        "",
        f"A Python process with one idle client and one channel uses {number(idle['idle reverb, MiB'])} MiB. With "
        f"asyncpusher it uses {number(idle['idle asyncpusher, MiB'])} MiB, with Pysher "
        f"{number(idle['idle pysher, MiB'])} MiB, and with the library websockets alone "
        f"{number(idle['idle websockets, MiB'])} MiB. Each channel with one handler adds {number(channel)} KiB of "
        "Python objects. After the first million events, another million adds "
        f"{number(memory['plain handler, another million'])} MiB with a plain handler, and "
        f"{number(memory['async handler, another million'])} MiB with an async one.",
    ]


def _small_computer(found: Medians) -> list[str]:
    in_bursts, alone = found["events"]["reverb, async"], found["latency"]["reverb, async, p50"]
    used, wake_ups = found["idle"]["idle reverb, MiB"], found["idle"]["idle reverb, wake-ups a minute"]
    return [
        "### What does this mean for a Raspberry Pi?",
        "",
        "This benchmark did not run on one, so this is an estimate. It is for a computer that is "
        f"{_SLOWER} times slower than this one, and for async handlers that do almost nothing:",
        "",
        f"- Events in bursts: one core handles about {rounded(1e6 / in_bursts / _SLOWER)} a second.",
        f"- Events that come alone: {_RATE} a second take at most {number(_RATE * alone * _SLOWER / 1e4)} % of "
        f"one core ({number(alone)} µs each on this computer, the sender's time included).",
        f"- Memory: {number(used)} MiB are {number(100 * used / _SMALL_MEMORY)} % of the {_SMALL_MEMORY} MB of a "
        "Zero 2 W.",
        f"- An idle client wakes the processor {number(wake_ups)} times a minute.",
    ]


def rounded(value: float) -> str:
    """Write a number with its first two digits."""
    return f"{float(f'{value:.2g}'):,.0f}"


def number(value: float) -> str:
    """Write a figure with three digits."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 100 or abs(value) < 0.1 else f"{value:#.3g}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return [head, "|" + "---|" * len(rows[0]), *body]
