"""A Celery worker that publishes, and retries while the server is down.

    pip install python-reverb celery
    export REVERB_APP_ID=… REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    celery --app publish_celery worker --concurrency 4

    python publish_celery.py private-orders order.shipped '{"id": 7}'

The queue is a directory, so the program runs without a broker. Set ``BROKER_URL`` for your broker: ``redis://…``,
``amqp://…``. Copy ``api`` and ``publish`` to your project.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import celery

from reverb import ConfigurationError, ProtocolError, ReverbError, SyncReverbAPI

QUEUE = Path("queue")

app = celery.Celery("publish_celery", broker=os.environ.get("BROKER_URL", "filesystem://"))
if app.conf.broker_url == "filesystem://":
    QUEUE.mkdir(exist_ok=True)
    folders = ("data_folder_in", "data_folder_out", "control_folder")
    app.conf.broker_transport_options = dict.fromkeys(folders, str(QUEUE))

api = SyncReverbAPI()  # made before the worker forks: each process opens its own connections


@app.task(
    autoretry_for=(ReverbError,),
    dont_autoretry_for=(ProtocolError, ConfigurationError),  # a retry does not help when an event can't be sent
    retry_backoff=1,  # seconds before the first retry, then up to twice as many each time, …
    retry_backoff_max=60,  # … up to this limit
    max_retries=20,
    ignore_result=True,
)
def publish(channel: str, event: str, data: Any, socket_id: str | None = None) -> None:
    """Publish an event. It may arrive twice if an answer is lost, or after an event that was queued later."""
    api.trigger(channel, event, data, socket_id=socket_id, idempotent=True)


if __name__ == "__main__":
    channel, event, data = sys.argv[1:]
    publish.delay(channel, event, json.loads(data))
