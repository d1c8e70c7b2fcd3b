"""Message classes: their defaults, names, versions and nesting, and what is said about wrong ones."""

import enum
import sys
from datetime import UTC, datetime, timedelta, timezone
from types import new_class
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec
import pytest

from tests.schema import postponed
from tests.schema.declaring import Color, Point, message, only, refusal
from wireproto.errors import DeclarationError
from wireproto.schema import MISSING, Bounds, Field, Message, Scalar, Since, UInt64, fields, nested_types
from wireproto.schema.messages import Declaring, FieldType
from wireproto.schema.names import camel_case, is_camel, is_snake, is_upper_snake, snake_case, upper_snake

T = TypeVar("T")
ANY = Any  # an alias, so that the linter takes the table's Any for a value


# Defaults and presence ------------------------------------------------------------------------------------------

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Hue(enum.IntEnum):
    RED = 1


PRESENCE: list[tuple[Any, object, str]] = [
    (bool, MISSING, "implicit"),
    (bool, False, "implicit"),
    (bool, True, "explicit"),
    (int, MISSING, "implicit"),
    (int, 0, "implicit"),
    (int, 1, "explicit"),
    (UInt64, 0, "implicit"),
    (UInt64, 2**64 - 1, "explicit"),
    (float, 0.0, "implicit"),
    (float, 0.5, "explicit"),
    (str, MISSING, "implicit"),
    (str, "", "implicit"),
    (str, "x", "explicit"),
    (bytes, b"", "implicit"),
    (bytes, b"x", "explicit"),
    (Color, MISSING, "implicit"),
    (Color, Color.RED, "explicit"),
    (datetime, MISSING, "implicit"),
    (datetime, NOON, "explicit"),
    (Point, MISSING, "implicit"),
    (int | None, MISSING, "explicit"),
    (int | None, None, "explicit"),
    (Point | None, None, "explicit"),
    (list[int], MISSING, "implicit"),
    (list[int], [], "implicit"),
    (list[int], msgspec.field(default_factory=list), "implicit"),
    (dict[str, int], {}, "implicit"),
]


@pytest.mark.parametrize(("hint", "default", "presence"), PRESENCE)
def test_presence(hint: Any, default: object, presence: str) -> None:
    """Only None and defaults other than zero make absence something of its own."""
    field = only(hint, default)
    assert field.presence == presence
    assert field.required is (default is MISSING)
    if default is MISSING:
        assert field.default is MISSING
    elif field.type.shape != "single":
        assert not field.default
    else:
        assert field.default == default


DEFAULTS: list[tuple[Any, object, str]] = [
    (int, True, "the default is bool, not int"),
    (int, 0.0, "the default is float, not int"),
    (int, "0", "the default is str, not int; write a value of type int"),
    (int, None, "the default is NoneType, not int; only a field declared `T | None` may be None"),
    (bool, 0, "the default is int, not bool"),
    (float, 0, "the default is int, not float; give exactly float"),
    (float, float("nan"), "nan and -0.0 are no defaults"),
    (float, -0.0, "nan and -0.0 are no defaults"),
    (str, b"", "the default is bytes, not str; write a value of type str"),
    (str, "\ud800", "the default holds a surrogate"),
    (int, 2**63, "the default is not within -9223372036854775808 to 9223372036854775807"),
    (UInt64, -1, "the default is not within 0 to 18446744073709551615; write a value of type UInt64"),
    (Annotated[int, Bounds(ge=1)], 0, "the default is not at least 1; write one within Bounds(ge=1), or change the"),
    (Annotated[int, Bounds(le=1)], 2, "the default is not at most 1; write one within Bounds(le=1), or change the"),
    (Annotated[int, Bounds(ge=1, le=5)], 6, "the default is not within 1 to 5; write one within Bounds(ge=1, le=5)"),
    (Annotated[int, Bounds(ge=1)], "0", "the default is str, not int; write a value of type int"),
    (
        Annotated[str, Bounds(max_length=1)],
        "ab",
        "the default has 2 characters, not at most 1; write one within Bounds(",
    ),
    (Color, 1, "the default is int, not Color; give a member of Color"),
    (Color, Hue.RED, "the default is Hue, not Color; write a value of type Color"),
    (datetime, datetime(2024, 5, 1), "the default is not in UTC"),  # noqa: DTZ001 - the point of it
    (datetime, NOON.astimezone(timezone(timedelta(hours=2))), "the default is not in UTC"),
    (int | None, 5, "write = None, or drop `| None`"),
    (Point, Point(x=1), "a message has no default value; write Point | None = None"),
    (list[int], None, "the only default of a list is empty; write = []"),
    (dict[str, int], [], "the only default of a map is empty; write = {}"),
    (Annotated[list[int], Bounds(min_length=1)], [], "the empty default is not within Bounds(min_length=1)"),
    (int, msgspec.field(default_factory=int), "write it instead of the factory"),
    (int, [], "write it instead of the factory"),
    (list[int], msgspec.field(default_factory=lambda: [1]), "the only default of a list is empty"),
]


