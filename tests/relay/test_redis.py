"""What only the sink of Redis and Valkey has: its keys, its limits, its settings."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from redis.asyncio import Redis

from reverb.exceptions import ConfigurationError
from reverb.relay._log import EngineError, LeaseLostError
from reverb.relay._redis import RedisSink
from tests.certificates import make_certificates
from tests.relay.engines import Line, Valkey
from tests.relay.test_sinks import entries, entry, granted, granted_in_time, numbers, wait_for_clock
from tests.test_secrets import SECRET, raised
from tests.watching import until


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path) as valkey:
        yield valkey


@pytest.fixture
async def server(valkey: Valkey) -> AsyncIterator[Any]:
    """Another program that looks at the server."""
    async with Redis.from_url(valkey.url, decode_responses=True, protocol=2) as client:
        yield client


@asynccontextmanager
async def opened(url: str, relay: str = "one", lease: float = 2.0, **options: Any) -> AsyncIterator[RedisSink]:
    sink = RedisSink(url, relay=relay, lease=lease, **options)
    try:
        await sink.open()
        yield sink
    finally:
        await sink.close()


# --- what other programs see -----------------------------------------------------------------------------------


async def test_an_entry_has_flat_fields_of_text(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url) as sink:
        grant = await granted(sink)
        await sink.append(grant.epoch, [entry(grant, 1), entry(grant, 2, user_id="7", again=True)])
    first, second = [fields for _, fields in await server.xrange("reverb")]
    assert first == {
        "channel": "orders",
        "event": "order.shipped",
        "data": '{"id":1}',
        "received_at": "1764239688123",
        "sent_after": "1764239688000",
        "writer": f"{grant.epoch}-1",
    }
    assert second == {**first, "data": '{"id":2}', "writer": f"{grant.epoch}-2", "user_id": "7", "again": "1"}


async def test_the_keys_are_of_one_slot_and_leave_with_the_relay(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url, stream="shop") as sink:
        grant = await granted(sink)
        await sink.append(grant.epoch, entries(grant, 1, 1))
        await sink.renew(grant.epoch, 1, b"")
        assert await server.get("{shop}:lease") == "one"
        assert 0 < await server.pttl("{shop}:lease") <= 2000
        await sink.release(grant.epoch, 1, b"")
        await sink.check_lease(is_ready=True)
    assert sorted(await server.keys()) == ["shop", "{shop}:ready", "{shop}:state"]
    assert 0 < await server.pttl("{shop}:ready") <= 2000


async def test_with_partitions_a_channel_is_in_the_stream_of_its_checksum(valkey: Valkey, server: Any) -> None:
    channels = ["orders", "stock", "日本語", "private-x", "a", "b", "c"]
    async with opened(valkey.url, partitions=4) as sink:
        grant = await granted(sink)
        await sink.append(
            grant.epoch, [entry(grant, number, channel=name) for number, name in enumerate(channels, start=1)]
        )
    found = {
        (fields["channel"], place)
        for place in range(4)
        for _, fields in await server.xrange(f"{{reverb}}:{place}")
    }
    assert found == {(name, crc32(name.encode()) % 4) for name in channels}


async def test_others_may_write_into_the_stream(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url) as sink:
        grant = await granted(sink)
        await server.xadd("reverb", {"hello": "world"})
        await sink.append(grant.epoch, entries(grant, 1, 2))
        good = (await server.xrange("reverb"))[-1][1]
        for change in (
            {"writer": "x"},
            {"writer": "1"},
            {"received_at": ""},
            {"channel": b"\xff"},
            {"writer": "-"},
        ):
            await server.xadd("reverb", {**good, **change})
        await sink.append(grant.epoch, entries(grant, 3, 3))
        assert await sink.tail(0) == entries(grant, 1, 3)


# --- limits ----------------------------------------------------------------------------------------------------


async def test_maxlen_bounds_each_stream(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url, maxlen=200) as sink:
        grant = await granted(sink)
        for first in range(1, 2000, 500):
            await sink.append(grant.epoch, entries(grant, first, first + 499))
        assert 200 <= await server.xlen("reverb") <= 300  # whole nodes of 100 entries are deleted
        assert (await sink.tail(0))[-200:] == entries(grant, 1801, 2000)


async def test_max_age_bounds_each_stream(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url, max_age=0.3) as sink:
        grant = await granted(sink)
        await sink.append(grant.epoch, entries(grant, 1, 500))
        await sink.append(grant.epoch, entries(grant, 501, 510))
        assert await server.xlen("reverb") == 510
        await wait_for_clock(sink, (await sink.check_lease(is_ready=False)).clock + 350)
        await sink.append(grant.epoch, entries(grant, 511, 520))
        assert 10 <= await server.xlen("reverb") <= 120
        assert (await sink.tail(0))[-10:] == entries(grant, 511, 520)


async def test_without_limits_all_is_kept(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url) as sink:
        grant = await granted(sink)
        for first in range(1, 3000, 500):
            await sink.append(grant.epoch, entries(grant, first, first + 499))
    assert await server.xlen("reverb") == 3000


async def test_a_state_that_stays_the_same_is_not_sent_again(valkey: Valkey, server: Any) -> None:
    async def traffic() -> int:
        stats = await server.info("stats")
        return int(stats["total_net_input_bytes"] + stats["total_net_output_bytes"])

    state = 200_000 * b"x"
    async with opened(valkey.url) as first, opened(valkey.url, "two") as second:
        grant = await granted(first)
        await first.renew(grant.epoch, 0, state)
        await second.check_lease(is_ready=True)
        before = await traffic()
        for watermark in range(1, 20):
            assert (await first.renew(grant.epoch, watermark, bytes(state))).state == state
            assert (await second.check_lease(is_ready=True)).state == state
        assert await traffic() - before < 50_000
        await first.release(grant.epoch, 20, state)
        assert (await granted(second)).lease_status.state == state
        assert await traffic() - before < 50_000


# --- servers that forget ---------------------------------------------------------------------------------------


async def test_a_server_that_lost_its_memory_takes_nothing_of_an_old_epoch(tmp_path: Path) -> None:
    with Valkey(tmp_path, "--appendonly", "no") as valkey:
        async with opened(valkey.url) as first, opened(valkey.url, "two") as second:
            old = await granted(first)
            await first.append(old.epoch, entries(old, 1, 5))
            valkey.restart()
            await wait_until_back(second)
            with pytest.raises(LeaseLostError):
                await first.append(old.epoch, entries(old, 6, 6))
            with pytest.raises(LeaseLostError):
                await first.renew(old.epoch, 1, b"")
            new = await granted(second)
            assert new.epoch > old.epoch
            assert (new.lease_status.watermark, new.lease_status.state) == (None, b"")
            with pytest.raises(LeaseLostError):
                await first.append(old.epoch, entries(old, 6, 6))
            assert await numbers(second) == []


async def wait_until_back(sink: RedisSink) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            await sink.check_lease(is_ready=False)
        except EngineError:
            assert time.monotonic() < end, "the server did not come back"
            await asyncio.sleep(0.02)
        else:
            return


async def test_a_server_that_lost_the_latest_entries_is_found_out(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url) as sink:
        grant = await granted(sink)
        await sink.append(grant.epoch, entries(grant, 1, 5))
        copies = {"reverb": "copy", "{reverb}:state": "{copy}:state"}
        for key, copy in copies.items():
            await server.copy(key, copy)
        await sink.append(grant.epoch, entries(grant, 6, 9))
        for key, copy in copies.items():
            await server.rename(copy, key)
        with pytest.raises(LeaseLostError):
            await sink.renew(grant.epoch, 9, b"lost")
        with pytest.raises(LeaseLostError, match="has lost entries"):
            await sink.append(grant.epoch, entries(grant, 10, 11))
        assert [number for _, number in await numbers(sink)] == [1, 2, 3, 4, 5]
        await sink.release(grant.epoch, 9, b"lost")
        lease_status = await sink.check_lease(is_ready=True)
        assert (lease_status.holder, lease_status.watermark, lease_status.state) == ("one", None, b"")
        again = await granted(sink)
        await sink.append(again.epoch, entries(again, 1, 6))


async def test_a_state_that_the_server_forgot_is_sent_again(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url) as sink, opened(valkey.url, "two") as other:
        grant = await granted(sink)
        await sink.renew(grant.epoch, 1, b"old")
        await server.copy("{reverb}:state", "copy")
        await sink.renew(grant.epoch, 2, b"new")
        await server.rename("copy", "{reverb}:state")
        assert (await other.check_lease(is_ready=True)).state == b"old"
        await sink.renew(grant.epoch, 3, b"new")
        lease_status = await other.check_lease(is_ready=True)
        assert (lease_status.watermark, lease_status.state) == (3, b"new")


async def test_a_server_that_forgot_a_take_over_does_not_mix_the_two_up(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url) as first, opened(valkey.url, "two") as second:
        old = await granted(first)
        await first.release(old.epoch, None, b"")
        await server.copy("{reverb}:state", "copy")
        lost = await granted(first)
        await server.rename("copy", "{reverb}:state")
        await server.delete("{reverb}:lease")
        new = await granted(second)
        with pytest.raises(LeaseLostError):
            await first.append(lost.epoch, entries(lost, 1, 1))
        await second.append(new.epoch, entries(new, 1, 1))


async def test_scripts_that_the_server_forgot_are_sent_again(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url) as sink:
        grant = await granted(sink)
        await sink.append(grant.epoch, entries(grant, 1, 1))
        await server.script_flush()
        await sink.append(grant.epoch, entries(grant, 2, 2))
        assert len(await sink.tail(0)) == 2


async def test_what_was_renewed_late_does_not_replace_what_is_newer(valkey: Valkey, server: Any) -> None:
    async with Line(valkey.port) as line:
        async with opened(valkey.url.replace(str(valkey.port), str(line.port))) as sink:
            grant = await granted(sink)
            await sink.renew(grant.epoch, 1, b"first")
            line.hold()
            with pytest.raises(EngineError):
                await sink.renew(grant.epoch, 2, b"second")
            line.pass_new()
            await sink.renew(grant.epoch, 3, b"third")
        line.release()
        await asyncio.wait_for(line.passed(), 5)
    async with opened(valkey.url, "two") as other:
        lease_status = await other.check_lease(is_ready=True)
        assert (lease_status.watermark, lease_status.state) == (3, b"third")


async def test_a_lease_that_was_given_back_is_not_taken_by_what_was_renewed_late(valkey: Valkey) -> None:
    async with Line(valkey.port) as line:
        async with opened(valkey.url.replace(str(valkey.port), str(line.port))) as sink:
            grant = await granted(sink)
            await sink.renew(grant.epoch, None, b"")
            line.hold()
            with pytest.raises(EngineError):
                await sink.renew(grant.epoch, None, b"")
            line.pass_new()
            await sink.release(grant.epoch, None, b"")
        line.release()
        await asyncio.wait_for(line.passed(), 5)
    async with opened(valkey.url, "two") as other:
        assert (await other.check_lease(is_ready=True)).holder is None


async def test_nothing_of_an_epoch_is_written_after_its_lease_was_given_back(valkey: Valkey) -> None:
    async with opened(valkey.url) as sink:
        grant = await granted(sink)
        await sink.release(grant.epoch, None, b"")
        with pytest.raises(LeaseLostError):
            await sink.append(grant.epoch, entries(grant, 1, 1))
        with pytest.raises(LeaseLostError):
            await sink.renew(grant.epoch, None, b"")


# --- servers that refuse ---------------------------------------------------------------------------------------


async def test_a_server_whose_memory_is_full_is_tried_again(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url) as sink:
        grant = await granted(sink)
        await sink.append(grant.epoch, entries(grant, 1, 1))
        await server.config_set("maxmemory", 1)
        with pytest.raises(EngineError, match="maxmemory"):
            await sink.append(grant.epoch, entries(grant, 2, 3))
        await server.config_set("maxmemory", 0)
        await sink.append(grant.epoch, entries(grant, 2, 3))
        assert await sink.tail(0) == entries(grant, 1, 3)


async def test_a_replica_is_tried_again(valkey: Valkey, server: Any) -> None:
    async with opened(valkey.url) as sink:
        await server.replicaof("127.0.0.1", 1)
        with pytest.raises(EngineError):
            await sink.acquire()
        await server.replicaof("NO", "ONE")
        assert await granted_in_time(sink)


async def test_a_call_is_tried_once(valkey: Valkey) -> None:
    attempts = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await reader.read(1000)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as other:
        sink = RedisSink(f"redis://127.0.0.1:{other.sockets[0].getsockname()[1]}", relay="one", lease=2.0)
        with pytest.raises(EngineError):
            await sink.check_lease(is_ready=True)
        await sink.close()
    assert attempts == 1


@pytest.mark.parametrize("key", ["reverb", "{reverb}:lease", "{reverb}:state", "{reverb}:ready"])
async def test_a_key_of_another_type_is_a_mistake_in_the_settings(valkey: Valkey, server: Any, key: str) -> None:
    await server.rpush(key, "item")
    sink = RedisSink(valkey.url, relay="one", lease=2.0)
    with pytest.raises(ConfigurationError, match="another name or database") as caught:
        await sink.open()
    assert key in str(caught.value)
    await sink.close()


async def test_a_stream_that_becomes_another_type_is_a_mistake_and_what_is_in_is_in_once(
    valkey: Valkey, server: Any
) -> None:
    """The batch fails in its middle: at the entries of one of two streams."""
    names = {crc32(name.encode()) % 2: name for name in ("a", "b", "c", "d")}
    async with opened(valkey.url, partitions=2) as sink:
        grant = await granted(sink)
        written = [entry(grant, number, channel=names[number > 3]) for number in range(1, 7)]
        await server.set("{reverb}:1", "text")
        with pytest.raises(ConfigurationError, match="WRONGTYPE"):
            await sink.append(grant.epoch, written)
        await server.delete("{reverb}:1")
        await sink.append(grant.epoch, written)
        assert await sink.tail(0) == written


async def test_a_user_may_be_bound_to_the_keys_of_the_stream(valkey: Valkey, server: Any) -> None:
    allowed = (
        "+@scripting",
        "+@stream",
        "+@hash",
        "+@string",
        "+@sortedset",
        "+@keyspace",
        "+@connection",
        "+time",
    )
    await server.execute_command(
        "ACL", "SETUSER", "relay", "on", ">pass/word", *allowed, "~reverb*", "~{reverb}:*"
    )
    url = f"redis://relay:pass%2Fword@127.0.0.1:{valkey.port}/0"
    async with opened(url) as sink:
        assert "word" not in sink.address
        grant = await granted(sink)
        await sink.append(grant.epoch, entries(grant, 1, 2))
        await sink.renew(grant.epoch, 1, b"")
        assert await sink.tail(0) == entries(grant, 1, 2)


@pytest.mark.parametrize("rights", [["~other", "+@all"], ["~*", "+ping", "+type"]])
async def test_a_user_without_the_rights_is_a_mistake_in_the_settings(
    valkey: Valkey, server: Any, rights: list[str]
) -> None:
    await server.execute_command("ACL", "SETUSER", "guest", "on", f">{SECRET}", *rights)
    sink = RedisSink(f"redis://guest:{SECRET}@127.0.0.1:{valkey.port}/0", relay="one", lease=2.0)

    async def work() -> None:
        await sink.open()
        await sink.check_lease(is_ready=True)

    assert "allow" in str(await raised(ConfigurationError, work))
    await sink.close()


async def test_the_database_of_the_url_is_taken(valkey: Valkey, server: Any) -> None:
    async with opened(f"redis://127.0.0.1:{valkey.port}/3") as sink:
        grant = await granted(sink)
        await sink.append(grant.epoch, entries(grant, 1, 1))
        assert sink.address == f"redis://127.0.0.1:{valkey.port}/3"
    assert await server.keys() == []
    await server.select(3)
    assert await server.xlen("reverb") == 1


async def test_a_database_that_is_not_there_is_a_mistake_in_the_settings(valkey: Valkey) -> None:
    sink = RedisSink(f"redis://127.0.0.1:{valkey.port}/9999", relay="one", lease=2.0)
    with pytest.raises(ConfigurationError, match="DB index"):
        await sink.open()
    await sink.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:6379",
        f"http://:{SECRET}@localhost",
        f"redis://:{SECRET}/x@localhost:6379/0",
        f"redis://:12/{SECRET}@localhost",
        f"redis://me:12/{SECRET}@localhost",
        f"redis://me:12#{SECRET}@localhost",
        f"redis://me:12?{SECRET}@localhost",
        f"redis://:{SECRET}@/0",
        f"redis://:{SECRET}@localhost:port/0",
        f"redis://:{SECRET}@localhost:99999/0",
        f"redis://:{SECRET}@[localhost/0",
        f"redis://:{SECRET}@localhost/zero",
        f"redis://:{SECRET}@localhost/0?socket_timeout=5",
    ],
)
async def test_a_url_that_can_not_work(url: str) -> None:
    error = await raised(ConfigurationError, RedisSink, url, relay="one")
    assert "redis://" in str(error)


@pytest.mark.parametrize("stream", ["", "{a}", "a{b", "a}b"])
async def test_a_stream_name_that_can_not_work(stream: str) -> None:
    url = f"redis://:{SECRET}@localhost/0"
    await raised(ConfigurationError, RedisSink, url, relay="one", stream=stream)


async def test_addresses_show_the_host_alone() -> None:
    for url, address in (
        (f"redis://me:{SECRET}@host.example", "redis://host.example:6379/0"),
        (f"rediss://:{SECRET}@[::1]:7000/2", "rediss://[::1]:7000/2"),
    ):
        sink = RedisSink(url, relay="one")
        assert sink.address == address
        assert SECRET not in repr(sink)


@asynccontextmanager
async def pretending(answers: dict[bytes, bytes]) -> AsyncIterator[RedisSink]:
    """Yield a sink of a server that knows these answers, and no state of any key."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if (word := line.strip()) in answers:
                writer.write(answers[word] + b"\r\n")
        writer.close()
        await writer.wait_closed()
        ended.append(True)

    ended: list[bool] = []
    answers = {b"TYPE": b"+none", b"CLIENT": b"-ERR unknown subcommand", **answers}
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        sink = RedisSink(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", relay="one", lease=2.0)
        yield sink
        await sink.close()
        await until(lambda: ended)


async def test_a_server_that_is_too_old() -> None:
    info = b"redis_version:6.0.16\r\naof_enabled:1\r\nmaxmemory:0\r\n"
    async with pretending({b"INFO": b"$%d\r\n%b" % (len(info), info)}) as sink:
        with pytest.raises(ConfigurationError, match=r"is Redis 6\.0; a relay needs 6\.2 or later"):
            await sink.open()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("MOVED 3999 10.0.0.1:6381", ConfigurationError),
        ("CROSSSLOT Keys in request don't hash to the same slot", ConfigurationError),
        ("ERR unknown command 'EVALSHA', with args beginning with: ", ConfigurationError),
        ("LOADING the dataset in memory", EngineError),
        ("MISCONF Redis is configured to save RDB snapshots, but ...", EngineError),
        ("BUSY Redis is busy running a script.", EngineError),
        ("NOREPLICAS Not enough good replicas to write.", EngineError),
        ("MASTERDOWN Link with MASTER is down", EngineError),
        ("CLUSTERDOWN Hash slot not served", EngineError),
        ("ERR max number of clients reached", EngineError),
    ],
)
async def test_what_may_pass_is_told_from_what_will_not(answer: str, kind: type[Exception]) -> None:
    async with pretending({b"EVALSHA": b"-" + answer.encode()}) as sink:
        with pytest.raises(kind, match=sink.address):
            await sink.check_lease(is_ready=True)


async def test_what_may_lose_the_log_is_said_once(
    tmp_path: Path, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "reverb.relay")
    async with opened(valkey.url) as sink:
        await granted(sink)
    assert not caplog.records
    careless = ("--appendonly", "no", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    with Valkey(tmp_path, *careless) as other:
        async with opened(other.url) as sink:
            await granted(sink)
        texts = [record.getMessage() for record in caplog.records]
        assert len(texts) == 2
        assert "allkeys-lru; set it to noeviction" in texts[0]
        assert "appendonly yes" in texts[1]


# --- TLS -------------------------------------------------------------------------------------------------------


async def test_tls_needs_a_certificate_that_the_system_trusts(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = make_certificates(tmp_path)
    async with Line(valkey.port, certificates.server) as line:
        url = f"rediss://localhost:{line.port}/0"
        sink = RedisSink(url, relay="one", lease=4.0)
        with pytest.raises(ConfigurationError, match=r"certificate of rediss://localhost"):
            await sink.open()
        await sink.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
        async with opened(url, lease=4.0) as sink:
            grant = await granted(sink)
            await sink.append(grant.epoch, entries(grant, 1, 1))
            assert len(await sink.tail(0)) == 1
