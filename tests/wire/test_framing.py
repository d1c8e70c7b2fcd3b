"""What a peer must not send, whatever a peer sends, and what it may cost."""

import struct
import time
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peers import (
    ERROR_BODY,
    GOODBYE,
    HELLO,
    PING,
    STREAM,
    Pair,
    begin_stream,
    drain,
    final_error,
    greeted,
    in_call,
    in_state,
    in_stream,
    numbered_after,
    opened,
    opened_both_ways,
    plain,
    raw,
    reasons,
    started,
    welcome,
)
from wireproto.errors import RemoteProtocolError
from wireproto.limits import Limits
from wireproto.wire.calls import MAX_CROSSED, Calls
from wireproto.wire.connection import MAX_STRAY_ANSWERS, Connection, Role, State
from wireproto.wire.events import (
    NEED_DATA,
    ConnectionEnded,
    Event,
    ItemReceived,
    RequestReceived,
    ResponseReceived,
)
from wireproto.wire.frame import (
    OF_CALLS,
    PREAMBLE,
    TOP_BIT,
    Credit,
    Flag,
    pack_credit,
    pack_goaway,
)


class Wrong(NamedTuple):
    """Bytes that break a rule, where they are received, and the reason the connection ends with."""

    name: str
    begin: Callable[[], Pair]
    receiver: Role
    wire: bytes
    reason: str

    def side(self) -> Connection:
        pair = self.begin()
        return pair.client if self.receiver is Role.CLIENT else pair.server


