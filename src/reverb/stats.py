"""The counters of a client."""

from __future__ import annotations

import msgspec

__all__ = ["Stats"]


class Stats(msgspec.Struct, frozen=True):
    """The counters of a client, over all its connections, when you read :attr:`ReverbClient.stats`.

    They count the events of channels and the events without a channel, including the client's own (``reverb:…``).
    Bytes are those of messages, without what WebSocket and TLS add.
    """

    received: int
    """Messages from the server of any kind: events, confirmations, pongs."""
    delivered: int
    """Events that handlers were called for or iterators took, whether or not a handler raised."""
    queued: int
    """Events that wait for handlers, or for room in iterators, now."""
    unbound: int
    """Events that had no handler."""
    discarded: int
    """Events that still waited when their channel was unsubscribed or the client disconnected."""
    reconnects: int
    """How many times the client has reconnected."""
    round_trip: float | None
    """Seconds from the last ping to its answer, including the time in which the program did not read it. None
    before the first answer. The client pings a silent connection every ``REVERB_PING_INTERVAL`` seconds, and a
    busy one about once a minute."""
    bytes_received: int
    """Bytes of the messages that the client received."""
    bytes_sent: int
    """Bytes of the messages that the client sent."""
    uptime: float | None
    """Seconds since the present connection was made. None without a connection."""
    dropped: int
    """Events that the client dropped to make room for later ones, on channels with ``max_pending``. On other
    channels it drops nothing: at the limit ``REVERB_MAX_PENDING_BYTES`` it stops reading, and the server waits."""
    missing: int
    """Channels that the program has subscribed to and that are not subscribed now: the connection is lost, the
    client has just reconnected, or the server refuses them."""
