"""The user that a connection belongs to, and the events that come for the user alone."""

from __future__ import annotations

from ._core import Core
from .bindable import Bindable
from .stream import Buffer

__all__ = ["User"]


class User(Bindable):
    """The user of a :class:`ReverbClient`, its attribute ``user``; nobody until :meth:`ReverbClient.signin`.

    Its handlers get the events that are sent to this user; their ``channel`` is ``#server-to-user-`` and the id.
    ``Events.WATCHLIST_ONLINE`` and ``Events.WATCHLIST_OFFLINE`` tell of the users in the ``watchlist`` of
    ``user_data``.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._inbox = core.user
        self._lane = core.user.lane

    @property
    def id(self) -> str | None:
        """The user's id, as the signed ``user_data`` has it; None before the first sign-in."""
        return self._inbox.id

    @property
    def is_signed_in(self) -> bool:
        """Whether the server has confirmed it, on the present connection."""
        return self._inbox.is_signed_in

    def _new_buffer(self, size: int) -> Buffer:
        return self._core.streams.new(size, None, self._lane)

    def __repr__(self) -> str:
        return f"<User {self.id!r} {'signed in' if self.is_signed_in else 'not signed in'}>"
