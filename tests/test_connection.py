"""One connection against a server that does what a script says."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import socket
import ssl
import sys
import traceback
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import aiohappyeyeballs
import pytest

from reverb import ConnectionError, ProtocolError, ReverbConfig, ReverbError, TimeoutError, _connection
from reverb._connection import Connection, Traffic
from reverb._dispatch import Dispatcher, EventQueue
from reverb._protocol import MAX_INCOMING_SIZE, Message, parse_data, parse_error
from reverb.config import Settings
from reverb.server import ReverbServer

from .certificates import make_certificates
from .faults.proxy import FaultProxy, Link
from .loops import every_loop
from .scripted import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    HungUpError,
    Peer,
    ScriptedServer,
    accept_of,
    encode_frame,
    encode_message,
    reset_when_closed,
)
from .watching import client_tasks, turns, until, wait_turns


def config_for(server: ScriptedServer, **settings: Any) -> ReverbConfig:
    defaults: Settings = {"app_key": "key", "host": server.host, "port": server.port, "scheme": "ws"}
    return ReverbConfig(**{**defaults, **settings})


def nothing() -> None:
    pass


class Inbox:
    """Takes what a connection delivers, and lets a test wait for it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Message] = asyncio.Queue()

    def __call__(self, message: Message, size: int) -> None:
        self.queue.put_nowait(message)

    async def next(self) -> Message:
        return await asyncio.wait_for(self.queue.get(), 5)


@pytest.fixture
async def inbox() -> Inbox:
    return Inbox()


def connection_to(
    server: ScriptedServer,
    inbox: Callable[[Message, int], None],
    dispatcher: Dispatcher | None = None,
    on_end: Callable[[], None] = nothing,
    **settings: Any,
) -> Connection:
    config = config_for(server, **settings)
    return Connection(config, dispatcher or Dispatcher(1_000_000, nothing), Traffic(), inbox, on_end)


