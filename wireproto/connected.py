"""A client that is connected, as a server sees it that calls its methods."""

import abc
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar, overload

from wireproto.errors import CallError
from wireproto.futures import CallFuture
from wireproto.schema import DuplexMethod, Message, Method, OneWayMethod, StreamMethod, UploadMethod
from wireproto.uncopied import Uncopied
from wireproto.wire.metadata import Metadata

__all__ = ["ConnectedClient", "ItemReceiver", "ItemSource"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message)
Taken = TypeVar("Taken", bound=Message, contravariant=True)
Given = TypeVar("Given", bound=Message, covariant=True)


class ItemReceiver(Protocol[Taken]):
    """What takes the items that a client answers with, without holding a thread: every ``Sink`` is one.

    ``receive`` is called from one thread at a time, and then exactly one of ``finished`` and ``failed``, once and last.
    """

    def receive(self, item: Taken) -> Future[object] | None:
        """One more item. With a future the next one comes when that is done; the client may send more only then."""

    def finished(self) -> object:
        """All items have come; what it returns is not looked at."""

    def failed(self, error: CallError) -> None:
        """No more items come."""


class ItemSource(Protocol[Given]):
    """What gives items to be sent, without holding a thread: every ``Subscription`` is one."""

    def take(self, n: int) -> Sequence[Given]:
        """Up to ``n`` items, at once; empty when there is nothing yet."""


class ConnectedClient(Uncopied, abc.ABC):
    """The client at the other end of one connection: calls its methods, those declared with ``by="server"``.

    It is ``Context.client`` of every call of that client, and what ``Server(on_client=...)`` is given. It may be kept
    and used for as long as the connection lasts, from any thread, within a handler or outside. Another connection of
    the same program is another client.

    Every call has a timeout: its own, or the method's. Without either it is refused, because a client that never
    answers must not hold anything for ever. No method waits, but for ``call`` and for iterating: those are for threads
    of the application, and are refused in a handler, where waiting for a client would hold a worker.

    Methods that call raise, or have in their future:
        CallError: what the client answered; DEADLINE when the time was up, and the client was told to stop;
            ConnectionLost when the client is gone, "not processed" if the request was certainly not sent; NO_HANDLER,
            not processed, if the client answers no calls at all; TOO_MANY_CALLS, not processed, if
            ``Limits.start_queue`` calls wait for a place already.
        EncodeError, DecodeError: the request, or what came back, is no message of the method.
        LocalProtocolError: the method is not called by the server, or this is no place to wait.
        ValueError: there is no timeout, or it is not above 0.
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def peer(self) -> str:
        """The client's address, for logs: ``host:port``."""

    @property
    @abc.abstractmethod
    def version(self) -> int:
        """The service version of the connection."""

    @property
    @abc.abstractmethod
    def codec(self) -> str:
        """The name of the connection's codec."""

    @property
    @abc.abstractmethod
    def answers(self) -> int:
        """How many calls the client accepts at a time; 0 for one without handlers, at which every call fails."""

    @property
    @abc.abstractmethod
    def connected(self) -> bool:
        """Whether a call may still be begun."""

    @abc.abstractmethod
    def on_close(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called once, soon after the client can be called no more; at once if that is so already.

        It runs on a worker that must not be kept: what it raises is logged.
        """

    @abc.abstractmethod
    def start(
        self, method: Method[Req, Resp], request: Req, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> CallFuture[Resp]:
        """Call a unary method and return at once.

        Beyond the calls that the client accepts at a time it waits in line, without a thread.

        Args:
            method: one of the service's that the server calls.
            request: its message.
            timeout: seconds, above 0, that the call may take, waiting included; None for the method's own.
            metadata: what to send beside the request.

        Returns:
            A future. ``cancel`` tells the client. Its callbacks run on a worker that must not be kept. Its ``metadata``
            is what the client said beside its answer, by name, as it is of those that the other methods return, and of
            an iterator that is at its end.
        """

    @abc.abstractmethod
    def call(
        self, method: Method[Req, Resp], request: Req, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Resp:
        """``start``, and wait for the response; not in a handler."""

    @abc.abstractmethod
    def post(self, method: OneWayMethod[Req], request: Req, *, metadata: Metadata | None = None) -> None:
        """Call a one-way method: nobody is told what becomes of it. It never waits.

        Raises:
            CallError: TOO_MANY_CALLS, not processed: the client takes no more one-way calls now.
        """

    @overload
    def stream(
        self,
        method: StreamMethod[Req, Item],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[Item]: ...

    @overload
    def stream(
        self,
        method: StreamMethod[Req, Item],
        request: Req,
        sink: ItemReceiver[Item],
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Future[None]: ...

    @abc.abstractmethod
    def stream(
        self,
        method: StreamMethod[Req, Item],
        request: Req,
        sink: ItemReceiver[Item] | None = None,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[Item] | Future[None]:
        """Call a stream method: its items go to ``sink``, or are iterated over.

        Args:
            method, request, metadata: as for ``start``.
            sink: takes the items, on the server's workers; None to iterate over them, on a thread of the application.
            timeout: seconds for the whole call.

        Returns:
            With a sink a future that is done behind ``finished``, or has the error; ``cancel`` ends the call. Without
            one an iterator; closing it, or dropping it, does.
        """

    @abc.abstractmethod
    def upload(
        self,
        method: UploadMethod[Item, Resp],
        items: "Iterable[Item] | ItemSource[Item]",
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> CallFuture[Resp]:
        """Call an upload method.

        Args:
            method, metadata: as for ``start``.
            items: a ``Subscription``, which holds no thread, or any iterable, which a worker asks as long as the client
                takes what it gives.
            timeout: seconds for the whole call.
        """

    @overload
    def duplex(
        self,
        method: DuplexMethod[Req, Item],
        items: "Iterable[Req] | ItemSource[Req]",
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[Item]: ...

    @overload
    def duplex(
        self,
        method: DuplexMethod[Req, Item],
        items: "Iterable[Req] | ItemSource[Req]",
        sink: ItemReceiver[Item],
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Future[None]: ...

    @abc.abstractmethod
    def duplex(
        self,
        method: DuplexMethod[Req, Item],
        items: "Iterable[Req] | ItemSource[Req]",
        sink: ItemReceiver[Item] | None = None,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[Item] | Future[None]:
        """Call a duplex method: ``items`` as for ``upload``, what comes back as for ``stream``."""
