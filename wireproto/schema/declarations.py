"""Reads message classes: the closed set of field types, taken from annotations; anything else is refused by name.

Everything else in the framework works on the `Field` tuples made here, never on annotations.
"""

import enum
import functools
import sys
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec

from wireproto.errors import DeclarationError
from wireproto.schema.messages import (
    MAX_VERSION,
    MISSING,
    Bounds,
    Field,
    FieldType,
    Message,
    Scalar,
    Since,
    UInt64,
    UInt64Mark,
    only_empty,
)
from wireproto.schema.names import camel_case, is_camel, is_snake, is_upper_snake, snake_case, type_name, upper_snake
from wireproto.schema.values import INT64, UINT64, problem_with, type_problem

__all__ = ["MAX_DEPTH", "fields", "nested_types", "reachable"]

MAX_DEPTH: Final = 32
"""Messages inside messages. Parsers of protobuf stop at 100 levels, and a map of messages takes two."""

_FACTORY: Final = type(
    msgspec.defstruct("Probe", [("field", list, msgspec.field(default_factory=list))]).__struct_defaults__[0]
)


# What the wire format decides about every message class; msgspec's options that only Python sees are the author's.
_CONFIG: Final[dict[str, object]] = {
    "frozen": True,
    "array_like": True,
    "forbid_unknown_fields": True,
    "omit_defaults": False,
    "tag": None,
}


def fields(message_type: type[Message], version: int | None = None) -> tuple[Field, ...]:
    """The fields of a message class in one version of its service, in wire order.

    Args:
        message_type: a subclass of `Message`.
        version: 1 to 255; None is the newest.

    Raises:
        DeclarationError: the class, or one nested in it, is declared wrong; or it does not exist in that version, as a
            newer field has no default.
        ValueError: there can be no such version.
    """
    return _fields(message_type, version)


@functools.cache
def _fields(message_type: type[Message], version: int | None) -> tuple[Field, ...]:
    nested_types(message_type)
    described = _describe(message_type)
    if version is None:
        return described
    if not 1 <= version <= MAX_VERSION:
        raise ValueError(f"version is {version}; give 1 to {MAX_VERSION}, or None for the newest")
    for newer in described:
        if newer.since > version and newer.required:
            raise DeclarationError(
                f"{newer.path} is new in version {newer.since} and has no default, so {message_type.__name__} does not "
                f"exist in version {version}; give the field a default, or use the message from {newer.since} on"
            )
    return tuple(each for each in described if each.since <= version)


def nested_types(message_type: type[Message]) -> tuple[type[Message], ...]:
    """The message class and every one inside it, in order of first use.

    Raises:
        DeclarationError: one of them is declared wrong, or refers to itself.
    """
    return _nested_types(message_type)


def reachable(roots: Iterable[type[Message]], version: int | None = None) -> tuple[type[Message], ...]:
    """``roots`` and the messages inside them as of one version, in order of first use.

    Args:
        roots: message classes.
        version: 1 to 255: what is only in newer fields is left out, and need not exist in it. None is the newest.

    Raises:
        DeclarationError: one of them is declared wrong, or does not exist in that version.
    """
    found: dict[type[Message], None] = {}

    def visit(cls: type[Message]) -> None:
        if cls not in found:
            found[cls] = None
            for each in fields(cls, version):
                if each.type.scalar is Scalar.MESSAGE:
                    visit(typing.cast(type[Message], each.type.cls))

    for cls in roots:
        visit(cls)
    return tuple(found)


@functools.cache
def _nested_types(message_type: type[Message]) -> tuple[type[Message], ...]:
    found: dict[type[Message], None] = {}
    # One visit per class, or diamonds would cost two to the power of their depth.
    heights: dict[type[Message], int] = {}

    def visit(cls: type[Message], trail: tuple[type[Message], ...]) -> int:
        if cls in heights:
            return heights[cls]
        found[cls] = None
        trail = (*trail, cls)
        height = 1
        for each in _describe(cls):
            if each.type.scalar is not Scalar.MESSAGE:
                continue
            nested = typing.cast(type[Message], each.type.cls)
            if nested in trail:
                cycle = [*trail[trail.index(nested) :], nested]
                raise DeclarationError(
                    f"{each.path}: a message must not contain itself ({' -> '.join(one.__name__ for one in cycle)}); "
                    "write a list of flat messages that name each other by id"
                )
            if len(trail) < MAX_DEPTH:
                height = max(height, 1 + visit(nested, trail))
            if len(trail) >= MAX_DEPTH or height > MAX_DEPTH:
                raise DeclarationError(f"{each.path}: messages nest deeper than {MAX_DEPTH}; flatten them")
        heights[cls] = height
        return height

    visit(message_type, ())
    return tuple(found)


