"""epoll and an eventfd behind six names: how the server's leader and the clients' keeper wait for many descriptors.

The sans-IO core knows nothing of it. A client's caller waits for one descriptor, its link's, and has ``select.poll``.
"""

import os
import select
import threading

from wireproto.errors import ConfigError

__all__ = ["CLOSED", "READ", "WRITE", "Poller"]

NEEDED = (
    "wireproto waits with select.epoll and os.eventfd, which this interpreter lacks: only Linux has them, and the "
    "monkey patches of gevent and eventlet take epoll away; use it in a process that is not patched"
)

try:
    READ: int = select.EPOLLIN
    WRITE: int = select.EPOLLOUT
    CLOSED: int = select.EPOLLHUP | select.EPOLLERR
    select.epoll, os.eventfd  # noqa: B018 - whether they are there is found out when the package is imported
except AttributeError as error:
    raise ConfigError(NEEDED) from error


class Poller:
    """Level-triggered readiness of descriptors, and ``wake`` to end a wait from any thread.

    Level-triggered, because an event that one thread drops is then reported again to the next: nothing has to be
    re-armed, and no event is ever owned. Every method may be called from any thread.

    Raises:
        ConfigError: epoll was there when this module was imported, and was patched away since.
    """

    __slots__ = ("_epoll", "_eventfd", "_lock", "_waking")

    def __init__(self) -> None:
        try:
            self._epoll = select.epoll()
            self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except AttributeError as error:
            raise ConfigError(NEEDED) from error
        self._lock = threading.Lock()
        self._waking = False
        self._epoll.register(self._eventfd, READ)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait at most ``timeout`` seconds (-1: for ever) for (descriptor, mask) pairs; a wake gives an empty list.

        Of two waiters that a wake has ended, one may be told of a descriptor that nobody added: the poller's own.
        """
        events = self._epoll.poll(timeout)
        return self._woken(events) if self._waking else events

    def put_back(self, events: list[tuple[int, int]]) -> None:
        """Nothing need be done: level-triggered, the events are reported again."""

    def _woken(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Take the wake that ended the wait, or that came right behind it, and which ends it then all the same."""
        with self._lock:
            if self._waking:
                self._waking = False
                os.eventfd_read(self._eventfd)
            return [event for event in events if event[0] != self._eventfd]

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

    def __del__(self) -> None:
        # Of a server that was never started, say. Without the lock, for nobody else has the poller any more, and in a
        # child of the process a thread that is not there may hold it for ever. The epoll closes itself.
        if getattr(self, "_eventfd", -1) >= 0:
            os.close(self._eventfd)

    def close(self) -> None:
        """Give the descriptors back. Only once no thread polls any more. Idempotent."""
        with self._lock:
            if self._eventfd >= 0:
                self._epoll.close()
                os.close(self._eventfd)
                self._eventfd = -1

    def forget(self) -> None:
        """``close``, in a child of the process whose poller this is: another thread may have held the lock there."""
        self._lock = threading.Lock()
        self.close()
