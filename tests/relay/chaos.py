"""Three relays, a Reverb and an engine as processes, and what can happen to them; then a look at the log.

    python -m tests.relay.chaos --engine valkey --seconds 60 --seed 7
    python -m tests.relay.chaos --engine nats --seeds 20

Prints a line for each seed. Ends with status 1 when a promise is broken; then the log, what was published, and
what the relays said stay in the directory that is named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest

from reverb.exceptions import ReverbError
from reverb.http import BatchEvent, ReverbAPI
from reverb.relay._log import Entry
from tests.faults.proxy import FaultProxy, Link, Towards

from .judge import Sent, Verdict, gap_of, judge
from .processes import ENGINES, Engine, RelayProcess, ReverbProcess, read_log

_RECOVERY = 60.0
"""Seconds after which what is not well again counts as dead."""
_MOST_DOUBLE = 0.005
_BATCH = 10
"""Events in a request."""


class ViolationError(AssertionError):
    """A promise was broken."""


class Publisher:
    """Publishes numbered events, of which half are equal to the one before on their channel; keeps the truth."""

    def __init__(self, reverb: ReverbProcess, channels: Sequence[str], rate: float, rng: random.Random) -> None:
        self.sent: dict[str, list[Sent]] = {channel: [] for channel in channels}
        self.is_hurried = False
        """Whether it publishes as fast as it can."""
        self._reverb = reverb
        self._channels = list(channels)
        self._rate = rate
        self._random = rng
        self._numbers = dict.fromkeys(channels, 0)

    @property
    def accepted(self) -> int:
        return sum(event.is_certain for events in self.sent.values() for event in events)

    async def run(self) -> None:
        """Publish until cancelled."""
        async with ReverbAPI(**self._reverb.settings, request_timeout=30.0) as api:
            due = monotonic()
            while True:
                await self._publish(api, self._random.choices(self._channels, k=_BATCH))
                due = max(due + _BATCH / self._rate, monotonic() - 0.1)  # what could not be is not made up for
                if not self.is_hurried:
                    await asyncio.sleep(due - monotonic())

    async def end(self) -> dict[str, Sent]:
        """Publish a last event on each channel; return them."""
        async with ReverbAPI(**self._reverb.settings) as api:
            for first in range(0, len(self._channels), _BATCH):
                channels = self._channels[first : first + _BATCH]
                for channel in channels:
                    self._numbers[channel] += 1
                await self._publish(api, channels, may_repeat=False)
        return {channel: events[-1] for channel, events in self.sent.items()}

    async def _publish(self, api: ReverbAPI, channels: Sequence[str], *, may_repeat: bool = True) -> None:
        events = []
        for channel in channels:
            if not may_repeat or self._random.random() < 0.5:
                self._numbers[channel] += 1
            events.append((channel, msgspec.json.encode({"n": self._numbers[channel]})))
        since, is_certain = _now(), False
        try:
            with suppress(ReverbError):
                await api.trigger_batch(BatchEvent(channel, "counted", data.decode()) for channel, data in events)
                is_certain = True
        finally:
            until = _now()
            for channel, data in events:
                self.sent[channel].append(Sent(data, since, until, is_certain))


def _now() -> int:
    return time.time_ns() // 1_000_000


class Member:
    """A relay, and its ways to Reverb and to the engine."""

    def __init__(self, process: RelayProcess, to_reverb: FaultProxy, to_engine: FaultProxy) -> None:
        self.process = process
        self.to_reverb = to_reverb
        self.to_engine = to_engine


class Fleet:
    """All processes, and what is done to them."""

    def __init__(
        self,
        engine: Engine,
        reverb: ReverbProcess,
        members: list[Member],
        publisher: Publisher,
        *,
        lease: float,
        rng: random.Random,
    ) -> None:
        self.engine = engine
        self.reverb = reverb
        self.members = members
        self.publisher = publisher
        self.lease = lease
        self.random = rng
        self.history: list[str] = []
        self.away: list[tuple[int, int]] = []
        """When Reverb was not there."""
        self._started = monotonic()

    @property
    def leaders(self) -> list[Member]:
        return [member for member in self.members if member.process.status.get("role") == "leader"]

    @property
    def leader(self) -> Member:
        return max(self.leaders or self.members, key=lambda member: member.process.said_at)

    @property
    def follower(self) -> Member:
        leader = self.leader
        return self.random.choice([member for member in self.members if member is not leader])

    def tell(self, what: str) -> None:
        self.history.append(f"{monotonic() - self._started:7.2f} s: {what}")

    async def until_well(self) -> None:
        """Wait until one relay leads and the others are ready, by what they say from now on."""
        begin = monotonic()
        while not self._is_well(begin):
            for member in self.members:
                if not member.process.is_running:
                    raise ViolationError(f"a relay has ended by itself: {member.process.log.read_text()[-2000:]}")
            if monotonic() > begin + _RECOVERY:
                said = "\n".join(json.dumps(member.process.status) for member in self.members)
                raise ViolationError(f"did not recover; the relays say:\n{said}")
            await asyncio.sleep(0.05)

    def _is_well(self, since: float) -> bool:
        said = [member.process.status for member in self.members]
        return (
            all(said)
            and all(member.process.said_at > since for member in self.members)
            and all(each["is_connected"] and not each["missing"] and not each["problem"] for each in said)
            and [each["role"] for each in said].count("leader") == 1
            and all(each["is_ready"] or each["role"] == "leader" for each in said)
            and all(each["lag"] < 1 for each in said)
        )

    async def pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self.random.uniform(least, most))

    async def longer_than_a_lease(self) -> None:
        await self.pause(1.2 * self.lease, 2.5 * self.lease)

    async def kill(self, member: Member) -> None:
        """Kill a relay, and start it again after a moment."""
        await member.process.end(signal.SIGKILL)
        await self.pause(0, 2 * self.lease)
        await member.process.start()

    async def stop(self, member: Member) -> None:
        """Stop a relay for longer than a lease."""
        member.process.send_signal(signal.SIGSTOP)
        await self.longer_than_a_lease()
        member.process.send_signal(signal.SIGCONT)

    async def in_a_burst(self, fault: Callable[[Member], Coroutine[Any, Any, None]]) -> None:
        """Do something to the leader while it has much to write."""
        self.publisher.is_hurried = True
        await self.pause(0.05, 0.3)
        doing = asyncio.ensure_future(fault(self.leader))
        await self.pause(0, 0.1)
        self.publisher.is_hurried = False
        await doing


async def kill_leader(fleet: Fleet) -> None:
    await fleet.kill(fleet.leader)


async def kill_leader_in_a_burst(fleet: Fleet) -> None:
    await fleet.in_a_burst(fleet.kill)


async def stop_leader(fleet: Fleet) -> None:
    await fleet.stop(fleet.leader)


async def stop_follower(fleet: Fleet) -> None:
    await fleet.stop(fleet.follower)


async def stop_leader_in_a_burst(fleet: Fleet) -> None:
    await fleet.in_a_burst(fleet.stop)


async def terminate_leader(fleet: Fleet) -> None:
    process = fleet.leader.process
    code = await process.end(signal.SIGTERM)
    if code != 0:
        raise ViolationError(f"a relay ended with {code} after SIGTERM: {process.log.read_text()[-2000:]}")
    await fleet.pause(0, fleet.lease)
    await process.start()


async def cut_reverb(fleet: Fleet) -> None:
    """The leader's connection to Reverb breaks, once or for a while."""
    proxy = fleet.leader.to_reverb
    if fleet.random.random() < 0.5:
        proxy.hit(fleet.random.choice((Link.reset, Link.cut)))
        return
    proxy.refuse()
    proxy.hit(Link.reset)
    await fleet.pause(0.2, 1.5 * fleet.lease)
    await proxy.heal()


