"""Metadata blocks: round trips, refusals, and what must not be printed."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peers import attempt
from wireproto.errors import CallError, EncodeError
from wireproto.status import Status
from wireproto.wire.frame import NO_CREDIT, Credit
from wireproto.wire.metadata import EMPTY, Metadata, pack_metadata, unpack_metadata

U32 = st.integers(0, 2**32 - 1)
PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=80)
NAMES = st.from_regex(r"[a-z0-9._-]{1,64}", fullmatch=True)
METADATA = st.builds(
    Metadata,
    deadline_ms=st.none() | U32,
    traceparent=PRINTABLE,
    authorization=PRINTABLE,
    idempotency_key=st.binary(max_size=64),
    resume_after=st.binary(max_size=64),
    credit=st.none() | st.builds(Credit, U32, U32),
    entries=st.dictionaries(NAMES, st.text(max_size=30), max_size=5),
)


def field(key: int, value: bytes) -> bytes:
    return struct.pack(">BH", key, len(value)) + value


def entry(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + value


# (what is set, the block, the metadata): the block is the only one that says it.
CASES = [
    ("nothing", "", Metadata()),
    ("a deadline", "01 0004 000001f4", Metadata(deadline_ms=500)),
    ("a deadline that has passed", "01 0004 00000000", Metadata(deadline_ms=0)),
    ("the longest deadline", "01 0004 ffffffff", Metadata(deadline_ms=2**32 - 1)),
    ("a trace", "02 0002 3030", Metadata(traceparent="00")),
    ("a credential", "03 0008 4265617265722078", Metadata(authorization="Bearer x")),
    ("a position to go on behind", "07 0003 2d3137", Metadata(resume_after=b"-17")),
    ("an idempotency key", "04 0002 00ff", Metadata(idempotency_key=b"\x00\xff")),
    ("credit", "05 0008 00000040 00010000", Metadata(credit=Credit(64, 65_536))),
    ("credit of items alone", "05 0008 ffffffff 00000000", Metadata(credit=Credit(2**32 - 1, 0))),
    ("credit of bytes alone", "05 0008 00000000 ffffffff", Metadata(credit=Credit(0, 2**32 - 1))),
    ("no credit to begin with", "05 0008 00000000 00000000", Metadata(credit=NO_CREDIT)),
    ("an entry", "06 0005 01 61 c3a9 0a", Metadata(entries={"a": "é\n"})),
    ("an empty entry", "06 0002 01 61", Metadata(entries={"a": ""})),
    (
        "several",
        "01 0004 0000000a 05 0008 00000001 00000002 06 0003 01 61 31 06 0003 01 62 32",
        Metadata(deadline_ms=10, credit=Credit(1, 2), entries={"a": "1", "b": "2"}),
    ),
]

# (what is wrong, the block)
BAD = [
    ("a key alone", "01"),
    ("a key and half a length", "0100"),
    ("a value cut short", "01 0004 000000"),
    ("no value", "03 0001"),
    ("a short deadline", "01 0003 000000"),
    ("a long deadline", "01 0005 0000000000"),
    ("an empty credit", "05 0000"),
    ("a credit of items alone", "05 0004 00000001"),
    ("a short credit", "05 0007 00000001 000000"),
    ("a long credit", "05 0009 00000001 00000001 00"),
    ("an empty credential", "03 0000"),
    ("a line end in a credential", "03 0003 610a62"),
    ("a credential that is not ASCII", "03 0002 c3a9"),
    ("an empty trace", "02 0000"),
    ("a NUL in a trace", "02 0001 00"),
    ("an empty position", "07 0000"),
    ("a position of 65 bytes", "07 0041" + "00" * 65),
    ("an empty idempotency key", "04 0000"),
    ("an idempotency key of 65 bytes", "04 0041" + "00" * 65),
    ("two deadlines", "01 0004 00000001 01 0004 00000001"),
    ("two deadlines, one of them critical", "01 0004 00000001 81 0004 00000001"),
    ("two credits", "05 0008 00000001 00000001 05 0008 00000001 00000001"),
    ("one name twice", "06 0002 01 61 06 0002 01 61"),
    ("an entry without a name's length", "06 0000"),
    ("an entry with an empty name", "06 0001 00"),
    ("an entry cut inside its name", "06 0002 02 61"),
    ("an upper-case name", "06 0002 01 41"),
    ("a name with a space", "06 0002 01 20"),
    ("a name that is not ASCII", "06 0003 02 c3a9"),
    ("a name of 65 characters", "06 0042 41" + "61" * 65),
    ("a value that is not UTF-8", "06 0003 01 61 ff"),
    ("a value with a surrogate", "06 0005 01 61 eda080"),
]


@pytest.mark.parametrize(("block", "metadata"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_block_is_what_its_metadata_say(block: str, metadata: Metadata) -> None:
    """Pack writes exactly this block, and unpack reads it back."""
    assert pack_metadata(metadata) == bytes.fromhex(block)
    assert unpack_metadata(bytes.fromhex(block)) == metadata


@pytest.mark.parametrize("block", [case[1] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_block_fails_the_call(block: str) -> None:
    """A block that breaks a rule is INVALID_ARGUMENT, BAD_METADATA."""
    with pytest.raises(CallError) as caught:
        unpack_metadata(bytes.fromhex(block))
    assert (caught.value.status, caught.value.reason) == (Status.INVALID_ARGUMENT, "BAD_METADATA")


@given(METADATA)
def test_metadata_survive_their_block(metadata: Metadata) -> None:
    """Unpack returns what was packed."""
    assert unpack_metadata(pack_metadata(metadata)) == metadata


@given(METADATA)
def test_a_block_cut_anywhere_but_between_fields_is_refused(metadata: Metadata) -> None:
    """A cut inside a field is BAD_METADATA; a cut between two is the metadata so far."""
    block = pack_metadata(metadata)
    ends = {0}
    while (at := max(ends)) < len(block):
        ends.add(at + 3 + struct.unpack_from(">H", block, at + 1)[0])
    for size in range(len(block)):
        if size in ends:
            unpack_metadata(block[:size])
            continue
        with pytest.raises(CallError, match="BAD_METADATA"):
            unpack_metadata(block[:size])


@given(st.binary(max_size=80))
def test_any_block_gives_metadata_or_a_call_error(block: bytes) -> None:
    """Unpack returns metadata or raises a CallError, whatever it is given."""
    got = attempt(unpack_metadata, block)
    if isinstance(got, Metadata):
        assert unpack_metadata(pack_metadata(got)) == got
    else:
        assert got.reason in ("BAD_METADATA", "UNKNOWN_METADATA")


def test_order_does_not_matter() -> None:
    """The fields of a block may come in any order."""
    fields = [field(1, struct.pack(">I", 5)), field(3, b"x"), field(6, entry(b"a", b"b"))]
    expected = Metadata(deadline_ms=5, authorization="x", entries={"a": "b"})
    for order in itertools.permutations(fields):
        assert unpack_metadata(b"".join(order)) == expected


@pytest.mark.parametrize("key", [0, *range(8, 128)])
def test_unknown_keys_are_read_over_unless_they_must_be_understood(key: int) -> None:
    """An unknown key is skipped; with the top bit it is UNIMPLEMENTED, UNKNOWN_METADATA, naming the key."""
    known = field(1, struct.pack(">I", 5))
    assert unpack_metadata(field(key, b"whatever") + known + field(key, b"")) == Metadata(deadline_ms=5)
    with pytest.raises(CallError) as caught:
        unpack_metadata(known + field(key | 0x80, b"whatever"))
    assert (caught.value.status, caught.value.reason) == (Status.UNIMPLEMENTED, "UNKNOWN_METADATA")
    assert f"key {key} " in caught.value.message


@given(METADATA)
def test_known_keys_may_be_marked_as_to_be_understood(metadata: Metadata) -> None:
    """The top bit of a known key changes nothing."""
    block = bytearray(pack_metadata(metadata))
    at = 0
    while at < len(block):
        block[at] |= 0x80
        at += 3 + struct.unpack_from(">H", block, at + 1)[0]
    assert unpack_metadata(bytes(block)) == metadata


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        (Metadata(deadline_ms=-1), "Metadata.deadline_ms"),
        (Metadata(deadline_ms=2**32), "Metadata.deadline_ms"),
        (Metadata(deadline_ms=True), "Metadata.deadline_ms"),
        (Metadata(credit=Credit(2**32, 1)), "Metadata.credit"),
        (Metadata(credit=Credit(1, 2**32)), "Metadata.credit"),
        (Metadata(credit=Credit(-1, 1)), "Metadata.credit"),
        (Metadata(credit=Credit(1, -1)), "Metadata.credit"),
        (Metadata(credit=Credit(True, 1)), "Metadata.credit"),
        (Metadata(traceparent="é"), "Metadata.traceparent"),
        (Metadata(authorization="a\nb"), "Metadata.authorization"),
        (Metadata(authorization="x" * 65_536), "Metadata.authorization"),
        (Metadata(resume_after=bytes(65)), "Metadata.resume_after"),
        (Metadata(idempotency_key=bytes(65)), "Metadata.idempotency_key"),
        (Metadata(entries={"": "x"}), "Metadata.entries['']"),
        (Metadata(entries={"A": "x"}), "Metadata.entries['A']"),
        (Metadata(entries={"a" * 65: "x"}), f"Metadata.entries['{'a' * 65}']"),
        (Metadata(entries={"a": "\ud800"}), "Metadata.entries['a']"),
        (Metadata(entries={"a": "x" * 65_535}), "Metadata.entries['a']"),
        (Metadata(entries={"a": "x" * 40_000, "b": "x" * 40_000}), "Metadata"),
    ],
)
def test_what_cannot_be_sent_is_an_encode_error(metadata: Metadata, path: str) -> None:
    """Pack refuses a value out of range and names it."""
    with pytest.raises(EncodeError) as caught:
        pack_metadata(metadata)
    assert caught.value.path == path


def test_secrets_are_not_printed() -> None:
    """The repr shows that there is a credential and a key, and neither."""
    metadata = Metadata(deadline_ms=5, authorization="Bearer canary", idempotency_key=b"canary", entries={"a": "b"})
    assert repr(metadata) == "Metadata(deadline_ms=5, authorization=..., idempotency_key=..., entries={'a': 'b'})"
    assert "canary" not in f"{metadata} {[metadata]}"
    assert repr(EMPTY) == "Metadata()"
