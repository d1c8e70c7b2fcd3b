"""The targets: what each reads, and in one sentence what must hold of any bytes."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from fuzz.bodies import handshake, handshake_seeds, metadata, metadata_seeds
from fuzz.connections import frames, frames_seeds
from fuzz.packed import packed, packed_seeds
from fuzz.payloads import CODECS, differential, differential_seeds, payload_seeds, payload_target

__all__ = ["TARGETS", "Target"]


class Target(NamedTuple):
    """One function that any bytes may be given to.

    Attributes:
        invariant: what it proves of them.
        make: makes the function. Only for the target that runs, since it compiles plans.
        seeds: inputs to begin with, from the test vectors.
    """

    invariant: str
    make: Callable[[], Callable[[bytes], None]]
    seeds: Callable[[], Iterable[bytes]]


def _payload(codec: str) -> Target:
    return Target(
        f"A {codec} payload is refused with a DecodeError, or is a message whose canonical bytes are read as it.",
        lambda: payload_target(codec),
        lambda: payload_seeds(codec),
    )


TARGETS: dict[str, Target] = {
    "frames": Target(
        "What a peer sends is reported, answered and ended alike whether it comes whole or in any pieces, with a "
        "reason of docs/wire.md if it ends the connection, and raises nothing.",
        lambda: frames,
        frames_seeds,
    ),
    "handshake": Target(
        "A HELLO or WELCOME is BAD_BODY, or is written and read again as it was and answered with one of the outcomes "
        "of the handshake; who begins with which bytes does not change when more of them come.",
        lambda: handshake,
        handshake_seeds,
    ),
    "metadata": Target(
        "A metadata block fails its call as BAD_METADATA or UNKNOWN_METADATA, or is written and read again as it was.",
        lambda: metadata,
        metadata_seeds,
    ),
    "packed": Target(
        "A packed payload is refused with a DecodeError, or stands for as many bytes as it says; what is packed here "
        "comes out again, and is shorter than it was.",
        lambda: packed,
        packed_seeds,
    ),
    **{codec: _payload(codec) for codec in CODECS},
    "differential": Target(
        "A payload that one codec reads as a message is, through each of the others, the same message.",
        differential,
        differential_seeds,
    ),
}
