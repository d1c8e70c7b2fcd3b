"""A hand-driven client for server tests: one socket and one sans-IO connection, so that a test can also misbehave."""

from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from wireproto import codecs
from wireproto.conformance.raw import RawPeer
from wireproto.limits import Limits
from wireproto.schema import Message, Service
from wireproto.schema import Operation as AnyOperation
from wireproto.testing.grease import GreasingConnection
from wireproto.wire.connection import Connection, Role
from wireproto.wire.events import (
    NEED_DATA,
    CallOver,
    ConnectionEnded,
    ErrorReceived,
    Event,
    ResponseReceived,
    WelcomeReceived,
)
from wireproto.wire.frame import Credit
from wireproto.wire.handshake import Hello
from wireproto.wire.metadata import Metadata, pack_metadata

E = TypeVar("E")
Operation = AnyOperation[Any, Any]
_SEEDS = count(1)


class Listening(Protocol):
    """What a peer wants of a server."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""


class Peer:
    """A connected client that does only what it is told.

    Attributes:
        over: ids of the calls that it cancelled and that had their terminal frame, which is no event of ``event``.
    """

    def __init__(self, server: Listening, service: Service, *, codec: str = "msgpack", hello: bool = True) -> None:
        self.service = service
        self.codec = codecs.get(codec)
        self.limits = Limits()
        self.over: list[int] = []
        self.connection: Connection = GreasingConnection(Role.CLIENT, self.limits, seed=next(_SEEDS), versions=False)
        self.raw = RawPeer.connect(server.address)
        self.socket = self.raw.socket
        self.socket.settimeout(20)
        if hello:
            self.connection.send_hello(self.hello())
            self.expect(WelcomeReceived)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    def hello(self) -> Hello:
        return Hello(
            min_version=1,
            max_version=self.service.version,
            codecs=((self.codec.id, self.codec.name),),
            max_frame=self.limits.max_frame,
            service=self.service.full_name,
            digests=self.service.digests(self.service.version),
        )

    def flush(self) -> None:
        if data := self.connection.data_to_send():
            self.socket.sendall(data)

    def event(self) -> Event:
        """The next event; sends first what is queued."""
        while True:
            event = self.connection.next_event()
            if isinstance(event, CallOver):
                self.over.append(event.call_id)
                continue
            if event is not NEED_DATA:
                assert not isinstance(event, type(NEED_DATA))
                return event
            self.flush()
            if data := self.socket.recv(65536):
                self.connection.receive_data(data)
            else:
                self.connection.receive_eof()

    def expect(self, kind: type[E]) -> E:
        """The next event, which must be of ``kind``."""
        event = self.event()
        assert isinstance(event, kind), event
        return event

    def start(self, method: Operation, request: Message, metadata: Metadata | None = None) -> int:
        """Queue a request; its call id."""
        plan = self.codec.plan(method.request, self.connection.version, self.limits)
        block = b"" if metadata is None else pack_metadata(metadata)
        if method.shape.flags:
            credit = None if metadata is None else metadata.credit
            payload = b"" if method.items_follow else plan.encode(request)
            return self.connection.send_flagged_request(
                method.shape.flags, method.opcode, payload, block, credit=credit
            )
        return self.connection.send_request(method.opcode, plan.encode(request), block)

    def send(self, method: Operation, call_id: int, *items: Message) -> None:
        """Queue items of a call."""
        plan = self.codec.plan(method.request, self.connection.version, self.limits)
        for item in items:
            self.connection.send_item(call_id, plan.encode(item))

    def decode(self, method: Operation, payload: bytes) -> Any:
        return self.codec.plan(method.response, self.connection.version, self.limits, request=False).decode(payload)

    def call(self, method: Operation, request: Message, metadata: Metadata | None = None) -> Any:
        """One call, answered."""
        call_id = self.start(method, request, metadata)
        event = self.expect(ResponseReceived)
        assert event.call_id == call_id
        return self.decode(method, event.payload)

    def fail(self, method: Operation, request: Message, metadata: Metadata | None = None) -> Any:
        """One call, refused: the error."""
        call_id = self.start(method, request, metadata)
        event = self.expect(ErrorReceived)
        assert event.call_id == call_id
        return event.error

    def ended(self) -> ConnectionEnded:
        """Read to the end; everything before it is dropped."""
        while True:
            event = self.event()
            if isinstance(event, ConnectionEnded):
                return event


def window(items: int, size: int = 2**30) -> Credit:
    """Credit of so many items, and of more bytes than a test of items has."""
    return Credit(items, size)


def until(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    """Wait for a condition that no event announces, such as the number of threads."""
    import threading
    import time

    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        pause.wait(0.01)
