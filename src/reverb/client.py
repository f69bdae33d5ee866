"""The client: one connection to a server, the channels on it, and their handlers."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, overload

from . import _protocol, _run
from ._authorizations import authenticator
from ._binding import Binding, Handler
from ._core import Core
from ._inbox import EncryptedInbox, Inbox, PresenceInbox
from ._subscriptions import Subscription
from .auth import Authorizer, EndpointAuthorizer, SecretAuthorizer
from .bindable import Bindable
from .channel import Channel, EncryptedChannel, PresenceChannel
from .config import ReverbConfig, config_of
from .events import ConnectionState
from .exceptions import (
    ConfigurationError,
    ConnectionError,
    ProtocolError,
    ReverbError,
    SubscriptionError,
    plural,
)
from .stats import Stats
from .stream import Buffer
from .user import User

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from .config import Settings
    from .discovery import Discovery
    from .http import ReverbAPI

__all__ = ["ReverbClient", "run"]

log = logging.getLogger("reverb.client")


class ReverbClient(Bindable):
    """An asyncio client for Laravel Reverb and other servers of the Pusher protocol.

    Settings come from keyword arguments, the environment (``REVERB_…``) and ``.env``; or from a ``config`` and
    from nowhere else. See :class:`ReverbConfig`. ``authorizer`` signs for private and presence channels: an
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
        self._config = config_of(config, settings)
        self._ssl_context = ssl_context
        self._core = Core(self._config, _authorizer_in(self._config) if authorizer is None else authorizer)
        self._lane = self._core.lane
        self._user = User(self._core)
        self._api: ReverbAPI | None = None
        logger = logging.getLogger("reverb")
        if self._config.log_level is not None or logger.level == logging.NOTSET:
            logger.setLevel(self._config.log_level or logging.INFO)

    # --- the connection ----------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect to the server; once connected, stay connected until :meth:`disconnect`.

        Makes one attempt. Raises :class:`ConnectionError` or :class:`TimeoutError` when it fails, a refusal by the
        server included. Channels of an earlier connection are subscribed again before it returns. Does nothing on
        a connected client.
        """
        if self._ssl_context is None and self._config.scheme == "wss":
            self._ssl_context = ssl.create_default_context()
        await self._core.supervisor.start(self._ssl_context)

    async def disconnect(self) -> None:
        """Close the connection.

        Handlers get ``REVERB_DRAIN_TIMEOUT`` seconds to finish what was received and are then cancelled; the
        handler that calls this, if one does, is not waited for, and gets no more events. After it nothing of the
        client's is running. Bindings and channels are kept for another :meth:`connect`.
        """
        await self._core.supervisor.stop()

    async def listen(self) -> None:
        """Wait until :meth:`disconnect`; raise :class:`ConnectionError` when the connection is lost for good.

        Handlers are called whether or not anyone waits here. Can be cancelled without harm. Meanwhile, a systemd
        that wants to know (``Type=notify``) is told how the service is.
        """
        if self._core.dispatcher.is_handler():
            raise RuntimeError("listen() waits for disconnect(), which waits for handlers: don't call it in one")
        from . import _systemd  # not all programs listen

        async with _systemd.service(self._core):
            await self._core.supervisor.wait_ended()

    def run(self, setup: Callable[[Self], Awaitable[object]] | None = None) -> int:
        """Be a program: connect, await ``setup(client)``, which may subscribe and bind, and listen until SIGINT
        (Ctrl-C) or SIGTERM; then disconnect.

        Returns the exit code, for ``sys.exit(client.run(setup))``: 0 after a signal or :meth:`disconnect`, 2 for
        settings that are missing or what can't be sent, 3 without a connection or when it was lost for good, or
        when who signs can't be asked, 4 when a channel is refused. What went wrong is logged. Other exceptions of
        ``setup`` are raised. Raises :class:`RuntimeError` within an event loop, where ``async with`` and
        :meth:`listen` do the same.

        Settings that the client itself misses are an exception where it is made. :func:`reverb.run` makes it, too.
        """
        _refuse_event_loop()

        is_in_setup = False

        async def live() -> None:
            nonlocal is_in_setup
            async with self:
                if setup is not None:
                    is_in_setup = True
                    await setup(self)
                    is_in_setup = False
                await self.listen()

        try:
            _run.run(live())
        except ReverbError as error:
            log.error("%s", error, extra={"reverb_address": self._config.address})
            if is_in_setup and isinstance(error, ProtocolError):  # for what was to be sent
                return _run.ExitCode.USAGE
            return _run.exit_code_for(error)
        return _run.ExitCode.OK

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until connected, for ``timeout`` seconds at most (None: without end).

        Raises :class:`TimeoutError`, and :class:`ConnectionError` on a client that does not try to connect: never
        asked to, disconnected, or failed.
        """
        await self._core.supervisor.wait_connected(timeout)

    async def ping(self) -> float:
        """Ask the server whether it is there; return the seconds until it answered.

        Servers handle a connection's messages in order: what they have against one that was sent before has
        arrived by then, and is on its way to the handlers of ``"error"``.

        Raises :class:`ConnectionError` without a connection or when it is lost meanwhile, :class:`TimeoutError`
        after ``REVERB_PONG_TIMEOUT`` seconds, and :class:`ProtocolError` when the server refuses (Reverb's rate
        limit counts pings, too).
        """
        session = self._core.session
        if session is None:
            raise ConnectionError(f"cannot ping: not connected to {self._config.address}")
        return await session.ping(self._config.pong_timeout)

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
        return self._core.supervisor.state

    @property
    def is_connected(self) -> bool:
        return self._core.session is not None

    @property
    def socket_id(self) -> str | None:
        """The server's name for the present connection; None while there is none."""
        session = self._core.session
        return None if session is None else session.connection.socket_id

    @property
    def stats(self) -> Stats:
        """What the client has received, delivered and sent, over all its connections so far, and how fast the
        server answers. May be read in any thread; in another one the numbers can be some events apart."""
        dispatcher, traffic, session = self._core.dispatcher, self._core.traffic, self._core.session
        events, volume = traffic.routed
        queued, unbound = dispatcher.pending_events, dispatcher.unbound
        discarded, dropped = dispatcher.discarded, dispatcher.dropped
        return Stats(
            received=events + traffic.messages,
            delivered=events + dispatcher.taken - queued - unbound - discarded - dropped,
            queued=queued,
            unbound=unbound,
            discarded=discarded,
            dropped=dropped,
            reconnects=self._core.supervisor.reconnects,
            round_trip=traffic.round_trip,
            bytes_received=volume + traffic.bytes_received,
            bytes_sent=traffic.bytes_sent,
            uptime=None if session is None else monotonic() - session.connection.opened_at,
            missing=self._core.channels.missing,
        )

    @property
    def config(self) -> ReverbConfig:
        """The settings."""
        return self._config

    @property
    def api(self) -> ReverbAPI:
        """The HTTP API, with the client's settings. :meth:`disconnect` closes its connections.

        Raises :class:`ConfigurationError` without ``REVERB_APP_ID`` or ``REVERB_APP_SECRET``.
        """
        if self._api is None:
            from .http import ReverbAPI  # not all programs publish

            self._api = ReverbAPI(self._config, ssl_context=self._ssl_context)
            self._core.closers.append(self._api.close)
        return self._api

    # --- channels ----------------------------------------------------------------------------------------------

    @property
    def channels(self) -> dict[str, Channel]:
        """The subscribed channels by name; while the connection is down, those that will be subscribed again."""
        return {each.name: self._channel_of(each) for each in self._core.channels.subscriptions if each.is_given}

    @overload
    async def subscribe(
        self, channel: str, user_data: None = None, *, max_pending: int | None = None, decrypt: bool = True
    ) -> Channel: ...

    @overload
    async def subscribe(
        self, channel: str, user_data: dict[str, Any], *, max_pending: int | None = None, decrypt: bool = True
    ) -> PresenceChannel: ...

    async def subscribe(
        self,
        channel: str,
        user_data: dict[str, Any] | None = None,
        *,
        max_pending: int | None = None,
        decrypt: bool = True,
    ) -> Channel:
        """Subscribe to ``channel``; return it once the server has confirmed.

        Presence channels need ``user_data``: ``{"user_id": …, "user_info": {…}}``, unless an authorizer says who
        we are. A name that is subscribed already gives the same object again. While the connection is being made
        again this waits for it, for as long as for the server. Events that arrive directly behind the confirmation
        reach handlers that are bound right after this returns.

        ``max_pending`` is for channels on which new events count more than old ones: so many of its events may
        wait for handlers, and the oldest beyond that are dropped. ``Events.EVENTS_DROPPED`` tells of them in their
        place, and ``stats.dropped`` counts them. By default nothing is dropped: see :attr:`Stats.dropped`. Passed
        again, it replaces the last one.

        ``decrypt`` is for encrypted channels: when it is false, handlers get their events as the server sends
        them, ``{"nonce": …, "ciphertext": …}``. That takes neither a key nor PyNaCl.

        For type checkers a channel with ``user_data`` is a :class:`PresenceChannel`, as is what
        :meth:`subscribe_presence` returns.

        Raises :class:`AuthenticationError` or :class:`SubscriptionError` when the server refuses, or
        :class:`TimeoutError` when it does not answer within ``REVERB_SUBSCRIBE_TIMEOUT`` seconds; the connection
        stays up. Raises :class:`ConfigurationError` for a private channel without ``REVERB_APP_SECRET`` and
        :class:`ConnectionError` on a client that is not connected. Raises :class:`SubscriptionError`, too, for
        ``user_data`` or ``decrypt`` that differs from that of the subscription there is, and for ``user_data``
        where an authorizer has the say.
        Cancelled, it leaves nothing subscribed that nobody else has asked for.
        """
        core = self._core
        if not core.supervisor.is_running:
            raise ConnectionError(f"cannot subscribe to {channel!r}: not connected; call connect() first")
        if max_pending is not None and max_pending < 1:
            raise ValueError("max_pending must leave room for an event")
        make = self._maker_of(channel, user_data, decrypt=decrypt)
        subscription = await core.channels.subscribe(channel, make, max_pending)
        core.discovered.pop(channel, None)
        return self._channel_of(subscription)

    async def subscribe_presence(
        self, channel: str, user_data: dict[str, Any] | None = None, *, max_pending: int | None = None
    ) -> PresenceChannel:
        """As :meth:`subscribe`, and type checkers know that the channel has members, also where an authorizer says
        who we are. Raises :class:`SubscriptionError` for the name of another kind of channel."""
        if not (isinstance(channel, str) and _protocol.is_presence(channel)):
            raise SubscriptionError(f"{channel!r} is no presence channel: those begin with 'presence-'")
        found = await self.subscribe(channel, user_data, max_pending=max_pending)
        assert isinstance(found, PresenceChannel)
        return found

    async def unsubscribe(self, channel: str) -> None:
        """Leave ``channel``. Its handlers get no more events; does nothing for a name that is not subscribed.

        The server confirms nothing. While the connection is down it is remembered.
        """
        self._core.discovered.pop(channel, None)
        self._core.channels.unsubscribe(channel)

    def discover(
        self,
        *,
        prefix: str = "",
        exclude: str | Iterable[str] = (),
        interval: float = 2.0,
        user_data: dict[str, Any] | None = None,
        decrypt: bool | None = None,
    ) -> Discovery:
        """Follow all channels on which somebody is: subscribe to each as it appears, and leave it as it empties.

        ``async with client.discover(prefix="orders.") as found: …`` asks the HTTP API every ``interval`` seconds,
        the first time before the block begins. That is over at its end, when the client disconnects, and when the
        connection is lost for good; the end of the block leaves the channels that were found. **What was published
        on a channel between its first subscriber and our next poll is missed.**

        ``prefix`` is how names begin, ``exclude`` a glob pattern, or several, of names to leave out. Presence
        channels are followed with ``user_data`` only, because others see who is on them; its ``user_id`` should be
        nobody else's. Encrypted channels are decrypted if there is a key: with a master key, or where an
        authorizer has the say; ``decrypt`` says otherwise.

        ``Events.CHANNEL_FOUND`` and ``Events.CHANNEL_LEFT`` tell of channels, and ``found.channels`` has them.
        A channel is left when three polls in a row have found nobody but us. Servers that don't count subscribers
        (Pusher, unless that is enabled) can't tell: there it is kept. Channels that the program subscribes to
        itself are never left, and one that it unsubscribes from is not taken again before it was empty.

        The first poll raises what :meth:`ReverbAPI.channels` raises. One that fails later is reported to the
        handlers of ``"error"``, once per outage, and tried again after longer and longer times. Raises
        :class:`ConfigurationError` without ``REVERB_APP_ID`` or ``REVERB_APP_SECRET``, and
        :class:`ConnectionError` on a client that is not connected.
        """
        from ._occupancy import Chooser  # not all programs discover
        from .discovery import Discovery

        if not 0 < interval < inf:
            raise ValueError("the interval between polls must be more than 0 seconds")
        if user_data is not None:
            self._channel_data("presence-", user_data)  # raises what speaks against it
        authorizer = self._core.authorizer
        if decrypt is None:
            decrypt = not isinstance(authorizer, SecretAuthorizer) or authorizer.has_master_key
        patterns = (exclude,) if isinstance(exclude, str) else exclude

        def take(name: str) -> Channel:
            return want(self, name, user_data if _protocol.is_presence(name) else None, decrypt=decrypt)

        chooser = Chooser(prefix, patterns, presence=user_data is not None)
        return Discovery(self._core, self.api, take, chooser, interval)

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
        authenticate = authenticator(self._core.authorizer, user_data)
        await self.wait_connected(self._config.subscribe_timeout)
        session = self._core.session
        if session is None:
            raise ConnectionError(f"cannot sign in: not connected to {self._config.address}")
        await session.sign_in(authenticate)

    def _bind(
        self, names: tuple[str, ...], handler: Handler[Any], type_: Any = None, *, once: bool = False
    ) -> Binding:
        binding = super()._bind(names, handler, type_, once=once)
        self._core.channels.client_bound()
        return binding

    def _new_buffer(self, size: int) -> Buffer:
        return self._core.streams.new(size, None, None)

    def __repr__(self) -> str:
        state = f"connected as {self.socket_id}" if self.is_connected else "not connected"
        return f"<ReverbClient {self._config.address} {state}, {plural(len(self.channels), 'channel')}>"

    def _maker_of(
        self, name: str, user_data: dict[str, Any] | None, *, decrypt: bool = True
    ) -> Callable[[], Inbox]:
        """Return what makes the inbox of a channel; raise what speaks against subscribing to it."""
        if not _is_name(name):
            raise SubscriptionError(f"a channel name must be a string that is not empty, not {name!r}")
        core = self._core
        if _protocol.needs_auth(name) and core.authorizer is None:
            raise ConfigurationError(
                f"REVERB_APP_SECRET is missing: {name!r} needs it, or REVERB_AUTH_ENDPOINT, or an authorizer"
            )
        has_secret = isinstance(core.authorizer, SecretAuthorizer)
        if has_secret and _protocol.needs_auth(name) and not _protocol.is_signable(name):
            raise SubscriptionError(
                f"a channel name must have no colon and no control character to be signed: {name!r}"
            )
        if _protocol.is_presence(name):
            channel_data = self._channel_data(name, user_data)
            return lambda: PresenceInbox(name, core.dispatcher, core.lane, channel_data)
        if user_data is not None:
            raise SubscriptionError(f"user_data is for presence channels; {name!r} is none")
        if _protocol.is_encrypted(name):
            found = core.channels.subscriptions.get(name)
            if found is not None and isinstance(found.item, EncryptedInbox) != decrypt:
                other = f"decrypt={not decrypt}"
                raise SubscriptionError(
                    f"{name!r} is subscribed with {other}: unsubscribe from it first, or pass the same"
                )
            if decrypt:
                return lambda: EncryptedInbox(name, core.dispatcher, core.lane, core.ask_for_key)
        return lambda: Inbox(name, core.dispatcher, core.lane)

    def _channel_data(self, name: str, user_data: dict[str, Any] | None) -> str | None:
        """Return the text that says who we are on a presence channel; None where the authorizer says it."""
        if not isinstance(self._core.authorizer, SecretAuthorizer):
            if user_data is not None:
                raise SubscriptionError(f"the authorizer says who we are on {name!r}: leave user_data out")
            return None
        found = self._core.channels.subscriptions.get(name)
        if found is not None and user_data is None:
            return found.item.channel_data
        channel_data = _protocol.encode_channel_data(name, user_data)
        if found is not None and channel_data != found.item.channel_data:
            raise SubscriptionError(
                f"{name!r} is subscribed with other user_data: unsubscribe from it first, or pass the same"
            )
        return channel_data

    def _channel_of(self, subscription: Subscription[Inbox]) -> Channel:
        inbox = subscription.item
        if inbox.channel is None:
            kind = _KINDS[type(inbox)]
            inbox.channel = kind(self._core, subscription)
        channel: Channel = inbox.channel
        return channel


