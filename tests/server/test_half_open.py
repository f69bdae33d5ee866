"""Lines that are half open: what is sent gets lost, and neither side learns what has become of the other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal, cast

import pytest

from reverb import Events, ReverbClient
from reverb.server import App, ReverbServer
from tests.certificates import make_certificates
from tests.loops import every_loop
from tests.server.clients import Clients
from tests.test_dispatch import Recorder
from tests.watching import until

Lost = Literal["both", "to_clients", "from_clients"]

JOINED = '{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"x"}'


@pytest.mark.parametrize("lost", ["both", "to_clients", "from_clients"])
async def test_the_client_notices(server: ReverbServer, lost: Lost) -> None:
    """Within ping_interval and pong_timeout; and then it is subscribed again, and hears what is published."""
    back, received = Recorder(), Recorder()
    async with ReverbClient(**server.settings, ping_interval=0.2, pong_timeout=0.3) as client:
        client.bind(Events.STATE_CHANGE, back)
        (await client.subscribe("x")).bind("e", received)
        loop = asyncio.get_running_loop()
        server.half_open(lost)
        began = loop.time()
        await server.publish("x", "e", "into the line")
        await back.wait_for(1)
        assert 0.4 < loop.time() - began < 0.5 + 1
        await server.wait_for_subscription("x")
        await server.publish("x", "e", "behind the gap")
        await until(lambda: ("e", "behind the gap", "x") in received.calls)
        assert (("e", "into the line", "x") in received.calls) == (lost == "from_clients")
        # Where its end is lost, the server still believes in the first connection.
        await server.wait_for_connections(1 if lost == "to_clients" else 2)
        server.heal()
        await server.wait_for_connections(1)
        await client.ping()


@every_loop
async def test_what_the_server_says_is_lost(server: ReverbServer, clients: Clients) -> None:
    raw = await clients.open(server)
    server.half_open("to_clients")
    raw.subscribe("x")
    await until(lambda: server.subscriptions == {"x": [raw.socket_id]})
    await server.publish("x", "e", 1)
    raw.drop()
    await server.wait_for_connections(0)


@every_loop
async def test_what_the_client_says_is_lost(server: ReverbServer, clients: Clients) -> None:
    raw = await clients.open(server)
    assert await raw.joined("x") == JOINED
    server.half_open("from_clients")
    raw.subscribe("y")
    await server.publish("x", "e", 1)
    assert '"data":"1"' in await raw.text()
    await raw.closed()
    await (await clients.open(server)).quiet()
    assert [connection.channels for connection in server.connections] == [["x"], []]


async def test_what_is_under_way_is_lost(server: ReverbServer, clients: Clients) -> None:
    raw = await clients.open(server)
    await raw.joined("x")
    server.delay(0.05)
    await server.publish("x", "e", 1)
    server.half_open()
    await (await clients.open(server)).quiet()  # which was delayed, too
    server.heal()
    assert await raw.rest() == b""


async def test_one_direction_after_the_other(server: ReverbServer, clients: Clients) -> None:
    raw = await clients.open(server)
    server.half_open("to_clients")
    server.half_open("from_clients")
    raw.subscribe("x")
    await (await clients.open(server)).quiet()
    server.drop()
    assert await raw.rest() == b""
    assert "subscribed" not in server.report()


@pytest.mark.parametrize("lost", ["both", "to_clients"])
async def test_the_end_is_lost(clients: Clients, lost: Lost) -> None:
    """The server gives up a silent client, as Reverb does, and the client hears nothing of it."""
    async with ReverbServer([App(ping_interval=0.1)], tick=0.05) as server:
        raw = await clients.open(server)
        await raw.joined("x")
        server.half_open(lost)
        await server.wait_for_connections(0)
        assert "4201" in server.report()
        hears = asyncio.ensure_future(raw.rest())
        await (await clients.open(server)).quiet()
        assert not hears.done()
    assert await hears == b""


@every_loop
async def test_a_member_stays_until_the_server_learns_that_it_is_gone(server: ReverbServer) -> None:
    left = Recorder()
    settings = {**server.settings, "ping_interval": 0.05, "pong_timeout": 0.05, "reconnect_enabled": False}
    ann = ReverbClient(**settings)
    await ann.connect()
    await ann.subscribe("presence-x", {"user_id": "ann", "user_info": {}})
    server.half_open()
    async with ReverbClient(**server.settings) as bob:
        room = await bob.subscribe("presence-x", {"user_id": "bob", "user_info": {}})
        room.bind(Events.MEMBER_REMOVED, left)
        await until(lambda: not ann.is_connected)
        await ann.disconnect()
        await bob.ping()
        assert room.members == {"ann": {}, "bob": {}}
        server.heal()
        await left.wait_for(1)
        assert room.members == {"bob": {}}


@pytest.mark.parametrize("end", ["heal", "drop", "reset", "stop", "restart"])
@pytest.mark.parametrize("is_secure", [False, True])
async def test_every_end_is_one(clients: Clients, tmp_path: Path, end: str, is_secure: bool) -> None:
    """Of lines whose client has gone, and of those whose client is there."""
    certificates = make_certificates(tmp_path)
    async with ReverbServer(ssl_context=certificates.server if is_secure else None) as server:
        tls = certificates.client if is_secure else None
        gone, there = [await clients.raw(server, ssl_context=tls) for _ in range(2)]
        await there.greeted()
        server.half_open()
        await gone.closed()
        assert len(server.connections) == 2
        result = getattr(server, end)()
        if result is not None:
            await result
        assert server.connections == []
        assert await there.rest() == b""


async def test_new_connections_are_as_ever(server: ReverbServer, clients: Clients) -> None:
    server.half_open()
    await (await clients.open(server)).quiet()


async def test_waiting_for_a_subscription_passes_them_over(server: ReverbServer, clients: Clients) -> None:
    raw = await clients.open(server)
    await raw.joined("x")
    server.half_open()
    with pytest.raises(TimeoutError, match="nobody subscribed to x"):
        await server.wait_for_subscription("x", timeout=0.01)
    server.assert_subscribed("x")
    assert server.subscriptions == {"x": [raw.socket_id]}


async def test_other_directions(server: ReverbServer) -> None:
    with pytest.raises(ValueError, match=r"lost must be \"both\", \"to_clients\" or \"from_clients\", not 'up'"):
        server.half_open(cast("Lost", "up"))
