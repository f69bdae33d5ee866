"""The numbers of :attr:`ReverbClient.stats` for Prometheus; needs the extra ``prometheus``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ._metrics import METRICS
from .client import ReverbClient
from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["ReverbCollector"]


class ReverbCollector:
    """Reads the numbers of clients whenever Prometheus asks, and costs nothing in between::

        REGISTRY.register(ReverbCollector({"orders": client}))

    ``clients`` are by name, which becomes the label ``client``. A client that is put into the mapping later is
    there at the next scrape. Raises :class:`ConfigurationError` without prometheus_client.
    """

    def __init__(self, clients: Mapping[str, ReverbClient]) -> None:
        try:
            from prometheus_client import metrics_core
        except ImportError:
            raise ConfigurationError(
                'reverb.prometheus needs prometheus_client: pip install "python-reverb[prometheus]"'
            ) from None
        self._kinds = {"counter": metrics_core.CounterMetricFamily, "gauge": metrics_core.GaugeMetricFamily}
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