def run(
    setup: Callable[[ReverbClient], Awaitable[object]],
    config: ReverbConfig | None = None,
    *,
    authorizer: Authorizer | None = None,
    ssl_context: ssl.SSLContext | None = None,
    **settings: Unpack[Settings],
) -> int:
    """Be a program: make a :class:`ReverbClient` of these arguments, and :meth:`~ReverbClient.run` it.

    Returns the exit code, for ``sys.exit(reverb.run(setup))``. Settings that are missing or wrong are logged like
    anything else that goes wrong, and the exit code is 2.
    """
    _refuse_event_loop()
    try:
        client = ReverbClient(config, authorizer=authorizer, ssl_context=ssl_context, **settings)
    except ConfigurationError as error:
        log.error("%s", error)
        return _run.exit_code_for(error)
    return client.run(setup)


def _refuse_event_loop() -> None:
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("run() makes an event loop, and there is one: use 'async with client' and listen()")


_KINDS: dict[type[Inbox], type[Channel]] = {
    Inbox: Channel,
    PresenceInbox: PresenceChannel,
    EncryptedInbox: EncryptedChannel,
}


def want(
    client: ReverbClient, name: str, user_data: dict[str, Any] | None = None, *, decrypt: bool = True
) -> Channel:
    """Return a channel at once, which is subscribed as soon as there is a connection; for :class:`reverb.Echo` and
    channels that are found."""
    make = client._maker_of(name, user_data, decrypt=decrypt)
    client._core.discovered.pop(name, None)
    return client._channel_of(client._core.channels.want(name, make))


def _is_name(name: object) -> bool:
    try:
        return isinstance(name, str) and bool(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair can't be sent
        return False


def _authorizer_in(config: ReverbConfig) -> Authorizer | None:
    if config.auth_endpoint is not None:
        token = config.auth_token
        return EndpointAuthorizer(
            config.auth_endpoint.get_secret_value(), token=None if token is None else token.get_secret_value()
        )
    return None if config.app_secret is None else SecretAuthorizer.from_credentials(config)
