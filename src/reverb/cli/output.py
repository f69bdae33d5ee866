"""How commands print answers: a sentence or a table for people, JSON lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table
from rich.text import Text

from .process import ExitCode, discard_output
from .view import OutputConsole, fill, printable

__all__ = ["Cell", "print_lines", "progress_bar", "show", "show_table"]

Cell = str | int | Text | None
"""The value of a table cell. None means not known, and shows as a dash."""

_GAP = "  "


def show(objects: Iterable[dict[str, Any]], sentence: str, *, as_json: bool) -> None:
    """Print an answer: ``objects`` for programs, ``sentence`` for people."""
    if as_json:
        print_lines(json.dumps(each) for each in objects)
    else:
        print_lines([printable(sentence)])


def show_table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table. It fits the width of a terminal. In a pipe each row is one line, and nothing is cut off."""
    console = OutputConsole(_leave)
    cells = [[_text(cell) for cell in row] for row in rows]
    if not console.is_terminal:
        lines = [list(head), *([cell.plain for cell in row] for row in cells)]
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        print_lines(
            _GAP.join(fill(text, width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", border_style="dim")
    for number, name in enumerate(head):
        is_number = all(isinstance(row[number], int | None) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def progress_bar(*, auto_refresh: bool = True) -> Progress:
    """Make a progress bar. It shows on the standard error, in a terminal only, and disappears at the end."""
    console = Console(stderr=True)
    console.quiet = not console.is_terminal  # rich before 14.3 ends a disabled bar with an empty line
    return Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        auto_refresh=auto_refresh,
        disable=not console.is_terminal,
    )


def _text(cell: Cell) -> Text:
    if cell is None:
        return Text("-", "dim")
    return cell if isinstance(cell, Text) else Text(printable(str(cell)))


def print_lines(lines: Iterable[str]) -> None:
    """Print lines. Exit with 0 if nobody reads the standard output any more."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        _leave()


def _leave() -> None:
    """Exit with 0, because nobody reads the standard output any more."""
    discard_output()
    raise typer.Exit(ExitCode.OK)
