"""The target for frames: whatever a peer sends to a connection in any state, whole or in pieces.

An input is a byte that chooses the scene and how the rest is read, a byte that chooses the pieces, and what the peer
sends. It is that as it stands or, so that mutations need not keep length fields right, as records: a length byte and
then a frame behind its length field.
"""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.wire.peers import (
    Pair,
    begin_stream,
    drain,
    going_away,
    greeted,
    half_closed,
    opened,
    opened_both_ways,
    plain,
    started,
)
from wireproto.conformance.page import HEADER
from wireproto.errors import CallError, RemoteProtocolError
from wireproto.limits import Limits
from wireproto.status import Status
from wireproto.wire.buffer import Buffer
from wireproto.wire.calls import CIRCLE, MAX_CROSSED, Calls
from wireproto.wire.connection import MAX_STRAY_ANSWERS, Connection, Role, State
from wireproto.wire.events import (
    NEED_DATA,
    AnswerUnreadable,
    CallOver,
    CancelReceived,
    ConnectionEnded,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    Event,
    FlaggedRequestReceived,
    ItemReceived,
    NeedData,
    OneWayCreditReceived,
    RequestEnded,
    RequestReceived,
    ResponseReceived,
    bare,
)
from wireproto.wire.frame import KINDS, OF_MESSAGES, PREAMBLE, TOP_BIT, Credit, Flag, Kind
from wireproto.wire.metadata import Metadata, pack_metadata

__all__ = ["frames", "frames_seeds"]

_VECTORS = Path(__file__).parent.parent / "tests" / "vectors"
_LIMITS = Limits(max_frame=4096, max_metadata=48, max_calls=5)

# docs/wire.md, section 9: what either side may find, and the statuses other than INVALID_ARGUMENT.
_REASONS_OF_BOTH = {
    "BAD_BODY", "CALL_ID", "CREDIT_EXCEEDED", "CREDIT_OVERFLOW", "FOREIGN_PROTOCOL", "FRAME_TOO_LARGE",
    "FRAME_TOO_SHORT", "METADATA_OVERRUN", "RESERVED_FLAGS", "STRAY_ANSWERS", "TOO_MANY_FRAMES", "TRUNCATED_FRAME",
    "UNEXPECTED_KIND", "UNEXPECTED_METADATA", "UNKNOWN_KIND", "UNSUPPORTED_MAJOR", "WRONG_CODEC", "WRONG_HALF",
    "WRONG_OPCODE", "WRONG_VERSION",
}  # fmt: skip
_REASONS = {Role.SERVER: _REASONS_OF_BOTH | {"EARLY_FRAME"}, Role.CLIENT: _REASONS_OF_BOTH}
_STATUSES = {"UNSUPPORTED_MAJOR": Status.FAILED_PRECONDITION, "TOO_MANY_FRAMES": Status.RESOURCE_EXHAUSTED}

# What either side may be heard to say in answer to anything: see `_Observed`.
_ANSWERS = KINDS - {Kind.HELLO, Kind.WELCOME, Kind.PING}

_OWN = {"_calls", "_ours", "_theirs", "_out"}
_SLOTS = [name for cls in Connection.__mro__ for name in cls.__dict__.get("__slots__", ()) if name != "_buffer"]


class _Scene:
    """A connection brought to some point, and copies of it: a handshake for each input would be most of the work.

    Args:
        connection: nothing of it may wait to be read.
        complete: ids of the calls whose half that this side sends is complete, or cancelled.
    """

    def __init__(self, connection: Connection, complete: Sequence[int] = ()) -> None:
        connection.data_to_send()
        assert connection.next_event() is NEED_DATA
        self.role = connection.role
        self.complete = frozenset(complete)
        self._shared = [(name, getattr(connection, name)) for name in _SLOTS if name not in _OWN]
        self._own = (connection._ours, connection._theirs, list(connection._out))

    def fresh(self) -> Connection:
        made = Connection.__new__(Connection)
        for name, value in self._shared:
            setattr(made, name, value)
        ours, theirs, out = self._own
        made._ours, made._theirs, made._out = _copied(ours), _copied(theirs), out.copy()
        made._calls = (made._theirs if made._serves else made._ours).opcodes
        made._buffer = Buffer()
        return made


def _copied(calls: Calls) -> Calls:
    made = copy.copy(calls)
    made.opcodes = calls.opcodes.copy()
    made._crossing = copy.copy(calls._crossing)
    made.halves = {call_id: copy.copy(halves) for call_id, halves in calls.halves.items()}
    return made


