"""What handlers may do, and how slow they may be, with a client on a server and on each event loop."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from math import inf
from time import monotonic
from typing import Any

import msgspec
import pytest

from reverb import Channel, ConnectionState, Events, ReverbClient
from reverb.server import ReverbServer

from .loops import every_loop
from .scripted import TEXT, encode_frame
from .test_client import make_client
from .test_dispatch import Recorder
from .watching import client_tasks, until

Tasks = list["asyncio.Task[Any]"]


@pytest.fixture
async def client(reverb_server: ReverbServer) -> AsyncIterator[ReverbClient]:
    async with ReverbClient(**{**reverb_server.settings, "drain_timeout": 0.1}) as client:
        yield client


def start(tasks: Tasks, coroutine: Any) -> None:
    """As a plain handler does it. On a loop with eager tasks it runs right here, to where it first waits."""
    tasks.append(asyncio.get_running_loop().create_task(coroutine))


async def all_of(tasks: Tasks) -> None:
    await asyncio.wait_for(asyncio.gather(*tasks), 5)


# --- plain handlers that call the client -----------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize("returns", [False, True])
async def test_a_plain_handler_leaves_its_channel(
    client: ReverbClient, reverb_server: ReverbServer, returns: bool
) -> None:
    stock, behind, last, tasks = await client.subscribe("stock"), Recorder(), Recorder(), Tasks()

    def leave(event: str, data: Any, channel: str | None) -> Any:
        start(tasks, client.unsubscribe("stock"))
        return tasks[-1] if returns else None

    async def wait(event: str, data: Any, channel: str | None) -> None:
        await all_of(tasks)
        behind(event, data, channel)

    stock.bind("e", leave).bind("e", wait)
    client.bind("e", behind)
    (await client.subscribe("last")).bind("last", last)
    for number in range(3):
        await reverb_server.publish("stock", "e", number)
    await reverb_server.publish("last", "last", None)
    await last.wait_for(1)
    await all_of(tasks)
    assert len(tasks) == 1
    if asyncio.get_running_loop().get_task_factory() is not None or returns:
        assert behind.calls == []  # it had left before the next one was called
    assert client.channels.keys() == {"last"}


@pytest.mark.skipif(not hasattr(asyncio.Task, "cancelling"), reason="3.10 can't tell who was cancelled")
@every_loop
@pytest.mark.parametrize("shares", [False, True], ids=["alone", "with another"])
@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_what_a_plain_handler_returns_may_fail(
    client: ReverbClient, reverb_server: ReverbServer, error: type[BaseException], shares: bool
) -> None:
    """From its second event on, a plain function that is alone gets events without a queue."""
    stock, calls, errors = await client.subscribe("stock"), Recorder(), Recorder()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    def handle(event: str, data: Any, channel: str | None) -> Any:
        calls(event, data, channel)
        return fail()

    stock.bind("sold", handle)
    if shares:
        stock.bind("sold", calls)
    client.bind("error", errors)
    for number in range(1, 4):
        await reverb_server.publish("stock", "sold", number)
        await errors.wait_for(number)
        await calls.wait_for(number * (1 + shares))
    assert [type(data["exception"]) for _, data, _ in errors.calls] == 3 * [error]


@every_loop
async def test_a_plain_handler_subscribes(client: ReverbClient, reverb_server: ReverbServer) -> None:
    stock, calls, tasks = await client.subscribe("stock"), Recorder(), Tasks()

    async def subscribe(name: str) -> None:
        channel: Channel = await client.subscribe(name)
        channel.bind("e", calls)

    stock.bind("e", lambda event, data, channel: start(tasks, subscribe(f"stock-{data}")))
    stock.bind("e", calls)
    for number in range(5):
        await reverb_server.publish("stock", "e", number)
    await calls.wait_for(5)
    await all_of(tasks)
    for number in range(5):
        await reverb_server.publish(f"stock-{number}", "e", None)
    assert len(await calls.wait_for(10)) == 10
    assert len(client.channels) == 6


@every_loop
@pytest.mark.parametrize("of", ["channel", "client", "state"])
async def test_a_plain_handler_disconnects(client: ReverbClient, reverb_server: ReverbServer, of: str) -> None:
    stock, behind, tasks = await client.subscribe("stock"), Recorder(), Tasks()

    def leave(event: str, data: Any, channel: str | None) -> None:
        if of != "state" or data["current"] != ConnectionState.CONNECTED:
            start(tasks, client.disconnect())

    if of == "state":
        client.bind(Events.STATE_CHANGE, leave)
        reverb_server.drop()
    else:
        (stock if of == "channel" else client).bind("e", leave, once=True)
        await reverb_server.publish("stock", "e", None)
    await until(lambda: tasks)
    await all_of(tasks)
    assert client.state == ConnectionState.DISCONNECTED
    assert client_tasks() == set()
    await reverb_server.publish("stock", "f", 1)
    client.unbind(Events.STATE_CHANGE)
    await client.connect()
    stock.bind("f", behind)
    await reverb_server.publish("stock", "f", 2)
    assert await behind.wait_for(1) == [("f", 2, "stock")]


@every_loop
async def test_events_of_a_burst_reach_async_handlers_in_order(
    client: ReverbClient, reverb_server: ReverbServer
) -> None:
    """With eager tasks no handler was ever called."""
    stock, calls = await client.subscribe("stock"), Recorder()

    async def handler(event: str, data: Any, channel: str | None) -> None:
        if data % 7 == 0:
            await asyncio.sleep(0)
        calls(event, data, channel)

    stock.bind("e", handler)
    for number in range(500):
        await reverb_server.publish("stock", "e", number)
    assert [data for _, data, _ in await calls.wait_for(500)] == list(range(500))


# --- slow handlers ---------------------------------------------------------------------------------------------


@every_loop
async def test_a_burst_for_a_slow_handler_does_not_delay_other_channels(
    client: ReverbClient, reverb_server: ReverbServer
) -> None:
    stock, other = await asyncio.gather(client.subscribe("stock"), client.subscribe("other"))
    calls = Recorder()

    async def slow(event: str, data: Any, channel: str | None) -> None:
        await asyncio.sleep(0.01)

    stock.bind("e", slow)
    other.bind("e", calls)
    for number in range(3_000):  # half a minute's work
        await reverb_server.publish("stock", "e", number)
    started = monotonic()
    await reverb_server.publish("other", "e", "now")
    await calls.wait_for(1)
    assert monotonic() - started < 2.5
    assert client.stats.queued > 1_000
    await client.unsubscribe("stock")


@every_loop
async def test_a_handler_waits_for_an_event_of_another_channel_behind_a_burst_for_its_own(
    client: ReverbClient, reverb_server: ReverbServer
) -> None:
    """It was a deadlock: the bound was reached, so what it waited for was not read."""
    stock, other = await asyncio.gather(client.subscribe("stock"), client.subscribe("other"))
    calls = Recorder()

    async def wait(event: str, data: Any, channel: str | None) -> None:
        if data == 0:
            calls(event, (await other.wait_for("go", timeout=5)).data, channel)

    stock.bind("e", wait)
    for number in range(3_000):
        await reverb_server.publish("stock", "e", number)
    await reverb_server.publish("other", "go", "went")
    assert await calls.wait_for(1) == [("e", "went", "stock")]


@every_loop
async def test_at_the_bound_reading_pauses_and_nothing_is_lost(
    reverb_server: ReverbServer, caplog: pytest.LogCaptureFixture
) -> None:
    calls, go_on = Recorder(), asyncio.Event()

    async def wait(event: str, data: Any, channel: str | None) -> None:
        await go_on.wait()
        calls(event, data["number"], channel)

    size, count = 2_000, 5_000
    async with make_client(reverb_server, **{**reverb_server.settings, "max_pending_bytes": 100_000}) as client:
        (await client.subscribe("stock")).bind("e", wait)
        for number in range(count):
            await reverb_server.publish("stock", "e", {"number": number, "text": size * "x"})
        await until(lambda: "stops reading" in caplog.text)
        assert client.stats.queued < count / 2
        assert client.stats.dropped == 0
        go_on.set()
        assert [data for _, data, _ in await calls.wait_for(count)] == list(range(count))


@every_loop
async def test_with_max_pending_the_oldest_are_dropped_and_every_event_is_counted(
    client: ReverbClient, reverb_server: ReverbServer
) -> None:
    stock, heard, go_on = await client.subscribe("stock", max_pending=10), Recorder(), asyncio.Event()
    last = Recorder()
    (await client.subscribe("other")).bind("e", last)

    async def wait(event: str, data: Any, channel: str | None) -> None:
        heard(event, data, channel)
        await go_on.wait()

    stock.bind("e", wait).bind(Events.EVENTS_DROPPED, heard)
    await until(lambda: client.stats.queued == 0)
    before = client.stats
    await reverb_server.publish("stock", "e", 0)
    await heard.wait_for(1)
    for number in range(1, 101):
        await reverb_server.publish("stock", "e", number)
        await reverb_server.publish("stock", "nobody's", number)
    await reverb_server.publish("other", "e", None)
    await last.wait_for(1)
    waiting = client.stats
    assert (waiting.queued, waiting.dropped) == (11, 190)
    for stats in (waiting, None):
        if stats is None:
            go_on.set()
            await until(lambda: client.stats.queued == 0)
            stats = client.stats
        ended = sum(
            getattr(stats, name) - getattr(before, name)
            for name in ("delivered", "queued", "unbound", "discarded", "dropped")
        )
        assert ended == stats.received - before.received + 1  # the event that tells of the others is ours
    assert heard.calls == [
        ("e", 0, "stock"),
        (Events.EVENTS_DROPPED, {"count": 190}, "stock"),
        *(("e", number, "stock") for number in range(96, 101)),
    ]


# --- JSON that is unusual --------------------------------------------------------------------------------------

INNER = r'{"name":"half \ud83d","n":1e999,"big":%s}' % ("9" * 30)
"""Half an emoji, as JavaScript's ``slice()`` leaves it, and numbers beyond those of JavaScript."""
VALUE: dict[str, Any] = {"name": "half \N{REPLACEMENT CHARACTER}", "n": inf, "big": int("9" * 30)}


