"""Opening the chat's database, reading it, and closing it again. Writing is ``writer.Writer``'s.

One process owns a database file: a lock file beside it refuses a second. Inside, one connection writes and a few read,
each seeing the last commit (write-ahead logging), so no reader waits for the writer nor the writer for a reader.
"""

import fcntl
import logging
import os
import shlex
import sqlite3
import stat
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from sqlalchemy import URL, create_engine, insert
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from wireproto import CallError, ConfigError, Retry, Status
from wireproto_chat.store.clocks import Clocks
from wireproto_chat.store.failures import Complaints, closed, is_fatal, is_full, store_error
from wireproto_chat.store.space import KEEP_FREE, Space, free_bytes
from wireproto_chat.store.tables import SCHEMA_VERSION, Statements, alembic_version, metadata, notes
from wireproto_chat.store.transaction import Transaction
from wireproto_chat.store.writer import WriteJob, Writer

__all__ = ["APPLICATION_ID", "Store", "claim", "default_path", "path_of"]

log = logging.getLogger("wireproto_chat.store")

R = TypeVar("R")

APPLICATION_ID = 0x57504348
"""``WPCH`` in the file's header: tells a chat database from another program's."""

READERS = 8
"""Connections that read; each answers in well under a millisecond."""

READ_WAIT = 2.0
"""Seconds a call waits for one of them before it is refused."""

CHECKED_BYTES = 256 * 1024 * 1024
"""Databases up to this size are checked page by page when they are opened, at some 0.5 GB/s."""


