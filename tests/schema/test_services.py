"""Methods and services: what is refused when they are declared, versions, and which edits change a digest."""

import dataclasses
import enum
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest

from tests.schema.declaring import Color, Point, message, service
from wireproto.errors import ConfigError, DeclarationError
from wireproto.schema import (
    Bounds,
    DuplexMethod,
    Empty,
    Message,
    Method,
    OneWayMethod,
    Operation,
    Service,
    Shape,
    Since,
    StreamMethod,
    UInt64,
    UploadMethod,
    message_types,
)
from wireproto.wire.frame import Flag


class AddRequest(Message):
    left: int
    right: int


class AddResponse(Message):
    total: int


class WatchResponse(Message):
    point: Point
    color: Color


ADD = Method(opcode=0x10, name="Add", request=AddRequest, response=AddResponse)
WATCH = StreamMethod(opcode=0x11, name="Watch", request=AddRequest, response=WatchResponse, since=2)
OLD = Method(opcode=0x12, name="Old", request=AddRequest, response=AddResponse, until=2)
SERVICE = Service("tests.v1.CalculatorService", 3, [ADD, WATCH, OLD], doc="Adds.")

SUM = UploadMethod(opcode=0x20, name="Sum", request=AddRequest, response=AddResponse, collect=3)
TRACE = DuplexMethod(opcode=0x21, name="Trace", request=AddRequest, response=WatchResponse)
NOTE = OneWayMethod(opcode=0x22, name="Note", request=AddRequest)
SHAPES = Service(
    "tests.v1.ShapesService",
    1,
    [ADD, StreamMethod(opcode=0x11, name="Watch", request=AddRequest, response=WatchResponse), SUM, TRACE, NOTE],
)


def method(**changes: Any) -> Method[Any, Any]:
    """ADD with changes."""
    given: dict[str, Any] = {"opcode": 0x10, "name": "Add", "request": AddRequest, "response": AddResponse}
    return Method(**{**given, **changes})


# Methods --------------------------------------------------------------------------------------------------------


def test_method_defaults() -> None:
    """A method has no policy but what it declares."""
    assert (ADD.since, ADD.until, ADD.requires, ADD.reasons) == (1, None, None, ())
    assert (ADD.idempotent, ADD.blocking, ADD.timeout, ADD.max_request, ADD.doc) == (False, False, None, None, "")
    assert UploadMethod(opcode=0x20, name="Sum", request=AddRequest, response=AddResponse).collect is None
    assert repr(ADD) == "<Method 0x0010 Add>"
    assert repr(WATCH) == "<StreamMethod 0x0011 Watch>"
    assert repr(SUM) == "<UploadMethod 0x0020 Sum>"


def test_each_kind_of_method_has_its_shape() -> None:
    """The kind says which way items go, and the flags of the REQUEST say the same."""
    found = {
        method.shape: (method.shape.value, method.shape.flags, method.items_follow, method.items_come_back)
        for method in SHAPES.methods
    }
    assert found == {
        Shape.UNARY: ("unary", Flag.NONE, False, False),
        Shape.STREAM: ("stream", Flag.ITEMS_COME_BACK, False, True),
        Shape.UPLOAD: ("upload", Flag.ITEMS_FOLLOW, True, False),
        Shape.DUPLEX: ("duplex", Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK, True, True),
        Shape.ONE_WAY: ("oneway", Flag.ONE_WAY, False, False),
    }
    assert set(found) == set(Shape)


def test_a_one_way_method_has_no_response_of_its_own() -> None:
    """Its answer, where a door needs one, is Empty, and its service has no such message."""
    assert NOTE.response is Empty
    assert NOTE.messages == (AddRequest,)
    assert Empty not in message_types(SHAPES)
    with pytest.raises(TypeError, match="response"):
        OneWayMethod(opcode=1, name="Note", request=AddRequest, response=AddResponse)  # type: ignore[call-arg]


def test_a_method_of_any_shape_is_made_of_another_one() -> None:
    """It is of the same shape, and has what differs; the service does not take it for its own."""
    for method in SHAPES.methods:
        changed = dataclasses.replace(method, timeout=2.0)
        assert (type(changed), changed.timeout, changed.messages) == (type(method), 2.0, method.messages)
        assert SHAPES.own(changed) is None