C, S = Role.CLIENT, Role.SERVER
WRONG = [
    # The frame itself.
    Wrong("a length under the header", opened, S, raw(3, length=11), "FRAME_TOO_SHORT"),
    Wrong("a length of zero", opened, S, bytes(4), "FRAME_TOO_SHORT"),
    Wrong("a length over the limit", opened, S, raw(3, length=Limits().max_frame + 1), "FRAME_TOO_LARGE"),
    Wrong("the longest length", opened, S, b"\xff\xff\xff\xff", "FRAME_TOO_LARGE"),
    Wrong("a HELLO over 4 KiB", started, S, PREAMBLE + raw(1, bytes(4085)), "FRAME_TOO_LARGE"),
    Wrong("a WELCOME over 4 KiB", greeted, C, PREAMBLE + raw(2, bytes(4085)), "FRAME_TOO_LARGE"),
    Wrong("metadata beyond the frame", opened, S, raw(3, b"abc", metadata_length=4), "METADATA_OVERRUN"),
    Wrong("metadata of an ignorable frame beyond it", opened, S, raw(0x80, metadata_length=1), "METADATA_OVERRUN"),
    Wrong("a kind that is not there", opened, S, raw(13), "UNKNOWN_KIND"),
    Wrong("kind 0", opened, C, raw(0), "UNKNOWN_KIND"),
    Wrong("kind 127", opened, C, raw(127), "UNKNOWN_KIND"),
    Wrong("a flag that is none", opened, S, raw(3, flags=2), "RESERVED_FLAGS"),
    Wrong("items of a one-way call", opened, S, raw(3, flags=Flag.ONE_WAY | Flag.ITEMS_FOLLOW), "RESERVED_FLAGS"),
    Wrong("a flag on a RESPONSE", in_call, C, raw(4, flags=Flag.ITEMS_COME_BACK), "RESERVED_FLAGS"),
    Wrong("the codec not chosen", opened, S, raw(3, codec=1), "WRONG_CODEC"),
    Wrong("codec 0 on a message", opened, S, raw(3, codec=0), "WRONG_CODEC"),
    Wrong("another version", opened, S, raw(3, version=2), "WRONG_VERSION"),
    Wrong("a codec on a PING", opened, S, raw(10, bytes(8), codec=2), "WRONG_CODEC"),
    Wrong("a version on a PING", opened, C, raw(10, bytes(8), version=1), "WRONG_VERSION"),
    Wrong("a codec on an ERROR", in_call, C, raw(7, ERROR_BODY, codec=2), "WRONG_CODEC"),
    Wrong("a RESPONSE in another codec", in_call, C, raw(4, codec=1), "WRONG_CODEC"),
    Wrong("a RESPONSE in another version", in_call, C, raw(4, version=3), "WRONG_VERSION"),
    Wrong("a REQUEST without a call id", opened, S, raw(3, call_id=0), "CALL_ID"),
    Wrong("a PING with a call id", opened, S, raw(10, bytes(8), call_id=1), "CALL_ID"),
    Wrong("a RESPONSE without a call id", in_call, C, raw(4, call_id=0, opcode=0), "CALL_ID"),
    Wrong("a CREDIT without a call id and an opcode", opened, S, raw(9, pack_credit(1, 0), call_id=0), "WRONG_OPCODE"),
    Wrong("a PING with an opcode", opened, S, raw(10, bytes(8), opcode=1), "WRONG_OPCODE"),
    Wrong("a final ERROR with an opcode", opened, C, raw(7, ERROR_BODY, call_id=0), "WRONG_OPCODE"),
    Wrong("metadata on a CANCEL", in_call, S, raw(8, metadata=b"x"), "UNEXPECTED_METADATA"),
    Wrong(
        "metadata on a final ERROR",
        in_call,
        C,
        raw(7, ERROR_BODY, metadata=b"x", call_id=0, opcode=0),
        "UNEXPECTED_METADATA",
    ),
    # Before and during the handshake.
    Wrong("a REQUEST for a HELLO", started, S, PREAMBLE + raw(3), "UNEXPECTED_KIND"),
    Wrong("an ignorable frame for a HELLO", started, S, PREAMBLE + raw(0x90), "UNEXPECTED_KIND"),
    Wrong(
        "a final ERROR for a HELLO", started, S, PREAMBLE + raw(7, ERROR_BODY, call_id=0, opcode=0), "UNEXPECTED_KIND"
    ),
    Wrong("a flag on HELLO", started, S, PREAMBLE + raw(1, HELLO.encode(), flags=128), "RESERVED_FLAGS"),
    Wrong("a codec on HELLO", started, S, PREAMBLE + raw(1, HELLO.encode(), codec=1), "WRONG_CODEC"),
    Wrong("a bad HELLO", started, S, PREAMBLE + raw(1, b"\x00" * 30), "BAD_BODY"),
    Wrong("an empty HELLO", started, S, PREAMBLE + raw(1), "BAD_BODY"),
    Wrong("anything after HELLO", greeted, S, b"\x00", "EARLY_FRAME"),
    Wrong("a second HELLO at once", greeted, S, raw(1, HELLO.encode()), "EARLY_FRAME"),
    Wrong("a second HELLO", opened, S, raw(1, HELLO.encode()), "UNEXPECTED_KIND"),
    Wrong("a bad WELCOME", greeted, C, PREAMBLE + raw(2, bytes(23)), "BAD_BODY"),
    Wrong("a WELCOME that was not asked for", opened, C, raw(2, welcome().encode()), "UNEXPECTED_KIND"),
    Wrong("a PING for a WELCOME", greeted, C, PREAMBLE + raw(10, bytes(8)), "UNEXPECTED_KIND"),
    Wrong(
        "a WELCOME in a version not offered",
        greeted,
        C,
        PREAMBLE + raw(2, msgspec.structs.replace(welcome(), version=2).encode()),
        "BAD_BODY",
    ),
    Wrong(
        "a WELCOME in a codec not offered",
        greeted,
        C,
        PREAMBLE + raw(2, msgspec.structs.replace(welcome(), codec=3).encode()),
        "BAD_BODY",
    ),
    Wrong("another major", started, S, b"\xf5WP\x02", "UNSUPPORTED_MAJOR"),
    Wrong("another server's major", greeted, C, b"\xf5WP\x00", "UNSUPPORTED_MAJOR"),
    Wrong("a stranger", started, S, b"hello\n", "FOREIGN_PROTOCOL"),
    Wrong("a strange server", greeted, C, b"SSH-2.0-x\r\n", "FOREIGN_PROTOCOL"),
    # Calls.
    Wrong("an id twice", in_call, S, raw(3), "CALL_ID"),
    Wrong("an id from behind", in_call, S, raw(3, call_id=2**31 - 1), "CALL_ID"),
    Wrong("an id half the circle ahead", in_call, S, raw(3, call_id=1 + 2**30), "CALL_ID"),
    Wrong("an id of the server's from a client", opened, S, raw(3, call_id=TOP_BIT | 1), "CALL_ID"),
    Wrong("an id of the client's from a server", opened, C, raw(3), "CALL_ID"),
    Wrong("the server's id that is none", opened, C, raw(3, call_id=TOP_BIT), "CALL_ID"),
    Wrong("a server's id half the circle ahead", opened, C, raw(3, call_id=TOP_BIT | 2**30), "CALL_ID"),
    Wrong("a payload where items follow", opened, S, raw(3, b"x", flags=Flag.ITEMS_FOLLOW), "BAD_BODY"),
    Wrong("a one-way call without credit", opened, S, raw(3, flags=Flag.ONE_WAY), "CREDIT_EXCEEDED"),
    Wrong("a second GOAWAY of a client", opened, S, raw(12, pack_goaway(0, GOODBYE)) * 2, "UNEXPECTED_KIND"),
    Wrong("a second GOAWAY of a server", opened, C, raw(12, pack_goaway(0, GOODBYE)) * 2, "UNEXPECTED_KIND"),
    Wrong("a CREDIT from a server for a stream", in_stream, C, raw(9, pack_credit(1, 1)), "WRONG_HALF"),
    Wrong("a RESPONSE of a client to its own call", in_call, S, raw(4), "WRONG_HALF"),
    Wrong("an ERROR of a client for its own call", in_call, S, raw(7, ERROR_BODY), "WRONG_HALF"),
    Wrong("a RESPONSE of a client to no call", opened, S, raw(4), "WRONG_HALF"),
    Wrong("an ERROR of a client for no call", opened, S, raw(7, ERROR_BODY), "WRONG_HALF"),
    Wrong("a CANCEL of a server for a client's call", in_call, C, raw(8), "WRONG_HALF"),
    Wrong("a second CANCEL", in_call, S, raw(8) * 2, "WRONG_HALF"),
    Wrong("a CREDIT for a unary call", in_call, S, raw(9, pack_credit(1, 1)), "WRONG_HALF"),
    Wrong("an ITEM of a client for a stream", in_stream, S, raw(5), "WRONG_HALF"),
    Wrong("an ITEM of no call", opened, S, raw(5), "CREDIT_EXCEEDED"),
    Wrong("a CANCEL for another opcode", in_call, S, raw(8, opcode=0x11), "WRONG_OPCODE"),
    Wrong("a CREDIT for another opcode", in_stream, S, raw(9, pack_credit(1, 1), opcode=0x11), "WRONG_OPCODE"),
    Wrong("a RESPONSE with another opcode", in_call, C, raw(4, opcode=0x11), "WRONG_OPCODE"),
    Wrong("an ERROR with another opcode", in_call, C, raw(7, ERROR_BODY, opcode=0x11), "WRONG_OPCODE"),
    Wrong("an ITEM for a unary call", in_call, C, raw(5), "WRONG_HALF"),
    Wrong("an END for a unary call", in_call, C, raw(6), "WRONG_HALF"),
    Wrong("a RESPONSE for a stream", in_stream, C, raw(4), "WRONG_HALF"),
    Wrong("an ITEM beyond the credit", in_stream, C, raw(5) * 3, "CREDIT_EXCEEDED"),
    Wrong("bytes beyond the credit", in_stream, C, raw(5, bytes(100)) + raw(5), "CREDIT_EXCEEDED"),
    Wrong("too many items of credit", in_stream, S, raw(9, pack_credit(2**32 - 2, 0)), "CREDIT_OVERFLOW"),
    Wrong("too many bytes of credit", in_stream, S, raw(9, pack_credit(0, 2**32 - 100)), "CREDIT_OVERFLOW"),
    Wrong(
        "too much one-way credit",
        opened,
        S,
        raw(9, pack_credit(2**32 - 1, 0), call_id=0, opcode=0) + raw(9, pack_credit(1, 0), call_id=0, opcode=0),
        "CREDIT_OVERFLOW",
    ),
    Wrong("too many stray answers", opened, C, raw(4) * (MAX_STRAY_ANSWERS + 1), "STRAY_ANSWERS"),
    Wrong("a CANCEL with a payload", in_call, S, raw(8, b"x"), "BAD_BODY"),
    Wrong("an END with a payload", in_stream, C, raw(6, b"x"), "BAD_BODY"),
    Wrong("a CREDIT of nothing", in_stream, S, raw(9, bytes(8)), "BAD_BODY"),
    Wrong("a short CREDIT", in_stream, S, raw(9, bytes(7)), "BAD_BODY"),
    Wrong("one-way credit of bytes", opened, S, raw(9, pack_credit(1, 1), call_id=0, opcode=0), "BAD_BODY"),
    Wrong("a CREDIT of no call that cannot be read", opened, S, raw(9, bytes(7), call_id=5), "BAD_BODY"),
    Wrong("a CANCEL of no call with a payload", opened, S, raw(8, b"x", call_id=5), "BAD_BODY"),
    Wrong("a short PING", opened, S, raw(10, bytes(7)), "BAD_BODY"),
    Wrong("a long PONG", opened, C, raw(11, bytes(9)), "BAD_BODY"),
    Wrong("an empty ERROR", in_call, C, raw(7), "BAD_BODY"),
    Wrong("an ERROR that says OK", in_call, C, raw(7, bytes(9)), "BAD_BODY"),
    Wrong("an empty final ERROR", opened, C, raw(7, call_id=0, opcode=0), "BAD_BODY"),
    Wrong("an empty GOAWAY", opened, C, raw(12), "BAD_BODY"),
    Wrong("a GOAWAY without an error", opened, C, raw(12, bytes(4)), "BAD_BODY"),
]
wrongs = pytest.mark.parametrize("wrong", WRONG, ids=[wrong.name for wrong in WRONG])


