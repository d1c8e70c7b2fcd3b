"""Where the formats differ in what they make of a fault, and what comes of one in a codec.

The rule is that all codecs judge alike: all refuse a message and name the same field, or all read the same message.
`DIFFERENCES` lists where a format cannot follow. It is the table "Where the formats differ" of ``docs/values.md``,
and complete: what is not in it is a fault of a codec.
"""

import re
import struct
from typing import Any, Final, NamedTuple

from wireproto.codecs import Plan
from wireproto.errors import DecodeError
from wireproto.testing.foreign import Pairs, Record, Unwritable, Writer, loose
from wireproto.testing.spoilt import DEFAULT, REFUSED, WHOLE, Spoilt

__all__ = ["DIFFERENCES", "UNWRITABLE", "Difference", "difference", "expected", "meaning", "verdict"]

UNWRITABLE: Final = "-"
"""The format has no way to say it."""


class Difference(NamedTuple):
    """A row of the table; an empty tuple is everything, and everywhere."""

    written: tuple[str, ...]
    declared: tuple[str, ...]
    where: tuple[str, ...]
    pipe: str
    msgpack: str
    protobuf: str


_BITS: Final = ("bool", "int", "UInt64", "enum")
_NUMBERS: Final = (*_BITS, "float")
_ALONE: Final = ("field", "nested", "map", "key")
_FIELDS: Final = ("field", "nested")

DIFFERENCES: Final = (
    Difference(("none",), (), ("field", "nested", "map"), REFUSED, REFUSED, DEFAULT),
    Difference(("part of a microsecond",), ("datetime",), (), REFUSED, UNWRITABLE, "cut"),
    Difference(("one field less",), ("message",), (), REFUSED, REFUSED, DEFAULT),
    Difference(("the field twice",), (), (), UNWRITABLE, UNWRITABLE, "the last"),
    Difference(("a key twice",), ("map",), (), REFUSED, REFUSED, "the last"),
    Difference(("list",), _BITS, _FIELDS, REFUSED, REFUSED, "the last"),
    Difference(("one element alone",), ("list",), (), REFUSED, REFUSED, "its items"),
    Difference(("message",), ("list",), (), REFUSED, "its items", "packed"),
    Difference(("bool", "int", "negative int", "int from 2^63 on"), _BITS, (), REFUSED, REFUSED, "its bits"),
    Difference(("int", "negative int"), ("float",), (), "its value", "its value", REFUSED),
    Difference(("int that no float equals",), ("float",), (), "the nearest", REFUSED, REFUSED),
    Difference(("int", "negative int"), ("datetime",), (), REFUSED, "its number", REFUSED),
    Difference(("datetime",), ("int", "UInt64", "float"), _ALONE, REFUSED, "its number", REFUSED),
    Difference(("datetime",), ("int", "UInt64", "float"), ("list",), REFUSED, "its number", "packed"),
    Difference(("datetime",), ("bool",), ("list",), REFUSED, REFUSED, "packed"),
    Difference(("str", "bytes", "message"), _NUMBERS, ("list",), REFUSED, REFUSED, "packed"),
    Difference(("str that spells it",), _NUMBERS, _ALONE, "its text", REFUSED, REFUSED),
    Difference(("str that spells it",), _NUMBERS, ("list",), "its text", REFUSED, "packed"),
    Difference(
        ("bool", "int", "negative int", "float", "whole float", "list"), ("str",), (), "its text", REFUSED, REFUSED
    ),
    Difference(("bytes", "datetime", "message", "map"), ("str",), (), "its text", REFUSED, "its bytes"),
    Difference(("int",), ("bytes",), (), "its text", REFUSED, REFUSED),
    Difference(("str", "datetime", "message", "map"), ("bytes",), (), REFUSED, REFUSED, "its bytes"),
    Difference(("str", "bytes", "message"), ("datetime", "message"), (), REFUSED, REFUSED, "its bytes"),
)


def difference(fault: Spoilt) -> Difference | None:
    """The row that a fault is in, if any."""
    for row in DIFFERENCES:
        places = ((fault.written, row.written), (fault.declared, row.declared), (fault.where, row.where))
        if all(not listed or mine in listed for mine, listed in places):
            return row
    return None


def expected(fault: Spoilt, codec: str) -> tuple[str, ...]:
    """What may come of a fault in a codec: the listed difference, or else the rule."""
    word: str = getattr(difference(fault), codec, fault.rule)
    if word == UNWRITABLE:
        return (UNWRITABLE,)
    if word in fault.readings and fault.readings[word] is None:
        # What it would be taken for is no value of the type, or not even well formed.
        return REFUSED, WHOLE, UNWRITABLE
    return word, UNWRITABLE


def verdict(fault: Spoilt, plan: Plan[Any], write: Writer, version: int | None = None) -> str:
    """What comes of a fault: refused, or the word of a reading; what is neither is said in full."""
    try:
        payload = write(fault.tree)
    except Unwritable:
        return UNWRITABLE
    try:
        found = plan.decode(payload)
    except DecodeError as error:
        named, where, around = _uncounted(error.path), _uncounted(fault.path), _uncounted(fault.path.rpartition("[")[0])
        # What cannot be an element of any list or map is the field's fault; and bytes may be many elements, packed.
        packed = fault.where == "list" and named.rpartition("[")[0] == around
        if named in (where, around) or packed or named.startswith((f"{where}.", f"{where}[")):
            return REFUSED
        return WHOLE if where.startswith((f"{named}.", f"{named}[")) else f"refused at {error.path}"
    got = meaning(loose(found, version))
    for word, reading in fault.readings.items():
        if reading is not None and meaning(reading) == got:
            return word
    return f"read as {found!r}"


def _uncounted(path: str) -> str:
    """A path without the numbers of map entries: a format's library goes through them in an order of its own."""
    return re.sub(r"#\d+", "#", path)


def meaning(value: Any) -> object:
    """What two trees have in common if and only if they are the same message, NaN and -0.0 included."""
    match value:
        case Record():
            return ("message", *map(meaning, value.fields))
        case list():
            return ("list", *map(meaning, value))
        case Pairs():
            return frozenset((key, meaning(each)) for key, each in value.items)
        case float():
            return "nan" if value != value else struct.pack(">d", value)
    return (type(value), value)
