"""What an exception keeps: error reporters send the locals of its frames, and of those of its causes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

import reverb
from reverb import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    EndpointAuthorizer,
    ProtocolError,
    ReverbAPI,
    ReverbClient,
    ReverbError,
    SecretAuthorizer,
    TimeoutError,
)
from reverb.auth import authorize_channel, sign_channel, sign_request, sign_user
from reverb.config import Credentials
from reverb.crypto import decrypt, derive_shared_secret, parse_shared_secret
from reverb.relay import Relay
from reverb.webhooks import Webhook
from tests.certificates import make_certificates
from tests.integration.servers import free_ports
from tests.laravel import Laravel
from tests.scripted import Peer, ScriptedServer
from tests.scripted_http import BOMB, Answer, ScriptedHTTPServer, answer, hang_up, never
from tests.shells import Shell
from tests.watching import until

OURS = str(Path(reverb.__file__).parent)
SECRET = "S3CR3T"
KEY_OF_CHANNEL = base64.b64encode(32 * b"S").decode()
SHOWN = re.compile(
    "|".join(
        (
            SECRET,
            re.escape(base64.b64encode(f"user:{SECRET}".encode()).decode()),
            re.escape(KEY_OF_CHANNEL),
            32 * "S",
            "[0-9a-f]{64}",  # a signature
        )
    )
)


def shown_by(error: BaseException) -> Iterator[str]:
    """Yield where a secret is shown by an exception, by all that it keeps, and by the locals of our frames."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        waiting += [each.__cause__, each.__context__]
        if SHOWN.search(f"{each!r} {each} {each.args} {each.__dict__}"):
            yield f"{type(each).__name__}: {each}"
        for name, value in locals_of(each.__traceback__):
            if any(SHOWN.search(text) for text in texts_of(value)):
                yield name


def locals_of(traceback: TracebackType | None) -> Iterator[tuple[str, Any]]:
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_filename.startswith(OURS):
            for name, value in frame.f_locals.items():
                yield f"{name} in {frame.f_code.co_name}", value
        traceback = traceback.tb_next


def texts_of(value: Any, depth: int = 5) -> Iterator[str]:
    """As Sentry does: look into what is a mapping or a sequence, and take the ``repr`` of everything else."""
    if isinstance(value, Mapping) and depth:
        for each in (*value.keys(), *value.values()):
            yield from texts_of(each, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset) and depth:
        for each in value:
            yield from texts_of(each, depth - 1)
    else:
        try:
            yield repr(value)
        except Exception:  # of an object that is not made yet
            return


async def raised(kind: type[BaseException], work: Callable[..., Any], *args: Any, **options: Any) -> BaseException:
    """Call, and return what is raised, after checking that it shows no secret."""
    try:
        result = work(*args, **options)
        if isinstance(result, Awaitable):
            await result
    except kind as caught:
        error = caught
    else:
        raise AssertionError("nothing was raised")
    shown = list(shown_by(error))
    assert not shown, f"{error!r} keeps a secret: {', '.join(shown)}"
    return error


def test_the_walk_finds_what_there_is_to_find() -> None:
    namespace: dict[str, Any] = {}
    exec(compile("def fail(headers):\n    raise KeyError", f"{OURS}/example.py", "exec"), namespace)
    for headers in (f"Bearer {SECRET}", {"Authorization": [f"Bearer {SECRET}"]}, base64.b64decode(KEY_OF_CHANNEL)):
        with pytest.raises(RuntimeError) as caught:
            _replace(namespace["fail"], headers)
        assert list(shown_by(caught.value)) == ["headers in fail"]
    assert list(shown_by(ValueError(f"token {SECRET}"))) == [f"ValueError: token {SECRET}"]
    assert list(shown_by(ValueError("token"))) == []


def _replace(work: Callable[..., Any], *args: Any) -> None:
    try:
        work(*args)
    except KeyError:
        raise RuntimeError from None


