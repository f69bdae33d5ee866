"""``reverb doctor``: print the results of the checks in ``examination.py``, and the likely causes of failures."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.status import Status
from rich.text import Text

from .. import ReverbConfig
from .._settings import Found, SecretStr, look_up, variable_of
from .._visible import bare
from ..exceptions import ConfigurationError
from .examination import Examination, Step
from .options import Given, configure, takes_server
from .process import ExitCode, complete, make_cancel
from .redaction import MASK, Redaction, holds_url
from .view import OutputConsole, print_json, printable

__all__ = ["describe", "doctor", "rows_of"]

_ALWAYS_SHOWN = ("host", "port", "scheme", "path", "origin", "app_id", "app_key", "app_secret", "auth_endpoint")
_OPTIONS = {"app_key": "key"}
"""Options whose names differ from the names of their settings."""
_DOTENV = ".env"
_NOT_POSTED = ("app_key",)
"""Settings that are not secret, and that ``--json`` hides: anybody who has them can connect."""
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
        typer.Argument(metavar="CHANNEL", help="Channels to subscribe to at the end, such as private-orders.7."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object per line, for programs, for each step: step, ok, seconds, detail, causes.",
        ),
    ] = False,
) -> None:
    """Check the settings, the connection and the server step by step, and say what to change.

    The command shows the settings and where each one comes from. Then it checks DNS, TCP, TLS, the WebSocket,
    channels and the HTTP API. A step that works has a check mark. A step that fails has a cross and its likely
    causes, the most likely first. A step that was skipped has a dash. `REVERB_CONNECT_TIMEOUT`, or the step's own
    timeout, limits each step.

    The check does not disturb other clients: it sends events only on a channel with a random name. On the presence
    channels that you name, a member `reverb-doctor-…` appears for a moment.

    The exit code is that of the first step that failed: 3 for the connection, 4 for a refusal.
    """
    failures: list[Step] = []
    complete(_examine(given, channels or [], failures, as_json=as_json))
    if failures:
        raise typer.Exit(failures[0].exit_code)


async def _examine(given: Given, channels: Sequence[str], failures: list[Step], *, as_json: bool) -> None:
    on_broken_pipe = make_cancel()
    view = _JsonLines(on_broken_pipe) if as_json else _View(OutputConsole(on_broken_pipe), channels)

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
    """A setting to show, with secrets masked."""

    variable: str
    value: str | None
    source: str


def rows_of(
    found: Mapping[str, Found],
    config: ReverbConfig | None,
    options: Mapping[str, str] = _OPTIONS,
    hidden: Collection[str] = (),
) -> list[Row]:
    """Return the settings to show: the most important ones, and all others that are set.

    ``options`` has the options whose names differ from the names of their settings. ``hidden`` are settings to
    mask as well, although they are not secret."""
    rows, redact = [], Redaction(found)
    first = [name for name in _ALWAYS_SHOWN if name in found]
    others = [name for name, each in found.items() if name not in _ALWAYS_SHOWN and each.source != "default"]
    for name in first + others:
        each = found[name]
        value = _shown(name, each, is_hidden=name in hidden)
        if config is not None and name in ("host", "path", "scheme") and getattr(config, name) != value:
            value = f"{value}, used as {getattr(config, name)}" if getattr(config, name) else value
        source = _source(name, each.source, options)
        if each.differing:
            source += f"; differs in {' and '.join(_source(name, other, options) for other in each.differing)}"
        if each.hint:
            source += "; cut off at #"
        rows.append(Row(variable_of(name), redact(value) or None, source))
    return rows


def _shown(name: str, found: Found, *, is_hidden: bool) -> str:
    if found.value is None:
        return ""
    text = found.text
    if not isinstance(found.value, SecretStr) and not is_hidden:
        return text
    return bare(text) if holds_url(name, text) else f"{MASK} ({len(text)} characters)"


def _source(name: str, source: str, options: Mapping[str, str]) -> str:
    if source == "argument":
        return f"--{options.get(name, name).replace('_', '-')}"
    return source if source in ("environment", "default") else ".env"


# --- what it looks like ----------------------------------------------------------------------------------------


class _View:
    """Prints a line for each setting and each step, for people.

    In a terminal the lines have colours and fit the width, and a spinner shows the running step. In a pipe nothing
    is wrapped."""

    def __init__(self, console: Console, channels: Sequence[str]) -> None:
        self._console = console
        lengths = (len(printable(channel)) for channel in channels)
        self._name_width = max((each for each in lengths if each <= _MAX_NAME_WIDTH), default=0)
        self._name_width = max(self._name_width, _NAME_WIDTH)
        self._width = console.width if console.is_terminal else None
        self._marks = _ASCII_MARKS if console.options.ascii_only else _MARKS
        self._status: Status | None = None
        self._skipped: list[Step] = []
        """The latest skipped steps. They have the same reason, and are printed together."""

    def __enter__(self) -> None:
        """Do nothing: the spinner starts with the first step."""

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
        self._print(Text(f".env is {file}" if file.is_file() else f"no file .env in {file.parent}", "dim"))
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
            hint = "The first cause of each is the most likely one."
            head = Text("Failed: ", "bold red")
            self._print(head, f"{names}. {hint}", "", head.cell_len)
        else:
            self._print(Text("Nothing failed.", "green"))

    def _print(self, head: Text, text: str = "", style: str = "", indent: int = 0) -> None:
        """Print ``head`` and ``text``. Further lines of a long text start in the column ``indent``."""
        lines = [printable(line) for line in text.split("\n")]
        if self._width is not None:
            width = max(self._width - indent, _MIN_TEXT_WIDTH)
            lines = [part for line in lines for part in textwrap.wrap(line, width, break_on_hyphens=False) or [""]]
        for line in lines:
            head.append(line, style)
            self._console.print(head, soft_wrap=True)
            head = Text(" " * indent)


def describe(step: Step, rows: Sequence[Row] = ()) -> dict[str, Any]:
    """Return a step as a JSON object. ``rows`` adds the settings to it."""
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
    """Prints one JSON object per step, for programs and for public reports."""

    def __init__(self, on_broken_pipe: Callable[[], None]) -> None:
        self._on_broken_pipe = on_broken_pipe
        self._rows: Sequence[Row] = []
        self._redact = Redaction({})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def begin(self, name: str) -> None:
        """Print nothing: the step is printed at its end."""

    def settings(self, found: Mapping[str, Found], config: ReverbConfig | None) -> None:
        self._rows = rows_of(found, config, hidden=_NOT_POSTED)
        self._redact = Redaction(found, *_NOT_POSTED)

    def step(self, step: Step) -> None:
        fields = describe(step.redacted(self._redact), self._rows)
        self._rows = []
        print_json(fields, self._on_broken_pipe)

    def end(self, failures: Sequence[Step]) -> None:
        """Print nothing: the lines of the steps are complete."""


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
