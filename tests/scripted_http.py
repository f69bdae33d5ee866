"""An HTTP server that answers what a test says, byte for byte, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import re
import ssl
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType

from typing_extensions import Self

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    raw: bytes
    """Head and body, as sent."""
    connection: int
    """Which connection it came on, from 0."""

    @property
    def target(self) -> str:
        return self.raw.split(b" ", 2)[1].decode()

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]


def answer(status: int, body: str | bytes = "{}", *headers: str) -> bytes:
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


MB = 1024 * 1024


def _make_bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(bytes(MB)) for _ in range(40)), packer.flush()])


BOMB = _make_bomb()
"""40 KB of gzip that unpacked are 40 MB."""


class Flood:
    """Answers without end, until the client has closed the connection."""

    def __init__(self, status: int, head: str) -> None:
        self.most_sent = 0
        self._head = f"HTTP/1.1 {status} Whatever\r\n{head}\r\n\r\n".encode()
        self._chunk = b"10000\r\n%b\r\n" % bytes(0x10000) if "chunked" in head else bytes(0x10000)

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self._head)
        sent = 0
        try:
            while sent < 100 * MB:
                writer.write(self._chunk)
                await writer.drain()
                sent += len(self._chunk)
        finally:
            self.most_sent = max(self.most_sent, sent)


@contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    """Check how many bytes are allocated meanwhile, by us and by the test together."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak} bytes"


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close the connection instead of answering."""


async def never(writer: asyncio.StreamWriter) -> None:
    """Don't answer."""
    await asyncio.Event().wait()


class _Server:
    """Has a port of its own, and a task for each connection, which ends with it."""

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self.host, self.port = "127.0.0.1", 0
        self._ssl_context = ssl_context
        self._handlers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, self.port, ssl=self._ssl_context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)
        await self._handle(reader, writer)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class ScriptedHTTPServer(_Server):
    """Gives its answers in turn, and the last one again and again."""

    def __init__(self, *answers: Answer, ssl_context: ssl.SSLContext | None = None) -> None:
        super().__init__(ssl_context)
        self.requests: list[Received] = []
        self.connections = 0
        self.open = 0
        """Connections that are open."""
        self._answers = answers

    def bodies(self) -> Sequence[bytes]:
        return [each.body for each in self.requests]

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"\r\nContent-Length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.requests.append(Received(head + body, number))
                what = self._answers[min(len(self.requests), len(self._answers)) - 1]
                if not isinstance(what, bytes):
                    await what(writer)
                    return
                writer.write(what)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self.open -= 1


class TunnelProxy(_Server):
    """A proxy that passes bytes on to where its clients want to go, and remembers the heads of what they ask."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        super().__init__(ssl_context)
        self.heads: list[bytes] = []

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            host, _, port = self.heads[-1].split(b" ")[1].decode().rpartition(":")
            from_server, to_server = await asyncio.open_connection(host, int(port))
            try:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_pass_on(reader, to_server), _pass_on(from_server, writer))
            finally:
                to_server.close()
        finally:
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
