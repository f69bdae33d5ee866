"""The names of the events that the protocol and this client define."""

from __future__ import annotations

from enum import Enum

__all__ = ["Events"]


class Events(str, Enum):
    """Event names to bind handlers to; each member is a plain ``str`` equal to its name on the wire.

    Names starting with ``pusher:`` and ``pusher_internal:`` come from the server. Names starting with ``reverb:``
    are made by this client and never travel.
    """

    CONNECTION_ESTABLISHED = "pusher:connection_established"
    SUBSCRIPTION_SUCCEEDED = "pusher_internal:subscription_succeeded"
    MEMBER_ADDED = "pusher_internal:member_added"
    MEMBER_REMOVED = "pusher_internal:member_removed"
    ERROR = "pusher:error"

    def __str__(self) -> str:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)
