"""docs/guides/fleet*.md: their commands run, their unit and their settings are ours, and their tables are whole.

The programs that they name are run by ``tests/relay/test_consumers.py``.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from time import monotonic
from typing import Any, get_args

import nats
import pytest
import yaml
from redis.asyncio import Redis

from reverb import ReverbConfig
from reverb._settings import variables_of
from reverb.cli.relay import RelaySettings
from reverb.relay import RelayStatus
from reverb.relay._alignment import Reason
from reverb.relay._log import Entry, Sink
from reverb.relay._nats import NatsSink
from reverb.relay._redis import RedisSink
from reverb.server import ReverbServer
from tests.cli.in_process import invoke
from tests.cli.processes import DEADLINE
from tests.cli.processes import reverb as run_module
from tests.docs.pages import GITHUB, Block, Page
from tests.relay.engines import Valkey
from tests.relay.nats_server import Nats
from tests.relay.test_consumers import SCHEMA
from tests.watching import until

ROOT = Path(__file__).parents[2]
OVERVIEW, WORKERS, RUNNING = PAGES = [
    Page(f"docs/guides/{name}.md") for name in ("fleet", "fleet-workers", "fleet-running")
]
TEXT = "".join(page.text for page in PAGES)
URL = "redis://127.0.0.1:6379/0"


def read_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)


def read_section(heading: str) -> str:
    return re.split(r"^#+ ", TEXT.split(f"# {heading}\n")[1], maxsplit=1, flags=re.M)[0]


def read_table(heading: str, number: int = 0) -> list[list[str]]:
    """The rows of a table below a heading, with what each cell has in backquotes."""
    tables = re.findall(r"(?:^\|.*\n)+", read_section(heading), re.M)
    rows = [line.strip("|").split("|") for line in tables[number].splitlines()[2:]]
    return [[" ".join(re.findall(r"`([^`]+)`", cell)) for cell in row] for row in rows]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.stem)
def test_every_block_is_tested(page: Page) -> None:
    page.check_that_all_is_tested()


def test_the_programs() -> None:
    files = {path.name for path in (ROOT / "examples/relay").iterdir() if path.is_file()}
    named = set(re.findall(rf"^\| \[([\w.]+)\]\({GITHUB}examples/relay/\1\)", read_section("Programs"), re.M))
    assert named == files - {"orders.py"}


@WORKERS.block_of("FastStream", "FastStream 2")
def test_excerpts_are_of_the_program(block: Block) -> None:
    assert block.text in (ROOT / "examples/relay/faststream_redis.py").read_text(encoding="utf-8")


@WORKERS.block_of("Gap entries")
def test_reasons(block: Block) -> None:
    assert [row[0] for row in read_table("Gap entries")] == list(get_args(Reason))
    gap = json.loads(block.text)
    assert gap.keys() == {"from", "to", "reason"}
    assert gap["reason"] in get_args(Reason)


def test_what_is_seen() -> None:
    cells = [row[2] for row in read_table("What breaks, and what happens then")]
    names = {name for cell in cells for name in re.findall(r"^[a-z_]+$", cell.replace(" ", "\n"), re.M)}
    assert names & {*RelayStatus.__struct_fields__} >= {
        "takeovers",
        "role",
        "others",
        "gaps",
        "problem",
        "missing",
    }


async def write_all(sink: Sink) -> None:
    """Write an entry with all that an entry can have."""
    await sink.open()
    grant = await sink.acquire()
    assert grant is not None
    await sink.renew(grant.epoch, None, b"")
    await sink.append(
        grant.epoch, [Entry("presence-\n", "client-e", b"{}", "7", 2, 1, grant.epoch, number=1, again=True)]
    )


async def test_the_entries_in_redis(tmp_path: Path) -> None:
    fields = {row[0] for row in read_table("The entries")} - {"quoted"}
    log, partitions, lease = (row[1].split() for row in read_table("The entries", 1))
    with Valkey(tmp_path) as valkey:
        sinks = [RedisSink(valkey.url, relay="a"), RedisSink(valkey.url, relay="a", partitions=4)]
        for sink in sinks:
            await write_all(sink)
        follower = RedisSink(valkey.url, relay="b")
        await follower.open()
        await follower.check_lease(is_ready=True)
        redis: Any = Redis.from_url(valkey.url, decode_responses=True)
        ((_, entry),) = await redis.xrange("reverb")
        keys = set(await redis.keys())
        await redis.aclose()
        for sink in (*sinks, follower):
            await sink.close()
    assert entry.keys() == fields
    assert partitions == ["{reverb}:0", "{reverb}:3"]
    (partition,) = keys - {*log, *lease}
    assert re.fullmatch(r"\{reverb\}:[0-3]", partition)
    assert keys == {partition, *log, *lease}


async def test_the_entries_in_jetstream(tmp_path: Path) -> None:
    fields = {row[0] for row in read_table("The entries")} - {"data", "writer"} | {"Nats-Msg-Id"}
    buckets = read_table("The entries", 1)[2][2].split()
    with Nats(tmp_path) as server:
        sink = NatsSink(server.url, relay="a")
        await write_all(sink)
        client = await nats.connect(server.url)
        message = await client.jetstream().get_last_msg("reverb", "reverb.>")
        found = {each.config.name for each in await client.jsm().streams_info()}
        marker = await client.jetstream().get_last_msg("reverb", "reverb-relay")
        await client.close()
        await sink.close()
    assert message.headers is not None
    assert {each for each in message.headers if not each.startswith("Nats-") or each in fields} == fields
    assert found == {"reverb", *(f"KV_{name}" for name in buckets[:2])}
    assert marker.subject == buckets[2]


@RUNNING.block_of("How many relays")
def test_the_settings(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(block.text)
    assert ReverbConfig.from_env().host == "reverb.example.com"
    relay = RelaySettings.from_env()
    assert (relay.relay_channels, relay.relay_max_age) == ("private-orders news", 604800)


@RUNNING.block_of("With systemd")
def test_the_unit(block: Block, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not there")
    assert "/opt/reverb-relay/bin/reverb relay" in block.text
    file = tmp_path / "reverb-relay@.service"
    file.write_text(block.text.replace("/opt/reverb-relay/bin/reverb", f"{sys.executable} -m reverb"))
    done = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", str(file).replace("@", "@1")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@RUNNING.block_of("With systemd 2")
def test_the_commands_of_systemd(block: Block) -> None:
    unit = "reverb-relay@"
    assert f"`/etc/systemd/system/{unit}.service`" in RUNNING.text
    for line in block.text.splitlines():
        match shlex.split(line, comments=True):
            case ["sudo", "python3", "-m", "venv", path]:
                assert path == "/opt/reverb-relay"
            case ["sudo", "/opt/reverb-relay/bin/pip", "install", what]:
                assert what == "python-reverb[cli,relay-redis]"
            case ["sudo", "systemctl", "daemon-reload"]:
                pass
            case ["sudo", "systemctl", "enable", "--now", *units]:
                assert all(each.startswith(unit) for each in units)
            case words:
                assert words == ["sudo", "journalctl", "--unit", f"{unit}*", "--follow"]


@RUNNING.block_of("With Compose")
def test_the_compose_file(block: Block) -> None:
    services = yaml.safe_load(block.text)["services"]
    relay = services["relay"]
    known = {*variables_of(RelaySettings), *variables_of(ReverbConfig)}
    assert set(relay["environment"]) <= known
    assert all(isinstance(value, str) for value in relay["environment"].values())
    assert set(relay["depends_on"]) <= set(services)
    assert 'ENTRYPOINT ["reverb", "relay"]' in relay["build"]["dockerfile_inline"]
    first, *command = relay["healthcheck"]["test"]
    assert (first, command[0]) == ("CMD", "reverb")
    health = relay["environment"]["REVERB_RELAY_HEALTH_FILE"]
    done = invoke(*command[1:], relay_health_file=f"{health}.nobody")
    assert done.exit_code == 1
    assert "no relay is running: there is no file" in done.stderr


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    (tmp_path / "engine").mkdir()
    with Valkey(tmp_path / "engine") as engine:
        yield engine


def read_commands(section: str) -> list[tuple[dict[str, str], list[str]]]:
    """The commands of a section: variables, and arguments."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", read_section(section), re.M | re.S):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z]+=", word))
            found.append((given, words[len(given) :]))
    return found


