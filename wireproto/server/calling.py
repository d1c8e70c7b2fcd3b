"""The calls that the server begins on one connection, and the handle by which an application begins them.

No call holds a thread, nothing here blocks, and every call has a deadline: a client that never answers costs what its
calls hold, for as long as they may last.
"""

import logging
import math
import time
from _thread import LockType
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from wireproto.answering.intake import HandedItems, ReceivedItems
from wireproto.answering.pool import Pool, Worker
from wireproto.answering.pump import Pump
from wireproto.answering.windows import Windows
from wireproto.binding import Dialect
from wireproto.connected import ConnectedClient, ItemReceiver, ItemSource
from wireproto.errors import CallError, ConnectionLost
from wireproto.futures import CallFuture
from wireproto.handling import Subscription
from wireproto.limits import Limits
from wireproto.reasons import failure
from wireproto.schema import DuplexMethod, Message, Method, OneWayMethod, Operation, StreamMethod, UploadMethod
from wireproto.server.begun import BegunCall, Called, Incoming, Unpacking, refuse_workers
from wireproto.status import Retry
from wireproto.wire.connection import Connection, PayloadTooLarge, State
from wireproto.wire.events import (
    AnsweredBeside,
    AnswerUnreadable,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    Event,
    GoAwayReceived,
    ItemReceived,
    PackedItemReceived,
    PackedResponseReceived,
    ResponseReceived,
)
from wireproto.wire.frame import HEADER_SIZE, U32_MAX, Credit
from wireproto.wire.metadata import EMPTY, Metadata, pack_metadata
from wireproto.wire.packing import Packed, Payload

__all__ = ["Calling"]

log = logging.getLogger("wireproto.server")

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message)


class CallingSession(Protocol):
    """A session, as the calls that it begins see it. What ends in ``_locked`` is called with ``lock`` held."""

    lock: LockType
    pool: Pool
    peer: str
    codec: str
    limits: Limits
    connection: Connection

    @property
    def closed(self) -> bool:
        """Nothing is written any more."""

    def dialect(self) -> Dialect:
        """What the connection speaks, for this side's calls."""

    def windows_locked(self) -> Windows:
        """The windows of all calls of the connection."""

    def admitted_locked(self, call: Any) -> None:
        """See ``owners.CallOwner``; the same for the next five."""

    def taken_locked(self, call: Any) -> None: ...

    def room_locked(self) -> int: ...

    def flush_locked(self) -> None: ...

    def flush(self) -> None: ...

    def flush_soon(self) -> None: ...

    def alarm_locked(self, deadline: float) -> None:
        """Look at the calls at this time."""

    def unsent_locked(self) -> tuple[int, int]:
        """Bytes that the kernel took later than at once so far, and bytes that it has yet to take."""

    def in_turn_locked(self, payload: Packed) -> Packed:
        """What is packed, to be unpacked when nothing else of the connection is."""

    def one_less_locked(self) -> None:
        """A call is over: the end of the connection may have waited for it."""


