"""MessagePack: what is written, and all that is refused."""

import contextlib
import math
import struct
import threading
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.codecs.everything import (
    Branch,
    Color,
    Grown,
    Leaf,
    Lists,
    Maps,
    Nothing,
    Optionals,
    Singles,
    TextMaps,
    Three,
    Twig,
)
from wireproto import codecs
from wireproto.codecs import Plan
from wireproto.errors import DecodeError, EncodeError
from wireproto.limits import Limits
from wireproto.schema import Message, to_plain
from wireproto.testing import messages

MSGPACK = codecs.get("msgpack")


class Number(Message):
    value: int


class Real(Message):
    value: float


class Reals(Message):
    value: list[float]


class Text(Message):
    value: str


class Texts(Message):
    value: list[str]


class Octets(Message):
    value: bytes


class Truths(Message):
    value: list[bool]


class Moment(Message):
    value: datetime


class Chosen(Message):
    value: Color


class Counts(Message):
    value: dict[str, int]


class CountsInside(Message):
    value: list[Counts]


class ById(Message):
    value: dict[int, str]


class RealsByName(Message):
    value: dict[str, float]


class LeavesById(Message):
    value: dict[int, Leaf]


class Leaves(Message):
    value: list[Leaf]


class TextsThenReal(Message):
    texts: list[Texts]
    real: float


class MapsInside(Message):
    rows: list[TextMaps]


class Pair(Message):
    code: int
    data: bytes


class Pairs(Message):
    value: Pair


def plan(message_type: type[Message], limits: Limits | None = None, version: int = 1) -> Plan[Any]:
    return MSGPACK.plan(message_type, version, limits or Limits())


WRITTEN: list[tuple[Message, str]] = [
    (Nothing(), "90"),
    (Three(sender="ann", text="hello", number=3), "93 a3616e6e a568656c6c6f 03"),
    (Number(value=127), "91 7f"),
    (Number(value=128), "91 cc80"),
    (Number(value=-33), "91 d0df"),
    (Number(value=-(2**63)), "91 d38000000000000000"),
    (Real(value=1.0), "91 cb3ff0000000000000"),
    (Real(value=math.nan), "91 cb7ff8000000000000"),
    (Real(value=struct.unpack(">d", bytes.fromhex("fff0000000000001"))[0]), "91 cb7ff8000000000000"),
    (Reals(value=[-math.nan, -0.0]), "91 92 cb7ff8000000000000 cb8000000000000000"),
    (Text(value="a" * 32), "91 d920" + "61" * 32),
    (Octets(value=b""), "91 c400"),
    (Truths(value=[True, False]), "91 92 c3 c2"),
    (Moment(value=datetime(1970, 1, 1, tzinfo=UTC)), "91 00"),
    (Moment(value=datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)), "91 ff"),
    (Moment(value=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)), "91 cf0384440ccc735fff"),
    (Chosen(value=Color.BLUE), "91 cd012c"),
    (Counts(value={"b": 1, "a": 2}), "91 82 a161 02 a162 01"),
    (Counts(value={"😀": 1, "\uffff": 2}), "91 82 a3efbfbf 02 a4f09f9880 01"),
    (ById(value={10: "", 9: "x", -1: "y"}), "91 83 ff a179 09 a178 0a a0"),
    (Leaves(value=[Leaf(name="x", color=Color.RED)]), "91 91 94 a178 00 90 01"),
]


@pytest.mark.parametrize(("message", "octets"), WRITTEN)
def test_canonical_form(message: Message, octets: str) -> None:
    """Each message has these bytes, and they give it back."""
    payload = bytes.fromhex(octets)
    assert plan(type(message)).encode(message) == payload
    found = plan(type(message)).decode(payload)
    assert plan(type(message)).encode(found) == payload


