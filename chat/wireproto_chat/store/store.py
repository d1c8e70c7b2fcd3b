"""Opening the chat's database, reading it, and closing it again. Writing is ``writer.Writer``'s.

One process owns a database file: a lock file beside it refuses a second. Inside, one connection writes and a few read,
each seeing the last commit (write-ahead logging), so no reader waits for the writer nor the writer for a reader.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from wireproto import CallError, Retry, Status
from wireproto_chat.store.clocks import Clocks
from wireproto_chat.store.failures import Complaints, closed, inherited, is_fatal, is_full, store_error
from wireproto_chat.store.files import claim, make_private, real_path, unclaim
from wireproto_chat.store.forks import keep_for_ever, own
from wireproto_chat.store.names import AccountNames
from wireproto_chat.store.opening import connect, prepare, set_up_reader, why_not
from wireproto_chat.store.space import KEEP_FREE, Space, free_bytes
from wireproto_chat.store.sums import verified
from wireproto_chat.store.tables import Query, Statements
from wireproto_chat.store.transaction import Transaction
from wireproto_chat.store.writer import WriteJob, Writer

__all__ = ["Store"]

log = logging.getLogger("wireproto_chat.store")

R = TypeVar("R")

READERS = 8
"""Connections that read; each answers in well under a millisecond."""

READ_WAIT = 2.0
"""Seconds a call waits for one of them before it is refused."""


class Store:
    """An open database. Every method may be called from any thread.

    Args:
        url: see ``files.path_of``.
        clocks: not started yet.
        housekeeping: makes the writer's job that deletes what has expired.
        on_arrival: see ``Writer``.
        on_fatal: see ``Writer``.
        keep_free: bytes of the disk to leave free, see ``Space``.
        free: a function of a directory to the bytes free there.

    Raises:
        ConfigError: the file cannot be used; the text says why and what to do.
    """

    def __init__(
        self,
        url: str | None,
        *,
        clocks: Clocks,
        housekeeping: Callable[[], WriteJob[bool]],
        on_arrival: Callable[[dict[int, int]], None],
        on_fatal: Callable[[BaseException], None],
        keep_free: int = KEEP_FREE,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.path = real_path(url)
        self.clocks = clocks
        self._gone: Callable[[], CallError] | None = None  # what a call is told that the store cannot serve
        self._connections: list[Connection] = []  # all that were made
        self._claim = claim(self.path)
        self._complaints = Complaints(log)
        space = Space(self.path, keep_free=keep_free, free=free)
        try:
            make_private(self.path)
            space.find()
            self._engine = connect(self.path)
            # Readers are connected when first needed and stay so. SQLAlchemy's pool would do, but
            # borrowing from it costs twice what a look-up does.
            self._readers: list[Connection] = []
            self._free = threading.BoundedSemaphore(READERS)
            try:
                self._writing = self._connect()
                try:
                    age, noted_at, schema = prepare(self.path, self._writing, clocks.now)
                except DBAPIError as error:
                    if not (is_full(error) and space.give_up_reserve()):
                        raise
                    self._connections.pop().close()
                    self._writing = self._connect()
                    age, noted_at, schema = prepare(self.path, self._writing, clocks.now)
                clocks.start(age, noted_at)
            except (DBAPIError, UnicodeDecodeError) as error:
                raise why_not(self.path, error) from error
            # Not before the database was found to be whole: nothing is put beside one that is refused.
            space.open()
            self.sql = Statements(self._engine.dialect)
            self._names = AccountNames()
            self._writer = Writer(
                self._writing,
                Transaction(self._writing, self.sql, clocks, space, self._names, schema),
                space,
                on_arrival=on_arrival,
                on_fatal=on_fatal,
                housekeeping=housekeeping,
            )
            self._writer.start()
        except BaseException:
            for connection in self._connections:
                connection.close()
            unclaim(self._claim)
            raise
        # A child of a process that was not that far has no way to what was made.
        own(self)

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        self._connections.append(connection)
        return connection

    def leave_to_parent(self) -> None:
        """This process is a child of the one that opened the store: serve nothing, and close nothing."""
        for connection in self._connections:
            keep_for_ever(connection)
        self._gone = inherited
        self._writer.leave_to_parent()

    @property
    def inherited(self) -> bool:
        """Whether this process is a child of the one that opened the store."""
        return self._gone is inherited

    def check_open(self) -> None:
        """See that the store can be read and written, before something is begun that ends there.

        Raises:
            CallError: STORE_FAILED: it was closed, or is the parent process's.
        """
        if self._gone is not None:
            raise self._gone()

    def rows(self, query: Query, *parameters: Any) -> Sequence[Sequence[Any]]:
        """All rows of one SELECT, as of the last commit.

        Raises:
            CallError: STORE_FAILED, with DATA_LOSS if one of them is not what was stored; SERVER_BUSY when all readers
                were busy for 2 s.
        """
        return verified(query, self.raw(query, *parameters))

    def raw(self, query: Query, *parameters: Any) -> Sequence[Sequence[Any]]:
        """The same for whoever looks at each row, see ``sums.unsound``; raises as ``rows`` does otherwise."""
        self.check_open()
        if not self._free.acquire(timeout=READ_WAIT):
            raise CallError(
                Status.RESOURCE_EXHAUSTED,
                "SERVER_BUSY",
                "too many reads wait already; try again shortly",
                retry=Retry.NOT_PROCESSED,
                retry_after_ms=500,
            )
        try:
            try:
                reader = self._readers.pop()
            except IndexError:
                reader = set_up_reader(self._connect())
            try:
                return reader.exec_driver_sql(query.sql, parameters).all()
            finally:
                self._readers.append(reader)
        except (DBAPIError, UnicodeDecodeError) as error:
            self._complaints.note("a read of the store", error)
            if is_fatal(error):
                self._writer.fail(error)
            raise store_error(error, reading=True) from error
        finally:
            self._free.release()

    def one(self, query: Query, *parameters: Any) -> Sequence[Any] | None:
        """The first row of one SELECT, if any; raises as ``rows`` does."""
        rows = self.rows(query, *parameters)
        return rows[0] if rows else None

    def name_of(self, account_ids: Iterable[int]) -> dict[int, str]:
        """The names of accounts, see ``AccountNames``; raises as ``raw`` does."""
        return self._names.of(account_ids, self.sql, self.raw)

    def submit(self, job: WriteJob[R]) -> "Future[R]":
        """Have the writer do a job; its future is resolved after the commit. Raises as ``Writer.submit`` does."""
        return self._writer.submit(job)

    @property
    def counts(self) -> tuple[int, int]:
        """Jobs done and transactions they took, since the store was opened."""
        return self._writer.jobs, self._writer.batches

    def close(self, timeout: float = 10.0) -> bool:
        """Finish what waits, fold the log into the database, let go of the file. In a child made by ``os.fork`` nothing
        is done: it is all the parent's.

        Returns:
            Whether the writer ended within ``timeout`` seconds; if not, the file stays claimed until the process ends.
        """
        if self._gone is not None:
            return True
        if not self._writer.close(timeout):
            return False
        # Readers first, and for good: the last connection to close must be the one that may checkpoint.
        for _ in range(READERS):
            if not self._free.acquire(timeout=timeout):
                return False
        while self._readers:
            self._readers.pop().close()
        try:
            self._writing.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        except DBAPIError as error:
            log.warning("the log stays beside the database, the next start folds it in: %s", error.orig)
        self._gone = closed
        self._writing.close()
        self._connections.clear()
        unclaim(self._claim)
        return True
