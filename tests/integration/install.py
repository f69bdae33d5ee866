"""Installs what the integration tests need from npm: soketi, a Pusher-protocol server we did not write, and the
clients that browsers have, pusher-js and Laravel Echo.

soketi runs on Node 20 only (on later versions every handshake hangs). Where an installation fails, the tests that
need it are skipped; with ``CI=true`` it is an error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests import node

PROGRAMS = {"soketi": "node_modules/@soketi/soketi/bin/server.js", "pusher_js": "node_modules/pusher-js"}
"""What Node is to run or load, by the directory that names the packages."""


def main() -> int:
    status = 0
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
