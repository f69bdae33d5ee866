"""Several listeners, one log: write what a server sends into the streams of Redis, Valkey, or NATS JetStream."""

from ._relay import Relay, RelayStatus

__all__ = ["Relay", "RelayStatus"]
