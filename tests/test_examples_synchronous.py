"""The programs in ``examples/`` that listen without async."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from reverb import ReverbClient
from reverb.server import ReverbServer
from tests.cli.processes import DEADLINE
from tests.integration.servers import Target
from tests.test_dispatch import Recorder
from tests.test_examples import SIGNALS, end, run, server, target
from tests.watching import until

__all__ = ["server", "target"]  # fixtures


class Page(NamedTuple):
    """A page in a browser: it listens to a channel, and sends requests with its socket id."""

    heard: Recorder
    socket_id: str

    @property
    def data(self) -> list[Any]:
        return [data for _, data, _ in self.heard.calls]


@asynccontextmanager
async def open_page(target: Target, channel: str, *events: str) -> AsyncIterator[Page]:
    heard = Recorder()
    async with ReverbClient(**target.settings, reconnect_delay_min=0.01, reconnect_delay_max=0.1) as client:
        assert client.socket_id is not None
        joined = await client.subscribe(channel)
        for event in events:
            joined.bind(event, heard)
        yield Page(heard, client.socket_id)


def wait_for(page: Page, data: list[Any]) -> Any:
    """Wait until the page has heard exactly this."""
    return until(lambda: page.data == data, DEADLINE)


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_listen_in_thread(
    server: ReverbServer, target: Target, tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        open_page(target, "private-labels", "client-printed") as page,
        run("listen_in_thread", target, tmp_path) as command,
    ):
        await command.err.expect("waiting for labels")
        for id_ in (1, "not a number", 2):
            await target.publish("private-labels", "print", {"id": id_, "text": f"label\n{id_}"})
        await wait_for(page, [{"id": 1}, {"id": 2}])
        assert command.out.text == "label 1: 'label\\n1'\nlabel 2: 'label\\n2'\n"
        await server.restart()
        await until(lambda: len(server.subscriptions.get("private-labels", ())) == 2, DEADLINE)
        await target.publish("private-labels", "print", {"id": 3, "text": "again"})
        await command.out.expect("^label 3: 'again'$")
        command.send_signal(number)
        assert await command.exit_code() == 0
        assert "Traceback" not in command.err.text, command.err.text


async def test_listen_in_thread_ends_while_it_works(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    """Events wait, the main thread is at one of them, and none is half done."""
    async with run("listen_in_thread", target, tmp_path) as command:
        await command.err.expect("waiting for labels")
        for id_ in range(300):
            await target.publish("private-labels", "print", {"id": id_, "text": "x"})
        await command.out.expect("^label 2:")
        await end(command, signal.SIGINT)
        await until(lambda: not server.connections)


async def test_listen_in_thread_says_why_it_ends(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    async with run("listen_in_thread", target, tmp_path, REVERB_RECONNECT_ENABLED="false") as command:
        await command.err.expect("waiting for labels")
        server.drop()
        assert await command.exit_code() == 1
        assert command.err.text.splitlines()[-1].startswith("lost the connection to")
        assert "Traceback" not in command.err.text, command.err.text
    await server.stop()
    async with run("listen_in_thread", target, tmp_path) as command:
        assert await command.exit_code() == 1
        assert command.err.text.splitlines()[-1].startswith("cannot connect to")
        assert "Traceback" not in command.err.text, command.err.text
