"""Several listeners, one log: write what a server sends into the streams of Redis, Valkey, or NATS JetStream.

And the other direction: publish what others write into such a stream.
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
