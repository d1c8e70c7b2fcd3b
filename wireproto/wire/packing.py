"""Payloads that are packed: what they are between a frame and a message, and the algorithms.

A packed payload travels as an object of its own kind, so that nobody takes it for the message's bytes: it stays packed
while it waits, and ``unpack`` is called by whoever decodes it. Its ``len`` is that of the payload it stands for,
because every limit and credit counts that one. Layout and rules: ``docs/wire.md``.
"""

import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Final, NamedTuple, TypeAlias

from wireproto.errors import ConfigError, DecodeError, RemoteProtocolError
from wireproto.wire.frame import HEADER_AFTER_LENGTH, Frame, bad_body

__all__ = [
    "ALGORITHMS",
    "PACKED_FROM",
    "Packed",
    "Packing",
    "Payload",
    "numbers_of",
    "pack_payload",
    "plain",
    "read_packed",
]

PACKED_FROM: Final = 512
"""Bytes from which on a payload is worth packing: below it the time of either side costs more than the bytes."""

_LENGTH = struct.Struct(">I")
_MAX_WINDOW_LOG: Final = 20  # of a zstd frame: what a receiver keeps beside the payload is 1 MiB


class Packed:
    """A payload that is packed. Never changed, so any thread may read it.

    Attributes:
        body: what the frame holds: the unpacked length as u32, then the stream.
        algorithm: the number of the algorithm; it was agreed on in the handshake.
    """

    __slots__ = ("_length", "algorithm", "body")

    def __init__(self, algorithm: int, body: bytes) -> None:
        self.algorithm = algorithm
        self.body = body
        self._length: int = _LENGTH.unpack_from(body)[0]

    def __len__(self) -> int:
        """The bytes that it stands for, 1 or more; they are as many as the sender says, or ``unpack`` fails."""
        return self._length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and (self.algorithm, self.body) == (other.algorithm, other.body)

    def __hash__(self) -> int:
        return hash((self.algorithm, self.body))

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self.algorithm, self.body)

    def __repr__(self) -> str:
        return f"<Packed {len(self.body)} bytes for {self._length}>"

    def unpack(self) -> bytes:
        """The payload. Whatever the stream holds, this takes at most twice the longer one of both while it is made:
        the payload by its declared length, and the stream by its own.

        Raises:
            DecodeError: the stream is none of the algorithm, or is cut, or bytes follow it, or it holds another number
                of bytes than was said.
        """
        data, problem = _BY_NUMBER[self.algorithm].unpack(memoryview(self.body)[_LENGTH.size :], self._length)
        if not problem and len(data) != self._length:
            more = "more than" if len(data) > self._length else f"{len(data)} of"
            problem = f"its stream holds {more} the {self._length} bytes that were declared"
        if problem:
            raise DecodeError("the packed payload", problem)
        return data


Payload: TypeAlias = bytes | Packed
"""The payload of a REQUEST, a RESPONSE or an ITEM."""


def plain(payload: Payload) -> bytes:
    """The payload, unpacked if it is packed.

    Raises:
        DecodeError: as ``Packed.unpack``.
    """
    return payload if isinstance(payload, bytes) else payload.unpack()


class Packing(NamedTuple):
    """An algorithm.

    Attributes:
        name: as options have it.
        number: as the handshake has it, 1 to 255.
        pack: a payload to a stream.
        unpack: a stream, and the length that was declared, to at most one byte more than that, and what is wrong with
            the stream; "" for nothing.
    """

    name: str
    number: int
    pack: Callable[[bytes], bytes]
    unpack: Callable[[memoryview, int], tuple[bytes, str]]


def pack_payload(payload: bytes, algorithm: int) -> Payload:
    """The payload packed, where it is long enough for that and becomes shorter by it; else as it is."""
    if len(payload) < PACKED_FROM:
        return payload
    stream = _BY_NUMBER[algorithm].pack(payload)
    if _LENGTH.size + len(stream) >= len(payload):
        return payload
    return Packed(algorithm, _LENGTH.pack(len(payload)) + stream)