async def stall_reverb(fleet: Fleet) -> None:
    """What Reverb sends reaches the leader late."""
    proxy = fleet.leader.to_reverb
    proxy.hit(Link.stall)
    await fleet.pause(0.2, 1.5 * fleet.lease)
    await proxy.heal()


async def cut_engine(fleet: Fleet) -> None:
    """The engine can't be reached: by the leader or by all; with a refusal, or without an answer."""
    members = [fleet.leader] if fleet.random.random() < 0.5 else fleet.members
    way = fleet.random.choice((_refuse, _stall, _lose_answers))
    for member in members:
        way(member.to_engine)
    await fleet.pause(0.2, 2.5 * fleet.lease)
    for member in members:
        if way is _lose_answers:
            member.to_engine.hit(Link.reset)
        await member.to_engine.heal()


def _refuse(proxy: FaultProxy) -> None:
    proxy.refuse()
    proxy.hit(Link.reset)


def _stall(proxy: FaultProxy) -> None:
    proxy.hit(Link.stall)
    proxy.arm_all(Link.stall)


def _lose_answers(proxy: FaultProxy) -> None:
    proxy.hit(partial(Link.black_hole, towards=Towards.CLIENT))
    proxy.arm_all(partial(Link.black_hole, towards=Towards.CLIENT))


