"""The random run of ``test_random.py`` for as long as one likes.

    python -m tests.faults.soak --minutes 60 --seed 7

Prints a line each minute, and ends with status 1 when a promise is broken or something grows.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import sys
from pathlib import Path
from time import monotonic

from reverb.server import ReverbServer
from tests.integration.servers import Target
from tests.watching import open_descriptors

from .storm import Storm, ViolationError, storm

_WARM_UP = 2
"""Lines before what is measured counts as grown or not."""
_SLACK = {"MB": 8.0, "tasks": 3, "descriptors": 5}


def _measure() -> dict[str, float]:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "MB": pages * os.sysconf("SC_PAGESIZE") / 2**20,
        "tasks": len(asyncio.all_tasks()),
        "descriptors": open_descriptors(),
    }


def _line(it: Storm, minutes: float, measured: dict[str, float]) -> str:
    return (
        f"{minutes:7.1f} {it.events_sent:10d} {it.events_received:10d} {it.faults:8d} {it.reconnects:10d} "
        f"{measured['MB']:8.1f} {measured['tasks']:6.0f} {measured['descriptors']:11.0f}"
    )


async def soak(minutes: float, seed: int, every: float = 60.0) -> None:
    """Run; raise :class:`ViolationError` when a promise is broken or something grows."""
    print("minutes       sent   received   faults reconnects   MB RSS  tasks descriptors", flush=True)
    async with ReverbServer() as server, storm(Target("embedded", server.host, server.port), seed) as it:
        start = monotonic()
        lines: list[dict[str, float]] = []
        while (elapsed := monotonic() - start) < minutes * 60:
            await it.strike()
            if elapsed >= (len(lines) + 1) * every:
                measured = _measure()
                lines.append(measured)
                print(_line(it, elapsed / 60, measured), flush=True)
                if len(lines) > _WARM_UP:
                    for what, slack in _SLACK.items():
                        least = lines[_WARM_UP - 1][what]
                        if measured[what] > least + slack:
                            raise ViolationError(f"{what} grew from {least:.0f} to {measured[what]:.0f}")
        print(_line(it, minutes, _measure()), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    logging.getLogger("reverb").addHandler(logging.NullHandler())
    logging.getLogger("reverb").propagate = False
    try:
        asyncio.run(soak(arguments.minutes, arguments.seed))
    except (ViolationError, AssertionError) as error:
        print(f"FAILED, with --seed {arguments.seed}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
