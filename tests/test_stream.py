"""Events as an async iterator: what is collected, what waits, and how it ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from reverb import Channel, ConnectionError, Event, Events, EventStream, Gap, PayloadError, ReverbClient
from reverb.server import ReverbServer

from .scripted import Peer, ScriptedServer
from .test_client import confirm_all, connected, make_client
from .test_dispatch import Recorder
from .watching import until


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


async def test_typed_events_and_what_does_not_fit(channel: Channel, reverb_server: ReverbServer) -> None:
    stream, errors = channel.events("item.updated", type=Item), Recorder()
    channel.bind("error", errors)
    for number in ("1", 2):
        await reverb_server.publish("stock", "item.updated", {"id": number})
    assert [event.data for event in await take(stream, 1)] == [Item(2)]
    assert isinstance(errors.calls[0][1]["exception"], PayloadError)


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
        assert not channel._lane.is_bound
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
        assert not channel._lane.is_bound, leave


async def test_a_cancelled_loop_leaves_nothing_bound(channel: Channel) -> None:
    async def loop() -> None:
        async for _ in channel.events("e"):
            pass

    task = asyncio.ensure_future(loop())
    await until(lambda: channel._lane.is_bound)
    task.cancel()
    await asyncio.wait({task})
    del task
    gc.collect()
    assert not channel._lane.is_bound


# --- bounds ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def small(reverb_server: ReverbServer) -> AsyncIterator[ReverbClient]:
    """A client that stops reading soon."""
    async with ReverbClient(
        **{**reverb_server.settings, "max_pending_events": 20, "drain_timeout": 0.5}
    ) as client:
        yield client


async def test_a_slow_loop_loses_nothing_and_bounds_what_waits(
    small: ReverbClient, reverb_server: ReverbServer
) -> None:
    channel = await small.subscribe("stock")
    stream = channel.events(buffer=5)
    for number in range(3000):
        await reverb_server.publish("stock", "e", number)
    await until(lambda: small._dispatcher.is_full)
    assert len(stream._buffer.items) == 5
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
    assert len(stream._buffer.items) == 1
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
    with pytest.raises(ValueError, match="room"):
        channel.events(buffer=0)
    assert not channel._lane.is_bound


# --- the end ---------------------------------------------------------------------------------------------------


async def test_it_ends_when_the_channel_is_left(
    channel: Channel, reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    stream, everything = channel.events(), reverb_client.events()
    await reverb_server.publish("stock", "e", 1)
    await until(lambda: stream._buffer.items)
    await reverb_client.unsubscribe("stock")
    assert [event.data for event in await rest(stream)] == [1]
    assert await rest(channel.events()) == []  # as does one that begins too late
    assert [event.data for event in await take(everything, 1)] == [1]
    assert not everything._buffer.has_end


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
    assert not channel._lane.is_bound


async def test_disconnecting_within_the_loop(small: ReverbClient, reverb_server: ReverbServer) -> None:
    channel = await small.subscribe("stock")
    stream = channel.events(buffer=1)
    for number in range(10):
        await reverb_server.publish("stock", "e", number)
    await until(lambda: len(channel._lane) >= 8)
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
            assert failed.value is caught.value
        with pytest.raises(ConnectionError):
            await take(client.events(), 1)  # one that begins too late


async def test_what_comes_over_another_connection_is_not_for_a_stream_that_has_ended(
    small: ReverbClient, reverb_server: ReverbServer
) -> None:
    await small.subscribe("stock")
    ended = small.events("e")
    await reverb_server.publish("stock", "e", 1)
    await until(lambda: ended._buffer.items)
    await small.disconnect()
    waiting = small.events("e")
    await small.connect()
    for number in range(2, 50):
        await reverb_server.publish("stock", "e", number)
    assert [event.data for event in await take(waiting, 48)] == list(range(2, 50))
    assert len(ended._buffer.items) == 1
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