# Reading a class ------------------------------------------------------------------------------------------------


@functools.cache
def _describe(cls: type[Message]) -> tuple[Field, ...]:
    _check_class(cls)
    defaults = (MISSING,) * (len(cls.__struct_fields__) - len(cls.__struct_defaults__)) + cls.__struct_defaults__
    described: list[Field] = []
    json_names: dict[str, str] = {}
    newest = 1
    for number, (name, raw) in enumerate(zip(cls.__struct_fields__, defaults, strict=True), 1):
        path = f"{cls.__name__}.{name}"
        if not is_snake(name):
            raise DeclarationError(f"{path}: field names are lower_snake_case; write {snake_case(name)}")
        # A .proto with two fields of one JSON name does not compile.
        other = json_names.setdefault(name.replace("_", ""), name)
        if other != name:
            raise DeclarationError(f"{path}: the name differs from {other} in its underscores only; rename one")
        kind, since = _read_type(_resolve(cls, name, path), path)
        if since.version < newest:
            raise DeclarationError(
                f"{path} is of version {since.version} but stands behind a field of version {newest}; "
                f"fields are numbered by order, so put the newest last (or write Since({newest}))"
            )
        newest = since.version
        default = _default(raw, kind, path)
        described.append(Field(number, name, kind, default is MISSING, default, since.version, since.ignorable, path))
    return tuple(described)


def _check_class(cls: type[Message]) -> None:
    given: Any = cls
    if not (isinstance(given, type) and issubclass(given, Message)):
        raise DeclarationError(f"{type_name(cls)} is no message class; write class {type_name(cls)}(Message)")
    name = cls.__name__
    if cls is Message:
        raise DeclarationError("Message itself has no fields; write a subclass")
    if cls.__bases__ != (Message,):
        bases = ", ".join(base.__name__ for base in cls.__bases__)
        raise DeclarationError(
            f"{name}({bases}): message classes derive from Message alone, so that every field has one fixed number; "
            "repeat the fields, or nest the other message as a field"
        )
    if not is_camel(name):
        raise DeclarationError(f"{name}: message names are CamelCase; write {camel_case(name)}")
    for option, value in _CONFIG.items():
        if getattr(cls.__struct_config__, option) != value:
            raise DeclarationError(f"{name}: a message class takes no {option}=, the wire format decides; drop it")
    if cls.__struct_encode_fields__ != cls.__struct_fields__:
        renamed = next(a for a, b in zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True) if a != b)
        raise DeclarationError(
            f"{name}.{renamed}: fields have one name everywhere; drop name= from field(), or rename= from the class"
        )
    if hasattr(cls, "__post_init__"):
        raise DeclarationError(
            f"{name}.__post_init__: messages check nothing when they are made; use Bounds, or check in the handler"
        )


def _resolve(cls: type[Message], name: str, path: str) -> Any:
    """The annotation as an object, whether or not the module postpones annotations."""
    # Types declared inside the class body count, too; but not its attributes, among which are the fields: one called
    # `list` would hide the builtin from all others.
    local = {key: value for key, value in vars(cls).items() if isinstance(value, type)}
    module = sys.modules.get(cls.__module__)
    try:
        # One field at a time, so that an error names it.
        holder = types.SimpleNamespace(__annotations__={name: cls.__annotations__[name]})
        hints = typing.get_type_hints(holder, vars(module) if module else {}, local, include_extras=True)
    except NameError as error:
        raise DeclarationError(
            f"{path}: nothing is called {error.name!r} in module {cls.__module__}; import it there outside of "
            "`if TYPE_CHECKING`, and declare what a message refers to at module level"
        ) from error
    except Exception as error:
        raise DeclarationError(f"{path}: the annotation cannot be evaluated: {error}") from error
    return hints[name]


