"""The side of a connection that answers: the calls of its peer, from their REQUEST to their last frame.

A session of the server is one, and a client that was given handlers has one for each link. What they share is here:
which calls are in flight, who runs them, their credit, their streams, their deadlines. What reads and writes is theirs.

Handlers, codecs and logs run without the lock. Methods that end in ``_locked`` are called with ``lock`` held.
"""

import abc
import math
from _thread import LockType
from collections import deque
from collections.abc import Callable, Mapping

from wireproto.answering.call import Call, OneWayCall, expire_overdue_locked
from wireproto.answering.intake import intake_of
from wireproto.answering.pool import Pool, Worker
from wireproto.answering.refusals import busy, cancelled, half_closed, shutting_down, too_large
from wireproto.answering.running_on import RunningOn
from wireproto.answering.unpacking import PackedCalls
from wireproto.answering.watch import STUCK
from wireproto.answering.windows import Windows
from wireproto.connected import ConnectedClient
from wireproto.dispatch import Table
from wireproto.errors import CallError
from wireproto.identity import Holder, Identity
from wireproto.limits import Limits
from wireproto.reasons import failure
from wireproto.status import Retry
from wireproto.wire.answers import pack_answer
from wireproto.wire.connection import Connection, PayloadTooLarge, State
from wireproto.wire.events import (
    CancelReceived,
    CreditReceived,
    FlaggedRequestReceived,
    ItemReceived,
    PackedItemReceived,
    RequestEnded,
    RequestReceived,
)
from wireproto.wire.frame import Flag
from wireproto.wire.metadata import EMPTY
from wireproto.wire.packing import Packed, Payload

__all__ = ["AnsweringSide"]

_COUNTED = frozenset({"BAD_PAYLOAD", "UNKNOWN_OPCODE", "WRONG_SHAPE"})
"""Reasons that say that the peer does not know what it does."""


