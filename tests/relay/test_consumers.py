"""The programs in ``examples/relay/``: each reads a log on a real engine, as its users run it."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from redis.asyncio import Redis

from tests.cli.processes import DEADLINE, Command
from tests.cli.processes import reverb as run_module
from tests.relay.engines import Valkey
from tests.relay.feed import Feed, NatsFeed, RedisFeed
from tests.relay.nats_server import Nats
from tests.watching import until

EXAMPLES = Path(__file__).parents[2] / "examples/relay"
SCHEMA = "CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT NOT NULL, version INTEGER NOT NULL)"

Run = Callable[..., AbstractAsyncContextManager[Command]]
"""Runs a reader, with these variables of the environment."""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    directory = tmp_path / "engine"
    directory.mkdir()
    with Valkey(directory) as engine:
        yield engine


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    directory = tmp_path / "engine"
    directory.mkdir()
    with Nats(directory) as engine:
        yield engine


class Shop:
    """An application with orders, which are also in the copy that the readers keep."""

    def __init__(self, url: str, feed: Feed, directory: Path) -> None:
        self.url = url
        self.feed = feed
        self.directory = directory
        self.version = 0
        for file in EXAMPLES.glob("*.py"):
            shutil.copy(file, directory)
        with self.database("shop.db") as database, database:
            database.execute(SCHEMA)

    def database(self, name: str) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(self.directory / name, timeout=DEADLINE))

    def set(self, id_: int, status: str) -> dict[str, Any]:
        """Change an order, and say nothing."""
        self.version += 1
        with self.database("shop.db") as database, database:
            database.execute("REPLACE INTO orders VALUES (?, ?, ?)", [id_, status, self.version])
        return {"id": id_, "status": status, "version": self.version}

    async def change(self, id_: int, status: str, **options: Any) -> dict[str, Any]:
        order = self.set(id_, status)
        await self.feed.write("order.changed", order, **options)
        return order

    def orders(self, name: str = "shop.db") -> list[Any]:
        if not (self.directory / name).exists():
            return []
        with self.database(name) as database:
            if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                return []
            return database.execute("SELECT * FROM orders ORDER BY id").fetchall()

    def is_copied(self) -> bool:
        return self.orders("copy.db") == self.orders()

    def run(
        self, name: str, *arguments: str, module: str | None = None, **env: str
    ) -> AbstractAsyncContextManager[Command]:
        variables = {"RELAY_URL": self.url, "CONSUMER": "1", "STUCK_AFTER": "2", "PYTHONUNBUFFERED": "1", **env}
        return run_module(*arguments, module=module or name, env=variables, cwd=self.directory)

    async def is_finished(self) -> None:
        """Wait until all entries are acknowledged."""
        end = time.monotonic() + DEADLINE
        while unfinished := await self.feed.unfinished("orders"):
            assert time.monotonic() < end, f"{unfinished} entries are not acknowledged"
            await asyncio.sleep(0.02)


@pytest.fixture
async def redis_shop(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(valkey.url, await RedisFeed(valkey.url).open(), tmp_path)
    yield shop
    await shop.feed.close()


@pytest.fixture
async def nats_shop(nats: Nats, tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(nats.url, await NatsFeed(nats.url).open(), tmp_path)
    yield shop
    await shop.feed.close()


async def end(*commands: Command) -> None:
    for command in commands:
        command.send_signal(signal.SIGTERM)
    for command in commands:
        assert await command.exit_code() == 0, command.err.text
        assert "Traceback" not in command.err.text, command.err.text


def said(*commands: Command) -> list[str]:
    """What the programs have said of orders.

    FastStream's log may come before the end of such a line, because it is written in another thread."""
    line = re.compile(r"^order \d+: .*?(?=\d{4}-\d\d-\d\d |$)", re.MULTILINE)
    return [each for command in commands for each in line.findall(command.out.text)]


