"""Frames: the header, its rules, and the fixed binary bodies."""

import ast
import itertools
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peers import attempt
from wireproto.errors import CallError, HandshakeError, PackedDetails, RemoteProtocolError
from wireproto.status import Retry, Status
from wireproto.wire.frame import (
    ANSWERS,
    FIRST_FRAMEWORK_OPCODE,
    HEADER,
    HEADER_AFTER_LENGTH,
    HEADER_SIZE,
    HEADER_WITH_WORD,
    IGNORABLE,
    KINDS,
    MAX_DETAILS,
    MAX_ERROR_MESSAGE,
    OF_CALLS,
    OF_MESSAGES,
    PREAMBLE,
    TOP_BIT,
    U32_MAX,
    Credit,
    Flag,
    Frame,
    Kind,
    check_header,
    header_word,
    pack,
    pack_credit,
    pack_details,
    pack_error,
    pack_goaway,
    total_length,
    unpack,
    unpack_credit,
    unpack_empty,
    unpack_error,
    unpack_goaway,
    unpack_ping,
)

U8 = st.integers(0, 0xFF)
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFF_FFFF)
REASONS = st.just("") | st.from_regex(r"[A-Z][A-Z0-9_]{0,63}", fullmatch=True)
ERRORS = st.builds(
    CallError,
    st.sampled_from(list(Status)[1:]),
    REASONS,
    st.text(max_size=100),
    retry=st.sampled_from(Retry),
    retry_after_ms=U32,
)


def frame(kind: int, **changes: Any) -> Frame:
    """A frame of ``kind`` whose header is as it must be on a connection with codec 2 and version 1."""
    of_message, of_call = kind in OF_MESSAGES, kind in OF_CALLS
    right = Frame(kind, 0, 2 * of_message, 1 * of_message, 0x10 * of_call, 7 * of_call, b"", b"")
    return right._replace(**changes)


def same(left: CallError, right: CallError) -> bool:
    return (left.status, left.reason, left.message, left.retry, left.retry_after_ms) == (
        right.status,
        right.reason,
        right.message,
        right.retry,
        right.retry_after_ms,
    )


def test_the_header_has_sixteen_bytes() -> None:
    """The header is 16 bytes, twelve of them after the length."""
    assert HEADER.size == 16
    assert HEADER_AFTER_LENGTH == 12


def test_kinds_keep_their_numbers() -> None:
    """The kinds are numbered 1 to 12 and none is ignorable."""
    names = "HELLO WELCOME REQUEST RESPONSE ITEM END ERROR CANCEL CREDIT PING PONG GOAWAY"
    assert " ".join(kind.name for kind in Kind) == names
    assert [int(kind) for kind in Kind] == list(range(1, 13)) == sorted(KINDS)
    assert not any(kind & IGNORABLE for kind in Kind)


def test_the_preamble_is_no_text_and_no_length() -> None:
    """The preamble is not UTF-8, and read as a length it is over every limit."""
    assert PREAMBLE.hex() == "f5575001"
    with pytest.raises(UnicodeDecodeError):
        PREAMBLE.decode()
    with pytest.raises(RemoteProtocolError, match="FRAME_TOO_LARGE"):
        total_length(PREAMBLE, 0, 16 * 1024 * 1024)


@given(U8, U8, U8, U8, U16, U32, st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=9))
def test_unpack_reads_what_pack_wrote(
    kind: int,
    flags: int,
    codec: int,
    version: int,
    opcode: int,
    call_id: int,
    metadata: bytes,
    payload: bytes,
    before: bytes,
) -> None:
    """Unpack returns every field that was packed, from bytes and bytearrays, at any offset, whatever follows."""
    packed = pack(kind, codec, version, opcode, call_id, metadata, payload, flags)
    expected = Frame(kind, flags, codec, version, opcode, call_id, metadata, payload)
    assert total_length(before + packed, len(before), 1000) == len(packed)
    for data in (before + packed + b"after", bytearray(before + packed + b"after")):
        got = unpack(data, len(before))
        assert got == expected
        assert type(got.metadata) is type(got.payload) is bytes


