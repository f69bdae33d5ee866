"""Fixtures: the servers that faults are put in front of."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reverb.server import ReverbServer
from tests.integration.conftest import soketi, soketi_process
from tests.integration.servers import Target

__all__ = ["embedded", "soketi", "soketi_process"]


@pytest.fixture
async def embedded() -> AsyncIterator[Target]:
    async with ReverbServer() as server:
        yield Target("embedded", server.host, server.port)
