"""The HTTP API: publish without a connection, and ask who is there.

:class:`ReverbAPI` is for asyncio and needs the extra ``python-reverb[http]``: aiohttp is imported when the first
call is made, in a thread. :class:`SyncReverbAPI` is for all other programs and needs no extra. Both carry out what
``_calls.py`` says.
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


class ReverbAPI:
    """The HTTP API of Laravel Reverb and other servers of the Pusher protocol.

    Settings are those of :class:`ReverbClient`, with ``REVERB_APP_ID`` and ``REVERB_APP_SECRET`` required; raises
    :class:`ConfigurationError` where they are missing. ``ssl_context`` verifies the server in place of the
    system's certificates.

    ::

        async with ReverbAPI() as api:
            await api.trigger("orders", "order.shipped", {"id": 7})

    Calls share up to ``REVERB_POOL_SIZE`` connections, which are opened when they are needed and closed by
    :meth:`close`. Calls made at the same time run at the same time, in no order. Calls in several event loops have
    connections for each loop, which are closed when the loop ends (with ``asyncio.run()`` or as that does it).

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
        """Close all connections, and give up calls under way; both in this event loop. Another call opens new
        connections."""
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
        return await self._make(self._calls.trigger(channels, event, data, socket_id, info, idempotent))

    async def trigger_batch(self, events: Iterable[BatchEvent], *, idempotent: bool = False) -> BatchResult:
        """Publish events, as many as you like, in order, in few requests.

        A request takes up to 10 events and ``REVERB_MAX_REQUEST_SIZE`` bytes; an event with a ``socket_id`` takes
        one of its own. The timeout is that of each request.

        Raises :class:`ProtocolError` before anything is sent when one event can't be. Stops at the first request
        that fails, and raises :class:`BatchError`: that holds what was accepted until then.
        """
        return await self._make(self._calls.trigger_batch(events, idempotent))

    async def send_to_user(self, user_id: str, event: str, data: Any, *, idempotent: bool = False) -> None:
        """Publish an event to all connections of a user, for servers where users sign in (Pusher and soketi).

        Reverb accepts it, and has nobody to deliver it to.
        """
        await self._make(self._calls.send_to_user(user_id, event, data, idempotent))

    # --- asking ------------------------------------------------------------------------------------------------

    async def channels(self, prefix: str | None = None, info: str | None = None) -> dict[str, ChannelInfo]:
        """Return the channels that somebody is subscribed to, by name; only those starting with ``prefix``.

        ``info`` asks for attributes: ``"subscription_count"``, ``"user_count"`` (presence channels only), or both
        with a comma.
        """
        return await self._make(self._calls.channels(prefix, info))

    async def channel(self, name: str, info: str | None = None) -> ChannelInfo:
        """Return whether a channel is occupied, and what ``info`` asks for; see :meth:`channels`."""
        return await self._make(self._calls.channel(name, info))

    async def users(self, name: str) -> list[str]:
        """Return the ids of the users on a presence channel, of all servers where there are several."""
        return await self._make(self._calls.users(name))

    async def connections(self) -> int:
        """Return the number of connections to the application. (soketi doesn't tell: 404.)"""
        return await self._make(self._calls.connections())

    async def health(self) -> bool:
        """Return whether the server says that it is well. (Only Reverb says: others answer 404.)"""
        return await self._make(self._calls.health())

    async def terminate_user(self, user_id: str) -> None:
        """End all connections of a user: of who has this id on a presence channel, or is signed in with it.

        Reverb 1.10 takes one connection after another, and answers 500 (:class:`APIError`) at the first that was
        never on a presence channel: what comes behind that one stays. :meth:`users` tells who is still there.
        With scaling (``REVERB_SCALING_ENABLED``), this request ends the process of each server that holds a
        connection without a user id: don't use it there.
        """
        await self._make(self._calls.terminate_user(user_id))

    # --- requests ----------------------------------------------------------------------------------------------

    async def _make(self, call: Call[T]) -> T:
        """Do what a call wants to have done; return what it returns."""
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
        """Close the sessions of loops that were closed in another way than ``asyncio.run()`` does it."""
        for loop in [each for each in self._sessions if each.is_closed()]:
            session = self._sessions.pop(loop, None)
            if session is not None:
                await session.close()


