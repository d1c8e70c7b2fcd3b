"""The leader's wait: it looks for a moment before it sleeps."""

import time

from wireproto.poller import Poller

__all__ = ["LOOK", "MOST_SKIPPED", "LookingPoller"]

LOOK = 50e-6
"""Seconds for which a wait looks again and again before it sleeps: the answer to an answer often comes within that, and
to fall asleep and be woken costs both sides more."""

MOST_SKIPPED = 64
"""Waits that sleep at once after looking was in vain: from 1 it doubles up to this, and a look that pays sets it back.
So where it never pays it costs less than a microsecond a wait."""


class LookingPoller(Poller):
    """A ``Poller`` whose ``poll`` looks for ``LOOK`` seconds before it sleeps, as long as that pays."""

    __slots__ = ("_skip", "_skipped")

    def __init__(self) -> None:
        super().__init__()
        self._skip = 0  # waits that are not to look, after the last look in vain
        self._skipped = 0

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        # Not by way of the base class: one more call would be on the path of every turn of the leader.
        if timeout:
            events = self._look() or self._epoll.poll(timeout)
        else:
            events = self._epoll.poll(0)
        return self._woken(events) if self._waking else events

    def _look(self) -> list[tuple[int, int]]:
        """What is ready within ``LOOK`` seconds, when it is worth the while."""
        if self._skipped < self._skip:
            self._skipped += 1
            return []
        self._skipped = 0
        poll, clock = self._epoll.poll, time.perf_counter
        until = clock() + LOOK
        while not (events := poll(0)):
            # Each poll lets other threads have the interpreter. One that keeps it ends the look in the first round.
            if clock() > until:
                self._skip = min(2 * self._skip or 1, MOST_SKIPPED)
                return []
        self._skip = 0
        return events
