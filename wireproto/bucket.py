"""A token bucket: a steady rate and a burst on top of it, for what a peer must not do too often."""

__all__ = ["Bucket"]


class Bucket:
    """Holds ``burst`` tokens at first and at most, and gains ``rate`` a second. Its owner holds a lock.

    Args:
        rate: tokens a second.
        burst: tokens there are at most.
        now: by a monotonic clock in seconds, as in ``take``.
    """

    __slots__ = ("_burst", "_rate", "_then", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._then = now

    def take(self, now: float) -> bool:
        """Take one token; False when there is none, that is when the caller went over the rate."""
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
        self._then = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
