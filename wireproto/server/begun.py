"""One call that the server has begun: what it sends, who takes what comes back, and how it ends, exactly once.

A pump sends its items and an intake takes those of the client, as for a call that a client has begun, with the two
halves the other way round.
"""

import logging
import threading
from _thread import LockType
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from wireproto.answering.intake import HandedItems, Intake
from wireproto.answering.pace import Pace
from wireproto.answering.pool import Pool, Worker
from wireproto.answering.pump import Pump
from wireproto.binding import Binding, unpacked
from wireproto.connected import ItemReceiver
from wireproto.dispatch import Entry
from wireproto.errors import CallError, DecodeError, LocalProtocolError
from wireproto.futures import CallFuture
from wireproto.handling import Sink
from wireproto.schema import Message, Operation
from wireproto.status import Status
from wireproto.wire.answers import NOTHING_BESIDE
from wireproto.wire.frame import Credit
from wireproto.wire.metadata import Metadata
from wireproto.wire.packing import Packed, Payload

__all__ = ["BegunCall", "BegunFuture", "Called", "Incoming", "Unpacking", "refuse_workers"]

log = logging.getLogger("wireproto.server")

Item = TypeVar("Item", bound=Message)
T = TypeVar("T")


def refuse_workers(what: str) -> None:
    """Refuse to wait on a thread that runs handlers.

    Raises:
        LocalProtocolError: the calling thread is one.
    """
    if isinstance(threading.current_thread(), Worker):
        raise LocalProtocolError(f"a handler cannot wait for a client, which may never answer: {what}")


class Called(Entry):
    """A method as the server calls it: what a pump and an intake ask of an ``Entry``, with the halves changed over.

    Args:
        method: that clients answer.
        binding: in the connection's codec and version.
    """

    __slots__ = ("_binding",)

    def __init__(self, method: Operation[Any, Any], binding: Binding[Any, Any]) -> None:
        # Not the base's: that compiles handlers, and there is none here.
        self.method = method
        self.shape = method.shape
        self.flags = method.shape.flags
        self.collects = False
        self.sinks = True
        self.blocking = False
        self.packs = binding.packs
        self.timeout = method.timeout
        self.pace = Pace(False)
        self.alike = None  # there is one of each connection, so that what is kept by it would be kept for each
        self._binding = binding

    def encode(self, answer: object) -> "Payload | CallError":
        """A request, or an item to be sent. Never raises."""
        if type(answer) is not self.method.request:
            return self.failure(
                TypeError(f"{self.method.name} is sent {self.method.request.__name__}, not {type(answer).__name__}")
            )
        try:
            return self._binding.encode(answer)
        except Exception as error:  # noqa: BLE001 - whatever a codec raises belongs to the call
            return self.failure(error)

    def encode_shared(self, item: object) -> "Payload | CallError":
        """The same: the items of one call are no other's."""
        return self.encode(item)

    def failure(self, error: BaseException) -> CallError:
        """What ends the call when the application's own code has raised ``error``, which its future has."""
        if isinstance(error, CallError):
            return error
        made = CallError(Status.CANCELLED, "CANCELLED", f"the call was given up: {type(error).__name__}: {error}")
        made.__cause__ = error
        return made

    def incident(self, error: BaseException) -> CallError:
        """The same, of what a source raises when it is closed: the call is over, so that only the log is left."""
        log.error("closing what a call of %s was sent from failed", self.method.name, exc_info=error)
        return self.failure(error)

    def read(self, payload: Payload) -> Any:
        """The response, or an item that came back.

        Raises:
            CallError: DATA_LOSS, BAD_PAYLOAD: it is packed wrongly.
            DecodeError: it means no message of the method.
        """
        return self._binding.decode(unpacked(payload))

    def outcome(self, answer: object) -> bytes:
        """Nothing becomes of what a sink returns."""
        return b""


class BegunCalls(Protocol):
    """What a call asks of the connection's calls."""

    lock: LockType
    pool: Pool

    def give_up(self, call: "BegunCall", error: CallError | None) -> bool:
        """End the call, and tell the client; False when it was over."""


