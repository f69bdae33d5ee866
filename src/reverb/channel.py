"""Channels: their members, their handlers, and client events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import _protocol
from ._binding import Binding, Handler
from ._connection import Connection
from ._core import Core
from ._records import ChannelRecord, PresenceRecord
from ._subscriptions import Subscription
from .bindable import Bindable
from .exceptions import ConnectionError, ProtocolError, SubscriptionError
from .stream import Buffer

__all__ = ["Channel", "EncryptedChannel", "PresenceChannel"]


class Channel(Bindable):
    """A channel that you subscribed to with :meth:`ReverbClient.subscribe`. Don't make one yourself.

    The object stays the same over reconnects, and its handlers stay bound. Handlers of its ``"error"`` get the
    errors that concern this channel: a handler that raised, or a refusal after a reconnect. When Reverb refuses a
    client event, its error names no channel, so handlers of ``client.bind("error", …)`` get it.
    """

    __slots__ = ("_core", "_has_client_events", "_name", "_queue", "_record", "_subscription")

    def __init__(self, core: Core, subscription: Subscription[ChannelRecord]) -> None:
        self._core = core
        self._subscription = subscription
        self._record = subscription.item
        self._queue = self._record.queue
        self._name = subscription.name
        self._has_client_events = _protocol.needs_auth(self._name) and not _protocol.is_encrypted(self._name)

    @property
    def name(self) -> str:
        """The name of the channel."""
        return self._name

    @property
    def is_subscribed(self) -> bool:
        """Whether the server has confirmed the subscription on the present connection."""
        return self._subscription.is_subscribed

    @property
    def subscription_count(self) -> int | None:
        """How many connections are subscribed to the channel. None until the server says it.

        Pusher sends it if you enable that; Reverb and soketi do not. It changes before handlers of
        ``Events.SUBSCRIPTION_COUNT`` are called.
        """
        return self._record.subscription_count

    async def trigger(self, event: str, data: Any) -> None:
        """Send a client event to the other subscribers of the channel.

        Only private and presence channels have client events. This returns when the message is handed to the
        socket; it waits while the socket's buffer is full. Servers do not confirm client events.

        Args:
            event: The name. The client adds the prefix ``client-`` if it is missing.
            data: A value that encodes to a JSON object, a JSON list, or null.

        Raises:
            ProtocolError: Other data, or a message larger than ``REVERB_MAX_MESSAGE_SIZE`` bytes.
            SubscriptionError: The channel is public, encrypted, or not subscribed.
            ConnectionError: The client is not connected.
        """
        name, most = self._name, self._core.config.max_message_size
        if not self._has_client_events:
            reason = (
                "encrypted channels have no client events"
                if _protocol.is_encrypted(name)
                else "client events need a private or presence channel"
            )
            raise SubscriptionError(f"cannot trigger on {name!r}: {reason}")
        payload = _protocol.encode_client_event(event, name, data)
        if len(payload) > most:
            raise ProtocolError(
                f"{event!r} on {name!r} is too large to send: {len(payload)} bytes, and the server accepts "
                f"{most} (REVERB_MAX_MESSAGE_SIZE)"
            )
        connection = self._connection
        while connection.is_congested:
            await connection.drain()
            connection = self._connection  # it may be another one now
        connection.send_silent(payload)

    @property
    def _connection(self) -> Connection:
        """The connection on which the channel is subscribed."""
        session = self._core.session
        if session is None:
            raise ConnectionError(
                f"cannot trigger on {self._name!r}: not connected to {self._core.config.address}"
            )
        if not self._subscription.is_subscribed:
            raise SubscriptionError(f"cannot trigger on {self._name!r}: not subscribed")
        return session.connection

    def __repr__(self) -> str:
        state = "subscribed" if self.is_subscribed else "not subscribed"
        return f"<{type(self).__name__} {self._name!r} {state}>"

    def _bind(
        self, names: tuple[str, ...], handler: Handler[Any], type_: Any = None, *, once: bool = False
    ) -> Binding:
        binding = super()._bind(names, handler, type_, once=once)
        self._queue.release_in(0)
        return binding

    def _new_buffer(self, size: int) -> Buffer:
        buffer = self._core.streams.new(size, self._record, self._queue)
        if not self._subscription.is_wanted:
            buffer.end_here()
        return buffer


class PresenceChannel(Channel):
    """A channel that knows its members: the users who are subscribed to it."""

    __slots__ = ()

    _record: PresenceRecord

    @property
    def members(self) -> dict[str, dict[str, Any]]:
        """The ``user_info`` of each member by ``user_id``, including your own.

        Ids are always strings and infos are always dicts, whatever the senders made them. It changes before
        handlers of ``member_added`` and ``member_removed`` are called. If several Reverb servers share the
        application (``REVERB_SCALING_ENABLED``), it has only the members on your server. Each call returns a new
        dict. The infos in it are the same objects that handlers get: copy one before you change it.
        """
        return dict(self._record.members)

    @property
    def me(self) -> dict[str, Any]:
        """Your own user: ``{"user_id": …, "user_info": …}``."""
        return self._record.me

    @property
    def count(self) -> int:
        """How many members there are, including yourself. A user with two connections counts once."""
        return len(self._record.members)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids of the present members."""
        return iter(list(self._record.members))

    def __contains__(self, user_id: object) -> bool:
        return str(user_id) in self._record.members

    async def wait_for_member(self, user_id: str | int, timeout: float | None = None) -> dict[str, Any]:
        """Wait until a user is a member of the channel. Continues over reconnects.

        Args:
            user_id: The id of the user.
            timeout: Seconds to wait. None: no limit.

        Returns:
            The ``user_info`` of the member.

        Raises:
            TimeoutError: The user did not come within ``timeout`` seconds.
            SubscriptionError: The channel is not subscribed, or you unsubscribed from it meanwhile.
            ConnectionError: The client is not connected, or the connection was lost for good.
        """
        if not self._subscription.is_wanted:
            raise SubscriptionError(f"cannot wait for a member of {self._name!r}: not subscribed")
        supervisor = self._core.supervisor
        if not supervisor.is_running:
            raise supervisor.why_not_running()
        return await self._record.wait_for_member(str(user_id), timeout)


class EncryptedChannel(Channel):
    """A private channel whose events the server can't read. Handlers get the events decrypted.

    The key comes with the authorisation. If the key does not decrypt an event, the client asks for a new one,
    once. Until then this event and those behind it wait. If the new key does not decrypt it either, the client
    skips the event, and handlers of ``"error"`` get the error.
    """

    __slots__ = ()
