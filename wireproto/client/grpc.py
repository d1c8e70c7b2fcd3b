"""The client over gRPC: the calls of ``Client``, through a gateway or any server of the same ``.proto``.

Importing it without the extra ``grpc`` raises ``ConfigError``, which says what to install.
"""

import threading
import time
from _thread import start_new_thread
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

from wireproto import codecs
from wireproto.address import Address
from wireproto.binding import Binding, Dialect, own_method
from wireproto.client.backoff import Backoff
from wireproto.client.face import WINDOW, Answered, check_credit, not_of_kind, positive, timeout_of
from wireproto.client.following import Following, follow
from wireproto.client.grpc_again import Attempts
from wireproto.client.grpc_headers import Headers, headers_of
from wireproto.client.guard import inside, interrupting, made_before_fork
from wireproto.client.keeper import the_keeper
from wireproto.client.source import Source
from wireproto.client.state import ClientState, Listeners, StateListener
from wireproto.control import CHECK, CONTROL, DESCRIBE, CheckRequest, DescribeRequest
from wireproto.errors import (
    CallError,
    ConfigError,
    ConnectionLost,
    HandshakeError,
    LocalProtocolError,
    WireprotoError,
)
from wireproto.futures import CallFuture
from wireproto.limits import Limits
from wireproto.reasons import failure
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
from wireproto.status import Retry, Status
from wireproto.uncopied import Uncopied
from wireproto.version import __version__
from wireproto.wire.frame import FIRST_FRAMEWORK_OPCODE, HEADER_AFTER_LENGTH, Credit
from wireproto.wire.handshake import choose_version
from wireproto.wire.metadata import Metadata, pack_metadata
from wireproto.wire.packing import plain

try:
    import grpc

    from wireproto.client.grpc_answers import GrpcResponses, read_trailers
    from wireproto.client.grpc_duplex import GrpcDuplex
    from wireproto.client.grpc_errors import read_failure
    from wireproto.client.grpc_future import GrpcFuture
    from wireproto.client.grpc_outlet import ONE, Outlet
    from wireproto.client.grpc_stream import GrpcStream
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("google", "grpc", "grpc_status"):
        raise
    raise ConfigError(f"{error.name} is not installed; run: pip install 'wireproto[grpc]'") from error

__all__ = ["GrpcClient", "GrpcDuplex", "GrpcStream", "connect"]

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
Item = TypeVar("Item", bound=Message)

_KEEPALIVE = 30_000
"""Milliseconds of silence after which the server is asked whether it is there; gateways allow 10,000."""

_STATES = {
    grpc.ChannelConnectivity.IDLE: ClientState.IDLE,
    grpc.ChannelConnectivity.CONNECTING: ClientState.CONNECTING,
    grpc.ChannelConnectivity.READY: ClientState.READY,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE: ClientState.BACKING_OFF,
    grpc.ChannelConnectivity.SHUTDOWN: ClientState.CLOSED,
    None: ClientState.IDLE,  # it has not said yet
}


def connect(
    address: str | tuple[str, int] | Address,
    service: Service,
    *,
    timeout: float = 10.0,
    version: int | None = None,
    limits: Limits | None = None,
    name: str = "",
    authorization: str = "",
    backoff: Backoff | None = None,
    wait: bool = False,
) -> "GrpcClient":
    """Connect to a gateway and find out which version of the service both sides have.

    Nothing is encrypted, in this release; over a network that is not trusted, put it into a tunnel.

    Args:
        address: ``HOST:PORT`` or a pair.
        service: the service wanted.
        timeout: seconds, above 0, until the server has to have answered.
        version: the newest version of the service to use; None for all that ``service`` declares.
        limits: what this side accepts.
        name: of this client, for the server's log; "" for ``wireproto/`` and the version of the package.
        authorization: credential to send with every call; it can be changed later.
        backoff: its first and its highest ceiling are gRPC's; the rest of the back-off is gRPC's own. None for 0.5 to
            5 s.
        wait: what calls do while there is no connection, as for ``wireproto.connect``.

    Raises:
        HandshakeError: the server does not have the service; its text says what it has.
        ConnectionLost: there is nobody at the address, or no answer in time.
        ConfigError: the address or the version is none.
    """
    client = GrpcClient(
        address,
        service,
        version=version,
        limits=limits,
        name=name,
        authorization=authorization,
        timeout=timeout,
        backoff=backoff,
        wait=wait,
    )
    try:
        client.open()
    except BaseException:
        client.close()
        raise
    return client


