"""What an answer says beside its payload: metadata of the handler's, and how many items were left out.

Keys 2 and 6 are in what ends a call, key 8 in an ITEM and in END. Layout and rules: ``docs/wire.md``.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from wireproto.errors import CallError, EncodeError
from wireproto.status import Retry, Status
from wireproto.wire.frame import U32_MAX, Kind
from wireproto.wire.metadata import (
    CRITICAL,
    DROPPED,
    ENTRY,
    TRACEPARENT,
    as_header,
    bad_metadata,
    each_field,
    header_size,
    is_reserved,
    pack_entry,
    pack_printable,
    pack_u32,
    read_printable,
    read_u32,
    unpack_entry,
)

__all__ = [
    "MAX_ANSWER",
    "NOTHING_BESIDE",
    "TRACEPARENT_NAME",
    "Beside",
    "pack_answer",
    "pack_dropped",
    "unpack_answer",
    "with_entry",
]

MAX_ANSWER: Final = 7168
"""Bytes that the metadata of an answer and the details of its error may have together: trailers of gRPC end at 8 KiB,
and a status and a message need some of them."""

TRACEPARENT_NAME: Final = "traceparent"
"""The name of key 2 among the names of entries, as it is a header like them over gRPC."""

_OF_KINDS: Final[Mapping[int, frozenset[int]]] = {
    Kind.RESPONSE: frozenset({TRACEPARENT, ENTRY}),
    Kind.ERROR: frozenset({TRACEPARENT, ENTRY}),
    Kind.END: frozenset({TRACEPARENT, ENTRY, DROPPED}),
    Kind.ITEM: frozenset({DROPPED}),
}


class Beside(NamedTuple):
    """What stands beside the payload of an answer, or of one of its items.

    Attributes:
        metadata: by name; ``traceparent`` is key 2.
        dropped: how many items were left out right before this one, or before the end; 0 to 2**32 - 1.
    """

    metadata: Mapping[str, str]
    dropped: int = 0


NOTHING_BESIDE: Final = Beside(MappingProxyType({}))
"""What nearly every answer says beside itself."""


def pack_answer(metadata: Mapping[str, str]) -> bytes:
    """The block of an answer; b"" for none.

    Raises:
        EncodeError: a name or a value is none that can be sent.
    """
    return b"".join(
        pack_printable(TRACEPARENT, name, value) if name == TRACEPARENT_NAME else pack_entry(name, value)
        for name, value in metadata.items()
    )


def pack_dropped(dropped: int) -> bytes:
    """The field that says how many items were left out; b"" for none."""
    return pack_u32(DROPPED, "dropped", min(dropped, U32_MAX)) if dropped else b""


def with_entry(metadata: Mapping[str, str], name: str, value: str) -> dict[str, str]:
    """The metadata of an answer with one entry more, or another value of one. What passes here passes every door.

    Raises:
        EncodeError: the name or the value is none, gRPC has a use of its own for the name, or the whole is too long:
            each entry counts its name, its value and 32 bytes, as HTTP/2 counts a header; a value that is not printable
            ASCII counts a third more, and 4 bytes, as it travels over gRPC.
    """
    if name != TRACEPARENT_NAME and is_reserved(name):
        raise EncodeError(f"Metadata.entries[{name!r}]", "gRPC has a use of its own for this name; choose another")
    made = {**metadata, name: value}
    pack_answer(made)
    size = sum(header_size(*as_header(each, text)) for each, text in made.items())
    if size > MAX_ANSWER:
        raise EncodeError(
            "Metadata", f"that of the answer would count {size} bytes; at most {MAX_ANSWER} can be sent, say less"
        )
    return made


def unpack_answer(kind: int, block: bytes) -> Beside:
    """Read the block of a frame of that kind.

    Raises:
        CallError: DATA_LOSS, BAD_METADATA: a rule is broken, or there is a key that must be understood and means
            nothing here. The call has failed, and was processed for all that is known.
    """
    try:
        return _unpacked(_OF_KINDS[kind], block)
    except CallError as error:
        raise CallError(
            Status.DATA_LOSS, error.reason, f"of the answer, {error.message}", retry=Retry.MAYBE_PROCESSED
        ) from None


def _unpacked(known: frozenset[int], block: bytes) -> Beside:
    metadata: dict[str, str] = {}
    dropped: int | None = None
    for key, value in each_field(block):
        number = key & ~CRITICAL
        if number not in known:
            if key & CRITICAL:
                raise bad_metadata(f"key {number} must be understood, and this client does not know it there")
        elif number == DROPPED:
            if dropped is not None:
                raise bad_metadata("dropped is there twice")
            dropped = read_u32("dropped", value)
        else:
            name, text = (
                unpack_entry(value) if number == ENTRY else (TRACEPARENT_NAME, read_printable(TRACEPARENT_NAME, value))
            )
            if name in metadata:
                raise bad_metadata(f"entry {name!r} is there twice")
            metadata[name] = text
    return Beside(metadata, dropped or 0)