class Calling(ConnectedClient):
    """The calls of one session. Any thread uses the public methods; the session those that end in ``_locked``."""

    __slots__ = (
        "_begun",
        "_callbacks",
        "_called",
        "_gone",
        "_line",
        "_pulling",
        "_session",
        "_waiting",
        "lock",
        "pool",
    )

    half_closed = False
    """For pumps and intakes: whoever answers may grant credit as long as the call lasts."""

    item_timeout = math.inf
    """For intakes: the call has a deadline of its own."""

    collect_bytes = 0
    """For intakes: nothing is collected."""

    def __init__(self, session: CallingSession) -> None:
        self._session = session
        self.lock = session.lock
        self.pool = session.pool
        self._line = session.connection
        self._begun: dict[int, BegunCall] = {}
        self._waiting: deque[BegunCall] = deque()
        self._called: dict[Operation[Any, Any], Called] = {}
        self._pulling = False  # a thread is in ``pull_locked``
        self._gone = ""  # why the client cannot be called any more
        self._callbacks: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<ConnectedClient {self.peer}{', gone' if self._gone else ''}>"

    # The handle.

    @property
    def peer(self) -> str:
        return self._session.peer

    @property
    def version(self) -> int:
        return self._line.version

    @property
    def codec(self) -> str:
        return self._session.codec

    @property
    def answers(self) -> int:
        return self._line.their_max_calls

    @property
    def connected(self) -> bool:
        return not self._gone and not self._line.goaway_received and self._line.state is State.OPEN

    def on_close(self, callback: Callable[[], object]) -> None:
        with self.lock:
            if self.connected:
                self._callbacks.append(callback)
                return
        self.pool.post(_calling(callback))
        self.pool.run_late()  # the server may be no more

    def start(
        self, method: Method[Req, Resp], request: Req, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> CallFuture[Resp]:
        return self._begin(Method, method, request, timeout, metadata).future

    def call(
        self, method: Method[Req, Resp], request: Req, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Resp:
        refuse_workers("use start, and return its future or add a callback to it")
        future: CallFuture[Resp] = self.start(method, request, timeout=timeout, metadata=metadata)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def post(self, method: OneWayMethod[Req], request: Req, *, metadata: Metadata | None = None) -> None:
        called = self._of_kind(OneWayMethod, method)
        payload = _payload(called, request)
        block = pack_metadata(metadata or EMPTY)
        with self.lock:
            if (problem := self._problem_locked()) is not None:
                raise problem
            if self._line.one_way_credit < 1:
                raise failure("TOO_MANY_CALLS", "the client takes no more one-way calls now; none was sent")
            try:
                self._line.send_flagged_request(called.flags, method.opcode, payload, block)
            except PayloadTooLarge as error:
                raise _too_large(error) from None
            self._session.flush_soon()

    def stream(  # type: ignore[override] # the overloads are the base's
        self,
        method: StreamMethod[Req, Item],
        request: Req,
        sink: ItemReceiver[Item] | None = None,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[Item] | Future[None]:
        return self._with_items(StreamMethod, method, request, None, sink, timeout, metadata)

    def upload(
        self,
        method: UploadMethod[Item, Resp],
        items: "Iterable[Item] | ItemSource[Item]",
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> CallFuture[Resp]:
        source = _source(items)
        return self._begin(UploadMethod, method, None, timeout, metadata, source).future

    def duplex(  # type: ignore[override] # as above
        self,
        method: DuplexMethod[Req, Item],
        items: "Iterable[Req] | ItemSource[Req]",
        sink: ItemReceiver[Item] | None = None,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[Item] | Future[None]:
        source = _source(items)
        return self._with_items(DuplexMethod, method, None, source, sink, timeout, metadata)

    # Beginning.

    def _with_items(
        self,
        kind: type,
        method: Operation[Any, Any],
        request: Message | None,
        source: Any,
        sink: ItemReceiver[Any] | None,
        timeout: float | None,
        metadata: Metadata | None,
    ) -> Iterator[Any] | Future[None]:
        if sink is None:
            refuse_workers("give a sink, which takes the items as they come")
        call = self._begin(kind, method, request, timeout, metadata, source, sink, items_back=True)
        if sink is not None:
            return call.future
        assert isinstance(call.intake, HandedItems)
        return Incoming(call, call.intake)

    def _begin(
        self,
        kind: type,
        method: Operation[Any, Any],
        request: Message | None,
        timeout: float | None,
        metadata: Metadata | None,
        source: Any = None,
        sink: ItemReceiver[Any] | None = None,
        *,
        items_back: bool = False,
    ) -> BegunCall:
        called = self._of_kind(kind, method)
        seconds = method.timeout if timeout is None else timeout
        if seconds is None or not seconds > 0:
            raise ValueError(
                f"timeout is {timeout!r}; give {method.name} seconds above 0, or declare it with a timeout: a client "
                "that never answers must not hold a call for ever"
            )
        payload = b"" if source is not None else _payload(called, request)
        call = BegunCall(self, called, payload, metadata or EMPTY, time.monotonic() + min(seconds, U32_MAX / 1000))
        call.source = source
        call.receiver = sink
        if items_back:
            limits = self._session.limits
            call.credit = Credit(limits.first_items, limits.first_bytes)
            call.intake = HandedItems(call) if sink is None else ReceivedItems(call, call)
        # With the deadline and the credit. What cannot be written is said here: once there is a place, nobody hears it.
        pack_metadata(call.request_metadata(U32_MAX))
        with self.lock:
            if (problem := self._problem_locked()) is not None:
                self._end_locked(call, problem)
                self.pool.run_late()  # the server may be no more
            elif self._waiting or not self._has_place_locked():
                self._wait_locked(call)
            else:
                self._send_locked(call)
        return call

    def _of_kind(self, kind: type, method: Operation[Any, Any]) -> Called:
        if type(method) is not kind:
            raise TypeError(f"{method!r:.100} is no {kind.__name__}; each kind of method has a method of its own here")
        called = self._called.get(method)
        if called is None:
            binding = self._session.dialect().bind(method)
            called = self._called[method] = Called(method, binding)
        return called

    def _problem_locked(self) -> CallError | None:
        """Why no call can begin now; None if one can."""
        connection = self._line
        if self._gone or connection.state is not State.OPEN:
            why = self._gone or "the client has left"
            return ConnectionLost(f"{why}; the call was not processed", retry=Retry.NOT_PROCESSED)
        if not connection.their_max_calls:
            text = "this client answers no calls: it was connected without handlers"
            return failure("NO_HANDLER", text, retry=Retry.NOT_PROCESSED)
        if connection.goaway_received:
            return failure("SHUTTING_DOWN", "the client is going away, and takes no more calls")
        return None

    def _has_place_locked(self) -> bool:
        """Whether one more call may be sent. A call that was given up keeps its place until the client has answered it:
        one that answers nothing, and says that it takes any number, gets ``start_queue`` of them and no more.
        """
        connection, session = self._line, self._session
        most = min(connection.their_max_calls, session.limits.start_queue)
        return connection.own_calls < most and session.room_locked() > 0

    def _wait_locked(self, call: BegunCall) -> None:
        most = self._session.limits.start_queue
        if len(self._waiting) >= most:
            text = f"{most} calls wait for a place at this client already (Limits.start_queue)"
            self._end_locked(call, failure("TOO_MANY_CALLS", text))
            return
        self._waiting.append(call)
        self._session.alarm_locked(call.deadline)

    def _send_locked(self, call: BegunCall) -> None:
        session, connection, called = self._session, self._line, call.entry
        left = math.ceil((call.deadline - time.monotonic()) * 1000)
        block = pack_metadata(call.request_metadata(max(1, min(left, U32_MAX))))
        opcode = called.method.opcode
        crowded = session.unsent_locked()[1] > 0
        if crowded:
            session.flush_locked()  # so that all there is before it counts as taken later than at once
            if (problem := self._problem_locked()) is not None:
                self._end_locked(call, problem)
                return
        try:
            if called.flags or isinstance(call.payload, Packed):
                call.call_id = connection.send_flagged_request(
                    called.flags, opcode, call.payload, block, credit=call.credit
                )
            else:
                call.call_id = connection.send_request(opcode, call.payload, block)
        except PayloadTooLarge as error:
            self._end_locked(call, _too_large(error))
            return
        body = call.payload.body if isinstance(call.payload, Packed) else call.payload
        size = HEADER_SIZE + len(block) + len(body)
        call.payload = b""
        self._begun[call.call_id] = call
        session.alarm_locked(call.deadline)
        if call.intake is not None:
            session.windows_locked().begin(call.call_id)
            session.admitted_locked(call)
        if call.source is not None:
            call.stream = Pump(call, call.source)
            call.stream.wake_locked()
        if crowded:
            session.flush_locked()
            taken, unsent = session.unsent_locked()
            call.mark = taken + unsent - size if unsent >= size else None
        else:
            session.flush_soon()

    # The session's.

    @property
    def busy(self) -> bool:
        """Whether calls are in flight, wait for a place, or are being sent."""
        return bool(self._begun or self._waiting or self._pulling)

    def event_locked(self, event: Event) -> None:
        """Take what has come of calls that this side began."""
        if type(event) is ItemReceived or type(event) is PackedItemReceived:
            call = self._begun.get(event.call_id)
            if call is not None and call.intake is not None:
                item = event.payload
                call.intake.put_locked(self._session.in_turn_locked(item) if isinstance(item, Packed) else item)
            return
        if type(event) is AnsweredBeside:
            if (answered := self._begun.get(event.event.call_id)) is not None:
                answered.said = event.beside.metadata  # nothing for an item, which can only say what it left out
            if isinstance(event.event, ErrorReceived):
                error = event.event.error
                self._session.dialect().read_details(event.opcode, error)
                error.metadata = event.beside.metadata
            self.event_locked(event.event)
            return
        if type(event) is AnswerUnreadable:
            call = self._begun.get(event.call_id)
            if call is not None:
                self._give_up_locked(call, event.error)
            return
        if type(event) is CreditReceived:
            call = self._begun.get(event.call_id)
            if call is not None and call.stream is not None:
                call.stream.wake_locked()
            return
        if type(event) is ResponseReceived or type(event) is PackedResponseReceived:
            call = self._take_locked(event.call_id)
            if call is not None:
                call.answered = True
                self._end_source_locked(call, "the call is answered")
                payload, answered = event.payload, call
                if isinstance(payload, Packed):
                    answer = Unpacking(call, self._session.in_turn_locked(payload))
                    self.pool.submit(answer, always=True)  # calls in flight are bounded
                else:
                    self.pool.post(lambda worker: answered.complete_with(payload))
        elif type(event) is EndReceived:
            self._end_of_items_locked(event.call_id, None)
        elif type(event) is ErrorReceived:
            self._end_of_items_locked(event.call_id, event.error)
        elif type(event) is GoAwayReceived:
            self._go_away_locked(event)
        self.pull_locked()

    def _take_locked(self, call_id: int) -> BegunCall | None:
        """Take out a call that is over on the wire."""
        call = self._begun.pop(call_id, None)
        if call is not None and call.intake is not None:
            self._session.windows_locked().over(call_id)
        return call

    def _end_of_items_locked(self, call_id: int, error: CallError | None) -> None:
        call = self._take_locked(call_id)
        if call is not None:
            self._end_locked(call, error)

    def _end_locked(self, call: BegunCall, error: CallError | None) -> None:
        """A call is over, as its peer says or because there is none any more: whoever takes its items has those first
        that are here.
        """
        self._end_source_locked(call, "the call is over" if error is None else str(error))
        if call.intake is not None:
            call.intake.complete_locked(error)
        else:
            call.answered = True
        if call.receiver is None:
            self.pool.post(lambda worker: call.complete(error=error))

    def _end_source_locked(self, call: BegunCall, why: str) -> None:
        """Nothing more is sent of a call: its source is closed, even if it was never asked."""
        if call.source is not None and call.stream is None:
            call.stream = Pump(call, call.source)
        if call.stream is not None:
            call.stream.end_locked(why)

    def _go_away_locked(self, event: GoAwayReceived) -> None:
        """The client takes no further calls; those that it will not look at are over."""
        for call in list(self._begun.values()):
            if self._line.lies_behind(call.call_id, event.last_call_id):
                self._end_of_items_locked(call.call_id, _not_looked_at(event.error))
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            self._end_locked(call, failure("SHUTTING_DOWN", "the client is going away, and takes no more calls"))
        self._tell_locked()

    def pull_locked(self) -> None:
        """Send the calls that wait, as far as there are places and room."""
        if self._pulling:
            return  # sending has made room: whoever sends goes on by itself, with the place that it has seen
        self._pulling = True
        try:
            while self._waiting and self._has_place_locked():
                self._send_locked(self._waiting.popleft())
        finally:
            self._pulling = False
        if not self.busy:
            self._session.one_less_locked()

    def wake_locked(self) -> None:
        """There is room in the output again."""
        for call in list(self._begun.values()):
            if call.stream is not None:
                call.stream.wake_locked()
        self.pull_locked()

    def expire_locked(self, now: float) -> float:
        """End the calls whose deadline is up; the soonest deadline of the rest, ``math.inf`` without one."""
        soonest = math.inf
        for call in [*self._begun.values(), *self._waiting]:
            if call.deadline <= now:
                sent = call.call_id != 0
                text = "the time for the call was up before its answer came"
                retry = Retry.MAYBE_PROCESSED if sent else Retry.NOT_PROCESSED
                self._give_up_locked(call, failure("DEADLINE", text, retry=retry))
            elif call.deadline < soonest:
                soonest = call.deadline
        return soonest

    def lose_locked(self, why: str, *, written: bool = False) -> None:
        """Nothing more comes of any call, and none can begin.

        Args:
            why: a clause.
            written: what waits for the kernel still goes out, to a client that may act on it.
        """
        if self._gone:
            return
        self._gone = why
        taken, _ = self._session.unsent_locked()
        begun, waiting = list(self._begun.values()), list(self._waiting)
        self._begun.clear()
        self._waiting.clear()
        for call in begun:
            never_sent = not written and call.mark is not None and taken <= call.mark
            self._end_locked(call, _lost(why, Retry.NOT_PROCESSED if never_sent else Retry.MAYBE_PROCESSED))
        for call in waiting:
            self._end_locked(call, _lost(why, Retry.NOT_PROCESSED))
        self._tell_locked()

    def _tell_locked(self) -> None:
        """No further call can begin: so say the callbacks of ``on_close``, once."""
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self.pool.post(_calling(callback))

    # Giving a call up.

    def give_up(self, call: BegunCall, error: CallError | None) -> bool:
        """See ``begun.BegunCalls``."""
        with self.lock:
            return self._give_up_locked(call, error)

    def _give_up_locked(self, call: BegunCall, error: CallError | None) -> bool:
        if call.call_id:
            if self._begun.get(call.call_id) is not call:
                if call.receiver is not None and call.intake is not None:
                    call.intake.end_locked(error or _cancelled())  # of items that are here, and that it has yet to take
                return False
            self._take_locked(call.call_id)
            self._line.send_cancel(call.call_id)
            self._session.flush_soon()
        else:
            try:
                self._waiting.remove(call)
            except ValueError:
                return False
        call.answered = call.receiver is None
        told = error or _cancelled()
        self._end_source_locked(call, str(told))
        if call.intake is not None:
            call.intake.end_locked(told)
        if call.receiver is None:
            self.pool.post(lambda worker: call.complete(error=told))
        if not self.busy:
            self._session.one_less_locked()
        return True

    # What pumps and intakes ask of a call's owner; see ``owners.CallOwner``.

    @property
    def connection(self) -> "Calling":
        """See ``owners.CallLine``: what pumps send on."""
        return self

    def credit(self, call_id: int) -> tuple[int, int]:
        return self._line.credit(call_id)

    def send_item(self, call_id: int, payload: Payload) -> None:
        self._line.send_item(call_id, payload)

    def send_item_behind(self, call_id: int, payload: Payload, dropped: int) -> None:
        """Nobody is told what was left out of what a caller sends."""
        self._line.send_item(call_id, payload)

    def room_locked(self) -> int:
        return self._session.room_locked()

    def flush_locked(self) -> None:
        self._session.flush_locked()

    def flush(self) -> None:
        self._session.flush()

    def flush_soon(self) -> None:
        self._session.flush_soon()

    def admitted_locked(self, call: BegunCall) -> None:
        self._session.admitted_locked(call)

    def taken_locked(self, call: BegunCall) -> None:
        self._session.taken_locked(call)

    def end_stream_locked(self, call: BegunCall, error: CallError | None, dropped: int = 0) -> None:
        """All items to be sent are sent, or the application's source has failed."""
        if call.answered or call.call_id not in self._begun:
            return
        if error is not None:
            self._give_up_locked(call, error)
        else:
            self._line.send_end(call.call_id)
            self._session.flush_soon()

    def settle(self, call: BegunCall, outcome: "bytes | CallError", last: bool = False) -> None:
        """A sink has failed: the call is given up."""
        if isinstance(outcome, CallError):
            self.give_up(call, outcome)


def _source(items: Any) -> Any:
    """What a pump takes."""
    return items if isinstance(items, Subscription) else iter(items)


def _payload(called: Called, request: Message | None) -> Payload:
    """The encoded request; raises what is wrong with it."""
    payload = called.encode(request)
    if isinstance(payload, CallError):
        raise payload.__cause__ or payload
    return payload


def _too_large(error: PayloadTooLarge) -> CallError:
    text = f"the request makes a frame of {error.size} bytes; the client accepts {error.limit}. Nothing was sent"
    return failure("REQUEST_TOO_LARGE", text)


def _cancelled() -> CallError:
    return failure("CANCELLED", "the call was cancelled")


def _not_looked_at(said: CallError) -> CallError:
    """Of a call behind the last one that GOAWAY names: it is not processed, whatever else the client says there. Each
    call has an error of its own, for it is raised by a thread of its own.
    """
    return CallError(
        said.status, said.reason, said.message, retry=Retry.NOT_PROCESSED, retry_after_ms=said.retry_after_ms
    )


def _lost(why: str, retry: Retry) -> ConnectionLost:
    fate = "was not processed" if retry is Retry.NOT_PROCESSED else "may have been processed"
    return ConnectionLost(f"{why}; the call {fate}", retry=retry)


def _calling(callback: Callable[[], object]) -> Callable[[Worker], None]:
    def call(worker: Worker) -> None:
        try:
            callback()
        except BaseException:  # SystemExit too, as of a handler
            log.exception("a callback of on_close failed")

    return call
