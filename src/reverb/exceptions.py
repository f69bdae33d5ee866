"""Everything that python-reverb raises.

::

    ReverbError
    ├── ConfigurationError      also a ValueError
    ├── ConnectionError         also the builtin ConnectionError
    ├── AuthenticationError
    ├── SubscriptionError
    ├── ProtocolError
    └── TimeoutError            also the builtin TimeoutError

The builtins' names are meant: ``except ConnectionError`` catches ours with or without importing it from
``reverb``. Messages name the host, the channel, the server's code, or the ``REVERB_…`` variable to look at; they
never hold a secret, a token, or a signature.
"""

from __future__ import annotations

import builtins

__all__ = [
    "AuthenticationError",
    "ConfigurationError",
    "ConnectionError",
    "ProtocolError",
    "ReverbError",
    "SubscriptionError",
    "TimeoutError",
]


class ReverbError(Exception):
    """Base of all errors raised by this package.

    ``code`` is the server's error code (a Pusher protocol code such as 4001, a WebSocket close code, or an HTTP
    status), or None where the error does not stem from a code.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class ConfigurationError(ReverbError, ValueError):
    """Settings are missing or invalid; the message lists each ``REVERB_…`` variable and what it lacks."""


class ConnectionError(ReverbError, builtins.ConnectionError):
    """The connection could not be made, was refused, was lost for good, or is not there when it is needed."""


class AuthenticationError(ReverbError):
    """A private or presence channel was refused, or could not be signed for."""


class SubscriptionError(ReverbError):
    """A subscription failed for another reason than its signature, or the channel does not allow the operation."""


class ProtocolError(ReverbError):
    """A message that the protocol does not allow: ours before sending it, or the server's in the handshake."""


class TimeoutError(ReverbError, builtins.TimeoutError):
    """The server did not answer in the time set by ``REVERB_CONNECT_TIMEOUT`` or ``REVERB_SUBSCRIBE_TIMEOUT``."""
