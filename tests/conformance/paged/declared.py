"""Section 11: what is declared, and section 3: the digests of it.

A type is its name, or one of ("list", T), ("map", K, T), ("optional", T), ("enum", NAME), ("message", NAME).
"""

import zlib
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tests.conformance.paged.numbers import ITEMS_COME_BACK, ITEMS_FOLLOW, ONE_WAY

__all__ = [
    "CONTROL",
    "ENUMS",
    "MESSAGES",
    "NO_DEFAULT",
    "SERVICES",
    "SHAPES",
    "Field",
    "Method",
    "digest",
    "element",
    "fields_of",
]

NO_DEFAULT: Any = object()
SHAPES = {
    0: "unary",
    ITEMS_COME_BACK: "stream",
    ITEMS_FOLLOW: "upload",
    ITEMS_FOLLOW | ITEMS_COME_BACK: "duplex",
    ONE_WAY: "oneway",
}
"""The words of shapes, in the order of their numbers in a description."""


class Field:
    def __init__(self, name: str, type_: Any, default: Any = NO_DEFAULT, since: int = 1, **more: Any) -> None:
        self.name, self.type, self.default, self.since, self.more = name, type_, default, since, more


MOMENT = datetime(2024, 2, 29, 12, 34, 56, 789, tzinfo=UTC)
ENUMS: dict[str, dict[str, int]] = {
    "Paper": {"WHITE": 1, "LINED": 2, "SQUARED": 70000},
    "Health": {"SERVING": 1, "NOT_SERVING": 2},
    "MethodShape": {"UNARY": 1, "SERVER_STREAM": 2, "UPLOAD": 3, "DUPLEX": 4, "ONE_WAY": 5},
    "Container": {"SINGLE": 1, "LIST": 2, "MAP": 3},
    "ValueKind": {
        "BOOL": 1,
        "INT": 2,
        "UINT": 3,
        "FLOAT": 4,
        "STR": 5,
        "BYTES": 6,
        "DATETIME": 7,
        "ENUM": 8,
        "MESSAGE": 9,
    },
}
FILLED = [
    Field("title", "str"),
    Field("flag", "bool", False),
    Field("yes", "bool", True),
    Field("zero", "int", 0),
    Field("minus", "int", -(2**63)),
    Field("most", "uint", 2**64 - 1),
    Field("real", "float", 0.0),
    Field("tie", "float", 900719925474099.25),
    Field("endless", "float", float("inf")),
    Field("tiny", "float", 5e-324),
    Field("nothing", "str", ""),
    Field("text", "str", "a|b\\c\nd\re,:()[]{} \\N \u2028é😀"),
    Field("octets", "bytes", b"\x00\xff|"),
    Field("none", "bytes", b""),
    Field("moment", "datetime", MOMENT),
    Field("paper", ("enum", "Paper"), 70000),
    Field("maybe", ("optional", "int"), None),
    Field("part", ("optional", ("message", "Part")), None),
    Field("numbers", ("list", "int"), [], max_size=3),
    Field("parts", ("list", ("message", "Part")), []),
    Field("by_name", ("map", "str", "float"), {}),
    Field("by_number", ("map", "int", ("enum", "Paper")), {}),
    Field("small", "int", 7, ge="0", le="255"),
    Field("short", "str", "x", min_length=1, max_length=5),
    Field("newer", "bool", True, 2, ignorable=True),
]
STR, INT = "str", "int"
MAYBE_INT, MAYBE_STR = ("optional", "int"), ("optional", "str")
MESSAGES: dict[str, list[Field]] = {
    "FillRequest": FILLED,
    "FillResponse": FILLED,
    "Part": [Field("name", "str"), Field("weight", "float", 1.5)],
    "TurnRequest": [Field("pages", "int", 3), Field("fail", "bool", False)],
    "TurnResponse": [Field("page", "int")],
    # Section 13.
    "CheckRequest": [Field("service", STR)],
    "CheckResponse": [Field("health", ("enum", "Health")), Field("server", STR)],
    "DescribeRequest": [Field("service", STR)],
    "DescribeResponse": [Field("server", STR), Field("services", ("list", ("message", "ServiceDescription")))],
    "ServiceDescription": [
        Field("full_name", STR),
        Field("version", INT),
        Field("methods", ("list", ("message", "MethodDescription"))),
        Field("messages", ("list", ("message", "MessageDescription"))),
        Field("enums", ("list", ("message", "EnumDescription"))),
        Field("oldest", INT),
    ],
    "MethodDescription": [
        Field("opcode", INT),
        Field("name", STR),
        Field("shape", ("enum", "MethodShape")),
        Field("request", STR),
        Field("response", STR),
        Field("since", INT),
        Field("until", MAYBE_INT),
        Field("requires", MAYBE_STR),
        Field("reasons", ("list", STR)),
        Field("idempotent", "bool"),
        Field("timeout_ms", MAYBE_INT),
        Field("max_request", MAYBE_INT),
        Field("doc", STR),
        Field("by_server", "bool"),
        Field("errors", ("list", STR)),
        Field("compress", "bool"),
        Field("resumable", STR),
        Field("drains", "bool"),
        Field("slow", STR),
    ],
    "MessageDescription": [
        Field("name", STR),
        Field("fields", ("list", ("message", "FieldDescription"))),
        Field("doc", STR),
    ],
    "FieldDescription": [
        Field("number", INT),
        Field("name", STR),
        Field("container", ("enum", "Container")),
        Field("kind", ("enum", "ValueKind")),
        Field("key", ("optional", ("enum", "ValueKind"))),
        Field("type_name", STR),
        Field("optional", "bool"),
        Field("required", "bool"),
        Field("default", STR),
        Field("since", INT),
        Field("ignorable", "bool"),
        Field("ge", STR),
        Field("le", STR),
        Field("min_length", MAYBE_INT),
        Field("max_length", MAYBE_INT),
        Field("min_size", MAYBE_INT),
        Field("max_size", MAYBE_INT),
    ],
    "EnumDescription": [Field("name", STR), Field("members", ("map", STR, INT)), Field("doc", STR)],
    "EchoRequest": [Field("payload", "bytes")],
    "EchoResponse": [Field("payload", "bytes")],
}


