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
from wireproto.wire.events import NEED_DATA, Event, RequestReceived, ResponseReceived
from wireproto.wire.frame import HALF, HEADER_AFTER_LENGTH, HEADER_SIZE, HEADER_WITH_WORD, U32_MAX, Kind, header_word
from wireproto.wire.framing import Framing, PayloadTooLarge
from wireproto.wire.metadata import EMPTY, MAX_METADATA, Metadata, unpack_metadata
from wireproto.wire.state import Role, State

__all__ = ["Hurried", "not_in_flight"]

# Bound once: `NAME.method()` of an imported name makes a bound method for each call, at 320 instructions. The compiler
# takes such a name for a module's.
_unpack_header = HEADER_WITH_WORD.unpack_from
_pack_header = HEADER_WITH_WORD.pack


class Hurried(Framing):
    """The calls of a connection, and the short way of their frames; see ``Connection``, which has the rest."""

    __slots__ = (
        "_calls",
        "_cancelled",
        "_credits",
        "_held",
        "_hot_answer",
        "_hot_in",
        "_hot_item",
        "_hot_request",
        "last_call_id",
    )

    def __init__(self, role: Role, limits: Limits | None, hint: str) -> None:
        self.last_call_id = 0
        self._calls: dict[int, int] = {}  # call id -> opcode
        self._credits: dict[int, int] | None = None  # call id -> items that may come or go; a client: all its streams
        self._cancelled: set[int] | None = None  # client: cancelled, terminal frame not seen yet
        self._held = 0
        # The word in the header of nearly every frame that comes and goes; -1 while the state forbids it.
        self._hot_in = -1
        self._hot_request = -1
        self._hot_answer = -1
        self._hot_item = -1
        super().__init__(role, limits, hint)

    @property
    def calls_in_flight(self) -> int:
        """Calls begun and not ended, and those held."""
        return len(self._calls) + self._held

    def _enter(self, state: State) -> None:
        super()._enter(state)
        theirs = Kind.REQUEST if self._serves else Kind.RESPONSE
        # Not for a server that drains, though the table lets REQUESTs in: it answers them itself.
        hurried = theirs in self._may_receive and not (self._serves and state is State.DRAINING)
        self._hot_in = self._word(theirs) if hurried else -1
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
        calls, size = self._calls, len(data)
        if size < HEADER_SIZE or not self._serves or self._buffer.data or self._end_of_input:
            return None
        length, word, opcode, metadata_length, call_id = _unpack_header(data)
        body = HEADER_SIZE + metadata_length
        if (
            word != self._hot_in
            or length + 4 != size
            or body > size
            or length > self._max_frame
            or not 0 < call_id - self.last_call_id < HALF
            or call_id in calls
            or len(calls) + self._held >= self._limits.max_calls
        ):
            return None
        self.frames_received += 1
        self.last_call_id = call_id
        calls[call_id] = opcode
        metadata = self._read_metadata(call_id, data[HEADER_SIZE:body]) if metadata_length else EMPTY
        return RequestReceived(call_id, opcode, metadata, data[body:])

    def next_events(self, limit: int) -> list[Event]:
        """Up to ``limit`` events, in order: what as many calls of ``next_event`` give, for less; [] when there is none.

        The list ends behind an event that is neither a REQUEST nor a RESPONSE, for what it is answered with may decide
        how the next bytes are read. So a list that is shorter than ``limit`` and has none such is all there is.
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
            event = self.next_event()
            if event is NEED_DATA:
                break
            events.append(event)
            if len(events) == limit or (type(event) is not RequestReceived and type(event) is not ResponseReceived):
                break
        return events

    # The paths of whole REQUESTs and RESPONSEs that nothing is unusual about. They may only take what ``next_event``
    # would report with an equal event; whatever they do not like, they leave to that. Each answers how far it came.

    def _take_requests(self, data: bytes, at: int, limit: int, events: list[Event]) -> int:
        calls, size = self._calls, len(data)
        while size - at >= HEADER_SIZE:
            length, word, opcode, metadata_length, call_id = _unpack_header(data, at)
            body = at + HEADER_SIZE + metadata_length
            end = at + 4 + length
            if (
                word != self._hot_in
                or not body <= end <= size
                or length > self._max_frame
                or not 0 < call_id - self.last_call_id < HALF
                or call_id in calls
                or len(calls) + self._held >= self._limits.max_calls
            ):
                break
            at = end
            self.frames_received += 1
            self.last_call_id = call_id
            calls[call_id] = opcode
            metadata = self._read_metadata(call_id, data[body - metadata_length : body]) if metadata_length else EMPTY
            events.append(RequestReceived(call_id, opcode, metadata, data[body:end]))
            if end == size or len(events) == limit:
                break
        return at

    def _take_responses(self, data: bytes, at: int, limit: int, events: list[Event]) -> int:
        calls, size = self._calls, len(data)
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
                or (self._credits is not None and call_id in self._credits)
                or (self._cancelled is not None and call_id in self._cancelled)
            ):
                break
            at = end
            self.frames_received += 1
            del calls[call_id]
            events.append(ResponseReceived(call_id, opcode, data[body:end]))
            if end == size or len(events) == limit:
                break
        return at

    # What the plain way needs as well.

    def _read_metadata(self, call_id: int, block: bytes) -> Metadata | CallError:
        if len(block) > self._limits.max_metadata:
            return failure(
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

    def _grant(self, call_id: int, amount: int) -> bool:
        """Add to a call's credit; False when it would overflow."""
        if self._credits is None:
            self._credits = {}
        credit = self._credits.get(call_id, 0) + amount
        if credit > U32_MAX:
            return False
        self._credits[call_id] = credit
        return True

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
        if self._hot_request < 0:
            self._sending(Kind.REQUEST)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        if len(metadata) > MAX_METADATA:
            raise LocalProtocolError(f"the metadata has {len(metadata)} bytes; at most {MAX_METADATA} can be sent")
        calls = self._calls
        call_id = self.last_call_id + 1
        while call_id > U32_MAX or call_id in calls:
            # After the last comes 1, for 0 is the connection itself. A stream may be as old as the last time round.
            call_id = call_id + 1 if call_id < U32_MAX else 1
        header = _pack_header(length, self._hot_request, opcode, len(metadata), call_id)
        self.last_call_id = call_id
        calls[call_id] = opcode
        if credit is not None:
            self._grant(call_id, credit)
        self._out += (header, metadata, payload) if metadata else (header, payload)
        self.bytes_pending += length + 4
        return call_id

    def send_response(self, call_id: int, payload: bytes) -> None:
        """Server: answer a unary call; it is over then.

        Raises:
            PayloadTooLarge: the peer does not accept a frame so large; the call is still in flight.
            LocalProtocolError: the call is not in flight, or the state does not allow it.
        """
        length = HEADER_AFTER_LENGTH + len(payload)
        if self._hot_answer < 0:
            self._sending(Kind.RESPONSE)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        opcode = self._calls.pop(call_id, None)
        if opcode is None:
            raise not_in_flight(call_id)
        if self._credits:
            self._credits.pop(call_id, None)
        self._out += (_pack_header(length, self._hot_answer, opcode, 0, call_id), payload)
        self.bytes_pending += length + 4

    def answer(self, call_id: int, payload: bytes) -> bytes:
        """Server: ``send_response`` and ``data_to_send`` in one, for whoever writes at once.

        Raises:
            PayloadTooLarge, LocalProtocolError: as ``send_response``; what was queued before is still queued.
        """
        length = HEADER_AFTER_LENGTH + len(payload)
        if self._out or self._hot_answer < 0 or length > self.their_max_frame:
            self.send_response(call_id, payload)
            return self.data_to_send()
        calls = self._calls
        opcode = calls.pop(call_id, None)
        if opcode is None:
            raise not_in_flight(call_id)
        if self._credits:
            self._credits.pop(call_id, None)
        if not calls:
            calls.clear()  # as in data_to_send
        return _pack_header(length, self._hot_answer, opcode, 0, call_id) + payload

    def send_item(self, call_id: int, payload: bytes) -> None:
        """Server: send one item of a stream, which takes one of its credit.

        Raises:
            PayloadTooLarge: the peer does not accept a frame so large.
            LocalProtocolError: the call is not in flight or has no credit, or the state does not allow it.
        """
        opcode = self._calls.get(call_id)
        if opcode is None:
            raise not_in_flight(call_id)
        credit = 0 if self._credits is None else self._credits.get(call_id, 0)
        if self._credits is None or not credit:
            raise LocalProtocolError(f"call {call_id} has no credit left")
        length = HEADER_AFTER_LENGTH + len(payload)
        if self._hot_item < 0:
            self._sending(Kind.ITEM)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        self._out += (_pack_header(length, self._hot_item, opcode, 0, call_id), payload)
        self.bytes_pending += length + 4
        self._credits[call_id] = credit - 1


def not_in_flight(call_id: int) -> LocalProtocolError:
    """What is sent for a call must be of one that is in flight."""
    return LocalProtocolError(f"call {call_id} is not in flight")
