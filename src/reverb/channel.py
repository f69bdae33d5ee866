"""Channels: what was subscribed to, who is there, and which handlers get what happens on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import _protocol
from ._binding import Binding, Handler
from ._connection import Connection
from ._core import Core
from ._inbox import Inbox, PresenceInbox
from ._subscriptions import Subscription
from .bindable import Bindable
from .exceptions import ConnectionError, ProtocolError, SubscriptionError
from .stream import Buffer

__all__ = ["Channel", "EncryptedChannel", "PresenceChannel"]


class Channel(Bindable):
    """A subscribed channel; made by :meth:`ReverbClient.subscribe`, never by hand.

    It stays the same object over reconnects, and its handlers stay bound. Handlers of its ``"error"`` get what is
    known to concern this channel: a handler that raised, a refusal after a reconnect. (What Reverb has against a
    client event names no channel; it reaches ``client.bind("error", …)``.)
    """

    __slots__ = ("_core", "_has_client_events", "_inbox", "_lane", "_name", "_subscription")

    def __init__(self, core: Core, subscription: Subscription[Inbox]) -> None:
        self._core = core
        self._subscription = subscription
        self._inbox = subscription.item
        self._lane = self._inbox.lane
        self._name = subscription.name
        self._has_client_events = _protocol.needs_auth(self._name) and not _protocol.is_encrypted(self._name)

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_subscribed(self) -> bool:
        """Whether the server has confirmed the subscription on the present connection."""
        return self._subscription.is_subscribed

    @property
    def subscription_count(self) -> int | None:
        """How many connections are subscribed; None until the server has said so (Pusher does, if enabled; Reverb
        and soketi don't). Up to date before handlers of ``Events.SUBSCRIPTION_COUNT`` run."""
        return self._inbox.subscription_count

    async def trigger(self, event: str, data: Any) -> None:
        """Send a client event to the channel's other subscribers.

        The name gets the prefix ``client-`` unless it has it. ``data`` is what encodes to a JSON object, a list,
        or null. Returns when the message is handed to the socket, which waits while its buffer is full; servers
        confirm nothing. Raises :class:`ProtocolError` for other data and for messages larger than
        ``REVERB_MAX_MESSAGE_SIZE``, :class:`SubscriptionError` on a channel that is public, encrypted, or not
        subscribed, and :class:`ConnectionError` while the connection is down.
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
            connection = self._connection  # what there is now
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
        self._lane.release_in(0)
        return binding

    def _new_buffer(self, size: int) -> Buffer:
        buffer = self._core.streams.new(size, self._inbox, self._lane)
        if not self._subscription.is_wanted:
            buffer.end_here()
        return buffer


class PresenceChannel(Channel):
    """A channel that knows who is subscribed to it."""

    __slots__ = ()

    _inbox: PresenceInbox

    @property
    def members(self) -> dict[str, dict[str, Any]]:
        """Who is here: ``user_info`` by ``user_id``, ourselves included.

        Where several Reverb servers share an application (``REVERB_SCALING_ENABLED``), those on our server.
        Ids are strings and infos are dicts, whatever their senders made them. Up to date before the handlers of
        ``member_added`` and ``member_removed`` run. Each time a new dict; the infos in it are not copied, and are
        those that handlers get, so copy what you mean to change.
        """
        return dict(self._inbox.members)

    @property
    def me(self) -> dict[str, Any]:
        """Ourselves: ``{"user_id": …, "user_info": …}``."""
        return self._inbox.me

    @property
    def count(self) -> int:
        """How many members are here, ourselves included. Somebody with two connections is one."""
        return len(self._inbox.members)

    def __iter__(self) -> Iterator[str]:
        """Go through the members' ids, as they are now."""
        return iter(list(self._inbox.members))

    def __contains__(self, user_id: object) -> bool:
        return str(user_id) in self._inbox.members

    async def wait_for_member(self, user_id: str | int, timeout: float | None = None) -> dict[str, Any]:
        """Wait until somebody is here, for ``timeout`` seconds at most (None: without end); return the user_info.

        Goes on over reconnects. Raises :class:`TimeoutError`, :class:`SubscriptionError` on a channel that is not
        subscribed, and what ends the subscription or the connection meanwhile.
        """
        if not self._subscription.is_wanted:
            raise SubscriptionError(f"cannot wait for a member of {self._name!r}: not subscribed")
        supervisor = self._core.supervisor
        if not supervisor.is_running:
            raise supervisor.why_not_running()
        return await self._inbox.wait_for_member(str(user_id), timeout)


class EncryptedChannel(Channel):
    """A private channel whose events the server can't read. Handlers get them decrypted.

    Its key comes with the authorisation. An event that it does not decrypt waits, and so do those behind it, while
    a new key is asked for, once. What can't be read with that either is left out, and reported to handlers of
    ``"error"``.
    """

    __slots__ = ()
