"""The one reading of ``docs/wire.md`` by which implementations are judged, ours among them.

It shares nothing with ``wireproto.wire``, not even a constant, for it would share the mistakes of what it judges. Both
judges have it, the conformance kit and the fuzzer. What is written here may be right or wrong, as it is asked for; what
is read and breaks its layout is a ``Deviation``.
"""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from wireproto.conformance.case import Deviation

# Section 1.

PREAMBLE: Final = b"\xf5WP\x01"

# Section 2.

HEADER: Final = struct.Struct(">IBBBBHHI")
"""length, kind, flags, codec, version, opcode, length of the metadata, call id."""

AFTER_LENGTH: Final = 12
"""Bytes of the header that the length counts."""

U32_MOST: Final = 0xFFFF_FFFF

FIRST_OPCODE_OF_CONTROL: Final = 0xF000

HELLO, WELCOME, REQUEST, RESPONSE, ITEM, END, ERROR, CANCEL, CREDIT, PING, PONG, GOAWAY = range(1, 13)

KIND_NAMES: Final = {
    HELLO: "HELLO", WELCOME: "WELCOME", REQUEST: "REQUEST", RESPONSE: "RESPONSE", ITEM: "ITEM", END: "END",
    ERROR: "ERROR", CANCEL: "CANCEL", CREDIT: "CREDIT", PING: "PING", PONG: "PONG", GOAWAY: "GOAWAY",
}  # fmt: skip

OF_MESSAGES: Final = (REQUEST, RESPONSE, ITEM)
OF_CALLS: Final = (*OF_MESSAGES, END, ERROR, CANCEL, CREDIT)
TERMINAL: Final = (RESPONSE, END, ERROR)
ANSWERS: Final = (*TERMINAL, ITEM)
"""Kinds of the answer half of a call, which may have metadata of their own."""

FROM_EITHER: Final = (*OF_CALLS, PING, PONG, GOAWAY)
"""Kinds that either side may send once the connection is open."""

ONE_WAY, PACKED, ITEMS_FOLLOW, ITEMS_COME_BACK = 0x01, 0x02, 0x04, 0x08
FLAGS_OF_REQUEST: Final = (0, ONE_WAY, ITEMS_FOLLOW, ITEMS_COME_BACK, ITEMS_FOLLOW | ITEMS_COME_BACK)
"""What a REQUEST may have in its flags; every other kind has 0. Frames with a message may have PACKED beside it."""

ZLIB: Final = 1
"""The algorithm by which the judges pack: RFC 1950, without a dictionary."""

# Section 3.

HELLO_MAX_FRAME: Final = 4096
"""The limit of frames until WELCOME, and the least that either side may have after it."""

DIGESTS_FIELD, PACKING_FIELD, EARLY_FIELD, CONTROL_FIELD, FIRST_CREDIT_FIELD, ONE_WAY_CREDIT_FIELD = range(1, 7)
"""Fields at the end of HELLO and WELCOME."""

MIN_HEARTBEAT_MS: Final = 1000
"""The least heartbeat of HELLO and WELCOME that is not 0."""

# Section 4.

TOP_BIT: Final = 0x8000_0000
"""Set in the ids of calls that the server began; the other 31 bits are the number of the call."""

LAST_NUMBER: Final = 0x7FFF_FFFF
"""After which comes 1 again."""

FURTHEST: Final = 0x3FFF_FFFF
"""By which a number may lie ahead of the one before."""

MOST_CROSSED: Final = 1000
"""END, CREDIT and CANCEL of calls that are over, without any call having ended, which are dropped."""

REFILL: Final = 8
"""... and by how many more for each call that ends."""

MOST_CHATTER: Final = 1000
"""Frames of unknown kinds, and PONGs that nobody asked for, that are read over at once."""

CHATTER_PER_FRAME: Final = 4
"""... and how many more for each other frame."""

MOST_STRAYS: Final = 16
"""Frames of calls that whoever reads them would have begun, and which are not in flight, that are dropped."""

