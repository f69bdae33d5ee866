"""docs/reference/command-line.md: its commands run. tests/cli/test_main.py compares its tables with --help."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer

from reverb.cli.app import COMMANDS, load
from tests.docs.pages import Block, Page

PAGE = Page("docs/reference/command-line.md")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("`reverb listen [CHANNEL…]`", "`reverb listen --exec`", "`reverb listen --all`")
def test_the_options(block: Block) -> None:
    arguments = shlex.split(block.text.partition(" | jq .data")[0])
    assert arguments[:2] == ["reverb", "listen"]
    command = load("listen")
    command.make_parser(typer.Context(command)).parse_args(arguments[2:])


@PAGE.block_of("Completion")
def test_the_script_for_the_shell(block: Block) -> None:
    match = re.fullmatch(r"(\w+)=(\w+) reverb\n", block.text)
    assert match
    # As the script is made for the name of the program, which "python -m" does not have.
    program = "import sys; sys.argv = ['reverb']; from reverb.cli import main; main()"
    env = {**os.environ, match[1]: match[2]}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=30)
    assert "complete -o default -F" in done.stdout


def test_every_command_is_in_the_overview() -> None:
    ((*rows,),) = PAGE.tables("The command line")
    linked = re.findall(r"`(?:reverb )?(\w+)`\]", " ".join(row[1] for row in rows))
    assert sorted(linked) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_for_the_http_api(name: str) -> None:
    section = PAGE.section("Settings")
    has_option = any("--app-id" in parameter.opts for parameter in load(name).params)
    assert has_option == bool(re.search(rf"`{name}(?: --all)?`", section.partition("`--app-id` is")[2]))


@pytest.mark.parametrize("name", COMMANDS)
def test_options_have_the_words_of_their_help(name: str) -> None:
    heading = re.search(rf"^## (`reverb {name}\b.*`)$", PAGE.text, re.M)
    assert heading
    parameters = {option: each for each in load(name).params for option in each.opts}
    for rows in PAGE.tables(heading[1]):
        for option, text, *_ in rows:
            if option.startswith("`--"):
                parameter = parameters[option.strip("`").partition(" ")[0]]
                assert text.replace("`", "") == described(parameter)


def described(parameter: Any) -> str:
    """The help of an option as text, with its default."""
    text = re.sub(r"\\([*\\])", r"\1", parameter.help).removesuffix(".")
    default = parameter.default
    if "Default:" in text or default in (None, False):
        return text
    return f"{text}. Default: {default:g}" if isinstance(default, float) else f"{text}. Default: {default}"
