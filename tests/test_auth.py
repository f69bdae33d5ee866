"""Signatures, checked against what others computed (Pusher's documentation, a recording of Laravel Reverb), and
authorizers, against an application that behaves like Laravel."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import traceback
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from reverb import (
    AuthenticationError,
    ConfigurationError,
    ProtocolError,
    ReverbAPI,
    ReverbClient,
    SubscriptionError,
)
from reverb.auth import (
    ChannelAuth,
    EndpointAuthorizer,
    SecretAuthorizer,
    UserAuth,
    authenticate_user,
    authorize_channel,
    sign_channel,
    sign_request,
    sign_user,
)
from reverb.config import Credentials
from reverb.server import App, ReverbServer
from tests.certificates import make_certificates
from tests.integration.servers import free_ports
from tests.laravel import PAGE, Laravel
from tests.scripted_http import BOMB, MB, Flood, ScriptedHTTPServer, answer, bounded_memory
from tests.shells import AIOHTTP_CHECKS_ADDRESSES
from tests.watching import open_descriptors, until

KEY, SECRET = "278d425bdf160c739803", "7ad3773142a6692b25b8"
BAD_SOCKET_IDS: tuple[Any, ...] = (
    "",
    "1",
    "1.",
    ".1",
    "1.2:private-x",
    "1.2\n",
    "1.2\r\n",
    "1.2\0",
    " 1.2",
    "-1.2",
    "+1.2",
    "1e3.2",
    "a.b",
    "\u0661.\u0662",
    "\uff11.\uff12",
    "1\u066b2",
    "1.2.3",
    "1." + 21 * "2",
    "1.2\ud800",
    "POST\n/apps/42/events\nauth_key=k&auth_timestamp=1&auth_version=1.0&body_md5=m&z=",
    1.2,
    None,
    b"1.2",
    ["1.2"],
)


@pytest.mark.parametrize(
    ("key", "secret", "socket_id", "channel", "channel_data", "signature"),
    [
        (
            KEY,
            SECRET,
            "1234.1234",
            "private-foobar",
            None,
            "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
        ),
        (
            KEY,
            SECRET,
            "1234.1234",
            "presence-foobar",
            '{"user_id":10,"user_info":{"name":"Mr. Channels"}}',
            "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
        ),
        (
            "app-key",
            "app-secret",
            "697736332.449543751",
            "private-x",
            None,
            "eb6eec438af99c7f43db1090f4f7b06f0b45f6eee64218cc2235d95212e82506",
        ),
    ],
)
def test_channel_signatures(
    key: str, secret: str, socket_id: str, channel: str, channel_data: str | None, signature: str
) -> None:
    assert sign_channel(key, secret, socket_id, channel, channel_data) == f"{key}:{signature}"


@pytest.mark.parametrize(
    ("key", "secret", "socket_id", "user_data", "signature"),
    [
        # Node: crypto.createHmac("sha256", "app-secret")
        (
            "app-key",
            "app-secret",
            "1.2",
            '{"id":"7"}',
            "bf31643da7237d16cb127352306206e93bd4018bbef017bd77126c1009bd1b42",
        ),
        # A recording of soketi, which accepted it.
        (
            "user-key",
            "user-secret",
            "2253235851.1204361978",
            '{"id": "u1"}',
            "c631038e33609c6a471fc4f0a77bf6f9b9c889552807761f15c940382e02a376",
        ),
    ],
)
def test_user_signatures(key: str, secret: str, socket_id: str, user_data: str, signature: str) -> None:
    assert sign_user(key, secret, socket_id, user_data) == f"{key}:{signature}"


def test_request_signature() -> None:
    body = b'{"name":"foo","channels":["project-3"],"data":"{\\"some\\":\\"data\\"}"}'
    assert sign_request(KEY, SECRET, "POST", "/apps/3/events", {}, body, 1353088179) == {
        "auth_key": KEY,
        "auth_timestamp": "1353088179",
        "auth_version": "1.0",
        "body_md5": "ec365a775a4cd0599faeb73354201b6f",
        "auth_signature": "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
    }


def test_a_request_without_a_body_has_no_digest_and_keeps_its_query() -> None:
    signed = sign_request(KEY, SECRET, "GET", "/apps/3/channels", {"info": "user_count"}, b"", 1)
    assert signed.keys() == {"auth_key", "auth_timestamp", "auth_version", "auth_signature", "info"}
    assert signed["info"] == "user_count"
    other = sign_request(KEY, SECRET, "GET", "/apps/3/channels", {"info": "subscription_count"}, b"", 1)
    assert other["auth_signature"] != signed["auth_signature"]


def test_signatures_do_not_show() -> None:
    assert "sig" not in repr(ChannelAuth("key:sig", '{"user_id":"sig"}', "sig"))
    assert "sig" not in repr(UserAuth("key:sig", "sig"))


@pytest.mark.parametrize("socket_id", BAD_SOCKET_IDS)
async def test_what_is_no_socket_id_is_not_signed(socket_id: Any) -> None:
    signer = SecretAuthorizer(KEY, SECRET)
    for sign in (
        lambda: sign_channel(KEY, SECRET, socket_id, "private-x"),
        lambda: sign_user(KEY, SECRET, socket_id, '{"id":"7"}'),
        lambda: signer.authorize(socket_id, "private-x"),
        lambda: signer.authenticate(socket_id, '{"id":"7"}'),
    ):
        with pytest.raises(ProtocolError, match="this is not a socket id: one is digits, a dot, digits"):
            sign()
    with pytest.raises(ProtocolError, match="socket id"):
        await signer(socket_id, "private-x")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ':user::{"id":"7"}',  # what makes the connection that of a user
        'presence-x:{"user_id":"7"}',  # what makes somebody a member
        "private-x:",
        "private-x\n",
        "private-\0",
        "private-\x7f",
        "private-\ud800",
        None,
        7,
    ],
)
def test_a_name_that_makes_the_signature_one_for_something_else(name: Any) -> None:
    with pytest.raises(ProtocolError, match="the channel's name cannot be signed"):
        sign_channel(KEY, SECRET, "1.2", name)
    with pytest.raises(ProtocolError, match="the channel's name cannot be signed"):
        SecretAuthorizer(KEY, SECRET).authorize("1.2", name, '{"user_id":"7"}')


def test_names_that_only_some_servers_take_are_signed() -> None:
    for name in ("private-é", "private-a b", "private-a/b", "private-\U0001f600", "privatex"):
        assert sign_channel(KEY, SECRET, "1.2", name).startswith(f"{KEY}:")


def test_texts_that_cannot_be_sent_are_not_signed() -> None:
    with pytest.raises(ProtocolError, match="surrogate"):
        sign_channel(KEY, SECRET, "1.2", "presence-x", '"\ud800"')
    with pytest.raises(ProtocolError, match="surrogate"):
        sign_user(KEY, SECRET, "1.2", '"\ud800"')


# --- the secret ------------------------------------------------------------------------------------------------


async def test_the_secret_signs_at_once_and_when_awaited() -> None:
    authorizer = SecretAuthorizer(KEY, SECRET)
    right = f"{KEY}:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    assert (await authorizer("1234.1234", "private-foobar")).auth == right
    assert authorizer.authorize("1234.1234", "private-foobar").auth == right
    assert SECRET not in repr(authorizer)


def test_a_master_key_gives_each_encrypted_channel_a_secret() -> None:
    authorizer = SecretAuthorizer(KEY, SECRET, b64encode(32 * b"m").decode())
    secret = authorizer.authorize("1.2", "private-encrypted-a").shared_secret
    assert secret == b64encode(hashlib.sha256(b"private-encrypted-a" + 32 * b"m").digest()).decode()
    assert secret != authorizer.authorize("1.2", "private-encrypted-b").shared_secret
    assert authorizer.authorize("1.2", "private-a").shared_secret is None
    for wrong in (
        "c2hvcnQ=",
        "",
        "!",
        43 * "m",
        "é",
        b64encode(32 * b"m").decode() + "!",
        b64encode(33 * b"m").decode(),
    ):
        with pytest.raises(ConfigurationError, match="32 bytes"):
            SecretAuthorizer(KEY, SECRET, wrong)


@pytest.mark.parametrize(("key", "secret"), [("", SECRET), (KEY, ""), ("", ""), (KEY, "\udcff")])
def test_nothing_is_signed_with_an_empty_key_or_secret(key: Any, secret: Any) -> None:
    for sign in (
        lambda: SecretAuthorizer(key, secret),
        lambda: sign_channel(key, secret, "1.2", "private-x"),
        lambda: sign_user(key, secret, "1.2", '{"id":"7"}'),
        lambda: sign_request(key, secret, "GET", "/apps/3/channels", {}, b"", 1),
        lambda: authorize_channel("1.2", "private-x", credentials=Credentials(app_key=key, app_secret=secret)),
        lambda: authenticate_user("1.2", {"id": 7}, credentials=Credentials(app_key=key, app_secret=secret)),
        lambda: ReverbClient(app_key=key, app_secret=secret, host="localhost"),
        lambda: ReverbAPI(app_id="3", app_key=key, app_secret=secret, host="localhost"),
        lambda: ReverbServer(apps=[App(key=key, secret=secret)]),
    ):
        with pytest.raises(ConfigurationError):
            sign()


# --- backends --------------------------------------------------------------------------------------------------

CREDENTIALS = Credentials(app_key=KEY, app_secret=SECRET, encryption_master_key=b64encode(32 * b"m").decode())


def test_a_backend_authorises_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    right = {"auth": f"{KEY}:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"}
    assert authorize_channel("1234.1234", "private-foobar", credentials=CREDENTIALS) == right
    monkeypatch.setenv("REVERB_APP_KEY", KEY)
    with pytest.raises(ConfigurationError, match="REVERB_APP_SECRET"):
        authorize_channel("1234.1234", "private-foobar")
    monkeypatch.setenv("REVERB_APP_SECRET", SECRET)
    assert authorize_channel("1234.1234", "private-foobar") == right


def test_a_backend_authorises_members() -> None:
    user = {"user_id": 7, "user_info": {"name": "Zoë"}}
    answer = authorize_channel("1.2", "presence-room", user, credentials=CREDENTIALS)
    assert json.loads(answer["channel_data"]) == {"user_id": "7", "user_info": {"name": "Zoë"}}
    assert answer["auth"] == sign_channel(KEY, SECRET, "1.2", "presence-room", answer["channel_data"])
    for channel, data in (("presence-room", None), ("private-x", user), ("presence-room", {"id": 7})):
        with pytest.raises(SubscriptionError):
            authorize_channel("1.2", channel, data, credentials=CREDENTIALS)


def test_a_backend_hands_out_the_keys_of_encrypted_channels() -> None:
    answer = authorize_channel("1.2", "private-encrypted-a", credentials=CREDENTIALS)
    assert b64decode(answer["shared_secret"]) == hashlib.sha256(b"private-encrypted-a" + 32 * b"m").digest()
    with pytest.raises(AuthenticationError, match="REVERB_ENCRYPTION_MASTER_KEY"):
        authorize_channel("1.2", "private-encrypted-a", credentials=Credentials(app_key=KEY, app_secret=SECRET))


@pytest.mark.parametrize("socket_id", BAD_SOCKET_IDS)
def test_backends_sign_no_malformed_socket_id(socket_id: str) -> None:
    with pytest.raises(ProtocolError, match="socket id"):
        authorize_channel(socket_id, "private-x", credentials=CREDENTIALS)
    with pytest.raises(ProtocolError, match="socket id"):
        authenticate_user(socket_id, {"id": "7"}, credentials=CREDENTIALS)


@pytest.mark.parametrize(
    "channel",
    [
        "",
        "news",
        "private",
        "private-",
        "privatex",
        "private-x\n",
        "private-a b",
        "private-é",
        "private-a:b",
        "private-" + 193 * "x",
        "private-x\r",
        "PRIVATE-x",
        "presence-\uff41",
        "private-x:presence-y",
        'presence-x:{"user_id":"1"}',
        "private-\ud800",
        " private-x",
        None,
        7,
        ["private-x"],
    ],
)
def test_backends_sign_no_malformed_channel(channel: Any) -> None:
    with pytest.raises(ProtocolError, match="private or presence channel"):
        authorize_channel("1.2", channel, credentials=CREDENTIALS)


def test_a_backend_signs_users_in() -> None:
    answer = authenticate_user("1.2", {"id": 7, "watchlist": ["8"]}, credentials=CREDENTIALS)
    assert json.loads(answer["user_data"]) == {"id": "7", "watchlist": ["8"]}
    for nobody in ({}, {"id": ""}, {"id": None}, {"id": True}, {"user_id": "7"}):
        with pytest.raises(ProtocolError, match="user_data"):
            authenticate_user("1.2", nobody, credentials=CREDENTIALS)


# --- endpoints -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverb.auth._RETRY_DELAYS", (0.01, 0.01, 0.01, 0.01))


@pytest.fixture
async def laravel() -> AsyncIterator[Laravel]:
    async with Laravel(KEY, SECRET) as laravel:
        yield laravel


@pytest.mark.parametrize("json", [False, True])
async def test_an_endpoint_is_asked_as_laravel_wants_it(laravel: Laravel, json: bool) -> None:
    authorizer = EndpointAuthorizer(
        laravel.url, token=laravel.token, headers={"X-Device": "rpi"}, params={"site": "north & south"}, json=json
    )
    answer = await authorizer("1.2", "private-x")
    assert answer == ChannelAuth(sign_channel(KEY, SECRET, "1.2", "private-x"))
    (asked,) = laravel.asked
    assert asked["input"] == {"socket_id": "1.2", "channel_name": "private-x", "site": "north & south"}
    assert asked["headers"]["X-Device"] == "rpi"
    assert asked["headers"]["Accept"] == "application/json"


async def test_channel_data_and_shared_secrets_come_as_they_are(laravel: Laravel) -> None:
    authorizer = EndpointAuthorizer(laravel.url, token=laravel.token)
    presence = await authorizer("1.2", "presence-room")
    assert presence.channel_data == '{"user_id":"7","user_info":{"name":"Ann\\/\\u00e9"}}'
    encrypted = await authorizer("1.2", "private-encrypted-x")
    assert encrypted.shared_secret == b64encode(laravel.shared_secret("private-encrypted-x")).decode()
    user = await authorizer.authenticate_user("1.2")
    assert user.user_data == '{"id":"7","user_info":{"name":"Ann\\/\\u00e9"}}'
    assert user.auth == sign_user(KEY, SECRET, "1.2", user.user_data)
    assert laravel.asked[-1]["input"] == {"socket_id": "1.2"}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_tokens_headers_and_params_are_asked_for_at_every_attempt(
    laravel: Laravel, asynchronous: bool
) -> None:
    numbers = iter(range(100))

    def provide(make: Callable[[int], Any]) -> Any:
        async def provider() -> Any:
            await asyncio.sleep(0)
            return make(next(numbers))

        return provider if asynchronous else lambda: make(next(numbers))

    authorizer = EndpointAuthorizer(
        laravel.url,
        token=provide(lambda number: laravel.token if number == 3 else f"old-{number}"),
        headers=provide(lambda number: {"X-Number": str(number)}),
        params=provide(lambda number: {"number": str(number)}),
    )
    laravel.answers.append(web.Response(status=503))
    await authorizer("1.2", "private-x")
    assert [each["headers"]["Authorization"] for each in laravel.asked] == [
        "Bearer old-0",
        f"Bearer {laravel.token}",
    ]
    assert [each["headers"]["X-Number"] for each in laravel.asked] == ["1", "4"]
    assert [each["input"]["number"] for each in laravel.asked] == ["2", "5"]


def page(status: int) -> web.Response:
    return web.Response(status=status, text=PAGE, content_type="text/html")


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (page(401), "REVERB_AUTH_TOKEN"),
        (page(403), "callback"),
        (page(404), "REVERB_AUTH_ENDPOINT"),
        (page(405), "POST"),
        (page(419), "CSRF"),
        (page(422), "parameters"),
        (page(418), "does not accept"),
        (web.Response(status=302, headers={"Location": "/login?TOP-SECRET"}), "redirects"),
        (page(200), "page, probably a login page"),
        (web.json_response({"message": "TOP-SECRET"}), "missing required field `auth`"),
        (web.json_response({"auth": "k:s", "channel_data": {"x": "TOP-SECRET"}}), "channel_data"),
        (web.json_response(["TOP-SECRET"]), "not an authorisation"),
        (web.json_response({"auth": ""}), "'auth' must be KEY:SIGNATURE"),
        (web.json_response({"auth": ":TOP-SECRET"}), "'auth' must be KEY:SIGNATURE"),
        (web.Response(text="TOP-SECRET"), "not JSON"),
        (
            web.Response(text=""),
            "empty: set BROADCAST_CONNECTION=reverb in the application's .env (it may be log or null)",
        ),
        (web.Response(text=" \r\n"), "empty: set BROADCAST_CONNECTION=reverb"),
        (web.Response(status=204), "empty: set BROADCAST_CONNECTION=reverb"),
        (web.json_response(""), "empty: set BROADCAST_CONNECTION=reverb"),
        (web.json_response(None), "empty: set BROADCAST_CONNECTION=reverb"),
        (
            web.json_response(True),
            "no signature: set BROADCAST_CONNECTION=reverb in the application's .env (it may be redis)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_what_does_not_get_better_is_asked_once_and_explained(
    laravel: Laravel, answer: web.Response, cause: str
) -> None:
    laravel.answers.append(answer)
    url = laravel.url.replace("//", "//user:TOP-SECRET@") + "?key=TOP-SECRET"
    authorizer = EndpointAuthorizer(url, headers={"X-Token": "TOP-SECRET"})
    with pytest.raises(AuthenticationError) as caught:
        await authorizer("1.2", "private-x")
    assert len(laravel.asked) == 1
    assert caught.value.code == answer.status
    message = str(caught.value)
    assert message.startswith(f"{laravel.url} did not authorise 'private-x': ")
    assert cause in message
    assert "\n" not in message
    assert len(message) < 300
    assert "TOP-SECRET" not in "".join(traceback.format_exception(caught.value)) + repr(authorizer)


async def test_what_laravel_itself_says(laravel: Laravel) -> None:
    with pytest.raises(AuthenticationError, match="401, nobody is logged in"):
        await EndpointAuthorizer(laravel.url, token="old")("1.2", "private-x")
    laravel.denied.add("private-x")
    with pytest.raises(
        AuthenticationError, match=r"403, the channel's callback refused.*; or the route accepts sessions"
    ):
        await EndpointAuthorizer(laravel.url, token=laravel.token)("1.2", "private-x")
    with pytest.raises(AuthenticationError, match="404, the URL is wrong"):
        await EndpointAuthorizer(f"{laravel.root}/broadcast/auth", token=laravel.token)("1.2", "private-x")
    # Without its Content-Type a form is nothing to PHP.
    wrong = EndpointAuthorizer(laravel.url, token=laravel.token, headers={"Content-Type": "text/plain"})
    with pytest.raises(AuthenticationError, match="403"):
        await wrong("1.2", "private-y")


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer TOP-SECRET"}])
@pytest.mark.parametrize("query", ["", "?key=TOP-SECRET"])
async def test_laravels_own_route_does_not_look_at_tokens(
    laravel: Laravel, headers: dict[str, str], query: str
) -> None:
    token = None if headers else laravel.token
    authorizer = EndpointAuthorizer(laravel.stock_url + query, token=token, headers=headers)
    with pytest.raises(AuthenticationError) as caught:
        await authorizer("1.2", "private-x")
    cause, _, other = str(caught.value).partition("Otherwise, ")
    assert "403, Laravel's default route accepts sessions only" in cause
    assert "/api/broadcasting/auth" in cause
    assert "['prefix' => 'api', 'middleware' => ['api', 'auth:sanctum']]" in cause
    assert "bootstrap/app.php" in cause
    assert other.startswith("the channel's callback refused")
    with pytest.raises(AuthenticationError, match=r"accepts sessions only.*resolveAuthenticatedUserUsing"):
        await authorizer.authenticate_user("1.2")


async def test_laravels_own_route_without_a_token(laravel: Laravel) -> None:
    with pytest.raises(AuthenticationError, match="403, the channel's callback refused") as caught:
        await EndpointAuthorizer(laravel.stock_url)("1.2", "private-x")
    assert "sessions" not in str(caught.value)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        await log_in(laravel, session)
        assert (await EndpointAuthorizer(laravel.stock_url, session=session)("1.2", "private-x")).auth


async def test_laravel_has_no_route_for_users_by_itself() -> None:
    laravel = Laravel(KEY, SECRET)
    laravel.user_routes = False
    async with laravel:
        with pytest.raises(AuthenticationError, match=r"404, .*Broadcast::userRoutes\(\)") as caught:
            await EndpointAuthorizer(laravel.url, token=laravel.token).authenticate_user("1.2")
        assert caught.value.code == 404


@pytest.mark.parametrize("failure", [500, 502, 503, 429, "drop"])
async def test_what_may_get_better_is_tried_again(laravel: Laravel, failure: int | str) -> None:
    def fail(times: int) -> None:
        laravel.answers.extend("drop" if failure == "drop" else page(int(failure)) for _ in range(times))

    authorizer = EndpointAuthorizer(laravel.url, token=laravel.token)
    fail(4)
    assert (await authorizer("1.2", "private-x")).auth
    assert len(laravel.asked) == 5
    fail(5)
    with pytest.raises(AuthenticationError) as caught:
        await authorizer("1.2", "private-x")
    assert len(laravel.asked) == 10
    assert caught.value.code == (None if failure == "drop" else failure)
    assert caught.value.is_temporary
    shown = "".join(traceback.format_exception(caught.value))
    assert "TOP-SECRET" not in shown
    assert shown.splitlines()[-1].startswith("reverb.exceptions.AuthenticationError: ")
    assert type(caught.value) is AuthenticationError


async def test_an_endpoint_that_is_down(laravel: Laravel) -> None:
    await laravel.stop()
    try:
        with pytest.raises(AuthenticationError, match="cannot connect") as caught:
            await EndpointAuthorizer(laravel.url, token=laravel.token)("1.2", "private-x")
        assert caught.value.code is None
    finally:
        await laravel.start()


async def test_an_endpoint_with_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        await web.TCPSite(runner, "localhost", 0, ssl_context=certificates.server).start()
        url = f"https://localhost:{runner.addresses[0][1]}/broadcasting/auth"
        with pytest.raises(AuthenticationError, match=r"certificate is not trusted: .*verify failed") as caught:
            await EndpointAuthorizer(url)("1.2", "private-x")
        assert caught.value.is_temporary  # it expires and is renewed, or the clock is set, while programs live
        connector = aiohttp.TCPConnector(ssl=certificates.client)
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(AuthenticationError, match="404"):
                await EndpointAuthorizer(url, session=session)("1.2", "private-x")
        plain = EndpointAuthorizer(url.replace("https", "http"))
        with pytest.raises(
            AuthenticationError, match=r"closed the connection without an answer \(http:// for a port with TLS"
        ):
            await plain("1.2", "private-x")
    finally:
        await runner.cleanup()


async def test_an_endpoint_without_tls(laravel: Laravel) -> None:
    with pytest.raises(AuthenticationError, match=r"cannot connect: .*\(https:// for a port without TLS\?\)"):
        await EndpointAuthorizer(laravel.url.replace("http:", "https:"))("1.2", "private-x")


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", "it closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "its answer is not HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
            "it closed the connection in the middle of its answer",
        ),
    ],
)
async def test_what_is_no_answer_is_said_in_words(answer: bytes, cause: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"private-x")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/broadcasting/auth"
        with pytest.raises(AuthenticationError) as caught:
            await EndpointAuthorizer(url)("1.2", "private-x")
    assert str(caught.value).partition("'private-x': ")[2].startswith(cause)
    assert caught.value.is_temporary


@pytest.mark.parametrize("url", ["https://", "example.com/auth", "https://exa mple.com/auth", "https://[::1/auth"])
def test_an_endpoint_that_is_no_url(url: str) -> None:
    for urls in (
        {"url": url},
        *({"url": "https://a.test/auth", name: url} for name in ("user_url", "csrf_cookie_url")),
    ):
        options: Any = urls
        with pytest.raises(ConfigurationError, match="an endpoint must be a URL"):
            EndpointAuthorizer(**options)


@pytest.mark.parametrize(
    "host", ["a..b", 70 * "x", ".", "half-\ud83d.test", "münchen..test", 300 * "a"], ids=ascii
)
def test_an_endpoint_whose_host_cannot_be_one(host: str) -> None:
    with pytest.raises(ConfigurationError, match="an endpoint must be a URL"):
        EndpointAuthorizer(f"https://{host}/broadcasting/auth")


@pytest.mark.skipif(not AIOHTTP_CHECKS_ADDRESSES, reason="this aiohttp looks up a wrong IP address like a name")
@pytest.mark.parametrize("host", ["192.168.1.300", "127.0.0.1."])
async def test_an_endpoint_whose_host_is_no_ip_address(host: str) -> None:
    with pytest.raises(AuthenticationError, match="neither a name nor an IP address") as caught:
        await EndpointAuthorizer(f"http://{host}:1/broadcasting/auth")("1.2", "private-x")
    assert not caught.value.is_temporary


async def test_an_endpoint_that_is_slow(laravel: Laravel) -> None:
    laravel.delay = 5
    with pytest.raises(AuthenticationError, match=r"no answer within 0\.05 seconds"):
        await EndpointAuthorizer(laravel.url, token=laravel.token, timeout=0.05)("1.2", "private-x")
    assert len(laravel.asked) == 5


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_kept_to_by_all(laravel: Laravel, form: str) -> None:
    later = "1" if form == "seconds" else format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2))
    laravel.answers.append(web.Response(status=429, headers={"Retry-After": later}))
    authorizer = EndpointAuthorizer(laravel.url, token=laravel.token)
    first = asyncio.ensure_future(authorizer("1.2", "private-x"))
    await until(lambda: laravel.asked and "status" in laravel.asked[0])
    started = monotonic()
    await asyncio.sleep(0.05)
    await authorizer("1.2", "private-y")
    assert monotonic() - started > 0.5
    await first
    assert len(laravel.asked) == 3


async def test_nobody_waits_for_an_hour(laravel: Laravel) -> None:
    laravel.answers.append(web.Response(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(AuthenticationError, match="429, too many requests"):
        await EndpointAuthorizer(laravel.url, token=laravel.token)("1.2", "private-x")
    assert len(laravel.asked) == 1


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_what_an_endpoint_compresses_is_not_unpacked(encoding: str) -> None:
    async with ScriptedHTTPServer(answer(200, BOMB, f"Content-Encoding: {encoding}")) as server:
        authorizer = EndpointAuthorizer(f"http://{server.host}:{server.port}/broadcasting/auth")
        with bounded_memory(8 * MB), pytest.raises(AuthenticationError, match="with a compressed body") as caught:
            await authorizer("1.2", "private-x")
    assert caught.value.code == 200
    assert not caught.value.is_temporary
    assert b"\r\nAccept-Encoding: identity\r\n" in server.requests[0].raw
    assert len(server.requests) == 1


async def test_a_session_that_unpacks_does_not_unpack_for_us() -> None:
    async with (
        ScriptedHTTPServer(answer(200, BOMB, "Content-Encoding: gzip")) as server,
        aiohttp.ClientSession(headers={"Accept-Encoding": "gzip, br"}) as session,
    ):
        url = f"http://{server.host}:{server.port}/broadcasting/auth"
        with bounded_memory(8 * MB), pytest.raises(AuthenticationError, match="with a compressed body"):
            await EndpointAuthorizer(url, session=session, csrf_cookie_url=url)("1.2", "private-x")
        assert b"\r\nAccept-Encoding: identity\r\n" in server.requests[0].raw


@pytest.mark.parametrize("status", [200, 201, 403, 500])
@pytest.mark.parametrize("head", ["Content-Length: 1000000000", "Connection: close", "Transfer-Encoding: chunked"])
async def test_an_endpoint_that_does_not_end(status: int, head: str) -> None:
    flood = Flood(status, head)
    async with ScriptedHTTPServer(flood) as server:
        authorizer = EndpointAuthorizer(f"http://{server.host}:{server.port}/broadcasting/auth")
        reason = r"more than 1048576 bytes" if status < 300 else f"HTTP status {status}"
        with bounded_memory(8 * MB), pytest.raises(AuthenticationError, match=reason):
            await authorizer("1.2", "private-x")
    assert 0 < flood.most_sent < 16 * MB


async def log_in(laravel: Laravel, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{laravel.root}/sanctum/csrf-cookie") as response:
        assert response.status == 204
    token = unquote(session.cookie_jar.filter_cookies(URL(laravel.root))["XSRF-TOKEN"].value)
    async with session.post(f"{laravel.root}/login", headers={"X-XSRF-TOKEN": token}) as response:
        assert response.status == 204


async def test_session_cookies_as_sanctum_wants_them(laravel: Laravel) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        await log_in(laravel, session)
        authorizer = EndpointAuthorizer(
            laravel.url, csrf_cookie_url=f"{laravel.root}/sanctum/csrf-cookie", session=session
        )
        for _ in range(2):
            # The tokens of the last time are old; each time begins with a new one.
            laravel.forget_csrf_tokens()
            answers = await asyncio.gather(*(authorizer("1.2", f"private-{number}") for number in range(4)))
            assert all(answer.auth for answer in answers)
        with pytest.raises(AuthenticationError, match="419"):
            await EndpointAuthorizer(laravel.url, session=session, headers={"Origin": laravel.root})(
                "1.2", "private-x"
            )
        assert not session.closed


async def test_a_csrf_cookie_without_a_login_is_not_enough(laravel: Laravel) -> None:
    csrf_cookie_url = f"{laravel.root}/sanctum/csrf-cookie"
    authorizer = EndpointAuthorizer(laravel.url, csrf_cookie_url=csrf_cookie_url)
    with pytest.raises(AuthenticationError, match="401"):
        await authorizer("1.2", "private-x")
    cookies = [each["headers"].get("Cookie") for each in laravel.asked]
    with pytest.raises(AuthenticationError, match="401"):
        await authorizer("1.2", "private-x")
    assert cookies[0].partition("laravel_session=")[2][:20] in laravel.asked[-1]["headers"]["Cookie"]
    with pytest.raises(AuthenticationError, match=r"/sanctum/csrf did not authorise 'private-x': HTTP status 404"):
        await EndpointAuthorizer(laravel.url, csrf_cookie_url=f"{laravel.root}/sanctum/csrf")("1.2", "private-x")


async def test_a_session_that_raises_for_refusals_by_itself(laravel: Laravel) -> None:
    laravel.denied.add("private-x")
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        authorizer = EndpointAuthorizer(laravel.url, token=laravel.token, session=session)
        with pytest.raises(AuthenticationError, match="HTTP status 403, the channel's callback"):
            await authorizer("1.2", "private-x")


async def test_nothing_stays_open(laravel: Laravel) -> None:
    authorizer = EndpointAuthorizer(laravel.url, token=laravel.token)
    before = open_descriptors()
    await asyncio.gather(*(authorizer("1.2", f"private-{number}") for number in range(8)))
    laravel.delay = 5
    slow = asyncio.ensure_future(authorizer("1.2", "private-x"))
    await until(lambda: len(laravel.asked) == 9)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    await until(lambda: open_descriptors() <= before)


def test_an_authorizer_outlives_its_event_loop() -> None:
    (port,) = free_ports(1)
    root = f"http://127.0.0.1:{port}"
    authorizer = EndpointAuthorizer(f"{root}/api/broadcasting/auth", csrf_cookie_url=f"{root}/sanctum/csrf-cookie")

    async def authorize() -> None:
        async with Laravel(KEY, SECRET, port=port):
            for result in await asyncio.gather(
                *(authorizer("1.2", f"private-{number}") for number in range(8)), return_exceptions=True
            ):
                assert isinstance(result, AuthenticationError)
                assert result.code == 401

    asyncio.run(authorize())
    asyncio.run(authorize())


def test_without_aiohttp_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ConfigurationError, match=r"python-reverb\[http\]"):
        EndpointAuthorizer("https://example.com/broadcasting/auth")


@pytest.mark.parametrize(
    ("url", "user_url"),
    [
        ("https://a.test/broadcasting/auth", "https://a.test/broadcasting/user-auth"),
        ("https://auth.a.test/pusher/auth?x=auth", "https://auth.a.test/pusher/user-auth?x=auth"),
        ("https://a.test/oauth", "https://a.test/oauth"),
    ],
)
def test_where_users_are_authorised(url: str, user_url: str) -> None:
    assert EndpointAuthorizer(url)._users.url == user_url


async def test_clients_in_two_threads_may_share_an_authorizer(laravel: Laravel) -> None:
    laravel.delay = 0.2
    authorizer = EndpointAuthorizer(laravel.url, token=laravel.token)
    here = asyncio.ensure_future(authorizer("1.2", "private-here"))
    await until(lambda: laravel.asked)
    there = asyncio.to_thread(lambda: asyncio.run(authorize(authorizer, "private-there")))
    answers = await asyncio.gather(here, there)
    assert all(answer.auth for answer in answers)
    assert laravel.most_at_once == 2


async def authorize(authorizer: EndpointAuthorizer, channel: str) -> ChannelAuth:
    return await authorizer("1.3", channel)
