"""``reverb doctor``: whether everything works, step by step, and what to change where it does not."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.status import Status
from rich.text import Text

from .. import ReverbConfig
from .._checks import is_url
from .._settings import Found, SecretStr, look_up, variable_of
from .._visible import bare
from ..exceptions import ConfigurationError
from .examination import Examination, Step
from .options import Given, configure, takes_server
from .process import ExitCode, complete, ends_this_task
from .view import OutputConsole, print_json, printable

__all__ = ["describe", "doctor", "rows_of"]

_ALWAYS_SHOWN = ("host", "port", "scheme", "path", "origin", "app_id", "app_key", "app_secret", "auth_endpoint")
_OPTIONS = {"app_key": "key"}
"""Options that are not called like their settings."""
_DOTENV = ".env"
_MASK = "********"
_NOTHING = "-"
_MAX_VALUE_WIDTH = 36
_MIN_TEXT_WIDTH = 30
_NAME_WIDTH = len("private channel")
_MAX_NAME_WIDTH = 24
_TIME_WIDTH = 8
_STYLES = {True: "green", False: "bold red", None: "dim"}
_MARKS = {True: "✓", False: "✗", None: "–"}  # noqa: RUF001
_ASCII_MARKS = {True: "ok", False: "NO", None: "--"}


@takes_server(with_app_id=True)
def doctor(
    given: Given,
    channels: Annotated[
        list[str] | None,
        typer.Argument(metavar="CHANNEL", help="Channels to subscribe to, such as private-orders.7."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="For programs: one JSON object a line for each step: step, ok, seconds, detail, causes."
        ),
    ] = False,
) -> None:
    """Find out what does not work, and what to change: here, on the server, or in the proxy between.

    Shows the settings and where each comes from, then tries one thing after another, from the server's name to
    an event that makes its round. What works has a check mark, what fails a cross and the likely causes, the
    likeliest first; what can't be tried, or need not be, has a dash. Each step is limited by
    `REVERB_CONNECT_TIMEOUT`, or the timeout that is its own.

    Nobody is disturbed: events are sent on a channel with a made-up name only, never on those that are named here.
    On presence channels that are named, a member `reverb-doctor-…` shows for a moment.

    The exit code is that of the first step that failed: 3 where it was the connection, 4 where somebody refused.
    """
    failures: list[Step] = []
    complete(_examine(given, channels or [], failures, as_json=as_json))
    if failures:
        raise typer.Exit(failures[0].exit_code)


async def _examine(given: Given, channels: Sequence[str], failures: list[Step], *, as_json: bool) -> None:
    on_unread = ends_this_task()
    view = _JsonLines(on_unread) if as_json else _View(OutputConsole(on_unread), channels)

    def report(step: Step) -> None:
        if step.ok is False:
            failures.append(step)
        view.step(step)

    with view:
        began = monotonic()
        found: Mapping[str, Found] = {}
        try:
            found = look_up(ReverbConfig, given)
            config = configure(given)
        except ConfigurationError as error:
            view.settings(found, None)
            report(Step("settings", False, monotonic() - began, str(error), exit_code=ExitCode.USAGE))
        else:
            view.settings(found, config)
            report(Step("settings", True, monotonic() - began, "complete and valid"))
            await Examination(config, found, view.begin, report).run(channels)
        view.end(failures)


# --- settings --------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A setting as it may be shown."""

    variable: str
    value: str | None
    source: str


def rows_of(
    found: Mapping[str, Found], config: ReverbConfig | None, options: Mapping[str, str] = _OPTIONS
) -> list[Row]:
    """What was found, but for what nobody has set and few ever do. ``options`` that are not called like their
    settings have other names in another command."""
    rows = []
    first = [name for name in _ALWAYS_SHOWN if name in found]
    others = [name for name, each in found.items() if name not in _ALWAYS_SHOWN and each.source != "default"]
    for name in first + others:
        each = found[name]
        value = _shown(name, each)
        if config is not None and name in ("host", "path", "scheme") and getattr(config, name) != value:
            value = f"{value}, which is {getattr(config, name)}" if getattr(config, name) else value
        source = _source(name, each.source, options)
        if each.differing:
            source += f", unlike {' and '.join(_source(name, other, options) for other in each.differing)}"
        if each.hint:
            source += ", cut off at its #"
        rows.append(Row(variable_of(name), value or None, source))
    return rows


def _shown(name: str, found: Found) -> str:
    if found.value is None:
        return ""
    text = found.text
    if not isinstance(found.value, SecretStr):
        return text
    # These are secret because there may be a password in them.
    if name in ("auth_endpoint", "proxy") and is_url(text, "http", "https", "socks5"):
        return bare(text)
    return f"{_MASK} ({len(text)} characters)"


def _source(name: str, source: str, options: Mapping[str, str]) -> str:
    if source == "argument":
        return f"--{options.get(name, name).replace('_', '-')}"
    return source if source in ("environment", "default") else ".env"


# --- what it looks like ----------------------------------------------------------------------------------------


