"""Callers in a hurry: what they call, and a judge who looks at what is left afterwards.

A *cell* is one client, in one state, one public coroutine that is called in one way, and the judge's questions.
The cells of a :class:`Stage` share an event loop and a server, and nothing else: each has channels of its own.

A *turn* is one pass of the event loop. The server runs in the same loop, so turns are the same in each run, as far
as the kernel's loopback is.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import pytest

import reverb
from reverb import (
    Channel,
    ChannelAuth,
    ChannelInfo,
    ConnectionState,
    PresenceChannel,
    ProtocolError,
    ReverbClient,
    ReverbConfig,
    SecretAuthorizer,
)
from reverb.echo import Echo
from reverb.server import ReverbServer
from tests.server.clients import Client
from tests.watching import open_descriptors

T = TypeVar("T")

DEADLINE = 2.0
"""Seconds that anything may take which ends by itself, on a busy machine."""
DRAIN_TIMEOUT = 30.0
"""Far more than the deadline: who waits for the drain timeout is found out."""
AUTH_CONCURRENCY = 2
MOST_FAILURES = 4
"""Cells of one test that may fail before it is given up: each may cost a deadline."""
MOST_TURNS = 400
TICK = "tick"
ME: dict[str, Any] = {"user_id": "me", "user_info": {"name": "me"}}

_COUNTS_DESCRIPTORS = os.path.isdir("/proc/self/fd")
_SERVER = Path(reverb.__file__).parent / "server"


# --- loops -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of event loop, and of task factory."""

    name: str
    is_uvloop: bool
    is_eager: bool

    def require(self) -> None:
        """Skip the test where there is no such loop."""
        if self.is_eager and sys.version_info < (3, 12):
            pytest.skip("eager tasks came with Python 3.12")
        if self.is_uvloop:
            pytest.importorskip("uvloop")
        if self.is_uvloop and self.is_eager and not self._starts_tasks():
            pytest.skip("this uvloop has no eager tasks on this Python")

    def _starts_tasks(self) -> bool:
        """uvloop 0.23 passes on an argument that the eager factory of Python 3.13.0 does not take."""
        loop, coro = self.new_loop(), turns(0)
        try:
            loop.run_until_complete(coro)
        except TypeError:
            return False
        finally:
            coro.close()
            loop.close()
        return True

    def new_loop(self) -> Any:
        """Make a loop that remembers its timers."""
        base = importlib.import_module("uvloop").Loop if self.is_uvloop else asyncio.SelectorEventLoop
        loop = type("WatchedLoop", (_Timers, base), {})()
        if self.is_eager:
            loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - mypy looks at 3.10, too
        return loop


KINDS = (
    Kind("asyncio", is_uvloop=False, is_eager=False),
    Kind("asyncio-eager", is_uvloop=False, is_eager=True),
    Kind("uvloop", is_uvloop=True, is_eager=False),
    Kind("uvloop-eager", is_uvloop=True, is_eager=True),
)


class _Timers:
    """Mixed into an event loop, remembers the timers that were set."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[tuple[Any, float, Any]] = []
        """Handle, time at which it is due, and callback."""

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = super().call_later(delay, callback, *args, context=context)  # type: ignore[misc]
        self.timers.append((handle, monotonic() + delay, callback))
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = super().call_at(when, callback, *args, context=context)  # type: ignore[misc]
        self.timers.append((handle, monotonic() + when - self.time(), callback))  # type: ignore[attr-defined]
        return handle

    def running_timers(self) -> list[str]:
        """Name the callbacks of timers that still run, the server's apart."""
        now = monotonic()
        self.timers = [each for each in self.timers if each[1] > now and not each[0].cancelled()]
        named = (getattr(callback, "func", callback) for _, _, callback in self.timers)
        return [
            f"{getattr(each, '__module__', '')}.{getattr(each, '__qualname__', each)}"
            for each in named
            if not str(getattr(each, "__module__", "")).startswith("reverb.server")
        ]