class BegunFuture(CallFuture[T]):
    """The future of a call that a server began."""

    def __init__(self, call: "BegunCall") -> None:
        super().__init__()
        self._call = call

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._call.said if self.done() else NOTHING_BESIDE.metadata

    def cancel(self) -> bool:
        """Cancel the call unless it is over; the client is told, and may have run it all the same."""
        if not super().cancel():
            return False
        self._call.session.give_up(self._call, None)
        return True

    def result(self, timeout: float | None = None) -> T:
        """See ``concurrent.futures.Future.result``; LocalProtocolError in a handler while there is none yet."""
        if not self.done():
            refuse_workers("return the future, or add a callback to it")
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See ``concurrent.futures.Future.exception``; LocalProtocolError in a handler while there is none yet."""
        if not self.done():
            refuse_workers("return the future, or add a callback to it")
        return super().exception(timeout)


class BegunCall(Sink[Any, Any]):
    """A call from the moment on that it was asked for. To its intake it is the sink, which passes on what comes.

    Attributes:
        session: the connection's calls.
        call_id: 0 while it waits for a place.
        entry: the method.
        payload: of the REQUEST.
        metadata: to be sent, the deadline and the credit left out.
        credit: what may come back at once; None where no items do.
        deadline: point in time by ``time.monotonic``.
        future: has the outcome.
        receiver: takes the items that come back; None when somebody iterates.
        source: gives the items to be sent; None when there are none.
        stream: sends them, once the call is in flight.
        intake: takes those that come back.
        answered: nobody wants anything more of it.
        said: what its response, or the end of what came back, said beside itself.
        started: for the intake: always.
        mark: where its REQUEST begins in the bytes that the kernel takes later than at once; None when it may be sent.
    """

    def __init__(
        self,
        session: Any,
        entry: Called,
        payload: Payload,
        metadata: Metadata,
        deadline: float,
    ) -> None:
        self.session = session
        self.call_id = 0
        self.entry = entry
        self.payload = payload
        self.metadata = metadata
        self.credit: Credit | None = None
        self.deadline = deadline
        self.future: BegunFuture[Any] = BegunFuture(self)
        self.receiver: ItemReceiver[Any] | None = None
        self.source: Any = None
        self.stream: Pump | None = None
        self.intake: Intake | None = None
        self.answered = False
        self.said = NOTHING_BESIDE.metadata
        self.started = True
        self._completed = False
        self.mark: int | None = None

    def request_metadata(self, milliseconds: int) -> Metadata:
        """What the REQUEST says beside its payload, with so much time left."""
        return msgspec.structs.replace(self.metadata, deadline_ms=milliseconds, credit=self.credit)

    # What an intake asks of a call; see ``owners.Fed``.

    @property
    def context(self) -> Any:
        """Nobody asks: what comes back was asked for."""
        return self

    def to_be_judged(self) -> Any:
        """The same."""
        return self

    def let_go_locked(self) -> None:
        """Nobody waits for its handler."""

    def go_on(self, outcome: object, last: bool) -> None:
        """What the sink returned is not looked at: ``finished`` and ``failed`` have told the future."""

    # As the sink of its intake.

    def receive(self, item: Any) -> Future[Any] | None:
        assert self.receiver is not None
        return self.receiver.receive(item)

    def finished(self) -> None:
        assert self.receiver is not None
        try:
            self.receiver.finished()
        except BaseException as error:  # noqa: BLE001 - whatever the application raises is its own future's
            self.complete(error=error)
        else:
            self.complete(None)

    def failed(self, error: CallError) -> None:
        assert self.receiver is not None
        try:
            self.receiver.failed(error)
        finally:
            self.complete(error=error)

    # Its end, once, without the lock.

    def complete(self, result: Any = None, error: BaseException | None = None) -> None:
        """Give the future its result."""
        if self._completed:
            return
        self._completed = True
        if not self.future.set_running_or_notify_cancel():
            return
        if error is not None:
            self.future.set_exception(error.__cause__ if _is_own(error) else error)
        else:
            self.future.set_result(result)

    def complete_with(self, payload: Payload) -> None:
        """Give the future the response."""
        try:
            response = self.entry.read(payload)
        except (CallError, DecodeError) as error:
            self.complete(error=error)
        else:
            self.complete(response)


def _is_own(error: BaseException) -> bool:
    """Whether it only stands for what the application's code has raised."""
    return isinstance(error, CallError) and error.reason == "CANCELLED" and error.__cause__ is not None


class Unpacking:
    """A response that is packed, and whose unpacking is not for the leader."""

    __slots__ = ("_call", "_payload")

    def __init__(self, call: BegunCall, payload: Packed) -> None:
        self._call = call
        self._payload = payload

    def run_blocking(self) -> None:
        """On a follower."""
        self._call.complete_with(self._payload)


class Incoming(Generic[Item]):
    """An iterator over the items that come back, for a thread of the application. One thread at a time iterates."""

    def __init__(self, call: BegunCall, items: HandedItems) -> None:
        self._call = call
        self._items = items
        self._over = False

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the client said beside the end of its items, by name; empty before that, and for nothing."""
        return self._call.said if self._over else NOTHING_BESIDE.metadata

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._over:
            raise StopIteration
        refuse_workers("give a sink, which takes the items as they come")
        try:
            item: Item = next(self._items)
        except CallError as error:
            self.close()
            if _is_own(error) and error.__cause__ is not None:
                raise error.__cause__ from None
            raise
        except BaseException:
            self.close()
            raise
        return item

    def close(self) -> None:
        """Cancel the call; nothing happens if it is over."""
        self._over = True
        self._call.session.give_up(self._call, None)

    def __del__(self) -> None:
        if not self._over:
            # Finalizers may run anywhere, so this one takes no lock.
            self._call.session.pool.post(lambda worker, call=self._call: call.session.give_up(call, None))
