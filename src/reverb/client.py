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
from ._records import ChannelRecord, EncryptedRecord, PresenceRecord
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

    Handlers of the client get the events of all channels, after the handlers of the channel itself. They also get
    the events without a channel; ``channel`` is then None. Handlers of ``"error"`` get the server's
    ``pusher:error`` and every error in the client: a handler that raised, or a channel that the server refused
    after a reconnect.

    ::

        async with ReverbClient() as client:
            channel = await client.subscribe("updates")
            channel.bind("data.changed", handler)
            await client.listen()

    Args:
        config: All settings. The client then reads neither the environment nor ``.env``. Without it, the client
            takes the settings from the keyword arguments, then from the ``REVERB_…`` variables of the environment,
            then from the file ``.env``.
        authorizer: Signs subscriptions to private and presence channels: an :class:`EndpointAuthorizer`, a
            :class:`SecretAuthorizer`, or an async callable ``(socket_id, channel_name) -> ChannelAuth``. Default:
            the endpoint in ``REVERB_AUTH_ENDPOINT``; without an endpoint, the secret in ``REVERB_APP_SECRET``.
        ssl_context: Verifies the server's certificate. Default: the certificates of the system.
        **settings: Settings as keyword arguments; see :class:`ReverbConfig`. You can't pass them together with
            ``config``.

    Raises:
        ConfigurationError: A setting is missing or invalid.
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
        self._queue = self._core.queue
        self._user = User(self._core)
        self._api: ReverbAPI | None = None
        logger = logging.getLogger("reverb")
        if self._config.log_level is not None or logger.level == logging.NOTSET:
            logger.setLevel(self._config.log_level or logging.INFO)

    # --- the connection ----------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect to the server, and stay connected until :meth:`disconnect`.

        Makes one attempt. After it has succeeded, the client reconnects by itself when the connection is lost. If
        the client was connected before, it subscribes to its channels again before this returns. Does nothing if
        the client is connected.

        Raises:
            ConnectionError: The attempt failed, or the server refused the connection.
            TimeoutError: There was no connection within ``REVERB_CONNECT_TIMEOUT`` seconds.
        """
        if self._ssl_context is None and self._config.scheme == "wss":
            self._ssl_context = ssl.create_default_context()
        await self._core.supervisor.start(self._ssl_context)

    async def disconnect(self) -> None:
        """Close the connection, then let handlers finish.

        Handlers get ``REVERB_DRAIN_TIMEOUT`` seconds to finish the events that have arrived. After that the client
        cancels them. Meanwhile :meth:`Channel.trigger` raises :exc:`ConnectionError`; :attr:`api` still works. If
        a handler calls this method, the client does not wait for that handler and gives it no more events. When
        this method returns, no task of the client is running. Bindings and channels stay for another
        :meth:`connect`.
        """
        await self._core.supervisor.stop()

    async def listen(self) -> None:
        """Wait until :meth:`disconnect`.

        The client calls handlers whether or not a task waits here. You can cancel this without harm. While it
        waits, it tells systemd the state of the service, if the unit has ``Type=notify``.

        Raises:
            ConnectionError: The connection is lost and the client does not reconnect, or the client is not
                connected.
            RuntimeError: A handler calls this.
        """
        if self._core.dispatcher.is_handler():
            raise RuntimeError(
                "don't call listen() in a handler: it waits for disconnect(), which waits for handlers"
            )
        from . import _systemd  # not all programs listen

        async with _systemd.service(self._core):
            await self._core.supervisor.wait_ended()

    def run(self, setup: Callable[[Self], Awaitable[object]] | None = None) -> int:
        """Run as a program: connect, await ``setup(client)``, and listen until SIGINT (Ctrl-C) or SIGTERM; then
        disconnect.

        It logs errors of this package, and returns an exit code:

        - 0: after a signal, or after :meth:`disconnect`.
        - 2: settings are missing, or data can't be sent.
        - 3: no connection, the connection is lost for good, or the authorizer can't be reached.
        - 4: the server or the authorizer refused a channel.

        Other exceptions of ``setup`` are raised. If a required setting is missing, ``ReverbClient()`` raises;
        :func:`reverb.run` makes the client, too, and so logs that.

        At the end it disconnects as :meth:`disconnect` does. Then it cancels all tasks that still run, such as
        those that ``setup`` has started.

        Args:
            setup: Subscribes and binds handlers. Default: None, do neither.

        Returns:
            The exit code, for ``sys.exit(client.run(setup))``.

        Raises:
            RuntimeError: An event loop is running. There, use ``async with`` and :meth:`listen`.
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
            if is_in_setup and isinstance(error, ProtocolError):  # about a message that the program wants to send
                return _run.ExitCode.USAGE
            return _run.exit_code_for(error)
        return _run.ExitCode.OK

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until the client is connected.

        Args:
            timeout: Seconds to wait. None: no limit.

        Raises:
            TimeoutError: The client was not connected within ``timeout`` seconds.
            ConnectionError: The client is not trying to connect: :meth:`connect` was not called, the client is
                disconnected, or the connection failed for good.
        """
        await self._core.supervisor.wait_connected(timeout)

    async def ping(self) -> float:
        """Send a ping, and wait for the server's answer.

        Servers handle the messages of a connection in order. So when this returns, all errors about messages that
        you sent before have arrived, and handlers of ``"error"`` get them.

        Returns:
            Seconds until the server answered.

        Raises:
            ConnectionError: There is no connection, or it was lost before the answer.
            TimeoutError: No answer within ``REVERB_PONG_TIMEOUT`` seconds.
            ProtocolError: The server refused the ping. Reverb's rate limit counts pings, too.
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
        """The state of the connection. Each change is an event, ``Events.STATE_CHANGE``."""
        return self._core.supervisor.state

    @property
    def is_connected(self) -> bool:
        """Whether the client is connected: the server has accepted the connection, and it is not lost."""
        return self._core.session is not None

    @property
    def socket_id(self) -> str | None:
        """The id that the server gave to the present connection. None without a connection."""
        session = self._core.session
        return None if session is None else session.connection.socket_id

    @property
    def stats(self) -> Stats:
        """The client's counters, over all its connections so far, and the round-trip time to the server.

        You may read this in any thread. In another thread than the event loop's, the numbers can differ by some
        events.
        """
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
        """The client's settings."""
        return self._config

    @property
    def api(self) -> ReverbAPI:
        """The HTTP API, with the client's settings. :meth:`disconnect` closes its connections.

        Raises:
            ConfigurationError: ``REVERB_APP_ID`` or ``REVERB_APP_SECRET`` is missing.
        """
        if self._api is None:
            from .http import ReverbAPI  # not all programs publish

            self._api = ReverbAPI(self._config, ssl_context=self._ssl_context)
            self._core.closers.append(self._api.close)
        return self._api

    # --- channels ----------------------------------------------------------------------------------------------

    @property
    def channels(self) -> dict[str, Channel]:
        """The channels that the program has subscribed to, by name.

        While the connection is lost, these are the channels that the client will subscribe to again.
        """
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
        """Subscribe to a channel, and wait for the server's confirmation.

        If the channel is subscribed already, you get the same object again. While the client reconnects, this
        waits for the connection. Bind your handlers right after this returns: they get all events since the
        confirmation. If you cancel this, the client does not keep the subscription, unless other code has asked
        for it.

        Args:
            channel: The name of the channel.
            user_data: Presence channels need ``{"user_id": …, "user_info": {…}}``, unless an authorizer names the
                user. With it, type checkers know that the channel is a :class:`PresenceChannel`; see also
                :meth:`subscribe_presence`.
            max_pending: **Drops events.** How many events of this channel may wait for handlers. When more arrive,
                the client drops the oldest. Use it where new events matter more than old ones. A handler gets
                ``Events.EVENTS_DROPPED`` where events are missing, and ``stats.dropped`` counts them. A second
                call with another number replaces the first one. Default: None, drop nothing; see
                :attr:`Stats.dropped`.
            decrypt: Whether to decrypt the events of an encrypted channel. If False, handlers get the events as
                the server sends them, ``{"nonce": …, "ciphertext": …}``. That needs neither a key nor PyNaCl.
                Default: True.

        Returns:
            The channel, subscribed.

        Raises:
            AuthenticationError: The server or the authorizer refused the signature.
            SubscriptionError: The server refused for another reason, or the name is not valid. Also for
                ``user_data`` or ``decrypt`` that differ from those of the existing subscription, and for
                ``user_data`` where an authorizer names the user.
            TimeoutError: No answer within ``REVERB_SUBSCRIBE_TIMEOUT`` seconds. The connection stays up.
            ConfigurationError: A private channel, and neither a secret nor another authorizer to sign for it.
            ConnectionError: The client is not connected and does not reconnect.
            ValueError: ``max_pending`` is less than 1.
        """
        core = self._core
        if not core.supervisor.is_running:
            raise ConnectionError(f"cannot subscribe to {channel!r}: not connected; call connect() first")
        if max_pending is not None and max_pending < 1:
            raise ValueError("max_pending must be 1 or more")
        make = self._maker_of(channel, user_data, decrypt=decrypt)
        subscription = await core.channels.subscribe(channel, make, max_pending)
        core.discovered.pop(channel, None)
        return self._channel_of(subscription)

    async def subscribe_presence(
        self, channel: str, user_data: dict[str, Any] | None = None, *, max_pending: int | None = None
    ) -> PresenceChannel:
        """Subscribe to a presence channel: :meth:`subscribe` with a return type that has members.

        Use it where an authorizer names the user: type checkers then know the kind of channel without
        ``user_data``.

        Args:
            channel: The name of the channel. It begins with ``presence-``.
            user_data: See :meth:`subscribe`.
            max_pending: See :meth:`subscribe`.

        Raises:
            SubscriptionError: The name is that of another kind of channel. Other errors: see :meth:`subscribe`.
        """
        if not (isinstance(channel, str) and _protocol.is_presence(channel)):
            raise SubscriptionError(f"{channel!r} is not a presence channel: its name must begin with 'presence-'")
        found = await self.subscribe(channel, user_data, max_pending=max_pending)
        assert isinstance(found, PresenceChannel)
        return found

    async def unsubscribe(self, channel: str) -> None:
        """Unsubscribe from a channel. Its handlers get no more events.

        Does nothing for a channel that is not subscribed. Servers do not confirm an unsubscribe. If there is no
        connection, the client does not subscribe to the channel again when it reconnects.

        Args:
            channel: The name of the channel.
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
        """Follow all channels that have subscribers: subscribe to each new one, and unsubscribe when it is empty.

        **Events are missed between the first subscriber of a channel and the next poll.** Use it as ``async with
        client.discover(prefix="orders.") as found: …``. It polls the HTTP API, for the first time before the block
        begins. It stops at the end of the block, when the client disconnects, and when the connection is lost for
        good. The end of the block unsubscribes from the channels that were found.

        The client unsubscribes from a channel after three polls in a row have found no other subscriber. Some
        servers do not count subscribers (Pusher, unless you enable it): there it keeps the channel. It never
        unsubscribes from a channel that the program has subscribed to itself. If the program unsubscribes from a
        channel, the client takes it again only after it was empty.

        ``found.channels`` has the channels. Handlers of ``Events.CHANNEL_FOUND`` and ``Events.CHANNEL_LEFT`` get
        the changes. If a later poll fails, handlers of ``"error"`` get the error, once per outage, and the client
        polls again after increasing delays.

        Args:
            prefix: The beginning of the names. Default: all names.
            exclude: A glob pattern, or several, of names to leave out.
            interval: Seconds between two polls. Default: 2.
            user_data: The user for presence channels. Without it they are left out, because other members can see
                who is there. Take a ``user_id`` that nobody else has.
            decrypt: Whether to decrypt encrypted channels. Default: if there can be a key, from the master key or
                from an authorizer.

        Raises:
            ConfigurationError: ``REVERB_APP_ID`` or ``REVERB_APP_SECRET`` is missing.
            ConnectionError: The client is not connected. Entering the block raises it, and also what
                :meth:`ReverbAPI.channels` raises in the first poll.
            ValueError: ``interval`` is not more than 0.
        """
        from ._occupancy import Chooser  # not all programs discover
        from .discovery import Discovery

        if not 0 < interval < inf:
            raise ValueError("the interval between polls must be more than 0 seconds")
        if user_data is not None:
            self._channel_data("presence-", user_data)  # raises if it is not valid
        authorizer = self._core.authorizer
        if decrypt is None:
            decrypt = not isinstance(authorizer, SecretAuthorizer) or authorizer.has_master_key
        patterns = (exclude,) if isinstance(exclude, str) else exclude

        def take(name: str) -> Channel:
            return subscribe_later(self, name, user_data if _protocol.is_presence(name) else None, decrypt=decrypt)

        chooser = Chooser(prefix, patterns, presence=user_data is not None)
        return Discovery(self._core, self.api, take, chooser, interval)

    @property
    def user(self) -> User:
        """The user of this connection. Without :meth:`signin` it has no id."""
        return self._user

    async def signin(self, user_data: dict[str, Any] | None = None) -> None:
        """Sign the user in, and wait for the server's confirmation. The client does it again after each reconnect.

        Laravel Reverb does not support this. Where the server does not, the connection and its channels stay as
        they were.

        Args:
            user_data: The user, if the client signs with the secret: ``{"id": "…"}``, optionally with
                ``user_info`` and ``watchlist``, a list of ids. With another authorizer, leave it out: its
                ``authenticate_user(socket_id)`` names the user.

        Raises:
            ProtocolError: The server does not support users, or ``user_data`` is not valid.
            AuthenticationError: The server or the authorizer refused.
            TimeoutError: No answer within ``REVERB_SUBSCRIBE_TIMEOUT`` seconds.
            ConnectionError: The client is not connected.
            ConfigurationError: Nothing can sign for the user, or you passed ``user_data`` where the authorizer
                names the user.
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
    ) -> Callable[[], ChannelRecord]:
        """Return the function that makes the state of a channel; raise if the arguments don't allow a
        subscription."""
        if not _is_name(name):
            raise SubscriptionError(f"a channel name must be a string that is not empty, not {name!r}")
        core = self._core
        if _protocol.needs_auth(name) and core.authorizer is None:
            raise ConfigurationError(
                f"REVERB_APP_SECRET is missing: {name!r} needs a signature. "
                "Set it or REVERB_AUTH_ENDPOINT, or pass an authorizer"
            )
        has_secret = isinstance(core.authorizer, SecretAuthorizer)
        if has_secret and _protocol.needs_auth(name) and not _protocol.is_signable(name):
            raise SubscriptionError(
                f"cannot sign {name!r}: the name must not contain a colon or a control character"
            )
        if _protocol.is_presence(name):
            channel_data = self._channel_data(name, user_data)
            return lambda: PresenceRecord(name, core.dispatcher, core.queue, channel_data)
        if user_data is not None:
            raise SubscriptionError(f"user_data is for presence channels, and {name!r} is not one")
        if _protocol.is_encrypted(name):
            found = core.channels.subscriptions.get(name)
            if found is not None and isinstance(found.item, EncryptedRecord) != decrypt:
                other = f"decrypt={not decrypt}"
                raise SubscriptionError(
                    f"{name!r} is subscribed with {other}: pass the same, or unsubscribe first"
                )
            if decrypt:
                return lambda: EncryptedRecord(name, core.dispatcher, core.queue, core.ask_for_key)
        return lambda: ChannelRecord(name, core.dispatcher, core.queue)

    def _channel_data(self, name: str, user_data: dict[str, Any] | None) -> str | None:
        """Return the JSON text that names the user on a presence channel; None if the authorizer names the
        user."""
        if not isinstance(self._core.authorizer, SecretAuthorizer):
            if user_data is not None:
                raise SubscriptionError(f"the authorizer names the user on {name!r}: don't pass user_data")
            return None
        found = self._core.channels.subscriptions.get(name)
        if found is not None and user_data is None:
            return found.item.channel_data
        channel_data = _protocol.encode_channel_data(name, user_data)
        if found is not None and channel_data != found.item.channel_data:
            raise SubscriptionError(
                f"{name!r} is subscribed with other user_data: pass the same, or unsubscribe first"
            )
        return channel_data

    def _channel_of(self, subscription: Subscription[ChannelRecord]) -> Channel:
        record = subscription.item
        if record.channel is None:
            kind = _KINDS[type(record)]
            record.channel = kind(self._core, subscription)
        channel: Channel = record.channel
        return channel