def test_methods_are_frozen_and_compared_by_identity() -> None:
    """A method cannot be changed, and equals itself alone."""
    with pytest.raises(AttributeError):
        ADD.opcode = 5  # type: ignore[misc]
    assert method() != method()
    assert len({ADD, method()}) == 2


def test_reasons_become_a_tuple() -> None:
    """Reasons cannot be changed by way of the list that was given."""
    reasons = ["NOT_FOUND", "E2", "A" * 64]
    declared = method(reasons=reasons)
    reasons.append("X")
    assert declared.reasons == ("NOT_FOUND", "E2", "A" * 64)


METHODS: list[tuple[dict[str, Any], str]] = [
    ({"opcode": -1}, "Method Add: opcode is -1; give an int from 0 to 65535"),
    ({"opcode": 0x10000}, "Method Add: opcode is 65536; give an int from 0 to 65535"),
    ({"opcode": True}, "Method Add: opcode is True; give an int"),
    ({"opcode": "1"}, "Method Add: opcode is '1'; give an int"),
    ({"name": "add_numbers"}, "Method 'add_numbers': method names are CamelCase; write 'AddNumbers'"),
    ({"name": ""}, "Method '': method names are CamelCase"),
    ({"name": None}, "Method None: method names are CamelCase"),
    ({"request": int}, "Method Add: request is int; give a class that derives from Message"),
    ({"response": Message}, "Method Add: response is Message; give a class that derives from Message"),
    ({"response": AddResponse(total=1)}, "Method Add: response is AddResponse(total=1); give a class"),
    ({"response": Empty}, "Method Add: response is Empty, which is what a one-way method answers; declare a message"),
    ({"request": Empty}, "Method Add: request is Empty, which is what a one-way method answers; declare a message"),
    ({"since": 0}, "Method Add: since is 0; give an int from 1 to 255"),
    ({"since": 256}, "Method Add: since is 256; give an int from 1 to 255"),
    ({"since": 3, "until": 2}, "Method Add: until is 2; give an int from 3 to 255"),
    ({"requires": ""}, "Method Add: requires is ''; give a capability's name or None"),
    ({"requires": True}, "Method Add: requires is True"),
    ({"reasons": "NOT_FOUND"}, "Method Add: reasons is a str; write reasons=['NOT_FOUND']"),
    ({"reasons": ["not found"]}, "Method Add: reasons are UPPER_SNAKE, at most 64 characters; write 'NOT_FOUND'"),
    ({"reasons": ["X_LIMIT"]}, "Method Add: reason X_LIMIT begins with X_, which is left to proxies"),
    ({"reasons": [3]}, "Method Add: reasons are UPPER_SNAKE"),
    ({"reasons": ["A" * 65]}, f"Method Add: reasons are UPPER_SNAKE, at most 64 characters; write '{'A' * 64}'"),
    ({"reasons": ["A", "A"]}, "Method Add: a reason is listed twice; drop one"),
    ({"timeout": 0}, "Method Add: timeout is in seconds, above 0 and at most 4294967"),
    ({"timeout": -1.0}, "Method Add: timeout is in seconds"),
    ({"timeout": True}, "Method Add: timeout is in seconds"),
    ({"timeout": float("nan")}, "Method Add: timeout is in seconds"),
    ({"timeout": 4294968}, "Method Add: timeout is in seconds"),
    ({"max_request": 0}, "Method Add: max_request is 0; give an int from 1 to 4294967295"),
    ({"max_request": 1.5}, "Method Add: max_request is 1.5; give an int"),
]


@pytest.mark.parametrize(("changes", "problem"), METHODS)
def test_refused_method(changes: dict[str, Any], problem: str) -> None:
    """A method's value out of its range is refused where it is declared, by the method's name."""
    with pytest.raises(DeclarationError) as caught:
        method(**changes)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("collect", [0, -1, 65_537, True, 1.0, "3"])
