"""Several dozen edits of one contract, and what each breaks, codec by codec."""

from typing import NamedTuple

__all__ = ["EDITS", "Edit"]

ALL = "pipe msgpack protobuf"


class Edit(NamedTuple):
    """An edit, and the verdict that it must get.

    Attributes:
        name: of the case.
        changes: pieces of the base and what replaces them.
        subject: of the change that is expected.
        breaks: the codecs that it breaks.
        level: the outermost that breaks; "" for none.
        peers: who is hurt.
        versions: those in which it breaks.
        bytes_only: what is in the payloads is all there is to it, so that codecs can be the judges.
        buf: what ``buf breaking`` says of it at WIRE, where that is not what is said of protobuf here; and why.
        others: changes expected beside it.
    """

    name: str
    changes: dict[str, str]
    subject: str
    breaks: str = ""
    level: str = "wire"
    peers: str = "old clients, old servers"
    versions: tuple[int, ...] = (1, 2)
    bytes_only: bool = True
    buf: tuple[bool, str] | None = None
    others: tuple[str, ...] = ()


NUMBERS = "buf reads field numbers and kinds; what a value means it cannot know"
PRESENCE = "buf takes implicit and explicit presence for one; a zero that is not written is then another value"
REFUSED = "buf has readers in mind that drop unknown fields and keep unknown numbers; ours refuse them"
BOUNDS = "bounds are not in a .proto"
POLICY = "who may call, and how, is not in a .proto"

NOTE = 'NOTE = Method(opcode=3, name="Note", request=DropRequest, response=DropResponse'

