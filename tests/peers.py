"""A client and a server connection without a socket, and how far to bring them."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from wireproto.connection import Connection, Role, State
from wireproto.errors import CallError, RemoteProtocolError
from wireproto.events import NEED_DATA, Event, HelloReceived
from wireproto.handshake import Hello, Offer, Welcome, negotiate
from wireproto.limits import Limits
from wireproto.status import Status

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
