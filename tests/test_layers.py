"""The layers of the package: the map in CONTRIBUTING.md is what ``make check`` compares the imports with."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def contracts() -> list[dict[str, Any]]:
    from importlinter.api import read_configuration  # takes long, in each process that collects tests

    found: list[dict[str, Any]] = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    return found


VIOLATIONS = {
    "A module imports from its own layer and from those below": (
        "_timeouts.py",
        "from . import client",
        "reverb._timeouts -> reverb.client",
    ),
    "No module imports itself by way of others": (
        "server/_wire.py",
        "from . import _server",
        "No cycles are allowed in reverb.server.",
    ),
    "Modules that only decide do no I/O, read no clock and log nothing": (
        "_backoff.py",
        "import time",
        "reverb._backoff -> time",
    ),
    "Only one module knows the WebSocket library": ("_session.py", "import picows", "reverb._session -> picows"),
    "Only the extras http and cli know the HTTP library": (
        "_calls.py",
        "import aiohttp",
        "reverb._calls -> aiohttp",
    ),
    "Only the plugin knows pytest": ("asgi.py", "import pytest", "reverb.asgi -> pytest"),
    "Only the extra encryption knows PyNaCl": ("auth.py", "import nacl", "reverb.auth -> nacl"),
    "Only the extra cli knows the terminal": ("relay/_relay.py", "import rich", "reverb.relay._relay -> rich"),
    "Only the extras for metrics know their libraries": (
        "_metrics.py",
        "import prometheus_client",
        "reverb._metrics -> prometheus_client",
    ),
    "Only an engine of the relay knows the engine's library": (
        "relay/_log.py",
        "import redis",
        "reverb.relay._log -> redis",
    ),
}
"""By contract: a module, an import in it that breaks the contract, and what ``lint-imports`` says of it."""


def test_the_contract_has_the_layers_of_the_map() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## Where things are\n")[2]
    rows = re.findall(r"^\| \w+ \| (`.*?) \|", text.partition("\n\nOnly ")[0], re.M)
    (contract,) = (each for each in contracts() if each["type"] == "layers")
    layers = [layer.split(" : ") for layer in contract["layers"]]
    assert layers == [re.findall(r"`(\w+)(?:\.py|/)`", row) for row in rows]


def test_each_module_has_one_layer() -> None:
    (contract,) = (each for each in contracts() if each["type"] == "layers")
    named = [module for layer in contract["layers"] for module in layer.split(" : ")]
    package = ROOT / "src" / "reverb"
    modules = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert sorted(named) == sorted(modules - {"__init__", "__main__"})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What ``lint-imports`` says of a copy of the package with all the violations."""
    if Version(metadata.version("rich")) < Version("14.1"):
        pytest.skip("lint-imports needs Rich 14.1; make lowest has the lowest Rich that the package needs")
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src" / "reverb", copy / "reverb", ignore=shutil.ignore_patterns("__pycache__"))
    for path, line, _ in VIOLATIONS.values():
        with (copy / "reverb" / path).open("a", encoding="utf-8") as module:
            module.write(f"\n{line}\n")
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        "--no-logo",
        "--no-cache",
        "--config",
        str(ROOT / "pyproject.toml"),
    ]
    run = subprocess.run(command, cwd=copy, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    return run.stdout


def test_a_violation_for_each_contract() -> None:
    assert VIOLATIONS.keys() == {contract["name"] for contract in contracts()}


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_violation_breaks_its_contract(report: str, contract: str) -> None:
    details = report.partition("\nBroken contracts\n")[2].partition(f"\n{contract}\n")[2]
    assert VIOLATIONS[contract][2] in details.partition("\n\n\n")[0]
