"""How many calls of a kind somebody may have at a time."""

import threading
from collections import Counter

__all__ = ["Shares"]


class Shares:
    """Counts the calls of each, who may be a network or a connection. Thread-safe.

    Args:
        most: calls that one may have at a time.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def enter(self, who: str) -> bool:
        """Count one more; False when that is too many, and it is not counted."""
        with self._lock:
            if self._counts[who] >= self.most:
                return False
            self._counts[who] += 1
            return True

    def leave(self, who: str) -> None:
        """One that was counted is over."""
        with self._lock:
            self._counts[who] -= 1
            if not self._counts[who]:
                del self._counts[who]
