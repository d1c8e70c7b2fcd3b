"""The client that judges the calls of a server: a ``Caller`` that accepts them, and holds their frames to the rules.

The ids of those calls have the top bit, so that no frame is of both kinds.
"""

from typing import Any, NamedTuple

from wireproto.conformance import page
from wireproto.conformance.asking import ASK, ASKED, AskedCall, AskRequest, AskResponse
from wireproto.conformance.caller import Bench, Caller
from wireproto.conformance.case import Deviation, NotJudged
from wireproto.conformance.raw import Ending
from wireproto.conformance.side import LIMITS, Side
from wireproto.errors import DecodeError
from wireproto.schema import Message, Operation

__all__ = ["Answerer", "Begun", "answering", "refuse_without_ask"]

FIRST = page.CreditBody(16, 65_536)
"""The credit with which each half begins that the server sends, unless a case wants another one."""

_METHODS = {method.opcode: method for method in ASKED if method.by == "server"}


class Begun(NamedTuple):
    """A REQUEST of the server's.

    Attributes:
        message: None where items follow.
        deadline_ms: what it says of its time; None for nothing.
    """

    call_id: int
    method: Operation[Any, Any]
    message: Any
    deadline_ms: int | None


def answering(bench: Bench, *, max_calls: int = 8, first: page.CreditBody = FIRST, one_way: int = 8) -> "Answerer":
    """A connection of a client that accepts so many calls, with these credits; as a context it is closed."""
    peer = bench.raw()
    try:
        caller = Answerer(peer, bench, max_calls, first, one_way)
        caller.greet(bench.hello(max_calls=max_calls, fields=page.credit_fields(first, one_way)))
    except BaseException:
        peer.close()
        raise
    return caller


