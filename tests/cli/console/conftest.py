"""Fixtures: a console on the embedded server, and pages of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reverb import ReverbConfig
from reverb.server import ReverbServer
from tests.cli.console.visitors import Page, Visitor, console


@pytest.fixture
def config(embedded: ReverbServer) -> ReverbConfig:
    return ReverbConfig(**embedded.settings)


@pytest.fixture
async def stranger(config: ReverbConfig) -> AsyncIterator[Visitor]:
    """Somebody who has not come in."""
    async with console(config) as visitor:
        yield visitor


@pytest.fixture
async def visitor(stranger: Visitor) -> Visitor:
    """Somebody who has."""
    assert await stranger.come_in() == 204
    return stranger


@pytest.fixture
async def page(visitor: Visitor) -> AsyncIterator[Page]:
    async with visitor.page() as page:
        yield page
