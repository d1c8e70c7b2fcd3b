"""Messages as plain values and back."""

import enum
import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.schema.declaring import Color, Point, message
from wireproto.errors import DeclarationError, DecodeError, EncodeError
from wireproto.schema import Bounds, Message, Since, UInt64, compile_refusal, from_plain, to_plain

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Everything(Message):
    flag: bool
    signed: int
    unsigned: UInt64
    real: float
    text: str
    raw: bytes
    stamp: datetime
    color: Color
    point: Point
    maybe: int | None
    maybe_point: Point | None
    maybe_stamp: datetime | None
    numbers: list[int]
    colors: list[Color]
    points: list[Point]
    stamps: dict[int, datetime]
    places: dict[str, Point]


FULL = Everything(
    flag=True,
    signed=-5,
    unsigned=2**64 - 1,
    real=0.5,
    text="ž",
    raw=b"\x00\xff",
    stamp=NOON,
    color=Color.DARK_GREEN,
    point=Point(x=1, y=2),
    maybe=None,
    maybe_point=Point(x=3),
    maybe_stamp=None,
    numbers=[1, 2],
    colors=[Color.RED],
    points=[Point(x=4), Point(x=5)],
    stamps={-1: NOON},
    places={"a": Point(x=6)},
)
PLAIN: list[Any] = [
    True,
    -5,
    2**64 - 1,
    0.5,
    "ž",
    b"\x00\xff",
    1_714_564_800_000_000,
    7,
    [1, 2],
    None,
    [3, 0],
    None,
    [1, 2],
    [1],
    [[4, 0], [5, 0]],
    {-1: 1_714_564_800_000_000},
    {"a": [6, 0]},
]


def test_the_plain_form() -> None:
    """A message is the list of its fields; enums are numbers, datetimes microseconds, messages lists."""
    plain = to_plain(FULL)
    assert plain == PLAIN
    assert [type(each) for each in plain] == [type(each) for each in PLAIN]
    assert type(plain[7]) is int
    assert from_plain(Everything, PLAIN) == FULL


def test_containers_are_copied() -> None:
    """What is plain shares no list or dict with the message, either way."""
    plain = to_plain(FULL)
    plain[12].append(3)
    plain[16].clear()
    assert FULL.numbers == [1, 2]
    assert FULL.places == {"a": Point(x=6)}
    again = from_plain(Everything, PLAIN)
    again.numbers.append(3)
    assert PLAIN[12] == [1, 2]


SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (bool, st.booleans()),
    (int, st.integers(-(2**63), 2**63 - 1)),
    (UInt64, st.integers(0, 2**64 - 1)),
    (float, st.floats()),
    (str, st.text(st.characters(exclude_categories=["Cs"]))),
    (bytes, st.binary()),
    (datetime, st.datetimes(timezones=st.just(UTC)).map(lambda stamp: stamp.replace(fold=0))),
    (Color, st.sampled_from(Color)),
    (Point, st.builds(Point, x=st.integers(-(2**63), 2**63 - 1), y=st.integers(-5, 5))),
]


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """A message of a class of its own, with up to eight fields."""
    declared: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for number in range(draw(st.integers(0, 8))):
        hint: Any
        hint, value = draw(st.sampled_from(SCALARS))
        shape = draw(st.integers(0, 4))
        if shape == 1:
            hint, value = hint | None, st.none() | value
        elif shape == 2:
            hint, value = list[hint], st.lists(value, max_size=3)
        elif shape == 3:
            hint, value = dict[str, hint], st.dictionaries(st.text("abcž", max_size=3), value, max_size=3)
        elif shape == 4:
            hint, value = dict[int, hint], st.dictionaries(st.integers(-(2**63), 2**63 - 1), value, max_size=3)
        declared[f"field_{number}"] = hint
        values[f"field_{number}"] = draw(value)
    return message(**declared)(**values)


