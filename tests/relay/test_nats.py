"""The log in NATS JetStream, on a real server."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from reverb.exceptions import ConfigurationError
from reverb.relay._log import GAP, EngineError, Entry, LeaseLostError, LeaseStatus
from reverb.relay._nats import NatsSink
from tests.certificates import make_certificates
from tests.faults.proxy import FaultProxy, Link
from tests.integration.servers import free_ports
from tests.relay.nats_server import Nats
from tests.relay.test_sinks import granted_in_time
from tests.test_secrets import SECRET, raised
from tests.watching import turns, until, wait_turns

LEASE = 20.0
"""Seconds; calls may take half of that, which is enough on a busy machine."""

BATCHES = re.compile("Nats-(Batch|Expected)-")
"""Headers that the server keeps."""

Make = Callable[..., NatsSink]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nats]:
    with Nats(tmp_path) as running:
        yield running


@pytest.fixture
async def make(server: Nats) -> AsyncIterator[Make]:
    """Makes sinks, which are closed when the test ends."""
    made: list[NatsSink] = []

    def make_sink(relay: str = "a", *, url: str = server.url, lease: float = LEASE, **options: Any) -> NatsSink:
        made.append(NatsSink(url, relay=relay, lease=lease, **options))
        return made[-1]

    yield make_sink
    for sink in made:
        await sink.close()


@pytest.fixture
async def client(server: Nats) -> AsyncIterator[Client]:
    """A client as any program has one."""
    async with await nats.connect(server.url) as connected:
        yield connected


def entries(epoch: int, count: int, first: int = 1, **fields: Any) -> list[Entry]:
    return [entry(epoch, number, **fields) for number in range(first, first + count)]


def entry(epoch: int, number: int, **fields: Any) -> Entry:
    usual: dict[str, Any] = {
        "channel": "orders",
        "event": "App.Paid",
        "data": b'{"n":%d}' % number,
        "user_id": None,
        "received_at": 1_000 + number,
        "sent_after": 900 + number,
    }
    return Entry(**usual | fields, epoch=epoch, number=number)


async def written(client: Client, subject: str = "reverb.>", stream: str = "reverb") -> list[Msg]:
    """What a consumer gets of the log, from its beginning."""
    context = client.jetstream()
    info = await context.stream_info(stream, subjects_filter=subject)
    subscription = await context.subscribe(subject, stream=stream, ordered_consumer=True)
    messages = [await subscription.next_msg(5) for _ in range(sum((info.state.subjects or {}).values()))]
    await subscription.unsubscribe()
    return messages


async def ids(client: Client) -> list[str]:
    return [(message.headers or {}).get("Nats-Msg-Id", "") for message in await written(client)]


async def acquired(sink: NatsSink) -> int:
    grant = await sink.acquire()
    assert grant is not None, "another relay holds the lease"
    return grant.epoch


async def lapse(sink: NatsSink) -> LeaseStatus:
    """Wait until nobody holds the lease."""
    end = time.monotonic() + 10
    while (lease_status := await sink.check_lease(is_ready=False)).holder is not None:
        assert time.monotonic() < end, "the lease does not end"
        await asyncio.sleep(0.01)
    return lease_status


class TestTheLease:
    async def test_nobody_has_it_at_first(self, make: Make) -> None:
        sink = make()
        before = time.time() * 1000
        lease_status = await sink.check_lease(is_ready=False)
        assert (lease_status.holder, lease_status.watermark, lease_status.state, lease_status.others) == (
            None,
            None,
            b"",
            0,
        )
        assert before - 2 <= lease_status.clock <= time.time() * 1000 + 2

    async def test_one_of_many_that_want_it_at_once_gets_it(self, make: Make) -> None:
        sinks = [make(f"relay {number}") for number in range(8)]
        grants = await asyncio.gather(*(sink.acquire() for sink in sinks))
        (holder,) = (sink for sink, grant in zip(sinks, grants, strict=True) if grant is not None)
        (grant,) = filter(None, grants)
        await holder.append(grant.epoch, entries(grant.epoch, 1))

    async def test_its_length_is_that_of_its_holder(self, make: Make) -> None:
        patient, hasty = make("a", lease=20), make("b", lease=2)
        await acquired(patient)
        assert (await hasty.check_lease(is_ready=False)).holder == "a"
        await asyncio.sleep(2.05)
        assert await hasty.acquire() is None

    async def test_what_is_given_back_is_not_renewed(self, make: Make) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.release(epoch, 1, b"")
        with pytest.raises(LeaseLostError, match="no relay has it"):
            await sink.renew(epoch, 2, b"")

    async def test_others_are_those_that_are_ready(self, make: Make) -> None:
        one, two, three = (make(name, lease=3.0) for name in ("a.1", "b 2", "c>*"))
        await one.check_lease(is_ready=True)
        await two.check_lease(is_ready=True)
        await three.check_lease(is_ready=False)
        assert [(await each.check_lease(is_ready=each is not three)).others for each in (one, two, three)] == [
            1,
            1,
            2,
        ]
        assert (await one.renew(await acquired(one), None, b"")).others == 1
        await two.check_lease(is_ready=False)
        assert (await one.check_lease(is_ready=True)).others == 0
        end = time.monotonic() + 10
        while (await three.check_lease(is_ready=False)).others:
            assert time.monotonic() < end, "one that says nothing stays ready"
            await asyncio.sleep(0.02)


async def repeated(call: Callable[[], Awaitable[Any]], deadline: float = 10.0) -> Any:
    """Call until the engine can be reached."""
    end = time.monotonic() + deadline
    while True:
        try:
            return await call()
        except EngineError:
            assert time.monotonic() < end, "the engine is not reached in time"
            await asyncio.sleep(0.01)


class TestWriting:
    async def test_what_a_consumer_gets(self, make: Make, client: Client) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.append(
            epoch,
            [
                entry(epoch, 1, channel="private-user.7", event="client-typing", user_id="ü 7", data=b'{"a": 1}'),
                entry(epoch, 2, event=GAP, data=b'{"from":null,"to":5,"reason":"no relay"}', again=True),
            ],
        )
        first, second = await written(client)
        assert first.subject == "reverb.private-user.7"
        assert first.data == b'{"a": 1}'
        assert {name: value for name, value in (first.headers or {}).items() if not BATCHES.match(name)} == {
            "Nats-Msg-Id": f"{epoch}-1",
            "channel": "private-user.7",
            "event": "client-typing",
            "user_id": "ü 7",
            "received_at": "1001",
            "sent_after": "901",
        }
        assert second.subject == "reverb.orders"
        assert second.headers is not None
        assert second.headers["event"] == "reverb:gap"
        assert second.headers["again"] == "1"
        assert "user_id" not in second.headers

    async def test_partitions_are_part_of_the_subject(self, make: Make, client: Client) -> None:
        sink = make(partitions=4, stream="log")
        epoch = await acquired(sink)
        names = [f"channel-{number}" for number in range(20)]
        await sink.append(epoch, [entry(epoch, n + 1, channel=name) for n, name in enumerate(names)])
        parts = [zlib.crc32(name.encode()) % 4 for name in names]
        messages = await written(client, "log.>", "log")
        assert [message.subject for message in messages] == [
            f"log.{part}.{name}" for part, name in zip(parts, names, strict=True)
        ]
        some = await written(client, "log.2.>", "log")
        assert [message.subject for message in some] == [
            f"log.2.{n}" for n, p in zip(names, parts, strict=True) if p == 2
        ]

    @pytest.mark.parametrize(
        ("channel", "subject"),
        [
            ("private-a_b=@,;", "private-a_b=@,;"),
            ("a.b.c", "a.b.c"),
            (".a..b.", "%2Ea.%2Eb%2E"),
            ("...", "%2E%2E%2E"),
            ("a b\t", "a%20b%09"),
            ("*", "%2A"),
            (">", "%3E"),
            ("a.>", "a.%3E"),
            ("100%", "100%25"),
            ("é\U0001f600", "%C3%A9%F0%9F%98%80"),
            (" x\r\nNats-Msg-Id: 1-1", "%20x%0D%0ANats-Msg-Id:%201-1"),
            ("", "%"),
            (5000 * "x", 1000 * "x"),
            (3000 * ".", 1000 * "%2E"),
        ],
    )
    async def test_names_of_channels(self, make: Make, client: Client, channel: str, subject: str) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 3, channel=channel))
        first, *_ = await written(client)
        assert first.subject == f"reverb.{subject}"
        assert first.headers is not None
        name = first.headers["channel"]
        assert (unquote(name) if "quoted" in first.headers else name) == channel
        assert await sink.tail(0) == entries(epoch, 3, channel=channel)

    @pytest.mark.parametrize(
        "text", ["", " a ", "a\r\nagain: 1", "\x00\x7f\u2028", "100%41", "é=?utf-8?q?x?=", "\t"]
    )
    async def test_texts_come_back_as_they_were(self, make: Make, text: str) -> None:
        sink = make()
        epoch = await acquired(sink)
        odd = [
            entry(epoch, 1, event=text),
            entry(epoch, 2, user_id=text, data=b""),
            entry(epoch, 3, again=True, data=b"\r\n\x00\xff" * 1000),
        ]
        await sink.append(epoch, odd)
        assert await sink.tail(0) == odd

    async def test_so_it_is_where_the_server_has_forgotten_the_ids(self, make: Make, client: Client) -> None:
        await make().open()
        await change(client, duplicate_window=100_000_000)
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 30))
        await asyncio.sleep(0.5)
        await sink.append(epoch, entries(epoch, 30))
        await sink.append(epoch, entries(epoch, 30, 11))
        assert await ids(client) == [f"{epoch}-{number}" for number in range(1, 41)]

    async def test_a_deposed_writer_writes_nothing(self, make: Make, client: Client) -> None:
        one, other = make("a", lease=2), make("b")
        old = await acquired(one)
        await one.append(old, entries(old, 10))
        await lapse(other)
        new = await acquired(other)
        for first, count in ((11, 1), (11, 100), (11, 2000), (5, 20), (1, 10)):
            with pytest.raises(LeaseLostError, match="has another writer"):
                await one.append(old, entries(old, count, first))
        await other.append(new, entries(new, 5))
        with pytest.raises(LeaseLostError):
            await one.append(old, entries(old, 100, 11))
        expected = [f"{old}-{number}" for number in range(1, 11)] + [f"{new}-{number}" for number in range(1, 6)]
        assert await ids(client) == expected

    async def test_nor_does_one_that_is_deposed_while_it_writes(self, make: Make, client: Client) -> None:
        one, other = make("a", lease=20), make("b", lease=20)
        old = await acquired(one)
        count = 0

        async def write() -> None:
            nonlocal count
            while True:
                await one.append(old, entries(old, 50, count + 1))
                count += 50

        writing = asyncio.create_task(write())
        await until(lambda: count > 500)
        await one.release(old, None, b"")
        new = await acquired(other)
        tail = [each.number for each in await other.tail(0)]
        with pytest.raises(LeaseLostError):
            await writing
        await other.append(new, entries(new, 3))
        assert tail[:count] == list(range(1, count + 1))
        assert await ids(client) == [f"{old}-{number}" for number in tail] + [f"{new}-{n}" for n in (1, 2, 3)]

    async def test_one_that_is_paused_while_it_acquires_writes_nothing_out_of_turn(
        self, server: Nats, make: Make, client: Client
    ) -> None:
        kept: list[Entry] = []

        async def take_over() -> None:
            other = NatsSink(server.url, relay="b", lease=20)
            try:
                async with await nats.connect(server.url) as administrator:
                    await administrator.jetstream().purge_stream("KV_reverb_relay")  # as if the lease had run out
                epoch = await acquired(other)
                await other.append(epoch, entries(epoch, 2))
                kept.extend(entries(epoch, 2))
                await other.release(epoch, None, b"")
            finally:
                await other.close()

        for number in range(0, 80, 2):
            one = make("a")
            await one.open()
            acquiring = asyncio.create_task(one.acquire())
            await wait_turns(number)
            pause = threading.Thread(target=asyncio.run, args=(take_over(),))
            pause.start()
            pause.join()  # nothing else runs in this thread, as if the process was stopped
            try:
                grant = await acquiring
                if grant is not None:
                    await one.append(grant.epoch, entries(grant.epoch, 2))
                    kept.extend(entries(grant.epoch, 2))
                    await one.release(grant.epoch, None, b"")
            except (EngineError, LeaseLostError):
                pass
            await one.close()
        log = await make("reader").tail(0)
        assert [each for each in log if each in kept] == kept
        assert [each.epoch for each in log] == sorted(each.epoch for each in log)

    async def test_entries_before_must_be_there(self, make: Make, client: Client) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 3))
        with pytest.raises(LeaseLostError, match="has lost entries"):
            await sink.append(epoch, entries(epoch, 3, 5))
        with pytest.raises(LeaseLostError):
            await sink.append(epoch + 1, entries(epoch + 1, 3))
        assert await ids(client) == [f"{epoch}-{number}" for number in (1, 2, 3)]

    async def test_a_server_that_lost_its_memory_deposes(
        self, server: Nats, make: Make, tmp_path: Path, client: Client
    ) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 10))
        for stream in ("reverb", "KV_reverb_relay", "KV_reverb_ready"):
            await client.jetstream().delete_stream(stream)
        server.restart()
        with pytest.raises(LeaseLostError):
            await repeated(lambda: sink.append(epoch, entries(epoch, 10, 11)))
        with pytest.raises(LeaseLostError):
            await sink.renew(epoch, 1, b"")
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 1))

    async def test_nothing_is_stored_where_entries_are_lost(self, make: Make, client: Client) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 10))
        await sink.renew(epoch, 5, b"kept")
        await client.jetstream().delete_stream("reverb")
        await make("b").open()  # makes it anew
        with pytest.raises(LeaseLostError, match="has lost entries"):
            await sink.renew(epoch, 6, b"")
        await sink.release(epoch, 7, b"")
        seen = await sink.check_lease(is_ready=False)
        assert (seen.holder, seen.watermark, seen.state) == ("a", 5, b"kept")
        for _ in range(11):  # as many as there were
            await client.jetstream().publish("reverb.orders", b"foreign")
        with pytest.raises(LeaseLostError, match="has lost entries"):
            await sink.renew(epoch, 8, b"")

    async def test_entries_that_limits_removed_are_not_lost(self, make: Make, client: Client) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 10))
        await client.jetstream().purge_stream("reverb")
        assert (await sink.renew(epoch, 6, b"")).watermark == 6

    async def test_streams_that_are_deleted_are_made_anew(self, make: Make, client: Client) -> None:
        sink = make()
        for stream in ("reverb", "KV_reverb_relay", "KV_reverb_ready"):
            epoch = await acquired(sink)
            await sink.append(epoch, entries(epoch, 1))
            await client.jetstream().delete_stream(stream)
            if stream == "reverb":
                with pytest.raises(EngineError):
                    await sink.append(epoch, entries(epoch, 1, 2))
                with pytest.raises(LeaseLostError):
                    await sink.append(epoch, entries(epoch, 1, 2))
            else:
                with pytest.raises(EngineError):
                    await sink.check_lease(is_ready=False)
                await sink.check_lease(is_ready=False)

    async def test_what_others_write_into_the_stream_deposes(self, make: Make, client: Client) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 3))
        await client.jetstream().publish("reverb.orders", b"foreign")
        with pytest.raises(LeaseLostError):
            await sink.append(epoch, entries(epoch, 3, 4))
        new = await acquired(sink)
        await sink.append(new, entries(new, 2))
        assert await sink.tail(0) == entries(epoch, 3) + entries(new, 2)

    async def test_a_purge_deposes_nobody(self, make: Make, client: Client) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 3))
        await client.jetstream().purge_stream("reverb")
        await sink.append(epoch, entries(epoch, 3, 4))
        assert await ids(client) == [f"{epoch}-{number}" for number in (4, 5, 6)]
        assert await acquired(sink) > epoch

    async def test_epochs_grow_over_a_restart_with_an_empty_log(
        self, server: Nats, make: Make, client: Client
    ) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 3))
        await client.jetstream().purge_stream("reverb")
        server.restart()
        with pytest.raises(LeaseLostError):
            await repeated(lambda: sink.append(epoch, entries(epoch, 3, 4)))
        assert await acquired(sink) > epoch

    async def test_what_is_too_large_is_a_gap(
        self, make: Make, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, [entry(epoch, 1), entry(epoch, 2, data=b"x" * 1_048_570), entry(epoch, 3)])
        await sink.append(epoch, [entry(epoch, 4, data=b"x" * 1_000_000)])
        await change(client, max_msg_size=10_000)
        with pytest.raises(ConfigurationError, match="max_msg_size"):
            await sink.append(epoch, [entry(epoch, 5, data=b"x" * 20_000)])
        another = make()
        epoch = await acquired(another)
        await another.append(epoch, [entry(epoch, 1, data=b"x" * 20_000)])
        found = await another.tail(0)
        assert [each.is_gap for each in found] == [False, True, False, False, True]
        gap = json.loads(found[1].data)
        assert gap == {"from": found[1].sent_after, "to": found[1].received_at, "reason": "size"}
        assert "an event of 'orders' is lost, because it is too large for nats://" in caplog.text


async def change(client: Client, **settings: Any) -> None:
    """Change a stream's settings, as an administrator does."""
    info = json.loads((await client.request("$JS.API.STREAM.INFO.reverb", b"")).data)
    changed = json.dumps({**info["config"], **settings}).encode()
    answer = json.loads((await client.request("$JS.API.STREAM.UPDATE.reverb", changed)).data)
    assert "error" not in answer, answer


