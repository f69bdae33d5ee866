"""docs/guides/systemd.md: systemd takes the units, the commands name them, and the program runs."""

from __future__ import annotations

import asyncio
import configparser
import re
import signal
import socket
from pathlib import Path

from reverb import ReverbConfig
from reverb._run import ExitCode
from reverb._settings import variables_of
from reverb.server import ReverbServer
from tests.cli.in_process import answer
from tests.cli.processes import reverb as run_module
from tests.docs.pages import ROOT, Block, Page, variables
from tests.integration.servers import Target

PAGE = Page("docs/guides/systemd.md")
UNIT = "iot-device"
HANDLER = "def on_command(event, data, channel): print(event, data, flush=True)\n"


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("The program")
async def test_the_program(block: Block, server: ReverbServer, target: Target, tmp_path: Path) -> None:
    """With a systemd that wants to know how it is."""
    (tmp_path / "program.py").write_text(HANDLER + block.text)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        env = {**variables(target), "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        async with run_module(module="program", env=env, cwd=tmp_path) as command:
            await server.wait_for_subscription("private-device.rpi-001", 15)
            await target.publish("private-device.rpi-001", "command", "reboot")
            await command.out.expect("^command reboot$")
            told = await told_until("WATCHDOG=1", systemd)
            command.send_signal(signal.SIGTERM)
            told |= await told_until("STOPPING=1", systemd)
            assert await command.exit_code() == 0
            assert command.err.text == ""
    (table,) = PAGE.tables("Status and readiness (Type=notify)")
    assert {row[0].strip("`") for row in table} == told


async def told_until(last: str, systemd: socket.socket) -> set[str]:
    """Receive messages until one of a kind; return all kinds."""
    kinds: set[str] = set()
    while last not in kinds:
        message = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(systemd, 4096), 15)
        kinds |= {re.sub("(?<=STATUS=).*", "…", line) for line in message.decode().splitlines()}
    return kinds


def test_the_exit_codes() -> None:
    (table,) = PAGE.tables("The program")
    assert [int(code) for code, _ in table] == [
        ExitCode.OK,
        ExitCode.USAGE,
        ExitCode.CONNECTION,
        ExitCode.REFUSED,
    ]


@PAGE.block_of("Restarts")
def test_exit_codes_without_a_restart(block: Block) -> None:
    """As in the comment of the unit that the command prints."""
    assert block.text == f"RestartPreventExitStatus={ExitCode.USAGE:d} {ExitCode.REFUSED:d}\n"
    assert f"\n#{block.text}" in answer("systemd", "--name", UNIT)


@PAGE.block_of("A simple unit")
def test_the_simple_unit(block: Block) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.text)
    assert unit.sections() == ["Unit", "Service", "Install"]
    assert unit["Unit"].keys() == {"Description", "After", "Wants"}
    assert unit["Unit"]["After"] == unit["Unit"]["Wants"] == "network-online.target"
    service = dict(unit["Service"])
    assert (service["Type"], service["Restart"], service["RestartSec"]) == ("simple", "always", "10")
    assert service["EnvironmentFile"] == f"{service['WorkingDirectory']}/.env"
    python, program = service["ExecStart"].split()
    assert Path(python).is_absolute()
    assert (ROOT / "examples" / program).exists()
    assert "User" in service
    assert dict(unit["Install"]) == {"WantedBy": "multi-user.target"}


@PAGE.block_of("The unit", "The unit 2", "A simple unit 2")  # tests/cli/test_systemd.py runs `reverb systemd`
def test_the_commands_name_the_unit(block: Block) -> None:
    for line in re.findall(r"^sudo .*", block.text, re.M):
        command = line.removeprefix("sudo ")
        assert command in {
            "systemctl daemon-reload",
            f"systemctl enable --now {UNIT}",
            f"systemctl restart {UNIT}",
            f"journalctl --unit {UNIT} --follow",
        }
    assert f"`/etc/systemd/system/{UNIT}.service`" in PAGE.text


def test_the_settings_that_are_named() -> None:
    named = set(re.findall(r"`(REVERB_\w+)`", PAGE.text))
    assert named
    assert named <= set(variables_of(ReverbConfig))


def test_the_times_that_are_named() -> None:
    config = ReverbConfig(app_key="key", host="host")
    assert f"{config.drain_timeout:.0f} seconds (`REVERB_DRAIN_TIMEOUT`)" in PAGE.text
    longest = config.reconnect_delay_max + config.connect_timeout + 10
    assert f"{longest:.0f} seconds by\n  default" in PAGE.text
    assert longest < 60, "WatchdogSec=60 suits the default settings"
