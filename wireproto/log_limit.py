"""One message of a kind in each interval: a fault that repeats itself must not fill the disk with its log."""

import threading
import time
from collections.abc import Callable, Hashable

__all__ = ["LogLimit"]


class LogLimit:
    """Says which of many like messages are to be logged. Any thread.

    Args:
        interval: seconds in which a kind is logged once. Ten are short enough for a person who watches, and 8,640 lines
            a day.
        kinds: how many kinds are remembered; beyond it all are forgotten, so whoever makes up kinds costs no memory.
        clock: monotonic seconds.
    """

    def __init__(
        self, interval: float = 10.0, *, kinds: int = 1000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = interval
        self._most = kinds
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, tuple[float, int]] = {}  # when it was logged, and how many were left out since

    def admit(self, kind: Hashable) -> str | None:
        """Ask whether a message of this kind is to be logged now.

        Returns:
            What to put behind the message, "" or how many like it were left out since the last one; None when this one
            is to be left out too.
        """
        now = self._clock()
        with self._lock:
            then, unsaid = self._kinds.get(kind, (None, 0))
            if then is not None and now - then < self._interval:
                self._kinds[kind] = then, unsaid + 1
                return None
            if kind not in self._kinds and len(self._kinds) >= self._most:
                self._kinds.clear()
            self._kinds[kind] = now, 0
        return f" (and {unsaid} more like it)" if unsaid else ""
