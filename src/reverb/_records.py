"""The record of a channel, or of the user: what the server says is kept here, and passed on to handlers.

Public objects (:class:`reverb.Channel`, :class:`reverb.User`) read from it; the rest of the client writes to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from . import _protocol, crypto
from ._authorizations import Authenticate
from ._dispatch import Decrypt, Dispatcher, EventQueue
from ._protocol import Message
from ._visible import quoted
from .auth import ChannelAuth
from .events import Events
from .exceptions import ProtocolError, ReverbError, SubscriptionError, TimeoutError, again, plural

_GRACE = 1.0
"""Seconds that the first events of a channel wait for its first handler."""
_SHORT_GRACE = 0.05
"""The same if the client has handlers that would have to wait, too."""
_USELESS_KEY_INTERVAL = 10.0
"""Seconds before a channel asks for another key after one that did not help."""

AskForKey = Callable[[str, str], Awaitable[ChannelAuth]]
"""Asks the authorizer about a channel, ``(socket_id, channel_name)``, to get its key."""


class ChannelRecord:
    """The record of a channel. ``client_queue`` has the handlers for the events of all channels."""

    __slots__ = ("channel", "channel_data", "client_queue", "lost_at", "name", "queue", "subscription_count")

    def __init__(
        self,
        name: str,
        dispatcher: Dispatcher,
        client_queue: EventQueue,
        channel_data: str | None = None,
        decrypt: Decrypt | None = None,
    ) -> None:
        self.name = name
        self.queue = EventQueue(name, dispatcher, client_queue, decrypt)
        self.client_queue = client_queue
        self.channel: Any = None
        """The public object; the client makes it."""
        self.channel_data = channel_data
        """The JSON text that names the user, as it is signed and sent. An authorizer returns it anew each time."""
        self.lost_at: float | None = None
        """When the subscription was lost, on the clock of :func:`time.monotonic`."""
        self.subscription_count: int | None = None

    def authorized(self, auth: ChannelAuth, socket_id: str) -> None:
        """Take the authorizer's answer; raise AuthenticationError if something is missing in it."""
        self.channel_data = auth.channel_data

    def confirmed(self, message: Message, size: int, *, is_awaited: bool) -> None:
        """Take the server's confirmation.

        While callers wait for the channel, its events are held until :meth:`given`.
        """
        if is_awaited:
            self.queue.hold()
        self.queue.put(Events.SUBSCRIPTION_SUCCEEDED.value, message.data, None, size)
        lost_at, self.lost_at = self.lost_at, None
        if lost_at is not None:
            self.queue.put(Events.RESUBSCRIBED.value, {"downtime": monotonic() - lost_at})

    def given(self) -> None:
        """The program is about to get the channel: release its events soon, for the handlers that are bound by
        then."""
        if self.queue.is_bound:
            self.queue.release_in(0)
        else:
            self.queue.release_in(_SHORT_GRACE if self.client_queue.is_bound else _GRACE)

    def client_bound(self) -> None:
        """The client has a handler for our events: they need not wait for one of the channel."""
        self.queue.release_in(_SHORT_GRACE)

    def take(self, message: Message, size: int) -> None:
        """Take an event of the protocol."""
        if message.event == Events.SUBSCRIPTION_COUNT:
            data = _protocol.parse_data(message.data)
            count = data.get("subscription_count") if isinstance(data, dict) else None
            self.subscription_count = count if isinstance(count, int) else None
        self.queue.put(message.event, message.data, message.user_id, size)

    def lost(self, at: float) -> None:
        """The connection is lost since ``at``, and with it the subscription."""
        self.lost_at = at
        self.subscription_count = None

    def failed(self, error: ReverbError) -> None:
        """No more events come, for this reason."""

    def close(self) -> None:
        """The channel was left: deliver no more events."""
        self.queue.close()


class PresenceRecord(ChannelRecord):
    """The record of a presence channel, with its members."""

    __slots__ = ("_expected", "me", "members")

    def __init__(
        self, name: str, dispatcher: Dispatcher, client_queue: EventQueue, channel_data: str | None = None
    ) -> None:
        super().__init__(name, dispatcher, client_queue, channel_data)
        self.me: dict[str, Any] = _identity(channel_data)
        self.members: dict[str, dict[str, Any]] = {}
        self._expected: dict[asyncio.Future[dict[str, Any]], str] = {}
        """Callers that wait for a member, and the member's id."""

    async def wait_for_member(self, user_id: str, timeout: float | None) -> dict[str, Any]:
        if user_id in self.members:
            return self.members[user_id]
        expected: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._expected[expected] = user_id
        try:
            await asyncio.wait({expected}, timeout=timeout)
            if timeout is not None and not expected.done():
                raise TimeoutError(f"{user_id!r} did not come to {self.name!r} within {plural(timeout, 'second')}")
            return expected.result()
        finally:
            del self._expected[expected]

    def confirmed(self, message: Message, size: int, *, is_awaited: bool) -> None:
        self.me = _identity(self.channel_data)
        self.members = _protocol.parse_members(_protocol.parse_data(message.data))
        for user_id, info in self.members.items():
            self._welcome(user_id, info)
        super().confirmed(message, size, is_awaited=is_awaited)

    def take(self, message: Message, size: int) -> None:
        if message.event not in (Events.MEMBER_ADDED, Events.MEMBER_REMOVED):
            super().take(message, size)
            return
        member = _protocol.parse_data(message.data)
        user_id = member.get("user_id") if isinstance(member, dict) else None
        if user_id is None:
            return
        user_id = str(user_id)
        if message.event == Events.MEMBER_ADDED:
            info = _protocol.parse_user_info(member.get("user_info"))
            self.members[user_id] = info
            self._welcome(user_id, info)
        else:
            # The server sends only the id; we still have the info.
            info = self.members.pop(user_id, {})
        self.queue.put(message.event, {"user_id": user_id, "user_info": info}, None, size)

    def _welcome(self, user_id: str, info: dict[str, Any]) -> None:
        for expected, name in self._expected.items():
            if name == user_id and not expected.done():
                expected.set_result(info)

    def failed(self, error: ReverbError) -> None:
        for expected in self._expected:
            if not expected.done():
                expected.set_exception(again(error))
                expected.exception()  # the caller may be cancelled before it retrieves it

    def close(self) -> None:
        super().close()
        self.failed(SubscriptionError(f"{self.name!r} was unsubscribed"))


