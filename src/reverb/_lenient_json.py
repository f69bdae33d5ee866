"""JSON that msgspec refuses but other programs write: half an emoji, and numbers out of range.

Imported only when such JSON arrives, which most programs never see.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ._protocol import DECODE_ERRORS, check_json

_JSON_START = re.compile(r'[{\["]|-?[0-9]')
"""The beginnings of JSON that :func:`decode_lenient` is for."""
_SURROGATES = re.compile(
    r"(?<!\\)((?:\\\\)*)(\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\ud[89a-f][0-9a-f]{2})", re.IGNORECASE
)
"""A pair of surrogates, or half of one, after any number of escaped backslashes."""
_PAIR = len(r"\ud83d\ude00")
_MAX_DIGITS = 4300
"""Python reads no longer integers, because that takes long: see :func:`sys.set_int_max_str_digits`."""


def parse_lenient(text: str) -> Any:
    """Do what :func:`reverb._protocol.parse_data` does, for a string that msgspec has refused."""
    if not _JSON_START.match(text.lstrip()):
        return text
    try:
        return decode_lenient(text)
    except DECODE_ERRORS:
        return text


def is_lenient_json(text: str) -> bool:
    """Return whether a text that msgspec has refused is JSON with half a surrogate pair in it."""
    if r"\u" not in text:
        return False
    try:
        check_json(_SURROGATES.sub(_mend, text))
    except DECODE_ERRORS:
        return False
    return True


def decode_lenient(text: str) -> Any:
    """Decode JSON, including JSON that msgspec refuses; raise one of DECODE_ERRORS for other texts.

    Half a surrogate pair (``"\\ud83d"``: JavaScript's ``slice()`` cuts emojis in two) becomes U+FFFD, as in a
    browser that encodes it. In a ``str`` it would raise as soon as somebody writes it to a file or a socket. A
    float out of range is ``inf``, and so is an integer that is longer than Python reads. ``NaN`` and ``Infinity``,
    which are not JSON, are accepted because Python's json writes them.
    """
    if r"\u" in text:  # this check takes a tenth of the time
        text = _SURROGATES.sub(_mend, text)
    return _decode(text)


def _mend(found: re.Match[str]) -> str:
    return found[0] if len(found[2]) == _PAIR else f"{found[1]}\N{REPLACEMENT CHARACTER}"


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


_decode = json.JSONDecoder(parse_int=_parse_int).decode
