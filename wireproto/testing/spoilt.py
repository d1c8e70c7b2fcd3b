"""Messages with one fault each: every way a plain message can be spoilt, and what the result might be taken for.

A fault is made in the tree of a message and written in every format by `wireproto.testing.foreign`, so that all codecs
judge the same thing. With it goes each message that a reader could make of it for a reason: the field's default, where
nothing stands; the same bits, as another type; and so on. Those are worked out here from ``docs/values.md`` and share
nothing with the codecs.
"""

import enum
import itertools
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, cast

from wireproto import schema
from wireproto.schema import Bounds, Field, FieldType, Message, Scalar
from wireproto.testing.foreign import WRITERS, Pairs, Record, Stamp, Text, Twice, loose, loose_value

__all__ = ["DEFAULT", "REFUSED", "WHOLE", "Spoilt", "spoil"]

REFUSED: Final = "refused"
WHOLE: Final = "refused as a whole"
"""Refused, with the path of a message around the field: there is no telling where in it."""
DEFAULT: Final = "the default"


@dataclass(frozen=True)
class Spoilt:
    """A message with one thing wrong in it.

    Attributes:
        written: what stands there.
        declared: the type of the field it stands in, or of the element, value or key.
        where: ``field``, ``nested`` (a field of a nested message), ``list``, ``map`` or ``key``.
        path: of the field, as an error must name it.
        tree: the message, for the raw writers.
        rule: what comes of it, unless a format cannot follow: refused, or the word of a reading.
        readings: the messages that it may be taken for, by the word that says how; None where that is no message.
    """

    written: str
    declared: str
    where: str
    path: str
    tree: Record
    rule: str = REFUSED
    readings: Mapping[str, Record | None] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.written} for {self.declared} ({self.where}) at {self.path}"


# Places ---------------------------------------------------------------------------------------------------------


class _Place(NamedTuple):
    """One value in a message: where it stands, and what was declared for it."""

    root: Record
    steps: tuple[Any, ...]
    where: str
    path: str
    kind: FieldType
    value: Any
    owner: Field
    """The field that it is the value of, or an element, value or key in."""

    def put(self, value: Any) -> Record:
        """The message with another value there."""
        return cast(Record, _put(self.root, self.steps, value))


def _put(tree: Any, steps: tuple[Any, ...], value: Any) -> Any:
    if not steps:
        return value
    step, *rest = steps
    if isinstance(tree, Pairs):
        index, part = step
        pair = list(tree.items[index])
        pair[part] = _put(pair[part], tuple(rest), value)
        return Pairs([*tree.items[:index], (pair[0], pair[1]), *tree.items[index + 1 :]])
    values = tree.fields if isinstance(tree, Record) else tree
    changed = [*values[:step], _put(values[step], tuple(rest), value), *values[step + 1 :]]
    return Record(changed) if isinstance(tree, Record) else changed


def _places(
    root: Record, tree: Record, steps: tuple[Any, ...], cls: type[Message], version: int | None, path: str
) -> Iterator[_Place]:
    for number, (owner, value) in enumerate(zip(schema.fields(cls, version), tree.fields, strict=True)):
        at, here, kind = f"{path}.{owner.name}", (*steps, number), owner.type
        yield _Place(root, here, "nested" if steps else "field", at, kind, value, owner)
        within = [(here, at, value)]
        if isinstance(value, list):
            within = [((*here, index), f"{at}[{index}]", each) for index, each in enumerate(value)]
            for inner, where, each in within:
                yield _Place(root, inner, "list", where, kind.element, each, owner)
        elif isinstance(value, Pairs):
            within = [((*here, (index, 1)), f"{at}[#{index}]", each) for index, (_, each) in enumerate(value.items)]
            key = FieldType("single", cast(Scalar, kind.key))
            for index, (inner, where, each) in enumerate(within):
                yield _Place(root, inner, "map", where, kind.element, each, owner)
                if kind.size is None or (kind.size.min_length or 0) < 2:
                    # By itself, or what it is taken for might be another entry's key.
                    alone = _put(root, here, Pairs([value.items[index]]))
                    yield _Place(alone, (*here, (0, 0)), "key", where, key, value.items[index][0], owner)
        for inner, where, each in within:
            if isinstance(each, Record):
                yield from _places(root, each, inner, cast(type[Message], kind.cls), version, where)


# Faults ---------------------------------------------------------------------------------------------------------