def test_every_program_is_run_here() -> None:
    tested = {name.removeprefix("test_the_") for name in globals() if name.startswith("test_the_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested | {"orders"}


async def check_reader(shop: Shop, run: Run) -> None:
    """One reader: from the log's beginning on, gaps, doubles, what is not for it, ends and starts again."""
    await shop.change(1, "new")
    await shop.feed.write("something.else", ["not", "an", "order"])
    async with run() as reader:
        await reader.out.expect("^order 1: new")
        paid = await shop.change(1, "paid")
        await shop.feed.write("order.changed", paid, again=True)
        await reader.out.expect("^order 1: paid")
        shop.set(2, "new, and nobody heard of it")
        await shop.feed.write("reverb:gap", {"from": 1, "to": 2, "reason": "disconnect"})
        await reader.out.expect(r"may be missing \(disconnect\)")
        await reader.out.expect("^order 2: new, and nobody heard of it")
        await shop.is_finished()
        await end(reader)
        assert len(said(reader)) == 3
    await shop.change(2, "paid")
    async with run() as reader:
        await reader.out.expect("^order 2: paid")
        await shop.is_finished()
        await end(reader)
        assert said(reader) == ["order 2: paid"]
    assert shop.is_copied()


async def check_sharing(shop: Shop, run: Run) -> None:
    """Several readers: each entry is done by one, also while some end, and one dies."""
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(run(CONSUMER=str(number))) for number in range(3)]
        numbers = count()
        deadline = time.monotonic() + DEADLINE
        while not all(said(each) for each in readers):
            assert time.monotonic() < deadline, "not every reader is at work"
            await shop.change(next(numbers), "new")
            await asyncio.sleep(0.02)  # they take a second to start
        for how in (signal.SIGTERM, signal.SIGKILL):
            reader = readers[how == signal.SIGKILL]
            before = len(said(reader))
            for _ in range(100):
                await shop.change(next(numbers), "new")
                if len(said(reader)) > before + 5:
                    break
            reader.send_signal(how)
        for _ in range(100):
            await shop.change(next(numbers), "new")
        sent = next(numbers)
        await until(shop.is_copied, 2 * DEADLINE, pause=0.05)
        await shop.is_finished()
        assert await readers[0].exit_code() == 0
        assert "Traceback" not in readers[0].err.text, readers[0].err.text
        await end(readers[2])
        lines = said(*readers)
        assert len(lines) == len(set(lines))
        assert sent - 1 <= len(lines) <= sent  # one may have been killed between its work and saying so


async def check_failure(shop: Shop, run: Run, complaint: str) -> None:
    """An entry that can't be done is tried again, and then given up; the others are done."""
    async with run() as reader:
        await shop.feed.write("order.changed", ["not an order"])
        await shop.change(1, "new")
        await reader.out.expect("^order 1: new")
        await reader.err.expect(complaint)
        await shop.is_finished()
        reader.send_signal(signal.SIGTERM)
        assert await reader.exit_code() == 0
        assert said(reader) == ["order 1: new"]


async def check_death(shop: Shop, run: Run) -> None:
    """What a reader was at when it was killed is done by another one, and nothing is done twice."""
    async with run(CONSUMER="1") as reader, AsyncExitStack() as stack:
        await shop.change(1, "new")
        await reader.out.expect("^order 1: new")
        await shop.is_finished()
        with shop.database("copy.db") as copy:
            copy.execute("BEGIN IMMEDIATE")  # nobody else can write, so the reader waits in the middle of its work
            await shop.change(2, "new")
            end = time.monotonic() + DEADLINE
            while await shop.feed.waiting("orders"):
                assert time.monotonic() < end, "the entry is not given to the reader"
                await asyncio.sleep(0.02)
            reader.send_signal(signal.SIGKILL)
            await reader.exit_code()
            copy.rollback()
        other = await stack.enter_async_context(run(CONSUMER="2"))
        await other.out.expect("^order 2: new")
        await shop.is_finished()
        assert shop.is_copied()


async def test_the_redis_group(redis_shop: Shop) -> None:
    await check_reader(redis_shop, lambda: redis_shop.run("redis_group", "reverb"))


async def test_redis_group_shares(redis_shop: Shop) -> None:
    await check_sharing(redis_shop, lambda **env: redis_shop.run("redis_group", "reverb", **env))


async def test_redis_group_gives_up(redis_shop: Shop) -> None:
    await check_failure(
        redis_shop, lambda: redis_shop.run("redis_group", "reverb"), r"(?s)(ProgrammingError: Incorrect.*){5}"
    )
    async with Redis.from_url(redis_shop.url) as redis:
        dead: Any = await redis.xrange("reverb:dead")
    ((_, fields),) = dead
    assert fields[b"data"] == b'["not an order"]'
    assert fields[b"reason"].startswith(b"ProgrammingError(")


async def test_redis_group_takes_over_from_the_dead(redis_shop: Shop) -> None:
    await check_death(redis_shop, lambda **env: redis_shop.run("redis_group", "reverb", **env))


async def test_redis_group_begins_with_what_it_had(redis_shop: Shop) -> None:
    """No other reader may take it from the same consumer, so it does not wait until it counts as stuck."""
    await redis_shop.change(1, "new")
    async with Redis.from_url(redis_shop.url) as redis:
        await redis.xgroup_create("reverb", "orders", "0")
        await redis.xreadgroup("orders", "1", {"reverb": ">"})
    await redis_shop.change(1, "paid")
    async with redis_shop.run("redis_group", "reverb", STUCK_AFTER="600") as reader:
        await reader.out.expect("^order 1: new\norder 1: paid$")
        await redis_shop.is_finished()
        await end(reader)


@pytest.mark.parametrize("consumer", ["1", "2"])
async def test_redis_group_reads_all_when_pending_entries_are_trimmed(redis_shop: Shop, consumer: str) -> None:
    await redis_shop.change(1, "new")
    await redis_shop.change(2, "new")
    async with Redis.from_url(redis_shop.url) as redis:
        await redis.xgroup_create("reverb", "orders", "0")
        await redis.xreadgroup("orders", consumer, {"reverb": ">"})
        await redis.xtrim("reverb", maxlen=0, approximate=False)
    async with redis_shop.run("redis_group", "reverb", STUCK_AFTER="0.2") as reader:
        await reader.out.expect(r"may be missing \(.* trimmed before")
        await reader.out.expect("^order 2: new")
        await until(redis_shop.is_copied, pause=0.05)
        await redis_shop.is_finished()
        await end(reader)


async def check_order(shop: Shop, name: str, *arguments: str) -> None:
    """A reader for each of these arguments, which is a partition."""
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(shop.run(name, each)) for each in arguments]
        for number in range(200):
            await shop.change(number % 5, f"at {number}", channel=f"orders.{number % 5}")
            if number == 100:  # what is behind it waits
                await shop.feed.write("order.changed", ["not an order"], channel="orders.1")
        await until(
            lambda: len(said(*readers)) == 200, DEADLINE
        )  # what comes late changes nothing, and says nothing
        await shop.is_finished()
        for reader in readers:
            reader.send_signal(signal.SIGTERM)
            assert await reader.exit_code() == 0, reader.err.text


