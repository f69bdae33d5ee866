"""A Flask application that publishes, with one process or several.

    pip install python-reverb flask gunicorn
    export REVERB_APP_ID=… REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    PORT=8000 python publish_flask.py

    curl http://127.0.0.1:8000/messages --json '{"text": "Hello!"}'

In production, with four processes of eight threads each:

    gunicorn --preload --workers 4 --threads 8 --bind 127.0.0.1:8000 publish_flask:app

``POST /messages`` becomes the event ``message.sent`` on ``private-chat``. All connections get it, except the one
of the page that sent the request: Laravel Echo names it in the header ``X-Socket-ID``. Status 204 means that the
server has accepted the event.
"""

import os
import re

from flask import Flask, abort, request

from reverb import ProtocolError, ReverbError, SyncReverbAPI

app = Flask(__name__)
api = SyncReverbAPI()  # for all threads, and for the processes that a pre-forking server starts


def sender() -> str | None:
    """The connection that must not get the event. A page that is not connected yet may send "undefined"."""
    socket_id = request.headers.get("X-Socket-ID", "")
    return socket_id if re.fullmatch(r"[0-9]{1,20}\.[0-9]{1,20}", socket_id) else None


@app.post("/messages")
def send_message() -> tuple[str, int]:
    message = request.get_json()
    if not isinstance(message, dict) or not isinstance(message.get("text"), str):
        abort(400)
    api.trigger("private-chat", "message.sent", {"text": message["text"]}, socket_id=sender())
    return "", 204


@app.errorhandler(ProtocolError)
def refuse(error: ProtocolError) -> tuple[dict[str, str], int]:
    return {"message": str(error)}, 413  # larger than the server accepts


@app.errorhandler(ReverbError)
def fail(error: ReverbError) -> tuple[dict[str, str], int]:
    app.logger.error("a message is not published: %s", error)
    return {"message": "The message server does not take it."}, 502


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
