"""Publish events and query channels over the HTTP API.

:class:`ReverbAPI` is for asyncio programs. It needs the extra ``python-reverb[http]``.
:class:`SyncReverbAPI` is for programs without asyncio. It needs no extra.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import AsyncGenerator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from . import _rest
from ._calls import KEEPALIVE, Attempt, Call, Calls
from ._pool import ClosedError, NoConnectionError, NotHTTPError, Place, Pool, TunnelError
from ._rest import BatchEvent, BatchResult, ChannelInfo, Proxy
from .config import ReverbConfig, config_of

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from types import TracebackType

    from aiohttp import ClientConnectorError, ClientSession
    from typing_extensions import Self, Unpack

    from .config import Settings

__all__ = ["BatchEvent", "BatchResult", "ChannelInfo", "ReverbAPI", "SyncReverbAPI"]

T = TypeVar("T")

# The rules of each call (what is sent, retried and raised) are in _calls.py. The two classes here do its I/O.


class ReverbAPI:
    """Call the HTTP API of Laravel Reverb, or of another server of the Pusher protocol, with asyncio.

    ::

        async with ReverbAPI() as api:
            await api.trigger("orders", "order.shipped", {"id": 7})

    The settings are those of :class:`ReverbClient`. ``REVERB_APP_ID`` and ``REVERB_APP_SECRET`` are required.

    **Connections.** The API opens up to ``REVERB_POOL_SIZE`` connections when it needs them, and keeps them for
    the next calls. :meth:`close` closes them. Calls that you make at the same time run at the same time, in no
    particular order. Each event loop has its own connections. They are closed when ``asyncio.run()`` ends the
    loop.

    **Time limit.** Each request takes ``REVERB_REQUEST_TIMEOUT`` seconds at most, with its retries.

    **Retries.** The API sends a request up to four times, with pauses of 1.4 seconds at most in total. It does not
    retry errors that stay, such as a certificate that is not trusted. It retries:

    - every request, if the server cannot have executed it: the connection failed before the request was sent, or
      the status is 503;
    - queries, and publishing with ``idempotent=True``, if the server may have executed it: the connection was
      lost, or the status is 502 or 504.

    Args:
        config: The settings. The default is to read them from the environment and ``.env``.
        ssl_context: How to verify the server's certificate. The default is the system's certificates.
        **settings: Single settings that replace those of the environment, such as ``host="example.com"``. They
            cannot be combined with ``config``.

    Raises:
        ConfigurationError: A setting is missing or invalid, when you create the API. aiohttp is not installed,
            when you make the first call.
        APIError: The server answered a call with an error.
        ConnectionError: A call got no answer. The server may have executed the request.
        TimeoutError: A call took too long. The server may have executed the request.
    """

    def __init__(
        self,
        config: ReverbConfig | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        self._calls = Calls(config_of(config, settings))
        self._ssl_context = ssl_context
        self._sessions: dict[AbstractEventLoop, _Session] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of the running event loop, and cancel calls that are not finished.

        Those calls raise :exc:`ConnectionError`. Later calls open new connections.
        """
        import asyncio

        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    def __repr__(self) -> str:
        return f"<ReverbAPI {self._calls.application}>"

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
        """Publish an event on one channel, or on up to 100.

        Args:
            channels: The name of a channel, or several names. An encrypted channel (``private-encrypted-…``) needs
                a call of its own.
            event: The event's name.
            data: Any JSON value. A string is sent unchanged. For an encrypted channel, the data (not the event's
                name) is encrypted with ``REVERB_ENCRYPTION_MASTER_KEY``.
            socket_id: A connection that does not get the event. The default is that all subscribers get it.
            info: Attributes of the channels to return, such as ``"subscription_count,user_count"``.
            idempotent: Whether publishing the event twice does no harm. If so, the API also retries a request that
                the server may have executed.

        Returns:
            The attributes that ``info`` asks for, by channel, from servers that return them (Reverb and Pusher).

        Raises:
            ProtocolError: The event cannot be sent, and nothing was sent: the request has more than
                ``REVERB_MAX_REQUEST_SIZE`` bytes, there are too many channels or none, or the data is not JSON.
            ConfigurationError: The channel is encrypted, and the key or PyNaCl (the extra ``encryption``) is
                missing.
        """
        return await self._make(self._calls.trigger(channels, event, data, socket_id, info, idempotent))

    async def trigger_batch(self, events: Iterable[BatchEvent], *, idempotent: bool = False) -> BatchResult:
        """Publish any number of events in order, with few requests.

        A request holds up to 10 events and ``REVERB_MAX_REQUEST_SIZE`` bytes. An event with a ``socket_id`` is
        sent alone. ``REVERB_REQUEST_TIMEOUT`` is the limit of each request.

        Args:
            events: The events, in the order in which they are published.
            idempotent: Whether publishing the events twice does no harm; see :meth:`trigger`.

        Returns:
            How many events the server accepted, and the attributes that they ask for.

        Raises:
            ProtocolError: One of the events cannot be sent. Nothing was sent.
            BatchError: A request failed. Later events were not sent. The error says how many events the server had
                accepted.
        """
        return await self._make(self._calls.trigger_batch(events, idempotent))

    async def send_to_user(self, user_id: str, event: str, data: Any, *, idempotent: bool = False) -> None:
        """Publish an event to all connections of a signed-in user (Pusher and soketi).

        Reverb has no signed-in users. It accepts the event and delivers it to nobody.

        Args:
            user_id: The user's id.
            event: The event's name.
            data: Any JSON value. A string is sent unchanged.
            idempotent: Whether publishing the event twice does no harm; see :meth:`trigger`.
        """
        await self._make(self._calls.send_to_user(user_id, event, data, idempotent))

    # --- queries -----------------------------------------------------------------------------------------------

    async def channels(self, prefix: str | None = None, info: str | None = None) -> dict[str, ChannelInfo]:
        """Return the channels that have subscribers, by name.

        Args:
            prefix: Return only channels whose name begins with this.
            info: Attributes to return, separated by commas: ``"subscription_count"``, or ``"user_count"``
                (presence channels only).
        """
        return await self._make(self._calls.channels(prefix, info))

    async def channel(self, name: str, info: str | None = None) -> ChannelInfo:
        """Return whether a channel has subscribers, and the attributes that ``info`` asks for.

        Args:
            name: The channel's name.
            info: Attributes to return; see :meth:`channels`.
        """
        return await self._make(self._calls.channel(name, info))

    async def users(self, name: str) -> list[str]:
        """Return the ids of the users on a presence channel, on all nodes of the server.

        Args:
            name: The channel's name.
        """
        return await self._make(self._calls.users(name))

    async def connections(self) -> int:
        """Return the number of connections to the application. soketi does not support this (404)."""
        return await self._make(self._calls.connections())

    async def health(self) -> bool:
        """Return whether the server reports that it is healthy. Only Reverb supports this; others answer 404."""
        return await self._make(self._calls.health())

    async def terminate_user(self, user_id: str) -> None:
        """Close all connections of a user.

        **Warning: do not call this for Reverb with scaling** (``REVERB_SCALING_ENABLED``). The request ends the
        process of each Reverb server that has a connection without a user id.

        The user's connections are those that are signed in with the id, or have it on a presence channel.

        Reverb 1.10 closes one connection after another. At the first connection that was never on a presence
        channel, it stops and answers 500 (:exc:`APIError`). It does not close the remaining ones. :meth:`users`
        returns who is still connected.

        Args:
            user_id: The user's id.
        """
        await self._make(self._calls.terminate_user(user_id))

    # --- requests ----------------------------------------------------------------------------------------------

    async def _make(self, call: Call[T]) -> T:
        """Carry out the steps of a call, and return its result."""
        import asyncio

        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.is_closed:
            session = self._sessions[loop] = _Session(self._calls, self._ssl_context)
            await self._forget_closed_loops()
        try:
            step = next(call)
            while True:
                if isinstance(step, Attempt):
                    step = call.send(await session.send(step))
                else:
                    await asyncio.sleep(step)
                    step = next(call)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _forget_closed_loops(self) -> None:
        """Close the sessions of loops that were closed without ``asyncio.run()``."""
        for loop in [each for each in self._sessions if each.is_closed()]:
            session = self._sessions.pop(loop, None)
            if session is not None:
                await session.close()