async def test_a_stream_with_replicas_outlives_deposed_writers_and_its_leader(tmp_path: Path) -> None:
    ports = free_ports(3)
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    with ExitStack() as running:
        servers = {}
        for number, port in enumerate(ports):
            directory = tmp_path / str(number)
            directory.mkdir()
            config = f'server_name: n{number}\ncluster {{name: c, listen: "127.0.0.1:{port}", routes: [{routes}]}}'
            servers[f"n{number}"] = running.enter_context(Nats(directory, config))
        urls = [server.url for server in servers.values()]
        async with await nats.connect(urls, max_reconnect_attempts=-1, reconnect_time_wait=0.1) as client:
            context = client.jetstream(timeout=10)
            subjects = ["reverb.>", "reverb-relay"]
            stream = {"name": "reverb", "subjects": subjects, "num_replicas": 3}
            answer: dict[str, Any] = {"error": "not asked"}
            end = time.monotonic() + 30
            while "error" in answer:  # until the servers have found each other
                assert time.monotonic() < end, answer
                with suppress(NatsError):
                    request = json.dumps(stream).encode()
                    answer = json.loads((await client.request("$JS.API.STREAM.CREATE.reverb", request, 1)).data)
            one, other = (NatsSink(",".join(urls), relay=name, lease=4) for name in ("a", "b"))
            await repeated(one.open, 30)
            old = (await repeated(one.acquire, 30)).epoch
            assert (await context.stream_info("KV_reverb_relay")).config.num_replicas == 3
            await repeated(lambda: one.append(old, entries(old, 700)))
            await repeated(lambda: one.release(old, None, b""))
            new = (await repeated(other.acquire, 30)).epoch
            with pytest.raises(LeaseLostError):
                await repeated(lambda: one.append(old, entries(old, 100, 701)))
            await repeated(lambda: other.append(new, entries(new, 100)))
            cluster = (await context.stream_info("reverb")).cluster
            assert cluster is not None
            assert cluster.leader is not None
            servers[cluster.leader].kill()
            await repeated(lambda: other.append(new, entries(new, 100, 101)), 30)
            assert await repeated(lambda: other.tail(0), 30) == entries(old, 700) + entries(new, 200)
            await one.close()
            await other.close()


