"""A service with every field type, shape and presence, and with names that tools are known to stumble over."""

import enum
from datetime import UTC, datetime
from typing import Annotated

from wireproto.schema import Bounds, Message, Method, Service, Since, StreamMethod, UInt64

MOMENT = datetime(2024, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


class HTTPCode(enum.IntEnum):
    """How a page was answered."""

    OK = 200
    """The page is there."""
    NOT_FOUND = 404


class Color2D(enum.IntEnum):
    RED = 1
    DARK_BLUE = 2**31 - 1


class Point(Message):
    """A place.

    Two paragraphs, and code that keeps its lines:

        x ->
        y ^
    """

    x: int
    y: int = 0


class Empty(Message):
    """Nothing at all."""


class Zeros(Message):
    """Every field may be left out."""

    number: int = 0
    text: str = ""


class Deep(Message):
    """Holds others."""

    point: Point
    at: datetime
    points: list[Point] = []
    colors: list[Color2D] = []


class EverythingRequest(Message):
    """One field of every type, shape and presence."""

    boolean: bool
    signed: int
    unsigned: UInt64
    real: float
    text: str
    raw: bytes
    moment: datetime
    code: HTTPCode
    point: Point
    empty: Empty
    zeros: Zeros
    deep: Deep
    """Four levels of messages, with this one and its points."""

    no_boolean: bool | None = None
    no_signed: int | None = None
    no_unsigned: UInt64 | None = None
    no_real: float | None = None
    no_text: str | None = None
    no_raw: bytes | None = None
    no_moment: datetime | None = None
    no_code: HTTPCode | None = None
    no_point: Point | None = None
    no_empty: Empty | None = None
    no_zeros: Zeros | None = None

    zero_boolean: bool = False
    zero_signed: int = 0
    zero_real: float = 0.0
    zero_text: str = ""
    zero_raw: bytes = b""

    some_boolean: bool = True
    some_signed: int = -7
    some_real: float = 1.5
    some_text: str = "tea | \u2615"
    some_raw: bytes = b"\x00\xff"
    some_moment: datetime = MOMENT
    some_code: HTTPCode = HTTPCode.NOT_FOUND


class EverythingResponse(Message):
    """Lists and maps of every type."""

    booleans: list[bool] = []
    signed: list[int] = []
    unsigned: list[UInt64] = []
    reals: list[float] = []
    texts: list[str] = []
    raws: list[bytes] = []
    moments: list[datetime] = []
    codes: list[HTTPCode] = []
    points: list[Point] = []
    empties: list[Empty] = []
    deeps: list[Deep] = []

    booleans_by: dict[str, bool] = {}
    signed_by: dict[int, int] = {}
    unsigned_by: dict[str, UInt64] = {}
    reals_by: dict[int, float] = {}
    texts_by: dict[str, str] = {}
    raws_by: dict[int, bytes] = {}
    moments_by: dict[str, datetime] = {}
    codes_by: dict[int, HTTPCode] = {}
    points_by: dict[str, Point] = {}
    empties_by: dict[int, Empty] = {}
    deeps_by: dict[str, Deep] = {}


class KeywordsRequest(Message):
    """Names that mean something in a .proto; and a comment with */ and // and "quotes" in it."""

    message: str
    option: str
    optional: str
    repeated: str
    oneof: int
    map: int
    enum: int
    reserved: int
    to: int
    max: int
    syntax: int
    package: int
    service: int
    rpc: int
    returns: int
    stream: int
    string: bytes
    int64: bytes
    double: Point
    bool: list[Point]
    group: dict[str, Point]
    extend: dict[int, str]
    inf: float
    nan: float
    true: float
    a_1b: int


class KeywordsResponse(Message, kw_only=True):
    """Bounds and versions, which end in comments."""

    port: Annotated[int, Bounds(ge=1, le=65_535)]
    """Where it listens."""
    name: Annotated[str, Bounds(max_length=64)] = "none"
    digest: Annotated[bytes, Bounds(min_length=16, max_length=16)]
    shares: Annotated[list[Annotated[float, Bounds(ge=0)]], Bounds(min_length=1)]
    urgent: Annotated[bool, Since(2)] = False
    """Goes first."""
    code: Annotated[HTTPCode, Since(2)] = HTTPCode.OK


class WatchRequest(Message):
    """Opens the stream."""


class WatchResponse(Message):
    """An item of it."""

    text: str


class OldRequest(Message):
    """Of version 1 only."""


class OldResponse(Message):
    """Of version 1 only."""


EVERYTHING = Method(
    opcode=0x10,
    name="Everything",
    request=EverythingRequest,
    response=EverythingResponse,
    requires="everything",
    reasons=("TOO_MUCH", "TOO_LITTLE"),
    doc="Takes everything and gives everything.",
)
KEYWORDS = Method(
    opcode=0x11, name="Keywords", request=KeywordsRequest, response=KeywordsResponse, idempotent=True, since=2
)
WATCH = StreamMethod(opcode=0x12, name="Watch", request=WatchRequest, response=WatchResponse, doc="Watches ``it``.")
OLD = Method(opcode=0x13, name="Old", request=OldRequest, response=OldResponse, until=1)

EVERY = Service(
    "example.every.v1.EveryService", version=2, methods=[EVERYTHING, KEYWORDS, WATCH, OLD], doc="Has everything."
)
