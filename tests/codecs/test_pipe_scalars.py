"""Pipe text: numbers and times are written as Python writes them and read by the grammar, whatever library does it."""

import contextlib
import math
import random
import re
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wireproto import codecs
from wireproto.codecs import Plan
from wireproto.errors import DecodeError
from wireproto.limits import Limits
from wireproto.schema import Message, UInt64

PIPE = codecs.get("pipe")


class Real(Message):
    value: float


class Reals(Message):
    value: list[float]


class Mixed(Message):
    text: str
    value: float
    maybe: float | None = None


class Integer(Message):
    value: int


class Integers(Message):
    value: list[int]


class Moment(Message):
    value: datetime


class Counted(Message):
    first: int
    second: UInt64
    third: float


def plan(message_type: type[Message]) -> Plan[Any]:
    return PIPE.plan(message_type, 1, Limits())


real, reals, mixed, integer, integers, moment, counted = (
    plan(cls) for cls in (Real, Reals, Mixed, Integer, Integers, Moment, Counted)
)


def double(bits: int) -> float:
    (number,) = struct.unpack(">d", bits.to_bytes(8))
    assert isinstance(number, float)
    return number


def bits_of(number: float) -> bytes:
    return b"nan" if math.isnan(number) else struct.pack(">d", number)


# Floats -----------------------------------------------------------------------------------------------------------

EDGES = [
    *(0.0, 1.0, 5e-324, 2.2250738585072014e-308, 2.225073858507201e-308, 1.7976931348623157e308),
    *(1e-4, 1e-5, 1e15, 1e16, 1e17, 1e21, 1e22, 1e23, 9007199254740993.0, 2.0**63, 2.0**64),
    *(0.1, 0.30000000000000004, 1e-7, 123456.789, 1_700_000_000.123456, 4503599627370495.5),
]
"""And what is next to each of them, of both signs."""


def edges() -> Iterator[float]:
    for edge in EDGES:
        for number in (edge, math.nextafter(edge, math.inf), math.nextafter(edge, -math.inf)):
            yield from (number, -number)
    yield from (math.nan, -math.nan, math.inf, -math.inf)


def sampled(count: int) -> Iterator[float]:
    """Half of them are of any bits, the others of a size that people use, and some with few digits."""
    chance = random.Random(1)
    for _ in range(count):
        yield double(chance.getrandbits(64))
        number = math.ldexp(chance.random() - 0.5, chance.randint(-16, 56))
        yield number if chance.getrandbits(1) else round(number, chance.randint(0, 9))


def assert_written_and_read(number: float) -> None:
    text = repr(number)
    payload = text.encode()
    assert real.encode(Real(value=number)) == payload
    assert bits_of(real.decode(payload).value) == bits_of(number)
    assert reals.encode(Reals(value=[number, number])) == b"[%b,%b]" % (payload, payload)
    found = mixed.encode(Mixed(text="", value=number, maybe=number))
    assert found == b"|%b|%b" % (payload, payload)


def test_known_floats_are_written_as_python_writes_them() -> None:
    """Where the notation changes, and at the ends of the range, the text is repr's and gives the same bits."""
    for number in edges():
        assert_written_and_read(number)


@given(st.floats())
def test_any_float_is_written_as_python_writes_it(number: float) -> None:
    """The text of a double is repr's, alone, in a list, beside text and where there may be none, and reads back."""
    assert_written_and_read(number)


def test_many_floats_are_written_as_python_writes_them() -> None:
    """A hundred thousand doubles have the text of repr, which gives the same bits."""
    for number in sampled(50_000):
        payload = real.encode(Real(value=number))
        assert payload == repr(number).encode()
        assert bits_of(real.decode(payload).value) == bits_of(number)


def shortest(number: float) -> tuple[int, int]:
    """The digits of the page's canonical form, and the power of ten of the last one, by exact arithmetic."""
    exact = Fraction(number)
    exponent = math.floor(math.log10(number))
    for count in range(1, 19):
        power = exponent - count + 1
        scaled = exact / Fraction(10) ** power
        below = math.floor(scaled)
        same = [digits for digits in (below, below + 1) if float(f"{digits}e{power}") == number]
        if same:
            return min(same, key=lambda digits: (abs(digits - scaled), digits % 2)), power
    raise AssertionError(f"{number!r} has no digits")


def powers_of_two() -> Iterator[float]:
    """Where the doubles on one side are nearer than those on the other: the least digits may belong to a neighbour."""
    for exponent in range(-1022, 1024, 7):
        yield 2.0**exponent


def quarters() -> Iterator[float]:
    """Doubles of sixteen digits and a quarter: two texts of sixteen digits are equally near, and both read back."""
    chance = random.Random(2)
    for _ in range(2_000):
        yield chance.randrange(2**51, 2**52) / 4 + chance.choice((0.25, 0.75))


