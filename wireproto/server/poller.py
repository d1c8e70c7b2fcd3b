"""epoll and an eventfd behind five names, so that how a server waits can be changed in one place."""

import os
import select
import threading

__all__ = ["CLOSED", "READ", "WRITE", "Poller"]

READ: int = select.EPOLLIN
WRITE: int = select.EPOLLOUT
CLOSED: int = select.EPOLLHUP | select.EPOLLERR


class Poller:
    """Level-triggered readiness of descriptors, and ``wake`` to end a wait from any thread.

    Level-triggered, because an event that one worker drops is then reported again to the next: nothing has to be
    re-armed, and no event is ever owned. Every method may be called from any thread.
    """

    __slots__ = ("_epoll", "_eventfd", "_lock")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._epoll.register(self._eventfd, READ)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait at most ``timeout`` seconds (-1: for ever) for (descriptor, mask) pairs; a wake gives an empty list."""
        events = self._epoll.poll(timeout)
        for fd, _ in events:
            if fd == self._eventfd:
                try:
                    os.eventfd_read(fd)
                except BlockingIOError:
                    pass  # another waiter read it first
                return [event for event in events if event[0] != fd]
        return events

    def wake(self) -> None:
        """End the wait that is under way, or else the next one. After ``close`` it does nothing."""
        with self._lock:  # a wake that comes late must not write into whatever has the number then
            if self._eventfd >= 0:
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