@wrongs
def test_a_broken_rule_ends_the_connection(wrong: Wrong) -> None:
    """A broken rule is reported once, as the last event; the peer is told; what follows is dropped and counted."""
    side = wrong.side()
    side.receive_data(wrong.wire)
    *before, event = drain(side)
    assert not any(isinstance(other, ConnectionEnded) for other in before)
    assert isinstance(event, ConnectionEnded)
    assert isinstance(event.error, RemoteProtocolError)
    assert event.error.reason == wrong.reason
    assert event.error.__traceback__ is None
    assert side.error is event.error
    assert side.state is State.CLOSED
    assert side.partial_length is None

    sent = side.data_to_send()
    if wrong.receiver is Role.CLIENT and wrong.reason in ("FOREIGN_PROTOCOL", "UNSUPPORTED_MAJOR"):
        assert sent == b""
    else:
        assert final_error(sent).reason == wrong.reason
        assert sent.startswith(PREAMBLE) is (wrong.receiver is Role.SERVER and wrong.begin in (started, greeted))

    assert side.discarded == 0
    side.receive_data(b"abc")
    side.receive_data(PING)
    side.receive_eof()
    assert side.discarded == 3 + len(PING)
    assert drain(side) == []
    assert side.data_to_send() == b""


@wrongs
def test_a_broken_rule_is_found_however_it_is_cut(wrong: Wrong) -> None:
    """Byte by byte and at every cut the reason is the same, and it is never reported before it is certain."""
    whole = wrong.side()
    whole.receive_data(wrong.wire)
    expected = plain(drain(whole)[-1])
    step = max(1, len(wrong.wire) // 50)
    for cut in range(1, len(wrong.wire), step):
        side = wrong.side()
        side.receive_data(wrong.wire[:cut])
        events = drain(side)
        side.receive_data(wrong.wire[cut:])
        events += drain(side)
        if wrong.name == "a stranger":  # quoted as far as it is known
            assert isinstance(events[-1], ConnectionEnded)
            continue
        assert plain(events[-1]) == expected
    side = wrong.side()
    events = []
    for at in range(len(wrong.wire)):
        side.receive_data(wrong.wire[at : at + 1])
        events += drain(side)
    (last,) = [event for event in events if isinstance(event, ConnectionEnded)]
    assert last.error is not None
    assert last.error.reason == wrong.reason


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_http_is_answered_in_http(first: bytes) -> None:
    """An HTTP client gets a 400 with the hint, and no preamble before it; the owner is told who it was."""
    server = Connection(Role.SERVER, hint="gRPC is spoken on port 50051.")
    server.receive_data(first)
    assert reasons(server) == ["FOREIGN_PROTOCOL"]
    assert "HTTP" in str(server.error)
    answer = server.data_to_send()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"gRPC is spoken on port 50051.\n")


