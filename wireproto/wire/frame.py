"""The frame: its sixteen byte header and what its fields can hold, its kinds and flags, and bodies of fixed layout.

This is the one home of the header's layouts and bounds; whoever needs one imports it, the schema included. Only the
judges in ``wireproto.conformance`` read ``docs/wire.md`` by themselves. Nothing here knows the state of a
connection; ``connection.py`` does. Layout and rules: ``docs/wire.md``.
"""

import enum
import re
import struct
from functools import cache
from typing import NamedTuple

from wireproto.errors import CallError, PackedDetails, RemoteProtocolError
from wireproto.status import Retry, Status

__all__ = [
    "FIRST_FRAMEWORK_OPCODE",
    "HEADER",
    "HEADER_AFTER_LENGTH",
    "HEADER_SIZE",
    "HEADER_WITH_WORD",
    "IGNORABLE",
    "KINDS",
    "MAJOR",
    "ANSWERS",
    "MAX_DETAILS",
    "MAX_ERROR_MESSAGE",
    "MAX_REASON",
    "NO_CREDIT",
    "OF_CALLS",
    "OF_MESSAGES",
    "PREAMBLE",
    "TOP_BIT",
    "U32_MAX",
    "Buffered",
    "Credit",
    "Flag",
    "Frame",
    "Kind",
    "bad_body",
    "check_header",
    "flags_problem",
    "header_word",
    "pack",
    "pack_credit",
    "pack_details",
    "pack_error",
    "pack_goaway",
    "read_reason",
    "total_length",
    "unpack",
    "unpack_credit",
    "unpack_empty",
    "unpack_error",
    "unpack_goaway",
    "unpack_ping",
]

MAJOR = 1
"""The major version of the wire this package speaks: the fourth byte of the preamble."""

PREAMBLE = b"\xf5WP" + bytes([MAJOR])
"""The first bytes of either direction. 0xF5 is in no UTF-8 text and begins no TLS record and no HTTP request."""

HEADER = struct.Struct(">IBBBBHHI")
"""length, kind, flags, codec, version, opcode, length of the metadata, call id."""

HEADER_WITH_WORD = struct.Struct(">IIHHI")
"""The same bytes with kind, flags, codec and version read as one number, the word, so that one comparison proves all
four of them: length, word, opcode, length of the metadata, call id."""

HEADER_SIZE = HEADER.size
"""Bytes of the header: 16."""

HEADER_AFTER_LENGTH = HEADER_SIZE - 4
"""The least value of the length field: it counts the bytes after itself."""

IGNORABLE = 0x80
"""A kind with this bit set is skipped by whoever does not know it; any other unknown kind ends the connection."""

MAX_ERROR_MESSAGE = 2048
"""Bytes of UTF-8: a longer text is cut when an ERROR is packed, so that the frame fits any peer's limit."""

MAX_DETAILS = 4096
"""Bytes of the details of an ERROR: the name of their message and its payload. Longer ones are left out."""

MAX_REASON = 64
"""Characters of a reason in an ERROR."""

Buffered = bytes | bytearray

U32_MAX = 0xFFFF_FFFF
"""The largest credit and duration."""

TOP_BIT = 0x8000_0000
"""Set in the ids of calls that the server began. The other 31 bits are the number of the call."""

FIRST_FRAMEWORK_OPCODE = 0xF000
"""Opcodes from here to 0xFFFF belong to the framework: health, reflection, echo. Those below are the service's."""

_U32 = struct.Struct(">I")
_CREDIT = struct.Struct(">II")
_ERROR = struct.Struct(">BBIB")
_U16 = struct.Struct(">H")
_FIELD = struct.Struct(">BH")
_DETAILS = 1
"""The field of an ERROR that has the details."""
_REASON = re.compile(rf"[A-Z][A-Z0-9_]{{0,{MAX_REASON - 1}}}")
_TO_ESCAPE = re.compile(r"[^ -\[\]-~]")
_STATUSES = {int(status): status for status in Status}
_RETRIES = {int(retry): retry for retry in Retry}


class Kind(enum.IntEnum):
    """The role of a frame. A number is never used for anything else, whatever the version."""

    HELLO = 1
    WELCOME = 2
    REQUEST = 3
    RESPONSE = 4
    ITEM = 5
    END = 6
    ERROR = 7
    CANCEL = 8
    CREDIT = 9
    PING = 10
    PONG = 11
    GOAWAY = 12


KINDS = frozenset(map(int, Kind))
"""The kinds known here."""

OF_MESSAGES = frozenset({Kind.REQUEST, Kind.RESPONSE, Kind.ITEM})
"""Kinds whose payload is a message: they carry the connection's codec and version, all others carry 0 and 0."""