@pytest.mark.parametrize("message_type", [Singles, Optionals, Lists, Maps, Branch])
def test_bytes_are_those_of_the_other_library(message_type: type[Message]) -> None:
    """What msgspec writes for us is what msgpack writes for the same values, whatever they are."""

    @given(messages(message_type))
    def run(message: Message) -> None:
        payload = plan(message_type).encode(message)
        packer = msgpack.Packer()
        plain = msgpack.unpackb(payload, strict_map_key=False)
        assert packer.pack(plain) == payload
        assert msgspec.msgpack.encode(plain) == payload
        assert _sorted(to_plain(message)) == _sorted(plain)

    run()


def _sorted(value: Any) -> str:
    """The repr of plain data, maps in order of keys: so that NaN is NaN."""
    if isinstance(value, list):
        return f"[{','.join(map(_sorted, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key!r}:{_sorted(value[key])}' for key in sorted(value))}}}"
    return repr(value)


@pytest.mark.parametrize("count", [15, 16, 255, 256, 65_535, 65_536])
def test_long_containers_round_trip(count: int) -> None:
    """Lists and maps of each length class come back."""
    texts = Texts(value=["x"] * count)
    assert plan(Texts).decode(plan(Texts).encode(texts)) == texts
    by_id = ById(value=dict.fromkeys(range(count), ""))
    assert plan(ById).decode(plan(ById).encode(by_id)) == by_id


ALSO_READ: list[tuple[Message, bytes]] = [
    (Real(value=1.0), b"\x91\x01"),
    (Real(value=-2.0), b"\x91\xfe"),
    (Real(value=2.0**53), b"\x91\xcf" + (2**53).to_bytes(8)),
    (Real(value=1.5), b"\x91\xca" + struct.pack(">f", 1.5)),
    (Number(value=5), b"\x91\xd3" + (5).to_bytes(8)),
    (Text(value="x"), b"\x91\xdb\x00\x00\x00\x01x"),
    (Nothing(), b"\xdc\x00\x00"),
    (Counts(value={"a": 1, "b": 2}), b"\x91\x82\xa1b\x02\xa1a\x01"),
]


@pytest.mark.parametrize(("message", "payload"), ALSO_READ)
def test_other_forms_that_are_read(message: Message, payload: bytes) -> None:
    """Longer forms, exact integers for floats and maps in any order mean the same."""
    assert plan(type(message)).decode(payload) == message


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
LAST = (datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC) - EPOCH) // timedelta(microseconds=1)
"""Microseconds of the first and the last time there is."""


@given(st.integers(FIRST, LAST) | st.integers(-(2**63), 2**64 - 1))
@example(FIRST)
@example(FIRST - 1)
@example(LAST)
@example(LAST + 1)
@example(-(2**63))
@example(2**64 - 1)
def test_any_number_of_microseconds_is_its_time_or_refused(number: int) -> None:
    """An integer is that many microseconds since 1970, exactly; outside of the years 1 to 9999 it is refused."""
    if FIRST <= number <= LAST:
        found = plan(Moment).decode(packed(number)).value
        assert found == EPOCH + timedelta(microseconds=number)
        assert found.tzinfo is UTC
        assert plan(Moment).encode(Moment(value=found)) == packed(number)
    else:
        with pytest.raises(DecodeError, match=r"^Moment\.value: is not within the years 1 to 9999"):
            plan(Moment).decode(packed(number))


@given(st.floats())
def test_any_float_is_eight_bytes(number: float) -> None:
    """A float is written to the bit, but for NaN, of which there is one, and read so."""
    payload = b"\x91\xcb" + (bytes.fromhex("7ff8000000000000") if math.isnan(number) else struct.pack(">d", number))
    assert plan(Real).encode(Real(value=number)) == payload
    assert plan(Real).encode(plan(Real).decode(payload)) == payload


def packed(*items: object) -> bytes:
    return msgpack.Packer().pack(list(items)) or b""