class Unusual(msgspec.Struct):
    name: str
    n: float


@pytest.mark.parametrize("kind", ["text", "value"])
@pytest.mark.parametrize("handlers", ["plain", "async", "two", "once", "user_id", "stream", "client's"])
async def test_unusual_json_reaches_all_kinds_of_handlers(
    client: ReverbClient, reverb_server: ReverbServer, kind: str, handlers: str
) -> None:
    """What is published comes as a text that holds JSON, and what clients trigger as a value."""
    heard, channel = Recorder(), await client.subscribe("private-x")

    async def awaits(event: str, data: Any, channel: str | None) -> None:
        heard(event, data, channel)

    def takes_sender(event: str, data: Any, channel: str | None, *, user_id: str | None) -> None:
        heard(event, data, channel)

    stream = channel.events("e") if handlers == "stream" else None
    if handlers == "client's":
        client.bind("e", heard)
    elif handlers == "once":
        channel.bind("e", heard, once=True)
    elif handlers != "stream":
        one: Any = {"async": awaits, "user_id": takes_sender}.get(handlers, heard)
        for _ in range(2 if handlers == "two" else 1):
            channel.bind("e", one)
    data = json.dumps(INNER) if kind == "text" else INNER
    reverb_server.send_raw(f'{{"event":"e","channel":"private-x","data":{data}}}')
    if stream is not None:
        assert (await asyncio.wait_for(stream.__anext__(), 5)).data == VALUE
    else:
        await heard.wait_for(2 if handlers == "two" else 1)
        assert all(call == ("e", VALUE, "private-x") for call in heard.calls)


