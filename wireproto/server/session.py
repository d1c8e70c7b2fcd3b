"""The server side of one connection: its socket, its calls, its deadlines.

An event from the poller is a hint, never an ownership. Every system call on the descriptor (recv, send, epoll add,
modify and remove, shutdown, close) happens with ``lock`` held and after a look at ``closed``; receiving, feeding the
bytes to the sans-IO connection and taking its events are one critical section. Handlers, codecs and logs run without
the lock. ``_close_locked`` is the one function that closes.

Methods that end in ``_locked`` are called with ``lock`` held.
"""

import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from wireproto.answering.call import Call, OneWayCall, expire_overdue_locked
from wireproto.answering.intake import intake_of
from wireproto.answering.pool import Worker
from wireproto.answering.refusals import busy, cancelled, half_closed, shutting_down, too_large
from wireproto.answering.running_on import RunningOn
from wireproto.answering.watch import STUCK
from wireproto.answering.windows import Windows
from wireproto.dispatch import Identity, Table
from wireproto.errors import CallError, HandshakeError, RemoteProtocolError
from wireproto.poller import CLOSED, READ, WRITE
from wireproto.reasons import failure
from wireproto.server.budget import Budget
from wireproto.server.owners import SessionOwner
from wireproto.server.transport import Transport
from wireproto.status import Retry, Status
from wireproto.wire.connection import PayloadTooLarge, State
from wireproto.wire.events import (
    CancelReceived,
    ConnectionEnded,
    CreditReceived,
    Event,
    FlaggedRequestReceived,
    HelloReceived,
    ItemReceived,
    PingReceived,
    RequestEnded,
    RequestReceived,
)
from wireproto.wire.frame import Flag
from wireproto.wire.liveness import LATE, Liveness, Overdue
from wireproto.wire.metadata import EMPTY

__all__ = ["Session"]

_INPUT = READ | CLOSED
_CLOSED = State.CLOSED  # on CPython 3.11 a member looked up on its class costs 50 ns

HEARTBEAT = b"wireprot"
"""The eight bytes of our PINGs; the PONG that echoes them counts as a sign of life like any other frame."""


_COUNTED = frozenset({"BAD_PAYLOAD", "UNKNOWN_OPCODE", "WRONG_SHAPE"})
"""Reasons that say that the peer does not know what it does."""


