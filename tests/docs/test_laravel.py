"""docs/guides/laravel.md: its code runs, its tables are whole and true."""

from __future__ import annotations

import inspect
import re
import signal
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from reverb import AuthenticationError, Echo, ReverbAPI, ReverbClient, ReverbConfig
from reverb.echo import EchoChannel, EchoPresenceChannel, EchoPrivateChannel, _format
from reverb.server import ReverbServer
from tests.cli.processes import reverb as run_module
from tests.docs.pages import Block, Fragment, Page, written
from tests.integration.servers import Target
from tests.test_dispatch import Recorder
from tests.watching import until

PAGE = Page("docs/guides/laravel.md")
block_of = PAGE.block_of
BOB = {"user_id": "8", "user_info": {"name": "Bob"}}


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def names(heading: str) -> list[list[str]]:
    """What the last column of a table names, row by row."""
    (table,) = PAGE.tables(heading)
    return [re.findall(r"`([^`]+)`", row[-1]) for row in table]


def public(*classes: type) -> set[str]:
    """What classes have, as the tables write it."""
    found: dict[str, Any] = {name: member for class_ in classes for name, member in vars(class_).items()}
    return {
        written(member, name) if inspect.isfunction(member) else name
        for name, member in found.items()
        if not name.startswith("_")
    }


def test_the_tables_name_everything() -> None:
    first = {row[0] for row in names("The methods of Echo")} | {"await disconnect()"}
    assert first - {"namespace=None", written(Echo.__init__, "Echo")} == public(Echo)
    channel = {row[0] for row in names("The methods of a channel")}
    assert channel == public(EchoChannel, EchoPrivateChannel, EchoPresenceChannel)


def test_the_names_of_events() -> None:
    (table,) = PAGE.tables("Event names in Echo")
    assert len(table) == 5
    for event, name in table:
        assert _format(event.strip("`"), "App.Events") == re.findall(r"`([^`]+)`", name)[0]


@block_of("Settings from Laravel's .env")
def test_the_env_file(block: Block, tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_text(block.text)
    config = ReverbConfig.from_env(dotenv=tmp_path / ".env")
    assert (config.app_id, config.scheme, config.address) == ("my-app-id", "ws", "localhost:8080")
    assert config.app_secret is not None


@block_of("Event names")
async def test_event_names(block: Block, reverb_server: ReverbServer, reverb_client: ReverbClient) -> None:
    heard = {f"on_{name}": Recorder() for name in ("shipped", "paid", "updated", "notification")}
    fragment = Fragment(block, client=reverb_client, **heard)
    await fragment.run()
    published = re.findall(r'^(\w+)\.bind\("(.*?)", (\w+)\)', block.text.replace("\\\\", "\\"), re.M)
    for channel, event, handler in published:
        name = fragment.names[channel].name
        await reverb_server.publish(name, event, {"id": 7})
        assert await heard[handler].wait_for(1) == [(event, {"id": 7}, name)]
    assert {handler for *_, handler in published} == heard.keys()


@block_of("Echo")
async def test_the_program(block: Block, reverb_server: ReverbServer, tmp_path: Path) -> None:
    tmp_path.joinpath("program.py").write_text(block.text)
    env = {**reverb_server.env, "PYTHONUNBUFFERED": "1"}
    async with run_module(module="program", env=env, cwd=tmp_path) as command:
        await reverb_server.wait_for_subscription("private-orders.7", 15)
        await reverb_server.publish("private-orders.7", "App\\Events\\OrderShipped", {"id": 7})
        await command.out.expect("^order 7 is on its way$")
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0
        assert command.err.text == ""


@block_of("Echo 2")
async def test_echo(block: Block, client: ReverbClient, target: Target) -> None:
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


@block_of("Differences from Laravel Echo")
async def test_a_refusal(block: Block, reverb_server: ReverbServer) -> None:
    reverb_server.blocking.deny("private-orders.7")
    async with Echo() as echo:
        fragment = Fragment(block, echo=echo, AuthenticationError=AuthenticationError)
        await fragment.run()
    assert sorted(re.sub(":.*", "", each) for each in fragment.printed) == ["doing without", "no orders"]


@block_of("Differences from Laravel Echo 2")
async def test_users(block: Block, reverb_server: ReverbServer) -> None:
    async with Echo() as echo:
        fragment = Fragment(block, echo=echo)
        await fragment.run()
        first, second = fragment.names["first"], fragment.names["second"]
        await second.orders
        await reverb_server.publish("private-orders.7", "App\\Events\\OrderShipped", {})
        await until(lambda: first.count == second.count == 1)
        await first.close()
        await reverb_server.publish("private-orders.7", "App\\Events\\OrderShipped", {})
        await until(lambda: second.count == 2)
        await second.close()
        assert first.count == 1
        assert echo.client.channels == {}


@block_of("toOthers()")
async def test_to_others(block: Block, reverb_server: ReverbServer) -> None:
    async def ship(request: web.Request) -> web.Response:
        async with ReverbAPI() as api:
            await api.trigger("orders", "shipped", {}, socket_id=request.headers["X-Socket-ID"])
        return web.Response()

    application = web.Application()
    application.router.add_post("/orders/7/ship", ship)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    heard: list[Any] = []
    try:
        async with Echo() as echo, Echo() as other, ClientSession() as session:
            await echo.channel("orders").listen(".shipped", lambda data: heard.append("echo"))
            await other.channel("orders").listen(".shipped", lambda data: heard.append("other"))
            text = block.text.replace("https://example.com/", url)
            assert text != block.text
            await Fragment(block._replace(text=text), client=echo.client, session=session).run()
            await reverb_server.publish("orders", "shipped")
            await until(lambda: len(heard) == 3)
            assert sorted(heard) == ["echo", "other", "other"]
    finally:
        await runner.cleanup()
