"""``reverb systemd``: the unit that it prints, as systemd reads it."""

from __future__ import annotations

import asyncio
import configparser
import getpass
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from reverb.cli.app import app
from reverb.cli.systemd import systemd
from reverb.server import ReverbServer
from tests.cli.processes import reverb
from tests.watching import owned


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
    verify(re.sub("^#(?=[A-Z])", "", text, flags=re.M), tmp_path)  # with the lines that the user may add


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


def test_the_command_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guides" / "systemd.md").read_text(encoding="utf-8")
    match = re.search(r"^reverb (systemd .*?) \\\n +\| sudo tee /etc/systemd/system/(\S+)\.service$", text, re.M)
    assert match
    done = CliRunner().invoke(app, shlex.split(match[1]))
    assert done.exit_code == 0
    assert parse(done.output)["Service"]["ExecStart"] == "/home/pi/device/.venv/bin/python iot_device.py"
    assert f"sudo systemctl enable --now {match[2]}" in text
    assert f"# /etc/systemd/system/{match[2]}.service" in done.output


# --- on systemd itself -----------------------------------------------------------------------------------------

PROGRAM = """\
import asyncio
import time

from reverb import ReverbClient


async def main():
    async with ReverbClient() as client:
        channel = await client.subscribe("news")
        channel.bind("hang", lambda *_: time.sleep(60))
        await client.listen()


asyncio.run(main())
"""

SESSION = """\
set -eu
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/user/0 /run/home/.config/systemd/user
export XDG_RUNTIME_DIR=/run/user/0 HOME=/run/home
cp notify.service simple.service $HOME/.config/systemd/user
/lib/systemd/systemd --user &
manager=$!
trap 'kill $manager; wait $manager || true; rmdir /sys/fs/cgroup/{,*/}init.scope 2>/dev/null || true' EXIT

show() { systemctl --user show --property=SubState,StatusText,NRestarts --value $1 | xargs -d'\\n' echo "$2:"; }
reach() {
    for _ in $(seq 150); do case $(show $1 x) in $2) return;; esac; sleep 0.1; done
    show $1 "did not reach $2"; return 1
}

for _ in $(seq 50); do systemctl --user is-system-running >/dev/null 2>&1 && break; sleep 0.1; done
systemctl --user start notify; show notify started
sleep 2.5; show notify "alive beyond the watchdog"
$PYTHON -m reverb publish news hang
reach notify '*connected*1 running'; show notify "hung, and started again"
systemctl --user stop notify; show notify stopped
systemctl --user start simple; reach simple '*running'; show simple simple
systemctl --user stop simple; show simple stopped
"""
"""A systemd of its own, out of sight of everything else on the machine."""


@pytest.fixture
def unshare() -> list[str]:
    """A command that runs another one where it can be alone with its systemd."""
    if os.geteuid() != 0 or not Path("/lib/systemd/systemd").exists() or Path("/run/systemd/system").exists():
        pytest.skip("needs to be root, and systemd to be installed and not to run the machine")
    own = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--cgroup", "--kill-child"]
    if subprocess.run([*own, "mount", "-t", "tmpfs", "none", "/run"], capture_output=True).returncode != 0:
        pytest.skip("mounts are not allowed here")
    return own


async def test_on_systemd(
    unshare: list[str],
    embedded: ReverbServer,
    settings: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    (tmp_path / "listener.py").write_text(PROGRAM)
    systemd(directory=tmp_path)
    unit = capsys.readouterr().out
    unit = unit.replace("WatchdogSec=60", "WatchdogSec=1").replace("RestartSec=10", "RestartSec=0")
    # What containers are not allowed; the directory is in /tmp.
    unit = re.sub(r"^(ProtectKernel\w+|PrivateTmp)=yes\n", "", unit, flags=re.M)
    (tmp_path / "notify.service").write_text(unit)
    service = parse(unit)["Service"]
    kept = ("WorkingDirectory", "EnvironmentFile", "ExecStart", "Restart", "RestartSec")
    lines = ["[Service]", "Type=simple", *(f"{name}={service[name]}" for name in kept)]
    (tmp_path / "simple.service").write_text("\n".join(lines))
    environment = {**os.environ, **settings, "PYTHON": sys.executable}
    process = await asyncio.create_subprocess_exec(
        *unshare,
        "bash",
        "-c",
        SESSION,
        env=environment,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with owned(process):
        out, _ = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 0, out.decode()
    connected = f"connected to 127.0.0.1:{embedded.port}"
    assert [line for line in out.decode().splitlines() if ": " in line] == [
        f"started: {connected} 0 running",
        f"alive beyond the watchdog: {connected} 0 running",
        f"hung, and started again: {connected} 1 running",
        "stopped:  0 dead",
        "simple:  0 running",
        "stopped:  0 dead",
    ]


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("name", "a/b", "--name 'a/b' is not a valid unit name"),
        ("name", "", "--name '' is not a valid unit name"),
        ("command", "no-such-program --x", "--exec: no-such-program is not found; write its full path"),
        ("command", " ", "--exec ' ' must be one line that is not empty"),
        ("command", "/bin/true\nUser=root", "--exec '/bin/true\\nUser=root' must be one line"),
        ("user", "pi\n", "--user 'pi\\n' must be one line"),
        ("description", "", "--description '' must be one line"),
        ("directory", Path('/a"b'), '--directory /a"b must not have a quotation mark'),
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
