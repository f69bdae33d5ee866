"""Builds the documentation into ``site/``: ``make docs``. ``make docs ARGS=serve`` shows it as it changes."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
ZENSICAL = (sys.executable, "-m", "zensical")


def main() -> int:
    if find_spec("zensical") is None:
        print("Zensical, which builds the documentation, needs Python 3.11 or later.", file=sys.stderr)
        return 2
    if "serve" in sys.argv[1:]:
        with suppress(KeyboardInterrupt):
            return subprocess.run([*ZENSICAL, "serve"], cwd=ROOT).returncode  # noqa: S603 - no input
        return 0
    return build()


def build() -> int:
    problems = errors_in_nav()
    done = subprocess.run(  # noqa: S603 - no input
        [*ZENSICAL, "build", "--strict", "--clean"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    if done.returncode or problems:
        problems += [errors_of(done.stdout), "The documentation has errors, see above."]
        print(*problems, sep="\n", file=sys.stderr)
        return 1
    pages = len(list((ROOT / "site").rglob("index.html")))
    print(f"Built {pages} pages, llms.txt and llms-full.txt into site/.")
    print("To read them, and see changes at once: make docs ARGS=serve")
    return 0


def errors_in_nav() -> list[str]:
    """Compare the pages with those that ``nav`` names, which Zensical doesn't."""
    configuration = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    nav = re.search(r"^nav = \[\n.*?^\]\n", configuration, re.M | re.S)
    named = set(re.findall(r'"([\w/-]+\.md)"', nav[0] if nav else ""))
    pages = {each.relative_to(ROOT / "docs").as_posix() for each in (ROOT / "docs").rglob("*.md")}
    return [
        *(f"zensical.toml: nav names docs/{each}, which does not exist" for each in sorted(named - pages)),
        *(f"zensical.toml: nav does not name docs/{each}" for each in sorted(pages - named)),
    ]


def errors_of(output: str) -> str:
    """Return what Zensical says is wrong, without the traceback of Zensical itself."""
    shown, _, traceback = output.partition("Traceback (most recent call last):\n")
    lines = [line for line in shown.splitlines() if line not in ("Build started", "No issues found")]
    error = re.search(r"^RuntimeError: (?!Aborted because --strict)(.*?)(?=^Traceback|\Z)", traceback, re.M | re.S)
    text = "\n".join([*lines, error[1]] if error else lines)
    return text if sys.stderr.isatty() else re.sub(r"\x1b\[[\d;]*m", "", text)


if __name__ == "__main__":
    sys.exit(main())
