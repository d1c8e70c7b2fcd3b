"""The sides of the model put in front of the real thing: a ``Connection`` of either role, and its bytes."""

from collections import deque
from typing import Final

from tests.properties.wire_model.frames import (
    NO_CREDIT,
    Amount,
    CallShape,
    ConnectionEnds,
    CreditExceeded,
    CreditOverflow,
    ModelFrame,
    StrayAnswers,
    TooManyFrames,
    WrongCallId,
    WrongHalf,
)
from tests.properties.wire_model.rules import Rules, Scale
from wireproto.errors import CallError, LocalProtocolError, RemoteProtocolError
from wireproto.status import Retry, Status
from wireproto.testing.grease import GreasingConnection
from wireproto.wire import events
from wireproto.wire.calls import CallPart
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.frame import (
    IGNORABLE,
    TOP_BIT,
    Credit,
    Flag,
    Kind,
    unpack,
    unpack_credit,
    unpack_error,
    unpack_goaway,
)
from wireproto.wire.handshake import Hello, Welcome
from wireproto.wire.metadata import Metadata, pack_metadata
from wireproto.wire.state import END_OF_INPUT, FINAL

__all__ = ["ConnectionSide", "connection_for"]

OPCODE: Final = 7
ENDS: Final = {
    each.reason: each for each in (WrongCallId, WrongHalf, CreditExceeded, CreditOverflow, TooManyFrames, StrayAnswers)
}


class CarriedFrame(ModelFrame):
    """A frame with its bytes. Beside them it has what no byte says: the number, and what is wrong with a REQUEST."""

    data: bytes = b""


def connection_for(role: Role, scale: Scale, seed: str = "") -> Connection:
    """An open connection whose numbers are those of the scale; with a seed both sides grease, wherever they may."""

    class SmallConnection(GreasingConnection if seed else Connection):  # type: ignore[misc]
        __slots__ = ()
        _circle = scale.modulus
        _most_crossed = scale.bucket
        _most_stray = scale.max_stray
        _overrun = scale.max_size

    first = Credit(*scale.first)
    hello = Hello(
        min_version=1,
        max_version=1,
        codecs=((2, "msgpack"),),
        max_frame=4096,
        max_calls=scale.max_calls,
        first_credit=first,
        one_way_credit=scale.one_way,
    )
    welcome = Welcome(
        version=1,
        codec=2,
        max_frame=4096,
        max_calls=scale.max_calls,
        first_credit=first,
        one_way_credit=scale.one_way,
    )
    given = {"seed": seed, "versions": False} if seed else {}
    client, server = SmallConnection(Role.CLIENT, **given), SmallConnection(Role.SERVER, **given)
    client.send_hello(hello)
    server.receive_data(client.data_to_send())
    assert isinstance(server.next_event(), events.HelloReceived)
    server.send_welcome(welcome)
    client.receive_data(server.data_to_send())
    assert isinstance(client.next_event(), events.WelcomeReceived)
    mine = client if role is Role.CLIENT else server
    if scale.begins_after:
        for calls in (mine._ours, mine._theirs):
            calls.begin(calls.top_bit + scale.begins_after)
    return mine


