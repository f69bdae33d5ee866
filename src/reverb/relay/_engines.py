"""The engines, by the scheme of their URLs. Each is imported when it is used; another one is a line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from ..exceptions import ConfigurationError

if TYPE_CHECKING:
    from ._log import Sink


class _Engine(NamedTuple):
    module: str
    sink: str
    library: str
    extra: str


_REDIS = _Engine("._redis", "RedisSink", "redis", "relay-redis")
_NATS = _Engine("._nats", "NatsSink", "nats", "relay-nats")
_ENGINES = {"redis": _REDIS, "rediss": _REDIS, "nats": _NATS, "tls": _NATS}
SCHEMES = tuple(_ENGINES)


def make_sink(url: str, **settings: Any) -> Sink:
    """Make what writes to the engine that ``url`` names. Raises :class:`ConfigurationError` where there is none,
    or its client is not installed."""
    scheme = urlsplit(url).scheme
    engine = _ENGINES.get(scheme)
    if engine is None:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ConfigurationError(
            f"the engine's URL must begin with one of {known}, not with {scheme or 'nothing'!r}"
        )
    try:
        module = import_module(engine.module, __package__)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != engine.library:
            raise
        raise ConfigurationError(
            f'{scheme}:// needs {engine.library}: pip install "python-reverb[{engine.extra}]"'
        ) from None
    sink: Sink = getattr(module, engine.sink)(url, **settings)
    return sink