async def test_redis_group_reads_all_when_unread_entries_are_trimmed(redis_shop: Shop) -> None:
    await redis_shop.change(1, "new")
    async with redis_shop.run("redis_group", "reverb") as reader:
        await reader.out.expect("^order 1: new")
        await redis_shop.is_finished()
        await end(reader)
    await redis_shop.change(2, "new")
    await redis_shop.change(3, "new")
    async with Redis.from_url(redis_shop.url) as redis:
        await redis.xtrim("reverb", maxlen=1, approximate=False)
    async with redis_shop.run("redis_group", "reverb") as reader:
        await reader.out.expect(r"may be missing \(entries were trimmed")
        await until(redis_shop.is_copied, pause=0.05)
        await end(reader)


async def check_outage(shop: Shop, engine: Valkey | Nats, make: type[RedisFeed | NatsFeed], run: Run) -> None:
    """A reader waits for an engine that is away, and does nothing twice."""
    async with run() as reader:
        await shop.change(1, "new")
        await reader.out.expect("^order 1: new")
        await shop.is_finished()
        engine.stop()
        engine.start()
        await shop.feed.close()
        shop.feed = await make(shop.url).open()
        await shop.change(2, "new")
        await reader.out.expect("^order 2: new")
        await shop.is_finished()
        await end(reader)
        assert said(reader) == ["order 1: new", "order 2: new"]


async def test_redis_group_in_order(valkey: Valkey, tmp_path: Path) -> None:
    feed = await RedisFeed(valkey.url, partitions=2).open()
    await check_order(Shop(valkey.url, feed, tmp_path), "redis_group", "{reverb}:0", "{reverb}:1")
    await feed.close()


async def test_nats_durable_in_order(nats: Nats, tmp_path: Path) -> None:
    feed = await NatsFeed(nats.url, partitions=2).open()
    await check_order(Shop(nats.url, feed, tmp_path), "nats_durable", "0", "1", "0", "1")
    await feed.close()


async def test_the_nats_durable(nats_shop: Shop) -> None:
    await check_reader(nats_shop, lambda: nats_shop.run("nats_durable"))


async def test_nats_durable_shares(nats_shop: Shop) -> None:
    await check_sharing(nats_shop, lambda **env: nats_shop.run("nats_durable", **env))


