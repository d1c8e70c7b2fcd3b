"""The client: typed calls over a connection that many threads share."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache, partial
from types import TracebackType
from typing import Self, TypeVar

from wireproto import codecs
from wireproto.address import Address
from wireproto.client.backoff import Backoff
from wireproto.client.binding import Binding
from wireproto.client.calls import ClientCall, FutureCall, StreamCall, milliseconds_until, timed_out
from wireproto.client.face import as_metadata, check_credit, deadline_after, not_of_kind, positive, timeout_of
from wireproto.client.guard import MAIN, get_ident, inside, interrupted
from wireproto.client.line import Line, repeatable
from wireproto.client.link import Link
from wireproto.client.many import Responses
from wireproto.client.state import ClientState, StateListener
from wireproto.client.stream import Stream
from wireproto.codecs import Codec
from wireproto.errors import ConfigError
from wireproto.limits import Limits
from wireproto.schema import Message, Method, Service, StreamMethod
from wireproto.status import Retry
from wireproto.uncopied import Uncopied
from wireproto.version import __version__
from wireproto.wire.connection import ConnectionMaker
from wireproto.wire.metadata import Metadata, pack_metadata

__all__ = ["Client", "connect"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message)


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
    connections: ConnectionMaker | None = None,
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
        connections: makes the protocol's state of each connection; None for ``Connection``. For tests, such as
            ``wireproto.testing.greasing(seed)``.

    Raises:
        HandshakeError: the server refuses; its text says what it supports.
        ConnectionLost: there is nobody at the address, or no answer in time.
        ConfigError: the address, a codec or the version is none.
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
        connections=connections,
    )
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
        connections: ConnectionMaker | None = None,
    ) -> None:
        """Prepare a client that connects when it is first used. The arguments are those of ``connect``."""
        if not isinstance(service, Service):
            raise ConfigError(f"a client takes the Service it calls, not {type(service).__name__}")
        chosen = codecs.select([codec] if isinstance(codec, str | Codec) else codec)
        self._line = Line(
            Address.parse(address),
            service,
            chosen,
            version=version,
            limits=limits or Limits(),
            name=name or f"wireproto/{__version__}",
            timeout=positive(timeout),
            backoff=backoff or Backoff(),
            connections=connections,
        )
        self._offered = chosen[0].name
        self._wait = wait
        self._authorization = ""
        self._block = b""  # the metadata of a call that brings none of its own
        self.authorization = authorization

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
                nobody can grant them credit any more.
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
                    link = line.link(deadline, self._wait if wait is None else wait)
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
                if not repeatable(error, repeated):
                    raise error
                repeated += 1
        finally:
            if marked:
                MAIN.inside = False

    @inside
    def start(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Future[Resp]:
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
    ) -> Iterator[Resp]:
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

        def repeat(request: Req) -> Resp:
            return self.call(method, request, timeout=seconds, metadata=metadata, wait=wait)

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
        batch: int = 32,
    ) -> Stream[Item]:
        """Call a stream method; the items come as they are asked for.

        Args:
            method, request, metadata, wait: as for ``call``.
            timeout: seconds that the whole stream may last; None for the method's cap.
            credit: items the server may send ahead of those taken, 1 to 2**32 - 1.
            batch: items taken after which their credit goes back, at least 1; never more than ``credit``.

        Returns:
            An iterator; close it, or use it as a context manager, to cancel the stream.

        Raises:
            CallError, EncodeError, LocalProtocolError: see ``Client``. Errors of the stream itself are raised by the
                iterator.
        """
        if type(method) is not StreamMethod:
            raise not_of_kind(method, StreamMethod)
        check_credit(credit, batch)
        deadline = deadline_after(timeout_of(method, timeout, metadata))
        patient = self._wait if wait is None else wait
        begin = partial(self._begin_stream, method, request, metadata, deadline, credit, patient)
        return Stream(begin, min(batch, credit), deadline)

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

    def _begin_stream(
        self,
        method: StreamMethod[Req, Item],
        request: Req,
        metadata: Metadata | Mapping[str, str] | None,
        deadline: float | None,
        credit: int,
        wait: bool,
    ) -> tuple[Link, Binding[Req, Item], StreamCall]:
        repeated = 0
        while True:
            link = self._line.link(deadline, wait)
            binding = link.dialect.bind(method)
            payload = binding.encode(request)
            call = StreamCall()
            if link.begin(call, binding.opcode, payload, self._metadata(metadata, deadline, credit), deadline, credit):
                return link, binding, call
            error = call.error
            assert error is not None
            if not repeatable(error, repeated):
                raise error
            repeated += 1

    def _metadata(
        self, given: Metadata | Mapping[str, str] | None, deadline: float | None, credit: int | None = None
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
            )
        )


@lru_cache(maxsize=256)
def _pack_numbers(deadline_ms: int | None, credit: int | None) -> bytes:
    # Of most clients every call has the same ones. No credential passes through the cache.
    return pack_metadata(Metadata(deadline_ms=deadline_ms, credit=credit))
