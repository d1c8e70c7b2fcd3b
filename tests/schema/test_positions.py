"""The positions of a resumable stream: which field may hold them, and how they are written."""

from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.schema.declaring import Color, Point
from wireproto import Bounds, DeclarationError, DecodeError, EncodeError, Message, Service, Since, StreamMethod, UInt64
from wireproto.schema import MAX_POSITION, Positions


class WatchRequest(Message):
    pass


class Tick(Message, kw_only=True):
    number: int
    count: UInt64
    name: str
    mark: bytes
    ratio: float
    flag: bool
    color: Color
    point: Point
    perhaps: int | None = None
    names: list[str] = []
    narrow: Annotated[int, Bounds(ge=0, le=9)] = 0
    newer: Annotated[int, Since(2)] = 0


class Bare(Message):
    pass


def declared(name: Any, since: int = 1, item: type[Message] = Tick) -> Service:
    method = StreamMethod(opcode=1, name="Watch", request=WatchRequest, response=item, resumable=name, since=since)
    return Service("example.v1.WatchingService", 2, [method])


@pytest.mark.parametrize("name", ["number", "count", "name", "mark", "narrow"])
def test_a_position_is_a_number_a_text_or_bytes(name: str) -> None:
    """Any field of one of the four types will do."""
    declared(name)
    declared("newer", since=2)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nothing", "give the name of a field of Tick, which has number, count,"),
        (7, "resumable is 7"),
        ("", "resumable is ''"),
        ("ratio", r"Tick.ratio is float; a position is an int, a UInt64, a str or bytes"),
        ("flag", "Tick.flag is bool"),
        ("color", "Tick.color is Color"),
        ("point", "Tick.point is Point"),
        ("perhaps", r"Tick.perhaps is int \| None"),
        ("names", r"Tick.names is list\[str\]"),
        ("newer", "since version 2 and the method since version 1"),
    ],
)
def test_what_cannot_hold_a_position_is_refused(name: object, problem: str) -> None:
    """The text says which field, and what there is."""
    with pytest.raises(DeclarationError, match=problem):
        declared(name)


@pytest.mark.parametrize("slow", ["", "drop", None, 1])
def test_what_becomes_of_the_slow_is_one_of_three(slow: Any) -> None:
    """And the text says which."""
    with pytest.raises(DeclarationError, match="write 'pause', 'drop_oldest' or 'end'"):
        StreamMethod(opcode=1, name="Watch", request=WatchRequest, response=Tick, slow=slow)


def test_an_item_without_fields_has_no_position() -> None:
    """And the text says so."""
    with pytest.raises(DeclarationError, match="a field of Bare, which has none"):
        declared("number", item=Bare)


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("number", 0, b"0"),
        ("number", -(2**63), b"-9223372036854775808"),
        ("number", 2**63 - 1, b"9223372036854775807"),
        ("count", 2**64 - 1, b"18446744073709551615"),
        ("name", "é|\n\0", "é|\n\0".encode()),
        ("name", "x" * MAX_POSITION, b"x" * MAX_POSITION),
        ("mark", b"\0\xff", b"\0\xff"),
    ],
)
def test_positions_are_written_so(name: str, value: Any, written: bytes) -> None:
    """The same whatever the codec, and read back as the field has them."""
    positions = Positions(Tick, name)
    assert positions.write(value) == written
    assert positions.read(written) == value
    assert type(positions.read(written)) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("number", 2**63, "an int of -2"),
        ("number", True, "not bool"),
        ("number", "1", "not str"),
        ("count", -1, "an int of 0 to"),
        ("name", b"x", "a position here is str, not bytes"),
        ("name", "", "1 to 64 bytes, and this one has 0"),
        ("name", "é" * 33, "this one has 66"),
        ("name", "\ud800", "lone surrogate"),
        ("mark", "x", "a position here is bytes, not str"),
        ("mark", b"", "this one has 0"),
        ("mark", bytes(65), "this one has 65"),
    ],
)
def test_what_is_no_position_is_not_written(name: str, value: Any, problem: str) -> None:
    """The error has the path of the field."""
    with pytest.raises(EncodeError, match=problem) as caught:
        Positions(Tick, name).write(value)
    assert caught.value.path == f"Tick.{name}"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        *[
            ("number", each)
            for each in (b"", b"-", b"-0", b"+1", b"01", b" 1", b"1 ", b"1_0", b"0x1", b"9223372036854775808", b"\xb2")
        ],
        ("number", "١".encode()),  # a digit, to Python
        ("number", b"1" * 64),
        ("count", b"-1"),
        ("count", b"18446744073709551616"),
        ("name", b"\xff"),
        ("name", b"\xed\xa0\x80"),
    ],
)
def test_what_is_no_position_is_not_read(name: str, written: bytes) -> None:
    """One way to write a number, and no other."""
    with pytest.raises(DecodeError, match="the position is"):
        Positions(Tick, name).read(written)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1), st.text(max_size=16), st.binary(max_size=64))
def test_what_is_written_is_read(number: int, count: int, name: str, mark: bytes) -> None:
    """Every position of every type comes back, and no two are written alike."""
    for field, value in (("number", number), ("count", count), ("name", name), ("mark", mark)):
        if value in ("", b""):
            continue
        positions = Positions(Tick, field)
        written = positions.write(value)
        assert 1 <= len(written) <= MAX_POSITION
        assert positions.read(written) == value


@given(st.binary(min_size=1, max_size=MAX_POSITION))
def test_what_is_read_is_written_so(written: bytes) -> None:
    """Whatever bytes come: they are refused, or there is no other way to write what they mean."""
    for field in ("number", "count", "name", "mark"):
        positions = Positions(Tick, field)
        try:
            value = positions.read(written)
        except DecodeError:
            continue
        assert positions.write(value) == written