def test_a_frame_is_laid_out_as_documented() -> None:
    """Pack writes length, kind, flags, codec, version, opcode, metadata length, call id, metadata, payload."""
    packed = pack(Kind.REQUEST, 2, 1, 0x1234, 0xA0B0C0D0, b"\xee\xff", b"abc")
    assert packed.hex(" ") == "00 00 00 11 03 00 02 01 12 34 00 02 a0 b0 c0 d0 ee ff 61 62 63"
    flagged = pack(Kind.REQUEST, 2, 1, 0x1234, 1, b"", b"", Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK)
    assert flagged.hex(" ") == "00 00 00 0c 03 0c 02 01 12 34 00 00 00 00 00 01"


@pytest.mark.parametrize("size", range(4))
def test_a_length_is_unknown_until_its_four_bytes_are_there(size: int) -> None:
    """Total_length returns 0 for fewer than four bytes."""
    assert total_length(bytes(size), 0, 4096) == 0
    assert total_length(b"xy" + bytes(size), 2, 4096) == 0


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (0, "FRAME_TOO_SHORT"),
        (11, "FRAME_TOO_SHORT"),
        (12, None),
        (4095, None),
        (4096, None),
        (4097, "FRAME_TOO_LARGE"),
        (2**31 - 1, "FRAME_TOO_LARGE"),
        (2**32 - 1, "FRAME_TOO_LARGE"),
    ],
)
def test_a_length_is_checked_at_both_ends(length: int, reason: str | None) -> None:
    """A length field from 12 to the limit is accepted and no other, from its four bytes alone."""
    data = struct.pack(">I", length)
    if reason is None:
        assert total_length(data, 0, 4096) == 4 + length
        return
    with pytest.raises(RemoteProtocolError) as caught:
        total_length(data, 0, 4096)
    assert caught.value.reason == reason
    assert str(length) in caught.value.problem


@pytest.mark.parametrize(("metadata_length", "room"), [(1, 0), (5, 4), (65_535, 100)])
def test_metadata_may_not_pass_the_end_of_the_frame(metadata_length: int, room: int) -> None:
    """A metadata length beyond the frame is METADATA_OVERRUN, even if more bytes follow."""
    header = HEADER.pack(12 + room, Kind.REQUEST, 0, 2, 1, 0, metadata_length, 1)
    with pytest.raises(RemoteProtocolError) as caught:
        unpack(header + bytes(70_000))
    assert caught.value.reason == "METADATA_OVERRUN"
    assert unpack(HEADER.pack(12 + room, Kind.REQUEST, 0, 2, 1, 0, room, 1) + bytes(room)).metadata == bytes(room)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_right_header_passes(kind: Kind) -> None:
    """Check_header lets a header pass that says what its kind must say."""
    check_header(frame(kind), 2, 1)


def test_flags_keep_their_numbers() -> None:
    """The flags of a shape are bits 0, 2 and 3, and that of a payload bit 1; the top bit of a call's id says that the
    server began it.
    """
    numbers = {"ONE_WAY": 0x01, "PACKED": 0x02, "ITEMS_FOLLOW": 0x04, "ITEMS_COME_BACK": 0x08}
    assert {flag.name: int(flag) for flag in Flag} == numbers
    assert TOP_BIT == 2**31


@pytest.mark.parametrize("packing", [0, 1])
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind != Kind.REQUEST])
def test_only_requests_have_the_flags_of_a_shape(kind: Kind, packing: int) -> None:
    """Every other kind has no flag, but for the one of a packed payload on RESPONSE and ITEM where that was agreed."""
    for flags in range(1, 256):
        if flags == 0x02 and packing and kind in OF_MESSAGES:
            check_header(frame(kind, flags=flags), 2, 1, packing)
            continue
        with pytest.raises(RemoteProtocolError, match=r"it may have none|it may be packed|0x02 are all") as caught:
            check_header(frame(kind, flags=flags), 2, 1, packing)
        assert caught.value.reason == "RESERVED_FLAGS"


