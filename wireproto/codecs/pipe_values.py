r"""The values of pipe text: how each is written and read, outside of brackets and inside of them.

What a whole message is made of is generated (`pipe`), and calls this; one value by itself is written and read by
`write_value` and `read_value`, as it stands in a field.
"""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NoReturn

import msgspec

from wireproto.errors import DecodeError
from wireproto.schema import FieldType, Scalar
from wireproto.schema.refusal import Refused

__all__ = [
    "EMPTY",
    "FALSE",
    "NONE",
    "TRUE",
    "digits",
    "enum_reader",
    "escape",
    "escape_inside",
    "instant",
    "integer",
    "json",
    "octets",
    "octets_inside",
    "read_value",
    "real",
    "refuse",
    "stamp",
    "truth",
    "unescape",
    "unescape_inside",
    "write_value",
]

NONE: Final = "\\N"
EMPTY: Final = "\\e"
TRUE: Final = "true"
FALSE: Final = "false"


def refuse(problem: str) -> NoReturn:
    """Refuse a value."""
    raise Refused(problem)


_DELIMITERS: Final = ",:()[]{}"
_hex_escapes: Final = [(delimiter, f"\\x{ord(delimiter):02x}") for delimiter in _DELIMITERS]

# No payload holds it, since it is no UTF-8: so it can stand for a backslash until the escapes are gone.
_STAND_IN: Final = "\udc5c"


def escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\p").replace("\n", "\\n").replace("\r", "\\r")


def escape_inside(text: str) -> str:
    if not text:
        return EMPTY
    # Written out, as a loop costs half as much again; a search for what is not there costs as much as replacing it.
    text = escape(text).replace(",", "\\x2c").replace(":", "\\x3a").replace("(", "\\x28").replace(")", "\\x29")
    return text.replace("[", "\\x5b").replace("]", "\\x5d").replace("{", "\\x7b").replace("}", "\\x7d")


def unescape(text: str, *, inside: bool = False) -> str:
    # Replacing goes from left to right, so each pair of backslashes found is one escape; what is left begins others.
    text = text.replace("\\\\", _STAND_IN).replace("\\p", "|").replace("\\n", "\n").replace("\\r", "\r")
    if inside and "\\x" in text:
        for delimiter, escape in _hex_escapes:
            text = text.replace(escape, delimiter)
    if "\\" in text:
        refuse("has an escape that does not exist there; a backslash is written twice")
    return text.replace(_STAND_IN, "\\")


def unescape_inside(token: str) -> str:
    if token in _DELIMITERS:
        refuse("is missing; the empty string is written \\e")
    if ":" in token:
        refuse("has a raw colon; inside brackets it is written \\x3a")
    if token == "\\e":
        return ""
    return unescape(token, inside=True) if "\\" in token else token


# JSON's grammar of numbers is ours, and msgspec has the values of int() and float() and the digits of repr(), in a
# fraction of their time: 30 ns and not 100 to read 17 digits, 40 and not 300 to write them. It takes no full-width
# digits, underscores or +5. What it takes and gives beyond the grammar is ruled out below.
json: Final = msgspec.json.Encoder().encode
_json_int: Final = msgspec.json.Decoder(int).decode
_json_float: Final = msgspec.json.Decoder(float).decode


def integer(token: str) -> int:
    # 20 characters hold any 64 bits.
    if len(token) <= 20:
        try:
            number = _json_int(token)
        except msgspec.DecodeError:
            pass
        else:
            # What has a sign, be it of -0, or space around it, as in JSON, is compared with the one way to write it.
            if token.isdecimal() or f"{number}" == token:
                return number
    refuse("is no integer; write digits, no zero in front, and - when it is negative")


def digits(number: float) -> str:
    # msgspec has no nan and other exponents, so it is only asked where there are none. Code that writes a float asks it
    # for the positive ones by itself, to save a call.
    return json(number).decode() if 1e-4 <= abs(number) < 1e16 or not number else repr(number)