@pytest.mark.parametrize("kind", ["text", "value"])
async def test_unusual_json_is_read_into_types(
    client: ReverbClient, reverb_server: ReverbServer, kind: str
) -> None:
    heard, channel = Recorder(), await client.subscribe("private-x")
    channel.bind("e", heard, type=Unusual)
    data = json.dumps(INNER) if kind == "text" else INNER
    reverb_server.send_raw(f'{{"event":"e","channel":"private-x","data":{data}}}')
    assert await heard.wait_for(1) == [("e", Unusual(VALUE["name"], inf), "private-x")]


async def test_unusual_json_on_an_encrypted_channel(reverb_server: ReverbServer) -> None:
    heard, settings = Recorder(), {"encryption_master_key": b64encode(32 * b"m").decode()}
    async with ReverbClient(**{**reverb_server.settings, **settings}) as client:
        (await client.subscribe("private-encrypted-x")).bind("e", heard)
        await client.api.trigger("private-encrypted-x", "e", INNER)
        assert await heard.wait_for(1) == [("e", VALUE, "private-encrypted-x")]


JSON_TEXT = ' {"b":1.0,\t"a":"\\u00e9 \\ud83d"}\n'


async def test_the_text_itself_for_handlers_streams_and_who_waits(
    client: ReverbClient, reverb_server: ReverbServer
) -> None:
    channel, by_type, by_annotation = await client.subscribe("stock"), Recorder(), Recorder()

    async def takes_raw(event: str, data: msgspec.Raw, channel: str | None) -> None:
        by_annotation(event, data, channel)

    channel.bind("e", by_type, type=msgspec.Raw).bind("e", takes_raw)
    stream = channel.events("e", type=msgspec.Raw)
    waiting = asyncio.ensure_future(client.wait_for("e", type=msgspec.Raw, timeout=5))
    await asyncio.sleep(0)  # it is bound then
    for data in (json.dumps(JSON_TEXT), '"no JSON"', "null", '{"b":1,"a":2}'):
        reverb_server.send_raw(f'{{"event":"e","channel":"stock","data":{data}}}')
    reverb_server.send_raw('{"event":"e","channel":"stock"}')
    texts = [JSON_TEXT, '"no JSON"', "null", '{"b":1,"a":2}', "null"]
    for each in (by_type, by_annotation):
        assert [bytes(data).decode() for _, data, _ in await each.wait_for(len(texts))] == texts
    assert [bytes((await asyncio.wait_for(anext(stream), 5)).data).decode() for _ in texts] == texts
    assert bytes((await waiting).data).decode() == JSON_TEXT


