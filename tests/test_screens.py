"""The pictures of the README: they are there, and the script that records them works."""

from __future__ import annotations

import getpass
import re
import struct
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from tests import chromium
from tests.missing import missing

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals on Windows", allow_module_level=True)

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
PICTURES = sorted(
    {
        f"docs/{path}"
        for document in DOCUMENTS
        for path in re.findall(r"!\[.+\]\(\S*?(screens/[\w-]+\.\w+)\)", document.read_text(encoding="utf-8"))
    }
)
TERMINALS = [path for path in PICTURES if path.endswith(".svg")]
PAGES = {"console-light": (1920, 1200), "console-dark": (1920, 1200), "console-phone": (780, 1688)}
"""The pictures of the console, and their pixels."""


def text_of(svg: str) -> str:
    """Return what is written in a picture, line by line."""
    lines: dict[str, str] = {}
    for y, text in re.findall(r"<text[^>]* y=\"([\d.]+)\"[^>]*>([^<]*)</text>", svg):
        lines[y] = lines.get(y, "") + unescape(text).replace("\xa0", " ")
    return "\n".join(lines.values())


def record(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.screens", "--port", "0", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_a_picture_is_recorded(tmp_path: Path) -> None:
    done = record("listen", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["listen.svg"]
    text = text_of((tmp_path / "listen.svg").read_text(encoding="utf-8"))
    assert text.startswith("python-reverb\n$ reverb listen news private-orders.7\n")
    for part in ("subscribed to news", '{"id": 12, "title"', "Zoë's Vans", "reconnected", "disconnected from"):
        assert part in text


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_the_console_is_recorded(tmp_path: Path) -> None:
    if chromium.find() is None:
        missing(chromium.MISSING)
    done = record("console-phone", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["console-phone.png"]
    assert size_of((tmp_path / "console-phone.png").read_bytes()) == PAGES["console-phone"]


@pytest.mark.parametrize("name", PAGES)
def test_a_picture_of_the_console(name: str) -> None:
    assert size_of((ROOT / "docs" / "screens" / f"{name}.png").read_bytes()) == PAGES[name]


def test_names_that_are_none(tmp_path: Path) -> None:
    done = record("liste", "--folder", str(tmp_path))
    assert done.returncode == 2
    assert "no such screen: liste" in done.stderr


def test_the_documents_show_all_and_no_other() -> None:
    there = [str(each.relative_to(ROOT)) for each in (ROOT / "docs" / "screens").iterdir()]
    assert sorted(there) == PICTURES


@pytest.mark.parametrize("path", TERMINALS)
def test_a_picture(path: str) -> None:
    svg = (ROOT / path).read_text(encoding="utf-8")
    text = text_of(svg)
    assert f"$ reverb {Path(path).stem}" in text
    assert "Traceback" not in text
    assert "\x1b" not in svg
    assert not re.search(rf"/home/|/tmp/|/work|/Users/|\b{re.escape(getpass.getuser())}\b", text)
    assert set(re.findall(r"https?://[^\"' )]+", svg)) <= {
        "http://www.w3.org/2000/svg",
        "https://www.textualize.io",
    }
