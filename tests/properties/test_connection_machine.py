"""A client and a server connection back to back, against a model of what each must report.

What is judged here is what lies between a frame and its event: bytes that are cut anywhere and read by any of the ways
there are, opcodes, metadata and payloads, what a connection answers by itself, and how it ends. Which frames a call may
have, and when, is judged by ``test_wire_connection.py``; so nothing is cancelled here, and credit is never short.

The model is written from ``docs/wire.md`` and knows nothing of the connections: for every frame sent it keeps the
event that it is, and when its last byte is delivered it says what the receiver must report and answer by itself.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.wire.peers import GOODBYE, Pair, drain, numbered_after, opened_both_ways, plain, raw
from wireproto.errors import CallError, RemoteProtocolError
from wireproto.status import Retry, Status
from wireproto.wire.connection import Connection, State
from wireproto.wire.events import (
    ConnectionEnded,
    EndReceived,
    ErrorReceived,
    Event,
    FlaggedRequestReceived,
    GoAwayReceived,
    ItemReceived,
    PingReceived,
    PongReceived,
    RequestEnded,
    RequestReceived,
    ResponseReceived,
)
from wireproto.wire.frame import TOP_BIT, Credit, Flag, Kind, unpack, unpack_error
from wireproto.wire.metadata import EMPTY, Metadata, pack_metadata

MAX_CALLS = 4
ROOM: Final = Credit(10_000, 10_000_000)
LAST_NUMBER: Final = 2**31 - 1
PAYLOADS = st.binary(max_size=20)
SIDES = st.integers(0, 1)
CLIENT, SERVER = 0, 1
SHAPES = st.sampled_from(
    [0, 0, Flag.ONE_WAY, Flag.ITEMS_FOLLOW, Flag.ITEMS_COME_BACK, Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK]
)
TOO_MANY = CallError(Status.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS", retry=Retry.NOT_PROCESSED)
GONE = CallError(Status.UNAVAILABLE, "SHUTTING_DOWN", retry=Retry.NOT_PROCESSED)


class Passing(NamedTuple):
    """A frame on its way: the event that it is, and where it lies among all bytes of its direction."""

    kind: Kind
    event: Event | None
    call_id: int = 0
    opcode: int = 0
    flags: int = 0
    begin: int = 0
    end: int = 0


@dataclass
class Way:
    """One direction: bytes under way and the frames they are."""

    data: bytearray = field(default_factory=bytearray)
    frames: deque[Passing] = field(default_factory=deque)
    delivered: int = 0
    ended: bool = False

    def put(self, data: bytes, frame: Passing) -> None:
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

    def arrived(self) -> Iterator[Passing]:
        """The frames that have arrived whole."""
        while self.frames and self.frames[0].end <= self.delivered:
            yield self.frames.popleft()

    @property
    def at_boundary(self) -> bool:
        """Whether no frame has arrived in part."""
        return not self.frames or self.frames[0].begin >= self.delivered


@dataclass
class KnownCall:
    """What a side knows of a call in flight."""

    opcode: int
    flags: int
    request_open: bool


@dataclass
class Known:
    """What one side knows."""

    top_bit: int
    last: int = 0
    own: dict[int, KnownCall] = field(default_factory=dict)
    peers: dict[int, KnownCall] = field(default_factory=dict)
    last_seen: int = 0
    goaway_sent: bool = False
    goaway_received: bool = False
    silent: bool = False
    """The client that has ended its output."""
    heard_the_end: bool = False
    """The server that has read that."""

    @property
    def speaks(self) -> bool:
        """Whether this side sends more than what answers a call."""
        return not (self.silent or self.heard_the_end)

    def sends_items_of(self) -> list[int]:
        """Calls of which this side may send an ITEM."""
        ours = [call_id for call_id, call in self.own.items() if call.request_open]
        return ours + [call_id for call_id, call in self.peers.items() if call.flags & Flag.ITEMS_COME_BACK]


READERS: Final[dict[str, Callable[[Connection], list[Event]]]] = {
    "one by one": drain,
    "in pairs": lambda side: by_lists(side, 2),
    "all at once": lambda side: by_lists(side, 64),
}
"""The ways of reading, which must not differ."""


def by_lists(side: Connection, limit: int) -> list[Event]:
    """Every event there is, by the way that takes several."""
    events: list[Event] = []
    while some := side.next_events(limit):
        events += some
    return events


class ConnectionMachine(RuleBasedStateMachine):
    """Both sides send what they may, bytes arrive in any pieces, and every report is as the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: Pair = opened_both_ways(ROOM, one_way=10_000, max_calls=MAX_CALLS)
        self.known = (Known(0), Known(TOP_BIT))
        self.ways = (Way(), Way())  # to the client, to the server

    @initialize(last=st.sampled_from([0, 0, 7, 2**30 - 2, LAST_NUMBER - 2, LAST_NUMBER]))
    def begin_anywhere(self, last: int) -> None:
        """Begin anywhere in the circle of ids, so that some runs wrap."""
        for known in self.known:
            known.last = last
            numbered_after(known.top_bit | last, *self.pair)
            self.known[1 - self.known.index(known)].last_seen = known.top_bit | last if last else 0

    # Sending. Each rule tells the model what is on its way.

    def queue(self, by: int, frame: Passing, size: int) -> None:
        """What this side just sent is one frame of this size."""
        data = self.pair[by].data_to_send()
        assert len(data) == size
        self.ways[1 - by].put(data, frame)

    @rule(
        by=SIDES,
        opcode=st.integers(0, 65_535),
        payload=PAYLOADS,
        flags=SHAPES,
        deadline=st.none() | st.integers(0, 2**32 - 1),
        entries=st.dictionaries(st.sampled_from("abc"), st.text(max_size=5), max_size=2),
    )
    def request(
        self, by: int, opcode: int, payload: bytes, flags: int, deadline: int | None, entries: dict[str, str]
    ) -> None:
        """A side begins a call, be there room for it or not; ids rise, skip 0 and whatever is in flight."""
        known, side = self.known[by], self.pair[by]
        if known.goaway_received or not known.speaks:
            return
        expected = known.last
        while expected == known.last or known.top_bit | expected in known.own:
            expected = expected % LAST_NUMBER + 1
        credit = ROOM if flags & Flag.ITEMS_COME_BACK else None
        metadata = Metadata(deadline_ms=deadline, credit=credit, entries=entries)
        block = pack_metadata(metadata)
        event: Event
        if not flags:
            call_id = side.send_request(opcode, payload, block)
            event = RequestReceived(call_id, opcode, metadata if block else EMPTY, payload)
        else:
            payload = b"" if flags & Flag.ITEMS_FOLLOW else payload
            call_id = side.send_flagged_request(flags, opcode, payload, block, credit=credit)
            event = FlaggedRequestReceived(call_id, opcode, flags, metadata, payload)
        known.last = expected
        assert call_id == known.top_bit | expected
        if not flags & Flag.ONE_WAY:
            known.own[call_id] = KnownCall(opcode, flags, bool(flags & Flag.ITEMS_FOLLOW))
        self.queue(by, Passing(Kind.REQUEST, event, call_id, opcode, flags), 16 + len(block) + len(payload))

    @rule(by=SIDES, at=st.integers(0, 9), payload=PAYLOADS)
    def item(self, by: int, at: int, payload: bytes) -> None:
        """A side sends an item of a half that is its."""
        known = self.known[by]
        open_halves = known.sends_items_of()
        if not open_halves or known.silent:
            return
        call_id = open_halves[at % len(open_halves)]
        self.pair[by].send_item(call_id, payload)
        self.queue(by, Passing(Kind.ITEM, ItemReceived(call_id, payload), call_id), 16 + len(payload))

    @rule(by=SIDES, at=st.integers(0, 9))
    def end_request(self, by: int, at: int) -> None:
        """A caller has sent all its items."""
        known = self.known[by]
        uploads = [call_id for call_id, call in known.own.items() if call.request_open]
        if not uploads or known.silent:
            return
        call_id = uploads[at % len(uploads)]
        self.pair[by].send_end(call_id)
        known.own[call_id].request_open = False
        self.queue(by, Passing(Kind.END, RequestEnded(call_id), call_id), 16)

    @rule(by=SIDES, at=st.integers(0, 9), payload=PAYLOADS, at_once=st.booleans())
    def answer(self, by: int, at: int, payload: bytes, at_once: bool) -> None:
        """A side completes a call, whether all of its request has come or not."""
        known, side = self.known[by], self.pair[by]
        if not known.peers:
            return
        call_id = list(known.peers)[at % len(known.peers)]
        call = known.peers.pop(call_id)
        if call.flags & Flag.ITEMS_COME_BACK:
            side.send_end(call_id)
            self.queue(by, Passing(Kind.END, EndReceived(call_id), call_id), 16)
            return
        frame = Passing(Kind.RESPONSE, ResponseReceived(call_id, call.opcode, payload), call_id)
        if at_once:
            data = side.answer(call_id, payload)
            assert len(data) == 16 + len(payload)
            self.ways[1 - by].put(data, frame)
        else:
            side.send_response(call_id, payload)
            self.queue(by, frame, 16 + len(payload))

    @rule(by=SIDES, at=st.integers(0, 9), message=st.text(max_size=5))
    def fail(self, by: int, at: int, message: str) -> None:
        """A side fails a call."""
        known = self.known[by]
        if not known.peers:
            return
        call_id = list(known.peers)[at % len(known.peers)]
        del known.peers[call_id]
        error = CallError(Status.DEADLINE_EXCEEDED, "DEADLINE", message, retry=Retry.MAYBE_PROCESSED)
        self.pair[by].send_error(call_id, error)
        size = 16 + 7 + len(error.reason) + 2 + len(message.encode())
        self.queue(by, Passing(Kind.ERROR, ErrorReceived(call_id, error), call_id), size)

    @rule(by=SIDES, data=st.binary(min_size=8, max_size=8))
    def ping(self, by: int, data: bytes) -> None:
        """A side asks for a sign of life."""
        if not self.known[by].speaks:
            return
        self.pair[by].send_ping(data)
        self.queue(by, Passing(Kind.PING, PingReceived(data)), 24)

    @rule(by=SIDES, kind=st.integers(0x80, 0xFF), payload=PAYLOADS)
    def say_what_nobody_knows(self, by: int, kind: int, payload: bytes) -> None:
        """A frame of a later version comes, which is read over."""
        if not self.known[by].speaks:
            return
        self.ways[1 - by].put(raw(kind, payload, call_id=3, flags=kind), Passing(Kind.PONG, None))

    @precondition(lambda self: sum(way.delivered for way in self.ways) > 150)
    @rule(by=SIDES)
    def goaway(self, by: int) -> None:
        """A side takes no more calls."""
        known = self.known[by]
        if known.goaway_sent or not known.speaks:
            return
        self.pair[by].send_goaway(GOODBYE)
        known.goaway_sent = True
        size = 16 + 4 + 7 + len(GOODBYE.reason) + 2 + len(GOODBYE.message)
        self.queue(by, Passing(Kind.GOAWAY, GoAwayReceived(known.last_seen, GOODBYE)), size)

    @precondition(lambda self: not self.known[CLIENT].silent and self.ways[SERVER].delivered > 100)
    @rule()
    def end_output(self) -> None:
        """The client's output ends, late in a run; its own calls are still answered, those of the server are over."""
        known = self.known[CLIENT]
        self.pair.client.end_output()
        known.silent = self.ways[SERVER].ended = True
        known.peers.clear()

    # Delivering.

    @rule(
        to=SIDES,
        count=st.integers(1, 60) | st.just(10_000) | st.just(0),
        piece=st.integers(1, 100),
        way=st.sampled_from(sorted(READERS)),
        lone=st.booleans(),
    )
    def deliver(self, to: int, count: int, piece: int, way: str, lone: bool) -> None:
        """Some bytes, or the next frame, reach one of the sides, in pieces, and are read after some of them."""
        side, read = self.pair[to], READERS[way]
        if not count and self.ways[to].frames:
            count = piece = self.ways[to].frames[0].end - self.ways[to].delivered
        data = self.ways[to].take(count)
        events: list[Event] = []
        for at in range(0, len(data), piece):
            if lone and (request := side.lone_request(data[at : at + piece])) is not None:
                events.append(request)
                continue
            side.receive_data(data[at : at + piece])
            if at % 2:
                events += read(side)
        ends = self.ways[to].ended and not self.ways[to].data and not self.known[to].heard_the_end
        if ends:
            side.receive_eof()
        events += read(side)
        self.check_reports(to, events, [ConnectionEnded(None)] if ends else [])
        assert (side.partial_length is None) is self.ways[to].at_boundary
        if ends:
            self.known[to].heard_the_end = True
            self.known[to].own.clear()

    def check_reports(self, to: int, events: list[Event], last: list[Event]) -> None:
        """What was reported is what the model says of the frames that arrived, and so is what was answered."""
        expected: list[Event] = []
        replies: list[Passing] = []
        for frame in self.ways[to].arrived():
            self.read(to, frame, expected, replies)
        assert [plain(event) for event in events] == [plain(event) for event in expected + last]
        output = self.pair[to].data_to_send()
        for reply in replies:
            body = unpack(output).payload
            if isinstance(reply.event, ErrorReceived):
                # The words are the connection's own; what a program looks at is the model's.
                error = unpack_error(body)
                assert plain(error) == plain(worded(reply.event.error, error.message))
                reply = reply._replace(event=ErrorReceived(reply.call_id, error))
            self.ways[1 - to].put(output[: 16 + len(body)], reply)
            output = output[16 + len(body) :]
        assert output == b""

    def read(self, to: int, frame: Passing, expected: list[Event], replies: list[Passing]) -> None:
        """What a side reports of a frame, and answers by itself."""
        known, event, call_id = self.known[to], frame.event, frame.call_id
        if event is None:
            return
        of_peer = frame.call_id and frame.call_id & TOP_BIT != known.top_bit
        if frame.kind is Kind.REQUEST:
            if known.silent:
                return
            known.last_seen = call_id
            one_way = frame.flags & Flag.ONE_WAY
            refusal = GONE if known.goaway_sent else None
            if not refusal and not one_way and len(known.peers) >= MAX_CALLS:
                refusal = TOO_MANY
            if refusal is None:
                expected.append(event)
                if not one_way:
                    known.peers[call_id] = KnownCall(frame.opcode, frame.flags, bool(frame.flags & Flag.ITEMS_FOLLOW))
            elif not one_way:
                replies.append(Passing(Kind.ERROR, ErrorReceived(call_id, refusal), call_id))
        elif of_peer:
            # Of a call that is over, or forgotten, nothing is reported.
            if call_id in known.peers:
                expected.append(event)
        elif call_id:
            if frame.kind is not Kind.ITEM:
                del known.own[call_id]
            expected.append(event)
        else:
            expected.append(event)
            if isinstance(event, PingReceived) and not known.silent:
                replies.append(Passing(Kind.PONG, PongReceived(event.data)))
            known.goaway_received |= frame.kind is Kind.GOAWAY

    # What holds after every step.

    @invariant()
    def the_calls_in_flight_are_the_models(self) -> None:
        """Both sides count what the model counts."""
        for side, known in zip(self.pair, self.known, strict=True):
            assert (side.own_calls, side.peer_calls) == (len(known.own), len(known.peers))
            assert side.calls_in_flight == len(known.own) + len(known.peers)
            assert side.peer_calls <= MAX_CALLS
            assert (side.goaway_sent, side.goaway_received) == (known.goaway_sent, known.goaway_received)

    @invariant()
    def nobody_failed(self) -> None:
        """Two sides that keep the rules never end the connection."""
        for side, known in zip(self.pair, self.known, strict=True):
            assert side.error is None
            assert side.state is (State.HALF_CLOSED if known.silent or known.heard_the_end else State.OPEN)

    def teardown(self) -> None:
        """When everything is answered and delivered nothing is left on either side; then one side ends it."""
        for _ in range(4):
            for to in (SERVER, CLIENT):
                self.deliver(to, 100_000, 1000, "all at once", lone=False)
                for _ in range(len(self.known[to].peers)):
                    self.answer(to, 0, b"", at_once=False)
        self.the_calls_in_flight_are_the_models()
        assert self.pair.client.calls_in_flight == self.pair.server.calls_in_flight == 0
        self.end_connection()

    def end_connection(self) -> None:
        """The last thing said is a final ERROR, or a frame of which only a part comes, or nothing."""
        client, server = self.pair
        which = self.ways[CLIENT].delivered % 3
        if which == 0:
            server.refuse(GOODBYE)
            client.receive_data(server.data_to_send())
            assert [plain(event) for event in drain(client)] == [plain(ConnectionEnded(GOODBYE))]
            assert [plain(event) for event in drain(server)] == (
                [] if self.known[SERVER].heard_the_end else [plain(ConnectionEnded(GOODBYE))]
            )
            return
        part = raw(Kind.PING, bytes(8))[: self.ways[CLIENT].delivered % 24] if which == 1 else b""
        client.receive_data(part)
        client.receive_eof()
        (end,) = drain(client)
        assert isinstance(end, ConnectionEnded)
        if part:
            assert isinstance(end.error, RemoteProtocolError)
            assert end.error.reason == "TRUNCATED_FRAME"
        else:
            assert end.error is None
        assert client.state is State.CLOSED


def worded(error: CallError, message: str) -> CallError:
    """The same error with another text."""
    return CallError(error.status, error.reason, message, retry=error.retry, retry_after_ms=error.retry_after_ms)


ConnectionMachine.TestCase.settings = settings(stateful_step_count=60)
TestConnectionMachine = ConnectionMachine.TestCase
