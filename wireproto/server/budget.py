"""What a peer may do of each thing that is cheap for it and not for us."""

import time
from typing import Literal

from wireproto.bucket import Bucket
from wireproto.limits import Limits

__all__ = ["Budget"]


class Budget:
    """What one connection may still do of each such thing; a bucket is made when a thing is first done.

    Not thread-safe: its session holds a lock.
    """

    __slots__ = ("_buckets", "_limits")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: dict[str, Bucket] | None = None

    def take(self, what: Literal["cancels", "errors", "pings"]) -> bool:
        """Count one more; False when it is one too many, and the connection is to end."""
        now = time.monotonic()
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
            bucket = self._buckets[what] = Bucket(rate, burst, now)
        return bucket.take(now)
