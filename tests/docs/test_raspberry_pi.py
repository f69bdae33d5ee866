"""docs/guides/raspberry-pi.md: its commands name what there is, and it knows all packages that are compiled."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from reverb import ReverbConfig
from reverb._settings import variables_of
from tests.cli.in_process import answer
from tests.docs.pages import Block, Page

PAGE = Page("docs/guides/raspberry-pi.md")
TEXT = PAGE.text
BASH = [name for name, block in PAGE.blocks.items() if block.language == "bash"]
COMMANDS = [shlex.split(line, comments=True) for name in BASH for line in PAGE.blocks[name].text.splitlines()]


def commands(*start: str) -> list[list[str]]:
    """Return what follows the first words of the commands that begin with them."""
    return [each[len(start) :] for each in COMMANDS if each[: len(start)] == list(start)]


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of(*BASH)  # the tests below look at the commands one by one
def test_all_commands_are_known(block: Block) -> None:
    programs = {shlex.split(line)[0] for line in block.text.splitlines()}
    assert programs <= {"dpkg", "sudo", "python3", ".venv/bin/pip", ".venv/bin/python"}


@PAGE.block_of("A token, not the secret")
def test_the_settings_of_a_device(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(block.text)
    config = ReverbConfig.from_env()
    assert (config.app_secret, config.max_pending_bytes) == (None, 1 << 20)
    assert config.auth_endpoint is not None
    assert config.auth_token is not None


@PAGE.block_of("A clock without a battery")
def test_the_unit_of_a_device(block: Block, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not there")
    unit = answer("systemd", "--name", "iot-device", "--exec", f"{sys.executable} iot_device.py")
    (tmp_path / "iot-device.service").write_text(unit)
    (tmp_path / "iot-device.service.d").mkdir()
    (tmp_path / "iot-device.service.d/device.conf").write_text(block.text)
    done = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", tmp_path / "iot-device.service"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@PAGE.block_of("Watchdogs", "SD cards")
def test_the_settings_of_the_system(block: Block) -> None:
    settings = configparser.ConfigParser()
    settings.read_string(block.text)
    (section,) = settings.sections()
    assert set(settings[section]) <= {"runtimewatchdogsec", "storage", "runtimemaxuse"}


def test_the_defaults_that_are_named() -> None:
    config = ReverbConfig(app_key="key", host="host")
    fields = variables_of(ReverbConfig)
    (table,) = PAGE.tables("A network that fails often")
    for names, defaults, _ in table:
        values = [getattr(config, fields[name]) for name in re.findall(r"`(REVERB_\w+)`", names)]
        assert defaults == ", ".join(f"{value:g} s" for value in values)


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
