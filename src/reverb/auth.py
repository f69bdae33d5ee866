"""Authorise channels and users: with the application's secret, by asking an endpoint, or in your own way.

A client uses an authorizer: :class:`SecretAuthorizer`, :class:`EndpointAuthorizer`, or your own
:data:`Authorizer`. A backend that authorises other clients, such as browsers, uses :func:`authorize_channel` and
:func:`authenticate_user`.

All signatures are HMAC-SHA256 with the application's secret, in lower-case hex, as the Pusher protocol defines
them.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from . import _protocol, crypto
from ._checks import is_url
from ._rest import Body
from ._signatures import hmac_hex, problem_of, sign_request
from ._visible import bare
from .config import Credentials
from .exceptions import AuthenticationError, ConfigurationError, ProtocolError, SubscriptionError, plural

if TYPE_CHECKING:
    import aiohttp

__all__ = [
    "Authorizer",
    "ChannelAuth",
    "EndpointAuthorizer",
    "SecretAuthorizer",
    "UserAuth",
    "authenticate_user",
    "authorize_channel",
    "sign_channel",
    "sign_request",
    "sign_user",
]

T = TypeVar("T")
Provider: TypeAlias = T | Callable[[], T | Awaitable[T]]
"""A value, or a sync or async callable without arguments that returns the value."""

_RETRY_DELAYS = (0.25, 0.5, 1.0, 2.0)
"""Longest pauses in seconds before each retry. Each pause is random, between half of this and all of it."""
_MAX_RETRY_AFTER = 60.0
"""Longest ``Retry-After`` to wait for, in seconds."""
_MAX_ANSWER_SIZE = 1024 * 1024
"""Bytes that are read of an endpoint's answer. An authorisation has a few hundred, plus the data of a member."""


class ChannelAuth(msgspec.Struct, frozen=True):
    """The authorisation of a connection for a private or presence channel. Its repr shows none of the values."""

    auth: str
    """The signature, as ``KEY:SIGNATURE``."""
    channel_data: str | None = None
    """The JSON text about the member of a presence channel. The signature covers it, so it is sent unchanged."""
    shared_secret: str | None = None
    """The key of an encrypted channel: 32 bytes in base64."""

    def __repr__(self) -> str:
        return "ChannelAuth()"


class UserAuth(msgspec.Struct, frozen=True):
    """The authorisation of a connection to sign in as a user. Its repr shows none of the values."""

    auth: str
    """The signature, as ``KEY:SIGNATURE``."""
    user_data: str
    """The JSON text about the user. The signature covers it, so it is sent unchanged."""

    def __repr__(self) -> str:
        return "UserAuth()"


Authorizer = Callable[[str, str], Awaitable[ChannelAuth]]
"""An async callable ``(socket_id, channel_name) -> ChannelAuth``. The client calls it for each subscription.

If it also signs users in, it has an async method ``authenticate_user(socket_id) -> UserAuth``.
"""


# --- with the application's secret -----------------------------------------------------------------------------


