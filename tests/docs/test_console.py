"""docs/guides/console.md: its commands and its options are those of ``reverb console``."""

from __future__ import annotations

import re
import shlex

from typer.testing import CliRunner

from reverb.cli.app import app, load
from tests.docs.pages import ROOT, Block, Page

PAGE = Page("docs/guides/console.md")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def test_the_table_of_options() -> None:
    known = {option for parameter in load("console").params for option in parameter.opts}
    (table,) = PAGE.tables("Options")
    named = {option for row in table for option in re.findall(r"--[a-z-]+", row[0])}
    common = {"--app-id", "--key", "--scheme", "--path"}  # of all commands
    assert named == known - common


@PAGE.block_of("The console", "The console 2")
def test_the_commands(block: Block) -> None:
    for words in map(shlex.split, block.text.splitlines()):
        match words:
            case ["pip", "install", "python-reverb[cli]"]:
                assert "cli = [" in ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8")
            case ["cd", _]:
                pass
            case ["reverb", *arguments]:
                assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
                assert {each for each in arguments if each.startswith("-")} <= {"--demo"}
            case _:
                raise AssertionError(f"nothing checks {words}")
