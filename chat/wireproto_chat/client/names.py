"""The account names a person may mean: those seen so far, and those the server knows that begin alike."""

import re
import threading
import time
from collections.abc import Callable, Iterable

__all__ = ["Names"]

MOST = 5_000
"""Names kept; the one not seen for longest goes first."""

FRESH = 30.0
"""Seconds for which the server is not asked the same again."""

_BEGINNING = re.compile(r"[a-z0-9._-]{0,32}", re.ASCII)


class Names:
    """Names for completion. Any thread may call any method.

    Args:
        ask: the names on the server that begin with a text, a page of them; may take its time, and raises nothing.
        clock: a monotonic clock in seconds.
    """

    def __init__(self, ask: Callable[[str], list[str]], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, None] = {}  # the latest last
        self._asked: dict[str, float] = {}

    def learn(self, names: Iterable[str]) -> None:
        """Note names that were seen. One that is no legal name is nothing to complete."""
        with self._lock:
            for name in names:
                if name and _BEGINNING.fullmatch(name):
                    self._known.pop(name, None)
                    self._known[name] = None
            while len(self._known) > MOST:
                del self._known[next(iter(self._known))]

    def beginning(self, text: str) -> list[str]:
        """Those known now that begin with ``text``, sorted."""
        with self._lock:
            return sorted(name for name in self._known if name.startswith(text))

    def look_up(self, text: str) -> None:
        """Ask the server, unless it was asked just now; blocks until it has answered."""
        if not _BEGINNING.fullmatch(text):
            return
        now = self._clock()
        with self._lock:
            self._asked = {asked: at for asked, at in self._asked.items() if now - at < FRESH}
            if text in self._asked:
                return
            self._asked[text] = now
        self.learn(self._ask(text))
