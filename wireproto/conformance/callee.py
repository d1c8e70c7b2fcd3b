"""The server that judges a client: it plays by the rules except where a case says otherwise, and holds every frame it
reads to the rules.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from wireproto import codecs
from wireproto.conformance import page
from wireproto.conformance.case import Deviation, NotJudged, Registry
from wireproto.conformance.own_calls import OwnCalls
from wireproto.conformance.plain import from_json
from wireproto.conformance.programs import Lender, Talker
from wireproto.conformance.raw import Ending, RawListener, RawPeer
from wireproto.conformance.service import CONFORMANCE
from wireproto.conformance.side import LIMITS, PATIENCE, Side
from wireproto.errors import DecodeError
from wireproto.schema import Message, Operation

__all__ = [
    "CLIENT_CASES",
    "UNKNOWN_OPCODE",
    "Callee",
    "Request",
    "Trial",
    "call",
    "cancel",
    "close",
    "duplex",
    "follow",
    "post",
    "start",
    "stream",
    "upload",
    "wait",
]


UNKNOWN_OPCODE = 0x0BAD
"""Of the calls that the server begins; no method has it."""


# What the client is told: docs/conformance.md.


def call(method: str, metadata: dict[str, Any] | None = None, /, **request: Any) -> dict[str, Any]:
    """Call and wait for what comes of it."""
    return {"do": "call", "method": method, "request": request, **({"metadata": metadata} if metadata else {})}


def start(name: str, method: str, /, **request: Any) -> dict[str, Any]:
    """Send the REQUEST and go on."""
    return {"do": "start", "as": name, "method": method, "request": request}


def wait(name: str) -> dict[str, Any]:
    """Wait for what comes of a call that was started."""
    return {"do": "wait", "for": name}


def cancel(name: str) -> dict[str, Any]:
    """Cancel a call that was started."""
    return {"do": "cancel", "for": name}


def stream(method: str, credit: int, /, take: int | None = None, **request: Any) -> dict[str, Any]:
    """Call a stream and take its items, all or so many."""
    taken = {} if take is None else {"take": take}
    return {"do": "stream", "method": method, "request": request, "credit": credit, **taken}


def follow(method: str, credit: int, /, after: int | None = None, **request: Any) -> dict[str, Any]:
    """Call a resumable stream, take all its items, and open it again when it is lost."""
    behind = {} if after is None else {"after": after}
    return {"do": "follow", "method": method, "request": request, "credit": credit, **behind}


def upload(
    method: str, items: list[dict[str, Any]], metadata: dict[str, Any] | None = None, /, *, leave: bool = False
) -> dict[str, Any]:
    """Upload these items and wait for what comes of it; or leave it behind them."""
    more = {**({"metadata": metadata} if metadata else {}), **({"leave": True} if leave else {})}
    return {"do": "upload", "method": method, "items": items, **more}


def duplex(method: str, items: list[dict[str, Any]], credit: int, /, *, take: int | None = None) -> dict[str, Any]:
    """Send these items and take those that come back, all or so many."""
    taken = {} if take is None else {"take": take}
    return {"do": "duplex", "method": method, "items": items, "credit": credit, **taken}


def post(method: str, /, **request: Any) -> dict[str, Any]:
    """A one-way call."""
    return {"do": "post", "method": method, "request": request}


def close() -> dict[str, Any]:
    """Close the connection in order."""
    return {"do": "close"}


class Request(NamedTuple):
    """A REQUEST of the client, read."""

    call_id: int
    opcode: int
    message: Any
    metadata: dict[int, list[bytes]]

    @property
    def credit(self) -> page.CreditBody:
        """The first credit of the answer half."""
        found = self.metadata.get(page.CREDIT_KEY, [bytes(8)])[0]
        return page.NOTHING if found == bytes(8) else page.read_credit(found)


@dataclass(frozen=True)
class Trial:
    """What a client case is given.

    Attributes:
        codec: id and name.
        version: the newest of the service that the client offers.
        patience: seconds in which what must happen at once has to happen.
        slow_patience: ... and what happens after a time of the client's own.
    """

    codec: tuple[int, str]
    version: int
    programs: Lender
    patience: float = PATIENCE
    slow_patience: float = 2 * PATIENCE

    @contextmanager
    def client(
        self, *steps: dict[str, Any], greet: bool = True, early: bool = False, handlers: bool = False, **welcome: Any
    ) -> Iterator["Callee"]:
        """A client that was told to do ``steps``, connected; with ``greet`` its handshake is done.

        Args:
            early: it may send the first step's REQUEST together with HELLO.
            handlers: it is to answer calls of the server.
            welcome: what is changed in WELCOME.

        Raises:
            NotJudged: the client says that it has no such thing, or the codec writes a request at greater length than
                its method takes.
        """
        self._can_be_sent(steps)
        with self.programs.borrow() as program:
            instruction = {
                "codec": self.codec[1],
                "versions": [1, self.version],
                "service": CONFORMANCE.full_name,
                "steps": list(steps),
                **({"early": True} if early else {}),
                **({"handlers": True} if handlers else {}),
            }
            with self._connected(program, instruction) as peer:
                callee = Callee(peer, self, program)
                if greet:
                    callee.greet(**welcome)
                yield callee
                callee.results()  # whoever has not asked for them has still to wait until they are there

    def written(self, message: Message) -> bytes:
        """The canonical form of a request in the codec and version of this trial."""
        return codecs.get(self.codec[1]).plan(type(message), self.version, LIMITS, request=True).encode(message)

    def _can_be_sent(self, steps: Sequence[dict[str, Any]]) -> None:
        for step in steps:
            if "method" not in step:
                continue
            method = CONFORMANCE.by_name(step["method"])
            if method.max_request is not None and "request" in step:
                size = len(self.written(from_json(method.request, step["request"])))
                if size > method.max_request:
                    raise NotJudged(f"{method.name} takes {method.max_request} bytes, and in this codec it is {size}")

    @contextmanager
    def _connected(self, program: Talker, instruction: dict[str, Any]) -> Iterator[RawPeer]:
        with RawListener() as listener:
            host, port = listener.address
            program.tell({"host": host, "port": port, **instruction})
            deadline = time.monotonic() + self.slow_patience
            while (peer := listener.accept(0.02)) is None:
                if (said := program.answer(0.0001)) is not None:
                    raise _explained(said, "it did not connect")
                if time.monotonic() > deadline:
                    raise Deviation("the client did not connect")
        # Nobody listens any more: a client that wants another connection is refused.
        with peer:
            yield peer


def _explained(said: dict[str, Any], problem: str) -> Exception:
    if "unsupported" in said:
        return NotJudged(f"the client does not implement it: {said['unsupported']}")
    if "results" not in said and "connect_error" not in said:
        # Not quoted: it would be another text for each run, and the report would be as long as all of them.
        lacks = "its line has none of results, connect_error and unsupported, which docs/conformance.md describes"
        return Deviation(f"{problem}, and {lacks}")
    return Deviation(f"{problem}, and said {said}")


class Callee(Side):
    """One connection of the judge.

    Attributes:
        peer: its socket.
        hello: the client's; None before it was read.
        hello_length: what its length field says.
        version: of the connection, once it was welcomed.
    """

    def __init__(self, peer: RawPeer, trial: Trial, program: Talker) -> None:
        super().__init__(peer, "client", trial.patience)
        self.trial = trial
        self.hello: page.HelloBody | None = None
        self.hello_length = 0
        self.version = 0
        self._program = program
        self._answer: list[dict[str, Any]] | None = None
        self._codec = codecs.get(trial.codec[1])
        self._in_flight: dict[int, int] = {}
        self._known: dict[int, int] = {}  # every call there was
        self._flags: dict[int, int] = {}  # ... and of its REQUEST
        self._cancelled: set[int] = set()
        self._room: dict[int, page.CreditBody] = {}  # left of the request half of each call whose items follow
        self._complete: set[int] = set()  # request halves that have ended
        self._first = page.NOTHING
        self._one_way = 0
        self.own = OwnCalls(self)
        self._begun: set[int] = set()  # calls of the judge's own that were not answered
        self._last_id = 0
        self._leaving = False

    # The handshake.

    def read_hello(self) -> page.HelloBody:
        """The client's preamble and HELLO, which it sends at once."""
        body = self.greeting(page.HELLO)
        self.hello_length = page.HEADER.size - 4 + len(body)
        self.hello = page.read_hello(body)
        self.own.greeted(self.hello)
        return self.hello

    def welcome(self, *, first: page.CreditBody = page.NOTHING, one_way: int = 0, **changes: Any) -> bytes:
        """Preamble and WELCOME.

        Args:
            first: credit of each request half, written into the fields; none leaves it out.
            one_way: ... and the one-way credit.
            changes: of its other fields.
        """
        self._first, self._one_way = first, one_way
        if first != page.NOTHING or one_way:
            changes["fields"] = page.credit_fields(first, one_way) + changes.get("fields", b"")
        fields = {"codec": self.trial.codec[0], "version": self.trial.version, **changes}
        self.version = fields["version"]
        self.max_frame = fields.get("max_frame", self.max_frame)
        return page.PREAMBLE + page.frame(page.WELCOME, page.pack_welcome(**fields))

    def greet(self, **changes: Any) -> None:
        """Read HELLO and welcome the client."""
        self.read_hello()
        self.send(self.welcome(**changes))

    def greet_packing(self, **changes: Any) -> None:
        """Read HELLO and welcome the client, with zlib to pack by.

        Raises:
            NotJudged: the client does not offer it.
        """
        if page.ZLIB not in self.read_hello().packing:
            raise NotJudged("the client does not pack, or not by zlib")
        self.packing = page.ZLIB
        fields = page.tlv(page.PACKING_FIELD, bytes([page.ZLIB])) + changes.pop("fields", b"")
        self.send(self.welcome(fields=fields, **changes))

    # Receiving.

    def check(self, found: page.RawFrame) -> None:
        """See ``Side``; before WELCOME the cases themselves look."""
        if not self.version:
            return
        shown = page.shown(found)
        if found.kind not in page.FROM_EITHER:
            raise Deviation(f"a client sends no such frame here: {shown}")
        if found.flags not in (page.FLAGS_OF_REQUEST if found.kind == page.REQUEST else (0,)) or (
            found.metadata
            and found.kind != page.REQUEST
            and not (found.kind in page.ANSWERS and found.call_id & page.TOP_BIT)
        ):
            raise Deviation(f"{shown} has flags {found.flags:#04x} and {len(found.metadata)} bytes of metadata")
        wanted = (self.trial.codec[0], self.version) if found.kind in page.OF_MESSAGES else (0, 0)
        if (found.codec, found.version) != wanted:
            raise Deviation(f"{shown} has codec {found.codec} and version {found.version}; they must be {wanted}")
        if found.kind in (page.PING, page.PONG, page.GOAWAY):
            if found.call_id or found.opcode or (found.kind != page.GOAWAY and len(found.payload) != 8):
                raise Deviation(f"{shown} has call id {found.call_id} and opcode {found.opcode:#06x}")
        elif found.kind == page.REQUEST:
            if self._leaving:
                raise Deviation(f"{shown} came behind GOAWAY")
            if not page.is_ahead(found.call_id, self._last_id) or found.call_id in self._in_flight:
                raise Deviation(f"{shown} follows call {self._last_id}; its id must lie ahead")
            self._last_id = found.call_id
            self._known[found.call_id] = found.opcode
            self._flags[found.call_id] = found.flags
            if found.flags & page.ONE_WAY:
                self._one_way -= 1
                if self._one_way < 0:
                    raise Deviation(f"{shown} came, and no credit for one-way calls is left")
            else:
                self._in_flight[found.call_id] = found.opcode
            if found.flags & page.ITEMS_FOLLOW:
                self._room[found.call_id] = self._first
                if found.payload:
                    raise Deviation(f"{shown} came, and its items follow")
        elif found.call_id & page.TOP_BIT:
            if not self.own.check(found, shown):
                self._of_ours(found, shown)
        elif found.kind == page.CREDIT and not found.call_id and self.hello is not None and self.hello.max_calls:
            self.own.one_way_room += page.read_credit(found.payload, 0).items
        elif found.kind in (page.CANCEL, page.CREDIT):
            if not found.call_id:
                raise Deviation(f"{shown} came, and no calls of the server's were begun")
            if self._known.get(found.call_id) != found.opcode:
                raise Deviation(f"{shown} has opcode {found.opcode:#06x}; no such call was begun")
            if found.call_id in self._cancelled:
                raise Deviation(f"{shown} came behind the CANCEL of its call")
            if self._flags[found.call_id] & page.ONE_WAY:
                raise Deviation(f"{shown} came, and that call was one-way")
            if found.kind == page.CREDIT:
                page.read_credit(found.payload)
                if not self._flags[found.call_id] & page.ITEMS_COME_BACK:
                    raise Deviation(f"{shown} came, and the answer of that call is one message")
            elif found.payload:
                raise Deviation(f"the body of {shown} is {found.payload.hex(' ')}")
            else:
                self._cancelled.add(found.call_id)
        elif found.kind in (page.ITEM, page.END):
            self._of_a_request(found, shown)
        elif found.kind != page.ERROR or found.call_id:
            raise Deviation(f"{shown} came, and the client's calls are answered here")

    def _of_a_request(self, found: page.RawFrame, shown: str) -> None:
        """Hold an ITEM or END to what is said of the half that the client sends."""
        if self._known.get(found.call_id) != found.opcode or found.call_id not in self._room:
            raise Deviation(f"{shown} has opcode {found.opcode:#06x}; no call whose items follow was begun so")
        if found.call_id in self._cancelled or found.call_id in self._complete:
            raise Deviation(f"{shown} came behind the CANCEL or the END of its call")
        if found.kind == page.END:
            if found.payload:
                raise Deviation(f"{shown}; an END is empty")
            self._complete.add(found.call_id)
            return
        room = self._room[found.call_id]
        if min(room) < 1:
            raise Deviation(f"{shown} came, and of its credit {room.items} items and {room.bytes} bytes are left")
        self._room[found.call_id] = page.CreditBody(room.items - 1, room.bytes - len(found.payload))

    def _of_ours(self, found: page.RawFrame, shown: str) -> None:
        """Hold a frame to what is said of a call that the judge began, which is refused."""
        if found.kind != page.ERROR or found.call_id not in self._begun:
            raise Deviation(f"{shown} came, and no such call was begun here that could be answered so")
        if found.opcode != UNKNOWN_OPCODE:
            raise Deviation(f"{shown} has opcode {found.opcode:#06x}, which is not that of its REQUEST")
        self._begun.remove(found.call_id)

    def request(self, method: Operation[Any, Any]) -> Request:
        """The next frame must be a REQUEST of that method; credit of a stream may come before it, at any time."""
        while (found := self.read()).kind == page.CREDIT:
            pass
        if found.kind != page.REQUEST or found.opcode != method.opcode:
            raise Deviation(f"REQUEST of {method.name} was due, and {page.shown(found)} came, opcode {found.opcode}")
        if found.flags != (int(method.shape.flags)):
            raise Deviation(f"REQUEST of {method.name} has flags {found.flags:#04x}, which is not its shape")
        message = None if found.flags & page.ITEMS_FOLLOW else self._read(method, found.payload)
        return Request(found.call_id, found.opcode, message, page.read_metadata(found.metadata))

    def _read(self, method: Operation[Any, Any], payload: bytes) -> Any:
        try:
            return self._codec.plan(method.request, self.version, LIMITS, request=True).decode(payload)
        except DecodeError as error:
            raise Deviation(f"the request cannot be read: {error}; it is {payload.hex(' ')}") from None

    def given(self, method: Operation[Any, Any], of: Request) -> Any:
        """The next frame must be an ITEM of the client's: its message. Credit of the other half may come before it."""
        while (found := self.read()).kind == page.CREDIT and found.call_id == of.call_id:
            pass
        if (found.kind, found.call_id) != (page.ITEM, of.call_id):
            raise Deviation(f"ITEM of call {of.call_id} was due, and {page.shown(found)} came")
        return self._read(method, found.payload)

    def completed(self, of: Request) -> None:
        """The next frame must be the END of the client's half. Credit of the other half may come before it."""
        while (found := self.read()).kind == page.CREDIT and found.call_id == of.call_id:
            pass
        if (found.kind, found.call_id) != (page.END, of.call_id):
            raise Deviation(f"END of call {of.call_id} was due, and {page.shown(found)} came")

    def room(self, of: Request) -> page.CreditBody:
        """The credit that the client has left in its half."""
        return self._room[of.call_id]

    def written(self, method: Operation[Any, Any], request: Request) -> bytes:
        """The canonical form of a request's payload."""
        return self._codec.plan(method.request, self.version, LIMITS, request=True).encode(request.message)

    # Sending.

    def frame(self, kind: int, payload: bytes = b"", *, to: Request | None = None, **changes: Any) -> bytes:
        """A frame as it must be on this connection, but for what is changed."""
        of_message = kind in page.OF_MESSAGES
        of_call = kind in page.OF_CALLS and to is not None
        fields: dict[str, Any] = {
            "codec": self.trial.codec[0] if of_message else 0,
            "version": self.version if of_message else 0,
            "opcode": to.opcode if to is not None and of_call else 0,
            "call_id": to.call_id if to is not None and of_call else 0,
            **changes,
        }
        if kind in page.TERMINAL:
            self._in_flight.pop(fields["call_id"], None)
        return page.frame(kind, payload, **fields)

    def begin(self, call_id: int, flags: int = 0, payload: bytes = b"") -> None:
        """Begin a call of the judge's own, of a method that no client has."""
        self._begun.add(call_id)
        self.send(self.frame(page.REQUEST, payload, call_id=call_id, opcode=UNKNOWN_OPCODE, flags=flags))

    def refuses(self, call_id: int, reason: str) -> None:
        """The next frame must be the ERROR of a call of the judge's own, which was not processed."""
        error = page.read_error(self.expect(page.ERROR, call_id).payload)
        if (error.reason, error.status, error.retry) != (reason, page.CALL_REASONS[reason], page.NOT_PROCESSED):
            raise Deviation(f"{reason}, not processed, was due, and {error} came")

    def write(self, message_type: type[Message], message: Message) -> bytes:
        """See ``own_calls.Judge``."""
        return self._codec.plan(message_type, self.version, LIMITS, request=True).encode(message)

    def understand(self, message_type: type[Message], payload: bytes) -> Any:
        """See ``own_calls.Judge``."""
        try:
            return self._codec.plan(message_type, self.version, LIMITS, request=False).decode(payload)
        except DecodeError as error:
            raise Deviation(f"the client's answer cannot be read: {error}; it is {payload.hex(' ')}") from None

    def payload(self, message: Message) -> bytes:
        """An answer's payload."""
        return self._codec.plan(type(message), self.version, LIMITS, request=False).encode(message)

    def response(self, to: Request, message: Message | bytes) -> bytes:
        """The frame of a RESPONSE."""
        return self.frame(page.RESPONSE, message if isinstance(message, bytes) else self.payload(message), to=to)

    def send_packed(self, kind: int, to: Request, body: bytes) -> None:
        """Send a RESPONSE or an ITEM whose payload is packed, or says so."""
        self.send(self.frame(kind, body, to=to, flags=page.PACKED))

    def respond(self, to: Request, message: Message | bytes) -> None:
        """Answer a call."""
        self.send(self.response(to, message))

    def credit(self, to: Request, items: int, size: int) -> None:
        """Let the client send more of its half."""
        room = self._room[to.call_id]
        self._room[to.call_id] = page.CreditBody(room.items + items, room.bytes + size)
        self.send(self.frame(page.CREDIT, page.credit_body(items, size), to=to))

    def one_way_credit(self, calls: int) -> None:
        """Let the client begin more one-way calls."""
        self._one_way += calls
        self.send(page.frame(page.CREDIT, page.credit_body(calls, 0)))

    def item(self, to: Request, message: Message) -> None:
        """Send an ITEM; whether there is credit for it is the case's affair."""
        self.send(self.frame(page.ITEM, self.payload(message), to=to))

    def end(self, to: Request) -> None:
        """End a stream."""
        self.send(self.frame(page.END, to=to))

    def error(self, to: Request, status: int, reason: bytes, message: bytes = b"", **more: Any) -> None:
        """Fail a call."""
        self.send(self.frame(page.ERROR, page.error_body(status, reason, message, **more), to=to))

    def final(self, status: int, reason: bytes, message: bytes = b"", **more: Any) -> None:
        """Send a final ERROR, and nothing behind it."""
        self.send(self.frame(page.ERROR, page.error_body(status, reason, message, **more)))
        self.peer.end_output()

    def goaway(self, last_call_id: int) -> None:
        """Say that no more calls are taken."""
        self.send(self.frame(page.GOAWAY, page.goaway_body(last_call_id, page.error_body(14, b"SHUTTING_DOWN"))))

    def gone(self) -> None:
        """From here on a REQUEST has not crossed GOAWAY."""
        self._leaving = True

    # The end.

    def ends(self, reason: str) -> page.ErrorBody:
        """The client must send a final ERROR with ``reason``, and then end; other frames may come before."""
        deadline = time.monotonic() + self.trial.patience
        while True:
            found = self.first()
            if isinstance(found, Ending):
                raise Deviation(f"a final ERROR with {reason} was due, and there was {found.value}")
            if found.kind == page.ERROR:
                break
            if time.monotonic() > deadline:
                raise Deviation(f"a final ERROR with {reason} was due, and {page.shown(found)} came")
        return self.judge_end(found, reason)

    # What the client says of it.

    def said(self) -> dict[str, Any]:
        """The client's answer, whatever it is."""
        answer = self._program.answer(self.trial.slow_patience)
        if answer is None:
            raise Deviation("the client did not say what came of it")
        if "unsupported" in answer:
            raise _explained(answer, "")
        self._answer = answer.get("results", [])
        return answer

    def results(self) -> list[dict[str, Any]]:
        """What came of each step."""
        if self._answer is None:
            answer = self.said()
            if not isinstance(answer.get("results"), list):
                raise Deviation(f"the client said {answer}")
        assert self._answer is not None
        return self._answer

    def result(self, number: int = 0) -> dict[str, Any]:
        """What came of one step."""
        results = self.results()
        if len(results) <= number or not isinstance(results[number], dict):
            raise Deviation(f"of step {number} the client said nothing: {results}")
        return results[number]

    def answered(self, number: int = 0, /, **due: Any) -> None:
        """The step must have been answered with at least these fields."""
        result = self.result(number)
        response = result.get("response")
        if not isinstance(response, dict):
            raise Deviation(f"step {number} was answered, and the client said {result}")
        for name, value in due.items():
            if response.get(name) != value:
                raise Deviation(f"{name} was {value!r} in the answer, and the client said {response.get(name)!r}")

    def failed(self, number: int = 0, /, **due: Any) -> dict[str, Any]:
        """The step must have failed, with these fields of the error."""
        result = self.result(number)
        error = result.get("error")
        if not isinstance(error, dict):
            raise Deviation(f"step {number} failed, and the client said {result}")
        for name, value in due.items():
            if error.get(name) != value:
                raise Deviation(f"{name} of the error was {value!r}, and the client said {error}")
        return error

    def said_beside(self, number: int = 0, /, **due: Any) -> None:
        """A client that tells what stood beside an answer must tell this: ``metadata`` or ``dropped``."""
        result = self.result(number)
        for name, value in due.items():
            if result.get(name, value) != value:
                raise Deviation(f"{name} beside the answer was {value!r}, and the client said {result[name]!r}")

    def streamed(self, items: list[dict[str, Any]], number: int = 0) -> None:
        """The step must have had these items, and the end behind them."""
        result = self.result(number)
        if result.get("items") != items or not result.get("end"):
            raise Deviation(f"the items were {items} and the end, and the client said {result}")

    def cancelled(self, of: Request) -> None:
        """The next frame must be the CANCEL of the call. Credit of it may come before it."""
        while (found := self.read()).kind == page.CREDIT and found.call_id == of.call_id:
            pass
        if (found.kind, found.call_id) != (page.CANCEL, of.call_id):
            raise Deviation(f"CANCEL of call {of.call_id} was due, and {page.shown(found)} came")

    def failed_anyhow(self) -> dict[str, Any]:
        """The error that the first step, or connecting for it, must have ended with."""
        answer = self.said()
        first = (answer.get("results") or [{}])[0]
        error = answer.get("connect_error") or (first.get("error") if isinstance(first, dict) else None)
        if not isinstance(error, dict):
            raise Deviation(f"the first step failed, and the client said {answer}")
        return error

    def refused(self, **due: Any) -> None:
        """The client must say that it could not connect, and why."""
        answer = self.said()
        error = answer.get("connect_error")
        if not isinstance(error, dict):
            raise Deviation(f"the client was not welcomed, and said {answer}")
        for name, value in due.items():
            if error.get(name) != value:
                raise Deviation(f"{name} of the refusal was {value!r}, and the client said {error}")


CLIENT_CASES: Registry[Trial] = Registry("c")
"""Every case that judges a client; ``wireproto.conformance.clients`` fills it."""