async def restart_engine(fleet: Fleet) -> None:
    fleet.engine.kill()
    await fleet.pause(0, fleet.lease)
    await asyncio.to_thread(fleet.engine.start)


async def restart_reverb(fleet: Fleet) -> None:
    begin = _now()
    await fleet.reverb.end(signal.SIGKILL)
    await fleet.pause(0, fleet.lease)
    await fleet.reverb.start()
    fleet.away.append((begin, _now()))


async def two_at_once(fleet: Fleet) -> None:
    """Something happens to the leader while something happens around it."""
    one = fleet.random.choice((kill_leader, stop_leader, terminate_leader))
    other = fleet.random.choice((cut_engine, restart_engine, restart_reverb, stop_follower))
    fleet.tell(f"  {one.__name__} and {other.__name__}")
    tasks = [asyncio.ensure_future(other(fleet)), asyncio.ensure_future(one(fleet))]
    await asyncio.wait(tasks)
    for task in tasks:
        task.result()


Fault = Callable[[Fleet], Awaitable[None]]

FAULTS: dict[Fault, int] = {
    kill_leader: 3,
    kill_leader_in_a_burst: 3,
    stop_leader: 2,
    stop_leader_in_a_burst: 1,
    stop_follower: 1,
    terminate_leader: 2,
    cut_reverb: 2,
    stall_reverb: 1,
    cut_engine: 3,
    restart_engine: 2,
    restart_reverb: 2,
    two_at_once: 3,
}
"""Every fault with its weight."""


@dataclass
class Outcome:
    """What came of a run."""

    seed: int
    engine: str
    seconds: float
    verdict: Verdict = field(default_factory=Verdict)
    faults: int = 0
    takeovers: int = 0
    down: float = 0.0
    """Seconds in which Reverb was not there."""
    needless: int = 0
    """Gap entries for times in which it was."""
    failure: str | None = None
    kept: Path | None = None
    """Where the log and the rest is."""

    @property
    def is_good(self) -> bool:
        return not (self.failure or self.verdict.violations or self.verdict.double_share >= _MOST_DOUBLE)

    def as_json(self) -> dict[str, Any]:
        found = asdict(self) | {"kept": None if self.kept is None else str(self.kept), "is_good": self.is_good}
        return found | {"verdict": found["verdict"] | {"double_share": self.verdict.double_share}}


