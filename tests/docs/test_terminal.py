"""docs/guides/terminal.md: the commands print what it shows."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import AsyncExitStack
from pathlib import Path

from reverb import ReverbClient
from reverb.cli.app import COMMANDS, load
from tests.cli.processes import reverb as run_module
from tests.docs.commands import check_commands
from tests.docs.pages import Block, Page, variables
from tests.integration.servers import Target
from tests.test_dispatch import Recorder

PAGE = Page("docs/guides/terminal.md")
block_of = PAGE.block_of


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@block_of("Use the command line")
def test_the_extra(block: Block) -> None:
    check_commands(block)


def normalise(output: str) -> list[str]:
    """Replace what is different each time. (Columns widen as wider names come.)"""
    output = re.sub(r"^\d\d:\d\d:\d\d", "TIME", output, flags=re.M)
    output = re.sub(r"(127\.0\.0\.1|localhost):\d+", "localhost:8080", output)
    return [re.sub(" +", " ", line) for line in output.splitlines() if line]


@block_of("Print events")
async def test_printing_events(block: Block, target: Target, tmp_path: Path) -> None:
    command_line, _, output = block.text.partition("\n")
    arguments = shlex.split(command_line.removeprefix("$ reverb "))
    async with run_module(*arguments, env=variables(target), cwd=tmp_path) as command:
        for channel in arguments[1:]:
            await command.err.expect(f"subscribed to {channel}$")
        data = {"id": 12, "title": "Reverb, from Python"}
        await target.publish("news", "App\\Events\\ArticlePublished", data)
        await target.publish("private-orders.7", "App\\Events\\OrderShipped", {"id": 7})
        await command.out.expect(r'\{"id": 7\}$')
    assert sorted(normalise(command.err.text + command.out.text)) == sorted(normalise(output))


@block_of("Publish and trigger events")
async def test_publishing(block: Block, client: ReverbClient, tmp_path: Path) -> None:
    heard, seen = Recorder(), Recorder()
    (await client.subscribe("news")).bind("article.published", heard)
    (await client.subscribe("private-orders.7")).bind("client-seen", seen)
    line = '{"channel": "news", "event": "article.published", "data": {"id": 12}}\n'
    (tmp_path / "events.jsonl").write_text(line * 250)
    for command_line, output in re.findall(r"^\$ reverb (.*)\n(.*)$", block.text, re.M):
        async with run_module(*shlex.split(command_line), env=dict(os.environ), cwd=tmp_path) as command:
            assert await command.exit_code() == 0
            assert (command.out.text, command.err.text) == (f"{output}\n", "")
    assert {data["id"] for _, data, _ in await heard.wait_for(251)} == {12}
    assert [data for _, data, _ in await seen.wait_for(1)] == [{"by": "ann"}]


@block_of("List channels and users")
async def test_listing(block: Block, target: Target, tmp_path: Path) -> None:
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


def test_the_commands_and_options() -> None:
    commands = {name: load(name) for name in COMMANDS}
    assert set(re.findall(r"`(?:\$ )?reverb (\w+)", PAGE.text)) == commands.keys()
    options = {option for command in commands.values() for each in command.params for option in each.opts}
    assert set(re.findall(r"`(--[\w-]+)`", PAGE.text)) <= options
