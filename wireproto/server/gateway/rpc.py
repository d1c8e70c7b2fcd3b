"""One call over HTTP/2, as the owner that a ``Call`` and its ``Pump`` have on the TCP door in a session.

So a call is dispatched, expired, deferred, streamed and refused by the code of the other door. What differs is below:
a call has a connection to itself, whose only flow control is HTTP/2's.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from wireproto.answering.call import Call
from wireproto.answering.pace import Pace
from wireproto.answering.pool import Pool, Worker
from wireproto.answering.refusals import busy, cancelled, late, shutting_down, too_large
from wireproto.answering.watch import STUCK
from wireproto.connected import ConnectedClient
from wireproto.dispatch import Entry
from wireproto.errors import CallError
from wireproto.identity import Holder, Identity
from wireproto.limits import Limits
from wireproto.server.gateway.conduct import Conduct
from wireproto.server.gateway.halves import HalfCalls
from wireproto.server.gateway.seam import Wire
from wireproto.server.gateway.shares import NetworkShares
from wireproto.server.gateway.turns import Turns
from wireproto.server.gateway.untaken import SMALL, Untaken
from wireproto.status import Retry, Status
from wireproto.wire.connection import PayloadTooLarge
from wireproto.wire.frame import U32_MAX
from wireproto.wire.metadata import DROPPED_HEADER, Metadata
from wireproto.wire.packing import Payload, plain

__all__ = ["PARTING", "Live", "Rpc", "RpcOwner", "PathTarget", "half", "untaken"]

PARTING = 1.0
"""Seconds that a caller has to take the end of its call when the door closes: who reads nothing does not hold it up."""

NEAR = 0.05
"""Seconds before a call's deadline in which its end is taken for that: the caller's clock and ours are not the same."""

MARK = 65_536
"""Bytes of a stream that wait for HTTP/2 to take them; a source is asked for as many items as fit, by the size of the
last one, and for one at least. A connection may have 256 streams."""

SLOWEST = 65_536
"""Bytes a second that a caller has to take of a message, because gRPC tells only when all of it has left."""

WINDOW = 64
"""Items of a stream that wait for HTTP/2 to take them; as many as a turn takes of a source."""


_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class PathTarget(Protocol):
    """A method, as its path is found."""

    def terms(self, wire: Wire) -> tuple[Entry, Metadata, int]:
        """What a call runs, what it says beside its payload, and the version it is written in.

        Raises:
            CallError: that cannot be read, or asks for what there is not.
        """


class Live(Protocol):
    """A call, as the door's clocks and its end see it."""

    def ask(self) -> None:
        """Have its message read, when it is its turn."""

    def refuse(self, error: CallError) -> None:
        """End it before anything has run."""

    def sweep(self, now: float) -> None:
        """Look at its clocks, but for the deadline; called by the watchdog four times a second."""

    def expire(self, now: float) -> float:
        """End it if its deadline is up; the deadline (monotonic) if it is not, ``math.inf`` without one."""

    def drain(self) -> None:
        """The door closes: a subscription ends, an iterator may end by itself, a call is finished."""

    def revoke(self, identity: Identity) -> None:
        """An identity was revoked: end it if it was begun with that."""

    def dismiss(self) -> None:
        """Nothing new is taken any more: a call whose message is not whole is refused."""

    def cut(self) -> None:
        """The door's time is up."""


