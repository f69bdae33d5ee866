"""``reverb trigger``: what arrives, what is refused, and how it ends."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from reverb.server import App, BlockingServer, RateLimiting, ReverbServer
from tests.cli.in_process import answer, fails, objects
from tests.cli.processes import reverb
from tests.scripted import Peer, ScriptedServer


@pytest.fixture
def server(reverb_server: ReverbServer) -> BlockingServer:
    return reverb_server.blocking


@pytest.mark.parametrize(
    ("arguments", "data"), [([], {}), (['{"id": 7}'], {"id": 7}), (["[1]"], [1]), (["null"], None)]
)
def test_triggers(arguments: list[str], data: object, server: BlockingServer) -> None:
    assert answer("trigger", "private-a", "typing", *arguments) == "triggered client-typing on private-a\n"
    server.assert_triggered("private-a", "client-typing", data)


def test_data_from_the_standard_input(server: BlockingServer) -> None:
    told = objects("trigger", "private-a", "client-typing", "-", stdin='{"name": "Zoë"}\n')
    assert told == [{"channel": "private-a", "event": "client-typing"}]
    server.assert_triggered("private-a", "client-typing", {"name": "Zoë"})


def test_who_we_are(server: BlockingServer) -> None:
    answer("trigger", "presence-a", "e", "--presence-user", '{"user_id": "ann"}')
    assert server.wait_for_event("presence-a", "client-e").user_id == "ann"
    answer("trigger", "presence-a", "e")
    assert str(server.wait_for_event("presence-a", "client-e").user_id).startswith("cli-")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["private-a", "e", "{bad"], 2, "the data is not JSON: JSON is malformed"),
        (["private-a", "e", "1"], 2, "must be an object, a list or null"),
        (["private-a", "e", '"x"', "--port", "1"], 2, "must be an object, a list or null"),
        (["private-a", "e", '["' + "x" * 10_000 + '"]'], 2, "REVERB_MAX_MESSAGE_SIZE"),
        (["presence-a", "e", "--presence-user", "7"], 2, "--presence-user must be an object with a user_id"),
        (["news", "e"], 2, "can't send a client event on news: only private and presence channels have"),
        (["private-encrypted-a", "e"], 2, "encrypted channels have none"),
        (["private-a", "e", "--key", "wrong"], 3, "Application does not exist"),
        (["private-a", "e", "--port", "1"], 3, "cannot connect to 127.0.0.1:1"),
    ],
    ids=["no-json", "scalar", "text", "large", "user", "public", "encrypted", "key", "no-server"],
)
def test_what_goes_wrong(arguments: list[str], code: int, says: str, server: BlockingServer) -> None:
    fails("trigger", *arguments, code=code, says=says)


def test_wrong_secret(server: BlockingServer) -> None:
    fails("trigger", "private-a", "e", code=4, says="refused the signature", app_secret="wr0ng")


def test_an_input_that_is_no_text(server: BlockingServer) -> None:
    fails("trigger", "private-a", "e", "-", stdin=b"\xff", code=2, says="the standard input is not UTF-8")


def rate_limited(*, ends: bool) -> App:
    """After the subscribe, nothing more is taken."""
    return App(rate_limiting=RateLimiting(enabled=True, max_attempts=1, terminate_on_limit=ends))


@pytest.mark.parametrize(
    ("app", "code", "says"),
    [
        (App(accept_client_events_from="none"), 4, "The app does not have client messaging enabled."),
        (rate_limited(ends=False), 4, "Rate limit exceeded"),
        (rate_limited(ends=True), 3, "lost the connection"),
    ],
    ids=["disabled", "rate", "rate-and-end"],
)
def test_what_the_server_refuses_is_seen(app: App, code: int, says: str) -> None:
    with ReverbServer([app]) as server:
        settings = {name.removeprefix("REVERB_").lower(): value for name, value in server.env.items()}
        fails("trigger", "private-a", "e", code=code, says=says, **settings)


async def test_a_connection_that_ends_instead(settings: dict[str, str], tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="private-a")
        await peer.confirm("private-a")
        await peer.expect("client-e")
        await peer.close(1009, "Maximum message size exceeded")
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        async with reverb("trigger", "private-a", "e", env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == 3
            assert command.err.text.startswith(f"reverb: lost the connection to 127.0.0.1:{server.port}: ")
            assert "Maximum message size exceeded" in command.err.text


async def test_ctrl_c_while_it_waits(settings: dict[str, str], tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="private-a")
        await peer.confirm("private-a")
        await peer.expect("client-e")
        await peer.expect("pusher:ping")
        command.press_ctrl_c()
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        async with reverb("trigger", "private-a", "e", env=env, cwd=tmp_path, terminal=True) as command:
            assert await command.exit_code() == 128 + signal.SIGINT
            assert "Traceback" not in command.out.text
            assert "triggered" not in command.out.text
