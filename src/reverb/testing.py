"""Fixtures for pytest: a Reverb server for each test, settings that lead to it, and a connected client.

pytest finds this plugin by itself. It does nothing, and imports next to nothing, until a fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from .client import ReverbClient
    from .config import ReverbConfig
    from .server import ReverbServer

__all__ = ["reverb_client", "reverb_config", "reverb_server", "reverb_server_session"]


@pytest.fixture
def reverb_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReverbServer]:
    """A :class:`~reverb.server.ReverbServer`, which the ``REVERB_…`` variables name while the test runs.

    It runs in a thread of its own, so that it does not matter how the test is run. Asynchronous tests await its
    methods, synchronous ones use ``reverb_server.blocking``. A test with the marker ``reverb_server`` has a server
    with the marker's arguments: ``@pytest.mark.reverb_server(path="/ws")``.
    """
    marker = request.node.get_closest_marker("reverb_server")
    yield from _serve(monkeypatch, *(marker.args if marker else ()), **(marker.kwargs if marker else {}))


@pytest.fixture(scope="session")
def reverb_server_session() -> Iterator[ReverbServer]:
    """One server for all tests, which the ``REVERB_…`` variables name from the first use on.

    ``reverb_server_session.reset()`` makes it as good as new between tests.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield from _serve(monkeypatch)


@pytest.fixture
def reverb_config(reverb_server: ReverbServer) -> ReverbConfig:
    """The :class:`~reverb.ReverbConfig` that leads to ``reverb_server``, with short delays before reconnecting."""
    from .config import ReverbConfig

    return ReverbConfig(**reverb_server.settings)


@pytest.fixture
def reverb_client(request: pytest.FixtureRequest) -> ReverbClient:
    """A :class:`~reverb.ReverbClient` in the test's event loop, connected to ``reverb_server``.

    For asynchronous tests that pytest-asyncio runs, in either mode, or anyio's plugin on asyncio.
    """
    if "anyio_backend" in request.fixturenames:
        return cast("ReverbClient", request.getfixturevalue("_reverb_client_anyio"))
    if request.config.pluginmanager.hasplugin("asyncio"):
        return cast("ReverbClient", request.getfixturevalue("_reverb_client_asyncio"))
    pytest.fail("reverb_client needs pytest-asyncio, or a test with anyio's marker", pytrace=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "reverb_server(apps, **settings): arguments for the ReverbServer of the fixture of that name"
    )
    # In its strict mode, pytest-asyncio wants to be told which fixtures are its own.
    if config.pluginmanager.hasplugin("asyncio"):
        import pytest_asyncio

        fixtures = ModuleType("reverb.testing._asyncio")
        fixture = pytest_asyncio.fixture(_reverb_client_asyncio)
        fixtures.__dict__["_reverb_client_asyncio"] = fixture
        config.pluginmanager.register(fixtures, "reverb-asyncio")


@pytest.fixture
async def _reverb_client_anyio(reverb_config: ReverbConfig) -> AsyncIterator[ReverbClient]:
    from .client import ReverbClient

    async with ReverbClient(reverb_config) as client:
        yield client


async def _reverb_client_asyncio(reverb_config: ReverbConfig) -> AsyncIterator[ReverbClient]:
    from .client import ReverbClient

    async with ReverbClient(reverb_config) as client:
        yield client


def _serve(monkeypatch: pytest.MonkeyPatch, *apps: Any, **settings: Any) -> Iterator[ReverbServer]:
    from ._settings import variables_of
    from .config import ReverbConfig
    from .server import ReverbServer

    server = ReverbServer(*apps, **settings)
    with server:
        for variable in variables_of(ReverbConfig):
            monkeypatch.delenv(variable, raising=False)
        for variable, value in server.env.items():
            monkeypatch.setenv(variable, value)
        yield server
