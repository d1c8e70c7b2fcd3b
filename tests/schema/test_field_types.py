"""Field types: every annotation that is one, and what is said about those that are not."""

import collections.abc
import enum
import typing
import uuid
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union

import msgspec
import pytest

from tests.schema.declaring import Color, Point, only, refusal
from wireproto.schema import Bounds, Scalar, Since, UInt64
from wireproto.schema.messages import FieldType, UInt64Mark

T = TypeVar("T")
ANY = Any  # an alias, so that the linter takes the table's Any for a value


# Field types ----------------------------------------------------------------------------------------------------

ACCEPTED: list[tuple[Any, FieldType]] = [
    (bool, FieldType("single", Scalar.BOOL)),
    (int, FieldType("single", Scalar.INT)),
    (UInt64, FieldType("single", Scalar.UINT)),
    (float, FieldType("single", Scalar.FLOAT)),
    (str, FieldType("single", Scalar.STR)),
    (bytes, FieldType("single", Scalar.BYTES)),
    (datetime, FieldType("single", Scalar.DATETIME)),
    (Color, FieldType("single", Scalar.ENUM, cls=Color)),
    (Point, FieldType("single", Scalar.MESSAGE, cls=Point)),
    ("int", FieldType("single", Scalar.INT)),
    (Optional[int], FieldType("single", Scalar.INT, optional=True)),  # noqa: UP045 - one of three ways to write it
    (Union[int, None], FieldType("single", Scalar.INT, optional=True)),
    (Union[None, int], FieldType("single", Scalar.INT, optional=True)),
    (int | None, FieldType("single", Scalar.INT, optional=True)),
    (UInt64 | None, FieldType("single", Scalar.UINT, optional=True)),
    (Point | None, FieldType("single", Scalar.MESSAGE, cls=Point, optional=True)),
    (list[int], FieldType("list", Scalar.INT)),
    (typing.List[int], FieldType("list", Scalar.INT)),  # noqa: UP006 - people still write it
    (list["Point"], FieldType("list", Scalar.MESSAGE, cls=Point)),
    (list[UInt64], FieldType("list", Scalar.UINT)),
    (dict[str, Color], FieldType("map", Scalar.ENUM, Scalar.STR, cls=Color)),
    (dict[int, bytes], FieldType("map", Scalar.BYTES, Scalar.INT)),
    (Annotated[int, Bounds(ge=0)], FieldType("single", Scalar.INT, bounds=Bounds(ge=0))),
    (Annotated[UInt64, Bounds(le=9)], FieldType("single", Scalar.UINT, bounds=Bounds(le=9))),
    (Annotated[float, Bounds(ge=0, le=0.5)], FieldType("single", Scalar.FLOAT, bounds=Bounds(ge=0, le=0.5))),
    (Annotated[int, Bounds(ge=0)] | None, FieldType("single", Scalar.INT, optional=True, bounds=Bounds(ge=0))),
    (Annotated[int | None, Bounds(ge=0)], FieldType("single", Scalar.INT, optional=True, bounds=Bounds(ge=0))),
    (Annotated[str, Bounds(max_length=3)], FieldType("single", Scalar.STR, bounds=Bounds(max_length=3))),
    (Annotated[bytes, Bounds(min_length=3)], FieldType("single", Scalar.BYTES, bounds=Bounds(min_length=3))),
    (list[Annotated[int, Bounds(ge=0)]], FieldType("list", Scalar.INT, bounds=Bounds(ge=0))),
    (Annotated[list[int], Bounds(max_length=2)], FieldType("list", Scalar.INT, size=Bounds(max_length=2))),
    (
        Annotated[dict[str, Annotated[str, Bounds(min_length=1)]], Bounds(max_length=2)],
        FieldType("map", Scalar.STR, Scalar.STR, bounds=Bounds(min_length=1), size=Bounds(max_length=2)),
    ),
]


@pytest.mark.parametrize(("hint", "expected"), ACCEPTED, ids=repr)
def test_accepted(hint: Any, expected: FieldType) -> None:
    """An annotation of the closed set becomes its field type."""
    assert only(hint).type == expected


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (UInt64, "UInt64"),
        (Color, "Color"),
        (Point | None, "Point | None"),
        (list[Point], "list[Point]"),
        (dict[int, float], "dict[int, float]"),
        (Annotated[list[Annotated[UInt64, Bounds(le=5)]], Bounds(max_length=3)], "list[UInt64]"),
    ],
)
def test_field_type_prints_as_written(hint: Any, text: str) -> None:
    """A field type prints as its author wrote it."""
    assert str(only(hint).type) == text


class Plain(enum.Enum):
    A = 1


class Texts(enum.StrEnum):
    A = "a"


class Flags(enum.IntFlag):
    A = 1


class Wide(int):
    pass


class Row(NamedTuple):
    x: int


class Shape(TypedDict):
    x: int


@dataclass
class Data:
    x: int


