"""Pipe text: the grammar, to the letter."""

import contextlib
import math
import sys
import threading
import time
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.codecs.everything import Bounded, Branch, Color, Leaf, Lists, Maps, Nothing, Optionals, Singles, Three
from wireproto import codecs
from wireproto.codecs import Plan
from wireproto.errors import DecodeError, EncodeError
from wireproto.limits import Limits
from wireproto.schema import Message, UInt64

PIPE = codecs.get("pipe")
MOMENT = datetime(2024, 2, 29, 23, 59, 58, 7, tzinfo=UTC)
STAMP = "2024-02-29T23:59:58.000007Z"


class Text(Message):
    value: str


class Texts(Message):
    value: list[str]


class Number(Message):
    value: int


class Natural(Message):
    value: UInt64


class Real(Message):
    value: float


class Truth(Message):
    value: bool


class Raw(Message):
    value: bytes


class Raws(Message):
    value: list[bytes]


class Moment(Message):
    value: datetime


class Chosen(Message):
    value: Color


class Numbers(Message):
    value: list[int]


class Counts(Message):
    value: dict[str, int]


class ById(Message):
    value: dict[int, str]


class Leaves(Message):
    value: list[Leaf]


class MaybeText(Message):
    value: str | None = None


class MaybeTexts(Message):
    value: list[MaybeText]


class Nothings(Message):
    value: list[Nothing]


class Moments(Message):
    value: dict[str, datetime]


def plan(message_type: type[Message], limits: Limits | None = None) -> Plan[Any]:
    return PIPE.plan(message_type, 1, limits or Limits())


WRITTEN: list[tuple[Message, str]] = [
    (Nothing(), ""),
    (Three(sender="ann", text="hello", number=3), "ann|hello|3"),
    (Text(value=""), ""),
    (Text(value="\\N"), "\\\\N"),
    (Text(value="a|b\\c\nd\re"), "a\\pb\\\\c\\nd\\re"),
    (Text(value="\\p"), "\\\\p"),
    (Text(value="\\\\|"), "\\\\\\\\\\p"),
    (Text(value="[x,y](z){a:b}"), "[x,y](z){a:b}"),
    (Text(value="\x00\x0b\x0c\x1c\x85\u2028\u2029 \ufeff"), "\x00\x0b\x0c\x1c\x85\u2028\u2029 \ufeff"),
    (Text(value="😀"), "😀"),
    (MaybeText(value=None), "\\N"),
    (MaybeText(value=""), ""),
    (MaybeText(value="\\N"), "\\\\N"),
    (Number(value=0), "0"),
    (Number(value=-(2**63)), "-9223372036854775808"),
    (Natural(value=2**64 - 1), "18446744073709551615"),
    (Real(value=1.0), "1.0"),
    (Real(value=-0.0), "-0.0"),
    (Real(value=1e16), "1e+16"),
    (Real(value=5e-324), "5e-324"),
    (Real(value=math.nan), "nan"),
    (Real(value=-math.nan), "nan"),
    (Real(value=-math.inf), "-inf"),
    (Truth(value=True), "true"),
    (Truth(value=False), "false"),
    (Raw(value=b""), ""),
    (Raw(value=b"\x00\xff"), "00ff"),
    (Moment(value=MOMENT), STAMP),
    (Moment(value=datetime(1, 1, 1, tzinfo=UTC)), "0001-01-01T00:00:00.000000Z"),
    (Chosen(value=Color.BLUE), "300"),
    (Texts(value=[]), "[]"),
    (Texts(value=[""]), "[\\e]"),
    (Texts(value=["", ""]), "[\\e,\\e]"),
    (Texts(value=["\\e", "a b", ",:()[]{}", "|"]), "[\\\\e,a b,\\x2c\\x3a\\x28\\x29\\x5b\\x5d\\x7b\\x7d,\\p]"),
    (Texts(value=["\\x2c"]), "[\\\\x2c]"),
    (Raws(value=[b"", b"\x01"]), "[\\e,01]"),
    (Numbers(value=[1, -2]), "[1,-2]"),
    (Counts(value={"b": 1, "a": 2, "": 3}), "{\\e:3,a:2,b:1}"),
    (Counts(value={"\uffff": 1, "😀": 2}), "{\uffff:1,😀:2}"),
    (ById(value={10: "x", 9: "", -1: ":"}), "{-1:\\x3a,9:\\e,10:x}"),
    (Moments(value={"a": MOMENT}), f"{{a:{STAMP}}}"),
    (
        Leaves(value=[Leaf(name="", color=Color.RED), Leaf(name="(", flags=[True])]),
        "[(\\e,0,[],1),(\\x28,0,[true],\\N)]",
    ),
    (MaybeTexts(value=[MaybeText(), MaybeText(value=""), MaybeText(value="\\N")]), "[(\\N),(\\e),(\\\\N)]"),
    (Nothings(value=[Nothing(), Nothing()]), "[(),()]"),
    (
        Branch(ratio=0.5, leaf=Leaf(name="x"), by_name={"k": Leaf(name="y")}, raw=b"\n", note="[", nothing=Nothing()),
        "0.5|\\N|(x,0,[],\\N)|[]|{k:(y,0,[],\\N)}|0a|[|()",
    ),
]


