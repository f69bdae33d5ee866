"""Signatures, and who makes them: with the application's secret, by asking an endpoint, or somebody's own way.

All signatures are HMAC-SHA256 with the application's secret, in lower-case hex, as the Pusher protocol has them.
Clients use :class:`SecretAuthorizer` and :class:`EndpointAuthorizer`; backends that authorise other people's
clients use :func:`authorize_channel` and :func:`authenticate_user`.
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
from ._signatures import hmac_hex, lack_of, sign_request
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
"""A value, or a plain or ``async`` callable that returns it."""

_RETRY_DELAYS = (0.25, 0.5, 1.0, 2.0)
"""Seconds before an endpoint that failed is asked again; half of each is random."""
_MAX_RETRY_AFTER = 60.0
"""Longest ``Retry-After`` that is waited for, in seconds."""
_MAX_ANSWER_SIZE = 1024 * 1024
"""Bytes of an endpoint's answer. An authorisation has some hundred, and what is known of a member."""


class ChannelAuth(msgspec.Struct, frozen=True):
    """What a server wants to see before it lets a connection into a private or presence channel.

    ``auth`` is ``KEY:SIGNATURE``. ``channel_data`` is the JSON text that the signature covers (presence channels);
    it is sent byte for byte. ``shared_secret`` is the key of an encrypted channel, 32 bytes in base64. None of it
    shows in the repr.
    """

    auth: str
    channel_data: str | None = None
    shared_secret: str | None = None

    def __repr__(self) -> str:
        return "ChannelAuth()"


class UserAuth(msgspec.Struct, frozen=True):
    """What a server wants to see before it takes a connection for a user's: ``user_data`` is the JSON text that
    the signature in ``auth`` covers. Neither shows in the repr."""

    auth: str
    user_data: str

    def __repr__(self) -> str:
        return "UserAuth()"


Authorizer = Callable[[str, str], Awaitable[ChannelAuth]]
"""An async callable ``(socket_id, channel_name) -> ChannelAuth``, asked anew for each subscription.

One that signs users in, too, has an async method ``authenticate_user(socket_id) -> UserAuth``.
"""


# --- with the secret -------------------------------------------------------------------------------------------


class SecretAuthorizer:
    """Signs with the application's secret; what :class:`ReverbClient` does with ``REVERB_APP_SECRET``.

    ``encryption_master_key``, 32 bytes in base64, is for encrypted channels. Whoever has the secret can do
    anything on all channels of the application. Raises :class:`ConfigurationError` for an empty key or secret, as
    everything here does that signs, and for a master key that is none.
    """

    def __init__(self, app_key: str, app_secret: str, encryption_master_key: str | None = None) -> None:
        lack = lack_of(app_key, app_secret)
        self._key = app_key
        self._secret = app_secret
        self._master_key = crypto.decode_key(encryption_master_key)
        if self._master_key is None and encryption_master_key is not None:
            lack = lack or "encryption_master_key must be 32 bytes in base64: openssl rand -base64 32"
        del app_secret, encryption_master_key  # error reporters send the locals of frames
        if lack is not None:
            raise ConfigurationError(lack)

    @property
    def has_master_key(self) -> bool:
        """Whether it knows the keys of encrypted channels."""
        return self._master_key is not None

    async def __call__(self, socket_id: str, channel_name: str) -> ChannelAuth:
        return self.authorize(socket_id, channel_name)

    def authorize(self, socket_id: str, channel_name: str, channel_data: str | None = None) -> ChannelAuth:
        """Sign for a channel at once; ``channel_data`` says who we are on a presence channel.

        Raises :class:`ProtocolError` for a ``socket_id`` or a name that must not be signed; see
        :func:`sign_channel`.
        """
        content = _channel_content(socket_id, channel_name, channel_data)
        auth = f"{self._key}:{hmac_hex(self._secret, content)}"
        if self._master_key is None or not _protocol.is_encrypted(channel_name):
            return ChannelAuth(auth, channel_data)
        shared_secret = crypto.derive_shared_secret(channel_name, self._master_key)
        return ChannelAuth(auth, channel_data, b64encode(shared_secret).decode())

    def authenticate(self, socket_id: str, user_data: str) -> UserAuth:
        """Sign for the user of a connection, whom the JSON text ``user_data`` describes."""
        content = _encode(f"{_checked(socket_id)}::user::{user_data}")
        return UserAuth(f"{self._key}:{hmac_hex(self._secret, content)}", user_data)

    @classmethod
    def from_credentials(cls, credentials: Credentials) -> SecretAuthorizer:
        """Make one from settings; raise ConfigurationError if the secret is not among them."""
        if credentials.app_secret is None:
            raise ConfigurationError("REVERB_APP_SECRET is missing: nothing can be signed without it")
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
    """Let a browser's connection into a private or presence channel: return what to answer to it, as JSON.

    For backends that pusher-js or Laravel Echo ask at their ``authEndpoint``, with ``socket_id`` and
    ``channel_name``. **Whether the user may listen to the channel is the caller's business, before this.**
    ``user_data`` is for presence channels: ``{"user_id": …, "user_info": {…}}``. On encrypted channels the answer
    has the channel's key, derived from ``REVERB_ENCRYPTION_MASTER_KEY``.

    This is a plain function, for synchronous programs and coroutines alike: it waits for nothing. Without
    ``credentials`` the environment and ``.env`` are read at each call. Make a :meth:`Credentials.from_env` once in
    the process and pass it, and calls read nothing.

    Raises :class:`ProtocolError` for a socket id or a channel name that is malformed or needs no authorisation,
    and :class:`SubscriptionError` for ``user_data`` that does not go with the channel.
    """
    _checked(socket_id)
    if not isinstance(channel, str) or not _PUBLIC_NAME.fullmatch(channel):
        raise ProtocolError("not the name of a private or presence channel")
    signer = SecretAuthorizer.from_credentials(Credentials.from_env() if credentials is None else credentials)
    channel_data = None
    if _protocol.is_presence(channel):
        channel_data = _protocol.encode_channel_data(channel, user_data)
    elif user_data is not None:
        raise SubscriptionError(f"user_data is for presence channels; {channel!r} is none")
    answer = signer.authorize(socket_id, channel, channel_data)
    if _protocol.is_encrypted(channel):
        crypto.parse_shared_secret(channel, answer.shared_secret)
    fields = {"auth": answer.auth, "channel_data": channel_data, "shared_secret": answer.shared_secret}
    return {name: value for name, value in fields.items() if value is not None}