class TestTheTail:
    async def test_it_leaves_out_markers_and_what_others_wrote(self, make: Make, client: Client) -> None:
        sink = make()
        assert await sink.tail(0) == []
        expected: list[Entry] = []
        foreign: list[dict[str, str] | None] = [
            None,
            {"Nats-Msg-Id": "7"},
            {"Nats-Msg-Id": "7-7", "channel": "orders"},
            {"Nats-Msg-Id": "7-8", "channel": "a", "event": "b", "received_at": "soon", "sent_after": "1"},
        ]
        for headers in foreign:
            epoch = await acquired(sink)
            assert await sink.tail(0) == expected
            await sink.append(epoch, entries(epoch, 2))
            expected += entries(epoch, 2)
            await client.jetstream().publish("reverb.orders", b"foreign", headers=headers)
            assert await sink.tail(0) == expected

    async def test_consumers_of_the_channels_do_not_see_markers(self, make: Make, client: Client) -> None:
        sink = make()
        await acquired(sink)
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 1))
        assert await ids(client) == [f"{epoch}-1"]
        assert [message.subject for message in await written(client, ">")] == [
            "reverb-relay",
            "reverb-relay",
            "reverb.orders",
        ]

    async def test_it_leaves_no_consumer_behind(self, make: Make, client: Client) -> None:
        sink = make(lease=3)
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 1))
        assert await sink.tail(0) == entries(epoch, 1)
        end = time.monotonic() + 15
        while await client.jetstream().consumers_info("reverb"):
            assert time.monotonic() < end, "the consumer stays"
            await asyncio.sleep(0.02)

    async def test_a_log_of_which_the_end_is_deleted(self, make: Make, client: Client) -> None:
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 3))
        await client.jetstream().purge_stream("reverb")
        assert await sink.tail(0) == []


