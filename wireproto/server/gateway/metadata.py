"""HTTP/2 headers as a call's ``Metadata``, under the rules that the TCP door has for its metadata block.

There is no header for credit: HTTP/2 says how far a stream may send ahead.
"""

from collections.abc import Iterable

from wireproto.answering.refusals import metadata_too_large
from wireproto.errors import CallError
from wireproto.reasons import failure
from wireproto.wire.frame import U32_MAX
from wireproto.wire.metadata import EMPTY, Metadata

__all__ = ["VERSION_HEADER", "read_headers"]

VERSION_HEADER = "wireproto-version"
"""Which version of the service the call is written in; the newest without it."""

RESUME_AFTER_HEADER = "wireproto-resume-after"
"""The position of the last item that the caller of a resumable stream has; with ``-bin`` behind it."""

_BINARY = "-bin"

# What HTTP/2, gRPC and its libraries send by themselves: no caller's business.
_TRANSPORT = frozenset({"accept-encoding", "content-type", "te", "user-agent"})
_TRANSPORT_PREFIXES = ("grpc-", ":")

_SINGLE = frozenset({"authorization", "idempotency-key", "traceparent", VERSION_HEADER, RESUME_AFTER_HEADER})
"""What is no list: a second one would make another of the first."""

_BYTES = frozenset({"idempotency-key", RESUME_AFTER_HEADER})
"""What may be any bytes, and is not read as text."""

_FIELD, _NAMED, _NUMBER = 3, 4, 7
"""Bytes of a metadata block beside the value: of a field, of an entry beside its name, and all of a number's."""


def read_headers(
    headers: Iterable[tuple[str, str | bytes]], deadline_ms: int | None, most: int
) -> tuple[Metadata, int | None]:
    """What the headers say of a call, and the service version they ask for.

    Args:
        headers: names in lower case; values are bytes where the name ends in ``-bin``.
        deadline_ms: what was left of the deadline when the call came, or None.
        most: bytes that the same metadata may have as a block on the TCP door.

    Raises:
        CallError: BAD_METADATA, METADATA_TOO_LARGE or UNSUPPORTED_VERSION, as over TCP.
    """
    found: dict[str, str | bytes] = {}
    binary: dict[str, str | bytes] | None = None
    for name, value in headers:
        if name in _TRANSPORT or name.startswith(_TRANSPORT_PREFIXES):
            continue
        if name.endswith(_BINARY):
            binary = binary or {}
            _keep(binary, name[: -len(_BINARY)], value)
        else:
            _keep(found, name, value)
    if binary:
        _take_binary(found, binary)
    size = sum(
        _NAMED + len(name) + len(value if isinstance(value, bytes) else value.encode()) for name, value in found.items()
    )
    if not found:
        return (EMPTY if deadline_ms is None else Metadata(deadline_ms=deadline_ms)), None
    version = found.pop(VERSION_HEADER, None)
    if version is not None:
        size -= _NAMED + len(VERSION_HEADER) + len(version)  # in the handshake, over TCP
    own = {}
    for name in ("traceparent", "authorization", "idempotency-key", RESUME_AFTER_HEADER):
        value = found.pop(name, "")
        own[name] = value
        if value:
            size += _FIELD - _NAMED - len(name)
    if deadline_ms is not None:
        size += _NUMBER
    if size > most:
        raise metadata_too_large(size, most)
    key = _short("idempotency_key", own["idempotency-key"])
    resume_after = _short("resume_after", own[RESUME_AFTER_HEADER])
    entries = {}
    for name, value in found.items():
        if not 1 <= len(name) <= 64:
            raise _bad("an entry's name is not 1 to 64 characters of a-z 0-9 . _ -")
        entries[name] = _text(value)
    metadata = Metadata(
        deadline_ms=deadline_ms,
        traceparent=_printable("traceparent", own["traceparent"]),
        authorization=_printable("authorization", own["authorization"]),
        idempotency_key=key,
        entries=entries,
        resume_after=resume_after,
    )
    return metadata, None if version is None else _number(VERSION_HEADER, version)


def _keep(found: dict[str, str | bytes], name: str, value: str | bytes) -> None:
    """Add a header. One that is there before is one list in several lines, as HTTP has it (RFC 9110, 5.3)."""
    before = found.get(name)
    if before is None:
        found[name] = value
    elif name in _SINGLE:
        raise _bad(f"{name} is there twice")
    elif isinstance(before, bytes) and isinstance(value, bytes):
        found[name] = before + b", " + value
    else:
        found[name] = f"{_text(before)}, {_text(value)}"


def _take_binary(found: dict[str, str | bytes], binary: dict[str, str | bytes]) -> None:
    """Add what came under names with ``-bin``: an entry that is not ASCII, for gRPC has no other way to send it."""
    for name, value in binary.items():
        if name in _SINGLE and name in found:
            raise _bad(f"{name} is there twice, once as {name}{_BINARY}")
        if isinstance(value, bytes) and name not in _BYTES:
            try:
                value = value.decode()
            except UnicodeDecodeError:
                continue  # some proxy's own; on the TCP door there is no such thing
        found[name if name not in found else name + _BINARY] = value


def _short(name: str, value: str | bytes) -> bytes:
    octets = value.encode() if isinstance(value, str) else value
    if len(octets) > 64:
        raise _bad(f"{name} has {len(octets)} bytes and not 1 to 64")
    return octets


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _printable(name: str, value: str | bytes) -> str:
    text = _text(value)
    if not (text.isascii() and text.isprintable()):  # only under its name with ``-bin``
        raise _bad(f"{name} is not printable ASCII")
    return text


def _number(name: str, value: str | bytes) -> int:
    text = _text(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 10) or int(text) > U32_MAX:
        raise _bad(f"{name} is not a number from 0 to {U32_MAX}")
    return int(text)


def _bad(problem: str) -> CallError:
    return failure("BAD_METADATA", f"the metadata cannot be read: {problem}")
