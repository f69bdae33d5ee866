"""What the tests of the pages in docs/moving have in common: programs that ship an order, and tables of calls."""

from __future__ import annotations

import ast
import inspect
import re
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from reverb import ChannelAuth, EndpointAuthorizer, Events, ReverbClient
from reverb.server import ReverbServer
from tests.cli.processes import Command
from tests.cli.processes import reverb as run_module
from tests.docs.pages import Block, Page
from tests.integration.servers import Target


@asynccontextmanager
async def program(block: Block, port: int, cwd: Path) -> AsyncIterator[Command]:
    """Run a program of a page, which names the server as ``localhost`` and port 8080."""
    cwd.joinpath("program.py").write_text(block.text.replace("8080", str(port)), encoding="utf-8")
    # Warnings may be those of the other libraries, and of their dependencies.
    env = {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "default"}
    async with run_module(module="program", env=env, cwd=cwd) as command:
        yield command


async def check_that_it_ships(block: Block, server: ReverbServer, cwd: Path) -> None:
    """Check that a program prints what is published on ``private-orders``."""
    async with program(block, server.port, cwd) as command:
        await server.wait_for_subscription("private-orders", 15)
        target = Target("embedded", server.host, server.port)
        await target.publish("private-orders", "App\\Events\\OrderShipped", {"id": 7})
        await command.out.expect("^order 7 is on its way$")
        command.send_signal(signal.SIGTERM)
        await command.exit_code()


def check_calls(page: Page, column: int, names: Mapping[str, Any]) -> None:
    """Check the calls in a column of the table "Calls": what they name exists, and takes these arguments.

    ``names`` are the objects that the calls begin with, or the classes of such objects. Classes are called, and
    nothing else is.
    """
    (rows,) = page.tables("Calls")
    for row in rows:
        for code in re.findall(r"`([^`]+)`", row[column]):
            try:
                _check(ast.parse(code), names)
            except (AttributeError, TypeError, KeyError) as error:
                raise AssertionError(f"{code}: {error!r}") from error


async def names_of_ours(client: ReverbClient) -> dict[str, Any]:
    """Return what the calls of this package begin with, on the pages about clients in Python."""

    async def authorize(socket_id: str, channel_name: str) -> ChannelAuth:
        raise NotImplementedError

    return {
        "client": client,
        "channel": await client.subscribe("private-orders"),
        "authorize": authorize,
        "handler": print,
        "partial": partial,
        **{each.__name__: each for each in (ReverbClient, EndpointAuthorizer, Events)},
    }


def _check(tree: ast.AST, names: Mapping[str, Any]) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            _find(node, names)
        elif isinstance(node, ast.Call):
            function = _find(node.func, names)
            if inspect.isclass(function):
                eval(compile(ast.Expression(node), "<table>", "eval"), dict(names))
            elif not inspect.isbuiltin(function):  # such as dict.values, which tells no signature
                keywords = {each.arg: None for each in node.keywords if each.arg is not None}
                positional = [None] * (len(node.args) + _lacks_self(node.func, names))
                inspect.signature(function).bind(*positional, **keywords)


def _find(node: ast.expr, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Attribute):
        return getattr(_find(node.value, names), node.attr)
    assert isinstance(node, ast.Name)
    return names[node.id]


def _lacks_self(node: ast.expr, names: Mapping[str, Any]) -> bool:
    return isinstance(node, ast.Attribute) and inspect.isclass(_find(node.value, names))
