"""Whether what is written as one type is read as another, codec by codec.

The rules are those of ``docs/values.md``, section 12. The tests hold them to the codecs: they write the samples of
one declaration and read them by another.
"""

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from wireproto.schema import MISSING, Bounds, Field, FieldType, Scalar

__all__ = ["Effect", "reads", "reads_absent", "reads_unknown"]


class Effect(enum.IntEnum):
    """What becomes of the values that one side writes and the other reads."""

    NONE = 0
    """Each is read as what it was."""
    SOME = 1
    """Those that the reader's type lacks are refused, or read as something else."""
    ALL = 2
    """Also values that both types have."""


_PIPE: Final = {
    Scalar.BOOL: "bool",
    Scalar.INT: "integer",
    Scalar.UINT: "integer",
    Scalar.FLOAT: "float",
    Scalar.STR: "str",
    Scalar.BYTES: "bytes",
    Scalar.DATETIME: "datetime",
    Scalar.ENUM: "integer",
    Scalar.MESSAGE: "message",
}
_FORMS: Final[dict[str, dict[Scalar, str]]] = {
    "pipe": _PIPE,
    "msgpack": {**_PIPE, Scalar.DATETIME: "integer"},
    "protobuf": {
        **_PIPE,
        Scalar.BOOL: "integer",
        Scalar.STR: "octets",
        Scalar.BYTES: "octets",
    },
}
"""How a scalar is written; of one form, the same bytes mean the same value. No form is shared in another codec."""

