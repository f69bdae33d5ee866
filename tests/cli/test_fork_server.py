"""Processes of the fork server are like those that start."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import reverb
from tests.loops import only_asyncio

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server needs Linux")

PROGRAM = """\
import asyncio, json, locale, os, signal, sys, threading, warnings

streams = [sys.stdin, sys.stdout, sys.stderr]
filters = [each for each in warnings.filters if each[2].__module__ == "builtins"]
attributes = ["encoding", "errors", "line_buffering", "write_through"]
json.dump({
    "arguments": sys.argv,
    "path": sys.path,
    "file": __file__,
    "name": __name__,
    "is main": sys.modules["__main__"].__dict__ is globals(),
    "directory": os.getcwd(),
    "variables": {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"},
    "streams": [[getattr(stream, each) for each in attributes] for stream in streams],
    "buffers": [[type(stream.buffer).__name__, stream.isatty()] for stream in streams],
    "descriptors": sorted(os.listdir("/proc/self/fd")),
    "signals": {number.name: str(signal.getsignal(number)) for number in signal.Signals},
    "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "wakeup": signal.set_wakeup_fd(-1),
    "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "controlled": streams[0].isatty() and os.tcgetpgrp(0) == os.getpid(),
    "warnings": [[action, category.__name__] for action, _, category, *_ in filters],
    "locale": locale.setlocale(locale.LC_ALL),
    "flags": list(sys.flags),
    "threads": threading.active_count(),
}, sys.stdout)
print()
"""


async def run(program: str, cwd: Path, **options: Any) -> tuple[int, str, str]:
    """Return the exit code, the output, and the error output."""
    cwd.joinpath("program.py").write_text(program, encoding="utf-8")
    async with reverb("an", "argument", module="program", cwd=cwd, **options) as command:
        code = await command.exit_code()
        return code, await command.out.end(), command.err.text


@only_asyncio  # a process that uvloop starts also gets the inheritable descriptors of this one
@pytest.mark.parametrize("env", [{"COLOUR": "red"}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
async def test_what_a_program_sees(tmp_path: Path, terminal: bool, env: dict[str, str]) -> None:
    code, started, _ = await run(PROGRAM, tmp_path, terminal=terminal, env=env, forked=False)
    assert code == 0, started
    code, forked, _ = await run(PROGRAM, tmp_path, terminal=terminal, env=env)
    assert code == 0, forked
    assert json.loads(forked) == json.loads(started)


@pytest.mark.parametrize("forked", [False, True], ids=["started", "forked"])
@pytest.mark.parametrize(
    ("program", "code", "error"),
    [
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit('no')", 1, "no\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        ("import atexit; atexit.register(print, 'bye')", 0, "bye\n"),
        ("import warnings; warnings.warn('old')", 1, "UserWarning: old\n"),
        ("import socket; left = socket.socket()", 0, "ResourceWarning: unclosed"),
        ("import threading; threading.Timer(0.1, print, ['late']).start()", 0, "late\n"),
    ],
)
async def test_how_a_program_ends(tmp_path: Path, program: str, code: int, error: str, forked: bool) -> None:
    found, out, err = await run(program, tmp_path, forked=forked)
    assert found == code
    assert error in out + err


async def test_nothing_of_one_process_is_in_the_next(tmp_path: Path) -> None:
    program = (
        "import os, sys; print(hasattr(sys, 'left'), 'LEFT' in os.environ); sys.left = os.environ['LEFT'] = '1'"
    )
    for _ in range(2):
        assert await run(program, tmp_path) == (0, "False False\n", "")
