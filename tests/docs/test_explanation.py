"""docs/explanation/: settings that its pages name have these defaults; events and tests that they name exist."""

from __future__ import annotations

import dataclasses
import re

import pytest

from reverb import Events, ReverbConfig
from tests.docs.pages import DOCS, ROOT, Page

PAGES = {path.stem: Page(f"docs/explanation/{path.name}") for path in DOCS.glob("explanation/*.md")}
FIELDS = {f"REVERB_{field.name.upper()}": field for field in dataclasses.fields(ReverbConfig)}
OF_OTHERS = {"REVERB_SCALING_ENABLED", "REVERB_EVENT", "REVERB_EXAMPLES", "REVERB_FAULT_SEED"}
"""Variables of the server, of commands, and of our tests."""
CONFIG = ReverbConfig(app_key="key", host="localhost")

each_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


@pytest.mark.parametrize("name", ["index", "reliability", "many-clients"])
def test_pages_without_code(name: str) -> None:
    PAGES[name].check_that_all_is_tested()


@each_page
def test_settings(page: Page) -> None:
    assert set(re.findall(r"\bREVERB_[A-Z_]+[A-Z]", page.text)) <= FIELDS.keys() | OF_OTHERS
    for name, number, unit in re.findall(r"`(REVERB_\w+)`\s\((\d+) ?(MiB)?(?: seconds?)?[,)]", page.text):
        default = getattr(CONFIG, FIELDS[name].name)
        assert default == int(number) * (2**20 if unit else 1), name


@each_page
def test_events(page: Page) -> None:
    for name in re.findall(r"`Events\.(\w+)`", page.text):
        assert name in Events.__members__


@each_page
def test_tests_that_are_named(page: Page) -> None:
    text = ""
    for name in re.findall(r"\b(tests/[\w/]+(?:\.py|/(?=`))|test_\w+(?=`))", page.text):
        if name.startswith("tests/"):
            path = ROOT / name
            assert path.exists(), name
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
        else:
            assert f"def {name}(" in text, name