def run(
    setup: Callable[[ReverbClient], Awaitable[object]],
    config: ReverbConfig | None = None,
    *,
    authorizer: Authorizer | None = None,
    ssl_context: ssl.SSLContext | None = None,
    **settings: Unpack[Settings],
) -> int:
    """Run as a program: make a :class:`ReverbClient`, and call its :meth:`~ReverbClient.run`.

    If settings are missing or invalid, it logs that, and the exit code is 2.

    Args:
        setup: Subscribes and binds handlers.
        config: See :class:`ReverbClient`.
        authorizer: See :class:`ReverbClient`.
        ssl_context: See :class:`ReverbClient`.
        **settings: See :class:`ReverbClient`.

    Returns:
        The exit code, for ``sys.exit(reverb.run(setup))``; see :meth:`ReverbClient.run`.

    Raises:
        RuntimeError: An event loop is running.
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
        raise RuntimeError("run() cannot run in an event loop: use 'async with client' and listen()")


_KINDS: dict[type[ChannelRecord], type[Channel]] = {
    ChannelRecord: Channel,
    PresenceRecord: PresenceChannel,
    EncryptedRecord: EncryptedChannel,
}


def subscribe_later(
    client: ReverbClient, name: str, user_data: dict[str, Any] | None = None, *, decrypt: bool = True
) -> Channel:
    """Return a channel at once; the client subscribes to it as soon as it is connected. For :class:`reverb.Echo`
    and :class:`reverb.Discovery`."""
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
