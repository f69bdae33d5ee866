"""Metrics of clients for OpenTelemetry. It needs the extra ``opentelemetry``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ._metrics import METRICS, Metric
from .client import ReverbClient
from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

__all__ = ["observe"]


def observe(clients: Mapping[str, ReverbClient], meter: Meter | None = None) -> None:
    """Register metrics of clients with OpenTelemetry, which reads them when it collects.

    ::

        observe({"orders": client})

    Call it once: OpenTelemetry never removes what it observes.

    Args:
        clients: The clients by name. The name becomes the attribute ``client``. A client that you add to the
            mapping later is in the next collection.
        meter: The meter to use. The default is the meter ``reverb`` of the global meter provider.

    Raises:
        ConfigurationError: opentelemetry-api is not installed.
    """
    try:
        from opentelemetry.metrics import Observation, get_meter
    except ImportError:
        raise ConfigurationError(
            'reverb.opentelemetry needs opentelemetry-api: pip install "python-reverb[opentelemetry]"'
        ) from None
    if meter is None:
        meter = get_meter("reverb")

    def callback(metric: Metric, options: CallbackOptions) -> Iterator[Observation]:
        # A copy: this runs in another thread, and the program may add a client at the same time.
        for name, client in list(clients.items()):
            value = metric.value(client.stats)
            if value is not None:
                yield Observation(value, {"client": name})

    for metric in METRICS:
        create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
        create(f"reverb.{metric.name}", [partial(callback, metric)], metric.unit, metric.meaning)
