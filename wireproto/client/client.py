"""The client: typed calls over a connection that many threads share."""

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from types import TracebackType
from typing import Self, TypeVar

from wireproto import codecs
from wireproto.address import Address
from wireproto.binding import Binding
from wireproto.client.backoff import Backoff
from wireproto.client.calls import (
    AnswerPacked,
    ClientCall,
    DuplexCall,
    Flagged,
    FutureCall,
    StreamCall,
    UploadCall,
    Waiter,
    milliseconds_until,
    timed_out,
)
from wireproto.client.duplex import Duplex
from wireproto.client.early import call_early
from wireproto.client.face import (
    WINDOW,
    Answered,
    as_metadata,
    check_credit,
    deadline_after,
    not_of_kind,
    positive,
    timeout_of,
)
from wireproto.client.following import Following, follow
from wireproto.client.guard import MAIN, get_ident, inside, interrupted
from wireproto.client.line import Line, repeatable
from wireproto.client.link import Link
from wireproto.client.many import Responses
from wireproto.client.source import Source
from wireproto.client.state import ClientState, StateListener
from wireproto.client.stream import Stream
from wireproto.client.upload import upload
from wireproto.client.workers import WORKERS, Workers
from wireproto.codecs import Codec
from wireproto.dispatch import Handlers
from wireproto.errors import ConfigError
from wireproto.futures import CallFuture
from wireproto.limits import Limits
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
from wireproto.status import Retry
from wireproto.uncopied import Uncopied
from wireproto.version import __version__
from wireproto.wire.connection import ConnectionMaker
from wireproto.wire.frame import Credit
from wireproto.wire.metadata import Metadata, pack_metadata
from wireproto.wire.packing import Payload, numbers_of

__all__ = ["Client", "connect"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message)
Call = TypeVar("Call", bound=ClientCall)


def connect(
    address: str | tuple[str, int] | Address,
    service: Service,
    *,
    codec: str | Codec | Sequence[str | Codec] = "msgpack",
    timeout: float = 10.0,
    version: int | None = None,
    limits: Limits | None = None,
    name: str = "",
    authorization: str = "",
    backoff: Backoff | None = None,
    wait: bool = False,
    compression: Sequence[str] = ("zlib",),
    early: bool = False,
    connections: ConnectionMaker | None = None,
    handlers: Handlers | None = None,
    workers: Workers | int = WORKERS,
) -> "Client":
    """Connect to a server and agree with it on a version and a codec.

    The connection is plain TCP, in this release, to whatever address is given: over a network that is not trusted,
    put it into a tunnel.

    Args:
        address: ``HOST:PORT`` or a pair.
        service: the service wanted.
        codec: name of a codec or the codec itself, or several in order of preference.
        timeout: seconds, above 0, for connecting and the handshake together; now, and whenever a lost connection is
            opened again. Calls have time limits of their own.
        version: the newest version of the service to offer; None for all that ``service`` declares.
        limits: what this side accepts, and how patient it is.
        name: of this client, for the server's log; "" for ``wireproto/`` and the version of the package.
        authorization: credential to send with every call; it can be changed later.
        backoff: when to try again after a loss; None for 0.5 to 5 s with full jitter.
        wait: what calls do while there is no connection, if they do not say themselves. False: one attempt decides, and
            in the pause between two attempts they fail at once, "not processed", with the rest of the pause as
            ``retry_after_ms``. True: they wait as long as it takes, or as they have time. ``connect`` itself does not
            wait.
        compression: the algorithms, of ``zlib`` and ``zstd``, by one of which requests of methods with ``compress`` may
            be packed, and any answer; in order of preference. () for none.
        early: connect with the first call, and send that together with the greeting: it is answered a round trip
            sooner. So is the first call after a loss. It is done for unary calls of ``call`` that carry no credential
            and fit into 4096 bytes together with the greeting. If the connection is lost before the server has answered
            the greeting, nobody knows whether such a call was processed, where it is known otherwise that it was not;
            whoever cannot have that leaves it off. ``connect`` itself reaches nobody then, so that it raises nothing
            but ``ConfigError``.
        connections: makes the protocol's state of each connection; None for ``Connection``. For tests, such as
            ``wireproto.testing.greasing(seed)``.
        handlers: of the methods of ``service`` that the server calls (``by="server"``): this client answers them, as
            many at a time as ``Limits.max_calls`` says. It then opens a lost connection again by itself, and not only
            for its next call; the first one with ``early`` is still opened by its first call. None: the server may call
            nothing.
        workers: threads that run the handlers, at least 2; or ``Workers`` that several clients share.

    Raises:
        HandshakeError: the server refuses; its text says what it supports.
        ConnectionLost: there is nobody at the address, or no answer in time.
        ConfigError: the address, a codec, the version or an algorithm is none.
    """
    client = Client(
        address,
        service,
        codec=codec,
        timeout=timeout,
        version=version,
        limits=limits,
        name=name,
        authorization=authorization,
        backoff=backoff,
        wait=wait,
        compression=compression,
        early=early,
        connections=connections,
        handlers=handlers,
        workers=workers,
    )
    if early:
        return client
    try:
        client.open()
    except BaseException:
        client.close()
        raise
    return client


