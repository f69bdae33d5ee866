"""The numbers of clients and relays for Prometheus; needs the extra ``prometheus``."""

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
    """Reads the numbers of clients whenever Prometheus asks, and costs nothing in between::

        REGISTRY.register(ReverbCollector({"orders": client}))

    ``clients`` are by name, which becomes the label ``client``. A client that is put into the mapping later is
    there at the next scrape. Raises :class:`ConfigurationError` without prometheus_client.
    """

    def __init__(self, clients: Mapping[str, ReverbClient]) -> None:
        self._kinds = _kinds()
        self._clients = clients

    def collect(self) -> Iterator[Metric]:
        # A copy: scrapes have a thread of their own, and the program may put another client in meanwhile.
        stats = {name: client.stats for name, client in list(self._clients.items())}
        for metric in METRICS:
            family = self._kinds[metric.kind](f"reverb_{metric.name}", metric.meaning, labels=["client"])
            for name, each in stats.items():
                value = metric.value(each)
                if value is not None:
                    family.add_metric([name], value)
            yield family


class RelayCollector:
    """Reads the numbers of a :class:`~reverb.relay.Relay` whenever Prometheus asks: ``reverb_relay_…``, without
    labels, as each relay is a process of its own. Raises :class:`ConfigurationError` without prometheus_client."""

    def __init__(self, relay: Relay) -> None:
        self._kinds = _kinds()
        self._relay = relay

    def collect(self) -> Iterator[Metric]:
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
