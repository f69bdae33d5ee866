"""Commands in the test's own process, which is quicker than a process for each."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from reverb.cli.app import app


def invoke(*arguments: str, stdin: str | bytes = b"", **variables: str) -> Result:
    """Run ``reverb`` with these arguments, and with these ``REVERB_`` variables beside those that there are."""
    env = {f"REVERB_{name.upper()}": value for name, value in variables.items()}
    return CliRunner().invoke(app, arguments, input=stdin, env=env, prog_name="reverb")


def answer(*arguments: str, **options: Any) -> str:
    """Run a command that succeeds and has nothing to complain of; return what it prints."""
    result = invoke(*arguments, **options)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def objects(*arguments: str, **options: Any) -> list[dict[str, Any]]:
    """Run a command with ``--json``; return what it prints."""
    return [json.loads(line) for line in answer(*arguments, "--json", **options).splitlines()]


def fails(*arguments: str, code: int, says: str, **options: Any) -> None:
    """Assert that a command ends with this code, and with this on the only line that it prints."""
    result = invoke(*arguments, **options)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("reverb: ")
    assert says in line
