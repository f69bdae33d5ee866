"""Clients for testing the server with: a raw WebSocket that hides nothing, and a caller of the HTTP API."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import aiohttp
import yarl

from reverb.auth import sign_channel, sign_request
from reverb.server import App, ReverbServer
from tests.scripted import masked

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
CONTINUATION = 0
DEADLINE = 10.0
DEFAULT_APP = App()

T = TypeVar("T")


async def soon(awaitable: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaitable, DEADLINE)


def error(code: int, message: str) -> str:
    return f'{{"event":"pusher:error","data":"{{\\"code\\":{code},\\"message\\":\\"{message}\\"}}"}}'


INVALID = error(4200, "Invalid message format")
UNAUTHORIZED = error(4009, "Connection is unauthorized")


class Client:
    """A WebSocket whose every frame is seen. After ``connect``, ``head`` is the answer to the handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.head = ""
        self.socket_id = ""

    async def connect(
        self, path: str, headers: Mapping[str, str | None], request_line: str = "GET {} HTTP/1.1"
    ) -> None:
        """Shake hands. A header that is None is left out."""
        usual = {
            "Host": "127.0.0.1",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        }
        lines = [f"{name}: {value}" for name, value in {**usual, **headers}.items() if value is not None]
        self._writer.write("\r\n".join([request_line.format(path), *lines, "", ""]).encode())
        self.head = (await soon(self._reader.readuntil(b"\r\n\r\n"))).decode()

    async def greeted(self) -> str:
        """Read ``connection_established``, remember the socket id, return the whole text."""
        text = await self.text()
        self.socket_id = json.loads(json.loads(text)["data"])["socket_id"]
        return text

    def send(self, payload: str | bytes | dict[str, Any], opcode: int = TEXT, *, fin: bool = True) -> None:
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        raw = payload.encode() if isinstance(payload, str) else payload
        mask = os.urandom(4)
        size = len(raw)
        if size < 126:
            length = bytes((0x80 | size,))
        elif size < 1 << 16:
            length = bytes((0xFE,)) + size.to_bytes(2, "big")
        else:
            length = bytes((0xFF,)) + size.to_bytes(8, "big")
        self._writer.write(bytes(((0x80 if fin else 0) | opcode,)) + length + mask + masked(raw, mask))

    def subscribe(self, channel: str, channel_data: str | None = None, app: App = DEFAULT_APP) -> None:
        data = {"channel": channel}
        if channel.startswith(("private", "presence")):
            data["auth"] = sign_channel(app.key, app.secret, self.socket_id, channel, channel_data)
        if channel_data is not None:
            data["channel_data"] = channel_data
        self.send({"event": "pusher:subscribe", "data": data})

    def trigger(self, channel: str, data: str = "{}", event: str = "client-hi") -> None:
        self.send(f'{{"event":"{event}","channel":"{channel}","data":{data}}}')

    async def joined(self, channel: str, channel_data: str | None = None) -> str:
        """Subscribe and return the answer."""
        self.subscribe(channel, channel_data)
        return await self.text()

    async def frame(self) -> tuple[int, bytes]:
        first, size = await soon(self._reader.readexactly(2))
        assert first & 0x70 == 0
        assert size < 128, "the server masked a frame"
        if size == 126:
            size = int.from_bytes(await soon(self._reader.readexactly(2)), "big")
        elif size == 127:
            size = int.from_bytes(await soon(self._reader.readexactly(8)), "big")
        return first & 0x8F, await soon(self._reader.readexactly(size))

    async def text(self) -> str:
        opcode, payload = await self.frame()
        assert opcode == 0x80 | TEXT, (opcode, payload)
        return payload.decode()

    async def quiet(self) -> None:
        """Check that the server has handled everything sent so far, and has nothing to say about it."""
        self.send('{"event":"pusher:ping"}')
        assert await self.text() == '{"event":"pusher:pong"}'

    async def raw(self) -> bytes:
        """Return what has come, frames or not, as soon as there is something; b"" at the end."""
        return await self._reader.read(1 << 16)

    async def rest(self) -> bytes:
        """Return what comes until the server ends the connection; b"" is a bare TCP EOF."""
        return await soon(self._reader.read())

    async def cut_off(self, pause: float = 0.01) -> None:
        """Return when the connection is gone, without reading: write every so many seconds."""

        async def write() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    self.send(b"", PONG)
                    await self._writer.drain()
                    await asyncio.sleep(pause)

        await soon(write())

    def drop(self) -> None:
        self._writer.close()

    async def closed(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()


class Clients:
    """Opens clients, and closes them all at the end of a test."""

    def __init__(self) -> None:
        self._open: list[Client] = []

    async def raw(
        self,
        server: ReverbServer,
        path: str = "/app/app-key",
        *,
        headers: Mapping[str, str | None] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        request_line: str = "GET {} HTTP/1.1",
    ) -> Client:
        """Shake hands and read nothing further."""
        reader, writer = await asyncio.open_connection(server.host, server.port, ssl=ssl_context)
        client = Client(reader, writer)
        self._open.append(client)
        await client.connect(path, headers or {}, request_line)
        return client

    async def by_hand(self, server: ReverbServer, request: str) -> Client:
        """Send a handshake as it is, and read nothing behind the head of the answer."""
        reader, writer = await asyncio.open_connection(server.host, server.port)
        client = Client(reader, writer)
        self._open.append(client)
        writer.write(request.encode("latin-1"))
        client.head = (await soon(reader.readuntil(b"\r\n\r\n"))).decode()
        return client

    async def open(self, server: ReverbServer, path: str = "/app/app-key") -> Client:
        client = await self.raw(server, path)
        await client.greeted()
        return client

    async def close(self) -> None:
        for client in self._open:
            await client.closed()


async def request(
    server: ReverbServer, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Send a request as it is; return the status and the body of the answer."""
    whole_url = yarl.URL(f"http://{server.host}:{server.port}{url}", encoded=True)
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, whole_url, data=body or None, headers=headers) as response,
    ):
        return response.status, await response.text()


async def call(
    server: ReverbServer,
    method: str,
    path: str,
    body: Any = None,
    *,
    query: Mapping[str, str] | None = None,
    prefix: str = "",
    key: str = "app-key",
    secret: str = "app-secret",
) -> tuple[int, str]:
    """Send a signed request to the HTTP API of the default app; ``body`` is text or bytes, or made into JSON."""
    path = f"/apps/app-id{path}"
    text = body if isinstance(body, str | bytes) else "" if body is None else json.dumps(body)
    raw = text.encode() if isinstance(text, str) else text
    signed = sign_request(key, secret, method, path, query or {}, raw, 0)
    parameters = "&".join(f"{name}={value}" for name, value in signed.items())
    return await request(server, method, f"{prefix}{path}?{parameters}", raw)
