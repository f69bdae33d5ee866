"""README.md: its code runs, and what it says about commands, settings and the API is so.

A block of code is known by the heading above it, and its number if there are several. Each has a test here.
"""

from __future__ import annotations

import asyncio
import builtins
import configparser
import inspect
import os
import re
import shlex
import signal
import sys
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import reverb
from reverb import (
    BatchEvent,
    Channel,
    ConfigurationError,
    ConnectionState,
    Events,
    PresenceChannel,
    ReverbAPI,
    ReverbClient,
    ReverbConfig,
    ReverbError,
    SyncReverbAPI,
    User,
)
from reverb._settings import variables_of
from reverb.bindable import Bindable, queue_of
from reverb.cli.app import COMMANDS, app, load
from reverb.crypto import derive_shared_secret, encrypt
from reverb.server import App, ReverbServer
from tests.cli.processes import reverb as run_module
from tests.docs.pages import ROOT, Block, Fragment, Page, variables, written
from tests.integration.servers import Target
from tests.laravel import TOKEN_ROUTE
from tests.test_dispatch import Recorder
from tests.watching import until

PAGE = Page("README.md")
README = PAGE.text
BLOCKS = PAGE.blocks
block_of, read_section, read_tables = PAGE.block_of, PAGE.section, PAGE.tables
ANN = {"user_id": "7", "user_info": {"name": "Ann"}}
BOB = {"user_id": "8", "user_info": {"name": "Bob"}}


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def test_links_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in re.findall("^#+ (.*)$", README, re.M)
    }
    for link in re.findall(r"\]\(([^)]*)\)", README):
        if link.startswith("#"):
            assert link[1:] in anchors
        elif not link.startswith("https://"):
            assert (ROOT / link.partition("#")[0]).exists(), link


def test_every_example_is_mentioned() -> None:
    ((*rows,),) = read_tables("Examples")
    linked = [re.search(r"\((.*)\)", row[0]) for row in rows]
    assert {match[1] for match in linked if match} == {
        f"examples/{each.name}" for each in ROOT.glob("examples/*.py")
    }


# --- running Python --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@block_of("Quick start 2")
async def test_the_quick_start(
    block: Block, number: signal.Signals, server: ReverbServer, target: Target, tmp_path: Path
) -> None:
    tmp_path.joinpath("program.py").write_text(block.text)
    env = {**variables(target), "PYTHONUNBUFFERED": "1"}
    async with run_module(module="program", env=env, cwd=tmp_path) as command:
        await server.wait_for_subscription("private-orders", 15)
        await target.publish("private-orders", "App\\Events\\OrderShipped", {"id": 7})
        await command.out.expect("^private-orders: order 7 is on its way$")
        command.send_signal(number)
        assert await command.exit_code() == 0
        assert command.out.text == "private-orders: order 7 is on its way\n"
        assert command.err.text == ""
    await until(lambda: not server.connections)


@block_of("Quick start 2")
async def test_ctrl_c_at_the_quick_start(
    block: Block, server: ReverbServer, target: Target, tmp_path: Path
) -> None:
    tmp_path.joinpath("program.py").write_text(block.text)
    async with run_module(module="program", env=variables(target), cwd=tmp_path, terminal=True) as command:
        await server.wait_for_subscription("private-orders", 15)
        command.press_ctrl_c()
        assert await command.exit_code() == 0
        assert command.out.text.replace("^C", "").strip() == ""


@block_of("Quick start 3")
async def test_the_quick_start_with_asyncio(
    block: Block, server: ReverbServer, target: Target, tmp_path: Path
) -> None:
    handler = re.search(r"^async def on_shipped.*?\n\n", BLOCKS["Quick start 2"].text, re.M | re.S)
    assert handler
    tmp_path.joinpath("program.py").write_text(f"{handler[0]}\n{block.text}")
    env = {**variables(target), "PYTHONUNBUFFERED": "1"}
    async with run_module(module="program", env=env, cwd=tmp_path) as command:
        await server.wait_for_subscription("private-orders", 15)
        await target.publish("private-orders", "App\\Events\\OrderShipped", {"id": 7})
        await command.out.expect("^private-orders: order 7 is on its way$")
        assert command.err.text == ""
        command.send_signal(signal.SIGINT)
        assert await command.exit_code() != 0
        assert "KeyboardInterrupt" in command.err.text  # as it says


