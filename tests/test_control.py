"""The control service's contract, and services described and declared again."""

import enum
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest

from tests.agents.service import AGENTS
from tests.protos.versions import GROWING
from wireproto.control import (
    CONTROL,
    SHAPE_WORDS,
    EnumDescription,
    FieldDescription,
    MethodShape,
    ServiceDescription,
    ValueKind,
    declare,
    describe,
)
from wireproto.errors import DeclarationError
from wireproto.schema import (
    Bounds,
    DuplexMethod,
    Message,
    Method,
    OneWayMethod,
    Service,
    Shape,
    Since,
    StreamMethod,
    UInt64,
    UploadMethod,
    fields,
    message_types,
)


class TickRequest(Message):
    """Asks for all of them."""


class Tick(Message):
    """One of them."""

    number: int


TICKS = StreamMethod(opcode=1, name="Ticks", request=TickRequest, response=Tick, resumable="number", slow="end")
TICKING = Service("example.v1.TickingService", methods=[TICKS])


def test_the_position_of_a_stream_is_described() -> None:
    """The field's name is there, and a service that is declared from it can be followed."""
    described = describe(TICKING)
    assert [each.resumable for each in described.methods] == ["number"]
    (method,) = declare(described).methods
    assert isinstance(method, StreamMethod)
    assert (method.resumable, method.slow) == ("number", "end")


@pytest.mark.parametrize(
    ("name", "shape", "problem"),
    [
        ("number", MethodShape.UNARY, "'Ticks' is described with positions, .* and is no stream"),
        ("other", MethodShape.SERVER_STREAM, "resumable is 'other'"),
        ("", MethodShape.UNARY, "what becomes of the slow, and is no stream"),
    ],
)
def test_a_position_that_makes_no_sense_is_refused(name: str, shape: MethodShape, problem: str) -> None:
    """A peer wrote the description: the field must be there, and the method must be a stream."""
    described = describe(TICKING)
    methods = [msgspec.structs.replace(each, resumable=name, shape=shape) for each in described.methods]
    with pytest.raises(DeclarationError, match=problem):
        declare(msgspec.structs.replace(described, methods=methods))


class Colour(enum.IntEnum):
    """A colour."""

    RED = 1
    GREEN = 7


class Part(Message):
    """A part of the whole."""

    name: str
    weight: float = 1.5


class WholeRequest(Message):
    """One field of every kind that there is.

    This line is not part of the description.
    """

    flag: bool
    number: Annotated[int, Bounds(ge=-(2**63), le=2**63 - 1)]
    unsigned: UInt64
    ratio: Annotated[float, Bounds(ge=0.25)]
    text: Annotated[str, Bounds(max_length=10)]
    blob: bytes
    at: datetime
    colour: Colour
    part: Part
    maybe: int | None = None
    maybe_part: Part | None = None
    numbers: Annotated[list[Annotated[int, Bounds(le=9)]], Bounds(max_length=3)] = []
    parts: list[Part] = []
    by_name: dict[str, Colour] = {}
    by_number: dict[int, bytes] = {}
    answer: int = 42
    greeting: str = "grüß\u2028"
    salt: bytes = b"\x00\xff"
    epoch: datetime = datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    favourite: Colour = Colour.GREEN
    newer: Annotated[bool, Since(2, ignorable=True)] = False
    newest: Annotated[UInt64, Since(3)] = 2**64 - 1


class WholeResponse(Message):
    pass


WHOLE = Service(
    "example.v1.WholeService",
    version=3,
    methods=[
        Method(
            opcode=0x20,
            name="Whole",
            request=WholeRequest,
            response=WholeResponse,
            until=2,
            requires="admin",
            reasons=("TOO_WHOLE", "NOT_WHOLE"),
            idempotent=True,
            timeout=1.5,
            max_request=4096,
            doc="Takes everything.",
        ),
        StreamMethod(opcode=0x10, name="Parts", request=WholeRequest, response=Part, since=2),
        UploadMethod(opcode=0x30, name="Assemble", request=Part, response=WholeResponse, max_request=100),
        DuplexMethod(opcode=0x31, name="Exchange", request=Part, response=WholeResponse, timeout=2.5, drains=True),
        OneWayMethod(opcode=0x32, name="Drop", request=Part, since=2, idempotent=True, compress=True),
    ],
)