UNMADE: list[tuple[dict[str, Any], str]] = [
    ({"field": (list[int], [1])}, "Subject.field: the only default of a list is empty; write = []"),
    ({"field": (dict[str, int], {"a": 1})}, "Subject.field: the only default of a map is empty; write = {}"),
    ({"first": int, "field": ("list[int]", [1])}, "Subject.field: the only default of a list is empty; write = []"),
    (
        {"first": (int, 5), "second": (str, ""), "field": int},
        (
            "Subject.field: it has no default and stands behind first, which has one; move it before first, or "
            "write class Subject(Message, kw_only=True)"
        ),
    ),
]
"""What msgspec refuses while it makes the class, in words of its own."""

# Where a metaclass would cost something, which is on CPython 3.11, messages have none.
UNMADE_ERROR = DeclarationError if sys.version_info >= (3, 12) else TypeError


@pytest.mark.parametrize(("annotations", "problem"), UNMADE)
def test_a_class_that_cannot_be_made(annotations: dict[str, Any], problem: str) -> None:
    """What is wrong with it is said in our words, and msgspec's are the cause."""
    namespace = {
        "__annotations__": {name: hint[0] if isinstance(hint, tuple) else hint for name, hint in annotations.items()},
        **{name: hint[1] for name, hint in annotations.items() if isinstance(hint, tuple)},
    }
    with pytest.raises(DeclarationError) as caught:
        Declaring("Subject", (msgspec.Struct,), dict(namespace))
    assert str(caught.value) == problem
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(UNMADE_ERROR):
        new_class("Subject", (Message,), exec_body=lambda target: target.update(namespace))


def test_what_else_a_class_cannot_be_made_for_keeps_its_words() -> None:
    """A mistake that is not about defaults is told as it is."""
    with pytest.raises(TypeError, match="no_such_option"):
        Declaring("Subject", (msgspec.Struct,), {"__annotations__": {"field": int}}, no_such_option=True)


@pytest.mark.parametrize(("hint", "default", "problem"), DEFAULTS)
def test_refused_default(hint: Any, default: object, problem: str) -> None:
    """A default that is not of its type, or that both sides cannot know, is refused."""
    text = refusal(field=(hint, default))
    assert text.startswith("Subject.field: ")
    assert problem in text


@pytest.mark.parametrize(
    ("hint", "default"),
    [
        (Annotated[int, Bounds(ge=2, le=5)], 2),
        (Annotated[int, Bounds(ge=2, le=5)], 5),
        (Annotated[float, Bounds(ge=2, le=5)], 5.0),
        (Annotated[str, Bounds(min_length=2, max_length=3)], "ab"),
        (Annotated[str, Bounds(min_length=2, max_length=3)], "abc"),
        (int, -(2**63)),
        (int, 2**63 - 1),
        (UInt64, 2**64 - 1),
        (str, "ž"),
        (datetime, NOON),
    ],
)
def test_accepted_default(hint: Any, default: object) -> None:
    """A default may stand at either end of what is accepted."""
    assert only(hint, default).default == default


