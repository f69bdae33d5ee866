"""docs/guides/web-frameworks.md: its applications and their tests run."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest

from reverb import ReverbError
from reverb.auth import sign_channel
from reverb.server import ReverbServer
from tests.cli.processes import reverb as run_module
from tests.docs.pages import ROOT, Block, Fragment, Page
from tests.test_dispatch import Recorder
from tests.watching import until

PAGE = Page("docs/guides/web-frameworks.md")
BLOCKS, block_of = PAGE.blocks, PAGE.block_of
ANN = {"user_id": "7", "user_info": {"name": "Ann"}}


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


async def post(app: Any, path: str, body: bytes, content_type: str) -> tuple[int, Any]:
    """Send a request to an ASGI application as a server does; return the status, and the JSON of the answer."""
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
    }
    scope |= {"path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    answer = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(answer) if answer else None


def subscribe_form(channel: str, socket_id: str = "1.2") -> bytes:
    return urlencode({"socket_id": socket_id, "channel_name": channel}).encode()


FORM = "application/x-www-form-urlencoded"


def may_listen(user: Any, channel: str) -> bool:
    return channel.endswith(".7")


# --- FastAPI ---------------------------------------------------------------------------------------------------


@block_of("FastAPI: publish")
async def test_fastapi_publishes(block: Block, reverb_server: ReverbServer) -> None:
    pytest.importorskip("fastapi")
    fragment = Fragment(block, __name__="messages")
    await fragment.run()
    app = fragment.names["app"]
    async with app.router.lifespan_context(app):
        assert await post(app, "/messages", b'{"text": "Hello!"}', "application/json") == (204, None)
        reverb_server.assert_published("private-chat", "message.sent", {"text": "Hello!"})
        too_large = json.dumps({"text": 20_000 * "x"}).encode()
        status, _ = await post(app, "/messages", too_large, "application/json")
        assert status == 502


@block_of("FastAPI: sign for browsers")
async def test_fastapi_signs(block: Block, reverb_server: ReverbServer) -> None:
    fastapi = pytest.importorskip("fastapi")
    fragment = Fragment(block, current_user=lambda: ANN, may_listen=may_listen)
    await fragment.run()
    app = fastapi.FastAPI()
    app.include_router(fragment.names["router"])

    async def ask(form: bytes) -> tuple[int, Any]:
        return await post(app, "/broadcasting/auth", form, FORM)

    await check_signatures(ask, reverb_server)


async def check_signatures(ask: Any, server: ReverbServer) -> None:
    """Ask a backend whose user 7 may listen to channels that end in ``.7``."""
    key, secret = server.app.key, server.app.secret
    signed = sign_channel(key, secret, "1.2", "private-user.7")
    assert await ask(subscribe_form("private-user.7")) == (200, {"auth": signed})
    status, presence = await ask(subscribe_form("presence-room.7"))
    assert status == 200
    assert json.loads(presence["channel_data"]) == ANN
    assert (await ask(subscribe_form("private-user.8")))[0] == 403
    assert (await ask(subscribe_form("private-user.7", "nonsense")))[0] == 400


@block_of("FastAPI: listen")
async def test_fastapi_listens(block: Block, reverb_server: ReverbServer) -> None:
    pytest.importorskip("fastapi")
    received = Recorder()
    fragment = Fragment(block, on_shipped=received)
    await fragment.run()
    app = fragment.names["app"]
    async with app.router.lifespan_context(app):
        await reverb_server.publish("private-orders", "order.shipped", {"id": 7})
        assert await received.wait_for(1) == [("order.shipped", {"id": 7}, "private-orders")]


@block_of("FastAPI: listen 2")
async def test_a_lifespan_of_your_own(block: Block, reverb_server: ReverbServer) -> None:
    pytest.importorskip("fastapi")

    @asynccontextmanager
    async def open_database() -> AsyncIterator[str]:
        yield "a database"

    listen = Fragment(BLOCKS["FastAPI: listen"], on_shipped=Recorder())
    await listen.run()
    client = listen.names["client"]
    own = Fragment(block, client=client, setup=listen.names["setup"], open_database=open_database)
    await own.run()
    app = own.names["app"]
    async with app.router.lifespan_context(app) as state:
        assert state == {"database": "a database"}
        assert client.is_connected
    assert not client.is_connected


# --- Django ----------------------------------------------------------------------------------------------------

PROJECT = {
    "manage.py": """\
import os, sys
from django.core.management import execute_from_command_line

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
""",
    "settings.py": """\
SECRET_KEY = "secret"
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.db"}}
""",
    "urls.py": """\
from django.urls import path
from shop import signing, views

urlpatterns = [path("orders", views.create_order), path("broadcasting/auth", signing.authorize)]
""",
    "shop/__init__.py": "",
    "shop/models.py": """\
from django.db import models


class Order(models.Model):
    item = models.CharField(max_length=100)
""",
    "shop/management/__init__.py": "",
    "shop/management/commands/__init__.py": "",
}
PERMISSIONS = """

def may_listen(user, channel):
    return channel.endswith(".7")
"""
TEST_SIGNING = """\
from types import SimpleNamespace
from django.test import RequestFactory, SimpleTestCase
from reverb.auth import sign_channel
from shop.signing import authorize


