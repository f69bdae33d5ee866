"""Channels: what was subscribed to, who is there, and which handlers get what happens on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from . import _protocol, crypto
from ._binding import Binding, Handler
from ._dispatch import Lane, Unseal
from ._protocol import Message
from .auth import ChannelAuth
from .bindable import Bindable
from .events import Events
from .exceptions import ConnectionError, ProtocolError, ReverbError, SubscriptionError, TimeoutError

if TYPE_CHECKING:
    from .client import ReverbClient
    from .stream import Buffer

__all__ = ["Channel", "EncryptedChannel", "PresenceChannel"]

_GRACE = 1.0
"""Seconds that the first events of a channel wait for its first handler, …"""
_SHORT_GRACE = 0.05
"""… and when there are global handlers that would have to wait with them."""
_USELESS_KEY_INTERVAL = 10.0
"""Seconds before a channel asks for another key when the last one it got did not help."""


class Channel(Bindable):
    """A subscribed channel; made by :meth:`ReverbClient.subscribe`, never by hand.

    It stays the same object over reconnects, and its handlers stay bound. Handlers of its ``"error"`` get what is
    known to concern this channel: a handler that raised, a refusal after a reconnect. (What Reverb has against a
    client event names no channel; it reaches ``client.bind("error", …)``.)
    """

    __slots__ = (
        "_awaits",
        "_channel_data",
        "_claimed",
        "_client",
        "_has_client_events",
        "_is_asking",
        "_is_subscribed",
        "_lane",
        "_lost_at",
        "_name",
        "_subscription_count",
        "_turn_began",
        "_waiters",
    )

    def __init__(
        self, client: ReverbClient, name: str, channel_data: str | None = None, unseal: Unseal | None = None
    ) -> None:
        self._client = client
        self._name = name
        # The JSON text that says who we are, as it is signed and sent; from an authorizer it comes anew each time.
        self._channel_data = channel_data
        self._has_client_events = _protocol.needs_auth(name) and not _protocol.is_encrypted(name)
        self._is_subscribed = False
        self._is_asking = False
        self._awaits: Literal["turn", "authorizer", "server"] = "server"
        """Who has to act next while we are asking; our turn, when too many channels are being authorised."""
        self._turn_began = 0.0
        """When it was our turn to be authorised, on the event loop's clock."""
        self._lane = Lane(name, client._dispatcher, client._lane, unseal)
        self._lost_at: float | None = None
        """When the subscription was lost, on the clock of :func:`time.monotonic`."""
        self._subscription_count: int | None = None
        self._claimed = False
        """Whether some ``subscribe()`` has returned this channel."""
        self._waiters: dict[asyncio.Future[None], asyncio.TimerHandle] = {}
        """What waits for the server's answer, ``subscribe()`` for the most part, and what ends the waiting."""

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_subscribed(self) -> bool:
        """Whether the server has confirmed the subscription on the present connection."""
        return self._is_subscribed and self._client.is_connected

    @property
    def subscription_count(self) -> int | None:
        """How many connections are subscribed; None until the server has said so (Pusher does, if enabled; Reverb
        and soketi don't). Up to date before handlers of ``Events.SUBSCRIPTION_COUNT`` run."""
        return self._subscription_count

    async def trigger(self, event: str, data: Any) -> None:
        """Send a client event to the channel's other subscribers.

        The name gets the prefix ``client-`` unless it has it. ``data`` is what encodes to a JSON object, a list,
        or null. Returns when the message is handed to the socket, which waits while its buffer is full; servers
        confirm nothing. Raises :class:`ProtocolError` for other data and for messages larger than
        ``REVERB_MAX_MESSAGE_SIZE``, :class:`SubscriptionError` on a channel that is public, encrypted, or not
        subscribed, and :class:`ConnectionError` while the connection is down.
        """
        name, config = self._name, self._client._config
        if not self._has_client_events:
            reason = (
                "encrypted channels have no client events"
                if _protocol.is_encrypted(name)
                else "client events need a private or presence channel"
            )
            raise SubscriptionError(f"cannot trigger on {name!r}: {reason}")
        payload = _protocol.encode_client_event(event, name, data)
        if len(payload) > config.max_message_size:
            raise ProtocolError(
                f"{event!r} on {name!r} is too large to send: {len(payload)} bytes, and the server accepts "
                f"{config.max_message_size} (REVERB_MAX_MESSAGE_SIZE)"
            )
        connection = self._client._connection
        if connection is None:
            raise ConnectionError(f"cannot trigger on {name!r}: not connected to {config.address}")
        if not self._is_subscribed:
            raise SubscriptionError(f"cannot trigger on {name!r}: not subscribed")
        if connection.is_congested:
            await connection.drain()
        connection.send_silent(payload)

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
        return self._client._new_buffer(size, self)

    # --- called by the client ----------------------------------------------------------------------------------

    def _new_waiter(self, timeout: float) -> asyncio.Future[None]:
        """Return a future for the server's answer, which fails by itself after ``timeout`` seconds; not wanted any
        more, it has to be forgotten (:meth:`_forget`)."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        waiter.add_done_callback(_see)
        self._waiters[waiter] = loop.call_later(timeout, self._expire, waiter, timeout)
        return waiter

    def _expire(self, waiter: asyncio.Future[None], timeout: float) -> None:
        loop = asyncio.get_running_loop()
        # Time in line does not count.
        left = timeout if self._awaits == "turn" else self._turn_began + timeout - loop.time()
        if left > 0:
            self._waiters[waiter] = loop.call_later(left, self._expire, waiter, timeout)
        elif not waiter.done():
            waiter.set_exception(
                TimeoutError(
                    f"no answer of the {self._awaits} to the subscription to {self._name!r} within "
                    f"{timeout:g} seconds (REVERB_SUBSCRIBE_TIMEOUT)"
                )
            )

    def _forget(self, waiter: asyncio.Future[None]) -> None:
        self._waiters.pop(waiter).cancel()

    def _resolve(self, error: ReverbError | None) -> None:
        """Give the server's answer to everyone who waits for it."""
        for waiter in self._waiters:
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)

    def _on_authorized(self, auth: ChannelAuth, socket_id: str) -> None:
        self._channel_data = auth.channel_data

    def _on_confirmed(self, message: Message, size: int) -> None:
        self._is_asking = False
        self._is_subscribed = True
        if not self._claimed:
            self._lane.hold()
        self._lane.put(Events.SUBSCRIPTION_SUCCEEDED.value, message.data, None, size)
        if self._lost_at is not None:
            self._lane.put(Events.RESUBSCRIBED.value, {"downtime": monotonic() - self._lost_at})
            self._lost_at = None
        self._resolve(None)

    def _on_claimed(self) -> None:
        """``subscribe()`` is about to return this channel: soon its events can go to whoever is bound by then."""
        self._claimed = True
        self._lane.release_in(_SHORT_GRACE if self._client._lane.is_bound else _GRACE)

    def _on_client_bound(self) -> None:
        """The client has a handler for our events, so that they need not wait for one of our own."""
        if self._claimed:
            self._lane.release_in(_SHORT_GRACE)

    def _on_lost(self) -> None:
        if self._is_subscribed:
            self._lost_at = monotonic()
        self._subscription_count = None
        self._is_asking = False
        self._awaits = "server"
        self._is_subscribed = False

    def _on_protocol_event(self, message: Message, size: int) -> None:
        if message.event == Events.SUBSCRIPTION_COUNT:
            data = _protocol.parse_data(message.data)
            count = data.get("subscription_count") if isinstance(data, dict) else None
            self._subscription_count = count if isinstance(count, int) else None
        self._lane.put(message.event, message.data, message.user_id, size)


