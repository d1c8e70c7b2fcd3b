"""Every kind, flag, codec, version and opcode that a header can say is answered as ``docs/wire.md`` says.

The tables here are copied from the document by hand and share nothing with the code.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.server.service import SERVICE, Stage
from tests.wire.peers import CODEC, ERROR_BODY, attempt, drain, in_state, opened, raw, reasons
from wireproto.conformance.raw import RawFrame, RawPeer, frame, pack_hello
from wireproto.errors import RemoteProtocolError
from wireproto.limits import Limits
from wireproto.server import Server
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import RequestReceived
from wireproto.wire.frame import PREAMBLE, Frame, check_header, unpack_error

KINDS = (
    *("", "HELLO", "WELCOME", "REQUEST", "RESPONSE", "ITEM", "END"),
    *("ERROR", "CANCEL", "CREDIT", "PING", "PONG", "GOAWAY"),
)
"""Section 2, by their numbers."""

RECEIVES = {
    (Role.CLIENT, State.START): "",
    (Role.CLIENT, State.GREETING): "WELCOME",
    (Role.CLIENT, State.OPEN): "REQUEST RESPONSE ITEM END ERROR CANCEL CREDIT PING PONG GOAWAY",
    (Role.CLIENT, State.HALF_CLOSED): "REQUEST RESPONSE ITEM END ERROR CANCEL CREDIT PING PONG GOAWAY",
    (Role.SERVER, State.START): "HELLO",
    (Role.SERVER, State.OPEN): "REQUEST RESPONSE ITEM END ERROR CANCEL CREDIT PING PONG GOAWAY",
}
"""Section 7; of ERROR the one with a call id."""

REQUEST_FLAGS = [0x00, 0x01, 0x04, 0x08, 0x0C]
"""Section 2; no other kind has a flag."""

OF_MESSAGES = ("REQUEST", "RESPONSE", "ITEM")
"""Section 2: those that are in the connection's codec and version."""


def judged(role: Role, state: State, wire: bytes) -> str:
    """The reason for which bytes end a connection; "" when they do not."""
    side = in_state(role, state)
    side.receive_data(PREAMBLE + wire if state is State.START or state is State.GREETING else wire)
    drain(side)
    if side.error is None:
        assert side.state is not State.CLOSED
        return ""
    return side.error.reason


@pytest.mark.parametrize(("role", "state"), [*RECEIVES, (Role.SERVER, State.GREETING)])
def test_every_kind_in_every_state(role: Role, state: State) -> None:
    """A kind is taken, skipped, unknown or unexpected, as its number and the table of states say."""
    for kind in range(256):
        found = judged(role, state, raw(kind))
        if (role, state) == (Role.SERVER, State.GREETING):
            expected = "EARLY_FRAME"
        elif kind >= 128:
            expected = "" if state in (State.OPEN, State.HALF_CLOSED) else "UNEXPECTED_KIND"
        elif not 1 <= kind <= 12:
            expected = "UNKNOWN_KIND"
        elif KINDS[kind] not in RECEIVES[role, state].split():
            expected = "UNEXPECTED_KIND"
        else:
            assert found not in ("UNKNOWN_KIND", "UNEXPECTED_KIND"), kind
            continue
        assert found == expected, kind


@pytest.mark.parametrize(
    ("field", "reason"), [("flags", "RESERVED_FLAGS"), ("codec", "WRONG_CODEC"), ("version", "WRONG_VERSION")]
)
def test_every_value_of_the_header(field: str, reason: str) -> None:
    """Of each of the three bytes one value is right for a kind, or five flags, and all others end the connection."""
    for (role, state), names in RECEIVES.items():
        for name in names.split():
            right = [{"codec": CODEC, "version": 1}.get(field, 0) if name in OF_MESSAGES else 0]
            if (field, name) == ("flags", "REQUEST"):
                right = REQUEST_FLAGS
            for value in range(256):
                changed: dict[str, Any] = {field: value}
                found = judged(role, state, raw(KINDS.index(name), **changed))
                assert (found == reason) is (value not in right), (name, value, found)


