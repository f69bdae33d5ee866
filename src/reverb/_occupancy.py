"""Which occupied channels to follow: decided from what a server tells, without I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from . import _protocol

_EMPTY_POLLS = 3
"""Polls in a row that must find nobody else on a channel before it is left. A page that is loaded again is away
for a moment, and so are all clients when a server restarts."""


class Choice(NamedTuple):
    """What to do."""

    take: list[str]
    """Channels to subscribe to."""
    leave: list[str]
    """Channels to unsubscribe from."""


class Chooser:
    """Chooses among the occupied channels those whose names begin with ``prefix`` and fit no pattern of
    ``exclude``; presence channels only with ``presence``, because others see who is on them."""

    def __init__(self, prefix: str = "", exclude: Iterable[str] = (), *, presence: bool = False) -> None:
        self.prefix = prefix
        self._exclude = tuple(exclude)
        self._presence = presence
        self._empty: dict[str, int] = {}
        """In how many polls in a row there was nobody but us."""

    def choose(
        self, occupied: Mapping[str, int | None], ours: Mapping[str, int], others: Collection[str] = ()
    ) -> Choice:
        """Decide after a poll.

        ``occupied`` has the channels on which somebody is, and how many are; None where the server does not tell.
        ``ours`` has the channels that were taken, and how many of their subscribers are our own: 0 for one that is
        not subscribed yet, more than 1 for one that other processes of ours have taken, too. ``others`` are
        channels that are neither to be taken nor to be left.

        A channel with as many subscribers as are ours is empty. Without a count nobody can tell, so the channel
        is kept.
        """
        empty = [name for name, own in ours.items() if _is_empty(occupied.get(name, 0), own)]
        self._empty = {name: self._empty.get(name, 0) + 1 for name in empty}
        return Choice(
            [name for name in occupied if name not in ours and name not in others and self._wants(name)],
            [name for name, polls in self._empty.items() if polls >= _EMPTY_POLLS and name not in others],
        )

    def _wants(self, name: str) -> bool:
        if not name.startswith(self.prefix) or name.startswith(
            "#"
        ):  # those of users, which nobody can subscribe to
            return False
        if _protocol.is_presence(name) and not self._presence:
            return False
        return not any(fnmatchcase(name, pattern) for pattern in self._exclude)


def _is_empty(count: int | None, own: int) -> bool:
    return count is not None and count <= own
