"""MessagePack: one array per message, fields in order, as many as the version has.

An enum is its number, a datetime an integer of microseconds since 1970, None is nil. Canonical are the shortest forms,
maps sorted by key, and one NaN. Two functions are generated per message type and version.

It is ``msgspec`` that writes and reads, the latter by type: a value that does not belong where it stands ends the
reading there, so neither depth nor claimed lengths cost anything. The ``msgpack`` package builds whatever it is sent,
of which 3 KB can take 80 MB, and is slower besides; the tests compare its bytes with ours.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import msgspec

from wireproto.codecs.base import Codec, M, Plan, element_refusal, explain
from wireproto.errors import DecodeError, EncodeError
from wireproto.limits import Limits
from wireproto.schema import Field, FieldType, Message, Scalar, compile_refusal, fields, inline_refusal, reachable
from wireproto.schema.generated import compile_source, source_title
from wireproto.schema.refusal import Refused

__all__ = ["MsgpackCodec"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_Described = dict[type[Message], tuple[Field, ...]]


class MsgpackCodec(Codec):
    """MessagePack by the ``msgspec`` package."""

    name = "msgpack"
    id = 2

    def compile(self, message_type: type[M], version: int, limits: Limits, *, request: bool) -> Plan[M]:
        """Generate the two functions. ``limits.max_elements`` holds for every list and map."""
        source = _MsgpackSource(message_type, version)
        refuse_long = element_refusal(message_type, version, limits.max_elements)
        before, names = inline_refusal(message_type, version, request=request, error="EncodeError")
        read = source.read(message_type)
        after, more = inline_refusal(
            message_type, version, request=request, error="DecodeError", made=True, held=bool(read["unpacked"])
        )
        namespace: dict[str, object] = {
            "DecodeError": DecodeError,
            "EncodeError": EncodeError,
            "NAN": math.nan,
            "refuse_wrong": compile_refusal(message_type, version, request=request),
            "refuse_long": refuse_long,
            "Refused": Refused,
            "each": _each,
            "each_value": _each_value,
            "explain": explain,
            "failed": _failure(message_type, source.fields),
            "instant": _instant,
            "microseconds": _microseconds,
            "pack": msgspec.msgpack.Encoder().encode,
            "real": _real,
            "unpack": msgspec.msgpack.Decoder(source.wire_type(message_type)).decode,
            **names,
            **more,
            **source.names,
        }
        text = source.nested() + _PLAN.format(
            name=message_type.__name__,
            written=source.written(message_type, held=True),
            refuse_to_encode="\n        ".join(before),
            refuse_to_decode="\n        ".join(after),
            **read,
            refuse_long_to_encode="refuse_long(message, EncodeError)" if refuse_long else "",
            refuse_long_to_decode="refuse_long(message, DecodeError)" if refuse_long else "",
        )
        title = source_title(self.name, message_type, version, request=request, most=limits.max_elements)
        made = compile_source(title, text, namespace)
        return Plan(made["encode"], made["decode"])


# The generated code ---------------------------------------------------------------------------------------------

_PLAN = """
def encode(message):
    try:
        {refuse_to_encode}
        {refuse_long_to_encode}
        return pack({written})
    except EncodeError:
        raise
    except Exception as error:
        raise EncodeError("{name}", explain(error)) from None


def decode(payload):
    at = ""
    try:
        value = unpack(payload)
        {unpacked}
        {values}
        message = {made}
        {refuse_to_decode}
        {refuse_long_to_decode}
        return message
    except DecodeError:
        raise
    except Exception as error:
        raise failed(error, at) from None
"""

_WRITER = """
def write_{label}(message):
    return {written}
"""

_READER = """
def read_{label}(value):
    at = ""
    try:
        {unpacked}
        {values}
        return {made}
    except Refused as refused:
        refused.path = at + refused.path
        raise
