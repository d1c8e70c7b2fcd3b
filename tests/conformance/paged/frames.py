"""Sections 2, 5 and 6: the header of a frame, the metadata of a REQUEST, and bodies of fixed layout."""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tests.conformance.paged.numbers import (
    INVALID_ARGUMENT,
    MAX_METADATA,
    NEVER,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    Failure,
    Final,
)

__all__ = ["Body", "Header", "Metadata", "error_body", "field", "metadata_of", "packed", "read_error", "text8"]


class Header(NamedTuple):
    length: int
    kind: int
    flags: int
    codec: int
    version: int
    opcode: int
    metadata: int
    call_id: int


def packed(
    kind: int,
    payload: bytes,
    codec: int,
    version: int,
    opcode: int,
    call_id: int,
    flags: int = 0,
    block: bytes = b"",
) -> bytes:
    """A frame, with the metadata of an answer."""
    head = Header(12 + len(block) + len(payload), kind, flags, codec, version, opcode, len(block), call_id)
    return struct.pack(">IBBBBHHI", *head) + block + payload


def field(key: int, value: bytes) -> bytes:
    """Of metadata, and of an ERROR."""
    return bytes([key]) + len(value).to_bytes(2) + value


def text8(text: str) -> bytes:
    return bytes([len(text.encode())]) + text.encode()


def error_body(status: int, reason: str, text: str, retry: int = NEVER, after: int = 0) -> bytes:
    said = text.encode()[:2048].decode("utf-8", "ignore").encode()
    return struct.pack(">BBI", status, retry, after) + text8(reason) + len(said).to_bytes(2) + said


class Body:
    """A body of fixed layout."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if len(self.data) - self.at < size:
            raise Final("BAD_BODY", "it ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def text(self, width: int = 1) -> str:
        try:
            return self.take(self.number(width)).decode()
        except UnicodeDecodeError:
            raise Final("BAD_BODY", "a text is no UTF-8") from None

    def fields(self, width: int) -> Iterator[tuple[int, bytes]]:
        while self.at < len(self.data):
            yield self.number(width), self.take(self.number(2))


def read_error(payload: bytes) -> None:
    """A client's ERROR, or what is behind the id in its GOAWAY."""
    body = Body(payload)
    status = body.number(1)
    body.take(5)
    body.take(body.number(1))  # a reason outside its alphabet is read as none
    body.text(2)
    for _ in body.fields(1):
        pass
    if not status:
        raise Final("BAD_BODY", "an ERROR")


class Metadata(NamedTuple):
    deadline_ms: int | None
    traceparent: str
    authorization: str
    idempotency_key: bytes
    credit: tuple[int, int]
    entries: dict[str, str]
    resume_after: bytes


SIZES = {1: (4, 4), 2: (1, 0xFFFF), 3: (1, 0xFFFF), 4: (1, 64), 5: (8, 8), 7: (1, 64)}


def metadata_of(block: bytes) -> Metadata:
    if len(block) > MAX_METADATA:
        raise Failure(RESOURCE_EXHAUSTED, "METADATA_TOO_LARGE", f"at most {MAX_METADATA} bytes")
    found: dict[int, bytes] = {}
    entries: dict[str, str] = {}
    unknown = False
    try:
        for key, value in Body(block).fields(1):
            if key & 0x7F not in range(1, 8):
                unknown |= key > 127
            elif key & 0x7F == 6:
                body = Body(value)
                name = body.text()
                if not re.fullmatch("[a-z0-9._-]{1,64}", name) or name in entries:
                    raise ValueError
                entries[name] = value[body.at :].decode()
            elif key & 0x7F in found:
                raise ValueError
            else:
                found[key & 0x7F] = value
        if any(not SIZES[key][0] <= len(value) <= SIZES[key][1] for key, value in found.items()):
            raise ValueError
        if not all(0x20 <= each <= 0x7E for key in (2, 3) for each in found.get(key, b"")):
            raise ValueError
    except (Final, ValueError):
        raise Failure(INVALID_ARGUMENT, "BAD_METADATA", "the metadata break a rule") from None
    if unknown:
        raise Failure(UNIMPLEMENTED, "UNKNOWN_METADATA", "a key that must be understood is not")
    return Metadata(
        int.from_bytes(found[1]) if 1 in found else None,
        found.get(2, b"").decode(),
        found.get(3, b"").decode(),
        found.get(4, b""),
        struct.unpack(">II", found.get(5, bytes(8))),
        entries,
        found.get(7, b""),
    )
