"""A server for the programs on the pages, and a client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reverb import ReverbClient
from reverb.server import ReverbServer
from tests.docs.pages import variables
from tests.integration.conftest import soketi, soketi_process
from tests.integration.servers import Target

__all__ = ["soketi", "soketi_process"]  # fixtures


@pytest.fixture
async def server() -> AsyncIterator[ReverbServer]:
    async with ReverbServer() as server:
        yield server


@pytest.fixture
def target(server: ReverbServer, monkeypatch: pytest.MonkeyPatch) -> Target:
    """The embedded server, which is also what the environment names."""
    target = Target("embedded", server.host, server.port)
    for name, value in variables(target).items():
        monkeypatch.setenv(name, value)
    return target


@pytest.fixture
async def client(target: Target) -> AsyncIterator[ReverbClient]:
    async with ReverbClient() as client:
        yield client
