"""Section 12: the codec msgpack."""

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.conformance.paged.declared import ENUMS, fields_of
from tests.conformance.paged.numbers import bad
from tests.conformance.paged.values import RANGES, at, judged

__all__ = ["decode", "encode"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def head(size: int, fixed: int, most: int, numbers: tuple[int, ...]) -> bytes:
    """A length: within the byte where there is room for it, else in the shortest of the formats that there are."""
    if size < most:
        return bytes([fixed | size])
    for width, number in zip((1, 2, 4), numbers, strict=True):
        if number and size < 256**width:
            return bytes([number]) + size.to_bytes(width)
    raise ValueError(size)


def written(type_: Any, value: Any, version: int) -> bytes:
    match type_:
        case ("optional", inner):
            return b"\xc0" if value is None else written(inner, value, version)
        case ("list", inner):
            parts = [written(inner, each, version) for each in value]
            return head(len(parts), 0x90, 16, (0, 0xDC, 0xDD)) + b"".join(parts)
        case ("map", key, inner):
            pairs = [written(key, each, version) + written(inner, value[each], version) for each in sorted(value)]
            return head(len(pairs), 0x80, 16, (0, 0xDE, 0xDF)) + b"".join(pairs)
        case ("message", name):
            parts = [written(each.type, value[each.name], version) for each in fields_of(name, version)]
            return head(len(parts), 0x90, 16, (0, 0xDC, 0xDD)) + b"".join(parts)
        case "bool":
            return b"\xc3" if value else b"\xc2"
        case "float":
            return b"\xcb" + (bytes.fromhex("7ff8000000000000") if value != value else struct.pack(">d", value))
        case "str":
            data = str(value).encode()
            return head(len(data), 0xA0, 32, (0xD9, 0xDA, 0xDB)) + data
        case "bytes":
            return head(len(value), 0, 0, (0xC4, 0xC5, 0xC6)) + bytes(value)
        case "datetime":
            return integer((value - EPOCH) // timedelta(microseconds=1))
    return integer(value)


def integer(value: int) -> bytes:
    """The shortest form, in the unsigned formats where it is not negative."""
    if -32 <= value < 128:
        return struct.pack(">b", value)
    for width, (unsigned, signed) in enumerate(((0xCC, 0xD0), (0xCD, 0xD1), (0xCE, 0xD2), (0xCF, 0xD3))):
        bits = 8 << width
        if 0 <= value < 2**bits:
            return bytes([unsigned]) + value.to_bytes(1 << width)
        if -(2 ** (bits - 1)) <= value < 0:
            return bytes([signed]) + value.to_bytes(1 << width, signed=True)
    raise ValueError(value)


class Reader:
    def __init__(self, data: bytes, version: int) -> None:
        self.data, self.at, self.version = data, 0, version

    def take(self, size: int) -> bytes:
        if len(self.data) - self.at < size:
            raise bad("it ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), signed=signed)

    def length(self, first: int, fixed: range, numbers: tuple[int, ...]) -> int:
        if first in fixed:
            return first - fixed.start
        if first in numbers and first:
            return self.number(1 << numbers.index(first))
        raise bad(f"{first:#04x} stands where something else belongs")

    def integer(self, first: int) -> int:
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 256
        if 0xCC <= first <= 0xD3:
            return self.number(1 << (first - 0xCC) % 4, signed=first >= 0xD0)
        raise bad("no integer")

    def value(self, type_: Any) -> Any:
        if type_[0] == "optional":
            if self.data[self.at : self.at + 1] == b"\xc0":
                self.at += 1
                return None
            return self.value(type_[1])
        first = self.number(1)
        match type_:
            case ("list", inner):
                return [self.value(inner) for _ in range(self.length(first, range(0x90, 0xA0), (0, 0xDC, 0xDD)))]
            case ("map", key, inner):
                found: dict[Any, Any] = {}
                for _ in range(self.length(first, range(0x80, 0x90), (0, 0xDE, 0xDF))):
                    name = self.value(key)
                    if name in found:
                        raise bad("a key is there twice")
                    found[name] = self.value(inner)
                return found
            case ("message", name):
                self.at -= 1
                return self.message(name)
            case "bool" if first in (0xC2, 0xC3):
                return first == 0xC3
            case "float" if first in (0xCA, 0xCB):
                (number,) = struct.unpack(">f" if first == 0xCA else ">d", self.take(4 if first == 0xCA else 8))
                return number
            case "float":
                whole = self.integer(first)
                if float(whole) != whole:
                    raise bad("an integer that no float equals")
                return float(whole)
            case "str":
                try:
                    return self.take(self.length(first, range(0xA0, 0xC0), (0xD9, 0xDA, 0xDB))).decode()
                except UnicodeDecodeError:
                    raise bad("no UTF-8") from None
            case "bytes":
                return self.take(self.length(first, range(0), (0xC4, 0xC5, 0xC6)))
            case "datetime":
                try:
                    return EPOCH + timedelta(microseconds=self.integer(first))
                except OverflowError:
                    raise bad("no moment") from None
            case ("enum", name):
                found_number = self.integer(first)
                if found_number not in ENUMS[name].values():
                    raise bad("no member")
                return found_number
            case "int" | "uint":
                number, (low, high) = self.integer(first), RANGES[type_]
                if low <= number <= high:
                    return number
        raise bad(f"no {type_}")

    def message(self, name: str) -> dict[str, Any]:
        own = fields_of(name, self.version)
        count = self.length(self.number(1), range(0x90, 0xA0), (0, 0xDC, 0xDD))
        if count != len(own):
            raise bad(f"{name} has {len(own)} fields")
        made = {}
        for field in own:
            with at(name, field):
                made[field.name] = judged(field, self.value(field.type))
        return made


def decode(message: str, payload: bytes, version: int) -> dict[str, Any]:
    reader = Reader(payload, version)
    made = reader.message(message)
    if reader.at != len(payload):
        raise bad("bytes behind the message")
    return made


def encode(message: str, value: dict[str, Any], version: int) -> bytes:
    return written(("message", message), value, version)
