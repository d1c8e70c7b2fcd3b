"""The messages of ``codecs.json``, as this package declares them."""

import enum
from datetime import datetime
from typing import Annotated

from wireproto.schema import Message, Since, UInt64


class Color(enum.IntEnum):
    """An enum: numbers from 1 on."""

    RED = 1
    GREEN = 2
    BLUE = 70_000


class Empty(Message):
    """No field at all."""


class Point(Message):
    """Two integers."""

    x: int
    y: int


class Scalars(Message):
    """Every scalar once, all without a default."""

    flag: bool
    count: int
    big: UInt64
    ratio: float
    text: str
    data: bytes
    at: datetime
    color: Color


class Containers(Message):
    """Lists and maps; all may be empty."""

    numbers: list[int] = []
    names: list[str] = []
    blobs: list[bytes] = []
    points: list[Point] = []
    scores: dict[str, int] = {}
    labels: dict[int, str] = {}
    places: dict[str, Point] = {}


class Presence(Message):
    """Where absent is not zero, and where it is."""

    inner: Point
    maybe: int | None = None
    word: str | None = None
    point: Point | None = None
    limit: int = 100
    note: str = ""
    color: Color = Color.GREEN


class Grown(Message):
    """A field was appended in version 2."""

    name: str
    loud: Annotated[bool, Since(2)] = False


class Real(Message):
    """A float alone."""

    value: float


MESSAGES = (Empty, Point, Scalars, Containers, Presence, Grown, Real)