class SecretAuthorizer:
    """Authorise with the application's secret.

    **Security: whoever has the secret can do anything on all channels of the application.** :class:`ReverbClient`
    uses this authorizer if ``REVERB_APP_SECRET`` is set, ``REVERB_AUTH_ENDPOINT`` is not, and you pass no
    authorizer.

    Args:
        app_key: The application's key.
        app_secret: The application's secret.
        encryption_master_key: The master key for encrypted channels: 32 bytes in base64. The default is no key.

    Raises:
        ConfigurationError: The key or the secret is empty, or the master key is not valid.
    """

    def __init__(self, app_key: str, app_secret: str, encryption_master_key: str | None = None) -> None:
        problem = problem_of(app_key, app_secret)
        self._key = app_key
        self._secret = app_secret
        self._master_key = crypto.decode_key(encryption_master_key)
        if self._master_key is None and encryption_master_key is not None:
            problem = (
                problem or "encryption_master_key must be 32 bytes in base64; make one: openssl rand -base64 32"
            )
        del app_secret, encryption_master_key  # error reporters send local variables
        if problem is not None:
            raise ConfigurationError(problem)

    @property
    def has_master_key(self) -> bool:
        """Whether the authorizer has a master key, and so the keys of encrypted channels."""
        return self._master_key is not None

    async def __call__(self, socket_id: str, channel_name: str) -> ChannelAuth:
        """Authorise a connection for a channel, as :data:`Authorizer` requires it."""
        return self.authorize(socket_id, channel_name)

    def authorize(self, socket_id: str, channel_name: str, channel_data: str | None = None) -> ChannelAuth:
        """Authorise a connection for a channel.

        Args:
            socket_id: The connection's id.
            channel_name: The channel's name.
            channel_data: The JSON text about the member; for presence channels only.

        Raises:
            ProtocolError: The ``socket_id`` or the name must not be signed; see :func:`sign_channel`.
        """
        content = _channel_content(socket_id, channel_name, channel_data)
        auth = f"{self._key}:{hmac_hex(self._secret, content)}"
        if self._master_key is None or not _protocol.is_encrypted(channel_name):
            return ChannelAuth(auth, channel_data)
        shared_secret = crypto.derive_shared_secret(channel_name, self._master_key)
        return ChannelAuth(auth, channel_data, b64encode(shared_secret).decode())

    def authenticate(self, socket_id: str, user_data: str) -> UserAuth:
        """Authorise a connection to sign in as a user.

        Args:
            socket_id: The connection's id.
            user_data: The JSON text about the user.

        Raises:
            ProtocolError: The ``socket_id`` must not be signed; see :func:`sign_user`.
        """
        content = _encode(f"{_checked(socket_id)}::user::{user_data}")
        return UserAuth(f"{self._key}:{hmac_hex(self._secret, content)}", user_data)

    @classmethod
    def from_credentials(cls, credentials: Credentials) -> SecretAuthorizer:
        """Create an authorizer from settings.

        Args:
            credentials: The key, the secret, and the master key, if there is one.

        Raises:
            ConfigurationError: The settings have no secret.
        """
        if credentials.app_secret is None:
            raise ConfigurationError("REVERB_APP_SECRET is missing: signing needs it")
        master_key = credentials.encryption_master_key
        return cls(
            credentials.app_key,
            credentials.app_secret.get_secret_value(),
            None if master_key is None else master_key.get_secret_value(),
        )


def authorize_channel(
    socket_id: str,
    channel: str,
    user_data: dict[str, Any] | None = None,
    *,
    credentials: Credentials | None = None,
) -> dict[str, str]:
    """Authorise a browser for a private or presence channel.

    **Security: check first whether the user may listen to the channel.** This function does not check it.

    It is for backends that pusher-js or Laravel Echo call at their ``authEndpoint``, with ``socket_id`` and
    ``channel_name``. Return the result to them as JSON. It is a plain function and does not block, so you can call
    it in coroutines, too.

    Args:
        socket_id: The connection's id, as the browser sent it.
        channel: The channel's name, as the browser sent it.
        user_data: The member of a presence channel: ``{"user_id": …, "user_info": {…}}``. Leave it out for other
            channels.
        credentials: The key and the secret. By default, each call reads the environment and ``.env``. To avoid
            that, call :meth:`Credentials.from_env` once and pass its result.

    Returns:
        The fields of the answer: ``auth``, ``channel_data`` for a presence channel, and ``shared_secret`` for an
            encrypted channel, derived from ``REVERB_ENCRYPTION_MASTER_KEY``.

    Raises:
        ProtocolError: The socket id or the channel's name is malformed, or the channel needs no authorisation.
        SubscriptionError: ``user_data`` is missing or malformed, or the channel is not a presence channel.
        AuthenticationError: The channel is encrypted, and there is no master key.
        ConfigurationError: The settings have no secret.
    """
    _checked(socket_id)
    if not isinstance(channel, str) or not _PUBLIC_NAME.fullmatch(channel):
        raise ProtocolError("this is not the name of a private or presence channel")
    signer = SecretAuthorizer.from_credentials(Credentials.from_env() if credentials is None else credentials)
    channel_data = None
    if _protocol.is_presence(channel):
        channel_data = _protocol.encode_channel_data(channel, user_data)
    elif user_data is not None:
        raise SubscriptionError(f"user_data is for presence channels only; {channel!r} is not one")
    answer = signer.authorize(socket_id, channel, channel_data)
    if _protocol.is_encrypted(channel):
        crypto.parse_shared_secret(channel, answer.shared_secret)
    fields = {"auth": answer.auth, "channel_data": channel_data, "shared_secret": answer.shared_secret}
    return {name: value for name, value in fields.items() if value is not None}


