"""HELLO, WELCOME, their negotiation, and strangers on the line."""

import struct
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peers import HELLO, OFFERS, SERVICE, attempt
from wireproto.errors import HandshakeError, LocalProtocolError, RemoteProtocolError
from wireproto.limits import HELLO_MAX_FRAME, Limits
from wireproto.status import Status
from wireproto.wire.frame import HEADER_AFTER_LENGTH, NO_CREDIT, PREAMBLE, Credit
from wireproto.wire.handshake import (
    KNOWN_FIELDS,
    LONGEST_PREFIX,
    Hello,
    Offer,
    Stranger,
    Welcome,
    compare_digests,
    encode_fitting,
    find_offer,
    http_refusal,
    negotiate,
    recognise,
)

T = TypeVar("T", Hello, Welcome)

U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
HEARTBEATS = st.just(0) | st.integers(1000, 2**32 - 1)
NAMES = st.text(max_size=60)
UNKNOWN_FIELDS = st.integers(0, 65_535).filter(lambda tag: tag not in KNOWN_FIELDS)
CREDITS = st.builds(Credit, U32, U32)
CODECS = st.dictionaries(
    st.integers(1, 255), st.from_regex(r"[a-z][a-z0-9_.-]{0,31}", fullmatch=True), min_size=1, max_size=5
)


@st.composite
def hellos(draw: st.DrawFn) -> Hello:
    oldest, newest = sorted((draw(st.integers(1, 255)), draw(st.integers(1, 255))))
    return Hello(
        min_version=oldest,
        max_version=newest,
        codecs=tuple(draw(CODECS).items()),
        max_frame=draw(st.integers(4096, 2**32 - 1)),
        max_calls=draw(U32),
        heartbeat_ms=draw(HEARTBEATS),
        features=draw(U64),
        client_name=draw(NAMES),
        service=draw(NAMES),
        digests=draw(st.dictionaries(U16, U32, max_size=8)),
        control=draw(st.integers(1, 255)),
        first_credit=draw(CREDITS),
        one_way_credit=draw(U32),
        packing=draw(st.lists(st.integers(1, 255), unique=True, max_size=4).map(tuple)),
        early=draw(U16),
    )


WELCOMES = st.builds(
    Welcome,
    version=st.integers(1, 255),
    codec=st.integers(1, 255),
    max_frame=st.integers(4096, 2**32 - 1),
    max_calls=st.integers(1, 2**32 - 1),
    heartbeat_ms=HEARTBEATS,
    features=U64,
    server_name=NAMES,
    digests=st.dictionaries(U16, U32, max_size=8),
    control=st.integers(1, 255),
    first_credit=CREDITS,
    one_way_credit=U32,
    packing=st.lists(st.integers(1, 255), max_size=1).map(tuple),
)


def hello(**changes: object) -> Hello:
    return msgspec.structs.replace(HELLO, **changes)


WELCOME = Welcome(version=1, codec=2, max_frame=65_536, max_calls=256, heartbeat_ms=60_000, server_name="test/1")


def tlv(tag: int, value: bytes) -> bytes:
    return struct.pack(">HH", tag, len(value)) + value


@given(hellos())
def test_hello_survives_its_body(offered: Hello) -> None:
    """Decode returns the HELLO that was encoded."""
    assert Hello.decode(offered.encode()) == offered


@given(WELCOMES)
def test_welcome_survives_its_body(answer: Welcome) -> None:
    """Decode returns the WELCOME that was encoded."""
    assert Welcome.decode(answer.encode()) == answer


def test_hello_is_laid_out_as_documented() -> None:
    """HELLO's body has these bytes, frozen for ever."""
    body = hello(heartbeat_ms=60_000, features=1, digests={0x10: 0xDEADBEEF}, control=255).encode()
    assert body.hex(" ") == (
        "01 01 00 01 00 00 00 00 00 00 00 00 ea 60 00 00 00 00 00 00 00 01 02"
        " 02 07 6d 73 67 70 61 63 6b 01 04 70 69 70 65"
        " 04 74 65 73 74"
        " 1c 65 78 61 6d 70 6c 65 2e 76 31 2e 43 61 6c 63 75 6c 61 74 6f 72 53 65 72 76 69 63 65"
        " 00 01 00 06 00 10 de ad be ef"
        " 00 04 00 01 ff"
    )
    assert (
        hello(first_credit=Credit(16, 65_536), one_way_credit=258)
        .encode()
        .hex(" ")
        .endswith(" 00 05 00 08 00 00 00 10 00 01 00 00 00 06 00 04 00 00 01 02")
    )
    assert hello(packing=(2, 1), control=2).encode().hex(" ").endswith(" 00 02 00 02 02 01 00 04 00 01 02")


