"""Metadata: what a request says about itself beside its payload. Layout and rules: ``docs/wire.md``."""

import re
from collections.abc import Iterator
from struct import Struct
from typing import Any

import msgspec

from wireproto.errors import CallError, EncodeError
from wireproto.reasons import failure
from wireproto.wire.frame import U32_MAX, Credit

__all__ = [
    "CRITICAL",
    "DROPPED",
    "DROPPED_HEADER",
    "EMPTY",
    "ENTRY",
    "MAX_METADATA",
    "TRACEPARENT",
    "Metadata",
    "bad_metadata",
    "as_header",
    "each_field",
    "header_size",
    "is_reserved",
    "pack_entry",
    "pack_metadata",
    "pack_printable",
    "pack_u32",
    "read_printable",
    "read_u32",
    "unpack_entry",
    "unpack_metadata",
]

CRITICAL = 0x80
"""A key with this bit set must be understood, or the call is refused; the other seven bits name the key."""

MAX_METADATA = 0xFFFF
"""Bytes: what the header's length field can say."""

DEADLINE_MS, TRACEPARENT, AUTHORIZATION, IDEMPOTENCY_KEY, CREDIT, ENTRY, RESUME_AFTER = range(1, 8)
DROPPED = 8
"""Of an answer only."""

DROPPED_HEADER = "wireproto-dropped"
"""... and what all of those of a stream are together among the trailers of gRPC."""

