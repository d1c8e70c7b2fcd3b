"""A client that answers: the calls that its server begins on one link, and whoever runs them.

A link's lock, socket and output serve it, too. Whoever reads for the link takes in what comes, the keeper if no caller
waits, and hands it to the workers: no handler runs on a thread that reads.
"""

import logging
import math
import threading
import time
from _thread import LockType
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from wireproto.answering.call import Call
from wireproto.answering.pool import Pool, Worker
from wireproto.answering.refusals import shutting_down, too_large
from wireproto.answering.side import AnsweringSide
from wireproto.binding import Dialect
from wireproto.client.workers import Workers
from wireproto.codecs import Codec
from wireproto.connected import ConnectedClient
from wireproto.dispatch import Handlers, Table
from wireproto.errors import CallError, ConfigError, LocalProtocolError
from wireproto.identity import Identity
from wireproto.limits import Limits
from wireproto.log_limit import LogLimit
from wireproto.schema import Service
from wireproto.status import Retry
from wireproto.wire.connection import Connection, PayloadTooLarge, State
from wireproto.wire.events import Event, RequestReceived
from wireproto.wire.packing import Packed, Payload

__all__ = ["Agent", "ServedHandlers"]

AHEAD = 10.0
"""Seconds ahead that an alarm is set at most. It keeps the link, which may long be over: a client of a server that is
lost again and again, and calls with a day to answer, would keep them all for a day."""

log = logging.getLogger("wireproto.client")
_log_limit = LogLimit()


class Writing(Protocol):
    """A link, as its agent sees it; the lock is held."""

    def transmit_locked(self) -> None:
        """Send what the connection has queued; what the kernel does not take waits."""

    def waiting_locked(self) -> int:
        """Bytes that the kernel did not take yet."""


class Agent(AnsweringSide):
    """The calls that the server of one link has begun.

    Args:
        link: sends what is queued.
        lock, connection, peer: of the link.
        table: what the server may call.
        codec: the name of the connection's.
        pool: runs the handlers.
        limits: of this side.
    """

    __slots__ = ("_idle", "_link", "_over")

    def __init__(
        self,
        link: Writing,
        lock: LockType,
        connection: Connection,
        peer: str,
        table: Table,
        codec: str,
        pool: Pool,
        limits: Limits,
    ) -> None:
        super().__init__(lock, connection, peer, pool, limits)
        self.codec = codec
        self._table = table
        self._link = link
        self._over = False
        self._idle: threading.Event | None = None  # set once there are no calls, for ``drain``

    @property
    def identity(self) -> Identity | None:
        """None: whoever calls here is the server, and has no other name."""
        return None

    @identity.setter
    def identity(self, identity: Identity | None) -> None:
        if identity is not None:
            raise LocalProtocolError("nobody signs in at a client: the only one who calls here is its server")

    @property
    def client(self) -> ConnectedClient:
        """See ``owners.CallOwner``."""
        raise LocalProtocolError("this is the client: its server is called by way of the object that connect() gave")

    @property
    def busy(self) -> bool:
        """Whether calls are in flight here, or one-way calls not through."""
        return bool(self._calls or self._batch or self._one_way_running)

    # What whoever reads for the link calls, with its lock.

    def event_locked(self, event: Event) -> None:
        """Take what has come of the server's calls."""
        if type(event) is RequestReceived:
            call = self._begin_locked(event)
            if call is not None:
                if self._batch is None:
                    self._batch = deque()
                self._batch.append(call)
        else:
            self._call_event_locked(event)
        if self._batch:
            if len(self._batch) > 2 * self.limits.max_calls:
                self._drop_answered_locked(self._batch)
            if not self._more:
                self._more = True
                self.pool.post(self._continue)

    def _drop_answered_locked(self, batch: "deque[Call]") -> None:
        """Let go of calls that are over before their turn. The keeper reads on while handlers hold all the workers, so
        that calls which are begun and cancelled would pile up; those in flight are bounded. The leader takes out of the
        same batch meanwhile, without the lock.
        """
        for _ in range(len(batch)):
            try:
                call = batch.popleft()
            except IndexError:
                return
            if not call.answered:
                batch.append(call)

    def wrote_locked(self) -> None:
        """The kernel has taken more of the output."""
        self._make_use_of_room_locked()

    def end_locked(self, why: str) -> None:
        """Nothing that the calls still give has anywhere to go."""
        if not self._over:
            self._over = True
            self._abandon_calls_locked(why)
            self._look_whether_idle_locked()

    def drain(self, deadline: float) -> None:
        """Say GOAWAY, and wait until the server's calls in flight are answered, or until ``deadline``."""
        with self.lock:
            if self._over or self.draining or self.connection.state is not State.OPEN:
                return
            self.draining = True
            self.connection.send_goaway(shutting_down(Retry.NOT_PROCESSED))
            idle = self._idle = threading.Event()
            self._expire_streams_locked()
            self.flush_locked()
            self._look_whether_idle_locked()
        if not idle.wait(max(0.0, deadline - time.monotonic())):
            with self.lock:
                if not self.closed:
                    self._end_calls_locked(shutting_down)

    # What the calls use.

    @property
    def closed(self) -> bool:
        return self._over

    def settle(self, call: Call, outcome: "Payload | CallError", last: bool = False) -> None:
        with self.lock:
            if call.answered:
                call.let_go_locked()
            elif isinstance(outcome, CallError):
                self._end_call_locked(call, outcome)
            elif isinstance(outcome, Packed):
                self._settle_packed_locked(call, outcome)
            else:
                call.answered = True
                if self._calls is not None:
                    del self._calls[call.call_id]
                try:
                    self.connection.send_response(call.call_id, outcome)
                except PayloadTooLarge as error:
                    self.connection.send_error(call.call_id, too_large(error))
            if last:
                self.flush_locked()

    def flush_locked(self) -> None:
        if not self._over and self.connection.bytes_pending:
            self._link.transmit_locked()
        if self._starved:
            self._make_use_of_room_locked()
        self._look_whether_idle_locked()

    def _pending_locked(self) -> int:
        return self.connection.bytes_pending + self._link.waiting_locked()

    def _continue(self, worker: Worker) -> None:
        with self.lock:
            self._more = False
            if self._over or self._full_locked():
                return
        if self._batch:
            self._run_batch(worker)

    def _note(self, subject: str, text: str) -> None:
        self.pool.post(lambda worker: self._write(subject, text))  # posted, because its callers hold a lock

    def _write(self, subject: str, text: str) -> None:
        more = _log_limit.admit((self.peer, subject))
        if more is not None:
            log.warning("%s: %s%s", self.peer, ascii(text[:256])[1:-1], more)

    def _set_alarm_locked(self, deadline: float) -> None:
        if deadline < math.inf:
            super()._set_alarm_locked(min(deadline, time.monotonic() + AHEAD))

    def _may_cancel_locked(self) -> bool:
        return True  # handlers that run on behind a CANCEL are bounded; a client does not count against its server

    def _count_error_locked(self) -> None:
        """A client goes on: it has chosen its server."""

    def one_less_locked(self) -> None:
        self._look_whether_idle_locked()

    def _look_whether_idle_locked(self) -> None:
        if self._idle is not None and (self._over or not self.busy):
            self._idle.set()


