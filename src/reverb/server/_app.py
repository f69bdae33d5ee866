"""What can be set for an application, with the names and defaults of Laravel's ``config/reverb.php``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from .._signatures import problem_of
from ..exceptions import ConfigurationError

__all__ = ["App", "RateLimiting"]


@dataclass(frozen=True)
class RateLimiting:
    """How many messages a connection may send: ``max_attempts`` in ``decay_seconds``, counted from the first.

    What is more is answered with error 4301, or ends the connection if ``terminate_on_limit`` is set.
    """

    enabled: bool = False
    max_attempts: int = 60
    decay_seconds: float = 60.0
    terminate_on_limit: bool = False


@dataclass(frozen=True)
class App:
    """An application: its credentials, and what its clients may do.

    ``ping_interval`` and ``activity_timeout`` are in seconds, ``max_message_size`` in bytes. ``max_connections``
    counts subscribed connections only. ``allowed_origins`` are host names, ``*`` in them stands for anything.
    Raises ConfigurationError if the id, the key or the secret is empty: anybody can sign with an empty secret.
    """

    id: str = "app-id"
    key: str = "app-key"
    secret: str = field(default="app-secret", repr=False)
    ping_interval: float = 60.0
    activity_timeout: int = 30
    max_connections: int | None = None
    max_message_size: int = 10_000
    allowed_origins: Sequence[str] = ("*",)
    accept_client_events_from: Literal["all", "members", "none"] = "members"
    rate_limiting: RateLimiting = RateLimiting()

    def __post_init__(self) -> None:
        problem = problem_of(self.key, self.secret) or (
            None if self.id else "the application's id must not be empty"
        )
        if problem is not None:
            raise ConfigurationError(problem)
