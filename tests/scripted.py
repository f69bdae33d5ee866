"""A WebSocket server that does what a script says, byte for byte: for faults that no real server shows on demand.

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe", channel="orders")
        await peer.reset()

    async with ScriptedServer(script) as server:
        ...  # connect a client to server.host, server.port

The script runs once for each connection, which ends with it. Nothing is answered by itself, not even a ping.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, TypeVar

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

MISSING: Any = object()
"""As an argument: this field is left out of the message."""

T = TypeVar("T")


class HungUpError(ConnectionError):
    """The client ended the connection. Not an error of the script: it just ends there."""


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    """Path and query, as sent."""
    headers: dict[str, str]
    """Names in lower case."""


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes
    fin: bool = True


def encode_message(event: str, data: Any = MISSING, channel: str = MISSING, **more: Any) -> str:
    """Return a message's text. ``data`` goes in as the JSON value that it is, so a string as a string."""
    fields = {"event": event, "data": data, "channel": channel, **more}
    return json.dumps({k: v for k, v in fields.items() if v is not MISSING}, separators=(",", ":"))


def reset_when_closed(connection: socket.socket) -> None:
    """Let a TCP connection end with an RST, not with an end of stream."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def accept_of(key: str) -> str:
    """Return the ``Sec-WebSocket-Accept`` that belongs to a client's ``Sec-WebSocket-Key``."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    return base64.b64encode(digest).decode()


def encode_frame(opcode: int, payload: bytes | str, *, fin: bool = True) -> bytes:
    """Return one unmasked frame, as servers send them."""
    if isinstance(payload, str):
        payload = payload.encode()
    first = opcode | (0x80 if fin else 0)
    if len(payload) < 126:
        head = struct.pack("!BB", first, len(payload))
    elif len(payload) < 2**16:
        head = struct.pack("!BBH", first, 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, 127, len(payload))
    return head + payload


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """Read one frame of a client; RFC 6455 says that these are masked."""
    first, second = await reader.readexactly(2)
    assert second & 0x80, "the client sent a frame without a mask"
    assert not first & 0x70, "the client sent a frame with a reserved bit set"
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    mask = await reader.readexactly(4)
    payload = await reader.readexactly(size)
    return Frame(first & 0x0F, masked(payload, mask), fin=bool(first & 0x80))


def masked(payload: bytes, mask: bytes) -> bytes:
    """Mask the payload of a frame, or unmask it; byte by byte, this would take long."""
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


