"""A TCP proxy that makes trouble on the way between a client and any server.

    async with FaultProxy(server.host, server.port) as proxy:
        ...                                  # connect a client to proxy.host, proxy.port
        proxy.hit(Link.reset)                # every live connection
        proxy.arm(partial(Link.cut_after, count=40))  # the next connection to be made
        proxy.refuse()                       # no more connections
        proxy.heal()

What is done to a link is a method of :class:`Link`. Faults are of two kinds. Those that a network can recover
from (delay, throttle, segments, merge, stall) end with :meth:`Link.heal`. After the others (cut, reset, black hole
or close frame) bytes are missing, and the link can only end.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Flag
from time import monotonic
from types import TracebackType
from typing import cast

from tests.scripted import reset_when_closed

_BUFFER = 256 * 1024
"""Bytes under way in one direction at which reading pauses: the proxy passes back-pressure on."""
_CONNECT_TIMEOUT = 5.0


class Towards(Flag):
    CLIENT = 1
    SERVER = 2
    BOTH = 3


class FrameBoundaries:
    """Follows what a server sends, to know where an HTTP head or a WebSocket frame ends."""

    def __init__(self) -> None:
        self.upgraded = False
        """Whether the HTTP head has passed: from there on there are frames."""
        self._head = bytearray()
        self._left = 0
        """Bytes of the current frame's payload that are still to come."""

    def next_boundary(self, data: bytes) -> int | None:
        """Take the bytes up to the next boundary and return their number; None if it is not in ``data``.

        In that case all of ``data`` is taken.
        """
        position = 0
        while position < len(data):
            if self._left:
                step = min(self._left, len(data) - position)
                self._left -= step
                position += step
                if not self._left:
                    return position
                continue
            self._head.append(data[position])
            position += 1
            if not self.upgraded:
                if self._head.endswith(b"\r\n\r\n"):
                    self._head.clear()
                    self.upgraded = True
                    return position
            elif (size := _payload_size(self._head)) is not None:
                self._head.clear()
                self._left = size
                if not size:
                    return position
        return None

    @property
    def at_boundary(self) -> bool:
        return self.upgraded and not self._head and not self._left


def _payload_size(head: bytearray) -> int | None:
    """The payload's size by the head of an unmasked frame; None for a head that is not whole."""
    if len(head) < 2:
        return None
    size = head[1] & 0x7F
    if size < 126:
        return size
    extended = 2 if size == 126 else 8
    return int.from_bytes(head[2:], "big") if len(head) == 2 + extended else None


