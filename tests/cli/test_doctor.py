"""``reverb doctor``: each way of being broken, which step fails for it, and what it says to change first."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trustme
from aiohttp import web

from reverb import ReverbConfig
from reverb._settings import look_up
from reverb.cli.examination import Examination, Step
from reverb.cli.process import ExitCode
from reverb.server import App, RateLimiting, ReverbServer
from reverb.server._channels import Channels
from reverb.server._websocket import Connection
from tests.certificates import make_certificates
from tests.integration.servers import free_ports
from tests.laravel import PAGE, Laravel
from tests.scripted import Peer, ScriptedServer
from tests.scripted_http import Answer, ScriptedHTTPServer, answer, hang_up, never
from tests.test_connection import proxy

SECRETS = ("app-secret", "wr0ng-secret", "token-of-ann", "TOP-SECRET")
MASTER_KEY = "bWFzdGVyIGtleSBvZiB0aGUgYXBwbGljYXRpb24hISE="
ALL = [
    "DNS",
    "TCP",
    "TLS",
    "HTTP upgrade",
    "app key",
    "Origin",
    "first message",
    "ping",
    "private channel",
    "client events",
    "auth endpoint",
    "clock",
    "HTTP API",
    "delivery",
]
IMPATIENT = {"connect_timeout": 1.0}
"""Where a step is to take too long. Others get their time, on a busy machine too."""

Broken = Callable[[pytest.MonkeyPatch, Path], AbstractAsyncContextManager[dict[str, Any]]]
"""Sets up something broken; gives the settings that lead there."""


async def examine(
    settings: dict[str, Any], *channels: str, ssl_context: ssl.SSLContext | None = None
) -> dict[str, Step]:
    """Make all steps. Nothing that they say may hold a secret or a signature."""
    steps: dict[str, Step] = {}
    begun: list[str] = []

    def report(step: Step) -> None:
        steps[step.name] = step

    config, found = ReverbConfig.from_env(**settings), look_up(ReverbConfig, settings)
    examination = Examination(config, found, begun.append, report, ssl_context=ssl_context)
    await examination.run(channels)
    assert begun == list(steps)
    said = "\n".join(" ".join([step.detail, *step.causes]) for step in steps.values())
    assert not re.search(r"[0-9a-f]{64}", said), said
    for secret in SECRETS:
        assert secret not in said
    return steps


def failures(steps: dict[str, Step]) -> list[str]:
    return [step.name for step in steps.values() if step.ok is False]


def passed(steps: dict[str, Step]) -> list[str]:
    return [step.name for step in steps.values() if step.ok]


# --- all is well -----------------------------------------------------------------------------------------------


async def test_a_healthy_server(embedded: ReverbServer) -> None:
    channels = ["news", "private-orders.7", "presence-room", "cache-last"]
    steps = await examine(embedded.settings, *channels)
    assert failures(steps) == []
    assert [step.name for step in steps.values() if step.ok is None] == ["TLS", "auth endpoint"]
    assert list(steps) == ALL + channels
    assert all((step.seconds is not None) is step.ok for step in steps.values() if step.ok is not None)
    assert steps["TCP"].detail == f"connected to 127.0.0.1:{embedded.port}"
    assert "activity timeout 30 s" in steps["first message"].detail
    assert steps["presence-room"].detail == "subscribed; 1 member, the doctor included"
    await embedded.wait_for_connections(0)


async def test_nothing_is_sent_on_the_channels_that_are_named(embedded: ReverbServer) -> None:
    await examine(embedded.settings, "private-orders.7", "news")
    assert len(embedded.events) == 2
    assert {event.name for event in embedded.events} == {"client-reverb-doctor"}
    assert all(event.channel.startswith("private-reverb-doctor-") for event in embedded.events)


async def test_a_healthy_server_with_tls_and_a_path(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with ReverbServer(ssl_context=certificates.server, path="/ws") as server:
        steps = await examine(server.settings, ssl_context=certificates.client)
    assert failures(steps) == []
    assert passed(steps) == [name for name in ALL if name != "auth endpoint"]
    assert re.fullmatch(r"TLSv1\.\d, certificate by trustme.*, valid until \d{4}-\d\d-\d\d", steps["TLS"].detail)
    assert steps["HTTP upgrade"].detail == "/ws/app/… is a WebSocket, by Laravel Reverb"


async def test_a_healthy_endpoint(embedded: ReverbServer) -> None:
    async with Laravel() as laravel:
        settings = {**embedded.settings, "auth_endpoint": laravel.url, "auth_token": laravel.token}
        steps = await examine(settings, "news", "private-orders.7", "presence-room")
        assert failures(steps) == []
        wanted = f"{laravel.url} signs for private-orders.7, and the server accepts it"
        assert steps["auth endpoint"].detail == wanted

        # Without a channel to ask for it is a made-up one, which a real application does not know.
        laravel.answers.append(web.json_response({"message": "no"}, status=403))
        steps = await examine(settings)
        assert failures(steps) == []
        assert "refuses the random name private-reverb-doctor-" in steps["auth endpoint"].detail

        # Whether it would know a user can't be seen without one.
        laravel.answers.append(web.json_response({"message": "no"}, status=403))
        steps = await examine({**settings, "auth_token": None})
        assert (failures(steps), steps["auth endpoint"].ok) == ([], None)
        assert "as it should; to check one of your" in steps["auth endpoint"].detail


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_healthy_server_behind_a_proxy(kind: str, embedded: ReverbServer) -> None:
    settings = {name: value for name, value in embedded.settings.items() if name != "app_id"}
    async with proxy(kind) as (url, asked):
        steps = await examine({**settings, "proxy": url})
    assert failures(steps) == []
    assert steps["HTTP upgrade"].ok
    assert steps["client events"].ok
    assert steps["DNS"].detail == "the proxy 127.0.0.1 is an IP address"
    assert steps["clock"].detail == "the server's answers have no Date"
    assert len(asked) == 2


async def test_what_is_not_set_is_not_tried(embedded: ReverbServer) -> None:
    settings = {name: value for name, value in embedded.settings.items() if name not in ("app_id", "app_secret")}
    steps = await examine(settings, "news", "private-a")
    assert failures(steps) == ["private-a"]
    assert steps["private-a"].causes[0].startswith("Set REVERB_APP_SECRET, or REVERB_AUTH_ENDPOINT")
    assert steps["private channel"].detail == "REVERB_APP_SECRET is not set"
    assert steps["client events"].detail == "needs private channel"
    assert steps["HTTP API"].detail == "REVERB_APP_ID and REVERB_APP_SECRET are not set"
    assert steps["news"].ok


# --- broken: names and TCP -------------------------------------------------------------------------------------

SETTINGS = {"app_id": "app-id", "app_key": "app-key", "app_secret": "app-secret", "scheme": "ws"}


def resolver(fail: Callable[..., NoReturn]) -> Broken:
    @asynccontextmanager
    async def broken(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
        monkeypatch.setattr(socket, "getaddrinfo", fail)
        yield {**SETTINGS, "host": "reverb.example.com"}

    return broken


def unknown_name(*_: Any, **__: Any) -> NoReturn:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def no_resolver(*_: Any, **__: Any) -> NoReturn:
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@asynccontextmanager
async def slow_resolver(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait(*_: Any, **__: Any) -> NoReturn:
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result()
        raise socket.gaierror(socket.EAI_NONAME, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    yield {**SETTINGS, "host": "reverb.example.com"}
    released.set()


@asynccontextmanager
async def closed_port(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    yield {**SETTINGS, "host": "127.0.0.1", "port": free_ports(1)[0]}


@asynccontextmanager
async def other_port(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    monkeypatch.setenv("REVERB_SERVER_PORT", "8095")
    yield {**SETTINGS, "host": "127.0.0.1", "port": free_ports(1)[0]}


@asynccontextmanager
async def black_hole(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    """Nobody accepts, and the queue is full, so that Linux drops what comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(server.getsockname())
        yield {**SETTINGS, "host": "127.0.0.1", "port": server.getsockname()[1]}
        for each in waiting:
            each.close()