def test_welcome_is_laid_out_as_documented() -> None:
    """WELCOME's body has these bytes, frozen for ever."""
    answer = Welcome(version=1, codec=2, max_frame=2**20, max_calls=256, heartbeat_ms=60_000, server_name="s/1")
    bare = "01 02 00 10 00 00 00 00 01 00 00 00 ea 60 00 00 00 00 00 00 00 00 03 73 2f 31"
    assert answer.encode().hex(" ") == bare
    full = msgspec.structs.replace(
        answer, digests={0x10: 0xDEADBEEF}, control=2, first_credit=Credit(0, 65_536), one_way_credit=1, packing=(1,)
    )
    assert full.encode().hex(" ") == (
        f"{bare} 00 01 00 06 00 10 de ad be ef 00 02 00 01 01 00 04 00 01 02"
        " 00 05 00 08 00 00 00 00 00 01 00 00 00 06 00 04 00 00 00 01"
    )


FIELDS: dict[str, object] = {
    "digests": {},
    "packing": (),
    "early": 0,
    "control": 1,
    "first_credit": NO_CREDIT,
    "one_way_credit": 0,
}
"""What each field at the end of HELLO and WELCOME is without it, in the order in which they are sent."""


@given(hellos(), st.data())
def test_a_cut_hello_is_refused(offered: Hello, data: st.DataObject) -> None:
    """A HELLO cut anywhere is BAD_BODY, but in front of one of its fields, where it is a HELLO without the rest."""
    body = offered.encode()
    size = data.draw(st.integers(0, len(body) - 1))
    got = attempt(Hello.decode, body[:size])
    if isinstance(got, RemoteProtocolError):
        assert got.reason == "BAD_BODY"
    else:
        assert got in without_fields(offered)


@given(WELCOMES, st.data())
def test_a_cut_welcome_is_refused(answer: Welcome, data: st.DataObject) -> None:
    """A WELCOME cut anywhere is BAD_BODY, but in front of one of its fields."""
    body = answer.encode()
    size = data.draw(st.integers(0, len(body) - 1))
    got = attempt(Welcome.decode, body[:size])
    if isinstance(got, RemoteProtocolError):
        assert got.reason == "BAD_BODY"
    else:
        assert got in without_fields(answer)


def without_fields(greeting: T) -> list[T]:
    """The greeting without its last fields, one more each time, the last of them first."""
    found = []
    for name in (each for each in reversed(FIELDS) if hasattr(greeting, each)):
        greeting = msgspec.structs.replace(greeting, **{name: FIELDS[name]})
        found.append(greeting)
    return found


@pytest.mark.parametrize(
    "field", [b"\0\5\0\4\0\0\0\1", b"\0\5\0\x09" + bytes(9), b"\0\5\0\0", b"\0\6\0\0", b"\0\6\0\x08" + bytes(8)]
)
def test_a_field_of_credit_has_its_length(field: bytes) -> None:
    """Field 5 has eight bytes and field 6 four, in HELLO and WELCOME, or the body is BAD_BODY."""
    answer = Welcome(version=1, codec=1, max_frame=4096, max_calls=1)
    for decode, body in ((Hello.decode, HELLO.encode()), (Welcome.decode, answer.encode())):
        assert not isinstance(attempt(decode, body), RemoteProtocolError)
        with pytest.raises(RemoteProtocolError, match="BAD_BODY"):
            decode(body + field)


