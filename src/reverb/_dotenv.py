r"""Reads a ``.env`` as Laravel reads it: by the rules of phpdotenv 5, and then of Laravel's ``env()``.

A ``.env`` is most often the Laravel application's own, and a secret that is read differently there is a signature
that is refused here. What differs from other readers of such files:

- Without quotes, a value ends at the first space or ``#``: ``s3cret#2024`` is ``s3cret``.
- In single quotes everything is as it stands. In double quotes ``\"``, ``\\``, ``\$``, ``\n``, ``\r``, ``\t``,
  ``\f`` and ``\v`` are escapes, no others are allowed, and a value may go on over several lines.
- ``${NAME}`` stands for a variable of the environment or of a line above, but not in single quotes; where there is
  no such variable, it stays as it is written.
- ``null`` is no value, ``empty`` an empty one, ``(true)`` is ``true``; quotes within quotes are taken off, too.

Where Laravel gives up on the whole file, only the variable concerned is a problem here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_NAME = re.compile(
    r"""^[ \t]* (?:export[ \t]+)? (?P<quote>['"]?)(?P<name>[A-Za-z0-9_.]+)(?P=quote)
    [ \t]* (?P<equals>=[ \t]*|$)""",
    re.MULTILINE | re.VERBOSE,
)
_VALUE = re.compile(
    r"""(?: '(?P<single>[^'\n]*)' | "(?P<double>(?:[^"\\]|\\[\s\S])*)" | (?P<bare>(?:[^\s\#'"][^\s\#]*)?) )
    [ \t\v\f]* (?:\#.*)? $""",
    re.MULTILINE | re.VERBOSE,
)
_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.]+)\}")
_ESCAPE_OR_REFERENCE = re.compile(r"\\([\s\S])|" + _REFERENCE.pattern)
_ESCAPES = {'"': '"', "\\": "\\", "$": "$", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_WORDS = {"null": None, "(null)": None, "empty": "", "(empty)": "", "(true)": "true", "(false)": "false"}
_QUOTES = re.compile(r"""(['"])(.*)\1""")


class Entry(NamedTuple):
    """What a file says about a variable."""

    line: int
    value: str | None
    """None for a variable that has none, or whose value can't be read."""
    problem: str = ""
    """Why it can't be read."""
    ends_at_hash: bool = False
    """Whether a ``#`` is right behind the value, which somebody may have meant to be part of it."""


def parse(text: str, environment: Mapping[str, str]) -> dict[str, Entry]:
    """Return the variables of a file; of those that are there twice, the last."""
    text = re.sub(r"\r\n?", "\n", text)
    entries: dict[str, Entry] = {}
    position = line = 0
    while assignment := _NAME.search(text, position):
        line += text.count("\n", position, assignment.start())
        position = assignment.end()
        entry = Entry(line + 1, None)
        if assignment["equals"]:
            value = _VALUE.match(text, position)
            if value is None:
                entry = entry._replace(problem=_explain(text[position:].partition("\n")[0]))
            else:
                entry = _read(value, entry, entries, environment)
                line += text.count("\n", position, value.end())
                position = value.end()
        entries[assignment["name"]] = entry
    return entries


def _read(found: re.Match[str], entry: Entry, above: Mapping[str, Entry], environment: Mapping[str, str]) -> Entry:
    has_unknown_escape = False

    def look_up(reference: re.Match[str]) -> str:
        name = reference[reference.lastindex or 0]
        value = environment[name] if name in environment else above[name].value if name in above else None
        return reference[0] if value is None else value

    def unescape(match: re.Match[str]) -> str:
        nonlocal has_unknown_escape
        if match[1] is None:
            return look_up(match)
        has_unknown_escape |= match[1] not in _ESCAPES
        return _ESCAPES.get(match[1], "")

    if found["single"] is not None:
        value = found["single"]
    elif found["double"] is not None:
        value = _ESCAPE_OR_REFERENCE.sub(unescape, found["double"])
    else:
        value = _REFERENCE.sub(look_up, found["bare"])
    if has_unknown_escape:
        return entry._replace(problem="has a backslash in double quotes that begins no escape; use single quotes")
    ends_at_hash = bool(found["bare"]) and found.string.startswith("#", found.end("bare"))
    return entry._replace(value=_as_env_says(value), ends_at_hash=ends_at_hash)


def _as_env_says(value: str) -> str | None:
    """Do what Laravel's ``env()`` does to a value."""
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    quoted = _QUOTES.fullmatch(value)
    return value if quoted is None else quoted[2]


def _explain(rest_of_line: str) -> str:
    if re.fullmatch(r"""'[^']*|"(?:[^"\\]|\\.)*""", rest_of_line):
        return "begins with a quote that is not closed"
    return "goes on behind a space or a quote; put the whole value in quotes"
