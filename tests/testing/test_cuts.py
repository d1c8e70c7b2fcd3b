"""chunked cuts bytes in every way that has to make no difference."""

from wireproto.testing import chunked

DATA = bytes(range(100))


def test_every_list_is_the_data_again() -> None:
    """No piece is empty, none is lost, and their order stays."""
    for pieces in chunked(DATA):
        assert b"".join(pieces) == DATA
        assert all(pieces)


def test_whole_bytewise_and_every_single_cut_are_among_them() -> None:
    """The data come whole, byte by byte, and in two pieces cut at each place, in that order."""
    made = list(chunked(DATA, rounds=3))
    assert made[0] == [DATA]
    assert made[1] == [bytes([each]) for each in DATA]
    assert made[2:101] == [[DATA[:at], DATA[at:]] for at in range(1, 100)]
    assert len(made) == 104


def test_random_cuts_are_the_same_for_a_seed() -> None:
    """A seed gives the same pieces again, another seed others."""
    assert list(chunked(DATA, seed=3)) == list(chunked(DATA, seed=3))
    assert list(chunked(DATA, seed=3))[101:] != list(chunked(DATA, seed=4))[101:]


def test_short_data_are_not_cut_twice_alike() -> None:
    """Nothing, one byte and two bytes give each list once."""
    assert list(chunked(b"", rounds=2)) == [[]]
    assert list(chunked(b"a", rounds=0)) == [[b"a"]]
    assert list(chunked(b"ab", rounds=0)) == [[b"ab"], [b"a", b"b"]]