class EncryptedRecord(ChannelRecord):
    """The record of an encrypted channel.

    The key comes with the authorisation. If it does not decrypt an event, this event and those behind it wait
    while the authorizer is asked for a new key, once. An event that this does not decrypt either is skipped and
    reported to handlers of ``"error"``.
    """

    __slots__ = ("_ask_for_key", "_keys", "_no_key_before", "_socket_id")

    def __init__(
        self, name: str, dispatcher: Dispatcher, client_queue: EventQueue, ask_for_key: AskForKey
    ) -> None:
        crypto.require_nacl()
        super().__init__(name, dispatcher, client_queue, decrypt=self._decrypt_event)
        self._ask_for_key = ask_for_key
        self._keys: tuple[bytes, ...] = ()
        """The present key, and the one before it, for events that still wait and were encrypted with that."""
        self._socket_id = ""
        self._no_key_before = 0.0
        """When another key may be asked for, on the clock of :func:`time.monotonic`."""

    def authorized(self, auth: ChannelAuth, socket_id: str) -> None:
        super().authorized(auth, socket_id)
        key = crypto.parse_shared_secret(self.name, auth.shared_secret)
        self._keys = (key, *(old for old in self._keys[:1] if old != key))
        self._socket_id = socket_id

    async def _decrypt_event(self, event: str, data: Any) -> Any:
        """Decrypt an event that is about to be delivered. The events behind it wait."""
        if event.startswith(_protocol.PROTOCOL_PREFIXES):
            return data
        try:
            return self._decrypt(data)
        except ProtocolError as error:
            reason: ReverbError = error
        if monotonic() >= self._no_key_before:
            try:
                auth = await self._ask_for_key(self._socket_id, self.name)
                self.authorized(auth, self._socket_id)
                return self._decrypt(data)
            except ReverbError as error:
                reason = error
                self._no_key_before = monotonic() + _USELESS_KEY_INTERVAL
        raise ProtocolError(f"{quoted(event)} on {self.name!r} could not be decrypted: {reason}") from reason

    def _decrypt(self, data: Any) -> str:
        for number in range(len(self._keys) - 1):  # error reporters send locals, so no key is in one
            with suppress(ProtocolError):
                return crypto.decrypt(data, self._keys[number])
        return crypto.decrypt(data, self._keys[-1])


class UserRecord:
    """The record of the user of the connection. Empty before the first sign-in."""

    def __init__(self, dispatcher: Dispatcher, client_queue: EventQueue) -> None:
        self.queue = EventQueue(None, dispatcher, client_queue)
        self.id: str | None = None
        self.is_signed_in = False
        self.authenticate: Authenticate | None = None
        """How the user was signed in, to do it again on the next connection."""
        self._client_queue = client_queue
        self._queues = dispatcher.queues

    def signed_in(self, message: Message) -> str:
        """Take the server's confirmation; return the name of the user's own channel."""
        data = _protocol.parse_data(message.data)
        text = data.get("user_data") if isinstance(data, dict) else None
        user = _protocol.parse_data(text)
        self.id = str(user.get("id")) if isinstance(user, dict) else None
        self.is_signed_in = True
        self._queues.pop(self.queue.name, None)
        name = self.queue.name = f"#server-to-user-{self.id}"
        self._queues[name] = self.queue
        self._client_queue.put(Events.SIGNIN_SUCCESS.value, {"user_data": user})
        return name

    def take_watchlist(self, message: Message) -> None:
        data = _protocol.parse_data(message.data)
        changes = data.get("events") if isinstance(data, dict) else None
        names = {"online": Events.WATCHLIST_ONLINE, "offline": Events.WATCHLIST_OFFLINE}
        for change in changes if isinstance(changes, list) else ():
            ids = change.get("user_ids") if isinstance(change, dict) else None
            if isinstance(ids, list) and change.get("name") in names:
                self.queue.put(names[change["name"]].value, {"user_ids": [str(user_id) for user_id in ids]})


def _identity(channel_data: str | None) -> dict[str, Any]:
    data = _protocol.parse_data(channel_data)
    if not isinstance(data, dict) or data.get("user_id") is None:
        return {}
    return {"user_id": str(data["user_id"]), "user_info": _protocol.parse_user_info(data.get("user_info"))}
