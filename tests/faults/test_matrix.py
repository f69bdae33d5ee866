"""Each fault at each moment of a connection's life, and what the client promises for it.

Promised is: it is connected again (or raises, where a server's code forbids that), every channel is subscribed
again, no event comes twice or out of order, there is at most one gap for each reconnect, connections are made in
numbers that make sense, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import pytest

from reverb import ConnectionError, ConnectionState, PresenceChannel, ReverbClient, ReverbError, SubscriptionError
from tests.integration.servers import Target
from tests.watching import until

from .proxy import Fault, FaultProxy, Link, Towards
from .scene import NUMBERED, US, Numbers, Scene, scene, unique

PATIENT = {"pong_timeout": 5.0, "connect_timeout": 5.0}
"""Where nothing is lost, a busy machine must not make it look as if."""


@dataclass(frozen=True)
class Case:
    """A fault, and what it means."""

    name: str
    fault: Fault
    """What happens to a link."""
    survived: bool = False
    """Whether the connection lives through it."""
    code: int | None = None
    """The code of a close frame that forbids to reconnect."""
    newcomers: Callable[[FaultProxy], None] | None = None
    """What happens, for a while, to new connections too."""

    def __str__(self) -> str:
        return self.name


def stall_for_a_while(link: Link) -> None:
    link.stall()
    asyncio.get_running_loop().call_later(0.1, link.heal)


CORE = [
    Case("eof", Link.cut),
    Case("reset", Link.reset),
    Case("black-hole", Link.black_hole),
    Case("cut-in-frame", partial(Link.cut_after, count=7)),
    Case("close-1001", partial(Link.close_frame, code=1001)),
    Case("close-4000", partial(Link.close_frame, code=4000), code=4000),
    Case("segments", partial(Link.segments, size=7), survived=True),
]
"""Those that are put in front of soketi too."""
FAULTS = [
    *CORE,
    Case("eof-to-client", partial(Link.cut, towards=Towards.CLIENT)),
    Case("eof-to-server", partial(Link.cut, towards=Towards.SERVER)),
    Case("black-hole-to-client", partial(Link.black_hole, towards=Towards.CLIENT)),
    Case("black-hole-to-server", partial(Link.black_hole, towards=Towards.SERVER)),
    Case("close-4200", partial(Link.close_frame, code=4200)),
    Case("refuse", Link.reset, newcomers=FaultProxy.refuse),
    Case("reset-all", Link.reset, newcomers=FaultProxy.reset_new),
    Case("silent", Link.reset, newcomers=FaultProxy.silence_new),
    Case("delay", partial(Link.delay, seconds=0.05), survived=True),
    Case("throttle", partial(Link.throttle, rate=100_000), survived=True),
    Case("merge", partial(Link.merge, seconds=0.05), survived=True),
    Case("stall", stall_for_a_while, survived=True),
]
CODES = [
    Case(f"close-{code}", partial(Link.close_frame, code=code))
    for code in (1000, 1003, 1009, 1011, 1012, 1013, 4100, 4299, 4300, 4999)
]
FINAL_CODES = [Case(f"close-{code}", partial(Link.close_frame, code=code), code=code) for code in (4001, 4099)]

BOTH_SERVERS = [
    *(pytest.param("embedded", case, id=f"embedded-{case}") for case in FAULTS),
    *(pytest.param("soketi", case, id=f"soketi-{case}") for case in CORE),
]
matrix = pytest.mark.parametrize(("server", "case"), BOTH_SERVERS, indirect=["server"])


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Target:
    target = request.getfixturevalue(request.param)
    assert isinstance(target, Target)
    return target


def options_for(case: Case) -> dict[str, Any]:
    return PATIENT if case.survived else {}


def strike(it: Scene, case: Case) -> None:
    """Let it happen now; new connections are well again a little later."""
    if case.newcomers is not None:
        case.newcomers(it.proxy)
        asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(it.proxy.heal()))
    it.proxy.hit(case.fault)


async def check_outcome(it: Scene, case: Case) -> None:
    """Connected again, connected still, or at an end, whichever the case says."""
    if case.code is not None:
        with pytest.raises(ConnectionError) as caught:
            await asyncio.wait_for(it.client.listen(), 5)
        assert caught.value.code == case.code
        assert it.client.state is ConnectionState.FAILED
        assert (it.client.is_connected, it.client.socket_id) == (False, None)
        it.numbers.check(max_gaps=0)
        assert it.proxy.connections == 1
        return
    if not case.survived:
        await it.wait_reconnected()
        assert it.reconnects[0]["attempts"] >= 1
        assert 0 < it.reconnects[0]["downtime"] < 5
    await it.check_alive()
    assert len(it.reconnects) == (0 if case.survived else 1)
    if case.survived:
        assert it.proxy.connections == 1
    elif case.newcomers is None:
        assert it.proxy.connections == 2
    else:
        assert 1 <= it.proxy.connections <= 15
    expected = [ConnectionState.CONNECTING, ConnectionState.CONNECTED]
    assert it.states == expected * (1 if case.survived else 2)


# --- while it lives --------------------------------------------------------------------------------------------


@matrix
async def test_asking_for_channels(server: Target, case: Case) -> None:
    async with scene(server, **options_for(case)) as it:
        await it.client.connect()
        it.proxy.links[0].to_server.trap(20, partial(strike, it, case))
        await check_subscribing(it, case)


@matrix
async def test_channels_being_confirmed(server: Target, case: Case) -> None:
    async with scene(server, **options_for(case)) as it:
        await it.client.connect()
        it.proxy.links[0].to_client.trap(20, partial(strike, it, case))
        await check_subscribing(it, case)


async def check_subscribing(it: Scene, case: Case) -> None:
    subscribing = asyncio.ensure_future(it.subscribe())
    if case.code is not None:
        # What was confirmed before the end may have succeeded.
        await asyncio.wait({subscribing})
        assert isinstance(subscribing.exception(), ConnectionError | None)
    else:
        await asyncio.wait_for(subscribing, 5)
    await check_outcome(it, case)


@pytest.mark.parametrize(
    ("server", "case"),
    [*BOTH_SERVERS, *(pytest.param("embedded", each, id=f"embedded-{each}") for each in CODES + FINAL_CODES)],
    indirect=["server"],
)
async def test_idle(server: Target, case: Case) -> None:
    async with scene(server, **options_for(case)) as it:
        await it.client.connect()
        await it.subscribe()
        strike(it, case)
        await check_outcome(it, case)


@matrix
async def test_receiving_a_burst(server: Target, case: Case) -> None:
    async with scene(server, **options_for(case)) as it:
        await it.client.connect()
        await it.subscribe()

        async def publish() -> None:
            for _ in range(20):
                await it.publisher.publish(*it.names * 3)

        publishing = asyncio.ensure_future(publish())
        await until(lambda: it.numbers.last(it.names[0]) >= 12)
        strike(it, case)
        await check_outcome(it, case)
        await publishing
        if case.code is None:
            await it.check_alive()


@matrix
async def test_sending(server: Target, case: Case) -> None:
    async with scene(server, **options_for(case)) as it, ReverbClient(**server.settings) as observer:
        await it.client.connect()
        channels = await it.subscribe()
        sent, seen, done = 0, Numbers(), asyncio.Event()
        (await observer.subscribe(it.names[1])).bind("client-numbered", seen)

        async def send() -> None:
            nonlocal sent
            while not done.is_set():
                sent += 1
                try:
                    await channels[1].trigger("numbered", {"n": sent})
                except ConnectionError:
                    if it.client.state is ConnectionState.FAILED:
                        return
                    await it.client.wait_connected(5)
                except SubscriptionError:  # connected, but not subscribed again yet
                    await asyncio.sleep(0)
                await asyncio.sleep(0.001)

        sending = asyncio.ensure_future(send())
        await until(lambda: seen.last(it.names[1]) >= 5)
        strike(it, case)
        await check_outcome(it, case)
        if case.code is None:
            so_far = seen.last(it.names[1])
            await until(lambda: seen.last(it.names[1]) >= so_far + 5)
        done.set()
        await asyncio.wait_for(sending, 5)
        seen.check(max_gaps=sent)


@matrix
async def test_a_handler_is_busy(server: Target, case: Case) -> None:
    async with scene(server, **options_for(case)) as it:
        released, slow = asyncio.Event(), Numbers()

        async def handle(event: str, data: Any, channel: str | None) -> None:
            await released.wait()
            slow(event, data, channel)

        await it.client.connect()
        orders = (await it.subscribe())[1]
        orders.bind(NUMBERED, handle)
        it.client.unbind(NUMBERED, it.numbers)
        orders.bind(NUMBERED, it.numbers)
        for channel in it.client.channels.values():
            if channel is not orders:
                channel.bind(NUMBERED, it.numbers)
        for _ in range(5):
            await it.publisher.publish(orders.name)
        await it.publisher.publish(it.names[0])
        await until(lambda: it.numbers.last(it.names[0]) == 1)
        strike(it, case)
        if not case.survived and case.code is None:
            await it.wait_reconnected()  # with the handler still busy
        released.set()
        await check_outcome(it, case)
        await until(lambda: slow.got[orders.name][:5] == [1, 2, 3, 4, 5])
        slow.check(max_gaps=1)


@matrix
async def test_reading_is_paused(server: Target, case: Case) -> None:
    async with scene(server, max_pending_bytes=2_000, **options_for(case)) as it:
        released = asyncio.Event()

        async def handle(event: str, data: Any, channel: str | None) -> None:
            await released.wait()

        await it.client.connect()
        orders = (await it.subscribe())[1]
        it.client.unbind(NUMBERED, it.numbers)
        orders.bind(NUMBERED, handle)
        it.client.bind(NUMBERED, it.numbers)
        await until(lambda: not it.client.stats.queued)  # confirmations wait for a moment, too
        for _ in range(30):
            await it.publisher.publish(orders.name)
        await until(lambda: it.client.stats.queued >= 6)  # which is more than 2,000 bytes
        strike(it, case)
        await asyncio.sleep(0.4)  # longer than silence is borne, and this silence is ours
        released.set()
        await check_outcome(it, case)
        assert it.numbers.got[orders.name][:5] == [1, 2, 3, 4, 5]


# --- in the handshake ------------------------------------------------------------------------------------------


def in_the_answer(fault: Fault) -> Fault:
    """The fault strikes in the middle of the server's HTTP answer."""
    return lambda link: link.to_client.trap(30, partial(fault, link))


