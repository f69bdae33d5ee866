"""The settings of an application, with the names and defaults of Laravel's ``config/reverb.php``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from .._signatures import problem_of
from ..exceptions import ConfigurationError

__all__ = ["App", "RateLimiting"]


@dataclass(frozen=True)
class RateLimiting:
    """How many messages a connection may send in a time.

    The server answers further messages with error 4301.
    """

    enabled: bool = False
    """Whether there is a limit. The default is False."""
    max_attempts: int = 60
    """Number of messages in the time. The default is 60."""
    decay_seconds: float = 60.0
    """Length of the time in seconds. It begins with the first message. The default is 60."""
    terminate_on_limit: bool = False
    """Whether the server closes the connection at the limit, instead of an error. The default is False."""


@dataclass(frozen=True)
class App:
    """An application on the server: its credentials, and what its clients may do.

    Raises:
        ConfigurationError: The id, the key or the secret is empty.
    """

    id: str = "app-id"
    """The application's id, for the HTTP API."""
    key: str = "app-key"
    """The application's key, with which clients connect."""
    secret: str = field(default="app-secret", repr=False)
    """The application's secret, which signs. The repr does not show it."""
    ping_interval: float = 60.0
    """Seconds of silence after which the server pings a client. The default is 60."""
    activity_timeout: int = 30
    """Seconds of silence after which clients should ping the server; the server tells them. The default is 30."""
    max_connections: int | None = None
    """Number of connections with a subscription that the server accepts. None, the default, is no limit."""
    max_message_size: int = 10_000
    """Bytes that a client's message may have. The default is 10,000."""
    allowed_origins: Sequence[str] = ("*",)
    """Host names of websites whose browsers may connect. ``*`` stands for any text. By default, all may."""
    accept_client_events_from: Literal["all", "members", "none"] = "members"
    """Who may trigger client events: ``"all"``, ``"members"`` of the channel (the default), or ``"none"``."""
    rate_limiting: RateLimiting = RateLimiting()
    """The limit for messages. By default there is none."""

    def __post_init__(self) -> None:
        problem = problem_of(self.key, self.secret) or (
            None if self.id else "the application's id must not be empty"
        )
        if problem is not None:
            raise ConfigurationError(problem)
