"""Connect Reverb to a log in Redis, Valkey or NATS JetStream.

:class:`Relay` writes the events of channels into a log. Several relays write one log together. :class:`Publisher`
does the opposite: it publishes the entries of a stream over the HTTP API.
"""

from ._log import EngineError
from ._nats_source import NatsSource
from ._publisher import DeadLetter, Item, Published, Publisher, Report, Source, Waiting
from ._redis_source import RedisSource
from ._relay import Find, Relay, RelayStatus

__all__ = [
    "DeadLetter",
    "EngineError",
    "Find",
    "Item",
    "NatsSource",
    "Published",
    "Publisher",
    "RedisSource",
    "Relay",
    "RelayStatus",
    "Report",
    "Source",
    "Waiting",
]
