"""The names and meanings of the metrics of clients and relays."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Literal, NamedTuple


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    """The unit as OpenTelemetry writes it. For Prometheus, the name has it."""
    meaning: str
    value: Callable[[Any], float | None]
    """Returns the value, or None if there is none at present."""


def _metric(field: str, name: str, kind: Literal["counter", "gauge"], unit: str, meaning: str) -> Metric:
    return Metric(name, kind, unit, meaning, attrgetter(field))


METRICS = (
    Metric(
        "connected", "gauge", "", "Whether the client is connected", lambda stats: int(stats.uptime is not None)
    ),
    _metric("uptime", "uptime_seconds", "gauge", "s", "Duration of the present connection"),
    _metric("reconnects", "reconnects", "counter", "", "Reconnects after a lost connection"),
    _metric("round_trip", "round_trip_seconds", "gauge", "s", "Time between the last ping and its answer"),
    _metric("received", "received_messages", "counter", "", "Messages received from the server, of any kind"),
    _metric("delivered", "delivered_events", "counter", "", "Events that were delivered to handlers"),
    _metric("queued", "queued_events", "gauge", "", "Events that wait for handlers"),
    _metric("unbound", "unbound_events", "counter", "", "Events without a bound handler"),
    _metric(
        "discarded",
        "discarded_events",
        "counter",
        "",
        "Events that waited for handlers when their channel was unsubscribed",
    ),
    _metric("dropped", "dropped_events", "counter", "", "Events dropped because too many waited"),
    _metric("missing", "missing_channels", "gauge", "", "Channels that should be subscribed but are not"),
    _metric("bytes_received", "received_bytes", "counter", "By", "Size of the messages received"),
    _metric("bytes_sent", "sent_bytes", "counter", "By", "Size of the messages sent"),
)

RELAY_METRICS = (
    Metric(
        "leader",
        "gauge",
        "",
        "Whether this relay is the leader, which writes to the log",
        lambda status: int(status.role == "leader"),
    ),
    Metric(
        "connected",
        "gauge",
        "",
        "Whether the relay is connected to the server",
        lambda status: int(status.is_connected),
    ),
    Metric(
        "ready", "gauge", "", "Whether the relay can take over without a gap", lambda status: int(status.is_ready)
    ),
    Metric(
        "engine_up",
        "gauge",
        "",
        "Whether the engine works",
        lambda status: int(not status.problem),
    ),
    _metric("others", "others", "gauge", "", "Other relays that are ready to take over"),
    _metric("channels", "channels", "gauge", "", "Channels that are relayed"),
    _metric("missing", "missing_channels", "gauge", "", "Channels that should be subscribed but are not"),
    _metric("received", "received_events", "counter", "", "Events received"),
    _metric("written", "written_entries", "counter", "", "Entries written to the log"),
    _metric("again", "again_entries", "counter", "", "Entries written that may already be in the log"),
    _metric(
        "gaps", "gap_entries", "counter", "", "Entries written that report a gap, in which events may be missing"
    ),
    _metric("pending", "pending_entries", "gauge", "", "Entries that are not written yet"),
    _metric("lag", "lag_seconds", "gauge", "s", "Age of the oldest entry that is not written yet"),
    _metric("takeovers", "takeovers", "counter", "", "Number of times that this relay became the leader"),
)