@dataclass
class _Marks:
    """What stood in ``Annotated[...]``."""

    unsigned: bool = False
    bounds: Bounds | None = None
    since: Since | None = None


def _unwrap(hint: Any, marks: _Marks, path: str) -> Any:
    """Take ``Annotated`` off a hint and gather what it says."""
    if typing.get_origin(hint) is not Annotated:
        return hint
    for mark in hint.__metadata__:
        if mark == UInt64 or (isinstance(mark, UInt64Mark) and hint.__origin__ is not int):
            raise DeclarationError(f"{path}: UInt64 is a type of its own; write UInt64 instead of Annotated[...]")
        if isinstance(mark, UInt64Mark):
            marks.unsigned = True
        elif isinstance(mark, Bounds):
            if marks.bounds is not None:
                raise DeclarationError(f"{path}: two Bounds; write one that says it all")
            marks.bounds = mark
        elif isinstance(mark, Since):
            if marks.since is not None:
                raise DeclarationError(f"{path}: two Since; write one")
            marks.since = mark
        else:
            shown = type_name(mark) if isinstance(mark, type) else type(mark).__name__
            raise DeclarationError(
                f"{path}: {shown} in Annotated means nothing here; write Bounds(...) to narrow a field, "
                "Since(version) for a later one"
            )
    return hint.__origin__


def _read_type(hint: Any, path: str) -> tuple[FieldType, Since]:
    marks = _Marks()
    hint = _unwrap(hint, marks, path)
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [arg for arg in hint.__args__ if arg is not types.NoneType]
        if len(inner) != 1 or len(inner) == len(hint.__args__):
            raise DeclarationError(
                f"{path}: {type_name(hint)} is no field type; write a message with one `T | None = None` field per case"
            )
        optional = True
        hint = _unwrap(inner[0], marks, path)
    since = marks.since or Since(1)
    if type(since.version) is not int or not 1 <= since.version <= MAX_VERSION:
        raise DeclarationError(f"{path}: Since takes a service version from 1 to {MAX_VERSION}")
    origin = typing.get_origin(hint)
    if origin is list or origin is dict:
        return _read_container(hint, origin, optional, marks, path), since
    return _read_scalar(hint, optional, marks, path), since


def _read_container(hint: Any, origin: type, optional: bool, marks: _Marks, path: str) -> FieldType:
    name = origin.__name__
    if optional:
        raise DeclarationError(
            f"{path}: a {name} is never None, on the wire none and empty are the same; write {type_name(hint)} = "
            f"{'[]' if origin is list else '{}'}"
        )
    size = _check_bounds(marks.bounds, None, path)
    key = None
    element = hint.__args__[-1]
    if origin is dict:
        key = {str: Scalar.STR, int: Scalar.INT}.get(hint.__args__[0])
        if key is None:
            raise DeclarationError(
                f"{path}: the keys of {type_name(hint)} are no map keys; write dict[str, ...] or dict[int, ...]"
            )
    inner = _Marks()
    element = _unwrap(element, inner, path)
    if inner.since is not None:
        raise DeclarationError(f"{path}: Since belongs to the whole field; write Annotated[{name}[...], Since(...)]")
    if typing.get_origin(element) in (typing.Union, types.UnionType):
        raise DeclarationError(
            f"{path}: the elements of a {name} are neither None nor of several types; "
            "leave None out, or write a message with a `T | None` field"
        )
    if typing.get_origin(element) in (list, dict):
        raise DeclarationError(
            f"{path}: {type_name(hint)} nests containers; write a message that holds the inner "
            f"{typing.get_origin(element).__name__}, and {type_name(origin)} of that message"
        )
    kind = _read_scalar(element, False, inner, path)
    return FieldType("list" if origin is list else "map", kind.scalar, key, cls=kind.cls, bounds=kind.bounds, size=size)


