"""What a message is: the base class, the marks for its annotations, and the tree of field types read from them."""

import enum
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, dataclass_transform

import msgspec

from wireproto.errors import DeclarationError

__all__ = [
    "MAX_VERSION",
    "MISSING",
    "Bounds",
    "Declaring",
    "Field",
    "FieldType",
    "Message",
    "Scalar",
    "Since",
    "UInt64",
    "UInt64Mark",
    "only_empty",
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


class Declaring(msgspec.StructMeta):
    """Says in the words of this package what msgspec refuses while it makes a class, before we see its fields."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        """See ``type``.

        Raises:
            DeclarationError: a default is not empty, or a field without a default stands behind one that has one.
        """
        try:
            return super().__new__(cls, name, bases, namespace, **options)
        except TypeError as error:
            problem = _problem(name, namespace)
            if not problem:
                raise
            raise DeclarationError(problem) from error


def _problem(name: str, namespace: dict[str, Any]) -> str:
    """What is wrong with the defaults of a class that could not be made; "" when it is something else."""
    defaulted = ""
    for field_name in namespace.get("__annotations__", ()):
        path = f"{name}.{field_name}"
        default = namespace.get(field_name, MISSING)
        if isinstance(default, list | dict) and default:
            return f"{path}: {only_empty('list' if isinstance(default, list) else 'map')}"
        if default is not MISSING:
            defaulted = defaulted or field_name
        elif defaulted:
            advice = f"move it before {defaulted}, or write class {name}(Message, kw_only=True)"
            return f"{path}: it has no default and stands behind {defaulted}, which has one; {advice}"
    return ""


def only_empty(shape: str) -> str:
    """What is said of any other default of a list or map."""
    return f"the only default of a {shape} is empty; write = {'[]' if shape == 'list' else '{}'}"


# On CPython 3.11 a class of a metaclass that Python code defines has no vectorcall, whatever that one does: to make
# a message costs 175 ns and not 110, and by its fields' names 407 and not 118, at every decode. From 3.12 on it costs
# nothing. So 3.11 has the words of msgspec; keyword-only is left to type checkers, for all.
_Struct = msgspec.Struct
if not TYPE_CHECKING:
    _Struct = Declaring("_Struct", (msgspec.Struct,), {}) if sys.version_info >= (3, 12) else msgspec.Struct


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Message(_Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
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
