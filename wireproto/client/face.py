"""The face that all clients share, and how they read the arguments that every call takes.

The protocols are public: a program that does not mind how its calls travel takes a ``BlockingClient``. What a client
accepts as a time limit, as metadata or as credit is decided here, once, so that the same call is accepted or refused
alike whichever client makes it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

from wireproto.address import Address
from wireproto.client.gap import Gap
from wireproto.client.state import ClientState, StateListener
from wireproto.futures import CallFuture
from wireproto.schema import (
    DuplexMethod,
    Message,
    Method,
    OneWayMethod,
    Operation,
    Position,
    Service,
    StreamMethod,
    UploadMethod,
)
from wireproto.wire.frame import U32_MAX
from wireproto.wire.metadata import Metadata

__all__ = [
    "WINDOW",
    "Answered",
    "BlockingClient",
    "ClientFace",
    "ItemExchange",
    "ItemFollower",
    "ItemStream",
    "as_metadata",
    "check_credit",
    "deadline_after",
    "not_of_kind",
    "positive",
    "timeout_of",
]

WINDOW = 1024 * 1024
"""Bytes that the server may send of a stream ahead of those taken, if the caller says nothing else."""

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message)
Given = TypeVar("Given", bound=Message, covariant=True)
Handed = TypeVar("Handed", covariant=True)  # a message or, of a stream that is followed, a gap
Got = TypeVar("Got")
Sent = TypeVar("Sent", bound=Message, contravariant=True)


@runtime_checkable
class ClientFace(Protocol):
    """What every client says of itself, whether its calls block the caller or are awaited."""

    @property
    def address(self) -> Address:
        """Of the server."""

    @property
    def service(self) -> Service:
        """The service that the client was made for."""

    @property
    def codec(self) -> str:
        """The name of the codec that calls are written in; ``grpc`` for a client over gRPC."""

    @property
    def version(self) -> int:
        """The version of the service that was agreed on."""

    @property
    def authorization(self) -> str:
        """The credential sent with every call that brings none of its own; "" for none.

        Raises:
            EncodeError: what is set is not printable ASCII.
        """

    @authorization.setter
    def authorization(self, credential: str) -> None: ...

    @property
    def state(self) -> ClientState:
        """What a call would meet that is made now."""

    def listen(self, listener: StateListener) -> Callable[[], None]:
        """Have ``listener`` told the present state and each that follows; returns what takes it out again."""


class ItemStream(Protocol[Handed]):
    """The items of a stream call, as they are asked for: ``Stream``, or what another client has in its place.

    One thread at a time iterates. ``close`` may be called from any.
    """

    def __iter__(self) -> Self: ...

    def __next__(self) -> Handed: ...

    def next(self, timeout: float | None = None) -> Handed:
        """The next item; TimeoutError after ``timeout`` seconds without one, and the stream goes on."""

    @property
    def dropped(self) -> int:
        """How many items the server has left out; over gRPC it is told at the end of the stream only."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the server said beside the end of the stream, by name; empty before that, and for nothing."""

    def acknowledge(self) -> None:
        """Count the item handed out last as taken, before the next one is asked for."""

    def close(self) -> None:
        """Cancel the stream; nothing happens if it is over."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class ItemExchange(ItemStream[Given], Protocol[Sent, Given]):
    """Both halves of a duplex call: ``Duplex``, or what another client has in its place.

    One thread at a time iterates, and one at a time sends, the same or another one.
    """

    def send(self, item: Sent, timeout: float | None = None) -> None:
        """Send one item; TimeoutError when it cannot be sent within ``timeout`` seconds, and the call goes on."""

    def finish(self) -> None:
        """Say that no more items are sent; nothing happens the second time."""


class ItemFollower(ItemStream[Given | Gap], Protocol[Given]):
    """The items of a resumable stream that is followed, and the gaps in it: ``Following``."""

    @property
    def position(self) -> Position | None:
        """That of the last item; None before the first one, and behind a gap."""

    @property
    def reopened(self) -> int:
        """How many times it was opened again."""


class Answered(NamedTuple, Generic[Got]):
    """A response with what was said beside it.

    Attributes:
        message: the response.
        metadata: by name; empty for nothing. ``traceparent`` is a W3C trace context.
    """

    message: Got
    metadata: Mapping[str, str]


@runtime_checkable
class BlockingClient(ClientFace, Protocol):
    """A client whose calls block the thread that makes them: ``Client``, and ``GrpcClient`` of the gateway.

    Its methods take and raise what those of ``Client`` do, where each is described in full. Any number of threads may
    use one at a time.
    """

    def open(self) -> None:
        """Connect now instead of with the first call, whatever pause is left before the next attempt."""

    def close(self, *, drain: float = 0.0) -> None:
        """Close the connection; calls in flight fail unless they are answered within ``drain`` seconds."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def call(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Resp:
        """Call a method and wait for its response."""

    def call_with_metadata(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Answered[Resp]:
        """``call``, and what the server said beside the response."""

    def start(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> CallFuture[Resp]:
        """Call a method and return at once. Whatever goes wrong with the call is in the future."""

    def call_many(
        self,
        method: Method[Req, Resp],
        requests: Iterable[Req],
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Iterator[Resp]:
        """Make many calls with several in flight, and yield the responses in order."""

    def stream(
        self,
        method: StreamMethod[Req, Item],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
        credit: int = 64,
        batch: int | None = None,
        window: int = WINDOW,
    ) -> ItemStream[Item]:
        """Call a stream method; the items come as they are asked for."""

    def follow(
        self,
        method: StreamMethod[Req, Item],
        request: Req,
        *,
        after: Position | None = None,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
        credit: int = 64,
        batch: int | None = None,
        window: int = WINDOW,
    ) -> ItemFollower[Item]:
        """Call a resumable stream method, and open the stream again behind its last item when it is lost."""

    def upload(
        self,
        method: UploadMethod[Req, Resp],
        items: Iterable[Req],
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Resp:
        """Send items as the server takes them, and wait for the one response to them."""

    def upload_with_metadata(
        self,
        method: UploadMethod[Req, Resp],
        items: Iterable[Req],
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Answered[Resp]:
        """``upload``, and what the server said beside the response."""

    def duplex(
        self,
        method: DuplexMethod[Req, Item],
        items: Iterable[Req] | None = None,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
        credit: int = 64,
        batch: int | None = None,
        window: int = WINDOW,
    ) -> ItemExchange[Req, Item]:
        """Send items and receive items, each as they are taken; without ``items`` they are sent one by one."""

    def post(
        self,
        method: OneWayMethod[Req],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> None:
        """Call a one-way method: nobody is told what becomes of it."""

    def ping(self, timeout: float | None = None) -> float:
        """Ask the server whether it is there; the seconds that it took to answer."""


# The arguments of a call ----------------------------------------------------------------------------------------


def positive(timeout: float) -> float:
    """``timeout``, which must be above 0 seconds.

    Raises:
        ValueError: it is not.
    """
    if not timeout > 0:  # so written, NaN is refused as well
        raise ValueError(f"timeout is {timeout!r}; give seconds above 0, or None")
    return timeout


def timeout_of(
    method: Operation[Any, Any], timeout: float | None, metadata: Metadata | Mapping[str, str] | None
) -> float | None:
    """Seconds that a call may take: what its caller says, else its ``Metadata``, else what ``method`` declares.

    Raises:
        ValueError: what was said is not above 0.
    """
    if timeout is not None:
        return positive(timeout)
    if isinstance(metadata, Metadata) and metadata.deadline_ms is not None:
        return positive(metadata.deadline_ms / 1000)
    return method.timeout


def deadline_after(timeout: float | None) -> float | None:
    """The point in time, by ``time.monotonic``, that is ``timeout`` seconds from now; None for no limit."""
    return None if timeout is None else time.monotonic() + timeout


def as_metadata(given: Metadata | Mapping[str, str]) -> Metadata:
    """``given``, or the plain entries of a command line with those taken out that have a field of their own."""
    if isinstance(given, Metadata):
        return given
    entries = dict(given)
    return Metadata(
        traceparent=entries.pop("traceparent", ""),
        authorization=entries.pop("authorization", ""),
        idempotency_key=entries.pop("idempotency-key", "").encode(),
        entries=entries,
    )


def check_credit(credit: int, batch: int | None, window: int) -> int:
    """Hold the numbers of a stream call to their ranges.

    Returns:
        The batch: within the credit, and half of it if none was given.

    Raises:
        ValueError: the credit or the window is none that CREDIT can carry, or the batch is below 1.
    """
    if batch is None:
        batch = (credit + 1) // 2
    elif batch < 1:
        raise ValueError(f"batch is {batch}; give at least 1, or None for half of the credit")
    for name, number in (("credit", credit), ("window", window)):
        if not 1 <= number <= U32_MAX:
            raise ValueError(f"{name} is {number}; give 1 to {U32_MAX}")
    return min(batch, credit)


_HOW: dict[type, tuple[str, str]] = {
    Method: ("a unary", "call"),
    StreamMethod: ("a stream", "stream"),
    UploadMethod: ("an upload", "upload"),
    DuplexMethod: ("a duplex", "duplex"),
    OneWayMethod: ("a one-way", "post"),
}
"""What each kind of method is called, and the method of a client that calls it."""


def not_of_kind(given: object, wanted: type) -> TypeError:
    """What to raise for ``given`` where a method of the type ``wanted`` belongs."""
    if isinstance(given, Operation) and type(given) in _HOW:
        kind, use = _HOW[type(given)]
        return TypeError(f"{given.name} is {kind} method; use client.{use}")
    return TypeError(f"{given!r:.100} is no {wanted.__name__}; give the object that the service was declared with")
