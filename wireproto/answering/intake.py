"""What the caller sends of a call whose items follow: given to a sink turn by turn, or to a handler that iterates.

A sink holds no thread while nothing moves. One state per call, under its owner's lock: IDLE, SCHEDULED (somebody will
run it), RUNNING (somebody does), AGAIN (something came meanwhile: run once more), AWAITING (a future of the sink's is
not done), OVER. So no two threads run one sink, nothing that came is overlooked, and the sink is told the end once.

An iterating handler holds a worker from the first item on, so that it is given one only then.

Payloads wait here as they came: they are decoded by whoever runs the sink or the handler, never under the lock.
"""

import abc
import enum
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from wireproto.answering.owners import Fed
from wireproto.answering.pool import Worker
from wireproto.answering.refusals import cancelled
from wireproto.answering.watch import STUCK
from wireproto.dispatch import Outcome
from wireproto.errors import CallError
from wireproto.handling import Sink, Subscription
from wireproto.reasons import failure
from wireproto.schema import Shape
from wireproto.wire.packing import Payload

__all__ = ["HandedItems", "Intake", "ReceivedItems", "intake_of"]

TURN = 64
"""Items given to one sink before others have their turn."""


class _Feeding(enum.Enum):
    IDLE = enum.auto()
    SCHEDULED = enum.auto()
    RUNNING = enum.auto()
    AGAIN = enum.auto()
    AWAITING = enum.auto()
    OVER = enum.auto()


_IDLE, _SCHEDULED, _RUNNING, _AGAIN, _AWAITING, _OVER = _Feeding


def intake_of(call: Fed) -> "Intake":
    """What takes the items of a call, by what its method is registered with."""
    return _ToSink(call) if call.entry.sinks else _ToIterator(call)


class Intake(abc.ABC):
    """The items of one call on their way to whoever takes them.

    Args:
        call: whose items they are.

    Attributes:
        owed_items, owed_bytes: taken since the owner was last told that more may be sent; the owner sets them back.
    """

    __slots__ = (
        "_admitted",
        "_call",
        "_complete",
        "_end",
        "_last_word",
        "_session",
        "_waiting",
        "owed_bytes",
        "owed_items",
    )

    def __init__(self, call: Fed) -> None:
        self.owed_items = 0
        self.owed_bytes = 0
        self._call = call
        self._session = call.session
        self._waiting: deque[Payload] = deque()
        self._admitted = False
        self._complete = False
        self._end: CallError | None = None  # at once: what waits is nobody's any more
        self._last_word: CallError | None = None  # behind what waits

    @property
    def waits(self) -> bool:
        """Whether items wait to be taken."""
        return bool(self._waiting)

    @property
    def complete(self) -> bool:
        """Whether all items have come."""
        return self._complete

    @property
    @abc.abstractmethod
    def holds_worker(self) -> bool:
        """Whether a thread runs the handler or the sink now."""

    def begin_locked(self) -> None:
        """The call begins: judge it, before anything of it has come."""
        self._wake_locked()

    def put_locked(self, payload: Payload) -> None:
        """One more item has come."""
        if self._end is None and not self._call.answered:
            self._waiting.append(payload)
            self._wake_locked()

    def complete_locked(self, error: CallError | None = None) -> None:
        """All items have come that will; with an error, that is told behind them."""
        self._complete = True
        self._last_word = error
        self._wake_locked()

    def end_locked(self, error: CallError) -> None:
        """The call is over, by whatever ``error`` says; nobody takes what waits."""
        if self._end is None:
            self._end = error
            self._waiting.clear()
            if not (self._untouched_locked() and self._session.pool.withdraw_pull(self, self._session.peer)):
                self._wake_locked()

    @abc.abstractmethod
    def _untouched_locked(self) -> bool:
        """Whether nobody has heard of the call yet, so that nobody is to be told of its end."""

    @abc.abstractmethod
    def run_blocking(self) -> None:
        """Go on with it on a follower; called by the pool."""

    def answered_locked(self) -> None:
        """The call is answered, whether all items have come or not; nobody takes what waits."""
        self._waiting.clear()
        self._wake_locked()

    @abc.abstractmethod
    def _wake_locked(self) -> None:
        """There is something new to look at."""

    def _judge(self) -> bool:
        """Whether the call may run; if not, it is answered."""
        if not self._admitted:
            if self._call.answered:
                return False
            refusal = self._call.entry.admit(self._call.to_be_judged())
            if refusal is not None:
                self._session.settle(self._call, refusal, True)
                return False
            self._admitted = True
            with self._session.lock:
                self._session.admitted_locked(self._call)
        return True


