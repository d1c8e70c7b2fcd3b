"""What is wrong with one value, in words; the slow, exact twin of the generated checks."""

from datetime import UTC, datetime
from typing import Any, Final, cast

from wireproto.schema.messages import Bounds, FieldType, Scalar
from wireproto.schema.names import type_name

__all__ = ["INT64", "UINT64", "problem_with"]

INT64: Final = (-(2**63), 2**63 - 1)
UINT64: Final = (0, 2**64 - 1)

_PYTHON: Final[dict[Scalar, type]] = {
    Scalar.BOOL: bool,
    Scalar.INT: int,
    Scalar.UINT: int,
    Scalar.FLOAT: float,
    Scalar.STR: str,
    Scalar.BYTES: bytes,
    Scalar.DATETIME: datetime,
}


def problem_with(value: object, kind: FieldType) -> str | None:
    """Why a value is not of a single, non-container type; None when it is. Messages are judged by class alone.

    The text never contains the value, which may be a secret.
    """
    if value is None and kind.optional:
        return None
    wanted: type[Any] = kind.cls or _PYTHON[kind.scalar]
    if type(value) is not wanted:
        return f"is {type_name(type(value))}, not {kind}{_hint_for(value, kind)}"
    if kind.scalar is Scalar.STR:
        text = cast(str, value)
        if any("\ud800" <= char <= "\udfff" for char in text):
            return "holds a surrogate, which no encoding of Unicode can carry; decode the text with its right encoding"
    elif kind.scalar is Scalar.DATETIME:
        if cast(datetime, value).tzinfo is not UTC:
            return "is not in UTC; give a datetime with tzinfo=timezone.utc, as .astimezone(timezone.utc) does"
    elif kind.scalar is Scalar.INT or kind.scalar is Scalar.UINT:
        low, high = UINT64 if kind.scalar is Scalar.UINT else INT64
        if not low <= cast(int, value) <= high:
            return f"is not within {low} to {high}"
    return _out_of_bounds(value, kind.bounds)


def _out_of_bounds(value: Any, bounds: Bounds | None) -> str | None:
    if bounds is None:
        return None
    # `not >=` rather than `<`: NaN is within no bounds.
    if (bounds.ge is not None and not value >= bounds.ge) or (bounds.le is not None and not value <= bounds.le):
        return f"is not within {_range(bounds.ge, bounds.le)}"
    low, high = bounds.min_length, bounds.max_length
    if (low is not None and len(value) < low) or (high is not None and len(value) > high):
        unit = "characters" if isinstance(value, str) else "bytes" if isinstance(value, bytes) else "elements"
        return f"has {len(value)} {unit}, not {_range(low, high)}"
    return None


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def _hint_for(value: object, kind: FieldType) -> str:
    if kind.scalar is Scalar.ENUM and type(value) is int:
        return f"; give a member of {kind}"
    if kind.scalar is Scalar.FLOAT and type(value) is int:
        return "; give float(...)"
    if value is None:
        return "; only a field declared `T | None` may be None"
    return ""
