"""A codec of one's own: JSON. What it lacks are bytes, {"hex": "00ff"}, and maps, {"keys": [...], "values": [...]}."""

import json
from typing import Any

from wireproto import Server, codecs, connect


class JsonCodec(codecs.PlainCodec):
    name, id = "json", 200

    def dumps(self, value: list[Any]) -> bytes:
        return json.dumps(mark(value), ensure_ascii=False, separators=(",", ":")).encode()

    def loads(self, payload: bytes) -> object:
        return json.loads(payload.decode(), object_pairs_hook=unmark)


def mark(value: Any) -> Any:
    kind = value.__class__
    if kind is dict:
        return {"keys": sorted(value), "values": [mark(value[key]) for key in sorted(value)]}
    return {"hex": value.hex()} if kind is bytes else [mark(each) for each in value] if kind is list else value


def unmark(pairs: list[tuple[str, Any]]) -> bytes | dict[Any, Any]:
    match pairs:
        case [("hex", text)]:
            return bytes.fromhex(text)
        case [("keys", [*keys]), ("values", [*values])] if len(set(keys)) == len(keys):
            return dict(zip(keys, values, strict=True))
        case _:
            raise ValueError("neither bytes nor a map of different keys")


if __name__ == "__main__":
    from calculator import ADD, CALCULATOR, AddRequest, handlers

    with Server(handlers, codecs=[JsonCodec()]) as server, connect(server.address, CALCULATOR, codec=JsonCodec()) as c:
        print(c.call(ADD, AddRequest(left=2, right=3)).total)
