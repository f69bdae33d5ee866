"""Checks for settings: functions that turn a given value into the value of a setting.

They raise :class:`ValueError` with the rest of a sentence that begins with the name of the setting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeAlias
from urllib.parse import urlsplit

Check: TypeAlias = Callable[[Any], Any]


def text(value: object) -> str:
    """Return a text that is not empty and has no invisible characters."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    if not value:
        raise ValueError("must not be empty")
    hidden = next((each for each in value if not each.isprintable()), None)
    if hidden is not None:  # copied by mistake; and a line break could add a header
        raise ValueError(f"must not contain the invisible character U+{ord(hidden):04X}")
    return value


def header(value: object) -> str:
    """Return a text that can be the value of an HTTP header."""
    value = text(value)
    if not value.isascii():
        raise ValueError("must be ASCII, because it is sent as an HTTP header")
    return value.strip()


def flag(value: object) -> bool:
    """Return true or false."""
    if isinstance(value, str):
        value = {**dict.fromkeys(_YES, True), **dict.fromkeys(_NO, False)}.get(value.strip().lower())
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


_YES, _NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def whole(least: int, most: int | None = None) -> Check:
    """Return a check for whole numbers in these bounds."""
    bounds = f"of {least} or more" if most is None else f"from {least} to {most}"

    def check(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value, re.ASCII):
            value = int(value)
        if type(value) is not int or value < least or (most is not None and value > most):
            raise ValueError(f"must be a whole number {bounds}")
        return value

    return check


def seconds(*, or_none: bool = False) -> Check:
    """Return a check for seconds: more than 0, or with ``or_none`` also 0."""
    bounds = "0 or more" if or_none else "more than 0"

    def check(value: Any) -> float:
        number = -1.0
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number or (isinstance(value, str) and _DECIMAL.fullmatch(value)):
            number = float(value)
        if not isfinite(number) or number < 0 or (number == 0 and not or_none):
            raise ValueError(f"must be {bounds} seconds, such as 2.5")
        return number

    return check


_DECIMAL = re.compile(r"\s*\+?([0-9]+\.?[0-9]*|\.[0-9]+)\s*", re.ASCII)


def one_of(*names: str, aliases: Mapping[str, str] | None = None) -> Check:
    """Return a check for one of these names. ``aliases`` are other words for them. Case and surrounding spaces
    don't matter."""
    every = {name.lower(): name for name in names} | dict(aliases or {})

    def check(value: Any) -> str:
        name = every.get(value.strip().lower()) if isinstance(value, str) else None
        if name is None:
            raise ValueError(f"must be {', '.join(names[:-1])} or {names[-1]}")
        return name

    return check


def url(*schemes: str, example: str) -> Check:
    """Return a check for a URL with one of these schemes."""

    def check(value: Any) -> str:
        value = text(value)
        if not is_url(value, *schemes):
            raise ValueError(f"must be a URL like {example}")
        return str(value)

    return check


def is_url(value: str, *schemes: str) -> bool:
    """Return whether a text is a URL with one of these schemes and a host."""
    try:
        parts = urlsplit(value)
        return parts.scheme in schemes and is_host(parts.hostname or "") and parts.port != 0 and " " not in value
    except ValueError:
        return False


def is_host(value: str) -> bool:
    """Return whether a text can be a host name or an IP address."""
    if ":" in value:
        return _IPV6.fullmatch(value) is not None
    if not _HOST.fullmatch(value) or len(value) > 253:
        return False
    try:
        labels = [each if each.isascii() else each.encode("idna") for each in value.removesuffix(".").split(".")]
    except UnicodeError:
        return False
    return all(0 < len(each) < 64 for each in labels)


_HOST = re.compile(r"[^\s/:?#@%\[\]\\]+")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%[^\s/]+)?")