def test_other_strangers_get_the_final_error() -> None:
    """Whoever else is on the line gets preamble and ERROR, as readable as can be."""
    server = Connection(Role.SERVER)
    server.receive_data(b"SSH-2.0-x\r\n")
    assert reasons(server) == ["FOREIGN_PROTOCOL"]
    sent = server.data_to_send()
    assert sent.startswith(PREAMBLE)
    assert "an SSH client" in final_error(sent).message


# Whatever a peer sends.


IN_FLIGHT = (0, 0, Flag.ITEMS_COME_BACK, 0, Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK)
"""The flags of calls 1 to 5 of either side; 4 is cancelled."""


def quadruplets(role: Role, last: int) -> list[Connection]:
    """Four connections in the same condition: calls of every shape and cancelled ones in flight, both ways."""
    made = []
    limits = Limits(max_frame=4096, max_metadata=40)
    for _ in range(4):
        pair = opened_both_ways(Credit(2, 3), one_way=1, max_calls=6, limits=limits)
        for side in pair:
            for flags in IN_FLIGHT:
                if not flags:
                    side.send_request(0x10, b"")
                elif flags & Flag.ITEMS_FOLLOW:
                    side.send_flagged_request(flags, 0x10, b"", STREAM, credit=Credit(2, 100))
                else:
                    begin_stream(side)
            side.send_cancel(side._ours.top_bit | 4)
            pair.deliver(side)
        made.append(pair.client if role is Role.CLIENT else pair.server)
        for top_bit in (0, TOP_BIT):
            numbered_after(top_bit | last, made[-1])
    return made


