"""The writer: what fails alone, what fails together, and what ends everything."""

import sqlite3
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from chat_service.fakes import WAIT, Chat, Clock, FakeContext
from wireproto import CallError, Retry, Status
from wireproto_chat.opcodes import POP_UNDELIVERED, SEND_MESSAGE, PopUndeliveredRequest, SendMessageRequest
from wireproto_chat.store import writer as writer_module
from wireproto_chat.store.failures import is_fatal, store_error
from wireproto_chat.store.tables import Query
from wireproto_chat.store.transaction import Transaction
from wireproto_chat.store.writer import WriteJob


def sqlite_error(code: int) -> OperationalError:
    """What SQLAlchemy raises when SQLite answers with this code."""
    origin = sqlite3.OperationalError("made up")
    origin.sqlite_errorcode = code
    return OperationalError("COMMIT", (), origin)


class Gate(WriteJob[str]):
    """Holds the writer until it is opened, so that what comes meanwhile shares the next transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.open = threading.Event()

    def apply(self, tx: Transaction) -> str:
        self.entered.set()
        assert self.open.wait(WAIT)
        return "open"


class Bomb(WriteJob[None]):
    """Raises what it is given, each time or the first time only."""

    def __init__(self, error: BaseException, *, once: bool = False) -> None:
        super().__init__()
        self.error = error
        self.once = once
        self.tries = 0

    def apply(self, tx: Transaction) -> None:
        self.tries += 1
        if self.tries == 1 or not self.once:
            raise self.error


def together(chat: Chat, *jobs: "WriteJob[Any]") -> "list[Future[Any]]":
    """Have the writer do these in one transaction."""
    gate = Gate()
    chat.app._store.submit(gate)
    assert gate.entered.wait(WAIT)
    futures = [chat.app._store.submit(job) for job in jobs]
    gate.open.set()
    gate.future.exception(WAIT)
    return futures


def send_job(chat: Chat, context: FakeContext, to: str, text: str) -> "WriteJob[Any]":
    """The job of one send, not submitted."""
    caught: list[WriteJob[Any]] = []
    store = chat.app._store
    real = store._writer.submit
    store._writer.submit = lambda job: (caught.append(job), job.future)[1]  # type: ignore[method-assign, func-returns-value]
    try:
        chat.start(SEND_MESSAGE, SendMessageRequest(recipient=to, text=text), context)
    finally:
        store._writer.submit = real  # type: ignore[method-assign]
    return caught[0]


def texts(chat: Chat, context: FakeContext) -> list[str]:
    return [m.text for m in chat.call(POP_UNDELIVERED, PopUndeliveredRequest(), context).messages]


def test_a_refused_job_fails_alone(chat: Chat) -> None:
    """A CallError from one job leaves the others of its transaction done, in one commit."""
    ann = chat.account("ann")
    batches = chat.app.counts[1]
    futures = together(
        chat,
        send_job(chat, ann, "ann", "one"),
        send_job(chat, ann, "nobody", "lost"),
        send_job(chat, ann, "ann", "two"),
    )
    assert [type(future.exception(WAIT)) for future in futures] == [type(None), CallError, type(None)]
    assert chat.app.counts[1] == batches + 2  # the gate's and theirs
    assert texts(chat, ann) == ["one", "two"]


def test_a_job_that_breaks_is_the_only_one_to_fail(chat: Chat) -> None:
    """When a job raises anything else, the batch is rolled back and the others are done all the same."""
    ann = chat.account("ann")
    bomb = Bomb(ZeroDivisionError("boom"))
    futures = together(chat, send_job(chat, ann, "ann", "one"), bomb, send_job(chat, ann, "ann", "two"))
    assert [type(future.exception(WAIT)) for future in futures] == [type(None), ZeroDivisionError, type(None)]
    assert bomb.tries == 2
    assert [futures[0].result().sequence, futures[2].result().sequence] == [1, 2]
    assert texts(chat, ann) == ["one", "two"]


def test_a_rollback_forgets_the_counters_in_memory(chat: Chat) -> None:
    """After a rolled-back batch sequences are still dense and quotas right."""
    ann = chat.account("ann")
    chat.send(ann, "ann", "one")
    together(chat, send_job(chat, ann, "ann", "two"), Bomb(ZeroDivisionError(), once=True))
    assert chat.send(ann, "ann", "three").sequence == 3
    assert texts(chat, ann) == ["one", "two", "three"]


def test_a_callback_that_breaks_does_not_stop_the_writer(chat: Chat) -> None:
    """An exception after the commit goes to that job's caller; the writer goes on."""

    class Broken(WriteJob[None]):
        def apply(self, tx: Transaction) -> None:
            return None

        def committed(self, result: None) -> None:
            raise ZeroDivisionError

    ann = chat.account("ann")
    futures = together(chat, Broken(), send_job(chat, ann, "ann", "after"))
    assert isinstance(futures[0].exception(WAIT), ZeroDivisionError)
    assert futures[1].result(WAIT).sequence == 1


