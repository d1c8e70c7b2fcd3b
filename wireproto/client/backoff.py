"""How long to wait before a lost connection is tried again."""

import random
import time
from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Exponential back-off with full jitter: a uniformly random part of a ceiling that doubles with each failure.

    The jitter is what keeps thousands of clients from coming back in step when a server restarts. Not thread-safe; a
    client uses it under the lock that lets one thread at a time connect.

    Args:
        first: seconds, the ceiling after one failure.
        most: seconds, the highest ceiling. Of 5 s a server that is back is found again 2.5 s later on average.
        clock: a monotonic clock in seconds.
        chance: a function of random numbers from 0 to 1.

    Attributes:
        first, most: as given.
    """

    def __init__(
        self,
        first: float = 0.5,
        most: float = 5.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.first = first
        self.most = most
        self._clock = clock
        self._chance = chance
        self._ceiling = 0.0
        self._until = 0.0

    def failed(self) -> None:
        """Note that a connection could not be had, or was lost before it was of any use."""
        self._ceiling = min(self._ceiling * 2 or self.first, self.most)
        self._until = self._clock() + self._chance() * self._ceiling

    def reset(self) -> None:
        """Note that a connection worked: the next loss is tried again at once."""
        self._ceiling = self._until = 0.0

    def remaining(self) -> float:
        """Seconds until the next attempt is due; 0.0 when it is."""
        return max(0.0, self._until - self._clock()) if self._ceiling else 0.0