@given(st.binary(max_size=80))
def test_any_body_gives_a_greeting_or_bad_body(body: bytes) -> None:
    """Decode returns a value or raises BAD_BODY, whatever it is given."""
    decoders: list[Callable[[bytes], Hello | Welcome]] = [Hello.decode, Welcome.decode]
    for decode in decoders:
        got = attempt(decode, body)
        if isinstance(got, Hello | Welcome):
            assert decode(got.encode()) == got
        else:
            assert got.reason == "BAD_BODY"


@given(hellos(), WELCOMES, st.lists(st.tuples(UNKNOWN_FIELDS, st.binary(max_size=20)), max_size=3))
def test_fields_of_later_versions_are_read_over(
    offered: Hello, answer: Welcome, fields: list[tuple[int, bytes]]
) -> None:
    """Unknown fields at the end of HELLO and WELCOME change nothing; a field cut short is BAD_BODY."""
    tail = b"".join(tlv(tag, value) for tag, value in fields)
    assert Hello.decode(offered.encode() + tail) == offered
    assert Welcome.decode(answer.encode() + tail) == answer
    for rest in (b"\x00", b"\x00\x09\x00", b"\x00\x09\x00\x02x"):
        with pytest.raises(RemoteProtocolError, match="BAD_BODY"):
            Hello.decode(offered.encode() + tail + rest)
        with pytest.raises(RemoteProtocolError, match="BAD_BODY"):
            Welcome.decode(answer.encode() + tail + rest)


@pytest.mark.parametrize(
    "changes",
    [
        {"min_version": 0},
        {"min_version": 2, "max_version": 1},
        {"max_version": 256},
        {"max_frame": 4095},
        {"max_frame": 2**32},
        {"max_calls": -1},
        {"heartbeat_ms": 2**32},
        {"heartbeat_ms": 1},
        {"heartbeat_ms": 999},
        {"features": 2**64},
        {"codecs": ()},
        {"codecs": ((0, "pipe"),)},
        {"codecs": ((256, "pipe"),)},
        {"codecs": ((1, "pipe"), (1, "msgpack"))},
        {"codecs": ((1, ""),)},
        {"codecs": ((1, "Pipe"),)},
        {"codecs": ((1, "p" * 33),)},
        {"codecs": tuple((number, "c") for number in range(1, 257))},
        {"client_name": "é" * 128},
        {"service": "x" * 256},
        {"service": "\ud800"},
        {"control": 0},
        {"control": 256},
        {"first_credit": Credit(2**32, 0)},
        {"first_credit": Credit(0, 2**32)},
        {"first_credit": Credit(-1, 1)},
        {"one_way_credit": 2**32},
        {"one_way_credit": -1},
        {"packing": (0,)},
        {"packing": (256,)},
        {"packing": (1, 2, 1)},
        {"digests": {65_536: 0}},
        {"digests": {0: 2**32}},
        {"digests": dict.fromkeys(range(20_000), 0)},
    ],
    ids=str,
)
def test_a_hello_out_of_range_is_not_sent(changes: Mapping[str, object]) -> None:
    """Encode refuses a value that HELLO cannot or must not carry."""
    with pytest.raises(LocalProtocolError, match="HELLO cannot be sent"):
        hello(**changes).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"version": 256},
        {"codec": 0},
        {"max_frame": 4095},
        {"max_calls": 0},
        {"heartbeat_ms": 1},
        {"heartbeat_ms": 999},
        {"server_name": "x" * 256},
        {"control": 0},
        {"control": 256},
        {"digests": {0: -1}},
        {"first_credit": Credit(2**32, 0)},
        {"first_credit": Credit(1, -1)},
        {"one_way_credit": 2**32},
        {"packing": (0,)},
        {"packing": (256,)},
        {"packing": (1, 2)},
    ],
    ids=str,
)
def test_a_welcome_out_of_range_is_not_sent(changes: Mapping[str, object]) -> None:
    """Encode refuses a value that WELCOME cannot or must not carry."""
    answer = Welcome(version=1, codec=1, max_frame=4096, max_calls=1)
    with pytest.raises(LocalProtocolError, match="WELCOME cannot be sent"):
        msgspec.structs.replace(answer, **changes).encode()