async def run(
    engine: str,
    directory: Path,
    seed: int,
    *,
    seconds: float,
    lease: float = 2.0,
    channels: int = 10,
    rate: float = 500.0,
    relays: int = 3,
    faults: Sequence[Fault] | None = None,
) -> Outcome:
    """Run once, with random faults for some seconds, or with these ones."""
    rng = random.Random(seed)
    outcome = Outcome(seed, engine, seconds)
    left = None if faults is None else deque(faults)
    names = [f"orders.{number}" for number in range(channels)]
    async with _fleet(engine, directory, names, rate=rate, relays=relays, lease=lease, rng=rng) as fleet:
        publisher = fleet.publisher
        log: list[Entry] = []
        try:
            await fleet.until_well()
            publishing = asyncio.ensure_future(publisher.run())
            try:
                end = monotonic() + seconds
                while left if left is not None else monotonic() < end:
                    await fleet.pause(0.5, 1.5)
                    fault = left.popleft() if left else rng.choices(list(FAULTS), list(FAULTS.values()))[0]
                    fleet.tell(fault.__name__)
                    outcome.faults += 1
                    await fault(fleet)
                    await fleet.until_well()
                    fleet.tell("well")
                await fleet.pause(0.5, 1.5)
            finally:
                publishing.cancel()
                with suppress(asyncio.CancelledError):
                    await publishing
            await _until_written(fleet.engine, await publisher.end())
            codes = await asyncio.gather(*(each.process.end(signal.SIGTERM) for each in fleet.members))
            if any(codes):
                raise ViolationError(f"relays ended with {codes} after SIGTERM")
            for member in fleet.members:
                for traceback in _unexpected(member.process.log.read_text()):
                    raise ViolationError(f"an error that nobody expects: {traceback[:2000]}")
        except (ViolationError, asyncio.TimeoutError) as error:
            outcome.failure = str(error) or "a process did not end in time"
        log = await read_log(fleet.engine)
        outcome.verdict = judge(publisher.sent, log)
        outcome.takeovers = sum(member.process.takeovers for member in fleet.members)
        outcome.down = sum(until - since for since, until in fleet.away) / 1000
        outcome.needless = sum(
            not any(since <= gap.until and gap.since <= until for since, until in fleet.away)
            for gap in map(gap_of, filter(lambda entry: entry.is_gap, log))
        )
        _keep(directory, outcome, fleet, log)
    return outcome


@asynccontextmanager
async def _fleet(
    name: str,
    directory: Path,
    channels: list[str],
    *,
    rate: float,
    relays: int,
    lease: float,
    rng: random.Random,
) -> AsyncIterator[Fleet]:
    """Start everything, and end it."""
    async with AsyncExitStack() as stack:
        engine = ENGINES[name](directory)
        stack.callback(engine.kill)
        await asyncio.to_thread(engine.start)
        reverb = await stack.enter_async_context(ReverbProcess(directory / "server.log"))
        await reverb.start()
        members = []
        for number in range(1, relays + 1):
            to_reverb = await stack.enter_async_context(FaultProxy(reverb.host, reverb.port))
            to_engine = await stack.enter_async_context(FaultProxy("127.0.0.1", engine.port))
            relay = RelayProcess(
                directory / f"relay-{number}.log",
                channels,
                to=engine.url.replace(str(engine.port), str(to_engine.port)),
                port=to_reverb.port,
                lease=lease,
            )
            members.append(Member(await stack.enter_async_context(relay), to_reverb, to_engine))
            await relay.start()
        publisher = Publisher(reverb, channels, rate, random.Random(rng.random()))
        yield Fleet(engine, reverb, members, publisher, lease=lease, rng=rng)


def _unexpected(said: str) -> list[str]:
    """The tracebacks in what a relay said, but for those of nats-py's own task, which fails where a connection is
    reset while the library closes it."""
    found = said.split("Traceback (most recent call last):\n")[1:]
    return [
        each
        for each in found
        if not re.match(r'  File "[^"]*/nats/aio/client\.py", line \d+, in _read_loop', each)
    ]


async def _until_written(engine: Engine, last: dict[str, Sent]) -> None:
    """Wait until the last event of each channel is in the log."""
    end = monotonic() + _RECOVERY
    while True:
        there = {(entry.channel, entry.data) for entry in await read_log(engine)}
        missing = [channel for channel, event in last.items() if (channel, event.data) not in there]
        if not missing:
            return
        if monotonic() > end:
            raise ViolationError(f"the last event does not get into the log on {', '.join(missing)}")
        await asyncio.sleep(0.5)


