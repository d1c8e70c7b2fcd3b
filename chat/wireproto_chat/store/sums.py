"""Whether a row is what was stored: a checksum in each, over all its other columns.

A disk that returns another bit than it was given says nothing of it, and neither does SQLite, whose database has no
checksums. So the last column of every table that anything rests on is a CRC-32 of the others, in their order and as
msgpack, so that a text is not a blob and 1 is not "1". It begins with the name of the table, so that a row that turns
up in another one is none there. Every row is read whole, and looked at before anybody is shown it or anything is
decided by it; before it is changed, too, or its next checksum would vouch for what was wrong in it.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from wireproto import CallError, LogLimit
from wireproto_chat.store.failures import damaged
from wireproto_chat.store.tables import (
    CHECKSUM,
    Query,
    accounts,
    guesses,
    idempotency_keys,
    mailboxes,
    messages,
    metadata,
    notes,
    sessions,
)

__all__ = [
    "ACCOUNT",
    "GUESS",
    "KEY",
    "MAILBOX",
    "MESSAGE",
    "NOTE",
    "SESSION",
    "SUMMED",
    "RowSum",
    "encode_row",
    "note_fault",
    "schema_sum",
    "unsound",
    "verified",
]

log = logging.getLogger("wireproto_chat.store")

encode_row: Final = msgspec.msgpack.Encoder().encode
"""A row's values as the bytes that are summed."""


class RowSum:
    """The checksum of one table's rows.

    Args:
        table: its name.
        what: what a caller is told that one of its rows is.

    Attributes:
        seed: what the checksum of each row begins with. ``crc32(encode_row(values), seed)`` is what ``of`` does, where
            the cost of a call counts.
        key: names of the columns that the primary key consists of.
        columns: ... of all that are summed.
    """

    __slots__ = ("columns", "key", "seed", "table", "what")

    def __init__(self, table: str, what: str) -> None:
        found = metadata.tables[table]
        self.table = table
        self.what = what
        self.seed = crc32(table.encode())
        self.key = tuple(column.name for column in found.primary_key.columns)
        *self.columns, last = (column.name for column in found.columns)
        if last != CHECKSUM:
            raise ValueError(f"the last column of {table} is {last}")

    def of(self, values: Sequence[Any]) -> int:
        """The checksum of a row with these values, which are all but the checksum itself."""
        return crc32(encode_row(values), self.seed)

    def row(self, *values: Any) -> tuple[Any, ...]:
        """The whole row, to be stored."""
        return (*values, crc32(encode_row(values), self.seed))

    def holds(self, row: Sequence[Any]) -> bool:
        """Whether a whole row is what was stored."""
        return bool(crc32(encode_row(tuple(row[:-1])), self.seed) == row[-1])

    def refusal(self, row: Sequence[Any]) -> CallError:
        """What a call is told that needs this row, which is not what was stored. The log is told which it is."""
        more = _limit.admit(self.table)
        if more is not None:
            log.error("%s is not what was stored; run: wireproto db check%s", self.name_of(row), more)
        return damaged(f"{self.what} is not what was stored")

    def name_of(self, row: Sequence[Any]) -> str:
        """Which row it is, by its table and its key as it reads now."""
        named = dict(zip(self.columns, row, strict=False))
        keys = (_shown(named[name]) for name in self.key)
        return f"the row of {self.table} with the key {', '.join(keys)}"


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


_limit = LogLimit(clock=time.monotonic)

ACCOUNT: Final = RowSum(accounts.name, "an account")
SESSION: Final = RowSum(sessions.name, "a session")
MAILBOX: Final = RowSum(mailboxes.name, "a mailbox")
MESSAGE: Final = RowSum(messages.name, "a message")
KEY: Final = RowSum(idempotency_keys.name, "what was answered under this idempotency key")
GUESS: Final = RowSum(guesses.name, "a count of failed log-ins")
NOTE: Final = RowSum(notes.name, "the age of the store")

SUMMED: Final = {each.table: each for each in (ACCOUNT, SESSION, MAILBOX, MESSAGE, KEY, GUESS, NOTE)}
"""By the table's name."""


class Part(NamedTuple):
    """Where in the rows of a statement a whole row of a table is."""

    sums: RowSum
    start: int
    end: int


def _parts(query: Query) -> tuple[Part, ...]:
    parts: list[Part] = []
    start = 0
    for table in query.tables:
        sums = SUMMED[table]
        end = start + len(sums.columns) + 1
        parts.append(Part(sums, start, end))
        start = end
    return tuple(parts)


_parts_of: dict[Query, tuple[Part, ...]] = {}


def unsound(query: Query, row: Sequence[Any]) -> CallError | None:
    """Why a row must not be used; None when it may."""
    parts = _parts_of.get(query)
    if parts is None:
        parts = _parts_of[query] = _parts(query)
    for sums, start, end in parts:
        part = row[start:end]
        if crc32(encode_row(tuple(part[:-1])), sums.seed) != part[-1]:
            return sums.refusal(part)
    return None


def verified(query: Query, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """All of the rows that a statement has found.

    Raises:
        CallError: STORE_FAILED, DATA_LOSS: one of them is not what was stored.
    """
    for row in rows:
        refusal = unsound(query, row)
        if refusal is not None:
            raise refusal
    return rows


def schema_sum(texts: Iterable[Sequence[Any]]) -> int:
    """The checksum of a schema.

    Args:
        texts: kind, name, table and text of each part, as ``tables.SCHEMA_TEXTS`` finds them.
    """
    return crc32(encode_row([list(map(str, each)) for each in texts]), crc32(b"schema"))


def note_fault(found: Sequence[Sequence[Any]], texts: Iterable[Sequence[Any]]) -> str:
    """What is wrong with the one row of ``notes``, or with the schema that it vouches for; empty if nothing is.

    Args:
        found: the table's rows.
        texts: see ``schema_sum``.
    """
    if len(found) != 1:
        return f"notes has {len(found)} rows, not 1"
    row = found[0]
    if not NOTE.holds(row):
        return f"{NOTE.name_of(row)} is not what was stored"
    if row[3] != schema_sum(texts):
        return "the schema is not the one that the tables were made with"
    return ""