@pytest.mark.parametrize(
    ("at", "value", "problem"),
    [
        (0, b"\x00", "no range"),
        (1, b"\x00", "no range"),
        (2, struct.pack(">I", 4095), "max_frame"),
        (10, struct.pack(">I", 1), "the heartbeat is 1 ms; the least is 1000, or 0"),
        (10, struct.pack(">I", 999), "the heartbeat is 999 ms"),
        (22, b"\x00", "cannot be read"),
        (23, b"\x00", "codec 0"),
        (23, b"\x01", "twice"),
        (25, b"M", "codec 2 'Msgpack'"),
    ],
)
def test_a_bad_hello_is_refused(at: int, value: bytes, problem: str) -> None:
    """A HELLO that says what must not be is BAD_BODY, and the text says what."""
    body = bytearray(HELLO.encode())
    body[at : at + len(value)] = value
    with pytest.raises(RemoteProtocolError, match=problem) as caught:
        Hello.decode(bytes(body))
    assert caught.value.reason == "BAD_BODY"


@pytest.mark.parametrize("heartbeat", [1, 999])
def test_a_welcome_with_a_short_heartbeat_is_refused(heartbeat: int) -> None:
    """A server cannot ask for more than one PING a second, and 0 and 1000 ms are in order."""
    body = bytearray(Welcome(version=1, codec=1, max_frame=4096, max_calls=1, heartbeat_ms=1000).encode())
    body[10:14] = struct.pack(">I", heartbeat)
    with pytest.raises(RemoteProtocolError, match=f"the heartbeat is {heartbeat} ms") as caught:
        Welcome.decode(bytes(body))
    assert caught.value.reason == "BAD_BODY"
    body[10:14] = bytes(4)
    assert Welcome.decode(bytes(body)).heartbeat_ms == 0


@pytest.mark.parametrize("listed", [b"\x00", bytes(5), bytes(7), bytes(12)])
def test_a_bad_list_of_digests_is_refused(listed: bytes) -> None:
    """A list of digests that is no whole number of pairs, or names an opcode twice, is BAD_BODY, from either side."""
    with pytest.raises(RemoteProtocolError, match="BAD_BODY"):
        Hello.decode(HELLO.encode() + tlv(1, listed))
    with pytest.raises(RemoteProtocolError, match="BAD_BODY"):
        Welcome.decode(WELCOME.encode() + tlv(1, listed))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (tlv(4, b""), "a field of one byte has 0"),
        (tlv(4, b"\0\1"), "a field of one byte has 2"),
        (tlv(4, b"\0"), "control version 0 is not 1 to 255"),
        (tlv(4, b"\1") * 2, "field 4 is there twice"),
        (tlv(2, b""), "no algorithm is listed"),
        (tlv(2, b"\0"), r"the algorithms \[0\] are not each 1 to 255"),
        (tlv(2, b"\1") * 2, "field 2 is there twice"),
        (tlv(5, bytes(8)) * 2, "field 5 is there twice"),
        (tlv(6, bytes(4)) + tlv(99, b"x") + tlv(6, bytes(4)), "field 6 is there twice"),
        (tlv(1, b"") + tlv(99, b"x") + tlv(1, b""), "field 1 is there twice"),
    ],
)
def test_a_known_field_is_held_to_its_layout(fields: bytes, problem: str) -> None:
    """A field that is known has one place and one layout; BAD_BODY says what is wrong with it."""
    for greeting in (HELLO, WELCOME):
        with pytest.raises(RemoteProtocolError, match=problem) as caught:
            type(greeting).decode(greeting.encode() + fields)
        assert caught.value.reason == "BAD_BODY"


def test_an_absent_control_version_is_1() -> None:
    """Control version 1 is not written, and is read where it is written."""
    assert hello(control=1).encode() == HELLO.encode()
    for greeting in (HELLO, WELCOME):
        assert type(greeting).decode(greeting.encode() + tlv(4, b"\1")) == greeting
        assert type(greeting).decode(greeting.encode() + tlv(4, b"\7")).control == 7


