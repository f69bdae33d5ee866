"""How the Pusher protocol signs: HMAC-SHA256 in lower-case hex, with the application's secret."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from .exceptions import ConfigurationError


def sign_request(
    key: str, secret: str, method: str, path: str, query: Mapping[str, str], body: bytes, timestamp: int
) -> dict[str, str]:
    """Return ``query`` with the parameters that sign an HTTP API request.

    ``path`` is the request's path without the server's path prefix, because Reverb checks it so. ``timestamp`` is
    in seconds since the epoch.
    """
    lack = lack_of(key, secret)
    if lack is not None:
        del secret
        raise ConfigurationError(lack)
    signed = {**query, "auth_key": key, "auth_timestamp": str(timestamp), "auth_version": "1.0"}
    if body:
        signed["body_md5"] = hashlib.md5(body, usedforsecurity=False).hexdigest()
    text = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
    signed["auth_signature"] = hmac_hex(secret, f"{method}\n{path}\n{text}".encode())
    return signed


def lack_of(key: str, secret: str) -> str | None:
    """What speaks against signing with these; None for nothing."""
    if not key or not secret:  # of a variable that is not set, most likely
        return "the application's key and secret must not be empty: with those, everybody could sign"
    try:
        (key + secret).encode()
    except UnicodeEncodeError:
        return "the application's key and secret must be text that can be encoded"
    return None


def hmac_hex(secret: str, content: bytes) -> str:
    return hmac.digest(secret.encode(), content, "sha256").hex()