def authenticate_user(
    socket_id: str, user_data: dict[str, Any], *, credentials: Credentials | None = None
) -> dict[str, str]:
    """Sign a browser's user in: return what to answer to its ``pusher.signin()``, as JSON.

    A plain function, with ``credentials`` as :func:`authorize_channel` has them. ``user_data`` is ``{"id": "…"}``
    and may have ``user_info`` and a ``watchlist`` of other users' ids. Raises :class:`ProtocolError` for a
    malformed socket id, or ``user_data`` without an id.
    """
    _checked(socket_id)
    signer = SecretAuthorizer.from_credentials(Credentials.from_env() if credentials is None else credentials)
    answer = signer.authenticate(socket_id, _protocol.encode_user_data(user_data))
    return {"auth": answer.auth, "user_data": answer.user_data}


_PUBLIC_NAME = re.compile(r"(?=.{,200}\Z)(private|presence)-[A-Za-z0-9_\-=@,.;]+")
"""What others may ask to have signed. soketi and Pusher's own libraries take names of 200 characters at most."""


# --- by asking an endpoint -------------------------------------------------------------------------------------


class EndpointAuthorizer:
    """Asks an application over HTTP: Laravel's ``POST /api/broadcasting/auth``, and whatever answers like it.

    (``/broadcasting/auth`` is the route that Laravel has by itself. It looks at sessions only, never at tokens.)
    ``url`` is asked for channels, ``user_url`` for the user (default: ``url`` with ``user-auth`` for a last
    segment ``auth``). ``token`` is sent as bearer token, ``headers`` in addition, ``params`` in the body beside
    ``socket_id`` and ``channel_name``. Each is a value or a (sync or async) callable, which is called anew for
    every attempt, because tokens expire while programs live. The body is a form, as PHP reads it, or with
    ``json=True`` JSON. ``timeout``, in seconds, is for each attempt.

    ``csrf_cookie_url`` is for session cookies, as Laravel Sanctum wants them (``/sanctum/csrf-cookie``): it is
    fetched first, and its ``XSRF-TOKEN`` sent along. ``session``, an :class:`aiohttp.ClientSession`, is where you
    have logged in then; it stays open and yours. Without one, there are connections while something is asked.

    Network errors, 429 (after its ``Retry-After``) and 5xx are tried again, for a few seconds. Every failure is an
    :class:`AuthenticationError` with the HTTP status as its ``code``. Needs aiohttp, the extra ``http``.
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
        del token, headers, params, url, user_url, csrf_cookie_url  # error reporters send the locals of frames
        if not all(urls):
            raise ConfigurationError("an endpoint is a URL like https://example.com/api/broadcasting/auth")
        require_aiohttp()
        self._given_session = session
        self._timeout = timeout
        self._cookies: aiohttp.abc.AbstractCookieJar | None = None
        self._shared: dict[asyncio.AbstractEventLoop, _Shared] = {}
        """What calls under way share, by event loop: clients in several threads may have one authorizer."""
        self._not_before = 0.0
        """When the endpoint wants to be asked again, on the clock of :func:`time.monotonic`."""

    async def __call__(self, socket_id: str, channel_name: str) -> ChannelAuth:
        answer = await self._ask(
            self._channels, repr(channel_name), {"socket_id": socket_id, "channel_name": channel_name}
        )
        return ChannelAuth(answer.auth, answer.channel_data, answer.shared_secret)

    async def authenticate_user(self, socket_id: str) -> UserAuth:
        answer = await self._ask(self._users, "the user", {"socket_id": socket_id})
        if answer.user_data is None:
            raise AuthenticationError(f"{self._users} did not authorise the user: no 'user_data' in it")
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
        """Return a good answer; raise :class:`_Failed` with the likely cause of any other."""
        import aiohttp

        failed = f"{endpoint} did not authorise {subject}"
        exchange = Exchange()
        try:
            async with session.request(
                method,
                endpoint.url,
                headers={"Accept-Encoding": "identity", **content.headers},
                allow_redirects=False,  # would make a GET of it, and take headers to places they are not for
                raise_for_status=False,  # whatever the session that was given does
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
            why = "the token, a header or a parameter can't be sent, or the URL has a user beside the token"
            raise _Failed(f"{failed}: {why}") from None
        failed += f": HTTP status {status}, {causes.get(status) or _explain_status(status)}"
        if status == 429 or status >= 500:
            raise _Failed(failed, status, retry_after=_parse_retry_after(retry_after))
        raise _Failed(failed, status)

    @asynccontextmanager
    async def _share(self) -> AsyncIterator[_Shared]:
        """Have the calls under way share a session; nothing stays open behind the last of them."""
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
            # unsafe: cookies of hosts without a name, such as 127.0.0.1, too
            keep = self._csrf_cookie is not None
            self._cookies = aiohttp.CookieJar(unsafe=True) if keep else aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(cookie_jar=self._cookies)

    async def _fetch_csrf_cookie(self, shared: _Shared, endpoint: _Endpoint, subject: str) -> None:
        async with shared.csrf_lock:
            if not shared.has_csrf_cookie:
                content = _Content(_origin(endpoint.url))
                await self._request(shared.session, "GET", endpoint, subject, {}, content)
                shared.has_csrf_cookie = True


# Error reporters send the locals of the frames that an exception keeps, and look into dicts. So what is secret is
# in an attribute there, of an object that does not show it.


class _Endpoint:
    """A URL that is asked; shown without what may be secret in it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __repr__(self) -> str:
        return bare(self.url)


