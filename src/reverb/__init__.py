"""Asyncio client for Laravel Reverb and other WebSocket servers that speak the Pusher protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._binding import Binding, Handler
    from .auth import Authorizer, ChannelAuth, EndpointAuthorizer, SecretAuthorizer, UserAuth
    from .channel import Channel, EncryptedChannel, PresenceChannel
    from .client import ReverbClient
    from .config import Credentials, ReverbConfig
    from .echo import Echo
    from .events import ConnectionState, Events
    from .exceptions import (
        APIError,
        AuthenticationError,
        BatchError,
        ConfigurationError,
        ConnectionError,
        PayloadError,
        ProtocolError,
        ReverbError,
        SubscriptionError,
        TimeoutError,
    )
    from .http import BatchEvent, BatchResult, ChannelInfo, ReverbAPI
    from .stats import Stats
    from .stream import Event, EventStream, Gap
    from .user import User

    __version__: str

__all__ = [
    "APIError",
    "AuthenticationError",
    "Authorizer",
    "BatchError",
    "BatchEvent",
    "BatchResult",
    "Binding",
    "Channel",
    "ChannelAuth",
    "ChannelInfo",
    "ConfigurationError",
    "ConnectionError",
    "ConnectionState",
    "Credentials",
    "Echo",
    "EncryptedChannel",
    "EndpointAuthorizer",
    "Event",
    "EventStream",
    "Events",
    "Gap",
    "Handler",
    "PayloadError",
    "PresenceChannel",
    "ProtocolError",
    "ReverbAPI",
    "ReverbClient",
    "ReverbConfig",
    "ReverbError",
    "SecretAuthorizer",
    "Stats",
    "SubscriptionError",
    "TimeoutError",
    "User",
    "UserAuth",
    "__version__",
]

_HOMES = (
    "exceptions",
    "events",
    "stats",
    "config",
    "auth",
    "_binding",
    "stream",
    "channel",
    "user",
    "http",
    "client",
    "echo",
)
"""Where the names above are from, what imports least first."""

# Imported when first used: where this package is installed, pytest imports it in every run, for its plugin.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module, metadata

        if name == "__version__":
            return metadata.version("python-reverb")
        for home in _HOMES if name in __all__ else ():
            module = import_module(f".{home}", __name__)
            if hasattr(module, name):
                globals()[name] = getattr(module, name)
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