class PresenceChannel(Channel):
    """A channel that knows who is subscribed to it."""

    __slots__ = ("_expected", "_me", "_members")

    def __init__(self, client: ReverbClient, name: str, channel_data: str | None = None) -> None:
        super().__init__(client, name, channel_data)
        self._me: dict[str, Any] = _identity(channel_data)
        self._members: dict[str, dict[str, Any]] = {}
        self._expected: dict[asyncio.Future[dict[str, Any]], str] = {}
        """Who waits for a member, and for which."""

    @property
    def members(self) -> dict[str, dict[str, Any]]:
        """Who is here: ``user_info`` by ``user_id``, ourselves included. A copy.

        Ids are strings and infos are dicts, whatever their senders made them. Up to date before the handlers of
        ``member_added`` and ``member_removed`` run.
        """
        return dict(self._members)

    @property
    def me(self) -> dict[str, Any]:
        """Ourselves: ``{"user_id": …, "user_info": …}``."""
        return self._me

    @property
    def count(self) -> int:
        """How many members are here, ourselves included. Somebody with two connections is one."""
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        """Go through the members' ids, as they are now."""
        return iter(list(self._members))

    def __contains__(self, user_id: object) -> bool:
        return str(user_id) in self._members

    async def wait_for_member(self, user_id: str | int, timeout: float | None = None) -> dict[str, Any]:
        """Wait until somebody is here, for ``timeout`` seconds at most (None: without end); return the user_info.

        Goes on over reconnects. Raises :class:`TimeoutError`, or what ends the subscription meanwhile.
        """
        name = str(user_id)
        if not self._client._is_wanted(self):
            raise SubscriptionError(f"cannot wait for a member of {self._name!r}: not subscribed")
        if name in self._members:
            return self._members[name]
        expected: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._expected[expected] = name
        try:
            return await asyncio.wait_for(expected, timeout)
        except ReverbError:  # a TimeoutError of the connection's, for instance
            raise
        except asyncio.TimeoutError:
            raise TimeoutError(f"{name!r} did not come to {self._name!r} within {timeout:g} seconds") from None
        finally:
            del self._expected[expected]

    def _on_confirmed(self, message: Message, size: int) -> None:
        self._me = _identity(self._channel_data)
        self._members = _protocol.parse_members(_protocol.parse_data(message.data))
        for user_id, info in self._members.items():
            self._welcome(user_id, info)
        super()._on_confirmed(message, size)

    def _on_protocol_event(self, message: Message, size: int) -> None:
        if message.event not in (Events.MEMBER_ADDED, Events.MEMBER_REMOVED):
            super()._on_protocol_event(message, size)
            return
        member = _protocol.parse_data(message.data)
        user_id = member.get("user_id") if isinstance(member, dict) else None
        if user_id is None:
            return
        user_id = str(user_id)
        if message.event == Events.MEMBER_ADDED:
            info = _protocol.parse_user_info(member.get("user_info"))
            self._members[user_id] = info
            self._welcome(user_id, info)
        else:
            # The server names the one who left; who that was, only we still know.
            info = self._members.pop(user_id, {})
        self._lane.put(message.event, {"user_id": user_id, "user_info": info}, None, size)

    def _welcome(self, user_id: str, info: dict[str, Any]) -> None:
        for expected, name in self._expected.items():
            if name == user_id and not expected.done():
                expected.set_result(info)

    def _resolve(self, error: ReverbError | None) -> None:
        super()._resolve(error)
        if error is not None:
            for expected in self._expected:
                if not expected.done():
                    expected.set_exception(error)
                    expected.exception()  # whoever waits may be cancelled yet


