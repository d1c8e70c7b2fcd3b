"""The compiled refusal: every type against every kind of value, judged by a second opinion written here."""

import enum
import math
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.schema.declaring import Color, Point, message
from wireproto.errors import CodecError, DeclarationError, DecodeError, EncodeError
from wireproto.schema import Bounds, Message, Since, UInt64, compile_refusal, fields, inline_refusal
from wireproto.schema.refusal import Refused


class Number(int):
    pass


class Text(str):
    __slots__ = ()


class Other(enum.IntEnum):
    RED = 1


class Items(list[int]):
    pass


class Located(Message):
    x: int
    y: int = 0


class ZonedDatetime(datetime):
    pass


NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)

# One of everything that somebody may hand over.
VALUES: list[object] = [
    None, True, False, 0, 1, -1, 5, 255, 256, 2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**70,
    -(2**63) + 1, -(2**63), -(2**63) - 1, Number(5), 0.0, -0.0, 0.5, 1.0, 1e308, math.inf, -math.inf, math.nan,
    "", "a", "ab", "abc", "abcd", "žluťoučký", "日本", "😀", "\x00", "\ud800", "ok\udfff", "\ud83d\ude00", "ž\ud800",
    Text("abc"), b"", b"a", b"abc", b"abcd", bytearray(b"abc"),
    NOON, NOON.replace(tzinfo=None), NOON.astimezone(timezone(timedelta(hours=1))), NOON.date(),
    NOON.astimezone(timezone(timedelta(0), "Z")), datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC),
    ZonedDatetime(2024, 5, 1, tzinfo=UTC), Color.RED, Color.DARK_GREEN, Other.RED,
    Point, Point(x=1), Point(x=2**63), Point(x=1, y=None), Located(x=1),  # type: ignore[arg-type]
    [], [1], [True], [1, 2, 3], [2**63], [None], ["a"], ["\ud800"], ["a", 1], Items([1]), (1,), {1},
    [Point(x=1)], [Point(x=2**63)], [Located(x=1)],
    {}, {"a": 1}, {"a": "b"}, {"\ud800": 1}, {1: 1}, {True: 1}, {2**63: 1}, {None: 1}, {"a": None}, {"a": 1, 2: 1},
    {"a": Point(x=1)}, {"a": Point(x=2**63)}, object(),
]  # fmt: skip

Oracle = Callable[[Any], bool]


def is_int(low: int = -(2**63), high: int = 2**63 - 1) -> Oracle:
    return lambda value: type(value) is int and value in range(low, high + 1)


def is_text(low: int = 0, high: int = 99) -> Oracle:
    return lambda value: (
        type(value) is str and low <= len(value) <= high and not any(0xD800 <= ord(char) <= 0xDFFF for char in value)
    )


def is_float(value: Any) -> bool:
    return type(value) is float


def is_point(value: Any) -> bool:
    return type(value) is Point and is_int()(value.x) and is_int()(value.y)


def is_color(value: Any) -> bool:
    return value is Color.RED or value is Color.DARK_GREEN


def is_list(element: Oracle, low: int = 0, high: int = 99) -> Oracle:
    return lambda value: type(value) is list and low <= len(value) <= high and all(map(element, value))


def is_dict(key: Oracle, element: Oracle, high: int = 99) -> Oracle:
    return lambda value: (
        type(value) is dict and len(value) <= high and all(map(key, value)) and all(map(element, value.values()))
    )


def is_maybe(inner: Oracle) -> Oracle:
    return lambda value: value is None or inner(value)


def is_datetime(value: Any) -> bool:
    return type(value) is datetime and value.tzinfo is UTC


