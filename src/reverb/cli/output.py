"""What commands answer with: a sentence or a table for people, JSON lines for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from .process import ExitCode
from .view import OutputConsole, fill, printable

__all__ = ["Cell", "show", "show_table"]

Cell = str | int | Text | None
"""What is not known (None) shows as a dash."""

_GAP = "  "


def show(objects: Iterable[dict[str, Any]], sentence: str, *, as_json: bool) -> None:
    """Print an answer: ``objects`` for programs, ``sentence`` for people."""
    if as_json:
        _print_lines(json.dumps(each) for each in objects)
    else:
        _print_lines([printable(sentence)])


def show_table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table. In a terminal it is fitted to the width; in a pipe nothing is cut, and each row is a line."""
    console = OutputConsole(_leave)
    cells = [[_text(cell) for cell in row] for row in rows]
    if not console.is_terminal:
        lines = [list(head), *([cell.plain for cell in row] for row in cells)]
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        _print_lines(
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


def _text(cell: Cell) -> Text:
    if cell is None:
        return Text("-", "dim")
    return cell if isinstance(cell, Text) else Text(printable(str(cell)))


def _print_lines(lines: Iterable[str]) -> None:
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        _leave()


def _leave() -> None:
    """Nobody reads the standard output any more, so nothing is left to do."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(ExitCode.OK)
