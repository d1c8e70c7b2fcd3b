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

from wireproto.answering.call import Call
from wireproto.answering.pool import Worker
from wireproto.answering.refusals import half_closed, shutting_down, too_large
from wireproto.answering.side import AnsweringSide
from wireproto.binding import Dialect
from wireproto.errors import CallError, HandshakeError, RemoteProtocolError
from wireproto.identity import Identity
from wireproto.poller import CLOSED, READ, WRITE
from wireproto.server.budget import Budget
from wireproto.server.calling import Calling
from wireproto.server.owners import SessionOwner
from wireproto.server.transport import Transport
from wireproto.status import Retry, Status
from wireproto.wire.connection import PayloadTooLarge, State
from wireproto.wire.events import (
    ConnectionEnded,
    Event,
    FlaggedRequestReceived,
    HelloReceived,
    ItemReceived,
    PackedItemReceived,
    PingReceived,
    RequestReceived,
    ResponseReceived,
)
from wireproto.wire.frame import TOP_BIT
from wireproto.wire.liveness import LATE, Liveness, Overdue
from wireproto.wire.packing import Packed, Payload

__all__ = ["Session"]

_INPUT = READ | CLOSED
_CLOSED = State.CLOSED  # on CPython 3.11 a member looked up on its class costs 50 ns

HEARTBEAT = b"wireprot"
"""The eight bytes of our PINGs; the PONG that echoes them counts as a sign of life like any other frame."""


def _is_of_own_call(event: Event) -> bool:
    """Whether an event is of a call that the server began. There are two kinds of those behind which a list of events
    goes on: see ``Connection.next_events``.
    """
    return isinstance(event, ResponseReceived) or (isinstance(event, ItemReceived) and bool(event.call_id & TOP_BIT))


