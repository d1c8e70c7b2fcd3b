"""A client and a server connection without a socket, and how far to bring them."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec

from wireproto.errors import CallError, HandshakeError, RemoteProtocolError
from wireproto.limits import Limits
from wireproto.status import Retry, Status
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import NEED_DATA, ConnectionEnded, Event, HelloReceived
from wireproto.wire.frame import HEADER, OF_CALLS, OF_MESSAGES, PREAMBLE, Kind, pack, pack_error, unpack, unpack_error
from wireproto.wire.handshake import Hello, Offer, Welcome, negotiate
from wireproto.wire.metadata import Metadata, pack_metadata

SERVICE = "example.v1.CalculatorService"
CODEC = 2
VERSION = 1
HELLO = Hello(
    min_version=1,
    max_version=VERSION,
    codecs=((CODEC, "msgpack"), (1, "pipe")),
    max_frame=65_536,
    client_name="test",
    service=SERVICE,
)
OFFERS = {SERVICE: Offer(SERVICE, VERSION, {1: "pipe", 2: "msgpack"}, lambda version: {})}
GOODBYE = CallError(Status.UNAVAILABLE, "SHUTTING_DOWN", "the server is shutting down")

T = TypeVar("T")
R = TypeVar("R")


class Pair(NamedTuple):
    """Two connections and what travels between them."""

    client: Connection
    server: Connection

    def other(self, side: Connection) -> Connection:
        """The peer of ``side``."""
        return self.server if side is self.client else self.client

    def deliver(self, sender: Connection) -> list[Event]:
        """Hand over everything ``sender`` has queued and return what its peer reports."""
        receiver = self.other(sender)
        receiver.receive_data(sender.data_to_send())
        return drain(receiver)

    def settle(self) -> None:
        """Deliver in both directions until nothing is queued."""
        while self.client.bytes_pending or self.server.bytes_pending:
            self.deliver(self.client)
            self.deliver(self.server)


def drain(connection: Connection) -> list[Event]:
    """Every event there is in what was received so far."""
    events: list[Event] = []
    while (event := connection.next_event()) is not NEED_DATA:
        events.append(event)
    return events


def attempt(function: Callable[[T], R], argument: T) -> R | RemoteProtocolError | CallError:
    """What a function that reads a peer's bytes returns or, of the two errors it may raise, raises."""
    try:
        return function(argument)
    except (RemoteProtocolError, CallError) as error:
        return error


def started(limits: Limits | None = None) -> Pair:
    """Two connections that have exchanged nothing."""
    return Pair(Connection(Role.CLIENT, limits), Connection(Role.SERVER, limits))


def greeted(limits: Limits | None = None) -> Pair:
    """The server has HELLO and owes the answer."""
    pair = started(limits)
    pair.client.send_hello(HELLO)
    (event,) = pair.deliver(pair.client)
    assert isinstance(event, HelloReceived)
    return pair


def opened(limits: Limits | None = None) -> Pair:
    """The handshake is done."""
    pair = greeted(limits)
    pair.server.send_welcome(welcome(limits))
    pair.deliver(pair.server)
    assert pair.client.state is pair.server.state is State.OPEN
    return pair


def draining(limits: Limits | None = None) -> Pair:
    """The server has said GOAWAY and the client has read it; call 1 is in flight."""
    pair = opened(limits)
    pair.client.send_request(0x10, b"")
    pair.deliver(pair.client)
    pair.server.send_goaway(GOODBYE)
    pair.deliver(pair.server)
    return pair


def half_closed(limits: Limits | None = None) -> Pair:
    """The client's side ended its output while call 1 is in flight; for the server only."""
    pair = opened(limits)
    pair.client.send_request(0x10, b"")
    pair.deliver(pair.client)
    pair.server.receive_eof()
    drain(pair.server)
    return pair


def closed(limits: Limits | None = None) -> Pair:
    """Both sides are done."""
    pair = opened(limits)
    pair.client.close()
    pair.server.close()
    drain(pair.client)
    drain(pair.server)
    return pair


def welcome(limits: Limits | None = None) -> Welcome:
    """What the server answers to ``HELLO``."""
    return negotiate(HELLO, OFFERS, limits or Limits(), "test/1")


IN_STATE: dict[State, Callable[[], Pair]] = {
    State.START: started,
    State.GREETING: greeted,
    State.OPEN: opened,
    State.DRAINING: draining,
    State.HALF_CLOSED: half_closed,
    State.CLOSED: closed,
}


NOT_FOUND = CallError(Status.NOT_FOUND, "GONE", "no such thing", retry=Retry.NEVER, retry_after_ms=7)
STREAM = pack_metadata(Metadata(credit=2))
NO_SERVICE = HandshakeError(Status.NOT_FOUND, "UNKNOWN_SERVICE", "none")
PING = pack(Kind.PING, 0, 0, 0, 0, b"", b"trailing")


ERROR_BODY = pack_error(NOT_FOUND)


def in_call() -> Pair:
    """Open, with unary call 1 in flight."""
    pair = opened()
    pair.client.send_request(0x10, b"")
    pair.deliver(pair.client)
    return pair


def in_stream() -> Pair:
    """Open, with call 1, a stream that has credit for two items, in flight."""
    pair = opened()
    pair.client.send_request(0x10, b"", STREAM, credit=2)
    pair.deliver(pair.client)
    return pair


def plain(value: object) -> object:
    """A value that compares by content, errors included."""
    if isinstance(value, msgspec.Struct):
        return type(value), *(plain(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, CallError):
        return type(value), value.status, value.reason, value.message, value.retry, value.retry_after_ms
    if isinstance(value, RemoteProtocolError):
        return type(value), value.status, value.reason, value.problem
    return value


def reasons(receiver: Connection) -> list[str]:
    """The reasons of the ends reported; nothing else may be reported."""
    found = []
    for event in drain(receiver):
        assert isinstance(event, ConnectionEnded)
        assert event.error is not None
        found.append(event.error.reason)
    return found


def raw(kind: int, payload: bytes = b"", metadata: bytes = b"", **changes: int) -> bytes:
    """A frame as it must be on the test's connections, but for what is changed."""
    of_message, of_call = kind in OF_MESSAGES, kind in OF_CALLS
    right = {"codec": 2 * of_message, "version": 1 * of_message, "opcode": 0x10 * of_call, "call_id": 1 * of_call}
    fields = {
        "flags": 0,
        "metadata_length": len(metadata),
        "length": 12 + len(metadata) + len(payload),
        **right,
        **changes,
    }
    header = HEADER.pack(
        fields["length"],
        kind,
        fields["flags"],
        fields["codec"],
        fields["version"],
        fields["opcode"],
        fields["metadata_length"],
        fields["call_id"],
    )
    return header + metadata + payload


def final_error(sent: bytes) -> CallError:
    """The final ERROR at the end of what was sent, after whatever else."""
    sent = sent.removeprefix(PREAMBLE)
    while True:
        frame = unpack(sent)
        sent = sent[16 + len(frame.metadata) + len(frame.payload) :]
        if not sent:
            assert (frame.kind, frame.call_id, frame.codec, frame.version) == (Kind.ERROR, 0, 0, 0)
            return unpack_error(frame.payload)


def in_state(role: Role, state: State) -> Connection:
    """A connection in ``state``, with a stream as call 1 in flight where there can be one."""
    pair = IN_STATE[state]()
    side = pair.client if role is Role.CLIENT else pair.server
    assert side.state is state
    side.data_to_send()
    if state not in (State.START, State.GREETING, State.CLOSED):
        side._calls[1] = 0x10
        side._credits = {1: 5}
    return side
