"""README.md: its code runs, and its links lead to files and pages that exist, also from PyPI."""

from __future__ import annotations

import asyncio
import builtins
import re
from pathlib import Path

import pytest

from reverb import ReverbClient
from tests.docs.commands import PYPROJECT, check_commands, extras
from tests.docs.pages import DOCS, GITHUB, ROOT, Block, Fragment, Page
from tests.test_dispatch import Recorder

PAGE = Page("README.md")
block_of = PAGE.block_of
START = Page("docs/start.md")
ANN = {"user_id": "7", "user_info": {"name": "Ann"}}
SITE = "https://terje.github.io/python-reverb/"
RAW = "https://raw.githubusercontent.com/terje/python-reverb/main/"


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def test_it_is_short() -> None:
    assert len(PAGE.text.splitlines()) <= 250


# --- links -----------------------------------------------------------------------------------------------------


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the site makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", each).strip().lower()) for each in headings}


def check_link(link: str) -> None:
    address, _, anchor = link.partition("#")
    if address.startswith(SITE):
        name = address.removeprefix(SITE).strip("/")
        (page,) = (each for each in (DOCS / name / "index.md", DOCS / f"{name}.md") if each.is_file())
        assert address.endswith("/"), f"{link} is redirected"
        assert not anchor or anchor in anchors_of(page), link
    elif address.startswith((GITHUB, RAW)):
        assert (ROOT / address.removeprefix(GITHUB).removeprefix(RAW)).is_file(), link
        assert not anchor, link
    else:
        assert link == "https://reverb.laravel.com", f"nothing checks {link}"


def test_links_lead_somewhere() -> None:
    """PyPI shows the README without the repository: relative links and pictures are broken there."""
    links = re.findall(r"\]\(([^)]*)\)", PAGE.text)
    assert links
    for link in links:
        check_link(link)


@pytest.mark.parametrize("link", ["docs/start.md", "#api", f"{SITE}nowhere/", f"{SITE}start/#x", f"{GITHUB}x.md"])
def test_broken_links_are_found(link: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check_link(link)


def test_the_reference_is_one_click_away() -> None:
    linked = set(re.findall(rf"{SITE}reference/([\w-]+)/", PAGE.section("API")))
    assert {"client", "channels", "http", "settings", "events", "errors", "command-line"} <= linked


# --- code ------------------------------------------------------------------------------------------------------


@block_of("See it work", "Install", "Use it in a terminal or in the browser")
def test_commands(block: Block) -> None:
    check_commands(block)


def test_the_extras() -> None:
    ((*rows,),) = PAGE.tables("Install")
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row[0])} == extras() - {"dev", "bench"}


@block_of("Quick start")
def test_the_settings(block: Block) -> None:
    assert block.text == START.blocks["2. Write the settings"].text  # whose test reads them


@block_of("Quick start 2")
def test_the_quick_start(block: Block) -> None:
    assert block.text == START.blocks["4. Listen"].text  # whose test runs it


@block_of("See who is on a channel, and send client events")
async def test_members_and_client_events(block: Block, client: ReverbClient) -> None:
    typing = Recorder()
    async with ReverbClient() as other:
        bob = {"user_id": "8", "user_info": {"name": "Bob"}}
        (await other.subscribe("presence-room.1", bob)).bind("client-typing", typing)
        fragment = Fragment(block, client=client)
        await fragment.run()
        assert await typing.wait_for(1) == [("client-typing", {"on": True}, "presence-room.1")]
    assert fragment.names["room"].me == ANN
    assert fragment.printed == [str({"8": {"name": "Bob"}, "7": {"name": "Ann"}})]


@block_of("Publish events")
async def test_publishing(block: Block, client: ReverbClient) -> None:
    heard = Recorder()
    (await client.subscribe("orders")).bind("order.shipped", heard)
    await asyncio.to_thread(exec, block.text, {})
    assert await heard.wait_for(1) == [("order.shipped", {"id": 7}, "orders")]


@block_of("Test your program")
def test_a_test(block: Block, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(block.text)
    options = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
    pytester.runpytest_subprocess("-W", "error", *options).assert_outcomes(passed=1)


def test_no_document_hides_names_of_python() -> None:
    documents = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py")]
    for document in documents:
        text = document.read_text(encoding="utf-8")
        imports = re.findall(r"^ *from reverb import (\([^)]*\)|[^\n]*)$", text, re.M)
        names = {name for each in imports for name in re.findall(r"\w+", each)}
        assert not names & set(dir(builtins)), document


def test_facts_about_the_project() -> None:
    assert 'requires-python = ">=3.10"' in PYPROJECT
    assert "Python 3.10 or later" in PAGE.text
    assert 'license = "GPL-3.0-or-later"' in PYPROJECT
    assert "GPL-3.0-or-later" in PAGE.section("License")
