"""What a codec is: a name, an id, and a pair of functions per message type and version."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from wireproto import schema
from wireproto.errors import CodecError, DecodeError, EncodeError
from wireproto.schema.refusal import Refuse

if TYPE_CHECKING:
    from wireproto.limits import Limits

__all__ = ["Codec", "Plan", "PlainCodec", "checked_plan", "element_refusal", "explain"]

M = TypeVar("M", bound=schema.Message)


class Plan(Generic[M]):
    """How one message type is written and read in one codec, version and set of limits.

    Both functions may be called by any number of threads at once.

    Attributes:
        encode: message to payload. Raises ``EncodeError`` and nothing else.
        decode: payload to message. Raises ``DecodeError`` and nothing else, whatever the bytes.
    """

    __slots__ = ("decode", "encode")

    # Attributes and not methods: a call then costs one function, not a bound method around another function.
    encode: Callable[[M], bytes]
    decode: Callable[[bytes], M]

    def __init__(self, encode: Callable[[M], bytes], decode: Callable[[bytes], M]) -> None:
        self.encode = encode
        self.decode = decode


class Codec(abc.ABC):
    """A way to write messages as bytes.

    A subclass has a ``name``, an ``id`` and ``compile``; ``checked_plan`` gives the last one its closed set of
    exceptions. For a format that has lists and strings of its own, `PlainCodec` is less to write. Instances hold
    nothing but compiled plans and are shared by all threads.

    Attributes:
        name: what users write: ``[a-z][a-z0-9_-]*``, at most 32 characters.
        id: the number in the frame's header: 1 to 127 are the framework's, 128 to 255 anybody's.
    """

    name: ClassVar[str]
    id: ClassVar[int]

    def __init__(self) -> None:
        self._plans: dict[tuple[object, ...], Plan[Any]] = {}

    def plan(self, message_type: type[M], version: int, limits: "Limits", *, request: bool = True) -> Plan[M]:
        """The plan for ``message_type``, compiled on first use and kept for the life of the codec.

        Args:
            message_type: the class of the messages.
            version: the service version to write and read, 1 to 255.
            limits: of these, ``max_elements`` and ``max_frame`` are about payloads; plans differ by those two only.
            request: what to do with a value the version has no field for: refuse it in a request, unless the field
                is declared ignorable; leave it out of a response or stream item.
        """
        key = (message_type, version, request, limits.max_elements, limits.max_frame)
        plan = self._plans.get(key)
        if plan is None:
            # Two threads may both compile; the plans are equal, and the last one stays.
            plan = self._plans[key] = self.compile(message_type, version, limits, request=request)
        return plan

    @abc.abstractmethod
    def compile(self, message_type: type[M], version: int, limits: "Limits", *, request: bool) -> Plan[M]:
        """Make the plan; called once per combination of arguments, never at the same time as it is used."""

    def __repr__(self) -> str:
        return f"<codec {self.name}, id {self.id}>"


class PlainCodec(Codec):
    """A codec over a format for nested lists, dicts and plain values, like JSON: two functions and it is done.

    A message is a list of its fields in order, as `wireproto.schema.to_plain` makes it. Types, ranges and limits are
    checked on both sides of the two functions, and whatever these raise is translated.
    """

    @abc.abstractmethod
    def dumps(self, value: list[Any]) -> bytes:
        """Write lists, dicts with str or int keys, str, bytes, int, float, bool and None. Equal values, equal bytes."""

    @abc.abstractmethod
    def loads(self, payload: bytes) -> object:
        """Read what ``dumps`` wrote, and raise anything for bytes behind the end and for the same key twice."""

    def compile(self, message_type: type[M], version: int, limits: "Limits", *, request: bool) -> Plan[M]:
        """Put `to_plain` before ``dumps``, `from_plain` behind ``loads``, and the checks around them."""

        def encode(message: M) -> bytes:
            return self.dumps(schema.to_plain(message, version))

        def decode(payload: bytes) -> M:
            return schema.from_plain(message_type, self.loads(payload), version)

        return checked_plan(message_type, version, limits, encode, decode, request=request)


def checked_plan(
    message_type: type[M],
    version: int,
    limits: "Limits",
    encode: Callable[[M], bytes],
    decode: Callable[[bytes], M],
    *,
    request: bool,
) -> Plan[M]:
    """A plan around two plain functions, for codecs over a format that somebody else's library speaks.

    What the declaration demands is checked before ``encode`` and after ``decode``, and the limit on elements, too.
    Whatever the two functions raise comes out as ``EncodeError`` or ``DecodeError``.
    """
    refuse_wrong = schema.compile_refusal(message_type, version, request=request)
    refuse_long = element_refusal(message_type, version, limits.max_elements)
    name = message_type.__name__

    def checked_encode(message: M) -> bytes:
        try:
            refuse_wrong(message, EncodeError)
            if refuse_long is not None:
                refuse_long(message, EncodeError)
            return encode(message)
        except EncodeError:
            raise
        except Exception as error:  # noqa: BLE001 - the set is closed here, whatever the format's library raises
            raise EncodeError(name, explain(error)) from None

    def checked_decode(payload: bytes) -> M:
        try:
            message = decode(payload)
            refuse_wrong(message, DecodeError)
            if refuse_long is not None:
                refuse_long(message, DecodeError)
        except DecodeError:
            raise
        except Exception as error:  # noqa: BLE001 - ... or lets a payload provoke
            raise DecodeError(name, explain(error)) from None
        return message

    return Plan(checked_encode, checked_decode)


def explain(error: Exception) -> str:
    """What went wrong, for a peer to read: never the text of ``error``, which may quote the payload."""
    if isinstance(error, CodecError):
        return error.problem
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "has a surrogate, which UTF-8 cannot write"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, MemoryError):
        return "does not fit in memory"
    return f"is malformed ({type(error).__name__})"


def element_refusal(message_type: type[schema.Message], version: int, most: int) -> Refuse | None:
    """A function that refuses lists and maps of more than ``most`` elements; None when the type has neither.

    It is for messages that the compiled refusal let pass, and called like it.
    """
    find = _overlong(message_type, version, most)
    if find is None:
        return None

    def refuse(message: schema.Message, error: type[CodecError]) -> None:
        where = find(message)
        if where:
            raise error(message_type.__name__ + where, f"has more than {most} elements")

    return refuse


def _overlong(message_type: type[schema.Message], version: int, most: int) -> Callable[[Any], str] | None:
    """A function that finds the first container that is too long: its path within the message, or ""."""
    counted: list[str] = []
    nested: list[tuple[str, str, Callable[[Any], str]]] = []
    for field in schema.fields(message_type, version):
        if field.type.shape != "single":
            counted.append(field.name)
        if field.type.scalar is schema.Scalar.MESSAGE and field.type.cls is not None:
            inner = _overlong(field.type.cls, version, most)
            if inner is not None:
                nested.append((field.name, field.type.shape, inner))
    if not counted and not nested:
        return None

    def find(message: Any) -> str:
        for name in counted:
            if len(getattr(message, name)) > most:
                return f".{name}"
        for name, shape, inner in nested:
            value = getattr(message, name)
            if shape == "single":
                where = "" if value is None else inner(value)
                if where:
                    return f".{name}{where}"
                continue
            mark = "#" if shape == "map" else ""
            for number, element in enumerate(value.values() if shape == "map" else value):
                where = inner(element)
                if where:
                    return f".{name}[{mark}{number}]{where}"
        return ""

    return find
