"""Reading a database without writing anything: not to it, not beside it, and not into the memory that its users share.

SQLite writes when it reads. It makes the log and the shared memory of a database that was closed, and folds a log in
that a crash left. So what it is told depends on what is there:

- A server is running: it has made both files, and they are read as they are.
- A crash has left a log: SQLite reads it without the shared memory, into memory of its own. It wants the file of that
  memory to be there, though; where only the log was kept, a copy of both is read.
- Neither: the file is all there is, and SQLite is told that nobody changes it.

In the last two nothing keeps a server from starting meanwhile. Then what was read is not to be trusted, and is read
again.
"""

import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from wireproto import ConfigError
from wireproto_chat.store.files import look, newer, no_store
from wireproto_chat.store.opening import in_words
from wireproto_chat.store.tables import SCHEMA_VERSION

__all__ = ["read", "schema_of"]

R = TypeVar("R")

TRIES: Final = 3
"""How often a database is read that changes although no server has it."""


class Stand(NamedTuple):
    """How the files of a database are: whether a server has them, and what would be different had one been here."""

    in_use: bool
    logged: bool
    shared: bool
    database: tuple[int, ...]
    log: tuple[int, ...]


def read(path: Path, work: Callable[[sqlite3.Connection], R]) -> R:
    """Have ``work`` read a database, perhaps more than once, of which the last time counts.

    Args:
        path: with links resolved.
        work: what it leaves behind, it replaces when it is called again.

    Raises:
        ConfigError: there is no such database, or it cannot be read.
        sqlite3.DatabaseError: from ``work``; it is damaged, or it was not read as it is.
        UnicodeDecodeError: it is damaged, and SQLite's words about that cannot be read.
    """
    for _ in range(TRIES):
        before = _stand(path)
        # A database that somebody has open as such is not opened as a file, see ``files``.
        if not before.in_use and not look(path):
            raise no_store(path)
        try:
            with _opened(path, before) as database:
                found = work(database)
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            if before.in_use or _stand(path) == before:
                raise
        else:
            if before.in_use or _stand(path) == before:
                return found
    raise ConfigError(f"the store {path} changes while it is read; try again when that is over")


def schema_of(path: Path, database: sqlite3.Connection) -> int:
    """The schema's version, of a database that is the chat's.

    Raises:
        ConfigError: it is of a later release.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise newer(path, version)
    return int(version)


def _stand(path: Path) -> Stand:
    database, log = _mark(path), _mark(f"{path}-wal")
    shared = os.path.exists(f"{path}-shm")
    in_use = bool(log and shared) and _is_locked(f"{path}.lock")
    return Stand(in_use, in_use or log[1:2] > (0,), shared, database, log)


def _mark(name: "str | Path") -> tuple[int, ...]:
    """What is different once a file was written; empty if it is missing."""
    try:
        found = os.stat(name)
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _is_locked(name: str) -> bool:
    """Whether some process has a store, by the lock file beside it."""
    try:
        if not stat.S_ISREG(os.lstat(name).st_mode):
            return False
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # somebody else's, and perhaps running: the files are read as they are
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _opened(path: Path, stand: Stand) -> Iterator[sqlite3.Connection]:
    if not stand.logged:
        with _connected(path, "immutable=1") as database:
            yield database
    elif stand.shared:
        with _connected(path, "mode=ro&readonly_shm=1") as database:
            yield database
    else:
        with tempfile.TemporaryDirectory(prefix="wireproto-") as folder:  # nobody else may read it
            copy = Path(folder) / "chat.db"
            try:
                for suffix in ("", "-wal"):
                    shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
            except OSError as error:
                raise ConfigError(
                    f"the store {path} was left with a log, and cannot be copied to be read ({error.strerror}); "
                    "set TMPDIR to a directory with more room, or start the server and stop it again"
                ) from error
            with _connected(copy, "mode=rw") as database:
                yield database


@contextmanager
def _connected(path: Path, how: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.as_uri()}?{how}"
    try:
        database = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0, check_same_thread=False)
        with closing(database):
            # So that the file is opened here, where a failure is the system's, and not in the middle of the work.
            database.execute("PRAGMA wal_autocheckpoint = 0")
            database.execute("PRAGMA schema_version").fetchone()
            yield database
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in _DAMAGE:
            raise
        raise in_words(f"the store {path} cannot be read", path, error) from error


_DAMAGE: Final = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""What SQLite says when the content is wrong, and not the reading of it: the first of an unknown column."""
