"""What ``reverb doctor`` prints may be posted, whatever is in the settings, and whatever servers say."""

from __future__ import annotations

import hashlib
import json
import re
import socketserver
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from typer.testing import CliRunner

from reverb import ReverbConfig
from reverb._settings import look_up
from reverb.cli.app import app
from reverb.cli.redaction import MASK, Redaction
from reverb.server import App, ReverbServer
from tests.cli.processes import reverb
from tests.integration.servers import free_ports
from tests.laravel import Laravel
from tests.scripted import encode_frame, encode_message

KEY = "K3Y-xqzjvkwp"
SECRET = "S3CR3T-mbgfyhdu"
TOKEN = "17|T0K3N" + "".join(hashlib.sha256(b"token").hexdigest()).translate(str.maketrans("abcdef", "uvwxyz"))
PASSWORD = "pa55w0rd/1"
MASTER_KEY = b64encode(b"M4ST3R" + 26 * b"k").decode()
QUERY = "QU3RY-nctlrsoe"
BASIC = b64encode(f"squid-user:{PASSWORD}".encode()).decode()
SIGNATURE = hashlib.sha256(b"").hexdigest()
PLANTED = (SECRET, TOKEN, PASSWORD, "pa55w0rd%2F1", BASIC, MASTER_KEY, QUERY)

Doctor = Callable[..., str]


def env_of(port: int, **more: str) -> dict[str, str]:
    return {
        "REVERB_HOST": "127.0.0.1",
        "REVERB_PORT": str(port),
        "REVERB_SCHEME": "ws",
        "REVERB_APP_ID": "shop",
        "REVERB_APP_KEY": KEY,
        "REVERB_APP_SECRET": SECRET,
        "REVERB_AUTH_TOKEN": TOKEN,
        "REVERB_AUTH_ENDPOINT": f"http://127.0.0.1:{port}/broadcasting/auth?key={QUERY}#{QUERY}",
        "REVERB_ENCRYPTION_MASTER_KEY": MASTER_KEY,
        "REVERB_CONNECT_TIMEOUT": "2",
        "REVERB_REQUEST_TIMEOUT": "2",
        "REVERB_SUBSCRIBE_TIMEOUT": "0.5",
        "REVERB_PONG_TIMEOUT": "0.5",
        **more,
    }


def shown_in(text: str, *secrets: str) -> list[str]:
    """Return the parts of secrets that a text shows and that are long enough to tell something."""
    parts = [secret[start : start + 8] for secret in secrets for start in range(len(secret) - 7)]
    return [part for part in (*parts, SIGNATURE) if part in text]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Runs the command, checks that it shows no secret, and returns what it says."""
    monkeypatch.setattr("reverb.auth._RETRY_DELAYS", (0.01,))
    monkeypatch.setattr("reverb._calls._RETRY_DELAYS", (0.01,))
    home = str(Path.cwd())

    def run(env: dict[str, str], *arguments: str) -> str:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(app, ["doctor", *arguments], catch_exceptions=False)
        said = f"{result.output}\n{result.stderr}"
        assert not shown_in(said, *PLANTED), said
        if "--json" in arguments:
            assert KEY not in said
            assert home not in said
        return said

    return run


# --- servers that quote what they were sent --------------------------------------------------------------------


@contextmanager
def answering(answer: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """Run a server that gives the next of its answers whenever it receives something."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            answers: list[bytes] | None = None
            while received := self.request.recv(65_536):
                answers = answer(received) if answers is None else answers
                self.request.sendall(answers.pop(0) if len(answers) > 1 else answers[0])
                if not answers[0].startswith((b"HTTP/1.1 101", b"\x81")):
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def http(status: str, body: str, *headers: str) -> list[bytes]:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", "Connection: close", *headers]
    return ["\r\n".join([*lines, "", body]).encode()]


