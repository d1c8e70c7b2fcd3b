"""What a handler is given and what it may give: the context of its call, a subscription for items, a sink for items.

All three are for authors of services, to use and to derive from. ``dispatch`` and the doors run them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from wireproto.connected import ConnectedClient
from wireproto.errors import (
    CallError,
    DeclarationError,
    LocalProtocolError,
)
from wireproto.identity import Holder, Identity
from wireproto.resuming import position_lost
from wireproto.schema import (
    Message,
    Operation,
    Positions,
    StreamMethod,
)
from wireproto.status import Retry, Status
from wireproto.uncopied import Uncopied
from wireproto.wire.metadata import Metadata

__all__ = ["UNGUARDED", "Context", "Sink", "Subscription"]

UNGUARDED: AbstractContextManager[object] = nullcontext()
"""The ``giving`` of a source that takes no item back."""

Item = TypeVar("Item", bound=Message)
Result = TypeVar("Result")  # a message, or None


class Context(Uncopied):
    """What a handler may know and do beside its request. One per call; made by the door the call came through.

    Attributes:
        metadata: what the caller sent along.
        identity: who is calling, or None.
        deadline: the point in time, by ``time.monotonic``, at which the caller stops waiting; None without one.
        cancelled: whether the caller is gone or has cancelled; a long handler looks at it now and then.
    """

    # No abstract base class: its metaclass would be at odds with that of the struct which the TCP server makes of every
    # call. Its slots are empty, for each door has these attributes in its way; a checker would want them here.
    if not TYPE_CHECKING:
        __slots__ = ()

    metadata: Metadata
    identity: Identity | None
    deadline: float | None
    cancelled: bool

    def __init_subclass__(cls) -> None:
        """Refuse a door that forgot what is left to it, when its class is made.

        Raises:
            DeclarationError: the class lacks one of the members that only raise here.
        """
        super().__init_subclass__()
        for name in ("peer", "codec", "version", "method", "sign_in", "sign_out", "draining", "set_metadata"):
            if getattr(cls, name) is getattr(Context, name):
                raise DeclarationError(f"{cls.__name__} is a Context without {name}; define it, as each door does")

    @property
    def peer(self) -> str:
        """The caller's address, for logs: ``host:port``."""
        raise NotImplementedError

    @property
    def codec(self) -> str:
        """The name of the codec the call came in."""
        raise NotImplementedError

    @property
    def version(self) -> int:
        """The service version the caller speaks."""
        raise NotImplementedError

    @property
    def method(self) -> Operation[Any, Any]:
        """The method that is being called."""
        raise NotImplementedError

    @property
    def draining(self) -> bool:
        """Whether the server closes: an iterator that has no end of its own ends now, well, or is ended later."""
        raise NotImplementedError

    @property
    def holder(self) -> Holder | None:
        """For doors: who ends the call when its identity is revoked; None where nobody does."""
        return None

    @property
    def client(self) -> ConnectedClient:
        """The client that called, to call it in turn: it may be kept for as long as it is connected.

        Raises:
            CallError: FAILED_PRECONDITION, so that the call fails: it came over gRPC, which has no calls of a server.
            LocalProtocolError: this is the client's side, whose server serves.
        """
        raise LocalProtocolError("who called cannot be called: gRPC has no calls of a server, and a server serves")

    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0.0; None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def abort(
        self,
        status: Status,
        reason: str = "",
        message: str = "",
        *,
        retry: Retry = Retry.NEVER,
        retry_after_ms: int = 0,
        details: Message | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> NoReturn:
        """End the call without an answer.

        Args:
            status: any but OK.
            reason: UPPER_SNAKE, one of the method's declared ``reasons``, or empty.
            message: for people; say what to do.
            retry: whether the caller may send the call again.
            retry_after_ms: how long it should wait before that; 0 when nothing is known.
            details: what programs may need to know beside the reason, a message of one of the method's declared
                ``errors``. Left out where it does not fit: above 4,096 bytes with its name, above 7,168 with the
                metadata, or above the largest frame that the caller accepts.
            metadata: what to say beside the error, as by ``set_metadata``.

        Raises:
            CallError: always, but for
            ValueError: the status is OK: return the response instead.
            TypeError: an argument is of another type.
            EncodeError: the metadata cannot be sent.
        """
        error = CallError(status, reason, message, retry=retry, retry_after_ms=retry_after_ms, details=details)
        for name, value in (metadata or {}).items():
            self.set_metadata(name, value)
        raise error

    def set_metadata(self, name: str, value: str) -> None:
        """Say something beside the answer: with the response, the end of a stream, or the error of the call.

        It travels behind all else, as trailing metadata over gRPC; a one-way call has no answer and nothing is sent.
        From any thread, until the call is answered; behind that nothing happens. A second value for a name replaces the
        first one.

        Args:
            name: 1 to 64 characters of ``a-z 0-9 . _ -``, none that gRPC has a use of its own for; ``traceparent`` for
                a W3C trace context.
            value: any text.

        Raises:
            EncodeError: the name or the value cannot be sent, or all entries together count more than 7,168 bytes, each
                with 32 beside its name and its value; of a value that is not printable ASCII three bytes count four.
        """
        raise NotImplementedError

    @property
    def resume_after(self) -> Any:
        """The position of the last item that the caller has: an int, a str or bytes, as the field that the method's
        ``resumable`` names. None for a caller that begins, and in a method that is not resumable.

        It is what a stranger says: whether this caller may see what is behind it is for the handler to look at. A
        handler that cannot go on behind it calls ``position_lost``.
        """
        method, written = self.method, self.metadata.resume_after
        if not written or not isinstance(method, StreamMethod) or method.resumable is None:
            return None
        return Positions(method.response, method.resumable).read(written)

    def position_lost(self, message: str = "") -> NoReturn:
        """End the call because the stream cannot go on behind ``resume_after``; before it has given an item.

        A client that follows the stream begins it anew, and tells its program of the gap.

        Args:
            message: for people; "" for one that says so.

        Raises:
            CallError: always: OUT_OF_RANGE, POSITION_LOST, not processed.
        """
        raise position_lost(message)

    def sign_in(self, identity: Identity) -> None:
        """Bind ``identity`` to the connection for its later calls. Does nothing over gRPC, where each call signs.

        Raises:
            CallError: FAILED_PRECONDITION, ALREADY_SIGNED_IN: the connection has another identity; sign out first.
        """
        raise NotImplementedError

    def sign_out(self) -> None:
        """Take the connection's identity away again; later calls have none of their own."""
        raise NotImplementedError


class Subscription(Uncopied, Generic[Item]):
    """A stream whose items come when they come, without holding a thread. Subclass it and return one from a handler.

    ``wake`` is set by the server before anything else is called; call it, from any thread, whenever ``take`` may have
    something to give. The server calls ``take`` from one thread at a time, and ``close`` last.
    """

    wake: Callable[[], None] = staticmethod(lambda: None)

    giving: AbstractContextManager[object] = UNGUARDED
    """The server enters it before ``take`` and leaves it once the items are encoded and, over TCP, in the connection's
    output. A source that can take an item back puts a lock of its own here. Whoever holds that lock knows that no item
    is on its way between ``take`` and the output, if ``keep`` gives none back."""

    def take(self, n: int) -> Sequence[Item]:
        """Up to ``n`` items, at once; empty when there is nothing yet.

        One item may be given to any number of subscriptions: it is encoded once per codec and version. So an item must
        not be changed any more, which only those with a list or a dict in them can be.

        Raises:
            StopIteration: the stream is over.
            CallError: the stream fails with that status.
        """
        raise NotImplementedError(f"{type(self).__name__} must define take(self, n)")

    dropped = 0
    """How many items were left out ahead of those that ``take`` gives, or ahead of the end of the stream. ``take`` sets
    it before it returns or raises; the server tells the caller, with the next item or the end, and sets it back to 0.
    """

    def keep(self, items: Sequence[Item]) -> Sequence[Item]:
        """What becomes of the last items of a ``take`` for which there was no room: they were larger than those before
        them, and so more than the caller's credit in bytes, or than the output takes. Called behind that ``take``,
        still within ``giving``.

        Returns:
            Those that the server keeps, and sends before it calls ``take`` again: all of them, unless a subclass says
            otherwise. One that can take items back puts them back here, and returns none.
        """
        return items

    def stalled(self) -> None:
        """Called in place of ``take`` while nothing can be sent, because the caller grants no credit or reads nothing.
        A source that is at its end, or that waits for nobody, raises here what ``take`` would; it gives nothing.
        """

    def close(self, reason: str) -> None:
        """Called exactly once, when the stream has ended for whatever cause; ``reason`` is for logs."""


class Sink(Uncopied, Generic[Item, Result]):
    """What takes the items of an upload, or of the caller's half of a duplex call, without holding a thread.

    Subclass it, and have what is registered with ``Handlers.sink`` make one for each call. The server calls ``receive``
    from one thread at a time, and then exactly one of ``finished`` and ``failed``, once and last. For a duplex call the
    class derives from ``Subscription`` as well, which gives the answers; it is closed by itself.
    """

    answer: Callable[[Result], None] = staticmethod(lambda response: None)
    """Set by the server before anything is called; call it, from any thread, to answer an upload before all its items
    have come. What still comes is dropped; ``finished`` follows, and what that returns is not looked at."""

    def receive(self, item: Item) -> Future[Any] | None:
        """One more item. With a future the next one comes when that is done; the caller may send more only then.

        Raises:
            CallError: the call fails with that status.
        """
        raise NotImplementedError(f"{type(self).__name__} must define receive(self, item)")

    def finished(self) -> Result | Future[Result] | None:
        """All items have come. Returns the answer to an upload, or a future of it; None for a duplex call.

        Raises:
            CallError: the call fails with that status.
        """
        raise NotImplementedError(f"{type(self).__name__} must define finished(self)")

    def failed(self, error: CallError) -> None:
        """No more items come, and nobody waits for an answer: cancelled, out of time, the connection lost, or what this
        object or an item of the caller's was wrong with; ``error`` is for logs and for cleaning up.
        """
