"""A token bucket: a steady rate and a burst on top of it."""

import time

__all__ = ["Bucket"]


class Bucket:
    """Holds ``burst`` tokens at most and gains ``rate`` a second. Not thread-safe: its owner holds a lock."""

    __slots__ = ("_burst", "_rate", "_then", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._then = time.monotonic()

    def take(self) -> bool:
        """Take one token; False when there is none, that is when the caller went over the rate."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
        self._then = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
