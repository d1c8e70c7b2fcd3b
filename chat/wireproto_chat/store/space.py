"""Room on the store's disk: what is refused before it is used up, and a reserve for when it is all the same.

A database whose disk is full cannot even delete: the log grows by what is deleted, too. So nothing that makes the
store larger is accepted once little room is left, and beside the database lies a file that only takes up room. It is
given up when SQLite finds none, because somebody else has used it: then messages can still be acknowledged and deleted,
and sessions ended. It is put back, and everything accepted again, once there is room.
"""

import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["KEEP_FREE", "Space", "free_bytes"]

log = logging.getLogger("wireproto_chat.store")

KEEP_FREE = 64 * 1024 * 1024
"""Bytes of the disk that the store leaves free; a quarter of it is what the reserve takes up besides."""

LOOK = 0.25
"""Seconds between two looks at the disk; at most some 40 MiB are written meanwhile."""


def free_bytes(directory: Path) -> int:
    """What a file in a directory may grow by at most, in bytes."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _is_blank(path: Path, size: int) -> bool:
    """Whether a file begins and ends in zeros, of which alone a reserve consists."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return not any(any(os.pread(descriptor, 4096, at)) for at in (0, max(0, size - 4096)))
    finally:
        os.close(descriptor)


class Space:
    """Watches the disk for the writer, on its thread; nothing here locks.

    Args:
        database: the file that grows; the reserve is made beside it.
        keep_free: bytes to leave free; 0 to have no reserve either, and take what there is.
        free: a function of the directory to the bytes that are free.
        clock: monotonic seconds.

    Attributes:
        low: whether there is too little room for what makes the store larger.
    """

    def __init__(
        self,
        database: Path,
        *,
        keep_free: int = KEEP_FREE,
        free: Callable[[Path], int] = free_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.low = False
        self._directory = database.parent
        self._reserve = Path(f"{database}.reserve")
        self._size = keep_free // 4
        self._keep_free = keep_free
        self._free = free
        self._clock = clock
        self._next_look = 0.0
        self._missing = self._size

    def find(self) -> None:
        """See whether the reserve is there. A file of that name that is not the chat's is let be, and there is none."""
        try:
            found = os.lstat(self._reserve)
            if stat.S_ISREG(found.st_mode) and _is_blank(self._reserve, found.st_size):
                self._missing = max(0, self._size - found.st_size)
                return
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("the reserve %s cannot be read: %s", self._reserve, error.strerror)
        else:
            log.warning("%s is another program's file: the store goes without a reserve", self._reserve)
        self._size = self._missing = 0

    def open(self) -> None:
        """Look at the disk for the first time, and take the reserve up."""
        self.look()
        if not self.low:
            self._restore()

    def look(self) -> bool:
        """See how much room there is: every quarter of a second, and at every call while there is too little.

        Returns:
            Whether there has just come to be too little; ``low`` says what holds now.
        """
        now = self._clock()
        if not self.low and now < self._next_look:
            return False
        self._next_look = now + LOOK
        free = self._left()
        if not self.low:
            if free < self._keep_free:
                self._now_low(free)
            return self.low
        # An eighth more, so that it does not change with every message; and twice the reserve, so that there is more
        # room after it was put back than SQLite has just found too little.
        if free >= self._keep_free + self._keep_free // 8 + 2 * self._missing and self._restore():
            self.low = False
            log.warning("there is room on the disk of %s again: everything is accepted", self._directory)
        return False

    def give_up_reserve(self) -> bool:
        """There was no room for a transaction.

        Returns:
            Whether that changes anything, so that it may be tried again.
        """
        changed = not self.low
        if changed:
            self._now_low(self._left())
        if self._missing < self._size:
            try:
                os.truncate(self._reserve, 0)
            except OSError as error:
                log.error("the reserve %s cannot be given up: %s", self._reserve, error.strerror)
            else:
                self._missing = self._size
                changed = True
        return changed

    def _left(self) -> int:
        try:
            return self._free(self._directory)
        except OSError as error:
            # Not a reason to refuse anything: if there is no room, SQLite will find that out.
            log.warning("the room on the disk of %s is not known: %s", self._directory, error.strerror)
            return self._keep_free * 2

    def _now_low(self, free: int) -> None:
        self.low = True
        log.error(
            "the disk of %s has %.1f MiB left, the store leaves %.1f MiB: no message, broadcast or account is accepted "
            "until there is room",
            self._directory,
            free / 2**20,
            self._keep_free / 2**20,
        )

    def _restore(self) -> bool:
        """Take the reserve up, if it is not; whether it is there."""
        if not self._missing:
            return True
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._reserve, flags, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("the reserve %s cannot be made: %s", self._reserve, error.strerror)
            return False
        self._missing = 0
        return True
