"""``reverb relay``: as processes, on the embedded server and Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from reverb._settings import variables_of
from reverb.cli.relay import RelaySettings
from reverb.server import ReverbServer
from tests.cli.in_process import invoke
from tests.cli.processes import DEADLINE, reverb
from tests.relay.engines import Valkey
from tests.watching import owned, until


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path) as valkey:
        yield valkey


async def entries(valkey: Valkey, count: int) -> list[dict[str, str]]:
    """Wait for so many entries."""
    redis: Any = Redis.from_url(valkey.url, decode_responses=True)
    try:
        for _ in range(1500):
            found = [fields for _, fields in await redis.xrange("reverb")]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)
        raise AssertionError(f"not {count} entries, but {found}")
    finally:
        await redis.aclose()


async def test_one_that_is_killed_is_followed_by_the_other(
    embedded: ReverbServer, settings: dict[str, str], valkey: Valkey, tmp_path: Path
) -> None:
    relay = ("relay", "orders", "--lease", "1")
    environment = {**settings, "REVERB_RELAY_TO": valkey.url}
    async with reverb(*relay, env=environment, cwd=tmp_path) as first:
        await first.err.expect(r"leads now")
        async with reverb(*relay, env=environment, cwd=tmp_path) as second:
            await until(lambda: len(embedded.subscriptions.get("orders", [])) == 2)
            for number in range(10):
                await embedded.publish("orders", "e", {"n": number // 2})
            await entries(valkey, 10)
            first.send_signal(signal.SIGKILL)
            for number in range(10, 20):
                await embedded.publish("orders", "e", {"n": number // 2})
            await second.err.expect(r"leads now")
            found = await entries(valkey, 20)
            second.send_signal(signal.SIGTERM)
            assert await second.exit_code() == 0
            await second.err.expect(r"ended: \d+ written, 0 left$")
    numbers = [json.loads(each["data"])["n"] for each in found if each["event"] == "e" and "again" not in each]
    assert numbers == [number // 2 for number in range(20)]


async def test_a_program_with_a_relay_ends_like_any_other(
    embedded: ReverbServer, settings: dict[str, str], valkey: Valkey, tmp_path: Path
) -> None:
    program = f"""
