"""A Django shop that publishes each order after the commit of its transaction.

    pip install python-reverb django
    export REVERB_APP_ID=… REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    DATABASE=orders.db PORT=8000 python publish_django.py

    curl http://127.0.0.1:8000/orders --data item=lamp

Each order becomes the event ``order.created`` on ``private-orders``. All connections get it, except the one of the
page that sent the request: Laravel Echo names it in the header ``X-Socket-ID``. Copy ``api``, ``sender`` and
``publish`` to your project, and use them as ``create_order`` does.
"""

import logging
import os
import re
import secrets
import sys
from functools import partial

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import connection, models, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from reverb import ReverbError, SyncReverbAPI

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY=secrets.token_urlsafe(),
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("DATABASE", "orders.db"),
            "OPTIONS": {"timeout": 20},
        }
    },
)
django.setup()

api = SyncReverbAPI()  # one for the process: all threads share its connections


class Order(models.Model):
    item = models.CharField(max_length=100)

    class Meta:
        app_label = "shop"


def sender(request: HttpRequest) -> str | None:
    """The connection that must not get the event. A page that is not connected yet may send "undefined"."""
    socket_id = request.headers.get("X-Socket-ID", "")
    return socket_id if re.fullmatch(r"[0-9]{1,20}\.[0-9]{1,20}", socket_id) else None


def publish(channel: str, event: str, data: object, socket_id: str | None) -> None:
    """Publish an event about a finished change. The change stays, even if publishing fails."""
    try:
        api.trigger(channel, event, data, socket_id=socket_id)
    except ReverbError as error:
        logging.error("%s is not published: %s", event, error)


@csrf_exempt  # for curl; leave it out in your project
@require_POST
def create_order(request: HttpRequest) -> HttpResponse:
    item = request.POST.get("item", "")
    if not 0 < len(item) <= 100:
        return HttpResponse(status=400)
    with transaction.atomic():
        order = Order.objects.create(item=item)
        data = {"id": order.pk, "item": order.item}
        # After the commit only: before it, receivers would not find the order; after a rollback, there is none.
        transaction.on_commit(partial(publish, "private-orders", "order.created", data, sender(request)))
    return JsonResponse(data, status=201)


urlpatterns = [path("orders", create_order)]


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    if Order._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Order)
    execute_from_command_line(
        [sys.argv[0], "runserver", "--noreload", f"127.0.0.1:{os.environ.get('PORT', '8000')}"]
    )


if __name__ == "__main__":
    main()
