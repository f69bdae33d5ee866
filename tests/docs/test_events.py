"""docs/reference/events.md: its tables are the events of the code."""

from __future__ import annotations

import ast
import inspect
import re

from reverb import Events, ReverbClient
from reverb import events as module
from reverb.server import ReverbServer
from tests.docs.pages import Block, Fragment, Page
from tests.test_dispatch import Recorder

PAGE = Page("docs/reference/events.md")
TABLES = [
    row
    for heading in ("Events of the connection", "Events of a channel", "Events of a user")
    for table in PAGE.tables(heading)
    for row in table
]


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("Events")
async def test_binding_one(block: Block, client: ReverbClient) -> None:
    fragment = Fragment(block, client=client)
    await fragment.run()
    await client.disconnect()
    assert fragment.printed == ["connected -> disconnected"]


def test_the_names() -> None:
    assert sorted((name, event) for name, event, _ in TABLES) == sorted(
        (f"`Events.{each.name}`", f"`{each.value}`") for each in Events
    )


def test_the_data() -> None:
    """The fields are those that the docstrings of the members name."""
    (class_,) = [
        each
        for each in ast.parse(inspect.getsource(module)).body
        if isinstance(each, ast.ClassDef) and each.name == "Events"
    ]
    docstrings = {
        ast.unparse(member.targets[0]): ast.literal_eval(docstring.value)
        for member, docstring in zip(class_.body, class_.body[1:], strict=False)
        if isinstance(member, ast.Assign) and isinstance(docstring, ast.Expr)
    }
    shown = {name.strip("`").removeprefix("Events."): data for name, _, data in TABLES}
    for name, docstring in docstrings.items():
        fields = re.search(r"``\{(.*?)\}``", docstring)
        if fields is not None:
            named = re.findall(r"`(\w+)`", re.split(r"[.:]", shown[name])[0])
            assert named == re.findall(r'"(\w+)"', fields[1]), name


async def test_several_at_once(server: ReverbServer, client: ReverbClient) -> None:
    ((_, *rows),) = PAGE.tables("Several events at once")
    channel = await client.subscribe("orders")
    recorders = {pattern.strip('`"'): Recorder() for pattern, _ in rows}
    for pattern, recorder in recorders.items():
        channel.bind(pattern, recorder)
    await server.publish("orders", "order.shipped", {})
    await server.publish("orders", "error", {})
    await recorders["[e]rror"].wait_for(1)
    assert {pattern: recorder.events for pattern, recorder in recorders.items()} == {
        "order.*": ["order.shipped"],
        "error": ["error"],
        "[e]rror": ["error"],
    }
