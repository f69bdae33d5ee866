"""``reverb doctor`` as a command: what it shows, in a terminal and piped, and how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from reverb.cli.app import app
from reverb.cli.doctor import _View
from reverb.cli.examination import Step
from reverb.server import App, BlockingServer, ReverbServer
from tests.cli.processes import reverb
from tests.integration.servers import free_ports
from tests.scripted_http import ScriptedHTTPServer, never

SECRET = "s3cret-of-the-app"  # not the server's, unless a test says so


@pytest.fixture
def server() -> Any:
    with ReverbServer([App(secret=SECRET)]) as server:
        yield server


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command in this process, which is quicker; its output is a pipe then."""

    def run(*arguments: str, env: dict[str, str]) -> Result:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(app, ["doctor", *arguments], catch_exceptions=False)
        assert SECRET not in result.output
        return result

    return run


# --- as a process ----------------------------------------------------------------------------------------------


async def test_piped(tmp_path: Path) -> None:
    async with (
        ReverbServer([App(secret=SECRET)]) as server,
        reverb("doctor", "private-orders.7", env=server.env, cwd=tmp_path) as command,
    ):
        assert await command.exit_code() == 0, command.out.text
        out = await command.out.end()
    assert command.err.text == ""
    assert "\x1b" not in out
    assert SECRET not in out
    assert re.search(r"^REVERB_APP_SECRET +\*{8} \(17 characters\) +environment$", out, re.MULTILINE)
    assert re.search(r"^REVERB_AUTH_ENDPOINT +- +default$", out, re.MULTILINE)
    assert re.search(r"^✓ private-orders\.7 +[0-9.]+ ms  subscribed$", out, re.MULTILINE)
    assert out.endswith("\nNothing failed.\n")


async def test_in_a_terminal(tmp_path: Path) -> None:
    async with ReverbServer() as server:
        env = {**server.env, "REVERB_APP_SECRET": SECRET}
        async with reverb("doctor", env=env, cwd=tmp_path, terminal=True, width=80) as command:
            assert await command.exit_code() == 4
    assert SECRET not in command.out.text
    shown = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", command.out.text)]
    assert max(len(line) for line in shown if str(tmp_path) not in line) <= 80  # a path is left as long as it is
    assert "\x1b[1;31m✗" in command.out.text
    start = next(number for number, line in enumerate(shown) if line.startswith("✗ private channel"))
    lines = [line for line in shown[start:] if line.strip() and "…" not in line]
    assert lines[2] == "  1. REVERB_APP_SECRET must be the secret that belongs to REVERB_APP_KEY in the"
    assert lines[3] == "     server's config/reverb.php."
    assert "Failed: private channel, HTTP API." in command.out.text


async def test_what_takes_long_is_shown_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    async with ScriptedHTTPServer(never) as server:
        env = {"REVERB_HOST": server.host, "REVERB_PORT": str(server.port), "REVERB_SCHEME": "ws"}
        env["REVERB_APP_KEY"] = "key"
        async with reverb("doctor", env=env, cwd=tmp_path, terminal=True) as command:
            await command.out.expect("HTTP upgrade …")
            command.press_ctrl_c()
            assert await command.exit_code() == 130
            assert "Traceback" not in command.out.text
            assert command.out.text.rfind("\x1b[?25h") > command.out.text.rfind("\x1b[?25l")  # there is a cursor


async def test_a_resolver_that_hangs_does_not_hold_it_up(tmp_path: Path) -> None:
    program = "import socket, time\nsocket.getaddrinfo = lambda *_, **__: time.sleep(60)\n"
    (tmp_path / "sitecustomize.py").write_text(program)
    env = {"REVERB_HOST": "reverb.example.com", "REVERB_APP_KEY": "key", "REVERB_CONNECT_TIMEOUT": "0.3"}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    async with reverb("doctor", env=env, cwd=tmp_path) as command:
        assert await command.exit_code() == 3
        assert "the name reverb.example.com was not looked up within 0.3 seconds" in command.out.text
        assert command.err.text == ""


