"""Signatures: who may subscribe to a channel, and who may call the HTTP API.

Both are HMAC-SHA256 with the application's secret, in lower-case hex, as the Pusher protocol defines them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Authorizer", "ChannelAuth", "sign_channel", "sign_request"]


@dataclass(frozen=True)
class ChannelAuth:
    """What a server wants to see before it lets a connection into a private or presence channel.

    ``auth`` is ``KEY:SIGNATURE``. ``channel_data`` is the JSON text that the signature covers (presence channels);
    it is sent byte for byte. Neither the signature nor the data shows in the repr.
    """

    auth: str = field(repr=False)
    channel_data: str | None = field(default=None, repr=False)


Authorizer = Callable[[str, str], Awaitable[ChannelAuth]]
"""An async callable ``(socket_id, channel_name) -> ChannelAuth``, asked anew for each subscription."""


def sign_channel(key: str, secret: str, socket_id: str, channel: str, channel_data: str | None = None) -> str:
    """Return the ``KEY:SIGNATURE`` that lets the connection ``socket_id`` subscribe to ``channel``.

    ``channel_data`` is the JSON text sent along for a presence channel, signed byte for byte as sent.
    """
    text = f"{socket_id}:{channel}" if channel_data is None else f"{socket_id}:{channel}:{channel_data}"
    return f"{key}:{_hmac_hex(secret, text)}"


def sign_request(
    key: str, secret: str, method: str, path: str, query: Mapping[str, str], body: bytes, timestamp: int
) -> dict[str, str]:
    """Return ``query`` with the parameters that sign an HTTP API request.

    ``path`` is the request's path without the server's path prefix, because Reverb checks it so. ``timestamp`` is
    in seconds since the epoch.
    """
    signed = {**query, "auth_key": key, "auth_timestamp": str(timestamp), "auth_version": "1.0"}
    if body:
        signed["body_md5"] = hashlib.md5(body, usedforsecurity=False).hexdigest()
    text = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
    signed["auth_signature"] = _hmac_hex(secret, f"{method}\n{path}\n{text}")
    return signed


def _hmac_hex(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