@st.composite
def nearly_frames(draw: st.DrawFn) -> bytes:
    """A few frames, mostly right, a few of them broken somewhere."""
    wire = b""
    by_server = draw(st.booleans())
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from([3, 3, 3, 4, 4, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 13, 0x80, 0xFF]))
        bodies = {3: b"x", 4: b"y", 5: b"z", 7: ERROR_BODY, 9: pack_credit(1, 2), 10: b"8" * 8, 11: b"8" * 8}
        metadata = b"" if kind != 3 else draw(st.sampled_from([b"", b"", STREAM, b"\x01", bytes(41)]))
        changes: dict[str, int] = {}
        if kind == 3:
            changes["call_id"] = draw(st.sampled_from([6 + number, 6 + number, 6 + number, 1, 0, 2**30 + 5, 2**31 - 1]))
            changes["call_id"] |= TOP_BIT if by_server else 0
            changes["flags"] = draw(st.sampled_from([0, 0, 0, 1, 4, 8, 12]))
            if changes["flags"] & Flag.ITEMS_FOLLOW:
                bodies[3] = b""
        elif kind in OF_CALLS:
            changes["call_id"] = draw(st.integers(1, 7)) | draw(st.sampled_from([0, TOP_BIT]))
        if draw(st.integers(0, 5)) == 0:
            field = draw(
                st.sampled_from(["flags", "codec", "version", "opcode", "call_id", "length", "metadata_length"])
            )
            changes[field] = draw(st.integers(0, 40))
        wire += raw(kind, bodies.get(kind, b""), metadata, **changes)
    if draw(st.integers(0, 3)) == 0:
        wire = wire[: draw(st.integers(0, len(wire)))] + draw(st.binary(max_size=5))
    return wire


