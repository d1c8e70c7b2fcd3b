"""MessagePack: one array per message, fields in order, as many as the version has.

An enum is its number, a datetime an integer of microseconds since 1970, None is nil. Canonical are the shortest forms,
maps sorted by key, and one NaN. Two functions are generated per message type and version.

``msgspec`` writes and ``msgpack`` reads: the first is faster and keeps no state between calls, the second can limit
what a claimed length allocates. Their bytes are the same, and a test compares them.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, cast

import msgpack
import msgspec

from wireproto.codecs.base import Codec, M, Plan, compile_source, element_check, explain
from wireproto.errors import DecodeError, EncodeError
from wireproto.limits import Limits
from wireproto.schema import Field, Message, Scalar, compile_check, fields, from_plain, message_types

__all__ = ["MsgpackCodec"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class MsgpackCodec(Codec):
    """MessagePack by the ``msgspec`` and ``msgpack`` packages."""

    name = "msgpack"
    id = 2

    def compile(self, message_type: type[M], version: int, limits: Limits, *, request: bool) -> Plan[M]:
        """Generate the two functions. Arrays and maps beyond ``limits.max_elements`` are refused before they exist."""
        source = _Source(message_type, version)
        options = _unpack_options(source.fields, limits.max_elements)
        count = element_check(message_type, version, limits.max_elements)
        namespace: dict[str, object] = {
            "DecodeError": DecodeError,
            "EncodeError": EncodeError,
            "NAN": math.nan,
            "check": compile_check(message_type, version, request=request),
            "count": count,
            "diagnose": _diagnosis(message_type, version, limits.max_elements, options),
            "explain": explain,
            "instant": _instant,
            "microseconds": _microseconds,
            "pack": msgspec.msgpack.Encoder().encode,
            "real": _real,
            "refuse": _refuse,
            "unpack": msgpack.unpackb,
            **{f"option_{name}": value for name, value in options.items()},
            **source.classes,
        }
        text = source.nested() + _PLAN.format(
            name=message_type.__name__,
            written=source.written(message_type),
            # Spelled out in the call, because functools.partial around a C function doubles its cost.
            options=", ".join(f"{name}=option_{name}" for name in options),
            **source.read(message_type),
            count_encode="count(message, EncodeError)" if count else "",
            count_decode="count(message, DecodeError)" if count else "",
        )
        made = compile_source(f"msgpack {message_type.__qualname__} v{version}", text, namespace)
        return Plan(made["encode"], made["decode"])


_PLAN = """
def encode(message):
    try:
        check(message, EncodeError)
        {count_encode}
        return pack({written})
    except EncodeError:
        raise
    except Exception as error:
        raise EncodeError("{name}", explain(error)) from None


def decode(payload):
    try:
        value = unpack(payload, {options})
        if type(value) is not tuple:
            refuse()
        {unpacked}
        message = {label}({arguments})
        check(message, DecodeError)
        {count_decode}
        return message
    except Exception as error:
        raise diagnose(payload, error) from None
"""

_WRITER = """
def write_{label}(message):
    return {written}
"""

_READER = """
def read_{label}(value):
    if type(value) is not tuple:
        refuse()
    {unpacked}
    return {label}({arguments})