def in_the_greeting(fault: Fault) -> Fault:
    """The fault strikes between the HTTP answer and ``connection_established``."""
    return lambda link: link.to_client.trap_boundary(partial(fault, link))


def directly(fault: Fault) -> Fault:
    return fault


STAGES: dict[str, Callable[[Fault], Fault]] = {
    "before": directly,
    "in-the-answer": in_the_answer,
    "in-the-greeting": in_the_greeting,
}
# Once the request has passed, an end in its direction is one of the connection's life. A close frame has its place
# behind the HTTP answer anyway.
ELSEWHERE = ("eof-to-server", "black-hole-to-server", "close-1001", "close-4000", "close-4200")
HANDSHAKES = [
    pytest.param(server, case, STAGES[stage], id=f"{server}-{stage}-{case}")
    for server, cases in (("embedded", FAULTS), ("soketi", CORE))
    for case in cases
    for stage in STAGES
    if case.newcomers is None and (stage == "before" or case.name not in ELSEWHERE)
]
handshakes = pytest.mark.parametrize(("server", "case", "stage"), HANDSHAKES, indirect=["server"])


@handshakes
async def test_the_first_connect(server: Target, case: Case, stage: Callable[[Fault], Fault]) -> None:
    async with scene(server, **options_for(case)) as it:
        it.proxy.arm(stage(case.fault))
        if case.survived:
            await it.client.connect()
            await it.subscribe()
        else:
            start = monotonic()
            with pytest.raises(ReverbError) as caught:
                await it.client.connect()
            assert monotonic() - start < 4
            assert caught.value.code == case.code or case.code is None
            assert it.client.state in (ConnectionState.DISCONNECTED, ConnectionState.FAILED)
            assert it.proxy.connections == 1
            await it.client.connect()  # and that is all: there is nothing that would not go now
            await it.subscribe()
        await it.check_alive()
        assert it.proxy.connections == (1 if case.survived else 2)
        assert it.reconnects == []


