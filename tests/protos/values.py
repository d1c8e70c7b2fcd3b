"""Random messages of any declared class, and the stock runtime's own way to write and read them."""

import functools
from datetime import UTC, datetime
from typing import Any

from google.protobuf import message_factory
from google.protobuf.message import Message as RuntimeMessage
from hypothesis import strategies as st

from wireproto.protos import message_file, pool_for
from wireproto.schema import Field, Message, Scalar, fields

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)

_SCALARS: dict[Scalar, st.SearchStrategy[Any]] = {
    Scalar.BOOL: st.booleans(),
    Scalar.INT: st.integers(-(2**63), 2**63 - 1),
    Scalar.UINT: st.integers(0, 2**64 - 1),
    Scalar.FLOAT: st.floats(allow_nan=False),
    Scalar.STR: TEXT,
    Scalar.BYTES: st.binary(max_size=8),
    Scalar.DATETIME: st.datetimes(timezones=st.just(UTC)),
}


@functools.cache
def messages(cls: type[Message]) -> st.SearchStrategy[Any]:
    """Messages of a class without bounds; no NaN, since it equals nothing."""
    return st.builds(cls, **{field.name: _field(field) for field in fields(cls)})


def _field(field: Field) -> st.SearchStrategy[Any]:
    kind = field.type
    cls: Any = kind.cls
    if kind.scalar is Scalar.MESSAGE:
        item = messages(cls)
    elif kind.scalar is Scalar.ENUM:
        item = st.sampled_from(list(cls))
    else:
        item = _SCALARS[kind.scalar]
    if kind.shape == "list":
        return st.lists(item, max_size=3)
    if kind.key is not None:
        return st.dictionaries(_SCALARS[kind.key], item, max_size=3)
    if kind.optional:
        return st.none() | item
    return item if field.required else st.just(field.default) | item


@functools.cache
def stock_class(cls: type[Message]) -> type[Any]:
    """The runtime's class for the published descriptor of a message: what a protoc client has."""
    pool = pool_for([message_file([cls], "stock.v1")])
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"stock.v1.{cls.__name__}"))


def to_stock(message: Message) -> RuntimeMessage:
    """The message as a protoc client builds it: field by field, absent ones left alone."""
    made = stock_class(type(message))()
    _fill(message, made)
    return made  # type: ignore[no-any-return]


def _fill(message: Message, made: Any) -> None:
    made.SetInParent()
    for field in fields(type(message)):
        value, target = getattr(message, field.name), getattr(made, field.name)
        if field.type.key is not None:
            for key, each in value.items():
                if field.type.scalar in (Scalar.MESSAGE, Scalar.DATETIME):
                    _set(each, target[key])
                else:
                    target[key] = each
        elif field.type.shape == "list":
            for each in value:
                if field.type.scalar in (Scalar.MESSAGE, Scalar.DATETIME):
                    _set(each, target.add())
                else:
                    target.append(each)
        elif value is not None:
            if field.type.scalar in (Scalar.MESSAGE, Scalar.DATETIME):
                _set(value, target)
            else:
                setattr(made, field.name, value)


def _set(value: Any, target: Any) -> None:
    if isinstance(value, datetime):
        target.FromDatetime(value)
        target.SetInParent()
    else:
        _fill(value, target)
