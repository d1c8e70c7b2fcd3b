"""Messages that need not be right, and how somebody else would write them in each format.

A codec of ours writes nothing wrong, so what it must refuse has to come from elsewhere: three writers made from the
formats' own texts, sharing nothing with `wireproto.codecs`. They know no declaration, only what stands in the tree
they are given, and write whatever the format can say; what it cannot is `Unwritable`.
"""

import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from wireproto import schema
from wireproto.schema import FieldType, Message, Scalar

__all__ = ["WRITERS", "Pairs", "Writer", "Record", "Stamp", "Text", "Twice", "Unwritable", "loose", "loose_value"]


class Record(NamedTuple):
    """A message: the values of its fields in order, None for those that are absent."""

    fields: list[Any]


class Pairs(NamedTuple):
    """A map, whose keys may be there twice."""

    items: list[tuple[Any, Any]]


class Stamp(NamedTuple):
    """A moment: whole seconds since 1970-01-01T00:00:00Z, nanoseconds on top of them, and the zone it is said in."""

    seconds: int
    nanos: int = 0
    zone: str = "Z"


class Text(NamedTuple):
    """The bytes that stand where those of a str should."""

    octets: bytes


class Twice(NamedTuple):
    """One field, written two times."""

    first: Any
    second: Any


class Unwritable(Exception):
    """The format has no way to say this."""


Writer = Callable[[Record], bytes]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def loose(message: Message, version: int | None = None) -> Record:
    """The tree of a message in one version of its service."""
    declared = schema.fields(type(message), version)
    return Record([loose_value(getattr(message, field.name), field.type, version) for field in declared])


def loose_value(value: Any, kind: FieldType, version: int | None = None) -> Any:
    """The tree of one value of a type."""
    if value is None:
        return None
    if kind.shape == "list":
        return [loose_value(each, kind.element, version) for each in value]
    if kind.key is not None:
        return Pairs([(key, loose_value(each, kind.element, version)) for key, each in value.items()])
    if kind.scalar is Scalar.MESSAGE:
        return loose(value, version)
    if kind.scalar is Scalar.DATETIME:
        since = value - _EPOCH
        return Stamp(since.days * 86_400 + since.seconds, since.microseconds * 1000)
    return int(value) if kind.scalar is Scalar.ENUM else value


# Pipe -----------------------------------------------------------------------------------------------------------

_ESCAPES: Final = {"\\": "\\\\", "|": "\\p", "\n": "\\n", "\r": "\\r"}
_INSIDE: Final = {**_ESCAPES, **{each: f"\\x{ord(each):02x}" for each in ",:()[]{}"}}


def _pipe(tree: Record) -> bytes:
    return b"|".join(_pipe_value(each, inside=False) for each in tree.fields)


def _pipe_value(value: Any, *, inside: bool) -> bytes:
    match value:
        case None:
            return b"\\N"
        case bool():
            return b"true" if value else b"false"
        case int():
            return str(value).encode()
        case float():
            return repr(value).encode()
        case str():
            escapes = _INSIDE if inside else _ESCAPES
            return "".join(escapes.get(each, each) for each in value).encode() or (b"\\e" if inside else b"")
        case bytes():
            return value.hex().encode() or (b"\\e" if inside else b"")
        case Text():
            return value.octets
        case Stamp():
            return _pipe_stamp(value)
        case Record():
            return b"(" + b",".join(_pipe_value(each, inside=True) for each in value.fields) + b")"
        case Pairs():
            pairs = (_pipe_value(key, inside=True) + b":" + _pipe_value(each, inside=True) for key, each in value.items)
            return b"{" + b",".join(pairs) + b"}"
        case list():
            return b"[" + b",".join(_pipe_value(each, inside=True) for each in value) + b"]"
    raise Unwritable


def _pipe_stamp(value: Stamp) -> bytes:
    if not 0 <= value.nanos < 10**9:
        raise Unwritable  # it would be another second
    days, second = divmod(value.seconds, 86_400)
    # The calendar by arithmetic, in eras of 400 years that begin in March: datetime ends with the year 9999.
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (month <= 2)
    micros, rest = divmod(value.nanos, 1000)
    digits = f"{micros:06}{rest:03}" if rest else f"{micros:06}"
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f"{year:04}-{month:02}-{day:02}T{clock}.{digits}{value.zone}".encode()