class Struct(msgspec.Struct):
    x: int


UserId = NewType("UserId", int)

REFUSED: list[tuple[Any, str, str]] = [
    (list, "list is no field type", "write list[T]"),
    (dict, "dict is no field type", "write dict[str, T] or dict[int, T]"),
    (set[int], "set[int] is no field type", "write list[T]"),
    (frozenset[int], "frozenset[int] is no field type", "write list[T]"),
    (tuple[int, str], "tuple[int, str] is no field type", "write list[T], or a message"),
    (tuple[int, ...], "tuple[int, ...] is no field type", "write list[T], or a message"),
    (ANY, "Any is no field type", "name the type"),
    (object, "object is no field type", "name the type"),
    (None, "NoneType is no field type", "leave the field out"),
    (bytearray, "bytearray is no field type", "write bytes"),
    (memoryview, "memoryview is no field type", "write bytes"),
    (complex, "complex is no field type", "two float fields"),
    (date, "date is no field type", "write datetime (UTC)"),
    (time, "time is no field type", "write int"),
    (timedelta, "timedelta is no field type", "timeout_ms"),
    (Decimal, "Decimal is no field type", "write str, or int"),
    (uuid.UUID, "UUID is no field type", "write bytes or str"),
    (Plain, "Plain is no field type", "write an IntEnum"),
    (Texts, "Texts is no field type", "write an IntEnum"),
    (Flags, "Flags is no field type", "one bool field per flag"),
    (Literal["a", "b"], "Literal['a', 'b'] is no field type", "write an IntEnum"),
    (Wide, "Wide is no field type", "write int"),
    (UserId, "UserId is no field type", "write int"),
    (Row, "Row is no field type", "from Message"),
    (Shape, "Shape is no field type", "from Message"),
    (Data, "Data is no field type", "derive Data from Message"),
    (Struct, "Struct is no field type", "derive Struct from Message"),
    (collections.abc.Sequence[int], "Sequence[int] is no field type", "write list[T]"),
    (collections.abc.Callable[[int], int], "is no field type", "write list[T], dict"),
    (T, "T is no field type", "docs of Message"),
    (typing.IO, "IO is no field type", "docs of Message"),
    (type[int], "type[int] is no field type", "docs of Message"),
    (int | str, "int | str is no field type", "one `T | None = None` field per case"),
    (int | str | None, "int | str | None is no field type", "one `T | None = None` field per case"),
    (list[int] | None, "a list is never None", "write list[int] = []"),
    (dict[str, int] | None, "a dict is never None", "write dict[str, int] = {}"),
    (list[list[int]], "nests containers", "write a message that holds the inner list, and list of that message"),
    (list[dict[str, int]], "nests containers", "write a message that holds the inner dict"),
    (dict[str, list[int]], "nests containers", "write a message that holds the inner list, and dict of that message"),
    (list[int | None], "neither None nor of several types", "leave None out"),
    (dict[str, int | str], "neither None nor of several types", "`T | None` field"),
    (list[set[int]], "set[int] is no field type", "write list[T]"),
    (list[Any], "Any is no field type", "name the type"),
    (dict[float, int], "dict[float, int] are no map keys", "write dict[str, ...] or dict[int, ...]"),
    (dict[bool, int], "are no map keys", "write dict[str, ...]"),
    (dict[Color, int], "are no map keys", "write dict[str, ...]"),
    (dict[UInt64, int], "are no map keys", "write dict[str, ...]"),
    (list[Annotated[int, Bounds(ge=0)]] | None, "a list is never None", "write list[int] = []"),
    (Annotated[str, "a comment"], "str in Annotated means nothing", "write Bounds(...)"),
    (Annotated[int, msgspec.Meta(ge=0)], "Meta in Annotated means nothing", "write Bounds(...)"),
    (Annotated[int, UInt64], "UInt64 is a type of its own", "write UInt64 instead of Annotated[...]"),
    (Annotated[str, UInt64], "UInt64 is a type of its own", "write UInt64 instead of Annotated[...]"),
    (Annotated[list[int], UInt64Mark()], "UInt64 is a type of its own", "write UInt64 instead of Annotated[...]"),
    (Annotated[int, Bounds], "Bounds in Annotated means nothing", "write Bounds(...)"),
    (Annotated[Annotated[int, Bounds(ge=0)], Bounds(le=5)], "two Bounds", "write one"),
    (Annotated[Annotated[bool, Since(1)], Since(1)], "two Since", "write one"),
    (list[Annotated[int, Since(2)]], "Since belongs to the whole field", "write Annotated[list[...], Since(...)]"),
    (Annotated[int, Since(0)], "Since takes a service version", "1 to 255"),
    (Annotated[int, Since(256)], "Since takes a service version", "1 to 255"),
    (Annotated[int, Since("2")], "Since takes a service version", "1 to 255"),  # type: ignore[arg-type]
    ("Nowhere", "nothing is called 'Nowhere' in module tests.schema.declaring", "at module level"),
    ("int +", "cannot be evaluated", ""),
    ("list[3]", "3 is no field type", "docs of Message"),
    ([int], "", ""),
]


