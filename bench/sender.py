"""The sending side: a process of its own that only hands ready-made frames to the socket.

It answers handshakes and subscribes as Reverb does, on as many connections as come. The frames of a load are built
before the clock starts, and sent in large pieces, so that it is the receiver that is measured.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import socket
import ssl
import tempfile
from base64 import b64encode
from contextlib import suppress
from hashlib import sha1
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from pathlib import Path
from time import perf_counter_ns, sleep
from typing import TYPE_CHECKING, Any

from tests.certificates import make_certificates

from .load import Load, frame, message, text_frame

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

HOST = "127.0.0.1"

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PIECE = 1 << 16
"""Bytes that a connection gets before the next one gets some."""
_CHUNK = 1 << 18
"""Bytes that are read at once."""
_SUBSCRIBED_CHANNEL = re.compile(rb'"channel":\s*("[^"]+")')
_SUCCEEDED = b'{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":%b}'
_ESTABLISHED = text_frame(
    message("pusher:connection_established", None, {"socket_id": "697736332.449543751", "activity_timeout": 30})
)


class Sender:
    """The sending process as its parent sees it; runs from ``with`` to the end of the block."""

    port: int
    tls_port: int
    ca_file: str
    """The authority that vouches for the TLS port."""

    def __init__(self) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = spawning.Pipe()
        self._directory = tempfile.TemporaryDirectory(prefix="reverb-bench-")
        arguments = (self._theirs, self._directory.name)
        self._process = spawning.Process(target=_run, args=arguments, name="bench-sender", daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()  # so that the end of one process is seen by the other
        self.port, self.tls_port, self.ca_file = self._pipe.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._directory.cleanup()

    def prepare(self, load: Load) -> None:
        """Build the frames of ``load``, unless they are there already."""
        self._ask("prepare", load)

    def forget(self) -> None:
        """Give up the memory of all prepared loads."""
        self._ask("forget")

    def blast(self, load: Load) -> None:
        """Have a prepared load sent to the newest connections; returns at once."""
        self._pipe.send(("blast", load))

    def pace(self, load: Load, interval: float) -> list[int]:
        """Send the events of ``load`` ``interval`` seconds apart; return when each was sent, in nanoseconds.

        The clock is ``perf_counter_ns``, which processes of a machine share.
        """
        sent: list[int] = self._ask("pace", load, interval)
        return sent

    def hoard(self) -> None:
        """From now on only keep what the newest connection sends: nothing is quicker."""
        self._ask("hoard")

    def hoarded(self) -> list[Any]:
        """The ``data`` of the messages that were kept."""
        data: list[Any] = self._ask("hoarded")
        return data

    def _ask(self, *question: object) -> Any:
        self._pipe.send(question)
        return self._pipe.recv()


def _run(pipe: Pipe, directory: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; we go when it has gone
    _Server(pipe, Path(directory)).run()


class _Server:
    """One thread that waits for the parent, for connections, and for what they send."""

    def __init__(self, pipe: Pipe, directory: Path) -> None:
        certificates = make_certificates(directory)
        self._pipe = pipe
        self._plain, self._tls = (socket.create_server((HOST, 0), backlog=200) for _ in range(2))
        self._tls_context = certificates.server
        self._connections: dict[socket.socket, _Connection] = {}
        """In the order in which they came."""
        self._frames: dict[Load, bytes] = {}
        pipe.send((self._plain.getsockname()[1], self._tls.getsockname()[1], str(certificates.ca_file)))

    def run(self) -> None:
        while True:
            for ready in wait([self._pipe, self._plain, self._tls, *self._connections]):
                if ready is self._pipe:
                    try:
                        command, *arguments = self._pipe.recv()
                    except EOFError:
                        return
                    getattr(self, f"_{command}")(*arguments)
                elif ready in (self._plain, self._tls):
                    with suppress(OSError, EOFError):
                        self._accept(ready)
                else:
                    assert isinstance(ready, socket.socket)
                    if not self._connections[ready].read():
                        self._connections.pop(ready).close()

    def _accept(self, listening: socket.socket) -> None:
        accepted, _ = listening.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if listening is self._tls:
            accepted = self._tls_context.wrap_socket(accepted, server_side=True)
        connection = _Connection(accepted)
        connection.send(_upgrade(accepted) + _ESTABLISHED)
        self._connections[accepted] = connection

    # --- what the parent asks for ------------------------------------------------------------------------------

    def _prepare(self, load: Load) -> None:
        if load not in self._frames:
            self._frames[load] = load.frames()
        self._pipe.send(None)

    def _forget(self) -> None:
        self._frames.clear()
        self._pipe.send(None)

    def _blast(self, load: Load) -> None:
        frames = memoryview(self._frames[load])
        receivers = self._newest(load.connections)
        size = len(frames) if len(receivers) == 1 else _PIECE
        for start in range(0, len(frames), size):
            for receiver in receivers:
                receiver.send(frames[start : start + size])

    def _pace(self, load: Load, interval: float) -> None:
        (receiver,) = self._newest(1)
        sent = []
        for number in range(load.messages):
            event = load.frame(number)
            sleep(interval)
            sent.append(perf_counter_ns())
            receiver.send(event)
        self._pipe.send(sent)

    def _hoard(self) -> None:
        self._newest(1)[0].hoard = []
        self._pipe.send(None)

    def _hoarded(self) -> None:
        self._pipe.send(self._newest(1)[0].hoarded())

    def _newest(self, number: int) -> list[_Connection]:
        return list(self._connections.values())[-number:]


class _Connection:
    """Reads what a client sends and answers it."""

    hoard: list[bytes] | None = None

    def __init__(self, accepted: socket.socket) -> None:
        self._socket = accepted
        self._unread = b""

    def send(self, frames: bytes | memoryview) -> None:
        with suppress(OSError):  # a client that has gone knows why
            self._socket.sendall(frames)

    def close(self) -> None:
        self._socket.close()

    def read(self) -> bool:
        """Take what has arrived and answer it; return whether more may come."""
        try:
            received = self._socket.recv(_CHUNK)
            while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
                received += self._socket.recv(_CHUNK)
        except OSError:
            return False
        if self.hoard is not None:
            self.hoard.append(received)
            return bool(received)
        frames, self._unread = _split(self._unread + received)
        self.send(b"".join(_answer(opcode, payload) for opcode, payload in frames))
        return bool(received) and all(opcode != _CLOSE for opcode, _ in frames)

    def hoarded(self) -> list[Any]:
        """The ``data`` of all kept messages, once nothing more comes."""
        assert self.hoard is not None
        self._socket.settimeout(0.2)
        with suppress(TimeoutError, socket.timeout):
            while received := self._socket.recv(_CHUNK):
                self.hoard.append(received)
        self._socket.settimeout(None)
        frames, self._unread = _split(b"".join(self.hoard))
        self.hoard = None
        return [json.loads(payload)["data"] for opcode, payload in frames if opcode == _TEXT]


def _answer(opcode: int, payload: bytes) -> bytes:
    if opcode == _TEXT and b"pusher:subscribe" in payload:
        channel = _SUBSCRIBED_CHANNEL.search(payload)
        assert channel is not None
        return text_frame(
            b'{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":%b}' % channel[1]
        )
    if opcode == _TEXT and b"pusher:ping" in payload:
        return text_frame(b'{"event":"pusher:pong"}')
    if opcode == _PING:
        return frame(_PONG, payload)
    if opcode == _CLOSE:
        return frame(_CLOSE, payload)
    return b""


def _upgrade(accepted: socket.socket) -> bytes:
    """Read a request for a WebSocket; return the answer that grants it."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        received = accepted.recv(_CHUNK)
        if not received:
            raise EOFError
        request += received
    key = re.search(rb"(?i)^sec-websocket-key:\s*(\S+)", request, re.MULTILINE)
    if key is None:
        raise EOFError
    accept = b64encode(sha1(key[1] + _WEBSOCKET_GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )


def _split(stream: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Cut masked frames, each the whole of a message, into opcodes and payloads; return what is left over, too."""
    frames, start = [], 0
    while len(stream) - start >= 2:
        size, head = stream[start + 1] & 0x7F, 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(stream[start + 2 : start + head], "big")
        end = start + head + 4 + size
        if end > len(stream):
            break
        mask, masked = stream[start + head : start + head + 4], stream[start + head + 4 : end]
        pattern = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(masked, "big") ^ int.from_bytes(pattern, "big")).to_bytes(size, "big")
        frames.append((stream[start] & 0x0F, payload))
        start = end
    return frames, stream[start:]
