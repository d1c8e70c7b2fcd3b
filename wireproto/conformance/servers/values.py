"""Sections 11 and 12: values that are read, and bytes that are refused, by Mirror of the conformance service.

The bytes are written out here for each codec, so that no encoder stands between a rule and the server. An answer need
not be canonical: it is read, and written again in the canonical form, before it is compared.
"""

from typing import Any, NamedTuple

from wireproto.conformance.caller import SERVER_CASES, Bench
from wireproto.conformance.case import Deviation, Needs, NotJudged, Over
from wireproto.conformance.service import MIRROR

__all__ = ["ACCEPTED", "REFUSED", "Row", "column", "mirror_payload", "in_bytes", "shown"]


class Row(NamedTuple):
    """A rule about one field, and the bytes that show it in each codec."""

    text: str
    field: str
    columns: dict[str, Any]

    @property
    def only(self) -> tuple[str, ...]:
        """The codecs it is about; none when it is about all."""
        return () if len(self.columns) == len(_CODECS) else tuple(self.columns)

    @property
    def over(self) -> Over:
        """In version 1 there is no `recent`, which a row names for being the last."""
        return Over.CODECS if self.field == "recent" else Over.ALL


ACCEPTED: dict[str, Row] = {}
"""Values that are read, by number; clients are judged by them, too."""
REFUSED: dict[str, Row] = {}
"""Values that are refused."""

# Every field of MirrorRequest with its default: how pipe and msgpack write it, and protobuf what it does not leave out.
_FIELDS: dict[str, tuple[bytes, bytes, bytes]] = {
    "flag": (b"false", b"\xc2", b""),
    "number": (b"0", b"\x00", b""),
    "large": (b"0", b"\x00", b""),
    "real": (b"0.0", b"\xcb" + bytes(8), b""),
    "text": (b"", b"\xa0", b""),
    "data": (b"", b"\xc4\x00", b""),
    "moment": (rb"\N", b"\xc0", b""),
    "color": (rb"\N", b"\xc0", b""),
    "inner": (rb"\N", b"\xc0", b""),
    "maybe": (rb"\N", b"\xc0", b""),
    "seven": (b"7", b"\x07", b"\x58\x07"),
    "small": (b"0", b"\x00", b""),
    "numbers": (b"[]", b"\x90", b""),
    "texts": (b"[]", b"\x90", b""),
    "inners": (b"[]", b"\x90", b""),
    "by_text": (b"{}", b"\x80", b""),
    "by_number": (b"{}", b"\x80", b""),
    "recent": (b"", b"\xa0", b""),
}
_CODECS = ("pipe", "msgpack", "protobuf")


def mirror_payload(codec: str, version: int, **changes: bytes) -> bytes:
    """An MirrorRequest with all defaults but the fields given, which are bytes of that codec."""
    which = _CODECS.index(codec)
    names = list(_FIELDS)[: 17 if version == 1 else 18]
    parts = [changes.get(name, _FIELDS[name][which]) for name in names]
    if codec == "pipe":
        return b"|".join(parts)
    head = b"\xdc" + len(names).to_bytes(2, "big") if codec == "msgpack" else b""
    return head + b"".join(parts)


def in_bytes(codec: str, written: str | bytes) -> bytes:
    """A row's column: text for pipe, hexadecimal for the others, or the bytes themselves."""
    if isinstance(written, bytes):
        return written
    return written.encode() if codec == "pipe" else bytes.fromhex(written)


def column(codec: str, columns: dict[str, Any]) -> Any:
    """The bytes of one codec.

    Raises:
        NotJudged: there are none.
    """
    if codec not in columns:
        known = codec in _CODECS
        raise NotJudged(f"{codec} cannot say it" if known else f"the kit has no bytes of the codec {codec}")
    return columns[codec]


