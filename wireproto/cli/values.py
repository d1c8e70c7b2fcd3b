"""Messages to and from what a person writes: ``key=value`` pairs and JSON, typed by the schema.

The same JSON in both directions: bytes are hex as in the pipe codec, datetimes RFC 3339, enums the name of a member,
a map's integer keys strings, and the floats that JSON lacks the strings ``nan``, ``inf`` and ``-inf``. A field that is
absent has its default; ``null`` is the same, where a field may be None.
"""

import codecs
import difflib
import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

from wireproto.errors import ConfigError
from wireproto.schema import Field, FieldType, Message, Scalar, fields

__all__ = ["dumps", "from_json", "loads", "pairs", "to_json"]

M = TypeVar("M", bound=Message)

_INTEGER = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_FLOATS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
_EXPECTED = {
    Scalar.BOOL: "true or false",
    Scalar.INT: "an integer",
    Scalar.UINT: "an integer from 0 on",
    Scalar.FLOAT: "a number",
    Scalar.STR: "a string",
    Scalar.BYTES: "a string of hex digits",
    Scalar.DATETIME: "a time with its zone, as in 2026-01-31T12:00:00Z",
    Scalar.MESSAGE: "an object",
}
# What a terminal would act on, or a reader could not see: JSON may escape any character.
_UNSEEN = re.compile("[\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


# Out ------------------------------------------------------------------------------------------------------------


def to_json(message: Message) -> dict[str, Any]:
    """A message as JSON's objects; every field is there."""
    return {field.name: _field_out(getattr(message, field.name), field.type) for field in fields(type(message))}


def _field_out(value: Any, kind: FieldType) -> Any:
    if value is None:
        return None
    if kind.shape == "list":
        return [_value_out(each, kind) for each in value]
    if kind.shape == "map":
        return {str(key): _value_out(each, kind) for key, each in value.items()}
    return _value_out(value, kind)


def _value_out(value: Any, kind: FieldType) -> Any:
    match kind.scalar:
        case Scalar.MESSAGE:
            return to_json(value)
        case Scalar.ENUM:
            return value.name
        case Scalar.BYTES:
            return value.hex()
        case Scalar.DATETIME:
            return value.isoformat().replace("+00:00", "Z")
        case Scalar.FLOAT if value - value != 0:  # not finite
            return repr(float(value))
    return value


def dumps(value: object, *, indent: int | None = None) -> str:
    """``value`` as JSON text that is safe to show: characters that steer a terminal or hide are escaped.

    JSON is UTF-8 wherever a program reads it. Where stdout is anything else, all that is not ASCII is escaped, which
    reads the same in both; a terminal is spared that as long as its encoding has the letters.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    if not _shows(text):
        text = json.dumps(value, allow_nan=False, indent=indent)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _shows(text: str) -> bool:
    """Whether stdout may get the letters of ``text`` as they are."""
    encoding = codecs.lookup(sys.stdout.encoding or "ascii").name
    if encoding != "utf-8" and not sys.stdout.isatty():
        return False
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


# In -------------------------------------------------------------------------------------------------------------


def loads(text: str) -> Any:
    """JSON text, without the two liberties that Python's reader takes: duplicate keys, and ``NaN``.

    Raises:
        ConfigError: it is not JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}") from error


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        names = [name for name, _ in items]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f'{name} is not JSON; write "nan", "inf" or "-inf" in quotes')


