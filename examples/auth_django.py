"""A Django backend that authorises browsers (pusher-js, Laravel Echo) and other clients for channels.

    pip install python-reverb django
    export REVERB_APP_KEY=… REVERB_APP_SECRET=…
    ANN_TOKEN=… PORT=8000 python auth_django.py

In pusher-js, set ``channelAuthorization: {endpoint: "https://example.com/broadcasting/auth"}`` and
``userAuthentication: {endpoint: "https://example.com/broadcasting/user-auth"}``. Copy the views and the
``urlpatterns`` to your project, and use ``request.user`` instead of the bearer token.
"""

import os
import secrets
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from reverb import Credentials, ProtocolError
from reverb.auth import authenticate_user, authorize_channel

CREDENTIALS = Credentials.from_env()  # read once, not for every request
USERS = {f"Bearer {os.environ['ANN_TOKEN']}": {"user_id": "1", "user_info": {"name": "Ann"}}}


def may_listen(user: dict, channel: str) -> bool:
    """Whether the user may listen to a channel: rooms, encrypted channels, and the user's own channel."""
    return (
        channel.startswith(("presence-room.", "private-encrypted-"))
        or channel == f"private-user.{user['user_id']}"
    )


@csrf_exempt  # for the bearer token; with session cookies, leave it out and send X-CSRFToken
@require_POST
def authorize(request: HttpRequest) -> HttpResponse:
    user, channel = USERS.get(request.headers.get("Authorization", "")), request.POST.get("channel_name", "")
    if user is None:
        return HttpResponse(status=401)
    if not may_listen(user, channel):
        return HttpResponse(status=403)
    try:
        member = user if channel.startswith("presence-") else None
        socket_id = request.POST.get("socket_id", "")
        return JsonResponse(authorize_channel(socket_id, channel, member, credentials=CREDENTIALS))
    except ProtocolError as error:
        return JsonResponse({"message": str(error)}, status=400)


@csrf_exempt
@require_POST
def authenticate(request: HttpRequest) -> HttpResponse:
    user = USERS.get(request.headers.get("Authorization", ""))
    if user is None:
        return HttpResponse(status=401)
    try:
        data = {"id": user["user_id"], "user_info": user["user_info"]}
        socket_id = request.POST.get("socket_id", "")
        return JsonResponse(authenticate_user(socket_id, data, credentials=CREDENTIALS))
    except ProtocolError as error:
        return JsonResponse({"message": str(error)}, status=400)


urlpatterns = [path("broadcasting/auth", authorize), path("broadcasting/user-auth", authenticate)]

if __name__ == "__main__":
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY=secrets.token_urlsafe())
    execute_from_command_line(
        [sys.argv[0], "runserver", "--noreload", f"127.0.0.1:{os.environ.get('PORT', '8000')}"]
    )
