"""What a job may do inside the writer's transaction.

There is one ``Transaction`` for the life of a store. Only the writer thread touches it, so nothing here locks. It knows
the mailboxes that were lately used and keeps their counters in memory, which is sound because this process is the
file's only writer; it collects the rows that jobs add, and writes them with a few statements before the commit.
"""

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection

from wireproto_chat.store.clocks import NOTE_STEP, Clocks
from wireproto_chat.store.failures import store_full
from wireproto_chat.store.space import Space
from wireproto_chat.store.tables import Rows, Statements

__all__ = ["IdempotencyKey", "KnownKey", "Mailbox", "Transaction"]

IdempotencyKey = tuple[int, bytes]
"""An account's id and an idempotency key of its own."""

CACHED_MAILBOXES = 20_000
"""Mailboxes kept in memory, some 400 bytes each; beyond it all are forgotten, and read again when next used."""


class KnownKey(NamedTuple):
    """What is stored under an idempotency key: what was asked, and what was answered."""

    request_hash: bytes
    message_id: bytes
    sequence: int
    used_age: int


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
    """

    def __init__(self, connection: Connection, sql: Statements, clocks: Clocks, space: Space) -> None:
        self._connection = connection
        self._space = space
        self._clocks = clocks
        # When the age was noted last; ``_noting`` becomes that once it is committed.
        self._noted = self._noting = -NOTE_STEP
        self.sql = sql
        self.now = 0
        self.age = 0
        self.known: dict[IdempotencyKey, KnownKey] = {}
        self.arrived: dict[int, int] = {}
        row = self.one(sql.message_newest)
        self.inherited: int = 0 if row is None or row[0] is None else row[0]
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
        for statement, parameters in self.sql.keys_find.chunks(flat):
            for row in self._connection.exec_driver_sql(statement, parameters):
                self.known[row[0], row[1]] = KnownKey(*row[2:])

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
                [
                    value
                    for box in self._changed
                    for value in (box.account_id, box.head, box.acked, box.bytes_in, box.bytes_acked)
                ],
            )
            self._changed.clear()

    def _write(self, rows: Rows, flat: list[Any]) -> None:
        for statement, parameters in rows.chunks(flat):
            self._connection.exec_driver_sql(statement, parameters)
        flat.clear()

    # ------------------------------------------------------------------ the jobs'

    def note_age(self) -> None:
        """Note the store's age with this transaction, which else is done once a second.

        A job needs that when it stores an age that must not be ahead of the store's own after a crash, by a second.
        """
        self.run(self.sql.note_write, self.age, self.now)
        self._noting = self.age

    def one(self, statement: str, *parameters: Any) -> Sequence[Any] | None:
        """The first row of the answer, if any."""
        return self._connection.exec_driver_sql(statement, parameters).first()

    def rows(self, statement: str, *parameters: Any) -> Sequence[Sequence[Any]]:
        """All rows of the answer."""
        return self._connection.exec_driver_sql(statement, parameters).all()

    def run(self, statement: str, *parameters: Any) -> int:
        """Run a statement that answers nothing; the number of rows it changed."""
        return self._connection.exec_driver_sql(statement, parameters).rowcount

    def insert(self, statement: str, *parameters: Any) -> int:
        """Insert one row; its id."""
        return int(self._connection.exec_driver_sql(statement, parameters).lastrowid)

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
            box = Mailbox(*row)
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
        """Move the acknowledged end forward to a message that exists."""
        if box.deleted:
            row = self.one(self.sql.deleted_between, box.account_id, box.acked, sequence)
            box.deleted -= 0 if row is None else int(row[0])
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
        self._messages += (box.account_id, sequence, message_id, sender_id, self.now, box.bytes_in, body)
        self._changed.add(box)
        self.arrived[box.account_id] = sequence
        return message_id, sequence

    def remember(self, key: IdempotencyKey, request_hash: bytes, message_id: bytes, sequence: int) -> None:
        """Keep what was answered under an idempotency key."""
        self.known[key] = KnownKey(request_hash, message_id, sequence, self.age)
        self._keys += (*key, request_hash, message_id, sequence, self.age)

    def _random16(self) -> bytes:
        # One call to the system for many ids: it gives the interpreter lock away each time.
        start = self._random_used
        if start == len(self._random):
            self._random = secrets.token_bytes(4096)
            start = 0
        self._random_used = start + 16
        return self._random[start : start + 16]
