"""One connection without a socket: bytes in, events out; sends in, bytes out.

    receive_data(bytes) -> next_event() ... -> send_*(...) -> data_to_send() -> bytes

The same class serves both roles. It knows no socket, thread, clock or log, and payloads are opaque to it. Whatever
is sent or received is looked up in the one table of ``state.py``. A peer that breaks a rule never causes an exception
here: ``next_event`` queues the final ERROR and reports ``ConnectionEnded``. An exception is always ours, a
``LocalProtocolError``, and then nothing was queued.

Not thread-safe: the owner holds one lock around every call. Rules and numbers: ``docs/protocol.md``.
"""

import struct
from collections.abc import Callable
from typing import Final

import msgspec

from wireproto.errors import CallError, LocalProtocolError, RemoteProtocolError
from wireproto.limits import HELLO_MAX_FRAME, Limits
from wireproto.status import Retry, Status
from wireproto.wire.events import (
    NEED_DATA,
    CancelReceived,
    CreditReceived,
    EndReceived,
    ErrorReceived,
    Event,
    GoAwayReceived,
    HelloReceived,
    ItemReceived,
    RequestReceived,
    ResponseReceived,
    WelcomeReceived,
)
from wireproto.wire.frame import (
    HEADER_AFTER_LENGTH,
    U32_MAX,
    Frame,
    Kind,
    bad_body,
    pack_credit,
    pack_error,
    pack_goaway,
    unpack_credit,
    unpack_empty,
    unpack_error,
    unpack_goaway,
)
from wireproto.wire.framing import Framing, PayloadTooLarge
from wireproto.wire.handshake import Hello, Welcome
from wireproto.wire.metadata import EMPTY, MAX_METADATA, Metadata, unpack_metadata
from wireproto.wire.state import Role, State

__all__ = ["MAX_STRAY_ANSWERS", "Connection", "PayloadTooLarge", "Role", "State"]

MAX_STRAY_ANSWERS = 16
"""Answers to calls that are not in flight which a client drops; one more ends the connection."""

_HALF = 0x8000_0000  # RFC 1982: an id is ahead of another when it is less than half the circle away
# The header with its four single-byte fields read as one number, so that one comparison proves all of them.
_HEADER = struct.Struct(">IIHHI")


