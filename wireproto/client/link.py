"""A link: one open connection of a client and its calls in flight.

Frames are queued and sent under the lock, whole, and no send blocks: what the kernel does not take waits in the
``Output`` for the leader, who then polls for both directions, or for the keeper. So nobody waits to write without
somebody reading, and a call that times out leaves no half frame behind.
"""

import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import TypeAlias, TypeVar

from wireproto.answering.pool import Pool
from wireproto.binding import Dialect
from wireproto.bucket import Bucket
from wireproto.client.agent import Agent
from wireproto.client.calls import (
    AnswerPacked,
    ClientCall,
    DuplexCall,
    EarlyCall,
    Flagged,
    FutureCall,
    ItemBehind,
    ItemCall,
    Place,
    PreparedCall,
    StreamCall,
    Waiter,
    timed_out,
)
from wireproto.client.feeding import Feeding
from wireproto.client.guard import made_before_fork
from wireproto.client.keeper import Keeper, attempt
from wireproto.client.queue import CallQueue
from wireproto.client.reception import LOOK, QUIET
from wireproto.client.sending import HEARTBEAT, too_large
from wireproto.dispatch import Table
from wireproto.errors import CallError, ConnectionLost, LocalProtocolError, RemoteProtocolError, WireprotoError
from wireproto.limits import Limits
from wireproto.status import Retry, Status
from wireproto.wire.connection import Connection, PayloadTooLarge
from wireproto.wire.events import (
    AnsweredBeside,
    AnswerUnreadable,
    ConnectionEnded,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    Event,
    GoAwayReceived,
    ItemReceived,
    OneWayCreditReceived,
    PackedItemReceived,
    PackedResponseReceived,
    PingReceived,
    PongReceived,
    ResponseReceived,
)
from wireproto.wire.liveness import Liveness, Overdue
from wireproto.wire.packing import Payload

__all__ = ["Answers", "Link"]

Answers: TypeAlias = Callable[[Dialect], tuple[Table, Pool]]
"""What the server may call in a dialect, and who runs it."""

Prepared = TypeVar("Prepared", bound=PreparedCall)

_EVENTS = 256
"""Events taken at once out of what was received."""


