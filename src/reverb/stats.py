"""What a client has done so far, in numbers."""

from __future__ import annotations

import msgspec

__all__ = ["Stats"]


class Stats(msgspec.Struct, frozen=True):
    """What a client counted until :attr:`ReverbClient.stats` was read, over all its connections.

    Events are those of channels and those without one, the client's own (``reverb:…``) among them. Bytes are those
    of messages; what WebSocket and TLS add is not counted.
    """

    received: int
    """Messages of the server, of any kind: events, confirmations, answers to pings."""
    delivered: int
    """Events that handlers were called for, or iterators took, whatever became of it."""
    queued: int
    """Events that wait for handlers now, or for room in iterators."""
    unbound: int
    """Events that nobody had bound a handler to."""
    discarded: int
    """Events that still waited when their channel was unsubscribed, or the client disconnected."""
    reconnects: int
    """How many times a lost connection was made again."""
    round_trip: float | None
    """Seconds from the last ping to its answer, the time in which the program did not come to reading it included;
    None before the first. A silent connection is pinged every ``REVERB_PING_INTERVAL`` seconds, a busy one every
    minute or so."""
    bytes_received: int
    bytes_sent: int
    uptime: float | None
    """Seconds that the present connection has lasted; None while there is none."""
    dropped: int
    """Events dropped to make room for later ones, on channels with ``max_pending``. On all others nothing is: at
    the bound, ``REVERB_MAX_PENDING_BYTES``, reading pauses and the server waits."""
    missing: int
    """Channels that the program was given and that are not subscribed now: because the connection is down or has
    just been made again, or because they are refused."""