def authenticate_user(
    socket_id: str, user_data: dict[str, Any], *, credentials: Credentials | None = None
) -> dict[str, str]:
    """Sign a browser's user in.

    It is for backends that pusher-js calls after ``pusher.signin()``. Return the result as JSON. It is a plain
    function, as :func:`authorize_channel` is.

    Args:
        socket_id: The connection's id, as the browser sent it.
        user_data: The user: ``{"id": "…"}``, optionally with ``user_info``, and with ``watchlist``, a list of
            other users' ids.
        credentials: The key and the secret; see :func:`authorize_channel`.

    Returns:
        The fields of the answer: ``auth`` and ``user_data``.

    Raises:
        ProtocolError: The socket id is malformed, or ``user_data`` has no id.
        ConfigurationError: The settings have no secret.
    """
    _checked(socket_id)
    signer = SecretAuthorizer.from_credentials(Credentials.from_env() if credentials is None else credentials)
    answer = signer.authenticate(socket_id, _protocol.encode_user_data(user_data))
    return {"auth": answer.auth, "user_data": answer.user_data}


_PUBLIC_NAME = re.compile(r"(?=.{,200}\Z)(private|presence)-[A-Za-z0-9_\-=@,.;]+")
"""Channel names that browsers may ask to have signed. soketi and Pusher's own libraries accept 200 characters at
most."""


# --- by asking an endpoint -------------------------------------------------------------------------------------


