"""Sample messages, the same on every machine: between them each field has each value at which something ends."""

import enum
import math
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, TypeVar, cast

from wireproto.schema import Bounds, Field, FieldType, Message, Scalar, fields

__all__ = ["samples"]

M = TypeVar("M", bound=Message)

_LONGEST: Final = 64
"""Characters or bytes of the longest sample; a contract is there to be read."""

_MOST: Final = 3
"""Elements of the largest list or map."""

# Widths of varints and of MessagePack's integers end here, and exactness as a double.
_INTEGERS: Final = (0, 1, -1, 127, 128, -33, 255, 65_536, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1)
_FLOATS: Final = (0.0, 1.5, -0.0, 0.1, 1e16, 5e-324, -1.7976931348623157e308, float("inf"), float("nan"))
_TEXTS: Final = ("", "a", "|\\,:()[]{}", "line\nbreak\r", "\\N", "Zoë €😀", "0" * 32)
_BYTES: Final = (b"", b"\0", b"|\n\xff", bytes(range(32)))
_MOMENTS: Final = (
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 12, 34, 56, 789_000, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
)


def samples(message_type: type[M], version: int | None = None) -> list[M]:
    """Messages that exercise every field of a class in one version.

    The first has each field at its least, or at its default; the others go through the values at which widths, signs,
    escapes and bounds end, all fields at once. So there are as many as the field with the most such values needs.

    Args:
        message_type: the class.
        version: of the service, 1 to 255; None is the newest.
    """
    columns = {each.name: _edges(each, version) for each in fields(message_type, version)}
    longest = max((len(column) for column in columns.values()), default=0)
    first = message_type(**{name: column[0] for name, column in columns.items()})
    # Each column begins one further than the one before it: two fields of one type must not be equal all the time.
    return [first] + [
        message_type(
            **{name: column[(at + shift) % len(column)] for shift, (name, column) in enumerate(columns.items())}
        )
        for at in range(1, longest + 1)
        if longest > 1
    ]


def _edges(field: Field, version: int | None) -> list[Any]:
    kind = field.type
    elements = _elements(kind, version)
    if kind.shape != "single":
        return _containers(kind, elements)
    found = elements if field.required or field.default in elements else [field.default, *elements]
    return [None, *(each for each in found if each is not None)] if kind.optional else found


def _containers(kind: FieldType, elements: list[Any]) -> list[Any]:
    size = kind.size or Bounds()
    low = size.min_length or 0
    high = max(low, _MOST if size.max_length is None else min(size.max_length, _MOST))
    made: list[Any] = []
    for count in dict.fromkeys((low, min(max(low, 1), high), high)):
        many = [elements[at % len(elements)] for at in range(count)]
        if kind.shape == "list":
            made.append(many)
        else:
            made.append(dict(zip(islice(_keys(kind.key), count), many, strict=True)))
    return made


def _keys(kind: Scalar | None) -> Any:
    # Unsorted: the canonical order is the codec's doing.
    first: tuple[Any, ...] = ("b", "", "a:|") if kind is Scalar.STR else (2, -1, 10)
    yield from first
    yield from (f"k{at}" if kind is Scalar.STR else at for at in range(11, 2**31))


def _elements(kind: FieldType, version: int | None) -> list[Any]:
    bounds = kind.bounds or Bounds()
    match kind.scalar:
        case Scalar.BOOL:
            return [False, True]
        case Scalar.INT | Scalar.UINT:
            low, high = (0, 2**64 - 1) if kind.scalar is Scalar.UINT else (-(2**63), 2**63 - 1)
            low = low if bounds.ge is None else int(bounds.ge)
            high = high if bounds.le is None else int(bounds.le)
            return _inside([*_INTEGERS, low, high], low, high)
        case Scalar.FLOAT:
            if kind.bounds is None:
                return list(_FLOATS)
            return _inside([*_FLOATS, *_float_ends(bounds)], bounds.ge, bounds.le)
        case Scalar.STR:
            return _sized(list(_TEXTS), "x", bounds)
        case Scalar.BYTES:
            return _sized(list(_BYTES), b"x", bounds)
        case Scalar.DATETIME:
            return list(_MOMENTS)
        case Scalar.ENUM:
            return list(cast(type[enum.IntEnum], kind.cls))
        case Scalar.MESSAGE:
            return list(samples(cast(type[Message], kind.cls), version))


def _inside(numbers: list[Any], low: float | None, high: float | None) -> list[Any]:
    inside = (each for each in numbers if (low is None or each >= low) and (high is None or each <= high))
    return list({repr(each): each for each in inside}.values())  # by text, for 0.0 equals -0.0


def _float_ends(bounds: Bounds) -> list[float]:
    """The least and the greatest float; a bound may be an int that no float equals."""
    ends = []
    for bound, inwards in ((bounds.ge, math.inf), (bounds.le, -math.inf)):
        if bound is not None:
            end = float(bound)
            ends.append(end if (end - bound) * inwards >= 0 else math.nextafter(end, inwards))
    return ends


def _sized(values: list[Any], one: Any, bounds: Bounds) -> list[Any]:
    if bounds == Bounds():
        return values
    low, high = bounds.min_length or 0, bounds.max_length
    ends = [one * low] if high is None or high > _LONGEST else [one * low, one * high]
    if low:
        ends.append((values[2] * low)[:low])  # where only one length is left, still two values
    inside = [each for each in values if low <= len(each) and (high is None or len(each) <= high)]
    return list(dict.fromkeys([*inside, *ends]))
