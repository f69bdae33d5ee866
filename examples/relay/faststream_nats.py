"""Reads the relay's stream in NATS JetStream with FastStream, with types.

pip install "faststream[nats]"
RELAY_URL=nats://127.0.0.1:4222 python faststream_nats.py
"""

import asyncio
import os
from collections.abc import Callable

import orders
from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.js.api import ConsumerConfig
from pydantic import BaseModel

STREAM = os.environ.get("STREAM", "reverb")
NAME = os.environ.get("GROUP", "orders")
STUCK = float(os.environ.get("STUCK_AFTER", "60"))  # seconds; more than any entry takes

broker = NatsBroker(
    os.environ.get("RELAY_URL", "nats://127.0.0.1:4222"),
    graceful_timeout=60,  # seconds that a handler may need to finish on SIGTERM
)
app = FastStream(broker)
log = broker.subscriber(
    f"{STREAM}.>",
    stream=JStream(STREAM, declare=False),  # the relay makes it
    durable=NAME,
    pull_sub=PullSub(batch_size=1, timeout=1),
    config=ConsumerConfig(ack_wait=STUCK),
    ack_policy=AckPolicy.NACK_ON_ERROR,  # an entry whose handler raised comes again
)


class Order(BaseModel):
    id: int
    status: str
    version: int


class Gap(BaseModel):
    reason: str


def is_event(name: str) -> Callable[[NatsMessage], bool]:
    return lambda message: message.headers.get("event") == name


@log(filter=is_event("order.changed"))
def change(order: Order) -> None:
    orders.change(order.model_dump())


@log(filter=is_event("reverb:gap"))
def catch_up(gap: Gap) -> None:
    orders.read_all(gap.model_dump_json())


@log
def ignore() -> None:
    """Ignore all other events. Without this, each of them is an error."""


if __name__ == "__main__":
    asyncio.run(app.run())
