"""docs/index.md: its command works. docs/guides/index.md: it is complete."""

from __future__ import annotations

import re

from tests.docs.commands import check_commands
from tests.docs.pages import DOCS, Block, Page

PAGE = Page("docs/index.md")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("python-reverb")
def test_installing(block: Block) -> None:
    check_commands(block)


def test_the_index_of_the_guides_names_every_guide() -> None:
    links = set(re.findall(r"\]\(([\w-]+\.md)\)", Page("docs/guides/index.md").text))
    assert links == {path.name for path in DOCS.glob("guides/*.md")} - {"index.md"}