@pytest.mark.parametrize(("message", "text"), WRITTEN)
def test_canonical_form(message: Message, text: str) -> None:
    """Each message has this text, and the text gives it back."""
    payload = text.encode()
    assert plan(type(message)).encode(message) == payload
    found = plan(type(message)).decode(payload)
    assert plan(type(message)).encode(found) == payload
    assert found == message or text == "nan"


ALSO_READ: list[tuple[Message, str]] = [
    # What other languages write for the same floats.
    (Real(value=1.0), "1"),
    (Real(value=1e16), "1e16"),
    (Real(value=1e-7), "0.0000001"),
    (Real(value=100.0), "1E2"),
    (Real(value=0.1), "0.1000000000000000055511151231257827"),
    (Real(value=-0.0), "-0"),
    (Counts(value={"a": 1, "b": 2}), "{b:2,a:1}"),
]


@pytest.mark.parametrize(("message", "text"), ALSO_READ)
def test_other_forms_that_are_read(message: Message, text: str) -> None:
    """Floats in other spellings and maps in any order mean the same."""
    found = plan(type(message)).decode(text.encode())
    assert plan(type(message)).encode(found) == plan(type(message)).encode(message)


LOOSE_INTEGERS = [
    "", " ", "-", "+", "+1", "--1", "-0", "00", "01", "-01", "1 ", " 1", "1\t", "1_0", "_1", "1_", "0x1", "0b1", "0o7",
    "1.0", "1.", ".1", "1e3", "1E3", "1,0", "1'0", "１", "１２", "٣", "۳", "३", "௧", "1٠", "-１", "²", "Ⅳ", "½",
    "\u20051", "1\u2005", "\ufeff1", "1\u0301", "−1", "–1", "1\x00", "\x001", "true", "True", "nan", "inf", "NaN",
    "None", "null", "\\N", "\\e", "(1)", "[1]", "1:1", "#1", "1L", "1n", "0x", "9" * 21,
    "-" + "9" * 20, "9" * 4301, "0" * 4301,
]  # fmt: skip


@pytest.mark.parametrize("text", LOOSE_INTEGERS, ids=lambda text: repr(text[:12]))
@pytest.mark.parametrize("message_type", [Number, Natural])
def test_integers_are_strict(message_type: type[Message], text: str) -> None:
    """What int() or another reader may take for a number is no integer."""
    with pytest.raises(DecodeError) as caught:
        plan(message_type).decode(text.encode())
    assert caught.value.path == f"{message_type.__name__}.value"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_integers_are_within_64_bits(number: int) -> None:
    """A well-written integer that is too large is refused by the check."""
    with pytest.raises(DecodeError, match=r"^Number\.value: is not within"):
        plan(Number).decode(str(number).encode())


