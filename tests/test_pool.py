"""HTTP/1.1 as SyncReverbAPI speaks it: answers, connections that are kept, time, proxies, threads, forks."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from reverb import APIError, ChannelInfo, ConnectionError, ReverbError, SyncReverbAPI, TimeoutError
from tests.certificates import make_certificates
from tests.scripted_http import Answer, ScriptedHTTPServer, TunnelProxy, answer
from tests.watching import until

SECRET = "s3cret-of-the-application"
BODY = b'{"channels":{"news":{}}}'
NEWS = {"news": ChannelInfo()}
OK = answer(200, BODY)


def api_for(server: ScriptedHTTPServer, **options: Any) -> SyncReverbAPI:
    settings: dict[str, Any] = {"host": server.host, "port": server.port, "scheme": "ws", "app_id": "42"}
    return SyncReverbAPI(**{**settings, "app_key": "app-key", "app_secret": SECRET, **options})


def in_pieces(*pieces: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """Answer with these, each in a packet of its own, and hang up."""

    async def send(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    return send


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks) + end


# --- answers ---------------------------------------------------------------------------------------------------

LENGTH = b"Content-Length: %d\r\n" % len(BODY)


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        pytest.param(OK, True, id="plain"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-LENGTH:%d  \r\n\r\n%b" % (len(BODY), BODY), True, id="headers"),
        pytest.param(b"HTTP/1.1 200\r\n%b\r\n%b" % (LENGTH, BODY), True, id="no reason"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n" + OK, True, id="interim"),
        pytest.param(chunked(BODY), True, id="a chunk"),
        pytest.param(chunked(BODY[:1], BODY[1:]), True, id="chunks"),
        pytest.param(chunked(BODY, end=b"0\r\nTrailer: a\r\nOther: b\r\n\r\n"), True, id="trailers"),
        pytest.param(chunked(BODY).replace(b"18\r\n", b"0018 ;name=value\r\n"), True, id="extension"),
        pytest.param(in_pieces(*(chunked(BODY)[n : n + 1] for n in range(90))), False, id="byte by byte"),
        pytest.param(in_pieces(b"HTTP/1.1 200 OK\r\n\r\n", BODY), False, id="until the end"),
        pytest.param(b"HTTP/1.0 200 OK\r\n%b\r\n%b" % (LENGTH, BODY), False, id="HTTP/1.0"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n%b\r\n%b" % (LENGTH, BODY), True, id="kept HTTP/1.0"
        ),
        pytest.param(answer(200, BODY, "Connection: close"), False, id="close"),
        pytest.param(OK + b"HTTP/1.1 200 OK\r\n", False, id="more than an answer"),
        pytest.param(OK + OK, False, id="two answers"),
    ],
)
async def test_answers_and_whether_their_connection_is_kept(given: Answer, is_kept: bool) -> None:
    async with ScriptedHTTPServer(given, OK) as server:
        with api_for(server) as api:
            assert await asyncio.to_thread(api.channels) == NEWS
            assert await asyncio.to_thread(api.channels) == NEWS
        assert server.connections == (1 if is_kept else 2)


@pytest.mark.parametrize(
    "given",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200\r\n" + bytes(70_000),
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 70_000,
    ],
)
async def test_answers_that_are_no_http(given: bytes) -> None:
    async with ScriptedHTTPServer(given) as server:
        with api_for(server) as api, pytest.raises(ConnectionError, match=r"did not answer GET .* with HTTP: "):
            await asyncio.to_thread(api.channels)


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(status: int) -> None:
    async with ScriptedHTTPServer(b"HTTP/1.1 %d Whatever\r\n\r\n" % status, OK) as server:
        with api_for(server) as api:
            with pytest.raises(APIError) as caught:
                await asyncio.to_thread(api.channels)
            assert caught.value.status == status
            assert await asyncio.to_thread(api.channels) == NEWS
        assert server.connections == 1


# --- connections that are kept ---------------------------------------------------------------------------------


async def test_a_connection_that_the_server_has_closed_is_not_used() -> None:
    async with ScriptedHTTPServer(in_pieces(OK), OK) as server:
        with api_for(server) as api:
            await asyncio.to_thread(api.channels)
            await until(lambda: not server.open)
            await asyncio.to_thread(api.trigger, "news", "e", 1)  # which would not be sent twice
        assert len(server.requests) == 2


async def test_a_connection_that_is_old_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverb.http.KEEPALIVE", 0.0)
    async with ScriptedHTTPServer(OK) as server:
        with api_for(server) as api:
            await asyncio.to_thread(api.channels)
            await asyncio.to_thread(api.channels)
        assert server.connections == 2


async def test_close_ends_what_is_idle_and_lets_what_is_in_use_end() -> None:
    go_on = asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(OK)

    async with ScriptedHTTPServer(OK, slow, OK) as server:
        api = api_for(server, pool_size=1)
        await asyncio.to_thread(api.channels)
        in_use = asyncio.ensure_future(asyncio.to_thread(api.channels))
        await until(lambda: len(server.requests) == 2)
        await asyncio.to_thread(api.close)
        go_on.set()
        assert await in_use == NEWS
        await until(lambda: not server.open)
        assert await asyncio.to_thread(api.channels) == NEWS
        api.close()


# --- time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n"]
)
async def test_an_answer_that_comes_slowly_has_a_deadline(start: bytes) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(b"H" if start else b"")
            await asyncio.sleep(0.02)

    async with ScriptedHTTPServer(drip) as server:
        with api_for(server, request_timeout=0.3) as api:
            started = monotonic()
            with pytest.raises(TimeoutError, match=r"within 0\.3 seconds"):
                await asyncio.to_thread(api.channels)
            assert monotonic() - started < 5


async def test_a_request_that_nobody_reads_has_a_deadline() -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await released.wait()
        writer.close()

    released = asyncio.Event()
    server = await asyncio.start_server(ignore, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    api = SyncReverbAPI(
        host="127.0.0.1", port=port, scheme="ws", app_id="42", app_key="k", app_secret=SECRET,
        request_timeout=0.5, max_request_size=10**9,
    )  # fmt: skip
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(api.trigger, "news", "e", "x" * 30_000_000)
    api.close()
    released.set()
    server.close()
    await server.wait_closed()


async def test_looking_up_a_name_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*args: Any, **options: Any) -> Any:
        released.wait(30)
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", hang)
    with (
        SyncReverbAPI(
            host="reverb.invalid", app_id="42", app_key="k", app_secret=SECRET, request_timeout=0.2
        ) as api,
        pytest.raises(TimeoutError),
    ):
        await asyncio.to_thread(api.channels)
    released.set()
    await until(lambda: all(each.name != "reverb-name" for each in threading.enumerate()))


# --- proxies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_tls", [False, True])
async def test_tls_through_a_proxy(tmp_path: Path, is_tls: bool) -> None:
    certificates = make_certificates(tmp_path)
    async with (
        ScriptedHTTPServer(OK, ssl_context=certificates.server) as server,
        TunnelProxy(certificates.server if is_tls else None) as proxy,
    ):
        url = f"http{'s' if is_tls else ''}://user:pass%40word@127.0.0.1:{proxy.port}"
        with api_for(server, scheme="wss", proxy=url, ssl_context=certificates.client) as api:
            for _ in range(3):
                assert await asyncio.to_thread(api.channels) == NEWS
        assert len(server.requests) == 3
        assert b"Proxy-Authorization" not in server.requests[0].raw
    (head,) = proxy.heads
    assert head == (
        b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
        b"Proxy-Authorization: Basic dXNlcjpwYXNzQHdvcmQ=\r\n\r\n" % (server.port, server.port)
    )


async def test_a_proxy_that_sends_more_than_its_answer() -> None:
    """It would come before the server's first byte, and so be read as TLS of the server."""
    async with ScriptedHTTPServer(b"HTTP/1.1 200 OK\r\n\r\nmore") as proxy:
        with (
            api_for(proxy, host="reverb.invalid", scheme="wss", proxy=f"http://127.0.0.1:{proxy.port}") as api,
            pytest.raises(ConnectionError, match="proxy"),
        ):
            await asyncio.to_thread(api.channels)
        assert proxy.requests[0].raw.startswith(b"CONNECT reverb.invalid:")


