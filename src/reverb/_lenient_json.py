"""JSON that msgspec refuses but other programs write: half an emoji, and numbers out of range.

Imported only when such JSON arrives, which most programs never see.
"""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATES = re.compile(
    r"(?<!\\)((?:\\\\)*)(\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\ud[89a-f][0-9a-f]{2})", re.IGNORECASE
)
"""A pair of surrogates, or half of one, after any number of escaped backslashes."""
_PAIR = len(r"\ud83d\ude00")
_MAX_DIGITS = 4300
"""Python reads no longer integers, because that takes long: see :func:`sys.set_int_max_str_digits`."""


def mend_surrogates(text: str) -> str:
    """Return the text with U+FFFD in place of each half of a surrogate pair."""
    return _SURROGATES.sub(_mend, text) if r"\u" in text else text  # this check takes a tenth of the time


def decode_lenient(text: str) -> Any:
    """Decode JSON, including JSON that msgspec refuses; raise ValueError or RecursionError for other texts.

    Half a surrogate pair (``"\\ud83d"``: JavaScript's ``slice()`` cuts emojis in two) becomes U+FFFD, as in a
    browser that encodes it. In a ``str`` it would raise as soon as somebody writes it to a file or a socket. A
    float out of range is ``inf``, and so is an integer that is longer than Python reads. ``NaN`` and ``Infinity``,
    which are not JSON, are accepted because Python's json writes them.
    """
    return _decode(mend_surrogates(text))


def _mend(found: re.Match[str]) -> str:
    return found[0] if len(found[2]) == _PAIR else f"{found[1]}\N{REPLACEMENT CHARACTER}"


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


_decode = json.JSONDecoder(parse_int=_parse_int).decode
