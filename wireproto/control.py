"""The framework's own service, which belongs to every connection: health, reflection and echo.

Its opcodes are 0xF000 to 0xF002. ``describe`` turns a declared service into the message that ``Describe`` answers, and
``declare`` turns that message back into a service, so that a client can call what it has never seen the source of.
"""

import enum
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import new_class
from typing import Annotated, Any, Final

from wireproto.codecs.pipe_values import read_value, write_value
from wireproto.errors import DeclarationError, DecodeError
from wireproto.schema import (
    Bounds,
    DuplexMethod,
    Field,
    FieldType,
    Message,
    Method,
    OneWayMethod,
    Operation,
    Scalar,
    Service,
    Since,
    StreamMethod,
    UInt64,
    UploadMethod,
    fields,
    reachable,
)
from wireproto.wire.frame import FIRST_FRAMEWORK_OPCODE

__all__ = [
    "CHECK",
    "CONTROL",
    "DESCRIBE",
    "ECHO",
    "SHAPE_WORDS",
    "CheckRequest",
    "CheckResponse",
    "Container",
    "DescribeRequest",
    "DescribeResponse",
    "EchoRequest",
    "EchoResponse",
    "EnumDescription",
    "FieldDescription",
    "Health",
    "MessageDescription",
    "MethodDescription",
    "MethodShape",
    "ServiceDescription",
    "ValueKind",
    "declare",
    "describe",
]


class Health(enum.IntEnum):
    """Whether a service takes calls."""

    SERVING = 1
    NOT_SERVING = 2


class CheckRequest(Message):
    """Asks for the health of one service, or of the whole server when ``service`` is empty."""

    service: str = ""


class CheckResponse(Message):
    """The answer, with the server's name and version as its operator set it."""

    health: Health
    server: str = ""


class MethodShape(enum.IntEnum):
    """How many messages go which way."""

    UNARY = 1
    SERVER_STREAM = 2
    UPLOAD = 3
    DUPLEX = 4
    ONE_WAY = 5


_KINDS: Final[Mapping[MethodShape, type[Operation[Any, Any]]]] = {
    MethodShape.UNARY: Method,
    MethodShape.SERVER_STREAM: StreamMethod,
    MethodShape.UPLOAD: UploadMethod,
    MethodShape.DUPLEX: DuplexMethod,
    MethodShape.ONE_WAY: OneWayMethod,
}
_SHAPES: Final = {kind.shape: shape for shape, kind in _KINDS.items()}

SHAPE_WORDS: Final[Mapping[MethodShape, str]] = {shape: kind.shape.value for shape, kind in _KINDS.items()}
"""The word for each shape: ``unary``, ``stream``, ``upload``, ``duplex``, ``oneway``."""


class Container(enum.IntEnum):
    """How many values a field holds."""

    SINGLE = 1
    LIST = 2
    MAP = 3


class ValueKind(enum.IntEnum):
    """What a value, a list's element or a map's value is: the closed set of docs/values.md."""

    BOOL = 1
    INT = 2
    UINT = 3
    FLOAT = 4
    STR = 5
    BYTES = 6
    DATETIME = 7
    ENUM = 8
    MESSAGE = 9


class FieldDescription(Message, kw_only=True):
    """One field of a message."""

    number: int
    """Its position in pipe and msgpack and its tag in protobuf, from 1."""
    name: str
    container: Container
    kind: ValueKind
    key: ValueKind | None = None
    """STR or INT for a map, else absent."""
    type_name: str = ""
    """The message or enum, when ``kind`` is one of these."""
    optional: bool = False
    """Whether it may be absent (None)."""
    required: bool
    default: str = ""
    """As the codec pipe writes it, when the field is not required; empty when it is."""
    since: int
    ignorable: bool = False
    ge: str = ""
    """As the codec pipe writes it, because the bounds of 64-bit integers do not fit a float; empty for none. The same
    for ``le``."""
    le: str = ""
    min_length: int | None = None
    """Characters of a str or bytes of bytes."""
    max_length: int | None = None
    min_size: int | None = None
    """Elements of a list or map."""
    max_size: int | None = None


class MessageDescription(Message):
    """One message type."""

    name: str
    fields: list[FieldDescription]
    doc: str = ""