class Session(AnsweringSide):
    """One accepted connection.

    Attributes:
        peer: ``host:port``, for logs and contexts.
        address: the host alone, for limits per address.
        codec: the name of the codec agreed, empty before.
        identity: who signed in on this connection, or None.
        handshaking: HELLO was not read yet.
    """

    __slots__ = (
        "_budget",
        "_calling",
        "_ending",
        "_half_closed_at",
        "_linger_until",
        "_liveness",
        "_turn",
        "address",
        "handshaking",
        "identity",
        "server",
        "started",
        "transport",
    )

    def __init__(self, server: SessionOwner, sock: socket.socket, address: str, port: int) -> None:
        peer = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        super().__init__(threading.Lock(), server.connection(), peer, server.pool, server.limits)
        self.server = server
        self.address = address
        self.identity: Identity | None = None
        self.handshaking = True
        self.started = time.monotonic()
        self.transport = Transport(sock, server.poller, server.limits)
        self._turn = server.limits.turn_calls
        self._ending = False  # half-closed, draining or lingering: whatever is written may be the last
        self._linger_until: float | None = None
        self._half_closed_at = math.inf
        self._liveness = Liveness(self.connection, server.limits, self.started, idle=server.limits.idle_timeout)
        self._budget = Budget(server.limits)
        self._calling: Calling | None = None  # until somebody wants to call the client

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
                # The end came behind these in the same bytes: nobody waits for answers. What was answered is.
                events = [event for event in events[:-1] if _is_of_own_call(event)] + events[-1:]
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
                elif type(event) is FlaggedRequestReceived or type(event) is PackedItemReceived:
                    room -= self._turns_of(event)
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

    def _turns_of(self, event: FlaggedRequestReceived | PackedItemReceived) -> int:
        """How many calls of a turn it stands for: what is packed brings more bytes than were read."""
        limits = self.server.limits
        return 1 + len(event.payload) * limits.turn_calls // limits.turn_bytes

    def _event_locked(self, event: Event) -> bool:
        """Everything but a unary request; False when the connection reads no further."""
        if self._call_event_locked(event):
            return self.connection.state is not _CLOSED
        if type(event) is PingReceived:
            if not self._budget.take("pings"):
                self._fail_connection_locked("TOO_MANY_PINGS", "PING frames come faster than the server allows")
        elif type(event) is HelloReceived:
            try:
                welcome, self._table, self.codec = self.server.welcome(event.hello)
            except HandshakeError as error:
                self.connection.refuse(error)
            else:
                self.connection.send_welcome(welcome)
                self.server.greeted(self)
            self.handshaking = False
        elif type(event) is ConnectionEnded:
            self._ended_locked(event.error)
            return False
        elif self._calling is not None:
            self._calling.event_locked(event)
        return True

    def _ended_locked(self, error: "RemoteProtocolError | CallError | None") -> None:
        if self.transport.ended and error is None:
            # A half-close: what is in flight is still answered.
            self._half_closed_at = time.monotonic()
            self._lose_locked("the client has closed its side, and answers nothing more")
            self._half_close_streams_locked()
        else:
            if error is not None:
                self.server.note(self.address, "protocol", str(error))
            self._abandon_calls_locked("the connection failed")
            self._lose_locked("the connection failed", written=True)  # in front of the final ERROR
            if not self.transport.ended:
                self._linger_locked()
        self.flush_locked()

    # ------------------------------------------------------------------ this side's own calls

    @property
    def client(self) -> Calling:
        """See ``owners.CallOwner``."""
        with self.lock:
            if self._calling is None:
                self._calling = Calling(self)
                if self.transport.closed or self.connection.state is not State.OPEN:
                    self._calling.lose_locked("the connection was closed")
            return self._calling

    def _lose_locked(self, why: str, *, written: bool = False) -> None:
        """The client answers nothing any more; see ``Calling.lose_locked``."""
        if self._calling is not None:
            self._calling.lose_locked(why, written=written)

    def dialect(self) -> Dialect:
        """See ``calling.CallingSession``."""
        assert self._table is not None  # nobody has the handle of a client before HELLO was read
        return self.server.dialect(self._table, self.codec, self.connection.packing)

    def unsent_locked(self) -> tuple[int, int]:
        """See ``calling.CallingSession``."""
        return self.transport.taken, self.transport.pending

    def _make_use_of_room_locked(self) -> None:
        starved = self._starved
        super()._make_use_of_room_locked()
        if starved and not self._starved and self._calling is not None:
            self._calling.wake_locked()

    def _expire_calls_locked(self, now: float) -> None:
        super()._expire_calls_locked(now)
        if self._calling is not None:
            self._set_alarm_locked(self._calling.expire_locked(now))

    # ------------------------------------------------------------------ what the calls use

    @property
    def closed(self) -> bool:
        return self.transport.closed

    def _note(self, subject: str, text: str) -> None:
        self.server.note(self.address, subject, text)

    def _may_cancel_locked(self) -> bool:
        if self._budget.take("cancels"):
            return True
        self._fail_connection_locked("TOO_MANY_CANCELS", "calls are cancelled faster than the server allows")
        return False

    def one_less_locked(self) -> None:
        if self._ending:
            self._go_on_ending_locked()

    def _fail_connection_locked(self, reason: str, problem: str) -> None:
        self._end_connection_locked(RemoteProtocolError(reason, problem, Status.RESOURCE_EXHAUSTED))

    def _end_connection_locked(self, error: RemoteProtocolError) -> None:
        """Fail the connection and take the end at once: nothing may be sent in between."""
        if self.connection.state is not State.CLOSED:
            self.connection.fail(error)
            self.connection.next_event()  # the end, which is no news to us; after a half-close there is none
            self._ended_locked(error)

    # ------------------------------------------------------------------ calls

    def settle(self, call: Call, outcome: "Payload | CallError", last: bool = False) -> None:
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
            elif isinstance(outcome, Packed):
                self._settle_packed_locked(call, outcome)
            if last:
                self.flush_locked()
        finally:
            self.lock.release()

    def _count_error_locked(self) -> None:
        if not self._budget.take("errors"):
            self._fail_connection_locked("TOO_MANY_ERRORS", "too many requests that cannot be understood")

    # ------------------------------------------------------------------ output

    def _pending_locked(self) -> int:
        return self.connection.bytes_pending + self.transport.pending

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
            if self._calls or self._calling is not None:
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
        return None if overdue is not Overdue.CHATTER and transport.input_waits() else overdue

    def _give_up_locked(self, overdue: Overdue, now: float) -> None:
        problem = self._liveness.sentence(overdue, now)
        if overdue is Overdue.HELLO:
            self._end_connection_locked(RemoteProtocolError("HELLO_TIMEOUT", problem, Status.DEADLINE_EXCEEDED))
        elif overdue is Overdue.FRAME:
            self._end_connection_locked(RemoteProtocolError("FRAME_TIMEOUT", problem, Status.DEADLINE_EXCEEDED))
        elif overdue is Overdue.CHATTER:
            self._fail_connection_locked("TOO_MANY_FRAMES", problem)
        else:
            self._close_locked(problem)

    def drain(self) -> None:
        """Tell the peer to go; end streams; close once the calls in flight are answered. Idempotent."""
        with self.lock:
            if self.transport.closed or self.draining:
                return
            self.draining = self._ending = True
            if self._linger_until is not None:
                self._close_locked("")
                return
            if self.handshaking:
                self._decline_locked()
                return
            if self.connection.state is State.OPEN:  # a peer that closed its side is not told
                self.connection.send_goaway(shutting_down(Retry.NOT_PROCESSED))
            self._expire_streams_locked()
            self.flush_locked()

    def _decline_locked(self) -> None:
        """The server goes before it has welcomed the peer. REQUESTs may have come with HELLO, or be on their way: the
        final ERROR says that nobody has looked at them.
        """
        self.connection.refuse(shutting_down(Retry.NOT_PROCESSED))
        self._linger_locked()

    def cut(self, why: str) -> None:
        """End in words what is in flight, and close without waiting for the words to be taken."""
        with self.lock:
            if self._calls and not self.transport.closed:
                self._end_calls_locked(shutting_down)
            self._close_locked(why)

    def close(self, why: str) -> None:
        """Close now, whatever is in flight."""
        with self.lock:
            self._close_locked(why)

    def _settle_down_locked(self) -> None:
        """Close a connection that is ending, once nothing is in flight and everything is written."""
        if (
            (self._calling is not None and self._calling.busy)
            or self._calls
            or self._batch
            or self._more
            or self._one_way_running
            or self._pending_locked()
        ):
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

    def _close_locked(self, why: str) -> None:
        """The one function that closes."""
        if self.transport.closed:
            return
        # The order matters: whoever looks the descriptor up must find nobody before another connection can have it.
        self.server.forget(self)
        self.transport.close()
        self._abandon_calls_locked(why or "the connection was closed")
        self._lose_locked(why or "the connection was closed")
        if why:
            self.server.note(self.address, "closed", why)
