"""``reverb serve``: what it prints, what it is told, and how it ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from reverb import ReverbClient
from reverb.cli.serve import ServerSettings
from reverb.server import App, RateLimiting
from tests.certificates import make_certificates
from tests.cli.processes import Command, reverb
from tests.integration.servers import PublishError, Target


@asynccontextmanager
async def serving(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path
) -> AsyncIterator[tuple[Command, Target]]:
    async with reverb("serve", "--port", "0", *arguments, env=env, cwd=cwd) as command:
        match = await command.err.expect(r"serving (wss?)://([\d.]+):(\d+)(/\w+)?/app/(\S+), a development server")
        scheme, host, port, path, key = match.groups()
        yield command, Target("serve", host, int(port), path or "", key=key, scheme=scheme)


async def test_tells_what_happens(tmp_path: Path) -> None:
    async with serving(cwd=tmp_path) as (command, target):
        async with ReverbClient(**target.settings) as client:
            await command.out.expect(r"^\d\d:\d\d:\d\d  \d+\.\d+  connected$")
            channel = await client.subscribe("presence-room", user_data={"user_id": "7", "user_info": {}})
            await command.out.expect(rf"{client.socket_id}  subscribed to presence-room as '7'$")
            await channel.trigger("typing", {"typing": True})
            await command.out.expect(
                rf'presence-room +client-typing +from 7 \({client.socket_id}\)  {{"typing": true}}$'
            )
            await target.publish("news", "App\\Events\\Published", {"id": 12})
            await command.out.expect(r'news +App\\Events\\Published +{"id": 12}$')
            await client.unsubscribe("presence-room")
            await command.out.expect(rf"{client.socket_id}  left presence-room$")
        await command.out.expect(r"\d  disconnected$")


async def test_tells_what_is_refused(tmp_path: Path) -> None:
    async with serving(cwd=tmp_path) as (command, target):
        with pytest.raises(PublishError):
            await Target("", target.host, target.port, secret="wrong").publish("news", "e", {})
        await command.out.expect("answered POST /apps/app-id/events with 401: Authentication signature invalid.$")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ends(tmp_path: Path, number: signal.Signals) -> None:
    async with serving(cwd=tmp_path) as (command, target):
        async with ReverbClient(**target.settings):
            command.send_signal(number)
            assert await command.exit_code() == 0
        assert "Traceback" not in command.err.text


async def test_ctrl_c(tmp_path: Path) -> None:
    async with reverb("serve", "--port", "0", cwd=tmp_path, terminal=True) as command:
        await command.out.expect("serving ws://127")
        command.press_ctrl_c()
        assert await command.exit_code() == 0


async def test_the_environment_and_laravels_env_file(tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_text(
        "REVERB_APP_ID=9\nREVERB_APP_KEY=file-key\nREVERB_APP_SECRET=hush\nAPP_ENV=local\n"
    )
    env = {"REVERB_APP_KEY": "env-key", "REVERB_SERVER_PATH": "/ws"}
    async with serving("--strict", env=env, cwd=tmp_path) as (command, target):
        assert (target.key, target.path) == ("env-key", "/ws")
        named = Target("serve", target.host, target.port, target.path, "9", target.key, "hush")
        async with ReverbClient(**named.settings) as client:
            await client.subscribe("private-x")
            await named.publish("private-x", "e", {})
            await command.out.expect("private-x +e +{}$")
        assert "hush" not in command.out.text + command.err.text


def test_all_of_laravels_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServerSettings.from_env().app() == App()
    variables = {
        "PING_INTERVAL": "1",
        "ACTIVITY_TIMEOUT": "2",
        "MAX_CONNECTIONS": "3",
        "MAX_MESSAGE_SIZE": "4",
        "ACCEPT_CLIENT_EVENTS_FROM": "all",
        "RATE_LIMITING_ENABLED": "true",
        "RATE_LIMIT_MAX_ATTEMPTS": "5",
        "RATE_LIMIT_DECAY_SECONDS": "6",
        "RATE_LIMIT_TERMINATE": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"REVERB_APP_{name}", value)
    assert ServerSettings.from_env().app() == App(
        ping_interval=1,
        activity_timeout=2,
        max_connections=3,
        max_message_size=4,
        accept_client_events_from="all",
        rate_limiting=RateLimiting(enabled=True, max_attempts=5, decay_seconds=6, terminate_on_limit=True),
    )


async def test_tls(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    arguments = ["--tls-cert", str(certificates.certificate_file), "--tls-key", str(certificates.key_file)]
    async with serving(*arguments, cwd=tmp_path) as (_, target):
        assert target.scheme == "wss"
        async with ReverbClient(**target.settings, ssl_context=certificates.client) as client:
            await client.subscribe("private-x")


async def test_more_than_loopback_gets_a_warning(tmp_path: Path) -> None:
    async with serving("--host", "0.0.0.0", cwd=tmp_path) as (command, _):
        assert "warning: '0.0.0.0' is not a loopback address" in command.err.text
        assert "in production, use Laravel Reverb" in command.err.text


async def test_loopback_gets_none(tmp_path: Path) -> None:
    async with serving(cwd=tmp_path) as (command, target):
        assert target.host == "127.0.0.1"
        assert "warning" not in command.err.text


async def test_port_taken(tmp_path: Path) -> None:
    async with (
        serving(cwd=tmp_path) as (_, target),
        reverb("serve", "--port", str(target.port), cwd=tmp_path) as command,
    ):
        assert await command.exit_code() == 1
        assert str(target.port) in command.err.text
        assert "Traceback" not in command.err.text


@pytest.mark.parametrize(
    ("env", "arguments", "wanted"),
    [
        (
            {"REVERB_SERVER_PORT": "abc"},
            [],
            "REVERB_SERVER_PORT in the environment must be a whole number",
        ),
        (
            {"REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM": "x"},
            [],
            "EVENTS_FROM in the environment must be all, members or none",
        ),
        ({}, ["--tls-cert", "nowhere.pem"], "No such file"),
        ({}, ["--tls-key", "key.pem"], "--tls-cert"),
    ],
)
async def test_wrong_settings(tmp_path: Path, env: dict[str, str], arguments: list[str], wanted: str) -> None:
    async with reverb("serve", *arguments, env=env, cwd=tmp_path) as command:
        assert await command.exit_code() == 2
        assert wanted in command.err.text


async def test_nobody_reads_the_output(tmp_path: Path) -> None:
    async with serving(cwd=tmp_path) as (command, target):
        command.out.close()
        for _ in range(2):
            try:
                async with ReverbClient(**target.settings):
                    await asyncio.sleep(0)
            except ConnectionError:
                break
        assert await command.exit_code() == 0
