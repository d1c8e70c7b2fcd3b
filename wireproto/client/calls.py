"""What threads wait for on a link: the answer of a call, a place for one more, a PONG."""

import math
import time
from _thread import LockType
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from wireproto.errors import CallError, WireprotoError
from wireproto.reasons import failure
from wireproto.status import Retry
from wireproto.wire.frame import U32_MAX

__all__ = [
    "ClientCall",
    "CallFuture",
    "FutureCall",
    "PreparedCall",
    "StreamCall",
    "Waiter",
    "milliseconds_until",
    "timed_out",
]

Resp = TypeVar("Resp")


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
    error: WireprotoError | None = None
    gate: LockType | None = None
    leads = False


class ClientCall(Waiter):
    """A call in flight.

    Attributes:
        call_id: 0 until it was sent.
        payload: of the RESPONSE.
    """

    call_id = 0
    payload = b""


class PreparedCall(ClientCall):
    """A call with its request encoded, to be sent together with others.

    Attributes:
        opcode: of the method.
        request: the payload to send.
        metadata: the block to send.
    """

    opcode = 0
    request = b""
    metadata = b""


class StreamCall(ClientCall):
    """A stream in flight. ``done`` means that there are items or that it is over.

    Attributes:
        items: payloads received and not yet asked for; at most the credit granted.
        over: no more will come; ``error`` says why, None being its proper end.
    """

    over = False

    def __init__(self) -> None:
        self.items: deque[bytes] = deque()


class FutureCall(ClientCall):
    """A call whose answer goes to a future; the keeper completes it, so that its callbacks hold up no caller.

    Args:
        decode: makes the result of the future out of the payload.
        deadline: as below; None for none.

    Attributes:
        deadline: point in time by ``time.monotonic``; ``math.inf`` for none.
    """

    def __init__(self, decode: Callable[[bytes], Any], deadline: float | None) -> None:
        self._decode = decode
        self.deadline = math.inf if deadline is None else deadline
        self.future: CallFuture[Any] = CallFuture(self)

    def complete(self) -> None:
        """Give the future its result. Called once, without any lock."""
        future = self.future
        if not future.set_running_or_notify_cancel():
            return
        if self.error is not None:
            future.set_exception(self.error)
            return
        try:
            response = self._decode(self.payload)
        except WireprotoError as error:
            future.set_exception(error)
        else:
            future.set_result(response)


class CallFuture(Future[Resp]):
    """The future of a call. ``cancel`` tells the server that nobody wants the answer any more."""

    def __init__(self, call: FutureCall) -> None:
        super().__init__()
        self._call = call
        self._give_up: Callable[[FutureCall], bool] | None = None

    def sent(self, give_up: Callable[[FutureCall], bool]) -> None:
        """Note how to give the call up: ``Link.cancel`` of the link that it was sent over."""
        self._give_up = give_up

    def cancel(self) -> bool:
        """Cancel the call unless it is answered; the server is told, and may have run it all the same.

        Returns:
            Whether it is cancelled.
        """
        if not super().cancel():
            return False
        if self._give_up is not None and self._give_up(self._call):
            # Taken out of the link before it was answered, so nobody else will say so.
            self.set_running_or_notify_cancel()
        return True


def timed_out(timeout_text: str, retry: Retry) -> CallError:
    """The error of a call whose time was up before its answer was there."""
    return failure("DEADLINE", timeout_text, retry=retry)


def milliseconds_until(deadline: float) -> int:
    """What ``deadline_ms`` says for a deadline: rounded up, at least 1, at most what the field holds."""
    left = math.ceil((deadline - time.monotonic()) * 1000)
    return 1 if left < 1 else left if left < U32_MAX else U32_MAX
