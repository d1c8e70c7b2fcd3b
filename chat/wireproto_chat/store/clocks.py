"""The store's two clocks: the time of day, which people are shown, and the store's age, which every rule goes by.

A wall clock may be wrong for a while: a year ahead, a year behind, or at 1970 on a machine whose battery is empty. A
rule that compares a stored time with it would then hold somebody up for a year, or end all sessions and forget all keys
at once. So no rule does. How long somebody waits, and when something ends, is reckoned by the age of the store: the
microseconds that have passed since it was made, as far as the chat knows.

- While the chat runs, a clock that nobody can set counts them: the time since the system started.
- About the time between two runs only the wall clock knows. So the age is noted together with the time of day. At the
  next start the store is older by what has passed since the note, by ``LONGEST_GAP`` at most. If the clock stands
  before the note, nothing has passed.

So a wall clock that changes while the chat runs changes nothing. One that is wrong when the chat starts makes sessions,
keys and names a day older at most, and no wait longer. The price is that after a rest of more than a day whatever would
have ended meanwhile lives on for as much longer. Nobody could use it during the rest.
"""

import time
from collections.abc import Callable

__all__ = ["LONGEST_GAP", "NOTE_STEP", "Clocks", "steady"]

LONGEST_GAP = 24 * 3_600_000_000
"""Microseconds that may have passed between a note and the next start."""

NOTE_STEP = 1_000_000
"""Microseconds after which the age is noted again, with whatever is written then: a second, so that no send notices."""


def steady() -> float:
    """Seconds since the system started, also those that it slept through; nobody can set that clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clocks:
    """The two clocks of one store. Any thread, once ``start`` was called.

    Args:
        wall: seconds since 1970, UTC.
        steady: seconds that only ever grow.
    """

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall = wall
        self._steady = steady
        self._born = 0.0  # what the steady clock would have said when the store was made

    def start(self, age: int, noted_at: int) -> None:
        """Go on from a note: the store had this age at this time of day, both in microseconds."""
        gap = min(max(0, self.now - noted_at), LONGEST_GAP)
        self._born = self._steady() - (age + gap) / 1_000_000

    @property
    def now(self) -> int:
        """Microseconds since 1970, by the wall clock: to be shown, and compared with nothing."""
        return round(self._wall() * 1_000_000)

    @property
    def age(self) -> int:
        """Microseconds since the store was made, as far as the chat knows. It never goes back."""
        return round((self._steady() - self._born) * 1_000_000)
