"""What is taken by the short path, and the boundaries at which it must leave it to the other; what is sent by it.

``test_framing.py`` compares both on random frames; here is each boundary by itself.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peers import GOODBYE, STREAM, Pair, begin_stream, drain, numbered_after, opened, plain, raw
from wireproto.errors import LocalProtocolError
from wireproto.limits import Limits
from wireproto.wire.calls import CIRCLE
from wireproto.wire.connection import Connection, Role, State
from wireproto.wire.events import (
    NEED_DATA,
    CancelReceived,
    ConnectionEnded,
    EndReceived,
    Event,
    ItemReceived,
    NeedData,
    PingReceived,
    RequestReceived,
    ResponseReceived,
)
from wireproto.wire.frame import TOP_BIT, Credit, Flag, Kind, pack
from wireproto.wire.metadata import EMPTY, Metadata, pack_metadata

LIMITS = Limits(max_frame=4096, max_calls=3)
HALF = CIRCLE // 2
LARGEST = bytes(4096 - 12)


class Hurried(Connection):
    """A connection whose long way is closed."""

    __slots__ = ()

    def next_event(self) -> Event | NeedData:
        pytest.fail("the long way was taken")


def hurried(side: Connection) -> Connection:
    side.__class__ = Hurried
    return side


def request(call_id: int, payload: bytes = b"", metadata: bytes = b"", **changes: int) -> bytes:
    return raw(Kind.REQUEST, payload, metadata, call_id=call_id, **changes)


def calling(count: int) -> Pair:
    """The client has called so often, and the server has read it."""
    pair = opened(LIMITS)
    for _ in range(count):
        pair.client.send_request(0x10, b"")
    pair.settle()
    return pair


@pytest.mark.parametrize(
    ("last", "wire", "ids"),
    [
        (0, request(1), [1]),
        (0, request(1) + request(2) + request(3), [1, 2, 3]),
        (0, request(1, LARGEST), [1]),
        (0, request(HALF - 1), [HALF - 1]),
        (7, request(7 + HALF - 1), [7 + HALF - 1]),
        (HALF, request(CIRCLE - 1), [CIRCLE - 1]),
        (0, request(1, b"x", STREAM) + request(2), [1, 2]),
    ],
)
def test_whole_requests_take_the_short_path(last: int, wire: bytes, ids: list[int]) -> None:
    """A server takes REQUESTs that are whole and in order without looking at them one by one."""
    server = hurried(opened(LIMITS).server)
    numbered_after(last, server)
    server.receive_data(wire)
    events = server.next_events(9)
    assert [event.call_id for event in events if isinstance(event, RequestReceived)] == ids
    assert len(events) == len(ids)
    assert (server.calls_in_flight, server.last_call_id, server.frames_received) == (len(ids), ids[-1], 1 + len(ids))
    assert server.next_events(9) == []


def test_the_short_path_reads_all_of_a_request() -> None:
    """What the short path reports of a REQUEST is its opcode, metadata and payload; credit means nothing there."""
    server = hurried(opened(LIMITS).server)
    server.receive_data(
        request(1, b"one", pack_metadata(Metadata(credit=Credit(2, 9))))
        + request(2, b"two", opcode=0xBEEF)
        + request(3)
    )
    assert server.next_events(9) == [
        RequestReceived(1, 0x10, Metadata(credit=Credit(2, 9)), b"one"),
        RequestReceived(2, 0xBEEF, EMPTY, b"two"),
        RequestReceived(3, 0x10, EMPTY, b""),
    ]
    assert [server.credit(call_id) for call_id in (1, 2, 3)] == [(0, 0)] * 3


@pytest.mark.parametrize("payload", [b"", b"x", LARGEST])
def test_whole_responses_take_the_short_path(payload: bytes) -> None:
    """A client takes RESPONSEs to its unary calls without looking at them one by one."""
    client = hurried(calling(3).client)
    client.receive_data(b"".join(raw(Kind.RESPONSE, payload, call_id=call_id) for call_id in (2, 1, 3)))
    assert client.next_events(9) == [ResponseReceived(call_id, 0x10, payload) for call_id in (2, 1, 3)]
    assert (client.calls_in_flight, client.frames_received) == (0, 1 + 3)


def test_no_more_than_asked_for() -> None:
    """A list has at most so many events; the next one goes on where it ended, in the same bytes."""
    server = hurried(opened(LIMITS).server)
    server.receive_data(request(1) + request(2) + request(3))
    assert [len(server.next_events(limit)) for limit in (1, 2)] == [1, 2]
    pair = calling(3)
    client = hurried(pair.client)
    client.receive_data(b"".join(raw(Kind.RESPONSE, call_id=call_id) for call_id in (1, 2, 3)))
    assert [len(client.next_events(limit)) for limit in (2, 1)] == [2, 1]


def test_a_list_ends_behind_another_event() -> None:
    """A list ends behind what is neither REQUEST nor RESPONSE, though more has come."""
    server = calling(1).server
    server.receive_data(
        request(2)
        + raw(Kind.CANCEL, call_id=1)
        + request(3)
        + raw(Kind.PING, b"12345678")
        + raw(Kind.PONG, b"12345678")
    )
    kinds = [[type(event) for event in server.next_events(9)] for _ in range(4)]
    assert kinds[0] == [RequestReceived, CancelReceived]
    assert kinds[1] == [RequestReceived, PingReceived]
    assert [len(each) for each in kinds[2:]] == [1, 0]


class Boundary(NamedTuple):
    """Bytes that the short path must leave to the other, and what becomes of them."""

    name: str
    prepare: Callable[[], Connection]
    wire: bytes
    reason: str  # of the end, or "" when the connection lives


def _last(last: int) -> Callable[[], Connection]:
    def prepare() -> Connection:
        server = opened(LIMITS).server
        numbered_after(last, server)
        return server

    return prepare


def _answered() -> Connection:
    """Call 1 is over, and was the last one."""
    pair = calling(1)
    pair.server.send_response(1, b"")
    pair.settle()
    return pair.server


def _old() -> Connection:
    """A call in flight from the last time round, whose id comes next."""
    server = opened(LIMITS).server
    numbered_after(5, server)
    server.receive_data(request(6))
    drain(server)
    numbered_after(5, server)
    return server


def _gone() -> Connection:
    """The server has said GOAWAY."""
    server = calling(1).server
    server.send_goaway(GOODBYE)
    server.data_to_send()
    return server


def _streaming() -> Connection:
    client = opened(LIMITS).client
    begin_stream(client)
    return client


def _round() -> Connection:
    """Call 1 was begun before the numbers began anew, and is in flight still."""
    client = calling(1).client
    numbered_after(CIRCLE - 1, client)
    numbered_after(0, client)
    return client


def _cancelled() -> Connection:
    pair = calling(2)
    pair.client.send_cancel(1)
    pair.client.data_to_send()
    return pair.client


def _client() -> Connection:
    return calling(1).client


BOUNDARIES = [
    Boundary("half the circle ahead", _last(0), request(HALF), "CALL_ID"),
    Boundary("half the circle ahead of another id", _last(9), request(9 + HALF), "CALL_ID"),
    Boundary("the same id again", _answered, request(1), "CALL_ID"),
    Boundary("behind", _last(9), request(8), "CALL_ID"),
    Boundary("round the circle", _last(CIRCLE - 1), request(1), ""),
    Boundary("beyond the numbers", _last(CIRCLE - 1), request(CIRCLE), "CALL_ID"),
    Boundary("with the server's bit", _last(0), request(TOP_BIT | 1), "CALL_ID"),
    Boundary("in flight", _old, request(6), "CALL_ID"),
    Boundary("no id", _last(0), request(0), "CALL_ID"),
    Boundary("one call too many", lambda: calling(3).server, request(4), ""),
    Boundary("behind GOAWAY", _gone, request(2), ""),
    Boundary("a byte too large", _last(0), request(1, LARGEST + b"x"), "FRAME_TOO_LARGE"),
    Boundary("too short", _last(0), request(1, length=11), "FRAME_TOO_SHORT"),
    Boundary("metadata beyond the frame", _last(0), request(1, b"abc", metadata_length=4), "METADATA_OVERRUN"),
    Boundary("a flag that is none", _last(0), request(1, flags=2), "RESERVED_FLAGS"),
    Boundary("one-way without credit", _last(0), request(1, flags=Flag.ONE_WAY), "CREDIT_EXCEEDED"),
    Boundary("items follow", _last(0), request(1, flags=Flag.ITEMS_FOLLOW), ""),
    Boundary("items come back", _last(0), request(1, flags=Flag.ITEMS_COME_BACK), ""),
    Boundary("another codec", _last(0), request(1, codec=1), "WRONG_CODEC"),
    Boundary("another version", _last(0), request(1, version=2), "WRONG_VERSION"),
    Boundary("a RESPONSE to a server", _last(0), raw(Kind.RESPONSE), "WRONG_HALF"),
    Boundary("not whole", _last(0), request(1, b"abc")[:-1], ""),
    Boundary("a header that is not whole", _last(0), request(1)[:15], ""),
    Boundary("RESPONSE to a stream", _streaming, raw(Kind.RESPONSE), "WRONG_HALF"),
    Boundary("RESPONSE to an old call", _round, raw(Kind.RESPONSE), ""),
    Boundary("RESPONSE to a cancelled call", _cancelled, raw(Kind.RESPONSE) + raw(Kind.RESPONSE, call_id=2), ""),
    Boundary("RESPONSE with another opcode", _client, raw(Kind.RESPONSE, opcode=0x11), "WRONG_OPCODE"),
    Boundary("RESPONSE with metadata", _client, raw(Kind.RESPONSE, b"", b"\0\0\0"), ""),
    Boundary("RESPONSE with broken metadata", _client, raw(Kind.RESPONSE, b"", b"\0"), ""),
    Boundary("RESPONSE to nothing", _client, raw(Kind.RESPONSE, call_id=2), ""),
    Boundary("RESPONSE a byte too large", _client, raw(Kind.RESPONSE, LARGEST + b"x"), "FRAME_TOO_LARGE"),
    Boundary("RESPONSE not whole", _client, raw(Kind.RESPONSE, b"abc")[:-1], ""),
    Boundary("REQUEST to a client, with its own id", _client, request(2), "CALL_ID"),
    Boundary("REQUEST to a client", _client, request(TOP_BIT | 1), ""),
]


@pytest.mark.parametrize("after", [b"", raw(Kind.PING, b"12345678")], ids=["alone", "followed"])
@pytest.mark.parametrize("case", BOUNDARIES, ids=lambda case: case.name)
def test_a_boundary_is_the_same_on_both_paths(case: Boundary, after: bytes) -> None:
    """What the short path must not take ends, is answered and is counted as it is one by one."""
    one_by_one = case.prepare()
    one_by_one.receive_data(case.wire + after)
    expected, sent = drain(one_by_one), one_by_one.data_to_send()
    for at_once in (False, True):
        several = case.prepare()
        events: list[Event] = []
        if at_once:
            assert several.lone_request(case.wire + after) is None
        several.receive_data(case.wire + after)
        while some := several.next_events(2):
            events += some
        assert list(map(plain, events)) == list(map(plain, expected))
        assert several.data_to_send() == sent
        names = (
            "state",
            "last_call_id",
            "frames_received",
            "own_calls",
            "peer_calls",
            "bytes_waiting",
            "partial_length",
        )
        for name in names:
            assert getattr(several, name) == getattr(one_by_one, name), name
        if case.reason:
            end = events[-1]
            assert isinstance(end, ConnectionEnded)
            assert end.error is not None
            assert end.error.reason == case.reason
        elif not after:
            assert several.state is State.OPEN


def test_a_lone_request_is_not_buffered() -> None:
    """What was read and is one whole REQUEST is given back at once, with all that ``next_events`` would say of it."""
    block = pack_metadata(Metadata(deadline_ms=2))
    server = opened(LIMITS).server
    assert server.lone_request(request(1, b"one")) == RequestReceived(1, 0x10, EMPTY, b"one")
    assert server.lone_request(request(2, b"two", block)) == RequestReceived(2, 0x10, Metadata(deadline_ms=2), b"two")
    assert server.lone_request(request(3, opcode=0xBEEF)) == RequestReceived(3, 0xBEEF, EMPTY, b"")
    assert [server.credit(call_id) for call_id in (1, 2, 3)] == [(0, 0)] * 3
    assert (server.calls_in_flight, server.last_call_id, server.frames_received) == (3, 3, 1 + 3)
    assert server.bytes_waiting == 0


@pytest.mark.parametrize(
    "wire", [request(1) + request(2), request(1) + b"x", request(1)[:-1], request(1)[:9], b"", request(1, length=11)]
)
def test_what_is_no_lone_request_is_left_alone(wire: bytes) -> None:
    """Anything but one whole REQUEST is told as that it is none, and nothing is done with it."""
    server = opened(LIMITS).server
    assert server.lone_request(wire) is None
    assert (server.calls_in_flight, server.last_call_id, server.frames_received, server.bytes_waiting) == (0, 0, 1, 0)


def test_a_request_behind_others_is_not_alone() -> None:
    """What comes while a part of a frame waits, or behind the end of the input, is not looked at by itself."""
    server = opened(LIMITS).server
    server.receive_data(request(1)[:9])
    assert server.lone_request(request(2)) is None
    server = opened(LIMITS).server
    server.receive_eof()
    assert server.lone_request(request(1)) is None
    assert calling(1).client.lone_request(raw(Kind.RESPONSE)) is None


@pytest.mark.parametrize("limit", [1, 9])
def test_the_end_of_input_is_seen_behind_the_last_frame(limit: int) -> None:
    """When the input ended behind a whole REQUEST, the list after it, or the same one, says so."""
    server = opened(LIMITS).server
    server.receive_data(request(1))
    server.receive_eof()
    events = server.next_events(limit)
    events += server.next_events(limit)
    assert events == [RequestReceived(1, 0x10, EMPTY, b""), ConnectionEnded(None)]
    assert server.state is State.HALF_CLOSED
    assert server.next_event() is NEED_DATA


def test_a_frame_in_pieces_leaves_nothing_behind() -> None:
    """Behind a large frame that came in pieces and a short path, a small frame of another kind is seen at once."""
    server = opened(LIMITS).server
    wire = request(1, bytes(500))
    server.receive_data(wire[:100])
    assert server.next_events(9) == []
    server.receive_data(wire[100:])
    assert len(server.next_events(9)) == 1
    server.receive_data(raw(Kind.CANCEL, call_id=1))
    assert server.next_events(9) == [CancelReceived(1)]

    client = calling(1).client
    wire = raw(Kind.RESPONSE, bytes(500))
    client.receive_data(wire[:100])
    assert client.next_events(9) == []
    client.receive_data(wire[100:])
    assert len(client.next_events(9)) == 1
    client.receive_data(raw(Kind.PONG, b"12345678"))
    assert len(client.next_events(9)) == 1


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.RESPONSE])
def test_payloads_are_bytes_however_they_came(kind: Kind) -> None:
    """A payload that was gathered out of many pieces is bytes, as is one that lies behind it."""
    side = calling(2).client if kind == Kind.RESPONSE else opened(LIMITS).server
    wire = raw(kind, bytes(4000), call_id=1) + raw(kind, b"x", call_id=2)
    for at in range(0, len(wire), 1300):
        side.receive_data(wire[at : at + 1300])
    events = side.next_events(9)
    assert [type(event.payload) for event in events if isinstance(event, RequestReceived | ResponseReceived)] == [
        bytes,
        bytes,
    ]


@pytest.mark.parametrize("lend", [bytearray, lambda data: memoryview(bytearray(data))])
def test_what_is_handed_over_may_be_written_into_again(lend: Callable[[bytes], bytearray | memoryview]) -> None:
    """A connection that is given a buffer keeps a copy: its owner receives the next bytes into the same one."""
    server = opened(LIMITS).server
    buffer = lend(request(1, b"one"))
    server.receive_data(buffer)
    assert server.bytes_waiting == 19
    buffer[:] = bytes(len(buffer))
    assert server.next_events(9) == [RequestReceived(1, 0x10, EMPTY, b"one")]
    assert server.bytes_waiting == 0


def test_a_new_connection_has_agreed_on_nothing() -> None:
    """Before the handshake nothing is known of the other side."""
    for role in Role:
        side = Connection(role, LIMITS)
        assert (side.their_max_calls, side.heartbeat_ms, side.last_call_id) == (0, 0, 0)
        assert (side.version, side.codec, side.frames_received, side.discarded) == (0, 0, 0, 0)
        assert side.next_events(9) == []


@pytest.mark.parametrize("looked", [False, True])
def test_an_end_within_a_frame_is_seen_whether_it_was_looked_at_or_not(looked: bool) -> None:
    """When the input ends within a frame, the connection ends so, also when that frame was known to be unfinished."""
    server = opened(LIMITS).server
    server.receive_data(request(1, b"abc")[:-1])
    if looked:
        assert server.next_events(9) == []
    server.receive_eof()
    (end,) = server.next_events(9)
    assert isinstance(end, ConnectionEnded)
    assert end.error is not None
    assert end.error.reason == "TRUNCATED_FRAME"


def test_frames_that_are_read_over_are_counted() -> None:
    """Frames of unknown kinds that may be ignored count among those received, and by themselves."""
    server = opened(LIMITS).server
    server.receive_data(raw(0x80) + raw(0xFF, b"whatever") + request(1))
    assert len(server.next_events(9)) == 1
    assert (server.frames_received, server.frames_ignored) == (1 + 3, 2)


def test_the_longest_metadata_can_be_sent() -> None:
    """A REQUEST may have as much metadata as its header can say, and not a byte more."""
    client = opened(Limits(max_frame=2**20)).client
    client.their_max_frame = 2**20
    assert client.send_request(0x10, b"", bytes(0xFFFF)) == 1
    with pytest.raises(LocalProtocolError, match="65536 bytes; at most 65535"):
        client.send_request(0x10, b"", bytes(0x10000))


# What is sent by the short path.


def _response(side: Connection, call_id: int, payload: bytes) -> bytes:
    side.send_response(call_id, payload)
    return side.data_to_send()


def _item(side: Connection, call_id: int, payload: bytes) -> bytes:
    side.send_item(call_id, payload)
    return side.data_to_send()


WAYS: dict[str, tuple[Kind, Callable[[Connection, int, bytes], bytes]]] = {
    "answer": (Kind.RESPONSE, Connection.answer),
    "response": (Kind.RESPONSE, _response),
    "item": (Kind.ITEM, _item),
}


@pytest.mark.parametrize("way", WAYS)
@given(
    opcode=st.integers(0, 0xFFFF),
    payload=st.binary(max_size=100),
    last=st.sampled_from([0, 1, HALF - 1, HALF, CIRCLE - 2, CIRCLE - 1]),
    timed=st.booleans(),
)
def test_what_is_sent_is_what_the_plain_way_packs(
    way: str, opcode: int, payload: bytes, last: int, timed: bool
) -> None:
    """A REQUEST, and a RESPONSE or ITEM to it, are the bytes that ``pack`` makes of the same frame."""
    pair = opened()
    numbered_after(last, *pair)
    kind, send = WAYS[way]
    flags = Flag.ITEMS_COME_BACK if kind is Kind.ITEM else Flag.NONE
    credit = Credit(9, 1_000)
    metadata = pack_metadata(Metadata(credit=credit, deadline_ms=5 if timed else None))
    if flags:
        call_id = pair.client.send_flagged_request(flags, opcode, payload, metadata, credit=credit)
    else:
        call_id = pair.client.send_request(opcode, payload, metadata)
    codec, version = pair.client.codec, pair.client.version
    wire = pair.client.data_to_send()
    assert wire == pack(Kind.REQUEST, codec, version, opcode, call_id, metadata, payload, flags)
    pair.server.receive_data(wire)
    assert len(pair.server.next_events(2)) == 1
    assert send(pair.server, call_id, payload) == pack(kind, codec, version, opcode, call_id, b"", payload)


def test_items_come_in_lists_of_any_length() -> None:
    """A run of ITEMs is cut where the limit is, and goes on behind it, with other frames before and after it."""
    for limit in (1, 2, 3, 7, 64):
        pair = opened()
        call_id = begin_stream(pair.client, credit=Credit(10, 1000))
        unary = pair.client.send_request(0x10, b"")
        pair.deliver(pair.client)
        for number in range(7):
            pair.server.send_item(call_id, bytes([number]))
        pair.server.send_response(unary, b"between")
        pair.server.send_item(call_id, b"last")
        pair.server.send_end(call_id)
        pair.client.receive_data(pair.server.data_to_send())
        lists = []
        while some := pair.client.next_events(limit):
            lists.append(some)
        assert all(len(some) <= limit for some in lists)
        assert [event for some in lists for event in some] == [
            *(ItemReceived(call_id, bytes([number])) for number in range(7)),
            ResponseReceived(unary, 0x10, b"between"),
            ItemReceived(call_id, b"last"),
            EndReceived(call_id),
        ]
        assert pair.client.credit_out(call_id) == (0, 0)
