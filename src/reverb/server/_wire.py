"""JSON and values as PHP reads and writes them. Does no I/O."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable
from decimal import Decimal
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final, Literal

import msgspec

_MAX_DEPTH: Final = 511
"""Depth of nested arrays and objects that PHP's ``json_decode`` accepts. Its limit of 512 counts the innermost
value, too."""
_NUMERIC: Final = re.compile(r"[ \t-\r]*[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t-\r]*")
"""A text that PHP compares as a number."""
_MAX_INT: Final = (1 << 63) - 1

# A number out of range is infinite for PHP. msgspec refuses it unless it has a float_hook.
_decode = msgspec.json.Decoder(float_hook=float).decode


def decode(text: str | bytes) -> Any:
    """Parse JSON as strictly as PHP does; raise ValueError if it is not valid."""
    try:
        value = _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Raise ValueError if a value is nested too deep."""
    # A loop for each level: the possible depth of a recursion depends on the caller.
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        containers = [each for each in level if isinstance(each, dict | list)]
        if not containers:
            return
        level = [item for each in containers for item in (each.values() if isinstance(each, dict) else each)]
    raise ValueError(f"nested more than {_MAX_DEPTH} deep")


def encode(value: Any) -> str:
    r"""Encode JSON in the form of PHP's ``json_encode``: compact, non-ASCII as ``\uXXXX``, ``/`` as ``\/``."""
    return _as_php_spells(json.dumps(value, separators=(",", ":")))


def _as_php_spells(text: str) -> str:
    text = text.replace("/", "\\/")
    # Python escapes DEL, PHP does not.
    return re.sub(r"(?<!\\)((?:\\\\)*)\\u007f", "\\1\x7f", text) if "\\u007f" in text else text


def php_encode(value: Any) -> str | Literal[False]:
    """Encode a decoded value as PHP does, with its form of numbers; return False if a number is infinite."""
    parts: list[str] = []
    try:
        _write(value, parts.append)
    except OverflowError:
        return False
    return _as_php_spells("".join(parts))


def _write(value: Any, write: Callable[[str], object]) -> None:
    if isinstance(value, str):
        write(_quoted(value))
    elif value is None or value is True or value is False:
        write("null" if value is None else "true" if value else "false")
    elif isinstance(value, dict):
        opening = "{"
        for key, item in value.items():
            write(f"{opening}{_quoted(key)}:")
            _write(item, write)
            opening = ","
        write("}" if value else "{}")
    elif isinstance(value, list):
        opening = "["
        for item in value:
            write(opening)
            _write(item, write)
            opening = ","
        write("]" if value else "[]")
    else:
        write(_number_text(_php_number(value)))


def _number_text(number: float) -> str:
    text = repr(number)
    if isinstance(number, int) or text.lstrip("-").replace(".", "").isdigit():
        return text.removesuffix(".0")
    if not math.isfinite(number):
        raise OverflowError(f"{text} has no JSON")
    return _float_text(number, Decimal(text), 17, "e")


def _php_number(value: float) -> int | float:
    """Return a number as PHP stores it: an integer of more than 64 bits is a float."""
    if isinstance(value, float) or -_MAX_INT - 1 <= value <= _MAX_INT:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _float_text(value: float, rounded: Decimal, precision: int, exponent: str) -> str:
    """Return a finite float as text with the digits of ``rounded``, and an exponent beyond ``precision``
    places."""
    sign = "-" if math.copysign(1, value) < 0 else ""
    digits = "".join(map(str, rounded.as_tuple().digits))
    point = rounded.adjusted() + 1
    digits = digits.rstrip("0")
    if not digits:
        return f"{sign}0"
    if point > precision or point < -3:
        return f"{sign}{digits[0]}.{digits[1:] or '0'}{exponent}{point - 1:+d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    whole, fraction = digits[:point].ljust(point, "0"), digits[point:]
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def php_array(value: Any) -> Any:
    """Return a decoded value as it is after a conversion to PHP arrays and back.

    An empty object becomes ``[]``, an object with the keys 0, 1, 2… in this order becomes a list.
    """
    # Loops, because a comprehension needs a frame in older Pythons: too many for the depth that PHP accepts.
    if isinstance(value, dict):
        items = {}
        for key, item in value.items():
            items[key] = php_array(item)
        return php_list(items)
    if isinstance(value, list):
        made = []
        for item in value:
            made.append(php_array(item))
        return made
    return value


def php_list(items: dict[str, Any]) -> dict[str, Any] | list[Any]:
    """Return a list if PHP encodes these items as one: if the keys are 0, 1, 2… in this order."""
    return list(items.values()) if all(key == str(n) for n, key in enumerate(items)) else items


def php_string(value: Any) -> str:
    """Return a single value as a PHP string; raise ValueError for lists and objects."""
    if isinstance(value, dict | list):
        raise ValueError("a single value is needed here")
    if value is None or value is False:
        return ""
    if value is True or isinstance(value, str):
        return "1" if value is True else value
    number = _php_number(value)
    if isinstance(number, int):
        return str(number)
    if math.isinf(number):
        return "INF" if number > 0 else "-INF"
    return _float_text(number, Decimal(f"{number:.13e}"), 14, "E")


def php_key(value: Any) -> str:
    """Return a single value as the key of a PHP array: a float loses its fraction, and may overflow."""
    if value is None or isinstance(value, str):
        return value or ""
    number = _php_number(value)
    if isinstance(number, float) and math.isinf(number):
        return "0"
    return str((int(number) + _MAX_INT + 1) % (1 << 64) - _MAX_INT - 1)


def php_equals(value: Any) -> tuple[set[Hashable], set[Hashable]]:
    """Return the keys of a value, and the keys that it is equal to by PHP's ``==``.

    Two values are equal if a key of one is among those that the other is equal to. One key for each value is not
    enough: ``true`` is equal to ``"a"`` and to ``"b"``, which are not equal.
    """
    truth = "true" if php_true(value) else "false"
    if isinstance(value, bool):
        return {str(value), truth}, {truth}
    if value is None:
        return {"None", truth}, {"None", "False", "nothing"}
    key = php_comparable(value)
    if value in ("", 0):
        return {key, truth, "nothing"}, {key, "False", "None"}
    return {key, truth}, {key, truth.capitalize()}


def php_comparable(value: str | float) -> Hashable:
    """Return the same key for texts and numbers that PHP compares as equal: a number, if PHP compares them as
    numbers."""
    if not isinstance(value, str):
        return _php_number(value)
    match = _NUMERIC.fullmatch(value)
    if match is not None and len(value) < 64:
        number = float(value) if match[2] or "." in match[1] else int(value)
        # PHP compares texts of numbers that are too large as texts. Otherwise, different ones would be equal.
        if math.isfinite(number) and (isinstance(number, float) or abs(number) <= _MAX_INT):
            return number
    return "text", value


def php_true(value: Any) -> bool:
    """Return whether the value is true for PHP. The string ``"0"`` is false."""
    return bool(value) and value != "0"


def is_blank(value: Any) -> bool:
    """Return whether the value is a text of white space only, as PHP's ``trim`` defines it."""
    return isinstance(value, str) and not value.strip(" \t\n\r\0\v")
