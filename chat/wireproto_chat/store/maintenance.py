"""What is done to a chat's database besides serving it: upgrading it, checking it, backing it up."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from wireproto import ConfigError
from wireproto_chat.opcodes import NAME
from wireproto_chat.store.copies import fill, unfinished
from wireproto_chat.store.files import claim, real_path, unclaim
from wireproto_chat.store.opening import in_words
from wireproto_chat.store.reading import read, schema_of
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
                    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    connection.exec_driver_sql("COMMIT")
                except BaseException:
                    if database.in_transaction:
                        connection.exec_driver_sql("ROLLBACK")
                    raise
            return found, SCHEMA_VERSION, kept
    except sqlite3.Error as error:
        raise in_words(f"the store {path} cannot be upgraded, and is as it was", path, error) from error
    finally:
        unclaim(lock)


def check(url: str | None) -> list[str]:
    """Read all of a database, and see whether it is whole. A server may be running on it.

    Args:
        url: see ``store.path_of``.

    Returns:
        What is wrong with it, a sentence each; nothing when it is whole.

    Raises:
        ConfigError: it is missing, not a chat database, or of another release.
    """
    path = real_path(url)
    try:
        return read(path, lambda database: _faults(path, database))
    except sqlite3.DatabaseError as error:
        return [str(error)]


def _faults(path: Path, database: sqlite3.Connection) -> list[str]:
    found = schema_of(path, database)
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
    path = real_path(url)
    made = Path(os.path.abspath(os.path.expanduser(target)))

    def copy(database: sqlite3.Connection) -> None:
        schema_of(path, database)
        fill(database, part)

    try:
        with unfinished(made) as part:
            read(path, copy)
    except sqlite3.Error as error:
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