def test_a_cancelled_job_is_not_done(chat: Chat) -> None:
    """A job whose caller cancelled before the writer took it up writes nothing."""
    ann = chat.account("ann")
    gate = Gate()
    chat.app._store.submit(gate)
    assert gate.entered.wait(WAIT)
    future = chat.start(SEND_MESSAGE, SendMessageRequest(recipient="ann", text="cancelled"), ann)
    assert future.cancel()
    kept = chat.start(SEND_MESSAGE, SendMessageRequest(recipient="ann", text="kept"), ann)
    gate.open.set()
    assert kept.result(WAIT).sequence == 1
    assert texts(chat, ann) == ["kept"]


def test_too_much_waiting_is_refused(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit of waiting jobs calls answer SERVER_BUSY, "not processed", with a time to wait."""
    monkeypatch.setattr(writer_module, "MAX_WAITING", 3)
    ann = chat.account("ann")
    gate = Gate()
    chat.app._store.submit(gate)
    assert gate.entered.wait(WAIT)
    request = SendMessageRequest(recipient="ann", text="x")
    futures = [chat.start(SEND_MESSAGE, request, ann) for _ in range(3)]
    error = chat.refused(SEND_MESSAGE, request, ann)
    gate.open.set()
    assert (error.reason, error.retry, error.retry_after_ms > 0) == ("SERVER_BUSY", Retry.NOT_PROCESSED, True)
    assert [future.result(WAIT).sequence for future in futures] == [1, 2, 3]


# ---------------------------------------------------------------------- the store's own failures

FULL, IOERR_FSYNC, IOERR_DIR_FSYNC, IOERR_SHMSIZE, CORRUPT, BUSY, READONLY = 13, 1034, 1290, 4874, 11, 5, 8


@pytest.mark.parametrize(
    ("code", "reason", "fatal"),
    [
        (FULL, "STORE_FULL", False),
        (IOERR_SHMSIZE, "STORE_FULL", False),
        (BUSY, "STORE_FAILED", False),
        (READONLY, "STORE_FAILED", False),
        (IOERR_FSYNC, "STORE_FAILED", True),
        (IOERR_DIR_FSYNC, "STORE_FAILED", True),
        (10, "STORE_FAILED", True),
        (CORRUPT, "STORE_FAILED", True),
        (26, "STORE_FAILED", True),
    ],
)
def test_what_each_failure_means(code: int, reason: str, fatal: bool) -> None:
    """A full disk passes; a failed sync or a corrupt page does not; every one has its answer."""
    error = store_error(sqlite_error(code))
    assert isinstance(error, CallError)
    assert error.reason == reason
    assert is_fatal(sqlite_error(code)) is fatal
    assert "made up" not in str(error)


def test_an_error_that_is_not_the_stores_stays_what_it_is() -> None:
    """A mistake of ours is not dressed up as a failure of the disk."""
    mistake = ZeroDivisionError()
    assert store_error(mistake) is mistake
    assert not is_fatal(mistake)


class Failing:
    """A connection whose COMMIT fails with a code while that is set."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.code = 0
        self.commits = 0

    def exec_driver_sql(self, statement: str, parameters: Any = None) -> Any:
        if statement == "COMMIT":
            self.commits += 1
            if self.code:
                raise sqlite_error(self.code)
        return self.real.exec_driver_sql(statement, parameters)

    @property
    def connection(self) -> Any:
        return self.real.connection


def failing(chat: Chat) -> Failing:
    transaction = chat.app._store._writer._tx
    transaction._connection = connection = Failing(transaction._connection)  # type: ignore[assignment]
    return connection


def test_a_full_disk_refuses_and_recovers(chat: Chat) -> None:
    """While the disk is full each write answers STORE_FULL and stores nothing; with room again all is as before."""
    ann = chat.account("ann")
    chat.send(ann, "ann", "before")
    connection = failing(chat)
    connection.code = FULL
    futures = together(chat, *(send_job(chat, ann, "ann", f"lost {i}") for i in range(3)))
    errors = [future.exception(WAIT) for future in futures]
    assert {getattr(error, "reason", "") for error in errors} == {"STORE_FULL"}
    assert {getattr(error, "retry", "") for error in errors} == {Retry.NOT_PROCESSED}
    assert chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="ann", text="x"), ann).reason == "STORE_FULL"
    # Reading goes on.
    assert len(chat.receive(ann).take()) == 1
    connection.code = 0
    assert chat.send(ann, "ann", "after").sequence == 2
    assert texts(chat, ann) == ["before", "after"]


