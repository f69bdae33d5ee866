"""The names of events and states that the protocol and this client define."""

from __future__ import annotations

from enum import Enum

__all__ = ["ConnectionState", "Events"]


class Events(str, Enum):
    """Event names to bind handlers to. Each member is a ``str`` that equals the name on the wire.

    Names that start with ``pusher:`` or ``pusher_internal:`` come from the server. Names that start with
    ``reverb:`` come from this client; no server sends them.
    """

    CONNECTION_ESTABLISHED = "pusher:connection_established"
    """The server accepted the connection: ``{"socket_id", "activity_timeout"}``. Comes on each connection."""
    SUBSCRIPTION_SUCCEEDED = "pusher_internal:subscription_succeeded"
    """The server confirmed the subscription to a channel. Comes again after each reconnect. On a presence channel
    the data has the members."""
    CACHE_MISS = "pusher:cache_miss"
    """A cache channel has no event to deliver. Comes after the subscription, without data."""
    MEMBER_ADDED = "pusher_internal:member_added"
    """A user joined a presence channel: ``{"user_id", "user_info"}``."""
    MEMBER_REMOVED = "pusher_internal:member_removed"
    """A user left a presence channel: ``{"user_id", "user_info"}``."""
    SUBSCRIPTION_COUNT = "pusher_internal:subscription_count"
    """How many connections are subscribed to the channel: ``{"subscription_count"}``; see
    :attr:`Channel.subscription_count`."""
    SIGNIN_SUCCESS = "pusher:signin_success"
    """The server confirmed the sign-in of the user: ``{"user_data"}``, parsed; see :meth:`ReverbClient.signin`."""
    WATCHLIST_ONLINE = "reverb:watchlist_online"
    """Users on the watchlist came online: ``{"user_ids"}``, a list of strings. Bind it with :meth:`User.bind`."""
    WATCHLIST_OFFLINE = "reverb:watchlist_offline"
    """Users on the watchlist went offline: ``{"user_ids"}``, a list of strings. Bind it with :meth:`User.bind`."""
    ERROR = "pusher:error"
    """The server refused a message of the client: ``{"code", "message"}``."""
    CLIENT_ERROR = "reverb:error"
    """An error in the client: ``{"message", "code", "exception"}``; see :meth:`ReverbClient.bind`."""
    STATE_CHANGE = "reverb:state_change"
    """The state of the connection changed: ``{"previous", "current"}``, two :class:`ConnectionState`."""
    RECONNECTED = "reverb:reconnected"
    """The client has reconnected: ``{"downtime", "attempts"}``, the seconds without a connection and the number of
    attempts. It has sent the subscribes for all channels again. The server does not send again the events that
    were published meanwhile."""

    RESUBSCRIBED = "reverb:resubscribed"
    """A channel is subscribed again after a reconnect: ``{"downtime"}``, the seconds for which it was not
    subscribed. Comes between the last event before the gap and the first event after it."""
    EVENTS_DROPPED = "reverb:events_dropped"
    """**Events are lost.** More events of a channel waited for its handlers than ``max_pending`` allows, so the
    client dropped the oldest: ``{"count"}``. Comes where they are missing; see :meth:`ReverbClient.subscribe`."""

    CHANNEL_FOUND = "reverb:channel_found"
    """A channel has a subscriber, and the client follows it from now on: ``{"channel"}``. Comes before the
    channel's own events; see :meth:`ReverbClient.discover`."""
    CHANNEL_LEFT = "reverb:channel_left"
    """The client no longer follows a channel that it had found: ``{"channel"}``."""

    def __str__(self) -> str:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


class ConnectionState(str, Enum):
    """The state of the connection, with the names of pusher-js. Each member is a ``str``."""

    INITIALIZED = "initialized"
    """``connect()`` was not called yet."""
    CONNECTING = "connecting"
    """The client is connecting, for the first time or again."""
    CONNECTED = "connected"
    """The client is connected."""
    UNAVAILABLE = "unavailable"
    """The client is still trying to connect, for more than 10 seconds now."""
    DISCONNECTED = "disconnected"
    """Not connected and not trying to connect: after ``disconnect()``, or after a first attempt that failed."""
    FAILED = "failed"
    """The server refused the connection, or it was lost and the client has given up. ``listen()`` raises the
    reason."""

    def __str__(self) -> str:
        return self.value