async def test_a_proxy_passes_plain_requests_on() -> None:
    async with ScriptedHTTPServer(OK) as proxy:
        url = f"http://user:pass%40word@127.0.0.1:{proxy.port}"
        with api_for(proxy, host="reverb.invalid", port=80, proxy=url) as api:
            assert await asyncio.to_thread(api.channels) == NEWS
        head = proxy.requests[0].raw
    assert head.startswith(b"GET http://reverb.invalid:80/apps/42/channels?")
    assert b"\r\nProxy-Authorization: Basic dXNlcjpwYXNzQHdvcmQ=\r\n" in head


async def test_a_proxy_whose_certificate_is_not_trusted(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with TunnelProxy(certificates.server) as proxy:
        api = SyncReverbAPI(
            host="reverb.invalid", app_id="42", app_key="k", app_secret=SECRET,
            proxy=f"https://127.0.0.1:{proxy.port}", request_timeout=5,
        )  # fmt: skip
        with pytest.raises(ConnectionError, match=r"no connection to the proxy: .*certificate"):
            await asyncio.to_thread(api.channels)
        api.close()


# --- threads and forks -----------------------------------------------------------------------------------------


@pytest.fixture
def _often_another_thread() -> Iterator[None]:
    """Threads take turns after a microsecond, and so between any two lines."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_often_another_thread")
@pytest.mark.parametrize("size", [4, 20])
async def test_many_threads_share_the_pool(size: int) -> None:
    async with ScriptedHTTPServer(OK) as server:
        with api_for(server, pool_size=size) as api:
            outcomes: list[Any] = []

            def work() -> None:
                for _ in range(50):
                    try:
                        outcomes.append(api.channels())
                        api.trigger("news", "e", 1)  # which is not tried again
                    except ReverbError as error:
                        outcomes.append(error)

            threads = [threading.Thread(target=work) for _ in range(16)]
            for thread in threads:
                thread.start()
            await until(lambda: not any(thread.is_alive() for thread in threads), 40)
        assert outcomes == [NEWS] * 800
        assert len(server.requests) == 1600
        assert server.connections <= size


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
async def test_a_fork_has_connections_of_its_own(tmp_path: Path) -> None:
    """Of an API that was used before, and that a thread is using when the process forks."""
    program = """
import os, sys, threading
from reverb import SyncReverbAPI

settings = dict(host="127.0.0.1", port=int(sys.argv[1]), scheme="ws", app_id="1", app_key="k", app_secret="s")
api = SyncReverbAPI(**settings, pool_size=1)

def publish(event):
    api.trigger("news", event, os.getpid())

publish("e")
for _ in range(3):
    busy = threading.Thread(target=publish, args=("wait",))
    busy.start()
    with SyncReverbAPI(**settings) as other:
        while not other.channels():
            pass
    child = os.fork()
    if not child:
        publish("e")
        grandchild = os.fork()
        if not grandchild:
            publish("e")
            os._exit(0)
        assert os.waitpid(grandchild, 0)[1] == 0
        publish("release")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    busy.join()
    publish("e")
"""
    seen: list[tuple[int, int]] = []
    """The connections of events, and the processes that published them."""
    waiting: list[asyncio.Event] = []

    numbers = itertools.count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = next(numbers)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET"):
                    writer.write(answer(200, BODY if waiting else "{}"))
                    continue
                length = re.search(rb"Content-Length: (\d+)", head)
                assert length is not None
                event = json.loads(await reader.readexactly(int(length[1])))
                seen.append((connection, int(event["data"])))
                if event["name"] == "wait":
                    waiting.append(asyncio.Event())
                    await waiting[-1].wait()
                elif event["name"] == "release":
                    waiting.pop().set()
                writer.write(answer(200))
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", program, str(port), cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    server.close()
    await server.wait_closed()
    assert process.returncode == 0, errors.decode()
    assert len(seen) == 1 + 3 * 5
    assert len({process for _, process in seen}) == 1 + 3 * 2
    assert len({connection for connection, _ in seen}) == 1 + 3 * 2
    assert len(set(seen)) == 1 + 3 * 2