def test_every_opcode_begins_a_call() -> None:
    """A REQUEST may have any opcode: what it names is not the connection's business."""
    server = opened(Limits(max_calls=2**17)).server
    for opcode in range(2**16):
        server.receive_data(raw(3, call_id=opcode + 1, opcode=opcode))
        (event,) = drain(server)
        assert isinstance(event, RequestReceived)
        assert (event.call_id, event.opcode) == (opcode + 1, opcode)


def check(header: Frame) -> None:
    check_header(header, CODEC, 1)


@pytest.mark.parametrize("kind", [1, 2, 7, 9, 10, 11, 12])
def test_no_opcode_is_the_connections(kind: int) -> None:
    """A frame of the connection has opcode 0, and none of the others; ERROR and CREDIT of no call are such frames."""
    for opcode in range(2**16):
        found = attempt(check, Frame(kind, 0, 0, 0, opcode, 0, b"", b""))
        assert (found.reason if isinstance(found, RemoteProtocolError) else "") == ("WRONG_OPCODE" if opcode else "")


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("kind", [4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("began_by", Role)
def test_a_call_keeps_its_opcode(role: Role, kind: int, began_by: Role) -> None:
    """Whatever belongs to a call in flight carries the opcode of its REQUEST, on either side; every bit counts."""
    body = {7: ERROR_BODY, 9: b"\0\0\0\1\0\0\0\1"}.get(kind, b"")
    call_id = 1 | 0x80000000 * (began_by is Role.SERVER)
    for opcode in {0x10, *(0x10 ^ 1 << bit for bit in range(16)), 0, 0xFFFF, *range(0, 2**16, 1021)}:
        found = judged(role, State.OPEN, raw(kind, body, opcode=opcode, call_id=call_id))
        assert (found == "WRONG_OPCODE") is (opcode != 0x10), opcode


@pytest.mark.parametrize("began_by", Role)
@pytest.mark.parametrize("previous", [0, 1, 2, 2**30 - 1, 2**30, 2**30 + 1, 2**31 - 2, 2**31 - 1])
def test_every_distance_of_an_id(began_by: Role, previous: int) -> None:
    """The number of a REQUEST lies ahead of the previous one by 1 to 1073741823, modulo 2^31; and 0 is none."""
    top_bit = 0x80000000 * (began_by is Role.SERVER)
    distances = {0, 1, 2, *(1 << bit for bit in range(31)), *((1 << bit) - 1 for bit in range(32))}
    for distance in sorted(distances | {-each for each in distances}):
        pair = opened()
        receiver = pair.server if began_by is Role.CLIENT else pair.client
        receiver._theirs.max_calls = 10
        receiver._theirs.last = top_bit | previous
        receiver._theirs.ahead = receiver._theirs.last  # the short way has nothing to go by
        number = (previous + distance) % 2**31
        receiver.receive_data(raw(3, call_id=top_bit | number))
        drain(receiver)
        fits = number != 0 and 1 <= distance % 2**31 <= 1073741823
        assert (receiver.error is None) is fits, distance
        if receiver.error is not None:
            assert receiver.error.reason == "CALL_ID"


def test_every_bit_of_an_id() -> None:
    """A REQUEST whose top bit is not that of its sender's calls is none of them."""
    for role, call_id in ((Role.SERVER, 0x80000000), (Role.CLIENT, 0)):
        for number in (0, 4, 5, 2**30, 2**31 - 1):
            assert judged(role, State.OPEN, raw(3, call_id=call_id | number)) == "CALL_ID"


# The same over a socket, against the server.


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    stage = Stage()
    limits = Limits(errors_per_minute=10**6)
    with Server(stage.handlers, codecs=["msgpack"], workers=4, limits=limits) as running:
        yield running


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[[], RawPeer]]:
    peers: list[RawPeer] = []

    def make() -> RawPeer:
        peer = RawPeer.connect((server.address.host, server.address.port))
        peers.append(peer)
        peer.send(PREAMBLE + frame(1, pack_hello(service=SERVICE.full_name)))
        assert peer.take(4) == PREAMBLE
        assert isinstance(peer.receive(), RawFrame)
        return peer

    yield make
    for peer in peers:
        peer.close()


UNARY = {
    **dict.fromkeys([1, 2, 3, 6, 7, 8, 11, 0xF000, 0xF001, 0xF002], "BAD_PAYLOAD"),
    9: "SIGN_IN_REQUIRED",
    10: "SIGN_IN_REQUIRED",
}
STREAMS = {4: "BAD_PAYLOAD", 5: "BAD_PAYLOAD"}
"""What bytes that are no MessagePack are answered by opcode, in the service of these tests; others do not exist."""


@pytest.mark.parametrize("flags", [0x00, 0x04, 0x08, 0x0C])
def test_a_server_answers_every_opcode(connect: Callable[[], RawPeer], flags: int) -> None:
    """Each of the 65,536 opcodes is answered once: by its method, as one of another shape, or as unknown."""
    answers = {**dict.fromkeys([*UNARY, *STREAMS], "WRONG_SHAPE"), **{0x00: UNARY, 0x08: STREAMS}.get(flags, {})}
    payload = b"" if flags & 0x04 else b"\xc1"
    peer = connect()
    at_once = 128
    for first in range(0, 2**16, at_once):
        opcodes = range(first, first + at_once)
        requests = (
            frame(3, payload, flags=flags, codec=2, version=1, opcode=each, call_id=each + 1) for each in opcodes
        )
        assert peer.send(b"".join(requests)) is None
        answered: dict[int, str] = {}
        for _ in opcodes:
            answer = peer.receive()
            assert isinstance(answer, RawFrame)
            assert (answer.kind, answer.codec, answer.version, answer.call_id) == (7, 0, 0, answer.opcode + 1)
            answered[answer.opcode] = unpack_error(answer.payload).reason
        assert answered == {each: answers.get(each, "UNKNOWN_OPCODE") for each in opcodes}


@pytest.mark.slow
@pytest.mark.parametrize("field", ["kind", "flags", "codec", "version"])
def test_a_server_answers_every_byte(connect: Callable[[], RawPeer], field: str) -> None:
    """A PING with any other value in one byte of its header ends the connection with the reason of the document."""
    right = {"kind": 10, "flags": 0, "codec": 0, "version": 0}
    reason = {"flags": "RESERVED_FLAGS", "codec": "WRONG_CODEC", "version": "WRONG_VERSION"}
    for value in range(256):
        kind, flags, codec, version = {**right, field: value}.values()
        peer = connect()
        peer.send(frame(kind, b"12345678", flags=flags, codec=codec, version=version), frame(10, b"afterall"))
        answer = peer.receive()
        assert isinstance(answer, RawFrame), value
        if value == right[field] or (field == "kind" and (kind == 11 or kind >= 128)):
            assert answer.kind == 11
            if kind == 10:
                assert answer.payload == b"12345678"
            else:
                assert answer.payload == b"afterall"  # what is skipped, or a PONG, is not answered
            peer.close()
            continue
        if field == "kind":
            # With call id 0 what is of a call has none, and an ERROR is the client's last word. Eight bytes are one-way
            # credit, of which these have bytes, and a GOAWAY without its error.
            if kind == 7:
                continue
            of_calls = {
                **dict.fromkeys([3, 4, 5], "WRONG_CODEC"),
                **dict.fromkeys([6, 8], "CALL_ID"),
                **dict.fromkeys([9, 12], "BAD_BODY"),
            }
            expected = of_calls.get(kind, "UNEXPECTED_KIND" if 1 <= kind <= 12 else "UNKNOWN_KIND")
        else:
            expected = reason[field]
        assert (answer.kind, answer.call_id) == (7, 0)
        assert unpack_error(answer.payload).reason == expected, value
        peer.close()


def test_a_connection_that_ended_hears_nothing() -> None:
    """After a bad header nothing that follows is reported."""
    connection: Connection = opened().server
    connection.receive_data(raw(10, b"12345678", flags=1) + raw(10, b"12345678"))
    assert reasons(connection) == ["RESERVED_FLAGS"]
