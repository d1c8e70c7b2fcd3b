"""Codecs that another distribution might bring, whose payloads are of other sizes than those of the built-in three."""

import json
import zlib
from typing import Any

from wireproto import codecs

LEAST = 1000
"""Every payload of ``StuffedCodec`` is a multiple of so many bytes."""


def _mark(value: Any) -> Any:
    if isinstance(value, dict):
        return {"pairs": [[key, _mark(value[key])] for key in sorted(value)]}
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return [_mark(each) for each in value] if isinstance(value, list) else value


def _unmark(pairs: list[tuple[str, Any]]) -> bytes | dict[Any, Any]:
    match pairs:
        case [("hex", str(text))]:
            return bytes.fromhex(text)
        case [("pairs", [*rows])] if len({key for key, _ in rows}) == len(rows):
            return dict(rows)
    raise ValueError("neither bytes nor a map of different keys")


class HexCodec(codecs.PlainCodec):
    """JSON, which has no bytes: two digits for each."""

    name, id = "hexed", 200

    def dumps(self, value: list[Any]) -> bytes:
        return json.dumps(_mark(value), ensure_ascii=False, separators=(",", ":")).encode()

    def loads(self, payload: bytes) -> object:
        return json.loads(payload.decode(), object_pairs_hook=_unmark)


class SqueezedCodec(HexCodec):
    """The same, compressed: what is all zeros takes no room, however long it is."""

    name, id = "squeezed", 201

    def dumps(self, value: list[Any]) -> bytes:
        return zlib.compress(super().dumps(value))

    def loads(self, payload: bytes) -> object:
        reader = zlib.decompressobj()
        text = reader.decompress(payload)
        if not reader.eof or reader.unused_data:
            raise ValueError("the payload ends early, or goes on")
        return super().loads(text)


class StuffedCodec(HexCodec):
    """The same with spaces behind it: few sizes can be had, and the least of them is more than some methods take."""

    name, id = "stuffed", 202

    def dumps(self, value: list[Any]) -> bytes:
        data = super().dumps(value)
        return data + b" " * (-len(data) % LEAST)

    def loads(self, payload: bytes) -> object:
        if len(payload) % LEAST:
            raise ValueError("the payload ends early, or goes on")
        return super().loads(payload)
