"""Hypothesis strategies for everything that is declared, and for what is nearly that.

They are built from the field types of `wireproto.schema`, so bounds and versions hold by construction and nothing is
thrown away.
"""

import enum
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, TypeVar, cast

from hypothesis import strategies as st

from wireproto import schema
from wireproto.conformance.edges import EDGES, PIECES, SPECIAL
from wireproto.schema import Bounds, FieldType, Message, Scalar, Service

__all__ = ["messages", "mutated", "strategies", "values", "wrong_values"]

M = TypeVar("M", bound=Message)

_INT64: Final = (-(2**63), 2**63 - 1)
_UINT64: Final = (0, 2**64 - 1)


def strategies(service: Service, version: int | None = None) -> dict[type[Message], st.SearchStrategy[Message]]:
    """A strategy for every message class of a service, nested ones included.

    Args:
        service: the opcode table.
        version: the version whose messages to make: fields that came later keep their defaults, and classes that do not
            exist in it are left out. None is the newest.
    """
    made: dict[type[Message], st.SearchStrategy[Message]] = {}
    for method in service.at(service.version if version is None else version).values():
        for root in method.messages:
            for cls in _present(root, version):
                made.setdefault(cls, messages(cls, version))
    return made


def _present(message_type: type[Message], version: int | None) -> Iterator[type[Message]]:
    yield message_type
    for field in schema.fields(message_type, version):
        if field.type.scalar is Scalar.MESSAGE:
            yield from _present(cast(type[Message], field.type.cls), version)


def messages(message_type: type[M], version: int | None = None, *, most: int = 6) -> st.SearchStrategy[M]:
    """Messages of one class that every codec must carry in that version.

    Args:
        message_type: the class.
        version: of the service, 1 to 255; None is the newest.
        most: elements of a list or map, where its bounds do not want more. Those in nested messages have at most two.
    """
    arguments: dict[str, st.SearchStrategy[Any]] = {}
    for field in schema.fields(message_type, version):
        strategy = values(field.type, version, most=most)
        if not field.required and field.type.shape == "single":
            # Codecs may treat the default in a way of its own: it must come often.
            strategy = st.just(field.default) | strategy
        arguments[field.name] = strategy
    return st.builds(message_type, **arguments)


def values(kind: FieldType, version: int | None = None, *, most: int = 6) -> st.SearchStrategy[Any]:
    """Values of one field type, within its bounds; the arguments are those of `messages`."""
    low, high = _lengths(kind.size)
    high = max(low, most) if high is None else min(high, max(low, most))
    if kind.shape == "list":
        return st.lists(values(kind.element, version), min_size=low, max_size=high)
    if kind.key is not None:
        keys = values(FieldType("single", kind.key))
        return st.dictionaries(keys, values(kind.element, version), min_size=low, max_size=high)
    strategy = _single(kind, version)
    return st.none() | strategy if kind.optional else strategy


def _single(kind: FieldType, version: int | None) -> st.SearchStrategy[Any]:
    low, high = _lengths(kind.bounds)
    match kind.scalar:
        case Scalar.BOOL:
            return st.booleans()
        case Scalar.INT:
            return _integers(kind.bounds, *_INT64)
        case Scalar.UINT:
            return _integers(kind.bounds, *_UINT64)
        case Scalar.FLOAT:
            return _floats(kind.bounds)
        case Scalar.STR:
            plain = st.characters(exclude_categories=["Cs"])
            return st.text(plain, min_size=low, max_size=high) | st.text(SPECIAL, min_size=low, max_size=high)
        case Scalar.BYTES:
            return st.binary(min_size=low, max_size=high)
        case Scalar.DATETIME:
            return st.datetimes(timezones=st.just(UTC))
        case Scalar.ENUM:
            return st.sampled_from(list(cast(type[enum.IntEnum], kind.cls)))
        case Scalar.MESSAGE:
            return messages(cast(type[Message], kind.cls), version, most=2)


def _lengths(bounds: Bounds | None) -> tuple[int, int | None]:
    return (0, None) if bounds is None else (bounds.min_length or 0, bounds.max_length)


def _integers(bounds: Bounds | None, low: int, high: int) -> st.SearchStrategy[int]:
    if bounds is not None:
        low, high = int(low if bounds.ge is None else bounds.ge), int(high if bounds.le is None else bounds.le)
    edges = [edge for edge in {*EDGES, low, high} if low <= edge <= high]
    return st.integers(low, high) | st.sampled_from(sorted(edges, key=abs))


def _floats(bounds: Bounds | None) -> st.SearchStrategy[float]:
    if bounds is None or (bounds.ge is None and bounds.le is None):
        return st.floats()
    # A bound may be an int that no float equals; the nearest float inside is the limit then.
    low = None if bounds.ge is None else float(bounds.ge)
    high = None if bounds.le is None else float(bounds.le)
    if low is not None and low < cast(float, bounds.ge):
        low = math.nextafter(low, math.inf)
    if high is not None and high > cast(float, bounds.le):
        high = math.nextafter(high, -math.inf)
    return st.floats(low, high, allow_nan=False)