@pytest.mark.timeout(120)
async def test_two_relays_and_a_worker_for_each_partition(
    reverb_server: ReverbServer, valkey: Valkey, tmp_path: Path
) -> None:
    """The commands of the document, and a leader that is killed."""
    for file in (ROOT / "examples/relay").glob("*.py"):
        shutil.copy(file, tmp_path)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop, shop:
        shop.execute(SCHEMA)
    (_, command), *readers = read_commands("Sharing, and order")[:3]
    assert command[:2] == ["reverb", "relay"]
    arguments = [valkey.url if word == URL else word for word in command[1:]]
    env = {**reverb_server.env, "REVERB_RELAY_LEASE": "1", "RELAY_URL": valkey.url, "PYTHONUNBUFFERED": "1"}
    redis: Any = Redis.from_url(valkey.url, decode_responses=True)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        leader = await stack.enter_async_context(run_module(*arguments, env=env, cwd=tmp_path))
        await leader.err.expect("leads now")
        follower = await stack.enter_async_context(run_module(*arguments, env=env, cwd=tmp_path))
        await follower.err.expect("connected to")
        end = monotonic() + DEADLINE
        while not await redis.zcard("{reverb}:ready"):
            assert monotonic() < end, "the second relay is not ready to take over"
            await asyncio.sleep(0.02)
        workers = []
        for given, (python, program, *more) in readers:
            assert python == "python"
            run = run_module(*more, module=program[:-3], env={**env, **given}, cwd=tmp_path)
            workers.append(await stack.enter_async_context(run))

        def said() -> list[str]:
            return [line for each in workers for line in each.out.text.splitlines() if line.startswith("order ")]

        for number in range(60):
            data = {"id": number, "status": "new", "version": number}
            await reverb_server.publish(("private-orders", "news")[number % 2], "order.changed", data)
            if number == 30:
                await until(lambda: said(), DEADLINE)
                leader.send_signal(signal.SIGKILL)
        await follower.err.expect("leads now")
        await until(lambda: len(said()) == 60, DEADLINE)
        for each in (*workers, follower):
            each.send_signal(signal.SIGTERM)
            assert await each.exit_code() == 0
            assert "Traceback" not in each.err.text, each.err.text
        entries = [each for stream in ("{reverb}:0", "{reverb}:1") for _, each in await redis.xrange(stream)]
    ids = [json.loads(each["data"])["id"] for each in entries if "again" not in each]
    assert len(ids) == len(set(ids))


@OVERVIEW.block_of("More than one process")
def test_how_to_begin(block: Block) -> None:
    install, relay = [shlex.split(line, comments=True) for line in block.text.splitlines()]
    assert install == ["pip", "install", "python-reverb[cli,relay-redis]"]
    assert "\nrelay-redis = " in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert relay[:2] == ["reverb", "relay"]


@WORKERS.block_of("Sharing, and order", "Sharing, and order 2")
def test_the_programs_of_the_commands_are_there(block: Block) -> None:
    """The first ones are run above."""
    for name in re.findall(r"python (\w+\.py)", block.text):
        assert (ROOT / "examples/relay" / name).is_file()


def test_the_commands_have_these_options() -> None:
    known = invoke("relay", "--help").output
    lines = [line for block in read_blocks("bash") for line in block.splitlines()]
    options = re.findall(r" (--[a-z-]+)", " ".join(line for line in lines if line.startswith("reverb relay")))
    assert options
    for option in (*options, "--max-age", "--maxlen", "--decrypt", "--is-healthy", "--health-port", "--all"):
        assert option in known, option
