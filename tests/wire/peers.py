"""A client and a server connection without a socket, and how far to bring them."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec

from wireproto.errors import CallError, HandshakeError, RemoteProtocolError
from wireproto.limits import Limits
from wireproto.status import Retry, Status
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import NEED_DATA, ConnectionEnded, Event, HelloReceived
from wireproto.wire.frame import (
    HEADER,
    NO_CREDIT,
    OF_CALLS,
    OF_MESSAGES,
    PREAMBLE,
    TOP_BIT,
    Credit,
    Flag,
    Kind,
    pack,
    pack_error,
    unpack,
    unpack_error,
)
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


FIRST = Credit(2, 10)
"""The first credit of request halves on a pair that takes calls both ways."""


def opened_both_ways(
    first: Credit = FIRST, *, one_way: int = 2, max_calls: int = 3, packing: int = 0, limits: Limits | None = None
) -> Pair:
    """The handshake is done, and either side may begin calls of any shape: both accept the same of each other."""
    accepted: dict[str, object] = {"max_calls": max_calls, "first_credit": first, "one_way_credit": one_way}
    accepted["packing"] = (packing,) if packing else ()
    pair = started(limits)
    pair.client.send_hello(msgspec.structs.replace(HELLO, **accepted))
    (event,) = pair.deliver(pair.client)
    assert isinstance(event, HelloReceived)
    pair.server.send_welcome(msgspec.structs.replace(welcome(limits), **accepted))
    pair.deliver(pair.server)
    return pair


def going_away(limits: Limits | None = None) -> Pair:
    """The server has said GOAWAY and the client has read it; call 1 is in flight."""
    pair = in_call(limits)
    pair.server.send_goaway(GOODBYE)
    pair.deliver(pair.server)
    return pair


def half_closed(limits: Limits | None = None) -> Pair:
    """The client has ended its output, and the server has read that, while call 1 is in flight."""
    pair = in_call(limits)
    pair.client.end_output()
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
    """What the server answers to ``HELLO``; it grants no credit for what the client may send."""
    answer = negotiate(HELLO, OFFERS, limits or Limits(), "test/1")
    return msgspec.structs.replace(answer, first_credit=NO_CREDIT, one_way_credit=0)


IN_STATE: dict[State, Callable[[], Pair]] = {
    State.START: started,
    State.GREETING: greeted,
    State.OPEN: opened,
    State.HALF_CLOSED: half_closed,
    State.CLOSED: closed,
}


NOT_FOUND = CallError(Status.NOT_FOUND, "GONE", "no such thing", retry=Retry.NEVER, retry_after_ms=7)
STREAM_CREDIT = Credit(2, 100)
STREAM = pack_metadata(Metadata(credit=STREAM_CREDIT))
NO_SERVICE = HandshakeError(Status.NOT_FOUND, "UNKNOWN_SERVICE", "none")
PING = pack(Kind.PING, 0, 0, 0, 0, b"", b"trailing")


ERROR_BODY = pack_error(NOT_FOUND)
ROOM = Credit(5, 1_000)


def in_call(limits: Limits | None = None) -> Pair:
    """Open, with unary call 1 in flight."""
    pair = opened(limits)
    pair.client.send_request(0x10, b"")
    pair.deliver(pair.client)
    return pair


def begin_stream(side: Connection, opcode: int = 0x10, credit: Credit = STREAM_CREDIT) -> int:
    """Send the REQUEST of a stream of the peer's items."""
    block = pack_metadata(Metadata(credit=credit))
    return side.send_flagged_request(Flag.ITEMS_COME_BACK, opcode, b"", block, credit=credit)


def in_stream() -> Pair:
    """Open, with call 1, a stream that has ``STREAM_CREDIT``, in flight."""
    pair = opened()
    begin_stream(pair.client)
    pair.deliver(pair.client)
    return pair


def numbered_after(last: int, *sides: Connection) -> None:
    """To these connections ``last`` was the id of the latest REQUEST of the side whose top bit it has."""
    for side in sides:
        side._calls_of(last).begin(last)


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
    """A connection in ``state``; where there can be calls, one of each side, both halves of them streams.

    Call 1 is the client's, and the one with the top bit the server's. A side that has half-closed, or whose peer has,
    keeps the client's alone.
    """
    pair = IN_STATE[state]()
    side = pair.client if role is Role.CLIENT else pair.server
    assert side.state is state
    side.data_to_send()
    if state in (State.OPEN, State.HALF_CLOSED):
        side._calls_of(1).open(1, 0x10, Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK, ROOM, ROOM)
    if state is State.OPEN:
        side._calls_of(TOP_BIT).open(TOP_BIT | 1, 0x10, Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK, ROOM, ROOM)
    return side
