"""Protobuf, by the official runtime over descriptors made in memory from the declared messages.

A stock protobuf client that has the rendered ``.proto`` reads and writes the same bytes. In here each message type is
read and written through private views of its descriptor, equal on the wire, that differ from it in three things:

- Enums and the nanoseconds of a timestamp are int64. In 32-bit fields the runtime cuts 2**32 + 1 to 1 in silence.
- To write, a map is what it is on the wire, a list of key-value messages. The order that the runtime calls
  deterministic is not that of the keys, and is promised for one release of it only; canonical is by key, ascending.
- A timestamp is a message of the view's own: the class that the runtime gives the well-known one is slow to use.

What protobuf asks of every reader holds here, too: of a plain field that is there twice the last one counts, a message
that is there twice is merged, a map's later entry wins, a key or value that its entry lacks is zero or empty, and any
integer but 0 is true. Everything else that is not as declared is refused: unknown fields, known ones in another wire
type, unknown enum numbers, text that is not UTF-8, bytes that are missing or left over.

Two functions are generated per message type and version.
"""

import functools
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, cast

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError as RuntimeDecodeError
from google.protobuf.message import Message as RuntimeMessage
from google.protobuf.unknown_fields import UnknownFieldSet

from wireproto.codecs.base import Codec, M, Plan, element_refusal, explain
from wireproto.errors import ConfigError, DecodeError, EncodeError
from wireproto.limits import Limits
from wireproto.protos.descriptor import TIMESTAMP, message_file, pool_for
from wireproto.schema import Field, Message, Scalar, compile_refusal, fields, inline_refusal, reachable
from wireproto.schema.generated import compile_source, source_title

