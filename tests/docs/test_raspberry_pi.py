"""docs/guides/raspberry-pi.md: its commands name what there is, and it knows all packages that are compiled."""

from __future__ import annotations

import asyncio
import configparser
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

from reverb import ReverbClient, ReverbConfig
from reverb._settings import variables_of
from reverb.server import ReverbServer
from tests.cli.in_process import answer
from tests.cli.processes import reverb as run
from tests.docs.pages import ROOT, Block, Fragment, Page
from tests.integration.servers import free_ports

PAGE = Page("docs/guides/raspberry-pi.md")
TEXT = PAGE.text
BASH = [name for name, block in PAGE.blocks.items() if block.language == "bash"]


def joined(text: str) -> str:
    """Put commands of several lines into one."""
    return re.sub(r"\\\n *", "", text)


COMMANDS = [
    shlex.split(line, comments=True) for name in BASH for line in joined(PAGE.blocks[name].text).splitlines()
]


def commands(*start: str) -> list[list[str]]:
    """Return what follows the first words of the commands that begin with them."""
    return [each[len(start) :] for each in COMMANDS if each[: len(start)] == list(start)]


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of(*BASH)  # the tests below look at the commands one by one
def test_all_commands_are_known(block: Block) -> None:
    programs = {shlex.split(line)[0] for line in joined(block.text).splitlines()}
    assert programs <= {"dpkg", "sudo", "sudoedit", "cd", "python3", "reverb", ".venv/bin/pip", ".venv/bin/python"}


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


def test_the_drop_in_is_where_systemd_looks_for_it() -> None:
    file = PAGE.blocks["A clock without a battery"].options["title"]
    assert commands("sudo", "mkdir", "--parents") == [[file.rpartition("/")[0]]]
    assert commands("sudoedit") == [[file]]


@PAGE.block_of("Repeat a command until the device answers")
async def test_repeating_a_command(block: Block, client: ReverbClient, server: ReverbServer) -> None:
    """It goes out a second time, because the device has missed the first one."""
    waits = []

    async def wait_for(answer: Any, seconds: float) -> None:
        waits.append(seconds)
        await asyncio.wait_for(answer, 0.2)

    fragment = Fragment(block)
    await fragment.run()
    stand_in = SimpleNamespace(Event=asyncio.Event, TimeoutError=asyncio.TimeoutError, wait_for=wait_for)
    fragment.names["asyncio"] = stand_in
    work = asyncio.ensure_future(fragment.names["carry_out"](client, "rpi-001", "status"))
    missed = await server.wait_for_event("private-device.rpi-001", "command")
    command = await server.wait_for_event("private-device.rpi-001", "command")
    assert command.data == missed.data
    async with ReverbClient() as other:
        device = await other.subscribe("private-device.rpi-001")
        await device.trigger("done", {"request_id": "another"})
        await device.trigger("done", command.data)
        await asyncio.wait_for(work, 5)
    assert fragment.printed == [f"client-done {command.data}"]
    assert set(waits) == {10}


@PAGE.block_of(*(f"Try it without Laravel{number}" for number in ("", " 2", " 3", " 4", " 5")))
def test_the_trial_is_run_below(block: Block) -> None:
    assert block.text


async def test_the_trial_without_laravel(tmp_path: Path) -> None:
    """With other ports."""
    names = [f"Try it without Laravel{number}" for number in ("", " 2", " 3", " 4", " 5")]
    backend, backend_env, device_env, programs, publish = (PAGE.blocks[name] for name in names)
    server_port, backend_port = free_ports(2)

    def moved(text: str) -> str:
        return text.replace("8080", str(server_port)).replace("8000", str(backend_port))

    for directory in ("backend", "device"):
        (tmp_path / directory).mkdir()
    (tmp_path / "backend/backend.py").write_text(moved(backend.text))
    for block in (backend_env, device_env):
        (tmp_path / block.options["title"]).write_text(moved(block.text))
    shutil.copy(ROOT / "examples/iot_device.py", tmp_path / "device")
    serving, signing, listening = programs.text.splitlines()
    assert serving == "cd backend && reverb serve"
    assert signing == "cd backend && python backend.py"
    assert listening == "cd device && DEVICE_ID=rpi-001 python iot_device.py"
    prefix, *arguments = shlex.split(publish.text)[2:]
    assert (prefix, arguments[0]) == ("&&", "reverb")
    env = {"REVERB_SERVER_PORT": str(server_port)}
    async with (
        run("serve", cwd=tmp_path / "backend", env=env) as server,
        run(module="backend", cwd=tmp_path / "backend", env={"PYTHONUNBUFFERED": "1"}) as endpoint,
    ):
        await server.err.expect("serving")
        await endpoint.out.expect("Running on")
        device_id = {"DEVICE_ID": "rpi-001"}
        async with run(module="iot_device", cwd=tmp_path / "device", env=device_id) as device:
            await device.out.expect("^rpi-001 takes commands$")
            async with run(*arguments[1:], cwd=tmp_path / "backend") as publishing:
                assert await publishing.exit_code() == 0
            await server.out.expect(r"private-device\.rpi-001 +client-done ")


def test_a_unit_that_is_printed_on_another_machine() -> None:
    ((*arguments, redirection, file),) = commands("reverb")
    assert (redirection, file) == (">", "iot-device.service")
    unit = answer(*arguments)
    assert "\nEnvironmentFile=/home/pi/device/.env\n" in unit
    assert "\nExecStart=/home/pi/device/.venv/bin/python iot_device.py\n" in unit


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
