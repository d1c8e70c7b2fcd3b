"""One connection without a socket: bytes in, events out; sends in, bytes out.

    receive_data(bytes) -> next_event() ... -> send_*(...) -> data_to_send() -> bytes

The same class serves both roles. It knows no socket, thread, clock or log, and payloads are opaque to it. Whatever
is sent or received passes ``_next_state``, which consults the one table of what is allowed. A peer that breaks a rule
never causes an exception here: ``next_event`` queues the final ERROR and reports ``ConnectionEnded``. An exception is
always ours, a ``LocalProtocolError``, and then nothing was queued.

Not thread-safe: the owner holds one lock around every call. Rules and numbers: ``docs/protocol.md``.
"""

import enum
import struct
from collections.abc import Callable
from typing import Final

from wireproto.buffer import Buffer
from wireproto.errors import CallError, HandshakeError, LocalProtocolError, RemoteProtocolError
from wireproto.events import (
    NEED_DATA,
    CancelReceived,
    ConnectionEnded,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    Event,
    GoAwayReceived,
    HelloReceived,
    ItemReceived,
    NeedData,
    PingReceived,
    PongReceived,
    RequestReceived,
    ResponseReceived,
    WelcomeReceived,
)
from wireproto.frame import (
    HEADER,
    HEADER_AFTER_LENGTH,
    IGNORABLE,
    MAJOR,
    PREAMBLE,
    Frame,
    Kind,
    pack,
    pack_error,
    total_length,
    unpack,
    unpack_error,
)
from wireproto.handshake import LONGEST_FOREIGN_PREFIX, Hello, Welcome, http_refusal, recognise
from wireproto.limits import HELLO_MAX_FRAME, Limits
from wireproto.metadata import EMPTY, MAX_METADATA, Metadata, unpack_metadata
from wireproto.status import Retry, Status

__all__ = [
    "END_OF_INPUT",
    "FINAL",
    "MAX_STRAY_ANSWERS",
    "TRANSITIONS",
    "Connection",
    "Direction",
    "PayloadTooLarge",
    "Role",
    "State",
]

MAX_STRAY_ANSWERS = 16
"""Answers to calls that are not in flight which a client drops; one more ends the connection."""

_U32 = struct.Struct(">I")
_U32_MAX = 0xFFFF_FFFF
_HALF = 0x8000_0000  # RFC 1982: an id is ahead of another when it is less than half the circle away
# The header with its four single-byte fields read as one number, so that one comparison proves all of them.
_HEADER = struct.Struct(">IIHHI")


class PayloadTooLarge(LocalProtocolError):
    """The frame would be larger than the peer accepts.

    Attributes:
        size: what its length field would say, in bytes.
        limit: what the peer accepts.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"the frame would declare {self.size} bytes; the peer accepts {self.limit}"


class Role(enum.Enum):
    """Which side of the connection we are."""

    CLIENT = "client"
    SERVER = "server"


class State(enum.Enum):
    """How far a connection has come, as one side sees it."""

    START = "start"
    """Nothing was exchanged."""
    GREETING = "greeting"
    """HELLO was sent or received, and not yet answered."""
    OPEN = "open"
    """WELCOME was sent or received: calls may begin."""
    DRAINING = "draining"
    """GOAWAY was sent or received: calls in flight go on, no new one is accepted."""
    HALF_CLOSED = "half closed"
    """Server only: the client's input ended; its calls in flight are still answered."""
    CLOSED = "closed"
    """Over. What is still received is counted and dropped."""


class Direction(enum.Enum):
    """Whether we send or receive."""

    SEND = "send"
    RECEIVE = "receive"


FINAL: Final = 0
"""In ``TRANSITIONS``: an ERROR with call id 0, which ends the connection. Other ERRORs end a call."""

END_OF_INPUT: Final = -1
"""In ``TRANSITIONS``: the peer will send nothing more."""


def _stay(state: State, *moves: int) -> dict[int, State]:
    return dict.fromkeys(map(int, moves), state)


_ANSWERS = (Kind.RESPONSE, Kind.ITEM, Kind.END, Kind.ERROR)
_REQUESTS = (Kind.REQUEST, Kind.CANCEL, Kind.CREDIT)
_LIVENESS = (Kind.PING, Kind.PONG)
_OVER = _stay(State.CLOSED, FINAL, END_OF_INPUT)