def drain_many(side: Connection, limit: int) -> list[Event]:
    """Every event there is, by the way that takes several at once."""
    events: list[Event] = []
    while some := side.next_events(limit):
        assert len(some) <= limit
        others = [event for event in some if not isinstance(event, RequestReceived | ResponseReceived | ItemReceived)]
        assert others in ([], some[-1:])
        events += some
        if not others and len(some) < limit:
            break
    assert side.next_event() is NEED_DATA
    return events


def left_to_cross(calls: Calls) -> object:
    """What is left in the bucket of what crosses the end of calls; nothing has been taken of one that is not there."""
    return MAX_CROSSED if calls._crossing is None else calls._crossing._bucket


@given(
    nearly_frames(), st.sampled_from(Role), st.integers(1, 50), st.sampled_from([5, 5, 0, 2**31 - 1]), st.integers(1, 9)
)
def test_the_hurried_path_and_the_other_agree(wire: bytes, role: Role, piece: int, last: int, limit: int) -> None:
    """The short path for whole frames reports, answers and counts what the full one does, with any cut and limit."""
    hurried, in_pieces, as_read, unhurried = quadruplets(role, last)
    hurried.receive_data(wire)
    reported: list[list[Event]] = [drain_many(hurried, limit), [], [], []]
    for at in range(0, len(wire), piece):
        in_pieces.receive_data(wire[at : at + piece])
        reported[1] += drain_many(in_pieces, limit)
        if (request := as_read.lone_request(wire[at : at + piece])) is not None:
            reported[2].append(request)
        else:
            as_read.receive_data(wire[at : at + piece])
            reported[2] += drain_many(as_read, limit)
        unhurried.receive_data(wire[at : at + piece])
        reported[3] += drain(unhurried)
    first, *others = [
        (
            [plain(event) for event in events],
            side.data_to_send(),
            (
                side.state,
                side.last_call_id,
                side.frames_received,
                side.own_calls,
                side.peer_calls,
                side.one_way_credit,
                side.partial_length,
                side._stray,
            ),
            [(calls.last, calls.one_way, calls.opcodes, left_to_cross(calls)) for calls in (side._ours, side._theirs)],
            [(side.credit(call_id), side.credit_out(call_id)) for low in range(12) for call_id in (low, low | TOP_BIT)],
        )
        for side, events in zip((hurried, in_pieces, as_read, unhurried), reported, strict=True)
    ]
    assert others == [first, first, first]


@given(st.binary(max_size=200), st.sampled_from(Role), st.sampled_from(State), st.booleans())
def test_no_bytes_raise(wire: bytes, role: Role, state: State, eof: bool) -> None:
    """Whatever is received in whatever state, events come back, and at most one end, which is the last."""
    side = in_state(role, state)
    side.receive_data(wire)
    if eof:
        side.receive_eof()
    events = drain(side)
    assert [event for event in events if isinstance(event, ConnectionEnded)] == [
        event for event in events[-1:] if isinstance(event, ConnectionEnded)
    ]
    assert side.next_event() is NEED_DATA


