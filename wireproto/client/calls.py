"""What threads and futures wait for on a link: the answer of a call, a place for one more, a PONG."""

import math
import time
from _thread import LockType
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from wireproto.binding import Dialect, unpacked
from wireproto.client.guard import inside, made_before_fork, refuse_interrupter
from wireproto.client.keeper import the_keeper
from wireproto.errors import CallError, WireprotoError
from wireproto.futures import CallFuture
from wireproto.reasons import failure
from wireproto.schema import Message, Method
from wireproto.status import Retry
from wireproto.wire.answers import NOTHING_BESIDE
from wireproto.wire.frame import U32_MAX, Credit
from wireproto.wire.packing import Packed, Payload

__all__ = [
    "AnswerPacked",
    "LinkFuture",
    "ClientCall",
    "DuplexCall",
    "EarlyCall",
    "Flagged",
    "FutureCall",
    "ItemBehind",
    "ItemCall",
    "Place",
    "PreparedCall",
    "StreamCall",
    "Taker",
    "UploadCall",
    "Waiter",
    "milliseconds_until",
    "timed_out",
]

Resp = TypeVar("Resp")
T = TypeVar("T")


class Waiter:
    """Something a thread waits for. All of it belongs to the lock of the link.

    The values of the class are what an instance begins with: most calls live for one exchange, and setting six
    attributes would cost more than waking up does.

    Attributes:
        done: there is something to look at: an answer, an item, an error.
        error: what went wrong; None while nothing has.
        gate: held by the thread that sleeps on it, released by whoever wakes it; None when nobody sleeps.
        leads: the thread was woken to take the lead and not, or not only, because of ``done``.
    """

    done = False
    error: Exception | None = None
    gate: LockType | None = None
    leads = False


class AnswerPacked(Exception):
    """In the place of an error of a call: its answer is there, and packed. So no other answer is asked what it is.

    Args:
        payload: of the RESPONSE.
    """

    def __init__(self, payload: Packed) -> None:
        super().__init__(payload)
        self._payload = payload

    def decode(self, decode: Callable[[bytes], T]) -> T:
        """The response, on the thread that wants it.

        Raises:
            CallError: DATA_LOSS, BAD_PAYLOAD: it is packed wrongly. And whatever ``decode`` raises.
        """
        return decode(unpacked(self._payload))


class Place(Waiter):
    """A place on a link that a thread waits for; ``done`` means that it was granted, or refused with an ``error``.

    Attributes:
        ticket: its turn among all that wait for one.
    """

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket


class ClientCall(Waiter):
    """A call in flight.

    Attributes:
        call_id: 0 until it was sent.
        payload: of the RESPONSE.
        beside: what the answer said beside it.
    """

    call_id = 0
    payload = b""
    beside = NOTHING_BESIDE


class PreparedCall(ClientCall):
    """A call with its request encoded, to be sent together with others.

    Attributes:
        opcode: of the method.
        request: the payload to send.
        metadata: the block to send.
    """

    opcode = 0
    request: Payload = b""
    metadata = b""


class EarlyCall(ClientCall):
    """A unary call that goes together with HELLO, if there is to be one.

    Attributes:
        opcode: of the method.
        request: the payload to send, which is never packed: no algorithm was agreed on yet.
        block: makes the block of metadata, when the request is sent.
        in_doubt: HELLO was sent with it, and the connection was lost before anybody heard what became of it.
    """

    in_doubt = False

    def __init__(self, opcode: int, request: bytes, block: Callable[[], bytes]) -> None:
        self.opcode = opcode
        self.request = request
        self.block = block


class Flagged(NamedTuple):
    """What the REQUEST of a call that is not unary says beside the rest.

    Attributes:
        flags: of the shape of its method.
        credit: what its metadata grant to the items that come back; None if none do.
    """

    flags: int
    credit: Credit | None = None


class ItemCall(ClientCall):
    """A call with a half that is a stream. The server is always told when it is given up, for it might never end."""


class ItemBehind(NamedTuple):
    """An item before which others were left out.

    Attributes:
        payload: its own.
        dropped: how many.
    """

    payload: Payload
    dropped: int


class UploadCall(ItemCall):
    """An upload in flight. ``done`` means that there is credit, or room in the output, or that it is over."""


class StreamCall(ItemCall):
    """A stream in flight. ``done`` means that there are items or that it is over.

    Attributes:
        items: payloads received and not yet asked for; at most the credit granted, and one item more than its bytes.
            One before which others were left out is an ``ItemBehind``.
        over: no more will come; ``error`` says why, None being its proper end.
    """

    over = False

    def __init__(self) -> None:
        self.items: deque[Payload | ItemBehind] = deque()


class DuplexCall(StreamCall):
    """A call with two streams in flight.

    Attributes:
        sender: what the thread that sends waits for; None if the thread that iterates sends as well, so that ``done``
            also means that there is credit or room in the output.
    """

    sender: Waiter | None = None


