"""docs/guides/raspberry-pi.md: its commands name what there is, and it knows all packages that are compiled."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.docs.pages import Page

TEXT = Page("docs/guides/raspberry-pi.md").text
BLOCKS = re.findall(r"^ *```bash\n(.*?)^ *```$", TEXT, re.M | re.S)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines()]


def commands(*start: str) -> list[list[str]]:
    """Return what follows the first words of the commands that begin with them."""
    return [each[len(start) :] for each in COMMANDS if each[: len(start)] == list(start)]


def test_all_blocks_and_commands_are_known() -> None:
    assert TEXT.count("```") == 2 * len(BLOCKS)
    programs = {each[0] for each in COMMANDS}
    assert programs == {"dpkg", "sudo", "python3", ".venv/bin/pip", ".venv/bin/python"}


def test_the_architecture_is_printed() -> None:
    if shutil.which("dpkg") is None:
        pytest.skip("dpkg is not there")
    done = subprocess.run(COMMANDS[0], capture_output=True, text=True, timeout=30, check=True)
    assert re.fullmatch(r"[a-z0-9-]+\n", done.stdout)


def test_debian_s_packages() -> None:
    installed = commands("sudo", "apt", "install")
    assert installed == [["gcc", "python3-dev", "python3-venv"], ["python3-nacl"]]


def test_environments_are_made(tmp_path: Path) -> None:
    made = commands("python3")
    assert len(made) == 2
    for arguments in made:
        command = [sys.executable, *arguments[:2], "--without-pip", *arguments[2:]]
        subprocess.run(command, cwd=tmp_path, timeout=60, check=True)
        assert list(tmp_path.glob(".venv/*/python*"))


def test_the_import_that_ends_the_installation(tmp_path: Path) -> None:
    (arguments,) = commands(".venv/bin/python")
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, timeout=60, check=True)


def test_what_pip_is_asked_for() -> None:
    """The package's own name, extras that it has, and bounds that it can live with."""
    asked = commands(".venv/bin/pip")
    assert len(asked) == 5
    extras = set(distribution("python-reverb").metadata.get_all("Provides-Extra") or ())
    ours = [Requirement(each) for each in distribution("python-reverb").requires or ()]
    for subcommand, *arguments in asked:
        assert subcommand in {"install", "wheel"}
        for each in arguments:
            if each.startswith("--") or each == "wheels":
                continue
            requirement = Requirement(each)
            if requirement.name == "python-reverb":
                assert requirement.extras <= extras
            else:
                (wanted,) = {own.specifier for own in ours if own.name == requirement.name}
                assert requirement.specifier
                lower = re.search(r">=([\d.]+)", str(wanted))
                assert lower is None or requirement.specifier.contains(lower[1])


def compiled(name: str, extras: frozenset[str], seen: set[str]) -> set[str]:
    """Return which packages that a package needs have a compiled part."""
    if name in seen:
        return set()
    seen.add(name)
    package = distribution(name)
    suffixes = (".so", ".pyd")
    found = {name} if any(each.name.endswith(suffixes) for each in package.files or ()) else set()
    for each in map(Requirement, package.requires or ()):
        environments = [{"extra": extra} for extra in extras] or [{"extra": ""}]
        if each.marker is None or any(each.marker.evaluate(one) for one in environments):
            found |= compiled(each.name.lower(), frozenset(each.extras), seen)
    return found


def test_every_package_that_is_compiled_is_named() -> None:
    needed = compiled("python-reverb", frozenset(), set())
    assert needed
    assert {each for each in needed if f"`{each}`" not in TEXT} == set()