async def turns(count: int) -> None:
    """Let the loop pass so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- what may go wrong -----------------------------------------------------------------------------------------


class WrongError(Exception):
    """Says what the judge has seen."""


class GivenUpError(Exception):
    """So many cells have failed that the others are not tried."""


async def until(
    condition: Callable[[], Any],
    wrong: Callable[[], str] | str,
    deadline: float = DEADLINE,
    *,
    pause: float = 0,
) -> None:
    """Wait for a condition that nothing announces; ``wrong`` is what to say when it does not come.

    It looks at each turn, or after each ``pause`` in seconds.
    """
    end = monotonic() + deadline
    while not condition():
        if monotonic() > end:
            raise WrongError(wrong if isinstance(wrong, str) else wrong())
        await asyncio.sleep(pause)


async def in_time(awaitable: Awaitable[T], what: str, deadline: float = DEADLINE) -> T:
    """Await something; it is wrong if it does not end in time, or raises what nobody expects of it."""
    task = asyncio.ensure_future(awaitable)
    await asyncio.wait({task}, timeout=deadline)
    if not task.done():
        task.cancel()
        raise WrongError(f"{what} did not end within {deadline:g} seconds")
    if task.cancelled():
        raise WrongError(f"{what} was cancelled by somebody else")
    error = task.exception()
    if error is not None:
        raise WrongError(f"{what} raised {error!r}") from error
    return task.result()


def left_tasks(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """The tasks that have come since ``before``, other than the present one and the server's."""
    found = asyncio.all_tasks() - before - {asyncio.current_task()}
    return {task for task in found if not _is_of_server(task)}


def _is_of_server(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and Path(code.co_filename).is_relative_to(_SERVER)


# --- the stage -------------------------------------------------------------------------------------------------


class Stage:
    """An event loop with a server, for cells that run one after another."""

    def __init__(self, kind: Kind, server: ReverbServer) -> None:
        self.kind = kind
        self.server = server
        self.wrong: list[str] = []
        """What went wrong, a line for each cell."""
        self.cells = 0
        self.reported: list[str] = []
        """What the loop had to report: exceptions that nobody has seen, for instance."""
        self.published = 0
        self.config = ReverbConfig(
            **{
                **server.settings,
                "reconnect_delay_min": 0.0005,
                "reconnect_delay_max": 0.002,
                "auth_concurrency": AUTH_CONCURRENCY,
                "drain_timeout": DRAIN_TIMEOUT,
                "subscribe_timeout": 5.0,
                "connect_timeout": 5.0,
                "ping_interval": 60.0,
                "pong_timeout": 5.0,
            }
        )
        loop: Any = asyncio.get_running_loop()
        self.running_timers: Callable[[], list[str]] = loop.running_timers
        loop.set_exception_handler(self._report)

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.reported.append(f"{context['message']}: {context.get('exception')!r}")

    @asynccontextmanager
    async def cell(self, call: Call, how: str, *, signs: bool = False) -> AsyncIterator[Cell]:
        """A cell, and the end of it: what was wrong is kept, and whatever it has left is cleared away."""
        before = asyncio.all_tasks()
        self.running_timers()
        self.reported.clear()
        descriptors = open_descriptors() if _COUNTS_DESCRIPTORS else None
        cell = Cell(self, call, before, descriptors, call.signs or signs)
        self.cells += 1
        try:
            yield cell
            if self.reported:
                raise WrongError(f"the event loop reports {self.reported}")
        except GivenUpError:
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, WrongError) else repr(error)
            self.wrong.append(f"{self.kind.name}: {call.name}, {how}: {reason}")
            if cell.member is not None:
                await cell.member.leave()
            await self._clear(before)
            if len(self.wrong) >= MOST_FAILURES:
                raise GivenUpError from None

    async def _clear(self, before: set[asyncio.Task[Any]]) -> None:
        self.server.reset()
        for _ in range(20):
            left = left_tasks(before)
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0.05)
        raise GivenUpError

    def check(self) -> None:
        if self.wrong:
            raise AssertionError(f"{len(self.wrong)} of {self.cells} cells:\n" + "\n".join(self.wrong))


def play(kind: Kind, scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    """Play a scene in a loop of this kind; fail with all that was wrong in it."""
    kind.require()
    loop = kind.new_loop()
    stages: list[Stage] = []

    async def main() -> None:
        async with ReverbServer() as server:
            stage = Stage(kind, server)
            stages.append(stage)
            with suppress(GivenUpError):
                await scene(stage)
            gc.collect()
            await turns(3)

    try:
        loop.run_until_complete(main())
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1))
        loop.run_until_complete(turns(3))  # for what was closed in the last one
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    stages[0].check()
    if stages[0].reported:
        raise AssertionError(f"{kind.name}: the event loop reports {stages[0].reported}")


# --- a cell ----------------------------------------------------------------------------------------------------


