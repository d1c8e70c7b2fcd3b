"""The protobuf codec, against the official runtime with the published descriptors."""

import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from types import FunctionType
from typing import Any, cast

import pytest
from google.protobuf.internal import api_implementation
from hypothesis import given
from hypothesis import strategies as st

from tests.codecs.protobuf_wire import (
    BYTES,
    FIXED64,
    PLAIN,
    VARINT,
    Colored,
    Held,
    Many,
    Plain,
    Reals,
    Timed,
    plan,
    refusal,
    tag,
)
from tests.protos.declarations import (
    Color2D,
    Deep,
    Empty,
    EverythingRequest,
    EverythingResponse,
    KeywordsRequest,
    KeywordsResponse,
    Point,
    Zeros,
)
from tests.protos.values import messages, stock_class, to_stock
from tests.protos.versions import GrowRequest, GrowResponse, Leaf
from wireproto.codecs.protobuf import ProtobufCodec
from wireproto.errors import ConfigError, EncodeError
from wireproto.schema import Message

# The same as in any stock client ----------------------------------------------------------------------------------


@given(messages(EverythingRequest))
def test_writes_what_a_stock_client_writes(message: EverythingRequest) -> None:
    """Without maps, whose order is free, the bytes are those of the runtime with the published descriptor."""
    payload = plan(EverythingRequest).encode(message)
    assert payload == to_stock(message).SerializeToString()
    assert plan(EverythingRequest).decode(payload) == message


@given(messages(EverythingResponse))
def test_maps_and_lists_mean_the_same_to_a_stock_client(message: EverythingResponse) -> None:
    """A stock client reads the message that was meant, and what it writes is read as it was meant."""
    payload = plan(EverythingResponse).encode(message)
    stock = to_stock(message)
    assert stock_class(EverythingResponse).FromString(payload) == stock
    assert len(payload) == stock.ByteSize()
    assert plan(EverythingResponse).decode(payload) == message
    assert plan(EverythingResponse).decode(stock.SerializeToString()) == message


@given(messages(KeywordsRequest))
def test_reserved_words_are_names_like_others(message: KeywordsRequest) -> None:
    """Fields that are called as .proto keywords work as any other."""
    payload = plan(KeywordsRequest).encode(message)
    assert stock_class(KeywordsRequest).FromString(payload) == to_stock(message)
    assert plan(KeywordsRequest).decode(payload) == message


@given(messages(EverythingResponse))
def test_bytes_do_not_depend_on_the_order_of_a_map(message: EverythingResponse) -> None:
    """A map that was filled in another order is written the same."""
    turned: dict[str, Any] = {
        name: dict(reversed(value.items())) if isinstance(value := getattr(message, name), dict) else value
        for name in message.__struct_fields__
    }
    encode = plan(EverythingResponse).encode
    assert encode(EverythingResponse(**turned)) == encode(message)


# Canonical form ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (PLAIN, "3007"),
        (Plain(number=-1, text="é", flag=True, maybe=0, seven=0), "08ffffffffffffffffff01 1202c3a9 1801 2800 3000"),
        (Plain(number=150, text="a", flag=False, big=2**64 - 1), "089601 120161 20ffffffffffffffffff01 3007"),
        (Plain(number=0, text="", flag=False, color=Color2D.DARK_BLUE), "3007 38ffffffff07"),
        (Point(x=0), ""),
        (Held(point=Point(x=0)), "0a00"),
        (Empty(), ""),
        (Many(numbers=[0, 1, -1]), "0a0c 00 01 ffffffffffffffffff01"),
        (Many(texts=["", "a"]), "1200 120161"),
        (
            Many(counts={"b": 0, "": 1, "a": -1}),
            "1a04 0a00 1001  1a0e 0a0161 10ffffffffffffffffff01  1a05 0a0162 1000",
        ),
        (
            Many(points={2: Point(x=0), -1: Point(x=1, y=2)}),
            "2211 08ffffffffffffffffff01 1204 0801 1002  2204 0802 1200",
        ),
        (Timed(at=datetime(1970, 1, 1, tzinfo=UTC)), "0a00"),
        (Timed(at=datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)), "0a11 08ffffffffffffffffff01 10988cebdc03"),
    ],
)
def test_golden_bytes(message: Message, expected: str) -> None:
    """A message is always written as these bytes."""
    assert plan(type(message)).encode(message).hex() == expected.replace(" ", "")