# Section 5.

DEADLINE_KEY, TRACEPARENT_KEY, AUTHORIZATION_KEY, IDEMPOTENCY_KEY, CREDIT_KEY, ENTRY_KEY, RESUME_KEY = range(1, 8)
DROPPED_KEY: Final = 8

_KEYS_OF_ANSWERS: Final = (TRACEPARENT_KEY, ENTRY_KEY, DROPPED_KEY)
_FIRST_PRIVATE_KEY: Final = 0x60
"""From which on keys are private, or grease."""

MOST_BESIDE: Final = 7168
"""Bytes of the metadata of an answer with the details of its error."""

DETAILS_FIELD: Final = 1
MOST_DETAILS: Final = 4096

# Section 9.

STATUS_NAMES: Final = {
    0: "OK", 1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND",
    6: "ALREADY_EXISTS", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 10: "ABORTED",
    11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}  # fmt: skip

CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 1, 3, 4, 5
PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION = 7, 8, 9
ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED = 10, 11, 12, 13, 14, 15, 16

NEVER, NOT_PROCESSED, MAYBE_PROCESSED = range(3)

HANDSHAKE_REASONS: Final = {
    "UNKNOWN_SERVICE": NOT_FOUND,
    "UNSUPPORTED_VERSION": FAILED_PRECONDITION,
    "UNSUPPORTED_CODEC": FAILED_PRECONDITION,
    "CONTRACT_MISMATCH": FAILED_PRECONDITION,
}
"""Reasons that refuse a handshake (section 3)."""

REASONS_OF_BOTH: Final = {
    **dict.fromkeys(
        (
            "BAD_BODY", "CALL_ID", "CREDIT_EXCEEDED", "CREDIT_OVERFLOW", "FOREIGN_PROTOCOL", "FRAME_TOO_LARGE",
            "FRAME_TOO_SHORT", "METADATA_OVERRUN", "RESERVED_FLAGS", "STRAY_ANSWERS", "TRUNCATED_FRAME",
            "UNEXPECTED_KIND", "UNEXPECTED_METADATA", "UNKNOWN_KIND", "WRONG_CODEC", "WRONG_HALF", "WRONG_OPCODE",
            "WRONG_VERSION",
        ),
        INVALID_ARGUMENT,
    ),
    "TOO_MANY_FRAMES": RESOURCE_EXHAUSTED,
    "TOO_MANY_PINGS": RESOURCE_EXHAUSTED,
    "UNSUPPORTED_MAJOR": FAILED_PRECONDITION,
}  # fmt: skip
"""Reasons with which either side ends a connection."""

SERVER_REASONS: Final = {
    **REASONS_OF_BOTH,
    "EARLY_FRAME": INVALID_ARGUMENT,
    "FRAME_TIMEOUT": DEADLINE_EXCEEDED,
    "HELLO_TIMEOUT": DEADLINE_EXCEEDED,
    "TOO_MANY_CANCELS": RESOURCE_EXHAUSTED,
    "TOO_MANY_ERRORS": RESOURCE_EXHAUSTED,
}
"""Reasons with which a server ends one."""

FINAL_REASONS: Final = {**SERVER_REASONS, **HANDSHAKE_REASONS, "SHUTTING_DOWN": UNAVAILABLE}
"""What a final ERROR may say."""