@block_of("Channels")
async def test_channels(block: Block, client: ReverbClient) -> None:
    fragment = Fragment(block, client=client)
    await fragment.run()
    assert fragment.printed == [str(ANN), str({"7": {"name": "Ann"}})]
    orders, room = fragment.names["orders"], fragment.names["room"]
    assert client.channels == {"private-orders.7": orders, "presence-room.1": room}
    assert orders.is_subscribed
    assert room.is_subscribed
    assert not fragment.names["news"].is_subscribed


@block_of("Who is here")
async def test_who_is_here(block: Block, client: ReverbClient) -> None:
    fragment = Fragment(block, room=await client.subscribe("presence-room.1", ANN))
    running = asyncio.ensure_future(fragment.run())
    async with ReverbClient() as other:
        await other.subscribe("presence-room.1", BOB)
        await running
    assert fragment.printed == ["Bob is here, one of 2: 7, 8"]


@block_of("Which authorizer?")
def test_how_laravel_gets_a_route_for_tokens(block: Block) -> None:
    assert block.text == TOKEN_ROUTE


@block_of("Users")
async def test_users(block: Block, soketi: Target) -> None:
    paid, friends = Recorder(), Recorder()
    app = soketi.app("user")
    async with ReverbClient(**app.settings) as client:
        await Fragment(block, client=client, Events=Events, on_paid=paid, on_friends=friends).run()
        await app.publish("#server-to-user-7", "invoice-paid", {"id": 1})
        assert await paid.wait_for(1) == [("invoice-paid", {"id": 1}, "#server-to-user-7")]


@block_of("Who comes and goes")
async def test_who_comes_and_goes(block: Block, client: ReverbClient) -> None:
    fragment = Fragment(block, room=await client.subscribe("presence-room.1", ANN))
    await fragment.run()
    async with ReverbClient() as other:
        await other.subscribe("presence-room.1", BOB)
        await until(lambda: fragment.printed == ["Bob came, now there are 2"])
        await other.unsubscribe("presence-room.1")
        await until(lambda: fragment.printed[1:] == ["Bob left"])


@block_of("Channels that are found")
async def test_channels_that_are_found(block: Block, client: ReverbClient, target: Target) -> None:
    heard, names = Recorder(), ("private-orders.7", "private-orders.7.debug", "news")
    async with ReverbClient() as other:
        for name in names:
            await other.subscribe(name)
        fragment = Fragment(block, client=client, log=heard)
        running = asyncio.ensure_future(fragment.run())
        await until(lambda: any(each.is_subscribed for each in client.channels.values()))
        assert fragment.printed == [str(["private-orders.7"])]
        for name in names:
            await target.publish(name, "e", 1)
        await until(lambda: "e" in heard.events)
        assert [call for call in heard.calls if call[0] == "e"] == [("e", 1, "private-orders.7")]
    await client.disconnect()
    await running


@block_of("Encrypted channels")
async def test_encrypted_channels(block: Block, server: ReverbServer, target: Target) -> None:
    received, name = Recorder(), "private-encrypted-payments"
    fragment = Fragment(block, ReverbClient=ReverbClient, on_payment=received)
    running = asyncio.ensure_future(fragment.run())
    await server.wait_for_subscription(name)
    key = derive_shared_secret(name, b"master key of the application!!!")
    await target.publish(name, "App\\Events\\PaymentReceived", encrypt('{"amount":5}', key))
    assert await received.wait_for(1) == [("App\\Events\\PaymentReceived", {"amount": 5}, name)]
    await fragment.names["client"].disconnect()
    await running


