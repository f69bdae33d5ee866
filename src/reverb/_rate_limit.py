"""Learns how many subscribes a server takes, from its rate limit. Pure: callers pass the time."""

from __future__ import annotations

from collections import deque
from math import inf

_LONGEST_PERIOD = 60.0
"""Seconds for which subscribes before the first refusal are assumed to count: Reverb's default."""
_MOST_REMEMBERED = 10_000


class RateLimiter:
    """Says when the next subscribe may be sent.

    Without a limit, that is at once. When the server refuses a subscribe because of its rate limit, single ones
    are tried, after delays that double from ``least`` to ``most`` seconds, until the server takes one. From then
    on no more are sent in a period than the server took in such a period, so that the limit is not reached again.
    (If that period was longer than the server's, the limit may be reached again, and then fewer are sent.)
    """

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self._limit = inf
        """Number of subscribes that the server takes in one period."""
        self._period = _LONGEST_PERIOD
        """Length of the period, in seconds."""
        self.connected()

    def connected(self) -> None:
        """There is a new connection, for which the server counts from zero."""
        self._taken: deque[float] = deque(maxlen=_MOST_REMEMBERED)
        """When the subscribes were sent that the server has taken."""
        self._open = 0
        """Number of subscribes that are sent and not answered."""
        self._delay = 0.0
        """Seconds before the next trial; 0 while the server takes subscribes."""
        self._next_trial = 0.0
        self._limited_since = 0.0
        """When the first subscribe was sent that counts."""

    @property
    def is_limited(self) -> bool:
        return self._limit < inf

    def wait(self, now: float) -> float:
        """Return the seconds until the next may be sent: 0 for now, ``inf`` for when another one is answered."""
        if not self.is_limited:
            return 0.0
        if self._delay:
            return inf if self._open else max(0.0, self._next_trial - now)
        while self._taken and self._taken[0] + self._period <= now:
            self._taken.popleft()
        if len(self._taken) + self._open < self._limit:
            return 0.0
        return self._taken[0] + self._period - now if self._taken else inf

    def sent(self) -> None:
        """A subscribe is sent. Exactly one of the next three methods has to follow."""
        self._open += 1

    def taken(self, sent_at: float, now: float) -> None:
        """The server confirmed it, or refused it for another reason than the rate limit."""
        self._open -= 1
        self._taken.append(sent_at)
        if self._delay:
            self._period = max(now - self._limited_since, self._least)
            self._delay = 0.0

    def refused(self, sent_at: float, now: float) -> None:
        """The server refused it because of the rate limit."""
        self._open -= 1
        if self._delay and sent_at < self._next_trial:
            return  # sent before the limit was known
        if not self._delay:
            counted = [each for each in self._taken if each > now - self._period]
            self._limit = max(1, min(self._limit, len(counted)))
            self._limited_since = counted[0] if counted else sent_at
        self._delay = min(self._most, self._delay * 2 or self._least)
        self._next_trial = now + self._delay

    def dropped(self) -> None:
        """Nobody wants to know any more whether the server takes it."""
        self._open -= 1