class EnumDescription(Message):
    """One enumeration."""

    name: str
    members: dict[str, int]
    doc: str = ""


class MethodDescription(Message):
    """One row of the opcode table."""

    opcode: Annotated[int, Bounds(ge=0, le=0xFFFF)]
    name: str
    shape: MethodShape
    request: str
    response: str
    """The type of the answer, or of each item of a stream."""
    since: int
    until: int | None = None
    """The last version that has it."""
    requires: str | None = None
    """The capability its caller needs."""
    reasons: list[str] = []
    idempotent: bool = False
    timeout_ms: int | None = None
    """The most time that a call gets, 1 or more."""
    max_request: int | None = None
    """Bytes of payload."""
    doc: str = ""
    by_server: bool = False
    """Whether the server calls it, and its client answers."""
    errors: list[str] = []
    """The messages that its errors may have as details."""
    compress: bool = False
    """Its messages may travel packed, where both sides have agreed on how."""
    resumable: str = ""
    """The field of an item that holds its position; empty for a method whose calls always begin anew."""
    drains: bool = False
    """Its streams go on while the server drains, those without an end of their own, too."""
    slow: str = ""
    """What becomes of a caller that does not take its items in time: ``drop_oldest`` or ``end``; empty where the source
    waits for it."""


class ServiceDescription(Message):
    """One service with everything that its calls need."""

    full_name: str
    version: int
    """The newest."""
    methods: list[MethodDescription]
    messages: list[MessageDescription]
    enums: list[EnumDescription]
    oldest: int
    """The oldest version that is spoken; all from it to the newest are."""


class DescribeRequest(Message):
    """Asks for one service by its full name, or for all that the server hosts when ``service`` is empty."""

    service: str = ""


class DescribeResponse(Message):
    """The services asked for; the control service itself is not among them unless it was named."""

    server: str
    services: list[ServiceDescription]


class EchoRequest(Message):
    """Bytes to be sent back."""

    payload: bytes = b""


class EchoResponse(Message):
    """The bytes of the request."""

    payload: bytes = b""


CHECK = Method(
    opcode=FIRST_FRAMEWORK_OPCODE,
    name="Check",
    request=CheckRequest,
    response=CheckResponse,
    reasons=("UNKNOWN_SERVICE",),
    idempotent=True,
    doc="Whether a service, or the server, takes calls.",
)
DESCRIBE = Method(
    opcode=FIRST_FRAMEWORK_OPCODE + 1,
    name="Describe",
    request=DescribeRequest,
    response=DescribeResponse,
    reasons=("UNKNOWN_SERVICE",),
    idempotent=True,
    doc="The methods and messages of the services hosted here.",
)
ECHO = Method(
    opcode=FIRST_FRAMEWORK_OPCODE + 2,
    name="Echo",
    request=EchoRequest,
    response=EchoResponse,
    idempotent=True,
    doc="The bytes of the request, sent back.",
)
CONTROL = Service("wirecontrol.v1.ControlService", version=1, methods=[CHECK, DESCRIBE, ECHO])


def describe(service: Service) -> ServiceDescription:
    """What ``Describe`` answers for ``service``: its methods, in opcode order, and every type they reach."""
    # Of a service as of an older version, what came later is neither there nor said to be.
    version = service.version
    types = reachable([cls for method in service.methods for cls in method.messages], version)
    return ServiceDescription(
        full_name=service.full_name,
        version=version,
        oldest=service.oldest,
        methods=[_describe_method(service.by_opcode[opcode], version) for opcode in sorted(service.by_opcode)],
        messages=[
            MessageDescription(
                name=each.__name__, doc=_doc(each), fields=[_describe_field(field) for field in fields(each, version)]
            )
            for each in types
        ],
        enums=[
            EnumDescription(name=each.__name__, doc=_doc(each), members={member.name: member.value for member in each})
            for each in _enums(types, version)
        ],
    )


