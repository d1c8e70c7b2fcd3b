"""Upgrading, checking and backing up: a database of an earlier release serves again, and nothing is lost on the way."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from sqlalchemy import Column, MetaData, String, Table, create_engine

from chat_service.fakes import Chat, Clock, FakeContext
from wireproto import ConfigError
from wireproto_chat.cli.db import command
from wireproto_chat.opcodes import (
    LIST_CONVERSATION,
    POP_UNDELIVERED,
    ListConversationRequest,
    PopUndeliveredRequest,
)
from wireproto_chat.store import checks, files, maintenance, opening, reading
from wireproto_chat.store.tables import SCHEMA_VERSION, metadata

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("accounts", sa.Column("colour", sa.String(16), nullable=False, server_default="blue"))
    op.create_table("rooms", sa.Column("name", sa.String(32), primary_key=True))
"""
"""A revision behind the first one, as a later release might have it."""


def do(path: Path, *statements: str) -> list[object]:
    with closing(sqlite3.connect(path)) as database, database:
        return [database.execute(statement).fetchall() for statement in statements]


@pytest.fixture
def old(store_path: Path, clock: Clock) -> Path:
    """A database that this release has written: ann has sent bob five messages, of which he has taken two."""
    chat = Chat(store_path, clock)
    ann, bob = chat.account("ann"), chat.account("bob")
    for number in range(5):
        chat.send(ann, "bob", f"to bob {number}", key=b"key %d" % number)
    chat.call(POP_UNDELIVERED, PopUndeliveredRequest(limit=2), bob)
    chat.close()
    return store_path


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetaData:
    """Makes this a later release, with one more revision than there is; the tables that it has."""
    migrations = tmp_path / "migrations"
    shutil.copytree(maintenance.MIGRATIONS, migrations)
    (migrations / "versions" / "v0002.py").write_text(NEXT)
    monkeypatch.setattr(maintenance, "MIGRATIONS", migrations)
    for module in (checks, maintenance, files, opening, reading):
        monkeypatch.setattr(module, "SCHEMA_VERSION", 2)
    tables = MetaData()
    for table in metadata.tables.values():
        table.to_metadata(tables)
    tables.tables["accounts"].append_column(Column("colour", String(16), nullable=False, server_default="blue"))
    Table("rooms", tables, Column("name", String(32), primary_key=True))
    return tables


def shape(path: Path) -> list[tuple[str, str, str]]:
    """Tables and indexes, as far as SQLite knows their columns; statements differ in their spaces."""
    found = []
    with closing(sqlite3.connect(path)) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = database.execute(
                f"SELECT name, type, \"notnull\", pk FROM pragma_table_info('{name}')"
            ).fetchall()
            indexes = [
                (*row, database.execute(f"SELECT name FROM pragma_index_info('{row[0]}')").fetchall())
                for row in database.execute(f"SELECT name, \"unique\", partial FROM pragma_index_list('{name}')")
            ]
            without_rowid = database.execute(f"SELECT wr FROM pragma_table_list('{name}')").fetchall()
            found.append((name, repr(sorted(columns)), repr((sorted(indexes), without_rowid))))
    return sorted(found)


def differences(path: Path, tables: MetaData) -> list[object]:
    """In what a database is not what these tables say, as alembic finds it."""
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            found: list[object] = compare_metadata(MigrationContext.configure(connection), tables)
            return found
    finally:
        engine.dispose()


def test_a_new_database_has_the_newest_revision(old: Path) -> None:
    """Alembic finds in it all that the tables declare and nothing else, and has no revision behind the one it says."""
    assert differences(old, metadata) == []
    (newest,) = ScriptDirectory(str(maintenance.MIGRATIONS)).get_heads()
    assert newest == f"{SCHEMA_VERSION:04}"
    assert do(old, "SELECT version_num FROM alembic_version", "PRAGMA user_version") == [[(newest,)], [(int(newest),)]]


