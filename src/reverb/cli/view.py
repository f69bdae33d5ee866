"""How commands print events: columns for people, JSON lines for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from math import isfinite
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.padding import Padding
from rich.text import Text

from .._protocol import is_presence, needs_auth
from .._visible import visible
from ..exceptions import plural

__all__ = [
    "JsonLines",
    "OutputConsole",
    "View",
    "channel_style",
    "dump_json",
    "fill",
    "plural",
    "print_json",
    "printable",
]

_GAP = "  "
_TIME_WIDTH = len("12:34:56")
_MIN_WIDTH, _USUAL_WIDTH = 20, 80
"""Cells. Below the minimum, tables show nothing. Some wrappers set COLUMNS=0 when they don't know the width."""
_MIN_PAYLOAD_WIDTH = 40
"""Cells. A payload that doesn't fit goes below its event when it would have fewer cells than this."""

_highlight_json = JSONHighlighter()


class OutputConsole(Console):
    """The standard output. Calls its argument when nobody reads it any more."""

    def __init__(self, on_broken_pipe: Callable[[], None]) -> None:
        super().__init__(highlight=False)
        self._on_broken_pipe = on_broken_pipe
        if self.width < _MIN_WIDTH:
            self.width = _MIN_WIDTH if self.width else _USUAL_WIDTH

    def on_broken_pipe(self) -> None:
        self._on_broken_pipe()


class View:
    """Prints events in columns: time, channel, event, payload.

    In a terminal the columns have colours and fit the width. In a pipe each event is one line without colours."""

    def __init__(self, console: Console, channels: Iterable[str], event_width: int = 24) -> None:
        self._console = console
        self._channel_width = max((cell_len(printable(channel)) for channel in channels), default=0)
        self._event_width = event_width

    def event(self, event: str, data: Any, channel: str | None, user_id: str | None = None) -> None:
        channel, event = printable(channel or "-"), printable(event)
        self._channel_width = max(self._channel_width, cell_len(channel))
        self._event_width = max(self._event_width, cell_len(event))
        line = Text.assemble(
            (f"{datetime.now():%H:%M:%S}", "dim"),
            _GAP,
            (fill(channel, self._channel_width), channel_style(channel)),
            _GAP,
            (event, "dim" if event.startswith("pusher") else "bold"),
        )
        payload = Text()
        if user_id is not None:
            payload.append(f"from {printable(user_id)}  ", "magenta")
        if data is not None:
            payload.append_text(_highlight_json(printable(json.dumps(data, ensure_ascii=False, default=str))))
        payload_column = _TIME_WIDTH + self._channel_width + self._event_width + 3 * len(_GAP)
        remaining = self._console.width - payload_column
        if self._console.is_terminal and payload.cell_len > remaining:
            self._console.print(line, soft_wrap=True)
            indent = payload_column
            if remaining < _MIN_PAYLOAD_WIDTH:
                indent -= self._event_width + len(_GAP)
            if self._console.width - indent < _MIN_PAYLOAD_WIDTH:
                indent = _TIME_WIDTH + len(_GAP)
            self._console.print(Padding(payload, (0, 0, 0, indent)), overflow="fold")
            return
        if payload:
            line.append(" " * (payload_column - line.cell_len))
            line.append_text(payload)
        self._console.print(line, soft_wrap=True)

    def status(self, message: str, style: str = "") -> None:
        """Print a message about something other than an event, such as the connection."""
        time = (f"{datetime.now():%H:%M:%S}", "dim")
        self._console.print(Text.assemble(time, _GAP, (printable(message), style)), soft_wrap=True)


class JsonLines:
    """Prints one JSON object per line, each at once. Calls its argument when nobody reads them any more."""

    def __init__(self, on_broken_pipe: Callable[[], None]) -> None:
        self._on_broken_pipe = on_broken_pipe

    def event(self, event: str, data: Any, channel: str | None, user_id: str | None = None) -> None:
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        fields = {"time": time, "channel": channel, "event": event, "data": data}
        if user_id is not None:
            fields["user_id"] = user_id
        print_json(fields, self._on_broken_pipe)


def dump_json(value: Any, *, ensure_ascii: bool = True) -> str:
    """Encode as JSON that every parser accepts: a number out of range becomes null, as in a browser."""
    try:
        return json.dumps(value, ensure_ascii=ensure_ascii, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=ensure_ascii)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value


def print_json(fields: Mapping[str, Any], on_broken_pipe: Callable[[], None]) -> None:
    """Print an object as one line, at once. Calls ``on_broken_pipe`` when nobody reads it any more."""
    try:
        print(dump_json(fields), flush=True)
    except BrokenPipeError:
        on_broken_pipe()


def printable(text: str) -> str:
    """Write control characters as escapes, so that text of others can't control the terminal."""
    return visible(text, None)


def fill(text: str, width: int) -> str:
    """Pad a text to a width in cells. A wide character takes two cells."""
    return text + " " * (width - cell_len(text))


def channel_style(channel: str) -> str:
    """Return the colour for the kind of a channel: public, private or presence."""
    if is_presence(channel):
        return "magenta"
    return "yellow" if needs_auth(channel) else "green"
