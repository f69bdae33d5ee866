"""The names of events and states that the protocol and this client define."""

from __future__ import annotations

from enum import Enum

__all__ = ["ConnectionState", "Events"]


class Events(str, Enum):
    """Event names to bind handlers to; each member is a plain ``str`` equal to its name on the wire.

    Names starting with ``pusher:`` and ``pusher_internal:`` come from the server. Names starting with ``reverb:``
    are made by this client and never travel.
    """

    CONNECTION_ESTABLISHED = "pusher:connection_established"
    SUBSCRIPTION_SUCCEEDED = "pusher_internal:subscription_succeeded"
    CACHE_MISS = "pusher:cache_miss"
    """A cache channel was subscribed that has no event to give; without data."""
    MEMBER_ADDED = "pusher_internal:member_added"
    MEMBER_REMOVED = "pusher_internal:member_removed"
    SUBSCRIPTION_COUNT = "pusher_internal:subscription_count"
    """How many connections are subscribed to the channel; see :attr:`Channel.subscription_count`."""
    SIGNIN_SUCCESS = "pusher:signin_success"
    """The server knows whose the connection is: ``{"user_data"}``, parsed; see :meth:`ReverbClient.signin`."""
    WATCHLIST_ONLINE = "reverb:watchlist_online"
    """Users on the watchlist came: ``{"user_ids"}``, a list of strings; bound with :meth:`User.bind`."""
    WATCHLIST_OFFLINE = "reverb:watchlist_offline"
    """Users on the watchlist have left: ``{"user_ids"}``."""
    ERROR = "pusher:error"
    """The server has something against what was sent: ``{"code", "message"}``."""
    CLIENT_ERROR = "reverb:error"
    """Something went wrong here: ``{"message", "code", "exception"}``; see :meth:`ReverbClient.bind`."""
    STATE_CHANGE = "reverb:state_change"
    """The state of the connection changed: ``{"previous", "current"}``, two :class:`ConnectionState`."""
    RECONNECTED = "reverb:reconnected"
    """The connection is back and every channel is asked for again: ``{"downtime", "attempts"}``, in seconds and
    connection attempts. What was published in between is not sent again by the server."""

    RESUBSCRIBED = "reverb:resubscribed"
    """A channel is subscribed again after a reconnect: ``{"downtime"}``, the seconds for which it was not. Comes
    between the last event before the gap and the first one after it."""
    EVENTS_DROPPED = "reverb:events_dropped"
    """Events of a channel were dropped, because more waited for its handlers than ``max_pending`` allows:
    ``{"count"}``. Comes in their place; see :meth:`ReverbClient.subscribe`."""

    CHANNEL_FOUND = "reverb:channel_found"
    """Somebody is on a channel, which is followed from now on: ``{"channel"}``. Comes before the channel's own
    events; see :meth:`ReverbClient.discover`."""
    CHANNEL_LEFT = "reverb:channel_left"
    """A channel that was found is followed no longer: ``{"channel"}``."""

    def __str__(self) -> str:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


class ConnectionState(str, Enum):
    """What the connection is doing, in the terms of pusher-js; each member is a plain ``str``."""

    INITIALIZED = "initialized"
    """Never asked to connect."""
    CONNECTING = "connecting"
    """On the way to the server, for the first time or again."""
    CONNECTED = "connected"
    UNAVAILABLE = "unavailable"
    """Still trying, but not back after 10 seconds."""
    DISCONNECTED = "disconnected"
    """Not connected and not trying: after ``disconnect()``, or a first attempt that failed."""
    FAILED = "failed"
    """Refused or lost for good; ``listen()`` raises the reason."""

    def __str__(self) -> str:
        return self.value