@pytest.mark.parametrize("greeting", [hello(features=3, control=2), msgspec.structs.replace(WELCOME, control=2)])
def test_digests_are_left_out_where_they_do_not_fit(greeting: Hello | Welcome) -> None:
    """HELLO and WELCOME are 4,096 bytes long at most; beyond that they go without digests, and with all else."""
    room = (HELLO_MAX_FRAME - HEADER_AFTER_LENGTH - len(greeting.encode()) - 4) // 6
    fits = msgspec.structs.replace(greeting, digests=dict.fromkeys(range(room), 7))
    assert encode_fitting(fits) == fits.encode()
    assert HELLO_MAX_FRAME - 6 < HEADER_AFTER_LENGTH + len(fits.encode()) <= HELLO_MAX_FRAME
    assert encode_fitting(msgspec.structs.replace(greeting, digests=dict.fromkeys(range(room + 1), 7))) == (
        greeting.encode()
    )


# What is negotiated.


def refused(offered: Hello, offers: Mapping[str, Offer] = OFFERS) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        negotiate(offered, offers, Limits(), "test/1")
    return caught.value


@pytest.mark.parametrize(
    ("oldest", "newest", "chosen"),
    [(1, 1, 1), (1, 3, 3), (1, 9, 3), (3, 3, 3), (2, 200, 3), (4, 9, None), (255, 255, None)],
)
def test_the_newest_common_version_is_chosen(oldest: int, newest: int, chosen: int | None) -> None:
    """The version is the newest both speak; without one the refusal lists what is served."""
    offers = {SERVICE: Offer(SERVICE, 3, {2: "msgpack"}, lambda version: {})}
    offered = hello(min_version=oldest, max_version=newest)
    if chosen is None:
        error = refused(offered, offers)
        assert (error.status, error.reason) == (Status.FAILED_PRECONDITION, "UNSUPPORTED_VERSION")
        assert "versions 1 to 3" in error.message
    else:
        assert negotiate(offered, offers, Limits(), "").version == chosen


@pytest.mark.parametrize(
    ("codecs", "chosen"),
    [
        (((1, "pipe"),), 1),
        (((2, "msgpack"), (1, "pipe")), 2),
        (((1, "pipe"), (2, "msgpack")), 1),
        (((3, "protobuf"), (1, "pipe")), 1),
        (((200, "json"), (3, "protobuf")), None),
        (((2, "pipe"),), None),
    ],
)
def test_the_clients_favourite_common_codec_is_chosen(codecs: tuple[tuple[int, str], ...], chosen: int | None) -> None:
    """The codec is the first of the client's that is allowed under this id and name, else the refusal lists them."""
    if chosen is None:
        error = refused(hello(codecs=codecs))
        assert (error.status, error.reason) == (Status.FAILED_PRECONDITION, "UNSUPPORTED_CODEC")
        assert "pipe (1), msgpack (2)" in error.message
    else:
        assert negotiate(hello(codecs=codecs), OFFERS, Limits(), "").codec == chosen


@pytest.mark.parametrize(
    ("oldest", "newest", "chosen"),
    [(1, 3, 3), (1, 9, 5), (5, 5, 5), (5, 9, 5), (4, 4, 4), (1, 2, None), (2, 2, None), (6, 9, None)],
)
def test_a_server_has_an_oldest_version(oldest: int, newest: int, chosen: int | None) -> None:
    """A client whose newest version is below the server's oldest is refused, with the range that is served."""
    offers = {SERVICE: Offer(SERVICE, 5, {2: "msgpack"}, lambda version: {}, 3)}
    offered = hello(min_version=oldest, max_version=newest)
    if chosen is None:
        error = refused(offered, offers)
        assert (error.status, error.reason) == (Status.FAILED_PRECONDITION, "UNSUPPORTED_VERSION")
        assert error.message == (f"{SERVICE} is served in versions 3 to 5; the client speaks {oldest} to {newest}")
    else:
        assert negotiate(offered, offers, Limits(), "").version == chosen