TYPES: list[tuple[Any, Oracle]] = [
    (bool, lambda value: value is True or value is False),
    (int, is_int()),
    (UInt64, is_int(0, 2**64 - 1)),
    (float, is_float),
    (str, is_text()),
    (bytes, lambda value: type(value) is bytes),
    (datetime, is_datetime),
    (Color, is_color),
    (Point, is_point),
    (int | None, is_maybe(is_int())),
    (UInt64 | None, is_maybe(is_int(0, 2**64 - 1))),
    (str | None, is_maybe(is_text())),
    (datetime | None, is_maybe(is_datetime)),
    (Color | None, is_maybe(is_color)),
    (Point | None, is_maybe(is_point)),
    (Annotated[int, Bounds(ge=1)], is_int(1)),
    (Annotated[int, Bounds(ge=-1)], is_int(-1)),
    (Annotated[int, Bounds(le=255)], is_int(high=255)),
    (Annotated[int, Bounds(ge=0, le=255)], is_int(0, 255)),
    (Annotated[int, Bounds(ge=-(2**63))], is_int()),
    (Annotated[int, Bounds(ge=-(2**63), le=-(2**63))], is_int(-(2**63), -(2**63))),
    (Annotated[int, Bounds(le=2**63 - 1)], is_int()),
    (Annotated[UInt64, Bounds(ge=5)], is_int(5, 2**64 - 1)),
    (Annotated[UInt64, Bounds(le=5)], is_int(0, 5)),
    (Annotated[UInt64, Bounds(le=2**64 - 1)], is_int(0, 2**64 - 1)),
    (Annotated[int, Bounds(ge=0)] | None, is_maybe(is_int(0))),
    (Annotated[float, Bounds(ge=0.5)], lambda value: is_float(value) and value >= 0.5),
    (Annotated[float, Bounds(ge=0, le=1)], lambda value: is_float(value) and 0 <= value <= 1),
    (Annotated[str, Bounds(min_length=1, max_length=3)], is_text(1, 3)),
    (Annotated[str, Bounds(max_length=0)], is_text(0, 0)),
    (Annotated[bytes, Bounds(min_length=2, max_length=3)], lambda value: type(value) is bytes and 2 <= len(value) <= 3),
    (list[int], is_list(is_int())),
    (list[str], is_list(is_text())),
    (list[Point], is_list(is_point)),
    (list[Annotated[int, Bounds(le=2)]], is_list(is_int(high=2))),
    (Annotated[list[int], Bounds(min_length=1, max_length=2)], is_list(is_int(), 1, 2)),
    (dict[str, int], is_dict(is_text(), is_int())),
    (dict[int, int], is_dict(is_int(), is_int())),
    (dict[str, Point], is_dict(is_text(), is_point)),
    (
        Annotated[dict[str, Annotated[str, Bounds(max_length=0)]], Bounds(max_length=1)],
        is_dict(is_text(), is_text(0, 0), 1),
    ),
]
SUBJECTS = [(message(field=hint), oracle) for hint, oracle in TYPES]


def verdict(cls: type[Message], value: Message, version: int | None = 1, *, request: bool = True) -> str | None:
    """What is said of a message; None when it is fine."""
    try:
        compile_refusal(cls, version, request=request)(value, EncodeError)
    except EncodeError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("cls", "oracle"), SUBJECTS, ids=[str(hint) for hint, _ in TYPES])
def test_every_type_with_every_value(cls: type[Message], oracle: Oracle) -> None:
    """A value passes exactly if it is of the declared type, within bounds, alone and as one of many fields."""
    accepted = 0
    for value in VALUES:
        subject = cls(field=value)
        for error in (EncodeError, DecodeError):
            refuse = compile_refusal(cls, 1, request=error is DecodeError)
            if oracle(value):
                refuse(subject, error)
                accepted += 1
            else:
                with pytest.raises(CodecError) as caught:
                    refuse(subject, error)
                assert type(caught.value) is error
                assert caught.value.path.startswith("Subject.field")
                assert "changed while it was checked" not in caught.value.problem
    assert 0 < accepted < 2 * len(VALUES)


@given(st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from(VALUES)), min_size=1, max_size=6))
def test_messages_of_many_fields(declared: list[tuple[tuple[Any, Oracle], object]]) -> None:
    """A message passes exactly if all of its fields do; the first that does not is named."""
    cls = message(**{f"field_{number}": hint for number, ((hint, _), _) in enumerate(declared)})
    subject = cls(**{f"field_{number}": value for number, (_, value) in enumerate(declared)})
    wrong = [number for number, ((_, oracle), value) in enumerate(declared) if not oracle(value)]
    said = verdict(cls, subject)
    if not wrong:
        assert said is None
    else:
        assert said is not None
        assert said.startswith(f"Subject.field_{wrong[0]}")