@pytest.mark.parametrize("packing", [0, 1])
def test_a_request_has_the_flags_of_a_shape(packing: int) -> None:
    """Five values of a REQUEST's flags pass, a shape each, and the same with a packed payload where that was agreed.
    Any other bit does not, nor items of a one-way call.
    """
    shapes = [0x00, 0x01, 0x04, 0x08, 0x0C]
    if packing:
        shapes += [flags | 0x02 for flags in shapes]
    known = 0x0F if packing else 0x0D
    for flags in shapes:
        check_header(frame(Kind.REQUEST, flags=flags), 2, 1, packing)
    for flags in sorted(set(range(256)).difference(shapes)):
        problem = f"{known:#04x} are all that it may have" if flags & ~known else "a one-way call has no items"
        if flags & 0x02 and not packing:
            problem = "no algorithm was agreed on"
        with pytest.raises(RemoteProtocolError, match=problem) as caught:
            check_header(frame(Kind.REQUEST, flags=flags), 2, 1, packing)
        assert caught.value.reason == "RESERVED_FLAGS"


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(("field", "reason"), [("codec", "WRONG_CODEC"), ("version", "WRONG_VERSION")])
def test_codec_and_version_are_fixed(kind: Kind, field: str, reason: str) -> None:
    """A kind with a message has the connection's codec and version, any other kind zeros; all other values fail."""
    right = getattr(frame(kind), field)
    assert right == ((2 if field == "codec" else 1) if kind in OF_MESSAGES else 0)
    for value in set(range(256)) - {right}:
        with pytest.raises(RemoteProtocolError) as caught:
            check_header(frame(kind, **{field: value}), 2, 1)
        assert caught.value.reason == reason


@pytest.mark.parametrize("kind", list(Kind))
def test_call_ids_are_where_calls_are(kind: Kind) -> None:
    """A kind of a call names a call, a kind of the connection none; ERROR and CREDIT may be either."""
    wrong = frame(kind, call_id=0 if kind in OF_CALLS else 7, opcode=0)
    if kind in (Kind.ERROR, Kind.CREDIT):
        check_header(wrong, 2, 1)
        return
    with pytest.raises(RemoteProtocolError) as caught:
        check_header(wrong, 2, 1)
    assert caught.value.reason == "CALL_ID"


@pytest.mark.parametrize("kind", [*sorted(KINDS - OF_CALLS), Kind.ERROR, Kind.CREDIT])
def test_the_connection_has_no_opcode(kind: int) -> None:
    """A frame with call id 0 has opcode 0."""
    with pytest.raises(RemoteProtocolError) as caught:
        check_header(frame(kind, call_id=0, opcode=1), 2, 1)
    assert caught.value.reason == "WRONG_OPCODE"


@pytest.mark.parametrize("kind", list(Kind))
def test_only_requests_and_answers_have_metadata(kind: Kind) -> None:
    """Metadata on anything but a REQUEST, or an answer to a call that the reader began, is refused."""
    if kind in {Kind.REQUEST, *ANSWERS}:
        check_header(frame(kind, metadata=b"x"), 2, 1)
    if kind in ANSWERS:
        check_header(frame(kind, metadata=b"x", call_id=TOP_BIT | 1), 2, 1, top_bit=TOP_BIT)
    if kind == Kind.REQUEST:
        return
    with pytest.raises(RemoteProtocolError) as caught:
        check_header(frame(kind, metadata=b"x"), 2, 1, top_bit=TOP_BIT)
    assert caught.value.reason == "UNEXPECTED_METADATA"


def test_a_final_error_has_no_metadata() -> None:
    """A final ERROR answers no call: with metadata it is refused."""
    with pytest.raises(RemoteProtocolError, match="UNEXPECTED_METADATA"):
        check_header(frame(Kind.ERROR, metadata=b"x", call_id=0, opcode=0), 2, 1)


def test_details_stand_in_a_field_of_their_own() -> None:
    """The field has the name behind its length, and then the payload; what is too long is left out."""
    assert pack_details(PackedDetails("a.v1.B", b"xy")) == b"\x01\x00\x09\x06a.v1.Bxy"
    assert len(pack_details(PackedDetails("a.v1.B", bytes(MAX_DETAILS - 7)))) == MAX_DETAILS + 3
    assert pack_details(PackedDetails("a.v1.B", bytes(MAX_DETAILS - 6))) == b""


