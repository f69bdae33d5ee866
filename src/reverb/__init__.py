"""Asyncio client for Laravel Reverb and other WebSocket servers that speak the Pusher protocol."""

from importlib.metadata import version

from .auth import Authorizer, ChannelAuth, EndpointAuthorizer, SecretAuthorizer, UserAuth
from .channel import Channel, EncryptedChannel, PresenceChannel
from .client import ReverbClient
from .config import Credentials, ReverbConfig
from .events import ConnectionState, Events
from .exceptions import (
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    ProtocolError,
    ReverbError,
    SubscriptionError,
    TimeoutError,
)
from .user import User

__version__ = version("python-reverb")

__all__ = [
    "AuthenticationError",
    "Authorizer",
    "Channel",
    "ChannelAuth",
    "ConfigurationError",
    "ConnectionError",
    "ConnectionState",
    "Credentials",
    "EncryptedChannel",
    "EndpointAuthorizer",
    "Events",
    "PresenceChannel",
    "ProtocolError",
    "ReverbClient",
    "ReverbConfig",
    "ReverbError",
    "SecretAuthorizer",
    "SubscriptionError",
    "TimeoutError",
    "User",
    "UserAuth",
    "__version__",
]
