"""Calls of which somebody may have so many at a time, and the rest wait for their turn."""

import threading
from collections import deque
from typing import Protocol

__all__ = ["Turns", "WaitsForTurn"]


class WaitsForTurn(Protocol):
    """A call that waits."""

    def take_turn(self) -> bool:
        """It has a place now; False when it has no use for it any more."""


class Turns:
    """Counts the calls of each connection, and keeps those that are too many, first come, first served. Thread-safe.

    What waits is bounded by whoever counts the calls in flight of a connection.

    Args:
        most: calls that one may have at a time.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._waiting: dict[str, deque[WaitsForTurn]] = {}

    def enter(self, who: str, call: WaitsForTurn) -> bool:
        """Count one more; False when that is too many, and then it waits, and is told when it is its turn."""
        with self._lock:
            count = self._counts.get(who, 0)
            if count < self.most:
                self._counts[who] = count + 1
                return True
            self._waiting.setdefault(who, deque()).append(call)
            return False

    def withdraw(self, who: str, call: WaitsForTurn) -> None:
        """A call waits no longer; nothing happens if it did not."""
        with self._lock:
            waiting = self._waiting.get(who)
            if waiting is not None and call in waiting:
                waiting.remove(call)
                if not waiting:
                    del self._waiting[who]

    def leave(self, who: str) -> None:
        """One that had a place is over: the next one has it, whose turn begins on this thread."""
        while (following := self._following(who)) is not None:
            if following.take_turn():
                return

    def _following(self, who: str) -> WaitsForTurn | None:
        """Who has the place; None when it is free."""
        with self._lock:
            waiting = self._waiting.get(who)
            if waiting:
                call = waiting.popleft()
                if not waiting:
                    del self._waiting[who]
                return call
            self._counts[who] -= 1
            if not self._counts[who]:
                del self._counts[who]
            return None
