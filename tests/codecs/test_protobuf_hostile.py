"""The protobuf codec against bytes that are not as declared: refused by name, never read wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codecs.protobuf_wire import (
    BYTES,
    END,
    FIXED32,
    FIXED64,
    START,
    VARINT,
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
    Deep,
    Empty,
    EverythingRequest,
    EverythingResponse,
    KeywordsResponse,
    Point,
)
from tests.protos.values import messages
from wireproto.errors import DecodeError
from wireproto.schema import Message, compile_refusal

# Bytes that are not as declared -----------------------------------------------------------------------------------

_UNKNOWN = tag(99, VARINT, 1)


@pytest.mark.parametrize(
    ("cls", "payload", "path"),
    [
        (Plain, _UNKNOWN, "Plain"),
        (Plain, tag(99, START, b"") + tag(99, END, b""), "Plain"),
        (Plain, tag(99, BYTES, b"x" * 1000), "Plain"),
        (Plain, tag(99, FIXED64, b"12345678"), "Plain"),
        (Plain, tag(99, FIXED32, b"1234"), "Plain"),
        (Plain, tag(2**29 - 1, VARINT, 0), "Plain"),
        (Empty, _UNKNOWN, "Empty"),
        (Held, tag(1, BYTES, _UNKNOWN), "Held.point"),
        (Held, tag(1, BYTES, b"") + tag(2, BYTES, _UNKNOWN), "Held.at"),
        (Timed, tag(1, BYTES, _UNKNOWN), "Timed.at"),
        (Many, tag(4, BYTES, tag(2, BYTES, _UNKNOWN)), "Many.points[#0]"),
        (Many, tag(6, BYTES, b"") + tag(6, BYTES, _UNKNOWN), "Many.moments[1]"),
        (Many, tag(7, BYTES, tag(2, BYTES, _UNKNOWN)), "Many.moments_by[#0]"),
        (Deep, tag(1, BYTES, b"") + tag(2, BYTES, b"") + tag(3, BYTES, _UNKNOWN), "Deep.points[0]"),
    ],
)
def test_unknown_fields_are_refused_wherever_they_are(cls: type[Message], payload: bytes, path: str) -> None:
    """A field that the declaration lacks is refused in the message, in nested ones, in lists and in maps."""
    assert refusal(cls, payload).startswith(f"{path}: has an unknown field, number ")


@pytest.mark.parametrize("cls", [Plain, Held, Many])
def test_a_flood_of_unknown_fields_is_refused_unread(cls: type[Message]) -> None:
    """Of a large payload no unknown field is looked at, since thousands of them would cost milliseconds."""
    nested = tag(1, BYTES, _UNKNOWN * 2000) if cls is Held else _UNKNOWN * 2000
    assert refusal(cls, nested) == f"{cls.__name__}: has unknown fields, or known ones of another wire type"


def test_large_payloads_are_read_like_small_ones() -> None:
    """What is looked for differently in large payloads does not differ in what is accepted."""
    message = Plain(number=1, text="é" * 5000, flag=True)
    assert plan(Plain).decode(plan(Plain).encode(message)) == message


def test_unknown_fields_of_map_entries_are_refused() -> None:
    """An entry has a key and a value and nothing else."""
    for payload in (tag(3, BYTES, _UNKNOWN), tag(4, BYTES, tag(1, VARINT, 1) + _UNKNOWN)):
        assert "has an entry with an unknown field" in refusal(Many, payload)


@pytest.mark.parametrize(
    ("cls", "payload", "path"),
    [
        (Plain, tag(1, BYTES, b"1"), "Plain.number"),
        (Plain, tag(1, FIXED64, b"12345678"), "Plain.number"),
        (Plain, tag(2, VARINT, 1), "Plain.text"),
        (Plain, tag(2, START, b"") + tag(2, END, b""), "Plain.text"),
        (Plain, tag(3, FIXED32, b"1234"), "Plain.flag"),
        (Held, tag(1, VARINT, 1), "Held.point"),
        (Held, tag(1, START, b"") + tag(1, END, b""), "Held.point"),
        (Many, tag(1, FIXED64, b"12345678"), "Many.numbers"),
        (Many, tag(3, VARINT, 1), "Many.counts"),
        (Reals, tag(1, FIXED32, b"1234"), "Reals.one"),
    ],
)
def test_another_wire_type_is_refused(cls: type[Message], payload: bytes, path: str) -> None:
    """A known number in another wire type is an unknown field to protobuf; here it is refused."""
    assert refusal(cls, payload).startswith(path)


def test_an_entry_whose_value_is_of_another_type_is_refused() -> None:
    """A map entry cannot hold a key or value of another wire type."""
    for entry in (tag(1, VARINT, 1), tag(1, BYTES, b"k") + tag(2, BYTES, b"v")):
        assert refusal(Many, tag(3, BYTES, entry)).startswith("Many.counts: has an entry")


def test_what_comes_twice_follows_protobuf() -> None:
    """Of a plain field and of a map's key the last one counts; a message is merged; lists in pieces are joined."""
    assert plan(Plain).decode(tag(1, VARINT, 1) + tag(1, VARINT, 2)).number == 2
    assert plan(Held).decode(tag(1, BYTES, tag(1, VARINT, 1)) + tag(1, BYTES, tag(2, VARINT, 2))).point == Point(
        x=1, y=2
    )
    entries = b"".join(tag(3, BYTES, tag(1, BYTES, b"k") + tag(2, VARINT, number)) for number in (1, 2))
    assert plan(Many).decode(entries).counts == {"k": 2}
    pieces = tag(1, BYTES, b"\x01\x02") + tag(1, VARINT, 3) + tag(2, BYTES, b"a") + tag(1, BYTES, b"")
    assert plan(Many).decode(pieces).numbers == [1, 2, 3]


