"""key=value words and JSON, typed by the schema."""

import enum
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from wireproto.cli.values import dumps, from_json, loads, pairs, to_json
from wireproto.errors import ConfigError
from wireproto.schema import Message, UInt64


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 3


class Inner(Message):
    name: str
    weight: float = 1.5


class Everything(Message):
    text: str = ""
    number: int = 0
    unsigned: UInt64 = 0
    ratio: float = 0.0
    flag: bool = False
    blob: bytes = b""
    at: datetime | None = None
    colour: Colour | None = None
    inner: Inner | None = None
    words: list[str] = []
    inners: list[Inner] = []
    by_name: dict[str, int] = {}
    by_number: dict[int, bytes] = {}


class Two(Message):
    left: int
    right: int


@pytest.mark.parametrize(
    ("word", "field", "value"),
    [
        ("text=hello", "text", "hello"),
        ("text=", "text", ""),
        ("text=1", "text", "1"),
        ("text=a=b", "text", "a=b"),
        ("text=null", "text", "null"),
        ('text="quoted"', "text", '"quoted"'),
        ("number=-7", "number", -7),
        ("unsigned=18446744073709551615", "unsigned", 2**64 - 1),
        ("ratio=2", "ratio", 2.0),
        ("ratio=1e-3", "ratio", 0.001),
        ("ratio=-inf", "ratio", float("-inf")),
        ("flag=true", "flag", True),
        ("flag=false", "flag", False),
        ("blob=00fF", "blob", b"\x00\xff"),
        ("blob=", "blob", b""),
        ("at=2026-01-31T12:00:00Z", "at", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("at=2026-01-31T12:00:00.5+02:00", "at", datetime(2026, 1, 31, 10, 0, 0, 500000, tzinfo=UTC)),
        ("at=2026-01-31T12:00:00.123456789Z", "at", datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)),
        ("at=0001-01-01T00:00:00Z", "at", datetime(1, 1, 1, tzinfo=UTC)),
        ("at=9999-12-31T23:59:59.999999Z", "at", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("colour=BLUE", "colour", Colour.BLUE),
        ("colour=3", "colour", Colour.BLUE),
        ('inner={"name": "a"}', "inner", Inner(name="a")),
        ('words=["a", "b"]', "words", ["a", "b"]),
        ('inners=[{"name": "a", "weight": 2}]', "inners", [Inner(name="a", weight=2.0)]),
        ('by_name={"a": 1}', "by_name", {"a": 1}),
        ('by_number={"-1": "ff"}', "by_number", {-1: b"\xff"}),
    ],
)
def test_a_word_is_read_as_its_fields_type(word: str, field: str, value: object) -> None:
    """key=value gives the value that the field's type reads from the text."""
    message = from_json(Everything, pairs(Everything, [word]))
    assert getattr(message, field) == value
    assert type(getattr(message, field)) is type(value)


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("number=1.5", "Everything.number takes an integer"),
        ("number=x", "Everything.number takes an integer"),
        ("number=１", "Everything.number takes an integer"),
        ("number=", "Everything.number takes an integer"),
        ("number=true", "Everything.number takes an integer"),
        ("ratio=NaN", "Everything.ratio takes a number"),
        ("ratio=true", "Everything.ratio takes a number"),
        ("ratio=90071992547409930000", "Everything.ratio takes a number"),
        ("flag=1", "Everything.flag takes true or false"),
        ("flag=True", "Everything.flag takes true or false"),
        ("blob=0", "Everything.blob takes a string of hex digits"),
        ("blob=0 1", "Everything.blob takes a string of hex digits"),
        ("at=2026-01-31T12:00:00", "Everything.at takes a time with its zone"),
        ("at=noon", "Everything.at takes a time with its zone"),
        ("at=0001-01-01T00:00:00+01:00", "Everything.at takes a time of the years 1 to 9999 in UTC"),
        ("at=9999-12-31T23:59:59-01:00", "Everything.at takes a time of the years 1 to 9999 in UTC"),
        ("at=10000-01-01T00:00:00Z", "Everything.at takes a time with its zone"),
        ("colour=GREEN", "Everything.colour takes one of RED, BLUE"),
        ("colour=2", "Everything.colour takes one of RED, BLUE"),
        ("words=a", "Everything.words is written as JSON, words='[...]'"),
        ('words={"a": 1}', "Everything.words takes a list"),
        ("words=[1]", "Everything.words[0] takes a string, not 1"),
        ("by_name=[]", "Everything.by_name takes an object"),
        ('by_name={"a": "x"}', "Everything.by_name[a] takes an integer"),
        ('by_number={"x": ""}', "integer keys"),
        ("inner={}", "Inner.name must be given"),
        ('inner={"name": "a", "wait": 1}', "Inner has no field 'wait'"),
        ("nubmer=1", "did you mean number?"),
        ("zzz=1", "it has [text: str], "),
        ("number", "is not key=value"),
    ],
)
def test_a_wrong_word_is_explained(word: str, complaint: str) -> None:
    """A value that does not fit names the field and what it takes."""
    with pytest.raises(ConfigError) as caught:
        from_json(Everything, pairs(Everything, [word]))
    assert complaint in str(caught.value)


