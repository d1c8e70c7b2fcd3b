"""The calls that the judging server begins at a client that answers them, and what a frame of one must be."""

from typing import Any, Protocol

from wireproto.conformance import page
from wireproto.conformance.case import Deviation
from wireproto.schema import Message, Operation

__all__ = ["OwnCalls"]


class Judge(Protocol):
    """The server's end of a connection, as this sees it."""

    def send(self, *pieces: bytes) -> None:
        """Send as it is."""

    def read(self, timeout: float | None = None) -> page.RawFrame:
        """The next frame, held to the rules."""

    def frame(self, kind: int, payload: bytes = b"", **changes: Any) -> bytes:
        """A frame as it must be on this connection."""

    def write(self, message_type: type[Message], message: Message) -> bytes:
        """The payload of what a caller sends."""

    def understand(self, message_type: type[Message], payload: bytes) -> Any:
        """The message of what an answer has."""


class OwnCalls:
    """They are accepted: the case says how many, and of which methods."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._last = 0
        self._methods: dict[int, Operation[Any, Any]] = {}  # in flight
        self._to_come: dict[int, page.CreditBody] = {}  # left of the answer half of each
        self._room: dict[int, page.CreditBody] = {}  # ... and of the request half
        self._cancelled: set[int] = set()
        self.one_way_room = 0
        self.first = page.NOTHING

    # Beginning.

    def greeted(self, hello: page.HelloBody) -> None:
        """What the client's HELLO grants."""
        self.first = hello.first_credit
        self.one_way_room = hello.one_way_credit

    def begin(
        self, method: Operation[Any, Any], message: Message | None = None, *, credit: int = 0, flags: int | None = None
    ) -> int:
        """Send a REQUEST; its id.

        Args:
            message: None where items follow.
            credit: items of the answer half, with as many bytes as one could want.
            flags: None for those of the method's shape.
        """
        self._last = page.next_id(self._last)
        call_id = self._last | page.TOP_BIT
        if flags is None:
            flags = int(method.shape.flags)
        metadata = page.field(page.CREDIT_KEY, page.credit_body(credit, 1 << 20)) if credit else b""
        payload = b"" if message is None else self._judge.write(method.request, message)
        if flags & page.ONE_WAY:
            self.one_way_room -= 1
        else:
            self._methods[call_id] = method
            self._to_come[call_id] = page.CreditBody(credit, 1 << 20)
            self._room[call_id] = self.first
        frame = self._judge.frame(
            page.REQUEST, payload, opcode=method.opcode, call_id=call_id, flags=flags, metadata=metadata
        )
        self._judge.send(frame)
        return call_id

    def give(self, call_id: int, *messages: Message) -> None:
        """Send ITEMs, each when there is credit for it."""
        method = self._methods[call_id]
        for message in messages:
            while min(self._room[call_id]) < 1:
                found = self._judge.read()
                if found.kind != page.CREDIT or found.call_id != call_id:
                    raise Deviation(f"CREDIT of call {call_id:#x} was due, and {page.shown(found)} came")
            payload = self._judge.write(method.request, message)
            left = self._room[call_id]
            self._room[call_id] = page.CreditBody(left.items - 1, left.bytes - len(payload))
            self._judge.send(self._judge.frame(page.ITEM, payload, opcode=method.opcode, call_id=call_id))

    def say(self, kind: int, call_id: int, body: bytes = b"") -> None:
        """Send END, CANCEL or CREDIT of a call."""
        if kind == page.CANCEL:
            self._cancelled.add(call_id)
        elif kind == page.CREDIT:
            more, left = page.read_credit(body), self._to_come[call_id]
            self._to_come[call_id] = page.CreditBody(left.items + more.items, left.bytes + more.bytes)
        self._judge.send(self._judge.frame(kind, body, opcode=self._methods[call_id].opcode, call_id=call_id))

    def wait_for_one_way_room(self) -> None:
        """Read until a one-way call may be sent."""
        while self.one_way_room < 1:
            if (found := self._judge.read()).kind != page.CREDIT:
                raise Deviation(f"CREDIT for one-way calls was due, and {page.shown(found)} came")

    # Receiving.

    def check(self, found: page.RawFrame, shown: str) -> bool:
        """Hold a frame of one of these calls to the rules; False when it is of none."""
        method = self._methods.get(found.call_id)
        if method is None:
            return False
        if found.opcode != method.opcode:
            raise Deviation(f"{shown} has opcode {found.opcode:#06x}; its REQUEST had {method.opcode:#06x}")
        if found.kind == page.CREDIT:
            if not method.items_follow:
                raise Deviation(f"{shown} came, and no items of that call follow")
            more, left = page.read_credit(found.payload), self._room[found.call_id]
            self._room[found.call_id] = page.CreditBody(left.items + more.items, left.bytes + more.bytes)
        elif found.kind == page.ITEM:
            left = self._to_come[found.call_id]
            if not method.items_come_back or min(left) < 1:
                raise Deviation(f"{shown} came, and of its credit {left.items} items and {left.bytes} bytes are left")
            self._to_come[found.call_id] = page.CreditBody(left.items - 1, left.bytes - len(found.payload))
        elif found.kind in page.TERMINAL:
            if found.kind != page.ERROR and method.items_come_back == (found.kind == page.RESPONSE):
                raise Deviation(f"{shown} came, which is not how a call of {method.name} is answered")
            del self._methods[found.call_id]
        else:
            raise Deviation(f"{shown} came, and a client answers here")
        return True

    def next(self, call_id: int) -> page.RawFrame:
        """The next frame of that call; CREDIT is counted, and not returned."""
        while (found := self._judge.read()).kind == page.CREDIT:
            pass
        if found.call_id != call_id:
            raise Deviation(f"a frame of call {call_id:#x} was due, and {page.shown(found)} came")
        return found

    def answer(self, method: Operation[Any, Any], call_id: int) -> Any:
        """The next frame of the call must be its RESPONSE, or an ITEM: the message."""
        found = self.next(call_id)
        due = page.ITEM if method.items_come_back else page.RESPONSE
        if found.kind != due:
            raise Deviation(f"{page.KIND_NAMES[due]} of call {call_id:#x} was due, and {page.shown(found)} came")
        return self._judge.understand(method.response, found.payload)

    def ends(self, call_id: int) -> None:
        """The next frame of the call must be its END."""
        if (found := self.next(call_id)).kind != page.END:
            raise Deviation(f"END of call {call_id:#x} was due, and {page.shown(found)} came")

    def fails(self, call_id: int, reason: str, retry: int | None = None) -> page.ErrorBody:
        """The next frame of the call must be its ERROR with that reason."""
        found = self.next(call_id)
        if found.kind != page.ERROR:
            raise Deviation(f"ERROR of call {call_id:#x} was due, and {page.shown(found)} came")
        error = page.read_error(found.payload)
        if error.reason != reason or (retry is not None and error.retry != retry):
            raise Deviation(f"{reason}, retry {retry}, was due, and {error} came")
        return error
