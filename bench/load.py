"""What is sent: one subscriber's events, as they stand on the wire."""

from __future__ import annotations

import json
from dataclasses import dataclass

CHANNEL = "orders"
EVENT = "App\\Events\\OrderShipped"
LAST_EVENT = "App\\Events\\LastOrderShipped"
"""The name of the last event, so that a receiver can ask for the end and for nothing else."""


@dataclass(frozen=True)
class Load:
    """``messages`` events with the ids 0, 1, 2…, in messages of ``size`` bytes without the frame's header."""

    messages: int
    size: int = 160

    def frames(self) -> bytes:
        """All events as unmasked WebSocket frames, one behind the other."""
        last = self.messages - 1
        events = (self._event(EVENT if number < last else LAST_EVENT, number) for number in range(self.messages))
        return b"".join(map(text_frame, events))

    def _event(self, name: str, number: int) -> bytes:
        order = {"id": number, "total": "129.90", "currency": "EUR", "note": ""}
        shortfall = self.size - len(message(name, CHANNEL, order))
        return message(name, CHANNEL, order | {"note": "x" * shortfall})


def message(event: str, channel: str | None, data: object) -> bytes:
    """A message as Reverb writes it: no spaces, and ``data`` a string that holds JSON once more."""
    envelope = {"event": event, "data": _json(data)}
    return _json(envelope if channel is None else envelope | {"channel": channel}).encode()


def text_frame(payload: bytes) -> bytes:
    return frame(0x1, payload)


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole message in one frame from a server: not masked."""
    size = len(payload)
    if size < 126:
        header = bytes((0x80 | opcode, size))
    elif size < 65536:
        header = bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
    else:
        header = bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")
    return header + payload


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