class Answerer(Caller):
    """One connection of the judge, on which the server may call.

    Args:
        max_calls, first, one_way: what HELLO said.
    """

    def __init__(self, peer: Any, bench: Bench, max_calls: int, first: page.CreditBody, one_way: int) -> None:
        super().__init__(peer, bench)
        self._max_calls = max_calls
        self._first = first
        self._one_way_left = one_way
        self._last_begun = 0
        self._begun: dict[int, Operation[Any, Any]] = {}  # in flight
        self._known: dict[int, Operation[Any, Any]] = {}
        self._to_come: dict[int, page.CreditBody] = {}  # left of each half that the server sends
        self._to_send: dict[int, page.CreditBody] = {}  # ... and of each that is sent here
        self._closed: set[int] = set()  # calls whose request half is complete, or that were cancelled
        self._cancelled: set[int] = set()
        self._gone = False

    def __exit__(self, *exception: object) -> None:
        if self._begun and not self._opcodes:  # as there
            self.peer.reset()
        super().__exit__(*exception)

    # Receiving.

    def check(self, found: page.RawFrame) -> None:
        """See ``Side``."""
        if self.welcome is not None and (found.kind == page.REQUEST or found.call_id & page.TOP_BIT):
            self._of_theirs(found, page.shown(found))
        else:
            super().check(found)

    def _of_theirs(self, found: page.RawFrame, shown: str) -> None:
        of_message = found.kind in page.OF_MESSAGES
        wanted = (self.bench.codec[0], self.bench.version) if of_message else (0, 0)
        if (found.codec, found.version) != wanted:
            raise Deviation(f"{shown} has codec {found.codec} and version {found.version}; they must be {wanted}")
        if found.kind == page.REQUEST:
            self._request(found, shown)
            return
        method = self._known.get(found.call_id)
        if method is None or method.opcode != found.opcode:
            raise Deviation(f"{shown} has opcode {found.opcode:#06x}, and no such call was begun")
        if found.flags or found.metadata:
            raise Deviation(f"{shown} has flags {found.flags:#04x} and {len(found.metadata)} bytes of metadata")
        if found.call_id in self._cancelled:
            raise Deviation(f"{shown} came behind the CANCEL of its call")
        if found.kind == page.CANCEL:
            self._cancelled.add(found.call_id)
        elif found.kind == page.CREDIT:
            if not method.items_come_back:
                raise Deviation(f"{shown} came, and the answer of that call is one message")
            self._to_send[found.call_id] = _sum(self._to_send[found.call_id], page.read_credit(found.payload))
        elif found.kind in (page.ITEM, page.END):
            if not method.items_follow or found.call_id in self._closed:
                raise Deviation(f"{shown} came, and nothing of that half is to come")
            if found.kind == page.END:
                self._closed.add(found.call_id)
                return
            left = self._to_come[found.call_id]
            if min(left) < 1:
                raise Deviation(f"{shown} came, and of its credit {left.items} items and {left.bytes} bytes are left")
            self._to_come[found.call_id] = page.CreditBody(left.items - 1, left.bytes - len(found.payload))
        else:
            raise Deviation(f"{shown} came, and the server's calls are answered here")

    def _request(self, found: page.RawFrame, shown: str) -> None:
        number = found.call_id & ~page.TOP_BIT
        if self._gone:
            raise Deviation(f"{shown} came behind GOAWAY")
        if not found.call_id & page.TOP_BIT or not page.is_ahead(number, self._last_begun):
            raise Deviation(f"{shown} has the id {found.call_id:#x}; it must have the top bit, and lie ahead")
        method = _METHODS.get(found.opcode)
        if method is None:
            raise Deviation(f"{shown} has opcode {found.opcode:#06x}, which is no method that the server calls")
        if found.flags != int(method.shape.flags):
            raise Deviation(f"REQUEST of {method.name} has flags {found.flags:#04x}, which is not its shape")
        if found.flags & page.ITEMS_FOLLOW and found.payload:
            raise Deviation(f"{shown} came, and its items follow")
        self._last_begun = number
        self._known[found.call_id] = method
        if found.flags & page.ONE_WAY:
            self._one_way_left -= 1
            if self._one_way_left < 0:
                raise Deviation(f"{shown} came, and no credit for one-way calls is left")
            return
        self._begun[found.call_id] = method
        if len(self._begun) > self._max_calls:
            raise Deviation(f"{len(self._begun)} calls of the server's are in flight; HELLO accepts {self._max_calls}")
        granted = page.read_metadata(found.metadata).get(page.CREDIT_KEY, [bytes(8)])[0]
        self._to_send[found.call_id] = page.NOTHING if granted == bytes(8) else page.read_credit(granted)
        self._to_come[found.call_id] = self._first

    def begun(self, method: Operation[Any, Any], timeout: float | None = None) -> Begun:
        """The next frame must be a REQUEST of that method; a server that begins none is not judged.

        Raises:
            NotJudged: it says that it does not implement Ask.
        """
        found = self.read(timeout)
        refuse_without_ask(found)
        if found.kind != page.REQUEST or found.opcode != method.opcode:
            raise Deviation(f"REQUEST of {method.name} was due, and {page.shown(found)} came")
        message = None if method.items_follow else self._read(method, found.payload)
        times = page.read_metadata(found.metadata).get(page.DEADLINE_KEY)
        return Begun(found.call_id, method, message, None if times is None else int.from_bytes(times[0], "big"))

    def given(self, of: Begun) -> Any:
        """The next frame must be an ITEM of the server's call: its message; None if it is the END."""
        found = self.read()
        if found.call_id != of.call_id or found.kind not in (page.ITEM, page.END):
            raise Deviation(f"ITEM of call {of.call_id:#x} was due, and {page.shown(found)} came")
        return None if found.kind == page.END else self._read(of.method, found.payload)

    def cancelled(self, of: Begun, timeout: float | None = None) -> None:
        """The next frame must be the CANCEL of the server's call."""
        self.expect(page.CANCEL, of.call_id, timeout)

    def _read(self, method: Operation[Any, Any], payload: bytes) -> Any:
        try:
            return self._codec.plan(method.request, self.bench.version, LIMITS, request=True).decode(payload)
        except DecodeError as error:
            raise Deviation(f"the request of {method.name} cannot be read: {error}") from None

    # Answering.

    def ask(self, what: AskedCall, count: int = 1, milliseconds: int = 20_000) -> int:
        """Have the server call; the id of the Ask."""
        return self.request(ASK, AskRequest(what=what, count=count, milliseconds=milliseconds))

    def outcome(self, asked: int, timeout: float | None = None) -> AskResponse:
        """The next frame must be the answer to an Ask."""
        found: AskResponse = self.response(ASK, asked, timeout)
        return found

    def answer(self, of: Begun, message: Message) -> None:
        """Send the RESPONSE of a call of the server's."""
        self._over(of)
        self.send(self._frame(page.RESPONSE, of, message))

    def put_back(self, of: Begun, *messages: Message) -> None:
        """Send ITEMs of the answer half, each when there is credit for it."""
        for message in messages:
            while min(self._to_send[of.call_id]) < 1:
                found = Side.first(self)  # which shows CREDIT, too
                if isinstance(found, Ending) or found.kind != page.CREDIT:
                    came = found.value if isinstance(found, Ending) else page.shown(found)
                    raise Deviation(f"CREDIT of call {of.call_id:#x} was due, and {came} came")
            data = self._frame(page.ITEM, of, message)
            left = self._to_send[of.call_id]
            self._to_send[of.call_id] = page.CreditBody(left.items - 1, left.bytes - (len(data) - 16))
            self.send(data)

    def end(self, of: Begun) -> None:
        """Send the END of the answer half."""
        self._over(of)
        self.send(self.frame(page.END, opcode=of.method.opcode, call_id=of.call_id))

    def refuse(self, of: Begun, body: bytes) -> None:
        """Send the ERROR of a call of the server's."""
        self._over(of)
        self.send(self.frame(page.ERROR, body, opcode=of.method.opcode, call_id=of.call_id))

    def let_send(self, of: Begun, items: int, size: int) -> None:
        """Send CREDIT for the request half of a call of the server's."""
        self._to_come[of.call_id] = _sum(self._to_come[of.call_id], page.CreditBody(items, size))
        body = page.credit_body(items, size)
        self.send(self.frame(page.CREDIT, body, opcode=of.method.opcode, call_id=of.call_id))

    def go_away(self) -> None:
        """Say that no more calls are taken; nothing of those that came is forgotten."""
        last = self._last_begun | page.TOP_BIT if self._last_begun else 0
        self._gone = True
        self.send(page.frame(page.GOAWAY, page.goaway_body(last, page.error_body(14, b"SHUTTING_DOWN", retry=1))))

    def _over(self, of: Begun) -> None:
        del self._begun[of.call_id]

    def _frame(self, kind: int, of: Begun, message: Message) -> bytes:
        plan = self._codec.plan(of.method.response, self.bench.version, LIMITS, request=False)
        return self.frame(kind, plan.encode(message), opcode=of.method.opcode, call_id=of.call_id)


def refuse_without_ask(found: page.RawFrame) -> None:
    """Look whether Ask was refused because it is not there.

    Raises:
        NotJudged: it was.
    """
    if found.kind != page.ERROR or not found.call_id or found.call_id & page.TOP_BIT:
        return
    if page.read_error(found.payload).reason in ("UNKNOWN_OPCODE", "NO_HANDLER"):
        raise NotJudged("the server does not implement Ask")


def _sum(one: page.CreditBody, other: page.CreditBody) -> page.CreditBody:
    return page.CreditBody(one.items + other.items, one.bytes + other.bytes)
