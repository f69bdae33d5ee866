"""The pages of the documentation, as their tests see them: blocks of code, sections and tables.

A block is known by the heading above it, and its number if there are several: "Install", "Install 2".
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.servers import Target

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GITHUB = "https://github.com/terje/python-reverb/blob/main/"

_FENCED = re.compile(r"^(?P<indent> *)```.*?^(?P=indent)```$", re.M | re.S)
_BLOCK = re.compile(
    r"^#+ (?P<heading>[^\n]*)$|^(?P<indent> *)```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)


class Block(NamedTuple):
    language: str
    text: str
    path: Path
    line: int
    """Where it begins on its page, counted from 1."""
    options: dict[str, str]
    """What follows the language: ``title="board.py" hl_lines="3 5"``."""


class Page:
    """A page: ``Page("docs/start.md")``."""

    def __init__(self, path: str) -> None:
        self.path = ROOT / path
        self.text = self.path.read_text(encoding="utf-8")
        self.blocks = self._read_blocks()
        self._tested: set[str] = set()

    def _read_blocks(self) -> dict[str, Block]:
        blocks: dict[str, Block] = {}
        heading, number = "", 0
        for match in _BLOCK.finditer(self.text):
            if match["heading"] is not None:
                heading, number = match["heading"], 0
                continue
            number += 1
            name = heading if number == 1 else f"{heading} {number}"
            line = self.text.count("\n", 0, match.start("text")) + 1
            options = dict(re.findall(r'(\w+)="([^"]*)"', match["info"]))
            blocks[name] = Block(match["language"], textwrap.dedent(match["text"]), self.path, line, options)
        return blocks

    def block_of(self, *names: str) -> pytest.MarkDecorator:
        """Give a test the block of this name, as ``block``; of several names, one after another."""
        self._tested.update(names)
        return pytest.mark.parametrize("block", [pytest.param(self.blocks[name], id=name) for name in names])

    def every_block(self) -> dict[str, Block]:
        """Return all blocks by name, for a test that does what the page says from its beginning to its end."""
        self._tested.update(self.blocks)
        return self.blocks

    def block(self, name: str) -> Block:
        """Return the block of this name, for a test that uses several."""
        self._tested.add(name)
        return self.blocks[name]

    def check_that_all_is_tested(self) -> None:
        """Fail for blocks without a test. Each page's tests call this in one of their own."""
        assert self._tested == self.blocks.keys()

    def section(self, heading: str) -> str:
        """Return what stands below a heading, up to the next one, without blocks of code."""
        match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", _FENCED.sub("", self.text), re.M | re.S)
        assert match, f"{self.path} has no heading {heading!r}"
        return match[1]

    def tables(self, heading: str) -> list[list[list[str]]]:
        """Return the tables below a heading: rows of cells, without their heads."""
        tables = re.findall(r"(?:^\|.*\n)+", self.section(heading), re.M)
        rows = [[re.split(r"(?<!\\)\|", line.strip("|")) for line in table.splitlines()[2:]] for table in tables]
        return [[[cell.strip().replace("\\|", "|") for cell in row] for row in table] for table in rows]


class Fragment:
    """A piece of a program: uses names that stand for what came before, and may use ``await`` anywhere."""

    def __init__(self, block: Block, **names: Any) -> None:
        self.printed: list[str] = []
        self.names: dict[str, Any] = {
            "print": lambda *texts: self.printed.append(" ".join(map(str, texts))),
            **names,
        }
        assert block.language == "python"
        source = "\n" * (block.line - 1) + block.text  # so that tracebacks show the lines of the page
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._code = compile(source, block.path, "exec", flags=flags, dont_inherit=True)

    async def run(self) -> None:
        result = eval(self._code, self.names)
        if inspect.iscoroutine(result):
            await result


def written(function: Callable[..., Any], name: str) -> str:
    """Write a signature as the pages do: without ``self`` and without types."""
    signature = inspect.signature(function)
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()][1:]
    bare = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return f"{'await ' if inspect.iscoroutinefunction(function) else ''}{name}{bare}"


def variables(target: Target) -> dict[str, str]:
    """The settings of a server as environment variables, with delays that tests can wait for."""
    delays = {"REVERB_RECONNECT_DELAY_MIN": "0.01", "REVERB_RECONNECT_DELAY_MAX": "0.1"}
    return {**{f"REVERB_{name.upper()}": str(value) for name, value in target.settings.items()}, **delays}