def test_a_database_of_an_earlier_release_is_refused_until_it_is_upgraded(
    old: Path, clock: Clock, later: MetaData
) -> None:
    """A server does not open it, says what to run, and leaves it alone."""
    with pytest.raises(ConfigError, match=r"older wireproto \(schema 1, .*run: wireproto db upgrade --store "):
        Chat(old, clock)
    assert do(old, "PRAGMA user_version") == [[(1,)]]


def test_a_database_of_an_earlier_release_upgrades(old: Path, clock: Clock, later: MetaData) -> None:
    """After upgrade the tables are the later release's, and accounts, messages, acknowledgements, keys and sessions
    what they were."""
    kept = [f"SELECT * FROM {table}" for table in ("messages", "mailboxes", "idempotency_keys", "sessions")]
    before = do(old, *kept)
    assert maintenance.upgrade(str(old)) == (1, 2, old.with_name("chat.db.schema1"))
    assert maintenance.check(str(old)) == []
    assert differences(old, later) == []
    assert do(old, *kept) == before
    assert do(old, "SELECT version_num FROM alembic_version", "PRAGMA user_version") == [[("0002",)], [(2,)]]
    assert do(old, "SELECT name, colour FROM accounts ORDER BY id") == [[("ann", "blue"), ("bob", "blue")]]
    chat = Chat(old, clock)
    ann, bob = FakeContext(), FakeContext()
    chat.log_in("ann", ann)
    assert chat.log_in("bob", bob).undelivered == 3
    repeated = chat.send(ann, "bob", "to bob 3", key=b"key 3")
    assert (repeated.sequence, repeated.duplicate) == (4, True)
    page = chat.call(LIST_CONVERSATION, ListConversationRequest(username="ann", oldest_first=True), bob)
    assert [m.text for m in page.messages] == [f"to bob {number}" for number in range(5)]
    texts = [m.text for m in chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), bob).messages]
    assert texts == ["to bob 2", "to bob 3", "to bob 4"]
    chat.close()


def test_a_failed_upgrade_leaves_the_database_as_it_was(old: Path, later: MetaData) -> None:
    """An error in the middle of the migrations undoes what they did before it."""
    version = Path(maintenance.MIGRATIONS) / "versions" / "v0002.py"
    version.write_text(version.read_text() + '    op.execute("INSERT INTO nowhere VALUES (1)")\n')
    before = shape(old)
    with pytest.raises(Exception, match="no such table: nowhere"):
        maintenance.upgrade(str(old), keep=False)
    assert shape(old) == before
    assert do(old, "PRAGMA user_version") == [[(1,)]]


def test_an_upgrade_is_refused_while_a_server_runs(store_path: Path, chat: Chat) -> None:
    """The file's owner keeps it."""
    with pytest.raises(ConfigError, match="in use by process"):
        maintenance.upgrade(str(store_path))