def read_packed(frame: Frame, algorithm: int, max_frame: int) -> Packed:
    """The payload of a frame that has the flag. Nothing is unpacked.

    Raises:
        RemoteProtocolError: BAD_BODY, or FRAME_TOO_LARGE where the frame would be longer than accepted if it were not
            packed.
    """
    if len(frame.payload) <= _LENGTH.size:
        raise bad_body(frame.kind, f"it is packed and has {len(frame.payload)} bytes; the least is {_LENGTH.size + 1}")
    packed = Packed(algorithm, frame.payload)
    length = HEADER_AFTER_LENGTH + len(frame.metadata) + len(packed)
    if not len(packed):
        raise bad_body(frame.kind, "it is packed and stands for 0 bytes")
    if length > max_frame:
        raise RemoteProtocolError(
            "FRAME_TOO_LARGE", f"a packed frame stands for one of {length} bytes; at most {max_frame} are accepted here"
        )
    return packed


def numbers_of(names: Iterable[str]) -> tuple[int, ...]:
    """The numbers of algorithms that an application names, in its order.

    Raises:
        ConfigError: one is not known, or not installed, or named twice.
    """
    return _numbers((names,) if isinstance(names, str) else tuple(names))


@cache
def _numbers(listed: tuple[str, ...]) -> tuple[int, ...]:  # each client asks, and nearly all for the same
    if len(set(listed)) < len(listed):
        raise ConfigError(f"compression names an algorithm twice: {', '.join(map(repr, listed))}")
    for name in listed:
        if name not in ALGORITHMS:
            raise ConfigError(f"compression {name!r} is not known; there are {', '.join(ALGORITHMS)}, and () for none")
        if name == "zstd":
            _zstd()
    return tuple(ALGORITHMS[name].number for name in listed)


# zlib ----------------------------------------------------------------------------------------------------------------


def _pack_zlib(payload: bytes) -> bytes:
    return zlib.compress(payload, 1)  # 157 MB/s of text at 3.3 : 1; level 6, the default, has 27 at 4.2 : 1


def _unpack_zlib(stream: memoryview, length: int) -> tuple[bytes, str]:
    reader = zlib.decompressobj()
    try:
        # With room for one byte more, or the end of a stream that is right would not be looked at.
        data = reader.decompress(stream, length + 1)
    except zlib.error:
        return b"", "its stream is not zlib's, or is broken"
    return data, _ending(data, length, reader.eof, reader.unused_data)


# zstd ----------------------------------------------------------------------------------------------------------------


def _zstd() -> ModuleType:
    """The package, which is part of Python from 3.14 on; loaded when it is asked for first.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError:
        raise ConfigError("compression 'zstd' needs a package: pip install 'wireproto[zstd]'") from None


def _pack_zstd(payload: bytes) -> bytes:
    zstd = _zstd()
    stream: bytes = zstd.compress(payload, options={zstd.CompressionParameter.window_log: _MAX_WINDOW_LOG})
    return stream


def _unpack_zstd(stream: memoryview, length: int) -> tuple[bytes, str]:
    zstd = _zstd()
    reader = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
    try:
        data = reader.decompress(stream, length + 1)
    except zstd.ZstdError:
        return b"", f"its stream is no zstd frame without a dictionary and with a window of at most {1 << 20} bytes"
    return data, _ending(data, length, reader.eof, reader.unused_data)


def _ending(data: bytes, length: int, ended: bool, rest: bytes) -> str:
    if len(data) > length:
        return ""  # said by whoever compares the lengths
    if not ended:
        return "its stream is cut"
    return f"{len(rest)} bytes follow its stream" if rest else ""


_BY_NUMBER: Final = {
    packing.number: packing
    for packing in (Packing("zlib", 1, _pack_zlib, _unpack_zlib), Packing("zstd", 2, _pack_zstd, _unpack_zstd))
}

ALGORITHMS: Final = {packing.name: packing for packing in _BY_NUMBER.values()}
"""Those that are known here, by name."""
