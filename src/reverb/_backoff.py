"""Computes delays before the next attempt. Pure: no clock, no task, no I/O."""

from __future__ import annotations

import random

from ._protocol import Action


class Backoff:
    """Delays between attempts: random, between ``least`` seconds and a limit that doubles up to ``most``.

    The first limit is twice ``least``. Delays are random because many clients lose their connections at the same
    moment, and must not all reconnect at the same moment. ``python -m bench.fleet`` compares this with other
    methods.
    """

    def __init__(self, least: float, most: float, rng: random.Random | None = None) -> None:
        self.attempts = 0
        """Attempts since the last :meth:`restart`."""
        self._least = least
        self._most = most
        self._uniform = random.uniform if rng is None else rng.uniform
        self._retried_now = False

    def restart(self) -> None:
        """Start again with short delays, after a success."""
        self.attempts = 0
        self._retried_now = False

    def delay(self, action: Action) -> float:
        """Count an attempt, and return the seconds to wait before it.

        That is 0 for ``RETRY_NOW``, but only once before the next :meth:`restart`.
        """
        self.attempts += 1
        if action is Action.RETRY_NOW and not self._retried_now:
            self._retried_now = True
            return 0.0
        limit = min(self._most, self._least * 2 ** min(self.attempts, 64))
        return self._uniform(self._least, limit)