def _accepted(number: str, text: str, field: str, **columns: "str | bytes | tuple[str, str]") -> None:
    """A value that must come back. A pair is what is sent and its canonical form."""
    row = ACCEPTED[number] = Row(text, field, columns)

    def run(bench: Bench) -> None:
        codec = bench.codec[1]
        written = column(codec, columns)
        sent, canonical = written if isinstance(written, tuple) else (written, written)
        payload = mirror_payload(codec, bench.version, **{field: in_bytes(codec, sent)})
        due = mirror_payload(codec, bench.version, **{field: in_bytes(codec, canonical)})
        with bench.open() as caller:
            found = caller.written(MIRROR, caller.call(MIRROR, payload))
            if found != due:
                raise Deviation(f"{field} was sent as {shown(codec, due)}; the answer means {shown(codec, found)}")

    SERVER_CASES.add(number, text, run, over=row.over, needs=Needs.SERVICE, only=row.only)


def _refused(number: str, text: str, field: str, **columns: "str | bytes | list[str]") -> None:
    """Bytes that must be BAD_PAYLOAD; a list of them one by one."""
    row = REFUSED[number] = Row(text, field, columns)

    def run(bench: Bench) -> None:
        codec = bench.codec[1]
        written = column(codec, columns)
        with bench.open() as caller:
            for each in written if isinstance(written, list) else [written]:
                payload = mirror_payload(codec, bench.version, **{field: in_bytes(codec, each)})
                try:
                    caller.fail(MIRROR, payload, "BAD_PAYLOAD")
                except Deviation as deviation:
                    raise Deviation(f"{field} as {shown(codec, in_bytes(codec, each))}: {deviation}") from None

    SERVER_CASES.add(number, text, run, over=row.over, needs=Needs.SERVICE, only=row.only)


def _whole(number: str, text: str, **columns: bytes) -> None:
    """A payload that must be BAD_PAYLOAD as a whole."""

    def run(bench: Bench) -> None:
        payload = column(bench.codec[1], columns)
        with bench.open() as caller:
            caller.fail(MIRROR, payload, "BAD_PAYLOAD")

    SERVER_CASES.add(number, text, run, needs=Needs.SERVICE, only=tuple(columns))


def shown(codec: str, payload: bytes) -> str:
    return repr(payload.decode("utf-8", "backslashreplace")) if codec == "pipe" else payload.hex(" ")


# 11: values, in every codec that can say them --------------------------------------------------------------------