def test_fields_can_be_keys() -> None:
    """A field can be hashed, whatever its default."""
    cls = message(a=(list[int], []), b=(dict[str, int], {}))
    assert len({*fields(cls), *fields(Point)}) == 4


def test_refusals_never_print_a_default() -> None:
    """A default is not printed: it may be a secret."""
    assert "hunter2" not in refusal(field=(int, "hunter2"))
    assert "hunter2" not in refusal(field=(Annotated[str, Bounds(max_length=1)], "hunter2"))


def test_defaults_of_containers_are_not_shared_with_messages() -> None:
    """The default of a list in one message is not the list of another."""
    cls = message(items=(list[int], []))
    assert cls().items is not cls().items  # type: ignore[attr-defined]


# Classes --------------------------------------------------------------------------------------------------------


def test_fields_of_a_class() -> None:
    """Fields are numbered from 1 in the order of the class, and know their path."""
    first, second = fields(Point)
    assert first == Field(1, "x", FieldType("single", Scalar.INT), True, MISSING, 1, False, "Point.x")
    assert second == Field(2, "y", FieldType("single", Scalar.INT), False, 0, 1, False, "Point.y")
    assert fields(Point) is fields(Point)


def test_a_message_without_fields() -> None:
    """A message may be empty."""
    assert fields(message()) == ()


def test_class_attributes_are_no_fields() -> None:
    """A ClassVar, a method and a property are no fields."""

    class Request(Message):
        limit: ClassVar[int] = 5
        x: int

        @property
        def twice(self) -> int:
            return self.x * 2

    assert [field.name for field in fields(Request)] == ["x"]
    assert Request(x=2).twice == 4


def test_messages_are_frozen_arrays() -> None:
    """A message is frozen, hashable, equal by value, and an array on the wire; checkers hold it to keywords."""
    point = Point(x=1)
    with pytest.raises(AttributeError, match="immutable"):
        point.x = 2  # type: ignore[misc]
    assert Point(1) == point  # type: ignore[call-arg]
    assert point == Point(x=1, y=0)
    assert hash(point) == hash(Point(x=1, y=0))
    assert repr(point) == "Point(x=1, y=0)"
    assert msgspec.json.encode(point) == b"[1,0]"
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b"[1,0,0]", type=Point)


@pytest.mark.parametrize(
    "keywords",
    [
        {"frozen": False},
        {"array_like": False},
        {"forbid_unknown_fields": False},
        {"tag": True},
        {"omit_defaults": True},
    ],
)
def test_class_keywords_that_change_the_wire_are_refused(keywords: dict[str, Any]) -> None:
    """What the wire format decides is no keyword of a class."""
    subject = new_class("Subject", (Message,), keywords)
    with pytest.raises(DeclarationError, match=f"Subject: a message class takes no {next(iter(keywords))}="):
        fields(subject)


def test_class_keywords_that_do_not_are_passed_on() -> None:
    """What only Python sees is up to the class."""

    class Keyed(Message, order=True, gc=False):
        x: int

    assert Keyed(x=1) < Keyed(x=2)


def test_required_fields_behind_others_take_kw_only() -> None:
    """A required field stands behind one with a default when the class is kw_only; its number is its place."""

    class Keyed(Message, kw_only=True):
        x: int = 0
        y: int

    assert [(field.name, field.number, field.required) for field in fields(Keyed)] == [("x", 1, False), ("y", 2, True)]
    with pytest.raises(UNMADE_ERROR, match="kw_only=True"):

        class Positional(Message):
            x: int = 0
            y: int


class Data:
    x: int


class Renamed(Message):
    x: int = msgspec.field(name="y")


class Checking(Message):
    x: int

    def __post_init__(self) -> None:
        pass


class Derived(Point):
    z: int = 0


class Parametrized(Message, Generic[T]):
    x: int


class lower_case(Message):  # noqa: N801 - the point of it
    x: int


