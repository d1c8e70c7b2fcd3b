"""Setting up SQLite's connections: what kind of database it is, its tables if it is new, and why it is refused."""

import logging
import os
import shlex
import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, create_engine, insert
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from wireproto import ConfigError
from wireproto_chat.store.failures import is_full
from wireproto_chat.store.files import APPLICATION_ID, NEW_STORE, newer, older, refusal
from wireproto_chat.store.tables import SCHEMA_VERSION, alembic_version, metadata, notes

__all__ = ["connect", "in_words", "prepare", "set_up_reader", "why_not"]

log = logging.getLogger("wireproto_chat.store")

CHECKED_BYTES: Final = 256 * 1024 * 1024
"""Databases up to this size are checked page by page when they are opened, at some 0.5 GB/s."""

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


def prepare(path: Path, connection: Connection, now: int) -> None:
    """Set up the connection that writes, look at the database, and make the tables in a new one.

    Args:
        path: for the sentences.
        connection: in autocommit mode.
        now: the time of day, microseconds.

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
        connection.execute(insert(notes).values(id=1, age=1, noted_at=now))
        connection.exec_driver_sql("COMMIT")
    elif os.path.getsize(path) <= CHECKED_BYTES:
        found = pragma("quick_check(1)")
        if found != "ok":
            raise _damaged(path, found)
    if sqlite3.sqlite_version_info < (3, 51, 3):
        log.info("SQLite %s: one thread writes and checkpoints, as its log needs", sqlite3.sqlite_version)


def _damaged(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"{path} is damaged ({found}); restore a backup or give another --store. "
        f"All that is wrong with it: wireproto db check --store {shlex.quote(str(path))}"
    )


def why_not(path: Path, error: DBAPIError) -> ConfigError:
    """Why a database could not be opened, in a sentence that says what to do."""
    return in_words(f"the store {path} cannot be opened", path, error.orig if error.orig is not None else error)


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
    if name.startswith("SQLITE_CANTOPEN"):
        return ConfigError(f"{what} ({error}); see that this user may read it, and write to its directory")
    return ConfigError(f"{what} ({error}); see that this user may write to it")


def _want_descriptors() -> None:
    held: list[int] = []
    try:
        for _ in range(DESCRIPTORS):
            held.append(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    finally:
        for descriptor in held:
            os.close(descriptor)