_EXACT: Final = 2**53
"""Up to here every integer is a float."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _microseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


_RANGES: Final[dict[Scalar, tuple[int, int]]] = {
    Scalar.BOOL: (0, 1),
    Scalar.INT: (-(2**63), 2**63 - 1),
    Scalar.UINT: (0, 2**64 - 1),
    Scalar.DATETIME: (
        _microseconds(datetime.min.replace(tzinfo=UTC)),
        _microseconds(datetime.max.replace(tzinfo=UTC)),
    ),
}


def reads(writer: Field, reader: Field, codec: str, stock: bool) -> Effect:
    """What becomes of a field's values, its number and the message around it being right.

    Messages and enums inside it are looked at by themselves.

    Args:
        writer: the field as one side declares it.
        reader: ... and the other.
        codec: its name.
        stock: the writer may be any protobuf library, which leaves out a field with a default when it is not set.
    """
    was, now = writer.type, reader.type
    if was.shape != now.shape or was.key != now.key:
        return Effect.ALL
    effect = _scalars(was, now, codec)
    if was.shape != "single":
        return max(effect, Effect.NONE if _within(_lengths(was.size), _lengths(now.size)) else Effect.SOME)
    if codec == "protobuf":
        return max(effect, _absence(writer, reader, stock))
    # None has a form of its own there, which only an optional field takes.
    return max(effect, Effect.SOME if was.optional and not now.optional else Effect.NONE)


def reads_unknown(writer: Field, codec: str) -> Effect:
    """What becomes of a message with a field that its reader does not have."""
    if codec != "protobuf":
        return Effect.ALL  # exactly the fields of the version
    # What is left out when it has its default reaches a reader without the field; an unknown field is refused.
    return Effect.SOME if _may_be_absent(writer) else Effect.ALL


def reads_absent(reader: Field, codec: str) -> Effect:
    """What becomes of a message without a field that its reader has."""
    if codec != "protobuf":
        return Effect.ALL
    return Effect.ALL if _absent_means(reader) is MISSING else Effect.NONE


# Scalars --------------------------------------------------------------------------------------------------------


def _scalars(was: FieldType, now: FieldType, codec: str) -> Effect:
    if was.scalar is now.scalar is Scalar.ENUM or was.scalar is now.scalar is Scalar.MESSAGE:
        return Effect.NONE  # looked at by themselves
    forms = _FORMS.get(codec)
    if forms is None:
        same = was.scalar is now.scalar
    else:
        same = forms[was.scalar] == forms[now.scalar]
        if not same and codec != "protobuf" and forms[was.scalar] == "integer" and now.scalar is Scalar.FLOAT:
            return _integers_as_floats(was, now)
    if not same:
        return Effect.ALL
    return Effect.NONE if _values(was).within(_values(now)) else Effect.SOME


def _integers_as_floats(was: FieldType, now: FieldType) -> Effect:
    values, floats = _values(was), _values(now)
    inside = values.low >= max(-_EXACT, floats.low) and values.high <= min(_EXACT, floats.high)
    return Effect.NONE if inside else Effect.SOME


@dataclass(frozen=True)
class _Values:
    """The values of a scalar type: a range of numbers, or one of lengths."""

    low: float
    high: float
    members: frozenset[int] | None = None
    nan: bool = False
    unit: str = ""

    def within(self, other: "_Values") -> bool:
        if self.unit != other.unit:
            # Text is bytes, too; but its length is counted otherwise, and not all bytes are text.
            return self.unit == "characters" and other.low == 0 and other.high == float("inf")
        if other.members is not None:
            return self._count() <= len(other.members) and all(each in other.members for each in self._each())
        if self.members is not None:
            return all(other.low <= each <= other.high for each in self.members)
        return _within((self.low, self.high), (other.low, other.high)) and (other.nan or not self.nan)

    def _count(self) -> float:
        return self.high - self.low + 1 if self.members is None else len(self.members)

    def _each(self) -> Any:
        return range(int(self.low), int(self.high) + 1) if self.members is None else self.members


def _values(kind: FieldType) -> _Values:
    bounds = kind.bounds or Bounds()
    if kind.scalar is Scalar.ENUM:
        members = frozenset(int(each) for each in cast(type[enum.IntEnum], kind.cls))
        return _Values(min(members), max(members), members)
    if kind.scalar in (Scalar.STR, Scalar.BYTES):
        low, high = _lengths(bounds)
        return _Values(low, high, unit="characters" if kind.scalar is Scalar.STR else "bytes")
    if kind.scalar is Scalar.FLOAT:
        low = float("-inf") if bounds.ge is None else bounds.ge
        high = float("inf") if bounds.le is None else bounds.le
        return _Values(low, high, nan=kind.bounds is None)
    least, most = _RANGES.get(kind.scalar, (0, 0))
    return _Values(least if bounds.ge is None else bounds.ge, most if bounds.le is None else bounds.le)


def _lengths(bounds: Bounds | None) -> tuple[float, float]:
    if bounds is None:
        return 0, float("inf")
    return bounds.min_length or 0, float("inf") if bounds.max_length is None else bounds.max_length


def _within(inner: tuple[float, float], outer: tuple[float, float]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


# Presence in protobuf -------------------------------------------------------------------------------------------


def _absence(writer: Field, reader: Field, stock: bool) -> Effect:
    """What becomes of values that a protobuf writer leaves out."""
    if not _may_be_absent(writer) and not (stock and writer.presence == "explicit"):
        return Effect.NONE
    meant, found = _absent_means(writer), _absent_means(reader)
    if found is not MISSING and _same(meant, found):
        return Effect.NONE
    return Effect.ALL if _has(reader.type, meant) else Effect.SOME


def _has(kind: FieldType, value: object) -> bool:
    """Whether the default of another field is among the values of a type, as they are on the wire."""
    if value is None:
        return kind.optional
    if isinstance(value, str | bytes):
        low, high = _lengths(kind.bounds)
        return kind.scalar in (Scalar.STR, Scalar.BYTES) and low <= len(value) <= high
    if isinstance(value, int | float) and kind.scalar not in (Scalar.STR, Scalar.BYTES):
        values = _values(kind)
        return values.low <= value <= values.high if values.members is None else value in values.members
    return True


def _absent_means(field: Field) -> object:
    """The value that a reader takes for a field that is not there; MISSING when it refuses."""
    kind = field.type
    if kind.shape != "single":
        return ()
    if kind.optional:
        return None
    if field.presence == "explicit":
        return field.default
    return _ZEROS.get(kind.scalar, MISSING)


def _may_be_absent(field: Field) -> bool:
    """Whether this package's writer leaves the field out when it has its default."""
    kind = field.type
    return kind.shape != "single" or kind.optional or (field.presence == "implicit" and kind.scalar in _ZEROS)


_ZEROS: Final[dict[Scalar, object]] = {
    Scalar.BOOL: 0,
    Scalar.INT: 0,
    Scalar.UINT: 0,
    Scalar.FLOAT: 0,
    Scalar.STR: b"",
    Scalar.BYTES: b"",
}


def _same(meant: object, found: object) -> bool:
    if isinstance(meant, str):
        meant = meant.encode()
    if isinstance(found, str):
        found = found.encode()
    return meant == found
