"""docs/guides/troubleshooting.md: its steps, settings and examples are those of the command."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex

from typer.testing import CliRunner

from reverb import ReverbConfig, _failures, _settings
from reverb._settings import variables_of
from reverb.cli.app import app
from reverb.cli.serve import ServerSettings
from reverb.server import App, ReverbServer
from tests.cli.test_doctor import ALL
from tests.docs.pages import ROOT, Block, Page

PAGE = Page("docs/guides/troubleshooting.md")
TEXT, block_of = PAGE.text, PAGE.block_of


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def test_the_table_of_steps() -> None:
    (table,) = PAGE.tables("The steps of reverb doctor")
    assert [row[0] for row in table] == ["settings", *ALL]


@block_of("Run reverb doctor")
def test_the_command(block: Block) -> None:
    assert re.findall(r"^(?:pip install|reverb (\w+))", block.text, re.M) == ["", "doctor"]
    assert "cli = [" in ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8")


@block_of("Run reverb doctor 2")
def test_the_output(block: Block) -> None:
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


def test_the_messages_are_ours() -> None:
    """What the table quotes is in the messages of the client, but for names and numbers."""
    source = "\n".join(
        node.value
        for module in (_failures, _settings)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    (table,) = PAGE.tables("No connection")
    quoted = [
        each for row in table for each in re.findall(r"`([^`]+)`", row[0]) if not re.match("HTTP|[0-9]", each)
    ]
    assert len(quoted) > 10
    for part in (part.strip() for each in quoted for part in re.split("…|within|REVERB_", each)):
        assert part in source, part


def test_the_settings_are_there() -> None:
    known = variables_of(ReverbConfig).keys() | variables_of(ServerSettings).keys()
    known |= {"REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "REVERB_ALLOWED_ORIGINS", "REVERB_"}  # Laravel's
    assert set(re.findall(r"REVERB_[A-Z_]+", TEXT)) <= known


@block_of("Output for programs")
def test_the_line_of_json(block: Block) -> None:
    written = json.loads(block.text)
    with ReverbServer() as server:
        result = CliRunner().invoke(app, ["doctor", "--json", "--key", "nope"], env=server.env)
    lines = {line["step"]: line for line in map(json.loads, result.output.splitlines())}
    seen = lines[written["step"]]
    assert seen.keys() == written.keys()
    assert (seen["ok"], seen["detail"]) == (written["ok"], written["detail"])
    start = written["causes"][0].removesuffix("…")
    assert any(cause.startswith(start) for cause in seen["causes"])
    assert "settings" in lines["settings"]


@block_of("An nginx that passes everything on")
def test_the_doctor_asks_for_what_the_nginx_configuration_has(block: Block) -> None:
    directives = [line.strip() for line in block.text.splitlines()]
    for directive in re.findall(r"proxy_(?:http_version|set_header) [^;]+;", _failures.UPGRADE_HEADERS):
        assert directive in directives
