"""Asyncio client for Laravel Reverb and other WebSocket servers that speak the Pusher protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._binding import Binding, Handler
    from .auth import Authorizer, ChannelAuth, EndpointAuthorizer, SecretAuthorizer, UserAuth
    from .channel import Channel, EncryptedChannel, PresenceChannel
    from .client import ReverbClient, run
    from .config import Credentials, ReverbConfig
    from .discovery import Discovery
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
    from .http import BatchEvent, BatchResult, ChannelInfo, ReverbAPI, SyncReverbAPI
    from .stats import Stats
    from .stream import Event, EventStream, Gap
    from .user import User

__version__ = "0.1.0"

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
    "Discovery",
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
    "SyncReverbAPI",
    "TimeoutError",
    "User",
    "UserAuth",
    "__version__",
    "run",
]

_HOMES = {
    "APIError": "exceptions",
    "AuthenticationError": "exceptions",
    "Authorizer": "auth",
    "BatchError": "exceptions",
    "BatchEvent": "http",
    "BatchResult": "http",
    "Binding": "_binding",
    "Channel": "channel",
    "ChannelAuth": "auth",
    "ChannelInfo": "http",
    "ConfigurationError": "exceptions",
    "ConnectionError": "exceptions",
    "ConnectionState": "events",
    "Credentials": "config",
    "Discovery": "discovery",
    "Echo": "echo",
    "EncryptedChannel": "channel",
    "EndpointAuthorizer": "auth",
    "Event": "stream",
    "EventStream": "stream",
    "Events": "events",
    "Gap": "stream",
    "Handler": "_binding",
    "PayloadError": "exceptions",
    "PresenceChannel": "channel",
    "ProtocolError": "exceptions",
    "ReverbAPI": "http",
    "ReverbClient": "client",
    "ReverbConfig": "config",
    "ReverbError": "exceptions",
    "SecretAuthorizer": "auth",
    "Stats": "stats",
    "SubscriptionError": "exceptions",
    "SyncReverbAPI": "http",
    "TimeoutError": "exceptions",
    "User": "user",
    "UserAuth": "auth",
    "run": "client",
}
"""The modules that the names above are from."""

# Imported when first used: where this package is installed, pytest imports it in every run, for its plugin.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