__all__ = ["ProtobufCodec"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
"""0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, which google.protobuf.Timestamp ends with, too."""

_SMALL: Final = 4096
"""Bytes of payload up to which unknown fields are looked at one by one; 64 KiB of them take 8 ms that way, or 0.5."""

_PACKAGE: Final = "view"
_TIMESTAMP: Final = "timestamp"
"""The view's own message; in lower case, so that no declared message has its name."""


class ProtobufCodec(Codec):
    """Protobuf, proto3, by the official runtime.

    Raises:
        ConfigError: the runtime is not the one in C.
    """

    name = "protobuf"
    id = 3

    def __init__(self) -> None:
        super().__init__()
        # The pure-Python runtime takes ten times as long, and what it refuses is not the same.
        runtime = api_implementation.Type()
        if runtime != "upb":
            raise ConfigError(
                f"the protobuf codec needs the protobuf runtime 'upb' and found {runtime!r}; install protobuf from a "
                "binary wheel, and leave PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION unset"
            )

    def compile(self, message_type: type[M], version: int, limits: Limits, *, request: bool) -> Plan[M]:
        """Generate the two functions. A list or map beyond ``limits.max_elements`` is refused before it is copied."""
        source = _ProtobufSource(message_type, version)
        written = _runtime_class(message_type, version, writing=True)
        read = _runtime_class(message_type, version, writing=False)
        refusals, names = inline_refusal(message_type, version, request=request, error="EncodeError")
        text = source.text(refusals)
        namespace: dict[str, object] = {
            **_CALLED,
            **names,
            **source.names,
            "refuse_wrong": compile_refusal(message_type, version, request=request),
            "diagnose": _diagnosis(message_type, version, limits.max_elements, read),
            "most": limits.max_elements,
            "new": written,
            "parse": read.FromString,
            "puzzled": _puzzlement(message_type, version, limits.max_elements),
            # Methods of the class, called with the message: looked up on a message they cost as much as they do.
            "discard": read.DiscardUnknownFields,
            "has": read.HasField,
            "serialize": written.SerializeToString,
            "size": read.ByteSize,
            "touch": written.SetInParent,
        }
        title = source_title(self.name, message_type, version, request=request, most=limits.max_elements)
        made = compile_source(title, text, namespace)
        return Plan(made["encode"], made["decode"])


# The private view ---------------------------------------------------------------------------------------------------


@functools.cache
def _runtime_class(message_type: type[Message], version: int, *, writing: bool) -> type[RuntimeMessage]:
    """The runtime's class for a message, in a pool of its own."""
    file = message_file([message_type], _PACKAGE, version)
    stamp = file.message_type.add(name=_TIMESTAMP)
    for number, name in enumerate(("seconds", "nanos"), 1):
        field = stamp.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
        field.type = FieldDescriptorProto.TYPE_INT64
    for message in file.message_type:
        for field in message.field:
            _widen(field)
        for entry in message.nested_type:
            for field in entry.field:
                _widen(field)
                if writing:
                    # A map's key and value are always written; plain fields would be left out when they are zero.
                    field.proto3_optional = True
                    field.oneof_index = len(entry.oneof_decl)
                    entry.oneof_decl.add(name=f"_{field.name}")
            if writing:
                entry.ClearField("options")
    pool = pool_for([file])
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{message_type.__name__}"))


def _widen(field: FieldDescriptorProto) -> None:
    if field.type == FieldDescriptorProto.TYPE_ENUM:
        field.type = FieldDescriptorProto.TYPE_INT64
        field.ClearField("type_name")
    elif field.type_name == TIMESTAMP:
        field.type_name = f".{_PACKAGE}.{_TIMESTAMP}"


# The generated code -------------------------------------------------------------------------------------------------

_PLAN = """
def encode(message):
    try:
        {refusals}
        m = new()
        {write}
        return serialize(m)
    except EncodeError:
        raise
    except Exception as error:
        raise puzzled(message, error) from None


def decode(payload):
    try:
        m = parse(payload)
        {read}
        {bounds}
        return message
    except Exception as error:
        raise diagnose(payload, error) from None
"""

_NESTED = """
def write_{label}(message, m):
    {write}


def read_{label}(m):
    {read}
    return message
"""

# Whatever is unknown in a message or anywhere inside it is gone after `discard`, and then the message is shorter.
_NO_UNKNOWN_INSIDE = ["length = size(m)", "discard(m)", "if size(m) != length:", "    refuse()"]
_NO_UNKNOWN = ["if unknown(m):", "    refuse()"]

_OWN_MESSAGE = (Scalar.MESSAGE, Scalar.DATETIME)


class _ProtobufSource:
    """The generated code for one message type and those nested in it.

    Messages of plain fields, which are most of those that come in lists, are read and written where they are used; each
    other nested type has a function to read it and one to write it.
    """

    def __init__(self, message_type: type[Message], version: int) -> None:
        self.root = message_type
        self.fields = {cls: fields(cls, version) for cls in reachable([message_type], version)}
        # Numbered, since two classes of one name may meet where no service has looked at them.
        self.labels = {cls: f"{cls.__name__}_{number}" for number, cls in enumerate(self.fields)}
        self.names: dict[str, object] = {label: cls for cls, label in self.labels.items()}
        every = [field for each in self.fields.values() for field in each]
        nested = [field.type.shape for field in every if field.type.scalar in _OWN_MESSAGE]
        # Looking for unknown fields in one message costs 0.14 us; all at once 0.35 us, and 0.1 us per message.
        self.one_by_one = len(nested) < 2 and "list" not in nested and "map" not in nested
        # The runtime gives exact types, integers of 64 bits and sound text, so only bounds are left to be checked.
        self.bounded = any(field.type.bounds or field.type.size for field in every)

    def text(self, refusals: list[str]) -> str:
        functions = (
            _NESTED.format(
                label=label,
                write="\n    ".join(self._write(cls, "message", "m")) or "pass",
                read="\n    ".join(self._read(cls)),
            )
            for cls, label in self.labels.items()
            if cls is not self.root and not self._is_plain(cls)
        )
        plan = _PLAN.format(
            write="\n        ".join(self._write(self.root, "message", "m")) or "pass",
            read="\n        ".join(self._read(self.root)),
            refusals="\n        ".join(refusals),
            bounds="refuse_wrong(message, DecodeError)" if self.bounded else "",
        )
        return "".join(functions) + plan

    def _is_plain(self, cls: type[Message]) -> bool:
        return all(field.type.shape == "single" and field.type.scalar not in _OWN_MESSAGE for field in self.fields[cls])

    # Writing: lines that assign to the runtime's message.

    def _write(self, cls: type[Message], source: str, target: str) -> Iterator[str]:
        for field in self.fields[cls]:
            yield from self._write_field(field, f"{source}.{field.name}", f"{target}.{field.name}")

    def _write_field(self, field: Field, value: str, target: str) -> Iterator[str]:
        kind = field.type
        if kind.shape == "single":
            if self._is_always_set(field):
                yield from self._write_item(field, value, target)
                return
            yield f"v = {value}"
            yield "if v is not None:" if kind.optional else "if v:"
            yield from (f"    {line}" for line in self._write_item(field, "v", target))
            return
        yield f"every = {value}"
        yield "if every:"
        yield "    if len(every) > most:"
        yield "        refuse()"
        if kind.key is not None:
            yield f"    add = {target}.add"
            yield "    for k in sorted(every):"
            yield "        entry = add()"
            yield "        entry.key = k"
            yield from (f"        {line}" for line in self._write_item(field, "every[k]", "entry.value"))
        elif kind.scalar in _OWN_MESSAGE:
            yield f"    add = {target}.add"
            yield "    for each in every:"
            yield from (f"        {line}" for line in self._write_message(field, "each", "add()"))
        elif kind.scalar is Scalar.FLOAT:
            yield f"    {target}.extend([v if v == v else NAN for v in every])"
        else:
            yield f"    {target}.extend(every)"

    def _write_item(self, field: Field, value: str, target: str) -> Iterator[str]:
        if field.type.scalar in _OWN_MESSAGE:
            yield from self._write_message(field, value, target)
            # To set a field of a message makes the message present; without any it has to be said.
            if field.type.scalar is Scalar.MESSAGE and not any(map(self._is_always_set, self.fields[_class(field)])):
                yield f"touch({target})"
        elif field.type.scalar is Scalar.FLOAT:
            yield f"v = {value}"
            yield f"{target} = v if v == v else NAN"
        else:
            yield f"{target} = {value}"

    def _write_message(self, field: Field, value: str, target: str) -> Iterator[str]:
        if field.type.scalar is Scalar.DATETIME:
            yield f"stamp({value}, {target})"
        elif self._is_plain(_class(field)):
            yield f"source = {value}"
            yield f"to = {target}"
            yield from self._write(_class(field), "source", "to")
        else:
            yield f"write_{self.labels[_class(field)]}({value}, {target})"

    def _is_always_set(self, field: Field) -> bool:
        """Whether the field is assigned whatever its value is."""
        if field.type.shape != "single" or field.type.optional:
            return False
        # The zero that is the default need not be written. But -0.0 need: it is no zero on the wire.
        return field.required or field.presence == "explicit" or field.type.scalar is Scalar.FLOAT

    # Reading: lines that make `message` of the runtime's `m`.

    def _read(self, cls: type[Message]) -> Iterator[str]:
        if cls is self.root:
            if self.one_by_one:
                yield f"if len(payload) > {_SMALL}:"
                yield from (f"    {line}" for line in _NO_UNKNOWN_INSIDE)
            else:
                yield from _NO_UNKNOWN_INSIDE
        if self.one_by_one:
            yield from _NO_UNKNOWN
        for field in self.fields[cls]:
            if field.type.shape != "single":
                yield f"all_{field.number} = m.{field.name}"
                yield f"if len(all_{field.number}) > most:"
                yield "    refuse()"
        arguments = ", ".join(f"{field.name}={self._read_field(cls, field, 'm')}" for field in self.fields[cls])
        yield f"message = {self.labels[cls]}({arguments})"

    def _read_field(self, cls: type[Message], field: Field, source: str) -> str:
        every = f"all_{field.number}"
        if field.type.key is not None:
            item = self._read_item(cls, field, f"{every}[k]")
            return f"dict({every})" if item == f"{every}[k]" else f"{{k: {item} for k in {every}}}"
        if field.type.shape == "list":
            item = self._read_item(cls, field, "each")
            return f"{every}[:]" if item == "each" else f"[{item} for each in {every}]"
        item = self._read_item(cls, field, f"{source}.{field.name}")
        if field.presence == "implicit" and field.type.scalar not in _OWN_MESSAGE:
            return item
        absent = "refuse()"
        if field.presence == "explicit":
            absent = f"default_{self.labels[cls]}_{field.name}"
            self.names[absent] = None if field.type.optional else field.default
        return f"{item} if has({source}, {field.name!r}) else {absent}"

    def _read_item(self, cls: type[Message], field: Field, value: str) -> str:
        scalar = field.type.scalar
        if scalar is Scalar.DATETIME:
            return f"{'lone_' if self.one_by_one else ''}instant({value})"
        if scalar is Scalar.MESSAGE:
            return self._read_message(_class(field), value)
        if scalar is Scalar.ENUM:
            members = f"members_{self.labels[cls]}_{field.name}"
            self.names[members] = {int(member): member for member in _class(field)}
            return f"{members}[{value}]"
        return value

    def _read_message(self, cls: type[Message], value: str) -> str:
        label = self.labels[cls]
        if not self._is_plain(cls):
            return f"read_{label}({value})"
        source = value if value == "each" else "inner"
        arguments = ", ".join(f"{field.name}={self._read_field(cls, field, source)}" for field in self.fields[cls])
        if self.one_by_one:
            return f"({label}({arguments}) if not unknown(inner := {value}) else refuse())"
        return f"{label}({arguments})" if source == value else f"(inner := {value}, {label}({arguments}))[1]"


def _class(field: Field) -> type[Any]:
    """The enum or message class of a field that has one."""
    return cast(type[Any], field.type.cls)


# What the generated code calls --------------------------------------------------------------------------------------


class _LeftFastPath(Exception):
    """Ends the fast path; `_diagnosis` then finds out where and why."""


def _refuse() -> NoReturn:
    raise _LeftFastPath


def _stamp(value: datetime, m: Any) -> None:
    since = value - _EPOCH
    m.seconds = since.days * 86_400 + since.seconds
    m.nanos = since.microseconds * 1000


def _instant(m: Any) -> datetime:
    """Cut to the microsecond: Go, Java and C# write the nanoseconds of their clocks."""
    nanos = m.nanos
    if not 0 <= nanos < 1_000_000_000:
        _refuse()
    return _EPOCH + timedelta(seconds=m.seconds, microseconds=nanos // 1000)


def _lone_instant(m: Any) -> datetime:
    if UnknownFieldSet(m):
        _refuse()
    return _instant(m)


_CALLED: Final[dict[str, object]] = {
    "DecodeError": DecodeError,
    "EncodeError": EncodeError,
    "NAN": math.nan,
    "instant": _instant,
    "lone_instant": _lone_instant,
    "refuse": _refuse,
    "stamp": _stamp,
    "unknown": UnknownFieldSet,
}


# What stopped the fast path -----------------------------------------------------------------------------------------


def _puzzlement(message_type: type[Message], version: int, most: int) -> Callable[[Message, Exception], EncodeError]:
    """A function that turns whatever stopped a writer into an error with a path."""
    refuse_long = element_refusal(message_type, version, most)

    def puzzled(message: Message, error: Exception) -> EncodeError:
        try:
            if refuse_long is not None:
                refuse_long(message, EncodeError)
        except EncodeError as refused:
            return refused
        return EncodeError(message_type.__name__, explain(error))

    return puzzled


def _diagnosis(
    message_type: type[Message], version: int, most: int, runtime: type[RuntimeMessage]
) -> Callable[[bytes, Exception], DecodeError]:
    """A function that turns whatever stopped a reader into an error with a path, by reading again, slowly."""
    name = message_type.__name__

    def diagnose(payload: bytes, error: Exception) -> DecodeError:
        if isinstance(error, DecodeError):
            return error
        try:
            m = runtime.FromString(payload)
            size = m.ByteSize()
            m.DiscardUnknownFields()
            if m.ByteSize() == size:
                found = _problems(m, message_type, version, most, name)
            elif len(payload) <= _SMALL:
                found = _unknown_fields(runtime.FromString(payload), message_type, version, name)
            else:
                found = iter(())
                error = DecodeError(name, "has unknown fields, or known ones of another wire type")
            for path, problem in found:
                return DecodeError(path, problem)
        except Exception as malformed:  # noqa: BLE001 - the set is closed here, whatever the runtime raises
            if "UTF-8" in str(malformed):
                return DecodeError(name, "has a str that is not UTF-8")
            if isinstance(malformed, RuntimeDecodeError):
                return DecodeError(name, "is cut short, or is no protobuf")
            return DecodeError(name, explain(malformed))
        return DecodeError(name, explain(error))

    return diagnose


def _items(value: Any, field: Field, path: str) -> Iterator[tuple[str, Any]]:
    """What a field holds, each with its path. Keys may be secrets, so a map's entries are counted."""
    if field.type.key is not None:
        return ((f"{path}[#{number}]", value[key]) for number, key in enumerate(value))
    if field.type.shape == "list":
        return ((f"{path}[{number}]", each) for number, each in enumerate(value))
    return iter([(path, value)])


def _is_absent(m: Any, field: Field) -> bool:
    return m.DESCRIPTOR.fields_by_name[field.name].has_presence and not m.HasField(field.name)


def _problems(m: Any, cls: type[Message], version: int, most: int, path: str) -> Iterator[tuple[str, str]]:
    """What a reader refuses in a message without unknown fields: paths and problems, from left to right."""
    for field in fields(cls, version):
        scalar, where = field.type.scalar, f"{path}.{field.name}"
        value = getattr(m, field.name)
        if _is_absent(m, field):
            if field.presence == "implicit":
                yield where, "is absent"
        elif field.type.shape != "single" and len(value) > most:
            yield where, f"has more than {most} elements"
        elif scalar is Scalar.MESSAGE:
            for at, item in _items(value, field, where):
                yield from _problems(item, _class(field), version, most, at)
        elif scalar is Scalar.DATETIME:
            for at, item in _items(value, field, where):
                if problem := _stamp_problem(item.seconds, item.nanos):
                    yield at, problem
        elif scalar is Scalar.ENUM:
            members = sorted(int(member) for member in _class(field))
            if value == 0 and field.presence == "implicit":
                yield where, "is absent"
            for at, item in _items(value, field, where):
                if item not in members:
                    yield at, f"is no number of {_class(field).__name__}; it has {', '.join(map(str, members))}"


def _stamp_problem(seconds: int, nanos: int) -> str | None:
    if not 0 <= nanos < 1_000_000_000:
        return "has nanoseconds that are not within 0 to 999999999"
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        return "is not within the years 1 to 9999"
    return None


def _unknown_fields(m: Any, cls: type[Message], version: int, path: str) -> Iterator[tuple[str, str]]:
    """Where a message or one inside it has unknown fields."""
    yield from _unknown(m, path)
    for field in fields(cls, version):
        if field.type.scalar in _OWN_MESSAGE and not _is_absent(m, field):
            for at, item in _items(getattr(m, field.name), field, f"{path}.{field.name}"):
                if field.type.scalar is Scalar.MESSAGE:
                    yield from _unknown_fields(item, _class(field), version, at)
                else:
                    yield from _unknown(item, at)


def _unknown(m: Any, path: str) -> Iterator[tuple[str, str]]:
    found = UnknownFieldSet(m)
    for each in (found[at] for at in range(len(found))):
        known = m.DESCRIPTOR.fields_by_number.get(each.field_number)
        if known is None:
            yield path, f"has an unknown field, number {each.field_number}"
        elif known.message_type is not None and known.message_type.GetOptions().map_entry:
            yield f"{path}.{known.name}", "has an entry with an unknown field, or with a key or value of another type"
        else:
            yield f"{path}.{known.name}", f"has wire type {each.wire_type}, which is not that of its type"
