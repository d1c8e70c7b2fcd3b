"""What is to be done at its time and not a sweep later: the deadlines of calls. No thread and no clock of its own.

A deadline that is further away than the next sweep needs no alarm: the sweep looks at every call and sets one for those
that are up before the sweep after it. So there are never more alarms than calls that came in a quarter of a second, a
call with a usual deadline costs one comparison, and while no deadline is near nobody wakes up for any.
"""

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Final

__all__ = ["GRAIN", "Alarms"]

GRAIN: Final = 0.004
"""Seconds between two looks at least: alarms that are due closer together are run together, each by so much late at the
most, so that a thousand deadlines a second do not wake the watchdog a thousand times."""


class Alarms:
    """Told the time, it says when the next alarm is due, and runs those that are. Any thread may add one; the functions
    of the heap are single steps of the interpreter, for they compare numbers alone.
    """

    __slots__ = ("_heap", "_numbers", "_ran")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = itertools.count()  # so that actions are never compared
        self._ran = -math.inf

    def add(self, when: float, action: Callable[[float], None]) -> None:
        """Have ``action`` called with the time, at ``when`` or soon after it."""
        heapq.heappush(self._heap, (when, next(self._numbers), action))

    def next(self) -> float:
        """When ``run`` is to be called; ``math.inf`` while there is nothing to run."""
        return max(self._heap[0][0], self._ran + GRAIN) if self._heap else math.inf

    def run(self, now: float) -> None:
        """Run what is due, in the order of its times. For one thread. What an action raises is for the caller: the rest
        is run the next time.
        """
        while self._heap and self._heap[0][0] <= now:
            self._ran = now
            heapq.heappop(self._heap)[2](now)