CLASSES: list[tuple[Any, str]] = [
    (Message, "Message itself has no fields; write a subclass"),
    (Derived, "Derived(Point): message classes derive from Message alone"),
    (Parametrized, "Parametrized(Message, Generic): message classes derive from Message alone"),
    (lower_case, "lower_case: message names are CamelCase; write LowerCase"),
    (Renamed, "Renamed.x: fields have one name everywhere; drop name="),
    (Checking, "Checking.__post_init__: messages check nothing when they are made"),
    (Data, "Data is no message class; write class Data(Message)"),
    (int, "int is no message class"),
    ("Point", "'Point' is no message class"),
]


@pytest.mark.parametrize(("cls", "problem"), CLASSES)
def test_refused_class(cls: Any, problem: str) -> None:
    """A class that is no message, or more than one, is refused by name."""
    with pytest.raises(DeclarationError) as caught:
        fields(cls)
    assert str(caught.value).startswith(problem)
    if isinstance(cls, type) and issubclass(cls, Message):
        assert problem in refusal(field=list[cls])


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("userName", "user_name"),
        ("UserName", "user_name"),
        ("HTTPCode", "http_code"),
        ("_hidden", "hidden"),
        ("trailing_", "trailing"),
        ("two__lines", "two_lines"),
        ("naïve", "na_ve"),
        ("a_", "a"),
        ("__", "the_name"),
        ("Class", "the_class"),
    ],
)
def test_refused_field_name(name: str, suggestion: str) -> None:
    """A field that is not lower_snake_case is refused, with the name it should have."""
    text = refusal(**{name: int})
    assert text == f"Subject.{name}: field names are lower_snake_case; write {suggestion}"
    assert is_snake(suggestion)


def test_fields_that_differ_in_underscores_only_are_refused() -> None:
    """Two fields whose JSON names meet in a .proto are refused."""
    assert "Subject.a1: the name differs from a_1 in its underscores only" in refusal(a_1=int, a1=int)


@pytest.mark.parametrize(
    "name", ["user_name", "__", "9lives", "naïve", "HTTPCode", "Color2D", "a", "", "class", "none"]
)
def test_suggested_names_are_accepted(name: str) -> None:
    """Whatever was written, the suggestion is a name that is accepted."""
    assert is_snake(snake_case(name))
    assert is_camel(camel_case(name))
    assert is_upper_snake(upper_snake(name))


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("HTTPCode", "http_code"),
        ("Color2D", "color2d"),
        ("Color2Deep", "color2_deep"),
        ("DeliveryState", "delivery_state"),
    ],
)
def test_words_break_as_in_buf(name: str, snake: str) -> None:
    """Words are broken as buf's lint breaks them, since it judges the .proto."""
    assert snake_case(name) == snake


# Versions -------------------------------------------------------------------------------------------------------


def test_fields_of_a_version() -> None:
    """A version has the fields that came with it or before."""
    cls = message(a=int, b=(Annotated[int, Since(2)], 0), c=(Annotated[int, Since(4, ignorable=True)], 0))
    assert only(Annotated[int, Since(255)]).since == 255
    assert [[field.name for field in fields(cls, version)] for version in (1, 2, 3, 4, 255)] == [
        ["a"],
        ["a", "b"],
        ["a", "b"],
        ["a", "b", "c"],
        ["a", "b", "c"],
    ]
    assert fields(cls) == fields(cls, 4)
    assert [(field.since, field.ignorable) for field in fields(cls)] == [(1, False), (2, False), (4, True)]


def test_fields_are_appended() -> None:
    """A field that stands behind a newer one is refused: its number would have to change."""
    text = refusal(a=(Annotated[int, Since(3)], 0), b=(Annotated[int, Since(2)], 0))
    assert text.startswith("Subject.b is of version 2 but stands behind a field of version 3")
    assert refusal(a=(Annotated[int, Since(2)], 0), b=int).startswith("Subject.b is of version 1 but stands behind")