class Signer:
    """An authorizer that takes some turns, and counts."""

    def __init__(self, config: ReverbConfig) -> None:
        self._secret = SecretAuthorizer.from_credentials(config)
        self.calls: Counter[tuple[str, str]] = Counter()
        """By socket id and channel."""
        self.given_up: Counter[tuple[str, str]] = Counter()
        self.running = 0
        self.most = 0
        self.turns = 4

    async def __call__(self, socket_id: str, channel: str) -> ChannelAuth:
        self.calls[socket_id, channel] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if "hang" in channel:
                await asyncio.get_running_loop().create_future()
            await turns(self.turns)
        except asyncio.CancelledError:
            self.given_up[socket_id, channel] += 1
            raise
        finally:
            self.running -= 1
        return self._secret.authorize(
            socket_id, channel, json.dumps(ME) if channel.startswith("presence-") else None
        )


Task = asyncio.Task[Any]
Outcome = asyncio.Future[Any]


class Cell:
    """A client, and what it has to do with."""

    def __init__(
        self,
        stage: Stage,
        call: Call,
        tasks_before: set[asyncio.Task[Any]],
        descriptors_before: int | None,
        signs: bool,
    ) -> None:
        self.stage = stage
        self.server = stage.server
        self.call = call
        self.signer = Signer(stage.config)
        self.signs = signs
        """Whether an authorizer of our own signs."""
        self.client = ReverbClient(stage.config, authorizer=self.signer if signs else None)
        self.echo: Echo | None = None
        tail = uuid.uuid4().hex[:8]
        self.name = f"{call.prefix}{tail}"
        self.other = f"other-{tail}"
        self.channel: Any = None
        """What ``prepare`` got for the channel under test."""
        self.kept: Any = None
        """What a call has to do with, a stream for instance."""
        self.member: Member | None = None
        """Who comes to the channel by another connection."""
        self.may_lose = False
        """Whether what is sent, or published, may be lost, as the connection is."""
        self.calls: list[Outcome] = []
        self.beside: list[Task] = []
        """What else was begun; it has to end, too."""
        self.heard: Counter[tuple[str, str, int]] = Counter()
        """Who was called how often, for which channel and number."""
        self._tasks_before = tasks_before
        self._descriptors_before = descriptors_before
        self.client.bind(TICK, self._hear_slowly)

    # What it hears

    async def _hear_slowly(self, event: str, data: Any, channel: str | None) -> None:
        self._hear("the client's handler", channel, data)
        await asyncio.sleep(0)

    def hear(self, event: str, data: Any, channel: str | None) -> None:
        self._hear("the channel's handler", channel, data)

    def hear_other(self, event: str, data: Any, channel: str | None) -> None:
        self._hear("the other channel's handler", channel, data)

    def _hear(self, who: str, channel: str | None, data: Any) -> None:
        assert channel is not None
        self.heard[who, channel, data["n"]] += 1

    # What it does

    async def prepare(self) -> None:
        """Bring the client to where the call makes sense."""
        if self.call.is_connected:
            await in_time(self.client.connect(), "the first connect()")
            other = await in_time(self.client.subscribe(self.other), "the other channel's subscribe()")
            other.bind(TICK, self.hear_other)
            if self.call.is_subscribed:
                self.channel = await in_time(self.subscribe(), "the first subscribe()")
                self.channel.bind(TICK, self.hear)
        if self.call.prepare is not None:
            await in_time(self.call.prepare(self), "what comes before")

    def subscribe(self) -> Coroutine[Any, Any, Channel]:
        return self.client.subscribe(self.name, *self.who(self.name))

    def who(self, name: str) -> tuple[dict[str, Any], ...]:
        """The argument that says who we are, where one does."""
        return (ME,) if name.startswith("presence-") and not self.signs else ()

    def begin(self) -> Task:
        """Call what is under test."""
        task = asyncio.get_running_loop().create_task(self.call.call(self))
        self.calls.append(task)
        return task

    async def call_here(self) -> None:
        """Call what is under test in the running task, as a handler does."""
        outcome: Outcome = asyncio.get_running_loop().create_future()
        self.calls.append(outcome)
        try:
            result = await self.call.call(self)
        except asyncio.CancelledError:
            outcome.cancel()
            raise
        except Exception as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    async def drive(self, count: int) -> None:
        """Let so many turns pass; whatever the call waits for happens behind the first."""
        if count:
            await turns(1)
            self.nudge()
            await turns(count - 1)

    def nudge(self) -> None:
        """Make happen what the call waits for."""
        if self.call.nudge is not None:
            self.also(self.call.nudge(self))

    def also(self, work: Coroutine[Any, Any, Any]) -> Task:
        task = asyncio.get_running_loop().create_task(work)
        self.beside.append(task)
        return task

    async def end(self, *, may_fail: bool = False) -> None:
        """Wait for the calls; they may have been cancelled, and ``may_fail`` with errors of the library."""
        tasks: set[Outcome] = {*self.calls, *self.beside}
        if tasks:
            await asyncio.wait(tasks, timeout=DEADLINE)
        for task in tasks:
            name = self.call.name if task in self.calls else "what went on beside it"
            if not task.done():
                raise WrongError(f"{name} did not end within {DEADLINE:g} seconds")
            error = None if task.cancelled() else task.exception()
            if error is not None and not (may_fail and isinstance(error, reverb.ReverbError)):
                raise WrongError(f"{name} raised {error!r}")

    @property
    def returned(self) -> int:
        """How many of the calls have returned."""
        return len(self.results)

    @property
    def results(self) -> list[Any]:
        """What they have returned."""
        return [task.result() for task in self.calls if not task.cancelled() and task.exception() is None]

    # What the judge asks

    async def judge(self) -> None:
        """Ask whether all is as the calls' ends say, then whether all goes on, ends, and begins again."""
        client = self.client
        if self.call.before_judging is not None:
            await self.call.before_judging(self)
        await self.be_connected()
        await self.check_channels()
        if self.call.check is not None:
            self.call.check(self)
        await self.check_events()
        names = set(client.channels)
        channel = client.channels.get(self.name)
        if channel is not None:
            channel.unbind(TICK)
        await self.disconnect()
        await self.check_silence()
        await in_time(client.connect(), "connect() after all")
        if set(client.channels) != names:
            raise WrongError(f"channels were {sorted(names)}, and are {sorted(client.channels)} after connect()")
        await self.check_channels()
        await self.check_events(is_unbound=True)
        await self.disconnect()
        await self.check_nothing_left()

    async def be_connected(self) -> None:
        is_coming = self.client.state in (ConnectionState.CONNECTING, ConnectionState.UNAVAILABLE)
        if not is_coming or self.call is DISCONNECT:  # which goes on disconnecting when it is cancelled
            await in_time(self.client.connect(), "connect()")
        if is_coming:
            await in_time(self.client.wait_connected(), "wait_connected()")
        if self.client.state is not ConnectionState.CONNECTED:
            raise WrongError(f"the client is {self.client.state} after connect() returned")

    async def disconnect(self) -> None:
        owner = self.client if self.echo is None else self.echo
        await in_time(owner.disconnect(), "disconnect()")
        if self.client.state is not ConnectionState.DISCONNECTED:
            raise WrongError(f"the client is {self.client.state} after disconnect() returned")

    async def check_channels(self) -> None:
        """The server's list is the client's, when it has answered whatever was asked before."""
        for _ in range(2):
            await in_time(self.client.ping(), "ping()")
            await until(self._agrees, lambda: f"the client has {self._ours()}, the server {self._servers()}")
        if self.name.startswith("presence-") and self.name in self.client.channels:
            channel = self.client.channels[self.name]
            ids = [user for user in channel if user != "bob"] if isinstance(channel, PresenceChannel) else None
            if ids != ["me"]:
                raise WrongError(f"members are {ids}")
        if self.signer.most > AUTH_CONCURRENCY:
            raise WrongError(f"{self.signer.most} authorizers ran at once where {AUTH_CONCURRENCY} may")
        for key, count in self.signer.calls.items():
            if count - self.signer.given_up[key] > 1 + sum(task.cancelled() for task in self.calls):
                raise WrongError(f"the authorizer was called {count} times for {key}")

    def _agrees(self) -> bool:
        return not self.signer.running and self._servers() == {self.client.socket_id: self._ours()}

    def _servers(self) -> dict[str | None, list[str]]:
        """What each connection has subscribed, the member's apart."""
        return {
            each.socket_id: sorted(each.channels)
            for each in self.server.connections
            if self.member is None or each.socket_id != self.member.socket_id
        }

    def _ours(self) -> list[str]:
        channels = self.client.channels
        return sorted(
            f"{name}{'' if each.is_subscribed else ' (not subscribed)'}" for name, each in channels.items()
        )

    async def check_events(self, *, is_unbound: bool = False) -> None:
        """What is published is heard once, by those who are bound."""
        numbers = await self._publish()
        channels = self.client.channels
        expected: Counter[tuple[str, str, int]] = Counter()
        for number in numbers:
            if self.name in channels:
                expected["the client's handler", self.name, number] = 1
                if self.call.is_subscribed and channels[self.name] is self.channel and not is_unbound:
                    expected["the channel's handler", self.name, number] = 1
            if self.other in channels:
                expected["the client's handler", self.other, number] = 1
                if self.call.is_connected:
                    expected["the other channel's handler", self.other, number] = 1
        since = min(numbers)

        def heard() -> Counter[tuple[str, str, int]]:
            return Counter({key: count for key, count in self.heard.items() if key[2] >= since})

        def wrong() -> str:
            lacking, surplus = expected - heard(), heard() - expected
            return f"events not heard: {dict(lacking)}; heard, and not expected: {dict(surplus)}"

        # A channel that was just subscribed may hold its events until it is bound.
        await until(lambda: all(self.heard[key] for key in expected), wrong, pause=0.005)
        await in_time(self.client.ping(), "ping()")
        await turns(3)
        if heard() != expected:
            raise WrongError(wrong())

    async def check_silence(self) -> None:
        before = self.heard.copy()
        await self._publish()
        await turns(5)
        if self.heard != before:
            raise WrongError(f"heard after disconnect() has returned: {dict(self.heard - before)}")

    async def _publish(self) -> list[int]:
        numbers = []
        for _ in range(2):
            self.stage.published += 1
            numbers.append(self.stage.published)
            await self.server.publish([self.name, self.other], TICK, {"n": self.stage.published})
        return numbers

    async def check_nothing_left(self) -> None:
        """No task, no timer, no connection, no socket."""
        before = self._tasks_before
        if self.member is not None:
            await self.member.leave()
        # A task that has nothing to do but end may take its turns to it.
        await until(lambda: not left_tasks(before), lambda: f"tasks are left: {left_tasks(before)}", 0.2)
        await until(lambda: not self.server.connections, "a connection is left at the server", 0.2)
        await until(
            lambda: not self.stage.running_timers(), lambda: f"timers run: {self.stage.running_timers()}", 0.2
        )
        if self._descriptors_before is not None:
            most = self._descriptors_before
            await until(lambda: open_descriptors() <= most, "a descriptor is left open", 0.5)


