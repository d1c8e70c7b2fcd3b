"""Each fault as a rule over pieces, without a socket or a clock."""

import math
import random
from collections.abc import Iterable

import pytest

from wireproto.testing import Bandwidth, Cut, Fault, Flip, Latency, Reset, Slicer, Stall
from wireproto.testing.faults import Piece

DATA = bytes(range(256)) * 4


def through(fault: Fault, *pieces: Piece, seed: int = 0) -> list[Piece]:
    stage = fault.stage(random.Random(seed))
    begun = list(stage.begin(0.0))
    return begun + [made for piece in pieces for made in stage.feed(piece)]


def joined(pieces: Iterable[Piece]) -> bytes:
    return b"".join(piece.data for piece in pieces)


def cut_up(data: bytes, size: int) -> list[Piece]:
    return [Piece(0.0, data[at : at + size]) for at in range(0, len(data), size)]


def test_latency_delays_every_piece_and_the_end() -> None:
    """Each piece is due so much later, the end of input too."""
    made = through(Latency(0.5), Piece(1.0, b"a"), Piece(2.0, b"b"), Piece(2.5, end="eof"))
    assert made == [Piece(1.5, b"a"), Piece(2.5, b"b"), Piece(3.0, end="eof")]


def test_jitter_keeps_the_order() -> None:
    """However the delays are drawn, no piece overtakes another, and all stay within the jitter or behind another."""
    made = through(Latency(0.1, jitter=0.1), *(Piece(n / 100, bytes([n])) for n in range(100)))
    dues = [piece.due for piece in made]
    assert dues == sorted(dues)
    assert joined(made) == bytes(range(100))
    assert all(n / 100 <= due <= 0.99 + 0.2 for n, due in enumerate(dues))
    assert len({round(due - n / 100, 6) for n, due in enumerate(dues)}) > 10


def test_bandwidth_takes_its_time() -> None:
    """Bytes are due as fast as the line carries them, steadily, and after a pause no faster."""
    made = through(Bandwidth(1000), Piece(0.0, DATA), Piece(0.0, end="eof"), Piece(100.0, b"x" * 10))
    assert joined(made) == DATA + b"x" * 10
    eof = next(piece for piece in made if piece.end)
    assert eof.due == pytest.approx(len(DATA) / 1000)
    assert made[-1].due == pytest.approx(100.01)
    sent = 0
    for piece in made[: made.index(eof)]:
        sent += len(piece.data)
        assert len(piece.data) <= 20
        assert piece.due == pytest.approx(sent / 1000)


def test_slices_are_where_the_seed_says() -> None:
    """The same seed cuts the same places, however the bytes arrive, and none is larger than it may be."""

    def cuts(pieces: list[Piece], seed: int) -> set[int]:
        made = through(Slicer(10, variation=5), *pieces, seed=seed)
        assert joined(made) == DATA
        assert all(1 <= len(piece.data) <= 15 for piece in made)
        at, found = 0, set()
        for piece in made:
            at += len(piece.data)
            found.add(at)
        return found

    whole = cuts([Piece(0.0, DATA)], seed=1)
    assert whole < cuts(cut_up(DATA, 7), seed=1), "each arrival adds cuts of its own and moves none"
    assert whole != cuts([Piece(0.0, DATA)], seed=2)
    assert len(whole) > len(DATA) / 15


def test_slices_are_apart() -> None:
    """With a delay no slice is due sooner than that after the one before; the end waits, too."""
    made = through(Slicer(2, delay=0.5), Piece(1.0, b"abcde"), Piece(1.0, end="eof"))
    assert made == [Piece(1.0, b"ab"), Piece(1.5, b"cd"), Piece(2.0, b"e"), Piece(2.0, end="eof")]