CALL_REASONS: Final = {
    "ALREADY_SIGNED_IN": FAILED_PRECONDITION,
    "BAD_METADATA": INVALID_ARGUMENT,
    "BAD_PAYLOAD": INVALID_ARGUMENT,
    "CANCELLED": CANCELLED,
    "DEADLINE": DEADLINE_EXCEEDED,
    "INTERNAL": INTERNAL,
    "ITEM_TIMEOUT": DEADLINE_EXCEEDED,
    "METADATA_TOO_LARGE": RESOURCE_EXHAUSTED,
    "NOT_PERMITTED": PERMISSION_DENIED,
    "NO_HANDLER": UNIMPLEMENTED,
    "POSITION_LOST": OUT_OF_RANGE,
    "REQUEST_TOO_LARGE": RESOURCE_EXHAUSTED,
    "RESPONSE_TOO_LARGE": RESOURCE_EXHAUSTED,
    "SERVER_BUSY": RESOURCE_EXHAUSTED,
    "SHUTTING_DOWN": UNAVAILABLE,
    "SIGN_IN_REQUIRED": UNAUTHENTICATED,
    "SLOW_CONSUMER": RESOURCE_EXHAUSTED,
    "TOO_MANY_CALLS": RESOURCE_EXHAUSTED,
    "UNKNOWN_METADATA": UNIMPLEMENTED,
    "UNKNOWN_OPCODE": UNIMPLEMENTED,
    "WRONG_SHAPE": UNIMPLEMENTED,
}
"""Reasons of calls that any method may be answered with."""

RETRY_OF_CALLS: Final = {
    **dict.fromkeys(CALL_REASONS, NEVER),
    **dict.fromkeys(
        ("CANCELLED", "DEADLINE", "INTERNAL", "ITEM_TIMEOUT", "RESPONSE_TOO_LARGE", "SLOW_CONSUMER"), MAYBE_PROCESSED
    ),
    **dict.fromkeys(("POSITION_LOST", "SERVER_BUSY", "SHUTTING_DOWN", "TOO_MANY_CALLS", "WRONG_SHAPE"), NOT_PROCESSED),
}
"""What is said with each of them, but for the condition that section 9 has."""

INSTEAD_OF_CALLS: Final = {
    **dict.fromkeys(("CANCELLED", "DEADLINE", "INTERNAL", "UNKNOWN_OPCODE"), NOT_PROCESSED),
    **dict.fromkeys(("SHUTTING_DOWN", "SIGN_IN_REQUIRED"), MAYBE_PROCESSED),
}
"""What is said under that condition: whether a handler has begun, which a judge cannot always see."""

STATUS_OF_CALLS: Final = {**CALL_REASONS, "UNKNOWN_SERVICE": NOT_FOUND}
"""The same, and the reason that the framework's own methods declare (section 13)."""

_NAME = re.compile(rb"[a-z0-9._-]{1,64}")
_REASON = re.compile(rb"[A-Z][A-Z0-9_]{0,63}")


class RawHeader(NamedTuple):
    length: int
    kind: int
    flags: int
    codec: int
    version: int
    opcode: int
    metadata_length: int
    call_id: int


class RawFrame(NamedTuple):
    """A frame taken apart by its lengths alone; metadata that claim more than there is end where the frame ends."""

    kind: int
    flags: int
    codec: int
    version: int
    opcode: int
    call_id: int
    metadata: bytes
    payload: bytes


class ErrorBody(NamedTuple):
    status: int
    retry: int
    retry_after_ms: int
    reason: str
    message: str
    details: bytes | None = None


class GoAwayBody(NamedTuple):
    last_call_id: int
    error: ErrorBody


class CreditBody(NamedTuple):
    """What a CREDIT, or key 5 of the metadata, or a field of the handshake grants of one half of a call."""

    items: int
    bytes: int


NOTHING: Final = CreditBody(0, 0)


class WelcomeBody(NamedTuple):
    version: int
    codec: int
    max_frame: int
    max_calls: int
    heartbeat_ms: int
    features: int
    server_name: str
    digests: dict[int, int]
    control: int
    first_credit: CreditBody
    one_way_credit: int
    packing: tuple[int, ...]


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
    control: int
    first_credit: CreditBody
    one_way_credit: int
    packing: tuple[int, ...]
    early: int


# Written ----------------------------------------------------------------------------------------------------------