def _busy() -> Iterator[Connection]:
    """Both sides with calls in flight: 1 unary, 2 a stream with credit for two, 3 and 4 the same and cancelled."""
    pair = opened(_LIMITS)
    for number in (1, 2, 3, 4):
        if number % 2:
            pair.client.send_request(0x10, b"")
        else:
            begin_stream(pair.client, 0x11)
    pair.settle()
    pair.client.send_cancel(3)
    pair.client.send_cancel(4)
    pair.settle()
    yield from pair


def _strayed() -> Connection:
    """A client that has dropped as many answers as it does."""
    client = opened(_LIMITS).client
    client.receive_data(HEADER.pack(12, Kind.RESPONSE, 0, 2, 1, 0x10, 0, 9) * MAX_STRAY_ANSWERS)
    return client


def _late() -> Connection:
    """A server near the end of the circle of numbers, with a call in flight that is as old as the last time round."""
    server = opened(_LIMITS).server
    server._theirs.opcodes[2] = 0x10
    server._theirs.begin(CIRCLE - 2)
    return server


_FIRST = Credit(3, 40)
_SHAPES = (Flag.ITEMS_FOLLOW, Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK, Flag.ITEMS_COME_BACK)


def _of_every_shape() -> Pair:
    """Each side accepts calls of the other, one-way ones too, and begins with credit; nothing is in flight."""
    return opened_both_ways(_FIRST, one_way=2, max_calls=_LIMITS.max_calls, limits=_LIMITS)


def _begin_all(pair: Pair) -> Pair:
    """Both sides begin 1 an upload, 2 a duplex call, 3 a stream, 4 a unary call, and 5 a duplex call, cancelled."""
    for side in pair:
        block = pack_metadata(Metadata(credit=_FIRST))
        for flags in _SHAPES:
            credit = _FIRST if flags & Flag.ITEMS_COME_BACK else None
            side.send_flagged_request(flags, 0x15, b"", block, credit=credit)
        side.send_request(0x15, b"")
        side.send_cancel(side.send_flagged_request(_SHAPES[1], 0x15, b"", block, credit=_FIRST))
    pair.settle()
    return pair


def _crossed(pair: Pair) -> Connection:
    """A server whose calls have all ended early, so that it lets ITEMs cross; of its bucket nothing is left."""
    server = pair.server
    for call_id in list(server._theirs.opcodes):
        server.send_error(call_id, CallError(Status.CANCELLED, "CANCELLED"))
    server.receive_data(HEADER.pack(12, Kind.CANCEL, 0, 0, 0, 0x10, 0, 1) * MAX_CROSSED)
    assert drain(server) == []
    return server


def _half_closed_client(pair: Pair) -> Connection:
    """A client that has ended its output while calls of both sides are in flight."""
    pair.client.end_output()
    return pair.client


def _in_stream() -> Iterator[Connection]:
    """As the vectors have it: call 1 is a stream."""
    pair = opened(_LIMITS)
    begin_stream(pair.client)
    pair.settle()
    yield from pair


# The order is part of the corpus: add at the end.
_SCENES = [
    *(_Scene(side) for side in started(_LIMITS)),
    *(_Scene(side) for side in greeted(_LIMITS)),
    *(_Scene(side) for side in opened(_LIMITS)),
    *(_Scene(side) for side in _busy()),
    *(_Scene(side) for side in going_away(_LIMITS)),
    _Scene(half_closed(_LIMITS).server),
    _Scene(_strayed()),
    _Scene(_late()),
    *(_Scene(side) for side in _in_stream()),
    *(_Scene(side) for side in _of_every_shape()),
    *(_Scene(side, [5, TOP_BIT | 5]) for side in _begin_all(_of_every_shape())),
    _Scene(_crossed(_begin_all(_of_every_shape())), [TOP_BIT | 5]),
    _Scene(_half_closed_client(_begin_all(_of_every_shape())), [1, 2, 3, 4, 5]),
]
_IN_STREAM, _EVERY_SHAPE, _ALL_BEGUN = 13, 15, 17
_RECORDS, _EOF = 0x40, 0x80


def frames(data: bytes) -> None:
    """Deliver the rest of ``data`` to two copies of a connection in two ways, and compare all that can be seen.

    The ways are, by the second byte: at once and in pieces; the same, and asked for single events and for lists of one;
    and, both in the same pieces, asked for lists and for as many single events.
    """
    if len(data) < 2:
        return
    how, cut = data[0], data[1]
    scene = _SCENES[(how & 0x3F) % len(_SCENES)]
    sent = _from_records(data[2:]) if how & _RECORDS else data[2:]
    eof = bool(how & _EOF)
    pieces = _cut(sent, cut & 0x3F)
    mode = cut >> 6
    if mode < 2:
        first = _Observed(scene, [sent], _single, eof=eof)
        second = _Observed(scene, pieces, _several(1) if mode else _single, eof=eof)
    else:
        limit = 3 if mode == 2 else 64
        first = _Observed(scene, pieces, _one_by_one(limit), eof=eof)
        second = _Observed(scene, pieces, _several(limit), eof=eof)
    first.check()
    first.compare(second)