TRANSITIONS: Final[dict[tuple[Role, State, Direction], dict[int, State]]] = {
    (Role.CLIENT, State.START, Direction.SEND): {Kind.HELLO: State.GREETING},
    (Role.CLIENT, State.START, Direction.RECEIVE): _OVER,
    (Role.CLIENT, State.GREETING, Direction.SEND): {FINAL: State.CLOSED},
    (Role.CLIENT, State.GREETING, Direction.RECEIVE): {Kind.WELCOME: State.OPEN, **_OVER},
    (Role.CLIENT, State.OPEN, Direction.SEND): {
        **_stay(State.OPEN, *_REQUESTS, *_LIVENESS),
        FINAL: State.CLOSED,
    },
    (Role.CLIENT, State.OPEN, Direction.RECEIVE): {
        **_stay(State.OPEN, *_ANSWERS, *_LIVENESS, IGNORABLE),
        Kind.GOAWAY: State.DRAINING,
        **_OVER,
    },
    (Role.CLIENT, State.DRAINING, Direction.SEND): {
        **_stay(State.DRAINING, Kind.CANCEL, Kind.CREDIT, *_LIVENESS),
        FINAL: State.CLOSED,
    },
    (Role.CLIENT, State.DRAINING, Direction.RECEIVE): {
        **_stay(State.DRAINING, *_ANSWERS, *_LIVENESS, IGNORABLE),
        **_OVER,
    },
    (Role.SERVER, State.START, Direction.SEND): {FINAL: State.CLOSED},
    (Role.SERVER, State.START, Direction.RECEIVE): {Kind.HELLO: State.GREETING, END_OF_INPUT: State.CLOSED},
    (Role.SERVER, State.GREETING, Direction.SEND): {Kind.WELCOME: State.OPEN, FINAL: State.CLOSED},
    (Role.SERVER, State.GREETING, Direction.RECEIVE): {END_OF_INPUT: State.CLOSED},
    (Role.SERVER, State.OPEN, Direction.SEND): {
        **_stay(State.OPEN, *_ANSWERS, *_LIVENESS),
        Kind.GOAWAY: State.DRAINING,
        FINAL: State.CLOSED,
    },
    (Role.SERVER, State.OPEN, Direction.RECEIVE): {
        **_stay(State.OPEN, *_REQUESTS, *_LIVENESS, IGNORABLE),
        FINAL: State.CLOSED,
        END_OF_INPUT: State.HALF_CLOSED,
    },
    (Role.SERVER, State.DRAINING, Direction.SEND): {
        **_stay(State.DRAINING, *_ANSWERS, *_LIVENESS),
        FINAL: State.CLOSED,
    },
    (Role.SERVER, State.DRAINING, Direction.RECEIVE): {
        # REQUESTs cross GOAWAY on the wire: they are answered, "not processed".
        **_stay(State.DRAINING, *_REQUESTS, *_LIVENESS, IGNORABLE),
        FINAL: State.CLOSED,
        END_OF_INPUT: State.HALF_CLOSED,
    },
    (Role.SERVER, State.HALF_CLOSED, Direction.SEND): {**_stay(State.HALF_CLOSED, *_ANSWERS), FINAL: State.CLOSED},
}
"""(our role, state, direction) -> kind -> next state. What is not here is not allowed."""

_NOTHING: Final[dict[int, State]] = {}
_DEFAULT_LIMITS: Final = Limits()
_KINDS: Final = frozenset(map(int, Kind))
_OF_MESSAGES: Final = frozenset({Kind.REQUEST, Kind.RESPONSE, Kind.ITEM})
_OF_CALLS: Final = frozenset({*_REQUESTS, *_ANSWERS})


