"""The client: one connection to a server, the channels on it, and their handlers."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, overload
from weakref import WeakKeyDictionary

from . import _protocol, _systemd
from ._binding import Binding, Handler
from ._connection import Connection
from ._dispatch import Dispatcher, Lane
from ._protocol import Message, Question, ServerError
from ._run import ExitCode, exit_code_for, run
from ._supervisor import Outage, Supervisor
from .auth import Authorizer, ChannelAuth, EndpointAuthorizer, SecretAuthorizer, UserAuth
from .bindable import Bindable
from .channel import Channel, EncryptedChannel, PresenceChannel
from .config import ReverbConfig
from .events import ConnectionState, Events
from .exceptions import (
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    ProtocolError,
    ReverbError,
    SubscriptionError,
    TimeoutError,
)
from .http import ReverbAPI
from .stats import Stats
from .stream import Buffer
from .user import Authenticate, User

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from .config import Settings

__all__ = ["ReverbClient"]

log = logging.getLogger("reverb.client")

_CANCEL_TIMEOUT = 1.0
"""Seconds that authorizers get to clean up when the connection they sign for is gone."""
_SLOW_AFTER = 1.0
"""Seconds that reading is paused before that is worth a warning."""
_SLOW_WARNING_INTERVAL = 60.0
"""Seconds between two warnings that handlers are too slow."""


class ReverbClient(Bindable):
    """An asyncio client for Laravel Reverb and other servers of the Pusher protocol.

    Settings come from keyword arguments, the environment (``REVERB_…``) and ``.env``, or from a ready ``config``;
    see :class:`ReverbConfig`. ``authorizer`` signs for private and presence channels: an
    :class:`EndpointAuthorizer`, a :class:`SecretAuthorizer`, or an async callable ``(socket_id, channel_name) ->
    ChannelAuth``. Without one it is the endpoint in ``REVERB_AUTH_ENDPOINT``, or else the secret in
    ``REVERB_APP_SECRET``. ``ssl_context`` verifies the server in place of the system's certificates. Raises
    :class:`ConfigurationError` for settings that are missing or invalid.

    Its handlers get the events of all channels, after the channel's own handlers, and those without a channel, for
    which ``channel`` is None. ``"error"`` gets the server's ``pusher:error`` and what goes wrong in the client: a
    handler that raises, a channel that is refused after a reconnect.

    ::

        async with ReverbClient() as client:
            channel = await client.subscribe("updates")
            channel.bind("data.changed", handler)
            await client.listen()
    """

    def __init__(
        self,
        config: ReverbConfig | None = None,
        *,
        authorizer: Authorizer | None = None,
        ssl_context: ssl.SSLContext | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        if config is not None and settings:
            raise TypeError("pass either a config or settings, not both")
        self._config = ReverbConfig(**settings) if config is None else config
        self._authorizer = _authorizer_in(self._config) if authorizer is None else authorizer
        self._ssl_context = ssl_context
        self._dispatcher = Dispatcher(
            self._config.max_pending_events, self._config.max_pending_bytes, self._regulate_reading
        )
        self._lane = Lane(None, self._dispatcher)
        self._channels: dict[str, Channel] = {}
        """Channels that the server has confirmed, on this connection or an earlier one, by name."""
        self._joining: dict[str, Channel] = {}
        """Channels that it has not confirmed yet, by name."""
        self._asked: dict[Question, Channel] = {}
        self._buffers: WeakKeyDictionary[Buffer, Channel | None] = WeakKeyDictionary()
        """What streams collect, and the channels that they end with."""
        self._pings: dict[Question, asyncio.Future[None]] = {}
        self._authorizing: set[asyncio.Task[None]] = set()
        self._authorizations = asyncio.Semaphore(self._config.auth_concurrency)
        self._user = User(self)
        self._api: ReverbAPI | None = None
        self._disconnecting = False
        self._slow_timer: asyncio.TimerHandle | None = None
        self._warned_slow_at = -_SLOW_WARNING_INTERVAL
        self._supervisor = Supervisor(self._config, self)
        logging.getLogger("reverb").setLevel(self._config.log_level)

    # --- the connection ----------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect to the server; once connected, stay connected until :meth:`disconnect`.

        Makes one attempt. Raises :class:`ConnectionError` or :class:`TimeoutError` when it fails, a refusal by the
        server included. Channels of an earlier connection are subscribed again before it returns. Does nothing on
        a connected client.
        """
        if self._ssl_context is None and self._config.scheme == "wss":
            self._ssl_context = ssl.create_default_context()
        self._dispatcher.closed = False
        self._authorizations = asyncio.Semaphore(self._config.auth_concurrency)
        await self._supervisor.start(self._ssl_context)

    async def disconnect(self) -> None:
        """Close the connection.

        Handlers get ``REVERB_DRAIN_TIMEOUT`` seconds to finish what was received and are then cancelled; the
        handler that calls this, if one does, is not waited for, and gets no more events. After it nothing of the
        client's is running. Bindings and channels are kept for another :meth:`connect`.
        """
        if self._disconnecting and self._dispatcher.is_worker(asyncio.current_task()):
            return  # whoever is disconnecting waits for this very handler
        self._disconnecting = True
        try:
            await self._supervisor.stop()
            self._fail_joining(ConnectionError(f"disconnected from {self._config.address}"))
            self._end_streams(None)
            await self._dispatcher.drain(self._config.drain_timeout)
            others = self._authorizing - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=_CANCEL_TIMEOUT)
        finally:
            self._disconnecting = False
            if self._api is not None:
                await self._api.close()
            for channel in self._channels.values():
                channel._lane.clear()
            self._user._lane.clear()
            self._lane.clear()

    async def listen(self) -> None:
        """Wait until :meth:`disconnect`; raise :class:`ConnectionError` when the connection is lost for good.

        Handlers are called whether or not anyone waits here. Can be cancelled without harm. Meanwhile, a systemd
        that wants to know (``Type=notify``) is told how the service is.
        """
        async with _systemd.service(self._config, self._supervisor, self._dispatcher):
            await self._supervisor.wait_ended()

    def run(self, setup: Callable[[Self], Awaitable[object]] | None = None) -> int:
        """Be a program: connect, await ``setup(client)``, which may subscribe and bind, and listen until SIGINT
        (Ctrl-C) or SIGTERM; then disconnect.

        Returns the exit code, for ``sys.exit(client.run(setup))``: 0 after a signal or :meth:`disconnect`, 2 for
        settings that are missing, 3 without a connection or when it was lost for good, 4 when a channel is
        refused. What went wrong is logged. Other exceptions of ``setup`` are raised. Raises :class:`RuntimeError`
        within an event loop, where ``async with`` and :meth:`listen` do the same.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("run() makes an event loop, and there is one: use 'async with client' and listen()")

        async def live() -> None:
            async with self:
                if setup is not None:
                    await setup(self)
                await self.listen()

        try:
            run(live())
        except ReverbError as error:
            log.error("%s", error, extra={"reverb_address": self._config.address})
            return exit_code_for(error)
        return ExitCode.OK

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until connected, for ``timeout`` seconds at most (None: without end).

        Raises :class:`TimeoutError`, and :class:`ConnectionError` on a client that does not try to connect: never
        asked to, disconnected, or failed.
        """
        await self._supervisor.wait_connected(timeout)

    async def ping(self) -> float:
        """Ask the server whether it is there; return the seconds until it answered.

        Servers handle a connection's messages in order: what they have against one that was sent before has
        arrived by then, and is on its way to the handlers of ``"error"``.

        Raises :class:`ConnectionError` without a connection or when it is lost meanwhile, :class:`TimeoutError`
        after ``REVERB_PONG_TIMEOUT`` seconds, and :class:`ProtocolError` when the server refuses (Reverb's rate
        limit counts pings, too).
        """
        connection, timeout = self._connection, self._config.pong_timeout
        if connection is None:
            raise ConnectionError(f"cannot ping: not connected to {self._config.address}")
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        started = monotonic()
        question = connection.send_ping()
        self._pings[question] = answer
        self._regulate_reading()
        try:
            await asyncio.wait_for(answer, timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(
                f"{self._config.address} did not answer a ping within {timeout:g} seconds (REVERB_PONG_TIMEOUT)"
            ) from None
        finally:
            self._pings.pop(question, None)
        return monotonic() - started

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    @property
    def state(self) -> ConnectionState:
        """What the connection is doing; each change is an ``Events.STATE_CHANGE``."""
        return self._supervisor.state

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    @property
    def socket_id(self) -> str | None:
        """The server's name for the present connection; None while there is none."""
        connection = self._connection
        return None if connection is None else connection.socket_id

    @property
    def stats(self) -> Stats:
        """What the client has received, delivered and sent, over all its connections so far, and how fast the
        server answers. May be read in any thread; in another one the numbers can be some events apart."""
        dispatcher, supervisor = self._dispatcher, self._supervisor
        traffic, connection = supervisor.traffic, self._connection
        events, volume = traffic.routed
        queued, unbound, discarded = dispatcher.pending_events, dispatcher.unbound, dispatcher.discarded
        return Stats(
            received=events + traffic.messages,
            delivered=events + dispatcher.taken - queued - unbound - discarded,
            queued=queued,
            unbound=unbound,
            discarded=discarded,
            reconnects=supervisor.reconnects,
            round_trip=traffic.round_trip,
            bytes_received=volume + traffic.bytes_received,
            bytes_sent=traffic.bytes_sent,
            uptime=None if connection is None else monotonic() - connection.opened_at,
        )

    @property
    def api(self) -> ReverbAPI:
        """The HTTP API, with the client's settings. :meth:`disconnect` closes its connections.

        Raises :class:`ConfigurationError` without ``REVERB_APP_ID`` or ``REVERB_APP_SECRET``.
        """
        if self._api is None:
            self._api = ReverbAPI(self._config, ssl_context=self._ssl_context)
        return self._api

    @property
    def _connection(self) -> Connection | None:
        connection = self._supervisor.connection
        return connection if connection is not None and connection.is_open else None

    # --- channels ----------------------------------------------------------------------------------------------

    @property
    def channels(self) -> dict[str, Channel]:
        """The subscribed channels by name; while the connection is down, those that will be subscribed again."""
        return dict(self._channels)

    @overload
    async def subscribe(self, channel: str, user_data: None = None) -> Channel: ...

    @overload
    async def subscribe(self, channel: str, user_data: dict[str, Any]) -> PresenceChannel: ...

    async def subscribe(self, channel: str, user_data: dict[str, Any] | None = None) -> Channel:
        """Subscribe to ``channel``; return it once the server has confirmed.

        Presence channels need ``user_data``: ``{"user_id": …, "user_info": {…}}``. A name that is subscribed
        already gives the same object again. While the connection is being made again this waits for it. Events
        that arrive directly behind the confirmation reach handlers that are bound right after this returns.

        For type checkers a channel with ``user_data`` is a :class:`PresenceChannel`.

        Raises :class:`AuthenticationError` or :class:`SubscriptionError` when the server refuses, or
        :class:`TimeoutError` when it does not answer within ``REVERB_SUBSCRIBE_TIMEOUT`` seconds; the connection
        stays up. Raises :class:`ConfigurationError` for a private channel without ``REVERB_APP_SECRET`` and
        :class:`ConnectionError` on a client that is not connected. Cancelled, it leaves nothing subscribed.
        """
        if not self._supervisor.is_running:
            raise ConnectionError(f"cannot subscribe to {channel!r}: not connected; call connect() first")
        found = self._channels.get(channel) or self._joining.get(channel)
        if found is None:
            found = self._joining[channel] = self._make_channel(channel, user_data)
        if found.is_subscribed:
            return found
        waiter = found._new_waiter(self._config.subscribe_timeout)
        try:
            if not found._is_asking:
                self._ask(found)
            await waiter
        except BaseException:
            found._forget(waiter)
            if not (found._claimed or found._waiters):
                self._drop(found)
            raise
        found._forget(waiter)
        found._on_claimed()
        return found

    async def unsubscribe(self, channel: str) -> None:
        """Leave ``channel``. Its handlers get no more events; does nothing for a name that is not subscribed.

        The server confirms nothing. While the connection is down it is remembered.
        """
        found = self._channels.get(channel) or self._joining.get(channel)
        if found is not None:
            self._drop(found)
            found._resolve(SubscriptionError(f"{channel!r} was unsubscribed before the server had confirmed it"))

    @property
    def user(self) -> User:
        """Who this connection belongs to; nobody until :meth:`signin`."""
        return self._user

    async def signin(self, user_data: dict[str, Any] | None = None) -> None:
        """Tell the server who the user of this connection is; return once it has confirmed. Done again after each
        reconnect.

        Signed with the secret, it needs ``user_data``: ``{"id": "…"}``, with ``user_info`` and a ``watchlist`` of
        ids if you like. Otherwise the authorizer's ``authenticate_user(socket_id)`` says who it is.

        Raises :class:`ProtocolError` on servers that know no users, of which Laravel Reverb is one; the connection
        and its channels are none the worse for it. Raises :class:`AuthenticationError` when the signature is
        refused, :class:`TimeoutError` without an answer within ``REVERB_SUBSCRIBE_TIMEOUT``, and
        :class:`ConfigurationError` when nobody can sign.
        """
        timeout = self._config.subscribe_timeout
        authenticate = self._authenticator(user_data)
        await self.wait_connected(timeout)
        connection = self._connection
        if connection is None:
            raise ConnectionError(f"cannot sign in: not connected to {self._config.address}")
        await self._user._sign_in(connection, authenticate, timeout)

    def _bind(
        self, names: tuple[str, ...], handler: Handler[Any], type_: Any = None, *, once: bool = False
    ) -> Binding:
        binding = super()._bind(names, handler, type_, once=once)
        for channel in self._channels.values():
            channel._on_client_bound()
        return binding

    def _new_buffer(self, size: int, channel: Channel | None = None) -> Buffer:
        """Make a buffer for a stream, which ends with the ``channel`` or with the connection."""
        buffer = Buffer(size, self._dispatcher, self._config.drain_timeout)
        self._buffers[buffer] = channel
        if channel is not None and not self._is_wanted(channel):
            buffer.end_here()
        elif self._supervisor.failure is not None:
            buffer.end(self._supervisor.failure)
        return buffer

    def __repr__(self) -> str:
        state = f"connected as {self.socket_id}" if self.is_connected else "not connected"
        return f"<ReverbClient {self._config.address} {state}, {len(self._channels)} channels>"

    # --- the user ----------------------------------------------------------------------------------------------

    def _authenticator(self, user_data: dict[str, Any] | None) -> Authenticate:
        authorizer = self._authorizer
        if isinstance(authorizer, SecretAuthorizer):
            text = _protocol.encode_user_data(user_data)

            async def authenticate(socket_id: str) -> UserAuth:
                return authorizer.authenticate(socket_id, text)

            return authenticate
        found: Authenticate | None = getattr(authorizer, "authenticate_user", None)
        if found is None:
            raise ConfigurationError(
                "signing in needs REVERB_APP_SECRET, REVERB_AUTH_ENDPOINT, or an authorizer with a method "
                "authenticate_user"
            )
        return found

    async def _sign_in_again(self, connection: Connection, authenticate: Authenticate) -> None:
        try:
            await self._user._sign_in(connection, authenticate, self._config.subscribe_timeout)
        except ReverbError as error:
            fields = {"reverb_address": self._config.address}
            log.error("%s; it is tried again at the next reconnect", error, extra=fields)
            self._lane.tell(str(error), error)

    # --- subscribing -------------------------------------------------------------------------------------------

    def _make_channel(self, name: str, user_data: dict[str, Any] | None) -> Channel:
        if not isinstance(name, str) or not name:
            raise SubscriptionError(f"a channel name must be a string that is not empty, not {name!r}")
        if _protocol.needs_auth(name) and self._authorizer is None:
            raise ConfigurationError(
                f"REVERB_APP_SECRET is missing: {name!r} needs it, or REVERB_AUTH_ENDPOINT, or an authorizer"
            )
        if not _protocol.is_presence(name):
            if user_data is not None:
                raise SubscriptionError(f"user_data is for presence channels; {name!r} is none")
            return EncryptedChannel(self, name) if _protocol.is_encrypted(name) else Channel(self, name)
        if isinstance(self._authorizer, SecretAuthorizer):
            return PresenceChannel(self, name, _protocol.encode_channel_data(name, user_data))
        return PresenceChannel(self, name)  # the authorizer says who we are

    def _ask(self, channel: Channel) -> None:
        """Ask the server for a channel, if there is a connection; else that is done when there is one."""
        connection = self._connection
        if connection is None:
            return
        channel._is_asking = True
        authorizer = self._authorizer
        if not _protocol.needs_auth(channel.name):
            self._send_subscribe(connection, channel, None)
        elif isinstance(authorizer, SecretAuthorizer):
            auth = authorizer.authorize(connection.socket_id, channel.name, channel._channel_data)
            try:
                self._send_subscribe(connection, channel, auth)
            except AuthenticationError as error:
                self._refuse(channel, error)
        else:
            assert authorizer is not None
            self._start_authorizing(self._authorize(connection, channel, authorizer))

    def _start_authorizing(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._authorizing.add(task)
        task.add_done_callback(self._authorizing.discard)

    async def _authorize(self, connection: Connection, channel: Channel, authorizer: Authorizer) -> None:
        channel._awaits = "turn"
        try:
            async with self._turn():
                channel._awaits = "authorizer"
                channel._turn_began = asyncio.get_running_loop().time()
                auth = await _call(authorizer, connection.socket_id, channel.name)
            channel._awaits = "server"
            self._send_subscribe(connection, channel, auth)
        except ReverbError as error:
            if self._is_wanted(channel):
                self._refuse(channel, error)

    async def _authorize_again(self, channel: Channel, socket_id: str) -> ChannelAuth:
        """Ask for a channel's authorisation because of the key that comes with it."""
        assert self._authorizer is not None
        timeout = self._config.subscribe_timeout
        try:
            async with self._turn():
                return await asyncio.wait_for(_call(self._authorizer, socket_id, channel.name), timeout)
        except ReverbError:  # a TimeoutError of the authorizer's own, for instance
            raise
        except asyncio.TimeoutError:
            raise TimeoutError(
                f"no answer of the authorizer for {channel.name!r} within {timeout:g} seconds "
                "(REVERB_SUBSCRIBE_TIMEOUT)"
            ) from None

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for one of ``REVERB_AUTH_CONCURRENCY`` turns to authorise a channel.

        It is over after ``REVERB_SUBSCRIBE_TIMEOUT`` seconds, so that authorizers that hang, or wait to try again,
        hold up the others no longer than that.
        """
        turns = self._authorizations
        await turns.acquire()
        end = asyncio.get_running_loop().call_later(self._config.subscribe_timeout, turns.release)
        try:
            yield
        finally:
            if end.when() > asyncio.get_running_loop().time():
                end.cancel()
                turns.release()

    def _send_subscribe(self, connection: Connection, channel: Channel, auth: ChannelAuth | None) -> None:
        if connection.answers.is_open(channel.name):
            return  # an earlier subscription that was given up; its answer brings us back here
        if connection.is_open and self._is_wanted(channel):
            if auth is not None:
                channel._on_authorized(auth, connection.socket_id)
            question = connection.send_subscribe(
                channel.name, None if auth is None else auth.auth, channel._channel_data
            )
            self._asked[question] = channel
            self._regulate_reading()

    def _is_wanted(self, channel: Channel) -> bool:
        return channel in (self._channels.get(channel.name), self._joining.get(channel.name))

    def _drop(self, channel: Channel) -> None:
        """Leave a channel and forget it."""
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
            del self._dispatcher.lanes[channel.name]
        elif self._joining.get(channel.name) is channel:
            del self._joining[channel.name]
        channel._lane.clear()
        for buffer, owner in list(self._buffers.items()):
            if owner is channel:
                buffer.end_here()
        connection = self._connection
        if connection is not None and (channel.is_subscribed or channel._is_asking):
            connection.send_silent(_protocol.encode_unsubscribe(channel.name))
        channel._on_lost()

    def _confirm(self, channel: Channel, message: Message, size: int) -> None:
        if self._is_wanted(channel):
            self._joining.pop(channel.name, None)
            self._channels[channel.name] = channel
            self._dispatcher.lanes[channel.name] = channel._lane
            channel._on_confirmed(message, size)
        else:
            self._ask_successor(channel)

    def _refuse(self, channel: Channel, error: ReverbError) -> None:
        channel._is_asking = False
        if self._joining.get(channel.name) is channel:
            del self._joining[channel.name]
            channel._resolve(error)
        elif self._channels.get(channel.name) is channel:
            # It was subscribed once, so nobody may be waiting; the application has to hear of it all the same.
            fields = {"reverb_address": self._config.address, "reverb_channel": channel.name}
            log.error("%s; it is tried again at the next reconnect", error, extra=fields)
            channel._resolve(error)
            channel._lane.tell(str(error), error)
        else:
            self._ask_successor(channel)

    def _ask_successor(self, channel: Channel) -> None:
        """Ask for the channel that took the place of one that was given up while its answer was on the way."""
        successor = self._joining.get(channel.name)
        if successor is not None:
            self._ask(successor)

    def _refuse_for(self, channel: Channel, error: ServerError) -> None:
        name, address = channel.name, self._config.address
        if _protocol.is_auth_refusal(error):
            hint = (
                "check REVERB_APP_KEY and REVERB_APP_SECRET"
                if isinstance(self._authorizer, SecretAuthorizer)
                else "check the authorizer"
            )
            refusal: ReverbError = AuthenticationError(
                f"{address} refused the signature for {name!r}: {error}; {hint}", code=error.code
            )
        else:
            refusal = SubscriptionError(
                f"{address} refused the subscription to {name!r}: {error}", code=error.code
            )
            if error.code == _protocol.INVALID_MESSAGE and (connection := self._connection) is not None:
                # Reverb says so, too, when another member lacks user_info, and counts us as a member all the same.
                connection.send_silent(_protocol.encode_unsubscribe(name))
        self._refuse(channel, refusal)

    def _fail_joining(self, error: ReverbError) -> None:
        for channel in [*self._channels.values(), *self._joining.values()]:
            channel._resolve(error)
        self._joining.clear()

    def _end_streams(self, error: ReverbError | None) -> None:
        for channel in self._channels.values():
            channel._lane.release()  # what is held for streams, too, comes before their end
        for buffer in list(self._buffers):
            buffer.end(error)

    # --- called by the supervisor and the connection -----------------------------------------------------------

    def _on_state_change(self, previous: ConnectionState, current: ConnectionState) -> None:
        self._lane.put(Events.STATE_CHANGE.value, {"previous": previous, "current": current})

    async def _on_connected(self, connection: Connection, outage: Outage | None) -> None:
        """Subscribe to everything that is wanted; return when all of it is confirmed, refused, or overdue."""
        for buffer in list(self._buffers):
            if buffer.has_end:
                buffer.end_here()  # what comes from now on is not for it
        self._regulate_reading()
        self._lane.put(
            Events.CONNECTION_ESTABLISHED.value,
            {"socket_id": connection.socket_id, "activity_timeout": connection.activity_timeout},
        )
        if self._user._authenticate is not None:
            self._start_authorizing(self._sign_in_again(connection, self._user._authenticate))
        waiters = {}
        for channel in [*self._channels.values(), *self._joining.values()]:
            waiters[channel._new_waiter(self._config.subscribe_timeout)] = channel
            self._ask(channel)
        try:
            if waiters:
                await asyncio.wait(waiters)
        finally:
            for waiter, channel in waiters.items():
                channel._forget(waiter)
                waiter.cancel()
        for waiter, channel in waiters.items():
            error = waiter.exception()
            if isinstance(error, TimeoutError):
                self._refuse(channel, error)
        if outage is not None:
            self._lane.put(
                Events.RECONNECTED.value,
                {"downtime": monotonic() - outage.since, "attempts": outage.attempts},
            )

    def _regulate_reading(self) -> None:
        """Read from the socket, unless the handlers have enough to do.

        While a subscribe or a ping is unanswered, reading goes on, or a handler that subscribes would wait for an
        answer that nobody reads; but not without bounds.
        """
        connection = self._connection
        if connection is None:
            return
        full = self._dispatcher.is_full
        if full and (self._asked or self._pings):
            full = self._dispatcher.is_flooded
        connection.set_reading(not full)
        if not full:
            self._cancel_slow_warning()
        elif self._slow_timer is None:
            self._slow_timer = asyncio.get_running_loop().call_later(_SLOW_AFTER, self._warn_slow)

    def _warn_slow(self) -> None:
        self._slow_timer = None
        if monotonic() - self._warned_slow_at < _SLOW_WARNING_INTERVAL:
            return
        self._warned_slow_at = monotonic()
        slowest = max([self._lane, *(each._lane for each in self._channels.values())], key=len)
        log.warning(
            "handlers are slower than the server: %d events wait, %d of them on %s; "
            "reading is paused until they have caught up",
            self._dispatcher.pending_events,
            len(slowest),
            slowest.name or "the client",
            extra={"reverb_address": self._config.address, "reverb_channel": slowest.name},
        )

    def _cancel_slow_warning(self) -> None:
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None

    def _on_lost(self) -> None:
        self._cancel_slow_warning()
        for task in self._authorizing:
            task.cancel()
        self._asked.clear()
        for answer in self._pings.values():
            if not answer.done():
                reason = f"lost the connection to {self._config.address} before a ping was answered"
                answer.set_exception(ConnectionError(reason))
        self._user._on_lost()
        for channel in [*self._channels.values(), *self._joining.values()]:
            channel._on_lost()

    def _on_failed(self, error: ReverbError) -> None:
        self._fail_joining(error)
        self._end_streams(error)

    def _on_message(self, message: Message, size: int) -> None:
        lane = self._dispatcher.lanes.get(message.channel)
        if lane is not None and not message.event.startswith("pusher"):
            self._dispatcher.taken += 1
            lane.take(lane.learn(message.event), message, size)
        else:
            channel = self._channels.get(message.channel)  # type: ignore[arg-type]  # None is nobody's name
            self._on_protocol_event(message, channel, size)

    def _on_protocol_event(self, message: Message, channel: Channel | None, size: int) -> None:
        event, connection = message.event, self._connection
        if connection is None:
            return
        if event == Events.SUBSCRIPTION_SUCCEEDED and message.channel is not None:
            asked = self._settle(connection, message.channel)
            if asked is not None:
                self._confirm(asked, message, size)
            return
        if event == "pusher:subscription_error" and message.channel is not None:
            asked = self._settle(connection, message.channel)
            if asked is not None:
                self._refuse_for(asked, _protocol.parse_error(_protocol.parse_data(message.data)))
                return
        elif event == "pusher:pong" and message.channel is None:
            self._settle(connection, None)
            return
        elif event == Events.SIGNIN_SUCCESS and message.channel is None:
            self._settle(connection, _protocol.SIGNIN)
            self._user._on_signed_in(connection, message)
            return
        elif event == "pusher_internal:watchlist_events" and message.channel is None:
            self._user._on_watchlist(message)
            return
        elif event == Events.ERROR:
            self._on_server_error(connection, message)
        if channel is not None:
            channel._on_protocol_event(message, size)
        elif message.channel is None:
            self._lane.put(event, message.data, message.user_id, size)

    def _settle(self, connection: Connection, name: str | None) -> Channel | None:
        """Take an answer about ``name``; return the channel that was asked for."""
        question, refusals = connection.answers.answered(name)
        for refusal in refusals:
            self._take_refusal(refusal.question, refusal.error)
        asked = None if question is None else self._asked.pop(question, None)
        pinged = None if question is None else self._pings.get(question)
        if pinged is not None and not pinged.done():
            pinged.set_result(None)
        self._regulate_reading()
        return asked

    def _on_server_error(self, connection: Connection, message: Message) -> None:
        error = _protocol.parse_error(_protocol.parse_data(message.data))
        if message.channel is None:  # else it names what it is about: a client event, on soketi
            refusal = connection.answers.refused(error)
            if refusal is not None:
                self._take_refusal(refusal.question, refusal.error)
                self._regulate_reading()
                return
            if connection.answers.wants_fence:
                connection.send_ping()
        address = self._config.address
        fields = {"reverb_address": address, "reverb_channel": message.channel, "reverb_event": message.event}
        log.warning("%s says: %s", address, error, extra=fields)

    def _take_refusal(self, question: Question, error: ServerError) -> None:
        channel = self._asked.pop(question, None)
        if channel is not None:
            self._refuse_for(channel, error)
        elif question.channel == _protocol.SIGNIN:
            self._user._on_refused(error)
        elif (answer := self._pings.get(question)) is not None and not answer.done():
            answer.set_exception(ProtocolError(f"{self._config.address} refused a ping: {error}", code=error.code))


def _authorizer_in(config: ReverbConfig) -> Authorizer | None:
    if config.auth_endpoint is not None:
        token = config.auth_token
        return EndpointAuthorizer(
            config.auth_endpoint.get_secret_value(), token=None if token is None else token.get_secret_value()
        )
    return None if config.app_secret is None else SecretAuthorizer.from_credentials(config)


async def _call(authorizer: Authorizer, socket_id: str, channel: str) -> ChannelAuth:
    """Ask an authorizer; raise a ReverbError, whatever it raises or returns."""
    try:
        auth = await authorizer(socket_id, channel)
        if not isinstance(auth, ChannelAuth):
            raise TypeError(f"it returned {type(auth).__name__}, not ChannelAuth")
    except ReverbError:
        raise
    except Exception as error:
        raise AuthenticationError(f"the authorizer failed for {channel!r}: {type(error).__name__}") from error
    return auth