# What must be refused -------------------------------------------------------------------------------------------


class _Stranger(Message):
    """A message of a class that no service declares."""


def wrong_values(kind: FieldType) -> list[Any]:
    """Values that no codec may take for a field of this type: near misses of type, range, size and zone."""
    if kind.shape == "list":
        size = [_some(kind.element) * count for count in _wrong_counts(kind.size)]
        return [None, (), "", {}, *([wrong] for wrong in wrong_values(kind.element)), *size]
    if kind.key is not None:
        key = 0 if kind.key is Scalar.INT else "key"
        wrong_keys = [True, "0", 2**63] if kind.key is Scalar.INT else [0, b"key", "\ud800"]
        elements = [{key: wrong} for wrong in wrong_values(kind.element)]
        return [None, [], "", *elements, *({wrong: each} for wrong in wrong_keys for each in _some(kind.element))]
    wrong = _wrong_single(kind)
    return wrong if kind.optional else [None, *wrong]


def _wrong_single(kind: FieldType) -> list[Any]:
    bounds = kind.bounds or Bounds()
    # Ranges and lengths: just outside of them.
    outside = [] if bounds.ge is None else [_next_below(bounds.ge, kind.scalar)]
    outside += [] if bounds.le is None else [_next_above(bounds.le, kind.scalar)]
    match kind.scalar:
        case Scalar.BOOL:
            return [0, 1, "true"]
        case Scalar.INT:
            return [True, 1.0, "1", 2**63, -(2**63) - 1, *outside]
        case Scalar.UINT:
            return [True, 1.0, "1", -1, 2**64, *outside]
        case Scalar.FLOAT:
            return [1, True, "1.5", *([math.nan] if outside else []), *outside]
        case Scalar.STR:
            return [b"text", 1, "\ud800", *("x" * count for count in _wrong_counts(bounds))]
        case Scalar.BYTES:
            return ["text", bytearray(b"x"), *(b"x" * count for count in _wrong_counts(bounds))]
        case Scalar.DATETIME:
            east = timezone(timedelta(hours=1))
            return [0, "1970-01-01", datetime(1970, 1, 1), datetime(1970, 1, 1, tzinfo=east)]  # noqa: DTZ001 - naive
        case Scalar.ENUM:
            return [0, int(next(iter(cast(type[enum.IntEnum], kind.cls))))]
        case Scalar.MESSAGE:
            return [_Stranger(), {}, []]


def _next_below(bound: float, scalar: Scalar) -> float:
    return math.nextafter(bound, -math.inf) if scalar is Scalar.FLOAT else bound - 1


def _next_above(bound: float, scalar: Scalar) -> float:
    return math.nextafter(bound, math.inf) if scalar is Scalar.FLOAT else bound + 1


def _wrong_counts(bounds: Bounds | None) -> list[int]:
    """Lengths just outside of the bounds, as long as they are small enough to be made."""
    low, high = _lengths(bounds)
    return ([low - 1] if low else []) + ([high + 1] if high is not None and high < 2**20 else [])


def _some(kind: FieldType) -> list[Any]:
    """One value of the type, in a list; none where it takes a strategy to make one."""
    bounds = kind.bounds or Bounds()
    at_least = 0 if bounds.ge is None else bounds.ge
    number = at_least if bounds.le is None else min(at_least, bounds.le)
    shortest = bounds.min_length or 0
    simple: dict[Scalar, Any] = {
        Scalar.BOOL: False,
        Scalar.INT: number,
        Scalar.UINT: number,
        Scalar.FLOAT: float(number),
        Scalar.STR: "x" * shortest,
        Scalar.BYTES: b"x" * shortest,
        Scalar.DATETIME: datetime(1970, 1, 1, tzinfo=UTC),
    }
    if kind.scalar is Scalar.ENUM:
        return list(cast(type[enum.IntEnum], kind.cls))[:1]
    return [simple[kind.scalar]] if kind.scalar in simple else []


# Bytes ----------------------------------------------------------------------------------------------------------


@st.composite
def mutated(draw: st.DrawFn, payloads: st.SearchStrategy[bytes]) -> bytes:
    """Bytes a few steps away from a payload: bits flipped, pieces lost, put in, doubled, or taken from another one."""
    data = bytearray(draw(payloads))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        until = draw(st.integers(at, min(len(data), at + 16)))
        step = draw(st.sampled_from(["flip", "lose", "cut", "insert", "double", "splice", "random"]))
        if step == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif step == "lose":
            del data[at:until]
        elif step == "cut":
            del data[at:]
        elif step == "insert":
            data[at:at] = draw(st.sampled_from(PIECES))
        elif step == "double":
            data[at:at] = data[at:until]
        elif step == "splice":
            other = draw(payloads)
            data[at:] = other[draw(st.integers(0, len(other))) :]
        elif step == "random":
            data[at:until] = draw(st.binary(max_size=8))
    return bytes(data)
