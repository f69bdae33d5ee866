"""Encrypted channels: messages that only the application and its authorised clients can read.

The server passes on ``{"nonce", "ciphertext"}``, both base64: NaCl's secretbox (XSalsa20-Poly1305) of the JSON
text that would otherwise be ``data``. Each channel has a key of its own, the shared secret, which comes with the
answer that authorises a subscription. Needs PyNaCl, the extra ``encryption``.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from .exceptions import AuthenticationError, ConfigurationError, ProtocolError

if TYPE_CHECKING:
    from nacl.secret import SecretBox

__all__ = ["derive_shared_secret", "parse_shared_secret", "require_nacl", "seal", "unseal"]

KEY_SIZE = 32
"""Bytes of a shared secret and of a master key."""


class Sealed(msgspec.Struct, gc=False):
    """What travels; msgspec writes and reads bytes as base64."""

    nonce: bytes
    ciphertext: bytes


_decode_sealed = msgspec.json.Decoder(Sealed).decode


def decode_key(text: str | None) -> bytes | None:
    """Return a master key or a shared secret, which are 32 bytes in base64; None for what is not."""
    try:
        key = b64decode(text or "", validate=True)
    except ValueError:
        return None
    return key if len(key) == KEY_SIZE else None


def derive_shared_secret(channel: str, master_key: bytes) -> bytes:
    """Return the key of ``channel``, as all of Pusher's server libraries derive it from the application's own."""
    if len(master_key) != KEY_SIZE:
        del master_key  # error reporters send the locals of frames
        raise ConfigurationError("a master key has 32 bytes")
    return hashlib.sha256(channel.encode() + master_key).digest()


def parse_shared_secret(channel: str, shared_secret: str | None) -> bytes:
    """Return the key in an answer that authorises ``channel``; raise AuthenticationError if there is none."""
    key = decode_key(shared_secret)
    if key is None:
        lack = "no shared_secret" if shared_secret is None else "a shared_secret that is not 32 bytes in base64"
        del shared_secret
        raise AuthenticationError(
            f"{channel!r} is encrypted, and its authorisation has {lack}: the one who signs needs the "
            "application's encryption master key (REVERB_ENCRYPTION_MASTER_KEY here, encryption_master_key_base64 "
            "among the options in Laravel's config/broadcasting.php)"
        )
    return key


def require_nacl() -> type[SecretBox]:
    """Return NaCl's secretbox; raise ConfigurationError where PyNaCl is not installed."""
    try:
        from nacl.secret import SecretBox
    except ImportError:
        raise ConfigurationError(
            'encrypted channels need PyNaCl: pip install "python-reverb[encryption]"'
        ) from None
    return SecretBox


def seal(text: str, shared_secret: bytes) -> str:
    """Return ``data`` for an event on an encrypted channel. Each call takes a new random nonce."""
    sealed = require_nacl()(shared_secret).encrypt(text.encode())
    return msgspec.json.encode(Sealed(sealed.nonce, sealed.ciphertext)).decode()


def unseal(data: object, shared_secret: bytes) -> str:
    """Return the text sealed in ``data``, the raw data of a message; raise ProtocolError if that is not possible.

    Another key and a message that was tampered with look the same.
    """
    try:
        sealed = _decode_sealed(data) if isinstance(data, str) else msgspec.convert(data, Sealed)
    except ValueError:
        del shared_secret
        raise ProtocolError("it is not encrypted") from None
    open_box, box_error = _opening()
    try:
        return open_box(sealed.ciphertext, sealed.nonce, shared_secret).decode()
    except (box_error, ValueError):
        del shared_secret
        raise ProtocolError("the key does not fit, or somebody changed it on the way") from None


@cache
def _opening() -> tuple[Callable[[bytes, bytes, bytes], bytes], type[Exception]]:
    """NaCl's own function, because a SecretBox takes as long again, and its error."""
    require_nacl()
    from nacl.bindings import crypto_secretbox_open
    from nacl.exceptions import CryptoError

    return crypto_secretbox_open, CryptoError
