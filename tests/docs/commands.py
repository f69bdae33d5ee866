"""Commands on the pages: a page can't run all of them, but what they name must exist."""

from __future__ import annotations

import re
import shlex

import pytest
from typer import Context

from reverb.cli.app import load
from tests.docs.pages import ROOT, Block

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def extras() -> set[str]:
    """Return the names of the package's extras."""
    (section,) = re.findall(r"^\[project\.optional-dependencies\]\n(.*?)^\[", PYPROJECT, re.M | re.S)
    return set(re.findall(r"^([\w-]+) = ", section, re.M))


def check_commands(block: Block) -> None:
    """Check that what the commands of a block name exists; fail for commands that this function does not know."""
    assert block.language == "bash"
    for line in block.text.splitlines():
        _check_command(line)


def _check_command(line: str) -> None:
    words = shlex.split(line, comments=True)
    match [word for word in words if not re.match(r"[A-Z_]+=", word)]:  # without variables
        case ["git", "clone", url]:
            assert f'Homepage = "{url.removesuffix(".git")}"' in PYPROJECT
        case ["cd", directory]:
            assert directory == "python-reverb"
        case ["make", target]:
            (phony,) = re.findall(r"^\.PHONY: (.* .*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
            assert target in phony.split()
        case ["pip", "install", what] | ["pip", "install", "-e", what]:
            match = re.fullmatch(r"(\.|python-reverb)(?:\[([\w,-]+)\])?", what)
            assert match
            assert set((match[2] or "all").split(",")) <= extras()
        case ["python", "-m", "venv", path]:
            assert path == ".venv"
        case ["source", path]:
            assert path == ".venv/bin/activate"
        case ["reverb", name, *arguments]:
            command = load(name)
            command.make_parser(Context(command)).parse_args(arguments)  # which options it has
        case ["ruff", "check", *directories]:
            assert all((ROOT / directory).is_dir() for directory in directories)
        case ["pytest"] | ["mypy"] | []:
            pass
        case _:
            pytest.fail(f"nothing checks the command {line!r}")