@given(messages())
def test_there_and_back(subject: Message) -> None:
    """What becomes plain comes back equal, and passes the check."""
    cls = type(subject)
    compile_refusal(cls, 1, request=True)(subject, EncodeError)
    again = from_plain(cls, to_plain(subject))
    compile_refusal(cls, 1, request=True)(again, DecodeError)
    assert repr(again) == repr(subject)  # by repr, as NaN equals nothing


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_anything_is_a_decode_error(value: object) -> None:
    """Whatever is not the plain form gives a DecodeError and nothing else."""
    with pytest.raises(DecodeError):
        from_plain(Everything, value)


@given(st.integers(0, len(PLAIN) - 1), JSON)
def test_anything_in_a_field_is_taken_or_a_decode_error(position: int, value: object) -> None:
    """Whatever stands in one field, it is taken as that field's value or refused with a DecodeError that names it."""
    plain = [*PLAIN[:position], value, *PLAIN[position + 1 :]]
    try:
        taken = from_plain(Everything, plain)
    except DecodeError as error:
        assert error.path.startswith(f"Everything.{Everything.__struct_fields__[position]}")  # noqa: PT017 - either may be
    else:
        assert repr(from_plain(Everything, to_plain(taken))) == repr(taken)


WRONG: list[tuple[Any, Any, str]] = [
    (bool, 1, "Subject.field: is int, not bool"),
    (int, True, "Subject.field: is bool, not int; give exactly int"),
    (int, 1.0, "Subject.field: is float, not int"),
    (int, None, "Subject.field: is NoneType, not int; only a field declared `T | None` may be None"),
    (str, b"a", "Subject.field: is bytes, not str"),
    (bytes, "a", "Subject.field: is str, not bytes"),
    (bytes, bytearray(b"a"), "Subject.field: is bytearray, not bytes"),
    (float, True, "Subject.field: is bool, not float"),
    (float, "1", "Subject.field: is str, not float"),
    (float, 2**53 + 1, "Subject.field: is an int that no float equals"),
    (float, 10**400, "Subject.field: is an int that no float equals"),
    (Color, 0, "Subject.field: is no number of Color; it has 1, 7"),
    (Color, True, "Subject.field: is no number of Color; it has 1, 7"),
    (Color, "RED", "Subject.field: is no number of Color; it has 1, 7"),
    (Color, [1], "Subject.field: is no number of Color; it has 1, 7"),
    (datetime, 1.0, "Subject.field: is float, not microseconds since 1970 as int"),
    (datetime, NOON, "Subject.field: is datetime, not microseconds since 1970 as int"),
    (datetime, 2**62, "Subject.field: is not within the years 1 to 9999"),
    (datetime, -(2**80), "Subject.field: is not within the years 1 to 9999"),
    (Point, [1], "Subject.field: has 1 fields, not 2"),
    (Point, [1, 2, 3], "Subject.field: has 3 fields, not 2"),
    (Point, {"x": 1}, "Subject.field: is dict, not the list of fields of Point"),
    (Point, [1, "2"], "Subject.field.y: is str, not int"),
    (Point | None, [1, "2"], "Subject.field.y: is str, not int"),
    (list[int], (1, 2), "Subject.field: is tuple, not list[int]"),
    (list[int], None, "Subject.field: is NoneType, not list[int]"),
    (list[int], [1, "2"], "Subject.field[1]: is str, not int"),
    (list[int], [None], "Subject.field[0]: is NoneType, not int"),
    (list[Point], [[1, 2], [1, None]], "Subject.field[1].y: is NoneType, not int"),
    (dict[str, int], [1], "Subject.field: is list, not dict[str, int]"),
    (dict[str, int], {"a": 1, 5: 1}, "Subject.field[#1]: the key is int, not str"),
    (dict[int, int], {True: 1}, "Subject.field[#0]: the key is bool, not int"),
    (dict[str, Point], {"a": [1, 2], "b": [1, "2"]}, "Subject.field[#1].y: is str, not int"),
]