def test_maps_are_in_the_order_of_their_keys() -> None:
    """Entries are sorted by key: numbers by value, text by code point, a prefix before what it begins."""
    keys = ["", "Z", "a", "aa", "b", "é", "\uffff", "\U0001f600"]
    written = plan(Many).encode(Many(counts=dict.fromkeys(reversed(keys), 1)))
    assert [bytes(entry) for entry in _fields(written)] == [
        tag(1, BYTES, key.encode()) + tag(2, VARINT, 1) for key in keys
    ]
    numbers = [-(2**63), -1, 0, 1, 300, 2**63 - 1]
    written = plan(Many).encode(Many(points=dict.fromkeys(reversed(numbers), Point(x=0))))
    assert [entry.partition(b"\x12")[0] for entry in _fields(written)] == [tag(1, VARINT, key) for key in numbers]


def _fields(payload: bytes) -> Iterator[bytes]:
    """The contents of short fields of bytes."""
    at = 0
    while at < len(payload):
        size = payload[at + 1]
        yield payload[at + 2 : at + 2 + size]
        at += 2 + size


@pytest.mark.parametrize("bits", ["7ff8000000000001", "fff8000000000000", "7ff0000000000001", "ffffffffffffffff"])
def test_every_nan_is_written_the_same(bits: str) -> None:
    """Whatever its sign and payload, NaN is 7ff8000000000000 on the wire, in every place."""
    (nan,) = struct.unpack(">d", bytes.fromhex(bits))
    message = Reals(one=nan, zero=nan, none=nan, every=[nan, 1.0], by={"k": nan})
    written = plan(Reals).encode(message)
    canonical = struct.pack("<Q", 0x7FF8 << 48)
    assert written.count(canonical) == 5
    assert struct.pack("<d", nan) == canonical or struct.pack("<d", nan) not in written
    read = plan(Reals).decode(tag(1, FIXED64, struct.pack("<d", nan)))
    assert math.isnan(read.one)


def test_negative_zero_is_kept() -> None:
    """-0.0 travels, also where 0.0 is the default and left out."""
    message = Reals(one=-0.0, zero=-0.0, every=[-0.0])
    read = plan(Reals).decode(plan(Reals).encode(message))
    assert [math.copysign(1, each) for each in (read.one, read.zero, *read.every)] == [-1, -1, -1]
    assert plan(Reals).encode(Reals(one=0.0)) == b""


# Presence ---------------------------------------------------------------------------------------------------------


def test_what_is_absent_is_zero_or_the_default() -> None:
    """Nothing at all is a message of zeros, of None and of declared defaults."""
    assert plan(Plain).decode(b"") == PLAIN
    assert plan(Zeros).decode(b"") == Zeros(number=0, text="")
    assert plan(EverythingResponse).decode(b"") == EverythingResponse()


def test_zero_and_absent_differ_where_none_is_a_value() -> None:
    """An optional field that is there is its value, even when that is zero."""
    assert plan(Plain).decode(tag(5, VARINT, 0)).maybe == 0
    assert plan(Plain).decode(tag(6, VARINT, 0)).seven == 0


def test_absent_messages_and_timestamps_are_refused_by_name() -> None:
    """A message or timestamp that is not optional must be there, at every depth."""
    assert refusal(Held, b"") == "Held.point: is absent"
    assert refusal(Timed, b"") == "Timed.at: is absent"
    deep = tag(1, BYTES, b"")
    assert refusal(Deep, deep) == "Deep.at: is absent"
    assert refusal(EverythingResponse, tag(11, BYTES, deep)) == "EverythingResponse.deeps[0].at: is absent"
    entry = tag(1, BYTES, b"k") + tag(2, BYTES, deep)
    assert refusal(EverythingResponse, tag(22, BYTES, entry)) == "EverythingResponse.deeps_by[#0].at: is absent"


def test_what_a_map_entry_lacks_is_zero() -> None:
    """An entry without key or value means their zeros, as protobuf has it."""
    assert plan(Many).decode(tag(3, BYTES, b"")).counts == {"": 0}
    assert plan(Many).decode(tag(4, BYTES, tag(1, VARINT, 5))).points == {5: Point(x=0)}
    assert plan(Many).decode(tag(7, BYTES, b"")).moments_by == {"": datetime(1970, 1, 1, tzinfo=UTC)}


# Enums and timestamps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, -1, 2**31, 2**32 + 1, 2**63 - 1, -(2**63), 2**64 - 1])
def test_enum_numbers_are_not_cut_to_32_bits(number: int) -> None:
    """A number that is no member is refused, also when its low bits are one."""
    assert stock_class(Colored).FromString(tag(1, VARINT, 2**32 + 1)).color == 1, "what the runtime does by itself"
    assert refusal(Colored, tag(1, VARINT, number)) == "Colored.color: is no number of Color2D; it has 1, 2147483647"


