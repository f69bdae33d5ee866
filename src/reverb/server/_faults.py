"""What a server is told to do wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["REFUSALS", "Faults"]

REFUSALS = {
    4001: "Application does not exist",
    4004: "Application is over connection quota",
    4009: "Origin not allowed",
}
"""Reverb's reasons to refuse a connection. Behind 4001 alone it ends the connection, the others stay open."""


@dataclass
class Faults:
    refused: int | None = None
    """Error code that new connections get instead of a greeting."""
    denied: set[str] = field(default_factory=set)
    """Channels that nobody may subscribe to."""
    silent: bool = False
    """Whether what the server has to say gets lost."""
    delay: float = 0.0
    """Seconds that whatever the server sends takes longer."""

    def heal(self) -> None:
        self.refused, self.silent, self.delay = None, False, 0.0
        self.denied.clear()
