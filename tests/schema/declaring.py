"""Message classes made from annotations, for tables of them, and what is said about those that are refused."""

import enum
from types import new_class
from typing import Any

import pytest

from wireproto.errors import DeclarationError
from wireproto.schema import MISSING, Field, Message, Method, Service, fields


class Color(enum.IntEnum):
    """An enum as it should be."""

    RED = 1
    DARK_GREEN = 7


class Point(Message):
    """A message to nest."""

    x: int
    y: int = 0


def message(name: str = "Subject", /, **annotations: Any) -> type[Message]:
    """A message class with these fields; an annotation in a pair with a default is given that default."""
    namespace: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
    for field, hint in annotations.items():
        default: object = MISSING
        if isinstance(hint, tuple):
            hint, default = hint
        namespace["__annotations__"][field] = hint
        if default is not MISSING:
            namespace[field] = default
    return new_class(name, (Message,), {"kw_only": True}, lambda target: target.update(namespace))


def service(*types: type[Message], version: int = 1, since: int = 1) -> Service:
    """A service whose one method asks with the first class and answers with the last."""
    method: Method[Any, Any] = Method(opcode=1, name="Try", request=types[0], response=types[-1], since=since)
    return Service("tests.v1.TryService", version, [method])


def only(hint: Any, default: object = MISSING) -> Field:
    """The one field of a message that is declared so."""
    (field,) = fields(message(field=(hint, default)))
    return field


def refusal(**annotations: Any) -> str:
    """What is said about a message class with these fields."""
    with pytest.raises(DeclarationError) as caught:
        fields(message(**annotations))
    return str(caught.value)