_accepted("11.01", "A bool is true or false.", "flag", pipe="true", msgpack="c3", protobuf="0801")
_accepted(
    "11.02",
    "The least int is -2^63.",
    "number",
    pipe="-9223372036854775808",
    msgpack="d38000000000000000",
    protobuf="1080808080808080808001",
)
_accepted(
    "11.03",
    "The greatest int is 2^63 - 1.",
    "number",
    pipe="9223372036854775807",
    msgpack="cf7fffffffffffffff",
    protobuf="10ffffffffffffffff7f",
)
_accepted("11.04", "An int may be negative.", "number", pipe="-1", msgpack="ff", protobuf="10ffffffffffffffffff01")
_accepted(
    "11.05",
    "The greatest UInt64 is 2^64 - 1.",
    "large",
    pipe="18446744073709551615",
    msgpack="cfffffffffffffffff",
    protobuf="18ffffffffffffffffff01",
)
_accepted(
    "11.06", "A float is a double.", "real", pipe="0.1", msgpack="cb3fb999999999999a", protobuf="219a9999999999b93f"
)
_accepted("11.07", "NaN is a float.", "real", pipe="nan", msgpack="cb7ff8000000000000", protobuf="21000000000000f87f")
_accepted(
    "11.08", "Infinity is a float.", "real", pipe="inf", msgpack="cb7ff0000000000000", protobuf="21000000000000f07f"
)
_accepted(
    "11.09",
    "Minus infinity is a float.",
    "real",
    pipe="-inf",
    msgpack="cbfff0000000000000",
    protobuf="21000000000000f0ff",
)
_accepted(
    "11.10", "Minus zero is not zero.", "real", pipe="-0.0", msgpack="cb8000000000000000", protobuf="210000000000000080"
)
_accepted(
    "11.11",
    "The least double is kept.",
    "real",
    pipe="5e-324",
    msgpack="cb0000000000000001",
    protobuf="210100000000000000",
)
_accepted(
    "11.12",
    "The greatest double is kept.",
    "real",
    pipe="1.7976931348623157e+308",
    msgpack="cb7fefffffffffffff",
    protobuf="21ffffffffffffef7f",
)
_accepted(
    "11.13",
    "A str holds every delimiter of every codec.",
    "text",
    pipe=r"a\pb\\c\n\r,:()[]{}",
    msgpack="af" + b"a|b\\c\n\r,:()[]{}".hex(),
    protobuf="2a0f" + b"a|b\\c\n\r,:()[]{}".hex(),
)
_accepted(
    "11.14",
    "A str holds NUL and characters of one to four bytes.",
    "text",
    pipe="\0zé☃😀",
    msgpack="ab" + "\0zé☃😀".encode().hex(),
    protobuf="2a0b" + "\0zé☃😀".encode().hex(),
)
_accepted("11.15", "Bytes hold any byte.", "data", pipe="007cff0a", msgpack="c404007cff0a", protobuf="3204007cff0a")
_accepted(
    "11.16", "A datetime may be the epoch.", "moment", pipe="1970-01-01T00:00:00.000000Z", msgpack="00", protobuf="3a00"
)
_accepted(
    "11.17",
    "A datetime has microseconds.",
    "moment",
    pipe="2024-02-29T12:34:56.789012Z",
    msgpack="cf000612847caa6614",
    protobuf="3a0c08f0f381af0610a0bc9df802",
)
_accepted(
    "11.18",
    "A datetime may lie before the epoch.",
    "moment",
    pipe="1969-12-31T23:59:59.999999Z",
    msgpack="ff",
    protobuf="3a1108ffffffffffffffffff0110988cebdc03",
)
_accepted(
    "11.19",
    "The first datetime is that of year 1.",
    "moment",
    pipe="0001-01-01T00:00:00.000000Z",
    msgpack="d3ff23400100d44000",
    protobuf="3a0b088092b8c398feffffff01",
)
_accepted(
    "11.20",
    "The last datetime is the last microsecond of year 9999.",
    "moment",
    pipe="9999-12-31T23:59:59.999999Z",
    msgpack="cf0384440ccc735fff",
    protobuf="3a0d08ff82d1ffaf0710988cebdc03",
)
_accepted("11.21", "An enum is one of its numbers.", "color", pipe="5", msgpack="05", protobuf="4005")
_accepted("11.22", "A message may be a field.", "inner", pipe="(x,3)", msgpack="92a17803", protobuf="4a050a01781003")
_accepted(
    "11.23", "A message with only defaults is not None.", "inner", pipe=r"(\e,0)", msgpack="92a000", protobuf="4a00"
)
_accepted("11.24", "Zero in a T or None is not None.", "maybe", pipe="0", msgpack="00", protobuf="5000")
_accepted("11.25", "Zero in a field with another default is zero.", "seven", pipe="0", msgpack="00", protobuf="5800")
_accepted("11.26", "A bound may be reached.", "small", pipe="255", msgpack="ccff", protobuf="60ff01")
_accepted(
    "11.27",
    "A list keeps its order.",
    "numbers",
    pipe="[3,-2,1]",
    msgpack="9303fe01",
    protobuf="6a0c03feffffffffffffffff0101",
)
_accepted(
    "11.28",
    "A list of str keeps the empty ones and every delimiter.",
    "texts",
    pipe=r"[\e,a\x2cb,\p\x28]",
    msgpack="93a0a3612c62a27c28",
    protobuf="72007203612c6272027c28",
)
_accepted("11.29", "A list may hold one empty str.", "texts", pipe=r"[\e]", msgpack="91a0", protobuf="7200")
_accepted(
    "11.30",
    "A list may hold messages.",
    "inners",
    pipe=r"[(a,1),(\e,0)]",
    msgpack="9292a1610192a000",
    protobuf="7a050a016110017a00",
)
_accepted(
    "11.31",
    "A map has str keys, the empty one among them.",
    "by_text",
    pipe=r"{\e:0,k\x3a\x2c:-1}",
    msgpack="82a000a36b3a2cff",
    protobuf="8201040a0010008201100a036b3a2c10ffffffffffffffffff01",
)
_accepted(
    "11.32",
    "A map has int keys, negative ones among them.",
    "by_number",
    pipe=r"{-1:x,2:\e}",
    msgpack="82ffa17802a0",
    protobuf="8a010e08ffffffffffffffffff011201788a010408021200",
)