@block_of("Client events")
async def test_client_events(block: Block, client: ReverbClient) -> None:
    received = Recorder()
    async with ReverbClient() as other:
        (await other.subscribe("private-device.rpi-001")).bind("*", received)
        await received.wait_for(1)
        fragment = Fragment(block, client=client)
        await fragment.run()
        await fragment.names["device"].trigger("client-status", {})
        assert [(event, data) for event, data, _ in await received.wait_for(3)][1:] == [
            ("client-status", {"temperature": 45.2, "uptime": 86400}),
            ("client-status", []),
        ]


@block_of("Client events 2")
async def test_the_sender_of_a_client_event(block: Block, client: ReverbClient) -> None:
    fragment = Fragment(block, room=await client.subscribe("presence-room.1", ANN))
    await fragment.run()
    async with ReverbClient() as other:
        room = await other.subscribe("presence-room.1", BOB)
        await room.trigger("message", {"text": "Hello!"})
        await until(lambda: fragment.printed == ["8 says Hello!"])


@block_of("Publish")
async def test_publishing(block: Block, client: ReverbClient) -> None:
    heard = Recorder()
    for name, event in (("orders", "order.shipped"), ("stock", "item.updated")):
        (await client.subscribe(name)).bind(event, heard)
    printed: list[Any] = []
    await asyncio.to_thread(exec, block.text, {"print": printed.append})
    calls = await heard.wait_for(26)
    assert ("order.shipped", {"id": 7}, "orders") in calls
    assert [data["id"] for _, data, channel in calls if channel == "stock"] == list(range(25))
    assert printed == [True]


@block_of("Publish 2")
async def test_publishing_with_asyncio(block: Block, client: ReverbClient) -> None:
    heard = Recorder()
    (await client.subscribe("orders")).bind("order.shipped", heard)
    await Fragment(block).run()
    assert await heard.wait_for(1) == [("order.shipped", {"id": 7}, "orders")]


@block_of("Handlers")
async def test_handlers(block: Block, client: ReverbClient, target: Target) -> None:
    handlers = {name: Recorder() for name in ("on_shipped", "on_any_shipped", "log", "on_error")}
    names = {"client": client, "orders": await client.subscribe("orders"), **handlers}
    await client.subscribe("others")
    before, _, after = block.text.partition("\n\n")

    await Fragment(block._replace(text=before), **names).run()
    await target.publish(["orders", "others"], "order.shipped", 1)
    await target.publish("others", "done", 2)
    await until(lambda: "done" in handlers["log"].events)
    shipped = ("order.shipped", 1, "orders")
    assert handlers["on_shipped"].calls == [shipped]
    assert handlers["on_any_shipped"].calls == [shipped, ("order.shipped", 1, "others")]
    assert [call for call in handlers["log"].calls if call[0] == "order.shipped"].count(shipped) == 2
    assert handlers["on_error"].calls == []

    await Fragment(block._replace(text=after), **names).run()
    for handler in handlers.values():
        handler.calls.clear()
    await target.publish("orders", "order.shipped", 3)
    shipped = ("order.shipped", 3, "orders")
    await until(lambda: handlers["log"].calls)
    assert handlers["on_shipped"].calls == []
    assert handlers["log"].calls == [shipped]
    assert handlers["on_any_shipped"].calls == [shipped]

    def fail(event: str, data: Any, channel: str | None) -> None:
        raise RuntimeError("broken")

    client.bind("order.shipped", fail)
    await target.publish("orders", "order.shipped", 4)
    ((event, data, channel),) = await handlers["on_error"].wait_for(1)
    assert (event, channel) == (Events.CLIENT_ERROR, "orders")
    assert data.keys() == {"message", "code", "exception"}


