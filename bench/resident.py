"""``python -m bench.resident [PORT]``: what a process occupies, in bytes.

It has only imported the client's dependencies, or it has a client connected to the port. It imports nothing else,
so that the difference is the client's.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import psutil


def resident() -> int:
    """What this process occupies, in bytes."""
    gc.collect()
    size: int = psutil.Process().memory_info().rss
    return size


async def _bare() -> int:
    import aiohappyeyeballs  # noqa: F401
    import msgspec  # noqa: F401
    import picows  # noqa: F401
    import pydantic_settings  # noqa: F401

    await asyncio.sleep(0.1)
    return resident()


async def _connected(port: int) -> int:
    from reverb import ReverbClient

    async with ReverbClient(app_key="bench", host="127.0.0.1", port=port, scheme="ws", path=""):
        await asyncio.sleep(0.1)
        return resident()


if __name__ == "__main__":
    print(asyncio.run(_connected(int(sys.argv[1])) if len(sys.argv) > 1 else _bare()))