class TestAnEngineThatIsAway:
    async def test_calls_fail_within_half_a_lease(self, server: Nats, make: Make) -> None:
        sink, other = make("a", lease=2), make("b", lease=2)
        epoch = await acquired(sink)
        await other.open()
        await sink.append(epoch, entries(epoch, 1))
        calls: list[Callable[[], Awaitable[Any]]] = [
            partial(sink.renew, epoch, 1, b""),
            partial(sink.append, epoch, entries(epoch, 1000, 2)),
            partial(sink.tail, 0),
            partial(sink.check_lease, is_ready=True),
            partial(sink.acquire),
            partial(sink.release, epoch, 1, b""),
            partial(other.check_lease, is_ready=False),
            make("c", lease=2).open,
        ]
        server.pause()
        try:
            for call in calls:
                started = time.monotonic()
                with pytest.raises(EngineError, match=f"{server.url}: no answer within 1 second"):
                    await call()
                assert 0.9 < time.monotonic() - started < 2.5
            await sink.close()
        finally:
            server.resume()

    async def test_what_was_not_answered_is_written_once(self, server: Nats, make: Make, client: Client) -> None:
        sink = make(lease=2)
        epoch = await acquired(sink)
        server.pause()
        try:
            for _ in range(2):
                with pytest.raises(EngineError):
                    await sink.append(epoch, entries(epoch, 400))
        finally:
            server.resume()
        await repeated(lambda: sink.append(epoch, entries(epoch, 400)))
        await sink.append(epoch, entries(epoch, 10, 401))
        assert await ids(client) == [f"{epoch}-{number}" for number in range(1, 411)]

    async def test_a_renewal_that_was_not_answered(self, server: Nats, make: Make) -> None:
        sink = make(lease=2)
        epoch = await acquired(sink)
        server.pause()
        try:
            with pytest.raises(EngineError):
                await sink.renew(epoch, 1, b"1")
        finally:
            server.resume()
        lease_status = await repeated(lambda: sink.renew(epoch, 2, b"2"))
        assert (lease_status.holder, lease_status.watermark, lease_status.state) == ("a", 2, b"2")
        server.pause()
        try:
            with pytest.raises(EngineError):
                await sink.renew(epoch, 3, b"3")
        finally:
            server.resume()
        await repeated(lambda: sink.release(epoch, 4, b"4"))
        seen = await sink.check_lease(is_ready=False)
        assert (seen.holder, seen.watermark, seen.state) == (None, 4, b"4")

    async def test_the_same_epoch_goes_on_after_a_crash(self, server: Nats, make: Make, client: Client) -> None:
        sink = make()
        epoch = await acquired(sink)
        for crash in range(3):
            await repeated(lambda first=1 + 100 * crash: sink.append(epoch, entries(epoch, 100, first)))  # type: ignore[misc]
            server.kill()
            await until(lambda: not client.is_connected)
            with pytest.raises(EngineError, match=server.url):
                await sink.append(epoch, entries(epoch, 100, 101 + 100 * crash))
            server.start()
        await repeated(lambda: sink.append(epoch, entries(epoch, 100, 301)))
        await until(lambda: client.is_connected)
        assert await ids(client) == [f"{epoch}-{number}" for number in range(1, 401)]

    async def test_a_connection_that_is_cut_in_the_middle_of_a_batch(
        self, server: Nats, make: Make, client: Client
    ) -> None:
        async with FaultProxy(server.host, server.port) as proxy:
            sink = make(url=f"nats://{proxy.host}:{proxy.port}")
            epoch = await acquired(sink)
            first = 1
            for _ in range(10):
                writing = asyncio.create_task(sink.append(epoch, entries(epoch, 400, first)))
                await wait_turns(5)
                proxy.hit(Link.reset)
                try:
                    await writing
                except EngineError:
                    await repeated(lambda first=first: sink.append(epoch, entries(epoch, 400, first)))  # type: ignore[misc]
                first += 400
            await sink.close()
        assert await ids(client) == [f"{epoch}-{number}" for number in range(1, first)]

    async def test_a_loss_is_told_at_once(self, server: Nats, make: Make) -> None:
        sink = make(lease=20)
        await sink.open()
        server.pause()
        looking = asyncio.create_task(sink.check_lease(is_ready=False))
        await wait_turns(10)
        server.kill()
        started = time.monotonic()
        with pytest.raises(EngineError, match="the connection is lost"):
            await looking
        with pytest.raises(EngineError):
            await sink.check_lease(is_ready=False)
        assert time.monotonic() - started < 5

    async def test_another_server_of_several_is_taken(self, server: Nats, make: Make) -> None:
        (nobody,) = free_ports(1)
        sink = make(url=f"nats://127.0.0.1:{nobody},127.0.0.1:{server.port}")
        await sink.open()
        await acquired(sink)
        assert sink.address == f"nats://127.0.0.1:{nobody},nats://127.0.0.1:{server.port}"

    async def test_nobody_there(self, server: Nats, make: Make) -> None:
        ports = free_ports(2)
        sink = make(url=",".join(f"nats://127.0.0.1:{port}" for port in ports))
        with pytest.raises(EngineError, match=rf"nats://127.0.0.1:{ports[1]}: .*[Cc]onnect"):
            await sink.open()

    async def test_nothing_is_printed(
        self, server: Nats, make: Make, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.INFO)
        sink = make()
        await sink.open()
        server.kill()
        for _ in range(3):
            with pytest.raises(EngineError):
                await sink.check_lease(is_ready=True)
        await sink.close()
        assert caplog.records == []
        assert capfd.readouterr() == ("", "")