@pytest.mark.parametrize(("fault", "how"), [(Cut(10), "cut"), (Reset(10), "reset")])
@pytest.mark.parametrize("size", [1, 3, 10, 11, 256])
def test_the_end_is_at_the_byte(fault: Fault, how: str, size: int) -> None:
    """So many bytes pass, then it ends, and nothing comes after; what is shorter ends by itself."""
    made = through(fault, *cut_up(DATA, size))
    assert joined(made) == DATA[:10]
    assert [piece.end for piece in made if piece.end] == [how]
    assert made[-1].fault == f"{how} at byte 10"
    assert through(fault, Piece(0.0, b"short"), Piece(0.0, end="eof")) == [Piece(0.0, b"short"), Piece(0.0, end="eof")]


@pytest.mark.parametrize("fault", [Cut(0), Reset()])
def test_the_end_may_come_before_the_first_byte(fault: Fault) -> None:
    """At byte 0 it is over at once."""
    made = through(fault, Piece(0.0, DATA))
    assert len(made) == 1
    assert made[0].end == fault.name


@pytest.mark.parametrize("bit", [0, 7, 8, 1000, 8191])
@pytest.mark.parametrize("size", [1, 5, 4096])
def test_one_bit_is_flipped(bit: int, size: int) -> None:
    """Exactly that bit is another, the highest of each byte being the first; the others stay."""
    made = through(Flip(bit), *cut_up(DATA, size))
    differing = int.from_bytes(DATA, "big") ^ int.from_bytes(joined(made), "big")
    assert differing == 1 << (8 * len(DATA) - 1 - bit)
    assert [piece.fault for piece in made if piece.fault] == [f"flip of bit {bit}"]


@pytest.mark.parametrize("size", [1, 4, 10, 4096])
def test_a_stall_holds_everything_up(size: int) -> None:
    """Bytes before it pass; from it on all waits, as long as it says, and then comes in order."""
    made = through(Stall(10, 5.0), *cut_up(DATA, size), Piece(1.0, end="eof"), Piece(9.0, b"later"))
    assert joined(made) == DATA + b"later"
    passed = joined(piece for piece in made if piece.due == 0.0)
    assert passed == DATA[:10]
    assert {piece.due for piece in made} == {0.0, 5.0, 9.0}
    assert [piece.fault for piece in made if piece.fault] == ["stall of 5 s at byte 10"]


def test_a_stall_may_have_no_end() -> None:
    """Without a time nothing is ever due; the end of input waits with the rest."""
    made = through(Stall(), Piece(0.0, b"a"), Piece(1.0, end="eof"))
    assert [(piece.due, piece.data, piece.end) for piece in made if not piece.fault] == [
        (math.inf, b"a", ""),
        (math.inf, b"", "eof"),
    ]


def test_faults_are_for_some_connections() -> None:
    """``skip`` leaves the first ones alone, ``count`` the last ones."""
    assert [n for n in range(1, 9) if Cut(1, skip=2, count=3).applies_to(n)] == [3, 4, 5]
    assert [n for n in range(1, 9) if Cut(1, skip=6).applies_to(n)] == [7, 8]
    assert [n for n in range(1, 9) if Cut(1).applies_to(n)] == list(range(1, 9))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Latency(-1), r"Latency\.seconds is -1"),
        (lambda: Latency(float("nan")), r"Latency\.seconds is nan"),
        (lambda: Bandwidth(0), r"Bandwidth\.rate is 0"),
        (lambda: Slicer(0), "pieces have at least 1 byte"),
        (lambda: Slicer(5, variation=5), "pieces have at least 1 byte"),
        (lambda: Cut(-1), r"Cut\.at is -1"),
        (lambda: Stall(0, -2.0), r"Stall\.seconds is -2\.0"),
        (lambda: Flip(1, skip=-1), r"Flip\.skip is -1"),
    ],
)
def test_senseless_numbers_are_refused(make: object, words: str) -> None:
    """A fault that cannot be says which of its numbers is wrong."""
    assert callable(make)
    with pytest.raises(ValueError, match=words):
        make()
