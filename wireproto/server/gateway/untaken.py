"""Answers that a connection has not taken. A caller who asks for more than it reads waits, as on the TCP door.

Over TCP a connection whose output is beyond ``high_watermark`` is not read until that is taken. gRPC's core reads on,
so here its calls are kept: none of them is read, nor run, before enough was taken.
"""

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["SMALL", "Untaken"]

SMALL = 4096
"""Bytes of an answer that is not counted: of the calls that a connection may have at once, 256, they are a mebibyte."""

AT_ONCE = 2
"""Calls that go on for each one that is over, so that what waits is soon under way again and never all at once."""


class Untaken:
    """Thread-safe; calls go on without its lock.

    Args:
        most: bytes of answers of a connection; beyond it its further calls wait.

    Attributes:
        waits: some call does.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._bytes: dict[str, int] = {}
        self._waiting: dict[str, deque[Callable[[], bool]]] = {}
        self.waits = False

    def hand(self, peer: str, size: int) -> None:
        """An answer of so many bytes is on its way to a connection."""
        with self._lock:
            self._bytes[peer] = self._bytes.get(peer, 0) + size

    def keeps(self, peer: str, go_on: Callable[[], bool]) -> bool:
        """Whether a call of the connection has to wait; then it goes on by this, which says whether it still could."""
        if not self._bytes:
            return False
        with self._lock:
            if self._bytes.get(peer, 0) <= self._most:
                return False
            self._waiting.setdefault(peer, deque()).append(go_on)
            self.waits = True
        return True

    def over(self, peer: str, size: int) -> None:
        """A call of the connection is over, and its answer of so many bytes is taken, or nobody's any more."""
        if size:
            with self._lock:
                left = self._bytes.get(peer, 0) - size
                if left > 0:
                    self._bytes[peer] = left
                else:
                    self._bytes.pop(peer, None)
        went = 0
        while went < AT_ONCE and (go_on := self._next(peer)) is not None:
            went += go_on()

    def _next(self, peer: str) -> Callable[[], bool] | None:
        with self._lock:
            waiting = self._waiting.get(peer)
            if waiting is None or self._bytes.get(peer, 0) > self._most:
                return None
            go_on = waiting.popleft()
            if not waiting:
                del self._waiting[peer]
                self.waits = bool(self._waiting)
            return go_on