class TestCallersThatGiveUp:
    async def test_at_each_turn(self, make: Make, client: Client) -> None:
        sink, reader = make(), make("b")
        first = 1
        epoch = await acquired(sink)
        for number in turns():
            calls = [
                asyncio.create_task(sink.append(epoch, entries(epoch, 20, first))),
                asyncio.create_task(sink.renew(epoch, number, b"")),
            ]
            await wait_turns(number)
            ended = all(call.done() for call in calls)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await sink.append(epoch, entries(epoch, 20, first))
            await sink.renew(epoch, number, b"")
            first += 20
            if ended:
                break
        assert await ids(client) == [f"{epoch}-{number}" for number in range(1, first)]
        for number in turns():
            acquiring = asyncio.create_task(sink.acquire())
            await wait_turns(number)
            ended = acquiring.done()
            acquiring.cancel()
            await asyncio.gather(acquiring, return_exceptions=True)
            new = (await granted_in_time(sink, 10)).epoch  # the first one may still be on its way
            assert new > epoch
            epoch = new
            if ended:
                break
        await sink.append(epoch, entries(epoch, 1))
        for number in turns():
            opening = asyncio.create_task(reader.tail(0))
            await wait_turns(number)
            ended = opening.done()
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await reader.close()
            if ended:
                break
        assert (await reader.tail(0))[-1] == entry(epoch, 1)

    async def test_no_error_is_left_over(self, make: Make, server: Nats, caplog: pytest.LogCaptureFixture) -> None:
        sink = make()
        server.kill()
        for number in turns():
            opening = asyncio.create_task(sink.open())
            await wait_turns(number)
            ended = opening.done()
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            if ended:
                break
        gc.collect()
        assert "never retrieved" not in caplog.text