@pytest.mark.parametrize(
    "numbers", [quarters, powers_of_two, lambda: map(abs, sampled(2_000))], ids=["quarters", "powers of two", "any"]
)
def test_the_digits_of_a_float_are_the_shortest_the_nearest_and_the_even_one(
    numbers: Callable[[], Iterator[float]],
) -> None:
    """A double is written with the fewest digits, of such texts the nearest, and of two equally near the even one."""
    for number in numbers():
        if not math.isfinite(number) or not number:
            continue
        digits, power = shortest(number)
        mantissa, _, exponent = real.encode(Real(value=number)).decode().partition("e")
        whole, _, fraction = mantissa.partition(".")
        written = int(whole + fraction), int(exponent or 0) - len(fraction)
        assert Fraction(written[0]) * Fraction(10) ** written[1] == Fraction(digits) * Fraction(10) ** power, number


def test_quarters_have_two_shortest_texts() -> None:
    """The doubles of the test before this one are such that the rule about the even digit decides."""
    ties = [number for number in quarters() if number % 0.5 and float(repr(number)[:-1] + "3") == number]
    assert len(ties) > 100


is_real = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII).fullmatch


def expected_real(text: str) -> float | None:
    """As docs/values.md has it."""
    if text in ("nan", "inf", "-inf"):
        return float(text)
    if len(text) > 64 or not is_real(text) or math.isinf(float(text)):
        return None
    return float(text)


def value_in(of: Plan[Any], text: str) -> Any:
    """What is read of a text; None if it is refused."""
    with contextlib.suppress(DecodeError):
        return of.decode(text.encode()).value
    return None


def assert_read_as_the_grammar_says(text: str) -> None:
    expected, found = expected_real(text), value_in(real, text)
    assert (found is None) == (expected is None), text
    if found is not None and expected is not None:
        assert bits_of(found) == bits_of(expected), text


HALFWAY = [
    # Between two doubles, and a digit far behind that decides.
    *("9007199254740993", "9007199254740993." + "0" * 46 + "1", "9007199254740992." + "9" * 47),
    *("0.500000000000000166533453693773481063544750213623046875", "3.518437208883201171875e13"),
    *("2.4703282292062327e-324", "2.4703282292062328e-324", "2.2250738585072011e-308"),
    *("1.7976931348623158e308", "1.7976931348623159e308", "179769313486231580793e289", "1e308", "1e309"),
    *("18446744073709551615", "18446744073709551616", "18446744073709551617", "36893488147419103233"),
    # Zero, and what is rounded to it.
    *("0", "-0", "0.0", "-0.0", "0e5", "-0e5", "-0E-5", "0e999999999999", "-0.0e-999999999999", "1e-400", "-1e-400"),
    *("1e-99999999999999999999", "1e99999999999999999999", "1e" + "0" * 60 + "5", "0." + "0" * 61 + "1"),
    # As long as allowed, and one more.
    *("1" * 64, "1" * 65, "0." + "1" * 62, "0." + "1" * 63, "-" + "9" * 63, "1." + "0" * 61 + "1"),
]


@pytest.mark.parametrize("text", HALFWAY)
def test_floats_are_rounded_to_the_nearest(text: str) -> None:
    """A text between two doubles is the nearer one, zeros keep their sign, and what is too large is refused."""
    assert_read_as_the_grammar_says(text)


SPACES = [" ", "\t", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u2005", "\ufeff", "\x00"]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("text", ["1", "-1", "10", "1.5", "nan", "-inf"])
def test_no_space_is_around_a_number(space: str, text: str) -> None:
    """White space is no part of a number, not even that which JSON allows."""
    for spaced in (space + text, text + space, space + text + space, space):
        assert value_in(real, spaced) is None
        assert value_in(integer, spaced) is None
        assert value_in(reals, f"[{spaced}]") is None
        assert value_in(integers, f"[{spaced}]") is None


@pytest.mark.parametrize("text", ["null", "true", "false", '"1"', "[1]", "{}", "1,2", "1 2", "1/2", "1//", "#1", "1]"])
def test_other_json_is_no_number(text: str) -> None:
    """What a reader of JSON takes, but for a number, is refused."""
    assert value_in(real, text) is None
    assert value_in(integer, text) is None


numerals = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
nearly = st.text("0123456789.eE+-_ \t\r\nnaif１٣", max_size=30) | st.text(max_size=4)


@given(numerals | nearly)
@example("-0")
def test_a_float_is_read_as_the_grammar_says(text: str) -> None:
    """What the grammar has is read like float() reads it, to the bit, and everything else is refused."""
    assert_read_as_the_grammar_says(text)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
def test_a_decimal_is_read_as_its_nearest_float(number: object) -> None:
    """Any digits are read like float() reads them."""
    assert_read_as_the_grammar_says(str(number).replace("E+", "e"))


# Integers ---------------------------------------------------------------------------------------------------------

is_integer = re.compile(r"0|-?[1-9][0-9]*", re.ASCII).fullmatch


@given(
    st.integers(-(2**64), 2**65).map(str)
    | st.from_regex(r"-?[0-9]{1,22}", fullmatch=True)
    | st.text("0123456789-+_ \t\n.e１٣", max_size=22)
    | st.text(max_size=3)
)
@example("-0")
@example(str(2**63 - 1))
@example(str(-(2**63)))
def test_an_integer_is_read_as_the_grammar_says(text: str) -> None:
    """Digits without a zero in front, and a sign before all but zero, are the number; everything else is refused."""
    allowed = is_integer(text) is not None and -(2**63) <= int(text) < 2**63
    assert value_in(integer, text) == (int(text) if allowed else None)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1), st.floats())
