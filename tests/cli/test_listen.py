"""``reverb listen``."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import Result

from reverb import Events, ReverbClient
from reverb.server import App, BlockingServer, ReverbServer
from tests.cli.in_process import invoke
from tests.cli.processes import reverb
from tests.integration.servers import Target

SHIPPED = r"App\Events\OrderShipped"


def rows(output: str) -> list[str]:
    """Return the lines without their times, and with single spaces."""
    return [re.sub(r" +", " ", line.partition("  ")[2]) for line in output.splitlines()]


def objects(output: str) -> list[dict[str, Any]]:
    """Return the objects without their times."""
    return [
        {name: value for name, value in json.loads(line).items() if name != "time"} for line in output.splitlines()
    ]


# --- events ----------------------------------------------------------------------------------------------------


async def test_prints_events_and_tells_what_happens(
    target: Target, settings: dict[str, str], tmp_path: Path
) -> None:
    async with reverb("listen", "news", "private-orders.7", env=settings, cwd=tmp_path) as command:
        await command.err.expect(r"subscribed to news$")
        await command.err.expect(r"subscribed to private-orders\.7$")
        await target.publish("news", "plain", "just text")
        await command.out.expect("just text")  # while it runs: nothing is kept back
        await target.publish("private-orders.7", SHIPPED, {"id": 7, "name": "Zoë"})
        await command.out.expect(r'"Zoë"\}$')
        command.send_signal(signal.SIGINT)
        assert await command.exit_code() == 0
        assert rows(command.out.text) == [
            'news plain "just text"',
            f'private-orders.7 {SHIPPED} {{"id": 7, "name": "Zoë"}}',
        ]
        address = f"127.0.0.1:{target.port}"
        told = rows(command.err.text)
        assert told[0] == f"connected to {address}"
        assert sorted(told[1:3]) == ["subscribed to news", "subscribed to private-orders.7"]
        assert told[3:] == [f"disconnected from {address}"]


async def test_json(target: Target, settings: dict[str, str], tmp_path: Path) -> None:
    user = '{"user_id": 7, "user_info": {"name": "Ann"}}'
    started = datetime.now(timezone.utc)
    arguments = ("listen", "--json", "presence-room.1", "--presence-user", user)
    async with reverb(*arguments, env=settings, cwd=tmp_path) as command:
        await command.err.expect(r"subscribed to presence-room\.1 as 7; here now: 7$")
        async with ReverbClient(**target.settings) as bob:
            room = await bob.subscribe("presence-room.1", user_data={"user_id": "bob", "user_info": {"n": 1}})
            await room.trigger("hello", {"text": "Zoë\n"})
            await command.out.expect("client-hello")
        await command.out.expect("member_removed")
        await target.publish("presence-room.1", "none", "null")
        await command.out.expect('"none"')
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0

        channel = {"channel": "presence-room.1"}
        member = {"user_id": "bob", "user_info": {"n": 1}}
        presence = {"presence": {"count": 1, "ids": ["7"], "hash": {"7": {"name": "Ann"}}}}
        assert objects(command.out.text) == [
            {**channel, "event": Events.SUBSCRIPTION_SUCCEEDED, "data": presence},
            {**channel, "event": Events.MEMBER_ADDED, "data": member},
            {**channel, "event": "client-hello", "data": {"text": "Zoë\n"}, "user_id": "bob"},
            {**channel, "event": Events.MEMBER_REMOVED, "data": member},
            {**channel, "event": "none", "data": None},
        ]
        times = [datetime.fromisoformat(json.loads(line)["time"]) for line in command.out.text.splitlines()]
        assert times == sorted(times)
        assert abs((times[0] - started).total_seconds()) < 20


async def test_who_we_are_by_default(settings: dict[str, str], tmp_path: Path) -> None:
    async with reverb("listen", "--json", "presence-room.1", env=settings, cwd=tmp_path) as command:
        match = await command.err.expect(r"subscribed to presence-room\.1 as (.*); here now")
        assert re.fullmatch(f"cli-{re.escape(socket.gethostname())}-\\d+", match[1])
        joined = await command.out.expect("^.*subscription_succeeded.*$")
        assert json.loads(joined[0])["data"]["presence"]["ids"] == [match[1]]


async def test_encrypted_channels_without_the_master_key(
    target: Target, settings: dict[str, str], tmp_path: Path
) -> None:
    names = ("private-encrypted-a", "private-encrypted-b")
    async with reverb("listen", "--json", *names, env=settings, cwd=tmp_path) as command:
        for name in names:
            await command.err.expect(f"subscribed to {name}$")
        sealed = {"nonce": "bm9uY2U=", "ciphertext": "Y2lwaGVydGV4dA=="}
        await target.publish("private-encrypted-b", "e", sealed)
        await command.out.expect("ciphertext")
        shown = objects(command.out.text)[-1]
        assert shown == {"channel": "private-encrypted-b", "event": "e", "data": sealed}
        told = "REVERB_ENCRYPTION_MASTER_KEY is missing: events of encrypted channels are not decrypted"
        assert command.err.text.count(told) == 1


async def test_all_channels(target: Target, settings: dict[str, str], tmp_path: Path) -> None:
    patterns = ("--prefix", "private-", "--exclude", "*.debug", "--exclude", "*.log")
    async with ReverbClient(**target.settings) as other:
        for name in ("private-a", "private-a.debug", "private-a.log", "news", "private-encrypted-a"):
            await other.subscribe(name, decrypt=False)
        arguments = ("listen", "--all", *patterns, "--interval", "0.05")
        async with reverb(*arguments, env=settings, cwd=tmp_path) as command:
            await command.err.expect("subscribed to private-a$")
            await command.err.expect("subscribed to private-encrypted-a$")
            await target.publish("private-a", "e", 1)
            await command.out.expect("private-a +e +1$")
            await other.subscribe("private-b")
            await command.err.expect("subscribed to private-b$")
            await target.publish("private-b", "e", 2)
            await command.out.expect("private-b +e +2$")
            await other.unsubscribe("private-a")
            await command.err.expect("left private-a: nobody else is subscribed$")
            command.send_signal(signal.SIGINT)
            assert await command.exit_code() == 0
            told = rows(command.err.text)
            assert {each for each in told if each.startswith("subscribed")} == {
                f"subscribed to private-{each}" for each in ("a", "b", "encrypted-a")
            }
            assert [each for each in told if each.startswith("left")] == [
                "left private-a: nobody else is subscribed"
            ]
            assert sum("REVERB_ENCRYPTION_MASTER_KEY" in each for each in told) == 1


async def test_all_channels_and_some_by_name_as_json(
    target: Target, settings: dict[str, str], tmp_path: Path
) -> None:
    user = '{"user_id": "watcher"}'
    arguments = ("news", "--all", "--presence-user", user, "--json", "--count", "2")
    async with ReverbClient(**target.settings) as other:
        await other.subscribe("presence-room", {"user_id": "bob"})
        async with reverb("listen", *arguments, env=settings, cwd=tmp_path) as command:
            await command.err.expect("subscribed to news$")
            await command.err.expect("subscribed to presence-room as watcher; here now: .*bob")
            for name in ("news", "presence-room"):
                await target.publish(name, "e", name)
            assert await command.exit_code() == 0
            shown = [each for each in objects(command.out.text) if each["event"] == "e"]
            assert shown == [{"channel": name, "event": "e", "data": name} for name in ("news", "presence-room")]


async def test_presence_channels_are_not_joined_unasked(
    target: Target, settings: dict[str, str], tmp_path: Path
) -> None:
    async with ReverbClient(**target.settings) as other:
        room = await other.subscribe("presence-room", {"user_id": "bob"})
        await other.subscribe("news")
        async with reverb("listen", "--all", env=settings, cwd=tmp_path) as command:
            await command.err.expect("subscribed to news$")
            assert room.members.keys() == {"bob"}


async def test_in_a_terminal(target: Target, settings: dict[str, str], tmp_path: Path) -> None:
    async with reverb("listen", "news", env=settings, cwd=tmp_path, terminal=True) as command:
        await command.out.expect("subscribed to news")
        await target.publish("news", "evil\x1b[2Jname", {"text": "\x1b[2J"})
        await command.out.expect(r"\}")
        command.press_ctrl_c()
        assert await command.exit_code() == 0
        assert "disconnected from" in command.out.text
        assert "\x1b[1m" in command.out.text
        assert "\x1b[2J" not in command.out.text
        assert "Traceback" not in command.out.text


async def test_colours_can_be_turned_off(target: Target, settings: dict[str, str], tmp_path: Path) -> None:
    env = {**settings, "NO_COLOR": "1"}
    async with reverb("listen", "news", env=env, cwd=tmp_path, terminal=True) as command:
        await target.publish("other", "x", "y")
        await command.out.expect("subscribed to news")
        command.press_ctrl_c()
        assert await command.exit_code() == 0
        assert not re.search(r"\x1b\[[0-9;]*3\d", command.out.text)


async def test_an_output_that_cannot_hold_every_character(
    target: Target, settings: dict[str, str], tmp_path: Path
) -> None:
    env = {**settings, "PYTHONIOENCODING": "ascii"}
    async with reverb("listen", "news", env=env, cwd=tmp_path) as command:
        await command.err.expect("subscribed")
        await target.publish("news", "e", "Zoë")
        await command.out.expect(r'"Zo\\xeb"')


async def test_reconnects_and_says_so(
    embedded: ReverbServer, target: Target, settings: dict[str, str], tmp_path: Path
) -> None:
    async with reverb("listen", "private-orders.7", env=settings, cwd=tmp_path) as command:
        await command.err.expect("subscribed to")
        await embedded.stop()
        await command.err.expect(f"lost the connection to 127.0.0.1:{target.port}")
        await embedded.start()
        await command.err.expect(f"reconnected to 127.0.0.1:{target.port}\n[^|]*subscribed to private-orders.7$")
        await target.publish("private-orders.7", SHIPPED, {"id": 8})
        await command.out.expect(r'\{"id": 8\}$')
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0
        assert len(rows(command.out.text)) == 1


async def test_the_end_of_a_lost_connection(
    embedded: ReverbServer, settings: dict[str, str], tmp_path: Path
) -> None:
    env = {**settings, "REVERB_RECONNECT_ENABLED": "false"}
    async with reverb("listen", "news", env=env, cwd=tmp_path) as command:
        await command.err.expect("subscribed to")
        await embedded.stop()
        assert await command.exit_code() == 3
        assert command.err.text.splitlines()[-1].startswith("reverb: lost the connection to 127.0.0.1:")
        assert "Traceback" not in command.err.text


@pytest.mark.parametrize("as_json", [True, False])
async def test_ends_when_nobody_reads(
    as_json: bool, target: Target, settings: dict[str, str], tmp_path: Path
) -> None:
    async with reverb("listen", *(["--json"] if as_json else []), "news", env=settings, cwd=tmp_path) as command:
        await command.err.expect("subscribed to")
        command.out.close()
        await target.publish("news", "unread", {})
        assert await command.exit_code() == 0
        assert rows(command.err.text)[-1] == f"disconnected from 127.0.0.1:{target.port}"
        assert "Broken" not in command.err.text


async def test_ctrl_c_while_connecting(settings: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        env = {**settings, "REVERB_PORT": str(silent.getsockname()[1])}
        async with reverb("listen", "news", env=env, cwd=tmp_path, terminal=True) as command:
            connection, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(silent), 15)
            with connection:
                command.press_ctrl_c()
                assert await command.exit_code() == 0
                assert "Traceback" not in command.out.text


async def test_says_for_how_long_it_was_away(
    embedded: ReverbServer, target: Target, settings: dict[str, str], tmp_path: Path
) -> None:
    async with reverb("listen", "news", env=settings, cwd=tmp_path) as command:
        await command.err.expect("subscribed to news$")
        await embedded.restart(downtime=0.3)
        back = await command.err.expect(r"no connection for (\d+\.\d) seconds; events published")
        assert 0.3 <= float(back[1]) < 15
        assert command.err.text.index("subscribed to news", 60) < back.start()


async def test_says_that_it_is_still_connecting(settings: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        env = {**settings, "REVERB_PORT": address.partition(":")[2]}
        async with reverb("listen", "news", env=env, cwd=tmp_path) as command:
            await command.err.expect(f"connecting to {address} …$")
            command.send_signal(signal.SIGTERM)
            assert await command.exit_code() == 0


# --- what is wanted --------------------------------------------------------------------------------------------


def published(server: BlockingServer, *events: str, channel: str = "news") -> Thread:
    """Publish events, with their numbers as data, as soon as somebody listens."""

    def publish() -> None:
        server.wait_for_subscription(channel)
        for number, event in enumerate(events):
            server.publish(channel, event, number)

    thread = Thread(target=publish)
    thread.start()
    return thread


def listen(server: BlockingServer, *arguments: str, events: Sequence[str] = ()) -> Result:
    publishing = published(server, *events)
    result = invoke("listen", "news", *arguments)
    publishing.join(15)
    return result


def test_a_number_of_events(reverb_server: ReverbServer) -> None:
    result = listen(reverb_server.blocking, "--count", "2", events=["a", "b", "c"])
    assert result.exit_code == 0
    assert rows(result.stdout) == ["news a 0", "news b 1"]


def test_patterns(reverb_server: ReverbServer) -> None:
    arguments = ("--event", "order.*", "--event", r"App\Events\*", "--count", "2", "--json")
    result = listen(reverb_server.blocking, *arguments, events=["a", "order.paid", "Order.a", r"App\Events\A"])
    assert result.exit_code == 0
    events = [each["event"] for each in objects(result.stdout)]
    assert events == [Events.SUBSCRIPTION_SUCCEEDED, "order.paid", r"App\Events\A"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--timeout", "1", "--event", "b"], 5, "no event came within 1 second"),
        (["--timeout", "0.5", "--count", "2"], 5, "1 of 2 events came within 0.5 seconds"),
        (["--timeout", "0.5"], 0, None),
        (["--timeout", "10", "--count", "1"], 0, None),
    ],
    ids=["nothing", "too-few", "something", "enough"],
)
def test_a_time(arguments: list[str], code: int, says: str | None, reverb_server: ReverbServer) -> None:
    result = listen(reverb_server.blocking, *arguments, events=["a"])
    assert result.exit_code == code
    assert (result.stderr.splitlines()[-1] == f"reverb: {says}") == (says is not None)


@pytest.mark.parametrize("arguments", [["--count", "0"], ["--timeout", "-1"], ["--timeout", "soon"]])
def test_a_number_that_is_none(arguments: list[str]) -> None:
    assert invoke("listen", "news", *arguments).exit_code == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_before_there_was_enough(
    number: signal.Signals, code: int, settings: dict[str, str], tmp_path: Path
) -> None:
    async with reverb("listen", "news", "--count", "1", env=settings, cwd=tmp_path) as command:
        await command.err.expect("subscribed to news$")
        command.send_signal(number)
        assert await command.exit_code() == code


# --- commands --------------------------------------------------------------------------------------------------


async def test_a_command_for_each_event(target: Target, settings: dict[str, str], tmp_path: Path) -> None:
    run = 'read -r data; echo "$REVERB_EVENT on $REVERB_CHANNEL has $data" | tee -a log'
    arguments = ("listen", "news", "private-a", "--count", "3", "--exec", run)
    async with reverb(*arguments, env=settings, cwd=tmp_path) as command:
        await command.err.expect("subscribed to news$")
        await command.err.expect("subscribed to private-a$")
        for number, channel in enumerate(["news", "private-a", "news"]):
            await target.publish(channel, f"e{number}", {"n": number})
            await command.out.expect(f"e{number} ")
        assert await command.exit_code() == 0
        assert len(rows(command.out.text)) == 3
        log = (tmp_path / "log").read_text()
        assert log.splitlines() == [
            'e0 on news has {"n": 0}',
            'e1 on private-a has {"n": 1}',
            'e2 on news has {"n": 2}',
        ]
        assert re.findall("^e.*$", command.err.text, re.MULTILINE) == log.splitlines()


def test_a_command_that_fails(reverb_server: ReverbServer) -> None:
    run = 'test "$REVERB_EVENT" = good'
    result = listen(reverb_server.blocking, "--count", "2", "--exec", run, events=["bad", "good"])
    assert result.exit_code == 1
    assert "the command failed with exit code 1 for bad on news\n" in result.stderr
    assert result.stderr.splitlines()[-1] == "reverb: the command failed for 1 of 2 events"


async def test_ctrl_c_ends_the_command(target: Target, settings: dict[str, str], tmp_path: Path) -> None:
    run = "trap 'echo ended; exit' TERM; echo started; sleep 60 & wait"
    arguments = ("listen", "news", "--exec", run)
    async with reverb(*arguments, env=settings, cwd=tmp_path, terminal=True) as command:
        await command.out.expect("subscribed to news")
        await target.publish("news", "first", {})
        await command.out.expect("started")
        await target.publish("news", "second", {})
        await command.out.expect("second")
        command.press_ctrl_c()
        assert await command.exit_code() == 0
        assert command.out.text.count("started") == 1
        assert "ended" in command.out.text
        assert "Traceback" not in command.out.text


# --- settings --------------------------------------------------------------------------------------------------


async def test_options_go_before_the_environment_and_it_before_the_file(tmp_path: Path) -> None:
    async with ReverbServer([App(key="right")], path="/ws") as server:
        tmp_path.joinpath(".env").write_text("REVERB_APP_KEY=file\nREVERB_HOST=127.0.0.1\nREVERB_PORT=1\n")
        env = {"REVERB_APP_KEY": "environment", "REVERB_SCHEME": "wss", "REVERB_PATH": "/elsewhere"}
        options: tuple[str, ...] = (
            "--key",
            "right",
            "--port",
            str(server.port),
            "--scheme",
            "http",
            "--path",
            "ws",
        )
        async with reverb("listen", "news", *options, env=env, cwd=tmp_path) as command:
            await command.err.expect("subscribed to news")
        async with reverb("listen", "news", *options[2:], env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == 3  # with the environment's key
        async with reverb(
            "listen", "news", *options, "--host", "reverb.invalid", env=env, cwd=tmp_path
        ) as command:
            assert await command.exit_code() == 3
            assert "reverb.invalid" in command.err.text


# --- what goes wrong -------------------------------------------------------------------------------------------


async def fails(
    *arguments: str, env: dict[str, str], cwd: Path, code: int, says: str, terminal: bool = False
) -> None:
    """Assert that listening ends with this code and, but for what it says about connecting, this one message."""
    async with reverb("listen", *arguments, env=env, cwd=cwd, terminal=terminal) as command:
        assert await command.exit_code() == code
        said = re.sub(r"^.*\d\d:\d\d:\d\d.*connected to .*\n", "", command.err.text)
        assert re.fullmatch(f"reverb: {says}\n", said), said
        if not terminal:
            assert command.out.text == ""


@pytest.mark.parametrize("terminal", [False, True])
async def test_every_setting_that_is_wrong_is_named(terminal: bool, tmp_path: Path) -> None:
    env = {"REVERB_PORT": "x", "REVERB_SCHEME": "ftp", "REVERB_APP_SECRET": "s3cret"}
    wrong = "\n".join(f"  REVERB_{name} .*" for name in ("APP_KEY", "HOST", "PORT", "SCHEME"))
    await fails("news", env=env, cwd=tmp_path, code=2, says=f"invalid settings:\n{wrong}", terminal=terminal)


@pytest.mark.parametrize("terminal", [False, True])
async def test_no_server(terminal: bool, settings: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but does not listen
        port = str(taken.getsockname()[1])
        says = f"cannot connect to 127.0.0.1:{port}: .*"
        await fails("--port", port, "news", env=settings, cwd=tmp_path, code=3, says=says, terminal=terminal)


async def test_wrong_key(settings: dict[str, str], tmp_path: Path) -> None:
    says = ".*Application does not exist.*"
    await fails("--key", "wrong", "news", env=settings, cwd=tmp_path, code=3, says=says)


async def test_wrong_path(settings: dict[str, str], tmp_path: Path) -> None:
    says = ".*HTTP status 404.*REVERB_PATH.*"
    await fails("--path", "wrong", "news", env=settings, cwd=tmp_path, code=3, says=says)


@pytest.mark.parametrize("terminal", [False, True])
async def test_wrong_secret(terminal: bool, settings: dict[str, str], tmp_path: Path) -> None:
    env = {**settings, "REVERB_APP_SECRET": "wr0ng"}
    says = ".*refused the signature for 'private-a'.*REVERB_APP_SECRET"
    await fails("private-a", env=env, cwd=tmp_path, code=4, says=says, terminal=terminal)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name a channel, or use --all"),
        (("news", "--prefix", "x"), "--prefix, --exclude and --interval need --all"),
        (("news", "--exclude", "x"), "--prefix, --exclude and --interval need --all"),
        (("news", "--interval", "1"), "--prefix, --exclude and --interval need --all"),
        (("--all", "--interval", "0"), "--interval must be more than 0 seconds"),
        (("--all", "--interval", "nan"), "--interval must be more than 0 seconds"),
    ],
)
async def test_options_of_all(
    arguments: tuple[str, ...], says: str, settings: dict[str, str], tmp_path: Path
) -> None:
    await fails(*arguments, env=settings, cwd=tmp_path, code=2, says=says)


async def test_all_without_an_application_id(settings: dict[str, str], tmp_path: Path) -> None:
    env = {name: value for name, value in settings.items() if name != "REVERB_APP_ID"}
    says = "invalid settings:\n  REVERB_APP_ID is missing: the HTTP API needs it"
    await fails("--all", env=env, cwd=tmp_path, code=2, says=says)
    await fails("--all", "--app-id", "none", env=env, cwd=tmp_path, code=4, says=".*with 404.*REVERB_APP_ID.*")


async def test_missing_secret(settings: dict[str, str], tmp_path: Path) -> None:
    env = {name: value for name, value in settings.items() if name != "REVERB_APP_SECRET"}
    await fails("private-a", env=env, cwd=tmp_path, code=2, says="REVERB_APP_SECRET is missing.*")


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("{user_id: 1}", "--presence-user is not JSON: .*"),
        ("", "--presence-user is not JSON: .*"),
        ("[" * 100_000, "--presence-user is not JSON: .*"),
        ("[1]", "--presence-user must be an object with a user_id, such as .*"),
        ('{"user_id": true}', "--presence-user must be an object with a user_id, such as .*"),
        ('{"user_info": {}}', "--presence-user must be an object with a user_id, such as .*"),
        ('{"user_id": ""}', "--presence-user must be an object with a user_id, such as .*"),
    ],
    ids=["no-json", "empty", "deep", "list", "bool", "no-id", "empty-id"],
)
async def test_bad_presence_user(user: str, says: str, settings: dict[str, str], tmp_path: Path) -> None:
    arguments = ("--presence-user", user, "presence-a")
    await fails(*arguments, env=settings, cwd=tmp_path, code=2, says=says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([""], "the name of a channel is empty"),
        (["news", "--event", ""], r"--event is empty; write '\*' for any event"),
        (["news", "--exec", " "], "--exec is empty; name a command"),
    ],
    ids=["channel", "event", "exec"],
)
async def test_what_is_empty(arguments: list[str], says: str, settings: dict[str, str], tmp_path: Path) -> None:
    await fails(*arguments, env=settings, cwd=tmp_path, code=2, says=says)


async def test_the_secret_is_never_told(settings: dict[str, str], tmp_path: Path) -> None:
    env = {**settings, "REVERB_APP_SECRET": "s3cret", "REVERB_LOG_LEVEL": "DEBUG"}
    async with reverb("listen", "private-a", env=env, cwd=tmp_path) as command:
        assert await command.exit_code() == 4
        assert "s3cret" not in command.out.text + command.err.text