class Pipe:
    """One direction of a link."""

    def __init__(self, link: Link, towards: Towards) -> None:
        self.passed = 0
        """Bytes handed on so far."""
        self.delay = 0.0
        self.rate: float | None = None
        self.segment: int | None = None
        self.merge = 0.0
        self.stalled = False
        self.swallows = False
        """Whether everything that comes, an end of stream included, is thrown away from now on."""
        self.source_ended = False
        self.ended = False
        """Whether the receiving side was told, or will not be told any more, that nothing comes behind."""
        self.boundaries = FrameBoundaries() if towards is Towards.CLIENT else None
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self._link = link
        self._queue: deque[tuple[float, bytes]] = deque()
        self._queued = 0
        self._sink_full = False
        self._timer: asyncio.TimerHandle | None = None
        self._traps: list[tuple[int, Callable[[], object]]] = []
        self._boundary_traps: list[Callable[[], object]] = []

    def trap(self, count: int, spring: Callable[[], object]) -> None:
        """Call ``spring`` when ``count`` more bytes have passed, and before any other does."""
        self._traps.append((self.passed + count, spring))
        self._traps.sort(key=lambda trap: trap[0])

    def trap_boundary(self, spring: Callable[[], object]) -> None:
        """Call ``spring`` at the next end of a frame, which may be right here."""
        assert self.boundaries is not None, "only what the server sends is followed"
        if self.boundaries.at_boundary:
            spring()
        else:
            self._boundary_traps.append(spring)

    def feed(self, data: bytes) -> None:
        if self.swallows:
            return
        due = asyncio.get_running_loop().time() + self.delay
        if self.merge:
            due = (due // self.merge + 1) * self.merge
        if self._queue:
            due = max(due, self._queue[-1][0])  # a shorter delay does not overtake
        self._queue.append((due, data))
        self._queued += len(data)
        self._throttle_source()
        self.pump()

    def feed_eof(self) -> None:
        self.source_ended = True
        self.pump()
        self._link._close_what_has_ended()

    def set_full(self, full: bool) -> None:
        """Note whether the receiving side's socket takes no more for now."""
        self._sink_full = full
        self.pump()

    def swallow(self) -> None:
        self.swallows = True
        self._queue.clear()
        self._queued = 0
        self._throttle_source()

    def pump(self) -> None:
        """Hand on what is due, as far as the receiving side takes it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while self._queue and not (self.stalled or self._sink_full or self.swallows) and self.sink is not None:
            now = loop.time()
            if self._queue[0][0] > now:
                self._timer = loop.call_at(self._queue[0][0], self.pump)
                return
            due = bytearray()
            while self._queue and self._queue[0][0] <= now:
                due += self._queue.popleft()[1]
            size = len(due)
            if self.segment is not None:
                size = self.segment
            if self.rate is not None:
                size = min(size, max(1, int(self.rate * 0.005)))
            if size < len(due):
                self._queue.appendleft((now, bytes(due[size:])))
                del due[size:]
                self._timer = loop.call_later(0 if self.rate is None else size / self.rate, self.pump)
            self._queued -= len(due)
            self._throttle_source()
            self._pass(bytes(due))
            if self._timer is not None:
                return
        if self.source_ended and not (self._queue or self.swallows or self.ended) and self.sink is not None:
            self.end()

    def _pass(self, data: bytes) -> None:
        """Write to the receiving side, and spring the traps on the way."""
        while data and not self.swallows:
            count = len(data)
            if self._traps:
                count = min(count, max(0, self._traps[0][0] - self.passed))
            at_boundary = False
            if self.boundaries is not None and count:
                piece = data[:count]
                if self._boundary_traps or not self.boundaries.upgraded:
                    boundary = self.boundaries.next_boundary(piece)
                    at_boundary = boundary is not None
                    count = count if boundary is None else boundary
                else:
                    while piece:
                        piece = piece[self.boundaries.next_boundary(piece) or len(piece) :]
            if self.sink is not None and count:
                self.sink.write(data[:count])
            self.passed += count
            data = data[count:]
            if at_boundary:
                springs, self._boundary_traps = self._boundary_traps, []
                for spring in springs:
                    spring()
            while self._traps and self._traps[0][0] <= self.passed:
                self._traps.pop(0)[1]()

    def end(self) -> None:
        """End the stream towards the receiving side."""
        self.swallow()
        if not self.ended:
            self.ended = True
            if self.sink is not None and not self.sink.is_closing():
                with suppress(OSError):  # it is gone already
                    self.sink.write_eof()
            self._link._close_what_has_ended()

    def stop(self) -> None:
        """As :meth:`end`, for a receiving side that is gone."""
        self.swallow()
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()

    def _throttle_source(self) -> None:
        if self.source is None or self.source.is_closing():
            return
        if self._queued >= _BUFFER and self.source.is_reading():
            self.source.pause_reading()
        elif self._queued < _BUFFER and not self.source.is_reading():
            self.source.resume_reading()


class _End(asyncio.Protocol):
    """One socket of a link: reads into one pipe, and is written to by the other."""

    def __init__(self, outgoing: Pipe, incoming: Pipe, on_connected: Callable[[], None] | None = None) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._on_connected = on_connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._outgoing.source = self._incoming.sink = transport
        if self._on_connected is not None:
            self._on_connected()
        self._incoming.pump()

    def data_received(self, data: bytes) -> None:
        self._outgoing.feed(data)

    def eof_received(self) -> bool:
        self._outgoing.feed_eof()
        return True  # keep the other direction

    def pause_writing(self) -> None:
        self._incoming.set_full(True)

    def resume_writing(self) -> None:
        self._incoming.set_full(False)

    def connection_lost(self, error: Exception | None) -> None:
        self._incoming.stop()
        self._outgoing.source = self._incoming.sink = None
        self._outgoing.feed_eof()


class Link:
    """One connection of a client through the proxy."""

    def __init__(self, proxy: FaultProxy, number: int) -> None:
        self.number = number
        """Counts from 1."""
        self.to_client = Pipe(self, Towards.CLIENT)
        self.to_server = Pipe(self, Towards.SERVER)
        self._proxy = proxy
        self._has_black_hole = False

    # What a network can recover from

    def delay(self, seconds: float, towards: Towards = Towards.BOTH) -> None:
        """Hold everything that comes back for ``seconds``."""
        for pipe in self._pipes(towards):
            pipe.delay = seconds

    def throttle(self, rate: float, towards: Towards = Towards.BOTH) -> None:
        """Pass ``rate`` bytes per second."""
        for pipe in self._pipes(towards):
            pipe.rate = rate

    def segments(self, size: int, towards: Towards = Towards.BOTH) -> None:
        """Split everything in TCP segments of ``size`` bytes."""
        for pipe in self._pipes(towards):
            pipe.segment = size

    def merge(self, seconds: float, towards: Towards = Towards.BOTH) -> None:
        """Collect for ``seconds`` what comes, and pass it on in one piece."""
        for pipe in self._pipes(towards):
            pipe.merge = seconds

    def stall(self, towards: Towards = Towards.BOTH) -> None:
        """Pass nothing until it is healed, and lose nothing: a network that is away for a while."""
        for pipe in self._pipes(towards):
            pipe.stalled = True

    def heal(self) -> None:
        """End all of the above. A link with a black hole that one side has left ends."""
        for pipe in self._pipes(Towards.BOTH):
            pipe.delay = pipe.merge = 0.0
            pipe.rate = pipe.segment = None
            pipe.stalled = False
            pipe.pump()
        if self._has_black_hole and (self.to_client.source_ended or self.to_server.source_ended):
            self.abort()

    # What it can't

    def cut(self, towards: Towards = Towards.BOTH) -> None:
        """End the stream, in one direction or in both. What was under way is lost."""
        for pipe in self._pipes(towards):
            pipe.end()

    def reset(self) -> None:
        """Drop both sockets with an RST."""
        for pipe in self._pipes(Towards.BOTH):
            if pipe.sink is not None:
                with suppress(OSError):
                    reset_when_closed(pipe.sink.get_extra_info("socket"))
        self.abort()

    def black_hole(self, towards: Towards = Towards.BOTH) -> None:
        """Swallow everything, an end of stream too, and keep the sockets open."""
        self._has_black_hole = True
        for pipe in self._pipes(towards):
            pipe.swallow()

    def cut_after(self, count: int) -> None:
        """End the stream in both directions when ``count`` more bytes have come from the server."""
        self.to_client.trap(count, self.cut)

    def close_frame(self, code: int, reason: str = "") -> None:
        """Make the server say goodbye: a close frame at the next boundary of frames, and then nothing more."""

        def send() -> None:
            payload = struct.pack("!H", code) + reason.encode()
            if self.to_client.sink is not None and not self.to_client.ended:
                self.to_client.sink.write(bytes([0x88, len(payload)]) + payload)
            self.to_client.swallow()

        self.to_client.trap_boundary(send)

    def abort(self) -> None:
        """Close both sockets."""
        for pipe in self._pipes(Towards.BOTH):
            pipe.stop()
            if pipe.sink is not None:
                pipe.sink.abort()
        self._proxy._forget(self)

    def _pipes(self, towards: Towards) -> list[Pipe]:
        both = ((Towards.CLIENT, self.to_client), (Towards.SERVER, self.to_server))
        return [pipe for direction, pipe in both if direction & towards]

    def _close_what_has_ended(self) -> None:
        for incoming, outgoing in ((self.to_client, self.to_server), (self.to_server, self.to_client)):
            if incoming.ended and outgoing.source_ended and incoming.sink is not None:
                incoming.sink.close()
        if self.to_client.sink is None and self.to_server.sink is None:
            self._proxy._forget(self)


Fault = Callable[[Link], object]


class FaultProxy:
    """Listens on ``host`` and ``port`` and passes each connection on to another address, with faults on demand."""

    host = "127.0.0.1"
    port: int

    def __init__(self, host: str, port: int) -> None:
        self.arrivals: list[float] = []
        """When each connection was made to it, on the clock of :func:`time.monotonic`."""
        self.links: list[Link] = []
        """Those that are still there."""
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._dialling: set[asyncio.Task[None]] = set()
        self._armed: deque[Fault] = deque()
        self._lasting: Fault | None = None
        self._resets = False
        self._silent = False

    async def __aenter__(self) -> FaultProxy:
        # Bound and not listening, this one keeps the port while connections are refused.
        self._holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._holder.bind((self.host, 0))
        self.port = self._holder.getsockname()[1]
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.refuse()
        self._holder.close()
        for task in self._dialling:
            task.cancel()
        if self._dialling:
            await asyncio.wait(self._dialling)
        for link in [*self.links]:
            link.abort()
        await asyncio.sleep(0)  # transports close their sockets in the next iteration of the loop
        await asyncio.sleep(0)

    def hit(self, fault: Fault) -> None:
        """Apply ``fault`` to every live link."""
        for link in [*self.links]:
            fault(link)

    def arm(self, *faults: Fault) -> None:
        """Apply each of ``faults`` to one future link, in this order, before its first byte."""
        self._armed.extend(faults)

    def arm_all(self, fault: Fault) -> None:
        """Apply ``fault`` to all future links that nothing else is armed for."""
        self._lasting = fault

    def refuse(self) -> None:
        """Stop listening: nobody is there, says the kernel to who connects."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def reset_new(self) -> None:
        """Accept new connections and drop them at once with an RST."""
        self._resets = True

    def silence_new(self) -> None:
        """Accept new connections and never say anything on them."""
        self._silent = True

    async def heal(self) -> None:
        """Accept and pass on again, with no faults on live links (see :meth:`Link.heal`) or future ones."""
        self._armed.clear()
        self._lasting = None
        self._resets = self._silent = False
        if self._server is None:
            await self._listen()
        self.hit(Link.heal)

    async def _listen(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            self._accept, self.host, self.port, reuse_port=True, backlog=1024
        )

    @property
    def connections(self) -> int:
        """How many connections were made to it so far."""
        return len(self.arrivals)

    def _accept(self) -> asyncio.Protocol:
        self.arrivals.append(monotonic())
        link = Link(self, self.connections)
        self.links.append(link)
        return _End(link.to_server, link.to_client, on_connected=lambda: self._on_accepted(link))

    def _on_accepted(self, link: Link) -> None:
        if self._resets:
            link.reset()
        elif self._silent:
            link.black_hole()
        elif self._armed:
            self._armed.popleft()(link)
        elif self._lasting is not None:
            self._lasting(link)
        if link.to_server.swallows:
            return  # nothing of this will ever reach the server
        task = asyncio.ensure_future(self._dial(link))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _dial(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: _End(link.to_client, link.to_server), *self._target)
        try:
            await asyncio.wait_for(connecting, _CONNECT_TIMEOUT)
        except (OSError, asyncio.TimeoutError):
            link.cut()
        except asyncio.CancelledError:
            link.abort()
            raise
        else:
            if link not in self.links:
                link.abort()  # dropped in the meantime

    def _forget(self, link: Link) -> None:
        if link in self.links:
            self.links.remove(link)
