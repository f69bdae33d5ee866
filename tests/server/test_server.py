from __future__ import annotations

import asyncio
import dataclasses
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from reverb import ConfigurationError
from reverb.server import App, ReverbServer
from tests.certificates import make_certificates
from tests.loops import every_loop
from tests.server.clients import Clients, call, request, soon


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_a_host_that_others_can_reach_gets_a_warning(host: str) -> None:
    with pytest.warns(RuntimeWarning, match="not a loopback address: others can reach this server"):
        ReverbServer(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
async def test_host(host: str) -> None:
    async with ReverbServer(host=host) as server:
        assert await request(server, "GET", "/up") == (200, '{"health":"OK"}')


def test_secret_does_not_show() -> None:
    assert "hush" not in repr(App(secret="hush"))


@pytest.mark.parametrize("name", ["id", "key", "secret"])
def test_credentials_must_not_be_empty(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"application.s .*{name}.* must not be empty"):
        dataclasses.replace(App(), **{name: ""})  # type: ignore[arg-type]


@every_loop
async def test_port_is_kept_over_a_restart(clients: Clients) -> None:
    server = ReverbServer()
    assert server.port == 0
    await server.start()
    port = server.port
    assert port > 0
    client = await clients.open(server)
    await client.joined("x")
    await server.stop()
    assert await client.rest() == b""
    await server.start()
    assert server.port == port
    assert await call(server, "GET", "/connections") == (200, '{"connections":0}')
    again = await clients.open(server)
    await again.quiet()
    await server.stop()


async def test_port_taken(server: ReverbServer) -> None:
    second = ReverbServer(port=server.port)
    with pytest.raises(OSError, match=str(server.port)):
        await second.start()
    await second.stop()


async def test_start_twice(server: ReverbServer) -> None:
    with pytest.raises(RuntimeError, match="started already"):
        await server.start()


async def test_stop_without_start() -> None:
    server = ReverbServer()
    await server.stop()


@pytest.mark.parametrize("path", ["/ws", "ws", "/ws/"])
async def test_path(clients: Clients, path: str) -> None:
    async with ReverbServer(path=path) as server:
        await clients.open(server, "/ws/app/app-key")
        assert await request(server, "GET", "/ws/up") == (200, '{"health":"OK"}')
        outside = await clients.raw(server, "/app/app-key")
        assert outside.head.startswith("HTTP/1.1 404 ")


@every_loop
async def test_stop_ends_connections_in_bare_eof(clients: Clients) -> None:
    async with ReverbServer() as server:
        subscribed, member, idle = [await clients.open(server) for _ in range(3)]
        await subscribed.joined("presence-x", '{"user_id":"1","user_info":{}}')
        await member.joined("presence-x", '{"user_id":"2","user_info":{}}')
        await subscribed.text()
    for client in (subscribed, member, idle):
        assert await client.rest() == b""


@every_loop
async def test_stop_does_not_wait_for_a_client_that_does_not_read(clients: Clients) -> None:
    names = [f"x{number}" for number in range(100)]
    body = {"name": "e", "channels": names, "data": "x" * 8_000}
    async with ReverbServer() as server:
        client = await clients.open(server)
        for name in names:
            await client.joined(name)
        for _ in range(20):
            assert await call(server, "POST", "/events", body) == (200, "{}")
        await soon(server.stop())
    assert len(await client.rest()) < 20 * 100 * 8_000


@every_loop
async def test_stop_leaves_nothing_behind(clients: Clients) -> None:
    before = asyncio.all_tasks()
    async with ReverbServer() as server:
        client = await clients.open(server)
        await client.joined("x")
        half_open = socket.create_connection((server.host, server.port))
    assert asyncio.all_tasks() == before
    half_open.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(server.host, server.port)


async def test_stop_cancels_the_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    call_later, timers = loop.call_later, []

    def record(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        timers.append(call_later(*args, **kwargs))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", record)
    async with ReverbServer():
        assert timers
        assert not timers[0].cancelled()
    assert all(timer.cancelled() for timer in timers)


@every_loop
async def test_tls(clients: Clients, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with ReverbServer(ssl_context=certificates.server) as server:
        client = await clients.raw(server, ssl_context=certificates.client)
        await client.greeted()
        await client.quiet()
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://{server.host}:{server.port}/up", ssl=certificates.client) as response,
        ):
            assert await response.text() == '{"health":"OK"}'
        await soon(server.stop())
        assert await client.rest() == b""
