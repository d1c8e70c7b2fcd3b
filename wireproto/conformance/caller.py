"""The client that judges a server: it plays by the rules except where a case says otherwise, and holds every frame it
reads to the rules.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from wireproto import codecs
from wireproto.conformance import page
from wireproto.conformance.case import Deviation, NotJudged, Registry
from wireproto.conformance.raw import Ending, RawPeer
from wireproto.conformance.side import LIMITS, PATIENCE, Side
from wireproto.control import CONTROL, ECHO, EchoRequest
from wireproto.errors import DecodeError
from wireproto.schema import Message, Operation

__all__ = ["PATIENCE", "SERVER_CASES", "Bench", "Caller", "Subject"]


class Subject(Protocol):
    """A server that a case may end; leaving it as a context ends it for certain."""

    address: tuple[str, int]

    def terminate(self) -> None:
        """Ask it to finish what is in flight and to go, as SIGTERM does; return at once."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


@dataclass(frozen=True)
class Bench:
    """What a case is given: where the server is, and what this run is about.

    Attributes:
        codec: id and name.
        service: the full name to ask for.
        newest: the newest version of it that the server speaks.
        start: starts another server like it, for a case that ends it; None when the kit cannot.
        patience: seconds in which what must happen at once has to happen.
        slow_patience: ... and what happens after one of the times of section 10.
    """

    address: tuple[str, int]
    codec: tuple[int, str]
    version: int
    service: str
    newest: int
    start: "Callable[[], Subject] | None" = None
    patience: float = PATIENCE
    slow_patience: float = 2 * PATIENCE

    @property
    def free_id(self) -> int:
        """An id of a user's codec that is not the one of this run."""
        return 201 if self.codec[0] != 201 else 202

    def at(self, address: tuple[str, int]) -> "Bench":
        """The same, elsewhere."""
        return replace(self, address=address)

    def of_control(self) -> "Bench":
        """The same, for a client that knows no service."""
        return replace(self, service=CONTROL.full_name, version=1, newest=1)

    def raw(self) -> RawPeer:
        """A connection on which nothing was sent."""
        return RawPeer.connect(self.address, self.patience)

    def hello(self, **changes: Any) -> bytes:
        """The body of this run's HELLO, but for what is changed."""
        return page.pack_hello(
            **{
                "codecs": [self.codec],
                "service": self.service,
                "versions": (self.version, self.version),
                "client_name": "wireproto conformance",
                **changes,
            }
        )

    def open(self, **changes: Any) -> "Caller":
        """A connection whose handshake is done; its HELLO with what is changed."""
        peer = self.raw()
        try:
            caller = Caller(peer, self)
            caller.greet(self.hello(**changes))
        except BaseException:
            peer.close()
            raise
        return caller

    def refused(self, reason: str, **changes: Any) -> page.ErrorBody:
        """A handshake that must be refused: the final ERROR."""
        with self.raw() as peer:
            caller = Caller(peer, self)
            caller.send(page.PREAMBLE + page.frame(page.HELLO, self.hello(**changes)))
            return caller.ends(reason)