@pytest.mark.parametrize(("hint", "problem", "advice"), REFUSED, ids=repr)
def test_refused(hint: Any, problem: str, advice: str) -> None:
    """An annotation outside of the set is refused: class, field, what it is, what to write instead."""
    text = refusal(field=hint)
    assert text.startswith("Subject.field: ")
    assert problem in text
    assert advice in text


BOUNDS: list[tuple[Any, Bounds, str]] = [
    (int, Bounds(), "says nothing"),
    (bool, Bounds(ge=0), "bool takes no Bounds"),
    (datetime, Bounds(ge=0), "datetime takes no Bounds"),
    (Color, Bounds(ge=0), "enum takes no Bounds"),
    (Point, Bounds(ge=0), "message takes no Bounds"),
    (str, Bounds(ge=0), "str has no ge or le; write min_length, max_length"),
    (list[int], Bounds(le=3), "a list or map has no ge or le"),
    (int, Bounds(max_length=3), "int has no length; write ge, le"),
    (int, Bounds(ge=0.5), "takes int"),
    (int, Bounds(ge=True, le=77), "takes int"),
    (float, Bounds(ge=float("nan")), "the type holds -1.79"),
    (float, Bounds(le="1"), "takes int or float"),  # type: ignore[arg-type]
    (float, Bounds(le=10**400), "the type holds -1.79"),
    (float, Bounds(le=float("inf")), "the type holds -1.79"),
    (str, Bounds(max_length=2.5), "takes int"),  # type: ignore[arg-type]
    (int, Bounds(ge=2, le=1), "lets nothing through"),
    (str, Bounds(min_length=2, max_length=1), "lets nothing through"),
    (int, Bounds(le=2**63), "give Bounds within that"),
    (UInt64, Bounds(ge=-1), "give Bounds within that"),
    (UInt64, Bounds(le=2**64), "give Bounds within that"),
    (bytes, Bounds(min_length=-1), "give Bounds within that"),
]


@pytest.mark.parametrize(("hint", "bounds", "problem"), BOUNDS)
def test_refused_bounds(hint: Any, bounds: Bounds, problem: str) -> None:
    """Bounds that say nothing, or nothing about the type, are refused."""
    text = refusal(field=Annotated[hint, bounds])
    assert text.startswith("Subject.field: ")
    assert problem in text


@pytest.mark.parametrize(
    "bounds", [Bounds(ge=-(2**63), le=2**63 - 1), Bounds(ge=5, le=5), Bounds(ge=10**3, le=2**63 - 1)]
)
def test_accepted_bounds(bounds: Bounds) -> None:
    """Bounds may reach the very ends of the type, and meet."""
    assert only(Annotated[int, bounds]).type.bounds == bounds


def test_bounds_print_what_was_given() -> None:
    """Bounds print as they were written."""
    assert repr(Bounds(ge=0, max_length=3)) == "Bounds(ge=0, max_length=3)"


# Enums ----------------------------------------------------------------------------------------------------------


class Inventing(enum.IntEnum):
    A = 1

    @classmethod
    def _missing_(cls, value: object) -> "Inventing":
        return cls.A


ENUMS: list[tuple[Any, str]] = [
    (enum.IntEnum("Kind", {"NONE": 0, "A": 1}), "Kind.NONE is 0, which means `absent` in a .proto; number"),
    (enum.IntEnum("Kind", {"A": -1}), "Kind.A is not within 1 to 2**31 - 1"),
    (enum.IntEnum("Kind", {"A": 2**31}), "Kind.A is not within 1 to 2**31 - 1"),
    (enum.IntEnum("Kind", {"UNSPECIFIED": 1}), "Kind.UNSPECIFIED is the 0 that the .proto adds"),
    (enum.IntEnum("Kind", {"darkRed": 1}), "write DARK_RED for Kind.darkRed"),
    (enum.IntEnum("kind_of", {"A": 1}), "write KindOf for kind_of"),
    (enum.IntEnum("Kind", {}), "Kind has no members"),
    (Inventing, "Inventing._missing_ would invent members"),
]


@pytest.mark.parametrize(("hint", "problem"), ENUMS)
def test_refused_enum(hint: Any, problem: str) -> None:
    """An enum that some codec could not carry is refused, in a list as well."""
    for wrapped in (hint, list[hint], dict[str, hint], hint | None):
        text = refusal(field=wrapped)
        assert text.startswith("Subject.field: ")
        assert problem in text


def test_enum_to_the_last_number() -> None:
    """An enum's numbers reach 2**31 - 1, and aliases are no members."""
    last = enum.IntEnum("Last", {"A": 1, "ALIAS": 1, "Z": 2**31 - 1})  # type: ignore[misc]
    assert only(last).type.cls is last