_refused("11.40", "An int of 2^63 is refused.", "number", pipe="9223372036854775808", msgpack="cf8000000000000000")
_refused("11.41", "An int of -2^63 - 1 is refused.", "number", pipe="-9223372036854775809")
_refused("11.42", "A negative UInt64 is refused.", "large", pipe="-1", msgpack="ff")
_refused("11.43", "A UInt64 of 2^64 is refused.", "large", pipe="18446744073709551616")
_refused("11.44", "A value above its bound is refused.", "small", pipe="256", msgpack="cd0100", protobuf="608002")
_refused(
    "11.45", "A value below its bound is refused.", "small", pipe="-1", msgpack="ff", protobuf="60ffffffffffffffffff01"
)
_refused("11.46", "A bool for an int is refused.", "number", pipe="true", msgpack="c3")
_refused("11.47", "An int for a bool is refused.", "flag", pipe="1", msgpack="01")
_refused(
    "11.48",
    "A float for an int is refused.",
    "number",
    pipe="1.0",
    msgpack="cb3ff0000000000000",
    protobuf="11000000000000f03f",
)
_refused("11.49", "A str for an int is refused.", "number", pipe="x", msgpack="a131", protobuf="120131")
_refused("11.50", "An int for a str is refused.", "text", msgpack="01", protobuf="2801")
_refused("11.51", "An integer that no double holds is refused for a float.", "real", msgpack="cf0020000000000001")
_refused("11.52", "An enum of 0 is refused.", "color", pipe="0", msgpack="00", protobuf="4000")
_refused(
    "11.53",
    "A number that the enum lacks is refused.",
    "color",
    pipe=["3", "-1"],
    msgpack=["03", "ff"],
    protobuf=["4003"],
)
_refused("11.54", "A str that is not UTF-8 is refused.", "text", pipe=b"\xff", msgpack="a1ff", protobuf="2a01ff")
_refused(
    "11.55",
    "A str with a surrogate is refused.",
    "text",
    pipe=b"\xed\xa0\x80",
    msgpack="a3eda080",
    protobuf="2a03eda080",
)
_refused(
    "11.56",
    "A datetime behind year 9999 is refused.",
    "moment",
    pipe="10000-01-01T00:00:00.000000Z",
    msgpack="cf0384440ccc736000",
    protobuf="3a07088083d1ffaf07",
)
_refused(
    "11.57",
    "A datetime finer than a microsecond is refused.",
    "moment",
    pipe="2024-02-29T12:34:56.7890125Z",
)
_refused("11.58", "None where there is a value always is refused.", "number", pipe=r"\N", msgpack="c0")
_refused("11.59", "None in a list is refused.", "numbers", pipe=r"[\N]", msgpack="91c0")
_refused("11.60", "A key twice is refused.", "by_text", pipe="{a:1,a:2}", msgpack="82a16101a16102")
_refused("11.61", "A message inside with a field too few is refused.", "inner", pipe="(x)", msgpack="91a178")
_refused(
    "11.62",
    "A message inside with a field too many is refused.",
    "inner",
    pipe="(x,3,4)",
    msgpack="93a1780304",
    protobuf="4a021804",
)
_refused(
    "11.63",
    "A value out of its type inside a list is refused.",
    "numbers",
    pipe="[1,x]",
    msgpack="92 01 a178",
    protobuf="6a020180",
)


