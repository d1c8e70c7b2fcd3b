"""The receive buffer: same bytes out as in, a bounded number of copies."""

import tracemalloc
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peers import opened
from wireproto.limits import MAX_FRAME_CEILING, Limits
from wireproto.wire.buffer import SMALL, Buffer
from wireproto.wire.connection import Connection
from wireproto.wire.events import NEED_DATA, RequestReceived
from wireproto.wire.frame import HEADER, Kind

MIB = 1024 * 1024
LIMITS = Limits(max_frame=MAX_FRAME_CEILING)
PIECES = st.lists(st.binary(max_size=30) | st.integers(0, 3 * SMALL).map(bytes), max_size=12)


@given(PIECES, st.data())
def test_bytes_come_out_as_they_went_in(pieces: list[bytes], data: st.DataObject) -> None:
    """Whatever is appended, taken and compacted in between, the bytes taken are those appended, in order."""
    buffer = Buffer()
    model = b""
    for piece in pieces:
        buffer.append(piece)
        model += piece
        for _ in range(data.draw(st.integers(0, 2))):
            count = data.draw(st.integers(0, len(model) + 2))
            assert buffer.peek(count) == model[:count]
            taken = buffer.take(count)
            if count > len(model):
                assert taken is None
            else:
                assert taken == model[:count]
                assert type(taken) is bytes
                model = model[count:]
        if data.draw(st.booleans()):
            joined = buffer.join()
            assert joined is buffer.data
            assert joined[buffer.at :] == model
        if data.draw(st.booleans()):
            buffer.compact()
            assert buffer.at == 0
        assert len(buffer) == len(model)
        assert bool(buffer) == bool(model)
    assert buffer.take(len(model)) == model
    assert buffer.clear() == 0


def test_what_arrives_alone_is_not_copied() -> None:
    """A piece that arrives while nothing waits is the very object handed over."""
    buffer = Buffer()
    for size in (1, 10, 100_000):
        piece = bytes(size)
        buffer.append(piece)
        assert buffer.data is piece
        buffer.take(size)


def test_a_bytearray_is_not_shared() -> None:
    """What is appended as a bytearray or a view is copied: its owner will write into it again."""
    for waiting in (b"", b"1", bytes(SMALL + 1)):
        buffer = Buffer()
        buffer.append(waiting)
        for _ in range(2):
            lent = bytearray(b"abc")
            buffer.append(lent)
            lent[:] = b"xyz"
            buffer.append(memoryview(b"def"))
        assert buffer.take(len(waiting) + 12) == waiting + b"abcdef" * 2


def test_clear_drops_everything_and_counts() -> None:
    """Clear returns how many bytes it dropped."""
    buffer = Buffer()
    buffer.append(b"abcdef")
    buffer.take(2)
    assert buffer.clear() == 4
    assert len(buffer) == 0


@pytest.mark.parametrize("rest", [1, SMALL, SMALL + 1])
def test_a_rest_does_not_keep_the_piece_it_came_in(rest: int) -> None:
    """After compact the memory held is about that of the rest, not of the large piece it is the end of."""
    tracemalloc.start()
    try:
        buffer = Buffer()
        buffer.append(bytes(1_000_000))
        buffer.take(1_000_000 - rest)
        buffer.compact()
        assert tracemalloc.get_traced_memory()[0] < rest + 10_000
        assert len(buffer) == rest
    finally:
        tracemalloc.stop()


def feed(server: Connection, wire: bytes, piece: int) -> RequestReceived:
    """Hand over ``wire`` piece by piece, looking for an event after each; it comes with the last."""
    event: object = NEED_DATA
    for at in range(0, len(wire), piece):
        assert event is NEED_DATA
        server.receive_data(wire[at : at + piece])
        event = server.next_event()
    assert isinstance(event, RequestReceived)
    return event


