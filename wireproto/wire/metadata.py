"""Metadata: what a request says about itself beside its payload. Layout and rules: ``docs/wire.md``."""

import re
from struct import Struct
from typing import Any

import msgspec

from wireproto.errors import CallError, EncodeError
from wireproto.reasons import failure
from wireproto.wire.frame import U32_MAX, Credit

__all__ = ["CRITICAL", "EMPTY", "MAX_METADATA", "Metadata", "pack_metadata", "unpack_metadata"]

CRITICAL = 0x80
"""A key with this bit set must be understood, or the call is refused; the other seven bits name the key."""

MAX_METADATA = 0xFFFF
"""Bytes: what the header's length field can say."""

DEADLINE_MS, TRACEPARENT, AUTHORIZATION, IDEMPOTENCY_KEY, CREDIT, ENTRY, RESUME_AFTER = range(1, 8)

_HEAD = Struct(">BH")
_U32 = Struct(">I")
_CREDIT = Struct(">BHII")
_TWO_U32 = Struct(">II")
_DEADLINE = Struct(">BHI")  # the whole block of a call that has a deadline and nothing else: by far the commonest
_DEADLINE_HEAD = _HEAD.pack(DEADLINE_MS, _U32.size)
_NAME = re.compile(r"[a-z0-9._-]{1,64}")
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
        parts.append(_pack_u32(DEADLINE_MS, "deadline_ms", metadata.deadline_ms))
    if metadata.traceparent:
        parts.append(_pack_printable(TRACEPARENT, "traceparent", metadata.traceparent))
    if metadata.authorization:
        parts.append(_pack_printable(AUTHORIZATION, "authorization", metadata.authorization))
    if metadata.idempotency_key:
        if len(metadata.idempotency_key) > 64:
            raise EncodeError("Metadata.idempotency_key", "give 1 to 64 bytes")
        parts.append(_field(IDEMPOTENCY_KEY, "idempotency_key", metadata.idempotency_key))
    if metadata.credit is not None:
        parts.append(_pack_credit(metadata.credit))
    for name, value in metadata.entries.items():
        path = f"entries[{name!r}]"
        if not _NAME.fullmatch(name):
            raise EncodeError(f"Metadata.{path}", "a name has 1 to 64 characters of a-z 0-9 . _ -")
        try:
            text = value.encode()
        except UnicodeEncodeError:
            raise EncodeError(f"Metadata.{path}", "the text holds a lone surrogate") from None
        parts.append(_field(ENTRY, path, bytes([len(name)]) + name.encode() + text))
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
    at = 0
    while at < len(block):
        if len(block) - at < _HEAD.size:
            raise _bad("it ends inside a key")
        key, length = _HEAD.unpack_from(block, at)
        at += _HEAD.size
        value = block[at : at + length]
        if len(value) < length:
            raise _bad(f"key {key} declares {length} bytes and {len(value)} are left")
        at += length
        known = key & ~CRITICAL
        if known == ENTRY:
            name, text = _unpack_entry(value)
            if name in entries:
                raise _bad(f"entry {name!r} is there twice")
            entries[name] = text
        elif known in _READERS:
            attribute, read = _READERS[known]
            if attribute in found:
                raise _bad(f"{attribute} is there twice")
            found[attribute] = read(attribute, value)
        elif key & CRITICAL:
            raise failure(
                "UNKNOWN_METADATA",
                f"metadata key {known} must be understood, and this server does not know it",
            )
    return Metadata(entries=entries, **found)


def _pack_u32(key: int, path: str, value: int) -> bytes:
    if type(value) is not int or not 0 <= value <= U32_MAX:
        raise EncodeError(f"Metadata.{path}", f"give an integer from 0 to {U32_MAX}")
    return _DEADLINE.pack(key, _U32.size, value)


def _pack_credit(credit: Credit) -> bytes:
    if not all(type(value) is int and 0 <= value <= U32_MAX for value in credit):
        raise EncodeError("Metadata.credit", f"give two integers from 0 to {U32_MAX}")
    return _CREDIT.pack(CREDIT, _TWO_U32.size, *credit)


def _pack_printable(key: int, path: str, value: str) -> bytes:
    if not _PRINTABLE.fullmatch(value):
        raise EncodeError(f"Metadata.{path}", "give printable ASCII")
    return _field(key, path, value.encode())


def _field(key: int, path: str, value: bytes) -> bytes:
    if len(value) > MAX_METADATA:
        raise EncodeError(f"Metadata.{path}", f"it has {len(value)} bytes; at most {MAX_METADATA} can be sent")
    return _HEAD.pack(key, len(value)) + value


def _bad(problem: str) -> CallError:
    return failure("BAD_METADATA", f"the metadata cannot be read: {problem}")


def _read_u32(attribute: str, value: bytes) -> int:
    if len(value) != _U32.size:
        raise _bad(f"{attribute} has {len(value)} bytes and not 4")
    number: int = _U32.unpack(value)[0]
    return number


def _read_credit(attribute: str, value: bytes) -> Credit:
    if len(value) != _TWO_U32.size:
        raise _bad(f"{attribute} has {len(value)} bytes and not {_TWO_U32.size}")
    return Credit._make(_TWO_U32.unpack(value))


def _read_printable(attribute: str, value: bytes) -> str:
    text = value.decode("latin-1")
    if not _PRINTABLE.fullmatch(text):
        raise _bad(f"{attribute} is not printable ASCII")
    return text


def _read_key(attribute: str, value: bytes) -> bytes:
    if not 1 <= len(value) <= 64:
        raise _bad(f"{attribute} has {len(value)} bytes and not 1 to 64")
    return value


def _unpack_entry(value: bytes) -> tuple[str, str]:
    end = 1 + value[0] if value else 1
    name = value[1:end].decode("latin-1")
    if len(value) < end or not _NAME.fullmatch(name):
        raise _bad("an entry's name is not 1 to 64 characters of a-z 0-9 . _ -")
    try:
        return name, value[end:].decode()
    except UnicodeDecodeError:
        raise _bad(f"entry {name!r} is not UTF-8") from None


_READERS = {
    DEADLINE_MS: ("deadline_ms", _read_u32),
    TRACEPARENT: ("traceparent", _read_printable),
    AUTHORIZATION: ("authorization", _read_printable),
    IDEMPOTENCY_KEY: ("idempotency_key", _read_key),
    CREDIT: ("credit", _read_credit),
    RESUME_AFTER: ("resume_after", _read_key),
}