def spoil(message: Message, version: int | None = None, *, begin: int = 0, step: int = 1) -> Iterator[Spoilt]:
    """Every fault that a message can have, one at a time.

    Args:
        message: one that is right.
        version: of the service; None is the newest.
        begin: the first place to spoil, of those that the message has, which are counted from field to field.
        step: 1 to spoil every place after that, n for every n-th.
    """
    tree, cls = loose(message, version), type(message)
    places = _places(tree, tree, (), cls, version, cls.__name__)
    if not begin:
        yield from _of_message(tree, (), tree, cls, version, cls.__name__)
    for place in itertools.islice(places, begin, None, step):
        if place.kind.shape == "list":
            yield from _of_list(place)
        elif place.kind.shape == "map":
            yield from _of_map(place)
        else:
            yield from _wrong_types(place)
            yield from _wrong_values(place)
            if isinstance(place.value, Record):
                nested = cast(type[Message], place.kind.cls)
                yield from _of_message(tree, place.steps, place.value, nested, version, place.path)


def _of_message(
    root: Record, steps: tuple[Any, ...], tree: Record, cls: type[Message], version: int | None, path: str
) -> Iterator[Spoilt]:
    where = "nested" if steps else "field"
    yield Spoilt("one field more", "message", where, path, _put(root, steps, Record([*tree.fields, 77])))
    if len(tree.fields) > 1:  # in pipe, no field at all is one empty field
        shorter = tree.fields[:-1]
        last = schema.fields(cls, version)[-1]
        default = _default(last)
        reading = _put(root, steps, Record([*shorter, default])) if _fits(default, last.type) else None
        made = _put(root, steps, Record(shorter))
        yield Spoilt("one field less", "message", where, path, made, readings={DEFAULT: reading})


_SAMPLES: Final[Mapping[str, Any]] = {
    "bool": True,
    "int": 77,
    "negative int": -77,
    "float": 1.5,
    "whole float": 2.0,
    "str": "~x",
    "bytes": b"\xff\xfe",
    "datetime": Stamp(1),
    "message": Record([77]),
    "list": [77, 78],
    "map": Pairs([("~x", 77)]),
    "none": None,
}

_OWN: Final[Mapping[Scalar, tuple[str, ...]]] = {
    Scalar.BOOL: ("bool",),
    Scalar.INT: ("int", "negative int"),
    Scalar.UINT: ("int", "negative int"),
    Scalar.FLOAT: ("float", "whole float"),
    Scalar.STR: ("str",),
    Scalar.BYTES: ("bytes",),
    Scalar.DATETIME: ("datetime",),
    Scalar.ENUM: ("int", "negative int"),
    # What else is a message on protobuf's wire means there whatever the fields of the one declared make of it.
    Scalar.MESSAGE: ("message", "datetime", "map"),
}


def _wrong_types(place: _Place) -> Iterator[Spoilt]:
    kind = place.kind
    for written, sample in _SAMPLES.items():
        if written in _OWN[kind.scalar]:
            continue
        if sample is None:
            if not kind.optional and place.where != "key":
                yield _fault(place, written, None, readings={DEFAULT: _absent(place)})
            continue
        readings = {
            "its text": _text(sample, kind, inside=place.where != "field"),
            "its bits": _bits(sample, kind),
            "its bytes": _bytes(sample, kind),
            "its number": _number(sample, kind),
            "the last": _bits(sample[-1], kind) if isinstance(sample, list) else _NOTHING,
        }
        if kind.scalar is Scalar.FLOAT and type(sample) is int:
            yield _fault(place, written, sample, "its value", {"its value": float(sample), **readings})
        else:
            yield _fault(place, written, sample, readings=readings)
    spelled = _spelled(place.value, kind)
    if spelled is not None:
        yield _fault(place, "str that spells it", Text(spelled), readings={"its text": place.value})


def _fault(
    place: _Place, written: str, value: Any, rule: str = REFUSED, readings: Mapping[str, Any] | None = None
) -> Spoilt:
    """A fault whose readings are the values that it may be taken for, where they are values of the type."""
    kind = place.kind
    name = kind.scalar.value if kind.shape == "single" else kind.shape
    made = {word: place.put(each) if _fits(each, kind) else None for word, each in (readings or {}).items()}
    if place.where == "list":
        made["packed"] = None
        packed = _packed(value, kind)
        if packed is not _NOTHING:
            whole = place._replace(steps=place.steps[:-1], kind=place.owner.type)
            elements = list(_at(place.root, whole.steps))
            elements[place.steps[-1] : place.steps[-1] + 1] = packed
            made["packed"] = whole.put(elements) if _fits(elements, whole.kind) else None
    return Spoilt(written, name, place.where, place.path, place.put(value), rule, made)


