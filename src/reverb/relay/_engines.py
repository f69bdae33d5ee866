"""The engines, by the scheme of their URLs. Each engine is imported only when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

from .._settings import SecretStr
from ..exceptions import ConfigurationError

if TYPE_CHECKING:
    from ._log import Sink
    from ._publisher import Source


class _Engine(NamedTuple):
    sink: tuple[str, str]
    source: tuple[str, str]
    library: str
    extra: str


_REDIS = _Engine(("._redis", "RedisSink"), ("._redis_source", "RedisSource"), "redis", "relay-redis")
_NATS = _Engine(("._nats", "NatsSink"), ("._nats_source", "NatsSource"), "nats", "relay-nats")
_ENGINES = {"redis": _REDIS, "rediss": _REDIS, "nats": _NATS, "tls": _NATS}


def make_sink(url: SecretStr, **settings: Any) -> Sink:
    """Make the sink for the engine that a URL names.

    Raises :class:`ConfigurationError` if the URL names no engine, or the engine's library is not installed."""
    engine = _engine_of(url)
    sink: Sink = _load(engine, engine.sink)(url.get_secret_value(), **settings)
    return sink


def make_source(url: SecretStr, **settings: Any) -> Source:
    """Make the source for the engine that a URL names; see :func:`make_sink`."""
    engine = _engine_of(url)
    if engine is _NATS and settings.pop("consumer", None) is not None:
        raise ConfigurationError(
            "--consumer is for Redis only: JetStream needs no names for consumers; leave it out"
        )
    source: Source = _load(engine, engine.source)(url.get_secret_value(), **settings)
    return source


def with_password(url: SecretStr, password: SecretStr | None) -> SecretStr:
    """Put a password into a URL. For NATS, the password is a token if the URL has no user."""
    if password is None:
        return url
    try:
        parts = urlsplit(url.get_secret_value())
    except ValueError:
        return url  # the code that parses the URL says what is wrong
    login, _, place = parts.netloc.rpartition("@")
    user, _, _ = login.partition(":")
    between = ":" if user or _ENGINES.get(parts.scheme) is _REDIS else ""
    netloc = f"{user}{between}{quote(password.get_secret_value(), safe='')}@{place}"
    return SecretStr(urlunsplit(parts._replace(netloc=netloc)))


def _engine_of(url: SecretStr) -> _Engine:
    found = (name for name in _ENGINES if url.get_secret_value().startswith(f"{name}://"))
    engine = _ENGINES.get(next(found, ""))
    if engine is None:
        known = ", ".join(f"{name}://" for name in _ENGINES)
        raise ConfigurationError(f"the engine's URL must begin with one of {known}")
    return engine


def _load(engine: _Engine, place: tuple[str, str]) -> Any:
    module, name = place
    try:
        return getattr(import_module(module, __package__), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != engine.library:
            raise
        raise ConfigurationError(
            f'the engine needs {engine.library}. Install it: pip install "python-reverb[{engine.extra}]"'
        ) from None