OF_CALLS = frozenset({*OF_MESSAGES, Kind.END, Kind.ERROR, Kind.CANCEL, Kind.CREDIT})
"""Kinds of a call, whose id and opcode they carry; all others carry 0 and 0."""

ANSWERS = frozenset({Kind.RESPONSE, Kind.ITEM, Kind.END, Kind.ERROR})
"""Kinds of the answer half of a call. They may say something beside their payload."""

_ALSO_OF_THE_CONNECTION = frozenset({Kind.ERROR, Kind.CREDIT})
"""Those that carry 0 and 0 as well: a final ERROR, and a CREDIT of one-way calls."""


class Flag(enum.IntFlag):
    """What a REQUEST says about the two halves of its call, and any message about its payload."""

    NONE = 0
    ONE_WAY = 0x01
    """Nothing is answered."""
    PACKED = 0x02
    """The payload is packed. The one flag that RESPONSE and ITEM may have, where an algorithm was agreed on."""
    ITEMS_FOLLOW = 0x04
    """The request half is a stream: ITEMs follow until END."""
    ITEMS_COME_BACK = 0x08
    """The answer half is a stream."""


_PACKED = int(Flag.PACKED)  # as ints: the complement of a Flag has only bits that are known
_OF_SHAPES = int(Flag.ONE_WAY | Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK)
_BOTH_STREAMS = int(Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK)


class Credit(NamedTuple):
    """How much more of one half of a call may be sent: so many ITEMs, and so many bytes of their payloads.

    An ITEM is sent with at least one item and one byte of credit. It takes all its bytes, so that those may go below 0.
    """

    items: int
    bytes: int


NO_CREDIT = Credit(0, 0)
"""Nothing may be sent."""


class Frame(NamedTuple):
    """One frame, taken apart. ``kind`` is a plain int: it may be one this package does not know."""

    kind: int
    flags: int
    codec: int
    version: int
    opcode: int
    call_id: int
    metadata: bytes
    payload: bytes


def pack(
    kind: int, codec: int, version: int, opcode: int, call_id: int, metadata: bytes, payload: bytes, flags: int = 0
) -> bytes:
    """The bytes of one whole frame. All numbers must fit their fields; ``metadata`` is at most 65,535 bytes."""
    length = HEADER_AFTER_LENGTH + len(metadata) + len(payload)
    return HEADER.pack(length, kind, flags, codec, version, opcode, len(metadata), call_id) + metadata + payload


@cache
def header_word(kind: int, codec: int, version: int) -> int:
    """The word of a frame without flags, as ``HEADER_WITH_WORD`` reads and writes it.

    Kept, since each connection has a few of them, and nearly all connections the same.
    """
    return kind << 24 | codec << 8 | version


def total_length(data: Buffered, at: int, max_frame: int) -> int:
    """Bytes of the frame that begins at ``at``, its length field included; 0 while that field is not there whole.

    Called on the first four bytes, so that a frame too large is refused before any of it is kept.

    Raises:
        RemoteProtocolError: FRAME_TOO_LARGE or FRAME_TOO_SHORT.
    """
    if len(data) - at < _U32.size:
        return 0
    length: int = _U32.unpack_from(data, at)[0]
    if length > max_frame:
        raise RemoteProtocolError(
            "FRAME_TOO_LARGE", f"a frame declares {length} bytes; at most {max_frame} are accepted here"
        )
    if length < HEADER_AFTER_LENGTH:
        raise RemoteProtocolError(
            "FRAME_TOO_SHORT",
            f"a frame declares {length} bytes; its header alone has {HEADER_AFTER_LENGTH} after the length",
        )
    return _U32.size + length


def unpack(data: Buffered, at: int = 0) -> Frame:
    """Take apart the frame that lies whole in ``data`` from ``at`` on, its length field checked before.

    Raises:
        RemoteProtocolError: METADATA_OVERRUN.
    """
    length, kind, flags, codec, version, opcode, metadata_length, call_id = HEADER.unpack_from(data, at)
    body = at + HEADER_SIZE
    payload = body + metadata_length
    end = at + _U32.size + length
    if payload > end:
        raise RemoteProtocolError(
            "METADATA_OVERRUN",
            f"{metadata_length} bytes of metadata are declared in a frame with room for {end - body}",
        )
    if type(data) is bytes:
        return Frame(kind, flags, codec, version, opcode, call_id, data[body:payload], data[payload:end])
    # Through a view: slicing a bytearray would copy twice.
    with memoryview(data) as view:
        return Frame(kind, flags, codec, version, opcode, call_id, bytes(view[body:payload]), bytes(view[payload:end]))