def test_an_absent_enum_is_refused_unless_it_is_optional() -> None:
    """0, the _UNSPECIFIED of a .proto, is never a value."""
    assert refusal(Colored, b"") == "Colored.color: is absent"
    assert refusal(Colored, tag(1, VARINT, 0)) == "Colored.color: is absent"
    assert plan(Plain).decode(b"").color is None
    assert refusal(Plain, tag(7, VARINT, 0)).startswith("Plain.color: is no number")
    assert refusal(Many, tag(5, BYTES, b"\x01\x00")).startswith("Many.colors[1]: is no number")


@given(st.datetimes(timezones=st.just(UTC)))
def test_timestamps_are_those_of_the_runtime(at: datetime) -> None:
    """Every datetime is written and read as google.protobuf.Timestamp."""
    written = plan(Timed).encode(Timed(at=at))
    stock = stock_class(Timed).FromString(written)
    assert stock.at.ToDatetime(UTC) == at
    assert plan(Timed).decode(written) == Timed(at=at)


def stamp(seconds: int, nanos: int) -> bytes:
    """A timestamp on the wire."""
    return tag(1, BYTES, tag(1, VARINT, seconds) + tag(2, VARINT, nanos))


@pytest.mark.parametrize(
    ("nanos", "microseconds"), [(0, 0), (1, 0), (999, 0), (1000, 1), (1999, 1), (999_999_999, 999_999)]
)
def test_a_timestamp_is_cut_to_the_microsecond(nanos: int, microseconds: int) -> None:
    """Go, Java and C# write nanoseconds for "now"."""
    payload = plan(Timed).decode(stamp(0, nanos))
    assert payload.at == datetime(1970, 1, 1, 0, 0, 0, microseconds, UTC)


@pytest.mark.parametrize(
    ("seconds", "nanos", "problem"),
    [
        (0, -1000, "has nanoseconds that are not within 0 to 999999999"),
        (0, 1_000_000_000, "has nanoseconds that are not within 0 to 999999999"),
        (0, 2**32 + 1000, "has nanoseconds that are not within 0 to 999999999"),
        (253_402_300_800, 0, "is not within the years 1 to 9999"),
        (-62_135_596_801, 999_999_000, "is not within the years 1 to 9999"),
        (2**63 - 1, 0, "is not within the years 1 to 9999"),
        (-(2**63), 0, "is not within the years 1 to 9999"),
    ],
)
def test_timestamps_that_no_datetime_holds_are_refused(seconds: int, nanos: int, problem: str) -> None:
    """Denormal nanoseconds and other years are refused and never rounded."""
    assert refusal(Timed, stamp(seconds, nanos)) == f"Timed.at: {problem}"


def test_the_first_and_the_last_moment_are_accepted() -> None:
    """The years 1 to 9999 are whole."""
    assert plan(Timed).decode(stamp(-62_135_596_800, 0)).at == datetime.min.replace(tzinfo=UTC)
    assert plan(Timed).decode(stamp(253_402_300_799, 999_999_000)).at == datetime.max.replace(tzinfo=UTC)


# Limits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (Many(numbers=[1] * 5), "Many.numbers"),
        (Many(texts=["a"] * 5), "Many.texts"),
        (Many(counts={str(each): 0 for each in range(5)}), "Many.counts"),
        (Many(points={each: Point(x=0) for each in range(5)}), "Many.points"),
        (Many(moments=[datetime(2000, 1, 1, tzinfo=UTC)] * 5), "Many.moments"),
    ],
)
def test_containers_have_a_limit(message: Many, path: str) -> None:
    """One element more than the limit is refused both ways; as many as the limit are not."""
    exact, less = plan(Many, max_elements=5), plan(Many, max_elements=4)
    payload = exact.encode(message)
    assert exact.decode(payload) == message
    assert refusal(Many, payload, max_elements=4) == f"{path}: has more than 4 elements"
    with pytest.raises(EncodeError, match=f"{path}: has more than 4 elements"):
        less.encode(message)


def test_nested_containers_have_the_limit_too() -> None:
    """The limit holds at every depth."""
    deep = Deep(point=Point(x=0), at=datetime(2000, 1, 1, tzinfo=UTC), points=[Point(x=0)] * 5)
    payload = plan(EverythingResponse).encode(EverythingResponse(deeps=[deep]))
    assert "deeps[0].points: has more than 4" in refusal(EverythingResponse, payload, max_elements=4)
    with pytest.raises(EncodeError, match=r"deeps\[0\]\.points: has more than 4 elements"):
        plan(EverythingResponse, max_elements=4).encode(EverythingResponse(deeps=[deep]))