def default_path() -> Path:
    """``$XDG_STATE_HOME/wireproto/chat.db``; ``~/.local/state`` when that is not set to an absolute path."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "wireproto" / "chat.db"


def path_of(url: str | None) -> Path:
    """The file a store URL names: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a plain path; None: the
    default.

    Raises:
        ConfigError: another kind of database, or one in memory, which no restart would survive.
    """
    if url is None:
        return default_path()
    scheme, separator, rest = url.partition("://")
    if not separator:
        rest = url
    elif scheme != "sqlite" or not rest.startswith("/") or "?" in rest:
        raise ConfigError(
            f"{url!r} is not a store; give sqlite:///PATH or a path, for example sqlite:////var/lib/chat.db"
        )
    else:
        rest = unquote(rest[1:])
    if rest in ("", ":memory:"):
        raise ConfigError(f"{url!r} names no file; give sqlite:///PATH or a path: the chat keeps its messages on disk")
    return Path(os.path.abspath(os.path.expanduser(rest)))


class Store:
    """An open database. Every method may be called from any thread.

    Args:
        url: see ``path_of``.
        clocks: not started yet.
        housekeeping: makes the writer's job that deletes what has expired.
        on_arrival: see ``Writer``.
        on_fatal: see ``Writer``.
        keep_free: bytes of the disk to leave free, see ``Space``.
        free: a function of a directory to the bytes free there.

    Raises:
        ConfigError: the file cannot be used; the text says why and what to do.
    """

    def __init__(
        self,
        url: str | None,
        *,
        clocks: Clocks,
        housekeeping: Callable[[], WriteJob[bool]],
        on_arrival: Callable[[dict[int, int]], None],
        on_fatal: Callable[[BaseException], None],
        keep_free: int = KEEP_FREE,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        # Links resolved, so that one file has one lock, whatever it is called by.
        self.path = Path(os.path.realpath(path_of(url)))
        self.clocks = clocks
        self._claim = claim(self.path)
        self._writing: Connection | None = None
        self._complaints = Complaints(log)
        space = Space(self.path, keep_free=keep_free, free=free)
        try:
            _make_private(self.path)
            space.open()
            self._engine = _engine(self.path)
            # Readers are connected when first needed and stay so. SQLAlchemy's pool would do, but
            # borrowing from it costs twice what a look-up does.
            self._readers: list[Connection] = []
            self._free = threading.BoundedSemaphore(READERS)
            try:
                self._writing = self._engine.connect()
                try:
                    self._prepare(self._writing)
                except DBAPIError as error:
                    if not (is_full(error) and space.give_up_reserve()):
                        raise
                    self._writing.close()
                    self._writing = self._engine.connect()
                    self._prepare(self._writing)
            except DBAPIError as error:
                raise _refusal(self.path, error) from error
            self.sql = Statements(self._engine.dialect)
            clocks.start(*self._writing.exec_driver_sql(self.sql.note).one())
            self._writer = Writer(
                self._writing,
                Transaction(self._writing, self.sql, clocks, space),
                space,
                on_arrival=on_arrival,
                on_fatal=on_fatal,
                housekeeping=housekeeping,
            )
        except BaseException:
            if self._writing is not None:
                self._writing.close()
            os.close(self._claim)
            raise
        self._writer.start()

    def rows(self, statement: str, *parameters: Any) -> Sequence[Sequence[Any]]:
        """All rows of one SELECT, as of the last commit.

        Raises:
            CallError: STORE_FAILED; SERVER_BUSY when all readers were busy for 2 s.
        """
        if self._writing is None:
            raise closed()
        if not self._free.acquire(timeout=READ_WAIT):
            raise CallError(
                Status.RESOURCE_EXHAUSTED,
                "SERVER_BUSY",
                "too many reads wait already; try again shortly",
                retry=Retry.NOT_PROCESSED,
                retry_after_ms=500,
            )
        try:
            try:
                reader = self._readers.pop()
            except IndexError:
                reader = _set_up_reader(self._engine.connect())
            try:
                return reader.exec_driver_sql(statement, parameters).all()
            finally:
                self._readers.append(reader)
        except DBAPIError as error:
            self._complaints.note("a read of the store", error)
            if is_fatal(error):
                self._writer.fail(error)
            raise store_error(error, reading=True) from error
        finally:
            self._free.release()

    def one(self, statement: str, *parameters: Any) -> Sequence[Any] | None:
        """The first row of one SELECT, if any; raises as ``rows`` does."""
        rows = self.rows(statement, *parameters)
        return rows[0] if rows else None

    def submit(self, job: WriteJob[R]) -> "Future[R]":
        """Have the writer do a job; its future is resolved after the commit. Raises as ``Writer.submit`` does."""
        return self._writer.submit(job)

    @property
    def counts(self) -> tuple[int, int]:
        """Jobs done and transactions they took, since the store was opened."""
        return self._writer.jobs, self._writer.batches

    def close(self, timeout: float = 10.0) -> bool:
        """Finish what waits, fold the log into the database, let go of the file.

        Returns:
            Whether the writer ended within ``timeout`` seconds; if not, the file stays claimed until the process ends.
        """
        if self._writing is None:
            return True
        if not self._writer.close(timeout):
            return False
        # Readers first, and for good: the last connection to close must be the one that may checkpoint.
        for _ in range(READERS):
            if not self._free.acquire(timeout=timeout):
                return False
        while self._readers:
            self._readers.pop().close()
        try:
            self._writing.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        except DBAPIError as error:
            log.warning("the log stays beside the database, the next start folds it in: %s", error.orig)
        self._writing.close()
        self._writing = None
        os.close(self._claim)
        return True

    def _prepare(self, connection: Connection) -> None:
        """Set the connection up, look at what kind of file it is, and make the tables in a new one."""

        def pragma(text: str) -> Any:
            result = connection.exec_driver_sql(f"PRAGMA {text}")
            return result.scalar() if result.returns_rows else None

        pragma("busy_timeout = 5000")
        application, version = pragma("application_id"), pragma("user_version")
        empty = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar() == 0
        if not empty and application != APPLICATION_ID:
            raise ConfigError(f"{self.path} is another program's database; give another --store")
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"{self.path} was written by a newer wireproto (schema {version}, this one knows {SCHEMA_VERSION}); "
                "install that version or give another --store"
            )
        if not empty and version < SCHEMA_VERSION:
            raise ConfigError(
                f"{self.path} was written by an older wireproto (schema {version}, this one needs {SCHEMA_VERSION}); "
                f"run: wireproto db upgrade --store {shlex.quote(str(self.path))}"
            )
        if pragma("journal_mode = WAL") != "wal":
            raise ConfigError(f"{self.path} is on a file system without shared memory; give a --store on a local disk")
        # FULL: the log is synced at every commit. The writer copies the log into the database by itself, see Writer.
        pragma("synchronous = FULL")
        pragma("wal_autocheckpoint = 0")
        pragma("cell_size_check = ON")
        pragma("cache_size = -16384")
        if empty:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            metadata.create_all(connection, checkfirst=False)
            connection.execute(insert(alembic_version).values(version_num=f"{SCHEMA_VERSION:04}"))
            # Not 0 when the first account is made: 0 is a live account's ``deleted_age``.
            connection.execute(insert(notes).values(id=1, age=1, noted_at=self.clocks.now))
            pragma(f"application_id = {APPLICATION_ID}")
            pragma(f"user_version = {SCHEMA_VERSION}")
            connection.exec_driver_sql("COMMIT")
        elif os.path.getsize(self.path) <= CHECKED_BYTES:
            found = pragma("quick_check(1)")
            if found != "ok":
                raise _damaged(self.path, found)
        if sqlite3.sqlite_version_info < (3, 51, 3):
            log.info("SQLite %s: one thread writes and checkpoints, as its log needs", sqlite3.sqlite_version)


def _engine(path: Path) -> Engine:
    return create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=NullPool,
        # Transactions are begun and ended by statements of ours; the driver's own idea of when to begin one is out of
        # the way.
        isolation_level="AUTOCOMMIT",
        connect_args={"check_same_thread": False, "cached_statements": 512},
        hide_parameters=True,  # they are passwords' hashes and people's messages; errors end in logs
        skip_autocommit_rollback=True,
    )


def _set_up_reader(connection: Connection) -> Connection:
    for pragma in ("query_only = ON", "busy_timeout = 2000", "wal_autocheckpoint = 0", "cell_size_check = ON"):
        connection.exec_driver_sql(f"PRAGMA {pragma}")
    return connection


def claim(path: Path) -> int:
    """Lock ``path`` for this process; the descriptor that holds the lock."""
    missing = [parent for parent in (path.parent, *path.parent.parents) if not parent.exists()]
    try:
        for parent in reversed(missing):
            parent.mkdir(mode=0o700, exist_ok=True)
        # Never unlinked: whoever waits for the old file would then hold a lock that nobody else sees.
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the store {path} cannot be opened ({error.strerror}); give a --store in a directory you may write to"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise ConfigError(
            f"the store {path} is in use by process {owner}; stop that server or give another --store"
        ) from error
    try:
        # In one write, and padded over a longer number: a full disk must not keep anybody from reading.
        os.pwrite(descriptor, f"{os.getpid():<19}\n".encode(), 0)
    except OSError as error:
        log.warning("%s.lock does not say who has it: %s", path, error.strerror)
    return descriptor


def _make_private(path: Path) -> None:
    """Create the database file, or tighten one that others may read: it holds messages and password hashes."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        # A new file is durable only once its directory is.
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConfigError(
            f"the store {path} cannot be written ({error.strerror}); make it yours or give another --store"
        ) from error


def _damaged(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"{path} is damaged ({found}); restore a backup or give another --store. "
        f"All that is wrong with it: wireproto db check --store {shlex.quote(str(path))}"
    )


def _refusal(path: Path, error: DBAPIError) -> ConfigError:
    name = getattr(error.orig, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return ConfigError(f"{path} is damaged or no database ({error.orig}); restore a backup or give another --store")
    if is_full(error):
        return ConfigError(f"the disk of {path} is full ({error.orig}); make room there, then start again")
    return ConfigError(f"the store {path} cannot be opened ({error.orig}); see that this user may write to it")