@pytest.mark.parametrize(("size", "piece"), [(16 * MIB, 65_536), (MIB, 1)])
def test_gathering_a_frame_needs_no_more_than_two_copies(size: int, piece: int) -> None:
    """A frame that a connection reads in pieces peaks at what was gathered and the payload handed out."""
    pair = opened(LIMITS)
    pair.client.send_request(0x10, bytes(size - HEADER.size))
    wire = pair.client.data_to_send()
    tracemalloc.start()
    try:
        event = feed(pair.server, wire, piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(wire) == size
    assert len(event.payload) == size - HEADER.size
    assert peak < 2 * size + max(piece, 4096)  # the last piece is still held by whoever received it


@pytest.mark.parametrize(("size", "piece"), [(16 * MIB, 65_536), (MIB, 1)])
def test_gathering_unread_pieces_needs_no_more_than_two_copies(size: int, piece: int) -> None:
    """Pieces that nobody looks at in between peak at the gathered bytes and the copy taken, too."""
    buffer = Buffer()
    chunk = bytes(piece)
    tracemalloc.start()
    try:
        for _ in range(size // piece):
            buffer.append(chunk)
        taken = buffer.take(size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken is not None
    assert len(taken) == size
    assert peak < 2 * size + 4096


@pytest.mark.parametrize("came", [20, SMALL, 3 * SMALL])
@pytest.mark.parametrize("piece", [1, 100, 100_000])
def test_a_claimed_length_costs_only_what_came(came: int, piece: int) -> None:
    """A frame that declares the most there may be and stops after a few bytes holds about those, in memory."""
    pair = opened(LIMITS)
    wire = HEADER.pack(MAX_FRAME_CEILING, Kind.REQUEST, 0, 2, 1, 0x10, 0, 1) + bytes(came - HEADER.size)
    tracemalloc.start()
    try:
        for at in range(0, came, piece):
            pair.server.receive_data(wire[at : at + piece])
            assert pair.server.next_event() is NEED_DATA
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pair.server.partial_length == 4 + MAX_FRAME_CEILING
    assert held < came * 1.2 + 1024
    assert peak < came * 3 + 4096


def test_the_pieces_of_a_frame_go_to_one_place() -> None:
    """What gathers is not moved for a piece, nor by a look at its front, and becomes bytes when it is asked for."""
    buffer = Buffer()
    buffer.append(bytes(SMALL + 1))
    buffer.compact()
    buffer.append(b"x")
    gathered = buffer.data
    assert type(gathered) is BytesIO
    for _ in range(100):
        assert buffer.peek(4) == bytes(4)
        buffer.compact()
        buffer.append(b"x")
        assert buffer.data is gathered
    assert len(buffer) == SMALL + 102
    joined = buffer.join()
    assert type(joined) is bytes
    assert joined == bytes(SMALL + 1) + b"x" * 101


def test_a_frame_is_followed_by_another_within_one_piece() -> None:
    """The piece that ends one large frame and begins the next gives both, and the first is let go of."""
    pair = opened(LIMITS)
    payloads = [bytes([number]) * 100_000 for number in range(5)]
    for payload in payloads:
        pair.client.send_request(0x10, payload)
    wire = pair.client.data_to_send()
    found = []
    for at in range(0, len(wire), 30_000):
        pair.server.receive_data(wire[at : at + 30_000])
        while isinstance(event := pair.server.next_event(), RequestReceived):
            found.append(event.payload)
        assert pair.server.bytes_waiting == min(at + 30_000, len(wire)) - len(found) * 100_016
    assert found == payloads
    assert pair.server.bytes_waiting == 0


def test_frames_that_wait_are_not_moved_for_each_that_comes() -> None:
    """While more comes than is read, what was read is cut off in place, and the rest stays where it is."""
    pair = opened(LIMITS)
    for _ in range(200):
        pair.client.send_request(0x10, bytes(100))
    pair.server.receive_data(pair.client.data_to_send())
    buffer = pair.server._buffer
    assert isinstance(pair.server.next_event(), RequestReceived)
    waiting = None
    for _ in range(50):
        pair.client.send_request(0x10, bytes(100))
        pair.server.receive_data(pair.client.data_to_send())
        assert isinstance(pair.server.next_event(), RequestReceived)
        assert waiting is None or buffer.data is waiting
        waiting = buffer.data
        assert type(waiting) is bytearray
    while isinstance(pair.server.next_event(), RequestReceived):
        pass
    assert pair.server.frames_received == 1 + 250  # HELLO, too
    assert buffer.data == b""


def test_a_frame_gathers_apart_once_all_before_it_are_read() -> None:
    """The rest that frames cut in place leave is gathered like any other, without room to grow beside the copies."""
    buffer = Buffer()
    buffer.append(bytes(2 * SMALL))
    buffer.take(1)
    buffer.append(bytes(2 * SMALL))
    kinds = [type(buffer.data)]
    buffer.compact()
    kinds.append(type(buffer.data))
    assert len(buffer) == 4 * SMALL - 1
    buffer.take(3 * SMALL)
    buffer.compact()
    kinds.append(type(buffer.data))
    assert kinds == [bytearray, BytesIO, bytes]
    assert buffer.take(SMALL - 1) == bytes(SMALL - 1)