class _View:
    """For people: a line for each setting and each step. On a terminal in colour, fitted to its width, and with
    something that turns while a step takes long; in a pipe without, and nothing is wrapped."""

    def __init__(self, console: Console, channels: Sequence[str]) -> None:
        self._console = console
        lengths = (len(printable(channel)) for channel in channels)
        self._name_width = max((each for each in lengths if each <= _MAX_NAME_WIDTH), default=0)
        self._name_width = max(self._name_width, _NAME_WIDTH)
        self._width = console.width if console.is_terminal else None
        self._marks = _ASCII_MARKS if console.options.ascii_only else _MARKS
        self._status: Status | None = None
        self._skipped: list[Step] = []
        """The latest, which all have the same reason: shown together."""

    def __enter__(self) -> None:
        """What turns begins to with the first step."""

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def begin(self, name: str) -> None:
        text = Text(f"{printable(name)} …", "dim")
        if self._status is not None:
            self._status.update(text)
        elif self._console.is_terminal:
            self._status = self._console.status(text)
            self._status.start()

    def settings(self, found: Mapping[str, Found], config: ReverbConfig | None) -> None:
        rows = rows_of(found, config)
        width = max((len(row.variable) for row in rows), default=0)
        value_width = min(max((len(row.value or _NOTHING) for row in rows), default=0), _MAX_VALUE_WIDTH)
        for row in rows:
            value = printable(row.value or _NOTHING)
            line = Text(f"{row.variable:{width}}  ", "dim")
            line.append(f"{value:{value_width}}", "" if row.value is None else "bold not dim")
            if self._width is not None and line.cell_len + len(f"  {row.source}") > self._width:
                self._print(line)
                line = Text(" " * width)
            line.append(f"  {row.source}", "dim")
            self._print(line)
        file = Path(_DOTENV).resolve()
        self._print(Text(f".env is {file}" if file.is_file() else f"there is no .env in {file.parent}", "dim"))
        self._print(Text())

    def step(self, step: Step) -> None:
        if self._skipped and (step.ok is not None or step.detail != self._skipped[0].detail):
            self._flush()
        if step.ok is None:
            self._skipped.append(step)
            return
        took = _duration(step.seconds or 0.0)
        self._step(step.ok, step.name, took, step.detail, "" if step.ok else "red")
        for number, cause in enumerate(step.causes, 1):
            start = " " * (len(self._marks[False]) + 1) + f"{number}. "
            self._print(Text(start, "yellow"), cause, "", len(start))

    def _flush(self) -> None:
        first, *others = self._skipped
        if others:
            names = ", ".join(step.name for step in self._skipped)
            self._step(None, first.detail, "", names, "dim")
        else:
            self._step(None, first.name, "", first.detail, "dim")
        self._skipped.clear()

    def _step(self, ok: bool | None, name: str, took: str, text: str, style: str) -> None:
        mark, name = self._marks[ok], printable(name)
        head = Text.assemble((mark, _STYLES[ok]), " ", (name, "dim" if ok is None else "bold"))
        column = len(mark) + 1 + self._name_width + 2 + _TIME_WIDTH
        if head.cell_len + 1 + len(took) > column:
            if self._width is not None:
                self._print(head)
                head = Text()
            column = max(column, head.cell_len + 2 + len(took))
        head.append(f"{took:>{column - head.cell_len}}  ", "dim")
        self._print(head, text, style, column + 2)

    def end(self, failures: Sequence[Step]) -> None:
        if self._skipped:
            self._flush()
        self._print(Text())
        if failures:
            names = ", ".join(printable(step.name) for step in failures)
            self._print(Text("Failed: ", "bold red"), f"{names}. What stands first is the likeliest cause.", "", 0)
        else:
            self._print(Text("Nothing failed.", "green"))

    def _print(self, head: Text, text: str = "", style: str = "", indent: int = 0) -> None:
        """Print a line: ``head``, and ``text``, which goes on in the column ``indent`` where it is too long."""
        lines = [printable(line) for line in text.split("\n")]
        if self._width is not None:
            width = max(self._width - indent, _MIN_TEXT_WIDTH)
            lines = [part for line in lines for part in textwrap.wrap(line, width, break_on_hyphens=False) or [""]]
        for line in lines:
            head.append(line, style)
            self._console.print(head, soft_wrap=True)
            head = Text(" " * indent)


def describe(step: Step, rows: Sequence[Row] = ()) -> dict[str, Any]:
    """Return a step as programs get it; the first one comes with the settings."""
    fields: dict[str, Any] = {
        "step": step.name,
        "ok": step.ok,
        "seconds": None if step.seconds is None else round(step.seconds, 6),
        "detail": step.detail,
        "causes": list(step.causes),
    }
    if rows:
        fields["settings"] = [row._asdict() for row in rows]
    return fields


class _JsonLines:
    """For programs: one object a line."""

    def __init__(self, on_unread: Callable[[], None]) -> None:
        self._on_unread = on_unread
        self._rows: Sequence[Row] = []

    def __enter__(self) -> None:
        """There is nothing to end."""

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def begin(self, name: str) -> None:
        """Told when it is over."""

    def settings(self, found: Mapping[str, Found], config: ReverbConfig | None) -> None:
        self._rows = rows_of(found, config)

    def step(self, step: Step) -> None:
        fields = describe(step, self._rows)
        self._rows = []
        print_json(fields, self._on_unread)

    def end(self, failures: Sequence[Step]) -> None:
        """Each line says all there is to say."""


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