class _Content:
    """What is sent: ``headers``, and the ``body`` as aiohttp's argument."""

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
    """What the calls under way in one event loop have in common."""

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


class _Failed(Exception):  # noqa: N818 - nobody sees it
    """An attempt has failed. ``error`` is what is raised in the end, without the frames and the causes that this
    has: there the token is. ``retry_after`` is how long the endpoint wants to be left alone before it is asked
    again; None is for ever."""

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
    """Raise ConfigurationError, which says what needs it, where aiohttp is not installed."""
    from importlib.util import find_spec

    if find_spec("aiohttp") is None:
        raise ConfigurationError(
            f'{purpose} needs aiohttp, which is not installed: pip install "python-reverb[http]"'
        )


async def load_aiohttp() -> None:
    """Import aiohttp in a thread: it takes 150 ms, for which nothing else would happen in the event loop."""
    global _has_aiohttp
    if not _has_aiohttp:
        await asyncio.to_thread(import_module, "aiohttp")
        _has_aiohttp = True


_has_aiohttp = False


class Exchange:
    """A request and its ``response``, which is in no variable: it shows the URL, and so a signature, or a key."""

    response: aiohttp.ClientResponse


async def read_body(exchange: Exchange, most: int) -> tuple[bytes, str | None]:
    """Return the body of an answer, and in words what is wrong with it.

    See :class:`Body`: requests go with ``auto_decompress=False``.
    """
    body = Body(most, exchange.response.headers.get("Content-Encoding", ""))
    if body.flaw is None:
        async for piece in exchange.response.content.iter_any():
            body.take(piece)
            if body.flaw is not None:
                break
    return body.content, body.flaw


def _read(body: bytes) -> _Answer | str:
    """Return the authorisation in a body, or what is wrong with it."""
    if (why := _UNSIGNED.get(body.strip())) is not None:
        return why
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.ValidationError as error:  # JSON, but another: the message names fields, no values
        return f"its answer is not an authorisation: {error}"
    except ValueError:
        is_page = body.lstrip()[:1] == b"<"
        return "it answered with a page, most likely to log in" if is_page else "its answer is not JSON"
    if re.fullmatch("[^:]+:[^:]+", answer.auth):
        return answer
    return "its answer is not an authorisation: 'auth' must be KEY:SIGNATURE"


