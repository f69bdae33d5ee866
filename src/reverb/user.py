"""The user of a connection, and the events that the server sends to this user only."""

from __future__ import annotations

from ._core import Core
from .bindable import Bindable
from .stream import Buffer

__all__ = ["User"]


class User(Bindable):
    """The user of a :class:`ReverbClient`; get it from :attr:`ReverbClient.user`. It has no id until
    :meth:`ReverbClient.signin`.

    Its handlers get the events for this user. Their ``channel`` is ``#server-to-user-`` and the id. Handlers of
    ``Events.WATCHLIST_ONLINE`` and ``Events.WATCHLIST_OFFLINE`` learn which users of the ``watchlist`` in
    ``user_data`` came or left.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._record = core.user
        self._queue = core.user.queue

    @property
    def id(self) -> str | None:
        """The id of the user, from the signed ``user_data``. None before the first sign-in."""
        return self._record.id

    @property
    def is_signed_in(self) -> bool:
        """Whether the server has confirmed the sign-in on the present connection."""
        return self._record.is_signed_in

    def _new_buffer(self, size: int) -> Buffer:
        return self._core.streams.new(size, None, self._queue)

    def __repr__(self) -> str:
        return f"<User {self.id!r} {'signed in' if self.is_signed_in else 'not signed in'}>"
