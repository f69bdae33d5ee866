"""The HTTP API against servers that misbehave: what is tried again, what is raised, what is left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import pickle
import re
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from reverb import (
    APIError,
    BatchError,
    BatchEvent,
    BatchResult,
    ChannelInfo,
    ConfigurationError,
    ConnectionError,
    ProtocolError,
    ReverbAPI,
    ReverbClient,
    ReverbConfig,
    ReverbError,
    TimeoutError,
    _calls,
)
from reverb.crypto import decrypt, derive_shared_secret
from reverb.server import ReverbServer
from tests.certificates import make_certificates
from tests.integration.servers import free_ports
from tests.scripted import Peer, ScriptedServer
from tests.scripted_http import (
    BOMB,
    MB,
    Answer,
    Flood,
    ScriptedHTTPServer,
    answer,
    bounded_memory,
    hang_up,
    never,
)
from tests.shells import AIOHTTP_CHECKS_ADDRESSES, Shell
from tests.test_rest import VECTORS
from tests.watching import until, wait_turns

SECRET = "s3cret-of-the-application"
OK = answer(200)


SETTINGS: dict[str, Any] = {"app_id": "42", "app_key": "app-key", "app_secret": SECRET}


@pytest.fixture
def api_for(shell: Shell) -> Shell:
    """Makes the API of a server."""

    def make(server: ScriptedHTTPServer | ScriptedServer | ReverbServer, **options: Any) -> Any:
        return shell(**{"host": server.host, "port": server.port, "scheme": "ws", **SETTINGS, **options})

    return make


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_calls, "_RETRY_DELAYS", (0.01, 0.02, 0.04))


async def cut_short(writer: asyncio.StreamWriter) -> None:
    """End in the middle of an answer."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")


# --- answers without bounds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("status", [200, 400])
async def test_what_is_compressed_is_not_unpacked(api_for: Shell, status: int, encoding: str) -> None:
    async with (
        ScriptedHTTPServer(answer(status, BOMB, f"Content-Encoding: {encoding}")) as server,
        api_for(server) as api,
    ):
        with bounded_memory(8 * MB), pytest.raises(APIError, match="a compressed body") as caught:
            await api.channels()
        assert b"Accept-Encoding" not in server.requests[0].raw
    assert caught.value.status == status


