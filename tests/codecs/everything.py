"""A service that holds every field type in every shape, in three versions, and the codecs to try it in."""

import enum
import runpy
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, cast

from wireproto import codecs
from wireproto.codecs import Codec
from wireproto.schema import Bounds, Message, Method, Service, Since, StreamMethod, UInt64

ROOT = Path(__file__).parents[2]


class Color(enum.IntEnum):
    """Numbers of one, two and four bytes."""

    RED = 1
    BLUE = 300
    VIOLET = 2**31 - 1


class Nothing(Message):
    """A message without fields."""


class Leaf(Message):
    """As plain as most messages are: what msgspec writes as it is."""

    name: str
    count: int = 0
    flags: list[bool] = []
    color: Color | None = None


class Branch(Message):
    """All that has an encoding of its own, one level down."""

    ratio: float
    at: datetime | None = None
    leaf: Leaf | None = None
    leaves: list[Leaf] = []
    by_name: dict[str, Leaf] = {}
    raw: bytes = b""
    note: str | None = None
    nothing: Nothing | None = None


class Singles(Message):
    """Each type by itself."""

    truth: bool
    signed: int
    unsigned: UInt64
    real: float
    text: str
    raw: bytes
    at: datetime
    color: Color
    branch: Branch
    nothing: Nothing


class Defaults(Message):
    """Each type with a default, zero and otherwise."""

    no: bool = False
    yes: bool = True
    zero: int = 0
    seven: int = -7
    most: UInt64 = 2**64 - 1
    half: float = 0.5
    empty: str = ""
    word: str = "a|b"
    octets: bytes = b"\0"
    color: Color = Color.BLUE


class Optionals(Message):
    """Each type that may be None."""

    truth: bool | None = None
    signed: int | None = None
    unsigned: UInt64 | None = None
    real: float | None = None
    text: str | None = None
    raw: bytes | None = None
    at: datetime | None = None
    color: Color | None = None
    branch: Branch | None = None


class Lists(Message):
    """A list of each type."""

    truths: list[bool]
    signed: list[int]
    unsigned: list[UInt64]
    reals: list[float]
    texts: list[str]
    raws: list[bytes]
    times: list[datetime]
    colors: list[Color]
    branches: list[Branch]
    nothings: list[Nothing]


class Maps(Message):
    """A map to each type, by text and by number."""

    truths: dict[str, bool]
    signed: dict[int, int]
    unsigned: dict[str, UInt64]
    reals: dict[int, float]
    texts: dict[str, str]
    raws: dict[int, bytes]
    times: dict[str, datetime]
    colors: dict[int, Color]
    branches: dict[str, Branch]
    leaves: dict[int, Leaf]


class TextMaps(Message):
    """Maps by text alone, for which msgpack is stricter."""

    words: dict[str, str] = {}


class Bounded(Message):
    """Bounds of each kind."""

    byte: Annotated[int, Bounds(ge=0, le=255)]
    below: Annotated[int, Bounds(le=-1)]
    large: Annotated[UInt64, Bounds(ge=2**63)]
    share: Annotated[float, Bounds(ge=0, le=1)]
    above: Annotated[float, Bounds(ge=2**53 + 1)]
    name: Annotated[str, Bounds(min_length=1, max_length=8)]
    key: Annotated[bytes, Bounds(min_length=4, max_length=4)]
    names: Annotated[list[Annotated[str, Bounds(max_length=2)]], Bounds(min_length=1, max_length=3)]
    counts: Annotated[dict[str, Annotated[int, Bounds(ge=1)]], Bounds(max_length=2)]
    maybe: Annotated[int | None, Bounds(ge=10)] = None


class Twig(Message):
    """A nested message that grows, too."""

    name: str
    later: Annotated[str, Since(2)] = ""


class Grown(Message):
    """Fields that came with later versions."""

    first: str
    twig: Twig
    twigs: list[Twig]
    second: Annotated[int, Since(2)] = 5
    hint: Annotated[bool, Since(2, ignorable=True)] = False
    leaves: Annotated[list[Leaf], Since(2)] = []
    third: Annotated[Branch | None, Since(3)] = None


class Three(Message):
    """What performance is measured with."""

    sender: str
    text: str
    number: int


EVERYTHING = Service(
    "tests.v1.EverythingService",
    methods=[
        Method(opcode=1, name="Single", request=Singles, response=Defaults),
        Method(opcode=2, name="Many", request=Lists, response=Maps),
        Method(opcode=3, name="Bound", request=Bounded, response=Nothing),
        StreamMethod(opcode=4, name="Optional", request=Three, response=Optionals),
    ],
)

GROWING = Service(
    "tests.v1.GrowingService",
    version=3,
    methods=[
        Method(opcode=1, name="Grow", request=Grown, response=Grown),
        Method(opcode=2, name="Old", request=Three, response=TextMaps, until=1),
        StreamMethod(opcode=3, name="New", request=Nothing, response=Twig, since=2),
    ],
)

_example = runpy.run_path(str(ROOT / "examples" / "json_codec.py"))
JSON = cast(Callable[[], Codec], _example["JsonCodec"])()

BUILT_IN = codecs.select(["pipe", "msgpack", "protobuf"])
ALL = [*BUILT_IN, JSON]
