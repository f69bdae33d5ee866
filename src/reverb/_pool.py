"""HTTP/1.1 over sockets, for threads: a pool with a limited number of connections, which are kept and reused.

A connection carries one exchange after another. Each exchange has one deadline for all its steps: waiting for a
free connection, DNS, TCP, TLS, the proxy, and reading the answer.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Literal, NamedTuple, Protocol, TypeVar
from weakref import finalize

from ._failures import parse_head
from ._rest import Body, Proxy

T = TypeVar("T")

_MAX_HEAD = 64 * 1024
"""Bytes of an answer's head, and of a line between chunks."""
_PIECE = 64 * 1024
"""Bytes to read at once."""


class Answer(NamedTuple):
    status: int
    body: Body
    retry_after: str | None
    """The header ``Retry-After``."""


class NoConnectionError(Exception):
    """The connection failed; ``__cause__`` is the reason."""

    def __init__(self, to: str) -> None:
        super().__init__(to)
        self.to = to
        """What could not be reached: ``name`` (the name has no address, or is not valid), ``proxy`` or ``server``.
        """


class TunnelError(Exception):
    """The proxy answered ``status`` to the request for a connection to the server."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class NotHTTPError(Exception):
    """The answer is not HTTP."""


class ClosedError(Exception):
    """The pool is closed."""


class Place(NamedTuple):
    """The server, and the proxy, that a pool connects to."""

    host: str
    port: int
    is_tls: bool
    proxy: Proxy | None

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Pool:
    """Up to ``size`` connections to a place, for the threads of one process. After a fork, make a new pool."""

    def __init__(self, place: Place, size: int, keepalive: float, tls: Callable[[], ssl.SSLContext]) -> None:
        self.is_closed = False
        self._place = place
        self._keepalive = keepalive
        self._tls = tls
        self._free = threading.Semaphore(size)
        self._idle: list[_Connection] = []
        """Idle connections. The last one was used last, and is used first, so that the others can expire."""
        finalize(self, _close_all, self._idle)

    def exchange(self, message: Callable[[], bytes], most: Callable[[int], int], deadline: float) -> Answer:
        """Send the request that ``message`` returns, and return the answer.

        At most ``most(status)`` bytes of its body are read. Raises the errors of this module,
        :class:`TimeoutError` at the deadline (on the clock of :func:`time.monotonic`), and :class:`OSError` or
        :class:`EOFError` when the connection is lost.
        """
        if not self._free.acquire(timeout=_remaining(deadline)):
            raise TimeoutError
        try:
            connection = self._take() or _connect(self._place, self._tls, deadline)
            try:
                answer = connection.exchange(message, most, deadline)
            except BaseException:
                connection.close()
                raise
            if connection.is_reusable:
                self._idle.append(connection)  # from here on, another thread may use it
            else:
                connection.close()
        finally:
            self._free.release()
            if self.is_closed:
                _close_all(self._idle)
        return answer

    def close(self) -> None:
        """Close all connections. Those in use are closed after their exchange."""
        self.is_closed = True
        _close_all(self._idle)

    def _take(self) -> _Connection | None:
        """Return an idle connection that can be reused, if there is one."""
        if self.is_closed:
            raise ClosedError
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if monotonic() - connection.used_at < self._keepalive and connection.is_quiet():
                return connection
            connection.close()
        return None


def _close_all(connections: list[_Connection]) -> None:
    while connections:
        try:
            connections.pop().close()
        except IndexError:  # another thread was faster
            return


def _remaining(deadline: float) -> float:
    remaining = deadline - monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


# --- one connection --------------------------------------------------------------------------------------------


class _Stream(Protocol):
    """A stream of bytes. Both directions raise :class:`TimeoutError` at the deadline."""

    def send(self, content: bytes, deadline: float) -> None: ...
    def receive(self, deadline: float) -> bytes: ...
    def is_quiet(self) -> bool: ...
    def close(self) -> None: ...


class _Connection:
    def __init__(self, stream: _Stream) -> None:
        self.is_reusable = False
        """Whether another exchange can follow the last one on this connection."""
        self.used_at = monotonic()
        self._stream = stream
        self._received = b""
        """Bytes that were read and not parsed yet."""
        self._deadline = 0.0

    def close(self) -> None:
        self._stream.close()

    def is_quiet(self) -> bool:
        """Whether there is nothing to read: no unexpected bytes, and no end of the connection."""
        return self._stream.is_quiet()

    def exchange(self, message: Callable[[], bytes], most: Callable[[int], int], deadline: float) -> Answer:
        self.is_reusable = False
        self._deadline = deadline
        self._stream.send(message(), deadline)
        status, version, headers = self._read_head()
        body = Body(most(status), headers.get("content-encoding", ""))
        pieces, has_end = self._pieces(status, headers)
        if body.flaw is None:
            for piece in pieces:
                body.take(piece)
                if body.flaw is not None:
                    break
        options = headers.get("connection", "").lower()
        is_kept = "close" not in options and (version > 0 or "keep-alive" in options)
        self.used_at = monotonic()
        self.is_reusable = is_kept and has_end and body.flaw is None and not self._received
        return Answer(status, body, headers.get("retry-after"))

    def ask_for_tunnel(self, message: bytes, deadline: float) -> None:
        """Ask a proxy to forward the connection; raise TunnelError if it refuses."""
        self._deadline = deadline
        self._stream.send(message, deadline)
        status, _, _ = self._read_head()
        if not 200 <= status < 300:
            raise TunnelError(status)
        if self._received:
            raise NotHTTPError("the proxy sent more data than its answer")

    def _read_head(self) -> tuple[int, int, dict[str, str]]:
        """Return the status, the minor version of HTTP, and the headers of the next final answer."""
        while True:
            while b"\r\n\r\n" not in self._received:
                begin = self._received[:5]
                if len(self._received) > _MAX_HEAD or not b"HTTP/".startswith(begin):
                    raise NotHTTPError("the answer does not begin with an HTTP status line")
                self._received += self._receive()
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            parsed = parse_head(head)
            if parsed is None:
                raise NotHTTPError("the answer does not begin with an HTTP status line")
            status, headers = parsed
            if status >= 200:
                return status, int(head[:8] == b"HTTP/1.1"), headers

    def _pieces(self, status: int, headers: dict[str, str]) -> tuple[Iterator[bytes], bool]:
        """Return the body in pieces, and whether its end is known without the connection's end (RFC 9112, 6.3)."""
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if status in (204, 304):
            return iter(()), True
        if coding is not None:
            if coding.strip().lower() != "chunked":
                raise NotHTTPError("the answer has an unknown Transfer-Encoding")
            return self._read_chunks(), length is None  # with both, one of them is wrong
        if length is None:
            return self._read_all(), False
        if re.fullmatch("[0-9]{1,18}", length) is None:
            raise NotHTTPError("the answer's Content-Length is not a number")
        return self._read(int(length)), True

    def _read(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._received:
                self._received = self._receive()
            piece, self._received = self._received[:size], self._received[size:]
            size -= len(piece)
            yield piece

    def _read_chunks(self) -> Iterator[bytes]:
        while size := self._read_size():
            yield from self._read(size)
            if self._read_line():
                raise NotHTTPError("a chunk of the answer is longer than its size")
        while self._read_line():
            pass  # trailers

    def _read_size(self) -> int:
        match = re.fullmatch(rb"([0-9a-fA-F]{1,15})[ \t]*(;.*)?", self._read_line())
        if match is None:
            raise NotHTTPError("a chunk of the answer has no valid size")
        return int(match[1], 16)

    def _read_line(self) -> bytes:
        while b"\r\n" not in self._received:
            if len(self._received) > _MAX_HEAD:
                raise NotHTTPError("a line of the answer is too long")
            self._received += self._receive()
        line, _, self._received = self._received.partition(b"\r\n")
        return line

    def _read_all(self) -> Iterator[bytes]:
        try:
            while True:
                piece, self._received = self._received or self._receive(), b""
                yield piece
        except EOFError:
            return

    def _receive(self) -> bytes:
        piece = self._stream.receive(self._deadline)
        if not piece:
            raise EOFError
        return piece


class _Socket:
    """A non-blocking socket.

    With a blocking one, threads would wait for each other at each system call, so this makes few of them.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)

    def send(self, content: bytes, deadline: float) -> None:
        rest = memoryview(content)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                _wait_for(self._socket, "write", _remaining(deadline))

    def receive(self, deadline: float) -> bytes:
        while True:
            if not _wait_for(self._socket, "read", _remaining(deadline)):
                raise TimeoutError
            try:
                return self._socket.recv(_PIECE)
            except BlockingIOError:
                continue

    def is_quiet(self) -> bool:
        return not _wait_for(self._socket, "read", 0)

    def close(self) -> None:
        self._socket.close()


class _TLS:
    """TLS over any stream, even over the TLS of a proxy. :class:`ssl.SSLSocket` works on sockets only."""

    def __init__(self, stream: _Stream, context: ssl.SSLContext, host: str, deadline: float) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._do(self._tls.do_handshake, deadline)

    def send(self, content: bytes, deadline: float) -> None:
        self._do(lambda: self._tls.write(content), deadline)

    def receive(self, deadline: float) -> bytes:
        try:
            return self._do(lambda: self._tls.read(_PIECE), deadline)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""

    def is_quiet(self) -> bool:
        return not self._tls.pending() and not self._incoming.pending and self._stream.is_quiet()

    def close(self) -> None:
        self._stream.close()

    def _do(self, work: Callable[[], T], deadline: float) -> T:
        """Do something that may need to send and to receive."""
        while True:
            try:
                result = work()
            except ssl.SSLWantReadError:
                self._flush(deadline)
                received = self._stream.receive(deadline)
                if received:
                    self._incoming.write(received)
                else:
                    self._incoming.write_eof()
            else:
                self._flush(deadline)
                return result

    def _flush(self, deadline: float) -> None:
        if self._outgoing.pending:
            self._stream.send(self._outgoing.read(), deadline)


def _wait_for(sock: socket.socket, what: Literal["read", "write"], seconds: float) -> bool:
    """Wait until the socket can be read or written; return False if that takes more than ``seconds``."""
    if sys.platform != "win32":
        poll = select.poll()
        poll.register(sock, select.POLLIN if what == "read" else select.POLLOUT)
        return bool(poll.poll(seconds * 1000))
    # Windows has no poll(). Its select() has no limit for file descriptors.
    reading, writing = ([sock], []) if what == "read" else ([], [sock])
    return any(select.select(reading, writing, writing, seconds))


# --- connecting ------------------------------------------------------------------------------------------------


def _connect(place: Place, tls: Callable[[], ssl.SSLContext], deadline: float) -> _Connection:
    proxy = place.proxy
    stream: _Stream
    if proxy is None:
        stream = _dial(place.host, place.port, "server", deadline)
    else:
        stream = _dial(proxy.host, proxy.port, "proxy", deadline)
    try:
        if proxy is not None and proxy.is_tls:
            stream = _encrypt(stream, tls(), proxy.host, "proxy", deadline)
        if proxy is not None and place.is_tls:
            _Connection(stream).ask_for_tunnel(proxy.tunnel(place.address), deadline)
        if place.is_tls:
            stream = _encrypt(stream, tls(), place.host, "server", deadline)
    except BaseException:
        stream.close()
        raise
    return _Connection(stream)


def _dial(host: str, port: int, to: str, deadline: float) -> _Socket:
    found = _look_up(host, port, to, deadline)
    failure: OSError | None = None
    for n, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_remaining(deadline) / (len(found) - n))  # leaves time for the next addresses
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _Socket(sock)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    _remaining(deadline)
    raise NoConnectionError(to) from failure


_Found = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]]


def _look_up(host: str, port: int, to: str, deadline: float) -> _Found:
    """Return the addresses of a host. Names are looked up in a thread, because the system's look-up has no
    timeout."""
    is_address = ":" in host
    if re.fullmatch("[0-9.]+", host):
        try:
            socket.inet_pton(socket.AF_INET, host)
        except OSError:
            raise NoConnectionError("name") from None
        is_address = True
    answers: SimpleQueue[_Found | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            answers.put(error)

    if is_address:
        ask()
    else:
        try:
            threading.Thread(target=ask, name="reverb-name", daemon=True).start()
        except RuntimeError:  # the interpreter shuts down and starts no threads
            ask()
    try:
        found = answers.get(timeout=_remaining(deadline))
    except Empty:
        raise TimeoutError from None
    if isinstance(found, OSError):
        raise NoConnectionError("proxy" if to == "proxy" else "name") from found
    if isinstance(found, Exception):
        raise NoConnectionError("name") from found
    return found


def _encrypt(stream: _Stream, context: ssl.SSLContext, host: str, to: str, deadline: float) -> _Stream:
    """Start TLS on a connection."""
    try:
        return _TLS(stream, context, host.rstrip("."), deadline)
    except TimeoutError:
        raise
    except (OSError, ValueError) as error:
        raise NoConnectionError(to) from error
