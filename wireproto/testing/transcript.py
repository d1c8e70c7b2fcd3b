"""What travelled between the two sides of a pair, for people."""

from collections.abc import Iterator
from typing import NamedTuple

from wireproto.wire.connection import Role
from wireproto.wire.frame import KINDS, PREAMBLE, Kind, total_length, unpack

__all__ = ["Sent", "lines_of"]


class Sent(NamedTuple):
    """What one side gave to the other at once."""

    by: Role
    data: bytes


def lines_of(sent: Sent) -> Iterator[str]:
    """A line for each frame, and for the first bytes of a connection."""
    data = sent.data
    if data.startswith(PREAMBLE):
        yield f"{sent.by.value} preamble: {PREAMBLE.hex(' ')}"
        data = data[len(PREAMBLE) :]
    while data:
        size = total_length(data, 0, len(data))
        frame = unpack(data)
        data = data[size:]
        name = Kind(frame.kind).name if frame.kind in KINDS else f"kind {frame.kind}"
        call = f" call {frame.call_id} opcode {frame.opcode:#06x}" if frame.call_id else ""
        call += f" flags {frame.flags:#04x}" if frame.flags else ""
        body = (frame.metadata + frame.payload).hex(" ")
        yield f"{sent.by.value} {name}{call}: {body}"
