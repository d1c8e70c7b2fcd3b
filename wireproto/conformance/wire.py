"""The layouts of ``docs/protocol.md`` once more, for the judge: what it reads off the wire it takes apart by itself.

Nothing here is the framework's own reader, which would share its mistakes with what it judges. A body that breaks its
layout is a ``Deviation``.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from wireproto.conformance.case import Deviation
from wireproto.wire.frame import Frame, Kind

__all__ = [
    "CALL_REASONS",
    "END_REASONS",
    "HANDSHAKE_REASONS",
    "NEVER",
    "NOT_PROCESSED",
    "MAYBE_PROCESSED",
    "ErrorBody",
    "GoAwayBody",
    "HelloBody",
    "WelcomeBody",
    "digest_field",
    "entry",
    "error_body",
    "field",
    "goaway_body",
    "read_error",
    "read_goaway",
    "read_hello",
    "read_metadata",
    "read_welcome",
    "shown",
    "tlv",
    "u32",
]

NEVER, NOT_PROCESSED, MAYBE_PROCESSED = range(3)

CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 1, 3, 4, 5
PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION = 7, 8, 9
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16

HANDSHAKE_REASONS = {
    "UNKNOWN_SERVICE": NOT_FOUND,
    "UNSUPPORTED_VERSION": FAILED_PRECONDITION,
    "UNSUPPORTED_CODEC": FAILED_PRECONDITION,
    "CONTRACT_MISMATCH": FAILED_PRECONDITION,
}

END_REASONS = {
    **HANDSHAKE_REASONS,
    "UNSUPPORTED_MAJOR": FAILED_PRECONDITION,
    "FRAME_TIMEOUT": DEADLINE_EXCEEDED,
    "HELLO_TIMEOUT": DEADLINE_EXCEEDED,
    "TOO_MANY_CANCELS": RESOURCE_EXHAUSTED,
    "TOO_MANY_ERRORS": RESOURCE_EXHAUSTED,
    "TOO_MANY_PINGS": RESOURCE_EXHAUSTED,
    "SHUTTING_DOWN": UNAVAILABLE,
}
"""The statuses of the reasons that end a connection and have another one than INVALID_ARGUMENT."""

CALL_REASONS = {
    "BAD_METADATA": INVALID_ARGUMENT,
    "BAD_PAYLOAD": INVALID_ARGUMENT,
    "CANCELLED": CANCELLED,
    "DEADLINE": DEADLINE_EXCEEDED,
    "INTERNAL": INTERNAL,
    "METADATA_TOO_LARGE": RESOURCE_EXHAUSTED,
    "NOT_PERMITTED": PERMISSION_DENIED,
    "NO_HANDLER": UNIMPLEMENTED,
    "REQUEST_TOO_LARGE": RESOURCE_EXHAUSTED,
    "RESPONSE_TOO_LARGE": RESOURCE_EXHAUSTED,
    "SHUTTING_DOWN": UNAVAILABLE,
    "SIGN_IN_REQUIRED": UNAUTHENTICATED,
    "TOO_MANY_CALLS": RESOURCE_EXHAUSTED,
    "UNKNOWN_METADATA": UNIMPLEMENTED,
    "UNKNOWN_OPCODE": UNIMPLEMENTED,
    "UNKNOWN_SERVICE": NOT_FOUND,
}

_REASON = re.compile(rb"[A-Z][A-Z0-9_]{0,63}")


class ErrorBody(NamedTuple):
    status: int
    retry: int
    retry_after_ms: int
    reason: str
    message: str


class GoAwayBody(NamedTuple):
    last_call_id: int
    error: ErrorBody


class WelcomeBody(NamedTuple):
    version: int
    codec: int
    max_frame: int
    max_calls: int
    heartbeat_ms: int
    features: int
    server_name: str


class HelloBody(NamedTuple):
    versions: tuple[int, int]
    max_frame: int
    max_calls: int
    heartbeat_ms: int
    features: int
    codecs: list[tuple[int, str]]
    client_name: str
    service: str
    digests: dict[int, int]


# Written ----------------------------------------------------------------------------------------------------------


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def field(key: int, value: bytes) -> bytes:
    """A field of the metadata of a REQUEST."""
    return struct.pack(">BH", key, len(value)) + value


def entry(name: bytes, value: bytes) -> bytes:
    """The caller's own key-value in it."""
    return field(6, bytes([len(name)]) + name + value)


def tlv(tag: int, value: bytes) -> bytes:
    """A field at the end of HELLO and WELCOME."""
    return struct.pack(">HH", tag, len(value)) + value


def digest_field(digests: dict[int, int]) -> bytes:
    """The methods that a HELLO lists."""
    return tlv(1, b"".join(struct.pack(">HI", opcode, digest) for opcode, digest in digests.items()))


def error_body(
    status: int = 14,
    reason: bytes = b"",
    message: bytes = b"",
    retry: int = 0,
    retry_after_ms: int = 0,
    tail: bytes = b"",
) -> bytes:
    """The body of an ERROR, right or wrong."""
    head = struct.pack(">BBIB", status, retry, retry_after_ms, len(reason))
    return head + reason + struct.pack(">H", len(message)) + message + tail


def goaway_body(last_call_id: int, error: bytes) -> bytes:
    return u32(last_call_id) + error


