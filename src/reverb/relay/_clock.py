"""An estimate of the engine's clock. Pure: callers pass the monotonic time."""

from __future__ import annotations

_DRIFT = 0.001
"""The largest difference in speed of two clocks: one millisecond per second."""
_STEP = 100
"""Milliseconds. A correction that is larger than this also corrects the times that were read before."""


class EngineClock:
    """Estimates the engine's time between two answers of the engine.

    The estimate goes backwards only by a step that :meth:`adjust` returns. The engine read its clock at some time
    between the request and the answer, so the fastest answer is the most exact one.
    """

    def __init__(self, offset: int) -> None:
        self._offset = offset
        """Milliseconds between the monotonic clock and the engine's clock; a guess before the first answer."""
        self._error = float("inf")
        self._read_at = 0.0
        self._latest = 0

    def at(self, monotonic: float) -> int:
        """Return the engine's time in milliseconds since 1970, at a time of the monotonic clock in seconds."""
        self._latest = max(self._latest, int(monotonic * 1000) + self._offset)
        return self._latest

    def adjust(self, said: int, asked: float, answered: float) -> int:
        """Take a time from an answer of the engine.

        Return the milliseconds to add to times that were read before; 0 if the correction is small."""
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