class Method(NamedTuple):
    """A row of a table of methods; a one-way one has no response."""

    opcode: int
    name: str
    stream: bool
    request: str
    response: str
    reasons: tuple[str, ...] = ()
    since: int = 1
    until: int | None = None
    max_request: int | None = None
    follow: bool = False
    drains: bool = False
    compress: bool = False
    resumable: str = ""
    slow: str = ""
    errors: tuple[str, ...] = ()

    @property
    def flags(self) -> int:
        """Of its REQUEST."""
        if not self.response:
            return ONE_WAY
        return self.follow * ITEMS_FOLLOW | self.stream * ITEMS_COME_BACK


CONTROL = "wirecontrol.v1.ControlService"
UNKNOWN = ("UNKNOWN_SERVICE",)
SERVICES: dict[str, tuple[int, list[Method]]] = {
    "pages.v1.PageService": (
        2,
        [
            Method(1, "Fill", False, "FillRequest", "FillResponse"),
            Method(2, "Turn", True, "TurnRequest", "TurnResponse", ("TORN",)),
        ],
    ),
    CONTROL: (
        1,
        [
            Method(0xF000, "Check", False, "CheckRequest", "CheckResponse", UNKNOWN),
            Method(0xF001, "Describe", False, "DescribeRequest", "DescribeResponse", UNKNOWN),
            Method(0xF002, "Echo", False, "EchoRequest", "EchoResponse"),
        ],
    ),
}
ZERO = {"bool": False, "int": 0, "uint": 0, "float": 0.0, "str": "", "bytes": b""}


def fields_of(message: str, version: int) -> list[Field]:
    return [field for field in MESSAGES[message] if field.since <= version]


def element(type_: Any) -> Any:
    """What a value is: the field's, an element's, or a map's value."""
    return type_[-1] if type_[0] in ("optional", "list", "map") else type_


# Digests ----------------------------------------------------------------------------------------------------------


def digest_of_message(message: str, version: int) -> int:
    listed = enumerate(fields_of(message, version), 1)
    return zlib.crc32(",".join(f"{number}:{digest_text(field, version)}" for number, field in listed).encode())


def digest_text(field: Field, version: int) -> str:
    type_, optional = field.type, False
    if type_[0] == "optional":
        type_, optional = type_[1], True
    if type_[0] == "list":
        return f"[{digest_type(type_[1], version)}]"
    if type_[0] == "map":
        return f"{{{type_[1].upper()}:{digest_type(type_[2], version)}}}"
    text = digest_type(type_, version)
    if optional:
        return f"{text}?none"
    if field.default is NO_DEFAULT or (isinstance(type_, str) and field.default == ZERO.get(type_)):
        return text
    default = field.default
    if isinstance(default, float):
        return f"{text}?{default.hex()}"
    if isinstance(default, str | bytes):
        return f"{text}?{(default.encode() if isinstance(default, str) else default).hex()}"
    if isinstance(default, datetime):
        return f"{text}?{default.isoformat(timespec='microseconds')}"
    return f"{text}?{int(default)}"


def digest_type(type_: Any, version: int) -> str:
    if type_[0] == "enum":
        return f"<{','.join(map(str, sorted(ENUMS[type_[1]].values())))}>"
    return f"({digest_of_message(type_[1], version):08x})" if type_[0] == "message" else type_.upper()


def digest(method: Method, version: int) -> int:
    request = digest_of_message(method.request, version)
    response = digest_of_message(method.response, version) if method.response else 0
    text = f"{method.opcode} {SHAPES[method.flags]} {request:08x} {response:08x}"
    if method.errors:
        text += " !" + "".join(f" {digest_of_message(each, version):08x}" for each in sorted(method.errors))
    return zlib.crc32(text.encode())
