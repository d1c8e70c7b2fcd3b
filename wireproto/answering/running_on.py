"""Handlers that run on behind the end of their call, on one connection: how many there are, and who waits for one.

A call counts among those in flight until its terminal frame and no longer, so that a client can count them. CANCEL or a
deadline ends it while its handler still runs, so starting and cancelling would get any number of handlers running. So
there may be as many of them as calls in flight; the end of one more waits until one is back, and keeps its place.
"""

from typing import Generic, TypeVar

from wireproto.errors import CallError

__all__ = ["RunningOn"]

C = TypeVar("C")


class RunningOn(Generic[C]):
    """Counts them. Not thread-safe: its session holds a lock.

    Args:
        most: how many there may be.
    """

    __slots__ = ("_most", "_running", "_waiting")

    def __init__(self, most: int) -> None:
        self._most: float = most
        self._running = 0
        self._waiting: dict[C, CallError] = {}

    def may_end(self, call: C, error: CallError) -> bool:
        """Whether a call whose handler runs may end now, with this error; else its end waits for ``back``."""
        if self._running >= self._most:
            self._waiting[call] = error
            return False
        self._running += 1
        return True

    def back(self, call: C) -> tuple[C, CallError] | None:
        """The handler of such a call is back: the call that ends now, with its error. That is the very call, if its own
        end waited.
        """
        own = self._waiting.pop(call, None)
        if own is not None:
            return call, own
        self._running -= 1
        for waiting, error in self._waiting.items():
            del self._waiting[waiting]
            self._running += 1
            return waiting, error
        return None

    def let_all_end(self) -> list[tuple[C, CallError]]:
        """The connection ends: no call waits any more. Those that do, with their errors."""
        self._most = float("inf")
        waiting = list(self._waiting.items())
        self._waiting.clear()
        self._running += len(waiting)
        return waiting
