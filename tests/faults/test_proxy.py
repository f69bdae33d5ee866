"""The fault proxy itself: a fault that is none would prove nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import TypeVar

import pytest

from tests.scripted import TEXT, encode_frame
from tests.watching import open_descriptors, until

from .proxy import FaultProxy, Link, Towards

T = TypeVar("T")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


async def soon(awaitable: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaitable, 5)


async def silent(awaitable: Awaitable[object], seconds: float = 0.05) -> None:
    """Nothing comes."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(awaitable, seconds)


class Origin:
    """A server whose end of each connection the test plays itself."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[Streams] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def run(self) -> AsyncIterator[FaultProxy]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.writers.append(writer)
            self.accepted.put_nowait((reader, writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            async with FaultProxy(*server.sockets[0].getsockname()) as proxy:
                yield proxy
        finally:
            server.close()
            for writer in self.writers:
                writer.transport.abort()

    async def connect(self, proxy: FaultProxy) -> tuple[Streams, Streams]:
        client = await asyncio.open_connection(proxy.host, proxy.port)
        self.writers.append(client[1])
        return client, await soon(self.accepted.get())


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    before = open_descriptors()
    yield Origin()
    await until(lambda: open_descriptors() <= before)


async def test_without_faults_everything_passes_and_ends_are_ends(origin: Origin) -> None:
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        large = bytes(range(256)) * 8192
        client[1].write(large)
        assert await soon(server[0].readexactly(len(large))) == large
        server[1].write(HEAD + encode_frame(TEXT, large))
        assert await soon(client[0].readexactly(len(HEAD) + 10 + len(large))) == HEAD + encode_frame(TEXT, large)
        assert (proxy.connections, len(proxy.links)) == (1, 1)
        client[1].write_eof()
        assert await soon(server[0].read()) == b""
        server[1].write(b"still there")
        assert await soon(client[0].readexactly(11)) == b"still there"
        server[1].close()
        assert await soon(client[0].read()) == b""
        client[1].close()
        await until(lambda: not proxy.links)


async def test_back_pressure_is_passed_on(origin: Origin) -> None:
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        proxy.hit(Link.stall)
        client[1].write(bytes(32 * 1024 * 1024))
        await silent(client[1].drain(), 0.2)
        await proxy.heal()
        assert len(await soon(server[0].readexactly(32 * 1024 * 1024))) == 32 * 1024 * 1024


async def test_a_cut_is_an_end_of_stream(origin: Origin) -> None:
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        proxy.hit(Link.cut)
        assert await soon(client[0].read()) == b""
        assert await soon(server[0].read()) == b""
        for _, writer in (client, server):
            writer.close()
        await until(lambda: not proxy.links)


@pytest.mark.parametrize("towards", [Towards.CLIENT, Towards.SERVER])
async def test_a_cut_in_one_direction(origin: Origin, towards: Towards) -> None:
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        told, other = (client, server) if towards is Towards.CLIENT else (server, client)
        proxy.hit(partial(Link.cut, towards=towards))
        assert await soon(told[0].read()) == b""
        told[1].write(b"half")
        assert await soon(other[0].readexactly(4)) == b"half"
        told[1].close()
        assert await soon(other[0].read()) == b""
        other[1].close()
        await until(lambda: not proxy.links)


async def test_a_reset(origin: Origin) -> None:
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        proxy.hit(Link.reset)
        for reader, _ in (client, server):
            with pytest.raises(ConnectionResetError):
                await soon(reader.read())
        assert proxy.links == []


@pytest.mark.parametrize("towards", [Towards.CLIENT, Towards.SERVER, Towards.BOTH])
async def test_a_black_hole_swallows_the_end_too(origin: Origin, towards: Towards) -> None:
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        proxy.hit(partial(Link.black_hole, towards=towards))
        ways = ((server, client, Towards.CLIENT), (client, server, Towards.SERVER))
        for sender, receiver, direction in ways:
            sender[1].write(b"lost?")
            if direction & towards:
                await silent(receiver[0].read(1))
            else:
                assert await soon(receiver[0].readexactly(5)) == b"lost?"
        for sender, receiver, direction in ways:
            if direction & towards:
                sender[1].write_eof()
                await silent(receiver[0].read(1))
        await proxy.heal()  # now it is only a matter of time until TCP gives up, and here that is short
        assert proxy.links == []


async def test_a_delay_keeps_the_order(origin: Origin) -> None:
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        proxy.hit(partial(Link.delay, seconds=0.1))
        start = monotonic()
        server[1].write(b"1")
        await soon(asyncio.sleep(0.02))
        proxy.hit(partial(Link.delay, seconds=0.0))
        server[1].write(b"2")
        assert await soon(client[0].readexactly(2)) == b"12"
        assert 0.09 < monotonic() - start < 5


async def test_a_throttle(origin: Origin) -> None:
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        proxy.hit(partial(Link.throttle, rate=50_000))
        start = monotonic()
        server[1].write(bytes(10_000))
        assert len(await soon(client[0].readexactly(10_000))) == 10_000
        assert 0.15 < monotonic() - start < 5


async def test_splitting_and_merging_segments(origin: Origin) -> None:
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        proxy.hit(partial(Link.segments, size=3))
        server[1].write(b"abcdefgh")
        pieces = [await soon(client[0].read(100))]
        while sum(map(len, pieces)) < 8:
            pieces.append(await soon(client[0].read(100)))
        assert len(pieces) > 1
        assert b"".join(pieces) == b"abcdefgh"
        await proxy.heal()
        proxy.hit(partial(Link.merge, seconds=0.1))
        for letter in (b"x", b"y", b"z"):
            server[1].write(letter)
            await asyncio.sleep(0.001)
        first = await soon(client[0].read(100))
        if first != b"xyz":  # the letters happened to be sent around a tick
            first += await soon(client[0].read(100))
        assert first == b"xyz"


async def test_a_stall_loses_nothing(origin: Origin) -> None:
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        proxy.hit(Link.stall)
        server[1].write(b"late")
        server[1].write_eof()
        await silent(client[0].read(1))
        await proxy.heal()
        assert await soon(client[0].read()) == b"late"


async def test_a_cut_inside_a_frame(origin: Origin) -> None:
    async with origin.run() as proxy:
        proxy.arm(partial(Link.cut_after, count=len(HEAD) + 5))
        client, server = await origin.connect(proxy)
        server[1].write(HEAD + encode_frame(TEXT, "hello"))
        assert await soon(client[0].read()) == HEAD + encode_frame(TEXT, "hello")[:5]


@pytest.mark.parametrize("size", [0, 5, 125, 126, 70_000])
@pytest.mark.parametrize("asked", ["before the head", "after the head", "inside a frame", "after a frame"])
async def test_a_close_frame_stands_at_a_boundary(origin: Origin, asked: str, size: int) -> None:
    frame = encode_frame(TEXT, bytes(size))
    goodbye = b"\x88\x06" + (4200).to_bytes(2, "big") + b"over"
    say = partial(Link.close_frame, code=4200, reason="over")
    sent = b""
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        link = proxy.links[0]

        async def send(data: bytes) -> None:
            nonlocal sent
            sent += data
            server[1].write(data)
            await until(lambda: link.to_client.passed == len(sent))

        if asked == "before the head":
            say(link)
            server[1].write(HEAD + frame)
            expected = HEAD
        else:
            await send(HEAD)
            if asked == "inside a frame":
                await send(frame[: max(1, size // 2)])
                say(link)
                server[1].write(frame[max(1, size // 2) :] + frame)
                expected = HEAD + frame
            else:
                if asked == "after a frame":
                    await send(frame * 2)
                say(link)
                server[1].write(frame)
                expected = sent
        assert await soon(client[0].readexactly(len(expected) + len(goodbye))) == expected + goodbye
        await silent(client[0].read(1), 0.02)


async def test_refusing_and_listening_again_on_the_same_port(origin: Origin) -> None:
    async with origin.run() as proxy:
        client, server = await origin.connect(proxy)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(proxy.host, proxy.port)
        server[1].write(b"live links stay")
        assert await soon(client[0].readexactly(15)) == b"live links stay"
        await proxy.heal()
        await origin.connect(proxy)
        assert proxy.connections == 2


async def test_dropping_and_ignoring_new_connections(origin: Origin) -> None:
    async with origin.run() as proxy:
        proxy.reset_new()
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        with pytest.raises(ConnectionResetError):
            await soon(reader.read())
        writer.close()
        await proxy.heal()
        proxy.silence_new()
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        writer.write(b"anybody?")
        await silent(reader.read())
        writer.close()
        assert origin.accepted.empty()
        await proxy.heal()
        await origin.connect(proxy)


async def test_faults_for_future_links(origin: Origin) -> None:
    async with origin.run() as proxy:
        proxy.arm(Link.reset, Link.stall)
        proxy.arm_all(partial(Link.segments, size=1))
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        with pytest.raises(ConnectionResetError):
            await soon(reader.read())
        writer.close()
        client, server = await origin.connect(proxy)
        server[1].write(b"stalled")
        await silent(client[0].read(1))
        client, server = await origin.connect(proxy)
        server[1].write(b"split")
        assert await soon(client[0].readexactly(5)) == b"split"
        assert proxy.links[-1].to_client.segment == 1


async def test_a_server_that_is_not_there_ends_the_connection(origin: Origin) -> None:
    async with origin.run() as proxy:
        proxy._target = ("127.0.0.1", 1)
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        assert await soon(reader.read()) == b""
        writer.close()
        await until(lambda: not proxy.links)
