"""The short way of the frames of which there are many: REQUEST, RESPONSE and ITEM.

What it takes: whole frames in one ``bytes`` object, whose word (``frame.HEADER_WITH_WORD``) is the one that the
state allows (the ``_hot_*`` words below, -1 where it allows none), within every limit, of a call id that is in order.
Whatever it does not like it leaves untouched to ``next_event``, the plain way, which judges it and explains. A frame
that is sent gets its header in one step from the same words; a refusal goes through ``_sending``, as with all kinds.

What it measured, on CPython 3.11 with a REQUEST of 82 bytes: ``lone_request``, and a batch of 64 in ``next_events``,
take 0.15 of the time of ``next_event``. One rule that all three shared, as a function that each calls, cost 230 ns
more. So a REQUEST has three readers, and this file keeps two of them apart from the plain one.

What holds them equal: ``tests/wire/test_hurried.py``, each boundary by itself, and what is sent against the plain
``frame.pack``; ``tests/wire/test_framing.py``, random frames read both ways; and the state machine in
``tests/properties``. ``make gate`` counts their instructions.
"""

from wireproto.errors import CallError, LocalProtocolError
from wireproto.limits import Limits
from wireproto.reasons import failure
from wireproto.wire.calls import CIRCLE, MAX_CROSSED, CallPart, Calls, CallState, Halves
from wireproto.wire.events import NEED_DATA, Event, ItemReceived, RequestReceived, ResponseReceived
from wireproto.wire.frame import (
    HEADER,
    HEADER_AFTER_LENGTH,
    HEADER_SIZE,
    HEADER_WITH_WORD,
    TOP_BIT,
    Flag,
    Kind,
    header_word,
)
from wireproto.wire.framing import Framing, PayloadTooLarge
from wireproto.wire.metadata import EMPTY, MAX_METADATA, Metadata, unpack_metadata
from wireproto.wire.packing import Packed, Payload
from wireproto.wire.state import Direction, Role, State

__all__ = ["Hurried", "not_in_flight", "too_much_metadata"]

# Bound once: `NAME.method()` of an imported name makes a bound method for each call, at 320 instructions. The compiler
# takes such a name for a module's.
_unpack_header = HEADER_WITH_WORD.unpack_from
_pack_header = HEADER_WITH_WORD.pack


