"""Installs pusher-js into ``.cache/pusher-js``, for the benchmarks; where that fails, they do without it."""

from __future__ import annotations

from pathlib import Path

from tests import node


def main() -> None:
    try:
        node.install("pusher-js", Path(__file__).resolve().parent, "node_modules/pusher-js")
    except node.InstallError as error:
        print(f"{error}\nIt will be missing in the results.", flush=True)


if __name__ == "__main__":
    main()