@pytest.mark.parametrize(
    ("field", "details"),
    [
        (b"\x01\x00\x09\x06a.v1.Bxy", PackedDetails("a.v1.B", b"xy")),
        (b"\xf3\x00\x01x\x01\x00\x07\x06a.v1.B", PackedDetails("a.v1.B", b"")),
        (b"\x01\x00\x02\x01a\x01\x00\x02\x01b", PackedDetails("a", b"")),
        (b"\x01\x00\x00", None),
        (b"\x01\x00\x01\x00", None),
        (b"\x01\x00\x02\x02a", None),
        (b"\x01\x00\x02\x01\xff", None),
    ],
    ids=["whole", "behind another", "the first counts", "empty", "no name", "cut", "no UTF-8"],
)
def test_details_are_kept_as_they_came(field: bytes, details: PackedDetails | None) -> None:
    """What has no name that can be read is left out, and the error stays what it is."""
    error = CallError(Status.NOT_FOUND, "GONE", "it is gone")
    found = unpack_error(pack_error(error) + field)
    assert (found.packed_details, found.details) == (details, None)
    assert same(found, error)


@given(ERRORS)
def test_an_error_survives_its_body(error: CallError) -> None:
    """Unpack_error returns what pack_error was given."""
    assert same(unpack_error(pack_error(error)), error)


def test_an_error_is_laid_out_as_documented() -> None:
    """ERROR's body is status, retry, retry_after_ms, reason and message, each text after its length."""
    error = CallError(Status.NOT_FOUND, "GONE", "né", retry=Retry.NOT_PROCESSED, retry_after_ms=258)
    assert pack_error(error).hex(" ") == "05 01 00 00 01 02 04 47 4f 4e 45 00 03 6e c3 a9"


def test_an_error_of_a_broken_rule_is_never_repeated() -> None:
    """A RemoteProtocolError travels with its status, reason and text, and Retry.NEVER."""
    got = unpack_error(pack_error(RemoteProtocolError("CALL_ID", "why", Status.FAILED_PRECONDITION)))
    assert same(got, CallError(Status.FAILED_PRECONDITION, "CALL_ID", "why"))


def test_an_error_is_of_the_class_asked_for() -> None:
    """Unpack_error makes the subclass it is given."""
    assert type(unpack_error(pack_error(CallError(Status.UNKNOWN)), HandshakeError)) is HandshakeError


@given(ERRORS)
def test_an_error_cut_anywhere_is_refused(error: CallError) -> None:
    """Every proper prefix of an ERROR's body is BAD_BODY."""
    body = pack_error(error)
    for size in range(len(body)):
        with pytest.raises(RemoteProtocolError) as caught:
            unpack_error(body[:size])
        assert caught.value.reason == "BAD_BODY"


@given(st.lists(st.tuples(U8, st.binary(max_size=300)), max_size=4), st.data())
def test_fields_of_later_versions_are_read_over(fields: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """What follows an ERROR's message is skipped when it is whole, and BAD_BODY when it is not."""
    error = CallError(Status.ABORTED, "X", "y")
    tail = b"".join(struct.pack(">BH", tag, len(value)) + value for tag, value in fields)
    assert same(unpack_error(pack_error(error) + tail), error)
    if tail:
        ends = set(itertools.accumulate((3 + len(value) for _, value in fields), initial=0))
        cut = data.draw(st.sampled_from([size for size in range(len(tail)) if size not in ends]))
        with pytest.raises(RemoteProtocolError, match="BAD_BODY"):
            unpack_error(pack_error(error) + tail[:cut])


@pytest.mark.parametrize(
    "body",
    [
        "00 00 00000000 00 0000",  # OK
        "03 00 00000000 02 41 0000",  # a reason that ends behind the message's length
        "03 00 00000000 00 0001 ff",  # a message that is not UTF-8
        "03 00 00000000 00 0003 eda080",  # a message with a surrogate
    ],
)
def test_a_bad_error_is_refused(body: str) -> None:
    """An ERROR's body that says what cannot be is BAD_BODY."""
    with pytest.raises(RemoteProtocolError) as caught:
        unpack_error(bytes.fromhex(body))
    assert caught.value.reason == "BAD_BODY"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("11 00 00000000 00 0000", CallError(Status.UNKNOWN)),
        ("ff 01 00000001 01 41 0000", CallError(Status.UNKNOWN, "A", retry=Retry.NOT_PROCESSED, retry_after_ms=1)),
        ("03 03 00000000 00 0000", CallError(Status.INVALID_ARGUMENT)),
        ("03 ff 00000000 00 0000", CallError(Status.INVALID_ARGUMENT)),
        ("03 00 00000000 01 61 0001 78", CallError(Status.INVALID_ARGUMENT, "", "x [reason: a]")),
        ("03 00 00000000 01 31 0000", CallError(Status.INVALID_ARGUMENT, "", "[reason: 1]")),
        ("03 00 00000000 03 c3a90a 0000", CallError(Status.INVALID_ARGUMENT, "", r"[reason: \xc3\xa9\x0a]")),
        ("03 00 00000000 02 5c41 0000", CallError(Status.INVALID_ARGUMENT, "", r"[reason: \x5cA]")),
        (
            "03 00 00000000 41" + "41" * 65 + "0000",
            CallError(Status.INVALID_ARGUMENT, "", f"[reason: {'A' * 65}]"),
        ),
    ],
)
def test_unknown_numbers_and_reasons_are_read(body: str, expected: CallError) -> None:
    """A status above 16 is UNKNOWN, a retry above 2 NEVER, and a reason outside its alphabet stands in the message."""
    assert same(unpack_error(bytes.fromhex(body)), expected)


