"""Fixtures: the servers to test against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.integration.servers import (
    Line,
    MissingError,
    Soketi,
    Target,
    external_target,
    line_to,
    run_soketi,
)
from tests.missing import missing


@pytest.fixture(scope="session")
def soketi_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soketi]:
    try:
        with run_soketi(tmp_path_factory.mktemp("soketi")) as soketi:
            yield soketi
    except MissingError as reason:
        missing(reason)


@pytest.fixture
def soketi(soketi_process: Soketi) -> Target:
    """soketi, for what only soketi does."""
    soketi_process.check()
    return soketi_process.target


@pytest.fixture(params=["embedded", "soketi", "external"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    """Each server in turn: a test that takes this fixture runs unchanged against all of them."""
    if request.param == "embedded":
        from reverb.server import ReverbServer

        async with ReverbServer() as embedded:
            yield Target("embedded", embedded.host, embedded.port)
    elif request.param == "soketi":
        yield request.getfixturevalue("soketi")
    else:
        try:
            yield external_target()
        except MissingError as reason:
            pytest.skip(str(reason))


@pytest.fixture
async def line(server: Target) -> AsyncIterator[Line]:
    """The way to ``server``, for tests that cut it."""
    try:
        async with line_to(server) as line:
            yield line
    except MissingError as reason:
        pytest.skip(str(reason))