def frame(
    kind: int,
    payload: bytes = b"",
    metadata: bytes = b"",
    *,
    codec: int = 0,
    version: int = 0,
    opcode: int = 0,
    call_id: int = 0,
    flags: int = 0,
    length: int | None = None,
    metadata_length: int | None = None,
) -> bytes:
    """The bytes of a frame that says what it is told to say.

    Args:
        length: what the length field says; None for the truth. The same for ``metadata_length``.

    Raises:
        struct.error: a number does not fit its field.
    """
    header = HEADER.pack(
        AFTER_LENGTH + len(metadata) + len(payload) if length is None else length,
        kind,
        flags,
        codec,
        version,
        opcode,
        len(metadata) if metadata_length is None else metadata_length,
        call_id,
    )
    return header + metadata + payload


def u16(number: int) -> bytes:
    """A number of two bytes."""
    return number.to_bytes(2, "big")


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def credit_body(items: int, size: int) -> bytes:
    """The body of a CREDIT, and the value of key 5 and of the field of a first credit: items and bytes."""
    return struct.pack(">II", items, size)


def field(key: int, value: bytes) -> bytes:
    """A field of the metadata of a REQUEST."""
    return struct.pack(">BH", key, len(value)) + value


def entry(name: bytes, value: bytes) -> bytes:
    """The caller's own key-value in it."""
    return field(ENTRY_KEY, bytes([len(name)]) + name + value)


def tlv(tag: int, value: bytes) -> bytes:
    """A field at the end of HELLO and WELCOME."""
    return struct.pack(">HH", tag, len(value)) + value


def digest_field(digests: dict[int, int]) -> bytes:
    """The methods that a HELLO or a WELCOME lists."""
    return tlv(DIGESTS_FIELD, b"".join(struct.pack(">HI", opcode, digest) for opcode, digest in digests.items()))


def credit_fields(first: CreditBody, one_way: int) -> bytes:
    """The first credit of every request half that the sender of the fields answers, and its one-way credit."""
    return tlv(FIRST_CREDIT_FIELD, credit_body(*first)) + tlv(ONE_WAY_CREDIT_FIELD, u32(one_way))


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


def packed_body(data: bytes, *, length: int | None = None, cut: int = 0, tail: bytes = b"") -> bytes:
    """A payload packed by zlib, right or wrong.

    Args:
        length: what it says that it stands for; None for the truth.
        cut: bytes that its stream lacks at its end.
        tail: bytes behind the stream.
    """
    stream = zlib.compress(data)
    return u32(len(data) if length is None else length) + stream[: len(stream) - cut] + tail


def goaway_body(last_call_id: int, error: bytes) -> bytes:
    return u32(last_call_id) + error