@pytest.mark.parametrize("service", [WHOLE, CONTROL], ids=lambda service: service.name)
def test_a_described_service_is_declared_equal(service: Service) -> None:
    """A service made from its description has the same description, wire digests and fields."""
    again = declare(describe(service))
    assert describe(again) == describe(service)
    for version in range(1, service.version + 1):
        assert again.digests(version) == service.digests(version)
    for method in service.methods:
        assert type(again.by_opcode[method.opcode]) is type(method)
    for ours, theirs in zip(message_types(service), message_types(again), strict=True):
        assert [(f.number, f.name, str(f.type), f.required, f.default) for f in fields(ours)] == [
            (f.number, f.name, str(f.type), f.required, f.default) for f in fields(theirs)
        ]


def test_a_description_lists_methods_by_opcode_and_types_once() -> None:
    """Methods come in opcode order, each message and enum once, with the first line of its docstring."""
    description = describe(WHOLE)
    assert [method.opcode for method in description.methods] == [0x10, 0x20, 0x30, 0x31, 0x32]
    assert sorted(message.name for message in description.messages) == ["Part", "WholeRequest", "WholeResponse"]
    assert description.enums == [EnumDescription(name="Colour", members={"RED": 1, "GREEN": 7}, doc="A colour.")]
    (whole,) = [message for message in description.messages if message.name == "WholeRequest"]
    assert whole.doc == "One field of every kind that there is."


def test_each_shape_has_a_number_and_a_word() -> None:
    """A description says how many messages go which way, and of a one-way method no response."""
    described = {method.name: method for method in describe(WHOLE).methods}
    assert {name: (int(method.shape), SHAPE_WORDS[method.shape]) for name, method in described.items()} == {
        "Whole": (1, "unary"),
        "Parts": (2, "stream"),
        "Assemble": (3, "upload"),
        "Exchange": (4, "duplex"),
        "Drop": (5, "oneway"),
    }
    assert set(SHAPE_WORDS.values()) == {shape.value for shape in Shape}
    assert (described["Drop"].request, described["Drop"].response) == ("Part", "")


def test_a_response_is_described_where_there_is_one() -> None:
    """A one-way method with a response, and any other without one, are refused."""
    description = describe(WHOLE)
    for at, method in enumerate(description.methods):
        response = "Part" if method.shape is MethodShape.ONE_WAY else ""
        methods = [*description.methods]
        methods[at] = msgspec.structs.replace(method, response=response)
        with pytest.raises(DeclarationError):
            declare(msgspec.structs.replace(description, methods=methods))


def test_methods_that_compress_are_described() -> None:
    """Whose messages may be packed is told, of every shape."""
    description = describe(WHOLE)
    assert {each.name for each in description.methods if each.compress} == {"Drop"}
    assert {each.name for each in declare(description).methods if each.compress} == {"Drop"}


def test_streams_that_drain_are_described() -> None:
    """Which methods' streams go on while the server drains is told; one without items that come back is refused."""
    description = describe(WHOLE)
    assert {each.name for each in description.methods if each.drains} == {"Exchange"}
    assert {each.name for each in declare(description).methods if each.goes_on} == {"Exchange"}
    for at, method in enumerate(description.methods):
        methods = [*description.methods]
        methods[at] = msgspec.structs.replace(method, drains=True)
        drained = msgspec.structs.replace(description, methods=methods)
        if method.shape in (MethodShape.SERVER_STREAM, MethodShape.DUPLEX):
            assert declare(drained).by_opcode[method.opcode].goes_on
        else:
            with pytest.raises(DeclarationError):
                declare(drained)


def test_an_older_service_describes_what_it_had() -> None:
    """As of an older version a service is described as it was then, and can be declared again."""
    older = describe(GROWING.as_of(1))
    assert [message.name for message in older.messages] == ["GrowRequest", "GrowResponse"]
    assert [[field.name for field in message.fields] for message in older.messages] == [["size"], ["size"]]
    assert declare(older).digests(1) == GROWING.digests(1)
    assert [len(message.fields) for message in describe(GROWING).messages] == [3, 2, 2]


def test_the_oldest_version_is_described() -> None:
    """A description says which versions are spoken, and a service declared from it speaks them."""
    aged = Service(
        "example.v1.AgedService",
        version=5,
        oldest=3,
        methods=[Method(opcode=1, name="Age", request=WholeResponse, response=WholeResponse)],
    )
    described = describe(aged)
    assert (described.version, described.oldest, describe(WHOLE).oldest) == (5, 3, 1)
    assert list(declare(described).versions) == [3, 4, 5]
    for oldest in (0, 6, -1):
        with pytest.raises(DeclarationError):
            declare(msgspec.structs.replace(described, oldest=oldest))


