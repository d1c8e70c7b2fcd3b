"""What is done to a chat's database besides serving it: upgrading it, checking it, backing it up."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import Connection

from wireproto import ConfigError
from wireproto_chat.store.checks import faults
from wireproto_chat.store.copies import fill, unfinished
from wireproto_chat.store.failures import in_sqlites_words
from wireproto_chat.store.files import claim, real_path, unclaim
from wireproto_chat.store.opening import in_words
from wireproto_chat.store.reading import read, schema_of
from wireproto_chat.store.sums import NOTE, note_fault, schema_sum
from wireproto_chat.store.tables import SCHEMA_TEXTS, SCHEMA_VERSION

__all__ = ["backup", "check", "upgrade"]

MIGRATIONS = Path(__file__).parent / "migrations"
"""Where alembic finds its ``env.py`` and, in ``versions``, its revisions."""


def upgrade(url: str | None, *, keep: bool = True) -> tuple[int, int, Path | None]:
    """Bring a database to the schema of this release. No server may have it open meanwhile.

    All of it is one transaction: after an error or a crash the database is what it was.

    Args:
        url: see ``files.path_of``.
        keep: whether to make a backup first, beside it, when there is anything to do.

    Returns:
        The schema it had, the one it has, and the backup.

    Raises:
        ConfigError: it is in use, missing, not a chat database, of a newer release, or cannot be written; the backup
            exists already.
    """
    path = real_path(url)
    lock = claim(path, existing=True)
    try:
        # Imported here: a server does without it.
        from alembic.command import upgrade as migrate
        from alembic.config import Config
        from sqlalchemy import create_engine
        from sqlalchemy.pool import StaticPool

        with closing(_writable(path)) as database:
            found = schema_of(path, database)
            if found == SCHEMA_VERSION:
                return found, found, None
            _whole_schema(path, database)
            kept = _kept(path, found, database) if keep else None
            engine = create_engine("sqlite://", creator=lambda: database, poolclass=StaticPool)
            with engine.connect() as connection:
                config = Config(attributes={"connection": connection})
                config.set_main_option("script_location", str(MIGRATIONS))
                config.set_main_option("version_locations", str(MIGRATIONS / "versions"))
                config.set_main_option("path_separator", "os")
                connection.exec_driver_sql("PRAGMA synchronous = FULL")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    migrate(config, f"{SCHEMA_VERSION:04}")
                    _note_schema(connection)
                    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    connection.exec_driver_sql("COMMIT")
                except BaseException:
                    if database.in_transaction:
                        connection.exec_driver_sql("ROLLBACK")
                    raise
            return found, SCHEMA_VERSION, kept
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise in_words(f"the store {path} cannot be upgraded, and is as it was", path, error) from error
    finally:
        unclaim(lock)


def check(url: str | None) -> list[str]:
    """Read all of a database, and see whether it is whole. A server may be running on it.

    Args:
        url: see ``files.path_of``.

    Returns:
        What is wrong with it, a sentence each; nothing when it is whole.

    Raises:
        ConfigError: it is missing, not a chat database, or of another release.
    """
    path = real_path(url)
    try:
        return read(path, lambda database: _faults(path, database))
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        return [in_sqlites_words(error)]


def _faults(path: Path, database: sqlite3.Connection) -> list[str]:
    found = schema_of(path, database)
    if found < SCHEMA_VERSION:
        raise ConfigError(f"{path} has schema {found}; run: wireproto db upgrade")
    return faults(database)


def backup(url: str | None, target: str | Path) -> Path:
    """Copy a database as it is at one moment. A server may be running on it.

    Args:
        url: see ``files.path_of``.
        target: the file to make; it must not exist.

    Returns:
        The file, which is on durable storage, and only its owner may read it.

    Raises:
        ConfigError: the database is missing or no chat database, or the file cannot be made.
    """
    path = real_path(url)
    made = Path(os.path.abspath(os.path.expanduser(target)))

    def copy(database: sqlite3.Connection) -> None:
        schema_of(path, database)
        fill(database, part)

    try:
        with unfinished(made) as part:
            read(path, copy)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise in_words(f"{path} cannot be copied to {made}", made, error) from error
    return made


def _kept(path: Path, schema: int, database: sqlite3.Connection) -> Path:
    """Copy a database as it was before its upgrade."""
    kept = Path(f"{path}.schema{schema}")
    with unfinished(kept) as part:
        fill(database, part)
    return kept


def _writable(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False)


def _whole_schema(path: Path, database: sqlite3.Connection) -> None:
    """See that the tables are those that were made: a migration would go by what they say now.

    Raises:
        ConfigError: they are not.
    """
    fault = note_fault(database.execute("SELECT * FROM notes").fetchall(), database.execute(SCHEMA_TEXTS).fetchall())
    if fault:
        raise ConfigError(f"{path} is damaged ({fault}); restore a backup")


def _note_schema(connection: Connection) -> None:
    """Have the database vouch for the schema that it has got."""
    row = connection.exec_driver_sql("SELECT id, age, noted_at FROM notes").one()
    *_, schema, checksum = NOTE.row(*row, schema_sum(connection.exec_driver_sql(SCHEMA_TEXTS).all()))
    connection.exec_driver_sql("UPDATE notes SET schema_sum = ?, checksum = ?", (schema, checksum))
