"""Encrypt and decrypt the events of encrypted channels.

Only the application and its authorised clients can read such events. The server passes on ``{"nonce",
"ciphertext"}``, both in base64. The ciphertext is made by NaCl's secretbox (XSalsa20-Poly1305) from the JSON text
that would otherwise be ``data``. Each channel has its own key, the shared secret. A client gets it with the
authorisation of the subscription. It needs PyNaCl, the extra ``encryption``.
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

__all__ = ["decrypt", "derive_shared_secret", "encrypt", "parse_shared_secret", "require_nacl"]

KEY_SIZE = 32
"""Bytes of a shared secret, and of a master key."""


class _Encrypted(msgspec.Struct, gc=False):
    """The data of an encrypted event. msgspec encodes bytes as base64."""

    nonce: bytes
    ciphertext: bytes


_decode_encrypted = msgspec.json.Decoder(_Encrypted).decode


def decode_key(text: str | None) -> bytes | None:
    """Decode a master key or a shared secret: 32 bytes in base64.

    Args:
        text: The key in base64.

    Returns:
        The key, or None if the text is not a key.
    """
    try:
        key = b64decode(text or "", validate=True)
    except ValueError:
        return None
    return key if len(key) == KEY_SIZE else None


def derive_shared_secret(channel: str, master_key: bytes) -> bytes:
    """Derive the key of a channel from the application's master key, as all of Pusher's server libraries do.

    Args:
        channel: The channel's name.
        master_key: The master key: 32 bytes.

    Returns:
        The shared secret of the channel: 32 bytes.

    Raises:
        ConfigurationError: The master key does not have 32 bytes.
    """
    if len(master_key) != KEY_SIZE:
        del master_key  # error reporters send local variables
        raise ConfigurationError("a master key must have 32 bytes")
    return hashlib.sha256(channel.encode() + master_key).digest()


def parse_shared_secret(channel: str, shared_secret: str | None) -> bytes:
    """Decode the shared secret in the authorisation of a channel.

    Args:
        channel: The channel's name, for the error.
        shared_secret: The field ``shared_secret`` of the authorisation: 32 bytes in base64, or None.

    Returns:
        The shared secret: 32 bytes.

    Raises:
        AuthenticationError: There is no shared secret, or it is not valid.
    """
    key = decode_key(shared_secret)
    if key is None:
        flaw = "no shared_secret" if shared_secret is None else "a shared_secret that is not 32 bytes in base64"
        del shared_secret
        raise AuthenticationError(
            f"{channel!r} is encrypted, but its authorisation has {flaw}: the program that signs needs the "
            "application's encryption master key (REVERB_ENCRYPTION_MASTER_KEY here, encryption_master_key_base64 "
            "in the options in Laravel's config/broadcasting.php)"
        )
    return key


def require_nacl() -> type[SecretBox]:
    """Return NaCl's ``SecretBox``.

    Raises:
        ConfigurationError: PyNaCl is not installed.
    """
    try:
        from nacl.secret import SecretBox
    except ImportError:
        raise ConfigurationError(
            'encrypted channels need PyNaCl: pip install "python-reverb[encryption]"'
        ) from None
    return SecretBox


def encrypt(text: str, shared_secret: bytes) -> str:
    """Encrypt the data of an event. Each call uses a new random nonce.

    Args:
        text: The data as JSON text.
        shared_secret: The channel's key: 32 bytes.

    Returns:
        The data to publish instead, as JSON text.

    Raises:
        ConfigurationError: PyNaCl is not installed.
    """
    encrypted = require_nacl()(shared_secret).encrypt(text.encode())
    return msgspec.json.encode(_Encrypted(encrypted.nonce, encrypted.ciphertext)).decode()


def decrypt(data: object, shared_secret: bytes) -> str:
    """Decrypt the data of an event.

    Args:
        data: The data of the message: an object, or JSON text.
        shared_secret: The channel's key: 32 bytes.

    Returns:
        The data as JSON text.

    Raises:
        ProtocolError: The data is not encrypted, was changed, or was encrypted with another key. The last two
            cases look the same.
        ConfigurationError: PyNaCl is not installed.
    """
    try:
        encrypted = _decode_encrypted(data) if isinstance(data, str) else msgspec.convert(data, _Encrypted)
    except ValueError:
        del shared_secret
        raise ProtocolError("it is not encrypted") from None
    secretbox_open, crypto_error = _nacl_functions()
    try:
        return secretbox_open(encrypted.ciphertext, encrypted.nonce, shared_secret).decode()
    except (crypto_error, ValueError):
        del shared_secret
        raise ProtocolError("the key is not the right one, or the message was changed on the way") from None


@cache
def _nacl_functions() -> tuple[Callable[[bytes, bytes, bytes], bytes], type[Exception]]:
    """Return NaCl's function that decrypts, and its exception. A SecretBox would take twice as long."""
    require_nacl()
    from nacl.bindings import crypto_secretbox_open
    from nacl.exceptions import CryptoError

    return crypto_secretbox_open, CryptoError