def from_json(message_type: type[M], value: object, path: str = "") -> M:
    """The message that a JSON object means.

    Raises:
        ConfigError: a field is missing, unknown or of the wrong type; the text says where.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{path or message_type.__name__} takes an object, not {_shown(value)}")
    declared = {field.name: field for field in fields(message_type)}
    for name in value:
        if name not in declared:
            raise ConfigError(_unknown(name, message_type, declared))
    given = {name: _field_in(each, declared[name]) for name, each in value.items() if not _absent(each, declared[name])}
    missing = [field for field in declared.values() if field.required and field.name not in given]
    if missing:
        raise ConfigError(f"{', '.join(field.path for field in missing)} must be given ({_signature(message_type)})")
    return message_type(**given)


def pairs(message_type: type[Message], words: Iterable[str]) -> dict[str, Any]:
    """``key=value`` words as a JSON object: text where the field is text, else what the field's type reads.

    Raises:
        ConfigError: a word is no pair, or names no field, or a field twice.
    """
    declared = {field.name: field for field in fields(message_type)}
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is not key=value ({_signature(message_type)})")
        if name not in declared:
            raise ConfigError(_unknown(name, message_type, declared))
        if name in found:
            raise ConfigError(f"{name} is given twice; a list is written as JSON: {name}='[...]'")
        found[name] = _word(text, declared[name])
    return found


def _word(text: str, field: Field) -> Any:
    kind = field.type
    if kind.shape != "single" or kind.scalar is Scalar.MESSAGE:
        try:
            return loads(text)
        except ConfigError as error:
            example = {"list": "[...]", "map": "{...}"}.get(kind.shape, "{...}")
            raise ConfigError(f"{field.path} is written as JSON, {field.name}='{example}': {error}") from error
    if kind.scalar in (Scalar.INT, Scalar.UINT, Scalar.ENUM) and _INTEGER.fullmatch(text):
        return int(text)
    if kind.scalar is Scalar.BOOL and text in ("true", "false"):
        return text == "true"
    if kind.scalar is Scalar.FLOAT and text not in _FLOATS:
        try:
            return loads(text)
        except ConfigError:
            return text  # refused below, with the field's path
    return text


def _absent(value: object, field: Field) -> bool:
    return value is None and field.type.optional


def _field_in(value: Any, field: Field) -> Any:
    kind = field.type
    if kind.shape == "list":
        if not isinstance(value, list):
            raise ConfigError(f"{field.path} takes a list, not {_shown(value)}")
        return [_value_in(each, kind, f"{field.path}[{index}]") for index, each in enumerate(value)]
    if kind.shape == "map":
        if not isinstance(value, dict):
            raise ConfigError(f"{field.path} takes an object, not {_shown(value)}")
        return {
            _key_in(key, kind, field.path): _value_in(each, kind, f"{field.path}[{key}]") for key, each in value.items()
        }
    return _value_in(value, kind, field.path)


def _key_in(key: str, kind: FieldType, path: str) -> str | int:
    if kind.key is Scalar.STR:
        return key
    if not _INTEGER.fullmatch(key):
        raise ConfigError(f"{path} has integer keys, and {key!r} is none")
    return int(key)


def _value_in(value: Any, kind: FieldType, path: str) -> Any:
    scalar = kind.scalar
    if scalar is Scalar.MESSAGE:
        assert kind.cls is not None
        return from_json(kind.cls, value, path)
    if scalar is Scalar.ENUM:
        return _member(value, kind, path)
    found: Any = None
    if scalar is Scalar.BOOL:
        found = value if isinstance(value, bool) else None
    elif scalar in (Scalar.INT, Scalar.UINT):
        found = value if type(value) is int else None
    elif scalar is Scalar.FLOAT:
        found = _number(value)
    elif scalar is Scalar.STR:
        found = value if isinstance(value, str) else None
    elif scalar is Scalar.BYTES and isinstance(value, str):
        found = bytes.fromhex(value) if re.fullmatch("([0-9a-fA-F]{2})*", value) else None
    elif scalar is Scalar.DATETIME and isinstance(value, str):
        found = _moment(value, path)
    if found is None:
        raise ConfigError(f"{path} takes {_EXPECTED[scalar]}, not {_shown(value)}")
    return found


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return _FLOATS.get(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53:  # further on floats have gaps
        return float(value)
    return value if isinstance(value, float) else None


def _moment(text: str, path: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if found.tzinfo is None:
        return None
    try:
        return found.astimezone(UTC)
    except OverflowError as error:
        raise ConfigError(f"{path} takes a time of the years 1 to 9999 in UTC, not {_shown(text)}") from error


def _member(value: object, kind: FieldType, path: str) -> Any:
    assert kind.cls is not None
    members = {member.name: member for member in kind.cls}
    for member in members.values():
        if value == member.name or (type(value) is int and value == member.value):
            return member
    raise ConfigError(f"{path} takes one of {', '.join(members)}, not {_shown(value)}")


def _unknown(name: str, message_type: type[Message], declared: dict[str, Field]) -> str:
    close = difflib.get_close_matches(name, declared, n=1)
    hint = f"; did you mean {close[0]}?" if close else f" ({_signature(message_type)})"
    return f"{message_type.__name__} has no field {name!r}{hint}"


def _signature(message_type: type[Message]) -> str:
    """All fields in one line, to be read at the end of an error; those that may be left out in brackets."""
    declared = [(f"{field.name}: {field.type}", field.required) for field in fields(message_type)]
    shown = [text if required else f"[{text}]" for text, required in declared]
    return f"it has {', '.join(shown)}" if shown else f"{message_type.__name__} has no fields"


def _shown(value: object) -> str:
    """What was given, short enough for an error."""
    text = dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