class _Session:
    """The connections of one event loop. The first call opens them. They are closed with the loop."""

    def __init__(self, calls: Calls, ssl_context: ssl.SSLContext | None) -> None:
        self._calls = calls
        self._ssl_context = ssl_context
        self.is_closed = False
        self._session: ClientSession | None = None
        self._life: AsyncGenerator[ClientSession, None] | None = None

    async def close(self) -> None:
        self.is_closed = True
        if self._life is not None:
            await self._life.aclose()

    async def send(self, attempt: Attempt) -> Any:
        """Send a request, and return its outcome."""
        session = await self._open()
        import asyncio

        import aiohttp
        import yarl

        from .auth import Exchange, read_body

        if session is None or session.closed:
            return attempt.closed()
        exchange = Exchange()
        try:
            async with session.request(
                attempt.request.method,
                # encoded: the URL is signed as it is. It is in no variable: error reporters send local variables.
                yarl.URL(f"{self._calls.server.origin}{attempt.target()}", encoded=True),
                data=attempt.request.body or None,
                allow_redirects=False,
                auto_decompress=False,  # see read_body()
                proxy=self._calls.proxy,
                timeout=aiohttp.ClientTimeout(total=attempt.remaining),
            ) as exchange.response:
                status = exchange.response.status
                retry_after = exchange.response.headers.get("Retry-After")
                body, flaw = await read_body(exchange, _rest.max_answer_size(status))
        except asyncio.TimeoutError:
            return attempt.timed_out()
        # Some of aiohttp's errors hold the URL, which has the signature: only use their texts.
        except aiohttp.ClientConnectorError as error:
            return _connect_failed(attempt, error)
        except aiohttp.ClientHttpProxyError as error:
            return attempt.not_through_proxy(error.status)
        except aiohttp.ClientResponseError as error:
            return attempt.not_http(error.message)
        except aiohttp.InvalidURL:
            return attempt.no_host()
        except (aiohttp.ClientError, OSError) as error:
            return attempt.closed() if session.closed else attempt.hung_up(error)
        return attempt.answered(status, body, flaw, retry_after)

    async def _open(self) -> ClientSession | None:
        """Return the session; None if it is closed for good."""
        if self._session is None:
            from .auth import load_aiohttp, require_aiohttp

            require_aiohttp("the HTTP API")
            await load_aiohttp()
        if self._session is None and not self.is_closed:
            self._life = self._live()
            self._session = await anext(self._life)
        return self._session

    async def _live(self) -> AsyncGenerator[ClientSession, None]:
        """Hold a session until the loop ends, when asyncio closes the generators that are left."""
        import aiohttp

        connector = aiohttp.TCPConnector(
            limit=self._calls.config.pool_size, keepalive_timeout=KEEPALIVE, ssl=self._ssl_context or True
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._calls.server.headers,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type"),
        )
        try:
            yield session
        finally:
            self.is_closed = True
            await session.close()


