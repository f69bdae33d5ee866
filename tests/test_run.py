"""Programs made with ``client.run()``: how they end, and with which exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import reverb
from reverb import (
    APIError,
    AuthenticationError,
    BatchError,
    ChannelAuth,
    ConfigurationError,
    ConnectionError,
    ReverbClient,
    ReverbConfig,
    SecretAuthorizer,
    SubscriptionError,
    TimeoutError,
)
from reverb._run import ExitCode, exit_code_for, run
from reverb.server import BlockingServer, ReverbServer
from tests.certificates import make_certificates
from tests.integration.servers import free_ports

PROGRAM = """
import sys

from reverb import ReverbClient

client = ReverbClient()

@client.on("order.*")
def on_order(event, data, channel):
    print(event, data, flush=True)

async def setup(client):
    await client.subscribe(sys.argv[1])
    print("ready", flush=True)

sys.exit(client.run(setup))
"""


@pytest.fixture
def server() -> Iterator[BlockingServer]:
    with ReverbServer() as server:
        yield server


SETTINGS_OF_ITS_OWN = """
import sys

import reverb

async def setup(client):
    await client.subscribe(sys.argv[1])
    print("ready", flush=True)

sys.exit(reverb.run(setup))
"""


def start(
    server: BlockingServer, channel: str, *, program: str = PROGRAM, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, channel],
        env={**os.environ, **server.env, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(server: BlockingServer, number: signal.Signals) -> None:
    with start(server, "orders") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        server.publish("orders", "order.shipped", 7)
        assert process.stdout.readline() == "order.shipped 7\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert server.connections == []


def test_what_goes_wrong_is_one_line_and_an_exit_code(server: BlockingServer) -> None:
    with start(server, "private-orders", REVERB_APP_SECRET="wrong") as process:
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (4, "")
    assert errors.count("\n") == 1
    assert "refused the signature for 'private-orders'" in errors


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"REVERB_HOST": ""}, "REVERB_HOST is missing"),
        ({"REVERB_HOST": "", "REVERB_APP_KEY": ""}, "REVERB_APP_KEY is missing"),
        ({"REVERB_PORT": "http"}, "REVERB_PORT"),
        ({"REVERB_SCHEME": "ftp"}, "REVERB_SCHEME"),
        ({"REVERB_AUTH_ENDPOINT": "laravel"}, "REVERB_AUTH_ENDPOINT"),
        ({"REVERB_ENCRYPTION_MASTER_KEY": "short"}, "REVERB_ENCRYPTION_MASTER_KEY"),
        ({"REVERB_APP_SECRET": ""}, "REVERB_APP_SECRET is missing: 'private-orders' needs a signature"),
    ],
)
def test_settings_that_are_missing_or_wrong(
    server: BlockingServer, tmp_path: Path, environment: dict[str, str], named: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SETTINGS_OF_ITS_OWN, "private-orders"],
        env={**os.environ, **server.env, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_without_a_client_of_its_own(server: BlockingServer) -> None:
    with start(server, "orders", program=SETTINGS_OF_ITS_OWN) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


def test_run_takes_what_the_client_takes(server: BlockingServer) -> None:
    signed = []

    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        signed.append(channel)
        return await SecretAuthorizer(config.app_key, server.settings["app_secret"])(socket_id, channel)

    async def setup(client: ReverbClient) -> None:
        await client.subscribe("private-orders")
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(client.disconnect()))

    config = ReverbConfig(**server.settings)
    assert reverb.run(setup, config, authorizer=authorizer) == 0
    assert reverb.run(setup, **server.settings, authorizer=authorizer) == 0
    assert signed == 2 * ["private-orders"]
    with pytest.raises(TypeError, match="not both"):
        reverb.run(setup, config, **server.settings)


@pytest.mark.parametrize("outage", ["down", "failing", "untrusted"])
def test_an_endpoint_that_cannot_be_asked_is_an_outage(
    server: BlockingServer, outage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("reverb.auth._RETRY_DELAYS", (0.01,))

    async def fail(request: web.Request) -> web.Response:
        return web.Response(status=503)

    async def setup(client: ReverbClient) -> None:
        application, context = web.Application(), None
        application.router.add_post("/broadcasting/auth", fail)
        runner = web.AppRunner(application)
        await runner.setup()
        if outage == "untrusted":
            context = make_certificates(tmp_path).server
        (port,) = free_ports(1)
        if outage != "down":
            await web.TCPSite(runner, "localhost", port, ssl_context=context).start()
        urls.append(f"http{'s' * (outage == 'untrusted')}://localhost:{port}/broadcasting/auth")
        try:
            await client.subscribe("private-orders")
        finally:
            await runner.cleanup()

    async def authorize(socket_id: str, channel: str) -> ChannelAuth:
        return await reverb.EndpointAuthorizer(urls[0])(socket_id, channel)

    urls: list[str] = []
    assert reverb.run(setup, **server.settings, authorizer=authorize) == 3


def test_ctrl_c_where_the_event_loop_has_no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_signal_handler(*_: Any) -> None:
        raise NotImplementedError  # as on Windows

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", add_signal_handler)
    is_clean = False

    async def work() -> None:
        nonlocal is_clean
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            is_clean = True

    assert run(work()) is signal.SIGINT
    assert is_clean


async def test_it_cancels_the_tasks_that_setup_has_started(reverb_server: ReverbServer) -> None:
    ended: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def report() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(client.state.value)

    async def setup(client: ReverbClient) -> None:
        tasks.append(asyncio.create_task(report()))
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(client.disconnect()))

    client = ReverbClient(**reverb_server.settings)
    assert await asyncio.to_thread(client.run, setup) == ExitCode.OK
    assert ended == ["disconnected"]


async def test_disconnecting_ends_it(reverb_server: ReverbServer) -> None:
    async def setup(client: ReverbClient) -> None:
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(client.disconnect()))

    client = ReverbClient(**reverb_server.settings)
    assert await asyncio.to_thread(client.run, setup) == 0


async def test_other_exceptions_are_raised(reverb_server: ReverbServer) -> None:
    async def setup(client: ReverbClient) -> None:
        raise LookupError("a bug")

    client = ReverbClient(**reverb_server.settings)
    with pytest.raises(LookupError, match="a bug"):
        await asyncio.to_thread(client.run, setup)
    assert not client.is_connected


@pytest.mark.parametrize("wrong", ["too large", "data", "user"])
def test_what_cannot_be_sent_is_no_outage(server: BlockingServer, wrong: str) -> None:
    async def setup(client: ReverbClient) -> None:
        channel = await client.subscribe("private-orders")
        if wrong == "user":  # whom Reverb does not know
            await client.signin({"id": "7"})
        await channel.trigger("seen", {"text": 20_000 * "x"} if wrong == "too large" else 7)

    assert reverb.run(setup, **server.settings) == 2


async def test_within_an_event_loop_it_says_what_to_do_instead(reverb_server: ReverbServer) -> None:
    with pytest.raises(RuntimeError, match="use 'async with client'"):
        ReverbClient(**reverb_server.settings).run()

    async def setup(client: ReverbClient) -> None: ...

    with pytest.raises(RuntimeError, match="use 'async with client'"):
        reverb.run(setup, **reverb_server.settings)


def test_without_a_server(caplog: pytest.LogCaptureFixture) -> None:
    client = ReverbClient(app_key="key", app_secret="secret", host="127.0.0.1", port=1, scheme="ws")
    assert client.run() == ExitCode.CONNECTION
    assert "cannot connect to 127.0.0.1:1" in caplog.text


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), 2),
        (ConnectionError("x"), 3),
        (AuthenticationError("x"), 4),
        (AuthenticationError("x", code=403), 4),
        (AuthenticationError("x", is_temporary=True), 3),
        (AuthenticationError("x", code=503, is_temporary=True), 3),
        (TimeoutError("x"), 3),
        (APIError(422, "x"), 4),
        (BatchError("x", accepted=1), 3),
        (caused(BatchError("x", accepted=1), TimeoutError("x")), 3),
        (caused(BatchError("x", accepted=1, code=422), APIError(422, "x")), 4),
        (caused(BatchError("x", accepted=1), ConfigurationError("x")), 2),
        (SubscriptionError("x"), 4),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code_for(error) == code  # type: ignore[arg-type]