"""


class _MsgpackSource:
    """The generated code for one message type and those nested in it: ``write_X`` and ``read_X`` for each.

    Messages that msgspec writes or reads as they are need no function, and then lists of them no loop.
    """

    def __init__(self, message_type: type[Message], version: int) -> None:
        self.fields = {cls: fields(cls, version) for cls in reachable([message_type], version)}
        # Numbered, since two classes of one name may meet where no service has looked at them.
        self.labels = {cls: f"{cls.__name__}_{index}" for index, cls in enumerate(self.fields)}
        self.names: dict[str, object] = {label: cls for cls, label in self.labels.items()}
        for cls, own in self.fields.items():
            for field in own:
                if field.type.key is not None:
                    self.names[self._map_reader(cls, field)] = _map_reader(self, field.type)

    def nested(self) -> str:
        """The functions for nested messages."""
        _, *nested = self.fields
        writers = [_WRITER.format(label=self.labels[cls], written=self.written(cls)) for cls in nested]
        return "".join([*writers, *(_READER.format(label=self.labels[cls], **self.read(cls)) for cls in nested)])

    # Writing

    def written(self, cls: type[Message], *, held: bool = False) -> str:
        """The expression that msgspec is to write for ``message``; when held, the fields are in ``f1``, ``f2``, ..."""
        if self._written_as_is(cls):
            return "message"
        items = [
            self._written_field(field, f"f{field.number}" if held else f"message.{field.name}")
            for field in self.fields[cls]
        ]
        return f"({''.join(f'{item}, ' for item in items)})"

    def _written_as_is(self, cls: type[Message]) -> bool:
        """Whether msgspec, which writes all fields of the class as an array, writes what is wanted."""
        own = self.fields[cls]
        return len(own) == len(cls.__struct_fields__) and all(
            field.type.shape != "map" and self._written_item(field.type) == "x" for field in own
        )

    def _written_field(self, field: Field, value: str) -> str:
        item = self._written_item(field.type)
        if field.type.shape == "map":
            return f"{{k: {item} for k, x in sorted({value}.items())}}"
        if item == "x":
            return value
        if field.type.shape == "list":
            return f"[{item} for x in {value}]"
        if field.type.optional:
            return f"None if (x := {value}) is None else {item}"
        return self._written_item(field.type, value)

    def _written_item(self, kind: FieldType, x: str = "x") -> str:
        """How a value is handed to msgspec, which turns an IntEnum into its number by itself."""
        match kind.scalar:
            case Scalar.FLOAT:
                return f"{x} if {x} == {x} else NAN"
            case Scalar.DATETIME:
                return f"microseconds({x})"
            case Scalar.MESSAGE if not self._written_as_is(_class(kind)):
                return f"write_{self.labels[_class(kind)]}({x})"
            case _:
                return x

    # Reading

    def wire_type(self, cls: type[Message]) -> Any:
        """The type that msgspec is to read: a tuple of exactly as many items as the version has fields."""
        if self._read_as_is(cls):
            return cls
        return _Tuple[tuple(self._wire_field(field.type) for field in self.fields[cls])]

    def _read_as_is(self, cls: type[Message]) -> bool:
        """Whether msgspec itself makes the message, and of nothing but exactly its fields.

        It would take less where there are defaults, and an int that no float equals for a float.
        """
        own = self.fields[cls]
        return len(own) == len(cls.__struct_fields__) and all(
            field.required and field.type.shape != "map" and self._reader(field.type) is None for field in own
        )

    def _wire_field(self, kind: FieldType) -> Any:
        if kind.shape == "map":
            return msgspec.Raw  # for _map_reader
        item = self.wire_item(kind)
        if kind.shape == "list":
            return _List[item]
        return item | None if kind.optional else item

    def wire_item(self, kind: FieldType) -> Any:
        match kind.scalar:
            case Scalar.MESSAGE:
                return self.wire_type(_class(kind))
            case Scalar.ENUM:
                return _class(kind)
            case _:
                return _WIRE_TYPES[kind.scalar]

    def read(self, cls: type[Message]) -> dict[str, str]:
        """The parts of the code that makes a message of ``value``; ``at`` is the field that is being made."""
        own = self.fields[cls]
        if self._read_as_is(cls) or not own:
            return {"unpacked": "", "values": "", "made": "value" if own else f"{self.labels[cls]}()"}
        lines = [
            f'at = ".{field.name}"; f{field.number} = {made}'
            for field in own
            if (made := self._read_field(cls, field)) is not None
        ]
        return {
            "unpacked": f"{', '.join(f'f{field.number}' for field in own)}, = value",
            "values": "\n        ".join(lines),
            "made": f"{self.labels[cls]}({', '.join(f'{field.name}=f{field.number}' for field in own)})",
        }

    def _read_field(self, cls: type[Message], field: Field) -> str | None:
        """What makes the field of what msgspec gave; None if there is nothing to make."""
        kind, value, reader = field.type, f"f{field.number}", self._reader(field.type)
        if kind.shape == "map":
            found = f"{self._map_reader(cls, field)}({value})"
            return found if reader is None else f"each_value({reader}, {found})"
        if reader is None:
            return None
        if kind.shape == "list":
            return f"each({reader}, {value})"
        if kind.scalar is Scalar.FLOAT and not kind.optional:
            return f"{value} if type({value}) is float else {reader}({value})"
        return f"None if {value} is None else {reader}({value})" if kind.optional else f"{reader}({value})"

    def _reader(self, kind: FieldType) -> str | None:
        """The function that makes a value of what msgspec gave; None if that is the value."""
        match kind.scalar:
            case Scalar.FLOAT:
                return "real"
            case Scalar.DATETIME:
                return "instant"
            case Scalar.MESSAGE if not self._read_as_is(_class(kind)):
                return f"read_{self.labels[_class(kind)]}"
            case _:
                return None

    def _map_reader(self, cls: type[Message], field: Field) -> str:
        return f"map_{self.labels[cls]}_{field.name}"


# For types that are made at run time, where a checker wants to read them.
_Tuple: Any = tuple
_List: Any = list
_Dict: Any = dict

_WIRE_TYPES: Final[dict[Scalar, Any]] = {
    Scalar.BOOL: bool,
    Scalar.INT: int,
    Scalar.UINT: int,
    Scalar.FLOAT: int | float,
    Scalar.STR: str,
    Scalar.BYTES: bytes,
    Scalar.DATETIME: int,
}


def _class(kind: FieldType) -> type[Any]:
    """The enum or message class of a field type that has one."""
    return cast(type[Any], kind.cls)


# What the generated code calls ----------------------------------------------------------------------------------


def _each(read: Callable[[Any], object], values: list[Any]) -> list[Any]:
    # In place, so that what was read makes room for what is made of it.
    index = 0
    try:
        for index, value in enumerate(values):
            values[index] = read(value)
    except Refused as refused:
        refused.path = f"[{index}]{refused.path}"
        raise
    return values


def _each_value(read: Callable[[Any], object], found: dict[Any, Any]) -> dict[Any, Any]:
    number = 0
    try:
        for number, (key, value) in enumerate(found.items()):  # noqa: B007 - used when this fails
            found[key] = read(value)
    except Refused as refused:
        # Keys are values, too: the path counts entries instead of naming them.
        refused.path = f"[#{number}]{refused.path}"
        raise
    return found


def _real(value: float) -> float:
    """A float, or an int that equals one: JavaScript writes 1.0 as 1."""
    number = float(value)
    if number != value and type(value) is int:
        raise Refused("is an int that no float equals")
    return number


def _microseconds(value: datetime) -> int:
    since = value - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _instant(value: int) -> datetime:
    try:
        return _EPOCH + value * _MICROSECOND
    except OverflowError:
        raise Refused("is not within the years 1 to 9999") from None


def _map_reader(source: _MsgpackSource, kind: FieldType) -> Callable[[msgspec.Raw], dict[Any, Any]]:
    """A function that reads a map and notices when the same key is in it twice, which msgspec does not."""
    key: Any = str if kind.key is Scalar.STR else int
    decode = msgspec.msgpack.Decoder(_Dict[key, source.wire_item(kind)]).decode

    def read(raw: msgspec.Raw) -> dict[Any, Any]:
        try:
            found: dict[Any, Any] = decode(raw)
        except msgspec.ValidationError:
            raise refusal(raw) from None
        head = memoryview(raw)[:5]
        claimed = head[0] & 0x0F if head[0] <= 0x8F else int.from_bytes(head[1 : 3 if head[0] == 0xDE else 5])
        if len(found) != claimed:
            raise Refused("has the same key twice")
        return found

    def refusal(raw: msgspec.Raw) -> Refused:
        """Read it once more, entry by entry, to say which one it is."""
        try:
            values = msgspec.msgpack.decode(raw, type=_Dict[key, msgspec.Raw]).values()
        except msgspec.ValidationError as error:
            if "`key`" not in str(error):
                return _located(error, kind, source.fields)
            problem = _located(error, FieldType("single", kind.key or Scalar.STR), source.fields).problem
            return Refused(f"the key {problem}")
        for number, value in enumerate(values):
            try:
                msgspec.msgpack.decode(value, type=source.wire_item(kind))
            except msgspec.ValidationError as error:
                refused = _located(error, kind.element, source.fields)
                return Refused(refused.problem, f"[#{number}]{refused.path}")
        return Refused("has the same key twice, and one value is wrong")

    return read


# Errors on their way out ----------------------------------------------------------------------------------------

_steps = re.compile(r"\[(\d+)\]").findall


def _located(error: msgspec.ValidationError, kind: FieldType, described: _Described) -> Refused:
    """What msgspec says about a value of that type, in our words: it counts fields, and it may quote a number."""
    problem, _, place = str(error).partition(" - at ")
    path = ""
    for step in map(int, _steps(place)):
        if kind.shape == "list":
            path, kind = f"{path}[{step}]", kind.element
        else:
            field = described[_class(kind)][step]
            path, kind = f"{path}.{field.name}", field.type
    found = problem.rpartition("got ")[2].strip("`")
    if "enum" in problem:
        return Refused(
            f"is no number of {kind.element}; it has {', '.join(str(int(each)) for each in _class(kind))}", path
        )
    if "length" in problem:
        return Refused(f"has {found} fields, not {len(described[_class(kind)])}", path)
    wire = ", an int of microseconds" if kind.scalar is Scalar.DATETIME and kind.shape == "single" else ""
    return Refused(f"is {found}, not {kind}{wire}", path)


def _failure(message_type: type[Message], described: _Described) -> Callable[[Exception, str], DecodeError]:
    name = message_type.__name__
    whole = FieldType("single", Scalar.MESSAGE, cls=message_type)

    def failed(error: Exception, at: str) -> DecodeError:
        if isinstance(error, msgspec.ValidationError):
            error, at = _located(error, whole, described), ""
        if isinstance(error, Refused):
            return DecodeError(f"{name}{at}{error.path}", error.problem)
        if isinstance(error, msgspec.DecodeError):
            text = str(error)
            if "trailing" in text:
                return DecodeError(name, "has bytes behind its end")
            return DecodeError(name, "ends too early" if "truncated" in text else "is not MessagePack")
        return DecodeError(name, explain(error))

    return failed