@block_of("Other ways to write it")
async def test_other_ways_to_write_it(block: Block, client: ReverbClient, target: Target) -> None:
    orders = await client.subscribe("orders")
    audit, on_paid, errors = Recorder(), Recorder(), Recorder()
    orders.bind("error", errors)
    fragment = Fragment(block, orders=orders, audit=audit, on_paid=on_paid, __name__="program")

    def bound_to(event: str) -> int:
        return len(queue_of(orders).add_route(event).bindings)

    running = asyncio.ensure_future(fragment.run())
    await until(lambda: "Order" in fragment.names and audit.calls == [] and bound_to("order.shipped") == 3)
    for name in ("shipped", "paid", "paid", "closed"):
        await target.publish("orders", f"order.{name}", {"id": 7, "total": "49.90"})
    await until(lambda: fragment.printed[-1:] and fragment.printed[-1].endswith("order.paid: 49.90"))
    await target.publish("orders", "order.shipped", {"id": "seven"})
    # the loop is left, the last statement waits
    await until(lambda: bound_to("order.shipped") == 3 and not bound_to(Events.RESUBSCRIBED))
    await target.publish("orders", "order.shipped", {"id": 7, "total": "1.00"})
    await asyncio.wait_for(running, 5)
    assert fragment.names["event"].data == {"id": 7, "total": "1.00"}
    assert "7 is on its way" in fragment.printed
    assert [line[9:] for line in fragment.printed if ":" in line] == [
        "order.shipped: 49.90",
        "order.paid: 49.90",
        "order.paid: 49.90",
    ]
    order = fragment.names["Order"]
    assert on_paid.calls == [("order.paid", order(7, "49.90"), "orders")]
    assert len(audit.calls) == 6
    assert errors.calls[0][1]["exception"].path == "$.id"


@block_of("Slow handlers")
async def test_slow_handlers(block: Block, client: ReverbClient, target: Target) -> None:
    dropped, last, go_on = Recorder(), Recorder(), asyncio.Event()
    fragment = Fragment(block, client=client, Events=Events, on_dropped=dropped)
    await fragment.run()

    async def wait(event: str, data: Any, channel: str | None) -> None:
        await go_on.wait()

    fragment.names["prices"].bind("price", wait)
    (await client.subscribe("other")).bind("e", last)
    await until(lambda: client.stats.queued == 0)
    for number in range(108):  # one of them is with the handler
        await target.publish("prices", "price", number)
    await target.publish("other", "e", None)
    await last.wait_for(1)
    go_on.set()
    assert await dropped.wait_for(1) == [(Events.EVENTS_DROPPED, {"count": 7}, "prices")]
    assert client.stats.dropped == 7


@block_of("Laravel Echo's names")
async def test_laravel_echos_names(block: Block, client: ReverbClient, target: Target) -> None:
    heard: dict[str, list[Any]] = {f"on_{name}": [] for name in ("shipped", "paid", "here", "joining", "leaving")}
    whispers = Recorder()

    async def visit() -> None:
        await target.publish("private-orders.7", "App\\Events\\OrderShipped", 1)
        await target.publish("private-orders.7", "order.paid", 2)
        await client.subscribe("presence-room.1", BOB)
        await client.unsubscribe("presence-room.1")
        (await client.subscribe("presence-room.1", BOB)).bind("client-typing", whispers)
        await until(lambda: len(heard["on_joining"]) == 2 and heard["on_paid"])

    before, whisper, after = block.text.partition("    await room.whisper")
    text = f"{before}    await visit()\n{whisper}{after}"
    fragment = Fragment(
        block._replace(text=text), visit=visit, **{name: each.append for name, each in heard.items()}
    )
    await fragment.run()
    assert heard == {
        "on_shipped": [1],
        "on_paid": [2],
        "on_here": [[{"name": "Ann"}]],
        "on_joining": [{"name": "Bob"}, {"name": "Bob"}],
        "on_leaving": [{"name": "Bob"}],
    }
    assert await whispers.wait_for(1) == [("client-typing", {"on": True}, "presence-room.1")]
    assert re.fullmatch(r"X-Socket-ID: \d+\.\d+", fragment.printed[0])