@handshakes
async def test_a_reconnect(server: Target, case: Case, stage: Callable[[Fault], Fault]) -> None:
    async with scene(server, **options_for(case)) as it:
        await it.client.connect()
        await it.subscribe()
        it.proxy.arm(stage(case.fault))
        it.proxy.hit(Link.cut)
        if case.code is not None:
            with pytest.raises(ConnectionError) as caught:
                await asyncio.wait_for(it.client.listen(), 5)
            assert caught.value.code == case.code
            assert it.proxy.connections == 2
            return
        await it.wait_reconnected()
        await it.check_alive()
        assert [each["attempts"] for each in it.reconnects] == [1 if case.survived else 2]
        assert it.proxy.connections == (2 if case.survived else 3)


@pytest.mark.parametrize("trouble", [FaultProxy.refuse, FaultProxy.reset_new, FaultProxy.silence_new])
async def test_the_first_connect_to_nobody(
    embedded: Target, trouble: Callable[[FaultProxy], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(embedded) as it:
        trouble(it.proxy)
        start = monotonic()
        with pytest.raises(ReverbError, match=rf"{it.proxy.port}"):
            await it.client.connect()
        assert monotonic() - start < 4
        assert it.proxy.connections <= 1
        assert it.client.state is ConnectionState.DISCONNECTED
        assert "reconnecting in" not in caplog.text


# --- moments that belong to no fault ---------------------------------------------------------------------------


@pytest.fixture(params=["backing off", "connecting", "greeting", "subscribing"])
def moment(request: pytest.FixtureRequest) -> Callable[[Scene], Awaitable[None]]:
    async def bring_about(it: Scene) -> None:
        await it.client.connect()
        await it.subscribe()
        if request.param == "backing off":
            it.proxy.refuse()
        elif request.param == "connecting":
            it.proxy.silence_new()
        elif request.param == "greeting":
            it.proxy.arm_all(in_the_greeting(Link.stall))
        else:
            it.proxy.arm_all(in_the_greeting(lambda link: link.to_client.trap_boundary(link.stall)))
        it.proxy.hit(Link.reset)
        before = it.proxy.connections
        if request.param == "backing off":
            await until(lambda: not it.client.is_connected)
        elif request.param == "subscribing":
            await until(lambda: it.client.is_connected and it.proxy.connections > before)
        else:
            await until(lambda: it.proxy.connections > before)

    return bring_about


async def test_disconnecting_at_any_moment_is_quick(
    embedded: Target, moment: Callable[[Scene], Awaitable[None]]
) -> None:
    async with scene(embedded, connect_timeout=5.0) as it:
        await moment(it)
        start = monotonic()
        await it.client.disconnect()
        assert monotonic() - start < 4  # the server gets two seconds to answer our goodbye
        assert it.client.state is ConnectionState.DISCONNECTED


async def test_what_is_asked_for_while_the_connection_is_down(embedded: Target) -> None:
    async with scene(embedded) as it:
        await it.client.connect()
        await it.subscribe()
        it.proxy.refuse()
        it.proxy.hit(Link.reset)
        await until(lambda: not it.client.is_connected)
        late = unique("late-")
        subscribing = asyncio.ensure_future(it.client.subscribe(late))
        await it.client.unsubscribe(it.names[0])
        joining = asyncio.ensure_future(it.client.subscribe(it.names[0]))
        await asyncio.sleep(0)
        await it.client.unsubscribe(it.names[0])
        with pytest.raises(SubscriptionError):
            await joining
        rejoining = asyncio.ensure_future(it.client.subscribe(it.names[0]))
        await it.client.unsubscribe(it.names[1])
        leaver = it.names[1]
        await it.proxy.heal()
        await asyncio.gather(subscribing, rejoining)
        await it.wait_reconnected()
        it.names = (it.names[0], late, it.names[2])
        await it.publisher.publish(leaver)
        await it.check_alive()
        assert leaver not in it.numbers.got


async def test_who_left_while_we_were_away_is_no_member(embedded: Target) -> None:
    async with scene(embedded) as it, ReverbClient(**embedded.settings) as other:
        await it.client.connect()
        room = (await it.subscribe())[2]
        assert isinstance(room, PresenceChannel)
        await other.subscribe(room.name, {"user_id": "other"})
        await until(lambda: set(room.members) == {"us", "other"})
        it.proxy.refuse()
        it.proxy.hit(Link.reset)
        await until(lambda: not it.client.is_connected)
        await other.unsubscribe(room.name)
        await other.subscribe(unique("fence-"))
        await it.proxy.heal()
        await it.wait_reconnected()
        assert set(room.members) == {"us"}


async def test_a_stalled_link_and_a_ghost_of_ours_on_the_server(embedded: Target) -> None:
    """The server still has the old connection when the new one is there; its presence list has us once."""
    async with scene(embedded) as it:
        await it.client.connect()
        await it.subscribe()
        old = it.client.socket_id
        it.proxy.hit(Link.black_hole)
        await it.wait_reconnected()
        assert it.client.socket_id != old
        room = it.client.channels[it.names[2]]
        assert list(room.members) == [US["user_id"]]  # type: ignore[attr-defined]
        await it.proxy.heal()  # now the ghost goes
        await it.check_alive()
