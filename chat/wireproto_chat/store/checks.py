"""Whether a database is whole: what ``wireproto db check`` says of it."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from wireproto_chat.store.failures import in_sqlites_words
from wireproto_chat.store.sums import SUMMED, RowSum, note_fault
from wireproto_chat.store.tables import CHECKSUM, SCHEMA_TEXTS, SCHEMA_VERSION

__all__ = ["faults"]

MOST: Final = 100
"""Sentences about one kind of fault; how many more there are is said in one."""

# What must hold between the tables, as a count of rows that break it.
_RULES: Final = {
    "mailboxes whose acknowledged end is not between 0 and their newest message": """
        SELECT count(*) FROM mailboxes WHERE acked_seq NOT BETWEEN 0 AND head_seq
        OR bytes_acked NOT BETWEEN 0 AND bytes_in""",
    "mailboxes whose messages are not 1, 2, 3 up to the newest": """
        SELECT count(*) FROM mailboxes AS b WHERE b.head_seq !=
        (SELECT count(*) FROM messages WHERE mailbox_id = b.account_id) OR b.head_seq !=
        (SELECT coalesce(max(seq), 0) FROM messages WHERE mailbox_id = b.account_id)""",
    "mailboxes that count their deleted messages wrongly": """
        SELECT count(*) FROM mailboxes AS b WHERE b.deleted !=
        (SELECT count(*) FROM messages WHERE mailbox_id = b.account_id AND seq > b.acked_seq AND body IS NULL)""",
    "messages without a mailbox": """
        SELECT count(*) FROM messages WHERE mailbox_id NOT IN (SELECT account_id FROM mailboxes)""",
    "live accounts without a mailbox, or mailboxes without a live account": """
        SELECT count(*) FROM accounts LEFT JOIN mailboxes ON account_id = id
        WHERE (deleted_age = 0) != (account_id IS NOT NULL)""",
}


def faults(database: sqlite3.Connection) -> list[str]:
    """What is wrong with a database of this release's schema, a sentence each.

    Each part is looked at by itself, so that one that cannot be read hides nothing of the others.
    """
    database.text_factory = _text
    database.execute("BEGIN")  # one state for all that is read
    wrong: list[str] = []
    looks: list[Callable[[sqlite3.Connection], Iterator[str]]] = [_pages, _schema]
    for sums in SUMMED.values():
        looks.append(lambda database, sums=sums: _rows(database, sums))  # type: ignore[misc]
    looks += [_references, _rules]
    for look in looks:
        sentences = look(database)
        try:
            wrong += (sentence for sentence, _ in zip(sentences, range(MOST), strict=False))
            more = sum(1 for _ in sentences)
            if more:
                wrong.append(f"... and {more} more like this")
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            wrong.append(in_sqlites_words(error))
    return list(dict.fromkeys(wrong))


def _text(raw: bytes) -> str | bytes:
    """A text, or the bytes of one that is none, and so not what was stored."""
    with suppress(UnicodeDecodeError):
        return raw.decode()
    return raw


def _pages(database: sqlite3.Connection) -> Iterator[str]:
    for (found,) in database.execute(f"PRAGMA integrity_check({MOST})"):
        if found != "ok":
            yield str(found)


def _schema(database: sqlite3.Connection) -> Iterator[str]:
    found: Sequence[Sequence[Any]] = database.execute("SELECT * FROM notes").fetchall()
    fault = note_fault(found, database.execute(SCHEMA_TEXTS).fetchall())
    if fault:
        yield fault
    revisions = database.execute("SELECT version_num FROM alembic_version").fetchall()
    if revisions != [(f"{SCHEMA_VERSION:04}",)]:
        yield f"the revision is {revisions}, which belongs to another schema"


def _rows(database: sqlite3.Connection, sums: RowSum) -> Iterator[str]:
    columns = ", ".join((*sums.columns, CHECKSUM))
    for row in database.execute(f"SELECT {columns} FROM {sums.table} NOT INDEXED"):
        if not sums.holds(row):
            yield f"{sums.name_of(row)} is not what was stored"


def _references(database: sqlite3.Connection) -> Iterator[str]:
    for table, row, referred, _ in database.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} refers to a row of {referred} that is missing"


def _rules(database: sqlite3.Connection) -> Iterator[str]:
    for name, rule in _RULES.items():
        (count,) = database.execute(rule).fetchone()
        if count:
            yield f"{count} {name}"
