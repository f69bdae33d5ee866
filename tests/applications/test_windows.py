"""What Windows lacks, taken away here: the client, the HTTP API for threads and commands do without it.

This is not Windows. What its own event loop does, and how its sockets fail, only Windows can show.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from reverb import ReverbClient, SyncReverbAPI
from reverb.cli.commands import Commands
from reverb.server import ReverbServer
from tests.test_dispatch import Recorder
from tests.watching import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="this is Windows")


class ProactorLike(asyncio.SelectorEventLoop):
    """An event loop that has, for others than asyncio itself, not what ProactorEventLoop lacks."""


def _take_away(name: str) -> None:
    original = getattr(asyncio.SelectorEventLoop, name)

    def method(self: ProactorLike, *args: Any) -> Any:
        if sys._getframe(1).f_globals["__name__"].startswith("asyncio."):
            return original(self, *args)
        raise NotImplementedError

    setattr(ProactorLike, name, method)


for _name in ("add_reader", "remove_reader", "add_writer", "remove_writer", "add_signal_handler"):
    _take_away(_name)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(asyncio, "ProactorEventLoop", ProactorLike, raising=False)
    for module, name in ((select, "poll"), (os, "killpg"), (signal, "SIGKILL")):
        monkeypatch.delattr(module, name)


async def _listen(settings: dict[str, Any], server: ReverbServer) -> list[Any]:
    heard = Recorder()
    async with ReverbClient(**settings) as client:
        (await client.subscribe("private-orders")).bind("e", heard)
        await asyncio.to_thread(server.blocking.publish, "private-orders", "e", 1)
        await heard.wait_for(1)
        server.drop()
        await until(lambda: client.stats.reconnects == 1 and client.channels["private-orders"].is_subscribed)
        await asyncio.to_thread(server.blocking.publish, "private-orders", "e", 2)
        await heard.wait_for(2)
    return [data for _, data, _ in heard.calls]


def test_the_client_on_the_event_loop(reverb_server: ReverbServer, windows: None) -> None:
    loop = ProactorLike()
    try:
        assert loop.run_until_complete(_listen({"reconnect_delay_min": 0.01}, reverb_server)) == [1, 2]
    finally:
        loop.close()


def test_publishing(reverb_server: ReverbServer, windows: None) -> None:
    with SyncReverbAPI() as api:
        for number in (1, 2):
            api.trigger("news", "e", number)
    for number in (1, 2):
        reverb_server.assert_published("news", "e", number)


async def test_a_command_is_ended(windows: None, tmp_path: Path) -> None:
    async def run() -> None:
        async with Commands(f"echo > {tmp_path}/here; exec sleep 60", _unexpected) as commands:
            await commands.put("e", 1, "news", None)

    task = asyncio.create_task(run())
    await until((tmp_path / "here").exists, 15)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _unexpected(message: str, style: str) -> None:
    raise AssertionError(message)
