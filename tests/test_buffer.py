"""The receive buffer: same bytes out as in, a bounded number of copies."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireproto.buffer import SMALL, Buffer

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
    buffer = Buffer()
    lent = bytearray(b"abc")
    buffer.append(lent)
    lent[:] = b"xyz"
    assert buffer.take(3) == b"abc"
    buffer.append(memoryview(b"def"))
    assert buffer.take(3) == b"def"


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


@pytest.mark.parametrize(("size", "piece"), [(16 * 1024 * 1024, 65_536), (1024 * 1024, 1)])
def test_gathering_needs_no_more_than_two_copies(size: int, piece: int) -> None:
    """Gathering pieces and taking the whole peaks at the gathered bytes, their slack, and the copy taken."""
    buffer = Buffer()
    chunk = bytes(piece)
    tracemalloc.start()
    try:
        for _ in range(size // piece):
            buffer.append(chunk)
        taken = buffer.take(size)
        assert taken is not None
        assert len(taken) == size
        # A bytearray over-allocates by an eighth.
        assert tracemalloc.get_traced_memory()[1] < 2.2 * size
    finally:
        tracemalloc.stop()


def test_what_gathered_is_cut_in_place() -> None:
    """Of pieces that gathered, what was taken is let go of, and the rest stays where it is."""
    buffer = Buffer()
    for _ in range(4):
        buffer.append(b"x" * SMALL)
    gathered = buffer.data
    assert type(gathered) is bytearray
    buffer.take(SMALL + 1)
    buffer.compact()
    assert buffer.data is gathered
    assert len(gathered) == 3 * SMALL - 1