def websocket(received: bytes, *frames: bytes) -> list[bytes]:
    """Accept the WebSocket, and answer its messages with these frames. The last one is repeated."""
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", received)
    if key is None:
        return http("404 Not Found", "")
    accept = b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    greeting = encode_message("pusher:connection_established", '{"socket_id":"1.1","activity_timeout":30}')
    head = (
        f"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    return [head.encode() + encode_frame(1, greeting), *frames]


def error_of(text: str, code: int = 4100) -> bytes:
    return encode_frame(1, encode_message("pusher:error", {"code": code, "message": text}))


def close_with(reason: str) -> bytes:
    return encode_frame(8, (4000).to_bytes(2, "big") + reason.encode())


PONG = encode_frame(1, encode_message("pusher:pong"))

QUOTING: dict[str, Callable[[str], Callable[[bytes], list[bytes]]]] = {
    "a text": lambda text: lambda received: http("404 Not Found", f"Cannot GET /app: {text}"),
    "a text that is cut": lambda text: lambda received: http("500 Oops", f"{(48 - len(text[:30])) * '-'}{text}"),
    "a page": lambda text: lambda received: http("500 Oops", f"<html><title>{text}</title></html>"),
    "a server's name": lambda text: lambda received: http("403 Forbidden", "", f"Server: x {text}"),
    "a redirect": lambda text: (
        lambda received: http("302 Found", "", f"Location: http://{text}@h/{text}?{text}#{text}")
    ),
    "an odd 101": lambda text: lambda received: http("101 Go", "", f"Connection: {text}", "Upgrade: websocket"),
    "a status line": lambda text: lambda received: http(f"407 {text}", "", f"Proxy-Authenticate: {text}"),
    "no HTTP": lambda text: lambda received: [text.encode()],
    "a refused connection": lambda text: lambda received: websocket(received, error_of(text, 4301)),
    "a refused channel": lambda text: lambda received: websocket(received, PONG, error_of(text)),
    "a close": lambda text: lambda received: websocket(received, close_with(text)),
}
SHOWN_BY_NOTHING = {"a status line"}


@pytest.mark.parametrize("kind", QUOTING)
def test_a_server_that_quotes_secrets(kind: str, doctor: Doctor) -> None:
    shown = ""
    for secret, form in (TOKEN, ["--json"]), (SECRET, []), (SIGNATURE, ["--json"]):
        with answering(QUOTING[kind](secret)) as port:
            env = env_of(port)
            if kind == "a refused channel":
                env["REVERB_AUTH_ENDPOINT"] = ""
            shown += doctor(env, *form, "private-orders.7")
    assert MASK in re.sub(r"\*{8} \(", "", shown) or kind in SHOWN_BY_NOTHING  # it did come so far


@pytest.mark.parametrize("kind", ["a text", "a status line", "no HTTP"])
def test_a_proxy_that_quotes_secrets(kind: str, doctor: Doctor) -> None:
    for secret in PASSWORD, BASIC:
        with answering(QUOTING[kind](secret)) as port:
            proxy = f"http://squid-user:{quote(PASSWORD, safe='')}@127.0.0.1:{port}"
            assert "✗ HTTP upgrade" in doctor(env_of(port, REVERB_PROXY=proxy))


# --- settings that hold secrets --------------------------------------------------------------------------------


async def test_all_is_well(tmp_path: Path) -> None:
    """As a process, for which nothing is replaced; the settings are in the environment and in ``.env``."""
    key = b64decode(MASTER_KEY)
    async with (
        ReverbServer([App(id="shop", key=KEY, secret=SECRET)]) as server,
        Laravel(KEY, SECRET, key) as laravel,
    ):
        (tmp_path / ".env").write_text(f"REVERB_APP_SECRET={TOKEN}\nREVERB_APP_KEY={QUERY}\n")
        laravel.token = TOKEN
        env = env_of(server.port, REVERB_AUTH_ENDPOINT=f"{laravel.url}?key={QUERY}", REVERB_SUBSCRIBE_TIMEOUT="10")
        channels = ["private-orders.7", "private-encrypted-orders.8", "presence-room"]
        async with reverb("doctor", "--json", *channels, env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == 0, command.out.text
            said = await command.out.end() + command.err.text
    assert not shown_in(said, *PLANTED, KEY, str(tmp_path)), said
    steps = [json.loads(line) for line in said.splitlines()]
    assert {step["step"] for step in steps if step["ok"] is None} == {"TLS"}
    source = "environment; differs in .env"
    row = {"variable": "REVERB_APP_KEY", "value": f"{MASK} (12 characters)", "source": source}
    assert row in steps[0]["settings"]


def test_a_key_that_is_not_known(doctor: Doctor) -> None:
    """The message names the file, and not the directory, which often has the user's name in it."""
    Path(".env").write_text("REVERB_APP_KEY=another\n")
    with ReverbServer([App(id="shop")]) as server:
        said = doctor(env_of(server.port, REVERB_AUTH_ENDPOINT=""), "--json")
    assert "REVERB_APP_KEY comes from the environment, and differs in .env: check" in said


@pytest.mark.parametrize(
    "misplaced",
    [
        {"REVERB_HOST": f"https://ann:{QUERY}@example.com/?token={SECRET}"},
        {"REVERB_HOST": f"ann:{QUERY}@example.com"},
        {"REVERB_PORT": f"https://example.com/#{QUERY}"},
        {"REVERB_ORIGIN": f"https://ann:{QUERY}@example.com/?token={TOKEN}"},
        {"REVERB_PATH": f"/ws?token={QUERY}"},
        {"REVERB_APP_KEY": SECRET},
        {"REVERB_APP_ID": MASTER_KEY},
        {"REVERB_LOG_LEVEL": TOKEN},
        {"REVERB_AUTH_TOKEN": f"https://127.0.0.1/{TOKEN}"},
        {"REVERB_AUTH_TOKEN": f"{TOKEN}\u200b"},
        {"REVERB_AUTH_ENDPOINT": f"ann:{QUERY}@example.com"},
        {"REVERB_AUTH_ENDPOINT": f"http://ann:{QUERY}@127.0.0.1:1/auth?key={SECRET}"},
        {"REVERB_PROXY": f"socks4://ann:{QUERY}@127.0.0.1:1"},
        {"REVERB_PROXY": f"socks5://ann:{QUERY}@127.0.0.1:1"},
        {"REVERB_ENCRYPTION_MASTER_KEY": f"base64:{MASTER_KEY}"},
    ],
    ids=lambda misplaced: "-".join(misplaced),
)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_settings_that_hold_a_secret(misplaced: dict[str, str], form: list[str], doctor: Doctor) -> None:
    (port,) = free_ports(1)
    assert next(iter(misplaced)) in doctor(env_of(port, **misplaced), *form)


# --- the parts of a text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"wrong secret {SECRET}!", "wrong secret ********!"),
        (f"{SECRET}{SECRET}", "****************"),
        (f"“{SECRET[:9]}”, and more", "“********”, and more"),
        (f"it sends {SECRET[:6]!r}", "it sends '********'"),
        (f"{SECRET[:7]}…", "********…"),
        (f"ends with {SECRET[:-1]}", "ends with ********"),
        (f"{SECRET[:5]}…", f"{SECRET[:5]}…"),
        (f"Basic {BASIC}", "Basic ********"),
        (f"squid-user:{PASSWORD}", "********"),
        ("pa55w0rd%2F1", "********"),
        (f"key={QUERY}", "key=********"),
        (f"auth {KEY}:{SIGNATURE}", f"auth {KEY}:********"),
        ("sha1 " + 40 * "a", "sha1 " + 40 * "a"),
        ("pin 1234", "pin 1234"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_texts(text: str, redacted: str) -> None:
    proxy = f"http://squid-user:{quote(PASSWORD, safe='')}@127.0.0.1:80"
    endpoint = f"http://127.0.0.1/auth?key={QUERY}&pin=1234"
    found = look_up(
        ReverbConfig, {"app_key": KEY, "app_secret": SECRET, "proxy": proxy, "auth_endpoint": endpoint}
    )
    assert Redaction(found)(text) == redacted
    assert Redaction(found, "app_key")(text) == redacted.replace(KEY, MASK)
