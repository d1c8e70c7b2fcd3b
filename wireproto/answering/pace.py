"""Whether a method is quick: may the leader run its handler on the thread that reads for all connections?

One record per method, codec and version, kept here and nowhere else: what counts as slow, how that is remembered, when
a method that was quick is suspected, and what follows. To know it costs a quick call no look at the clock. A turn of
the leader is timed as a whole: when all its calls together were quick, each was. Only what ran in a slow turn is timed
by itself the next time it runs.
"""

from typing import Final

__all__ = ["PENALTY", "PROVEN", "SLOW", "Pace"]

SLOW: Final = 0.0005
"""Seconds: a handler that took longer is run by a follower from then on, until it was quick again a few times.
A hand-off costs about 15 us, so below some 0.5 ms it is not worth its price."""

PENALTY: Final = 8
"""What one slow run adds to a method's slowness; each quick run takes one off. From here up a follower runs it."""

PROVEN: Final = 8
"""Runs after which a method that was never slow counts as quick when nobody could depose the leader."""


class Pace:
    """The record of one method. Any thread may write it without a lock: what is lost by that is one run's time.

    Args:
        blocking: the method was declared so: its handler never runs on the leader.

    Attributes:
        wary: the next run is to be timed by itself, and ``may_lead`` to be asked first. False once the method is known
            to be quick, which is all that a quick call looks at.
        ran: it ran on the leader, untimed or not, since the last slow turn. Set by whoever runs it.
    """

    __slots__ = ("_blocking", "_runs", "_slowness", "ran", "wary")

    def __init__(self, blocking: bool) -> None:
        self._blocking = blocking
        self._runs = 0
        self._slowness = 0
        self.ran = False
        self.wary = True

    @property
    def quick(self) -> bool:
        """It was not slow lately, as far as its runs were timed."""
        return self._slowness < PENALTY

    def may_lead(self, short: bool) -> bool:
        """Whether the leader may run the handler.

        Args:
            short: nobody could depose the leader now, so only a method with a record of being quick may run on it.
        """
        return not self._blocking and self.quick and (self._runs >= PROVEN or not short)

    def note(self, took: float) -> None:
        """Keep how long a run took, in seconds: of a handler, or of one look into a stream's source."""
        self._runs += 1
        if took > SLOW:
            self._slowness = min(self._slowness + PENALTY, 4 * PENALTY)
        elif self._slowness:
            self._slowness -= 1
        self.wary = self._blocking or self._slowness > 0 or self._runs < PROVEN

    def suspect(self) -> None:
        """A turn of the leader was slow: if the method ran since the last such turn, time its next run."""
        if self.ran:
            self.ran, self.wary = False, True
