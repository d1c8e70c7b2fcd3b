"""One connection without a socket: bytes in, events out; sends in, bytes out.

    receive_data(bytes) -> next_event() ... -> send_*(...) -> data_to_send() -> bytes

The same class serves both roles. It knows no socket, thread, clock or log, and payloads are opaque to it. Whatever
is sent or received is looked up in the one table of ``state.py``. A peer that breaks a rule never causes an exception
here: ``next_event`` queues the final ERROR and reports ``ConnectionEnded``. An exception is always ours, a
``LocalProtocolError``, and then nothing was queued.

Not thread-safe: the owner holds one lock around every call. Rules and numbers: ``docs/wire.md``.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from wireproto.errors import CallError, LocalProtocolError, RemoteProtocolError
from wireproto.limits import HELLO_MAX_FRAME, Limits
from wireproto.reasons import failure
from wireproto.status import Status
from wireproto.wire.answers import MAX_ANSWER, NOTHING_BESIDE, pack_dropped, unpack_answer
from wireproto.wire.calls import CallState
from wireproto.wire.early import EarlyRequest, early_problem
from wireproto.wire.events import (
    AnsweredBeside,
    AnswerEvent,
    AnswerUnreadable,
    CallOver,
    CancelReceived,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    Event,
    FlaggedRequestReceived,
    GoAwayReceived,
    HelloReceived,
    ItemReceived,
    OneWayCreditReceived,
    PackedItemReceived,
    PackedResponseReceived,
    RequestEnded,
    RequestReceived,
    ResponseReceived,
    WelcomeReceived,
)
from wireproto.wire.frame import (
    HEADER_AFTER_LENGTH,
    NO_CREDIT,
    TOP_BIT,
    U32_MAX,
    Credit,
    Flag,
    Frame,
    Kind,
    bad_body,
    flags_problem,
    pack_credit,
    pack_details,
    pack_error,
    pack_goaway,
    unpack_credit,
    unpack_empty,
    unpack_error,
    unpack_goaway,
)
from wireproto.wire.framing import PayloadTooLarge
from wireproto.wire.handshake import Hello, Welcome, encode_fitting
from wireproto.wire.hurried import Hurried, not_in_flight, too_much_metadata
from wireproto.wire.metadata import EMPTY, MAX_METADATA, Metadata
from wireproto.wire.packing import Packed, Payload, read_packed
from wireproto.wire.state import END_OF_INPUT, Direction, Role, State

__all__ = ["MAX_STRAY_ANSWERS", "Connection", "ConnectionMaker", "PayloadTooLarge", "Role", "State"]

MAX_STRAY_ANSWERS = 16
"""Answers to calls that are not in flight which a client drops; one more ends the connection."""


class Connection(Hurried):
    """The state of one connection, for either role.

    Args:
        role: which side this is.
        limits: what this side accepts; ``max_frame`` and ``max_metadata`` are enforced here. What a side accepts of
            calls is what it said in HELLO or WELCOME.
        hint: a sentence for an HTTP client that meets this server, such as where gRPC is spoken.

    Attributes:
        state: how far the connection has come.
        version: of the service; 0 until WELCOME.
        codec: id; 0 until WELCOME.
        control: version of the framework's own methods; 1 until WELCOME says more.
        packing: number of the algorithm with which either side may pack payloads; 0 until WELCOME, and for none.
        their_max_frame: largest length field the peer accepts.
        their_max_calls: calls in flight the peer accepts; 0 until the handshake, and for a client that takes none. A
            side should keep within it: the peer refuses what is beyond, one by one.
        heartbeat_ms: the agreed one; 0 for none.
        goaway_sent: the calls that the peer begins are refused.
        goaway_received: this side begins no calls any more.
        frames_received: whole frames read, ignored ones included.
        frames_ignored: chatter among them: those of unknown kinds, and PONGs that answer no PING.
        discarded: bytes received after the connection was over.
        bytes_pending: queued and not yet taken with ``data_to_send``.
        error: why it ended; None while it has not, and after an orderly end.
    """

    __slots__ = ("_hello", "_stray", "control", "heartbeat_ms", "their_max_calls")

    _most_stray = MAX_STRAY_ANSWERS  # tests make it smaller

    def __init__(self, role: Role, limits: Limits | None = None, *, hint: str = "") -> None:
        self.their_max_calls = 0
        self.heartbeat_ms = 0
        self.control = 1
        self._stray = 0
        self._hello: Hello | None = None
        super().__init__(role, limits, hint)

    def __repr__(self) -> str:
        return f"<Connection {self.role.value} {self.state.value} calls={self.calls_in_flight}>"

    # Receiving.

    def _read(self, frame: Frame) -> Event | None:
        reader = _READERS.get(frame.kind)
        return reader(self, frame) if reader is not None else super()._read(frame)

    # What each kind means once its header is in order. A server's:

    def _read_hello(self, frame: Frame) -> None:
        hello = Hello.decode(frame.payload)
        if (size := HEADER_AFTER_LENGTH + len(frame.payload) + hello.early) > HELLO_MAX_FRAME:
            raise bad_body(Kind.HELLO, f"with its early REQUESTs it is {size} bytes; at most {HELLO_MAX_FRAME}")
        self.their_max_frame = hello.max_frame
        self.their_max_calls = hello.max_calls
        self._max_frame = self._limits.max_frame
        self._ours.accepted(hello.max_calls, hello.first_credit, hello.one_way_credit)
        self._hello = hello
        self._early = hello.early
        self._greeting = HelloReceived(hello)

    def _read_welcome(self, frame: Frame) -> Event:
        welcome = Welcome.decode(frame.payload)
        hello = self._hello
        assert hello is not None  # the table lets WELCOME in only after HELLO was sent
        if problem := welcome.mismatch(hello):
            raise bad_body(Kind.WELCOME, problem)
        self._hello = None
        self._agree(welcome)
        self.their_max_frame = welcome.max_frame
        self.their_max_calls = welcome.max_calls
        self._max_frame = self._limits.max_frame
        ours = self._ours
        ours.accepted(welcome.max_calls, welcome.first_credit, welcome.one_way_credit)
        if hello.is_met(welcome):
            ours.welcome()
            return WelcomeReceived(welcome)
        skipped = tuple(ours.opcodes)
        ours.lose()
        return WelcomeReceived(welcome, skipped)

    def _read_request(self, frame: Frame) -> Event | None:
        if self._is_forgotten(frame):
            return None
        theirs, call_id, flags = self._theirs, frame.call_id, frame.flags
        payload = self._payload(frame)
        if flags & Flag.ITEMS_FOLLOW and frame.payload:
            raise bad_body(Kind.REQUEST, f"it has {len(frame.payload)} bytes, and its messages follow as ITEMs")
        if not theirs.takes(call_id):
            raise RemoteProtocolError("CALL_ID", f"REQUEST names call {call_id}, which is not after {theirs.last}")
        if call_id in theirs.opcodes:
            raise RemoteProtocolError("CALL_ID", f"REQUEST names call {call_id}, which is in flight")
        theirs.begin(call_id)
        if self.goaway_sent:
            self._refuse_call(frame, "SHUTTING_DOWN", f"the {self.role.value} is shutting down")
            return None
        if flags & Flag.ONE_WAY:
            if theirs.one_way < 1:
                raise RemoteProtocolError("CREDIT_EXCEEDED", f"call {call_id} is one-way and had no credit")
            theirs.one_way -= 1
        elif self.peer_calls >= theirs.max_calls:
            text = f"{self.peer_calls} calls are in flight on this connection, the most it may have"
            self._refuse_call(frame, "TOO_MANY_CALLS", text)
            return None
        metadata = self._read_metadata(frame.metadata) if frame.metadata else EMPTY
        if not flags:
            theirs.opcodes[call_id] = frame.opcode
            return RequestReceived(call_id, frame.opcode, metadata, frame.payload)
        shape = flags & ~Flag.PACKED
        if not shape:
            theirs.opcodes[call_id] = frame.opcode  # a unary call is one however its payload travels
        elif not shape & Flag.ONE_WAY:
            granted = metadata.credit if isinstance(metadata, Metadata) else None
            theirs.open(call_id, frame.opcode, shape, to_send=granted or NO_CREDIT, to_come=theirs.first)
        return FlaggedRequestReceived(call_id, frame.opcode, shape, metadata, payload)

    def _refuse_call(self, frame: Frame, reason: str, message: str) -> None:
        """Answer a REQUEST that never comes to be a call. Its ITEMs may be under way already."""
        if frame.flags & Flag.ONE_WAY:
            return
        if frame.flags & Flag.ITEMS_FOLLOW:
            self._theirs.let_cross(*self._theirs.first, self._overrun)
        self._send(Kind.ERROR, frame.opcode, frame.call_id, pack_error(failure(reason, message)))

    def _is_forgotten(self, frame: Frame) -> bool:
        """Whether the frame is of a call that this side forgot when it ended its output; the peer may not know."""
        return self.state is State.HALF_CLOSED and frame.call_id & TOP_BIT == self._theirs.top_bit

    def _read_of_call(self, frame: Frame) -> Event | None:
        """RESPONSE, ITEM, END, the ERROR of a call, CANCEL or CREDIT, by the table of ``calls.py``."""
        kind, call_id = frame.kind, frame.call_id
        credit = unpack_credit(frame) if kind == Kind.CREDIT else NO_CREDIT
        error = unpack_error(frame.payload) if kind == Kind.ERROR else None
        if kind in (Kind.END, Kind.CANCEL):
            unpack_empty(frame)
        payload = self._payload(frame)
        if not call_id:
            return self._read_one_way_credit(credit)
        if self._is_forgotten(frame):
            return None
        calls = self._calls_of(call_id)
        opcode = calls.opcodes.get(call_id)
        if opcode is None:
            self._read_of_no_call(frame, len(payload))
            return None
        if opcode != frame.opcode:
            raise RemoteProtocolError(
                "WRONG_OPCODE",
                f"{Kind(kind).name} has opcode {frame.opcode:#06x}; call {call_id} has {opcode:#06x}",
            )
        halves = calls.state_of(call_id)
        state = halves.state
        step = halves.step(Direction.RECEIVE, kind)
        if step is None:
            raise _wrong_half(frame, f"call {call_id} is {state.value}, begun with flags {halves.flags:#04x}")
        if step.then is CallState.OVER:
            calls.forget(call_id)
            if state is CallState.CANCELLED:
                return CallOver(call_id)
            event: AnswerEvent
            if error is not None:
                event = ErrorReceived(call_id, error)
            elif kind == Kind.END:
                event = EndReceived(call_id)
            elif isinstance(payload, Packed):
                event = PackedResponseReceived(call_id, opcode, payload)
            else:
                event = ResponseReceived(call_id, opcode, payload)
            return self._beside(frame, event) if frame.metadata or (error and error.packed_details) else event
        if kind == Kind.ITEM:
            if halves.items_to_come < 1 or halves.bytes_to_come < 1:
                raise RemoteProtocolError("CREDIT_EXCEEDED", f"call {call_id} sent an item and had no credit left")
            halves.items_to_come -= 1
            halves.bytes_to_come -= len(payload)
            if state is CallState.CANCELLED:
                return None
            item = (
                PackedItemReceived(call_id, payload) if isinstance(payload, Packed) else ItemReceived(call_id, payload)
            )
            return self._beside(frame, item) if frame.metadata else item
        if kind == Kind.CREDIT:
            halves.items_to_send += credit.items
            halves.bytes_to_send += credit.bytes
            if halves.items_to_send > U32_MAX or halves.bytes_to_send > U32_MAX:
                raise _overflow(f"call {call_id}")
            return CreditReceived(call_id, credit)
        assert step.then is not None
        halves.enter(step.then)
        calls.keep(call_id, halves)
        return RequestEnded(call_id) if kind == Kind.END else CancelReceived(call_id)

    def _payload(self, frame: Frame) -> Payload:
        """What a frame carries, as what it is."""
        if not frame.flags & Flag.PACKED:
            return frame.payload
        return read_packed(frame, self.packing, self._max_frame)

    def _beside(self, frame: Frame, event: AnswerEvent) -> Event:
        """An answer of which something may stand beside its payload. What cannot be read of it fails the call alone."""
        try:
            beside = unpack_answer(frame.kind, frame.metadata)
        except CallError as error:
            fault = error.with_traceback(None)
            return (AnswerUnreadable if frame.kind == Kind.ITEM else ErrorReceived)(frame.call_id, fault)
        if beside == NOTHING_BESIDE and not (isinstance(event, ErrorReceived) and event.error.packed_details):
            return event  # nothing in it means anything here
        return AnsweredBeside(event, frame.opcode, beside)

    def _read_of_no_call(self, frame: Frame, size: int) -> None:
        """A frame of a call that is not in flight: it has crossed the end of one, or is wrong.

        It is never judged by how far its id lies ahead, for the call may have been very old.
        """
        kind, call_id = frame.kind, frame.call_id
        if call_id & TOP_BIT == self._ours.top_bit:
            self._stray += 1
            if self._stray > self._most_stray:
                raise RemoteProtocolError(
                    "STRAY_ANSWERS", f"{self._stray} answers came to calls that are not in flight"
                )
        elif kind == Kind.ITEM:
            if not self._theirs.item_crosses(size):
                raise RemoteProtocolError(
                    "CREDIT_EXCEEDED", f"an item of call {call_id} came, which is not in flight, and is one too many"
                )
        elif kind in (Kind.END, Kind.CANCEL, Kind.CREDIT):
            if not self._theirs.frame_crosses(self._requests_received()):
                raise RemoteProtocolError(
                    "TOO_MANY_FRAMES",
                    "too many END, CANCEL and CREDIT came to calls that are not in flight",
                    Status.RESOURCE_EXHAUSTED,
                )
        else:
            raise _wrong_half(frame, f"call {call_id} is answered here")

    def _read_one_way_credit(self, credit: Credit) -> Event:
        self._ours.one_way += credit.items
        if self._ours.one_way > U32_MAX:
            raise _overflow("one-way calls")
        return OneWayCreditReceived(credit.items)

    def _read_end_of_input(self) -> None:
        super()._read_end_of_input()
        # Our calls to a peer that has ended its output cannot be answered. Those of a connection that is over are over.
        self._ours.lose()

    def _read_goaway(self, frame: Frame) -> Event:
        last_call_id, error = unpack_goaway(frame)
        self.goaway_received = True
        self._enter(self.state)
        return GoAwayReceived(last_call_id, error)

    def lies_behind(self, call_id: int, last_call_id: int) -> bool:
        """Whether a call of ours in flight began after the one that the peer's GOAWAY named: it was not processed."""
        return self._ours.lies_behind(call_id, last_call_id)

    # Sending.

    def send_hello(self, hello: Hello, early: Sequence[EarlyRequest] = ()) -> list[int]:
        """Client: greet, first of all. Digests are left out when HELLO would be too long with them.

        Args:
            hello: what is offered.
            early: calls that begin at once, written for the newest version and the first codec offered. A server that
                chooses otherwise does not look at them: ``WelcomeReceived`` names them then. ITEMs wait for WELCOME.

        Returns:
            The ids of the early calls.

        Raises:
            PayloadTooLarge: HELLO, its digests included, and the early calls are too long together. Nothing was queued.
            LocalProtocolError: HELLO was sent already, or a value of it is out of range, or an early call is one-way or
                not as a REQUEST must be.
        """
        self._sending(Kind.HELLO)
        first = self._ours.last
        requests = [each.pack(hello, first + at) for at, each in enumerate(early, 1)]
        if requests:
            hello = msgspec.structs.replace(hello, early=sum(map(len, requests)))
            size = HEADER_AFTER_LENGTH + len(hello.encode()) + hello.early
            if size > HELLO_MAX_FRAME:
                raise PayloadTooLarge(size, HELLO_MAX_FRAME)
        self._send(Kind.HELLO, 0, 0, encode_fitting(hello))
        self._hello = hello
        self._theirs.accepted(hello.max_calls, hello.first_credit, hello.one_way_credit)
        ids = []
        for each, request in zip(early, requests, strict=True):
            self._queue(request)
            ids.append(call_id := self._unusual_id())
            if each.flags:
                self._ours.open(call_id, each.opcode, each.flags, to_send=NO_CREDIT, to_come=each.credit)
            else:
                self._ours.opcodes[call_id] = each.opcode
        return ids

    def send_welcome(self, welcome: Welcome) -> None:
        """Server: accept the client's HELLO; the connection is open. If the client did not wait, it fails instead.
        Digests are left out when WELCOME would be too long with them. REQUESTs that came with HELLO are read from now
        on, or skipped if they are written for another codec or version.

        Raises:
            LocalProtocolError: there is no HELLO to answer, or a value is out of range.
        """
        body = encode_fitting(welcome)
        self._sending(Kind.WELCOME)
        buffer, hello, early = self._buffer, self._hello, self._early
        assert hello is not None  # the table lets WELCOME out only after HELLO has come
        if len(buffer) > early:
            self.fail(self._too_early())
            return
        self._hello, self._early = None, 0
        if early and not hello.is_met(welcome):
            buffer.take(early)
        elif early and (problem := early_problem(buffer.peek(early))):
            self.fail(RemoteProtocolError("EARLY_FRAME", problem))
            return
        self._agree(welcome)
        self._theirs.accepted(welcome.max_calls, welcome.first_credit, welcome.one_way_credit)
        self._send(Kind.WELCOME, 0, 0, body)

    def _agree(self, welcome: Welcome) -> None:
        self.version = welcome.version
        self.codec = welcome.codec
        self.packing = welcome.algorithm
        self.control = welcome.control
        self.heartbeat_ms = welcome.heartbeat_ms

    def send_flagged_request(
        self, flags: int, opcode: int, payload: Payload, metadata: bytes = b"", *, credit: Credit | None = None
    ) -> int:
        """Begin a call of another shape than unary, or one whose request is packed.

        Args:
            flags: those of the shape; what ``payload`` is says whether it is packed.
            opcode: of the method, 0 to 65,535.
            payload: the encoded request; b"" where items follow.
            metadata: a block from ``pack_metadata``.
            credit: what the block grants of the answer half; None if it has none.

        Returns:
            The call's id. A one-way call is over with that.

        Raises:
            PayloadTooLarge: the peer does not accept a frame so large.
            LocalProtocolError: the state does not allow it, there is no credit for a one-way call, the flags are no
                shape's, or there is a payload where items follow, or it is packed by what was not agreed on.
        """
        ours = self._ours
        self._sending(Kind.REQUEST)
        if problem := flags_problem(Kind.REQUEST, flags):
            raise LocalProtocolError(f"a REQUEST cannot have the flags {flags:#04x}: {problem}")
        if payload and flags & Flag.ITEMS_FOLLOW:
            raise LocalProtocolError("a REQUEST whose items follow has no payload: its messages are the items")
        length = HEADER_AFTER_LENGTH + len(metadata) + len(payload)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        if len(metadata) > MAX_METADATA:
            raise too_much_metadata(metadata)
        if flags & Flag.ONE_WAY and ours.one_way < 1:
            raise LocalProtocolError("there is no credit for another one-way call")
        packed, body = self._body(payload)
        call_id = self._unusual_id()
        self._send(Kind.REQUEST, opcode, call_id, body, flags=flags | packed, metadata=metadata)
        if flags & Flag.ONE_WAY:
            ours.one_way -= 1
        elif flags:
            ours.open(call_id, opcode, flags, to_send=ours.first, to_come=credit or NO_CREDIT)
        else:
            ours.opcodes[call_id] = opcode
        return call_id

    def send_cancel(self, call_id: int) -> bool:
        """No longer want the answer of a call of ours. What still comes of it is dropped.

        Returns:
            False when there is no such call of ours in flight, or it was cancelled already, or nothing can be sent any
            more; nothing is sent then.
        """
        opcode = self._ours.opcodes.get(call_id)
        if opcode is None or not self._may_say(call_id):
            return False
        self._step(call_id, Kind.CANCEL)
        self._send(Kind.CANCEL, opcode, call_id, b"")
        return True

    def send_credit(self, call_id: int, items: int, size: int) -> bool:
        """Let the peer send more of its half of a call.

        Args:
            call_id: of the call.
            items: how many more ITEMs, 0 to 2**32 - 1, and no more than that together.
            size: how many more bytes of their payloads, likewise; one of both is not 0.

        Returns:
            False when the call was over or cancelled already, or the peer's half of it is complete, or nothing can be
            sent any more; nothing is sent then.

        Raises:
            LocalProtocolError: a number is out of range, or the peer's half of the call is no stream.
        """
        if not self._may_say(call_id):
            return False
        calls = self._calls_of(call_id)
        halves = calls.state_of(call_id)
        theirs = Flag.ITEMS_COME_BACK if calls is self._ours else Flag.ITEMS_FOLLOW
        if not halves.flags & theirs:
            raise LocalProtocolError(f"nothing comes of call {call_id} that takes credit")
        if theirs is Flag.ITEMS_FOLLOW and halves.state is not CallState.BOTH_OPEN:
            return False
        if min(items, size) < 0 or not items + size:
            raise LocalProtocolError(f"{items} items and {size} bytes are no credit")
        if halves.items_to_come + items > U32_MAX or halves.bytes_to_come + size > U32_MAX:
            raise LocalProtocolError(f"the credit of call {call_id} would be more than {U32_MAX}")
        self._send(Kind.CREDIT, calls.opcodes[call_id], call_id, pack_credit(items, size))
        halves.items_to_come += items
        halves.bytes_to_come += size
        return True

    def _may_say(self, call_id: int) -> bool:
        """Whether CANCEL or CREDIT of a call still says something to the peer."""
        calls = self._calls_of(call_id)
        halves = calls.halves.get(call_id)
        return (
            call_id in calls.opcodes
            and (halves is None or halves.state is not CallState.CANCELLED)
            and Kind.CREDIT in self._may_send
        )

    def send_one_way_credit(self, calls: int) -> bool:
        """Let the peer begin more one-way calls, 1 to 2**32 - 1 and no more than that together.

        Returns:
            False when nothing can be sent any more.
        """
        if Kind.CREDIT not in self._may_send:
            return False
        if not 1 <= calls <= U32_MAX - self._theirs.one_way:
            raise LocalProtocolError(f"the credit of one-way calls must grow by 1 or more and stay within {U32_MAX}")
        self._send(Kind.CREDIT, 0, 0, pack_credit(calls, 0))
        self._theirs.one_way += calls
        return True

    def send_end(self, call_id: int, *, dropped: int = 0) -> None:
        """Complete our half of a call. Of one of the peer's that is the answer half, and the call is over.

        Args:
            call_id: of the call.
            dropped: of an answer half, how many items were left out behind the last one; more than 2**32 - 1 are told
                as that.

        Raises:
            PayloadTooLarge: the peer does not accept so much metadata; the call is still in flight.
            LocalProtocolError: the call is not in flight, or the state does not allow it.
        """
        self._send_step(Kind.END, call_id, b"", pack_dropped(dropped))

    def send_item_behind(self, call_id: int, payload: Payload, dropped: int) -> None:
        """``send_item`` of the answer half of a call, which says how many items before this one were left out.

        Args:
            call_id: of a call of the peer's.
            payload: the item.
            dropped: how many, 1 or more; more than 2**32 - 1 are told as that.

        Raises:
            PayloadTooLarge, LocalProtocolError: as ``send_item``.
        """
        self._send_item_beside(call_id, payload, pack_dropped(dropped))

    def _send_item_beside(self, call_id: int, payload: Payload, beside: bytes) -> None:
        self._sending(Kind.ITEM)
        length = HEADER_AFTER_LENGTH + len(beside) + len(payload)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        theirs = self._theirs
        halves = theirs.halves.get(call_id)
        if halves is None or not halves.sends_items or halves.items_to_send < 1 or halves.bytes_to_send < 1:
            raise self._no_item(call_id)
        packed, body = self._body(payload)
        halves.items_to_send -= 1
        halves.bytes_to_send -= len(payload)
        self._send(Kind.ITEM, theirs.opcodes[call_id], call_id, body, flags=packed, metadata=beside)

    def send_error(self, call_id: int, error: CallError) -> None:
        """A call of the peer's failed and is over.

        Its ``packed_details`` go along, unless they are too long by themselves, with the metadata of the answer, or for
        the peer; so does the metadata, unless it is too long for the peer.

        Raises:
            LocalProtocolError: the call is not in flight, or the state does not allow it.
        """
        body, metadata = pack_error(error), self._metadata_of(call_id)
        details = b"" if error.packed_details is None else pack_details(error.packed_details)
        room = self.their_max_frame - HEADER_AFTER_LENGTH - len(body)
        if len(metadata) > room:
            self.set_metadata(call_id, b"")
        elif len(metadata) + len(details) <= min(room, MAX_ANSWER):
            body += details
        self._send_step(Kind.ERROR, call_id, body)

    def set_metadata(self, call_id: int, block: bytes) -> None:
        """Have what ends a call of the peer's say something beside its payload. Again: instead of what was set before.

        Args:
            call_id: of the call.
            block: from ``pack_answer``; at most ``MAX_ANSWER`` bytes.

        Raises:
            LocalProtocolError: the call is not in flight, or the block is longer.
        """
        theirs = self._theirs
        if call_id not in theirs.opcodes:
            raise not_in_flight(call_id)
        if len(block) > MAX_ANSWER:
            raise LocalProtocolError(f"the metadata of an answer has {len(block)} bytes; at most {MAX_ANSWER} may be")
        halves = theirs.state_of(call_id)
        halves.metadata = block
        theirs.keep(call_id, halves)  # plain no more, so that the short way of answers leaves it alone

    def credit(self, call_id: int) -> tuple[int, int]:
        """Items and bytes that may still be sent of our half of a call; nothing of one that is over. The bytes may be
        below 0.
        """
        ours = self._ours.halves
        halves = (ours if call_id in ours else self._theirs.halves).get(call_id)
        return NO_CREDIT if halves is None else (halves.items_to_send, halves.bytes_to_send)

    def may_send_item(self, call_id: int) -> bool:
        """Whether our half of a call has the credit for one more ITEM."""
        halves = self._calls_of(call_id).halves.get(call_id)
        return halves is not None and halves.items_to_send >= 1 and halves.bytes_to_send >= 1

    def credit_out(self, call_id: int) -> tuple[int, int]:
        """Items and bytes that the peer may still send of its half of a call; as ``credit``."""
        halves = self._calls_of(call_id).halves.get(call_id)
        return NO_CREDIT if halves is None else (halves.items_to_come, halves.bytes_to_come)

    @property
    def one_way_credit(self) -> int:
        """How many one-way calls may still be begun by this side."""
        return self._ours.one_way

    def send_goaway(self, error: CallError) -> None:
        """Take no more calls. Those in flight go on; further ones are refused, "not processed".

        Raises:
            LocalProtocolError: it was sent already, or the state does not allow it.
        """
        theirs = self._theirs
        self._send(Kind.GOAWAY, 0, 0, pack_goaway(theirs.last if theirs.last != theirs.top_bit else 0, error))
        self.goaway_sent = True
        self._enter(self.state)

    def end_output(self) -> None:
        """Client: say nothing more, and still receive the answers. What still comes of the server's calls is dropped.

        The owner ends the output of its socket behind what is queued.

        Raises:
            LocalProtocolError: the state does not allow it.
        """
        self._enter(self._sending(END_OF_INPUT))
        self._theirs.lose()


def _wrong_half(frame: Frame, why: str) -> RemoteProtocolError:
    return RemoteProtocolError("WRONG_HALF", f"{Kind(frame.kind).name} has no place there: {why}")


def _overflow(whose: str) -> RemoteProtocolError:
    return RemoteProtocolError("CREDIT_OVERFLOW", f"the credit of {whose} would be more than {U32_MAX}")


class ConnectionMaker(Protocol):
    """Makes the state of one more connection: ``Connection`` itself, or what a test puts in its place."""

    def __call__(self, role: Role, limits: Limits | None = None, *, hint: str = "") -> Connection:
        """The arguments are those of ``Connection``."""


_READERS: Final[dict[int, Callable[[Connection, Frame], Event | None]]] = {
    Kind.HELLO: Connection._read_hello,
    Kind.WELCOME: Connection._read_welcome,
    Kind.REQUEST: Connection._read_request,
    **dict.fromkeys(
        (Kind.RESPONSE, Kind.ITEM, Kind.END, Kind.ERROR, Kind.CANCEL, Kind.CREDIT), Connection._read_of_call
    ),
    Kind.GOAWAY: Connection._read_goaway,
}