_SCALARS: Final[dict[Any, Scalar]] = {
    bool: Scalar.BOOL,
    int: Scalar.INT,
    float: Scalar.FLOAT,
    str: Scalar.STR,
    bytes: Scalar.BYTES,
    datetime: Scalar.DATETIME,
}


def _read_scalar(hint: Any, optional: bool, marks: _Marks, path: str) -> FieldType:
    try:
        scalar = _SCALARS.get(hint)
    except TypeError:  # an unhashable thing is no type at all
        scalar = None
    cls: type[Any] | None = None
    if marks.unsigned:
        scalar = Scalar.UINT
    if scalar is None and isinstance(hint, type):
        if issubclass(hint, Message):
            _check_class(hint)
            scalar, cls = Scalar.MESSAGE, hint
        elif issubclass(hint, enum.IntEnum):
            _check_enum(hint, path)
            scalar, cls = Scalar.ENUM, hint
    if scalar is None:
        raise DeclarationError(f"{path}: {type_name(hint)} is no field type; {_advice(hint)}")
    return FieldType("single", scalar, optional=optional, cls=cls, bounds=_check_bounds(marks.bounds, scalar, path))


_ADVICE: Final[dict[Any, str]] = {
    list: "write list[T], with the type of its elements",
    dict: "write dict[str, T] or dict[int, T]",
    set: "write list[T]",
    frozenset: "write list[T]",
    tuple: "write list[T], or a message with one field per position",
    bytearray: "write bytes",
    memoryview: "write bytes",
    complex: "write a message with two float fields",
    object: "name the type; for one of several, write a message with one `T | None = None` field per case",
    Any: "name the type; for one of several, write a message with one `T | None = None` field per case",
    types.NoneType: "leave the field out, or write T | None",
    date: "write datetime (UTC), or str for a day without a time",
    time: "write int, with the unit in its name",
    timedelta: "write int, with the unit in its name, as in timeout_ms",
}


def _advice(hint: Any) -> str:
    """What to write instead of a type that no field has."""
    origin = typing.get_origin(hint)
    try:
        if hint in _ADVICE or origin in _ADVICE:
            return _ADVICE[hint if hint in _ADVICE else origin]
    except TypeError:
        return "write a type"
    if origin is Literal:
        return "write an IntEnum with members from 1 on"
    if isinstance(hint, typing.NewType):
        return f"write {type_name(hint.__supertype__)}"
    cls = hint if isinstance(hint, type) else origin
    if isinstance(cls, type):
        if issubclass(cls, enum.Flag):
            return "write list[E] of an IntEnum E, or one bool field per flag"
        if issubclass(cls, enum.Enum):
            return "write an IntEnum with members from 1 on"
        for base in (bool, int, float, str, bytes, datetime):
            if issubclass(cls, base):
                return f"write {base.__name__}"
        if cls.__module__ == "decimal":
            return "write str, or int in the smallest unit"
        if cls.__module__ == "uuid":
            return "write bytes or str"
        if cls.__module__ in ("collections.abc", "collections"):
            return "write list[T], dict[str, T] or dict[int, T]"
        if not getattr(cls, "__module__", "").startswith("typing"):
            return f"derive {cls.__name__} from Message, or write one of the types in the docs of Message"
    return "write one of the types in the docs of Message"


def _check_enum(cls: type[enum.IntEnum], path: str) -> None:
    name = cls.__name__
    if not is_camel(name):
        raise DeclarationError(f"{path}: enum names are CamelCase; write {camel_case(name)} for {name}")
    if not len(cls):
        raise DeclarationError(f"{path}: {name} has no members")
    # `_missing_` would let one codec accept numbers that the others refuse.
    if getattr(cls._missing_, "__func__", None) is not getattr(enum.Enum._missing_, "__func__", None):
        raise DeclarationError(f"{path}: {name}._missing_ would invent members; unknown numbers are refused, drop it")
    for member in cls:
        if not is_upper_snake(member.name):
            raise DeclarationError(
                f"{path}: members are UPPER_SNAKE; write {upper_snake(member.name)} for {name}.{member.name}"
            )
        if member.name == "UNSPECIFIED":
            raise DeclarationError(f"{path}: {name}.UNSPECIFIED is the 0 that the .proto adds; give it another name")
        if member.value == 0:
            raise DeclarationError(
                f"{path}: {name}.{member.name} is 0, which means `absent` in a .proto; number the members from 1, "
                f"and write {name} | None where there may be none"
            )
        if not 1 <= member.value < 2**31:
            raise DeclarationError(f"{path}: {name}.{member.name} is not within 1 to 2**31 - 1; renumber it")