async def test_the_text_itself_on_an_encrypted_channel(reverb_server: ReverbServer) -> None:
    heard, settings = Recorder(), {"encryption_master_key": b64encode(32 * b"m").decode()}
    async with ReverbClient(**{**reverb_server.settings, **settings}) as client:
        (await client.subscribe("private-encrypted-x")).bind("e", heard, type=msgspec.Raw)
        await client.api.trigger("private-encrypted-x", "e", JSON_TEXT)
        await heard.wait_for(1)
        assert bytes(heard.calls[0][1]).decode() == JSON_TEXT


async def test_unusual_names_of_members(client: ReverbClient, reverb_server: ReverbServer) -> None:
    room = await client.subscribe("presence-x", {"user_id": "1"})
    heard = Recorder()
    room.bind(Events.MEMBER_ADDED, heard)
    member = json.dumps(r'{"user_id":"2","user_info":{"name":"\ud83d"}}')
    reverb_server.send_raw(f'{{"event":"pusher_internal:member_added","channel":"presence-x","data":{member}}}')
    await heard.wait_for(1)
    assert room.members["2"] == {"name": "\N{REPLACEMENT CHARACTER}"}


async def test_json_that_is_too_deep_is_a_text_or_skipped_and_the_connection_lives(
    client: ReverbClient, reverb_server: ReverbServer, caplog: pytest.LogCaptureFixture
) -> None:
    heard, channel = Recorder(), await client.subscribe("private-x")
    channel.bind("e", heard)
    deep = "[" * 100_000 + "]" * 100_000
    reverb_server.send_raw(f'{{"event":"e","channel":"private-x","data":{deep}}}')
    reverb_server.send_raw(f'{{"event":"e","channel":"private-x","data":"{deep}"}}')
    assert await heard.wait_for(1) == [("e", deep, "private-x")]
    assert len([record for record in caplog.records if "skipped a message" in record.message]) == 1
    assert client.stats.reconnects == 0


