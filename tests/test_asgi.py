"""A client that lives as long as an application, in Starlette and FastAPI and without."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from reverb import AuthenticationError, ChannelAuth, ConnectionError, ConnectionState, ReverbClient, ReverbConfig
from reverb.asgi import lifespan
from reverb.server import ReverbServer

from .scripted import Peer, ScriptedServer
from .test_client import make_client
from .test_dispatch import Recorder
from .watching import client_tasks, until


async def test_it_is_connected_and_set_up_while_the_application_runs(
    reverb_server: ReverbServer, reverb_config: ReverbConfig
) -> None:
    client, recorder = ReverbClient(reverb_config), Recorder()

    async def setup(client: ReverbClient) -> None:
        (await client.subscribe("orders")).bind("shipped", recorder)

    async with lifespan(client, setup)(object()):
        assert client.is_connected
        await reverb_server.publish("orders", "shipped", {"id": 7})
        assert await recorder.wait_for(1) == [("shipped", {"id": 7}, "orders")]
    assert client.state == ConnectionState.DISCONNECTED
    assert client_tasks() == set()


async def test_without_a_setup(reverb_config: ReverbConfig) -> None:
    client = ReverbClient(reverb_config)
    async with lifespan(client)(object()):
        assert client.is_connected


@pytest.mark.parametrize(("module", "name"), [("fastapi", "FastAPI"), ("starlette.applications", "Starlette")])
def test_in_a_framework(reverb_config: ReverbConfig, module: str, name: str) -> None:
    """By the messages of ASGI; and twice, each time in another event loop, as in the tests of applications."""
    framework = getattr(pytest.importorskip(module), name)
    client, seen = ReverbClient(reverb_config), []

    async def setup(client: ReverbClient) -> None:
        seen.append(await client.subscribe("orders"))

    app = framework(lifespan=lifespan(client, setup))

    async def live() -> None:
        ended = asyncio.Event()
        told: list[str] = []

        async def receive() -> dict[str, str]:
            if not told:
                return {"type": "lifespan.startup"}
            await ended.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: MutableMapping[str, Any]) -> None:
            told.append(message["type"])

        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        living = asyncio.ensure_future(app(scope, receive, send))
        await until(lambda: told == ["lifespan.startup.complete"])
        assert client.is_connected
        assert client.channels["orders"].is_subscribed
        ended.set()
        await living
        assert told[1:] == ["lifespan.shutdown.complete"]

    for _ in range(2):
        asyncio.run(live())
        assert client.state == ConnectionState.DISCONNECTED
    assert [channel.name for channel in seen] == ["orders", "orders"]


async def test_what_setup_raises_ends_the_startup(reverb_config: ReverbConfig) -> None:
    client = ReverbClient(replace(reverb_config, app_secret=None), authorizer=refuse)

    async def setup(client: ReverbClient) -> None:
        await client.subscribe("private-orders")

    with pytest.raises(AuthenticationError, match="not you"):
        async with lifespan(client, setup)(object()):
            pytest.fail("the application has started")
    assert client.state == ConnectionState.DISCONNECTED
    assert client_tasks() == set()


async def refuse(socket_id: str, channel: str) -> ChannelAuth:
    raise AuthenticationError("not you")


async def test_a_server_that_is_not_there_ends_the_startup() -> None:
    client = ReverbClient(app_key="key", host="127.0.0.1", port=1, scheme="ws")
    with pytest.raises(ConnectionError, match="cannot connect"):
        async with lifespan(client)(object()):
            pytest.fail("the application has started")


async def test_a_lifespan_of_ones_own_can_enter_it(reverb_config: ReverbConfig) -> None:
    client = ReverbClient(reverb_config)
    steps: list[str] = []

    @asynccontextmanager
    async def own(app: object) -> AsyncIterator[dict[str, ReverbClient]]:
        async with lifespan(client)(app):
            steps.append(f"up, {client.state}")
            yield {"reverb": client}
            steps.append(f"down, {client.state}")

    async with own(object()) as state:
        assert state["reverb"].is_connected
    assert steps == ["up, connected", "down, connected"]


async def test_a_loss_for_good_is_told_and_the_application_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.close(4001, "gone")

    async with ScriptedServer(script) as server:
        client = make_client(server)
        async with lifespan(client)(object()):
            await until(lambda: any(record.name == "reverb.asgi" for record in caplog.records))
            assert client.state == ConnectionState.FAILED
        (record,) = (record for record in caplog.records if record.name == "reverb.asgi")
        assert record.levelno == logging.CRITICAL
        assert "continues without its Reverb client: lost the connection" in record.getMessage()
        assert "4001" in record.getMessage()
        assert record.__dict__["reverb_address"] == f"{server.host}:{server.port}"
    assert client_tasks() == set()
