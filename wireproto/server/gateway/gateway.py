"""The gateway itself: it listens, finds the handler of a call, counts, and shuts down."""

import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from wireproto import codecs
from wireproto.address import Address
from wireproto.dispatch import Authenticate, Handlers, each_service
from wireproto.errors import ConfigError
from wireproto.limits import Limits
from wireproto.server.control import control_handlers
from wireproto.server.gateway.calls import Door, StreamBehavior, UnaryBehavior, fail
from wireproto.server.gateway.pool import CountedPool
from wireproto.server.gateway.standard import Standard
from wireproto.server.life import Life
from wireproto.server.listening import listen, wanted
from wireproto.server.refusals import BUSY, busy
from wireproto.uncopied import Uncopied

__all__ = ["GrpcGateway"]

log = logging.getLogger("wireproto.gateway")

REFUSALS = 256
"""Calls that may wait to be refused; beyond them grpcio refuses by itself, in its own words."""

CONNECTION_AGE = 3600.0
"""Seconds after which a connection takes no new calls, so that clients spread over servers anew. Its calls go on."""

KEEPALIVE_TIMEOUT = 10.0
"""Seconds for the answer to a PING; after that the peer counts as gone."""

PING_INTERVAL = 10.0
"""Seconds a client has to leave between its PINGs; after two that came sooner the connection is closed."""

_SETTLE = 1.0
"""Seconds that handlers get to notice that their calls are over."""


