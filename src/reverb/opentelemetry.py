"""The numbers of :attr:`ReverbClient.stats` for OpenTelemetry; needs the extra ``opentelemetry``."""

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
    """Have OpenTelemetry read the numbers of clients whenever it collects::

        observe({"orders": client})

    ``clients`` are by name, which becomes the attribute ``client``; a client that is put into the mapping later is
    there at the next collection. ``meter`` is one of the global meter provider unless given. To be called once:
    OpenTelemetry keeps what it observes. Raises :class:`ConfigurationError` without opentelemetry-api.
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
        # A copy: this has a thread of its own, and the program may put another client in meanwhile.
        for name, client in list(clients.items()):
            value = metric.value(client.stats)
            if value is not None:
                yield Observation(value, {"client": name})

    for metric in METRICS:
        create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
        create(f"reverb.{metric.name}", [partial(callback, metric)], metric.unit, metric.meaning)
