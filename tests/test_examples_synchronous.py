"""The programs in ``examples/`` that publish from web applications and workers, or listen without async."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import aiohttp
import pytest

from reverb import ReverbClient
from reverb.server import ReverbServer
from tests.cli.processes import DEADLINE, Command
from tests.integration.servers import Target, free_ports
from tests.test_dispatch import Recorder
from tests.test_examples import EXAMPLES, SIGNALS, end, run, server, target, wait_for_port
from tests.watching import until

__all__ = ["server", "target"]  # fixtures

# Django's development server leaves its socket open when Ctrl-C ends it.
LENIENT = {"PYTHONWARNINGS": "error,ignore::ResourceWarning"}


def read(name: str) -> str:
    return (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")


class Page(NamedTuple):
    """A page in a browser: it listens to a channel, and sends requests with its socket id."""

    heard: Recorder
    socket_id: str

    @property
    def data(self) -> list[Any]:
        return [data for _, data, _ in self.heard.calls]


@asynccontextmanager
async def open_page(target: Target, channel: str, *events: str) -> AsyncIterator[Page]:
    heard = Recorder()
    async with ReverbClient(**target.settings, reconnect_delay_min=0.01, reconnect_delay_max=0.1) as client:
        assert client.socket_id is not None
        joined = await client.subscribe(channel)
        for event in events:
            joined.bind(event, heard)
        yield Page(heard, client.socket_id)


def wait_for(page: Page, data: list[Any]) -> Any:
    """Wait until the page has heard exactly this."""
    return until(lambda: page.data == data, DEADLINE)


@asynccontextmanager
async def open_http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE)) as http:
        yield http


async def check_messages(command: Command, port: int, server: ReverbServer, target: Target) -> None:
    """A web application publishes messages, for all but their sender, and says what becomes of them."""
    url = f"http://127.0.0.1:{port}/messages"
    async with (
        open_page(target, "private-chat", "message.sent") as ann,
        open_page(target, "private-chat", "message.sent") as bob,
        open_http() as http,
    ):

        async def send(body: Any, socket_id: str | None = None) -> int:
            headers = {} if socket_id is None else {"X-Socket-ID": socket_id}
            async with http.post(url, json=body, headers=headers) as response:
                await response.read()
                return response.status

        assert await send({"text": "to others"}, ann.socket_id) == 204
        nobody = ["", "undefined", "null", "1.2", "1.2\u0663", 5_000 * "1"]
        for socket_id in nobody:
            assert await send({"text": socket_id[:10]}, socket_id.encode().decode("latin-1")) == 204
        to_all = [{"text": socket_id[:10]} for socket_id in nobody]
        await wait_for(bob, [{"text": "to others"}, *to_all])
        await wait_for(ann, to_all)
        bodies: list[Any] = [[], {}, {"text": 1}, "text"]
        for body in bodies:
            assert await send(body) in (400, 422)
        assert await send({"text": 20_000 * "x"}) == 413
        await server.stop()
        assert await send({"text": "lost"}) == 502
        await command.err.expect("a message is not published: cannot connect")
        await server.start()
        assert await send({"text": "again"}) == 204
        command.send_signal(signal.SIGINT)
        await command.exit_code()
        assert "Traceback" not in command.err.text, command.err.text


async def test_the_publish_flask(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with run("publish_flask", target, tmp_path, PORT=str(port)) as command:
        await wait_for_port(port)
        await check_messages(command, port, server, target)


async def test_the_publish_fastapi(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    (port,) = free_ports(1)
    async with run("publish_fastapi", target, tmp_path, PORT=str(port)) as command:
        await wait_for_port(port)
        await check_messages(command, port, server, target)


FORKED = """\
import os

from publish_flask import api, app

api.trigger("private-chat", "message.sent", {"text": "before the fork"})  # a connection that all would inherit


@app.after_request
def tell_process(response):
    response.headers["X-Process"] = str(os.getpid())
    return response
