"""The chat's tables, and every statement that touches them, compiled once.

Statements are written as SQLAlchemy Core expressions and compiled when the store opens; afterwards they are plain
strings with positional parameters. That keeps one readable source for SQLite now and for another database later, and
takes the compiler (some 15 us a statement, more than the statement itself) out of every call.

Times are microseconds since 1970, UTC. Texts of messages are UTF-8 bytes: a text may hold NUL, which not every
database takes in a text column.
"""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    column,
    delete,
    insert,
    literal_column,
    null,
    select,
    update,
    values,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

__all__ = ["SCHEMA_VERSION", "Rows", "Statements", "metadata"]

SCHEMA_VERSION = 1
"""What the database says its tables are; a program refuses one that is newer than itself."""

metadata = MetaData()

# SQLite allocates row ids only for a column of exactly this type.
_Id = BigInteger().with_variant(Integer, "sqlite")

accounts = Table(
    "accounts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", String(32), nullable=False),
    Column("password_hash", String(255)),  # NULL once deleted
    Column("created_at", BigInteger, nullable=False),
    # 0 while the account lives. Part of the unique key, so that a name is free again once its tombstone is old enough,
    # and the tombstone stays: messages name their sender by id, and an id is never given out twice.
    Column("deleted_at", BigInteger, nullable=False),
    UniqueConstraint("name", "deleted_at"),
    sqlite_autoincrement=True,
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What is undelivered is what lies between the two ends: head_seq - acked_seq messages, bytes_in - bytes_acked bytes.
# The byte counters only grow, and each message carries the value at its place, so an acknowledgement needs no sum.
mailboxes = Table(
    "mailboxes",
    metadata,
    Column("account_id", _Id, ForeignKey("accounts.id"), primary_key=True, autoincrement=False),
    Column("head_seq", BigInteger, nullable=False),
    Column("acked_seq", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_acked", BigInteger, nullable=False),
)

# `id` is the order of acceptance over all mailboxes; `seq` is dense within one.
messages = Table(
    "messages",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("mailbox_id", ForeignKey("accounts.id"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("message_id", LargeBinary(16), nullable=False),
    Column("sender_id", ForeignKey("accounts.id"), nullable=False),
    Column("sent_at", BigInteger, nullable=False),
    Column("bytes_through", BigInteger, nullable=False),
    Column("body", LargeBinary),
    UniqueConstraint("mailbox_id", "seq"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("idempotency_key", LargeBinary(64), primary_key=True),
    Column("request_hash", LargeBinary(16), nullable=False),
    Column("message_id", LargeBinary(16), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Index("ix_idempotency_keys_used_at", "used_at"),
    sqlite_with_rowid=False,
)

# SQLite's compiler binds an OFFSET of its own to every LIMIT that has none.
_NONE: ColumnElement[int] = literal_column("0")

_GROUP = re.compile(r"VALUES (\([?, ]+\))")


class Rows:
    """A statement over ``VALUES``, for any number of rows.

    Many rows in one statement are one step for the driver, which gives the interpreter lock away at every step; one
    statement per row would queue for that lock again after each.

    Args:
        sql: the statement for one row.
        width: parameters per row.
    """

    # Any number up to 64 is the sum of two of these, so few statements are prepared and few are run.
    SIZES = (64, 48, 32, *range(16, 0, -1))

    def __init__(self, sql: str, width: int) -> None:
        group = _GROUP.search(sql)
        if group is None:
            raise ValueError(f"no VALUES in {sql!r}")
        head, tail = sql[: group.start(1)], sql[group.end(1) :]
        self.width = width
        self._sql = {size: head + ", ".join([group[1]] * size) + tail for size in self.SIZES}

    def chunks(self, flat: Sequence[Any]) -> "list[tuple[str, tuple[Any, ...]]]":
        """``flat``, all rows' parameters one after the other, as statements with their parameters."""
        chunks = []
        start, end = 0, len(flat)
        sizes = iter(self.SIZES)
        size = next(sizes)
        while start < end:
            while size * self.width > end - start:
                size = next(sizes)
            stop = start + size * self.width
            chunks.append((self._sql[size], tuple(flat[start:stop])))
            start = stop
        return chunks


class Statements:
    """Every statement of the chat as text for one kind of database. The parameters are positional, in the order
    named."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        a, s, m, b, k = accounts.c, sessions.c, messages.c, mailboxes.c, idempotency_keys.c
        live = a.deleted_at == literal_column("0")

        self.account_add = self._insert(accounts, "name", "password_hash", "created_at", "deleted_at")
        self.account_by_name = self._sql(select(a.id, a.password_hash).where(a.name == bindparam("name"), live), "name")
        self.account_is_live = self._sql(select(a.id).where(a.id == bindparam("id"), live), "id")
        self.name_uses = self._sql(select(a.deleted_at).where(a.name == bindparam("name")), "name")
        self.account_rehash = self._sql(
            update(accounts)
            .where(a.id == bindparam("account"), a.password_hash == bindparam("old"))
            .values(password_hash=bindparam("new")),
            "new",
            "account",
            "old",
        )
        self.account_bury = self._sql(
            update(accounts)
            .where(a.id == bindparam("account"))
            .values(password_hash=null(), deleted_at=bindparam("deleted_at")),
            "deleted_at",
            "account",
        )
        # `first` and `end` bound the names that can match at all; see wildcard.Pattern.
        self.names = self._sql(
            select(a.name, a.id)
            .where(a.name >= bindparam("first"), a.name < bindparam("end"), live)
            .order_by(a.name)
            .limit(bindparam("most"))
            .offset(_NONE),
            "first",
            "end",
            "most",
        )

        self.session_add = self._insert(sessions, "token_hash", "account_id", "created_at", "used_at")
        self.session_by_hash = self._sql(
            select(s.account_id, a.name, s.created_at, s.used_at)
            .join(accounts, a.id == s.account_id)
            .where(s.token_hash == bindparam("token_hash"), live),
            "token_hash",
        )
        self.session_touch = self._sql(
            update(sessions)
            .where(s.token_hash == bindparam("hash"), s.used_at < bindparam("now"))
            .values(used_at=bindparam("now")),
            "now",
            "hash",
            "now",
        )
        self.session_drop = self._sql(delete(sessions).where(s.token_hash == bindparam("token_hash")), "token_hash")
        self.sessions_drop = self._sql(delete(sessions).where(s.account_id == bindparam("account")), "account")
        self.sessions_expire = self._sql(
            delete(sessions).where((s.used_at <= bindparam("idle")) | (s.created_at <= bindparam("old"))),
            "idle",
            "old",
        )

        box = (b.account_id, b.head_seq, b.acked_seq, b.bytes_in, b.bytes_acked)
        self.mailbox_by_name = self._sql(
            select(*box, a.name).join(accounts, a.id == b.account_id).where(a.name == bindparam("name"), live), "name"
        )
        self.mailbox_by_id = self._sql(
            select(*box, a.name).join(accounts, a.id == b.account_id).where(b.account_id == bindparam("id"), live), "id"
        )
        written = upsert(mailboxes).values({col.name: bindparam(col.name) for col in mailboxes.columns})
        self.mailboxes_write = Rows(
            self._sql(
                written.on_conflict_do_update(
                    index_elements=[b.account_id],
                    set_={col.name: written.excluded[col.name] for col in mailboxes.columns if not col.primary_key},
                ),
                *mailboxes.columns.keys(),
            ),
            len(mailboxes.columns),
        )
        self.mailbox_drop = self._sql(delete(mailboxes).where(b.account_id == bindparam("account")), "account")

        self.messages_add = Rows(
            self._insert(messages, "mailbox_id", "seq", "message_id", "sender_id", "sent_at", "bytes_through", "body"),
            7,
        )
        self.messages_after = self._sql(
            select(m.seq, m.message_id, a.name, m.body, m.sent_at, m.bytes_through)
            .join(accounts, a.id == m.sender_id)
            .where(m.mailbox_id == bindparam("mailbox"), m.seq > bindparam("after"))
            .order_by(m.seq)
            .limit(bindparam("most"))
            .offset(_NONE),
            "mailbox",
            "after",
            "most",
        )
        self.messages_drop = self._sql(delete(messages).where(m.mailbox_id == bindparam("mailbox")), "mailbox")

        wanted = (
            values(column("account_id", BigInteger), column("idempotency_key", LargeBinary), name="wanted")
            .data([(bindparam("account"), bindparam("key"))])
            .cte("wanted")
        )
        # A join, not `(account_id, key) IN (VALUES ...)`: SQLite 3.40 answers that one with a scan of the table.
        self.keys_find = Rows(
            self._sql(
                select(k.account_id, k.idempotency_key, k.request_hash, k.message_id, k.seq, k.used_at).join_from(
                    wanted,
                    idempotency_keys,
                    (k.account_id == wanted.c.account_id) & (k.idempotency_key == wanted.c.idempotency_key),
                ),
                "account",
                "key",
            ),
            2,
        )
        self.keys_add = Rows(
            self._insert(
                idempotency_keys, "account_id", "idempotency_key", "request_hash", "message_id", "seq", "used_at"
            ),
            6,
        )
        self.key_touch = self._sql(
            update(idempotency_keys)
            .where(k.account_id == bindparam("account"), k.idempotency_key == bindparam("which"))
            .values(used_at=bindparam("now")),
            "now",
            "account",
            "which",
        )
        stale = (
            select(k.used_at)
            .where(k.used_at <= bindparam("before"))
            .order_by(k.used_at)
            .limit(bindparam("most"))
            .offset(_NONE)
        )
        self.keys_expire = self._sql(delete(idempotency_keys).where(k.used_at.in_(stale)), "before", "most")

    def _sql(self, statement: ClauseElement, *names: str) -> str:
        compiled = statement.compile(dialect=self._dialect)
        order = tuple(getattr(compiled, "positiontup", None) or ())
        if order != names:
            raise ValueError(f"the statement takes {order}, not {names}: {compiled}")
        return str(compiled)

    def _insert(self, table: Table, *names: str) -> str:
        return self._sql(insert(table).values({name: bindparam(name) for name in names}), *names)
