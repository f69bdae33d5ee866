"""The scripted server itself, driven by aiohttp's WebSocket client."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.certificates import make_certificates
from tests.scripted import PING, PONG, TEXT, HungUpError, Peer, ScriptedServer, encode_frame, encode_message


@asynccontextmanager
async def connect(
    server: ScriptedServer, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[aiohttp.ClientWebSocketResponse[Any]]:
    url = f"{'wss' if ssl_context else 'ws'}://{server.host}:{server.port}/app/app-key?protocol=7"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, ssl=ssl_context or True, autoping=False) as websocket,
    ):
        yield websocket


async def test_plays_a_subscription() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish(socket_id="7.7", activity_timeout=9)
        message = await peer.expect("pusher:subscribe", channel="orders")
        assert message == {"event": "pusher:subscribe", "data": {"channel": "orders"}}
        await peer.confirm("orders")
        await peer.send("paid", {"id": 1}, "orders", user_id=5)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connect(server) as websocket:
        established = await websocket.receive_json()
        assert established["event"] == "pusher:connection_established"
        assert json.loads(established["data"]) == {"socket_id": "7.7", "activity_timeout": 9}
        await websocket.send_json({"event": "pusher:subscribe", "data": {"channel": "orders"}})
        confirmed = await websocket.receive_str()
        assert confirmed == '{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"orders"}'
        paid = await websocket.receive_str()
        assert paid == '{"event":"paid","data":{"id":1},"channel":"orders","user_id":5}'

    assert server.connections == 1
    request = server.peers[0].request
    assert (request.method, request.target) == ("GET", "/app/app-key?protocol=7")
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


async def test_leaves_out_what_is_missing() -> None:
    assert encode_message("pusher:ping") == '{"event":"pusher:ping"}'
    assert encode_message("e", None) == '{"event":"e","data":null}'


async def test_keeps_control_frames_and_answers_none() -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.expect("a")
        assert [frame.payload for frame in peer.control] == [b"1"]
        frame = await peer.receive_frame()
        assert (frame.opcode, frame.payload) == (PING, b"1")
        frame = await peer.receive_frame()
        assert (frame.opcode, frame.payload) == (PONG, b"2")
        await peer.expect("b")
        await peer.send_frame(PING, b"3")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connect(server) as websocket:
        await websocket.ping(b"1")
        await websocket.send_str('{"event":"a"}')
        await websocket.send_str('{"event":"b"}')
        await websocket.pong(b"2")
        message = await websocket.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.PING, b"3")


@pytest.mark.parametrize("size", [125, 126, 65535, 65536])
async def test_frames_of_all_sizes_pass_both_ways(size: int) -> None:
    text = "x" * size

    async def script(peer: Peer) -> None:
        await peer.upgrade()
        assert await peer.receive() == {"event": text}
        await peer.send_text(text)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connect(server) as websocket:
        await websocket.send_json({"event": text})
        assert await websocket.receive_str() == text


async def test_bytes_go_out_as_the_script_cuts_them() -> None:
    first, second = encode_frame(TEXT, "one"), encode_frame(TEXT, "two")

    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send_raw(first + second[:1])
        await peer.send_raw(second[1:])
        await peer.send_frame(TEXT, "th", fin=False)
        await peer.send_frame(0, "ree")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connect(server) as websocket:
        assert [await websocket.receive_str() for _ in range(3)] == ["one", "two", "three"]


async def test_refuses_the_handshake() -> None:
    async def script(peer: Peer) -> None:
        await peer.refuse(503, "later", {"Retry-After": "7"})

    async with ScriptedServer(script) as server:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with connect(server):
                pass
    assert caught.value.status == 503
    assert caught.value.headers is not None
    assert caught.value.headers["Retry-After"] == "7"


async def test_closes_with_code_and_reason() -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.close(4100, "over capacity")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connect(server) as websocket:
        message = await websocket.receive()
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 4100, "over capacity")


async def test_ends_the_stream_without_a_close_frame() -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.eof()
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert answer.endswith(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()


async def test_resets_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        assert await peer.receive() == {"event": "go"}
        peer.reset()

    async with ScriptedServer(script) as server, connect(server) as websocket:
        await websocket.send_json({"event": "go"})
        await websocket.receive()
        assert isinstance(websocket.exception(), ConnectionResetError)


async def test_tells_connections_apart() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish(socket_id=f"{peer.number}.0")
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        for number in (1, 2):
            async with connect(server) as websocket:
                established = await websocket.receive_json()
                assert json.loads(established["data"])["socket_id"] == f"{number}.0"
        assert server.connections == 2


# Python 3.10 forgets to close the transport of a TLS connection that the other side has ended.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_speaks_tls(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)

    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send_text("secret")
        await peer.eof()

    async with (
        ScriptedServer(script, ssl_context=certificates.server) as server,
        connect(server, certificates.client) as websocket,
    ):
        assert await websocket.receive_str() == "secret"
        message = await websocket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSED


async def test_a_failed_script_fails_the_test() -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.expect("pusher:subscribe", channel="orders")

    async def subscribe_to_another_channel() -> None:
        async with ScriptedServer(script) as server, connect(server) as websocket:
            await websocket.send_json({"event": "pusher:subscribe", "data": {"channel": "other"}})
            await websocket.receive()

    with pytest.raises(AssertionError, match=r"'channel': 'orders'.* expected, got .*'other'"):
        await subscribe_to_another_channel()


async def test_a_deadline_says_what_was_awaited() -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.receive_frame()

    with pytest.raises(AssertionError, match=r"connection 1: waited 0\.1 s for a control frame"):
        async with ScriptedServer(script, deadline=0.1) as server, connect(server) as websocket:
            await websocket.receive()


async def test_a_script_that_does_not_end_fails_the_test() -> None:
    started = asyncio.Event()

    async def script(peer: Peer) -> None:
        started.set()
        await asyncio.Event().wait()

    async def connect_and_leave() -> None:
        async with ScriptedServer(script, deadline=0.1) as server:
            _, writer = await asyncio.open_connection(server.host, server.port)
            await asyncio.wait_for(started.wait(), 5)
            writer.close()
            await writer.wait_closed()

    with pytest.raises(AssertionError, match="the test is over, but the script for connection 1 still runs"):
        await connect_and_leave()


async def test_a_client_that_hangs_up_ends_the_script_only() -> None:
    ended: list[Exception] = []

    async def script(peer: Peer) -> None:
        await peer.upgrade()
        try:
            await peer.expect("pusher:subscribe")
        except HungUpError as error:
            ended.append(error)
            raise

    async with ScriptedServer(script) as server, connect(server):
        pass
    assert len(ended) == 1
