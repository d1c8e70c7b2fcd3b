"""The one thread that writes: it takes what waits, does it in one transaction, and answers after the commit.

While one transaction is being made durable the next jobs queue up, so the busier the server the larger the batch and
the less each write costs. Answers are futures, resolved only once the commit has returned. The same thread owns the
checkpoints: SQLite before 3.51.3 can corrupt a database whose write-ahead log is reset by several.

A job that fails for a reason of its own (``CallError`` from ``apply``) fails alone, before it wrote anything. When
anything else fails, the batch is rolled back and each of its jobs is tried by itself.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from wireproto import CallError, Retry, Status
from wireproto_chat.store.failures import Complaints, closed, inherited, is_fatal, is_full, store_error
from wireproto_chat.store.space import Space
from wireproto_chat.store.transaction import IdempotencyKey, Transaction

__all__ = ["WriteJob", "Writer"]

log = logging.getLogger("wireproto_chat.store")

R = TypeVar("R")

MAX_BATCH = 256
"""Jobs in one transaction: bounds how long the first of them waits for the last."""

MAX_WAITING = 16_384
"""Jobs that wait for the writer; beyond it calls are refused. Some 2 s of work, and 16 MiB of texts of 1 KiB."""

LINGER = 0.0005
"""Seconds to wait for company when the last batch had some: a commit costs as much as ten sends."""

CHECKPOINT_WRITES = 2_000
"""Jobs after which the log is copied into the database: some 3,000 pages of it (12 MiB) when many share a transaction,
12,000 (48 MiB) when each has one of its own."""

LOG_PAGES = 65_536
"""Pages (256 MiB) of log above which the writer waits for readers to leave it, so that it starts again from its
beginning."""

HOUSEKEEPING = 3600.0
"""Seconds between two rounds of deleting what has expired."""


class WriteJob(Generic[R]):
    """Something to do in the writer's transaction.

    Attributes:
        future: the answer, set after the commit. A call's deferred answer may be handed in.
        lookup: the idempotency key the job will ask ``Transaction.known`` for.
    """

    __slots__ = ("claimed", "future", "lookup")

    def __init__(self, future: "Future[R] | None" = None, *, lookup: IdempotencyKey | None = None) -> None:
        # A future handed in is running already: whoever made it has claimed it from its caller.
        self.claimed = future is not None
        self.future: Future[R] = Future() if future is None else future
        self.lookup = lookup

    def apply(self, tx: Transaction) -> R:
        """Do it. Runs on the writer thread, perhaps twice: the first try may be rolled back.

        Raises:
            CallError: the job is refused; it must not have written anything yet.
        """
        raise NotImplementedError

    def committed(self, result: R) -> None:
        """Called on the writer thread when the result is durable, before the future is resolved. Must be quick."""


class _Stop(WriteJob[None]):
    """Ends the writer once everything before it is done."""


class _Note(WriteJob[None]):
    """Has the store know how old it is when it is closed."""

    def apply(self, tx: Transaction) -> None:
        tx.note_age()


class Writer:
    """The writer thread and its queue.

    Args:
        connection: in autocommit mode; used by the writer thread alone until ``close`` returns.
        tx: the transaction over it.
        space: the room on its disk.
        on_arrival: called after a commit with {account id: new head} of the mailboxes that got messages.
        on_fatal: called once, on whichever thread finds out, when the store cannot be trusted any more (a failed fsync,
            a corrupt page). Nothing is written from then on; the process should end.
        housekeeping: makes the job that deletes what has expired; it answers whether there is more.
    """

    thread_name: ClassVar[str] = "wireproto-chat-writer"

    def __init__(
        self,
        connection: Connection,
        tx: Transaction,
        space: Space,
        *,
        on_arrival: Callable[[dict[int, int]], None],
        on_fatal: Callable[[BaseException], None],
        housekeeping: "Callable[[], WriteJob[bool]]",
    ) -> None:
        self._connection = connection
        self._tx = tx
        self._space = space
        self._complaints = Complaints(log)
        self._on_arrival = on_arrival
        self._on_fatal = on_fatal
        self._housekeeping = housekeeping
        self._queue: queue.SimpleQueue[WriteJob[Any]] = queue.SimpleQueue()
        self._failing = threading.Lock()
        self._failed: CallError | None = None
        self._closed = False
        self._company = False
        self._since_checkpoint = 0
        self.batches = 0
        self.jobs = 0
        self._thread = threading.Thread(target=self._run, name=self.thread_name, daemon=True)

    # ------------------------------------------------------------------ any thread

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: WriteJob[R]) -> "Future[R]":
        """Queue a job; its future, resolved on the writer thread after the commit.

        Raises:
            CallError: SERVER_BUSY when too much waits already, STORE_FAILED when the store is closed or has failed.
        """
        if self._failed is not None:
            raise self._failed
        if self._closed:
            raise closed()
        if self._queue.qsize() >= MAX_WAITING:
            raise CallError(
                Status.RESOURCE_EXHAUSTED,
                "SERVER_BUSY",
                "too many writes wait already; try again shortly",
                retry=Retry.NOT_PROCESSED,
                retry_after_ms=250,
            )
        self._queue.put(job)
        return job.future

    def close(self, timeout: float = 10.0) -> bool:
        """Finish what waits and end the thread; whether it ended within ``timeout`` seconds."""
        self._closed = True
        self._queue.put(_Stop())
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def fail(self, error: BaseException) -> None:
        """The store is not to be trusted any more: refuse every write, and have the process end."""
        with self._failing:
            if self._failed is not None:
                return
            self._failed = CallError(
                Status.UNAVAILABLE,
                "STORE_FAILED",
                "the server's store failed; its log says why",
                retry=Retry.MAYBE_PROCESSED,
                retry_after_ms=1000,
            )
        log.critical("the store has failed, nothing more is written; restart the server", exc_info=error)
        self._on_fatal(error)

    def leave_to_parent(self) -> None:
        """This process is a child of the one that has the thread: refuse everything, and wait for nothing."""
        self._failed = inherited()
        self._closed = True

    # ------------------------------------------------------------------ the writer thread

    def _run(self) -> None:
        next_round = time.monotonic() + 1.0
        stopping = False
        while not stopping:
            try:
                jobs = [self._queue.get(timeout=max(0.0, next_round - time.monotonic()))]
            except queue.Empty:
                next_round = time.monotonic() + (0.0 if self._expire() else HOUSEKEEPING)
                continue
            if self._company:
                time.sleep(LINGER)
            while len(jobs) < MAX_BATCH:
                try:
                    jobs.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            stopping = any(isinstance(job, _Stop) for job in jobs)
            self._company = len(jobs) > 2
            taken = self._taken(jobs)
            try:
                if self._space.look():
                    self._checkpoint("TRUNCATE")  # what the log takes up is room, too
                self._do(taken)
                if self._since_checkpoint >= CHECKPOINT_WRITES:
                    self._checkpoint()
            except Exception as error:  # noqa: BLE001 - a writer that dies would leave every later call without an answer
                self.fail(error)
                self._refuse([job for job in taken if not job.future.done()], self._failed)
        if self._failed is None:
            self._do(self._taken([_Note()]))
        # A job that was queued behind the end is refused rather than left hanging.
        while not self._queue.empty():
            self._refuse(self._taken([self._queue.get()]), closed())

    def _taken(self, jobs: list[WriteJob[Any]]) -> list[WriteJob[Any]]:
        """The jobs somebody still waits for."""
        taken: list[WriteJob[Any]] = []
        for job in jobs:
            if isinstance(job, _Stop):
                continue
            # From here on a caller that cancels is too late: the job is done, and its answer dropped.
            if job.claimed or job.future.set_running_or_notify_cancel():
                job.claimed = True
                taken.append(job)
        return taken

    def _do(self, jobs: list[WriteJob[Any]]) -> None:
        if not jobs:
            return
        if self._failed is not None:
            self._refuse(jobs, self._failed)
            return
        try:
            results = self._attempt(jobs)
        except Exception as error:  # noqa: BLE001 - it is sorted by what it is below
            self._undo(error)
            if is_full(error) and self._space.give_up_reserve():
                self._checkpoint("TRUNCATE")
                self._do(jobs)
            elif len(jobs) > 1 and self._failed is None:
                for job in jobs:
                    self._do([job])
            else:
                if isinstance(error, DBAPIError):
                    self._complaints.note("a write of the store", error)
                self._refuse(jobs, store_error(error))
            return
        self.batches += 1
        self.jobs += len(jobs)
        self._since_checkpoint += len(jobs)
        arrived = self._tx.arrived
        self._tx.arrived = {}
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, CallError):
                job.future.set_exception(result)
                continue
            try:
                job.committed(result)
            except Exception as error:  # noqa: BLE001 - it belongs to the caller, who waits for the answer
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
        if arrived:
            try:
                self._on_arrival(arrived)
            except Exception:
                log.exception("a stream could not be woken; please report this")

    def _attempt(self, jobs: list[WriteJob[Any]]) -> list[Any]:
        tx = self._tx
        tx.begin([job.lookup for job in jobs if job.lookup is not None])
        results: list[Any] = []
        for job in jobs:
            try:
                results.append(job.apply(tx))
            except CallError as refusal:
                results.append(refusal)
        tx.commit()
        return results

    def _undo(self, error: Exception) -> None:
        if is_fatal(error):
            self.fail(error)
        try:
            self._tx.rollback()
        except DBAPIError as second:
            self.fail(second)

    def _refuse(self, jobs: list[WriteJob[Any]], error: BaseException | None) -> None:
        for job in jobs:
            job.future.set_exception(error)

    def _expire(self) -> bool:
        job = self._housekeeping()
        job.claimed = True
        self._do([job])
        return job.future.exception() is None and job.future.result()

    def _checkpoint(self, mode: str = "PASSIVE") -> None:
        self._since_checkpoint = 0
        try:
            pages = self._copy_log(mode)
            if pages > LOG_PAGES:
                self._copy_log("RESTART")
        except DBAPIError as error:
            if is_fatal(error):
                # After a failed fsync the kernel may have dropped what it could not write, and would not say so again.
                self.fail(error)
            else:
                self._complaints.note("copying the store's log into the database, which is tried again later,", error)

    def _copy_log(self, mode: str) -> int:
        row = self._connection.exec_driver_sql(f"PRAGMA wal_checkpoint({mode})").first()
        return 0 if row is None else int(row[1])