_HEAD = Struct(">BH")
_U32 = Struct(">I")
_CREDIT = Struct(">BHII")
_TWO_U32 = Struct(">II")
_DEADLINE = Struct(">BHI")  # the whole block of a call that has a deadline and nothing else: by far the commonest
_DEADLINE_HEAD = _HEAD.pack(DEADLINE_MS, _U32.size)
_NAME = re.compile(r"[a-z0-9._-]{1,64}")
# What HTTP/2 and gRPC have a use of their own for, or clients over gRPC have.
_RESERVED = frozenset({"authorization", "content-type", "idempotency-key", "te", "traceparent", "user-agent"})
_RESERVED_PREFIXES = ("grpc-", "wireproto-")
_BINARY = "-bin"
_HEADER = 32
_PRINTABLE = re.compile(r"[ -~]+")


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What travels beside a request's payload.

    Attributes:
        deadline_ms: milliseconds the client will wait from now on, 0 to 2**32 - 1; None for no deadline.
        traceparent: a W3C trace context header value, printable ASCII; "" for none.
        authorization: a credential as in HTTP's header of that name, printable ASCII; "" for none.
        idempotency_key: 1 to 64 bytes that stay the same when the call is repeated; b"" for none.
        credit: what may be sent of the answer half, if that is a stream, before more is granted: items and bytes, 0 to
            2**32 - 1 each; None for nothing.
        entries: the caller's own key-values; names of 1 to 64 characters of ``a-z 0-9 . _ -``.
        resume_after: 1 to 64 bytes, the position of the last item that the caller has of a resumable stream; b"" for
            none. A client's ``follow`` writes it.
    """

    deadline_ms: int | None = None
    traceparent: str = ""
    authorization: str = ""
    idempotency_key: bytes = b""
    credit: Credit | None = None
    entries: dict[str, str] = {}  # msgspec makes a new dict for each instance
    resume_after: bytes = b""

    def __repr__(self) -> str:
        # Credentials reach no log: a key is as good as the call it stands for.
        shown = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value not in (None, "", b"", {}):
                secret = name in ("authorization", "idempotency_key")
                shown.append(f"{name}={'...' if secret else repr(value)}")
        return f"Metadata({', '.join(shown)})"


EMPTY = Metadata()
"""The metadata of a call that has none; shared, so leave its ``entries`` alone."""


def pack_metadata(metadata: Metadata) -> bytes:
    """The bytes of a metadata block; b"" for none.

    Raises:
        EncodeError: a value is out of its range, or the whole is over 65,535 bytes.
    """
    parts: list[bytes] = []
    if metadata.deadline_ms is not None:
        parts.append(pack_u32(DEADLINE_MS, "deadline_ms", metadata.deadline_ms))
    if metadata.traceparent:
        parts.append(pack_printable(TRACEPARENT, "traceparent", metadata.traceparent))
    if metadata.authorization:
        parts.append(pack_printable(AUTHORIZATION, "authorization", metadata.authorization))
    if metadata.idempotency_key:
        if len(metadata.idempotency_key) > 64:
            raise EncodeError("Metadata.idempotency_key", "give 1 to 64 bytes")
        parts.append(_field(IDEMPOTENCY_KEY, "idempotency_key", metadata.idempotency_key))
    if metadata.credit is not None:
        parts.append(_pack_credit(metadata.credit))
    for name, value in metadata.entries.items():
        parts.append(pack_entry(name, value))
    if metadata.resume_after:
        if len(metadata.resume_after) > 64:
            raise EncodeError("Metadata.resume_after", "give 1 to 64 bytes")
        parts.append(_field(RESUME_AFTER, "resume_after", metadata.resume_after))
    block = b"".join(parts)
    if len(block) > MAX_METADATA:
        raise EncodeError("Metadata", f"it has {len(block)} bytes; at most {MAX_METADATA} can be sent")
    return block


def unpack_metadata(block: bytes) -> Metadata:
    """Read a metadata block.

    Raises:
        CallError: INVALID_ARGUMENT, BAD_METADATA for a block that breaks a rule; UNIMPLEMENTED, UNKNOWN_METADATA for a
            key that must be understood and is not. Either is the failure of that call only.
    """
    if len(block) == _DEADLINE.size and block.startswith(_DEADLINE_HEAD):
        return Metadata(deadline_ms=_DEADLINE.unpack(block)[2])
    found: dict[str, Any] = {}
    entries: dict[str, str] = {}
    for key, value in each_field(block):
        known = key & ~CRITICAL
        if known == ENTRY:
            name, text = unpack_entry(value)
            if name in entries:
                raise bad_metadata(f"entry {name!r} is there twice")
            entries[name] = text
        elif known in _READERS:
            attribute, read = _READERS[known]
            if attribute in found:
                raise bad_metadata(f"{attribute} is there twice")
            found[attribute] = read(attribute, value)
        elif key & CRITICAL:
            raise failure(
                "UNKNOWN_METADATA",
                f"metadata key {known} must be understood, and this server does not know it",
            )
    return Metadata(entries=entries, **found)


def each_field(block: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a block: keys, as they are, and values.

    Raises:
        CallError: INVALID_ARGUMENT, BAD_METADATA: the block is broken.
    """
    at = 0
    while at < len(block):
        if len(block) - at < _HEAD.size:
            raise bad_metadata("it ends inside a key")
        key, length = _HEAD.unpack_from(block, at)
        at += _HEAD.size
        value = block[at : at + length]
        if len(value) < length:
            raise bad_metadata(f"key {key} declares {length} bytes and {len(value)} are left")
        at += length
        yield key, value


def pack_entry(name: str, value: str) -> bytes:
    """The field of one entry.

    Raises:
        EncodeError: the name or the value is none.
    """
    path = f"entries[{name!r}]"
    if not _NAME.fullmatch(name):
        raise EncodeError(f"Metadata.{path}", "a name has 1 to 64 characters of a-z 0-9 . _ -")
    try:
        text = value.encode()
    except UnicodeEncodeError:
        raise EncodeError(f"Metadata.{path}", "the text holds a lone surrogate") from None
    return _field(ENTRY, path, bytes([len(name)]) + name.encode() + text)


def is_reserved(name: str) -> bool:
    """Whether an entry cannot have this name where it may have to pass a gateway."""
    return name in _RESERVED or name.startswith(_RESERVED_PREFIXES) or name.endswith(_BINARY)


def as_header(name: str, value: str) -> tuple[str, str | bytes]:
    """An entry as gRPC has it: what is not printable ASCII is bytes, under a name that ends in ``-bin``."""
    if value and value.isascii() and value.isprintable() and value == value.strip():
        return name, value
    return name + _BINARY, value.encode()


