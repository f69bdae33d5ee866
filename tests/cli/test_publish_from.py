"""``reverb publish --from``: from a stream of an engine to the HTTP API, as a process."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reverb.server import ReverbServer
from tests.cli.in_process import fails
from tests.cli.processes import Command, reverb
from tests.relay.streams import JetStream, RedisStream, Stream
from tests.watching import until

DEADLINE = 30.0


@pytest.fixture(params=[RedisStream, JetStream], ids=["redis", "jetstream"])
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stream]:
    with request.param(tmp_path) as stream:
        yield stream


@pytest.fixture
def redis_stream(tmp_path: Path) -> Iterator[RedisStream]:
    with RedisStream(tmp_path) as stream:
        yield stream


def has_published(server: ReverbServer, count: int) -> bool:
    return len(server.events) >= count


async def fill(stream: Stream, count: int) -> None:
    await stream.add_all([{"channel": "news", "event": "e", "data": json.dumps({"n": n})} for n in range(count)])


def numbers_of(server: ReverbServer) -> list[int]:
    return [each.data["n"] for each in server.events]


def has_more(server: ReverbServer, count: int) -> bool:
    return len(server.events) > count


def objects_of(command: Command) -> list[dict[str, Any]]:
    return [json.loads(line) for line in command.out.text.splitlines()]


async def test_for_programs(
    stream: Stream, embedded: ReverbServer, settings: dict[str, str], tmp_path: Path
) -> None:
    await fill(stream, 12)
    bad = await stream.add(channel="news", event="bad", data="nonsense")
    arguments = ["--from", stream.server.url, "--group", "g", "--json"]
    async with reverb("publish", *arguments, env=settings, cwd=tmp_path) as command:
        await command.out.expect('"dead_letter"')
        await until(lambda: len(embedded.events) == 12, DEADLINE)
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0
        assert command.err.text == ""
        found = objects_of(command)
    assert sum(each.get("published", 0) for each in found) == 12
    (dead,) = (each for each in found if "dead_letter" in each)
    assert (dead["dead_letter"], dead["channel"], dead["event"]) == (bad, "news", "bad")
    assert dead["reason"].startswith("its data is not JSON")
    assert (found[-1]["total"], found[-1]["dead"]) == (12, 1)
    assert numbers_of(embedded) == list(range(12))
    assert await stream.left() == 0


async def test_killed_in_the_middle(
    stream: Stream, embedded: ReverbServer, settings: dict[str, str], tmp_path: Path
) -> None:
    await fill(stream, 2000)
    arguments = ["--from", stream.server.url, "--group", "g", "--claim-after", "1", "--json"]
    for seen in (100, 300):
        async with reverb("publish", *arguments, env=settings, cwd=tmp_path) as command:
            await until(partial(has_published, embedded, seen), DEADLINE)
            command.send_signal(signal.SIGKILL)
            await command.exit_code()
    assert len(embedded.events) < 2000
    async with reverb("publish", *arguments, env=settings, cwd=tmp_path) as command:
        await until(lambda: 1999 in numbers_of(embedded), DEADLINE)
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0
    published = numbers_of(embedded)
    assert list(dict.fromkeys(published)) == list(range(2000))
    assert len(published) - 2000 <= 2 * 10
    assert await stream.left() == 0


async def test_for_people(
    redis_stream: RedisStream, embedded: ReverbServer, settings: dict[str, str], tmp_path: Path
) -> None:
    await fill(redis_stream, 3)
    await redis_stream.add(channel="news", event="\x1b[31mbad", data="nonsense")
    arguments = ["--from", redis_stream.server.url, "--group", "g"]
    async with reverb("publish", *arguments, env=settings, cwd=tmp_path) as command:
        route = rf"{redis_stream.server.url} to 127.0.0.1:\d+"
        await command.err.expect(f"publishing from {route}; press Ctrl-C to stop")
        await command.err.expect(r"dead letter \S+, \\x1b\[31mbad on news: its data is not JSON")
        await until(redis_stream.is_done, DEADLINE)
        redis_stream.server.kill()
        away = await command.err.expect(r"can't reach .*; the next try is in [0-9.]+ second")
        redis_stream.server.start()
        await fill(redis_stream, 1)
        await command.err.expect("publishing again", after=away)
        command.send_signal(signal.SIGINT)
        assert await command.exit_code() == 0
        assert command.out.text.startswith("published 4 events, 1 dead letter, lag ")
        assert "nothing published yet" not in command.err.text


async def test_in_a_terminal(
    redis_stream: RedisStream, embedded: ReverbServer, settings: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["--from", redis_stream.server.url, "--group", "g"]
    async with reverb("publish", *arguments, env=settings, cwd=tmp_path, terminal=True) as command:
        await command.out.expect("nothing published yet")
        await fill(redis_stream, 3)
        await command.out.expect(r"127\.0\.0\.1:\d+: published 3 events, 0 dead letters")
        command.press_ctrl_c()
        assert await command.exit_code() == 0


async def test_an_output_that_nobody_reads(
    redis_stream: RedisStream, embedded: ReverbServer, settings: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["--from", redis_stream.server.url, "--group", "g", "--json"]
    async with reverb("publish", *arguments, env=settings, cwd=tmp_path, is_read=False) as command:
        await fill(redis_stream, 1)
        assert await command.exit_code() == 0
        assert command.err.text == ""
    assert await redis_stream.left() == 0


async def test_names_and_the_password(embedded: ReverbServer, settings: dict[str, str], tmp_path: Path) -> None:
    with RedisStream(tmp_path, "--requirepass", "S3C/R3T", password="S3C/R3T") as stream:
        stream.redis.xadd("in", {"channel": "news", "event": "e", "data": "1"})
        stream.redis.xadd("in", {"channel": "news", "event": "e", "data": "bad"})
        names = ["--stream", "in", "--dead-letter", "out", "--consumer", "me"]
        arguments = ["--from", stream.server.url, "--group", "g", *names]
        env = {**settings, "REVERB_RELAY_PASSWORD": "S3C/R3T"}
        async with reverb("publish", *arguments, env=env, cwd=tmp_path) as command:
            await command.err.expect("dead letter")
            await until(lambda: embedded.events, DEADLINE)
            command.send_signal(signal.SIGTERM)
            assert await command.exit_code() == 0
        assert stream.redis.xlen("out") == 1
        consumers: Any = stream.redis.xinfo_consumers("in", "g")
        assert [each["name"] for each in consumers] == [b"me"]
        env["REVERB_RELAY_PASSWORD"] = "S3C-WRONG"
        async with reverb("publish", *arguments, env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == 2
            assert "check user and password" in command.err.text
            assert "S3C" not in command.err.text


async def test_a_wrong_secret_ends_it(
    redis_stream: RedisStream, embedded: ReverbServer, settings: dict[str, str], tmp_path: Path
) -> None:
    await fill(redis_stream, 1)
    env = {**settings, "REVERB_APP_SECRET": "wrong"}
    arguments = ["--from", redis_stream.server.url, "--group", "g"]
    async with reverb("publish", *arguments, env=env, cwd=tmp_path) as command:
        assert await command.exit_code() == 4
        assert "check REVERB_APP_KEY, REVERB_APP_SECRET" in command.err.text
    assert await redis_stream.left() == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "redis://h"], "--group"),
        (["--from", "redis://h", "--group", "g", "news", "e"], "excludes channels"),
        (["--from", "redis://h", "--group", "g", "--file", "-"], "excludes channels"),
        (["--group", "g", "news", "e"], "need --from"),
        (["--from", "http://h", "--group", "g"], "must begin with one of redis://"),
        (["--from", "redis://", "--group", "g"], "must be like redis://host"),
        (["--from", "redis", "--group", "g"], "must begin with one of redis://"),
        (["--from", "nats://h", "--group", "g", "--consumer", "me"], "--consumer is for Redis"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str) -> None:
    fails("publish", *arguments, code=2, says=says, host="h", app_id="i", app_key="k", app_secret="s")
