"""The target for frames: whatever a peer sends to a connection in any state, whole or in pieces.

An input is a byte that chooses the scene and how the rest is read, a byte that chooses the pieces, and what the peer
sends. It is that as it stands or, so that mutations need not keep length fields right, as records: a length byte and
then a frame behind its length field.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.wire.peers import draining, greeted, half_closed, opened, plain, started
from wireproto.conformance.page import HEADER
from wireproto.errors import CallError, RemoteProtocolError
from wireproto.limits import Limits
from wireproto.status import Status
from wireproto.wire.buffer import Buffer
from wireproto.wire.connection import MAX_STRAY_ANSWERS, Connection, Role, State
from wireproto.wire.events import (
    NEED_DATA,
    CancelReceived,
    ConnectionEnded,
    CreditReceived,
    Event,
    ItemReceived,
    NeedData,
    RequestReceived,
    ResponseReceived,
)
from wireproto.wire.frame import PREAMBLE, Kind
from wireproto.wire.metadata import Metadata, pack_metadata

__all__ = ["frames", "frames_seeds"]

_VECTORS = Path(__file__).parent.parent / "tests" / "vectors"
_LIMITS = Limits(max_frame=4096, max_metadata=48, max_calls=5)

# docs/protocol.md, section 9: what either side may find, and the statuses other than INVALID_ARGUMENT.
_REASONS_OF_BOTH = {
    "BAD_BODY", "CALL_ID", "FOREIGN_PROTOCOL", "FRAME_TOO_LARGE", "FRAME_TOO_SHORT", "METADATA_OVERRUN",
    "RESERVED_FLAGS", "TRUNCATED_FRAME", "UNEXPECTED_KIND", "UNEXPECTED_METADATA", "UNKNOWN_KIND",
    "UNSUPPORTED_MAJOR", "WRONG_CODEC", "WRONG_OPCODE", "WRONG_VERSION",
}  # fmt: skip
_REASONS = {
    Role.SERVER: _REASONS_OF_BOTH | {"CREDIT_OVERFLOW", "EARLY_FRAME"},
    Role.CLIENT: _REASONS_OF_BOTH | {"CREDIT_EXCEEDED", "STRAY_ANSWERS", "WRONG_ANSWER"},
}

# What each side may be heard to say in answer to anything: see `_Observed`.
_ANSWERS = {
    Role.SERVER: {Kind.RESPONSE, Kind.ITEM, Kind.END, Kind.ERROR, Kind.PONG, Kind.GOAWAY},
    Role.CLIENT: {Kind.CREDIT, Kind.CANCEL, Kind.ERROR, Kind.PONG},
}

_OWN = {"_calls", "_credits", "_cancelled", "_out"}
_SLOTS = [name for cls in Connection.__mro__ for name in cls.__dict__.get("__slots__", ()) if name != "_buffer"]


class _Scene:
    """A connection brought to some point, and copies of it: a handshake for each input would be most of the work."""

    def __init__(self, connection: Connection) -> None:
        connection.data_to_send()
        assert connection.next_event() is NEED_DATA
        self.role = connection.role
        self._shared = [(name, getattr(connection, name)) for name in _SLOTS if name not in _OWN]
        self._own = [(name, getattr(connection, name)) for name in _SLOTS if name in _OWN]

    def fresh(self) -> Connection:
        made = Connection.__new__(Connection)
        for name, value in self._shared:
            setattr(made, name, value)
        for name, value in self._own:
            setattr(made, name, None if value is None else value.copy())
        made._buffer = Buffer()
        return made


def _busy() -> Iterator[Connection]:
    """Both sides with calls in flight: 1 unary, 2 a stream with credit for two, 3 and 4 the same and cancelled."""
    pair = opened(_LIMITS)
    for number in (1, 2, 3, 4):
        stream = number % 2 == 0
        block = pack_metadata(Metadata(credit=2)) if stream else b""
        pair.client.send_request(0x10 + stream, b"", block, credit=2 if stream else None)
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
    """A server near the end of the circle of ids, with a call in flight that is as old as the last time round."""
    server = opened(_LIMITS).server
    server._calls[2] = 0x10
    server.last_call_id = 0xFFFF_FFFE
    return server


# The order is part of the corpus: add at the end.
_SCENES = [
    *(_Scene(side) for side in started(_LIMITS)),
    *(_Scene(side) for side in greeted(_LIMITS)),
    *(_Scene(side) for side in opened(_LIMITS)),
    *(_Scene(side) for side in _busy()),
    *(_Scene(side) for side in draining(_LIMITS)),
    _Scene(half_closed(_LIMITS).server),
    _Scene(_strayed()),
    _Scene(_late()),
]
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
            if not isinstance(event, RequestReceived | ResponseReceived):
                break
        return events

    return pull


class _Observed:
    """A fresh connection of a scene after some input, and what it reported and sent. Its owner answers each batch."""

    def __init__(self, scene: _Scene, pieces: Sequence[bytes], pull: _Pull, *, eof: bool) -> None:
        self.connection = connection = scene.fresh()
        self.events: list[Event] = []
        self._answered: set[int] = set()
        self._end_is_due = eof and connection.state is not State.HALF_CLOSED  # that one has seen the end before
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
                for event in batch:
                    self._answer(event)

    def _answer(self, event: Event) -> None:
        """Do as an owner does, decided by nothing but the events and what was agreed."""
        connection = self.connection
        if isinstance(event, RequestReceived):
            self._answer_request(event)
        elif isinstance(event, CancelReceived):
            if event.call_id not in self._answered:
                connection.send_error(event.call_id, CallError(Status.CANCELLED, "CANCELLED"))
        elif isinstance(event, CreditReceived):
            if connection.credit(event.call_id):
                connection.send_item(event.call_id, b"item")
        elif isinstance(event, ItemReceived):
            if event.payload[:1] == b"c":
                connection.send_cancel(event.call_id)
            else:
                connection.send_credit(event.call_id, 1)

    def _answer_request(self, event: RequestReceived) -> None:
        connection, call_id = self.connection, event.call_id
        self._answered.add(call_id)
        if isinstance(event.metadata, CallError):
            connection.send_error(call_id, event.metadata)
            return
        match event.opcode & 7:
            case 1:
                connection.send_response(call_id, event.payload[:8])
            case 2:
                while connection.credit(call_id) and connection.bytes_pending < 256:
                    connection.send_item(call_id, b"item")
                connection.send_end(call_id)
            case 3:
                connection.hold()
                connection.send_error(call_id, CallError(Status.DEADLINE_EXCEEDED, "DEADLINE"))
            case way:
                self._answered.discard(call_id)
                if way == 4 and connection.state is State.OPEN:
                    connection.send_goaway(CallError(Status.UNAVAILABLE, "SHUTTING_DOWN"))

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
                precondition = error.reason == "UNSUPPORTED_MAJOR"
                assert error.status == (Status.FAILED_PRECONDITION if precondition else Status.INVALID_ARGUMENT)
        else:
            assert not self._end_is_due, "the input ended and nothing was said of it"
            assert connection.state is not State.CLOSED
        assert connection.calls_in_flight <= _LIMITS.max_calls
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


def _seen(connection: Connection) -> tuple[object, ...]:
    error = connection.error
    return (
        connection.state,
        connection.version,
        connection.codec,
        connection.last_call_id,
        connection.calls_in_flight,
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
        assert kind in _ANSWERS[role], kind
        assert (flags, metadata) == (0, 0)
        assert (codec, version) == ((2, 1) if kind in (Kind.RESPONSE, Kind.ITEM) else (0, 0))
        if not call_id:
            assert opcode == 0
            assert kind in (Kind.PONG, Kind.GOAWAY, Kind.ERROR)
            assert kind != Kind.ERROR or at == len(out), "something follows a final ERROR"
    assert at == len(out)


# Seeds --------------------------------------------------------------------------------------------------------------

_AFTER = {"start": 0, "greeting": 2, "open": 4, "unary call": 6, "stream": 6}


def frames_seeds() -> Iterator[bytes]:
    """Every step of every conversation, at a connection in its state; and every vector that is refused."""
    for conversation in json.loads((_VECTORS / "conversations.json").read_text("utf-8")):
        for side, role in (("client", 1), ("server", 0)):
            steps = [bytes.fromhex(step["hex"]) for step in conversation["steps"] if step["from"] == side]
            if not steps:
                continue
            yield bytes([_EOF | (0 if role else 2) + role, 0]) + steps[0]
            rest = b"".join(steps[1:])
            for scene in (4 + role, 6 + role, 8 + role):
                for mode in (0x00, 0x80, 0xC0):
                    yield bytes([_EOF | scene, mode | 5]) + rest
                yield bytes([_RECORDS | scene, 0x40 | 10]) + _to_records(rest)
    for vector in json.loads((_VECTORS / "invalid.json").read_text("utf-8")):
        role = 1 if vector["to"] == "server" else 0
        yield bytes([_EOF | _AFTER[vector["after"]] + role, 3]) + bytes.fromhex(vector["hex"])


def _to_records(data: bytes) -> bytes:
    parts = []
    at = 0
    while at + 16 <= len(data):
        length = min(255, int.from_bytes(data[at : at + 4], "big"))
        parts.append(bytes([length]) + data[at + 4 : at + 4 + length])
        at += 4 + length
    return b"".join(parts)
