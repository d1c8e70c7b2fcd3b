"""Several events at once: whole frames that come together are taken together, in order and within the limit."""

from tests.wire.peers import Pair, begin_stream, drain, opened, plain
from wireproto.limits import Limits
from wireproto.wire.connection import Connection
from wireproto.wire.events import (
    CallOver,
    CancelReceived,
    ConnectionEnded,
    ErrorReceived,
    Event,
    ItemReceived,
    PingReceived,
    RequestReceived,
    ResponseReceived,
)
from wireproto.wire.metadata import Metadata, pack_metadata

BLOCK = pack_metadata(Metadata(deadline_ms=5))


def take(side: Connection, limit: int = 64) -> list[object]:
    return [plain(event) for event in side.next_events(limit)]


def requests(pair: Pair, *payloads: bytes, block: bytes = b"") -> bytes:
    for payload in payloads:
        pair.client.send_request(0x10, payload, block)
    return pair.client.data_to_send()


def answers(pair: Pair, *call_ids: int) -> bytes:
    for call_id in call_ids:
        pair.server.send_response(call_id, b"answer %d" % call_id)
    return pair.server.data_to_send()


def request(call_id: int, payload: bytes, metadata: Metadata | None = None) -> object:
    return plain(RequestReceived(call_id, 0x10, metadata or Metadata(), payload))


def response(call_id: int) -> object:
    return plain(ResponseReceived(call_id, 0x10, b"answer %d" % call_id))


def test_requests_that_come_together_are_taken_together() -> None:
    """A server takes them in order, the limit at a time, their metadata read."""
    pair = opened()
    pair.server.receive_data(requests(pair, b"a", b"b") + requests(pair, b"c", block=BLOCK))
    assert pair.server.bytes_waiting == 3 * 17 + len(BLOCK)
    assert take(pair.server, 2) == [request(1, b"a"), request(2, b"b")]
    assert take(pair.server, 2) == [request(3, b"c", Metadata(deadline_ms=5))]
    assert pair.server.bytes_waiting == 0
    assert take(pair.server) == []
    assert pair.server.calls_in_flight == 3


def test_responses_that_come_together_are_taken_together() -> None:
    """A client takes them in order, and their calls are over."""
    pair = opened()
    pair.server.receive_data(requests(pair, b"a", b"b", b"c"))
    take(pair.server)
    pair.client.receive_data(answers(pair, 2, 1, 3))
    assert take(pair.client, 2) == [response(2), response(1)]
    assert pair.client.calls_in_flight == 1
    assert take(pair.client) == [response(3)]
    assert take(pair.client) == []


def test_a_frame_in_pieces_waits_for_its_rest() -> None:
    """Whole frames before it are taken, and it comes with what is behind it."""
    pair = opened()
    data = requests(pair, b"a", b"b" * 3000, b"c")
    cut = 17 + 1500
    pair.server.receive_data(data[:cut])
    assert take(pair.server) == [request(1, b"a")]
    assert pair.server.partial_length == 16 + 3000
    for at in range(cut, len(data), 100):
        pair.server.receive_data(data[at : at + 100])
        if at + 100 < len(data) - 17:
            assert take(pair.server) == []
    assert take(pair.server) == [request(2, b"b" * 3000), request(3, b"c")]


def test_frames_that_gathered_in_pieces_are_taken_within_the_limit() -> None:
    """What gathered byte by byte is taken as what came at once is."""
    pair = opened()
    for byte in requests(pair, b"a", b"b", b"c"):
        pair.server.receive_data(bytes([byte]))
    assert take(pair.server, 2) == [request(1, b"a"), request(2, b"b")]
    assert take(pair.server, 2) == [request(3, b"c")]


def test_anything_else_ends_the_list() -> None:
    """An event that is neither REQUEST nor RESPONSE is the last one: it may decide how the rest is read."""
    pair = opened()
    data = requests(pair, b"a")
    pair.client.send_ping(b"12345678")
    pair.client.send_cancel(1)
    data += requests(pair, b"b")
    pair.server.receive_data(data)
    assert take(pair.server) == [request(1, b"a"), plain(PingReceived(b"12345678"))]
    assert take(pair.server) == [plain(CancelReceived(1))]
    assert take(pair.server) == [request(2, b"b")]


def test_what_is_unusual_is_left_to_the_long_way() -> None:
    """Items, answers to calls that were cancelled, and calls beyond the cap are what they are one by one."""
    pair = opened(Limits(max_calls=3))
    begin_stream(pair.client)
    pair.server.receive_data(requests(pair, b"a", b"b", b"c"))
    assert len(take(pair.server)) == 1
    assert len(take(pair.server)) == 2
    pair.client.receive_data(pair.server.data_to_send())
    (refused,) = pair.client.next_events(64)
    assert isinstance(refused, ErrorReceived)
    pair.client.send_cancel(2)
    pair.server.send_item(1, b"item")
    pair.client.receive_data(pair.server.data_to_send() + answers(pair, 2, 3))
    found: list[Event] = []
    while some := pair.client.next_events(64):
        found += some
    assert [plain(event) for event in found] == [plain(ItemReceived(1, b"item")), plain(CallOver(2)), response(3)]


def test_an_end_of_input_is_reported_behind_the_last_frame() -> None:
    """The frames that came with it are taken first."""
    pair = opened()
    pair.server.receive_data(requests(pair, b"a"))
    pair.server.receive_eof()
    assert take(pair.server) == [request(1, b"a"), plain(ConnectionEnded(None))]
    assert drain(pair.server) == []


def test_each_call_is_cancelled_once() -> None:
    """Several calls may be cancelled, none of them twice, and what was answered not at all."""
    pair = opened()
    pair.server.receive_data(requests(pair, b"a", b"b", b"c"))
    take(pair.server)
    assert [pair.client.send_cancel(call_id) for call_id in (1, 2, 1, 9)] == [True, True, False, False]
    pair.server.receive_data(pair.client.data_to_send())
    assert take(pair.server) + take(pair.server) == [plain(CancelReceived(1)), plain(CancelReceived(2))]
