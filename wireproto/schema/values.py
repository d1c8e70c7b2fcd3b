"""What is wrong with one value, in words: the slow, exact twin of the generated checks."""

from datetime import UTC, datetime
from typing import Any, Final, cast

from wireproto.schema.messages import Bounds, FieldType, Scalar
from wireproto.schema.names import type_name

__all__ = ["INT64", "PYTHON_TYPES", "UINT64", "has_surrogate", "problem_with", "size_problem", "type_problem"]

INT64: Final = (-(2**63), 2**63 - 1)
UINT64: Final = (0, 2**64 - 1)

PYTHON_TYPES: Final[dict[Scalar, type]] = {
    Scalar.BOOL: bool,
    Scalar.INT: int,
    Scalar.UINT: int,
    Scalar.FLOAT: float,
    Scalar.STR: str,
    Scalar.BYTES: bytes,
    Scalar.DATETIME: datetime,
}


def has_surrogate(text: str) -> bool:
    """Whether text holds half a UTF-16 pair, which no encoding of Unicode can carry."""
    try:
        # Faster than any search: 1 us for a thousand characters, a regular expression takes nine.
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def problem_with(value: object, kind: FieldType) -> str | None:
    """Why a value is not of a type that is no container; None when it is. Messages are judged by class alone.

    The text never contains the value, which may be a secret.
    """
    if value is None and kind.optional:
        return None
    problem = type_problem(value, kind)
    if problem:
        return problem
    if kind.scalar is Scalar.STR:
        if has_surrogate(cast(str, value)):
            return "holds a surrogate, which no encoding of Unicode can carry; decode the text with its right encoding"
    elif kind.scalar is Scalar.DATETIME:
        if cast(datetime, value).tzinfo is not UTC:
            return "is not in UTC; give a datetime with tzinfo=timezone.utc, as .astimezone(timezone.utc) does"
    elif kind.scalar is Scalar.INT or kind.scalar is Scalar.UINT:
        low, high = UINT64 if kind.scalar is Scalar.UINT else INT64
        if not low <= cast(int, value) <= high:
            return _outside(low, high)
    return _range_problem(value, kind.bounds) or size_problem(value, kind.bounds)


def type_problem(value: object, kind: FieldType) -> str | None:
    """Why a value is not of exactly the Python type that the framework uses."""
    wanted = kind.cls or PYTHON_TYPES[kind.scalar]
    if type(value) is wanted:
        return None
    hint = ""
    if value is None:
        hint = "; only a field declared `T | None` may be None"
    elif kind.scalar is Scalar.ENUM and type(value) is int:
        hint = f"; give a member of {kind.element}"
    elif isinstance(value, wanted) or (kind.scalar is Scalar.FLOAT and type(value) is int):
        hint = f"; give exactly {wanted.__name__}"
    return f"is {type_name(type(value))}, not {kind}{hint}"


def size_problem(value: Any, bounds: Bounds | None) -> str | None:
    """Why text, bytes, a list or a map is too short or too long."""
    low, high = (None, None) if bounds is None else (bounds.min_length, bounds.max_length)
    if (low is None or len(value) >= low) and (high is None or len(value) <= high):
        return None
    unit = "characters" if isinstance(value, str) else "bytes" if isinstance(value, bytes) else "elements"
    return f"has {len(value)} {unit}, not {_range(low, high)}"


def _range_problem(value: Any, bounds: Bounds | None) -> str | None:
    low, high = (None, None) if bounds is None else (bounds.ge, bounds.le)
    # NaN is within no bounds.
    if (low is None or value >= low) and (high is None or value <= high):
        return None
    return _outside(low, high)


def _outside(low: float | None, high: float | None) -> str:
    return f"is not {_range(low, high)}" if low is None or high is None else f"is not within {_range(low, high)}"


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"