class ServedHandlers:
    """The handlers of a client, compiled for each codec and version that it may come to speak, and who runs them.

    Args:
        handlers: of the methods that the server calls.
        service: of the client.
        codecs: that it offers.
        versions: that it offers.
        limits: of this side.
        workers: threads to share, or how many to make.
        packing: the algorithms that it offers.

    Raises:
        ConfigError: the handlers are of another service, or one is of a method that clients call; or as ``Workers``.
        DeclarationError: a codec cannot carry a message of the service.
        LocalProtocolError: the workers were made before a fork.
    """

    def __init__(
        self,
        handlers: Handlers,
        service: Service,
        codecs: Iterable[Codec],
        versions: Iterable[int],
        limits: Limits,
        workers: Workers | int,
        packing: Iterable[int],
    ) -> None:
        if not isinstance(handlers, Handlers):
            raise ConfigError(f"handlers= takes Handlers, not {type(handlers).__name__}; write Handlers(service)")
        if handlers.service is not service:
            raise ConfigError(
                f"these Handlers are of {handlers.service.full_name}, and the client is of {service.full_name}; make "
                "them of the very Service that is given to connect()"
            )
        handlers.check_side("server")
        tables = {
            (codec.id, version, algorithm): handlers.table(codec, version, limits, by="server", packing=algorithm)
            for codec in codecs
            for version in versions
            for algorithm in (0, *packing)
        }
        self._tables = tables
        self._workers = workers if isinstance(workers, Workers) else Workers(workers, queue=limits.run_queue)
        self._own = None if self._workers is workers else self._workers
        self._known = self._workers.know(tables.values())

    def of(self, dialect: Dialect) -> tuple[Table, Pool]:
        """See ``link.Answers``."""
        return self._tables[dialect.codec.id, dialect.version, dialect.packing], self._workers.pool

    def close(self) -> None:
        """Let go of the threads; those that are this client's alone end."""
        self._workers.forget(self._known)
        if self._own is not None:
            self._own.close()

    def drop(self) -> None:
        """The same, for finalizers."""
        self._workers.forget(self._known)
        if self._own is not None:
            self._own.drop()
