"""Decides which occupied channels to follow. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from . import _protocol

_EMPTY_POLLS = 3
"""Number of polls in a row that must find nobody else on a channel before it is left. A page that reloads is
away for a moment, and so are all clients when a server restarts."""


class Choice(NamedTuple):
    """What to do after a poll."""

    take: list[str]
    """Channels to subscribe to."""
    leave: list[str]
    """Channels to unsubscribe from."""


class Chooser:
    """Chooses among the occupied channels.

    It takes those whose names begin with ``prefix`` and match no pattern in ``exclude``. It takes presence
    channels only with ``presence``, because other members see who is there.
    """

    def __init__(self, prefix: str = "", exclude: Iterable[str] = (), *, presence: bool = False) -> None:
        self.prefix = prefix
        self._exclude = tuple(exclude)
        self._presence = presence
        self._empty: dict[str, int] = {}
        """In how many polls in a row nobody but us was on a channel."""

    def choose(
        self, occupied: Mapping[str, int | None], ours: Mapping[str, int], others: Collection[str] = ()
    ) -> Choice:
        """Decide after a poll.

        ``occupied`` has the channels with subscribers and their number; None if the server does not count.
        ``ours`` has the channels that were taken and how many of their subscribers are our own: 0 if it is not
        subscribed yet, more than 1 if other processes of ours have taken it, too. Channels in ``others`` are
        neither taken nor left.

        A channel is empty if all its subscribers are ours. Without a count that is unknown, and the channel is
        kept.
        """
        empty = [name for name, own in ours.items() if _is_empty(occupied.get(name, 0), own)]
        self._empty = {name: self._empty.get(name, 0) + 1 for name in empty}
        return Choice(
            [name for name in occupied if name not in ours and name not in others and self._wants(name)],
            [name for name, polls in self._empty.items() if polls >= _EMPTY_POLLS and name not in others],
        )

    def _wants(self, name: str) -> bool:
        if not name.startswith(self.prefix):
            return False
        if name.startswith("#"):  # the channel of a user, which nobody can subscribe to
            return False
        if _protocol.is_presence(name) and not self._presence:
            return False
        return not any(fnmatchcase(name, pattern) for pattern in self._exclude)


def _is_empty(count: int | None, own: int) -> bool:
    return count is not None and count <= own