class Session:
    """One accepted connection.

    Attributes:
        peer: ``host:port``, for logs and contexts.
        address: the host alone, for limits per address.
        codec: the name of the codec agreed, empty before.
        identity: who signed in on this connection, or None.
        handshaking: HELLO was not read yet.
    """

    __slots__ = (
        "__weakref__",
        "_alarm_at",
        "_batch",
        "_budget",
        "_calls",
        "_ending",
        "_flushing",
        "_half_closed_at",
        "_linger_until",
        "_liveness",
        "_more",
        "_one_way_owed",
        "_one_way_running",
        "_running_on",
        "_starved",
        "_table",
        "_turn",
        "_windows",
        "address",
        "codec",
        "connection",
        "draining",
        "handshaking",
        "identity",
        "lock",
        "peer",
        "pool",
        "server",
        "started",
        "transport",
    )

    def __init__(self, server: SessionOwner, sock: socket.socket, address: str, port: int) -> None:
        self.server = server
        self.pool = server.pool
        self.address = address
        self.peer = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        self.lock = threading.Lock()
        self.connection = server.connection()
        self.codec = ""
        self.identity: Identity | None = None
        self.handshaking = True
        self.started = time.monotonic()
        self.transport = Transport(sock, server.poller, server.limits)
        self._table: Table | None = None
        self._turn = server.limits.turn_calls
        self._calls: dict[int, Call] | None = None
        self._batch: deque[Call] | None = None
        self._more = False  # a turn will go on: it is posted, or waits for room in the output
        self.draining = False
        self._ending = False  # half-closed, draining or lingering: whatever is written may be the last
        self._starved = False  # a stream or a turn found no room in the output
        self._flushing = False  # a flush is posted
        self._alarm_at = math.inf  # when the next deadline is looked at, if that is before the sweep
        self._linger_until: float | None = None
        self._half_closed_at = math.inf
        self._running_on: RunningOn[Call] | None = None
        self._windows: Windows | None = None
        self._one_way_running = 0  # calls that are over for the peer and not for us
        self._one_way_owed = 0  # credit of those that have run
        self._liveness = Liveness(self.connection, server.limits, self.started, idle=server.limits.idle_timeout)
        self._budget = Budget(server.limits)

    # ------------------------------------------------------------------ the poller's events

    def open(self) -> None:
        """Publish and register in one step, so that no event finds half a session."""
        with self.lock:
            self.server.sessions[self.transport.fd] = self
            try:
                self.transport.register()
            except OSError:
                # Nobody may find it here later, when the descriptor is another connection's.
                del self.server.sessions[self.transport.fd]
                raise

    def on_event(self, worker: Worker, mask: int) -> None:
        """The descriptor may be readable or writable; called by the leader."""
        call = None
        # Not ``with``, here and in ``settle``: it costs as much again as the lock, and every call passes here.
        self.lock.acquire()
        try:
            transport = self.transport
            if mask & WRITE:
                self.flush_locked()
            if not transport.reading:
                if mask & CLOSED:
                    self._close_locked("the peer reset the connection")
            elif mask & _INPUT and not self._more:
                data = transport.receive()
                if data and not self._batch and (request := self.connection.lone_request(data)) is not None:
                    # By far the commonest: there is no more, so nothing to keep in a batch.
                    call = self._begin_locked(request)
                    if call is None:
                        self.flush_locked()
                else:
                    self._read_locked(data)
        finally:
            self.lock.release()
        if call is not None:
            self._run(worker, call, True)
        elif self._batch:
            self._run_batch(worker)

    def _continue(self, worker: Worker) -> None:
        """Another turn for calls and frames that were left over; posted."""
        with self.lock:
            self._more = False
            if self.transport.closed or self._full_locked():
                return
            self._take_locked(self.connection.next_events(self._turn))
            self.flush_locked()
        if self._batch:
            self._run_batch(worker)

    def _read_locked(self, data: bytes | None) -> None:
        """Take what was read: events, a part of one, the end of the input, or nothing."""
        if data is None:
            if self.transport.failure:
                self._close_locked(self.transport.failure)
            return
        if data:
            self.connection.receive_data(data)
            if self._linger_until is not None and self.connection.discarded > self.server.limits.linger_bytes:
                self._close_locked("it went on sending after the final ERROR")
                return
        else:
            self._ending = True
            self.connection.receive_eof()
        self._take_locked(self.connection.next_events(self._turn))

    def _take_locked(self, events: list[Event]) -> None:
        """Make calls of the REQUESTs among up to a turn's worth of events, act on others, and go on behind those."""
        connection = self.connection
        room = limit = self._turn
        while events:
            whole = len(events) < limit  # what is left of the bytes makes no more of these
            if connection.state is _CLOSED:
                del events[:-1]  # the end came behind these REQUESTs in the same bytes: nobody waits for answers
            for event in events:
                if type(event) is RequestReceived:
                    if (call := self._begin_locked(event)) is not None:
                        if self._batch is None:
                            self._batch = deque()
                        self._batch.append(call)
                    elif connection.state is _CLOSED:
                        return  # that was one refusal too many
                    room -= 1
                elif not self._event_locked(event):
                    return
                elif type(event) is not ItemReceived:
                    room -= 1
            if room < 1:
                if connection.bytes_waiting or self.transport.ended:
                    self._more = True
                    self.pool.post(self._continue)
                break
            if whole and type(event) is RequestReceived:
                break  # there are no others
            limit = room
            events = connection.next_events(limit)
        if not self._batch and (connection.bytes_pending or self._ending):
            self.flush_locked()

    def _begin_locked(self, request: RequestReceived) -> Call | None:
        """A call begins; None when it was refused, which may have ended the connection."""
        call_id, metadata, table = request.call_id, request.metadata, self._table
        if table is None:
            return None  # never: before HELLO there is no REQUEST
        entry = table.unary.get(request.opcode)
        if entry is None:
            self._fail_locked(call_id, table.missing(request.opcode))
            return None
        if metadata is not EMPTY and isinstance(metadata, CallError):
            self._fail_locked(call_id, metadata)
            return None
        call = Call(self, call_id, entry, metadata, request.payload)
        if metadata is not EMPTY or entry.timeout is not None:
            call.read_terms()
            if call.deadline is not None and call.deadline < self._alarm_at:
                self._set_alarm_locked(call.deadline)
        if self._calls is None:
            self._calls = {}
        self._calls[call_id] = call
        return call

    def _begin_flagged_locked(self, request: FlaggedRequestReceived) -> None:
        """A call of another shape than unary begins, or is refused, which may have ended the connection."""
        metadata, table = request.metadata, self._table
        if table is None:
            return  # never, as above
        entry = table.find(request.opcode, request.flags)
        if entry is None:
            self._refuse_flagged_locked(request, table.missing(request.opcode, request.flags))
            return
        if isinstance(metadata, CallError):
            self._refuse_flagged_locked(request, metadata)
            return
        # As of a unary call, for which a function that both share would be one more to call.
        if request.flags & Flag.ONE_WAY:
            self._begin_one_way_locked(OneWayCall(self, request.call_id, entry, metadata, request.payload))
            return
        call = Call(self, request.call_id, entry, metadata, request.payload)
        call.read_terms()
        if call.deadline is not None and call.deadline < self._alarm_at:
            self._set_alarm_locked(call.deadline)
        if self._calls is None:
            self._calls = {}
        self._calls[call.call_id] = call
        if request.flags & Flag.ITEMS_FOLLOW:
            if self._windows is None:
                self._windows = Windows(self.server.limits)
            self._windows.begin(call.call_id)
            call.intake = intake_of(call)
            call.intake.begin_locked()
            return
        if self._batch is None:
            self._batch = deque()
        self._batch.append(call)

    def _begin_one_way_locked(self, call: OneWayCall) -> None:
        """It is over already; its deadline counts until its handler begins, and ``Entry.run`` looks at that."""
        call.read_terms()
        self._one_way_running += 1
        self.pool.post(lambda worker: self._run_one_way(call, worker))

    def _run_one_way(self, call: OneWayCall, worker: Worker) -> None:
        pace = call.entry.pace
        if pace.wary and not pace.may_lead(self.pool.short):
            if not self.pool.submit(call):
                self.one_way_over(call, busy())
            return
        pace.ran = True
        call.run(True, worker)
        if self.pool.leader is not worker:
            pace.note(STUCK)

    def one_way_over(self, call: Call, error: CallError | None) -> None:
        """The handler of a one-way call has returned, or the call was not run: its credit goes back."""
        with self.lock:
            self._one_way_running -= 1
            if error is not None:
                self._drop_one_way_locked(error)
            else:
                self._return_one_way_credit_locked()
            if self._ending:
                self._go_on_ending_locked()

    def _drop_one_way_locked(self, error: CallError) -> None:
        """Nobody hears of it: so it is logged."""
        self.server.note(self.address, "one-way", f"a one-way call failed: {error}")
        if error.reason in _COUNTED:
            self._count_error_locked()
        self._return_one_way_credit_locked()

    def _return_one_way_credit_locked(self) -> None:
        self._one_way_owed += 1
        if (
            self._one_way_owed * 2 >= self.server.limits.one_way_calls
            and not self.transport.closed
            and self.connection.send_one_way_credit(self._one_way_owed)
        ):
            self._one_way_owed = 0
            self.flush_soon()  # not at once: a write that fails closes the session, within a turn it may be

    def _refuse_flagged_locked(self, request: FlaggedRequestReceived, error: CallError) -> None:
        if request.flags & Flag.ONE_WAY:
            self._drop_one_way_locked(error)
        else:
            self._fail_locked(request.call_id, error)

    def _event_locked(self, event: object) -> bool:
        """Everything but a unary request; False when the connection reads no further."""
        if type(event) is CreditReceived:
            call = self._calls.get(event.call_id) if self._calls else None
            if call is not None and call.stream is not None:
                call.stream.wake_locked()
        elif type(event) is ItemReceived:
            call = self._calls.get(event.call_id) if self._calls else None
            if call is not None and call.intake is not None:
                call.intake.put_locked(event.payload)
        elif type(event) is RequestEnded:
            call = self._calls.get(event.call_id) if self._calls else None
            if call is not None and call.intake is not None:
                call.intake.complete_locked()
        elif type(event) is FlaggedRequestReceived:
            self._begin_flagged_locked(event)
            return self.connection.state is not _CLOSED
        elif type(event) is CancelReceived:
            self._cancel_locked(event.call_id)
        elif type(event) is PingReceived:
            if not self._budget.take("pings"):
                self._fail_connection_locked("TOO_MANY_PINGS", "PING frames come faster than the server allows")
        elif type(event) is HelloReceived:
            try:
                welcome, self._table, self.codec = self.server.welcome(event.hello)
            except HandshakeError as error:
                self.connection.refuse(error)
            else:
                self.connection.send_welcome(welcome)
            self.handshaking = False
        elif type(event) is ConnectionEnded:
            self._ended_locked(event.error)
            return False
        return True

    def _ended_locked(self, error: "RemoteProtocolError | CallError | None") -> None:
        if self.transport.ended and error is None:
            # A half-close: what is in flight is still answered.
            self._half_closed_at = time.monotonic()
            self._half_close_streams_locked()
        else:
            if error is not None:
                self.server.note(self.address, "protocol", str(error))
            self._abandon_locked("the connection failed")
            if not self.transport.ended:
                self._linger_locked()
        self.flush_locked()

    def _fail_connection_locked(self, reason: str, problem: str) -> None:
        self._end_connection_locked(RemoteProtocolError(reason, problem, Status.RESOURCE_EXHAUSTED))

    def _end_connection_locked(self, error: RemoteProtocolError) -> None:
        """Fail the connection and take the end at once: nothing may be sent in between."""
        if self.connection.state is not State.CLOSED:
            self.connection.fail(error)
            self.connection.next_event()  # the end, which is no news to us; after a half-close there is none
            self._ended_locked(error)

    # ------------------------------------------------------------------ calls

    def _run_batch(self, worker: Worker) -> None:
        """Run what was taken. The batch belongs to the session, so whoever leads next goes on with it when a handler
        blocks here."""
        batch = self._batch
        while batch:
            try:
                call = batch.popleft()
            except IndexError:
                break  # a deposed leader took the last one
            last = not batch
            if not self._run(worker, call, last):
                if batch:
                    self.take_over()  # the watchdog may have seen another session here
                break
            if last:
                return
            if self.connection.bytes_pending > self.server.limits.high_watermark and self._is_full():
                return
        self.flush()

    def _run(self, worker: Worker, call: Call, last: bool) -> bool:
        """Run a call here, if its handler is quick, or on a follower; False when the worker leads no more."""
        entry, pool = call.entry, self.pool
        pace = entry.pace
        if pace.wary:
            if not pace.may_lead(pool.short):
                if not pool.submit(call):
                    self.settle(call, busy(), last)
                elif last:
                    self.flush()
                return True
            pace.ran = True
            call.run(last, worker)
        else:
            # What ``Call.run`` does, without its clock and in one step less: nearly every call passes here.
            pace.ran = call.started = True
            if self.identity is not None:
                call.identity = self.identity
            worker.running = call
            outcome = b"" if call.answered else entry.run(call.payload, call)
            worker.running = None  # what follows may wait for the interpreter, and the handler is not to blame
            if type(outcome) is bytes:
                self.settle(call, outcome, last)
            else:
                call.go_on(outcome, last)
        if pool.leader is worker:
            return True
        if not pace.wary:
            pace.note(STUCK)  # the run was not timed, and was at least so long
        return False

    def _is_full(self) -> bool:
        """Write; whether the peer has yet to take so much that the rest of the turn waits for it."""
        with self.lock:
            self.flush_locked()
            return self._full_locked()

    def _full_locked(self) -> bool:
        if self.room_locked():
            return False
        self._more = True
        return True

    def room_locked(self) -> int:
        """How many bytes may be added to the output; the last frame may go over. 0 when it is full: whoever asked is
        woken when there is room again.
        """
        room = self.server.limits.high_watermark + 1 - self._pending_locked()
        if room > 0:
            return room
        self._starved = True
        return 0

    def settle(self, call: Call, outcome: "bytes | CallError", last: bool = False) -> None:
        """Queue a call's terminal frame, unless it has had one; the ``last`` one is written, with what else waits."""
        self.lock.acquire()
        try:
            if call.answered:
                call.let_go_locked()
            elif type(outcome) is bytes:
                call.answered = True
                if self._calls is not None:
                    del self._calls[call.call_id]
                try:
                    if last:
                        sent = self.transport.send(self.connection.answer(call.call_id, outcome))
                        if not sent or self._starved or self._ending:
                            self._written_locked()
                        return
                    self.connection.send_response(call.call_id, outcome)
                except PayloadTooLarge as error:
                    self.connection.send_error(call.call_id, too_large(error))
            elif isinstance(outcome, CallError):
                self._end_call_locked(call, outcome)
            if last:
                self.flush_locked()
        finally:
            self.lock.release()

    def stream_began_locked(self, call: Call) -> None:
        """A call has its stream: one without an end of its own ends at once where such streams do not go on."""
        if call.stream is not None and call.stream.subscribed:
            if self.half_closed:
                call.expire_locked(half_closed)
            elif self.draining and not call.entry.method.goes_on:
                call.expire_locked(shutting_down)

    @property
    def half_closed(self) -> bool:
        """The peer has ended its output, and all of it was taken."""
        return self.connection.state is State.HALF_CLOSED

    def _end_call_locked(self, call: Call, error: CallError) -> None:
        """Answer with ERROR, unless the call was answered."""
        if not call.answered:
            call.answered = True
            self.send_error_locked(call, error)

    def send_error_locked(self, call: Call, error: CallError) -> None:
        if self._calls is not None:
            self._calls.pop(call.call_id, None)
        self.connection.send_error(call.call_id, error)
        if call.stream is not None:
            call.stream.end_locked(str(error))
        if call.intake is not None:
            self.answered_locked(call, error)
        if error.reason in _COUNTED:
            self._count_error_locked()

    def run_on_locked(self, call: Call, error: CallError) -> None:
        """A call ends while its handler runs on; not yet, if too many do. It is in flight until then."""
        if self._running_on is None:
            self._running_on = RunningOn(self.server.limits.max_calls)
        if self._running_on.may_end(call, error):
            self.send_error_locked(call, error)

    def came_back_locked(self, call: Call) -> None:
        """A handler that ran on is back."""
        ending = None if self._running_on is None else self._running_on.back(call)
        if ending is not None:
            self.send_error_locked(*ending)

    def _expire_streams_locked(self) -> None:
        """The server closes: a subscription, which has no end of its own, ends. An iterator is told by its context, and
        has until the time to close is over; so has a subscription of a method that says ``drains``, which is woken.
        """
        for call in list((self._calls or {}).values()):
            if call.stream is not None and call.stream.subscribed:
                if call.entry.method.goes_on:
                    call.stream.wake_locked()
                else:
                    call.expire_locked(shutting_down)

    def _half_close_streams_locked(self) -> None:
        """The peer grants no more credit. An iterator goes on as far as it has some, and ends well if that is its end,
        too; a subscription has no end of its own.
        """
        for call in list((self._calls or {}).values()):
            if call.intake is not None and not call.intake.complete:
                call.expire_locked(half_closed)  # the rest of its items will never come
            elif call.stream is not None:
                if call.stream.subscribed:
                    call.expire_locked(half_closed)
                else:
                    call.stream.wake_locked()

    def _cancel_locked(self, call_id: int) -> None:
        call = self._calls.get(call_id) if self._calls else None
        if call is None:
            return  # it crossed the answer
        if not self._budget.take("cancels"):
            self._fail_connection_locked("TOO_MANY_CANCELS", "calls are cancelled faster than the server allows")
            return
        call.expire_locked(cancelled)

    def _fail_locked(self, call_id: int, error: CallError) -> None:
        """Refuse a call, which may be one refusal too many and end the connection."""
        self.connection.send_error(call_id, error)
        self._count_error_locked()

    def _count_error_locked(self) -> None:
        if not self._budget.take("errors"):
            self._fail_connection_locked("TOO_MANY_ERRORS", "too many requests that cannot be understood")

    @property
    def holder(self) -> "Session":
        """See ``owners.CallOwner``."""
        return self

    def identity_revoked(self, identity: Identity) -> None:
        """See ``identity.Holder``."""
        with self.lock:
            for call in list((self._calls or {}).values()):
                if call.revoke_locked(identity):
                    self.flush_soon()  # not at once: whoever revokes may have many more connections to look at

    # ------------------------------------------------------------------ items that follow

    @property
    def collect_bytes(self) -> int:
        """Bytes of the items of one call that are kept until all have come, at most."""
        return self.server.limits.window_bytes

    @property
    def item_timeout(self) -> float:
        """Seconds that a handler that iterates waits for an item."""
        return self.server.limits.item_timeout

    def admitted_locked(self, call: Call) -> None:
        """A call whose items follow may run: give it a whole window, if there is room for one."""
        if self._windows is not None and (more := self._windows.admit(call.call_id)) is not None:
            self._grant_locked(call, *more)

    def taken_locked(self, call: Call) -> None:
        """Items of a call were taken: let its caller send as much again, once half of the window is owed."""
        intake = call.intake
        if intake is None or self._windows is None:
            return
        items, size = intake.owed_items, intake.owed_bytes
        if self._windows.is_due(call.call_id, items, size):
            intake.owed_items = intake.owed_bytes = 0
            self._grant_locked(call, items, size)

    def _grant_locked(self, call: Call, items: int, size: int) -> None:
        if not call.answered and not self.transport.closed and self.connection.send_credit(call.call_id, items, size):
            self.flush_soon()

    def answered_locked(self, call: Call, error: CallError | None = None) -> None:
        """A call whose items follow is over, well or not."""
        if self._windows is not None:
            self._windows.over(call.call_id)
        if call.intake is not None:
            if error is None:
                call.intake.answered_locked()
            else:
                call.intake.end_locked(error)

    # ------------------------------------------------------------------ streams

    def end_stream_locked(self, call: Call, error: CallError | None) -> None:
        """The source is exhausted, or failed."""
        if call.answered:
            return
        if error is not None:
            self._end_call_locked(call, error)
        else:
            call.answered = True
            if self._calls is not None:
                self._calls.pop(call.call_id, None)
            self.connection.send_end(call.call_id)
            if call.intake is not None:
                self.answered_locked(call)
        self.flush_locked()

    # ------------------------------------------------------------------ output

    def _pending_locked(self) -> int:
        return self.connection.bytes_pending + self.transport.pending

    def take_over(self) -> None:
        """The leader was deposed in one of this session's handlers: the new one sends what was answered and runs the
        rest.
        """
        self.pool.post(self._continue)

    def flush(self) -> None:
        with self.lock:
            self.flush_locked()

    def flush_soon(self) -> None:
        """Have the leader write what is queued, so that this thread does no system call."""
        if not self._flushing:
            self._flushing = True
            self.pool.post(self._flush_posted)

    def _flush_posted(self, worker: Worker) -> None:
        self._flushing = False  # first: whoever queues from now on posts again
        self.flush()

    def flush_locked(self) -> None:
        """Write what is queued, without blocking."""
        if not self.transport.closed:
            sent = self.transport.send(self.connection.data_to_send())
            if not sent or self._starved or self._ending:
                self._written_locked()

    def _written_locked(self) -> None:
        """After a write that did not go through whole, or for which something waits: see what it means for each."""
        if self.transport.failure:
            self._close_locked(self.transport.failure)
            return
        self._make_use_of_room_locked()
        self._go_on_ending_locked()

    def _make_use_of_room_locked(self) -> None:
        """Let those go on who found no room in the output; nobody else wakes them, however the kernel took it."""
        if not self._starved or self._pending_locked() >= self.server.limits.low_watermark:
            return
        self._starved = False
        if self._more:
            self.pool.post(self._continue)
        for call in list((self._calls or {}).values()):
            if call.stream is not None:
                call.stream.wake_locked()

    def _go_on_ending_locked(self) -> None:
        """Take the next step of an end that waited for what had to be written before it."""
        if self.transport.ended or (self.draining and self._linger_until is None):
            self._settle_down_locked()
        elif self._linger_until is not None and not self.transport.pending:
            self.transport.shut_down_writing()

    # ------------------------------------------------------------------ time, and the end

    def sweep(self, now: float, late: float = 0.0) -> None:
        """Look at every clock of the connection; called by the watchdog four times a second.

        Args:
            now: by the monotonic clock.
            late: seconds by which the look is later than it was meant to be.
        """
        with self.lock:
            if self.transport.closed:
                return
            if self._linger_until is not None:
                if late > LATE:  # what came meanwhile is not read yet, and closing would take our last words back
                    self._linger_until += late
                if now >= self._linger_until or self.connection.discarded > self.server.limits.linger_bytes:
                    self._close_locked("lingered long enough")
                return
            self._look_locked(now, late)
            overdue = self._overdue_locked(now)
            if overdue is not None:
                self._give_up_locked(overdue, now)
                return
            if self._calls:
                self._expire_calls_locked(now)
                if now - self._half_closed_at >= self.server.limits.idle_timeout:
                    self._end_calls_locked(half_closed)
            if not self.handshaking and not self.transport.ended and self._liveness.ping_due(now):
                self.connection.send_ping(HEARTBEAT)
                self.flush_locked()

    def _look_locked(self, now: float, late: float) -> None:
        transport, liveness = self.transport, self._liveness
        liveness.look(now, late, reading=not (transport.paused or self._more))
        liveness.look_at_output(now, transport.pending > 0, transport.taken)

    def _overdue_locked(self, now: float) -> Overdue | None:
        """What the peer has not done in time; None when it is us who have not read or written, which is done first."""
        liveness, transport = self._liveness, self.transport
        overdue = liveness.overdue(now, greeting=self.handshaking, listening=not transport.ended)
        if overdue is None:
            return None
        if overdue is Overdue.WRITING:
            self.flush_locked()
            if transport.closed:
                return None
            liveness.look_at_output(now, transport.pending > 0, transport.taken)
            return liveness.overdue(now, greeting=self.handshaking, listening=not transport.ended)
        return None if transport.input_waits() else overdue

    def _give_up_locked(self, overdue: Overdue, now: float) -> None:
        problem = self._liveness.sentence(overdue, now)
        if overdue is Overdue.HELLO:
            self._end_connection_locked(RemoteProtocolError("HELLO_TIMEOUT", problem, Status.DEADLINE_EXCEEDED))
        elif overdue is Overdue.FRAME:
            self._end_connection_locked(RemoteProtocolError("FRAME_TIMEOUT", problem, Status.DEADLINE_EXCEEDED))
        else:
            self._close_locked(problem)

    def _set_alarm_locked(self, deadline: float) -> None:
        """Look at the calls again when this deadline is up, unless the sweep comes sooner."""
        if deadline < min(self._alarm_at, self.pool.next_tick):
            self._alarm_at = deadline
            self.pool.alarm(deadline, self._on_alarm)

    def _on_alarm(self, now: float) -> None:
        """A deadline is up, or was when the alarm was set; called by the watchdog."""
        with self.lock:
            if now < self._alarm_at:
                return  # it was set before another one that came sooner, and what is left has an alarm of its own
            self._alarm_at = math.inf
            if self._calls and not self.transport.closed:
                self._expire_calls_locked(now)

    def _expire_calls_locked(self, now: float) -> None:
        some_ended, soonest = expire_overdue_locked((self._calls or {}).values(), now)
        if some_ended:
            self.flush_locked()
        self._set_alarm_locked(soonest)

    def drain(self) -> None:
        """Tell the peer to go; end streams; close once the calls in flight are answered. Idempotent."""
        with self.lock:
            if self.transport.closed or self.draining:
                return
            self.draining = self._ending = True
            if self.handshaking or self._linger_until is not None:
                self._close_locked("")
                return
            if self.connection.state is State.OPEN:  # a peer that closed its side is not told
                self.connection.send_goaway(shutting_down(Retry.NOT_PROCESSED))
            self._expire_streams_locked()
            self.flush_locked()

    def cut(self, why: str) -> None:
        """End in words what is in flight, and close without waiting for the words to be taken."""
        with self.lock:
            if self._calls and not self.transport.closed:
                self._end_calls_locked(shutting_down)
            self._close_locked(why)

    def _end_calls_locked(self, refusal: Callable[[Retry], CallError]) -> None:
        """The time of all calls in flight is over: none waits any more, and nothing that still comes can begin one."""
        for call, error in [] if self._running_on is None else self._running_on.let_all_end():
            self.send_error_locked(call, error)
        for call in list((self._calls or {}).values()):
            call.expire_locked(refusal)
        self.flush_locked()

    def close(self, why: str) -> None:
        """Close now, whatever is in flight."""
        with self.lock:
            self._close_locked(why)

    def _settle_down_locked(self) -> None:
        """Close a connection that is ending, once nothing is in flight and everything is written."""
        if self._calls or self._batch or self._more or self._one_way_running or self._pending_locked():
            return
        if self.transport.ended:
            self._close_locked("")
        else:
            self._linger_locked()

    def _linger_locked(self) -> None:
        """Shut down writing, and read and drop for a while: closing with unread input would reset the connection, and
        the peer would lose our last words.
        """
        if self._linger_until is None:
            self._ending = True
            self._linger_until = time.monotonic() + self.server.limits.linger
            self.connection.close()
            self.flush_locked()

    def _abandon_locked(self, why: str) -> None:
        """Forget the calls in flight: their answers have nowhere to go."""
        calls, self._calls = self._calls, None
        self._running_on = self._windows = None  # nothing ends any more
        for call in list((calls or {}).values()):
            call.cancelled = call.answered = True
            if call.stream is not None:
                call.stream.end_locked(why)
            if call.intake is not None:
                call.intake.end_locked(failure("CANCELLED", why))
            call.drop_future_locked()

    def _close_locked(self, why: str) -> None:
        """The one function that closes."""
        if self.transport.closed:
            return
        # The order matters: whoever looks the descriptor up must find nobody before another connection can have it.
        self.server.forget(self)
        self.transport.close()
        self._abandon_locked(why or "the connection was closed")
        if why:
            self.server.note(self.address, "closed", why)
