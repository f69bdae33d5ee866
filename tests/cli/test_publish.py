"""``reverb publish``: what is sent, what is said, how it ends."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reverb import ReverbClient
from tests.cli.processes import reverb
from tests.integration.servers import Target
from tests.scripted_http import ScriptedHTTPServer, answer, never
from tests.test_dispatch import Recorder
from tests.watching import until

LINES = "".join(json.dumps({"channel": "news", "event": "e", "data": {"n": n}}) + "\n" for n in range(25))


@pytest.fixture
async def heard(target: Target) -> AsyncIterator[Recorder]:
    """What arrives on the channels ``news`` and ``private-a``."""
    recorder = Recorder()
    async with ReverbClient(**target.settings) as client:
        for name in ("news", "private-a"):
            (await client.subscribe(name)).bind("e", recorder)
        yield recorder


async def publish(
    *arguments: str, env: dict[str, str], cwd: Path, code: int = 0, out: str = "", err: str = "", **options: Any
) -> None:
    """Run the command to its end; assert how it ends and all that it says."""
    async with reverb("publish", *arguments, env=env, cwd=cwd, **options) as command:
        assert await command.exit_code() == code, command.err.text
        assert await command.out.end() == out
        assert "Traceback" not in command.err.text
        if err:
            assert err in command.err.text
        else:
            assert command.err.text == ""


# --- one event -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["news", "e"], [("e", {}, "news")]),
        (["news", "e", '{"id": 1}'], [("e", {"id": 1}, "news")]),
        (["news", "e", "--text", "just text"], [("e", "just text", "news")]),
        (["news", "e", '"a JSON string"'], [("e", "a JSON string", "news")]),
        (["news", "private-a", "e", "1"], [("e", 1, "news"), ("e", 1, "private-a")]),
        (["news", "e", "--", "-1"], [("e", -1, "news")]),
    ],
)
async def test_arguments(
    arguments: list[str], seen: list[Any], heard: Recorder, settings: dict[str, str], tmp_path: Path
) -> None:
    channels = ", ".join(channel for _, _, channel in seen)
    await publish(*arguments, env=settings, cwd=tmp_path, out=f"published e on {channels}\n")
    assert sorted(await heard.wait_for(len(seen)), key=str) == seen


async def test_data_from_the_standard_input(heard: Recorder, settings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").write_text("Zoë\n", encoding="utf-8")
    out, stdin = '{"accepted": 1}\n', tmp_path / "data"
    await publish("news", "e", "-", "--text", "--json", env=settings, cwd=tmp_path, out=out, stdin=stdin)
    assert await heard.wait_for(1) == [("e", "Zoë", "news")]


# --- files -----------------------------------------------------------------------------------------------------


async def test_a_file_is_sent_in_order(heard: Recorder, settings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lines").write_text(f"\n{LINES}\n")
    await publish("--file", "lines", env=settings, cwd=tmp_path, out="published 25 of 25 events\n")
    assert [data["n"] for _, data, _ in await heard.wait_for(25)] == list(range(25))


async def test_lines_from_the_standard_input(heard: Recorder, settings: dict[str, str], tmp_path: Path) -> None:
    stdin = tmp_path / "lines"
    stdin.write_text(LINES)
    out = '{"accepted": 25}\n'
    await publish("--file", "-", "--json", env=settings, cwd=tmp_path, out=out, stdin=stdin)
    await heard.wait_for(25)


async def test_progress_in_a_terminal(heard: Recorder, settings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lines").write_text(LINES)
    async with reverb("publish", "--file", "lines", env=settings, cwd=tmp_path, terminal=True) as command:
        assert await command.exit_code() == 0
        assert "Publishing" in command.out.text
        assert "25/25" in command.out.text
        assert "published 25 of 25 events" in command.out.text


async def test_a_line_that_is_wrong_stops_all(heard: Recorder, settings: dict[str, str], tmp_path: Path) -> None:
    for line, says in (
        ("{nope", "line 26 of lines is not an event: JSON is malformed"),
        ('{"event": "e", "data": 1}', "missing required field `channel`; no event was sent"),
        ('{"channel": "a", "event": 1, "data": 1}', "Expected `str`"),
        ("[" * 100_000, "line 26 of lines is not an event"),
    ):
        (tmp_path / "lines").write_text(LINES + line)
        await publish("--file", "lines", env=settings, cwd=tmp_path, code=2, err=says)
    assert heard.calls == []


async def test_a_refusal_in_the_middle(settings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lines").write_text(LINES)
    async with ScriptedHTTPServer(answer(200), answer(413)) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        out = "published 10 of 25 events; the server has not confirmed line 11 and the lines after it\n"
        await publish("--file", "lines", env=env, cwd=tmp_path, code=4, out=out, err="with 413")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_end_in_the_middle(
    number: signal.Signals, code: int, settings: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "lines").write_text(LINES)
    async with ScriptedHTTPServer(answer(200), never) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        async with reverb("publish", "--file", "lines", "--json", env=env, cwd=tmp_path) as command:
            await until(lambda: len(server.requests) == 2, 15)
            command.send_signal(number)
            assert await command.exit_code() == code
            assert command.out.text == '{"accepted": 10}\n'
            assert command.err.text == ""


# --- what goes wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name a channel and an event, or use --file"),
        (["news"], "name a channel and an event, or use --file"),
        (["news", "e", "--file", "lines"], "--file excludes channels, event, data and --text"),
        (["--file", "missing"], "can't read missing: No such file"),
        (["news", "e", "{bad"], "reverb: the data is not JSON: JSON is malformed: object keys"),
        (["news", "e", "just text"], "; to send it as a text, add --text\n"),
        (["news", "e", "--text", "x" * 10_000], "REVERB_MAX_REQUEST_SIZE"),
        (["news", "e", "--scheme", "ftp"], "REVERB_SCHEME"),
        (["", "e"], "the name of a channel or of the event is empty"),
        (["news", ""], "the name of a channel or of the event is empty"),
        (["news", "", "e", "{}"], "the name of a channel or of the event is empty"),
        (
            ["--file", "nameless"],
            "line 1 of nameless is not an event: the name of the channel or of the event is empty",
        ),
    ],
    ids=[
        *("nothing", "no-event", "both", "no-file", "no-json", "text", "too-large", "setting"),
        *("empty-channel", "empty-event", "one-empty-channel", "empty-in-a-file"),
    ],
)
async def test_wrong_usage(arguments: list[str], says: str, settings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "nameless").write_text('{"channel": "", "event": "e", "data": {}}')
    await publish(*arguments, env=settings, cwd=tmp_path, code=2, err=f"{says}")


async def test_a_line_that_is_too_large(settings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lines").write_text(LINES + json.dumps({"channel": "a", "event": "e", "data": "x" * 10_000}))
    out = "published 20 of 26 events; the server has not confirmed line 21 and the lines after it\n"
    err = "'e' on 'a' is too large to publish"
    await publish("--file", "lines", env=settings, cwd=tmp_path, code=2, out=out, err=err)


async def test_missing_settings(tmp_path: Path) -> None:
    env = {"REVERB_HOST": "h", "REVERB_APP_KEY": "k"}
    err = "REVERB_APP_ID is missing: the HTTP API needs it\n  REVERB_APP_SECRET is missing"
    await publish("news", "e", env=env, cwd=tmp_path, code=2, err=err)


async def test_refused(settings: dict[str, str], tmp_path: Path) -> None:
    env = {**settings, "REVERB_APP_SECRET": "wr0ng", "REVERB_LOG_LEVEL": "DEBUG"}
    async with reverb("publish", "news", "e", env=env, cwd=tmp_path) as command:
        assert await command.exit_code() == 4
        assert "with 401" in command.err.text
        assert "wr0ng" not in command.out.text + command.err.text
    await publish("news", "e", "--app-id", "none", env=settings, cwd=tmp_path, code=4, err="with 404")


async def test_no_server(settings: dict[str, str], tmp_path: Path) -> None:
    await publish("news", "e", "--port", "1", env=settings, cwd=tmp_path, code=3, err="cannot connect to")