def _at(tree: Any, steps: tuple[Any, ...]) -> Any:
    for step in steps:
        if isinstance(tree, Pairs):
            tree = tree.items[step[0]][step[1]]
        else:
            tree = (tree.fields if isinstance(tree, Record) else tree)[step]
    return tree


def _wrong_values(place: _Place) -> Iterator[Spoilt]:
    kind, value = place.kind, place.value
    bounds = kind.bounds or Bounds()
    match kind.scalar:
        case Scalar.INT | Scalar.UINT:
            for written, wrong in (
                ("negative int", -77),
                ("int from 2^63 on", 2**63),
                ("int from 2^64 on", 2**64),
                ("int below -2^63", -(2**63) - 1),
            ):
                if not _fits(wrong, FieldType("single", kind.scalar)):
                    yield _fault(place, written, wrong, readings={"its bits": _bits(wrong, kind)})
        case Scalar.FLOAT:
            if bounds.ge is None and bounds.le is None:
                odd = 2**53 + 1
                yield _fault(place, "int that no float equals", odd, readings={"the nearest": float(odd)})
            else:
                yield _fault(place, "NaN", math.nan)
        case Scalar.STR:
            # What is no text at all is not looked at field by field, in any format.
            yield _fault(place, "bytes that are not UTF-8", Text(b"\xff"), WHOLE)
            yield _fault(place, "half of a surrogate pair", Text(b"\xed\xa0\x80"), WHOLE)
        case Scalar.ENUM:
            numbers = [int(member) for member in cast(type[enum.IntEnum], kind.cls)]
            yield _fault(place, "number 0", 0)
            yield _fault(place, "unknown number", max(numbers) + 1)
            yield _fault(place, "negative number", -1)
            yield _fault(place, "number and 2^32", numbers[0] + 2**32)
        case Scalar.DATETIME:
            stamp = Stamp(1) if value is None else value
            finer, cut = stamp._replace(nanos=1001), stamp._replace(nanos=1000)
            yield _fault(place, "part of a microsecond", finer, readings={"cut": cut})
            yield _fault(place, "another zone", stamp._replace(zone="+01:00"))
            yield _fault(place, "the year 10000", Stamp(253_402_300_800))
            yield _fault(place, "the year 0", Stamp(-62_135_596_801))
            yield _fault(place, "nanoseconds over a second", stamp._replace(nanos=10**9))
            yield _fault(place, "nanoseconds below 0", stamp._replace(nanos=-1000))
        case Scalar.BOOL | Scalar.BYTES | Scalar.MESSAGE:
            pass
    for written, wrong in _out_of_bounds(kind):
        yield _fault(place, written, wrong)
    if place.where in ("field", "nested") and value is not None:
        # The first of two is of the right shape; of messages, nothing that the second could keep.
        first = Record([]) if isinstance(value, Record) else _FIRST[type(value)]
        yield _fault(place, "the field twice", Twice(first, value), readings={"the last": value})


_VARINTS: Final = (Scalar.BOOL, Scalar.INT, Scalar.UINT, Scalar.ENUM)

_FIRST: Final[Mapping[type, Any]] = {
    bool: True,
    int: 77,
    float: 1.5,
    str: "~x",
    bytes: b"~x",
    Stamp: Stamp(1),
}


def _out_of_bounds(kind: FieldType) -> Iterator[tuple[str, Any]]:
    bounds = kind.bounds or Bounds()
    unit: Any = "x" if kind.scalar is Scalar.STR else b"x"
    if bounds.ge is not None:
        below = math.nextafter(bounds.ge, -math.inf) if kind.scalar is Scalar.FLOAT else bounds.ge - 1
        if _fits(below, replace(kind, bounds=None)):
            yield "below its bounds", below
    if bounds.le is not None:
        above = math.nextafter(bounds.le, math.inf) if kind.scalar is Scalar.FLOAT else bounds.le + 1
        if _fits(above, replace(kind, bounds=None)):
            yield "above its bounds", above
    if bounds.min_length:
        yield "below its bounds", unit * (bounds.min_length - 1)
    if bounds.max_length is not None and bounds.max_length < _LONG:
        yield "above its bounds", unit * (bounds.max_length + 1)