@pytest.mark.parametrize("head", ["Content-Length: 1000000000", "Connection: close", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("status", [200, 400])
async def test_a_body_that_does_not_end(api_for: Shell, status: int, head: str) -> None:
    flood = Flood(status, head)
    async with ScriptedHTTPServer(flood) as server, api_for(server) as api:
        reason = (
            r"with 200 and more than 16777216 bytes \(ask with a prefix to get fewer channels\)"
            if status == 200
            else "with 400: "
        )
        with bounded_memory(64 * MB), pytest.raises(APIError, match=reason):
            await api.channels()
        with pytest.raises(APIError, match="more than" if status == 200 else "with 400: "):
            await api.trigger("news", "e", 1)
    assert 0 < flood.most_sent < 32 * MB


# --- the request -----------------------------------------------------------------------------------------------


async def test_a_path_is_sent_as_urls_have_it(api_for: Shell) -> None:
    async with ScriptedHTTPServer(OK) as server, api_for(server, path="/a b/é") as api:
        await api.trigger("news", "paid", {})
    assert server.requests[0].target.startswith("/a%20b/%C3%A9/apps/42/")


@pytest.mark.parametrize("path", ["", "/a b/ws"])
async def test_the_size_of_a_request_is_what_is_sent(api_for: Shell, path: str) -> None:
    event: Any = (["news", "private-é"], "paid", {"id": 1})
    options = {"socket_id": "1.2", "info": "user_count"}
    async with ScriptedHTTPServer(OK) as server:
        async with api_for(server, path=path) as api:
            await api.trigger(*event, **options)
            size = len(server.requests[0].raw)
        async with api_for(server, path=path, max_request_size=size) as api:
            await api.trigger(*event, **options)
        async with api_for(server, path=path, max_request_size=size - 1) as api:
            with pytest.raises(ProtocolError, match=f"too large to publish: {size} bytes"):
                await api.trigger(*event, **options)


async def test_calls_share_connections_and_the_pool_is_bounded(api_for: Shell) -> None:
    async with ScriptedHTTPServer(OK) as server, api_for(server, pool_size=3) as api:
        for _ in range(5):
            await api.trigger("news", "e", 1)
        assert server.connections == 1
        await asyncio.gather(*(api.trigger("news", "e", n) for n in range(50)))
        assert len(server.requests) == 55
        assert server.connections == 3


async def test_cookies_are_not_kept(api_for: Shell) -> None:
    async with ScriptedHTTPServer(answer(200, "{}", "Set-Cookie: a=b")) as server, api_for(server) as api:
        await api.trigger("news", "e", 1)
        await api.trigger("news", "e", 1)
        assert b"ookie" not in server.requests[1].raw


async def test_after_close_there_are_new_connections(api_for: Shell) -> None:
    async with ScriptedHTTPServer(OK) as server:
        api = api_for(server)
        await api.close()
        await api.trigger("news", "e", 1)
        await api.close()
        await api.trigger("news", "e", 1)
        await api.close()
        assert server.connections == 2


async def test_close_during_a_retry_leaves_nothing_open(api_for: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    has_paused, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def pause(seconds: float) -> None:
        loop.call_soon_threadsafe(has_paused.set)
        assert go_on.wait(10)

    async with ScriptedHTTPServer(answer(503), OK) as server:
        api = api_for(server)
        with monkeypatch.context() as patch:
            patch.setattr(time, "sleep", pause)
            patch.setattr(asyncio, "sleep", lambda seconds: asyncio.to_thread(pause, seconds))
            call = asyncio.ensure_future(api.channels())
            await has_paused.wait()
            await api.close()
            go_on.set()
            with pytest.raises(
                ConnectionError, match=r"GET /apps/42/channels .* was cancelled: close\(\) was called"
            ):
                await call
        await until(lambda: not server.open)
        assert await api.channels() == {}
        await api.close()
        await until(lambda: not server.open)


async def test_tls(api_for: Shell, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with ReverbServer(path="/ws", ssl_context=certificates.server) as server:
        options = {"app_id": "app-id", "app_secret": "app-secret", "scheme": "https", "path": "ws"}
        async with api_for(server, **options, ssl_context=certificates.client) as api:
            assert await api.health()
            assert await api.connections() == 0
        started = monotonic()
        async with api_for(server, **options) as api:
            with pytest.raises(
                ConnectionError, match=r"cannot connect to 127.*certificate is not trusted.*fullchain"
            ):
                await api.health()
        async with api_for(server, **{**options, "scheme": "ws"}) as api:
            with pytest.raises(ConnectionError):
                await api.trigger("news", "e", 1)
        assert monotonic() - started < 5


@pytest.mark.parametrize(
    ("names", "days", "hint"),
    [
        ((), (-30, -4), "the certificate expired; likely: The certificate was not renewed"),
        ((), (3, 30), "the certificate is not valid yet; likely: This machine's clock is wrong"),
        (("other.example",), (-1, 30), "the certificate is not for 127.0.0.1"),
    ],
)
async def test_certificates(
    api_for: Shell, tmp_path: Path, names: tuple[str, ...], days: tuple[int, int], hint: str
) -> None:
    certificates = make_certificates(tmp_path, *names, days=days)
    async with (
        ScriptedHTTPServer(OK, ssl_context=certificates.server) as server,
        api_for(server, scheme="wss", ssl_context=certificates.client) as api,
    ):
        with pytest.raises(ConnectionError, match=f"cannot connect to 127.*{hint}"):
            await api.health()


async def test_tls_spoken_to_a_plain_port(api_for: Shell) -> None:
    async def bad_request(peer: Peer) -> None:
        await peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def reset(peer: Peer) -> None:
        peer.reset()

    for script in (bad_request, reset):
        async with ScriptedServer(script) as server, api_for(server, scheme="wss") as api:
            with pytest.raises(ConnectionError, match=r"cannot connect to 127.*REVERB_SCHEME"):
                await api.health()


async def test_a_proxy_that_refuses_or_is_not_there(shell: Shell) -> None:
    async with ScriptedHTTPServer(answer(407)) as proxy:
        settings: Any = {"host": "h.invalid", "app_id": "42", "app_key": "k", "app_secret": SECRET}
        url = f"http://u:P4SS@127.0.0.1:{proxy.port}"
        async with shell(**settings, proxy=url) as api:
            with pytest.raises(ConnectionError, match="requires a login: it answered with 407") as refused:
                await api.health()
    async with shell(**settings, proxy=url, request_timeout=1) as api:
        with pytest.raises(ConnectionError, match=f"REVERB_PROXY=http://127.0.0.1:{proxy.port} is wrong") as dead:
            await api.health()
    assert "P4SS" not in f"{refused.value} {dead.value}"


# --- trying again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "call", "attempts"),
    [
        (answer(503), "trigger", 2),
        (answer(503), "channels", 2),
        (answer(502), "trigger", 1),
        (answer(504), "trigger", 1),
        (hang_up, "trigger", 1),
        (cut_short, "trigger", 1),
        (cut_short, "channels", 2),
        (answer(502), "channels", 2),
        (answer(504), "channels", 2),
        (hang_up, "channels", 2),
        (answer(502), "idempotent trigger", 2),
        (hang_up, "idempotent trigger", 2),
        (answer(504), "idempotent batch", 2),
        (hang_up, "batch", 1),
        (answer(502), "idempotent user", 2),
        (answer(502), "user", 1),
        (answer(500), "channels", 1),
        (answer(429), "channels", 1),
        (answer(401), "idempotent trigger", 1),
        (answer(200, "<html>"), "channels", 1),
    ],
)
async def test_what_is_tried_again(api_for: Shell, fault: Answer, call: str, attempts: int) -> None:
    again = call.startswith("idempotent")
    async with ScriptedHTTPServer(fault, OK) as server, api_for(server) as api:
        calls: dict[str, Callable[[], Any]] = {
            "channels": api.channels,
            "trigger": lambda: api.trigger("news", "e", 1, idempotent=again),
            "batch": lambda: api.trigger_batch([BatchEvent("news", "e", 1)], idempotent=again),
            "user": lambda: api.send_to_user("7", "e", 1, idempotent=again),
        }
        name = call.removeprefix("idempotent ")
        if attempts == 1:
            with pytest.raises(ReverbError) as caught:
                await calls[name]()
            error = caught.value.__cause__ if name == "batch" else caught.value
            assert isinstance(error, APIError if isinstance(fault, bytes) else ConnectionError)
        else:
            await calls[name]()
        assert len(server.requests) == attempts


async def test_there_is_an_end_to_it(api_for: Shell) -> None:
    async with ScriptedHTTPServer(answer(503, "<html>")) as server, api_for(server) as api:
        with pytest.raises(APIError, match="with 503: an HTML page; the server is starting") as caught:
            await api.trigger("news", "e", 1)
        assert caught.value.status == 503
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [(["Retry-After: 7"], 7.0), ([], None), (["Retry-After: Wed, 21 Oct 2026 07:28:00 GMT"], None)],
    ids=["seconds", "nothing", "date"],
)
async def test_an_error_says_when_to_ask_again(api_for: Shell, headers: list[str], seconds: float | None) -> None:
    async with ScriptedHTTPServer(answer(429, "{}", *headers)) as server, api_for(server) as api:
        with pytest.raises(APIError) as caught:
            await api.channels()
        assert caught.value.retry_after == seconds


async def test_a_server_that_is_just_starting(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    async with shell(
        host="127.0.0.1", port=port, scheme="ws", app_id="app-id", app_key="app-key", app_secret="app-secret"
    ) as api:
        with pytest.raises(
            ConnectionError, match=f"cannot connect to 127.0.0.1:{port}: nothing listens.*REVERB_PORT={port}"
        ):
            await api.trigger("news", "e", 1)
        monkeypatch.setattr(_calls, "_RETRY_DELAYS", (0.5, 0.5, 0.5))
        publishing = asyncio.ensure_future(api.trigger("news", "e", 1))
        await asyncio.sleep(0)
        async with ReverbServer(port=port):
            assert await publishing == {}


async def test_a_name_that_does_not_exist(shell: Shell) -> None:
    async with shell(
        host="reverb.invalid", app_id="42", app_key="k", app_secret=SECRET, request_timeout=20
    ) as api:
        with pytest.raises(ConnectionError, match=r"cannot connect to reverb\.invalid:443: .*REVERB_HOST"):
            await api.trigger("news", "e", 1)


@pytest.mark.parametrize("host", ["192.168.1.300", "127.0.0.1."])
async def test_a_host_that_is_no_ip_address(shell: Shell, host: str) -> None:
    if shell is ReverbAPI and not AIOHTTP_CHECKS_ADDRESSES:
        pytest.skip("this aiohttp looks up a wrong IP address like a name")
    settings: dict[str, Any] = {"app_id": "app", "app_key": "key", "app_secret": "secret"}
    async with shell(host=host, **settings) as api:
        with pytest.raises(ConnectionError, match=r"neither a name nor an IP address \(REVERB_HOST\)"):
            await api.connections()
    async with shell(host="reverb.invalid", proxy=f"http://{host}:1", **settings) as api:
        with pytest.raises(
            ConnectionError, match=r"neither a name nor an IP address \(REVERB_HOST, REVERB_PROXY\)"
        ):
            await api.connections()


async def test_answers_that_are_no_http(api_for: Shell) -> None:
    async with ScriptedHTTPServer(b"SSH-2.0-OpenSSH\r\n\r\n") as server, api_for(server) as api:
        with pytest.raises(ConnectionError, match=r"did not answer POST /apps/42/events with HTTP"):
            await api.trigger("news", "e", 1)
        assert len(server.requests) == 1


async def test_redirects_are_not_followed(api_for: Shell) -> None:
    async with ScriptedHTTPServer(answer(301, "", "Location: https://elsewhere.invalid/")) as server:
        async with api_for(server) as api:
            with pytest.raises(APIError, match=r"the server redirects; check REVERB_SCHEME"):
                await api.trigger("news", "e", 1)
        assert len(server.requests) == 1


async def test_answers_are_checked(api_for: Shell) -> None:
    bad = answer(200, '{"channels": {"a": {"user_count": "many"}}}')
    async with ScriptedHTTPServer(bad) as server, api_for(server) as api:
        for call in (api.channels, api.connections, api.health):
            with pytest.raises(APIError, match="other JSON than expected"):
                await call()
        assert await api.users("presence-a") == []


# --- time ------------------------------------------------------------------------------------------------------


async def test_the_timeout_is_for_the_whole_call(api_for: Shell) -> None:
    async with ScriptedHTTPServer(answer(503), never) as server, api_for(server, request_timeout=0.3) as api:
        started = monotonic()
        with pytest.raises(
            TimeoutError, match=r"did not answer GET .* within 0\.3 seconds .REVERB_REQUEST_TIMEOUT"
        ):
            await api.channels()
        assert 0.25 < monotonic() - started < 5
        assert len(server.requests) == 2


async def test_no_attempt_begins_after_the_timeout(api_for: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_calls, "_RETRY_DELAYS", (60.0,))
    async with ScriptedHTTPServer(answer(503)) as server, api_for(server, request_timeout=5) as api:
        started = monotonic()
        with pytest.raises(APIError):
            await api.channels()
        assert monotonic() - started < 4
        assert len(server.requests) == 1


async def test_an_attempt_that_begins_late_has_an_end(api_for: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedHTTPServer(answer(503), never) as server, api_for(server, request_timeout=0.2) as api:

        async def oversleep(seconds: float) -> None:
            monkeypatch.undo()
            await asyncio.sleep(0.3)

        monkeypatch.setattr(asyncio, "sleep", oversleep)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(api.channels(), 5)


async def test_waiting_for_a_connection_of_the_pool_counts(api_for: Shell) -> None:
    async with ScriptedHTTPServer(never) as server:
        async with api_for(server, request_timeout=1, pool_size=1) as api:
            started = monotonic()
            outcomes = await asyncio.gather(api.channels(), api.channels(), return_exceptions=True)
            took = monotonic() - started
        assert [type(outcome) for outcome in outcomes] == [TimeoutError, TimeoutError]
        assert took < 1.9  # two seconds if the second call's time began behind the first


async def test_a_cancelled_call_frees_its_connection() -> None:
    async with (
        ScriptedHTTPServer(never, OK) as server,
        ReverbAPI(host=server.host, port=server.port, scheme="ws", pool_size=1, **SETTINGS) as api,
    ):
        call = asyncio.ensure_future(api.channels())
        await until(lambda: server.requests)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await api.channels() == {}


# --- event loops -----------------------------------------------------------------------------------------------


def api_of(server: ScriptedHTTPServer) -> ReverbAPI:
    return ReverbAPI(host=server.host, port=server.port, scheme="ws", **SETTINGS)


async def test_one_event_loop_after_another() -> None:
    async with ScriptedHTTPServer(OK) as server:
        api = api_of(server)
        for number in range(1, 4):
            assert await asyncio.to_thread(lambda: asyncio.run(api.channels())) == {}
            assert server.connections == number
            await until(lambda: not server.open)  # though nobody has closed it
        assert await api.channels() == {}
        await api.close()


async def test_several_event_loops_at_once() -> None:
    async def publish(api: ReverbAPI) -> None:
        await asyncio.gather(*(api.trigger("news", "e", n) for n in range(10)))

    async with ScriptedHTTPServer(OK) as server:
        api = api_of(server)
        for _ in range(5):
            await asyncio.gather(*(asyncio.to_thread(lambda: asyncio.run(publish(api))) for _ in range(4)))
        assert len(server.requests) == 200
        await until(lambda: not server.open)


@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning"
)  # Python's own, for a loop that was closed like this
async def test_an_event_loop_that_was_just_closed() -> None:
    def use_and_close(api: ReverbAPI) -> None:
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(api.channels()) == {}
        loop.close()

    async with ScriptedHTTPServer(OK) as server:
        api = api_of(server)
        for _ in range(3):
            await asyncio.to_thread(use_and_close, api)
        assert await api.channels() == {}
        gc.collect()
        await until(lambda: server.open == 1)
        await api.close()


def test_an_event_loop_that_goes_on_after_its_end_was_announced() -> None:
    """As a loop does that was lent to somebody who cleans up behind himself."""

    async def run() -> None:
        async with ScriptedHTTPServer(OK) as server:
            api = api_of(server)
            await asyncio.gather(api.channels(), api.channels())
            await asyncio.get_running_loop().shutdown_asyncgens()
            await until(lambda: not server.open)
            with pytest.warns(ResourceWarning, match="asynchronous generator"):
                assert await api.channels() == {}
            await api.close()

    asyncio.run(run())


async def test_close_while_the_first_call_prepares() -> None:
    async with ScriptedHTTPServer(OK) as server:
        api = api_of(server)
        for turn in range(1, 50):  # at 0 the call would begin behind close()
            call = asyncio.ensure_future(api.channels())
            await wait_turns(turn)
            await api.close()
            with suppress(ConnectionError):
                await call
            await until(lambda: not server.open)


# --- batches ---------------------------------------------------------------------------------------------------


async def test_a_batch_stops_at_the_first_failure_and_says_what_was_accepted(api_for: Shell) -> None:
    events = [BatchEvent("news", str(n), n) for n in range(35)]
    async with ScriptedHTTPServer(OK, OK, answer(413), OK) as server, api_for(server) as api:
        with pytest.raises(
            BatchError, match=r"^the server accepted 20 events, then a request failed: .*with 413"
        ) as caught:
            await api.trigger_batch(events)
        assert caught.value.accepted == 20
        assert caught.value.code == 413
        assert isinstance(caught.value.__cause__, APIError)
        assert len(server.requests) == 3
        sent = [event["name"] for body in server.bodies() for event in json.loads(body)["batch"]]
        assert sent == [str(n) for n in range(30)]


async def test_nothing_of_a_batch_is_sent_when_one_event_is_too_large(api_for: Shell) -> None:
    events = [BatchEvent("news", "e", "x" * size) for size in [1] * 20 + [10_000]]
    async with ScriptedHTTPServer(OK) as server, api_for(server) as api:
        with pytest.raises(ReverbError, match="REVERB_MAX_REQUEST_SIZE"):
            await api.trigger_batch(events)
        assert server.requests == []
        assert await api.trigger_batch(iter(events[:20])) == BatchResult(20, [ChannelInfo()] * 20)
        assert await api.trigger_batch([]) == BatchResult(0, [])


# --- encrypted channels ----------------------------------------------------------------------------------------

MASTER_KEY = b64encode(32 * b"m").decode()
ENCRYPTED = "private-encrypted-orders.7"


def unsealed(data: str) -> Any:
    return json.loads(decrypt(data, derive_shared_secret(ENCRYPTED, 32 * b"m")))


async def test_data_for_encrypted_channels_is_encrypted(api_for: Shell) -> None:
    async with ScriptedHTTPServer(OK) as server, api_for(server, encryption_master_key=MASTER_KEY) as api:
        await api.trigger(ENCRYPTED, "e", {"text": "Zoë ☃"})
        await api.trigger([ENCRYPTED], "e", {"text": "Zoë ☃"}, socket_id="1.2")
        await api.trigger_batch([BatchEvent(ENCRYPTED, "e", [1]), BatchEvent("news", "e", [2])])
        one, other, batch = map(json.loads, server.bodies())
    assert unsealed(one["data"]) == unsealed(other["data"]) == {"text": "Zoë ☃"}
    assert one["data"] != other["data"]  # a nonce is used once
    assert unsealed(batch["batch"][0]["data"]) == [1]
    assert batch["batch"][1]["data"] == "[2]"


async def test_an_encrypted_channel_takes_a_call_of_its_own(api_for: Shell) -> None:
    async with ScriptedHTTPServer(OK) as server, api_for(server, encryption_master_key=MASTER_KEY) as api:
        for channels in (["news", ENCRYPTED], [ENCRYPTED, "private-encrypted-b"]):
            with pytest.raises(ProtocolError, match="needs its own call"):
                await api.trigger(channels, "e", 1)
        assert server.requests == []


async def test_nothing_is_sent_in_clear_for_want_of_the_master_key(api_for: Shell) -> None:
    async with ScriptedHTTPServer(OK) as server, api_for(server) as api:
        with pytest.raises(ConfigurationError, match=f"REVERB_ENCRYPTION_MASTER_KEY is missing: '{ENCRYPTED}'"):
            await api.trigger(ENCRYPTED, "e", 1)
        with pytest.raises(ConfigurationError, match="REVERB_ENCRYPTION_MASTER_KEY is missing"):
            await api.trigger_batch([BatchEvent("news", "e", 1)] * 20 + [BatchEvent(ENCRYPTED, "e", 1)])
        assert server.requests == []


@pytest.mark.parametrize("vector", VECTORS["encrypted"], ids=lambda vector: str(vector["clear"]))
def test_what_pushers_library_encrypts(vector: dict[str, Any]) -> None:
    (channel,) = vector["channels"]
    shared_secret = derive_shared_secret(channel, b64decode(VECTORS["encryption_master_key"]))
    assert json.loads(decrypt(vector["data"], shared_secret)) == vector["clear"]
    (theirs,) = (each["shared_secret"] for each in VECTORS["channels"] if each["channel"] == channel)
    assert b64encode(shared_secret).decode() == theirs


# --- settings --------------------------------------------------------------------------------------------------


def test_settings_that_are_missing() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ReverbAPI(app_key="k", host="h")
    assert re.findall(r"REVERB_\w+", str(caught.value)) == ["REVERB_APP_ID", "REVERB_APP_SECRET"]


def test_a_config_or_settings() -> None:
    config = ReverbConfig(app_key="k", host="h", app_id="42", app_secret=SECRET)
    assert repr(ReverbAPI(config)) == "<ReverbAPI h:443 application 42>"
    with pytest.raises(TypeError, match="either"):
        ReverbAPI(config, port=1)


def test_a_proxy_that_cannot_be_used() -> None:
    with pytest.raises(ConfigurationError, match="REVERB_PROXY") as caught:
        ReverbAPI(app_key="k", host="h", app_id="42", app_secret=SECRET, proxy="socks5://u:pass@h:1")
    assert "pass" not in str(caught.value)


async def test_a_proxy(shell: Shell) -> None:
    async with ScriptedHTTPServer(OK) as proxy:
        async with shell(
            app_key="k", host="h.invalid", scheme="ws", app_id="42", app_secret=SECRET,
            proxy=f"http://u:pass@127.0.0.1:{proxy.port}",
        ) as api:  # fmt: skip
            assert await api.channels() == {}
        assert proxy.requests[0].target.startswith("http://h.invalid:443/apps/42/channels?")


async def test_the_api_of_a_client() -> None:
    async with ReverbServer() as server:
        client = ReverbClient(
            host=server.host, port=server.port, scheme="ws",
            app_id="app-id", app_key="app-key", app_secret="app-secret",
        )  # fmt: skip
        async with client:
            assert client.api is client.api
            await client.subscribe("news")
            assert await client.api.connections() == 1
        assert client._api is not None
        assert client._api._sessions == {}
    with pytest.raises(ConfigurationError, match="REVERB_APP_ID"):
        _ = ReverbClient(app_key="k", host="h").api


def test_aiohttp_is_imported_when_it_is_needed(tmp_path: Path) -> None:
    program = """
import asyncio, sys
sys.modules["aiohttp"] = None
import reverb
try:
    asyncio.run(reverb.ReverbAPI(app_key="k", host="h", app_id="1", app_secret="s").channels())
except reverb.ConfigurationError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=15, check=True
    )
    assert done.stdout == (
        'the HTTP API needs aiohttp, which is not installed: pip install "python-reverb[http]"\n'
    )


# --- secrets and errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [answer(401), answer(503), hang_up, b"nonsense\r\n\r\n", cut_short],
)
async def test_neither_secret_nor_signature_is_told(
    api_for: Shell, fault: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with ScriptedHTTPServer(fault, hang_up) as server, api_for(server) as api:
        with pytest.raises(ReverbError) as caught:
            await api.trigger("news", "e", 1)
        signature = server.requests[0].target.rpartition("auth_signature=")[2]
    assert len(signature) == 64
    told = [repr(caught.value), str(caught.value), repr(api), caplog.text]
    cause: BaseException | None = caught.value
    while cause is not None:
        told.append(repr(cause) + str(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    assert SECRET not in "".join(told)
    assert signature not in "".join(told)
    assert "auth_" not in "".join(told)


@pytest.mark.parametrize("error", [APIError(404, "not there"), BatchError("stopped", accepted=3, code=413)])
def test_errors_can_be_pickled(error: ReverbError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.code, vars(copy)) == (type(error), str(error), error.code, vars(error))
