"""docs/start.md: each step works as it is written, one after another."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

import pytest

from reverb import ReverbConfig
from reverb.server import ReverbServer
from tests.cli.processes import reverb as run_module
from tests.docs.commands import check_commands
from tests.docs.pages import Block, Page, variables
from tests.integration.servers import Target
from tests.watching import until

PAGE = Page("docs/start.md")
block_of = PAGE.block_of
SETTINGS = PAGE.block("2. Write the settings").text
SERVE = PAGE.block("3. Start a server").text
PROGRAM = PAGE.block("4. Listen").text
RUN = PAGE.block("4. Listen 2").text
CONNECTED = PAGE.block("4. Listen 3").text
PUBLISH = PAGE.block("5. Publish an event").text
PRINTED = PAGE.block("5. Publish an event 2").text


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@block_of("1. Install")
def test_installing(block: Block) -> None:
    check_commands(block)


def normalise(output: str, port: int) -> list[str]:
    """Replace what is different each time."""
    output = re.sub(r"^[\d:]{8}", "TIME", output, flags=re.M)
    return re.sub(r"\d+\.\d{4,}", "ID", output).replace(f":{port}/", ":8080/").splitlines()


def parts_of(console: str) -> tuple[list[str], str]:
    """Return the arguments of the command ``reverb`` that a block shows, and its output."""
    command_line, _, output = console.partition("\n")
    return shlex.split(command_line.removeprefix("$ reverb ")), output


async def test_the_steps(tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_text(SETTINGS, encoding="utf-8")
    tmp_path.joinpath("listen.py").write_text(PROGRAM, encoding="utf-8")
    assert RUN.splitlines()[-1] == "python listen.py"
    arguments, output = parts_of(SERVE)
    env = {"REVERB_SERVER_PORT": "0"}  # 8080 may be in use
    async with run_module(*arguments, env=env, cwd=tmp_path) as serve:
        port = int((await serve.err.expect(r"127\.0\.0\.1:(\d+)/.*$"))[1])
        assert normalise(serve.err.text, port) == normalise(output, port)
        tmp_path.joinpath(".env").write_text(SETTINGS.replace("=8080\n", f"={port}\n"), encoding="utf-8")
        async with run_module(module="listen", cwd=tmp_path, terminal=True) as listen:
            await serve.out.expect("subscribed to private-orders$")
            assert normalise(serve.out.text, port) == normalise(CONNECTED, port)
            arguments, output = parts_of(PUBLISH)
            async with run_module(*arguments, cwd=tmp_path) as publish:
                assert await publish.exit_code() == 0
                assert (publish.out.text, publish.err.text) == (output, "")
            await listen.out.expect("is on its way$")
            listen.press_ctrl_c()
            assert await listen.exit_code() == 0
            assert listen.out.text.replace("^C", "").rstrip() == PRINTED.rstrip()


def test_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(SETTINGS, encoding="utf-8")
    config = ReverbConfig.from_env()
    assert (config.app_id, config.app_key, config.scheme) == ("my-app-id", "my-app-key", "ws")
    assert config.address == "localhost:8080"
    assert config.app_secret is not None
    assert config.app_secret.get_secret_value() == "my-app-secret"


async def test_sigterm(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    tmp_path.joinpath("program.py").write_text(PROGRAM, encoding="utf-8")
    async with run_module(module="program", env=variables(target), cwd=tmp_path) as command:
        await server.wait_for_subscription("private-orders", 15)
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0
        assert (command.out.text, command.err.text) == ("", "")
    await until(lambda: not server.connections)


@block_of("In a program with its own event loop")
async def test_with_asyncio(block: Block, server: ReverbServer, target: Target, tmp_path: Path) -> None:
    handler = re.search(r"^async def on_shipped.*?\n\n", PROGRAM, re.M | re.S)
    assert handler
    tmp_path.joinpath("program.py").write_text(f"{handler[0]}\n{block.text}", encoding="utf-8")
    env = {**variables(target), "PYTHONUNBUFFERED": "1"}
    async with run_module(module="program", env=env, cwd=tmp_path) as command:
        await server.wait_for_subscription("private-orders", 15)
        await target.publish("private-orders", "App\\Events\\OrderShipped", {"id": 7})
        await command.out.expect("^private-orders: order 7 is on its way$")
        assert command.err.text == ""
        command.send_signal(signal.SIGINT)
        assert await command.exit_code() != 0
        assert "KeyboardInterrupt" in command.err.text  # as it says