def test_long_integers_are_refused_before_they_are_computed() -> None:
    """A million digits cost no time, even where the interpreter's own limit is off."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        begun = time.perf_counter()
        with pytest.raises(DecodeError):
            plan(Number).decode(b"9" * 1_000_000)
        taken = time.perf_counter() - begun
    finally:
        sys.set_int_max_str_digits(limit)
    assert taken < 0.1  # int() of it takes seconds


REFUSED: list[tuple[type[Message], str, str]] = [
    (Nothing, "x", "Nothing: does not have exactly 0 fields"),
    (Three, "a|b", "Three: does not have exactly 3 fields"),
    (Three, "a|b|1|", "Three: does not have exactly 3 fields"),
    (Three, "", "Three: does not have exactly 3 fields"),
    (Three, "a|b|1\n", "Three: has a raw line break"),
    (Three, "a\r|b|1", "Three: has a raw line break"),
    (Three, "a|b|x", "Three.number: is no integer"),
    (Text, "\\", "Text.value: has an escape"),
    (Text, "\\x", "Text.value: has an escape"),
    (Text, "\\N", "Text.value: has an escape"),
    (Text, "\\e", "Text.value: has an escape"),
    (Text, "\\x2c", "Text.value: has an escape"),
    (Text, "a\\qb", "Text.value: has an escape"),
    (Text, "\\\\\\", "Text.value: has an escape"),
    (MaybeText, "\\NN", "MaybeText.value: has an escape"),
    (MaybeText, "x\\N", "MaybeText.value: has an escape"),
    (Truth, "True", "Truth.value: is no bool"),
    (Truth, "1", "Truth.value: is no bool"),
    (Truth, "", "Truth.value: is no bool"),
    (Real, "", "Real.value: is no float"),
    (Real, "1.", "Real.value: is no float"),
    (Real, ".5", "Real.value: is no float"),
    (Real, "+1.0", "Real.value: is no float"),
    (Real, "01.0", "Real.value: is no float"),
    (Real, "1_0.0", "Real.value: is no float"),
    (Real, " 1.0", "Real.value: is no float"),
    (Real, "1.0 ", "Real.value: is no float"),
    (Real, "１.0", "Real.value: is no float"),
    (Real, "Infinity", "Real.value: is no float"),
    (Real, "NaN", "Real.value: is no float"),
    (Real, "-nan", "Real.value: is no float"),
    (Real, "1e400", "Real.value: is no float"),
    (Real, "0x1p3", "Real.value: is no float"),
    (Real, "1" * 65, "Real.value: is no float"),
    (Raw, "0", "Raw.value: is no bytes"),
    (Raw, "0G", "Raw.value: is no bytes"),
    (Raw, "FF", "Raw.value: is no bytes"),
    (Raw, "00 ff", "Raw.value: is no bytes"),
    (Raw, "\\e", "Raw.value: is no bytes"),
    (Moment, "2024-02-29T23:59:58Z", "Moment.value: is no time"),
    (Moment, "2024-02-29T23:59:58.0000070Z", "Moment.value: is no time"),
    (Moment, "2024-02-29T23:59:58.000007+00:00", "Moment.value: is no time"),
    (Moment, "2024-02-29T23:59:58.000007z", "Moment.value: is no time"),
    (Moment, "2024-02-29 23:59:58.000007Z", "Moment.value: is no time"),
    (Moment, "2023-02-29T23:59:58.000007Z", "Moment.value: is no time"),
    (Moment, "2024-02-29T23:59:60.000000Z", "Moment.value: is no time"),
    (Moment, "2024-02-29T24:00:00.000000Z", "Moment.value: is no time"),
    (Moment, "0000-01-01T00:00:00.000000Z", "Moment.value: is no time"),
    (Moment, "２024-02-29T23:59:58.00007Z", "Moment.value: is no time"),
    (Chosen, "0", "Chosen.value: is no number of Color; it has 1, 300, 2147483647"),
    (Chosen, "2", "Chosen.value: is no number of Color"),
    (Chosen, "01", "Chosen.value: is no number of Color"),
    (Chosen, "RED", "Chosen.value: is no number of Color"),
    (Texts, "", "Texts.value: ends before its bracket is closed"),
    (Texts, "[", "Texts.value: ends before its bracket is closed"),
    (Texts, "[a", "Texts.value[1]: ends before its bracket is closed"),
    (Texts, "a,b", "Texts.value: is no list"),
    (Texts, "{a}", "Texts.value: is no list"),
    (Texts, "[a,]", "Texts.value[1]: is missing"),
    (Texts, "[,a]", "Texts.value[0]: is missing"),
    (Texts, "[,]", "Texts.value[0]: is missing"),
    (Texts, "[a]b", "Texts.value: goes on behind its closing bracket"),
    (Texts, "[a][b]", "Texts.value: goes on behind its closing bracket"),
    (Texts, "[[a]]", "Texts.value[0]: is missing"),
    (Texts, "[a(b]", "Texts.value[1]: is not followed by a comma"),
    (Texts, "[a:b]", "Texts.value[0]: has a raw colon"),
    (Texts, "[\\N]", "Texts.value[0]: has an escape"),
    (Texts, "[a\\e]", "Texts.value[0]: has an escape"),
    (Texts, "[\\x2C]", "Texts.value[0]: has an escape"),
    (Texts, "[\\x41]", "Texts.value[0]: has an escape"),
    (Texts, "[\\x2]", "Texts.value[0]: has an escape"),
    (Raws, "[,]", "Raws.value[0]: is no bytes"),
    (Numbers, "[1, 2]", "Numbers.value[1]: is no integer"),
    (Numbers, "[1,9223372036854775808]", "Numbers.value[1]: is not within"),
    (Counts, "[]", "Counts.value: is no map"),
    (Counts, "{a}", "Counts.value[#0]: has no colon"),
    (Counts, "{a:1,a:1}", "Counts.value[#1]: has a key that is there already"),
    (Counts, "{:1}", "Counts.value[#0]: has an escape|is missing"),
    (Counts, "{a:1:2}", "Counts.value[#0]: is no integer"),
    (Counts, "{a:}", "Counts.value[#0]: is no integer"),
    (Counts, "{a:1", "Counts.value[#1]: ends before"),
    (Counts, "{a:1,}", "Counts.value[#1]: has no colon"),
    (Counts, "{a:1]", "Counts.value[#1]: is not followed by a comma or the map's }"),
    (ById, "{1:a,01:b}", "ById.value[#1]: is no integer"),
    (Leaves, "[(x,0,[],\\N]", "Leaves.value[0]: does not have exactly 4 fields"),
    (Leaves, "[(x,0,[])]", "Leaves.value[0]: does not have exactly 4 fields"),
    (Leaves, "[(x,0,[],\\N,1)]", "Leaves.value[0]: does not have exactly 4 fields"),
    (Leaves, "[x]", "Leaves.value[0]: is no message"),
    (Leaves, "[(x,0,[true,no],\\N)]", "Leaves.value[0].flags[1]: is no bool"),
    (Leaves, "[(x,0,[],\\N),(x,0,[],7)]", "Leaves.value[1].color: is no number of Color"),
    (Nothings, "[(a)]", "Nothings.value[0]: does not have exactly 0 fields"),
    (Bounded, "1|-1|9223372036854775808|0.5|1e+16|abc|00000000|[a]|{}|9", "Bounded.maybe: is not at least 10"),
]


@pytest.mark.parametrize(("message_type", "text", "words"), REFUSED, ids=lambda value: repr(value)[:30])
def test_refusals(message_type: type[Message], text: str, words: str) -> None:
    """Each text is refused with a path and a problem."""
    with pytest.raises(DecodeError) as caught:
        plan(message_type).decode(text.encode())
    path, problem = words.split(": ", 1)
    assert caught.value.path == path
    assert any(caught.value.problem.startswith(each) for each in problem.split("|"))


NOT_UTF8 = [
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xc2\x41", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xe2\x82",
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf",
    b"\xf0\x9f\x98",    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xfe", b"\xff",
    b"\xff\xfe", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80",
]  # fmt: skip


@pytest.mark.parametrize("octets", NOT_UTF8)
@pytest.mark.parametrize("place", [b"%b|b|1", b"a%bc|b|1", b"a|b%b|1", b"a|b|1%b"])
def test_what_is_not_utf8_is_refused(octets: bytes, place: bytes) -> None:
    """Overlong, half and impossible sequences are never replaced."""
    with pytest.raises(DecodeError, match=r"^Three: is not UTF-8$"):
        plan(Three).decode(place % octets)


@pytest.mark.parametrize("bomb", [b"(", b"[", b"{", b"[(", b"{a:[(", b"[[", b",", b"|", b"\\", b"\\\\p", b")"])
@pytest.mark.parametrize("message_type", [Lists, Maps, Singles, Optionals, Leaves, Text])
def test_bombs_end_in_decode_error(message_type: type[Message], bomb: bytes) -> None:
    """Half a megabyte of opening brackets, in a server's thread, is refused quickly."""
    payload = bomb * (2**19 // len(bomb))
    outcome: list[object] = []

    def decode() -> None:
        begun = time.perf_counter()
        try:
            outcome.append(plan(message_type).decode(payload))
        except DecodeError as error:
            outcome.append(error)
        outcome.append(time.perf_counter() - begun)

    thread = threading.Thread(target=decode)
    thread.start()
    thread.join(20)
    found, taken = outcome
    assert isinstance(found, DecodeError) or message_type is Text
    assert isinstance(taken, float)
    assert taken < 5


@pytest.mark.parametrize("unit", ["a,", "ab,", "😀,", "é(,", "(),", "a:b,", "\\x2c,", "|", "\\\\"])
@pytest.mark.parametrize(("message_type", "opening"), [(Texts, "["), (Counts, "{"), (Nothings, "["), (Text, "")])
def test_amplification_is_bounded(message_type: type[Message], opening: str, unit: str) -> None:
    """A frame of the smallest tokens takes at most 80 times its length in memory."""
    payload = (opening + unit * 2**17).encode()
    decode = plan(message_type).decode
    tracemalloc.start()
    try:
        with contextlib.suppress(DecodeError):
            decode(payload)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 * len(payload)


def test_cost_is_linear() -> None:
    """Four times the text takes about four times the time, escapes and brackets included."""

    def cost(count: int) -> float:
        message = Texts(value=["a,b|\\c\n"] * count)
        payload = plan(Texts).encode(message)
        best = math.inf
        for _ in range(5):
            begun = time.thread_time()
            plan(Texts).decode(payload)
            best = min(best, time.thread_time() - begun)
        return best

    assert cost(40_000) < 12 * cost(10_000)


def test_encoding_refuses_with_a_path() -> None:
    """A wrong value deep inside is named by its path, and not shown."""
    message = Branch(ratio=1.0, leaves=[Leaf(name="ok"), Leaf(name="s3cret\ud800")])
    with pytest.raises(EncodeError) as caught:
        plan(Branch).encode(message)
    assert caught.value.path == "Branch.leaves[1].name"
    assert "s3cret" not in str(caught.value)
