"""The sending side: a process of its own that only hands ready-made frames to the socket.

It answers handshakes and subscribes as Reverb does, on as many connections as come; a blast goes to the newest.
The frames of a load are built before the clock starts, and one ``sendall`` sends them, so that it is the receiver
that is measured.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import socket
import threading
from base64 import b64encode
from contextlib import suppress
from hashlib import sha1
from multiprocessing.connection import Connection as Pipe
from typing import TYPE_CHECKING, Any, BinaryIO

from .load import Load, frame, message, text_frame

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

HOST = "127.0.0.1"

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Sender:
    """The sending process as its parent sees it; runs from ``with`` to the end of the block."""

    port: int

    def __init__(self) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = spawning.Pipe()
        self._process = spawning.Process(target=_run, args=(self._theirs,), name="bench-sender", daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()  # so that the end of one process is seen by the other
        self.port = self._pipe.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def prepare(self, load: Load) -> None:
        """Build the frames of ``load``; what :meth:`blast` sends from now on."""
        self._pipe.send(load)
        self._pipe.recv()

    def blast(self) -> None:
        """Have the load sent to the newest connection; returns at once."""
        self._pipe.send(None)


def _run(pipe: Pipe) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; we go when it has gone
    listening = socket.create_server((HOST, 0))
    connections: list[_Connection] = []
    threading.Thread(target=_accept, args=(listening, connections), daemon=True).start()
    pipe.send(listening.getsockname()[1])
    frames = b""
    while True:
        try:
            load = pipe.recv()
        except EOFError:
            return
        if load is None:
            connections[-1].send(frames)
        else:
            frames = load.frames()
            pipe.send("ready")


def _accept(listening: socket.socket, connections: list[_Connection]) -> None:
    while True:
        accepted, _ = listening.accept()
        connection = _Connection(accepted)
        connections[:] = [each for each in connections if each.is_alive()]
        connections.append(connection)
        connection.start()


class _Connection(threading.Thread):
    """Reads what a client sends and answers it."""

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(daemon=True)
        self._socket = accepted
        self._sending = threading.Lock()

    def send(self, frames: bytes) -> None:
        with self._sending, suppress(OSError):  # a client that has gone knows why
            self._socket.sendall(frames)

    def run(self) -> None:
        with self._socket, self._socket.makefile("rb") as stream, suppress(OSError, EOFError):
            self._talk(stream)

    def _talk(self, stream: BinaryIO) -> None:
        self.send(_upgrade(stream))
        established = {"socket_id": "697736332.449543751", "activity_timeout": 30}
        self.send(text_frame(message("pusher:connection_established", None, established)))
        while True:
            opcode, payload = _read_frame(stream)
            if opcode == _TEXT:
                self._answer(json.loads(payload))
            elif opcode == _PING:
                self.send(frame(_PONG, payload))
            elif opcode == _CLOSE:
                self.send(frame(_CLOSE, payload))
                return

    def _answer(self, asked: dict[str, Any]) -> None:
        if asked["event"] == "pusher:subscribe":
            name = asked["data"]["channel"]
            self.send(text_frame(message("pusher_internal:subscription_succeeded", name, {})))
        elif asked["event"] == "pusher:ping":
            self.send(text_frame(b'{"event":"pusher:pong"}'))


def _upgrade(stream: BinaryIO) -> bytes:
    """Read a request for a WebSocket; return the answer that grants it."""
    key = b""
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-key":
            key = value.strip()
    if not key:
        raise EOFError
    accept = b64encode(sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )


def _read_frame(stream: BinaryIO) -> tuple[int, bytes]:
    """Read a masked frame, the whole of a message; return its opcode and what was under the mask."""
    opcode, size = _read(stream, 2)
    size &= 0x7F
    if size >= 126:
        size = int.from_bytes(_read(stream, 2 if size == 126 else 8), "big")
    mask = _read(stream, 4)
    masked = _read(stream, size)
    return opcode & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data
