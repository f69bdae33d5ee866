"""Programs made with ``client.run()``: how they end, and with which exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from reverb import AuthenticationError, ConfigurationError, ConnectionError, ReverbClient, SubscriptionError
from reverb._run import ExitCode, exit_code_for, run
from reverb.server import BlockingServer, ReverbServer

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


def start(server: BlockingServer, channel: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, channel],
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


async def test_within_an_event_loop_it_says_what_to_do_instead(reverb_server: ReverbServer) -> None:
    with pytest.raises(RuntimeError, match="use 'async with client'"):
        ReverbClient(**reverb_server.settings).run()


def test_without_a_server(caplog: pytest.LogCaptureFixture) -> None:
    client = ReverbClient(app_key="key", app_secret="secret", host="127.0.0.1", port=1, scheme="ws")
    assert client.run() == ExitCode.CONNECTION
    assert "cannot connect to 127.0.0.1:1" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), 2),
        (ConnectionError("x"), 3),
        (AuthenticationError("x"), 4),
        (SubscriptionError("x"), 4),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code_for(error) == code  # type: ignore[arg-type]
