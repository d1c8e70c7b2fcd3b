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

__all__ = ["PATIENCE", "PLENTY", "SERVER_CASES", "Bench", "Caller", "Subject"]


PLENTY = 1 << 20
"""Bytes of credit beside the items of a case that is not about bytes."""


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
            caller.max_frame = changes.get("max_frame", caller.max_frame)
            caller.greet(self.hello(**changes))
        except BaseException:
            peer.close()
            raise
        return caller

    def open_packing(self, fields: bytes = b"") -> "Caller":
        """A connection on which payloads may be packed, by zlib.

        Args:
            fields: of HELLO, behind the one that offers it.

        Raises:
            NotJudged: the server does not know it.
        """
        caller = self.open(fields=page.tlv(page.PACKING_FIELD, bytes([page.ZLIB])) + fields)
        if caller.packing == page.ZLIB:
            return caller
        caller.peer.close()
        raise NotJudged("the server does not pack, or not by zlib")

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
        one_way_room: one-way calls that may still be sent.
    """

    def __init__(self, peer: RawPeer, bench: Bench) -> None:
        super().__init__(peer, "server", bench.patience)
        self.bench = bench
        self.welcome: page.WelcomeBody | None = None
        self._codec = codecs.get(bench.codec[1])
        self._opcodes: dict[int, int] = {}  # of the calls in flight
        self._flags: dict[int, int] = {}  # of their REQUESTs
        self._credit: dict[int, page.CreditBody] = {}  # left of the answer half of each
        self._room: dict[int, page.CreditBody] = {}  # left of the request half of each, whether it is over or not
        self._complete: set[int] = set()  # calls whose END was sent
        self._read_whole: set[int] = set()  # ... and was read, since something sent behind it was answered
        self._last_id = 0
        self.one_way_room = 0

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
        self.one_way_room = self.welcome.one_way_credit
        self.packing = self.welcome.packing[0] if self.welcome.packing else 0
        self._room = dict.fromkeys(self._room, self.welcome.first_credit)  # of uploads that went together with HELLO
        return self.welcome

    def welcomed_or_ends(self, reason: str) -> None:
        """The server must end the connection with ``reason``, whether it has sent WELCOME before that or not."""
        found = self.first()
        if isinstance(found, page.RawFrame) and found.kind == page.WELCOME:
            self.welcome = page.read_welcome(found.payload)
            self.ends(reason)
        elif isinstance(found, page.RawFrame) and found.kind == page.ERROR and not found.call_id:
            self.judge_end(found, reason)
        else:
            shown = page.shown(found) if isinstance(found, page.RawFrame) else found.value
            raise Deviation(f"a final ERROR with {reason} was due, and there was {shown}")

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
        flags: int | None = None,
        credit: int | None = None,
        size: int = PLENTY,
        packed: bool = False,
    ) -> tuple[int, bytes]:
        """A REQUEST that is remembered as sent: its id, and its bytes.

        Args:
            message: the request, or its payload.
            flags: None for those of the method's shape.
            credit: items, written into the metadata; a stream's first credit.
            size: ... and the bytes beside them.
            packed: whether the payload travels packed. One that is given as bytes with the flag is sent as it is.

        Raises:
            NotJudged: the codec writes the message at greater length than its method takes.
        """
        if call_id is None:
            call_id = page.next_id(self._last_id)
        self._last_id = call_id
        if flags is None:
            flags = int(method.shape.flags)
        if credit is not None:
            metadata += page.field(page.CREDIT_KEY, page.credit_body(credit, size))
        if flags & page.ONE_WAY:  # such a call is over at once
            self.one_way_room -= 1
        else:
            self._opcodes[call_id] = method.opcode
            self._flags[call_id] = flags
            self._credit[call_id] = page.NOTHING if credit is None else page.CreditBody(credit, size)
        if flags & page.ITEMS_FOLLOW:
            self._room[call_id] = page.NOTHING if self.welcome is None else self.welcome.first_credit
        payload = message if isinstance(message, bytes) else self.payload(message)
        if packed:
            payload = page.packed_body(payload)
            flags |= page.PACKED
        if not isinstance(message, bytes) and method.max_request is not None and len(payload) > method.max_request:
            raise NotJudged(f"{method.name} takes {method.max_request} bytes, and in this codec it is {len(payload)}")
        fields: dict[str, Any] = {"metadata": metadata, "opcode": method.opcode, "call_id": call_id, "flags": flags}
        return call_id, self.frame(page.REQUEST, payload, **fields)

    def request(self, method: Operation[Any, Any], message: Message | bytes, metadata: bytes = b"", **more: Any) -> int:
        """Send a REQUEST; its id."""
        call_id, data = self.request_frame(method, message, metadata, **more)
        self.send(data)
        return call_id

    def upload(self, method: Operation[Any, Any], metadata: bytes = b"", **more: Any) -> int:
        """Send the REQUEST of a call whose items follow; its id."""
        return self.request(method, b"", metadata, **more)

    def item_frame(
        self, method: Operation[Any, Any], call_id: int, message: Message | bytes, *, packed: bool = False
    ) -> bytes:
        """An ITEM of the request half, which takes of its credit; whether there is any is the case's affair."""
        payload = message if isinstance(message, bytes) else self.payload(message)
        room = self._room.get(call_id, page.NOTHING)
        self._room[call_id] = page.CreditBody(room.items - 1, room.bytes - len(payload))
        if packed:
            payload = page.packed_body(payload)
        flags = page.PACKED if packed else 0
        return self.frame(page.ITEM, payload, opcode=method.opcode, call_id=call_id, flags=flags)

    def put(self, method: Operation[Any, Any], call_id: int, *messages: Message | bytes) -> None:
        """Send ITEMs at once; whether there is credit for them is the case's affair."""
        self.send(b"".join(self.item_frame(method, call_id, each) for each in messages))

    def give(self, method: Operation[Any, Any], call_id: int, *messages: Message) -> None:
        """Send ITEMs, each when there is credit for it."""
        for message in messages:
            self.wait_for_room(call_id)
            self.put(method, call_id, message)

    def complete(self, method: Operation[Any, Any], call_id: int) -> None:
        """Send END: the request half is all there."""
        self.send(self.frame(page.END, opcode=method.opcode, call_id=call_id))
        self._complete.add(call_id)

    def room(self, call_id: int) -> page.CreditBody:
        """The credit that is left of a request half, by the CREDITs that were read."""
        return self._room[call_id]

    def wait_for_room(self, call_id: int) -> None:
        """Read until an ITEM of this request half may be sent; nothing but CREDIT may come meanwhile."""
        while min(self._room[call_id]) < 1:
            self._only_credit(f"of call {call_id}")

    def wait_for_one_way_room(self) -> None:
        """Read until a one-way call may be sent."""
        while self.one_way_room < 1:
            self._only_credit("for one-way calls")

    def _only_credit(self, what: str) -> None:
        found = super().first()
        if isinstance(found, Ending):
            raise Deviation(f"CREDIT {what} was due, and there was {found.value}")
        if found.kind != page.CREDIT:
            raise Deviation(f"CREDIT {what} was due, and {page.shown(found)} came")

    def cancel(self, call_id: int) -> None:
        """Send CANCEL; items of the call may still come, and one terminal frame must."""
        self.send(self.frame(page.CANCEL, opcode=self._opcodes.get(call_id, 0), call_id=call_id))

    def credit(self, call_id: int, items: int, size: int = PLENTY) -> None:
        """Send CREDIT."""
        left = self._credit.get(call_id, page.NOTHING)
        self._credit[call_id] = page.CreditBody(left.items + items, left.bytes + size)
        opcode = self._opcodes.get(call_id, 0)
        self.send(self.frame(page.CREDIT, page.credit_body(items, size), opcode=opcode, call_id=call_id))

    # Receiving.

    def ping(self, data: bytes = b"conforms") -> None:
        """See ``Side``."""
        behind = set(self._complete)
        super().ping(data)
        self._read_whole |= behind

    def first(self, timeout: float | None = None) -> page.RawFrame | Ending:
        """See ``Side``. CREDIT may come at any time: it is counted, and not returned."""
        deadline = time.monotonic() + (self.bench.patience if timeout is None else timeout)
        while True:
            found = super().first(max(deadline - time.monotonic(), 0.001))
            if isinstance(found, Ending) or found.kind != page.CREDIT:
                return found

    def check(self, found: page.RawFrame) -> None:
        """See ``Side``; before WELCOME the cases themselves look."""
        if self.welcome is None:
            return
        shown = page.shown(found)
        if found.kind not in page.FROM_EITHER:
            raise Deviation(f"a server sends no such frame here: {shown}")
        if found.kind in (page.REQUEST, page.CANCEL):
            raise Deviation(f"{shown} came, and no calls of the server's are taken")
        if found.flags or (found.metadata and not (found.kind in page.ANSWERS and found.call_id)):
            raise Deviation(f"{shown} has flags {found.flags:#04x} and {len(found.metadata)} bytes of metadata")
        if found.kind in page.ANSWERS and (found.metadata or found.kind == page.ERROR):
            details = page.read_error(found.payload).details if found.kind == page.ERROR else None
            page.check_answer_metadata(found.kind, found.metadata, len(details or b""))
        of_message = found.kind in page.OF_MESSAGES
        wanted = (self.bench.codec[0], self.bench.version) if of_message else (0, 0)
        if (found.codec, found.version) != wanted:
            raise Deviation(f"{shown} has codec {found.codec} and version {found.version}; they must be {wanted}")
        if not found.call_id:
            if found.opcode:
                raise Deviation(f"{shown} has opcode {found.opcode:#06x} and belongs to no call")
            if found.kind in page.OF_CALLS and found.kind not in (page.ERROR, page.CREDIT):
                raise Deviation(f"{shown} names no call")
            if found.kind == page.CREDIT:
                self.one_way_room += page.read_credit(found.payload, 0).items
                if self.one_way_room > page.U32_MOST:
                    raise Deviation(f"{shown} makes {self.one_way_room} one-way calls")
            return
        if found.kind in (page.PING, page.PONG, page.GOAWAY):
            raise Deviation(f"{shown} belongs to no call")
        opcode = self._opcodes.get(found.call_id)
        if opcode is None:
            raise Deviation(f"{shown} came, and that call is not in flight")
        if found.opcode != opcode:
            raise Deviation(f"{shown} has opcode {found.opcode:#06x}; its REQUEST had {opcode:#06x}")
        items_come_back = bool(self._flags[found.call_id] & page.ITEMS_COME_BACK)
        if found.kind == page.CREDIT:
            more = page.read_credit(found.payload)
            if not self._flags[found.call_id] & page.ITEMS_FOLLOW:
                raise Deviation(f"{shown} came, and no items of that call follow")
            if found.call_id in self._read_whole:
                raise Deviation(f"{shown} came behind the END of the half that it is for")
            room = self._room[found.call_id]
            room = page.CreditBody(room.items + more.items, room.bytes + more.bytes)
            if max(room) > page.U32_MOST:
                raise Deviation(f"{shown} makes {room} of credit")
            self._room[found.call_id] = room
        elif found.kind != page.ERROR and items_come_back == (found.kind == page.RESPONSE):
            raise Deviation(
                f"{shown} came of a call whose answer is {'a stream' if items_come_back else 'one message'}"
            )
        if found.kind == page.ITEM:
            credit = self._credit[found.call_id]
            if min(credit) < 1:
                raise Deviation(
                    f"{shown} came, and of its credit {credit.items} items and {credit.bytes} bytes are left"
                )
            self._credit[found.call_id] = page.CreditBody(credit.items - 1, credit.bytes - len(found.payload))
        if found.kind == page.END and found.payload:
            raise Deviation(f"{shown}; an END is empty")
        if found.kind in page.TERMINAL:
            for each in (self._opcodes, self._flags, self._credit):
                del each[found.call_id]

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

    def details(self, message: Message) -> bytes:
        """The payload of the details of an error."""
        return self._codec.plan(type(message), self.bench.version, LIMITS, request=False).encode(message)

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
        if reason in page.CALL_REASONS and not page.may_say(reason, found.retry):
            raise Deviation(f"{reason} says retry {found.retry}; it must be {page.RETRY_OF_CALLS[reason]}")
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
