"""Events as an async iterator: what is collected, what waits, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from time import monotonic
from typing import Any

import msgspec
import pytest

from reverb import (
    Channel,
    ConnectionError,
    Event,
    Events,
    EventStream,
    Gap,
    PayloadError,
    ReverbClient,
    TimeoutError,
)
from reverb.bindable import queue_of
from reverb.server import ReverbServer

from .loops import every_loop
from .scripted import Peer, ScriptedServer
from .test_client import confirm_all, connected, make_client
from .test_dispatch import Recorder
from .watching import until, wait_turns


class Item(msgspec.Struct):
    id: int


@pytest.fixture
async def channel(reverb_client: ReverbClient) -> Channel:
    return await reverb_client.subscribe("stock")


async def take(stream: EventStream[Any], count: int) -> list[Any]:
    async def collect() -> list[Any]:
        items: list[Any] = []
        while len(items) < count:
            items.append(await anext(stream))
        return items

    return await asyncio.wait_for(collect(), 5)


async def rest(stream: EventStream[Any]) -> list[Any]:
    async def collect() -> list[Any]:
        return [item async for item in stream]

    return await asyncio.wait_for(collect(), 5)


async def test_an_event_says_all_that_is_known(channel: Channel, reverb_server: ReverbServer) -> None:
    stream = channel.events("item.*", "other")
    for name in ("item.updated", "unwanted", "other"):
        await reverb_server.publish("stock", name, {"id": 7})
    first, second = await take(stream, 2)
    assert isinstance(first, Event)
    assert (first.name, first.data, first.channel, first.user_id) == ("item.updated", {"id": 7}, "stock", None)
    assert timedelta() <= datetime.now(timezone.utc) - first.received_at < timedelta(seconds=60)
    assert second.name == "other"


async def test_without_names_it_is_over_what_applications_send(
    reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    everything = reverb_client.events()
    await reverb_client.subscribe("stock")
    reverb_server.drop()
    await reverb_server.wait_for_subscription("stock")
    await reverb_server.publish("stock", "a", 1)
    assert [event.name for event in await take(everything, 1)] == ["a"]


async def test_one_event_that_fits_two_names_comes_once(channel: Channel, reverb_server: ReverbServer) -> None:
    stream = channel.events("item.*", "*.updated")
    for number in range(3):
        await reverb_server.publish("stock", "item.updated", number)
    assert [event.data for event in await take(stream, 3)] == [0, 1, 2]


async def test_typed_events_and_what_does_not_fit(
    channel: Channel, reverb_server: ReverbServer, caplog: pytest.LogCaptureFixture
) -> None:
    stream, errors = channel.events("item.updated", type=Item), Recorder()
    channel.bind("error", errors)
    for number in ("1", 2):
        await reverb_server.publish("stock", "item.updated", {"id": number})
    assert [event.data for event in await take(stream, 1)] == [Item(2)]
    assert isinstance(errors.calls[0][1]["exception"], PayloadError)
    (message,) = (record.message for record in caplog.records if record.levelname == "ERROR")
    assert message.startswith("events() and wait_for() skip an event: 'item.updated' on stock does not fit Item: ")


async def test_unbinding_the_handlers_of_an_event_leaves_streams_alone(
    channel: Channel, reverb_server: ReverbServer
) -> None:
    handler, stream = Recorder(), channel.events("e", include_gaps=True)
    channel.bind("e", handler).unbind("e").unbind(Events.RESUBSCRIBED)
    reverb_server.drop()
    await reverb_server.wait_for_subscription("stock")
    await reverb_server.publish("stock", "e", 1)
    gap, event = await take(stream, 2)
    assert (type(gap), event.data) == (Gap, 1)
    assert handler.calls == []


# --- leaving ---------------------------------------------------------------------------------------------------


async def test_leaving_the_loop_leaves_nothing_bound(channel: Channel, reverb_server: ReverbServer) -> None:
    await reverb_server.publish("stock", "e", 1)

    async def leave_by_break() -> None:
        async for _ in channel.events("e"):
            break

    async def leave_by_return() -> Event[Any] | None:
        async for event in channel.events("e"):
            return event
        return None

    async def leave_by_error() -> None:
        async for _ in channel.events("e"):
            raise ValueError

    async def leave_by_closing() -> None:
        stream = channel.events("e")
        await take(stream, 1)
        await stream.aclose()
        assert not queue_of(channel).is_bound
        assert await rest(stream) == []

    async def leave_by_context() -> None:
        async with channel.events("e") as stream:
            await take(stream, 1)
        assert await rest(stream) == []

    for leave in (leave_by_break, leave_by_return, leave_by_error, leave_by_closing, leave_by_context):
        leaving = asyncio.ensure_future(leave())
        await asyncio.sleep(0)
        await reverb_server.publish("stock", "e", 2)
        await asyncio.wait({leaving}, timeout=5)
        assert isinstance(leaving.exception(), ValueError) == (leave is leave_by_error)
        del leaving  # with its traceback
        gc.collect()  # where there is no counting of references
        assert not queue_of(channel).is_bound, leave


async def test_a_cancelled_loop_leaves_nothing_bound(channel: Channel) -> None:
    async def loop() -> None:
        async for _ in channel.events("e"):
            pass

    task = asyncio.ensure_future(loop())
    await until(lambda: queue_of(channel).is_bound)
    task.cancel()
    await asyncio.wait({task})
    del task
    gc.collect()
    assert not queue_of(channel).is_bound


# --- bounds ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def small(reverb_server: ReverbServer) -> AsyncIterator[ReverbClient]:
    """A client that stops reading soon."""
    async with ReverbClient(
        **{**reverb_server.settings, "max_pending_bytes": 20 * 512, "drain_timeout": 0.5}
    ) as client:
        yield client


async def test_a_slow_loop_loses_nothing_and_bounds_what_waits(
    small: ReverbClient, reverb_server: ReverbServer, caplog: pytest.LogCaptureFixture
) -> None:
    channel = await small.subscribe("stock")
    stream, before = channel.events(buffer=5), small.stats.delivered
    for number in range(3000):
        await reverb_server.publish("stock", "e", number)
    await until(lambda: "stops reading" in caplog.text)
    assert small.stats.delivered == before + 5
    assert [event.data for event in await take(stream, 3000)] == list(range(3000))


async def test_a_full_stream_delays_its_channel_only(small: ReverbClient, reverb_server: ReverbServer) -> None:
    stock, other = await asyncio.gather(small.subscribe("stock"), small.subscribe("other"))
    calls = Recorder()
    other.bind("e", calls)
    stream = stock.events(buffer=1)
    for number in range(5):
        await reverb_server.publish("stock", "e", number)
    for number in range(5):
        await reverb_server.publish("other", "e", number)
    await calls.wait_for(5)
    assert small.stats.queued == 4
    await small.subscribe("third")  # the connection lives
    assert [event.data for event in await take(stream, 5)] == list(range(5))


async def test_a_stream_of_all_channels_keeps_the_order_of_each(
    small: ReverbClient, reverb_server: ReverbServer
) -> None:
    stream = small.events("e", buffer=2)
    names = [f"c{number}" for number in range(5)]
    await asyncio.gather(*(small.subscribe(name) for name in names))
    for number in range(50):
        await reverb_server.publish(names, "e", number)
    events = await take(stream, 250)
    for name in names:
        assert [event.data for event in events if event.channel == name] == list(range(50))


async def test_a_stream_needs_room(channel: Channel) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        channel.events(buffer=0)
    assert not queue_of(channel).is_bound


# --- the end ---------------------------------------------------------------------------------------------------


async def test_it_ends_when_the_channel_is_left(
    channel: Channel, reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    stream, everything = channel.events(), reverb_client.events()
    other, arrived = await reverb_client.subscribe("other"), Recorder()
    channel.bind("e", arrived)
    await reverb_server.publish("stock", "e", 1)
    await arrived.wait_for(1)
    await reverb_client.unsubscribe("stock")
    assert [event.data for event in await rest(stream)] == [1]
    assert await rest(channel.events()) == []  # as does one that begins too late
    assert [event.data for event in await take(everything, 1)] == [1]
    await reverb_server.publish(other.name, "e", 2)
    assert [event.data for event in await take(everything, 1)] == [2]


async def test_it_ends_behind_the_last_event_when_the_client_disconnects(
    small: ReverbClient, reverb_server: ReverbServer
) -> None:
    channel = await small.subscribe("stock")
    last = Recorder()
    (await small.subscribe("other")).bind("e", last)
    stream = channel.events(buffer=2)
    for number in range(10):
        await reverb_server.publish("stock", "e", number)
    await reverb_server.publish("other", "e")
    await last.wait_for(1)
    waiting = asyncio.ensure_future(rest(stream))
    await small.disconnect()
    assert [event.data for event in await waiting] == list(range(10))
    assert not queue_of(channel).is_bound


async def test_disconnecting_within_the_loop(small: ReverbClient, reverb_server: ReverbServer) -> None:
    channel = await small.subscribe("stock")
    stream = channel.events(buffer=1)
    for number in range(10):
        await reverb_server.publish("stock", "e", number)
    await until(lambda: len(queue_of(channel)) >= 8)
    seen = []
    async for event in stream:
        seen.append(event.data)
        if event.data == 0:
            await asyncio.wait_for(small.disconnect(), 5)
    assert seen == list(range(10))


async def test_it_raises_what_ended_the_connection_for_good() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        await go_on.wait()
        for number in range(5):
            await peer.send("e", str(number), "news")
        await peer.close(4001)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        news = await client.subscribe("news")
        streams: list[EventStream[Any]] = [news.events(buffer=2), client.events(buffer=2)]
        go_on.set()
        with pytest.raises(ConnectionError) as caught:
            await asyncio.wait_for(client.listen(), 5)
        for stream in streams:
            assert [event.data for event in await take(stream, 5)] == list(range(5))
            with pytest.raises(ConnectionError) as failed:
                await take(stream, 1)
            assert str(failed.value) == str(caught.value)
            assert failed.value.code == 4001
            with pytest.raises(ConnectionError):  # whoever else asks
                await take(stream, 1)
        with pytest.raises(ConnectionError):
            await take(client.events(), 1)  # one that begins too late


async def test_what_comes_over_another_connection_is_not_for_a_stream_that_has_ended(
    small: ReverbClient, reverb_server: ReverbServer
) -> None:
    stock, arrived = await small.subscribe("stock"), Recorder()
    ended = small.events("e")
    small.bind("e", arrived, once=True)
    await reverb_server.publish(stock.name, "e", 1)
    await arrived.wait_for(1)
    await small.disconnect()
    waiting = small.events("e")
    await small.connect()
    for number in range(2, 50):
        await reverb_server.publish("stock", "e", number)
    assert [event.data for event in await take(waiting, 48)] == list(range(2, 50))
    assert [event.data for event in await rest(ended)] == [1]


async def test_a_stream_may_begin_before_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        await peer.send("e", "1", "news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        client = make_client(server)
        stream = client.events()
        async with client:
            await client.subscribe("news")
            assert [event.data for event in await take(stream, 1)] == [1]


# --- several consumers, cancelled ones, and none any more ------------------------------------------------------


@every_loop
async def test_two_consumers_share_the_events_and_the_end(
    reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    channel = await reverb_client.subscribe("stock")
    stream = channel.events(buffer=3)
    consumers, arrived = [asyncio.ensure_future(rest(stream)) for _ in range(2)], Recorder()
    channel.bind("e", arrived)
    for number in range(50):
        await reverb_server.publish("stock", "e", number)
    await arrived.wait_for(50)
    await reverb_client.unsubscribe("stock")
    first, second = await asyncio.gather(*consumers)
    assert sorted(event.data for event in first + second) == list(range(50))
    for events in (first, second):
        assert [event.data for event in events] == sorted(event.data for event in events)


@every_loop
async def test_a_consumer_that_is_cancelled_at_any_turn_takes_nothing_along(
    reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    channel = await reverb_client.subscribe("stock")
    stream, taken = channel.events(buffer=2), list[int]()
    for number in range(30):
        taking = asyncio.ensure_future(anext(stream))
        if number % 2:
            await reverb_server.publish("stock", "e", number)
        await wait_turns(number // 4)
        taking.cancel()
        with suppress(asyncio.CancelledError):
            taken.append((await taking).data)
    await reverb_server.publish("stock", "e", "last")
    while (event := (await take(stream, 1))[0]).data != "last":
        taken.append(event.data)
    assert taken == list(range(1, 30, 2))


@every_loop
async def test_wait_for_leaves_nothing_bound_wherever_it_is_cancelled(
    reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    channel = await reverb_client.subscribe("stock")
    for number in range(5):
        waiting = [asyncio.ensure_future(each.wait_for("e")) for each in (channel, reverb_client)]
        await wait_turns(number)
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)
        assert all(each.cancelled() for each in waiting)
        assert not queue_of(channel).is_bound
        assert not queue_of(reverb_client).is_bound
    waiting = [asyncio.ensure_future(channel.wait_for("e", timeout=5)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await reverb_server.publish("stock", "e", 1)
    assert (await waiting[1]).data == 1


@every_loop
async def test_a_stream_that_is_collected_in_another_thread_is_closed_in_that_of_the_loop(
    reverb_client: ReverbClient,
) -> None:
    channel = await reverb_client.subscribe("stock")
    streams: list[EventStream[Any]] = [channel.events(), reverb_client.events()]
    await asyncio.to_thread(streams.clear)
    await until(lambda: not queue_of(channel).is_bound and not queue_of(reverb_client).is_bound)


def test_a_stream_that_is_collected_after_its_loop_was_closed_keeps_nobody_waiting() -> None:
    left: list[EventStream[Any]] = []

    async def first() -> ReverbClient:
        async with ScriptedServer(confirm_all) as server, make_client(server) as client:
            await client.subscribe("news")
        left.append(client.events(buffer=1))  # for the next connection
        return client

    client = asyncio.run(first())
    left.clear()
    gc.collect()
    assert not queue_of(client).is_bound  # else it would stop the next connection once it is full


async def test_lanes_that_have_waited_for_room_are_forgotten(
    reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    stream = reverb_client.events("e", buffer=1)
    await reverb_client.subscribe("stock")
    for number in range(500):
        await reverb_server.publish("stock", "e", number)
    assert len(await take(stream, 500)) == 500
    assert sum(type(each) is asyncio.Future for each in gc.get_objects()) < 200


# --- where nothing can ever come -------------------------------------------------------------------------------


@every_loop
async def test_who_is_not_connected_is_told_so() -> None:
    async with ScriptedServer(confirm_all) as server:
        client = make_client(server)
        for waiting in (anext(client.events()), client.wait_for("e"), client.wait_for("e", timeout=60)):
            with pytest.raises(ConnectionError, match="call connect"):
                await asyncio.wait_for(waiting, 5)
        async with client:
            news = await client.subscribe("news")
        for waiting in (anext(client.events()), anext(news.events()), news.wait_for("e")):
            with pytest.raises(ConnectionError, match="disconnected"):
                await asyncio.wait_for(waiting, 5)
        del waiting
        gc.collect()
        assert not queue_of(client).is_bound
        assert not queue_of(news).is_bound


@every_loop
async def test_a_handler_does_not_wait_for_an_event_that_waits_for_it(
    reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    stock, other = await asyncio.gather(*(reverb_client.subscribe(name) for name in ("stock", "other")))
    told, got = Recorder(), Recorder()

    async def wait_here(event: str, data: Any, channel: str | None) -> None:
        for waiting in (anext(stock.events()), stock.wait_for("e")):
            try:
                await waiting
            except RuntimeError as error:
                told(str(error), None, channel)

    async def wait_elsewhere(event: str, data: Any, channel: str | None) -> None:
        got("waited", (await other.wait_for("f", timeout=5)).data, channel)

    stock.bind("e", wait_here).bind("e", wait_elsewhere)
    await reverb_server.publish("stock", "e", 1)
    await told.wait_for(2)
    assert all("comes after this handler has ended" in message for message, _, _ in told.calls)
    await until(lambda: queue_of(other).is_bound)
    await reverb_server.publish("other", "f", 2)
    assert (await got.wait_for(1))[0][1] == 2


@every_loop
async def test_a_failure_is_raised_to_each_and_gathers_no_traceback() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.close(4001)
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        client = make_client(server)
        stream = client.events()
        lengths: dict[Any, set[int]] = {}
        with suppress(ConnectionError):
            await client.connect()
            await client.listen()
        for _ in range(1000):
            for ask in (client.listen, client.wait_connected, stream.__anext__):
                with pytest.raises(ConnectionError) as caught:
                    await ask()
                lengths.setdefault(ask, set()).add(len(traceback.extract_tb(caught.value.__traceback__)))
        assert [len(each) for each in lengths.values()] == [1, 1, 1]


# --- what was dropped ------------------------------------------------------------------------------------------


@every_loop
async def test_a_loop_is_told_of_what_was_dropped_in_its_place(
    reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    channel = await reverb_client.subscribe("stock", max_pending=3)
    stream, heard, arrived = channel.events("e", include_gaps=True, buffer=1), Recorder(), Recorder()
    channel.bind(Events.EVENTS_DROPPED, heard)
    other = (await reverb_client.subscribe("other")).bind("e", arrived)
    for number in range(20):
        await reverb_server.publish("stock", "e", number)
    await reverb_server.publish(other.name, "e", None)
    await arrived.wait_for(1)
    stats = reverb_client.stats
    assert stats.dropped == 16  # one is in the buffer, three wait
    assert stats.queued == 4  # and the word of the gap
    first, gap, *others = await take(stream, 5)
    assert first.data == 0
    assert gap == Gap("stock", 0.0, dropped=16)
    assert [event.data for event in others] == [17, 18, 19]
    await until(lambda: reverb_client.stats.queued == 0)
    assert heard.calls == [(Events.EVENTS_DROPPED, {"count": 16}, "stock")]
    await reverb_client.unsubscribe("stock")
    stats = reverb_client.stats
    ended = stats.delivered + stats.queued + stats.unbound + stats.discarded + stats.dropped
    no_events = 1  # the greeting is an event of the client's queue; two confirmations are events of channels
    ours = 1 + 2  # the word of the gap; the client's own: connecting, connected
    assert ended == stats.received + ours, (stats, no_events)


async def test_max_pending_needs_room_and_the_last_one_counts(
    reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    for most in (0, -1):
        with pytest.raises(ValueError, match="max_pending"):
            await reverb_client.subscribe("stock", max_pending=most)
    assert "stock" not in reverb_client.channels
    channel = await reverb_client.subscribe("stock", max_pending=10)
    assert await reverb_client.subscribe("stock") is channel
    assert queue_of(channel).max_pending == 10
    assert await reverb_client.subscribe("stock", max_pending=2) is channel
    assert queue_of(channel).max_pending == 2


# --- reconnects ------------------------------------------------------------------------------------------------


async def test_the_gap_stands_where_events_may_be_missing() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        for _ in range(2):
            message = await peer.expect("pusher:subscribe")
            name = message["data"]["channel"]
            await peer.confirm(name)
            await peer.send("e", str(peer.number), name)
        if peer.number < 3:
            await peer.eof()
        else:
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        client = make_client(server)
        everything = client.events("e", include_gaps=True, buffer=1)
        async with client:
            await asyncio.gather(client.subscribe("a"), client.subscribe("b"))
            a = await take(everything, 10)
            for name in ("a", "b"):
                mine = [each for each in a if each.channel == name]
                assert [isinstance(each, Gap) or each.data for each in mine] == [1, True, 2, True, 3]
                assert all(0 < each.downtime < 5 for each in mine if isinstance(each, Gap))


async def test_a_handler_can_be_told_of_the_gap() -> None:
    async with ScriptedServer(confirm_all) as server, connected(server) as client:
        news, told = await client.subscribe("news"), Recorder()
        news.bind(Events.RESUBSCRIBED, told)
        await client.disconnect()
        await client.connect()
        ((event, data, channel),) = await told.wait_for(1)
        assert (event, channel) == (Events.RESUBSCRIBED, "news")
        assert 0 < data["downtime"] < 5


async def test_a_time_limit_holds_at_the_end_of_a_stream_too(reverb_server: ReverbServer) -> None:
    """What may still be on its way is waited for, but not for longer than was asked."""
    hanging = asyncio.Event()

    async def hang(*_: Any) -> None:
        hanging.set()
        await asyncio.Event().wait()

    settings: Any = {**reverb_server.settings, "drain_timeout": 1.0}
    async with ReverbClient(**settings) as client:
        news = await client.subscribe("news")
        news.bind("hang", hang)
        waiting = asyncio.ensure_future(news.wait_for("never", timeout=0.3))
        await reverb_server.publish("news", "hang", {})
        await hanging.wait()
        began = monotonic()
        disconnecting = asyncio.ensure_future(client.disconnect())
        with pytest.raises(TimeoutError, match=r"no 'never' on .* within 0\.3 seconds"):
            await waiting
        assert monotonic() - began < 0.9
        await disconnecting


def test_a_stream_is_for_the_event_loop_of_its_client(reverb_server: ReverbServer) -> None:
    async def main() -> None:
        async with ReverbClient(**reverb_server.settings) as client:
            news = await client.subscribe("news")
            with pytest.raises(RuntimeError, match="another event loop"):
                await asyncio.to_thread(lambda: asyncio.run(news.wait_for("e")))

    asyncio.run(main())
