"""The chat's tables, and every statement that touches them, compiled once.

Statements are written as SQLAlchemy Core expressions and compiled when the store opens; afterwards they are plain
strings with positional parameters. That keeps one readable source for SQLite now and for another database later, and
takes the compiler (some 15 us a statement, more than the statement itself) out of every call.

What ends in ``_at`` or ``seen`` is a time of day, microseconds since 1970, UTC, and is there to be shown. What ends in
``_age`` is the age of the store at that moment, see ``clocks``, and is there for the rules.

Texts of messages are UTF-8 bytes: a text may hold NUL, which not every database takes in a text column.

The last column of a table is the checksum of its row, see ``sums``. A statement that reads such rows reads all of their
columns, and says of which tables.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

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
    func,
    insert,
    literal_column,
    null,
    outerjoin,
    select,
    union_all,
    update,
    values,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

__all__ = [
    "CHECKSUM",
    "SCHEMA_TEXTS",
    "SCHEMA_VERSION",
    "Query",
    "Rows",
    "Statements",
    "accounts",
    "alembic_version",
    "guesses",
    "idempotency_keys",
    "mailboxes",
    "messages",
    "metadata",
    "notes",
    "sessions",
]

SCHEMA_VERSION = 1
"""What the database says its tables are; a program refuses one that is newer than itself, and one that is older until
``wireproto db upgrade`` has run ``migrations`` over it."""

CHECKSUM: Final = "checksum"
"""The name of that column."""

SCHEMA_TEXTS: Final = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name"
"""Of what a database consists, in the words that it was made with."""

metadata = MetaData()


def _checksum() -> Column[int]:
    return Column(CHECKSUM, BigInteger, nullable=False)


# SQLite allocates row ids only for a column of exactly this type.
_Id = BigInteger().with_variant(Integer, "sqlite")

accounts = Table(
    "accounts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", String(32), nullable=False),
    Column("password_hash", String(255)),  # NULL once deleted
    Column("created_at", BigInteger, nullable=False),
    # 0 while the account lives; the store is older than that when its first account is made. Part of the unique key, so
    # that a name is free again once its tombstone is old enough, and the tombstone stays: messages name their sender by
    # id, and an id is never given out twice.
    Column("deleted_age", BigInteger, nullable=False),
    # 0 when it never logged in.
    Column("last_seen", BigInteger, nullable=False),
    _checksum(),
    UniqueConstraint("name", "deleted_age"),
    sqlite_autoincrement=True,
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("opened_age", BigInteger, nullable=False),
    Column("used_age", BigInteger, nullable=False),
    _checksum(),
    sqlite_with_rowid=False,
)

# What is undelivered is what lies between the two ends, but for what was deleted there: head_seq - acked_seq - deleted
# messages, bytes_in - bytes_acked bytes.
# The byte counters only grow, and each message carries the value at its place, so an acknowledgement needs no sum.
mailboxes = Table(
    "mailboxes",
    metadata,
    Column("account_id", _Id, ForeignKey("accounts.id"), primary_key=True, autoincrement=False),
    Column("head_seq", BigInteger, nullable=False),
    Column("acked_seq", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_acked", BigInteger, nullable=False),
    Column("deleted", BigInteger, nullable=False),
    _checksum(),
)

# `id` is the order of acceptance over all mailboxes; `seq` is dense within one. A deleted message loses its body and
# keeps its row, and so its place. One that was damaged when its owner deleted it has lost its sender, too: NULL.
messages = Table(
    "messages",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("mailbox_id", ForeignKey("accounts.id"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("message_id", LargeBinary(16), nullable=False),
    Column("sender_id", ForeignKey("accounts.id")),
    Column("sent_at", BigInteger, nullable=False),
    Column("bytes_through", BigInteger, nullable=False),
    Column("body", LargeBinary),
    _checksum(),
    UniqueConstraint("mailbox_id", "seq"),
    # One direction of a conversation; SQLite's indexes end in the row's id, which is its order.
    Index("ix_messages_conversation", "mailbox_id", "sender_id"),
)

# Costs a send nothing, and finds what an acknowledgement goes past.
Index(
    "ix_messages_deleted",
    messages.c.mailbox_id,
    messages.c.seq,
    sqlite_where=messages.c.body.is_(None),
    postgresql_where=messages.c.body.is_(None),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("idempotency_key", LargeBinary(64), primary_key=True),
    Column("request_hash", LargeBinary(16), nullable=False),
    Column("message_id", LargeBinary(16), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("used_age", BigInteger, nullable=False),
    _checksum(),
    Index("ix_idempotency_keys_used_age", "used_age"),
    sqlite_with_rowid=False,
)

# Log-ins that failed, by the name that was tried, whether it exists or not, and where from.
guesses = Table(
    "guesses",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("prefix", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("failed_age", BigInteger, nullable=False),
    _checksum(),
    Index("ix_guesses_failed_age", "failed_age"),
    sqlite_with_rowid=False,
)

# One row: how old the store was at what time of day, when that was last noted; and the checksum of the schema.
notes = Table(
    "notes",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("age", BigInteger, nullable=False),
    Column("noted_at", BigInteger, nullable=False),
    Column("schema_sum", BigInteger, nullable=False),
    _checksum(),
)

# Alembic's own, here so that a new database has it, and says that it needs no migration.
alembic_version = Table(
    "alembic_version", metadata, Column("version_num", String(32), primary_key=True, nullable=False)
)

# SQLite's compiler binds an OFFSET of its own to every LIMIT that has none.
_NONE: ColumnElement[int] = literal_column("0")

_GROUP = re.compile(r"VALUES (\([?, ]+\))")


class Query(NamedTuple):
    """A statement that reads.

    Attributes:
        sql: its text.
        tables: of which its rows consist, each whole and in this order; none for what is no row, such as a count.
    """

    sql: str
    tables: tuple[str, ...] = ()


class Rows:
    """A statement over ``VALUES``, for any number of rows.

    Many rows in one statement are one step for the driver, which gives the interpreter lock away at every step; one
    statement per row would queue for that lock again after each.

    Args:
        sql: the statement for one row.
        width: parameters per row.
        tables: of which the rows of its answer consist, see ``Query``.
    """

    # Any number up to 64 is the sum of two of these, so few statements are prepared and few are run.
    SIZES = (64, 48, 32, *range(16, 0, -1))

    def __init__(self, sql: str, width: int, *tables: str) -> None:
        group = _GROUP.search(sql)
        if group is None:
            raise ValueError(f"no VALUES in {sql!r}")
        head, tail = sql[: group.start(1)], sql[group.end(1) :]
        self.width = width
        self._sql = {size: Query(head + ", ".join([group[1]] * size) + tail, tables) for size in self.SIZES}

    def chunks(self, flat: Sequence[Any]) -> "list[tuple[Query, tuple[Any, ...]]]":
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
        a, s, m, b, k, g = accounts.c, sessions.c, messages.c, mailboxes.c, idempotency_keys.c, guesses.c
        live = a.deleted_age == literal_column("0")

        self.account_add = self._insert(accounts)
        self.account_newest = Query(self._sql(select(func.max(a.id))))
        self.account_by_name = self._read(select(*a).where(a.name == bindparam("which"), live), accounts, "which")
        self.account_by_id = self._read(select(*a).where(a.id == bindparam("which"), live), accounts, "which")
        self.account_write = self._sql(
            update(accounts)
            .where(a.id == bindparam("which"))
            .values(
                password_hash=bindparam("hash"),
                deleted_age=bindparam("deleted"),
                last_seen=bindparam("seen"),
                checksum=bindparam("sum"),
            ),
            "hash",
            "deleted",
            "seen",
            "sum",
            "which",
        )
        self.name_uses = self._read(select(*a).where(a.name == bindparam("which")), accounts, "which")
        # `first` and `end` bound the names that can match at all; see wildcard.Pattern. Ten thousand of them are looked
        # at, so no more is read than the index has; what is shown of them is read by `accounts_by_id`.
        self.names = Query(
            self._sql(
                select(a.name, a.id)
                .where(a.name >= bindparam("first"), a.name < bindparam("end"), live)
                .order_by(a.name)
                .limit(bindparam("most"))
                .offset(_NONE),
                "first",
                "end",
                "most",
            )
        )

        listed = values(column("id", BigInteger), name="listed").data([(bindparam("id"),)]).cte("listed")
        self.accounts_by_id = Rows(
            self._sql(select(*a).join_from(listed, accounts, a.id == listed.c.id), "id"), 1, accounts.name
        )

        self.session_add = self._insert(sessions)
        # Outer joins: what goes with a row is there, and a row without it is not what was stored.
        self.session_by_hash = Query(
            self._sql(
                select(*s, *a)
                .select_from(outerjoin(sessions, accounts, (a.id == s.account_id) & live))
                .where(s.token_hash == bindparam("hash")),
                "hash",
            ),
            (sessions.name, accounts.name),
        )
        self.session_touch = self._sql(
            update(sessions)
            .where(s.token_hash == bindparam("hash"))
            .values(used_age=bindparam("now"), checksum=bindparam("sum")),
            "now",
            "sum",
            "hash",
        )
        self.session_drop = self._sql(delete(sessions).where(s.token_hash == bindparam("token_hash")), "token_hash")
        self.sessions_drop = self._sql(delete(sessions).where(s.account_id == bindparam("account")), "account")
        self.sessions_drop_others = self._sql(
            delete(sessions).where(s.account_id == bindparam("account"), s.token_hash != bindparam("kept")),
            "account",
            "kept",
        )
        self.sessions_of = self._read(select(*s).where(s.account_id == bindparam("account")), sessions, "account")
        over = (s.used_age <= bindparam("idle")) | (s.opened_age <= bindparam("old"))
        self.sessions_over = self._read(select(*s).where(over), sessions, "idle", "old")

        box = (mailboxes.name, accounts.name)
        owned = select(*b, *a).select_from(outerjoin(accounts, mailboxes, a.id == b.account_id))
        self.mailbox_by_name = Query(
            self._sql(owned.where(a.name == bindparam("which"), live), "which"),
            box,
        )
        self.mailbox_by_id = Query(
            self._sql(owned.where(a.id == bindparam("which"), live), "which"),
            box,
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

        self.messages_add = Rows(self._insert(messages), len(messages.columns))
        # The deleted ones, too: sequences are dense, so a message that is missing is noticed.
        self.messages_after = self._read(
            select(*m)
            .where(m.mailbox_id == bindparam("mailbox"), m.seq > bindparam("after"))
            .order_by(m.seq)
            .limit(bindparam("most"))
            .offset(_NONE),
            messages,
            "mailbox",
            "after",
            "most",
        )
        self.message_at = self._read(
            select(*m).where(m.mailbox_id == bindparam("mailbox"), m.seq == bindparam("which")),
            messages,
            "mailbox",
            "which",
        )
        self.message_by_id = self._read(select(*m).where(m.id == bindparam("which")), messages, "which")
        self.message_newest = Query(self._sql(select(func.max(m.id))))
        self.message_write = self._sql(
            update(messages)
            .where(m.id == bindparam("which"))
            .values(
                message_id=bindparam("message"),
                sender_id=bindparam("sender"),
                sent_at=bindparam("sent"),
                bytes_through=bindparam("through"),
                body=null(),
                checksum=bindparam("sum"),
            ),
            "message",
            "sender",
            "sent",
            "through",
            "sum",
            "which",
        )
        self.deleted_after = self._read(
            select(*m).where(m.mailbox_id == bindparam("mailbox"), m.seq > bindparam("after"), m.body.is_(None)),
            messages,
            "mailbox",
            "after",
        )
        # Both directions in one statement, so that they are seen as of one commit: read one after the other, a message
        # committed between would be missing from a page that already goes beyond it.
        self.conversation_oldest = self._conversation(newest=False)
        self.conversation_newest = self._conversation(newest=True)
        self.messages_drop = self._sql(delete(messages).where(m.mailbox_id == bindparam("mailbox")), "mailbox")

        wanted = (
            values(column("account_id", BigInteger), column("idempotency_key", LargeBinary), name="wanted")
            .data([(bindparam("account"), bindparam("key"))])
            .cte("wanted")
        )
        # A join, not `(account_id, key) IN (VALUES ...)`: SQLite 3.40 answers that one with a scan of the table.
        self.keys_find = Rows(
            self._sql(
                select(*k).join_from(
                    wanted,
                    idempotency_keys,
                    (k.account_id == wanted.c.account_id) & (k.idempotency_key == wanted.c.idempotency_key),
                ),
                "account",
                "key",
            ),
            2,
            idempotency_keys.name,
        )
        self.keys_add = Rows(self._insert(idempotency_keys), len(idempotency_keys.columns))
        self.key_touch = self._sql(
            update(idempotency_keys)
            .where(k.account_id == bindparam("account"), k.idempotency_key == bindparam("which"))
            .values(used_age=bindparam("now"), checksum=bindparam("sum")),
            "now",
            "sum",
            "account",
            "which",
        )
        self.key_drop = self._sql(
            delete(idempotency_keys).where(
                k.account_id == bindparam("account"), k.idempotency_key == bindparam("which")
            ),
            "account",
            "which",
        )
        self.keys_over = self._read(
            select(*k)
            .where(k.used_age <= bindparam("before"))
            .order_by(k.used_age)
            .limit(bindparam("most"))
            .offset(_NONE),
            idempotency_keys,
            "before",
            "most",
        )

        this = (g.name == bindparam("which"), g.prefix == bindparam("whence"))
        self.guesses_find = self._read(select(*g).where(*this), guesses, "which", "whence")
        noted = upsert(guesses).values({col.name: bindparam(col.name) for col in guesses.columns})
        self.guesses_note = self._sql(
            noted.on_conflict_do_update(
                index_elements=[g.name, g.prefix],
                set_={col.name: noted.excluded[col.name] for col in guesses.columns if not col.primary_key},
            ),
            *guesses.columns.keys(),
        )
        self.guesses_drop = self._sql(delete(guesses).where(*this), "which", "whence")
        self.guesses_expire = self._sql(delete(guesses).where(g.failed_age <= bindparam("before")), "before")

        self.note = self._read(select(*notes.c), notes)
        self.note_write = self._sql(
            update(notes)
            .where(notes.c.id == literal_column("1"))
            .values(age=bindparam("store_age"), noted_at=bindparam("now"), checksum=bindparam("sum")),
            "store_age",
            "now",
            "sum",
        )

    def _conversation(self, *, newest: bool) -> Query:
        """Messages of both directions behind each other; the caller sorts them. One direction's parameters, twice."""
        m = messages.c

        def direction(suffix: str) -> Any:
            return (
                select(*m)
                .where(
                    m.mailbox_id == bindparam(f"mailbox{suffix}"),
                    m.sender_id == bindparam(f"sender{suffix}"),
                    m.id > bindparam(f"after{suffix}"),
                    m.id < bindparam(f"before{suffix}"),
                )
                .order_by(m.id.desc() if newest else m.id)
                .limit(bindparam(f"most{suffix}"))
                .offset(_NONE)
                .subquery()
            )

        names = [f"{name}{suffix}" for suffix in "12" for name in ("mailbox", "sender", "after", "before", "most")]
        return Query(self._sql(union_all(select(direction("1")), select(direction("2"))), *names), (messages.name,))

    def _read(self, statement: ClauseElement, table: Table, *names: str) -> Query:
        return Query(self._sql(statement, *names), (table.name,))

    def _sql(self, statement: ClauseElement, *names: str) -> str:
        compiled = statement.compile(dialect=self._dialect)
        order = tuple(getattr(compiled, "positiontup", None) or ())
        if order != names:
            raise ValueError(f"the statement takes {order}, not {names}: {compiled}")
        return str(compiled)

    def _insert(self, table: Table) -> str:
        names = table.columns.keys()
        return self._sql(insert(table).values({name: bindparam(name) for name in names}), *names)