# The checks of the declaration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"number": True}, "Plain.number"),
        ({"number": 2**63}, "Plain.number"),
        ({"number": 1.0}, "Plain.number"),
        ({"big": -1}, "Plain.big"),
        ({"text": "\ud800"}, "Plain.text"),
        ({"text": b"bytes"}, "Plain.text"),
        ({"flag": 1}, "Plain.flag"),
        ({"flag": None}, "Plain.flag"),
        ({"color": 1}, "Plain.color"),
    ],
)
def test_values_that_are_not_as_declared_are_not_written(values: dict[str, Any], path: str) -> None:
    """Encoding checks types, ranges and text, and names the field."""
    message = Plain(**{"number": 0, "text": "", "flag": False, **values})
    with pytest.raises(EncodeError) as caught:
        plan(Plain).encode(message)
    assert caught.value.path == path


def test_another_class_is_not_written() -> None:
    """A plan writes its own class only."""
    for wrong in (Point(x=0), None, 5):
        with pytest.raises(EncodeError):
            plan(Plain).encode(wrong)


def test_bounds_hold_both_ways() -> None:
    """What a declaration bounds is refused beyond it, written or read."""
    good = KeywordsResponse(port=80, digest=b"0" * 16, shares=[0.5])
    payload = plan(KeywordsResponse, 2).encode(good)
    assert plan(KeywordsResponse, 2).decode(payload) == good
    assert "KeywordsResponse.port" in refusal(KeywordsResponse, payload + tag(1, VARINT, 0), version=2)
    assert "KeywordsResponse.shares" in refusal(
        KeywordsResponse, payload + tag(4, FIXED64, b"\0" * 7 + b"\xc0"), version=2
    )
    with pytest.raises(EncodeError, match=r"KeywordsResponse\.digest"):
        plan(KeywordsResponse, 2).encode(KeywordsResponse(port=80, digest=b"", shares=[1.0]))


# Versions ---------------------------------------------------------------------------------------------------------


def test_requests_refuse_what_the_version_lacks() -> None:
    """A value of a newer field is an error in a request, unless the field may be dropped."""
    encode = plan(GrowRequest, 1).encode
    assert encode(GrowRequest(size=1)) == tag(1, VARINT, 1)
    assert encode(GrowRequest(size=1, color=6)) == tag(1, VARINT, 1)
    with pytest.raises(EncodeError, match=r"GrowRequest\.leaf"):
        encode(GrowRequest(size=1, leaf=Leaf(number=1)))
    with pytest.raises(EncodeError, match=r"leaf\.name"):
        plan(GrowRequest, 2).encode(GrowRequest(size=1, leaf=Leaf(number=1, name="x")))


def test_responses_leave_out_what_the_version_lacks() -> None:
    """A value of a newer field stays behind in a response; the other side has its default."""
    message = GrowResponse(size=1, leaf=Leaf(number=2, name="x"))
    assert plan(GrowResponse, 1, request=False).encode(message) == tag(1, VARINT, 1)
    written = plan(GrowResponse, 2, request=False).encode(message)
    assert plan(GrowResponse, 2).decode(written) == GrowResponse(size=1, leaf=Leaf(number=2))


def test_fields_of_a_newer_version_are_unknown() -> None:
    """A payload with more fields than the version has is refused."""
    newer = plan(GrowResponse, 3, request=False).encode(GrowResponse(size=1)) + tag(2, BYTES, b"")
    assert plan(GrowResponse, 3).decode(newer).leaf is not None
    assert refusal(GrowResponse, newer, version=1) == "GrowResponse: has an unknown field, number 2"


def test_it_needs_the_runtime_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the pure-Python runtime the codec refuses to be made, and says what to do."""
    code = (
        "from wireproto import codecs\ntry:\n codecs.get('protobuf')\nexcept Exception as e: print(type(e).__name__, e)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("ConfigError the protobuf codec needs the protobuf runtime 'upb'"), done
    monkeypatch.setattr(api_implementation, "Type", lambda: "python")
    with pytest.raises(ConfigError, match="install protobuf from a binary wheel"):
        ProtobufCodec()


def test_what_the_runtime_cannot_do_is_an_encode_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the runtime raises for a sound message comes out as EncodeError, without its text."""
    made = plan(Plain)
    function = cast(FunctionType, made.encode)

    def fail(message: object) -> bytes:
        raise MemoryError("secret")

    monkeypatch.setitem(function.__globals__, "serialize", fail)
    with pytest.raises(EncodeError, match=r"^Plain: does not fit in memory$"):
        made.encode(Plain(number=1, text="a", flag=True))


def test_flat_messages_and_nested_ones_look_for_unknown_fields_differently() -> None:
    """Both ways of looking are in use in these tests, so both are tested above."""
    sources = {cls: plan(cls).decode.__code__.co_names for cls in (Plain, Held, Many)}
    assert "unknown" in sources[Plain]
    assert "unknown" not in sources[Many]
    assert "discard" in sources[Many]