def test_a_timeout_below_a_millisecond_is_described_as_one() -> None:
    """What is described can be declared again, however little time the method has."""
    quick = Method(opcode=1, name="Quick", request=WholeResponse, response=WholeResponse, timeout=0.0001)
    described = describe(Service("example.v1.QuickService", methods=[quick]))
    assert described.methods[0].timeout_ms == 1
    assert declare(described).methods[0].timeout == 0.001


def test_exact_bounds_survive() -> None:
    """A bound of 2**63 - 1 is described exactly, which a float would not do."""
    (whole,) = [message for message in describe(WHOLE).messages if message.name == "WholeRequest"]
    assert (whole.fields[1].ge, whole.fields[1].le) == (str(-(2**63)), str(2**63 - 1))


def _field(**changes: Any) -> ServiceDescription:
    """WHOLE's description with its first field changed."""
    description = describe(WHOLE)
    messages = []
    for message in description.messages:
        if message.name == "WholeRequest":
            first: FieldDescription = msgspec.structs.replace(message.fields[0], **changes)
            message = msgspec.structs.replace(message, fields=[first, *message.fields[1:]])
        messages.append(message)
    return msgspec.structs.replace(description, messages=messages)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "__slots__"},
        {"name": "__init_subclass__", "required": False, "default": "1"},
        {"name": "a b"},
        {"name": "Upper"},
        {"kind": 9, "type_name": "Missing"},
        {"kind": 9, "type_name": "WholeRequest"},
        {"kind": 8, "type_name": "Missing"},
        {"required": False, "default": "False"},
        {"required": False, "default": ""},
        {"required": False, "default": "[]"},
        {"required": False, "default": "\\N"},
        {"kind": 4, "required": False, "default": "NaN"},
        {"kind": 5, "required": False, "default": "a|b"},
        {"kind": 5, "required": False, "default": "\ud800"},
        {"kind": 6, "required": False, "default": '"00"'},
        {"kind": 7, "required": False, "default": "1970-01-01T00:00:00+00:00"},
        {"kind": 8, "type_name": "Colour", "required": False, "default": "RED"},
        {"kind": 9, "type_name": "Part", "optional": True, "required": False, "default": "(x,1.5)"},
        {"number": 2},
        {"number": 0},
        {"ge": "0x1", "kind": 2},
        {"le": "inf", "kind": 4},
        {"ge": "many", "kind": 2},
        {"since": 999},
    ],
    ids=str,
)
def test_a_senseless_description_is_refused(changes: dict[str, Any]) -> None:
    """Whatever a peer describes, only DeclarationError comes of it."""
    if "kind" in changes:
        changes = {**changes, "kind": ValueKind(changes["kind"])}
    with pytest.raises(DeclarationError):
        declare(_field(**changes))


def test_hostile_enum_members_are_refused() -> None:
    """An enum member cannot replace what Python keeps in an enum class."""
    for name in ("__new__", "_missing_", "mro", "lower"):
        description = msgspec.structs.replace(
            describe(WHOLE), enums=[EnumDescription(name="Colour", members={name: 1, "GREEN": 7})]
        )
        with pytest.raises(DeclarationError):
            declare(description)


def test_who_calls_is_described() -> None:
    """A method that the server calls is described so, and declared so again."""
    described = describe(AGENTS)
    assert {each.name for each in described.methods if not each.by_server} == {"Enrol"}
    assert {each.name: each.by for each in declare(described).methods} == {
        each.name: each.by for each in AGENTS.methods
    }


class OutOfStock(Message):
    """Details of an error."""

    article: str


def test_details_of_errors_are_described_and_declared() -> None:
    """Their messages are among the others, and methods made of a description declare them, under the same digests."""
    request = Part
    service = Service(
        "example.v1.ShopService",
        methods=[Method(opcode=1, name="Order", request=request, response=Part, errors=[OutOfStock])],
    )
    described = describe(service)
    assert described.methods[0].errors == ["OutOfStock"]
    assert "OutOfStock" in {each.name for each in described.messages}
    again = declare(described)
    assert [each.__name__ for each in again.by_name("Order").errors] == ["OutOfStock"]
    assert again.digests(1) == service.digests(1)