class Link(Feeding):
    """One open connection. Thread-safe.

    A method whose name ends in ``_locked`` wants the lock held; the others take it themselves, wait for something, or
    need none.

    Args:
        sock: connected, in blocking mode; the link closes it.
        connection: open, that is, after WELCOME; used under the lock only.
        dialect: what is spoken; kept for callers, not used here.
        peer: the address, for messages.
        limits: of this side.
        keeper: looks after the link until it has ended.
        queue: calls that take places of this link as they come free.
        changed: is called when the link takes no further calls, with the lock held.
        answers: of a client with handlers: what the server may call in this dialect, and who runs that.
        early: a call that is in flight already, if it has an id.

    Attributes:
        dialect: as given.
        usable: whether it takes further calls; once False it stays so.
    """

    def __init__(
        self,
        sock: socket.socket,
        connection: Connection,
        dialect: Dialect,
        peer: str,
        limits: Limits,
        keeper: Keeper,
        queue: CallQueue,
        changed: Callable[[], None],
        answers: Answers | None = None,
        early: EarlyCall | None = None,
    ) -> None:
        super().__init__(sock, peer, keeper, connection, dialect, limits, queue)
        self._agent: Agent | None = None
        if answers is not None:
            table, pool = answers(dialect)
            self._agent = Agent(self, self._lock, connection, peer, table, dialect.codec.name, pool, limits)
            self._serves = True
        self._liveness = Liveness(connection, limits, keeper.clock(), idle=math.inf)
        # A CANCEL of a unary call is a courtesy. Servers end a connection that floods them, at rates like our own.
        self._cancels = Bucket(limits.cancels_per_second / 2, limits.cancel_burst / 2, keeper.clock())
        self._pinged = Bucket(limits.pings_per_second, limits.ping_burst, keeper.clock())
        self._settled: list[FutureCall] = []  # to be completed by the keeper
        self._abandoned: deque[ClientCall] = deque()  # by the garbage collector, which must not take a lock
        self._pings: dict[bytes, Waiter] = {}
        self._ping_ids = count(1)
        self._changed = changed
        self._cause = ""
        self._over: threading.Event | None = None  # set at the end, for ``finish``
        self._cancelled_before = False  # ... when that began, calls were in flight that nobody waits for
        if early is not None and early.call_id:
            self._calls[early.call_id] = early
        with self._lock:
            keeper.add(self)
            self._feed_locked(None)  # what came together with WELCOME
            if self._serves:
                self._rewatch_locked()

    @property
    def useful(self) -> bool:
        """Whether the server sent anything after the handshake that means something."""
        return self._connection.frames_received - self._connection.frames_ignored > 1

    @property
    def busy(self) -> bool:
        """Whether calls are in flight, or may still come of the server."""
        return bool(self._calls) or (self._serves and not self._ended)

    @property
    def most_calls(self) -> int:
        """Calls in flight that the server accepts."""
        return self._connection.their_max_calls

    # Calling, from any thread.

    def exchange(
        self, call: ClientCall, opcode: int, payload: Payload, metadata: bytes, deadline: float | None
    ) -> None:
        """Send a request and wait; on return ``call`` is done, with an answer or an error.

        Raises:
            CallError: the server does not accept a request so large; nothing was sent.
        """
        place: Place | None = None
        try:
            while True:
                with self._lock:
                    if self._submit_locked(call, opcode, payload, metadata, None, place):
                        if call.done:
                            return
                        gate = self._enter_locked(call)
                        break
                    place = self._places.stand_in_line()
                    gate = self._enter_locked(place)
                if not self._wait_for_place(call, place, gate, deadline):
                    return
            if gate is None:
                self._lead(call, deadline)
            else:
                self._follow(call, gate, deadline)
        except BaseException:
            # A signal handler raised: nobody is there to take the answer, nor to receive for the others.
            self._give_up_lead(call)
            self._give_up_lead(place)
            self.cancel(call)
            raise
        if not call.done:
            self.expire(call)

    def wait_for_early(self, call: EarlyCall, deadline: float | None) -> None:
        """Wait for the answer of a call that went together with HELLO; on return it is done."""
        try:
            self.wait(call, deadline)
        except BaseException:
            self._give_up_lead(call)  # as in ``exchange``
            self.cancel(call)
            raise
        if not call.done:
            self.expire(call)

    def begin(
        self,
        call: ClientCall,
        opcode: int,
        payload: Payload,
        metadata: bytes,
        deadline: float | None,
        flagged: Flagged | None = None,
    ) -> bool:
        """Send a request and return; False, and ``call.error``, if that could not be.

        Raises:
            CallError: the server does not accept a request so large; nothing was sent.
        """
        place: Place | None = None
        while True:
            with self._lock:
                if self._submit_locked(call, opcode, payload, metadata, flagged, place):
                    return call.call_id != 0
                place = self._places.stand_in_line()
                gate = self._enter_locked(place)
            if not self._wait_for_place(call, place, gate, deadline):
                return False

    def begin_some(self, calls: deque[Prepared]) -> list[Prepared]:
        """Send as many of ``calls`` as there are places for, with one send; those are taken out on the left.

        None are sent while other callers wait for a place, or when the link takes no calls.

        Returns:
            Those that were sent.

        Raises:
            CallError: the server does not accept a request as large as the first one.
        """
        sent: list[Prepared] = []
        ends: list[tuple[int, ClientCall]] = []
        with self._lock:
            connection, places = self._connection, self._places
            while calls and self.usable and not places.threads and not places.queued:
                if (places.free <= 0 or self._output.waiting) and places.full():
                    break
                call = calls[0]
                try:
                    call.call_id = connection.send_request(call.opcode, call.request, call.metadata)
                except PayloadTooLarge as error:
                    if sent:
                        break
                    raise too_large(error) from None
                places.free -= 1
                self._calls[call.call_id] = calls.popleft()
                sent.append(call)
                ends.append((connection.bytes_pending, call))
            if sent:
                self._transmit_locked(None, ends)
        return sent

    def start(self, call: FutureCall) -> bool:
        """Send the request of ``call``, or have it wait for a place; False when the link takes no calls.

        What is wrong with the request fails the call, and so does a queue that is full.

        Raises:
            LocalProtocolError: the method is not one of the service.
        """
        try:
            call.prepare(self.dialect)
        except LocalProtocolError:
            raise
        except WireprotoError as error:
            call.fail(error)
            return True
        with self._lock:
            if not self.usable:
                return False
            places = self._places
            busy = places.threads or places.queued
            if not busy and not ((places.free <= 0 or self._output.waiting) and places.full()):
                ends: list[tuple[int, ClientCall]] = []
                self._start_locked(call, ends)
                if ends:
                    self._transmit_locked(call)
                return True
            # Under the lock: the answer that makes a place free then finds the call.
            return self._queue.put(call) or True

    def pull(self) -> None:
        """Send the calls of the queue that there are places for."""
        with self._lock:
            self._grant_locked()

    def wait_for_item(self, call: StreamCall, deadline: float | None) -> bool:
        """Wait until a stream has an item or is over; False when the time was up before."""
        with self._lock:
            if call.items or call.over:
                return True
            call.done = False
            gate = self._enter_locked(call)
        self._await_asleep(call, gate, deadline)
        return call.done

    def credit(self, call: StreamCall, items: int, size: int) -> None:
        """Let a stream send more items, and ``size`` more bytes of them; nothing happens if it is over."""
        with self._lock:
            # What is pending by now is counted; CREDIT is not, since the items of the server bound it.
            if self._refuse_calls_locked() and self._connection.send_credit(call.call_id, items, size):
                self._transmit_locked()

    def ping(self, deadline: float | None) -> bool:
        """Send a PING and wait for its PONG; False when the time was up before.

        Raises:
            ConnectionLost: there is no connection any more, or nothing more is sent over it.
        """
        pong = Waiter()
        data = next(self._ping_ids).to_bytes(8, "big")
        with self._lock:
            if self._ended or self._output.finished:
                raise self._lost_locked(Retry.NOT_PROCESSED)
            self._pings[data] = pong
            self._connection.send_ping(data)
            self._transmit_locked()
            gate = self._enter_locked(pong)
        try:
            self._await(pong, gate, deadline)
        finally:
            with self._lock:
                self._pings.pop(data, None)
        if pong.error is not None:
            raise pong.error
        return pong.done

    def cancel(self, call: ClientCall) -> bool:
        """Give a call up and tell the server; False when it was not in flight, so that nothing was given up.

        A thread that waits for the call as the leader sees it with the next frame: the server owes one in return.
        """
        with self._lock:
            if not self._drop_locked(call):
                return False
            if type(call) is FutureCall:
                self._futures -= 1
            elif isinstance(call, StreamCall):
                self._over_locked(call)
                self._wake_locked(call)
            self._retire_locked()
            return True

    def cancel_all(self, calls: Iterable[ClientCall]) -> None:
        """``cancel`` several."""
        with self._lock:
            for call in calls:
                self._drop_locked(call)
            self._retire_locked()

    def abandon(self, call: ClientCall) -> None:
        """``cancel``, some time soon, for finalizers: they may run while this very thread holds the lock."""
        self._abandoned.append(call)

    def expire(self, call: ClientCall) -> None:
        """Fail a call whose time is up and tell the server, unless it is done."""
        with self._lock:
            self._expire_locked(call)

    def finish(self, deadline: float) -> None:
        """Send nothing more, take what still comes, and end: when the server has, or at ``deadline``."""
        if self._agent is not None:
            self._agent.drain(deadline)
        with self._lock:
            if self._ended:
                return
            over = self._over
            if over is None:
                over = self._over = threading.Event()
                self._close_to_calls_locked()
                self._cause = "the client is done"
                self._refuse_places_locked()
                self._cancelled_before = self._connection.own_calls > len(self._calls)
                self._connection.end_output()
                if self._agent is not None:
                    self._agent.end_locked(self._cause)
                self._output.finish()
                self._retire_locked()
                if not self._led:
                    self._attended = True
                    self._rewatch_locked()
        # Nobody need wait for an answer of this link, so the keeper reads it.
        over.wait(max(0.0, deadline - time.monotonic()))
        self.end("the client was closed")

    # Receiving.

    def _feed_locked(self, data: bytes | None) -> None:
        connection = self._connection
        if data:
            connection.receive_data(data)
        elif data is not None:
            connection.receive_eof()
        calls = self._calls
        reacted = data is None
        while events := connection.next_events(_EVENTS):
            for event in events:
                if type(event) is ResponseReceived:
                    call = calls.pop(event.call_id, None)
                    if call is not None:
                        call.payload = event.payload
                        if type(call) is FutureCall:
                            self._finish_locked(call)
                        elif call.gate is None:
                            call.done = True  # nobody sleeps on it: `_wake_locked` without a call
                        else:
                            self._wake_locked(call)
                else:
                    # Of the list from its beginning: an answer that is there twice finds its call only once.
                    reacted = True
                    self._react_to_all_locked(events)
                    break
            if type(event) is ResponseReceived and len(events) < _EVENTS:
                break  # there are no others
        if reacted:
            if self._ended:
                return
            if connection.bytes_pending and not self._reply_locked():
                return
        output = self._output
        if output.waiting:
            self._flush_locked()
        places = self._places
        if places.threads or places.queued:
            self._grant_locked(received=data is not None)
        if not self.usable:
            self._retire_locked()

    def _react_to_all_locked(self, events: list[Event]) -> None:
        """Take in events among which are others than RESPONSE. A run of ITEMs of one call wakes its reader once."""
        calls = self._calls
        stream: StreamCall | None = None
        running = 0
        for event in events:
            if type(event) is ItemReceived:
                if event.call_id != running:
                    if stream is not None:
                        self._received_locked(stream)
                    running = event.call_id
                    call = calls.get(running)
                    stream = call if isinstance(call, StreamCall) else None
                if stream is not None:
                    stream.items.append(event.payload)
                elif self._agent is not None:
                    self._agent.event_locked(event)
            elif type(event) is ResponseReceived:
                answered = calls.pop(event.call_id, None)
                if answered is not None:
                    answered.payload = event.payload
                    self._finish_locked(answered)
            else:
                self._react_locked(event)
        if stream is not None:
            self._received_locked(stream)

    def _react_locked(self, event: Event) -> None:
        """Every event but RESPONSE and ITEM."""
        if isinstance(event, EndReceived | ErrorReceived):
            call = self._calls.pop(event.call_id, None)
            if call is not None:
                call.error = event.error if isinstance(event, ErrorReceived) else None
                self._finish_locked(call)
        elif isinstance(event, AnsweredBeside):
            self._answered_beside_locked(event)
        elif isinstance(event, AnswerUnreadable):
            call = self._calls.get(event.call_id)
            if call is not None and self._drop_locked(call):
                call.error = event.error
                self._finish_locked(call)
        elif isinstance(event, CreditReceived):
            call = self._calls.get(event.call_id)
            if call is not None:
                self._wake_locked((call.sender or call) if type(call) is DuplexCall else call)
            elif self._agent is not None:
                self._agent.event_locked(event)
        elif isinstance(event, OneWayCreditReceived):
            self._call_up_locked(received=True)
        elif isinstance(event, PongReceived):
            pong = self._pings.get(event.data)
            if pong is not None:
                self._wake_locked(pong)
        elif isinstance(event, PingReceived):
            if not self._pinged.take(self._clock()):
                self._fail_locked("TOO_MANY_PINGS", "PING frames come faster than the client allows")
        elif isinstance(event, GoAwayReceived):
            self._go_away_locked(event)
        elif isinstance(event, PackedItemReceived):
            call = self._calls.get(event.call_id)
            if isinstance(call, StreamCall):
                call.items.append(event.payload)
                self._received_locked(call)
            elif self._agent is not None:
                self._agent.event_locked(event)
        elif isinstance(event, PackedResponseReceived):
            call = self._calls.pop(event.call_id, None)
            if call is not None:
                call.error = AnswerPacked(event.payload)
                self._finish_locked(call)
        elif isinstance(event, ConnectionEnded):
            if self._connection.bytes_pending:
                self._transmit_locked()
            self._end_locked(self._why_locked(event.error))
        elif self._agent is not None:
            self._agent.event_locked(event)

    # For the agent.

    def transmit_locked(self) -> None:
        """See ``agent.Writing``."""
        self._transmit_locked()

    def waiting_locked(self) -> int:
        """See ``agent.Writing``."""
        return len(self._output.waiting)

    def _flush_locked(self) -> None:
        super()._flush_locked()
        if self._agent is not None:
            self._agent.wrote_locked()

    def _answered_beside_locked(self, told: AnsweredBeside) -> None:
        """An answer, or an item of one, with something beside its payload: keep that, and go on as without it."""
        event, beside = told.event, told.beside
        call = self._calls.get(event.call_id)
        if call is None:
            return
        if isinstance(event, ItemReceived | PackedItemReceived):
            assert isinstance(call, StreamCall)  # an ITEM of another call ends the connection
            call.items.append(ItemBehind(event.payload, beside.dropped))
            self._received_locked(call)
            return
        call.beside = beside
        if isinstance(event, ErrorReceived):
            self.dialect.read_details(told.opcode, event.error)
            event.error.metadata = beside.metadata
            call.error = event.error
        elif isinstance(event, ResponseReceived):
            call.payload = event.payload
        elif isinstance(event, PackedResponseReceived):
            call.error = AnswerPacked(event.payload)
        del self._calls[event.call_id]
        self._finish_locked(call)

    def _go_away_locked(self, event: GoAwayReceived) -> None:
        """Take no further calls; those that the server will not look at are over."""
        self._close_to_calls_locked()
        self._cause = f"{self.peer} takes no more calls ({event.error})"
        for call in list(self._calls.values()):
            if self._connection.lies_behind(call.call_id, event.last_call_id):
                del self._calls[call.call_id]
                call.error = self._lost_locked(Retry.NOT_PROCESSED, event.error.retry_after_ms)
                self._finish_locked(call)
        self._refuse_places_locked()

    # Ends.

    def _finish_locked(self, call: ClientCall) -> None:
        """A call that was just taken out of ``_calls`` is answered, or has failed."""
        kind = type(call)
        if kind is not ClientCall:
            if isinstance(call, StreamCall):
                self._over_locked(call)
            elif type(call) is FutureCall:
                self._futures -= 1
                self._settle_locked(call)
        self._wake_locked(call)

    def _over_locked(self, call: StreamCall) -> None:
        """No more items of a call come, nor can be sent."""
        call.over = True
        if type(call) is DuplexCall and call.sender is not None:
            self._wake_locked(call.sender)

    def _settle_locked(self, call: FutureCall) -> None:
        """Have the keeper complete a future: callbacks must run without the lock, and hold up no caller."""
        if not self._settled:
            self._keeper.run(self._complete)
        self._settled.append(call)

    def _complete(self) -> None:
        """Complete the futures that are due; on the keeper's thread."""
        with self._lock:
            settled, self._settled = self._settled, []
        for call in settled:
            attempt(call.complete)  # each by itself: what a callback of one raises is not for the others

    def _drop_locked(self, call: ClientCall) -> bool:
        """Take a call out and tell the server; False when it is not in flight."""
        if self._calls.get(call.call_id) is not call:
            return False
        del self._calls[call.call_id]
        # Without CANCEL the answer still comes, and is dropped; but a call with a stream might never end.
        tell = isinstance(call, ItemCall) or self._cancels.take(self._clock())
        if tell and self._connection.send_cancel(call.call_id):
            self._transmit_locked()
        return True

    def _expire_locked(self, call: ClientCall) -> None:
        if self._drop_locked(call):
            call.error = timed_out("the time for the call was up before its answer came", Retry.MAYBE_PROCESSED)
            self._finish_locked(call)
            self._retire_locked()

    def _refuse_places_locked(self) -> None:
        threads = self._places.threads
        while threads:
            place = threads.popleft()
            place.error = self._lost_locked(Retry.NOT_PROCESSED)
            self._wake_locked(place)
        self._dismiss_locked()

    def _close_to_calls_locked(self) -> None:
        """Take no further calls, and say so."""
        if self.usable:
            self.usable = False
            self._changed()

    def _retire_locked(self) -> None:
        """A link that takes no calls and has none is done with.

        Not so while ``finish`` waits behind one-way calls, whose requests nothing answers. They may still wait here,
        and closing over input that is unread would take them back out of the kernel. The server's end says that it has
        them. Nor while the terminal frame of a call is to come that was cancelled before: it would find nobody.
        """
        if self._over is not None and (self._posted or self._cancelled_before):
            return
        if self.usable or self._calls:
            return
        agent = self._agent
        # A server that takes no more calls may still begin some, and closes the connection when it is through.
        stays = agent is not None and (agent.busy or self._connection.goaway_received)
        if not stays or not self._output.writable or self._output.finished:
            self._end_locked("it takes no more calls")

    def _end_locked(self, why: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._close_to_calls_locked()
        self.due = math.inf
        self._cause = self._cause or why
        self._connection.close()
        if self._agent is not None:
            self._agent.end_locked(self._cause)
        unsent = self._output.unsent()
        calls = list(self._calls.values())
        self._calls.clear()
        for call in calls:
            call.error = self._lost_locked(Retry.NOT_PROCESSED if call in unsent else Retry.MAYBE_PROCESSED)
            self._finish_locked(call)
        for pong in self._pings.values():
            pong.error = self._lost_locked(Retry.NOT_PROCESSED)
            self._wake_locked(pong)
        self._refuse_places_locked()
        self._close_locked()
        if self._over is not None:
            self._over.set()

    def forget(self) -> None:
        super().forget()
        self.usable = False
        for call in self._calls.values():
            call.error = made_before_fork("a call that was begun")
            call.done = True
            if isinstance(call, StreamCall):
                call.over = True
                call.items.clear()
        self._calls.clear()

    def _why_locked(self, error: RemoteProtocolError | CallError | None) -> str:
        """What to tell of an end, as a clause."""
        if isinstance(error, CallError):
            return f"{self.peer} ended the connection ({error})"
        if self._problem:
            return f"the connection to {self.peer} broke ({self._problem})"
        if error is None:
            return f"{self.peer} closed the connection"
        if error.reason == "TRUNCATED_FRAME":
            return f"the connection to {self.peer} was cut ({error})"  # by whomever: the peer need not have done it
        return f"{self.peer} broke the protocol ({error})"

    def _lost_locked(self, retry: Retry, retry_after_ms: int = 0) -> ConnectionLost:
        fate = "was not processed" if retry is Retry.NOT_PROCESSED else "may have been processed"
        return ConnectionLost(f"{self._cause}; the call {fate}", retry=retry, retry_after_ms=retry_after_ms)

    # The keeper.

    def _fed_locked(self) -> None:
        if not self._refuse_calls_locked():
            return
        now = self._clock()
        self._liveness.look(now)
        if self._liveness.overdue(now) is Overdue.CHATTER:
            self._give_up_locked(Overdue.CHATTER, now)
            return
        if self._connection.partial_length is not None:
            self._look_by_locked(self._clock() + LOOK)

    def _refuse_calls_locked(self) -> bool:
        """Send what the connection has answered by itself: it refuses the calls of the server, and reports none.

        No server begins any, for this client accepts none. So it is done here, where no caller waits for it.

        Returns:
            Whether the link goes on.
        """
        if self._ended or not self._connection.bytes_pending:
            return not self._ended
        return self._reply_locked()

    def tend(self) -> None:
        with self._lock:
            if self._ended:
                return
            while self._abandoned:
                self._drop_locked(self._abandoned.popleft())
            if not self._refuse_calls_locked():
                return
            now = self._clock()
            liveness, output = self._liveness, self._output
            quiet = liveness.look(now, late=now - self.due)
            liveness.look_at_output(now, bool(output.waiting), output.taken)
            overdue = self._overdue_locked(now)
            if overdue is not None:
                self._give_up_locked(overdue, now)
                return
            due = math.inf
            # Behind the end of our output nothing is asked any more; whoever ended it waits for a time of its own.
            if not output.finished:
                if liveness.ping_due(now):
                    self._connection.send_ping(HEARTBEAT)
                    self._transmit_locked()
                due = liveness.next_look()
            if self._futures:
                for call in [each for each in self._calls.values() if type(each) is FutureCall]:
                    if call.deadline <= now:
                        self._expire_locked(call)
                    else:
                        due = min(due, call.deadline)
            if self._calls or self._led or output.waiting or self._connection.partial_length is not None:
                due = min(due, now + LOOK)
            if not self._led:
                if quiet:
                    self._attended = True
                elif not self._attended:
                    due = min(due, now + QUIET)
            self._retire_locked()
            if not self._ended:
                self.due = due
                self._rewatch_locked()

    def _give_up_locked(self, overdue: Overdue, now: float) -> None:
        problem = self._liveness.sentence(overdue, now)
        if overdue is Overdue.CHATTER:
            self._fail_locked("TOO_MANY_FRAMES", problem)
        else:
            self._end_locked(f"{self.peer} was given up: {problem}")

    def _fail_locked(self, reason: str, problem: str) -> None:
        """The server does too much of something: it is told, and the connection is over."""
        if self._ended:
            return
        error = RemoteProtocolError(reason, problem, Status.RESOURCE_EXHAUSTED)
        self._connection.fail(error)
        self._transmit_locked()
        self._end_locked(self._why_locked(error))

    def _overdue_locked(self, now: float) -> Overdue | None:
        """What the server has not done in time; None when it is us who have not written or read."""
        liveness, output = self._liveness, self._output
        overdue = liveness.overdue(now)
        if overdue is Overdue.WRITING:
            self._flush_locked()
            liveness.look_at_output(now, bool(output.waiting), output.taken)
            overdue = liveness.overdue(now)
        if overdue in (Overdue.FRAME, Overdue.SILENCE) and self._readable_locked():
            return None
        return overdue

    def _readable_locked(self) -> bool:
        """Whether input waits at the kernel."""
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False