def test_a_backup_is_taken_beside_a_running_server(store_path: Path, chat: Chat, tmp_path: Path, clock: Clock) -> None:
    """It holds what was answered before it, nothing of what came later, and serves by itself."""
    ann = chat.account("ann")
    chat.send(ann, "ann", "before")
    made = maintenance.backup(str(store_path), tmp_path / "copy.db")
    chat.send(ann, "ann", "after")
    assert made.stat().st_mode & 0o777 == 0o600
    assert maintenance.check(str(made)) == maintenance.check(str(store_path)) == []
    restored = Chat(made, clock)
    ann = FakeContext()
    restored.log_in("ann", ann)
    page = restored.call(POP_UNDELIVERED, PopUndeliveredRequest(), ann)
    assert [m.text for m in page.messages] == ["before"]
    restored.close()
    with pytest.raises(ConfigError, match="exists; give another name"):
        maintenance.backup(str(store_path), made)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DELETE FROM messages WHERE seq = 1", "messages are not 1, 2, 3"),
        ("UPDATE mailboxes SET acked_seq = 9", "acknowledged end"),
        ("DELETE FROM mailboxes", "without a mailbox"),
        ("UPDATE messages SET body = x'ff' WHERE seq = 2", "row of messages with the key 2 is not what was stored"),
        ("UPDATE messages SET body = 'b' WHERE seq = 2", "row of messages with the key 2 is not what was stored"),
        ("UPDATE messages SET body = x'6262' WHERE seq = 2", "row of messages with the key 2 is not what was stored"),
        (
            "UPDATE messages SET bytes_through = 0 WHERE seq = 2",
            "row of messages with the key 2 is not what was stored",
        ),
        ("UPDATE accounts SET name = 'Ann'", "row of accounts with the key 1 is not what was stored"),
        ("UPDATE accounts SET name = CAST(x'ff' AS TEXT)", "row of accounts with the key 1 is not what was stored"),
        ("UPDATE messages SET sender_id = 77", "refers to a row of accounts that is missing"),
    ],
)
def test_check_finds_what_does_not_fit(store_path: Path, clock: Clock, damage: str, found: str) -> None:
    """Rows that contradict each other are named."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    for text in "abc":
        chat.send(ann, "ann", text)
    chat.close()
    assert maintenance.check(str(store_path)) == []
    do(store_path, damage)
    assert found in " ".join(maintenance.check(str(store_path)))


def test_check_finds_a_damaged_page(store_path: Path, clock: Clock) -> None:
    """A page overwritten with nonsense is found."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    for _ in range(200):
        chat.send(ann, "ann", "x" * 300)
    chat.close()
    content = bytearray(store_path.read_bytes())
    content[-4096:] = b"\xa5" * 4096
    store_path.write_bytes(content)
    assert maintenance.check(str(store_path)) != []


@pytest.mark.parametrize("verb", ["upgrade", "check", "backup"])
def test_a_missing_or_foreign_database_is_refused(tmp_path: Path, verb: str) -> None:
    """Every verb refuses a file that is not there, and another program's, and makes none."""
    more = [str(tmp_path / "copy")] if verb == "backup" else []
    path = tmp_path / "none.db"
    done = CliRunner().invoke(command, [verb, "--store", str(path), *more])
    assert (done.exit_code, "there is no store" in done.output) == (2, True)
    do(path, "CREATE TABLE shopping (item TEXT)")
    done = CliRunner().invoke(command, [verb, "--store", str(path), *more])
    assert (done.exit_code, "not a chat's database any more" in done.output) == (2, True)
    assert not (tmp_path / "copy").exists()


def test_the_command_upgrades(old: Path, later: MetaData) -> None:
    """`wireproto db upgrade` says what it did, and `check` that it is to be run."""

    def run(verb: str) -> tuple[int, str]:
        done = CliRunner().invoke(command, [verb, "--store", str(old)])
        return done.exit_code, done.output

    assert run("check") == (2, f"wireproto: {old} has schema 1; run: wireproto db upgrade\n")
    assert run("upgrade") == (0, f"backup {old}.schema1\nupgraded from schema 1 to 2\n")
    assert run("upgrade") == (0, "schema 2: there is nothing to do\n")


def test_the_command_checks_and_backs_up(old: Path, tmp_path: Path) -> None:
    """`wireproto db` says what it did, and fails when a database is damaged; today there is nothing to upgrade."""

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(command, [*arguments[:1], "--store", str(old), *arguments[1:]])
        return done.exit_code, done.output

    assert run("upgrade") == (0, f"schema {SCHEMA_VERSION}: there is nothing to do\n")
    assert run("check") == (0, "ok\n")
    assert run("backup", str(tmp_path / "copy")) == (0, f"backup {tmp_path / 'copy'}\n")
    do(old, "UPDATE mailboxes SET acked_seq = 99")
    status, output = run("check")
    assert (status, "restore a backup" in output) == (1, True)
