"""Installs what the tests need beside Python packages.

From npm: soketi, a Pusher-protocol server we did not write, and the clients that browsers have, pusher-js and
Laravel Echo. soketi runs on Node 20 only (on later versions every handshake hangs). From Debian: Chromium without
windows, for the page of ``reverb console``, where this is root and has apt-get, as in a container; elsewhere
developers choose.

Where an installation fails, the tests that need it are skipped; with ``CI=true`` it is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests import chromium, node

PROGRAMS = {"soketi": "node_modules/@soketi/soketi/bin/server.js", "pusher_js": "node_modules/pusher-js"}
"""What Node is to run or load, by the directory that names the packages."""

APT_TIMEOUT = 300.0
"""Seconds for each step of apt-get."""


def install_chromium() -> None:
    """Install Chromium, if it is missing and that is ours to do; raise what went wrong."""
    apt = shutil.which("apt-get")
    if chromium.find() is not None or apt is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    print(f"Installing {chromium.HEADLESS} with apt-get ...", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", chromium.HEADLESS]):
        command = [apt, "-qq", *step]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=APT_TIMEOUT)


def main() -> int:
    status = 0
    try:
        install_chromium()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{chromium.HEADLESS} could not be installed: {error}", flush=True)
        if os.environ.get("CI") == "true":
            status = 1
        else:
            print("The tests that need it will be skipped.", flush=True)
    for name, script in PROGRAMS.items():
        try:
            node.install(name, Path(__file__).resolve().parent / name, script)
        except node.InstallError as error:
            print(error, flush=True)
            if os.environ.get("CI") == "true":
                status = 1
            else:
                print("The tests that need it will be skipped.", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