def _version(number: str, text: str, change: int) -> None:
    """A payload with a field less or more than the version has."""

    def run(bench: Bench) -> None:
        codec = bench.codec[1]
        if codec not in ("pipe", "msgpack"):
            raise NotJudged("protobuf says so by unknown fields")
        payload = mirror_payload(codec, bench.version)
        if codec == "pipe":
            payload = payload + b"|" if change > 0 else payload.rpartition(b"|")[0]
        else:
            count = int.from_bytes(payload[1:3], "big") + change
            body = payload[3:] + b"\xa0" if change > 0 else payload[3:-1]
            payload = b"\xdc" + count.to_bytes(2, "big") + body
        with bench.open() as caller:
            caller.fail(MIRROR, payload, "BAD_PAYLOAD")

    SERVER_CASES.add(number, text, run, needs=Needs.SERVICE, only=("pipe", "msgpack"))


_version("11.70", "A payload has exactly the fields of the version: one more is refused.", +1)
_version("11.71", "A payload has exactly the fields of the version: one less is refused.", -1)


def _recent(bench: Bench) -> None:
    columns = {"pipe": "new", "msgpack": "a36e6577", "protobuf": "9201036e6577"}
    codec = bench.codec[1]
    written = column(codec, columns)
    with bench.open() as caller:
        if bench.version == 1:
            if codec == "protobuf":
                caller.fail(MIRROR, bytes.fromhex(str(written)), "BAD_PAYLOAD")
            return
        payload = mirror_payload(codec, 2, recent=in_bytes(codec, written))
        if caller.call(MIRROR, payload).recent != "new":
            raise Deviation("a field of version 2 is lost in version 2")


SERVER_CASES.add(
    "11.72",
    "A field that came with version 2 is there in version 2, and is an unknown field, which is refused, in version 1.",
    _recent,
    needs=Needs.SERVICE,
)
_whole("11.73", "An empty payload is no message that has fields.", pipe=b"", msgpack=b"")

# 12: pipe --------------------------------------------------------------------------------------------------------

_accepted("12.01", "pipe: a float may have more digits than it needs.", "real", pipe=("1.50", "1.5"))
_accepted("12.02", "pipe: a float may have an exponent anywhere, in either case.", "real", pipe=("1E2", "100.0"))
_accepted("12.03", "pipe: an integer is accepted for a float.", "real", pipe=("3", "3.0"))
_accepted("12.04", "pipe: a map may come unsorted.", "by_text", pipe=("{b:1,a:2}", "{a:2,b:1}"))
_accepted("12.05", "pipe: a float of 64 characters is read.", "real", pipe=("1." + "0" * 62, "1.0"))
_accepted(
    "12.06",
    "pipe: a float is the double nearest to what is written.",
    "real",
    pipe=("0.1000000000000000055511151231257827021181583404541015626", "0.1"),
)
_accepted(
    "12.07",
    "pipe: halfway between two doubles the one with the even significand is read.",
    "real",
    pipe=("9007199254740993", "9007199254740992.0"),
)
_accepted(
    "12.08",
    "pipe: the other text of a double that two shortest texts are equally near to is read as it.",
    "real",
    pipe=("900719925474099.3", "900719925474099.2"),
)
_refused("12.10", "pipe: an unknown escape is refused.", "text", pipe=[r"\q", r"\x", r"\N", r"\e", r"\x2c", r"\P"])
_refused("12.11", "pipe: a backslash at the end of a text is refused.", "recent", pipe=["a\\", "\\"])
_refused("12.12", "pipe: LF and CR are refused where they are not escaped.", "text", pipe=["a\nb", "a\rb"])
_refused(
    "12.13", "pipe: an int has no sign +, no leading zero, no minus zero.", "number", pipe=["+1", "01", "-0", "-01"]
)
_refused(
    "12.14",
    "pipe: an int has ASCII digits and nothing else.",
    "number",
    pipe=["", " 1", "1 ", "1_0", "١", "0x1", "1e2"],
)
_refused("12.15", "pipe: a bool is written in small letters.", "flag", pipe=["True", "TRUE", "t", "", "yes"])
_refused("12.16", "pipe: bytes are pairs of small hex digits.", "data", pipe=["0A", "0", "0g", "00 11", "0x00"])
_refused(
    "12.17",
    "pipe: a datetime has its one form.",
    "moment",
    pipe=[
        "2024-02-29T12:34:56.789012",
        "2024-02-29T12:34:56.789012+00:00",
        "2024-02-29t12:34:56.789012z",
        "2024-02-29 12:34:56.789012Z",
        "2024-02-29T12:34:56.789Z",
        "2024-02-29T12:34:56Z",
    ],
)
_refused(
    "12.18",
    "pipe: a datetime is a moment that exists.",
    "moment",
    pipe=[
        "2023-02-29T00:00:00.000000Z",
        "2024-01-01T24:00:00.000000Z",
        "2016-12-31T23:59:60.000000Z",
        "0000-01-01T00:00:00.000000Z",
    ],
)
_refused(
    "12.19",
    "pipe: a float has its grammar.",
    "real",
    pipe=["", ".5", "5.", "+1.0", "01.0", "1e", "NaN", "infinity", "0x1p3", "1_0.0"],
)
_refused("12.20", "pipe: a float is finite unless it says inf.", "real", pipe=["1e400", "-1e400"])
_refused("12.21", "pipe: a float has at most 64 characters.", "real", pipe="1." + "0" * 63)
_refused(
    "12.22",
    "pipe: a list is closed, and has no empty element.",
    "numbers",
    pipe=["[1", "1]", "[1,]", "[,1]", "[1,,2]", "1", "", "[1]2"],
)
_refused("12.23", "pipe: a str in a list is not empty but \\e.", "texts", pipe=["[,]", "[a,]"])
_refused("12.24", "pipe: the delimiters are escaped inside brackets.", "texts", pipe=["[a:b]", "[(]", "[a)b]", "[{]"])
_refused(
    "12.25",
    "pipe: an escape inside brackets has its one form.",
    "texts",
    pipe=[r"[\x2C]", r"[\x41]", r"[a\e]", r"[\x2]"],
)
_refused(
    "12.26",
    "pipe: a pair of a map has a key and a value.",
    "by_text",
    pipe=["{a}", "{a:}", "{:1}", "{a:1,}", "{a:1:2}", "{a:1"],
)
_refused("12.27", "pipe: a message has its brackets.", "inner", pipe=["x,3", "(x,3", "[x,3]", "()", "(x,3))"])
_refused("12.28", "pipe: there is no line end behind a payload.", "recent", pipe=["\n", "\r\n"])