REFUSED: list[tuple[type[Message], bytes, str]] = [
    (Three, b"", "Three: ends too early"),
    (Three, b"\x93\xa1a", "Three: ends too early"),
    (Three, b"\x93\xa1a\xa1b\xcd\x01", "Three: ends too early"),
    (Three, b"\xc1", "Three: is not MessagePack"),
    (Three, packed("a", "b", 1) + b"\x00", "Three: has bytes behind its end"),
    (Three, packed("a", "b"), "Three: has 2 fields, not 3"),
    (Three, packed("a", "b", 1, None), "Three: has 4 fields, not 3"),
    (Three, b"\xa3abc", "Three: is str, not Three"),
    (Three, b"\xc4\x03abc", "Three: is bytes, not Three"),
    (Three, b"\x83\x01\x01\x02\x02\x03\x03", "Three: is object, not Three"),
    (Three, b"\xc0", "Three: is None, not Three"),
    (Nothing, b"\xc0", "Nothing: is None, not Nothing"),
    (Nothing, b"\x91\xc0", "Nothing: has 1 fields, not 0"),
    (Number, packed(True), "Number.value: is bool, not int"),
    (Number, packed(1.0), "Number.value: is float, not int"),
    (Number, packed("1"), "Number.value: is str, not int"),
    (Number, packed(None), "Number.value: is None, not int"),
    (Number, packed(2**63), "Number.value: is not within"),
    (Real, packed(True), "Real.value: is bool, not float"),
    (Real, packed(2**53 + 1), "Real.value: is an int that no float equals"),
    (Real, packed(2**64 - 1), "Real.value: is an int that no float equals"),
    (Text, packed(b"a"), "Text.value: is bytes, not str"),
    (Text, b"\x91\xa1\xff", "Text: is not UTF-8"),
    (Text, b"\x91\xa3\xed\xa0\x80", "Text: is not UTF-8"),
    (Octets, packed("a"), "Octets.value: is str, not bytes"),
    (Texts, packed("abc"), "Texts.value: is str, not list[str]"),
    (Texts, packed(None), "Texts.value: is None, not list[str]"),
    (Texts, packed(["a", 1]), "Texts.value[1]: is int, not str"),
    (Texts, packed([["a"]]), "Texts.value[0]: is array, not str"),
    (Texts, packed({}), "Texts.value: is object, not list[str]"),
    (Leaves, packed([{}]), "Leaves.value[0]: is object, not Leaf"),
    (Leaves, packed([["x", 0, [], None], ["x", 0, []]]), "Leaves.value[1]: has 3 fields, not 4"),
    (Leaves, packed([["x", 0, [1], None]]), "Leaves.value[0].flags[0]: is int, not bool"),
    (Leaves, packed([["x", 0, [], 2]]), "Leaves.value[0].color: is no number of Color"),
    (Leaves, packed([["x", 0, [], True]]), "Leaves.value[0].color: is bool, not Color"),
    (Chosen, packed(0), "Chosen.value: is no number of Color"),
    (Chosen, packed(1.0), "Chosen.value: is float, not Color"),
    (Moment, packed(1.5), "Moment.value: is float, not datetime, an int of microseconds"),
    (Moment, packed(True), "Moment.value: is bool, not datetime"),
    (Moment, packed(2**62), "Moment.value: is not within the years 1 to 9999"),
    (Moment, packed(msgpack.Timestamp(3)), "Moment.value: is ext, not datetime"),
    (Counts, packed([]), "Counts.value: is array, not dict[str, int]"),
    (Counts, packed({b"a": 1}), "Counts.value: the key is bytes, not str"),
    (Counts, b"\x91\x81\x01\x01", "Counts.value: the key is int, not str"),
    (Counts, b"\x91\x82\xa1a\x01\xa1a\x02", "Counts.value: has the same key twice"),
    (CountsInside, b"\x91\x91\x91\x82\xa1a\x01\xa1a\x01", "CountsInside.value[0].value: has the same key twice"),
    (Counts, b"\x91\xde\x00\x02\xa1a\x01\xa1a\x02", "Counts.value: has the same key twice"),
    (Counts, b"\x91\xdf\x00\x00\x00\x02\xa1a\x01\xa1a\x02", "Counts.value: has the same key twice"),
    (Counts, packed({"a": "1"}), "Counts.value[#0]: is str, not int"),
    (ById, packed({"1": "a"}), "ById.value: the key is str, not int"),
    (ById, packed({True: "a"}), "ById.value: the key is bool, not int"),
    (ById, packed({1.0: "a"}), "ById.value: the key is float, not int"),
    (ById, packed({None: "a"}), "ById.value: the key is None, not int"),
    (ById, packed({2**63: "a"}), "ById.value[#0]: the key is not within"),
    (ById, b"\x91\x82\x01\xa0\xc3\xa0", "ById.value: the key is bool, not int"),
    (ById, b"\x91\x82\x01\xa0\xcc\x01\xa0", "ById.value: has the same key twice"),
    (ById, b"\x91\x81\x90\xa0", "ById.value: the key is array, not int"),
    (RealsByName, packed({"a": 1.5, "b": 2**53 + 1}), "RealsByName.value[#1]: is an int that no float equals"),
    (ById, b"\x91\x82\x01\x05\x01\xa0", "ById.value: has the same key twice, and one value is wrong"),
    (LeavesById, packed({1: ["x", 0, []]}), "LeavesById.value[#0]: has 3 fields, not 4"),
    (Pairs, packed(msgpack.ExtType(5, b"x")), "Pairs.value: is ext, not Pair"),
    (Pairs, b"\x91\xc7\x00\x05", "Pairs.value: is ext, not Pair"),
]


