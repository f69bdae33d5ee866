"""Fixtures: a server for the commands to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reverb.server import ReverbServer
from tests.integration.servers import Target


@pytest.fixture
async def embedded() -> AsyncIterator[ReverbServer]:
    async with ReverbServer() as server:
        yield server


@pytest.fixture
def target(embedded: ReverbServer) -> Target:
    return Target("embedded", embedded.host, embedded.port)


@pytest.fixture
def settings(target: Target) -> dict[str, str]:
    """The variables that name the server."""
    return {
        "REVERB_HOST": target.host,
        "REVERB_PORT": str(target.port),
        "REVERB_SCHEME": "ws",
        "REVERB_APP_ID": target.app_id,
        "REVERB_APP_KEY": target.key,
        "REVERB_APP_SECRET": target.secret,
        "REVERB_RECONNECT_DELAY_MIN": "0.05",
        "REVERB_RECONNECT_DELAY_MAX": "0.1",
    }
