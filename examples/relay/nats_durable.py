"""Reads the relay's stream in NATS JetStream with a durable pull consumer.

    pip install nats-py
    RELAY_URL=nats://127.0.0.1:4222 python nats_durable.py

Several readers share the entries. To keep the order, let the relay write partitions, and start readers for each
partition. Only one reader of a partition gets an entry at a time, so a second reader is a spare:

    reverb relay … --partitions 2
    python nats_durable.py 0
    python nats_durable.py 1

A reader acknowledges an entry when it is done. If it dies before, another reader gets the entry after a minute.
After SIGTERM, it finishes its entries (at most ten) and ends.
"""

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable

import nats
import orders
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js.api import ConsumerConfig

URL = os.environ.get("RELAY_URL", "nats://127.0.0.1:4222")
STREAM = os.environ.get("STREAM", "reverb")
NAME = os.environ.get("GROUP", "orders")
STUCK = float(os.environ.get("STUCK_AFTER", "60"))  # seconds; more than ten entries take
TRIES = 5


async def read(handle: Callable[[dict[str, str]], None], partition: str | None = None) -> None:
    """Call ``handle`` in a thread, with the fields of each entry, until SIGTERM or SIGINT."""
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    subject, durable, at_once = f"{STREAM}.>", NAME, 1000
    if partition is not None:
        subject, durable, at_once = f"{STREAM}.{partition}.>", f"{NAME}-{partition}", 1
    client = await nats.connect(URL, max_reconnect_attempts=-1)
    try:
        subscription = await client.jetstream().pull_subscribe(
            subject,
            durable=durable,
            stream=STREAM,
            config=ConsumerConfig(ack_wait=STUCK, max_ack_pending=at_once),
        )
        while not ending.is_set():
            try:
                messages = await subscription.fetch(min(10, at_once), timeout=1)
            except asyncio.TimeoutError:  # nothing new
                continue
            except Error as error:
                print(f"cannot read {STREAM}: {error}", file=sys.stderr)
                await asyncio.sleep(1)
                continue
            for message in messages:
                await finish(message, handle)
        await client.flush()  # the last acknowledgements
    finally:
        await client.close()


async def finish(message: Msg, handle: Callable[[dict[str, str]], None]) -> None:
    fields = {**(message.headers or {}), "data": message.data.decode()}
    try:
        await asyncio.to_thread(handle, fields)
    except Exception:
        traceback.print_exc()
        if message.metadata.num_delivered < TRIES:
            await message.nak(delay=1)
        else:  # the entry stays in the stream; to see it: nats stream get STREAM SEQUENCE
            print(f"giving up on entry {message.metadata.sequence.stream} of {STREAM}", file=sys.stderr)
            await message.term()
    else:
        await message.ack()


if __name__ == "__main__":
    asyncio.run(read(orders.take, *sys.argv[1:2]))
