"""``reverb channels``: the channels in use, as a table and as JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from reverb import ReverbClient
from reverb.server import ReverbServer
from tests.cli.in_process import answer, fails, objects
from tests.cli.processes import reverb
from tests.integration.servers import Target
from tests.scripted_http import ScriptedHTTPServer
from tests.scripted_http import answer as http

LONG = "private-" + "x" * 100


@pytest.fixture
async def crowd(target: Target) -> AsyncIterator[None]:
    """Somebody on three channels."""
    async with ReverbClient(**target.settings) as client:
        for name in ("news", LONG):
            await client.subscribe(name)
        await client.subscribe("presence-room.1", user_data={"user_id": "ann", "user_info": {}})
        yield


async def test_in_a_pipe(crowd: None, settings: dict[str, str], tmp_path: Path) -> None:
    async with reverb("channels", env=settings, cwd=tmp_path) as command:
        assert await command.exit_code() == 0
        head, *rows = command.out.text.splitlines()
        assert head.split() == ["Channel", "Subscriptions", "Users"]
        assert [row.split() for row in rows] == [
            ["news", "1", "-"],
            ["presence-room.1", "-", "1"],
            [LONG, "1", "-"],
        ]
        assert len({row.index(row.split()[1], len(row.split()[0])) for row in rows}) == 1  # in columns


@pytest.mark.parametrize(("width", "variables"), [(80, {}), (40, {"NO_COLOR": "1"})])
async def test_in_a_terminal(
    width: int, variables: dict[str, str], crowd: None, settings: dict[str, str], tmp_path: Path
) -> None:
    env = {**settings, **variables}
    async with reverb("channels", env=env, cwd=tmp_path, terminal=True, width=width) as command:
        assert await command.exit_code() == 0
        assert ("\x1b[35mpresence" in command.out.text) == (not variables)
        plain = command.out.plain
        assert all(len(line) <= width for line in plain.splitlines())
        assert "".join(plain.split()).count("x") >= 100  # folded, and not cut


@pytest.mark.parametrize("columns", ["0", "1", "5"])
async def test_widths_that_no_terminal_has(
    columns: str, crowd: None, settings: dict[str, str], tmp_path: Path
) -> None:
    env = {**settings, "COLUMNS": columns}
    async with reverb("channels", env=env, cwd=tmp_path, terminal=True) as command:
        assert await command.exit_code() == 0
        assert "".join(command.out.plain.split()).count("x") >= 100


def test_json(reverb_server: ReverbServer) -> None:
    assert answer("channels") == "no channel has subscribers\n"
    assert answer("channels", "--prefix", "pre") == "no channel whose name begins with pre has subscribers\n"
    assert objects("channels") == []


async def test_json_in_a_process(crowd: None, settings: dict[str, str], tmp_path: Path) -> None:
    async with reverb("channels", "--prefix", "presence-", "--json", env=settings, cwd=tmp_path) as command:
        assert await command.exit_code() == 0
        assert command.out.text == '{"channel": "presence-room.1", "subscription_count": null, "user_count": 1}\n'


async def test_a_server_that_does_not_count(settings: dict[str, str], tmp_path: Path) -> None:
    answers = http(400, '{"error": "user_count needs a prefix"}'), http(200, '{"channels": {"news": {}}}')
    async with ScriptedHTTPServer(*answers) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        async with reverb("channels", env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == 0
            assert command.out.text.splitlines()[1].split() == ["news", "-", "-"]
        asked = [parse_qs(urlsplit(request.target).query).get("info") for request in server.requests]
        assert asked == [["subscription_count,user_count"], None]


def test_what_goes_wrong(reverb_server: ReverbServer) -> None:
    fails("channels", "--port", "1", request_timeout="0.1", code=3, says="cannot connect to 127.0.0.1:1")
    fails("channels", "--app-id", "none", code=4, says="with 404")
    fails("channels", code=4, says="with 401", app_secret="wr0ng")
    fails("channels", "--path", "wrong", code=4, says="REVERB_PATH")


async def test_an_answer_that_takes_its_time(settings: dict[str, str], tmp_path: Path) -> None:
    async with ReverbServer() as slow:
        env = {**slow.env, "REVERB_REQUEST_TIMEOUT": "1"}
        slow.delay(30)
        async with reverb("channels", env=env, cwd=tmp_path, terminal=True) as command:
            await command.out.expect("waiting for 127.0.0.1")
            assert await command.exit_code() == 3
            assert "REVERB_REQUEST_TIMEOUT" in command.out.text


async def test_nobody_reads(crowd: None, settings: dict[str, str], tmp_path: Path) -> None:
    for form in ([], ["--json"]):
        async with reverb("channels", *form, env=settings, cwd=tmp_path, is_read=False) as command:
            assert await command.exit_code() == 0
            assert command.err.text == ""
