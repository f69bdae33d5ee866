"""Reads the relay's stream in Redis or Valkey with FastStream, with types.

pip install "faststream[redis]"
RELAY_URL=redis://127.0.0.1:6379/0 python faststream_redis.py
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import orders
from faststream import AckPolicy, FastStream
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.message import RedisStreamMessage
from pydantic import BaseModel
from redis import ResponseError

STREAM = os.environ.get("STREAM", "reverb")
GROUP = os.environ.get("GROUP", "orders")
CONSUMER = os.environ.get("CONSUMER", socket.gethostname())
STUCK = float(os.environ.get("STUCK_AFTER", "60"))  # seconds; more than any entry takes

Parse = Callable[[Any], Awaitable[RedisStreamMessage]]


async def parse_entry(message: Any, parse: Parse) -> RedisStreamMessage:
    """Take the field ``data`` of an entry as the body, and its other fields as headers.

    FastStream's own parser expects one field with both of them in it.
    """
    parsed = await parse(message)
    fields = {name.decode(): value.decode() for name, value in message["data"].items()}
    parsed.body = fields.pop("data").encode()
    parsed.headers = fields
    parsed.content_type = "application/json"
    return parsed


broker = RedisBroker(
    os.environ.get("RELAY_URL", "redis://127.0.0.1:6379/0"),
    parser=parse_entry,
    graceful_timeout=60,  # seconds that a handler may need to finish on SIGTERM
)
app = FastStream(broker)


@app.on_startup
async def create_group() -> None:
    """Create the group at the beginning of the stream. FastStream would create it at the end."""
    client = await broker.connect()
    try:
        await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):  # the group exists already
            raise


retry = AckPolicy.NACK_ON_ERROR  # an entry whose handler raised stays pending, and is read again
new = broker.subscriber(
    stream=StreamSub(STREAM, group=GROUP, consumer=CONSUMER, max_records=1),
    ack_policy=retry,
)
# Entries that a reader got and did not finish, also this reader before its last start.
stuck = broker.subscriber(
    stream=StreamSub(
        STREAM, group=GROUP, consumer=CONSUMER, min_idle_time=int(1000 * STUCK), polling_interval=1000
    ),
    ack_policy=retry,
)


class Order(BaseModel):
    id: int
    status: str
    version: int


class Gap(BaseModel):
    reason: str


def is_event(name: str) -> Callable[[RedisStreamMessage], bool]:
    return lambda message: message.headers["event"] == name


@new(filter=is_event("order.changed"))
@stuck(filter=is_event("order.changed"))
def change(order: Order) -> None:
    orders.change(order.model_dump())


@new(filter=is_event("reverb:gap"))
@stuck(filter=is_event("reverb:gap"))
def catch_up(gap: Gap) -> None:
    orders.read_all(gap.model_dump_json())


@new
@stuck
def ignore() -> None:
    """Ignore all other events. Without this, each of them is an error."""


if __name__ == "__main__":
    asyncio.run(app.run())
