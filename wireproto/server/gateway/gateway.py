"""The gateway itself: it listens, over an engine, and shuts down."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from wireproto import codecs
from wireproto.address import Address
from wireproto.dispatch import Authenticate, Entry, Handlers, each_service
from wireproto.errors import ConfigError
from wireproto.limits import Limits
from wireproto.server.control import control_handlers
from wireproto.server.gateway.door import Door, Versions, largest
from wireproto.server.gateway.engines import EngineName, make_engine
from wireproto.server.gateway.halves import LOOKAHEAD
from wireproto.server.gateway.health import HEALTH, HealthChecks
from wireproto.server.gateway.log_lines import filter_log_lines
from wireproto.server.gateway.reflection import Reflection, ReflectionCall
from wireproto.server.gateway.rpc import PARTING
from wireproto.server.gateway.seam import Engine, Wire
from wireproto.server.life import Life
from wireproto.server.listening import listen, wanted
from wireproto.uncopied import Uncopied
from wireproto.wire.metadata import EMPTY, Metadata

__all__ = ["GrpcGateway"]

CONNECTION_AGE = 3600.0
"""Seconds after which a connection takes no new calls, so that clients spread over servers anew. Its calls go on."""

KEEPALIVE_TIMEOUT = 10.0
"""Seconds for the answer to a PING; after that the peer counts as gone."""

PING_INTERVAL = 10.0
"""Seconds a client has to leave between its PINGs; after two that came sooner the connection is closed."""

LULL = 0.25
"""Seconds at most for which calls that come at the end are kept before anybody is told to go. From then on gRPC's core
cancels what comes, without a word; who waits for an answer sends nothing, and is told to go before it is refused."""

_PENDING = 8192
"""Calls that gRPC's core keeps until we ask for them, which we do at once; it cancels those beyond. So many may come
before a good caller's own: each takes 20 to 60 us, and 17 KiB until then. 32 connections with all the calls that they
may have fit in, even where the door is held up meanwhile."""

_SETTLE = 1.0
"""Seconds that handlers get to notice that their calls are over, and the engine to say so."""


class GrpcGateway(Uncopied):
    """Serves handlers over gRPC: the same functions, limits, statuses and authorization rule as ``Server``.

    Beside the services it has ``wirecontrol.v1.ControlService``, the standard reflection (v1 and v1alpha) and the
    standard health service. Nothing is encrypted.

    Args:
        handlers: the handlers of one service, or of several.
        host: the address to listen on; loopback unless told otherwise.
        port: 0 for a free one.
        limits: what the gateway accepts; ``docs/gateway.md`` says how each is kept over HTTP/2.
        workers: threads, at least 2.
        authenticate: ``f(metadata, peer) -> Identity | None`` for calls that carry ``authorization``.
        name: what the gateway calls itself.
        engine: ``core``, a loop over gRPC's core that takes a half to two thirds of the CPU; ``public``, which is
            ``grpc.aio``; ``auto``: the first where the grpcio that is installed is one that it was tried with.

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
        workers: int = 30,
        authenticate: Authenticate | None = None,
        name: str = "wireproto",
        engine: EngineName = "auto",
    ) -> None:
        self._engine_name = engine
        if workers < 2:
            raise ConfigError(f"workers is {workers}; a gateway needs at least 2, one to lead and one to follow")
        every = each_service(handlers)
        self.limits = Limits() if limits is None else limits
        self.name = name
        self._wanted = wanted(host, port)
        self._address: Address | None = None
        self._life = Life("gateway")  # without descriptors: they are grpcio's
        self._engine: Engine | None = None
        self._door: Door | None = None
        self._workers = workers
        control = control_handlers([each.service for each in every], name, lambda: not self._life.ended)
        hosted = [*every, control]
        services = [each.service for each in hosted]
        self._reflection = Reflection(services)
        self._health = HealthChecks([*(service.full_name for service in services), HEALTH], self.limits)
        codec = codecs.get("protobuf")
        self._tables = [
            (
                each.service,
                {version: each.table(codec, version, self.limits, authenticate) for version in each.service.versions},
            )
            for each in hosted
        ]

    def _door_behind(self, engine: Engine) -> Door:
        """Who answers what."""
        door = Door(self.limits, engine, self._workers)
        for service, tables in self._tables:
            for table in tables.values():
                door.keep_pace(table.entries.values())
            for method in service.methods:
                if method.by == "server":
                    continue  # gRPC has no calls of a server
                versions = Versions(method.opcode, tables, self.limits.max_metadata)
                door.serve(f"/{service.full_name}/{method.name}", versions, method.shape)
        door.keep_pace(self._health.entries.values())
        for name, entry in self._health.entries.items():
            door.serve(f"/{HEALTH}/{name}", Alone(entry), entry.shape)
        for path in self._reflection.paths:
            door.methods[path] = lambda wire: ReflectionCall(door, wire, self._reflection)
        return door

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
        filter_log_lines()
        try:
            listen(self._wanted).close()  # for the sentence: gRPC's own words are a stack of nested errors
            port = self._open()
        except BaseException:
            self._life.not_begun()
            raise
        self._address = Address(self._wanted.host, port)
        try:
            self._life.begun()
        except ConfigError:
            self.shutdown(0.0)
            raise

    def _open(self) -> int:
        """Make the door and its threads, and serve; the port. Whatever goes wrong, nothing is left of them."""
        engine = make_engine(self._engine_name, self._wanted, self._options())
        door = self._door_behind(engine)
        try:
            door.pool.start()
            port = engine.listen(door.begin, door.one_answer, door.hang_up)
            door.listens(port)
            engine.start()
        except BaseException as error:
            engine.stop(time.monotonic())
            door.pool.stop(time.monotonic() + _SETTLE)
            engine.close()
            if isinstance(error, RuntimeError):
                raise ConfigError(
                    f"{self._workers} threads cannot be started: {error}; give fewer workers, or allow more threads"
                ) from error
            raise
        self._engine, self._door = engine, door
        return port

    def _options(self) -> list[tuple[str, int]]:
        limits = self.limits
        options = {
            "grpc.so_reuseport": 0,  # two servers would share one port without an error
            "grpc.max_receive_message_length": largest(self.limits),
            "grpc.max_send_message_length": largest(self.limits),
            # The metadata's own size is judged exactly, by the rule of the TCP door. HTTP/2 counts 32 bytes and more
            # beside each header, so its limit only bounds what is read.
            "grpc.max_metadata_size": 8 * limits.max_metadata,
            "grpc.absolute_max_metadata_size": 8 * limits.max_metadata,
            "grpc.max_concurrent_streams": limits.max_calls,
            # gRPC's own guesses at overload count calls that have ended and are not freed yet, and refuse clients that
            # keep to the number above.
            "grpc.http.overload_protection": 0,
            "grpc.server.max_pending_requests": _PENDING,
            "grpc.server.max_pending_requests_hard_limit": _PENDING,
            # What a caller may send of a message before anybody asks for it; probing would let it grow.
            "grpc.http2.lookahead_bytes": LOOKAHEAD,
            "grpc.http2.bdp_probe": 0,
            # With room for those that say nothing, who can be hung up on only once they are there.
            "grpc.max_allowed_incoming_connections": limits.max_connections + 4 * limits.max_handshaking,
            "grpc.server_handshake_timeout_ms": _milliseconds(limits.hello_timeout),
            "grpc.http2.settings_timeout": _milliseconds(limits.hello_timeout),
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
                return self._end(timeout)
            except BaseException:
                self._life.interrupted()
                raise
        return self._leave(deadline) if self._life.wait(timeout) else []

    def _end(self, timeout: float) -> list[str]:
        deadline = time.monotonic() + timeout
        self._health.leave()
        if self._door is not None and self._engine is not None:
            self._door.drain()
            self._door.settle(min(LULL, timeout))
            self._engine.drain()
            self._door.dismiss()
            self._door.wait(timeout)
            self._door.cut()
            self._door.wait(PARTING + _SETTLE)
            self._engine.stop(time.monotonic() + _SETTLE)
            self._door.abandon()
        survivors = self._leave(max(deadline, time.monotonic()) + _SETTLE)
        self._life.over()
        return survivors

    def _leave(self, deadline: float) -> list[str]:
        """End the threads; once none is left, nobody polls any more."""
        if self._door is None or self._engine is None:
            return []
        survivors = self._door.pool.stop(deadline)
        if not survivors:
            self._engine.close()
        return survivors


class Alone:
    """A method that has one version and no metadata of ours; see ``rpc.PathTarget``."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def terms(self, wire: Wire) -> tuple[Entry, Metadata, int]:
        """See ``rpc.PathTarget``."""
        remaining = wire.remaining()
        return self._entry, EMPTY if remaining is None else Metadata(deadline_ms=int(remaining * 1000)), 1


def _milliseconds(seconds: float) -> int:
    return min(int(seconds * 1000), 0x7FFF_FFFF)
