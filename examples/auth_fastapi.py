"""A FastAPI backend that authorises browsers (pusher-js, Laravel Echo) and other clients for channels.

    pip install python-reverb fastapi python-multipart uvicorn
    export REVERB_APP_KEY=… REVERB_APP_SECRET=…
    ANN_TOKEN=… PORT=8000 python auth_fastapi.py

In pusher-js, set ``channelAuthorization: {endpoint: "https://example.com/broadcasting/auth"}`` and
``userAuthentication: {endpoint: "https://example.com/broadcasting/user-auth"}``. Users log in with a bearer token:
replace ``current_user`` by your own login.
"""

import os
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Form, Header, HTTPException

from reverb import Credentials, ProtocolError
from reverb.auth import authenticate_user, authorize_channel

CREDENTIALS = Credentials.from_env()  # read once, not for every request
USERS = {f"Bearer {os.environ['ANN_TOKEN']}": {"user_id": "1", "user_info": {"name": "Ann"}}}

app = FastAPI()


def current_user(authorization: Annotated[str, Header()] = "") -> dict:
    if authorization not in USERS:
        raise HTTPException(401)
    return USERS[authorization]


def may_listen(user: dict, channel: str) -> bool:
    """Whether the user may listen to a channel: rooms, encrypted channels, and the user's own channel."""
    return (
        channel.startswith(("presence-room.", "private-encrypted-"))
        or channel == f"private-user.{user['user_id']}"
    )


@app.post("/broadcasting/auth")
def authorize(
    user: Annotated[dict, Depends(current_user)],
    socket_id: Annotated[str, Form()],
    channel_name: Annotated[str, Form()],
) -> dict[str, str]:
    if not may_listen(user, channel_name):
        raise HTTPException(403)
    try:
        member = user if channel_name.startswith("presence-") else None
        return authorize_channel(socket_id, channel_name, member, credentials=CREDENTIALS)
    except ProtocolError as error:
        raise HTTPException(400, str(error)) from None


@app.post("/broadcasting/user-auth")
def authenticate(
    user: Annotated[dict, Depends(current_user)], socket_id: Annotated[str, Form()]
) -> dict[str, str]:
    try:
        data = {"id": user["user_id"], "user_info": user["user_info"]}
        return authenticate_user(socket_id, data, credentials=CREDENTIALS)
    except ProtocolError as error:
        raise HTTPException(400, str(error)) from None


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