class GrpcGateway(Uncopied):
    """Serves handlers over gRPC: the same functions, limits, statuses and authorization rule as ``Server``.

    Beside the services it has ``wirecontrol.v1.ControlService``, the standard reflection (v1 and v1alpha) and the
    standard health service. Nothing is encrypted.

    Args:
        handlers: the handlers of one service, or of several.
        host: the address to listen on; loopback unless told otherwise.
        port: 0 for a free one.
        limits: what the gateway accepts; ``docs/gateway.md`` says how each is kept over HTTP/2.
        workers: threads for unary calls, at least 1.
        streams: streams that may be open at once, at least 1; each takes a thread of its own.
        authenticate: ``f(metadata, peer) -> Identity | None`` for calls that carry ``authorization``.
        name: what the gateway calls itself.

    Raises:
        ConfigError: an argument is wrong.
        DeclarationError: two of the services define the same protobuf name.
    """

    def __init__(
        self,
        handlers: Handlers | Sequence[Handlers],
        *,
        host: str = "127.0.0.1",
        port: int = 50051,
        limits: Limits | None = None,
        workers: int = 32,
        streams: int = 512,
        authenticate: Authenticate | None = None,
        name: str = "wireproto",
    ) -> None:
        if workers < 1 or streams < 1:
            raise ConfigError(f"workers is {workers} and streams {streams}; give at least 1 of each")
        every = each_service(handlers)
        self.limits = Limits() if limits is None else limits
        self.name = name
        self._wanted = wanted(host, port)
        self._address: Address | None = None
        self._server: grpc.Server | None = None
        self._life = Life("gateway")  # without descriptors: they are grpcio's
        self._calls = CountedPool("wireproto-grpc-call", workers)
        self._refusals = CountedPool("wireproto-grpc-refusal", 2)
        self._most_calls = workers + self.limits.run_queue
        self._most_streams = streams
        self._door = Door(self.limits, CountedPool("wireproto-grpc-stream", streams))
        control = control_handlers([each.service for each in every], name, lambda: not self._life.ended)
        services = [each.service for each in (*every, control)]
        self._standard = Standard(services, self._door.streams)
        self._methods = dict(self._standard.methods)
        for each in (*every, control):
            self._add(each, authenticate)

    def _add(self, handlers: Handlers, authenticate: Authenticate | None) -> None:
        service = handlers.service
        codec = codecs.get("protobuf")
        tables = {
            version: handlers.table(codec, version, self.limits, authenticate)
            for version in range(1, service.version + 1)
        }
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            if method.is_stream:
                stream = StreamBehavior(self._door, method.opcode, tables)
                self._methods[path] = grpc.unary_stream_rpc_method_handler(stream)
            else:
                self._methods[path] = grpc.unary_unary_rpc_method_handler(
                    UnaryBehavior(self._door, method.opcode, tables)
                )

    # ------------------------------------------------------------------ life

    @property
    def address(self) -> Address:
        """Where the gateway listens; ``str`` of it is ``host:port``.

        Raises:
            ConfigError: it was not started yet.
        """
        if self._address is None:
            raise ConfigError("the gateway has no address yet; call start(), or use it in a with statement")
        return self._address

    def start(self) -> None:
        """Listen, and serve on threads of its own.

        Raises:
            ConfigError: the address cannot be listened on, or the gateway was started or shut down already; the text
                says which. A gateway that runs goes on.
        """
        self._life.begin()
        try:
            self._server, port = self._listen()
        except BaseException:
            self._life.not_begun()
            raise
        self._address = Address(self._wanted.host, port)
        try:
            self._life.begun()
        except ConfigError:
            self.shutdown(0.0)
            raise

    def _listen(self) -> tuple[grpc.Server, int]:
        if self._wanted.port != 0:
            listen(self._wanted).close()  # for the sentence: gRPC's own words are a stack of nested errors
        server = grpc.server(
            self._calls,
            handlers=[_Finder(self)],
            options=self._options(),
            maximum_concurrent_rpcs=self._most_calls + self._most_streams + REFUSALS,
        )
        try:
            port = server.add_insecure_port(str(self._wanted))
        except RuntimeError as error:
            server.stop(None)
            raise ConfigError(f"cannot listen on {self._wanted}: {error}") from error
        server.start()
        return server, port

    def _options(self) -> list[tuple[str, int]]:
        limits = self.limits
        options = {
            "grpc.so_reuseport": 0,  # two servers would share one port without an error
            "grpc.max_receive_message_length": self._door.largest,
            "grpc.max_send_message_length": self._door.largest,
            # The metadata's own size is judged exactly, by the rule of the TCP door. HTTP/2 counts 32 bytes and more
            # beside each header, so its limit only bounds what is read.
            "grpc.max_metadata_size": 8 * limits.max_metadata,
            "grpc.absolute_max_metadata_size": 8 * limits.max_metadata,
            "grpc.max_concurrent_streams": limits.max_calls,
            "grpc.max_connection_idle_ms": _milliseconds(limits.idle_timeout),
            "grpc.max_connection_age_ms": _milliseconds(CONNECTION_AGE),
            "grpc.http2.min_ping_interval_without_data_ms": _milliseconds(PING_INTERVAL),
            "grpc.http2.min_recv_ping_interval_without_data_ms": _milliseconds(PING_INTERVAL),
            "grpc.http2.max_ping_strikes": 2,
        }
        if limits.heartbeat:
            options |= {
                "grpc.keepalive_time_ms": _milliseconds(limits.heartbeat / 2),
                "grpc.keepalive_timeout_ms": _milliseconds(KEEPALIVE_TIMEOUT),
                "grpc.keepalive_permit_without_calls": 1,
                "grpc.http2.max_pings_without_data": 0,
            }
        return list(options.items())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def shutdown(self, timeout: float = 10.0) -> list[str]:
        """Say NOT_SERVING, end the streams, finish the calls in flight, close, and end the threads.

        A further call waits for the first one, and then for the threads that were left. A gateway that was not started
        is never to be.

        Args:
            timeout: seconds for the calls in flight; what is not finished then is cut off.

        Returns:
            The names of threads that are still inside a handler; they are daemons and do not keep the process alive.
        """
        deadline = time.monotonic() + timeout
        if self._life.inherited:
            return []
        if self._life.end():
            try:
                return self._end(deadline)
            except BaseException:
                self._life.interrupted()
                raise
        return self._leave(deadline) if self._life.wait(timeout) else []

    def _end(self, deadline: float) -> list[str]:
        self._standard.leave()
        self._door.close()
        if self._server is not None:
            ended = self._server.stop(max(0.0, deadline - time.monotonic()))
            ended.wait(max(0.0, deadline - time.monotonic()) + _SETTLE)
        survivors = self._leave(time.monotonic() + _SETTLE)
        self._life.over()
        return survivors

    def _leave(self, deadline: float) -> list[str]:
        pools = (self._calls, self._door.streams, self._refusals)
        return [name for pool in pools for name in pool.stop(deadline)]

    # ------------------------------------------------------------------ calls

    def find(self, path: str) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Who answers a call; counted before it is given a thread. Called by grpcio, from one thread at a time."""
        handler = self._methods.get(path)
        if handler is None:
            return None
        if handler.response_streaming:
            if self._door.streams.active >= self._most_streams:
                return self._busy(f"{self._most_streams} streams are open, the most there may be; try again later")
        elif self._calls.active >= self._most_calls:
            return self._busy(BUSY)
        return handler

    def _busy(self, text: str) -> "grpc.RpcMethodHandler[Any, Any]":
        error = busy(text)

        def refuse(payload: bytes, rpc: grpc.ServicerContext) -> bytes:
            fail(rpc, error)

        # Threads of their own: there is none to be had where the call would have run.
        vars(refuse)["experimental_thread_pool"] = self._refusals
        return grpc.unary_unary_rpc_method_handler(refuse)


class _Finder(grpc.GenericRpcHandler):
    def __init__(self, gateway: GrpcGateway) -> None:
        self._find = gateway.find

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """See ``grpc.GenericRpcHandler``."""
        return self._find(handler_call_details.method)


def _milliseconds(seconds: float) -> int:
    return min(int(seconds * 1000), 0x7FFF_FFFF)