def test_a_service_is_found_by_name_or_by_being_the_only_one() -> None:
    """An empty service name means the only one there is; an unknown one is NOT_FOUND, with the list."""
    other = Offer("other.v1.OtherService", 1, {1: "pipe"}, lambda version: {})
    both = {**OFFERS, other.service: other}
    assert find_offer(hello(service=""), OFFERS) is OFFERS[SERVICE]
    assert find_offer(hello(service=other.service), both) is other
    for offered in (hello(service=""), hello(service="example.v1.Missing")):
        error = refused(offered, both)
        assert (error.status, error.reason) == (Status.NOT_FOUND, "UNKNOWN_SERVICE")
        assert f"{SERVICE}, {other.service}" in error.message
    assert "none" in refused(HELLO, {}).message


def test_digests_are_compared_for_the_version_chosen() -> None:
    """A digest that differs is refused by opcode, unless an older version was chosen or the opcode is unknown here."""
    offer = Offer(SERVICE, 2, {2: "msgpack"}, lambda version: {0x10: 1, 0x11: 2, 0x12: version})
    offers = {SERVICE: offer}
    limits = Limits()
    same = hello(max_version=2, digests={0x10: 1, 0x12: 2})
    assert negotiate(same, offers, limits, "").version == 2
    assert negotiate(hello(max_version=2, digests={0x99: 5}), offers, limits, "").version == 2
    assert negotiate(hello(max_version=2), offers, limits, "").version == 2
    assert negotiate(hello(max_version=3, digests={0x10: 999}), offers, limits, "").version == 2
    assert negotiate(hello(max_version=1, digests={0x12: 1}), offers, limits, "").version == 1
    error = refused(hello(max_version=2, digests={0x11: 9, 0x10: 9, 0x12: 2}), offers)
    assert (error.status, error.reason) == (Status.FAILED_PRECONDITION, "CONTRACT_MISMATCH")
    assert "0x0010, 0x0011" in error.message
    assert "0x0012" not in error.message


def test_welcome_lists_the_digests_of_the_version_chosen() -> None:
    """Whatever the client lists, it is told what the server declares of the version that was chosen."""
    offer = Offer(SERVICE, 3, {2: "msgpack"}, lambda version: {0x10: version, 0x20: 7})
    for newest, digests in ((2, {0x10: 2, 0x20: 7}), (9, {0x10: 3, 0x20: 7})):
        assert negotiate(hello(max_version=newest), {SERVICE: offer}, Limits(), "").digests == digests


def test_either_side_compares_alike() -> None:
    """The first list is held against the second; opcodes that one of them lacks count for nothing."""
    compare_digests(SERVICE, 2, {1: 1, 2: 2}, {2: 2, 3: 3})
    compare_digests(SERVICE, 2, {}, {2: 2})
    compare_digests(SERVICE, 2, {2: 2}, {})
    with pytest.raises(HandshakeError) as caught:
        compare_digests(SERVICE, 2, {1: 1, 2: 2, 0x33: 3}, {0x33: 4, 1: 2, 2: 2})
    assert (caught.value.status, caught.value.reason) == (Status.FAILED_PRECONDITION, "CONTRACT_MISMATCH")
    assert caught.value.message == (
        f"{SERVICE} version 2 is declared differently on the two sides; opcodes that differ: 0x0001, 0x0033"
    )


@pytest.mark.parametrize(("theirs", "ours", "agreed"), [(1, 1, 1), (3, 2, 2), (2, 3, 2), (255, 1, 1)])
def test_the_lower_control_version_holds(theirs: int, ours: int, agreed: int) -> None:
    """The version of the framework's own methods is the lower one of both sides' newest."""
    assert negotiate(hello(control=theirs), OFFERS, Limits(), "", control=ours).control == agreed


@pytest.mark.parametrize(
    ("theirs", "ours", "agreed"),
    [((), (1, 2), 0), ((1,), (), 0), ((1, 2), (2, 1), 1), ((7, 2, 1), (1, 2), 2), ((7,), (1, 2), 0)],
)
def test_the_clients_favourite_algorithm_is_chosen(theirs: tuple[int, ...], ours: tuple[int, ...], agreed: int) -> None:
    """One algorithm at most holds for a connection: the first of the client's that the server allows."""
    answer = negotiate(hello(packing=theirs), OFFERS, Limits(), "", packing=ours)
    assert (answer.algorithm, answer.packing) == (agreed, (agreed,) if agreed else ())


