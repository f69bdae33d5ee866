"""``python -m bench.fleet``: simulate many clients that lose their server at the same moment and reconnect.

The simulation opens no connections and takes no real time: its clock goes from event to event. The delays are
those of the client's own ``Backoff``, and of other methods for comparison. The same ``--seed`` gives the same
numbers.

The server is a queue. While it is down, it refuses connections at once. Afterwards, it accepts a fixed number of
connections a second, in the order of arrival. A limited number can wait (the backlog of the listening socket). A
further connection is refused at once, or gets no answer and times out. A client that timed out stays in the
queue: the server notices only after it has done the work. The simulation leaves out TCP retransmissions, by which
an attempt without an answer may get a place in the queue later.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heapify, heappop, heapreplace
from math import ceil, inf
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple, Protocol

from reverb._backoff import Backoff
from reverb._protocol import Action

PICTURE = Path("docs/explanation/many-clients.png")

LEAST, MOST, TIMEOUT = 1.0, 30.0, 10.0
"""The defaults of REVERB_RECONNECT_DELAY_MIN, REVERB_RECONNECT_DELAY_MAX and REVERB_CONNECT_TIMEOUT."""
BACKLOG = 511
"""What ReactPHP, and so Reverb, asks the system for."""
GOOD_AFTER = 5.0
"""Seconds after which a connection counts as good, so that delays start again."""

_NO_LIMIT = 1e9
_LONE_CLIENTS = 20_000


class Delays(Protocol):
    """What a client asks before each attempt."""

    def delay(self, action: Action) -> float: ...


Way = Callable[[Random], Delays]

# --- other ways to choose delays, inside the same bounds -------------------------------------------------------


class Alternative:
    """Delays by a function of the number of the attempt, the delay before, and the random numbers."""

    def __init__(self, choose: Callable[[int, float, Random], float], rng: Random) -> None:
        self._choose = choose
        self._rng = rng
        self._attempts = 0
        self._previous = LEAST

    def delay(self, action: Action) -> float:
        self._attempts += 1
        self._previous = self._choose(self._attempts, self._previous, self._rng)
        return self._previous


def full_jitter(attempt: int, previous: float, rng: Random) -> float:
    """From 0 to the limit, and what is below the least is the least."""
    return max(LEAST, rng.uniform(0, _limit(attempt)))


def equal_jitter(attempt: int, previous: float, rng: Random) -> float:
    return rng.uniform(max(LEAST, _limit(attempt) / 2), _limit(attempt))


def decorrelated_jitter(attempt: int, previous: float, rng: Random) -> float:
    return min(MOST, rng.uniform(LEAST, 3 * previous))


def first_limit_of_3(attempt: int, previous: float, rng: Random) -> float:
    return rng.uniform(LEAST, _limit(attempt, 1.5))


def first_limit_of_4(attempt: int, previous: float, rng: Random) -> float:
    return rng.uniform(LEAST, _limit(attempt, 2))


def _limit(attempt: int, times: float = 1) -> float:
    return min(MOST, times * LEAST * 2.0 ** min(attempt, 64))


BACKOFF = partial(Backoff, LEAST, MOST)
"""The client's way, with default settings."""

WAYS: dict[str, Way] = {
    "the client's": BACKOFF,
    "full jitter": partial(Alternative, full_jitter),
    "equal jitter": partial(Alternative, equal_jitter),
    "decorrelated jitter": partial(Alternative, decorrelated_jitter),
    "first limit of 3 s": partial(Alternative, first_limit_of_3),
    "first limit of 4 s": partial(Alternative, first_limit_of_4),
}


# --- the simulation --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fleet:
    """Who comes back, and to what."""

    clients: int
    accepts: float
    """Connections that the server takes in a second."""
    down: float
    """Seconds from the loss of all connections until the server is there again."""
    refuses: bool = False
    """Whether it refuses at once what finds the queue full; else that times out."""
    backlog: float = BACKLOG
    timeout: float = TIMEOUT
    loss: Action = Action.BACK_OFF
    """What the loss of the connections makes clients do."""

    @property
    def patience(self) -> float:
        """Seconds after which the simulation ends, whoever is back."""
        return self.down + 10 * self.clients / self.accepts + 300