_Pull = Callable[[Connection], list[Event]]


def _single(connection: Connection) -> list[Event]:
    event = connection.next_event()
    return [] if isinstance(event, NeedData) else [event]


def _several(limit: int) -> _Pull:
    return lambda connection: connection.next_events(limit)


def _one_by_one(limit: int) -> _Pull:
    """What ``next_events`` says it gives."""

    def pull(connection: Connection) -> list[Event]:
        events: list[Event] = []
        while len(events) < limit:
            event = connection.next_event()
            if isinstance(event, NeedData):
                break
            events.append(event)
            if not isinstance(event, RequestReceived | ResponseReceived | ItemReceived):
                break
        return events

    return pull


class _Observed:
    """A fresh connection of a scene after some input, and what it reported and sent. Its owner answers each batch."""

    def __init__(self, scene: _Scene, pieces: Sequence[bytes], pull: _Pull, *, eof: bool) -> None:
        self.connection = connection = scene.fresh()
        self.events: list[Event] = []
        self._complete = set(scene.complete)
        self._own_calls, self._peer_calls = connection.own_calls, connection.peer_calls
        # What the peer may still send of each call, as far as its owner knows; it is never behind what holds.
        self._granted = {
            call_id: connection.credit_out(call_id) for calls in _both(connection) for call_id in calls.opcodes
        }
        self._end_is_due = eof and connection.state is not State.HALF_CLOSED  # that one may have seen the end before
        for piece in pieces:
            connection.receive_data(piece)
            self._drain(pull)
        if eof:
            connection.receive_eof()
            self._drain(pull)
        self.sent = connection.data_to_send()

    def _drain(self, pull: _Pull) -> None:
        while batch := pull(self.connection):
            self.events += batch
            if not isinstance(batch[-1], ConnectionEnded):
                for event in map(bare, batch):
                    self._count(event)
                    self._answer(event)

    def _count(self, event: Event) -> None:
        """Keep the books of calls and of credit beside the connection."""
        if isinstance(event, ResponseReceived | EndReceived | ErrorReceived | CallOver):
            self._own_calls -= 1
        elif isinstance(event, RequestReceived):
            self._peer_calls += 1
        elif isinstance(event, FlaggedRequestReceived) and not event.flags & Flag.ONE_WAY:
            self._peer_calls += 1
            self._granted[event.call_id] = _FIRST
            self._complete.discard(event.call_id)
        elif isinstance(event, ItemReceived):
            items, size = self._granted[event.call_id]
            assert items > 0, f"call {event.call_id} has had more items than were granted"
            assert size > 0, f"call {event.call_id} has had more bytes than were granted, by more than an item"
            self._granted[event.call_id] = Credit(items - 1, size - len(event.payload))
        elif isinstance(event, AnswerUnreadable):
            items, size = self._granted[event.call_id]
            self._granted[event.call_id] = Credit(items - 1, size)  # of its bytes nobody is told

    def _answer(self, event: Event) -> None:
        """Do as an owner does, decided by nothing but the events and what was agreed."""
        connection = self.connection
        if isinstance(event, RequestReceived | FlaggedRequestReceived):
            self._answer_request(event)
        elif isinstance(event, CancelReceived | RequestEnded):
            # A call that was answered is over, and nothing more is told of it, except within one batch of events.
            if event.call_id in connection._theirs.opcodes:
                self._finish(event.call_id, cancelled=isinstance(event, CancelReceived))
        elif isinstance(event, AnswerUnreadable):
            if connection.send_cancel(event.call_id):
                self._complete.add(event.call_id)
        elif isinstance(event, CreditReceived):
            self._send_item(event.call_id)
        elif isinstance(event, OneWayCreditReceived):
            if Kind.REQUEST in connection._may_send:
                connection.send_flagged_request(Flag.ONE_WAY, 0x10, b"post")
        elif isinstance(event, ItemReceived):
            own = event.call_id in connection._ours.opcodes
            if own and event.payload[:1] == b"c":
                if connection.send_cancel(event.call_id):
                    self._complete.add(event.call_id)
            elif connection.send_credit(event.call_id, 1, len(event.payload)):
                items, size = self._granted[event.call_id]
                self._granted[event.call_id] = Credit(items + 1, size + len(event.payload))

    def _send_item(self, call_id: int) -> None:
        """One item, if there is credit; of a request half END behind it."""
        connection = self.connection
        if call_id in self._complete or min(connection.credit(call_id)) < 1 or Kind.ITEM not in connection._may_send:
            return
        connection.send_item(call_id, b"item")
        if call_id in connection._ours.opcodes:
            connection.send_end(call_id)
            self._complete.add(call_id)

    def _answer_request(self, event: RequestReceived | FlaggedRequestReceived) -> None:
        connection, call_id = self.connection, event.call_id
        flags = event.flags if isinstance(event, FlaggedRequestReceived) else Flag.NONE
        if flags & Flag.ONE_WAY:
            return
        if isinstance(event.metadata, CallError):
            self._fail(call_id, event.metadata)
            return
        match event.opcode & 7:
            case 1:
                self._finish(call_id, payload=event.payload[:8] if isinstance(event.payload, bytes) else b"")
            case 2:
                while min(connection.credit(call_id)) > 0 and connection.bytes_pending < 256:
                    connection.send_item(call_id, b"item")
                self._finish(call_id)
            case 3:
                self._fail(call_id, CallError(Status.DEADLINE_EXCEEDED, "DEADLINE"))
            case 4 if Kind.GOAWAY in connection._may_send:
                connection.send_goaway(CallError(Status.UNAVAILABLE, "SHUTTING_DOWN"))

    def _finish(self, call_id: int, payload: bytes = b"", *, cancelled: bool = False) -> None:
        """Answer a call of the peer's with the terminal frame of its shape."""
        connection = self.connection
        if cancelled:
            self._fail(call_id, CallError(Status.CANCELLED, "CANCELLED"))
            return
        self._peer_calls -= 1
        if connection._theirs.state_of(call_id).flags & Flag.ITEMS_COME_BACK:
            connection.send_end(call_id)
        else:
            connection.send_response(call_id, payload)

    def _fail(self, call_id: int, error: CallError) -> None:
        self._peer_calls -= 1
        self.connection.send_error(call_id, error)

    def compare(self, other: "_Observed") -> None:
        """Both must have done the same."""
        error = self.connection.error
        assert _seen(self.connection) == _seen(other.connection)
        if error is not None and error.reason == "FOREIGN_PROTOCOL":
            return  # its text quotes the first bytes, as many as there were when it was clear
        assert self.events == other.events or list(map(plain, self.events)) == list(map(plain, other.events)), (
            f"{self.events} is {other.events} the other way"
        )
        assert self.sent == other.sent

    def check(self) -> None:
        """What is promised of every ending and of every byte sent, whatever came."""
        connection = self.connection
        ends = [event for event in self.events if isinstance(event, ConnectionEnded)]
        if ends:
            assert self.events[-1] is ends[0]
            error = ends[0].error
            assert error is connection.error
            assert connection.state in (State.CLOSED, State.HALF_CLOSED)
            if isinstance(error, RemoteProtocolError):
                assert error.reason in _REASONS[connection.role], error
                assert error.status == _STATUSES.get(error.reason, Status.INVALID_ARGUMENT)
        else:
            assert not self._end_is_due, "the input ended and nothing was said of it"
            assert connection.state is not State.CLOSED
        assert connection.peer_calls <= _LIMITS.max_calls
        if not ends:
            # A call counts from its REQUEST to its terminal frame, and no longer.
            assert (connection.own_calls, connection.peer_calls) == (self._own_calls, self._peer_calls)
        for call_id, granted in self._granted.items():
            items, size = connection.credit_out(call_id)
            assert items <= granted[0]
            assert size <= granted[1]
        _check_sent(connection.role, self.sent)


