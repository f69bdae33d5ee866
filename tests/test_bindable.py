"""The ways to get events, on a channel of a real server; streams have a file of their own."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from reverb import Channel, ConnectionError, Event, Events, PayloadError, ReverbClient, TimeoutError
from reverb.bindable import queue_of
from reverb.server import ReverbServer

from .scripted import Peer, ScriptedServer
from .test_client import make_client
from .test_dispatch import Recorder
from .watching import until

if TYPE_CHECKING:
    from elsewhere import NotThere  # type: ignore[import-not-found]

ROOM = {"presence": {"count": 1, "ids": ["7"], "hash": {"7": {}}}}


class Item(msgspec.Struct):
    id: int


@pytest.fixture
async def channel(reverb_client: ReverbClient) -> Channel:
    return await reverb_client.subscribe("stock")


async def last_event(channel: Channel, server: ReverbServer) -> None:
    """Wait until everything published so far is delivered."""
    waiting = asyncio.ensure_future(channel.wait_for("last", timeout=5))
    await asyncio.sleep(0)
    await server.publish("stock", "last", {})
    await waiting


async def test_decorators_bind_and_leave_the_function_as_it_is(
    channel: Channel, reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    calls: list[str] = []

    def shipped(event: str, data: Any, channel: str | None) -> None:
        calls.append(f"shipped {data}")

    assert channel.on("order.shipped")(shipped) is shipped

    @reverb_client.on("order.*")
    async def anything(event: str, data: Any, channel: str | None) -> None:
        calls.append(f"{channel} {event}")

    @channel.on("order.*", once=True)
    def first(event: str, data: Any, channel: str | None) -> None:
        calls.append("first")

    await reverb_server.publish("stock", "order.shipped", 1)
    await reverb_server.publish("stock", "order.lost", 2)
    await last_event(channel, reverb_server)
    assert calls == ["shipped 1", "first", "stock order.shipped", "stock order.lost"]


async def test_a_typed_handler_gets_its_type_and_the_others_json(
    channel: Channel, reverb_server: ReverbServer
) -> None:
    typed, found, json, loose = Recorder(), Recorder(), Recorder(), Recorder()

    async def annotated(event: str, data: Item, channel: str | None) -> None:
        found(event, data, channel)

    channel.bind("item.updated", typed, type=Item).bind("item.updated", annotated)
    channel.bind("item.updated", json).bind("item.updated", loose, type=Any)
    await reverb_server.publish("stock", "item.updated", {"id": 7})
    assert await found.wait_for(1) == [("item.updated", Item(7), "stock")]
    assert typed.calls == found.calls
    assert (await json.wait_for(1))[0][1] == {"id": 7}
    assert (await loose.wait_for(1))[0][1] == {"id": 7}


@pytest.mark.parametrize("is_async", [False, True])
async def test_data_that_does_not_fit_is_reported_and_the_stream_goes_on(
    channel: Channel, reverb_server: ReverbServer, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    items, errors = Recorder(), Recorder()

    async def later(event: str, data: Item, channel: str | None) -> None:
        items(event, data, channel)

    channel.bind("item.updated", later if is_async else items, type=Item).bind("error", errors)
    await reverb_server.publish("stock", "item.updated", {"id": "7"})
    await reverb_server.publish("stock", "item.updated", {"id": 8})
    assert (await items.wait_for(1)) == [("item.updated", Item(8), "stock")]
    ((event, data, name),) = await errors.wait_for(1)
    assert (event, name) == (Events.CLIENT_ERROR, "stock")
    error = data["exception"]
    assert isinstance(error, PayloadError)
    assert error.path == "$.id"
    assert str(error) == "'item.updated' on stock does not fit Item: Expected `int`, got `str` at $.id"
    assert data["message"] == str(error)
    (record,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert record.exc_info is None  # nothing of the program's is to blame


async def test_a_client_event_fits_its_type_and_says_who_sent_it(
    reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    alice = await reverb_client.subscribe("presence-room", {"user_id": "alice"})
    seen: list[Any] = []

    @alice.on("client-item", type=Item)
    def on_item(event: str, data: Item, channel: str | None, *, user_id: str | None) -> None:
        seen.append((data, user_id))

    async with ReverbClient(**reverb_server.settings) as bob_client:
        bob = await bob_client.subscribe("presence-room", {"user_id": "bob"})
        await bob.trigger("item", {"id": 7})
        await until(lambda: seen)
    assert seen == [(Item(7), "bob")]


async def test_a_type_that_nothing_fits_is_refused_when_it_is_bound(channel: Channel) -> None:
    with pytest.raises(TypeError, match="Recorder"):
        channel.bind("item.updated", print, type=Recorder)


async def test_handlers_of_an_event_share_its_data_and_types_have_their_own(
    channel: Channel, reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    seen: list[Any] = []

    def change(event: str, data: Any, channel: str | None) -> None:
        data["id"] = 8
        seen.append(data)

    async def look(event: str, data: Any, channel: str | None) -> None:
        seen.append(data)

    channel.bind("e", change).bind("e", look)
    channel.bind("e", lambda event, data, channel: seen.append(data), type=Item)
    stream = channel.events("e")
    reverb_client.bind("e", look)
    await reverb_server.publish("stock", "e", {"id": 7})
    await until(lambda: len(seen) == 4)
    changed, second, typed, last = seen
    assert changed == {"id": 8}
    assert typed == Item(7)
    assert second is last is changed is (await anext(stream)).data


async def test_an_event_of_the_application_that_is_called_error(
    channel: Channel, reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    """It reaches the handlers of what goes wrong, too, and each kind can be had alone."""

    def fail(event: str, data: Any, channel: str | None) -> None:
        raise LookupError

    everything, ours, failures, servers, loop = Recorder(), Recorder(), Recorder(), Recorder(), channel.events()
    channel.bind("e", fail).bind("error", everything).bind("[e]rror", ours)
    channel.bind(Events.CLIENT_ERROR, failures)
    reverb_client.bind(Events.ERROR, servers)
    await reverb_server.publish("stock", "error", {"id": 7})
    await reverb_server.publish("stock", "e")
    reverb_server.send_raw('{"event":"pusher:error","data":{"code":null,"message":"no"}}')
    await servers.wait_for(1)
    await everything.wait_for(2)
    assert everything.events == ["error", Events.CLIENT_ERROR]
    assert ours.calls == [("error", {"id": 7}, "stock")]
    assert failures.events == [Events.CLIENT_ERROR]
    assert [(await anext(loop)).name for _ in range(2)] == ["error", "e"]


async def test_a_decorator_without_its_event(channel: Channel, reverb_client: ReverbClient) -> None:
    for each in (reverb_client, channel, reverb_client.user):
        on: Any = each.on
        with pytest.raises(TypeError, match=r'must be a string, not function; .*@on\("order.shipped"\)'):

            @on  # type: ignore[untyped-decorator]
            def handler(event: str, data: Any, channel: str | None) -> None: ...


async def test_mistakes_are_told_where_they_are_made(
    channel: Channel, reverb_client: ReverbClient, caplog: pytest.LogCaptureFixture
) -> None:
    bindable: Any
    for bindable in (reverb_client, channel, reverb_client.user):
        with pytest.raises(TypeError, match="too many positional arguments"):
            bindable.bind("e", lambda data: print(data))
        with pytest.raises(TypeError, match="must be callable, not str"):
            bindable.bind(lambda event, data, channel: None, "e")
        with pytest.raises(TypeError, match="must be a string, not NoneType"):
            bindable.events("a", None)
        with pytest.raises(TypeError, match="must be a string, not function"):
            bindable.unbind(lambda *_: None)
        bindable.bind(".order.shipped", Recorder())
        bindable.events("App.Events.OrderShipped")
    assert len([record for record in caplog.records if "Laravel sends" in record.message]) == 6


async def test_an_annotation_that_can_not_be_used_is_a_hint(channel: Channel, reverb_server: ReverbServer) -> None:
    seen: list[Any] = []

    @channel.on("item.updated")
    def on_item(event: str, data: NotThere, channel: str | None) -> None:
        seen.append(data)

    await reverb_server.publish("stock", "item.updated", {"id": 7})
    await until(lambda: seen)
    assert seen == [{"id": 7}]


@pytest.mark.parametrize("alone", [True, False])
async def test_a_plain_handler_that_looks_at_something_cancelled_stops_nothing(
    channel: Channel, reverb_client: ReverbClient, reverb_server: ReverbServer, alone: bool
) -> None:
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    errors, calls, socket_id = Recorder(), Recorder(), reverb_client.socket_id
    channel.bind("e", lambda *_: cancelled.result()).bind("error", errors)
    if not alone:
        channel.bind("e", calls)
    for number in range(3):  # the first one is the first of its name, and takes another way
        await reverb_server.publish("stock", "e", number)
        await errors.wait_for(number + 1)
    assert all("raised CancelledError()" in data["message"] for _, data, _ in errors.calls)
    assert len(calls.calls) == (0 if alone else 3)
    assert reverb_client.socket_id == socket_id


async def test_a_binding_unbinds_its_own_handler_only(channel: Channel, reverb_server: ReverbServer) -> None:
    first, second = Recorder(), Recorder()
    binding = channel.binding("e", first)
    channel.bind("e", first)
    with channel.binding("e", second):
        await reverb_server.publish("stock", "e", 1)
        await second.wait_for(1)
    binding.unbind()
    binding.unbind()  # does nothing
    await reverb_server.publish("stock", "e", 2)
    await last_event(channel, reverb_server)
    assert [data for _, data, _ in first.calls] == [1, 1, 2]
    assert [data for _, data, _ in second.calls] == [1]


async def test_a_handler_for_once_is_called_once_on_all_channels_together(
    reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    await asyncio.gather(*(reverb_client.subscribe(f"c{number}") for number in range(5)))
    calls = Recorder()

    async def once(event: str, data: Any, channel: str | None) -> None:
        await asyncio.sleep(0)
        calls(event, data, channel)

    last = Recorder()
    reverb_client.bind("e", once, once=True).bind("e", last)
    await reverb_server.publish([f"c{number}" for number in range(5)], "e", {})
    await last.wait_for(5)
    assert len(calls.calls) == 1


async def test_a_handler_for_once_that_was_called_elsewhere_meanwhile(
    reverb_client: ReverbClient, reverb_server: ReverbServer
) -> None:
    first, second = await reverb_client.subscribe("first"), await reverb_client.subscribe("second")
    calls, errors, last, go_on = Recorder(), Recorder(), Recorder(), asyncio.Event()

    async def slow(event: str, data: Any, channel: str | None) -> None:
        await go_on.wait()

    async def once(event: str, data: Any, channel: str | None) -> None:
        calls(event, data, channel)

    first.bind("e", slow).bind("last", last)
    reverb_client.bind("e", once, once=True).bind("error", errors)
    await reverb_server.publish("first", "e", 1)
    await until(lambda: queue_of(first).is_busy)
    await reverb_server.publish("second", "e", 2)
    await calls.wait_for(1)
    go_on.set()
    await reverb_server.publish("first", "last", {})
    await last.wait_for(1)
    assert calls.calls == [("e", 2, second.name)]
    assert errors.calls == []


async def test_a_pattern_is_unbound_by_itself(channel: Channel, reverb_server: ReverbServer) -> None:
    calls = Recorder()
    channel.bind("order.*", calls)
    channel.unbind("order.shipped")  # another binding, or none
    await reverb_server.publish("stock", "order.shipped", 1)
    await calls.wait_for(1)
    channel.unbind("order.*", calls)
    await reverb_server.publish("stock", "order.shipped", 2)
    await last_event(channel, reverb_server)
    assert len(calls.calls) == 1


# --- waiting for one event -------------------------------------------------------------------------------------


async def test_waiting_for_an_event(channel: Channel, reverb_server: ReverbServer) -> None:
    waiting = asyncio.ensure_future(
        channel.wait_for("item.*", timeout=5, type=Item, where=lambda event: event.data.id > 1)
    )
    await asyncio.sleep(0)
    for number in (1, 2, 3):
        await reverb_server.publish("stock", "item.updated", {"id": number})
    event = await waiting
    assert isinstance(event, Event)
    assert (event.name, event.data, event.channel) == ("item.updated", Item(2), "stock")
    assert not queue_of(channel).is_bound


async def test_waiting_in_vain(channel: Channel) -> None:
    with pytest.raises(TimeoutError, match=r"no 'e' on <Channel 'stock' subscribed> within 0\.01 seconds"):
        await channel.wait_for("e", timeout=0.01)
    assert not queue_of(channel).is_bound


async def test_waiting_ends_with_the_channel(channel: Channel, reverb_client: ReverbClient) -> None:
    waiting = asyncio.ensure_future(channel.wait_for("e", timeout=5))
    await asyncio.sleep(0)
    await reverb_client.unsubscribe("stock")
    with pytest.raises(ConnectionError, match="while waiting for 'e'"):
        await waiting


@pytest.mark.parametrize("timeout", [None, 50.0])
async def test_waiting_ends_with_what_ends_the_connection_also_where_that_is_a_timeout(
    timeout: float | None,
) -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.establish()
            await peer.expect("pusher:subscribe")
            await peer.confirm("presence-room", ROOM)
            await peer.expect("client-go")
            await peer.eof()
        else:
            await peer.upgrade()
            await peer.wait_closed()

    async with (
        ScriptedServer(script) as server,
        make_client(server, connect_timeout=0.2, reconnect_max_attempts=1) as client,
    ):
        room = await client.subscribe("presence-room", {"user_id": "7"})
        waiting = [
            asyncio.ensure_future(room.wait_for("e", timeout=timeout)),
            asyncio.ensure_future(room.wait_for_member("8", timeout)),
        ]
        await asyncio.sleep(0)
        await room.trigger("go", {})
        for each in waiting:
            with pytest.raises(TimeoutError, match="did not send pusher:connection_established"):
                await each


async def test_what_where_raises_is_raised(channel: Channel, reverb_server: ReverbServer) -> None:
    waiting = asyncio.ensure_future(channel.wait_for("e", where=lambda event: bool(event.data["missing"])))
    await asyncio.sleep(0)
    await reverb_server.publish("stock", "e", {})
    with pytest.raises(KeyError):
        await waiting
    assert not queue_of(channel).is_bound