def header_size(name: str, value: str | bytes) -> int:
    """Bytes for which HTTP/2 counts a header, 32 more than it has (RFC 9113, 6.5.2). Bytes travel as base64 to all
    peers but those of gRPC's core, a third longer, and it is not for us to know who counts.
    """
    return len(name) + (len(value) if isinstance(value, str) else (4 * len(value) + 2) // 3) + _HEADER


def pack_u32(key: int, path: str, value: int) -> bytes:
    """The field of a number; EncodeError when it is none of 0 to 2**32 - 1."""
    if type(value) is not int or not 0 <= value <= U32_MAX:
        raise EncodeError(f"Metadata.{path}", f"give an integer from 0 to {U32_MAX}")
    return _DEADLINE.pack(key, _U32.size, value)


def _pack_credit(credit: Credit) -> bytes:
    if not all(type(value) is int and 0 <= value <= U32_MAX for value in credit):
        raise EncodeError("Metadata.credit", f"give two integers from 0 to {U32_MAX}")
    return _CREDIT.pack(CREDIT, _TWO_U32.size, *credit)


def pack_printable(key: int, path: str, value: str) -> bytes:
    """The field of a text of printable ASCII; EncodeError when it is none."""
    if not _PRINTABLE.fullmatch(value):
        raise EncodeError(f"Metadata.{path}", "give printable ASCII")
    return _field(key, path, value.encode())


def _field(key: int, path: str, value: bytes) -> bytes:
    if len(value) > MAX_METADATA:
        raise EncodeError(f"Metadata.{path}", f"it has {len(value)} bytes; at most {MAX_METADATA} can be sent")
    return _HEAD.pack(key, len(value)) + value


def bad_metadata(problem: str) -> CallError:
    """The one error for a block that breaks a rule."""
    return failure("BAD_METADATA", f"the metadata cannot be read: {problem}")


def read_u32(attribute: str, value: bytes) -> int:
    """A number that was received; BAD_METADATA when it is none."""
    if len(value) != _U32.size:
        raise bad_metadata(f"{attribute} has {len(value)} bytes and not 4")
    number: int = _U32.unpack(value)[0]
    return number


def _read_credit(attribute: str, value: bytes) -> Credit:
    if len(value) != _TWO_U32.size:
        raise bad_metadata(f"{attribute} has {len(value)} bytes and not {_TWO_U32.size}")
    return Credit._make(_TWO_U32.unpack(value))


def read_printable(attribute: str, value: bytes) -> str:
    """A text of printable ASCII that was received; BAD_METADATA when it is none."""
    text = value.decode("latin-1")
    if not _PRINTABLE.fullmatch(text):
        raise bad_metadata(f"{attribute} is not printable ASCII")
    return text


def _read_key(attribute: str, value: bytes) -> bytes:
    if not 1 <= len(value) <= 64:
        raise bad_metadata(f"{attribute} has {len(value)} bytes and not 1 to 64")
    return value


def unpack_entry(value: bytes) -> tuple[str, str]:
    """The name and the value of an entry that was received; BAD_METADATA when it is none."""
    end = 1 + value[0] if value else 1
    name = value[1:end].decode("latin-1")
    if len(value) < end or not _NAME.fullmatch(name):
        raise bad_metadata("an entry's name is not 1 to 64 characters of a-z 0-9 . _ -")
    try:
        return name, value[end:].decode()
    except UnicodeDecodeError:
        raise bad_metadata(f"entry {name!r} is not UTF-8") from None


_READERS = {
    DEADLINE_MS: ("deadline_ms", read_u32),
    TRACEPARENT: ("traceparent", read_printable),
    AUTHORIZATION: ("authorization", read_printable),
    IDEMPOTENCY_KEY: ("idempotency_key", _read_key),
    CREDIT: ("credit", _read_credit),
    RESUME_AFTER: ("resume_after", _read_key),
}