@pytest.mark.parametrize(("message_type", "payload", "words"), REFUSED, ids=lambda value: repr(value)[:30])
def test_refusals(message_type: type[Message], payload: bytes, words: str) -> None:
    """Each payload is refused with a path and a problem."""
    with pytest.raises(DecodeError) as caught:
        plan(message_type).decode(payload)
    path, problem = words.split(": ", 1)
    assert caught.value.path == path
    assert any(caught.value.problem.startswith(each) for each in problem.split("|")), caught.value.problem


BOMBS = [b"\x91", b"\x81\xa0", b"\x81\x01", b"\xdd\x00\x00\x00\x01", b"\xdf\x00\x00\x00\x01\xa0", b"\x92\xc0", b"\x90"]


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("message_type", [Lists, Maps, Three, Nothing])
def test_nesting_bombs_end_in_decode_error(message_type: type[Message], bomb: bytes) -> None:
    """A megabyte of opened arrays and maps, in a server's thread, is refused within milliseconds."""
    payload = bomb * (2**20 // len(bomb))
    outcome: list[object] = []

    def decode() -> None:
        begun = time.thread_time()
        try:
            plan(message_type).decode(payload)
        except DecodeError as error:
            outcome.append(error)
        outcome.append(time.thread_time() - begun)

    thread = threading.Thread(target=decode)
    thread.start()
    thread.join(20)
    found, taken = outcome
    assert isinstance(found, DecodeError)
    assert isinstance(taken, float)
    assert taken < 0.05


def peak_of(message_type: type[Message], payload: bytes) -> int:
    """Bytes allocated while the payload is refused."""
    decode = plan(message_type).decode
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode(payload)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


CLAIMS = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
          b"\xc9\xff\xff\xff\xff\x05", b"\xdc\xff\xff", b"\x91\xdd\x00\x01\x00\x01"]  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("message_type", [Texts, ById])
def test_claimed_lengths_allocate_nothing(message_type: type[Message], claim: bytes) -> None:
    """A few bytes that announce gigabytes are refused, and take no memory."""
    assert peak_of(message_type, claim) < 64 * 1024


