"""What a message is: the base class, the marks for its annotations, and the tree of field types read from them."""

import enum
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, dataclass_transform

import msgspec

__all__ = [
    "MAX_VERSION",
    "MISSING",
    "Bounds",
    "Field",
    "FieldType",
    "Message",
    "Scalar",
    "Since",
    "UInt64",
    "UInt64Mark",
]

MAX_VERSION: Final = 255
"""The highest version of a service: the header has one byte for it."""


class _Missing(enum.Enum):
    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"

    __str__ = __repr__


MISSING: Final = _Missing.MISSING
"""``Field.default`` of a field that has none."""


# No metaclass, though one could make subclasses keyword-only: on CPython 3.11 a class of a metaclass of our own loses
# the vectorcall, and making a message costs 280 ns instead of 75, at every decode. Keyword-only is what type checkers
# hold to.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The base class of everything that is sent: typed, frozen, made with keyword arguments.

    Fields are ``bool``, ``int`` (signed 64 bit), ``UInt64``, ``float``, ``str``, ``bytes``, ``datetime`` (UTC),
    an ``IntEnum``, another message, ``T | None`` of those, ``list[T]``, ``dict[str, T]`` and ``dict[int, T]``.
    The only default of a list or map is the empty one: ``= []`` or ``= {}``.
    They are numbered by their order, so a new field goes to the end, with a default and `Since`; fields without a
    default come first, or the class says ``class Name(Message, kw_only=True)``.

    The constructor checks nothing but the names of its arguments. Types, ranges and bounds are checked by every codec,
    before encoding and after decoding.
    """


class UInt64Mark:
    """What tells `UInt64` from ``int``."""

    def __repr__(self) -> str:
        return "UInt64"


UInt64 = Annotated[int, UInt64Mark()]
"""An integer from 0 to 2**64 - 1. A plain ``int`` field is signed: -2**63 to 2**63 - 1."""


@dataclass(frozen=True)
class Bounds:
    """Narrows a field: ``Annotated[int, Bounds(ge=0, le=255)]``. All limits are inclusive.

    Attributes:
        ge: the least value of an ``int``, ``UInt64`` or ``float``.
        le: the greatest one. A float with bounds is never NaN.
        min_length: characters of a ``str``, bytes of ``bytes``, elements of a list or map.
        max_length: the most of them.
    """

    ge: int | float | None = None
    le: int | float | None = None
    min_length: int | None = None
    max_length: int | None = None

    def __repr__(self) -> str:
        given = ((name, getattr(self, name)) for name in ("ge", "le", "min_length", "max_length"))
        return f"Bounds({', '.join(f'{name}={value!r}' for name, value in given if value is not None)})"


@dataclass(frozen=True)
class Since:
    """The service version a field came with: ``Annotated[bool, Since(2)] = False``.

    Attributes:
        version: 1 to 255.
        ignorable: a request to an older peer may drop the value. Without it a value other than the default is refused
            with `EncodeError`. Responses always drop it.
    """

    version: int
    ignorable: bool = False


class Scalar(enum.Enum):
    """What one element of a field is."""

    BOOL = "bool"
    INT = "int"
    UINT = "UInt64"
    FLOAT = "float"
    STR = "str"
    BYTES = "bytes"
    DATETIME = "datetime"
    ENUM = "enum"
    MESSAGE = "message"


@dataclass(frozen=True)
class FieldType:
    """The type of a field, or (`element`) of the elements of a list or the values of a map. ``str`` prints it.

    Attributes:
        shape: whether there is one value, a list of them, or a map to them.
        scalar: what the value, the element or the map's value is.
        key: STR or INT for maps, else None.
        optional: None is a value, too. Never for lists and maps.
        cls: the enum or message class.
        bounds: of the value, the element or the map's value.
        size: of the number of elements of a list or map; only lengths are set.
    """

    shape: Literal["single", "list", "map"]
    scalar: Scalar
    key: Scalar | None = None
    optional: bool = False
    cls: type[Any] | None = None
    bounds: Bounds | None = None
    size: Bounds | None = None

    @property
    def element(self) -> "FieldType":
        """The type of one element of a list, or of one value of a map."""
        return FieldType("single", self.scalar, cls=self.cls, bounds=self.bounds)

    def __str__(self) -> str:
        name = self.cls.__name__ if self.cls is not None else self.scalar.value
        if self.shape == "list":
            return f"list[{name}]"
        if self.key is not None:
            return f"dict[{self.key.value}, {name}]"
        return f"{name} | None" if self.optional else name


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Attributes:
        number: its position, from 1: the protobuf tag.
        name: lower_snake_case.
        type: what it holds.
        required: it has no default.
        default: the default, `MISSING` when required. An empty list or dict is shared: do not change it.
        since: the service version it came with.
        ignorable: see `Since`.
        path: ``Message.field``, as errors name it.
    """

    number: int
    name: str
    type: FieldType
    required: bool
    default: object = field(hash=False)
    since: int
    ignorable: bool
    path: str

    @property
    def presence(self) -> Literal["implicit", "explicit"]:
        """Whether absence differs from zero: ``explicit`` is ``optional`` in a .proto.

        Explicit are ``T | None`` and every default but the zero value. Implicit is the rest: absent means zero, "",
        empty; for a message, datetime or enum without a default, absent is an error.
        """
        if self.type.shape != "single":
            return "implicit"
        if self.type.optional:
            return "explicit"
        if self.required or self.default == _ZERO.get(self.type.scalar, MISSING):
            return "implicit"
        return "explicit"


_ZERO: Final[dict[Scalar, object]] = {
    Scalar.BOOL: False,
    Scalar.INT: 0,
    Scalar.UINT: 0,
    Scalar.FLOAT: 0.0,
    Scalar.STR: "",
    Scalar.BYTES: b"",
}
