"""How the numbers of clients and relays are called wherever metrics are collected."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Literal, NamedTuple


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    """As OpenTelemetry writes it; Prometheus has it in the name."""
    meaning: str
    value: Callable[[Any], float | None]
    """None where there is nothing to tell."""


def _metric(field: str, name: str, kind: Literal["counter", "gauge"], unit: str, meaning: str) -> Metric:
    return Metric(name, kind, unit, meaning, attrgetter(field))


METRICS = (
    Metric("connected", "gauge", "", "Whether there is a connection", lambda stats: int(stats.uptime is not None)),
    _metric("uptime", "uptime_seconds", "gauge", "s", "Time that the present connection has lasted"),
    _metric("reconnects", "reconnects", "counter", "", "Times that a lost connection was made again"),
    _metric("round_trip", "round_trip_seconds", "gauge", "s", "Time from the last ping to its answer"),
    _metric("received", "received_messages", "counter", "", "Messages of the server, of any kind"),
    _metric("delivered", "delivered_events", "counter", "", "Events that handlers were called for"),
    _metric("queued", "queued_events", "gauge", "", "Events that wait for handlers"),
    _metric("unbound", "unbound_events", "counter", "", "Events that nobody had bound a handler to"),
    _metric("discarded", "discarded_events", "counter", "", "Events that waited when their channel was left"),
    _metric("dropped", "dropped_events", "counter", "", "Events dropped to make room for later ones"),
    _metric("missing", "missing_channels", "gauge", "", "Channels that should be subscribed and are not"),
    _metric("bytes_received", "received_bytes", "counter", "By", "Size of the messages received"),
    _metric("bytes_sent", "sent_bytes", "counter", "By", "Size of the messages sent"),
)

RELAY_METRICS = (
    Metric("leader", "gauge", "", "Whether this relay writes", lambda status: int(status.role == "leader")),
    Metric(
        "connected", "gauge", "", "Whether it is connected to the server", lambda status: int(status.is_connected)
    ),
    Metric("ready", "gauge", "", "Whether it could lead without a gap", lambda status: int(status.is_ready)),
    Metric(
        "engine_up",
        "gauge",
        "",
        "Whether the engine does what it is asked",
        lambda status: int(not status.problem),
    ),
    _metric("others", "others", "gauge", "", "Other relays that are ready to take over"),
    _metric("channels", "channels", "gauge", "", "Channels that are relayed"),
    _metric("missing", "missing_channels", "gauge", "", "Channels that should be subscribed and are not"),
    _metric("received", "received_events", "counter", "", "Events received"),
    _metric("written", "written_entries", "counter", "", "Entries written to the log"),
    _metric("again", "again_entries", "counter", "", "Entries written that the log may have had already"),
    _metric("gaps", "gap_entries", "counter", "", "Entries written that say that events may be missing"),
    _metric("pending", "pending_entries", "gauge", "", "Entries that wait to be written"),
    _metric("lag", "lag_seconds", "gauge", "s", "Time that the oldest of them has waited"),
    _metric("takeovers", "takeovers", "counter", "", "Times that this relay began to lead"),
)