@given(st.binary(max_size=255))
def test_any_reason_is_read_and_printable(reason: bytes) -> None:
    """Whatever bytes a reason has, the error has one of the alphabet or none, and its message is printable ASCII."""
    body = b"\x03\0\0\0\0\0" + bytes([len(reason)]) + reason + b"\0\0"
    got = unpack_error(body)
    assert got.reason.encode() in (b"", reason)
    assert got.message.isascii()
    assert got.message.isprintable()
    assert bool(got.message) is (bool(reason) and not got.reason)


@given(st.binary(max_size=60))
def test_any_body_gives_an_error_or_bad_body(body: bytes) -> None:
    """Unpack_error returns a CallError or raises BAD_BODY, whatever it is given."""
    got = attempt(unpack_error, body)
    assert got.reason == "BAD_BODY" if isinstance(got, RemoteProtocolError) else got.status is not Status.OK


@pytest.mark.parametrize("character", ["x", "é", "€", "😀"])
def test_a_long_message_is_cut_between_characters(character: str) -> None:
    """A message over MAX_ERROR_MESSAGE bytes is cut to whole characters, at most three bytes short of it."""
    got = unpack_error(pack_error(CallError(Status.INTERNAL, "", character * 5000))).message
    assert got == character * len(got)
    assert MAX_ERROR_MESSAGE - 4 < len(got.encode()) <= MAX_ERROR_MESSAGE
    exact = "x" * MAX_ERROR_MESSAGE
    assert unpack_error(pack_error(CallError(Status.INTERNAL, "", exact))).message == exact


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CallError(Status.ABORTED, "not upper"), CallError(Status.ABORTED)),
        (CallError(Status.ABORTED, "A" * 65), CallError(Status.ABORTED)),
        (CallError(Status.ABORTED, "Ä"), CallError(Status.ABORTED)),
        (CallError(Status.ABORTED, "", "\ud800"), CallError(Status.ABORTED, "", "\\ud800")),
        (CallError(Status.ABORTED, retry_after_ms=2**40), CallError(Status.ABORTED, retry_after_ms=2**32 - 1)),
        (CallError(Status.ABORTED, retry_after_ms=-1), CallError(Status.ABORTED)),
    ],
)
def test_an_odd_error_is_packed_as_near_as_can_be(error: CallError, expected: CallError) -> None:
    """Pack_error brings what cannot be sent into range instead of failing."""
    assert same(unpack_error(pack_error(error)), expected)


@given(U32, ERRORS)
def test_a_goaway_survives_its_body(last_call_id: int, error: CallError) -> None:
    """Unpack_goaway returns the call id and the error; every cut is BAD_BODY."""
    body = pack_goaway(last_call_id, error)
    got, why = unpack_goaway(frame(Kind.GOAWAY, payload=body))
    assert got == last_call_id
    assert same(why, error)
    for size in range(len(body)):
        with pytest.raises(RemoteProtocolError, match="BAD_BODY"):
            unpack_goaway(frame(Kind.GOAWAY, payload=body[:size]))


