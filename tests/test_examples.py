"""The programs in ``examples/``: each runs as its users run it, against the embedded server."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import sys
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, closing, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal, NamedTuple

import aiohttp
import msgspec
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reverb import AuthenticationError, Channel, EndpointAuthorizer, PresenceChannel, ReverbClient
from reverb.auth import sign_user
from reverb.crypto import derive_shared_secret, encrypt
from reverb.server import ReverbServer
from tests.cli.processes import Command
from tests.cli.processes import reverb as run_module
from tests.integration.servers import Target, free_ports
from tests.laravel import Laravel
from tests.test_dispatch import Recorder
from tests.watching import until

EXAMPLES = Path(__file__).parents[1] / "examples"
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
async def server() -> AsyncIterator[ReverbServer]:
    async with ReverbServer() as server:
        yield server


@pytest.fixture
def target(server: ReverbServer) -> Target:
    return Target("embedded", server.host, server.port)


def run(
    name: str, target: Target, cwd: Path, *arguments: str, module: str | None = None, **env: str
) -> AbstractAsyncContextManager[Command]:
    """Run a copy of an example, in a directory where it finds neither a ``.env`` nor another's files.

    ``module`` is run in its place where another program loads it.
    """
    shutil.copy(EXAMPLES / f"{name}.py", cwd)
    settings = {f"REVERB_{setting.upper()}": str(value) for setting, value in target.settings.items()}
    delays = {"REVERB_RECONNECT_DELAY_MIN": "0.01", "REVERB_RECONNECT_DELAY_MAX": "0.1"}
    unmeasured = {"COVERAGE_PROCESS_CONFIG": ""}  # coverage at its end would report sockets that are still open
    return run_module(*arguments, module=module or name, env={**settings, **delays, **unmeasured, **env}, cwd=cwd)


async def end(command: Command, number: signal.Signals) -> None:
    """End a program and assert that it goes without complaint."""
    command.send_signal(number)
    assert await command.exit_code() == 0
    assert "Traceback" not in command.err.text, command.err.text
    assert "ERROR" not in command.err.text


def test_every_example_is_run_here() -> None:
    modules = (importlib.import_module(name) for name in (__name__, "tests.test_examples_synchronous"))
    names = {name for module in modules for name in vars(module)}
    tested = {name.removeprefix("test_the_") for name in names if name.startswith("test_the_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


TOUCH = shlex.join([sys.executable, "-c", "import sys; open(sys.argv[1], 'x').close()"])
SLEEP = "sh -c 'echo $$ > pid; exec sleep 60'"


class Device(NamedTuple):
    """``iot_device.py`` as rpi-007, which has a token and no secret; and who commands it."""

    target: Target
    laravel: Laravel
    directory: Path
    channel: Channel
    answers: Recorder
    """``client-done`` and ``client-failed``."""
    statuses: Recorder

    def run(self, **env: str) -> AbstractAsyncContextManager[Command]:
        defaults = {
            "DEVICE_ID": "rpi-007",
            "REVERB_AUTH_ENDPOINT": self.laravel.url,
            "REVERB_AUTH_TOKEN": self.laravel.token,
            "REVERB_APP_SECRET": "",
            "CAPTURE_COMMAND": TOUCH,
            "REBOOT_COMMAND": f"{TOUCH} rebooted",
        }
        return run("iot_device", self.target, self.directory, **{**defaults, **env})

    async def command(self, data: Any) -> tuple[str, dict[str, Any]]:
        """Send a command, and return the answer."""
        seen = len(self.answers.calls)
        await self.target.publish(self.channel.name, "command", data)
        await until(lambda: len(self.answers.calls) > seen, 15)
        event, answer, _ = self.answers.calls[seen]
        return event, answer

    def has_told(self, count: int) -> bool:
        return len(self.statuses.calls) == count

    @property
    def pid(self) -> int:
        """Of the command that sleeps."""
        return int((self.directory / "pid").read_text())

    def has_begun(self) -> bool:
        file = self.directory / "pid"
        return file.exists() and file.read_text().endswith("\n")


@pytest.fixture
async def device(target: Target, tmp_path: Path) -> AsyncIterator[Device]:
    answers, statuses = Recorder(), Recorder()
    settings = {**target.settings, "reconnect_delay_min": 0.01, "reconnect_delay_max": 0.02}
    async with Laravel() as laravel, ReverbClient(**settings) as client:
        channel = await client.subscribe("private-device.rpi-007")
        channel.bind("client-done", answers).bind("client-failed", answers).bind("client-status", statuses)
        yield Device(target, laravel, tmp_path, channel, answers, statuses)


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_iot_device(device: Device, number: signal.Signals) -> None:
    async with device.run() as command:
        await command.out.expect("^rpi-007 takes commands$")
        await until(lambda: device.statuses.calls, 15)
        (_, status, _) = device.statuses.calls[0]
        assert status.keys() == {"up_for", "load", "disk_free", "reconnects"}
        event, answer = await device.command({"action": "status", "request_id": 1})
        assert event == "client-done"
        assert answer.keys() == {"request_id", "action", *status}
        event, answer = await device.command({"action": "capture", "request_id": "9b1c"})
        assert event == "client-done"
        assert (device.directory / answer["picture"]).exists()
        reboot = {"action": "reboot", "request_id": 3}
        done = ("client-done", reboot)
        assert await device.command(reboot) == done
        assert (device.directory / "rebooted").exists()
        assert await device.command(reboot) == done  # "rebooted" can't be made twice
        event, answer = await device.command({"action": "dance", "request_id": 4})
        assert (event, answer["error"]) == ("client-failed", "unknown action 'dance'")
        command.send_signal(number)
        assert await command.exit_code() == 0
        assert "Traceback" not in command.err.text, command.err.text
    assert set(device.laravel.channels) == {"private-device.rpi-007"}


async def test_iot_device_survives_what_is_no_command(device: Device) -> None:
    async with device.run() as command:
        await command.out.expect("^rpi-007 takes commands$")
        no_commands: list[Any] = [
            [],  # PHP's {}
            None,
            "reboot",
            {"action": "reboot"},
            {"action": "reboot", "request_id": None},
            {"action": "reboot", "request_id": [1]},
            {"action": ["reboot"], "request_id": 1},
            {"action": "reboot", "request_id": 10**30},
        ]
        for data in no_commands:
            await device.target.publish(device.channel.name, "command", data)
        await device.command({"action": "status", "request_id": 1})
        assert len(device.answers.calls) == 1
        assert not (device.directory / "rebooted").exists()
        assert "AttributeError" not in command.err.text
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_iot_device_tells_its_status_after_each_reconnect(device: Device, server: ReverbServer) -> None:
    delays = {"REVERB_RECONNECT_DELAY_MIN": "0.5", "REVERB_RECONNECT_DELAY_MAX": "0.6"}  # longer than ours
    async with device.run(**delays) as command:
        await until(lambda: device.statuses.calls, 15)
        for count in (2, 3):
            await server.stop()
            await server.start()
            await until(partial(device.has_told, count), 15)
        assert [data["reconnects"] for _, data, _ in device.statuses.calls] == [0, 1, 2]
        await end(command, signal.SIGTERM)


async def test_iot_device_carries_a_command_out_once_whenever_it_is_killed(device: Device) -> None:
    capture = {"action": "capture", "request_id": 1}
    async with device.run(CAPTURE_COMMAND=SLEEP) as command:
        await command.out.expect("^rpi-007 takes commands$")
        await device.target.publish(device.channel.name, "command", capture)
        await until(device.has_begun, 15)
        command.send_signal(signal.SIGKILL)
        os.kill(device.pid, signal.SIGKILL)
        await command.exit_code()
    async with device.run() as command:
        await command.out.expect("^rpi-007 takes commands$")
        answer = {**capture, "error": "the device was stopped meanwhile"}
        assert await device.command(capture) == ("client-failed", answer)
        assert (await device.command({**capture, "request_id": 2}))[0] == "client-done"
        await end(command, signal.SIGTERM)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", SIGNALS)
async def test_iot_device_ends_what_it_has_started(device: Device, number: signal.Signals) -> None:
    async with device.run(CAPTURE_COMMAND=SLEEP, REVERB_DRAIN_TIMEOUT="0.2") as command:
        await command.out.expect("^rpi-007 takes commands$")
        await device.target.publish(device.channel.name, "command", {"action": "capture", "request_id": 1})
        await until(device.has_begun, 15)
        command.send_signal(number)
        assert await command.exit_code() == 0
        assert is_gone(device.pid)


async def test_iot_device_does_not_wait_for_ever(device: Device) -> None:
    async with device.run(CAPTURE_COMMAND=SLEEP, COMMAND_TIMEOUT="2") as command:
        await command.out.expect("^rpi-007 takes commands$")
        event, answer = await device.command({"action": "capture", "request_id": 1})
        assert event == "client-failed"
        assert answer["error"].endswith("took longer than 2 seconds")
        assert is_gone(device.pid)
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0


@pytest.mark.parametrize("missing", ["network", "application"])
async def test_iot_device_ends_in_one_line_when_it_can_not_begin(
    device: Device, server: ReverbServer, missing: str
) -> None:
    await (server.stop() if missing == "network" else device.laravel.stop())
    async with device.run(REVERB_SUBSCRIBE_TIMEOUT="0.5") as command:
        assert await command.exit_code() != 0
        assert "Traceback" not in command.err.text, command.err.text
        assert "ERROR:reverb.client:" in command.err.text
    if missing == "application":
        await device.laravel.start()


async def test_iot_device_takes_no_name_by_itself(device: Device) -> None:
    async with device.run(DEVICE_ID="") as command:
        assert await command.exit_code() == 2
        assert command.err.text == "DEVICE_ID is missing: the end of the name of this device's channel\n"


async def test_iot_device_sends_the_answer_of_a_command_that_it_finished_at_the_end(
    device: Device, server: ReverbServer
) -> None:
    capture = {"action": "capture", "request_id": 1}
    slow = "sh -c 'echo $$ > pid; while [ -e pid ]; do sleep 0.05; done'"
    async with device.run(CAPTURE_COMMAND=slow) as command:
        await command.out.expect("^rpi-007 takes commands$")
        await device.target.publish(device.channel.name, "command", capture)
        await until(device.has_begun, 15)
        command.send_signal(signal.SIGTERM)
        await server.wait_for_connections(1)  # the device has closed its own
        (device.directory / "pid").unlink()
        await command.err.expect("WARNING:iot_device:done is not sent: ")
        assert await command.exit_code() == 0
        assert device.answers.calls == []
    async with device.run() as command:
        await command.out.expect("^rpi-007 takes commands$")
        event, answer = await device.command(capture)
        assert (event, answer["picture"]) == ("client-done", "capture-00000001.jpg")
        await end(command, signal.SIGTERM)


def test_iot_device_remembers_the_last_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    iot_device = importlib.import_module("iot_device")
    with closing(sqlite3.connect(":memory:")) as database:
        journal = iot_device.Journal(database)
        for request_id in range(iot_device.KEPT_COMMANDS + 5):
            number = journal.begin(request_id)
            assert journal.begin(request_id) is None
            journal.end(number, "done", {"id": request_id})
        assert database.execute("SELECT COUNT(*) FROM command").fetchone() == (iot_device.KEPT_COMMANDS,)
        assert journal.answer(request_id) == ["done", {"id": request_id}]
        assert journal.begin(str(request_id)) is not None  # another one


class Shop:
    """The application whose inventory is copied. Each change has a number, in the order of the commits."""

    def __init__(self) -> None:
        self.version = 0
        self.items: dict[int, dict[str, int]] = {}
        self.answers: deque[web.Response | Literal["drop"]] = deque()
        """What the next requests get in place of the inventory; ``"drop"`` ends the connection."""
        self.asked: list[str | None] = []
        """The header ``Authorization`` of each request."""
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def set(self, id_: int, quantity: int) -> dict[str, int]:
        """Change an item; return what is broadcast."""
        self.version += 1
        self.items[id_] = {"id": id_, "quantity": quantity, "version": self.version}
        return self.items[id_]

    def delete(self, id_: int) -> dict[str, int]:
        self.version += 1
        del self.items[id_]
        return {"id": id_, "version": self.version}

    @property
    def snapshot(self) -> dict[str, Any]:
        return {"version": self.version, "items": list(self.items.values())}

    @property
    def quantities(self) -> dict[int, int]:
        return {id_: item["quantity"] for id_, item in self.items.items()}

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.headers.get("Authorization"))
        answer = self.answers.popleft() if self.answers else web.json_response(self.snapshot)
        await self.may_answer.wait()
        if answer == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answer


class Sync(NamedTuple):
    """``data_sync.py``, which follows a shop."""

    shop: Shop
    target: Target
    directory: Path
    url: str

    def run(self) -> AbstractAsyncContextManager[Command]:
        env = {"INVENTORY_URL": self.url, "INVENTORY_TOKEN": "token", "SYNC_DELAY_MAX": "0.1"}
        return run("data_sync", self.target, self.directory, DATABASE="copy.db", **env)

    async def publish(self, event: str, data: Any) -> None:
        await self.target.publish("private-sync.inventory", event, data)

    def copy(self) -> dict[int, int]:
        with closing(sqlite3.connect(self.directory / "copy.db")) as database:
            return dict(database.execute("SELECT id, quantity FROM inventory"))


@pytest.fixture
async def sync(target: Target, tmp_path: Path) -> AsyncIterator[Sync]:
    shop, application = Shop(), web.Application()
    application.router.add_get("/inventory", shop.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Sync(shop, target, tmp_path, f"http://127.0.0.1:{runner.addresses[0][1]}/inventory")
    shop.may_answer.set()
    await runner.cleanup()


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_data_sync(server: ReverbServer, sync: Sync, number: signal.Signals) -> None:
    shop = sync.shop
    for id_ in (1, 2, 3):
        shop.set(id_, 10 * id_)
    async with sync.run() as command:
        loaded = await command.out.expect("^copy.db has all 3 items of version 3$")
        assert sync.copy() == {1: 10, 2: 20, 3: 30}
        assert shop.asked == ["Bearer token"]
        await sync.publish("item.updated", shop.set(2, 19))
        await command.out.expect("^item 2: 19 in stock$", loaded)
        await sync.publish("item.deleted", shop.delete(1))
        await command.out.expect("^item 1: deleted$", loaded)
        assert sync.copy() == {2: 19, 3: 30}
        # What changes while there is no server is not missed.
        await server.stop()
        shop.set(4, 40)
        shop.delete(3)
        await server.start()
        await command.out.expect("^copy.db has all 2 items of version 7$", loaded)
        assert sync.copy() == {2: 19, 4: 40}
        await end(command, number)


async def test_data_sync_tries_again(server: ReverbServer, sync: Sync) -> None:
    shop = sync.shop
    for id_ in (1, 2):
        shop.set(id_, 10 * id_)
    too_much = {"version": 9, "items": [{"id": 1, "quantity": 10**30, "version": 9}]}
    failures: list[web.Response | Literal["drop"]] = [
        *(web.Response(status=status, text="{}") for status in (401, 403, 404, 429, 500, 503)),
        "drop",
        *(
            web.Response(text=text)
            for text in (
                "<!DOCTYPE html><title>Log in</title>",
                "",
                "null",
                "[]",  # PHP's empty object
                '{"version": 9, "items": {}}',  # an array of PHP with a gap in it
                '{"version": 9, "items": [{"id": 1, "quantity": "3", "version": 9}]}',
                '{"version": 9, "items": [{"id": 1, "quan',
                json.dumps(too_much),
                '{"version": 1, "items": []}',  # by a cache
            )
        ),
    ]
    async with sync.run() as command:
        await command.out.expect("^copy.db has all 2 items of version 2$")
        await server.stop()
        shop.delete(1)
        shop.answers.extend(failures)
        await server.start()
        await command.out.expect("^copy.db has all 1 items of version 3$")
        assert sync.copy() == {2: 20}
        warnings = re.findall(r"^WARNING:data_sync:the inventory can't be fetched: (.*)$", command.err.text, re.M)
        assert len(warnings) in (len(failures), len(failures) - 1)  # aiohttp hides one that drops
        assert all(re.search(r"Error: .+; again in 0\.[01] seconds$", each) for each in warnings), warnings
        assert "oken" not in "".join(warnings)
        await end(command, signal.SIGTERM)


async def test_data_sync_stores_what_comes_while_it_fetches(sync: Sync) -> None:
    shop = sync.shop
    for id_ in (1, 2, 3):
        shop.set(id_, 10 * id_)
    first = dict(shop.items[1])
    shop.may_answer.clear()
    async with sync.run() as command:
        await until(lambda: shop.asked, 15)  # the answer is made, and on its way
        await sync.publish("item.updated", shop.set(1, 11))
        await sync.publish("item.updated", first)  # comes late
        await sync.publish("item.deleted", shop.delete(2))
        await sync.publish("item.updated", shop.set(4, 40))
        await command.out.expect("^item 4: 40 in stock$")
        shop.may_answer.set()
        await command.out.expect("^copy.db has all 3 items of version 3$")
        assert sync.copy() == {1: 11, 3: 30, 4: 40}
        assert "item 1: 10 in stock" not in command.out.text.partition("item 1: 11 in stock")[2]
        await end(command, signal.SIGTERM)


async def test_data_sync_fetches_what_an_event_should_have_said(sync: Sync) -> None:
    too_much = {"id": 1, "quantity": 10**30, "version": 9}
    bad: list[Any] = [[], "text", {"id": "1", "quantity": 3, "version": 9}, too_much]
    sync.shop.set(1, 10)
    async with sync.run() as command:
        await command.out.expect("^copy.db has all 1 items of version 1$")
        for data in bad:
            sync.shop.set(1, 9)
            await sync.publish("item.updated", data)
            await command.out.expect(f"^copy.db has all 1 items of version {sync.shop.version}$")
        assert sync.copy() == {1: 9}
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_data_sync_fetches_when_a_number_is_missing(sync: Sync) -> None:
    sync.shop.set(1, 10)
    async with sync.run() as command:
        loaded = await command.out.expect("^copy.db has all 1 items of version 1$")
        await sync.publish("item.updated", sync.shop.set(1, 9))
        await command.out.expect("^item 1: 9 in stock$", loaded)
        sync.shop.set(2, 20)  # the application can't publish this
        await sync.publish("item.updated", sync.shop.set(1, 8))
        await command.out.expect("^copy.db has all 2 items of version 4$", loaded)
        assert sync.copy() == {1: 8, 2: 20}
        assert len(sync.shop.asked) == 2
        await end(command, signal.SIGTERM)


async def test_data_sync_may_be_killed(sync: Sync) -> None:
    for id_ in (1, 2, 3):
        sync.shop.set(id_, 10 * id_)
    async with sync.run() as command:
        await command.out.expect("^copy.db has all 3 items of version 3$")
        await sync.publish("item.updated", sync.shop.set(3, 29))
        command.send_signal(signal.SIGKILL)
        await command.exit_code()
    sync.shop.delete(1)
    sync.shop.may_answer.clear()
    async with sync.run() as command:
        await until(lambda: len(sync.shop.asked) == 2, 15)
        command.send_signal(signal.SIGKILL)
        await command.exit_code()
    assert sync.copy().keys() == {1, 2, 3}
    sync.shop.may_answer.set()
    async with sync.run() as command:
        await command.out.expect("^copy.db has all 2 items of version 5$")
        assert sync.copy() == {2: 20, 3: 29}
        await end(command, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
async def test_data_sync_ends_while_it_waits_for_the_application(sync: Sync, number: signal.Signals) -> None:
    sync.shop.may_answer.clear()
    async with sync.run() as command:
        await until(lambda: sync.shop.asked, 15)
        await end(command, number)


async def test_data_sync_says_what_is_missing(target: Target, tmp_path: Path) -> None:
    async with run("data_sync", target, tmp_path) as command:
        assert await command.exit_code() == 2
        assert command.err.text == "INVENTORY_URL is missing: where all items come from\n"


@pytest.fixture
def data_sync(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("data_sync")


async def test_data_sync_does_not_wait_for_the_disk_in_the_event_loop(data_sync: Any, tmp_path: Path) -> None:
    with (
        closing(sqlite3.connect(tmp_path / "copy.db", check_same_thread=False)) as database,
        closing(sqlite3.connect(tmp_path / "copy.db")) as other,
        ThreadPoolExecutor(max_workers=1) as thread,
    ):
        database.executescript(data_sync.SCHEMA)
        copy = data_sync.Copy(database, thread)
        other.execute("BEGIN IMMEDIATE")
        writes = [
            asyncio.ensure_future(copy.apply(data_sync.Item(1, 10, 1))),
            asyncio.ensure_future(copy.replace(data_sync.Snapshot(2, []))),
        ]
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(each.done() for each in writes)
        other.rollback()
        assert await asyncio.gather(*writes) == [True, None]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_data_sync_is_right_whatever_comes_in_which_order(data_sync: Any, data: st.DataObject) -> None:
    shop, events, snapshots = Shop(), [], []
    for id_, is_deletion in data.draw(st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1)):
        if not is_deletion:
            events.append(data_sync.Item(**shop.set(id_, shop.version)))
        elif id_ in shop.items:
            events.append(data_sync.Deletion(**shop.delete(id_)))
        snapshots.append(shop.snapshot)
    taken = data.draw(st.lists(st.sampled_from(snapshots)))
    again = data.draw(st.lists(st.sampled_from(events))) if events else []
    # What was broadcast in a gap is missing, and the snapshot behind the gap has it.
    latest = max((each["version"] for each in taken), default=0)
    missing = data.draw(st.sets(st.integers(1, latest))) if latest else set()
    told = [each for each in events if each.version not in missing]
    with (
        closing(sqlite3.connect(":memory:", check_same_thread=False)) as database,
        ThreadPoolExecutor(1) as thread,
    ):
        database.executescript(data_sync.SCHEMA)
        copy = data_sync.Copy(database, thread)

        async def take(each: Any) -> None:
            if not isinstance(each, dict):
                await copy.apply(each)
                return
            with suppress(ValueError):  # it is older than what is there
                await copy.replace(msgspec.convert(each, data_sync.Snapshot))

        async def take_all() -> None:
            for each in data.draw(st.permutations([*told, *again, *taken])):
                await take(each)

        asyncio.run(take_all())
        assert dict(database.execute("SELECT id, quantity FROM inventory")) == shop.quantities


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_moderation_bot(target: Target, tmp_path: Path, number: signal.Signals) -> None:
    flagged, name, ann = Recorder(), "presence-chat.lobby", 60 * "4"
    async with run("moderation_bot", target, tmp_path, "lobby") as command:
        await command.out.expect(r"watching presence-chat\.lobby; here now: 'bot-moderator'$")
        async with ReverbClient(**target.settings) as client:
            room = await client.subscribe(name, {"user_id": ann, "user_info": {"name": "Ann\x1b[31m\n"}})
            room.bind("client-flagged", flagged)
            await command.out.expect(r"^'Ann\\x1b\[31m\\n' joined$")
            for data in (
                {"message_id": 1, "text": "Good morning"},
                {},
                ["no", "object"],
                {"message_id": 4, "text": ["free", "money"]},
                {"message_id": 9_870 * "x", "text": "free money"},  # too large when the user's id comes along
                {"message_id": 5, "text": "FREE MONEY for all", "user_id": "somebody else"},
            ):
                await room.trigger("message", data)
            assert await flagged.wait_for(1) == [("client-flagged", {"message_id": 5, "user_id": ann}, name)]
            await command.out.expect(f"^spam from '{ann}': 'FREE MONEY for all'$")
            assert "it is not flagged: 'flagged' on 'presence-chat.lobby' is too large" in command.err.text
            await end(command, number)


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_webhook_relay(
    server: ReverbServer, target: Target, tmp_path: Path, number: signal.Signals
) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/webhooks/github"
    received = Recorder()
    async with (
        run("webhook_relay", target, tmp_path, PORT=str(port), PYTHONUNBUFFERED="1") as command,
        ReverbClient(**target.settings) as client,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as http,
    ):
        (await client.subscribe("private-webhooks.github")).bind("received", received)
        await command.out.expect("Running on")
        for body, status in (
            (b'{"ref": "main"}', 204),
            (b"no JSON", 400),
            (b'{"large": "' + 10_000 * b"x" + b'"}', 413),
            (b'"a single value"', 204),
            (b"[1, 2]", 204),
            (b'"half an emoji: \\ud83d"', 204),
            (b"1e999", 204),
            (b"\xff", 400),
            (b"", 400),
            (10_000 * b"[", 400),
        ):
            async with http.post(url, data=body) as response:
                assert response.status == status, await response.text()
        seen = [data for _, data, _ in await received.wait_for(5)]
        assert seen == [{"ref": "main"}, "a single value", [1, 2], "half an emoji: \ufffd", float("inf")]
        headers = {"Content-Type": "application/json; charset=nonsense"}
        for path, status in (("github", 204), ("gïthub", 404), (101 * "g", 404)):
            async with http.post(url.replace("github", path), data=b"{}", headers=headers) as response:
                assert response.status == status, await response.text()
        if curl := shutil.which("curl"):
            arguments = ("--silent", "--write-out", "%{http_code}", "--data", '{"from": "curl"}', url)
            process = await asyncio.create_subprocess_exec(curl, *arguments, stdout=asyncio.subprocess.PIPE)
            output, _ = await asyncio.wait_for(process.communicate(), 15)
            assert output == b"204"
            assert (await received.wait_for(7))[6][1] == {"from": "curl"}
        await server.stop()
        async with http.post(url, data=b"{}") as response:
            assert response.status == 502
        await command.err.expect("a webhook of github is not published: cannot connect")
        command.send_signal(number)
        assert await command.exit_code() == 0
        assert "Traceback" not in command.err.text, command.err.text


async def check_backend(name: str, server: ReverbServer, target: Target, tmp_path: Path) -> None:
    """A backend lets our own client, which has no secret, into what its user may listen to, and nothing else."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/broadcasting/auth"
    env = {"PORT": str(port), "REVERB_ENCRYPTION_MASTER_KEY": b64encode(32 * b"m").decode()}
    received = Recorder()
    settings = {key: value for key, value in target.settings.items() if key != "app_secret"}
    async with (
        run(name, target, tmp_path, ANN_TOKEN="token-of-ann", **env) as command,
        ReverbClient(**settings, authorizer=EndpointAuthorizer(url, token="token-of-ann")) as client,
        aiohttp.ClientSession(headers={"Authorization": "Bearer token-of-ann"}) as http,
    ):
        await wait_for_port(port)
        (await client.subscribe("private-user.1")).bind("hello", received)
        await target.publish("private-user.1", "hello", {})
        await received.wait_for(1)
        room = await client.subscribe("presence-room.1")
        assert isinstance(room, PresenceChannel)
        assert room.me == {"user_id": "1", "user_info": {"name": "Ann"}}
        (await client.subscribe("private-encrypted-x")).bind("secret", received)
        sealed = encrypt('"text"', derive_shared_secret("private-encrypted-x", 32 * b"m"))
        await target.publish("private-encrypted-x", "secret", sealed)
        assert (await received.wait_for(2))[1] == ("secret", "text", "private-encrypted-x")
        with pytest.raises(AuthenticationError, match="status 403"):
            await client.subscribe("private-user.2")
        with pytest.raises(AuthenticationError, match="status 401"):
            await EndpointAuthorizer(url, token="token-of-eve")("1.2", "private-user.1")
        user = await EndpointAuthorizer(url, token="token-of-ann").authenticate_user("1.2")
        assert json.loads(user.user_data) == {"id": "1", "user_info": {"name": "Ann"}}
        assert user.auth == sign_user(target.key, target.secret, "1.2", user.user_data)
        for socket_id in ("", "1.2:private-user.2", "1.2\n", "\u0661.\u0662", "POST\n/apps/42/events\nz="):
            for path in (url, url.replace("auth", "user-auth")):
                form = {"socket_id": socket_id, "channel_name": "private-user.1"}
                async with http.post(path, data=form) as response:
                    assert response.status in (400, 422), await response.text()
        command.send_signal(signal.SIGINT)
        await command.exit_code()
        assert "Traceback" not in command.err.text, command.err.text


