"""The keeper: one thread per process that reads for links nobody waits on, and watches every link's clock.

It reads what no caller would: a GOAWAY, an end of input, answers that belong to futures, items of streams whose
consumer is busy. It sends heartbeats, ends links whose peer fell silent or stalled, and completes futures. It writes
what a caller had to leave unwritten. It never blocks in a read, and never reads while a caller does.

Lock order: a link's lock, then the keeper's, then its poller's. The keeper calls links and tasks without its own lock.
"""

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from wireproto.poller import WRITE, Poller

__all__ = ["Keeper", "Kept", "attempt", "the_keeper"]

log = logging.getLogger("wireproto.client")

_JOIN = 1.0


class Kept(Protocol):
    """What the keeper asks of a link. It calls the methods on its thread, without a lock.

    Attributes:
        due: when ``tend`` is to be called, by the keeper's clock; the link says by ``Keeper.soon`` that it is earlier.
    """

    due: float

    @property
    def peer(self) -> str:
        """The address, for the log."""

    @property
    def descriptor(self) -> int:
        """Of the socket; a number below 0 for what has none."""

    def attend(self, writable: int, readable: int) -> None:
        """The socket has room for output, or has input; other than 0 means yes."""

    def tend(self) -> None:
        """Look at the clocks of the link, and set ``due`` to when that is to be done again."""

    def end(self, why: str) -> None:
        """Close the connection."""

    def forget(self) -> None:
        """Let go of the descriptor, in a child of the process whose connection it is. Without a lock."""


class Keeper:
    """The thread and its links. It runs while there are links, and leaves neither thread nor descriptor behind.

    Args:
        clock: a monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._links: dict[int, Kept] = {}  # by descriptor
        self._tasks: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._poller: Poller | None = None  # the thread's; None while it does not run
        self._due = math.inf  # when a link's clock is to be looked at

    def add(self, link: Kept) -> None:
        """Look after a link from now on; starts the thread if this is the first."""
        with self._lock:
            self._links[link.descriptor] = link
            self._due = 0.0
            self._rouse_locked()

    def discard(self, link: Kept) -> None:
        """Look after it no longer. Must be called before the descriptor is closed."""
        with self._lock:
            if self._links.get(link.descriptor) is link:
                del self._links[link.descriptor]
                if not self._links:
                    self._rouse_locked()

    def watch(self, link: Kept, before: int, after: int) -> None:
        """Change what of a link's descriptor wakes the thread; with the link's lock held, so that orders agree.

        Without interest a descriptor is taken out: epoll reports a hang-up whatever the mask, and would spin on it.
        """
        with self._lock:
            if self._poller is None or self._links.get(link.descriptor) is not link:
                return
            if not before:
                self._poller.add(link.descriptor, after)
            elif not after:
                self._poller.remove(link.descriptor)
            else:
                self._poller.modify(link.descriptor, after)

    def soon(self, when: float) -> None:
        """Look at the links that are due no later than ``when``."""
        if when < self._due:
            with self._lock:
                self._due = min(self._due, when)
                self._rouse_locked()

    def run(self, task: Callable[[], None]) -> None:
        """Run ``task`` on the thread, without any lock."""
        with self._lock:
            self._tasks.append(task)
            self._rouse_locked()

    def join(self) -> None:
        """Wait, at most a second, until the thread is gone, if nothing is left for it to do."""
        with self._lock:
            thread = self._thread
            if self._links or thread is None or thread.ident == threading.get_ident():
                return
        thread.join(_JOIN)  # not only until it has decided to leave: nobody wants to see it in a list of threads

    def forget(self) -> None:
        """Let go of all links and descriptors, in a child of the process whose keeper this is."""
        self._lock = threading.Lock()
        for link in self._links.values():
            link.forget()
        self._links.clear()
        self._tasks.clear()
        self._due = math.inf
        if self._poller is not None:
            self._poller.forget()

    def _rouse_locked(self) -> None:
        """Wake the thread, or start it."""
        if self._poller is None:
            self._poller = Poller()
            self._thread = threading.Thread(
                target=self._keep, args=(self._poller,), name="wireproto-keeper", daemon=True
            )
            self._thread.start()
        self._poller.wake()

    def _keep(self, poller: Poller) -> None:
        """The thread: sleep, serve what woke it, run what was left for it, look at the clocks."""
        while True:
            due = self._due
            for descriptor, mask in poller.poll(-1 if due == math.inf else max(0.0, due - self.clock())):
                # An event is a hint: the descriptor may be another link's by now, which loses nothing by a look.
                if (link := self._links.get(descriptor)) is not None:
                    self._attend(link, mask)
            while self._tasks:
                attempt(self._tasks.popleft())
            if self.clock() >= self._due:
                self._tend()
            with self._lock:
                if not self._links and not self._tasks:
                    self._poller = None
                    self._due = math.inf
                    poller.close()
                    return

    def _tend(self) -> None:
        """Look at the clock of every link that is due."""
        with self._lock:
            links = list(self._links.values())
            self._due = math.inf  # before looking: a ``soon`` from now on is newer than what the links say
        now = self.clock()
        due = math.inf
        for link in links:
            if link.due <= now:
                self._attend(link, 0)
            due = min(due, link.due)
        with self._lock:
            self._due = min(self._due, due)

    def _attend(self, link: Kept, mask: int) -> None:
        try:
            if mask:
                link.attend(mask & WRITE, mask & ~WRITE)
            else:
                link.tend()
        except BaseException:
            # One link that meets a bug of ours must not take the thread from the others.
            log.exception("a connection to %s is given up", link.peer)
            link.end("the client met an error of its own")


def attempt(task: Callable[[], None]) -> None:
    """Run ``task``, which may be a callback of the user's, and log whatever it raises."""
    try:
        task()
    except BaseException:  # SystemExit too: without the keeper's thread nothing goes on
        log.exception("a task of the keeper failed")


_keeper = Keeper()


def the_keeper() -> Keeper:
    """The one of this process."""
    return _keeper


def _after_fork() -> None:
    # In the child: the thread is not there, and the connections and the epoll behind the descriptors are the parent's.
    # Descriptors are closed and nothing else is done, so that the parent notices nothing. No lock is taken: whoever
    # held it is not there any more. Clients made in the child get a keeper of their own.
    global _keeper
    inherited, _keeper = _keeper, Keeper()
    inherited.forget()


os.register_at_fork(after_in_child=_after_fork)
