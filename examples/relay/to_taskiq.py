"""Makes a task of Taskiq from each entry of the relay's log in Redis or Valkey.

    pip install taskiq taskiq-redis
    export RELAY_URL=redis://127.0.0.1:6379/0 BROKER_URL=redis://127.0.0.1:6379/1
    taskiq worker to_taskiq:broker
    python to_taskiq.py reverb

An entry is acknowledged when Taskiq's broker has its task. A reader that dies between the two makes the task
again, and Taskiq itself may run a task twice, and not in order: ``orders.take`` can bear all that.
"""

import asyncio
import os
import sys

import orders
import redis_group
from taskiq import SimpleRetryMiddleware
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/1")).with_middlewares(
    SimpleRetryMiddleware(default_retry_count=5)
)


@broker.task("handle", retry_on_error=True)  # its name, so that worker and reader mean the same
def handle(entry: dict[str, str]) -> None:
    orders.take(entry)


def main(stream: str) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(broker.startup())
    try:
        redis_group.read(stream, lambda entry: loop.run_until_complete(hand_over(entry)))
    finally:
        loop.run_until_complete(broker.shutdown())
        loop.close()


async def hand_over(entry: dict[str, str]) -> None:
    # The id is the entry's own, so what Taskiq logs of a task can be found in the log of the relay.
    task = handle.kicker()
    await (task.with_task_id(entry["writer"]) if "writer" in entry else task).kiq(entry)


if __name__ == "__main__":
    main(sys.argv[1])