async def wait_for_port(port: int) -> None:
    async def is_open() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    give_up = monotonic() + 15
    while not await is_open():
        assert monotonic() < give_up, "nothing listens"
        await asyncio.sleep(0.05)


async def test_the_auth_fastapi(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    await check_backend("auth_fastapi", server, target, tmp_path)


async def test_the_auth_flask(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    await check_backend("auth_flask", server, target, tmp_path)


async def test_the_auth_django(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    await check_backend("auth_django", server, target, tmp_path)


async def test_the_fastapi_lifespan(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    async with (
        run("fastapi_lifespan", target, tmp_path, PORT=str(port)) as command,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as http,
    ):

        async def get(path: str) -> tuple[int, Any]:
            async with http.get(url + path) as response:
                return response.status, await response.json()

        await command.err.expect("Application startup complete")
        await wait_for_port(port)
        await target.publish("private-orders", "shipped", {"id": 7})
        shipped = {"event": "shipped", "data": {"id": 7}, "channel": "private-orders"}
        give_up = monotonic() + 15
        while shipped not in (await get("/events"))[1]:
            assert monotonic() < give_up, "the event is not shown"
        await target.publish("private-orders", "shipped", "1e999")
        while (len((await get("/events"))[1]), (await get("/events"))[1][-1]["data"]) != (3, None):
            assert monotonic() < give_up, "the event is not shown"
        status, health = await get("/health")
        assert (status, health["state"]) == (200, "connected")
        assert health["stats"]["received"] == 4
        assert health["stats"]["dropped"] == 0
        async with http.get(f"{url}/metrics") as response:
            assert 'reverb_received_messages_total{client="orders"} 4.0' in await response.text()
        await server.stop()
        while (status := (await get("/health"))[0]) != 503:
            assert (status, monotonic() < give_up) == (200, True), "the loss is not shown"
        await server.start()
        while (await get("/health"))[0] != 200:
            assert monotonic() < give_up, "it does not come back"
        assert (await get("/health"))[1]["stats"]["reconnects"] == 1
        command.send_signal(signal.SIGTERM)
        assert await command.exit_code() in (0, -signal.SIGTERM)  # uvicorn ends, and then by the signal
        assert "Application shutdown complete" in command.err.text
        assert "Traceback" not in command.err.text, command.err.text
        await until(lambda: not server.connections)
