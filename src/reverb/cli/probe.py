"""Check the layers below a WebSocket one at a time: DNS, TCP, TLS with its certificates, HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeAlias

import aiohappyeyeballs

from .._failures import Certificate, join_chunks, parse_head

__all__ = [
    "Answer",
    "NotHTTPError",
    "TcpConnection",
    "fetch_certificate",
    "resolve",
    "speaks",
    "upgrade_key",
]

AddressInfo: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""A result of :func:`socket.getaddrinfo`."""

_MAX_HEAD = 65_536
"""Bytes of an answer that are read at most."""
_LAST_CHUNK = b"0\r\n\r\n"
_BODY_TIMEOUT = 1.0
"""Seconds to wait for the body of an answer, which is only quoted in messages."""
_NO_CHECK_TIME = 0x200000
"""OpenSSL's ``X509_V_FLAG_NO_CHECK_TIME``, which Python does not define."""
_HANDSHAKE_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""The constant of RFC 6455 from which the answer to a handshake's key is computed."""


async def resolve(host: str, port: int) -> list[AddressInfo]:
    """Resolve a host name.

    A thread of its own calls the resolver, which may take long. When the program ends, it does not wait for this
    thread. It would wait for the threads of asyncio."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[AddressInfo]] = loop.create_future()

    def set_result(addresses: list[AddressInfo] | None, error: OSError | UnicodeError | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(addresses or [])

    def look_up() -> None:
        addresses: list[Any] | None = None
        failure: OSError | UnicodeError | None = None
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(set_result, addresses, failure)

    threading.Thread(target=look_up, daemon=True).start()
    return await future


class NotHTTPError(Exception):
    """The server answered, but not with HTTP. ``start`` has the first bytes."""

    def __init__(self, start: bytes) -> None:
        super().__init__("not HTTP")
        self.start = start


class Answer(NamedTuple):
    """The answer to an HTTP request."""

    status: int
    headers: Mapping[str, str]
    """The header fields; their names are in lower case."""
    body: str
    """The beginning of the body."""

    @property
    def date(self) -> datetime | None:
        """The server's time, in whole seconds; None if it is missing."""
        try:
            date = parsedate_to_datetime(self.headers.get("date", ""))
        except (TypeError, ValueError):
            return None
        return date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)


class TcpConnection:
    """A TCP connection for one HTTP request, with or without TLS."""

    def __init__(self, sock: socket.socket) -> None:
        host, port = sock.getpeername()[:2]
        self.peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._socket: socket.socket | None = sock
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @classmethod
    async def open(cls, addresses: Sequence[AddressInfo]) -> TcpConnection:
        return cls(await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=0.25))

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        sock, self._socket = self._socket, None
        self._streams = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=host)

    @property
    def tls(self) -> ssl.SSLObject:
        assert self._streams is not None
        tls = self._streams[1].get_extra_info("ssl_object")
        assert isinstance(tls, ssl.SSLObject)
        return tls

    async def request(self, target: str, headers: Mapping[str, str]) -> Answer:
        """Send a GET request and return the answer. Raises :class:`NotHTTPError`, EOFError, or OSError."""
        if self._streams is None:
            sock, self._socket = self._socket, None
            self._streams = await asyncio.open_connection(sock=sock)
        reader, writer = self._streams
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        await writer.drain()
        return await _read_answer(reader)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._streams is not None:
            self._streams[1].transport.abort()


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = await reader.read(_MAX_HEAD)
        received += chunk
        if received and not received.startswith(b"HTTP/"[: len(received)]):
            raise NotHTTPError(received[:16])
        if not chunk or len(received) > _MAX_HEAD:
            raise EOFError
    head, _, body = received.partition(b"\r\n\r\n")
    parsed = parse_head(head)
    if parsed is None:
        raise NotHTTPError(received[:16])
    status, headers = parsed
    if status != 101:
        is_chunked = headers.get("transfer-encoding", "").lower().endswith("chunked")
        length = headers.get("content-length", "")
        wanted = min(int(length), _MAX_HEAD) if length.isdecimal() and not is_chunked else _MAX_HEAD
        end = _LAST_CHUNK if is_chunked else None
        with suppress(asyncio.TimeoutError, OSError):
            await asyncio.wait_for(_read_more(reader, buffer := bytearray(body), wanted, end), _BODY_TIMEOUT)
        body = join_chunks(bytes(buffer)) if is_chunked else bytes(buffer)
    return Answer(status, headers, body.decode(errors="replace"))


async def _read_more(reader: asyncio.StreamReader, buffer: bytearray, wanted: int, end: bytes | None) -> None:
    while len(buffer) < wanted and not (end is not None and buffer.endswith(end)):
        chunk = await reader.read(_MAX_HEAD)
        if not chunk:
            return
        buffer += chunk


def upgrade_key() -> tuple[str, str]:
    """Return a key for the handshake, and the answer that the server must give (RFC 6455, 4.2.2)."""
    key = base64.b64encode(os.urandom(16)).decode()
    accept = hashlib.sha1((key + _HANDSHAKE_GUID).encode(), usedforsecurity=False).digest()
    return key, base64.b64encode(accept).decode()


# --- certificates ----------------------------------------------------------------------------------------------


async def fetch_certificate(addresses: Sequence[AddressInfo], host: str) -> Certificate:
    """Fetch and read a certificate that this machine does not trust.

    Python reads only certificates that it has verified. So this function fetches the certificate unverified, and
    then once more with a context that trusts exactly this certificate, whatever its dates.
    """
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    encoded = await _handshake(addresses, host, anyone, lambda tls: tls.getpeercert(binary_form=True))
    this_one = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    this_one.check_hostname = False
    this_one.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    this_one.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(encoded))
    certificate: Certificate = await _handshake(addresses, host, this_one, Certificate.of)
    return certificate


async def _handshake(addresses: Sequence[AddressInfo], host: str, context: ssl.SSLContext, read: Any) -> Any:
    line = await TcpConnection.open(addresses)
    try:
        await line.start_tls(context, host)
        return read(line.tls)
    finally:
        line.close()


async def speaks(scheme: str, addresses: Sequence[AddressInfo], host: str, timeout: float = 3.0) -> bool:
    """Return whether the server speaks TLS (for the scheme ``wss``) or plain HTTP (for ``ws``)."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE

    async def try_plain() -> None:
        line = await TcpConnection.open(addresses)
        try:
            await line.request("/", {"Host": host, "Connection": "close"})
        finally:
            line.close()

    attempt = try_plain() if scheme == "ws" else _handshake(addresses, host, anyone, lambda tls: None)
    try:
        await asyncio.wait_for(attempt, timeout)
    except (asyncio.TimeoutError, OSError, EOFError, NotHTTPError):
        return False
    return True
