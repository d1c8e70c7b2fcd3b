"""What a server must do with bytes, read from ``docs/protocol.md`` a second time and sharing no code with the server.

`expect_opening` is about the bytes a client begins with, `expect_frames` about what it sends once the connection is
open. Both walk the bytes frame by frame through the page's table of checks and say with which reasons the connection
may end, whether it may live, and which calls it began.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from wireproto.status import Status

__all__ = [
    "CALL_REASONS",
    "CONNECTION_REASONS",
    "HANDSHAKE_REASONS",
    "HEADER",
    "PREAMBLE",
    "Call",
    "Expected",
    "expect_frames",
    "expect_opening",
    "is_error_body",
]

PREAMBLE: Final = b"\xf5WP\x01"
HEADER: Final = struct.Struct(">IBBBBHHI")
_AFTER_LENGTH: Final = 12
_HELLO_LIMIT: Final = 4096
_U32: Final = 0xFFFF_FFFF

(HELLO, WELCOME, REQUEST, RESPONSE, ITEM, END, ERROR, CANCEL, CREDIT, PING, PONG, GOAWAY) = range(1, 13)

# Section 9. Reasons of final ERRORs that a server may send, but for those of a handshake.
CONNECTION_REASONS: Final[dict[str, Status]] = {
    **dict.fromkeys(
        (
            "BAD_BODY", "CALL_ID", "CREDIT_OVERFLOW", "EARLY_FRAME", "FOREIGN_PROTOCOL", "FRAME_TOO_LARGE",
            "FRAME_TOO_SHORT", "METADATA_OVERRUN", "RESERVED_FLAGS", "TRUNCATED_FRAME", "UNEXPECTED_KIND",
            "UNEXPECTED_METADATA", "UNKNOWN_KIND", "WRONG_CODEC", "WRONG_OPCODE", "WRONG_VERSION",
        ),
        Status.INVALID_ARGUMENT,
    ),
    "FRAME_TIMEOUT": Status.DEADLINE_EXCEEDED,
    "HELLO_TIMEOUT": Status.DEADLINE_EXCEEDED,
    "TOO_MANY_CANCELS": Status.RESOURCE_EXHAUSTED,
    "TOO_MANY_ERRORS": Status.RESOURCE_EXHAUSTED,
    "TOO_MANY_PINGS": Status.RESOURCE_EXHAUSTED,
    "UNSUPPORTED_MAJOR": Status.FAILED_PRECONDITION,
}  # fmt: skip

# Section 3.
HANDSHAKE_REASONS: Final[dict[str, Status]] = {
    "UNKNOWN_SERVICE": Status.NOT_FOUND,
    "UNSUPPORTED_VERSION": Status.FAILED_PRECONDITION,
    "UNSUPPORTED_CODEC": Status.FAILED_PRECONDITION,
    "CONTRACT_MISMATCH": Status.FAILED_PRECONDITION,
}

# Section 9, reasons of calls.
CALL_REASONS: Final[dict[str, Status]] = {
    "ALREADY_SIGNED_IN": Status.FAILED_PRECONDITION,
    "BAD_METADATA": Status.INVALID_ARGUMENT,
    "BAD_PAYLOAD": Status.INVALID_ARGUMENT,
    "CANCELLED": Status.CANCELLED,
    "DEADLINE": Status.DEADLINE_EXCEEDED,
    "INTERNAL": Status.INTERNAL,
    "METADATA_TOO_LARGE": Status.RESOURCE_EXHAUSTED,
    "NOT_PERMITTED": Status.PERMISSION_DENIED,
    "NO_HANDLER": Status.UNIMPLEMENTED,
    "REQUEST_TOO_LARGE": Status.RESOURCE_EXHAUSTED,
    "RESPONSE_TOO_LARGE": Status.RESOURCE_EXHAUSTED,
    "SERVER_BUSY": Status.RESOURCE_EXHAUSTED,
    "SHUTTING_DOWN": Status.UNAVAILABLE,
    "SIGN_IN_REQUIRED": Status.UNAUTHENTICATED,
    "TOO_MANY_CALLS": Status.RESOURCE_EXHAUSTED,
    "UNKNOWN_METADATA": Status.UNIMPLEMENTED,
    "UNKNOWN_OPCODE": Status.UNIMPLEMENTED,
}

# With so many of them on one connection a server may have had enough; what it allows is its own affair.
_MANY: Final = 15


class Call(NamedTuple):
    """A REQUEST that is in order as a frame."""

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
    calls: dict[int, Call] = field(default_factory=dict)
    credit: dict[int, int] = field(default_factory=dict)
    pings: list[bytes] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)

    def ends(self, *reasons: str) -> "Expected":
        """From here on it must end, with one of these or with what was possible before."""
        self.reasons.update(reasons)
        self.lives = False
        return self


class _Frame(NamedTuple):
    length: int
    kind: int
    flags: int
    codec: int
    version: int
    opcode: int
    metadata_length: int
    call_id: int
    metadata: bytes
    payload: bytes
    whole: bool


def _frames(data: bytes, max_frame: int) -> Iterator[_Frame | str]:
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
        if length < _AFTER_LENGTH:
            yield "FRAME_TOO_SHORT"
            return
        if len(data) - at < HEADER.size:
            yield "TRUNCATED_FRAME"
            return
        end = at + 4 + length
        body = at + HEADER.size
        _, kind, flags, codec, version, opcode, metadata_length, call_id = HEADER.unpack_from(data, at)
        split = body + metadata_length
        yield _Frame(
            length,
            kind,
            flags,
            codec,
            version,
            opcode,
            metadata_length,
            call_id,
            metadata=data[body:split],
            payload=data[split:end],
            whole=end <= len(data),
        )
        at = end


def expect_opening(data: bytes) -> Expected:
    """Of what a client sends before it has read anything, and then ends its output."""
    expected = Expected()
    if not data:
        return expected
    if not data.startswith(PREAMBLE):
        if PREAMBLE.startswith(data):
            return expected.ends("TRUNCATED_FRAME")
        if data.startswith(PREAMBLE[:3]):
            return expected.ends("UNSUPPORTED_MAJOR")
        expected.http = True
        expected.ends("FOREIGN_PROTOCOL")
        if len(data) <= 16:
            expected.ends("TRUNCATED_FRAME")  # too little to tell who it is
        return expected
    frames = list(_frames(data[len(PREAMBLE) :], _HELLO_LIMIT))
    if not frames:
        return expected
    first, *more = frames
    if isinstance(first, str):
        return expected.ends(first)
    problem = _header_problem(first, expected=HELLO, codec=0, version=0)
    if not first.whole:
        # What a header says may be refused before its frame is whole.
        return expected.ends("TRUNCATED_FRAME", *problem)
    if problem:
        return expected.ends(*problem)
    expected.welcome = True
    expected.reasons.update(("BAD_BODY", *HANDSHAKE_REASONS))
    # Whether what follows HELLO was there before the answer is a matter of chance. If it was not, it was read as calls.
    if more:
        expected.ends("EARLY_FRAME", *CONNECTION_REASONS)
    return expected


def _header_problem(frame: _Frame, *, expected: int, codec: int, version: int) -> tuple[str, ...]:
    """The first check of section 2 that a frame fails, of those that want no state but ``expected``; () for none.

    Args:
        expected: the one kind that may come, or 0 for those of an open connection.
        codec: the connection's. The same for ``version``.
    """
    kind = frame.kind
    if frame.metadata_length > frame.length - _AFTER_LENGTH:
        return ("METADATA_OVERRUN",)
    if not HELLO <= kind <= GOAWAY:
        if kind < 128:
            return ("UNKNOWN_KIND",)
        return ("UNKNOWN_KIND", "UNEXPECTED_KIND") if expected else ()
    if expected:
        may_come = kind == expected
    else:
        may_come = kind in (REQUEST, CANCEL, CREDIT, PING, PONG) or (kind == ERROR and not frame.call_id)
    if not may_come:
        return ("UNEXPECTED_KIND",)
    if frame.flags:
        return ("RESERVED_FLAGS",)
    if frame.codec != (codec if kind == REQUEST else 0):
        return ("WRONG_CODEC",)
    if frame.version != (version if kind == REQUEST else 0):
        return ("WRONG_VERSION",)
    if (kind in (REQUEST, CANCEL, CREDIT)) != bool(frame.call_id):
        return ("CALL_ID",)
    if not frame.call_id and frame.opcode:
        return ("WRONG_OPCODE",)
    if frame.metadata_length and kind != REQUEST:
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
    counts = dict.fromkeys((REQUEST, CANCEL, PING), 0)
    for frame in _frames(data, max_frame):
        if isinstance(frame, str):
            return expected.ends(frame)
        problem = _header_problem(frame, expected=0, codec=codec, version=version)
        if not frame.whole:
            return expected.ends("TRUNCATED_FRAME", *problem)
        if problem:
            return expected.ends(*problem)
        kind, call_id = frame.kind, frame.call_id
        if kind in counts:
            counts[kind] += 1
        if kind == REQUEST:
            if not 0 < (call_id - last_id) & _U32 < 2**31:
                return expected.ends("CALL_ID")
            if call_id in expected.calls:
                expected.reasons.add("CALL_ID")  # all the way round, and it may still be in flight
            last_id = call_id
            expected.calls[call_id] = Call(call_id, frame.opcode, frame.metadata, frame.payload)
            expected.credit[call_id] = _credit(frame.metadata)
            opcodes.setdefault(call_id, set()).add(frame.opcode)
        elif kind in (PING, PONG):
            if len(frame.payload) != 8:
                return expected.ends("BAD_BODY")
            if kind == PING:
                expected.pings.append(frame.payload)
        elif kind == ERROR:
            if not is_error_body(frame.payload):
                return expected.ends("BAD_BODY")
            expected.silent = True
            return expected
        elif kind in (CANCEL, CREDIT):
            amount = int.from_bytes(frame.payload, "big")
            if frame.payload if kind == CANCEL else len(frame.payload) != 4 or not amount:
                return expected.ends("BAD_BODY")
            # Whether the call was still in flight when it came is a matter of chance.
            if opcodes.get(call_id, {frame.opcode}) != {frame.opcode}:
                expected.reasons.add("WRONG_OPCODE")
            if kind == CANCEL:
                expected.cancelled.add(call_id)
            elif call_id in expected.calls:
                expected.credit[call_id] += amount
                if expected.credit[call_id] > _U32:
                    expected.reasons.add("CREDIT_OVERFLOW")
    for kind, reason in ((REQUEST, "TOO_MANY_ERRORS"), (CANCEL, "TOO_MANY_CANCELS"), (PING, "TOO_MANY_PINGS")):
        if counts[kind] > _MANY:
            expected.reasons.add(reason)
    return expected


def _credit(metadata: bytes) -> int:
    """The credit that a block may grant; whether the block is in order is another matter."""
    credit = at = 0
    while len(metadata) - at >= 3:
        key, length = struct.unpack_from(">BH", metadata, at)
        value = metadata[at + 3 : at + 3 + length]
        if key & 0x7F == 5 and len(value) == 4:
            credit += int.from_bytes(value, "big")
        at += 3 + length
    return credit


def is_error_body(body: bytes) -> bool:
    """Section 6: whether it has the layout of an ERROR."""
    if len(body) < 9 or not 1 <= body[0] <= 16 or body[1] > 2:
        return False
    reason_end = 7 + body[6]
    if reason_end + 2 > len(body):
        return False
    reason = body[7:reason_end]
    upper, rest = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
    if reason and (len(reason) > 64 or reason[0] not in upper or any(each not in rest for each in reason)):
        return False
    end = reason_end + 2 + int.from_bytes(body[reason_end : reason_end + 2], "big")
    try:
        body[reason_end + 2 : end].decode()
    except UnicodeDecodeError:
        return False
    while end < len(body):  # fields of later versions: type, length, bytes
        if end + 3 > len(body):
            return False
        end += 3 + int.from_bytes(body[end + 1 : end + 3], "big")
    return end == len(body)
