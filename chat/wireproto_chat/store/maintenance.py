"""What is done to a chat's database besides serving it: upgrading it, checking it, backing it up."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from wireproto import ConfigError
from wireproto_chat.opcodes import NAME
from wireproto_chat.store.store import APPLICATION_ID, claim, path_of
from wireproto_chat.store.tables import SCHEMA_VERSION

__all__ = ["backup", "check", "upgrade"]

MIGRATIONS = Path(__file__).parent / "migrations"
"""Where alembic finds its ``env.py`` and, in ``versions``, its revisions."""

# What must hold between the tables, as a count of rows that break it.
_RULES = {
    "mailboxes whose acknowledged end is not between 0 and their newest message": """
        SELECT count(*) FROM mailboxes WHERE acked_seq NOT BETWEEN 0 AND head_seq
        OR bytes_acked NOT BETWEEN 0 AND bytes_in""",
    "mailboxes whose messages are not 1, 2, 3 up to the newest": """
        SELECT count(*) FROM mailboxes AS b WHERE b.head_seq !=
        (SELECT count(*) FROM messages WHERE mailbox_id = b.account_id) OR b.head_seq !=
        (SELECT coalesce(max(seq), 0) FROM messages WHERE mailbox_id = b.account_id)""",
    "messages without a mailbox": """
        SELECT count(*) FROM messages WHERE mailbox_id NOT IN (SELECT account_id FROM mailboxes)""",
    "live accounts without a mailbox, or mailboxes without a live account": """
        SELECT count(*) FROM accounts LEFT JOIN mailboxes ON account_id = id
        WHERE (deleted_age = 0) != (account_id IS NOT NULL)""",
}


def upgrade(url: str | None, *, keep: bool = True) -> tuple[int, int, Path | None]:
    """Bring a database to the schema of this release. No server may have it open meanwhile.

    All of it is one transaction: after an error or a crash the database is what it was.

    Args:
        url: see ``store.path_of``.
        keep: whether to make a backup first, beside it, when there is anything to do.

    Returns:
        The schema it had, the one it has, and the backup.

    Raises:
        ConfigError: it is in use, missing, not a chat database, of a newer release, or cannot be written; the backup
            exists already.
    """
    path = _existing(url)
    lock = claim(path)
    try:
        # Imported here: a server does without it.
        from alembic.command import upgrade as migrate
        from alembic.config import Config
        from sqlalchemy import create_engine
        from sqlalchemy.pool import StaticPool

        with _opened(path, "rw") as database:
            found = _schema(path, database)
            if found == SCHEMA_VERSION:
                return found, found, None
            kept = backup(str(path), f"{path}.schema{found}") if keep else None
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
                    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    connection.exec_driver_sql("COMMIT")
                except BaseException:
                    if database.in_transaction:
                        connection.exec_driver_sql("ROLLBACK")
                    raise
            return found, SCHEMA_VERSION, kept
    except sqlite3.Error as error:
        raise ConfigError(f"the store {path} cannot be upgraded ({error}); it is as it was") from error
    finally:
        os.close(lock)


def check(url: str | None) -> list[str]:
    """Read all of a database, and see whether it is whole. A server may be running on it.

    Args:
        url: see ``store.path_of``.

    Returns:
        What is wrong with it, a sentence each; nothing when it is whole.

    Raises:
        ConfigError: it is missing, not a chat database, or of another release.
    """
    path = _existing(url)
    try:
        with _opened(path, "ro") as database:
            found = _schema(path, database)
            if found < SCHEMA_VERSION:
                raise ConfigError(f"{path} has schema {found}; run: wireproto db upgrade")
            database.execute("BEGIN")  # one state for all that is read
            wrong = [str(row[0]) for row in database.execute("PRAGMA integrity_check(20)")]
            if wrong == ["ok"]:
                wrong = [
                    f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is missing"
                    for row in database.execute("PRAGMA foreign_key_check").fetchmany(20)
                ]
                counts = {name: database.execute(rule).fetchone()[0] for name, rule in _RULES.items()}
                wrong += [f"{count} {name}" for name, count in counts.items() if count]
                wrong += _unreadable(database)
            return wrong
    except sqlite3.DatabaseError as error:
        return [str(error)]


def backup(url: str | None, target: str | Path) -> Path:
    """Copy a database as it is at one moment. A server may be running on it.

    Args:
        url: see ``store.path_of``.
        target: the file to make; it must not exist.

    Returns:
        The file, which is on durable storage, and only its owner may read it.

    Raises:
        ConfigError: the database is missing or no chat database, or the file cannot be made.
    """
    path = _existing(url)
    made = Path(os.path.abspath(os.path.expanduser(target)))
    try:
        os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise ConfigError(f"{made} exists; give another name, or remove it") from None
    except OSError as error:
        raise ConfigError(f"{made} cannot be made ({error.strerror}); give a file in a directory of yours") from error
    try:
        with _opened(path, "ro") as database:
            _schema(path, database)
            with closing(sqlite3.connect(made)) as copy:
                database.backup(copy)  # in one step, so of one commit
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        for name in (made, made.parent):
            descriptor = os.open(name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except (sqlite3.Error, OSError) as error:
        made.unlink()
        raise ConfigError(f"{path} cannot be copied to {made} ({error})") from error
    except BaseException:
        made.unlink()
        raise
    return made


def _unreadable(database: sqlite3.Connection) -> Iterator[str]:
    """What SQLite does not look at: whether names and texts are what may be stored as such, and as long as was noted.

    A text that was changed into another one of its length is not found: nothing says what it was.
    """
    for account_id, name in database.execute("SELECT id, CAST(name AS BLOB) FROM accounts"):
        if NAME.fullmatch(name.decode("ascii", "replace")) is None:
            yield f"account {account_id} has the name {name!r}, which is none"
    messages = "SELECT mailbox_id, seq, bytes_through, body FROM messages ORDER BY mailbox_id, seq"
    mailbox, through = -1, 0
    for mailbox_id, sequence, bytes_through, body in database.execute(messages):
        before = through if mailbox_id == mailbox else 0
        mailbox, through = mailbox_id, bytes_through
        try:
            fits = body is None or len(body.decode().encode()) == bytes_through - before
        except (AttributeError, UnicodeDecodeError):
            fits = False
        if not fits or bytes_through < before:
            yield f"message {sequence} of mailbox {mailbox_id} has a text that is not the one stored"


def _existing(url: str | None) -> Path:
    path = Path(os.path.realpath(path_of(url)))
    if not path.is_file():
        raise ConfigError(f"there is no store {path}; give --store, or start a server, which makes one")
    return path


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection that leaves the log alone while a server may be using it: that one copies it, see ``Writer``."""
    uri = f"{path.as_uri()}?mode={mode}"
    with closing(
        sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0, check_same_thread=False)
    ) as database:
        database.execute("PRAGMA wal_autocheckpoint = 0")
        yield database


def _schema(path: Path, database: sqlite3.Connection) -> int:
    """The schema's version, of a database that is the chat's."""
    try:
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{path} is damaged or no database ({error}); restore a backup") from error
    if application != APPLICATION_ID:
        raise ConfigError(f"{path} is not a chat's database; give another --store")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path} was written by a newer wireproto (schema {version}, this one knows {SCHEMA_VERSION}); "
            "install that version"
        )
    return int(version)
