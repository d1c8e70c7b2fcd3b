"""The lower half of a connection: bytes to frames and back, the preamble, the table of states, and the end.

``connection.py`` puts the handshake and the calls on top of it.
"""

from typing import Final

from wireproto.errors import CallError, HandshakeError, LocalProtocolError, RemoteProtocolError
from wireproto.limits import HELLO_MAX_FRAME, Limits
from wireproto.wire.buffer import Buffer
from wireproto.wire.events import NEED_DATA, ConnectionEnded, Event, NeedData, PingReceived, PongReceived
from wireproto.wire.frame import (
    HEADER_AFTER_LENGTH,
    HEADER_SIZE,
    IGNORABLE,
    KINDS,
    OF_MESSAGES,
    PREAMBLE,
    TOP_BIT,
    Frame,
    Kind,
    check_header,
    pack,
    pack_error,
    total_length,
    unpack,
    unpack_error,
    unpack_ping,
)
from wireproto.wire.handshake import LONGEST_PREFIX, http_refusal, recognise
from wireproto.wire.state import END_OF_INPUT, FINAL, Direction, Role, State, allowed, describe

__all__ = ["Framing", "PayloadTooLarge"]

_DEFAULT_LIMITS: Final = Limits()


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


class Framing:
    """See ``Connection``, whose arguments and attributes these are."""

    __slots__ = (
        "_asked",
        "_buffer",
        "_early",
        "_end",
        "_end_of_input",
        "_frames_judged",
        "_greeting",
        "_hint",
        "_limits",
        "_max_frame",
        "_may_receive",
        "_may_send",
        "_out",
        "_preamble_read",
        "_reported",
        "_serves",
        "_wanted",
        "bytes_pending",
        "codec",
        "discarded",
        "error",
        "frames_ignored",
        "frames_received",
        "goaway_received",
        "goaway_sent",
        "packing",
        "role",
        "state",
        "their_max_frame",
        "version",
    )

    def __init__(self, role: Role, limits: Limits | None, hint: str) -> None:
        self.role = role
        self.version = 0
        self.codec = 0
        self.packing = 0
        self.their_max_frame = HELLO_MAX_FRAME
        self.frames_received = 0
        self.frames_ignored = 0
        self._asked = 0  # PINGs that no PONG has answered yet
        self.discarded = 0
        self.goaway_sent = False
        self.goaway_received = False
        self.error: RemoteProtocolError | CallError | None = None

        self._serves = role is Role.SERVER
        self._limits = limits or _DEFAULT_LIMITS
        self._hint = hint
        self._max_frame = HELLO_MAX_FRAME
        self._buffer = Buffer()
        self._wanted = 0  # bytes without which the frame under way is not whole
        self._frames_judged = 0  # frames read the plain way, one by one
        self._preamble_read = False
        self._greeting: Event | None = None  # HELLO, until its early REQUESTs are there as well
        self._early = 0  # bytes of those, until they are looked at or skipped
        self._end_of_input = False
        self._out: list[bytes] = []
        self.bytes_pending = 0
        self._end: ConnectionEnded | None = None
        self._reported = False
        self._enter(State.START)

    def _enter(self, state: State) -> None:
        self.state = state
        sent, received = self.goaway_sent, self.goaway_received
        self._may_send = allowed(self.role, state, Direction.SEND, sent, received)
        self._may_receive = allowed(self.role, state, Direction.RECEIVE, sent, received)
        if state is State.CLOSED:
            self._buffer.clear()

    def _sending(self, move: int) -> State:
        """The state after sending ``move``: the one place that says whether it may be sent now."""
        state = self._may_send.get(move)
        if state is None:
            raise LocalProtocolError(f"a {self.role.value} cannot send {describe(move)} {self._situation()}")
        return state

    def _receiving(self, move: int) -> State:
        """The state after receiving ``move``: the one place that says whether the peer may send it now."""
        state = self._may_receive.get(move)
        if state is None:
            raise RemoteProtocolError(
                "UNEXPECTED_KIND", f"a {self.role.value} cannot be sent {describe(move)} {self._situation()}"
            )
        return state

    def _situation(self) -> str:
        gone = self.goaway_sent or self.goaway_received
        return f"while {self.state.value}" + (", after GOAWAY" if gone else "")

    # Receiving.

    @property
    def bytes_waiting(self) -> int:
        """Bytes received and not parsed yet."""
        return len(self._buffer)

    @property
    def partial_length(self) -> int | None:
        """Bytes of the frame of which a part waits, or of its header while the length is unknown; None if none waits.

        Meaningful once ``next_event`` has returned ``NEED_DATA``.
        """
        length = self._buffer.peek(4)
        if not length:
            return None
        if not self._preamble_read:
            return len(PREAMBLE) + HEADER_SIZE
        return 4 + int.from_bytes(length, "big") if len(length) == 4 else HEADER_SIZE

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Buffer what was received. Nothing is parsed yet, so nothing can go wrong here."""
        if self._end is None:
            buffer = self._buffer
            if not buffer.data and type(data) is bytes:
                buffer.data = data
            else:
                buffer.append(data)
        else:
            self.discarded += len(data)

    def receive_eof(self) -> None:
        """Note that the peer will send nothing more. What is buffered is still read first."""
        self._end_of_input = True

    def next_event(self) -> Event | NeedData:
        """Parse one event out of what was received; ``NEED_DATA`` when there is none.

        Never raises for what a peer sent. After ``ConnectionEnded`` there is only ``NEED_DATA``.
        """
        if self._end is None:
            if len(self._buffer) < self._wanted and not self._end_of_input:
                # Looked at before: a frame that comes in a million pieces is parsed once.
                return NEED_DATA
            try:
                event = self._read_event()
                if event is not None:
                    return event
                self._buffer.compact()
                if self._end_of_input and self._end is None:
                    self._read_end_of_input()
            except RemoteProtocolError as error:
                # Without its traceback, which would keep this connection alive as long as the error.
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
        while self._end is None:
            if self._serves and self.state is State.GREETING:
                return self._read_greeting()
            data = buffer.data
            if type(data) is not bytes:
                data = buffer.join()
            size = total_length(data, buffer.at, self._max_frame)
            if not size or len(buffer) < size:
                self._wanted = size
                return None
            frame = unpack(data, buffer.at)
            buffer.at += size
            self._wanted = 0
            self.frames_received += 1
            event = self._receive(frame)
            if event is not None:
                return event
        return None

    def _read_greeting(self) -> Event | None:
        """Tell of HELLO once the REQUESTs that it announced are there. They stay in the buffer until it is answered."""
        waiting, greeting = len(self._buffer), self._greeting
        if greeting is None:
            if waiting > self._early:
                raise self._too_early()
            return None
        if waiting < self._early:
            self._wanted = self._early
            return None
        self._wanted = 0
        self._greeting = None
        return greeting

    def _read_preamble(self) -> bool:
        """Consume the peer's preamble; False while it is not whole, or the connection ended because there is none."""
        peer = recognise(self._buffer.peek(LONGEST_PREFIX), by_client=not self._serves)
        if peer == "undecided":
            return False
        if peer == "ours":
            self._buffer.at += len(PREAMBLE)
            self._preamble_read = True
            return True
        if self._serves and not peer.http:
            self.fail(peer.error)
            return False
        # An HTTP client is told in words of its own; a server of another kind waits for no ERROR of ours.
        self._finish(peer.error)
        if self._serves:
            self._queue(http_refusal(self._hint))
        return False

    def _read_end_of_input(self) -> None:
        if self._buffer:
            raise RemoteProtocolError("TRUNCATED_FRAME", f"the input ended {len(self._buffer)} bytes into a frame")
        state = self._receiving(END_OF_INPUT)
        self._end = ConnectionEnded(None)
        self._enter(state)

    def _receive(self, frame: Frame) -> Event | None:
        """Check one frame, in the order ``docs/wire.md`` gives, and act on it."""
        kind = frame.kind
        self._frames_judged += 1
        if kind not in KINDS:
            if not kind & IGNORABLE:
                raise RemoteProtocolError("UNKNOWN_KIND", f"there is no frame of kind {kind}")
            self._receiving(IGNORABLE)
            self.frames_ignored += 1
            return None
        move = FINAL if kind == Kind.ERROR and not frame.call_id else kind
        state = self._receiving(move)
        check_header(frame, self.codec, self.version, self.packing, TOP_BIT if self._serves else 0)
        if move == FINAL:
            self._finish(unpack_error(frame.payload, HandshakeError if self.state is State.GREETING else CallError))
            return None
        event = self._read(frame)
        if state is not self.state:
            self._enter(state)
        return event

    def _read(self, frame: Frame) -> Event | None:
        """What a frame means, its header being in order."""
        data = unpack_ping(frame)
        if frame.kind == Kind.PONG:
            if self._asked:
                self._asked -= 1
            else:
                self.frames_ignored += 1
            return PongReceived(data)
        if Kind.PONG in self._may_send:  # a client that has ended its output may still be asked
            self._send(Kind.PONG, 0, 0, data)
        return PingReceived(data)

    def _too_early(self) -> RemoteProtocolError:
        return RemoteProtocolError("EARLY_FRAME", "the client sent more before its HELLO was answered")

    # Sending.

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
        self._asked += 1

    def refuse(self, error: CallError) -> None:
        """End the connection with a final ERROR that says why: a handshake declined, a limit reached, a time-out.

        Raises:
            LocalProtocolError: it is over already, or, as a client, not begun.
        """
        self._send(Kind.ERROR, 0, 0, pack_error(error))
        self._finish(error)

    def fail(self, error: RemoteProtocolError) -> None:
        """End the connection because the peer broke a rule; the final ERROR is queued. When it is over, do nothing."""
        if self.state is State.CLOSED:
            return
        if FINAL in self._may_send:
            self._send(Kind.ERROR, 0, 0, pack_error(error))
        self._finish(error)

    def close(self) -> None:
        """Be done with the connection: nothing is queued, and what still comes is dropped."""
        if self._end is None:
            self._end = ConnectionEnded(None)
        self._enter(State.CLOSED)

    def _finish(self, error: RemoteProtocolError | CallError) -> None:
        self.error = error
        if self._end is None:
            self._end = ConnectionEnded(error)
        self._enter(State.CLOSED)

    def _send(
        self, kind: int, opcode: int, call_id: int, body: bytes, *, flags: int = 0, metadata: bytes = b""
    ) -> None:
        """Queue a frame."""
        state = self._sending(FINAL if kind == Kind.ERROR and not call_id else kind)
        length = HEADER_AFTER_LENGTH + len(metadata) + len(body)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        codec, version = (self.codec, self.version) if kind in OF_MESSAGES else (0, 0)
        if kind == Kind.HELLO or (self._serves and self.state in (State.START, State.GREETING)):
            # The first thing either side says.
            self._queue(PREAMBLE)
        self._queue(pack(kind, codec, version, opcode, call_id, metadata, body, flags))
        if state is not self.state:
            self._enter(state)

    def _queue(self, data: bytes) -> None:
        self._out.append(data)
        self.bytes_pending += len(data)