def test_refused_collect(collect: Any) -> None:
    """How many items an upload collects is a number of items that a handler can be given."""
    problem = f"UploadMethod Sum: collect is {collect!r}; give an int from 1 to 65536"
    with pytest.raises(DeclarationError, match=problem):
        UploadMethod(opcode=1, name="Sum", request=AddRequest, response=AddResponse, collect=collect)


@pytest.mark.parametrize("kind", [StreamMethod, UploadMethod, DuplexMethod, OneWayMethod])
def test_every_kind_of_method_is_checked(kind: Any) -> None:
    """What is refused of a unary method is refused of the others, by the kind's own name."""
    given = {} if kind is OneWayMethod else {"response": AddResponse}
    for changes, problem in (
        ({"opcode": -1}, "Try: opcode is -1"),
        ({"request": int}, "Try: request is int"),
        ({"request": Empty}, "Try: request is Empty"),
        ({"timeout": 0}, "Try: timeout is in seconds"),
        ({"max_request": 0}, "Try: max_request is 0"),
    ):
        with pytest.raises(DeclarationError) as caught:
            kind(**{"opcode": 1, "name": "Try", "request": AddRequest, **given, **changes})
        assert str(caught.value).startswith(f"{kind.__name__} {problem}")


def test_accepted_ends_of_ranges() -> None:
    """The ends of each range are inside."""
    method(opcode=0xFFFF, since=255, until=255, timeout=4294967.295, max_request=2**32 - 1, reasons=["A" * 64])
    method(opcode=0, since=1, timeout=0.001, max_request=1)
    for most in (1, 65_536):
        UploadMethod(opcode=1, name="Sum", request=AddRequest, response=AddResponse, collect=most)


def test_the_base_class_is_no_method() -> None:
    """An operation is one of the five kinds."""
    kinds = "write Method, StreamMethod, UploadMethod, DuplexMethod or OneWayMethod"
    with pytest.raises(DeclarationError, match=kinds):
        Operation(opcode=1, name="Add", request=AddRequest, response=AddResponse)


# Services -------------------------------------------------------------------------------------------------------


def test_service_attributes() -> None:
    """A service knows its names, its methods and its versions."""
    assert (SERVICE.full_name, SERVICE.package, SERVICE.name) == (
        "tests.v1.CalculatorService",
        "tests.v1",
        "CalculatorService",
    )
    assert SERVICE.version == 3
    assert SERVICE.doc == "Adds."
    assert SERVICE.methods == (ADD, WATCH, OLD)
    assert SERVICE.by_opcode == {0x10: ADD, 0x11: WATCH, 0x12: OLD}
    assert repr(SERVICE) == "<Service tests.v1.CalculatorService version 3, 3 methods>"