@pytest.mark.parametrize("claim", [b"\xdc\xff\xff", b"\xdd\x00\x01\x00\x00", b"\xde\xff\xff\xa0"])
@pytest.mark.parametrize("message_type", [Lists, Maps, Three])
def test_claims_within_claims_allocate_nothing(message_type: type[Message], claim: bytes) -> None:
    """Three kilobytes of arrays that each announce what is allowed take less than a page per level."""
    assert peak_of(message_type, claim * 1000) < 512 * 1024


def amplified(unit: bytes, length: int) -> bytes:
    """Arrays of 65,536 units within an array: what the limit on elements lets through."""
    groups = max(1, length // len(unit) // 65_536)
    return b"\xdd" + groups.to_bytes(4) + (b"\xdd\x00\x01\x00\x00" + unit * 65_536) * groups


@pytest.mark.parametrize("unit", [b"\x90", b"\x80", b"\xa0", b"\x91\xc0", b"\x81\xa0\xc0", b"\xcb" + b"\x01" * 8])
@pytest.mark.parametrize("message_type", [Texts, TextMaps])
def test_amplification_is_bounded(message_type: type[Message], unit: bytes) -> None:
    """A frame of the smallest values takes at most 80 times its length in memory."""
    payload = amplified(unit, 2**19)
    assert peak_of(message_type, payload) < 80 * len(payload)


MANY = b"\xdd\x00\x00\xff\xff"

COSTLY: list[tuple[type[Message], bytes]] = [
    (TextsThenReal, b"\x92" + MANY + b"\x91\x90" * 65_535 + b"\x01"),
    (TextsThenReal, b"\x92" + MANY + b"\x91\x90" * 65_535 + b"\xcf\x00\x20\x00\x00\x00\x00\x00\x01"),
    (MapsInside, b"\x91" + MANY + b"\x91\x80" * 65_535),
    (MapsInside, b"\x91" + MANY + b"\x91\x81\xa0\xa0" * 65_535),
    (MapsInside, b"\x91\xdd\x00\x02\x00\x00" + b"\x91\x80" * 131_072),
    (Reals, b"\x91" + MANY + b"\x01" * 65_535),
]


@pytest.mark.parametrize(("message_type", "payload"), COSTLY, ids=lambda value: repr(value)[:30])
def test_amplification_by_what_is_declared_is_bounded(message_type: type[Message], payload: bytes) -> None:
    """Neither do the smallest messages of costly types, be they refused in the end or not."""
    decode = plan(message_type).decode
    tracemalloc.start()
    try:
        with contextlib.suppress(DecodeError):
            decode(payload)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 * len(payload), f"{peak / len(payload):.1f} times"


def test_older_versions_are_shorter_arrays() -> None:
    """A version writes the fields it has, nested messages, too, and reads exactly those."""
    message = Grown(first="a", twig=Twig(name="b"), twigs=[Twig(name="c")])
    first, second = plan(Grown, version=1), plan(Grown, version=2)
    assert first.encode(message) == packed("a", ["b"], [["c"]])
    assert second.encode(message) == packed("a", ["b", ""], [["c", ""]], 5, False, [])
    assert first.decode(first.encode(message)) == message
    with pytest.raises(DecodeError, match="has 3 fields, not 6"):
        second.decode(first.encode(message))
    with pytest.raises(DecodeError, match="has 6 fields, not 3"):
        first.decode(second.encode(message))


def test_encoding_refuses_with_a_path() -> None:
    """A wrong value deep inside is named by its path, and not shown."""
    message = Branch(ratio=1.0, leaves=[Leaf(name="ok"), Leaf(name="s3cret\ud800")])
    with pytest.raises(EncodeError) as caught:
        plan(Branch).encode(message)
    assert caught.value.path == "Branch.leaves[1].name"
    assert "s3cret" not in str(caught.value)