class TestSettings:
    async def test_limits_are_set(self, make: Make, client: Client) -> None:
        await make(maxlen=50, max_age=3.5).open()
        config = (await client.jetstream().stream_info("reverb")).config
        assert (config.max_msgs, config.max_age, config.storage) == (50, 3.5, "file")
        await make(maxlen=20).open()
        config = (await client.jetstream().stream_info("reverb")).config
        assert (config.max_msgs, config.max_age) == (20, 3.5)
        sink = make(max_age=1000)
        epoch = await acquired(sink)
        config = (await client.jetstream().stream_info("reverb")).config
        assert (config.max_msgs, config.max_age) == (20, 1000)
        await sink.append(epoch, entries(epoch, 100))
        assert await sink.tail(0) == entries(epoch, 20, 81)
        await make(max_age=1).open()

    async def test_without_limits_everything_is_kept(self, make: Make, client: Client) -> None:
        await make().open()
        config = (await client.jetstream().stream_info("reverb")).config
        assert (config.max_msgs, config.max_age) == (-1, 0)

    async def test_a_stream_that_exists_stays_as_it_is(self, make: Make, client: Client) -> None:
        context = client.jetstream()
        await context.add_stream(name="reverb", subjects=["reverb.>", "reverb-relay"], max_bytes=10_000_000)
        before = (await context.stream_info("reverb")).config
        sink = make()
        epoch = await acquired(sink)
        await sink.append(epoch, entries(epoch, 1))
        after = (await context.stream_info("reverb")).config
        assert after.allow_atomic
        assert after.evolve(allow_atomic=before.allow_atomic, metadata=before.metadata) == before

    async def test_many_relays_start_at_once(self, make: Make) -> None:
        sinks = [make(f"relay {number}", lease=20, maxlen=1000 + number % 2) for number in range(10)]
        await asyncio.gather(*(sink.open() for sink in sinks))

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"subjects": ["orders.*"]}, "--subjects 'reverb.>,reverb-relay'"),
            ({"retention": "workqueue"}, "retention workqueue"),
            ({"discard": "new", "max_msgs": 10}, "--discard old"),
            ({"no_ack": True}, "no_ack"),
        ],
    )
    async def test_a_stream_that_can_not_be_a_log(
        self, make: Make, client: Client, settings: dict[str, Any], says: str
    ) -> None:
        usual: dict[str, Any] = {"subjects": ["reverb.>", "reverb-relay"]}
        await client.jetstream().add_stream(name="reverb", **usual | settings)
        with pytest.raises(ConfigurationError, match=f"the stream reverb, .*{says}"):
            await make().open()

    async def test_subjects_that_another_stream_has(self, make: Make, client: Client) -> None:
        await client.jetstream().add_stream(name="other", subjects=["reverb.x"])
        with pytest.raises(ConfigurationError, match="Choose another name for the log"):
            await make().open()
        with pytest.raises(NotFoundError):
            await client.jetstream().stream_info("reverb")

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "redis://h:6379",
            "nats://",
            "nats://h:port",
            "nats://h:4222/0",
            "nats://h,http://h",
            "nats://h:99999",
        ],
    )
    def test_urls_that_are_none(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="nats://host:4222 or tls://host:4222"):
            NatsSink(url, relay="a")

    @pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", "ä"])
    def test_names_that_streams_can_not_have(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match="not a valid stream name"):
            NatsSink("nats://h", relay="a", stream=name)

    @pytest.mark.parametrize(
        ("url", "address"),
        [
            ("nats://h", "nats://h:4222"),
            ("h", "nats://h:4222"),
            ("tls://u:p@h:1, i", "tls://h:1,tls://i:4222"),
            ("nats://[::1]:2", "nats://[::1]:2"),
        ],
    )
    def test_the_address(self, url: str, address: str) -> None:
        sink = NatsSink(url, relay="a", stream="log")
        assert sink.address == address
        assert repr(sink) == f"<NatsSink {address} log>"

    async def test_no_jetstream(self, tmp_path: Path) -> None:
        with Nats(tmp_path, jetstream=None) as server:
            sink = NatsSink(server.url, relay="a")
            with pytest.raises(ConfigurationError, match=r"JetStream is not enabled\. Start nats-server with -js"):
                await sink.open()
            await sink.close()

    async def test_an_account_without_jetstream(self, tmp_path: Path) -> None:
        accounts = "accounts {A {users: [{user: u, password: p}]}, B {jetstream: enabled}}"
        with Nats(tmp_path, accounts) as server:
            sink = NatsSink(f"nats://u:p@127.0.0.1:{server.port}", relay="a")
            with pytest.raises(ConfigurationError, match="JetStream"):
                await sink.open()
            await sink.close()

    async def test_a_server_that_is_too_old(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"version":"2.12.0","headers":true,"max_payload":1048576}\r\n')
            while line := await reader.readline():
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
            writer.close()

        old = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with old:
            port = old.sockets[0].getsockname()[1]
            sink = NatsSink(f"nats://127.0.0.1:{port}", relay="a")
            with pytest.raises(
                ConfigurationError, match=r"is nats-server 2\.12\.0\. The relay needs 2\.12\.1 or later"
            ):
                await sink.open()
            await sink.close()