class Connection(Framing):
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
        frames_ignored: those of unknown kinds among them.
        discarded: bytes received after the connection was over.
        bytes_pending: queued and not yet taken with ``data_to_send``.
        error: why it ended; None while it has not, and after an orderly end.
    """

    __slots__ = (
        "_calls",
        "_cancelled",
        "_credits",
        "_held",
        "_hello",
        "_hot_answer",
        "_hot_in",
        "_hot_item",
        "_hot_request",
        "_stray",
        "heartbeat_ms",
        "last_call_id",
        "their_max_calls",
    )

    def __init__(self, role: Role, limits: Limits | None = None, *, hint: str = "") -> None:
        self.their_max_calls = 0
        self.heartbeat_ms = 0
        self.last_call_id = 0
        self._calls: dict[int, int] = {}  # call id -> opcode
        self._credits: dict[int, int] | None = None  # call id -> items that may come or go; a client: all its streams
        self._cancelled: set[int] | None = None  # client: cancelled, terminal frame not seen yet
        self._held = 0
        self._stray = 0
        self._hello: Hello | None = None
        # The word in the header of nearly every frame that comes and goes; -1 while the state forbids it.
        self._hot_in = -1
        self._hot_request = -1
        self._hot_answer = -1
        self._hot_item = -1
        super().__init__(role, limits, hint)

    def __repr__(self) -> str:
        return f"<Connection {self.role.value} {self.state.value} calls={self.calls_in_flight}>"

    @property
    def calls_in_flight(self) -> int:
        """Calls begun and not ended, and those held."""
        return len(self._calls) + self._held

    # Receiving.

    def lone_request(self, data: bytes) -> RequestReceived | None:
        """Server: the REQUEST that ``data`` is, when nothing else is in it, nothing waits and nothing is unusual.

        None for anything else, which is for ``receive_data``: nothing was done with it then.
        """
        calls, size = self._calls, len(data)
        if size < 16 or not self._serves or self._buffer.data or self._end_of_input:
            return None
        length, word, opcode, metadata_length, call_id = _HEADER.unpack_from(data)
        body = 16 + metadata_length
        if (
            word != self._hot_in
            or length + 4 != size
            or body > size
            or length > self._max_frame
            or not 0 < call_id - self.last_call_id < _HALF
            or call_id in calls
            or len(calls) + self._held >= self._limits.max_calls
        ):
            return None
        self.frames_received += 1
        self.last_call_id = call_id
        calls[call_id] = opcode
        metadata = self._read_metadata(call_id, data[16:body]) if metadata_length else EMPTY
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
        while size - at >= 16:
            length, word, opcode, metadata_length, call_id = _HEADER.unpack_from(data, at)
            body = at + 16 + metadata_length
            end = at + 4 + length
            if (
                word != self._hot_in
                or not body <= end <= size
                or length > self._max_frame
                or not 0 < call_id - self.last_call_id < _HALF
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
        while size - at >= 16:
            length, word, opcode, metadata_length, call_id = _HEADER.unpack_from(data, at)
            body = at + 16
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
        """The four bytes kind, flags, codec and version of a frame with a message, as one number."""
        return kind << 24 | self.codec << 8 | self.version

    def _read(self, frame: Frame) -> Event | None:
        reader = _READERS.get(frame.kind)
        return reader(self, frame) if reader is not None else super()._read(frame)

    # What each kind means once its header is in order. A server's:

    def _read_hello(self, frame: Frame) -> Event:
        hello = Hello.decode(frame.payload)
        self.their_max_frame = hello.max_frame
        self._max_frame = self._limits.max_frame
        return HelloReceived(hello)

    def _read_request(self, frame: Frame) -> Event | None:
        call_id = frame.call_id
        ahead = (call_id - self.last_call_id) & U32_MAX
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
        self._send(Kind.ERROR, frame.opcode, frame.call_id, pack_error(error))

    def _read_cancel(self, frame: Frame) -> Event | None:
        unpack_empty(frame)
        # Of a call that is over it merely crossed the answer.
        return CancelReceived(frame.call_id) if self._in_flight(frame) else None

    def _read_credit(self, frame: Frame) -> Event | None:
        amount = unpack_credit(frame)
        if not self._in_flight(frame):
            return None
        if not self._grant(frame.call_id, amount):
            raise RemoteProtocolError(
                "CREDIT_OVERFLOW", f"the credit of call {frame.call_id} would be more than {U32_MAX}"
            )
        return CreditReceived(frame.call_id, amount)

    def _grant(self, call_id: int, amount: int) -> bool:
        """Add to a call's credit; False when it would overflow."""
        if self._credits is None:
            self._credits = {}
        credit = self._credits.get(call_id, 0) + amount
        if credit > U32_MAX:
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
            raise bad_body(Kind.WELCOME, problem)
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
            raise RemoteProtocolError(
                "WRONG_ANSWER", f"call {call_id} is {called} and was answered with {Kind(kind).name}"
            )
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
            unpack_empty(frame)
            event = EndReceived(call_id)
        else:
            event = ErrorReceived(call_id, unpack_error(frame.payload))
        self._forget(call_id)
        return event if wanted else None

    def _read_goaway(self, frame: Frame) -> Event:
        last_call_id, error = unpack_goaway(frame)
        return GoAwayReceived(last_call_id, error)

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

    def send_hello(self, hello: Hello) -> None:
        """Client: greet, first of all. Digests are left out when HELLO would be too long with them.

        Raises:
            LocalProtocolError: HELLO was sent already, or a value of it is out of range.
        """
        body = hello.encode()
        if HEADER_AFTER_LENGTH + len(body) > HELLO_MAX_FRAME:
            body = msgspec.structs.replace(hello, digests={}).encode()
        self._send(Kind.HELLO, 0, 0, body)
        self._hello = hello

    def send_welcome(self, welcome: Welcome) -> None:
        """Server: accept the client's HELLO; the connection is open. If the client did not wait, it fails instead.

        Raises:
            LocalProtocolError: there is no HELLO to answer, or a value is out of range.
        """
        body = welcome.encode()
        self._sending(Kind.WELCOME)
        if self._buffer:
            self.fail(self._early())
            return
        self._agree(welcome)
        self._send(Kind.WELCOME, 0, 0, body)

    def _agree(self, welcome: Welcome) -> None:
        self.version = welcome.version
        self.codec = welcome.codec
        self.heartbeat_ms = welcome.heartbeat_ms

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
        header = _HEADER.pack(length, self._hot_request, opcode, len(metadata), call_id)
        self.last_call_id = call_id
        calls[call_id] = opcode
        if credit is not None:
            self._grant(call_id, credit)
        self._out += (header, metadata, payload) if metadata else (header, payload)
        self.bytes_pending += length + 4
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
        if amount < 1 or self._credits[call_id] + amount > U32_MAX:
            raise LocalProtocolError(f"credit of call {call_id} must grow by 1 or more and stay within {U32_MAX}")
        self._send(Kind.CREDIT, opcode, call_id, pack_credit(amount))
        self._grant(call_id, amount)
        return True

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
            raise _not_in_flight(call_id)
        if self._credits:
            self._credits.pop(call_id, None)
        self._out += (_HEADER.pack(length, self._hot_answer, opcode, 0, call_id), payload)
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
            raise _not_in_flight(call_id)
        if self._credits:
            self._credits.pop(call_id, None)
        if not calls:
            calls.clear()  # as in data_to_send
        return _HEADER.pack(length, self._hot_answer, opcode, 0, call_id) + payload

    def send_item(self, call_id: int, payload: bytes) -> None:
        """Server: send one item of a stream, which takes one of its credit.

        Raises:
            PayloadTooLarge: the peer does not accept a frame so large.
            LocalProtocolError: the call is not in flight or has no credit, or the state does not allow it.
        """
        opcode = self._calls.get(call_id)
        if opcode is None:
            raise _not_in_flight(call_id)
        credit = 0 if self._credits is None else self._credits.get(call_id, 0)
        if self._credits is None or not credit:
            raise LocalProtocolError(f"call {call_id} has no credit left")
        length = HEADER_AFTER_LENGTH + len(payload)
        if self._hot_item < 0:
            self._sending(Kind.ITEM)
        if length > self.their_max_frame:
            raise PayloadTooLarge(length, self.their_max_frame)
        self._out += (_HEADER.pack(length, self._hot_item, opcode, 0, call_id), payload)
        self.bytes_pending += length + 4
        self._credits[call_id] = credit - 1

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

    def send_goaway(self, error: CallError) -> None:
        """Server: take no more calls. Those in flight go on; further ones are refused, "not processed".

        Raises:
            LocalProtocolError: it was sent already, or the state does not allow it.
        """
        self._send(Kind.GOAWAY, 0, 0, pack_goaway(self.last_call_id, error))


_READERS: Final[dict[int, Callable[[Connection, Frame], Event | None]]] = {
    Kind.HELLO: Connection._read_hello,
    Kind.WELCOME: Connection._read_welcome,
    Kind.REQUEST: Connection._read_request,
    Kind.RESPONSE: Connection._read_answer,
    Kind.ITEM: Connection._read_answer,
    Kind.END: Connection._read_answer,
    Kind.ERROR: Connection._read_answer,
    Kind.CANCEL: Connection._read_cancel,
    Kind.CREDIT: Connection._read_credit,
    Kind.GOAWAY: Connection._read_goaway,
}


def _not_in_flight(call_id: int) -> LocalProtocolError:
    return LocalProtocolError(f"call {call_id} is not in flight")
