"""Frozen settings that are checked when they are made, and the search for each setting.

A class of settings is a frozen dataclass that inherits from :class:`Checked`, with fields made by :func:`setting`.
To make one reads nothing; :meth:`Checked.from_env` reads the environment. One exception lists all problems. No
message, no ``repr``, and no frame of an exception contains a secret (error reporters send frames).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, field, fields
from functools import cache
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ._checks import Check
from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from typing_extensions import Self

DOTENV = ".env"
"""The file in the working directory that settings are read from."""
ARGUMENT, ENVIRONMENT, DEFAULT = "argument", "environment", "default"
_NOT_TEXT = object()


class SecretStr:
    """A text that no ``repr``, ``str`` or log shows. :meth:`get_secret_value` returns it.

    Args:
        value: The text.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        """Return the secret."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "SecretStr('**********')"

    def __str__(self) -> str:
        return "**********"


class Found(NamedTuple):
    """A setting as it was found, before it is checked."""

    value: Any
    """The value. A secret is a :class:`SecretStr`."""
    source: str
    """``argument``, ``environment``, ``default``, or the path of the ``.env`` file."""
    differing: tuple[str, ...] = ()
    """Other sources that have another value, which is ignored."""
    line: int | None = None
    """The line in the ``.env`` file."""
    problem: str = ""
    """Why the line can't be read."""
    hint: str = ""
    """A warning that the value may not be what was meant."""

    @property
    def text(self) -> str:
        """The value as text. **This shows secrets.**"""
        return self.value.get_secret_value() if isinstance(self.value, SecretStr) else str(self.value)


def setting(check: Check, default: Any = MISSING, *, is_secret: bool = False) -> Any:
    """Declare a setting. Without a default it is required. A secret becomes a :class:`SecretStr`."""
    return field(default=default, metadata={"check": check, "is_secret": is_secret})


class Checked:
    """Base of all classes of settings."""

    ALTERNATIVES: ClassVar[Mapping[str, str]] = {}
    """Settings that replace each other: the one from the nearer source counts."""

    def __init__(self, **settings: Any) -> None:
        try:
            self._take(_arguments(type(self), settings), "pass it as a keyword argument, or use from_env()")
        finally:
            settings.clear()

    @classmethod
    def from_env(
        cls,
        *,
        dotenv: str | os.PathLike[str] | None = DOTENV,
        env: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Self:
        """Look up each setting: in the keyword arguments, then in the environment, then in the file ``dotenv``.

        The variable of a setting is ``REVERB_`` and its name in upper case. An empty variable counts as not set.
        ``dotenv`` is read as Laravel reads its own; None means no file. ``env`` replaces the environment.
        """
        try:
            found = look_up(cls, settings, dotenv=dotenv, env=env)
            made = cls.__new__(cls)
            made._take(found, f"set it in the environment or in {DOTENV}, or pass it as a keyword argument")
        finally:
            settings.clear()
        for name, each in found.items():
            if each.hint:
                getLogger(__name__).warning("%s %s", where(name, each), each.hint)
        return made

    # @dataclass could write these, but would compile them at each start.

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:  # works also if settings are missing
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def _take(self, found: Mapping[str, Found], if_missing: str) -> None:
        problems = []
        for name, known in _known(type(self)).items():
            each = found.get(name, known.not_found)
            if each.problem:
                problems.append(f"{where(name, each)} {each.problem}")
            elif known.default is MISSING and each is known.not_found:
                problems.append(f"{variable_of(name)} is missing: {if_missing}")
            else:
                try:
                    self.__dict__[name] = known.read(each.value)
                except ValueError as error:
                    problems.append(f"{where(name, each)} {error}")
        problems += self._compare()
        if problems:
            raise ConfigurationError("\n  ".join(["invalid settings:", *problems]))

    def _compare(self) -> Iterator[str]:
        """Yield the problems of settings that are each valid but don't fit together."""
        yield from ()


class _Known(NamedTuple):
    check: Check
    default: Any
    is_secret: bool
    not_found: Found
    """The setting if nobody has set it."""

    def read(self, value: Any) -> Any:
        if value is self.default:
            return value
        if not self.is_secret:
            return self.check(value)
        return SecretStr(self.check(value.get_secret_value() if isinstance(value, SecretStr) else value))

    def hide(self, value: Any) -> Any:
        if not self.is_secret or value is self.default:
            return value
        if hasattr(value, "get_secret_value"):  # this package's or pydantic's
            value = value.get_secret_value()
        return SecretStr(value) if isinstance(value, str) else _NOT_TEXT


def _find_known(cls: Any) -> dict[str, _Known]:
    return {
        each.name: _Known(
            each.metadata["check"],
            each.default,
            each.metadata["is_secret"],
            Found(None if each.default is MISSING else each.default, DEFAULT),
        )
        for each in fields(cls)
    }


_known: Callable[[Any], dict[str, _Known]] = cache(_find_known)
"""The settings of a class, by name."""


def _arguments(cls: type[Checked], settings: Mapping[str, Any]) -> dict[str, Found]:
    known = _known(cls)
    unknown = settings.keys() - known.keys()
    if unknown:
        raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}")
    return {name: Found(known[name].hide(value), ARGUMENT) for name, value in settings.items()}