def _check_bounds(bounds: Bounds | None, scalar: Scalar | None, path: str) -> Bounds | None:
    """Refuse bounds that say nothing, or the wrong thing for the type; scalar None is a list or map."""
    if bounds is None:
        return None
    ranged = scalar in (Scalar.INT, Scalar.UINT, Scalar.FLOAT)
    sized = scalar in (None, Scalar.STR, Scalar.BYTES)
    what = "a list or map" if scalar is None else scalar.value
    if bounds == Bounds():
        raise DeclarationError(f"{path}: Bounds() says nothing; drop it, or give ge, le, min_length or max_length")
    if not ranged and not sized:
        raise DeclarationError(f"{path}: {what} takes no Bounds; drop them")
    if not ranged and (bounds.ge is not None or bounds.le is not None):
        raise DeclarationError(f"{path}: {what} has no ge or le; write min_length, max_length")
    if not sized and (bounds.min_length is not None or bounds.max_length is not None):
        raise DeclarationError(f"{path}: {what} has no length; write ge, le")
    numbers: tuple[type, ...] = (int,)
    least: float
    most: float
    if scalar is Scalar.FLOAT:
        numbers, least, most = (int, float), -sys.float_info.max, sys.float_info.max
    else:
        least, most = (0, sys.maxsize) if sized else UINT64 if scalar is Scalar.UINT else INT64
    low, high = (bounds.ge, bounds.le) if ranged else (bounds.min_length, bounds.max_length)
    for value in (low, high):
        if value is None:
            continue
        if type(value) not in numbers:
            raise DeclarationError(f"{path}: {bounds} takes {' or '.join(one.__name__ for one in numbers)}")
        if not least <= value <= most:  # NaN is not, either
            raise DeclarationError(f"{path}: the type holds {least} to {most}; give Bounds within that")
    if low is not None and high is not None and low > high:
        raise DeclarationError(f"{path}: {bounds} lets nothing through; swap the limits")
    return bounds


def _default(raw: Any, kind: FieldType, path: str) -> object:
    if raw is MISSING or raw is msgspec.NODEFAULT:
        return MISSING
    empty: dict[str, type] = {"list": list, "map": dict}
    factory = raw.factory if type(raw) is _FACTORY else None
    if kind.shape != "single":
        if factory is not empty[kind.shape]:
            raise DeclarationError(f"{path}: {only_empty(kind.shape)}")
        if kind.size is not None and kind.size.min_length:
            raise DeclarationError(f"{path}: the empty default is not within {kind.size}; drop one of them")
        return factory()
    if factory is not None:
        raise DeclarationError(f"{path}: a default is one value that both sides know; write it instead of the factory")
    if kind.optional:
        if raw is not None:
            raise DeclarationError(
                f"{path}: a field that may be None has None as its default; write = None, or drop `| None`"
            )
        return None
    if kind.scalar is Scalar.MESSAGE:
        raise DeclarationError(f"{path}: a message has no default value; write {kind} | None = None")
    if kind.scalar is Scalar.FLOAT and type(raw) is float and (raw != raw or str(raw) == "-0.0"):
        raise DeclarationError(f"{path}: nan and -0.0 are no defaults, they equal something else or nothing")
    problem = problem_with(raw, kind)
    if problem:
        raise DeclarationError(f"{path}: the default {problem}{_default_advice(raw, kind, problem)}")
    return typing.cast(object, raw)


def _default_advice(raw: object, kind: FieldType, problem: str) -> str:
    """What to write instead of a default, where the words for its problem say nothing about that."""
    if "; " in problem:
        return ""
    if kind.bounds is not None and not type_problem(raw, kind):
        return f"; write one within {kind.bounds}, or change the bounds"
    return f"; write a value of type {kind}"