_LONG: Final = 2**16
"""Lengths from here on are not tried."""


def _of_list(place: _Place) -> Iterator[Spoilt]:
    kind, values = place.kind, place.value
    element = kind.element
    yield _fault(place, "none", None, readings={DEFAULT: []})
    if kind.scalar in (*_VARINTS, Scalar.FLOAT):
        # A list of others may mean anything in protobuf, where the elements would be messages or text.
        alike = [77.0 if kind.scalar is Scalar.FLOAT else 77]
        record = Record([77])
        packed = _packed(record, element)
        yield _fault(place, "message", record, readings={"its items": alike, "packed": packed})
    if values and not isinstance(values[0], Record):  # which in msgpack is a list of other things
        yield _fault(place, "one element alone", values[0], readings={"its items": values[:1]})
    size = kind.size or Bounds()
    if size.min_length:
        yield _fault(place, "below its bounds", values[: size.min_length - 1])
    if values and size.max_length is not None and size.max_length < _LONG:
        yield _fault(place, "above its bounds", values[:1] * (size.max_length + 1))


def _of_map(place: _Place) -> Iterator[Spoilt]:
    kind, items = place.kind, place.value.items
    yield _fault(place, "none", None, readings={DEFAULT: Pairs([])})
    for written in ("int", "list"):
        yield _fault(place, written, _SAMPLES[written])
    if items:
        key, last = items[0][0], items[-1][1]
        reading = Pairs([(key, last), *items[1:]])
        yield _fault(place, "a key twice", Pairs([*items, (key, last)]), readings={"the last": reading})
    size = kind.size or Bounds()
    if size.min_length:
        yield _fault(place, "below its bounds", Pairs(items[: size.min_length - 1]))
    if items and size.max_length is not None and size.max_length < _LONG:
        keys: list[Any] = [number if kind.key is Scalar.INT else str(number) for number in range(size.max_length + 1)]
        yield _fault(place, "above its bounds", Pairs([(key, items[0][1]) for key in keys]))


# What a value may be taken for ----------------------------------------------------------------------------------


def _fits(value: Any, kind: FieldType) -> bool:
    """Whether a value is one of the type: in words as plain as those of ``docs/values.md``, section 11."""
    if value is None or value is _NOTHING:
        return value is None and kind.optional
    if kind.shape != "single":
        values = [each for _, each in value.items] if isinstance(value, Pairs) else value
        return _has_length(value.items if isinstance(value, Pairs) else value, kind.size) and all(
            _fits(each, kind.element) for each in values
        )
    bounds = kind.bounds or Bounds()
    match kind.scalar:
        case Scalar.BOOL:
            return isinstance(value, bool)
        case Scalar.ENUM:
            return type(value) is int and value in [int(member) for member in cast(type[enum.IntEnum], kind.cls)]
        case Scalar.INT | Scalar.UINT:
            low, high = (0, 2**64 - 1) if kind.scalar is Scalar.UINT else (-(2**63), 2**63 - 1)
            if type(value) is not int or not low <= value <= high:
                return False
        case Scalar.FLOAT:
            if not isinstance(value, float):
                return False
        case Scalar.STR:
            return isinstance(value, str) and _has_length(value, bounds)
        case Scalar.BYTES:
            return isinstance(value, bytes) and _has_length(value, bounds)
        case Scalar.DATETIME:
            return isinstance(value, Stamp)
        case Scalar.MESSAGE:
            return isinstance(value, Record)
    return (bounds.ge is None or value >= bounds.ge) and (bounds.le is None or value <= bounds.le)


def _has_length(value: Any, bounds: Bounds | None) -> bool:
    low, high = (None, None) if bounds is None else (bounds.min_length, bounds.max_length)
    return (low or 0) <= len(value) and (high is None or len(value) <= high)


def _default(owner: Field) -> Any:
    """What a field is taken for when it is absent on a wire that says so: its default, or zero, or `_NOTHING`."""
    if owner.presence == "explicit":
        return None if owner.type.optional else loose_value(owner.default, owner.type)
    if owner.type.shape != "single":
        return [] if owner.type.key is None else Pairs([])
    return _ZEROS.get(owner.type.scalar, _NOTHING)


