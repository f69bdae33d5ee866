"""How fast a server takes subscriptions, learned from its rate limit. Pure: whoever asks says what time it is."""

from __future__ import annotations

from collections import deque
from math import inf

_LONGEST_PERIOD = 60.0
"""Seconds for which what was taken before the first refusal is thought to count: Reverb's default."""
_MOST_REMEMBERED = 10_000


class Pace:
    """Says when the next subscription may be asked for.

    Without a limit that is at once. When the server refuses one because of its rate limit, single ones are tried,
    after delays that double from ``least`` to ``most`` seconds, until one is taken. From then on no more are asked
    for in a time than the server took in that time, so that the limit is not met again. (Where that time was
    longer than the server counts, it may be, and fewer are asked for after that.)
    """

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self._limit = inf
        """So many are taken …"""
        self._period = _LONGEST_PERIOD
        """… in so many seconds."""
        self.connected()

    def connected(self) -> None:
        """There is a new connection, for which a server counts anew."""
        self._taken: deque[float] = deque(maxlen=_MOST_REMEMBERED)
        """When those were asked for that the server has taken."""
        self._open = 0
        """How many were asked for and are not answered."""
        self._delay = 0.0
        """Seconds before the next trial; 0 while the server takes what is asked for."""
        self._next_trial = 0.0
        self._limited_since = 0.0
        """When that was asked for which counts first."""

    @property
    def is_limited(self) -> bool:
        return self._limit < inf

    def wait(self, now: float) -> float:
        """Seconds until the next may be asked for: 0 for now, ``inf`` for when another one is answered."""
        if not self.is_limited:
            return 0.0
        if self._delay:
            return inf if self._open else max(0.0, self._next_trial - now)
        while self._taken and self._taken[0] + self._period <= now:
            self._taken.popleft()
        if len(self._taken) + self._open < self._limit:
            return 0.0
        return self._taken[0] + self._period - now if self._taken else inf

    def asked(self) -> None:
        """One is asked for. Exactly one of the three methods below has to follow."""
        self._open += 1

    def taken(self, asked_at: float, now: float) -> None:
        """It was answered, with a yes or for another reason than the rate limit with a no."""
        self._open -= 1
        self._taken.append(asked_at)
        if self._delay:
            self._period = max(now - self._limited_since, self._least)
            self._delay = 0.0

    def refused(self, asked_at: float, now: float) -> None:
        """It was refused because of the rate limit."""
        self._open -= 1
        if self._delay and asked_at < self._next_trial:
            return  # one of those that were asked for before the limit was known
        if not self._delay:
            counted = [each for each in self._taken if each > now - self._period]
            self._limit = max(1, min(self._limit, len(counted)))
            self._limited_since = counted[0] if counted else asked_at
        self._delay = min(self._most, self._delay * 2 or self._least)
        self._next_trial = now + self._delay

    def dropped(self) -> None:
        """It is no longer of interest whether it is taken."""
        self._open -= 1