@asynccontextmanager
async def opened(
    server: ScriptedServer,
    inbox: Callable[[Message, int], None],
    *,
    ssl_context: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[Connection]:
    connection = connection_to(server, inbox, **settings)
    await connection.open(ssl_context)
    try:
        yield connection
    finally:
        await connection.close()


async def refusal(server: ScriptedServer, inbox: Inbox, **settings: Any) -> ReverbError:
    """Open a connection that can't be opened; return why, having checked that nothing of it is left."""
    ssl_context = settings.pop("ssl_context", None)
    with pytest.raises(ReverbError) as caught:
        await connection_to(server, inbox, **settings).open(ssl_context)
    assert client_tasks() == set()
    assert f"{server.host}:{server.port}" in str(caught.value)
    return caught.value


# --- opening ---------------------------------------------------------------------------------------------------


async def test_the_request_names_key_protocol_client_path_and_origin(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish("697736332.449543751", 30)
        await peer.wait_closed()

    async with (
        ScriptedServer(script) as server,
        opened(server, inbox, app_key="a/key", path="ws", origin="https://example.com") as connection,
    ):
        assert connection.socket_id == "697736332.449543751"
        assert connection.activity_timeout == 30
        request = server.peers[0].request
        assert request.target.startswith("/ws/app/a%2Fkey?protocol=7&client=python-reverb&version=")
        assert request.headers["origin"] == "https://example.com"
        assert request.headers["host"] == f"127.0.0.1:{server.port}"
        assert "sec-websocket-extensions" not in request.headers


async def test_no_origin_is_sent_unless_set(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox):
        assert "origin" not in server.peers[0].request.headers


@pytest.mark.parametrize(
    ("code", "data", "hint"),
    [
        (4001, r'{"code":4001,"message":"Application does not exist"}', "REVERB_APP_KEY"),
        (4001, {"code": 4001, "message": "App key key does not exist."}, "REVERB_APP_KEY"),
        (4004, r'{"code":4004,"message":"Application is over connection quota"}', "max_connections"),
        (4009, r'{"code":4009,"message":"Origin not allowed"}', "REVERB_ORIGIN"),
        (None, "gibberish", "gibberish"),
    ],
)
async def test_an_error_in_place_of_the_greeting_is_a_refusal(
    inbox: Inbox, code: int | None, data: Any, hint: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send("pusher:error", data)
        await peer.wait_closed()  # by us: Reverb would leave the socket open

    async with ScriptedServer(script) as server:
        error = await refusal(server, inbox)
        assert isinstance(error, ConnectionError)
        assert error.code == code
        assert hint in str(error)
        assert server.connections == 1


async def test_reverbs_refusal_of_a_key_is_the_reason_and_not_the_end_of_stream_behind_it(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send("pusher:error", r'{"code":4001,"message":"Application does not exist"}')
        await peer.hang_up()

    async with ScriptedServer(script) as server:
        assert (await refusal(server, inbox)).code == 4001


PAGE = "<!doctype html><html><head><title>Welcome</title></head></html>"


@pytest.mark.parametrize(
    ("status", "body", "headers", "hint"),
    [
        (
            200,
            PAGE,
            {"Server": "nginx"},
            "by nginx for /app/…: a page, “Welcome”; likely: The proxy has no location",
        ),
        (204, "", {}, "the website answers"),
        (
            301,
            "no",
            {"Location": "https://elsewhere.example.com/"},
            "REVERB_SCHEME=wss (or https) and REVERB_PORT=443",
        ),
        (302, "", {"Location": "http://www.example.com/"}, "REVERB_HOST=www.example.com"),
        (302, "", {"Location": "/login"}, "belongs to the website"),
        (307, "", {}, "it redirects to nowhere"),
        (400, "", {}, "proxy_set_header Upgrade $http_upgrade"),
        (400, "<html>The plain HTTP request was sent to HTTPS port</html>", {}, "needs REVERB_SCHEME=wss"),
        (400, "Client sent an HTTP request to an HTTPS server.", {}, "needs REVERB_SCHEME=wss"),
        (
            400,
            "Reason: You're speaking plain HTTP to an SSL-enabled server port.",
            {},
            "needs REVERB_SCHEME=wss",
        ),
        (401, "", {}, "a proxy that requires a login"),
        (403, "", {}, "a firewall"),
        (404, "Not found.", {}, "REVERB_PATH must be the server's REVERB_SERVER_PATH"),
        (405, "", {}, "REVERB_PATH"),
        (426, "", {}, 'proxy_set_header Connection "Upgrade"'),
        (429, "slow down", {}, "“slow down”; likely: A proxy in front of the server limits"),
        (500, "Internal server error.", {}, "The proxy does not pass the upgrade on"),
        (500, "oops", {}, "see its log"),
        (502, "", {}, "Reverb is not running behind the proxy: php artisan reverb:start"),
        (503, "", {}, "Reverb is not running behind the proxy"),
        (504, "", {}, "proxy_pass must have the server's REVERB_SERVER_PORT"),
    ],
)
async def test_http_refusals_say_what_to_check(
    inbox: Inbox, status: int, body: str, headers: dict[str, str], hint: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.refuse(status, body, headers)

    async with ScriptedServer(script) as server:
        error = await refusal(server, inbox)
        assert isinstance(error, ConnectionError)
        assert error.code == status
        assert hint in str(error)


@pytest.mark.parametrize(
    ("headers", "hint"),
    [
        (
            {"Connection": "keep-alive, Upgrade"},
            "with “Connection: keep-alive, Upgrade”; the client accepts only “Connection: Upgrade”",
        ),
        ({"Connection": "upgrade,close"}, "A proxy in front of the server has changed the header"),
        ({"Connection": "close"}, "with “Connection: close”, which is wrong for a WebSocket"),
        ({"Upgrade": "h2c"}, "with “Upgrade: h2c”, which is wrong for a WebSocket"),
        ({"Sec-WebSocket-Accept": "of-another"}, "with “Sec-WebSocket-Accept: of-another”"),
        ({"Transfer-Encoding": "chunked"}, "with “Transfer-Encoding: chunked”"),
        ({"Content-Length": "10"}, "with “Content-Length: 10”"),
    ],
)
async def test_a_101_that_was_changed_on_its_way(inbox: Inbox, headers: dict[str, str], hint: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade(headers)
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        error = await refusal(server, inbox)
        assert isinstance(error, ConnectionError)
        assert error.code is None  # which a proxy may not do the next time
        assert "HTTP status 101" in str(error)
        assert hint in str(error)


async def test_a_body_in_chunks_is_read(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        head = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
        await peer.send_raw(head + b"5\r\nno su\r\n7\r\nch page\r\n0\r\n\r\n")

    async with ScriptedServer(script) as server:
        assert "“no such page”" in str(await refusal(server, inbox))


async def test_a_status_of_http_1_0_is_understood(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send_raw(b"HTTP/1.0 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    async with ScriptedServer(script) as server:
        assert (await refusal(server, inbox)).code == 502


async def at_once(peer: Peer) -> None:
    pass


async def after_the_request(peer: Peer) -> None:
    await peer.read_request()


async def after_the_upgrade(peer: Peer) -> None:
    await peer.upgrade()


@pytest.mark.parametrize("stage", [at_once, after_the_request, after_the_upgrade])
@pytest.mark.parametrize("end", ["eof", "reset"])
async def test_a_connection_that_ends_too_early(inbox: Inbox, stage: Callable[[Peer], Any], end: str) -> None:
    async def script(peer: Peer) -> None:
        await stage(peer)
        if end == "reset":
            peer.reset()

    async with ScriptedServer(script) as server:
        assert isinstance(await refusal(server, inbox), ConnectionError)
        assert server.connections == 1


async def test_an_end_in_place_of_the_greeting(inbox: Inbox) -> None:
    async with ScriptedServer(after_the_upgrade) as server:
        error = await refusal(server, inbox)
        assert "did not send pusher:connection_established: lost the connection" in str(error)
        assert "does not speak the Pusher protocol" in str(error)


async def test_garbage_instead_of_http(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send_raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    async with ScriptedServer(script) as server:
        error = await refusal(server, inbox)
        assert "does not speak HTTP; it sends 'SSH-2.0-OpenSSH_'" in str(error)
        assert "REVERB_PORT" in str(error)


@pytest.mark.parametrize(
    "greeting",
    [
        {},
        [],
        "text",
        {"socket_id": 1.2},
        {"socket_id": "1.2\n"},
        {"socket_id": "1.2:private-x"},
        {"socket_id": "\u0661.\u0662"},
        {"socket_id": "1." + 1000 * "2"},
        {"socket_id": "POST\n/apps/42/events\nauth_key=k&auth_timestamp=1&auth_version=1.0&body_md5=m&z="},
    ],
)
async def test_a_greeting_without_a_socket_id(inbox: Inbox, greeting: Any) -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send("pusher:connection_established", greeting)
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        error = await refusal(server, inbox)
    assert isinstance(error, ProtocolError)
    assert str(error).endswith(
        "sent pusher:connection_established without a valid socket_id (digits, a dot, digits)"
    )


async def test_garbage_before_the_greeting_is_skipped(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send_text("{nope")
        await peer.send("some:event")
        await peer.send("pusher:connection_established", {"socket_id": "1.2"})
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        assert connection.socket_id == "1.2"
        assert connection.activity_timeout is None


async def test_nobody_listens(inbox: Inbox) -> None:
    async with ScriptedServer(at_once) as server:
        pass
    error = await refusal(server, inbox)
    assert isinstance(error, ConnectionError)
    assert "REVERB_PORT" in str(error)


async def test_an_unknown_host(inbox: Inbox) -> None:
    config = ReverbConfig(app_key="key", host="no-such-host.invalid", scheme="ws")
    with pytest.raises(ConnectionError, match=r"no-such-host\.invalid:443.*REVERB_HOST"):
        await Connection(config, Dispatcher(1_000_000, nothing), Traffic(), inbox, nothing).open(None)


async def silent_after_the_request(peer: Peer) -> None:
    await peer.read_request()
    await peer.wait_closed()


async def silent_after_the_upgrade(peer: Peer) -> None:
    await peer.upgrade()
    await peer.wait_closed()


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        (silent_after_the_request, "no answer to the HTTP request within"),
        (silent_after_the_upgrade, "the server did not send pusher:connection_established within"),
    ],
)
async def test_silence_in_the_handshake_times_out_and_the_socket_is_closed(
    inbox: Inbox, script: Callable[[Peer], Any], seen: str
) -> None:
    async with ScriptedServer(script) as server:
        error = await refusal(server, inbox, connect_timeout=0.2)
        assert isinstance(error, TimeoutError)
        assert f"{seen} 0.2 seconds (REVERB_CONNECT_TIMEOUT); likely: " in str(error)


async def test_silence_where_tls_should_be_times_out_and_names_the_scheme(inbox: Inbox) -> None:
    """Reverb says nothing to TLS, and waits for more."""
    done = asyncio.Event()

    async def script(peer: Peer) -> None:
        await done.wait()

    async with ScriptedServer(script) as server:
        error = await refusal(server, inbox, scheme="wss", connect_timeout=0.2)
        assert isinstance(error, TimeoutError)
        assert "no answer to TLS within 0.2 seconds" in str(error)
        assert f"likely: Port {server.port} needs REVERB_SCHEME=ws" in str(error)
        done.set()


async def test_a_server_that_is_out_of_reach(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("aiohappyeyeballs.start_connection", connect)
    async with ScriptedServer(at_once) as server:
        error = await refusal(server, inbox, connect_timeout=0.1)
        assert isinstance(error, TimeoutError)
        assert "no answer within 0.1 seconds (REVERB_CONNECT_TIMEOUT); likely: A firewall drops" in str(error)


async def test_a_resolver_that_does_not_answer(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    async with ScriptedServer(at_once) as server:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        error = await refusal(server, inbox, connect_timeout=0.1)
        assert isinstance(error, TimeoutError)
        assert "the name 127.0.0.1 was not looked up within 0.1 seconds" in str(error)
        assert "DNS server" in str(error)


@pytest.mark.parametrize("script", [silent_after_the_request, silent_after_the_upgrade])
async def test_cancelling_in_the_handshake_closes_the_socket(inbox: Inbox, script: Callable[[Peer], Any]) -> None:
    async with ScriptedServer(script) as server:
        opening = asyncio.ensure_future(connection_to(server, inbox).open(None))
        await until(lambda: server.peers and hasattr(server.peers[0], "request"))
        opening.cancel()
        await asyncio.wait({opening})
        assert opening.cancelled()
        assert client_tasks() == set()


async def test_cancelling_at_each_turn_closes_the_socket_and_does_no_harm_to_the_next(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        for number in turns():
            opening = asyncio.ensure_future(connection_to(server, inbox).open(None))
            await wait_turns(number)
            opening.cancel()
            await asyncio.wait({opening})
            if not opening.cancelled():
                server.peers[-1].reset()
                break
            assert client_tasks() == set()
            async with opened(server, inbox):
                pass


# --- TLS and proxies -------------------------------------------------------------------------------------------


async def test_tls_with_a_private_authority(inbox: Inbox, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.send("e", "1", "c")
        await peer.wait_closed()

    certificates = make_certificates(tmp_path)
    async with (
        ScriptedServer(script, ssl_context=certificates.server) as server,
        opened(server, inbox, scheme="wss", ssl_context=certificates.client),
    ):
        assert await inbox.next() == Message("e", "c", "1")


@pytest.mark.parametrize("whole_chain", [False, True])
async def test_a_certificate_nobody_vouches_for_is_refused(
    inbox: Inbox, tmp_path: Path, whole_chain: bool
) -> None:
    certificates = make_certificates(tmp_path, whole_chain=whole_chain)
    async with ScriptedServer(at_once, ssl_context=certificates.server) as server:
        error = await refusal(server, inbox, scheme="wss", ssl_context=ssl.create_default_context())
        assert isinstance(error, ConnectionError)
        assert "the certificate is not trusted: " in str(error)
        assert ("SSL_CERT_FILE" if whole_chain else "fullchain.pem") in str(error)


@pytest.mark.parametrize(
    ("names", "days", "hint"),
    [
        ((), (-30, -4), "the certificate expired; likely: The certificate was not renewed"),
        ((), (-30, -4), "This machine's clock is wrong: it says 20"),
        ((), (3, 30), "the certificate is not valid yet; likely: This machine's clock is wrong: it says 20"),
        (("other.example",), (-1, 30), "the certificate is not for 127.0.0.1; likely: REVERB_HOST"),
    ],
)
async def test_a_certificate_that_is_not_valid(
    inbox: Inbox, tmp_path: Path, names: tuple[str, ...], days: tuple[int, int], hint: str
) -> None:
    certificates = make_certificates(tmp_path, *names, days=days)
    async with ScriptedServer(at_once, ssl_context=certificates.server) as server:
        error = await refusal(server, inbox, scheme="wss", ssl_context=certificates.client)
        assert isinstance(error, ConnectionError)
        assert hint in str(error)


async def bad_request(peer: Peer) -> None:
    await peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def reset(peer: Peer) -> None:
    peer.reset()


async def banner(peer: Peer) -> None:
    await peer.send_raw(b"SSH-2.0-OpenSSH_9.6\r\n")


@pytest.mark.parametrize("script", [bad_request, banner, at_once, reset])
async def test_tls_spoken_to_a_plain_port(inbox: Inbox, script: Callable[[Peer], Any]) -> None:
    async with ScriptedServer(script) as server:
        error = await refusal(server, inbox, scheme="wss")
        assert isinstance(error, ConnectionError)
        assert "REVERB_SCHEME" in str(error).partition("; or: ")[0]


@every_loop
@pytest.mark.parametrize("proxy", [None, "http", "socks5"])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_reset_right_after_the_connect_leaves_no_descriptor(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, scheme: str, proxy: str | None
) -> None:
    """Neither an open one, nor the number of one that is closed, which another part of the program may get."""
    connect = aiohappyeyeballs.start_connection
    made: list[tuple[socket.socket, int]] = []

    async def connect_and_be_reset(*args: Any, **options: Any) -> socket.socket:
        ours = await connect(*args, **options)
        theirs, _ = listener.accept()
        reset_when_closed(theirs)
        theirs.close()
        made.append((ours, ours.fileno()))
        return ours

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", connect_and_be_reset)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        config = ReverbConfig(
            app_key="key",
            host="127.0.0.1",
            port=port,
            scheme=scheme,
            proxy=None if proxy is None else f"{proxy}://127.0.0.1:{port}",
        )
        with pytest.raises(ConnectionError):
            await Connection(config, Dispatcher(1_000_000, nothing), Traffic(), inbox, nothing).open(None)
        ((ours, number),) = made
        await until(lambda: ours.fileno() == -1)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


@every_loop
@pytest.mark.parametrize("end", ["in the answer", "behind a message"])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_reset_that_arrives_together_with_data_is_noticed_at_once(
    inbox: Inbox, tmp_path: Path, scheme: str, end: str
) -> None:
    certificates = make_certificates(tmp_path)
    is_over = asyncio.Event()

    def accept() -> tuple[socket.socket, bytes]:
        peer, _ = listener.accept()
        if scheme == "wss":
            peer = certificates.server.wrap_socket(peer, server_side=True)
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", peer.recv(4096))
        assert key is not None
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        return peer, f"{head}Sec-WebSocket-Accept: {accept_of(key[1].decode())}\r\n\r\n".encode()

    def send_and_reset(data: bytes) -> None:
        """In one turn of the loop, so that the client sees both at the same time."""
        peer.sendall(data)
        reset_when_closed(peer)
        peer.close()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(5)
        config = ReverbConfig(
            app_key="key",
            host="127.0.0.1",
            port=listener.getsockname()[1],
            scheme=scheme,
            connect_timeout=60,
            ping_interval=60,
        )
        connection = Connection(config, Dispatcher(1_000_000, nothing), Traffic(), inbox, is_over.set)
        opening = asyncio.ensure_future(connection.open(certificates.client if scheme == "wss" else None))
        peer, answer = await asyncio.to_thread(accept)
        if end == "in the answer":
            send_and_reset(answer[:30])
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(opening, 5)
        else:
            greeting = encode_message("pusher:connection_established", '{"socket_id":"1.1"}')
            peer.sendall(answer + encode_frame(TEXT, greeting))
            await asyncio.wait_for(opening, 5)
            send_and_reset(encode_frame(TEXT, encode_message("last")))
            await asyncio.wait_for(is_over.wait(), 5)
            await asyncio.wait_for(connection.wait_lost(), 5)
    assert client_tasks() == set()
    if sys.version_info < (3, 11):
        with warnings.catch_warnings():  # of a TLS transport that was reset, which 3.10 says nobody has closed
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@every_loop
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_an_attempt_ends_even_if_nobody_notices_the_end_of_its_socket(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    connect = aiohappyeyeballs.start_connection
    descriptors: list[int] = []
    is_requested, may_hang_up = asyncio.Event(), asyncio.Event()

    async def connect_without_shutdown(*args: Any, **options: Any) -> socket.socket:
        ours = await connect(*args, **options)
        monkeypatch.setattr(ours, "shutdown", lambda _: None)
        descriptors.append(ours.fileno())
        return ours

    def is_closed() -> bool:
        try:
            os.fstat(descriptors[0])
        except OSError:
            return True
        return False

    async def script(peer: Peer) -> None:
        await peer.read_request()
        is_requested.set()
        await may_hang_up.wait()

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", connect_without_shutdown)
    async with ScriptedServer(script) as server:
        connection = connection_to(server, inbox, connect_timeout=60 if is_cancelled else 0.2)
        opening = asyncio.ensure_future(connection.open(None))
        await asyncio.wait_for(is_requested.wait(), 5)
        if is_cancelled:
            opening.cancel()
        await asyncio.wait({opening}, timeout=5)
        if is_cancelled:
            assert opening.cancelled()
        else:
            assert isinstance(opening.exception(), TimeoutError)
        assert client_tasks() == set()
        may_hang_up.set()
        await until(is_closed)


async def test_tls_spoken_to_the_embedded_server_in_plain(inbox: Inbox) -> None:
    async with ReverbServer() as server:
        config = ReverbConfig(app_key="key", host=server.host, port=server.port, connect_timeout=0.5)
        with pytest.raises(ReverbError, match="REVERB_SCHEME=ws"):
            await Connection(config, Dispatcher(1_000_000, nothing), Traffic(), inbox, nothing).open(None)


async def test_plain_spoken_to_a_tls_port(inbox: Inbox, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with ScriptedServer(at_once, ssl_context=certificates.server) as server:
        error = await refusal(server, inbox)
        assert isinstance(error, ConnectionError)
        assert f"Port {server.port} needs REVERB_SCHEME=wss (or https)" in str(error)


@asynccontextmanager
async def proxy(kind: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy of the simplest sort; gives its URL and what it was asked for."""
    asked: list[bytes] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError), closing(writer):  # some only look whether it is there
            await relay(reader, writer)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if kind == "http":
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head)
            host, _, port = head.split()[1].decode().partition(":")
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            _, methods = await reader.readexactly(2)
            await reader.readexactly(methods)
            writer.write(b"\x05\x00")
            request = await reader.readexactly(10)
            asked.append(request)
            host, port = socket.inet_ntoa(request[4:8]), str(int.from_bytes(request[8:10], "big"))
            writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"{kind}://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_proxies(inbox: Inbox, kind: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.wait_closed()

    async with (
        ScriptedServer(script) as server,
        proxy(kind) as (url, asked),
        opened(server, inbox, proxy=url) as connection,
    ):
        assert connection.socket_id == "1.1"
        assert len(asked) == 1


def refusing(status: int) -> Callable[[Peer], Any]:
    async def script(peer: Peer) -> None:
        await peer.refuse(status)

    return script


async def socks_error(peer: Peer) -> None:
    await peer.send_raw(b"\x05\xff")  # no way to log in that we know


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize(
    ("kind", "script", "hint"),
    [
        ("http", refusing(407), "the proxy requires a login: "),
        ("http", refusing(407), "likely: REVERB_PROXY must contain the user and the password"),
        ("http", refusing(403), "status 403; likely: REVERB_PROXY is wrong, or the proxy does not allow"),
        ("http", refusing(502), "REVERB_PROXY"),
        ("http", at_once, "REVERB_PROXY"),
        ("http", banner, "REVERB_PROXY"),
        (
            "http",
            silent_after_the_request,
            "no answer within 0.3 seconds (REVERB_CONNECT_TIMEOUT); likely: REVERB_PROXY",
        ),
        ("socks5", socks_error, "REVERB_PROXY"),
        ("socks5", at_once, "REVERB_PROXY"),
        ("https", refusing(407), "REVERB_PROXY"),
    ],
)
async def test_a_proxy_that_refuses(
    inbox: Inbox, scheme: str, kind: str, script: Callable[[Peer], Any], hint: str
) -> None:
    async with ScriptedServer(script) as server:
        url = f"{kind}://user:P4SS@127.0.0.1:{server.port}"
        patience = 0.3 if script is silent_after_the_request or kind == "https" else 5.0
        error = await refusal(server, inbox, proxy=url, scheme=scheme, connect_timeout=patience)
        assert hint in str(error)
        assert "P4SS" not in str(error) + str(error.__cause__)


async def test_the_password_of_a_proxy_is_in_no_frame_that_an_error_keeps(inbox: Inbox) -> None:
    async with ScriptedServer(refusing(407)) as server:
        error: BaseException | None = await refusal(server, inbox, proxy=f"http://u:P4SS@127.0.0.1:{server.port}")
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_globals["__name__"] != __name__:
                assert "P4SS" not in repr(frame.f_locals)
        error = error.__cause__ or error.__context__


async def test_a_proxy_that_is_not_there(inbox: Inbox) -> None:
    async with ScriptedServer(at_once) as server:
        pass
    url = f"http://user:P4SS@127.0.0.1:{server.port}"
    error = await refusal(server, inbox, proxy=url)
    assert "no connection to the proxy: connection refused" in str(error)
    assert f"likely: REVERB_PROXY=http://127.0.0.1:{server.port} is wrong, or the proxy is down" in str(error)


async def test_a_proxy_without_an_address(inbox: Inbox) -> None:
    async with ScriptedServer(at_once) as server:
        error = await refusal(server, inbox, proxy="http://no-such-proxy.invalid:3128")
        assert "likely: REVERB_PROXY=http://no-such-proxy.invalid:3128 is wrong" in str(error)


async def test_a_certificate_behind_a_proxy(inbox: Inbox, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, days=(3, 30))
    async with (
        ScriptedServer(at_once, ssl_context=certificates.server) as server,
        proxy("http") as (url, _),
    ):
        error = await refusal(server, inbox, scheme="wss", proxy=url, ssl_context=certificates.client)
        assert "the certificate is not valid yet" in str(error)


# --- receiving -------------------------------------------------------------------------------------------------


async def test_messages_arrive_whole_and_in_order_however_they_are_cut(inbox: Inbox) -> None:
    texts = [encode_message("e", str(number) + "é" * 100, "c").encode() for number in range(6)]

    async def script(peer: Peer) -> None:
        await peer.establish()
        # several messages in one segment, of which the last is incomplete
        frames = b"".join(encode_frame(TEXT, text) for text in texts[:3])
        await peer.send_raw(frames[:-10])
        await peer.expect("pusher:pong")
        await peer.send_raw(frames[-10:])
        # binary; fragments with control frames between them
        await peer.send_frame(BINARY, texts[3])
        await peer.send_frame(TEXT, texts[4][:7], fin=False)
        await peer.send_frame(PING, b"between")
        await peer.send_frame(0, texts[4][7:9], fin=False)
        await peer.send_frame(0, b"", fin=False)
        await peer.send_frame(0, texts[4][9:])
        await peer.send_raw(b"".join(encode_frame(TEXT, bytes([byte]), fin=False) for byte in texts[5][:1]))
        await peer.send_frame(0, texts[5][1:])
        assert (await peer.receive_frame()).payload == b"between"
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        first = [await inbox.next() for _ in range(2)]
        connection.send_silent(b'{"event":"pusher:pong"}')
        rest = [await inbox.next() for _ in range(4)]
        assert [message.data[0] for message in first + rest] == list("012345")


@pytest.mark.parametrize(
    ("frames", "broken"),
    [
        ([(0, b"x", True)], "a continuation frame without a message"),
        ([(TEXT, b"{", False), (TEXT, b"{}", True)], "a new message inside another message"),
        ([(0x40 | TEXT, b"{", True)], "a frame with reserved bits"),
    ],
)
async def test_frames_that_break_the_protocol_end_the_connection(
    inbox: Inbox, frames: list[tuple[int, bytes, bool]], broken: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        for opcode, payload, fin in frames:
            await peer.send_frame(opcode, payload, fin=fin)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        lost = await asyncio.wait_for(connection.wait_lost(), 5)
        assert f"broke the WebSocket protocol: {broken}" in str(lost)


async def test_the_bound_is_noticed_when_a_read_ends_with_something_else_than_an_event(inbox: Inbox) -> None:
    async def hang(event: str, data: Any, channel: str | None) -> None:
        await asyncio.Event().wait()

    async def script(peer: Peer) -> None:
        await peer.establish()
        events = encode_frame(TEXT, encode_message("e", "x" * 200, "c")) * 3
        await peer.send_raw(events + encode_frame(PING, b""))
        await peer.wait_closed()

    pressed: list[bool] = []
    bounded = Dispatcher(300, lambda: pressed.append(bounded.is_full))
    queue = bounded.queues["c"] = EventQueue("c", bounded)
    queue.bind(("e",), hang)
    queue.add_route("e")
    async with ScriptedServer(script) as server:
        async with opened(server, inbox, dispatcher=bounded):
            await until(lambda: pressed == [True])
        await bounded.drain(0)


async def test_a_message_that_was_complete_before_its_end_is_delivered_once(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.send_frame(TEXT, encode_message("first", "x" * 200, "c"), fin=False)
        await peer.send_frame(0, b"")
        await peer.send_frame(TEXT, encode_message("second", None, "c"))
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox):
        assert [(await inbox.next()).event for _ in range(2)] == ["first", "second"]


async def test_a_ping_that_looks_like_a_message_is_answered(inbox: Inbox) -> None:
    payload = encode_message("e", None, "c")

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.send_frame(PING, payload)
        assert (await peer.receive_frame()).payload == bytes(payload, "utf-8")
        await peer.send("after", None, "c")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox):
        assert (await inbox.next()).event == "after"


async def test_messages_behind_the_greeting_in_the_same_segment_are_delivered(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send_raw(
            encode_frame(TEXT, encode_message("pusher:connection_established", '{"socket_id":"1.1"}'))
            + encode_frame(TEXT, encode_message("e", "1", "c"))
        )
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox):
        assert await inbox.next() == Message("e", "c", "1")


async def test_both_kinds_of_ping_are_answered(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.send("pusher:ping")
        assert await peer.receive() == {"event": "pusher:pong"}
        await peer.send_frame(PING, b"abc")
        frame = await peer.receive_frame()
        assert (frame.opcode, frame.payload) == (PONG, b"abc")
        await peer.send("done")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox):
        assert (await inbox.next()).event == "done"


async def test_what_is_no_message_is_logged_and_skipped(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        for text in (b"", b"{nope", b"[]", b'{"event":5}', b"\xff\xfe", b'{"event":"e","data":' + b"[" * 50_000):
            await peer.send_frame(TEXT, text)
        await peer.send_frame(PONG, b"unasked")
        await peer.send("e", "1", "c")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox):
        assert await inbox.next() == Message("e", "c", "1")
        skipped = [record for record in caplog.records if "skipped a message" in record.message]
        assert len(skipped) == 6


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (encode_frame(TEXT, b"x" * 10)[:1] + b"\x8a" + b"x" * 14, 1002),  # masked, as only clients may
        (b"\x83\x00", 1002),  # an opcode that does not exist
        (b"\x81\x7f" + (MAX_INCOMING_SIZE + 1).to_bytes(8, "big"), 1009),
    ],
)
async def test_a_server_that_breaks_the_websocket_protocol_is_left(inbox: Inbox, what: bytes, code: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.send_raw(what)
        frame = await peer.receive_frame()
        assert frame.opcode == CLOSE
        assert int.from_bytes(frame.payload[:2], "big") == code
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        assert "broke the WebSocket protocol" in str(await asyncio.wait_for(connection.wait_lost(), 5))
        assert not connection.is_open


async def test_fragments_that_grow_beyond_all_bounds_end_the_connection(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reverb._protocol.MAX_INCOMING_SIZE", 1000)

    async def script(peer: Peer) -> None:
        await peer.establish()
        for opcode in (TEXT, 0, 0):
            await peer.send_frame(opcode, b"x" * 400, fin=False)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        assert "more than 1000 bytes" in str(await asyncio.wait_for(connection.wait_lost(), 5))


# --- sending ---------------------------------------------------------------------------------------------------


async def test_sending_waits_while_the_sockets_buffer_is_full(inbox: Inbox) -> None:
    go_on = asyncio.Event()
    sent = 0

    async def script(peer: Peer) -> None:
        await peer.establish()
        await go_on.wait()
        while (await peer.receive())["event"] != "last":
            pass
        await peer.send("done")
        await peer.wait_closed()

    payload = json.dumps({"event": "client-x", "data": "x" * 100_000}).encode()

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:

        async def flood() -> None:
            nonlocal sent
            for _ in range(200):
                await connection.drain()
                connection.send_silent(payload)
                sent += 1
            await connection.drain()
            connection.send_silent(b'{"event":"last"}')

        flooding = asyncio.ensure_future(flood())
        await until(lambda: connection.is_congested)
        assert sent < 200
        go_on.set()
        await asyncio.wait_for(flooding, 20)
        assert (await inbox.next()).event == "done"


async def test_sending_that_waits_ends_with_the_connection(inbox: Inbox) -> None:
    reset = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        await reset.wait()
        peer.reset()

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        while not connection.is_congested:
            connection.send_silent(b"x" * 1_000_000)
        draining = asyncio.ensure_future(connection.drain())
        await asyncio.sleep(0)
        reset.set()
        await asyncio.wait_for(draining, 5)
        with pytest.raises(ConnectionError, match="closed"):
            connection.send_silent(b"{}")


# --- staying alive ---------------------------------------------------------------------------------------------


async def test_silence_is_asked_about_and_an_answer_is_enough(inbox: Inbox) -> None:
    asked_after: list[float] = []

    async def script(peer: Peer) -> None:
        await peer.establish(activity_timeout=30)
        for _ in range(3):
            since = monotonic()
            await peer.expect("pusher:ping")
            asked_after.append(monotonic() - since)
            await peer.send("pusher:pong")
        await peer.send("done")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox, ping_interval=0.2, pong_timeout=1):
        assert [(await inbox.next()).event for _ in range(4)] == ["pusher:pong"] * 3 + ["done"]
        assert all(0.15 < seconds < 5 for seconds in asked_after)


@pytest.mark.parametrize(("ours", "servers"), [(30.0, 1), (1.0, 30)])
async def test_the_shorter_of_the_two_intervals_counts(inbox: Inbox, ours: float, servers: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish(activity_timeout=servers)
        await peer.expect("pusher:ping")
        await peer.send("done")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox, ping_interval=ours):
        assert (await inbox.next()).event == "done"


async def test_whatever_is_received_counts_as_life(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        for _ in range(8):
            await asyncio.sleep(0.1)  # what is tested is time
            await peer.send_frame(PING)
        await peer.send("now")
        assert (await peer.receive())["event"] == "client-x"  # and no ping before it
        await peer.wait_closed()

    async with (
        ScriptedServer(script) as server,
        opened(server, inbox, ping_interval=0.4, pong_timeout=0.4) as connection,
    ):
        assert (await inbox.next()).event == "now"
        connection.send_silent(b'{"event":"client-x"}')


async def test_a_ping_that_stays_unanswered_ends_the_connection(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:ping")
        await peer.wait_closed()

    async with (
        ScriptedServer(script) as server,
        opened(server, inbox, ping_interval=0.1, pong_timeout=0.1) as connection,
    ):
        loss = await asyncio.wait_for(connection.wait_lost(), 5)
        assert "no answer to a ping within 0.1 seconds (REVERB_PONG_TIMEOUT)" in str(loss)
        assert loss.code is None


async def test_our_own_lateness_is_not_blamed_on_the_server(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connection, "_LATENESS", 0.05)
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:ping")
        asked.set()
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox, ping_interval=0.1, pong_timeout=0.1):
        await asyncio.wait_for(asked.wait(), 5)
        until = monotonic() + 0.4
        while monotonic() < until:
            pass  # a handler that blocks the loop
        for _ in range(5):
            await asyncio.sleep(0)  # our timer, which is overdue, has its turn before the answer is there
        await server.peers[0].send("pusher:pong")
        assert (await inbox.next()).event == "pusher:pong"


class Paused:
    """A connection whose reading is paused because handlers hang; what comes in a look is put behind that.

    It does what the session of a client does: reads at the pace of its dispatcher, and closes the requests that
    are answered.
    """

    def __init__(self, max_bytes: int = 100_000) -> None:
        self.taken: list[str] = []
        self.connection: Connection
        self.dispatcher = Dispatcher(max_bytes, lambda: self.connection.set_reading(not self.dispatcher.is_full))
        queue = self.dispatcher.queues["c"] = EventQueue("c", self.dispatcher)
        queue.bind(("e",), self._hang)
        queue.add_route("e")

    def __call__(self, message: Message, size: int) -> None:
        self.taken.append(message.event)
        if message.event == "pusher:pong":
            self.connection.requests.answered(None)
        elif message.event == "pusher:error":
            self.connection.requests.refused(parse_error(parse_data(message.data)))

    @asynccontextmanager
    async def opened(self, server: ScriptedServer, **settings: Any) -> AsyncIterator[Connection]:
        self.connection = connection_to(server, self, dispatcher=self.dispatcher, **settings)
        await self.connection.open(None)
        try:
            await until(lambda: self.dispatcher.is_full)
            yield self.connection
        finally:
            await self.connection.close()
            await self.dispatcher.drain(0)

    async def _hang(self, event: str, data: Any, channel: str | None) -> None:
        await asyncio.Event().wait()


def an_event(size: int) -> bytes:
    return encode_frame(TEXT, encode_message("e", "x" * size, "c"))


async def fill(peer: Peer, size: int = 100_000) -> None:
    """Send what pauses the reading of a :class:`Paused`, and nothing that is beyond its socket."""
    await peer.establish()
    await peer.send_raw(an_event(10) + an_event(size))


async def test_a_server_that_dies_while_reading_is_paused_is_noticed() -> None:
    async def script(peer: Peer) -> None:
        await fill(peer)
        await peer.wait_closed()

    paused = Paused()
    async with (
        ScriptedServer(script) as server,
        paused.opened(server, ping_interval=0.3, pong_timeout=0.2) as connection,
    ):
        since = monotonic()
        loss = await asyncio.wait_for(connection.wait_lost(), 5)
        assert "no answer to a ping within 0.2 seconds (REVERB_PONG_TIMEOUT)" in str(loss)
        assert 0.45 < monotonic() - since < 1.0
        assert connection.alive_at < since + 0.1


async def test_old_messages_in_the_sockets_buffer_are_no_sign_of_life() -> None:
    async def script(peer: Peer) -> None:
        await fill(peer)
        await until(lambda: paused.dispatcher.is_full)
        await peer.send_raw(an_event(1000) * 20)  # and then it dies
        await peer.wait_closed()

    paused = Paused()
    async with (
        ScriptedServer(script) as server,
        paused.opened(server, ping_interval=0.3, pong_timeout=0.2) as connection,
    ):
        since = monotonic()
        loss = await asyncio.wait_for(connection.wait_lost(), 5)
        assert "no answer to a ping" in str(loss)
        assert monotonic() - since < 1.0
        assert paused.dispatcher.pending_events > 15  # what was in the buffer is not lost


async def test_a_server_that_answers_while_reading_is_paused_is_kept_and_not_read_from_between() -> None:
    looks = 0

    async def script(peer: Peer) -> None:
        nonlocal looks
        await fill(peer)
        while True:
            await peer.expect("pusher:ping")
            await peer.send_raw(an_event(100))
            await peer.send("pusher:pong")
            await peer.send("behind the pong", None, "other")  # read by the next look at the earliest
            looks += 1

    paused = Paused()
    async with (
        ScriptedServer(script) as server,
        paused.opened(server, ping_interval=0.1, pong_timeout=0.1) as connection,
    ):
        await until(lambda: looks >= 6)
        assert connection.is_open
        assert paused.dispatcher.pending_events < 2 * looks
        between = [event for event in paused.taken if event != "pusher:ping"]
        # Each look reads to a pong, and what TCP brought in the same read.
        assert between.count("pusher:pong") >= 5


async def test_a_look_ends_when_the_pong_is_there() -> None:
    async def script(peer: Peer) -> None:
        await fill(peer)
        await peer.expect("pusher:ping")
        await peer.send("pusher:pong")
        await until(lambda: "pusher:pong" in paused.taken)
        await peer.send("later", None, "other")
        await quiet_for(0.2)
        assert "later" not in paused.taken
        await peer.expect("pusher:ping")
        await peer.wait_closed()

    paused = Paused()
    async with (
        ScriptedServer(script) as server,
        paused.opened(server, ping_interval=0.5, pong_timeout=5),
    ):
        await until(lambda: "later" in paused.taken, 2.0)


async def test_a_look_does_not_read_without_bounds() -> None:
    """A server that never stops sending is alive; what it sends has to wait in its own buffers."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await fill(peer, 200_000)
        await until(lambda: paused.dispatcher.is_full)
        with suppress(HungUpError):
            while True:
                await peer.send_raw(an_event(5_000))
                sent += 1

    paused = Paused(max_bytes=200_000)
    async with (
        ScriptedServer(script, deadline=10) as server,
        paused.opened(server, ping_interval=0.1, pong_timeout=0.1) as connection,
    ):
        assert not paused.dispatcher.is_flooded
        await until(lambda: paused.dispatcher.is_flooded)
        await until(lambda: connection.requests.open_pings >= 4)  # three more intervals
        assert connection.is_open
        assert paused.dispatcher.pending_bytes < 3_000_000
        seen = -1
        while sent != seen:  # until the buffers on the way are full
            seen, asked = sent, connection.requests.open_pings
            await until(lambda: connection.requests.open_pings > asked)  # noqa: B023 - awaited at once
        server.peers[0].reset()
        await asyncio.wait_for(connection.close(), 5)


async def test_a_ping_that_is_refused_while_reading_is_paused_is_an_answer() -> None:
    asked = 0

    async def script(peer: Peer) -> None:
        nonlocal asked
        await fill(peer)
        with suppress(HungUpError):
            while True:
                await peer.expect("pusher:ping")
                asked += 1
                await peer.send("pusher:error", {"code": 4301, "message": "Rate limit exceeded"})

    paused = Paused()
    async with (
        ScriptedServer(script) as server,
        paused.opened(server, ping_interval=0.1, pong_timeout=0.1) as connection,
    ):
        await until(lambda: asked >= 3)
        assert connection.is_open


async def test_reading_that_goes_on_during_a_look_is_not_disturbed_by_its_end() -> None:
    async def script(peer: Peer) -> None:
        await fill(peer)
        await peer.expect("pusher:ping")
        paused.connection.set_reading(True)
        await peer.send("pusher:pong")
        await peer.send("first", None, "other")
        await until(lambda: "first" in paused.taken)
        await peer.send("second", None, "other")
        await peer.wait_closed()

    paused = Paused()
    async with (
        ScriptedServer(script) as server,
        paused.opened(server, ping_interval=0.2, pong_timeout=5),
    ):
        await until(lambda: "second" in paused.taken, 1.0)


# --- the last sign of life -------------------------------------------------------------------------------------


async def quiet_for(seconds: float) -> None:
    await asyncio.sleep(seconds)  # what is tested is time


@pytest.mark.parametrize("end", ["close frame", "end of stream", "reset"])
async def test_an_end_after_a_silence_in_which_nothing_was_sent_counts_as_life(inbox: Inbox, end: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await quiet_for(0.3)
        if end == "close frame":
            await peer.close(1001)
            await peer.wait_closed()
        elif end == "reset":
            peer.reset()

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        await asyncio.wait_for(connection.wait_lost(), 5)
        assert connection.alive_at - connection.opened_at >= 0.25


@pytest.mark.parametrize(
    ("end", "is_life"),
    [("close frame", True), ("end of stream", True), ("end of stream after a ping", False), ("reset", False)],
)
async def test_what_counts_as_life_after_something_was_sent(inbox: Inbox, end: str, is_life: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        if end == "end of stream after a ping":
            await peer.expect("pusher:ping")
        await peer.expect("client-x")
        await quiet_for(0.3)
        if end == "close frame":
            await peer.close(1001)
            await peer.wait_closed()
        elif end == "reset":
            peer.reset()

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        if end == "end of stream after a ping":
            connection.send_ping()
        connection.send_silent(b'{"event":"client-x"}')
        await asyncio.wait_for(connection.wait_lost(), 5)
        assert (connection.alive_at - connection.opened_at >= 0.25) is is_life


@pytest.mark.parametrize("end", ["abandoned", "reset"])
async def test_a_line_that_was_dead_counts_from_the_last_message(inbox: Inbox, end: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.send("the last message", None, "c")
        await peer.expect("pusher:ping")
        if end == "reset":
            await quiet_for(0.2)
            peer.reset()  # as a host that was started again answers what it does not know
        else:
            await peer.wait_closed()

    timeout = 0.3 if end == "abandoned" else 5
    async with (
        ScriptedServer(script) as server,
        opened(server, inbox, ping_interval=0.3, pong_timeout=timeout) as connection,
    ):
        await inbox.next()
        heard = monotonic()
        await asyncio.wait_for(connection.wait_lost(), 5)
        assert connection.alive_at <= heard
        assert monotonic() - connection.alive_at >= 0.45


async def test_a_half_open_line_counts_from_the_last_message_that_came_through(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        for _ in range(2):
            await peer.expect("pusher:ping")
            await peer.send("pusher:pong")
        await peer.wait_closed(15)

    async with ScriptedServer(script) as server, FaultProxy(server.host, server.port) as proxy:
        async with opened(server, inbox, port=proxy.port, ping_interval=0.2, pong_timeout=0.4) as connection:
            await inbox.next()
            await inbox.next()
            heard = monotonic()
            proxy.hit(Link.black_hole)
            await asyncio.wait_for(connection.wait_lost(), 5)
            assert connection.alive_at <= heard
            assert monotonic() - connection.alive_at >= 0.55
        proxy.hit(Link.abort)


# --- the end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["by the server", "by us", "by nobody"])
async def test_the_end_is_told_once_when_nothing_can_be_sent_any_more(inbox: Inbox, end: str) -> None:
    ends: list[bool] = []

    async def script(peer: Peer) -> None:
        await peer.establish()
        if end == "by the server":
            await peer.close(1001)
        if end != "by nobody":
            await peer.wait_closed()

    async with ScriptedServer(script) as server:
        connection = connection_to(server, inbox, on_end=lambda: ends.append(connection.is_open))
        await connection.open(None)
        if end == "by us":
            await connection.close()
        await asyncio.wait_for(connection.wait_lost(), 5)
        await connection.close()
        connection.abort()
        assert ends == [False]


@pytest.mark.parametrize("end", ["close frame", "end of stream"])
@pytest.mark.parametrize("behind", ["the greeting", "the handshake"])
async def test_an_end_in_the_same_segment_as_the_greeting(inbox: Inbox, behind: str, end: str) -> None:
    """Nothing of the connection goes on behind its end, be it as early as can be."""
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))

    async def script(peer: Peer) -> None:
        await peer.upgrade()
        greeting = encode_frame(TEXT, encode_message("pusher:connection_established", {"socket_id": "1.1"}))
        await peer.send_raw(greeting + (encode_frame(CLOSE, b"\x03\xe9") if end == "close frame" else b""))

    async with ScriptedServer(script) as server, FaultProxy(server.host, server.port) as proxy:
        if behind == "the handshake":
            proxy.arm(partial(Link.merge, seconds=0.1))
        connection = connection_to(server, inbox, port=proxy.port, ping_interval=0.05, pong_timeout=0.05)
        await connection.open(None)
        await asyncio.wait_for(connection.wait_lost(), 5)
        await quiet_for(0.2)  # in which a timer that is left over would go off
        assert not connection.is_open
        assert connection.alive_at >= connection.opened_at
    assert problems == []


async def test_closing_sends_1000_and_waits_for_the_server(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.wait_closed()
        assert peer.control[-1].payload == (1000).to_bytes(2, "big")

    async with ScriptedServer(script) as server:
        async with opened(server, inbox) as connection:
            assert connection.is_open
        assert not connection.is_open
        await connection.close()  # once more does nothing


@pytest.mark.parametrize("end", ["no close frame", "no end of stream", "no end behind its own close frame"])
async def test_a_server_that_does_not_close_is_waited_for_two_seconds_at_most(inbox: Inbox, end: str) -> None:
    done = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        if end == "no end of stream":
            await peer.close((await peer.receive_frame()).opcode and 1000)
        elif end == "no end behind its own close frame":
            await peer.close(1001)
        await done.wait()

    async with ScriptedServer(script) as server:
        connection = connection_to(server, inbox)
        await connection.open(None)
        since = monotonic()
        if end == "no end behind its own close frame":
            assert "code 1001" in str(await asyncio.wait_for(connection.wait_lost(), 5))
        else:
            await asyncio.wait_for(connection.close(), 5)
        assert monotonic() - since < 2.5
        assert client_tasks() == set()
        done.set()


async def test_a_close_that_is_cancelled_does_not_wait_for_the_server(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        with suppress(HungUpError):
            while True:
                assert (await peer.receive_frame()).opcode == CLOSE  # which is not answered

    async with ScriptedServer(script) as server:
        connection = connection_to(server, inbox)
        await connection.open(None)
        since = monotonic()
        closing = asyncio.ensure_future(connection.close())
        await until(lambda: server.peers[0].control)
        closing.cancel()
        await asyncio.wait({closing})
        assert closing.cancelled()
        await asyncio.wait_for(connection.wait_lost(), 1)
        assert monotonic() - since < 1
        assert client_tasks() == set()


async def test_closing_while_reading_is_paused_reads_the_servers_answer() -> None:
    async def script(peer: Peer) -> None:
        await fill(peer)
        await peer.wait_closed()

    paused = Paused()
    async with ScriptedServer(script) as server, paused.opened(server) as connection:
        since = monotonic()
        await connection.close()
        assert monotonic() - since < 1


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", None, "without a code"),
        (b"\x03\xe8", 1000, "code 1000"),
        (b"\x03\xf1Maximum message size exceeded", 1009, "code 1009: Maximum message size exceeded"),
        (b"\x0f\xa1", 4001, "code 4001"),
        (b"\x10\x68", 4200, "code 4200"),
    ],
)
async def test_the_servers_close_frame_is_answered_and_is_the_reason(
    inbox: Inbox, payload: bytes, code: int | None, reason: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.send_frame(CLOSE, payload)
        frame = await peer.receive_frame()
        assert (frame.opcode, frame.payload[:2]) == (CLOSE, payload[:2] or b"\x03\xe8")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        loss = await asyncio.wait_for(connection.wait_lost(), 5)
        assert loss.code == code
        assert reason in str(loss)
        assert f"127.0.0.1:{server.port}" in str(loss)


async def test_a_message_that_was_too_large_is_named_without_what_it_carries(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("client-status")
        await peer.close(1009, "Maximum message size exceeded")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        payload = b'{"event":"client-status","channel":"private-x","data":{"token":"SECRET"}}'
        connection.send_silent(payload)
        loss = str(await asyncio.wait_for(connection.wait_lost(), 5))
        assert f"'client-status' on 'private-x' with {len(payload)} bytes" in loss
        assert "REVERB_MAX_MESSAGE_SIZE is 10000" in loss
        assert "SECRET" not in loss


async def test_the_last_words_of_reverb_are_the_reason(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.send("pusher:error", r'{"code":4201,"message":"Pong reply not received in time"}')

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        loss = await asyncio.wait_for(connection.wait_lost(), 5)
        assert loss.code == 4201
        assert "Pong reply not received in time" in str(loss)


async def test_an_error_that_was_not_the_last_word_is_not_the_reason(inbox: Inbox) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.send("pusher:error", r'{"code":4200,"message":"Invalid message format"}')
        await peer.expect("pusher:pong")
        await peer.send("e", "1", "c")

    async with ScriptedServer(script) as server, opened(server, inbox) as connection:
        await inbox.next()
        connection.send_silent(b'{"event":"pusher:pong"}')
        loss = await asyncio.wait_for(connection.wait_lost(), 5)
        assert loss.code is None
        assert "without a close frame" in str(loss)
