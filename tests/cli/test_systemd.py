"""``reverb systemd``: the unit that it prints, as systemd reads it."""

from __future__ import annotations

import configparser
import getpass
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from reverb.cli.systemd import systemd
from tests.cli.processes import reverb


def parse(text: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    return unit


def verify(text: str, directory: Path) -> None:
    """Have systemd read the unit; it must have nothing to say."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not there")
    path = directory / "reverb-client.service"
    path.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", path], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


async def test_a_unit_that_systemd_takes(tmp_path: Path) -> None:
    async with reverb("systemd", cwd=tmp_path) as command:
        assert await command.exit_code() == 0
        text = command.out.text
        assert command.err.text == ""
    unit = parse(text)
    assert unit["Unit"]["After"] == unit["Unit"]["Wants"] == "network-online.target"
    service = unit["Service"]
    assert (service["Type"], service["NotifyAccess"], service["WatchdogSec"]) == ("notify", "main", "60")
    assert (service["Restart"], service["RestartSec"]) == ("always", "10")
    assert service["User"] == getpass.getuser()
    assert service["WorkingDirectory"] == str(tmp_path)
    assert service["EnvironmentFile"] == f"{tmp_path}/.env"
    assert service["ReadWritePaths"] == f'"{tmp_path}"'
    assert service["ExecStart"] == f'"{sys.executable}" listener.py'
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    verify(text, tmp_path)


async def test_in_a_terminal_it_is_the_same_text(tmp_path: Path) -> None:
    async with reverb("systemd", cwd=tmp_path, terminal=True, width=80) as command:
        assert await command.exit_code() == 0
        assert "\x1b" not in command.out.text
        assert parse(command.out.text)["Service"]["WorkingDirectory"] == str(tmp_path)
        assert [line for line in command.out.text.splitlines() if line.startswith("#") and len(line) > 80] == []


def test_everything_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "100 % true"
    directory.mkdir()
    systemd("sh -c 'exec true'", "device-7", "Device %7", "daemon", directory)
    text = capsys.readouterr().out
    unit = parse(text)
    assert unit["Unit"]["Description"] == "Device %%7"
    service = unit["Service"]
    assert service["User"] == "daemon"
    assert service["WorkingDirectory"] == f"{tmp_path}/100 %% true"
    assert service["ExecStart"] == f"{shutil.which('sh')} -c 'exec true'"
    assert "# /etc/systemd/system/device-7.service" in text
    verify(text, tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("name", "a/b", "--name 'a/b' can't be a unit's name"),
        ("name", "", "--name '' can't be a unit's name"),
        ("command", "no-such-program --x", "--exec no-such-program is not found; write the whole path"),
        ("command", " ", "--exec ' ' must be one line that is not empty"),
        ("command", "/bin/true\nUser=root", "--exec '/bin/true\\nUser=root' must be one line"),
        ("user", "pi\n", "--user 'pi\\n' must be one line"),
        ("description", "", "--description '' must be one line"),
        ("directory", Path('/a"b'), '--directory /a"b has a quote or a backslash in it'),
    ],
)
def test_wrong_usage(option: str, value: object, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"command": None, "name": "n", "description": "d", "user": "u", "directory": Path("/tmp")}
    with pytest.raises(typer.Exit) as caught:
        systemd(**{**arguments, option: value})  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"reverb: {says}")
    assert output.out == ""
