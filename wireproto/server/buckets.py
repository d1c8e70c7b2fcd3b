"""Token buckets: a steady rate and a burst on top of it, for what a peer must not do too often."""

import time
from typing import Literal

from wireproto.limits import Limits

__all__ = ["Bucket", "Budget"]


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


class Budget:
    """What one connection may still do of each thing that is cheap for a peer and not for us; made when it is first
    done.

    Not thread-safe: its session holds a lock.
    """

    __slots__ = ("_buckets", "_limits")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: dict[str, Bucket] | None = None

    def take(self, what: Literal["cancels", "errors", "pings"]) -> bool:
        """Count one more; False when it is one too many, and the connection is to end."""
        if self._buckets is None:
            self._buckets = {}
        bucket = self._buckets.get(what)
        if bucket is None:
            limits = self._limits
            rate, burst = {
                "cancels": (limits.cancels_per_second, limits.cancel_burst),
                "errors": (limits.errors_per_minute / 60, limits.errors_per_minute),
                "pings": (limits.pings_per_second, limits.ping_burst),
            }[what]
            bucket = self._buckets[what] = Bucket(rate, burst)
        return bucket.take()
