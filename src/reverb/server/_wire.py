"""JSON and single values as PHP reads and writes them. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

_MAX_DEPTH: Final = 512
"""What PHP's ``json_decode`` takes by default."""


def decode(text: str | bytes) -> Any:
    """Parse JSON as strictly as PHP does; raise ValueError for anything else."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Raise ValueError for what is nested too deep."""
    # Level by level: how deep a recursion may go depends on the caller.
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        containers = [each for each in level if isinstance(each, dict | list)]
        if not containers:
            return
        level = [item for each in containers for item in (each.values() if isinstance(each, dict) else each)]
    raise ValueError(f"nested more than {_MAX_DEPTH} deep")


def encode(value: Any) -> str:
    r"""Write JSON as PHP's ``json_encode`` does: compact, non-ASCII as ``\uXXXX``, ``/`` as ``\/``."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/")


def php_array(value: Any) -> Any:
    """Return what becomes of a decoded value on its way through PHP's arrays and back.

    An empty object is written as ``[]``, one with the keys 0, 1, 2… in this order as a list, ``1.0`` as ``1``.
    """
    # Loops, as a comprehension is a frame of its own in older Pythons: too many for the depth that PHP takes.
    if isinstance(value, dict):
        items = {}
        for key, item in value.items():
            items[key] = php_array(item)
        return list(items.values()) if list(items) == [str(n) for n in range(len(items))] else items
    if isinstance(value, list):
        made = []
        for item in value:
            made.append(php_array(item))
        return made
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value


def php_string(value: Any) -> str:
    """Return a single value as PHP makes a string of it; raise ValueError for lists and objects."""
    if isinstance(value, dict | list):
        raise ValueError("a single value is needed here")
    if value is None or value is False:
        return ""
    return "1" if value is True else str(php_array(value))


def php_true(value: Any) -> bool:
    """Whether PHP takes the value for true: the string ``"0"`` is false."""
    return bool(value) and value != "0"