def variable_of(name: str) -> str:
    return f"REVERB_{name.upper()}"


def variables_of(cls: type[Checked]) -> dict[str, str]:
    """Return the names of the settings of a class, by their variables."""
    return {variable_of(name): name for name in _known(cls)}


def where(name: str, found: Found) -> str:
    if found.line is not None:
        return f"{variable_of(name)} in {os.path.basename(found.source)}, line {found.line},"
    return variable_of(name) + (" in the environment" if found.source == ENVIRONMENT else "")


def look_up(
    cls: type[Checked],
    arguments: Mapping[str, Any],
    *,
    dotenv: str | os.PathLike[str] | None = DOTENV,
    env: Mapping[str, str] | None = None,
) -> dict[str, Found]:
    """Return for each setting of a class where its value comes from, by the rules of :meth:`Checked.from_env`.

    It checks nothing, so it also works with settings that are missing or wrong. Raises :class:`ConfigurationError`
    if the file can't be read.
    """
    text = (
        "" if dotenv is None else _read(Path(dotenv))
    )  # first, so that the environment is in no frame if this raises
    passed = _arguments(cls, arguments)
    environment = os.environ if env is None else env
    entries = {}
    if text:
        from ._dotenv import parse  # most services set variables of the environment

        entries = parse(text, environment)
    found = {}
    for name, known in _known(cls).items():
        variable = variable_of(name)
        given = [passed[name]] if name in passed else []
        if environment.get(variable):
            given.append(Found(known.hide(environment[variable]), ENVIRONMENT))
        entry = entries.get(variable)
        if entry is not None and (entry.value or entry.problem):
            hint = _HASH_HINT if entry.ends_at_hash else ""
            value = known.hide(entry.value or "")
            given.append(Found(value, str(Path(str(dotenv)).resolve()), (), entry.line, entry.problem, hint))
        first, *others = given or [known.not_found]
        differing = tuple(each.source for each in others if each.text != first.text)
        found[name] = first._replace(differing=differing) if differing else first
    for name, other in cls.ALTERNATIVES.items():
        nearness = [_nearness(found[each]) for each in (name, other)]
        if nearness[0] > nearness[1] and None not in (found[name].value, found[other].value):
            ignored = found[name]
            found[name] = _known(cls)[name].not_found._replace(differing=(ignored.source, *ignored.differing))
    return found


_HASH_HINT = (
    "ends before the #, which begins a comment; if the # belongs to the value, put the whole value in quotes"
)


def _read(dotenv: Path) -> str:
    try:
        text = dotenv.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise ConfigurationError(f"the file {dotenv} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16, which Windows PowerShell writes
        raise ConfigurationError(f"the file {dotenv} is not UTF-8 text: save it as UTF-8")
    return text


def _nearness(found: Found) -> int:
    return {ARGUMENT: 0, ENVIRONMENT: 1, DEFAULT: 3}.get(found.source, 2)
