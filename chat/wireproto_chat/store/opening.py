"""Setting up SQLite's connections: what kind of database it is, its tables if it is new, and why it is refused."""

import logging
import os
import shlex
import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, create_engine, insert, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from wireproto import ConfigError
from wireproto_chat.store.failures import in_sqlites_words, is_full
from wireproto_chat.store.files import APPLICATION_ID, NEW_STORE, newer, older, refusal
from wireproto_chat.store.sums import NOTE, note_fault, schema_sum
from wireproto_chat.store.tables import SCHEMA_TEXTS, SCHEMA_VERSION, alembic_version, metadata, notes

__all__ = ["connect", "in_words", "prepare", "set_up_reader", "why_not"]

log = logging.getLogger("wireproto_chat.store")

CHECKED_BYTES: Final = 256 * 1024 * 1024
"""Databases up to this size are checked page by page when they are opened, at some 0.5 GB/s."""

CHECKED_INDEXES: Final = 64 * 1024 * 1024
"""... and up to this one their indexes are compared with their tables, too, which takes longer."""

DESCRIPTORS: Final = 5
"""Those that SQLite may want at once: the database, its log, the memory shared with readers, a journal, a directory."""


def connect(path: Path) -> Engine:
    """What makes connections to a database."""
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


def set_up_reader(connection: Connection) -> Connection:
    """Make a connection one that reads."""
    for pragma in ("query_only = ON", "busy_timeout = 2000", "wal_autocheckpoint = 0", "cell_size_check = ON"):
        connection.exec_driver_sql(f"PRAGMA {pragma}")
    return connection


def prepare(path: Path, connection: Connection, now: int) -> tuple[int, int, int]:
    """Set up the connection that writes, look at the database, and make the tables in a new one.

    Args:
        path: for the sentences.
        connection: in autocommit mode.
        now: the time of day, microseconds.

    Returns:
        The age of the store, the time of day at which that was noted, both in microseconds, and the checksum of the
        schema.

    Raises:
        ConfigError: the database is not to be served.
        DBAPIError: SQLite failed.
    """

    def pragma(text: str) -> Any:
        result = connection.exec_driver_sql(f"PRAGMA {text}")
        return result.scalar() if result.returns_rows else None

    pragma("busy_timeout = 5000")
    empty = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar() == 0
    version = pragma("user_version")
    if empty:
        # Before there is a log, so that the database says from its first byte whose it is. What is killed behind this
        # is a chat's database without tables, and the next start makes them.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        pragma(f"application_id = {APPLICATION_ID}")
        pragma(f"user_version = {SCHEMA_VERSION}")
        connection.exec_driver_sql("COMMIT")
    # The file was looked at before; what is in its log may still say something else.
    elif version > SCHEMA_VERSION:
        raise newer(path, version)
    elif NEW_STORE <= version < SCHEMA_VERSION:
        raise older(path, version)
    if pragma("journal_mode = WAL") != "wal":
        raise ConfigError(f"{path} is on a file system without shared memory; give a --store on a local disk")
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
        schema = schema_sum(connection.exec_driver_sql(SCHEMA_TEXTS).all())
        row = NOTE.row(1, 1, now, schema)
        connection.execute(insert(notes).values(dict(zip(notes.columns.keys(), row, strict=True))))
        connection.exec_driver_sql("COMMIT")
    elif found := _fault(connection, path):
        raise _damaged(path, found)
    if sqlite3.sqlite_version_info < (3, 51, 3):
        log.info("SQLite %s: one thread writes and checkpoints, as its log needs", sqlite3.sqlite_version)
    _, age, noted_at, schema, _ = connection.exec_driver_sql(str(select(notes))).one()
    return age, noted_at, schema


def _fault(connection: Connection, path: Path) -> str:
    """What is wrong with a database as a whole; nothing about single rows, each of which fails whoever needs it."""
    size = os.path.getsize(path)
    if size <= CHECKED_BYTES:
        # The longer check finds what is missing from an index, too, which a reader would not notice.
        check = "integrity_check" if size <= CHECKED_INDEXES else "quick_check"
        found = connection.exec_driver_sql(f"PRAGMA {check}(1)").scalar()
        if found != "ok":
            return str(found)
    return note_fault(
        connection.exec_driver_sql(str(select(notes))).all(), connection.exec_driver_sql(SCHEMA_TEXTS).all()
    )


def _damaged(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"{path} is damaged ({found}); restore a backup or give another --store. "
        f"All that is wrong with it: wireproto db check --store {shlex.quote(str(path))}"
    )


def why_not(path: Path, error: DBAPIError | UnicodeDecodeError) -> ConfigError:
    """Why a database could not be opened, in a sentence that says what to do."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return in_words(f"the store {path} cannot be opened", path, cause)


def in_words(what: str, path: Path, error: BaseException) -> ConfigError:
    """The same for an error of SQLite's own, and whatever was to be done with the database."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return ConfigError(f"{path} is damaged or no database ({error}); restore a backup or give another --store")
    if is_full(error):
        return ConfigError(f"the disk of {path} is full ({error}); make room there, then start again")
    # SQLite says only that it could not open a file, not which and why. A process that has no more descriptors can be
    # told; else it is a right that is missing, which the system does not tell beforehand.
    try:
        _want_descriptors()
    except OSError as reason:
        return refusal(what, reason)
    advice = next((told for start, told in _ADVICE.items() if name.startswith(start)), "")
    if not advice:
        # What is left is SQLite's word for a text that it cannot read, such as a table's.
        return _damaged(path, in_sqlites_words(error))
    return ConfigError(f"{what} ({error}); {advice}")


_ADVICE: Final = {
    "SQLITE_CANTOPEN": "see that this user may read it, and write to its directory",
    "SQLITE_READONLY": "see that this user may write to it",
    "SQLITE_PERM": "see that this user may write to it",
    "SQLITE_BUSY": "another program has it open; try again when that is over",
    "SQLITE_LOCKED": "another program has it open; try again when that is over",
    "SQLITE_IOERR": "check its disk, then try again",
    "SQLITE_NOMEM": "there is not enough memory for that",
}
"""By how the name of SQLite's code begins."""


def _want_descriptors() -> None:
    held: list[int] = []
    try:
        for _ in range(DESCRIPTORS):
            held.append(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    finally:
        for descriptor in held:
            os.close(descriptor)