def test_methods_of_a_version() -> None:
    """A version has the methods from their first to their last version."""
    assert SERVICE.at(1) == {0x10: ADD, 0x12: OLD}
    assert SERVICE.at(2) == {0x10: ADD, 0x11: WATCH, 0x12: OLD}
    assert SERVICE.at(3) == {0x10: ADD, 0x11: WATCH}
    assert SERVICE.at(2) is SERVICE.at(2)
    assert [WATCH.in_version(version) for version in (1, 2, 3)] == [False, True, True]
    assert [OLD.in_version(version) for version in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize("version", [0, -1, 4, 256])
def test_a_version_that_the_service_has_not(version: int) -> None:
    """A version beyond the service's is refused with those it has."""
    with pytest.raises(ConfigError, match=f"has versions 1 to 3, not {version}"):
        SERVICE.at(version)
    with pytest.raises(ConfigError, match="has versions 1 to 3"):
        SERVICE.digests(version)


def test_by_name() -> None:
    """A method is found by its name; a wrong one is answered with the nearest or with all."""
    assert SERVICE.by_name("Watch") is WATCH
    with pytest.raises(ConfigError, match=r"has no method 'watsh'; did you mean Watch\?"):
        SERVICE.by_name("watsh")
    with pytest.raises(ConfigError, match="has no method 'Zzz'; it has Add, Watch, Old"):
        SERVICE.by_name("Zzz")


@pytest.mark.parametrize(
    "full_name",
    ["CalculatorService", "example.CalculatorService", "example.v1.Calculator", "example.v1.calculatorService",
     "Example.v1.CalculatorService", "example.v0.CalculatorService", "example.v1.", "", "example..v1.AService",
     "example.v1.CalculatorService\n", "v1.CalculatorService", "a" * 240 + ".v1.CalculatorService", None, 5],
)  # fmt: skip
def test_refused_service_name(full_name: Any) -> None:
    """A name that would not be clean in a .proto is refused with an example."""
    with pytest.raises(DeclarationError, match=r"is called like example\.v1\.CalculatorService"):
        Service(full_name, 1, [])


@pytest.mark.parametrize("full_name", ["a.v1.Service", "my_app.chat.v10.ChatService", "a.v1beta2.AService"])
def test_accepted_service_name(full_name: str) -> None:
    """A package in any number of parts, ending in a version, is accepted."""
    assert Service(full_name).full_name == full_name
    assert Service(full_name).version == 1


@pytest.mark.parametrize("version", [0, 256, True, 1.0, "1", None])
def test_refused_service_version(version: Any) -> None:
    """A service's version fits the header's byte."""
    with pytest.raises(DeclarationError, match=r"CalculatorService: version is .*; give an int from 1 to 255"):
        Service("tests.v1.CalculatorService", version, [])


class Add(Message):
    x: int


class CalculatorService(Message):
    x: int


class Kind(enum.IntEnum):
    RED_HOT = 1


class KindRed(enum.IntEnum):
    HOT = 1


Duplicate = message("AddRequest", x=int)
SameEnum = message("Other", color=enum.IntEnum("Color", {"RED": 1}))
Newer = message("Newer", a=int, b=(Annotated[int, Since(2)], 0))
NewerRequired: Any = message("NewerRequired", a=int, b=Annotated[int, Since(2)])
Wraps = message("Wraps", inner=list[NewerRequired])
WrapsLater = message("WrapsLater", inner=(Annotated[list[NewerRequired], Since(2)], []))

SERVICES: list[tuple[Callable[[], object], str]] = [
    (lambda: Service("tests.v1.TryService", 1, [ADD, ADD]), "Add is listed twice; drop one"),
    (lambda: Service("tests.v1.TryService", 1, [ADD, method(name="Sum")]), "Sum has opcode 0x0010, as Add has"),
    (lambda: Service("tests.v1.TryService", 1, [ADD, method(opcode=2)]), "Add: two methods have this name"),
    (lambda: Service("tests.v1.TryService", 1, [method(opcode=0xF000)]), "take one from 0 to 0xefff"),
    (lambda: Service("tests.v1.TryService", 1, [method(since=2)]), "write version=2 in the Service, or a lower since"),
    (lambda: Service("tests.v1.TryService", 1, [method(until=2)]), "write version=2 in the Service, or a lower until"),
    (lambda: Service("tests.v1.TryService", 1, [AddRequest]), "is no method; give objects of Method, StreamMethod,"),  # type: ignore[list-item]
    (lambda: service(AddRequest, Duplicate), "message tests.schema.declaring.AddRequest and message tests.schema.test"),
    (lambda: service(SameEnum, WatchResponse), "are both called Color in a .proto; rename one"),
    (lambda: service(message(a=Kind, b=KindRed)), "KindRed.HOT and Kind.RED_HOT are both called KIND_RED_HOT"),
    (
        lambda: service(message("Try", x=int)),
        "method Try hides the message Try in a .proto; call the message TryRequest",
    ),
    (lambda: service(message("TryService", x=int)), "are both called TryService in a .proto"),
    (lambda: service(message(x=set[int])), "Subject.x: set[int] is no field type"),
    (lambda: service(message(x=list[Add], y=Message)), "Message itself has no fields"),
    (
        lambda: service(Newer),
        "Newer.b is of version 2, tests.v1.TryService of version 1; write version=2 in the Service",
    ),
    (lambda: service(NewerRequired, version=2), "NewerRequired.b is new in version 2, but NewerRequired is used from"),
    (
        lambda: service(Wraps, version=2),
        "NewerRequired.b is new in version 2, but NewerRequired is used from version 1",
    ),
    (lambda: service(WrapsLater, Wraps, version=2), "NewerRequired.b is new in version 2"),
]


@pytest.mark.parametrize(("declare", "problem"), SERVICES)
def test_refused_service(declare: Callable[[], object], problem: str) -> None:
    """A service that could not be served, or whose .proto would not compile, is refused when it is declared."""
    with pytest.raises(DeclarationError) as caught:
        declare()
    assert problem in str(caught.value)


def test_new_messages_need_no_defaults() -> None:
    """A message that is first used in version n may have required fields of version n."""
    service(NewerRequired, version=2, since=2)
    service(WrapsLater, version=2)
    # ... also when it is used by an older method in a newer field, and declared after that method.
    old: Method[Any, Any] = Method(opcode=1, name="Try", request=WrapsLater, response=Point)
    new: Method[Any, Any] = Method(opcode=2, name="Again", request=NewerRequired, response=Point, since=2)
    assert Service("tests.v1.TryService", 2, [new, old]).at(1) == {1: old}


def test_framework_services_have_the_reserved_opcodes() -> None:
    """The framework's own services may have opcodes from 0xF000 on."""
    declared = method(opcode=0xF000)
    assert Service("wirecontrol.v1.EchoService", 1, [declared]).at(1) == {0xF000: declared}


def test_messages_may_be_shared() -> None:
    """One class may be request and response, in several methods."""
    assert message_types(service(Point)) == (Point,)


def test_message_types_of_a_service() -> None:
    """The messages of a service come in order of first use, each once."""
    assert message_types(SERVICE) == (AddRequest, AddResponse, WatchResponse, Point)
    assert message_types(WatchResponse) == (WatchResponse, Point)


# Digests --------------------------------------------------------------------------------------------------------


def digest(version: int = 1, **fields: Any) -> int:
    """The digest of a method whose request has these fields."""
    return digest_of(message(**fields), version)


def digest_of(request: type[Message], version: int = 1, **changes: Any) -> int:
    declared = method(request=request, **changes)
    return Service("tests.v1.TryService", 3, [declared]).digest(declared, version)


Renumbered = enum.IntEnum("Renumbered", {"RED": 2, "DARK_GREEN": 7})
Grown = enum.IntEnum("Grown", {"RED": 1, "DARK_GREEN": 7, "BLUE": 8})
Recolored = enum.IntEnum("Recolored", {"BLUE": 7, "DARK_RED": 1})
LongPoint: Any = message("Point", x=int, y=(int, 0), z=(int, 0))
RenamedPoint: Any = message("Location", longitude=int, latitude=(int, 0))

MOMENT = datetime(2024, 2, 29, 12, 34, 56, 789_000, tzinfo=UTC)

CHANGED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("type", {"a": int}, {"a": str}),
    ("signedness", {"a": int}, {"a": UInt64}),
    ("int to bool", {"a": int}, {"a": bool}),
    ("number of fields", {"a": int}, {"a": int, "b": int}),
    ("order of types", {"a": int, "b": str}, {"a": str, "b": int}),
    ("list", {"a": int}, {"a": list[int]}),
    ("map for list", {"a": list[int]}, {"a": dict[int, int]}),
    ("map key", {"a": dict[int, int]}, {"a": dict[str, int]}),
    ("map value", {"a": dict[str, int]}, {"a": dict[str, str]}),
    ("presence by None", {"a": int}, {"a": int | None}),
    ("presence by default", {"a": int}, {"a": (int, 5)}),
    ("another default", {"a": (int, 4)}, {"a": (int, 5)}),
    ("default for None", {"a": int | None}, {"a": (int, 5)}),
    ("text default", {"a": (str, "x")}, {"a": (str, "y")}),
    ("float default", {"a": (float, 0.1)}, {"a": (float, 0.2)}),
    ("bytes default", {"a": (bytes, b"x")}, {"a": (bytes, b"y")}),
    ("bool default", {"a": (bool, True)}, {"a": bool}),
    ("datetime default", {"a": (datetime, MOMENT)}, {"a": (datetime, MOMENT + timedelta(microseconds=1))}),
    ("enum default", {"a": (Color, Color.RED)}, {"a": (Color, Color.DARK_GREEN)}),
    ("enum numbers", {"a": Color}, {"a": Renumbered}),
    ("new enum number", {"a": Color}, {"a": Grown}),
    ("nested field", {"a": Point}, {"a": LongPoint}),
    ("nested in list", {"a": list[Point]}, {"a": list[LongPoint]}),
    ("nested twice", {"a": message("Top", p=Point)}, {"a": message("Top", p=LongPoint)}),
    ("message for its field", {"a": message("Top", p=int)}, {"a": int}),
]


