"""Positions in a stream: the field of an item that holds its own, and how one is written where it is asked for.

A position is in the message, so every codec and every door carries it. Where a caller asks to go on behind one, it is
written in a way of its own, the same whatever the codec: a number in decimal, text in UTF-8, bytes as they are. So a
stream that was begun through one door, in one codec, goes on through another one.
"""

import re
from typing import Any, Final, TypeAlias

from wireproto.errors import DeclarationError, DecodeError, EncodeError
from wireproto.schema.declarations import fields
from wireproto.schema.messages import Field, Message, Scalar

__all__ = ["MAX_POSITION", "Position", "Positions", "position_field"]

Position: TypeAlias = int | str | bytes
"""What a field that is named in ``resumable`` holds."""

MAX_POSITION: Final = 64
"""Bytes of a position, as it is written. The least is 1."""

_KINDS: Final = (Scalar.INT, Scalar.UINT, Scalar.STR, Scalar.BYTES)
_NUMBER: Final = re.compile(rb"0|-?[1-9][0-9]{0,19}")
_RANGES: Final = {Scalar.INT: range(-(2**63), 2**63), Scalar.UINT: range(2**64)}


def position_field(where: str, item: type[Message], name: object, since: int) -> Field:
    """The field of ``item`` that is called ``name``, which must be able to hold positions.

    Args:
        where: the method, for errors.
        item: the class of the items.
        name: what was declared.
        since: the version that the method came with.

    Raises:
        DeclarationError: there is none, or it cannot; the text says what to write.
    """
    found = [each for each in fields(item) if each.name == name]
    if not found:
        names = ", ".join(each.name for each in fields(item)) or "none"
        raise DeclarationError(
            f"{where}: resumable is {name!r}; give the name of a field of {item.__name__}, which has {names}"
        )
    field = found[0]
    if field.type.shape != "single" or field.type.optional or field.type.scalar not in _KINDS:
        raise DeclarationError(
            f"{where}: resumable is {name!r}, and {field.path} is {field.type}; a position is an int, a UInt64, a str "
            "or bytes"
        )
    if field.since > since:
        raise DeclarationError(
            f"{where}: resumable is {name!r}, which is there since version {field.since} and the method since version "
            f"{since}; items of the versions between had no position, so declare another method"
        )
    return field


class Positions:
    """Reads and writes the positions of one kind of items. Thread-safe.

    Args:
        item: the class of the items.
        name: of the field, as ``position_field`` has accepted it.
    """

    __slots__ = ("_kind", "_name", "_path")

    def __init__(self, item: type[Message], name: str) -> None:
        (field,) = (each for each in fields(item) if each.name == name)
        self._name = name
        self._path = field.path
        self._kind = field.type.scalar

    def of(self, item: Any) -> bytes:
        """The position of ``item``, as it is written.

        Raises:
            EncodeError: nobody could go on behind it: it has no bytes, or more than 64.
        """
        return self.write(getattr(item, self._name))

    def write(self, value: Position) -> bytes:
        """A position as it is written.

        Raises:
            EncodeError: it is of another type than the field, out of its range, empty, or longer than 64 bytes.
        """
        written = b""
        kind = self._kind
        if kind in _RANGES:
            if type(value) is not int or value not in _RANGES[kind]:
                raise EncodeError(self._path, f"a position here is an int of {_span(kind)}, not {type(value).__name__}")
            return b"%d" % value
        if kind is Scalar.STR and isinstance(value, str):
            try:
                written = value.encode()
            except UnicodeEncodeError:
                raise EncodeError(self._path, "the position holds a lone surrogate") from None
        elif kind is Scalar.BYTES and isinstance(value, bytes):
            written = value
        else:
            raise EncodeError(self._path, f"a position here is {kind.value}, not {type(value).__name__}")
        if not 1 <= len(written) <= MAX_POSITION:
            raise EncodeError(self._path, f"a position has 1 to {MAX_POSITION} bytes, and this one has {len(written)}")
        return written

    def read(self, written: bytes) -> Position:
        """A position that somebody wrote.

        Raises:
            DecodeError: it is none of this field's.
        """
        kind = self._kind
        if kind is Scalar.BYTES:
            return written
        if kind is Scalar.STR:
            try:
                return written.decode()
            except UnicodeDecodeError:
                raise DecodeError(self._path, "the position is not UTF-8") from None
        if not _NUMBER.fullmatch(written) or int(written) not in _RANGES[kind]:
            raise DecodeError(self._path, f"the position is no number of {_span(kind)}")
        return int(written)


def _span(kind: Scalar) -> str:
    return "0 to 2**64 - 1" if kind is Scalar.UINT else "-2**63 to 2**63 - 1"
