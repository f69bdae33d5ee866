"""What systemd is told about a relay."""

from __future__ import annotations

import asyncio
import sys

import pytest

from reverb import ReverbClient, _systemd
from reverb.relay import Relay
from reverb.server import ReverbServer
from tests.relay.memory import MemoryEngine
from tests.watching import until

if sys.platform == "win32":
    pytest.skip("there is neither systemd nor its kind of socket on Windows", allow_module_level=True)

from tests.test_systemd import Manager, manager, watchdog

__all__ = ["manager", "watchdog"]  # fixtures


@pytest.mark.usefixtures("watchdog")
async def test_what_it_does_and_what_keeps_it_from_that(
    reverb_server: ReverbServer, manager: Manager, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_systemd, "_LOOK_INTERVAL", 0.01)
    connected = f"READY=1\nSTATUS=connected to {reverb_server.host}:{reverb_server.port}"
    async with ReverbClient() as client:
        assert manager.told == []
        task = asyncio.create_task(Relay(client, ["orders"], to="memory:", lease=0.6).run())
        await manager.hear(f"{connected}, leading")
        engine.is_away = True
        await manager.hear(f"{connected}, leading; the engine is away")
        await manager.beat(3)  # it lives, and keeps what it receives
        engine.is_away = False
        before = len(manager.told)
        await until(lambda: f"{connected}, leading" in manager.told[before:])
        task.cancel()
        await asyncio.wait({task})
        assert "leading" not in manager.told[-1]
