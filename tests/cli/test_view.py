"""How events look."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from reverb.cli.view import JsonLines, View, printable


def render(*, width: int, terminal: bool, events: list[tuple[str, object, str, str | None]]) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None, highlight=False)
    view = View(console, ["news", "private-orders.7"])
    for event in events:
        view.event(*event)
    return [re.sub(r"^\d\d:\d\d:\d\d", "12:34:56", line).rstrip() for line in out.getvalue().splitlines()]


def test_columns() -> None:
    events: list[tuple[str, object, str, str | None]] = [
        ("paid", {"id": 1}, "news", None),
        (r"App\Events\OrderShipped", "text", "private-orders.7", None),
        ("client-typing", [1], "news", "7"),
        ("nothing", None, "news", None),
        ("漢字", {"name": "Zoë"}, "news", None),
    ]
    assert render(width=100, terminal=False, events=events) == [
        '12:34:56  news              paid                      {"id": 1}',
        '12:34:56  private-orders.7  App\\Events\\OrderShipped   "text"',
        "12:34:56  news              client-typing             from 7  [1]",
        "12:34:56  news              nothing",
        '12:34:56  news              漢字                      {"name": "Zoë"}',
    ]


def test_a_pipe_gets_one_line_an_event() -> None:
    (line,) = render(width=40, terminal=False, events=[("paid", "x" * 500, "news", None)])
    assert line.endswith("x" * 500 + '"')


@pytest.mark.parametrize("width", [12, 40, 60, 80, 100, 200])
def test_a_terminal_gets_what_fits_in_its_width(width: int) -> None:
    head, *payload = render(width=width, terminal=True, events=[("paid", "x" * 500, "news", None)])
    assert head == "12:34:56  news              paid"
    assert "".join(line.strip() for line in payload) == '"' + "x" * 500 + '"'
    assert all(len(line) <= width for line in payload)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Zoë 漢字 🚚", "Zoë 漢字 🚚"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\x9b\x7f", r"a\nb\x9b\x7f"),
        ("\u202eevil", r"\u202eevil"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("\ud800", r"\ud800"),
    ],
)
def test_nothing_steers_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
    (line,) = render(width=200, terminal=True, events=[(text, text, text, text)])
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", line)


def test_markup_is_text() -> None:
    (line,) = render(width=200, terminal=True, events=[("[red]x[/red]", {"a": ":smile:[/]"}, "[b]", None)])
    assert "[red]x[/red]" in line
    assert '{"a": ":smile:[/]"}' in line
    assert "[b]" in line


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines(on_broken_pipe=pytest.fail)
    lines.event("paid", {"id": 1}, "news")
    lines.event("client-a", "Zoë\n", None, "7")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", first.pop("time"))
    assert list(first.items()) == [("channel", "news"), ("event", "paid"), ("data", {"id": 1})]
    del second["time"]
    lines.event("far", [float("inf"), {"a": float("nan"), "b": 1.5}], "news")
    assert '"data": [null, {"a": null, "b": 1.5}]}' in capsys.readouterr().out
    assert second == {"channel": None, "event": "client-a", "data": "Zoë\n", "user_id": "7"}
