"""Makes a Taskiq task of each entry of the relay's stream in Redis or Valkey.

    pip install taskiq taskiq-redis
    export RELAY_URL=redis://127.0.0.1:6379/0 BROKER_URL=redis://127.0.0.1:6379/1
    taskiq worker to_taskiq:broker
    python to_taskiq.py reverb

The reader acknowledges an entry when Taskiq's broker has the task. If it dies between the two, it makes the task
again. Taskiq itself may run a task twice, and not in order. ``orders.take`` gives the right result in all these
cases.
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


@broker.task("handle", retry_on_error=True)  # named, so that worker and reader use the same task
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
    # The task has the entry's id, so you can find the entry of a task that Taskiq logs.
    task = handle.kicker()
    await (task.with_task_id(entry["writer"]) if "writer" in entry else task).kiq(entry)


if __name__ == "__main__":
    main(sys.argv[1])
