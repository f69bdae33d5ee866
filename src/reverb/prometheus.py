"""Metrics of clients and relays for Prometheus. It needs the extra ``prometheus``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ._metrics import METRICS, RELAY_METRICS
from .client import ReverbClient
from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client import Metric

    from .relay import Relay

__all__ = ["RelayCollector", "ReverbCollector"]


class ReverbCollector:
    """Collect metrics of clients when Prometheus asks for them.

    ::

        REGISTRY.register(ReverbCollector({"orders": client}))

    It has no cost between two scrapes.

    Args:
        clients: The clients by name. The name becomes the label ``client``. A client that you add to the mapping
            later is in the next scrape.

    Raises:
        ConfigurationError: prometheus_client is not installed.
    """

    def __init__(self, clients: Mapping[str, ReverbClient]) -> None:
        self._kinds = _kinds()
        self._clients = clients

    def collect(self) -> Iterator[Metric]:
        """Return the metrics ``reverb_…`` of all clients. Prometheus calls this."""
        # A copy: this runs in another thread, and the program may add a client at the same time.
        stats = {name: client.stats for name, client in list(self._clients.items())}
        for metric in METRICS:
            family = self._kinds[metric.kind](f"reverb_{metric.name}", metric.meaning, labels=["client"])
            for name, each in stats.items():
                value = metric.value(each)
                if value is not None:
                    family.add_metric([name], value)
            yield family


class RelayCollector:
    """Collect metrics of a :class:`reverb.relay.Relay` when Prometheus asks for them.

    They have no labels, because each relay is a process of its own.

    Args:
        relay: The relay.

    Raises:
        ConfigurationError: prometheus_client is not installed.
    """

    def __init__(self, relay: Relay) -> None:
        self._kinds = _kinds()
        self._relay = relay

    def collect(self) -> Iterator[Metric]:
        """Return the metrics ``reverb_relay_…`` of the relay. Prometheus calls this."""
        status = self._relay.status
        for metric in RELAY_METRICS:
            yield self._kinds[metric.kind](
                f"reverb_relay_{metric.name}", metric.meaning, value=metric.value(status)
            )


def _kinds() -> dict[str, Any]:
    try:
        from prometheus_client import metrics_core
    except ImportError:
        raise ConfigurationError(
            'reverb.prometheus needs prometheus_client: pip install "python-reverb[prometheus]"'
        ) from None
    return {"counter": metrics_core.CounterMetricFamily, "gauge": metrics_core.GaugeMetricFamily}