# --- endpoints -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverb.auth._RETRY_DELAYS", (0.01,))
    monkeypatch.setattr("reverb._calls._RETRY_DELAYS", (0.01,))


def authorizer_for(address: str, scheme: str = "http", **options: Any) -> EndpointAuthorizer:
    defaults: Any = {
        "token": SECRET,
        "headers": {"X-Device": SECRET, "Cookie": f"session={SECRET}"},
        "params": {"password": SECRET},
    }
    options = {**defaults, **options}
    user = "" if options["token"] else f"user:{SECRET}@"
    return EndpointAuthorizer(f"{scheme}://{user}{address}/broadcasting/auth?key={SECRET}", **options)


AUTH = f"key:{SECRET}"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (hang_up, "closed the connection"),
        (never, "no answer within"),
        (answer(200, "nope"), "not JSON"),
        (answer(200, "<html>"), "an HTML page"),
        (answer(200, ""), "empty"),
        (answer(200, f'{{"auth":"{AUTH}","channel_data":7}}'), "channel_data"),
        (answer(200, f'{{"auth":["{AUTH}"]}}'), "not an authorisation"),
        (answer(200, f'{{"auth":"{SECRET}"}}'), "KEY:SIGNATURE"),
        (answer(200, f'{{"auth":"{AUTH}","shared_secret":7}}'), "shared_secret"),
        (answer(200, BOMB, "Content-Encoding: gzip"), "compressed"),
        (answer(302, "", f"Location: /login?token={SECRET}"), "redirects"),
        (answer(401, SECRET, f"Set-Cookie: session={SECRET}"), "401"),
        (answer(403, SECRET), "403"),
        (answer(500, SECRET), "500"),
        (answer(429, SECRET, "Retry-After: 3600"), "429"),
        (b"nonsense\r\n\r\n", "not HTTP"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_an_endpoint_that_fails(given: Answer, says: str) -> None:
    async with ScriptedHTTPServer(given) as server:
        for token in (SECRET, None):
            authorizer = authorizer_for(
                f"{server.host}:{server.port}", timeout=0.1, token=token, json=token is None
            )
            assert says in str(await raised(AuthenticationError, authorizer, "1.2", "private-x"))
            await raised(AuthenticationError, authorizer.authenticate_user, "1.2")


async def test_an_endpoint_that_is_down() -> None:
    (port,) = free_ports(1)
    await raised(AuthenticationError, authorizer_for(f"127.0.0.1:{port}"), "1.2", "private-x")
    await raised(AuthenticationError, authorizer_for("nowhere.invalid"), "1.2", "private-x")


async def test_an_endpoint_that_names_no_user() -> None:
    async with ScriptedHTTPServer(answer(200, f'{{"auth":"{AUTH}","shared_secret":"{SECRET}"}}')) as server:
        authorizer = authorizer_for(f"{server.host}:{server.port}")
        assert "user_data" in str(await raised(AuthenticationError, authorizer.authenticate_user, "1.2"))


async def test_an_endpoint_with_another_certificate(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with ScriptedHTTPServer(answer(200), ssl_context=certificates.server) as server:
        address = f"localhost:{server.port}"
        assert "not trusted" in str(
            await raised(AuthenticationError, authorizer_for(address, "https"), "1.2", "private-x")
        )


async def test_a_session_with_cookies() -> None:
    async with Laravel("key", SECRET) as laravel:
        address = laravel.root.removeprefix("http://")
        cookie_url = f"http://user:{SECRET}@{address}/sanctum/csrf-cookie"
        authorizer = authorizer_for(address, csrf_cookie_url=cookie_url)
        assert "403" in str(await raised(AuthenticationError, authorizer, "1.2", "private-x"))
        gone = authorizer_for(
            address, csrf_cookie_url=f"{cookie_url}?nowhere", user_url=f"{cookie_url}/{SECRET[:2]}"
        )
        await raised(AuthenticationError, gone.authenticate_user, "1.2")


async def half(writer: asyncio.StreamWriter) -> None:
    """Stop in the middle of an answer."""
    writer.write(answer(200)[:-1])
    await never(writer)


@pytest.mark.parametrize("given", [never, half])
async def test_an_endpoint_for_which_its_caller_has_no_time(given: Answer) -> None:
    async with ScriptedHTTPServer(given) as server:
        authorizer = authorizer_for(f"{server.host}:{server.port}")
        asking = asyncio.ensure_future(authorizer("1.2", "private-x"))
        await until(lambda: server.requests)
        asking.cancel()
        await raised(asyncio.CancelledError, lambda: asking)
        await raised(asyncio.TimeoutError, asyncio.wait_for, authorizer("1.2", "private-x"), 0.05)


@pytest.mark.parametrize("what", ["token", "headers", "params"])
async def test_a_provider_that_fails(what: str) -> None:
    async def provide() -> Any:
        raise LookupError("nobody is logged in")

    async with ScriptedHTTPServer(answer(200)) as server:
        options: Any = {what: provide}
        authorizer = authorizer_for(f"{server.host}:{server.port}", **options)
        await raised(LookupError, authorizer, "1.2", "private-x")


@pytest.mark.parametrize(
    "options",
    [
        {"token": f"{SECRET}\r\nX-Forged: 1"},
        {"token": f"{SECRET}\n"},
        {"headers": {"X-Device": f"{SECRET}\n"}},
        {"headers": {f"X-{SECRET}\n": "1"}},
        {"headers": {"X-Device": [SECRET]}},
        {"params": {"password": {SECRET}}, "json": True},
        {"token": None, "headers": {"Authorization": f"Bearer {SECRET}"}},  # and a user in the URL
    ],
)
async def test_what_cannot_be_sent(options: dict[str, Any]) -> None:
    async with ScriptedHTTPServer(answer(200)) as server:
        authorizer = authorizer_for(f"{server.host}:{server.port}", **options)
        error = await raised(AuthenticationError, authorizer, "1.2", "private-x")
        assert "can't be sent" in str(error)
        assert server.requests == []


@pytest.mark.parametrize("which", ["url", "user_url", "csrf_cookie_url"])
async def test_a_url_that_is_none(which: str) -> None:
    urls: Any = {"url": f"https://{SECRET}@a.test/auth", which: f"user:{SECRET}@a.test"}
    headers = {"X-Device": SECRET}
    await raised(ConfigurationError, EndpointAuthorizer, **urls, token=SECRET, headers=headers)


async def test_an_authorizer_that_returns_what_it_was_answered() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.wait_closed()

    async def authorize(socket_id: str, channel: str) -> Any:
        return {"auth": AUTH}

    async def fail(socket_id: str, channel: str) -> Any:
        raise LookupError("no such user")

    for authorizer in (authorize, fail):
        async with (
            ScriptedServer(script) as server,
            ReverbClient(
                host=server.host,
                port=server.port,
                scheme="ws",
                app_key="key",
                app_secret=SECRET,
                authorizer=authorizer,
            ) as client,
        ):
            await raised(AuthenticationError, client.subscribe, "private-x")


# --- the HTTP API ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def _make(shell: Shell, host: str, port: int, **options: Any) -> AsyncIterator[Any]:
    defaults: Any = {
        "scheme": "ws",
        "app_id": "42",
        "app_key": "key",
        "app_secret": SECRET,
        "request_timeout": 0.2,
    }
    async with shell(**{"host": host, "port": port, **defaults, **options}) as api:
        yield api


@pytest.fixture
def api_for(shell: Shell) -> Shell:
    return partial(_make, shell)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (hang_up, ConnectionError),
        (never, TimeoutError),
        (answer(200, "nope"), APIError),
        (answer(200, '{"channels":7}'), APIError),
        (answer(200, BOMB, "Content-Encoding: gzip"), APIError),
        (answer(302, "", f"Location: /login?token={SECRET}"), APIError),
        (answer(401, f"wrong signature {64 * 'a'}"), APIError),
        (answer(500), APIError),
        (answer(503), APIError),
        (b"nonsense\r\n\r\n", ConnectionError),
    ],
)
async def test_an_api_that_fails(api_for: Shell, given: Answer, kind: type[ReverbError]) -> None:
    async with ScriptedHTTPServer(given) as server, api_for(server.host, server.port) as api:
        await raised(kind, api.channels)
        await raised(ReverbError, api.trigger_batch, [reverb.BatchEvent("news", "e", 1)] * 3, idempotent=True)


