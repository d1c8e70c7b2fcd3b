"""The store: where it is, who may have it, what it refuses to open, and what survives."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from sqlalchemy.dialects.sqlite import pysqlite

from chat_service.fakes import WAIT, Chat, Clock, FakeContext
from wireproto import CallError, ConfigError
from wireproto_chat.opcodes import (
    ACKNOWLEDGE,
    POP_UNDELIVERED,
    SEND_MESSAGE,
    AcknowledgeRequest,
    PopUndeliveredRequest,
    SendMessageRequest,
)
from wireproto_chat.store import store as store_module
from wireproto_chat.store.files import default_path, path_of
from wireproto_chat.store.tables import SCHEMA_VERSION, Query, Rows, Statements

NOBODY: Final = 65_534
"""The user that owns nothing, by Linux's convention."""


def edit(path: Path, *statements: str) -> None:
    """Change a database behind the chat's back."""
    database = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        database.execute(statement)
    database.close()


# ---------------------------------------------------------------------- where it is


def test_the_default_is_in_the_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL the file is $XDG_STATE_HOME/wireproto/chat.db, or under ~/.local/state."""
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert path_of(None) == default_path() == Path("/var/state/wireproto/chat.db")
    # The XDG rules: a relative path is ignored.
    for useless in ("", "relative/state"):
        monkeypatch.setenv("XDG_STATE_HOME", useless)
        assert path_of(None) == Path("/home/ann/.local/state/wireproto/chat.db")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////var/lib/chat.db", "/var/lib/chat.db"),
        ("sqlite:///chat.db", "{cwd}/chat.db"),
        ("sqlite:////with%20space/c%3Fhat.db", "/with space/c?hat.db"),
        ("/var/lib/chat.db", "/var/lib/chat.db"),
        ("chat.db", "{cwd}/chat.db"),
        ("~/chat.db", "/home/ann/chat.db"),
    ],
)
def test_a_url_or_a_path_names_the_file(url: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """sqlite URLs and plain paths, absolute and relative, name a file."""
    monkeypatch.setenv("HOME", "/home/ann")
    assert path_of(url) == Path(path.format(cwd=os.getcwd()))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://localhost/chat",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        ":memory:",
        "",
        "sqlite:///a?b=c",
        "sqlite://host/a",
    ],
)
def test_what_is_no_file_is_refused(url: str) -> None:
    """Other databases, and those in memory, are refused with what to give instead."""
    with pytest.raises(ConfigError, match=r"give sqlite:///PATH or a path"):
        path_of(url)


def test_the_files_are_private(chat: Chat, store_path: Path) -> None:
    """The directories made for the store are 0700, all its files 0600, also under a lax umask."""
    files = {path.name for path in store_path.parent.iterdir()}
    assert files == {"chat.db", "chat.db-wal", "chat.db-shm", "chat.db.lock", "chat.db.reserve"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in store_path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(store_path.parent.stat().st_mode) == 0o700


def test_a_readable_file_is_made_private(store_path: Path, clock: Clock) -> None:
    """Opening a database that others may read takes that right from them."""
    Chat(store_path, clock).close()
    store_path.chmod(0o644)
    chat = Chat(store_path, clock)
    assert {stat.S_IMODE(path.stat().st_mode) for path in store_path.parent.iterdir()} == {0o600}
    chat.close()


# ---------------------------------------------------------------------- who may have it


def test_a_second_server_in_this_process_is_refused(chat: Chat, store_path: Path, clock: Clock) -> None:
    """A store that is open cannot be opened again; the sentence names the process that has it."""
    with pytest.raises(
        ConfigError, match=rf"in use by process {os.getpid()}; stop that server or give another --store"
    ):
        Chat(store_path, clock)
    chat.account("ann")


def test_a_second_server_in_another_process_is_refused(chat: Chat, store_path: Path) -> None:
    """Another process gets the same sentence, and the first one goes on."""
    code = (
        "import sys\n"
        "from wireproto_chat.service.handlers import open_chat\n"
        "from wireproto.errors import ConfigError\n"
        "try:\n    open_chat(sys.argv[1])\nexcept ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store_path)], capture_output=True, text=True, timeout=60)
    assert f"in use by process {os.getpid()};" in done.stdout, done.stderr
    chat.account("ann")


def test_a_closed_store_can_be_opened_again(store_path: Path, clock: Clock) -> None:
    """close lets go of the lock, and leaves one file with everything in it, beside those that hold a place."""
    for _ in range(3):
        Chat(store_path, clock).close()
    assert {path.name for path in store_path.parent.iterdir()} == {"chat.db", "chat.db.lock", "chat.db.reserve"}


def test_a_store_that_could_not_be_opened_is_not_kept_locked(store_path: Path, clock: Clock) -> None:
    """After a refusal the same process may try again."""
    store_path.parent.mkdir()
    store_path.write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(ConfigError, match="damaged or no database"):
            Chat(store_path, clock)
    store_path.unlink()
    Chat(store_path, clock).close()


# ---------------------------------------------------------------------- what it refuses to open


def test_a_newer_schema_is_refused(store_path: Path, clock: Clock) -> None:
    """A database of a later version is left alone; the sentence says which version is needed."""
    Chat(store_path, clock).close()
    edit(store_path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    content = store_path.read_bytes()
    with pytest.raises(ConfigError, match=r"written by a newer wireproto \(schema 2, this one knows 1\); install that"):
        Chat(store_path, clock)
    assert store_path.read_bytes() == content


def test_another_programs_database_is_refused(store_path: Path, clock: Clock) -> None:
    """A database with tables that are not ours is left alone."""
    store_path.parent.mkdir()
    edit(store_path, "CREATE TABLE shopping (item TEXT)")
    content = store_path.read_bytes()
    with pytest.raises(ConfigError, match=r"is another program's database, .* Give another --store"):
        Chat(store_path, clock)
    assert store_path.read_bytes() == content


def test_a_damaged_database_is_refused(store_path: Path, clock: Clock) -> None:
    """Pages overwritten with garbage are found when the store is opened."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    for i in range(50):
        chat.send(ann, "ann", str(i) * 500)
    chat.close()
    with store_path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(12 * 4096))
    with pytest.raises(ConfigError, match=r"is damaged|damaged or no database"):
        Chat(store_path, clock)


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, clock: Clock) -> None:
    """A store below a file, or that is a directory, is refused with the system's reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be opened \(Not a directory\); give a --store"):
        Chat(tmp_path / "file" / "chat.db", clock)
    (tmp_path / "chat.db").mkdir()
    with pytest.raises(ConfigError, match="is a directory, where no chat can be kept; give another --store"):
        Chat(tmp_path / "chat.db", clock)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to write anywhere, for a while; another user's tests have no such right."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_file_is_refused(clock: Clock) -> None:
    """A database without the right to write is refused with the system's reason."""
    with as_nobody(), TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        store_path = Path(folder) / "chat.db"
        Chat(store_path, clock).close()
        store_path.chmod(0o400)
        with pytest.raises(ConfigError, match="cannot be written"):
            Chat(store_path, clock)


