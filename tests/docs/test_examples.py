"""docs/guides/examples.md: all examples are on it, with their code and the commands that start them.

That the programs run is tested in tests/test_examples.py and tests/test_examples_synchronous.py.
"""

from __future__ import annotations

import ast
import re
import textwrap

from tests.docs.pages import GITHUB, ROOT, Block, Page

PAGE = Page("docs/guides/examples.md")
PROGRAMS = sorted(path.name for path in ROOT.glob("examples/*.py"))
READERS = sorted(path.name for path in ROOT.glob("examples/relay/*.*"))


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def test_the_table_names_every_program() -> None:
    ((*rows, readers),) = PAGE.tables("Examples")
    links = dict(re.findall(r"\[(.*?)\]\((.*?)\)", "\n".join(row[0] for row in rows)))
    assert links == {name: f"#{name.replace('.', '')}" for name in PROGRAMS}
    assert readers[0] == "[Readers of a relay](#readers-of-a-relay)"


def test_the_table_names_every_reader() -> None:
    (rows,) = PAGE.tables("Readers of a relay")
    links = dict(re.findall(r"\[(.*?)\]\((.*?)\)", "\n".join(row[0] for row in rows)))
    assert links == {name: f"{GITHUB}examples/relay/{name}" for name in READERS}


@PAGE.block_of(*PROGRAMS)
def test_the_commands_are_those_of_the_program(block: Block) -> None:
    (name,) = (name for name in PROGRAMS if PAGE.blocks[name] == block)
    docstring = ast.get_docstring(ast.parse((ROOT / "examples" / name).read_text(encoding="utf-8")))
    assert docstring
    commands = [textwrap.dedent(each) for each in re.findall(r"(?:^    .*\n)+", docstring, re.M)]
    assert block.text == "\n".join(commands)


@PAGE.block_of(*(f"{name} 2" for name in PROGRAMS))
def test_the_code_is_included(block: Block) -> None:
    (name,) = (name for name in PROGRAMS if PAGE.blocks[f"{name} 2"] == block)
    assert block.text == f'--8<-- "examples/{name}"\n'
