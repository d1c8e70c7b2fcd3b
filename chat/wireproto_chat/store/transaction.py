"""What a job may do inside the writer's transaction.

There is one ``Transaction`` for the life of a store. Only the writer thread touches it, so nothing here locks. It knows
the mailboxes that were lately used and keeps their counters in memory, which is sound because this process is the
file's only writer; it collects the rows that jobs add, and writes them with a few statements before the commit. What it
reads it looks at, and what it writes has a checksum, see ``sums``.
"""

import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, cast
from zlib import crc32

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from wireproto import CallError
from wireproto_chat.store.clocks import NOTE_STEP, Clocks
from wireproto_chat.store.failures import damaged, store_full
from wireproto_chat.store.names import AccountNames
from wireproto_chat.store.space import Space
from wireproto_chat.store.sums import (
    ACCOUNT,
    GUESS,
    KEY,
    MAILBOX,
    MESSAGE,
    NOTE,
    SESSION,
    encode_row,
    unsound,
    verified,
)
from wireproto_chat.store.tables import Query, Rows, Statements

__all__ = ["IdempotencyKey", "KnownKey", "Mailbox", "Transaction"]

IdempotencyKey = tuple[int, bytes]
"""An account's id and an idempotency key of its own."""

_MAILBOX_SEED: Final = MAILBOX.seed
_MESSAGE_SEED: Final = MESSAGE.seed
_KEY_SEED: Final = KEY.seed

CACHED_MAILBOXES = 20_000
"""Mailboxes kept in memory, some 400 bytes each; beyond it all are forgotten, and read again when next used."""


class KnownKey(NamedTuple):
    """What is stored under an idempotency key: what was asked, and what was answered.

    Attributes:
        refusal: why none of that may be used, if it is not what was stored. Whoever repeats a call looks at it first.
    """

    request_hash: bytes
    message_id: bytes
    sequence: int
    used_age: int
    refusal: CallError | None = None


class Mailbox:
    """The counters of one mailbox as the transaction sees them.

    Attributes:
        head: the sequence of the newest message; 0 in an empty mailbox.
        acked: the sequence up to which everything is acknowledged.
        bytes_in: bytes of text ever accepted, counted up to ``head``.
        bytes_acked: ... up to ``acked``.
        deleted: messages behind ``acked`` that were deleted, and so wait for nobody. Their bytes count until they are
            acknowledged with the others.
    """

    __slots__ = ("account_id", "acked", "bytes_acked", "bytes_in", "deleted", "head", "name")

    def __init__(
        self, account_id: int, head: int, acked: int, bytes_in: int, bytes_acked: int, deleted: int, name: str
    ) -> None:
        self.account_id = account_id
        self.head = head
        self.acked = acked
        self.bytes_in = bytes_in
        self.bytes_acked = bytes_acked
        self.deleted = deleted
        self.name = name

    @property
    def undelivered(self) -> int:
        """Messages that are neither acknowledged nor deleted."""
        return self.head - self.acked - self.deleted


