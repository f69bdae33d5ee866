"""Makes a task of Celery from each entry of the relay's log in Redis or Valkey.

    pip install celery redis
    export RELAY_URL=redis://127.0.0.1:6379/0 BROKER_URL=redis://127.0.0.1:6379/1
    celery --app to_celery worker --concurrency 4
    python to_celery.py reverb

An entry is acknowledged when Celery's broker has its task. A reader that dies between the two makes the task
again, and Celery itself may run a task twice, and not in order: ``orders.take`` can bear all that.
"""

import os
import sys

import celery
import orders
import redis_group

app = celery.Celery("to_celery", broker=os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/1"))


@app.task(
    acks_late=True,  # a worker that dies leaves its tasks to others
    reject_on_worker_lost=True,
    autoretry_for=(Exception,),
    retry_backoff=1,
    max_retries=5,
    ignore_result=True,
)
def handle(entry: dict[str, str]) -> None:
    orders.take(entry)


def hand_over(entry: dict[str, str]) -> None:
    # The id is the entry's own, so what Celery logs of a task can be found in the log of the relay.
    handle.apply_async([entry], task_id=entry.get("writer"))


if __name__ == "__main__":
    redis_group.read(sys.argv[1], hand_over)
