"""A process of its own for what is measured: the end that asks, and with ``python -m bench.worker`` the other.

They talk in lines of JSON. A worker does one task after another; while it does one, nothing else runs in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_TIMEOUT = 90.0
"""Seconds after which a worker that says nothing is given up."""

PYTHON = (sys.executable, "-m", "bench.worker")


class WorkerError(Exception):
    """What was asked for was not done, or not rightly."""


class Worker:
    """The process, from ``with`` to the end of the block."""

    def __init__(self, command: Sequence[str] = PYTHON) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, bufsize=1
        )

    def ask(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Have ``task`` done; return the first answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": task, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """Return the next answer."""
        assert self._process.stdout is not None
        timer = threading.Timer(_TIMEOUT, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _ended(self) -> WorkerError:
        status = self._process.wait()
        self._errors.seek(0)
        last = self._errors.read().strip().splitlines()[-1:] or ["no reason given"]
        return WorkerError(f"its process ended with {status}: {last[0]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:  # threads of a peer
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def tell(**answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _main() -> None:
    from .tasks import TASKS  # imports what is measured; the parent does without

    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            answer = TASKS[arguments.pop("do")](**arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        tell(**answer)


if __name__ == "__main__":
    _main()
