"""Names in the styles that a .proto wants, and type hints as their author wrote them."""

import re
import types
import typing
from typing import Annotated, Any

__all__ = ["camel_case", "is_camel", "is_snake", "is_upper_snake", "snake_case", "type_name", "upper_snake"]

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

is_camel = re.compile(r"[A-Z][A-Za-z0-9]*").fullmatch
is_snake = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*").fullmatch
is_upper_snake = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*").fullmatch


def snake_case(name: str) -> str:
    """``undelivered_count`` for ``UndeliveredCount``."""
    return "_".join(_WORDS.findall(name)).lower() or "field_1"


def camel_case(name: str) -> str:
    """``UndeliveredCount`` for ``undelivered_count``."""
    return "".join(word[0].upper() + word[1:] for word in _WORDS.findall(name)) or "Name"


def upper_snake(name: str) -> str:
    """``UNDELIVERED_COUNT`` for ``UndeliveredCount``."""
    return snake_case(name).upper()


def type_name(hint: Any) -> str:
    """A hint as its author wrote it, near enough: without the module names that ``repr`` adds."""
    if isinstance(hint, type):
        return hint.__name__
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return type_name(args[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join("None" if arg is types.NoneType else type_name(arg) for arg in args)
    if isinstance(origin, type) and args:
        inner = ", ".join("..." if arg is ... else type_name(arg) for arg in args)
        return f"{origin.__name__}[{inner}]"
    return getattr(hint, "__name__", None) or repr(hint).replace("typing.", "")
