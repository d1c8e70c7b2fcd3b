"""A client and a server connection back to back, against a model of what each must report.

The model is written from ``docs/protocol.md`` and knows nothing of the connections: for every frame sent it keeps
what the frame says, and when its last byte is delivered it says what the receiver must report and answer by itself.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.wire.peers import GOODBYE, Pair, drain, opened, plain
from wireproto.errors import CallError, LocalProtocolError
from wireproto.limits import Limits
from wireproto.status import Retry, Status
from wireproto.wire.connection import Connection, State
from wireproto.wire.events import (
    CancelReceived,
    ConnectionEnded,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    Event,
    GoAwayReceived,
    ItemReceived,
    PingReceived,
    PongReceived,
    RequestReceived,
    ResponseReceived,
)
from wireproto.wire.frame import unpack, unpack_error
from wireproto.wire.metadata import EMPTY, Metadata, pack_metadata

MAX_CALLS = 4
PAYLOADS = st.binary(max_size=20)
WRAP = 2**32
TOO_MANY = CallError(Status.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS", retry=Retry.NOT_PROCESSED)
DRAINING = CallError(Status.UNAVAILABLE, "SHUTTING_DOWN", retry=Retry.NOT_PROCESSED)


class Sent(NamedTuple):
    """A frame on its way: what it says, and where it lies among all bytes of its direction."""

    kind: str
    call_id: int = 0
    opcode: int = 0
    payload: bytes = b""
    amount: int = 0
    error: CallError | None = None
    begin: int = 0
    end: int = 0


@dataclass
class ClientCall:
    """What the client knows of a call."""

    opcode: int
    credit: int | None  # None: unary
    cancelled: bool = False


@dataclass
class ServerCall:
    """What the server knows of a call in flight."""

    opcode: int
    stream: bool
    credit: int = 0


@dataclass
class Way:
    """One direction: bytes under way and the frames they are."""

    data: bytearray = field(default_factory=bytearray)
    frames: deque[Sent] = field(default_factory=deque)
    delivered: int = 0

    def put(self, data: bytes, frame: Sent) -> None:
        """Send a frame on its way."""
        begin = self.delivered + len(self.data)
        self.data += data
        self.frames.append(frame._replace(begin=begin, end=begin + len(data)))

    def take(self, count: int) -> bytes:
        """Bytes that arrive."""
        taken = bytes(self.data[:count])
        del self.data[:count]
        self.delivered += len(taken)
        return taken

    def arrived(self) -> Iterator[Sent]:
        """The frames that have arrived whole."""
        while self.frames and self.frames[0].end <= self.delivered:
            yield self.frames.popleft()

    @property
    def at_boundary(self) -> bool:
        """Whether no frame has arrived in part."""
        return not self.frames or self.frames[0].begin >= self.delivered


class ConnectionMachine(RuleBasedStateMachine):
    """Both sides send what they may, bytes arrive in any pieces, and every report is as the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: Pair = opened(Limits(max_calls=MAX_CALLS))
        self.to_server = Way()
        self.to_client = Way()
        self.ours: dict[int, ClientCall] = {}  # the client's calls in flight
        self.theirs: dict[int, ServerCall] = {}  # the server's
        self.held = 0
        self.draining = False  # GOAWAY was sent
        self.told = False  # ... and received
        self.half_closed = False
        self.last_seen = 0  # the last REQUEST the server read

    @initialize(last=st.sampled_from([0, 0, 7, 2**31 - 2, 2**32 - 3, 2**32 - 1]))
    def begin(self, last: int) -> None:
        """Begin anywhere in the circle of ids, so that some runs wrap."""
        self.pair.client.last_call_id = self.pair.server.last_call_id = last
        self.last_seen = last

    def some_call(self, data: st.DataObject, among: Iterable[int]) -> int:
        """One of these calls; now and then one that is over, or was never begun."""
        known = sorted(among)
        if not known or data.draw(st.integers(0, 9)) == 9:
            return data.draw(st.integers(1, 9) | st.just(self.pair.client.last_call_id))
        return data.draw(st.sampled_from(known))

    # Sending. Each rule tells the model what is on its way.

    def queue(self, side: Connection, frame: Sent, size: int) -> None:
        """What ``side`` just sent is one frame of this size."""
        data = side.data_to_send()
        assert len(data) == size
        way = self.to_server if side is self.pair.client else self.to_client
        way.put(data, frame)

    @precondition(lambda self: not self.told and not self.half_closed)
    @rule(opcode=st.integers(0, 65_535), payload=PAYLOADS, credit=st.none() | st.integers(0, 3))
    def request(self, opcode: int, payload: bytes, credit: int | None) -> None:
        """The client begins a call; ids rise, skip 0 and whatever is in flight."""
        before = self.pair.client.last_call_id
        block = pack_metadata(Metadata(credit=credit)) if credit else b""
        call_id = self.pair.client.send_request(opcode, payload, block, credit=credit)
        expected = before % (WRAP - 1) + 1
        while expected in self.ours:
            expected = expected % (WRAP - 1) + 1
        assert call_id == expected
        self.ours[call_id] = ClientCall(opcode, credit)
        kind = "unary" if credit is None else "stream"
        frame = Sent(kind, call_id, opcode, payload, credit or 0)
        self.queue(self.pair.client, frame, 16 + len(block) + len(payload))

    @precondition(lambda self: not self.half_closed)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """The client cancels a call, unless it is over or cancelled."""
        call_id = self.some_call(data, self.ours)
        call = self.ours.get(call_id)
        can = call is not None and not call.cancelled
        assert self.pair.client.send_cancel(call_id) is can
        if call is not None and can:
            call.cancelled = True
            self.queue(self.pair.client, Sent("cancel", call_id, call.opcode), 16)

    @precondition(lambda self: not self.half_closed)
    @rule(data=st.data(), amount=st.sampled_from([1, 1, 2, 5, 2**32 - 1]))
    def credit(self, data: st.DataObject, amount: int) -> None:
        """The client grants credit: to a stream that is its own, wanted, and not full."""
        call_id = self.some_call(data, self.ours)
        call = self.ours.get(call_id)
        if call is None or call.cancelled:
            assert not self.pair.client.send_credit(call_id, amount)
        elif call.credit is None or call.credit + amount >= WRAP:
            try:
                self.pair.client.send_credit(call_id, amount)
            except LocalProtocolError:
                return
            raise AssertionError("it was sent")
        else:
            assert self.pair.client.send_credit(call_id, amount)
            call.credit += amount
            self.queue(self.pair.client, Sent("credit", call_id, call.opcode, amount=amount), 20)

    @rule(data=st.binary(min_size=8, max_size=8), by_client=st.booleans())
    def ping(self, data: bytes, by_client: bool) -> None:
        """Either side asks for a sign of life."""
        assume(not self.half_closed)
        side = self.pair.client if by_client else self.pair.server
        side.send_ping(data)
        self.queue(side, Sent("ping", payload=data), 24)

    @precondition(lambda self: any(not call.stream for call in self.theirs.values()))
    @rule(data=st.data(), payload=PAYLOADS)
    def respond(self, data: st.DataObject, payload: bytes) -> None:
        """The server answers a unary call."""
        unary = [call_id for call_id, call in self.theirs.items() if not call.stream]
        self.send_response(data.draw(st.sampled_from(unary)), payload)

    def send_response(self, call_id: int, payload: bytes) -> None:
        call = self.theirs.pop(call_id)
        self.pair.server.send_response(call_id, payload)
        self.queue(self.pair.server, Sent("response", call_id, call.opcode, payload), 16 + len(payload))

    def streams(self) -> list[int]:
        return [call_id for call_id, call in self.theirs.items() if call.stream]

    @precondition(lambda self: self.streams())
    @rule(data=st.data(), payload=PAYLOADS)
    def item(self, data: st.DataObject, payload: bytes) -> None:
        """The server sends an item, if the stream has credit."""
        call_id = data.draw(st.sampled_from(self.streams()))
        call = self.theirs[call_id]
        assert self.pair.server.credit(call_id) == call.credit
        try:
            self.pair.server.send_item(call_id, payload)
        except LocalProtocolError:
            assert call.credit == 0
            return
        call.credit -= 1
        assert call.credit >= 0
        self.queue(self.pair.server, Sent("item", call_id, call.opcode, payload), 16 + len(payload))

    @precondition(lambda self: self.streams())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """The server completes a stream."""
        self.send_end(data.draw(st.sampled_from(self.streams())))

    def send_end(self, call_id: int) -> None:
        call = self.theirs.pop(call_id)
        self.pair.server.send_end(call_id)
        self.queue(self.pair.server, Sent("end", call_id, call.opcode), 16)

    @precondition(lambda self: self.theirs)
    @rule(data=st.data(), hold=st.booleans(), message=st.text(max_size=5))
    def error(self, data: st.DataObject, hold: bool, message: str) -> None:
        """The server fails a call, while its handler may run on."""
        call_id = data.draw(st.sampled_from(sorted(self.theirs)))
        call = self.theirs.pop(call_id)
        if hold:
            self.pair.server.hold()
            self.held += 1
        error = CallError(Status.DEADLINE_EXCEEDED, "DEADLINE", message, retry=Retry.MAYBE_PROCESSED)
        self.pair.server.send_error(call_id, error)
        size = 16 + 7 + len(error.reason) + 2 + len(message.encode())
        self.queue(self.pair.server, Sent("error", call_id, call.opcode, error=error), size)

    @rule(call_id=st.integers(1, 20))
    def answer_what_is_over(self, call_id: int) -> None:
        """The server cannot answer a call that is not in flight."""
        assume(call_id not in self.theirs)
        for send in (self.pair.server.send_end, lambda number: self.pair.server.send_response(number, b"")):
            try:
                send(call_id)
            except LocalProtocolError:
                continue
            raise AssertionError("it was sent")

    @precondition(lambda self: self.held)
    @rule()
    def release(self) -> None:
        """A handler that ran on returns."""
        self.pair.server.release()
        self.held -= 1

    @precondition(lambda self: not self.draining and not self.half_closed)
    @rule()
    def goaway(self) -> None:
        """The server takes no more calls."""
        self.pair.server.send_goaway(GOODBYE)
        self.draining = True
        size = 16 + 4 + 7 + len(GOODBYE.reason) + 2 + len(GOODBYE.message)
        self.queue(self.pair.server, Sent("goaway", amount=self.last_seen, error=GOODBYE), size)

    @precondition(lambda self: not self.to_server.data and not self.half_closed)
    @rule()
    def half_close(self) -> None:
        """The client's output ends; what is in flight is still answered."""
        self.pair.server.receive_eof()
        assert drain(self.pair.server) == [ConnectionEnded(None)]
        self.half_closed = True

    # Delivering.

    @rule(count=st.integers(1, 60) | st.just(10_000), piece=st.integers(1, 100))
    def deliver_to_server(self, count: int, piece: int) -> None:
        """Some bytes reach the server, in pieces."""
        self.deliver(self.to_server, self.pair.server, count, piece)

    @rule(count=st.integers(1, 60) | st.just(10_000), piece=st.integers(1, 100))
    def deliver_to_client(self, count: int, piece: int) -> None:
        """Some bytes reach the client, in pieces."""
        self.deliver(self.to_client, self.pair.client, count, piece)

    def deliver(self, way: Way, receiver: Connection, count: int, piece: int) -> None:
        data = way.take(count)
        events: list[Event] = []
        for at in range(0, len(data), piece):
            receiver.receive_data(data[at : at + piece])
            if at % 2:
                events += drain(receiver)
        events += drain(receiver)

        expected: list[Event] = []
        replies: list[Sent] = []
        for frame in way.arrived():
            if receiver is self.pair.server:
                self.server_reads(frame, expected, replies)
            else:
                self.client_reads(frame, expected, replies)
        assert [plain(event) for event in events] == [plain(event) for event in expected]
        assert (receiver.partial_length is None) is way.at_boundary

        output = receiver.data_to_send()
        if self.half_closed and receiver is self.pair.client:
            return  # its output has ended
        back = self.to_client if receiver is self.pair.server else self.to_server
        for reply in replies:
            body = unpack(output).payload
            if reply.error is None:
                back.put(output[: 16 + len(body)], reply)
            else:
                # The words are the connection's own; what a program looks at is the model's.
                error = unpack_error(body)
                assert plain(error) == plain(worded(reply.error, error.message))
                back.put(output[: 16 + len(body)], reply._replace(error=error))
            output = output[16 + len(body) :]
        assert output == b""

    def server_reads(self, frame: Sent, expected: list[Event], replies: list[Sent]) -> None:
        """What the server reports of a frame, and answers by itself."""
        call_id, call = frame.call_id, self.theirs.get(frame.call_id)
        if frame.kind in ("unary", "stream"):
            self.last_seen = call_id
            if self.draining:
                replies.append(Sent("error", call_id, frame.opcode, error=DRAINING))
            elif len(self.theirs) + self.held >= MAX_CALLS:
                replies.append(Sent("error", call_id, frame.opcode, error=TOO_MANY))
            else:
                self.theirs[call_id] = ServerCall(frame.opcode, frame.kind == "stream", frame.amount)
                metadata = Metadata(credit=frame.amount) if frame.amount else EMPTY
                expected.append(RequestReceived(call_id, frame.opcode, metadata, frame.payload))
        elif frame.kind == "cancel":
            if call is not None:
                expected.append(CancelReceived(call_id))
        elif frame.kind == "credit":
            if call is not None:
                call.credit += frame.amount
                expected.append(CreditReceived(call_id, frame.amount))
        else:
            read_liveness(frame, expected, replies)

    def client_reads(self, frame: Sent, expected: list[Event], replies: list[Sent]) -> None:
        """What the client reports of a frame, and answers by itself."""
        call_id = frame.call_id
        if frame.kind == "goaway":
            self.told = True
            assert frame.error is not None
            expected.append(GoAwayReceived(frame.amount, frame.error))
        elif frame.kind in ("ping", "pong"):
            read_liveness(frame, expected, replies)
        else:
            call = self.ours[call_id]
            event: Event
            if frame.kind == "item":
                assert call.credit
                call.credit -= 1
                event = ItemReceived(call_id, frame.payload)
            else:
                del self.ours[call_id]
                if frame.kind == "response":
                    event = ResponseReceived(call_id, frame.opcode, frame.payload)
                elif frame.kind == "end":
                    event = EndReceived(call_id)
                else:
                    assert frame.error is not None
                    event = ErrorReceived(call_id, frame.error)
            if not call.cancelled:
                expected.append(event)

    # What holds after every step.

    @invariant()
    def the_calls_in_flight_are_the_models(self) -> None:
        """Both sides count what the model counts, and know the same credit."""
        client, server = self.pair
        assert client.calls_in_flight == len(self.ours)
        assert server.calls_in_flight == len(self.theirs) + self.held
        assert server.calls_in_flight <= MAX_CALLS + self.held
        for call_id, ours in self.ours.items():
            assert client.credit(call_id) == (ours.credit or 0)
        for call_id, theirs in self.theirs.items():
            assert server.credit(call_id) == theirs.credit
            # What is on its way only makes the client's number the larger one.
            assert theirs.credit <= (self.ours[call_id].credit or 0)

    @invariant()
    def nobody_failed(self) -> None:
        """Two sides that keep the rules never end the connection."""
        assert self.pair.client.error is self.pair.server.error is None
        assert self.pair.client.state is (State.DRAINING if self.told else State.OPEN)
        expected = State.DRAINING if self.draining else State.OPEN
        assert self.pair.server.state is (State.HALF_CLOSED if self.half_closed else expected)

    def teardown(self) -> None:
        """When everything is answered and delivered nothing is left on either side."""
        while self.held:
            self.release()
        for _ in range(3):
            self.deliver(self.to_server, self.pair.server, len(self.to_server.data), 1000)
            for call_id, call in list(self.theirs.items()):
                if call.stream:
                    self.send_end(call_id)
                else:
                    self.send_response(call_id, b"")
            self.deliver(self.to_client, self.pair.client, len(self.to_client.data), 1000)
        assert not self.ours
        assert not self.theirs
        assert self.pair.client.calls_in_flight == self.pair.server.calls_in_flight == 0


def worded(error: CallError, message: str) -> CallError:
    """The same error with another text."""
    return CallError(error.status, error.reason, message, retry=error.retry, retry_after_ms=error.retry_after_ms)


def read_liveness(frame: Sent, expected: list[Event], replies: list[Sent]) -> None:
    """A PING is reported and answered with its bytes; a PONG is reported."""
    if frame.kind == "ping":
        expected.append(PingReceived(frame.payload))
        replies.append(Sent("pong", payload=frame.payload))
    else:
        expected.append(PongReceived(frame.payload))


ConnectionMachine.TestCase.settings = settings(stateful_step_count=60)
TestConnectionMachine = ConnectionMachine.TestCase
