"""When the watchdog looks at the leader, and whether the leader is stuck: no thread, no lock, no clock of its own.

The leader runs quick handlers on the thread that reads for all connections. When one of them blocks by surprise, the
leader is deposed. A look takes the interpreter away from the leader: 500 a second cost 2 to 3 % of its time. So there
are fewer in quiet times, and none while nothing runs.
"""

from typing import Final, Protocol

__all__ = ["CALM", "QUIET", "STUCK", "Leader", "Watch", "Watched"]

STUCK: Final = 0.002
"""Seconds between two looks. A leader that both find in the same handler is stuck, so quick calls wait 4 ms at the most
behind an unexpected block."""

CALM: Final = 0.008
"""Seconds to the first of the two looks once no turn was slow for ``QUIET`` seconds. The second one comes after
``STUCK`` when the first finds a turn that is as old as that, so quick calls then wait 10 ms at the most."""

QUIET: Final = 1.0

IDLE_LOOKS: Final = 50
"""Looks without anything running after which there are no more until the leader has work again."""


class Leader(Protocol):
    """A worker as it is seen from here."""

    running: object | None
    """What it runs as the leader and may block in; each is an object of its own. None while it runs nothing."""


class Watched(Protocol):
    """The pool as it is seen from here: read without its lock, so two of its values need not be of one moment."""

    @property
    def leader(self) -> Leader | None:
        """Who leads now."""

    @property
    def turn_began(self) -> float:
        """When the leader's turn began, by the clock that ``now`` is of."""

    @property
    def slow_turns(self) -> int:
        """Turns so far that took longer than a quick call may."""


class Watch:
    """Told the time, it says when to look next, and what it found. For one thread.

    Args:
        pool: what is watched.
        now: by a monotonic clock in seconds, as are all times here.
    """

    def __init__(self, pool: Watched, now: float) -> None:
        self._pool = pool
        self._slow_turns = pool.slow_turns
        self._slow_at = now
        self._idle = 0
        self._leader: Leader | None = None
        self._running: object | None = None

    def next_look(self, now: float) -> float | None:
        """Seconds until the leader is to be looked at; None when nothing has run for so long that there is no need to,
        until ``work_again`` is called.
        """
        if self._idle > IDLE_LOOKS:
            return None
        suspicious = self._running is not None and now - self._pool.turn_began >= STUCK
        return CALM if now - self._slow_at > QUIET and not suspicious else STUCK

    def work_again(self) -> None:
        """The leader has something to run, after a time without looks."""
        self._idle = 0

    def stuck(self, now: float) -> tuple[Leader, object] | None:
        """Look once: the leader and what it is stuck in, when the look before found it there too; None otherwise."""
        pool = self._pool
        if pool.slow_turns != self._slow_turns:
            self._slow_turns, self._slow_at = pool.slow_turns, now
        leader = pool.leader
        running = None if leader is None else leader.running
        before, self._leader, self._running = (self._leader, self._running), leader, running
        if leader is None or running is None:
            self._idle += 1
            return None
        self._idle = 0
        return (leader, running) if before[0] is leader and before[1] is running else None

    def deposed(self, now: float) -> None:
        """The stuck leader leads no more: these are no quiet times."""
        self._slow_at = now