def _describe_method(method: Operation[Any, Any], version: int) -> MethodDescription:
    return MethodDescription(
        opcode=method.opcode,
        name=method.name,
        shape=_SHAPES[method.shape],
        request=method.request.__name__,
        response=method.response.__name__ if method.response in method.messages else "",
        since=method.since,
        until=method.until if method.until is not None and method.until <= version else None,
        requires=method.requires,
        reasons=list(method.reasons),
        idempotent=method.idempotent,
        timeout_ms=None if method.timeout is None else max(1, round(method.timeout * 1000)),
        max_request=method.max_request,
        doc=method.doc,
        by_server=method.by == "server",
        errors=[each.__name__ for each in method.errors],
        compress=method.compress,
        resumable=(isinstance(method, StreamMethod) and method.resumable) or "",
        drains=method.goes_on,
        slow=method.slow if isinstance(method, StreamMethod) and method.slow != "pause" else "",
    )


def _describe_field(field: Field) -> FieldDescription:
    kind = field.type
    bounds, size = kind.bounds or Bounds(), kind.size or Bounds()
    return FieldDescription(
        number=field.number,
        name=field.name,
        container=Container[kind.shape.upper()],
        kind=ValueKind[kind.scalar.name],
        key=None if kind.key is None else ValueKind[kind.key.name],
        type_name="" if kind.cls is None else kind.cls.__name__,
        optional=kind.optional,
        required=field.required,
        default="" if field.required else write_value(field.default, kind),
        since=field.since,
        ignorable=field.ignorable,
        ge="" if bounds.ge is None else write_value(bounds.ge, _type_of_bound(bounds.ge)),
        le="" if bounds.le is None else write_value(bounds.le, _type_of_bound(bounds.le)),
        min_length=bounds.min_length,
        max_length=bounds.max_length,
        min_size=size.min_length,
        max_size=size.max_length,
    )


def _doc(declared: type) -> str:
    return (declared.__doc__ or "").strip().partition("\n")[0]


def _enums(types: tuple[type[Message], ...], version: int) -> list[type[enum.IntEnum]]:
    """Every enumeration that the fields of ``types`` name, in order of first use."""
    return list(
        dict.fromkeys(
            field.type.cls
            for each in types
            for field in fields(each, version)
            if field.type.scalar is Scalar.ENUM and field.type.cls is not None
        )
    )


def declare(description: ServiceDescription) -> Service:
    """Make the service that a peer described: message classes, enums and methods equal to the ones it was made from.

    Bounds and capabilities are kept for people to see; the server's own are the ones that hold.

    Raises:
        DeclarationError: the description is not one that ``describe`` makes.
    """
    try:
        return _Declaration(description).service
    except (KeyError, ValueError, TypeError, RecursionError, DecodeError) as error:
        raise DeclarationError(
            f"{description.full_name}: the description received makes no sense: {error!r}"
        ) from error