# ---------------------------------------------------------------------- what survives


def test_accounts_and_messages_survive_a_restart(store_path: Path, clock: Clock) -> None:
    """After close and open everything is there: accounts, messages, acknowledgements, keys."""
    chat = Chat(store_path, clock)
    ann, bob = chat.account("ann"), chat.account("bob")
    sent = [chat.send(ann, "bob", str(i), key=b"%d" % i) for i in range(5)]
    chat.call(POP_UNDELIVERED, PopUndeliveredRequest(limit=2), bob)
    chat.close()
    chat = Chat(store_path, clock)
    bob, ann = FakeContext(), FakeContext()
    assert chat.log_in("bob", bob).undelivered == 3
    chat.log_in("ann", ann)
    assert chat.send(ann, "bob", "4", key=b"4").message_id == sent[4].message_id
    assert chat.send(ann, "bob", "5").sequence == 6
    messages = chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), bob).messages
    assert [(m.sequence, m.text) for m in messages] == [(3, "2"), (4, "3"), (5, "4"), (6, "5")]
    chat.close()


def test_an_acknowledgement_is_written_before_close_returns(store_path: Path, clock: Clock) -> None:
    """Acknowledging and closing at once loses no acknowledgement."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    for i in range(10):
        chat.send(ann, "ann", str(i))
    chat.receive(ann).take()
    answer = chat.start(ACKNOWLEDGE, AcknowledgeRequest(sequence=10), ann)
    chat.close()
    assert answer.result(0).undelivered == 0
    chat = Chat(store_path, clock)
    assert chat.log_in("ann", FakeContext()).undelivered == 0
    chat.close()


def test_the_database_is_set_up_for_durability(chat: Chat) -> None:
    """The writer syncs its log at every commit and nobody else checkpoints."""
    writing = chat.app._store._writing
    assert writing is not None
    assert writing.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    assert writing.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert writing.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0
    assert chat.app._store.rows(Query("PRAGMA wal_autocheckpoint")) == [(0,)]
    assert chat.app._store.rows(Query("PRAGMA query_only")) == [(1,)]


def test_a_reader_cannot_write(chat: Chat) -> None:
    """A statement that writes fails on the connections that read."""
    with pytest.raises(CallError, match="STORE_FAILED"):
        chat.app._store.rows(Query("DELETE FROM accounts"))


# ---------------------------------------------------------------------- statements


@pytest.fixture
def database(store_path: Path, clock: Clock) -> Iterator[sqlite3.Connection]:
    Chat(store_path, clock).close()
    database = sqlite3.connect(store_path)
    yield database
    database.close()


def test_every_statement_uses_an_index(database: sqlite3.Connection) -> None:
    """No statement of a call scans a table; only housekeeping may."""
    scans = []
    for name, statement in vars(Statements(pysqlite.dialect())).items():
        if isinstance(statement, Rows):
            statement, _ = statement.chunks([0] * statement.width * 7)[0]
        if isinstance(statement, Query):
            statement = statement.sql
        if not isinstance(statement, str) or name in ("sessions_over", "note"):
            continue
        plan = database.execute(f"EXPLAIN QUERY PLAN {statement}", [0] * statement.count("?")).fetchall()
        scans += [f"{name}: {row[3]}" for row in plan if row[3].startswith("SCAN ") and "CONSTANT ROW" not in row[3]]
    # What is scanned is no table but the result of a look-up.
    assert [scan for scan in scans if "SCAN anon_" not in scan] == [
        "accounts_by_id: SCAN listed",
        "keys_find: SCAN wanted",
    ]


def test_rows_are_cut_into_few_statements() -> None:
    """Any number of rows is written exactly once, in order, by as few statements as there are sizes for."""
    rows = Rows("INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT DO NOTHING", 2)
    for count in (*range(131), 200, 256):
        flat = list(range(2 * count))
        chunks = rows.chunks(flat)
        assert [value for _, parameters in chunks for value in parameters] == flat
        assert all(query.sql.count("?") == len(parameters) for query, parameters in chunks)
        assert all(query.sql.endswith(" ON CONFLICT DO NOTHING") for query, _ in chunks)
        assert len(chunks) <= count // 64 + 2


# ---------------------------------------------------------------------- closing


def test_a_closed_store_refuses_calls(store_path: Path, clock: Clock) -> None:
    """Calls after close are refused, "not processed", and none hangs."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    chat.close()
    with pytest.raises(CallError, match="STORE_FAILED: the store is closed"):
        chat.send(ann, "ann", "late")
    with pytest.raises(CallError, match="STORE_FAILED: the store is closed"):
        chat.receive(ann).take()
    chat.close()


