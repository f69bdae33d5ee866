"""The engine's clock, as a relay reads it. Pure: who asks says when."""

from __future__ import annotations

_DRIFT = 0.001
"""How far two clocks may run apart, at most: a millisecond in a second."""
_STEP = 100
"""Milliseconds; from here on what was read before is worth mending."""


class EngineClock:
    """Tells the engine's time between the answers that carry it. Goes backwards only by a step that
    :meth:`adjust` returns.

    An answer was made somewhere between its question and its arrival, so the one that came fastest is the most
    exact.
    """

    def __init__(self, offset: int) -> None:
        self._offset = offset
        """Milliseconds between the monotonic clock and the engine's; a guess before the first answer."""
        self._error = float("inf")
        self._read_at = 0.0
        self._latest = 0

    def at(self, monotonic: float) -> int:
        """The engine's time, in milliseconds since the epoch, when the monotonic clock says so many seconds."""
        self._latest = max(self._latest, int(monotonic * 1000) + self._offset)
        return self._latest

    def adjust(self, said: int, asked: float, answered: float) -> int:
        """Take an answer to a question; return by how much what was read before is wrong, if it matters."""
        error = (answered - asked) * 500
        offset = said - round((asked + answered) * 500)
        step = offset - self._offset
        outdated = self._error + (answered - self._read_at) * 1000 * _DRIFT
        if error > outdated and abs(step) <= error + outdated:
            return 0
        self._offset, self._error, self._read_at = offset, error, answered
        if abs(step) <= _STEP:
            return 0
        self._latest += step
        return step