def test_a_database_that_cannot_grow_refuses_and_recovers(chat: Chat) -> None:
    """What SQLite itself does when it gets no more pages: STORE_FULL for sends, and nothing acknowledged is lost."""

    class Limit(WriteJob[None]):
        def __init__(self, pages: int) -> None:
            super().__init__()
            self.pages = pages

        def apply(self, tx: Transaction) -> None:
            tx.rows(Query(f"PRAGMA max_page_count = {self.pages}"))

    ann = chat.account("ann")
    chat.app._store.submit(Limit(40)).result(WAIT)
    request = SendMessageRequest(recipient="ann", text="x" * 2000)
    errors: list[BaseException | None] = []
    while len(errors) < 300:  # ten by ten: those that are committed together fail together
        answers = [chat.start(SEND_MESSAGE, request, ann) for _ in range(10)]
        errors += [answer.exception(WAIT) for answer in answers]
    stored = errors.count(None)
    assert 0 < stored < 300
    assert {error.reason for error in errors if isinstance(error, CallError)} == {"STORE_FULL"}
    chat.app._store.submit(Limit(2**30)).result(WAIT)
    assert chat.send(ann, "ann", "after").sequence == stored + 1
    received = []
    while page := texts(chat, ann):
        received += page
    assert received == ["x" * 2000] * stored + ["after"]