class Client(Uncopied):
    """Calls the methods of one service on one server. Made by ``connect``; use it as a context manager, or close it.

    Any number of threads may call at a time, over one connection. A connection that is lost fails the calls in flight
    with ``ConnectionLost``, which says whether the call may have been processed; the next call opens another one. While
    that fails, the pause between two attempts grows, and ``wait`` says what calls do in the pause. A call that was
    certainly not processed, because the connection was lost before its request was sent or because the server is going
    away, is sent again by itself, at most twice.

    Methods that call raise:
        CallError: the call failed: what the server answered; DEADLINE when the time was up, and the server was told to
            stop; ConnectionLost; UNKNOWN_OPCODE for a method that the version spoken here does not have, and
            REQUEST_TOO_LARGE, before anything is sent.
        EncodeError: the request, or its metadata, cannot be written. Nothing was sent.
        DecodeError: the response means no message of its type; the connection goes on.
        LocalProtocolError: the client is closed, or the method is not one of its service; or this is no place to call
            from, as below.

    A call waits for a place while as many calls are in flight as the server takes. A signal handler that raises during
    a call without a time limit may cost the connection, since received bytes may be lost with it.

    A signal handler that interrupted a method of a client, or the wait for a future, cannot use any client: what it
    waited for could not happen before it returns. It is refused with LocalProtocolError; only ``close`` works there,
    and returns at once.

    A client belongs to the process that made it. In a child made by ``os.fork`` its methods raise LocalProtocolError,
    and closing or dropping it changes nothing for the parent: make a client in the child. It cannot be copied or
    pickled either.
    """

    def __init__(
        self,
        address: str | tuple[str, int] | Address,
        service: Service,
        *,
        codec: str | Codec | Sequence[str | Codec] = "msgpack",
        timeout: float = 10.0,
        version: int | None = None,
        limits: Limits | None = None,
        name: str = "",
        authorization: str = "",
        backoff: Backoff | None = None,
        wait: bool = False,
        compression: Sequence[str] = ("zlib",),
        early: bool = False,
        connections: ConnectionMaker | None = None,
        handlers: Handlers | None = None,
        workers: Workers | int = WORKERS,
    ) -> None:
        """Prepare a client that connects when it is first used. The arguments are those of ``connect``."""
        if not isinstance(service, Service):
            raise ConfigError(f"a client takes the Service it calls, not {type(service).__name__}")
        chosen = codecs.select([codec] if isinstance(codec, str | Codec) else codec)
        self._authorization = ""
        self._block = b""  # the metadata of a call that brings none of its own
        self.authorization = authorization
        # Behind whatever may be refused: with handlers it has threads.
        self._line = Line(
            Address.parse(address),
            service,
            chosen,
            version=version,
            limits=limits or Limits(),
            name=name or f"wireproto/{__version__}",
            timeout=positive(timeout),
            backoff=backoff or Backoff(),
            packing=numbers_of(compression),
            connections=connections,
            handlers=handlers,
            workers=workers,
        )
        self._backoff = backoff or Backoff()
        self._offered = chosen[0].name
        self._timeout = timeout
        self._wait = wait
        self._early = early

    def __repr__(self) -> str:
        state = "closed" if self._line.closed else f"{self.codec}, version {self.version}"
        return f"<Client of {self.service.full_name} at {self.address}, {state}>"

    @property
    def address(self) -> Address:
        """Of the server."""
        return self._line.address

    @property
    def service(self) -> Service:
        """The service that the client was made for."""
        return self._line.service

    @property
    def codec(self) -> str:
        """The name of the codec agreed on; before the first connection, of the one preferred."""
        dialect = self._line.dialect
        return dialect.codec.name if dialect else self._offered

    @property
    def version(self) -> int:
        """The version of the service agreed on; 0 before the first connection."""
        dialect = self._line.dialect
        return dialect.version if dialect else 0

    @property
    def authorization(self) -> str:
        """The credential sent with every call that brings none of its own; "" for none.

        Raises:
            EncodeError: what is set is not printable ASCII.
        """
        return self._authorization

    @authorization.setter
    def authorization(self, credential: str) -> None:
        self._block = pack_metadata(Metadata(authorization=credential))
        self._authorization = credential

    @property
    def state(self) -> ClientState:
        """What a call would meet that is made now."""
        return self._line.state

    def listen(self, listener: StateListener) -> Callable[[], None]:
        """Have ``listener`` told the present state and each that follows, in order.

        It runs on a thread that all clients share, so it must not wait for anything. It may come late: ``state`` says
        what is now.

        Args:
            listener: gets a ``ClientState``. What it raises is logged.

        Returns:
            A function that takes the listener out again.
        """
        return self._line.listen(listener)

    @inside
    def open(self) -> None:
        """Connect now instead of with the first call, whatever pause is left before the next attempt.

        Raises:
            HandshakeError, ConnectionLost: as ``connect``.
        """
        self._line.open()

    def close(self, *, drain: float = 0.0) -> None:
        """Close the connection. Calls in flight fail; nothing can be called any more. From any thread.

        In a signal handler that interrupted a client it returns at once, and the closing goes on behind it.

        Args:
            drain: seconds in which the answers in flight, and items that are on their way, may still come: the writing
                side is shut first, and the rest follows when the server has ended its own. Streams end CANCELLED, for
                nobody can grant them credit any more. With handlers the server is told before that to begin no more
                calls, and those in flight are answered; until they are, calls of this client still go out, for a
                handler may need some.
        """
        self._line.close(drain)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        line = getattr(self, "_line", None)
        if line is not None and line.drop():
            warnings.warn(f"unclosed client of {line.address}", ResourceWarning, stacklevel=2, source=self)

    # Calls.

    def call(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Resp:
        """Call a method and wait for its response.

        Args:
            method: one of the service's, or of ``wireproto.control``.
            request: its message.
            timeout: seconds, above 0, that the call may take; the server is told. None for the method's cap.
            metadata: what to send beside the request: plain entries, or a ``Metadata`` with all that there is.
            wait: whether to wait while there is no connection, as for ``connect``; None for what the client was told.

        Raises:
            CallError, EncodeError, DecodeError, LocalProtocolError: see ``Client``.
        """
        if type(method) is not Method:
            raise not_of_kind(method, Method)
        plain = timeout is None and metadata is None and method.timeout is None
        deadline = None if plain else deadline_after(timeout_of(method, timeout, metadata))
        line = self._line
        marked = get_ident() == MAIN.ident
        if marked and MAIN.inside:
            raise interrupted()
        try:
            if marked:
                MAIN.inside = True
            repeated = 0
            while True:
                links = line.links
                if links and links[-1].usable:  # as ``Line.link`` has it
                    link = links[-1]
                else:
                    patient = self._wait if wait is None else wait
                    answer = self._call_early(method, request, metadata, deadline, patient)
                    if answer is not None:
                        return answer.message
                    link = line.link(deadline, patient)
                binding: Binding[Req, Resp] | None = link.dialect.bindings.get(method)
                if binding is None:
                    binding = link.dialect.bind(method)
                payload = binding.encode(request)
                block = self._block if plain else self._metadata(metadata, deadline)
                call = ClientCall()
                link.exchange(call, binding.opcode, payload, block, deadline)
                error = call.error
                if error is None:
                    return binding.decode(call.payload)
                if isinstance(error, AnswerPacked):
                    return error.decode(binding.decode)
                if not repeatable(error, repeated):
                    raise error
                repeated += 1
        finally:
            if marked:
                MAIN.inside = False

    @inside
    def call_with_metadata(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Answered[Resp]:
        """``call``, and what the server said beside the response.

        The other shapes have it where they end: futures of ``start``, the iterators of ``call_many`` (of the response
        handed out last), ``stream`` and ``duplex`` have a ``metadata`` of their own, and so has a ``CallError``.

        Args:
            method, request, timeout, metadata, wait: as for ``call``.

        Raises:
            CallError, EncodeError, DecodeError, LocalProtocolError: see ``Client``.
        """
        if type(method) is not Method:
            raise not_of_kind(method, Method)
        deadline = deadline_after(timeout_of(method, timeout, metadata))
        patient = self._wait if wait is None else wait
        repeated = 0
        while True:
            answer = self._call_early(method, request, metadata, deadline, patient)
            if answer is not None:
                return answer
            link = self._line.link(deadline, patient)
            binding = link.dialect.bind(method)
            call = ClientCall()
            link.exchange(call, binding.opcode, binding.encode(request), self._metadata(metadata, deadline), deadline)
            error = call.error
            if error is None:
                return Answered(binding.decode(call.payload), call.beside.metadata)
            if isinstance(error, AnswerPacked):
                return Answered(error.decode(binding.decode), call.beside.metadata)
            if not repeatable(error, repeated):
                raise error
            repeated += 1

    @inside
    def start(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> CallFuture[Resp]:
        """Call a method and return at once.

        Nothing is waited for: while there is no connection, or no place for the call, it waits in a queue of
        ``Limits.start_queue`` calls, beyond which calls fail at once. Whatever goes wrong with the call is in the
        future, what cannot be written included, and is never repeated by itself. ``cancel`` of the future tells the
        server. Its callbacks run on a thread that all clients share, so they must not wait for anything.

        Args:
            method, request, timeout, metadata, wait: as for ``call``.

        Returns:
            A future; its exception is one of those of ``Client``.

        Raises:
            LocalProtocolError: see ``Client``.
        """
        if type(method) is not Method:
            raise not_of_kind(method, Method)
        deadline = deadline_after(timeout_of(method, timeout, metadata))
        block = partial(self._metadata, metadata, deadline)
        line = self._line
        call = FutureCall(method, request, block, deadline, self._wait if wait is None else wait, line.queue)
        line.start(call)
        return call.future

    def call_many(
        self,
        method: Method[Req, Resp],
        requests: Iterable[Req],
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Responses[Req, Resp]:
        """Make many calls with as many in flight as the server takes, and yield the responses in order.

        Requests are read ahead of the responses, at most by the number of calls in flight; memory is bounded by that.
        A request that cannot be read, written or answered raises in its place, and the calls after it are cancelled.
        The iterator belongs to one thread. Dropping it before its end cancels what is in flight, within a second.

        Args:
            method: of all calls.
            requests: any iterable; read lazily.
            timeout: seconds for each call by itself; None for the method's cap.
            metadata: sent with every call.
            wait: as for ``call``.

        Raises:
            CallError, EncodeError, DecodeError, LocalProtocolError: see ``Client``; by the iterator.
        """
        if type(method) is not Method:
            raise not_of_kind(method, Method)
        seconds = timeout_of(method, timeout, metadata)

        def block() -> bytes:
            return self._metadata(metadata, deadline_after(seconds))

        def repeat(request: Req) -> Answered[Resp]:
            return self.call_with_metadata(method, request, timeout=seconds, metadata=metadata, wait=wait)

        patient = self._wait if wait is None else wait
        return Responses(self._line, method, requests, seconds, patient, block, repeat)

    @inside
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
    ) -> Stream[Item]:
        """Call a stream method; the items come as they are asked for.

        Args:
            method, request, metadata, wait: as for ``call``.
            timeout: seconds that the whole stream may last; None for the method's cap.
            credit: items the server may send ahead of those taken, 1 to 2**32 - 1.
            batch: items taken after which their credit goes back, at least 1; never more than ``credit``, and half of
                it if not given. A batch of less than a fifth of the credit is for a few long streams: each of its
                CREDITs may cross the end of the stream, and a server forgives 1,000 of those, and eight for each call,
                on one connection. To have the server told of every item, give a credit of 5 at most with a batch of 1.
            window: bytes of items that the server may send ahead of those taken, 1 to 2**32 - 1; 1 MiB if not given.
                Credit goes back before a batch is full once half of the window was taken. One item may be larger than
                what is left: a stream whose items nobody takes holds the window and one frame at most.

        Returns:
            An iterator; close it, or use it as a context manager, to cancel the stream.

        Raises:
            CallError, EncodeError, LocalProtocolError: see ``Client``. Errors of the stream itself are raised by the
                iterator.
        """
        if type(method) is not StreamMethod:
            raise not_of_kind(method, StreamMethod)
        batch = check_credit(credit, batch, window)
        deadline = deadline_after(timeout_of(method, timeout, metadata))
        patient = self._wait if wait is None else wait
        begin = partial(self._begin, StreamCall, method, request, metadata, deadline, Credit(credit, window), patient)
        return Stream(begin, batch, window, deadline)

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
    ) -> Following[Item]:
        """Call a resumable stream method, and open the stream again behind its last item when it is lost.

        Its items are messages and, where the server could not go on behind the last one, a `Gap`. ``position`` of what
        this returns can be kept, and given as ``after`` to another client of the same service, over whichever door and
        in whichever codec.

        Args:
            method: one of the service's, declared with ``resumable``.
            request: its message, sent again whenever the stream is opened.
            after: the position to go on behind: of an item of this method that was had before. None to begin.
            timeout: seconds that the whole stream may last, whatever becomes of its calls; None for the method's cap.
            metadata, credit, batch, window: as for ``stream``.
            wait: as for ``stream``, of the first call only.

        Returns:
            An iterator; close it, or use it as a context manager, to cancel the stream.

        Raises:
            CallError, EncodeError, LocalProtocolError: see ``Client``; of the first call.
            EncodeError: ``after`` is no position of the method.
            ValueError: the method is not resumable.
        """
        return follow(
            self.stream,
            method,
            request,
            after,
            timeout,
            metadata,
            wait,
            self._backoff,
            credit=credit,
            batch=batch,
            window=window,
        )

    def upload(
        self,
        method: UploadMethod[Req, Resp],
        items: Iterable[Req],
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Resp:
        """Send items as the server takes them, and wait for the one response to them.

        Items are asked for on this thread, when the server lets them be sent and not before, so memory is bounded by
        what the server has room for. Each is on its way before the next one is asked for; of a list or a tuple, as many
        go in one write as may. A server that answers before it has had all items is not sent the rest, and none is
        asked for. ``items`` may use the client itself.

        The call is sent again by itself only as long as no item was asked for, or if ``items`` is a list or a tuple;
        else the error says that it was not processed, and its caller has to know what to do with the items gone.

        Args:
            method: one of the service's.
            items: any iterable. What it raises cancels the call and is raised here.
            timeout, metadata, wait: as for ``call``; the time is that of the whole upload.

        Raises:
            CallError, EncodeError, DecodeError, LocalProtocolError: see ``Client``. An item that cannot be written
                cancels the call.
        """
        return self.upload_with_metadata(method, items, timeout=timeout, metadata=metadata, wait=wait).message

    def upload_with_metadata(
        self,
        method: UploadMethod[Req, Resp],
        items: Iterable[Req],
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Answered[Resp]:
        """``upload``, and what the server said beside the response.

        Args:
            method, items, timeout, metadata, wait: as for ``upload``.

        Raises:
            CallError, EncodeError, DecodeError, LocalProtocolError: as ``upload``.
        """
        if type(method) is not UploadMethod:
            raise not_of_kind(method, UploadMethod)
        deadline = deadline_after(timeout_of(method, timeout, metadata))
        patient = self._wait if wait is None else wait
        begin = inside(partial(self._begin, UploadCall, method, None, metadata, deadline, None, patient))
        return upload(begin, Source(items), deadline)

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
    ) -> Duplex[Req, Item]:
        """Call a duplex method: items go out and come back, each as they are taken.

        With ``items`` all is done by the thread that iterates: it hands out what has come, and while nothing has it
        sends, as ``upload`` does. Without, the items are sent by ``send``, from this thread or another one, up to
        ``finish``: so it must be where an item depends on what comes back, for an iterable that waited for that would
        wait for ever.

        Args:
            method: one of the service's.
            items: any iterable, as for ``upload``; None to send them one by one.
            timeout, metadata, wait: as for ``call``; the time is that of the whole call.
            credit, batch, window: as for ``stream``, of the items that come back.

        Returns:
            An iterator over the items that come back; close it, or use it as a context manager, to cancel the call.

        Raises:
            CallError, LocalProtocolError: see ``Client``. Errors of the call itself are raised by the iterator, and by
                ``send``.
        """
        if type(method) is not DuplexMethod:
            raise not_of_kind(method, DuplexMethod)
        batch = check_credit(credit, batch, window)
        deadline = deadline_after(timeout_of(method, timeout, metadata))
        patient = self._wait if wait is None else wait
        source = None if items is None else Source(items)
        kind = DuplexCall if source is not None else _sent_to
        begin = partial(self._begin, kind, method, None, metadata, deadline, Credit(credit, window), patient)

        @inside
        def opened() -> Duplex[Req, Item]:
            return Duplex(begin, source, batch, window, deadline)

        return opened()

    @inside
    def post(
        self,
        method: OneWayMethod[Req],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> None:
        """Call a one-way method: nobody is told what becomes of it.

        It returns when the request is on its way to the kernel. A server takes so many one-way calls at a time; beyond
        them this waits for its turn, first come, first served. A connection that is lost behind that is not told, and
        ``close`` does not wait for the server to read: give it ``drain`` to be sure of the calls posted last.

        Args:
            method: one of the service's.
            request: its message.
            timeout: seconds, above 0, that it may wait and that the call may take; the server is told, and drops what
                it has not begun by then. None for the method's cap; without one the server is told nothing, and the
                time to wait is that for connecting.
            metadata, wait: as for ``call``.

        Raises:
            CallError: DEADLINE, not processed, when the server took no more calls in time; ConnectionLost, not
                processed, when there is no connection to be had; others as ``Client`` has them, before it was sent.
            EncodeError, LocalProtocolError: see ``Client``.
        """
        if type(method) is not OneWayMethod:
            raise not_of_kind(method, OneWayMethod)
        seconds = timeout_of(method, timeout, metadata)
        deadline = deadline_after(seconds)
        until = deadline_after(self._timeout) if deadline is None else deadline
        repeated = 0
        while True:
            link = self._line.link(until, self._wait if wait is None else wait)
            binding = link.dialect.bind(method)
            error = link.post(binding.opcode, binding.encode(request), self._metadata(metadata, deadline), until)
            if error is None:
                return
            if not repeatable(error, repeated):
                raise error
            repeated += 1

    @inside
    def ping(self, timeout: float | None = None) -> float:
        """Send a PING and wait for its PONG.

        Args:
            timeout: seconds to wait, above 0; None to wait until the connection is given up.

        Returns:
            Seconds that it took.

        Raises:
            CallError: DEADLINE when no PONG came in time; ConnectionLost.
        """
        deadline = deadline_after(None if timeout is None else positive(timeout))
        link = self._line.link(deadline, self._wait)
        began = time.monotonic()
        if not link.ping(deadline):
            raise timed_out("no PONG came in time", Retry.NOT_PROCESSED)
        return time.monotonic() - began

    def _begin(
        self,
        kind: Callable[[], Call],
        method: Operation[Req, Resp],
        request: Req | None,
        metadata: Metadata | Mapping[str, str] | None,
        deadline: float | None,
        credit: Credit | None,
        wait: bool,
    ) -> tuple[Link, Binding[Req, Resp], Call]:
        """Begin a call that is not unary; None for the ``request`` of one whose items follow."""
        flagged = Flagged(method.shape.flags, credit)
        repeated = 0
        while True:
            link = self._line.link(deadline, wait)
            binding = link.dialect.bind(method)
            payload: Payload = b"" if request is None else binding.encode(request)
            call = kind()
            block = self._metadata(metadata, deadline, credit)
            if link.begin(call, binding.opcode, payload, block, deadline, flagged):
                return link, binding, call
            error = call.error
            assert error is not None
            if not repeatable(error, repeated):
                raise error
            repeated += 1

    def _call_early(
        self,
        method: Method[Req, Resp],
        request: Req,
        metadata: Metadata | Mapping[str, str] | None,
        deadline: float | None,
        wait: bool,
    ) -> Answered[Resp] | None:
        """The answer of a call that went together with HELLO; None if there was no need for it, or it may not."""
        signs = self._authorization or (isinstance(metadata, Metadata) and metadata.authorization)
        if not self._early or signs or self._line.ready:
            return None
        return call_early(self._line, method, request, lambda: self._metadata(metadata, deadline), deadline, wait)

    def _metadata(
        self, given: Metadata | Mapping[str, str] | None, deadline: float | None, credit: Credit | None = None
    ) -> bytes:
        """The block to send: what the caller gave, with what the call itself and the client add."""
        deadline_ms = None if deadline is None else milliseconds_until(deadline)
        if given is None:
            added = b"" if deadline_ms is None and credit is None else _pack_numbers(deadline_ms, credit)
            return added + self._block
        given = as_metadata(given)
        return pack_metadata(
            Metadata(
                deadline_ms=deadline_ms,
                traceparent=given.traceparent,
                authorization=given.authorization or self._authorization,
                idempotency_key=given.idempotency_key,
                credit=credit,
                entries=given.entries,
                resume_after=given.resume_after,
            )
        )


def _sent_to() -> DuplexCall:
    """A duplex call whose items are sent by whoever calls ``send``."""
    call = DuplexCall()
    call.sender = Waiter()
    return call


@lru_cache(maxsize=256)
def _pack_numbers(deadline_ms: int | None, credit: Credit | None) -> bytes:
    # Of most clients every call has the same ones. No credential passes through the cache.
    return pack_metadata(Metadata(deadline_ms=deadline_ms, credit=credit))
