"""Messages as nested lists and dicts of plain values, and back: what a codec over a generic format builds on."""

import enum
import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast

from wireproto.errors import DecodeError
from wireproto.schema.declarations import fields
from wireproto.schema.messages import Field, FieldType, Message, Scalar
from wireproto.schema.names import type_name
from wireproto.schema.refusal import Refused
from wireproto.schema.values import type_problem

__all__ = ["from_plain", "to_plain"]

M = TypeVar("M", bound=Message)
Convert = Callable[[Any], Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_plain(message: Message, version: int | None = None) -> list[Any]:
    """A message as a list of its fields in order, nested messages as lists, too.

    A datetime becomes an int, microseconds since 1970; an enum its number; a map a dict; bytes stay bytes. Fields newer
    than the version are left out. Nothing is checked: do that first, with `compile_refusal`.

    Args:
        message: an instance of a subclass of `Message`.
        version: the service version, 1 to 255; None is the newest.
    """
    return cast(list[Any], _dumper(type(message), version)(message))


def from_plain(message_type: type[M], value: object, version: int | None = None) -> M:
    """The inverse of `to_plain`: strict about types and the number of fields, silent about ranges and bounds.

    An int is taken for a float when the float is exactly that number. Check the result with `compile_refusal`.

    Args:
        message_type: the class to make.
        value: what `to_plain` gives.
        version: the service version, 1 to 255; None is the newest.

    Raises:
        DecodeError: the value is no such message; ``path`` says where.
    """
    try:
        return cast(M, _loader(message_type, version)(value))
    except Refused as refused:
        raise DecodeError(message_type.__name__ + refused.path, refused.problem) from None


# To plain -------------------------------------------------------------------------------------------------------


@functools.cache
def _dumper(message_type: type[Message], version: int | None) -> Convert:
    plan = [(each.name, _dump_field(each.type, version)) for each in fields(message_type, version)]

    def dump(message: Message) -> list[Any]:
        return [convert(getattr(message, name)) for name, convert in plan]

    return dump


def _dump_field(kind: FieldType, version: int | None) -> Convert:
    convert = _dump_scalar(kind, version)
    if kind.shape == "list":
        return lambda value: [convert(each) for each in value]
    if kind.shape == "map":
        return lambda value: {key: convert(each) for key, each in value.items()}
    if kind.optional:
        return lambda value: None if value is None else convert(value)
    return convert


def _dump_scalar(kind: FieldType, version: int | None) -> Convert:
    if kind.scalar is Scalar.MESSAGE:
        return _dumper(cast(type[Message], kind.cls), version)
    if kind.scalar is Scalar.ENUM:
        return int
    if kind.scalar is Scalar.DATETIME:
        return lambda value: (value - _EPOCH) // _MICROSECOND
    return lambda value: value


# From plain -----------------------------------------------------------------------------------------------------


@functools.cache
def _loader(message_type: type[Message], version: int | None) -> Convert:
    plan = [(each.name, _load_field(each, version)) for each in fields(message_type, version)]

    def load(value: object) -> Message:
        if type(value) is not list:
            raise Refused(f"is {type_name(type(value))}, not the list of fields of {message_type.__name__}")
        if len(value) != len(plan):
            raise Refused(f"has {len(value)} fields, not {len(plan)}")
        found: dict[str, object] = {}
        for (name, convert), each in zip(plan, value, strict=True):
            try:
                found[name] = convert(each)
            except Refused as refused:
                refused.path = f".{name}{refused.path}"
                raise
        return message_type(**found)

    return load


def _load_field(each: Field, version: int | None) -> Convert:
    kind = each.type
    convert = _load_scalar(kind.element, version)
    if kind.shape == "list":
        return _load_list(kind, convert)
    if kind.key is not None:
        return _load_map(kind, FieldType("single", kind.key), convert)
    if kind.optional:
        return lambda value: None if value is None else convert(value)
    return convert


def _load_list(kind: FieldType, convert: Convert) -> Convert:
    def load(value: object) -> list[Any]:
        if type(value) is not list:
            raise Refused(f"is {type_name(type(value))}, not {kind}")
        found = []
        for number, each in enumerate(value):
            try:
                found.append(convert(each))
            except Refused as refused:
                refused.path = f"[{number}]{refused.path}"
                raise
        return found

    return load


def _load_map(kind: FieldType, key_kind: FieldType, convert: Convert) -> Convert:
    def load(value: object) -> dict[Any, Any]:
        if type(value) is not dict:
            raise Refused(f"is {type_name(type(value))}, not {kind}")
        found = {}
        for number, (key, each) in enumerate(value.items()):
            problem = type_problem(key, key_kind)
            try:
                if problem:
                    raise Refused(f"the key {problem}")
                found[key] = convert(each)
            except Refused as refused:
                refused.path = f"[#{number}]{refused.path}"
                raise
        return found

    return load


def _load_scalar(kind: FieldType, version: int | None) -> Convert:
    if kind.scalar is Scalar.MESSAGE:
        return _loader(cast(type[Message], kind.cls), version)
    if kind.scalar is Scalar.ENUM:
        return _load_enum(kind)
    if kind.scalar is Scalar.DATETIME:
        return _load_datetime
    if kind.scalar is Scalar.FLOAT:
        return _load_float

    def load(value: object) -> object:
        problem = type_problem(value, kind)
        if problem:
            raise Refused(problem)
        return value

    return load


def _load_enum(kind: FieldType) -> Convert:
    members: dict[int, enum.IntEnum] = {int(member): member for member in cast(type[enum.IntEnum], kind.cls)}

    def load(value: object) -> enum.IntEnum:
        member = members.get(value) if type(value) is int else None
        if member is None:
            raise Refused(f"is no number of {kind}; it has {', '.join(map(str, sorted(members)))}")
        return member

    return load


def _load_datetime(value: object) -> datetime:
    if type(value) is not int:
        raise Refused(f"is {type_name(type(value))}, not microseconds since 1970 as int")
    try:
        return _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        raise Refused("is not within the years 1 to 9999") from None


def _load_float(value: object) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise Refused(f"is {type_name(type(value))}, not float")
    try:
        number = float(value)
    except OverflowError:
        number = 0.0
    if number != value:
        raise Refused("is an int that no float equals")
    return number
