"""The target for packed payloads: of both algorithms, what a stranger says that they hold, and what comes of it."""

import json
from collections.abc import Iterator
from pathlib import Path

from wireproto.errors import DecodeError
from wireproto.wire.packing import Packed, pack_payload, plain

__all__ = ["packed", "packed_seeds"]

_VECTORS = Path(__file__).parent.parent / "tests" / "vectors"
_LONGEST = 1 << 20
"""Bytes that a payload is said to stand for here, at most: what a connection lets through by default."""


def packed(data: bytes) -> None:
    """Choose the algorithm by the first byte; what follows is a packed payload, and one that is to be packed."""
    if len(data) < 6:
        return
    algorithm, body = 1 + (data[0] & 1), data[1:]
    length = 1 + int.from_bytes(body[:4], "big") % _LONGEST
    payload = Packed(algorithm, length.to_bytes(4, "big") + body[4:])
    assert len(payload) == length
    try:
        found = payload.unpack()
    except DecodeError:
        pass
    else:
        assert len(found) == length
        assert plain(pack_payload(found, algorithm)) == found
    text = body * (1 + data[0] // 2)
    again = pack_payload(text, algorithm)
    assert plain(again) == text
    assert len(again) == len(text)
    assert isinstance(again, bytes) or len(again.body) < len(text)


def packed_seeds() -> Iterator[bytes]:
    """The vectors, by their algorithm; the length that they say is one more than here, for 0 is none."""
    for vector in json.loads((_VECTORS / "packed.json").read_text("utf-8")):
        body = bytes.fromhex(vector["hex"])
        length = (int.from_bytes(body[:4], "big") - 1) % _LONGEST
        yield bytes([vector["algorithm"] - 1]) + length.to_bytes(4, "big") + body[4:]
