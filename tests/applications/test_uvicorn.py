"""A FastAPI application under uvicorn with uvloop, as a process."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from reverb.server import BlockingServer, ReverbServer
from tests.applications.snippets import COMMANDS, PROGRAMS

DEADLINE = 15.0

T = TypeVar("T")

pytestmark = pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")


def test_it_lives_from_startup_to_sigterm(reverb_server: ReverbServer, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    server, log = reverb_server.blocking, tmp_path / "log"
    (tmp_path / "shipping.py").write_text(PROGRAMS["shipping.py"])
    arguments = [*COMMANDS[0].split(), "--port", "0"]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}  # reverb_server's variables are among them
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=tmp_path, env=env, stdout=output, stderr=output
        ) as process,
    ):
        try:
            server.wait_for_subscription("orders", DEADLINE)
            found = wait_until(lambda: re.search(r"running on (http://[\d.]+:\d+)", log.read_text()))
            assert found is not None
            url = f"{found[1]}/shipped"
            publish_and_wait(server, url, [1, 2])
            server.restart()
            server.wait_for_subscription("orders", DEADLINE)
            publish_and_wait(server, url, [1, 2, 3])
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE)
        finally:
            process.kill()
    printed = log.read_text()
    # Once it has shut down, uvicorn ends by the signal that it was sent; older ones end with 0.
    assert process.returncode in (0, -signal.SIGTERM), printed
    assert "Application shutdown complete" in printed
    assert "Traceback" not in printed
    assert "ERROR" not in printed
    server.wait_for_connections(0)


def publish_and_wait(server: BlockingServer, url: str, numbers: list[int]) -> None:
    """Publish what the application has not heard, and wait until it has heard all."""
    for number in numbers[len(heard(url)) :]:
        server.publish("orders", "order.shipped", {"id": number})
    wait_until(lambda: heard(url) == numbers)


def heard(url: str) -> list[int]:
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        numbers: list[int] = json.load(answer)
        return numbers


def wait_until(condition: Callable[[], T]) -> T:
    end = time.monotonic() + DEADLINE
    while not (result := condition()):
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.02)
    return result