class Peer:
    """The server's end of one connection. Only one coroutine at a time may read from it; any may send."""

    request: Request
    """What the client asked for in its opening handshake, once that was read."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, deadline: float
    ) -> None:
        self.number = number
        self.deadline = deadline
        self.control: list[Frame] = []
        """All control frames read so far, also while something else was waited for."""
        self._unread_control: deque[Frame] = deque()
        self._unread_messages: deque[dict[str, Any]] = deque()
        self._close_sent = False
        self._reader = reader
        self._writer = writer

    # The opening handshake

    async def read_request(self) -> Request:
        head = await self._within(self._reader.readuntil(b"\r\n\r\n"), "the client's HTTP request")
        request_line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = request_line.split(" ")
        fields = (line.partition(":") for line in lines)
        self.request = Request(method, target, {name.lower(): value.strip() for name, _, value in fields})
        return self.request

    async def upgrade(self, extra_headers: Mapping[str, str] | None = None) -> None:
        """Read the client's request and answer 101."""
        request = await self.read_request()
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept_of(request.headers["sec-websocket-key"]),
            **(extra_headers or {}),
        }
        await self._send_head(HTTPStatus.SWITCHING_PROTOCOLS, headers)

    async def refuse(self, status: int, body: str = "", extra_headers: Mapping[str, str] | None = None) -> None:
        """Read the client's request and answer it with a plain HTTP response."""
        await self.read_request()
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(body.encode())),
            "Connection": "close",
            **(extra_headers or {}),
        }
        await self._send_head(HTTPStatus(status), headers, body)

    async def establish(self, socket_id: str = "1.1", activity_timeout: int = 30) -> None:
        """Open the connection as Reverb does: 101, then ``pusher:connection_established``."""
        await self.upgrade()
        data = json.dumps({"socket_id": socket_id, "activity_timeout": activity_timeout}, separators=(",", ":"))
        await self.send("pusher:connection_established", data)

    async def _send_head(self, status: HTTPStatus, headers: Mapping[str, str], body: str = "") -> None:
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            *(f"{name}: {text}" for name, text in headers.items()),
        ]
        await self.send_raw("\r\n".join([*lines, "", body]).encode())

    # Sending

    async def send(self, event: str, data: Any = MISSING, channel: str = MISSING, **more: Any) -> None:
        await self.send_text(encode_message(event, data, channel, **more))

    async def send_text(self, text: str) -> None:
        await self.send_frame(TEXT, text)

    async def send_frame(self, opcode: int, payload: bytes | str = b"", *, fin: bool = True) -> None:
        self._close_sent |= opcode == CLOSE
        await self.send_raw(encode_frame(opcode, payload, fin=fin))

    async def send_raw(self, data: bytes) -> None:
        if self._writer.is_closing():  # where uvloop raises a RuntimeError
            raise HungUpError(f"connection {self.number}: it is closed")
        self._writer.write(data)
        await self._within(self._writer.drain(), "the client to read what was sent")

    async def confirm(self, channel: str, data: Any = "{}") -> None:
        """Answer a subscribe as Reverb does; soketi leaves ``data`` out (``MISSING``)."""
        await self.send("pusher_internal:subscription_succeeded", data, channel)

    # Receiving

    async def receive(self) -> dict[str, Any]:
        """Return the client's next message; control frames on the way are kept for ``receive_frame``."""
        return await self._next_message("a message")

    async def expect(self, event: str, **fields: Any) -> dict[str, Any]:
        """Receive a message and check its event and ``fields``, which may be the message's own or its data's."""
        wanted = {"event": event, **fields}
        message = await self._next_message(str(wanted))
        data = message.get("data")
        seen = {**(data if isinstance(data, dict) else {}), **message}
        assert {name: seen.get(name, MISSING) for name in wanted} == wanted, f"{wanted} expected, got {message}"
        return message

    async def receive_frame(self) -> Frame:
        """Return the client's next control frame; messages on the way are kept for ``receive``."""
        while not self._unread_control:
            self._keep(await self._within(read_frame(self._reader), "a control frame"))
        return self._unread_control.popleft()

    async def _next_message(self, what: str) -> dict[str, Any]:
        while not self._unread_messages:
            frame = await self._within(read_frame(self._reader), what)
            self._keep(frame)
            if frame.opcode == CLOSE:
                raise HungUpError(f"connection {self.number}: the client sent {frame}; waited for {what}")
        return self._unread_messages.popleft()

    def _keep(self, frame: Frame) -> None:
        if frame.opcode & 0x8:
            self.control.append(frame)
            self._unread_control.append(frame)
        else:
            assert frame.opcode == TEXT, f"a text frame expected, got {frame}"
            assert frame.fin, f"a whole message expected, got a fragment: {frame}"
            message = json.loads(frame.payload)
            assert isinstance(message, dict), f"a JSON object expected, got {message!r}"
            self._unread_messages.append(message)

    # The end

    async def close(self, code: int, reason: str = "") -> None:
        """Send a close frame. TCP stays open until the script ends."""
        await self.send_frame(CLOSE, struct.pack("!H", code) + reason.encode())

    async def eof(self) -> None:
        """End the stream without a close frame, as Reverb does; what the client sends can still be read.

        TLS has no half-closed connections: there this is the end in both directions.
        """
        await self._within(self._end_stream(), "the stream to end")

    def reset(self) -> None:
        """Drop the connection with a TCP RST."""
        reset_when_closed(self._writer.get_extra_info("socket"))
        self._writer.transport.abort()

    async def wait_closed(self, deadline: float | None = None) -> None:
        """Read on until the client has closed TCP; a close frame is answered as Reverb does, with itself and EOF.

        ``deadline``, in seconds, replaces the server's.
        """
        with suppress(HungUpError):
            await self._within(self._read_to_end(), "the client to close the connection", deadline)

    async def hang_up(self) -> None:
        """Close TCP, whatever state it is in."""
        self._writer.close()
        try:
            await asyncio.wait_for(self._writer.wait_closed(), self.deadline)
        except (asyncio.TimeoutError, OSError):
            self._writer.transport.abort()

    async def _read_to_end(self) -> None:
        while True:
            frame = await read_frame(self._reader)
            self._keep(frame)
            if frame.opcode == CLOSE:
                if not self._close_sent:
                    await self.send_frame(CLOSE, frame.payload)
                await self._end_stream()

    async def _end_stream(self) -> None:
        if self._writer.is_closing():
            return
        if self._writer.can_write_eof():
            self._writer.write_eof()
        else:
            self._writer.close()
            await self._writer.wait_closed()

    async def _within(self, awaitable: Awaitable[T], what: str, deadline: float | None = None) -> T:
        seconds = self.deadline if deadline is None else deadline
        try:
            return await asyncio.wait_for(awaitable, seconds)
        except asyncio.TimeoutError:
            raise AssertionError(f"connection {self.number}: waited {seconds:g} s for {what}") from None
        except (EOFError, OSError) as error:
            raise HungUpError(f"connection {self.number}: the client hung up; waited for {what}") from error


class ScriptedServer:
    """Runs ``script`` for each connection, from entering the ``async with`` block to its end.

    Leaving the block waits for the scripts that still run, at most ``deadline`` seconds, and raises the first
    exception of a script; a script tells connections apart by ``peer.number``, which counts from 1. With
    ``ssl_context`` connections count once their TLS handshake is done.
    """

    host = "127.0.0.1"
    port: int

    def __init__(
        self,
        script: Callable[[Peer], Coroutine[Any, Any, None]],
        *,
        ssl_context: ssl.SSLContext | None = None,
        deadline: float = 5.0,
    ) -> None:
        self.peers: list[Peer] = []
        self._script = script
        self._ssl_context = ssl_context
        self._deadline = deadline
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def connections(self) -> int:
        """How many connections were made so far."""
        return len(self.peers)

    async def __aenter__(self) -> ScriptedServer:
        self._server = await asyncio.start_server(self._accept, self.host, 0, ssl=self._ssl_context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        if exc is None and self._tasks:
            await asyncio.wait(self._tasks, timeout=self._deadline)
        unfinished = [f"{task.get_name()} still runs" for task in self._tasks if task.cancel()]
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        for result in results:
            if isinstance(result, Exception):
                raise result
        assert not unfinished or exc is not None, f"the test is over, but {', '.join(unfinished)}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, number=len(self.peers) + 1, deadline=self._deadline)
        self.peers.append(peer)
        name = f"the script for connection {peer.number}"
        self._tasks.append(asyncio.create_task(self._run(peer), name=name))

    async def _run(self, peer: Peer) -> None:
        try:
            await self._script(peer)
        except HungUpError:
            return
        finally:
            await peer.hang_up()
