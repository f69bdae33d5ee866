"""Whatever happens to relays, the server and the engine, in any order: nothing is missing in the log unsaid.

Hypothesis makes up what happens, to relays that are driven as the running ones are. Time is the model's own, in
milliseconds by the engine's clock. ``REVERB_EXAMPLES=10000`` runs that many examples of each kind of world.
"""

from __future__ import annotations

import copy
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from reverb.relay._alignment import SLACK
from reverb.relay._log import EngineError, Entry, Grant, LeaseLostError, LeaseStatus
from reverb.relay._replica import Replica, State

EXAMPLES = int(os.environ.get("REVERB_EXAMPLES", "120"))

SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    report_multiple_bugs=False,
    derandomize="REVERB_EXAMPLES" not in os.environ,  # what fails in the suite fails each time
    database=None,
    deadline=None,
)

LEASE = 2000
NAMED = ("a", "b")
FOUND = "c"
CHANNELS = (*NAMED, FOUND)
LATENCIES = (0, 300)
"""How long an event takes to each node of the server."""
ERRORS = (-90, 0, 90)
"""How far a relay's clock may be off. With the latency, and twice, it is less than SLACK."""


class Payload(bytes):
    """What an event carries, which may be the same as another one's. The model knows which one it is."""

    channel: str
    number: int
    at: int


class Connection:
    def __init__(self, node: int, wire: int) -> None:
        self.node = node
        self.wire = wire
        self.subscribed: set[str] = set()
        self.inbox: deque[Callable[[Relay], None]] = deque()


class Engine:
    """The log, the lease, and the fence."""

    def __init__(self) -> None:
        self.log: list[tuple[int, Entry]] = []
        self.epoch = 0
        self.writer = ""
        self.number = 0
        self.holder: str | None = None
        self.expires = 0
        self.watermark: int | None = None
        self.state = b""
        self.ready: dict[str, int] = {}
        self.begun: dict[str, int] = {}
        """From when on the log is to have everything of a channel. For the judge only."""

    def lease_status(self, now: int, relay: str) -> LeaseStatus:
        holder = self.holder if now < self.expires else None
        others = sum(until > now for name, until in self.ready.items() if name != relay)
        return LeaseStatus(now, holder, self.watermark, self.state, others)

    def check_lease(self, now: int, relay: str, is_ready: bool) -> LeaseStatus:
        self.ready[relay] = now + LEASE if is_ready else 0
        return self.lease_status(now, relay)

    def acquire(self, now: int, relay: str) -> Grant | None:
        if self.lease_status(now, relay).holder not in (None, relay):
            return None
        self.epoch += 1
        self.holder, self.writer, self.number, self.expires = relay, relay, 0, now + LEASE
        return Grant(self.epoch, self.lease_status(now, relay))

    def check(self, relay: str, epoch: int, number: int) -> None:
        if (self.writer, self.epoch) != (relay, epoch):
            raise LeaseLostError("deposed")
        if number > self.number:
            raise LeaseLostError("the engine has lost entries")

    def renew(
        self, now: int, relay: str, epoch: int, number: int, watermark: int | None, state: bytes
    ) -> LeaseStatus:
        self.check(relay, epoch, number)
        self.holder, self.expires = relay, now + LEASE
        self.watermark, self.state = watermark, state
        return self.lease_status(now, relay)

    def release(self, relay: str, epoch: int, number: int, watermark: int | None, state: bytes) -> None:
        self.check(relay, epoch, number)
        self.watermark, self.state, self.holder = watermark, state, None

    def tail(self, since: int) -> list[Entry]:
        return [entry for written, entry in self.log if written >= since]

    def append(self, now: int, relay: str, epoch: int, entries: Sequence[Entry]) -> None:
        self.check(relay, epoch, entries[0].number - 1)
        for entry in entries:
            if entry.number > self.number:
                assert entry.number == self.number + 1
                assert entry.epoch == epoch
                self.number = entry.number
                self.log.append((now, entry))
                self.begun.setdefault(entry.channel, begin_of(entry))


