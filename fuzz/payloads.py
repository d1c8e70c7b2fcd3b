"""Targets for the codecs: one for each, and one that carries what one codec read through the others."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.codecs.everything import (
    Bounded,
    Branch,
    Defaults,
    Grown,
    Leaf,
    Lists,
    Maps,
    Nothing,
    Optionals,
    Singles,
    TextMaps,
    Three,
)
from tests.vectors.messages import MESSAGES
from wireproto import codecs
from wireproto.codecs import Plan
from wireproto.conformance.fuzzing.messages import random_message
from wireproto.errors import DecodeError
from wireproto.limits import Limits
from wireproto.schema import Message

__all__ = ["CODECS", "differential", "differential_seeds", "payload_seeds", "payload_target", "plans"]

CODECS = ("pipe", "msgpack", "protobuf")

# Few enough for a small input to go beyond.
_LIMITS = Limits(max_elements=8)

_VECTORS = Path(__file__).parent.parent / "tests" / "vectors" / "codecs.json"


class _Route(NamedTuple):
    """What the first byte of an input chooses: a class and a version."""

    message_type: type[Message]
    version: int


# The order is part of the corpus: add at the end.
_ROUTES = [
    *(_Route(cls, 1) for cls in (Singles, Defaults, Optionals, Lists, Maps, TextMaps, Bounded)),
    *(_Route(Grown, version) for version in (1, 2, 3)),
    *(_Route(cls, 1) for cls in (Three, Leaf, Branch, Nothing)),
    *(_Route(cls, 2) for cls in MESSAGES),
]


def plans(codec: str) -> list[Plan[Any]]:
    """How each of the messages is read and written in a codec."""
    return [codecs.get(codec).plan(cls, version, _LIMITS, request=False) for cls, version in _ROUTES]


def payload_target(codec: str) -> Callable[[bytes], None]:
    """The target function for one codec: a byte that chooses the message, then the payload."""
    routes = [(cls, plan.encode, plan.decode) for (cls, _), plan in zip(_ROUTES, plans(codec), strict=True)]
    count = len(routes)

    def run(data: bytes) -> None:
        if not data:
            return
        cls, encode, decode = routes[data[0] % count]
        try:
            message = decode(data[1:])
        except DecodeError as error:
            _check_refusal(error, cls)
            return
        assert type(message) is cls
        canonical = encode(message)
        again = encode(decode(canonical))
        assert again == canonical, f"{canonical!r} was read, and written as {again!r}"

    return run


def _check_refusal(error: DecodeError, cls: type[Message]) -> None:
    assert type(error) is DecodeError, error
    assert error.path.startswith(cls.__name__), error
    # The text travels to the peer in an ERROR: it is for people and quotes no payload.
    assert 0 < len(error.problem) < 200, error


def differential() -> Callable[[bytes], None]:
    """The target function for all codecs together: a byte for the message, one for the codec, then the payload."""
    by_codec = [plans(codec) for codec in CODECS]
    count = len(_ROUTES)

    def run(data: bytes) -> None:
        if len(data) < 2:
            return
        route, source = data[0] % count, data[1] % len(by_codec)
        own = by_codec[source][route]
        try:
            message = own.decode(data[2:])
        except DecodeError:
            return
        canonical = own.encode(message)
        for each in by_codec:
            other = each[route]
            payload = other.encode(message)
            read = other.decode(payload)
            # Compared as bytes: a NaN equals no NaN, and -0.0 equals 0.0.
            assert own.encode(read) == canonical, f"{message!r} became {read!r}"
            assert other.encode(read) == payload, f"{payload!r} is not how {read!r} is written"

    return run


# Seeds --------------------------------------------------------------------------------------------------------------


def payload_seeds(codec: str) -> Iterator[bytes]:
    """The vectors of the codec, and a message of each class."""
    for route, payload in _payloads(codec):
        yield bytes([route]) + payload


def differential_seeds() -> Iterator[bytes]:
    """The same of all codecs."""
    for index, codec in enumerate(CODECS):
        for route, payload in _payloads(codec):
            yield bytes([route, index]) + payload


def _payloads(codec: str) -> Iterator[tuple[int, bytes]]:
    vectors = json.loads(_VECTORS.read_text("utf-8"))
    names = {cls.__name__: number for number, (cls, _) in enumerate(_ROUTES)}
    for vector in vectors["canonical"]:
        payload = vector[codec]
        yield names[vector["message"]], payload.encode() if codec == "pipe" else bytes.fromhex(payload)
    for vector in (*vectors["accepted"], *vectors["refused"]):
        if vector["codec"] == codec:
            yield names[vector["message"]], bytes.fromhex(vector["hex"])
    rng = random.Random(codec)
    for route, ((cls, version), plan) in enumerate(zip(_ROUTES, plans(codec), strict=True)):
        for most in (0, 2, 4):
            yield route, plan.encode(random_message(rng, cls, version, most=most))