async def test_an_api_that_is_down(api_for: Shell, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with api_for("127.0.0.1", port) as api:
        await raised(ConnectionError, api.channels)
    certificates = make_certificates(tmp_path)
    async with (
        ScriptedHTTPServer(answer(200), ssl_context=certificates.server) as server,
        api_for("localhost", server.port, scheme="wss", request_timeout=10) as api,
    ):
        await raised(ConnectionError, api.channels)


@pytest.mark.parametrize("given", [never, half])
async def test_an_api_for_which_its_caller_has_no_time(given: Answer) -> None:
    async with (
        ScriptedHTTPServer(given) as server,
        _make(ReverbAPI, server.host, server.port, request_timeout=10) as api,
    ):
        await raised(asyncio.TimeoutError, asyncio.wait_for, api.channels(), 0.05)


async def test_an_api_behind_a_proxy_that_refuses(api_for: Shell) -> None:
    (port,) = free_ports(1)
    async with ScriptedHTTPServer(answer(407)) as server:
        for at in (server.port, port):
            for scheme in ("ws", "wss"):
                proxy = f"http://user:{SECRET}@127.0.0.1:{at}"
                async with api_for("reverb.invalid", 80, scheme=scheme, proxy=proxy) as api:
                    await raised(ReverbError, api.channels)


async def test_an_api_that_is_set_wrongly(shell: Shell) -> None:
    settings: Any = {
        "host": "localhost",
        "app_key": "key",
        "app_secret": SECRET,
        "encryption_master_key": KEY_OF_CHANNEL,
    }
    for wrong in (
        {},
        {"app_id": "1", "proxy": f"socks5://user:{SECRET}@localhost"},
        {"app_id": "1", "proxy": f"user:{SECRET}@localhost"},
        {"app_id": "1", "encryption_master_key": f"{SECRET}"},
        {"app_id": "1", "app_secret": ""},
        {"app_id": "1", "port": "x"},
    ):
        await raised(ConfigurationError, shell, **{**settings, **wrong})


async def test_what_the_api_cannot_send(api_for: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_for("127.0.0.1", 1, encryption_master_key=KEY_OF_CHANNEL) as api:
        await raised(ProtocolError, api.trigger, "private-encrypted-x", "e", "\ud800")
        await raised(ProtocolError, api.trigger, "private-encrypted-x", "e", {"a": object()})
        await raised(ProtocolError, api.trigger, "private-x\ud800", "e", {})
        await raised(ProtocolError, api.channels, "\ud800")
        await raised(ProtocolError, api.channel, "\ud800")
        await raised(ProtocolError, api.users, "")
        monkeypatch.setitem(__import__("sys").modules, "nacl.secret", None)
        await raised(ConfigurationError, api.trigger, "private-encrypted-x", "e", "text")


# --- the connection --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("given", [answer(407, SECRET), hang_up, never, b"nonsense\r\n\r\n", None])
async def test_a_connection_through_a_proxy_that_refuses(given: Answer | None, kind: str, scheme: str) -> None:
    async with ScriptedHTTPServer(given or hang_up) as server:
        (unused,) = free_ports(1)
        proxy = f"{kind}://user:{SECRET}@127.0.0.1:{unused if given is None else server.port}"
        client = ReverbClient(
            host="reverb.invalid",
            scheme=scheme,
            app_key="key",
            app_secret=SECRET,
            proxy=proxy,
            connect_timeout=0.3,
        )
        await raised(ReverbError, client.connect)
        await raised(ReverbError, client.listen)


# --- signing ---------------------------------------------------------------------------------------------------


async def test_what_is_not_signed() -> None:
    signer = SecretAuthorizer("key", SECRET, KEY_OF_CHANNEL)
    credentials = Credentials(app_key="key", app_secret=SECRET, encryption_master_key=KEY_OF_CHANNEL)
    for work in (
        lambda: signer("1.2:x", "private-x"),
        lambda: signer.authorize("1.2", "private-x:y"),
        lambda: signer.authenticate("x", "{}"),
        lambda: sign_channel("key", SECRET, "x", "private-x"),
        lambda: sign_channel("", SECRET, "1.2", "private-x"),
        lambda: sign_channel("key", f"{SECRET}\udcff", "1.2", "private-x"),
        lambda: sign_user("key", SECRET, "x", "{}"),
        lambda: sign_request("", SECRET, "GET", "/apps/1/channels", {}, b"", 1),
        lambda: SecretAuthorizer("key", SECRET, f"{SECRET}"),
        lambda: SecretAuthorizer("", SECRET, KEY_OF_CHANNEL),
        lambda: authorize_channel("x", "private-x", credentials=credentials),
        lambda: authorize_channel("1.2", "presence-x", credentials=credentials),
        lambda: derive_shared_secret("private-encrypted-x", 31 * b"S" + SECRET.encode()),
        lambda: parse_shared_secret("private-encrypted-x", SECRET),
    ):
        await raised(ReverbError, work)


async def test_webhooks_that_are_not_believed() -> None:
    body = b'{"time_ms":1,"events":[]}'
    right = {
        "X-Pusher-Key": "key",
        "X-Pusher-Signature": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
    }
    parse = partial(Webhook.parse, key="key", secret=SECRET)
    await raised(AuthenticationError, parse, body + b" ", {**right, "X-Pusher-Signature": "x"})
    await raised(AuthenticationError, parse, body, {})
    await raised(ProtocolError, parse, {}, {})
    await raised(ConfigurationError, Webhook.parse, body, {}, key="", secret=SECRET)


@pytest.mark.parametrize("data", ["text", '{"nonce":"AAAA","ciphertext":"AAAA"}', {"nonce": 1}, None])
async def test_what_cannot_be_decrypted(data: Any) -> None:
    await raised(ProtocolError, decrypt, data, 32 * b"S")


async def test_an_event_that_cannot_be_decrypted() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("private-encrypted-x")
        await peer.send("e", '{"nonce":"AAAA","ciphertext":"AAAA"}', "private-encrypted-x")
        await peer.wait_closed()

    errors: list[Any] = []
    async with (
        ScriptedServer(script) as server,
        ReverbClient(
            host=server.host,
            port=server.port,
            scheme="ws",
            app_key="key",
            app_secret=SECRET,
            encryption_master_key=KEY_OF_CHANNEL,
        ) as client,
    ):
        client.bind("error", lambda event, data, channel: errors.append(data))
        (await client.subscribe("private-encrypted-x")).bind("e", lambda event, data, channel: None)
        await until(lambda: errors)
    (data,) = errors
    assert isinstance(data["exception"], ProtocolError)
    assert list(shown_by(data["exception"])) == []


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (f"http://user:{SECRET}@host", {}),
        (f"user:{SECRET}@host", {}),
        (f"redis://[::{SECRET}", {}),
        (f"redis://user:{SECRET}@host:port", {}),
        (f"nats://user:{SECRET}@host:port", {}),
        (f"redis://user:{SECRET}@host", {"lease": 0}),
        (f"redis://user:{SECRET}@host", {"channels": ["presence-x"]}),
    ],
)
async def test_a_relay_that_can_not_work(url: str, options: dict[str, Any]) -> None:
    client = ReverbClient(app_key="key", host="127.0.0.1")
    options = {"channels": ["x"], **options}
    await raised(ConfigurationError, lambda: Relay(client, to=url, **options))