async def test_sigterm_ends_it(tmp_path: Path) -> None:
    async with ScriptedHTTPServer(never) as server:
        env = {"REVERB_HOST": server.host, "REVERB_PORT": str(server.port), "REVERB_SCHEME": "ws"}
        env["REVERB_APP_KEY"] = "key"
        async with reverb("doctor", "--json", env=env, cwd=tmp_path) as command:
            await command.out.expect('"step": "TLS"')
            command.send_signal(signal.SIGTERM)
            assert await command.exit_code() == 143
            assert command.err.text == ""


# --- what it says ----------------------------------------------------------------------------------------------


def test_json(server: BlockingServer, doctor: Callable[..., Result]) -> None:
    result = doctor("news", "--json", "--key", "nope", env={**server.env, "REVERB_AUTH_TOKEN": SECRET})
    assert result.exit_code == 3
    lines = [json.loads(line) for line in result.output.splitlines()]
    settings = {each["variable"]: each for each in lines[0].pop("settings")}
    assert settings["REVERB_APP_KEY"]["source"] == "--key; differs in environment"
    assert settings["REVERB_APP_KEY"]["value"] == "******** (4 characters)"
    assert settings["REVERB_AUTH_TOKEN"] == {
        "variable": "REVERB_AUTH_TOKEN",
        "value": "******** (17 characters)",
        "source": "environment",
    }
    assert settings["REVERB_ORIGIN"] == {"variable": "REVERB_ORIGIN", "value": None, "source": "default"}
    assert {tuple(line) for line in lines} == {("step", "ok", "seconds", "detail", "causes")}
    steps = {line["step"]: line for line in lines}
    assert steps["settings"]["ok"] is True
    assert 0 < steps["HTTP upgrade"]["seconds"] < 10
    assert steps["app key"]["ok"] is False
    assert steps["app key"]["causes"][0].startswith("REVERB_APP_KEY comes from the option, and differs in the env")
    assert steps["news"] == {
        "step": "news", "ok": None, "seconds": None, "detail": "needs app key", "causes": []
    }  # fmt: skip


def test_settings_of_a_laravel_application(server: BlockingServer, doctor: Callable[..., Result]) -> None:
    Path(".env").write_text(
        f'REVERB_HOST="{server.host}"\nREVERB_PORT={server.port}\nREVERB_SCHEME=http\nREVERB_PATH=ws\n'
        "REVERB_ORIGIN=https://app.example#x\n"
        f"REVERB_APP_KEY=app-key\nREVERB_APP_SECRET={SECRET}\nREVERB_APP_ID=app-id\nREVERB_SERVER_PATH=\n"
    )
    result = doctor("--path", "/", env={"REVERB_PROXY": "", "REVERB_AUTH_CONCURRENCY": "4"})
    assert result.exit_code == 0
    assert re.search(r"^REVERB_SCHEME +http, used as ws +\.env$", result.output, re.MULTILINE)
    assert re.search(r"^REVERB_PATH +/ +--path; differs in \.env$", result.output, re.MULTILINE)
    assert re.search(r"^REVERB_ORIGIN +https://app\.example +\.env; cut off at #$", result.output, re.MULTILINE)
    assert re.search(r"^REVERB_AUTH_CONCURRENCY +4 +environment$", result.output, re.MULTILINE)
    assert f".env is {Path('.env').resolve()}\n" in result.output
    assert "REVERB_PROXY" not in result.output
    assert "REVERB_POOL_SIZE" not in result.output