class _ToSink(Intake):
    """Turns of a sink: on the leader if it is quick, else on followers."""

    __slots__ = ("_awaited", "_collected", "_future", "_sink", "_state")

    def __init__(self, call: Fed) -> None:
        super().__init__(call)
        self._state = _IDLE
        self._sink: Sink[Any, Any] | None = None
        self._future: Future[Any] | None = None  # what the sink gave for the item it took last
        self._awaited = 0  # bytes of that item, which is not taken before the future is done
        self._collected = 0  # bytes of the items that are kept until all have come

    @property
    def holds_worker(self) -> bool:
        return self._state is _RUNNING or self._state is _AGAIN

    def _untouched_locked(self) -> bool:
        return self._sink is None

    def _wake_locked(self) -> None:
        if self._state is _IDLE:
            self._schedule()
        elif self._state is _RUNNING:
            self._state = _AGAIN
        elif self._state is _AWAITING and self._end is not None and self._future is not None:
            # Posted, because cancelling runs the future's callbacks, the user's among them.
            self._session.pool.post(partial(_give_up, self._future))

    def _schedule(self) -> None:
        self._state = _SCHEDULED
        pool = self._session.pool
        if self._call.entry.pace.may_lead(pool.short) and not (self._waiting and _packed(self._waiting[0])):
            pool.post(self._turn)
        else:
            pool.submit_pull(self, self._session.peer)

    def run_blocking(self) -> None:
        """A turn on a follower; called by the pool."""
        try:
            self._turn()
        finally:
            self._session.pool.pull_ended(self._session.peer)

    def _turn(self, worker: Worker | None = None) -> None:
        self._go_on(worker is not None)
        if worker is not None and self._session.pool.leader is not worker:
            self._call.entry.pace.note(STUCK)  # deposed: the turn took at least so long

    def _go_on(self, leads: bool) -> None:
        with self._session.lock:
            self._state = _RUNNING
        try:
            if not self._open():
                return self._over()
            items, size, awaited = self._give(leads)
        except BaseException as error:  # noqa: BLE001 - whatever a sink raises ends its call only
            self._fail(self._call.entry.failure(error))
            return None
        with self._session.lock:
            self.owed_items += items
            self.owed_bytes += size
            if items and not self._call.answered:
                self._session.taken_locked(self._call)
            if awaited is not None:
                self._state, self._future = _AWAITING, awaited
                self._call.let_go_locked()
                if self._end is not None:  # it came while the sink took the item
                    self._session.pool.post(partial(_give_up, awaited))
            elif self._end is None and not self._call.answered and not (self._complete and not self._waiting):
                if self._waiting or self._state is _AGAIN:
                    self._schedule()
                else:
                    self._state = _IDLE
                return None
        if awaited is not None:
            awaited.add_done_callback(self._received)
            return None
        return self._over()

    def _open(self) -> bool:
        """Make the sink, in the first turn; False when the call is over before that."""
        call = self._call
        if self._sink is not None:
            return True
        if not self._judge():
            return False
        # First: whoever ends the call from now on says that it may have been processed. If it is over before, nobody is
        # asked for a sink.
        call.started = True
        if call.answered:
            return False
        with self._timed():
            sink = call.entry.open(call.context)
        if isinstance(sink, CallError):
            self._session.settle(call, sink, True)
            return False
        sink.answer = self._answer if call.entry.shape is Shape.UPLOAD else _no_early_answer
        self._sink = sink
        if isinstance(sink, Subscription):
            call.go_on(sink, True)
        return True

    def _give(self, leads: bool) -> tuple[int, int, Future[Any] | None]:
        """Give the sink up to a turn's worth of items: how many it took, their bytes, and a future to wait for.

        The leader stops in front of one that is packed; its next turn is a follower's.
        """
        sink, entry, waiting = self._sink, self._call.entry, self._waiting
        assert sink is not None
        taken = taken_bytes = 0
        if (future := self._future) is not None:
            self._future = None
            if self._end is None or not future.cancelled():  # else it was given up here, and the end is the call's
                future.result(0)  # raises what became of the item that was waited for
                taken, taken_bytes = 1, self._awaited
        items = size = tried = 0
        began = time.perf_counter()
        try:
            while items < TURN and self._end is None and not self._call.answered:
                try:
                    payload = waiting.popleft()
                except IndexError:
                    break
                if leads and _packed(payload):
                    waiting.appendleft(payload)
                    break
                tried += 1
                self._collect(len(payload))
                future = sink.receive(entry.read(payload))
                if future is not None:
                    if not future.done():
                        self._awaited = len(payload)
                        return taken + items, taken_bytes + size, future
                    future.result(0)
                items += 1
                size += len(payload)
        finally:
            if tried:
                entry.pace.note((time.perf_counter() - began) / tried)
        return taken + items, taken_bytes + size, None

    def _collect(self, size: int) -> None:
        """Count what is kept until all has come: its credit goes back, so that the window does not bound it.

        Raises:
            CallError: it is more than a window.
        """
        entry = self._call.entry
        if entry.collects:
            self._collected += size
            if self._collected > (most := self._session.collect_bytes):
                text = f"{entry.method.name} takes at most {most} bytes in one call"
                raise failure("REQUEST_TOO_LARGE", text)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Keep how long the user's code takes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._call.entry.pace.note(time.perf_counter() - began)

    def _received(self, future: Future[Any]) -> None:
        """The future of an item is done, on whatever thread."""
        with self._session.lock:
            self._schedule()

    def _over(self) -> None:
        """No more items come: tell the sink, once."""
        call, session, sink = self._call, self._session, self._sink
        with session.lock:
            if self._state is _OVER:
                return
            self._state = _OVER
            error = self._end or self._last_word
        outcome: Outcome = b""
        if sink is not None:
            try:
                with self._timed():
                    if error is not None:
                        sink.failed(error)
                    else:
                        answer = sink.finished()
                        outcome = b"" if isinstance(sink, Subscription) else call.entry.outcome(answer)
            except BaseException as problem:  # noqa: BLE001 - whatever a sink raises ends its call only
                outcome = call.entry.failure(problem)
        if call.answered:
            with session.lock:
                call.let_go_locked()
        elif isinstance(outcome, CallError) or not isinstance(sink, Subscription | None):
            call.go_on(outcome, True)

    def _fail(self, error: CallError) -> None:
        """The sink, or an item, ends the call."""
        self._session.settle(self._call, error, True)
        with self._session.lock:
            self.end_locked(error)
        self._over()

    def _answer(self, response: Any) -> None:
        """``Sink.answer``: before all items have come, from any thread."""
        self._call.go_on(self._call.entry.encode(response), False)
        self._session.flush_soon()