def _from_records(data: bytes) -> bytes:
    parts = []
    at = 0
    while at < len(data):
        frame = data[at + 1 : at + 1 + data[at]].ljust(12, b"\0")
        parts.append(len(frame).to_bytes(4, "big") + frame)
        at += 1 + data[at]
    return b"".join(parts)


def _cut(data: bytes, seed: int) -> list[bytes]:
    """The data in up to four pieces, as a small generator says."""
    ends, pieces = [], []
    for _ in range(1 + seed % 3):
        seed = (seed + 1) * 75 % 65_537  # the ZX81's generator: short, and its period is long enough
        ends.append(seed % (len(data) + 1))
    at = 0
    for end in (*sorted(ends), len(data)):
        if end > at:
            pieces.append(data[at:end])
            at = end
    return pieces


def _both(connection: Connection) -> tuple[Calls, Calls]:
    return connection._ours, connection._theirs


def _seen(connection: Connection) -> tuple[object, ...]:
    error = connection.error
    return (
        connection.state,
        connection.version,
        connection.codec,
        connection.last_call_id,
        connection.own_calls,
        connection.peer_calls,
        {call_id: connection.credit(call_id) for calls in _both(connection) for call_id in calls.halves},
        {call_id: connection.credit_out(call_id) for calls in _both(connection) for call_id in calls.halves},
        connection.one_way_credit,
        connection.goaway_received,
        connection.frames_received,
        connection.partial_length,
        None if error is None else (error.status, error.reason),
    )