class _Session:
    """The connections of one event loop. They are opened by the first call and closed with the loop."""

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
        """Send a request, and return what came of it."""
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
                # What is signed must arrive as it is. It has no name: error reporters send the locals of frames.
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
        # Of aiohttp's errors only the texts are taken: some hold the URL, and so the signature.
        except aiohttp.ClientConnectorError as error:
            return _unconnected(attempt, error)
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
        """Return the session, or None if it is closed, for good."""
        if self._session is None:
            from .auth import load_aiohttp, require_aiohttp

            require_aiohttp("the HTTP API")
            await load_aiohttp()
        if self._session is None and not self.is_closed:
            self._life = self._live()
            self._session = await anext(self._life)
        return self._session

    async def _live(self) -> AsyncGenerator[ClientSession, None]:
        """Hold a session until the loop ends: that is when loops close the generators that are left."""
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


def _unconnected(attempt: Attempt, error: ClientConnectorError) -> Any:
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
    """The HTTP API, for programs without asyncio: the calls of :class:`ReverbAPI`, without ``await``.

    Arguments, settings, results, errors, retries and limits are those of :class:`ReverbAPI`.

    ::

        api = SyncReverbAPI()
        api.trigger("orders", "order.shipped", {"id": 7})

    One is enough for a process and all its threads, and may be made where a module is imported: it reads the
    settings once and connects when the first call is made. A process that is forked, as pre-forking servers do,
    opens connections of its own. ``with`` and :meth:`close` close them earlier than the end of the process.

    Calls in coroutines block the event loop: there, take :class:`ReverbAPI`.
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
        """This process's, by its id. The child of a fork finds those of its parent, which it must not use."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections: those in use when they are answered. Calls that wait are given up. Another call
        opens new connections."""
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
        """Publish an event on a channel, or on up to 100; see :meth:`ReverbAPI.trigger`."""
        return self._make(self._calls.trigger(channels, event, data, socket_id, info, idempotent))

    def trigger_batch(self, events: Iterable[BatchEvent], *, idempotent: bool = False) -> BatchResult:
        """Publish events, as many as you like, in order; see :meth:`ReverbAPI.trigger_batch`."""
        return self._make(self._calls.trigger_batch(events, idempotent))

    def send_to_user(self, user_id: str, event: str, data: Any, *, idempotent: bool = False) -> None:
        """Publish an event to all connections of a user; see :meth:`ReverbAPI.send_to_user`."""
        self._make(self._calls.send_to_user(user_id, event, data, idempotent))

    # --- asking ------------------------------------------------------------------------------------------------

    def channels(self, prefix: str | None = None, info: str | None = None) -> dict[str, ChannelInfo]:
        """Return the channels that somebody is subscribed to, by name; see :meth:`ReverbAPI.channels`."""
        return self._make(self._calls.channels(prefix, info))

    def channel(self, name: str, info: str | None = None) -> ChannelInfo:
        """Return whether a channel is occupied, and what ``info`` asks for."""
        return self._make(self._calls.channel(name, info))

    def users(self, name: str) -> list[str]:
        """Return the ids of the users on a presence channel."""
        return self._make(self._calls.users(name))

    def connections(self) -> int:
        """Return the number of connections to the application; see :meth:`ReverbAPI.connections`."""
        return self._make(self._calls.connections())

    def health(self) -> bool:
        """Return whether the server says that it is well; see :meth:`ReverbAPI.health`."""
        return self._make(self._calls.health())

    def terminate_user(self, user_id: str) -> None:
        """End all connections of a user; see :meth:`ReverbAPI.terminate_user`."""
        self._make(self._calls.terminate_user(user_id))

    # --- requests ----------------------------------------------------------------------------------------------

    def _make(self, call: Call[T]) -> T:
        """Do what a call wants to have done; return what it returns."""
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
        """Send a request, and return what came of it."""
        try:
            status, body, retry_after = pool.exchange(
                partial(attempt.message, self._proxy), _rest.max_answer_size, attempt.deadline
            )
        except TimeoutError:
            return attempt.timed_out()
        except ClosedError:
            return attempt.closed()
        except NoConnectionError as error:
            return _explain(attempt, error)
        except TunnelError as error:
            return attempt.not_through_proxy(error.status)
        except NotHTTPError as error:
            return attempt.not_http(str(error))
        except (OSError, EOFError) as error:
            return attempt.hung_up(error)
        return attempt.answered(status, body.content, body.flaw, retry_after)

    def _pool(self) -> Pool:
        """Return the pool of this process. The system's locks may be held for ever in a forked one, so the dict
        alone decides which of two threads makes it."""
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


def _explain(attempt: Attempt, error: NoConnectionError) -> Any:
    reason = error.__cause__
    if not isinstance(reason, OSError):
        return attempt.no_host()
    explain = {"name": attempt.no_name, "proxy": attempt.no_proxy, "server": attempt.no_connection}
    return explain[error.to](reason)
