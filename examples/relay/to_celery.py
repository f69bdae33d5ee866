"""Makes a Celery task of each entry of the relay's stream in Redis or Valkey.

    pip install celery redis
    export RELAY_URL=redis://127.0.0.1:6379/0 BROKER_URL=redis://127.0.0.1:6379/1
    celery --app to_celery worker --concurrency 4
    python to_celery.py reverb

The reader acknowledges an entry when Celery's broker has the task. If it dies between the two, it makes the task
again. Celery itself may run a task twice, and not in order. ``orders.take`` gives the right result in all these
cases.
"""

import os
import sys

import celery
import orders
import redis_group

app = celery.Celery("to_celery", broker=os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/1"))


@app.task(
    acks_late=True,  # the broker gives the tasks of a dead worker to others
    reject_on_worker_lost=True,
    autoretry_for=(Exception,),
    retry_backoff=1,
    max_retries=5,
    ignore_result=True,
)
def handle(entry: dict[str, str]) -> None:
    orders.take(entry)


def hand_over(entry: dict[str, str]) -> None:
    # The task has the entry's id, so you can find the entry of a task that Celery logs.
    handle.apply_async([entry], task_id=entry.get("writer"))


if __name__ == "__main__":
    redis_group.read(sys.argv[1], hand_over)