class RpcOwner(Protocol):
    """The door, as its calls see it.

    Attributes:
        limits: the gateway's.
        pool: runs what may block, and everything that the engine's thread may not.
        largest: bytes that a payload may have in either direction.
        halves: the calls whose message is not whole.
        questions: the callers of reflection of whom the next question is awaited.
        fed: the calls of each network, and of each connection in it, whose items follow.
        one_way: the one-way calls of each connection that wait for a worker or run, and those that wait for their turn.
        untaken: the answers that have not been taken, and the calls that wait for that.
        conduct: who has cancelled too much, or sent too much that cannot be understood.
        patience: seconds after the headers in which a message must be whole.
        draining: it closes.
    """

    limits: Limits
    pool: Pool
    largest: int
    halves: HalfCalls
    questions: HalfCalls
    fed: NetworkShares
    one_way: Turns
    untaken: Untaken
    conduct: Conduct
    patience: float
    draining: bool

    def identity_revoked(self, identity: Identity) -> None:
        """See ``identity.Holder``."""

    def expect(self, deadline: float) -> None:
        """Have ``Live.expire`` asked at this time (monotonic)."""

    def leads(self, pace: Pace, worker: Worker | None) -> bool:
        """Whether a method may run on the engine's thread."""

    def forget(self, call: Live) -> None:
        """A call is over."""

    def note_one_way(self, peer: str, error: CallError) -> None:
        """Nobody is told of the failure of a one-way call: log it, now and then."""


