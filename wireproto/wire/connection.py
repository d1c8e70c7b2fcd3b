"""One connection without a socket: bytes in, events out; sends in, bytes out.

    receive_data(bytes) -> next_event() ... -> send_*(...) -> data_to_send() -> bytes

The same class serves both roles. It knows no socket, thread, clock or log, and payloads are opaque to it. Whatever
is sent or received is looked up in the one table of ``state.py``. A peer that breaks a rule never causes an exception
here: ``next_event`` queues the final ERROR and reports ``ConnectionEnded``. An exception is always ours, a
``LocalProtocolError``, and then nothing was queued.

Not thread-safe: the owner holds one lock around every call. Rules and numbers: ``docs/protocol.md``.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from wireproto.errors import CallError, LocalProtocolError, RemoteProtocolError
from wireproto.limits import HELLO_MAX_FRAME, Limits
from wireproto.reasons import failure
from wireproto.wire.events import (
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
    HALF,
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
from wireproto.wire.framing import PayloadTooLarge
from wireproto.wire.handshake import Hello, Welcome
from wireproto.wire.hurried import Hurried, not_in_flight
from wireproto.wire.metadata import EMPTY
from wireproto.wire.state import Role, State

__all__ = ["MAX_STRAY_ANSWERS", "Connection", "ConnectionMaker", "PayloadTooLarge", "Role", "State"]

MAX_STRAY_ANSWERS = 16
"""Answers to calls that are not in flight which a client drops; one more ends the connection."""


class Connection(Hurried):
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

    __slots__ = ("_hello", "_stray", "heartbeat_ms", "their_max_calls")

    def __init__(self, role: Role, limits: Limits | None = None, *, hint: str = "") -> None:
        self.their_max_calls = 0
        self.heartbeat_ms = 0
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

    def _read_hello(self, frame: Frame) -> Event:
        hello = Hello.decode(frame.payload)
        self.their_max_frame = hello.max_frame
        self._max_frame = self._limits.max_frame
        return HelloReceived(hello)

    def _read_request(self, frame: Frame) -> Event | None:
        call_id = frame.call_id
        ahead = (call_id - self.last_call_id) & U32_MAX
        if not 0 < ahead < HALF:
            raise RemoteProtocolError(
                "CALL_ID", f"REQUEST names call {call_id}, which is not after {self.last_call_id}"
            )
        if call_id in self._calls:
            raise RemoteProtocolError("CALL_ID", f"REQUEST names call {call_id}, which is in flight")
        self.last_call_id = call_id
        if self.state is State.DRAINING:
            self._refuse_call(frame, "SHUTTING_DOWN", "the server is shutting down")
            return None
        if self.calls_in_flight >= self._limits.max_calls:
            text = f"{self.calls_in_flight} calls are in flight on this connection, the most it may have"
            self._refuse_call(frame, "TOO_MANY_CALLS", text)
            return None
        self._calls[call_id] = frame.opcode
        metadata = self._read_metadata(call_id, frame.metadata) if frame.metadata else EMPTY
        return RequestReceived(call_id, frame.opcode, metadata, frame.payload)

    def _refuse_call(self, frame: Frame, reason: str, message: str) -> None:
        self._send(Kind.ERROR, frame.opcode, frame.call_id, pack_error(failure(reason, message)))

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
            raise not_in_flight(call_id)
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


class ConnectionMaker(Protocol):
    """Makes the state of one more connection: ``Connection`` itself, or what a test puts in its place."""

    def __call__(self, role: Role, limits: Limits | None = None, *, hint: str = "") -> Connection:
        """The arguments are those of ``Connection``."""


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
