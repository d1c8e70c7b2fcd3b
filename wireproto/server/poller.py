"""epoll and an eventfd behind five names, so that how a server waits can be changed in one place."""

import os
import select
import threading
import time

__all__ = ["CLOSED", "READ", "WRITE", "Poller"]

READ: int = select.EPOLLIN
WRITE: int = select.EPOLLOUT
CLOSED: int = select.EPOLLHUP | select.EPOLLERR


LOOK = 50e-6
"""Seconds for which a wait looks again and again before it sleeps: the answer to an answer often comes within that, and
to fall asleep and be woken costs both sides more."""

MOST_SKIPPED = 64
"""Waits that sleep at once after looking was in vain: from 1 it doubles up to this, and a look that pays sets it back.
So where it never pays it costs less than a microsecond a wait."""


class Poller:
    """Level-triggered readiness of descriptors, and ``wake`` to end a wait from any thread.

    Level-triggered, because an event that one worker drops is then reported again to the next: nothing has to be
    re-armed, and no event is ever owned. Every method may be called from any thread.
    """

    __slots__ = ("_epoll", "_eventfd", "_lock", "_skip", "_skipped", "_waking")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._skip = 0  # waits that are not to look, after the last look in vain
        self._skipped = 0
        self._waking = False
        self._epoll.register(self._eventfd, READ)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait at most ``timeout`` seconds (-1: for ever) for (descriptor, mask) pairs; a wake gives an empty list.

        Of two waiters that a wake has ended, one may be told of a descriptor that nobody added: the poller's own.
        """
        if timeout:
            events = self._look() or self._epoll.poll(timeout)
        else:
            events = self._epoll.poll(0)
        return self._woken(events) if self._waking else events

    def _woken(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Take the wake that ended the wait, or that came right behind it, and which ends it then all the same."""
        with self._lock:
            if self._waking:
                self._waking = False
                os.eventfd_read(self._eventfd)
            return [event for event in events if event[0] != self._eventfd]

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

    def wake(self) -> None:
        """End the wait that is under way, or else the next one. After ``close`` it does nothing."""
        with self._lock:  # a wake that comes late must not write into whatever has the number then
            if self._eventfd >= 0:
                self._waking = True  # with the lock, so that nobody finds one of the two without the other
                os.eventfd_write(self._eventfd, 1)

    def add(self, fd: int, mask: int) -> None:
        self._epoll.register(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def close(self) -> None:
        """Give the descriptors back. Only once no thread polls any more. Idempotent."""
        with self._lock:
            if self._eventfd >= 0:
                self._epoll.close()
                os.close(self._eventfd)
                self._eventfd = -1