class EncryptedChannel(Channel):
    """A private channel whose events the server can't read. Handlers get them decrypted.

    Its key comes with the authorisation. An event that it does not decrypt waits, and so do those behind it, while
    a new key is asked for, once. What can't be read with that either is left out, and reported to handlers of
    ``"error"``.
    """

    __slots__ = ("_keys", "_no_key_before", "_socket_id")

    def __init__(self, client: ReverbClient, name: str) -> None:
        crypto.require_nacl()
        super().__init__(client, name, unseal=self._unseal)
        self._keys: tuple[bytes, ...] = ()
        """The present key, and the one before it, for what was sealed with that and still waits."""
        self._socket_id = ""
        self._no_key_before = 0.0
        """When another key may be asked for, on the clock of :func:`time.monotonic`."""

    async def _unseal(self, event: str, data: Any) -> Any:
        """Decrypt what is about to be delivered. The events behind it wait."""
        if event.startswith(_protocol.PROTOCOL_PREFIXES):
            return data
        try:
            return self._decrypt(data)
        except ProtocolError as error:
            reason: ReverbError = error
        if monotonic() >= self._no_key_before:
            try:
                auth = await self._client._authorize_again(self, self._socket_id)
                self._on_authorized(auth, self._socket_id)
                return self._decrypt(data)
            except ReverbError as error:
                reason = error
                self._no_key_before = monotonic() + _USELESS_KEY_INTERVAL
        raise ProtocolError(f"{event!r} on {self._name!r} could not be decrypted: {reason}") from reason

    def _decrypt(self, data: Any) -> str:
        *first, last = self._keys
        for key in first:
            with suppress(ProtocolError):
                return crypto.unseal(data, key)
        return crypto.unseal(data, last)

    def _on_authorized(self, auth: ChannelAuth, socket_id: str) -> None:
        super()._on_authorized(auth, socket_id)
        key = crypto.parse_shared_secret(self.name, auth.shared_secret)
        self._keys = (key, *(old for old in self._keys[:1] if old != key))
        self._socket_id = socket_id


def _see(waiter: asyncio.Future[None]) -> None:
    """Whoever waited may have been cancelled, and nobody else needs to see how it ended."""
    if not waiter.cancelled():
        waiter.exception()


def _identity(channel_data: str | None) -> dict[str, Any]:
    data = _protocol.parse_data(channel_data)
    if not isinstance(data, dict) or data.get("user_id") is None:
        return {}
    return {"user_id": str(data["user_id"]), "user_info": _protocol.parse_user_info(data.get("user_info"))}
