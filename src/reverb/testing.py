"""Fixtures for pytest: a Reverb server for each test, the settings to connect to it, and a connected client.

pytest finds this plugin without configuration. It does nothing until you use a fixture.
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
    """Start a :class:`reverb.server.ReverbServer` for a test.

    While the test runs, the ``REVERB_…`` environment variables lead to the server. The server runs in a thread of
    its own, so the fixture works in every kind of test. Await its methods in asynchronous tests. Use
    ``reverb_server.blocking`` in synchronous ones.

    The marker ``reverb_server`` passes arguments to the server: ``@pytest.mark.reverb_server(path="/ws")``.

    Yields:
        The running server. It stops after the test.
    """
    marker = request.node.get_closest_marker("reverb_server")
    yield from _serve(monkeypatch, *(marker.args if marker else ()), **(marker.kwargs if marker else {}))


@pytest.fixture(scope="session")
def reverb_server_session() -> Iterator[ReverbServer]:
    """Start one :class:`reverb.server.ReverbServer` for all tests.

    From the first use on, the ``REVERB_…`` environment variables lead to the server. Call
    ``reverb_server_session.reset()`` between tests to clear it.

    Yields:
        The running server. It stops after the last test.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield from _serve(monkeypatch)


@pytest.fixture
def reverb_config(reverb_server: ReverbServer) -> ReverbConfig:
    """Return a :class:`ReverbConfig` that leads to ``reverb_server``, with short reconnect delays."""
    from .config import ReverbConfig

    return ReverbConfig(**reverb_server.settings)


@pytest.fixture
def reverb_client(request: pytest.FixtureRequest) -> ReverbClient:
    """Return a :class:`ReverbClient` that is connected to ``reverb_server``, in the test's event loop.

    It is for asynchronous tests with pytest-asyncio in either mode, or with anyio's plugin on asyncio. It
    disconnects after the test.
    """
    if "anyio_backend" in request.fixturenames:
        return cast("ReverbClient", request.getfixturevalue("_reverb_client_anyio"))
    if request.config.pluginmanager.hasplugin("asyncio"):
        return cast("ReverbClient", request.getfixturevalue("_reverb_client_asyncio"))
    pytest.fail("reverb_client needs pytest-asyncio, or a test with anyio's marker", pytrace=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "reverb_server(apps, **settings): arguments for the ReverbServer of the fixture reverb_server"
    )
    # In strict mode, pytest-asyncio has to know which fixtures it runs.
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
