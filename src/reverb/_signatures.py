"""The signatures of the Pusher protocol: HMAC-SHA256 with the application's secret, in lower-case hex."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from .exceptions import ConfigurationError


def sign_request(
    key: str, secret: str, method: str, path: str, query: Mapping[str, str], body: bytes, timestamp: int
) -> dict[str, str]:
    """Sign a request to the HTTP API.

    Args:
        key: The application's key.
        secret: The application's secret.
        method: The HTTP method, in upper case.
        path: The request's path, without the path prefix of the server: Reverb signs it so.
        query: The parameters of the request.
        body: The request's body; empty for a request without one.
        timestamp: The current time in seconds since the epoch.

    Returns:
        ``query`` with the parameters that sign the request.

    Raises:
        ConfigurationError: The key or the secret is empty, or not valid text.
    """
    problem = problem_of(key, secret)
    if problem is not None:
        del secret
        raise ConfigurationError(problem)
    signed = {**query, "auth_key": key, "auth_timestamp": str(timestamp), "auth_version": "1.0"}
    if body:
        signed["body_md5"] = hashlib.md5(body, usedforsecurity=False).hexdigest()
    text = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
    signed["auth_signature"] = hmac_hex(secret, f"{method}\n{path}\n{text}".encode())
    return signed


def problem_of(key: str, secret: str) -> str | None:
    """Return why nothing can be signed with this key and secret; None if it can."""
    if not key or not secret:  # probably from a variable that is not set
        return "the application's key and secret must not be empty: anybody can sign with an empty secret"
    try:
        (key + secret).encode()
    except UnicodeEncodeError:
        return "the application's key and secret must be valid Unicode text"
    return None


def hmac_hex(secret: str, content: bytes) -> str:
    return hmac.digest(secret.encode(), content, "sha256").hex()