class Connection:
    """The state of one connection, for either role.

    Args:
        role: which side this is.
        limits: what this side accepts; ``max_frame``, ``max_metadata`` and ``max_calls`` are enforced here.
        hint: a sentence for an HTTP client that meets this server, such as where gRPC is spoken.

    Attributes:
        state: how far the connection has come.
        version: of the service; 0 until WELCOME.
        codec: id; 0 until WELCOME.
        their_max_frame: largest length field the peer accepts.
        their_max_calls: calls in flight the server accepts; 0 until WELCOME. A client should keep within it: the server
            refuses what is beyond, one by one.
        heartbeat_ms: the agreed one; 0 for none.
        last_call_id: of the latest REQUEST sent or received; 0 before the first.
        frames_received: whole frames read, ignored ones included.
        discarded: bytes received after the connection was over.
        error: why it ended; None while it has not, and after an orderly end.
    """

    __slots__ = (
        "_buffer",
        "_calls",
        "_cancelled",
        "_credits",
        "_end",
        "_end_of_input",
        "_held",
        "_hello",
        "_hint",
        "_hot_in",
        "_hot_out",
        "_limits",
        "_max_frame",
        "_out",
        "_pending",
        "_preamble_read",
        "_reported",
        "_serves",
        "_stray",
        "codec",
        "discarded",
        "error",
        "frames_received",
        "heartbeat_ms",
        "last_call_id",
        "role",
        "state",
        "their_max_calls",
        "their_max_frame",
        "version",
    )

    def __init__(self, role: Role, limits: Limits | None = None, *, hint: str = "") -> None:
        self.role = role
        self.state = State.START
        self.version = 0
        self.codec = 0
        self.their_max_frame = HELLO_MAX_FRAME
        self.their_max_calls = 0
        self.heartbeat_ms = 0
        self.last_call_id = 0
        self.frames_received = 0
        self.discarded = 0
        self.error: RemoteProtocolError | CallError | None = None

        self._serves = role is Role.SERVER
        self._limits = limits or _DEFAULT_LIMITS
        self._hint = hint
        self._max_frame = HELLO_MAX_FRAME
        self._buffer = Buffer()
        self._preamble_read = False
        self._end_of_input = False
        self._out: list[bytes] = []
        self._pending = 0
        self._calls: dict[int, int] = {}  # call id -> opcode
        self._credits: dict[int, int] | None = None  # call id -> items that may come or go; a client: all its streams
        self._cancelled: set[int] | None = None  # client: cancelled, terminal frame not seen yet
        self._held = 0
        self._stray = 0
        self._hello: Hello | None = None
        self._end: ConnectionEnded | None = None
        self._reported = False
        # What the frame of nearly every event looks like, from kind to version; -1 while the state forbids it.
        self._hot_in = -1
        self._hot_out = -1

    def __repr__(self) -> str:
        return f"<Connection {self.role.value} {self.state.value} calls={self.calls_in_flight}>"

    @property
    def calls_in_flight(self) -> int:
        """Calls begun and not ended, and those held."""
        return len(self._calls) + self._held

    @property
    def bytes_pending(self) -> int:
        """Bytes queued and not yet taken with ``data_to_send``."""
        return self._pending

    @property
    def partial_length(self) -> int | None:
        """Bytes of the frame of which a part waits: at least a header's while the length is unknown; None if none does.

        Meaningful once ``next_event`` has returned ``NEED_DATA``.
        """
        buffer = self._buffer
        if not buffer:
            return None
        if not self._preamble_read:
            return len(PREAMBLE) + HEADER.size
        return total_length(buffer.data, buffer.at, _U32_MAX) or HEADER.size

    # Receiving.

    def receive_data(self, data: bytes) -> None:
        """Buffer what was received. Nothing is parsed yet, so nothing can go wrong here."""
        if self.state is State.CLOSED:
            self.discarded += len(data)
        else:
            self._buffer.append(data)

    def receive_eof(self) -> None:
        """Note that the peer will send nothing more. What is buffered is still read first."""
        self._end_of_input = True

    def next_event(self) -> Event | NeedData:
        """Parse one event out of what was received; ``NEED_DATA`` when there is none.

        Never raises for what a peer sent. After ``ConnectionEnded`` there is only ``NEED_DATA``.
        """
        # The path of a whole REQUEST (server) or RESPONSE (client) that nothing is unusual about. It may only succeed
        # where ``_next_unhurried`` would return an equal event; whatever it does not like, it leaves to that.
        buffer = self._buffer
        data = buffer.data
        start = buffer.at
        if len(data) - start >= 16 and type(data) is bytes:
            length, word, opcode, metadata_length, call_id = _HEADER.unpack_from(data, start)
            body = start + 16 + metadata_length
            end = start + 4 + length
            if word == self._hot_in and body <= end <= len(data) and length <= self._max_frame:
                calls = self._calls
                if self._serves:
                    if (
                        0 < call_id - self.last_call_id < _HALF
                        and call_id not in calls
                        and len(calls) + self._held < self._limits.max_calls
                    ):
                        self.frames_received += 1
                        self.last_call_id = call_id
                        calls[call_id] = opcode
                        buffer.at = end
                        return RequestReceived(
                            call_id,
                            opcode,
                            self._read_metadata(call_id, data[start + 16 : body]) if metadata_length else EMPTY,
                            data[body:end],
                        )
                elif (
                    calls.get(call_id) == opcode
                    and not metadata_length
                    and (self._credits is None or call_id not in self._credits)
                    and (self._cancelled is None or call_id not in self._cancelled)
                ):
                    self.frames_received += 1
                    del calls[call_id]
                    buffer.at = end
                    return ResponseReceived(call_id, opcode, data[body:end])
        return self._next_unhurried()

    def _next_unhurried(self) -> Event | NeedData:
        if self._end is None:
            try:
                event = self._read_event()
                if event is not None:
                    return event
                self._buffer.compact()
                if self._end_of_input:
                    self._read_end_of_input()
            except RemoteProtocolError as error:
                self.fail(error.with_traceback(None))
        if self._end is None or self._reported:
            return NEED_DATA
        self._reported = True
        return self._end

    def _read_event(self) -> Event | None:
        """The next event in the buffer; None when there is none or the connection ended."""
        buffer = self._buffer
        if not self._preamble_read and not self._read_preamble():
            return None
        if buffer and self._serves and self.state is State.GREETING:
            raise _early()
        while self._end is None:
            size = total_length(buffer.data, buffer.at, self._max_frame)
            if not size or len(buffer) < size:
                return None
            frame = unpack(buffer.data, buffer.at)
            buffer.at += size
            self.frames_received += 1
            event = self._receive(frame)
            if event is not None:
                return event
        return None

    def _read_preamble(self) -> bool:
        """Consume the peer's preamble; False while it is not whole, or the connection ended because there is none."""
        first = self._buffer.peek(max(len(PREAMBLE), LONGEST_FOREIGN_PREFIX))
        ours = PREAMBLE[:-1]
        if first.startswith(ours):
            if len(first) < len(PREAMBLE):
                return False
            their_major = first[len(ours)]
            if their_major != MAJOR:
                raise RemoteProtocolError(
                    "UNSUPPORTED_MAJOR",
                    f"the {_PEER[self.role]} speaks major version {their_major} of the wire; spoken here: {MAJOR}",
                    Status.FAILED_PRECONDITION,
                )
            self._buffer.at += len(PREAMBLE)
            self._preamble_read = True
            return True
        if ours.startswith(first):
            return False
        foreign = recognise(first, by_client=not self._serves)
        if foreign is None:
            return False
        error = RemoteProtocolError(
            "FOREIGN_PROTOCOL",
            f"the peer is {foreign.what} and no wireproto {_PEER[self.role]}; one begins with {PREAMBLE.hex(' ')}",
        )
        if foreign.http and self._serves:
            # The one stranger who can be told in words of its own.
            self._finish(error)
            self._queue(http_refusal(self._hint))
        elif self._serves:
            self.fail(error)
        else:
            # A foreign server waits for no ERROR of ours.
            self._finish(error)
        return False

    def _read_end_of_input(self) -> None:
        if self._buffer:
            raise RemoteProtocolError("TRUNCATED_FRAME", f"the input ended {len(self._buffer)} bytes into a frame")
        state = self._next_state(Direction.RECEIVE, END_OF_INPUT)
        self._end = ConnectionEnded(None)
        self._enter(state)

    def _receive(self, frame: Frame) -> Event | None:
        """Check one frame against the table and the header rules, in the order ``docs/protocol.md`` gives."""
        kind = frame.kind
        if kind not in _KINDS:
            if not kind & IGNORABLE:
                raise RemoteProtocolError("UNKNOWN_KIND", f"there is no frame of kind {kind}")
            self._next_state(Direction.RECEIVE, IGNORABLE)
            return None
        move = FINAL if kind == Kind.ERROR and not frame.call_id else kind
        state = self._next_state(Direction.RECEIVE, move)
        self._check_header(frame)
        event = _READERS[move](self, frame)
        if state is not self.state:
            self._enter(state)
        return event

    def _check_header(self, frame: Frame) -> None:
        kind = frame.kind
        name = Kind(kind).name
        if frame.flags:
            raise RemoteProtocolError("RESERVED_FLAGS", f"{name} has flags {frame.flags:#04x}; none is defined")
        codec, version = (self.codec, self.version) if kind in _OF_MESSAGES else (0, 0)
        if frame.codec != codec:
            raise RemoteProtocolError("WRONG_CODEC", f"{name} has codec {frame.codec}; here it must be {codec}")
        if frame.version != version:
            raise RemoteProtocolError("WRONG_VERSION", f"{name} has version {frame.version}; here it must be {version}")
        if not frame.call_id and kind in _OF_CALLS and kind != Kind.ERROR:
            raise RemoteProtocolError("CALL_ID", f"{name} names no call")
        if frame.call_id and kind not in _OF_CALLS:
            raise RemoteProtocolError("CALL_ID", f"{name} names call {frame.call_id}; it belongs to none")
        if frame.opcode and not frame.call_id:
            raise RemoteProtocolError("WRONG_OPCODE", f"{name} has opcode {frame.opcode:#06x} and belongs to no call")
        if frame.metadata and kind != Kind.REQUEST:
            raise RemoteProtocolError("UNEXPECTED_METADATA", f"{name} has metadata; only REQUEST may")

    def _next_state(self, direction: Direction, move: int) -> State:
        """The one place that says whether something may be sent or received now."""
        state = TRANSITIONS.get((self.role, self.state, direction), _NOTHING).get(move)
        if state is not None:
            return state
        if direction is Direction.SEND:
            raise LocalProtocolError(f"a {self.role.value} cannot send {_name(move)} while {self.state.value}")
        raise RemoteProtocolError(
            "UNEXPECTED_KIND", f"a {self.role.value} cannot be sent {_name(move)} while {self.state.value}"
        )

    def _enter(self, state: State) -> None:
        self.state = state
        ours, theirs = (Kind.RESPONSE, Kind.REQUEST) if self._serves else (Kind.REQUEST, Kind.RESPONSE)
        self._hot_in = self._hot_out = -1
        # DRAINING servers answer REQUESTs themselves, which is nothing for the hurried path.
        if theirs in TRANSITIONS.get((self.role, state, Direction.RECEIVE), _NOTHING) and not (
            self._serves and state is State.DRAINING
        ):
            self._hot_in = self._word(theirs)
        if ours in TRANSITIONS.get((self.role, state, Direction.SEND), _NOTHING):
            self._hot_out = self._word(ours)
        if state is State.CLOSED:
            self._buffer.clear()

    def _word(self, kind: int) -> int:
        """The four bytes kind, flags, codec and version of a frame with a message, as one number."""
        return kind << 24 | self.codec << 8 | self.version

    # What each kind means once its header is in order. A server's:

    def _read_hello(self, frame: Frame) -> Event:
        hello = Hello.decode(frame.payload)
        self.their_max_frame = hello.max_frame
        self._max_frame = self._limits.max_frame
        return HelloReceived(hello)

    def _read_request(self, frame: Frame) -> Event | None:
        call_id = frame.call_id
        ahead = (call_id - self.last_call_id) & _U32_MAX
        if not 0 < ahead < _HALF:
            raise RemoteProtocolError(
                "CALL_ID", f"REQUEST names call {call_id}, which is not after {self.last_call_id}"
            )
        if call_id in self._calls:
            raise RemoteProtocolError("CALL_ID", f"REQUEST names call {call_id}, which is in flight")
        self.last_call_id = call_id
        if self.state is State.DRAINING:
            self._refuse_call(frame, Status.UNAVAILABLE, "SHUTTING_DOWN", "the server is shutting down")
            return None
        if self.calls_in_flight >= self._limits.max_calls:
            text = f"{self.calls_in_flight} calls are in flight on this connection, the most it may have"
            self._refuse_call(frame, Status.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS", text)
            return None
        self._calls[call_id] = frame.opcode
        metadata = self._read_metadata(call_id, frame.metadata) if frame.metadata else EMPTY
        return RequestReceived(call_id, frame.opcode, metadata, frame.payload)

    def _read_metadata(self, call_id: int, block: bytes) -> Metadata | CallError:
        if len(block) > self._limits.max_metadata:
            return CallError(
                Status.RESOURCE_EXHAUSTED,
                "METADATA_TOO_LARGE",
                f"the request has {len(block)} bytes of metadata; at most {self._limits.max_metadata} are accepted",
            )
        try:
            metadata = unpack_metadata(block)
        except CallError as error:
            return error.with_traceback(None)
        if metadata.credit:
            self._grant(call_id, metadata.credit)
        return metadata

    def _refuse_call(self, frame: Frame, status: Status, reason: str, message: str) -> None:
        error = CallError(status, reason, message, retry=Retry.NOT_PROCESSED)
        self._next_state(Direction.SEND, Kind.ERROR)
        self._queue(pack(Kind.ERROR, 0, 0, frame.opcode, frame.call_id, b"", pack_error(error)))

    def _read_cancel(self, frame: Frame) -> Event | None:
        _expect_empty(frame)
        # Of a call that is over it merely crossed the answer.
        return CancelReceived(frame.call_id) if self._in_flight(frame) else None

    def _read_credit(self, frame: Frame) -> Event | None:
        if len(frame.payload) != _U32.size:
            raise _bad_body(Kind.CREDIT, f"it has {len(frame.payload)} bytes and not {_U32.size}")
        amount: int = _U32.unpack(frame.payload)[0]
        if not amount:
            raise _bad_body(Kind.CREDIT, "it grants nothing")
        if not self._in_flight(frame):
            return None
        if not self._grant(frame.call_id, amount):
            raise RemoteProtocolError(
                "CREDIT_OVERFLOW", f"the credit of call {frame.call_id} would be more than {_U32_MAX}"
            )
        return CreditReceived(frame.call_id, amount)

    def _grant(self, call_id: int, amount: int) -> bool:
        """Add to a call's credit; False when it would overflow."""
        if self._credits is None:
            self._credits = {}
        credit = self._credits.get(call_id, 0) + amount
        if credit > _U32_MAX:
            return False
        self._credits[call_id] = credit
        return True

    def _in_flight(self, frame: Frame) -> bool:
        opcode = self._calls.get(frame.call_id)
        if opcode is not None and opcode != frame.opcode:
            raise RemoteProtocolError(
                "WRONG_OPCODE",
                f"{Kind(frame.kind).name} has opcode {frame.opcode:#06x}; call {frame.call_id} has {opcode:#06x}",
            )
        return opcode is not None

    # A client's:

    def _read_welcome(self, frame: Frame) -> Event:
        welcome = Welcome.decode(frame.payload)
        assert self._hello is not None  # the table lets WELCOME in only after HELLO was sent
        if problem := welcome.mismatch(self._hello):
            raise _bad_body(Kind.WELCOME, problem)
        self._hello = None
        self._agree(welcome)
        self.their_max_frame = welcome.max_frame
        self.their_max_calls = welcome.max_calls
        self._max_frame = self._limits.max_frame
        return WelcomeReceived(welcome)

    def _read_answer(self, frame: Frame) -> Event | None:
        """RESPONSE, ITEM, END, or the ERROR of a call."""
        kind, call_id = frame.kind, frame.call_id
        if not self._in_flight(frame):
            self._stray += 1
            if self._stray > MAX_STRAY_ANSWERS:
                raise RemoteProtocolError(
                    "STRAY_ANSWERS", f"{self._stray} answers came to calls that are not in flight"
                )
            return None
        is_stream = self._credits is not None and call_id in self._credits
        if kind != Kind.ERROR and is_stream == (kind == Kind.RESPONSE):
            called = "a stream" if is_stream else "no stream"
            raise RemoteProtocolError("WRONG_ANSWER", f"call {call_id} is {called} and was answered with {_name(kind)}")
        wanted = self._cancelled is None or call_id not in self._cancelled
        if kind == Kind.ITEM:
            assert self._credits is not None
            if not self._credits[call_id]:
                raise RemoteProtocolError("CREDIT_EXCEEDED", f"call {call_id} sent an item and had no credit left")
            self._credits[call_id] -= 1
            return ItemReceived(call_id, frame.payload) if wanted else None
        event: Event
        if kind == Kind.RESPONSE:
            event = ResponseReceived(call_id, frame.opcode, frame.payload)
        elif kind == Kind.END:
            _expect_empty(frame)
            event = EndReceived(call_id)
        else:
            event = ErrorReceived(call_id, unpack_error(frame.payload))
        self._forget(call_id)
        return event if wanted else None

    def _read_goaway(self, frame: Frame) -> Event:
        if len(frame.payload) < _U32.size:
            raise _bad_body(Kind.GOAWAY, f"it has {len(frame.payload)} bytes")
        return GoAwayReceived(_U32.unpack_from(frame.payload)[0], unpack_error(frame.payload[_U32.size :]))

    # Both sides':

    def _read_ping(self, frame: Frame) -> Event:
        data = _eight_bytes(frame)
        self._send(Kind.PONG, 0, 0, data)
        return PingReceived(data)

    def _read_pong(self, frame: Frame) -> Event:
        return PongReceived(_eight_bytes(frame))

    def _read_final(self, frame: Frame) -> None:
        error = unpack_error(frame.payload, HandshakeError if self.state is State.GREETING else CallError)
        self._finish(error)

    # Sending.

    def data_to_send(self) -> bytes:
        """Take everything queued; ``b""`` when nothing is."""
        out = self._out
        if not out:
            return b""
        data = b"".join(out)
        out.clear()
        self._pending = 0
        calls = self._calls
        if not calls:
            # An emptied dict keeps its table, a cleared one does not: thousands of idle connections notice.
            calls.clear()
        return data

    def send_hello(self, hello: Hello) -> None:
        """Client: greet, first of all. Digests are left out when HELLO would be too long with them.

        Raises:
            LocalProtocolError: HELLO was sent already, or a value of it is out of range.
        """
        body = hello.encode()
        if HEADER_AFTER_LENGTH + len(body) > HELLO_MAX_FRAME:
            body = Hello(**{**{f: getattr(hello, f) for f in hello.__struct_fields__}, "digests": {}}).encode()
        self._send(Kind.HELLO, 0, 0, body)
        self._hello = hello

    def send_welcome(self, welcome: Welcome) -> None:
        """Server: accept the client's HELLO; the connection is open. If the client did not wait, it fails instead.

        Raises:
            LocalProtocolError: there is no HELLO to answer, or a value is out of range.
        """
        body = welcome.encode()
        self._next_state(Direction.SEND, Kind.WELCOME)
        if self._buffer:
            self.fail(_early())
            return
        self._agree(welcome)
        self._send(Kind.WELCOME, 0, 0, body)

    def _agree(self, welcome: Welcome) -> None:
        self.version = welcome.version
        self.codec = welcome.codec
        self.heartbeat_ms = welcome.heartbeat_ms

    def refuse(self, error: CallError) -> None:
        """End the connection with a final ERROR that says why: a handshake declined, a limit reached, a time-out.

        Raises:
            LocalProtocolError: it is over already, or, as a client, not begun.
        """
        self._next_state(Direction.SEND, FINAL)
        self._end_with(error)

    def fail(self, error: RemoteProtocolError) -> None:
        """End the connection because the peer broke a rule; the final ERROR is queued. Does nothing when it is over."""
        if self._end is None:
            if FINAL in TRANSITIONS.get((self.role, self.state, Direction.SEND), _NOTHING):
                self._end_with(error)
            else:
                self._finish(error)
        elif self.state is State.HALF_CLOSED:
            self._send(Kind.ERROR, 0, 0, pack_error(error))
            self.error = error

    def close(self) -> None:
        """Be done with the connection: nothing is queued, whatever comes is dropped."""
        if self._end is None:
            self._end = ConnectionEnded(None)
        self._enter(State.CLOSED)

    def _end_with(self, error: RemoteProtocolError | CallError) -> None:
        self._queue_control(Kind.ERROR, 0, 0, pack_error(error))
        self._finish(error)

    def _finish(self, error: RemoteProtocolError | CallError) -> None:
        self.error = error
        if self._end is None:
            self._end = ConnectionEnded(error)
        self._enter(State.CLOSED)

    def send_request(self, opcode: int, payload: bytes, metadata: bytes = b"", *, credit: int | None = None) -> int:
        """Client: begin a call.

        Args:
            opcode: of the method, 0 to 65,535.
            payload: the encoded request.
            metadata: a block from ``pack_metadata``.
            credit: for a stream, the credit that the block grants (0 if it has none); None for a unary call.

        Returns:
            The call's id.

        Raises:
            PayloadTooLarge: the peer does not accept a frame so large.
            LocalProtocolError: the state does not allow it.
        """
        length = HEADER_AFTER_LENGTH + len(metadata) + len(payload)
        if self._hot_out < 0 or self._serves:
            self._next_state(Direction.SEND, Kind.REQUEST)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        if len(metadata) > MAX_METADATA:
            raise LocalProtocolError(f"the metadata has {len(metadata)} bytes; at most {MAX_METADATA} can be sent")
        calls = self._calls
        call_id = self.last_call_id + 1
        while call_id > _U32_MAX or call_id in calls:
            # Past the end 1 comes next: 0 is the connection itself. A stream may be as old as the last time round.
            call_id = call_id % _U32_MAX + 1
        header = _HEADER.pack(length, self._hot_out, opcode, len(metadata), call_id)
        self.last_call_id = call_id
        calls[call_id] = opcode
        if credit is not None:
            self._grant(call_id, credit)
        self._out += (header, metadata, payload) if metadata else (header, payload)
        self._pending += length + 4
        return call_id

    def send_cancel(self, call_id: int) -> bool:
        """Client: no longer want a call's answer. What still comes of it is dropped.

        Returns:
            False when the call was over or cancelled already; nothing is sent then.
        """
        opcode = self._calls.get(call_id)
        if opcode is None or (self._cancelled is not None and call_id in self._cancelled):
            return False
        self._send(Kind.CANCEL, opcode, call_id, b"")
        if self._cancelled is None:
            self._cancelled = set()
        self._cancelled.add(call_id)
        return True

    def send_credit(self, call_id: int, amount: int) -> bool:
        """Client: let a stream send ``amount`` more items, 1 to 2**32 - 1 and no more than that together.

        Returns:
            False when the call was over or cancelled already; nothing is sent then.

        Raises:
            LocalProtocolError: the amount is out of range, or the call is no stream.
        """
        opcode = self._calls.get(call_id)
        if opcode is None or (self._cancelled is not None and call_id in self._cancelled):
            return False
        if self._credits is None or call_id not in self._credits:
            raise LocalProtocolError(f"call {call_id} is no stream")
        if amount < 1 or self._credits[call_id] + amount > _U32_MAX:
            raise LocalProtocolError(f"credit of call {call_id} must grow by 1 or more and stay within {_U32_MAX}")
        self._send(Kind.CREDIT, opcode, call_id, _U32.pack(amount))
        self._grant(call_id, amount)
        return True

    def send_response(self, call_id: int, payload: bytes) -> None:
        """Server: answer a unary call; it is over then.

        Raises:
            PayloadTooLarge: the peer does not accept a frame so large; the call is still in flight.
            LocalProtocolError: the call is not in flight, or the state does not allow it.
        """
        length = HEADER_AFTER_LENGTH + len(payload)
        if self._hot_out < 0 or not self._serves:
            self._next_state(Direction.SEND, Kind.RESPONSE)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        opcode = self._calls.pop(call_id, None)
        if opcode is None:
            raise _not_in_flight(call_id)
        if self._credits:
            self._credits.pop(call_id, None)
        self._out += (_HEADER.pack(length, self._hot_out, opcode, 0, call_id), payload)
        self._pending += length + 4

    def send_item(self, call_id: int, payload: bytes) -> None:
        """Server: send one item of a stream, which takes one of its credit.

        Raises:
            PayloadTooLarge: the peer does not accept a frame so large.
            LocalProtocolError: the call is not in flight or has no credit, or the state does not allow it.
        """
        opcode = self._calls.get(call_id)
        if opcode is None:
            raise _not_in_flight(call_id)
        if self._credits is None or not self._credits.get(call_id):
            raise LocalProtocolError(f"call {call_id} has no credit left")
        self._send(Kind.ITEM, opcode, call_id, payload)
        self._credits[call_id] -= 1

    def send_end(self, call_id: int) -> None:
        """Server: a stream is complete; the call is over.

        Raises:
            LocalProtocolError: the call is not in flight, or the state does not allow it.
        """
        self._send_last(Kind.END, call_id, b"")

    def send_error(self, call_id: int, error: CallError) -> None:
        """Server: a call failed and is over.

        Raises:
            LocalProtocolError: the call is not in flight, or the state does not allow it.
        """
        self._send_last(Kind.ERROR, call_id, pack_error(error))

    def _send_last(self, kind: int, call_id: int, body: bytes) -> None:
        opcode = self._calls.get(call_id)
        if opcode is None:
            raise _not_in_flight(call_id)
        self._send(kind, opcode, call_id, body)
        self._forget(call_id)

    def _forget(self, call_id: int) -> None:
        del self._calls[call_id]
        if self._credits is not None:
            self._credits.pop(call_id, None)
        if self._cancelled is not None:
            self._cancelled.discard(call_id)

    def credit(self, call_id: int) -> int:
        """Items that may still be sent (server) or come (client) of a call; 0 for one that is over."""
        return self._credits.get(call_id, 0) if self._credits is not None else 0

    def hold(self) -> None:
        """Server: keep counting a call that was answered early (deadline, cancel) and whose handler runs on."""
        self._held += 1

    def release(self) -> None:
        """Server: the handler of a call that was held has returned.

        Raises:
            LocalProtocolError: none is held.
        """
        if not self._held:
            raise LocalProtocolError("no call is held")
        self._held -= 1

    def send_ping(self, data: bytes) -> None:
        """Ask for a sign of life.

        Args:
            data: 8 bytes that come back in the PONG.

        Raises:
            LocalProtocolError: they are not 8, or the state does not allow it.
        """
        if len(data) != 8:
            raise LocalProtocolError(f"a PING has 8 bytes, not {len(data)}")
        self._send(Kind.PING, 0, 0, data)

    def send_goaway(self, error: CallError) -> None:
        """Server: take no more calls. Those in flight go on; further ones are refused, "not processed".

        Raises:
            LocalProtocolError: it was sent already, or the state does not allow it.
        """
        self._send(Kind.GOAWAY, 0, 0, _U32.pack(self.last_call_id) + pack_error(error))

    def _send(self, kind: int, opcode: int, call_id: int, body: bytes) -> None:
        """Queue any frame but a REQUEST and a RESPONSE, which have their own, shorter way."""
        state = self._next_state(Direction.SEND, FINAL if kind == Kind.ERROR and not call_id else kind)
        length = HEADER_AFTER_LENGTH + len(body)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        self._queue_control(kind, opcode, call_id, body)
        if state is not self.state:
            self._enter(state)

    def _queue_control(self, kind: int, opcode: int, call_id: int, body: bytes) -> None:
        codec, version = (self.codec, self.version) if kind in _OF_MESSAGES else (0, 0)
        if kind == Kind.HELLO or (self._serves and self.state in (State.START, State.GREETING)):
            self._queue(PREAMBLE)
        self._queue(pack(kind, codec, version, opcode, call_id, b"", body))

    def _queue(self, data: bytes) -> None:
        self._out.append(data)
        self._pending += len(data)


_PEER = {Role.CLIENT: "server", Role.SERVER: "client"}

_READERS: Final[dict[int, Callable[[Connection, Frame], Event | None]]] = {
    FINAL: Connection._read_final,
    Kind.HELLO: Connection._read_hello,
    Kind.WELCOME: Connection._read_welcome,
    Kind.REQUEST: Connection._read_request,
    Kind.RESPONSE: Connection._read_answer,
    Kind.ITEM: Connection._read_answer,
    Kind.END: Connection._read_answer,
    Kind.ERROR: Connection._read_answer,
    Kind.CANCEL: Connection._read_cancel,
    Kind.CREDIT: Connection._read_credit,
    Kind.PING: Connection._read_ping,
    Kind.PONG: Connection._read_pong,
    Kind.GOAWAY: Connection._read_goaway,
}


def _name(move: int) -> str:
    if move == FINAL:
        return "a final ERROR"
    if move == END_OF_INPUT:
        return "the end of input"
    return Kind(move).name if move in _KINDS else "a frame of an unknown kind"


def _early() -> RemoteProtocolError:
    return RemoteProtocolError("EARLY_FRAME", "the client sent more before HELLO was answered")


def _bad_body(kind: Kind, problem: str) -> RemoteProtocolError:
    return RemoteProtocolError("BAD_BODY", f"the body of {kind.name} cannot be read: {problem}")


def _not_in_flight(call_id: int) -> LocalProtocolError:
    return LocalProtocolError(f"call {call_id} is not in flight")


def _expect_empty(frame: Frame) -> None:
    if frame.payload:
        raise _bad_body(Kind(frame.kind), f"it has {len(frame.payload)} bytes and must be empty")


def _eight_bytes(frame: Frame) -> bytes:
    if len(frame.payload) != 8:
        raise _bad_body(Kind(frame.kind), f"it has {len(frame.payload)} bytes and not 8")
    return frame.payload