class FutureCall(PreparedCall):
    """A call whose answer goes to a future; the keeper completes it, so that its callbacks hold up no caller.

    Args:
        method: to call.
        message: the request. It is kept until it was sent, for the connection that takes it may speak another version.
        block: makes the block of metadata, when the request is sent.
        deadline: as below; None for none.
        wait, queue: as below.

    Attributes:
        method: as given.
        deadline: point in time by ``time.monotonic``; ``math.inf`` for none.
        wait: whether it waits for a connection for as long as it takes, and not for one attempt only.
        queue: where it waits, if it does.
        ticket: its turn among those that wait for a place.
        future: what ``start`` returns.
        link: the link that took it; None before.
        completed: the future has its result.
    """

    ticket = 0
    completed = False
    link: "Taker | None" = None
    _decode: Callable[[bytes], Any]
    _dialect: Dialect | None = None

    def __init__(
        self,
        method: Method[Any, Any],
        message: Message,
        block: Callable[[], bytes],
        deadline: float | None,
        wait: bool,
        queue: "Taker",
    ) -> None:
        self.queue = queue
        self.method = method
        self._message: Message | None = message
        self._block = block
        self.deadline = math.inf if deadline is None else deadline
        self.wait = wait
        self.future: LinkFuture[Any] = LinkFuture(self)

    def prepare(self, dialect: Dialect) -> None:
        """Write the request as ``dialect`` speaks, unless it is written so already, and the metadata as it is now.

        Raises:
            EncodeError, CallError, LocalProtocolError: it cannot be written, or the method is not there.
        """
        if self._dialect is not dialect:
            binding = dialect.bind(self.method)
            assert self._message is not None
            self.request = binding.encode(self._message)
            self.opcode = binding.opcode
            self._decode = binding.decode
            self._dialect = dialect
        self.metadata = self._block()

    def sent(self, link: "Taker") -> None:
        """Note that ``link`` has the request: it is not needed any more."""
        self.link = link
        self._message = None
        self.request = self.metadata = b""

    def fail(self, error: Exception) -> None:
        """Fail the call, which was not sent, on the thread that calls this."""
        self.error = error
        self.complete()

    def complete(self) -> None:
        """Give the future its result. Called once, without any lock."""
        future = self.future
        if not future.set_running_or_notify_cancel():
            return
        error = self.error
        if error is not None and not isinstance(error, AnswerPacked):
            future.set_exception(error)
        else:
            try:
                response = self._decode(self.payload) if error is None else error.decode(self._decode)
            except WireprotoError as error:
                future.set_exception(error)
            else:
                future.set_result(response)
        self.completed = True


class Taker(Protocol):
    """What a future asks of the link that took its call, and of the queue in which the call waits before."""

    def cancel(self, call: FutureCall) -> bool:
        """Give the call up, and tell the server if it has it; False when the call is not there."""


class LinkFuture(CallFuture[Resp]):
    """The future of a call over a link.

    A thread that waits for it can be interrupted by a signal handler like one in a call, and the same holds for the
    handler: it cannot use a client, nor wait for a future.
    """

    def __init__(self, call: FutureCall) -> None:
        super().__init__()
        self._call = call
        self._process = the_keeper()

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._call.beside.metadata

    def result(self, timeout: float | None = None) -> Resp:
        """See ``concurrent.futures.Future.result``; LocalProtocolError where nobody could complete it."""
        return self._wait(super().result, timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See ``concurrent.futures.Future.exception``; LocalProtocolError where nobody could complete it."""
        return self._wait(super().exception, timeout)

    @inside
    def _wait(self, look: Callable[[float | None], T], timeout: float | None) -> T:
        if self._process is not the_keeper() and not self._call.completed:
            raise made_before_fork("a call that was begun")
        return look(timeout)

    def cancel(self) -> bool:
        """Cancel the call unless it is answered; the server is told, and may have run it all the same.

        Returns:
            Whether it is cancelled.

        Raises:
            LocalProtocolError: a signal handler interrupted a client here.
        """
        refuse_interrupter()
        if not super().cancel():  # this runs the callbacks, which may call
            return False
        if self._give_up():
            # Taken out before it was answered, so nobody else will say so.
            self.set_running_or_notify_cancel()
        return True

    @inside
    def _give_up(self) -> bool:
        call = self._call
        # A link notes itself in the call before the call leaves the queue.
        return call.queue.cancel(call) or (call.link is not None and call.link.cancel(call))


def timed_out(timeout_text: str, retry: Retry) -> CallError:
    """The error of a call whose time was up before its answer was there."""
    return failure("DEADLINE", timeout_text, retry=retry)


def milliseconds_until(deadline: float) -> int:
    """What ``deadline_ms`` says for a deadline: rounded up, at least 1, at most what the field holds."""
    left = math.ceil((deadline - time.monotonic()) * 1000)
    return 1 if left < 1 else left if left < U32_MAX else U32_MAX
