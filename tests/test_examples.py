"""The programs in ``examples/``: each runs as its users run it, against the embedded server."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import signal
import sqlite3
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from reverb import AuthenticationError, EndpointAuthorizer, PresenceChannel, ReverbClient
from reverb.auth import sign_user
from reverb.crypto import derive_shared_secret, seal
from reverb.server import ReverbServer
from tests.cli.processes import Command
from tests.cli.processes import reverb as run_module
from tests.integration.servers import Target, free_ports
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


def run(name: str, target: Target, cwd: Path, *arguments: str, **env: str) -> AbstractAsyncContextManager[Command]:
    """Run a copy of an example, in a directory where it finds neither a ``.env`` nor another's files."""
    shutil.copy(EXAMPLES / f"{name}.py", cwd)
    settings = {f"REVERB_{setting.upper()}": str(value) for setting, value in target.settings.items()}
    delays = {"REVERB_RECONNECT_DELAY_MIN": "0.01", "REVERB_RECONNECT_DELAY_MAX": "0.1"}
    return run_module(*arguments, module=name, env={**settings, **delays, **env}, cwd=cwd)


async def end(command: Command, number: signal.Signals) -> None:
    """End a program and assert that it goes without complaint."""
    command.send_signal(number)
    assert await command.exit_code() == 0
    assert "Traceback" not in command.err.text, command.err.text
    assert "ERROR" not in command.err.text


def test_every_example_is_run_here() -> None:
    tested = {name.removeprefix("test_the_") for name in globals() if name.startswith("test_the_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_iot_device(target: Target, tmp_path: Path, number: signal.Signals) -> None:
    touch = shlex.join([sys.executable, "-c", "import sys; open(sys.argv[1], 'x').close()"])
    commands = {"CAPTURE_COMMAND": touch, "REBOOT_COMMAND": f"{touch} rebooted"}
    answers, name = Recorder(), "private-device.rpi-007"
    async with ReverbClient(**target.settings) as client:
        (await client.subscribe(name)).bind("client-done", answers).bind("client-failed", answers)
        async with run("iot_device", target, tmp_path, DEVICE_ID="rpi-007", **commands) as command:
            await command.out.expect("rpi-007 takes commands")
            sent: list[dict[str, Any]] = [
                {"action": "status", "request_id": 1},
                {"action": "capture", "request_id": 2},
                {"action": "reboot", "request_id": 3},
                {"action": "dance", "request_id": 4},
                {"request_id": 5},
            ]
            for data in sent:
                await target.publish(name, "command", data)
            await until(lambda: len(answers.calls) == len(sent), 15)
            await end(command, number)
    assert answers.events == ["client-done"] * 3 + ["client-failed"] * 2
    assert [data["request_id"] for _, data, _ in answers.calls] == [1, 2, 3, 4, 5]
    status, capture, _, unknown, _ = (data for _, data, _ in answers.calls)
    assert status["load"] >= 0
    assert (tmp_path / capture["picture"]).exists()
    assert (tmp_path / "rebooted").exists()
    assert "dance" in unknown["error"]


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_data_sync(server: ReverbServer, target: Target, tmp_path: Path, number: signal.Signals) -> None:
    quantities = {1: 10, 2: 20}

    async def list_items(request: web.Request) -> web.Response:
        return web.json_response([{"id": id_, "quantity": quantity} for id_, quantity in quantities.items()])

    def copy() -> dict[int, int]:
        with closing(sqlite3.connect(tmp_path / "copy.db")) as database:
            return dict(database.execute("SELECT id, quantity FROM item"))

    shop = web.Application()
    shop.router.add_get("/inventory", list_items)
    runner = web.AppRunner(shop)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/inventory"
    try:
        async with run("data_sync", target, tmp_path, DATABASE="copy.db", INVENTORY_URL=url) as command:
            loaded = await command.out.expect("item 2: 20 in stock")
            assert copy() == {1: 10, 2: 20}
            await target.publish("private-sync.inventory", "item.updated", {"id": 2, "quantity": 19})
            await command.out.expect("item 2: 19 in stock", loaded)
            assert copy() == {1: 10, 2: 19}
            # What changes while there is no server is not missed.
            await server.stop()
            quantities.update({2: 18, 3: 30})
            await server.start()
            await command.out.expect("item 3: 30 in stock", loaded)
            assert copy() == {1: 10, 2: 18, 3: 30}
            await end(command, number)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_moderation_bot(target: Target, tmp_path: Path, number: signal.Signals) -> None:
    flagged, name = Recorder(), "presence-chat.lobby"
    async with run("moderation_bot", target, tmp_path, "lobby") as command:
        await command.out.expect(r"watching presence-chat\.lobby; here now: bot-moderator$")
        async with ReverbClient(**target.settings) as client:
            room = await client.subscribe(name, {"user_id": 42, "user_info": {"name": "Ann"}})
            room.bind("client-flagged", flagged)
            await command.out.expect("^Ann joined$")
            for data in (
                {"message_id": 1, "text": "Good morning"},
                {},
                ["no", "object"],
                {"message_id": 4, "text": ["free", "money"]},
                {"message_id": 5, "text": "FREE MONEY for all", "user_id": "somebody else"},
            ):
                await room.trigger("message", data)
            assert await flagged.wait_for(1) == [("client-flagged", {"message_id": 5, "user_id": "42"}, name)]
            await command.out.expect("^spam from 42: 'FREE MONEY for all'$")
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
        ):
            async with http.post(url, data=body) as response:
                assert response.status == status, await response.text()
        seen = [data for _, data, _ in await received.wait_for(3)]
        assert seen == [{"ref": "main"}, "a single value", [1, 2]]
        if curl := shutil.which("curl"):
            arguments = ("--silent", "--write-out", "%{http_code}", "--data", '{"from": "curl"}', url)
            process = await asyncio.create_subprocess_exec(curl, *arguments, stdout=asyncio.subprocess.PIPE)
            output, _ = await asyncio.wait_for(process.communicate(), 15)
            assert output == b"204"
            assert (await received.wait_for(4))[3][1] == {"from": "curl"}
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
        sealed = seal('"text"', derive_shared_secret("private-encrypted-x", 32 * b"m"))
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
    await check_backend("auth_fastapi", server, target, tmp_path)


async def test_the_auth_flask(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    await check_backend("auth_flask", server, target, tmp_path)


async def test_the_auth_django(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    await check_backend("auth_django", server, target, tmp_path)


async def test_the_fastapi_lifespan(server: ReverbServer, target: Target, tmp_path: Path) -> None:
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
        status, health = await get("/health")
        assert (status, health["state"]) == (200, "connected")
        assert health["stats"]["received"] == 3
        assert health["stats"]["dropped"] == 0
        async with http.get(f"{url}/metrics") as response:
            assert 'reverb_received_messages_total{client="orders"} 3.0' in await response.text()
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
