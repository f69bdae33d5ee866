"""The pytest plugin, in test runs of its own: what it costs, and with which plugins its fixtures work."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reverb import Events, ReverbClient, ReverbConfig
from reverb.exceptions import SubscriptionError
from reverb.server import App, RateLimiting, ReverbServer
from tests.test_dispatch import Recorder
from tests.watching import until

USE_EVERYTHING = """
import asyncio, os
import pytest
from reverb import ReverbClient

MARK

async def test_client(reverb_client, reverb_server):
    received = asyncio.Queue()
    channel = await reverb_client.subscribe("private-orders")
    channel.bind("shipped", lambda event, data, channel: received.put_nowait(data))
    await reverb_server.publish("private-orders", "shipped", {"id": 7})
    assert await asyncio.wait_for(received.get(), 5) == {"id": 7}
    await channel.trigger("seen", {"id": 7})
    await reverb_server.wait_for_event("private-orders", "client-seen")
    reverb_server.assert_triggered("private-orders", "client-seen", {"id": 7})

async def test_environment(reverb_server):
    async with ReverbClient() as client:
        await client.subscribe("presence-room", user_data={"user_id": "1", "user_info": {}})
        reverb_server.assert_subscribed("presence-room")

async def test_config(reverb_config, reverb_server):
    assert reverb_config.port == reverb_server.port
    async with ReverbClient(reverb_config) as client:
        await client.subscribe("private-x")
        await reverb_server.restart()
        await reverb_server.wait_for_subscription("private-x")

async def test_session(reverb_server_session):
    async with ReverbClient() as client:
        await client.subscribe("news")
        await reverb_server_session.wait_for_subscription("news")
    await reverb_server_session.wait_for_connections(0)
"""

# Warnings are errors. Without the setting, pytest-asyncio itself warns.
STRICTLY = ("-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")
RUNS = {
    "pytest-asyncio, auto": ("", ["-o", "asyncio_mode=auto"]),
    "pytest-asyncio, strict": ("pytestmark = pytest.mark.asyncio", ["-o", "asyncio_mode=strict"]),
    "anyio": (
        "pytestmark = pytest.mark.anyio\n\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'",
        ["-p", "no:asyncio", "-W", "ignore::pytest.PytestConfigWarning"],
    ),
    "anyio, beside pytest-asyncio": (
        "pytestmark = pytest.mark.anyio\n\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'",
        ["-o", "asyncio_mode=strict"],
    ),
}


@pytest.mark.parametrize("run", RUNS)
def test_with(pytester: pytest.Pytester, run: str) -> None:
    mark, options = RUNS[run]
    pytester.makepyfile(USE_EVERYTHING.replace("MARK", mark))
    result = pytester.runpytest_subprocess(*STRICTLY, *options)
    result.assert_outcomes(passed=4)


def test_without_any_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        program="""
        import asyncio
        from reverb import ReverbClient

        async def main():
            async with ReverbClient() as client:
                orders = await client.subscribe("private-orders")
                orders.bind("shipped", lambda event, data, channel: print(data["id"], flush=True))
                await client.listen()

        asyncio.run(main())
        """,
        test_program="""
        import subprocess, sys
        from reverb.server import ReverbServer

        def test_program(reverb_server):
            server = reverb_server.blocking
            with subprocess.Popen([sys.executable, "program.py"], stdout=subprocess.PIPE, text=True) as program:
                server.wait_for_subscription("private-orders", timeout=20)
                server.publish("private-orders", "shipped", {"id": 7})
                assert program.stdout.readline() == "7\\n"
                program.kill()

        def test_client(reverb_client): ...
        """,
    )
    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:asyncio", "-p", "no:anyio")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*reverb_client needs pytest-asyncio, or a test with anyio's marker*"])


def test_the_environment_is_put_back(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_HOST", "real.example.com")
    monkeypatch.setenv("REVERB_ORIGIN", "https://real.example.com")
    monkeypatch.setenv("REVERB_OTHER", "kept")
    pytester.makepyfile(
        """
        import os

        def test_with(reverb_server):
            assert os.environ["REVERB_HOST"] == "127.0.0.1"
            assert os.environ["REVERB_PORT"] == str(reverb_server.port)
            assert "REVERB_ORIGIN" not in os.environ
            assert os.environ["REVERB_OTHER"] == "kept"

        def test_without():
            assert os.environ["REVERB_HOST"] == "real.example.com"
            assert os.environ["REVERB_ORIGIN"] == "https://real.example.com"
            assert "REVERB_PORT" not in os.environ
        """
    )
    pytester.runpytest_subprocess(*STRICTLY).assert_outcomes(passed=2)


def test_a_session_server_can_be_made_as_good_as_new(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def server(reverb_server_session):
            yield reverb_server_session.blocking
            reverb_server_session.reset()

        def test_one(server):
            server.publish("news", "published", {})
            server.deny("news")
            assert len(server.events) == 1

        def test_two(server):
            assert server.events == []
            assert server.port
        """
    )
    pytester.runpytest_subprocess(*STRICTLY).assert_outcomes(passed=2)


