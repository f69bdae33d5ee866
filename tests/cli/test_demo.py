"""``reverb demo``."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from reverb.cli import demo
from tests.cli.processes import reverb

HOSTILE = {
    "REVERB_APP_KEY": "other-key",
    "REVERB_APP_SECRET": "other-secret",
    "REVERB_HOST": "reverb.invalid",
    "REVERB_PORT": "not a number",
    "REVERB_SCHEME": "wss",
    "REVERB_PATH": "/elsewhere",
    "REVERB_ORIGIN": "https://elsewhere.invalid",
    "REVERB_PROXY": "http://proxy.invalid:1",
    "REVERB_CONNECT_TIMEOUT": "-1",
    "REVERB_LOG_LEVEL": "LOUD",
    "REVERB_MAX_MESSAGE_SIZE": "1",
    "HTTP_PROXY": "http://proxy.invalid:1",
    "http_proxy": "http://proxy.invalid:1",
}

EXPECTED = [
    "-  pusher:connection_established",
    "news  pusher_internal:subscription_succeeded",
    "private-orders.7  pusher_internal:subscription_succeeded",
    "presence-room.1  pusher_internal:subscription_succeeded",
    r"news  App\Events\ArticlePublished",
    r"private-orders.7  App\Events\OrderShipped",
    r"news  App\Events\DoorsOpened",
    r"presence-room.1  App\Events\DoorsOpened",
    "presence-room.1  pusher_internal:member_added",
    "presence-room.1  client-typing",
    "presence-room.1  client-message",
    "presence-room.1  pusher_internal:member_removed",
]


def events(output: str) -> list[str]:
    """Return channel and event of each row."""
    return ["  ".join(match) for match in re.findall(r"^\d\d:\d\d:\d\d  (\S+) +(\S+)", output, flags=re.MULTILINE)]


async def test_shows_every_event_whatever_is_configured(tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_text("".join(f"{name}={value}\n" for name, value in HOSTILE.items()))
    started = time.monotonic()
    async with reverb("demo", env=HOSTILE, cwd=tmp_path) as command:
        assert await command.exit_code() == 0
        assert time.monotonic() - started < 20
        assert events(command.out.text) == EXPECTED
        assert command.err.text == ""
        assert "\x1b" not in command.out.text
        assert 'from 2  {"text": "Hello, Alice!"}' in command.out.text
        assert "Every event arrived: 12 in " in command.out.text
        assert "reverb listen" in command.out.text
        assert "other-secret" not in command.out.text
    assert os.listdir(tmp_path) == [".env"]


async def test_in_a_terminal_it_is_in_colour_and_fits(tmp_path: Path) -> None:
    async with reverb("demo", cwd=tmp_path, terminal=True, width=80) as command:
        assert await command.exit_code() == 0
        assert "\x1b[" in command.out.text
        plain = re.sub(r"\x1b\[[0-9;]*m", "", command.out.text)
        assert events(plain) == EXPECTED
        assert [line for line in plain.splitlines() if len(line) > 80] == []


async def test_ends_cleanly_with_ctrl_c(tmp_path: Path) -> None:
    async with reverb("demo", cwd=tmp_path, terminal=True) as command:
        await command.out.expect("ArticlePublished")
        command.press_ctrl_c()
        assert await command.exit_code() == 130
        assert "Traceback" not in command.out.text
        assert "Done" not in command.out.text


async def test_ends_cleanly_with_sigterm(tmp_path: Path) -> None:
    async with reverb("demo", cwd=tmp_path) as command:
        await command.out.expect("ArticlePublished")
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 143
        assert command.err.text == ""


async def test_ends_when_nobody_reads(tmp_path: Path) -> None:
    async with reverb("demo", cwd=tmp_path) as command:
        await command.out.expect("ArticlePublished")
        command.out.close()
        assert await command.exit_code() == 0
        assert command.err.text == ""


def test_an_event_that_is_lost_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def publish(*_: Any) -> None:
        pass

    for name, value in (("PAUSE", 0.0), ("BEAT", 0.0), ("DEADLINE", 0.2), ("publish", publish)):
        monkeypatch.setattr(demo, name, value)
    with pytest.raises(typer.Exit) as caught:
        demo.demo()
    assert caught.value.exit_code == 1
    output = capsys.readouterr()
    assert output.err == (
        "reverb: the demo failed: App\\Events\\ArticlePublished on news did not arrive within 0.2 seconds\n"
    )
    assert "Done" not in output.out
