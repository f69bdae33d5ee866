"""docs/guides/laravel.md: its code runs, its tables are whole and true."""

from __future__ import annotations

import inspect
import re
import signal
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from reverb import AuthenticationError, Echo, ReverbAPI
from reverb.echo import EchoChannel, EchoPresenceChannel, EchoPrivateChannel, _format
from reverb.server import ReverbServer
from tests.cli.processes import reverb as run_module
from tests.docs.pages import Fragment, Page, written
from tests.watching import until

PAGE = Page("docs/guides/laravel.md")
TEXT = PAGE.text
PROGRAM, REFUSED, USERS, TO_OTHERS = (each for each in PAGE.blocks.values() if each.language == "python")
ECHO, CHANNEL, EVENTS = (
    [re.findall(r"`([^`]+)`", row.split("|")[-2]) for row in table.splitlines()[2:]]
    for table in re.findall(r"(?:^\|.*\n)+", TEXT, re.M)
)


def public(*classes: type) -> set[str]:
    """What classes have, as the tables write it."""
    found: dict[str, Any] = {name: member for class_ in classes for name, member in vars(class_).items()}
    return {
        written(member, name) if inspect.isfunction(member) else name
        for name, member in found.items()
        if not name.startswith("_")
    }


def test_the_tables_name_everything() -> None:
    first = {row[0] for row in ECHO} | {"await disconnect()"}
    assert first - {"namespace=None", written(Echo.__init__, "Echo")} == public(Echo)
    assert {row[0] for row in CHANNEL} == public(EchoChannel, EchoPrivateChannel, EchoPresenceChannel)


def test_the_names_of_events() -> None:
    rows = re.findall(r"^\| `([.\\\w]+)` \| `([.\\\w]+)`", TEXT[TEXT.index("## The names of events") :], re.M)
    assert len(rows) == len(EVENTS) == 5
    for event, name in rows:
        assert _format(event, "App.Events") == name


async def test_the_program(reverb_server: ReverbServer, tmp_path: Path) -> None:
    tmp_path.joinpath("program.py").write_text(PROGRAM.text)
    env = {**reverb_server.env, "PYTHONUNBUFFERED": "1"}
    async with run_module(module="program", env=env, cwd=tmp_path) as command:
        await reverb_server.wait_for_subscription("private-orders.7", 15)
        await reverb_server.publish("private-orders.7", "App\\Events\\OrderShipped", {"id": 7})
        await command.out.expect("^order 7 is on its way$")
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0
        assert command.err.text == ""


async def test_a_refusal(reverb_server: ReverbServer) -> None:
    reverb_server.blocking.deny("private-orders.7")
    async with Echo() as echo:
        fragment = Fragment(REFUSED, echo=echo, AuthenticationError=AuthenticationError)
        await fragment.run()
    assert sorted(re.sub(":.*", "", each) for each in fragment.printed) == ["doing without", "no orders"]


async def test_users(reverb_server: ReverbServer) -> None:
    async with Echo() as echo:
        fragment = Fragment(USERS, echo=echo)
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


async def test_to_others(reverb_server: ReverbServer) -> None:
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
            text = TO_OTHERS.text.replace("https://example.com/", url)
            assert text != TO_OTHERS.text
            await Fragment(TO_OTHERS._replace(text=text), echo=echo, session=session).run()
            await reverb_server.publish("orders", "shipped")
            await until(lambda: len(heard) == 3)
            assert sorted(heard) == ["echo", "other", "other"]
    finally:
        await runner.cleanup()
