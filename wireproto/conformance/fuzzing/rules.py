"""What a server must do with bytes, by the judges' reading of the page, ``page.py``, sharing no code with the server.

`expect_opening` is about the bytes a client begins with, `expect_frames` about what it sends once the connection is
open. Both walk the bytes frame by frame through the page's table of checks and say with which reasons the connection
may end, whether it may live, and which calls it began.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from wireproto.conformance import page
from wireproto.conformance.case import Deviation

__all__ = ["Expected", "SentRequest", "expect_frames", "expect_opening"]

# With so many of them on one connection a server may have had enough; what it allows is its own affair.
_MANY: Final = 15


class SentRequest(NamedTuple):
    """A REQUEST that was sent, and is in order as a frame.

    Attributes:
        payload: what it stands for, if it is packed; None if it stands for nothing that can be read.
        flags: those of the shape.
    """

    call_id: int
    opcode: int
    metadata: bytes
    payload: bytes | None
    flags: int


@dataclass
class Expected:
    """What may come of some bytes.

    Attributes:
        reasons: of the final ERROR that may end the connection.
        lives: whether it may go on without one.
        silent: it was ended by the client's own final ERROR: nothing need come.
        http: an HTTP answer may come instead of preamble and ERROR.
        welcome: a WELCOME may come.
        calls: by call id, each to be answered unless the connection ends. One-way calls are none of them.
        credit: items, and bytes of them, that may come of each of them.
        pings: what PONGs must bring back, in order.
    """

    reasons: set[str] = field(default_factory=set)
    lives: bool = True
    silent: bool = False
    http: bool = False
    welcome: bool = False
    calls: dict[int, SentRequest] = field(default_factory=dict)
    credit: dict[int, page.CreditBody] = field(default_factory=dict)
    pings: list[bytes] = field(default_factory=list)

    def ends(self, *reasons: str) -> "Expected":
        """From here on it must end, with one of these or with what was possible before."""
        self.reasons.update(reasons)
        self.lives = False
        return self


class _Piece(NamedTuple):
    """A frame in what was sent, or as much of it as there is."""

    header: page.RawHeader
    metadata: bytes
    payload: bytes
    whole: bool


def _pieces(data: bytes, max_frame: int) -> Iterator[_Piece | str]:
    """The frames in ``data``; a reason at the end when what is left is none."""
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            yield "TRUNCATED_FRAME"
            return
        length = int.from_bytes(data[at : at + 4], "big")
        if length > max_frame:
            yield "FRAME_TOO_LARGE"
            return
        if length < page.AFTER_LENGTH:
            yield "FRAME_TOO_SHORT"
            return
        if len(data) - at < page.HEADER.size:
            yield "TRUNCATED_FRAME"
            return
        header = page.read_header(data, at)
        end = at + 4 + length
        body = at + page.HEADER.size
        split = body + header.metadata_length
        yield _Piece(header, data[body:split], data[split:end], whole=end <= len(data))
        at = end


def expect_opening(data: bytes) -> Expected:
    """Of what a client sends before it has read anything, and then ends its output."""
    expected = Expected()
    if not data:
        return expected
    if not data.startswith(page.PREAMBLE):
        if page.PREAMBLE.startswith(data):
            return expected.ends("TRUNCATED_FRAME")
        if data.startswith(page.PREAMBLE[:3]):
            return expected.ends("UNSUPPORTED_MAJOR")
        expected.http = True
        expected.ends("FOREIGN_PROTOCOL")
        if len(data) <= 16:
            expected.ends("TRUNCATED_FRAME")  # too little to tell who it is
        return expected
    frames = list(_pieces(data[len(page.PREAMBLE) :], page.HELLO_MAX_FRAME))
    if not frames:
        return expected
    first, *more = frames
    if isinstance(first, str):
        return expected.ends(first)
    problem = _header_problem(first.header, expected=page.HELLO, codec=0, version=0)
    if not first.whole:
        # What a header says may be refused before its frame is whole.
        return expected.ends("TRUNCATED_FRAME", *problem)
    if problem:
        return expected.ends(*problem)
    expected.welcome = True
    expected.reasons.update(("BAD_BODY", *page.HANDSHAKE_REASONS))
    behind = len(data) - len(page.PREAMBLE) - page.HEADER.size - len(first.metadata) - len(first.payload)
    announced = _announced(first)
    if announced and announced == behind:
        # They may be calls, or no REQUESTs, or are skipped.
        expected.reasons.update(("EARLY_FRAME", *page.SERVER_REASONS))
    elif announced > behind > 0:
        expected.ends("TRUNCATED_FRAME")
    elif more:
        # Whether what follows was there before the answer is a matter of chance. If it was not, it was read as calls.
        expected.ends("EARLY_FRAME", *page.SERVER_REASONS)
    return expected


def _announced(hello: _Piece) -> int:
    """How many bytes of early requests follow; 0 if HELLO says nothing of them, or nothing that can be read."""
    try:
        return page.read_hello(hello.payload).early
    except Deviation:
        return 0


def _header_problem(
    header: page.RawHeader, *, expected: int, codec: int, version: int, gone: bool = False, packing: int = 0
) -> tuple[str, ...]:
    """The first check of section 2 that a header fails, of those that want no state but these; () for none.

    Args:
        expected: the one kind that may come, or 0 for those of an open connection.
        codec: the connection's. The same for ``version``.
        gone: GOAWAY has come.
        packing: the algorithm that was agreed on; 0 for none.
    """
    kind = header.kind
    if header.metadata_length > header.length - page.AFTER_LENGTH:
        return ("METADATA_OVERRUN",)
    if not page.HELLO <= kind <= page.GOAWAY:
        if kind < 128:
            return ("UNKNOWN_KIND",)
        return ("UNKNOWN_KIND", "UNEXPECTED_KIND") if expected else ()
    may_come = kind == expected if expected else kind in page.FROM_EITHER
    if not may_come or (gone and kind == page.GOAWAY):
        return ("UNEXPECTED_KIND",)
    of_message = kind in page.OF_MESSAGES
    shape = header.flags & ~page.PACKED if packing and of_message else header.flags
    if shape not in (page.FLAGS_OF_REQUEST if kind == page.REQUEST else (0,)):
        return ("RESERVED_FLAGS",)
    if header.codec != codec * of_message:
        return ("WRONG_CODEC",)
    if header.version != version * of_message:
        return ("WRONG_VERSION",)
    of_call = kind in page.OF_CALLS
    if of_call != bool(header.call_id) and (header.call_id or kind not in (page.ERROR, page.CREDIT)):
        return ("CALL_ID",)
    if not header.call_id and header.opcode:
        return ("WRONG_OPCODE",)
    # A server reads what a client sends: of the answers of a client those to the server's own calls may have them.
    if header.metadata_length and kind != page.REQUEST and not (kind in page.ANSWERS and header.call_id & page.TOP_BIT):
        return ("UNEXPECTED_METADATA",)
    return ()


def _packed_problems(piece: _Piece, max_frame: int) -> list[str]:
    """The reasons for which a frame whose payload is packed may end the connection, unread; none for one in order."""
    if not piece.header.flags & page.PACKED:
        return []
    length = int.from_bytes(piece.payload[:4], "big")
    found = [] if len(piece.payload) > 4 and length else ["BAD_BODY"]
    if page.AFTER_LENGTH + len(piece.metadata) + length > max_frame:
        found.append("FRAME_TOO_LARGE")
    return found


def _body_problem(kind: int, call_id: int, payload: bytes) -> bool:
    """Whether a body breaks the layout that its kind has in section 6."""
    try:
        if kind in (page.PING, page.PONG):
            return len(payload) != 8
        if kind in (page.END, page.CANCEL):
            return bool(payload)
        if kind == page.CREDIT:
            page.read_credit(payload, call_id)
        elif kind == page.GOAWAY:
            page.read_error(payload[4:], sent=False)
        elif kind == page.ERROR:
            page.read_error(payload, sent=False)
    except Deviation:
        return True
    return False


def expect_frames(
    data: bytes,
    *,
    max_frame: int,
    codec: int,
    version: int,
    first_credit: page.CreditBody = page.NOTHING,
    one_way_credit: int = 0,
    packing: int = 0,
) -> Expected:
    """Of what a client that takes no calls of the server's sends on an open connection, and then ends its output.

    Args:
        data: everything it sends behind HELLO.
        max_frame: what WELCOME said; the same for all others.
    """
    sent = _Sent(first_credit, one_way_credit)
    expected = sent.expected
    for frame in _pieces(data, max_frame):
        if isinstance(frame, str):
            return expected.ends(frame)
        header = frame.header
        problem = _header_problem(header, expected=0, codec=codec, version=version, gone=sent.gone, packing=packing)
        if not frame.whole:
            return expected.ends("TRUNCATED_FRAME", *problem)
        if problem:
            return expected.ends(*problem)
        if problems := _packed_problems(frame, max_frame):
            return expected.ends(*problems, "BAD_BODY")  # which it is as well where items follow
        if _body_problem(header.kind, header.call_id, frame.payload):
            return expected.ends("BAD_BODY")
        if header.kind == page.ERROR and not header.call_id:
            expected.silent = True
            return expected
        sent.take(frame)
        if not expected.lives:
            return expected
    sent.tire()
    return expected


class _Sent:
    """What was sent of calls so far. Of each frame it says what may come of it, the call being in flight or over: the
    server may have answered at any time.
    """

    def __init__(self, first_credit: page.CreditBody, one_way_credit: int) -> None:
        self.expected = Expected()
        self.gone = False
        self._first = first_credit
        self._one_way = one_way_credit
        self._one_way_of_server = 0
        self._last_id = 0
        self._one_way_sent = 0
        self._ended: set[int] = set()  # calls whose END was sent
        self._cancelled: set[int] = set()
        self._allowance = 0  # items that may have crossed the end of a call, at most
        self._strays = 0
        self._crossed = self._surely_crossed = 0
        self._requests = 0
        self._counts = dict.fromkeys((page.REQUEST, page.CANCEL, page.PING), 0)
        self._chatter = page.MOST_CHATTER  # how much more of it a server surely reads over

    def take(self, frame: _Piece) -> None:
        """The next frame, in order by itself."""
        kind, call_id = frame.header.kind, frame.header.call_id
        if kind in self._counts:
            self._counts[kind] += 1
        if kind == page.PONG or kind not in page.KIND_NAMES:
            # One that the server has asked for is none; and it may find it out only when all of this is over.
            self._chatter -= 1
            if self._chatter < 0:
                self.expected.reasons.add("TOO_MANY_FRAMES")
        else:
            self._chatter = min(page.MOST_CHATTER, self._chatter + page.CHATTER_PER_FRAME)
        if kind == page.REQUEST:
            self._request(frame)
        elif kind == page.PING:
            self.expected.pings.append(frame.payload)
        elif kind == page.GOAWAY:
            self.gone = True
        elif kind in page.OF_CALLS and not call_id:
            self._one_way_of_server += page.read_credit(frame.payload, 0).items
            if self._one_way_of_server > page.U32_MOST:
                self.expected.ends("CREDIT_OVERFLOW")
        elif kind in page.OF_CALLS and call_id & page.TOP_BIT:
            self._strays += 1
            if self._strays > page.MOST_STRAYS:
                self.expected.ends("STRAY_ANSWERS")
        elif kind in page.OF_CALLS:
            self._of_a_call(frame)

    def _request(self, frame: _Piece) -> None:
        expected, header = self.expected, frame.header
        call_id, flags = header.call_id, header.flags & ~page.PACKED
        if flags & page.ITEMS_FOLLOW and frame.payload:
            expected.ends("BAD_BODY")
            return
        if not page.is_ahead(call_id, self._last_id):
            expected.ends("CALL_ID")
            return
        if call_id in expected.calls:
            expected.reasons.add("CALL_ID")  # all the way round, and it may still be in flight
        self._last_id = call_id
        self._requests += 1
        if flags & page.ONE_WAY:
            self._one_way_sent += 1
            if self._one_way_sent > self._one_way:
                # Credit may have returned for those before.
                expected.reasons.add("CREDIT_EXCEEDED")
                expected.lives = self._one_way > 0
            return
        if flags & page.ITEMS_FOLLOW:
            self._allowance += self._first.items
        expected.calls[call_id] = SentRequest(call_id, header.opcode, frame.metadata, _unpacked(frame), flags)
        expected.credit[call_id] = _credit(frame.metadata)
        self._ended.discard(call_id)
        self._cancelled.discard(call_id)

    def _of_a_call(self, frame: _Piece) -> None:
        """A frame of a call of the client's that is in flight, is over, or never was."""
        expected = self.expected
        kind, call_id = frame.header.kind, frame.header.call_id
        call = expected.calls.get(call_id)
        problem = "" if call is None else self._problem_in_flight(call, frame)
        if problem:
            expected.reasons.add(problem)
        if kind in (page.RESPONSE, page.ERROR):
            expected.ends("WRONG_HALF")  # whether the call is in flight or not
        elif kind == page.ITEM:
            expected.reasons.add("CREDIT_EXCEEDED")
            # Without an allowance it ends also a call that is over.
            expected.lives = self._allowance > 0
        else:
            self._crossed += 1
            self._surely_crossed += call is None
            if self._surely_crossed > page.MOST_CROSSED + page.REFILL * self._requests:
                expected.ends("TOO_MANY_FRAMES")
            elif self._crossed > page.MOST_CROSSED:
                expected.reasons.add("TOO_MANY_FRAMES")
        if kind == page.END:
            self._ended.add(call_id)
        elif kind == page.CANCEL:
            self._cancelled.add(call_id)

    def _problem_in_flight(self, call: SentRequest, frame: _Piece) -> str:
        """The reason for which a frame ends the connection if its call is still in flight; empty for none."""
        kind, call_id = frame.header.kind, call.call_id
        if frame.header.opcode != call.opcode:
            return "WRONG_OPCODE"
        if kind in (page.RESPONSE, page.ERROR) or call_id in self._cancelled:
            return "WRONG_HALF"
        if kind in (page.ITEM, page.END) and (not call.flags & page.ITEMS_FOLLOW or call_id in self._ended):
            return "WRONG_HALF"
        if kind == page.CREDIT:
            if not call.flags & page.ITEMS_COME_BACK:
                return "WRONG_HALF"
            more, before = page.read_credit(frame.payload), self.expected.credit[call_id]
            credit = page.CreditBody(before.items + more.items, before.bytes + more.bytes)
            self.expected.credit[call_id] = credit
            if max(credit) > page.U32_MOST:
                return "CREDIT_OVERFLOW"
        return ""

    def tire(self) -> None:
        """With so many of a kind a server may have had enough."""
        for kind, reason in (
            (page.REQUEST, "TOO_MANY_ERRORS"),
            (page.CANCEL, "TOO_MANY_CANCELS"),
            (page.PING, "TOO_MANY_PINGS"),
        ):
            if self._counts[kind] > _MANY:
                self.expected.reasons.add(reason)


def _unpacked(frame: _Piece) -> bytes | None:
    """What the payload of a REQUEST stands for; None where it is packed wrongly."""
    if not frame.header.flags & page.PACKED:
        return frame.payload
    try:
        return page.read_packed(frame.payload)
    except Deviation:
        return None


def _credit(metadata: bytes) -> page.CreditBody:
    """The credit that a block may grant; whether the block is in order is another matter."""
    items = size = at = 0
    while len(metadata) - at >= 3:
        key, length = struct.unpack_from(">BH", metadata, at)
        value = metadata[at + 3 : at + 3 + length]
        if key & 0x7F == page.CREDIT_KEY and len(value) == 8:
            items += int.from_bytes(value[:4], "big")
            size += int.from_bytes(value[4:], "big")
        at += 3 + length
    return page.CreditBody(items, size)