# --- tracebacks ------------------------------------------------------------------------------------------------


def explode(event: str, data: Any, channel: str | None) -> None:
    raise LookupError("the program's own")


async def explode_later(event: str, data: Any, channel: str | None) -> None:
    explode(event, data, channel)


@pytest.mark.parametrize("handler", [explode, explode_later])
@pytest.mark.parametrize("event", ['"e"', r'"\ud83d"'])
@pytest.mark.parametrize("is_cut", [False, True])
async def test_the_traceback_of_a_handler_is_its_own(
    client: ReverbClient,
    reverb_server: ReverbServer,
    caplog: pytest.LogCaptureFixture,
    handler: Any,
    event: str,
    is_cut: bool,
) -> None:
    """For the first event of a name and the second, in one frame or two, whatever it takes to read it."""
    channel = await client.subscribe("private-x")
    channel.bind(json.loads(event).replace("\ud83d", "\N{REPLACEMENT CHARACTER}"), handler)
    payload = f'{{"event":{event},"channel":"private-x","data":"{{}}"}}'.encode()
    frames = encode_frame(TEXT, payload)
    if is_cut:
        frames = encode_frame(TEXT, payload[:9], fin=False) + encode_frame(0, payload[9:])
    await client.ping()  # from now on nothing has to wait
    reverb_server.send_raw(frames)
    await until(lambda: len(raised_in(caplog)) == 1)
    reverb_server.send_raw(frames)
    await until(lambda: len(raised_in(caplog)) == 2)
    for error in raised_in(caplog):
        assert isinstance(error, LookupError)
        assert error.__context__ is None


async def test_the_traceback_of_an_error_handler_is_its_own(
    client: ReverbClient, reverb_server: ReverbServer, caplog: pytest.LogCaptureFixture
) -> None:
    channel, told = await client.subscribe("private-x"), Recorder()

    def explode_again(event: str, data: Any, channel: str | None) -> None:
        told(event, data, channel)
        raise OSError("the error handler's own")

    channel.bind("e", explode).bind("e2", explode).bind("e2", explode_later).bind("error", explode_again)
    for name, count in (("e", 1), ("e", 2), ("e2", 4)):
        await reverb_server.publish("private-x", name)
        await told.wait_for(count)
    await until(lambda: len(raised_in(caplog)) == 8)
    assert {type(error) for error in raised_in(caplog)} == {LookupError, OSError}
    assert [error.__context__ for error in raised_in(caplog)] == [None] * 8


async def test_the_traceback_of_a_handler_of_states_is_its_own(
    reverb_server: ReverbServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(reverb_server, app_key="unknown")
    client.bind(Events.STATE_CHANGE, explode)
    with pytest.raises(ConnectionError):
        await client.connect()
    async with ReverbClient(**{**reverb_server.settings, "reconnect_delay_min": 0.01}) as client:
        await client.subscribe("private-x")
        client.bind("*", explode).bind("*", explode_later)
        reverb_server.drop()
        await until(lambda: client.stats.reconnects == 1)
        reverb_server.deny("private-x")
        reverb_server.drop()
        await until(lambda: client.stats.reconnects == 2)
        await until(lambda: client.stats.missing == 1)
    errors = raised_in(caplog)
    assert len(errors) > 10
    assert [error.__context__ for error in errors] == [None] * len(errors)


def raised_in(caplog: pytest.LogCaptureFixture) -> list[BaseException]:
    """What handlers have raised, as the log has it."""
    infos = [record.exc_info for record in caplog.records if "raised" in record.message]
    return [info[1] for info in infos if info is not None and info[1] is not None]
