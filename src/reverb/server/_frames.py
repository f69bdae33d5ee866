"""WebSocket frames as Reverb reads and writes them. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ._wire import encode, php_encode

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

_LONG: Final = 125
"""Bytes of payload. The length of a longer payload comes after the first two bytes of a frame."""


def frame(opcode: int, payload: bytes) -> bytes:
    """Build a complete, unmasked frame."""
    size = len(payload)
    if size <= _LONG:
        return bytes((0x80 | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def text_frame(message: dict[str, Any]) -> bytes:
    """Build the frame of a message. As in Reverb, it is empty if PHP cannot encode the message."""
    return frame(TEXT, (php_encode(message) or "").encode())


def error_frame(code: int, message: str, *, strict: bool = False) -> bytes:
    """Build a ``pusher:error``. Its data is a string as in Reverb, or an object as elsewhere if ``strict``."""
    data = {"code": code, "message": message}
    return text_frame({"event": "pusher:error", "data": data if strict else encode(data)})


def close_frame(code: int, reason: str) -> bytes:
    return frame(CLOSE, _close_payload(code, reason))


class FrameReader:
    """Reads messages from the bytes that a client sends.

    A violation of the WebSocket protocol is returned as a close frame of the client, with the code and the text of
    Reverb's library (Ratchet). The server echoes close frames, so the client gets it.
    """

    def __init__(self, max_message_size: int) -> None:
        self._max_size = max_message_size
        self._buffer = bytearray()
        self._opcode: int | None = None
        self._message = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the opcode and payload of each complete message and control frame. Nothing follows a close
        frame."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 2:
            first, size, mask_at = buffer[start], buffer[start + 1] & 0x7F, start + 2
            masked = bool(buffer[start + 1] & 0x80)
            if size > _LONG:
                mask_at += 2 if size == 126 else 8
                # Ratchet checks the length once it has this many bytes.
                if len(buffer) - start < 2 + 4 * masked + _LONG:
                    break
                size = int.from_bytes(buffer[start + 2 : mask_at], "big")
            if size >> 63:
                yield _violation("Invalid frame length")  # PHP takes it for negative
                return
            if size + len(self._message) > self._max_size:
                yield _violation("Maximum message size exceeded", 1009)
                return
            payload_at = mask_at + 4 * masked
            if len(buffer) < payload_at + size:
                break
            start = payload_at + size
            payload = bytes(buffer[payload_at:start])
            if masked:
                payload = _unmask(payload, bytes(buffer[mask_at:payload_at]))
            complete = self._check(first, payload, masked=masked) or self._accept(first, payload)
            if complete is not None:
                yield complete
                if complete[0] == CLOSE:
                    return
        # Once for all frames: otherwise, the time for many small frames is quadratic.
        del buffer[:start]

    def _check(self, first: int, payload: bytes, *, masked: bool) -> tuple[int, bytes] | None:
        """Return the close frame for a frame that violates the protocol."""
        opcode = first & 0x0F
        if first & 0x70:
            return _violation("Ratchet detected an invalid reserve code")
        if not masked:
            return _violation("Ratchet detected an incorrect frame mask")
        if opcode > BINARY:
            return _check_control(opcode, payload, final=bool(first & 0x80))
        if opcode == CONTINUATION and self._opcode is None:
            return _violation("Ratchet detected the first frame of a message was a continue")
        if opcode != CONTINUATION and self._opcode is not None:
            return _violation("Ratchet detected invalid OP code when expecting continue frame")
        return None

    def _accept(self, first: int, payload: bytes) -> tuple[int, bytes] | None:
        opcode = first & 0x0F
        if opcode > BINARY:
            return opcode, payload or (_close_payload(1000, "") if opcode == CLOSE else b"")
        if self._opcode is None:
            self._opcode = opcode
        self._message += payload
        if not first & 0x80:
            return None
        opcode, message = self._opcode, bytes(self._message)
        self._opcode = None
        self._message.clear()
        if opcode == TEXT and not _is_utf8(message):
            return _violation("Ratchet detected an invalid UTF-8 payload", 1007)
        return opcode, message


def _check_control(opcode: int, payload: bytes, *, final: bool) -> tuple[int, bytes] | None:
    if not final or len(payload) > _LONG:
        return _violation("Ratchet detected a mismatch between final bit and indicated payload length")
    if opcode not in (CLOSE, PING, PONG):
        return _violation("Ratchet detected an invalid OP code")
    if opcode == CLOSE and payload:
        code = int.from_bytes(payload[:2], "big")
        if len(payload) == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1011 or 3000 <= code <= 4999):
            return _violation("Ratchet detected an invalid close code")
        if not _is_utf8(payload[2:]):
            return _violation("Ratchet detected an invalid UTF-8 payload in the close reason", 1007)
    return None


def _violation(reason: str, code: int = 1002) -> tuple[int, bytes]:
    return CLOSE, _close_payload(code, reason)


def _close_payload(code: int, reason: str) -> bytes:
    return code.to_bytes(2, "big") + reason.encode()


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