@pytest.mark.parametrize(("hint", "value", "text"), WRONG)
def test_words(hint: Any, value: object, text: str) -> None:
    """A refusal says where, down to the element, and what is accepted."""
    with pytest.raises(DecodeError) as caught:
        from_plain(message(field=hint), [value])
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("value", [None, {}, (), "[]", 5, b""])
def test_a_message_is_a_list(value: object) -> None:
    """A message that is no list at all is refused by its own name."""
    with pytest.raises(DecodeError, match=r"Point: is \w+, not the list of fields of Point"):
        from_plain(Point, value)


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (-(2**53), -9007199254740992.0), (2**70, 2.0**70), (0, 0.0)])
def test_exact_integers_for_floats(value: int, expected: float) -> None:
    """An int that is exactly a float is taken for it: JavaScript writes 1.0 as 1."""
    found = from_plain(message(field=float), [value])
    assert type(found.field) is float  # type: ignore[attr-defined]
    assert found.field == expected  # type: ignore[attr-defined]


def test_every_double_survives() -> None:
    """Signed zero, infinities and NaN are themselves afterwards."""
    cls: Any = message(field=float)
    assert math.copysign(1, from_plain(cls, [-0.0]).field) == -1
    assert math.isnan(from_plain(cls, [math.nan]).field)
    assert from_plain(cls, [-math.inf]).field == -math.inf


@pytest.mark.parametrize(
    "stamp", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), NOON + timedelta(microseconds=1)]
)
def test_datetimes_are_exact(stamp: datetime) -> None:
    """A datetime keeps its last microsecond, from year 1 to 9999."""
    cls: Any = message(field=datetime)
    found = from_plain(cls, to_plain(cls(field=stamp))).field
    assert found == stamp
    assert found.tzinfo is UTC


def test_ranges_are_left_to_the_check() -> None:
    """Ranges, bounds and surrogates pass here, as the check sees them in every codec."""
    cls = message(a=int, b=Annotated[str, Bounds(max_length=1)], c=str)
    found = from_plain(cls, [2**70, "long", "\ud800"])
    with pytest.raises(DecodeError, match=r"Subject\.a"):
        compile_refusal(cls, 1, request=True)(found, DecodeError)


def test_versions() -> None:
    """A version has its own number of fields, inside of nested messages too; the others have their defaults."""
    inner = message("Inner", a=int, b=(Annotated[int, Since(2)], 7))
    cls: Any = message(
        one=inner,
        many=list[inner],  # type: ignore[valid-type]
        late=(Annotated[str, Since(3)], "late"),
    )
    subject = cls(one=inner(a=1, b=8), many=[inner(a=2, b=9)], late="x")
    assert to_plain(subject, 1) == [[1], [[2]]]
    assert to_plain(subject, 2) == [[1, 8], [[2, 9]]]
    assert to_plain(subject, 3) == to_plain(subject) == [[1, 8], [[2, 9]], "x"]
    assert from_plain(cls, [[1], [[2]]], 1) == cls(one=inner(a=1), many=[inner(a=2)])
    for version, value in [(1, [[1, 8], [[2]]]), (2, [[1], [[2, 9]]]), (2, [[1, 8], [], "x"]), (3, [[1, 8], []])]:
        with pytest.raises(DecodeError, match=r"has \d fields, not \d"):
            from_plain(cls, value, version)


def test_a_version_in_which_the_message_does_not_exist() -> None:
    """A version that has no such message is a mistake in the declaration."""
    with pytest.raises(DeclarationError, match="does not exist in version 1"):
        from_plain(message(a=Annotated[int, Since(2)]), [], 1)


def test_aliases_of_members() -> None:
    """An alias of an enum's member is that member."""

    class Aliased(enum.IntEnum):
        A = 1
        ALIAS = 1

    cls: Any = message(field=Aliased)
    assert from_plain(cls, [1]).field is Aliased.A
    assert to_plain(cls(field=Aliased.ALIAS)) == [1]
