"""docs/guides/docker.md: the program runs and ends as in a container, and the files fit to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import time

import yaml

from reverb import ReverbConfig
from reverb._settings import variables_of
from reverb.server import ReverbServer
from tests.cli.processes import reverb as run_module
from tests.docs.pages import Block, Page, variables
from tests.integration.servers import Target
from tests.watching import until

PAGE = Page("docs/guides/docker.md")
PROGRAM = PAGE.blocks["The program"]
HEALTH_FILE = "/tmp/connected"
LINES = PAGE.blocks["The Dockerfile"].text.replace("\\\n", "").splitlines()


def instruction(name: str) -> list[str]:
    """What follows an instruction of the Dockerfile, each time that it is there."""
    return [line.removeprefix(name).strip() for line in LINES if line.startswith(f"{name} ")]


def is_healthy(file: Path) -> bool:
    (check,) = instruction("HEALTHCHECK")
    python, *arguments = json.loads(check[check.index("[") :])
    assert python == "python"
    command = [sys.executable, *(each.replace(HEALTH_FILE, str(file)) for each in arguments)]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=60).returncode == 0


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("The program")
async def test_the_program(block: Block, server: ReverbServer, target: Target, tmp_path: Path) -> None:
    file = tmp_path / "connected"
    assert HEALTH_FILE in block.text
    (tmp_path / "listener.py").write_text(block.text.replace(HEALTH_FILE, str(file)))
    assert not is_healthy(file)
    env = {**variables(target), "PYTHONUNBUFFERED": "1"}
    async with run_module(module="listener", env=env, cwd=tmp_path) as command:
        await server.wait_for_subscription("private-orders", 15)
        await target.publish("private-orders", "App\\Events\\OrderShipped", {"id": 7})
        await command.out.expect("^order 7 is on its way$")
        await until(file.exists)
        assert is_healthy(file)
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0
    os.utime(file, times=(time() - 40, time() - 40))
    assert not is_healthy(file)


@PAGE.block_of("The Dockerfile")
def test_the_dockerfile(block: Block) -> None:
    images = [re.match(r"python:(3\.\d+)-(?:slim-)?(\w+)", each) for each in instruction("FROM")]
    assert len({each.groups() for each in images if each}) == 1, "one Python and one Debian"
    assert None not in images
    assert PROGRAM.options["title"] in [each.split()[0] for each in instruction("COPY")]
    assert json.loads(instruction("CMD")[-1]) == ["python", PROGRAM.options["title"]]
    assert instruction("USER") == re.findall(r"--uid (\d+)", block.text)
    assert "PYTHONUNBUFFERED=1" in instruction("ENV")[0]


@PAGE.block_of("The Dockerfile 2")
def test_the_settings_stay_out_of_the_image(block: Block) -> None:
    assert ".env" in block.text.splitlines()


@PAGE.block_of("With Laravel Reverb in Compose")
def test_the_compose_file(block: Block) -> None:
    services = yaml.safe_load(block.text)["services"]
    listener, environment = services["listener"], services["listener"]["environment"]
    assert environment.keys() <= variables_of(ReverbConfig).keys()
    assert all(isinstance(value, str) for value in environment.values())
    assert listener["depends_on"] == [environment["REVERB_HOST"]]
    assert f"--port={environment['REVERB_PORT']}" in services[environment["REVERB_HOST"]]["command"]
    assert listener["tmpfs"] == [str(Path(HEALTH_FILE).parent)]
    values = {name: re.sub(r"\$\{\w+:\?\}", "x", value).lower() for name, value in environment.items()}
    ReverbConfig.from_env(env=values, dotenv=None)


def test_the_times_that_are_named() -> None:
    config = ReverbConfig(app_key="key", host="host")
    assert f"up to {config.drain_timeout:.0f} seconds (`REVERB_DRAIN_TIMEOUT`)" in PAGE.text