def test_a_failed_sync_is_the_end(store_path: Path, clock: Clock) -> None:
    """After a failed fsync nothing is written or acknowledged any more, whoever asks, and the owner is told once."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    chat.send(ann, "ann", "before")
    connection = failing(chat)
    connection.code = IOERR_FSYNC
    futures = together(chat, send_job(chat, ann, "ann", "one"), send_job(chat, ann, "ann", "two"))
    for future in futures:
        error = future.exception(WAIT)
        assert isinstance(error, CallError)
        assert (error.status, error.reason) == (Status.UNAVAILABLE, "STORE_FAILED")
        assert error.retry is Retry.MAYBE_PROCESSED
    connection.code = 0
    commits = connection.commits
    for _ in range(3):
        assert chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="ann", text="x"), ann).reason == "STORE_FAILED"
    assert connection.commits == commits
    chat.close()
    (told,) = chat.fatal
    assert str(told).startswith(f"the store {store_path} failed (made up, ")


def test_a_failed_sync_of_a_checkpoint_is_the_end(
    store_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that cannot be made durable ends the store as a commit does; a full disk there does not."""
    monkeypatch.setattr(writer_module, "CHECKPOINT_WRITES", 1)
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    outcome: list[int] = [FULL, IOERR_FSYNC]

    def fail(mode: str) -> int:
        raise sqlite_error(outcome.pop(0))

    monkeypatch.setattr(chat.app._store._writer, "_copy_log", fail)
    chat.send(ann, "ann", "one")
    assert chat.send(ann, "ann", "two").sequence == 2
    # The second checkpoint runs after that answer; whoever comes behind it is refused.
    gate = Gate()
    with pytest.raises(CallError, match="STORE_FAILED"):
        chat.app._store.submit(gate).result(WAIT)
    chat.close()
    assert len(chat.fatal) == 1


def test_the_log_is_copied_into_the_database(store_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log does not grow for ever: after so many writes it is copied and begins again."""
    monkeypatch.setattr(writer_module, "CHECKPOINT_WRITES", 50)
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    for i in range(400):
        chat.send(ann, "ann", str(i) * 300)
    log = store_path.with_name("chat.db-wal").stat().st_size
    assert log < 60 * 20 * 4096 < store_path.stat().st_size * 100
    assert store_path.stat().st_size > 200_000
    chat.close()


def test_a_stream_that_cannot_be_woken_harms_nobody(chat: Chat, caplog: pytest.LogCaptureFixture) -> None:
    """An exception from a wake is logged; the send is answered and the writer goes on."""
    ann = chat.account("ann")
    reader = chat.receive(ann)

    def broken() -> None:
        raise ZeroDivisionError

    reader.stream.wake = broken
    assert [chat.send(ann, "ann", str(i)).sequence for i in range(3)] == [1, 2, 3]
    assert "could not be woken" in caplog.text
    reader.close()


def test_a_writer_that_breaks_refuses_instead_of_hanging(store_path: Path, clock: Clock) -> None:
    """Whatever goes wrong in the writer itself, every job is answered and the owner is told."""
    chat = Chat(store_path, clock)
    ann = chat.account("ann")
    chat.app._store._writer._attempt = lambda jobs: []  # type: ignore[method-assign]
    for _ in range(2):
        assert chat.refused(SEND_MESSAGE, SendMessageRequest(recipient="ann", text="x"), ann).reason == "STORE_FAILED"
    chat.close()
    assert len(chat.fatal) == 1


def test_a_statement_of_a_batch_fails_as_all_others_do(chat: Chat) -> None:
    """What goes past SQLAlchemy for speed raises its errors, with SQLite's code and without the parameters."""

    class Wrong(WriteJob[None]):
        def apply(self, tx: Transaction) -> None:
            tx._quick("INSERT INTO mailboxes (account_id) VALUES (?)", (77,))

    with pytest.raises(DBAPIError) as caught:
        raise sqlite_failure(chat, Wrong())
    assert isinstance(caught.value.orig, sqlite3.IntegrityError)
    assert "77" not in str(caught.value)
    ann = chat.account("ann")
    assert chat.send(ann, "ann", "after").sequence == 1


def sqlite_failure(chat: Chat, job: "WriteJob[None]") -> BaseException:
    """What the store was told when a job failed, before anybody else is told something else."""
    seen: list[BaseException] = []
    writer = chat.app._store._writer
    real = writer._undo
    writer._undo = lambda error: (seen.append(error), real(error))[1]  # type: ignore[method-assign, func-returns-value]
    chat.app._store.submit(job).exception(WAIT)
    return seen[-1]