def test_the_marker_gives_settings(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        import pytest
        from reverb.server import App

        pytestmark = pytest.mark.reverb_server([App(key="of-the-file")])

        def test_file(reverb_server, reverb_config):
            assert reverb_server.app.key == reverb_config.app_key == os.environ["REVERB_APP_KEY"] == "of-the-file"

        @pytest.mark.reverb_server([App(key="of-the-test")], path="/ws")
        def test_test(reverb_server, reverb_config):
            assert reverb_config.app_key == "of-the-test"
            assert reverb_config.path == "/ws"

        @pytest.mark.reverb_server(app=App())
        def test_wrong(reverb_server): ...
        """
    )
    result = pytester.runpytest_subprocess(*STRICTLY, "--strict-markers")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*unexpected keyword argument 'app'*"])


def test_nothing_happens_unless_a_fixture_is_used(tmp_path: Path) -> None:
    tmp_path.joinpath("test_it.py").write_text(
        "import sys\n\ndef test_it():\n"
        "    loaded = {name for name in sys.modules if name.partition('.')[0] == 'reverb'}\n"
        "    assert loaded == {'reverb', 'reverb.testing'}\n"
        "    assert not {'pydantic', 'picows', 'msgspec', 'aiohttp'} & sys.modules.keys()\n"
    )
    options = ["-p", "no:asyncio", "-p", "no:hypothesispytest"]
    command = [sys.executable, "-m", "pytest", "-q", *options, str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr


def test_importing_the_plugin_imports_nothing_else() -> None:
    code = (
        "import sys, pytest, typing; before = set(sys.modules); import reverb.testing; "
        "print(sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "['reverb', 'reverb.testing']"


# Our own suite has the plugin, too.


async def test_fixtures_here(reverb_client: ReverbClient, reverb_server: ReverbServer) -> None:
    assert reverb_client.is_connected
    (connection,) = reverb_server.connections
    assert connection.socket_id == reverb_client.socket_id


def test_config_here(reverb_config: ReverbConfig, reverb_server: ReverbServer) -> None:
    assert (reverb_config.host, reverb_config.port) == (reverb_server.host, reverb_server.port)
    assert os.environ["REVERB_PORT"] == str(reverb_server.port)


@pytest.mark.reverb_server([App(rate_limiting=RateLimiting(enabled=True, max_attempts=3, decay_seconds=0.5))])
async def test_a_rate_limit_here(reverb_client: ReverbClient, reverb_server: ReverbServer) -> None:
    """What is beyond the limit is refused; after a loss the client comes back with more than that, at its pace."""
    for name in ("a", "b", "c"):
        await reverb_client.subscribe(name)
    with pytest.raises(SubscriptionError, match="4301"):
        await reverb_client.subscribe("d")
    await asyncio.sleep(0.5)  # the limit's own time
    for name in ("d", "e"):
        await reverb_client.subscribe(name)
    back = Recorder()
    reverb_client.bind(Events.RECONNECTED, back)
    reverb_server.drop()
    await back.wait_for(1)
    await until(lambda: reverb_server.subscriptions.keys() == {"a", "b", "c", "d", "e"})
    (connection,) = reverb_server.connections
    assert connection.socket_id == reverb_client.socket_id
