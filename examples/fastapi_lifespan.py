"""A FastAPI application that listens to Reverb while it runs, and shows the last events.

    pip install "python-reverb[prometheus]" fastapi uvicorn
    export REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    PORT=8000 python fastapi_lifespan.py

GET /events returns the last events. GET /health returns the state of the client, with status 503 while it is not
connected, so that a supervisor can restart the program. GET /metrics is for Prometheus.
"""

import logging
import os
from collections import deque

import msgspec
import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import REGISTRY, generate_latest

from reverb import ReverbClient
from reverb.asgi import lifespan
from reverb.prometheus import ReverbCollector

CHANNEL = os.environ.get("CHANNEL", "private-orders")

client = ReverbClient()
last = deque(maxlen=20)


def remember(event, data, channel) -> None:
    last.append({"event": event, "data": data, "channel": channel})


async def setup(client: ReverbClient) -> None:
    channel = await client.subscribe(CHANNEL)
    channel.bind("*", remember)


app = FastAPI(lifespan=lifespan(client, setup))
REGISTRY.register(ReverbCollector({"orders": client}))


@app.get("/events")
async def events() -> Response:  # async: read the list in the event loop, not in a thread
    # Not FastAPI's JSON, which refuses some numbers that other senders' JSON may contain.
    return Response(msgspec.json.encode(list(last)), media_type="application/json")


@app.get("/health")
async def health(response: Response) -> dict:
    if not client.is_connected:
        response.status_code = 503
    return {"state": client.state, "stats": msgspec.structs.asdict(client.stats)}


@app.get("/metrics")
def metrics() -> Response:
    return Response(generate_latest(), media_type="text/plain; version=0.0.4")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
