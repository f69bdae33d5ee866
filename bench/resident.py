"""What a process occupies."""

from __future__ import annotations

import gc

import psutil


def resident() -> int:
    """What this process occupies, in bytes."""
    gc.collect()
    size: int = psutil.Process().memory_info().rss
    return size
