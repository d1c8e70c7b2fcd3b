"""Payloads of a wanted size, whatever a codec makes of a byte: one may write two digits for it, or compress many.

Every case about a length asks the codec of its run by this module, and knows nothing of how that writes.
"""

import random
import string
from collections.abc import Callable

from wireproto.conformance.case import NotJudged

__all__ = ["letters", "longest", "noise"]


def noise(size: int) -> bytes:
    """Bytes that no codec makes shorter; of each size always the same."""
    return random.Random(size).randbytes(size)


def letters(size: int) -> str:
    """Text of so many characters that no codec makes much shorter; of each size always the same."""
    return "".join(random.Random(size).choices(string.ascii_letters, k=size))


def longest(written: Callable[[int], int], room: int, most: int) -> int:
    """The size of content that fits, when the next one does not.

    Args:
        written: bytes of the payload that holds content of a size.
        room: bytes that the payload may have.
        most: the greatest size to try.

    Returns:
        A size for which ``written`` is at most ``room``, and above it for one more.

    Raises:
        NotJudged: in this codec nothing fits, or everything does.
    """
    fits, beyond = 0, most
    if written(fits) > room:
        raise NotJudged(f"in this codec no payload is as short as {room} bytes")
    if written(beyond) <= room:
        raise NotJudged(f"in this codec {most} bytes of content make a payload of {written(beyond)}, not above {room}")
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if written(middle) <= room:
            fits = middle
        else:
            beyond = middle
    return fits