import reverb, sys
from reverb.relay import Relay
sys.exit(reverb.run(lambda client: Relay(client, "orders", to={valkey.url!r}, lease=1).run()))
"""
    environment = {**os.environ, **settings}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=environment, cwd=tmp_path)
    async with owned(process):
        await embedded.wait_for_subscription("orders", timeout=DEADLINE)
        await embedded.publish("orders", "e", {})
        await entries(valkey, 1)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), DEADLINE) == 0


async def test_finds_channels(
    embedded: ReverbServer, settings: dict[str, str], valkey: Valkey, tmp_path: Path
) -> None:
    relay = ("relay", "--all", "--interval", "0.2", "--to", valkey.url)
    async with (
        reverb("listen", "orders.1", env=settings, cwd=tmp_path) as page,
        reverb(*relay, env=settings, cwd=tmp_path) as command,
    ):
        await page.err.expect("subscribed to")
        await command.err.expect("all channels to redis://")
        await until(lambda: len(embedded.subscriptions.get("orders.1", [])) == 2)
        await embedded.publish("orders.1", "e", {"n": 1})
        assert (await entries(valkey, 1))[-1]["channel"] == "orders.1"


async def test_tells_programs_how_it_is(
    embedded: ReverbServer, settings: dict[str, str], valkey: Valkey, tmp_path: Path
) -> None:
    async with reverb("relay", "orders", "--json", "--to", valkey.url, env=settings, cwd=tmp_path) as command:
        line = await command.out.expect(r"^\{.*\"role\": \"leader\".*\}$")
        status = json.loads(line[0])
        assert (status["is_connected"], status["channels"], status["problem"]) == (True, 1, None)


async def test_says_in_the_end_what_could_not_be_written(
    embedded: ReverbServer, settings: dict[str, str], valkey: Valkey, tmp_path: Path
) -> None:
    relay = ("relay", "orders", "--json", "--to", valkey.url, "--lease", "2")
    async with reverb(*relay, env=settings, cwd=tmp_path) as command:
        await command.err.expect("leads now")
        await embedded.wait_for_subscription("orders")
        valkey.kill()
        for number in range(3):
            await embedded.publish("orders", "e", {"n": number})
        await command.out.expect('"pending": 3')
        command.send_signal(signal.SIGTERM)
        await command.err.expect("the log may lack 3 events that it has received: redis://")
        assert await command.exit_code() == 0
        assert "Traceback" not in command.err.text


async def test_fits_a_narrow_terminal(
    embedded: ReverbServer, settings: dict[str, str], valkey: Valkey, tmp_path: Path
) -> None:
    relay = ("relay", "orders", "--to", valkey.url)
    async with reverb(*relay, env=settings, cwd=tmp_path, terminal=True, width=40) as command:
        await command.out.expect("leader")
        valkey.kill()
        await command.out.expect("keeps trying")
        command.press_ctrl_c()
        assert await command.exit_code() == 0
        await command.out.expect("ended: 0 written, 0 left")


async def test_ends_when_nobody_reads_its_status(
    embedded: ReverbServer, settings: dict[str, str], valkey: Valkey, tmp_path: Path
) -> None:
    async with reverb("relay", "orders", "--json", "--to", valkey.url, env=settings, cwd=tmp_path) as command:
        await command.out.expect(r'"is_healthy": true')
        command.out.close()
        assert await command.exit_code() == 0
        await command.err.expect(r"ended: 0 written, 0 left$")


async def test_a_health_file_that_can_not_be_written_is_told_of(
    embedded: ReverbServer, settings: dict[str, str], valkey: Valkey, tmp_path: Path
) -> None:
    directory = tmp_path / "health"
    file = directory / "relay.json"
    relay = ("relay", "orders", "--to", valkey.url, "--health-file", str(file))
    async with reverb(*relay, env=settings, cwd=tmp_path) as command:
        await command.err.expect("can't write the health file")
        assert await command.exit_code() == 2
    directory.mkdir()
    async with reverb(*relay, env=settings, cwd=tmp_path) as command:
        await command.err.expect("leads now")
        shutil.rmtree(directory)
        await command.err.expect("can't write the health file")
        directory.mkdir()
        await until(file.exists)
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0
    assert list(directory.iterdir()) == []


async def test_who_asks_for_its_health_does_not_hold_up_its_end(
    embedded: ReverbServer, settings: dict[str, str], valkey: Valkey, tmp_path: Path
) -> None:
    relay = ("relay", "orders", "--to", valkey.url, "--health-port", "0")
    async with reverb(*relay, env=settings, cwd=tmp_path) as command:
        port = (await command.err.expect(r"answering on http://127\.0\.0\.1:(\d+)"))[1]
        await command.err.expect("leads now")
        async with reverb(*relay[:-1], port, env=settings, cwd=tmp_path) as other:
            assert await other.exit_code() == 2
            await other.err.expect(f"--health-port: can't use port {port}")
        _, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        await writer.drain()
        command.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(command.exit_code(), 8) == 0
        writer.close()


async def test_answers_those_who_watch_over_it(
    embedded: ReverbServer, settings: dict[str, str], valkey: Valkey, tmp_path: Path
) -> None:
    file = tmp_path / "health.json"
    relay = (
        "relay",
        "orders",
        "--to",
        valkey.url,
        "--health-file",
        str(file),
        "--health-port",
        "0",
        "--lease",
        "1",
    )
    asking = ("relay", "--is-healthy", "--health-file", str(file))

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    async with reverb(*relay, env=settings, cwd=tmp_path) as command:
        port = (await command.err.expect(r"answering on http://127\.0\.0\.1:(\d+)"))[1]
        await command.err.expect("leads now")
        code, text = await asyncio.to_thread(get, "/health")
        assert (code, json.loads(text)["is_healthy"]) == (200, True)
        code, text = await asyncio.to_thread(get, "/metrics")
        assert code == 200
        assert "\nreverb_relay_leader 1.0\n" in text
        assert 'reverb_connected{client="relay"} 1.0' in text
        await until(lambda: json.loads(file.read_bytes())["is_healthy"])
        assert (await asyncio.to_thread(invoke, *asking)).exit_code == 0
        valkey.kill()
        await command.err.expect("keeps trying")
        assert (await asyncio.to_thread(get, "/health"))[0] == 503
        assert (await asyncio.to_thread(get, "/live"))[0] == 200
        await until(lambda: not json.loads(file.read_bytes())["is_healthy"])
        sick = await asyncio.to_thread(invoke, *asking)
        assert sick.exit_code == 1
        assert valkey.url in sick.stderr
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0
    gone = await asyncio.to_thread(invoke, *asking)
    assert (gone.exit_code, "no relay is running: there is no file" in gone.stderr) == (1, True)


def test_a_relay_that_hangs_is_not_healthy(tmp_path: Path) -> None:
    file = tmp_path / "health.json"
    file.write_text('{"time": 0, "is_healthy": true, "problem": null, "finding_problem": null}')
    result = invoke("relay", "--is-healthy", "--health-file", str(file))
    assert (result.exit_code, "the relay hangs or has ended" in result.stderr) == (1, True)
    file.write_text("[]")
    result = invoke("relay", "--is-healthy", "--health-file", str(file))
    assert (result.exit_code, "is not a health file" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("orders",), "REVERB_RELAY_TO is missing"),
        (("--to", "redis://127.0.0.1"), "no channels"),
        (("orders", "--to", "redis://127.0.0.1", "--prefix", "x"), "--prefix and --exclude need --all"),
        (("presence-room", "--to", "redis://127.0.0.1"), "--presence-user"),
        (("orders", "--to", "http://127.0.0.1"), "redis://"),
        (("orders", "--to", "redis://127.0.0.1", "--lease", "0"), "REVERB_RELAY_LEASE"),
        (("--is-healthy",), "--health-file"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"REVERB_APP_KEY": "key", "REVERB_HOST": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    result = invoke("relay", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_settings_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    assert set(re.findall(r"REVERB_RELAY_\w+", text)) == set(variables_of(RelaySettings))


async def test_the_password_has_a_variable(
    embedded: ReverbServer, settings: dict[str, str], tmp_path: Path
) -> None:
    with Valkey(tmp_path, password="p/w") as valkey:
        url = f"redis://127.0.0.1:{valkey.port}"
        env = {**settings, "REVERB_RELAY_PASSWORD": "p/w"}
        async with reverb("relay", "orders", "--to", url, env=env, cwd=tmp_path) as command:
            await command.err.expect("leads now")
        async with reverb("relay", "orders", "--to", url, env=settings, cwd=tmp_path) as command:
            assert await command.exit_code() == 2
            assert "refuses the user or the password" in command.err.text


def test_the_password_of_the_engine_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_APP_KEY", "key")
    result = invoke("relay", "orders", "--to", "http://:hush@127.0.0.1")
    assert "hush" not in result.stderr + result.stdout
