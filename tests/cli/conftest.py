"""Fixtures: a server for the commands to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from reverb import ReverbConfig
from reverb.server import ReverbServer
from tests.cli.clients import Clients, clients_of
from tests.integration.servers import Target


@pytest.fixture
async def embedded() -> AsyncIterator[ReverbServer]:
    async with ReverbServer() as server:
        yield server


@pytest.fixture
def target(embedded: ReverbServer) -> Target:
    return Target("embedded", embedded.host, embedded.port)


@pytest.fixture
def settings(embedded: ReverbServer) -> dict[str, str]:
    """The variables that name the server."""
    return embedded.env


@pytest.fixture
def clients(reverb_config: ReverbConfig) -> Iterator[Clients]:
    with clients_of(reverb_config) as clients:
        yield clients
