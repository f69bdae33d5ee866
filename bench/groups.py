"""The groups that are measured, and their targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import quantiles
from typing import Any

from .footprint import IDLE, START
from .load import Load
from .measure import PUSHER_JS, Bench, Figures, Group, Subject, Target, receiving
from .worker import WorkerError

_SLACK = 1.5
"""Microseconds that the client may take in addition to the baseline."""
_FACTOR = 1.25
"""The limit for a ratio of two costs that should be about equal."""


def _faster(what: str, ours: str, theirs: str, times: float, of: str | None = None) -> Target:
    return Target(
        what,
        lambda figures: figures[theirs] / figures[ours],
        times,
        of or f"times the rate of {theirs}",
        at_least=True,
    )


def _near(what: str, ours: str, baseline: str) -> Target:
    return Target(
        what,
        lambda figures: figures[ours] / (figures[baseline] + _SLACK),
        _FACTOR,
        f"times (baseline + {_SLACK} µs)",
    )


def _ratio(what: str, ours: str, theirs: str, bound: float, of: str) -> Target:
    return Target(what, lambda figures: figures[ours] / figures[theirs], bound, of)


# --- events ----------------------------------------------------------------------------------------------------

EVENTS = Group(
    "events",
    "160-byte events on one channel",
    "µs/message",
    [
        receiving("picows, nothing decoded"),
        receiving("baseline"),
        receiving("baseline, in a closure"),
        receiving("reverb, plain"),
        receiving("reverb, async"),
        receiving("reverb, no handler"),
        receiving(PUSHER_JS, share=0.5, peer=True),
        receiving("asyncpusher", share=0.25, peer=True),
        receiving("aiohttp + json", share=0.25, peer=True),
        receiving("websockets + json", share=0.25, peer=True),
        receiving("pysher", share=0.1, peer=True),
    ],
    [
        _faster("plain handler", "reverb, plain", "baseline", 0.85),
        _faster("async handler that doesn't suspend", "reverb, async", "baseline", 0.65),
        Target(
            "events without a handler",
            lambda figures: figures["reverb, no handler"] - figures["picows, nothing decoded"],
            0.7,
            "µs more than picows alone",
        ),
        _faster("plain handler", "reverb, plain", PUSHER_JS, 3.5),
        _faster("async handler", "reverb, async", PUSHER_JS, 2.8),
        _faster("async handler", "reverb, async", "asyncpusher", 3.5),
        _faster("async handler", "reverb, async", "websockets + json", 5),
        _faster("async handler", "reverb, async", "pysher", 20),
    ],
)


# Each load: what it is, receivers (baseline, plain, async), and how it differs.
_LOADS: Sequence[tuple[str, str, str, str, Mapping[str, Any]]] = (
    ("4 KB", "baseline", "reverb, plain", "reverb, async", {"size": 4096, "share": 0.5}),
    ("1,000 channels", "baseline", "reverb, plain", "reverb, async", {"channels": 1000, "share": 0.5}),
    (
        "5 handlers",
        "baseline, 5 calls",
        "reverb, plain, 5 handlers",
        "reverb, async, 5 handlers",
        {"share": 0.5},
    ),
    ("wildcard", "baseline", "reverb, plain, wildcard", "reverb, async, wildcard", {"share": 0.5}),
    ("encrypted", "baseline, encrypted", "reverb, plain", "reverb, async", {"encrypted": True, "share": 0.25}),
    ("not English", "baseline", "reverb, plain", "reverb, async", {"size": 304, "escaped": True, "share": 0.5}),
)

LOADS = Group(
    "loads",
    "Other events",
    "µs/message",
    [
        receiving(receiver, name=f"{load}: {name}", **differing)
        for load, baseline, plain, with_async, differing in _LOADS
        for name, receiver in (("baseline", baseline), ("plain", plain), ("async", with_async))
    ]
    + [
        receiving(
            "baseline, orjson", name="not English: baseline, orjson", size=304, escaped=True, share=0.5, peer=True
        ),
    ],
    [
        _near(f"{load}, {kind} handler", f"{load}: {kind}", f"{load}: baseline")
        for load, *_ in _LOADS
        for kind in ("plain", "async")
    ],
)


def _over_best_tls_baseline(ours: str) -> Callable[[Figures], float]:
    return lambda figures: min(figures["baseline"], figures["baseline, without aiofastnet"]) / figures[ours]


WSS = Group(
    "wss",
    "160-byte events over TLS",
    "µs/message",
    [
        receiving(receiver, share=0.5, tls=True)
        for receiver in ("baseline", "baseline, without aiofastnet", "reverb, plain", "reverb, async")
    ],
    [
        Target(
            f"wss, {kind} handler",
            _over_best_tls_baseline(f"reverb, {kind}"),
            bound,
            "times the rate of the faster baseline",
            at_least=True,
        )
        for kind, bound in (("plain", 0.85), ("async", 0.65))
    ],
)


_CHANNELS = (1, 100, 10_000)
_CLIENTS = (1, 10, 100)

GROWTH = Group(
    "growth",
    "Many channels, many clients",
    "µs/message",
    [
        # Enough events for each channel that the first one's way, which is longer, does not count.
        receiving(receiver, name=f"{channels:,} channels: {receiver}", channels=channels, share=share)
        for channels, share in zip(_CHANNELS, (0.5, 0.5, 2), strict=True)
        for receiver in ("baseline", "reverb, plain", "reverb, async")
    ]
    + [
        receiving(receiver, name=f"{clients} clients: {receiver}", connections=clients, share=0.5)
        for clients in _CLIENTS
        for receiver in ("baseline", "reverb, plain", "reverb, async")
    ],
    [
        _ratio(
            f"{number:,} {things}, {kind} handler",
            f"{number:,} {things}: reverb, {kind}",
            f"1 {things}: reverb, {kind}",
            _FACTOR,
            "times the cost with one",
        )
        for things, numbers in (("channels", _CHANNELS[1:]), ("clients", _CLIENTS[1:]))
        for number in numbers
        for kind in ("plain", "async")
    ],
)


# --- one event at a time ---------------------------------------------------------------------------------------

_INTERVAL = 0.001
"""Seconds between two events to an idle client."""


def _latency(receiver: str) -> Subject:
    def measure(bench: Bench) -> Figures:
        load = Load(max(20, min(1000, bench.messages // 100)))
        worker = bench.worker("python")
        worker.ask("latency", receiver=receiver, address=asdict(bench.address()), load=asdict(load))
        sent = bench.sender.pace(load, _INTERVAL)
        arrived = worker.hear()["arrived"]
        took = [(after - before) / 1000 for before, after in zip(sent, arrived, strict=True)]
        if min(took) <= 0:
            raise WorkerError("the events that arrived are not those that were sent")
        percentiles = quantiles(took, n=100)
        return {f"{receiver}, p50": percentiles[49], f"{receiver}, p99": percentiles[98]}

    return Subject(receiver, measure)


LATENCY = Group(
    "latency",
    "One event at a time, from the sender to the handler of an idle client",
    "µs",
    [_latency(receiver) for receiver in ("picows", "baseline", "reverb, plain", "reverb, async")],
    [
        _ratio(
            f"one event, {kind} handler, {percentile}",
            f"reverb, {kind}, {percentile}",
            f"picows, {percentile}",
            1.3,
            "times picows alone",
        )
        for kind in ("plain", "async")
        for percentile in ("p50", "p99")
    ],
)


# --- sending and subscribing -----------------------------------------------------------------------------------


def _trigger(name: str, sending: str) -> Subject:
    def measure(bench: Bench) -> Figures:
        messages = max(10, bench.messages // 4)
        worker = bench.worker("python")
        worker.ask("trigger", sending=sending, address=asdict(bench.address()), messages=messages)
        bench.sender.hoard()
        seconds = worker.ask("go")["seconds"]
        ids = [data["id"] for data in bench.sender.hoarded()]
        worker.ask("leave")
        if ids != list(range(messages)):
            raise WorkerError(f"{len(ids)} of {messages} client events arrived, or not in order")
        return {name: 1e6 * seconds / messages}

    return Subject(name, measure)


TRIGGER = Group(
    "trigger",
    "Client events sent",
    "µs/message",
    [_trigger("picows, send", "picows"), _trigger("reverb, trigger", "reverb")],
    [_faster("trigger", "reverb, trigger", "picows, send", 0.6, "times the rate of picows, without encoding")],
)


def _subscribe(channels: int) -> Subject:
    name = f"{channels:,} channels"

    def measure(bench: Bench) -> Figures:
        answer = bench.worker("python").ask("subscribe_many", address=asdict(bench.address()), channels=channels)
        return {
            f"{name}, on the CPU": 1e6 * answer["cpu"] / channels,
            f"{name}, by the clock": 1e6 * answer["seconds"] / channels,
        }

    return Subject(name, measure)


SUBSCRIBE = Group(
    "subscribe",
    "Subscribing to many channels at once",
    "µs/channel",
    [_subscribe(1000), _subscribe(10_000)],
    [
        Target("10,000 subscribes at once", lambda figures: figures["10,000 channels, on the CPU"], 60, "µs each"),
        _ratio(
            "10,000 subscribes, compared with 1,000",
            "10,000 channels, on the CPU",
            "1,000 channels, on the CPU",
            _FACTOR,
            "times the cost of each",
        ),
    ],
)


# --- memory ----------------------------------------------------------------------------------------------------

_MIB, _KIB = 1 << 20, 1 << 10


def _channels(traced: bool) -> Subject:
    name = "channel with one handler, " + ("traced" if traced else "resident")

    def measure(bench: Bench) -> Figures:
        with bench.new_worker() as worker:
            answer = worker.ask(
                "memory_of_channels", address=asdict(bench.address()), channels=10_000, traced=traced
            )
        return {name: answer["bytes"] / _MIB}

    return Subject(name, measure)


def _events(kind: str) -> Subject:
    def measure(bench: Bench) -> Figures:
        load, times = Load(100_000), 20
        bench.sender.prepare(load)
        with bench.new_worker() as worker:
            worker.ask(
                "memory_of_events",
                address=asdict(bench.address()),
                load=asdict(load),
                times=times,
                is_async=kind == "async",
            )
            for _ in range(times):
                bench.sender.blast(load)
                answer = worker.hear()
        sizes = answer["sizes"]
        return {
            f"{kind} handler, a million events": (sizes[9] - sizes[0]) / _MIB,
            f"{kind} handler, another million": (sizes[19] - sizes[9]) / _MIB,
        }

    return Subject(f"{kind} handler", measure)


MEMORY = Group(
    "memory",
    "Memory",
    "MiB",
    [
        _channels(traced=True),
        _channels(traced=False),
        _events("plain"),
        _events("async"),
    ],
    [
        Target(
            "each channel with one handler",
            lambda figures: figures["channel with one handler, traced"] * _KIB,
            1.5,
            "KiB, as tracemalloc counts",
        ),
        Target(
            "another million events, plain handler",
            lambda figures: figures["plain handler, another million"],
            1,
            "MiB more than after the first million",
        ),
        Target(
            "another million events, async handler",
            lambda figures: figures["async handler, another million"],
            1,
            "MiB more than after the first million",
        ),
    ],
    max_rounds=3,
    warm_up=False,
)


GROUPS: Sequence[Group] = (EVENTS, LOADS, WSS, GROWTH, LATENCY, TRIGGER, SUBSCRIBE, MEMORY, START, IDLE)