class Transaction:
    """The writer's connection between BEGIN and COMMIT.

    Attributes:
        now: microseconds since 1970 at the beginning of the transaction; to be shown.
        age: the store's age then, which every rule goes by; see ``Clocks``.
        sql: the statements.
        known: the idempotency keys asked for by the jobs of this transaction, as far as they exist.
        arrived: accounts whose mailbox got messages in this transaction, with the new head.
        inherited: the id of the newest message that was there when the store was opened.
        names: of accounts, shared with those who read.
    """

    def __init__(
        self,
        connection: Connection,
        sql: Statements,
        clocks: Clocks,
        space: Space,
        names: AccountNames,
        schema_sum: int,
    ) -> None:
        self._connection = connection
        self._driver: sqlite3.Connection = cast("sqlite3.Connection", connection.connection.driver_connection)
        self._space = space
        self._clocks = clocks
        # When the age was noted last; ``_noting`` becomes that once it is committed.
        self._noted = self._noting = -NOTE_STEP
        self._schema_sum = schema_sum
        self.names = names
        self.sql = sql
        self.now = 0
        self.age = 0
        self.known: dict[IdempotencyKey, KnownKey] = {}
        self.arrived: dict[int, int] = {}
        row = self.one(sql.message_newest)
        self.inherited: int = 0 if row is None or row[0] is None else row[0]
        self._newest = self.inherited  # a message's id, which is in its checksum, and so is not left to SQLite
        self._by_name: dict[str, Mailbox] = {}
        self._by_id: dict[int, Mailbox] = {}
        self._changed: set[Mailbox] = set()
        self._messages: list[Any] = []
        self._keys: list[Any] = []
        self._random = b""
        self._random_used = 0

    # ------------------------------------------------------------------ the writer's

    def begin(self, lookups: Iterable[IdempotencyKey]) -> None:
        """Open the transaction and look up the idempotency keys its jobs carry, all at once."""
        self.now = self._clocks.now
        self.age = self._clocks.age
        self._connection.exec_driver_sql("BEGIN IMMEDIATE")
        flat = [part for key in lookups for part in key]
        for query, parameters in self.sql.keys_find.chunks(flat):
            for row in self._quick(query.sql, parameters):
                self.known[row[0], row[1]] = KnownKey(row[2], row[3], row[4], row[5], unsound(query, row))

    def commit(self) -> None:
        """Write what was collected and make it durable."""
        self.flush()
        if self.age - self._noted >= NOTE_STEP:
            self.note_age()
        self._connection.exec_driver_sql("COMMIT")
        self._noted = self._noting
        self.known.clear()

    def rollback(self) -> None:
        """Forget everything since ``begin``, the counters in memory too."""
        self._messages.clear()
        self._keys.clear()
        self._changed.clear()
        self.arrived.clear()
        self.known.clear()
        self._noting = self._noted
        self._by_name.clear()
        self._by_id.clear()
        # SQLite ends the transaction by itself after some errors; then there is nothing to roll back.
        driver = self._connection.connection.driver_connection
        if driver is not None and driver.in_transaction:
            self._connection.exec_driver_sql("ROLLBACK")

    def flush(self) -> None:
        """Write the collected rows now, so that a statement after this sees them."""
        if self._messages:
            self._write(self.sql.messages_add, self._messages)
        if self._keys:
            self._write(self.sql.keys_add, self._keys)
        if self._changed:
            self._write(
                self.sql.mailboxes_write,
                self._counters(self._changed),
            )
            self._changed.clear()

    def _counters(self, changed: Iterable[Mailbox]) -> list[Any]:
        flat: list[Any] = []
        for box in changed:
            row = (box.account_id, box.head, box.acked, box.bytes_in, box.bytes_acked, box.deleted)
            flat += row
            flat.append(crc32(encode_row(row), _MAILBOX_SEED))
        return flat

    def _write(self, rows: Rows, flat: list[Any]) -> None:
        for query, parameters in rows.chunks(flat):
            self._quick(query.sql, parameters)
        flat.clear()

    def _quick(self, statement: str, parameters: tuple[Any, ...]) -> Iterable[Sequence[Any]]:
        """Run one of the statements that every batch of sends consists of, without SQLAlchemy, which costs more.

        Its errors are SQLAlchemy's all the same, which ``failures`` knows.
        """
        try:
            return self._driver.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise DBAPIError.instance(statement, parameters, error, sqlite3.Error, hide_parameters=True) from error

    # ------------------------------------------------------------------ the jobs'

    def note_age(self) -> None:
        """Note the store's age with this transaction, which else is done once a second.

        A job needs that when it stores an age that must not be ahead of the store's own after a crash, by a second.
        """
        checksum = NOTE.of((1, self.age, self.now, self._schema_sum))
        self.run(self.sql.note_write, self.age, self.now, checksum)
        self._noting = self.age

    def one(self, query: Query, *parameters: Any) -> Sequence[Any] | None:
        """The first row of the answer, if any.

        Raises:
            CallError: STORE_FAILED, DATA_LOSS: it is not what was stored.
        """
        rows = self.rows(query, *parameters)
        return rows[0] if rows else None

    def rows(self, query: Query, *parameters: Any) -> Sequence[Sequence[Any]]:
        """All rows of the answer.

        Raises:
            CallError: STORE_FAILED, DATA_LOSS: one of them is not what was stored.
        """
        return verified(query, self.raw(query, *parameters))

    def sound(self, query: Query, *parameters: Any) -> list[Sequence[Any]]:
        """Those rows of the answer that are what was stored."""
        return [row for row in self.raw(query, *parameters) if unsound(query, row) is None]

    def raw(self, query: Query, *parameters: Any) -> Sequence[Sequence[Any]]:
        """All rows of the answer, for whoever looks at each of them."""
        return self._connection.exec_driver_sql(query.sql, parameters).all()

    def name_of(self, account_ids: Iterable[int]) -> dict[int, str]:
        """The names of accounts, see ``AccountNames``."""
        return self.names.of(account_ids, self.sql, self.raw)

    def run(self, statement: str, *parameters: Any) -> int:
        """Run a statement that answers nothing; the number of rows it changed."""
        return self._connection.exec_driver_sql(statement, parameters).rowcount

    def run_each(self, statement: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run a statement once with each of these parameters."""
        if parameters:
            self._connection.exec_driver_sql(statement, [tuple(each) for each in parameters])

    def add_account(self, name: str, password_hash: str) -> None:
        """Make an account, which is new and has an empty mailbox."""
        newest = self.one(self.sql.account_newest)
        # Rows of accounts stay when the account is deleted, so no id comes again.
        account_id = 1 + (0 if newest is None or newest[0] is None else int(newest[0]))
        self.run(self.sql.account_add, *ACCOUNT.row(account_id, name, password_hash, self.now, 0, 0))
        self._write(self.sql.mailboxes_write, list(MAILBOX.row(account_id, 0, 0, 0, 0, 0)))

    def change_account(
        self,
        row: Sequence[Any],
        *,
        password_hash: str | None = None,
        deleted_age: int | None = None,
        seen: bool = False,
    ) -> None:
        """Write an account, whose row was read in this transaction, with what is given here in the place of the old.

        A deleted account has no password.
        """
        account_id, name, old_hash, created_at, old_age, last_seen, _ = row
        new = ACCOUNT.row(
            account_id,
            name,
            None if deleted_age else password_hash or old_hash,
            created_at,
            old_age if deleted_age is None else deleted_age,
            self.now if seen else last_seen,
        )
        _, _, new_hash, _, new_age, new_seen, checksum = new
        self.run(self.sql.account_write, new_hash, new_age, new_seen, checksum, account_id)

    def account_seen(self, account_id: int) -> None:
        """Note that somebody was there just now, if the account lives.

        Raises:
            CallError: STORE_FAILED: its row is not what was stored.
        """
        row = self.one(self.sql.account_by_id, account_id)
        if row is not None:
            self.change_account(row, seen=True)

    def add_session(self, token_hash: bytes, account_id: int) -> None:
        """Open a session."""
        self.run(self.sql.session_add, *SESSION.row(token_hash, account_id, self.age, self.age))

    def touch_session(self, row: Sequence[Any]) -> None:
        """Note that a session, whose row was read in this transaction, was used just now."""
        token_hash, account_id, opened_age, *_ = row
        checksum = SESSION.of((token_hash, account_id, opened_age, self.age))
        self.run(self.sql.session_touch, self.age, checksum, token_hash)

    def note_guesses(self, name: str, prefix: str, failures: int, failed_age: int) -> None:
        """Store a count of failed log-ins."""
        self.run(self.sql.guesses_note, *GUESS.row(name, prefix, failures, failed_age))

    def clear_message(self, box: Mailbox, row: Sequence[Any]) -> None:
        """Delete the text of a message whose row was read in this transaction."""
        message, mailbox, sequence, message_id, sender, sent_at, through, _, _ = row
        values = (message_id, sender, sent_at, through)
        checksum = MESSAGE.of((message, mailbox, sequence, *values, None))
        self.run(self.sql.message_write, *values, checksum, message)
        self._count_deleted(box, sequence)

    def lose_message(self, box: Mailbox, row: Sequence[Any]) -> None:
        """Put a deleted message that nobody sent in the place of one that is not what was stored."""
        message, mailbox, sequence, *_ = row
        values = (b"", None, 0, box.bytes_acked)
        checksum = MESSAGE.of((message, mailbox, sequence, *values, None))
        self.run(self.sql.message_write, *values, checksum, message)
        self._count_deleted(box, sequence)

    def _count_deleted(self, box: Mailbox, sequence: int) -> None:
        if sequence > box.acked:
            box.deleted += 1
            self._changed.add(box)

    def mailbox(self, owner: "str | int") -> Mailbox | None:
        """The mailbox of a live account, by name or id; None when there is no such account."""
        box = self._by_name.get(owner) if isinstance(owner, str) else self._by_id.get(owner)
        if box is None:
            by_name = isinstance(owner, str)
            row = self.one(self.sql.mailbox_by_name if by_name else self.sql.mailbox_by_id, owner)
            if row is None:
                return None
            if len(self._by_id) >= CACHED_MAILBOXES:
                self.flush()
                self._by_name.clear()
                self._by_id.clear()
            account_id, head, acked, bytes_in, bytes_acked, deleted, _, _, name, *_ = row
            box = Mailbox(account_id, head, acked, bytes_in, bytes_acked, deleted, name)
            self._by_name[box.name] = self._by_id[box.account_id] = box
        return box

    def forget(self, box: Mailbox) -> None:
        """The account was deleted: nothing finds its mailbox any more."""
        self._by_name.pop(box.name, None)
        self._by_id.pop(box.account_id, None)
        self._changed.discard(box)
        self.arrived.pop(box.account_id, None)

    def need_room(self) -> None:
        """The job is about to make the store larger for good.

        Raises:
            CallError: STORE_FULL: there is too little room on the disk for that.
        """
        if self._space.low:
            raise store_full()

    def acknowledge(self, box: Mailbox, sequence: int, bytes_through: int) -> None:
        """Move the acknowledged end forward to a message that exists.

        Raises:
            CallError: STORE_FAILED: a deleted message is not what was stored; nothing was done.
        """
        if box.deleted:
            rows = self.rows(self.sql.deleted_after, box.account_id, box.acked)
            if len(rows) != box.deleted:
                raise damaged("a deleted message is missing")
            box.deleted = sum(row[2] > sequence for row in rows)
        box.acked = sequence
        box.bytes_acked = bytes_through
        self._changed.add(box)

    def append(self, box: Mailbox, sender_id: int, body: bytes) -> tuple[bytes, int]:
        """Put a message at the end of a mailbox; its message id and its sequence.

        Raises:
            CallError: STORE_FULL; nothing was done.
        """
        self.need_room()
        message_id = self._random16()
        box.head = sequence = box.head + 1
        box.bytes_in += len(body)
        self._newest = newest = self._newest + 1
        row = (newest, box.account_id, sequence, message_id, sender_id, self.now, box.bytes_in, body)
        self._messages += row
        self._messages.append(crc32(encode_row(row), _MESSAGE_SEED))
        self._changed.add(box)
        self.arrived[box.account_id] = sequence
        return message_id, sequence

    def remember(self, key: IdempotencyKey, request_hash: bytes, message_id: bytes, sequence: int) -> None:
        """Keep what was answered under an idempotency key."""
        age = self.age
        self.known[key] = KnownKey(request_hash, message_id, sequence, age)
        row = (*key, request_hash, message_id, sequence, age)
        self._keys += row
        self._keys.append(crc32(encode_row(row), _KEY_SEED))

    def touch_key(self, key: IdempotencyKey, known: KnownKey) -> None:
        """Note that a key was used again just now."""
        checksum = KEY.of((*key, known.request_hash, known.message_id, known.sequence, self.age))
        self.run(self.sql.key_touch, self.age, checksum, *key)

    def _random16(self) -> bytes:
        # One call to the system for many ids: it gives the interpreter lock away each time.
        start = self._random_used
        if start == len(self._random):
            self._random = secrets.token_bytes(4096)
            start = 0
        self._random_used = start + 16
        return self._random[start : start + 16]