class EndpointAuthorizer:
    """Authorise by asking an application over HTTP, such as Laravel's ``POST /api/broadcasting/auth``.

    It needs aiohttp, the extra ``http``. Laravel's default route is ``/broadcasting/auth``. That one accepts
    sessions only, never tokens.

    ``token``, ``headers`` and ``params`` are values, or sync or async callables that return the value. The
    authorizer calls them for each attempt, because tokens expire while programs run.

    Network errors, 429 (after its ``Retry-After``) and 5xx are retried for a few seconds. Every failure raises
    :exc:`AuthenticationError`. Its ``code`` is the HTTP status, if there was an answer.

    Args:
        url: The URL that authorises channels.
        user_url: The URL that signs users in. The default is ``url`` with ``user-auth`` instead of ``auth`` as its
            last segment.
        token: A bearer token to send.
        headers: More headers to send.
        params: More parameters to send in the body, besides ``socket_id`` and ``channel_name``.
        json: Whether to send the body as JSON. The default is a form, which PHP reads.
        csrf_cookie_url: The URL that sets the cookie ``XSRF-TOKEN``, such as Laravel Sanctum's
            ``/sanctum/csrf-cookie``. It is needed with session cookies. The authorizer gets it first, and sends
            the token back.
        session: An :class:`aiohttp.ClientSession` to use, for example one that you logged in with. You close it
            yourself. By default, the authorizer opens connections only while it asks.
        timeout: Seconds for each attempt. The default is 10.

    Raises:
        ConfigurationError: A URL is not valid, or aiohttp is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        user_url: str | None = None,
        token: Provider[str] | None = None,
        headers: Provider[Mapping[str, str]] | None = None,
        params: Provider[Mapping[str, str]] | None = None,
        json: bool = False,
        csrf_cookie_url: str | None = None,
        session: aiohttp.ClientSession | None = None,
        timeout: float = 10.0,
    ) -> None:
        self._token = token
        self._headers = headers
        self._params = params
        self._json = json
        urls = [each is None or is_url(each, "http", "https") for each in (url, user_url, csrf_cookie_url)]
        if all(urls):
            self._channels = _Endpoint(url)
            self._users = _Endpoint(user_url or re.sub(r"(?<=/)auth/?(?=$|[?#])", "user-auth", url, count=1))
            self._csrf_cookie = None if csrf_cookie_url is None else _Endpoint(csrf_cookie_url)
        del token, headers, params, url, user_url, csrf_cookie_url  # error reporters send local variables
        if not all(urls):
            raise ConfigurationError("an endpoint must be a URL like https://example.com/api/broadcasting/auth")
        require_aiohttp()
        self._given_session = session
        self._timeout = timeout
        self._cookies: aiohttp.abc.AbstractCookieJar | None = None
        self._shared: dict[asyncio.AbstractEventLoop, _Shared] = {}
        """The session that running calls share, by event loop: clients in several threads may use one authorizer.
        """
        self._not_before = 0.0
        """Earliest time of the next request, on the clock of :func:`time.monotonic`: the endpoint asked for a
        pause."""

    async def __call__(self, socket_id: str, channel_name: str) -> ChannelAuth:
        """Ask the endpoint to authorise a connection for a channel, as :data:`Authorizer` requires it.

        Raises:
            AuthenticationError: The endpoint refused, failed, or did not answer.
        """
        answer = await self._ask(
            self._channels, repr(channel_name), {"socket_id": socket_id, "channel_name": channel_name}
        )
        return ChannelAuth(answer.auth, answer.channel_data, answer.shared_secret)

    async def authenticate_user(self, socket_id: str) -> UserAuth:
        """Ask the endpoint to authorise a connection to sign in as a user.

        Args:
            socket_id: The connection's id.

        Raises:
            AuthenticationError: The endpoint refused, failed, or did not answer.
        """
        answer = await self._ask(self._users, "the user", {"socket_id": socket_id})
        if answer.user_data is None:
            raise AuthenticationError(f"{self._users} did not authorise the user: its answer has no 'user_data'")
        return UserAuth(answer.auth, answer.user_data)

    def __repr__(self) -> str:
        return f"<EndpointAuthorizer {self._channels}>"

    async def _ask(self, endpoint: _Endpoint, subject: str, fields: dict[str, str]) -> _Answer:
        async with self._share() as shared:
            for delay in (*_RETRY_DELAYS, None):
                await asyncio.sleep(self._not_before - monotonic())
                try:
                    if self._csrf_cookie is not None:
                        await self._fetch_csrf_cookie(shared, self._csrf_cookie, subject)
                    return await self._post(shared.session, endpoint, subject, fields)
                except _Failed as failure:
                    error, retry_after = failure.error, failure.retry_after
                if retry_after is None or delay is None or retry_after > _MAX_RETRY_AFTER:
                    break
                self._not_before = max(self._not_before, monotonic() + retry_after)
                await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - spreads load
        raise error

    async def _post(
        self, session: aiohttp.ClientSession, endpoint: _Endpoint, subject: str, fields: dict[str, str]
    ) -> _Answer:
        content = await self._content(session, endpoint, fields)
        causes = _causes(endpoint.url, fields, content.headers)
        answer = await self._request(session, "POST", endpoint, subject, causes, content)
        authorisation = _read(answer.body)
        if isinstance(authorisation, _Answer):
            return authorisation
        raise _Failed(f"{endpoint} did not authorise {subject}: {authorisation}", answer.status)

    async def _content(
        self, session: aiohttp.ClientSession, endpoint: _Endpoint, fields: dict[str, str]
    ) -> _Content:
        content = _Content({"Accept": "application/json", "X-Requested-With": "XMLHttpRequest"})
        if self._csrf_cookie is not None:
            content.headers |= _csrf_headers(session, endpoint.url)
        if self._token is not None:
            content.headers["Authorization"] = f"Bearer {await _provide(self._token)}"
        if self._headers is not None:
            content.headers |= await _provide(self._headers)
        content.body["json" if self._json else "data"] = {
            **({} if self._params is None else await _provide(self._params)),
            **fields,
        }
        return content

    async def _request(
        self,
        session: aiohttp.ClientSession,
        method: str,
        endpoint: _Endpoint,
        subject: str,
        causes: Mapping[int, str],
        content: _Content,
    ) -> _HTTPAnswer:
        """Return a successful answer; raise :class:`_Failed` with the likely cause of a failure."""
        import aiohttp

        failed = f"{endpoint} did not authorise {subject}"
        exchange = Exchange()
        try:
            async with session.request(
                method,
                endpoint.url,
                headers={"Accept-Encoding": "identity", **content.headers},
                allow_redirects=False,  # a redirect would send a GET, and the headers to another host
                raise_for_status=False,  # also if the session that you passed has it set
                auto_decompress=False,  # see read_body()
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                **content.body,
            ) as exchange.response:
                status, retry_after = exchange.response.status, exchange.response.headers.get("Retry-After", "")
                if 200 <= status < 300:
                    answer = _HTTPAnswer(status, *await read_body(exchange, _MAX_ANSWER_SIZE))
                    if answer.flaw is None:
                        return answer
                    raise _Failed(f"{failed}: it answered with {answer.flaw}", status)
        except asyncio.TimeoutError:
            why = f"{failed}: no answer within {plural(self._timeout, 'second')}"
            raise _Failed(why, retry_after=0.0) from None
        except aiohttp.ClientConnectorCertificateError as error:
            why = f"{failed}: its certificate is not trusted: {error.certificate_error}"
            raise _Failed(why, is_temporary=True) from None
        except aiohttp.InvalidURL:
            raise _Failed(f"{failed}: its host is neither a name nor an IP address") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Failed(f"{failed}: {_explain_network(error)}", retry_after=0.0) from None
        except (TypeError, ValueError):  # a line break in a token, for example
            why = (
                "the token, a header or a parameter can't be sent, or there is a token and the URL has a user, too"
            )
            raise _Failed(f"{failed}: {why}") from None
        failed += f": HTTP status {status}, {causes.get(status) or _explain_status(status)}"
        if status == 429 or status >= 500:
            raise _Failed(failed, status, retry_after=_parse_retry_after(retry_after))
        raise _Failed(failed, status)

    @asynccontextmanager
    async def _share(self) -> AsyncIterator[_Shared]:
        """Let running calls share a session. It is closed after the last of them."""
        await load_aiohttp()
        loop = asyncio.get_running_loop()
        shared = self._shared.get(loop)
        if shared is None:
            shared = self._shared[loop] = _Shared(self._given_session or self._make_session())
        shared.calls += 1
        try:
            yield shared
        finally:
            shared.calls -= 1
            if shared.calls == 0:
                del self._shared[loop]
                if self._given_session is None:
                    await shared.session.close()

    def _make_session(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._cookies is None:
            # unsafe=True accepts cookies from IP addresses such as 127.0.0.1, too
            keep = self._csrf_cookie is not None
            self._cookies = aiohttp.CookieJar(unsafe=True) if keep else aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(cookie_jar=self._cookies)

    async def _fetch_csrf_cookie(self, shared: _Shared, endpoint: _Endpoint, subject: str) -> None:
        async with shared.csrf_lock:
            if not shared.has_csrf_cookie:
                content = _Content(_origin(endpoint.url))
                await self._request(shared.session, "GET", endpoint, subject, {}, content)
                shared.has_csrf_cookie = True


# Error reporters send the local variables of an exception's frames, and the contents of dicts. So secrets are kept
# in attributes of objects whose repr does not show them.


class _Endpoint:
    """A URL of an endpoint. Its repr leaves out what may be secret."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __repr__(self) -> str:
        return bare(self.url)


