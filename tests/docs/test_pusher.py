"""docs/moving/pusher.md: what it says of ``pusher`` is so, line by line, and so is what it says of ours."""

from __future__ import annotations

import ast
import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pusher
import pytest

import reverb
import reverb.auth
import reverb.webhooks
from reverb import ReverbClient, SyncReverbAPI
from reverb.auth import sign_channel, sign_user
from reverb.server import App, ReverbServer
from reverb.webhooks import ChannelOccupied, Webhook
from tests.docs.pages import Block, Page
from tests.integration.servers import SOKETI_CONFIG, MissingError, Target, free_ports, run_soketi
from tests.missing import missing
from tests.test_dispatch import Recorder
from tests.test_webhooks import headers_for, make_body
from tests.watching import until

PAGE = Page("docs/moving/pusher.md")
CALLS, ERRORS = (
    [[cell.strip("`") for cell in row] for row in PAGE.tables(heading)[0]] for heading in ("Calls", "Errors")
)
PUSHER, OURS = 0, 1
"""The columns of the first table."""
MASTER_KEY = "bWFzdGVyIGtleSBvZiB0aGUgYXBwbGljYXRpb24hISE="


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("Before", "After")
@pytest.mark.filterwarnings("default")  # of the dependencies of pusher
async def test_the_programs(block: Block) -> None:
    if "import pusher" in block.text:
        pytest.importorskip("pusher", reason="only the extra bench has pusher")
    heard = Recorder()
    with embedded() as target:
        async with ReverbClient(**target.settings) as client:
            (await client.subscribe("orders")).bind("order.shipped", heard)
            await asyncio.to_thread(exec, block.text.replace("8080", str(target.port)), {})
            assert await heard.wait_for(1) == [("order.shipped", {"id": 7}, "orders")]


class Stage(NamedTuple):
    """Where the lines are run: a server's application 42, with user 7 in a room. Somebody hears the news."""

    target: Target
    heard: Recorder
    names: dict[str, Any]

    async def run(self, line: str) -> Any:
        """Run a line as synchronous programs do; return what it is worth, if it is an expression."""
        mode = "eval" if isinstance(ast.parse(line).body[0], ast.Expr) else "exec"
        return await asyncio.to_thread(eval, compile(line, str(PAGE.path), mode), self.names)


@contextmanager
def embedded(*, strict: bool = False) -> Iterator[Target]:
    with ReverbServer([App(id="42")], strict=strict) as server:
        yield Target("embedded", server.host, server.port, app_id="42")


@contextmanager
def soketi(directory: Path) -> Iterator[Target]:
    config = directory / "soketi.json"
    config.write_text(SOKETI_CONFIG.read_text().replace('"app-id"', '"42"'))
    try:
        with run_soketi(directory, config=config) as soketi:
            yield replace(soketi.target, app_id="42")
    except MissingError as error:
        missing(error)


@asynccontextmanager
async def staged(target: Target, monkeypatch: pytest.MonkeyPatch, **names: Any) -> AsyncIterator[Stage]:
    heard = Recorder()
    body = make_body({"name": "channel_occupied", "channel": "news"}, time_ms=int(time.time() * 1000))
    headers = headers_for(body, target.secret) | {"X-Pusher-Key": target.key}
    names |= {
        "reverb": reverb,
        "host": target.host,
        "port": target.port,
        "master_key": MASTER_KEY,
        "key": target.key,
        "secret": target.secret,
        "body": body,
        "headers": headers,
        "signature": headers["X-Pusher-Signature"],
    }
    for name, value in target.settings.items():
        monkeypatch.setenv(f"REVERB_{name.upper()}", str(value))
    url = f"http://{target.key}:{target.secret}@{target.host}/apps/{target.app_id}"
    monkeypatch.setenv("PUSHER_URL", url)
    async with ReverbClient() as member, ReverbClient() as listener:
        await member.subscribe("presence-room", {"user_id": "7"})
        for channel in ("news", "sport"):
            (await listener.subscribe(channel)).bind("published", heard)
        yield Stage(target, heard, {**names, "socket_id": member.socket_id, "member": member})


Check = Callable[[Stage, Any], Awaitable[None]]


def publishes(*channels: str) -> Check:
    async def check(stage: Stage, value: Any) -> None:
        events = [("published", {"id": 7}, channel) for channel in channels]
        await stage.heard.wait_for(len(events))
        assert sorted(stage.heard.calls) == sorted(events)
        stage.heard.calls.clear()

    return check


def returns(expected: Any) -> Check:
    async def check(stage: Stage, value: Any) -> None:
        assert value == expected

    return check


async def runs(stage: Stage, value: Any) -> None:
    """That it raises nothing is all that can be seen of it."""


async def ends_connection(stage: Stage, value: Any) -> None:
    await until(lambda: not stage.names["member"].is_connected, 15)


def authorizes(channel: str, user_id: str | None = None) -> Check:
    async def check(stage: Stage, value: Any) -> None:
        target, data = stage.target, value.get("channel_data")
        assert value["auth"] == sign_channel(target.key, target.secret, stage.names["socket_id"], channel, data)
        assert user_id == (None if data is None else json.loads(data)["user_id"])

    return check


async def authenticates(stage: Stage, value: Any) -> None:
    target, data = stage.target, value["user_data"]
    assert value["auth"] == sign_user(target.key, target.secret, stage.names["socket_id"], data)
    assert json.loads(data) == {"id": "7"}


async def believes(stage: Stage, value: Any) -> None:
    if isinstance(value, dict):
        assert [each["channel"] for each in value["events"]] == ["news"]
    else:
        assert value.events == (ChannelOccupied("news"),)


