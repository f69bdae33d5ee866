"""The documentation as a site: it builds, has every public name, and each page with code is tested."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tools.site import main

import reverb
from tests.docs.pages import DOCS, GITHUB, ROOT, Page

SITE = "https://terje.github.io/python-reverb/"
PAGES = sorted(each.relative_to(ROOT).as_posix() for each in DOCS.rglob("*.md"))
TESTED_ELSEWHERE = {"docs/guides/event-loops.md"}  # by tests/applications/test_snippets.py
CONFIGURATION = (ROOT / "zensical.toml").read_text(encoding="utf-8")


def builds(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that builds a site."""
    skips = pytest.mark.skipif(sys.version_info < (3, 11), reason="Zensical needs Python 3.11")
    return pytest.mark.timeout(180)(skips(test))  # type: ignore[no-any-return]


def make_docs(directory: Path) -> subprocess.CompletedProcess[str]:
    """Run what ``make docs`` runs, in a copy of the repository."""
    for name in ("tools", "examples"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    return subprocess.run(
        [sys.executable, "-m", "tools.site"], cwd=directory, capture_output=True, encoding="utf-8", timeout=170
    )


# --- the site that is built ------------------------------------------------------------------------------------


@builds
def test_the_site(tmp_path: Path) -> None:
    """One test for all of the site, as it takes some seconds to build."""
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    done = make_docs(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.fullmatch(
        rf"Built {len(PAGES)} pages, llms\.txt and llms-full\.txt into site/\.\nTo read them, .*\n", done.stdout
    )
    site = tmp_path / "site"
    check_what_pages_load(site)
    check_text_for_language_models(site)
    check_reference(site)


def check_what_pages_load(site: Path) -> None:
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert str(site.parent) not in html, page
        loaded = re.findall(r"<(?:script|img|link)\b[^>]*?\b(?:src|href)=\"?(https?:[^\s\">]*)", html)
        assert [each for each in loaded if not each.startswith(SITE)] == [], page
        assert 'data-md-component="source"' not in html, "asks GitHub for the numbers of the repository"
        assert re.findall(r":(?:class|meth|attr|func|exc|mod|data):", html) == [], page


def check_text_for_language_models(site: Path) -> None:
    index, full = ((site / name).read_text(encoding="utf-8") for name in ("llms.txt", "llms-full.txt"))
    for page in PAGES:
        directory = page.removeprefix("docs/").removesuffix(".md").removesuffix("index").rstrip("/")
        address = f"{SITE}{directory}/index.md" if directory else f"{SITE}index.md"
        assert f"<{address}>" in index, page
        text = (site / directory / "index.md").read_text(encoding="utf-8")
        assert text.partition("\n")[0] in full, page
    assert "subscribe_presence(" in full  # the reference is in it, too
    assert re.findall(r"^.*(?<!:)::$", full, re.M) == []  # literal blocks of docstrings are blocks of Python


def check_reference(site: Path) -> None:
    """Every public name is there: what a package or a public module exports, and the members of its classes."""
    inventory = (site / "objects.inv").read_bytes()
    lines = zlib.decompress(inventory.partition(b"zlib.\n")[2]).decode().splitlines()
    shown = {line.split(" ")[0] for line in lines}
    missing = {f"{module}.{name}" for module, name in public_names()} - shown
    assert missing == {"reverb.__version__"}
    members = {
        f"reverb.{name}.{member}"
        for name in set(reverb.__all__) - {"Binding"}  # whose other members are for the package itself
        if isinstance(class_ := getattr(reverb, name), type)
        for member in vars(class_)
        if not member.startswith("_")
    }
    assert members - shown == {"reverb.ReverbConfig.ALTERNATIVES"}  # for the package itself


def public_names() -> Iterator[tuple[str, str]]:
    for module in [reverb, *public_modules()]:
        for name in module.__all__:
            yield module.__name__, name


def public_modules() -> Iterator[ModuleType]:
    for each in pkgutil.walk_packages(reverb.__path__, "reverb."):
        if not re.search(r"\._|\.cli\b", each.name):
            yield importlib.import_module(each.name)


# --- what fails the build --------------------------------------------------------------------------------------


@builds
def test_errors_fail_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(
        "# Index\n\n[page](nope.md) [anchor](#nope) [reference][reverb.nope]\n\n::: reverb.shown\n"
    )
    (tmp_path / "docs/lost.md").write_text("# Lost\n")
    (tmp_path / "src/reverb").mkdir(parents=True)
    (tmp_path / "src/reverb/__init__.py").write_text(
        'def shown():\n    """See :func:`shown`, :func:`nowhere`, :func:`hidden` and :exc:`ValueError`."""\n\n\n'
        'def hidden():\n    """Is on no page."""\n'
    )
    nav = 'nav = [\n  "index.md",\n  "gone.md",\n]\n'
    configuration = re.sub(r"^nav = \[\n.*?^\]\n", nav, CONFIGURATION, flags=re.M | re.S)
    (tmp_path / "zensical.toml").write_text(configuration, encoding="utf-8")
    done = make_docs(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    for text in (
        "zensical.toml: nav names docs/gone.md, which does not exist\n",
        "zensical.toml: nav does not name docs/lost.md\n",
        "Warning: page does not exist\n",
        "Warning: anchor does not exist\n",
        "[reference][reverb.nope]",
        "unresolved autoref `nowhere` in index.md\n",
        "unresolved autoref `reverb.hidden` in index.md\n",
        "5 issues found\n",
    ):
        assert text in done.stderr
    assert done.stderr.endswith("The documentation has errors, see above.\n")
    assert "Traceback" not in done.stderr


def test_a_python_without_zensical(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tools.site.find_spec", lambda name: None)
    assert main() == 2
    assert capsys.readouterr() == ("", "Zensical, which builds the documentation, needs Python 3.11 or later.\n")


# --- the pages -------------------------------------------------------------------------------------------------


def test_links_to_the_repository() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for path in re.findall(rf"{re.escape(GITHUB)}([^)#\s>]*)", text):
            assert (ROOT / path).exists(), f"{page} links to {path}"
            assert not path.startswith("docs/"), f"{page} links to {path} outside the site"


def test_every_page_with_code_is_tested() -> None:
    tested = set(TESTED_ELSEWHERE)
    for path in (ROOT / "tests/docs").glob("test_*.py"):
        if ".check_that_all_is_tested()" in path.read_text(encoding="utf-8"):
            tested.update(pages_of(vars(importlib.import_module(f"tests.docs.{path.stem}")).values()))
    assert {page for page in PAGES if Page(page).blocks} - tested == set()


def pages_of(values: Iterable[object]) -> Iterator[str]:
    """Find the pages that a module has, by itself or in lists and dicts."""
    for value in values:
        if isinstance(value, Page):
            yield value.path.relative_to(ROOT).as_posix()
        elif isinstance(value, (list, tuple, set)):
            yield from pages_of(value)
        elif isinstance(value, dict):
            yield from pages_of(value.values())