def check_header(frame: Frame, codec: int, version: int, packing: int = 0, top_bit: int = 0) -> None:
    """Check what the header of a known kind must say, in the order of ``docs/wire.md``.

    Args:
        frame: of a kind in ``KINDS``.
        codec: the connection's.
        version: the connection's.
        packing: the algorithm that was agreed on; 0 for none.
        top_bit: of the ids of calls that the reader began; 0 for a client.

    Raises:
        RemoteProtocolError: RESERVED_FLAGS, WRONG_CODEC, WRONG_VERSION, CALL_ID, WRONG_OPCODE or UNEXPECTED_METADATA.
    """
    kind = frame.kind
    name = Kind(kind).name
    if frame.flags and (problem := flags_problem(kind, frame.flags, packing)):
        raise RemoteProtocolError("RESERVED_FLAGS", f"{name} has flags {frame.flags:#04x}; {problem}")
    if kind not in OF_MESSAGES:
        codec = version = 0
    if frame.codec != codec:
        raise RemoteProtocolError("WRONG_CODEC", f"{name} has codec {frame.codec}; here it must be {codec}")
    if frame.version != version:
        raise RemoteProtocolError("WRONG_VERSION", f"{name} has version {frame.version}; here it must be {version}")
    if frame.call_id:
        if kind not in OF_CALLS:
            raise RemoteProtocolError("CALL_ID", f"{name} names call {frame.call_id} and belongs to none")
    elif kind in OF_CALLS and kind not in _ALSO_OF_THE_CONNECTION:
        raise RemoteProtocolError("CALL_ID", f"{name} names no call")
    elif frame.opcode:
        raise RemoteProtocolError("WRONG_OPCODE", f"{name} has opcode {frame.opcode:#06x} and belongs to no call")
    # An answer may have them: a frame of the answer half of a call that the reader began.
    if (
        frame.metadata
        and kind != Kind.REQUEST
        and not (kind in ANSWERS and frame.call_id and frame.call_id & TOP_BIT == top_bit)
    ):
        raise RemoteProtocolError(
            "UNEXPECTED_METADATA", f"{name} has metadata; only REQUEST and what answers a call may"
        )


def flags_problem(kind: int, flags: int, packing: int = 0) -> str:
    """What is wrong with flags that are not zero, where ``packing`` was agreed on or 0; "" for nothing."""
    allowed = _OF_SHAPES if kind == Kind.REQUEST else 0
    if packing and kind in OF_MESSAGES:
        allowed |= _PACKED
    if flags & ~allowed:
        if flags & Flag.PACKED and kind in OF_MESSAGES and not packing:
            return "no algorithm was agreed on with which it may be packed"
        return f"{allowed:#04x} are all that it may have" if allowed else "it may have none"
    if flags & Flag.ONE_WAY and flags & _BOTH_STREAMS:
        return "a one-way call has no items"
    return ""


def pack_error(error: CallError | RemoteProtocolError) -> bytes:
    """The body of an ERROR, the same under every codec.

    Never fails, since it is the last thing a peer hears: a text over ``MAX_ERROR_MESSAGE`` is cut, a reason that is
    not UPPER_SNAKE is left out, and a number is brought into its range.
    """
    if isinstance(error, CallError):
        message, retry, retry_after_ms = error.message, error.retry, error.retry_after_ms
    else:
        message, retry, retry_after_ms = error.problem, Retry.NEVER, 0
    text = message.encode("utf-8", "backslashreplace")
    if len(text) > MAX_ERROR_MESSAGE:
        text = text[:MAX_ERROR_MESSAGE].decode("utf-8", "ignore").encode()
    reason = error.reason.encode() if _REASON.fullmatch(error.reason) else b""
    head = _ERROR.pack(error.status, retry, max(0, min(retry_after_ms, U32_MAX)), len(reason))
    return b"".join((head, reason, _U16.pack(len(text)), text))


def pack_details(details: PackedDetails) -> bytes:
    """The field of an ERROR that has the details; b"" when they are more than ``MAX_DETAILS``."""
    name = details.name.encode()
    value = bytes([len(name)]) + name + details.payload
    return _FIELD.pack(_DETAILS, len(value)) + value if len(value) <= MAX_DETAILS else b""


def _unpack_details(value: bytes) -> PackedDetails | None:
    """The details of an ERROR as they came; None when there is no name, or none that is UTF-8."""
    end = 1 + value[0] if value else 1
    try:
        name = value[1:end].decode()
    except UnicodeDecodeError:
        return None
    return PackedDetails(name, value[end:]) if 1 < end <= len(value) else None


