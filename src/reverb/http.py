"""The HTTP API: publish without a connection, and ask who is there.

Needs the extra ``python-reverb[http]``: aiohttp is imported when the first call is made, in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from . import __version__, _failures, _protocol, _rest
from ._failures import Failure
from ._rest import BatchEvent, BatchResult, ChannelInfo, Request, Server
from .auth import Exchange, bare, lack_of, load_aiohttp, read_body, require_aiohttp
from .config import ReverbConfig, config_of
from .crypto import decode_key, derive_shared_secret, require_nacl, seal
from .exceptions import (
    APIError,
    BatchError,
    ConfigurationError,
    ConnectionError,
    ProtocolError,
    ReverbError,
    TimeoutError,
    plural,
)

if TYPE_CHECKING:
    from types import TracebackType

    from aiohttp import ClientConnectorError, ClientSession
    from typing_extensions import Self, Unpack

    from .config import Settings

__all__ = ["BatchEvent", "BatchResult", "ChannelInfo", "ReverbAPI"]

log = logging.getLogger("reverb.http")

_RETRY_DELAYS = (0.2, 0.4, 0.8)
"""Longest waits in seconds before another attempt; each wait is random, and at least half of it."""
_KEEPALIVE = 5.0
"""Seconds that an idle connection is kept. soketi closes them after 10: a request must not meet that."""


class ReverbAPI:
    """The HTTP API of Laravel Reverb and other servers of the Pusher protocol.

    Settings are those of :class:`ReverbClient`, with ``REVERB_APP_ID`` and ``REVERB_APP_SECRET`` required; raises
    :class:`ConfigurationError` where they are missing. ``ssl_context`` verifies the server in place of the
    system's certificates.

    ::

        async with ReverbAPI() as api:
            await api.trigger("orders", "order.shipped", {"id": 7})

    Calls share up to ``REVERB_POOL_SIZE`` connections, which are opened when they are needed and closed by
    :meth:`close`. Calls made at the same time run at the same time, in no order.

    Each call takes ``REVERB_REQUEST_TIMEOUT`` seconds at most. A request that can't have been executed is tried
    again, up to three times within a second and a half: the connection failed before it was sent, or the status is
    503. One that may have been executed is tried again only if it is a question, or if you say that twice does no
    harm (``idempotent=True``): the connection was lost, or the status is 502 or 504.

    All calls raise :class:`APIError` for an answer that is an error, :class:`ConnectionError` without an answer,
    and :class:`TimeoutError`; after the latter two the request may have been executed.
    """

    def __init__(
        self,
        config: ReverbConfig | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        self._config = config_of(config, settings)
        self._ssl_context = ssl_context
        self._server = _server(self._config)
        self._proxy = _proxy(self._config)
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Another call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def __repr__(self) -> str:
        return f"<ReverbAPI {self._server.address} application {self._server.app_id}>"

    # --- publishing --------------------------------------------------------------------------------------------

    async def trigger(
        self,
        channels: str | Iterable[str],
        event: str,
        data: Any,
        *,
        socket_id: str | None = None,
        info: str | None = None,
        idempotent: bool = False,
    ) -> dict[str, ChannelInfo]:
        """Publish an event on a channel, or on up to 100.

        ``data`` is any JSON value; a string is sent as it is. The connection with the ``socket_id`` doesn't get
        the event. ``info`` asks for attributes of the channels, such as ``"subscription_count,user_count"``: they
        are returned by channel, for servers that answer that (Reverb and Pusher).

        An event for an encrypted channel (``private-encrypted-…``) is encrypted with
        ``REVERB_ENCRYPTION_MASTER_KEY``; such a channel takes a call of its own. Only data is encrypted, not the
        event's name.

        Raises :class:`ProtocolError` before sending what can't be sent: more than ``REVERB_MAX_REQUEST_SIZE``
        bytes, too many channels, data that is not JSON.
        """
        names = [channels] if isinstance(channels, str) else list(channels)
        request = self._server.trigger(names, event, self._text(names, event, data), socket_id, info)
        answer = await self._call(request, idempotent=idempotent)
        return self._server.convert(request, answer, _rest.Infos).by_channel()

    async def trigger_batch(self, events: Iterable[BatchEvent], *, idempotent: bool = False) -> BatchResult:
        """Publish events, as many as you like, in order, in few requests.

        A request takes up to 10 events and ``REVERB_MAX_REQUEST_SIZE`` bytes; an event with a ``socket_id`` takes
        one of its own. The timeout is that of each request.

        Raises :class:`ProtocolError` before anything is sent when one event can't be. Stops at the first request
        that fails, and raises :class:`BatchError`: that holds what was accepted until then.
        """
        encoded = ((event, self._text([event.channel], event.event, event.data)) for event in events)
        infos: list[ChannelInfo] = []
        for request, size in list(self._server.batches(encoded)):
            try:
                answer = await self._call(request, idempotent=idempotent)
                infos += self._server.convert(request, answer, _rest.Infos).in_order(size)
            except ReverbError as error:
                message = f"accepted {plural(len(infos), 'event')}, then: {error}"
                raise BatchError(message, accepted=len(infos), code=error.code) from error
        return BatchResult(len(infos), infos)

    async def send_to_user(self, user_id: str, event: str, data: Any, *, idempotent: bool = False) -> None:
        """Publish an event to all connections of a user, for servers where users sign in (Pusher and soketi).

        Reverb accepts it, and has nobody to deliver it to.
        """
        await self.trigger(f"#server-to-user-{user_id}", event, data, idempotent=idempotent)

    # --- asking ------------------------------------------------------------------------------------------------

    async def channels(self, prefix: str | None = None, info: str | None = None) -> dict[str, ChannelInfo]:
        """Return the channels that somebody is subscribed to, by name; only those starting with ``prefix``.

        ``info`` asks for attributes: ``"subscription_count"``, ``"user_count"`` (presence channels only), or both
        with a comma.
        """
        request = self._server.get("/channels", filter_by_prefix=prefix, info=info)
        return self._server.convert(request, await self._call(request), _rest.Infos).by_channel()

    async def channel(self, name: str, info: str | None = None) -> ChannelInfo:
        """Return whether a channel is occupied, and what ``info`` asks for; see :meth:`channels`."""
        request = self._server.get(f"/channels/{_rest.quote_name(name)}", info=info)
        return self._server.convert(request, await self._call(request), ChannelInfo)

    async def users(self, name: str) -> list[str]:
        """Return the ids of the users on a presence channel, of all servers where there are several."""
        request = self._server.get(f"/channels/{_rest.quote_name(name)}/users")
        return self._server.convert(request, await self._call(request), _rest.Users).ids()

    async def connections(self) -> int:
        """Return the number of connections to the application. (soketi doesn't tell: 404.)"""
        request = self._server.get("/connections")
        return self._server.convert(request, await self._call(request), _rest.Connections).connections

    async def health(self) -> bool:
        """Return whether the server says that it is well. (Only Reverb says: others answer 404.)"""
        request = Request("GET", "/up", is_signed=False)
        return self._server.convert(request, await self._call(request), _rest.Health).health == "OK"

    async def terminate_user(self, user_id: str) -> None:
        """End all connections of a user: of who has this id on a presence channel, or is signed in with it.

        Reverb 1.10 takes one connection after another, and answers 500 (:class:`APIError`) at the first that was
        never on a presence channel: what comes behind that one stays. :meth:`users` tells who is still there.
        With scaling (``REVERB_SCALING_ENABLED``), this request ends the process of each server that holds a
        connection without a user id: don't use it there.
        """
        await self._call(self._server.post(f"/users/{_rest.quote_name(user_id)}/terminate_connections", b"{}"))

    def _text(self, channels: Sequence[str], event: str, data: Any) -> str:
        """Return what an event carries: a text, sealed for an encrypted channel."""
        text = _rest.encode_data(event, data)
        encrypted = next(filter(_protocol.is_encrypted, channels), None)
        if encrypted is None:
            return text
        if len(channels) > 1:
            raise ProtocolError(
                f"{event!r} can't be published on {encrypted!r} and others at once: each encrypted channel has a "
                "key of its own, so it needs a call of its own"
            )
        if self._config.encryption_master_key is None:
            raise ConfigurationError(f"REVERB_ENCRYPTION_MASTER_KEY is missing: {encrypted!r} needs it")
        require_nacl()
        master_key = decode_key(self._config.encryption_master_key.get_secret_value())
        assert master_key is not None  # the settings are checked
        return seal(text, derive_shared_secret(encrypted, master_key))

    # --- requests ----------------------------------------------------------------------------------------------

    async def _call(self, request: Request, *, idempotent: bool = False) -> Any:
        """Make attempts until there is an answer, or no more hope; return the answer's JSON."""
        deadline = monotonic() + self._config.request_timeout
        may_repeat = idempotent or request.is_read
        for delay in (*_RETRY_DELAYS, None):
            outcome = await self._attempt(request, deadline)
            if not isinstance(outcome, _Failure):
                return outcome
            if delay is None or not (outcome.is_temporary and (may_repeat or outcome.is_unexecuted)):
                break
            pause = random.uniform(delay / 2, delay)  # noqa: S311 (spreads attempts, keeps no secret)
            if monotonic() + pause >= deadline:
                break
            fields = {"reverb_address": self._server.address}
            log.info("%s; trying again in %.1f seconds", outcome.error, pause, extra=fields)
            await asyncio.sleep(pause)
        raise outcome.error

    async def _attempt(self, request: Request, deadline: float) -> Any:
        """Send a request and return the answer's JSON, or the :class:`_Failure` that there was instead."""
        session = await self._open()
        import aiohttp
        import yarl

        address = self._server.address
        exchange = Exchange()
        try:
            async with session.request(
                request.method,
                # What is signed must arrive as it is. It has no name: error reporters send the locals of frames.
                yarl.URL(f"{self._server.origin}{self._server.target(request, int(time.time()))}", encoded=True),
                data=request.body or None,
                allow_redirects=False,
                auto_decompress=False,  # see read_body()
                proxy=self._proxy,
                timeout=aiohttp.ClientTimeout(total=max(deadline - monotonic(), 0.001)),  # 0 would be for ever
            ) as exchange.response:
                status = exchange.response.status
                body, flaw = await read_body(exchange, _rest.max_answer_size(status))
        except asyncio.TimeoutError:
            limit = f"{plural(self._config.request_timeout, 'second')} (REVERB_REQUEST_TIMEOUT)"
            return _Failure(TimeoutError(f"{address} did not answer {request} within {limit}"))
        # Of aiohttp's errors only the texts are taken: some hold the URL, and so the signature.
        except aiohttp.ClientConnectorError as error:
            reason = f"cannot connect to {address}: {self._explain(error).line}"
            is_temporary = not isinstance(error, aiohttp.ClientSSLError)
            return _lost(reason, is_temporary=is_temporary, is_unexecuted=True)
        except aiohttp.ClientHttpProxyError as error:
            failure = _failures.not_through_proxy(self._config, f"it answered with {error.status}")
            return _lost(f"cannot connect to {address}: {failure.line}")
        except aiohttp.ClientResponseError as error:
            return _lost(f"{address} did not answer {request} in HTTP: {error.message}")
        except aiohttp.InvalidURL:
            setting = "REVERB_HOST" if self._proxy is None else "REVERB_HOST, REVERB_PROXY"
            return _lost(f"cannot connect to {address}: that is neither a name nor an IP address ({setting})")
        except (aiohttp.ClientError, OSError) as error:
            kind = type(error).__name__
            return _lost(f"{address} hung up before it had answered {request}: {kind}", is_temporary=True)
        try:
            return self._server.read(request, status, body, flaw)
        except APIError as error:
            error = error.with_traceback(None)  # our frame has the body, which may quote a signature
            return _Failure(error, is_temporary=error.status in (502, 503, 504), is_unexecuted=error.status == 503)

    def _explain(self, error: ClientConnectorError) -> Failure:
        """Why there is no connection."""
        import aiohttp

        config = self._config
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason = error.certificate_error
            if isinstance(reason, ssl.SSLCertVerificationError):
                return _failures.bad_certificate(config.host, reason)
            return Failure(str(reason), ())
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            return _failures.no_proxy(bare(self._proxy or ""), _failures.reason_of(error.os_error))
        is_reset = config.scheme == "wss" and isinstance(error.os_error, ConnectionResetError)
        if isinstance(error, aiohttp.ClientSSLError) or is_reset:
            return _failures.no_tls(config, error.os_error)
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return _failures.no_name(config.host, "REVERB_HOST", error.os_error)
        return _failures.no_connection(config, error.os_error)

    async def _open(self) -> ClientSession:
        if self._session is None:
            require_aiohttp("the HTTP API")
            await load_aiohttp()
        if self._session is None:
            import aiohttp

            connector = aiohttp.TCPConnector(
                limit=self._config.pool_size, keepalive_timeout=_KEEPALIVE, ssl=self._ssl_context or True
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._server.headers,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session


class _Failure(NamedTuple):
    """An attempt that failed."""

    error: ReverbError
    is_temporary: bool = False
    """Whether another attempt may go better."""
    is_unexecuted: bool = False
    """Whether the server has surely not done what was asked for."""


def _lost(reason: str, *, is_temporary: bool = False, is_unexecuted: bool = False) -> _Failure:
    return _Failure(ConnectionError(reason), is_temporary, is_unexecuted)


def _server(config: ReverbConfig) -> Server:
    missing = [
        f"  REVERB_{name.upper()} is missing: the HTTP API needs it"
        for name in ("app_id", "app_secret")
        if not getattr(config, name)
    ]
    if missing:
        raise ConfigurationError("\n".join(["invalid settings:", *missing]))
    assert config.app_id is not None
    assert config.app_secret is not None
    lack = lack_of(config.app_key, config.app_secret.get_secret_value())
    if lack is not None:
        raise ConfigurationError(lack)
    return Server(
        scheme={"ws": "http", "wss": "https"}[config.scheme],
        address=config.address,
        prefix=quote(config.path),
        app_id=_rest.quote_name(config.app_id),
        key=config.app_key,
        secret=config.app_secret.get_secret_value(),
        max_request_size=config.max_request_size,
        headers={"Content-Type": "application/json", "User-Agent": f"python-reverb/{__version__}"},
    )


def _proxy(config: ReverbConfig) -> str | None:
    if config.proxy is None:
        return None
    if config.proxy.get_secret_value().startswith("socks5:"):
        raise ConfigurationError("REVERB_PROXY: the HTTP API goes through http:// and https:// proxies only")
    return config.proxy.get_secret_value()
