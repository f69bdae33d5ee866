"""A Flask backend that authorises browsers (pusher-js, Laravel Echo) and other clients for channels.

    pip install python-reverb flask
    export REVERB_APP_KEY=… REVERB_APP_SECRET=…
    ANN_TOKEN=… PORT=8000 python auth_flask.py

In pusher-js, set ``channelAuthorization: {endpoint: "https://example.com/broadcasting/auth"}`` and
``userAuthentication: {endpoint: "https://example.com/broadcasting/user-auth"}``. Users log in with a bearer token:
replace ``current_user`` by your own login.
"""

import os

from flask import Flask, abort, request

from reverb import Credentials, ProtocolError
from reverb.auth import authenticate_user, authorize_channel

CREDENTIALS = Credentials.from_env()  # read once, not for every request
USERS = {f"Bearer {os.environ['ANN_TOKEN']}": {"user_id": "1", "user_info": {"name": "Ann"}}}

app = Flask(__name__)


def current_user() -> dict:
    return USERS.get(request.headers.get("Authorization", "")) or abort(401)


def may_listen(user: dict, channel: str) -> bool:
    """Whether the user may listen to a channel: rooms, encrypted channels, and the user's own channel."""
    return (
        channel.startswith(("presence-room.", "private-encrypted-"))
        or channel == f"private-user.{user['user_id']}"
    )


@app.post("/broadcasting/auth")
def authorize() -> dict[str, str]:
    user, channel = current_user(), request.form["channel_name"]
    if not may_listen(user, channel):
        abort(403)
    member = user if channel.startswith("presence-") else None
    return authorize_channel(request.form["socket_id"], channel, member, credentials=CREDENTIALS)


@app.post("/broadcasting/user-auth")
def authenticate() -> dict[str, str]:
    user = current_user()
    data = {"id": user["user_id"], "user_info": user["user_info"]}
    return authenticate_user(request.form["socket_id"], data, credentials=CREDENTIALS)


@app.errorhandler(ProtocolError)
def refuse(error: ProtocolError) -> tuple[dict[str, str], int]:
    return {"message": str(error)}, 400


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