class ConnectionSide:
    """One side of a connection: the server if ``top_bit`` is set in the ids of the calls that it begins."""

    def __init__(self, top_bit: int, scale: Scale, rules: Rules) -> None:
        assert rules == Rules(), "the real connection has no switches"
        self.output: deque[ModelFrame] = deque()
        self.dropped_items = 0
        self._frames = 0  # every other one is read in the short way, if it has one
        self._top_bit = top_bit
        self._connection = self.make(Role.SERVER if top_bit else Role.CLIENT, scale)

    def make(self, role: Role, scale: Scale) -> Connection:
        """The connection that is put in the place of the side."""
        return connection_for(role, scale)

    # Sending.

    def _sent(self, number: int = 0, reason: str = "") -> bool:
        """Put what the connection has queued into the output, frame by frame."""
        data = self._connection.data_to_send()
        at = 0
        while at < len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            self.output.append(carried(data[at:end], number, reason))
            at = end
        return True

    def begin(self, shape: CallShape, number: int, credit: Amount = NO_CREDIT, refusal: str = "") -> int | None:
        """Send a REQUEST, by the short way if it is unary."""
        connection, flags = self._connection, shape.value
        if not flags & Flag.ONE_WAY and connection.own_calls >= connection.their_max_calls:
            return None
        try:
            if not flags:
                call_id = connection.send_request(OPCODE, b"request")
            elif flags & Flag.ITEMS_COME_BACK:
                granted = Credit(*credit)
                block = pack_metadata(Metadata(credit=granted))
                payload = b"" if flags & Flag.ITEMS_FOLLOW else b"request"
                call_id = connection.send_flagged_request(flags, OPCODE, payload, block, credit=granted)
            else:
                call_id = connection.send_flagged_request(flags, OPCODE, b"")
        except LocalProtocolError:
            return None
        self._sent(number, refusal)
        return call_id

    def send_item(self, call_id: int, number: int, size: int) -> bool:
        """Send an ITEM of our half of the call."""
        try:
            self._connection.send_item(call_id, bytes(size))
        except LocalProtocolError:
            return False
        return self._sent(number)

    def send_end(self, call_id: int) -> bool:
        """Complete our half of a call."""
        try:
            self._connection.send_end(call_id)
        except LocalProtocolError:
            return False
        return self._sent()

    def send_response(self, call_id: int) -> bool:
        """Answer a call whose answer half is no stream."""
        try:
            self._connection.send_response(call_id, b"response")
        except LocalProtocolError:
            return False
        return self._sent()

    def send_error(self, call_id: int, reason: str) -> bool:
        """Fail a call that the other side began."""
        try:
            self._connection.send_error(call_id, CallError(Status.INTERNAL, reason))
        except LocalProtocolError:
            return False
        return self._sent()

    def send_cancel(self, call_id: int) -> bool:
        """No longer want the answer to a call of ours."""
        return self._connection.send_cancel(call_id) and self._sent()

    def send_credit(self, call_id: int, credit: Amount) -> bool:
        """Let the other side send more ITEMs of its half of a call."""
        return self._connection.send_credit(call_id, *credit) and self._sent()

    def send_one_way_credit(self, items: int) -> bool:
        """Let the other side send more one-way calls."""
        return self._connection.send_one_way_credit(items) and self._sent()

    def send_goaway(self) -> bool:
        """Accept no more calls."""
        try:
            self._connection.send_goaway(CallError(Status.UNAVAILABLE, "SHUTTING_DOWN", retry=Retry.NOT_PROCESSED))
        except LocalProtocolError:
            return False
        return self._sent()

    def half_close(self) -> bool:
        """Send nothing more, and still receive the answers to our calls."""
        try:
            self._connection.end_output()
        except LocalProtocolError:
            return False
        self.output.append(CarriedFrame(END_OF_INPUT))
        return True

    def end_connection(self) -> bool:
        """Send a final ERROR."""
        try:
            self._connection.refuse(CallError(Status.UNAVAILABLE, "SHUTTING_DOWN"))
        except LocalProtocolError:
            self._connection.close()
            return False
        return self._sent()

    def lose(self) -> None:
        """The connection is gone."""
        self._connection.close()

    def hold(self) -> None:
        """Handlers that run on are the program's to count."""

    def release(self) -> None:
        """Handlers that run on are the program's to count."""

    def may_send_item(self, call_id: int) -> bool:
        """Whether our half of the call has the credit for an ITEM."""
        items, size = self._connection.credit(call_id)
        return items >= 1 and size >= 1

    def lies_behind(self, call_id: int, last: int) -> bool:
        """Whether a call of ours began after the one that the other side's GOAWAY named."""
        return self._connection.lies_behind(call_id, last)

    def calls_in_flight(self, part: CallPart) -> int:
        """How many calls in flight this side began, or answers."""
        if self._connection.state is State.CLOSED:
            return 0
        return self._connection.own_calls if part is CallPart.BEGAN else self._connection.peer_calls

    # Receiving.

    def receive(self, frame: ModelFrame) -> ModelFrame | None:
        """Judge a frame by its bytes."""
        assert isinstance(frame, CarriedFrame)
        connection = self._connection
        if connection.state is State.CLOSED:
            return None
        event = self._event_of(frame)
        if isinstance(event, events.ConnectionEnded):
            if isinstance(event.error, RemoteProtocolError):
                raise ENDS.get(event.error.reason, ConnectionEnds)(str(event.error))
            assert frame.kind in (FINAL, END_OF_INPUT)
            return frame
        if event is None:
            self.dropped_items += frame.kind == Kind.ITEM
            self._sent()
            return None
        if isinstance(event, events.RequestReceived | events.FlaggedRequestReceived) and frame.reason:
            if frame.flags & Flag.ONE_WAY:
                return frame
            self.send_error(event.call_id, frame.reason)
            return None
        check(frame, event)
        return frame

    def _event_of(self, frame: CarriedFrame) -> events.Event | None:
        connection = self._connection
        if frame.kind == END_OF_INPUT:
            connection.receive_eof()
        elif (request := connection.lone_request(frame.data)) is not None:
            return request
        else:
            connection.receive_data(frame.data)
        self._frames += 1
        if self._frames % 2:
            event = connection.next_event()
            return None if isinstance(event, events.NeedData) else event
        found = connection.next_events(2)
        assert len(found) <= 1
        return found[0] if found else None


def carried(data: bytes, number: int, reason: str) -> CarriedFrame:
    """The frame that these bytes are."""
    frame = unpack(data)
    if frame.kind & IGNORABLE:
        ignored = CarriedFrame(frame.kind)
        ignored.data = data
        return ignored
    kind = FINAL if frame.kind == Kind.ERROR and not frame.call_id else frame.kind
    given = CarriedFrame(
        kind,
        frame.call_id,
        Flag(frame.flags),
        number,
        len(frame.payload) if kind == Kind.ITEM else 0,
        Amount(*unpack_credit(frame)) if kind == Kind.CREDIT else NO_CREDIT,
        unpack_error(frame.payload).reason if kind == Kind.ERROR else reason,
        unpack_goaway(frame)[0] & ~TOP_BIT if kind == Kind.GOAWAY else 0,
    )
    given.data = data
    return given


def check(frame: ModelFrame, event: events.Event) -> None:
    """The event says what the frame says."""
    assert frame.call_id == getattr(event, "call_id", 0)
    match event:
        case events.RequestReceived():
            assert (frame.kind, frame.flags) == (Kind.REQUEST, 0)
        case events.FlaggedRequestReceived():
            assert (frame.kind, frame.flags) == (Kind.REQUEST, event.flags)
        case events.ItemReceived():
            assert (frame.kind, frame.size) == (Kind.ITEM, len(event.payload))
        case events.CreditReceived():
            assert Credit(*frame.credit) == event.more
        case events.OneWayCreditReceived():
            assert frame.credit == (event.calls, 0)
        case events.ErrorReceived():
            assert frame.reason == event.error.reason
        case events.GoAwayReceived():
            assert frame.last == event.last_call_id & ~TOP_BIT
        case events.CallOver():
            assert frame.kind in (Kind.RESPONSE, Kind.END, Kind.ERROR)
        case events.RequestEnded() | events.EndReceived():
            assert frame.kind == Kind.END
        case _:
            assert isinstance(event, events.ResponseReceived | events.CancelReceived)
