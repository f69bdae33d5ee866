"""Random faults over a stream of numbered events, and a bookkeeper who knows which of them had to arrive.

The events of a channel between two confirmations of its subscription came over one connection, so they must be
numbered without a gap, and the first of them must not lie behind what was published when the confirmation was
there. Between such runs some may be missing, but none may come again. After each fault, with the network well,
everything that is published has to arrive.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any

from reverb import ConnectionError, Events, ReverbClient, SubscriptionError
from tests.integration.servers import Target
from tests.watching import until

from .proxy import FaultProxy, Link, Towards
from .scene import NUMBERED, Scene, scene, unique

_SETTINGS = {"pong_timeout": 0.3, "max_pending_bytes": 20_000}
_RECOVERY = 15.0
"""Seconds after which a client that is not back counts as dead."""
_CODES = (1000, 1001, 1009, 1011, 1012, 4100, 4200, 4201, 4300)


class ViolationError(AssertionError):
    """A promise was broken."""


class Book:
    """Checks the numbers of one channel as they come."""

    def __init__(self, storm: Storm, channel: str) -> None:
        self.last = 0
        self.received = 0
        self._storm = storm
        self._channel = channel
        self._newest_at_start: int | None = 0
        """While nothing has come since the confirmation: what was published by then."""

    def on_confirmed(self, event: str, data: Any, channel: str | None) -> None:
        self._newest_at_start = self._storm.published(self._channel)

    def on_event(self, event: str, data: Any, channel: str | None) -> None:
        number = data["n"]
        if number <= self.last:
            self._storm.violate(f"{number} came after {self.last} on {channel}")
        if self._newest_at_start is None:
            if number > self.last + 1:
                self._storm.violate(f"between {self.last} and {number} something is missing on {channel}")
        elif number > max(self._newest_at_start, self.last) + 1:
            self._storm.violate(
                f"{number} is the first after a confirmation on {channel}, but {self._newest_at_start + 1} "
                "was published behind that"
            )
        self._newest_at_start = None
        self.last = number
        self.received += 1


class Storm:
    """A client behind a proxy, numbered events in both directions, and one random fault after another."""

    def __init__(self, it: Scene, observer: ReverbClient, seed: int) -> None:
        self.faults = 0
        self.history: list[str] = []
        """The latest faults."""
        self.sent_by_client = 0
        self.seen_by_observer = 0
        self._it = it
        self._observer = observer
        self._observed: dict[str, int] = {}
        """The last number that the observer saw, by connection that it was sent over."""
        self._random = random.Random(seed)
        self._books = {name: Book(self, name) for name in it.names}
        self._calm = asyncio.Lock()
        """Held, it keeps anything from being published."""
        self._violation: ViolationError | None = None
        self._started = monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._blocked: asyncio.Event = asyncio.Event()
        self._blocked.set()
        self._reconnects = 0

    @property
    def events_sent(self) -> int:
        return sum(self._it.publisher.sent.values())

    @property
    def events_received(self) -> int:
        return sum(book.received for book in self._books.values())

    @property
    def reconnects(self) -> int:
        return self._reconnects

    def published(self, channel: str) -> int:
        """The last number for ``channel`` that was, or is being, published."""
        return self._it.publisher.sent[channel]

    def violate(self, what: str) -> None:
        if self._violation is None:
            recent = "\n  ".join(self.history)
            self._violation = ViolationError(f"{what}\nthe latest faults:\n  {recent}")

    def check(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()
        if self._violation is not None:
            raise self._violation

    async def start(self) -> None:
        client, (_, private, _) = self._it.client, self._it.names
        client.unbind(NUMBERED)
        client.unbind(Events.RECONNECTED)
        client.unbind(Events.STATE_CHANGE)
        client.bind(Events.RECONNECTED, self._on_reconnected)
        await client.connect()
        for channel in await self._it.subscribe():
            book = self._books[channel.name]
            channel.bind(Events.SUBSCRIPTION_SUCCEEDED, book.on_confirmed)
            if channel.name == private:
                channel.bind(NUMBERED, self._be_slow)
            channel.bind(NUMBERED, book.on_event)
        (await self._observer.subscribe(private)).bind("client-numbered", self._on_observed)
        self._tasks = [asyncio.ensure_future(self._publish()), asyncio.ensure_future(self._send())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    # --- what goes on all the time

    def _on_reconnected(self, event: str, data: Any, channel: str | None) -> None:
        self._reconnects += 1

    async def _be_slow(self, event: str, data: Any, channel: str | None) -> None:
        await self._blocked.wait()
        if data["n"] % 10 == 0:
            await asyncio.sleep(0.002)

    async def _publish(self) -> None:
        rng = random.Random(self._random.random())
        while True:
            async with self._calm:
                await self._it.publisher.publish(*self._it.names * rng.randint(1, 3))
            await asyncio.sleep(rng.choice((0, 0, 0.001, 0.01)))

    async def _send(self) -> None:
        private = self._it.names[1]
        while True:
            with suppress(ConnectionError, SubscriptionError):
                self.sent_by_client += 1
                data = {"n": self.sent_by_client, "over": self._it.client.socket_id}
                await self._it.client.channels[private].trigger("numbered", data)
            await asyncio.sleep(0.01)

    def _on_observed(self, event: str, data: Any, channel: str | None) -> None:
        # What was stuck in a connection given up may still arrive, behind what was sent over the next one.
        last = self._observed.get(data["over"], 0)
        if data["n"] <= last:
            self.violate(f"client event {data['n']} arrived after {last}")
        self._observed[data["over"]] = data["n"]
        if len(self._observed) > 1000:
            del self._observed[next(iter(self._observed))]
        self.seen_by_observer += 1

    # --- faults

    async def strike(self) -> None:
        """One fault, and the recovery from it."""
        fault = self._random.choices(list(_FAULTS), list(_FAULTS.values()))[0]
        self.faults += 1
        del self.history[:-10]
        self.history.append(f"{self.faults} at {monotonic() - self._started:.3f} s: {fault.__name__}")
        if self._random.random() < 0.3:
            await self.wait_delivered()
        await fault(self)
        await self._it.proxy.heal()
        await self.wait_delivered()

    async def wait_delivered(self) -> None:
        """With the network well and nothing more being published, everything has to arrive."""
        async with self._calm:
            end = monotonic() + _RECOVERY
            seen = -1
            while not all(book.last == self.published(name) for name, book in self._books.items()):
                self.check()
                if monotonic() > end:
                    missing = {name: (book.last, self.published(name)) for name, book in self._books.items()}
                    self.violate(f"did not recover: {self._it.client!r} has (got, published) {missing}")
                is_up = all(channel.is_subscribed for channel in self._it.client.channels.values())
                if is_up and seen != self._reconnects:
                    # What was published in the gap is lost, but this is not.
                    seen = self._reconnects
                    await self._it.publisher.publish(*self._it.names)
                await asyncio.sleep(0.001)
        self.check()

    async def lose(self, bring_about: Callable[[], object], *, quiet: bool = False) -> None:
        """Do something that ends the connection, and wait until the client has noticed and is back."""
        before = self._reconnects
        bring_about()
        if quiet:
            # While events come in, a link that is dead in the other direction only shows no sign of it.
            async with self._calm:
                await self._wait_for_reconnect(before)
        else:
            await self._wait_for_reconnect(before)

    async def _wait_for_reconnect(self, before: int) -> None:
        try:
            await until(lambda: self._reconnects > before or self._violation, _RECOVERY)
        except AssertionError:
            self.violate(f"did not reconnect: {self._it.client!r}")
        self.check()

    async def pass_time(self, least: float, most: float) -> None:
        await asyncio.sleep(self._random.uniform(least, most))

    @property
    def proxy(self) -> FaultProxy:
        return self._it.proxy

    @property
    def random(self) -> random.Random:
        return self._random

    @property
    def client(self) -> ReverbClient:
        return self._it.client


async def end_of_stream(storm: Storm) -> None:
    towards = storm.random.choice(list(Towards))
    await storm.lose(lambda: storm.proxy.hit(partial(Link.cut, towards=towards)))


async def reset(storm: Storm) -> None:
    await storm.lose(lambda: storm.proxy.hit(Link.reset))


async def black_hole(storm: Storm) -> None:
    towards = storm.random.choice((Towards.BOTH, Towards.CLIENT, Towards.SERVER))
    strike = partial(Link.black_hole, towards=towards)
    await storm.lose(lambda: storm.proxy.hit(strike), quiet=towards is Towards.SERVER)


async def cut_in_frame(storm: Storm) -> None:
    count = storm.random.randint(1, 500)
    await storm.lose(lambda: storm.proxy.hit(partial(Link.cut_after, count=count)))


async def close_frame(storm: Storm) -> None:
    code = storm.random.choice(_CODES)
    await storm.lose(lambda: storm.proxy.hit(partial(Link.close_frame, code=code)))


async def server_away(storm: Storm) -> None:
    """The server is gone, or half there, for a while."""
    way = storm.random.choice((FaultProxy.refuse, FaultProxy.reset_new, FaultProxy.silence_new))
    away = storm.random.uniform(0.02, 0.4)

    def strike() -> None:
        way(storm.proxy)
        storm.proxy.hit(Link.reset)
        asyncio.get_running_loop().call_later(away, lambda: asyncio.ensure_future(storm.proxy.heal()))

    await storm.lose(strike)


async def bad_handshakes(storm: Storm) -> None:
    """The next connections break after a random number of bytes, some of them while subscribing."""
    for _ in range(storm.random.randint(1, 3)):
        way = storm.random.choice((Link.cut, Link.reset, Link.black_hole))
        count = storm.random.randint(1, 1500)
        storm.proxy.arm(partial(_trap, count=count, way=way))
    await storm.lose(lambda: storm.proxy.hit(Link.reset))


def _trap(link: Link, count: int, way: Callable[[Link], None]) -> None:
    link.to_client.trap(count, partial(way, link))


async def in_quick_succession(storm: Storm) -> None:
    async def strike_again() -> None:
        for _ in range(3):
            await storm.pass_time(0, 0.05)
            storm.proxy.hit(storm.random.choice((Link.cut, Link.reset)))

    again = asyncio.ensure_future(strike_again())
    await storm.lose(lambda: storm.proxy.hit(Link.reset))
    await again


async def bad_weather(storm: Storm) -> None:
    """What a connection should live through."""
    ways: list[Callable[[Link], None]] = [
        partial(Link.delay, seconds=storm.random.uniform(0.01, 0.05)),
        partial(Link.throttle, rate=storm.random.uniform(20_000, 200_000)),
        partial(Link.segments, size=storm.random.randint(5, 50)),
        partial(Link.merge, seconds=storm.random.uniform(0.005, 0.05)),
    ]
    for way in storm.random.sample(ways, storm.random.randint(1, len(ways))):
        storm.proxy.hit(way)
    await storm.pass_time(0.05, 0.2)


async def stall(storm: Storm) -> None:
    """Sometimes longer than the client bears."""
    storm.proxy.hit(Link.stall)
    await storm.pass_time(0.02, 0.6)


async def slow_handler(storm: Storm) -> None:
    """A handler is stuck until reading is paused, and for longer than silence is borne."""
    storm._blocked.clear()
    try:
        await storm.pass_time(0.1, 0.6)
        if storm.random.random() < 0.5:
            storm.proxy.hit(storm.random.choice((Link.cut, Link.reset, Link.black_hole)))
            await storm.pass_time(0, 0.2)
    finally:
        storm._blocked.set()


async def coming_and_going(storm: Storm) -> None:
    """Another channel is asked for and left again while the connection breaks."""
    name = unique(storm.random.choice(("news-", "private-")))
    subscribing = asyncio.ensure_future(storm.client.subscribe(name))
    await storm.lose(lambda: storm.proxy.hit(storm.random.choice((Link.cut, Link.reset))))
    await subscribing
    await storm.client.unsubscribe(name)


_FAULTS = {
    end_of_stream: 3,
    reset: 2,
    black_hole: 2,
    cut_in_frame: 2,
    close_frame: 2,
    server_away: 2,
    bad_handshakes: 2,
    in_quick_succession: 2,
    bad_weather: 3,
    stall: 2,
    slow_handler: 2,
    coming_and_going: 2,
}
"""Every fault with its weight."""


@asynccontextmanager
async def storm(target: Target, seed: int) -> AsyncIterator[Storm]:
    async with scene(target, **_SETTINGS) as it, ReverbClient(**target.settings) as observer:
        it_storms = Storm(it, observer, seed)
        await it_storms.start()
        try:
            yield it_storms
        finally:
            await it_storms.stop()
