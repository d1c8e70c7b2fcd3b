"""Copies of a database: what has the name of a copy is a whole one, whenever the process or the machine ends.

A copy is written as ``FILE.part``, made durable, and given its name then, which it never takes from another file. What
is killed before that leaves the ``.part``, which no server takes for a store; see ``files.look``.
"""

import ctypes
import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from wireproto import ConfigError
from wireproto_chat.store.files import UNFINISHED, refusal, sync_directory

__all__ = ["fill", "unfinished"]

_FORMAT_AT: Final = 18
_ROLLBACK_FORMAT: Final = b"\x01\x01"
"""What is at byte 18 of a database that has no write-ahead log."""

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1

# SQLite would read either into a database of that name.
_LEFT_BY_ANOTHER: Final = ("-wal", "-journal")


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """A file to write a copy to, which gets the name of the target when it is left without an exception.

    Raises:
        ConfigError: there is such a file already, or it cannot be made.
    """
    part = Path(f"{target}{UNFINISHED}")
    _check(target)
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise ConfigError(
            f"{part} exists: a copy is being made there, or was when it was killed; if none is, remove it"
        ) from None
    except OSError as error:
        raise refusal(f"{target} cannot be made", error, "give a file in a directory of yours") from error
    try:
        yield part
        _make_durable(part)
        _give_name(part, target)
        sync_directory(target.parent)
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        raise refusal(f"{target} cannot be made", error, "give a file on another disk") from error
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _check(target: Path) -> None:
    if os.path.lexists(target):
        raise _exists(target)
    if target.name.endswith(UNFINISHED):
        raise ConfigError(f"{target} has the name of an unfinished copy; give one that does not end in {UNFINISHED}")
    for suffix in _LEFT_BY_ANOTHER:
        if os.path.lexists(f"{target}{suffix}"):
            raise ConfigError(f"{target}{suffix} is left of another database; give another name, or remove it")


def _exists(target: Path) -> ConfigError:
    return ConfigError(f"{target} exists; give another name, or remove it")


def fill(database: sqlite3.Connection, part: Path) -> None:
    """Write a database into an unfinished copy, as it is at one moment.

    Raises:
        sqlite3.Error: it cannot be read, or the copy not be written.
    """
    os.truncate(part, 0)  # of what a first try has left
    with closing(sqlite3.connect(part)) as copy:
        # No journal, which would be one more file to leave behind. Nobody needs it: what fails is removed.
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        database.backup(copy)  # in one step, so of one commit
    # By SQLite itself this takes a log and shared memory of the copy's own.
    descriptor = os.open(part, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, _ROLLBACK_FORMAT, _FORMAT_AT)
    finally:
        os.close(descriptor)


def _make_durable(part: Path) -> None:
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give_name(part: Path, target: Path) -> None:
    """Rename without replacing.

    Raises:
        FileExistsError: another file has got that name.
        OSError: the system refuses.
    """
    try:
        os.link(part, target)
    except PermissionError:
        # No hard links there, as on the file systems of memory sticks. Linux has a call for it, Python has none.
        _rename(part, target)


def _rename(part: Path, target: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(part), os.fsencode(target))
    try:
        failed = library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE)
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