class AnsweringSide(abc.ABC):
    """The calls that one peer has begun on one connection.

    Args:
        lock: of the connection.
        connection: its state, used under the lock only.
        peer: ``host:port``, for logs and contexts.
        pool: runs the handlers.
        limits: of this side.

    Attributes:
        lock, connection, peer, pool, limits: as given.
        codec: the name of the codec agreed, empty before.
        draining: GOAWAY was sent, or the time to go has come before anything could be said.
        identity: who signed in on this connection, or None.
    """

    __slots__ = (
        "__weakref__",
        "_alarm_at",
        "_batch",
        "_calls",
        "_flushing",
        "_more",
        "_one_way_owed",
        "_one_way_running",
        "_packed",
        "_running_on",
        "_starved",
        "_table",
        "_windows",
        "codec",
        "connection",
        "draining",
        "limits",
        "lock",
        "peer",
        "pool",
    )

    identity: Identity | None

    def __init__(self, lock: LockType, connection: Connection, peer: str, pool: Pool, limits: Limits) -> None:
        self.lock = lock
        self.connection = connection
        self.peer = peer
        self.pool = pool
        self.limits = limits
        self.codec = ""
        self.draining = False
        self._table: Table | None = None
        self._calls: dict[int, Call] | None = None
        self._batch: deque[Call] | None = None
        self._more = False  # a turn will go on: it is posted, or waits for room in the output
        self._starved = False  # a stream or a turn found no room in the output
        self._flushing = False  # a flush is posted
        self._alarm_at = math.inf  # when the next deadline is looked at, if that is before the sweep
        self._running_on: RunningOn[Call] | None = None
        self._windows: Windows | None = None
        self._packed: PackedCalls | None = None
        self._one_way_running = 0  # calls that are over for the peer and not for us
        self._one_way_owed = 0  # credit of those that have run

    # ------------------------------------------------------------------ what reads and writes

    @property
    @abc.abstractmethod
    def closed(self) -> bool:
        """Nothing is written any more."""

    @abc.abstractmethod
    def settle(self, call: Call, outcome: "Payload | CallError", last: bool = False) -> None:
        """Queue a call's terminal frame, unless it has had one; the ``last`` one is written, with what else waits."""

    @property
    @abc.abstractmethod
    def client(self) -> ConnectedClient:
        """Who called, to be called in turn; LocalProtocolError where that cannot be."""

    @abc.abstractmethod
    def flush_locked(self) -> None:
        """Write what is queued, without blocking."""

    @abc.abstractmethod
    def _pending_locked(self) -> int:
        """Bytes of output that the kernel has not taken."""

    @abc.abstractmethod
    def _continue(self, worker: Worker) -> None:
        """Go on with calls that were left over; posted."""

    @abc.abstractmethod
    def _note(self, subject: str, text: str) -> None:
        """Log a fault of the peer, now and then."""

    @abc.abstractmethod
    def _may_cancel_locked(self) -> bool:
        """Whether the peer may cancel one more call; else the connection has ended."""

    @abc.abstractmethod
    def _count_error_locked(self) -> None:
        """The peer has sent what cannot be understood, which may be one time too many and end the connection."""

    @abc.abstractmethod
    def one_less_locked(self) -> None:
        """A one-way call is through: an end may have waited for it."""

    @property
    def holder(self) -> Holder:
        """See ``owners.CallOwner``."""
        return self

    def identity_revoked(self, identity: Identity) -> None:
        """See ``identity.Holder``."""
        with self.lock:
            for call in list((self._calls or {}).values()):
                if call.revoke_locked(identity):
                    self.flush_soon()  # not at once: whoever revokes may have many more connections to look at

    # ------------------------------------------------------------------ calls

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
        if isinstance(request.payload, Packed):
            entry = entry.of_packed
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
            self.windows_locked().begin(call.call_id)
            call.intake = intake_of(call)
            call.intake.begin_locked()
            return
        if isinstance(call.payload, Packed):
            self._put_packed_locked(call)
            return
        if self._batch is None:
            self._batch = deque()
        self._batch.append(call)

    def _put_packed_locked(self, call: Call) -> None:
        self._packed_locked().put_locked(call)

    def in_turn_locked(self, payload: Packed) -> Packed:
        """An item or an answer, to be unpacked when nothing else of the connection is."""
        return self._packed_locked().in_turn(payload)

    def _packed_locked(self) -> PackedCalls:
        if self._packed is None:
            self._packed = PackedCalls(self.lock, self.pool, self.limits)
        return self._packed

    def _begin_one_way_locked(self, call: OneWayCall) -> None:
        """It is over already; its deadline counts until its handler begins, and ``Entry.run`` looks at that."""
        call.read_terms()
        self._one_way_running += 1
        if isinstance(call.payload, Packed):
            self._put_packed_locked(call)
            return
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
            self.one_less_locked()

    def _drop_one_way_locked(self, error: CallError) -> None:
        """Nobody hears of it: so it is logged."""
        self._note("one-way", f"a one-way call failed: {error}")
        if error.reason in _COUNTED:
            self._count_error_locked()
        self._return_one_way_credit_locked()

    def _return_one_way_credit_locked(self) -> None:
        self._one_way_owed += 1
        if (
            self._one_way_owed * 2 >= self.limits.one_way_calls
            and not self.closed
            and self.connection.send_one_way_credit(self._one_way_owed)
        ):
            self._one_way_owed = 0
            self.flush_soon()  # not at once: a write that fails closes the session, within a turn it may be

    def _refuse_flagged_locked(self, request: FlaggedRequestReceived, error: CallError) -> None:
        if request.flags & Flag.ONE_WAY:
            self._drop_one_way_locked(error)
        else:
            self._fail_locked(request.call_id, error)

    def _call_event_locked(self, event: object) -> bool:
        """Take what has come of calls of the peer's, but for a unary REQUEST; False when it was something else."""
        if type(event) is ItemReceived:
            call = self._calls.get(event.call_id) if self._calls else None
            if call is None:
                return False
            if call.intake is not None:
                call.intake.put_locked(event.payload)
        elif type(event) is CreditReceived:
            call = self._calls.get(event.call_id) if self._calls else None
            if call is None:
                return False
            if call.stream is not None:
                call.stream.wake_locked()
        elif type(event) is RequestEnded:
            call = self._calls.get(event.call_id) if self._calls else None
            if call is not None and call.intake is not None:
                call.intake.complete_locked()
        elif type(event) is FlaggedRequestReceived:
            self._begin_flagged_locked(event)
        elif type(event) is CancelReceived:
            self._cancel_locked(event.call_id)
        elif type(event) is PackedItemReceived:
            call = self._calls.get(event.call_id) if self._calls else None
            if call is None:
                return False
            if call.intake is not None:
                call.intake.put_locked(self.in_turn_locked(event.payload))
        else:
            return False
        return True

    def _abandon_calls_locked(self, why: str) -> None:
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
            if self.connection.bytes_pending > self.limits.high_watermark and self._is_full():
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
        room = self.limits.high_watermark + 1 - self._pending_locked()
        if room > 0:
            return room
        self._starved = True
        return 0

    def _settle_packed_locked(self, call: Call, payload: Packed) -> None:
        """Queue an answer that is packed, of a call that was not answered."""
        call.answered = True
        if self._calls is not None:
            del self._calls[call.call_id]
        try:
            self.connection.send_packed_response(call.call_id, payload)
        except PayloadTooLarge as error:
            self.connection.send_error(call.call_id, too_large(error))

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

    def set_metadata_locked(self, call: Call, said: Mapping[str, str]) -> None:
        """See ``owners.CallOwner``. The connection has it from now on: so the short way of answers asks nothing."""
        self.connection.set_metadata(call.call_id, pack_answer(said))

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
            self._running_on = RunningOn(self.limits.max_calls)
        if self._running_on.may_end(call, error):
            self.send_error_locked(call, error)

    def came_back_locked(self, call: Call) -> None:
        """A handler that ran on is back."""
        ending = None if self._running_on is None else self._running_on.back(call)
        if ending is not None:
            self.send_error_locked(*ending)

    def _expire_streams_locked(self) -> None:
        """This side goes: a subscription, which has no end of its own, ends. An iterator is told by its context, and
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
        if self._may_cancel_locked():
            call.expire_locked(cancelled)

    def _fail_locked(self, call_id: int, error: CallError) -> None:
        """Refuse a call, which may be one refusal too many and end the connection."""
        self.connection.send_error(call_id, error)
        self._count_error_locked()

    @property
    def collect_bytes(self) -> int:
        """Bytes of the items of one call that are kept until all have come, at most."""
        return self.limits.window_bytes

    @property
    def item_timeout(self) -> float:
        """Seconds that a handler that iterates waits for an item."""
        return self.limits.item_timeout

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
        if not call.answered and not self.closed and self.connection.send_credit(call.call_id, items, size):
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

    def end_stream_locked(self, call: Call, error: CallError | None, dropped: int = 0) -> None:
        """The source is exhausted, or failed."""
        if call.answered:
            return
        if error is None:
            try:
                self.connection.send_end(call.call_id, dropped=dropped)
            except PayloadTooLarge as problem:  # what it says beside its items
                error = too_large(problem)
        if error is not None:
            self._end_call_locked(call, error)
        else:
            call.answered = True
            if self._calls is not None:
                self._calls.pop(call.call_id, None)
            if call.intake is not None:
                self.answered_locked(call)
        self.flush_locked()

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

    def _make_use_of_room_locked(self) -> None:
        """Let those go on who found no room in the output; nobody else wakes them, however the kernel took it."""
        if not self._starved or self._pending_locked() >= self.limits.low_watermark:
            return
        self._starved = False
        if self._more:
            self.pool.post(self._continue)
        for call in list((self._calls or {}).values()):
            if call.stream is not None:
                call.stream.wake_locked()

    def windows_locked(self) -> Windows:
        """The windows of all calls of the connection with items that come here, whoever began them."""
        if self._windows is None:
            self._windows = Windows(self.limits)
        return self._windows

    def alarm_locked(self, deadline: float) -> None:
        """See to it that a call ends at this point in time."""
        if deadline < self._alarm_at:
            self._set_alarm_locked(deadline)

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
            if not self.closed:
                self._expire_calls_locked(now)

    def _expire_calls_locked(self, now: float) -> None:
        some_ended, soonest = expire_overdue_locked((self._calls or {}).values(), now)
        if some_ended:
            self.flush_locked()
        self._set_alarm_locked(soonest)

    def _end_calls_locked(self, refusal: Callable[[Retry], CallError]) -> None:
        """The time of all calls in flight is over: none waits any more, and nothing that still comes can begin one."""
        for call, error in [] if self._running_on is None else self._running_on.let_all_end():
            self.send_error_locked(call, error)
        for call in list((self._calls or {}).values()):
            call.expire_locked(refusal)
        self.flush_locked()