EDITS = [
    # Types
    Edit("int to str", {"count: int\n": "count: str\n"}, "AskRequest.count: int -> str", ALL),
    Edit("int to float", {"count: int\n": "count: float\n"}, "AskRequest.count: int -> float", ALL),
    Edit("float to int", {"ratio: float": "ratio: int"}, "AskRequest.ratio: float -> int", ALL),
    Edit(
        "small int to float",
        {"small: Annotated[int, Bounds(ge=0, le=100)]": "small: float"},
        "AskRequest.small: int -> float, Bounds(ge=0, le=100) -> no bounds",
        ALL,
    ),
    Edit(
        "int to UInt64",
        {"count: int\n": "count: UInt64\n"},
        "AskRequest.count: int -> UInt64",
        ALL,
        peers="old clients",
        buf=(False, "buf has int64 and uint64 for one kind; -1 is then 2**64 - 1"),
    ),
    Edit(
        "UInt64 to int",
        {"amount: UInt64": "amount: int"},
        "AskRequest.amount: UInt64 -> int",
        ALL,
        peers="old clients",
        buf=(False, "as before, the other way round"),
    ),
    Edit(
        "small int to UInt64",
        {"small: Annotated[int, Bounds(ge=0, le=100)]": "small: Annotated[UInt64, Bounds(ge=0, le=100)]"},
        "AskRequest.small: int -> UInt64",
        level="",
    ),
    Edit(
        "bool to int",
        {"sure: bool": "sure: int"},
        "AskRequest.sure: bool -> int",
        "pipe msgpack",
    ),
    Edit(
        "int to bool",
        {"count: int\n": "count: bool\n"},
        "AskRequest.count: int -> bool",
        ALL,
        buf=(False, "buf takes the varint for the value; 2 is then true"),
    ),
    Edit("str to bytes", {"text: str": "text: bytes"}, "AskRequest.text: str -> bytes", "pipe msgpack"),
    Edit("bytes to str", {"raw: bytes": "raw: str"}, "AskRequest.raw: bytes -> str", ALL),
    Edit("datetime to int", {"at: datetime": "at: int"}, "AskRequest.at: datetime -> int", "pipe protobuf"),
    Edit(
        "int to datetime",
        {"count: int\n": "count: datetime\n"},
        "AskRequest.count: int -> datetime",
        ALL,
    ),
    Edit(
        "enum to int",
        {"best: Colour": "best: int"},
        "AskResponse.best: Colour -> int",
        ALL,
        peers="old clients",
    ),
    Edit(
        "enum to int in a request",
        {"    colour: Colour\n    point": "    colour: int\n    point"},
        "AskRequest.colour: Colour -> int",
        level="source",
        peers="",
        buf=(True, "buf takes an enum and an integer for two kinds; they are one varint"),
    ),
    Edit("int to message", {"count: int\n": "count: Point\n"}, "AskRequest.count: int -> Point", ALL),
    Edit("message to str", {"    point: Point": "    point: str"}, "AskRequest.point: Point -> str", ALL),
    Edit("value to list", {"count: int\n": "count: list[int]\n"}, "AskRequest.count: int -> list[int]", ALL),
    Edit(
        "list to value",
        {"names: list[str] = []": 'names: str = ""'},
        "AskRequest.names: list[str] -> str",
        ALL,
    ),
    Edit(
        "list element",
        {"names: list[str]": "names: list[bytes]"},
        "AskRequest.names: list[str] -> list[bytes]",
        "pipe msgpack",
    ),
    Edit(
        "map value",
        {"scores: dict[str, int]": "scores: dict[str, str]"},
        "AskRequest.scores: dict[str, int] -> dict[str, str]",
        ALL,
    ),
    Edit(
        "map key",
        {"scores: dict[str, int]": "scores: dict[int, int]"},
        "AskRequest.scores: dict[str, int] -> dict[int, int]",
        ALL,
    ),
    Edit(
        "nested field",
        {"    x: int": "    x: float"},
        "Point.x: int -> float",
        ALL,
    ),
    # Presence and defaults
    Edit(
        "may be None",
        {"count: int\n": "count: int | None\n"},
        "AskRequest.count: int -> int | None",
        "protobuf",
        peers="old clients",
        buf=(False, PRESENCE),
    ),
    Edit(
        "must not be None",
        {"maybe: int | None = None": "maybe: int = 0"},
        "AskRequest.maybe: int | None -> int",
        ALL,
        buf=(False, PRESENCE),
    ),
    Edit(
        "may be None in a response",
        {"    found: int": "    found: int | None"},
        "AskResponse.found: int -> int | None",
        ALL,
        buf=(False, PRESENCE),
    ),
    Edit(
        "message may be None",
        {"    point: Point\n": "    point: Point | None\n"},
        "AskRequest.point: Point -> Point | None",
        level="source",
        peers="",
    ),
    Edit(
        "another default",
        {"size: int = 10": "size: int = 20"},
        "AskRequest.size: default 10 -> 20",
        "protobuf",
        buf=(False, NUMBERS),
    ),
    Edit(
        "a default of zero",
        {"size: int = 10": "size: int = 0"},
        "AskRequest.size: default 10 -> 0",
        "protobuf",
        buf=(False, PRESENCE),
    ),
    Edit(
        "a zero that becomes a default",
        {"after: int = 0": "after: int = 7"},
        "WatchRequest.after: default 0 -> 7",
        "protobuf",
        buf=(False, PRESENCE),
    ),
    Edit(
        "a default that is zero anyway",
        {"text: str\n": 'text: str = ""\n'},
        "AskRequest.text: default none -> ''",
        level="",
    ),
    Edit(
        "required again",
        {"after: int = 0": "after: int"},
        "WatchRequest.after: default 0 -> none",
        level="source",
        peers="",
    ),
    Edit(
        "enum with a default",
        {"    colour: Colour\n    point": "    colour: Colour = Colour.RED\n    point"},
        "AskRequest.colour: default none -> RED",
        "protobuf",
        peers="old servers",
        buf=(False, PRESENCE),
    ),
    # Fields
    Edit(
        "field added at the end",
        {"    after: int = 0": "    after: int = 0\n    quick: bool = False"},
        "WatchRequest.quick: added at version 1",
        "pipe msgpack",
    ),
    Edit(
        "field added with a default that is written",
        {"    after: int = 0": "    after: int = 0\n    most: int = 5"},
        "WatchRequest.most: added at version 1",
        ALL,
        buf=(False, REFUSED),
        peers="old clients, old servers",
    ),
    Edit(
        "field added to an item",
        {"    sequence: int\n    colour: Colour": "    sequence: int\n    colour: Colour\n    late: bool = False"},
        "Change.late: added at version 1",
        ALL,
        buf=(False, REFUSED),
    ),
    Edit(
        "required field added",
        {"    sequence: int\n    colour: Colour": "    sequence: int\n    colour: Colour\n    place: Point"},
        "Change.place: added at version 1",
        ALL,
        buf=(False, REFUSED),
    ),
    Edit(
        "field added with Since of a new version",
        {
            "    after: int = 0": "    after: int = 0\n    quick: Annotated[bool, Since(3)] = False",
            "version=2, methods": "version=3, methods",
        },
        "example.v1.AskService: version 3 is new",
        level="",
    ),
    Edit(
        "field added with Since of a version that was there",
        {"    after: int = 0": "    after: int = 0\n    quick: Annotated[bool, Since(2)] = False"},
        "WatchRequest.quick: added at version 2",
        "pipe msgpack",
        versions=(2,),
    ),
    Edit(
        "last field removed",
        {'    more: Annotated[str, Since(2)] = ""\n': ""},
        "AskResponse.more: removed",
        ALL,
        versions=(2,),
    ),
    Edit(
        "field removed from the middle",
        {"    sure: bool\n": ""},
        "AskRequest.sure: removed",
        ALL,
        others=("AskRequest.raw: number 7 -> 6",),
    ),
    Edit(
        "fields of one type change places",
        {"    x: int\n    y: int": "    y: int\n    x: int"},
        "Point.x: number 1 -> 2",
        ALL,
        buf=(False, NUMBERS),
        others=("Point.y: number 2 -> 1",),
    ),
    Edit(
        "fields of two types change places",
        {"    text: str\n    count: int\n": "    count: int\n    text: str\n"},
        "AskRequest.text: number 1 -> 2",
        ALL,
    ),
    Edit("field renamed", {"    key: str": "    name: str"}, "DropRequest.key: renamed name", level="text", peers=""),
    Edit(
        "field renamed and retyped",
        {"    key: str": "    number: int"},
        "DropRequest.key: renamed number",
        level="text",
        peers="",
        others=("DropRequest.key: str -> int",),
        bytes_only=False,
    ),
    Edit(
        "Since earlier",
        {"Annotated[bool, Since(2, ignorable=True)] = False": "bool = False"},
        "AskRequest.extra: since 2 -> 1",
        "pipe msgpack",
        versions=(1,),
    ),
    Edit(
        "Since later",
        {
            'more: Annotated[str, Since(2)] = ""': 'more: Annotated[str, Since(3)] = ""',
            "version=2, methods": "version=3, methods",
        },
        "AskResponse.more: since 2 -> 3",
        ALL,
        versions=(2,),
        buf=(False, "buf sees one version, the newest"),
    ),
    Edit(
        "not ignorable",
        {"Since(2, ignorable=True)": "Since(2)"},
        "AskRequest.extra: not ignorable any more",
        level="source",
        peers="",
    ),
    # Bounds
    Edit(
        "bounds narrowed in a request",
        {"small: Annotated[int, Bounds(ge=0, le=100)]": "small: Annotated[int, Bounds(ge=0, le=50)]"},
        "AskRequest.small: Bounds(ge=0, le=100) -> Bounds(ge=0, le=50)",
        ALL,
        peers="old clients",
        buf=(False, BOUNDS),
    ),
    Edit(
        "bounds widened in a request",
        {"small: Annotated[int, Bounds(ge=0, le=100)]": "small: Annotated[int, Bounds(ge=0, le=500)]"},
        "AskRequest.small: Bounds(ge=0, le=100) -> Bounds(ge=0, le=500)",
        level="",
    ),
    Edit(
        "bounds narrowed in a response",
        {"rank: Annotated[int, Bounds(ge=0, le=10)]": "rank: Annotated[int, Bounds(ge=0, le=5)]"},
        "AskResponse.rank: Bounds(ge=0, le=10) -> Bounds(ge=0, le=5)",
        ALL,
        peers="old servers",
        buf=(False, BOUNDS),
    ),
    Edit(
        "bounds widened in a response",
        {"rank: Annotated[int, Bounds(ge=0, le=10)]": "rank: Annotated[int, Bounds(ge=0, le=11)]"},
        "AskResponse.rank: Bounds(ge=0, le=10) -> Bounds(ge=0, le=11)",
        ALL,
        peers="old clients",
        buf=(False, BOUNDS),
    ),
    Edit(
        "text of fewer characters",
        {"Bounds(max_length=20)": "Bounds(max_length=10)"},
        "AskRequest.title: Bounds(max_length=20) -> Bounds(max_length=10)",
        ALL,
        peers="old clients",
        buf=(False, BOUNDS),
    ),
    Edit(
        "bounds that were not there",
        {"names: list[str]": "names: Annotated[list[str], Bounds(max_length=2)]"},
        "AskRequest.names: no bounds -> Bounds(max_length=2)",
        ALL,
        peers="old clients",
        buf=(False, BOUNDS),
    ),
    # Enums
    Edit(
        "member added",
        {"    BLUE = 3": "    BLUE = 3\n    BLACK = 4"},
        "Colour.BLACK: added",
        ALL,
        peers="old clients",
        buf=(False, REFUSED),
    ),
    Edit(
        "member removed",
        {"    BLUE = 3\n": ""},
        "Colour.BLUE: removed",
        ALL,
    ),
    Edit("member renamed", {"    BLUE = 3": "    NAVY = 3"}, "Colour.BLUE: renamed NAVY", level="text", peers=""),
    Edit(
        "member renumbered",
        {"    BLUE = 3": "    BLUE = 4"},
        "Colour.BLUE: number 3 -> 4",
        ALL,
    ),
    Edit(
        "members change places",
        {"    RED = 1\n    GREEN = 2": "    GREEN = 1\n    RED = 2"},
        "Colour.RED: number 1 -> 2",
        ALL,
        buf=(False, NUMBERS),
        others=("Colour.GREEN: number 2 -> 1",),
    ),
    Edit(
        "enum renamed",
        {
            "class Colour(": "class Shade(",
            "    colour: Colour\n    point": "    colour: Shade\n    point",
            "best: Colour": "best: Shade",
            "    sequence: int\n    colour: Colour": "    sequence: int\n    colour: Shade",
        },
        "Colour: renamed Shade",
        level="text",
        peers="",
        buf=(True, "buf knows types by their name"),
    ),
    Edit(
        "message renamed",
        {"class Point(": "class Place(", "    point: Point\n": "    point: Place\n", "where: Point": "where: Place"},
        "Point: renamed Place",
        level="text",
        peers="",
        buf=(True, "buf knows types by their name"),
    ),
    # Methods
    Edit(
        "opcode renumbered",
        {"opcode=2,": "opcode=3,"},
        "Drop: opcode 0x0002 -> 0x0003",
        ALL,
        versions=(2,),
        bytes_only=False,
        buf=(False, "opcodes are not in a .proto; over gRPC it goes on"),
    ),
    Edit(
        "opcodes change places",
        {'opcode=0, name="Ask"': 'opcode=1, name="Ask"', 'opcode=1, name="Watch"': 'opcode=0, name="Watch"'},
        "Ask: opcode 0x0000 -> 0x0001",
        ALL,
        bytes_only=False,
        buf=(False, "opcodes are not in a .proto; over gRPC it goes on"),
        others=("Watch: opcode 0x0001 -> 0x0000",),
    ),
    Edit(
        "method removed",
        {"[ASK, WATCH, DROP]": "[ASK, WATCH]"},
        "Drop: removed",
        ALL,
        versions=(2,),
        bytes_only=False,
    ),
    Edit(
        "method renamed",
        {'name="Drop"': 'name="Forget"'},
        "Drop: renamed Forget",
        bytes_only=False,
        peers="old clients",
        versions=(),
    ),
    Edit(
        "method until a version",
        {"opcode=1, name": "until=1, opcode=1, name"},
        "Watch: since 1 -> since 1 until 1",
        ALL,
        versions=(2,),
        bytes_only=False,
        others=("Watch: not in version 2",),
    ),
    Edit(
        "method until a version, in a new one",
        {"opcode=1, name": "until=2, opcode=1, name", "version=2, methods": "version=3, methods"},
        "Watch: not in version 3",
        bytes_only=False,
        peers="old clients",
        versions=(),
    ),
    Edit(
        "method later",
        {"opcode=1, name": "since=2, opcode=1, name"},
        "Watch: since 1 -> since 2",
        ALL,
        versions=(1,),
        bytes_only=False,
        buf=(False, "buf sees one version, the newest"),
    ),
    Edit(
        "method added in a new version",
        {
            "version=2, methods=[ASK, WATCH, DROP]": "version=3, methods=[ASK, WATCH, DROP, NOTE]",
            "SERVICE = ": f"{NOTE}, since=3)\nSERVICE = ",
        },
        "Note: added at version 3",
        level="",
        bytes_only=False,
    ),
    Edit(
        "method added to an old version",
        {
            "methods=[ASK, WATCH, DROP]": "methods=[ASK, WATCH, DROP, NOTE]",
            "SERVICE = ": f"{NOTE})\nSERVICE = ",
        },
        "Note: added at version 1",
        level="",
        bytes_only=False,
    ),
    Edit(
        "unary to stream",
        {"DROP = Method": "DROP = StreamMethod"},
        "Drop: unary -> stream",
        ALL,
        versions=(2,),
        bytes_only=False,
    ),
    Edit(
        "unary to upload",
        {"DROP = Method": "DROP = UploadMethod"},
        "Drop: unary -> upload",
        ALL,
        versions=(2,),
        bytes_only=False,
    ),
    Edit(
        "stream to duplex",
        {"WATCH = StreamMethod": "WATCH = DuplexMethod"},
        "Watch: stream -> duplex",
        ALL,
        bytes_only=False,
    ),
    Edit(
        "unary to one-way",
        {
            "DROP = Method": "DROP = OneWayMethod",
            "request=DropRequest, response=DropResponse": "request=DropRequest",
        },
        "Drop: unary -> oneway",
        ALL,
        versions=(2,),
        bytes_only=False,
    ),
    Edit(
        "one-way method added in a new version",
        {
            "version=2, methods=[ASK, WATCH, DROP]": "version=3, methods=[ASK, WATCH, DROP, NOTE]",
            "SERVICE = ": 'NOTE = OneWayMethod(opcode=3, name="Note", request=DropRequest, since=3)\nSERVICE = ',
        },
        "Note: added at version 3",
        level="",
        bytes_only=False,
    ),
    Edit(
        "service renamed",
        {"AskService": "QuestionService"},
        "example.v1.AskService: renamed example.v1.QuestionService",
        ALL,
        versions=(),
        bytes_only=False,
    ),
    Edit(
        "package of the next major",
        {"example.v1": "example.v2"},
        "example.v1.AskService: renamed example.v2.AskService",
        ALL,
        versions=(),
        bytes_only=False,
    ),
    Edit(
        "version withdrawn",
        {
            "version=2, methods=[ASK, WATCH, DROP]": "version=1, methods=[ASK, WATCH]",
            "    extra: Annotated[bool, Since(2, ignorable=True)] = False\n": "",
            '    more: Annotated[str, Since(2)] = ""\n': "",
        },
        "example.v1.AskService: version 2 is gone",
        ALL,
        versions=(2,),
        bytes_only=False,
        others=("Drop: removed",),
    ),
    # Policy
    Edit(
        "a reason less",
        {'("GONE", "SHY")': '("GONE",)'},
        "Ask: reasons without SHY",
        level="source",
        peers="",
        bytes_only=False,
    ),
    Edit(
        "a reason more",
        {'("GONE", "SHY")': '("GONE", "SHY", "LATE")'},
        "Ask: reasons with LATE",
        level="",
        bytes_only=False,
    ),
    Edit(
        "another capability",
        {'requires="reader"': 'requires="owner"'},
        "Ask: requires reader -> owner",
        ALL,
        peers="old clients",
        bytes_only=False,
        buf=(False, POLICY),
    ),
    Edit(
        "no capability any more",
        {'requires="reader", ': ""},
        "Ask: requires reader -> None",
        level="",
        bytes_only=False,
    ),
    Edit(
        "shorter requests",
        {"max_request=5000": "max_request=4000"},
        "Ask: max_request 5000 -> 4000",
        ALL,
        peers="old clients",
        bytes_only=False,
        buf=(False, POLICY),
    ),
    Edit(
        "longer requests",
        {"max_request=5000": "max_request=6000"},
        "Ask: max_request 5000 -> 6000",
        level="",
        bytes_only=False,
    ),
    Edit(
        "no limit any more",
        {"timeout=5.0, max_request=5000": "timeout=5.0"},
        "Ask: max_request 5000 -> None",
        level="",
        bytes_only=False,
    ),
    Edit(
        "less time",
        {"timeout=5.0": "timeout=1.5"},
        "Ask: timeout 5 s -> 1.5 s",
        level="",
        bytes_only=False,
    ),
    Edit(
        "not idempotent",
        {", idempotent=True": ""},
        "Watch: not idempotent any more",
        ALL,
        peers="old clients",
        bytes_only=False,
    ),
    Edit(
        "idempotent",
        {'name="Drop",': 'name="Drop", idempotent=True,'},
        "Drop: idempotent",
        ALL,
        peers="old servers",
        versions=(2,),
        bytes_only=False,
    ),
    Edit("nothing but words", {"opcode=2,": 'doc="Drops a key.", opcode=2,'}, "", level="", bytes_only=False),
]