@pytest.mark.parametrize("value", [1, 2, 2**32, 2**63, 2**64 - 1])
def test_any_integer_but_zero_is_true(value: int) -> None:
    """A bool is a varint, as protobuf has it; none is cut to false."""
    assert plan(Plain).decode(tag(3, VARINT, value)).flag is True


BAD_UTF_8 = [
    "80", "bf", "c0af", "c1bf", "e080af", "eda080", "edbfbf", "f08080af", "f4908080", "f880808080", "fe", "ff",
    "c3", "e282", "f09f98", "61c3", "c328", "e28228", "eda081edb080",
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_UTF_8)
def test_text_that_is_not_utf_8_is_refused(bad: str) -> None:
    """Overlong forms, surrogates and cut characters are refused in fields, lists, keys and values."""
    text = bytes.fromhex(bad)
    for cls, payload in (
        (Plain, tag(2, BYTES, text)),
        (Many, tag(2, BYTES, b"fine") + tag(2, BYTES, text)),
        (Many, tag(3, BYTES, tag(1, BYTES, text))),
        (EverythingResponse, tag(16, BYTES, tag(1, BYTES, b"k") + tag(2, BYTES, text))),
    ):
        assert refusal(cls, payload) == f"{cls.__name__}: has a str that is not UTF-8"


def test_bytes_left_over_are_refused() -> None:
    """Whatever stands behind a message is part of it, and refused as such."""
    payload = plan(Plain).encode(Plain(number=1, text="a", flag=True))
    for extra in (b"\x00", b"\x07", b"\xff", b"\x08", b"\x0c", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"):
        assert refusal(Plain, payload + extra) == "Plain: is cut short, or is no protobuf"


def test_a_cut_payload_is_refused_or_shorter() -> None:
    """Cut inside a field it is refused; between two fields it is the message without the rest, as protobuf has it."""
    message = Plain(number=300, text="abc", flag=True, big=2**63, maybe=300, seven=300)
    payload = plan(Plain).encode(message)
    whole = {0, 3, 8, 10, 21, 24, 27}
    for at in range(len(payload)):
        if at in whole:
            assert plan(Plain).decode(payload[:at]) != message
        else:
            assert refusal(Plain, payload[:at]) == "Plain: is cut short, or is no protobuf"
    assert whole <= {*range(len(payload)), len(payload)}


@pytest.mark.parametrize(
    "payload",
    [
        tag(1, BYTES, b"")[:1] + b"\xff\xff\xff\xff\x0f",  # a length of 4 GiB
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of -1
        b"\x0b" * 200,  # groups in groups
        (b"\x0b" * 90) + (b"\x0c" * 90),
        b"\x0c",  # the end of no group
        b"\x06\x00",  # a wire type that is none
        b"\x00\x00",  # field number 0
        b"\x80\x80\x80\x80\x10\x00",  # field number 2**29
    ],
)
def test_hostile_structure_is_refused(payload: bytes) -> None:
    """Absurd lengths, depths and tags are refused."""
    refusal(Many, payload)
    refusal(Empty, payload)


@pytest.mark.parametrize("payload", [None, 5, "text", [], object()])
def test_what_is_no_bytes_is_refused(payload: Any) -> None:
    """Even a mistake of ours comes out as DecodeError."""
    refusal(Plain, payload)


# Closed sets ------------------------------------------------------------------------------------------------------

CLASSES: list[type[Message]] = [
    Plain,
    Held,
    Many,
    Reals,
    Timed,
    Deep,
    EverythingRequest,
    EverythingResponse,
    KeywordsResponse,
    Empty,
]


@st.composite
def mangled(draw: st.DrawFn) -> tuple[type[Message], bytes]:
    """Bytes that were a message before something happened to them."""
    cls = draw(st.sampled_from([each for each in CLASSES if each is not KeywordsResponse]))
    payload = bytearray(plan(cls).encode(draw(messages(cls))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(payload)))
        match draw(st.sampled_from("dict")):
            case "d":
                del payload[at : at + draw(st.integers(1, 4))]
            case "i":
                payload[at:at] = draw(st.binary(max_size=4))
            case "c":
                payload[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case _:
                payload += payload[at : at + draw(st.integers(1, 20))]
    return cls, bytes(payload)


def _decodes_or_refuses(cls: type[Message], payload: bytes) -> None:
    try:
        message = plan(cls).decode(payload)
    except DecodeError:
        return
    # The codec leaves out the check after reading where the runtime makes sure of it; here it is made.
    compile_refusal(cls, 1, request=True)(message, DecodeError)
    again = plan(cls).encode(message)
    assert plan(cls).encode(plan(cls).decode(again)) == again


@given(mangled())
def test_mangled_bytes_are_a_message_or_refused(case: tuple[type[Message], bytes]) -> None:
    """Damaged payloads give a message that is as declared, or DecodeError, and nothing else."""
    _decodes_or_refuses(*case)


@given(st.sampled_from(CLASSES), st.binary(max_size=40))
def test_random_bytes_are_a_message_or_refused(cls: type[Message], payload: bytes) -> None:
    """Any bytes give a message that is as declared, or DecodeError, and nothing else."""
    _decodes_or_refuses(cls, payload)


def test_refusals_never_hold_a_value() -> None:
    """What was sent may be a secret, so no error quotes it."""
    for payload in (tag(2, BYTES, b"secret\xff"), tag(99, BYTES, b"secret"), tag(7, VARINT, 31337)):
        text = refusal(Plain, payload)
        assert "secret" not in text
        assert "31337" not in text
