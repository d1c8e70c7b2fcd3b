"""Section 12: the codec pipe."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tests.conformance.paged.declared import ENUMS, fields_of
from tests.conformance.paged.numbers import bad
from tests.conformance.paged.values import RANGES, at, judged

__all__ = ["decode", "encode", "written"]

ESCAPES = {"\\": "\\\\", "|": "\\p", "\n": "\\n", "\r": "\\r"}
INSIDE = {**ESCAPES, **{each: f"\\x{ord(each):02x}" for each in ",:()[]{}"}}


def written(type_: Any, value: Any, version: int, inside: bool) -> str:
    match type_:
        case ("optional", inner):
            return "\\N" if value is None else written(inner, value, version, inside)
        case ("list", inner):
            return f"[{','.join(written(inner, each, version, True) for each in value)}]"
        case ("map", key, inner):
            pairs = (
                f"{written(key, each, version, True)}:{written(inner, value[each], version, True)}"
                for each in sorted(value)
            )
            return f"{{{','.join(pairs)}}}"
        case ("message", name):
            parts = (written(each.type, value[each.name], version, True) for each in fields_of(name, version))
            return f"({','.join(parts)})"
        case "bool":
            return "true" if value else "false"
        case "str":
            return "".join((INSIDE if inside else ESCAPES).get(each, each) for each in value) or "\\e" * inside
        case "bytes":
            return value.hex() or "\\e" * inside
        case "float":
            return repr(value)  # whose digits and notation are those of the page
        case "datetime":
            return str(value.isoformat(timespec="microseconds")).replace("+00:00", "Z")
    return str(value)


def encode(message: str, value: dict[str, Any], version: int) -> bytes:
    own = fields_of(message, version)
    return "|".join(written(each.type, value[each.name], version, False) for each in own).encode()


class Reader:
    def __init__(self, text: str, version: int) -> None:
        self.text, self.at, self.version = text, 0, version

    def eat(self, sign: str) -> bool:
        found = self.text.startswith(sign, self.at)
        self.at += len(sign) * found
        return found

    def must(self, sign: str) -> None:
        if not self.eat(sign):
            raise bad(f"{sign} is missing at {self.at}")

    def elements(self, close: str) -> Iterator[int]:
        if self.eat(close):
            return
        number = 0
        while True:
            yield number
            number += 1
            if not self.eat(","):
                break
        self.must(close)

    def value(self, type_: Any, inside: bool) -> Any:
        match type_:
            case ("optional", inner):
                return None if self.eat("\\N") else self.value(inner, inside)
            case ("list", inner):
                self.must("[")
                return [self.value(inner, True) for _ in self.elements("]")]
            case ("map", key, inner):
                self.must("{")
                found: dict[Any, Any] = {}
                for _ in self.elements("}"):
                    name = self.value(key, True)
                    self.must(":")
                    if name in found:
                        raise bad("a key is there twice")
                    found[name] = self.value(inner, True)
                return found
            case ("message", name):
                self.must("(")
                own = fields_of(name, self.version)
                made = {}
                for number in self.elements(")"):
                    if number >= len(own):
                        raise bad(f"{name} has {len(own)} fields")
                    with at(name, own[number]):
                        made[own[number].name] = judged(own[number], self.value(own[number].type, True))
                if len(made) != len(own):
                    raise bad(f"{name} has {len(own)} fields")
                return made
        pattern = r"[^,)\]}]*" if type_ == "datetime" else r"[^,:()\[\]{}]*"
        found_word = re.compile(pattern).match(self.text, self.at) if inside else None
        word = found_word[0] if found_word else self.text[self.at :]
        self.at += len(word)
        return scalar(type_, word, inside)


def scalar(type_: Any, word: str, inside: bool) -> Any:
    if inside and not word:
        raise bad("a value is missing")
    if type_ in ("str", "bytes") and inside and word == "\\e":
        return "" if type_ == "str" else b""
    match type_:
        case "str":
            table = {escape: sign for sign, escape in (INSIDE if inside else ESCAPES).items()}
            if "\n" in word or "\r" in word:
                raise bad("a raw line break")
            return re.sub(r"\\(x[0-9a-f]{2}|.|$)", lambda found: escaped(table, found[0]), word)
        case "bytes" if re.fullmatch("([0-9a-f]{2})*", word):
            return bytes.fromhex(word)
        case "bool" if word in ("true", "false"):
            return word == "true"
        case "float" if re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", word) and len(word) <= 64:
            if abs(float(word)) == float("inf"):
                raise bad("a float that is not finite")
            return float(word)
        case "float" if word in ("nan", "inf", "-inf"):
            return float(word)
        case "datetime" if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", word, re.ASCII):
            try:
                return datetime.fromisoformat(word)
            except ValueError:
                raise bad("no moment") from None
        case ("enum", name) if word in map(str, ENUMS[name].values()):
            return int(word)
        case "int" | "uint" if re.fullmatch("0|-?[1-9][0-9]{0,19}", word):
            low, high = RANGES[type_]
            if low <= int(word) <= high:
                return int(word)
    raise bad(f"no {type_}: {word[:50]}")


def escaped(table: dict[str, str], escape: str) -> str:
    if escape not in table:
        raise bad("an unknown escape")
    return table[escape]


def decode(message: str, payload: bytes, version: int) -> dict[str, Any]:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise bad("no UTF-8") from None
    own = fields_of(message, version)
    parts = text.split("|") if text or own else []
    if len(parts) != len(own):
        raise bad(f"{message} has {len(own)} fields")
    made = {}
    for field, part in zip(own, parts, strict=True):
        with at(message, field):
            reader = Reader(part, version)
            made[field.name] = judged(field, reader.value(field.type, False))
            if reader.at != len(part):
                raise bad("it goes on")
    return made