"""


async def test_publish_flask_in_forked_processes(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    """By the command that the example names: four processes of eight threads, made of one that has published."""
    pytest.importorskip("gunicorn")
    (port,) = free_ports(1)
    tmp_path.joinpath("forked.py").write_text(FORKED)
    (told,) = [line.split() for line in read("publish_flask").splitlines() if line.strip().startswith("gunicorn ")]
    arguments = [each.replace("8000", str(port)).replace("publish_flask:", "forked:") for each in told[1:]]
    assert arguments[:3] == ["--preload", "--workers", "4"]
    sent: list[str] = []
    processes: Counter[str] = Counter()
    async with (
        open_page(target, "private-chat", "message.sent") as page,
        open_http() as http,
        run("publish_flask", target, tmp_path, *arguments, module="gunicorn") as command,
    ):
        await wait_for_port(port)

        async def send(text: str) -> None:
            sent.append(text)
            headers = {"Connection": "close"}  # so that the next request may go to another process
            async with http.post(
                f"http://127.0.0.1:{port}/messages", json={"text": text}, headers=headers
            ) as response:
                assert response.status == 204, await response.text()
                processes[response.headers["X-Process"]] += 1

        give_up = monotonic() + DEADLINE
        while len(processes) < 4 or min(processes.values()) < 5:
            assert monotonic() < give_up, processes
            await asyncio.gather(*(send(f"message {len(sent) + number}") for number in range(32)))
        await until(lambda: len(page.data) >= len(sent) + 1, DEADLINE)
        assert Counter(each["text"] for each in page.data) == Counter(["before the fork", *sent])
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0
        assert "Traceback" not in command.err.text, command.err.text


ROLLED_BACK = """\
from django.db import transaction
from django.http import HttpResponse
from django.urls import path

import publish_django


def roll_back(request):
    with transaction.atomic():
        publish_django.create_order(request)
        transaction.set_rollback(True)
    return HttpResponse()


def commit_later(request):
    with transaction.atomic():
        response = publish_django.create_order(request)
        publish_django.api.trigger("private-orders", "not.committed", None)
    return response


for view in (roll_back, commit_later):
    view.csrf_exempt = True
    publish_django.urlpatterns.append(path(view.__name__, view))
