"""A FastAPI application that publishes without blocking the event loop.

    pip install "python-reverb[http]" fastapi uvicorn
    export REVERB_APP_ID=… REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    PORT=8000 python publish_fastapi.py

    curl http://127.0.0.1:8000/messages --json '{"text": "Hello!"}'

``POST /messages`` becomes the event ``message.sent`` on ``private-chat``. All connections get it, except the one
of the page that sent the request: Laravel Echo names it in the header ``X-Socket-ID``. Status 204 means that the
server has accepted the event.
"""

import logging
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel

from reverb import ProtocolError, ReverbAPI, ReverbError

api = ReverbAPI()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make one API for all requests, which share its connections. Close them at the end."""
    async with api:
        yield


app = FastAPI(lifespan=lifespan)


class Message(BaseModel):
    text: str


@app.post("/messages", status_code=204)
async def send_message(message: Message, x_socket_id: Annotated[str, Header()] = "") -> None:
    # The connection that must not get the event. A page that is not connected yet may send "undefined".
    sender = x_socket_id if re.fullmatch(r"[0-9]{1,20}\.[0-9]{1,20}", x_socket_id) else None
    try:
        await api.trigger("private-chat", "message.sent", {"text": message.text}, socket_id=sender)
    except ProtocolError as error:  # larger than the server accepts
        raise HTTPException(413, str(error)) from None
    except ReverbError as error:
        logging.error("a message is not published: %s", error)
        raise HTTPException(502, "The message server does not take it.") from None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