TERMINATE = "client.terminate_user_connections"
CHECKS: dict[str, Check] = {
    "client = pusher.Pusher(": runs,
    "client = pusher.Pusher.from_env(port=port)": runs,
    "pusher.Pusher.from_env(port=port, timeout": runs,
    "pusher.Pusher.from_env(port=port, encryption_master_key_base64": runs,
    'client.trigger("news"': publishes("news"),
    'client.trigger(["news", "sport"]': publishes("news", "sport"),
    "client.trigger_batch": publishes("news"),
    "client.send_to_user": runs,
    "client.channels_info": returns({"presence-room"}),
    "client.channel_info": returns(1),
    '[user["id"]': returns(["7"]),
    TERMINATE: ends_connection,
    'client.authenticate("private-news"': authorizes("private-news"),
    'client.authenticate("presence-room"': authorizes("presence-room", "7"),
    "client.authenticate_user": authenticates,
    "client.validate_webhook": believes,
}
"""What a line does, by the beginning of how ``pusher`` writes it."""
LINES = list(zip(CALLS, CHECKS.items(), strict=True))


async def test_our_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded(strict=True) as target:  # Reverb ends a user's connections, and fails
        async with staged(target, monkeypatch) as stage:
            for row, (theirs, check) in LINES:
                assert row[PUSHER].startswith(theirs)
                await check(stage, await stage.run(row[OURS]))


@pytest.mark.filterwarnings("default")  # its dependencies
async def test_the_lines_of_pusher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with soketi(tmp_path) as target:
        async with staged(target, monkeypatch, pusher=pusher) as stage:
            for row, (theirs, check) in LINES:
                if theirs == TERMINATE:
                    with pytest.raises(pusher.errors.PusherBadStatus, match="404"):
                        await stage.run(row[PUSHER])
                else:
                    await check(stage, await stage.run(row[PUSHER]))


@pytest.mark.filterwarnings("default")
async def test_what_reverb_refuses_pusher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Reverb refuses its calls that read" in PAGE.text
    with embedded() as target:
        async with staged(target, monkeypatch, pusher=pusher, client=None) as stage:
            await stage.run("client = pusher.Pusher.from_env(port=port)")
            for question in ('channels_info("presence-")', 'channel_info("news")', 'users_info("presence-room")'):
                with pytest.raises(pusher.errors.PusherBadAuth):
                    await stage.run(f"client.{question}")


@contextmanager
def silence() -> Iterator[int]:
    """Listen on a port, and answer nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


Failing = Callable[[Any, Any, Target, int], Any]
"""Makes a call fail: of what is made for a server, ours or ``pusher``, with a server and a port that is silent."""
FAILURES: dict[str, Failing] = {
    "too much data": lambda make, check, target, silent: publish(make(target), 40_000 * "x"),
    "data that is not JSON": lambda make, check, target, silent: publish(make(target), object()),
    "status 401": lambda make, check, target, silent: publish(make(replace(target, secret="wrong"))),
    "any other status": lambda make, check, target, silent: publish(make(replace(target, app_id="43"))),
    "no connection": lambda make, check, target, silent: publish(make(replace(target, port=free_ports(1)[0]))),
    "no answer in time": lambda make, check, target, silent: publish(make(replace(target, port=silent))),
    "a webhook that is not genuine": lambda make, check, target, silent: check(make(target), target),
}


def publish(api: Any, data: Any = None) -> None:
    api.trigger("news", "published", data)


def make_ours(target: Target) -> SyncReverbAPI:
    return SyncReverbAPI(**target.settings, request_timeout=0.3)


def check_ours(api: SyncReverbAPI, target: Target) -> Any:
    headers = {"X-Pusher-Key": target.key, "X-Pusher-Signature": "wrong"}
    return Webhook.parse(make_body(), headers, key=target.key, secret=target.secret)


def test_our_errors() -> None:
    with embedded() as target, silence() as silent:
        for because, _, ours in ERRORS:
            with pytest.raises(reverb.ReverbError) as raised:
                FAILURES[because](make_ours, check_ours, target, silent)
            assert f"reverb.{type(raised.value).__name__}" == ours, because
            if because == "status 401":
                assert raised.value.code == 401
    assert [because for because, *_ in ERRORS] == list(FAILURES)


@pytest.mark.filterwarnings("default")
def test_the_errors_of_pusher() -> None:
    requests = pytest.importorskip("requests")

    def make(target: Target) -> Any:
        return pusher.Pusher(
            target.app_id, target.key, target.secret, ssl=False, host=target.host, port=target.port, timeout=0.3
        )

    def check(client: Any, target: Target) -> Any:
        return client.validate_webhook(target.key, "wrong", make_body().decode())

    with embedded() as target, silence() as silent:
        for because, theirs, _ in ERRORS:
            if theirs == "None` is returned":
                assert FAILURES[because](make, check, target, silent) is None
                continue
            kind = eval(theirs, {"pusher": pusher, "requests": requests})
            with pytest.raises(kind):
                FAILURES[because](make, check, target, silent)


async def test_data_that_json_does_not_know(client: ReverbClient) -> None:
    heard = Recorder()
    (await client.subscribe("news")).bind("published", heard)

    @dataclass
    class Order:
        id: UUID
        total: Decimal
        day: date

    def publish() -> None:
        order = Order(UUID(int=7), Decimal("1.50"), date(2026, 11, 27))
        with SyncReverbAPI() as api:
            api.trigger("news", "published", order)
            api.trigger("news", "published", json.dumps(order, default=str))

    await asyncio.to_thread(publish)
    (_, data, _), (_, encoded, _) = await heard.wait_for(2)
    assert data == {"id": str(UUID(int=7)), "total": "1.50", "day": "2026-11-27"}
    assert isinstance(encoded, str)