# Words ----------------------------------------------------------------------------------------------------------

WORDS: list[tuple[Any, object, str]] = [
    (int, True, "Subject.field: is bool, not int; give exactly int"),
    (int, Color.RED, "Subject.field: is Color, not int; give exactly int"),
    (int, 1.0, "Subject.field: is float, not int"),
    (int, None, "Subject.field: is NoneType, not int; only a field declared `T | None` may be None"),
    (int, 2**63, "Subject.field: is not within -9223372036854775808 to 9223372036854775807"),
    (UInt64, -1, "Subject.field: is not within 0 to 18446744073709551615"),
    (UInt64, "1", "Subject.field: is str, not UInt64"),
    (float, 1, "Subject.field: is int, not float; give exactly float"),
    (Annotated[float, Bounds(ge=0)], math.nan, "Subject.field: is not at least 0"),
    (Annotated[int, Bounds(ge=0, le=255)], 256, "Subject.field: is not within 0 to 255"),
    (Annotated[int, Bounds(le=255)], 256, "Subject.field: is not at most 255"),
    (str | None, 1, "Subject.field: is int, not str | None"),
    (str, "\ud800", "Subject.field: holds a surrogate, which no encoding of Unicode can carry; decode the text with"),
    (Annotated[str, Bounds(max_length=3)], "abcd", "Subject.field: has 4 characters, not at most 3"),
    (Annotated[bytes, Bounds(min_length=3)], b"ab", "Subject.field: has 2 bytes, not at least 3"),
    (Annotated[list[int], Bounds(max_length=1)], [1, 2], "Subject.field: has 2 elements, not at most 1"),
    (datetime, NOON.replace(tzinfo=None), "Subject.field: is not in UTC; give a datetime with tzinfo=timezone.utc"),
    (datetime, "2024", "Subject.field: is str, not datetime"),
    (Color, 1, "Subject.field: is int, not Color; give a member of Color"),
    (Color | None, 1, "Subject.field: is int, not Color | None; give a member of Color"),
    (Point, {"x": 1}, "Subject.field: is dict, not Point"),
    (list[int], (1, 2), "Subject.field: is tuple, not list[int]"),
    (list[int], [1, "2"], "Subject.field[1]: is str, not int"),
    (list[Point], [Point(x=1), Point(x=None)], "Subject.field[1].x: is NoneType, not int; only"),  # type: ignore[arg-type]
    (dict[str, int], {"a": 1, "b": None}, "Subject.field[#1]: is NoneType, not int"),
    (dict[str, int], {"a": 1, 2: 1}, "Subject.field[#1]: the key is int, not str"),
    (dict[int, int], {2**63: 1}, "Subject.field[#0]: the key is not within -9223372036854775808 to"),
    (dict[str, Point], {"a": Point(x=2**63)}, "Subject.field[#0].x: is not within"),
]


@pytest.mark.parametrize(("hint", "value", "text"), WORDS)
def test_words(hint: Any, value: object, text: str) -> None:
    """A refusal names class and field, down to the element, and says what is accepted."""
    cls = message(field=hint)
    said = verdict(cls, cls(field=value))
    assert said is not None
    assert said.startswith(text)


