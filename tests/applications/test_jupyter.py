"""A notebook whose cells use a client: in a Jupyter kernel, a process that is sent one cell after another."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reverb.server import BlockingServer, ReverbServer
from tests.applications.snippets import CELLS

DEADLINE = 30.0

pytest.importorskip("ipykernel", reason="ipykernel is not installed")
jupyter_client = pytest.importorskip("jupyter_client", reason="jupyter_client is not installed")

CONNECT, LOOK, DISCONNECT = CELLS


class CellError(Exception):
    """A cell raised; what it raised is the text."""


class AbortedError(Exception):
    """The kernel did not run a cell, because one before it has failed."""


class Notebook:
    def __init__(self, directory: Path) -> None:
        self._manager = jupyter_client.KernelManager(kernel_name="python3")
        self._manager.start_kernel(cwd=str(directory), extra_arguments=["--HistoryManager.enabled=False"])
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(DEADLINE)

    def run(self, cell: str) -> str:
        """Return what a cell shows; raise :class:`CellError` when it raises."""
        while True:
            with suppress(AbortedError):
                return self.result(self.start(cell))

    def start(self, cell: str) -> str:
        """Start a cell; return what asks for its :meth:`result`."""
        cell_id: str = self._client.execute(cell)
        return cell_id

    def wait_printed(self, cell_id: str, text: str) -> None:
        while self._next(cell_id, "stream")["text"].strip() != text:
            pass

    def result(self, cell_id: str) -> str:
        reply = self._client.get_shell_msg(timeout=DEADLINE)
        while reply["parent_header"]["msg_id"] != cell_id:  # late answers to whether the kernel is ready
            reply = self._client.get_shell_msg(timeout=DEADLINE)
        if reply["content"]["status"] == "aborted":
            raise AbortedError
        if reply["content"]["status"] != "ok":
            raise CellError(reply["content"]["ename"])
        shown = ""
        while True:
            message = self._client.get_iopub_msg(timeout=DEADLINE)
            if message["parent_header"].get("msg_id") != cell_id:
                continue
            if message["msg_type"] == "execute_result":
                shown = message["content"]["data"]["text/plain"]
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return shown

    def wait_shows(self, cell: str, shown: str) -> None:
        """Run a cell again and again until it shows this."""
        end = time.monotonic() + DEADLINE
        while (now := self.run(cell)) != shown:
            assert time.monotonic() < end, f"the cell shows {now}, not {shown}"

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        self._manager.restart_kernel(now=False)
        self._client.wait_for_ready(DEADLINE)

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()

    def _next(self, cell_id: str, kind: str) -> Any:
        while True:
            message = self._client.get_iopub_msg(timeout=DEADLINE)
            if message["parent_header"].get("msg_id") == cell_id and message["msg_type"] == kind:
                return message["content"]


@pytest.fixture
def server(reverb_server: ReverbServer) -> BlockingServer:
    return reverb_server.blocking


@pytest.fixture
def notebook(server: BlockingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    notebook = Notebook(tmp_path)
    yield notebook
    notebook.close()


def test_events_come_between_cells(notebook: Notebook, server: BlockingServer) -> None:
    notebook.run(CONNECT)
    server.publish("orders", "order.shipped", {"id": 1})
    server.publish("orders", "order.shipped", {"id": 2})
    notebook.wait_shows(LOOK, "[1, 2]")
    notebook.run(DISCONNECT)
    server.wait_for_connections(0)


@pytest.mark.parametrize(
    "work",
    ["import time; time.sleep(60)", "import asyncio; await asyncio.sleep(60)", "await client.listen()"],
    ids=["computing", "waiting", "listening"],
)
def test_interrupting_a_cell_leaves_the_client_working(
    notebook: Notebook, server: BlockingServer, work: str
) -> None:
    notebook.run(CONNECT)
    running = notebook.start(f"print('begun', flush=True); {work}")
    notebook.wait_printed(running, "begun")
    server.publish("orders", "order.shipped", {"id": 1})
    notebook.interrupt()
    # ipykernel notes that a cell that awaits was interrupted, and cancels it when something wakes the event loop.
    server.publish("orders", "order.shipped", {"id": 2})
    with pytest.raises(CellError, match=re.compile("KeyboardInterrupt|CancelledError")):
        notebook.result(running)
    notebook.wait_shows(LOOK, "[1, 2]")
    assert notebook.run("client.is_connected, client.stats.reconnects") == "(True, 0)"
    notebook.run(DISCONNECT)
    server.wait_for_connections(0)


def test_restarting_the_kernel(notebook: Notebook, server: BlockingServer) -> None:
    notebook.run(CONNECT)
    notebook.restart()
    server.wait_for_connections(0)
    notebook.run(CONNECT)
    server.publish("orders", "order.shipped", {"id": 3})
    notebook.wait_shows(LOOK, "[3]")