@dataclass
class Outcome:
    fleet: Fleet
    attempts_by_second: list[int] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    """When each client was back, in seconds since the loss, in order."""

    @property
    def attempts(self) -> int:
        return sum(self.attempts_by_second)

    @property
    def wasted(self) -> int:
        """Attempts that led to nothing."""
        return self.attempts - len(self.back)

    @property
    def peak(self) -> int:
        return max(self.attempts_by_second)

    @property
    def peak_while_up(self) -> int:
        return max(self.attempts_by_second[ceil(self.fleet.down) :], default=0)

    @property
    def mean(self) -> float:
        """Attempts a second, until 99 % are back."""
        end = ceil(min(self.time_until(0.99), len(self.attempts_by_second)))
        return sum(self.attempts_by_second[:end]) / end

    def time_until(self, share: float) -> float:
        """Seconds from the loss until so many are back; infinite if they aren't when the simulation ends."""
        number = ceil(share * self.fleet.clients)
        return self.back[number - 1] if number <= len(self.back) else inf


def simulate(
    fleet: Fleet,
    way: Way = BACKOFF,
    seed: int = 1,
    progress: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Let a fleet lose its connections at 0 seconds, and follow each attempt until all are back."""
    rng = Random(seed)
    delays = [way(rng) for _ in range(fleet.clients)]
    agenda = [(each.delay(fleet.loss), number) for number, each in enumerate(delays)]
    heapify(agenda)
    outcome = Outcome(fleet)
    back, by_second = outcome.back, outcome.attempts_by_second
    down, accepts, backlog, timeout = fleet.down, fleet.accepts, fleet.backlog, fleet.timeout
    until_refused = 0.0 if fleet.refuses else timeout
    served_until = down
    while agenda and agenda[0][0] <= fleet.patience:
        now, number = agenda[0]
        while len(by_second) <= now:
            by_second.append(0)
            progress(f"{fleet.clients:,} clients, {now:.0f} s: {len(back):,} are back")
        by_second[int(now)] += 1
        if now < down:
            failed = now
        else:
            served_until = max(served_until, now)
            if (served_until - now) * accepts >= backlog:
                failed = now + until_refused
            else:
                served_until += 1 / accepts
                if served_until - now <= timeout:
                    back.append(served_until)
                    heappop(agenda)
                    continue
                failed = now + timeout
        heapreplace(agenda, (failed + delays[number].delay(Action.BACK_OFF), number))
    return outcome


def restarts_in_a_minute(good_after: float, seed: int) -> list[list[float]]:
    """Four restarts of 2 s, one each 15 s: seconds from each until a client is back, for many lone clients."""
    rng = Random(seed)
    waits: list[list[float]] = [[], [], [], []]
    for _ in range(_LONE_CLIENTS):
        backoff = BACKOFF(rng)
        connected_at = -inf
        for number, restart in enumerate((0.0, 15.0, 30.0, 45.0)):
            if connected_at > restart:  # it missed this one, as it was not back from the one before
                waits[number].append(connected_at - restart)
                continue
            if restart - connected_at >= good_after:
                backoff.restart()
            connected_at = restart
            while (connected_at - restart) % 15 < 2:
                connected_at += backoff.delay(Action.BACK_OFF)
            waits[number].append(connected_at - restart)
    return waits


def drops(lifetime: float, good_after: float, seconds: float, seed: int) -> int:
    """Connections that one client makes to a server that accepts each and drops it after ``lifetime``."""
    backoff = BACKOFF(Random(seed))
    now, connections = 0.0, 0
    while True:
        if lifetime >= good_after:
            backoff.restart()
        now += backoff.delay(Action.BACK_OFF)
        if now > seconds:
            return connections
        connections += 1
        now += lifetime


# --- what is simulated, and shown ------------------------------------------------------------------------------

Row = dict[str, Any]


class Part(NamedTuple):
    title: str
    rows: Callable[[argparse.Namespace], Iterator[Row]]


FLEETS = ((1_000, 100), (10_000, 100), (10_000, 500), (100_000, 500), (100_000, 2_000))
"""Clients, and connections a second: 100 is a small machine that makes TLS itself, with subscribes to authorise;
500 a process without that work; 2,000 several of them behind a balancer."""


def fleets(options: argparse.Namespace) -> Iterator[Row]:
    chosen = [(clients, rate) for clients, rate in FLEETS if options.clients in (None, clients)]
    if not chosen or options.accepts:
        chosen = [(options.clients or clients, options.accepts or rate) for clients, rate in chosen or FLEETS[:1]]
    for clients, accepts in dict.fromkeys(chosen):
        for refuses in (False, True):
            yield _row(Fleet(clients, accepts, options.down, refuses), options)


def ways(options: argparse.Namespace) -> Iterator[Row]:
    for clients, accepts in ((10_000, 500), (100_000, 2_000)):
        if options.clients in (None, clients):
            for down in (1.0, options.down):
                for name in WAYS:
                    yield {"delays": name} | _row(Fleet(clients, accepts, down), options, WAYS[name])


def lone(options: argparse.Namespace) -> Iterator[Row]:
    for name, way in WAYS.items():
        row: Row = {"delays": name}
        for down in (0.0, 2.0, 5.0, 60.0):
            fleet = Fleet(_LONE_CLIENTS, _NO_LIMIT, down, backlog=inf)
            outcome = simulate(fleet, way, options.seed, options.progress)
            for title, share in (("median", 0.5), ("99 %", 0.99), ("worst", 1)):
                row[f"{down:g} s: {title}"] = outcome.time_until(share)
        yield row


def settings(options: argparse.Namespace) -> Iterator[Row]:
    """What users can set, on fleets that are large for their server (100 and 200 seconds to accept all)."""
    fleet = Fleet(10_000, 100, options.down)

    def run(name: str, fleet: Fleet, least: float = LEAST, most: float = MOST) -> Row:
        return {"settings": name} | _row(fleet, options, partial(Backoff, least, most))

    yield run("defaults", fleet)
    for most in (10.0, 60.0, 100.0, 300.0):
        yield run(f"DELAY_MAX {most:g}", fleet, most=most)
    for least in (5.0, 10.0):
        yield run(f"DELAY_MIN {least:g}", fleet, least)
    yield run("closed with 4200", replace(fleet, loss=Action.RETRY_NOW))
    for backlog in (1_000, 4_096, inf):
        yield run("defaults", replace(fleet, backlog=backlog))
    for most in (100.0, 300.0):
        yield run(f"DELAY_MAX {most:g}", replace(fleet, backlog=inf), most=most)
    for timeout in (30.0, 60.0, 120.0):
        yield run(f"CONNECT_TIMEOUT {timeout:g}", replace(fleet, backlog=inf, timeout=timeout))
    larger = Fleet(100_000, 500, options.down, refuses=True)
    if options.clients in (None, larger.clients):
        for most in (30.0, 60.0, 120.0):
            yield run(f"DELAY_MAX {most:g}", larger, most=most)
        yield run("DELAY_MIN 20, DELAY_MAX 60", larger, 20.0, 60.0)


def restarts(options: argparse.Namespace) -> Iterator[Row]:
    for good_after in (GOOD_AFTER, MOST):
        row: Row = {"good after": f"{good_after:g} s"}
        for number, waits in enumerate(restarts_in_a_minute(good_after, options.seed), 1):
            row[f"restart {number}: median"] = median(waits)
            row[f"{number}: 99 %"] = sorted(waits)[-len(waits) // 100]
        yield row


def dropped(options: argparse.Namespace) -> Iterator[Row]:
    for lifetime in (0.0, 4.0, 5.0):
        row: Row = {"each connection is dropped after": f"{lifetime:g} s"}
        for seconds in (60, 3600):
            runs = [drops(lifetime, GOOD_AFTER, seconds, options.seed + number) for number in range(1_000)]
            row[f"connections in {seconds} s"] = sum(runs) / len(runs)
        yield row


PARTS = {
    "fleets": Part("A fleet coming back, with the client's delays and default settings", fleets),
    "ways": Part("Other ways to choose the delays; what does not fit into the queue times out", ways),
    "lone": Part("A lone client: seconds from the loss until it is back, by how long the server is down", lone),
    "settings": Part("Settings, for fleets that are large for their server", settings),
    "restarts": Part("Four restarts of 2 s within a minute: seconds until a lone client is back", restarts),
    "dropped": Part("A server that accepts and drops: connections of one client", dropped),
}


def _row(fleet: Fleet, options: argparse.Namespace, way: Way = BACKOFF) -> Row:
    outcome = simulate(fleet, way, options.seed, options.progress)
    return {
        "clients": fleet.clients,
        "accepts": fleet.accepts,
        "down": fleet.down,
        "may wait": "any" if fleet.backlog == inf else fleet.backlog,
        "others": "refused" if fleet.refuses else "time out",
        "peak/s": outcome.peak,
        "peak/s while up": outcome.peak_while_up,
        "mean/s": outcome.mean,
        "attempts each": outcome.attempts / fleet.clients,
        "wasted each": outcome.wasted / fleet.clients,
        "50 %": outcome.time_until(0.5),
        "99 %": outcome.time_until(0.99),
        "100 %": outcome.time_until(1),
    }


def _as_text(title: str, rows: Sequence[Row]) -> str:
    cells = [list(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *body = ([f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)] for line in cells)
    lines = [head, ["-" * width for width in widths], *body]
    return "\n".join([title, "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def _cell(value: object) -> str:
    if isinstance(value, float) and not value.is_integer():
        return "never" if value == inf else f"{value:,.1f}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main() -> None:
    options = _parse_options()
    parts = options.only or list(PARTS)
    report: dict[str, list[Row]] = {}
    for key in parts:
        rows = report[key] = list(PARTS[key].rows(options))
        options.progress("")
        if rows and not options.json:
            print(_as_text(PARTS[key].title, rows), flush=True)
    if options.json:
        print(json.dumps({"seed": options.seed, "parts": {key: _finite(rows) for key, rows in report.items()}}))
    if options.picture:
        _draw(options)


def _finite(rows: Sequence[Row]) -> list[Row]:
    """JSON has no infinity: what never happens is null."""
    return [{name: None if value == inf else value for name, value in row.items()} for row in rows]


def _draw(options: argparse.Namespace) -> None:
    from .plot import draw_fleets

    def run(fleet: Fleet, way: Way = BACKOFF) -> Outcome:
        return simulate(fleet, way, options.seed, options.progress)

    fast, slow = Fleet(10_000, 500, options.down), Fleet(10_000, 100, options.down)
    attempts = {
        "the client's delays": run(fast),
        "first limit of 4 s": run(fast, WAYS["first limit of 4 s"]),
        "REVERB_RECONNECT_DELAY_MIN=5": run(fast, partial(Backoff, 5.0, MOST)),
    }
    back = {
        "511 may wait": run(slow),
        "any number may wait": run(replace(slow, backlog=inf)),
        "… and REVERB_CONNECT_TIMEOUT=60": run(replace(slow, backlog=inf, timeout=60.0)),
    }
    options.progress("")
    draw_fleets(
        {name: outcome.attempts_by_second for name, outcome in attempts.items()},
        {name: outcome.back for name, outcome in back.items()},
        Path(__file__).parents[1] / PICTURE,
    )


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fleet", description="Simulate many clients that lose their server and reconnect."
    )
    parser.add_argument(
        "--only", action="append", choices=list(PARTS), help="simulate this part only; can be repeated"
    )
    parser.add_argument(
        "--clients", type=_positive, metavar="N", help="number of clients in a fleet; leaves out other sizes"
    )
    parser.add_argument(
        "--accepts",
        type=_positive,
        metavar="K",
        help="connections that the server accepts a second, for the part fleets",
    )
    parser.add_argument(
        "--down", type=float, default=5.0, metavar="S", help="seconds for which the server is down (default: 5)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the random numbers (default: 1)")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of tables")
    parser.add_argument("--picture", action="store_true", help=f"also draw {PICTURE}")
    return parser.parse_args(namespace=argparse.Namespace(progress=_progress))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    main()