@pytest.mark.parametrize("listed", [b"\2\1", b"\1\1"])
def test_a_welcome_names_one_algorithm(listed: bytes) -> None:
    """A WELCOME that names two is BAD_BODY, whichever they are; a HELLO may name several, none twice."""
    with pytest.raises(RemoteProtocolError, match="2 algorithms were chosen") as caught:
        Welcome.decode(WELCOME.encode() + tlv(2, listed))
    assert caught.value.reason == "BAD_BODY"
    assert Hello.decode(HELLO.encode() + tlv(2, b"\2\1\xff")).packing == (2, 1, 255)
    with pytest.raises(RemoteProtocolError, match="there once"):
        Hello.decode(HELLO.encode() + tlv(2, b"\2\1\2"))


@pytest.mark.parametrize(
    ("theirs", "ours", "agreed"),
    [(0, 0, 0), (5000, 0, 5000), (0, 60.0, 60_000), (5000, 60.0, 5000), (90_000, 60.0, 60_000), (1000, 1.0, 1000)],
)
def test_the_smaller_heartbeat_holds(theirs: int, ours: float, agreed: int) -> None:
    """The heartbeat agreed is the smaller one that is not 0."""
    assert negotiate(hello(heartbeat_ms=theirs), OFFERS, Limits(heartbeat=ours), "").heartbeat_ms == agreed


def test_welcome_tells_the_servers_limits() -> None:
    """WELCOME carries the server's frame limit, calls, name, and no feature."""
    answer = negotiate(hello(features=7, max_frame=5000), OFFERS, Limits(max_frame=9999, max_calls=3), "me/1")
    assert (answer.max_frame, answer.max_calls, answer.server_name, answer.features) == (9999, 3, "me/1", 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"codec": 1}, ""),
        ({"version": 2}, "version 2"),
        ({"codec": 3}, "codec 3"),
        ({"features": 2}, "features 0x2"),
        ({"control": 2}, ""),
        ({"control": 3}, "control version 3 was chosen and the client reads 2 at most"),
        ({"features": 1}, ""),
        ({"packing": (2,)}, ""),
        ({"packing": (3,)}, "algorithm 3 was chosen and [1, 2] offered"),
    ],
)
def test_a_welcome_must_fit_the_hello(changes: Mapping[str, object], problem: str) -> None:
    """Mismatch names what was granted and not offered."""
    answer = Welcome(version=1, codec=2, max_frame=4096, max_calls=1)
    text = msgspec.structs.replace(answer, **changes).mismatch(hello(features=1, control=2, packing=(1, 2)))
    assert problem in text
    assert bool(text) is bool(problem)


# Strangers.

FROM_CLIENTS = {
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": "an HTTP client",
    b"HEAD / HTTP/1.0\r\n\r\n": "an HTTP client",
    b"POST /x HTTP/1.1\r\n": "an HTTP client",
    b"PUT /x HTTP/1.1\r\n": "an HTTP client",
    b"PATCH /x HTTP/1.1\r\n": "an HTTP client",
    b"DELETE /x HTTP/1.1\r\n": "an HTTP client",
    b"OPTIONS * HTTP/1.1\r\n": "an HTTP client",
    b"CONNECT a:443 HTTP/1.1\r\n": "an HTTP client",
    b"TRACE / HTTP/1.1\r\n": "an HTTP client",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": "an HTTP/2 client, as gRPC's are",
    bytes.fromhex("1603010200010001fc0303") + bytes(40): "a TLS client",
    bytes.fromhex("160303008001"): "a TLS client",
    b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n": "an SSH client",
    b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n": "a load balancer that sends a PROXY header",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c": "a load balancer that sends a PROXY header",
    b"\x00\x00\x00\x50\x01": "a client that sends a frame and no preamble before it",
    b"*1\r\n$4\r\nPING\r\n": "somebody who begins with 2a 31 0d 0a 24 34 0d 0a",
    b"EHLO example.org\r\n": "somebody who begins with 45 48 4c 4f 20 65 78 61",
    b"hello\n": "somebody who begins with 68 65 6c 6c 6f 0a",
    b"\xf5WQ\x01": "somebody who begins with f5 57 51 01",
    b"\xff": "somebody who begins with ff",
    b"\x03\x00\x00\x13\x0e\xe0": "somebody who begins with 03 00 00 13 0e e0",
}
FROM_SERVERS = {
    b"HTTP/1.1 400 Bad Request\r\n": "an HTTP server",
    bytes.fromhex("00000c0400000000000003000000640005"): "an HTTP/2 server, as gRPC's are",
    bytes.fromhex("000000040000000000"): "an HTTP/2 server, as gRPC's are",
    bytes.fromhex("15030100020228"): "a TLS server",
    b"SSH-2.0-OpenSSH_9.2p1\r\n": "an SSH server",
    b"220 mail.example.org ESMTP\r\n": "a mail or FTP server",
    b"-ERR unknown command\r\n": "a Redis server",
    b"\x4a\x00\x00\x00\x0a8.0": "somebody who begins with 4a 00 00 00 0a 38 2e 30",
}