def begin_of(entry: Entry) -> int:
    if entry.is_gap:
        return int(msgspec.json.decode(entry.data)["from"] or 0)
    assert isinstance(entry.data, Payload)
    return entry.data.at


class Relay:
    """Drives the rules as the running relay does."""

    def __init__(self, world: World, name: str, error: int, wire: int, most_bytes: int) -> None:
        self.world = world
        self.name = name
        self.error = error
        self.wire = wire
        self.replica = Replica(lease=LEASE, most_bytes=most_bytes)
        self.connection: Connection | None = None
        self.node = 0
        self.is_paused = False
        self.is_cut_off = False
        """From the server."""
        self.is_engine_away = False
        self.refused: set[str] = set()
        self.asked: set[str] = set()
        self.is_asking = False
        self.wanted: list[str] = [*NAMED]
        self.empty_at: int | None = None
        """Since when it knows that nobody is on the channel that it found."""
        self.acknowledged = 0
        """The last number of this epoch that the engine said to be in the log."""
        self.got: set[tuple[str, int]] = set()
        for channel in NAMED:
            self.replica.follow(channel, self.now)

    def __repr__(self) -> str:
        return self.name

    @property
    def now(self) -> int:
        return self.world.time + self.error

    # The server.

    def connect(self) -> None:
        if self.connection is None and not self.is_cut_off:
            self.replica.connecting(self.now)
            self.connection = Connection(self.node, self.wire)
            self.world.connections[self] = self.connection
            self.asked.clear()
            self.is_asking = False
        self.subscribe()

    def subscribe(self) -> None:
        connection = self.connection
        if connection is None:
            return
        for channel in self.wanted:
            if channel not in self.asked:
                self.asked.add(channel)
                self.world.request(connection, partial(self.handle_subscribe, connection, channel))
        for channel in [*self.asked]:
            if channel not in self.wanted:
                self.asked.discard(channel)
                self.world.request(connection, partial(connection.subscribed.discard, channel))

    def handle_subscribe(self, connection: Connection, channel: str) -> None:
        if channel in self.refused:
            self.world.deliver(self, connection, lambda relay: relay.was_refused(channel))
        else:
            connection.subscribed.add(channel)
            self.world.deliver(self, connection, lambda relay: relay.was_subscribed(channel))

    def was_refused(self, channel: str) -> None:
        self.asked.discard(channel)
        self.replica.refused(channel)

    def was_subscribed(self, channel: str) -> None:
        if channel in self.asked:
            self.replica.subscribed(channel, self.now)

    def ask(self) -> None:
        connection = self.connection
        if connection is not None and not self.is_asking:
            self.is_asking = True
            asked_at = self.now
            self.world.request(
                connection,
                lambda: self.world.deliver(self, connection, lambda relay: relay.was_answered(asked_at)),
            )

    def was_answered(self, asked_at: int) -> None:
        self.is_asking = False
        self.replica.ping_answered(asked_at)

    def read(self) -> None:
        if self.connection is not None and not self.is_paused:
            while self.connection.inbox:
                self.connection.inbox.popleft()(self)

    def was_sent(self, payload: Payload) -> None:
        if payload.channel in self.asked:
            self.got.add((payload.channel, payload.number))
            self.replica.received(payload.channel, "event", payload, None, self.now)

    def lose(self) -> None:
        if self.connection is not None:
            self.connection = None
            del self.world.connections[self]
            self.asked.clear()
            self.replica.lost()

    # The engine.

    def call(self, what: Callable[[], object], fate: str) -> None:
        """Raises EngineError, before or after it is done, or long before it is done."""
        if self.is_engine_away or self.world.is_engine_away or fate == "unreached":
            raise EngineError("unreached")
        if fate == "late":
            self.world.at(self.world.time + LEASE, lambda: self.late(what))
            raise EngineError("no answer")
        what()
        if fate == "unanswered":
            raise EngineError("no answer")

    def late(self, what: Callable[[], object]) -> None:
        with suppress(LeaseLostError):
            what()

    def step(self, fates: Iterator[str]) -> None:
        """One round of the loop that keeps the lease."""
        try:
            if self.replica.epoch is None:
                self.try_to_lead(fates)
            elif self.replica.should_hand_over:
                self.hand_over()
            else:
                self.poll()
                self.renew(next(fates, "ok"))
        except EngineError:
            pass
        except LeaseLostError:
            self.replica.lease_lost()

    def try_to_lead(self, fates: Iterator[str]) -> None:
        engine, replica = self.world.engine, self.replica
        sights: list[LeaseStatus] = []
        is_ready = replica.is_ready
        self.call(
            lambda: sights.append(engine().check_lease(self.world.time, self.name, is_ready)), next(fates, "ok")
        )
        replica.observed(sights[0])
        self.follow_what_is_found()
        if not replica.may_take_over(self.now):
            return
        grants: list[Grant | None] = []
        self.call(lambda: grants.append(engine().acquire(self.world.time, self.name)), next(fates, "ok"))
        grant = grants[0]
        if grant is None:
            return
        self.world.pass_time(30)
        tails: list[list[Entry]] = []
        since = replica.tail_since(grant)
        self.call(lambda: tails.append(engine().tail(since)), "ok")
        self.acknowledged, self.empty_at = 0, None
        replica.take_over(grant, tails[0])
        self.follow_what_is_found()

    def follow_what_is_found(self) -> None:
        found = self.replica.found
        if found is None:  # nobody has looked, or the engine has forgotten
            return
        for channel in found:
            self.follow(channel, None, is_found_by_leader=True)
        for channel in [*self.wanted]:
            if channel not in NAMED and channel not in found:
                self.leave(channel, None)

    def follow(self, channel: str, found_after: int | None, *, is_found_by_leader: bool = False) -> None:
        if channel not in self.wanted:
            self.wanted.append(channel)
            self.replica.follow(channel, self.now, found_after=found_after, is_found_by_leader=is_found_by_leader)
            self.subscribe()

    def leave(self, channel: str, empty_at: int | None) -> None:
        if channel in self.wanted:
            self.wanted.remove(channel)
            self.replica.leave(channel, self.now, empty_at=empty_at)
            self.subscribe()

    def poll(self) -> None:
        """Look which channels there are, as a leader."""
        found_after, self.replica.found_at = self.replica.found_at, self.now
        if self.world.is_occupied:
            self.follow(FOUND, found_after)
            self.empty_at = None
        elif self.empty_at is None:
            self.empty_at = self.now
        elif self.replica.has_all_until(self.empty_at):
            self.leave(FOUND, self.empty_at)
        self.replica.found = [channel for channel in self.wanted if channel not in NAMED]

    def renew(self, fate: str) -> None:
        replica, engine, epoch = self.replica, self.world.engine, self.replica.epoch
        assert epoch is not None
        watermark, state = replica.progress()
        number = self.acknowledged
        sights: list[LeaseStatus] = []
        covered = self.covered(watermark, state)

        def renew() -> None:
            sights.append(engine().renew(self.world.time, self.name, epoch, number, watermark, state))
            self.world.says(covered)

        self.call(renew, fate)
        replica.renewed(sights[0])

    def covered(self, watermark: int | None, state: bytes) -> dict[str, int]:
        if watermark is None:
            return {}
        uncovered = msgspec.json.decode(state, type=State).uncovered
        return {channel: watermark for channel in self.wanted if channel not in uncovered}

    def hand_over(self) -> None:
        replica, engine, epoch = self.replica, self.world.engine, self.replica.epoch
        assert epoch is not None
        while replica.has_pending:
            self.append(100, "ok")
        watermark, state = replica.progress()
        number = self.acknowledged
        covered = self.covered(watermark, state)

        def release() -> None:
            try:
                engine().release(self.name, epoch, number, watermark, state)
                self.world.says(covered)
            except LeaseLostError:  # and nothing is done
                pass

        try:
            self.call(release, "ok")
        finally:
            replica.lease_lost()

    def write(self, most: int, fates: Iterator[str]) -> None:
        try:
            while self.replica.has_pending:
                self.append(most, next(fates, "ok"))
        except EngineError:
            pass
        except LeaseLostError:
            self.replica.lease_lost()

    def append(self, most: int, fate: str) -> None:
        engine, epoch = self.world.engine, self.replica.epoch
        assert epoch is not None
        entries = [*self.replica.next_batch(most)]
        assert entries
        self.call(lambda: engine().append(self.world.time, self.name, epoch, entries), fate)
        self.acknowledged = entries[-1].number
        self.replica.stored()


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.time = 1_000_000
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._timer = 0
        self.truth: dict[str, list[Payload]] = {channel: [] for channel in CHANNELS}
        self.connections: dict[Relay, Connection] = {}
        self.relays: list[Relay] = []
        self.started = 0
        self._engine = Engine()
        self._moments: list[Engine] = []
        self.is_engine_away = False
        self.occupied_at = 0
        self.is_occupied = False
        """Whether anybody is on the channel that is found, so that it is there, and events on it."""

    def engine(self) -> Engine:
        return self._engine

    # --- time --------------------------------------------------------------------------------------------------

    def at(self, time: int, what: Callable[[], None]) -> None:
        self._timer += 1
        heappush(self._timers, (time, self._timer, what))

    def pass_time(self, milliseconds: int) -> None:
        end = self.time + milliseconds
        while self._timers and self._timers[0][0] <= end:
            time, _, what = heappop(self._timers)
            self.time = max(time, self.time)
            what()
        self.time = end

    # --- the server --------------------------------------------------------------------------------------------

    def send(self, channel: str, kind: int) -> None:
        self.pass_time(1)
        if channel == FOUND and not self.is_occupied:
            return
        sent = self.truth[channel]
        payload = Payload(b"%d" % (kind if kind < 2 else 1000 + len(sent)))
        payload.channel, payload.number, payload.at = channel, len(sent), self.time
        sent.append(payload)
        for node, latency in enumerate(LATENCIES):
            self.at(self.time + latency, partial(self.spread, node, payload))

    def spread(self, node: int, payload: Payload) -> None:
        for relay, connection in self.connections.items():
            if connection.node == node and payload.channel in connection.subscribed:
                self.deliver(relay, connection, lambda relay: relay.was_sent(payload))

    def deliver(self, relay: Relay, connection: Connection, what: Callable[[Relay], None]) -> None:
        connection.inbox.append(what)
        self.at(self.time + connection.wire, relay.read)

    def request(self, connection: Connection, what: Callable[[], None]) -> None:
        self.at(self.time + 10, what)

    # --- what happens ------------------------------------------------------------------------------------------

    @rule(channel=st.sampled_from(CHANNELS), kind=st.integers(0, 2), count=st.integers(1, 5))
    def publish(self, channel: str, kind: int, count: int) -> None:
        for _ in range(count):
            self.send(channel, kind)

    KINDS = st.lists(st.sampled_from([0, 0, 1, 2, 3, 4]), max_size=4)

    @rule(rounds=st.integers(1, 4), pause=st.sampled_from([20, 100, 300]), kinds=KINDS)
    def live_a_little(self, rounds: int, pause: int, kinds: list[int]) -> None:
        self._live(rounds, pause, kinds)

    @rule(rounds=st.integers(5, 15), pause=st.sampled_from([100, 300, 600]), kinds=KINDS)
    def live(self, rounds: int, pause: int, kinds: list[int]) -> None:
        self._live(rounds, pause, kinds)

    @rule(seconds=st.integers(3, 8), kinds=KINDS)
    def live_long(self, seconds: int, kinds: list[int]) -> None:
        self._live(2 * seconds, 500, kinds)

    def _live(self, rounds: int, pause: int, kinds: list[int]) -> None:
        self.keep_moment()
        for _ in range(rounds):
            for kind in kinds:
                if kind < 4:
                    self.send(CHANNELS[kind % 3], kind % 3)
                else:
                    self.pass_time(pause // 4)
            for relay in [*self.relays]:
                if not relay.is_paused:
                    self.work(relay)
            self.pass_time(pause)

    def work(self, relay: Relay) -> None:
        relay.connect()
        relay.ask()
        relay.write(100, iter(()))
        relay.step(iter(()))

    @initialize(nodes=st.lists(st.integers(0, 1), max_size=3), rounds=st.integers(0, 20), kinds=KINDS)
    def begin_well(self, nodes: list[int], rounds: int, kinds: list[int]) -> None:
        for node in nodes:
            self.start(node, ERRORS[node], 30, 10**6)
        self._live(rounds, 100, kinds)

    def start(self, node: int, error: int, wire: int, most_bytes: int) -> None:
        self.started += 1
        relay = Relay(self, f"relay-{self.started}", error, wire, most_bytes)
        relay.node = node
        self.relays.append(relay)
        relay.connect()

    def some(self, index: int) -> Relay:
        return self.relays[index % len(self.relays)]

    def leader(self, index: int) -> Relay:
        leaders = [relay for relay in self.relays if relay.replica.epoch is not None]
        return leaders[index % len(leaders)] if leaders else self.some(index)

    def end(self, relay: Relay) -> None:
        self.relays.remove(relay)
        self.connections.pop(relay, None)

    def hand_over(self, relay: Relay) -> None:
        if relay.replica.epoch is not None:
            try:
                relay.hand_over()
            except EngineError:
                pass
            except LeaseLostError:
                relay.replica.lease_lost()

    def keep_moment(self) -> None:
        moment = copy.copy(self._engine)
        moment.log, moment.ready, moment.begun = [*moment.log], {}, {**moment.begun}
        self._moments.append(moment)

    def heal(self, what: str) -> None:
        self.is_engine_away = self.is_engine_away and what not in ("engine", "all")
        for relay in self.relays:
            relay.is_engine_away = relay.is_engine_away and what not in ("engine", "all")
            relay.is_cut_off = relay.is_cut_off and what not in ("server", "all")
            relay.is_paused = relay.is_paused and what not in ("paused", "all")
            if what in ("refused", "all"):
                relay.refused.clear()
            relay.read()

    # --- the judge ---------------------------------------------------------------------------------------------

    def says(self, covered: dict[str, int]) -> None:
        """The log says that it has everything until these times."""
        for channel, until in covered.items():
            begun = self._engine.begun.setdefault(channel, until + SLACK)
            missing = [each for each in self.missing(channel) if begun <= each.at < until - SLACK]
            assert not missing, f"the watermark {until} says that {where(missing)} is in the log"

    def missing(self, channel: str) -> list[Payload]:
        """What is neither in the log nor under a gap entry."""
        there = {entry.data.number for entry in self.entries(channel) if isinstance(entry.data, Payload)}
        return [each for each in self.due(channel) if each.number not in there]

    def entries(self, channel: str) -> list[Entry]:
        return [entry for _, entry in self._engine.log if entry.channel == channel]

    def due(self, channel: str) -> list[Payload]:
        """What is not under a gap entry, from the log's beginning on."""
        gaps = [msgspec.json.decode(entry.data) for entry in self.entries(channel) if entry.is_gap]
        begun = self._engine.begun.get(channel)
        return [
            each
            for each in self.truth[channel]
            if begun is not None
            and each.at >= begun
            and not any(gap["from"] - SLACK <= each.at <= gap["to"] + SLACK for gap in gaps)
        ]

    def teardown(self) -> None:
        self.heal("all")
        if not self.relays:
            self.start(0, 0, 0, 10**6)
        for _ in range(40):
            for relay in self.relays:
                self.work(relay)
            self.pass_time(LEASE // 6)
        assert any(relay.replica.epoch is not None for relay in self.relays), "nobody leads"
        for channel in CHANNELS:
            missing = self.missing(channel)
            assert not missing, f"lost unsaid: {where(missing)} of {channel}"
            due = {each.number for each in self.due(channel)}
            seen: set[int] = set()
            for entry in self.entries(channel):
                if isinstance(entry.data, Payload):
                    number = entry.data.number
                    if number in seen:
                        assert entry.again, f"{number} of {channel} is there twice, without again"
                    elif number in due:
                        assert number > max(seen, default=-1), f"{number} of {channel} is out of order"
                    seen.add(number)


class Trouble(World):
    """Everything happens."""

    @precondition(lambda self: not self.is_occupied)
    @rule()
    def occupy(self) -> None:
        self.is_occupied, self.occupied_at = True, self.time

    @precondition(lambda self: self.is_occupied and self.is_found())
    @rule()
    def vacate(self) -> None:
        self.is_occupied = False

    def is_found(self) -> bool:
        """Whether a leader has found the channel, and said so. What is there for less time is not relayed."""
        state = msgspec.json.decode(self._engine.state or b"{}", type=State)
        return FOUND in (state.channels or ()) and (state.found_at or 0) > self.occupied_at + SLACK

    @rule(milliseconds=st.sampled_from([1, 10, 50, 300, 1000, 3000]))
    def wait(self, milliseconds: int) -> None:
        self.pass_time(milliseconds)

    @precondition(lambda self: len(self.relays) < 3)
    @rule(
        node=st.integers(0, 1),
        error=st.sampled_from(ERRORS),
        wire=st.sampled_from([0, 30, 400]),
        most_bytes=st.sampled_from([10**6, 10**6, 3000]),
    )
    def another(self, node: int, error: int, wire: int, most_bytes: int) -> None:
        self.start(node, error, wire, most_bytes)

    @precondition(lambda self: self.relays)
    @rule(index=st.integers(0, 2), is_any=st.booleans())
    def crash(self, index: int, is_any: bool) -> None:
        relay = self.some(index) if is_any else self.leader(index)
        self.end(relay)

    @precondition(lambda self: any(relay.replica.has_pending for relay in self.relays))
    @rule(count=st.integers(0, 4))
    def crash_in_append(self, count: int) -> None:
        self.keep_moment()
        relay = next(relay for relay in self.relays if relay.replica.has_pending)
        epoch = relay.replica.epoch
        assert epoch is not None
        entries = relay.replica.next_batch(100)[:count]
        try:
            if entries:
                relay.call(lambda: self._engine.append(self.time, relay.name, epoch, entries), "ok")
        except (EngineError, LeaseLostError):
            pass
        self.end(relay)

    @precondition(lambda self: self.relays)
    @rule(index=st.integers(0, 2))
    def pause(self, index: int) -> None:
        self.leader(index).is_paused = True

    @precondition(lambda self: self.relays)
    @rule(index=st.integers(0, 2), is_any=st.booleans(), is_long=st.booleans())
    def lose_server(self, index: int, is_any: bool, is_long: bool) -> None:
        relay = self.some(index) if is_any else self.leader(index)
        relay.is_cut_off = is_long
        relay.lose()

    @precondition(lambda self: self.relays)
    @rule(index=st.integers(0, 2), channel=st.sampled_from(CHANNELS))
    def refuse(self, index: int, channel: str) -> None:
        self.some(index).refused.add(channel)

    @precondition(lambda self: self.relays)
    @rule(index=st.integers(0, 3))
    def engine_goes_away(self, index: int) -> None:
        if index == 3:
            self.is_engine_away = True
        else:
            self.leader(index).is_engine_away = True

    @rule(what=st.sampled_from(["paused", "paused", "server", "refused", "engine", "all"]))
    def some_of_it_is_over(self, what: str) -> None:
        self.heal(what)

    @precondition(lambda self: self._moments)
    @rule(back=st.integers(1, 3))
    def engine_loses(self, back: int) -> None:
        """The engine is started again, as it was some time ago."""
        del self._moments[max(1, len(self._moments) - back + 1) :]
        self._engine = self._moments.pop()

    FATES = st.lists(st.sampled_from(["ok", "ok", "unreached", "unanswered", "late"]), max_size=3)

    @precondition(lambda self: self.relays)
    @rule(index=st.integers(0, 2), fates=FATES, most=st.sampled_from([1, 2, 5, 100]))
    def write(self, index: int, fates: list[str], most: int) -> None:
        relay = self.leader(index)
        if not relay.is_paused:
            relay.write(most, iter(fates))

    @precondition(lambda self: self.relays)
    @rule(index=st.integers(0, 2), fates=FATES)
    def step(self, index: int, fates: list[str]) -> None:
        relay = self.some(index)
        if not relay.is_paused:
            relay.step(iter(fates))

    @precondition(lambda self: self.relays)
    @rule(index=st.integers(0, 2))
    def ask(self, index: int) -> None:
        relay = self.some(index)
        if not relay.is_paused:
            relay.ask()

    @precondition(lambda self: self.relays)
    @rule(index=st.integers(0, 2), is_end=st.booleans())
    def stop(self, index: int, is_end: bool) -> None:
        """A graceful end, or giving the lease away."""
        relay = self.leader(index)
        if not relay.is_paused:
            self.hand_over(relay)
        if is_end:
            self.end(relay)


class Calm(World):
    """Relays come, end, and crash, while another one is ready: that is no reason for a gap."""

    @rule(milliseconds=st.sampled_from([10, 50, 300]))
    def wait(self, milliseconds: int) -> None:
        self.pass_time(milliseconds)

    @precondition(lambda self: len(self.relays) < 3)
    @rule(node=st.integers(0, 1), error=st.sampled_from(ERRORS), wire=st.sampled_from([0, 30, 400]))
    def another(self, node: int, error: int, wire: int) -> None:
        self.start(node, error, wire, 10**6)

    def is_spare(self, relay: Relay) -> bool:
        return any(each is not relay and each.replica.is_ready for each in self.relays)

    @precondition(lambda self: self.relays)
    @rule(index=st.integers(0, 2), count=st.integers(0, 4))
    def crash(self, index: int, count: int) -> None:
        relay = self.leader(index)
        if self.is_spare(relay):
            if count and relay.replica.has_pending:
                epoch = relay.replica.epoch
                assert epoch is not None
                with suppress(LeaseLostError):
                    entries = relay.replica.next_batch(100)[:count]
                    self._engine.append(self.time, relay.name, epoch, entries)
            self.end(relay)

    @precondition(lambda self: self.relays)
    @rule(index=st.integers(0, 2))
    def stop(self, index: int) -> None:
        relay = self.leader(index)
        if self.is_spare(relay):
            self.hand_over(relay)
            self.end(relay)

    def teardown(self) -> None:
        super().teardown()
        gaps = [entry for _, entry in self._engine.log if entry.is_gap]
        assert not gaps, f"nothing can be missing there: {gaps}"


def where(events: list[Payload]) -> str:
    return ", ".join(f"{each.number} (at {each.at})" for each in events)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("world", [Trouble, Calm])
def test_nothing_is_lost_unsaid(world: type[World]) -> None:
    run_state_machine_as_test(world, settings=SETTINGS)
