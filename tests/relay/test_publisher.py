"""From a stream to the HTTP API, on real engines: in order, at least once, and what is no event set apart."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import nats
import pytest
import redis.asyncio
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from reverb import APIError, ConfigurationError, ReverbAPI
from reverb.relay import (
    DeadLetter,
    EngineError,
    Item,
    NatsSource,
    Published,
    Publisher,
    RedisSource,
    Report,
    Source,
    Waiting,
)
from reverb.server import ReverbServer
from tests.integration.servers import free_ports
from tests.relay.nats_server import Nats
from tests.relay.streams import JetStream, RedisStream, Stream
from tests.scripted_http import ScriptedHTTPServer, answer
from tests.watching import turns, until

DEADLINE = 20.0


@pytest.fixture(params=[RedisStream, JetStream], ids=["redis", "jetstream"])
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stream]:
    with request.param(tmp_path) as stream:
        yield stream


@pytest.fixture
async def server() -> AsyncIterator[ReverbServer]:
    async with ReverbServer() as server:
        yield server


class Running:
    """A publisher at work, and what it reports."""

    def __init__(self, source: Source, api: ReverbAPI) -> None:
        self.reports: list[Report] = []
        self.publisher = Publisher(source, api, report=self.reports.append)
        self.task = asyncio.create_task(self.publisher.run())

    async def until_done(self, published: int, dead: int = 0) -> None:
        await self.until(lambda: (self.publisher.published, self.publisher.dead) == (published, dead))

    async def until(self, condition: Any) -> None:
        def holds() -> Any:
            if self.task.done():
                self.task.result()
            return condition()

        await until(holds, DEADLINE)

    @property
    def waited(self) -> list[Waiting]:
        return [each for each in self.reports if isinstance(each, Waiting)]


@asynccontextmanager
async def publishing(source: Source, settings: dict[str, Any], **more: Any) -> AsyncIterator[Running]:
    async with ReverbAPI(**{**settings, **more}) as api:
        running = Running(source, api)
        try:
            yield running
        finally:
            running.publisher.stop()
            await asyncio.wait({running.task}, timeout=DEADLINE)
            running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)


def settings_of(server: ScriptedHTTPServer) -> dict[str, Any]:
    names = {"app_id": "app-id", "app_key": "app-key", "app_secret": "app-secret"}
    return {"host": server.host, "port": server.port, "scheme": "ws", **names}


async def fill(stream: Stream, numbers: Sequence[int]) -> None:
    for number in numbers:
        await stream.add(channel=f"c{number % 3}", event="e", data=json.dumps({"n": number}))


def numbers_of(server: ReverbServer) -> list[int]:
    return [each.data["n"] for each in server.events]


async def test_in_order_and_acknowledged(stream: Stream, server: ReverbServer) -> None:
    await fill(stream, range(25))
    async with publishing(stream.source(), server.settings) as running:
        await running.until_done(25)
        await fill(stream, range(25, 30))
        await running.until_done(30)
        await running.until(lambda: running.publisher.lag == 0)
    assert await stream.left() == 0
    assert numbers_of(server) == list(range(30))
    assert [each.channel for each in server.events[:4]] == ["c0", "c1", "c2", "c0"]
    batches = [len(each.items) for each in running.reports if isinstance(each, Published)]
    assert max(batches) == 10
    assert sum(batches) == 30


async def test_who_sent_it_does_not_get_it(stream: Stream) -> None:
    await stream.add(channel="news", event="e", data="1", socket_id="1.2")
    async with ScriptedHTTPServer(answer(200)) as api:
        async with publishing(stream.source(), settings_of(api)) as running:
            await running.until_done(1)
        assert b'"socket_id":"1.2"' in api.bodies()[0]


async def test_published_again_when_it_was_not_acknowledged(stream: Stream, server: ReverbServer) -> None:
    """As when the process is killed between the two."""
    await fill(stream, range(4))
    source = stream.source(claim_after=1)
    asked = asyncio.Event()

    async def never(items: Sequence[Item]) -> None:
        asked.set()
        await asyncio.Event().wait()

    source.acknowledge = never  # type: ignore[method-assign]
    async with publishing(source, server.settings) as running:
        await asyncio.wait_for(asked.wait(), DEADLINE)
        running.task.cancel()
    assert numbers_of(server) == [0, 1, 2, 3]
    await fill(stream, range(4, 6))
    async with publishing(stream.source(claim_after=1), server.settings) as running:
        await running.until_done(6)
    assert numbers_of(server) == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]


async def test_what_is_no_event_is_a_dead_letter(
    stream: Stream, server: ReverbServer, caplog: pytest.LogCaptureFixture
) -> None:
    await stream.add(channel="news", event="e", data='{"n": 0}')
    bad = {
        "it has no event": await stream.add(channel="news", data="{}", more="kept"),
        "its data is not JSON": await stream.add(channel="news", event="e", data='{"n": 1'),
        "is too large to publish": await stream.add(channel="news", event="e", data=json.dumps("x" * 20_000)),
        "REVERB_ENCRYPTION_MASTER_KEY is missing": await stream.add(
            channel="private-encrypted-a", event="e", data="{}"
        ),
    }
    await stream.add(channel="news", event="e", data='{"n": 2}')
    async with publishing(stream.source(), server.settings) as running:
        await running.until_done(2, len(bad))
    assert numbers_of(server) == [0, 2]
    dead = {each["original_id"]: each for each in await stream.dead()}
    for reason, id_ in bad.items():
        assert reason in dead[id_]["reason"]
    assert dead[bad["it has no event"]]["more"] == "kept"
    assert dead[bad["its data is not JSON"]]["data"] == '{"n": 1'
    assert len(dead) == len([each for each in running.reports if isinstance(each, DeadLetter)]) == len(bad)
    told = [each.getMessage() for each in caplog.records]
    assert sum("goes to the dead-letter stream" in each for each in told) == len(bad)
    assert await stream.left() == 0


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_of_a_batch_that_is_refused_the_bad_one_is_found(stream: Stream, status: int) -> None:
    await fill(stream, range(4))
    async with ScriptedHTTPServer(
        answer(status), answer(200), answer(status, '{"error": "why"}'), answer(200)
    ) as api:
        async with publishing(stream.source(), settings_of(api)) as running:
            await running.until_done(3, 1)
        sent = [[json.loads(each["data"])["n"] for each in json.loads(body)["batch"]] for body in api.bodies()]
    assert sent == [[0, 1, 2, 3], [0], [1], [2], [3]]
    (dead,) = await stream.dead()
    assert json.loads(dead["data"]) == {"n": 1}
    assert f"with {status}: why" in dead["reason"]


@pytest.mark.parametrize("status", [401, 403, 404, 301])
async def test_who_is_refused_itself_ends(stream: Stream, status: int) -> None:
    """A wrong secret must not make dead letters of all that there is."""
    await fill(stream, range(2))
    async with ScriptedHTTPServer(answer(status)) as api, publishing(stream.source(), settings_of(api)) as running:
        await asyncio.wait({running.task}, timeout=DEADLINE)
        with pytest.raises(APIError):
            running.task.result()
    assert await stream.left() == 2
    assert await stream.dead() == []


@pytest.mark.parametrize(
    "fault", [answer(500), answer(429), answer(429, "{}", "Retry-After: 2")], ids=["500", "429", "Retry-After"]
)
async def test_while_the_api_is_away_nothing_is_acknowledged(stream: Stream, fault: bytes) -> None:
    await fill(stream, range(2))
    async with ScriptedHTTPServer(fault, answer(200)) as api:
        async with publishing(stream.source(), settings_of(api)) as running:
            await running.until(lambda: running.waited)
            assert await stream.left() == 2
            await running.until_done(2)
        assert (running.waited[0].seconds == 2) == (b"Retry-After" in fault)
    assert await stream.dead() == []


async def test_an_api_that_comes_later(stream: Stream) -> None:
    await fill(stream, range(12))
    (port,) = free_ports(1)
    settings = {**ReverbServer().settings, "port": port}
    async with publishing(stream.source(), settings) as running:
        await running.until(lambda: running.waited)
        async with ReverbServer(port=port) as server:
            await running.until_done(12)
            assert numbers_of(server) == list(range(12))


async def test_an_engine_that_is_killed_and_comes_back(stream: Stream, server: ReverbServer) -> None:
    await fill(stream, range(5))
    async with publishing(stream.source(claim_after=1), server.settings) as running:
        await running.until_done(5)
        stream.server.kill()
        await running.until(lambda: running.waited)
        stream.server.start()
        await fill(stream, range(5, 30))
        await running.until_done(30)
    assert await stream.left() == 0
    assert numbers_of(server) == list(range(30))


async def test_an_engine_that_is_away_when_it_is_to_acknowledge(stream: Stream, server: ReverbServer) -> None:
    await fill(stream, range(5))
    source = stream.source()
    acknowledge = source.acknowledge
    calls = 0

    async def kill_first(items: Sequence[Item]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            stream.server.kill()
        await acknowledge(items)

    source.acknowledge = kill_first  # type: ignore[method-assign]
    async with publishing(source, server.settings) as running:
        await running.until(lambda: running.waited)
        stream.server.start()
        await running.until_done(5)
    assert await stream.left() == 0
    assert numbers_of(server) == list(range(5))


async def test_an_engine_that_is_away_while_events_wait_for_the_api(stream: Stream, server: ReverbServer) -> None:
    await fill(stream, range(3))
    (port,) = free_ports(1)
    source = stream.source(claim_after=1)
    hold = source.hold
    attempts = 0

    async def fail_once(items: Sequence[Item]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise EngineError("the engine is away")
        await hold(items)

    source.hold = fail_once  # type: ignore[method-assign]
    async with publishing(source, {**server.settings, "port": port}) as running:
        await running.until(lambda: attempts)
        async with ReverbServer(port=port) as late:
            await running.until_done(3)
            assert numbers_of(late) == [0, 1, 2]
    assert await stream.left() == 0


async def test_a_group_shares_the_work(stream: Stream, server: ReverbServer) -> None:
    one, two = stream.source(consumer="one"), stream.source(consumer="two")
    async with publishing(one, server.settings) as first, publishing(two, server.settings) as second:
        for begin in range(0, 2000, 50):
            await fill(stream, range(begin, begin + 50))
            total = begin + 50
            await first.until(lambda total=total: first.publisher.published + second.publisher.published == total)
            if first.publisher.published and second.publisher.published:
                break
        else:
            pytest.fail("one of the two got nothing")
    assert sorted(numbers_of(server)) == list(range(total))


async def test_what_another_one_has_left_is_claimed(stream: Stream, server: ReverbServer) -> None:
    await fill(stream, range(3))
    dead = stream.source(consumer="dead", claim_after=1)
    await dead.open()
    assert len(await dead.read(10)) == 3
    await dead.close()
    async with publishing(stream.source(consumer="alive", claim_after=1), server.settings) as running:
        await running.until_done(3)
    assert numbers_of(server) == [0, 1, 2]
    assert await stream.left() == 0


async def test_what_waits_for_the_api_is_not_claimed_by_others(stream: Stream, server: ReverbServer) -> None:
    await fill(stream, range(3))
    (port,) = free_ports(1)
    waits = stream.source(consumer="waits", claim_after=1)
    async with publishing(waits, {**server.settings, "port": port}) as away:
        await away.until(lambda: away.waited)
        since = monotonic()
        async with publishing(stream.source(consumer="idle", claim_after=1), server.settings) as idle:
            await idle.until(lambda: monotonic() - since > 3)
            assert idle.publisher.published == 0
        async with ReverbServer(port=port):
            await away.until_done(3)
    assert server.events == []


async def test_it_stops_at_once_while_it_waits(stream: Stream) -> None:
    await fill(stream, range(3))
    busy = ScriptedHTTPServer(answer(429, "{}", "Retry-After: 200"))
    async with busy as api, publishing(stream.source(), settings_of(api)) as running:
        await running.until(lambda: running.waited)
        running.publisher.stop()
        await asyncio.wait_for(running.task, DEADLINE)
    assert await stream.left() == 3


async def test_it_finishes_what_it_has_begun(stream: Stream) -> None:
    await fill(stream, range(3))
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await go_on.wait()
        writer.write(answer(200))
        await writer.drain()

    async with ScriptedHTTPServer(slow) as api, publishing(stream.source(), settings_of(api)) as running:
        await asyncio.wait_for(asked.wait(), DEADLINE)
        running.publisher.stop()
        go_on.set()
        await asyncio.wait_for(running.task, DEADLINE)
    assert running.publisher.published == 3
    assert await stream.left() == 0


async def test_it_can_be_cancelled_at_each_turn(stream: Stream, server: ReverbServer) -> None:
    async with ReverbAPI(**server.settings) as api:
        for turns_before in turns():
            await stream.add(channel="news", event="e", data="1")
            publisher = Publisher(stream.source(claim_after=1), api)
            running = asyncio.create_task(publisher.run())
            for _ in range(turns_before):
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait({running}, timeout=DEADLINE)
            assert running.cancelled(), f"it did not end when it was cancelled after {turns_before} turns"
            if publisher.published or turns_before > 2000:  # it may wait for what the one before had taken
                return


# --- Redis -----------------------------------------------------------------------------------------------------


async def fails(source: Source, says: str) -> None:
    async def use() -> None:
        try:
            await source.open()
            await source.read(10)
        finally:
            await source.close()

    with pytest.raises(ConfigurationError, match=says) as caught:
        await use()
    assert "S3CR3T" not in f"{caught.value} {source!r} {source.address}"


async def test_redis_that_wants_a_password(tmp_path: Path) -> None:
    with RedisStream(tmp_path, "--requirepass", "S3CR3T") as stream:
        await fails(stream.source(), "check user and password")
        wrong = stream.server.url.replace("://", "://:S3CR3T2@")
        await fails(RedisSource(wrong, group="g"), "check user and password")
        right = RedisSource(stream.server.url.replace("://", "://:S3CR3T@"), group="g")
        await right.open()
        await right.close()


@pytest.mark.parametrize("key", ["reverb:publish", "reverb:publish:dead"])
async def test_a_key_that_is_no_stream(tmp_path: Path, key: str) -> None:
    with RedisStream(tmp_path) as stream:
        stream.redis.set(key, "1")
        await fails(stream.source(), f"'{key}' at .* is a string and no stream")


async def test_entries_of_redis_that_lack_a_field(tmp_path: Path, server: ReverbServer) -> None:
    """A message of NATS has them all: its subject is the channel, if no header is."""
    with RedisStream(tmp_path) as stream:
        await stream.add(event="e", data="{}")
        await stream.add(channel="news", event="e")
        async with publishing(stream.source(), server.settings) as running:
            await running.until_done(0, 2)
        assert [each["reason"] for each in await stream.dead()] == ["it has no channel", "it has no data"]


async def test_a_database_that_redis_has_not(tmp_path: Path) -> None:
    with RedisStream(tmp_path) as stream:
        url = stream.server.url.removesuffix("/0") + "/99"
        await fails(RedisSource(url, group="g"), "check the name of the stream, and the number of the database")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to perform operation on <TCPTransport closed=True 0x1>; the handler is closed"),
        AttributeError("'NoneType' object has no attribute '_add_writer'"),
    ],
    ids=["uvloop", "asyncio"],
)
async def test_a_connection_to_redis_that_the_loop_has_closed(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(*_: object, **__: object) -> None:
        raise raised

    with RedisStream(tmp_path) as stream:
        source = stream.source()
        await source.open()
        with monkeypatch.context() as patch:
            patch.setattr(redis.asyncio.Connection, "send_packed_command", write)
            raised = error
            with pytest.raises(EngineError, match="the connection was closed"):
                await source.lag()
            raised = type(error)("a fault")
            with pytest.raises(type(error), match="a fault"):
                await source.lag()
        assert await source.lag() == 0
        await source.close()


async def test_a_redis_that_is_too_old(tmp_path: Path) -> None:
    with RedisStream(tmp_path, "--rename-command", "XAUTOCLAIM", "XCLAIMAUTO") as stream:
        await fails(stream.source(), r"use Redis 6\.2 or later")


async def test_no_url_of_redis() -> None:
    await fails(RedisSource("redis://:S3CR3T@localhost/x?socket_timeout=a", group="g"), "is not a Redis URL")


@pytest.mark.parametrize(
    "url",
    [
        "{}://",
        "{}://ann:S3CR3T@",
        "http://ann:S3CR3T@localhost",
        "{}://ann:S3CR3T@localhost:port",
        "{}://ann:S3CR3T#1@localhost",
        "{}://ann:1/S3CR3T@localhost",
        "{}://ann:1?S3CR3T@localhost",
        "{}://[ann:S3CR3T@localhost",
        "S3CR3T",
    ],
)
@pytest.mark.parametrize(("kind", "scheme"), [(RedisSource, "redis"), (NatsSource, "nats")], ids=["redis", "nats"])
def test_urls_that_name_no_engine(kind: Any, scheme: str, url: str) -> None:
    """A secret in them is not shown: neither in the message, nor in what an error reporter finds in our frames."""
    with pytest.raises(ConfigurationError, match=f"must be like {scheme}://host") as caught:
        kind(url.format(scheme), group="g")
    assert list(leaks_of(caught.value)) == []


def leaks_of(error: BaseException) -> Iterator[str]:
    if "S3CR3T" in str(error):
        yield str(error)
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals["__name__"].startswith("reverb."):
            yield from (name for name, value in traceback.tb_frame.f_locals.items() if "S3CR3T" in repr(value))
        traceback = traceback.tb_next


@pytest.mark.parametrize("claimed", [False, True], ids=["own", "claimed"])
async def test_an_entry_that_was_trimmed_meanwhile(tmp_path: Path, server: ReverbServer, claimed: bool) -> None:
    with RedisStream(tmp_path) as stream:
        id_ = await stream.add(channel="news", event="e", data="{}")
        left = stream.source(consumer="left" if claimed else "here", claim_after=1)
        await left.open()
        await left.read(10)
        await left.close()
        stream.redis.xtrim("reverb:publish", maxlen=0, approximate=False)
        async with publishing(stream.source(consumer="here", claim_after=1), server.settings) as running:
            await running.until_done(0, 1)
        (dead,) = await stream.dead()
        assert dead["original_id"] == id_
        assert "was the stream trimmed?" in dead["reason"]
        assert await stream.left() == 0


async def test_names_that_are_no_text(tmp_path: Path, server: ReverbServer) -> None:
    with RedisStream(tmp_path) as stream:
        await stream.add(channel=b"\xff", event="e", data="{}")
        async with publishing(stream.source(), server.settings) as running:
            await running.until_done(0, 1)
        (dead,) = await stream.dead()
        assert dead["reason"] == "its field 'channel' is not UTF-8"


# --- JetStream -------------------------------------------------------------------------------------------------


async def test_nats_that_wants_a_password(tmp_path: Path) -> None:
    with Nats(tmp_path, 'authorization {user: "ann", password: "S3CR3T"}') as server:
        await fails(NatsSource(server.url, group="g"), "check user and password")
        await fails(NatsSource(server.url.replace("://", "://ann:S3CR3T2@"), group="g"), "check user and password")
        right = NatsSource(server.url.replace("://", "://ann:S3CR3T@"), group="g")
        await right.open()
        await right.close()


async def test_nats_without_jetstream(tmp_path: Path) -> None:
    with Nats(tmp_path, jetstream=None) as server:
        await fails(NatsSource(server.url, group="g"), "start nats-server with --jetstream")


async def test_the_subject_says_the_channel_where_no_header_does(tmp_path: Path, server: ReverbServer) -> None:
    with JetStream(tmp_path) as stream:
        await stream.add(event="e", data="1")
        async with publishing(stream.source(), server.settings) as running:
            await running.until_done(1)
        server.assert_published("any", "e", 1)


@pytest.mark.parametrize("setting", ["deliver_subject", "ack_policy"])
async def test_a_consumer_of_another_kind(tmp_path: Path, setting: str) -> None:
    with JetStream(tmp_path) as stream:
        streams = NatsSource(stream.server.url, group="g")
        await streams.open()
        await streams.close()
        async with await nats.connect(stream.server.url) as client:
            manager = client.jsm()
            await manager.delete_stream("reverb-publish")
            await manager.add_stream(StreamConfig(name="reverb-publish", subjects=["reverb-publish.>"]))
            config = ConsumerConfig(durable_name="g", ack_policy=AckPolicy.EXPLICIT)
            if setting == "deliver_subject":
                config.deliver_subject = "push"
            else:
                config.ack_policy = AckPolicy.ALL
            await manager.add_consumer("reverb-publish", config)
        await fails(stream.source(), "it must be a pull consumer with the ack policy explicit")


async def test_a_group_that_can_not_be_called_so(tmp_path: Path) -> None:
    with JetStream(tmp_path) as stream:
        await fails(NatsSource(stream.server.url, group="a.b"), "a.b")


async def test_one_group_for_each_stream_that_is_made(tmp_path: Path) -> None:
    with JetStream(tmp_path) as stream:
        first = stream.source()
        await first.open()
        await first.close()
        await fails(NatsSource(stream.server.url, group="h"), "refuses 'reverb-publish' or its group 'h'")


async def test_a_dead_letter_as_large_as_a_message_may_be(tmp_path: Path, server: ReverbServer) -> None:
    with JetStream(tmp_path) as stream:
        await stream.add(channel="news", event="e", data=json.dumps("x" * (1024 * 1024 - 100)))
        async with publishing(stream.source(), server.settings) as running:
            await running.until_done(0, 1)
        (dead,) = await stream.dead()
        assert dead["data"] == ""
        assert "its data is left out" in dead["reason"]


async def test_a_dead_letter_is_a_message_of_its_own(tmp_path: Path, server: ReverbServer) -> None:
    with JetStream(tmp_path) as stream:
        headers = {"Nats-Msg-Id": "7", "Nats-Expected-Last-Sequence": "0"}
        await stream.add(channel="news", data="{}", **headers)
        async with publishing(stream.source(), server.settings) as running:
            await running.until_done(0, 1)
        (dead,) = await stream.dead()
        assert dead["Nats-Msg-Id"] == "reverb-publish-1"
        assert "Nats-Expected-Last-Sequence" not in dead


# --- without an engine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "missing", "extra"),
    [
        (RedisSource("redis://localhost", group="g"), "redis.asyncio", "relay-redis"),
        (NatsSource("nats://localhost", group="g"), "nats.aio.client", "relay-nats"),
    ],
    ids=["redis", "nats"],
)
async def test_the_extra_that_is_missing_is_named(
    source: Source, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    await fails(source, rf"pip install \"python-reverb\[{extra}\]\"")
