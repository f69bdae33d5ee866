"""What every engine has to do: each sentence of the protocol ``Sink``, on the real engines.

An engine is a row in ``ENGINES``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from reverb.exceptions import ConfigurationError
from reverb.relay._log import EngineError, Entry, Grant, LeaseLostError, Sink
from reverb.relay._nats import NatsSink
from reverb.relay._redis import RedisSink
from tests.relay.engines import Line, Valkey
from tests.relay.nats_server import Nats
from tests.test_secrets import SECRET, raised
from tests.watching import client_tasks, turns, wait_turns

LEASE = 2.0
"""In seconds, where a test waits for the end of a lease, or for an engine that does not answer."""


class Engine(Protocol):
    """A server that a test may end, and start with what it has kept."""

    port: int

    @property
    def url(self) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


ENGINES: dict[str, tuple[Callable[..., Any], Callable[..., Sink]]] = {
    "valkey": (Valkey, RedisSink),
    "nats": (Nats, NatsSink),
}
"""How to make the server, and the sink. A server is a context manager, made of a directory for its data, and
perhaps of the ``password`` that it wants."""


class Setting:
    """One engine, and the sinks of relays that use it."""

    def __init__(self, engine: Engine, make: Callable[..., Sink]) -> None:
        self.engine = engine
        self._make = make
        self.lease = 20.0
        """Of the sinks made from now on, in seconds. They wait half of it for an answer."""
        self._names = count(1)
        self.opened: list[Sink] = []

    def sink(self, relay: str | None = None, **options: Any) -> Sink:
        options = {"lease": self.lease, "url": self.engine.url, **options}
        sink = self._make(options.pop("url"), relay=relay or f"relay-{next(self._names)}", **options)
        self.opened.append(sink)
        return sink

    async def opened_sink(self, relay: str | None = None, **options: Any) -> Sink:
        sink = self.sink(relay, **options)
        await sink.open()
        return sink


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    make, _ = ENGINES[request.param]
    with make(tmp_path) as engine:
        yield engine


@pytest.fixture
async def setting(request: pytest.FixtureRequest, engine: Engine) -> AsyncIterator[Setting]:
    setting = Setting(engine, ENGINES[request.node.callspec.params["engine"]][1])
    yield setting
    for sink in setting.opened:
        await sink.close()


def entry(grant: Grant, number: int, **fields: Any) -> Entry:
    made = Entry(
        channel="orders",
        event="order.shipped",
        data=b'{"id":%d}' % number,
        user_id=None,
        received_at=1_764_239_688_123,
        sent_after=1_764_239_688_000,
        epoch=grant.epoch,
        number=number,
    )
    return msgspec.structs.replace(made, **fields)


def entries(grant: Grant, first: int, last: int) -> list[Entry]:
    return [entry(grant, number) for number in range(first, last + 1)]


async def granted(sink: Sink) -> Grant:
    grant = await sink.acquire()
    assert grant is not None, "another relay holds the lease"
    return grant


async def granted_in_time(sink: Sink, deadline: float = 4 * LEASE) -> Grant:
    """Try to acquire until nobody else holds or changes the lease."""
    end = time.monotonic() + deadline
    while (grant := await sink.acquire()) is None:
        assert time.monotonic() < end, "the lease did not become free"
        await asyncio.sleep(0.02)
    return grant


async def numbers(sink: Sink) -> list[tuple[int, int]]:
    return [(each.epoch, each.number) for each in await sink.tail(0)]


# --- the lease -------------------------------------------------------------------------------------------------


async def test_a_new_log_has_no_holder_and_nothing_in_it(setting: Setting) -> None:
    sink = await setting.opened_sink()
    lease_status = await sink.check_lease(is_ready=True)
    assert (lease_status.holder, lease_status.watermark, lease_status.state, lease_status.others) == (
        None,
        None,
        b"",
        0,
    )
    assert await sink.tail(0) == []


async def test_the_time_is_the_engines_in_milliseconds(setting: Setting) -> None:
    sink = await setting.opened_sink()
    before = time.time() * 1000
    lease_status = await sink.check_lease(is_ready=True)
    grant = await granted(sink)
    renewed = await sink.renew(grant.epoch, None, b"")
    after = time.time() * 1000
    assert before - 50 <= lease_status.clock <= grant.lease_status.clock <= renewed.clock <= after + 50


async def test_one_relay_gets_the_lease(setting: Setting) -> None:
    first, second = await setting.opened_sink("one"), await setting.opened_sink("two")
    grants = await asyncio.gather(first.acquire(), second.acquire())
    assert sum(grant is not None for grant in grants) == 1
    holder = "one" if grants[0] is not None else "two"
    assert (await first.check_lease(is_ready=True)).holder == holder
    assert (await second.check_lease(is_ready=True)).holder == holder


async def test_a_holder_may_acquire_again_with_a_higher_epoch(setting: Setting) -> None:
    sink = await setting.opened_sink()
    first = await granted(sink)
    second = await granted(sink)
    assert second.epoch > first.epoch
    with pytest.raises(LeaseLostError):
        await sink.append(first.epoch, entries(first, 1, 1))
    await sink.append(second.epoch, entries(second, 1, 1))
    assert await numbers(sink) == [(second.epoch, 1)]


async def test_a_lease_runs_out_and_each_holder_has_a_higher_epoch(setting: Setting) -> None:
    setting.lease = LEASE
    first, second = await setting.opened_sink(), await setting.opened_sink("two")
    old = await granted(first)
    assert await second.acquire() is None
    new = await granted_in_time(second)
    assert new.epoch > old.epoch
    assert (await first.check_lease(is_ready=True)).holder == "two"


async def test_a_lease_that_is_renewed_does_not_run_out(setting: Setting) -> None:
    setting.lease = LEASE
    first, second = await setting.opened_sink("one"), await setting.opened_sink()
    grant = await granted(first)
    end = time.monotonic() + 2.5 * LEASE
    while time.monotonic() < end:
        assert (await first.renew(grant.epoch, None, b"")).holder == "one"
        assert await second.acquire() is None
        await asyncio.sleep(LEASE / 5)


async def test_a_lease_that_ran_out_and_that_nobody_took_is_renewed(setting: Setting) -> None:
    setting.lease = LEASE
    first, second = await setting.opened_sink("one"), await setting.opened_sink()
    grant = await granted(first)
    await no_holder(second)
    await first.append(grant.epoch, entries(grant, 1, 2))
    assert (await first.renew(grant.epoch, None, b"")).holder == "one"
    assert await second.acquire() is None
    await first.append(grant.epoch, entries(grant, 3, 3))
    assert await numbers(first) == [(grant.epoch, number) for number in (1, 2, 3)]


async def no_holder(sink: Sink) -> None:
    end = time.monotonic() + 4 * LEASE
    while (await sink.check_lease(is_ready=False)).holder is not None:
        assert time.monotonic() < end, "the lease did not run out"
        await asyncio.sleep(0.02)


async def test_a_lease_that_another_one_took_is_not_renewed(setting: Setting) -> None:
    setting.lease = LEASE
    first, second = await setting.opened_sink(), await setting.opened_sink("two")
    old = await granted(first)
    new = await granted_in_time(second)
    with pytest.raises(LeaseLostError):
        await first.renew(old.epoch, 1, b"")
    lease_status = await second.renew(new.epoch, None, b"")
    assert (lease_status.holder, lease_status.watermark) == ("two", None)


async def test_a_lease_that_is_given_back_is_free_at_once(setting: Setting) -> None:
    first, second = await setting.opened_sink(), await setting.opened_sink()
    old = await granted(first)
    await first.release(old.epoch, 17, b"left")
    assert (await second.check_lease(is_ready=True)).holder is None
    new = await granted(second)
    assert new.epoch > old.epoch
    assert (new.lease_status.watermark, new.lease_status.state) == (17, b"left")


async def test_a_lease_is_given_back_once(setting: Setting) -> None:
    first, second = await setting.opened_sink(), await setting.opened_sink("two")
    old = await granted(first)
    await first.release(old.epoch, 17, b"left")
    await first.release(old.epoch, 18, b"late")
    new = await granted(second)
    assert (new.lease_status.watermark, new.lease_status.state) == (17, b"left")
    await first.release(old.epoch, 19, b"later")
    await second.release(old.epoch, 20, b"of another epoch")
    lease_status = await first.check_lease(is_ready=True)
    assert (lease_status.holder, lease_status.watermark, lease_status.state) == ("two", 17, b"left")


async def test_who_was_deposed_gives_nothing_back(setting: Setting) -> None:
    setting.lease = LEASE
    first, second = await setting.opened_sink(), await setting.opened_sink("two")
    old = await granted(first)
    new = await granted_in_time(second)
    await second.renew(new.epoch, 20, b"new")
    await first.release(old.epoch, 10, b"old")
    lease_status = await first.check_lease(is_ready=True)
    assert (lease_status.holder, lease_status.watermark, lease_status.state) == ("two", 20, b"new")


# --- what is left beside it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 200_000])
async def test_watermark_and_state_are_there_for_all_and_outlive_the_lease(setting: Setting, size: int) -> None:
    setting.lease = LEASE
    first, second, third = [await setting.opened_sink() for _ in range(3)]
    state = bytes(range(256)) * (size // 256) + b"\x00" * (size % 256)
    grant = await granted(first)
    watermark = 1_764_239_688_123
    lease_status = await first.renew(grant.epoch, watermark, state)
    assert (lease_status.watermark, lease_status.state) == (watermark, state)
    lease_status = await second.check_lease(is_ready=True)
    assert (lease_status.watermark, lease_status.state) == (watermark, state)
    taken = await granted_in_time(second)
    assert (taken.lease_status.watermark, taken.lease_status.state) == (watermark, state)
    lease_status = await third.check_lease(is_ready=True)
    assert (lease_status.watermark, lease_status.state) == (watermark, state)


async def test_a_state_changes_and_comes_back(setting: Setting) -> None:
    first, second = await setting.opened_sink(), await setting.opened_sink()
    grant = await granted(first)
    for watermark, state in enumerate((b"a", b"b", b"b", b"", b"a", b"a"), start=1):
        lease_status = await first.renew(grant.epoch, watermark, state)
        assert (lease_status.watermark, lease_status.state) == (watermark, state)
        lease_status = await second.check_lease(is_ready=True)
        assert (lease_status.watermark, lease_status.state) == (watermark, state)
    await first.release(grant.epoch, 7, b"b")
    grant = await granted(second)
    assert (grant.lease_status.watermark, grant.lease_status.state) == (7, b"b")
    await second.renew(grant.epoch, 8, b"b")
    lease_status = await first.check_lease(is_ready=True)
    assert (lease_status.watermark, lease_status.state) == (8, b"b")


# --- the others ------------------------------------------------------------------------------------------------


async def test_others_are_those_that_said_lately_that_they_are_ready(setting: Setting) -> None:
    setting.lease = LEASE
    first, second, third = [await setting.opened_sink() for _ in range(3)]
    grant = await granted(first)
    assert (await first.renew(grant.epoch, None, b"")).others == 0
    await second.check_lease(is_ready=True)
    assert (await first.renew(grant.epoch, None, b"")).others == 1
    assert (await third.check_lease(is_ready=True)).others == 1
    assert (await first.renew(grant.epoch, None, b"")).others == 2
    assert (await third.check_lease(is_ready=False)).others == 1
    assert (await first.renew(grant.epoch, None, b"")).others == 1
    end = time.monotonic() + 4 * LEASE
    await second.check_lease(is_ready=True)
    await third.check_lease(is_ready=True)
    assert (await first.renew(grant.epoch, None, b"")).others == 2
    while (await first.renew(grant.epoch, None, b"")).others != 1:  # the third goes on, the second does not
        assert time.monotonic() < end, "who said nothing for long still counts as ready"
        await third.check_lease(is_ready=True)
        await asyncio.sleep(0.05)
    while (await first.renew(grant.epoch, None, b"")).others:
        assert time.monotonic() < end, "who said nothing for long still counts as ready"
        await asyncio.sleep(0.05)


# --- the fence -------------------------------------------------------------------------------------------------


async def test_a_deposed_writer_gets_nothing_in(setting: Setting) -> None:
    setting.lease = LEASE
    first, second = await setting.opened_sink(), await setting.opened_sink()
    old = await granted(first)
    await first.append(old.epoch, entries(old, 1, 3))
    new = await granted_in_time(second)
    with pytest.raises(LeaseLostError):
        await first.append(old.epoch, entries(old, 4, 6))
    await second.append(new.epoch, entries(new, 1, 1))
    with pytest.raises(LeaseLostError):
        await first.append(old.epoch, entries(old, 1, 3))
    assert await numbers(second) == [*((old.epoch, number) for number in (1, 2, 3)), (new.epoch, 1)]


async def test_entries_under_way_while_another_one_takes_over_are_in_before_it_or_never(setting: Setting) -> None:
    first, second = await setting.opened_sink(lease=LEASE), await setting.opened_sink()  # which reads all at once
    old = await granted(first)
    seen = []

    async def write() -> None:
        for begin in count(1, 200):
            await first.append(old.epoch, entries(old, begin, begin + 199))

    writing = asyncio.create_task(write())
    new = await granted_in_time(second)
    seen = await numbers(second)
    with pytest.raises(LeaseLostError):
        await writing
    await second.append(new.epoch, entries(new, 1, 1))
    assert await numbers(second) == [*seen, (new.epoch, 1)]
    assert [number for _, number in seen] == list(range(1, len(seen) + 1))


async def test_what_the_engine_gets_late_is_refused(setting: Setting) -> None:
    """What a relay has sent is on its way for so long that another one has taken over when it arrives."""
    setting.lease = LEASE
    async with Line(setting.engine.port) as line:
        first = await setting.opened_sink(url=setting.engine.url.replace(str(setting.engine.port), str(line.port)))
        second = await setting.opened_sink("two")
        old = await granted(first)
        await first.append(old.epoch, entries(old, 1, 1))
        line.hold()
        for work in (
            lambda: first.append(old.epoch, entries(old, 2, 2)),
            lambda: first.renew(old.epoch, 5, b"late"),
            lambda: first.release(old.epoch, 5, b"late"),
        ):
            with pytest.raises(EngineError):
                await work()
        new = await granted_in_time(second)
        await second.append(new.epoch, entries(new, 1, 1))
        await first.close()
        line.release()
        await asyncio.wait_for(line.passed(), 5)
        lease_status = await second.renew(new.epoch, 6, b"new")
        assert (lease_status.holder, lease_status.watermark, lease_status.state) == ("two", 6, b"new")
        await second.append(new.epoch, entries(new, 2, 2))
        assert await numbers(second) == [(old.epoch, 1), (new.epoch, 1), (new.epoch, 2)]


async def test_an_epoch_that_was_never_granted_writes_nothing(setting: Setting) -> None:
    sink = await setting.opened_sink()
    grant = await granted(sink)
    strange = replace_epoch(grant, grant.epoch + 1)
    with pytest.raises(LeaseLostError):
        await sink.append(strange.epoch, entries(strange, 1, 1))
    with pytest.raises(LeaseLostError):
        await sink.renew(strange.epoch, 1, b"")
    assert await numbers(sink) == []


def replace_epoch(grant: Grant, epoch: int) -> Grant:
    return msgspec.structs.replace(grant, epoch=epoch)


# --- entries ---------------------------------------------------------------------------------------------------


async def test_entries_are_in_the_order_in_which_they_were_written(setting: Setting) -> None:
    first, second = await setting.opened_sink(), await setting.opened_sink()
    old = await granted(first)
    for begin in range(1, 1500, 300):
        await first.append(old.epoch, entries(old, begin, begin + 299))
    await first.release(old.epoch, None, b"")
    new = await granted(second)
    await second.append(new.epoch, entries(new, 1, 7))
    assert await second.tail(0) == entries(old, 1, 1500) + entries(new, 1, 7)


async def test_no_entries_are_nothing_to_write(setting: Setting) -> None:
    sink = await setting.opened_sink()
    grant = await granted(sink)
    await sink.append(grant.epoch, [])
    await sink.append(grant.epoch, entries(grant, 1, 1))
    assert await numbers(sink) == [(grant.epoch, 1)]


async def test_a_tail_begins_with_what_was_written_then(setting: Setting) -> None:
    sink = await setting.opened_sink()
    grant = await granted(sink)
    await sink.append(grant.epoch, entries(grant, 1, 3))
    since = (await sink.check_lease(is_ready=False)).clock + 1
    await wait_for_clock(sink, since)
    await sink.append(grant.epoch, entries(grant, 4, 5))  # received long before, as are all of them
    assert [number for _, number in await numbers(sink)] == [1, 2, 3, 4, 5]
    assert [each.number for each in await sink.tail(since)] == [4, 5]
    later = (await sink.check_lease(is_ready=False)).clock + 10_000
    assert await sink.tail(later) == []


async def wait_for_clock(sink: Sink, then: int) -> None:
    end = time.monotonic() + 5
    while (await sink.check_lease(is_ready=False)).clock < then:
        assert time.monotonic() < end, "the engine's clock stands still"
        await asyncio.sleep(0.001)


async def test_what_is_repeated_is_in_once(setting: Setting) -> None:
    sink = await setting.opened_sink()
    grant = await granted(sink)
    await sink.append(grant.epoch, entries(grant, 1, 3))
    await sink.append(grant.epoch, entries(grant, 1, 3))
    await sink.append(grant.epoch, entries(grant, 2, 5))
    await sink.append(grant.epoch, entries(grant, 6, 6))
    assert await sink.tail(0) == entries(grant, 1, 6)


async def test_a_repeat_after_a_lost_answer_is_in_once(setting: Setting) -> None:
    setting.lease = LEASE
    sink = await setting.opened_sink()
    grant = await granted(sink)
    await sink.append(grant.epoch, entries(grant, 1, 2))
    setting.engine.pause()
    with pytest.raises(EngineError):
        await sink.append(grant.epoch, entries(grant, 3, 5))
    setting.engine.resume()
    await sink.append(grant.epoch, entries(grant, 3, 5))
    await sink.append(grant.epoch, entries(grant, 6, 7))
    assert await sink.tail(0) == entries(grant, 1, 7)


async def test_a_hole_in_the_numbers_is_refused(setting: Setting) -> None:
    sink = await setting.opened_sink()
    grant = await granted(sink)
    await sink.append(grant.epoch, entries(grant, 1, 2))
    with pytest.raises(LeaseLostError):
        await sink.append(grant.epoch, entries(grant, 4, 5))
    assert await numbers(sink) == [(grant.epoch, 1), (grant.epoch, 2)]
    new = await granted(sink)
    with pytest.raises(LeaseLostError):
        await sink.append(new.epoch, entries(new, 2, 2))
    await sink.append(new.epoch, entries(new, 1, 1))


async def test_equal_payloads_are_all_in(setting: Setting) -> None:
    sink = await setting.opened_sink()
    grant = await granted(sink)
    same = [entry(grant, number, data=b'{"same":true}') for number in range(1, 21)]
    await sink.append(grant.epoch, same[:10])
    await sink.append(grant.epoch, same[10:])
    assert await sink.tail(0) == same


NAMES = [
    "orders",
    "private-encrypted-orders.1",
    "presence-room;5,@=-_",
    "with space",
    "*",
    ">",
    "a..b",
    ".",
    "a%2Eb",
    "日本語",
    "emoji 🛒",
    "line\nbreak\r\nheader: x",
    "null\x00",
    "-",
    "x" * 200,
]


@pytest.mark.parametrize("name", NAMES)
async def test_names_may_have_any_characters(setting: Setting, name: str) -> None:
    sink = await setting.opened_sink()
    grant = await granted(sink)
    written = [
        entry(grant, 1, channel=name),
        entry(grant, 2, event=name),
        entry(grant, 3, user_id=name),
    ]
    await sink.append(grant.epoch, written)
    assert await sink.tail(0) == written


@pytest.mark.parametrize(
    "data",
    [
        b"null",
        b'""',
        b"{}",
        b"",
        b'{"text":"line\\nbreak \\u0000 \\ud83d\\uded2"}',
        '{"text":"日本語 🛒"}'.encode(),
        b'  {"spaces" :\r\n\t1 }\n',
        b'"' + 100_000 * b"x" + b'"',
        b"not JSON \x00\xff\xfe",
    ],
)
async def test_data_comes_back_as_it_was(setting: Setting, data: bytes) -> None:
    sink = await setting.opened_sink()
    grant = await granted(sink)
    await sink.append(grant.epoch, [entry(grant, 1, data=data)])
    assert [each.data for each in await sink.tail(0)] == [data]


async def test_all_fields_come_back(setting: Setting) -> None:
    sink = await setting.opened_sink()
    grant = await granted(sink)
    written = [
        entry(grant, 1, user_id="7", again=True),
        entry(grant, 2, user_id=""),
        entry(grant, 3, again=True),
        entry(grant, 4, event="reverb:gap", data=b'{"from":null,"to":5,"reason":"test"}'),
        entry(grant, 5, received_at=0, sent_after=0),
        entry(grant, 6, received_at=4_102_444_800_123, sent_after=4_102_444_800_122),
    ]
    await sink.append(grant.epoch, written)
    assert await sink.tail(0) == written
    assert [each.is_gap for each in await sink.tail(0)] == [False, False, False, True, False, False]


async def test_partitions_keep_the_order_of_each_channel(setting: Setting) -> None:
    sink = await setting.opened_sink(partitions=3)
    grant = await granted(sink)
    written = [entry(grant, number, channel=f"channel-{number % 7}") for number in range(1, 101)]
    await sink.append(grant.epoch, written)
    await sink.append(grant.epoch, written)
    assert await sink.tail(0) == written


async def test_renew_and_append_side_by_side(setting: Setting) -> None:
    sink = await setting.opened_sink()
    grant = await granted(sink)

    async def write() -> None:
        for begin in range(1, 2000, 100):
            await sink.append(grant.epoch, entries(grant, begin, begin + 99))

    async def renew() -> None:
        for watermark in range(50):
            lease_status = await sink.renew(grant.epoch, watermark, b"%d" % (watermark // 5))
            assert (lease_status.watermark, lease_status.state) == (watermark, b"%d" % (watermark // 5))

    await asyncio.gather(write(), renew())
    assert await sink.tail(0) == entries(grant, 1, 2000)


# --- an engine that fails --------------------------------------------------------------------------------------


async def test_an_engine_that_is_killed_and_started_again_keeps_all_that_it_took(setting: Setting) -> None:
    first, second = await setting.opened_sink("one", lease=10), await setting.opened_sink(lease=10)
    grant = await granted(first)
    await first.append(grant.epoch, entries(grant, 1, 500))
    await first.renew(grant.epoch, 5, b"state")
    setting.engine.kill()
    with pytest.raises(EngineError):
        await first.append(grant.epoch, entries(grant, 501, 502))
    with pytest.raises(EngineError):
        await second.check_lease(is_ready=True)
    setting.engine.start()
    await append_in_time(first, grant.epoch, entries(grant, 501, 502))
    assert await first.tail(0) == entries(grant, 1, 502)
    lease_status = await first.renew(grant.epoch, 6, b"state")
    assert (lease_status.holder, lease_status.watermark, lease_status.state) == ("one", 6, b"state")
    assert (await second.check_lease(is_ready=True)).state == b"state"


async def append_in_time(sink: Sink, epoch: int, written: list[Entry], deadline: float = 10.0) -> None:
    """Append to an engine that has just been started, as a relay does: again after each failure."""
    end = time.monotonic() + deadline
    while True:
        try:
            return await sink.append(epoch, written)
        except EngineError:
            assert time.monotonic() < end, "the engine did not come back"
            await asyncio.sleep(0.02)


async def test_an_engine_that_is_not_there_is_an_error_in_time(setting: Setting) -> None:
    setting.lease = LEASE
    sink = await setting.opened_sink()
    other = setting.sink()
    grant = await granted(sink)
    setting.engine.kill()
    for work in calls(sink, grant):
        await fails_in_time(work)
    await fails_in_time(other.open)


async def test_an_engine_that_does_not_answer_is_an_error_in_time(setting: Setting) -> None:
    sink = await setting.opened_sink(lease=2 * LEASE)
    other = setting.sink(lease=2 * LEASE)
    grant = await granted(sink)
    setting.engine.pause()
    for work in calls(sink, grant):
        await fails_in_time(work, 2 * LEASE)
    await fails_in_time(other.open, 2 * LEASE)
    began = time.monotonic()
    await sink.close()
    assert time.monotonic() - began < 2 * LEASE


def calls(sink: Sink, grant: Grant) -> list[Callable[[], Any]]:
    return [
        lambda: sink.check_lease(is_ready=True),
        sink.acquire,
        lambda: sink.renew(grant.epoch, 1, b""),
        lambda: sink.tail(0),
        lambda: sink.append(grant.epoch, entries(grant, 1, 1)),
        lambda: sink.release(grant.epoch, 1, b""),
    ]


async def fails_in_time(work: Callable[[], Any], lease: float = LEASE) -> None:
    """Half a lease is what it may take; the machine may be busy, though."""
    began = time.monotonic()
    with pytest.raises(EngineError):
        await work()
    assert time.monotonic() - began < 0.9 * lease


@pytest.mark.parametrize("name", list(ENGINES))
async def test_a_wrong_password_is_a_mistake_in_the_settings(tmp_path: Path, name: str) -> None:
    make, make_sink = ENGINES[name]
    with make(tmp_path, password="right-word") as engine:
        sink = make_sink(engine.url.replace("right-word", SECRET), relay="one", lease=10.0)
        error = await raised(ConfigurationError, sink.open)
        assert SECRET not in sink.address
        assert sink.address in str(error)
        assert "password" in str(error)
        await sink.close()
        sink = make_sink(engine.url, relay="one", lease=10.0)
        assert "right-word" not in sink.address
        await sink.open()
        assert await sink.acquire() is not None
        await sink.close()


async def test_an_engine_is_used_again_when_it_answers_again(setting: Setting) -> None:
    setting.lease = LEASE
    sink = await setting.opened_sink("one")
    grant = await granted(sink)
    setting.engine.pause()
    for work in calls(sink, grant)[:-1]:
        with pytest.raises(EngineError):
            await work()
    setting.engine.resume()
    grant = await granted_in_time(sink)
    await sink.append(grant.epoch, entries(grant, 1, 1))
    lease_status = await sink.renew(grant.epoch, 9, b"after")
    assert (lease_status.holder, lease_status.watermark, lease_status.state) == ("one", 9, b"after")
    assert (await numbers(sink))[-1] == (grant.epoch, 1)


async def test_closing_does_not_need_an_engine(setting: Setting) -> None:
    sink = await setting.opened_sink()
    setting.engine.kill()
    await sink.close()
    await sink.close()


async def test_a_cancelled_call_does_not_disturb_later_ones(setting: Setting) -> None:
    sink = await setting.opened_sink("one")
    grant = await granted(sink)
    written: list[Entry] = []
    for number in turns():
        following = entries(grant, len(written) + 1, len(written) + 10)
        for work in (
            lambda: sink.renew(grant.epoch, 5, b"state"),
            lambda: sink.check_lease(is_ready=True),
            partial(sink.append, grant.epoch, following),
            lambda: sink.tail(0),
        ):
            task = asyncio.ensure_future(work())
            await wait_turns(number)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled() or task.exception() is None
        has_ended = not task.cancelled()
        await sink.append(grant.epoch, following)
        written += following
        lease_status = await sink.renew(grant.epoch, number, b"%d" % number)
        assert (lease_status.holder, lease_status.watermark, lease_status.state) == ("one", number, b"%d" % number)
        if has_ended or number > 40:
            break
    assert await sink.tail(0) == written


async def test_opening_may_be_cancelled_anywhere(setting: Setting) -> None:
    for number in turns():
        sink = setting.sink()
        opening = asyncio.ensure_future(sink.open())
        await wait_turns(number)
        opening.cancel()
        await asyncio.wait({opening})
        was_cancelled = opening.cancelled()
        assert was_cancelled or opening.exception() is None
        await sink.close()
        await wait_turns(1)
        assert not client_tasks()
        if not was_cancelled:
            break