async def _provide(provider: Provider[T]) -> T:
    if callable(provider):
        value = provider()
        return await value if inspect.isawaitable(value) else value
    return provider


def _origin(url: str) -> dict[str, str]:
    # Sanctum looks for a session only where the request comes from one of its stateful domains.
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
        return "it hung up in the middle of its answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "its answer is not HTTP"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it hung up without an answer (http:// for a port with TLS?)"
    return f"the connection failed: {type(error).__name__}"


def _explain_status(status: int) -> str:
    if 300 <= status < 400:
        return "it redirects: to a login page, or the URL has the wrong scheme or host"
    if status >= 500:
        return "the application failed, or is down; its log says more"
    return {
        401: "nobody is logged in: the token is missing, wrong, or has expired (REVERB_AUTH_TOKEN)",
        404: "the URL is wrong, or its routes are not registered (REVERB_AUTH_ENDPOINT)",
        405: "the URL takes no POST (REVERB_AUTH_ENDPOINT)",
        419: "the CSRF token is missing or has expired: pass csrf_cookie_url, or use a route that takes tokens",
        422: "it misses something: see the parameters it wants",
        429: "too many requests",
    }.get(status, "it does not take the request")


def _causes(url: str, fields: Mapping[str, str], headers: Mapping[str, str]) -> dict[int, str]:
    """Return the likely causes of the statuses that depend on what was asked."""
    is_user, has_token = "channel_name" not in fields, "authorization" in map(str.lower, headers)
    if is_user:
        refused = "nobody is logged in, or Broadcast::resolveAuthenticatedUserUsing() names no user"
    else:
        refused = "the channel's callback said no, or no channel of this name is defined (routes/channels.php)"
    if has_token and re.fullmatch(r"/broadcasting/(user-)?auth/?", urlsplit(url).path):
        refused = (
            "Laravel's own route of this name looks at sessions only, not at tokens: call /api/broadcasting/auth, "
            "which withBroadcasting(…, ['prefix' => 'api', 'middleware' => ['api', 'auth:sanctum']]) in "
            f"bootstrap/app.php makes. Otherwise, {refused}"
        )
    elif has_token:
        refused += "; or the route looks at sessions only, and not at the token"
    causes = {403: refused}
    if is_user:
        causes[404] = (
            "the URL is wrong (user_url), or Broadcast::userRoutes() is not called, which makes this route"
        )
    return causes


_EMPTY = "its answer is empty: is BROADCAST_CONNECTION in the application's .env log or null, and not reverb?"
_UNSIGNED = {
    b"": _EMPTY,
    b'""': _EMPTY,
    b"null": _EMPTY,
    b"true": "its answer is not signed: is BROADCAST_CONNECTION in the application's .env redis, and not reverb?",
}
"""What Laravel's other broadcasters answer, and what that means."""


def _parse_retry_after(value: str) -> float:
    """Seconds in a ``Retry-After`` header, which holds seconds or a date; 0 if it is neither."""
    if re.fullmatch(r"[0-9]+", value.strip()):
        return float(value)
    from email.utils import parsedate_to_datetime  # which takes its time, and most answers have no date

    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


# --- signatures ------------------------------------------------------------------------------------------------


def sign_channel(key: str, secret: str, socket_id: str, channel: str, channel_data: str | None = None) -> str:
    """Return the ``KEY:SIGNATURE`` that lets the connection ``socket_id`` subscribe to ``channel``.

    ``channel_data`` is the JSON text sent along for a presence channel, signed byte for byte as sent.

    Raises :class:`ProtocolError` where the signature could be one for something else: a ``socket_id`` that is not
    digits, a dot, digits; a name that is empty or has a colon or a control character in it.
    """
    try:
        signer = SecretAuthorizer(key, secret)
    finally:
        del secret
    return signer.authorize(socket_id, channel, channel_data).auth


def sign_user(key: str, secret: str, socket_id: str, user_data: str) -> str:
    """Return the ``KEY:SIGNATURE`` that makes the connection ``socket_id`` that of the user in ``user_data``.

    Raises :class:`ProtocolError` for a ``socket_id`` that is not digits, a dot, digits.
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
            "not a channel's name that can be signed: it is empty, or has a colon or a control character"
        )
    return _encode(f"{socket_id}:{channel}" if channel_data is None else f"{socket_id}:{channel}:{channel_data}")


def _checked(socket_id: str) -> str:
    if not _protocol.is_socket_id(socket_id):
        raise ProtocolError("not a socket id: digits, a dot, digits")
    return socket_id


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ProtocolError("half of a surrogate pair cannot be sent, and so not be signed") from None