@pytest.mark.parametrize(
    ("first", "who", "by_client"),
    [(first, who, False) for first, who in FROM_CLIENTS.items()]
    + [(first, who, True) for first, who in FROM_SERVERS.items()],
)
def test_strangers_are_recognised(first: bytes, who: str, by_client: bool) -> None:
    """The first bytes of other protocols are named, as soon as they are certain and never otherwise."""
    whole = recognise(first, by_client=by_client)
    assert isinstance(whole, Stranger)
    assert whole.error.reason == "FOREIGN_PROTOCOL"
    assert f"the peer is {who};" in whole.error.problem
    assert whole.http is ("HTTP" in who and not by_client)
    decided = False
    for size in range(len(first) + 1):
        verdict = recognise(first[:size], by_client=by_client)
        if isinstance(verdict, Stranger):
            decided = True
            if "begins with" not in who:
                assert str(verdict.error) == str(whole.error)
        else:
            assert verdict == "undecided"
            assert not decided
            assert size < LONGEST_PREFIX


@pytest.mark.parametrize("by_client", [False, True])
def test_the_first_two_bytes_are_ours_or_not(by_client: bool) -> None:
    """Of all first pairs of bytes only the preamble's is ours; none is accepted, and few are undecided."""
    undecided = set()
    for number in range(65_536):
        first = number.to_bytes(2, "big")
        verdict = recognise(first, by_client=by_client)
        assert verdict != "ours"
        if verdict == "undecided":
            undecided.add(first)
    assert PREAMBLE[:2] in undecided
    assert len(undecided) < 20


def test_the_preamble_is_ours() -> None:
    """The preamble is ours with whatever follows, and undecided while it is cut."""
    for by_client in (False, True):
        assert recognise(PREAMBLE, by_client=by_client) == "ours"
        assert recognise(PREAMBLE + b"GET ", by_client=by_client) == "ours"
        for size in range(len(PREAMBLE)):
            assert recognise(PREAMBLE[:size], by_client=by_client) == "undecided"


@pytest.mark.parametrize("major", [0, *range(2, 256)])
def test_other_majors_are_told_apart(major: int) -> None:
    """Another major version is UNSUPPORTED_MAJOR and the text lists the one spoken."""
    verdict = recognise(PREAMBLE[:-1] + bytes([major]), by_client=False)
    assert isinstance(verdict, Stranger)
    assert (verdict.error.reason, verdict.error.status) == ("UNSUPPORTED_MAJOR", Status.FAILED_PRECONDITION)
    assert f"major version {major} " in verdict.error.problem
    assert "spoken here: 1" in verdict.error.problem


def test_the_http_refusal_is_an_http_answer() -> None:
    """The refusal parses as HTTP/1.1 400, closes, has the length it declares, and carries the hint."""
    head, _, body = http_refusal("gRPC is spoken on port 50051.").partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert status == "HTTP/1.1 400 Bad Request"
    assert fields["Content-Length"] == str(len(body))
    assert fields["Connection"] == "close"
    assert fields["Content-Type"].startswith("text/plain")
    assert b"wireproto" in body
    assert body.endswith(b"\ngRPC is spoken on port 50051.\n")
    assert http_refusal().endswith(b", and not HTTP.\n")