class SigningTest(SimpleTestCase):
    def ask(self, channel, socket_id="1.2"):
        form = {"socket_id": socket_id, "channel_name": channel}
        request = RequestFactory().post("/broadcasting/auth", form)
        request.user = SimpleNamespace(pk=7, username="Ann")
        return authorize(request)

    def test_it(self):
        signed = sign_channel("app-key", "app-secret", "1.2", "private-user.7")
        self.assertJSONEqual(self.ask("private-user.7").content, {"auth": signed})
        self.assertContains(self.ask("presence-room.7"), '"name\\\\":\\\\"Ann')
        self.assertEqual(self.ask("private-user.8").status_code, 403)
        self.assertEqual(self.ask("private-user.7", "nonsense").status_code, 400)
"""


def write_project(path: Path) -> None:
    """Write a project in Django that has what the page shows."""
    blocks = [BLOCKS[name].text for name in ("Django: publish", "Django: test the view", "Listen without asyncio")]
    shown = {re.match(r"# (\S+)\n", text)[1]: text for text in blocks}  # type: ignore[index]
    signing = {"shop/signing.py": BLOCKS["Django: sign for browsers"].text + PERMISSIONS}
    for name, text in {**PROJECT, **shown, **signing, "shop/test_signing.py": TEST_SIGNING}.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def arguments_of(block: Block) -> list[str]:
    assert block.language == "console"
    python, manage, *arguments = block.text.removeprefix("$ ").split()
    assert (python, manage) == ("python", "manage.py")
    return arguments


@block_of("Django: test the view 2")
@pytest.mark.filterwarnings("default")
async def test_django_publishes_and_signs(block: Block, reverb_server: ReverbServer, tmp_path: Path) -> None:
    """By the tests that the page shows, and one for the view that signs."""
    pytest.importorskip("django")
    write_project(tmp_path)
    arguments = arguments_of(block)
    async with run_module(*arguments, module="manage", env=reverb_server.env, cwd=tmp_path) as command:
        code = await command.exit_code()
        assert code == 0, command.err.text
        assert "Ran 3 tests" in command.err.text


LISTEN = """\
import os, sys
import django

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
django.setup()
from django.core.management import call_command, execute_from_command_line
from shop.models import Order

call_command("migrate", run_syncdb=True, verbosity=0)
Order.objects.create(item="lamp")
execute_from_command_line(sys.argv)
"""


@block_of("Listen without asyncio 2")
async def test_a_command_of_django_listens(block: Block, reverb_server: ReverbServer, tmp_path: Path) -> None:
    pytest.importorskip("django")
    write_project(tmp_path)
    tmp_path.joinpath("manage.py").write_text(LISTEN)
    arguments = arguments_of(block)
    async with run_module(*arguments, module="manage", env=reverb_server.env, cwd=tmp_path) as command:
        await reverb_server.wait_for_subscription("private-orders", 15)
        await reverb_server.publish("private-orders", "order.changed", {"id": 1, "item": "desk"})

        def item() -> str:
            with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
                return str(database.execute("SELECT item FROM shop_order").fetchone()[0])

        await until(lambda: item() == "desk", 15)
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0, command.err.text


# --- Flask -----------------------------------------------------------------------------------------------------


@block_of("Flask: test the view 2")
def test_flask_publishes(block: Block, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the test that the page shows, without settings."""
    for text in (BLOCKS["Flask: publish"].text, BLOCKS["Flask: test the view"].text, block.text):
        name = re.match(r"# (\S+)\n", text)[1]  # type: ignore[index]
        pytester.path.joinpath(name).write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # which takes longer than the test
    pytester.runpytest_subprocess("-W", "error", "-p", "reverb.testing").assert_outcomes(passed=1)


@block_of("Flask: publish")
def test_flask_without_a_server(block: Block, reverb_server: ReverbServer) -> None:
    def fail(*arguments: object) -> None:
        raise ReverbError("no server")

    names: dict[str, Any] = {"__name__": "chat"}
    exec(block.text, names)
    names["api"] = SimpleNamespace(trigger=fail)
    answer = names["app"].test_client().post("/messages", json={"text": "Hello!"})
    assert answer.status_code == 502


@block_of("Flask: sign for browsers")
async def test_flask_signs(block: Block, reverb_server: ReverbServer) -> None:
    from flask import Flask

    fragment = Fragment(block, __name__="chat", current_user=lambda: ANN, may_listen=may_listen)
    await fragment.run()
    app = Flask("chat")
    app.register_blueprint(fragment.names["broadcasting"])

    async def ask(form: bytes) -> tuple[int, Any]:
        answer = app.test_client().post("/broadcasting/auth", data=form, content_type=FORM)
        return answer.status_code, answer.get_json(silent=True)

    await check_signatures(ask, reverb_server)


# --- Celery ----------------------------------------------------------------------------------------------------


def options_of(program: str) -> str:
    """The options of the task in a program, without comments."""
    (options,) = re.findall(r"^@app\.task\(\n(.*?)^\)", program, re.M | re.S)
    return re.sub(r" +#.*", "", options)


@block_of("Celery")
def test_the_task_of_celery_is_that_of_the_example(block: Block) -> None:
    example = ROOT.joinpath("examples/publish_celery.py").read_text(encoding="utf-8")
    assert options_of(block.text) == options_of(example)


@block_of("Celery 2")
def test_celery_publishes(block: Block, reverb_server: ReverbServer, tmp_path: Path) -> None:
    pytest.importorskip("celery")
    names: dict[str, Any] = {"__name__": "tasks"}
    exec(BLOCKS["Celery"].text, names)
    names["app"].conf.task_always_eager = True
    with names["app"], names["api"]:
        exec(block.text, names)
    data = {"id": 7}
    reverb_server.assert_published("private-orders", "order.shipped", data)


# Blocks that the tests above put together.
block_of("Django: publish", "Django: test the view", "Django: sign for browsers")
block_of("Flask: test the view", "Listen without asyncio")