def _keep(directory: Path, outcome: Outcome, fleet: Fleet, log: Sequence[Entry]) -> None:
    outcome.kept = directory
    (directory / "log.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, log)))
    (directory / "sent.json").write_text(
        json.dumps(
            {name: [[e.data.decode(), *e[1:]] for e in those] for name, those in fleet.publisher.sent.items()}
        )
    )
    (directory / "faults.txt").write_text("\n".join(fleet.history))
    problems = [outcome.failure] if outcome.failure else []
    (directory / "violations.txt").write_text("\n".join([*problems, *outcome.verdict.violations]))


_HEAD = (
    "  seed    sent  in log  lost  disorder  extra  out of turn   again  double        "
    "told  gaps  needless  gap s  down s  faults  takeovers"
)


def _line(outcome: Outcome) -> str:
    it = outcome.verdict
    return (
        f"{outcome.seed:6d} {it.sent:7d} {it.entries:7d} {len(it.lost):5d} {len(it.disordered):9d} "
        f"{len(it.extra):6d} {len(it.out_of_turn):12d} {it.again:7d} {it.doubles:7d} {it.double_share:6.2%} "
        f"{it.told:8d} {it.gaps:5d} {outcome.needless:9d} {it.gap_seconds:6.1f} {outcome.down:7.1f} "
        f"{outcome.faults:7d} "
        f"{outcome.takeovers:10d}" + ("" if outcome.is_good else "  FAILED")
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.relay.chaos", description=__doc__)
    parser.add_argument("--engine", choices=list(ENGINES), default="valkey")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, help="the first, or only, seed (default: a random one, or 1)")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--lease", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    parser.add_argument("--keep", action="store_true", help="keep the files of runs without a violation, too")
    parser.add_argument("--json", action="store_true", help="print an object instead of a table")
    options = parser.parse_args()
    first = options.seed
    if first is None:
        first = 1 if options.seeds > 1 else random.randrange(100_000)
    outcomes = []
    progress = sys.stderr if options.json else sys.stdout
    print(_HEAD, file=progress, flush=True)
    for seed in range(first, first + options.seeds):
        directory = Path(tempfile.mkdtemp(prefix="reverb-chaos-"))
        try:
            outcome = asyncio.run(
                run(
                    options.engine,
                    directory,
                    seed,
                    seconds=options.seconds,
                    lease=options.lease,
                    rate=options.rate,
                )
            )
        except pytest.skip.Exception as missing:
            print(missing, file=sys.stderr)
            return 2
        outcomes.append(outcome)
        print(_line(outcome), file=progress, flush=True)
        if outcome.is_good:
            if not options.keep:
                shutil.rmtree(directory)
                outcome.kept = None
            continue
        print(f"FAILED, with --seed {seed}; see {outcome.kept}", file=sys.stderr)
        for problem in [*([outcome.failure] if outcome.failure else []), *outcome.verdict.violations][:10]:
            print(f"  {problem}", file=sys.stderr)
    if options.json:
        print(json.dumps([outcome.as_json() for outcome in outcomes], indent=2))
    else:
        print(_summary(outcomes))
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def _summary(outcomes: Sequence[Outcome]) -> str:
    verdicts = [outcome.verdict for outcome in outcomes]
    sent = sum(it.sent for it in verdicts)
    doubles = sum(it.doubles for it in verdicts)
    return (
        f"{len(outcomes)} runs, {sum(not outcome.is_good for outcome in outcomes)} failed: {sent} events, "
        f"{sum(len(it.lost) for it in verdicts)} lost silently, "
        f"{sum(len(it.disordered) for it in verdicts)} out of order, "
        f"{doubles} double ({doubles / sent if sent else 0:.3%}), "
        f"{sum(it.told for it in verdicts)} missing under {sum(it.gaps for it in verdicts)} gap entries"
    )


if __name__ == "__main__":
    sys.exit(main())