def test_too_many_reads_are_refused(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that finds all readers busy for too long answers SERVER_BUSY, and the next one works."""
    monkeypatch.setattr(store_module, "READ_WAIT", 0.01)
    store = chat.app._store
    for _ in range(store_module.READERS):
        store._free.acquire()
    with pytest.raises(CallError, match="SERVER_BUSY"):
        store.rows(Query("SELECT 1"))
    store._free.release()
    assert store.rows(Query("SELECT 1")) == [(1,)]
    for _ in range(store_module.READERS - 1):
        store._free.release()


def test_close_finishes_what_waits(store_path: Path, clock: Clock) -> None:
    """Jobs queued before close are done; their futures are resolved."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    answers: list[Future[Any]] = [
        chat.start(SEND_MESSAGE, SendMessageRequest(recipient="ann", text=str(i)), ann) for i in range(500)
    ]
    chat.close()
    assert [answer.result(WAIT).sequence for answer in answers] == list(range(1, 501))


def test_a_link_does_not_get_round_the_lock(chat: Chat, store_path: Path, tmp_path: Path, clock: Clock) -> None:
    """A store that is open is refused by any other name, too."""
    (tmp_path / "link.db").symlink_to(store_path)
    (tmp_path / "directory").symlink_to(store_path.parent)
    for name in (tmp_path / "link.db", tmp_path / "directory" / "chat.db"):
        with pytest.raises(ConfigError, match="in use by process"):
            Chat(name, clock)
    chat.account("ann")