def _check_sent(role: Role, out: bytes) -> None:
    """What is sent are whole frames with the header that their kind must have; the last one may be a final ERROR."""
    if out.startswith(b"HTTP/1.1 400"):
        assert role is Role.SERVER
        return
    if out.startswith(PREAMBLE):
        out = out[4:]
    at = 0
    while at < len(out):
        length, kind, flags, codec, version, opcode, metadata, call_id = HEADER.unpack_from(out, at)
        at += 4 + length
        assert kind in _ANSWERS, kind
        assert (flags, metadata) == (Flag.ONE_WAY if kind == Kind.REQUEST else 0, 0)
        assert (codec, version) == ((2, 1) if kind in OF_MESSAGES else (0, 0))
        if not call_id:
            assert opcode == 0
            assert kind in (Kind.PONG, Kind.GOAWAY, Kind.ERROR)
            assert kind != Kind.ERROR or at == len(out), "something follows a final ERROR"
    assert at == len(out)


# Seeds --------------------------------------------------------------------------------------------------------------

_AFTER = {"start": 0, "greeting": 2, "open": 4, "unary call": 6, "stream": _IN_STREAM}


def frames_seeds() -> Iterator[bytes]:
    """Every step of every conversation, at a connection in its state; and every vector that is refused."""
    for conversation in _vectors("conversations") + _vectors("shapes"):
        for side, role in (("client", 1), ("server", 0)):
            steps = [bytes.fromhex(step["hex"]) for step in conversation["steps"] if step["from"] == side]
            if not steps:
                continue
            yield bytes([_EOF | (0 if role else 2) + role, 0]) + steps[0]
            rest = b"".join(steps[1:])
            for scene in (4 + role, 6 + role, 8 + role, _EVERY_SHAPE + role, _ALL_BEGUN + role):
                for mode in (0x00, 0x80, 0xC0):
                    yield bytes([_EOF | scene, mode | 5]) + rest
                yield bytes([_RECORDS | scene, 0x40 | 10]) + _to_records(rest)
    for vector in _vectors("invalid"):
        role = 1 if vector["to"] == "server" else 0
        yield bytes([_EOF | _AFTER[vector["after"]] + role, 3]) + bytes.fromhex(vector["hex"])
    for vector in _vectors("invalid_shapes") + _vectors("dropped"):
        role = 1 if vector["to"] == "server" else 0
        yield bytes([_ALL_BEGUN + role, 3]) + bytes.fromhex(vector["hex"])
    # Every kind of a call, of each call of a scene that has calls of every shape.
    bodies = {Kind.CREDIT: bytes([0, 0, 0, 1] * 2), Kind.ERROR: b"\x05\0\0\0\0\0\0\0\0"}
    for scene in range(_ALL_BEGUN, len(_SCENES)):
        for number in (1, 2, 3, 4, 5, 9, TOP_BIT | 1, TOP_BIT | 2, TOP_BIT | 3, TOP_BIT | 4, TOP_BIT | 5, TOP_BIT | 9):
            for kind in (Kind.RESPONSE, Kind.ITEM, Kind.END, Kind.ERROR, Kind.CANCEL, Kind.CREDIT):
                body = bodies.get(kind, b"")
                codec, version = (2, 1) if kind in OF_MESSAGES else (0, 0)
                frame = HEADER.pack(12 + len(body), kind, 0, codec, version, 0x15, 0, number) + body
                yield bytes([scene, 0x40]) + frame
                yield bytes([scene, 0x85]) + frame + frame


def _vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((_VECTORS / f"{name}.json").read_text("utf-8"))
    return found


def _to_records(data: bytes) -> bytes:
    parts = []
    at = 0
    while at + 16 <= len(data):
        length = min(255, int.from_bytes(data[at : at + 4], "big"))
        parts.append(bytes([length]) + data[at + 4 : at + 4 + length])
        at += 4 + length
    return b"".join(parts)