# Read -------------------------------------------------------------------------------------------------------------


class _Reader:
    """Takes a body apart, and says where it stopped making sense."""

    def __init__(self, what: str, data: bytes) -> None:
        self.what = what
        self.data = data
        self.at = 0

    def broken(self, problem: str) -> Deviation:
        return Deviation(f"{self.what} breaks its layout at byte {self.at}: {problem}; it is {self.data.hex(' ')}")

    def take(self, size: int) -> bytes:
        if len(self.data) - self.at < size:
            raise self.broken(f"{size} bytes are declared and {len(self.data) - self.at} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self, length_size: int) -> str:
        data = self.take(self.number(length_size))
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self.broken("a text is not UTF-8") from None

    def fields(self, key_size: int) -> Iterator[tuple[int, bytes]]:
        while self.at < len(self.data):
            yield self.number(key_size), self.take(self.number(2))


def read_error(payload: bytes, what: str = "the body of ERROR", at: int = 0) -> ErrorBody:
    """Section 6."""
    reader = _Reader(what, payload)
    reader.at = at
    status, retry, after = reader.number(1), reader.number(1), reader.number(4)
    reason = reader.take(reader.number(1))
    if not 1 <= status <= 16:
        raise reader.broken(f"the status is {status}")
    if retry > 2:
        raise reader.broken(f"retry is {retry}")
    if reason and not _REASON.fullmatch(reason):
        raise reader.broken(f"the reason is {reason!r}")
    size_at = reader.at
    message = reader.text(2)
    if reader.at - size_at - 2 > 2048:
        raise reader.broken("the message is longer than 2048 bytes")
    for _ in reader.fields(1):
        pass  # none is defined, and well-formed ones are read over
    return ErrorBody(status, retry, after, reason.decode(), message)


def read_goaway(payload: bytes) -> GoAwayBody:
    """Section 6."""
    if len(payload) < 4:
        raise Deviation(f"the body of GOAWAY has {len(payload)} bytes")
    return GoAwayBody(int.from_bytes(payload[:4], "big"), read_error(payload, "the body of GOAWAY", 4))


def read_welcome(payload: bytes) -> WelcomeBody:
    """Section 3."""
    reader = _Reader("the body of WELCOME", payload)
    found = WelcomeBody(
        reader.number(1),
        reader.number(1),
        reader.number(4),
        reader.number(4),
        reader.number(4),
        reader.number(8),
        reader.text(1),
    )
    for _ in reader.fields(2):
        pass
    if not found.version or not found.codec:
        raise Deviation(f"WELCOME chooses version {found.version} and codec {found.codec}")
    if found.max_frame < 4096:
        raise Deviation(f"WELCOME's max frame is {found.max_frame}; it is at least 4096")
    if not found.max_calls:
        raise Deviation("WELCOME's max calls is 0; it is at least 1")
    return found


def read_hello(payload: bytes) -> HelloBody:
    """Section 3."""
    reader = _Reader("the body of HELLO", payload)
    versions = reader.number(1), reader.number(1)
    max_frame, max_calls, heartbeat, features = (reader.number(size) for size in (4, 4, 4, 8))
    codecs = [(reader.number(1), reader.text(1)) for _ in range(reader.number(1))]
    client_name, service = reader.text(1), reader.text(1)
    digests: dict[int, int] = {}
    for tag, value in reader.fields(2):
        if tag == 1:
            if len(value) % 6:
                raise reader.broken("the list of methods is no list of pairs")
            pairs = [struct.unpack_from(">HI", value, at) for at in range(0, len(value), 6)]
            digests = dict(pairs)
            if len(digests) != len(pairs):
                raise reader.broken("an opcode is listed twice")
    if not 1 <= versions[0] <= versions[1]:
        raise reader.broken(f"the versions are {versions[0]} to {versions[1]}")
    if max_frame < 4096:
        raise reader.broken(f"max frame is {max_frame}")
    if not codecs or len({number for number, _ in codecs}) != len(codecs):
        raise reader.broken("no codec is offered, or one twice")
    for number, name in codecs:
        if not number or not re.fullmatch(r"[a-z][a-z0-9_.-]{0,31}", name):
            raise reader.broken(f"codec {number} is called {name!r}")
    return HelloBody(versions, max_frame, max_calls, heartbeat, features, codecs, client_name, service, digests)


def read_metadata(block: bytes) -> dict[int, list[bytes]]:
    """Section 5: the values by key, its top bit left out."""
    found: dict[int, list[bytes]] = {}
    for key, value in _Reader("the metadata", block).fields(1):
        found.setdefault(key & 0x7F, []).append(value)
    for key, values in found.items():
        if key != 6 and len(values) > 1:
            raise Deviation(f"metadata key {key} is there {len(values)} times")
    return found


def shown(frame: Frame) -> str:
    """A frame for a person."""
    try:
        name = Kind(frame.kind).name
    except ValueError:
        name = f"a frame of kind {frame.kind}"
    call = f" of call {frame.call_id}" if frame.call_id else ""
    if frame.kind == Kind.ERROR:
        error = read_error(frame.payload)
        return f"ERROR{call or ' (final)'} {error.reason or 'without a reason'}, status {error.status}: {error.message}"
    return f"{name}{call} with {len(frame.payload)} bytes of payload"