SECRETS = [
    (int, "hunter2"), (Annotated[str, Bounds(max_length=3)], "hunter2"), (bool, 4242), (str, 4242),
    (Annotated[int, Bounds(le=5)], 4242), (Color, 4242), (str, "hunter2\ud800"), (list[int], ["hunter2"]),
    (dict[str, int], {"hunter2": "4242"}), (dict[int, int], {"hunter2": 1}), (dict[str, str], {"hunter2": 4242}),
    (Point, Point(x="hunter2")), (datetime, datetime(4242, 1, 1)),  # type: ignore[arg-type]  # noqa: DTZ001
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value"), SECRETS)
def test_values_are_never_printed(hint: Any, value: object) -> None:
    """No refusal holds a value, nor a key of a map: passwords travel in fields."""
    cls = message(field=hint)
    said = verdict(cls, cls(field=value))
    assert said is not None
    assert "hunter2" not in said
    assert "4242" not in said


@pytest.mark.parametrize("value", [None, 5, "Point", Located(x=1), Point, [1, 2]])
def test_something_else_than_the_message(value: Any) -> None:
    """What is not of the class itself is refused by its type's name."""
    assert verdict(Point, value) == f"Point: is {type(value).__name__}, not Point"


def test_a_message_that_changes_meanwhile() -> None:
    """What is wrong at first sight and fine at the second is refused, as the codec would see a third state."""

    class Fickle:
        seen = 0

        def __ne__(self, other: object) -> bool:
            self.seen += 1
            return self.seen == 1

        __eq__ = None  # type: ignore[assignment]
        __hash__ = None  # type: ignore[assignment]

    cls = message(a=int, b=(Annotated[int, Since(2)], 0))
    assert verdict(cls, cls(a=1, b=Fickle())) == (
        "Subject: changed while it was checked; a message being sent must be left alone"
    )


# Versions -------------------------------------------------------------------------------------------------------

Versioned: Any = message(
    "Versioned", a=int, b=(Annotated[int, Since(2)], 7), c=(Annotated[bool, Since(3, ignorable=True)], False)
)
Holder: Any = message(
    "Holder",
    one=Versioned,
    many=(list[Versioned], []),
    named=(dict[str, Versioned], {}),
    none=(Versioned | None, None),
)


def test_newer_values_in_requests() -> None:
    """A request to an older peer keeps newer fields at their default, unless they may be ignored."""
    assert verdict(Versioned, Versioned(a=1)) is None
    assert verdict(Versioned, Versioned(a=1, b=7, c=True)) is None
    assert verdict(Versioned, Versioned(a=1, b=8)) == (
        "Versioned.b: is new in version 2, and the peer speaks version 1; leave it at its default"
    )
    assert verdict(Versioned, Versioned(a=1, b=8), 2) is None


def test_newer_values_in_responses() -> None:
    """A response drops newer fields without looking at them."""
    assert verdict(Versioned, Versioned(a=1, b=8), request=False) is None
    assert verdict(Versioned, Versioned(a=1, b="wrong", c=None), request=False) is None
    assert verdict(Versioned, Versioned(a="wrong"), request=False) is not None


def test_newer_fields_are_checked_in_their_version() -> None:
    """A field is checked from its version on; None is the newest."""
    for version in (2, 3, None):
        assert verdict(Versioned, Versioned(a=1, b="x"), version) == "Versioned.b: is str, not int"
    assert verdict(Versioned, Versioned(a=1, c=5), 2) is None
    assert verdict(Versioned, Versioned(a=1, c=5), None) == "Versioned.c: is int, not bool"


def test_versions_reach_nested_messages() -> None:
    """The version holds for the messages inside, wherever they are."""
    new, old = Versioned(a=1, b=8), Versioned(a=1)
    for subject, path in [
        (Holder(one=new), "one"),
        (Holder(one=old, many=[old, new]), "many[1]"),
        (Holder(one=old, named={"a": new}), "named[#0]"),
        (Holder(one=old, none=new), "none"),
    ]:
        said = verdict(Holder, subject)
        assert said is not None
        assert said.startswith(f"Holder.{path}.b: is new in version 2, and the peer speaks version 1")
        assert verdict(Holder, subject, 2) is None
        assert verdict(Holder, subject, request=False) is None


def test_every_kind_of_default_is_compared() -> None:
    """A newer field at its default passes, whatever its type; any other value does not."""
    cases: list[tuple[Any, Any, Any]] = [
        (int, 0, 1), (str, "", "a"), (bytes, b"", b"a"), (bool, True, False), (float, 0.5, 0.0),
        (Color, Color.RED, Color.DARK_GREEN),
        (int | None, None, 0), (Point | None, None, Point(x=1)), (list[int], [], [0]), (dict[str, int], {}, {"": 0}),
        (datetime, NOON, NOON + timedelta(1)),
    ]  # fmt: skip
    for hint, default, other in cases:
        cls = message(field=(Annotated[hint, Since(2)], default))
        assert verdict(cls, cls()) is None
        assert verdict(cls, cls(field=default)) is None
        assert verdict(cls, cls(field=other)) is not None


def test_a_version_in_which_the_message_does_not_exist() -> None:
    """A refusal for a version that has no such message is a mistake in the declaration."""
    with pytest.raises(DeclarationError, match="does not exist in version 1"):
        compile_refusal(message(a=Annotated[int, Since(2)]), 1, request=True)


# Cost -----------------------------------------------------------------------------------------------------------


def test_refusals_are_made_once() -> None:
    """The same function is given for the same arguments."""
    assert compile_refusal(Point, 1, request=True) is compile_refusal(Point, 1, request=True)
    assert compile_refusal(Point, 1, request=True) is not compile_refusal(Point, 1, request=False)


def test_a_message_that_is_fine_costs_no_memory() -> None:
    """Looking at a good message allocates nothing, not even for a moment."""
    cls = message(sender=str, text=str, number=int, stamp=datetime, color=Color, size=Annotated[int, Bounds(ge=0)])
    subject = cls(sender="ann", text="hello " * 100, number=2**62, stamp=NOON, color=Color.RED, size=5)
    refuse = compile_refusal(cls, 1, request=True)
    assert peak_memory(refuse, subject) == peak_memory(lambda message, error: None, subject)


def peak_memory(refuse: Callable[[Message, type[CodecError]], None], subject: Message) -> int:
    """Bytes above the start that a hundred looks reach, and the loop around them."""
    for _ in range(100):  # the interpreter specializes the code first
        refuse(subject, EncodeError)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(100):
            refuse(subject, EncodeError)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


class Inner(Message):
    number: int


class Inlined(Message):
    text: str
    short: Annotated[str, Bounds(max_length=3)]
    any_length: Annotated[str, Bounds(min_length=0)]
    numbers: list[int]
    few: Annotated[list[str], Bounds(max_length=2)]
    by_id: dict[int, bool]
    inner: Inner
    note: Annotated[str, Bounds(min_length=1)] | None = None


INLINED = Inlined(
    text="x", short="abc", any_length="", numbers=[1, 2], few=["a", "b"], by_id={1: True}, inner=Inner(number=1)
)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("made", [False, True])
def test_inline_lines_accept_and_refuse_like_the_function(made: bool, held: bool) -> None:
    """Lines in a codec call the function for what it refuses, and for nothing else; what was made has its types."""
    lines, names = inline_refusal(Inlined, 1, request=True, error="EncodeError", made=made, held=held)
    called: list[object] = []
    own = [f"f{field.number} = message.{field.name}" for field in fields(Inlined)] if held else []
    source = "\n    ".join(["def look(message):", *own, *lines])
    scope = {**names, "refuse_wrong": lambda message, error: called.append(error), "EncodeError": EncodeError}
    exec(source, scope)
    look = cast(Callable[[object], None], scope["look"])
    look(INLINED)
    assert called == []
    ranges: list[dict[str, object]] = [
        {"short": "abcd"},
        {"numbers": [1, 2**63]},
        {"few": ["a", "b", "c"]},
        {"by_id": {2**63: True}},
        {"inner": Inner(number=2**63)},
        {"note": ""},
    ]
    types: list[dict[str, object]] = [{"text": b"x"}, {"any_length": "\ud800"}, {"few": ["a", b"b"]}, {"by_id": {1: 1}}]
    for change in ranges + types:
        look(msgspec.structs.replace(INLINED, **change))
        assert called == ([] if made and change in types else [EncodeError]), change
        called.clear()


def test_refused_carries_problem_and_path() -> None:
    """The internal exception says what, and where as far as it knows."""
    refused = Refused("is no bool", ".flags[1]")
    assert (refused.problem, refused.path, str(refused)) == ("is no bool", ".flags[1]", "is no bool")
