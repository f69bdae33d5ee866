"""The running relay: the embedded server on one side, Valkey on the other."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from redis.asyncio import Redis

from reverb import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    Events,
    ReverbClient,
    ReverbConfig,
)
from reverb.auth import ChannelAuth, sign_channel
from reverb.relay import EngineError, Find, Relay, _relay
from reverb.relay._log import Entry
from reverb.relay._redis import RedisSink
from reverb.server import ReverbServer
from tests.faults.proxy import FaultProxy, Link
from tests.loops import every_loop
from tests.relay.engines import Valkey
from tests.relay.memory import MemoryEngine, MemorySink
from tests.watching import client_tasks, until

LEASE = 0.6
"""Seconds."""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path) as valkey:
        yield valkey


class Log:
    """What consumers see."""

    def __init__(self, url: str) -> None:
        self._redis: Any = Redis.from_url(url, decode_responses=True)

    async def entries(self) -> list[dict[str, str]]:
        return [fields for _, fields in await self._redis.xrange("reverb")]

    async def wait_for(self, count: int, *, gaps: bool = False) -> list[dict[str, str]]:
        """Wait until so many entries are there, gap entries not counted unless ``gaps``."""
        end = monotonic() + 10
        while True:
            entries = [each for each in await self.entries() if gaps or each["event"] != "reverb:gap"]
            if len(entries) >= count:
                return entries
            assert monotonic() < end, f"not {count} entries, but {entries}"
            await asyncio.sleep(0.01)

    async def gaps(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (each["channel"], json.loads(each["data"]))
            for each in await self.entries()
            if each["event"] == "reverb:gap"
        ]

    async def close(self) -> None:
        await self._redis.aclose()


@pytest.fixture
async def log(valkey: Valkey) -> AsyncIterator[Log]:
    log = Log(valkey.url)
    yield log
    await log.close()


@asynccontextmanager
async def running(client: ReverbClient, channels: list[str], url: str, **options: Any) -> AsyncIterator[Relay]:
    """A relay that runs meanwhile; and is subscribed to what it can be."""
    relay = Relay(client, channels, to=url, **{"lease": LEASE, **options})
    async with client:
        task = asyncio.create_task(relay.run())
        try:
            await until(lambda: relay.status.channels == len(channels) and not relay.status.missing)
            yield relay
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_writes_what_it_receives(reverb_server: ReverbServer, valkey: Valkey, log: Log) -> None:
    async with running(ReverbClient(), ["orders"], valkey.url) as relay:
        await reverb_server.publish("orders", "shipped", {"id": 7, "name": "Zoë"})
        await reverb_server.publish("orders", "shipped", {"id": 8})
        first, second = await log.wait_for(2)
        await until(lambda: relay.status.written == 2)
        status = relay.status
    assert (first["channel"], first["event"]) == ("orders", "shipped")
    assert json.loads(first["data"]) == {"id": 7, "name": "Zoë"}
    assert "user_id" not in first
    assert "again" not in first
    assert int(first["sent_after"]) <= int(first["received_at"]) <= int(second["received_at"])
    epoch, number = first["writer"].split("-")
    assert second["writer"] == f"{epoch}-2"
    assert number == "1"
    assert await log.gaps() == []
    assert (status.role, status.received, status.pending, status.gaps, status.again) == ("leader", 2, 0, 0, 0)
    assert status.is_healthy


async def test_a_payload_is_written_as_it_was_received(
    reverb_server: ReverbServer, valkey: Valkey, log: Log
) -> None:
    async with running(ReverbClient(), ["orders"], valkey.url):
        for text in ('{ "b": 1.50,\n"a": "\\u00e9" }', "no JSON", ""):
            await reverb_server.publish("orders", "e", text)
        entries = await log.wait_for(3)
    assert [each["data"] for each in entries] == ['{ "b": 1.50,\n"a": "\\u00e9" }', '"no JSON"', '""']


async def test_one_of_two_writes(reverb_server: ReverbServer, valkey: Valkey, log: Log) -> None:
    async with (
        running(ReverbClient(), ["orders"], valkey.url) as first,
        running(ReverbClient(), ["orders"], valkey.url) as second,
    ):
        for number in range(20):
            await reverb_server.publish("orders", "e", {"n": number // 2})
        await until(lambda: first.status.received == second.status.received == 20)
        await log.wait_for(20)
        await until(lambda: first.status.others == 1)
        assert sorted([first.status.role, second.status.role]) == ["follower", "leader"]
    assert [json.loads(each["data"])["n"] for each in await log.entries()] == [n // 2 for n in range(20)]


async def test_one_that_ends_hands_over_at_once_and_nothing_is_lost_or_double(
    reverb_server: ReverbServer, valkey: Valkey, log: Log
) -> None:
    async with running(ReverbClient(), ["orders"], valkey.url, lease=2) as second:
        async with running(ReverbClient(), ["orders"], valkey.url, lease=2) as first:
            # What comes sooner than half a second after the second one has subscribed may be written again.
            await until(lambda: "leader" in (first.status.role, second.status.role) and second.status.is_ready)
            for number in range(10):
                await reverb_server.publish("orders", "e", {"n": number // 2})
            leader = first if first.status.role == "leader" else second
            await until(lambda: leader.status.written == 10)
        for number in range(10, 20):
            await reverb_server.publish("orders", "e", {"n": number // 2})
        entries = await log.wait_for(20)
    assert [json.loads(each["data"])["n"] for each in entries] == [n // 2 for n in range(20)]
    assert await log.gaps() == []
    assert not [each for each in entries if "again" in each]
    assert client_tasks() == set()


async def test_writes_what_is_left_before_it_ends(reverb_server: ReverbServer, valkey: Valkey, log: Log) -> None:
    async with running(ReverbClient(), ["orders"], valkey.url, lease=2) as relay:
        await until(lambda: relay.status.role == "leader")
        valkey.pause()
        for number in range(5):
            await reverb_server.publish("orders", "e", {"n": number})
        await until(lambda: relay.status.pending == 5)
        asyncio.get_running_loop().call_later(0.1, valkey.resume)
    assert len(await log.entries()) == 5
    assert relay.status.pending == 0


async def test_what_a_single_relay_missed_is_said(
    reverb_server: ReverbServer, reverb_config: ReverbConfig, valkey: Valkey, log: Log
) -> None:
    async with FaultProxy(reverb_server.host, reverb_server.port) as proxy:
        client = ReverbClient(ReverbConfig(**{**reverb_server.settings, "port": proxy.port}))
        async with running(client, ["orders"], valkey.url) as relay:
            await reverb_server.publish("orders", "e", {"n": 1})
            before = int((await log.wait_for(1))[0]["received_at"])
            proxy.refuse()
            proxy.hit(Link.reset)
            await until(lambda: not relay.status.is_connected)
            await reverb_server.publish("orders", "e", {"n": 2})
            await proxy.heal()
            await until(lambda: relay.status.missing == 0)
            await reverb_server.publish("orders", "e", {"n": 3})
            entries = await log.wait_for(3, gaps=True)
    assert [each["event"] for each in entries] == ["e", "reverb:gap", "e"]
    ((channel, gap),) = await log.gaps()
    assert (channel, gap["reason"]) == ("orders", "disconnect")
    assert gap["from"] <= before + LEASE * 1000
    assert gap["from"] < gap["to"] <= int(entries[2]["received_at"])


async def test_a_leader_that_loses_the_server_makes_way_without_a_gap(
    reverb_server: ReverbServer, valkey: Valkey, log: Log
) -> None:
    async with FaultProxy(reverb_server.host, reverb_server.port) as proxy:
        client = ReverbClient(ReverbConfig(**{**reverb_server.settings, "port": proxy.port}))
        async with running(client, ["orders"], valkey.url, lease=5) as first:
            await until(lambda: first.status.role == "leader")
            async with running(ReverbClient(), ["orders"], valkey.url, lease=5) as second:
                await until(lambda: second.status.is_ready and first.status.others == 1, deadline=10)
                await reverb_server.publish("orders", "e", {"n": 1})
                await log.wait_for(1)
                proxy.refuse()
                proxy.hit(Link.reset)
                await until(lambda: not first.status.is_connected)
                await reverb_server.publish("orders", "e", {"n": 2})
                await until(lambda: second.status.role == "leader", deadline=3)  # not a lease later
                await log.wait_for(2)
                await proxy.heal()
                await until(lambda: first.status.is_ready, deadline=10)
    assert [json.loads(each["data"])["n"] for each in await log.entries()] == [1, 2]


async def test_while_the_engine_is_away_it_keeps_what_it_receives(
    reverb_server: ReverbServer, valkey: Valkey, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(ReverbClient(), ["orders"], valkey.url) as relay:
        await until(lambda: relay.status.role == "leader")
        valkey.kill()
        for number in range(50):
            await reverb_server.publish("orders", "e", {"n": number})
        await until(lambda: relay.status.received == 50 and relay.status.problem is not None)
        assert not relay.status.is_healthy
        assert relay.status.pending == 50
        assert relay.status.lag > 0
        valkey.start()
        entries = await log.wait_for(50)
        await until(lambda: relay.status.problem is None)
    assert [json.loads(each["data"])["n"] for each in entries] == list(range(50))
    assert await log.gaps() == []
    told = [each for each in caplog.records if each.name == "reverb.relay" and each.levelno == logging.WARNING]
    assert len([each for each in told if "keeps trying" in each.getMessage()]) == 1


@every_loop
async def test_a_problem_with_the_engine_ends_when_another_relay_leads(
    reverb_server: ReverbServer, valkey: Valkey
) -> None:
    async with FaultProxy("127.0.0.1", valkey.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with running(ReverbClient(), ["orders"], url, lease=6) as relay, Redis.from_url(valkey.url) as redis:
            await until(lambda: relay.status.role == "leader")
            await redis.flushall()
            await redis.set("{reverb}:lease", "another", px=60_000)
            proxy.refuse()
            proxy.hit(Link.reset)
            await reverb_server.publish("orders", "shipped", {"id": 7})
            await until(lambda: relay.status.problem)
            await proxy.heal()
            await until(lambda: relay.status.role == "follower")
            await until(lambda: relay.status.problem is None)


async def test_it_starts_while_the_engine_is_away(reverb_server: ReverbServer, valkey: Valkey, log: Log) -> None:
    valkey.kill()
    async with running(ReverbClient(), ["orders"], valkey.url) as relay:
        await reverb_server.publish("orders", "e", {"n": 1})
        await until(lambda: relay.status.received == 1 and relay.status.problem is not None)
        valkey.start()
        (entry,) = await log.wait_for(1)
    assert json.loads(entry["data"]) == {"n": 1}


async def test_beyond_its_buffer_the_oldest_are_given_up_and_that_is_said(
    reverb_server: ReverbServer, valkey: Valkey, log: Log
) -> None:
    async with running(ReverbClient(), ["orders"], valkey.url, buffer=10_000) as relay:
        await until(lambda: relay.status.role == "leader")
        valkey.kill()
        for number in range(50):
            await reverb_server.publish("orders", "e", {"n": number, "text": "x" * 700})
        await until(lambda: relay.status.received == 50)
        valkey.start()
        await log.wait_for(2, gaps=True)
        await until(lambda: relay.status.pending == 0)
        entries = await log.entries()
    sending = [each["event"] for each in entries].index("reverb:gap")
    assert [json.loads(each["data"])["n"] for each in entries[:sending]] == list(range(sending))
    assert json.loads(entries[sending]["data"])["reason"] == "buffer"
    numbers = [json.loads(each["data"])["n"] for each in entries[sending + 1 :]]
    assert 5 <= len(numbers) <= 10
    assert numbers == list(range(50 - len(numbers), 50))


async def test_a_channel_that_is_refused_does_not_hold_up_the_others(
    reverb_server: ReverbServer, valkey: Valkey, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    class Authorizer:
        refuses = True

        async def __call__(self, socket_id: str, channel: str) -> ChannelAuth:
            if self.refuses:
                raise AuthenticationError("not yet")
            return await ReverbClient().authorize(socket_id, channel)  # type: ignore[attr-defined, no-any-return]

    client = ReverbClient(authorizer=Authorizer())
    relay = Relay(client, ["orders", "private-orders"], to=valkey.url, lease=LEASE)
    async with client:
        task = asyncio.create_task(relay.run())
        await until(lambda: relay.status.role == "leader" and relay.status.missing == 1)
        await reverb_server.publish("orders", "e", {"n": 1})
        await log.wait_for(1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert "can't subscribe to 'private-orders'; its events are not relayed; trying again: not yet" in caplog.text


async def test_a_channel_that_is_refused_after_a_reconnect_makes_nobody_wait(
    reverb_server: ReverbServer, valkey: Valkey
) -> None:
    refused: set[str] = set()

    async def authorize(socket_id: str, channel: str) -> ChannelAuth:
        if channel in refused:
            raise AuthenticationError("no more")
        return ChannelAuth(sign_channel("app-key", "app-secret", socket_id, channel))

    async with running(ReverbClient(authorizer=authorize), ["orders", "private-orders"], valkey.url) as relay:
        await until(lambda: relay.status.is_ready)
        refused.add("private-orders")
        reverb_server.drop()
        await until(lambda: relay.status.missing == 1 and relay.status.is_ready)


async def test_client_events_have_their_sender(reverb_server: ReverbServer, valkey: Valkey, log: Log) -> None:
    async with (
        running(ReverbClient(), ["presence-room"], valkey.url, presence_user={"user_id": "relay"}),
        ReverbClient() as other,
    ):
        room = await other.subscribe("presence-room", {"user_id": "ann"})
        await room.trigger("typing", {})
        (entry,) = await log.wait_for(1)
    assert (entry["event"], entry["user_id"]) == ("client-typing", "ann")


async def test_encrypted_events_are_written_as_they_are(
    reverb_server: ReverbServer, valkey: Valkey, log: Log
) -> None:
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    config = ReverbConfig(**reverb_server.settings, encryption_master_key=key)
    async with ReverbClient(config) as publisher:
        async with running(ReverbClient(), ["private-encrypted-a"], valkey.url):
            await publisher.api.trigger("private-encrypted-a", "e", {"n": 1})
            (entry,) = await log.wait_for(1)
        assert json.loads(entry["data"]).keys() == {"nonce", "ciphertext"}
        client = ReverbClient(config)
        async with running(client, ["private-encrypted-a"], valkey.url, decrypt=True) as relay:
            await publisher.api.trigger("private-encrypted-a", "e", {"n": 2})
            await until(lambda: relay.status.written > 0)
    assert json.loads((await log.entries())[-1]["data"]) == {"n": 2}


async def test_finds_channels_and_the_others_follow(reverb_server: ReverbServer, valkey: Valkey, log: Log) -> None:
    find = Find(prefix="orders.", exclude=("*.debug",), interval=0.2)
    async with (
        running(ReverbClient(), [], valkey.url, find=find) as first,
        running(ReverbClient(), ["news"], valkey.url, find=find) as second,
        ReverbClient() as page,
    ):
        for channel in ("orders.1", "private-orders.2", "orders.debug", "other"):
            await page.subscribe(channel)
        await until(lambda: first.status.channels == 1 and second.status.channels == 2)
        await reverb_server.publish("orders.1", "e", {"n": 1})
        await reverb_server.publish("orders.debug", "e", {"n": 2})
        await log.wait_for(1)
        await page.unsubscribe("orders.1")
        await until(lambda: first.status.channels == 0 and second.status.channels == 1, deadline=10)
    events = [each for each in await log.entries() if each["event"] == "e"]
    assert [each["channel"] for each in events] == ["orders.1"]


async def test_a_follower_knows_when_it_did_not_follow_a_channel(
    reverb_server: ReverbServer, engine: MemoryEngine
) -> None:
    engine.holder = "another"
    async with running(ReverbClient(), [], "memory:", find=Find(interval=0.2)) as relay:
        engine.state = b'{"channels":["orders"]}'
        await until(lambda: relay.status.channels == 1 and not relay.status.missing)
        engine.state = b'{"channels":[]}'
        await until(lambda: relay.status.channels == 0)
        engine.state = b'{"channels":["orders"]}'
        await until(lambda: relay.status.channels == 1 and not relay.status.missing)
        engine.holder, engine.state = None, b""  # it has lost everything, and the other relay is gone
        await until(lambda: relay.status.gaps >= 2)
    gaps = [json.loads(entry.data) for entry in engine.log]
    assert gaps[0]["to"] == gaps[1]["from"] < gaps[1]["to"]


async def test_a_relay_that_can_not_read_the_log_does_not_keep_others_from_leading(
    reverb_server: ReverbServer, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MemorySink.tail
    unable: str | None = None

    async def fail_for_one(sink: MemorySink, since: int) -> list[Entry]:
        nonlocal unable
        unable = unable or engine.holder
        if engine.holder == unable:
            raise EngineError("the log can't be read")
        return await read(sink, since)

    monkeypatch.setattr(MemorySink, "tail", fail_for_one)
    async with running(ReverbClient(), ["orders"], "memory:") as first:
        await until(lambda: first.status.problem == "the log can't be read")
        async with running(ReverbClient(), ["orders"], "memory:") as second:
            await until(lambda: second.status.role == "leader")
            await reverb_server.publish("orders", "shipped", {"id": 7})
            await until(lambda: [entry.event for entry in engine.log] == ["shipped"])


async def test_an_engine_that_goes_away_during_a_takeover_holds_nobody_up_when_it_is_back(
    reverb_server: ReverbServer, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MemorySink.tail
    outages = 0

    async def fail_once(sink: MemorySink, since: int) -> list[Entry]:
        nonlocal outages
        outages += 1
        engine.is_away = outages == 1
        return await read(sink, since)

    monkeypatch.setattr(MemorySink, "tail", fail_once)
    async with running(ReverbClient(), ["orders"], "memory:") as relay:
        await until(lambda: relay.status.problem)
        engine.is_away = False
        await until(lambda: relay.status.role == "leader" and relay.status.problem is None)
    assert outages == 2


async def test_ends_though_a_cancellation_is_lost(
    reverb_server: ReverbServer, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_writing = asyncio.Event()

    async def append(sink: RedisSink, epoch: int, entries: Sequence[Entry]) -> None:
        is_writing.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr(RedisSink, "append", append)
    async with ReverbClient() as client:
        task = asyncio.create_task(Relay(client, ["orders"], to=valkey.url, lease=LEASE).run())
        await reverb_server.wait_for_subscription("orders")
        await reverb_server.publish("orders", "shipped", {"id": 7})
        await asyncio.wait_for(is_writing.wait(), 10)
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        assert task.done()


async def test_several_relays_that_are_one_member_stay_with_the_others(
    reverb_server: ReverbServer, valkey: Valkey
) -> None:
    options: dict[str, Any] = {
        "find": Find(prefix="presence-", interval=0.1),
        "presence_user": {"user_id": "relay"},
    }
    left: list[Any] = []
    async with (
        running(ReverbClient(), [], valkey.url, **options) as first,
        running(ReverbClient(), [], valkey.url, **options) as second,
        ReverbClient() as page,
    ):
        room = await page.subscribe("presence-room", {"user_id": "ann"})
        room.bind(Events.MEMBER_REMOVED, lambda event, data, channel: left.append(data))
        await until(lambda: first.status.channels == second.status.channels == 1)
        await until(lambda: {first.status.others, second.status.others} == {0, 1})
        with pytest.raises(AssertionError):
            await until(lambda: left or not first.status.channels or not second.status.channels, deadline=1)
        await page.unsubscribe("presence-room")
        await until(lambda: first.status.channels == second.status.channels == 0)


async def test_a_found_channel_that_is_refused_is_not_left_and_taken_again(
    reverb_server: ReverbServer,
    valkey: Valkey,
    log: Log,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = ReverbClient()
    asked = 0
    channels = client.api.channels

    async def count(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        return await channels(*args)

    monkeypatch.setattr(client.api, "channels", count)
    find = Find(interval=0.05)
    async with ReverbClient() as page, running(client, ["news"], valkey.url, find=find, decrypt=True) as relay:
        await page.subscribe("private-encrypted-a", decrypt=False)
        await until(lambda: "private-encrypted-a" in caplog.text)
        before = asked
        await until(lambda: asked > before + 40, deadline=20)
        assert relay.status.channels == 2
    assert caplog.text.count("can't subscribe to 'private-encrypted-a'") == 1
    assert await log.gaps() == []


@pytest.mark.parametrize("is_leader", [True, False])
async def test_ends_for_an_api_that_refuses_it(
    reverb_server: ReverbServer, valkey: Valkey, *, is_leader: bool
) -> None:
    find = Find(interval=0.1)
    wrong = ReverbConfig(**{**reverb_server.settings, "app_secret": "wrong"})
    async with AsyncExitStack() as stack:
        if not is_leader:
            other = await stack.enter_async_context(running(ReverbClient(), [], valkey.url, find=find))
            await until(lambda: other.status.role == "leader")
        client = await stack.enter_async_context(ReverbClient(wrong))
        with pytest.raises(APIError, match="401"):
            await asyncio.wait_for(Relay(client, to=valkey.url, lease=LEASE, find=find).run(), 5)


async def test_an_api_that_fails_for_a_while_is_a_problem_until_then(
    reverb_server: ReverbServer, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = ReverbClient()
    channels = client.api.channels
    async with running(client, ["news"], valkey.url, find=Find(interval=0.1)) as relay:
        await until(lambda: relay.status.role == "leader")

        async def fail(*args: Any) -> Any:
            raise APIError(503, "the API is busy")

        monkeypatch.setattr(client.api, "channels", fail)
        await until(lambda: relay.status.finding_problem == "the API is busy")
        assert not relay.status.is_healthy
        assert relay.status.problem is None
        monkeypatch.setattr(client.api, "channels", channels)
        await until(lambda: relay.status.is_healthy)


async def test_ends_for_an_engine_that_can_not_be_used(reverb_server: ReverbServer, valkey: Valkey) -> None:
    redis: Redis = Redis.from_url(valkey.url)
    await redis.set("reverb", "not a stream")
    await redis.aclose()
    async with ReverbClient() as client:
        with pytest.raises(ConfigurationError, match="in use for something else"):
            await asyncio.wait_for(Relay(client, ["orders"], to=valkey.url).run(), 5)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://localhost", "must begin with one of redis://"),
        ("", "must begin with one"),
        ("redis://", "must be"),
    ],
)
async def test_refuses_urls(url: str, message: str) -> None:
    client = ReverbClient(app_key="key", host="127.0.0.1")
    with pytest.raises(ConfigurationError, match=message):
        Relay(client, ["orders"], to=url)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lease": 0}, "lease of a relay must be from 0.1 to 60 seconds, not 0"),
        ({"lease": 3600}, "not 3600"),
        ({"lease": float("nan")}, "not nan"),
        ({"partitions": 0}, "partitions of a relay must be 1 or more"),
        ({"maxlen": 0}, "maxlen of a relay must be 1 or more"),
        ({"max_age": -1}, "max_age of a relay must be more than 0"),
        ({"buffer": 0}, "buffer of a relay must be 1 or more"),
        ({"find": Find(interval=0)}, "interval between two polls of a relay must be more than 0"),
        ({"channels": []}, "no channels"),
    ],
)
async def test_refuses_what_can_not_work(options: dict[str, Any], message: str) -> None:
    client = ReverbClient(app_key="key", host="127.0.0.1", app_id="1", app_secret="secret")
    with pytest.raises(ConfigurationError, match=message):
        Relay(client, **{"channels": ["orders"], "to": "redis://localhost", **options})


async def test_one_channel_and_one_pattern_may_be_texts(
    reverb_server: ReverbServer, valkey: Valkey, log: Log
) -> None:
    client, find = ReverbClient(), Find(exclude="*.debug", interval=0.1)
    async with ReverbClient() as page, client:
        for channel in ("orders.debug", "orders.1"):
            await page.subscribe(channel)
        task = asyncio.create_task(Relay(client, "news", to=valkey.url, lease=LEASE, find=find).run())
        await until(lambda: client.channels.keys() == {"news", "orders.1"})
        task.cancel()
        await asyncio.wait({task})


async def test_runs_once(reverb_server: ReverbServer, valkey: Valkey, log: Log) -> None:
    async with running(ReverbClient(), ["orders"], valkey.url) as relay:
        with pytest.raises(RuntimeError, match="can be called once"):
            await relay.run()
        await reverb_server.publish("orders", "e", {})
        await log.wait_for(1)


async def test_wants_a_connected_client(
    reverb_server: ReverbServer, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    client = ReverbClient()
    relay = Relay(client, ["orders"], to=valkey.url)
    with pytest.raises(ConnectionError, match="call connect"):
        await relay.run()
    async with client:
        pass
    with pytest.raises(ConnectionError, match="call connect"):
        await relay.run()
    assert not [each for each in caplog.records if each.name == "reverb.relay"]


async def test_ends_for_a_channel_that_lacks_a_setting(reverb_server: ReverbServer, valkey: Valkey) -> None:
    settings = {**reverb_server.settings, "app_secret": None}
    async with ReverbClient(ReverbConfig(**settings)) as client:
        with pytest.raises(ConfigurationError, match="REVERB_APP_SECRET is missing"):
            await asyncio.wait_for(Relay(client, ["orders", "private-x"], to=valkey.url).run(), 5)
    assert client_tasks() == set()


async def test_a_channel_that_is_refused_again_and_again_is_told_of_once(
    reverb_server: ReverbServer, valkey: Valkey, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_relay, "_REFUSED_RETRY", (0.01, 0.02))

    class Authorizer:
        refusals = 0

        async def __call__(self, socket_id: str, channel: str) -> ChannelAuth:
            self.refusals += 1
            if self.refusals < 5:
                raise AuthenticationError("not yet")
            return ChannelAuth(sign_channel("app-key", "app-secret", socket_id, channel))

    client = ReverbClient(authorizer=Authorizer())
    async with running(client, ["private-orders"], valkey.url):
        pass
    told = [each.getMessage() for each in caplog.records if "private-orders" in each.getMessage()]
    assert told == [
        "can't subscribe to 'private-orders'; its events are not relayed; trying again: not yet",
        "subscribed to 'private-orders'; its events are relayed now",
    ]


async def test_who_it_is_on_presence_channels_may_be_the_endpoint_s_to_say() -> None:
    client = ReverbClient(app_key="key", host="127.0.0.1", auth_endpoint="http://127.0.0.1/auth")
    Relay(client, ["presence-room"], to="redis://localhost")


async def test_presence_channels_want_to_know_who_comes() -> None:
    client = ReverbClient(app_key="key", host="127.0.0.1")
    with pytest.raises(ConfigurationError, match="presence_user"):
        Relay(client, ["presence-room"], to="redis://localhost")


async def test_ends_when_its_client_does(reverb_server: ReverbServer, valkey: Valkey) -> None:
    client = ReverbClient()
    async with client:
        task = asyncio.create_task(Relay(client, ["orders"], to=valkey.url, lease=LEASE).run())
        await until(lambda: "orders" in client.channels)
    await asyncio.wait_for(task, 5)
    assert client_tasks() == set()