async def test_nats_durable_gives_up(nats_shop: Shop) -> None:
    await check_failure(nats_shop, lambda: nats_shop.run("nats_durable"), r"^giving up on entry \d+ of reverb$")


async def test_nats_durable_takes_over_from_the_dead(nats_shop: Shop) -> None:
    await check_death(nats_shop, lambda **env: nats_shop.run("nats_durable", **env))


async def test_the_faststream_redis(redis_shop: Shop) -> None:
    await check_reader(redis_shop, lambda: redis_shop.run("faststream_redis"))


async def test_faststream_redis_shares(redis_shop: Shop) -> None:
    await check_sharing(redis_shop, lambda **env: redis_shop.run("faststream_redis", **env))


async def test_faststream_redis_takes_over_from_the_dead(redis_shop: Shop) -> None:
    await check_death(redis_shop, lambda **env: redis_shop.run("faststream_redis", **env))


async def test_the_faststream_nats(nats_shop: Shop) -> None:
    await check_reader(nats_shop, lambda: nats_shop.run("faststream_nats"))


async def test_faststream_nats_shares(nats_shop: Shop) -> None:
    await check_sharing(nats_shop, lambda **env: nats_shop.run("faststream_nats", **env))


async def test_faststream_nats_takes_over_from_the_dead(nats_shop: Shop) -> None:
    await check_death(nats_shop, lambda **env: nats_shop.run("faststream_nats", **env))


QUIET = {"PYTHONWARNINGS": "error,ignore:You're running the worker with superuser privileges"}
"""Where the tests are root, Celery warns of that, and Python makes that an error."""


async def check_hand_over(shop: Shop, reader: str, *worker: str, **env: str) -> None:
    env = {"BROKER_URL": shop.url.replace("/0", "/1"), **env}
    await shop.change(1, "new")
    async with shop.run(reader, *worker[1:], module=worker[0], **env) as tasks:
        async with shop.run(reader, "reverb", **env) as command:
            await until(lambda: "order 1: new" in tasks.out.text + tasks.err.text, DEADLINE)
            paid = await shop.change(1, "paid")
            await shop.feed.write("order.changed", paid, again=True)
            await until(lambda: "order 1: paid" in tasks.out.text + tasks.err.text, DEADLINE)
            shop.set(2, "new")
            await shop.feed.write("reverb:gap", {"from": 1, "to": 2, "reason": "disconnect"})
            await until(lambda: "order 2: new" in tasks.out.text + tasks.err.text, DEADLINE)
            for number in range(3, 50):
                await shop.change(number, "new")
            await shop.is_finished()
            await end(command)
        await until(shop.is_copied, DEADLINE, pause=0.05)
        tasks.send_signal(signal.SIGTERM)
        assert await tasks.exit_code() == 0, tasks.err.text
        assert "Traceback" not in tasks.err.text, tasks.err.text


@pytest.mark.timeout(120)
async def test_the_to_celery(redis_shop: Shop) -> None:
    pytest.importorskip("celery")
    if Version(version("redis")) < Version("6.4"):
        pytest.skip("Celery reads no Redis with a version of redis-py before 6.4")
    await check_hand_over(
        redis_shop, "to_celery", "celery", "--app", "to_celery", "worker", "--concurrency", "2", **QUIET
    )


async def test_the_to_taskiq(redis_shop: Shop) -> None:
    pytest.importorskip("taskiq_redis")
    await check_hand_over(redis_shop, "to_taskiq", "taskiq", "worker", "to_taskiq:broker", "--workers", "2")


async def test_redis_group_outlives_the_engine(redis_shop: Shop, valkey: Valkey) -> None:
    await check_outage(redis_shop, valkey, RedisFeed, lambda: redis_shop.run("redis_group", "reverb"))


async def test_nats_durable_outlives_the_engine(nats_shop: Shop, nats: Nats) -> None:
    await check_outage(nats_shop, nats, NatsFeed, lambda: nats_shop.run("nats_durable"))


async def test_faststream_redis_outlives_the_engine(redis_shop: Shop, valkey: Valkey) -> None:
    await check_outage(redis_shop, valkey, RedisFeed, lambda: redis_shop.run("faststream_redis"))


async def test_faststream_nats_outlives_the_engine(nats_shop: Shop, nats: Nats) -> None:
    await check_outage(nats_shop, nats, NatsFeed, lambda: nats_shop.run("faststream_nats"))
