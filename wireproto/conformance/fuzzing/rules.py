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
    """A REQUEST that was sent, and is in order as a frame."""

    call_id: int
    opcode: int
    metadata: bytes
    payload: bytes


@dataclass
class Expected:
    """What may come of some bytes.

    Attributes:
        reasons: of the final ERROR that may end the connection.
        lives: whether it may go on without one.
        silent: it was ended by the client's own final ERROR: nothing need come.
        http: an HTTP answer may come instead of preamble and ERROR.
        welcome: a WELCOME may come.
        calls: by call id, each to be answered unless the connection ends.
        credit: items that may come of each of them.
        pings: what PONGs must bring back, in order.
        cancelled: calls that the client no longer wants.
    """

    reasons: set[str] = field(default_factory=set)
    lives: bool = True
    silent: bool = False
    http: bool = False
    welcome: bool = False
    calls: dict[int, SentRequest] = field(default_factory=dict)
    credit: dict[int, int] = field(default_factory=dict)
    pings: list[bytes] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)

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
    # Whether what follows HELLO was there before the answer is a matter of chance. If it was not, it was read as calls.
    if more:
        expected.ends("EARLY_FRAME", *page.SERVER_REASONS)
    return expected


def _header_problem(header: page.RawHeader, *, expected: int, codec: int, version: int) -> tuple[str, ...]:
    """The first check of section 2 that a header fails, of those that want no state but ``expected``; () for none.

    Args:
        expected: the one kind that may come, or 0 for those of an open connection.
        codec: the connection's. The same for ``version``.
    """
    kind = header.kind
    if header.metadata_length > header.length - page.AFTER_LENGTH:
        return ("METADATA_OVERRUN",)
    if not page.HELLO <= kind <= page.GOAWAY:
        if kind < 128:
            return ("UNKNOWN_KIND",)
        return ("UNKNOWN_KIND", "UNEXPECTED_KIND") if expected else ()
    if expected:
        may_come = kind == expected
    else:
        may_come = kind in (page.REQUEST, page.CANCEL, page.CREDIT, page.PING, page.PONG) or (
            kind == page.ERROR and not header.call_id
        )
    if not may_come:
        return ("UNEXPECTED_KIND",)
    if header.flags:
        return ("RESERVED_FLAGS",)
    if header.codec != (codec if kind == page.REQUEST else 0):
        return ("WRONG_CODEC",)
    if header.version != (version if kind == page.REQUEST else 0):
        return ("WRONG_VERSION",)
    if (kind in (page.REQUEST, page.CANCEL, page.CREDIT)) != bool(header.call_id):
        return ("CALL_ID",)
    if not header.call_id and header.opcode:
        return ("WRONG_OPCODE",)
    if header.metadata_length and kind != page.REQUEST:
        return ("UNEXPECTED_METADATA",)
    return ()


def expect_frames(data: bytes, *, max_frame: int, codec: int, version: int) -> Expected:
    """Of what a client sends on an open connection, and then ends its output.

    Args:
        data: everything it sends behind HELLO.
        max_frame: what WELCOME said; the same for ``codec`` and ``version``.
    """
    expected = Expected()
    last_id = 0
    opcodes: dict[int, set[int]] = {}
    counts = dict.fromkeys((page.REQUEST, page.CANCEL, page.PING), 0)
    for frame in _pieces(data, max_frame):
        if isinstance(frame, str):
            return expected.ends(frame)
        problem = _header_problem(frame.header, expected=0, codec=codec, version=version)
        if not frame.whole:
            return expected.ends("TRUNCATED_FRAME", *problem)
        if problem:
            return expected.ends(*problem)
        kind, call_id, opcode = frame.header.kind, frame.header.call_id, frame.header.opcode
        if kind in counts:
            counts[kind] += 1
        if kind == page.REQUEST:
            if not page.is_ahead(call_id, last_id):
                return expected.ends("CALL_ID")
            if call_id in expected.calls:
                expected.reasons.add("CALL_ID")  # all the way round, and it may still be in flight
            last_id = call_id
            expected.calls[call_id] = SentRequest(call_id, opcode, frame.metadata, frame.payload)
            expected.credit[call_id] = _credit(frame.metadata)
            opcodes.setdefault(call_id, set()).add(opcode)
        elif kind in (page.PING, page.PONG):
            if len(frame.payload) != 8:
                return expected.ends("BAD_BODY")
            if kind == page.PING:
                expected.pings.append(frame.payload)
        elif kind == page.ERROR:
            if not _is_error_body(frame.payload):
                return expected.ends("BAD_BODY")
            expected.silent = True
            return expected
        elif kind in (page.CANCEL, page.CREDIT):
            amount = int.from_bytes(frame.payload, "big")
            if frame.payload if kind == page.CANCEL else len(frame.payload) != 4 or not amount:
                return expected.ends("BAD_BODY")
            # Whether the call was still in flight when it came is a matter of chance.
            if opcodes.get(call_id, {opcode}) != {opcode}:
                expected.reasons.add("WRONG_OPCODE")
            if kind == page.CANCEL:
                expected.cancelled.add(call_id)
            elif call_id in expected.calls:
                expected.credit[call_id] += amount
                if expected.credit[call_id] > page.U32_MOST:
                    expected.reasons.add("CREDIT_OVERFLOW")
    for kind, reason in (
        (page.REQUEST, "TOO_MANY_ERRORS"),
        (page.CANCEL, "TOO_MANY_CANCELS"),
        (page.PING, "TOO_MANY_PINGS"),
    ):
        if counts[kind] > _MANY:
            expected.reasons.add(reason)
    return expected


def _credit(metadata: bytes) -> int:
    """The credit that a block may grant; whether the block is in order is another matter."""
    credit = at = 0
    while len(metadata) - at >= 3:
        key, length = struct.unpack_from(">BH", metadata, at)
        value = metadata[at + 3 : at + 3 + length]
        if key & 0x7F == page.CREDIT_KEY and len(value) == 4:
            credit += int.from_bytes(value, "big")
        at += 3 + length
    return credit


def _is_error_body(body: bytes) -> bool:
    """Section 6: whether a reader must take it."""
    try:
        page.read_error(body, longest=len(body))
    except Deviation:
        return False
    return True