def test_a_version_in_which_the_message_does_not_exist() -> None:
    """A message with a required newer field does not exist in an older version."""
    cls = message(a=Annotated[int, Since(3)])
    assert len(fields(cls, 3)) == 1
    with pytest.raises(DeclarationError, match=r"Subject\.a is new in version 3 .* does not exist in version 2"):
        fields(cls, 2)


@pytest.mark.parametrize("version", [0, -1, 256])
def test_versions_beyond_a_byte(version: int) -> None:
    """There is no version outside of 1 to 255."""
    with pytest.raises(ValueError, match="give 1 to 255"):
        fields(Point, version)


# Nesting --------------------------------------------------------------------------------------------------------


class Tree(Message):
    children: "list[Tree]"


class First(Message):
    second: "Second | None" = None


class Second(Message):
    third: "dict[str, Third]"


class Third(Message):
    first: "list[First]"


def test_recursive_messages_are_refused() -> None:
    """A message that contains itself, by whatever way, is refused with that way."""
    with pytest.raises(DeclarationError, match=r"Tree\.children: a message must not contain itself \(Tree -> Tree\)"):
        fields(Tree)
    with pytest.raises(DeclarationError, match=r"Third\.first: .* \(First -> Second -> Third -> First\)"):
        fields(First)
    with pytest.raises(DeclarationError, match=r"\(Second -> Third -> First -> Second\)"):
        nested_types(message(field=Second))


def chain(length: int, width: int = 1) -> type[Message]:
    """A message of that many levels, each holding the next ``width`` times."""
    cls = message("Level0", x=int)
    for level in range(1, length):
        cls = message(f"Level{level}", **{f"field_{'abc'[each]}": list[cls] for each in range(width)})  # type: ignore[valid-type]
    return cls


def test_nesting_is_bounded() -> None:
    """Messages nest 32 deep and no deeper, however long the way is by which one gets there."""
    assert len(nested_types(chain(32))) == 32
    for length in (33, 34, 3000):
        with pytest.raises(DeclarationError, match="messages nest deeper than 32"):
            fields(chain(length))
    # Here the short way to the long tail is walked first.
    tail = chain(31)
    longer = message("Top", short=tail, long=message("Middle", long=message("Inner", tail=tail)))
    with pytest.raises(DeclarationError, match="messages nest deeper than 32"):
        fields(longer)


def test_diamonds_cost_one_visit_a_class() -> None:
    """Messages that are reached by 3**31 ways are read once each."""
    assert len(nested_types(chain(32, width=3))) == 32


def test_nested_types_in_order_of_first_use() -> None:
    """The classes inside a message come in order of first use, each once."""
    inner = message("Inner", x=int)
    left = message("Left", inner=inner)
    right = message("Right", inner=inner)
    top = message("Top", a=left, b=list[right], c=inner | None)  # type: ignore[valid-type]
    assert nested_types(top) == (top, left, inner, right)


def test_a_wrong_nested_message_is_named() -> None:
    """A problem inside a nested message names that message's own field."""
    assert refusal(field=message("Inner", bad=set[int])).startswith("Inner.bad: set[int] is no field type")


# Postponed annotations ------------------------------------------------------------------------------------------


def test_postponed_annotations() -> None:
    """Under `from __future__ import annotations` the same types are read."""
    assert [str(field.type) for field in fields(postponed.Everything)] == [
        "bool",
        "list[int]",
        "dict[str, Inner]",
        "Mood | None",
        "UInt64",
        "int",
    ]
    assert fields(postponed.Everything)[-1].since == 2


def test_postponed_annotations_inside_a_function() -> None:
    """A class inside a function may refer to names of its module."""
    assert [str(field.type) for field in fields(postponed.inside_a_function())] == ["Inner", "list[Inner]"]


def test_postponed_annotations_that_cannot_be_resolved() -> None:
    """A class inside a function that refers to another one there is refused, and says what to do."""
    with pytest.raises(DeclarationError) as caught:
        fields(postponed.beyond_reach())
    assert str(caught.value) == (
        "Outer.local: nothing is called 'Local' in module tests.schema.postponed; import it there outside of "
        "`if TYPE_CHECKING`, and declare what a message refers to at module level"
    )
