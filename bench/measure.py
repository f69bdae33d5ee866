"""Rounds in which every subject of a group is measured once, one after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from statistics import median
from time import perf_counter

from tests import node

from .load import EVENT, LAST_EVENT, Load
from .receivers import APP_KEY, Address
from .sender import HOST, Sender
from .worker import PYTHON, Worker, WorkerError

PUSHER_JS = "pusher-js"

Figures = Mapping[str, float]
"""What one round found, by name."""


@dataclass(frozen=True)
class Subject:
    """Something to measure; some find more than one figure at a time."""

    name: str
    measure: Callable[[Bench], Figures]
    is_peer: bool = False
    """Whether it is somebody else's, which may be missing."""


@dataclass(frozen=True)
class Target:
    """What is to be reached: by the median of ``figure`` over the rounds."""

    what: str
    figure: Callable[[Figures], float]
    bound: float
    of: str
    """What the figure is, for the reader."""
    at_least: bool = False

    def is_met_by(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True)
class Group:
    """Subjects that are measured in turns, so that what disturbs one disturbs the others as well."""

    key: str
    title: str
    unit: str
    subjects: Sequence[Subject]
    targets: Sequence[Target]
    max_rounds: int = 1000
    warm_up: bool = True


@dataclass(frozen=True)
class Outcome:
    target: Target
    values: Sequence[float]
    """One for each round; none where a subject failed."""

    @property
    def value(self) -> float | None:
        return median(self.values) if self.values else None

    @property
    def is_met(self) -> bool | None:
        return None if self.value is None else self.target.is_met_by(self.value)


@dataclass
class Result:
    """What the rounds of a group found."""

    group: Group
    rounds: list[Figures] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Why a subject was not measured, by its name."""

    def figures(self) -> dict[str, list[float]]:
        names = {name: None for figures in self.rounds for name in figures}
        return {name: [figures[name] for figures in self.rounds if name in figures] for name in names}

    def outcomes(self) -> list[Outcome]:
        return [Outcome(target, list(self._values(target))) for target in self.group.targets]

    def _values(self, target: Target) -> Iterator[float]:
        for figures in self.rounds:
            try:
                yield target.figure(figures)
            except KeyError:
                return


class Bench:
    """What subjects need: the sender, processes to work in, and how much is to be measured."""

    def __init__(self, sender: Sender, messages: int) -> None:
        self.sender = sender
        self.messages = messages
        """Events in the largest load."""
        self._workers: dict[str, Worker] = {}
        self._open = ExitStack()

    def address(self, tls: bool = False) -> Address:
        return Address(self.sender.tls_port, self.sender.ca_file) if tls else Address(self.sender.port)

    def worker(self, name: str) -> Worker:
        """Return the process of that name, which is there until its group is done."""
        if name not in self._workers:
            self._workers[name] = self._open.enter_context(Worker(_command(name)))
        return self._workers[name]

    @contextmanager
    def new_worker(self) -> Iterator[Worker]:
        with Worker() as worker:
            yield worker

    def end_workers(self) -> None:
        self._open.close()
        self._workers.clear()


def _command(name: str) -> Sequence[str]:
    if name != PUSHER_JS:
        return PYTHON
    try:
        node_command, package = node.installed_command("pusher_js")
    except OSError:
        raise WorkerError("not installed: `make bench` installs it") from None
    return (node_command, "bench/pusher/receive.mjs", package)


def receiving(
    receiver: str,
    *,
    name: str | None = None,
    share: float = 1.0,
    size: int = 160,
    channels: int = 1,
    connections: int = 1,
    encrypted: bool = False,
    escaped: bool = False,
    tls: bool = False,
    peer: bool = False,
) -> Subject:
    """The microseconds that a message takes ``receiver``, of so large a share of the messages.

    The clock runs from asking the sender to hearing that the last event was handled. That has two wake-ups in it,
    but nothing is done off the clock: whoever queues events has read many of them when the first is handled.
    """
    name = name or receiver

    def measure(bench: Bench) -> Figures:
        load = Load(
            max(2, channels, round(bench.messages * share / connections)),
            size,
            channels,
            connections,
            encrypted,
            escaped,
        )
        address = bench.address(tls)
        bench.sender.prepare(load)
        # Ours and the baseline share an interpreter; a peer has its own.
        worker = bench.worker(receiver if peer else "python")
        if receiver == PUSHER_JS:
            worker.ask(
                "receive",
                host=HOST,
                port=address.port,
                appKey=APP_KEY,
                channels=[load.channel(0)],
                events=[EVENT, LAST_EVENT],
                messages=load.messages,
            )
        else:
            worker.ask("receive", receiver=receiver, address=asdict(address), load=asdict(load))
        started = perf_counter()
        bench.sender.blast(load)
        worker.hear()
        seconds = perf_counter() - started
        if not worker.hear()["in_order"]:
            raise WorkerError("events were lost, repeated, or out of order")
        return {name: 1e6 * seconds / (load.messages * connections)}

    return Subject(name, measure, is_peer=peer)


def measure(bench: Bench, group: Group, rounds: int, progress: Callable[[str], None]) -> Result:
    """Measure ``group`` in so many rounds, after one that only warms up."""
    result = Result(group)
    rounds = min(rounds, group.max_rounds)
    try:
        for number in range(0 if group.warm_up else 1, rounds + 1):
            figures: dict[str, float] = {}
            for subject in _shuffled(group.subjects):
                if subject.name in result.failures:
                    continue
                progress(
                    f"{group.title}: {f'round {number} of {rounds}' if number else 'warm-up'}, {subject.name}"
                )
                try:
                    figures |= subject.measure(bench)
                except WorkerError as error:  # from here on the rounds are without it
                    result.failures[subject.name] = str(error)
                    bench.end_workers()
            if number:
                result.rounds.append({name: figures[name] for name in _ordered(figures, group)})
    finally:
        bench.end_workers()
        bench.sender.forget()
    return result


def _shuffled(subjects: Sequence[Subject]) -> Sequence[Subject]:
    """Nobody always comes first, or always behind the same one."""
    return random.sample(subjects, len(subjects))


def _ordered(figures: Figures, group: Group) -> list[str]:
    order = [subject.name for subject in group.subjects]
    return sorted(figures, key=lambda name: next(i for i, each in enumerate(order) if name.startswith(each)))