class Rpc:
    """A call from its headers to its end. It is the ``CallOwner`` of its ``Call``, and that one's ``CallLine``.

    Args:
        door: whose call it is.
        wire: what the engine has of it.
        served: the method that it is for; None when there is none, and it is only refused.

    Attributes:
        lock: held for whatever is asked of the wire, and while the call's state changes.
        began: when its message was asked for (monotonic); ``math.inf`` before that.
        whole: the message was there.
        over: nothing is sent any more.
        call: what is run, from the message on.
    """

    __slots__ = (
        "_bytes",
        "_counted",
        "_door",
        "_dropped",
        "_end",
        "_ending",
        "_handed",
        "_said",
        "_sending",
        "_served",
        "_size",
        "_starved",
        "_waiting",
        "_wire",
        "began",
        "call",
        "identity",
        "lock",
        "over",
        "peer",
        "pool",
        "version",
        "whole",
    )

    codec = "protobuf"

    def __init__(self, door: RpcOwner, wire: Wire, served: PathTarget | None) -> None:
        self._door = door
        self._served = served
        self._wire = wire
        self.pool: Pool = door.pool
        self.lock = threading.Lock()
        self.peer = wire.peer
        self.identity: Identity | None = None
        self.version = 0
        self.began = math.inf
        self.whole = False
        self.over = False
        self.call: Call | None = None
        self._waiting: deque[bytes] | None = None
        self._bytes = 0
        self._counted = 0  # of its answer, among what its connection has not taken
        self._sending = False
        self._handed: float | None = None  # when what the caller has not taken yet was handed to the wire
        self._size = 0  # of that
        self._starved = False
        self._ending = False
        self._end: CallError | None = None
        self._said: Mapping[str, str] = _NOTHING
        self._dropped = 0

    @property
    def draining(self) -> bool:
        """The door closes."""
        return self._door.draining

    @property
    def client(self) -> ConnectedClient:
        """See ``owners.CallOwner``."""
        # An error of the call: any stranger may make one of a method whose handler asks, and that is no fault of it.
        raise CallError(
            Status.FAILED_PRECONDITION,
            message="this method is for callers that the server can call; gRPC has no calls of a server, use TCP",
        )

    @property
    def holder(self) -> Holder:
        """See ``owners.CallOwner``."""
        return self._door

    @property
    def half_closed(self) -> bool:
        """See ``owners.CallOwner``. Its caller's half ends with the request, and HTTP/2 still says what it takes."""
        return False

    @property
    def connection(self) -> "Rpc":
        """It is its own ``CallLine``."""
        return self

    def ask(self) -> None:
        """See ``Live``."""
        if self._door.untaken.keeps(self.peer, self._ask_again) or not self._enter():
            self.take_over()

    def _enter(self) -> bool:
        self.began = time.monotonic()
        return self._door.halves.enter(self)

    def _ask_again(self) -> bool:
        """It had to wait for what its connection has not taken."""
        if self.over or self._ending:
            return False
        self.ask()
        return True

    def read(self) -> None:
        """See ``halves.Half``."""
        with self.lock:
            if not self._ending and not self.over:
                self._wire.receive()

    # ------------------------------------------------------------------ what the engine tells

    def on_message(self, worker: Worker | None, payload: bytes) -> None:
        """The call's only message; see ``seam.CallEvents``."""
        self.whole = True
        self._door.halves.leave(self, whole=True)
        if self._served is None:
            return
        try:
            entry, metadata, self.version = self._served.terms(self._wire)
        except CallError as error:
            self._door.conduct.note(self.peer, "errors")
            self.refuse(error)
            return
        self._begin(worker, entry, metadata, payload)

    def on_complete(self) -> None:
        """See ``seam.CallEvents``. It has sent nothing before that, or has failed."""
        self.whole = True
        self._door.halves.leave(self)
        self._door.conduct.note(self.peer, "cancels")
        self.refuse(CallError(Status.UNIMPLEMENTED, "", "the call has no request: its caller sent no message"))

    def _begin(self, worker: Worker | None, entry: Entry, metadata: Metadata, payload: bytes) -> None:
        call = Call(self, 0, entry, metadata, payload)
        if call.metadata.deadline_ms is not None or call.entry.timeout is not None:
            call.read_terms()
        with self.lock:
            if self.over or self._ending:
                return
            self.call = call
        if call.deadline is not None:
            self._door.expect(call.deadline)
        if self._door.untaken.keeps(self.peer, self._go_on):
            self.take_over()
        else:
            self._run(worker, call)

    def _go_on(self) -> bool:
        """It had to wait for what its connection has not taken."""
        call = self.call
        if call is None or call.answered:
            return False
        self._run(None, call)
        return True

    def _run(self, worker: Worker | None, call: Call) -> None:
        """On the engine's thread if it may, else on a follower."""
        if not self._door.leads(call.entry.pace, worker):
            self.take_over()
            if not self.pool.submit(self):
                self.settle(call, busy())
            return
        pace = call.entry.pace
        pace.ran = True
        call.run(True, worker)
        if worker is not None and self.pool.leader is not worker:
            pace.note(STUCK)  # deposed: the run took at least so long
        if not self.over:
            self.take_over()

    def run_blocking(self) -> None:
        """Run on a follower; called by the pool. Meanwhile too many answers may wait to be taken by its caller."""
        call = self.call
        if call is not None and not self._door.untaken.keeps(self.peer, self._go_on):
            call.run(True)

    def on_sent(self) -> None:
        """See ``seam.CallEvents``."""
        with self.lock:
            self._sending = False
            self._handed = None
            self.flush_locked()
            if self._starved and self._pending() <= WINDOW // 2:
                self._starved = False
                if self.call is not None and self.call.stream is not None:
                    self.call.stream.wake_locked()

    def on_over(self) -> None:
        """See ``seam.CallEvents``."""
        with self.lock:
            if not self.over and not self._due():
                self._door.conduct.note(self.peer, "cancels")
            self.over = True
            self._handed = self._waiting = None
            call = self.call
            if call is not None:
                if not call.answered:
                    call.cancelled = call.answered = True
                    call.drop_future_locked()
                if call.stream is not None:
                    call.stream.end_locked(str(cancelled()))
                if call.intake is not None:
                    call.intake.end_locked(cancelled())
        if not self.whole:
            self._door.halves.leave(self)
        if self._counted or self._door.untaken.waits:
            self._door.untaken.over(self.peer, self._counted)
        self._forget()

    def _forget(self) -> None:
        self._door.forget(self)

    # ------------------------------------------------------------------ what the clocks and the door's end ask

    def refuse(self, error: CallError) -> None:
        """See ``Live``."""
        with self.lock:
            self._end_locked(error)

    def expire(self, now: float) -> float:
        """See ``Live``."""
        call = self.call
        if call is None or call.deadline is None or call.answered:
            return math.inf
        if call.deadline > now:
            return call.deadline
        with self.lock:
            call.expire_locked(late)
        return math.inf

    def sweep(self, now: float) -> None:
        """See ``Live``."""
        call = self.call
        if call is None:
            if not self.whole and now - self.began > self._door.patience:
                self.refuse(half(now - self.began))
            return
        with self.lock:
            if self._handed is not None:
                waited = now - self._handed
                takes = self._size / SLOWEST
                if self._door.draining and call.answered:
                    if waited > PARTING + takes:
                        self._abandon_locked(shutting_down(Retry.MAYBE_PROCESSED))
                elif waited > self._door.limits.write_timeout + takes:
                    self._abandon_locked(untaken(waited))

    def drain(self) -> None:
        """See ``Live``."""
        with self.lock:
            call = self.call
            if call is None or call.stream is None or not call.stream.subscribed:
                return
            if call.entry.method.goes_on:
                call.stream.wake_locked()
            else:
                call.expire_locked(shutting_down)

    def revoke(self, identity: Identity) -> None:
        """See ``Live``."""
        if (call := self.call) is not None:
            with self.lock:
                call.revoke_locked(identity)

    def dismiss(self) -> None:
        """See ``Live``."""
        with self.lock:
            if not self.whole:
                self._end_locked(shutting_down())

    def cut(self) -> None:
        """See ``Live``."""
        with self.lock:
            if self.call is None:
                self._end_locked(shutting_down())
            else:
                self.call.expire_locked(shutting_down)

    # ------------------------------------------------------------------ CallOwner

    def settle(self, call: Call, outcome: "Payload | CallError", last: bool = False) -> None:
        """See ``owners.CallOwner``."""
        with self.lock:
            if call.answered:
                call.let_go_locked()
            else:
                call.answered = True
                if isinstance(outcome, CallError):
                    self.send_error_locked(call, outcome)
                elif len(outcome) > self._door.largest:
                    self.send_error_locked(call, too_large(PayloadTooLarge(len(outcome), self._door.largest)))
                elif not self.over:
                    self._answer_locked(plain(outcome))

    def _answer_locked(self, payload: bytes) -> None:
        self.over = True
        self._handed = time.monotonic()
        self._size = len(payload)
        if self._size > SMALL:
            self._counted = self._size
            self._door.untaken.hand(self.peer, self._size)
        self._wire.answer(payload, self._said)

    def stream_began_locked(self, call: Call) -> None:
        """See ``owners.CallOwner``."""
        stream = call.stream
        if self.over and stream is not None:
            stream.end_locked(str(cancelled()))
        elif stream is not None and stream.subscribed:
            if self._door.draining and not call.entry.method.goes_on:
                call.expire_locked(shutting_down)
            else:
                self._wire.open()

    def set_metadata_locked(self, call: Call, said: Mapping[str, str]) -> None:
        """See ``owners.CallOwner``."""
        self._said = said

    def send_error_locked(self, call: Call, error: CallError) -> None:
        """See ``owners.CallOwner``."""
        if not call.started:
            self.pool.withdraw(self)  # or calls that are over would fill the run queue
        if error.reason == "BAD_PAYLOAD":
            self._door.conduct.note(self.peer, "errors")
        if call.stream is not None:
            call.stream.end_locked(str(error))
        if call.intake is not None:
            call.intake.end_locked(error)
        self._end_locked(error)

    def end_stream_locked(self, call: Call, error: CallError | None, dropped: int = 0) -> None:
        """See ``owners.CallOwner``."""
        if call.answered:
            return
        call.answered = True
        self._dropped += dropped
        if error is not None:
            self.send_error_locked(call, error)
        else:
            self.answered_locked(call)
            self._end_locked(None)

    def run_on_locked(self, call: Call, error: CallError) -> None:
        """See ``owners.CallOwner``: what HTTP/2 counts are streams that have not ended."""
        self.send_error_locked(call, error)

    def came_back_locked(self, call: Call) -> None:
        """See ``owners.CallOwner``."""

    @property
    def collect_bytes(self) -> int:
        """See ``owners.CallOwner``."""
        return self._door.limits.window_bytes

    @property
    def item_timeout(self) -> float:
        """See ``owners.CallOwner``."""
        return self._door.limits.item_timeout

    def admitted_locked(self, call: Call) -> None:
        """See ``owners.CallOwner``: whose items follow, is ``fed.FedRpc``."""

    def taken_locked(self, call: Call) -> None:
        """See ``owners.CallOwner``: the same."""

    def answered_locked(self, call: Call) -> None:
        """See ``owners.CallOwner``."""
        if call.intake is not None:
            call.intake.answered_locked()

    def one_way_over(self, call: Call, error: CallError | None) -> None:
        """See ``owners.CallOwner``: whose caller does not wait, is ``one_way.OneWayRpc``."""

    def room_locked(self) -> int:
        """See ``owners.CallOwner``."""
        if self._pending() < WINDOW and self._bytes <= MARK:
            return MARK + 1 - self._bytes
        self._starved = True
        return 0

    def flush(self) -> None:
        """See ``owners.CallOwner``."""
        with self.lock:
            self.flush_locked()

    flush_soon = flush

    def flush_locked(self) -> None:
        """See ``owners.CallOwner``: of a call one message is on its way at a time."""
        if self._sending or self.over:
            return
        if self._waiting:
            payload = self._waiting.popleft()
            self._size = len(payload)
            self._bytes -= self._size
            self._sending = True
            self._handed = time.monotonic()
            self._wire.send(payload, bool(self._waiting))
        elif self._ending:
            self.over = True
            self._handed = time.monotonic()
            self._size = 0
            self._wire.end(self._end, self._said_at_the_end())

    def take_over(self) -> None:
        """See ``owners.CallOwner``. There is no other call to go on with; but this one is not answered at once."""
        with self.lock:
            if not self.over:
                self._wire.watch()

    # ------------------------------------------------------------------ CallLine

    def credit(self, call_id: int) -> tuple[int, int]:
        """See ``owners.CallLine``. There is some always: how much goes out is up to the room, and that to HTTP/2."""
        return max(1, WINDOW - self._pending()), MARK

    def send_item(self, call_id: int, payload: Payload) -> None:
        """See ``owners.CallLine``."""
        largest = self._door.largest
        if len(payload) > largest:
            raise PayloadTooLarge(len(payload), largest)
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(plain(payload))
        self._bytes += len(payload)

    def send_item_behind(self, call_id: int, payload: Payload, dropped: int) -> None:
        """See ``owners.CallLine``. A message over gRPC has nothing beside it: the end tells how many there were."""
        self.send_item(call_id, payload)
        self._dropped += dropped

    # ------------------------------------------------------------------ own

    def _said_at_the_end(self) -> Mapping[str, str]:
        """What its handler said, and how many items its stream has left out, whatever has ended it."""
        return {**self._said, DROPPED_HEADER: str(min(self._dropped, U32_MAX))} if self._dropped else self._said

    def _due(self) -> bool:
        """Whether the caller's deadline is up, or all but: then gRPC ends the call by itself at either side."""
        remaining = self._wire.remaining()
        return remaining is not None and remaining < NEAR

    def _pending(self) -> int:
        return 0 if self._waiting is None else len(self._waiting)

    def _end_locked(self, error: CallError | None) -> None:
        """End it once what was queued is sent."""
        if not self._ending and not self.over:
            self._ending = True
            self._end = error
            self.flush_locked()

    def _abandon_locked(self, error: CallError) -> None:
        """End it though the caller takes nothing of what was sent."""
        self.over = True
        self._handed = self._waiting = None
        call = self.call
        if call is not None and not call.answered:
            call.cancelled = call.answered = True
            if call.stream is not None:
                call.stream.end_locked(str(error))
            if call.intake is not None:
                call.intake.end_locked(error)
        self._wire.reset(error)


def half(seconds: float) -> CallError:
    return CallError(
        Status.DEADLINE_EXCEEDED,
        "FRAME_TIMEOUT",
        f"the request was not whole after {seconds:.1f} s; send it without a pause",
        retry=Retry.NOT_PROCESSED,
    )


def untaken(seconds: float) -> CallError:
    return CallError(
        Status.DEADLINE_EXCEEDED,
        "WRITE_TIMEOUT",
        f"what was sent is not taken after {seconds:.1f} s; read what was asked for",
        retry=Retry.MAYBE_PROCESSED,
    )
