r"""Reads a ``.env`` file as Laravel reads it: by the rules of phpdotenv 5, and then of Laravel's ``env()``.

Most often the ``.env`` file belongs to the Laravel application. If the client read the secret differently, the
server would refuse its signatures. These rules differ from those of other readers:

- Without quotes, a value ends at the first space or ``#``: ``s3cret#2024`` is ``s3cret``.
- In single quotes, every character stands for itself. In double quotes, ``\"``, ``\\``, ``\$``, ``\n``, ``\r``,
  ``\t``, ``\f`` and ``\v`` are escapes, others are an error, and a value may have several lines.
- ``${NAME}`` means a variable of the environment or of a line above, but not in single quotes. If there is no such
  variable, the text stays unchanged.
- ``null`` is no value, ``empty`` is an empty value, ``(true)`` is ``true``. Quotes inside quotes are removed, too.

If Laravel rejects the whole file, here only the variable concerned has a problem.
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
    """A variable in the file."""

    line: int
    value: str | None
    """The value. None if there is none, or if it can't be read."""
    problem: str = ""
    """Why it can't be read."""
    ends_at_hash: bool = False
    """Whether a ``#`` comes right after the value. It may be meant as a part of the value."""


def parse(text: str, environment: Mapping[str, str]) -> dict[str, Entry]:
    """Return the variables of a file. If a variable occurs twice, the last one counts."""
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
        return entry._replace(
            problem="has a backslash in double quotes that is not a valid escape; use single quotes"
        )
    ends_at_hash = bool(found["bare"]) and found.string.startswith("#", found.end("bare"))
    return entry._replace(value=_as_env_says(value), ends_at_hash=ends_at_hash)


def _as_env_says(value: str) -> str | None:
    """Do what Laravel's ``env()`` does with a value."""
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    quoted = _QUOTES.fullmatch(value)
    return value if quoted is None else quoted[2]


def _explain(rest_of_line: str) -> str:
    if re.fullmatch(r"""'[^']*|"(?:[^"\\]|\\.)*""", rest_of_line):
        return "begins with a quote that is not closed"
    return "has more text after a space or a quote; put the whole value in quotes"
