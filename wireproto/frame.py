"""The frame: its sixteen byte header, its kinds, and the fixed binary body of ERROR.

Nothing here knows the state of a connection; ``connection.py`` does. Layout and rules: ``docs/protocol.md``.
"""

import enum
import re
import struct
from typing import NamedTuple

from wireproto.errors import CallError, RemoteProtocolError
from wireproto.status import Retry, Status

__all__ = [
    "HEADER",
    "HEADER_AFTER_LENGTH",
    "IGNORABLE",
    "MAJOR",
    "MAX_ERROR_MESSAGE",
    "PREAMBLE",
    "Buffered",
    "Frame",
    "Kind",
    "pack",
    "pack_error",
    "total_length",
    "unpack",
    "unpack_error",
]

MAJOR = 1
"""The major version of the wire this package speaks: the fourth byte of the preamble."""

PREAMBLE = b"\xf5WP" + bytes([MAJOR])
"""The first bytes of either direction. 0xF5 is in no UTF-8 text and begins no TLS record and no HTTP request."""

HEADER = struct.Struct(">IBBBBHHI")
"""length, kind, flags, codec, version, opcode, length of the metadata, call id."""

HEADER_AFTER_LENGTH = HEADER.size - 4
"""The least value of the length field: it counts the bytes after itself."""

IGNORABLE = 0x80
"""A kind with this bit set is skipped by whoever does not know it; any other unknown kind ends the connection."""

MAX_ERROR_MESSAGE = 2048
"""Bytes of UTF-8: a longer text is cut when an ERROR is packed, so that the frame fits any peer's limit."""

Buffered = bytes | bytearray

_LENGTH = struct.Struct(">I")
_ERROR = struct.Struct(">BBIB")
_U16 = struct.Struct(">H")
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


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


def pack(kind: int, codec: int, version: int, opcode: int, call_id: int, metadata: bytes, payload: bytes) -> bytes:
    """The bytes of one whole frame. All numbers must fit their fields; ``metadata`` is at most 65,535 bytes."""
    length = HEADER_AFTER_LENGTH + len(metadata) + len(payload)
    return HEADER.pack(length, kind, 0, codec, version, opcode, len(metadata), call_id) + metadata + payload


def total_length(data: Buffered, at: int, max_frame: int) -> int:
    """Bytes of the frame that begins at ``at``, its length field included; 0 while that field is not there whole.

    Called on the first four bytes, so that a frame too large is refused before any of it is kept.

    Raises:
        RemoteProtocolError: FRAME_TOO_LARGE or FRAME_TOO_SHORT.
    """
    if len(data) - at < _LENGTH.size:
        return 0
    length: int = _LENGTH.unpack_from(data, at)[0]
    if length > max_frame:
        raise RemoteProtocolError(
            "FRAME_TOO_LARGE", f"a frame declares {length} bytes; at most {max_frame} are accepted here"
        )
    if length < HEADER_AFTER_LENGTH:
        raise RemoteProtocolError(
            "FRAME_TOO_SHORT",
            f"a frame declares {length} bytes; its header alone has {HEADER_AFTER_LENGTH} after the length",
        )
    return _LENGTH.size + length


def unpack(data: Buffered, at: int = 0) -> Frame:
    """Take apart the frame that lies whole in ``data`` from ``at`` on, its length field checked before.

    Raises:
        RemoteProtocolError: METADATA_OVERRUN.
    """
    length, kind, flags, codec, version, opcode, metadata_length, call_id = HEADER.unpack_from(data, at)
    body = at + HEADER.size
    payload = body + metadata_length
    end = at + _LENGTH.size + length
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


def pack_error(error: CallError | RemoteProtocolError) -> bytes:
    """The body of an ERROR, the same under every codec. A text over ``MAX_ERROR_MESSAGE`` is cut."""
    if isinstance(error, CallError):
        message, retry, retry_after_ms = error.message, error.retry, error.retry_after_ms
    else:
        message, retry, retry_after_ms = error.problem, Retry.NEVER, 0
    # A lone surrogate in somebody's exception text must not cost the peer its answer.
    text = message.encode("utf-8", "backslashreplace")
    if len(text) > MAX_ERROR_MESSAGE:
        text = text[:MAX_ERROR_MESSAGE].decode("utf-8", "ignore").encode()
    reason = error.reason.encode("ascii")
    return b"".join((_ERROR.pack(error.status, retry, retry_after_ms, len(reason)), reason, _U16.pack(len(text)), text))


def unpack_error(body: bytes, kind: type[CallError] = CallError) -> CallError:
    """Read the body of an ERROR. What follows the message is for later versions: read over, if well formed.

    Args:
        body: the payload of the frame.
        kind: the class to return, ``CallError`` or a subclass with its arguments.

    Raises:
        RemoteProtocolError: BAD_BODY.
    """
    try:
        status, retry, retry_after_ms, reason_length = _ERROR.unpack_from(body)
        at = _ERROR.size + reason_length
        reason = body[_ERROR.size : at].decode("ascii")
        text_end = at + 2 + _U16.unpack_from(body, at)[0]
        message = body[at + 2 : text_end].decode("utf-8")
        at = text_end
        while at < len(body):
            at += 3 + _U16.unpack_from(body, at + 1)[0]
        if at != len(body):
            raise ValueError("it ends inside a field")
        if status == Status.OK:
            raise ValueError("OK is no error")
        if reason and not _REASON.fullmatch(reason):
            raise ValueError("the reason is not UPPER_SNAKE")
        return kind(Status(status), reason, message, retry=Retry(retry), retry_after_ms=retry_after_ms)
    except (ValueError, struct.error) as problem:
        raise RemoteProtocolError("BAD_BODY", f"the body of an ERROR cannot be read: {problem}") from None
