"""An engine in the memory of the test, for what no real one does on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import pytest

from reverb.relay import EngineError, _relay
from reverb.relay._log import Entry, Grant, LeaseLostError, LeaseStatus


class MemoryEngine:
    """Keeps a log. Relays to ``memory:`` write into it after :meth:`install`."""

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.holder: str | None = None
        self.is_away = False
        self.open_sinks = 0
        self.cancellations = 0
        """How many requests were cancelled."""
        self.ignored = 0
        """How many cancellations the next requests swallow, as ``asyncio.wait_for()`` may until Python 3.11."""
        self.epoch = 0
        self.watermark: int | None = None
        self.state = b""
        self.others = 0
        self._answering = asyncio.Event()
        self._answering.set()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_relay, "make_sink", lambda url, *, relay, **settings: MemorySink(self, relay))

    def pause(self) -> None:
        """Answer nothing until :meth:`resume`."""
        self._answering.clear()

    def resume(self) -> None:
        self._answering.set()

    async def answer(self) -> None:
        try:
            await asyncio.sleep(0)
            await self._answering.wait()
        except asyncio.CancelledError:
            self.cancellations += 1
            if not self.ignored:
                raise
            self.ignored -= 1
        if self.is_away:
            raise EngineError("the engine is away")

    def lease_status(self) -> LeaseStatus:
        return LeaseStatus(time.time_ns() // 1_000_000, self.holder, self.watermark, self.state, self.others)


class MemorySink:
    address = "memory:"

    def __init__(self, engine: MemoryEngine, relay: str) -> None:
        self._engine = engine
        self._relay = relay
        self._is_open = False

    async def open(self) -> None:
        await self._engine.answer()
        self._is_open = True
        self._engine.open_sinks += 1

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._engine.open_sinks -= 1

    async def check_lease(self, *, is_ready: bool) -> LeaseStatus:
        await self._engine.answer()
        return self._engine.lease_status()

    async def acquire(self) -> Grant | None:
        engine = self._engine
        await engine.answer()
        if engine.holder not in (None, self._relay):
            return None
        engine.holder = self._relay
        engine.epoch += 1
        return Grant(engine.epoch, engine.lease_status())

    async def renew(self, epoch: int, watermark: int | None, state: bytes) -> LeaseStatus:
        engine = self._engine
        await engine.answer()
        self._check(epoch)
        engine.watermark, engine.state = watermark, state
        return engine.lease_status()

    async def release(self, epoch: int, watermark: int | None, state: bytes) -> None:
        with suppress(LeaseLostError):
            await self.renew(epoch, watermark, state)
            self._engine.holder = None

    async def tail(self, since: int) -> list[Entry]:
        await self._engine.answer()
        return [each for each in self._engine.log if each.received_at >= since]

    async def append(self, epoch: int, entries: Sequence[Entry]) -> None:
        await self._engine.answer()
        self._check(epoch)
        known = {(each.epoch, each.number) for each in self._engine.log}
        self._engine.log += [each for each in entries if (each.epoch, each.number) not in known]

    def _check(self, epoch: int) -> None:
        if epoch != self._engine.epoch or self._engine.holder != self._relay:
            raise LeaseLostError("another relay leads")