# 12: msgpack -----------------------------------------------------------------------------------------------------

_accepted(
    "12.30", "msgpack: an integer may be longer than it needs.", "number", msgpack=("d300000000000000" + "05", "05")
)
_accepted(
    "12.31", "msgpack: a str and bin may have a longer length than it needs.", "text", msgpack=("db0000000178", "a178")
)
_accepted(
    "12.32",
    "msgpack: an array and map may have a longer length than it needs.",
    "numbers",
    msgpack=("dd0000000105", "9105"),
)
_accepted("12.33", "msgpack: float 32 is read.", "real", msgpack=("ca3fc00000", "cb3ff8000000000000"))
_accepted("12.34", "msgpack: an integer is read for a float.", "real", msgpack=("03", "cb4008000000000000"))
_accepted("12.35", "msgpack: a map may come unsorted.", "by_number", msgpack=("8205a16101a162", "8201a16205a161"))
_accepted(
    "12.36", "msgpack: every NaN is the same value.", "real", msgpack=("cbfff8000000000001", "cb7ff8000000000000")
)
_refused("12.40", "msgpack: extension types are refused.", "number", msgpack=["d40100", "c7010100", "d6ff00000000"])
_refused(
    "12.41",
    "msgpack: the timestamp extension is refused for a datetime.",
    "moment",
    msgpack=["d6ff00000000", "d7ff0000000000000000"],
)
_refused("12.42", "msgpack: bin for a str is refused.", "text", msgpack="c40161")
_refused("12.43", "msgpack: str for bin is refused.", "data", msgpack="a161")
_refused("12.44", "msgpack: the byte that no type has is refused.", "number", msgpack="c1")
_refused("12.45", "msgpack: a float for an enum or a datetime is refused.", "color", msgpack="cb3ff0000000000000")
_refused("12.46", "msgpack: a map for a message is refused.", "inner", msgpack="82a46e616d65a178a5636f756e7403")
_refused(
    "12.47", "msgpack: an array for a map, and a map for an array, are refused.", "by_text", msgpack=["90", "92a16101"]
)
_refused("12.48", "msgpack: a key of another type is refused.", "by_text", msgpack=["810101", "81c401" + "6101"])
_refused(
    "12.49",
    "msgpack: a length beyond the payload is refused.",
    "recent",
    msgpack=["dbffffffff78", "a5616263", "ddffffffff"],
)
_whole("12.50", "msgpack: a message is an array.", msgpack=b"\x81\xa4flag\xc3")
_whole("12.51", "msgpack: nothing but the message is a payload.", msgpack=b"\xc0")