def unpack_error(body: bytes, kind: type[CallError] = CallError) -> CallError:
    """Read the body of an ERROR. Of what follows the message the details are kept as they are; all else is for later
    versions: read over, if well formed.

    A number or a reason that is not known here is no reason to end a connection: a peer of a later day, or an
    intermediary, may say one. The call has failed all the same, and the caller is told as much of it as there is.

    Args:
        body: the payload of the frame.
        kind: the class to return, ``CallError`` or a subclass with its arguments.

    Raises:
        RemoteProtocolError: BAD_BODY.
    """
    try:
        status, retry, retry_after_ms, reason_length = _ERROR.unpack_from(body)
        at = _ERROR.size + reason_length
        reason = body[_ERROR.size : at]
        text_end = at + 2 + _U16.unpack_from(body, at)[0]
        message = body[at + 2 : text_end].decode("utf-8")
        at = text_end
        details: PackedDetails | None = None
        while at < len(body):
            field, length = _FIELD.unpack_from(body, at)
            at += _FIELD.size + length
            if field == _DETAILS and details is None:
                details = _unpack_details(body[at - length : at])
        if at != len(body):
            raise ValueError("it ends inside a field")
        if status == Status.OK:
            raise ValueError("OK is no error")
        known = _STATUSES.get(status, Status.UNKNOWN)
        name, message = read_reason(reason, message)
        error = kind(known, name, message, retry=_RETRIES.get(retry, Retry.NEVER), retry_after_ms=retry_after_ms)
        if details is not None:
            error.packed_details = details
        return error
    except (ValueError, struct.error) as problem:
        raise bad_body(Kind.ERROR, str(problem)) from None


def read_reason(reason: bytes, message: str) -> tuple[str, str]:
    """A reason that was received, and the message beside it: the same two when the reason keeps to its alphabet.

    Any other reason is read as empty, so that no program compares it, and its bytes stand at the end of the message,
    where people look: printable ASCII as it is, the backslash and all other bytes as ``\\x`` and two hex digits.
    """
    name = reason.decode("latin-1")
    if not name or _REASON.fullmatch(name):
        return name, message
    shown = "[reason: " + _TO_ESCAPE.sub(lambda found: f"\\x{ord(found[0]):02x}", name) + "]"
    return "", f"{message} {shown}" if message else shown


def bad_body(kind: int, problem: str) -> RemoteProtocolError:
    """The one error for a fixed binary body that breaks its layout."""
    return RemoteProtocolError("BAD_BODY", f"the body of {Kind(kind).name} cannot be read: {problem}")


def unpack_empty(frame: Frame) -> None:
    """Check the body of an END or a CANCEL.

    Raises:
        RemoteProtocolError: BAD_BODY.
    """
    if frame.payload:
        raise bad_body(frame.kind, f"it has {len(frame.payload)} bytes and must be empty")


def unpack_ping(frame: Frame) -> bytes:
    """The eight bytes of a PING or a PONG.

    Raises:
        RemoteProtocolError: BAD_BODY.
    """
    if len(frame.payload) != 8:
        raise bad_body(frame.kind, f"it has {len(frame.payload)} bytes and not 8")
    return frame.payload


def pack_credit(items: int, size: int) -> bytes:
    """The body of a CREDIT: how many more items and bytes may be sent, each 0 to 2**32 - 1 and one of them not 0."""
    return _CREDIT.pack(items, size)


def unpack_credit(frame: Frame) -> Credit:
    """What a CREDIT grants.

    Raises:
        RemoteProtocolError: BAD_BODY.
    """
    if len(frame.payload) != _CREDIT.size:
        raise bad_body(frame.kind, f"it has {len(frame.payload)} bytes and not {_CREDIT.size}")
    credit = Credit._make(_CREDIT.unpack(frame.payload))
    if credit == NO_CREDIT:
        raise bad_body(frame.kind, "it grants nothing")
    if not frame.call_id and credit.bytes:
        raise bad_body(frame.kind, "the credit of one-way calls has no bytes")
    return credit


def pack_goaway(last_call_id: int, error: CallError) -> bytes:
    """The body of a GOAWAY: the last call accepted, 0 for none, and why, as in an ERROR."""
    return _U32.pack(last_call_id) + pack_error(error)


def unpack_goaway(frame: Frame) -> tuple[int, CallError]:
    """The last call a GOAWAY accepts, and why it was sent.

    Raises:
        RemoteProtocolError: BAD_BODY.
    """
    if len(frame.payload) < _U32.size:
        raise bad_body(frame.kind, f"it has {len(frame.payload)} bytes")
    return _U32.unpack_from(frame.payload)[0], unpack_error(frame.payload[_U32.size :])