# MessagePack ----------------------------------------------------------------------------------------------------


def _msgpack(value: Any) -> bytes:
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return _msgpack_int(value)
        case float():
            return struct.pack(">Bd", 0xCB, value)
        case str():
            return _msgpack(Text(value.encode()))
        case Text():
            return _msgpack_head(len(value.octets), (0xA0, 32), (0xD9, 0xDA, 0xDB)) + value.octets
        case bytes():
            return _msgpack_head(len(value), (0, 0), (0xC4, 0xC5, 0xC6)) + value
        case Stamp():
            if value.nanos % 1000 or not 0 <= value.nanos < 10**9 or value.zone != "Z":
                raise Unwritable
            return _msgpack_int(value.seconds * 1_000_000 + value.nanos // 1000)
        case Record():
            return _msgpack(value.fields)
        case list():
            return _msgpack_head(len(value), (0x90, 16), (0, 0xDC, 0xDD)) + b"".join(map(_msgpack, value))
        case Pairs():
            pairs = (_msgpack(key) + _msgpack(each) for key, each in value.items)
            return _msgpack_head(len(value.items), (0x80, 16), (0, 0xDE, 0xDF)) + b"".join(pairs)
    raise Unwritable


def _msgpack_int(value: int) -> bytes:
    if -32 <= value < 128:
        return struct.pack(">b", value)
    for size, (unsigned, signed) in ((8, "Bb"), (16, "Hh"), (32, "Ii"), (64, "Qq")):
        step = size.bit_length() - 4
        if 0 <= value < 2**size:
            return struct.pack(f">B{unsigned}", 0xCC + step, value)
        if -(2 ** (size - 1)) <= value < 0:
            return struct.pack(f">B{signed}", 0xD0 + step, value)
    raise Unwritable


def _msgpack_head(size: int, short: tuple[int, int], codes: tuple[int, int, int]) -> bytes:
    """A type and a length, in the shortest of the forms that there are."""
    if size < short[1]:
        return bytes([short[0] + size])
    if size < 2**8 and codes[0]:
        return bytes([codes[0], size])
    return struct.pack(">BH", codes[1], size) if size < 2**16 else struct.pack(">BI", codes[2], size)


# Protobuf -------------------------------------------------------------------------------------------------------


def _protobuf(tree: Record) -> bytes:
    return b"".join(_protobuf_field(number, value) for number, value in enumerate(tree.fields, 1))


def _protobuf_field(number: int, value: Any) -> bytes:
    match value:
        case None:
            return b""
        case bool() | int():
            return _varint(number << 3) + _protobuf_int(value)
        case float():
            return _varint(number << 3 | 1) + struct.pack("<d", value)
        case Twice():
            return _protobuf_field(number, value.first) + _protobuf_field(number, value.second)
        case list():
            # One by one: what our codec writes packed, a reader must take either way.
            return b"".join(_protobuf_element(number, each) for each in value)
        case Pairs():
            return b"".join(_protobuf_octets(number, _protobuf_entry(key, each)) for key, each in value.items)
    return _protobuf_octets(number, _protobuf_content(value))


def _protobuf_element(number: int, value: Any) -> bytes:
    if value is None:
        raise Unwritable
    return _protobuf_single(number, value)


def _protobuf_entry(key: Any, value: Any) -> bytes:
    return _protobuf_single(1, key) + _protobuf_single(2, value)


def _protobuf_single(number: int, value: Any) -> bytes:
    if isinstance(value, list | Pairs):
        raise Unwritable
    return _protobuf_field(number, value)


def _protobuf_octets(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _protobuf_content(value: Any) -> bytes:
    match value:
        case str():
            return value.encode()
        case bytes():
            return value
        case Text():
            return value.octets
        case Record():
            return _protobuf(value)
        case Stamp():
            if value.zone != "Z":
                raise Unwritable
            return _protobuf(Record([value.seconds, value.nanos]))
    raise Unwritable


def _protobuf_int(value: int) -> bytes:
    if not -(2**63) <= value < 2**64:
        raise Unwritable
    return _varint(value & (2**64 - 1))


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


WRITERS: Final[Mapping[str, Writer]] = {"pipe": _pipe, "msgpack": _msgpack, "protobuf": _protobuf}
"""The writers, by the name of the codec that is to read what they write."""