def _packed(payload: Payload) -> bool:
    return type(payload) is not bytes


def _no_early_answer(response: Any) -> None:
    raise TypeError("a duplex call is answered by its Subscription; Sink.answer is for uploads")


def _give_up(future: Future[Any], worker: Worker) -> None:
    future.cancel()


class _ToIterator(Intake):
    """An iterator over the items for a handler on a worker of its own."""

    __slots__ = ("_news", "_submitted")

    def __init__(self, call: Fed) -> None:
        super().__init__(call)
        self._news = threading.Condition(self._session.lock)
        self._submitted = False

    @property
    def holds_worker(self) -> bool:
        return True  # from the moment on that it has begun

    def _untouched_locked(self) -> bool:
        return not self._call.started

    def _wake_locked(self) -> None:
        if self._submitted:
            self._news.notify_all()
        elif not self._admitted or self._waiting or self._complete:
            self._submitted = True
            self._session.pool.submit_pull(self, self._session.peer)

    def run_blocking(self) -> None:
        """Judge the call, or run its handler; called by the pool."""
        try:
            self._run()
        finally:
            self._session.pool.pull_ended(self._session.peer)

    def _run(self) -> None:
        call, session = self._call, self._session
        if not self._judge():
            return
        with session.lock:
            if not self._waiting and not self._complete and self._end is None:
                self._submitted = False  # nothing has come yet: a worker is not held for that
                return
        call.started = True
        if call.answered:
            session.settle(call, b"", True)  # it was ended just now, as one whose handler runs: it does not
            return
        outcome = call.entry.run_items(self, call.context)
        call.go_on(outcome, True)

    def _nothing_came(self) -> bool:
        """Whether there is still nothing to wake up for: it may have come just behind the end of the wait."""
        return not (self._waiting or self._complete or self._end is not None or self._call.answered)

    def __iter__(self) -> "_ToIterator":
        return self

    def __next__(self) -> Any:
        session, call = self._session, self._call
        patience = min(session.item_timeout, threading.TIMEOUT_MAX)
        with session.lock:
            while not self._waiting:
                if self._end is not None:
                    raise self._end.with_traceback(None)
                if call.answered:
                    raise cancelled()
                if self._complete:
                    if self._last_word is not None:
                        raise self._last_word.with_traceback(None)
                    raise StopIteration
                if not self._news.wait(patience) and self._nothing_came():
                    raise failure("ITEM_TIMEOUT", f"the caller sent no item for {patience:g} s, though it may send one")
            payload = self._waiting.popleft()
            self.owed_items += 1
            self.owed_bytes += len(payload)
            session.taken_locked(call)
        return call.entry.read(payload)


class ReceivedItems(_ToSink):
    """Turns of a sink that is there from the beginning, and is told the end of the call whatever becomes of it."""

    __slots__ = ()

    def __init__(self, call: Fed, sink: Sink[Any, Any]) -> None:
        super().__init__(call)
        self._sink = sink
        self._admitted = True


class HandedItems(_ToIterator):
    """An iterator over the items for a thread that is none of the pool's."""

    __slots__ = ()

    def __init__(self, call: Fed) -> None:
        super().__init__(call)
        self._submitted = True  # there is no handler to be given a worker
        self._admitted = True
