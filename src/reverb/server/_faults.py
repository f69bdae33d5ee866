"""Faults that a test switches on."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["REFUSALS", "Faults"]

REFUSALS = {
    4001: "Application does not exist",
    4004: "Application is over connection quota",
    4009: "Origin not allowed",
}
"""Reverb's errors that refuse a connection. It closes the connection after 4001 only."""


@dataclass
class Faults:
    refused: int | None = None
    """Error code that new connections get instead of ``pusher:connection_established``."""
    denied: set[str] = field(default_factory=set)
    """Channels that no client may subscribe to."""
    silent: bool = False
    """Whether the server sends nothing."""
    delay: float = 0.0
    """Seconds by which the server delays everything that it sends."""

    def heal(self) -> None:
        self.refused, self.silent, self.delay = None, False, 0.0
        self.denied.clear()