# 12: protobuf ----------------------------------------------------------------------------------------------------

_accepted("12.60", "protobuf: an absent field with an explicit default has it.", "seven", protobuf=("", "5807"))
_accepted("12.61", "protobuf: fields come in any order.", "seven", protobuf=("58091005", "10055809"))
_accepted("12.62", "protobuf: of a field that is there twice the last counts.", "number", protobuf=("10051006", "1006"))
_accepted(
    "12.63",
    "protobuf: a message that is there twice is merged.",
    "inner",
    protobuf=("4a030a01784a021003", "4a050a01781003"),
)
_accepted("12.64", "protobuf: a repeated number may come unpacked.", "numbers", protobuf=("68016802", "6a020102"))
_accepted(
    "12.65",
    "protobuf: a repeated number may come in several parts.",
    "numbers",
    protobuf=("6a01016a020203", "6a03010203"),
)
_accepted("12.66", "protobuf: an implicit field may be there with its zero.", "number", protobuf=("1000", ""))
_accepted(
    "12.67",
    "protobuf: of a map's key that is there twice the last counts.",
    "by_text",
    protobuf=("8201050a016110018201050a01611002", "8201050a01611002"),
)
_accepted(
    "12.68",
    "protobuf: a map's entry without key or value has their zeros.",
    "by_text",
    protobuf=("820100", "8201040a001000"),
)
_accepted("12.69", "protobuf: a varint may be longer than it needs.", "number", protobuf=("10858000", "1005"))
_accepted(
    "12.70", "protobuf: every NaN is the same value.", "real", protobuf=("21010000000000f8ff", "21000000000000f87f")
)
_accepted(
    "12.71",
    "protobuf: a Timestamp is cut to the microsecond.",
    "moment",
    protobuf=("3a0310cf0f", "3a0310e807"),
)
_refused(
    "12.80",
    "protobuf: an unknown field is refused.",
    "recent",
    protobuf=["9a0600", "980600", "9d0600000000", "99060000000000000000"],
)
_refused(
    "12.81",
    "protobuf: an unknown field in a message inside is refused.",
    "inner",
    protobuf=["4a03 9a0600", "4a02 1801"],
)
_refused("12.82", "protobuf: a wrong wire type is refused.", "number", protobuf=["1200", "1500000000", "11" + "00" * 8])
_refused("12.83", "protobuf: groups are refused.", "number", protobuf=["1314", "13", "14"])
_refused("12.84", "protobuf: field number 0 is refused.", "number", protobuf=["0000", "0200"])
_refused(
    "12.85",
    "protobuf: a payload that ends within a field is refused.",
    "recent",
    protobuf=["10", "1080", "2a05616263", "21000000"],
)
_refused("12.86", "protobuf: a varint of more than ten bytes is refused.", "number", protobuf="10" + "ff" * 10 + "01")
_refused(
    "12.87",
    "protobuf: a Timestamp has 0 to 999999999 nanoseconds.",
    "moment",
    protobuf=["3a0b10ffffffffffffffffff01", "3a06108094ebdc03"],
)
_refused(
    "12.88",
    "protobuf: a Timestamp lies in the years 1 to 9999.",
    "moment",
    protobuf=["3a0b08ff91b8c398feffffff01", "3a07088083d1ffaf07"],
)
