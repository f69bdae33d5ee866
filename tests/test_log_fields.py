"""Log records say in fields of their own what they are about, for whatever collects them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from reverb import Channel, ReverbAPI, ReverbClient
from reverb._dispatch import Dispatcher, EventQueue
from reverb.echo import Echo

from .scripted import TEXT, Peer, ScriptedServer
from .scripted_http import ScriptedHTTPServer, answer
from .test_client import UNAUTHORIZED, connected
from .test_dispatch import Recorder
from .watching import until

Find = Callable[[str], logging.LogRecord]


@pytest.fixture
def find(caplog: pytest.LogCaptureFixture) -> Find:
    """Return the one record with a text in it."""

    def find(text: str) -> logging.LogRecord:
        (found,) = (record for record in caplog.records if text in record.getMessage())
        return found

    return find


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name.startswith("reverb_")}


async def news(client: ReverbClient) -> Channel:
    return await client.subscribe("private-news")


async def test_a_handler_that_raises(find: Find) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("private-news")
        await peer.send("shipped", "{}", "private-news")
        await peer.send("of nobody")
        await peer.wait_closed()

    def fail(event: str, data: Any, channel: str | None) -> None:
        raise ValueError

    errors = Recorder()
    async with ScriptedServer(script) as server, connected(server) as client:
        client.bind("error", errors).bind("of nobody", fail)
        (await news(client)).bind("shipped", fail)
        await errors.wait_for(2)
    assert fields(find("of 'shipped' on private-news raised")) == {
        "reverb_channel": "private-news",
        "reverb_event": "shipped",
    }
    assert fields(find("of 'of nobody' on the client raised")) == {
        "reverb_channel": None,
        "reverb_event": "of nobody",
    }


async def test_data_that_does_not_fit(find: Find) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("private-news")
        await peer.send("shipped", "[]", "private-news")
        await peer.wait_closed()

    errors = Recorder()
    async with ScriptedServer(script) as server, connected(server) as client:
        client.bind("error", errors)
        (await news(client)).bind("shipped", Recorder(), type=dict[str, int])
        await errors.wait_for(1)
    assert fields(find("is not called: 'shipped' on private-news does not fit")) == {
        "reverb_channel": "private-news",
        "reverb_event": "shipped",
    }


async def test_an_event_that_cannot_be_read(find: Find) -> None:
    async def decrypt(event: str, data: Any) -> Any:
        if event == "e":
            raise ValueError("sealed")
        return data

    dispatcher, errors = Dispatcher(1000, lambda: None), Recorder()
    queue = EventQueue("private-encrypted-a", dispatcher, decrypt=decrypt)
    queue.bind(("e",), Recorder())
    queue.bind(("error",), errors)
    queue.put("e", "{}")
    await errors.wait_for(1)
    await dispatcher.drain(5)
    assert fields(find("skipped 'e'")) == {"reverb_channel": "private-encrypted-a", "reverb_event": "e"}


async def test_the_life_of_a_connection(find: Find) -> None:
    """Told of, lost, made again; a channel that is refused then; and lost for good."""

    async def script(peer: Peer) -> None:
        await peer.establish(f"{peer.number}.1")
        if peer.number == 1:
            await peer.expect("pusher:subscribe")
            await peer.confirm("private-news")
            await peer.send_frame(TEXT, "nonsense")
            await peer.send("pusher:error", {"code": 4299, "message": "beware"})
            await peer.send("last", "{}", "private-news")
            await go[0].wait()
            peer.reset()
        elif peer.number == 2:
            await peer.expect("pusher:subscribe")
            await peer.send("pusher:error", UNAUTHORIZED)
            await go[1].wait()
            await peer.close(4001, "gone")

    last, refused, go = Recorder(), Recorder(), [asyncio.Event(), asyncio.Event()]
    async with ScriptedServer(script) as server, connected(server) as client:
        channel = (await news(client)).bind("last", last).bind("error", refused)
        await last.wait_for(1)
        go[0].set()
        await refused.wait_for(1)
        assert not channel.is_subscribed
        go[1].set()
        await until(lambda: client.state == "failed")
    address = {"reverb_address": f"{server.host}:{server.port}"}
    assert fields(find(f"connected to 127.0.0.1:{server.port} as 1.1")) == address
    assert fields(find("skipped a message of 8 bytes")) == address
    assert fields(find("reconnecting in")) == address
    assert fields(find("not reconnecting")) == address
    assert fields(find("sent an error: ")) == {**address, "reverb_channel": None, "reverb_event": "pusher:error"}
    assert fields(find("refused the signature for 'private-news'")) == {
        **address,
        "reverb_channel": "private-news",
    }


def test_a_program_without_a_server(find: Find) -> None:
    client = ReverbClient(app_key="key", host="127.0.0.1", port=1, scheme="ws")
    assert client.run() != 0
    assert fields(find("cannot connect to 127.0.0.1:1")) == {"reverb_address": "127.0.0.1:1"}


async def test_a_channel_that_echo_does_not_get(find: Find) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.send("pusher:error", UNAUTHORIZED)
        await peer.wait_closed()

    refused: list[Any] = []
    async with ScriptedServer(script) as server, connected(server) as client:
        Echo(client).private("news").error(refused.append)
        await until(lambda: refused)
    assert fields(find("the client tries again")) == {
        "reverb_address": f"{server.host}:{server.port}",
        "reverb_channel": "private-news",
    }


async def test_handlers_that_are_too_slow(
    find: Find, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reverb._channels._SLOW_AFTER", 0.01)

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("private-news")
        for _ in range(20):
            await peer.send("e", "{}", "private-news")
        await peer.wait_closed()

    go_on = asyncio.Event()

    async def slow(event: str, data: Any, channel: str | None) -> None:
        await go_on.wait()

    async with ScriptedServer(script) as server, connected(server, max_pending_bytes=4_000) as client:
        (await news(client)).bind("e", slow)
        await until(lambda: "handlers are slower" in caplog.text)
        go_on.set()
        await until(lambda: client.stats.queued == 0)
    assert fields(find("handlers are slower")) == {
        "reverb_address": f"{server.host}:{server.port}",
        "reverb_channel": "private-news",
    }


async def test_a_call_of_the_api_that_is_repeated(find: Find, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "reverb")
    settings: dict[str, Any] = {"app_id": "1", "app_key": "key", "app_secret": "secret", "scheme": "ws"}
    async with (
        ScriptedHTTPServer(answer(503), answer(200)) as server,
        ReverbAPI(host=server.host, port=server.port, **settings) as api,
    ):
        await api.channels()
    assert fields(find("retrying in")) == {"reverb_address": f"{server.host}:{server.port}"}


def test_the_names_collide_with_nothing() -> None:
    record = logging.LogRecord("", 0, "", 0, "", (), None)
    assert not [name for name in vars(record) if name.startswith("reverb_")]