@pytest.mark.parametrize(("items", "size"), [(1, 0), (0, 1), (2, 258), (2**32 - 1, 2**32 - 1)])
def test_a_credit_survives_its_body(items: int, size: int) -> None:
    """Unpack_credit returns the items and the bytes packed; one of them may be 0."""
    body = pack_credit(items, size)
    assert body == struct.pack(">II", items, size)
    assert unpack_credit(frame(Kind.CREDIT, payload=body)) == Credit(items, size)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "it has 0 bytes and not 8"),
        ("00000001", "it has 4 bytes and not 8"),
        ("00000001000000", "it has 7 bytes and not 8"),
        ("000000010000000100", "it has 9 bytes and not 8"),
        ("0000000000000000", "it grants nothing"),
    ],
)
def test_a_bad_credit_is_refused(body: str, problem: str) -> None:
    """A CREDIT that has not eight bytes, or grants nothing, is BAD_BODY."""
    with pytest.raises(RemoteProtocolError, match=f"BAD_BODY: the body of CREDIT cannot be read: {problem}"):
        unpack_credit(frame(Kind.CREDIT, payload=bytes.fromhex(body)))


def test_the_credit_of_one_way_calls_has_no_bytes() -> None:
    """A CREDIT of no call counts calls, in the place of items; bytes beside them are BAD_BODY."""
    one_way = frame(Kind.CREDIT, call_id=0, opcode=0, payload=pack_credit(3, 0))
    assert unpack_credit(one_way) == Credit(3, 0)
    for items, size in ((3, 1), (0, 1)):
        with pytest.raises(RemoteProtocolError, match=r"BAD_BODY: .* the credit of one-way calls has no bytes"):
            unpack_credit(one_way._replace(payload=pack_credit(items, size)))


@pytest.mark.parametrize("kind", [Kind.PING, Kind.PONG])
def test_pings_have_eight_bytes(kind: Kind) -> None:
    """A PING or a PONG with anything but eight bytes is BAD_BODY."""
    assert unpack_ping(frame(kind, payload=b"12345678")) == b"12345678"
    for size in (0, 7, 9, 4000):
        with pytest.raises(RemoteProtocolError, match=f"BAD_BODY: the body of {kind.name}"):
            unpack_ping(frame(kind, payload=bytes(size)))


@pytest.mark.parametrize("kind", [Kind.END, Kind.CANCEL])
def test_empty_kinds_are_empty(kind: Kind) -> None:
    """An END or a CANCEL with a payload is BAD_BODY."""
    unpack_empty(frame(kind))
    with pytest.raises(RemoteProtocolError, match=f"BAD_BODY: the body of {kind.name}"):
        unpack_empty(frame(kind, payload=b"x"))


@given(U32, st.sampled_from(Kind), U8, U8, U16, U16, U32)
def test_both_layouts_of_the_header_are_one(
    length: int, kind: Kind, codec: int, version: int, opcode: int, metadata_length: int, call_id: int
) -> None:
    """The layout with one word reads and writes the same bytes as the one with each field."""
    data = HEADER.pack(length, kind, 0, codec, version, opcode, metadata_length, call_id)
    word = header_word(kind, codec, version)
    assert HEADER_WITH_WORD.pack(length, word, opcode, metadata_length, call_id) == data
    assert HEADER_WITH_WORD.unpack(data) == (length, word, opcode, metadata_length, call_id)
    assert len(data) == HEADER_SIZE


# Those who judge the package read the page by themselves; they import nothing of it.
JUDGES = ("conformance/",)
ONE_HOME = {U32_MAX, TOP_BIT, FIRST_FRAMEWORK_OPCODE, HEADER.format, HEADER_WITH_WORD.format}


def test_layouts_and_bounds_of_the_header_have_one_home() -> None:
    """No other module writes out the header's layout, the largest number, the top bit or the first framework opcode."""
    package = Path(__file__).parents[2] / "wireproto"
    found = {
        f"{name}:{node.lineno}: {node.value!r}"
        for path in sorted(package.rglob("*.py"))
        if not (name := path.relative_to(package).as_posix()).startswith(JUDGES) and name != "wire/frame.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and type(node.value) in (int, str) and node.value in ONE_HOME
    }
    assert not found