"""


class _Source:
    """The generated code for one message type and those nested in it: ``write_X`` and ``read_X`` for each."""

    def __init__(self, message_type: type[Message], version: int) -> None:
        self.fields = {cls: fields(cls, version) for cls in message_types(message_type)}
        # Numbered, since two classes of one name may meet where no service has looked at them.
        self.labels = {cls: f"{cls.__name__}_{index}" for index, cls in enumerate(self.fields)}
        self.classes: dict[str, object] = {label: cls for cls, label in self.labels.items()}
        for cls in self.fields:
            for field in self.fields[cls]:
                if field.type.scalar is Scalar.ENUM:
                    self.classes[self._enum(cls, field)] = _enum_reader(_class(field))

    def nested(self) -> str:
        """The functions for nested messages."""
        _, *nested = self.fields
        writers = (
            _WRITER.format(label=self.labels[cls], written=self.written(cls))
            for cls in nested
            if not self._is_as_is(cls)
        )
        return "".join(writers) + "".join(_READER.format(**self.read(cls)) for cls in nested)

    def written(self, cls: type[Message]) -> str:
        """The expression that msgspec is to write for ``message``."""
        if self._is_as_is(cls):
            return "message"
        return f"({''.join(f'{self._written_field(field)}, ' for field in self.fields[cls])})"

    def read(self, cls: type[Message]) -> dict[str, str]:
        """The parts of the code that makes a message of the tuple ``value``."""
        names = [f"f{field.number}" for field in self.fields[cls]]
        return {
            "label": self.labels[cls],
            "unpacked": f"{', '.join(names)}, = value" if names else "() = value",
            "arguments": ", ".join(f"{field.name}={self._read_field(cls, field)}" for field in self.fields[cls]),
        }

    def _is_as_is(self, cls: type[Message]) -> bool:
        """Whether msgspec by itself, writing all fields of the class as an array, writes what is wanted."""
        return len(self.fields[cls]) == len(cls.__struct_fields__) and all(
            field.type.shape != "map" and self._written_item(field) == "x" for field in self.fields[cls]
        )

    def _written_field(self, field: Field) -> str:
        value, item = f"message.{field.name}", self._written_item(field)
        if field.type.shape == "map":
            return f"{{k: {item} for k, x in sorted({value}.items())}}"
        if item == "x":
            return value
        if field.type.shape == "list":
            return f"[{item} for x in {value}]"
        return f"None if (x := {value}) is None else {item}"

    def _written_item(self, field: Field) -> str:
        """How one ``x`` is handed to msgspec, which turns an IntEnum into its number by itself."""
        if field.type.scalar is Scalar.FLOAT:
            return "x if x == x else NAN"
        if field.type.scalar is Scalar.DATETIME:
            return "microseconds(x)"
        if field.type.scalar is Scalar.MESSAGE and not self._is_as_is(_class(field)):
            return f"write_{self.labels[_class(field)]}(x)"
        return "x"

    def _read_field(self, cls: type[Message], field: Field) -> str:
        value, item = f"f{field.number}", self._read_item(cls, field)
        if field.type.shape == "list":
            made = f"[{item} for x in {value}]" if item != "x" else f"[*{value}]"
            return f"{made} if type({value}) is tuple else refuse()"
        if item == "x":
            return value
        if field.type.shape == "map":
            return f"{{k: {item} for k, x in {value}.items()}}"
        if field.type.optional:
            return f"None if (x := {value}) is None else {item}"
        return item.replace("(x)", f"({value})")

    def _read_item(self, cls: type[Message], field: Field) -> str:
        if field.type.scalar is Scalar.FLOAT:
            return "real(x)"
        if field.type.scalar is Scalar.DATETIME:
            return "instant(x)"
        if field.type.scalar is Scalar.ENUM:
            return f"{self._enum(cls, field)}(x)"
        if field.type.scalar is Scalar.MESSAGE:
            return f"read_{self.labels[_class(field)]}(x)"
        return "x"

    def _enum(self, cls: type[Message], field: Field) -> str:
        return f"enum_{self.labels[cls]}_{field.name}"


def _class(field: Field) -> type[Any]:
    """The enum or message class of a field that has one."""
    return cast(type[Any], field.type.cls)


# What the generated code calls ----------------------------------------------------------------------------------


class _RefusedError(Exception):
    """Ends the fast path; `_diagnosis` then finds out where and why."""


def _refuse(*_: object) -> NoReturn:
    raise _RefusedError


def _real(value: Any) -> float:
    """A float, or an int that equals one: JavaScript writes 1.0 as 1."""
    if type(value) is float:
        return value
    if type(value) is int and (number := float(value)) == value:
        return number
    _refuse()


def _microseconds(value: datetime) -> int:
    since = value - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _instant(value: Any) -> datetime:
    if type(value) is not int:
        _refuse()
    return _EPOCH + timedelta(microseconds=value)


def _enum_reader(cls: type[Any]) -> Callable[[Any], object]:
    # A table is four times as fast as calling the class. True and 1.0 would be found in it, too.
    members = {int(member): member for member in cls}
    return lambda value: members[value] if type(value) is int else _refuse()


# Reading safely -------------------------------------------------------------------------------------------------


class _DuplicateKeyError(Exception):
    pass


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _DuplicateKeyError
    return made


def _unpack_options(described: dict[type[Message], tuple[Field, ...]], max_elements: int) -> dict[str, object]:
    """The arguments of ``unpackb``: what the types cannot hold is refused before it is built."""
    keys = {field.type.key for each in described.values() for field in each}
    widest = max(len(each) for each in described.values())
    return {
        # Tuples cost half of what lists cost, and empty ones nothing: 1 MiB of small arrays takes at most 33 MiB.
        "use_list": False,
        "max_array_len": max(max_elements, widest),
        "max_map_len": max_elements,
        "max_ext_len": 0,
        # An ext of no bytes would pass that, and be a tuple.
        "ext_hook": _refuse,
        # Called for every map, which is the only way to see duplicate keys.
        "object_pairs_hook": _unique if keys != {None} else _refuse,
        "strict_map_key": Scalar.INT not in keys,
    }


def _diagnosis(
    message_type: type[Message], version: int, max_elements: int, options: dict[str, object]
) -> Callable[[bytes, Exception], DecodeError]:
    """A function that turns whatever stopped the fast path into an error with a path, by reading again, slowly."""
    name = message_type.__name__

    def diagnose(payload: bytes, error: Exception) -> DecodeError:
        if isinstance(error, DecodeError):
            return error
        try:
            plain = msgpack.unpackb(payload, **{**options, "use_list": True, "object_pairs_hook": _unique})
            from_plain(message_type, plain, version)
        except DecodeError as refused:
            return refused
        except _DuplicateKeyError:
            return DecodeError(name, "has a map with the same key twice")
        except _RefusedError:
            return DecodeError(name, "has an extension type, which no field is")
        except msgpack.exceptions.ExtraData:
            return DecodeError(name, "has bytes behind its end")
        except msgpack.exceptions.StackError:
            return DecodeError(name, "is nested too deeply")
        except msgpack.exceptions.FormatError:
            return DecodeError(name, "is not MessagePack")
        except UnicodeDecodeError as malformed:
            return DecodeError(name, explain(malformed))
        except ValueError as malformed:
            # The library says these apart by their texts alone.
            if "exceeds max_" in str(malformed):
                return DecodeError(name, f"has more than {max_elements} elements in an array or map")
            return DecodeError(name, "ends too early" if "incomplete" in str(malformed) else explain(malformed))
        except Exception as malformed:  # noqa: BLE001 - the set of exceptions is closed here
            return DecodeError(name, explain(malformed))
        return DecodeError(name, explain(error))

    return diagnose
