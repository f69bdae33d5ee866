from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reverb.server import ReverbServer
from tests.server.clients import Clients


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await clients.close()


@pytest.fixture
async def server() -> AsyncIterator[ReverbServer]:
    async with ReverbServer() as server:
        yield server
