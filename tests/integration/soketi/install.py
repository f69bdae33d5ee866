"""Installs soketi, a Pusher-protocol server we did not write, for the integration tests: into ``.cache/soketi``.

It runs on Node 20 only (on later versions every handshake hangs). Where the installation fails, tests that need
soketi are skipped; with ``CI=true`` it is an error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests import node


def main() -> int:
    try:
        node.install("soketi", Path(__file__).resolve().parent, "node_modules/@soketi/soketi/bin/server.js")
    except node.InstallError as error:
        print(error, flush=True)
        if os.environ.get("CI") == "true":
            return 1
        print("The tests that need it will be skipped.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