_NOT_FINITE: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def real(token: str) -> float:
    if len(token) <= 64 and token.strip() == token:
        try:
            # A zero without a point is an int to msgspec, which knows no -0.
            return _json_float(token) or float(token)
        except msgspec.DecodeError:
            number = _NOT_FINITE.get(token)
            if number is not None:
                return number
    refuse("is no float; write it as 1.5, -2, 1e-07, nan, inf or -inf")


def truth(token: str) -> bool:
    if token == "true":
        return True
    if token == "false":
        return False
    refuse("is no bool; write true or false")


def octets(token: str) -> bytes:
    try:
        octets = bytes.fromhex(token)
    except ValueError:
        octets = b""
    if octets.hex() != token:
        refuse("is no bytes; write two lower-case hex digits for each byte")
    return octets


def octets_inside(token: str) -> bytes:
    return b"" if token == "\\e" else octets(token)


_json_time: Final = msgspec.json.Decoder(datetime).decode


def stamp(value: datetime) -> str:
    # A seventh of what isoformat() costs. It is in quotes, and without a fraction where that is 0.
    text = json(value).decode()
    return text[1:-1] if len(text) == 29 else f"{text[1:20]}.000000Z"


def instant(token: str) -> datetime:
    # Writing the time again tests its grammar: several are taken here, and escapes, too.
    if len(token) == 27:
        try:
            value = _json_time(f'"{token}"')
        except msgspec.DecodeError:
            pass
        else:
            if stamp(value) == token:
                return value
    refuse("is no time; write it in UTC as 2024-01-31T23:59:59.000000Z")


def enum_reader(cls: type[Any]) -> Callable[[str], object]:
    members = {str(int(member)): member for member in cls}
    known = ", ".join(members)

    def read(token: str) -> object:
        member = members.get(token)
        if member is None:
            refuse(f"is no number of {cls.__name__}; it has {known}")
        return member

    return read


# A value by itself ----------------------------------------------------------------------------------------------


def write_value(value: Any, kind: FieldType) -> str:
    """A value as it stands in a field of a message.

    Args:
        value: of that type, and right: nothing is checked.
        kind: any but a message; a list or map is empty.
    """
    if value is None:
        return NONE
    if kind.shape != "single":
        return "[]" if kind.shape == "list" else "{}"
    return _WRITERS[kind.scalar](value)


def read_value(text: str, kind: FieldType) -> object:
    """The inverse of `write_value`; silent about ranges and bounds, as all readers here.

    Raises:
        DecodeError: the text is no such value.
    """
    try:
        if kind.optional and text == NONE:
            return None
        if kind.shape == "list" and text == "[]":
            return []
        if kind.shape == "map" and text == "{}":
            return {}
        if kind.shape != "single" or kind.scalar is Scalar.MESSAGE:
            refuse(f"is no empty {kind}")
        return _READERS[kind.scalar](text) if kind.cls is None else enum_reader(kind.cls)(text)
    except Refused as refused:
        raise DecodeError(str(kind), refused.problem) from None


def _line(text: str) -> str:
    if any(each in text for each in "|\n\r"):
        refuse("has a raw line break or |; write \\n, \\r and \\p")
    return unescape(text)


_WRITERS: Final[dict[Scalar, Callable[[Any], str]]] = {
    Scalar.BOOL: lambda value: TRUE if value else FALSE,
    Scalar.INT: repr,
    Scalar.UINT: repr,
    Scalar.FLOAT: digits,
    Scalar.STR: escape,
    Scalar.BYTES: bytes.hex,
    Scalar.DATETIME: stamp,
    Scalar.ENUM: lambda value: str(int(value)),
}
_READERS: Final[dict[Scalar, Callable[[str], object]]] = {
    Scalar.BOOL: truth,
    Scalar.INT: integer,
    Scalar.UINT: integer,
    Scalar.FLOAT: real,
    Scalar.STR: _line,
    Scalar.BYTES: octets,
    Scalar.DATETIME: instant,
}
