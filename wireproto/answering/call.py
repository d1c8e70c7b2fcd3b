"""One call on one connection: the context its handler sees, and how it ends, exactly once."""

import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, NoReturn

import msgspec

from wireproto.answering.intake import Intake
from wireproto.answering.owners import CallOwner
from wireproto.answering.pool import Worker
from wireproto.answering.pump import Pump
from wireproto.answering.refusals import given_up, identity_revoked, late
from wireproto.connected import ConnectedClient
from wireproto.dispatch import Entry, Outcome
from wireproto.errors import CallError
from wireproto.handling import Context
from wireproto.identity import Holder, Identity
from wireproto.reasons import failure
from wireproto.schema import Operation
from wireproto.status import Retry
from wireproto.wire.answers import with_entry
from wireproto.wire.metadata import Metadata
from wireproto.wire.packing import Packed, Payload

__all__ = ["Call", "OneWayCall", "expire_overdue_locked"]


class Call(msgspec.Struct, Context, eq=False):
    """A call from REQUEST to its terminal frame. One is made for every call, which is why it is a struct: 60 ns and not
    130.

    Attributes:
        answered: the terminal frame is queued or waits for its place, or the connection is gone; whatever the handler
            still gives is dropped.
        held: answered while the handler still ran, whose owner is told when it is back.
        started: a worker has taken it up; before that it can be said to be not processed.
        future: the deferred answer, once the handler gave one.
        stream: the running stream, once the handler gave one.
        intake: of a call whose items follow, what takes them.
        said: what the answer says beside its payload; None for nothing.

    ``answered``, ``held`` and ``stream`` change under the session's lock only.
    """

    session: CallOwner
    call_id: int
    entry: Entry
    metadata: Metadata
    payload: Payload
    identity: Identity | None = None
    deadline: float | None = None
    cancelled: bool = False
    answered: bool = False
    held: bool = False
    started: bool = False
    future: "Future[Any] | None" = None
    stream: Pump | None = None
    intake: Intake | None = None
    said: "dict[str, str] | None" = None

    def __repr__(self) -> str:
        return f"<Call {self.call_id} of {self.entry.method.name} from {self.peer}>"  # and nothing of what it carries

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich, to which a struct shows all of it."""
        return [("call_id", self.call_id), ("method", self.entry.method.name)]

    def __copy__(self) -> NoReturn:
        """Refuse it, as every context does; a struct would be copied."""
        self.__reduce_ex__(4)

    @property
    def context(self) -> Context:
        """Itself."""
        return self

    def to_be_judged(self) -> Context:
        """Itself, with who is signed in now, until ``Entry`` has judged it: the credential of the call goes first."""
        if self.session.identity is not None:
            self.identity = self.session.identity
        return self

    def read_terms(self) -> None:
        """Take the deadline from what the request says and what the method allows."""
        given = self.metadata.deadline_ms
        self.deadline = self.entry.due(None if given is None else given / 1000)

    @property
    def peer(self) -> str:
        return self.session.peer

    @property
    def codec(self) -> str:
        return self.session.codec

    @property
    def version(self) -> int:
        return self.session.connection.version

    @property
    def method(self) -> Operation[Any, Any]:
        return self.entry.method

    @property
    def client(self) -> ConnectedClient:
        return self.session.client

    @property
    def draining(self) -> bool:
        return self.session.draining

    @property
    def holder(self) -> Holder:
        return self.session.holder

    def sign_in(self, identity: Identity) -> None:
        session = self.session
        identity.held_by(session.holder)
        with session.lock:
            signed_in = session.identity
            if signed_in is not None and signed_in is not identity and not signed_in.revoked:
                # Two log-ins in flight together: whichever comes second must not take the connection over.
                raise failure(
                    "ALREADY_SIGNED_IN",
                    f"this connection is signed in as {signed_in.subject}; sign out first, or open another one",
                )
            self.identity = session.identity = identity

    def sign_out(self) -> None:
        self.identity = self.session.identity = None

    def set_metadata(self, name: str, value: str) -> None:
        session = self.session
        with session.lock:
            said = with_entry(self.said or {}, name, value)
            if not self.answered:
                self.said = said
                session.set_metadata_locked(self, said)

    def run_blocking(self) -> None:
        """Run the handler on a follower; called by the pool."""
        self.run(True)

    def run(self, last: bool, leader: Worker | None = None) -> None:
        """Run the handler by the clock and settle what it gives; the ``last`` of a batch, and every one on a follower,
        flushes.
        """
        session, entry = self.session, self.entry
        self.started = True
        if session.identity is not None:
            self.identity = session.identity
        if leader is not None:
            leader.running = self
        outcome: Outcome = b""
        if not self.answered:  # else it expired or was cancelled in the queue: only its place is left to give back
            start = time.perf_counter()
            outcome = entry.run(self.payload, self)
            entry.pace.note(time.perf_counter() - start)
        if leader is not None:
            leader.running = None
        self.go_on(outcome, last)

    def go_on(self, outcome: Outcome, last: bool) -> None:
        """Settle what the handler gave, or go on with its deferred answer or stream."""
        session = self.session
        if isinstance(outcome, bytes | Packed | CallError):
            session.settle(self, outcome, last)
            self._answered_early()
            return
        if isinstance(outcome, Future):
            self.future = outcome
            if self.answered:
                outcome.cancel()
            outcome.add_done_callback(self.on_done)
        else:
            self._begin_stream(Pump(self, outcome))
        if last:
            session.flush()

    def _begin_stream(self, stream: Pump) -> None:
        session = self.session
        with session.lock:
            if self.answered:
                self.let_go_locked()
                stream.end_locked("the call was over before its stream began")
            else:
                self.stream = stream
                stream.wake_locked()
                session.stream_began_locked(self)

    def _answered_early(self) -> None:
        """If items followed, and whether or not all have come: nobody takes them any more."""
        if self.intake is not None:
            with self.session.lock:
                self.session.answered_locked(self)

    def let_go_locked(self) -> None:
        """Its handler is back: if the call was answered before, its owner does not wait for it any more."""
        if self.held:
            self.held = False
            self.session.came_back_locked(self)

    def expire_locked(self, refusal: Callable[[Retry], CallError]) -> None:
        """End it from outside its handler: cancelled, out of time, or shut down. If its handler still runs, the owner
        says when: too many of those would be more work than calls in flight are allowed.
        """
        self.cancelled = True
        if self.answered:
            return
        # ``run`` writes ``started`` and then reads ``answered``; we do it the other way round. So one of the two
        # sees the other: a call that is said to be not processed never runs, and no call needs the lock for that.
        self.answered = True
        session = self.session
        if not self.started:
            session.pool.withdraw(self)  # or calls that are over would fill the run queue
            session.send_error_locked(self, refusal(Retry.NOT_PROCESSED))
        elif self.stream is None and (self.intake is None or self.intake.holds_worker):
            self.held = True
            session.run_on_locked(self, refusal(Retry.MAYBE_PROCESSED))
        else:
            session.send_error_locked(self, refusal(Retry.MAYBE_PROCESSED))
        if self.intake is not None:
            self.intake.end_locked(refusal(Retry.MAYBE_PROCESSED))  # at once, if the frame waits
        self.drop_future_locked()

    def revoke_locked(self, identity: Identity) -> bool:
        """An identity was revoked: end the call if it was begun with that; whether it was."""
        if self.identity is not identity or self.entry.method.outlives_identity:
            return False
        self.expire_locked(identity_revoked)
        return True

    def drop_future_locked(self) -> None:
        """Nobody waits for the deferred answer any more."""
        if (future := self.future) is not None:
            # Posted, because cancelling runs the future's callbacks, the user's among them.
            self.session.pool.post(lambda worker: future.cancel())  # type: ignore[arg-type]

    def on_done(self, future: "Future[Any]") -> None:
        """A deferred answer is there: have the leader encode and send it, whichever thread completed it.

        The completing thread is often one that others wait for (a store's writer), so it does no system call on a
        socket.
        """
        if self.entry.packs:  # which takes its time
            self.session.pool.submit(_Finish(self), always=True)  # calls in flight are bounded
        else:
            self.session.pool.post(self.finish)

    def finish(self, worker: Worker | None = None) -> None:
        """Encode and send the deferred answer, which is there."""
        future = self.future
        if future is None:
            return
        outcome: Payload | CallError
        if future.cancelled():
            outcome = given_up()
        elif (error := future.exception()) is not None:
            outcome = self.entry.failure(error)
        else:
            outcome = self.entry.encode(future.result())
        self.session.settle(self, outcome)
        self._answered_early()
        self.session.flush_soon()


class _Finish:
    """A deferred answer whose encoding is not for the leader."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def run_blocking(self) -> None:
        self._call.finish()


class OneWayCall(Call):
    """A call that was over when it began: what its handler gives is nobody's but the log's."""

    def set_metadata(self, name: str, value: str) -> None:
        """Hold it to the rules; nobody is told."""
        self.said = with_entry(self.said or {}, name, value)

    def go_on(self, outcome: Outcome, last: bool) -> None:
        """Its handler has returned."""
        self.session.one_way_over(self, outcome if isinstance(outcome, CallError) else None)


def expire_overdue_locked(calls: Iterable[Call], now: float) -> tuple[bool, float]:
    """End those of one session whose deadline is up: whether there were any, and the soonest deadline of the rest,
    ``math.inf`` without one.
    """
    overdue, soonest = [], math.inf
    for call in calls:
        deadline = call.deadline
        if deadline is not None and not call.answered:  # it may be, if its terminal frame waits
            if deadline <= now:
                overdue.append(call)
            elif deadline < soonest:
                soonest = deadline
    for call in overdue:
        call.expire_locked(late)
    return bool(overdue), soonest
