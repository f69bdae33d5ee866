"""What is sent: one subscriber's events, as they stand on the wire."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256

EVENT = "App\\Events\\OrderShipped"
LAST_EVENT = "App\\Events\\LastOrderShipped"
"""The name of the last event, so that a receiver can ask for the end and for nothing else."""

ENCRYPTION_KEY = sha256(b"a key for benchmarks").digest()
"""The shared secret of every encrypted channel."""


@dataclass(frozen=True)
class Load:
    """``messages`` events with the ids 0, 1, 2…, in messages of ``size`` bytes without the frame's header.

    They go round the ``channels``. Each of ``connections`` gets all of them. ``encrypted`` events are as large as
    the others before they are encrypted. The text of ``escaped`` ones is not English: PHP writes each letter of it
    as ``\\uXXXX``, and ``data`` is JSON within JSON, so that there are two backslashes.
    """

    messages: int
    size: int = 160
    channels: int = 1
    connections: int = 1
    encrypted: bool = False
    escaped: bool = False

    def channel(self, number: int) -> str:
        name = "private-encrypted-orders" if self.encrypted else "orders"
        return name if self.channels == 1 else f"{name}.{number % self.channels}"

    def frames(self) -> bytes:
        """All events as unmasked WebSocket frames, one behind the other."""
        return b"".join(map(self.frame, range(self.messages)))

    def frame(self, number: int) -> bytes:
        name, channel = EVENT if number < self.messages - 1 else LAST_EVENT, self.channel(number)
        order = {"id": number, "total": "129.90", "currency": "EUR", "note": ""}
        shortfall = self.size - len(message(name, channel, order))
        letters = shortfall // len(r"\\u0436") if self.escaped else 0
        order["note"] = "\N{CYRILLIC SMALL LETTER ZHE}" * letters + "x" * (shortfall - letters * len(r"\\u0436"))
        return text_frame(message(name, channel, _encrypt(order) if self.encrypted else order))

    def has_order(self, ids: list[int], calls: int) -> bool:
        """Whether handlers that get each event ``calls`` times got all, those of one channel in order."""
        if self.channels > 1:
            ids = sorted(ids, key=lambda number: number % self.channels)  # stable: it keeps a channel's order
        channels = (range(first, self.messages, self.channels) for first in range(self.channels))
        return ids == [number for channel in channels for number in channel for _ in range(calls)]


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


def _encrypt(value: object) -> dict[str, str]:
    from nacl.secret import SecretBox

    sealed = SecretBox(ENCRYPTION_KEY).encrypt(_json(value).encode())
    return {"nonce": b64encode(sealed.nonce).decode(), "ciphertext": b64encode(sealed.ciphertext).decode()}


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