def _text8(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return bytes([len(data)]) + data


def pack_hello(
    *,
    codecs: Iterable[tuple[int, str | bytes]] = ((2, "msgpack"),),
    service: str | bytes = "",
    versions: tuple[int, int] = (1, 1),
    max_frame: int = 1024 * 1024,
    max_calls: int = 0,
    heartbeat_ms: int = 0,
    features: int = 0,
    client_name: str | bytes = "raw",
    fields: bytes = b"",
) -> bytes:
    """The body of a HELLO, right or wrong. Texts may be bytes, which need not be UTF-8.

    Args:
        versions: oldest and newest.
        fields: what stands at its end, as it is.
    """
    offered = list(codecs)
    head = struct.pack(">BBIIIQB", *versions, max_frame, max_calls, heartbeat_ms, features, len(offered))
    listed = b"".join(bytes([number]) + _text8(name) for number, name in offered)
    return head + listed + _text8(client_name) + _text8(service) + fields


def pack_welcome(
    *,
    version: int = 1,
    codec: int = 2,
    max_frame: int = 1024 * 1024,
    max_calls: int = 256,
    heartbeat_ms: int = 0,
    features: int = 0,
    server_name: str | bytes = "raw",
    fields: bytes = b"",
) -> bytes:
    """The body of a WELCOME, right or wrong, as ``pack_hello``."""
    head = struct.pack(">BBIIIQ", version, codec, max_frame, max_calls, heartbeat_ms, features)
    return head + _text8(server_name) + fields


# Read -------------------------------------------------------------------------------------------------------------


def read_header(data: bytes | bytearray, at: int = 0) -> RawHeader:
    """The header that begins at ``at``, where sixteen bytes are."""
    return RawHeader(*HEADER.unpack_from(data, at))


def read_frame(data: bytes) -> RawFrame:
    """The frame that ``data`` is, from its length to its last byte."""
    _, kind, flags, codec, version, opcode, metadata_length, call_id = read_header(data)
    body = data[HEADER.size :]
    return RawFrame(kind, flags, codec, version, opcode, call_id, body[:metadata_length], body[metadata_length:])


def is_ahead(call_id: int, last: int) -> bool:
    """Section 4: whether a client's REQUEST may have this id behind the last one: less than half the circle away."""
    return 1 <= call_id <= LAST_NUMBER and 0 < (call_id - last) % (LAST_NUMBER + 1) <= FURTHEST


def next_id(last: int) -> int:
    """Section 4: a client's id that follows; after the last one comes 1."""
    return last % LAST_NUMBER + 1


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


def read_error(payload: bytes, what: str = "the body of ERROR", at: int = 0, *, sent: bool = True) -> ErrorBody:
    """Section 6.

    Args:
        sent: held to what a sender may say. False for the rules of a reader, which takes numbers and reasons that it
            does not know, and a message of any length.
    """
    reader = _Reader(what, payload)
    reader.at = at
    status, retry, after = reader.number(1), reader.number(1), reader.number(4)
    reason = reader.take(reader.number(1))
    if not status or (sent and status > 16):
        raise reader.broken(f"the status is {status}")
    if sent and retry > 2:
        raise reader.broken(f"retry is {retry}")
    if sent and reason and not _REASON.fullmatch(reason):
        raise reader.broken(f"the reason is {reason!r}")
    size_at = reader.at
    message = reader.text(2)
    if sent and reader.at - size_at - 2 > 2048:
        raise reader.broken("the message is longer than 2048 bytes")
    details: bytes | None = None
    for tag, value in reader.fields(1):  # all others are read over, if they are well formed
        if tag == DETAILS_FIELD and details is None:
            details = value
    if sent and details is not None:
        name = _Reader(f"the details of {what}", details)
        if not name.text(1) or len(details) > MOST_DETAILS:
            raise name.broken(f"they have {len(details)} bytes, and must have a name and at most {MOST_DETAILS}")
    return ErrorBody(status, retry, after, reason.decode("latin-1"), message, details)


def read_goaway(payload: bytes) -> GoAwayBody:
    """Section 6."""
    if len(payload) < 4:
        raise Deviation(f"the body of GOAWAY has {len(payload)} bytes")
    why = read_error(payload, "the body of GOAWAY", 4)
    if why.details is not None:
        raise Deviation("GOAWAY has details, which errors of calls alone have")
    return GoAwayBody(int.from_bytes(payload[:4], "big"), why)


def read_credit(payload: bytes, call_id: int = 1) -> CreditBody:
    """Section 6: the body of a CREDIT; without a call it is that of one-way calls."""
    if len(payload) != 8:
        raise Deviation(f"the body of CREDIT has {len(payload)} bytes")
    found = CreditBody(*struct.unpack(">II", payload))
    if found == NOTHING:
        raise Deviation("CREDIT grants nothing")
    if not call_id and found.bytes:
        raise Deviation(f"CREDIT of one-way calls grants {found.bytes} bytes")
    return found


def read_packed(payload: bytes) -> bytes:
    """Section 2: what a payload stands for that is packed by zlib."""
    if len(payload) < 5:
        raise Deviation(f"a packed payload has {len(payload)} bytes; the least is 5")
    length = int.from_bytes(payload[:4], "big")
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(payload[4:], length + 1)
    except zlib.error as error:
        raise Deviation(f"a packed payload cannot be unpacked: {error}") from None
    if len(data) != length or not length:
        raise Deviation(f"a packed payload says {length} bytes and holds {len(data)}, or more")
    if not reader.eof or reader.unused_data:
        raise Deviation(f"the stream of a packed payload is cut, or {len(reader.unused_data)} bytes follow it")
    return data


def read_welcome(payload: bytes) -> WelcomeBody:
    """Section 3."""
    reader = _Reader("the body of WELCOME", payload)
    version, codec, max_frame, max_calls, heartbeat, features = (reader.number(size) for size in (1, 1, 4, 4, 4, 8))
    server_name = reader.text(1)
    found = WelcomeBody(
        version, codec, max_frame, max_calls, heartbeat, features, server_name, *_greeting_fields(reader)[:-1]
    )
    if not found.version or not found.codec:
        raise Deviation(f"WELCOME chooses version {found.version} and codec {found.codec}")
    if found.max_frame < HELLO_MAX_FRAME:
        raise Deviation(f"WELCOME's max frame is {found.max_frame}; it is at least 4096")
    if not found.max_calls:
        raise Deviation("WELCOME's max calls is 0; it is at least 1")
    if 0 < found.heartbeat_ms < MIN_HEARTBEAT_MS:
        raise Deviation(f"WELCOME's heartbeat is {found.heartbeat_ms} ms; it is 0 or at least 1000")
    if len(found.packing) > 1:
        raise Deviation(f"WELCOME chooses the algorithms {list(found.packing)}; there is one")
    return found


def read_hello(payload: bytes) -> HelloBody:
    """Section 3."""
    reader = _Reader("the body of HELLO", payload)
    versions = reader.number(1), reader.number(1)
    max_frame, max_calls, heartbeat, features = (reader.number(size) for size in (4, 4, 4, 8))
    codecs = [(reader.number(1), reader.text(1)) for _ in range(reader.number(1))]
    client_name, service = reader.text(1), reader.text(1)
    fields = _greeting_fields(reader, early=True)
    if not 1 <= versions[0] <= versions[1]:
        raise reader.broken(f"the versions are {versions[0]} to {versions[1]}")
    if max_frame < HELLO_MAX_FRAME:
        raise reader.broken(f"max frame is {max_frame}")
    if 0 < heartbeat < MIN_HEARTBEAT_MS:
        raise reader.broken(f"the heartbeat is {heartbeat} ms")
    if not codecs or len({number for number, _ in codecs}) != len(codecs):
        raise reader.broken("no codec is offered, or one twice")
    for number, name in codecs:
        if not number or not re.fullmatch(r"[a-z][a-z0-9_.-]{0,31}", name):
            raise reader.broken(f"codec {number} is called {name!r}")
    return HelloBody(versions, max_frame, max_calls, heartbeat, features, codecs, client_name, service, *fields)


class _GreetingFields(NamedTuple):
    digests: dict[int, int]
    control: int
    first_credit: CreditBody
    one_way_credit: int
    packing: tuple[int, ...]
    early: int


def _greeting_fields(reader: _Reader, *, early: bool = False) -> _GreetingFields:
    """Section 3: the methods that are listed, the control version, the two credits, which grant nothing where they are
    absent, and the algorithms. ``early`` for HELLO, which alone says how many bytes of REQUESTs follow it.
    """
    known: dict[int, bytes] = {
        DIGESTS_FIELD: b"",
        CONTROL_FIELD: b"\1",
        FIRST_CREDIT_FIELD: bytes(8),
        ONE_WAY_CREDIT_FIELD: bytes(4),
        PACKING_FIELD: b"",
        **({EARLY_FIELD: bytes(2)} if early else {}),
    }
    seen = set()
    for tag, value in reader.fields(2):
        if tag in known:
            if tag in seen:
                raise reader.broken(f"field {tag} is there twice")
            known[tag] = value
        seen.add(tag)
    listed, control, first, one_way, packing, *announced = known.values()
    if announced and len(announced[0]) != 2:
        raise reader.broken(f"the number of early bytes has {len(announced[0])} bytes")
    if len(listed) % 6:
        raise reader.broken("the list of methods is no list of pairs")
    pairs = [struct.unpack_from(">HI", listed, at) for at in range(0, len(listed), 6)]
    digests = dict(pairs)
    if len(digests) != len(pairs):
        raise reader.broken("an opcode is listed twice")
    if len(control) != 1 or not control[0]:
        raise reader.broken(f"the control version is {control!r}")
    if (len(first), len(one_way)) != (8, 4):
        raise reader.broken(f"the fields of credit have {len(first)} and {len(one_way)} bytes")
    if 0 in packing or len(set(packing)) < len(packing) or (PACKING_FIELD in seen and not packing):
        raise reader.broken(f"the algorithms are {list(packing)}: 1 to 255, each once")
    return _GreetingFields(
        digests,
        control[0],
        CreditBody(*struct.unpack(">II", first)),
        int.from_bytes(one_way, "big"),
        tuple(packing),
        int.from_bytes(announced[0], "big") if announced else 0,
    )


def read_metadata(block: bytes) -> dict[int, list[bytes]]:
    """Section 5: the values by key, its top bit left out."""
    found: dict[int, list[bytes]] = {}
    for key, value in _Reader("the metadata", block).fields(1):
        found.setdefault(key & 0x7F, []).append(value)
    for key, values in found.items():
        if key != ENTRY_KEY and len(values) > 1:
            raise Deviation(f"metadata key {key} is there {len(values)} times")
    return found


def check_answer_metadata(kind: int, block: bytes, details: int = 0) -> None:
    """Section 5, of what answers a call: what its sender may write.

    Args:
        kind: of the frame.
        block: its metadata.
        details: bytes of the details of the error.
    """
    names: set[bytes] = set()
    for key, values in read_metadata(block).items():
        if key < _FIRST_PRIVATE_KEY and key not in _KEYS_OF_ANSWERS:
            raise Deviation(f"{kind_name(kind)} has metadata key {key}, which means nothing beside an answer")
        for value in values:
            if key == ENTRY_KEY:
                name = value[1 : 1 + value[0]] if value else b""
                if not _NAME.fullmatch(name) or name in names:
                    raise Deviation(f"an entry beside {kind_name(kind)} has the name {name!r}, or has it twice")
                names.add(name)
            if key == DROPPED_KEY and len(value) != 4:
                raise Deviation(f"dropped beside {kind_name(kind)} has {len(value)} bytes and not 4")
            if key == DROPPED_KEY and kind not in (ITEM, END):
                raise Deviation(f"{kind_name(kind)} says that items were left out")
    if len(block) + details > MOST_BESIDE:
        raise Deviation(f"{kind_name(kind)} has {len(block)} bytes of metadata and {details} of details")


def may_say(reason: str, retry: int) -> bool:
    """Section 9: whether an ERROR with one of the reasons of calls may have this retry."""
    return retry in (RETRY_OF_CALLS[reason], INSTEAD_OF_CALLS.get(reason, RETRY_OF_CALLS[reason]))


def kind_name(kind: int) -> str:
    """Of a kind, for a person."""
    return KIND_NAMES.get(kind, f"a frame of kind {kind}")


def shown(frame: RawFrame) -> str:
    """A frame for a person."""
    call = f" of call {frame.call_id:#x}" if frame.call_id & TOP_BIT else f" of call {frame.call_id}"
    call = call if frame.call_id else ""
    if frame.kind == ERROR:
        error = read_error(frame.payload)
        return f"ERROR{call or ' (final)'} {error.reason or 'without a reason'}, status {error.status}: {error.message}"
    return f"{kind_name(frame.kind)}{call} with {len(frame.payload)} bytes of payload"