def test_every_single_bit_flip_is_an_event_or_an_end() -> None:
    """With any one bit of a conversation flipped the server reports events and at most one end, and never raises."""
    client, _ = opened_both_ways()
    client.send_flagged_request(Flag.ITEMS_FOLLOW | Flag.ITEMS_COME_BACK, 0x10, b"", STREAM, credit=Credit(2, 100))
    client.send_item(1, b"item")
    client.send_end(1)
    client.send_credit(1, 5, 10)
    client.send_ping(bytes(8))
    client.send_cancel(1)
    client.send_flagged_request(Flag.ONE_WAY, 0x11, b"payload")
    client.send_one_way_credit(3)
    wire = client.data_to_send()
    for bit in range(len(wire) * 8):
        flipped = bytearray(wire)
        flipped[bit // 8] ^= 1 << bit % 8
        server = opened_both_ways().server
        server.receive_data(bytes(flipped))
        assert sum(isinstance(event, ConnectionEnded) for event in drain(server)) <= 1


@pytest.mark.parametrize("length", [2**31 - 1, 2**32 - 1])
def test_a_huge_length_allocates_nothing(length: int) -> None:
    """A length over the limit is refused from its four bytes; memory grows by less than 64 KiB."""
    server = opened().server
    tracemalloc.start()
    try:
        server.receive_data(struct.pack(">I", length))
        assert reasons(server) == ["FRAME_TOO_LARGE"]
        assert tracemalloc.get_traced_memory()[1] < 65_536
    finally:
        tracemalloc.stop()


def gather(size: int, piece: int, limit: int) -> float:
    """Seconds of CPU to receive one frame of ``size`` bytes in pieces, asking for events after each."""
    server = opened(Limits(max_frame=limit)).server
    wire = memoryview(raw(3, bytes(size)))
    begin = time.process_time()
    event: object = None
    for at in range(0, len(wire), piece):
        server.receive_data(bytes(wire[at : at + piece]))
        event = server.next_event()
    taken = time.process_time() - begin
    assert isinstance(event, RequestReceived)
    assert len(event.payload) == size
    return taken


@pytest.mark.parametrize(("size", "piece"), [(1024 * 1024, 1024), (64 * 1024, 1)])
def test_cost_is_linear_in_bytes(size: int, piece: int) -> None:
    """Four times the bytes in pieces of the same size cost about four times as much, not sixteen."""
    limit = 16 * 1024 * 1024
    small = min(gather(size - 12, piece, limit) for _ in range(5))
    large = min(gather(4 * size - 12, piece, limit) for _ in range(3))
    assert large < 9 * small


def test_a_large_frame_is_copied_twice_at_most() -> None:
    """A frame of 16 MiB in pieces of 64 KiB peaks below what three copies would take."""
    size = 16 * 1024 * 1024 - 12
    server = opened(Limits(max_frame=16 * 1024 * 1024)).server
    header, piece = raw(3, length=size + 12), bytes(65_536)
    server.receive_data(header)
    tracemalloc.start()
    try:
        for _ in range(size // len(piece)):
            server.receive_data(piece)
            assert server.next_event() is NEED_DATA
        server.receive_data(bytes(size % len(piece)))
        event = server.next_event()
        assert isinstance(event, RequestReceived)
        assert len(event.payload) == size
        assert tracemalloc.get_traced_memory()[1] < 2.2 * size
    finally:
        tracemalloc.stop()


def test_many_small_frames_unasked_for_are_linear() -> None:
    """Pieces received without asking for events in between are kept once, and all there afterwards."""
    pair = opened(Limits(max_calls=10_000))
    for _ in range(5000):
        pair.client.send_request(1, b"x" * 20)
    wire = pair.client.data_to_send()
    for at in range(0, len(wire), 7):
        pair.server.receive_data(wire[at : at + 7])
    events = drain(pair.server)
    assert [event.call_id for event in events if isinstance(event, RequestReceived)] == list(range(1, 5001))


def answer_all(server: Connection) -> None:
    """Answer every call received."""
    for event in drain(server):
        assert isinstance(event, RequestReceived)
        server.send_response(event.call_id, b"y" * 30)


def test_an_idle_connection_is_small() -> None:
    """A server connection that has served calls and is idle again holds less than 1 KiB."""
    many = 200
    wires = []
    for _ in range(many):
        client = started().client
        client.send_hello(HELLO)
        wires.append(client.data_to_send())
    requests = b"".join(raw(3, b"x" * 30, call_id=number) for number in range(1, 101))
    servers: list[Connection | None] = [None] * many
    for side in map(Connection, [Role.SERVER] * 20):  # whatever is made once
        side.next_event()
    tracemalloc.start()
    try:
        for number in range(many):
            server = servers[number] = Connection(Role.SERVER)
            server.receive_data(wires[number])
            server.next_event()
            server.send_welcome(welcome())
            server.receive_data(requests)
            answer_all(server)
            server.data_to_send()
        assert tracemalloc.get_traced_memory()[0] / many < 1024
    finally:
        tracemalloc.stop()