@asynccontextmanager
async def no_proxy(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    port = free_ports(1)[0]
    yield {**SETTINGS, "host": "reverb.example.com", "proxy": f"http://user:TOP-SECRET@127.0.0.1:{port}"}


@asynccontextmanager
async def refusing_proxy(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    async with ScriptedHTTPServer(answer(403, "")) as server:
        url = f"http://user:TOP-SECRET@127.0.0.1:{server.port}"
        yield {"app_key": "app-key", "scheme": "ws", "host": "reverb.example.com", "proxy": url}


# --- broken: TLS -----------------------------------------------------------------------------------------------


def tls(*names: str, days: tuple[int, int] = (-1, 30), trusted: bool = True, whole_chain: bool = False) -> Broken:
    """A server with a certificate for ``names``, valid from and until so many days from now."""

    @asynccontextmanager
    async def broken(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
        authority, now = trustme.CA(), datetime.now(timezone.utc)
        since, until = (now + timedelta(days=each) for each in days)
        issued = authority.issue_cert(*names, not_before=since, not_after=until)
        chain = [*issued.cert_chain_pems, *([authority.cert_pem] if whole_chain else [])]
        certificate_file, key_file, ca_file = (directory / name for name in ("cert.pem", "key.pem", "ca.pem"))
        certificate_file.write_bytes(b"".join(each.bytes() for each in chain))
        issued.private_key_pem.write_to_path(str(key_file))
        authority.cert_pem.write_to_path(str(ca_file))
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate_file, key_file)
        async with ReverbServer(ssl_context=context) as server:
            yield server.settings

    return broken


@asynccontextmanager
async def answers_at_once(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    """As web servers do that see at the first byte that it is no HTTP."""

    async def script(peer: Peer) -> None:
        await peer.send_raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with ScriptedServer(script) as server:
        yield {**SETTINGS, "host": server.host, "port": server.port, "scheme": "wss"}


@asynccontextmanager
async def says_nothing_to_tls(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    """As Reverb does; it is found out before the time is over."""
    monkeypatch.setattr("reverb.cli.examination._SLOW_HANDSHAKE", 0.1)
    async with ReverbServer() as server:
        yield {**server.settings, "scheme": "wss", "connect_timeout": 10.0}


def over(change: dict[str, Any], broken: Broken) -> Broken:
    """Something, with other settings."""

    @asynccontextmanager
    async def changed(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
        async with broken(monkeypatch, directory) as settings:
            yield {**settings, **change}

    return changed


# --- broken: HTTP ----------------------------------------------------------------------------------------------


def http(*answers: Answer, env: dict[str, str] | None = None, **settings: Any) -> Broken:
    """A server that gives these answers to the upgrade, to the question for the time, and to what is published."""

    @asynccontextmanager
    async def broken(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        async with ScriptedHTTPServer(*answers) as server:
            yield {**SETTINGS, "host": server.host, "port": server.port, **settings}

    return broken


def only_upgrade(*answers: Answer, env: dict[str, str] | None = None, **settings: Any) -> Broken:
    """The same without a secret, and so without a try at the HTTP API."""

    @asynccontextmanager
    async def broken(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
        async with http(*answers, env=env, **settings)(monkeypatch, directory) as given:
            yield {name: value for name, value in given.items() if name != "app_secret"}

    return broken


def raw(text: str) -> Answer:
    """Bytes that are no HTTP."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(text.encode())
        await writer.drain()

    return write


def dated(offset: float) -> bytes:
    return answer(
        200, '{"health":"OK"}', f"Date: {format_datetime(datetime.now(timezone.utc) + timedelta(seconds=offset))}"
    )


NGINX = "Server: nginx/1.24.0"
CHUNKED = (
    "HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n"
    "10;x=y\r\n<html><head><tit\r\n20\r\nle>502 Bad Gateway</title></head>\r\n0\r\n\r\n"
)
NOT_FOUND = answer(404, "Not found.")


# --- broken: the application -----------------------------------------------------------------------------------


def app(*, env: dict[str, str] | None = None, key: str = "app-key", **options: Any) -> Broken:
    """An embedded server with other options than usual; upper ``settings`` are the client's."""
    settings = options.pop("settings", {})

    @asynccontextmanager
    async def broken(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        async with ReverbServer([App(key=key, **options)]) as server:
            yield {**server.settings, **settings}

    return broken


@asynccontextmanager
async def other_app_id(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    async with ReverbServer([App(), App(id="other-id", key="other-key")]) as server:
        yield {**server.settings, "app_id": "other-id", "subscribe_timeout": 1.0}


@asynccontextmanager
async def key_in_two_places(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    (directory / ".env").write_text("REVERB_APP_KEY=app-key\n")
    monkeypatch.chdir(directory)
    monkeypatch.setenv("REVERB_APP_KEY", "old-key")
    async with ReverbServer() as server:
        yield {**{name: value for name, value in server.settings.items() if name != "app_key"}}


@asynccontextmanager
async def secret_with_a_hash(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    (directory / ".env").write_text("APP_NAME=Shop\nREVERB_APP_SECRET=app-secret#2024\n")
    monkeypatch.chdir(directory)
    async with ReverbServer([App(secret="app-secret#2024")]) as server:
        yield {name: value for name, value in server.settings.items() if name != "app_secret"}


def scripted(script: Callable[[Peer], Any]) -> Broken:
    @asynccontextmanager
    async def broken(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
        async def play(peer: Peer) -> None:
            if peer.number == 1:  # the step "HTTP upgrade", which wants no more than that
                await peer.upgrade()
                await peer.wait_closed()
            elif peer.number == 2:
                await script(peer)
            # What comes then asks for the time.

        async with ScriptedServer(play) as server:
            settings = {name: value for name, value in SETTINGS.items() if name != "app_id"}
            yield {**settings, "host": server.host, "port": server.port}

    return broken


@asynccontextmanager
async def balancer(*order: ReverbServer, cut: bytes = b"") -> AsyncIterator[int]:
    """A proxy: leads each connection to a server, in this order, from the beginning again behind the last. Passes
    on paths below ``cut`` without it."""
    turns = itertools.cycle(order)
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = next(turns)
        their_reader, their_writer = await asyncio.open_connection(server.host, server.port)
        with suppress(asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            their_writer.write(head.replace(b" " + cut + b"/", b" /", 1))
        for ends in ((reader, their_writer), (their_reader, writer)):
            pumps.add(asyncio.create_task(pump(*ends)))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await asyncio.gather(*pumps)
        await listener.wait_closed()


@asynccontextmanager
async def strips_app(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    """An nginx with ``location /app/ { proxy_pass http://127.0.0.1:8080/; }``."""
    async with ReverbServer() as server, balancer(server, cut=b"/app") as port:
        yield {**server.settings, "port": port}


async def answers_4200(peer: Peer) -> None:
    """As a Reverb does whose ``REVERB_APP_RATE_LIMIT_DECAY_SECONDS`` is a text, with Carbon 3."""
    await peer.establish()
    while True:
        await peer.receive()
        await peer.send("pusher:error", '{"code":4200,"message":"Invalid message format"}')


def odd_101(**headers: str) -> Broken:
    """A proxy that makes another 101 of the server's."""

    @asynccontextmanager
    async def broken(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
        async def play(peer: Peer) -> None:
            if peer.number <= 2:  # what comes then asks for the time
                await peer.upgrade(headers)
                greeting = '{"socket_id":"1.1","activity_timeout":30}'
                await peer.send("pusher:connection_established", greeting)
                await peer.wait_closed()

        async with ScriptedServer(play) as server:
            settings = {name: value for name, value in SETTINGS.items() if name not in ("app_id", "app_secret")}
            yield {**settings, "host": server.host, "port": server.port, "pong_timeout": 0.3}

    return broken


async def silent_upgrade(peer: Peer) -> None:
    await peer.upgrade()
    await peer.wait_closed()


async def deaf(peer: Peer) -> None:
    await peer.establish()
    await peer.wait_closed()


async def hangs_up_at_a_ping(peer: Peer) -> None:
    await peer.establish()
    await peer.expect("pusher:ping")


async def confirms_nothing(peer: Peer) -> None:
    await peer.establish()
    await peer.expect("pusher:ping")
    await peer.send("pusher:pong")
    await peer.wait_closed()


@asynccontextmanager
async def swallowed_client_events(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> AsyncIterator[dict[str, Any]]:
    async with ReverbServer() as server:
        monkeypatch.setattr(Connection, "_handle_client_event", lambda *_: None)
        yield {**server.settings, "subscribe_timeout": 1.0}


# --- broken: the endpoint --------------------------------------------------------------------------------------


def endpoint(
    planned: tuple[int, str] | None = None, *, url: str = "{url}", token: str | None = None, **laravel_options: Any
) -> Broken:
    """A healthy server, and an application whose endpoint has this to say."""

    @asynccontextmanager
    async def broken(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
        async with ReverbServer() as server, Laravel(**laravel_options) as laravel:
            if planned is not None:
                status, body = planned
                kind = "text/html" if body.startswith("<") else "application/json"
                for _ in range(9):
                    laravel.answers.append(web.Response(status=status, text=body, content_type=kind))
            laravel.denied.add("private-denied")
            settings = {**server.settings, "auth_endpoint": url.format(url=laravel.url, root=laravel.root)}
            yield {**settings, "auth_token": laravel.token if token is None else token}

    return broken


@asynccontextmanager
async def endpoint_down(monkeypatch: pytest.MonkeyPatch, directory: Path) -> AsyncIterator[dict[str, Any]]:
    async with ReverbServer() as server:
        url = f"http://127.0.0.1:{free_ports(1)[0]}/broadcasting/auth"
        yield {**server.settings, "auth_endpoint": url}


# --- the table -------------------------------------------------------------------------------------------------


def row(
    name: str, broken: Broken, failing: str | Sequence[str], cause: str, *channels: str, detail: str = ""
) -> Any:
    """What is broken; the steps that fail for it; what the first of them names as its first cause, and says."""
    steps = [failing] if isinstance(failing, str) else list(failing)
    return pytest.param(broken, steps, cause, channels, detail, id=name)


BROKEN = [
    row("name", resolver(unknown_name), "DNS", "REVERB_HOST is misspelt"),
    row("resolver", resolver(no_resolver), "DNS", "This machine is offline"),
    row("slow-resolver", over(IMPATIENT, slow_resolver), "DNS", "/etc/resolv.conf"),
    row("closed-port", closed_port, "TCP", "it is the server's REVERB_SERVER_PORT, usually 8080"),
    row("other-port", other_port, "TCP", "try REVERB_PORT=8095"),
    row("black-hole", over(IMPATIENT, black_hole), "TCP", "A firewall", detail="no answer within 1 second"),
    row("no-proxy", no_proxy, "TCP", "REVERB_PROXY=http://127.0.0.1:"),
    row("refusing-proxy", refusing_proxy, "HTTP upgrade", "REVERB_PROXY is wrong", detail="403"),
    # TLS
    row("plain-port", says_nothing_to_tls, "TLS", "REVERB_SCHEME=ws"),
    row("plain-port-that-answers", answers_at_once, "TLS", "REVERB_SCHEME=ws"),
    row(
        "not-tls", over({"scheme": "wss", **IMPATIENT}, http(never)), "TLS", "check REVERB_PORT and REVERB_SCHEME"
    ),
    row("tls-port", over({"scheme": "ws"}, tls("127.0.0.1")), ["HTTP upgrade", "HTTP API"], "REVERB_SCHEME=wss"),
    row("expired", tls("127.0.0.1", days=(-30, -4)), "TLS", "was not renewed", detail=", 4 days ago (issued by"),
    row("not-yet-valid", tls("127.0.0.1", days=(3, 30)), "TLS", "This machine's clock", detail="not valid before"),
    row(
        "other-host",
        tls("other.example"),
        "TLS",
        "REVERB_HOST must be a name in the certificate. Is it other.example?",
        detail="not for 127.0.0.1, but for other.example",
    ),
    row("incomplete-chain", tls("127.0.0.1", trusted=False), "TLS", "fullchain.pem", detail="issued by trustme"),
    row("own-authority", tls("127.0.0.1", trusted=False, whole_chain=True), "TLS", "SSL_CERT_FILE="),
    # The upgrade
    row(
        "to-https",
        only_upgrade(answer(301, "", "Location: https://127.0.0.1/app/app-key?token=TOP-SECRET", NGINX)),
        "HTTP upgrade",
        "REVERB_SCHEME=wss (or https) and REVERB_PORT=443",
        detail="HTTP status 301: it redirects to https://127.0.0.1/app/…",
    ),
    row(
        "to-www",
        only_upgrade(answer(302, "", "Location: http://www.example.com/")),
        "HTTP upgrade",
        "REVERB_HOST=www.example.com",
    ),
    row("to-login", only_upgrade(answer(302, "", "Location: /login")), "HTTP upgrade", "belongs to the website"),
    row(
        "no-upgrade-header",
        only_upgrade(answer(400, "")),
        "HTTP upgrade",
        "proxy_set_header Upgrade $http_upgrade",
    ),
    row("426", only_upgrade(answer(426, "")), "HTTP upgrade", 'proxy_set_header Connection "Upgrade"'),
    row(
        "no-upgrade-header-at-reverb",
        only_upgrade(answer(500, "Internal server error.")),
        "HTTP upgrade",
        "proxy_set_header Upgrade $http_upgrade",
    ),
    row(
        "nginx-without-reverb",
        only_upgrade(answer(502, "<html><head><title>502 Bad Gateway</title></head></html>", NGINX)),
        "HTTP upgrade",
        "php artisan reverb:start",
        detail="HTTP status 502 by nginx/1.24.0 for /app/…: a page, “502 Bad Gateway”",
    ),
    row(
        "nginx-wants-tls",
        only_upgrade(answer(400, "The plain HTTP request was sent to HTTPS port")),
        "HTTP upgrade",
        "REVERB_SCHEME=wss",
    ),
    row("firewall", only_upgrade(answer(403, "")), "HTTP upgrade", "Make an exception for /app/"),
    row("website", only_upgrade(answer(200, PAGE)), "HTTP upgrade", "so the website answers"),
    row(
        "path",
        only_upgrade(NOT_FOUND, path="/wrong"),
        "HTTP upgrade",
        "REVERB_PATH must be the server's REVERB_SERVER_PATH; it is /wrong",
        detail="HTTP status 404 for /wrong/app/…: “Not found.”",
    ),
    row(
        "path-in-env",
        only_upgrade(NOT_FOUND, env={"REVERB_SERVER_PATH": "/ws"}),
        "HTTP upgrade",
        "REVERB_PATH=/ws",
    ),
    row(
        "needless-path",
        app(settings={"path": "/ws"}),
        ["HTTP upgrade", "HTTP API"],
        "REVERB_PATH must be empty: without it the server answers",
    ),
    row(
        "proxy-that-strips-app",
        strips_app,
        "HTTP upgrade",
        "The proxy cuts /app off before it passes the request on. nginx's proxy_pass must end with the port",
    ),
    row(
        "other-path-behind-a-proxy",
        only_upgrade(answer(404, "Not found.", NGINX)),
        "HTTP upgrade",
        "REVERB_PATH must be the server's REVERB_SERVER_PATH; it is not set",
        detail="“Not found.”, which is Reverb's own answer",
    ),
    row(
        "chunked",
        only_upgrade(raw(CHUNKED)),
        "HTTP upgrade",
        "php artisan reverb:start",
        detail="HTTP status 502 for /app/…: a page, “502 Bad Gateway”",
    ),
    row(
        "connection-close",
        odd_101(Connection="close"),
        "HTTP upgrade",
        "A proxy in front of the server changes",
        detail="with “Connection: close”, which is wrong for a WebSocket",
    ),
    row("bad-101", only_upgrade(answer(101, "")), "HTTP upgrade", "changes or caches answers"),
    row(
        "changed-101",
        only_upgrade(answer(101, "", "Upgrade: websocket", "Connection: keep-alive, Upgrade")),
        "HTTP upgrade",
        "A proxy in front of the server has changed the header",
        detail="with “Connection: keep-alive, Upgrade”",
    ),
    row("ssh", only_upgrade(raw("SSH-2.0-OpenSSH_9.6\r\n")), "HTTP upgrade", "another service"),
    row("tls-alert", only_upgrade(raw("\x15\x03\x01")), "HTTP upgrade", "REVERB_SCHEME=wss"),
    row("hang-up", over(IMPATIENT, only_upgrade(hang_up)), "HTTP upgrade", "is not a web server"),
    row("silence", over(IMPATIENT, only_upgrade(never)), "HTTP upgrade", "The server hangs"),
    row("500", only_upgrade(answer(599, "oops")), "HTTP upgrade", "has failed: see its log"),
    # The application
    row("key", app(settings={"app_key": "nope"}), "app key", "REVERB_APP_KEY must be that of the server's .env"),
    row(
        "key-in-two-places",
        key_in_two_places,
        "app key",
        "REVERB_APP_KEY comes from the environment, and differs in .env",
    ),
    row(
        "secret-with-a-hash",
        secret_with_a_hash,
        ["private channel", "HTTP API"],
        "REVERB_APP_SECRET in .env, line 2, ends before the #, which begins a comment",
    ),
    row(
        "origin",
        app(allowed_origins=("app.example",)),
        "Origin",
        "REVERB_ORIGIN must be a URL whose host the server allows",
    ),
    row(
        "origin-of-the-server",
        app(allowed_origins=("127.0.0.1",), settings={"origin": "https://other.example"}),
        "Origin",
        "REVERB_ORIGIN=http://127.0.0.1: the server allows it",
        detail="does not allow the Origin https://other.example (4009)",
    ),
    row("quota", app(max_connections=0), "first message", "REVERB_APP_MAX_CONNECTIONS"),
    row(
        "quota-of-one",
        app(max_connections=1),
        "client events",
        "REVERB_APP_MAX_CONNECTIONS",
        detail="not checked: this needs a second connection, which failed: ",
    ),
    row("4200-to-everything", scripted(answers_4200), "ping", "(int) env('REVERB_APP_RATE_LIMIT_DECAY_SECONDS'"),
    row("no-greeting", over(IMPATIENT, scripted(silent_upgrade)), "first message", "the Pusher protocol"),
    row(
        "no-pong",
        over({"pong_timeout": 0.3}, scripted(deaf)),
        "ping",
        "The server hangs",
        detail="no answer to a ping within 0.3 seconds",
    ),
    row("lost", scripted(hangs_up_at_a_ping), "ping", "proxy_read_timeout"),
    row(
        "no-confirmation",
        over({"subscribe_timeout": 0.3}, scripted(confirms_nothing)),
        "private channel",
        "The server hangs",
    ),
    row(
        "secret",
        app(settings={"app_secret": "wr0ng-secret"}),
        ["private channel", "HTTP API"],
        "REVERB_APP_SECRET must be the secret that belongs to REVERB_APP_KEY",
    ),
    row(
        "quoted-secret",
        app(settings={"app_secret": '"app-secret"'}),
        ["private channel", "HTTP API"],
        "REVERB_APP_SECRET begins or ends with a space or a quotation mark",
    ),
    row(
        "no-client-events", app(accept_client_events_from="none"), "client events", "accept_client_events_from in"
    ),
    row("lost-client-events", swallowed_client_events, "client events", "There are several servers"),
    row(
        "rate-limit",
        app(rate_limiting=RateLimiting(enabled=True, max_attempts=2)),
        ["client events", "news"],
        "REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS",
        "news",
    ),
    row(
        "encrypted-without-key",
        app(),
        "private-encrypted-a",
        "REVERB_ENCRYPTION_MASTER_KEY",
        "private-encrypted-a",
    ),
    # The endpoint
    row("endpoint-down", endpoint_down, "auth endpoint", "REVERB_AUTH_ENDPOINT is wrong"),
    row(
        "no-token",
        endpoint(token="wrong"),
        "auth endpoint",
        "REVERB_AUTH_TOKEN is missing or wrong",
        detail="HTTP status 401",
    ),
    row("denied", endpoint(), ["auth endpoint", "private-denied"], "routes/channels.php", "private-denied"),
    row(
        "route-for-sessions",
        endpoint((403, '{"message":"This action is unauthorized."}')),
        ["auth endpoint", "private-a"],
        "with the middleware web does so. Use a route for tokens: /api/broadcasting/auth",
        "private-a",
    ),
    row(
        "route-for-sessions-and-no-channel",
        endpoint((403, PAGE)),
        "auth endpoint",
        "The route reads the session only, and not REVERB_AUTH_TOKEN",
    ),
    row(
        "no-token-at-all",
        over({"auth_token": None}, endpoint((403, PAGE))),
        ["auth endpoint", "private-a"],
        "REVERB_AUTH_TOKEN is not set",
        "private-a",
    ),
    row("empty-answer", endpoint((200, "")), "auth endpoint", "log and null answer with nothing"),
    row("answer-204", endpoint((204, "")), "auth endpoint", "BROADCAST_CONNECTION"),
    row("empty-text", endpoint((200, '""')), "auth endpoint", "BROADCAST_CONNECTION"),
    row("answer-of-redis", endpoint((200, "true")), "auth endpoint", "redis with true"),
    row("wrong-endpoint", endpoint(url="{root}/nope"), "auth endpoint", "REVERB_AUTH_ENDPOINT is wrong"),
    row("get-endpoint", endpoint(url="{root}/sanctum/csrf-cookie"), "auth endpoint", "does not accept POST"),
    row("csrf", endpoint((419, PAGE)), "auth endpoint", "a route with CSRF protection"),
    row("login-page", endpoint((200, PAGE)), "auth endpoint", "REVERB_AUTH_ENDPOINT must be the full URL"),
    row("login-redirect", endpoint((302, "")), "auth endpoint", "It redirects: REVERB_AUTH_ENDPOINT"),
    row("application-fails", endpoint((500, PAGE)), "auth endpoint", "storage/logs/laravel.log"),
    row(
        "endpoint-signs-with-another-secret",
        endpoint(secret="wr0ng-secret"),
        ["auth endpoint", "private-a"],
        "The Laravel application behind REVERB_AUTH_ENDPOINT must have the server's",
        "private-a",
    ),
    row(
        "endpoint-of-another-application",
        endpoint(key="other-key", secret="wr0ng-secret"),
        "auth endpoint",
        "REVERB_APP_KEY must be the same here and in its application",
    ),
    # The HTTP API
    row("app-id", app(settings={"app_id": "nope"}), "HTTP API", "REVERB_APP_ID=nope must be the id"),
    row(
        "id-of-another-application",
        other_app_id,
        "delivery",
        "REVERB_APP_ID=other-id and REVERB_APP_KEY belong to different",
    ),
]


async def test_a_101_with_more_tokens_is_no_matter_of_the_greeting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """RFC 6455 allows them; where the client doesn't, the proxy is named, and not Redis."""
    async with odd_101(Connection="keep-alive, Upgrade")(monkeypatch, tmp_path) as settings:
        steps = await examine(settings)
    assert failures(steps) in (["HTTP upgrade"], ["ping"])
    if failures(steps) == ["HTTP upgrade"]:
        assert "Connection: keep-alive, Upgrade" in steps["HTTP upgrade"].detail


async def test_a_server_whose_name_is_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with odd_101(Server=f"nginx{100 * 'x'}")(monkeypatch, tmp_path) as settings:
        steps = await examine(settings)
    assert steps["HTTP upgrade"].detail == f"/app/… is a WebSocket, by nginx{55 * 'x'}…"


async def test_two_servers_that_know_nothing_of_each_other() -> None:
    async with ReverbServer() as one, ReverbServer() as other:
        # The line below, the session, the second connection; then /up, what is published, and questions.
        async with balancer(one, one, other, other) as port:
            steps = await examine({**one.settings, "port": port, "subscribe_timeout": 0.5})
        assert failures(steps)[0] == "client events"
        assert steps["client events"].causes[0].startswith("There are several servers that do not share events")

        async with balancer(one, one, one, other, other) as port:
            steps = await examine({**one.settings, "port": port, "subscribe_timeout": 0.5})
        assert failures(steps) == ["delivery"]
        (cause,) = steps["delivery"].causes
        assert cause.startswith("There are several servers that do not share events")
        assert cause.endswith("Only some of them know our subscription.")


async def test_events_that_are_lost_behind_the_http_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Redis out of reach: the server knows our subscription, and delivers nothing."""
    async with ReverbServer() as server:
        monkeypatch.setattr(Channels, "publish", lambda *_, **__: None)
        steps = await examine({**server.settings, "subscribe_timeout": 0.5})
    assert failures(steps) == ["delivery"]
    assert "does not reach Redis" in steps["delivery"].causes[0]


# Python 3.10 forgets to close the transport of a TLS connection whose handshake fails.
@pytest.mark.filterwarnings(
    *(["ignore::pytest.PytestUnraisableExceptionWarning"] if sys.version_info < (3, 11) else ["error"])
)
@pytest.mark.parametrize(("broken", "failing", "cause", "channels", "detail"), BROKEN)
async def test_what_is_broken(
    broken: Broken,
    failing: list[str],
    cause: str,
    channels: Sequence[str],
    detail: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("reverb.auth._RETRY_DELAYS", (0.01,))
    async with broken(monkeypatch, tmp_path) as settings:
        steps = await examine(settings, *channels)
    assert failures(steps) == failing, [step for step in steps.values() if step.ok is False]
    first = steps[failing[0]]
    assert cause in first.causes[0], first.causes
    assert detail in first.detail
    is_outage = "can't reach" in first.detail or "HTTP status 5" in first.detail
    is_about_the_connection = is_outage or first.name in ALL[: ALL.index("private channel")]
    if first.name != "HTTP API" and "no confirmation" not in first.detail:
        assert first.exit_code == (ExitCode.CONNECTION if is_about_the_connection else ExitCode.REFUSED)
    assert all(step.detail for step in steps.values())


# --- the HTTP API, looked at although there is no WebSocket -----------------------------------------------------


@pytest.mark.parametrize(
    ("published", "settings", "cause", "detail"),
    [
        (
            answer(401, "Authentication signature invalid."),
            {},
            "REVERB_APP_SECRET must be the secret",
            "status 401",
        ),
        (
            answer(404, "No matching application for ID [app-id]."),
            {},
            "REVERB_APP_ID=app-id must be",
            "No matching",
        ),
        (
            answer(404, PAGE),
            {},
            "passes /app on to Reverb, but not /apps. In nginx, write location ~ ^/apps?",
            "/apps/app-id/events",
        ),
        (answer(200, PAGE), {"path": "/ws"}, "passes /ws/app on to Reverb, but not /ws/apps", "HTTP status 200"),
        (answer(404, "Not found."), {}, "The proxy changes paths below /apps. nginx's proxy_pass", "own answer"),
        (answer(301, "", "Location: https://example.com/"), {}, "check REVERB_SCHEME", "301"),
        (answer(403, ""), {}, "A firewall", "403"),
        (answer(413, ""), {}, "REVERB_MAX_REQUEST_SIZE", "413"),
        (answer(502, ""), {}, "nginx's proxy_pass", "502"),
        (answer(500, "Internal server error."), {}, "see its log", "500"),
        (hang_up, {}, "does not answer requests below /apps/", "closed the connection"),
        (never, {"request_timeout": 0.3}, "does not answer requests below /apps/", "did not answer"),
    ],
)
async def test_the_http_api(
    published: Answer, settings: dict[str, Any], cause: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reverb._calls._RETRY_DELAYS", (0.01,))
    upgrades = [NOT_FOUND, NOT_FOUND, NOT_FOUND] if "path" in settings else [NOT_FOUND, NOT_FOUND]
    async with ScriptedHTTPServer(*upgrades, dated(0), published) as server:
        steps = await examine({**SETTINGS, "host": server.host, "port": server.port, **settings})
    assert failures(steps) == ["HTTP upgrade", "HTTP API"]
    assert steps["clock"].detail == "same time as the server"
    assert cause in steps["HTTP API"].causes[0]
    assert detail in steps["HTTP API"].detail
    assert steps["delivery"].detail == "needs HTTP upgrade"


@pytest.mark.parametrize(
    ("offset", "fails", "detail"),
    [
        (
            -3600,
            True,
            "this machine's clock is 60 minutes ahead of the server; signed requests are valid for 600 seconds",
        ),
        (2 * 86_400 + 60, True, "this machine's clock is 2 days behind the server"),
        (-90, False, r"9\d seconds ahead of the server"),
        (0, False, "same time as the server"),
    ],
)
async def test_the_clock(offset: float, fails: bool, detail: str) -> None:
    refused = answer(401, "Timestamp expired: Given timestamp not within 600s of server time")
    async with ScriptedHTTPServer(NOT_FOUND, NOT_FOUND, dated(offset), refused) as server:
        steps = await examine({**SETTINGS, "host": server.host, "port": server.port})
    assert re.match(detail, steps["clock"].detail)
    assert failures(steps) == ["HTTP upgrade", *(["clock"] if fails else []), "HTTP API"]
    assert ("This machine's clock" in steps["HTTP API"].causes[0]) is fails
    assert ("set-ntp true" in "".join(steps["clock"].causes)) is fails


async def test_the_clock_is_read_from_the_upgrade_where_it_is_there() -> None:
    async with ScriptedHTTPServer(
        answer(404, "", f"Date: {format_datetime(datetime.now(timezone.utc))}")
    ) as server:
        steps = await examine({**SETTINGS, "host": server.host, "port": server.port})
        assert steps["clock"].detail == "same time as the server"
        assert [request.target.partition("?")[0] for request in server.requests] == [
            "/app/app-key",
            "/apps/app-id/events",
        ]


# --- the channels that are named -------------------------------------------------------------------------------


async def test_channels_that_are_refused(embedded: ReverbServer) -> None:
    embedded.deny("private-b")
    settings = {**embedded.settings, "encryption_master_key": MASTER_KEY}
    steps = await examine(settings, "private-a", "private-b", "private-encrypted-c", "private-a")
    assert failures(steps) == ["private-b"]
    assert (
        steps["private-b"].detail == "the server does not accept the signature: Connection is unauthorized (4009)"
    )
    assert steps["private-encrypted-c"].detail == "subscribed"


@pytest.mark.parametrize("name", ["private-a:b", 'presence-x:{"user_id":"7"}', "private-\n"])
async def test_a_name_that_is_not_signed(name: str, embedded: ReverbServer) -> None:
    steps = await examine(embedded.settings, name, "news")
    assert failures(steps) == [name]
    assert steps[name].detail == f"can't sign the channel name {name!r}"
    assert "without a colon" in steps[name].causes[0]


async def test_the_endpoint_is_asked_without_a_connection() -> None:
    async with Laravel() as laravel, ScriptedHTTPServer(answer(502, "")) as server:
        settings = {"app_key": "app-key", "scheme": "ws", "host": server.host, "port": server.port}
        steps = await examine({**settings, "auth_endpoint": laravel.url, "auth_token": laravel.token}, "private-a")
    assert failures(steps) == ["HTTP upgrade"]
    assert steps["auth endpoint"].detail.endswith(
        "signs for private-a; whether the server accepts the signature is not known"
    )
    assert steps["private-a"].detail == "needs HTTP upgrade"