publish_django.main()
"""


async def test_the_publish_django(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    tmp_path.joinpath("shop.py").write_text(ROLLED_BACK)
    env = {"PORT": str(port), "DATABASE": "shop.db"}

    def saved() -> list[str]:
        with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
            return [item for (item,) in database.execute("SELECT item FROM shop_order ORDER BY id")]

    async with (
        open_page(target, "private-orders", "order.created", "not.committed") as ann,
        open_page(target, "private-orders", "order.created", "not.committed") as bob,
        open_http() as http,
        run("publish_django", target, tmp_path, module="shop", **env) as command,
    ):
        await wait_for_port(port)

        async def order(item: str, socket_id: str = "", path: str = "orders") -> int:
            url, headers = f"http://127.0.0.1:{port}/{path}", {"X-Socket-ID": socket_id}
            async with http.post(url, data={"item": item}, headers=headers) as response:
                await response.read()
                return response.status

        assert await order("lamp", ann.socket_id) == 201
        assert await order("desk", "undefined") == 201
        assert await order("unicorn", path="roll_back") == 200
        assert await order("chair", path="commit_later") == 201
        assert await order("") == await order(101 * "x") == 400
        await until(lambda: len(ann.heard.calls) == 3, DEADLINE)
        lamp, desk, chair = [
            ("order.created", {"id": number, "item": item}, "private-orders")
            for number, item in enumerate(("lamp", "desk", "chair"), 1)
        ]
        not_committed = ("not.committed", None, "private-orders")
        assert ann.heard.calls == [desk, not_committed, chair]
        await until(lambda: bob.heard.calls == [lamp, desk, not_committed, chair], DEADLINE)
        assert saved() == ["lamp", "desk", "chair"]
        await server.stop()
        assert await order("bed") == 201
        await command.err.expect("order.created is not published: cannot connect")
        assert saved() == ["lamp", "desk", "chair", "bed"]
        command.send_signal(signal.SIGINT)
        await command.exit_code()
        assert "Traceback" not in command.err.text, command.err.text


async def test_publish_django_runs_by_itself(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    for _ in range(2):  # the second one finds the table
        (port,) = free_ports(1)
        async with (
            open_http() as http,
            run("publish_django", target, tmp_path, PORT=str(port), **LENIENT) as command,
        ):
            await wait_for_port(port)
            async with http.post(f"http://127.0.0.1:{port}/orders", data={"item": "lamp"}) as response:
                assert response.status == 201, await response.text()
            await server.wait_for_event("private-orders", "order.created")
            command.send_signal(signal.SIGINT)
            await command.exit_code()
            assert "Traceback" not in command.err.text, command.err.text


@pytest.mark.timeout(120)
async def test_the_publish_celery(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    pytest.importorskip("celery")
    (told,) = [line.split() for line in read("publish_celery").splitlines() if line.strip().startswith("celery ")]
    options = [*told[1:], "--loglevel", "INFO"]
    # Where the tests are root, Celery warns of that, and Python makes that an error.
    quiet = {"PYTHONWARNINGS": "error,ignore:You're running the worker with superuser privileges"}
    async with (
        open_page(target, "private-orders", "order.shipped") as page,
        run("publish_celery", target, tmp_path, *options, module="celery", **quiet) as worker,
    ):

        async def queue(data: str) -> None:
            arguments = ("private-orders", "order.shipped", data)
            async with run("publish_celery", target, tmp_path, *arguments) as command:
                assert await command.exit_code() == 0, command.err.text

        await worker.err.expect(r"celery@\S+ ready")
        await queue('{"id": 1}')
        await wait_for(page, [{"id": 1}])
        await server.stop()
        await queue('{"id": 2}')
        await worker.err.expect("retry: Retry in .*cannot connect")
        await server.start()
        # The worker tries again after a random time, which may be before the page is back.
        await until(lambda: any(each.data == {"id": 2} for each in server.events), DEADLINE)
        await queue('"' + 20_000 * "x" + '"')
        await worker.err.expect("raised unexpected: ProtocolError")
        worker.send_signal(signal.SIGTERM)
        assert await worker.exit_code() == 0


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_listen_in_thread(
    server: ReverbServer, target: Target, tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        open_page(target, "private-labels", "client-printed") as page,
        run("listen_in_thread", target, tmp_path) as command,
    ):
        await command.err.expect("waiting for labels")
        for id_ in (1, "not a number", 2):
            await target.publish("private-labels", "print", {"id": id_, "text": f"label\n{id_}"})
        await wait_for(page, [{"id": 1}, {"id": 2}])
        assert command.out.text == "label 1: 'label\\n1'\nlabel 2: 'label\\n2'\n"
        await server.restart()
        await until(lambda: len(server.subscriptions.get("private-labels", ())) == 2, DEADLINE)
        await target.publish("private-labels", "print", {"id": 3, "text": "again"})
        await command.out.expect("^label 3: 'again'$")
        command.send_signal(number)
        assert await command.exit_code() == 0
        assert "Traceback" not in command.err.text, command.err.text


async def test_listen_in_thread_ends_while_it_works(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    """Events wait, the main thread is at one of them, and none is half done."""
    async with run("listen_in_thread", target, tmp_path) as command:
        await command.err.expect("waiting for labels")
        for id_ in range(300):
            await target.publish("private-labels", "print", {"id": id_, "text": "x"})
        await command.out.expect("^label 2:")
        await end(command, signal.SIGINT)
        await until(lambda: not server.connections)


async def test_listen_in_thread_says_why_it_ends(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    async with run("listen_in_thread", target, tmp_path, REVERB_RECONNECT_ENABLED="false") as command:
        await command.err.expect("waiting for labels")
        server.drop()
        assert await command.exit_code() == 1
        assert command.err.text.splitlines()[-1].startswith("lost the connection to")
        assert "Traceback" not in command.err.text, command.err.text
    await server.stop()
    async with run("listen_in_thread", target, tmp_path) as command:
        assert await command.exit_code() == 1
        assert command.err.text.splitlines()[-1].startswith("cannot connect to")
        assert "Traceback" not in command.err.text, command.err.text
