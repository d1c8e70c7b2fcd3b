"""Messages as JSON, for what a client under test is told and answers: docs/conformance.md has the rules.

A message is an object; a field that is absent has its default. Integers beyond 2^53 - 1, floats that JSON lacks or
changes, bytes (as hex) and datetimes (as in the codec pipe) are strings; an enum is its number; a map is an object.
"""

import math
from datetime import UTC, datetime
from typing import Any, TypeVar

from wireproto.schema import FieldType, Message, Scalar, fields

__all__ = ["from_json", "to_json"]

M = TypeVar("M", bound=Message)

SAFE = 2**53 - 1
"""The greatest integer that a program whose only numbers are doubles reads right."""


def to_json(message: Message) -> dict[str, Any]:
    """A message as JSON's values, with every field."""
    return {each.name: _out(getattr(message, each.name), each.type) for each in fields(type(message))}


def _out(value: Any, kind: FieldType) -> Any:
    if value is None:
        return None
    if kind.shape == "list":
        return [_scalar_out(each, kind) for each in value]
    if kind.shape == "map":
        return {str(key): _scalar_out(each, kind) for key, each in value.items()}
    return _scalar_out(value, kind)


def _scalar_out(value: Any, kind: FieldType) -> Any:
    match kind.scalar:
        case Scalar.INT | Scalar.UINT:
            return value if -SAFE <= value <= SAFE else str(value)
        case Scalar.FLOAT:
            plain = math.isfinite(value) and (value or math.copysign(1, value) > 0)
            return value if plain else repr(value)
        case Scalar.BYTES:
            return value.hex()
        case Scalar.DATETIME:
            return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
        case Scalar.ENUM:
            return int(value)
        case Scalar.MESSAGE:
            return to_json(value)
    return value


def from_json(message_type: type[M], value: dict[str, Any]) -> M:
    """The message that an object means.

    Raises:
        ValueError, TypeError, KeyError: it means none.
    """
    kinds = {each.name: each.type for each in fields(message_type)}
    return message_type(**{name: _in(each, kinds[name]) for name, each in value.items()})


def _in(value: Any, kind: FieldType) -> Any:
    if value is None:
        return None
    if kind.shape == "list":
        return [_scalar_in(each, kind) for each in value]
    if kind.shape == "map":
        key_of = int if kind.key is Scalar.INT else str
        return {key_of(key): _scalar_in(each, kind) for key, each in value.items()}
    return _scalar_in(value, kind)


def _scalar_in(value: Any, kind: FieldType) -> Any:
    match kind.scalar:
        case Scalar.INT | Scalar.UINT:
            return int(value)
        case Scalar.FLOAT:
            return float(value)
        case Scalar.BYTES:
            return bytes.fromhex(value)
        case Scalar.DATETIME:
            return _instant(value)
        case Scalar.ENUM if kind.cls is not None:
            return kind.cls(value)
        case Scalar.MESSAGE if kind.cls is not None:
            return from_json(kind.cls, value)
    return value


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:  # which is no ValueError
        raise ValueError(f"{text!r} is outside of the years 1 to 9999 in UTC") from None
