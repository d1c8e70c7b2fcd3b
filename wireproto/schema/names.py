"""Names in the styles that a .proto wants, and type hints as their author wrote them."""

import keyword
import re
import types
import typing
from typing import Annotated, Any

__all__ = ["camel_case", "is_camel", "is_snake", "is_upper_snake", "snake_case", "type_name", "upper_snake"]

_CAMEL = re.compile(r"[A-Z][A-Za-z0-9]*")
_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_UPPER_SNAKE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")

# As buf's lint breaks words: before a capital that follows a small letter or is followed by one; never before a digit.
_WORD_STARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z0-9])(?=[A-Z][a-z])")
_NO_NAME = re.compile(r"[^A-Za-z0-9]+")


def is_camel(name: str) -> bool:
    """Whether it is a CamelCase name that Python and a .proto both take: of a message, enum, method or service."""
    return _CAMEL.fullmatch(name) is not None and not keyword.iskeyword(name)


def is_snake(name: str) -> bool:
    """Whether it is a lower_snake_case name that Python and a .proto both take: of a field."""
    return _SNAKE.fullmatch(name) is not None and not keyword.iskeyword(name)


def is_upper_snake(name: str) -> bool:
    """Whether it is an UPPER_SNAKE name: of a reason or an enum's member."""
    return _UPPER_SNAKE.fullmatch(name) is not None


def snake_case(name: str) -> str:
    """``undelivered_count`` for ``UndeliveredCount``, ``http_code`` for ``HTTPCode``: what `is_snake` takes."""
    made = _NO_NAME.sub("_", _WORD_STARTS.sub("_", name)).strip("_").lower()
    return made if is_snake(made) else f"the_{made or 'name'}"


def camel_case(name: str) -> str:
    """``UndeliveredCount`` for ``undelivered_count``: what `is_camel` takes."""
    made = "".join(word[:1].upper() + word[1:] for word in _NO_NAME.sub("_", name).split("_"))
    return made if is_camel(made) else f"The{made or 'Name'}"


def upper_snake(name: str) -> str:
    """``UNDELIVERED_COUNT`` for ``UndeliveredCount``: what `is_upper_snake` takes."""
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
    name: str | None = None if args else getattr(hint, "__name__", None)
    return name or repr(hint).replace("typing.", "")
