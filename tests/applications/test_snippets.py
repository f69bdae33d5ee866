"""That no program in docs/guides/event-loops.md is left out by the other tests here."""

from __future__ import annotations

from tests.applications.snippets import CELLS, COMMANDS, PROGRAMS


def test_there_are_as_many_as_are_run() -> None:
    assert set(PROGRAMS) == {"shipments.py", "shipping.py"}
    assert len(CELLS) == 3
    assert len(COMMANDS) == 1