@block_of("Settings")
async def test_settings_in_an_object(block: Block) -> None:
    fragment = Fragment(block)
    await fragment.run()
    config = fragment.names["config"]
    assert isinstance(config, ReverbConfig)
    assert (config.address, config.scheme) == ("localhost:8080", "ws")
    assert repr(fragment.names["client"]) == "<ReverbClient localhost:8080 not connected, 0 channels>"


@block_of("When the connection is lost")
async def test_a_gap_is_told(block: Block, client: ReverbClient, server: ReverbServer) -> None:
    fragment = Fragment(block, client=client, Events=Events)
    await fragment.run()
    await server.stop()
    await until(lambda: not client.is_connected)
    await server.start()
    await until(lambda: fragment.printed)
    assert re.fullmatch(r"offline for \d+ seconds, back after \d+ attempts", fragment.printed[0])


@block_of("Errors")
async def test_errors(block: Block, target: Target, server: ReverbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_APP_SECRET", "wrong")
    fragment = Fragment(block)
    await fragment.run()
    assert len(fragment.printed) == 1
    assert fragment.printed[0].startswith("not allowed: ")
    assert "private-reports" in fragment.printed[0]
    await server.stop()
    fragment = Fragment(block)
    await fragment.run()
    assert len(fragment.printed) == 1
    assert fragment.printed[0].startswith(f"no connection: cannot connect to 127.0.0.1:{target.port}")
    await server.start()
    server.silence()
    monkeypatch.setenv("REVERB_CONNECT_TIMEOUT", "0.2")
    fragment = Fragment(block)
    await fragment.run()
    assert len(fragment.printed) == 1
    assert fragment.printed[0].startswith("no answer: ")


def test_no_document_hides_names_of_python() -> None:
    documents = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py")]
    for document in documents:
        text = document.read_text(encoding="utf-8")
        imports = re.findall(r"^ *from reverb import (\([^)]*\)|[^\n]*)$", text, re.M)
        names = {name for each in imports for name in re.findall(r"\w+", each)}
        assert not names & set(dir(builtins)), document


@block_of("A server for your tests")
def test_a_server_for_your_tests(block: Block, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(block.text)
    options = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
    pytester.runpytest_subprocess("-W", "error", *options).assert_outcomes(passed=1)


# --- commands and files ----------------------------------------------------------------------------------------


def normalise(output: str) -> list[str]:
    """Replace what is different each time."""
    for pattern, replacement in (
        (r"^\d\d:\d\d:\d\d", "12:34:56"),
        (r'"socket_id": "[\d.]+"', '"socket_id": "1.2"'),
        (r"in \d+\.\d seconds", "in 4.0 seconds"),
        (r"(127\.0\.0\.1|localhost):\d+", "localhost:8080"),
    ):
        output = re.sub(pattern, replacement, output, flags=re.MULTILINE)
    return [line for line in output.splitlines() if line]


@block_of("When it does not work")
def test_the_output_of_doctor(block: Block) -> None:
    def normalise(lines: list[str]) -> list[str]:
        return [re.sub(" +", " ", re.sub(r"[0-9.]+ ms", "TIME", line)) for line in lines if line not in ("", "…")]

    command_line, *expected = normalise(block.text.splitlines())
    my_app = App(id="my-app-id", key="my-app-key", allowed_origins=("localhost",))
    with ReverbServer([my_app], host="localhost") as server:
        arguments = shlex.split(command_line.removeprefix("$ reverb "))
        result = CliRunner().invoke(app, arguments, env={**server.env, "REVERB_HOST": "localhost"})
    assert result.exit_code == 3
    seen = iter(normalise(result.output.splitlines()))
    assert [line for line in expected if line not in seen] == []  # all are there, in this order


@block_of("On the command line")
async def test_the_output_of_listen(block: Block, target: Target, tmp_path: Path) -> None:
    command_line, *expected = block.text.splitlines()
    arguments = shlex.split(command_line.removeprefix("$ reverb "))
    async with run_module(*arguments, env=variables(target), cwd=tmp_path) as command:
        for channel in arguments[1:]:
            await command.err.expect(f"subscribed to {channel}$")
        data = {"id": 12, "title": "Reverb, from Python"}
        await target.publish("news", "App\\Events\\ArticlePublished", data)
        await target.publish("private-orders.7", "App\\Events\\OrderShipped", {"id": 7})
        await command.out.expect(r'\{"id": 7\}$')
    # Columns widen as wider names come.
    seen = [re.sub(" +", " ", line) for line in normalise(command.err.text) + normalise(command.out.text)]
    assert sorted(seen) == sorted(re.sub(" +", " ", line) for line in normalise(block.text)[1:])
    assert len(expected) == len(seen)


@block_of("On the command line 2")
async def test_the_output_of_publish(block: Block, client: ReverbClient, tmp_path: Path) -> None:
    heard = Recorder()
    (await client.subscribe("news")).bind("article.published", heard)
    seen = Recorder()
    (await client.subscribe("private-orders.7")).bind("client-seen", seen)
    line = '{"channel": "news", "event": "article.published", "data": {"id": 12}}\n'
    (tmp_path / "events.jsonl").write_text(line * 250)
    for command_line, output in re.findall(r"^\$ reverb (.*)\n(.*)$", block.text, re.M):
        async with run_module(*shlex.split(command_line), env=dict(os.environ), cwd=tmp_path) as command:
            assert await command.exit_code() == 0
            assert (command.out.text, command.err.text) == (f"{output}\n", "")
    assert {data["id"] for _, data, _ in await heard.wait_for(251)} == {12}
    assert [data for _, data, _ in await seen.wait_for(1)] == [{"by": "ann"}]


@block_of("On the command line 3")
async def test_the_answers_of_reverb(block: Block, target: Target, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        for user_id in ("ann", "bob", None):
            client = await stack.enter_async_context(ReverbClient(**target.settings))
            await client.subscribe("news")
            if user_id is not None:
                await client.subscribe("presence-room.1", {"user_id": user_id, "user_info": {}})
        for command_line, output in re.findall(r"^\$ reverb (.*)\n((?:[^$].*\n?)+)", block.text, re.M):
            async with run_module(*shlex.split(command_line), env=variables(target), cwd=tmp_path) as command:
                assert await command.exit_code() == 0
                assert (command.out.text.strip(), command.err.text) == (output.strip(), "")


def test_the_commands_and_options_of_reverb() -> None:
    commands = {name: load(name) for name in COMMANDS}
    assert set(re.findall(r"`(?:\$ )?reverb (\w+)", README)) == commands.keys()
    parameters = [parameter for command in commands.values() for parameter in command.params]
    options = {option for parameter in parameters for option in parameter.opts}
    assert set(re.findall(r"`(--[\w-]+)`", README)) <= options


@block_of("Quick start")
def test_the_env_file(block: Block) -> None:
    Path(".env").write_text(block.text)
    config = ReverbConfig.from_env()
    assert config.app_id == "my-app-id"
    assert config.app_key == "my-app-key"
    assert config.app_secret is not None
    assert config.app_secret.get_secret_value() == "my-app-secret"
    assert (config.scheme, config.address) == ("ws", "localhost:8080")
    names = {line.partition("=")[0].removeprefix("REVERB_").lower() for line in block.text.splitlines()}
    assert names <= set(variables_of(ReverbConfig).values())


@block_of("As a service 3")
async def test_a_program_for_run(block: Block, server: ReverbServer, target: Target) -> None:
    handler = "def on_command(event, data, channel): print(event, data, flush=True)\n"
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", handler + block.text, env={**os.environ, **variables(target)}, stdout=PIPE
    )
    assert program.stdout is not None
    try:
        await server.wait_for_subscription("private-device.rpi-001", timeout=20)
        await target.publish("private-device.rpi-001", "command", "reboot")
        assert await asyncio.wait_for(program.stdout.readline(), 20) == b"command reboot\n"
        program.terminate()
        assert await asyncio.wait_for(program.wait(), 20) == 0
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


@block_of("As a service")
def test_the_systemd_unit(block: Block) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.text)
    assert unit.sections() == ["Unit", "Service", "Install"]
    assert unit["Unit"].keys() == {"Description", "After", "Wants"}
    assert unit["Unit"]["After"] == unit["Unit"]["Wants"] == "network-online.target"
    service = dict(unit["Service"])
    assert (service["Type"], service["Restart"], service["RestartSec"]) == ("simple", "always", "10")
    assert service["EnvironmentFile"] == f"{service['WorkingDirectory']}/.env"
    python, program = service["ExecStart"].split()
    assert Path(python).is_absolute()
    assert (ROOT / "examples" / program).exists()
    assert "User" in service
    assert dict(unit["Install"]) == {"WantedBy": "multi-user.target"}
    assert f"`/etc/systemd/system/{UNIT}.service`" in README


PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
REPOSITORY = "python-reverb"
UNIT = "iot-device"


def extras() -> set[str]:
    (section,) = re.findall(r"^\[project\.optional-dependencies\]\n(.*?)^\[", PYPROJECT, re.M | re.S)
    return set(re.findall(r"^(\w+) = ", section, re.M))


def check_command(line: str) -> None:
    """Check that what a command names is there; fail for commands that nothing is known of."""
    match shlex.split(line, comments=True):
        case ["git", "clone", url]:
            assert f'Homepage = "{url.removesuffix(".git")}"' in PYPROJECT
        case ["cd", directory]:
            assert directory == REPOSITORY
        case ["make", target]:
            (phony,) = re.findall(r"^\.PHONY: (.* .*)$", (ROOT / "Makefile").read_text(), re.M)
            assert target in phony.split()
        case ["pip", "install", "-e", what] | ["pip", "install", what]:
            match = re.fullmatch(r"(\.|python-reverb)(?:\[(\w+)\])?", what)
            assert match
            assert match[2] is None or match[2] in extras()
        case ["python", "-m", "venv", path]:
            assert path == "venv"
        case ["source", path]:
            assert path == "venv/bin/activate"
        case ["pytest"]:
            assert "[tool.pytest.ini_options]" in PYPROJECT
        case ["ruff", "check", *paths] | ["mypy", *paths]:
            assert paths
            assert all((ROOT / path).is_dir() for path in paths)
        case ["sudo", "systemctl", "daemon-reload"]:
            pass
        case ["sudo", "systemctl", "enable", "--now", unit] | ["sudo", "journalctl", "--unit", unit, "--follow"]:
            assert unit == UNIT
        case []:
            pass
        case _:
            pytest.fail(f"nothing checks the command {line!r}")


@block_of("See it work", "Install", "Install 2", "As a service 2", "Development")
def test_commands(block: Block) -> None:
    assert block.language == "bash"
    for line in block.text.splitlines():
        check_command(line)


def test_the_extras() -> None:
    named = set(re.findall(r"`(\w+)`", read_section("Install")))
    named |= set(re.findall(r"python-reverb\[(\w+)\]", BLOCKS["Install"].text))
    assert named == extras() - {"dev", "bench"}


# --- settings --------------------------------------------------------------------------------------------------


def test_the_tables_of_settings() -> None:
    required, optional = read_tables("Settings")
    config = ReverbConfig(app_key="key", host="host")
    fields = variables_of(ReverbConfig)
    assert sorted(row[0].strip("`") for row in required + optional) == sorted(fields)
    for name, default, _ in optional:
        value = getattr(config, fields[name.strip("`")])
        special = {"None": "none", "": "empty", "True": "`true`"}
        expected = "`INFO`" if name == "`REVERB_LOG_LEVEL`" else special.get(str(value), f"`{value}`")
        assert default == expected, name


async def test_what_is_required(server: ReverbServer) -> None:
    required = {row[0].strip("`") for row in read_tables("Settings")[0]}
    with pytest.raises(ConfigurationError) as caught:
        ReverbConfig.from_env()
    missing = set(re.findall(r"REVERB_\w+", str(caught.value)))
    assert missing == required - {"REVERB_APP_SECRET"}
    async with ReverbClient(app_key="app-key", host=server.host, port=server.port, scheme="ws") as client:
        await client.subscribe("news")
        with pytest.raises(ConfigurationError, match="REVERB_APP_SECRET"):
            await client.subscribe("private-orders")


# --- the API ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_", [ReverbClient, Channel, PresenceChannel, User])
def test_the_tables_of_methods_and_properties(class_: type) -> None:
    public = {name: member for name, member in vars(class_).items() if not name.startswith("_")}
    shared = {name: member for name, member in vars(Bindable).items() if not name.startswith("_")}
    if class_ is ReverbClient:  # whose section has what they share
        public |= shared
    methods = {written(member, name) for name, member in public.items() if inspect.isfunction(member)}
    properties = {
        (name, member.fget.__annotations__["return"])
        for name, member in public.items()
        if isinstance(member, property)
    }
    *method_tables, property_table = read_tables(class_.__name__)
    listed = {row[0].strip("`") for table in method_tables for row in table}
    if class_ in (Channel, User):
        listed.remove("`, `".join(f"{name}(…)" for name in shared))
    assert listed == methods
    assert {(row[0].strip("`"), row[1].strip("`")) for row in property_table} == properties


def test_the_table_of_the_api() -> None:
    methods = {
        written(member, name)
        for name, member in vars(ReverbAPI).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    (table,) = read_tables("ReverbAPI")
    assert {row[0].strip("`") for row in table} == methods
    without_await = {
        written(member, name)
        for name, member in vars(SyncReverbAPI).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert without_await == {each.removeprefix("await ") for each in methods}
    assert written(BatchEvent.__init__, "BatchEvent") in read_section("ReverbAPI")


@pytest.mark.parametrize("class_", [ReverbClient, ReverbAPI, SyncReverbAPI])
def test_the_constructors(class_: type) -> None:
    signature = written(class_.__init__, class_.__name__)  # type: ignore[misc]
    assert f"`{signature}`" in read_section(class_.__name__.removeprefix("Sync"))


def test_the_table_of_events() -> None:
    (table,) = read_tables("Events")
    assert {(name.strip("`"), event.strip("`")) for name, event, _ in table} == {
        (f"Events.{each.name}", each.value) for each in Events
    }


def test_the_table_of_states() -> None:
    (table,) = read_tables("ConnectionState")
    assert [row[0].strip("`") for row in table] == [state.value for state in ConnectionState]


def test_the_table_of_exceptions() -> None:
    (table,) = read_tables("Errors")
    exceptions = {name for name in reverb.__all__ if name.endswith("Error")}
    assert {row[0].strip("`") for row in table} == exceptions
    for name, meaning in table:
        exception = getattr(reverb, name.strip("`"))
        assert issubclass(exception, ReverbError)
        for builtin in re.findall(r"Also (?:a|Python's own) `(\w+)`", meaning):
            assert issubclass(exception, getattr(builtins, builtin))
        assert ("Also" in meaning) == (len(exception.__bases__) > 1)


def test_everything_public_is_mentioned() -> None:
    for name in set(reverb.__all__) - {"Authorizer", "__version__"}:
        assert f"`{name}" in README or f"### {name}\n" in README or f" {name}(" in README, name


def test_facts_about_the_project() -> None:
    assert 'requires-python = ">=3.10"' in PYPROJECT
    assert "Python 3.10 or later" in README
    assert 'license = "GPL-3.0-or-later"' in PYPROJECT
    assert "GPL-3.0-or-later" in read_section("License")