class GrpcClient(Uncopied):
    """Calls the methods of one service over gRPC; the face, and the errors, of ``wireproto.Client``.

    Made by ``connect``; use it as a context manager, or close it. Any number of threads may call at a time. A
    connection that was lost is opened again by gRPC.

    Methods that call raise:
        CallError: the call failed, with the status, reason and retry advice that the server gave; ConnectionLost when
            there is no server.
        EncodeError: the request or its metadata cannot be written. Nothing was sent.
        DecodeError: the response means no message of its type.
        LocalProtocolError: the client is closed, or the method is not one of its service.
    """

    def __init__(
        self,
        address: str | tuple[str, int] | Address,
        service: Service,
        *,
        version: int | None = None,
        limits: Limits | None = None,
        name: str = "",
        authorization: str = "",
        timeout: float = 10.0,
        backoff: Backoff | None = None,
        wait: bool = False,
    ) -> None:
        """Prepare a client that connects when it is first used. The arguments are those of ``connect``."""
        newest = service.version if version is None else version
        service.at(newest)  # raises, if there is no such version
        self._address = Address.parse(address)
        self._limits = limits or Limits()
        self._timeout = positive(timeout)
        self._newest = Dialect(service, codecs.get("protobuf"), newest, self._limits)
        self._dialect = self._newest
        self._authorization = ""
        self._closed = False
        self._wait = wait
        self._keeper = the_keeper()  # of the process that the channel belongs to
        self._listeners = Listeners(self._keeper)
        self._listening = False
        self._connectivity: Any = None  # as grpcio said last, while somebody listens
        self._started = 0  # calls begun by ``start`` and not answered
        self._started_lock = threading.Lock()
        self._unreached = False  # the last attempt to connect failed
        self._paths: dict[object, Any] = {}
        self._backoff = pauses = backoff or Backoff()
        largest = self._limits.max_frame - HEADER_AFTER_LENGTH  # as large as over TCP
        self._options = [
            ("grpc.primary_user_agent", name or f"wireproto/{__version__}"),
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_send_message_length", -1),  # the server's limit is the server's to judge
            ("grpc.keepalive_time_ms", _KEEPALIVE),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", round(pauses.first * 1000)),
            ("grpc.min_reconnect_backoff_ms", round(pauses.first * 1000)),
            ("grpc.max_reconnect_backoff_ms", round(pauses.most * 1000)),
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, which ends with the client
            ("grpc.enable_http_proxy", 0),
        ]
        self.authorization = authorization
        self._channel = grpc.insecure_channel(str(self._address), self._options)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"version {self.version}"
        return f"<GrpcClient of {self.service.full_name} at {self.address}, {state}>"

    @property
    def address(self) -> Address:
        """Of the server."""
        return self._address

    @property
    def service(self) -> Service:
        """The service that the client was made for."""
        return self._dialect.service

    @property
    def codec(self) -> str:
        """Always ``grpc``: the codec is protobuf, the frames are HTTP/2's."""
        return "grpc"

    @property
    def version(self) -> int:
        """The version of the service that calls are written in."""
        return self._dialect.version

    @property
    def authorization(self) -> str:
        """The credential sent with every call that brings none of its own; "" for none.

        Raises:
            EncodeError: what is set is not printable ASCII.
        """
        return self._authorization

    @authorization.setter
    def authorization(self, credential: str) -> None:
        pack_metadata(Metadata(authorization=credential))
        self._authorization = credential

    @property
    def state(self) -> ClientState:
        """What a call would meet that is made now. grpcio is asked for it by way of a thread, which takes a moment.

        Once it was asked, or listened to, a child that the process forks may crash in grpcio; the parent goes on.
        """
        if self._closed:
            return ClientState.CLOSED
        if self._listening:
            return _STATES[self._connectivity]
        said: SimpleQueue[Any] = SimpleQueue()
        self._channel.subscribe(said.put)
        try:
            return _STATES[said.get(timeout=self._timeout)]
        except Empty:
            return ClientState.IDLE
        finally:
            self._channel.unsubscribe(said.put)

    def listen(self, listener: StateListener) -> Callable[[], None]:
        """Have ``listener`` told the present state and each that follows, in order; see ``Client.listen``.

        A thread of grpcio watches from now on.
        """
        remove = self._listeners.add(listener, self.state)
        if not self._listening:
            self._listening = True
            self._channel.subscribe(self._connectivity_changed)
        return remove

    def _connectivity_changed(self, connectivity: Any) -> None:
        self._connectivity = connectivity
        self._listeners.tell(lambda: ClientState.CLOSED if self._closed else _STATES[self._connectivity])

    @inside
    def open(self) -> None:
        """Connect now instead of with the first call, and agree on a version. Again: with whatever serves there now.

        Raises:
            HandshakeError, ConnectionLost: as ``connect``.
        """
        self._check()
        if self._unreached:
            # grpcio has no way to end the pause between two attempts. Calls in flight keep the old channel alive.
            self._unreached = False
            self._channel = grpc.insecure_channel(str(self._address), self._options)
            self._paths = {}
            if self._listening:
                self._channel.subscribe(self._connectivity_changed)
        wanted = self._newest
        try:
            answer = self._call(
                DESCRIBE, DescribeRequest(service=wanted.service.full_name), timeout=self._timeout, metadata=None
            ).message
        except HandshakeError:
            raise
        except ConnectionLost as error:
            if error.retry is Retry.NOT_PROCESSED:
                raise
            raise ConnectionLost(
                f"{self._address} cannot be reached: {error.message}", retry=Retry.NOT_PROCESSED
            ) from error
        except CallError as error:
            if error.status is Status.UNIMPLEMENTED:
                return  # no gateway of ours, but it may have the service all the same
            if error.status is Status.DEADLINE_EXCEEDED:
                raise ConnectionLost(
                    f"{self._address} cannot be reached: no answer in time", retry=Retry.NOT_PROCESSED
                ) from error
            raise HandshakeError(
                error.status,
                error.reason,
                f"{self._address} refused the connection: {error.message}",
                retry=error.retry,
            ) from error
        version = wanted.version
        spoken = range(wanted.service.oldest, wanted.version + 1)
        for each in answer.services:
            try:
                version = choose_version(each.full_name, range(each.oldest, each.version + 1), spoken)
            except HandshakeError as error:
                text = f"{self._address} refused the connection: {error.message}"
                raise HandshakeError(error.status, error.reason, text) from None
        if version == wanted.version:
            self._dialect = wanted
        elif version != self._dialect.version:
            self._dialect = Dialect(wanted.service, wanted.codec, version, self._limits)

    def close(self, *, drain: float = 0.0) -> None:
        """Close the connection. Calls in flight fail; nothing can be called any more. From any thread.

        ``drain`` is for likeness with the other client: HTTP/2 has no half-close of a connection, and nothing to wait
        for.
        """
        self._closed = True
        if the_keeper() is not self._keeper:
            return  # its parent's
        if interrupting():
            start_new_thread(self._channel.close, ())
        else:
            self._channel.close()
            self._listeners.tell(lambda: ClientState.CLOSED)
            self._keeper.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Calls.

    @inside
    def call(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Resp:
        """Call a method and wait for its response; see ``Client.call``."""
        return self._call(method, request, timeout=timeout, metadata=metadata, wait=wait).message

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
        """``call``, and what the server said beside the response; see ``Client.call_with_metadata``."""
        return self._call(method, request, timeout=timeout, metadata=metadata, wait=wait)

    def _call(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> Answered[Resp]:
        if type(method) is not Method:
            raise not_of_kind(method, Method)
        attempts = Attempts(timeout_of(method, timeout, metadata))
        binding = self._bind(method)
        payload = plain(binding.encode(request))
        answer, rpc = self._unary(method, binding, payload, metadata, attempts, self._patience(wait))
        return Answered(binding.decode(answer), read_trailers(rpc).metadata)

    def _unary(
        self,
        method: Operation[Any, Any],
        binding: Binding[Any, Any],
        payload: bytes,
        metadata: Metadata | Mapping[str, str] | None,
        attempts: Attempts,
        wait: bool,
        patience: float | None = None,
    ) -> tuple[bytes, Any]:
        """The answer to one message, and grpcio's object of the call.

        Args:
            patience: seconds of which the server is told nothing, and after which it is not waited for any longer.
        """
        headers = self._metadata(method, metadata)
        while True:
            call = self._callable(method)
            try:
                if patience is None:
                    answer, rpc = call.with_call(
                        payload, timeout=attempts.left(), metadata=headers, wait_for_ready=wait
                    )
                    return answer, rpc
                rpc = call.future(payload, metadata=headers, wait_for_ready=wait)
                return self._within(patience, rpc), rpc
            except grpc.RpcError as error:
                failed = self._failure(error, binding)
                if not attempts.again(failed, error):
                    raise failed from None
            except ValueError:
                raise self._closed_error() from None

    def _within(self, seconds: float, rpc: Any) -> bytes:
        """The answer to a call that is given up after so many seconds."""
        try:
            answer: bytes = rpc.result(seconds)
        except grpc.FutureTimeoutError:
            rpc.cancel()
            raise failure("DEADLINE", f"the server did not take the call within {seconds:g} s") from None
        except grpc.FutureCancelledError:
            raise self._failure(rpc) from None
        except BaseException:
            rpc.cancel()
            raise
        return answer

    @inside
    def start(
        self,
        method: Method[Req, Resp],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> "CallFuture[Resp]":
        """Call a method and return at once; see ``Client.start``. ``cancel`` of the future tells the server."""
        if type(method) is not Method:
            raise not_of_kind(method, Method)
        attempts = Attempts(timeout_of(method, timeout, metadata))
        self._check()
        if method not in self._dialect.bindings:
            own_method(self.service, method)  # which raises; what else is wrong is the future's
        future: GrpcFuture[Resp] = GrpcFuture()
        try:
            binding = self._bind(method)
            payload = binding.encode(request)
            headers = self._metadata(method, metadata)
            with self._started_lock:
                most = self._limits.start_queue + self._limits.max_calls
                if self._started >= most:
                    raise failure(
                        "TOO_MANY_CALLS", f"{most} calls that were started are not answered yet; let some end"
                    )
                self._started += 1
        except WireprotoError as error:
            future.set_exception(error)
            return future
        patient = self._patience(wait)

        def begin() -> None:
            rpc = self._callable(method).future(
                payload, timeout=attempts.left(), metadata=headers, wait_for_ready=patient
            )
            future.rpc = rpc
            if future.cancelled():  # between two attempts, of which the first one was over
                rpc.cancel()
            rpc.add_done_callback(done)

        def done(rpc: Any) -> None:
            outcome: Resp | BaseException
            try:
                outcome = binding.decode(self._answer(rpc, binding))
            except CallError as error:
                outcome = error
                if attempts.again(error, rpc) and not future.cancelled():
                    try:
                        return begin()
                    except ValueError:
                        outcome = self._closed_error()
                    except BaseException as problem:  # noqa: BLE001 - nobody else would complete the future
                        outcome = problem
            except BaseException as error:  # noqa: BLE001
                outcome = error
            self._ended()
            if not future.set_running_or_notify_cancel():
                return None
            if isinstance(outcome, BaseException):
                future.set_exception(outcome.with_traceback(None))  # which has this frame, and so the future itself
            else:
                future.set_result(outcome)
            return None

        try:
            begin()
        except BaseException as error:
            self._ended()
            if isinstance(error, ValueError):
                raise self._closed_error() from None
            raise
        return future

    def _ended(self) -> None:
        """A call that ``start`` began is over."""
        with self._started_lock:
            self._started -= 1

    def call_many(
        self,
        method: Method[Req, Resp],
        requests: Iterable[Req],
        *,
        timeout: float | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        wait: bool | None = None,
    ) -> "GrpcResponses[Req, Resp]":
        """Make many calls with several in flight, and yield the responses in order; see ``Client.call_many``."""
        if type(method) is not Method:
            raise not_of_kind(method, Method)
        seconds = timeout_of(method, timeout, metadata)

        def start(request: Req) -> CallFuture[Resp]:
            return self.start(method, request, timeout=seconds, metadata=metadata, wait=wait)

        return GrpcResponses(start, requests, self._limits.max_calls)

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
    ) -> "GrpcStream[Item]":
        """Call a stream method; the items come as they are asked for.

        Args:
            method, request, timeout, metadata, wait: as for ``Client.stream``.
            credit, batch, window: held to their ranges, and mean nothing here: how far the server sends ahead is up
                to HTTP/2, whose windows acknowledge nothing.
        """
        if type(method) is not StreamMethod:
            raise not_of_kind(method, StreamMethod)
        check_credit(credit, batch, window)
        attempts = Attempts(timeout_of(method, timeout, metadata))
        binding = self._bind(method)
        payload = binding.encode(request)
        headers = self._metadata(method, metadata)
        patient = self._patience(wait)

        def begin() -> Any:
            try:
                return self._callable(method)(
                    payload, timeout=attempts.left(), metadata=headers, wait_for_ready=patient
                )
            except ValueError:
                raise self._closed_error() from None

        return GrpcStream(begin, binding, partial(self._failure, binding=binding), attempts)

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
        """Call a resumable stream method, and open the stream again behind its last item when it is lost; see
        ``Client.follow``.
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
        """Send items as the server takes them, and wait for the one response to them; see ``Client.upload``.

        Each is asked for on this thread, when HTTP/2 has room for it.
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
        """``upload``, and what the server said beside the response; see ``Client.upload_with_metadata``."""
        if type(method) is not UploadMethod:
            raise not_of_kind(method, UploadMethod)
        attempts = Attempts(timeout_of(method, timeout, metadata))
        source = Source(items)
        while True:
            binding, outlet, rpc = inside(self._feed)(method, metadata, attempts, wait)
            room, give = inside(outlet.wait), inside(outlet.give)
            try:
                while room():
                    for payload in source.pull(ONE, binding.encode):
                        give(plain(payload))
                    if source.ended:
                        inside(outlet.finish)()
                        break
                answer = inside(self._outcome)(rpc, binding)
            except BaseException:
                inside(rpc.cancel)()
                raise
            if not isinstance(answer, CallError):
                return Answered(binding.decode(answer), read_trailers(rpc).metadata)
            if not attempts.again(answer, rpc) or not source.begin_again():
                raise answer

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
    ) -> "GrpcDuplex[Req, Item]":
        """Call a duplex method: items go out and come back, each as they are taken; see ``Client.duplex``.

        Args:
            method, items, timeout, metadata, wait: as for ``Client.duplex``.
            credit, window: how many items that came back, and how many bytes of them, may wait here for who iterates,
                while ``send`` waits; ``batch`` means nothing.
        """
        if type(method) is not DuplexMethod:
            raise not_of_kind(method, DuplexMethod)
        check_credit(credit, batch, window)
        attempts = Attempts(timeout_of(method, timeout, metadata))
        source = None if items is None else Source(items)
        binding = self._bind(method)

        def begin() -> tuple[Any, Outlet]:
            _, outlet, rpc = self._feed(method, metadata, attempts, wait)
            return rpc, outlet

        @inside
        def opened() -> GrpcDuplex[Req, Item]:
            return GrpcDuplex(
                begin, binding, partial(self._failure, binding=binding), attempts, source, Credit(credit, window)
            )

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
        """Call a one-way method: nobody is told what becomes of it; see ``Client.post``.

        It returns when the server says that it will run it. One that has too many of this connection has it wait for
        its turn, first come, first served.

        Args:
            method, request, metadata, wait: as for ``Client.post``.
            timeout: seconds, above 0, that it may wait and that the call may take; the server is told. None for the
                method's cap; without one the server is told nothing, and the time to wait is that for connecting.

        Raises:
            CallError: DEADLINE when the server did not take it in time, maybe processed unless the server says that it
                was not: it waits there, so that its turn may have come just then; SERVER_BUSY, not processed, when the
                server has no room for it at all; others as ``Client``.
        """
        if type(method) is not OneWayMethod:
            raise not_of_kind(method, OneWayMethod)
        seconds = timeout_of(method, timeout, metadata)
        binding = self._bind(method)
        payload = plain(binding.encode(request))
        patience = self._timeout if seconds is None else None
        self._unary(method, binding, payload, metadata, Attempts(seconds), self._patience(wait), patience)

    @inside
    def ping(self, timeout: float | None = None) -> float:
        """Ask the server whether it is there.

        Args:
            timeout: seconds to wait, above 0; None to wait until the connection is given up.

        Returns:
            Seconds that it took.

        Raises:
            CallError: DEADLINE when no answer came in time; ConnectionLost.
        """
        began = time.monotonic()
        try:
            self._call(CHECK, CheckRequest(), timeout=timeout)
        except CallError as error:
            if error.status is not Status.UNIMPLEMENTED:  # an answer is an answer
                raise
        return time.monotonic() - began

    def _feed(
        self,
        method: Operation[Req, Resp],
        metadata: Metadata | Mapping[str, str] | None,
        attempts: Attempts,
        wait: bool | None,
    ) -> "tuple[Binding[Req, Resp], Outlet, Any]":
        """Begin a call whose items follow."""
        binding = self._bind(method)
        headers = self._metadata(method, metadata)
        outlet = Outlet()
        begin = self._callable(method)
        try:
            rpc = (begin if method.items_come_back else begin.future)(
                outlet, timeout=attempts.left(), metadata=headers, wait_for_ready=self._patience(wait)
            )
        except BaseException as error:
            outlet.end()
            if isinstance(error, ValueError):
                raise self._closed_error() from None
            raise
        outlet.attach(rpc)
        return binding, outlet, rpc

    def _outcome(self, rpc: Any, binding: Binding[Any, Any]) -> bytes | CallError:
        """The one response to a call, or what it failed with, once it is there."""
        try:
            return self._answer(rpc, binding)
        except CallError as error:
            return error

    def _answer(self, rpc: Any, binding: Binding[Any, Any]) -> bytes:
        """The one response to a call, once it is there."""
        try:
            answer: bytes = rpc.result()
        except (grpc.RpcError, grpc.FutureCancelledError):
            raise self._failure(rpc, binding) from None
        return answer

    def _bind(self, method: Operation[Req, Resp]) -> Binding[Req, Resp]:
        self._check()
        return self._dialect.bind(method)

    def _check(self) -> None:
        if the_keeper() is not self._keeper:
            raise made_before_fork("a client that was made")
        if self._closed:
            raise self._closed_error()

    def _patience(self, wait: bool | None) -> bool:
        return self._wait if wait is None else wait

    def _callable(self, method: Any) -> Any:
        """grpcio's object that calls ``method``, on bytes; made once."""
        found = self._paths.get(method)
        if found is None:
            service = CONTROL if method.opcode >= FIRST_FRAMEWORK_OPCODE else self.service
            channel: Any = self._channel
            if method.items_follow:
                make = channel.stream_stream if method.items_come_back else channel.stream_unary
            else:
                make = channel.unary_stream if method.items_come_back else channel.unary_unary
            found = self._paths[method] = make(f"/{service.full_name}/{method.name}")
        return found

    def _metadata(self, method: Any, given: Metadata | Mapping[str, str] | None) -> Headers:
        """The headers of a call: what the caller gave, with what the client adds."""
        version = self.version if method.opcode < FIRST_FRAMEWORK_OPCODE else None
        return headers_of(version, self._authorization, given)

    def _failure(self, error: Any, binding: Binding[Any, Any] | None = None) -> CallError:
        """What grpcio raised, as what the other client would have.

        Args:
            error: of grpcio, or its object of the call.
            binding: of the method, for the details; None where there are none.
        """
        made = read_failure(error, self._address, self._was_unreached, closed=self._closed)
        beside = read_trailers(error)
        if beside.metadata:
            made.metadata = beside.metadata
        if binding is not None:
            self._dialect.read_details(binding.opcode, made)
        return made

    def _was_unreached(self) -> None:
        self._unreached = True

    def _closed_error(self) -> LocalProtocolError:
        return LocalProtocolError("the client is closed")