class _Content:
    """The content of a request: ``headers``, and the ``body`` as an argument for aiohttp."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers
        self.body: dict[str, Any] = {}


class _HTTPAnswer(msgspec.Struct):
    status: int
    body: bytes
    flaw: str | None

    def __repr__(self) -> str:
        return f"<HTTP answer {self.status}>"


class _Shared:
    """The session that running calls of one event loop share."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.calls = 0
        self.csrf_lock = asyncio.Lock()
        self.has_csrf_cookie = False


class _Answer(msgspec.Struct):
    auth: str
    channel_data: str | None = None
    shared_secret: str | None = None
    user_data: str | None = None

    def __repr__(self) -> str:
        return "<_Answer>"


class _Failed(Exception):  # noqa: N818 - it is internal
    """An attempt failed.

    ``error`` is the exception to raise in the end. It does not have this one's frames and causes, which hold the
    token. ``retry_after`` is the number of seconds before a retry; None means no retry.
    """

    def __init__(
        self,
        message: str,
        code: int | None = None,
        *,
        is_temporary: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__()
        is_temporary = is_temporary or retry_after is not None
        self.error = AuthenticationError(message, code=code, is_temporary=is_temporary)
        self.retry_after = retry_after


def require_aiohttp(purpose: str = "EndpointAuthorizer") -> None:
    """Raise ConfigurationError if aiohttp, which ``purpose`` needs, is not installed."""
    from importlib.util import find_spec

    if find_spec("aiohttp") is None:
        raise ConfigurationError(
            f'{purpose} needs aiohttp, which is not installed: pip install "python-reverb[http]"'
        )


async def load_aiohttp() -> None:
    """Import aiohttp in a thread. The import takes about 150 ms, in which the event loop would stand still."""
    global _has_aiohttp
    if not _has_aiohttp:
        await asyncio.to_thread(import_module, "aiohttp")
        _has_aiohttp = True


_has_aiohttp = False


class Exchange:
    """A request's ``response``. It is in no variable, because its repr has the URL, which has a signature or a
    key."""

    response: aiohttp.ClientResponse


async def read_body(exchange: Exchange, most: int) -> tuple[bytes, str | None]:
    """Return the body of an answer, and what is wrong with it (None if nothing is).

    Requests are sent with ``auto_decompress=False``; see :class:`Body`.
    """
    body = Body(most, exchange.response.headers.get("Content-Encoding", ""))
    if body.flaw is None:
        async for piece in exchange.response.content.iter_any():
            body.take(piece)
            if body.flaw is not None:
                break
    return body.content, body.flaw


def _read(body: bytes) -> _Answer | str:
    """Return the authorisation in a body, or the reason why there is none."""
    if (why := _UNSIGNED.get(body.strip())) is not None:
        return why
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.ValidationError as error:  # JSON of another form: the message has names of fields, no values
        return f"its answer is not an authorisation: {error}"
    except ValueError:
        is_page = body.lstrip()[:1] == b"<"
        return "its answer is an HTML page, probably a login page" if is_page else "its answer is not JSON"
    if re.fullmatch("[^:]+:[^:]+", answer.auth):
        return answer
    return "its answer is not an authorisation: 'auth' must be KEY:SIGNATURE"


async def _provide(provider: Provider[T]) -> T:
    if callable(provider):
        value = provider()
        return await value if inspect.isawaitable(value) else value
    return provider


def _origin(url: str) -> dict[str, str]:
    # Sanctum accepts a session only in requests from one of its stateful domains.
    parts = urlsplit(url)
    return {"Origin": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"}


def _csrf_headers(session: aiohttp.ClientSession, url: str) -> dict[str, str]:
    from yarl import URL

    cookie = session.cookie_jar.filter_cookies(URL(url)).get("XSRF-TOKEN")
    return _origin(url) | ({} if cookie is None else {"X-XSRF-TOKEN": unquote(cookie.value)})


def _explain_network(error: Exception) -> str:
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError):
        hint = " (https:// for a port without TLS?)" if isinstance(error, aiohttp.ClientSSLError) else ""
        return f"cannot connect: {error.os_error.strerror or type(error.os_error).__name__}{hint}"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it closed the connection in the middle of its answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "its answer is not HTTP"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer (http:// for a port with TLS?)"
    return f"the connection failed: {type(error).__name__}"


def _explain_status(status: int) -> str:
    if 300 <= status < 400:
        return "it redirects, probably to a login page, or the URL has the wrong scheme or host"
    if status >= 500:
        return "the application failed or is down; see its log"
    return {
        401: "nobody is logged in: the token is missing, wrong, or has expired (REVERB_AUTH_TOKEN)",
        404: "the URL is wrong, or its routes are not registered (REVERB_AUTH_ENDPOINT)",
        405: "the URL does not accept POST (REVERB_AUTH_ENDPOINT)",
        419: "the CSRF token is missing or has expired: pass csrf_cookie_url, or use a route that accepts tokens",
        422: "a parameter is missing or wrong: check which parameters it requires",
        429: "too many requests",
    }.get(status, "it does not accept the request")


def _causes(url: str, fields: Mapping[str, str], headers: Mapping[str, str]) -> dict[int, str]:
    """Return the likely causes of the statuses whose cause depends on the request."""
    is_user, has_token = "channel_name" not in fields, "authorization" in map(str.lower, headers)
    if is_user:
        refused = "nobody is logged in, or Broadcast::resolveAuthenticatedUserUsing() returns no user"
    else:
        refused = "the channel's callback refused, or no channel of this name is defined (routes/channels.php)"
    if has_token and re.fullmatch(r"/broadcasting/(user-)?auth/?", urlsplit(url).path):
        refused = (
            "Laravel's default route accepts sessions only, no tokens: use /api/broadcasting/auth, which you "
            "register with withBroadcasting(…, ['prefix' => 'api', 'middleware' => ['api', 'auth:sanctum']]) in "
            f"bootstrap/app.php. Otherwise, {refused}"
        )
    elif has_token:
        refused += "; or the route accepts sessions only, no tokens"
    causes = {403: refused}
    if is_user:
        causes[404] = (
            "the URL is wrong (user_url), or the application does not call Broadcast::userRoutes(), which "
            "registers this route"
        )
    return causes


_EMPTY = "its answer is empty: set BROADCAST_CONNECTION=reverb in the application's .env (it may be log or null)"
_UNSIGNED = {
    b"": _EMPTY,
    b'""': _EMPTY,
    b"null": _EMPTY,
    b"true": (
        "its answer has no signature: set BROADCAST_CONNECTION=reverb in the application's .env (it may be redis)"
    ),
}
"""The answers of Laravel's other broadcasters, and their likely cause."""


def _parse_retry_after(value: str) -> float:
    """Return the seconds in a ``Retry-After`` header, which holds seconds or a date; 0 if it is not valid."""
    if re.fullmatch(r"[0-9]+", value.strip()):
        return float(value)
    from email.utils import parsedate_to_datetime  # imported here because it is slow and rarely needed

    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


# --- signatures ------------------------------------------------------------------------------------------------


def sign_channel(key: str, secret: str, socket_id: str, channel: str, channel_data: str | None = None) -> str:
    """Sign the subscription of a connection to a channel.

    Args:
        key: The application's key.
        secret: The application's secret.
        socket_id: The connection's id.
        channel: The channel's name.
        channel_data: The JSON text about the member of a presence channel. The client must send it unchanged.

    Returns:
        ``KEY:SIGNATURE``.

    Raises:
        ProtocolError: The signature could be valid for something else, too: the ``socket_id`` is not "digits, dot,
            digits", or the name is empty or has a colon or a control character in it.
        ConfigurationError: The key or the secret is empty.
    """
    try:
        signer = SecretAuthorizer(key, secret)
    finally:
        del secret
    return signer.authorize(socket_id, channel, channel_data).auth


def sign_user(key: str, secret: str, socket_id: str, user_data: str) -> str:
    """Sign a connection in as a user.

    Args:
        key: The application's key.
        secret: The application's secret.
        socket_id: The connection's id.
        user_data: The JSON text about the user. The client must send it unchanged.

    Returns:
        ``KEY:SIGNATURE``.

    Raises:
        ProtocolError: The ``socket_id`` is not "digits, dot, digits".
        ConfigurationError: The key or the secret is empty.
    """
    try:
        signer = SecretAuthorizer(key, secret)
    finally:
        del secret
    return signer.authenticate(socket_id, user_data).auth


def _channel_content(socket_id: str, channel: str, channel_data: str | None) -> bytes:
    _checked(socket_id)
    if not _protocol.is_signable(channel):
        raise ProtocolError(
            "the channel's name cannot be signed: it is empty, or has a colon or a control character"
        )
    return _encode(f"{socket_id}:{channel}" if channel_data is None else f"{socket_id}:{channel}:{channel_data}")


def _checked(socket_id: str) -> str:
    if not _protocol.is_socket_id(socket_id):
        raise ProtocolError("this is not a socket id: one is digits, a dot, digits")
    return socket_id


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ProtocolError("text with half of a surrogate pair cannot be sent or signed") from None
