"""docs/guides/lose-nothing.md: the program that it names does what the page says."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT, Page

PAGE = Page("docs/guides/lose-nothing.md")
PROGRAM = ROOT.joinpath("examples/data_sync.py").read_text(encoding="utf-8")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def test_the_program_fetches_when_the_page_says() -> None:
    """tests/test_examples.py shows that it does: after gaps, after errors, and when a number is missing."""
    section = PAGE.section("Copy, and read again")
    named = re.findall(r"`(?:Events\.(\w+)|\"(\w+)\")`", section)
    assert named == [("RESUBSCRIBED", ""), ("", "error")]
    assert "bind(Events.RESUBSCRIBED, on_gap)" in PROGRAM
    assert 'bind("error", on_gap)' in PROGRAM
    assert "once an hour" in section
    assert '"SYNC_INTERVAL", "3600"' in PROGRAM