class TestCredentials:
    async def test_user_and_password(self, tmp_path: Path) -> None:
        config = f'authorization {{user: "u@x", password: "{SECRET}/,"}}'
        with Nats(tmp_path, config) as server:
            (nobody,) = free_ports(1)
            host = f"127.0.0.1:{server.port}"
            for servers in (host, f"127.0.0.1:{nobody},{host}"):
                sink = NatsSink(f"nats://u%40x:{SECRET}%2F%2C@{servers}", relay="a")
                await sink.open()
                await sink.close()
            for login in (f"u:{SECRET}x@", f"{SECRET}@", ""):
                sink = NatsSink(f"nats://{login}{host}", relay="a")
                for call in (sink.open, partial(sink.check_lease, is_ready=True)):
                    error = await raised(ConfigurationError, call)
                    assert "refuses the user, password or token" in str(error)
                await sink.close()
                assert SECRET not in repr(sink) + sink.address

    async def test_a_token(self, tmp_path: Path) -> None:
        with Nats(tmp_path, f'authorization {{token: "{SECRET}"}}') as server:
            sink = NatsSink(f"nats://{SECRET}@127.0.0.1:{server.port}", relay="a")
            await sink.open()
            server.kill()
            await raised(EngineError, partial(sink.check_lease, is_ready=True))
            await raised(EngineError, partial(sink.check_lease, is_ready=True))
            await sink.close()

    async def test_a_url_that_is_none(self) -> None:
        def make() -> None:
            NatsSink(f"nats://u:{SECRET}@h:port", relay="a")

        await raised(ConfigurationError, make)

    async def test_too_few_rights(self, tmp_path: Path) -> None:
        config = 'authorization {users: [{user: u, password: p, permissions: {publish: ["$JS.API.>"]}}]}'
        with Nats(tmp_path, config) as server:
            sink = NatsSink(f"nats://u:p@127.0.0.1:{server.port}", relay="a")
            await sink.open()
            with pytest.raises(ConfigurationError, match="too few rights"):
                await sink.check_lease(is_ready=True)
            await sink.close()

    async def test_tls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = make_certificates(tmp_path)
        config = (
            f'tls {{cert_file: "{made.certificate_file}", key_file: "{made.key_file}"}}\n'
            f'authorization {{user: u, password: "{SECRET}"}}'
        )
        with Nats(tmp_path, config) as server:
            for scheme in ("tls", "nats"):
                sink = NatsSink(f"{scheme}://u:{SECRET}@127.0.0.1:{server.port}", relay="a")
                with monkeypatch.context() as environment:
                    error = await raised(ConfigurationError, sink.open)
                    assert "does not trust the server" in str(error)
                    environment.setenv("SSL_CERT_FILE", str(made.ca_file))
                    await sink.open()
                    await acquired(sink)
                await sink.close()

    async def test_what_is_to_be_encrypted_is_not_sent_in_the_clear(self) -> None:
        seen = bytearray()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"version":"2.15.0","auth_required":true,"headers":true}\r\n')
            while chunk := await reader.read(1000):
                seen.extend(chunk)
                writer.write(b"PONG\r\n")
            writer.close()

        plain = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with plain:
            port = plain.sockets[0].getsockname()[1]
            for login in ("", f"u:{SECRET}@", f"{SECRET}@"):
                sink = NatsSink(f"tls://{login}127.0.0.1:{port}", relay="a")
                error = await raised(ConfigurationError, sink.open)
                assert "doesn't offer TLS" in str(error)
                await sink.close()
        assert SECRET.encode() not in seen
