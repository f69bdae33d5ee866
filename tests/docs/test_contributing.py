"""CONTRIBUTING.md: its commands work, and what it names exists."""

from __future__ import annotations

import re

from tests.docs.commands import check_commands
from tests.docs.pages import ROOT, Block, Page

PAGE = Page("CONTRIBUTING.md")
PACKAGE = ROOT / "src" / "reverb"


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("Set up", "Test against a real Reverb")
def test_commands(block: Block) -> None:
    check_commands(block)


def test_the_table_of_commands_has_every_target() -> None:
    ((*rows,),) = PAGE.tables("Set up")
    (phony,) = re.findall(r"^\.PHONY: (.* .*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    targets = [match[1] for row in rows if (match := re.fullmatch(r"`make ([\w-]+)`", row[0]))]
    assert sorted(targets) == sorted(phony.split())


def test_the_map_has_every_module() -> None:
    ((*rows,),) = PAGE.tables("Where things are")
    named = [name for row in rows for name in re.findall(r"`([\w/.]+)`", row[1])]
    files = {path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    packages = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(named) == sorted(files | packages)


def test_the_modules_that_the_text_names() -> None:
    text = PAGE.text.partition("\n## Where things are\n")[2].partition("\n## Tests\n")[0]
    existing = {path.name for path in PACKAGE.glob("**/*") if path.is_file()} | {"test_doctor.py"}
    assert set(re.findall(r"`(?:[\w]+/)*(\w+\.(?:py|js))`", text)) <= existing


def test_the_table_of_tests_names_files() -> None:
    ((*rows,),) = PAGE.tables("Tests")
    for row in rows:
        path = ROOT / "tests" / row[0].strip("`")
        assert path.exists(), path


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE.text):
        assert (ROOT / link).is_file(), link