class Caller(Side):
    """One connection of the judge.

    Attributes:
        peer: its socket.
        welcome: the server's; None before the handshake.
    """

    def __init__(self, peer: RawPeer, bench: Bench) -> None:
        super().__init__(peer, "server", bench.patience)
        self.bench = bench
        self.welcome: page.WelcomeBody | None = None
        self._codec = codecs.get(bench.codec[1])
        self._opcodes: dict[int, int] = {}  # of the calls in flight
        self._streams: dict[int, int] = {}  # credit left
        self._last_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._opcodes:
            # Behind an orderly end the server would finish what is in flight, and some of it sleeps for long.
            self.peer.reset()
        self.peer.close()

    # The handshake.

    def greet(self, hello: bytes) -> None:
        """Preamble and HELLO, answered by WELCOME."""
        self.send(page.PREAMBLE + page.frame(page.HELLO, hello))
        self.expect_welcome()

    def expect_welcome(self) -> page.WelcomeBody:
        """The server's preamble and WELCOME."""
        self.welcome = page.read_welcome(self.greeting(page.WELCOME))
        return self.welcome

    # Sending.

    def frame(self, kind: int, payload: bytes = b"", **changes: Any) -> bytes:
        """A frame as it must be on this connection, but for what is changed."""
        of_message = kind in page.OF_MESSAGES
        of_call = kind in page.OF_CALLS
        fields: dict[str, Any] = {
            "codec": self.bench.codec[0] if of_message else 0,
            "version": self.bench.version if of_message else 0,
            "opcode": ECHO.opcode if of_call else 0,
            "call_id": 1 if of_call else 0,
            **changes,
        }
        return page.frame(kind, payload, **fields)

    def payload(self, message: Message) -> bytes:
        """A request's payload."""
        version = 1 if type(message).__module__ == "wireproto.control" else self.bench.version
        return self._codec.plan(type(message), version, LIMITS, request=True).encode(message)

    def request_frame(
        self,
        method: Operation[Any, Any],
        message: Message | bytes,
        metadata: bytes = b"",
        *,
        call_id: int | None = None,
        credit: int | None = None,
    ) -> tuple[int, bytes]:
        """A REQUEST that is remembered as sent: its id, and its bytes.

        Args:
            message: the request, or its payload.
            credit: written into the metadata; a stream's first credit.

        Raises:
            NotJudged: the codec writes the message at greater length than its method takes.
        """
        if call_id is None:
            call_id = page.next_id(self._last_id)
        self._last_id = call_id
        if credit is not None:
            metadata += page.field(page.CREDIT_KEY, page.u32(credit))
        self._opcodes[call_id] = method.opcode
        if method.is_stream:
            self._streams[call_id] = credit or 0
        payload = message if isinstance(message, bytes) else self.payload(message)
        if not isinstance(message, bytes) and method.max_request is not None and len(payload) > method.max_request:
            raise NotJudged(f"{method.name} takes {method.max_request} bytes, and in this codec it is {len(payload)}")
        return call_id, self.frame(page.REQUEST, payload, metadata=metadata, opcode=method.opcode, call_id=call_id)

    def request(self, method: Operation[Any, Any], message: Message | bytes, metadata: bytes = b"", **more: Any) -> int:
        """Send a REQUEST; its id."""
        call_id, data = self.request_frame(method, message, metadata, **more)
        self.send(data)
        return call_id

    def cancel(self, call_id: int) -> None:
        """Send CANCEL; items of the call may still come, and one terminal frame must."""
        self.send(self.frame(page.CANCEL, opcode=self._opcodes.get(call_id, 0), call_id=call_id))

    def credit(self, call_id: int, amount: int) -> None:
        """Send CREDIT."""
        self._streams[call_id] = self._streams.get(call_id, 0) + amount
        opcode = self._opcodes.get(call_id, 0)
        self.send(self.frame(page.CREDIT, page.u32(amount), opcode=opcode, call_id=call_id))

    # Receiving.

    def check(self, found: page.RawFrame) -> None:
        """See ``Side``; before WELCOME the cases themselves look."""
        if self.welcome is None:
            return
        shown = page.shown(found)
        if found.kind not in page.FROM_SERVER:
            raise Deviation(f"a server sends no such frame here: {shown}")
        if found.flags or found.metadata:
            raise Deviation(f"{shown} has flags {found.flags:#04x} and {len(found.metadata)} bytes of metadata")
        of_message = found.kind in page.OF_MESSAGES
        wanted = (self.bench.codec[0], self.bench.version) if of_message else (0, 0)
        if (found.codec, found.version) != wanted:
            raise Deviation(f"{shown} has codec {found.codec} and version {found.version}; they must be {wanted}")
        if not found.call_id:
            if found.opcode:
                raise Deviation(f"{shown} has opcode {found.opcode:#06x} and belongs to no call")
            if found.kind in page.TERMINAL and found.kind != page.ERROR:
                raise Deviation(f"{shown} names no call")
            return
        if found.kind in (page.PING, page.PONG, page.GOAWAY):
            raise Deviation(f"{shown} belongs to no call")
        opcode = self._opcodes.get(found.call_id)
        if opcode is None:
            raise Deviation(f"{shown} came, and that call is not in flight")
        if found.opcode != opcode:
            raise Deviation(f"{shown} has opcode {found.opcode:#06x}; its REQUEST had {opcode:#06x}")
        credit = self._streams.get(found.call_id)
        if found.kind == page.ITEM:
            if not credit:
                raise Deviation(f"{shown} came without credit")
            self._streams[found.call_id] = credit - 1
        elif found.kind != page.ERROR and (credit is None) == (found.kind == page.END):
            raise Deviation(f"{shown} ends a call that is {'a stream' if credit is not None else 'unary'}")
        if found.kind == page.END and found.payload:
            raise Deviation(f"{shown}; an END is empty")
        if found.kind in page.TERMINAL:
            del self._opcodes[found.call_id]
            self._streams.pop(found.call_id, None)

    def decode(self, method: Operation[Any, Any], payload: bytes) -> Any:
        """An answer's message."""
        version = 1 if method.opcode >= page.FIRST_OPCODE_OF_CONTROL else self.bench.version
        try:
            return self._codec.plan(method.response, version, LIMITS, request=False).decode(payload)
        except DecodeError as error:
            raise Deviation(f"the answer of {method.name} cannot be read: {error}; it is {payload.hex(' ')}") from None

    def written(self, method: Operation[Any, Any], answer: Message) -> bytes:
        """The canonical form of an answer."""
        return self._codec.plan(method.response, self.bench.version, LIMITS, request=False).encode(answer)

    def response(self, method: Operation[Any, Any], call_id: int, timeout: float | None = None) -> Any:
        """The next frame must be the call's RESPONSE: its message."""
        return self.decode(method, self.expect(page.RESPONSE, call_id, timeout).payload)

    def call(self, method: Operation[Any, Any], message: Message | bytes, metadata: bytes = b"", **more: Any) -> Any:
        """A call that must be answered."""
        return self.response(method, self.request(method, message, metadata, **more))

    def error(
        self, call_id: int, reason: str, *, retry: int | None = None, timeout: float | None = None
    ) -> page.ErrorBody:
        """The next frame must be the call's ERROR with ``reason``, and the status that belongs to it."""
        found = page.read_error(self.expect(page.ERROR, call_id, timeout).payload)
        if found.reason != reason:
            raise Deviation(
                f"call {call_id} failed with {found.reason or 'no reason'} and not {reason}: {found.message}"
            )
        status = page.STATUS_OF_CALLS.get(reason, found.status)
        if found.status != status:
            raise Deviation(f"{reason} has status {found.status}; it must be {status}")
        if retry is not None and found.retry != retry:
            raise Deviation(f"{reason} says retry {found.retry}; it must be {retry}")
        return found

    def fail(
        self,
        method: Operation[Any, Any],
        message: Message | bytes,
        reason: str,
        metadata: bytes = b"",
        *,
        retry: int | None = None,
        **more: Any,
    ) -> page.ErrorBody:
        """A call that must fail with ``reason``, whereupon the connection lives."""
        found = self.error(self.request(method, message, metadata, **more), reason, retry=retry)
        self.alive()
        return found

    def item(self, method: Operation[Any, Any], call_id: int) -> Any:
        """The next frame must be an ITEM of the stream: its message."""
        return self.decode(method, self.expect(page.ITEM, call_id).payload)

    def alive(self) -> None:
        """The connection takes calls: what was sent before this is dealt with, and nothing was left to come of it."""
        call_id = self.request(ECHO, EchoRequest(payload=b"alive"))
        answer = self.response(ECHO, call_id)
        if answer.payload != b"alive":
            raise Deviation(f"Echo of b'alive' answered {answer.payload!r}")

    # The end.

    def ends(
        self, reason: str, timeout: float | None = None, *, meanwhile: Callable[[], None] | None = None
    ) -> page.ErrorBody:
        """The server must send a final ERROR with ``reason``, and then an end of input; answers may come before it.

        Args:
            meanwhile: done every quarter of a second until then.
        """
        deadline = time.monotonic() + (self.bench.patience if timeout is None else timeout)
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            found = self.first(left if meanwhile is None else min(left, 0.25))
            if found is Ending.SILENCE and meanwhile is not None and time.monotonic() < deadline:
                meanwhile()
                continue
            if isinstance(found, Ending):
                raise Deviation(f"a final ERROR with {reason} was due, and there was {found.value}")
            if found.kind == page.ERROR and not found.call_id:
                break
            if self.welcome is None or time.monotonic() > deadline:
                raise Deviation(f"a final ERROR with {reason} was due, and {page.shown(found)} came")
        return self.judge_end(found, reason)


SERVER_CASES: Registry[Bench] = Registry("s")
"""Every case that judges a server; ``wireproto.conformance.servers`` fills it."""