def test_a_field_given_twice_is_refused() -> None:
    """The second value of a field does not win in silence."""
    with pytest.raises(ConfigError, match="given twice"):
        pairs(Two, ["left=1", "left=2"])


def test_all_missing_fields_are_named_at_once() -> None:
    """One error names every field that must be given."""
    with pytest.raises(ConfigError, match=r"Two\.left, Two\.right must be given \(it has left: int, right: int\)"):
        from_json(Two, {})


def test_fields_that_may_be_left_out_are_told_apart() -> None:
    """The fields listed in an error are in brackets when they have a default."""

    class Mixed(Message):
        left: int
        labels: list[str] = []

    with pytest.raises(ConfigError, match=r"\(it has left: int, \[labels: list\[str\]\]\)"):
        from_json(Mixed, {})


@pytest.mark.parametrize("value", [[], "x", 1, None])
def test_a_request_is_an_object(value: object) -> None:
    """JSON other than an object is no message."""
    with pytest.raises(ConfigError, match="takes an object"):
        from_json(Two, value)


def test_null_is_none_where_none_may_be() -> None:
    """null means absent for an optional field, and is refused elsewhere."""
    assert from_json(Everything, {"at": None}).at is None
    with pytest.raises(ConfigError, match=r"Everything\.number takes an integer, not null"):
        from_json(Everything, {"number": None})


@pytest.mark.parametrize("text", ["{", '{"a": 1, "a": 2}', "NaN", '{"a": Infinity}', "[" * 100_000, "1" * 5000, ""])
def test_what_is_not_json_is_refused(text: str) -> None:
    """Broken, ambiguous and bottomless JSON is a ConfigError, whatever json raises."""
    with pytest.raises(ConfigError, match="not JSON"):
        loads(text)


def test_json_goes_both_ways() -> None:
    """What is printed can be given back, value for value."""
    message = Everything(
        text="grüß\u202e\x1b",
        number=-(2**63),
        unsigned=2**64 - 1,
        ratio=float("inf"),
        flag=True,
        blob=b"\x00\xff",
        at=datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC),
        colour=Colour.BLUE,
        inner=Inner(name="x"),
        words=["", "|"],
        inners=[Inner(name="y", weight=-0.5)],
        by_name={"": 1},
        by_number={-1: b"z"},
    )
    text = dumps(to_json(message))
    assert from_json(Everything, loads(text)) == message
    assert json.loads(text)["at"] == "2026-01-31T12:00:00.000001Z"


@pytest.mark.parametrize(("value", "text"), [(float("nan"), "nan"), (float("-inf"), "-inf"), (1e300, 1e300)])
def test_floats_that_json_lacks_are_strings(value: float, text: object) -> None:
    """NaN and the infinities are printed in quotes, other floats as numbers."""
    assert to_json(Everything(ratio=value))["ratio"] == text


def test_printed_json_steers_no_terminal() -> None:
    """Control characters, bidirectional overrides and invisible ones are printed as escapes; letters are not."""
    hostile = "\x1b[31m\x07\x9b\x7f\u202e\u2066\u200b\ufeff\u2028"
    text = dumps({"text": hostile + "é漢🙂"})
    assert text.isprintable()
    assert "é漢🙂" in text
    assert json.loads(text)["text"] == hostile + "é漢🙂"


def test_every_type_of_field_is_known() -> None:
    """A message of all kinds of fields prints them all, in order."""
    shown: dict[str, Any] = to_json(Everything())
    assert list(shown) == list(Everything.__struct_fields__)