class Member:
    """Bob, who comes to a presence channel without a client of ours."""

    def __init__(self, server: ReverbServer) -> None:
        self._server = server
        self._writer: asyncio.StreamWriter | None = None
        self.socket_id = ""

    async def come(self, channel: str) -> None:
        reader, self._writer = await asyncio.open_connection(self._server.host, self._server.port)
        client = Client(reader, self._writer)
        await client.connect("/app/app-key", {})
        await client.greeted()
        self.socket_id = client.socket_id
        client.subscribe(channel, '{"user_id":"bob","user_info":{}}')

    async def leave(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()


# --- what is called --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A public coroutine, and where it makes sense."""

    name: str
    call: Callable[[Cell], Coroutine[Any, Any, Any]]
    prefix: str = "news-"
    """Of the channel under test."""
    is_connected: bool = True
    """Whether the client is connected before."""
    is_subscribed: bool = False
    """Whether the channel under test is subscribed before, with a handler."""
    signs: bool = False
    """Whether an authorizer of our own signs, which takes its turns."""
    prepare: Callable[[Cell], Coroutine[Any, Any, None]] | None = None
    nudge: Callable[[Cell], Coroutine[Any, Any, Any]] | None = None
    """What makes the call end."""
    before_judging: Callable[[Cell], Coroutine[Any, Any, None]] | None = None
    check: Callable[[Cell], None] | None = None
    """What is true in addition, once the client is connected and agrees with the server."""

    def __str__(self) -> str:
        return self.name


def _check_subscribed(cell: Cell) -> None:
    """Subscribed if a call returned, and else not."""
    found = cell.client.channels.get(cell.name)
    if not cell.results and found is not None:
        raise WrongError("the channel is subscribed, but no subscribe() has returned it")
    if any(each is not found for each in cell.results):
        raise WrongError("subscribe() returned a channel that is not the one in client.channels")


def _check_left(cell: Cell) -> None:
    if cell.returned and cell.name in cell.client.channels:
        raise WrongError("the channel is still subscribed")


def _check_kept(cell: Cell) -> None:
    """A call that has nothing to do with subscriptions changes none."""
    if set(cell.client.channels) != {cell.name, cell.other}:
        raise WrongError(f"the channels are {sorted(cell.client.channels)}")


def _check_triggered(cell: Cell) -> None:
    _check_kept(cell)
    sent = sum((each.channel, each.name) == (cell.name, "client-poke") for each in cell.server.events)
    if not (0 if cell.may_lose else cell.returned) <= sent <= len(cell.calls):
        raise WrongError(f"{cell.returned} of {len(cell.calls)} calls returned, {sent} events arrived")


async def _nothing_is_left_of_connect(cell: Cell) -> None:
    """Nobody who was cancelled in connect(), or in 'async with', disconnects."""
    if cell.returned:
        if not cell.client.is_connected:
            raise WrongError("connect() returned, and the client is not connected")
        return
    before = cell._tasks_before
    await until(lambda: not cell.server.connections, "a connection is left though no connect() has returned")
    await until(lambda: not left_tasks(before), lambda: f"tasks are left of connect(): {left_tasks(before)}")


async def _is_disconnected(cell: Cell) -> None:
    if cell.returned:
        if cell.client.state is not ConnectionState.DISCONNECTED:
            raise WrongError(f"the client is {cell.client.state} after disconnect() returned")
        await until(lambda: not cell.server.connections, "a connection is left behind disconnect()")
        await cell.check_silence()


async def _poke(cell: Cell) -> None:
    await cell.server.publish(cell.name, "poke", {})


async def _keep_stream(cell: Cell) -> None:
    cell.kept = cell.channel.events("poke")


async def _stream_lost_nothing(cell: Cell) -> None:
    """What no call has returned is still to be had."""
    pokes = sum((each.channel, each.name) == (cell.name, "poke") for each in cell.server.events)
    stream = cell.kept
    if cell.client.is_connected:
        await cell.server.publish(cell.name, "poke", {})
        if cell.may_lose:
            pokes = cell.returned
        for _ in range(pokes + 1 - sum(each is not None for each in cell.results)):
            await in_time(anext(stream), "the stream's next")
    await stream.aclose()


async def _next(cell: Cell) -> Any:
    with suppress(StopAsyncIteration):
        return await anext(cell.kept)


async def _signin(cell: Cell) -> None:
    with suppress(ProtocolError):  # as Reverb, the server knows no users
        await cell.client.signin({"id": "me"})


async def _come(cell: Cell) -> None:
    if cell.member is None:
        cell.member = Member(cell.server)
        await cell.member.come(cell.name)


async def _make_echo(cell: Cell) -> None:
    cell.echo = Echo(cell.client)


def _joins(how: str) -> Callable[[Cell], Coroutine[Any, Any, Any]]:
    async def join(cell: Cell) -> None:
        assert cell.echo is not None
        bare = cell.name.removeprefix(cell.call.prefix) if how != "channel" else cell.name
        await getattr(cell.echo, how)(bare, *cell.who(cell.name))

    return join


async def _answer_polls(cell: Cell) -> None:
    """Somebody is on a channel, as the HTTP API says, which takes some turns to say it."""

    async def channels(prefix: str | None, info: str | None) -> dict[str, ChannelInfo]:
        await turns(2)
        return {f"{cell.name}-found": ChannelInfo(subscription_count=2)}

    vars(cell.client.api)["channels"] = channels


async def _discover(cell: Cell) -> None:
    async with cell.client.discover(interval=0.001):
        await turns(5)


async def _join_private(cell: Cell) -> None:
    cell.echo = Echo(cell.client)
    cell.kept = cell.echo.private(cell.name.removeprefix("private-"))
    await cell.kept
    cell.channel = cell.client.channels[cell.name]


async def _whisper(cell: Cell) -> None:
    await cell.kept.whisper("poke", {"n": 1})


async def _leave(cell: Cell) -> None:
    assert cell.echo is not None
    await cell.echo.leave(cell.name.removeprefix("private-"))


async def _echo_subscribed(cell: Cell) -> None:
    """Who asked for a channel of Echo's gets it, whether or not they went on waiting for it."""
    assert cell.echo is not None
    if cell.client.is_connected and any(not task.cancelled() for task in cell.calls):
        await until(lambda: cell.name in cell.client.channels, "Echo's channel was never subscribed")


CONNECT = Call(
    "connect()",
    lambda cell: cell.client.connect(),
    is_connected=False,
    before_judging=_nothing_is_left_of_connect,
)
CONNECT_AGAIN = Call(
    "connect() of a client that was connected", lambda cell: cell.client.connect(), is_subscribed=True
)
DISCONNECT = Call(
    "disconnect()", lambda cell: cell.client.disconnect(), is_subscribed=True, before_judging=_is_disconnected
)
SUBSCRIBES = (
    Call("subscribe(public)", Cell.subscribe, check=_check_subscribed),
    Call("subscribe(private)", Cell.subscribe, prefix="private-", check=_check_subscribed),
    Call(
        "subscribe(private, own authorizer)",
        Cell.subscribe,
        prefix="private-",
        signs=True,
        check=_check_subscribed,
    ),
    Call("subscribe(presence)", Cell.subscribe, prefix="presence-", check=_check_subscribed),
    Call(
        "subscribe_presence()",
        lambda cell: cell.client.subscribe_presence(cell.name, *cell.who(cell.name)),
        prefix="presence-",
        check=_check_subscribed,
    ),
    Call("subscribe(cache)", Cell.subscribe, prefix="cache-", check=_check_subscribed),
)
UNSUBSCRIBE = Call(
    "unsubscribe()", lambda cell: cell.client.unsubscribe(cell.name), is_subscribed=True, check=_check_left
)
TRIGGER = Call(
    "trigger()",
    lambda cell: cell.channel.trigger("poke", {"n": 1}),
    prefix="private-",
    is_subscribed=True,
    check=_check_triggered,
)
SIGNIN = Call("signin()", _signin, is_subscribed=True, check=_check_kept)
PING = Call("ping()", lambda cell: cell.client.ping(), is_subscribed=True, check=_check_kept)
WAIT_FOR = Call(
    "wait_for()", lambda cell: cell.channel.wait_for("poke"), is_subscribed=True, nudge=_poke, check=_check_kept
)
WAIT_FOR_MEMBER = Call(
    "wait_for_member()",
    lambda cell: cell.channel.wait_for_member("bob"),
    prefix="presence-",
    is_subscribed=True,
    nudge=_come,
    check=_check_kept,
)
NEXT = Call(
    "stream.__anext__()",
    _next,
    is_subscribed=True,
    prepare=_keep_stream,
    nudge=_poke,
    before_judging=_stream_lost_nothing,
    check=_check_kept,
)
LISTEN = Call(
    "listen()",
    lambda cell: cell.client.listen(),
    is_subscribed=True,
    nudge=lambda cell: cell.client.disconnect(),
    check=_check_kept,
)
DISCOVER = Call("async with discover()", _discover, is_subscribed=True, prepare=_answer_polls, check=_check_kept)
JOINS = (
    Call("Echo.channel()", _joins("channel"), prepare=_make_echo, before_judging=_echo_subscribed),
    Call(
        "Echo.private()", _joins("private"), prefix="private-", prepare=_make_echo, before_judging=_echo_subscribed
    ),
    Call("Echo.join()", _joins("join"), prefix="presence-", prepare=_make_echo, before_judging=_echo_subscribed),
)
WHISPER = Call("Echo whisper()", _whisper, prefix="private-", prepare=_join_private, check=_check_triggered)
LEAVE = Call("Echo.leave()", _leave, prefix="private-", prepare=_join_private, check=_check_left)

CALLS = (
    CONNECT,
    DISCONNECT,
    *SUBSCRIBES,
    UNSUBSCRIBE,
    TRIGGER,
    SIGNIN,
    PING,
    WAIT_FOR,
    WAIT_FOR_MEMBER,
    NEXT,
    LISTEN,
    DISCOVER,
    *JOINS,
    WHISPER,
    LEAVE,
)


CALLS_WHEN_CONNECTED = (CONNECT_AGAIN, *CALLS[1:])
"""Where a client that was never connected makes no sense."""


def counts() -> Iterator[int]:
    """0, 1, 2, … turns; far out, not each of them."""
    count = 0
    while count < MOST_TURNS:
        yield count
        count += 1 if count < 60 else count // 8


def few_counts(most: int = MOST_TURNS) -> Iterator[int]:
    """Numbers of turns that grow by more and more."""
    count = 0
    while count <= most:
        yield count
        count += 1 + count // 2
