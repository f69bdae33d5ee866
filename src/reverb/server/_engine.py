"""The running server in one event loop: it listens, answers, finds silent connections, and stops."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, cast

from . import _http
from ._app import App
from ._channels import Channels
from ._faults import REFUSALS, Faults
from ._frames import close_frame, error_frame
from ._journal import Journal
from ._websocket import Connection

TIMEOUT: Final = 30.0
"""Seconds that a client has to send its request, and at the end to read what the server wrote."""
MAX_UNREAD: Final = 64 * 1024 * 1024
"""Bytes that may wait for all slow clients together. Real Reverb has no limit."""
_LINGER: Final = 1.0
"""Seconds of silence after which the server assumes that a client has stopped sending, once it knows of the
end."""
_LINGER_TLS: Final = 0.1
"""The same for TLS, whose direction to the client cannot be closed alone. The client learns of the end
afterwards."""
_READ_AT_ONCE: Final = 16 * 1024
"""Bytes to read from one client before other clients get their turn."""
_CHUNK: Final = 64 * 1024
"""Bytes to which waiting frames are collected."""


class Engine:
    """Serves applications. Everything here belongs to the event loop in which ``start`` was called."""

    def __init__(
        self,
        apps: Sequence[App],
        *,
        host: str,
        port: int,
        prefix: str,
        ssl_context: ssl.SSLContext | None,
        max_request_size: int,
        tick: float,
        strict: bool,
        journal: Journal,
        name: str,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.prefix = prefix
        self.is_secure = ssl_context is not None
        self.max_request_size = max_request_size
        self.strict = strict
        self.journal = journal
        self.faults = Faults()
        self.channels = [Channels(app, journal, self.faults.denied, strict=strict) for app in apps]
        self.peers: dict[Peer, None] = {}
        self.unread = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._ssl_context = ssl_context
        self._tick = tick
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def nodes(self) -> Sequence[Engine]:
        """The nodes: this one only."""
        return (self,)

    @property
    def is_running(self) -> bool:
        return self._server is not None

    @property
    def connections(self) -> list[Connection]:
        """The open connections of clients of known applications, in the order in which they connected."""
        return [peer.connection for peer in list(self.peers) if peer.connection is not None and not peer.is_closed]

    async def start(self) -> None:
        if self._server is not None:
            raise RuntimeError("the server has been started already")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Peer(self), self.host, self.port, ssl=self._ssl_context)
        self.loop = loop
        self.port = self._server.sockets[0].getsockname()[1]
        self._schedule_check()

    async def close(self) -> None:
        """Close every connection, and stop listening. ``start`` works again in the same loop."""
        lost = [peer.lost for peer in self.peers]
        self._end()
        # Not Server.wait_closed(): from Python 3.12 on, it waits for clients with an unfinished TLS handshake.
        if lost:
            await asyncio.wait(lost)

    async def stop(self) -> None:
        """Do the same, and forget the loop: ``start`` works again in any loop."""
        await self.close()
        self.loop = None

    def drop(self) -> None:
        for connection in self.connections:
            connection.end()
        self._end_half_open()

    def half_open(self, *, loses_input: bool, loses_output: bool) -> None:
        """Make the present WebSocket connections lose what is sent."""
        for peer in self.peers:
            if peer.connection is not None:
                peer.half_open(loses_input=loses_input, loses_output=loses_output)

    def heal(self) -> None:
        self.faults.heal()
        self._end_half_open()

    def has_subscriber(self, channel: str) -> bool:
        """Whether a channel has a subscriber whose connection is not half open."""
        found = {member for channels in self.channels for member in channels.members(channel)}
        return bool(found and found - {peer.connection for peer in self.peers if peer.is_half_open})

    def send_raw(self, data: bytes) -> None:
        for connection in self.connections:
            connection.send(data)

    def fail(self) -> None:
        """End as a process does that fails: answers that are ready are sent first."""
        assert self.loop is not None
        self.journal.note(f"{self.name} failed, and its process ended", failed=True)
        self.loop.call_soon(self._end)

    def _end(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        server.close()
        self._end_half_open()
        if self.strict:
            for connection in self.connections:
                connection.close(4200)
        for peer in list(self.peers):
            # close() would wait for a client that does not read, or does not answer the end of TLS.
            peer.abort()
        for connection in self.connections:
            connection.end()

    def _end_half_open(self) -> None:
        for peer in list(self.peers):
            if peer.is_half_open:
                peer.disconnect()

    def _schedule_check(self) -> None:
        assert self.loop is not None
        self._timer = self.loop.call_later(self._tick, self.check_alive)

    def check_alive(self) -> None:
        """Ping silent clients now, and close connections that stayed silent after a ping."""
        self._schedule_check()
        for channels in self.channels:
            for subscriber in channels.subscribers():
                subscriber.check_alive()


class Peer(asyncio.BufferedProtocol):
    """A TCP connection: carries a request to the HTTP API, or a client's WebSocket.

    asyncio lets a write buffer grow without limit, and some versions copy all of it at each write. So data that
    the client is not ready to read waits here.
    """

    _transport: asyncio.Transport

    def __init__(self, engine: Engine) -> None:
        self.connection: Connection | None = None
        self.is_closed = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.unread = 0
        self._engine = engine
        self._buffer = bytearray(_READ_AT_ONCE)
        self._reader = _http.RequestReader(engine.max_request_size)
        self._is_answered = False
        self._delayed: deque[tuple[asyncio.TimerHandle, bytes | None]] = deque()
        self._waiting: deque[bytearray] = deque()
        self._may_write = True
        self._closes_when_read = False
        self._lingers_until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loses_input = False
        self._loses_output = False

    @property
    def is_half_open(self) -> bool:
        """Whether data is lost in one direction or both."""
        return self._loses_input or self._loses_output

    def half_open(self, *, loses_input: bool, loses_output: bool) -> None:
        """Lose what the client sends, what is sent to it, or both, from now on. The end of the connection is lost,
        too."""
        self._loses_input |= loses_input
        self._loses_output |= loses_output
        while self._loses_output and self._waiting:
            self._count(-len(self._waiting.popleft()))

    def disconnect(self) -> None:
        """Close the connection on both sides, even if it is half open."""
        if self.connection is not None:
            self.connection.end()
        self.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # other event loops have their own classes
        self._engine.peers[self] = None
        self._set_timer(TIMEOUT, self._time_out)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._lingers_until is not None:
            self._wait_for_silence(self._lingers_until)
        if self.is_closed or self._loses_input:
            return
        data = bytes(self._buffer[:nbytes])
        if self.connection is not None:
            self.connection.receive_data(data)
        elif not self._is_answered:
            self._serve(data)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        while self._waiting and self._may_write:
            chunk = self._waiting.popleft()
            self._count(-len(chunk))
            self._transport.write(chunk)
        if self._closes_when_read and self._may_write:
            # Not at once: asyncio is still writing.
            asyncio.get_running_loop().call_soon(self._linger)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        for timer, _ in self._delayed:
            timer.cancel()
        self._count(-self.unread)
        self._transport.abort()  # otherwise Python 3.10 warns that the TLS transport was never closed
        self.lost.set_result(None)
        if self._loses_input and not self.is_closed:
            return  # The end is lost, too: for the server, the client is still connected.
        self.is_closed = True
        self._engine.peers.pop(self, None)
        if self.connection is not None:
            self.connection.end()

    def write(self, data: bytes) -> None:
        if not self._engine.faults.silent:
            self._send(data)

    def close(self) -> None:
        self.is_closed = True
        if self.lost.done():
            self._engine.peers.pop(self, None)
        else:
            self._send(None)

    def abort(self) -> None:
        self._transport.abort()

    def discard(self) -> None:
        """Close the connection, and discard the data that its client has not read."""
        who = None if self.connection is None else self.connection.socket_id
        self._engine.journal.note(f"closed: the client did not read {self.unread} bytes", who, failed=True)
        self.is_closed = True
        self._count(-self.unread)
        self._waiting.clear()
        self.abort()

    def _count(self, size: int) -> None:
        """Count waiting bytes. If there are too many, close the connection with the most."""
        self.unread += size
        self._engine.unread += size
        if self._engine.unread > MAX_UNREAD:
            max(self._engine.peers, key=lambda peer: peer.unread).discard()

    def _send(self, data: bytes | None) -> None:
        """Send data, or close for None: at once, or after data that are delayed."""
        delay = self._engine.faults.delay
        if self._transport.is_closing():
            return  # asyncio warns about writes after a reset
        if delay or self._delayed:
            # Keep the order, even if the delay has ended meanwhile.
            timer = asyncio.get_running_loop().call_later(delay, self._send_delayed)
            self._delayed.append((timer, data))
            self._count(len(data or b""))
        else:
            self._write_or_close(data)

    def _send_delayed(self) -> None:
        _, data = self._delayed.popleft()
        self._count(-len(data or b""))
        if not self._transport.is_closing():
            self._write_or_close(data)

    def _write_or_close(self, data: bytes | None) -> None:
        if self._loses_output:
            return
        if data is None:
            self._set_timer(TIMEOUT, self.abort)
            self._closes_when_read = True
            # From now on, asyncio calls resume_writing() when everything is written.
            self._transport.set_write_buffer_limits(0)
            if self._may_write:
                self._linger()
        elif self._may_write:
            self._transport.write(data)
        else:
            if not self._waiting or len(self._waiting[-1]) >= _CHUNK:
                self._waiting.append(bytearray())
            self._waiting[-1] += data
            self._count(len(data))

    def _linger(self) -> None:
        """Close the direction to the client, and read what it sends until it is silent.

        If the connection is closed with unread data, TCP resets it, and the client can lose what was written.
        """
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # the connection is lost already
                self._transport.write_eof()
        self._lingers_until = asyncio.get_running_loop().time() + TIMEOUT
        self._wait_for_silence(self._lingers_until)

    def _wait_for_silence(self, until: float) -> None:
        linger = _LINGER if self._transport.can_write_eof() else _LINGER_TLS
        left = until - asyncio.get_running_loop().time()
        self._set_timer(min(linger, left), self._end)

    def _end(self) -> None:
        self._lingers_until = None
        self._set_timer(TIMEOUT, self.abort)
        self._transport.close()

    def _set_timer(self, delay: float, action: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(delay, action)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _time_out(self) -> None:
        if self._reader.has_begun:
            self._refuse(None, _http.RequestError(408, "Request timeout."))
        else:
            self.close()

    def _serve(self, data: bytes) -> None:
        request = None
        try:
            request = self._reader.feed(data)
            if request is None:
                return
            self._is_answered = True
            self._cancel_timer()
            match = re.fullmatch(f"{re.escape(self._engine.prefix)}/app/([^/]+)", request.path)
            if match is not None and request.method not in ("GET", "HEAD"):
                raise _http.RequestError(405, "Method not allowed.", Allow="GET")
            if match is not None:
                self._open(request, match[1])
            else:
                channels = {each.app.id: each for each in self._engine.channels}
                self.write(_http.answer_call(request, channels, self._engine.prefix))
                self.close()
        except _http.RequestError as error:
            self._refuse(request, error)

    def _open(self, request: _http.Request, key: str) -> None:
        if not _http.wants_upgrade(request):
            raise _http.RequestError(500)
        self.write(_http.upgrade(request))
        channels = next((each for each in self._engine.channels if each.app.key == key), None)
        if channels is None:
            self._engine.journal.note(f"refused a client with the unknown application key {key}", failed=True)
            self.write(error_frame(4001, REFUSALS[4001], strict=self._engine.strict))
            if self._engine.strict:
                self.write(close_frame(4001, ""))
            self.close()
            return
        self.connection = Connection(channels, self)
        origin, *_ = request.headers.get("origin", [""])
        self.connection.open(origin, self._engine.faults.refused)

    def _refuse(self, request: _http.Request | None, error: _http.RequestError) -> None:
        self._is_answered = True
        what = "request" if request is None else f"{request.method} {request.path}"
        self._engine.journal.note(f"answered {what} with {error.status}: {error.text}", failed=True)
        self.write(error.answer())
        self.close()
