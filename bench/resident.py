"""The memory of a process."""

from __future__ import annotations

import gc

import psutil


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    gc.collect()
    size: int = psutil.Process().memory_info().rss
    return size
