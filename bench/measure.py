"""Rounds in which every receiver takes the same load once, one after the other."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time

from .load import Load
from .receivers import Receiver, Tally
from .sender import Sender

_TIMEOUT = 60.0
"""Seconds after which a load that has not arrived is given up."""


class BenchmarkError(Exception):
    """A receiver did not do what it is measured for."""


@dataclass(frozen=True)
class Sample:
    """One load taken by one receiver.

    The clock runs from asking the sender to the handler's last event. That has one wake-up of the sender in it,
    but nothing is done off the clock: whoever queues events has read many of them when the first is handled.
    """

    messages: int
    seconds: float
    cpu_seconds: float
    """What of that this process spent on the CPU: the rest it waited, for the sender or for a busy machine."""

    @property
    def rate(self) -> float:
        return self.messages / self.seconds


@dataclass(frozen=True)
class Result:
    """The samples of one receiver, and those of the floor from the same rounds."""

    name: str
    samples: Sequence[Sample]
    floor: Sequence[Sample]

    @property
    def rates(self) -> list[float]:
        """Messages per second."""
        return [sample.rate for sample in self.samples]

    @property
    def microseconds(self) -> float:
        """Median cost of a message."""
        return 1e6 / median(self.rates)

    @property
    def ratio(self) -> float:
        """Median of the rates relative to the floor's in the same round."""
        return median(ours.rate / floor.rate for ours, floor in zip(self.samples, self.floor, strict=True))

    @property
    def cpu_microseconds(self) -> float:
        """Median time of a message on the CPU."""
        return 1e6 * median(sample.cpu_seconds / sample.messages for sample in self.samples)


def measure(receivers: Sequence[Receiver], floor: Receiver, load: Load, rounds: int) -> list[Result]:
    """Let all ``receivers``, the ``floor`` among them, take ``load`` ``rounds`` times, and once before that.

    Raises :class:`BenchmarkError` where one did not get every event in order.
    """
    samples: dict[str, list[Sample]] = {receiver.name: [] for receiver in receivers}
    with Sender() as sender:
        sender.prepare(load)
        for round_number in range(rounds + 1):
            for receiver in _rotated(receivers, round_number):
                sample = asyncio.run(_take(receiver, sender, load))
                if round_number > 0:
                    samples[receiver.name].append(sample)
    return [Result(name, taken, samples[floor.name]) for name, taken in samples.items()]


def _rotated(receivers: Sequence[Receiver], steps: int) -> Iterable[Receiver]:
    """Nobody always comes first, or always behind the same one."""
    start = steps % len(receivers)
    return (*receivers[start:], *receivers[:start])


async def _take(receiver: Receiver, sender: Sender, load: Load) -> Sample:
    tally = Tally(load.messages)
    async with receiver.receive(sender.port, tally):
        gc.collect()
        cpu_started, started = process_time(), perf_counter()
        sender.blast()
        try:
            ended, cpu_ended = await asyncio.wait_for(tally.finished, _TIMEOUT)
        except asyncio.TimeoutError:  # not the builtin one before 3.11
            raise BenchmarkError(
                f"{receiver.name}: {len(tally.ids)} of {load.messages} events after {_TIMEOUT:g} seconds"
            ) from None
    if tally.ids != list(receiver.expects(load.messages)):
        raise BenchmarkError(f"{receiver.name}: events were lost, repeated, or out of order")
    return Sample(load.messages, ended - started, cpu_ended - cpu_started)
