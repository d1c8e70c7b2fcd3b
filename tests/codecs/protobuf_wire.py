"""Messages of the protobuf tests, and the wire format by hand."""

from datetime import datetime
from typing import Any

import pytest

from tests.protos.declarations import (
    Color2D,
    Point,
)
from wireproto.codecs.base import Plan
from wireproto.codecs.protobuf import ProtobufCodec
from wireproto.errors import DecodeError
from wireproto.limits import Limits
from wireproto.schema import Message, UInt64

CODEC = ProtobufCodec()
VARINT, FIXED64, BYTES, START, END, FIXED32 = range(6)


def plan(cls: type[Any], version: int = 1, *, max_elements: int = 65_536, request: bool = True) -> Plan[Any]:
    """The plan of a class with a limit."""
    return CODEC.plan(cls, version, Limits(max_elements=max_elements), request=request)


def varint(number: int) -> bytes:
    """A varint; negative numbers as protobuf writes them, in ten bytes."""
    number %= 2**64
    made = b""
    while number > 0x7F:
        made += bytes([number & 0x7F | 0x80])
        number >>= 7
    return made + bytes([number])


def tag(number: int, wire_type: int, value: bytes | int) -> bytes:
    """One field on the wire."""
    head = varint(number << 3 | wire_type)
    if isinstance(value, int):
        return head + varint(value)
    return head + (varint(len(value)) + value if wire_type == BYTES else value)


def refusal(cls: type[Any], payload: bytes, **options: Any) -> str:
    """What the codec says about a payload that it must refuse."""
    with pytest.raises(DecodeError) as caught:
        plan(cls, **options).decode(payload)
    return str(caught.value)


class Plain(Message):
    """Implicit and explicit fields without anything nested."""

    number: int
    text: str
    flag: bool
    big: UInt64 = 0
    maybe: int | None = None
    seven: int = 7
    color: Color2D | None = None


class Held(Message):
    """One message and one timestamp."""

    point: Point
    at: datetime | None = None


class Many(Message):
    """Containers."""

    numbers: list[int] = []
    texts: list[str] = []
    counts: dict[str, int] = {}
    points: dict[int, Point] = {}
    colors: list[Color2D] = []
    moments: list[datetime] = []
    moments_by: dict[str, datetime] = {}


class Reals(Message):
    """Floating point in every place."""

    one: float
    zero: float = 0.0
    none: float | None = None
    every: list[float] = []
    by: dict[str, float] = {}


class Colored(Message):
    """One enum."""

    color: Color2D


class Timed(Message):
    """One timestamp."""

    at: datetime


PLAIN = Plain(number=0, text="", flag=False)