class _Declaration:
    """The classes made so far, by name, so that each message is made after those it holds."""

    def __init__(self, description: ServiceDescription) -> None:
        for name in _names(description):
            # A peer wrote these, and they are about to be attributes of classes: `__slots__` is none of them.
            if not name.isidentifier() or name.startswith("_"):
                raise ValueError(f"{name!r} is no name")
        self.module = f"{__name__}.{description.full_name}"
        self.described = {each.name: each for each in description.messages}
        self.enums = {each.name: self.enum(each) for each in description.enums}
        self.messages: dict[str, type[Message]] = {}
        self.service = Service(
            description.full_name,
            version=description.version,
            oldest=description.oldest,
            methods=[self.method(each) for each in description.methods],
        )

    def enum(self, description: EnumDescription) -> type[enum.IntEnum]:
        functional: Any = enum.IntEnum  # a checker wants a literal name
        made: type[enum.IntEnum] = functional(description.name, description.members, module=self.module)
        made.__doc__ = description.doc
        return made

    def method(self, description: MethodDescription) -> Operation[Any, Any]:
        answer: dict[str, Any] = {}
        if description.shape is MethodShape.SERVER_STREAM:
            answer["resumable"] = description.resumable or None
            answer["slow"] = description.slow or "pause"
        elif description.resumable or description.slow:
            raise DeclarationError(
                f"{description.name!r} is described with positions, or with what becomes of the slow, and is no stream"
            )
        if description.drains:
            answer["drains"] = True  # a shape without items that come back knows no such word
        if description.shape is not MethodShape.ONE_WAY:
            answer["response"] = self.message(description.response)
        elif description.response:
            raise DeclarationError(
                f"{description.name!r} is described as one-way, and with the response {description.response!r}; "
                "a one-way method has none"
            )
        return _KINDS[description.shape](
            **answer,
            opcode=description.opcode,
            name=description.name,
            request=self.message(description.request),
            since=description.since,
            until=description.until,
            requires=description.requires,
            reasons=tuple(description.reasons),
            idempotent=description.idempotent,
            timeout=None if description.timeout_ms is None else description.timeout_ms / 1000,
            max_request=description.max_request,
            doc=description.doc,
            by="server" if description.by_server else "client",
            errors=tuple(map(self.message, description.errors)),
            compress=description.compress,
        )

    def message(self, name: str) -> type[Message]:
        if name not in self.messages:
            described = self.described[name]
            if [each.number for each in described.fields] != list(range(1, len(described.fields) + 1)):
                raise ValueError(f"the fields of {name} are not numbered by their order")
            namespace: dict[str, Any] = {
                "__module__": self.module,
                "__doc__": described.doc,
                "__annotations__": {each.name: self.annotation(each) for each in described.fields},
                **{each.name: self.default(each) for each in described.fields if not each.required},
            }
            self.messages[name] = new_class(
                name, (Message,), {"kw_only": True}, exec_body=lambda body: body.update(namespace)
            )
        return self.messages[name]

    def annotation(self, field: FieldDescription) -> Any:
        # Any: to a checker these are values, and it is right, but they are what a class statement would hold.
        annotated: Any = Annotated
        list_of: Any = list
        dict_of: Any = dict
        kind = self.value_type(field)
        bounds = (_bound(field.ge, field.kind), _bound(field.le, field.kind), field.min_length, field.max_length)
        if any(limit is not None for limit in bounds):
            kind = annotated[kind, Bounds(*bounds)]
        if field.optional:
            kind = kind | None
        marks: list[object] = []
        if field.container is not Container.SINGLE:
            if field.container is Container.LIST:
                kind = list_of[kind]
            else:
                kind = dict_of[str if field.key is ValueKind.STR else int, kind]
            if field.min_size is not None or field.max_size is not None:
                marks.append(Bounds(min_length=field.min_size, max_length=field.max_size))
        if field.since != 1:
            marks.append(Since(field.since, ignorable=field.ignorable))
        return annotated[(kind, *marks)] if marks else kind

    def value_type(self, field: FieldDescription) -> Any:
        if field.kind is ValueKind.MESSAGE:
            return self.message(field.type_name)
        if field.kind is ValueKind.ENUM:
            return self.enums[field.type_name]
        return _PYTHON[field.kind]

    def default(self, field: FieldDescription) -> object:
        cls = self.enums[field.type_name] if field.kind is ValueKind.ENUM else None
        return read_value(field.default, _type_of_default(field, cls))


def _names(description: ServiceDescription) -> Iterator[str]:
    for message in description.messages:
        yield message.name
        yield from (field.name for field in message.fields)
    for each in description.enums:
        yield each.name
        yield from each.members


# Values as text -------------------------------------------------------------------------------------------------

_PYTHON: dict[ValueKind, Any] = {
    ValueKind.BOOL: bool,
    ValueKind.INT: int,
    ValueKind.UINT: UInt64,
    ValueKind.FLOAT: float,
    ValueKind.STR: str,
    ValueKind.BYTES: bytes,
    ValueKind.DATETIME: datetime,
}


def _type_of_default(field: FieldDescription, cls: type[Any] | None) -> FieldType:
    """The type of a field, as far as its default goes; ``cls`` is its enum."""
    kind = Scalar[field.kind.name]
    if field.container is Container.LIST:
        return FieldType("list", kind)
    if field.container is Container.MAP:
        return FieldType("map", kind, Scalar.STR if field.key is ValueKind.STR else Scalar.INT)
    return FieldType("single", kind, optional=field.optional, cls=cls)


def _type_of_bound(bound: object) -> FieldType:
    """Of a float it may be an integer, which is kept as it is."""
    return FieldType("single", Scalar.FLOAT if isinstance(bound, float) else Scalar.INT)


def _bound(text: str, kind: ValueKind) -> Any:
    """What `_type_of_bound` has written of a limit of a number; None for no text."""
    if not text:
        return None
    whole = kind is not ValueKind.FLOAT or text.lstrip("-").isdecimal()
    return read_value(text, FieldType("single", Scalar.INT if whole else Scalar.FLOAT))
