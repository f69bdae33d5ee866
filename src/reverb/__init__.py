"""Asyncio client for Laravel Reverb and other WebSocket servers that speak the Pusher protocol."""

from importlib.metadata import version

from .auth import Authorizer, ChannelAuth
from .channel import Channel, PresenceChannel
from .client import ReverbClient
from .config import ReverbConfig
from .events import ConnectionState, Events
from .exceptions import (
    APIError,
    AuthenticationError,
    BatchError,
    ConfigurationError,
    ConnectionError,
    ProtocolError,
    ReverbError,
    SubscriptionError,
    TimeoutError,
)
from .http import BatchEvent, BatchResult, ChannelInfo, ReverbAPI

__version__ = version("python-reverb")

__all__ = [
    "APIError",
    "AuthenticationError",
    "Authorizer",
    "BatchError",
    "BatchEvent",
    "BatchResult",
    "Channel",
    "ChannelAuth",
    "ChannelInfo",
    "ConfigurationError",
    "ConnectionError",
    "ConnectionState",
    "Events",
    "PresenceChannel",
    "ProtocolError",
    "ReverbAPI",
    "ReverbClient",
    "ReverbConfig",
    "ReverbError",
    "SubscriptionError",
    "TimeoutError",
    "__version__",
]