def _connect_failed(attempt: Attempt, error: ClientConnectorError) -> Any:
    import aiohttp

    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return attempt.no_proxy(error.os_error)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return attempt.no_name(error.os_error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        assert isinstance(error.certificate_error, OSError)
        return attempt.no_connection(error.certificate_error)
    return attempt.no_connection(error.os_error)


class SyncReverbAPI:
    """Call the HTTP API in programs without asyncio: the calls of :class:`ReverbAPI`, without ``await``.

    ::

        api = SyncReverbAPI()
        api.trigger("orders", "order.shipped", {"id": 7})

    Arguments, settings, results, errors, retries and limits are those of :class:`ReverbAPI`.

    One object is enough for a process and all its threads. You can create it when a module is imported: it reads
    the settings once and connects at the first call. After a fork, as pre-forking servers do it, the child process
    opens its own connections. They are closed at the end of the process, or earlier by ``with`` or :meth:`close`.

    Do not call it in coroutines: it blocks the event loop. Use :class:`ReverbAPI` there.

    Args:
        config: The settings. The default is to read them from the environment and ``.env``.
        ssl_context: How to verify the server's certificate. The default is the system's certificates.
        **settings: Single settings that replace those of the environment, such as ``host="example.com"``. They
            cannot be combined with ``config``.

    Raises:
        ConfigurationError: A setting is missing or invalid, when you create the API.
        APIError: The server answered a call with an error.
        ConnectionError: A call got no answer. The server may have executed the request.
        TimeoutError: A call took too long. The server may have executed the request.
    """

    def __init__(
        self,
        config: ReverbConfig | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        self._calls = calls = Calls(config_of(config, settings))
        self._ssl_context = ssl_context
        self._proxy = None if calls.proxy is None else Proxy(calls.proxy)
        self._pools: dict[int, Pool] = {}
        """The pools by process id. After a fork, the child must not use the pool of its parent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Those in use are closed after their answer.

        Calls that wait for a free connection raise :exc:`ConnectionError`. Later calls open new connections.
        """
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.close()

    def __repr__(self) -> str:
        return f"<SyncReverbAPI {self._calls.application}>"

    # --- publishing --------------------------------------------------------------------------------------------

    def trigger(
        self,
        channels: str | Iterable[str],
        event: str,
        data: Any,
        *,
        socket_id: str | None = None,
        info: str | None = None,
        idempotent: bool = False,
    ) -> dict[str, ChannelInfo]:
        """Publish an event on one channel, or on up to 100; see :meth:`ReverbAPI.trigger`."""
        return self._make(self._calls.trigger(channels, event, data, socket_id, info, idempotent))

    def trigger_batch(self, events: Iterable[BatchEvent], *, idempotent: bool = False) -> BatchResult:
        """Publish any number of events in order, with few requests; see :meth:`ReverbAPI.trigger_batch`."""
        return self._make(self._calls.trigger_batch(events, idempotent))

    def send_to_user(self, user_id: str, event: str, data: Any, *, idempotent: bool = False) -> None:
        """Publish an event to all connections of a signed-in user; see :meth:`ReverbAPI.send_to_user`."""
        self._make(self._calls.send_to_user(user_id, event, data, idempotent))

    # --- queries -----------------------------------------------------------------------------------------------

    def channels(self, prefix: str | None = None, info: str | None = None) -> dict[str, ChannelInfo]:
        """Return the channels that have subscribers, by name; see :meth:`ReverbAPI.channels`."""
        return self._make(self._calls.channels(prefix, info))

    def channel(self, name: str, info: str | None = None) -> ChannelInfo:
        """Return whether a channel has subscribers, and more; see :meth:`ReverbAPI.channel`."""
        return self._make(self._calls.channel(name, info))

    def users(self, name: str) -> list[str]:
        """Return the ids of the users on a presence channel; see :meth:`ReverbAPI.users`."""
        return self._make(self._calls.users(name))

    def connections(self) -> int:
        """Return the number of connections to the application; see :meth:`ReverbAPI.connections`."""
        return self._make(self._calls.connections())

    def health(self) -> bool:
        """Return whether the server reports that it is healthy; see :meth:`ReverbAPI.health`."""
        return self._make(self._calls.health())

    def terminate_user(self, user_id: str) -> None:
        """Close all connections of a user; read the warning of :meth:`ReverbAPI.terminate_user` first."""
        self._make(self._calls.terminate_user(user_id))

    # --- requests ----------------------------------------------------------------------------------------------

    def _make(self, call: Call[T]) -> T:
        """Carry out the steps of a call, and return its result."""
        pool = self._pool()
        try:
            step = next(call)
            while True:
                if isinstance(step, Attempt):
                    step = call.send(self._send(pool, step))
                else:
                    time.sleep(step)
                    step = next(call)
        except StopIteration as end:
            result: T = end.value
            return result

    def _send(self, pool: Pool, attempt: Attempt) -> Any:
        """Send a request, and return its outcome."""
        try:
            status, body, retry_after = pool.exchange(
                partial(attempt.message, self._proxy), _rest.max_answer_size, attempt.deadline
            )
        except TimeoutError:
            return attempt.timed_out()
        except ClosedError:
            return attempt.closed()
        except NoConnectionError as error:
            return _not_connected(attempt, error)
        except TunnelError as error:
            return attempt.not_through_proxy(error.status)
        except NotHTTPError as error:
            return attempt.not_http(str(error))
        except (OSError, EOFError) as error:
            return attempt.hung_up(error)
        return attempt.answered(status, body.content, body.flaw, retry_after)

    def _pool(self) -> Pool:
        """Return the pool of this process.

        It takes no lock: in a forked process, a lock may be held for ever. If two threads make a pool at once,
        ``setdefault()`` of the dict decides.
        """
        process = os.getpid()
        pool = self._pools.get(process)
        if pool is None:
            config = self._calls.config
            place = Place(config.host, config.port, config.scheme == "wss", self._proxy)
            pool = self._pools.setdefault(process, Pool(place, config.pool_size, KEEPALIVE, self._tls))
            for other in [each for each in self._pools if each != process]:
                self._pools.pop(other, None)
        return pool

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context


def _not_connected(attempt: Attempt, error: NoConnectionError) -> Any:
    reason = error.__cause__
    if not isinstance(reason, OSError):
        return attempt.no_host()
    outcomes = {"name": attempt.no_name, "proxy": attempt.no_proxy, "server": attempt.no_connection}
    return outcomes[error.to](reason)
