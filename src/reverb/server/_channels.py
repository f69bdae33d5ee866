"""The channels of an application: who is subscribed, who gets an event, and who may subscribe. Does no I/O."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from .._signatures import hmac_hex
from ..exceptions import AuthenticationError
from ._app import App
from ._frames import text_frame
from ._journal import Event, Journal, parsed
from ._wire import decode, php_array, php_comparable, php_encode, php_equals, php_key, php_string, php_true


class Subscriber(Protocol):
    """A client's connection, as its channels use it."""

    @property
    def socket_id(self) -> str: ...

    def send(self, encoded: bytes) -> None: ...

    def check_alive(self) -> None: ...

    def terminate(self) -> None: ...


class Channel:
    """A channel with at least one subscriber.

    ``members`` has the ``channel_data`` of each connection; Reverb keeps it for all types of channels. Cache
    channels keep the last event as ``cached_event``, and its frame as ``cached``.
    """

    def __init__(self, name: str, *, strict: bool = False) -> None:
        self.name = name
        self._strict = strict
        self.members: dict[Subscriber, dict[str, Any]] = {}
        self.cached: bytes | None = None
        self.cached_event: dict[str, Any] | None = None
        # Reverb requires the dash only in some of the prefixes.
        self.is_presence = name.startswith("presence")
        self.is_cache = name.startswith(("cache", "private-cache-", "presence-cache-"))
        self._connections: Counter[Hashable] = Counter()  # by user

    def join(self, subscriber: Subscriber, user: dict[str, Any]) -> None:
        """Add a connection, or change its user. Tell the other members of a presence channel."""
        is_new = self.is_presence and not self._has_user(user.get("user_id"))
        if subscriber in self.members:
            self._count(self.members[subscriber], -1)
        self.members[subscriber] = user
        self._count(user, 1)
        if is_new:
            added = {name: php_array(value) for name, value in user.items()}
            self._send(self._internal("member_added", added), except_for=subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a connection. Tell the other members if it was the user's last one."""
        user = self.members.pop(subscriber)
        self._count(user, -1)
        user_id = user.get("user_id")
        # Reverb takes the user "0" for no user: it does not tell the others that the user left.
        if self.is_presence and php_true(user_id) and not self._has_user(user_id):
            self._send(self._internal("member_removed", {"user_id": user_id}))

    def broadcast(self, message: dict[str, Any], *, except_for: Subscriber | None = None) -> None:
        """Send an event to all subscribers. A cache channel keeps it."""
        encoded = text_frame(message)
        if self.is_cache:
            self.cached, self.cached_event = encoded, message
        self._send(encoded, except_for=except_for)

    def confirm(self, subscriber: Subscriber) -> None:
        """Confirm a subscription; raise ValueError if a presence channel has a member without ``user_info``."""
        subscriber.send(self._internal("subscription_succeeded", self._presence() if self.is_presence else {}))
        if self.is_cache:
            cache_miss = {"event": "pusher:cache_miss", "channel": self.name}
            subscriber.send(self.cached or text_frame(cache_miss))

    def users(self) -> list[dict[str, Any]]:
        """Return the data of each user once, as the user's first connection sent it."""
        return list(_unique(self.members.values()).values())

    def _presence(self) -> dict[str, Any]:
        users = self.users()
        if any(user.get("user_id") is None for user in users):
            return {"presence": {"count": 0, "ids": [], "hash": []}}
        if not all("user_info" in user for user in users):
            raise ValueError("a member has no user_info")
        ids = [user["user_id"] for user in users]
        infos = {php_key(user["user_id"]): user["user_info"] for user in users}
        return {"presence": {"count": len(ids), "ids": ids, "hash": php_array(infos)}}

    def _count(self, user: dict[str, Any], change: int) -> None:
        key = php_comparable(php_string(user.get("user_id")))
        self._connections[key] += change
        if not self._connections[key]:
            del self._connections[key]

    def _has_user(self, user_id: Any) -> bool:
        wanted = php_string(user_id)
        return php_true(wanted) and php_comparable(wanted) in self._connections

    def _internal(self, event: str, data: dict[str, Any]) -> bytes:
        message = {"event": f"pusher_internal:{event}", "data": php_encode(data), "channel": self.name}
        if self._strict and not data:
            del message["data"]
        if event == "subscription_succeeded":
            # PHP's array_filter drops values that count as false.
            message = {name: value for name, value in message.items() if php_true(value)}
        return text_frame(message)

    def _send(self, encoded: bytes, *, except_for: Subscriber | None = None) -> None:
        for subscriber in self.members:
            if subscriber is not except_for:
                subscriber.send(encoded)


def _unique(users: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the first data of each user, by their number, as PHP's ``unique`` does."""
    found = {}
    seen: set[Hashable] = set()
    for number, user in enumerate(users):
        names, equals = php_equals(user.get("user_id"))
        if seen.isdisjoint(equals):
            seen |= names
            found[str(number)] = user
    return found


class Channels:
    """The channels with subscribers of one application on one node.

    ``journal`` records what happens to them. Nobody may subscribe to the channels in ``denied``. ``strict`` leaves
    out the peculiarities of Reverb.
    """

    def __init__(self, app: App, journal: Journal, denied: Collection[str] = (), *, strict: bool = False) -> None:
        self.app = app
        self.nodes: Sequence[Channels] = (self,)
        """This and the channels of the other nodes, with scaling. Events reach all nodes; each has its own
        members."""
        self.fail: Callable[[], None] | None = None
        """Ends the process of this node, with scaling."""
        self.journal = journal
        self.strict = strict
        self._denied = denied
        self._channels: dict[str, Channel] = {}
        self._joined: dict[Subscriber, dict[str, None]] = {}
        self._subscribers: dict[str, Subscriber] = {}

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels.values())

    def get(self, name: str) -> Channel | None:
        return self._channels.get(name)

    def users(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the data of each user on a channel of all nodes, by number.

        As in Reverb, numbers are missing if a user is on several nodes.
        """
        found = [channel for channels in self.nodes if (channel := channels.get(name)) is not None]
        return _unique(user for channel in found for user in channel.users())

    def members(self, name: str) -> Collection[Subscriber]:
        """Return the connections that are subscribed to a channel."""
        channel = self._channels.get(name)
        return () if channel is None else channel.members

    def subscribers(self) -> list[Subscriber]:
        """Return every connection with a subscription, once."""
        return list(self._joined)

    def subscriber(self, socket_id: str | None) -> Subscriber | None:
        """Return the connection with this socket id, if it has a subscription."""
        return None if socket_id is None else self._subscribers.get(socket_id)

    def users_by_connection(self) -> dict[Subscriber, dict[str, Any]]:
        """Return the user data of every connection with a subscription.

        The order is that of Reverb: by the age of channels, then of subscriptions. For a connection on several
        channels, it is the data for the first channel; if ``strict``, for the first channel with a user id.
        """
        found: dict[Subscriber, dict[str, Any]] = {}
        for channel in self:
            for subscriber, user in channel.members.items():
                known = found.setdefault(subscriber, user)
                if self.strict and "user_id" not in known:
                    found[subscriber] = user
        return found

    def of(self, subscriber: Subscriber) -> list[str]:
        """Return the names of the channels that a connection is subscribed to."""
        return list(self._joined.get(subscriber, ()))

    def subscribe(self, subscriber: Subscriber, name: str, auth: str, channel_data: str) -> None:
        """Subscribe a connection, and confirm it.

        Raises ValueError for data that PHP cannot read, and AuthenticationError for a wrong signature. As in
        Reverb, ``channel_data`` is parsed before the signature is checked. If the confirmation fails because a
        ``user_info`` is missing, the connection is subscribed anyway.
        """
        user = decode(channel_data) if channel_data.strip() else {}
        if name in self._denied:
            raise AuthenticationError(f"{name!r} is denied")
        if name.startswith(("private", "presence")):
            self._verify(subscriber, name, auth, channel_data)
        if not php_true(channel_data) or user == []:
            user = {}
        if not isinstance(user, dict):
            raise ValueError("channel_data is not an object")
        php_string(user.get("user_id"))
        channel = self._channels.setdefault(name, Channel(name, strict=self.strict))
        self._joined.setdefault(subscriber, {})[name] = None
        self._subscribers[subscriber.socket_id] = subscriber
        channel.join(subscriber, user)
        as_whom = f" as {user['user_id']!r}" if channel.is_presence and "user_id" in user else ""
        self.journal.note(f"subscribed to {name}{as_whom}", subscriber.socket_id)
        channel.confirm(subscriber)

    def unsubscribe(self, subscriber: Subscriber, name: str) -> None:
        joined = self._joined.get(subscriber, {})
        if name not in joined:
            return
        del joined[name]
        if not joined:
            del self._joined[subscriber], self._subscribers[subscriber.socket_id]
        self.journal.note(f"left {name}", subscriber.socket_id)
        channel = self._channels[name]
        channel.leave(subscriber)
        if not channel.members:
            del self._channels[name]

    def unsubscribe_from_all(self, subscriber: Subscriber) -> None:
        for name in self.of(subscriber):
            self.unsubscribe(subscriber, name)

    def publish(self, names: Iterable[str], message: dict[str, Any], *, excluded: str | None = None) -> None:
        """Send an event to channels, except to the connection with the socket id ``excluded``.

        Each channel gets ``message`` with its own name.
        """
        event, text = message["event"], message["data"]
        data, except_for = parsed(text), self.subscriber(excluded)
        for name in names:
            noted = Event(name, event, data, excluded=excluded)
            self.journal.note_event(noted, len(name) + len(event) + len(text))
            self.broadcast(name, {**message, "channel": name}, except_for=except_for)

    def broadcast(self, name: str, message: dict[str, Any], *, except_for: Subscriber | None) -> None:
        """Send an event to a channel on all nodes."""
        for channels in self.nodes:
            channel = channels.get(name)
            if channel is not None:
                channel.broadcast(message, except_for=except_for)

    def info(self, name: str, wanted: Collection[str]) -> dict[str, Any]:
        """Return the channel's attributes that ``wanted`` names, of all nodes, as the HTTP API reports them.

        As in Reverb, a user on two nodes counts twice.
        """
        found: dict[str, Any] = {}
        for channels in self.nodes:
            for attribute, value in channels.info_here(name, wanted).items():
                known = found.get(attribute)
                if attribute.endswith("_count"):
                    found[attribute] = value + (known or 0)
                else:
                    found[attribute] = known or value
        return found

    def info_here(self, name: str, wanted: Collection[str]) -> dict[str, Any]:
        """Return the same for this node only."""
        channel = self._channels.get(name)
        attributes: dict[str, Any] = {"occupied": channel is not None}
        if channel is not None and channel.is_presence:
            if "user_count" in wanted:
                attributes["user_count"] = len(channel.users())
        elif channel is not None:
            attributes["subscription_count"] = len(channel.members)
        if channel is not None and channel.cached_event is not None:
            attributes["cache"] = channel.cached_event
        return {attribute: value for attribute, value in attributes.items() if attribute in wanted}

    def _verify(self, subscriber: Subscriber, name: str, auth: str, channel_data: str) -> None:
        # Reverb checks the signature after the first colon, but not the key before it.
        given = auth.partition(":")[2] if ":" in auth else auth
        signed = f"{subscriber.socket_id}:{name}" + (f":{channel_data}" if php_true(channel_data) else "")
        if not hmac.compare_digest(hmac_hex(self.app.secret, signed.encode()).encode(), given.encode()):
            raise AuthenticationError(f"wrong signature for {name!r}")