def test_a_message_of_numbers_is_written_like_any_other(first: int, second: int, third: float) -> None:
    """Where no field is text, the payload is that of the fields as Python writes them, with bars between."""
    message = Counted(first=first, second=second, third=third)
    payload = f"{first}|{second}|{third}".encode()
    assert counted.encode(message) == payload
    assert counted.encode(counted.decode(payload)) == payload


# Times ------------------------------------------------------------------------------------------------------------

is_time = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z", re.ASCII).fullmatch


def assert_time_is_read_as_the_grammar_says(text: str) -> None:
    expected = None
    if is_time(text):
        with contextlib.suppress(ValueError):
            expected = datetime(*map(int, re.findall("[0-9]+", text)), tzinfo=UTC)  # type: ignore[misc, arg-type]
    found = value_in(moment, text)
    assert found == expected, text
    assert found is None or found.tzinfo is UTC


@given(st.datetimes(timezones=st.just(UTC)))
@example(datetime(1, 1, 1, tzinfo=UTC))
@example(datetime(2024, 2, 29, 23, 59, 58, 100_000, UTC))
@example(datetime(2024, 2, 29, 23, 59, 58, 1, UTC, fold=1))
@example(datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC))
def test_any_time_is_written_as_python_writes_it(value: datetime) -> None:
    """The text of a time is that of isoformat with six digits and a Z, and gives the time back."""
    payload = value.replace(tzinfo=None).isoformat(timespec="microseconds").encode() + b"Z"
    assert moment.encode(Moment(value=value)) == payload
    assert moment.decode(payload) == Moment(value=value)


OTHER_TIMES = [
    *("2024-02-29T23:59:58.000007z", "2024-02-29t23:59:58.000007Z", "2024-02-29 23:59:58.000007Z"),
    *("2024-02-29T23:59:58.0000071", "2024-02-29T23:59:58,000007Z", "2024-02-29T23:59:58.00+01:00"),
    *(
        "2024-02-29T23:59:5\\u0038.1Z",
        "2024-02-29T23:59:58.0\\u005A",
        '"2024-02-29T23:59:58.0007Z"',
        "2024-02-29T23:59:58.00007Z",
    ),
    *("1_709_251_198_000_007_00000", "+002024-02-29T23:59:58.0007Z", "2024-02-29T23:59:58.0007Z  "),
]


@pytest.mark.parametrize("text", OTHER_TIMES)
def test_other_forms_of_a_time_are_refused(text: str) -> None:
    """What a reader of RFC 3339, ISO 8601 or JSON takes for a time is none, if it is not the canonical text."""
    assert value_in(moment, text) is None


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.integers(0, 26),
    st.characters(codec="utf-8") | st.sampled_from("0123456789-:TZ"),
)
def test_a_time_is_read_as_the_grammar_says(value: datetime, place: int, character: str) -> None:
    """With one character changed it is another time or none: dates and hours that do not exist are refused."""
    text = value.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    assert_time_is_read_as_the_grammar_says(text[:place] + character + text[place + 1 :])


# Strings beside them ----------------------------------------------------------------------------------------------


class Beside(Message):
    text: str
    number: int
    other: str


class BesideNone(Message):
    text: str
    maybe: str | None
    other: str


@pytest.mark.parametrize("special", ["|", "\\", "\n", "\r", "\\N", "||"])
def test_a_special_character_is_escaped_in_whichever_string_it_is(special: str) -> None:
    """One string that needs it is enough, wherever it is, and what else the message has does not matter."""
    escaped = special.replace("\\", "\\\\").replace("|", "\\p").replace("\n", "\\n").replace("\r", "\\r")
    beside, beside_none = plan(Beside), plan(BesideNone)
    for first, other in ((special, "a"), ("a", special), (special, special), ("a", "a")):
        written = [escaped if each is special else each for each in (first, other)]
        payload = f"{written[0]}|7|{written[1]}".encode()
        assert beside.encode(Beside(text=first, number=7, other=other)) == payload
        assert beside.decode(payload) == Beside(text=first, number=7, other=other)
        for maybe, text in ((None, "\\N"), ("b", "b"), (special, escaped)):
            payload = f"{written[0]}|{text}|{written[1]}".encode()
            assert beside_none.encode(BesideNone(text=first, maybe=maybe, other=other)) == payload
            assert beside_none.decode(payload) == BesideNone(text=first, maybe=maybe, other=other)
