"""Bytes cut into pieces: a stream has no boundaries, so a reader must not care where they fall."""

import random
from collections.abc import Iterator

__all__ = ["chunked"]

_LARGEST = 32
"""Bytes of a random piece at most: small enough that a frame's header is often cut."""


def chunked(data: bytes, *, rounds: int = 8, seed: int = 0) -> Iterator[list[bytes]]:
    """Ways to cut ``data`` into pieces: whole, byte by byte, in two at every place, and at random.

    Feed each list, piece by piece, to a reader of its own; all must come to the same:

        for pieces in chunked(frames):
            assert events(pieces) == events([frames])

    Args:
        data: what to cut. There are as many lists as it has bytes, and a few more.
        rounds: lists cut at random, in pieces of 1 to 32 bytes.
        seed: of those.

    Yields:
        Lists of pieces, none of them empty, whose sum is ``data``; each list once, though random ones may repeat.
    """
    if not data:
        yield []
        return
    yield [data]
    if len(data) > 2:
        yield [data[at : at + 1] for at in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]
    chance = random.Random(seed)
    for _ in range(rounds):
        pieces = []
        at = 0
        while at < len(data):
            size = chance.randint(1, _LARGEST)
            pieces.append(data[at : at + size])
            at += size
        yield pieces
