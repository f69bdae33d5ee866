"""The pictures of the README: they are there, and the script that records them works."""

from __future__ import annotations

import getpass
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals on Windows", allow_module_level=True)

ROOT = Path(__file__).parents[1]
PICTURES = re.findall(r"!\[.+\]\((docs/screens/[\w-]+\.svg)\)", (ROOT / "README.md").read_text(encoding="utf-8"))


def text_of(svg: str) -> str:
    """Return what is written in a picture, line by line."""
    lines: dict[str, str] = {}
    for y, text in re.findall(r"<text[^>]* y=\"([\d.]+)\"[^>]*>([^<]*)</text>", svg):
        lines[y] = lines.get(y, "") + unescape(text).replace("\xa0", " ")
    return "\n".join(lines.values())


def record(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "docs.screens", "--port", "0", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_a_picture_is_recorded(tmp_path: Path) -> None:
    done = record("listen", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["listen.svg"]
    text = text_of((tmp_path / "listen.svg").read_text(encoding="utf-8"))
    assert text.startswith("python-reverb\n$ reverb listen news private-orders.7\n")
    for part in ("subscribed to news", '{"id": 12, "title"', "Zoë's Vans", "connected again", "disconnected from"):
        assert part in text


def test_names_that_are_none(tmp_path: Path) -> None:
    done = record("liste", "--folder", str(tmp_path))
    assert done.returncode == 2
    assert "no such screen: liste" in done.stderr


def test_the_readme_shows_all_and_no_other() -> None:
    there = [str(each.relative_to(ROOT)) for each in (ROOT / "docs" / "screens").iterdir()]
    assert sorted(PICTURES) == sorted(there)


@pytest.mark.parametrize("path", PICTURES)
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
