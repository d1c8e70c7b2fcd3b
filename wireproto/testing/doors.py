"""A service behind all its doors for the length of a test: a server, the gateway, and a client for each codec."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wireproto import codecs as registry
from wireproto.address import Address
from wireproto.client import BlockingClient, Client
from wireproto.codecs import Codec
from wireproto.dispatch import Authenticate, Handlers
from wireproto.errors import ConfigError
from wireproto.limits import Limits
from wireproto.schema import Service
from wireproto.server import Server

if TYPE_CHECKING:
    from wireproto.server.gateway import GrpcGateway

__all__ = ["GRPC", "Running", "has_grpc", "running", "threads_end"]

GRPC = "grpc"
"""The name of the door that is no codec."""


class Running(Mapping[str, BlockingClient]):
    """What ``running`` gives: the clients by the name of their door, in the order of the codecs and then ``grpc``.

    Attributes:
        handlers: what is served.
        server: over TCP.
        gateway: over gRPC; None without it.
    """

    def __init__(
        self,
        handlers: Handlers,
        server: Server,
        gateway: "GrpcGateway | None",
        codecs: Sequence[Codec],
        limits: Limits | None,
        stack: contextlib.ExitStack,
    ) -> None:
        """For ``running`` only."""
        self.handlers = handlers
        self.server = server
        self.gateway = gateway
        self._codecs = {codec.name: codec for codec in codecs}
        self._limits = limits
        self._stack = stack
        self._clients: dict[str, BlockingClient] = {}

    @property
    def address(self) -> Address:
        """Of the server."""
        return self.server.address

    @property
    def client(self) -> BlockingClient:
        """The one of the first codec, for a test to which the codec does not matter."""
        return next(iter(self._clients.values()))

    def connect(self, door: str, service: Service | None = None) -> BlockingClient:
        """Another client, through one of the doors; it is closed with the others.

        Args:
            door: the name of a codec, or ``grpc``.
            service: what it declares; None for what is served.

        Raises:
            ConfigError: there is no such door.
            HandshakeError, ConnectionLost: as ``wireproto.connect``.
        """
        declared = self.handlers.service if service is None else service
        client: BlockingClient
        if door == GRPC and self.gateway is not None:
            client = _grpc_client(self.gateway.address, declared, self._limits)
        elif door in self._codecs:
            client = Client(self.server.address, declared, codec=self._codecs[door], limits=self._limits)
        else:
            doors = [*self._codecs, *([GRPC] if self.gateway is not None else [])]
            raise ConfigError(f"there is no door {door!r}; there are {', '.join(doors)}")
        self._stack.callback(client.close)
        client.open()
        return client

    def __getitem__(self, door: str) -> BlockingClient:
        return self._clients[door]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def __repr__(self) -> str:
        return f"<Running {self.handlers.service.full_name} behind {', '.join(self._clients)}>"


@contextlib.contextmanager
def running(
    handlers: Handlers,
    *,
    codecs: Sequence[str | Codec] | None = None,
    grpc: bool | None = None,
    service: Service | None = None,
    authenticate: Authenticate | None = None,
    limits: Limits | None = None,
    workers: int = 4,
    within: float = 10.0,
    leaks: bool = True,
) -> Iterator[Running]:
    """Serve ``handlers`` on free ports of the loopback, with a connected client for each codec and for gRPC.

        with running(handlers) as doors:
            for client in doors.values():
                assert client.call(ADD, AddRequest(left=2, right=3)).total == 5

    At the end clients and servers are closed, calls in flight get the chance to finish, and every thread that was
    started in between must be gone.

    Args:
        handlers: of one service.
        codecs: those to have a door for; None for all that are installed.
        grpc: whether there is a door for gRPC; None if its packages are installed.
        service: what the clients declare, such as ``Service.as_of`` an older version; None for what is served.
        authenticate: as for ``Server``.
        limits: of the servers and the clients.
        workers: threads of each server that run handlers.
        within: seconds that the end may take.
        leaks: whether threads that are left fail the test. False for handlers that keep threads of their own, or when
            the test opens clients that live longer.

    Yields:
        A mapping from the door's name to its client: ``Client``, and for ``grpc`` a ``GrpcClient``.

    Raises:
        AssertionError: threads are left at the end; the text says where they are. When the test itself failed, it
            is added to that failure as a note.
        ConfigError: ``grpc`` is True and not installed, or an argument is wrong.
    """
    chosen = registry.select(codecs)
    with threads_end(within) if leaks else contextlib.nullcontext(), contextlib.ExitStack() as stack:
        server = Server(handlers, codecs=chosen, limits=limits, workers=workers, authenticate=authenticate)
        server.start()
        stack.callback(server.shutdown, within)
        gateway = None
        if has_grpc() if grpc is None else grpc:
            gateway = _gateway(handlers, limits, workers, authenticate)
            gateway.start()
            stack.callback(gateway.shutdown, within)
        doors = Running(handlers, server, gateway, chosen, limits, stack)
        for door in [*(codec.name for codec in chosen), *([GRPC] if gateway is not None else [])]:
            doors._clients[door] = doors.connect(door, service)
        yield doors


@contextlib.contextmanager
def threads_end(within: float) -> Iterator[None]:
    """Fail when threads that were started in the body are there ``within`` seconds after it.

    Raises:
        AssertionError: the text says where they are. When the body failed, it is a note on that failure.
    """
    before = set(threading.enumerate())
    try:
        yield
    except BaseException as error:
        if left := _left(before, within):
            error.add_note(left)
        raise
    if left := _left(before, within):
        raise AssertionError(left)


def has_grpc() -> bool:
    """Whether the packages of the extra ``grpc`` are installed."""
    try:
        import wireproto.server.gateway  # noqa: F401
    except ConfigError:
        return False
    return True


def _gateway(
    handlers: Handlers, limits: Limits | None, workers: int, authenticate: Authenticate | None
) -> "GrpcGateway":
    from wireproto.server.gateway import GrpcGateway

    return GrpcGateway(handlers, port=0, limits=limits, workers=workers, authenticate=authenticate)


def _grpc_client(address: Address, service: Service, limits: Limits | None) -> BlockingClient:
    from wireproto.client.grpc import GrpcClient

    return GrpcClient(address, service, limits=limits)


def _left(before: set[threading.Thread], within: float) -> str:
    """Wait for the threads that were started since; what to say of those that stay, "" when there are none."""
    deadline = time.monotonic() + within
    started = [thread for thread in threading.enumerate() if thread not in before]
    for thread in started:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
    alive = [thread for thread in started if thread.is_alive() and thread is not threading.current_thread()]
    if not alive:
        return ""
    frames = sys._current_frames()
    where = [f"{thread.name} in {_place(frames.get(thread.ident or 0))}" for thread in alive]
    return f"threads are left {within:g} s after the end: {'; '.join(where)}"


def _place(frame: Any) -> str:
    """The innermost line of a stack that is not the standard library's waiting."""
    while frame is not None and frame.f_code.co_filename.endswith(("threading.py", "queue.py", "_base.py")):
        frame = frame.f_back
    return "nothing" if frame is None else f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
