"""How many calls of a kind somebody may have at a time."""

import threading
from collections import Counter

__all__ = ["NetworkShares", "Shares"]


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


class NetworkShares:
    """Counts the calls of each network, and of each connection within it. Thread-safe.

    A connection may have half of what its network may have; while no other one of the network has any, all but an
    eighth: what is left lets another one in, and from then on the first one begins none before it is below its half.

    Args:
        most: calls that a network may have at a time.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._networks: dict[str, Counter[str]] = {}

    def enter(self, network: str, connection: str) -> bool:
        """Count one more; False when that is too many, and it is not counted."""
        with self._lock:
            counts = self._networks.setdefault(network, Counter())
            own, total = counts[connection], counts.total()
            allowed = self.most - self.most // 8 if own == total else max(1, self.most // 2)
            if total >= self.most or own >= allowed:
                return False
            counts[connection] += 1
            return True

    def leave(self, network: str, connection: str) -> None:
        """One that was counted is over."""
        with self._lock:
            counts = self._networks[network]
            counts[connection] -= 1
            if not counts[connection]:
                del counts[connection]
            if not counts:
                del self._networks[network]
