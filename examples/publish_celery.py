"""Publishes from a worker of Celery, which tries again while the message server is away.

    pip install python-reverb celery
    export REVERB_APP_ID=… REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    celery --app publish_celery worker --concurrency 4

    python publish_celery.py private-orders order.shipped '{"id": 7}'

The queue is a directory, so that this runs without a broker; ``BROKER_URL`` is for yours: ``redis://…``,
``amqp://…``. Into your project take ``api`` and ``publish``.
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

api = SyncReverbAPI()  # made before the worker forks: each of its processes opens connections of its own


@app.task(
    autoretry_for=(ReverbError,),
    dont_autoretry_for=(ProtocolError, ConfigurationError),  # what can't be sent gets no better by waiting
    retry_backoff=1,  # seconds, and then up to twice as many each time, …
    retry_backoff_max=60,  # … but no more than these
    max_retries=20,
    ignore_result=True,
)
def publish(channel: str, event: str, data: Any, socket_id: str | None = None) -> None:
    """Publish an event. It may arrive twice, if an answer is lost, and behind one that was queued later."""
    api.trigger(channel, event, data, socket_id=socket_id, idempotent=True)


if __name__ == "__main__":
    channel, event, data = sys.argv[1:]
    publish.delay(channel, event, json.loads(data))