@pytest.mark.parametrize(("before", "after"), [pytest.param(a, b, id=name) for name, a, b in CHANGED])
def test_edits_that_change_a_digest(before: dict[str, Any], after: dict[str, Any]) -> None:
    """What changes the bytes of a message, or what they mean, changes the digest."""
    assert digest(**before) != digest(**after)


SAME: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("field name", {"a": int}, {"b": int}),
    ("bounds", {"a": int}, {"a": Annotated[int, Bounds(ge=0)]}),
    ("size", {"a": list[str]}, {"a": Annotated[list[Annotated[str, Bounds(max_length=1)]], Bounds(max_length=3)]}),
    ("zero default", {"a": int}, {"a": (int, 0)}),
    ("empty default", {"a": list[int]}, {"a": (list[int], [])}),
    ("None default", {"a": int | None}, {"a": (int | None, None)}),
    ("enum names", {"a": Color}, {"a": Recolored}),
    ("nested names", {"a": Point}, {"a": RenamedPoint}),
    ("newer field", {"a": int}, {"a": int, "b": (Annotated[int, Since(2)], 0)}),
    ("ignorable", {"a": (Annotated[int, Since(1)], 0)}, {"a": (Annotated[int, Since(1, ignorable=True)], 0)}),
]


@pytest.mark.parametrize(("before", "after"), [pytest.param(a, b, id=name) for name, a, b in SAME])
def test_edits_that_keep_a_digest(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Names, bounds, policy and fields of a later version are not on the wire of this one."""
    assert digest(**before) == digest(**after)


def test_digests_of_versions() -> None:
    """A field changes the digest from its version on."""
    fields = {"a": int, "b": (Annotated[int, Since(2)], 0)}
    assert digest(1, **fields) == digest(1, a=int)
    assert digest(2, **fields) == digest(3, **fields) == digest(1, a=int, b=int)
    assert digest(1, **fields) != digest(2, **fields)


def test_digests_of_methods() -> None:
    """Opcode, shape and which side sends what are in a digest; the method's name and policy are not."""
    plain = digest_of(Point)
    assert plain != digest_of(Point, opcode=0x11)
    assert plain == digest_of(Point, name="Sum", doc="x", requires="a", reasons=["B"], idempotent=True, timeout=1.0)
    stream = StreamMethod(opcode=0x10, name="Add", request=Point, response=AddResponse)
    assert plain != Service("tests.v1.TryService", 1, [stream]).digest(stream, 1)
    turned = Method(opcode=0x10, name="Add", request=AddResponse, response=Point)
    assert plain != Service("tests.v1.TryService", 1, [turned]).digest(turned, 1)


def test_digests_have_the_word_of_the_shape() -> None:
    """Each shape has a word; what a one-way method does not answer has the digest of a message without fields."""
    request, response = (f"{zlib.crc32(text.encode()):08x}" for text in ("1:INT,2:INT", "1:INT"))
    for kind, word in (
        (Method, "unary"),
        (StreamMethod, "stream"),
        (UploadMethod, "upload"),
        (DuplexMethod, "duplex"),
    ):
        declared: Operation[Any, Any] = kind(opcode=16, name="Add", request=AddRequest, response=AddResponse)
        expected = zlib.crc32(f"16 {word} {request} {response}".encode())
        assert Service("tests.v1.TryService", 1, [declared]).digests(1) == {16: expected}
    one_way = OneWayMethod(opcode=16, name="Add", request=AddRequest)
    expected = zlib.crc32(f"16 oneway {request} 00000000".encode())
    assert Service("tests.v1.TryService", 1, [one_way]).digests(1) == {16: expected}


def test_how_many_items_are_collected_is_no_matter_of_the_digest() -> None:
    """A server that collects and one that does not are called alike."""
    plain = dataclasses.replace(SUM, collect=None)
    assert SHAPES.digest(SUM, 1) == Service("tests.v1.TryService", 1, [plain]).digest(plain, 1)


def test_digests_are_stable() -> None:
    """A digest never changes between releases: these numbers are what the first one gave."""
    assert SERVICE.digests(2) == {0x10: 3595103216, 0x11: 329582539, 0x12: 2442663137}
    assert all(0 <= each < 2**32 for each in SERVICE.digests(2).values())


def test_digests_of_a_version_are_of_its_methods() -> None:
    """The digests of a version name the methods it has."""
    assert SERVICE.digests(1).keys() == {0x10, 0x12}
    assert SERVICE.digests(1)[0x10] == SERVICE.digest(ADD, 1)


def test_a_service_has_an_oldest_version() -> None:
    """The versions below it are none of the service's, neither here nor as of an older version."""
    service = Service("example.v1.AgedService", version=5, oldest=3, methods=[ADD])
    assert (service.oldest, service.version, list(service.versions)) == (3, 5, [3, 4, 5])
    assert (SERVICE.oldest, list(SERVICE.versions)) == (1, [1, 2, 3])
    older = service.as_of(4)
    assert (older.oldest, older.version) == (3, 4)
    for version in (0, 2, 6):
        with pytest.raises(ConfigError, match=f"has versions 3 to 5, not {version}"):
            service.at(version)
        with pytest.raises(ConfigError, match=f"not {version}"):
            service.as_of(version)


@pytest.mark.parametrize("oldest", [0, 6, True, "1", None])
def test_an_oldest_version_is_one_of_the_services(oldest: Any) -> None:
    """The oldest version is 1 to the newest."""
    with pytest.raises(DeclarationError, match=r"example\.v1\.AgedService: oldest is .*; give an int from 1 to 5"):
        Service("example.v1.AgedService", version=5, oldest=oldest, methods=[ADD])


def test_an_older_service_is_made_of_the_same_table() -> None:
    """As of a version the service has that version's methods, and those that have gone since; each time the same."""
    older = SERVICE.as_of(1)
    assert (older.version, older.methods) == (1, (ADD, OLD))
    assert older.at(1) == SERVICE.at(1)
    assert older.digests(1) == SERVICE.digests(1)
    assert older.by_name("Add") is ADD
    assert older is SERVICE.as_of(1)
    assert SERVICE.as_of(SERVICE.version) is SERVICE
    with pytest.raises(ConfigError, match="has versions 1 to 1, not 2"):
        older.at(2)
    with pytest.raises(ConfigError, match="no method 'Watch'"):
        older.by_name("Watch")
    with pytest.raises(ConfigError, match="has versions 1 to 3, not 9"):
        SERVICE.as_of(9)


def test_a_method_that_the_server_calls_says_so() -> None:
    """Its word has who calls before its shape, and so has its digest; each side has its own methods."""
    ask = Method(opcode=16, name="Add", request=AddRequest, response=AddResponse)
    told = dataclasses.replace(ask, by="server")
    assert (ask.word, told.word) == ("unary", "server-unary")
    request, response = (f"{zlib.crc32(text.encode()):08x}" for text in ("1:INT,2:INT", "1:INT"))
    service = Service("tests.v1.TryService", 1, [told, dataclasses.replace(ask, opcode=17, name="Sum")])
    assert service.digest(told, 1) == zlib.crc32(f"16 server-unary {request} {response}".encode())
    assert list(service.called_by("server", 1)) == [16]
    assert list(service.called_by("client", 1)) == [17]
    assert service.own(ask) is None


def test_who_calls_is_one_of_both() -> None:
    """Another side is refused, and a capability where nobody could have it."""
    with pytest.raises(DeclarationError, match='write by="client" or by="server"'):
        Method(opcode=16, name="Add", request=AddRequest, response=AddResponse, by="peer")  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="requires is 'adder', and it is called by the server"):
        Method(opcode=16, name="Add", request=AddRequest, response=AddResponse, by="server", requires="adder")