def _absent(place: _Place) -> Any:
    """What a place is taken for when nothing is written there. An entry of a map has zeros, even inside of messages."""
    if place.where == "map":
        return _zero(place.kind)
    return _NOTHING if place.where == "list" else _default(place.owner)


def _zero(kind: FieldType) -> Any:
    if kind.scalar is Scalar.DATETIME:
        return Stamp(0)
    if kind.scalar is not Scalar.MESSAGE:
        return _ZEROS.get(kind.scalar, _NOTHING)
    values = [_default(each) for each in schema.fields(cast(type[Message], kind.cls))]
    return _NOTHING if _NOTHING in values else Record(values)


_NOTHING: Final = object()
"""There is no such value; it is of no type."""

_ZEROS: Final[Mapping[Scalar, Any]] = {
    Scalar.BOOL: False,
    Scalar.INT: 0,
    Scalar.UINT: 0,
    Scalar.FLOAT: 0.0,
    Scalar.STR: "",
    Scalar.BYTES: b"",
}


def _spelled(value: Any, kind: FieldType) -> bytes | None:
    """A value as a text, for formats that keep text apart from it."""
    if value is None or kind.scalar not in (*_VARINTS, Scalar.FLOAT):
        return None
    return WRITERS["pipe"](Record([value]))


def _text(value: Any, kind: FieldType, *, inside: bool) -> Any:
    """What pipe reads: it has no types, so any text that is a value of the type."""
    if inside and isinstance(value, Record | list | Pairs | Stamp):
        return _NOTHING  # brackets, commas and colons are structure there
    text = WRITERS["pipe"](Record([value])).decode()
    if kind.scalar is Scalar.STR:
        return text
    if kind.scalar is Scalar.BYTES and re.fullmatch("([0-9a-f]{2})*", text):
        return bytes.fromhex(text)
    return _NOTHING


def _bits(value: Any, kind: FieldType) -> Any:
    """What protobuf reads: bools, integers and enums are one thing on its wire."""
    if not isinstance(value, int) or not -(2**63) <= value < 2**64:
        return _NOTHING
    bits = value & (2**64 - 1)
    signed = bits - 2**64 if bits >> 63 else bits
    whole = {Scalar.BOOL: bool(bits), Scalar.UINT: bits, Scalar.INT: signed, Scalar.ENUM: signed}
    return whole.get(kind.scalar, _NOTHING)


def _bytes(value: Any, kind: FieldType) -> Any:
    """What protobuf reads: text, bytes and messages are one thing on its wire, and so is a packed list."""
    if kind.scalar is Scalar.DATETIME and isinstance(value, Record):
        return Stamp(*value.fields)
    content = _content(value)
    if content is None or kind.scalar not in (Scalar.STR, Scalar.BYTES):
        return _NOTHING
    if kind.scalar is Scalar.BYTES:
        return content
    try:
        return content.decode()
    except UnicodeDecodeError:
        return _NOTHING


def _content(value: Any) -> bytes | None:
    """The bytes behind tag and length of a value that has a length in protobuf."""
    if not isinstance(value, str | bytes | Record | Stamp | list | Pairs | Text):
        return None
    written = WRITERS["protobuf"](Record([value]))
    return written[2:]  # none is longer than 127 bytes


def _number(value: Any, kind: FieldType) -> Any:
    """What msgpack reads: a datetime is an integer there."""
    if isinstance(value, Stamp):
        number = value.seconds * 1_000_000
        return float(number) if kind.scalar is Scalar.FLOAT else number
    if kind.scalar is Scalar.DATETIME and type(value) is int:
        seconds, micros = divmod(value, 1_000_000)
        return Stamp(seconds, micros * 1000)
    return _NOTHING


def _packed(value: Any, kind: FieldType) -> Any:
    """What protobuf reads in a list of numbers: bytes where one of them is expected are many of them, packed."""
    if kind.scalar not in (*_VARINTS, Scalar.FLOAT) or isinstance(value, list | Pairs):
        return _NOTHING
    content = _content(value)
    if content is None:
        return _NOTHING
    if kind.scalar is Scalar.FLOAT:
        return _NOTHING if len(content) % 8 else list(struct.unpack(f"<{len(content) // 8}d", content))
    if any(octet > 0x7F for octet in content):
        return _NOTHING
    return [_bits(octet, kind) for octet in content]