class Hurried(Framing):
    """The calls of a connection, and the short way of their frames; see ``Connection``, which has the rest."""

    __slots__ = (
        "_calls",
        "_hot_answer",
        "_hot_in",
        "_hot_item",
        "_hot_item_in",
        "_hot_request",
        "_items_taken",
        "_ours",
        "_theirs",
    )

    # What tests make smaller, the overrun too.
    _circle = CIRCLE
    _most_crossed = MAX_CROSSED

    def __init__(self, role: Role, limits: Limits | None, hint: str) -> None:
        ours, theirs = (TOP_BIT, 0) if role is Role.SERVER else (0, TOP_BIT)
        self._ours = Calls(CallPart.BEGAN, ours, self._circle, self._most_crossed)
        self._theirs = Calls(CallPart.ANSWERS, theirs, self._circle, self._most_crossed)
        self._calls = (self._theirs if role is Role.SERVER else self._ours).opcodes  # those that the client begins
        self._items_taken = 0
        # The word in the header of nearly every frame that comes and goes; -1 while the state forbids it.
        self._hot_in = -1
        self._hot_item_in = -1
        self._hot_request = -1
        self._hot_answer = -1
        self._hot_item = -1
        super().__init__(role, limits, hint)

    @property
    def own_calls(self) -> int:
        """Calls that this side began and that are not over."""
        return len(self._ours.opcodes)

    @property
    def peer_calls(self) -> int:
        """Calls that the peer began and that are not over."""
        return len(self._theirs.opcodes)

    @property
    def calls_in_flight(self) -> int:
        """Both together."""
        return len(self._ours.opcodes) + len(self._theirs.opcodes)

    @property
    def _overrun(self) -> int:
        """Bytes by which one ITEM of the peer's may go over its credit: those of a frame."""
        return self._max_frame

    @property
    def last_call_id(self) -> int:
        """The id of the client's latest REQUEST; 0 before the first."""
        return (self._theirs if self._serves else self._ours).last

    def _enter(self, state: State) -> None:
        super()._enter(state)
        if state is State.START or state is State.GREETING:
            return  # there are no calls yet
        theirs = Kind.REQUEST if self._serves else Kind.RESPONSE
        # Not behind our GOAWAY, though REQUESTs may still come: they are answered with a refusal.
        hurried = theirs in self._may_receive and not (self._serves and self.goaway_sent)
        self._hot_in = self._word(theirs) if hurried else -1
        self._hot_item_in = self._word(Kind.ITEM) if Kind.ITEM in self._may_receive else -1
        self._hot_request = self._word(Kind.REQUEST) if Kind.REQUEST in self._may_send else -1
        self._hot_answer = self._word(Kind.RESPONSE) if Kind.RESPONSE in self._may_send else -1
        self._hot_item = self._word(Kind.ITEM) if Kind.ITEM in self._may_send else -1

    def _word(self, kind: int) -> int:
        """The word in the header of a frame with a message."""
        return header_word(kind, self.codec, self.version)

    # Receiving.

    def lone_request(self, data: bytes) -> RequestReceived | None:
        """Server: the REQUEST that ``data`` is, when nothing else is in it, nothing waits and nothing is unusual.

        None for anything else, which is for ``receive_data``: nothing was done with it then.
        """
        theirs, size = self._theirs, len(data)
        if size < HEADER_SIZE or not self._serves or self._buffer.data or self._end_of_input:
            return None
        length, word, opcode, metadata_length, call_id = _unpack_header(data)
        body = HEADER_SIZE + metadata_length
        if (
            word != self._hot_in
            or length + 4 != size
            or body > size
            or length > self._max_frame
            or not theirs.last < call_id < theirs.ahead
            or call_id in (calls := theirs.opcodes)
            or len(calls) >= theirs.max_calls
        ):
            return None
        self.frames_received += 1
        theirs.last = call_id
        calls[call_id] = opcode
        metadata = self._read_metadata(data[HEADER_SIZE:body]) if metadata_length else EMPTY
        return RequestReceived(call_id, opcode, metadata, data[body:])

    def next_events(self, limit: int) -> list[Event]:
        """Up to ``limit`` events, in order: what as many calls of ``next_event`` give, for less; [] when there is none.

        The list ends behind an event that is no unary REQUEST, no RESPONSE and no ITEM, for what it is answered with
        may decide how the next bytes are read. So a list that is shorter than ``limit`` and has none such is all there
        is.
        """
        events: list[Event] = []
        buffer = self._buffer
        while True:
            data = buffer.data
            if self._hot_in >= 0 and type(data) is bytes:
                take = self._take_requests if self._serves else self._take_responses
                at = take(data, buffer.at, limit, events)
                if at != buffer.at:
                    buffer.at = at
                    self._wanted = 0
                if at == len(data) and not self._end_of_input:
                    buffer.data, buffer.at = b"", 0  # everything is read: how most turns end
                    break
                if len(events) == limit:
                    break
                at = self._take_items(data, at, limit, events)
                if at != buffer.at:
                    buffer.at = at
                    self._wanted = 0
                    if len(events) == limit and at != len(data):
                        break
                    continue
            event = self.next_event()
            if event is NEED_DATA:
                break
            events.append(event)
            kind = type(event)
            if len(events) == limit or (
                kind is not RequestReceived and kind is not ResponseReceived and kind is not ItemReceived
            ):
                break
        return events

    # The paths of whole REQUESTs and RESPONSEs that nothing is unusual about. They may only take what ``next_event``
    # would report with an equal event; whatever they do not like, they leave to that. Each answers how far it came.

    def _take_requests(self, data: bytes, at: int, limit: int, events: list[Event]) -> int:
        theirs, size = self._theirs, len(data)
        calls, most = theirs.opcodes, theirs.max_calls
        while size - at >= HEADER_SIZE:
            length, word, opcode, metadata_length, call_id = _unpack_header(data, at)
            body = at + HEADER_SIZE + metadata_length
            end = at + 4 + length
            if (
                word != self._hot_in
                or not body <= end <= size
                or length > self._max_frame
                or not theirs.last < call_id < theirs.ahead
                or call_id in calls
                or len(calls) >= most
            ):
                break
            at = end
            self.frames_received += 1
            theirs.last = call_id
            calls[call_id] = opcode
            metadata = self._read_metadata(data[body - metadata_length : body]) if metadata_length else EMPTY
            events.append(RequestReceived(call_id, opcode, metadata, data[body:end]))
            if end == size or len(events) == limit:
                break
        return at

    def _take_responses(self, data: bytes, at: int, limit: int, events: list[Event]) -> int:
        calls, halves, size = self._calls, self._ours.halves, len(data)
        while size - at >= HEADER_SIZE:
            length, word, opcode, metadata_length, call_id = _unpack_header(data, at)
            body = at + HEADER_SIZE
            end = at + 4 + length
            if (
                word != self._hot_in
                or not body <= end <= size
                or length > self._max_frame
                or metadata_length
                or calls.get(call_id) != opcode
                or call_id in halves
            ):
                break
            at = end
            self.frames_received += 1
            del calls[call_id]
            events.append(ResponseReceived(call_id, opcode, data[body:end]))
            if end == size or len(events) == limit:
                break
        return at

    def _take_items(self, data: bytes, at: int, limit: int, events: list[Event]) -> int:
        ours, theirs, size, before = self._ours, self._theirs, len(data), len(events)
        while size - at >= HEADER_SIZE:
            length, word, opcode, metadata_length, call_id = _unpack_header(data, at)
            body = at + HEADER_SIZE
            end = at + 4 + length
            calls = ours if call_id in ours.halves else theirs
            halves = calls.halves.get(call_id)
            if (
                word != self._hot_item_in
                or not body <= end <= size
                or length > self._max_frame
                or metadata_length
                or halves is None
                or not halves.takes_items
                or halves.items_to_come < 1
                or halves.bytes_to_come < 1
                or calls.opcodes[call_id] != opcode
            ):
                break
            at = end
            halves.items_to_come -= 1
            halves.bytes_to_come -= end - body
            events.append(ItemReceived(call_id, data[body:end]))
            if end == size or len(events) == limit:
                break
        self.frames_received += len(events) - before
        self._items_taken += len(events) - before
        return at

    def _requests_received(self) -> int:
        """REQUESTs that came in the life of the connection. The short way of them counts frames only."""
        in_short = self.frames_received - self._frames_judged - self._items_taken if self._serves else 0
        return self._theirs.begun + in_short

    # What the plain way needs as well.

    def _read_metadata(self, block: bytes) -> Metadata | CallError:
        if len(block) > self._limits.max_metadata:
            return failure(
                "METADATA_TOO_LARGE",
                f"the request has {len(block)} bytes of metadata; at most {self._limits.max_metadata} are accepted",
            )
        try:
            return unpack_metadata(block)
        except CallError as error:
            return error.with_traceback(None)

    # Sending.

    def data_to_send(self) -> bytes:
        """Take everything queued; ``b""`` when nothing is."""
        if not self.bytes_pending:
            return b""
        out = self._out
        data = b"".join(out)
        out.clear()
        self.bytes_pending = 0
        if not self._calls:
            # An emptied dict keeps its table, a cleared one does not: thousands of idle connections notice.
            self._calls.clear()
        return data

    def send_request(self, opcode: int, payload: Payload, metadata: bytes = b"") -> int:
        """Begin a unary call.

        Args:
            opcode: of the method, 0 to 65,535.
            payload: the encoded request.
            metadata: a block from ``pack_metadata``.

        Returns:
            The call's id.

        Raises:
            PayloadTooLarge: the peer does not accept a frame so large.
            LocalProtocolError: the state does not allow it.
        """
        length = HEADER_AFTER_LENGTH + len(metadata) + len(payload)
        if self._hot_request < 0:
            self._sending(Kind.REQUEST)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        if len(metadata) > MAX_METADATA:
            raise too_much_metadata(metadata)
        ours = self._ours
        call_id, calls = ours.last + 1, ours.opcodes
        if call_id >= ours.stop or call_id in calls:
            call_id = self._unusual_id()
        if type(payload) is bytes:
            header = _pack_header(length, self._hot_request, opcode, len(metadata), call_id)
        else:
            header, payload = self._packed(Kind.REQUEST, opcode, call_id, payload, len(metadata))
            length = HEADER_AFTER_LENGTH + len(metadata) + len(payload)
        ours.last = call_id
        calls[call_id] = opcode
        self._out += (header, metadata, payload) if metadata else (header, payload)
        self.bytes_pending += length + 4
        return call_id

    def _unusual_id(self) -> int:
        """The id of the next REQUEST where the numbers begin anew, or the next one is in flight: a call may be as old
        as the last time round.
        """
        call_id = self._ours.next_id()
        if not call_id:
            raise LocalProtocolError("no id is free: the calls in flight have all that may come next")
        self._ours.begin(call_id)
        return call_id

    def send_response(self, call_id: int, payload: bytes) -> None:
        """Answer a call whose answer is one message; it is over then.

        Raises:
            PayloadTooLarge: the peer does not accept a frame so large; the call is still in flight.
            LocalProtocolError: the call is not in flight, or the state does not allow it.
        """
        length = HEADER_AFTER_LENGTH + len(payload)
        if self._hot_answer < 0:
            self._sending(Kind.RESPONSE)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        theirs = self._theirs
        if call_id in theirs.halves:
            self._send_step(Kind.RESPONSE, call_id, payload)
            return
        opcode = theirs.opcodes.pop(call_id, None)
        if opcode is None:
            raise not_in_flight(call_id)
        self._out += (_pack_header(length, self._hot_answer, opcode, 0, call_id), payload)
        self.bytes_pending += length + 4

    def answer(self, call_id: int, payload: bytes) -> bytes:
        """``send_response`` and ``data_to_send`` in one, for whoever writes at once.

        Raises:
            PayloadTooLarge, LocalProtocolError: as ``send_response``; what was queued before is still queued.
        """
        length = HEADER_AFTER_LENGTH + len(payload)
        theirs = self._theirs
        if self._out or self._hot_answer < 0 or length > self.their_max_frame or call_id in theirs.halves:
            self.send_response(call_id, payload)
            return self.data_to_send()
        calls = theirs.opcodes
        opcode = calls.pop(call_id, None)
        if opcode is None:
            raise not_in_flight(call_id)
        if not calls:
            calls.clear()  # as in data_to_send
        return _pack_header(length, self._hot_answer, opcode, 0, call_id) + payload

    def send_item(self, call_id: int, payload: Payload) -> None:
        """Send one item of our half of a call, which takes one item and its bytes of the credit.

        Raises:
            PayloadTooLarge: the peer does not accept a frame so large.
            LocalProtocolError: the call is not in flight, our half of it is no stream or complete or has no credit, or
                the state does not allow it.
        """
        length = HEADER_AFTER_LENGTH + len(payload)
        if self._hot_item < 0:
            self._sending(Kind.ITEM)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        calls = self._ours if call_id in self._ours.halves else self._theirs
        halves = calls.halves.get(call_id)
        if halves is None or not halves.sends_items or halves.items_to_send < 1 or halves.bytes_to_send < 1:
            raise self._no_item(call_id)
        if type(payload) is bytes:
            header = _pack_header(length, self._hot_item, calls.opcodes[call_id], 0, call_id)
        else:
            size = len(payload)
            header, payload = self._packed(Kind.ITEM, calls.opcodes[call_id], call_id, payload)
            length = HEADER_AFTER_LENGTH + len(payload)
            halves.bytes_to_send -= size - len(payload)  # what is packed takes the credit that it would take unpacked
        halves.items_to_send -= 1
        halves.bytes_to_send -= len(payload)
        self._out += (header, payload)
        self.bytes_pending += length + 4

    def send_packed_response(self, call_id: int, payload: Packed) -> None:
        """``send_response`` with a payload that is packed.

        Raises:
            PayloadTooLarge, LocalProtocolError: as ``send_response``.
        """
        self._send_step(Kind.RESPONSE, call_id, payload)

    def _packed(
        self, kind: int, opcode: int, call_id: int, payload: Payload, metadata_length: int = 0
    ) -> tuple[bytes, bytes]:
        """The header and the body of a frame whose payload is packed."""
        flag, body = self._body(payload)
        length = HEADER_AFTER_LENGTH + metadata_length + len(body)
        return HEADER.pack(length, kind, flag, self.codec, self.version, opcode, metadata_length, call_id), body

    def _body(self, payload: Payload) -> tuple[int, bytes]:
        """The flag that says how a payload travels, and what the frame holds of it.

        Raises:
            LocalProtocolError: it is packed, and not by the algorithm that was agreed on.
        """
        if isinstance(payload, bytes):
            return 0, payload
        if payload.algorithm != self.packing:
            agreed = f"algorithm {self.packing}" if self.packing else "none"
            raise LocalProtocolError(f"a payload is packed by algorithm {payload.algorithm}; {agreed} was agreed on")
        return Flag.PACKED, payload.body

    def _no_item(self, call_id: int) -> LocalProtocolError:
        """Why no ITEM of a call can be sent."""
        calls = self._calls_of(call_id)
        if call_id not in calls.opcodes:
            return not_in_flight(call_id)
        halves = calls.state_of(call_id)
        return LocalProtocolError(
            f"call {call_id} has no credit left" if halves.sends_items else _no_place(call_id, halves, Kind.ITEM)
        )

    # States.

    def _calls_of(self, call_id: int) -> Calls:
        """The calls among which one of this id is, if it is in flight."""
        return self._ours if call_id & TOP_BIT == self._ours.top_bit else self._theirs

    def _send_step(self, kind: int, call_id: int, payload: Payload, beside: bytes = b"") -> None:
        """Send a frame of a call in flight the plain way: with what the call has to say beside it, and ``beside``.

        Raises:
            PayloadTooLarge: the peer does not accept a frame so large; the call is still in flight.
            LocalProtocolError: the call is not in flight, or its state or the connection's does not allow it.
        """
        calls = self._calls_of(call_id)
        opcode = calls.opcodes.get(call_id)
        if opcode is None:
            raise not_in_flight(call_id)
        self._sending(kind)
        metadata = self._metadata_of(call_id) + beside
        length = HEADER_AFTER_LENGTH + len(metadata) + len(payload)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        packed, body = self._body(payload)
        self._step(call_id, kind)
        self._send(kind, opcode, call_id, body, flags=packed, metadata=metadata)

    def _metadata_of(self, call_id: int) -> bytes:
        """The block that what ends a call carries: of one that the peer began and that we have something to say of."""
        halves = self._theirs.halves.get(call_id)
        return b"" if halves is None else halves.metadata

    def _step(self, call_id: int, kind: int) -> None:
        """A frame of a call in flight is to be sent: the state that follows.

        Raises:
            LocalProtocolError: the state of the call does not allow it.
        """
        calls = self._calls_of(call_id)
        halves = calls.state_of(call_id)
        step = halves.step(Direction.SEND, kind)
        if step is None:
            raise LocalProtocolError(_no_place(call_id, halves, kind))
        if step.then is CallState.OVER:
            if halves.state is CallState.BOTH_OPEN and self.state is State.OPEN:
                calls.let_cross(halves.items_to_come, halves.bytes_to_come, self._overrun)
            calls.forget(call_id)
        else:
            assert step.then is not None  # ITEM and CREDIT, which change no state, are not sent by way of this
            calls.keep(call_id, halves)
            halves.enter(step.then)


def _no_place(call_id: int, halves: Halves, kind: int) -> str:
    return f"call {call_id} is {halves.state.value}: {Kind(kind).name} has no place there"


def too_much_metadata(metadata: bytes) -> LocalProtocolError:
    """The one error for a block that the header cannot say the length of."""
    return LocalProtocolError(f"the metadata has {len(metadata)} bytes; at most {MAX_METADATA} can be sent")


def not_in_flight(call_id: int) -> LocalProtocolError:
    """What is sent for a call must be of one that is in flight."""
    return LocalProtocolError(f"call {call_id} is not in flight")
