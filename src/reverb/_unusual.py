"""JSON that msgspec refuses, and others write: half an emoji, and numbers out of range.

Imported when such JSON comes, which it never does to most programs.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ._protocol import DECODE_ERRORS, check_json

_JSON_START = re.compile(r'[{\["]|-?[0-9]')
"""How JSON begins that can hold what :func:`decode_unusual` is for."""
_SURROGATES = re.compile(
    r"(?<!\\)((?:\\\\)*)(\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\ud[89a-f][0-9a-f]{2})", re.IGNORECASE
)
"""A pair of surrogates, or half of one, behind any number of escaped backslashes."""
_PAIR = len(r"\ud83d\ude00")
_MAX_DIGITS = 4300
"""Python reads no longer integers, since that takes long: see :func:`sys.set_int_max_str_digits`."""


def parse_unusual(text: str) -> Any:
    """As :func:`reverb._protocol.parse_data`, for a string that msgspec has refused."""
    if not _JSON_START.match(text.lstrip()):
        return text
    try:
        return decode_unusual(text)
    except DECODE_ERRORS:
        return text


def is_unusual_json(text: str) -> bool:
    """Whether a text that msgspec has refused is JSON all the same, with half a surrogate pair in it."""
    if r"\u" not in text:
        return False
    try:
        check_json(_SURROGATES.sub(_mend, text))
    except DECODE_ERRORS:
        return False
    return True


def decode_unusual(text: str) -> Any:
    """Decode JSON, also what msgspec refuses of it; raise one of DECODE_ERRORS for what is none.

    Half a surrogate pair (``"\\ud83d"``: JavaScript's ``slice()`` cuts emojis in two) becomes U+FFFD, as in a
    browser that encodes it; in a ``str`` it would be an error of whoever writes it to a file or a socket. A float
    out of range is ``inf``, as is an integer that is longer than Python reads. ``NaN`` and ``Infinity``, which
    are no JSON, are what Python's json writes for them.
    """
    if r"\u" in text:  # to look for that takes a tenth of the time
        text = _SURROGATES.sub(_mend, text)
    return _decode(text)


def _mend(found: re.Match[str]) -> str:
    return found[0] if len(found[2]) == _PAIR else f"{found[1]}\N{REPLACEMENT CHARACTER}"


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


_decode = json.JSONDecoder(parse_int=_parse_int).decode