def test_no_password_of_a_url_is_shown(doctor: Callable[..., Result]) -> None:
    env = {
        "REVERB_HOST": "127.0.0.1",
        "REVERB_APP_KEY": "key",
        "REVERB_SUBSCRIBE_TIMEOUT": "0.2",
        "REVERB_PROXY": f"http://user:{SECRET}@127.0.0.1:{free_ports(1)[0]}",
        "REVERB_AUTH_ENDPOINT": f"user:{SECRET}@example.com",
    }
    result = doctor(env=env)
    assert result.exit_code == 2
    assert "REVERB_AUTH_ENDPOINT in the environment must be a URL" in result.output
    result = doctor(env={**env, "REVERB_AUTH_ENDPOINT": f"http://u:{SECRET}@127.0.0.1:1/auth?key={SECRET}"})
    assert result.exit_code == 3
    assert "http://127.0.0.1:1/auth " in result.output


def test_wrong_settings(doctor: Callable[..., Result]) -> None:
    result = doctor("--port", "99999", env={"REVERB_APP_SECRET": SECRET})
    assert result.exit_code == 2
    assert re.search(r"^REVERB_PORT +99999 +--port$", result.output, re.MULTILINE)
    assert re.search(r"^✗ settings", result.output, re.MULTILINE)
    assert "REVERB_APP_KEY is missing" in result.output
    assert "REVERB_PORT must be a whole number from 1 to 65535" in result.output
    assert "no file .env in " in result.output
    assert "DNS" not in result.output

    result = doctor("--json", env={})
    assert result.exit_code == 2
    assert [json.loads(line)["step"] for line in result.output.splitlines()] == ["settings"]


def test_no_server(doctor: Callable[..., Result]) -> None:
    port = free_ports(1)[0]
    env = {"REVERB_HOST": "127.0.0.1", "REVERB_APP_KEY": "key", "REVERB_PORT": str(port), "REVERB_SCHEME": "ws"}
    result = doctor(env=env)
    assert result.exit_code == 3
    assert re.search(rf"^✗ TCP .*nothing listens on port {port}", result.output, re.MULTILINE)
    assert f"\n  1. REVERB_PORT={port} is wrong" in result.output
    assert result.output.endswith("Failed: TCP. The first cause of each is the most likely one.\n")


def test_what_the_server_says_does_not_steer_the_terminal(doctor: Callable[..., Result]) -> None:
    env = {"REVERB_HOST": "\x1b[31mred", "REVERB_APP_KEY": "key", "REVERB_CONNECT_TIMEOUT": "0.2"}
    result = doctor("\x1b]0;title", env=env)
    assert "\x1b" not in result.output
    assert "\\x1b[31mred" in result.output


def test_a_terminal_without_check_marks() -> None:
    written = io.BytesIO()
    console = Console(file=io.TextIOWrapper(written, encoding="ascii", errors="backslashreplace"), width=80)
    view = _View(console, [])
    view.step(Step("DNS", True, 0.001, "fine"))
    view.step(Step("TCP", False, 1.5, "not fine", ["this", "that"], 3))
    view.step(Step("TLS", None, None, "needs TCP"))
    view.end([])
    console.file.flush()
    assert written.getvalue().decode().splitlines() == [
        "ok DNS                1.0 ms  fine",
        "NO TCP                 1.5 s  not fine",
        "   1. this",
        "   2. that",
        "-- TLS                        needs TCP",
        "",
        "Nothing failed.",
    ]


async def test_an_output_that_nobody_reads(tmp_path: Path) -> None:
    async with ScriptedHTTPServer(never) as server:
        env = {"REVERB_HOST": server.host, "REVERB_PORT": str(server.port), "REVERB_SCHEME": "ws"}
        env |= {"REVERB_APP_KEY": "key", "REVERB_CONNECT_TIMEOUT": "1"}
        async with reverb("doctor", "--json", env=env, cwd=tmp_path) as command:
            await command.out.expect('"step": "TLS".*\n')
            command.out.close()
            assert await command.exit_code() == 3  # of the step that it could not tell of
            assert command.err.text == ""


def test_help(doctor: Callable[..., Result]) -> None:
    result = doctor("--help", env={})
    assert result.exit_code == 0
    for text in ("CHAN", "Exit codes", "REVERB_APP_SECRET", "--json", "--app-id", "--path"):
        assert text in result.output
    assert "--secret" not in result.output
